//! What passes from a symptom until its alert fires.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::matcher::Matcher;
use super::prometheus::Job;
use super::promql::Reading;
use super::rules::{Group, Rule};
use super::{Monitoring, Setting, Span};

/// What the files say of one rule, as numbers that can be changed to see what would come of it.
#[derive(Clone, Debug)]
pub(super) struct Delay {
    /// The slowest of the jobs it may read.
    pub(super) scrape: Setting,
    pub(super) timeout: Setting,
    /// What recording rules between it and the samples add at worst: their intervals and query offsets.
    pub(super) recorded: Duration,
    /// The slowest of their groups.
    pub(super) recorded_by: Option<Setting>,
    pub(super) window: Duration,
    /// Whether the range is waited for in any case.
    pub(super) absent: bool,
    pub(super) query_offset: Setting,
    pub(super) evaluation: Setting,
    pub(super) held_for: Setting,
    /// The job of `scrape`, and whether it is the only one it may read.
    pub(super) job: Option<(String, bool)>,
    pub(super) unsure: Vec<String>,
}

impl Delay {
    /// `for`, rounded up to evaluations.
    pub(super) fn held(&self) -> Duration {
        let (held, every) = (self.held_for.value.as_millis(), self.evaluation.value.as_millis().max(1));
        let ms = held.div_ceil(every).saturating_mul(every);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// From the symptom to `startsAt`.
    pub(super) fn span(&self) -> Span {
        let sure = self.query_offset.value.saturating_add(self.held());
        let range = if self.absent { self.window } else { Duration::ZERO };
        let waits =
            [self.scrape.value, self.timeout.value, self.recorded, self.window, self.evaluation.value];
        Span {
            best: sure.saturating_add(range),
            worst: waits.into_iter().fold(sure, Duration::saturating_add),
        }
    }
}

/// What lies behind an expression: itself, and the recording rules it reads.
#[derive(Default)]
struct Behind<'m> {
    selectors: Vec<&'m [Matcher]>,
    unsure: BTreeSet<String>,
    slowest: Option<&'m Setting>,
    /// What each recorded metric adds, waits and ranges; nothing yet while it is looked at.
    known: BTreeMap<&'m str, Option<(Duration, Duration)>>,
}

impl Monitoring {
    /// What is to be waited for until a rule fires; `job` names the job its samples come from, where that is known.
    pub(super) fn delay(&self, rule: &Rule, job: Option<&str>) -> Delay {
        let mut behind = Behind::default();
        let (recorded, window) = self.look_back(&rule.reading, &mut behind);
        let config = &self.prometheus;
        let mut unsure: Vec<String> = behind.unsure.into_iter().collect();
        let named: Vec<&Job> = config.jobs.iter().filter(|it| job == Some(it.name.as_str())).collect();
        let mut jobs = if named.is_empty() { config.jobs(&behind.selectors) } else { named };
        if jobs.is_empty() && !config.jobs.is_empty() && !behind.selectors.is_empty() {
            unsure.push(
                "how often it is scraped: no job of prometheus.yml has the name it asks for".to_owned(),
            );
            jobs = config.jobs.iter().collect();
        }
        let slowest = jobs.iter().max_by_key(|job| job.interval.value.saturating_add(job.timeout.value));
        let scrape = slowest.copied().unwrap_or(&config.scrape);
        let offset = self.offset(&rule.group);
        Delay {
            scrape: scrape.interval.clone(),
            timeout: scrape.timeout.clone(),
            recorded,
            recorded_by: behind.slowest.cloned(),
            window,
            absent: rule.reading.absent,
            query_offset: offset.clone(),
            evaluation: self.evaluation(&rule.group).clone(),
            held_for: rule.held_for.clone(),
            job: slowest.map(|job| (job.name.clone(), jobs.len() == 1)),
            unsure,
        }
    }

    fn evaluation<'m>(&'m self, group: &'m Group) -> &'m Setting {
        group.interval.as_ref().unwrap_or(&self.prometheus.evaluation_interval)
    }

    fn offset<'m>(&'m self, group: &'m Group) -> &'m Setting {
        group.query_offset.as_ref().unwrap_or(&self.prometheus.query_offset)
    }

    /// What the recording rules behind an expression add, and how far all of it looks back.
    fn look_back<'m>(&'m self, reading: &'m Reading, behind: &mut Behind<'m>) -> (Duration, Duration) {
        behind.unsure.extend(reading.unsure.iter().map(|it| (*it).to_owned()));
        let (mut waits, mut window) = (Duration::ZERO, Duration::ZERO);
        for selector in &reading.selectors {
            let Some((metric, rules)) = self.rules.recordings.get_key_value(&selector.metric) else {
                behind.selectors.push(&selector.job);
                continue;
            };
            let added = match behind.known.get(metric.as_str()) {
                Some(Some(known)) => *known,
                Some(None) => {
                    behind.unsure.insert(format!("what `{metric}` rests on: its recording rules go round"));
                    continue;
                }
                None => {
                    behind.known.insert(metric, None);
                    let mut most = (Duration::ZERO, Duration::ZERO);
                    for rule in rules {
                        let below = self.look_back(&rule.reading, behind);
                        let every = self.evaluation(&rule.group);
                        if behind.slowest.is_none_or(|slowest| every.value > slowest.value) {
                            behind.slowest = Some(every);
                        }
                        let offset = self.offset(&rule.group).value;
                        let wait = every.value.saturating_add(offset).saturating_add(below.0);
                        most = (most.0.max(wait), most.1.max(below.1));
                    }
                    behind.known.insert(metric, Some(most));
                    most
                }
            };
            (waits, window) = (waits.max(added.0), window.max(added.1));
        }
        (waits, reading.window.saturating_add(window))
    }
}
