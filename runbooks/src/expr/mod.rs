//! The expression language: CEL, checked before it runs and bounded while it does.
//!
//! The text becomes a tree ([`parse`]), every node of which knows its place in the file; the tree is given types against
//! what is in scope there ([`types`]); and only then is there an [`Expr`], which evaluates ([`eval`]) against values
//! and facts that somebody else has read. Facts come in two steps, so that this crate touches no host: first
//! [`Expr::fact_calls`] says what must be read, then [`Expr::eval`] is given the answers.
//!
//! Parser and evaluator are our own. The `cel` crate has no type check, no cost bound, no position on a run-time error, and
//! a parser that overflows the stack on small hostile input; it serves as the reference in our tests instead, which
//! compare the two on generated expressions. What keeps an expression small: its text is at most 2 KiB, its tree at
//! most 64 deep (so recursion needs no stack of its own), and evaluation spends from a budget that charges for the
//! size of what it makes.
//!
//! Deliberately missing: unsigned integers, bytes, timestamps, protobuf messages and the clock. Whole numbers are signed,
//! so what `json()` reads can be counted with.

mod source; // where in the file a character of an expression stands
mod lex; // text to words
mod ast; // the tree
mod parse; // words to tree
pub mod facts; // what a host can be asked
mod functions; // what can be called
mod types; // tree to type, or to problems
mod eval; // tree and values to a value
mod readings; // the values behind an answer

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ast::Node;
pub use eval::EvalError;
pub use facts::{FactCall, Facts};
pub use source::At;
pub(crate) use source::{Mapped, Source};

use crate::value::{Type, Value};

/// The longest expression, in bytes.
pub const MAX_SOURCE: usize = 2048;
/// The deepest tree.
pub const MAX_DEPTH: usize = 64;

/// A checked expression.
#[derive(Clone, Debug)]
pub struct Expr {
    source: String,
    at: At,
    ty: Type,
    root: Arc<Node>,
}

/// What an expression can see when it is evaluated: `inputs`, `host`, `steps`, `labels`, `stdout` …
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope(pub BTreeMap<String, Value>);

/// What an expression can see when it is checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env {
    /// Names and their types.
    pub(crate) vars: BTreeMap<String, Type>,
    /// Why facts of the host may not be asked for; absent where they may.
    pub(crate) no_facts: Option<&'static str>,
    /// Names that exist elsewhere, and why not here; the key is a path such as `steps.usage`.
    pub(crate) elsewhere: BTreeMap<String, String>,
    /// Inputs that hold secrets; they have no text.
    pub(crate) secrets: BTreeSet<String>,
}

/// One thing wrong with an expression or a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExprProblem {
    pub(crate) code: &'static str,
    pub(crate) at: At,
    /// Where it ends, in bytes of the file.
    pub(crate) until: usize,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Expr {
    /// As written, without surrounding blanks.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of its value.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// The line of the file it begins on, from 1.
    pub fn line(&self) -> usize {
        self.at.line
    }

    /// The column it begins at, in characters from 1.
    pub fn column(&self) -> usize {
        self.at.column
    }

    /// The facts it may need, each once. Their arguments use no facts, so this needs none either; a call whose arguments
    /// cannot be evaluated is left out, and [`Expr::eval`] says why if it gets there.
    pub fn fact_calls(&self, scope: &Scope) -> Result<Vec<FactCall>, EvalError> {
        eval::fact_calls(&self.root, scope)
    }

    /// Its value.
    pub fn eval(&self, scope: &Scope, facts: &Facts) -> Result<Value, EvalError> {
        eval::eval(&self.root, scope, facts)
    }

    /// What it reads, in words, and the values: what people need to understand its answer. Bounded in length.
    pub fn readings(&self, scope: &Scope, facts: &Facts) -> Vec<(String, String)> {
        readings::of(&self.root, scope, facts)
    }

    /// Its value where a condition is meant.
    pub fn eval_bool(&self, scope: &Scope, facts: &Facts) -> Result<bool, EvalError> {
        let value = self.eval(scope, facts)?;
        let Value::Bool(holds) = value else {
            let message = format!("this is {}, but a condition must be true or false", value.kind());
            return Err(self.error(message));
        };
        Ok(holds)
    }

    /// Its value as the text a template puts in.
    pub(crate) fn eval_text(&self, scope: &Scope) -> Result<String, EvalError> {
        let value = self.eval(scope, &Facts::new())?;
        match value.text() {
            Some(text) if text.contains('\0') => {
                Err(self.error("the value contains a NUL character".to_owned()))
            }
            Some(text) => Ok(text),
            None => Err(self.error(format!("this is {}, which has no text form", value.kind()))),
        }
    }

    fn error(&self, message: String) -> EvalError {
        EvalError::new(message, self.at)
    }

    /// Whether it asks the host for anything.
    pub fn uses_facts(&self) -> bool {
        self.root.any(&|node| matches!(node.kind, ast::Kind::Fact { .. }))
    }

    /// Whether it asks the host for what is written in a log.
    pub fn reads_logs(&self) -> bool {
        self.root.any(&|node| matches!(node.kind, ast::Kind::Fact(facts::FactKind::Log(_), _)))
    }

    /// Whether it reads `path`, which begins with a name: `["steps", "usage"]`.
    pub fn reads(&self, path: &[&str]) -> bool {
        self.root.any(&|node| node.path().is_some_and(|found| found.starts_with(path)))
    }

    /// Parses and checks.
    pub(crate) fn parse(source: &Source<'_>, env: &Env) -> Result<Expr, Vec<ExprProblem>> {
        let root = parse::parse(source).map_err(|problem| vec![problem])?;
        let ty = types::check(&root, env)?;
        let at = root.at;
        Ok(Expr { source: source.text().trim().to_owned(), at, ty, root: Arc::new(root) })
    }
}

#[cfg(test)]
mod tests;
