//! What stood behind an answer: the values an expression read, each beside the words that read it.
//!
//! `disk(inputs.mount).used_percent < inputs.max_used` reads `disk("/var").used_percent` and `inputs.max_used`; the other
//! fields of that disk had no part in the answer and are not told.

use std::collections::BTreeSet;

use super::ast::{Kind, Node};
use super::facts::Facts;
use super::{Scope, eval};
use crate::value::Value;

/// The longest value that is told, in characters.
const LONGEST: usize = 160;

/// Words and value, in the order of the text, each once.
pub(super) fn of(root: &Node, scope: &Scope, facts: &Facts) -> Vec<(String, String)> {
    let mut found = Readings { scope, facts, told: Vec::new(), shown: BTreeSet::new() };
    found.collect(root);
    found.rest();
    found.told
}

struct Readings<'a> {
    scope: &'a Scope,
    facts: &'a Facts,
    told: Vec<(String, String)>,
    /// The facts of which something was told.
    shown: BTreeSet<String>,
}

impl Readings<'_> {
    fn collect(&mut self, node: &Node) {
        match self.words(node) {
            Some(words) => self.tell(node, words),
            None => node.children().into_iter().for_each(|child| self.collect(child)),
        }
    }

    fn tell(&mut self, node: &Node, words: String) {
        if self.told.iter().any(|(known, _)| *known == words) {
            return;
        }
        // What has no value is told by the error of the whole, or with the rest of the facts.
        if let Ok(value) = eval::eval(node, self.scope, self.facts) {
            self.shown.extend(
                eval::fact_calls(node, self.scope).into_iter().flatten().map(|call| call.to_string()),
            );
            self.told.push((words, shown(&value)));
        }
    }

    /// `disk("/var").used_percent`, `inputs.max_used`: a fact, or something in scope, down to what is read of it.
    fn words(&self, node: &Node) -> Option<String> {
        if let Kind::Field(of, name) = &node.kind {
            return Some(format!("{}.{name}", self.words(of)?));
        }
        if let Kind::Fact(..) = &node.kind {
            return Some(eval::fact_calls(node, self.scope).ok()?.into_iter().next()?.to_string());
        }
        let Kind::Name(name) = &node.kind else { return None };
        self.scope.0.contains_key(name).then(|| name.clone())
    }

    /// Facts that were asked for one by one, in a loop.
    fn rest(&mut self) {
        let rest = self.facts.iter().filter(|(call, _)| !self.shown.contains(*call));
        self.told.extend(rest.map(|(call, value)| match value {
            Ok(value) => (call.clone(), shown(value)),
            Err(reason) => (call.clone(), format!("cannot be read: {reason}")),
        }));
    }
}

fn shown(value: &Value) -> String {
    let text = crate::plan::evidence::json(value);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
