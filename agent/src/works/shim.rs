//! The supervisor of one attempt that acts: this program again, as a tiny process of its own.
//!
//! It is a process of its own so that a step outlives the agent: its crash, its restart, its upgrade. It stands outside
//! the agent's session and control group, and holds for its lifetime a lock that the agent took before the shim was
//! born: whoever finds the lock free knows that no shim lives, which no reuse of process numbers can fake. It
//!
//! 1. creates `started`, exclusively and durably, or ends: so an attempt starts at most once, ever;
//! 2. asks again whether the attempt may still start: expiry, veto, cancellation;
//! 3. starts the step in a session of its own, inside the attempt's control group;
//! 4. writes its output to files, enforces its time, ends the whole tree when it must;
//! 5. leaves the result in a file that appears whole or not at all.
//!
//! Deliberately missing: threads, a runtime, the network, and any way to talk to it but the file `stop`.

mod exit; // how the result gets to the disk
mod watch; // the step's life

pub(crate) use exit::give_back;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::attempt::{Ended, Outcome};
use super::cgroup::Cgroup;
use super::clock;
use super::disk;
use super::launch;
use super::output::Kept;
use super::place::{Order, Place, Started};
use super::policy::{Asked, HostPolicy};
use super::sandbox;
use super::service;
use super::unix;
use crate::crash::crash_point;

/// The first argument that makes this program a shim.
pub(crate) const WORD: &str = "__shim";

/// Becomes a shim when this process was started as one, and then never returns. To be called first in `main`, before
/// there are threads, runtimes or buffers.
#[expect(clippy::disallowed_methods, reason = "it ends here: returning would make it an agent")]
pub fn shim_if_asked() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(WORD) {
        return;
    }
    let rest: Vec<String> = args.collect();
    match rest.as_slice() {
        [word, account @ ..] if word == "as" => {
            let error = launch::become_account(account);
            eprintln!("fettle: failed to become the account of the step: {error}");
            std::process::exit(126)
        }
        [word, dir] if word == "service" => std::process::exit(service::serve(PathBuf::from(dir))),
        [word] if word == "read" => std::process::exit(sandbox::keep()),
        [word, dir] if word == "watch" => std::process::exit(match shim(PathBuf::from(dir)) {
            Ok(()) => 0,
            Err(_) => 1, // nobody listens; what is and what is not in the directory says the rest
        }),
        _ => std::process::exit(2),
    }
}

/// The arguments that make this program the shim of an attempt.
pub(crate) fn arguments(place: &Place) -> Vec<String> {
    vec!["fettle-shim".into(), WORD.into(), "watch".into(), place.dir().to_string_lossy().into_owned()]
}

fn shim(dir: PathBuf) -> std::io::Result<()> {
    crash_point("shim.born");
    let place = Place::at(dir);
    // Held until this process is no more.
    let _lock = adopt_lock()?;
    let _ = rustix::process::setsid(); // whoever started us did so already, unless it is a person trying things out
    unix::ignore_polite_signals();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // We were born into the attempt's group, or go there now, and the step is born into ours.
    let cgroup = Cgroup::of_attempt(place.dir()).filter(|cgroup| cgroup.enter().is_ok());
    let order: Order = serde_json::from_slice(&std::fs::read(place.file("order"))?)?;
    let exit = exit::reserve(&place)?;

    start(&place, cgroup.as_ref())?;
    let ended = match may_start(&place, &order) {
        Ok(()) => watch::step(&place, &order, cgroup),
        Err((code, message)) => not_started(code, message),
    };
    crash_point("shim.step-over");
    exit.leave(&place, &ended)
}

/// The lock that the agent took for us. Without it nobody could tell that we live, so then we do not.
fn adopt_lock() -> std::io::Result<OwnedFd> {
    let lock = unix::take_extra(0)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// From here on the attempt is started, for ever. Fails when it was before.
fn start(place: &Place, cgroup: Option<&Cgroup>) -> std::io::Result<()> {
    use std::io::Write as _;
    let started = Started {
        boot: clock::boot_id()?,
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        cgroup: cgroup.map(|cgroup| cgroup.path().to_owned()),
    };
    let bytes = serde_json::to_vec(&started)?;
    crash_point("shim.before-started");
    let mut file = disk::create_new(&place.file("started"), 0o600)?;
    file.write_all(&bytes)?;
    crash_point("shim.started-unsynced");
    file.sync_all()?;
    crash_point("shim.started-undurable");
    disk::sync_dir(place.dir())?;
    // The agent made the directory and did not wait for the disk: by now its name is there, or soon will be.
    place.dir().parent().map_or(Ok(()), disk::sync_dir)?;
    crash_point("shim.started");
    Ok(())
}

/// What was true when the attempt was ordered may not be true any more.
fn may_start(place: &Place, order: &Order) -> Result<(), (&'static str, String)> {
    let by = &order.start_by;
    if order.tombstone.exists() || place.file("stop").exists() {
        return Err(("cancelled", "the run was cancelled before the step started".into()));
    }
    let now = clock::wall_ms();
    if now > by.not_after_ms {
        return Err(("expired", format!("it had to start {} ms ago", now - by.not_after_ms)));
    }
    if let Some(limit) = &by.boot {
        if clock::boot_id().ok().as_ref() != Some(&limit.boot) {
            return Err(("rebooted", "the host has rebooted since this was approved".into()));
        }
        if clock::since_boot().as_millis() > u128::from(limit.not_after_ms) {
            return Err(("expired", "it had to start earlier, by the boot clock".into()));
        }
    }
    let asked = Asked {
        runbook: &by.runbook,
        risk: by.risk,
        program: order.spec.work.program(),
        unit: order.spec.work.unit(),
    };
    HostPolicy::read(&order.policy).allows(asked).map_err(|veto| (veto.code, veto.message))
}

/// The result of an attempt without a process.
pub(crate) fn not_started(code: &str, message: String) -> Ended {
    Ended {
        outcome: Outcome::NotStarted { code: code.into(), message },
        exit_code: None,
        signal: None,
        stdout: Kept::default(),
        stderr: Kept::default(),
        took: std::time::Duration::ZERO,
        hint: String::new(),
    }
}

/// A risk as the order file writes it.
pub(crate) mod risk_text {
    use fettle_proto::signed::words::{risk_of, risk_word};
    use fettle_runbooks::runbook::Risk;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(risk: &Risk, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(risk_word(*risk))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Risk, D::Error> {
        let text = String::deserialize(from)?;
        risk_of(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a risk")))
    }
}

/// Nothing but a test looks here: the path of this program as a shim is started.
pub(crate) fn itself() -> &'static Path {
    Path::new("/proc/self/exe")
}
