//! May this host do what the order asks?
//!
//! Everything a controller says is checked here against what the host itself has: its name, its roster, the plan it
//! journaled, its clocks, its veto. A controller that is wrong, stolen or replaced gets no further than this file. The
//! functions are pure: what they need of disk and clock is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fettle_proto::grant::{self, Grant, GrantInput, Permit};
use fettle_proto::signed::words::{from_ms, risk_of};
use fettle_proto::signed::{
    Certified, Roster, Signed, Start, Started, Tag, certified, digest, plan as plan_format,
};
use fettle_proto::{Code, Refusal, convert, v1};
use fettle_runbooks::expr::Scope;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, Host, RunId};
use fettle_runbooks::input::bind;
use fettle_runbooks::plan::{Plan, PlannedStep, PlannedWork, Rendering};
use fettle_runbooks::runbook::{Action, Input, Phase, Risk, Runbook, Step};
use fettle_runbooks::segment::{Past, Program};
use fettle_runbooks::value::Value;
use prost::Message as _;

use super::here::REMEMBER;
use super::policy::{Asked, HostPolicy};

/// What the host has of its own when an order comes.
pub(super) struct Own<'a> {
    pub(super) host: &'a Host,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) roster: Option<&'a Roster>,
    pub(super) policy: &'a HostPolicy,
    /// The kernel's boot id.
    pub(super) boot: &'a str,
    /// Milliseconds since the Unix epoch; never behind what the boot clock says.
    pub(super) now_ms: i64,
    /// The run's plan, if it has one here.
    pub(super) plan: Option<&'a OwnPlan>,
    /// The step at which the run stopped here, for people to approve or to look; absent: it has not remediated yet.
    pub(super) stopped_at: Option<String>,
    /// The attempt of that step whose outcome is unknown, if that is why.
    pub(super) unknown: Option<u32>,
    /// The run's remediation is over on this host.
    pub(super) remediated: bool,
    /// Who started the run, when this host accepted it; absent: this is the first order of the run.
    pub(super) started: Option<&'a Option<Started>>,
}

/// A plan this host made.
#[derive(Clone, Debug)]
pub(super) struct OwnPlan {
    pub(super) bytes: Vec<u8>,
    pub(super) plan: Arc<Plan>,
    /// What grants have used up: the plan's nonce, and those made of it for steps that ran again.
    pub(super) consumed: BTreeSet<String>,
}

/// An order that can be read and is for this host; nothing is decided yet.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) content: v1::OrderContent,
    pub(super) run: RunId,
    pub(super) digest: Digest,
}

/// An order that this host will carry out.
pub(super) struct Judged {
    pub(super) runbook: Arc<Runbook>,
    pub(super) inputs: BTreeMap<String, String>,
    pub(super) base: Scope,
    pub(super) started: Option<Started>,
    /// Reviewers vouch for the risks the runbook states, and for what its steps may read; see [`Parts::of`].
    pub(super) certified: bool,
    pub(super) work: Work,
}

/// What of it.
pub(super) enum Work {
    Diagnose,
    Remediate {
        plan: Arc<Plan>,
        from: String,
        /// Paths of steps that need people and have no permit.
        closed: BTreeSet<String>,
        permit: Option<Box<Permit>>,
        /// The attempt that may have run, where people agreed that its step runs again.
        again: Option<u32>,
    },
    Verify {
        plan: Arc<Plan>,
    },
}

/// Reads an order. Whatever its run is, if it can be told, is told with the refusal, so that it can be answered.
pub(super) fn read(content: &[u8], claimed: Digest) -> Result<Order, (Option<(RunId, u32)>, Refusal)> {
    let malformed = |what: String| Refusal::new(Code::OrderMalformed, what);
    let decoded = v1::OrderContent::decode(content)
        .map_err(|error| (None, malformed(format!("the order cannot be read: {error}"))))?;
    let run: RunId =
        decoded.run.parse().map_err(|error| (None, malformed(format!("the order's run: {error}"))))?;
    let digest = digest(Tag::Order, content);
    if digest != claimed {
        let what = format!("the order says its digest is {claimed}, and it is {digest}");
        return Err((Some((run, decoded.segment)), malformed(what)));
    }
    Ok(Order { content: decoded, run, digest })
}

