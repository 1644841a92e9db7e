//! What will run on one host: the bytes of a plan.
//!
//! The host renders [`Plan`] once and encodes it once, here. Those bytes are journaled, reported, shown, approved and
//! run; nobody encodes a plan they received.
//!
//! What does something with a unit (`"kind":"service"`, `"kind":"previous"`) came after the first release of `plan/1`. A reader
//! that does not know it refuses the plan: such a step is then neither shown, approved nor run as something else.
//!
//! The plan of a run that goes on from an earlier one (`of`, and `done_in` of a step) came later still, and is refused in the same
//! way.
//!
//! Lengths of time are whole milliseconds. A condition that is absent is the empty text, an approval that is absent the
//! empty list.

use std::str::FromStr as _;
use std::time::Duration;

use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::Digest;
use fettle_runbooks::plan::{Of, Plan, PlannedStep, PlannedUndo, PlannedWork};
use fettle_runbooks::runbook::{Approval, Escalate, OnFailure, Repeat, Retry, Sandbox};
use fettle_runbooks::unit::{UnitName, Verb};

use super::json::{Json, Malformed, Members, Writer};
use super::{Tag, digest, words};

const FORMAT: &str = "plan/1";

/// The bytes of a plan.
pub fn encode(plan: &Plan) -> Vec<u8> {
    let written = Writer::format(FORMAT)
        .text("agent", &plan.agent)
        .text("run", plan.run)
        .text("nonce", &plan.nonce)
        .text("boot", &plan.boot)
        .text("runbook", &plan.runbook)
        .text("runbook_digest", plan.runbook_digest)
        .map("inputs", &plan.inputs)
        .map("evidence", &plan.evidence)
        .objects("steps", plan.steps.iter().map(write_step))
        .objects("verify", plan.verify.iter().map(write_step));
    match &plan.of {
        None => written.end(),
        Some(of) => written
            .nested("of", Writer::object().text("run", of.run).text("how", of.how).texts("says", &of.says))
            .end(),
    }
}

/// What the bytes of a plan say.
pub fn decode(bytes: &[u8]) -> Result<Plan, Malformed> {
    let mut members = Members::open(bytes, FORMAT)?;
    let plan = Plan {
        agent: members.parsed("agent")?,
        run: members.parsed("run")?,
        nonce: members.text("nonce")?,
        boot: members.text("boot")?,
        runbook: members.text("runbook")?,
        runbook_digest: members.parsed("runbook_digest")?,
        inputs: members.map("inputs")?,
        evidence: members.map("evidence")?,
        steps: read_steps(&mut members, "steps")?,
        verify: read_steps(&mut members, "verify")?,
        of: members.optional("of").map(|of| read_of(Members::of(of, "of")?)).transpose()?,
    };
    members.end()?;
    goes_on(&plan)?;
    Ok(plan)
}

fn read_of(mut members: Members) -> Result<Of, Malformed> {
    let of = Of { run: members.parsed("run")?, how: members.parsed("how")?, says: members.texts("says")? };
    members.end()?;
    Ok(of)
}

/// Only a plan that undoes has undos for its steps, and nothing else; only one that goes on from an earlier run speaks of what was
/// done in another.
fn goes_on(plan: &Plan) -> Result<(), Malformed> {
    let undoes = plan.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo);
    let all = || plan.steps.iter().chain(&plan.verify);
    let fits = |step: &PlannedStep| {
        let puts_back = matches!(step.work, PlannedWork::PutBack { .. });
        let undo = step.path.starts_with("remediate/") && step.path.ends_with("/undo");
        match undoes {
            true => undo && step.done_in.is_some(),
            false => !undo && !puts_back && (plan.of.is_some() || step.done_in.is_none()),
        }
    };
    if all().all(fits) && (!undoes || plan.verify.is_empty()) {
        return Ok(());
    }
    Err(Malformed::value("of", "the steps are not those of a plan that goes on so"))
}

/// The digest of a plan's bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    digest(Tag::Plan, bytes)
}

fn ms(duration: Duration) -> u128 {
    duration.as_millis()
}

fn write_step(step: &PlannedStep) -> Writer {
    let written = Writer::object()
        .text("path", &step.path)
        .text("risk", words::risk_word(step.risk))
        .text("name", &step.name)
        .nested("work", write_work(&step.work))
        .map("env", &step.env)
        .text("cwd", &step.cwd)
        .text("user", &step.user)
        .nested(
            "sandbox",
            Writer::object()
                .texts("connect", step.sandbox.connect.iter().map(u16::to_string))
                .text("read", if step.sandbox.read_all { "all" } else { "" }),
        )
        .text("timeout_ms", ms(step.timeout))
        .nested(
            "retry",
            Writer::object()
                .text("times", step.retry.times)
                .text("first_ms", ms(step.retry.first))
                .text("longest_ms", ms(step.retry.longest)),
        )
        .text("repeat", repeat_word(step.repeat))
        .text("if", step.condition.as_deref().unwrap_or_default())
        .nested("undo", write_undo(&step.undo))
        .text("check", step.check.as_deref().unwrap_or_default())
        .text("on_failure", on_failure_word(step.on_failure))
        .objects("approval", step.approval.iter().map(write_approval))
        .map("outputs", &step.outputs);
    match step.done_in {
        None => written,
        Some(run) => written.text("done_in", run),
    }
}

