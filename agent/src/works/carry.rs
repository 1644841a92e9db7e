//! A segment being carried out: what its machine asks for is done here, and what comes of it is told to the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fettle_proto::grant::effective_risk;
use fettle_proto::signed::plan as plan_format;
use fettle_proto::v1;
use fettle_runbooks::expr::{FactCall, Facts};
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::RunId;
use fettle_runbooks::plan::{self, Plan, PlannedStep, PlannedWork, Rendering};
use fettle_runbooks::runbook::{Phase, Risk, Runbook};
use fettle_runbooks::segment::{
    Command, Effect, Event, Exit, ExitBy, How, Kept, Kind, Note, Outcome, Past, Program, Spec, State,
    StepResult, Undoing, Verification,
};
use prost::Message as _;

use super::attempt::{self, BootLimit, Ended, GRACE, Happening, Observer, StartBy, Work};
use super::driver::{Deed, Driver, Launch, Wake};
use super::here::RunHere;
use super::orders::{self, OwnPlan};
use super::output::{self, Stream};
use super::record::{AttemptKey, Record};
use super::recovery::{Dead, Found};
use super::sandbox::{Allowed, Reading};
use super::shim;
use super::world::World;

/// A segment that is not over.
pub(super) struct Active {
    pub(super) segment: u32,
    pub(super) program: Arc<Program>,
    state: State,
    runbook: Arc<Runbook>,
    inputs: BTreeMap<String, String>,
    /// The boot it was accepted in.
    boot: String,
    /// People approved it; a reboot voids that.
    granted: bool,
    /// Reviewers vouch for the risks its runbook states, and for what its steps may read.
    certified: bool,
    /// Its first step must start by then, wall clock.
    begin_by_ms: i64,
    /// Its first step, when it remediates.
    from: Option<String>,
    /// The run that it goes on from, when it plans.
    of: Option<plan::Of>,
}

impl Active {
    pub(super) fn new(
        segment: u32,
        program: Program,
        runbook: Arc<Runbook>,
        inputs: BTreeMap<String, String>,
        boot: String,
        begin_by_ms: i64,
    ) -> Active {
        let program = Arc::new(program);
        let from = program.from().map(str::to_owned);
        Active {
            segment,
            program,
            state: State::ready(),
            runbook,
            inputs,
            boot,
            granted: false,
            certified: false,
            begin_by_ms,
            from,
            of: None,
        }
    }

    pub(super) fn granted(self, granted: bool) -> Active {
        Active { granted, ..self }
    }

    pub(super) fn certified(self, certified: bool) -> Active {
        Active { certified, ..self }
    }

    pub(super) fn follows(self, of: Option<plan::Of>) -> Active {
        Active { of, ..self }
    }

    /// People let it go on after a pause. What they approved before ends when they said; what needed nobody may begin as if it had
    /// come now.
    pub(super) fn resumed(&mut self, at_ms: Option<i64>) {
        if let Some(at_ms) = at_ms.filter(|_| !self.granted) {
            let hour = i64::try_from(BEGIN_WITHIN.as_millis()).unwrap_or(i64::MAX);
            self.begin_by_ms = self.begin_by_ms.max(at_ms.saturating_add(hour));
        }
    }

    pub(super) fn is_granted(&self) -> bool {
        self.granted
    }

    /// When an attempt that acts must have started. The first step must begin by the time people agreed to; each later one by
    /// when those before it may have taken all the time they have.
    pub(super) fn latest_start_ms(&self, key: &AttemptKey, plan: &Plan) -> i64 {
        let own_path = step_of(key, plan).map_or(own_path(key), |step| step.path.as_str());
        let allowance: Duration = plan.steps.iter().map(longest).sum();
        let allowance = if own_path == key.path { allowance } else { allowance.saturating_mul(2) };
        let first = self.from.as_deref() == Some(own_path);
        let slack = if first { 0 } else { i64::try_from(allowance.as_millis()).unwrap_or(i64::MAX) };
        self.begin_by_ms.saturating_add(slack)
    }
}

/// What needed nobody's approval may begin so long after people let it go on.
const BEGIN_WITHIN: Duration = Duration::from_secs(3600);

