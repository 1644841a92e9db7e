//! What became of a step over all runs that go on from one another, as the ledger has it.

use std::collections::BTreeMap;

use fettle_runbooks::id::{Host, RunId};

use crate::host::{Entry, What};

/// What really became of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Became {
    /// No process of it ever was.
    #[default]
    Nothing,
    /// It did what it does.
    Done,
    /// It said itself that it failed, or was killed because it took too long.
    Failed,
    /// It went with its host, or nobody knows.
    Midway,
    /// It was done, and its undo too.
    Undone,
    /// Its undo did not end well.
    HalfUndone,
}

impl Became {
    fn after(self, undo: bool, what: &What) -> Became {
        match (what, undo) {
            (What::Started | What::Barred { .. }, _) => self,
            (What::Begun | What::Died, false) => Became::Midway,
            (What::Begun | What::Died | What::Killed, true) => Became::HalfUndone,
            (What::Done { code: 0 }, false) => Became::Done,
            (What::Done { code: 0 }, true) => Became::Undone,
            (What::Done { .. } | What::Killed, false) => Became::Failed,
            (What::Done { .. }, true) => Became::HalfUndone,
        }
    }
}

/// In which run, of which step, what.
type Acted = (RunId, String, What);

/// The runs that go on from one another, and everything that acted in them.
#[derive(Default)]
pub(super) struct Chains {
    /// From a run to the first of its chain, for those that are not the first themselves.
    first: BTreeMap<RunId, RunId>,
    acted: BTreeMap<(RunId, Host), Vec<Acted>>,
}

impl Chains {
    /// A run goes on from another.
    pub(super) fn follows(&mut self, run: RunId, earlier: RunId) {
        let first = self.first_of(earlier);
        if first != run {
            self.first.insert(run, first);
        }
    }

    fn first_of(&self, run: RunId) -> RunId {
        self.first.get(&run).copied().unwrap_or(run)
    }

    /// Whether two runs are of one chain.
    pub(super) fn is_one(&self, run: RunId, other: RunId) -> bool {
        self.first_of(run) == self.first_of(other)
    }

    /// Something that acts happened.
    pub(super) fn entry(&mut self, entry: &Entry) {
        let key = (self.first_of(entry.run), entry.host.clone());
        let happened = (entry.run, entry.path.clone(), entry.what.clone());
        self.acted.entry(key).or_default().push(happened);
    }

    /// What became of a step up to now, leaving out what happened where it does not count.
    pub(super) fn became(
        &self,
        run: RunId,
        host: &Host,
        path: &str,
        counts: impl Fn(RunId, bool) -> bool,
    ) -> Became {
        let acted = self.acted.get(&(self.first_of(run), host.clone()));
        acted.into_iter().flatten().fold(Became::default(), |became, (of, what, happened)| {
            let undo = what.strip_suffix("/undo");
            match undo.unwrap_or(what) == path && counts(*of, undo.is_some()) {
                true => became.after(undo.is_some(), happened),
                false => became,
            }
        })
    }

    /// Whether any attempt of it was refused at the last moment, or began.
    pub(super) fn left_a_trace(&self, run: RunId, host: &Host, path: &str) -> bool {
        let acted = self.acted.get(&(self.first_of(run), host.clone()));
        acted.into_iter().flatten().any(|(of, what, _)| *of != run && what == path)
    }
}