fn write_work(work: &PlannedWork) -> Writer {
    match work {
        PlannedWork::Script { source, interpreter } => {
            Writer::object().text("kind", "script").text("source", source).texts("interpreter", interpreter)
        }
        PlannedWork::Argv(argv) => Writer::object().text("kind", "argv").texts("argv", argv),
        PlannedWork::That { condition, within, stable_for, every } => Writer::object()
            .text("kind", "that")
            .text("condition", condition)
            .text("within_ms", ms(*within))
            .text("stable_for_ms", ms(*stable_for))
            .text("every_ms", ms(*every)),
        PlannedWork::Wait(length) => Writer::object().text("kind", "wait").text("length_ms", ms(*length)),
        PlannedWork::Service { verb, unit } => {
            Writer::object().text("kind", "service").text("verb", verb).text("unit", unit)
        }
        PlannedWork::PutBack { unit } => Writer::object().text("kind", "put-back").text("unit", unit),
        PlannedWork::Impossible(reason) => Writer::object().text("kind", "impossible").text("reason", reason),
    }
}

fn write_undo(undo: &PlannedUndo) -> Writer {
    match undo {
        PlannedUndo::None => Writer::object().text("kind", "none"),
        PlannedUndo::Previous => Writer::object().text("kind", "previous"),
        PlannedUndo::Work(work) => write_work(work),
    }
}

fn write_approval(approval: &Approval) -> Writer {
    Writer::object()
        .texts("from", &approval.from)
        .text("need", approval.need)
        .text("within_ms", ms(approval.within))
        .objects(
            "escalate",
            approval.escalate.iter().map(|escalate| {
                Writer::object().text("after_ms", ms(escalate.after)).texts("to", &escalate.to)
            }),
        )
}

fn read_steps(members: &mut Members, name: &'static str) -> Result<Vec<PlannedStep>, Malformed> {
    members.list(name)?.into_iter().map(|step| read_step(Members::of(step, name)?)).collect()
}

fn read_step(mut members: Members) -> Result<PlannedStep, Malformed> {
    let step = PlannedStep {
        path: members.text("path")?,
        risk: words::risk(&mut members, "risk")?,
        name: members.text("name")?,
        work: read_work(Members::of(members.take("work")?, "work")?)?,
        env: members.map("env")?,
        cwd: members.text("cwd")?,
        user: members.text("user")?,
        sandbox: read_sandbox(Members::of(members.take("sandbox")?, "sandbox")?)?,
        timeout: length(&mut members, "timeout_ms")?,
        retry: read_retry(Members::of(members.take("retry")?, "retry")?)?,
        repeat: one_of(&mut members, "repeat", [Repeat::Safe, Repeat::Never], repeat_word)?,
        condition: some(members.text("if")?),
        undo: read_undo(Members::of(members.take("undo")?, "undo")?)?,
        check: some(members.text("check")?),
        on_failure: one_of(
            &mut members,
            "on_failure",
            [OnFailure::Stop, OnFailure::Continue, OnFailure::Undo],
            on_failure_word,
        )?,
        approval: at_most_one(members.list("approval")?, "approval")?
            .map(|approval| read_approval(Members::of(approval, "approval")?))
            .transpose()?,
        outputs: members.map("outputs")?,
        done_in: match members.optional("done_in") {
            Some(Json::Text(run)) => Some(run.parse().map_err(|error| Malformed::value("done_in", error))?),
            Some(Json::List(_) | Json::Object(_)) => {
                return Err(Malformed::value("done_in", "expected a run id"));
            }
            None => None,
        },
    };
    members.end()?;
    match (&step.undo, &step.work) {
        (PlannedUndo::None | PlannedUndo::Work(_), _) => Ok(step),
        (
            PlannedUndo::Previous,
            PlannedWork::Service { verb: Verb::Start | Verb::Stop | Verb::Restart, .. },
        ) => Ok(step),
        (PlannedUndo::Previous, _) => Err(Malformed::value("undo", "nothing of this step can be put back")),
    }
}

fn read_work(mut members: Members) -> Result<PlannedWork, Malformed> {
    let kind = members.text("kind")?;
    let work = work_of_kind(&kind, &mut members)?;
    members.end()?;
    Ok(work)
}

