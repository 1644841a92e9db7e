//! A step that does something with a unit of systemd: this program again, as the process of the step.
//!
//! A process of its own, watched by a [shim](super::shim) like any step's: so journal, output, time, cancellation, recovery and
//! undo are those of any step. It
//!
//! 1. reads how the unit is, and asks the host's veto about every name the unit has;
//! 2. keeps how it was, durably, before anything is done to it ([`before`]);
//! 3. has systemd do it, and waits for the end of that job, however often the bus goes away meanwhile;
//! 4. looks whether the unit is as it should be, and says so ([`verdict`]).
//!
//! A job that is in the way: `stop` replaces it, because it is there to end whatever goes on; the others leave it alone and
//! fail, so that a step never undoes what somebody is just doing. Told to end, it takes its job back if systemd has not begun
//! it; half a restart would leave the unit down, so one that has begun goes on, and that is said.

mod along; // what systemd does with other units too
mod before; // how the unit was
mod verdict; // what systemd's words mean

use std::cell::Cell;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fettle_runbooks::unit::{UnitName, Verb};
use tokio::signal::unix::{SignalKind, signal};

use self::along::Way;
use self::before::Before;
use super::attempt::{Deed, Work};
use super::place::{Order, Place};
use super::policy::{Asked, HostPolicy};
use super::record::AttemptKey;
use super::systemd::{self, Ends, JobId, No, Systemd, Unit};

/// What systemd calls started may not even have become its program yet. After this long it is looked at again.
const SETTLE: Duration = Duration::from_millis(300);

/// How long to wait for a bus that went away to come back before looking again.
const LOOK: Duration = Duration::from_millis(200);

/// How long a unit that goes down is waited for: it may be on its way up again, and then it runs.
const GOING_DOWN: Duration = Duration::from_secs(2);

/// How long the journal may take to be read.
const JOURNAL: Duration = Duration::from_secs(5);

/// More of the journal than this is not evidence any more, in bytes.
const MOST_JOURNAL: u64 = 64 << 10;

/// The agent's unit, as the manual calls it; what it is really called is asked too.
const AGENT: &str = "fettle-agent.service";

/// How many lines of the journal go with a failure.
const LINES: &str = "--lines=10";

/// Does what the order in an attempt's directory says, and gives back the exit code of the step.
pub(crate) fn serve(dir: PathBuf) -> i32 {
    match work(&Place::at(dir)) {
        Ok(Done::Well) => 0,
        Ok(Done::ToldToEnd) => 143,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    }
}

enum Done {
    Well,
    ToldToEnd,
}

fn work(place: &Place) -> Result<Done, String> {
    let order: Order = std::fs::read(place.file("order"))
        .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
        .map_err(|error| format!("the order of this step cannot be read: {error}"))?;
    let Work::Service { deed, unit, tried_in } = &order.spec.work else {
        return Err("this step does nothing with a unit".to_owned());
    };
    let own = &order.spec.key;
    let before = place.before(own).ok_or("this step has no place to keep how its unit was")?;
    let tried_in = if tried_in.is_empty() { vec![own.run] } else { tried_in.clone() };
    let tried = tried_in.into_iter().map(|run| AttemptKey { run, ..own.clone() }).collect();
    let step = Step {
        deed: *deed,
        name: unit,
        before,
        tried,
        place,
        order: &order,
        asked: Cell::new(false),
        ordered: Cell::new(None),
        others: Cell::new(false),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start: {error}"))?;
    runtime.block_on(async {
        let mut told =
            signal(SignalKind::terminate()).map_err(|error| format!("failed to start: {error}"))?;
        tokio::select! {
            done = step.take() => done.map(|()| Done::Well),
            _ = told.recv() => {
                step.withdraw().await;
                Ok(Done::ToldToEnd)
            }
        }
    })
}

struct Step<'a> {
    deed: Deed,
    name: &'a UnitName,
    /// Where it is kept how the unit was, unless an earlier run has.
    before: PathBuf,
    /// The attempt, as one of each run that tried the step, from the first on.
    tried: Vec<AttemptKey>,
    place: &'a Place,
    order: &'a Order,
    /// systemd was asked, and the end of its job has not come.
    asked: Cell<bool>,
    /// That job, once systemd has named it.
    ordered: Cell<Option<JobId>>,
    /// Somebody else had ordered that job before.
    others: Cell<bool>,
}

