//! A simulated host: a machine with a disk, clocks, processes and facts of its own, on which the real works and the real
//! link of an agent run in simulated time.
//!
//! ```text
//! link::run ◀─ messages ─▶ Engine ──▶ World, Hands, Disk ──▶ Machine ──▶ Ledger
//! turmoil's TCP                        (one life of an agent)  (survives it)   (ground truth)
//! ```
//!
//! A machine outlives its agent and turmoil's host, so it knows two deaths: an agent that is killed leaves what it wrote
//! in the page cache and its acting steps running; a power loss leaves what was synced, and chance decides about the rest.

pub(crate) mod disk; // what it forgets
mod journal; // what the real journal makes of that
pub(crate) mod ledger; // what really happened
mod hands; // what an agent is given of it
mod machine; // processes, shims, facts
mod process; // what they do
mod wire; // what is between them and the controller

use std::collections::BTreeMap;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fettle_agent::link::{self, Outcome, Wires};
use fettle_agent::message::ToWorks;
use fettle_agent::works::Config;
use fettle_agent::works::engine::{Engine, Next, Opened, Parts};
use fettle_proto::signed::Trust;
use fettle_runbooks::id::{Host, RunId};
use tokio::sync::Notify;

pub(crate) use disk::DiskImage;
pub(crate) use ledger::{Entry, Ledger, What};
pub(crate) use process::Nature;

use crate::trace::count;
use disk::Disk;
use hands::{Died, Life, Network, Shared, current, lock};
use machine::{AtStage, Machine, STATE};

/// The wall clock at the beginning, milliseconds since the Unix epoch.
pub(crate) const EPOCH_MS: i64 = 1_900_000_000_000;

/// How soon a dead agent is started again, milliseconds.
const RESTART_MS: std::ops::Range<u64> = 200..2000;

/// What a simulated host is made of.
#[derive(Clone, Debug)]
pub(crate) struct Make {
    /// Its name in the simulated network.
    pub(crate) machine: String,
    /// Who it is.
    pub(crate) host: Host,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it believes since it joined.
    pub(crate) trust: Trust,
    /// What is in its `roster.json`.
    pub(crate) roster: Option<Vec<u8>>,
    /// Where its controller is: `https://NAME:PORT`, spoken without TLS.
    pub(crate) controller: String,
    /// Of all its chance.
    pub(crate) seed: u64,
    /// How its processes behave.
    pub(crate) nature: Nature,
}

/// A machine. A clone is another handle on the same.
#[derive(Clone)]
pub(crate) struct SimHost {
    machine: Shared,
    bell: Arc<Notify>,
}

impl SimHost {
    /// A machine that has joined and was never switched on.
    pub(crate) fn new(make: Make, ledger: Ledger) -> SimHost {
        let state = Path::new(STATE);
        let mut disk = Disk::new(state);
        disk.make_dir(&state.join("attempts")).expect("an empty disk has room");
        if let Some(roster) = &make.roster {
            let file = disk.create_new(&state.join("roster.json")).expect("an empty disk has room");
            disk.write(file, roster, 0).expect("an empty disk has room");
        }
        let disk = Disk::from_image(&disk.image());
        SimHost::of(Machine::new(make, ledger, disk))
    }

    fn of(machine: Machine) -> SimHost {
        let bell = Arc::clone(&machine.bell);
        SimHost { machine: Arc::new(std::sync::Mutex::new(machine)), bell }
    }

    /// The machine's software: boots, and keeps an agent running as a service manager does. Never returns.
    pub(crate) async fn boot(self) -> turmoil::Result {
        current(&self.machine).power_on();
        loop {
            if !lock(&self.machine).held {
                self.live().await?;
            }
            if !lock(&self.machine).powered {
                pending::<()>().await;
            }
            let until = {
                let mut machine = current(&self.machine);
                machine.agent_died();
                machine.now + machine.chance.ms(RESTART_MS)
            };
            loop {
                let (now, next, held) = {
                    let machine = current(&self.machine);
                    (machine.now, machine.next(), machine.held)
                };
                if now >= until && !held {
                    break;
                }
                self.wait(next.into_iter().chain((!held).then_some(until)).min()).await;
            }
        }
    }

