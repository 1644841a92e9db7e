//! From the symptom to the signal's arrival, part by part, against a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::alertmanager::{Config, Route, Way};
use super::delay::Delay;
use super::document::Place;
use super::fix::{Fix, fixes, grouping};
use super::matcher::Labels;
use super::rules::Rule;
use super::{Monitoring, Span};
use crate::duration::format;

/// Whether an alert comes within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// At worst, too.
    InTime,
    /// At best, and not at worst.
    PerhapsLate,
    /// Not even at best.
    Late,
    /// It hangs on labels or on the time of day whether it comes.
    PerhapsNever,
    /// It never reaches Fettle.
    Never,
}

impl Verdict {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::InTime => "in time",
            Verdict::PerhapsLate => "perhaps late",
            Verdict::Late => "late",
            Verdict::PerhapsNever => "perhaps never",
            Verdict::Never => "never",
        }
    }
}

/// A part of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What is waited for.
    pub name: &'static str,
    /// What says so: `for 15m`.
    pub setting: String,
    /// Where it says so.
    pub place: Place,
    /// How long.
    pub span: Span,
}

/// How late an alert can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The alert's name.
    pub alert: String,
    /// Labels of its rule, which tell alerts of one name apart.
    pub labels: BTreeMap<String, String>,
    /// Where its rule stands.
    pub place: Place,
    /// From the symptom to its arrival; without the last leg if no `alertmanager.yml` was read.
    pub span: Span,
    /// What that is made of, in order.
    pub parts: Vec<Part>,
    /// Against the limit.
    pub verdict: Verdict,
    /// Why it may never come, and what else to know.
    pub notes: Vec<String>,
    /// What cannot be told of it from the files.
    pub unsure: Vec<String>,
    /// What to change, if it may be late or never come.
    pub fixes: Vec<Fix>,
}

/// Where Alertmanager brings an alert.
enum Delivery<'m> {
    /// Nobody has said.
    NotAsked,
    /// To Fettle, by these routes at best and at worst; `sure` if whatever its labels, and at any time.
    Fettle {
        fastest: &'m Route,
        slowest: &'m Route,
        sure: bool,
    },
    /// There are too many ways to say.
    Untold,
    Nowhere,
}

impl Monitoring {
    /// Every alert, in the order of the files.
    pub fn detections(&self, limit: Duration) -> Vec<Detection> {
        self.rules.alerts.iter().map(|rule| self.detection(rule, limit)).collect()
    }

    fn detection(&self, rule: &Rule, limit: Duration) -> Detection {
        let delay = self.delay(rule, None);
        let mut parts = parts(rule, &delay);
        let (mut notes, mut unsure, mut repairs) = (Vec::new(), delay.unsure.clone(), Vec::new());
        if let Some(place) = self.has_prometheus.clone().filter(|_| !self.prometheus.sends_alerts) {
            notes.push(format!("{place}: Prometheus sends alerts to nobody"));
            repairs.push(Fix {
                place,
                write: "alerting: { alertmanagers: [{ static_configs: [{ targets: […] }] }] }".into(),
            });
        }
        let delivery = match &self.alertmanager {
            None => Delivery::NotAsked,
            Some(config) => self.delivery(config, rule, &mut notes, &mut unsure, &mut repairs),
        };
        if let Delivery::Fettle { slowest, .. } = &delivery
            && slowest.each_alone
            && slowest.group_interval.value > limit
        {
            let (place, interval) = (&slowest.group_interval.place, &slowest.group_interval);
            notes.push(format!(
                "{place}: one that ends and comes back waits for the rest of {interval}, and so does its end: `group_interval: 10s`"
            ));
        }
        if self.prometheus.relabels_alerts {
            unsure.push("its labels on the way: `alert_relabel_configs` change them".to_owned());
        }
        if rule.keep_firing_for > Duration::ZERO {
            notes.push(format!("it fires for {} after its symptom is gone", format(rule.keep_firing_for)));
        }
        let is_lost = self.has_prometheus.is_some() && !self.prometheus.sends_alerts;
        let (slowest, sure) = match delivery {
            Delivery::Fettle { fastest, slowest, sure } => {
                parts.push(group_part(fastest, slowest));
                (Some(slowest), sure)
            }
            Delivery::Untold => (None, false),
            Delivery::NotAsked | Delivery::Nowhere => (None, true),
        };
        let span = parts.iter().fold(Span::default(), |sum, part| Span {
            best: sum.best.saturating_add(part.span.best),
            worst: sum.worst.saturating_add(part.span.worst),
        });
        let verdict = match () {
            () if is_lost || matches!(delivery, Delivery::Nowhere) => Verdict::Never,
            () if !sure => Verdict::PerhapsNever,
            () if span.best > limit => Verdict::Late,
            () if span.worst > limit => Verdict::PerhapsLate,
            () => Verdict::InTime,
        };
        if span.worst > limit {
            repairs.extend(fixes(rule, &delay, slowest, limit));
        }
        let labels = rule.labels.clone();
        let (alert, place) = (rule.name.clone(), rule.place.clone());
        Detection { alert, labels, place, span, parts, verdict, notes, unsure, fixes: repairs }
    }

