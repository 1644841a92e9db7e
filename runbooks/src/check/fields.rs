//! Reads what stands behind a key: a text, a number, a length of time, an expression …

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::duration;
use crate::expr::{At, Env, Expr, ExprProblem};
use crate::problem::{Problem, Severity, name_help};
use crate::template::Template;
use crate::value::Type;
use crate::yaml::{Entry, Node, NodeKind, Scalar, ScalarValue, problem, quoting};

/// Collects problems and goes on.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) problems: Vec<Problem>,
    /// The file.
    pub(super) text: String,
    /// Inputs that are declared wrongly; what uses them is not told again.
    pub(super) broken_inputs: BTreeSet<String>,
}

impl Checker {
    pub(super) fn error(
        &mut self,
        code: &'static str,
        at: At,
        until: usize,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        self.problems.push(problem(code, at, until, message.into(), help.map(str::to_owned)));
    }

    pub(super) fn warn(
        &mut self,
        code: &'static str,
        at: At,
        until: usize,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        self.error(code, at, until, message, help);
        if let Some(last) = self.problems.last_mut() {
            last.severity = Severity::Warning;
        }
    }

    pub(super) fn at_key(
        &mut self,
        entry: &Entry,
        code: &'static str,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        self.error(code, entry.at, entry.until, message, help);
    }

    pub(super) fn at_value(
        &mut self,
        node: &Node,
        code: &'static str,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        self.error(code, node.at, node.until, message, help);
    }

