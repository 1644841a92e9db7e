//! Words to tree, by the strength of operators.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever does not fit the grammar is an error, also a word that is yet to come"
)]

use super::ast::{Kind, Loop, LoopKind, Node, Op};
use super::facts::FactKind;
use super::functions::Function;
use super::lex::{Token, Word, words};
use super::{ExprProblem, MAX_DEPTH, MAX_SOURCE, Source};
use crate::problem::name_help;

type Parsed = Result<Node, ExprProblem>;

/// Parses the whole text.
pub(super) fn parse(source: &Source<'_>) -> Parsed {
    if source.text().len() > MAX_SOURCE {
        return Err(ExprProblem {
            code: "expression-too-long",
            at: source.at(0),
            until: source.at(1).offset,
            message: format!(
                "the expression has {} bytes, at most {MAX_SOURCE} are allowed",
                source.text().len()
            ),
            help: Some("let a diagnose step compute part of it as an output".to_owned()),
        });
    }
    let words = words(source)?;
    let mut parser = Parser { source, words, next: 0, depth: 0 };
    if parser.peek() == &Token::End {
        return Err(parser.problem("an expression is missing here", None));
    }
    let node = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(node),
        other => {
            let message = format!("unexpected {} after a complete expression", other.shown());
            let help = match other {
                Token::Name(name) if name == "and" => Some("write `&&`"),
                Token::Name(name) if name == "or" => Some("write `||`"),
                Token::Name(_)
                | Token::Int(_)
                | Token::Number(_)
                | Token::Text(_)
                | Token::Sign(_)
                | Token::End => None,
            };
            Err(parser.problem(&message, help))
        }
    }
}