    fn delivery<'m>(
        &'m self,
        config: &'m Config,
        rule: &Rule,
        notes: &mut Vec<String>,
        unsure: &mut Vec<String>,
        repairs: &mut Vec<Fix>,
    ) -> Delivery<'m> {
        let mut known = Labels(self.prometheus.external_labels.clone());
        for name in rule.labels.keys() {
            known.0.remove(name);
        }
        known.0.extend(rule.known_labels().map(|(name, value)| (name.clone(), value.clone())));
        known.0.insert("alertname".to_owned(), rule.name.clone());
        for inhibit in config.inhibits.iter().filter(|it| it.may_hold(&known)) {
            unsure.push(format!("whether another alert holds it back ({}: inhibit_rules)", inhibit.place));
        }
        let Some(ways) = config.ways(&known) else {
            unsure
                .push("which of its many routes it takes, and so whether it comes here, and when".to_owned());
            return Delivery::Untold;
        };
        let speed = |route: &&&Route| grouping(route);
        let arrivals =
            |way: &Way<'m>| way.routes.iter().copied().filter(|it| config.is_fettle(it)).collect::<Vec<_>>();
        let reach: Vec<(&Way<'m>, Option<&'m Route>)> =
            ways.iter().map(|way| (way, arrivals(way).iter().min_by_key(speed).copied())).collect();
        let missed: Vec<&Way<'m>> =
            reach.iter().filter(|(_, by)| by.is_none()).map(|(way, _)| *way).collect();
        let by: Vec<&'m Route> = reach.iter().filter_map(|(_, by)| *by).collect();
        if !missed.is_empty() {
            notes.push(misses(config, &missed, by.is_empty()));
            let write = format!(
                "routes: [{{ matchers: [alertname={:?}], receiver: FETTLE, continue: true }}], first of them",
                rule.name
            );
            repairs.push(Fix { place: config.root.place.clone(), write });
        }
        for route in &by {
            notes.extend(route.silent.iter().map(|when| format!("{}: it sends nothing {when}", route.place)));
            if let Some(receiver) = config.receivers.get(&route.receiver) {
                if !receiver.sends_resolved {
                    notes.push(format!(
                        "{}: without `send_resolved: true` its incident never closes by itself",
                        receiver.place
                    ));
                }
                if let Some(most) = receiver.max_alerts {
                    notes.push(format!(
                        "{}: `max_alerts: {most}` leaves out what is more than that in a group",
                        receiver.place
                    ));
                }
            }
        }
        notes.sort();
        notes.dedup();
        let sure = missed.is_empty() && by.iter().all(|route| route.silent.is_empty());
        match (by.iter().min_by_key(|it| it.group_wait.value), by.iter().max_by_key(speed)) {
            (Some(fastest), Some(slowest)) => Delivery::Fettle { fastest, slowest, sure },
            (_, _) => Delivery::Nowhere,
        }
    }
}

/// Where alerts go instead, and when.
fn misses(config: &Config, missed: &[&Way<'_>], always: bool) -> String {
    let routes = || missed.iter().flat_map(|way| &way.routes);
    let receivers: BTreeSet<&str> = routes().map(|route| route.receiver.as_str()).collect();
    let receivers = receivers.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let conditions: BTreeSet<&str> =
        missed.iter().flat_map(|way| way.conditions.iter().map(String::as_str)).collect();
    let when = match conditions.len() {
        _ if always => String::new(),
        0 => String::new(),
        1..=3 => format!(", if {}", conditions.into_iter().collect::<Vec<_>>().join(" and ")),
        many => format!(", as {many} conditions on its labels have it"),
    };
    let hidden = routes().any(|route| config.receivers.get(&route.receiver).is_some_and(|it| it.is_hidden));
    let hint =
        if hidden { "; a `url_file` is not followed: name the receiver if it is Fettle's" } else { "" };
    let place = routes().next().map_or(&config.root.place, |route| &route.place);
    format!("{place}: it goes to {receivers} and not to Fettle{when}{hint}")
}

fn parts(rule: &Rule, delay: &Delay) -> Vec<Part> {
    let zero = Duration::ZERO;
    let of = match &delay.job {
        Some((job, true)) => format!(" of job {job}"),
        Some((job, false)) => format!(" of job {job}, the slowest it may read"),
        None => String::new(),
    };
    let part = |name, setting: String, place: &Place, best, worst| Part {
        name,
        setting,
        place: place.clone(),
        span: Span { best, worst },
    };
    let (scrape, timeout, evaluation) = (&delay.scrape, &delay.timeout, &delay.evaluation);
    let offset = delay.query_offset.value;
    let range = if delay.absent { delay.window } else { zero };
    let held = match delay.held() == delay.held_for.value {
        true => delay.held_for.to_string(),
        false => format!("{}, rounded up to {}", delay.held_for, format(delay.held())),
    };
    let recorded_by = delay.recorded_by.as_ref().map_or(&rule.expr, |slowest| &slowest.place);
    let all = [
        part("next scrape", format!("{scrape}{of}"), &scrape.place, zero, scrape.value),
        part("scrape", timeout.to_string(), &timeout.place, zero, timeout.value),
        part(
            "recording rules",
            format!("intervals and offsets {}", format(delay.recorded)),
            recorded_by,
            zero,
            delay.recorded,
        ),
        part("range", format!("range {}", format(delay.window)), &rule.expr, range, delay.window),
        part("query offset", delay.query_offset.to_string(), &delay.query_offset.place, offset, offset),
        part("next evaluation", evaluation.to_string(), &evaluation.place, zero, evaluation.value),
        part("for", held, &delay.held_for.place, delay.held(), delay.held()),
    ];
    all.into_iter().filter(|part| part.span.worst > zero).collect()
}

fn group_part(fastest: &Route, slowest: &Route) -> Part {
    let worst = grouping(slowest);
    let by_interval = worst > slowest.group_wait.value;
    let setting = if by_interval { &slowest.group_interval } else { &slowest.group_wait };
    Part {
        name: "group",
        setting: setting.to_string(),
        place: setting.place.clone(),
        span: Span { best: fastest.group_wait.value.min(worst), worst },
    }
}