/// The step of a plan that an attempt is of, or that it undoes. The steps of a plan that undoes stand in it themselves.
fn step_of<'a>(key: &AttemptKey, plan: &'a Plan) -> Option<&'a PlannedStep> {
    let of = |path: &str| plan.steps.iter().find(|step| step.path == path);
    of(&key.path).or_else(|| of(own_path(key)))
}

/// The path of the step that an attempt is of, or that it undoes.
fn own_path(key: &AttemptKey) -> &str {
    key.path.strip_suffix("/undo").unwrap_or(&key.path)
}

/// Everything one event leads to, before any of it is done.
#[derive(Default)]
struct Bundle {
    records: Vec<Record>,
    deeds: Vec<Deed>,
    over: bool,
}

impl Driver {
    /// Tells a segment what happened, and does what it asks for. `records` belong to the event and go before its own.
    pub(super) fn drive(&mut self, run: RunId, segment: u32, event: Event, records: Vec<Record>) {
        let now = self.world.monotonic();
        let next = self
            .runs
            .get_mut(&run)
            .and_then(|here| here.active.as_mut())
            .filter(|active| active.segment == segment)
            .map(|active| {
                let next = active.state.next(&active.program, now, event);
                next.map(|(state, effects)| {
                    active.state = state;
                    effects
                })
            });
        let mut bundle = Bundle { records, ..Bundle::default() };
        match next {
            // It is over; a late fact or timer is history, a late result is still worth keeping.
            None => {}
            Some(Err(illegal)) => {
                tracing::error!(%run, segment, %illegal, "An event made no sense and is ignored.")
            }
            Some(Ok(effects)) => {
                for effect in effects {
                    self.effect(run, segment, effect, &mut bundle);
                }
            }
        }
        let over = bundle.over;
        self.commit_of(run, bundle.records, bundle.deeds);
        if over && let Some(here) = self.runs.get_mut(&run) {
            here.active = None;
            here.shrink();
            self.timers.retain(|_, (of, at, _)| (*of, *at) != (run, segment));
        }
    }

    fn effect(&mut self, run: RunId, segment: u32, effect: Effect, bundle: &mut Bundle) {
        match effect {
            Effect::ReadFacts { ask, calls } => self.read_facts(run, segment, ask, calls),
            Effect::Start { path, attempt, spec, kind } => {
                self.start(run, segment, path, attempt, spec, kind, bundle)
            }
            Effect::SetTimer { timer, after } => {
                self.timer_number += 1;
                self.timers
                    .insert((self.world.monotonic() + after, self.timer_number), (run, segment, timer));
            }
            Effect::Hold { path, attempt, timer } => {
                self.hold(&AttemptKey { run, path, attempt }, segment, timer)
            }
            Effect::Kill { path, attempt } => self.kill(AttemptKey { run, path, attempt }, segment),
            Effect::Report(note) => self.note(run, segment, note, bundle),
            Effect::Diagnosed(rendering) => self.planned(run, segment, *rendering, bundle),
            Effect::Ended { outcome, interrupted } => {
                self.segment_over(run, segment, &outcome, interrupted, bundle)
            }
        }
    }

    // --- facts ---

    fn read_facts(&mut self, run: RunId, segment: u32, ask: u32, calls: Vec<FactCall>) {
        let inbox = self.inbox.clone();
        if calls.is_empty() {
            let _ = inbox.send(Wake::Facts { run, segment, ask, facts: Facts::new() });
            return;
        }
        let answer = move |facts| drop(inbox.send(Wake::Facts { run, segment, ask, facts }));
        self.hands.facts(calls, Arc::new(answer));
    }

    // --- attempts ---

