//! `fettle approve`, `fettle reject`: fetch, recompute, show, ask, sign, send.

use fettle_proto::signed::words::risk_word;
use fettle_proto::signed::{Approval, Decision, Namespace, PublicKey, Request, Roster};
use fettle_proto::v1;
use serde_json::json;

use super::gate::{self, Checked};
use super::keys::{Wanted, signer};
use super::{brief, terminal};
use crate::args;
use crate::client::{Operators, answer, connect};
use crate::commands::paused_why;
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{named, print, talk, time, visible};
use crate::view;

/// Said of an approval that others may give instead.
const WOULD_NOT_COUNT: &str = "your approval would not count";

/// Whether somebody may not approve here, and others may.
pub(crate) fn is_not_theirs(error: &Error) -> bool {
    error.exit() == Exit::NotAllowed && error.what() == WOULD_NOT_COUNT
}

pub(super) async fn approve(context: &Context, args: &args::Approve) -> Result<Exit> {
    let now = super::now();
    let person = context.person()?;
    let mut calls = connect(context).await?;
    let (gate, roster) = fetch(context, &mut calls, &args.gate).await?;
    still_open(&gate)?;
    let checked = gate::recompute(&args.gate, &gate, &roster, now).map_err(|error| {
        Error::new(
            Exit::NotAllowed,
            "what the controller shows is not what you would sign; nothing was signed",
        )
        .at(&args.gate)
        .because(&error)
        .fix(error.fix())
    })?;
    show(context, &checked, now)?;
    gate::may_approve(&checked, &roster, person, now)
        .map_err(|refusal| Error::new(Exit::NotAllowed, WOULD_NOT_COUNT).why(refusal))?;
    if !args.yes && !confirmed(&checked).await? {
        talk("nothing was signed; the gate stays open");
        return Ok(Exit::Pending);
    }
    let keys = keys_of(&roster, person);
    let reply =
        decide(context, &mut calls, &args.gate, &gate, &keys, Decision::Approve, &args.reason).await?;
    let paused =
        if reply.state == "approved" { paused(context, &mut calls, &reply).await } else { Vec::new() };
    report(context, reply, "approved")?;
    if context.output.is_table() {
        paused.iter().for_each(|why| talk(why));
    }
    Ok(Exit::Done)
}

pub(super) async fn reject(context: &Context, args: &args::Reject) -> Result<Exit> {
    let now = super::now();
    let person = context.person()?;
    let mut calls = connect(context).await?;
    let (gate, roster) = fetch(context, &mut calls, &args.gate).await?;
    still_open(&gate)?;
    // A "no" is safe whatever the gate holds, so what does not fit is only told.
    match gate::recompute(&args.gate, &gate, &roster, now) {
        Ok(checked) => show(context, &checked, now)?,
        Err(error) => talk(&format!("warning: what the controller shows does not fit the request: {error}")),
    }
    let keys = keys_of(&roster, person);
    let reply = decide(context, &mut calls, &args.gate, &gate, &keys, Decision::Deny, &args.reason).await?;
    report(context, reply, "rejected")
}

async fn fetch(context: &Context, calls: &mut Operators, gate: &str) -> Result<(v1::Gate, Roster)> {
    let asked = v1::GetGateRequest { gate: gate.to_owned() };
    let gate = answer(context, calls.get_gate(asked))
        .await
        .map_err(|error| if error.exit() == Exit::NotFound { error.next("fettle status") } else { error })?;
    let roster = answer(context, calls.get_roster(v1::GetRosterRequest {})).await?;
    Ok((gate, gate::trusted_roster(roster.roster, context.trust()?, super::now())?))
}

