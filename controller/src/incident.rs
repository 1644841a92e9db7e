//! What the organisation tracks: one trouble, its signals, its runs, and the three clocks.
//!
//! Deliberately missing: the current time is an argument. A clock is a pure reading of recorded moments.

use std::time::Duration;

use fettle_runbooks::detect::Learnt;
use fettle_runbooks::id::Host;
use serde::{Deserialize, Serialize};

use crate::policy::Declared;
use crate::signal::Signal;
use crate::world::At;

/// How well the onset is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// The rule that fires was found in the source's rule files.
    Learnt,
    /// The policy says how late the source is.
    Declared,
    /// Only since when the alert fires; nothing counts as in time then.
    SinceFiring,
}

impl Confidence {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Confidence::Learnt => "learnt",
            Confidence::Declared => "declared",
            Confidence::SinceFiring => "since-firing",
        }
    }
}

/// The moments the clocks are read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// When the trouble began: the middle of what is possible.
    pub onset: At,
    /// It may have begun so much earlier or later. Not kept by earlier versions, whose onset was the earliest possible.
    #[serde(default)]
    pub uncertainty: Duration,
    /// How well that is known.
    pub confidence: Confidence,
    /// The rules it was learnt from: `node.yml:12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt_from: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onset {
    /// The middle of what is possible.
    pub at: At,
    /// So much earlier or later.
    pub uncertainty: Duration,
    /// How well it is known.
    pub confidence: Confidence,
    /// The rules it was learnt from.
    pub learnt_from: Option<String>,
}

/// When the trouble behind a signal began: what its rule tells, else what its source declares, else when it fired.
pub fn onset(signal: &Signal, learnt: Option<Learnt>, declared: Option<Declared>) -> Onset {
    // A start that lies ahead comes from another clock than ours: how long ago it was cannot be told.
    let Some(starts_at) = signal.starts_at.filter(|starts| *starts <= signal.received_at) else {
        return Onset::since_firing(signal.received_at);
    };
    match (learnt, declared) {
        (Some(Learnt { least, most, from }), _) => {
            Onset { learnt_from: Some(from), ..Onset::between(starts_at, least, most, Confidence::Learnt) }
        }
        // It was true for `for` at an evaluation, and began at most an interval before the first that saw it.
        (None, Some(Declared { held_for, interval })) => {
            Onset::between(starts_at, held_for, held_for.saturating_add(interval), Confidence::Declared)
        }
        (None, None) => Onset::since_firing(starts_at),
    }
}

impl Onset {
    fn between(starts_at: At, least: Duration, most: Duration, confidence: Confidence) -> Onset {
        let uncertainty = most.saturating_sub(least) / 2;
        let at = starts_at.minus(least.saturating_add(uncertainty));
        Onset { at, uncertainty, confidence, learnt_from: None }
    }