    #[expect(clippy::too_many_arguments, reason = "the fields of one effect, and where they lead")]
    fn start(
        &mut self,
        run: RunId,
        segment: u32,
        path: String,
        attempt: u32,
        spec: Spec,
        kind: Kind,
        bundle: &mut Bundle,
    ) {
        let key = AttemptKey { run, path, attempt };
        let start_by = match self.may_start(&key, kind) {
            Ok(start_by) => start_by,
            Err(reason) => {
                let AttemptKey { path, attempt, .. } = key;
                self.tell(run, segment, Event::Barred { path, attempt, reason });
                return;
            }
        };
        let active = self.runs.get(&key.run).and_then(|here| here.active.as_ref());
        let certified = active.is_some_and(|active| active.certified);
        let tried_in = match &spec.command {
            Command::Service { unit, .. } => {
                let tried = self.tried_in(spec.done_in.unwrap_or(run), own_path(&key), unit);
                if tried == [run] { Vec::new() } else { tried }
            }
            Command::Script { .. } | Command::Argv(_) => Vec::new(),
        };
        let spec = host_spec(key.clone(), spec, certified, tried_in);
        let launch = Launch { segment, spec, kind, start_by };
        match kind {
            Kind::Read => self.launch(launch),
            Kind::Act => {
                if let Some(here) = self.runs.get_mut(&run) {
                    here.attempts.insert((key.path.clone(), key.attempt), None);
                }
                bundle.records.push(Record::Intent { key, segment });
                bundle.deeds.push(Deed::Start(Box::new(launch)));
            }
        }
    }

    /// What must still hold when the process starts. A step that only reads may run wherever it can do nothing else.
    fn may_start(&self, key: &AttemptKey, kind: Kind) -> Result<StartBy, String> {
        let here = self.runs.get(&key.run);
        let active = here.and_then(|here| here.active.as_ref());
        let (Some(here), Some(active)) = (here, active) else { return Err("its segment is over".to_owned()) };
        let mut start_by = StartBy {
            not_after_ms: i64::MAX,
            boot: None,
            runbook: active.runbook.name().to_owned(),
            risk: Risk::Read,
        };
        if kind == Kind::Read {
            let sure = self.hands.sure_of_reading();
            self.hands
                .policy()
                .allows_reading(sure)
                .map_err(|veto| format!("{} ({})", veto.message, veto.code))?;
        }
        let Some(plan) = here.plan.as_ref().filter(|_| kind == Kind::Act) else { return Ok(start_by) };
        if active.granted && active.boot != self.boot {
            return Err("the host was rebooted after people approved".to_owned());
        }
        let planned = step_of(key, &plan.plan);
        if let Some(step) = planned {
            orders::allowed(&self.hands.policy(), &plan.plan, step, active.certified)
                .map_err(|refusal| refusal.to_string())?;
        }
        let limit = active.latest_start_ms(key, &plan.plan);
        let left = limit.saturating_sub(self.now_ms());
        if left < 0 {
            return Err("the time to start it has passed".to_owned());
        }
        start_by.risk = planned.map_or(Risk::Critical, |step| effective_risk(step, active.certified));
        start_by.not_after_ms = limit;
        start_by.boot = Some(BootLimit {
            boot: self.boot.clone(),
            not_after_ms: u64::try_from(self.world.since_boot().as_millis())
                .unwrap_or(u64::MAX)
                .saturating_add(u64::try_from(left).unwrap_or(0)),
        });
        Ok(start_by)
    }

    /// Starts a process; whatever comes of it comes back through the inbox.
    pub(super) fn launch(&mut self, launch: Launch) {
        if launch.kind == Kind::Act {
            self.launched.insert(launch.spec.key.clone(), launch.clone());
        }
        self.start_process(launch);
    }

    pub(super) fn start_process(&mut self, launch: Launch) {
        let Launch { segment, spec, kind, start_by } = launch;
        let key = spec.key.clone();
        if kind == Kind::Act && self.runs.get(&key.run).is_some_and(|here| here.tombstone) {
            let AttemptKey { run, path, attempt } = key;
            return self.tell(
                run,
                segment,
                Event::Barred { path, attempt, reason: "the run was cancelled".to_owned() },
            );
        }
        match self.hands.start(&spec, kind, &start_by, self.observer(&key)) {
            Ok(running) => {
                self.running.insert(key, (segment, running));
            }
            Err(attempt::StartError::StartedBefore(_)) => self.started_before(key, segment),
            Err(error) => {
                let message = chain(&error);
                let ended = shim::not_started("spawn-failed", message);
                self.running_in(&key, segment);
                let _ = self.inbox.send(Wake::Ended(key, Box::new(ended)));
            }
        }
    }