impl Step<'_> {
    async fn take(&self) -> Result<(), String> {
        let before = self.kept()?;
        if self.deed == Deed::PutBack && before.is_none() && self.place.all_failed(&self.tried) {
            println!("no attempt of the step came so far as to do anything, so there is nothing to put back");
            return Ok(());
        }
        let systemd = connect().await.map_err(|no| no.to_string())?;
        let (unit, runs) = settled(&systemd, self.name).await.map_err(|no| no.to_string())?;
        println!("{} is {}", unit.id, told(&unit));
        self.allowed(&unit)?;
        let verb = match self.deed {
            Deed::Start => Verb::Start,
            Deed::Stop => Verb::Stop,
            Deed::Restart => Verb::Restart,
            Deed::Reload => Verb::Reload,
            Deed::PutBack => match self.backwards(before.as_ref(), runs)? {
                Some(verb) => verb,
                None => return Ok(()),
            },
        };
        verdict::possible(verb, &unit)?;
        if verb == Verb::Restart {
            verdict::restartable(&unit, runs || before.as_ref().is_some_and(|before| before.runs))?;
        }
        self.with_others(&systemd, verb, &unit).await?;
        if self.deed != Deed::PutBack {
            let kept = match &before {
                Some(first) => Ok(first.clone()),
                None => Before::of(self.name, &unit, runs).keep(&self.before),
            };
            let kept = kept.map_err(|error| {
                format!("failed to keep how {} was, so nothing was done: {error}", unit.id)
            })?;
            if kept.runs != runs {
                println!("before the first attempt of this step it was {}", kept.state);
            }
        }
        let ended = self.carry_out(systemd, verb, &unit).await;
        if ended.is_err() {
            print_journal(&unit.id).await;
        }
        ended
    }

    /// An alias is no way around what this host, or the language, refuses.
    fn allowed(&self, unit: &Unit) -> Result<(), String> {
        self.vetoed(unit)?;
        for name in unit.names.iter().chain([&unit.id]) {
            let known: UnitName = name.parse().map_err(|why| format!("{name} cannot be acted on: {why}"))?;
            known.acted_on().map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    fn vetoed(&self, unit: &Unit) -> Result<(), String> {
        let by = &self.order.start_by;
        let policy = HostPolicy::read(&self.order.policy);
        for name in unit.names.iter().chain([&unit.id]) {
            let asked = Asked { runbook: &by.runbook, risk: by.risk, program: "", unit: name };
            policy.allows(asked).map_err(|veto| format!("{name}: {} ({})", veto.message, veto.code))?;
        }
        Ok(())
    }

    /// The host's veto is also about what systemd does with other units because of this one; and nobody can start the agent
    /// again once it is stopped.
    async fn with_others(&self, systemd: &Systemd, verb: Verb, unit: &Unit) -> Result<(), String> {
        let look = async |name: &str| {
            let name: UnitName = name.parse().map_err(|why| format!("{name} cannot be read: {why}"))?;
            systemd.unit(&name).await.map_err(|no| no.to_string())
        };
        let others = along::of(verb, unit, look).await?;
        let own = [AGENT, &*self.order.agent];
        let is_own =
            |unit: &Unit| unit.names.iter().chain([&unit.id]).any(|name| own.contains(&name.as_str()));
        let stops = |(way, other): &(Way, Unit)| *way == Way::Stops && is_own(other);
        // A restart of the agent's own unit leaves its steps alone; one of something else may leave the agent down.
        if verb == Verb::Stop && is_own(unit) || others.iter().any(stops) {
            return Err(format!("to {verb} {} stops the agent itself, and no step does that", unit.id));
        }
        for (way, other) in &others {
            self.vetoed(other).map_err(|why| format!("to {verb} {} also {way} {why}", unit.id))?;
            println!("with it, systemd {way} {}", other.id);
        }
        Ok(())
    }

    fn unknown(&self, why: &str) -> String {
        format!("how {} was before the step is not known on this host: {why}", self.name)
    }

    /// How the unit was, if an earlier attempt or the step to be undone has kept it: what the first of them found.
    fn kept(&self) -> Result<Option<Before>, String> {
        let places = self.tried.iter().filter_map(|key| self.place.before(key));
        let mut kept = places.filter_map(|path| Before::read(&path).transpose());
        kept.next().transpose().map_err(|error| self.unknown(&error.to_string()))
    }

    /// What puts the unit back; nothing if it is as it was.
    fn backwards(&self, before: Option<&Before>, runs: bool) -> Result<Option<Verb>, String> {
        let unknown = |why: &str| self.unknown(why);
        let before = before.ok_or_else(|| unknown("nothing was kept"))?;
        if before.unit != *self.name {
            return Err(unknown(&format!("what was kept is of {}", before.unit)));
        }
        println!("before the step it was {}", before.state);
        Ok(match (before.runs, runs) {
            (true, true) | (false, false) => {
                println!("so there is nothing to put back");
                None
            }
            (true, false) => Some(Verb::Start),
            (false, true) => Some(Verb::Stop),
        })
    }

    /// Has systemd do it, waits, and looks.
    async fn carry_out(&self, systemd: Systemd, verb: Verb, before: &Unit) -> Result<(), String> {
        let refused = |no: No| verdict::refused(verb, self.name.as_str(), &no);
        let ends = systemd.listen().await.map_err(refused)?;
        match systemd.hold(self.name).await {
            // It may be let do this and not that: see what it says to the order itself.
            Ok(()) | Err(No::NotAllowed(_)) => {}
            Err(no) => return Err(refused(no)),
        }
        let (method, mode) = match verb {
            Verb::Start => ("StartUnit", "fail"),
            Verb::Stop => ("StopUnit", "replace"),
            Verb::Restart => ("RestartUnit", "fail"),
            Verb::Reload => ("ReloadUnit", "fail"),
        };
        // systemd makes one of an order and a job like it that waits already.
        let theirs = systemd.unit(self.name).await.map_err(refused)?.job;
        let began = Instant::now();
        self.asked.set(true);
        let job = systemd.order(method, self.name, mode).await.map_err(refused)?;
        self.others.set(theirs == Some(job));
        self.ordered.set(Some(job));
        println!("{verb}: {job}");
        let (result, systemd) = end_of(job, ends, systemd).await;
        self.ordered.set(None);
        self.asked.set(false);
        let took = began.elapsed().as_millis();
        match &result {
            Some(result) => println!("{job}: {result} after {took} ms"),
            None => {
                println!("{job} ended while there was no connection to systemd; its result was not heard")
            }
        }
        let look = async || systemd.unit(self.name).await.map_err(|no| format!("after {verb}, {no}"));
        let mut unit = look().await?;
        let starts_blindly = matches!(&*unit.service_type, "simple" | "exec" | "idle");
        if verdict::ended(verb, result.as_deref(), before, &unit).is_ok()
            && verb != Verb::Stop
            && starts_blindly
        {
            tokio::time::sleep(SETTLE).await;
            unit = look().await?;
        }
        println!("{} is {}", unit.id, told(&unit));
        if result.as_deref() == Some("failed") && unit.invocation == before.invocation {
            verdict::not_begun(verb, &mut unit);
        }
        verdict::ended(verb, result.as_deref(), before, &unit)
    }

    /// Takes the job back, if there is one that has not begun.
    async fn withdraw(&self) {
        let Some(job) = self.ordered.get() else {
            if self.asked.get() {
                eprintln!(
                    "systemd was just being asked; see `systemctl list-jobs` for what it does with {}",
                    self.name
                );
            }
            return;
        };
        let look = async {
            let systemd = connect().await?;
            let state = systemd.job(job).await?;
            if state.as_deref() == Some("waiting") && !self.others.get() {
                systemd.withdraw(job).await?;
            }
            Ok::<_, No>(state)
        };
        match look.await.as_ref().map(Option::as_deref) {
            Ok(Some("waiting")) if self.others.get() => {
                eprintln!("the {job} of {} was ordered by somebody else before, and goes on", self.name);
            }
            Ok(Some("waiting")) => eprintln!("systemd had not begun the {job}, which was taken back"),
            Ok(Some(_)) => eprintln!(
                "systemd goes on with the {job} of {}: ending it midway would leave the unit half done; see `systemctl list-jobs`",
                self.name
            ),
            Ok(None) => eprintln!("the {job} of {} had just ended", self.name),
            Err(no) => eprintln!("what became of the {job} of {} is not known: {no}", self.name),
        }
    }
}

/// A unit, once it is not just going down, and whether it runs or is about to: one that crashes again and again goes down between
/// two starts, and one that an administrator restarts has a job for that.
async fn settled(systemd: &Systemd, name: &UnitName) -> Result<(Unit, bool), No> {
    let began = Instant::now();
    let mut unit = systemd.unit(name).await?;
    while unit.active_state == "deactivating" && began.elapsed() < GOING_DOWN {
        tokio::time::sleep(LOOK / 4).await;
        unit = systemd.unit(name).await?;
    }
    let job = match unit.job {
        Some(job) => systemd.job_type(job).await?,
        None => None,
    };
    let comes = matches!(job.as_deref(), Some("start" | "restart"));
    let runs = unit.runs() || comes;
    Ok((unit, runs))
}

async fn connect() -> Result<Systemd, No> {
    Systemd::connect(Path::new(systemd::SOCKET)).await
}

/// Waits for the end of a job, if need be over another connection: the bus may be what is restarted. None: nobody heard
/// how it ended.
async fn end_of(job: JobId, mut ends: Ends, mut systemd: Systemd) -> (Option<String>, Systemd) {
    loop {
        match ends.of(job).await {
            Ok(result) => return (Some(result), systemd),
            Err(no) => println!("{no}; looking again"),
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let Ok(again) = connect().await else { continue };
            let Ok(heard) = again.listen().await else { continue };
            match again.job(job).await {
                Ok(Some(_)) => {
                    (ends, systemd) = (heard, again);
                    break;
                }
                Ok(None) => return (None, again),
                Err(_) => {}
            }
        }
    }
}

/// A unit's state, for people.
fn told(unit: &Unit) -> String {
    if unit.load_state != "loaded" {
        return unit.load_state.clone();
    }
    match unit.main_pid {
        Some(pid) => format!("{}, main process {pid}", unit.state()),
        None => unit.state(),
    }
}

/// The last lines of a unit, as evidence: on the step's output, if they can be read in time.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the process of a step; what it starts is in the step's group"
)]
async fn print_journal(unit: &str) {
    let started = std::process::Command::new("journalctl")
        .args(["--no-pager", "--quiet", LINES, "--output=short-iso", "--unit", unit])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut said = Vec::new();
    if let Ok(mut child) = started {
        let (tell, told) = tokio::sync::oneshot::channel();
        let out = child.stdout.take();
        let reader = std::thread::Builder::new().spawn(move || {
            let mut bytes = Vec::new();
            let _ = out.map(|out| out.take(MOST_JOURNAL).read_to_end(&mut bytes));
            let _ = tell.send(bytes);
        });
        if reader.is_ok() {
            said = tokio::time::timeout(JOURNAL, told).await.ok().and_then(Result::ok).unwrap_or_default();
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    if said.is_empty() {
        println!("nothing of its journal can be read by this agent's user");
    } else {
        println!("the last lines of its journal:\n{}", String::from_utf8_lossy(&said).trim_end());
    }
}
