//! Who cannot know what, and is excused.

use fettle_runbooks::id::{Host, RunId};

use super::Checker;
use crate::trace::count;

impl Checker {
    /// This host's disk was put back to what it was: it may have forgotten every run that there is, and it is told anew which
    /// are paused. What it has seen of epochs is what the controller has given, or less. `journal`: the name of the one that is
    /// on it, and its last report.
    pub(crate) fn forgets(&mut self, host: &Host, journal: Option<(&str, u64)>) {
        let runs: Vec<(Host, RunId)> = self.created.iter().map(|run| (host.clone(), *run)).collect();
        let row = self.model.agents.get(host).filter(|row| row.ahead.is_none());
        let is_told = journal
            .zip(row)
            .is_some_and(|((name, last), row)| row.acked.get(name).is_some_and(|acked| *acked > last));
        if is_told {
            count("a host is told that its disk was put back");
        } else {
            count("nobody can tell a host that its disk was put back");
            self.untold.extend(runs.iter().cloned());
        }
        self.forgotten.extend(runs);
        *self.put_back.entry(host.clone()).or_default() += 1;
        self.paused.retain(|(_, of), _| of != host);
        let given = self.model.agents.get(host).map_or(0, |row| row.epoch);
        self.epochs.insert(host.clone(), given);
    }

    /// There are two of this host from now on.
    pub(crate) fn has_twin(&mut self, host: Host) {
        self.twins.insert(host);
    }

    /// The next fsync of this host's agent fails.
    pub(crate) fn fails_to_sync(&mut self, host: Host) {
        *self.bad_syncs.entry(host).or_default() += 1;
    }

    /// What becomes of steps on this host may not be known from now on: its power fails, a supervisor is killed, its disk
    /// refuses a write, or its journal is deleted.
    pub(crate) fn strikes(&mut self, host: Host) {
        self.struck.insert(host);
    }

    /// This host's journal was deleted.
    pub(crate) fn loses_journal(&mut self, host: Host) {
        self.strikes(host.clone());
        self.orphans.extend(self.model.runs.keys().map(|run| (host.clone(), *run)));
        self.forgetful.insert(host);
    }

    /// Whether a host cannot know what it did in a run, or in one that this goes on from.
    pub(super) fn forgot(&self, host: &Host, run: RunId) -> bool {
        let is_forgotten =
            |(of, forgotten): &(Host, RunId)| of == host && self.chains.is_one(run, *forgotten);
        self.twins.contains(host) || self.forgotten.iter().any(is_forgotten)
    }
}
