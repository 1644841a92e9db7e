//! Outputs of steps as text, and back.

use std::collections::BTreeMap;

use crate::runbook::{Phase, Runbook};
use crate::value::{Type, Value};

/// `usage.used` → JSON text, of every output that diagnosis left.
pub(crate) fn of(outputs: &BTreeMap<String, BTreeMap<String, Value>>) -> BTreeMap<String, String> {
    outputs
        .iter()
        .flat_map(|(step, values)| {
            values.iter().map(move |(name, value)| (format!("{step}.{name}"), json(value)))
        })
        .collect()
}

/// The outputs that a plan carries, typed as the runbook says.
pub(crate) fn read(
    evidence: &BTreeMap<String, String>,
    runbook: &Runbook,
) -> BTreeMap<String, BTreeMap<String, Value>> {
    let mut outputs: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    // Remediate steps only where they were done in an earlier run.
    for step in [Phase::Diagnose, Phase::Remediate].into_iter().flat_map(|phase| runbook.steps(phase)) {
        for (name, expr) in &step.outputs {
            let text = evidence.get(&format!("{}.{name}", step.id));
            let value = text.and_then(|text| serde_json::from_str(text).ok());
            if let Some(value) = value {
                outputs.entry(step.id.clone()).or_default().insert(name.clone(), typed(value, expr.ty()));
            }
        }
    }
    outputs
}

/// A value as JSON text; a length of time as the text the language writes for it.
pub(crate) fn json(value: &Value) -> String {
    as_json(value).to_string()
}

fn as_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Number(value) => (*value).into(),
        Value::String(value) => value.clone().into(),
        Value::Duration(value) => crate::duration::format(*value).into(),
        Value::List(values) => values.iter().map(as_json).collect(),
        Value::Map(values) => values
            .iter()
            .map(|(name, value)| (name.clone(), as_json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn typed(value: serde_json::Value, ty: &Type) -> Value {
    use serde_json::Value as Json;
    match (value, ty) {
        (Json::Null, _) => Value::Null,
        (Json::Bool(value), _) => Value::Bool(value),
        (Json::Number(value), Type::Number) => Value::Number(value.as_f64().unwrap_or(f64::NAN)),
        (Json::Number(value), _) => match value.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Number(value.as_f64().unwrap_or(f64::NAN)),
        },
        (Json::String(text), Type::Duration) => match crate::duration::parse(&text) {
            Ok(duration) => Value::Duration(duration),
            Err(_) => Value::String(text),
        },
        (Json::String(text), _) => Value::String(text),
        (Json::Array(values), Type::List(of)) => {
            Value::List(values.into_iter().map(|v| typed(v, of)).collect())
        }
        (Json::Array(values), _) => Value::List(values.into_iter().map(|v| typed(v, &Type::Any)).collect()),
        (Json::Object(members), Type::Map(of)) => {
            Value::Map(members.into_iter().map(|(name, v)| (name, typed(v, of))).collect())
        }
        (Json::Object(members), Type::Record(fields)) => Value::Map(
            members
                .into_iter()
                .map(|(name, v)| {
                    let ty = fields.get(&name).unwrap_or(&Type::Any);
                    let value = typed(v, ty);
                    (name, value)
                })
                .collect(),
        ),
        (Json::Object(members), _) => {
            Value::Map(members.into_iter().map(|(name, v)| (name, typed(v, &Type::Any))).collect())
        }
    }
}
