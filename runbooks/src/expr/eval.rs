//! Tree and values to a value.
//!
//! As in CEL, `&&` and `||` do not care for an error on one side if the other side decides. An exhausted budget is the one
//! error that nothing absorbs.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever does not fit is an error, and so is a kind of value that is yet to come"
)]

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ast::{Kind, Loop, LoopKind, Node, Op};
use super::facts::{FactCall, Facts, Param};
use super::functions::Function;
use super::{At, Scope};
use crate::value::Value;

/// What one evaluation may spend: one per node visited, and more for large values made.
const BUDGET: u64 = 100_000;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct EvalError {
    /// What happened.
    pub message: String,
    /// Line in the runbook, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The budget is spent; nothing absorbs that.
    exhausted: bool,
}

impl EvalError {
    pub(crate) fn new(message: String, at: At) -> EvalError {
        EvalError { message, line: at.line, column: at.column, exhausted: false }
    }
}

type Evaluated<'a> = Result<Cow<'a, Value>, EvalError>;

/// The value of the expression.
pub(super) fn eval(root: &Node, scope: &Scope, facts: &Facts) -> Result<Value, EvalError> {
    let mut evaluator = Evaluator { scope, facts, locals: Vec::new(), spent: 0 };
    evaluator.eval(root).map(Cow::into_owned)
}

/// Every fact the expression may need.
pub(super) fn fact_calls(root: &Node, scope: &Scope) -> Result<Vec<FactCall>, EvalError> {
    let facts = Facts::new();
    let mut evaluator = Evaluator { scope, facts: &facts, locals: Vec::new(), spent: 0 };
    let mut calls = BTreeSet::new();
    evaluator.collect(root, &mut calls)?;
    Ok(calls.into_iter().collect())
}

struct Evaluator<'a> {
    scope: &'a Scope,
    facts: &'a Facts,
    locals: Vec<(&'a str, Value)>,
    spent: u64,
}

impl<'a> Evaluator<'a> {
    fn spend(&mut self, node: &Node, cost: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent <= BUDGET {
            return Ok(());
        }
        let message = "the expression takes too much work".to_owned();
        Err(EvalError { exhausted: true, ..EvalError::new(message, node.at) })
    }

