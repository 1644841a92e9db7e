//! `fettle run cancel`, `fettle run resolve`: a person steps in.

use fettle_proto::v1;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Tone, talk, visible};
use crate::view;

pub(super) async fn cancel(context: &Context, run: &str, reason: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::CancelRunRequest { run: run.to_owned(), reason: reason.to_owned() };
    let run = answer(context, calls.cancel_run(request)).await?;
    tell(context, &run)
}

/// What a person found out.
pub(super) struct Looked<'a> {
    pub(super) run: &'a str,
    pub(super) host: &'a str,
    pub(super) step: Option<&'a str>,
    pub(super) found: v1::Found,
    pub(super) reason: &'a str,
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
    tell(context, &run)
}

/// Where the run stands now, and how to see the rest.
fn tell(context: &Context, run: &v1::Run) -> Result<Exit> {
    context.output.show(&view::run(run), || page(&context.output, run))?;
    if context.output.is_table() && run.ended_at == 0 && waiting(run).is_empty() {
        talk(&format!("it goes on; see how it ends with: fettle watch {}", visible(&run.id)));
    }
    Ok(Exit::Done)
}

fn page(out: &Output, run: &v1::Run) -> String {
    let mut text = format!("{}  {}", out.paint(Tone::Strong, &run.runbook), visible(&run.id));
    for host in &run.hosts {
        text.push_str(&format!("\n  {}  {}", visible(&host.host), visible(&super::run::state(host))));
        if !host.reason.is_empty() {
            text.push_str(&format!("  {}", visible(&host.reason)));
        }
        if host.state != "ended" && !host.agent_connected {
            text.push_str("\n  its agent is away; it is told when it is back");
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
            format!(
                "  nobody can tell whether {} took effect{}; look at {}, then say what you found:\n{}\n{}",
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
        ");
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
