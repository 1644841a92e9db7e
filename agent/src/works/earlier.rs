//! After a reboot a disk may be an earlier one: restored from a snapshot or a backup, or the copy of another host's.
//!
//! Such a host knows neither what it began since then nor how that ended, and nothing on its disk tells. Only the controller
//! knows: it has acknowledged reports that this journal never made. So what was accepted in an earlier boot is gone on with
//! when the controller has welcomed the host, and not before. If its journal is not the last, it is put aside and the agent
//! ends, to begin with an empty one: every order that needs what the host knew is then refused, and people are asked.
//!
//! Deliberately missing: what changed within one boot, and what was not acknowledged before the disk was put back. Of these
//! nobody can tell.

use std::path::Path;

use super::driver::Driver;
use super::journal::Journal;
use super::record::Record;

impl Driver {
    /// Whether it knows of runs, and of none that was accepted in this boot: had one been, the controller would have been asked.
    pub(super) fn knows_only_earlier(&self) -> bool {
        let records = self.runs.values().flat_map(|here| &here.records);
        let boots = records
            .filter_map(|record| if let Record::Accepted { boot, .. } = record { Some(boot) } else { None });
        let mut boots = boots.peekable();
        boots.peek().is_some() && boots.all(|boot| *boot != self.boot)
    }

    /// The controller has acknowledged what this journal never said: it is put aside, and the agent ends. Started again, it
    /// knows of no run.
    pub(super) fn begin_anew(&mut self, acked: u64) {
        self.stop = true;
        match Journal::put_aside(&*self.disk, &self.config.state.join("journal")) {
            Ok(file) => tracing::error!(
                acked,
                ours = self.spool.last(),
                file = %file.display(),
                "This disk was put back to an earlier state, or there are two of this host: what it knew of runs is put aside, and the agent ends, to begin anew."
            ),
            Err(error) => {
                tracing::error!(%error, "A journal of an earlier state of this disk could not be put aside; the agent ends.");
            }
        }
    }
}

/// What is said of a journal that was put aside, for people.
pub(super) fn aside(file: &Path) -> String {
    let what = if Journal::is_earlier(file) {
        "its disk was put back to an earlier state, or there are two of it: what it knew of runs"
    } else {
        "a damaged journal"
    };
    format!("{what} is put aside at {}; look at it, then remove it", file.display())
}
