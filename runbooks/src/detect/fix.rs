//! What to change so that an alert comes in time: the biggest waits first, and no more of them than it takes. `for` and ranges
//! mean something to whoever wrote them, so they come last.

use std::time::Duration;

use super::Setting;
use super::alertmanager::Route;
use super::delay::Delay;
use super::document::Place;
use super::rules::Rule;
use crate::duration::format;

/// A key of a file, and what to set it to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fix {
    /// Where it stands, or is to be written.
    pub place: Place,
    /// As it is to be written.
    pub write: String,
}

/// How soon an alert's end, and its coming back, may follow.
const TURN: Duration = Duration::from_secs(10);

/// A wait that means nothing by itself.
#[derive(Clone, Copy)]
enum Wait {
    Group,
    Scrape,
    Timeout,
    Recorded,
    Evaluation,
    Offset,
}

/// An alert's way, being shortened.
struct Way<'a> {
    delay: Delay,
    route: Option<&'a Route>,
    /// What the route holds it for.
    group: Duration,
}

impl Way<'_> {
    fn worst(&self) -> Duration {
        self.delay.span().worst.saturating_add(self.group)
    }

    fn of(&mut self, wait: Wait) -> &mut Duration {
        match wait {
            Wait::Group => &mut self.group,
            Wait::Scrape => &mut self.delay.scrape.value,
            Wait::Timeout => &mut self.delay.timeout.value,
            Wait::Recorded => &mut self.delay.recorded,
            Wait::Evaluation => &mut self.delay.evaluation.value,
            Wait::Offset => &mut self.delay.query_offset.value,
        }
    }
}

/// The fixes that make the worst fit the limit; where nothing does, as close as it comes.
pub(super) fn fixes(rule: &Rule, delay: &Delay, route: Option<&Route>, limit: Duration) -> Vec<Fix> {
    let (brief, briefer, none) = (whole(limit / 6), whole(limit / 12), Duration::ZERO);
    let mut way = Way { delay: delay.clone(), route, group: route.map_or(none, grouping) };
    let waits = [
        (Wait::Group, none),
        (Wait::Scrape, brief),
        (Wait::Timeout, briefer),
        (Wait::Recorded, brief),
        (Wait::Evaluation, brief),
        (Wait::Offset, none),
    ];
    let mut waits: Vec<(Wait, Duration, Duration)> =
        waits.into_iter().map(|(wait, then)| (wait, way.of(wait).saturating_sub(then), then)).collect();
    waits.retain(|(_, excess, _)| *excess > none);
    waits.sort_by_key(|(_, excess, _)| std::cmp::Reverse(*excess));

    let meant = delay.held_for.value.saturating_add(delay.window);
    let mut shortest = Way { delay: delay.clone(), ..way };
    waits.iter().for_each(|(wait, _, then)| *shortest.of(*wait) = *then);
    let spares = shortest.worst() <= limit;
    // What is meant keeps its length, or a quarter of the limit if that is too long in any case.
    let room = if spares { none } else { meant.min(limit / 4) };
    let waited = |way: &Way<'_>| {
        let all = way.worst();
        if spares { all } else { all.saturating_sub(way.delay.held()).saturating_sub(way.delay.window) }
    };
    let mut fixes = Vec::new();
    for (wait, _, then) in waits {
        if waited(&way).saturating_add(room) <= limit {
            break;
        }
        *way.of(wait) = then;
        fixes.extend(written(wait, &way));
        // Prometheus refuses a timeout that is longer than the interval.
        if matches!(wait, Wait::Scrape) && way.delay.timeout.value > then {
            way.delay.timeout.value = briefer;
            fixes.extend(written(Wait::Timeout, &way));
        }
    }
    if !spares {
        fixes.extend(shortened(rule, &way.delay, limit.saturating_sub(waited(&way))));
    }
    // One key may be what two waits hang on.
    let mut once: Vec<Fix> = Vec::new();
    for fix in fixes {
        if !once.contains(&fix) {
            once.push(fix);
        }
    }
    once
}

/// How long a route may hold an alert.
pub(super) fn grouping(route: &Route) -> Duration {
    let wait = route.group_wait.value;
    if route.each_alone { wait } else { wait.max(route.group_interval.value) }
}

fn set(setting: &Setting, to: Duration) -> Fix {
    Fix { place: setting.place.clone(), write: format!("{}: {}", setting.key, format(to)) }
}

fn written(wait: Wait, way: &Way<'_>) -> Vec<Fix> {
    let kept = |setting: &Setting| vec![set(setting, setting.value)];
    match wait {
        Wait::Group => {
            let Some(route) = way.route else { return Vec::new() };
            let alone = Fix { place: route.group_by.clone(), write: "group_by: ['...']".to_owned() };
            let no_wait = set(&route.group_wait, Duration::ZERO);
            let brief_turn = set(&route.group_interval, TURN);
            let fixes = [
                (!route.each_alone).then_some(alone),
                (route.group_wait.value > Duration::ZERO).then_some(no_wait),
                (route.group_interval.value > TURN).then_some(brief_turn),
            ];
            fixes.into_iter().flatten().collect()
        }
        Wait::Scrape => kept(&way.delay.scrape),
        Wait::Timeout => kept(&way.delay.timeout),
        Wait::Evaluation => kept(&way.delay.evaluation),
        Wait::Offset => kept(&way.delay.query_offset),
        Wait::Recorded => {
            way.delay.recorded_by.iter().map(|slowest| set(slowest, way.delay.recorded)).collect()
        }
    }
}

/// Ranges and `for`, so that they fit into what is left. The range comes first: without it there is no alert.
fn shortened(rule: &Rule, delay: &Delay, left: Duration) -> Vec<Fix> {
    let mut fixes = Vec::new();
    let mut window = delay.window.min(whole(left));
    if window < delay.window {
        // Two samples at least, or there is nothing to compare.
        let is_enough = window >= delay.scrape.value.saturating_mul(2);
        let write = match () {
            () if rule.reading.predicts => {
                "alert: one more, without `predict_linear`, for what is wrong already".to_owned()
            }
            () if is_enough => format!("expr: with ranges of at most {} in all", format(window)),
            () => "expr: without its range; none that holds two samples is short enough".to_owned(),
        };
        if !is_enough || rule.reading.predicts {
            window = Duration::ZERO;
        }
        fixes.push(Fix { place: rule.expr.clone(), write });
    }
    let (left, every) = (left.saturating_sub(window), delay.evaluation.value);
    if delay.held() > left {
        let times = left.as_millis() / every.as_millis().max(1);
        let to = every.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX));
        fixes.push(set(&delay.held_for, to));
    }
    fixes
}

/// Whole seconds, where there are any.
fn whole(span: Duration) -> Duration {
    match span.as_secs() {
        0 => Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(0)),
        seconds => Duration::from_secs(seconds),
    }
}
