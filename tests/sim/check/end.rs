//! What must hold when nothing goes wrong any more, and when everything is over.

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_runbooks::id::{Host, RunId};

use super::{Broken, Checker, broken, count};

/// What is found on a host when everything is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left {
    /// What acts and lives.
    pub(crate) alive: Vec<(RunId, String, u32)>,
    /// Why agents went down that nobody had asked to.
    pub(crate) why_down: Vec<String>,
    /// How often it was booted.
    pub(crate) boots: usize,
    /// The epoch on its disk.
    pub(crate) epoch: u64,
}

impl Checker {
    /// Nothing has gone wrong for so long that everything must have ended.
    pub(crate) fn must_be_over(&self, after: Duration) -> Result<(), Broken> {
        count("rule liveness");
        match self.unfinished() {
            open if open.is_empty() => Ok(()),
            open => broken(
                "liveness",
                format!("{after:?} after the last fault there still is:\n{}", open.join("\n")),
            ),
        }
    }

    /// When everything has ended: what lives on a host, why its agents went down, and the epoch that it keeps.
    pub(crate) fn left(&self, host: &Host, left: &Left) -> Result<(), Broken> {
        // A journal that breaks, or cannot be opened, for an fsync that failed: once for each of these. And one that is put
        // aside since its disk was put back, or, when it boots, another has spoken for its host.
        let by_sync =
            |why: &&String| why.contains("its works have ended") || why.contains("input/output error");
        let (by_sync, unasked): (Vec<&String>, Vec<&String>) = left.why_down.iter().partition(by_sync);
        let failed = self.bad_syncs.get(host).copied().unwrap_or_default();
        let put_back = self.put_back.get(host).copied().unwrap_or_default();
        count("rule agent");
        let spoken_for = if self.twins.contains(host) { left.boots } else { 0 };
        let too_often = by_sync.len() > failed + put_back + spoken_for;
        if !unasked.is_empty() || too_often {
            let how = format!("{host} went down by itself: {:?}; {failed} fsyncs failed", left.why_down);
            return broken("agent", how);
        }
        count("rule alive");
        let ends_by_itself = |run: RunId| self.orphans.contains(&(host.clone(), run));
        let lives = left.alive.iter().find(|(run, ..)| !self.forgot(host, *run) && !ends_by_itself(*run));
        if let Some(lives) = lives {
            return broken("alive", format!("everything has ended, and on {host} there still is {lives:?}"));
        }
        if left.epoch > self.epoch(host) {
            return broken("epoch", format!("{host} keeps {}, which nobody gave it", left.epoch));
        }
        Ok(())
    }

    /// What has not ended, for people.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let open = self.model.host_runs.iter().filter(|(_, row)| row.machine.ended().is_none());
        open.map(|((run, host), row)| format!("{run} on {host}: {:?}: {}", row.machine.state, row.reason))
            .collect()
    }

    /// How host runs ended, so that it is seen what a seed tried.
    pub(crate) fn endings(&self) -> BTreeMap<&'static str, usize> {
        let mut endings = BTreeMap::new();
        for row in self.model.host_runs.values() {
            *endings.entry(row.machine.ended().map_or("open", |how| how.ending.word())).or_default() += 1;
        }
        endings
    }

    /// At the end of all: everything that was acknowledged is still there.
    pub(crate) fn all_kept(&self) -> Result<(), Broken> {
        self.acks.iter().try_for_each(|(_, ack)| self.holds(ack))
    }
}