    /// The journal has lost what the attempt's own directory remembers: it did start, and is not started again.
    fn started_before(&mut self, key: AttemptKey, segment: u32) {
        let unknown = |why: String| Wake::Unknown(key.clone(), why);
        let wake = match self.hands.look(&key) {
            Ok(Found::Exit(ended)) => Wake::Ended(key.clone(), ended),
            Ok(Found::Running) => match self.hands.reattach(&key, self.observer(&key)) {
                Ok(running) => {
                    self.running.insert(key, (segment, running));
                    return;
                }
                Err(error) => unknown(format!("it runs, but cannot be followed: {error}")),
            },
            Ok(Found::Unknown(found)) => unknown(found.reason),
            Ok(Found::NotStarted) => unknown("it was started before, and left no trace".to_owned()),
            Err(error) => unknown(format!("it was started before; what it left cannot be read: {error}")),
        };
        self.running_in(&key, segment);
        let _ = self.inbox.send(wake);
    }

    /// Remembers which segment an attempt without a process belongs to: its end is told to that segment.
    fn running_in(&mut self, key: &AttemptKey, segment: u32) {
        self.running.insert(key.clone(), (segment, attempt::Running::new(key.clone(), Arc::new(NoProcess))));
    }

    /// Told what happens to an attempt, on its own thread.
    pub(super) fn observer(&self, key: &AttemptKey) -> Observer {
        let inbox = self.inbox.clone();
        let output = self.output.clone();
        let key = key.clone();
        Box::new(move |happening| match happening {
            Happening::Output { stream, offset, bytes } => {
                let kind = match stream {
                    Stream::Stdout => v1::OutputKind::Stdout,
                    Stream::Stderr => v1::OutputKind::Stderr,
                };
                // Best effort: what finds no place is still in the result.
                let _ = output.try_send(v1::OutputChunk {
                    run: key.run.to_string(),
                    path: key.path.clone(),
                    attempt: key.attempt,
                    kind: kind.into(),
                    offset,
                    data: bytes.to_vec().into(),
                });
            }
            Happening::Ended(ended) => drop(inbox.send(Wake::Ended(key.clone(), Box::new(ended)))),
            Happening::NeverBorn => drop(inbox.send(Wake::NeverBorn(key.clone()))),
            Happening::Unknown(reason) => drop(inbox.send(Wake::Unknown(key.clone(), reason))),
        })
    }

    /// Its supervisor died before it started anything. Once, that is bad luck, and the attempt begins as it would after a
    /// restart; twice, it is its end.
    pub(super) fn never_born(&mut self, key: AttemptKey) {
        match self.launched.remove(&key) {
            Some(launch) if self.runs.get(&key.run).is_some_and(RunHere::is_paused) => {
                self.running.remove(&key);
                self.unborn.push(launch);
            }
            Some(launch) => {
                tracing::warn!(%key, "The supervisor of a step died before it started anything; starting it again.");
                self.running.remove(&key);
                self.start_process(launch);
            }
            None => {
                let why = "the supervisor of the step ended before it started anything";
                self.attempt_ended(key, shim::not_started("spawn-failed", why.to_owned()));
            }
        }
    }

    pub(super) fn attempt_ended(&mut self, key: AttemptKey, ended: Ended) {
        self.launched.remove(&key);
        let Some((segment, _)) = self.running.remove(&key) else { return };
        let mut records = Vec::new();
        if acts(&key) {
            if let Some(here) = self.runs.get_mut(&key.run) {
                here.attempts.insert((key.path.clone(), key.attempt), Some(ended.clone()));
            }
            records.push(Record::Exited { key: key.clone(), result: ended.clone() });
        }
        let AttemptKey { run, path, attempt } = key;
        let event = match barred(&ended) {
            Some(reason) => Event::Barred { path, attempt, reason },
            None => Event::Exited { path, attempt, exit: exit(&ended) },
        };
        self.drive(run, segment, event, records);
    }

    pub(super) fn attempt_unknown(&mut self, key: AttemptKey, reason: String) {
        self.launched.remove(&key);
        let Some((segment, _)) = self.running.remove(&key) else { return };
        let dead = self.hands.bury(&key).unwrap_or(false);
        let AttemptKey { run, path, attempt } = key;
        self.drive(run, segment, Event::Unknown { path, attempt, reason, dead }, Vec::new());
    }

