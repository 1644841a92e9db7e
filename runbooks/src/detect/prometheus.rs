//! `prometheus.yml`: how often hosts are read and rules are evaluated, and which further files it names.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Setting;
use super::document::{Document, Node, Wrong};
use super::matcher::Matcher;

const MINUTE: Duration = Duration::from_secs(60);
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// What of it bears on time.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) evaluation_interval: Setting,
    pub(super) query_offset: Setting,
    /// Stands in where no job can be told.
    pub(super) scrape: Job,
    pub(super) jobs: Vec<Job>,
    pub(super) external_labels: BTreeMap<String, String>,
    /// Patterns, relative to the file.
    pub(super) rule_files: Vec<String>,
    /// Patterns of files with more jobs, relative to the file.
    pub(super) scrape_config_files: Vec<String>,
    /// Whether it sends alerts to anybody.
    pub(super) sends_alerts: bool,
    /// Whether labels change on the way to Alertmanager.
    pub(super) relabels_alerts: bool,
}

/// What is scraped alike.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) interval: Setting,
    pub(super) timeout: Setting,
}

impl Config {
    pub(super) fn read(file: &str, text: &str) -> Result<Config, Wrong> {
        let document = Document::read(file, text)?;
        let root = document.root();
        let global = root.get("global")?;
        let from = global.clone().unwrap_or(root.clone());
        // Without a map of its own, what would be in it is written under `global:`.
        let setting = |key: &'static str, default: Duration| -> Result<Setting, Wrong> {
            let of = |global: &Node<'_>| Setting::read(global, key, default);
            global.as_ref().map_or(Ok(Setting { key, value: default, place: from.place() }), of)
        };
        let interval = setting("scrape_interval", MINUTE)?;
        let timeout = setting("scrape_timeout", SCRAPE_TIMEOUT.min(interval.value))?;
        let scrape = Job { name: String::new(), interval, timeout };
        let mut config = Config {
            evaluation_interval: setting("evaluation_interval", MINUTE)?,
            query_offset: setting("rule_query_offset", Duration::ZERO)?,
            scrape,
            jobs: Vec::new(),
            external_labels: global
                .as_ref()
                .map(|it| it.texts("external_labels"))
                .transpose()?
                .unwrap_or_default(),
            rule_files: patterns(&root, "rule_files")?,
            scrape_config_files: patterns(&root, "scrape_config_files")?,
            sends_alerts: false,
            relabels_alerts: false,
        };
        if let Some(alerting) = root.get("alerting")? {
            let targets = alerting.list("alertmanagers")?;
            config.sends_alerts = !targets.is_empty();
            config.relabels_alerts = !alerting.list("alert_relabel_configs")?.is_empty();
            for target in &targets {
                config.relabels_alerts |= !target.list("alert_relabel_configs")?.is_empty();
            }
        }
        config.add_jobs(&root)?;
        Ok(config)
    }

    /// Takes in a file that `scrape_config_files:` names.
    pub(super) fn read_more(&mut self, file: &str, text: &str) -> Result<(), Wrong> {
        self.add_jobs(&Document::read(file, text)?.root())
    }

    fn add_jobs(&mut self, root: &Node<'_>) -> Result<(), Wrong> {
        for job in root.list("scrape_configs")? {
            let name = job.text("job_name")?.unwrap_or_default();
            let interval = Setting::read(&job, "scrape_interval", self.scrape.interval.value)?;
            let interval =
                if job.get("scrape_interval")?.is_some() { interval } else { self.scrape.interval.clone() };
            let timeout = if job.get("scrape_timeout")?.is_some() {
                Setting::read(&job, "scrape_timeout", SCRAPE_TIMEOUT)?
            } else {
                let inherited = &self.scrape.timeout;
                Setting { value: inherited.value.min(interval.value), ..inherited.clone() }
            };
            self.jobs.push(Job { name, interval, timeout });
        }
        Ok(())
    }

    /// The jobs whose samples these selectors may read; none where that cannot be told.
    pub(super) fn jobs(&self, selectors: &[&[Matcher]]) -> Vec<&Job> {
        let reads = |job: &&Job| {
            selectors
                .iter()
                .any(|demands| demands.iter().all(|matcher| matcher.fits(&job.name).unwrap_or(true)))
        };
        self.jobs.iter().filter(reads).collect()
    }
}

fn patterns(root: &Node<'_>, key: &str) -> Result<Vec<String>, Wrong> {
    root.list(key)?.iter().map(Node::as_text).collect()
}
