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

mod before; // how the unit was
mod verdict; // what systemd's words mean

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fettle_runbooks::unit::{UnitName, Verb};
use tokio::signal::unix::{SignalKind, signal};

use self::before::Before;
use super::attempt::{Deed, Work};
use super::place::{Order, Place};
use super::policy::{Asked, HostPolicy};
use super::systemd::{self, Ends, JobId, No, Systemd, Unit};

/// What systemd calls started may not even have become its program yet. After this long it is looked at again.
const SETTLE: Duration = Duration::from_millis(300);

/// How long to wait for a bus that went away to come back before looking again.
const LOOK: Duration = Duration::from_millis(200);

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
    let Work::Service { deed, unit } = &order.spec.work else {
        return Err("this step does nothing with a unit".to_owned());
    };
    let before = place.before(&order.spec.key).ok_or("this step has no place to keep how its unit was")?;
    let step = Step {
        deed: *deed,
        name: unit,
        before,
        order: &order,
        asked: Cell::new(false),
        ordered: Cell::new(None),
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
    /// Where it is kept how the unit was.
    before: PathBuf,
    order: &'a Order,
    /// systemd was asked, and the end of its job has not come.
    asked: Cell<bool>,
    /// That job, once systemd has named it.
    ordered: Cell<Option<JobId>>,
}

impl Step<'_> {
    async fn take(&self) -> Result<(), String> {
        let systemd = connect().await.map_err(|no| no.to_string())?;
        let unit = systemd.unit(self.name).await.map_err(|no| no.to_string())?;
        println!("{} is {}", unit.id, told(&unit));
        self.allowed(&unit)?;
        let verb = match self.deed {
            Deed::Start => Verb::Start,
            Deed::Stop => Verb::Stop,
            Deed::Restart => Verb::Restart,
            Deed::Reload => Verb::Reload,
            Deed::PutBack => match self.backwards(&unit)? {
                Some(verb) => verb,
                None => return Ok(()),
            },
        };
        verdict::possible(verb, &unit)?;
        if self.deed != Deed::PutBack {
            let kept = Before::of(self.name, &unit).keep(&self.before);
            let kept = kept.map_err(|error| {
                format!("failed to keep how {} was, so nothing was done: {error}", unit.id)
            })?;
            if kept.runs != unit.runs() {
                println!("before the first attempt of this step it was {}", kept.state);
            }
        }
        let ended = self.carry_out(systemd, verb, &unit).await;
        if ended.is_err() {
            print_journal(self.name);
        }
        ended
    }

    /// An alias is no way around what this host, or the language, refuses.
    fn allowed(&self, unit: &Unit) -> Result<(), String> {
        let by = &self.order.start_by;
        let policy = HostPolicy::read(&self.order.policy);
        for name in unit.names.iter().chain([&unit.id]) {
            let asked = Asked { runbook: &by.runbook, risk: by.risk, program: "", unit: name };
            policy.allows(asked).map_err(|veto| format!("{name}: {} ({})", veto.message, veto.code))?;
            let known: UnitName = name.parse().map_err(|why| format!("{name} cannot be acted on: {why}"))?;
            known.acted_on().map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    /// What puts the unit back; nothing if it is as it was.
    fn backwards(&self, unit: &Unit) -> Result<Option<Verb>, String> {
        let unknown =
            |why: &str| format!("how {} was before the step is not known on this host: {why}", unit.id);
        let before = Before::read(&self.before).map_err(|error| unknown(&error.to_string()))?;
        let before = before.ok_or_else(|| unknown("nothing was kept"))?;
        if before.unit != *self.name {
            return Err(unknown(&format!("what was kept is of {}", before.unit)));
        }
        println!("before the step it was {}", before.state);
        Ok(match (before.runs, unit.runs()) {
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
        let began = Instant::now();
        self.asked.set(true);
        let job = systemd.order(method, self.name, mode).await.map_err(refused)?;
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
            if state.as_deref() == Some("waiting") {
                systemd.withdraw(job).await?;
            }
            Ok::<_, No>(state)
        };
        match look.await.as_ref().map(Option::as_deref) {
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

/// The last lines of a unit, as evidence: on the step's output, if they can be read.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the process of a step; what it starts is in the step's group"
)]
fn print_journal(unit: &UnitName) {
    let read = std::process::Command::new("journalctl")
        .args(["--no-pager", "--quiet", LINES, "--output=short-iso", "--unit", unit.as_str()])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output();
    match read {
        Ok(read) if !read.stdout.is_empty() => {
            println!("the last lines of its journal:\n{}", String::from_utf8_lossy(&read.stdout).trim_end());
        }
        Ok(_) | Err(_) => println!("nothing of its journal can be read by this agent's user"),
    }
}
