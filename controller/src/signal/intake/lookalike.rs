//! What a body that is not Alertmanager's looks like, so that a refusal helps whoever posted it.

use serde_json::{Map, Value};

use super::Refused;

const FIX: &str = "post the webhook body of Alertmanager, version 4; Prometheus rules reach it through an Alertmanager \
                   receiver of type `webhook_configs`";

const LEGACY: &str = "Grafana's legacy alerting";
const LEGACY_FIX: &str = "use Grafana's unified alerting (since 11 there is no other) with a contact point of type webhook: its body is read";

/// The refusal of a document that is JSON and not a group of alerts.
pub(super) fn refusal(document: &Value) -> Refused {
    match seems(document) {
        Some(product) => {
            let fix = if product == LEGACY { LEGACY_FIX } else { FIX };
            Refused::new(format!("this looks like {product}, which is not read"), fix)
        }
        None => Refused::new(format!("this is not a body of Alertmanager: {}", shape(document)), FIX),
    }
}

fn shape(document: &Value) -> String {
    match document {
        Value::Object(members) if members.is_empty() => "it is an empty object".to_owned(),
        Value::Object(members) if !members.contains_key("alerts") => "it has no `alerts`".to_owned(),
        Value::Object(members) if !members["alerts"].is_array() => "its `alerts` is not a list".to_owned(),
        Value::Object(_) => "it has `alerts`, but neither a receiver nor group labels".to_owned(),
        Value::Array(_) => "it is a list".to_owned(),
        Value::String(_) => "it is a text".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => "it is a single value".to_owned(),
    }
}

fn seems(document: &Value) -> Option<&'static str> {
    match document {
        Value::Object(members) => object(members),
        Value::Array(items) => list(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Members that all have to be there, and the product they give away. The first match counts.
const OBJECTS: &[(&[&str], &str)] = &[
    (&["Type", "TopicArn"], "an Amazon SNS message"),
    (&["specversion", "source"], "a CloudEvent"),
    (&["detail-type", "source"], "an Amazon EventBridge event"),
    (&["schemaId", "data"], "an Azure Monitor alert"),
    (&["evalMatches"], LEGACY),
    (&["ruleId", "ruleName"], LEGACY),
    (&["ruleName", "state"], LEGACY),
    (&["ruleUrl", "state"], LEGACY),
    (&["alert_uid", "state"], "a Grafana OnCall webhook"),
    (&["check_id", "check_name"], "a Pingdom webhook"),
    (&["condition_id", "policy_name"], "a New Relic alert"),
    (&["condition_name", "policy_name"], "a New Relic alert"),
    (&["alert_transition"], "a Datadog webhook"),
    (&["event_type", "org"], "a Datadog webhook"),
    (&["actionPlanType"], "an AppDynamics HTTP action"),
    (&["trigger", "host"], "a Zabbix message"),
    (&["event", "item"], "a Zabbix message"),
    (&["alertId", "action"], "an Opsgenie webhook"),
    (&["AlarmName", "NewStateValue"], "an Amazon CloudWatch alarm"),
];

fn object(members: &Map<String, Value>) -> Option<&'static str> {
    let has = |name: &str| members.contains_key(name);
    if members.get("Type").and_then(Value::as_str) == Some("SubscriptionConfirmation") {
        return Some("Amazon SNS asking to confirm a subscription");
    }
    if let Some((_, product)) = OBJECTS.iter().find(|(names, _)| names.iter().all(|name| has(name))) {
        return Some(product);
    }
    let inner = |name: &str, member: &str| members.get(name).is_some_and(|value| value.get(member).is_some());
    if inner("incident", "incident_id") || inner("incident", "policy_name") {
        return Some("a Google Cloud Monitoring notification");
    }
    if inner("event", "resource_type") || inner("event", "event_type") {
        return Some("a PagerDuty webhook, version 3");
    }
    if let Some(Value::Array(records)) = members.get("Records") {
        let sns = records.first().is_some_and(|record| record.get("Sns").is_some());
        return Some(if sns {
            "Amazon SNS messages as a Lambda receives them"
        } else {
            "records as a Lambda receives them"
        });
    }
    None
}

fn list(items: &[Value]) -> Option<&'static str> {
    let first = items.first()?;
    let has = |name: &str| first.get(name).is_some();
    if first.as_str().is_some_and(|name| name.starts_with("NOTIFY_")) {
        return Some("the environment of a Nagios or Checkmk notification");
    }
    match () {
        () if has("labels") => Some("alerts as Prometheus posts them to Alertmanager's own API"),
        () if has("specversion") => Some("a batch of CloudEvents"),
        () if has("actionPlanType") => Some("an AppDynamics HTTP action"),
        () if has("flag") && has("macro") => Some("the flags of a Nagios or Icinga notification"),
        () if has("name") && has("value") => Some("the parameters of a Zabbix media type"),
        () => None,
    }
}
