//! What the controller counts, in the text format of OpenMetrics.
//!
//! Counters are kept where things happen; what can be read from the state (open gates, connected agents) is read when
//! somebody scrapes, so that it can't drift. No label takes a value that a stranger chooses: a source is one of the
//! policy, or `unknown`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use fettle_proto::v1;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// What became of a posted body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Posted {
    /// Taken in.
    Accepted,
    /// It could not be read, or was not what is read.
    Refused,
    /// Without the right token.
    Unauthorised,
    /// The store did not answer.
    Unavailable,
}

impl Posted {
    const fn word(self) -> &'static str {
        match self {
            Posted::Accepted => "accepted",
            Posted::Refused => "refused",
            Posted::Unauthorised => "unauthorised",
            Posted::Unavailable => "unavailable",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPost {
    source: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSignal {
    source: String,
    status: &'static str,
    new: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEnding {
    ending: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCall {
    method: &'static str,
    code: String,
}

type Whole = Gauge<i64, AtomicI64>;

/// Everything that is counted. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    posts: Family<OfPost, Counter<u64, AtomicU64>>,
    signals: Family<OfSignal, Counter<u64, AtomicU64>>,
    runs_ended: Family<OfEnding, Counter<u64, AtomicU64>>,
    runs_missed: Counter<u64, AtomicU64>,
    calls: Family<OfCall, Counter<u64, AtomicU64>>,
    commits: Histogram,
    gates_open: Whole,
    runs_open: Whole,
    incidents_open: Whole,
    agents_connected: Whole,
    agents_away: Whole,
    connections: Whole,
    panics: Whole,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("fettle");
        let metrics = Metrics {
            registry: Arc::default(),
            posts: Family::default(),
            signals: Family::default(),
            runs_ended: Family::default(),
            runs_missed: Counter::default(),
            calls: Family::default(),
            commits: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            gates_open: Gauge::default(),
            runs_open: Gauge::default(),
            incidents_open: Gauge::default(),
            agents_connected: Gauge::default(),
            agents_away: Gauge::default(),
            connections: Gauge::default(),
            panics: Gauge::default(),
        };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What this controller is", build);
        registry.register(
            "signal_posts",
            "Bodies posted by sources, by what became of them",
            metrics.posts.clone(),
        );
        registry.register(
            "signals",
            "Signals taken in; repetitions have new=\"no\"",
            metrics.signals.clone(),
        );
        registry.register(
            "host_runs_ended",
            "Host runs that ended, by their ending",
            metrics.runs_ended.clone(),
        );
        registry.register(
            "runs_missed",
            "Runs that only their host knew and that were not taken in yet, because too many of such are open there",
            metrics.runs_missed.clone(),
        );
        registry.register("calls", "Calls of people's clients, by their gRPC code", metrics.calls.clone());
        registry.register_with_unit(
            "store_commit",
            "From handing a transaction to the store until it is durable",
            Unit::Seconds,
            metrics.commits.clone(),
        );
        for (name, help, gauge) in [
            ("gates_open", "Gates that wait for people", &metrics.gates_open),
            ("runs_open", "Runs that have not ended", &metrics.runs_open),
            ("incidents_open", "Incidents that are open", &metrics.incidents_open),
            ("agents_connected", "Agents with a live control stream", &metrics.agents_connected),
            ("agents_away", "Agents that should be connected and are not", &metrics.agents_away),
            ("agent_connections", "TLS connections of agents", &metrics.connections),
            ("task_panics", "Tasks that panicked since the start", &metrics.panics),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Metrics { registry: Arc::new(registry), ..metrics }
    }

    /// A body was posted. `source` must be one the policy names, or `unknown`.
    pub fn posted(&self, source: &str, result: Posted) {
        self.posts.get_or_create(&OfPost { source: source.to_owned(), result: result.word() }).inc();
    }

    /// A signal was taken in.
    pub fn signal(&self, source: &str, status: crate::signal::Status, new: bool) {
        let labels = OfSignal {
            source: source.to_owned(),
            status: status.word(),
            new: if new { "yes" } else { "no" },
        };
        self.signals.get_or_create(&labels).inc();
    }

    /// A host run ended.
    pub fn host_run_ended(&self, ending: &str) {
        self.runs_ended.get_or_create(&OfEnding { ending: ending.to_owned() }).inc();
    }

    /// A run that only its host knew was not taken in yet.
    pub fn run_missed(&self) {
        self.runs_missed.inc();
    }

    /// A call of a person's client was answered.
    pub fn called(&self, method: &'static str, code: tonic::Code) {
        self.calls.get_or_create(&OfCall { method, code: format!("{code:?}") }).inc();
    }

    /// A transaction became durable.
    pub fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// What can only be read: the state now.
    pub fn look(&self, status: &v1::Status, connections: usize, panics: usize) {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.gates_open.set(whole(status.gates.len()));
        self.runs_open.set(whole(status.runs.len()));
        self.incidents_open.set(i64::from(status.incidents_open));
        self.agents_connected.set(i64::from(status.agents_connected));
        self.agents_away.set(whole(status.agents_away.len()));
        self.connections.set(whole(connections));
        self.panics.set(whole(panics));
    }

    /// The text a scraper reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_happened() {
        let metrics = Metrics::new();
        metrics.posted("alertmanager", Posted::Accepted);
        metrics.signal("alertmanager", crate::signal::Status::Firing, true);
        metrics.host_run_ended("verified");
        metrics.run_missed();
        metrics.run_missed();
        metrics.committed(Duration::from_millis(1));
        let text = metrics.text();
        for line in [
            r#"fettle_signal_posts_total{source="alertmanager",result="accepted"} 1"#,
            r#"fettle_signals_total{source="alertmanager",status="firing",new="yes"} 1"#,
            r#"fettle_host_runs_ended_total{ending="verified"} 1"#,
            "fettle_runs_missed_total 2",
            "fettle_store_commit_seconds_count 1",
            "fettle_gates_open 0",
        ] {
            assert!(text.lines().any(|it| it == line), "no `{line}` in\n{text}");
        }
        assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
