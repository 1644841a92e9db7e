//! Text in which `${{ … }}` stands for a value.
//!
//! A template is the only way a value reaches a command: as a whole argv element or an environment variable, never as
//! text that a shell reads. The checker keeps it out of scripts and of arguments that a program would evaluate.

use crate::expr::{At, Env, EvalError, Expr, ExprProblem, Scope, Source};
use crate::value::Type;

/// Checked text with values in it.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(Box<Expr>),
}

/// A template with its values filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Its first character came out of a value; such a text may not begin with `-` unless the step allows it.
    pub leads_with_value: bool,
}

impl Template {
    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text, if there is no value in it.
    pub fn is_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            [Part::Value(_), ..] | [Part::Text(_), _, ..] => None,
        }
    }

    /// The text before the first value.
    pub(crate) fn leading_text(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            Some(Part::Value(_)) | None => "",
        }
    }

    /// The text with the same word for every value: what can be said of it before there are values.
    pub(crate) fn with_values_as(&self, word: &str) -> String {
        let pieces = self.parts.iter().map(|part| match part {
            Part::Text(text) => text,
            Part::Value(_) => word,
        });
        pieces.collect()
    }

    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(expr) => Some(&**expr),
        })
    }

    /// The values, each by itself.
    pub(crate) fn values(&self, scope: &Scope) -> Result<Vec<String>, EvalError> {
        self.expressions().map(|expr| expr.eval_text(scope)).collect()
    }

    /// Fills the values in.
    pub fn render(&self, scope: &Scope) -> Result<Rendered, EvalError> {
        let mut text = String::new();
        let mut leads_with_value = false;
        for part in &self.parts {
            let (piece, is_value) = match part {
                Part::Text(literal) => (literal.clone(), false),
                Part::Value(expr) => (expr.eval_text(scope)?, true),
            };
            if text.is_empty() && !piece.is_empty() {
                leads_with_value = is_value;
            }
            text.push_str(&piece);
        }
        Ok(Rendered { text, leads_with_value })
    }

    /// Parses and checks; `$${{` stands for the three characters themselves.
    pub(crate) fn parse(source: &Source<'_>, env: &Env) -> Result<Template, Vec<ExprProblem>> {
        let text = source.text();
        let mut parts = Vec::new();
        let mut problems = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${{") {
            let open = at + found;
            if text[..open].ends_with('$') {
                literal.push_str(&text[at..open]);
                literal.push_str("{{");
                at = open + 3;
                continue;
            }
            literal.push_str(&text[at..open]);
            let Some(close) = end_of_value(&text[open + 3..]).map(|end| open + 3 + end) else {
                problems.push(ExprProblem {
                    code: "template-not-closed",
                    at: source.at(open),
                    until: source.at(open + 3).offset,
                    message: "`${{` is never closed".to_owned(),
                    help: Some("write `${{ … }}`, or `$${{` for the characters themselves".to_owned()),
                });
                break;
            };
            match Expr::parse(&source.slice(open + 3, close), env) {
                Ok(expr) => {
                    if let Some(problem) = not_text(&expr, source.at(open + 3), source.at(close).offset) {
                        problems.push(problem);
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Value(Box::new(expr)));
                }
                Err(more) => problems.extend(more),
            }
            at = close + 2;
        }
        if problems.is_empty() {
            literal.push_str(&text[at..]);
            if !literal.is_empty() {
                parts.push(Part::Text(literal));
            }
            Ok(Template { source: text.to_owned(), parts })
        } else {
            Err(problems)
        }
    }
}

/// Where the `}}` is that closes a value: not inside a string of the expression, nor of a map.
fn end_of_value(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0usize;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth > 0 => depth -= 1,
            (None, '}') if text[at + 1..].starts_with('}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn not_text(expr: &Expr, at: At, until: usize) -> Option<ExprProblem> {
    let what = match expr.ty() {
        Type::Any | Type::Bool | Type::Int | Type::Number | Type::String | Type::Duration => return None,
        Type::Null => "null",
        Type::List(_) => "a list",
        Type::Map(_) | Type::Record(_) => "a map",
    };
    Some(ExprProblem {
        code: "not-text",
        at,
        until,
        message: format!("`{}` is {what}, which has no text form", expr.source()),
        help: Some("pick one element or field of it".to_owned()),
    })
}