    /// After a restart: nobody saw the end of an attempt.
    pub(super) fn was_unknown(&mut self, key: &AttemptKey, segment: u32, reason: String, dead: Dead) {
        let dead = match dead {
            Dead::Certainly => true,
            Dead::StillRunning => self.hands.bury(key).unwrap_or(false),
            Dead::NotKnown => false,
        };
        let AttemptKey { run, path, attempt } = key.clone();
        self.tell(run, segment, Event::Unknown { path, attempt, reason, dead });
    }

    pub(super) fn kill(&mut self, key: AttemptKey, segment: u32) {
        match self.running.get(&key) {
            Some((_, running)) => {
                if let Err(error) = running.kill() {
                    tracing::error!(%key, %error, "A step could not be told to stop.");
                }
            }
            // Its intent is not durable yet: the launch will find the tombstone, or there never was a process.
            None => {
                let AttemptKey { run, path, attempt } = key;
                tracing::debug!(%run, segment, path, attempt, "A step is to stop that has no process yet.");
            }
        }
    }

    /// Tells a segment something, after what is being done now.
    pub(super) fn tell(&self, run: RunId, segment: u32, event: Event) {
        let _ = self.inbox.send(Wake::Event { run, segment, event: Box::new(event) });
    }

    /// What is known of a run's attempts. One that was intended and never started is not among them: it starts anew.
    pub(super) fn past(&self, run: RunId) -> Vec<Past> {
        let attempts = self.runs.get(&run).map(|here| &here.attempts);
        let known = attempts.into_iter().flatten();
        known
            .map(|((path, attempt), ended)| Past {
                path: path.clone(),
                attempt: *attempt,
                exit: ended.as_ref().map(exit),
            })
            .collect()
    }

    // --- reports ---

    fn note(&mut self, run: RunId, segment: u32, note: Note, bundle: &mut Bundle) {
        let what = match note {
            Note::Started { path, attempt } => {
                v1::report::What::StepStarted(v1::StepStarted { path, attempt })
            }
            Note::Skipped { path, reason } => v1::report::What::StepSkipped(v1::StepSkipped { path, reason }),
            Note::Ended { path, attempt, result, message, exit, outputs } => {
                self.keep_decided(run, &path, attempt, result, &message, bundle);
                if self.reported.contains(&(run, path.clone(), attempt)) {
                    return;
                }
                let kept = |kept: &Kept| v1::Kept {
                    head: kept.head.clone().into(),
                    tail: kept.tail.clone().into(),
                    dropped: kept.dropped,
                };
                v1::report::What::StepEnded(v1::StepEnded {
                    path,
                    attempt,
                    outcome: result.word().to_owned(),
                    message,
                    exit_code: exit.as_ref().and_then(|exit| exit.code),
                    signal: exit.as_ref().and_then(|exit| exit.signal),
                    stdout: exit.as_ref().map(|exit| kept(&exit.stdout)),
                    stderr: exit.as_ref().map(|exit| kept(&exit.stderr)),
                    outputs: outputs.into_iter().collect(),
                    took_ms: exit
                        .as_ref()
                        .map_or(0, |exit| u64::try_from(exit.took.as_millis()).unwrap_or(u64::MAX)),
                })
            }
        };
        let at_ms = self.now_ms();
        let report = self.report(run, segment, at_ms, what);
        bundle.records.push(report);
    }

    /// A `check` has decided what became of an attempt that nobody saw the end of: kept, so that it is not asked again. What its
    /// outputs would have been nobody knows; a step that has some stays unknown.
    fn keep_decided(
        &mut self,
        run: RunId,
        path: &str,
        attempt: u32,
        result: StepResult,
        message: &str,
        bundle: &mut Bundle,
    ) {
        let Some(here) = self.runs.get_mut(&run).filter(|_| result == StepResult::Succeeded) else { return };
        let leaves = |step: &PlannedStep| step.path == path && !step.outputs.is_empty();
        let leaves = here.plan.as_ref().is_some_and(|own| own.plan.steps.iter().any(leaves));
        let Some(ended @ None) = here.attempts.get_mut(&(path.to_owned(), attempt)).filter(|_| !leaves)
        else {
            return;
        };
        let (stdout, stderr) = Default::default();
        let (outcome, exit_code, signal) = (attempt::Outcome::Exited, Some(0), None);
        let (took, hint) = (Duration::ZERO, message.to_owned());
        let result = Ended { outcome, exit_code, signal, stdout, stderr, took, hint };
        *ended = Some(result.clone());
        let key = AttemptKey { run, path: path.to_owned(), attempt };
        bundle.records.push(Record::Exited { key, result });
    }

