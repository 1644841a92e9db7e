//! Rule files: alerts, what they read, and how long they wait.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Setting;
use super::document::{Document, Node, Place, Wrong};
use super::promql::{self, Reading};

/// One alerting rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) name: String,
    /// Labels the rule gives whatever it finds.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) held_for: Setting,
    pub(super) keep_firing_for: Duration,
    /// Where its expression stands.
    pub(super) expr: Place,
    pub(super) reading: Reading,
    pub(super) group: Group,
}

/// A rule that keeps what it finds as a metric for others.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) reading: Reading,
    pub(super) group: Group,
}

/// What the rules of a group share. An absent setting is the global one.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) interval: Option<Setting>,
    pub(super) query_offset: Option<Setting>,
}

/// What a rule file has.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) alerts: Vec<Rule>,
    /// By the metric they make.
    pub(super) recordings: BTreeMap<String, Vec<Recording>>,
}

impl Rules {
    /// Takes in a file.
    pub(super) fn read(&mut self, file: &str, text: &str) -> Result<(), Wrong> {
        let document = Document::read(file, text)?;
        let root = document.root();
        if root.get("groups")?.is_none() && !text.trim().is_empty() {
            return Err(root.wrong("is no rule file: it has no `groups:`"));
        }
        for group in root.list("groups")? {
            let shared = Group {
                interval: setting(&group, "interval")?.filter(|it| it.value > Duration::ZERO),
                query_offset: setting(&group, "query_offset")?,
            };
            let labels = group.texts("labels")?;
            for rule in group.list("rules")? {
                self.rule(&rule, &shared, &labels)?;
            }
        }
        Ok(())
    }

    fn rule(
        &mut self,
        rule: &Node<'_>,
        group: &Group,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Wrong> {
        let expr = rule.text("expr")?.ok_or_else(|| rule.wrong("a rule needs an `expr:`"))?;
        let reading = promql::read(&expr);
        match (rule.text("alert")?, rule.text("record")?) {
            (Some(name), None) => {
                let mut all = labels.clone();
                all.extend(rule.texts("labels")?);
                self.alerts.push(Rule {
                    place: rule.place_for("alert"),
                    name,
                    labels: all,
                    held_for: Setting::read(rule, "for", Duration::ZERO)?,
                    keep_firing_for: rule.span("keep_firing_for")?.unwrap_or_default(),
                    expr: rule.place_for("expr"),
                    reading,
                    group: group.clone(),
                });
                Ok(())
            }
            (None, Some(metric)) => {
                let same = self.recordings.entry(metric).or_default();
                same.push(Recording { reading, group: group.clone() });
                Ok(())
            }
            (Some(_), Some(_)) | (None, None) => Err(rule.wrong("a rule needs either `alert:` or `record:`")),
        }
    }
}

impl Rule {
    /// The labels whose values are known before it fires: those without a template.
    pub(super) fn known_labels(&self) -> impl Iterator<Item = (&String, &String)> {
        self.labels.iter().filter(|(_, value)| !value.contains("{{"))
    }
}

fn setting(node: &Node<'_>, key: &'static str) -> Result<Option<Setting>, Wrong> {
    node.get(key)?.map(|_| Setting::read(node, key, Duration::ZERO)).transpose()
}
