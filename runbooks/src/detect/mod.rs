//! How late an alert can be: read from the files of Prometheus and Alertmanager, before anything is wrong.
//!
//! ```text
//! symptom → scrape → (recording rules, ranges, query offset) → evaluation → `for` → group of Alertmanager → Fettle
//! ```
//!
//! [`Monitoring::read`] reads what the files say of time, [`Monitoring::detections`] adds it up for each alert, best and worst,
//! against a limit, and says which key to change; [`Monitoring::onset`] goes the other way, from an alert that fires to when its
//! symptom began. What the sum rests on:
//!
//! * Scrapes and evaluations have phases of their own, so each costs between nothing and its interval; a scrape may take its timeout.
//! * An alert is pending from the first evaluation that finds it. It fires at an evaluation, so `for` is rounded up to a whole number
//!   of intervals; `startsAt` is that evaluation. It is sent at once.
//! * Alertmanager sends a new group after `group_wait`, and what joins a group later with its next `group_interval`. A group outlives
//!   its last alert until that turn, so one that comes back soon waits for it, too: that is a note and not part of the sum.
//!
//! Deliberately missing: files and their patterns, which a [`Files`] hands in; what PromQL means (ranges count as time that may pass
//! until they hold nothing from before the symptom); relabelling of alerts; and the time that machines need to do all this.

mod document; // other people's YAML, with lines
mod matcher; // labels that are demanded
mod promql; // what an expression says of time
mod prometheus; // prometheus.yml
mod rules; // rule files
mod alertmanager; // alertmanager.yml
mod delay; // what passes until an alert fires
mod detection; // … and until it is here
mod fix; // what to change
mod onset; // and back to when it began
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use detection::{Detection, Part, Verdict};
pub use document::{Place, Wrong};
pub use fix::Fix;
pub use onset::Learnt;

use document::Node;

/// The way to files, which this crate has not.
pub trait Files {
    /// The text of a file, or why there is none.
    fn read(&self, path: &Path) -> Result<String, String>;
    /// The files that a pattern names, in order, as [`filepath.Glob`](https://pkg.go.dev/path/filepath#Glob) has them. No match
    /// is no error.
    fn matching(&self, pattern: &Path) -> Result<Vec<PathBuf>, String>;
}

/// Which files to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// `prometheus.yml`; its `rule_files` and `scrape_config_files` are followed. Without it Prometheus's defaults stand in.
    pub prometheus: Option<PathBuf>,
    /// More rule files, as patterns.
    pub rules: Vec<PathBuf>,
    /// `alertmanager.yml`.
    pub alertmanager: Option<PathBuf>,
    /// Receivers of Alertmanager that are Fettle's, beside those whose webhook's address has `/v1/signals/`.
    pub receivers: BTreeSet<String>,
}

/// What the files say.
#[derive(Clone, Debug)]
pub struct Monitoring {
    prometheus: prometheus::Config,
    /// Whether there was a `prometheus.yml`.
    has_prometheus: Option<Place>,
    rules: rules::Rules,
    alertmanager: Option<alertmanager::Config>,
    by_name: BTreeMap<String, Vec<usize>>,
    /// Patterns that no file answers to.
    unanswered: Vec<String>,
    patterns: Vec<PathBuf>,
    files: BTreeSet<PathBuf>,
}

/// A length of time that a file sets, and where to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    key: &'static str,
    value: Duration,
    place: Place,
}

impl Setting {
    fn read(node: &Node<'_>, key: &'static str, default: Duration) -> Result<Setting, Wrong> {
        let value = node.span(key)?.unwrap_or(default);
        Ok(Setting { key, value, place: node.place_for(key) })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, crate::duration::format(self.value))
    }
}

/// The least and the most of a length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// If everything goes well.
    pub best: Duration,
    /// If it does not.
    pub worst: Duration,
}

impl Monitoring {
    /// Reads everything; reports all that is wrong.
    pub fn read(sources: &Sources, files: &dyn Files) -> Result<Monitoring, Vec<Wrong>> {
        let mut reader = Reader { files, read: BTreeSet::new(), unanswered: Vec::new(), wrongs: Vec::new() };
        let beside = |pattern: &str| match &sources.prometheus {
            Some(path) => path.parent().unwrap_or(Path::new("")).join(pattern),
            None => PathBuf::from(pattern),
        };
        let mut prometheus = prometheus::Config::read("prometheus.yml", "").map_err(|wrong| vec![wrong])?;
        let mut has_prometheus = None;
        if let Some(path) = &sources.prometheus
            && let Some(config) = reader.one(path, prometheus::Config::read)
        {
            prometheus = config;
            has_prometheus = Some(Place { file: path.display().to_string().into(), line: 1 });
        }
        let jobs: Vec<PathBuf> = prometheus.scrape_config_files.iter().map(|it| beside(it)).collect();
        for pattern in &jobs {
            reader.each(pattern, |file, text| prometheus.read_more(file, text));
        }
        let mut rules = rules::Rules::default();
        let mut patterns: Vec<PathBuf> = prometheus.rule_files.iter().map(|it| beside(it)).collect();
        patterns.extend(sources.rules.iter().cloned());
        for pattern in &patterns {
            reader.each(pattern, |file, text| rules.read(file, text));
        }
        patterns.extend(jobs);
        let alertmanager = sources.alertmanager.as_ref().and_then(|path| {
            reader.one(path, |file, text| alertmanager::Config::read(file, text, &sources.receivers))
        });
        if !reader.wrongs.is_empty() {
            return Err(reader.wrongs);
        }
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, rule) in rules.alerts.iter().enumerate() {
            by_name.entry(rule.name.clone()).or_default().push(at);
        }
        let Reader { read: files, unanswered, .. } = reader;
        Ok(Monitoring {
            prometheus,
            has_prometheus,
            rules,
            alertmanager,
            by_name,
            unanswered,
            patterns,
            files,
        })
    }

    /// The files it was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The patterns by which those of them were found that nobody named.
    pub fn patterns(&self) -> impl Iterator<Item = &Path> {
        self.patterns.iter().map(PathBuf::as_path)
    }

    /// Patterns of rule files that no file answers to.
    pub fn unanswered(&self) -> &[String] {
        &self.unanswered
    }
}

struct Reader<'f> {
    files: &'f dyn Files,
    read: BTreeSet<PathBuf>,
    unanswered: Vec<String>,
    wrongs: Vec<Wrong>,
}

impl Reader<'_> {
    fn one<T>(&mut self, path: &Path, parse: impl FnOnce(&str, &str) -> Result<T, Wrong>) -> Option<T> {
        let file = path.display().to_string();
        let unreadable = |message| Wrong { place: Place { file: file.as_str().into(), line: 0 }, message };
        let read = self.files.read(path).map_err(unreadable).and_then(|text| parse(&file, &text));
        self.read.insert(path.to_owned());
        read.map_err(|wrong| self.wrongs.push(wrong)).ok()
    }

    fn each(&mut self, pattern: &Path, mut parse: impl FnMut(&str, &str) -> Result<(), Wrong>) {
        let found = match self.files.matching(pattern) {
            Ok(found) => found,
            Err(message) => {
                let place = Place { file: pattern.display().to_string().into(), line: 0 };
                return self.wrongs.push(Wrong { place, message });
            }
        };
        if found.is_empty() {
            self.unanswered.push(pattern.display().to_string());
        }
        for path in found {
            if !self.read.contains(&path) {
                self.one(&path, &mut parse);
            }
        }
    }
}
