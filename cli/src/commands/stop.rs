//! `fettle run cancel`, `fettle run pause`, `fettle run resume`, `fettle run resolve`: a person steps in.

use fettle_proto::v1;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Tone, talk, visible};
use crate::{args, people, view};

pub(super) async fn cancel(context: &Context, run: &str, reason: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::CancelRunRequest { run: run.to_owned(), reason: reason.to_owned() };
    let run = answer(context, calls.cancel_run(request)).await?;
    tell(context, &run, "its hosts are asked to stop; see when they have with")
}

pub(super) async fn pause(context: &Context, run: &str, host: Option<&str>, reason: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let (run, host) = (run.to_owned(), host.unwrap_or_default().to_owned());
    let request = v1::PauseRunRequest { run, host, reason: reason.to_owned() };
    let run = answer(context, calls.pause_run(request)).await?;
    context.output.show(&view::run(&run), || page(&context.output, &run))?;
    Ok(Exit::Done)
}

pub(super) async fn resume(context: &Context, run: &str, host: Option<&str>) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let (run, host) = (run.to_owned(), host.unwrap_or_default().to_owned());
    let run = answer(context, calls.resume_run(v1::ResumeRunRequest { run, host })).await?;
    tell(context, &run, GOES_ON)
}

/// What a person found out.
pub(super) struct Looked<'a> {
    pub(super) run: &'a str,
    pub(super) host: &'a str,
    pub(super) step: Option<&'a str>,
    pub(super) found: v1::Found,
    pub(super) reason: &'a str,
    /// Sign without being asked, where a signature is needed.
    pub(super) yes: bool,
}

pub(super) async fn resolve(context: &Context, looked: &Looked<'_>) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::ResolveStepRequest {
        run: looked.run.to_owned(),
        host: looked.host.to_owned(),
        path: looked.step.unwrap_or_default().to_owned(),
        found: looked.found.into(),
        reason: looked.reason.to_owned(),
    };
    let run = answer(context, calls.resolve_step(request)).await?;
    if looked.found != v1::Found::RunAgain {
        return tell(context, &run, GOES_ON);
    }
    let host = run.hosts.iter().find(|host| host.host == looked.host);
    let gate = host.map(|host| host.gate.clone()).unwrap_or_default();
    sign_again(context, looked, gate).await
}

/// The gate is open. Whoever opened it is the first who may sign; whether that is enough, the gate says.
async fn sign_again(context: &Context, looked: &Looked<'_>, gate: String) -> Result<Exit> {
    let later = |why: &str| {
        talk(&format!(
            "{why}; the gate is open for whoever may sign: fettle approve {}\nsee how it stands with: fettle run show {}",
            visible(&gate),
            visible(looked.run)
        ));
        Ok(Exit::Pending)
    };
    if !looked.yes && !people::terminal::is_there() {
        return later("nothing was signed: there is no terminal to ask on, and --yes was not given");
    }
    let approve = args::Approve { gate: gate.clone(), reason: looked.reason.to_owned(), yes: looked.yes };
    match people::approve(context, &approve).await {
        Ok(Exit::Done) => {
            let mut calls = connect(context).await?;
            let gate = answer(context, calls.get_gate(v1::GetGateRequest { gate: gate.clone() })).await?;
            if gate.state == "open" { later("others must sign as well") } else { Ok(Exit::Done) }
        }
        // Others may sign instead. What nobody should sign, and what cannot be asked now, is told as what it is.
        Err(error) if people::is_not_theirs(&error) => later(&error.to_string()),
        Ok(exit) => Ok(exit),
        Err(error) => Err(error.why(format!("the gate {} stays open", visible(&gate)))),
    }
}

const GOES_ON: &str = "it goes on; see how it ends with";

/// Where the run stands now, and how to see the rest.
fn tell(context: &Context, run: &v1::Run, then: &str) -> Result<Exit> {
    context.output.show(&view::run(run), || page(&context.output, run))?;
    if context.output.is_table() && run.ended_at == 0 && waiting(run).is_empty() {
        talk(&format!("{then}: fettle watch {}", visible(&run.id)));
    }
    Ok(Exit::Done)
}

/// What people may do about a host that has not heard of their wish.
fn away(host: &v1::HostRun) -> String {
    format!(
        "\n  its agent is away; it is told when it is back{}",
        if_lost(host).map_or(String::new(), |it| format!("; {it}"))
    )
}

/// What to type where people wait for a host that may never come back.
pub(super) fn if_lost(host: &v1::HostRun) -> Option<String> {
    let waits = host.state == "cancelling" && !host.agent_connected;
    waits.then(|| format!("if it is lost: {}", revoke(&host.host)))
}

/// What is typed when a host will not come back.
pub(super) fn revoke(host: &str) -> String {
    format!("fettle agent revoke {} --reason '…'", visible(host))
}