/// What must hold of every order, before anything of it is looked at.
pub(super) fn for_us(order: &Order, own: &Own<'_>) -> Result<(), Refusal> {
    let content = &order.content;
    if content.host != own.host.as_str() {
        let host: String = content.host.chars().take(80).collect();
        return Err(Refusal::new(
            Code::OrderHost,
            format!("the order is for `{host}`, this is {}", own.host),
        ));
    }
    if own.now_ms > content.not_after_ms {
        return Err(Refusal::new(
            Code::OrderExpired,
            format!(
                "the order was good until {}, and it is {}",
                from_ms(content.not_after_ms),
                from_ms(own.now_ms)
            ),
        ));
    }
    Ok(())
}

/// Decides on an order that is for us.
pub(super) fn judge(order: &Order, own: &Own<'_>) -> Result<Judged, Refusal> {
    let mut read = Parts::of(order, own)?;
    read.started = started(order, own, read.runbook.digest())?;
    match order.content.work.as_ref() {
        None => Err(Refusal::new(Code::OrderMalformed, "the order asks for no work this agent knows")),
        Some(v1::order_content::Work::Diagnose(v1::Diagnose {})) => {
            diagnosed_once(own)?;
            vouched_for(order, own, &read)?;
            Ok(read.judged(Work::Diagnose))
        }
        Some(v1::order_content::Work::Remediate(work)) => remediate(order, own, read, work),
        Some(v1::order_content::Work::Verify(work)) => {
            let plan = same_plan(own, &work.plan_digest, &read)?;
            let plan = Arc::clone(&plan.plan);
            Ok(read.judged(Work::Verify { plan }))
        }
    }
}

/// The same order again, after a restart: it was accepted, and its grant checked, before. Whether its steps may still
/// start is asked again where they start.
pub(super) fn again(order: &Order, own: &Own<'_>, granted: bool) -> Result<Judged, Refusal> {
    let mut read = Parts::of(order, own)?;
    // A roster that has expired since does not undo that it was accepted.
    read.started = own.started.cloned().flatten();
    match order.content.work.as_ref() {
        None => Err(Refusal::new(Code::OrderMalformed, "the order asks for no work this agent knows")),
        Some(v1::order_content::Work::Diagnose(v1::Diagnose {})) => Ok(read.judged(Work::Diagnose)),
        Some(v1::order_content::Work::Remediate(work)) => {
            let plan = own_plan(own, &work.plan_digest, read.runbook.digest())?;
            let plan = Arc::clone(&plan.plan);
            let also_from = also_from(&work.gate_from_risk)?;
            let steps = grant::remaining(&plan, &work.from)?;
            let closed = if granted {
                BTreeSet::new()
            } else {
                closed(steps, read.certified.is_some(), own.roster, also_from)
            };
            let from = work.from.clone();
            let again = requested(order).and_then(|request| request.again).map(|again| again.attempt);
            Ok(read.judged(Work::Remediate { plan, from, closed, permit: None, again }))
        }
        Some(v1::order_content::Work::Verify(work)) => {
            let plan = own_plan(own, &work.plan_digest, read.runbook.digest())?;
            let plan = Arc::clone(&plan.plan);
            Ok(read.judged(Work::Verify { plan }))
        }
    }
}

/// What every kind of order has.
struct Parts {
    runbook: Arc<Runbook>,
    inputs: BTreeMap<String, String>,
    base: Scope,
    certified: Option<Certified>,
    started: Option<Started>,
}

impl Parts {
    fn of(order: &Order, own: &Own<'_>) -> Result<Parts, Refusal> {
        let content = &order.content;
        let read = fettle_runbooks::read(&content.runbook).map_err(|problems| {
            let first = problems.iter().find(|problem| problem.is_error()).or(problems.first());
            let what = first
                .map_or(String::new(), |problem| format!(": line {}: {}", problem.line, problem.message));
            Refusal::new(Code::RunbookInvalid, format!("the runbook has {} problems{what}", problems.len()))
        })?;
        let runbook = Arc::new(read.runbook);
        let given: BTreeMap<String, String> = content.inputs.clone().into_iter().collect();
        let values = bind(runbook.inputs(), &given).map_err(|problems| {
            let each: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Refusal::new(Code::InputsInvalid, each.join("; "))
        })?;
        // Diagnosis checks them only if it needs them: facts are read for anyone, and a signature takes time. Whoever wants
        // to read everything needs them; who vouches for programs that read is asked in `vouched_for`.
        let reads_all = || {
            let phases = [Phase::Diagnose, Phase::Verify];
            phases.iter().flat_map(|phase| runbook.steps(*phase)).any(|step| step.sandbox.read_all)
        };
        let matters = match &content.work {
            Some(v1::order_content::Work::Remediate(_)) => true,
            Some(v1::order_content::Work::Diagnose(_) | v1::order_content::Work::Verify(_)) => reads_all(),
            None => false,
        };
        let certified = if matters {
            certificate(&content.runbook, &convert::all_signed(content.certificates.clone())?, own)
        } else {
            None
        };
        Ok(Parts {
            certified,
            started: None,
            base: base(values, own),
            inputs: effective(runbook.inputs(), &given),
            runbook,
        })
    }

