//! What sources post, read into signals.
//!
//! One outside format is read: the webhook body of Alertmanager, version 4 (and 3, which differs in nothing we use),
//! which Grafana's unified alerting posts too, as its version 1. Everything else is refused with a reason that says
//! what it looks like.
//!
//! What real bodies leave out, and what is taken instead:
//!
//! | Absent | Taken |
//! | --- | --- |
//! | an alert's `status` | `resolved` when the group is; of a group of one, the group's; else `resolved` when `endsAt` has passed |
//! | `endsAt`, or one of year 1 or 1970 | the alert is open |
//! | `startsAt`, or one of year 1 or 1970 | not known |
//! | `fingerprint` | computed from the labels as Alertmanager does ([`fingerprint`]) |
//! | `labels.alertname` | no name: triggers that wait for a name do not match it |
//! | `truncatedAlerts` | none |
//!
//! What a body says of itself that matters to whoever asks later why something did or did not happen goes into the trail
//! of its signals, as [`Remark`]s: alerts its sender left out, and that Grafana speaks of its own data source and not of a host,
//! for which nothing is started. A body that contradicts itself is refused where it says `resolved` of the group and `firing` of
//! an alert; an alert that it calls both is resolved.
//!
//! Names of members are matched without regard to case, as the Go programs that send and receive these bodies do; one that is
//! there in two spellings is refused, as one that is there twice. Names of labels and annotations are what they are.
//! Values are data: control characters, `$(…)` and `${{ … }}` in a label are kept as they are.
//!
//! Deliberately missing: who may post it (HTTP's affair), whether it was seen before (the coordinator's).

mod json;
mod lookalike;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::signal::{Answer, Remark, Signal, Status};
use crate::world::At;

/// The largest body that is read, bytes. Checked before anything is parsed.
pub const LARGEST_BODY: usize = 1024 * 1024;
/// Labels, and annotations, of one alert.
const MOST_LABELS: usize = 128;
/// Bytes of the name of a label or annotation.
const LONGEST_NAME: usize = 256;
/// Bytes of a label's value.
const LONGEST_LABEL: usize = 8 * 1024;
/// Bytes of an annotation's value.
const LONGEST_ANNOTATION: usize = 64 * 1024;
/// Bytes of a fingerprint.
const LONGEST_FINGERPRINT: usize = 128;
/// Alerts in one body.
const MOST_ALERTS: usize = 1000;

/// What a body held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intake {
    /// One per alert, in the order of the body.
    pub signals: Vec<Signal>,
    /// Alerts the sender says it left out of the body.
    pub truncated: u64,
}

/// Why a body is not read. All of it is refused or none of it: half a group would hide the other half.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// How far the reading came.
    pub fault: Fault,
    /// What is the matter, for the people who run the source.
    pub why: String,
    /// What to change there.
    pub fix: String,
}

/// How far the reading of a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is too large to be looked at.
    TooLarge,
    /// It is not even JSON.
    Unreadable,
    /// It is JSON, but not a body we read, or says what it must not.
    NotOurs,
}

impl Refused {
    fn new(why: impl Into<String>, fix: impl Into<String>) -> Refused {
        Refused { fault: Fault::NotOurs, why: why.into(), fix: fix.into() }
    }

    fn with(self, fault: Fault) -> Refused {
        Refused { fault, ..self }
    }
}

/// Reads a body that `source` posted at `received_at`.
pub fn read(source: &str, body: &[u8], received_at: At) -> Result<Intake, Refused> {
    if body.len() > LARGEST_BODY {
        return Err(Refused::new(
            format!("the body is {} bytes long, more than {LARGEST_BODY}", body.len()),
            "set `max_alerts` of the receiver, so that a body holds fewer alerts",
        )
        .with(Fault::TooLarge));
    }
    let document = json::parse(body).map_err(|refused| refused.with(Fault::Unreadable))?;
    let Value::Object(group) = &document else {
        return Err(lookalike::refusal(&document));
    };
    let Some(Value::Array(alerts)) = member(group, "alerts") else {
        return Err(lookalike::refusal(&document));
    };
    if !is_group(group) {
        return Err(lookalike::refusal(&document));
    }
    spelled_once(group, GROUP, "the group")?;
    known_version(group)?;
    if alerts.is_empty() {
        return Err(Refused::new("`alerts` is empty", "a body says something about at least one alert"));
    }
    if alerts.len() > MOST_ALERTS {
        return Err(Refused::new(
            format!("`alerts` has {} members, more than {MOST_ALERTS}", alerts.len()),
            "set `max_alerts` of the receiver, or group by more labels",
        ));
    }
    let said = status(group, "`status`")?;
    let truncated = truncated(group);
    let group = GroupSays { status: said, alone: alerts.len() == 1 };
    let mut signals = alerts
        .iter()
        .enumerate()
        .map(|(place, alert)| one(source, place, alert, group, received_at))
        .collect::<Result<Vec<_>, _>>()?;
    resolved_wins(&mut signals);
    if truncated > 0 {
        let text = format!(
            "its sender left {truncated} more alerts out of the body: raise `max_alerts` of the receiver, or group by more labels"
        );
        for signal in &mut signals {
            signal.remarks.push(Remark { answer: Answer::Yes, text: text.clone() });
        }
    }
    Ok(Intake { signals, truncated })
}