fn work_of_kind(kind: &str, members: &mut Members) -> Result<PlannedWork, Malformed> {
    match kind {
        "script" => Ok(PlannedWork::Script {
            source: members.text("source")?,
            interpreter: members.texts("interpreter")?,
        }),
        "argv" => Ok(PlannedWork::Argv(members.texts("argv")?)),
        "that" => Ok(PlannedWork::That {
            condition: members.text("condition")?,
            within: length(members, "within_ms")?,
            stable_for: length(members, "stable_for_ms")?,
            every: length(members, "every_ms")?,
        }),
        "wait" => Ok(PlannedWork::Wait(length(members, "length_ms")?)),
        "service" => {
            let verb = members.text("verb")?;
            let verb = Verb::named(&verb).ok_or_else(|| Malformed::value("verb", "expected a verb"))?;
            Ok(PlannedWork::Service { verb, unit: unit(members)? })
        }
        "put-back" => Ok(PlannedWork::PutBack { unit: unit(members)? }),
        "impossible" => Ok(PlannedWork::Impossible(members.text("reason")?)),
        _ => {
            let known = "expected `script`, `argv`, `that`, `wait`, `service`, `put-back` or `impossible`";
            Err(Malformed::value("kind", known))
        }
    }
}

fn unit(members: &mut Members) -> Result<UnitName, Malformed> {
    let name = members.text("unit")?;
    let unit = UnitName::from_str(&name).ok().filter(|unit| unit.as_str() == name);
    let unit = unit.filter(|unit| unit.acted_on().is_ok());
    unit.ok_or_else(|| Malformed::value("unit", "expected a unit that a step may act on"))
}

fn read_undo(mut members: Members) -> Result<PlannedUndo, Malformed> {
    let kind = members.text("kind")?;
    let undo = match kind.as_str() {
        "none" => PlannedUndo::None,
        "previous" => PlannedUndo::Previous,
        other => PlannedUndo::Work(work_of_kind(other, &mut members)?),
    };
    members.end()?;
    Ok(undo)
}

fn read_sandbox(mut members: Members) -> Result<Sandbox, Malformed> {
    let port = |text: String| {
        text.parse()
            .ok()
            .filter(|port| *port > 0 && u16::to_string(port) == text)
            .ok_or_else(|| Malformed::value("connect", "expected TCP ports"))
    };
    let sandbox = Sandbox {
        connect: members.texts("connect")?.into_iter().map(port).collect::<Result<_, _>>()?,
        read_all: match members.text("read")?.as_str() {
            "" => false,
            "all" => true,
            _ => return Err(Malformed::value("read", "expected `all` or nothing")),
        },
    };
    members.end()?;
    Ok(sandbox)
}

fn read_retry(mut members: Members) -> Result<Retry, Malformed> {
    let retry = Retry {
        times: words::count(members.number("times")?, "times")?,
        first: length(&mut members, "first_ms")?,
        longest: length(&mut members, "longest_ms")?,
    };
    members.end()?;
    Ok(retry)
}

fn read_approval(mut members: Members) -> Result<Approval, Malformed> {
    let approval = Approval {
        from: members.texts("from")?,
        need: words::count(members.number("need")?, "need")?,
        within: length(&mut members, "within_ms")?,
        escalate: at_most_one(members.list("escalate")?, "escalate")?
            .map(|escalate| read_escalate(Members::of(escalate, "escalate")?))
            .transpose()?,
    };
    members.end()?;
    Ok(approval)
}

fn read_escalate(mut members: Members) -> Result<Escalate, Malformed> {
    let escalate = Escalate { after: length(&mut members, "after_ms")?, to: members.texts("to")? };
    members.end()?;
    Ok(escalate)
}

fn length(members: &mut Members, name: &'static str) -> Result<Duration, Malformed> {
    members.number(name).map(Duration::from_millis)
}

fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

fn at_most_one(items: Vec<Json>, name: &str) -> Result<Option<Json>, Malformed> {
    let mut items = items.into_iter();
    match (items.next(), items.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => Err(Malformed::value(name, "expected at most one")),
    }
}

fn one_of<T: Copy, const N: usize>(
    members: &mut Members,
    name: &'static str,
    all: [T; N],
    word: fn(T) -> &'static str,
) -> Result<T, Malformed> {
    let text = members.text(name)?;
    all.into_iter()
        .find(|one| word(*one) == text)
        .ok_or_else(|| Malformed::value(name, format!("expected one of {:?}", all.map(word))))
}

fn repeat_word(repeat: Repeat) -> &'static str {
    match repeat {
        Repeat::Safe => "safe",
        Repeat::Never => "never",
    }
}

fn on_failure_word(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::Stop => "stop",
        OnFailure::Continue => "continue",
        OnFailure::Undo => "undo",
    }
}
