//! Tree to type, or to everything wrong with it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever is not a written-out text is treated as computed"
)]

use std::collections::BTreeMap;

use super::ast::{Kind, Loop, LoopKind, Node, Op};
use super::facts::{FactKind, Param};
use super::functions::Function;
use super::{Env, ExprProblem};
use crate::problem::name_help;
use crate::value::Type;

/// The type of the expression.
pub(super) fn check(root: &Node, env: &Env) -> Result<Type, Vec<ExprProblem>> {
    let mut checker = Checker { env, locals: Vec::new(), problems: Vec::new() };
    let ty = checker.ty(root);
    if checker.problems.is_empty() { Ok(ty) } else { Err(checker.problems) }
}

struct Local {
    name: String,
    ty: Type,
    /// Its values come from a fact, so no fact's argument may use it.
    from_facts: bool,
}

struct Checker<'a> {
    env: &'a Env,
    locals: Vec<Local>,
    problems: Vec<ExprProblem>,
}

impl Checker<'_> {
    fn problem(&mut self, code: &'static str, node: &Node, message: String, help: Option<String>) -> Type {
        self.problems.push(ExprProblem { code, at: node.at, until: node.until, message, help });
        Type::Any
    }

    fn mismatch(&mut self, node: &Node, message: String, help: Option<String>) -> Type {
        self.problem("expression-type", node, message, help)
    }

    fn ty(&mut self, node: &Node) -> Type {
        match &node.kind {
            Kind::Null => Type::Null,
            Kind::Bool(_) => Type::Bool,
            Kind::Int(_) => Type::Int,
            Kind::Number(_) => Type::Number,
            Kind::Text(_) => Type::String,
            Kind::List(items) => {
                let types: Vec<Type> = items.iter().map(|item| self.ty(item)).collect();
                Type::List(Box::new(common(types)))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Name(name) => self.name(node, name),
            Kind::Field(of, name) => self.field(node, of, name),
            Kind::Has(field) => {
                // The last field may be missing, that is the question; what it stands on must be there.
                let before = self.problems.len();
                self.ty(field);
                let optional = matches!(&field.kind, Kind::Field(of, _) if self.is_open(of));
                if optional {
                    self.problems.truncate(before);
                }
                Type::Bool
            }
            Kind::Index(of, index) => self.index(node, of, index),
            Kind::Not(of) => {
                let ty = self.ty(of);
                self.want(of, &ty, &Type::Bool, "`!`");
                Type::Bool
            }
            Kind::Negate(of) => {
                let ty = self.ty(of);
                if !matches!(ty, Type::Any | Type::Int | Type::Number) {
                    self.mismatch(of, format!("`-` takes a number, this is {}", ty.named()), None);
                }
                ty
            }
            Kind::Binary(op, left, right) => self.binary(node, *op, left, right),
            Kind::Choose(condition, then, other) => {
                let ty = self.ty(condition);
                self.want(condition, &ty, &Type::Bool, "`? :`");
                let (then, other) = (self.ty(then), self.ty(other));
                common(vec![then, other])
            }
            Kind::Call(function, args) => self.call(node, *function, args),
            Kind::Fact(fact, args) => self.fact(node, *fact, args),
            Kind::Loop(inner) => self.repeated(inner),
        }
    }

    /// Whether fields of it may be there or not, so that `has` makes sense.
    fn is_open(&mut self, node: &Node) -> bool {
        let before = self.problems.len();
        let ty = self.ty(node);
        self.problems.truncate(before);
        matches!(ty, Type::Any | Type::Map(_))
    }

    fn want(&mut self, node: &Node, found: &Type, wanted: &Type, by: &str) {
        if found != wanted && *found != Type::Any {
            let help = match found {
                _ if *wanted == Type::Duration => {
                    Some("a length of time is written `duration(\"30s\")`".to_owned())
                }
                Type::String => Some("compare it, for instance with `!= \"\"`".to_owned()),
                Type::Int | Type::Number => Some("compare it, for instance with `> 0`".to_owned()),
                Type::Record(fields) => fields
                    .iter()
                    .find(|(_, ty)| *ty == wanted)
                    .map(|(name, _)| format!("did you mean its field `.{name}`?")),
                Type::Any | Type::Null | Type::Bool | Type::Duration | Type::List(_) | Type::Map(_) => None,
            };
            self.mismatch(node, format!("{by} takes {}, this is {}", wanted.named(), found.named()), help);
        }
    }

    fn map(&mut self, entries: &[(Node, Node)]) -> Type {
        let mut fields = BTreeMap::new();
        let mut fixed = true;
        for (key, value) in entries {
            let ty = self.ty(key);
            self.want(key, &ty, &Type::String, "a key of a map");
            let ty = self.ty(value);
            match &key.kind {
                Kind::Text(name) => {
                    if fields.insert(name.clone(), ty).is_some() {
                        self.mismatch(key, format!("the key `{name}` is given twice"), None);
                    }
                }
                _ => fixed = false,
            }
        }
        if fixed { Type::Record(fields) } else { Type::Map(Box::new(Type::Any)) }
    }

    fn name(&mut self, node: &Node, name: &str) -> Type {
        if let Some(local) = self.locals.iter().rev().find(|local| local.name == name) {
            return local.ty.clone();
        }
        if let Some(ty) = self.env.vars.get(name) {
            return ty.clone();
        }
        if let Some(why) = self.env.elsewhere.get(name) {
            let message = format!("`{name}` cannot be used here: {why}");
            return self.problem("not-in-scope", node, message, None);
        }
        let needs_args = FactKind::named(name).map(|fact| format!("write `{}`", fact.form()));
        let calls = Function::named(name).map(|_| format!("`{name}` is a function: write `{name}(…)`"));
        let help = needs_args.or(calls).or_else(|| self.name_help(name));
        self.problem("unknown-name", node, format!("there is no `{name}` here"), help)
    }

    fn name_help(&self, name: &str) -> Option<String> {
        // A bare name is often an input or an output written without its first part.
        let inside = ["inputs", "labels", "host"].iter().find_map(|var| match self.env.vars.get(*var) {
            Some(Type::Record(fields)) if fields.contains_key(name) => {
                Some(format!("did you mean `{var}.{name}`?"))
            }
            Some(_) | None => None,
        });
        let facts = FactKind::ALL.into_iter().filter(|_| self.env.no_facts.is_none()).map(FactKind::name);
        let facts = facts.map(|name| -> &str { name });
        let vars = self.env.vars.keys().map(String::as_str);
        let locals = self.locals.iter().map(|local| local.name.as_str());
        inside.or_else(|| name_help(name, vars.chain(locals).chain(facts)))
    }

    fn field(&mut self, node: &Node, of: &Node, name: &str) -> Type {
        let ty = self.ty(of);
        self.member(node, of, &ty, name)
    }

    fn member(&mut self, node: &Node, of: &Node, ty: &Type, name: &str) -> Type {
        match ty {
            Type::Any => Type::Any,
            Type::Map(value) => (**value).clone(),
            Type::Record(fields) => match fields.get(name) {
                Some(ty) => {
                    if node.path().is_some_and(|path| path == ["inputs", name])
                        && self.env.secrets.contains(name)
                    {
                        let message = format!(
                            "`inputs.{name}` is a secret, which must not appear in text or conditions"
                        );
                        return self.problem("secret-in-text", node, message, None);
                    }
                    ty.clone()
                }
                None => self.no_field(node, of, fields, name),
            },
            Type::Null
            | Type::Bool
            | Type::Int
            | Type::Number
            | Type::String
            | Type::Duration
            | Type::List(_) => {
                let message =
                    format!("there is no field `{name}`: what stands before the dot is {}", ty.named());
                self.mismatch(node, message, None)
            }
        }
    }

    fn no_field(&mut self, node: &Node, of: &Node, fields: &BTreeMap<String, Type>, name: &str) -> Type {
        let path = of.path().map(|path| path.join("."));
        let whole = path.as_ref().map(|path| format!("{path}.{name}"));
        if let Some(why) = whole.as_ref().and_then(|whole| self.env.elsewhere.get(whole)) {
            let message = format!("`{}` cannot be used here: {why}", whole.unwrap_or_default());
            return self.problem("not-in-scope", node, message, None);
        }
        let dashed =
            fields.keys().find(|field| field.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')));
        let help = match (dashed, &path) {
            (Some(dashed), Some(path)) => Some(format!("a name with `-` is written `{path}[\"{dashed}\"]`")),
            (_, _) => name_help(name, fields.keys().map(String::as_str)),
        };
        let what = match path.as_deref() {
            Some("inputs") => format!("there is no input `{name}`"),
            Some("steps") => format!("there is no step `{name}`"),
            Some(path) => match path.strip_prefix("steps.") {
                Some(step) => format!("the step `{step}` has no output `{name}`"),
                None => format!("`{path}` has no field `{name}`"),
            },
            None => format!("there is no field `{name}`"),
        };
        self.problem("unknown-name", node, what, help)
    }

    fn index(&mut self, node: &Node, of: &Node, index: &Node) -> Type {
        let ty = self.ty(of);
        let by = self.ty(index);
        match &ty {
            Type::Any => Type::Any,
            Type::List(item) => {
                self.want(index, &by, &Type::Int, "the index of a list");
                (**item).clone()
            }
            Type::Map(_) | Type::Record(_) => {
                self.want(index, &by, &Type::String, "the index of a map");
                match &index.kind {
                    Kind::Text(name) => self.member(node, of, &ty, name),
                    _ if matches!(of.path().as_deref(), Some(["inputs"])) => self.mismatch(
                        index,
                        "an input must be named, not computed".to_owned(),
                        Some("write `inputs.name`".to_owned()),
                    ),
                    _ => Type::Any,
                }
            }
            Type::Null | Type::Bool | Type::Int | Type::Number | Type::String | Type::Duration => {
                self.mismatch(node, format!("{} has no elements", ty.named()), None)
            }
        }
    }

    fn binary(&mut self, node: &Node, op: Op, left: &Node, right: &Node) -> Type {
        let (a, b) = (self.ty(left), self.ty(right));
        let known = a != Type::Any && b != Type::Any;
        match op {
            Op::Or | Op::And => {
                self.want(left, &a, &Type::Bool, &format!("`{}`", op.sign()));
                self.want(right, &b, &Type::Bool, &format!("`{}`", op.sign()));
                Type::Bool
            }
            Op::Equal | Op::NotEqual => {
                if known && !comparable(&a, &b) {
                    self.cannot(node, op, &a, &b);
                }
                Type::Bool
            }
            Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual => {
                let ordered = |ty: &Type| {
                    matches!(
                        ty,
                        Type::Any | Type::Int | Type::Number | Type::String | Type::Duration | Type::Bool
                    )
                };
                if !ordered(&a) || !ordered(&b) || (known && !comparable(&a, &b)) {
                    self.cannot(node, op, &a, &b);
                }
                Type::Bool
            }
            Op::In => {
                match &b {
                    Type::Any | Type::Map(_) | Type::Record(_) => {}
                    Type::List(item) if comparable(&a, item) => {}
                    Type::List(_)
                    | Type::Null
                    | Type::Bool
                    | Type::Int
                    | Type::Number
                    | Type::String
                    | Type::Duration => {
                        self.cannot(node, op, &a, &b);
                    }
                }
                Type::Bool
            }
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder => {
                match arithmetic(op, &a, &b) {
                    Some(ty) => ty,
                    None => self.cannot(node, op, &a, &b),
                }
            }
        }
    }

    fn cannot(&mut self, node: &Node, op: Op, a: &Type, b: &Type) -> Type {
        let help = match (a, b) {
            (Type::Int, Type::Number) | (Type::Number, Type::Int) => {
                Some("make both the same: write `2.0` rather than `2`, or `double(x)`".to_owned())
            }
            (Type::String, Type::Int | Type::Number) | (Type::Int | Type::Number, Type::String) => {
                Some("make both the same with `int(…)` or `string(…)`".to_owned())
            }
            (Type::Duration, _) | (_, Type::Duration) => {
                Some("a length of time is written `duration(\"30s\")`".to_owned())
            }
            (_, _) => None,
        };
        let message = format!("`{}` does not take {} and {}", op.sign(), a.named(), b.named());
        self.mismatch(node, message, help)
    }

    fn call(&mut self, node: &Node, function: Function, args: &[Node]) -> Type {
        let types: Vec<Type> = args.iter().map(|arg| self.ty(arg)).collect();
        let own = usize::from(function.is_method());
        if args.len() != function.arity() {
            let (wanted, found) = (function.arity() - own, args.len() - own);
            let message = format!("`{}` takes {}, found {found}", function.name(), count(wanted, "argument"));
            return self.mismatch(node, message, None);
        }
        for (arg, ty) in args.iter().zip(&types) {
            if !function.takes(ty) {
                let message =
                    format!("`{}` takes {}, this is {}", function.name(), function.wants(), ty.named());
                self.mismatch(arg, message, None);
            }
        }
        if let Some(at) = function.pattern_at() {
            self.pattern(node, &args[at]);
        }
        if let (Function::Duration, Kind::Text(text)) = (function, &args[0].kind)
            && let Err(error) = crate::duration::parse(text)
        {
            self.mismatch(&args[0], error.to_string(), None);
        }
        function.gives()
    }

    fn pattern(&mut self, node: &Node, pattern: &Node) {
        match &pattern.kind {
            Kind::Text(text) => {
                if let Err(error) = crate::input::limited_regex(text) {
                    self.problem("bad-pattern", node, format!("the pattern is broken: {error}"), None);
                }
            }
            _ => {
                let message = "a pattern must be written out as a text, not computed".to_owned();
                self.problem("bad-pattern", pattern, message, None);
            }
        }
    }

    fn fact(&mut self, node: &Node, fact: FactKind, args: &[Node]) -> Type {
        if let Some(why) = self.env.no_facts {
            let message = format!("the fact `{}` cannot be used here: {why}", fact.name());
            return self.problem("fact-not-allowed", node, message, None);
        }
        if args.len() != fact.params().len() {
            let own = usize::from(fact.question().is_some());
            let name = fact.question().unwrap_or(fact.name());
            let message = format!("`{name}` takes {}", count(fact.params().len() - own, "argument"));
            return self.mismatch(node, message, Some(format!("write `{}`", fact.form())));
        }
        for (arg, (_, param)) in args.iter().zip(fact.params()) {
            let ty = self.ty(arg);
            let wanted = if *param == Param::Length { Type::Duration } else { Type::String };
            self.want(arg, &ty, &wanted, &format!("`{}`", fact.name()));
            if *param == Param::Pattern {
                self.pattern(arg, arg);
            }
            let local = |node: &Node| matches!(&node.kind, Kind::Name(name) if self.locals.iter().rev().find(|local| local.name == *name).is_some_and(|local| local.from_facts));
            if arg.any(&|node| matches!(node.kind, Kind::Fact(..)) || local(node)) {
                let message = format!("an argument of `{}` must not depend on another fact", fact.name());
                let help = Some("read it in a diagnose step and use that step's output".to_owned());
                self.problem("fact-in-argument", arg, message, help);
            }
        }
        fact.ty()
    }

    fn repeated(&mut self, inner: &Loop) -> Type {
        let range = self.ty(&inner.range);
        let item = match &range {
            Type::Any => Type::Any,
            Type::List(item) => (**item).clone(),
            Type::Map(_) | Type::Record(_) => Type::String,
            Type::Null | Type::Bool | Type::Int | Type::Number | Type::String | Type::Duration => {
                let help = (range == Type::String).then(|| "split a text with `lines(…)`".to_owned());
                self.mismatch(&inner.range, format!("this is {}, not a list", range.named()), help)
            }
        };
        let taken = self.env.vars.contains_key(&inner.var) || FactKind::named(&inner.var).is_some();
        if taken {
            let message = format!("`{}` already has a meaning: choose another name", inner.var);
            self.mismatch(&inner.range, message, None);
        }
        let locals = &self.locals;
        let from_facts = inner.range.any(&|node| {
            matches!(node.kind, Kind::Fact(..))
                || matches!(&node.kind, Kind::Name(name) if locals.iter().any(|local| local.name == *name && local.from_facts))
        });
        self.locals.push(Local { name: inner.var.clone(), ty: item.clone(), from_facts });
        if let Some(condition) = &inner.condition {
            let ty = self.ty(condition);
            self.want(condition, &ty, &Type::Bool, "the condition of `map`");
        }
        let body = self.ty(&inner.body);
        if inner.what != LoopKind::Map {
            self.want(&inner.body, &body, &Type::Bool, "this loop");
        }
        self.locals.pop();
        match inner.what {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Map => Type::List(Box::new(body)),
            LoopKind::Filter => Type::List(Box::new(item)),
        }
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        1 => format!("one {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// The one type of them all, or [`Type::Any`].
fn common(types: Vec<Type>) -> Type {
    let mut types = types.into_iter();
    let first = types.next().unwrap_or(Type::Any);
    if types.all(|ty| ty == first) { first } else { Type::Any }
}

fn comparable(a: &Type, b: &Type) -> bool {
    let number = |ty: &Type| matches!(ty, Type::Int | Type::Number);
    let keyed = |ty: &Type| matches!(ty, Type::Map(_) | Type::Record(_));
    match (a, b) {
        (Type::Any | Type::Null, _) | (_, Type::Any | Type::Null) => true,
        (Type::List(a), Type::List(b)) => comparable(a, b),
        (a, b) => a == b || (number(a) && number(b)) || (keyed(a) && keyed(b)),
    }
}

fn arithmetic(op: Op, a: &Type, b: &Type) -> Option<Type> {
    let adds = op == Op::Add;
    let adds_or_subtracts = adds || op == Op::Subtract;
    match (a, b) {
        (Type::Any, Type::Any) => Some(Type::Any),
        (Type::Any, known) | (known, Type::Any) => arithmetic(op, known, known),
        (Type::Int, Type::Int) => Some(Type::Int),
        (Type::Number, Type::Number) if op != Op::Remainder => Some(Type::Number),
        (Type::String, Type::String) if adds => Some(Type::String),
        (Type::Duration, Type::Duration) if adds_or_subtracts => Some(Type::Duration),
        (Type::List(a), Type::List(b)) if adds => {
            Some(Type::List(Box::new(common(vec![(**a).clone(), (**b).clone()]))))
        }
        (_, _) => None,
    }
}
