//! What became of an attempt, read from what its shim left.

use std::io;
use std::time::Duration;

use super::attempt::Ended;
use super::cgroup::Cgroup;
use super::clock;
use super::place::{Place, Start, Started};
use super::shim::{self, not_started};

/// How long a shim that is dead may still be counted.
const LEAVING: Duration = Duration::from_millis(50);
/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// What became of an attempt that was intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is over; this is its result.
    Exit(Box<Ended>),
    /// Its shim lives: [re-attach](super::attempt::Attempts::reattach).
    Running,
    /// No process of it was ever born: it may be started now.
    NotStarted,
    /// It was started, and nobody saw its end.
    Unknown(Unknown),
}

/// An attempt that was started and left no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Why it cannot be told, for people.
    pub reason: String,
    /// Whether something of it may still run.
    pub dead: Dead,
}

/// Whether an attempt without a result is over at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// Nothing of it runs: its control group is empty, or the host has rebooted since.
    Certainly,
    /// It has a control group, and something in it runs: [`bury`](super::attempt::Attempts::bury) can end it.
    StillRunning,
    /// It had no control group, so nobody can tell.
    NotKnown,
}

/// Reads what a shim left. The lock is asked first: a result that appears after that is still found.
pub(crate) fn look(place: &Place) -> io::Result<Found> {
    if !place.dir().exists() {
        return Ok(Found::NotStarted);
    }
    let free = place.lock()?;
    match place.exit()? {
        Some(Ok(ended)) => return Ok(Found::Exit(Box::new(ended))),
        Some(Err(damage)) => {
            let reason = format!("its result is there, but cannot be read: {damage}");
            return Ok(Found::Unknown(Unknown { reason, dead: Dead::NotKnown }));
        }
        None => {}
    }
    if free.is_none() {
        return Ok(Found::Running);
    }
    shim::give_back(place);
    let started = match place.started()? {
        Start::Made(started) => started,
        Start::Never => return Ok(Found::NotStarted),
        Start::Broken => {
            // It could be started after all; but a disk that lost what it had called durable looks the same, and there it has
            // acted. A person who retries the run knows which.
            let why = "its supervisor ended while it was starting, before the step did".into();
            return Ok(Found::Exit(Box::new(not_started("spawn-failed", why))));
        }
        Start::Unreadable => {
            let reason = "it was started, and what its supervisor left is damaged".into();
            return Ok(Found::Unknown(Unknown { reason, dead: Dead::NotKnown }));
        }
    };
    let (dead, why) = death(&started)?;
    let reason = format!("its supervisor ended without leaving a result; {why}");
    Ok(Found::Unknown(Unknown { reason, dead }))
}

/// Whether an attempt whose shim is dead still runs.
fn death(started: &Started) -> io::Result<(Dead, &'static str)> {
    if clock::boot_id()? != started.boot {
        return Ok((Dead::Certainly, "the host has rebooted since"));
    }
    Ok(match &started.cgroup {
        None => (Dead::NotKnown, "without a control group nobody can tell whether it still runs"),
        // The shim itself may be a moment behind its lock in leaving.
        Some(path) if !Cgroup::at(path.clone()).empties_within(LEAVING)? => {
            (Dead::StillRunning, "something of it still runs")
        }
        Some(_) => (Dead::Certainly, "nothing of it runs any more"),
    })
}

/// Kills what is left of an attempt whose shim is dead. Gives back whether nothing of it runs, for certain.
pub(crate) fn bury(place: &Place) -> io::Result<bool> {
    let Some(_free) = place.lock()? else { return Ok(false) };
    let started = match place.started()? {
        Start::Never | Start::Broken => return Ok(true),
        Start::Unreadable => return Ok(false),
        Start::Made(started) => started,
    };
    match death(&started)?.0 {
        Dead::Certainly => Ok(true),
        Dead::NotKnown => Ok(false),
        Dead::StillRunning => {
            let group = Cgroup::at(started.cgroup.unwrap_or_default());
            group.kill()?;
            let gone = group.empties_within(DYING)?;
            group.remove();
            Ok(gone)
        }
    }
}

/// Kills what is left of an attempt whose shim died without leaving a result, and hardly waits. False: something of it is still
/// there.
pub(crate) fn put_down(place: &Place) -> io::Result<bool> {
    let Start::Made(started) = place.started()? else { return Ok(true) };
    match (death(&started)?.0, started.cgroup) {
        (Dead::StillRunning, Some(path)) => {
            let group = Cgroup::at(path);
            group.kill()?;
            group.empties_within(LEAVING)
        }
        // Nothing is there, or nothing that anybody could find.
        (Dead::StillRunning | Dead::Certainly | Dead::NotKnown, _) => Ok(true),
    }
}

/// Removes the control group of an attempt, if nothing is in it any more.
pub(crate) fn remove_group(place: &Place) {
    if let Some(group) = Cgroup::maybe_of_attempt(place.dir()) {
        group.remove();
    }
}
