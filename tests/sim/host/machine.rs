//! A machine: its disk, its clocks, its processes and what its facts say. Time moves it on whenever somebody looks.
//!
//! The shims behave as the real ones: a lock for as long as they live, an exclusive and durable `started`, a second look at
//! expiry, boot and tombstone, a result that appears whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fettle_agent::works::attempt::{Ended, Happening, Outcome};
use fettle_agent::works::hands::Answer;
use fettle_agent::works::policy::{Asked, HostPolicy, Rules};
use fettle_agent::works::record::AttemptKey;
use fettle_agent::works::recovery::{Dead, Found, Unknown};
use fettle_runbooks::expr::facts::{FactCall, FactKind, Facts};
use fettle_runbooks::id::RunId;
use fettle_runbooks::value::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::ledger::{Entry, Ledger, What};
use super::process::{self, Process, Stage, not_started};
use super::wire::Wire;
use super::{EPOCH_MS, Make};
use crate::chance::Chance;
use crate::trace::count;

/// The state directory.
pub(super) const STATE: &str = "/state";
const ATTEMPTS: &str = "/state/attempts";
/// What the disk of every mount holds.
const TOTAL_BYTES: f64 = 100e9;

/// What may die at a stage of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtStage {
    /// Its supervisor.
    Shim,
    /// The machine.
    Power,
}

/// See the module.
pub(super) struct Machine {
    pub(super) make: Make,
    pub(super) ledger: Ledger,
    pub(super) chance: Chance,
    pub(super) disk: Disk,
    /// How much of each mount is used, percent.
    pub(super) used: BTreeMap<String, f64>,
    pub(super) now: Duration,
    pub(super) wall_jump_ms: i64,
    pub(super) boot: u32,
    pub(super) boot_id: String,
    pub(super) booted_at: Duration,
    pub(super) powered: bool,
    /// The power failed by itself.
    pub(super) went_off: bool,
    processes: Vec<Process>,
    reading: Vec<(Duration, Vec<FactCall>, Answer)>,
    /// The agent that lives.
    pub(super) life: Option<u64>,
    lives: u64,
    /// Asks it to stop.
    pub(super) stop: CancellationToken,
    /// Locks of the agent that lives.
    pub(super) locks: Vec<PathBuf>,
    /// It dies at so many operations from now.
    pub(super) dies_in: Option<u32>,
    /// The power fails at so many operations from now.
    pub(super) off_in: Option<u32>,
    /// What dies when processes that act have come so many stages further.
    pub(super) at_stage: Option<(u32, AtStage)>,
    /// No agent is started.
    pub(super) held: bool,
    pub(super) slow: Duration,
    pub(super) why_down: Vec<String>,
    /// What is between it and the controller.
    pub(super) wire: Wire,
    /// Rung when whoever waits should look again.
    pub(super) bell: Arc<Notify>,
}

impl Machine {
    pub(super) fn new(make: Make, ledger: Ledger, disk: Disk) -> Machine {
        let mut chance = Chance::new(make.seed, &make.machine);
        let mut machine = Machine {
            ledger,
            disk,
            used: BTreeMap::new(),
            now: Duration::ZERO,
            wall_jump_ms: 0,
            boot: 0,
            boot_id: String::new(),
            booted_at: Duration::ZERO,
            powered: false,
            went_off: false,
            processes: Vec::new(),
            reading: Vec::new(),
            life: None,
            lives: 0,
            stop: CancellationToken::new(),
            locks: Vec::new(),
            dies_in: None,
            off_in: None,
            at_stage: None,
            held: false,
            slow: Duration::ZERO,
            why_down: Vec::new(),
            wire: Wire::default(),
            bell: Arc::new(Notify::new()),
            chance: chance.clone(),
            make,
        };
        machine.disk.copies = chance.happens(0.5);
        machine.chance = chance;
        machine
    }

    // --- time ---