    /// One agent, from its start to its death.
    async fn live(&self) -> turmoil::Result {
        let (number, make, stop) = current(&self.machine).be_born();
        let life = Life { machine: Arc::clone(&self.machine), number };
        let parts = Parts {
            config: Config {
                state: PathBuf::from(STATE),
                host: make.host,
                labels: make.labels,
                trust: make.trust,
                shim: None,
            },
            world: Arc::new(life.clone()),
            hands: Box::new(life.clone()),
            disk: Arc::new(life.clone()),
        };
        let Opened { mut engine, mut writer, handle, from, output } = match mortal(|| Engine::open(parts)) {
            None => return Ok(()),
            Some(Ok(opened)) => opened,
            Some(Err(error)) => {
                self.down(format!("it did not start: {error:?}"));
                return Ok(());
            }
        };
        let (tell, bell) = (handle.clone(), Arc::clone(&self.bell));
        let to_works = move |message: ToWorks| {
            tell.send(message);
            bell.notify_one();
        };
        let wires = Wires { to_works: Box::new(to_works), from_works: from, output };
        let dial = Network { machine: Arc::clone(&self.machine), controller: make.controller.parse()? };
        let mut link = pin!(link::run(dial, wires, stop));
        let mut write_at: Option<Duration> = None;
        loop {
            let (now, lives) = {
                let machine = current(&self.machine);
                (machine.now, machine.life == Some(number))
            };
            if !lives {
                return Ok(());
            }
            if write_at.is_some_and(|at| at <= now) {
                write_at = None;
                if mortal(|| writer.turn()).is_none() {
                    return Ok(());
                }
            }
            let turn = mortal(|| engine.turn());
            // What is killed on the way says nothing more.
            if lock(&self.machine).life != Some(number) {
                return Ok(());
            }
            let timer = match turn {
                None => return Ok(()),
                Some(Next::Stopped) => {
                    self.down("its works have ended".to_owned());
                    return Ok(());
                }
                Some(Next::Idle) => None,
                Some(Next::Until(at)) => Some(at),
            };
            if write_at.is_none() && !writer.is_idle() {
                write_at = Some(current(&self.machine).write_takes());
            }
            let next = lock(&self.machine).next();
            let until = [timer, write_at, next].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = self.wait(until) => {}
                outcome = &mut link => {
                    if outcome != Outcome::Stopped {
                        self.down("its link has lost its works".to_owned());
                    }
                    handle.send(ToWorks::Stop);
                    let _ = mortal(|| engine.turn());
                    return Ok(());
                }
            }
        }
    }

    /// Until something happened, or a moment.
    async fn wait(&self, until: Option<Duration>) {
        let now = current(&self.machine).now;
        let timer = async {
            match until {
                Some(at) => tokio::time::sleep(at.saturating_sub(now)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.bell.notified() => {}
            () = timer => {}
        }
    }

    fn down(&self, why: String) {
        let mut machine = lock(&self.machine);
        let now = machine.now;
        machine.why_down.push(format!("{now:?}: {why}"));
    }

    // --- what may happen to it ---

    /// The agent is killed: its page cache stays, its acting steps live on, its reading ones die.
    pub(crate) fn crash_agent(&self) {
        current(&self.machine).agent_died();
    }

    /// The agent is killed at so many operations on disk or hands from now: before, after or in the midst of it.
    pub(crate) fn crash_agent_at(&self, operations: u32) {
        lock(&self.machine).dies_in = Some(operations);
    }

    /// The power goes at so many operations of the agent from now: before, after or in the midst of it.
    pub(crate) fn lose_power_at(&self, operations: u32) {
        lock(&self.machine).off_in = Some(operations);
    }

    /// The power goes when processes that act have come so many stages further.
    pub(crate) fn lose_power_at_stage(&self, stages: u32) {
        lock(&self.machine).at_stage = Some((stages, AtStage::Power));
    }

    /// A shim is killed when shims and what is below them have come so many stages further.
    pub(crate) fn kill_shim_at_stage(&self, stages: u32) {
        lock(&self.machine).at_stage = Some((stages, AtStage::Shim));
    }

    /// No death is to come any more.
    pub(crate) fn mend(&self) {
        let mut machine = lock(&self.machine);
        (machine.dies_in, machine.off_in, machine.at_stage) = (None, None, None);
    }

    /// The agent is asked to stop, says goodbye, and is started again.
    pub(crate) fn restart_agent(&self) {
        lock(&self.machine).stop.cancel();
    }

    /// While held, a dead agent stays dead.
    pub(crate) fn hold_agent(&self, held: bool) {
        lock(&self.machine).held = held;
        self.bell.notify_one();
    }

    /// The power goes. Then turmoil's host is to be crashed; when it is bounced, the machine boots.
    pub(crate) fn lose_power(&self, at: Duration) {
        let mut machine = lock(&self.machine);
        machine.advance(at);
        machine.lose_power();
    }

    /// Somebody sets the wall clock.
    pub(crate) fn jump_wall_clock(&self, by_ms: i64) {
        lock(&self.machine).wall_jump_ms += by_ms;
        self.bell.notify_one();
    }

    /// The disk takes nothing more, or again.
    pub(crate) fn fill_disk(&self, full: bool) {
        lock(&self.machine).disk.full = full;
    }

    /// The next fsync of a file fails.
    pub(crate) fn fail_next_sync(&self) {
        lock(&self.machine).disk.bad_syncs = 1;
    }

    /// Every write of the journal takes so much longer.
    pub(crate) fn slow_disk(&self, by: Duration) {
        lock(&self.machine).slow = by;
    }

    /// The agent is killed and its journal deleted; what shims left stays.
    pub(crate) fn lose_journal(&self) {
        let mut machine = current(&self.machine);
        machine.agent_died();
        let journal = Path::new(STATE).join("journal");
        if machine.disk.remove(&journal).is_ok() {
            count("a journal is deleted");
        }
        machine.disk = Disk::from_image(&machine.disk.image());
    }

    /// What the whole disk holds.
    pub(crate) fn snapshot(&self) -> DiskImage {
        lock(&self.machine).disk.image()
    }

    /// The machine goes down and comes up with an earlier disk.
    pub(crate) fn roll_back(&self, image: &DiskImage) {
        let mut machine = current(&self.machine);
        machine.lose_power();
        machine.disk = Disk::from_image(image);
        machine.power_on();
        count("a disk is put back");
    }

    /// Another machine with the same disk, and so the same identity.
    pub(crate) fn copy(&self, name: &str, seed: u64) -> SimHost {
        let machine = lock(&self.machine);
        let make = Make { machine: name.to_owned(), seed, ..machine.make.clone() };
        let disk = Disk::from_image(&machine.disk.image());
        let mut copy = Machine::new(make, machine.ledger.clone(), disk);
        copy.used = machine.used.clone();
        SimHost::of(copy)
    }

    /// So often a message between it and the controller comes twice.
    pub(crate) fn repeat_messages(&self, often: f64) {
        lock(&self.machine).wire.twice = often;
    }

    /// What the agent says until then arrives so much later; meanwhile its connection is gone, and it makes another one.
    pub(crate) fn delay_connection(&self, until: Duration, after: Duration) {
        let mut machine = lock(&self.machine);
        machine.wire.held = Some((until, after));
        machine.wire.bell.notify_waiters();
    }

    /// Every shim is killed; the processes below go on.
    pub(crate) fn kill_shims(&self) {
        current(&self.machine).kill_shims(|_| true);
    }

    // --- the truth ---

    /// What a fact would say now of how full a mount is.
    pub(crate) fn used_percent(&self, mount: &str) -> f64 {
        lock(&self.machine).used.get(mount).copied().unwrap_or_default()
    }

    /// How full a mount is.
    pub(crate) fn set_used(&self, mount: &str, percent: f64) {
        lock(&self.machine).used.insert(mount.to_owned(), percent);
    }

    /// Attempts that act and whose processes live.
    pub(crate) fn alive(&self) -> Vec<(RunId, String, u32)> {
        lock(&self.machine).living()
    }

    /// Its power has failed at an operation or a stage, and nobody has been told yet.
    pub(crate) fn went_off(&self) -> bool {
        std::mem::take(&mut lock(&self.machine).went_off)
    }

    /// An agent runs.
    pub(crate) fn is_up(&self) -> bool {
        lock(&self.machine).life.is_some()
    }

    /// Every end of an agent that nobody brought about, and when.
    pub(crate) fn why_down(&self) -> Vec<String> {
        lock(&self.machine).why_down.clone()
    }

    /// How often it was booted.
    pub(crate) fn boots(&self) -> usize {
        lock(&self.machine).boot as usize
    }

    /// The epoch that no power loss could take away.
    pub(crate) fn epoch(&self) -> u64 {
        let bytes = lock(&self.machine).disk.read_durable(&Path::new(STATE).join("epoch"));
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()).unwrap_or_default()
    }
}

/// Runs what may be killed on the way: then there is nothing.
fn mortal<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Died>() => None,
        Err(payload) => resume_unwind(payload),
    }
}