    fn judged(self, work: Work) -> Judged {
        let certified = self.certified.is_some();
        Judged {
            runbook: self.runbook,
            inputs: self.inputs,
            base: self.base,
            started: self.started,
            certified,
            work,
        }
    }
}

fn certificate(runbook: &[u8], certificates: &[Signed], own: &Own<'_>) -> Option<Certified> {
    match certified(runbook, certificates, own.roster?, from_ms(own.now_ms)) {
        Ok(certified) => Some(certified),
        Err(refusal) => {
            if !certificates.is_empty() {
                tracing::warn!(code = %refusal.code, message = %refusal.message, "Certificates do not count; the runbook is uncertified here.");
            }
            None
        }
    }
}

/// Who started the run: verified when its first order came, and the same ever after.
fn started(order: &Order, own: &Own<'_>, runbook: Digest) -> Result<Option<Started>, Refusal> {
    let inputs: BTreeMap<String, String> = order.content.inputs.clone().into_iter().collect();
    let presented = match &order.content.start {
        None => None,
        Some(message) => {
            let roster = own.roster.ok_or_else(no_roster)?;
            let signed = Signed::try_from(message.clone())?;
            // It was fresh when the run began; later orders of the run only repeat it.
            let started = Start::verify(&signed, roster, from_ms(own.now_ms))?;
            started.covers(order.run, runbook, &inputs, own.host)?;
            Some(started)
        }
    };
    // A start that is not mentioned again binds all the same.
    if let Some(Some(known)) = own.started {
        known.covers(order.run, runbook, &inputs, own.host)?;
    }
    match (own.started, presented) {
        (None, None) => Ok(None),
        (None, Some(presented)) => fresh(presented, own.now_ms).map(Some),
        (Some(known), None) => Ok(known.clone()),
        (Some(Some(known)), Some(presented)) if known.digest() == presented.digest() => Ok(Some(presented)),
        (Some(_), Some(_)) => {
            Err(Refusal::new(Code::StartMismatch, "the run was started otherwise on this host"))
        }
    }
}

/// Who started the run, of an order that was accepted before.
pub(super) fn started_before(content: &[u8]) -> Result<Option<Started>, Refusal> {
    let order = v1::OrderContent::decode(content)
        .map_err(|error| Refusal::new(Code::OrderMalformed, format!("the order cannot be read: {error}")))?;
    let Some(message) = order.start else { return Ok(None) };
    Start::verified_before(&Signed::try_from(message)?).map(Some)
}

/// A start begins a run for no longer than a host remembers one, or the same start could begin it again.
fn fresh(started: Started, now_ms: i64) -> Result<Started, Refusal> {
    let at = started.start().at;
    if now_ms.saturating_sub(at.as_millisecond()) > i64::try_from(REMEMBER.as_millis()).unwrap_or(i64::MAX) {
        let what = format!("`{}` signed the start at {at}, more than a day ago", started.person());
        return Err(Refusal::new(Code::StartExpired, what));
    }
    Ok(started)
}

fn no_roster() -> Refusal {
    Refusal::new(Code::RosterMissing, "this host has no roster to check signatures against")
}

fn base(values: BTreeMap<String, Value>, own: &Own<'_>) -> Scope {
    let labels =
        own.labels.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    let name = Value::String(own.host.as_str().to_owned());
    let host = BTreeMap::from([("labels".to_owned(), Value::Map(labels)), ("name".to_owned(), name)]);
    Scope(BTreeMap::from([("inputs".to_owned(), Value::Map(values)), ("host".to_owned(), Value::Map(host))]))
}

/// Inputs as people see them in the plan: what was given, and defaults where nothing was.
fn effective(
    declared: &BTreeMap<String, Input>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    declared
        .iter()
        .filter_map(|(name, input)| {
            let given = given.get(name).filter(|text| !text.is_empty());
            Some((name.clone(), given.or(input.default.as_ref())?.clone()))
        })
        .collect()
}