    /// A text. A number or `true` counts as one if its text says the same.
    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let NodeKind::Scalar(scalar) = &node.kind else {
            self.at_value(node, "wrong-type", format!("{what} is a text, this is {}", node.kind()), None);
            return None;
        };
        let written = scalar.text.text.as_str();
        let read = match scalar.value {
            ScalarValue::Text => return Some(written),
            ScalarValue::Null => {
                self.at_value(
                    node,
                    "wrong-type",
                    format!("{what} is a text, this is nothing"),
                    Some("write \"\" for an empty text"),
                );
                return None;
            }
            ScalarValue::Bool(value) => value.to_string(),
            ScalarValue::Int(value) => value.to_string(),
            ScalarValue::Number(value) => value.to_string(),
        };
        if read == written {
            return Some(written);
        }
        let message = format!("YAML reads `{written}` as the number {read}, but {what} is a text");
        self.at_value(node, "not-quoted", message, Some(&format!("write \"{written}\"")));
        None
    }

    /// A text that has something in it, on one line.
    pub(super) fn line(&mut self, entry: &Entry) -> Option<String> {
        self.name(&entry.value, &format!("`{}`", entry.key))
    }

    /// The same, where it does not stand behind a key of its own.
    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?.to_owned();
        if text.trim().is_empty() || text.trim_end().contains('\n') || text.chars().count() > 500 {
            self.at_value(node, "wrong-value", format!("{what} is one line of text"), None);
            return None;
        }
        Some(text.trim().to_owned())
    }

    pub(super) fn truth(&mut self, entry: &Entry) -> Option<bool> {
        match &entry.value.kind {
            NodeKind::Scalar(Scalar { value: ScalarValue::Bool(value), .. }) => Some(*value),
            NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                let message = format!("`{}` is `true` or `false`, this is {}", entry.key, entry.value.kind());
                self.at_value(&entry.value, "wrong-type", message, None);
                None
            }
        }
    }

    pub(super) fn whole(&mut self, entry: &Entry, least: i64, most: i64) -> Option<i64> {
        match &entry.value.kind {
            NodeKind::Scalar(Scalar { value: ScalarValue::Int(value), .. })
                if (least..=most).contains(value) =>
            {
                Some(*value)
            }
            NodeKind::Scalar(Scalar { value: ScalarValue::Int(value), .. }) => {
                let message = format!("`{}` is {value}, but must be from {least} to {most}", entry.key);
                self.at_value(&entry.value, "wrong-value", message, None);
                None
            }
            NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                let message = format!("`{}` is a whole number, this is {}", entry.key, entry.value.kind());
                let help = match &entry.value.kind {
                    NodeKind::Scalar(scalar) if scalar.text.text.parse::<i64>().is_ok() => {
                        Some("leave the quotes out")
                    }
                    NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => None,
                };
                self.at_value(&entry.value, "wrong-type", message, help);
                None
            }
        }
    }

    /// A length of time of at least so many milliseconds.
    pub(super) fn time(&mut self, entry: &Entry, least_ms: u64) -> Option<Duration> {
        let what = format!("`{}`", entry.key);
        if let NodeKind::Scalar(Scalar {
            value: ScalarValue::Int(_) | ScalarValue::Number(_), text, ..
        }) = &entry.value.kind
        {
            let message = format!("{what} is a length of time, and `{}` has no unit", text.text);
            self.at_value(
                &entry.value,
                "wrong-type",
                message,
                Some(&format!("write `{}s` for seconds", text.text)),
            );
            return None;
        }
        let text = self.text(&entry.value, &what)?;
        match duration::parse(text) {
            Ok(time) if time >= Duration::from_millis(least_ms) => Some(time),
            Ok(_) => {
                let least = duration::format(Duration::from_millis(least_ms));
                self.at_value(&entry.value, "wrong-value", format!("{what} must be at least {least}"), None);
                None
            }
            Err(error) => {
                self.at_value(&entry.value, "wrong-value", error.to_string(), None);
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, entry: &Entry) -> Option<Vec<String>> {
        let nodes = crate::draft::list(Some(entry), &mut self.problems);
        if !matches!(entry.value.kind, NodeKind::List(_)) {
            return None;
        }
        let what = format!("an item of `{}`", entry.key);
        nodes.iter().map(|node| self.text(node, &what).map(str::to_owned)).collect()
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&mut self, entry: &Entry, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(&entry.value, &format!("`{}`", entry.key))?.to_owned();
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let help = name_help(&text, words.iter().map(|(word, _)| *word));
            let shown = crate::problem::visible(text.as_bytes());
            self.at_value(
                &entry.value,
                "wrong-value",
                format!("`{shown}` is no `{}`", entry.key),
                help.as_deref(),
            );
        }
        found
    }

    /// A bare expression of the wanted type, if one is wanted.
    pub(super) fn expr(&mut self, node: &Node, what: &str, wanted: Option<&Type>, env: &Env) -> Option<Expr> {
        let NodeKind::Scalar(scalar) = &node.kind else {
            let help = quoting::help(self.line_at(node.at));
            let message = format!("{what} is an expression, but YAML reads {} here", node.kind());
            self.at_value(node, "needs-quotes", message, help.as_deref());
            return None;
        };
        if scalar.value == ScalarValue::Null {
            self.at_value(
                node,
                "expression-syntax",
                format!("{what} is an expression, and nothing is written here"),
                None,
            );
            return None;
        }
        let text = scalar.text.text.trim();
        if let Some(inner) = text.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")) {
            let message = format!("{what} is a bare expression, without `${{{{ }}}}`");
            self.at_value(node, "bare-expression", message, Some(&format!("write `{}`", inner.trim())));
            return None;
        }
        match Expr::parse(&scalar.text.source(), env) {
            Ok(expr) => match wanted {
                Some(wanted) if expr.ty() != wanted && *expr.ty() != Type::Any => {
                    let help = match (wanted, expr.ty()) {
                        (Type::Bool, Type::Record(fields)) => fields
                            .iter()
                            .find(|(_, ty)| **ty == Type::Bool)
                            .map(|(name, _)| format!("did you mean its field `.{name}`?")),
                        (Type::Bool, _) => Some("compare it with something".to_owned()),
                        (_, _) => None,
                    };
                    let message = format!("{what} must be {}, this is {}", wanted.named(), expr.ty().named());
                    self.at_value(node, "expression-type", message, help.as_deref());
                    None
                }
                Some(_) | None => Some(expr),
            },
            Err(problems) => {
                self.expr_problems(problems, scalar, node);
                None
            }
        }
    }

    fn expr_problems(&mut self, found: Vec<ExprProblem>, scalar: &Scalar, node: &Node) {
        for ExprProblem { code, at, until, message, help } in found {
            let cut = scalar.cut && code == "expression-syntax";
            if cut {
                let help = quoting::help(self.line_at(node.at)).unwrap_or_default();
                let message = format!("{message}; YAML takes ` #` and what follows for a comment");
                self.error("needs-quotes", at, until, message, Some(&help));
            } else {
                self.error(code, at, until, message, help.as_deref());
            }
        }
    }

    /// A text with values in it.
    pub(super) fn template(&mut self, node: &Node, what: &str, env: &Env) -> Option<Template> {
        self.text(node, what)?;
        let NodeKind::Scalar(scalar) = &node.kind else { return None };
        match Template::parse(&scalar.text.source(), env) {
            Ok(template) => {
                let bare =
                    template.is_literal().is_some_and(|text| text.contains("{{") && text.contains("}}"));
                if bare && !scalar.text.text.contains("$${{") {
                    let message = "`{{ … }}` is not replaced by anything";
                    self.warn(
                        "not-a-template",
                        node.at,
                        node.until,
                        message,
                        Some("a value is written `${{ … }}`"),
                    );
                }
                Some(template)
            }
            Err(problems) => {
                self.expr_problems(problems, scalar, node);
                None
            }
        }
    }

    /// Templates under names of the author's choice.
    pub(super) fn templates(&mut self, entry: Option<&Entry>, env: &Env) -> Vec<(Entry, Template)> {
        let entries = crate::draft::map(entry, &mut self.problems);
        let read = entries.into_iter().filter_map(|entry| {
            let template = self.template(&entry.value, &format!("`{}`", entry.key), env)?;
            Some((entry, template))
        });
        read.collect()
    }

    pub(super) fn line_at(&self, at: At) -> &str {
        let offset = at.offset.min(self.text.len());
        let from = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let to = self.text[offset..].find('\n').map_or(self.text.len(), |newline| offset + newline);
        &self.text[from..to]
    }
}

/// The type of a map from text to text.
pub(super) fn text_map() -> Type {
    Type::Map(Box::new(Type::String))
}

/// `host`: its name and labels.
pub(super) fn host_type() -> Type {
    Type::Record(BTreeMap::from([("name".to_owned(), Type::String), ("labels".to_owned(), text_map())]))
}