    /// Hands out a value that was made here, and charges for its size.
    fn made(&mut self, node: &Node, value: Value) -> Evaluated<'a> {
        self.spend(node, weight(&value))?;
        Ok(Cow::Owned(value))
    }

    fn eval(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.spend(node, 1)?;
        let error = |message: String| EvalError::new(message, node.at);
        match &node.kind {
            Kind::Null => Ok(Cow::Owned(Value::Null)),
            Kind::Bool(value) => Ok(Cow::Owned(Value::Bool(*value))),
            Kind::Int(value) => Ok(Cow::Owned(Value::Int(*value))),
            Kind::Number(value) => Ok(Cow::Owned(Value::Number(*value))),
            Kind::Text(value) => Ok(Cow::Owned(Value::String(value.clone()))),
            Kind::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    values.push(self.eval(item)?.into_owned());
                }
                self.made(node, Value::List(values))
            }
            Kind::Map(entries) => {
                let mut map = BTreeMap::new();
                for (key, value) in entries {
                    let name = self.text(key)?;
                    let value = self.eval(value)?.into_owned();
                    if map.insert(name.clone(), value).is_some() {
                        return Err(error(format!("the key `{name}` is given twice")));
                    }
                }
                self.made(node, Value::Map(map))
            }
            Kind::Name(name) => {
                if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| local == name) {
                    let value = value.clone();
                    return self.made(node, value);
                }
                let value = self.scope.0.get(name).map(Cow::Borrowed);
                value.ok_or_else(|| error(format!("`{name}` has no value here")))
            }
            Kind::Field(of, name) => {
                let value = self.eval(of)?;
                self.member(node, of, value, name)
            }
            Kind::Index(of, index) => {
                let value = self.eval(of)?;
                let index = self.eval(index)?.into_owned();
                self.element(node, of, value, &index)
            }
            Kind::Has(field) => self.has(field).map(|has| Cow::Owned(Value::Bool(has))),
            Kind::Not(of) => self.condition(of).map(|value| Cow::Owned(Value::Bool(!value))),
            Kind::Negate(of) => match self.eval(of)?.as_ref() {
                Value::Int(value) => {
                    let negated =
                        value.checked_neg().ok_or_else(|| error("the number is too large".to_owned()))?;
                    Ok(Cow::Owned(Value::Int(negated)))
                }
                Value::Number(value) => Ok(Cow::Owned(Value::Number(-value))),
                other => Err(error(format!("`-` takes a number, this is {}", other.kind()))),
            },
            Kind::Binary(Op::And, left, right) => self.decide(left, right, false),
            Kind::Binary(Op::Or, left, right) => self.decide(left, right, true),
            Kind::Binary(op, left, right) => {
                let left = self.eval(left)?;
                let right = self.eval(right)?;
                self.spend(node, compare_cost(&left, &right))?;
                let value = binary(*op, &left, &right).map_err(error)?;
                self.made(node, value)
            }
            Kind::Choose(condition, then, other) => {
                if self.condition(condition)? {
                    self.eval(then)
                } else {
                    self.eval(other)
                }
            }
            Kind::Call(function, args) => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(self.eval(arg)?);
                }
                let cost: u64 = values.iter().map(|value| weight(value)).sum();
                let pattern = function.pattern_at().map_or(0, |at| weight(&values[at]));
                self.spend(node, cost.saturating_mul(1 + 8 * pattern))?;
                let value = call(*function, &values).map_err(error)?;
                self.made(node, value)
            }
            Kind::Fact(..) => {
                let call = self.fact_call(node)?;
                match self.facts.get(&call.to_string()) {
                    Some(Ok(value)) => Ok(Cow::Borrowed(value)),
                    Some(Err(reason)) => Err(error(format!("{call} cannot be read: {reason}"))),
                    None => Err(error(format!("{call} was not read"))),
                }
            }
            Kind::Loop(inner) => self.repeat(node, inner),
        }
    }

    fn condition(&mut self, node: &'a Node) -> Result<bool, EvalError> {
        match self.eval(node)?.as_ref() {
            Value::Bool(value) => Ok(*value),
            other => {
                Err(EvalError::new(format!("expected true or false, this is {}", other.kind()), node.at))
            }
        }
    }

    fn text(&mut self, node: &'a Node) -> Result<String, EvalError> {
        match self.eval(node)?.into_owned() {
            Value::String(text) => Ok(text),
            other => Err(EvalError::new(format!("expected a text, this is {}", other.kind()), node.at)),
        }
    }

    fn length(&mut self, node: &'a Node) -> Result<Duration, EvalError> {
        match self.eval(node)?.into_owned() {
            Value::Duration(length) => Ok(length),
            other => {
                Err(EvalError::new(format!("expected a length of time, this is {}", other.kind()), node.at))
            }
        }
    }

    /// `&&` and `||`: either side alone can decide, whatever the other does.
    fn decide(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Evaluated<'a> {
        let left = self.condition(left);
        match &left {
            Ok(value) if *value == decisive => return Ok(Cow::Owned(Value::Bool(decisive))),
            Err(error) if error.exhausted => return left.map(|_| unreachable!("left is an error")),
            Ok(_) | Err(_) => {}
        }
        let right = self.condition(right)?;
        let decided = if right == decisive { right } else { left? };
        Ok(Cow::Owned(Value::Bool(decided)))
    }

    fn member(&mut self, node: &Node, of: &Node, value: Cow<'a, Value>, name: &str) -> Evaluated<'a> {
        let error = |message: String| EvalError::new(message, node.at);
        let missing = || match of.path().as_deref() {
            Some(["labels" | "annotations"] | ["host", "labels"]) => {
                Ok(Cow::Owned(Value::String(String::new())))
            }
            Some(["steps"]) => Err(error(format!("the step `{name}` left no outputs"))),
            Some(["steps", step]) => Err(error(format!("the step `{step}` left no output `{name}`"))),
            Some(path) => Err(error(format!("`{}` has no `{name}`", path.join(".")))),
            None => Err(error(format!("there is no field `{name}`"))),
        };
        match value {
            Cow::Borrowed(Value::Map(map)) => map.get(name).map(Cow::Borrowed).map_or_else(missing, Ok),
            Cow::Owned(Value::Map(mut map)) => map.remove(name).map(Cow::Owned).map_or_else(missing, Ok),
            other => Err(error(format!("there is no field `{name}`: this is {}", other.kind()))),
        }
    }

    fn element(&mut self, node: &Node, of: &Node, value: Cow<'a, Value>, index: &Value) -> Evaluated<'a> {
        let error = |message: String| EvalError::new(message, node.at);
        let at = match index {
            Value::String(name) => return self.member(node, of, value, name),
            Value::Int(at) => *at,
            Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => *number as i64,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Duration(_)
            | Value::List(_)
            | Value::Map(_) => {
                return Err(error(format!("{} is not an index", index.kind())));
            }
        };
        let missing = |length: usize| error(format!("there is no element {at}: the list has {length}"));
        let place = usize::try_from(at).unwrap_or(usize::MAX);
        match value {
            Cow::Borrowed(Value::List(items)) => {
                items.get(place).map(Cow::Borrowed).ok_or_else(|| missing(items.len()))
            }
            Cow::Owned(Value::List(items)) => {
                let length = items.len();
                items.into_iter().nth(place).map(Cow::Owned).ok_or_else(|| missing(length))
            }
            other => Err(error(format!("{} has no elements", other.kind()))),
        }
    }

    /// `has(a.b)`. A label that is empty is not there, as an absent one is the empty text.
    fn has(&mut self, field: &'a Node) -> Result<bool, EvalError> {
        let Kind::Field(of, name) = &field.kind else {
            return Err(EvalError::new("`has` takes a field".to_owned(), field.at));
        };
        let label = matches!(of.path().as_deref(), Some(["labels" | "annotations"] | ["host", "labels"]));
        // A step that left nothing has no outputs: `has(steps.a.x)` is the way to ask.
        let step = matches!(of.path().as_deref(), Some(["steps", _]));
        match self.eval(of) {
            Ok(value) => match value.as_ref() {
                Value::Map(map) => Ok(match map.get(name) {
                    Some(Value::String(text)) if label => !text.is_empty(),
                    found => found.is_some(),
                }),
                other => Err(EvalError::new(format!("{} has no fields", other.kind()), field.at)),
            },
            Err(error) if step && !error.exhausted => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn fact_call(&mut self, node: &'a Node) -> Result<FactCall, EvalError> {
        let Kind::Fact(fact, args) = &node.kind else {
            return Err(EvalError::new("not a fact".to_owned(), node.at));
        };
        let mut values = Vec::with_capacity(args.len());
        for (arg, (_, param)) in args.iter().zip(fact.params()) {
            values.push(match param {
                Param::Text | Param::Pattern => Value::String(self.text(arg)?),
                Param::Length => Value::Duration(self.length(arg)?),
            });
        }
        Ok(FactCall { fact: *fact, args: values })
    }

    fn items(&mut self, inner: &'a Loop) -> Result<Vec<Value>, EvalError> {
        let range = self.eval(&inner.range)?;
        self.spend(&inner.range, weight(&range))?;
        match range.into_owned() {
            Value::List(items) => Ok(items),
            Value::Map(map) => Ok(map.into_keys().map(Value::String).collect()),
            other => Err(EvalError::new(format!("this is {}, not a list", other.kind()), inner.range.at)),
        }
    }

    fn repeat(&mut self, node: &'a Node, inner: &'a Loop) -> Evaluated<'a> {
        let mut kept = Vec::new();
        let mut hits = 0usize;
        let mut failed = None;
        for item in self.items(inner)? {
            self.spend(node, 1)?;
            self.locals.push((&inner.var, item));
            let turn = self.turn(inner);
            let item = self.locals.pop().map(|(_, item)| item);
            match (inner.what, turn) {
                (_, Err(error)) if error.exhausted => return Err(error),
                // As with `&&` and `||`, another item may decide.
                (LoopKind::All | LoopKind::Exists, Err(error)) => failed = failed.or(Some(error)),
                (LoopKind::ExistsOne | LoopKind::Map | LoopKind::Filter, Err(error)) => return Err(error),
                (_, Ok(None)) => {}
                (LoopKind::Map, Ok(Some(value))) => kept.push(value),
                (what, Ok(Some(Value::Bool(holds)))) => match what {
                    LoopKind::All if !holds => return Ok(Cow::Owned(Value::Bool(false))),
                    LoopKind::Exists if holds => return Ok(Cow::Owned(Value::Bool(true))),
                    LoopKind::ExistsOne => hits += usize::from(holds),
                    LoopKind::Filter if holds => kept.extend(item),
                    LoopKind::All | LoopKind::Exists | LoopKind::Filter | LoopKind::Map => {}
                },
                (_, Ok(Some(other))) => {
                    let message = format!("expected true or false, this is {}", other.kind());
                    return Err(EvalError::new(message, inner.body.at));
                }
            }
        }
        match (inner.what, failed) {
            (_, Some(error)) => Err(error),
            (LoopKind::All, None) => Ok(Cow::Owned(Value::Bool(true))),
            (LoopKind::Exists, None) => Ok(Cow::Owned(Value::Bool(false))),
            (LoopKind::ExistsOne, None) => Ok(Cow::Owned(Value::Bool(hits == 1))),
            (LoopKind::Map | LoopKind::Filter, None) => Ok(Cow::Owned(Value::List(kept))),
        }
    }

    /// One turn of a loop; nothing if `map`'s condition leaves the item out.
    fn turn(&mut self, inner: &'a Loop) -> Result<Option<Value>, EvalError> {
        if let Some(condition) = &inner.condition
            && !self.condition(condition)?
        {
            return Ok(None);
        }
        let value = self.eval(&inner.body)?.into_owned();
        self.spend(&inner.body, weight(&value))?;
        Ok(Some(value))
    }

    fn collect(&mut self, node: &'a Node, calls: &mut BTreeSet<FactCall>) -> Result<(), EvalError> {
        self.spend(node, 1)?;
        match &node.kind {
            Kind::Fact(..) => {
                match self.fact_call(node) {
                    Ok(call) => {
                        calls.insert(call);
                    }
                    Err(error) if error.exhausted => return Err(error),
                    Err(_) => {} // Evaluation says why, if it gets there.
                }
                Ok(())
            }
            Kind::Loop(inner) => {
                self.collect(&inner.range, calls)?;
                let inside = |node: &Node| node.any(&|node| matches!(node.kind, Kind::Fact(..)));
                if !inside(&inner.body) && !inner.condition.as_ref().is_some_and(inside) {
                    return Ok(());
                }
                let from_facts = inner.range.any(&|node| matches!(node.kind, Kind::Fact(..)));
                // No argument uses an item that came from a fact, so one turn with any item finds every call.
                let items = if from_facts { Ok(vec![Value::Null]) } else { self.items(inner) };
                let items = match items {
                    Ok(items) => items,
                    Err(error) if error.exhausted => return Err(error),
                    Err(_) => return Ok(()),
                };
                for item in items {
                    self.locals.push((&inner.var, item));
                    let below = inner.condition.iter().chain([&inner.body]);
                    let result = below.into_iter().try_for_each(|node| self.collect(node, calls));
                    self.locals.pop();
                    result?;
                }
                Ok(())
            }
            _ => node.children().into_iter().try_for_each(|child| self.collect(child, calls)),
        }
    }
}

/// What a value costs to copy: one for every 64 bytes of text and for every element.
fn weight(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Duration(_) => 1,
        Value::String(text) => 1 + text.len() as u64 / 64,
        Value::List(items) => 1 + items.iter().map(weight).sum::<u64>(),
        Value::Map(map) => {
            1 + map.iter().map(|(key, value)| 1 + key.len() as u64 / 64 + weight(value)).sum::<u64>()
        }
    }
}

fn compare_cost(left: &Value, right: &Value) -> u64 {
    match right {
        Value::List(_) => weight(left) + weight(right),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Number(_)
        | Value::Duration(_)
        | Value::String(_)
        | Value::Map(_) => weight(left).min(weight(right)),
    }
}

fn binary(op: Op, left: &Value, right: &Value) -> Result<Value, String> {
    let cannot = || format!("`{}` does not take {} and {}", op.sign(), left.kind(), right.kind());
    let overflow = || format!("the result of `{}` is too large", op.sign());
    let truth = |value: bool| Ok(Value::Bool(value));
    match op {
        Op::Equal => truth(equal(left, right)),
        Op::NotEqual => truth(!equal(left, right)),
        Op::Less => {
            order(left, right).map(|order| Value::Bool(order == Some(Ordering::Less))).ok_or_else(cannot)
        }
        Op::LessEqual => {
            order(left, right).map(|order| Value::Bool(order.is_some_and(Ordering::is_le))).ok_or_else(cannot)
        }
        Op::Greater => {
            order(left, right).map(|order| Value::Bool(order == Some(Ordering::Greater))).ok_or_else(cannot)
        }
        Op::GreaterEqual => {
            order(left, right).map(|order| Value::Bool(order.is_some_and(Ordering::is_ge))).ok_or_else(cannot)
        }
        Op::In => match (left, right) {
            (item, Value::List(items)) => truth(items.iter().any(|other| equal(item, other))),
            (Value::String(key), Value::Map(map)) => truth(map.contains_key(key)),
            (_, Value::Map(_)) => truth(false),
            (_, _) => Err(cannot()),
        },
        Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder => match (left, right) {
            (Value::Int(a), Value::Int(b)) => whole(op, *a, *b).map(Value::Int),
            (Value::Number(a), Value::Number(b)) => match op {
                Op::Add => Ok(Value::Number(a + b)),
                Op::Subtract => Ok(Value::Number(a - b)),
                Op::Multiply => Ok(Value::Number(a * b)),
                Op::Divide => Ok(Value::Number(a / b)),
                _ => Err(cannot()),
            },
            (Value::String(a), Value::String(b)) if op == Op::Add => Ok(Value::String(format!("{a}{b}"))),
            (Value::List(a), Value::List(b)) if op == Op::Add => Ok(Value::List([a.as_slice(), b].concat())),
            (Value::Duration(a), Value::Duration(b)) if op == Op::Add => a
                .checked_add(*b)
                .filter(|sum| *sum <= crate::duration::LONGEST)
                .map(Value::Duration)
                .ok_or_else(overflow),
            (Value::Duration(a), Value::Duration(b)) if op == Op::Subtract => a
                .checked_sub(*b)
                .map(Value::Duration)
                .ok_or_else(|| "a length of time cannot be negative".to_owned()),
            (_, _) => Err(cannot()),
        },
        Op::And | Op::Or => Err(cannot()),
    }
}

fn whole(op: Op, a: i64, b: i64) -> Result<i64, String> {
    let result = match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Divide | Op::Remainder if b == 0 => return Err("division by zero".to_owned()),
        Op::Divide => a.checked_div(b),
        Op::Remainder => a.checked_rem(b),
        _ => None,
    };
    result.ok_or_else(|| format!("the result of `{}` is too large", op.sign()))
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(_) | Value::Number(_), Value::Int(_) | Value::Number(_)) => {
            order(left, right).flatten() == Some(Ordering::Equal)
        }
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((ka, a), (kb, b))| ka == kb && equal(a, b))
        }
        (a, b) => a == b,
    }
}

