//! What the organisation tracks: one trouble, its signals, its runs, and the three clocks.
//!
//! Deliberately missing: the current time is an argument. A clock is a pure reading of recorded moments.

use std::time::Duration;

use fettle_runbooks::id::Host;
use serde::{Deserialize, Serialize};

use crate::policy::Onset;
use crate::signal::Signal;
use crate::world::At;

/// How well the onset is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// The source told its delay.
    Declared,
    /// Only since when the alert fires; never counted as detected in time.
    SinceFiring,
}

impl Confidence {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Confidence::Declared => "declared",
            Confidence::SinceFiring => "since-firing",
        }
    }
}

/// The moments the clocks are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// When the trouble began.
    pub onset: At,
    /// How well that is known.
    pub confidence: Confidence,
    /// When the first signal arrived.
    pub detected: At,
    /// When a plan, or the end of a diagnosis, was known.
    pub investigated: Option<At>,
    /// When the symptom was verified gone.
    pub remediated: Option<At>,
    /// When the incident was closed, after which nothing runs.
    pub closed: Option<At>,
}

/// When the trouble behind a signal began, and how well that is known.
pub fn onset(signal: &Signal, declared: Option<Onset>) -> (At, Confidence) {
    let firing_since = signal.starts_at.unwrap_or(signal.received_at).min(signal.received_at);
    // A start that lies ahead comes from another clock than ours: how long ago it was cannot be told.
    match (declared, signal.starts_at.filter(|starts| *starts <= signal.received_at)) {
        (Some(Onset { held_for, interval }), Some(_)) => {
            (firing_since.minus(held_for.saturating_add(interval)), Confidence::Declared)
        }
        (Some(_) | None, _) => (firing_since, Confidence::SinceFiring),
    }
}

/// One of the three clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// From the onset; absent when the reading has not been taken.
    pub total: Option<Duration>,
    /// From the reading before it.
    pub phase: Option<Duration>,
    /// The mandate.
    pub target: Duration,
    /// In time or not.
    pub standing: Standing,
}

/// What a clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Taken, within the target.
    InTime,
    /// Taken or running, past the target.
    Late,
    /// Not taken, still within the target.
    Running,
    /// Cannot be told.
    NotKnown,
}

impl Standing {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Standing::InTime => "in time",
            Standing::Late => "late",
            Standing::Running => "running",
            Standing::NotKnown => "not known",
        }
    }
}

/// Detect within a minute, investigate within five, remediate within ten.
pub const TARGETS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(600)];

/// The three clocks as they stand at `now`.
pub fn clocks(readings: &Readings, now: At) -> [Clock; 3] {
    let Readings { onset, confidence, detected, investigated, remediated, closed } = *readings;
    let detect_total = detected.since(onset);
    let detect = Clock {
        total: Some(detect_total),
        phase: Some(detect_total),
        target: TARGETS[0],
        standing: match confidence {
            // Without the source's word we only know a lower bound: late can be told, in time cannot.
            Confidence::SinceFiring if detect_total > TARGETS[0] => Standing::Late,
            Confidence::SinceFiring => Standing::NotKnown,
            Confidence::Declared => settled(detect_total, TARGETS[0]),
        },
    };
    let reading = |taken: Option<At>, before: Option<At>, target| {
        let total = taken.map(|at| at.since(onset));
        let standing = match (total, closed) {
            (Some(total), _) => settled(total, target),
            (None, Some(_)) => Standing::NotKnown,
            (None, None) if now.since(onset) > target => Standing::Late,
            (None, None) => Standing::Running,
        };
        let phase = taken.zip(before).map(|(taken, before)| taken.since(before));
        Clock { total, phase, target, standing }
    };
    [
        detect,
        reading(investigated, Some(detected), TARGETS[1]),
        reading(remediated, investigated.or(Some(detected)), TARGETS[2]),
    ]
}

fn settled(total: Duration, target: Duration) -> Standing {
    if total <= target { Standing::InTime } else { Standing::Late }
}

/// What groups signals into one incident: the alert's name and the host it is about, or, where the host is not known,
/// the source's own idea of "the same alert".
pub fn key(signal: &Signal, host: Option<&Host>) -> String {
    match host {
        Some(host) => format!("{}@{host}", signal.name),
        None => format!("{}:{}", signal.source, signal.fingerprint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Status;

    const MINUTE: i64 = 60_000;

    fn readings(confidence: Confidence, detected: i64) -> Readings {
        Readings {
            onset: At(0),
            confidence,
            detected: At(detected),
            investigated: None,
            remediated: None,
            closed: None,
        }
    }

    #[test]
    fn without_the_sources_word_detection_is_never_in_time() {
        for (confidence, detected, expected) in [
            (Confidence::Declared, MINUTE, Standing::InTime),
            (Confidence::Declared, MINUTE + 1, Standing::Late),
            (Confidence::SinceFiring, 1, Standing::NotKnown),
            (Confidence::SinceFiring, MINUTE + 1, Standing::Late),
        ] {
            assert_eq!(clocks(&readings(confidence, detected), At(detected))[0].standing, expected);
        }
    }

    #[test]
    fn a_clock_runs_until_its_target_then_is_late_and_keeps_both_readings() {
        let mut readings = readings(Confidence::Declared, 30_000);
        assert_eq!(clocks(&readings, At(MINUTE))[1].standing, Standing::Running);
        assert_eq!(clocks(&readings, At(6 * MINUTE))[1].standing, Standing::Late);
        readings.investigated = Some(At(40_000));
        readings.remediated = Some(At(11 * MINUTE));
        let [_, investigate, remediate] = clocks(&readings, At(12 * MINUTE));
        assert_eq!(investigate.total, Some(Duration::from_secs(40)));
        assert_eq!(investigate.phase, Some(Duration::from_secs(10)));
        assert_eq!(investigate.standing, Standing::InTime);
        assert_eq!(remediate.phase, Some(Duration::from_secs(620)));
        assert_eq!(remediate.standing, Standing::Late);
    }

    #[test]
    fn a_closed_incident_leaves_untaken_readings_unknown() {
        let mut readings = readings(Confidence::Declared, 1);
        readings.closed = Some(At(2));
        assert_eq!(clocks(&readings, At(60 * MINUTE))[2].standing, Standing::NotKnown);
    }

    #[test]
    fn the_onset_is_the_start_minus_what_the_source_declares() {
        let mut signal = Signal {
            source: "prod".into(),
            fingerprint: "f".into(),
            status: Status::Firing,
            name: "Down".into(),
            labels: Default::default(),
            annotations: Default::default(),
            starts_at: Some(At(100_000)),
            ends_at: None,
            received_at: At(101_000),
            remarks: Vec::new(),
        };
        let declared = Onset { held_for: Duration::from_secs(30), interval: Duration::from_secs(15) };
        assert_eq!(onset(&signal, Some(declared)), (At(55_000), Confidence::Declared));
        assert_eq!(onset(&signal, None), (At(100_000), Confidence::SinceFiring));
        signal.starts_at = None;
        assert_eq!(onset(&signal, Some(declared)), (At(101_000), Confidence::SinceFiring));
        signal.starts_at = Some(At(900_000));
        assert_eq!(onset(&signal, None), (At(101_000), Confidence::SinceFiring));
        assert_eq!(onset(&signal, Some(declared)), (At(101_000), Confidence::SinceFiring));
    }
}