    /// Everything that happens up to a moment.
    pub(super) fn advance(&mut self, to: Duration) {
        while let Some(at) = self.next().filter(|at| *at <= to) {
            self.now = self.now.max(at);
            while let Some(due) = self.reading.iter().position(|(due, ..)| *due <= at) {
                let (_, calls, answer) = self.reading.remove(due);
                answer(self.facts(&calls));
            }
            if let Some(due) = self.processes.iter().position(|process| process.at <= at) {
                let dies = self.comes_further(due);
                let before = dies.is_some() && self.chance.happens(0.5);
                if !before {
                    self.goes_on(due);
                }
                match dies {
                    Some((AtStage::Shim, key)) => self.kill_shims(|process| process.is(&key)),
                    Some((AtStage::Power, _)) => self.power_fails(),
                    None => {}
                }
            }
        }
        self.now = self.now.max(to);
    }

    fn goes_on(&mut self, due: usize) {
        let process = self.processes.remove(due);
        let place = due.min(self.processes.len());
        if let Some(goes_on) = self.step(process) {
            self.processes.insert(place, goes_on);
        }
    }

    /// A process is about to come a stage further: what dies of that, before it or after it.
    fn comes_further(&mut self, due: usize) -> Option<(AtStage, AttemptKey)> {
        let process = &self.processes[due];
        if !process.acts() || !process.watched {
            return None;
        }
        let (left, what) = self.at_stage?;
        match left.checked_sub(1) {
            Some(left) => {
                self.at_stage = Some((left, what));
                None
            }
            None => {
                self.at_stage = None;
                match what {
                    AtStage::Shim => count(format!("a shim dies at a stage: {}", process.stage.word())),
                    AtStage::Power => count(format!("the power fails at a stage: {}", process.stage.word())),
                }
                Some((what, process.key.clone()))
            }
        }
    }

    /// When the next thing happens by itself.
    pub(super) fn next(&self) -> Option<Duration> {
        let reading = self.reading.iter().map(|(at, ..)| *at);
        self.processes.iter().map(|process| process.at).chain(reading).min()
    }

    pub(super) fn wall_ms(&self) -> i64 {
        EPOCH_MS + self.now.as_millis() as i64 + self.wall_jump_ms
    }

    pub(super) fn since_boot(&self) -> Duration {
        self.now.saturating_sub(self.booted_at)
    }

    /// When a write of the journal that begins now is over.
    pub(super) fn write_takes(&mut self) -> Duration {
        if !self.slow.is_zero() {
            count("a write takes its time");
        }
        self.soon(60..900) + self.slow
    }

    fn soon(&mut self, us: std::ops::Range<u64>) -> Duration {
        self.now + Duration::from_micros(self.chance.among(us))
    }

    // --- processes ---

    /// What comes next for a process; none: there is nothing left of it.
    fn step(&mut self, mut process: Process) -> Option<Process> {
        match std::mem::replace(&mut process.stage, Stage::Named) {
            Stage::Born => self.started(process),
            Stage::Starting => self.may_start(process),
            Stage::Beginning => {
                self.happened(&process, What::Begun);
                self.moves(&process);
                process.begin(self.now);
                Some(process)
            }
            Stage::Running => {
                let ended = process.ended(self.now);
                match ended.exit_code {
                    Some(code) => {
                        if code == 0 {
                            self.moves(&process);
                        }
                        self.happened(&process, What::Done { code });
                    }
                    None => self.happened(&process, What::Killed),
                }
                self.leave(process, ended)
            }
            Stage::Leaving(ended) => self.write_exit(process, *ended),
            Stage::Named => {
                let _ = self.disk.sync_dir(&place(&process.key));
                None
            }
        }
    }

    fn started(&mut self, mut process: Process) -> Option<Process> {
        let place = place(&process.key);
        // The room for its result is reserved before anything else.
        let made = if self.disk.full { None } else { self.disk.create_new(&place.join("started")).ok() };
        let Some(file) = made else {
            process.tell(Happening::NeverBorn);
            return None;
        };
        let text = format!("{{\"boot\":\"{}\"}}", self.boot_id);
        let _ = self.disk.write(file, text.as_bytes(), 0);
        (process.stage, process.at) = (Stage::Starting, self.soon(50..900));
        Some(process)
    }

