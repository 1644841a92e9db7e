//! What the controller knows how to mend: the runbooks in force, and which of them a signal asks for.
//!
//! [`choose`] asks every trigger of every runbook and records each answer. A signal starts at most one run: of the runbooks
//! that fit, the one that may go furthest, then the first by name; the others' verdicts say who went first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fettle_proto::v1;
use fettle_runbooks::expr::{Facts, Scope};
use fettle_runbooks::id::Host;
use fettle_runbooks::input;
use fettle_runbooks::runbook::{Runbook, Trigger};
use fettle_runbooks::value::Value;

use crate::policy::{Mode, Policy};
use crate::signal::{Answer, Signal, Verdict};
use crate::world::At;

/// One runbook in force, with the exact bytes it was read from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As checked.
    pub runbook: Runbook,
    /// The exact bytes of the file.
    pub bytes: Bytes,
    /// The reviewers' certificates found beside it, verbatim.
    pub certificates: Vec<v1::Signed>,
    /// Whether those certificates suffice under the roster in force.
    pub certified: bool,
}

/// The runbooks in force. Whoever reads the folder makes a new one whenever a file changed.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// By name.
    pub entries: BTreeMap<String, Arc<Entry>>,
    /// Files that are not in force, each with its problems, rendered for people.
    pub refused: BTreeMap<String, String>,
}

/// What a signal asks for.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The runbook.
    pub entry: Arc<Entry>,
    /// Where.
    pub host: Host,
    /// With what.
    pub inputs: BTreeMap<String, String>,
    /// How far by itself.
    pub mode: Mode,
}

/// What the triggers say.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// What to start; absent when no trigger fits. In mode `observe` it is only recorded.
    pub chosen: Option<Chosen>,
    /// The host the signal is about, as far as can be told.
    pub host: Option<Host>,
    /// Every answer.
    pub verdicts: Vec<Verdict>,
}

/// Finds the host that a text of an alert means: a host's exact name, that name with a port, or an alias of the policy.
/// Only hosts that are enrolled count; the text is never trusted further.
pub fn resolve(text: &str, policy: &Policy, enrolled: &dyn Fn(&Host) -> bool) -> Result<Host, String> {
    if text.is_empty() {
        return Err("the alert names no host".to_owned());
    }
    let without_port = text.rsplit_once(':').map_or(text, |(name, port)| {
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { text }
    });
    let names = [text, without_port];
    let alias = names.iter().find_map(|name| policy.hosts.get(*name).cloned());
    let exact = names.iter().filter_map(|name| name.parse::<Host>().ok());
    exact.chain(alias).find(|host| enrolled(host)).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        format!("no enrolled host is called `{}`, and the policy has no alias for it", shown.escape_debug())
    })
}

/// Asks every trigger.
pub fn choose(
    signal: &Signal,
    library: &Library,
    policy: &Policy,
    enrolled: &dyn Fn(&Host) -> bool,
    now: At,
) -> Judged {
    let scope = scope(signal);
    let mut judged = Judged {
        chosen: None,
        host: resolve(signal.labels.get("instance").map_or("", String::as_str), policy, enrolled).ok(),
        verdicts: Vec::new(),
    };
    let mut fitting: Vec<Chosen> = Vec::new();
    for (name, entry) in &library.entries {
        for trigger in entry.runbook.triggers().iter().filter(|trigger| trigger.alerts.contains(&signal.name))
        {
            let asked = format!("trigger {name}");
            match ask(trigger, entry, signal, &scope, policy, enrolled) {
                Ok(chosen) => {
                    let reason = format!("fits, on {}", chosen.host);
                    judged.verdicts.push(Verdict::new(now, asked, Answer::Yes, reason));
                    fitting.push(chosen);
                }
                Err(reason) => judged.verdicts.push(Verdict::new(now, asked, Answer::No, reason)),
            }
        }
    }
    if judged.verdicts.is_empty() {
        let shown: String = signal.name.chars().take(80).collect();
        let reason = match shown.is_empty() {
            true => "no runbook has a trigger for an alert without `alertname`".to_owned(),
            false => format!("no runbook has a trigger for `{}`", shown.escape_debug()),
        };
        judged.verdicts.push(Verdict::new(now, "trigger", Answer::No, reason));
    }
    // The sort is stable: where modes are equal, the first by name stays first.
    fitting.sort_by_key(|chosen| std::cmp::Reverse(chosen.mode));
    let mut fitting = fitting.into_iter();
    if let Some(first) = fitting.next() {
        for other in fitting {
            let asked = format!("trigger {}", other.entry.runbook.name());
            let reason = format!("{} goes first", first.entry.runbook.name());
            judged.verdicts.push(Verdict::new(now, asked, Answer::No, reason));
        }
        judged.host = Some(first.host.clone());
        judged.chosen = Some(first);
    }
    judged
}

