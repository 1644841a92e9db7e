//! What the journal holds: one enum, one encoding, pinned by a golden file.
//!
//! A record is JSON, because a person may have to read a journal at 3 a.m.; bytes that others produced (orders, plans,
//! reports) are base64 in it and come out exactly as they went in. Fields may be added with `#[serde(default)]`; names
//! of kinds and fields are never changed or given another meaning.

use std::fmt;

use fettle_runbooks::id::{Digest, RunId};
use serde::{Deserialize, Serialize};

use super::attempt::Ended;

/// Names one attempt on this host. It is started at most once, ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The run.
    pub run: RunId,
    /// `phase/step[/iteration][/undo]`.
    pub path: String,
    /// From 1.
    pub attempt: u32,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} attempt {}", self.run, self.path, self.attempt)
    }
}

/// One thing the host must not forget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// An order was checked and will be carried out. Durable before the controller hears of it.
    Accepted {
        /// The run.
        run: RunId,
        /// The segment's number in its host run.
        segment: u32,
        /// Digest of `content`.
        digest: Digest,
        /// The order's exact bytes.
        #[serde(with = "super::base64_bytes")]
        content: Vec<u8>,
        /// The nonce a grant in the order used up: by the same fsync, so that it works once.
        #[serde(default)]
        nonce_consumed: Option<String>,
        /// The boot it was accepted in.
        boot: String,
    },
    /// A plan was rendered. Durable before it is reported; these bytes are what runs.
    Planned {
        /// The run.
        run: RunId,
        /// What a grant for this plan must name.
        nonce: String,
        /// The boot the nonce is good for.
        boot: String,
        /// The plan's exact bytes.
        #[serde(with = "super::base64_bytes")]
        plan: Vec<u8>,
    },
    /// An event of a segment's state machine, in the driver's own encoding, so that recovery can feed the machine
    /// what it has already seen.
    Event {
        /// The run.
        run: RunId,
        /// The segment.
        segment: u32,
        /// The event.
        #[serde(with = "super::base64_bytes")]
        event: Vec<u8>,
    },
    /// An attempt may start from now on. Durable before its process is born.
    Intent {
        /// Which.
        key: AttemptKey,
        /// The segment it belongs to.
        segment: u32,
    },
    /// An attempt is over. Durable before it is reported.
    Exited {
        /// Which.
        key: AttemptKey,
        /// How.
        result: Ended,
    },
    /// No attempt of this run starts here any more.
    Tombstone {
        /// The run.
        run: RunId,
        /// After this moment (wall clock, milliseconds) no order for the run can be accepted anyway, and the
        /// tombstone may be dropped.
        #[serde(default)]
        until_ms: i64,
    },
    /// Whether a run is paused. Durable before the controller hears of it; the last of a run counts.
    Paused {
        /// The run.
        run: RunId,
        /// Nothing of it that acts begins.
        on: bool,
        /// The controller's count of what it asked.
        count: u32,
        /// When, wall clock, milliseconds.
        at_ms: i64,
    },
    /// A report, kept until it is acknowledged.
    Report {
        /// Counts up by one within this journal, from 1.
        seq: u64,
        /// The encoded `fettle.v1.Report`.
        #[serde(with = "super::base64_bytes")]
        bytes: Vec<u8>,
    },
    /// All reports up to this one are durable at the controller.
    Acked {
        /// The last of them.
        upto: u64,
    },
    /// The controller has forgotten what it acknowledged, and is told of every run again, one after the other. A report that
    /// tells of a run takes it off the list; the last record of this kind counts.
    Forgotten {
        /// The last report that had a number when this was found. Until one after it is acknowledged, all that was told is
        /// still owed, and a controller that knows as little as before asks for nothing more.
        after: u64,
        /// The runs that are not told yet, in the order in which they will be.
        runs: Vec<RunId>,
        /// Those of which no controller has acknowledged how they ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unheard: Vec<RunId>,
    },
    /// A segment is over; nothing of it runs.
    Ended {
        /// The run.
        run: RunId,
        /// The segment.
        segment: u32,
    },
}

/// A record that this version of the agent does not understand, though its bytes are undamaged.
#[derive(Debug, thiserror::Error)]
#[error("failed to understand a journal record; a newer agent may have written it")]
pub struct NotARecord {
    source: serde_json::Error,
}

impl Record {
    /// The bytes that are journaled.
    pub fn encode(&self) -> Vec<u8> {
        // The types above have text keys and no fallible serialisers.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The record in such bytes.
    ///
    /// # Errors
    /// When they are of a kind, or have a shape, that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Record, NotARecord> {
        serde_json::from_slice(bytes).map_err(|source| NotARecord { source })
    }
}