/// The fingerprint that Alertmanager would give: FNV-1a over the labels in the order of their names, each name and
/// each value followed by the byte 255; 64 bits as 16 hex digits.
pub fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (name, value) in labels {
        add(name.as_bytes());
        add(&[255]);
        add(value.as_bytes());
        add(&[255]);
    }
    format!("{hash:016x}")
}

/// What is read of a group.
const GROUP: &[&str] = &[
    "alerts",
    "status",
    "receiver",
    "groupLabels",
    "commonLabels",
    "groupKey",
    "version",
    "truncatedAlerts",
];
/// What is read of an alert.
const ALERT: &[&str] = &["status", "labels", "annotations", "startsAt", "endsAt", "fingerprint"];

/// Refuses an object that has a member we read in two spellings: whoever reads the other one reads another body.
fn spelled_once(object: &Map<String, Value>, names: &[&str], at: &str) -> Result<(), Refused> {
    let twice = |name: &&&str| object.keys().filter(|key| key.eq_ignore_ascii_case(name)).count() > 1;
    match names.iter().find(twice) {
        None => Ok(()),
        Some(name) => Err(Refused::new(
            format!("{at} has the member `{name}` in two spellings"),
            "write each member once; upper and lower case are the same",
        )),
    }
}

/// A member by its name, which is there once.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .filter(|value| !value.is_null())
}

/// Whether an object with `alerts` is a group as Alertmanager posts it, and not something else with that member.
fn is_group(group: &Map<String, Value>) -> bool {
    ["receiver", "groupLabels", "commonLabels", "groupKey"].iter().any(|name| member(group, name).is_some())
}

fn known_version(group: &Map<String, Value>) -> Result<(), Refused> {
    match member(group, "version") {
        None => Ok(()),
        // 1 is Grafana's.
        Some(Value::String(version)) if matches!(version.as_str(), "4" | "3" | "1") => Ok(()),
        Some(Value::Number(version)) if matches!(version.as_u64(), Some(4 | 3 | 1)) => Ok(()),
        Some(other) => Err(Refused::new(
            format!("`version` is {}, which is not known", excerpt(&other.to_string())),
            "post version 4, as Alertmanager 0.8 and later do",
        )),
    }
}

/// What the group says of an alert that does not say it itself.
#[derive(Clone, Copy)]
struct GroupSays {
    status: Option<Status>,
    alone: bool,
}

fn one(
    source: &str,
    place: usize,
    alert: &Value,
    group: GroupSays,
    received_at: At,
) -> Result<Signal, Refused> {
    let at = |name: &str| format!("`alerts[{place}].{name}`");
    let Value::Object(alert) = alert else {
        return Err(Refused::new(
            format!("`alerts[{place}]` is not an object"),
            "an alert has labels and a start",
        ));
    };
    spelled_once(alert, ALERT, &format!("`alerts[{place}]`"))?;
    let labels = texts(alert, "labels", &at("labels"), LONGEST_LABEL)?;
    if labels.is_empty() {
        return Err(Refused::new(
            format!("{} is absent or empty", at("labels")),
            "an alert is known by its labels; give it at least `alertname`",
        ));
    }
    let annotations = texts(alert, "annotations", &at("annotations"), LONGEST_ANNOTATION)?;
    let starts_at = moment(alert, "startsAt", &at("startsAt"))?;
    let ends_at = moment(alert, "endsAt", &at("endsAt"))?;
    let status = match (status(alert, &at("status"))?, group.status) {
        (Some(Status::Firing), Some(Status::Resolved)) => {
            return Err(Refused::new(
                format!("`status` of the group is resolved, and {} is firing", at("status")),
                "a group is resolved once all its alerts are; post what is true of each",
            ));
        }
        (Some(said), _) => said,
        (None, Some(Status::Resolved)) => Status::Resolved,
        (None, Some(Status::Firing)) if group.alone => Status::Firing,
        (None, _) if ends_at.is_some_and(|end| end <= received_at) => Status::Resolved,
        (None, _) => Status::Firing,
    };
    let fingerprint = match member(alert, "fingerprint") {
        Some(Value::String(given)) if given.len() > LONGEST_FINGERPRINT => {
            return Err(Refused::new(
                format!("{} is longer than {LONGEST_FINGERPRINT} bytes", at("fingerprint")),
                "leave it out: it is computed from the labels",
            ));
        }
        Some(Value::String(given)) if !given.is_empty() => given.clone(),
        Some(Value::String(_)) | None => fingerprint(&labels),
        Some(_) => {
            return Err(Refused::new(
                format!("{} is not text", at("fingerprint")),
                "leave it out: it is computed from the labels",
            ));
        }
    };
    Ok(Signal {
        source: source.to_owned(),
        fingerprint,
        status,
        name: labels.get("alertname").cloned().unwrap_or_default(),
        remarks: hearsay(&labels, &annotations).into_iter().collect(),
        labels,
        annotations,
        starts_at,
        ends_at: ends_at.filter(|_| status == Status::Resolved),
        received_at,
    })
}

