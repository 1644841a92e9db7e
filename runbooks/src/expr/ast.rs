//! The tree of an expression.

use super::At;
use super::facts::FactKind;
use super::functions::Function;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) at: At,
    /// Where it ends, in bytes of the file.
    pub(super) until: usize,
    /// How deep the tree below it is; a leaf is 1.
    pub(super) depth: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Name(String),
    Field(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    /// `has(a.b)`: the inner node is a field.
    Has(Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Op, Box<Node>, Box<Node>),
    Choose(Box<Node>, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
    Fact(FactKind, Vec<Node>),
    Loop(Box<Loop>),
}

#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) what: LoopKind,
    pub(super) range: Node,
    pub(super) var: String,
    /// Only in `map(x, condition, body)`.
    pub(super) condition: Option<Node>,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Op {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Op::Or => "||",
            Op::And => "&&",
            Op::Equal => "==",
            Op::NotEqual => "!=",
            Op::Less => "<",
            Op::LessEqual => "<=",
            Op::Greater => ">",
            Op::GreaterEqual => ">=",
            Op::In => "in",
            Op::Add => "+",
            Op::Subtract => "-",
            Op::Multiply => "*",
            Op::Divide => "/",
            Op::Remainder => "%",
        }
    }

    /// A higher one binds tighter.
    pub(super) fn strength(self) -> u8 {
        match self {
            Op::Or => 2,
            Op::And => 3,
            Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual | Op::In => {
                4
            }
            Op::Add | Op::Subtract => 5,
            Op::Multiply | Op::Divide | Op::Remainder => 6,
        }
    }
}

impl Node {
    /// The nodes directly below.
    pub(super) fn children(&self) -> Vec<&Node> {
        match &self.kind {
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Number(_) | Kind::Text(_) | Kind::Name(_) => {
                vec![]
            }
            Kind::List(items) | Kind::Call(_, items) | Kind::Fact(_, items) => items.iter().collect(),
            Kind::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Kind::Field(of, _) | Kind::Has(of) | Kind::Not(of) | Kind::Negate(of) => vec![of],
            Kind::Index(left, right) | Kind::Binary(_, left, right) => vec![left, right],
            Kind::Choose(condition, then, other) => vec![condition, then, other],
            Kind::Loop(inner) => {
                let mut all = vec![&inner.range];
                all.extend(inner.condition.as_ref());
                all.push(&inner.body);
                all
            }
        }
    }

    /// Whether any node of the tree is such.
    pub(super) fn any(&self, such: &impl Fn(&Node) -> bool) -> bool {
        such(self) || self.children().into_iter().any(|child| child.any(such))
    }

    /// `a.b.c` and `a["b"].c` as names, if it is nothing but that.
    pub(super) fn path(&self) -> Option<Vec<&str>> {
        match &self.kind {
            Kind::Name(name) => Some(vec![name]),
            Kind::Field(of, name) => {
                let mut path = of.path()?;
                path.push(name);
                Some(path)
            }
            Kind::Index(of, index) => {
                let Kind::Text(name) = &index.kind else { return None };
                let mut path = of.path()?;
                path.push(name);
                Some(path)
            }
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Number(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Map(_)
            | Kind::Has(_)
            | Kind::Not(_)
            | Kind::Negate(_)
            | Kind::Binary(..)
            | Kind::Choose(..)
            | Kind::Call(..)
            | Kind::Fact(..)
            | Kind::Loop(_) => None,
        }
    }
}