fn page(out: &Output, run: &v1::Run) -> String {
    let mut text = format!("{}  {}", out.paint(Tone::Strong, &run.runbook), visible(&run.id));
    for host in &run.hosts {
        text.push_str(&format!("\n  {}  {}", visible(&host.host), visible(&super::run::state(host))));
        if !host.reason.is_empty() {
            text.push_str(&format!("  {}", visible(&host.reason)));
        }
        if let Some(why) = super::run::paused_why(run, host) {
            text.push_str(&format!("\n  {why}"));
        }
        if host.state != "ended" && host.waiting_for != "resolve" && !host.agent_connected {
            text.push_str(&away(host));
        }
    }
    let next = waiting(run);
    if !next.is_empty() {
        text.push('\n');
        text.push_str(&next);
    }
    text
}

/// For each host of a run where a person must look: what at, and the commands that say what was found. Empty when there is
/// none.
pub(super) fn waiting(run: &v1::Run) -> String {
    let hosts = run.hosts.iter().filter(|host| host.waiting_for == "resolve");
    let all: Vec<String> = hosts
        .map(|host| {
            let why = if host.reason.is_empty() { String::new() } else { format!(" ({})", host.reason) };
            let said = |found: &str| {
                format!(
                    "    fettle run resolve {} --host {} --step {} {found} --reason '…'",
                    visible(&run.id),
                    visible(&host.host),
                    visible(&host.resolve),
                )
            };
            let again = match (host.cancelled, host.again) {
                (true, _) => String::new(),
                (false, false) => format!("\n{}", said("--run-again")),
                (false, true) => format!(
                    "\n  or, to let it run again, which people are asked:\n    fettle approve {}",
                    visible(&host.gate)
                ),
            };
            format!(
                "  nobody can tell whether {} took effect{}; look at {}, then say what you found:\n{}\n{}{again}",
                visible(&host.resolve),
                visible(&why),
                visible(&host.host),
                said("--ran"),
                said("--did-not-run"),
            )
        })
        .collect();
    all.join("\n")
}

/// Whether a run stands still until a person looks: no host of it goes on by itself.
pub(super) fn stands_still(run: &v1::Run) -> bool {
    let waits = |host: &v1::HostRun| host.waiting_for == "resolve";
    run.hosts.iter().any(waits) && run.hosts.iter().all(|host| host.state == "ended" || waits(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn example() -> v1::Run {
        v1::Run {
            id: "run_1".into(),
            runbook: "host/disk-full".into(),
            hosts: vec![v1::HostRun {
                host: "web-1".into(),
                state: "waiting".into(),
                waiting_for: "resolve".into(),
                resolve: "remediate/purge".into(),
                reason: "the host was switched off".into(),
                agent_connected: true,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_run_that_waits_for_a_person_says_what_to_type() {
        insta::assert_snapshot!(page(&Output::plain(Format::Table), &example()), @r"
        host/disk-full  run_1
          web-1  … waiting for resolve  the host was switched off
          nobody can tell whether remediate/purge took effect (the host was switched off); look at web-1, then say what you found:
            fettle run resolve run_1 --host web-1 --step remediate/purge --ran --reason '…'
            fettle run resolve run_1 --host web-1 --step remediate/purge --did-not-run --reason '…'
            fettle run resolve run_1 --host web-1 --step remediate/purge --run-again --reason '…'
        ");
    }

    #[test]
    fn a_step_of_a_cancelled_run_is_not_offered_to_run_again() {
        let mut run = example();
        run.hosts[0].cancelled = true;
        let text = waiting(&run);
        assert!(text.contains("--did-not-run") && !text.contains("--run-again"), "{text}");
    }

    #[test]
    fn a_paused_run_says_so_and_whether_its_host_knows() {
        let mut run = example();
        let pause = v1::PauseView { on: true, confirmed: false, reason: "ana: wait\u{1b}".into() };
        run.hosts[0] = v1::HostRun {
            host: "web-1".into(),
            state: "remediating".into(),
            pause: Some(pause),
            ..Default::default()
        };
        insta::assert_snapshot!(page(&Output::plain(Format::Table), &run), @r"
        host/disk-full  run_1
          web-1  ▸ remediating, pause not confirmed yet
          paused by ana: wait\u{1b}; let it go on with: fettle run resume run_1
          its agent is away; it is told when it is back
        ");
        let confirmed = Some(v1::PauseView { on: true, confirmed: true, reason: "ana: wait".into() });
        run.hosts[0].pause = confirmed;
        assert_eq!(super::super::run::state(&run.hosts[0]), "▸ remediating, paused");
        run.hosts[0].pause = Some(v1::PauseView::default());
        assert_eq!(super::super::run::state(&run.hosts[0]), "▸ remediating, resumption not confirmed yet");
    }

    #[test]
    fn a_step_that_people_are_asked_to_run_again_says_where() {
        let mut run = example();
        (run.hosts[0].again, run.hosts[0].gate) = (true, "gate_1".into());
        let text = waiting(&run);
        assert!(text.contains("fettle approve gate_1") && text.contains("--ran"), "{text}");
        assert!(!text.contains("--run-again"), "{text}");
    }

    #[test]
    fn a_run_stands_still_only_when_no_host_goes_on() {
        let mut run = example();
        assert!(stands_still(&run));
        run.hosts.push(v1::HostRun { host: "web-2".into(), state: "verifying".into(), ..Default::default() });
        assert!(!stands_still(&run));
        run.hosts[1].state = "ended".into();
        assert!(stands_still(&run));
        run.hosts.remove(0);
        assert!(!stands_still(&run));
    }
}