/// An alert that the body calls firing and resolved at once is resolved: for one start, nothing follows that.
fn resolved_wins(signals: &mut [Signal]) {
    let over: BTreeMap<_, _> = signals
        .iter()
        .filter(|signal| signal.status == Status::Resolved)
        .map(|signal| (signal.key(), signal.ends_at))
        .collect();
    for signal in signals.iter_mut().filter(|signal| signal.status == Status::Firing) {
        if let Some(ends_at) = over.get(&signal.key()) {
            (signal.status, signal.ends_at) = (Status::Resolved, *ends_at);
            let text = "the body calls this alert firing and resolved: taken as resolved".to_owned();
            signal.remarks.push(Remark { answer: Answer::No, text });
        }
    }
}

/// What Grafana says when it has no value for its rule: that is about its data source, not about a host.
fn hearsay(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Option<Remark> {
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    let state = annotations.get("grafana_state_reason").map_or("", String::as_str);
    let what = match (label("alertname"), state) {
        ("DatasourceError", _) | (_, "Error") => "could not ask its data source",
        ("DatasourceNoData", _) | (_, "NoData") => "got no data from its data source",
        _ => return None,
    };
    let rule = match (label("rulename"), label("alertname")) {
        ("", name) | (name, _) => excerpt(name),
    };
    let text = format!(
        "Grafana {what} for the rule `{rule}`: that says nothing about a host, so nothing is started; look at the data source"
    );
    Some(Remark { answer: Answer::No, text })
}

fn status(object: &Map<String, Value>, at: &str) -> Result<Option<Status>, Refused> {
    match member(object, "status") {
        None => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "firing" => Ok(Some(Status::Firing)),
        Some(Value::String(word)) if word == "resolved" => Ok(Some(Status::Resolved)),
        Some(other) => Err(Refused::new(
            format!("{at} is {}", excerpt(&other.to_string())),
            "it is `firing` or `resolved`",
        )),
    }
}

fn texts(
    object: &Map<String, Value>,
    name: &str,
    at: &str,
    longest: usize,
) -> Result<BTreeMap<String, String>, Refused> {
    let members = match member(object, name) {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(Refused::new(format!("{at} is not an object"), "it maps names to texts")),
    };
    if members.len() > MOST_LABELS {
        return Err(Refused::new(
            format!("{at} has {} members, more than {MOST_LABELS}", members.len()),
            "drop labels that nobody matches on",
        ));
    }
    let mut read = BTreeMap::new();
    for (key, value) in members {
        if key.len() > LONGEST_NAME {
            return Err(Refused::new(
                format!("{at} has a name of {} bytes, more than {LONGEST_NAME}", key.len()),
                "shorten it",
            ));
        }
        let Value::String(value) = value else {
            return Err(Refused::new(
                format!("{at} has `{}`, which is not text", excerpt(key)),
                "write every value as text, in quotes",
            ));
        };
        if value.len() > longest {
            return Err(Refused::new(
                format!("{at} has `{}` of {} bytes, more than {longest}", excerpt(key), value.len()),
                "shorten it, or link to it",
            ));
        }
        read.insert(key.clone(), value.clone());
    }
    Ok(read)
}

/// A time; none if absent, or of year 1 or 1970, which is how Go and others say so.
fn moment(object: &Map<String, Value>, name: &str, at: &str) -> Result<Option<At>, Refused> {
    let bad = |shown: &str| {
        Refused::new(
            format!("{at} is {}, which is not a time", excerpt(shown)),
            "write it as 2026-01-31T23:59:59Z",
        )
    };
    match member(object, name) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => {
            let time: jiff::Timestamp = text.parse().map_err(|_| bad(text))?;
            let known = time.as_second() >= 31_536_000; // the first second of 1971
            Ok(known.then_some(At(time.as_millisecond())))
        }
        Some(other) => Err(bad(&other.to_string())),
    }
}

fn truncated(group: &Map<String, Value>) -> u64 {
    match member(group, "truncatedAlerts") {
        // Some senders write it as a fraction.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is enough here"
        )]
        Some(Value::Number(count)) => count.as_u64().unwrap_or(count.as_f64().unwrap_or(0.0) as u64),
        _ => 0,
    }
}

/// The beginning of a text from outside, safe to print and to log.
fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(60) {
        if c.is_control() { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
