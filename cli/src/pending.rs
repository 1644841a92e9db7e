//! Stands in for the language until it is there.
#![allow(dead_code, missing_docs, reason = "replaced by the language's own")]

use std::collections::BTreeMap;

use fettle_runbooks::runbook::{Input, Runbook};
use fettle_runbooks::value::Value;

pub(crate) struct Read {
    pub(crate) runbook: Runbook,
    pub(crate) warnings: Vec<Problem>,
}
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Warning,
    Error,
}
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) help: Option<String>,
}
pub(crate) fn read(_bytes: &[u8]) -> Result<Read, Vec<Problem>> {
    Err(Vec::new())
}
pub(crate) fn render(_file: &str, _text: &[u8], _problems: &[Problem], _color: bool) -> String {
    String::new()
}
pub(crate) fn bind(
    _declared: &BTreeMap<String, Input>,
    _given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, Vec<String>> {
    Ok(BTreeMap::new())
}
