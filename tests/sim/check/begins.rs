//! What begins, begins while it still may.

use super::{Broken, Checker, UNDER_WAY, broken, count};
use crate::host::Entry;
use fettle_runbooks::plan::Plan;

impl Checker {
    /// Nothing that acts begins once its run has ended on its host, and no attempt of which is known how it ended.
    pub(super) fn begins_in_time(&self, entry: &Entry) -> Result<(), Broken> {
        let Entry { host, run, path, attempt, .. } = entry;
        if self.forgot(host, *run) {
            return Ok(());
        }
        count("rule ended: what begins");
        let key = (*run, host.clone());
        if let Some((how, since)) = self.over.get(&key).filter(|_| !self.unheard.contains(&key)) {
            let late = entry.at.saturating_sub(*since);
            if late > UNDER_WAY {
                let how = how.ending.word();
                return broken(
                    "ended",
                    format!("{path} of {run} on {host} began {late:?} after that was {how}"),
                );
            }
        }
        let attempt_of = (host.clone(), *run, path.clone(), *attempt);
        match self.known.get(&attempt_of).filter(|since| entry.at > **since) {
            Some(_) => {
                let how = format!(
                    "attempt {attempt} of {path} of {run} on {host} began when it was known how it ended"
                );
                broken("ended", how)
            }
            None => Ok(()),
        }
    }

    /// What people have approved begins in the boot that they were told of: that of the plan, or that of a question whether a step
    /// runs again.
    pub(super) fn begins_in_its_boot(&self, entry: &Entry, plan: &Plan) -> Result<(), Broken> {
        let Entry { host, run, path, boot_id, .. } = entry;
        count("rule gate: boot");
        let again = (host.clone(), *run, boot_id.clone());
        match plan.boot == *boot_id || self.boots.contains(&again) {
            true => Ok(()),
            false => broken(
                "gate",
                format!("{path} of {run} on {host} was approved in another boot than it began in"),
            ),
        }
    }
}
