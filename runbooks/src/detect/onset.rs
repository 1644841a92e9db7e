//! From an alert that fires back to when its symptom began.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Monitoring;
use super::rules::Rule;

/// How long before an alert's start its symptom began, as its rules tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// At least so long before.
    pub least: Duration,
    /// At most so long before.
    pub most: Duration,
    /// Which rules tell: `node.yml:12`.
    pub from: String,
}

impl Monitoring {
    /// What the rules of this name tell whose labels agree with the alert's. Where several do, it is any of them.
    pub fn onset(&self, alert: &str, labels: &BTreeMap<String, String>) -> Option<Learnt> {
        let agrees = |rule: &&Rule| {
            rule.known_labels().all(|(name, value)| labels.get(name).map_or("", String::as_str) == value)
        };
        let named = self.by_name.get(alert).into_iter().flatten().filter_map(|at| self.rules.alerts.get(*at));
        let mut learnt: Option<Learnt> = None;
        for rule in named.filter(agrees) {
            let span = self.delay(rule, labels.get("job").map(String::as_str)).span();
            let file = rule.place.file.rsplit('/').next().unwrap_or_default();
            let from = format!("{file}:{}", rule.place.line);
            learnt = Some(match learnt {
                None => Learnt { least: span.best, most: span.worst, from },
                Some(other) => Learnt {
                    least: other.least.min(span.best),
                    most: other.most.max(span.worst),
                    from: format!("{}, {from}", other.from),
                },
            });
        }
        learnt
    }
}
