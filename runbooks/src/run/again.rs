//! A step whose outcome is unknown is to run again. It may have run already, so people sign for it, at a gate of its own; the
//! run goes on waiting for a person to look. Until the new attempt begins, nothing about the old one is known: whatever
//! keeps it from beginning brings the question back.

use super::apply::Answer;
use super::{Effect, HostRun, Meanwhile, Unclear, Wait};

impl HostRun {
    /// A person wants it to run again.
    pub(super) fn again_asked(&mut self, path: String, attempt: u32) -> Answer {
        // Its gate is open, or approved and about to be used.
        if self.again.is_some() {
            return None;
        }
        let unclear = Unclear { path, attempt };
        self.again = Some(unclear.clone());
        Some(vec![Effect::OpenAgain(unclear)])
    }

    /// The step whose gate asks whether it runs again.
    pub(super) fn at_again_gate(&self) -> Option<String> {
        match self.state.wait() {
            Some(Wait::Resolve { .. }) => self.again.as_ref().map(|unclear| unclear.path.clone()),
            Some(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. }) | None => None,
        }
    }

    /// People are asked for a decision here, and nobody has made it yet.
    #[cfg(test)]
    pub(super) fn at_gate_for_people(&self) -> bool {
        use super::Checking;
        let waits = |wait: &Wait| match wait {
            Wait::Gate { checking, .. } => *checking != Some(Checking::Approved),
            Wait::Resolve { .. } => self.again.is_some(),
            Wait::Wave { .. } | Wait::Window { .. } => false,
        };
        self.state.wait().is_some_and(waits)
    }

    /// The attempt whose outcome is unknown here, if there is one.
    pub(super) fn unclear(&self) -> Option<Unclear> {
        match self.state.wait() {
            Some(Wait::Resolve { path, attempt, .. }) => {
                Some(Unclear { path: path.clone(), attempt: *attempt })
            }
            Some(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. }) | None => self.again.clone(),
        }
    }

    /// An attempt began. Only one of that very step, after the one whose outcome is unknown, is what people signed for.
    pub(super) fn began_again(&mut self, path: &str, attempt: u32) {
        self.again.take_if(|unclear| unclear.path == path && attempt > unclear.attempt);
    }

    /// It does not run again: a person must look, as before.
    pub(super) fn still_unknown(&mut self, reason: &str) -> Answer {
        let Unclear { path, attempt } = self.again.take()?;
        self.ask_resolve(&path, attempt, reason, false)
    }
}

impl From<Unclear> for Meanwhile {
    fn from(unclear: Unclear) -> Meanwhile {
        Meanwhile::Unknown { path: unclear.path, attempt: unclear.attempt }
    }
}