fn still_open(gate: &v1::Gate) -> Result<()> {
    if gate.state == "open" {
        return Ok(());
    }
    let exit = match gate.state.as_str() {
        "approved" | "denied" | "expired" | "closed" => Exit::Rejected,
        _ => Exit::Failed,
    };
    let mut error = Error::new(exit, format!("the gate is {}; nothing was signed", named(&gate.state)));
    if !gate.reason.is_empty() {
        error = error.why(&gate.reason);
    }
    Err(error.next(format!("fettle run show {}", gate.run)))
}

fn show(context: &Context, checked: &Checked, now: jiff::Timestamp) -> Result<()> {
    let text = brief::render(checked, &context.output, terminal::width(), now);
    if context.output.is_table() {
        return print(&text);
    }
    talk(&text); // Stdout is for the answer.
    Ok(())
}

async fn confirmed(checked: &Checked) -> Result<bool> {
    if !terminal::is_there() {
        return Err(
            Error::usage("there is no terminal to ask on").fix("give --yes to sign without being asked")
        );
    }
    let hosts = checked.plans.len();
    let question = format!(
        "\n{} {} on {hosts} {} (risk {})?",
        match &checked.request.again {
            None => "Approve".to_owned(),
            Some(again) => format!("Run {} again, which may have run, of", visible(&again.path)),
        },
        visible(&checked.request.runbook),
        if hosts == 1 { "host" } else { "hosts" },
        risk_word(checked.request.risk)
    );
    // The connection must go on breathing while the person reads.
    tokio::task::spawn_blocking(move || terminal::confirm(&question))
        .await
        .map_err(|error| Error::new(Exit::Failed, "failed to ask").because(&error))?
        .map_err(|error| Error::new(Exit::Failed, "failed to ask").because(&error))
}

fn keys_of(roster: &Roster, person: &str) -> Vec<PublicKey> {
    roster.person(person).map(|person| person.keys.clone()).unwrap_or_default()
}

async fn decide(
    context: &Context,
    calls: &mut Operators,
    id: &str,
    gate: &v1::Gate,
    keys: &[PublicKey],
    decision: Decision,
    reason: &str,
) -> Result<v1::Gate> {
    let approval = Approval {
        request: Request::digest(&gate.request),
        decision,
        person: context.person()?.to_owned(),
        reason: reason.to_owned(),
        at: super::now(),
    };
    let signed = signer(context, Wanted::OneOf(keys))?.sign(Namespace::Approval, &approval.encode())?;
    let request = v1::DecideRequest { gate: id.to_owned(), approval: Some(signed.into()) };
    let reply = answer(context, calls.decide(request)).await?;
    reply.gate.ok_or_else(|| Error::new(Exit::Failed, "the controller answered without the gate"))
}

/// Where what was approved does not begin because the run is paused there. The approval counts whether or not that can be told.
async fn paused(context: &Context, calls: &mut Operators, gate: &v1::Gate) -> Vec<String> {
    let asked = v1::GetRunRequest { run: gate.run.clone() };
    let Ok(run) = answer(context, calls.get_run(asked)).await else { return Vec::new() };
    let waits = |host: &&v1::HostRun| host.gate == gate.id;
    let why = run.hosts.iter().filter(waits).filter_map(|host| {
        let why = paused_why(&run, host)?;
        Some(format!(
            "nothing begins on {} before it is resumed, nor after {}: {why}",
            visible(&host.host),
            time(gate.start_by)
        ))
    });
    why.collect()
}

fn report(context: &Context, gate: v1::Gate, done: &str) -> Result<Exit> {
    let mut data = view::gate(&gate);
    if let Some(object) = data.as_object_mut() {
        object.insert("signed".to_owned(), json!(done));
    }
    context.output.show(&data, || {
        let mut text = format!("{done}; the gate is {}", visible(&gate.state));
        for who in &gate.waits_for {
            text.push_str(&format!("\nstill needed: {}", visible(who)));
        }
        text
    })?;
    if context.output.is_table() {
        talk(&format!("follow it with: fettle watch {}", visible(&gate.run)));
    }
    Ok(Exit::Done)
}