    fn planned(&mut self, run: RunId, segment: u32, mut rendering: Rendering, bundle: &mut Bundle) {
        let impossible = rendering.impossible().into_iter().collect();
        let Some(active) = self.runs.get(&run).and_then(|here| here.active.as_ref()) else { return };
        let mut of = active.of.clone();
        if let Some(of) = of.as_mut().filter(|of| of.how == FollowUp::Retry) {
            of.says.extend(self.resume_marks(run, &active.program, &mut rendering));
        }
        let mut bytes = Vec::new();
        if !active.runbook.steps(Phase::Remediate).is_empty() {
            let plan = Plan {
                agent: self.config.host.clone(),
                run,
                nonce: nonce(&*self.world),
                boot: self.boot.clone(),
                runbook: active.runbook.name().to_owned(),
                runbook_digest: active.runbook.digest(),
                inputs: active.inputs.clone(),
                evidence: rendering.evidence,
                steps: rendering.steps,
                verify: rendering.verify,
                of,
            };
            bytes = plan_format::encode(&plan);
            let (nonce, boot) = (plan.nonce.clone(), plan.boot.clone());
            bundle.records.push(Record::Planned { run, nonce, boot, plan: bytes.clone() });
            if let Some(here) = self.runs.get_mut(&run) {
                here.plan = Some(OwnPlan {
                    bytes: bytes.clone(),
                    plan: Arc::new(plan),
                    consumed: Default::default(),
                });
            }
        }
        let at_ms = self.now_ms();
        let planned = v1::Planned { plan: bytes.into(), impossible };
        let report = self.report(run, segment, at_ms, v1::report::What::Planned(planned));
        bundle.records.push(report);
    }

    fn segment_over(
        &mut self,
        run: RunId,
        segment: u32,
        outcome: &Outcome,
        interrupted: Option<String>,
        bundle: &mut Bundle,
    ) {
        tracing::info!(%run, segment, how = ?outcome.how, "Segment ended.");
        let at_ms = self.now_ms();
        bundle.records.extend(self.ends(run, segment, at_ms, outcome));
        // What runs besides, without anybody who follows it, is ended before it is said that nothing runs.
        let still = self.runs.get(&run).is_some_and(|here| here.tombstone);
        if still && interrupted.is_none() && !matches!(self.hands.stop_all(run), Ok(true)) {
            self.owe_cancel(run, "the run was cancelled".to_owned());
        } else if still {
            let interrupted = interrupted.unwrap_or_default();
            let confirmed = v1::report::What::Cancelled(v1::Cancelled { interrupted });
            let report = self.report(run, segment, at_ms, confirmed);
            bundle.records.push(report);
        }
        bundle.over = true;
    }

    /// A segment is over: told now, and kept for a controller that will have forgotten it.
    pub(super) fn ends(&mut self, run: RunId, segment: u32, at_ms: i64, outcome: &Outcome) -> [Record; 3] {
        let what = v1::report::What::SegmentEnded(ended_message(outcome));
        let for_later = v1::Report { seq: 0, run: run.to_string(), segment, at_ms, what: Some(what.clone()) };
        let event = for_later.encode_to_vec();
        if let Some(known) = self.runs.get_mut(&run).and_then(|here| here.segments.get_mut(&segment)) {
            known.ended = Some(event.clone());
            known.is_over = true;
        }
        let report = self.report(run, segment, at_ms, what);
        [report, Record::Event { run, segment, event }, Record::Ended { run, segment }]
    }
}

/// Stands for a process that was never born.
#[derive(Debug)]
struct NoProcess;

