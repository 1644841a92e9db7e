//! Runbooks of the library as messages.

use fettle_proto::v1;
use fettle_runbooks::runbook::Trigger;

use crate::policy::Policy;
use crate::trigger::Entry;

/// Without its bytes, for a list.
pub(super) fn listed(entry: &Entry, policy: &Policy) -> v1::Runbook {
    let runbook = &entry.runbook;
    v1::Runbook {
        name: runbook.name().to_owned(),
        title: runbook.title().to_owned(),
        owner: runbook.owner().to_owned(),
        digest: runbook.digest().0.to_vec().into(),
        bytes: Vec::new().into(),
        certificates: entry.certificates.clone(),
        certified: entry.certified,
        triggers: runbook.triggers().iter().flat_map(|it| trigger(runbook.name(), it, policy)).collect(),
    }
}

/// With its bytes.
pub(super) fn whole(entry: &Entry, policy: &Policy) -> v1::Runbook {
    v1::Runbook { bytes: entry.bytes.clone(), ..listed(entry, policy) }
}

/// One for each alert that the trigger names.
fn trigger(runbook: &str, trigger: &Trigger, policy: &Policy) -> Vec<String> {
    trigger.alerts.iter().map(|alert| mode_of(runbook, alert, policy)).collect()
}

/// `alert HostServiceDown → approve`; where hosts differ, every mode there is.
fn mode_of(runbook: &str, alert: &str, policy: &Policy) -> String {
    let mut modes = Vec::new();
    let mut everywhere = false;
    for rule in &policy.modes {
        let fits =
            rule.runbook.matches(runbook) && rule.alert.as_ref().is_none_or(|glob| glob.matches(alert));
        if fits && !everywhere {
            let word = rule.mode.word();
            let shown = if rule.hosts.is_some() { format!("{word} on some hosts") } else { word.to_owned() };
            if !modes.contains(&shown) {
                modes.push(shown);
            }
            everywhere = rule.hosts.is_none();
        }
    }
    if !everywhere {
        modes.push("observe".to_owned());
    }
    format!("alert {alert} → {}", modes.join(", else "))
}