    fn may_start(&mut self, mut process: Process) -> Option<Process> {
        let place = place(&process.key);
        let file = self.disk.open(&place.join("started")).ok()?;
        let durable = self.disk.sync(file, &mut self.chance);
        let dirs = [place.as_path(), ATTEMPTS.as_ref()];
        let named = dirs.iter().try_for_each(|dir| self.disk.sync_dir(dir));
        if durable.and(named).is_err() {
            // It goes no further, and nobody starts it again.
            process.tell(Happening::Unknown("its supervisor ended without leaving a result".to_owned()));
            return None;
        }
        self.happened(&process, What::Started);
        match self.refusal(&process) {
            None => {
                (process.stage, process.at) = (Stage::Beginning, self.soon(0..1500));
                Some(process)
            }
            Some(code) => {
                self.happened(&process, What::Barred { code: code.to_owned() });
                self.leave(
                    process,
                    not_started(code, "what was true when it was ordered is not true any more"),
                )
            }
        }
    }

    fn refusal(&self, process: &Process) -> Option<&'static str> {
        let by = &process.start_by;
        if self.disk.exists(&tombstone(process.key.run))
            || self.disk.exists(&place(&process.key).join("stop"))
        {
            return Some("cancelled");
        }
        if self.wall_ms() > by.not_after_ms {
            return Some("expired");
        }
        if let Some(limit) = &by.boot {
            if limit.boot != self.boot_id {
                return Some("rebooted");
            }
            if self.since_boot().as_millis() > u128::from(limit.not_after_ms) {
                return Some("expired");
            }
        }
        let work = &process.spec.work;
        let asked = Asked { runbook: &by.runbook, risk: by.risk, program: work.program(), unit: work.unit() };
        policy().allows(asked).err().map(|veto| veto.code)
    }

    fn leave(&mut self, mut process: Process, ended: Ended) -> Option<Process> {
        if !process.acts() {
            process.tell(Happening::Ended(ended));
            return None;
        }
        // Nobody is left who could write it down.
        if !process.watched {
            return None;
        }
        (process.stage, process.at) = (Stage::Leaving(Box::new(ended)), self.soon(50..2000));
        Some(process)
    }

    fn write_exit(&mut self, mut process: Process, ended: Ended) -> Option<Process> {
        let place = place(&process.key);
        let (full, copies) = (std::mem::take(&mut self.disk.full), std::mem::take(&mut self.disk.copies));
        // Its room was reserved.
        let written = serde_json::to_vec(&ended).map_err(std::io::Error::other).and_then(|bytes| {
            let file = self.disk.create_new(&place.join("exit.tmp"))?;
            self.disk.write(file, &bytes, 0)?;
            self.disk.sync(file, &mut self.chance)?;
            self.disk.rename(&place.join("exit.tmp"), &place.join("exit"))
        });
        (self.disk.full, self.disk.copies) = (full, copies);
        if written.is_err() {
            process.tell(Happening::Unknown("its supervisor ended without leaving a result".to_owned()));
            return None;
        }
        process.tell(Happening::Ended(ended));
        (process.stage, process.at) = (Stage::Named, self.soon(20..1500));
        Some(process)
    }

    fn moves(&mut self, process: &Process) {
        for (mount, by) in &process.script.moves {
            let used = self.used.entry(mount.clone()).or_default();
            *used = (*used + by / 2.0).clamp(0.0, 100.0);
        }
    }

    fn happened(&self, process: &Process, what: What) {
        self.ledger.write(Entry {
            at: self.now,
            host: self.make.host.clone(),
            machine: self.make.machine.clone(),
            boot: self.boot,
            boot_id: self.boot_id.clone(),
            run: process.key.run,
            path: process.key.path.clone(),
            attempt: process.key.attempt,
            acts: process.acts(),
            words: process.words(),
            digest: process.digest(),
            what,
        });
    }

    pub(super) fn add(&mut self, process: Process) {
        self.processes.push(process);
    }

    pub(super) fn process(&mut self, key: &AttemptKey) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.is(key))
    }

    /// Whether a shim has the lock of an attempt.
    pub(super) fn is_watched(&self, key: &AttemptKey) -> bool {
        self.processes.iter().any(|process| process.is(key) && process.acts() && process.watched)
    }

    /// What ends processes by force, now.
    fn end(&mut self, what: &What, which: impl Fn(&Process) -> bool) {
        let (over, left) = std::mem::take(&mut self.processes).into_iter().partition(which);
        self.processes = left;
        let over: Vec<Process> = over;
        over.iter()
            .filter(|process| process.lives())
            .for_each(|process| self.happened(process, what.clone()));
    }

    /// Somebody asks for the end of an attempt.
    pub(super) fn stop(&mut self, key: &AttemptKey) {
        let at = self.soon(500..40_000);
        let Some(process) = self.process(key).filter(|process| process.lives()) else { return };
        if at < process.at {
            (process.at, process.ended_by) = (at, Some(Outcome::Killed));
        }
    }

    pub(super) fn living(&self) -> Vec<(RunId, String, u32)> {
        let living = self.processes.iter().filter(|process| process.acts() && process.lives());
        living.map(|process| (process.key.run, process.key.path.clone(), process.key.attempt)).collect()
    }

    // --- what is left of an attempt ---

    /// The rules of `recovery`, on this disk.
    pub(super) fn look(&self, key: &AttemptKey) -> Found {
        let place = place(key);
        if !self.disk.exists(&place) {
            return Found::NotStarted;
        }
        let exit = self.disk.read(&place.join("exit")).ok();
        if let Some(ended) = exit.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Found::Exit(Box::new(ended));
        }
        if self.is_watched(key) {
            return Found::Running;
        }
        let Ok(started) = self.disk.read(&place.join("started")) else { return Found::NotStarted };
        if !started.ends_with(b"}") {
            let ended = not_started("spawn-failed", "its supervisor ended while it was starting");
            return Found::Exit(Box::new(ended));
        }
        let dead = match self.is_left(key) {
            true => Dead::StillRunning,
            false => Dead::Certainly,
        };
        Found::Unknown(Unknown { reason: "its supervisor ended without leaving a result".to_owned(), dead })
    }

    fn is_left(&self, key: &AttemptKey) -> bool {
        self.processes.iter().any(|process| process.is(key))
    }

    /// Kills what an attempt left behind.
    pub(super) fn bury(&mut self, key: &AttemptKey) -> bool {
        if self.is_watched(key) {
            return false;
        }
        self.end(&What::Killed, |process| process.is(key));
        true
    }

    /// Whether nothing of the run runs; what does is told to end.
    pub(super) fn stop_all(&mut self, run: RunId) -> std::io::Result<bool> {
        let of_run = self.processes.iter().filter(|process| process.of_run(run) && process.acts());
        let keys: Vec<AttemptKey> = of_run.map(|process| process.key.clone()).collect();
        let mut over = true;
        for key in keys {
            if !self.is_watched(&key) {
                self.bury(&key);
                continue;
            }
            let stop = place(&key).join("stop");
            if !self.disk.exists(&stop) {
                self.disk.create_new(&stop)?;
            }
            self.stop(&key);
            over = false;
        }
        Ok(over)
    }

    pub(super) fn forget(&mut self, run: RunId) -> std::io::Result<()> {
        let mine = format!("{run}.");
        for name in self.disk.names(ATTEMPTS.as_ref())? {
            let watched = |process: &Process| process.of_run(run) && process.watched;
            if name.starts_with(&mine) && !self.processes.iter().any(watched) {
                self.disk.remove(&Path::new(ATTEMPTS).join(name))?;
            }
        }
        Ok(())
    }

    // --- facts ---

    pub(super) fn read_facts(&mut self, calls: Vec<FactCall>, answer: Answer) {
        let at = self.soon(300..20_000);
        self.reading.push((at, calls, answer));
    }

    fn facts(&self, calls: &[FactCall]) -> Facts {
        calls.iter().map(|call| (call.to_string(), self.fact(call))).collect()
    }

    fn fact(&self, call: &FactCall) -> Result<Value, String> {
        let (FactKind::Disk, Some(Value::String(mount))) = (call.fact, call.args.first()) else {
            return Err("not simulated".to_owned());
        };
        let used = self.used.get(mount).copied().unwrap_or_default();
        let bytes = |percent: f64| Value::Int((TOTAL_BYTES * percent / 100.0) as i64);
        let fields = [
            ("used_percent", Value::Number(used)),
            ("total_bytes", bytes(100.0)),
            ("used_bytes", bytes(used)),
            ("available_bytes", bytes(100.0 - used)),
            ("inodes_used_percent", Value::Number(1.0)),
            ("fstype", Value::String("simulated".to_owned())),
            ("readonly", Value::Bool(false)),
        ];
        Ok(Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    }

    // --- lives and deaths ---

    /// An agent begins to live: what it is known by, what it is, and what asks it to stop.
    pub(super) fn be_born(&mut self) -> (u64, Make, CancellationToken) {
        self.lives += 1;
        self.life = Some(self.lives);
        self.stop = CancellationToken::new();
        (self.lives, self.make.clone(), self.stop.clone())
    }

    /// The agent's process is gone: its locks are free, its children die, nobody is told of the others.
    pub(super) fn agent_died(&mut self) {
        if self.life.is_some() && self.is_acting() {
            count("a step survives its agent");
        }
        self.no_agent();
    }

    fn is_acting(&self) -> bool {
        self.processes.iter().any(|process| process.acts() && process.lives())
    }

    fn no_agent(&mut self) {
        if self.life.take().is_none() {
            return;
        }
        self.locks.clear();
        self.reading.clear();
        (self.dies_in, self.off_in) = (None, None);
        self.end(&What::Died, |process| !process.acts());
        self.processes.iter_mut().for_each(|process| process.observer = None);
        self.bell.notify_one();
    }

    /// The power fails now.
    pub(super) fn power_fails(&mut self) {
        self.lose_power();
        self.went_off = true;
    }

    /// Nothing is left but what the disk had synced.
    pub(super) fn lose_power(&mut self) {
        self.no_agent();
        if self.is_acting() {
            count("a step dies with its host");
        }
        self.end(&What::Died, |_| true);
        self.disk.lose_power(&mut self.chance);
        (self.powered, self.slow, self.at_stage) = (false, Duration::ZERO, None);
    }

    pub(super) fn power_on(&mut self) {
        self.agent_died(); // Of a machine whose software was taken away.
        if std::mem::replace(&mut self.powered, true) {
            return;
        }
        self.boot += 1;
        self.boot_id = format!("{:016x}{:016x}", self.chance.word(), self.chance.word());
        self.booted_at = self.now;
    }

    /// These shims are killed; the processes below go on.
    pub(super) fn kill_shims(&mut self, which: impl Fn(&Process) -> bool) {
        for mut process in std::mem::take(&mut self.processes) {
            if !process.acts() || !process.watched || !which(&process) {
                self.processes.push(process);
                continue;
            }
            process.watched = false;
            count("a shim is killed");
            if !process.lives() {
                // The follower looks at what is there once the lock is free.
                match self.look(&process.key) {
                    Found::NotStarted => process.tell(Happening::NeverBorn),
                    Found::Exit(ended) => process.tell(Happening::Ended(*ended)),
                    Found::Running => {}
                    Found::Unknown(unknown) => process.tell(Happening::Unknown(unknown.reason)),
                }
                continue;
            }
            process.tell(Happening::Unknown("its supervisor ended without leaving a result".to_owned()));
            process.observer = None;
            self.processes.push(process);
        }
        self.bell.notify_one();
    }
}

/// The directory of an attempt.
pub(super) fn place(key: &AttemptKey) -> PathBuf {
    Path::new(ATTEMPTS).join(format!("{}.{}.{}", key.run, key.path.replace('/', "~"), key.attempt))
}

/// When it is there, nothing of the run starts.
pub(super) fn tombstone(run: RunId) -> PathBuf {
    Path::new(ATTEMPTS).join(format!("{run}.tombstone"))
}

/// A process that is about to be started.
pub(super) fn newborn(machine: &mut Machine, new: process::New) -> Process {
    let words = process::words(&new.spec);
    let script = process::Script::of(&words, &machine.make.nature, &mut machine.chance);
    let at = machine.soon(200..4000);
    let stage = if new.child_of.is_some() { Stage::Beginning } else { Stage::Born };
    Process {
        key: new.spec.key.clone(),
        child_of: new.child_of,
        spec: new.spec,
        start_by: new.start_by,
        script,
        stage,
        at,
        begun_at: at,
        ended_by: None,
        observer: Some(new.observer),
        watched: true,
    }
}

/// What the host itself refuses: nothing.
pub(super) fn policy() -> HostPolicy {
    HostPolicy::Read(Rules::default())
}