fn own_plan<'a>(own: &Own<'a>, digest: &[u8], runbook: Digest) -> Result<&'a OwnPlan, Refusal> {
    let mismatch = |what: String| Refusal::new(Code::PlanMismatch, what);
    let plan = own.plan.ok_or_else(|| mismatch("this host has made no plan for the run".to_owned()))?;
    let ours = plan_format::digest_of(&plan.bytes);
    if digest != ours.0 {
        return Err(mismatch(format!("the order is for another plan than {ours}, which this host made")));
    }
    if plan.plan.runbook_digest != runbook {
        return Err(mismatch("the order carries another runbook than the plan was made from".to_owned()));
    }
    Ok(plan)
}

/// This host's plan, if the order means it: its bytes, its runbook, its inputs.
fn same_plan<'a>(own: &Own<'a>, digest: &[u8], read: &Parts) -> Result<&'a OwnPlan, Refusal> {
    let plan = own_plan(own, digest, read.runbook.digest())?;
    if read.inputs != plan.plan.inputs {
        let what = "the order has other inputs than the plan was made from";
        return Err(Refusal::new(Code::PlanMismatch, what));
    }
    Ok(plan)
}

/// A run has one diagnosis and one plan on a host. With a second plan, what the host remembers of the first (where it
/// stopped, who started it, which file was vouched for) would be taken for the second's.
fn diagnosed_once(own: &Own<'_>) -> Result<(), Refusal> {
    if own.started.is_some() || own.plan.is_some() {
        return Err(Refusal::new(Code::SegmentConflict, "the run was diagnosed before on this host"));
    }
    Ok(())
}

/// Whether somebody vouches for the programs that only read, and for what is read of logs: enough reviewers for the file, or a
/// person for this run of it. The kernel keeps programs to reading, where it can, and what they read they can tell; without
/// this, whoever has the controller has a shell that reads on every host.
///
/// Asked once, of the first order: verification is of the plan that came of it, from the same bytes and inputs.
fn vouched_for(order: &Order, own: &Own<'_>, read: &Parts) -> Result<(), Refusal> {
    let runs = |step: &&Step| match step.action {
        Action::Script { .. } | Action::Argv { .. } => true,
        Action::That { .. } | Action::Wait { .. } | Action::Service { .. } => false,
    };
    let steps = |phase| read.runbook.steps(phase).iter();
    let program = steps(Phase::Diagnose).chain(steps(Phase::Verify)).find(runs);
    // The conditions of remediation are read before anybody approves it.
    let every = [Phase::Diagnose, Phase::Remediate, Phase::Verify].into_iter().flat_map(steps);
    let log = || every.into_iter().find(|step| step.reads_logs());
    let reads = program.map(|step| (step, "runs a program"));
    let Some((step, does)) = reads.or_else(|| log().map(|step| (step, "reads a log"))) else {
        return Ok(());
    };
    if read.started.is_some() || read.certified.is_some() {
        return Ok(());
    }
    let certificates = convert::all_signed(order.content.certificates.clone())?;
    if certificate(&order.content.runbook, &certificates, own).is_some() {
        return Ok(());
    }
    Err(Refusal::new(
        Code::ReadUncertified,
        format!(
            "`{}` {does}, the runbook is not certified here, and no person started this run of it",
            step.id
        ),
    ))
}

fn remediate(order: &Order, own: &Own<'_>, read: Parts, work: &v1::Remediate) -> Result<Judged, Refusal> {
    let own_plan = same_plan(own, &work.plan_digest, &read)?;
    let plan = Arc::clone(&own_plan.plan);
    if let Some(started) = &read.started {
        started.remediates()?;
    }
    let also_from = also_from(&work.gate_from_risk)?;
    let certified = read.certified.as_ref();
    let steps = grant::remaining(&plan, &work.from)?;
    grant::in_turn(&plan, own.stopped_at.as_deref(), &work.from)?;
    let (closed, permit) = match &work.grant {
        None => (closed(steps, certified.is_some(), own.roster, also_from), None),
        Some(message) => {
            let grant = Grant::try_from(message.clone())?;
            let permit = grant::check(&GrantInput {
                grant: &grant,
                roster: own.roster.ok_or_else(no_roster)?,
                host: own.host,
                run: order.run,
                plan: &own_plan.bytes,
                nonce: &plan.nonce,
                boot: own.boot,
                from: &work.from,
                unknown: own.unknown,
                certified,
                started: read.started.as_ref(),
                also_from,
                now: from_ms(own.now_ms),
            })?;
            if own_plan.consumed.contains(permit.nonce()) {
                return Err(Refusal::new(Code::NonceConsumed, "what was approved has been used"));
            }
            (BTreeSet::new(), Some(Box::new(permit)))
        }
    };
    if own.remediated {
        return Err(Refusal::new(Code::StepOrder, "the run's remediation is over on this host"));
    }
    let undoes = plan.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo);
    let runs = |step: &&PlannedStep| step.done_in.is_none() || undoes;
    for step in steps.iter().filter(runs).filter(|step| !closed.contains(&step.path)) {
        allowed(own.policy, &plan, step, certified.is_some())?;
    }
    let from = work.from.clone();
    let again = permit.as_deref().and_then(Permit::again).map(|again| again.attempt);
    Ok(read.judged(Work::Remediate { plan, from, closed, permit, again }))
}

