//! What is printed: for each budget what was measured, what the machine itself could do, and whether it is enough.

use std::fmt::Display;
use std::time::Duration;

/// Heads a benchmark, with how busy the machine is.
pub(crate) fn begin(name: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(1).collect::<String>();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("\n== {name}  (load {load} on {cores} cores)");
}

/// Something measured that has no budget: a limit, or what a budget is made of.
pub(crate) fn line(what: &str, measured: impl Display) {
    println!("  {what:<58} {measured}");
}

/// A budget: met when `measured` is at most `goal`.
pub(crate) fn at_most(what: &str, measured: f64, goal: f64, unit: &str) {
    verdict(what, measured, "≤", goal, unit, measured <= goal);
}

/// A budget: met when `measured` is at least `goal`.
pub(crate) fn at_least(what: &str, measured: f64, goal: f64, unit: &str) {
    verdict(what, measured, "≥", goal, unit, measured >= goal);
}

fn verdict(what: &str, measured: f64, than: &str, goal: f64, unit: &str, met: bool) {
    let word = if met { "met" } else { "MISSED" };
    println!("  {what:<58} {measured:.2} {unit}   (budget {than} {goal} {unit}: {word})");
}

/// How many times as long one takes as the other, at their medians.
pub(crate) fn ratio(what: &str, of: &Samples, to: &Samples) {
    line(what, format!("{:.1} ×", of.median() / to.median()));
}

/// Times, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1000.0);
    }

    pub(crate) fn extend(&mut self, more: &Samples) {
        self.0.extend(&more.0);
    }

    /// The value below which this part of them is.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len().saturating_sub(1)) as f64 * part;
        sorted.get(at.round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

impl Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |part| self.quantile(part);
        write!(
            f,
            "median {:.2} ms, p10 {:.2}, p90 {:.2}, p99 {:.2}  ({} times)",
            part(0.5),
            part(0.1),
            part(0.9),
            part(0.99),
            self.0.len()
        )
    }
}