fn scope(signal: &Signal) -> Scope {
    let map = |texts: &BTreeMap<String, String>| {
        Value::Map(texts.iter().map(|(name, text)| (name.clone(), Value::String(text.clone()))).collect())
    };
    Scope(BTreeMap::from([
        ("labels".to_owned(), map(&signal.labels)),
        ("annotations".to_owned(), map(&signal.annotations)),
    ]))
}

/// Refuses a text with a template that its rule was to fill in and did not: it names nothing.
fn expanded(what: &str, text: &str) -> Result<(), String> {
    const OF_RULES: &[&str] =
        &["$labels", "$value", "$externalLabels", ".Labels", ".Value", ".ExternalLabels"];
    let mut inside = text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
    if !inside.any(|inside| OF_RULES.iter().any(|name| inside.contains(name))) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(format!("its {what} is `{}`: a template that the alert's rule did not fill in", shown.escape_debug()))
}

fn ask(
    trigger: &Trigger,
    entry: &Arc<Entry>,
    signal: &Signal,
    scope: &Scope,
    policy: &Policy,
    enrolled: &dyn Fn(&Host) -> bool,
) -> Result<Chosen, String> {
    let facts = Facts::new();
    if let Some(matches) = &trigger.matches {
        let fits = matches.eval_bool(scope, &facts).map_err(|error| format!("its match failed: {error}"))?;
        if !fits {
            return Err(format!("its match is false: {}", matches.source()));
        }
    }
    let text = match &trigger.host {
        None => signal.labels.get("instance").cloned().unwrap_or_default(),
        Some(host) => match host.eval(scope, &facts).map_err(|error| format!("its host failed: {error}"))? {
            Value::String(text) => text,
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Number(_)
            | Value::Duration(_)
            | Value::List(_)
            | Value::Map(_) => return Err(format!("its host is not text: {}", host.source())),
        },
    };
    expanded("host", &text)?;
    let host = resolve(&text, policy, enrolled)?;
    let mut inputs = BTreeMap::new();
    for (name, template) in &trigger.inputs {
        let rendered =
            template.render(scope).map_err(|error| format!("its input `{name}` failed: {error}"))?;
        expanded(&format!("input `{name}`"), &rendered.text)?;
        inputs.insert(name.clone(), rendered.text);
    }
    input::bind(entry.runbook.inputs(), &inputs).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("its inputs do not fit: {}", problems.join("; "))
    })?;
    let (mode, _) = policy.mode(entry.runbook.name(), &signal.name, &host);
    Ok(Chosen { entry: Arc::clone(entry), host, inputs, mode })
}

#[cfg(test)]
mod tests {
    use super::expanded;

    #[test]
    fn only_what_a_rule_was_to_fill_in_is_taken_for_a_template() {
        for left in [
            "{{ $labels.instance }}",
            "{{$value}}",
            "x {{ .Labels.unit }} y",
            "{{ printf \"%s\" $labels.a }}",
        ] {
            assert!(expanded("host", left).is_err(), "{left}");
        }
        for text in ["", "web-1", "${{ 1 }}", "{{ x }}", "{{ $labels", "}} $labels {{", "a {{ b }} $labels"] {
            assert_eq!(expanded("host", text), Ok(()), "{text}");
        }
    }
}