struct Parser<'a> {
    source: &'a Source<'a>,
    words: Vec<Word>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.words[self.next].token
    }

    fn advance(&mut self) -> Word {
        let word = self.words[self.next].clone();
        self.next = (self.next + 1).min(self.words.len() - 1);
        word
    }

    fn took(&mut self, sign: &str) -> bool {
        let took = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if took {
            self.advance();
        }
        took
    }

    fn expect(&mut self, sign: &str, what: &str) -> Result<(), ExprProblem> {
        if self.took(sign) {
            return Ok(());
        }
        let message = format!("expected `{sign}` {what}, found {}", self.peek().shown());
        Err(self.problem(&message, None))
    }

    /// A problem at the next word.
    fn problem(&self, message: &str, help: Option<&str>) -> ExprProblem {
        let word = &self.words[self.next];
        self.problem_at(word.from, word.to, message, help.map(str::to_owned))
    }

    fn problem_at(&self, from: usize, to: usize, message: &str, help: Option<String>) -> ExprProblem {
        ExprProblem {
            code: "expression-syntax",
            at: self.source.at(from),
            until: self.source.at(to).offset,
            message: message.to_owned(),
            help,
        }
    }

    /// A node that begins at byte `from` and ends with the word before the next.
    fn node(&self, from: usize, kind: Kind) -> Parsed {
        let to = self.words[self.next.saturating_sub(1)].to;
        let mut node = Node { kind, at: self.source.at(from), until: self.source.at(to).offset, depth: 1 };
        node.depth = 1 + node.children().into_iter().map(|child| child.depth).max().unwrap_or(0);
        if node.depth > MAX_DEPTH { Err(self.too_deep(from)) } else { Ok(node) }
    }

    fn too_deep(&self, from: usize) -> ExprProblem {
        ExprProblem {
            code: "expression-too-deep",
            ..self.problem_at(
                from,
                from + 1,
                &format!("the expression is more than {MAX_DEPTH} levels deep"),
                Some("let a diagnose step compute part of it as an output".to_owned()),
            )
        }
    }

    fn here(&self) -> usize {
        self.words[self.next].from
    }

    fn expression(&mut self) -> Parsed {
        let from = self.here();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep(from));
        }
        let condition = self.binary(0)?;
        let node = if self.took("?") {
            let then = self.binary(0)?;
            self.expect(":", "of `condition ? this : that`")?;
            let other = self.expression()?;
            self.node(from, Kind::Choose(Box::new(condition), Box::new(then), Box::new(other)))?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn operator(&self) -> Option<Op> {
        let sign = match self.peek() {
            Token::Sign(sign) => *sign,
            Token::Name(name) if name == "in" => "in",
            Token::Name(_) | Token::Int(_) | Token::Number(_) | Token::Text(_) | Token::End => return None,
        };
        let all = [
            Op::Or,
            Op::And,
            Op::Equal,
            Op::NotEqual,
            Op::Less,
            Op::LessEqual,
            Op::Greater,
            Op::GreaterEqual,
            Op::In,
            Op::Add,
            Op::Subtract,
            Op::Multiply,
            Op::Divide,
            Op::Remainder,
        ];
        all.into_iter().find(|op| op.sign() == sign)
    }

    fn binary(&mut self, weakest: u8) -> Parsed {
        let from = self.here();
        let mut left = self.unary()?;
        while let Some(op) = self.operator().filter(|op| op.strength() > weakest) {
            self.advance();
            let right = self.binary(op.strength())?;
            left = self.node(from, Kind::Binary(op, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let from = self.here();
        let mut signs = Vec::new();
        while let Token::Sign(sign @ ("!" | "-")) = *self.peek() {
            signs.push((sign, self.here()));
            self.advance();
            if signs.len() > MAX_DEPTH {
                return Err(self.too_deep(from));
            }
        }
        let mut node = match (signs.last(), self.peek()) {
            (Some(("-", from)), Token::Int(value)) => {
                let (from, value) = (*from, *value);
                signs.pop();
                self.advance();
                // Up to 2^63, so this is exact.
                let number = self.node(from, Kind::Int(0i64.wrapping_sub_unsigned(value)))?;
                self.postfix(from, number)?
            }
            (Some(_) | None, _) => {
                let from = self.here();
                let node = self.primary()?;
                self.postfix(from, node)?
            }
        };
        for (sign, from) in signs.into_iter().rev() {
            let kind = if sign == "!" { Kind::Not(Box::new(node)) } else { Kind::Negate(Box::new(node)) };
            node = self.node(from, kind)?;
        }
        Ok(node)
    }

    fn primary(&mut self) -> Parsed {
        let word = self.advance();
        let from = word.from;
        match word.token {
            Token::Int(value) => match i64::try_from(value) {
                Ok(value) => self.node(from, Kind::Int(value)),
                Err(_) => {
                    Err(self.problem_at(from, word.to, &format!("`{value}` is too large a number"), None))
                }
            },
            Token::Number(value) => self.node(from, Kind::Number(value)),
            Token::Text(value) => self.node(from, Kind::Text(value)),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")", "to close the parenthesis")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let items = self.list_until("]")?;
                self.node(from, Kind::List(items))
            }
            Token::Sign("{") => self.map(from),
            Token::Name(name) => self.name(name, from, word.to),
            token @ (Token::Sign(_) | Token::End) => {
                let help = match token {
                    Token::Sign("{") => None,
                    Token::Sign("%") => Some("put text into quotes".to_owned()),
                    Token::Sign(_)
                    | Token::End
                    | Token::Name(_)
                    | Token::Int(_)
                    | Token::Number(_)
                    | Token::Text(_) => None,
                };
                let message = format!("expected a value, found {}", token.shown());
                Err(self.problem_at(from, word.to, &message, help))
            }
        }
    }

    fn name(&mut self, name: String, from: usize, to: usize) -> Parsed {
        match name.as_str() {
            "true" => return self.node(from, Kind::Bool(true)),
            "false" => return self.node(from, Kind::Bool(false)),
            "null" => return self.node(from, Kind::Null),
            "in" => return Err(self.problem_at(from, to, "expected a value, found `in`", None)),
            "not" if !matches!(self.peek(), Token::Sign("." | ")")) => {
                return Err(self.problem_at(
                    from,
                    to,
                    "`not` is not an operator",
                    Some("write `!`".to_owned()),
                ));
            }
            _ => {}
        }
        if !self.took("(") {
            return match FactKind::named(&name).filter(|fact| fact.params().is_empty()) {
                Some(fact) => self.node(from, Kind::Fact(fact, vec![])),
                None => self.node(from, Kind::Name(name)),
            };
        }
        if name == "has" {
            let inner = self.expression()?;
            self.expect(")", "to close `has(`")?;
            return match inner.kind {
                Kind::Field(..) => self.node(from, Kind::Has(Box::new(inner))),
                _ => Err(self.problem_at(
                    from,
                    to,
                    "`has` takes a field, such as `labels.team`",
                    Some("write `has(a.b)`".to_owned()),
                )),
            };
        }
        let args = self.list_until(")")?;
        if let Some(fact) = FactKind::named(&name) {
            if fact.params().is_empty() {
                let help = Some(format!("write `{name}` without parentheses"));
                return Err(self.problem_at(
                    from,
                    to,
                    &format!("the fact `{name}` takes no arguments"),
                    help,
                ));
            }
            if fact.question().is_some() {
                return self.question(&name, from, to, args);
            }
            return self.node(from, Kind::Fact(fact, args));
        }
        match Function::named(&name).filter(|function| !function.is_method()) {
            Some(function) => self.node(from, Kind::Call(function, args)),
            None => Err(self.unknown_function(&name, from, to)),
        }
    }

    /// `.matches(pattern, since)` after `log(target)`: the two are one question to the host.
    fn question(&mut self, name: &str, from: usize, to: usize, mut args: Vec<Node>) -> Parsed {
        let forms: Vec<String> = FactKind::ALL
            .into_iter()
            .filter(|fact| fact.name() == name)
            .map(|fact| format!("`{}`", fact.form()))
            .collect();
        let help = Some(format!("write {}", forms.join(" or ")));
        let dotted = self.took(".");
        let word = if dotted { self.advance() } else { self.words[self.next].clone() };
        let fact = match &word.token {
            Token::Name(question) if dotted => FactKind::asked(name, question),
            _ => None,
        };
        match fact {
            Some(fact) if args.len() == 1 && self.took("(") => {
                args.extend(self.list_until(")")?);
                self.node(from, Kind::Fact(fact, args))
            }
            Some(_) | None => {
                Err(self.problem_at(from, to, &format!("`{name}` needs a target and a question"), help))
            }
        }
    }

    fn unknown_function(&self, name: &str, from: usize, to: usize) -> ExprProblem {
        let help = match name {
            "number" | "float" => Some("did you mean `double`?".to_owned()),
            "len" | "length" | "count" => Some("did you mean `size`?".to_owned()),
            "str" | "text" => Some("did you mean `string`?".to_owned()),
            "strip" => Some("did you mean `trim`?".to_owned()),
            _ => match Function::named(name) {
                Some(_) => Some(format!("write `text.{name}(…)`")),
                None => name_help(name, Function::names().chain(FactKind::names()).chain(["has"])),
            },
        };
        let problem = self.problem_at(from, to, &format!("there is no function `{name}`"), help);
        ExprProblem { code: "unknown-function", ..problem }
    }

    /// Expressions with commas between, up to the closing sign, which is taken. A trailing comma is allowed.
    fn list_until(&mut self, close: &'static str) -> Result<Vec<Node>, ExprProblem> {
        let mut items = Vec::new();
        while !self.took(close) {
            items.push(self.expression()?);
            if !self.took(",") {
                self.expect(close, "or `,`")?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self, from: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.took("}") {
            let key = self.expression()?;
            self.expect(":", "between key and value")?;
            entries.push((key, self.expression()?));
            if !self.took(",") {
                self.expect("}", "or `,`")?;
                break;
            }
        }
        self.node(from, Kind::Map(entries))
    }

    fn postfix(&mut self, from: usize, mut node: Node) -> Parsed {
        loop {
            if self.took(".") {
                let word = self.advance();
                let Token::Name(name) = word.token else {
                    let message = format!("expected a field name after `.`, found {}", word.token.shown());
                    return Err(self.problem_at(word.from, word.to, &message, None));
                };
                node = if self.took("(") {
                    self.method(from, node, &name, word.from, word.to)?
                } else {
                    self.node(from, Kind::Field(Box::new(node), name))?
                };
            } else if self.took("[") {
                let index = self.expression()?;
                self.expect("]", "to close the index")?;
                node = self.node(from, Kind::Index(Box::new(node), Box::new(index)))?;
            } else {
                return Ok(node);
            }
        }
    }

    /// `receiver.name(`, with the parenthesis taken.
    fn method(
        &mut self,
        from: usize,
        receiver: Node,
        name: &str,
        name_from: usize,
        name_to: usize,
    ) -> Parsed {
        let what = match name {
            "all" => Some(LoopKind::All),
            "exists" => Some(LoopKind::Exists),
            "exists_one" => Some(LoopKind::ExistsOne),
            "map" => Some(LoopKind::Map),
            "filter" => Some(LoopKind::Filter),
            _ => None,
        };
        let mut args = self.list_until(")")?;
        let Some(what) = what else {
            let Some(function) = Function::named(name).filter(|function| function.is_method()) else {
                let problem = match Function::named(name) {
                    Some(_) => self.problem_at(
                        name_from,
                        name_to,
                        &format!("`{name}` is not written after a dot"),
                        Some(format!("write `{name}(…)`")),
                    ),
                    None => self.problem_at(
                        name_from,
                        name_to,
                        &format!("there is no function `.{name}()`"),
                        name_help(
                            name,
                            Function::methods().chain(["all", "exists", "exists_one", "map", "filter"]),
                        ),
                    ),
                };
                return Err(ExprProblem { code: "unknown-function", ..problem });
            };
            args.insert(0, receiver);
            return self.node(from, Kind::Call(function, args));
        };
        let expected = if what == LoopKind::Map { 2..=3 } else { 2..=2 };
        let count = args.len();
        let mut args = args.into_iter();
        match (args.next().map(|first| first.kind), args.next(), args.next()) {
            (Some(Kind::Name(var)), Some(first), second) if expected.contains(&count) => {
                let (condition, body) = match second {
                    Some(body) => (Some(first), body),
                    None => (None, first),
                };
                let inner = Loop { what, range: receiver, var, condition, body };
                self.node(from, Kind::Loop(Box::new(inner)))
            }
            _ => Err(self.problem_at(
                name_from,
                name_to,
                &format!("`{name}` takes a name and an expression"),
                Some(format!("write `list.{name}(x, …x…)`")),
            )),
        }
    }
}