    fn since_firing(at: At) -> Onset {
        Onset { at, uncertainty: Duration::ZERO, confidence: Confidence::SinceFiring, learnt_from: None }
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
    let Readings { onset, uncertainty, confidence, detected, investigated, remediated, closed, .. } =
        *readings;
    let latest = onset.plus(uncertainty);
    // Without anybody's word it may have begun at any time before: late can be told then, in time cannot.
    let earliest = match confidence {
        Confidence::Learnt | Confidence::Declared => Some(onset.minus(uncertainty)),
        Confidence::SinceFiring => None,
    };
    let reading = |taken: Option<At>, before: At, target| {
        let standing = match (taken, closed) {
            // In time only if it holds for the earliest onset, late only if it holds for the latest.
            (Some(taken), _) if earliest.is_some_and(|onset| taken.since(onset) <= target) => {
                Standing::InTime
            }
            (Some(taken), _) if taken.since(latest) > target => Standing::Late,
            (Some(_), _) | (None, Some(_)) => Standing::NotKnown,
            (None, None) if now.since(latest) > target => Standing::Late,
            (None, None) => Standing::Running,
        };
        let total = taken.map(|at| at.since(onset));
        let phase = taken.map(|taken| taken.since(before));
        Clock { total, phase, target, standing }
    };
    [
        reading(Some(detected), onset, TARGETS[0]),
        reading(investigated, detected, TARGETS[1]),
        reading(remediated, investigated.unwrap_or(detected), TARGETS[2]),
    ]
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
            uncertainty: Duration::ZERO,
            confidence,
            learnt_from: None,
            detected: At(detected),
            investigated: None,
            remediated: None,
            closed: None,
        }
    }

    #[test]
    fn without_the_sources_word_nothing_is_ever_in_time() {
        for (confidence, after, expected) in [
            (Confidence::Declared, 0, Standing::InTime),
            (Confidence::Declared, 1, Standing::Late),
            (Confidence::SinceFiring, 0, Standing::NotKnown),
            (Confidence::SinceFiring, 1, Standing::Late),
        ] {
            let readings = Readings {
                investigated: Some(At(5 * MINUTE + after)),
                remediated: Some(At(10 * MINUTE + after)),
                ..readings(confidence, MINUTE + after)
            };
            let standings = clocks(&readings, At(11 * MINUTE)).map(|clock| clock.standing);
            assert_eq!(standings, [expected; 3], "{confidence:?} {after}");
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
    fn in_time_and_late_are_said_only_if_they_hold_for_every_onset_that_is_possible() {
        for (uncertain, detected, expected) in [
            (8_000, MINUTE - 8_000, Standing::InTime),
            (8_000, MINUTE - 7_999, Standing::NotKnown),
            (8_000, MINUTE + 8_000, Standing::NotKnown),
            (8_000, MINUTE + 8_001, Standing::Late),
        ] {
            let mut readings = readings(Confidence::Learnt, 100_000 + detected);
            readings.onset = At(100_000);
            readings.uncertainty = Duration::from_millis(uncertain);
            assert_eq!(clocks(&readings, readings.detected)[0].standing, expected, "{detected}");
        }
        let mut running = readings(Confidence::Learnt, 1);
        running.uncertainty = Duration::from_secs(20);
        assert_eq!(clocks(&running, At(5 * MINUTE + 20_000))[1].standing, Standing::Running);
        assert_eq!(clocks(&running, At(5 * MINUTE + 20_001))[1].standing, Standing::Late);
    }

    #[test]
    fn readings_that_an_earlier_version_kept_are_still_read() {
        let kept = r#"{"onset":1000,"confidence":"declared","detected":2000,"investigated":null,"remediated":null,"closed":null}"#;
        let read: Readings = serde_json::from_str(kept).expect("it is read");
        let expected = Readings { onset: At(1000), detected: At(2000), ..readings(Confidence::Declared, 0) };
        assert_eq!(read, expected);
        assert_eq!(clocks(&read, At(3000))[0].standing, Standing::InTime);
    }

    #[test]
    fn the_onset_is_the_start_minus_what_is_learnt_or_else_declared() {
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
        let declared = Declared { held_for: Duration::from_secs(30), interval: Duration::from_secs(15) };
        let learnt =
            Learnt { least: Duration::from_secs(10), most: Duration::from_secs(26), from: "n.yml:3".into() };
        let told = |signal: &Signal, learnt: Option<&Learnt>, declared| {
            let it = onset(signal, learnt.cloned(), declared);
            (it.at.0, it.uncertainty.as_millis(), it.confidence, it.learnt_from)
        };
        let from = Some("n.yml:3".to_owned());
        assert_eq!(told(&signal, Some(&learnt), Some(declared)), (82_000, 8_000, Confidence::Learnt, from));
        assert_eq!(told(&signal, None, Some(declared)), (62_500, 7_500, Confidence::Declared, None));
        assert_eq!(told(&signal, None, None), (100_000, 0, Confidence::SinceFiring, None));
        for starts_at in [None, Some(At(900_000))] {
            signal.starts_at = starts_at;
            for learnt in [None, Some(&learnt)] {
                assert_eq!(
                    told(&signal, learnt, Some(declared)),
                    (101_000, 0, Confidence::SinceFiring, None)
                );
            }
        }
    }
}
