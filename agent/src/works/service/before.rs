//! How a unit was before a step: what `undo: previous` goes by.
//!
//! Kept in a file of the step, not of the attempt, written once and durably before anything is done to the unit: a second
//! attempt finds what the first did half, and must not take that for how it was. Neither must a retry of the run: its step goes by
//! the file that an earlier run has left, until the unit was put back.

use std::io;
use std::path::Path;

use fettle_runbooks::unit::UnitName;
use serde::{Deserialize, Serialize};

use super::super::disk::{self, HostDisk};
use super::super::systemd::Unit;
use crate::crash;

const FORMAT: &str = "unit-before/1";

/// How a unit was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    fettle: String,
    /// Which.
    pub(super) unit: UnitName,
    /// It ran, or was about to.
    pub(super) runs: bool,
    /// In systemd's words, for people.
    pub(super) state: String,
}

impl Before {
    pub(super) fn of(name: &UnitName, unit: &Unit, runs: bool) -> Before {
        Before { fettle: FORMAT.to_owned(), unit: name.clone(), runs, state: unit.state() }
    }

    /// What was kept; none when nothing was.
    pub(super) fn read(path: &Path) -> io::Result<Option<Before>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let before: Before = serde_json::from_slice(&bytes)?;
        if before.fettle != FORMAT {
            let why = format!("`{}` is not `{FORMAT}`: another version of the agent wrote it", before.fettle);
            return Err(io::Error::other(why));
        }
        Ok(Some(before))
    }

    /// Keeps it, unless an earlier attempt has.
    pub(super) fn keep(self, path: &Path) -> io::Result<Before> {
        match Before::read(path)? {
            Some(first) => Ok(first),
            None => {
                disk::replace(&HostDisk, path, &serde_json::to_vec(&self)?, &crash::BEFORE)?;
                Ok(self)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(state: (&str, &str)) -> Before {
        let unit =
            Unit { active_state: state.0.to_owned(), sub_state: state.1.to_owned(), ..Unit::default() };
        Before::of(&"nginx".parse().unwrap(), &unit, unit.runs())
    }

    #[test]
    fn what_the_first_attempt_found_is_kept_and_read_by_every_later_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.step.before");
        assert_eq!(Before::read(&path).unwrap(), None);
        let first = before(("active", "running")).keep(&path).unwrap();
        assert_eq!(before(("failed", "failed")).keep(&path).unwrap(), first);
        let golden =
            r#"{"fettle":"unit-before/1","unit":"nginx.service","runs":true,"state":"active (running)"}"#;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);
        std::fs::write(&path, golden.replace("/1", "/2")).unwrap();
        Before::read(&path).unwrap_err();
        std::fs::write(&path, "{}").unwrap();
        Before::read(&path).unwrap_err();
    }

    #[test]
    fn a_unit_that_was_on_its_way_up_counts_as_running_and_one_on_its_way_down_does_not() {
        for (state, runs) in [
            (("active", "exited"), true),
            (("reloading", "reload"), true),
            (("activating", "auto-restart"), true),
            (("deactivating", "stop-sigterm"), false),
            (("inactive", "dead"), false),
            (("failed", "failed"), false),
        ] {
            assert_eq!(before(state).runs, runs, "{state:?}");
        }
    }
}