/// How two values stand to each other; nothing if they have no order, an inner nothing for what is not a number.
fn order(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(Some(a.cmp(b))),
        (Value::Number(a), Value::Number(b)) => Some(a.partial_cmp(b)),
        (Value::Int(a), Value::Number(b)) => Some(order_mixed(*a, *b)),
        (Value::Number(a), Value::Int(b)) => Some(order_mixed(*b, *a).map(Ordering::reverse)),
        (Value::String(a), Value::String(b)) => Some(Some(a.cmp(b))),
        (Value::Bool(a), Value::Bool(b)) => Some(Some(a.cmp(b))),
        (Value::Duration(a), Value::Duration(b)) => Some(Some(a.cmp(b))),
        (_, _) => None,
    }
}

/// Without losing what a double cannot hold.
fn order_mixed(whole: i64, number: f64) -> Option<Ordering> {
    if number.is_nan() {
        return None;
    }
    if number >= 9.3e18 {
        return Some(Ordering::Less);
    }
    if number <= -9.3e18 {
        return Some(Ordering::Greater);
    }
    let floor = number.floor();
    let order = i128::from(whole).cmp(&(floor as i128));
    Some(if order == Ordering::Equal && number > floor { Ordering::Less } else { order })
}

fn call(function: Function, args: &[Cow<'_, Value>]) -> Result<Value, String> {
    let first = args.first().map(AsRef::as_ref).unwrap_or(&Value::Null);
    let takes = || format!("`{}` takes {}, this is {}", function.name(), function.wants(), first.kind());
    let text = || match first {
        Value::String(text) => Ok(text.as_str()),
        _ => Err(takes()),
    };
    let second = || match args.get(1).map(AsRef::as_ref) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) | None => Err(format!("`{}` takes two texts", function.name())),
    };
    let pattern = || {
        second().and_then(|pattern| crate::input::limited_regex(pattern).map_err(|error| error.to_string()))
    };
    match function {
        Function::Size => match first {
            Value::String(text) => Ok(Value::Int(text.chars().count() as i64)),
            Value::List(items) => Ok(Value::Int(items.len() as i64)),
            Value::Map(map) => Ok(Value::Int(map.len() as i64)),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Duration(_) => {
                Err(takes())
            }
        },
        Function::Int => match first {
            Value::Int(value) => Ok(Value::Int(*value)),
            Value::Number(value) if value.abs() < 9.2e18 => Ok(Value::Int(*value as i64)),
            Value::Number(value) => Err(format!("{value} is too large for a whole number")),
            Value::String(text) => text
                .trim()
                .parse()
                .map(Value::Int)
                .map_err(|_| format!("{} is not a whole number", shown(text))),
            Value::Null | Value::Bool(_) | Value::Duration(_) | Value::List(_) | Value::Map(_) => {
                Err(takes())
            }
        },
        Function::Double => match first {
            Value::Int(value) => Ok(Value::Number(*value as f64)),
            Value::Number(value) => Ok(Value::Number(*value)),
            Value::String(text) => {
                let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
                value.map(Value::Number).ok_or_else(|| format!("{} is not a number", shown(text)))
            }
            Value::Null | Value::Bool(_) | Value::Duration(_) | Value::List(_) | Value::Map(_) => {
                Err(takes())
            }
        },
        Function::String => first.text().map(Value::String).ok_or_else(takes),
        Function::Bool => match first {
            Value::Bool(value) => Ok(Value::Bool(*value)),
            _ => match text()?.trim() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                other => Err(format!("{} is neither `true` nor `false`", shown(other))),
            },
        },
        Function::Duration => match first {
            Value::Duration(value) => Ok(Value::Duration(*value)),
            _ => {
                crate::duration::parse(text()?.trim()).map(Value::Duration).map_err(|error| error.to_string())
            }
        },
        Function::Json => {
            let parsed = serde_json::from_str::<serde_json::Value>(text()?);
            parsed.map(Value::from_json).map_err(|error| format!("not JSON: {error}"))
        }
        Function::Trim => Ok(Value::String(text()?.trim().to_owned())),
        Function::Lines => {
            Ok(Value::List(text()?.lines().map(|line| Value::String(line.to_owned())).collect()))
        }
        Function::Regex => {
            let (text, pattern) = (text()?, pattern()?);
            let captures = pattern.captures(text).ok_or_else(|| format!("{} does not match", shown(text)))?;
            let found = captures.get(1).or_else(|| captures.get(0));
            Ok(Value::String(found.map_or_else(String::new, |found| found.as_str().to_owned())))
        }
        Function::Contains => Ok(Value::Bool(text()?.contains(second()?))),
        Function::StartsWith => Ok(Value::Bool(text()?.starts_with(second()?))),
        Function::EndsWith => Ok(Value::Bool(text()?.ends_with(second()?))),
        Function::Matches => Ok(Value::Bool(pattern()?.is_match(text()?))),
    }
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", crate::problem::visible(short.as_bytes()))
}