impl attempt::Stop for NoProcess {
    fn stop(&self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn acts(key: &AttemptKey) -> bool {
    key.path.starts_with("remediate/")
}

fn nonce(world: &dyn World) -> String {
    let mut bytes = [0; 32];
    // A nonce that is not random would still be of this plan alone: run, host and boot stand beside it.
    if let Err(error) = world.random(&mut bytes) {
        tracing::error!(%error, "The kernel gave no random bytes.");
    }
    fettle_proto::signed::words::hex(&bytes)
}

fn host_spec(key: AttemptKey, spec: Spec, certified: bool, tried_in: Vec<RunId>) -> attempt::Spec {
    attempt::Spec {
        key,
        work: match spec.command {
            Command::Script { source, interpreter } => Work::Script { source, interpreter },
            Command::Argv(words) => Work::Argv(words),
            Command::Service { deed, unit } => Work::Service { deed: deed.into(), unit, tried_in },
        },
        env: spec.env,
        cwd: Some(spec.cwd),
        user: Some(spec.user).filter(|user| !user.is_empty()),
        allowed: Allowed {
            connect: spec.sandbox.connect,
            read: match (spec.sandbox.read_all, certified) {
                (false, _) => Reading::Ordinary,
                (true, true) => Reading::All,
                (true, false) => Reading::NotCertified,
            },
        },
        timeout: spec.timeout,
        grace: GRACE,
    }
}

/// All the time a step may take, retries included.
fn longest(step: &PlannedStep) -> Duration {
    let once = match &step.work {
        PlannedWork::Script { .. }
        | PlannedWork::Argv(_)
        | PlannedWork::Service { .. }
        | PlannedWork::PutBack { .. } => step.timeout.saturating_add(GRACE),
        PlannedWork::That { within, stable_for, .. } => {
            within.saturating_add(*stable_for).saturating_add(GRACE)
        }
        PlannedWork::Wait(time) => *time,
        PlannedWork::Impossible(_) => Duration::ZERO,
    };
    let retried = once.saturating_add(step.retry.longest).saturating_mul(step.retry.times);
    once.saturating_add(retried).saturating_add(Duration::from_secs(10))
}

/// A start that the host forbade, after all.
fn barred(ended: &Ended) -> Option<String> {
    match &ended.outcome {
        attempt::Outcome::NotStarted { code, message } if code != "spawn-failed" => {
            Some(format!("{message} ({code})"))
        }
        attempt::Outcome::NotStarted { .. }
        | attempt::Outcome::Exited
        | attempt::Outcome::TimedOut
        | attempt::Outcome::Killed => None,
    }
}

pub(super) fn exit(ended: &Ended) -> Exit {
    let kept = |kept: &output::Kept| Kept {
        head: kept.head.clone(),
        tail: kept.tail.clone(),
        dropped: kept.dropped,
    };
    Exit {
        by: match &ended.outcome {
            attempt::Outcome::Exited => ExitBy::Itself,
            attempt::Outcome::TimedOut => ExitBy::Timeout,
            attempt::Outcome::Killed => ExitBy::Kill,
            attempt::Outcome::NotStarted { message, .. } => ExitBy::NotStarted(message.clone()),
        },
        code: ended.exit_code,
        signal: ended.signal,
        stdout: kept(&ended.stdout),
        stderr: kept(&ended.stderr),
        took: ended.took,
        hint: ended.hint.clone(),
    }
}

/// The outcome of a segment as it travels.
pub(super) fn ended_message(outcome: &Outcome) -> v1::SegmentEnded {
    use v1::segment_ended::How as Wire;
    let how = match &outcome.how {
        How::Done => Wire::Done(v1::SegmentDone {}),
        How::Gate { path } => Wire::Gate(v1::GateReached { path: path.clone() }),
        How::Failed { path, reason } => {
            Wire::Failed(v1::SegmentFailed { path: path.clone(), reason: reason.clone() })
        }
        How::Unknown { path, attempt, reason } => Wire::Unknown(v1::SegmentUnknown {
            path: path.clone(),
            attempt: *attempt,
            reason: reason.clone(),
        }),
        How::Stopped { reason } => Wire::Stopped(v1::SegmentStopped { reason: reason.clone() }),
    };
    let verification = match outcome.verification {
        Verification::NotRun => v1::Verification::NotRun,
        Verification::Passed => v1::Verification::Passed,
        Verification::Failed => v1::Verification::Failed,
    };
    let undoing = match outcome.undoing {
        Undoing::None => v1::Undoing::None,
        Undoing::Done => v1::Undoing::Done,
        Undoing::Failed => v1::Undoing::Failed,
    };
    v1::SegmentEnded {
        how: Some(how),
        verification: verification.into(),
        effects: outcome.effects,
        undoing: undoing.into(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
