//! Something is wrong somewhere, or is right again: one alert, normalised.
//!
//! Deliberately missing: every outside format. Reading those is `signal::intake`.

pub mod intake;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::world::At;

/// Whether the alert says that something is wrong or that it is right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Something is wrong.
    Firing,
    /// It is right again.
    Resolved,
}

impl Status {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        }
    }
}

/// One alert as received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The configured source that posted it.
    pub source: String,
    /// The source's name for "the same alert again".
    pub fingerprint: String,
    /// Firing or resolved.
    pub status: Status,
    /// The alert's name (`labels.alertname`).
    pub name: String,
    /// What the source says of it; hostile until proven otherwise.
    pub labels: BTreeMap<String, String>,
    /// Text for people; as hostile.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires, by the source; absent when the source does not say.
    pub starts_at: Option<At>,
    /// Since when it is right again.
    pub ends_at: Option<At>,
    /// When it arrived here.
    pub received_at: At,
    /// What is to be said of how it arrived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// Something worth knowing about how a signal arrived, for its trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// `no`: nothing is started for it.
    pub answer: Answer,
    /// Why, for people.
    pub text: String,
}

impl Signal {
    /// When it began to fire, as far as anybody says.
    pub fn began(&self) -> At {
        self.starts_at.unwrap_or(self.received_at)
    }

    /// What makes two signals one: the source, its fingerprint and the start.
    pub fn key(&self) -> Key {
        Key {
            source: self.source.clone(),
            fingerprint: self.fingerprint.clone(),
            starts_at: self.starts_at.unwrap_or(At(0)),
        }
    }
}

/// Identity of an alert over its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The source.
    pub source: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The start; zero when the source gives none.
    pub starts_at: At,
}

/// Characters of a reason.
const LONGEST_REASON: usize = 2000;

/// The recorded answer of one trigger, guard or other decision, always with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// When it was asked.
    pub at: At,
    /// What was asked: `dedupe`, `trigger host/disk-full`, `guard cooldown`, `mode`.
    pub asked: String,
    /// What was answered.
    pub answer: Answer,
    /// Why, for people.
    pub reason: String,
}

/// What a decision can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Go on.
    Yes,
    /// Not this way, and the reason says why.
    No,
    /// Not yet.
    Wait,
}

impl Answer {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Wait => "wait",
        }
    }
}

impl Verdict {
    /// A verdict. Of a reason, which may quote a host or an alert, the beginning is kept.
    pub fn new(at: At, asked: impl Into<String>, answer: Answer, reason: impl Into<String>) -> Verdict {
        let mut reason = reason.into();
        if let Some((end, _)) = reason.char_indices().nth(LONGEST_REASON) {
            reason.truncate(end);
            reason.push('…');
        }
        Verdict { at, asked: asked.into(), answer, reason }
    }
}
