//! What really happened: written down by the simulated world itself, out of reach of every fault.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fettle_runbooks::id::{Digest, Host, RunId};

/// Ground truth of all hosts. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Entry>>>);

/// One thing that happened to one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Virtual time.
    pub(crate) at: Duration,
    /// Whose agent it was.
    pub(crate) host: Host,
    /// On which machine; a copied disk makes two of one host.
    pub(crate) machine: String,
    /// Which boot of that machine, from 1.
    pub(crate) boot: u32,
    /// What the kernel calls that boot.
    pub(crate) boot_id: String,
    /// The run.
    pub(crate) run: RunId,
    /// The step.
    pub(crate) path: String,
    /// Which start of it.
    pub(crate) attempt: u32,
    /// It may change something; otherwise it only reads.
    pub(crate) acts: bool,
    /// What ran: argv, or `script` and its text.
    pub(crate) words: Vec<String>,
    /// Of the words and the environment.
    pub(crate) digest: Digest,
    /// What happened.
    pub(crate) what: What,
}

/// What happened to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It has been started, durably: from here on it counts as started.
    Started,
    /// Its process exists: the first half of its effect has happened.
    Begun,
    /// It exited by itself; with code 0 its whole effect has happened.
    Done {
        /// Its exit code.
        code: i32,
    },
    /// Somebody ended it: its time was over, or it was told to stop.
    Killed,
    /// It went down with its machine, or with the agent it was a child of.
    Died,
    /// Its supervisor refused to start it.
    Barred {
        /// Why, as a stable word.
        code: String,
    },
}

/// Of words and environment.
pub(crate) fn digest(words: &[String], env: &BTreeMap<String, String>) -> Digest {
    Digest::of("simulated", 1, format!("{words:?} {env:?}").as_bytes())
}

impl Ledger {
    /// Everything after the first so many, in the order in which it was written: that of time on one machine, and almost
    /// over all of them.
    pub(crate) fn after(&self, heard: usize) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[heard..].to_vec()
    }

    pub(super) fn write(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}