/// What people were asked for this order, if they were.
fn requested(order: &Order) -> Option<fettle_proto::signed::Request> {
    let grant = match &order.content.work {
        Some(v1::order_content::Work::Remediate(work)) => work.grant.as_ref(),
        Some(v1::order_content::Work::Diagnose(_) | v1::order_content::Work::Verify(_)) | None => None,
    };
    grant.and_then(|grant| fettle_proto::signed::Request::decode(&grant.request).ok())
}

/// When the first step of an order must begin at the latest, wall clock.
pub(super) fn begin_by(order: &Order) -> i64 {
    let request = requested(order);
    let start_by = request.map_or(i64::MAX, |request| request.start_by.as_millisecond());
    start_by.min(order.content.not_after_ms)
}

/// The host's own veto on one step. What an uncertified runbook says of its own risk counts for nothing.
pub(super) fn allowed(
    policy: &HostPolicy,
    plan: &Plan,
    step: &PlannedStep,
    certified: bool,
) -> Result<(), Refusal> {
    let (program, unit) = match &step.work {
        PlannedWork::Script { interpreter, .. } => (interpreter.first().map_or("", String::as_str), ""),
        PlannedWork::Argv(words) => (words.first().map_or("", String::as_str), ""),
        PlannedWork::Service { unit, .. } | PlannedWork::PutBack { unit } => ("", unit.as_str()),
        PlannedWork::That { .. } | PlannedWork::Wait(_) | PlannedWork::Impossible(_) => return Ok(()),
    };
    policy
        .allows(Asked { runbook: &plan.runbook, risk: grant::effective_risk(step, certified), program, unit })
        .map_err(|veto| Refusal::new(Code::Vetoed, format!("{}: {}", step.path, veto.message)))
}

fn also_from(word: &str) -> Result<Option<Risk>, Refusal> {
    match word {
        "" => Ok(None),
        word => risk_of(word).map(Some).ok_or_else(|| {
            let word: String = word.chars().take(40).collect();
            Refusal::new(Code::OrderMalformed, format!("`{word}` is not a risk"))
        }),
    }
}

/// The steps that need people. Without a roster that is in force nobody can vouch for a runbook: all of them do.
fn closed(
    steps: &[PlannedStep],
    certified: bool,
    roster: Option<&Roster>,
    also_from: Option<Risk>,
) -> BTreeSet<String> {
    steps
        .iter()
        .filter(|step| {
            roster.is_none_or(|roster| !grant::needs(step, certified, roster, also_from).is_empty())
        })
        .map(|step| step.path.clone())
        .collect()
}

impl Judged {
    /// What the segment's machine needs.
    /// `known`: what there is to do, where that is known without a diagnosis.
    pub(super) fn program(&self, past: Vec<Past>, known: Option<Rendering>) -> Result<Program, Refusal> {
        let mismatch = |error: fettle_runbooks::segment::NotAProgram| {
            Refusal::new(Code::PlanMismatch, format!("failed to {error}"))
        };
        let runbook = Arc::clone(&self.runbook);
        let base = self.base.clone();
        match &self.work {
            Work::Diagnose => Ok(match known {
                None => Program::diagnose(runbook, base),
                Some(known) => Program::undo(runbook, base, known),
            }),
            Work::Remediate { plan, from, closed, permit: _, again } => {
                let program = Program::remediate(runbook, Arc::clone(plan), base, from, closed.clone(), past)
                    .map_err(mismatch)?;
                Ok(match again {
                    Some(attempt) => program.again(from.clone(), *attempt),
                    None => program,
                })
            }
            Work::Verify { plan } => Program::verify(runbook, Arc::clone(plan), base).map_err(mismatch),
        }
    }
}
