//! `fettle run …`

use fettle_proto::v1;
use fettle_runbooks::follow::FollowUp;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, span, stated, time, unknown, visible};
use crate::{people, view};

pub(super) async fn list(
    context: &Context,
    host: Option<&str>,
    open: bool,
    limit: u32,
    before: Option<&str>,
) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::ListRunsRequest {
        host: host.unwrap_or_default().to_owned(),
        open,
        limit,
        before: before.unwrap_or_default().to_owned(),
    };
    let runs = answer(context, calls.list_runs(request)).await?.runs;
    let data: Vec<_> = runs.iter().map(view::run).collect();
    context.output.list(&data, || table(&runs, if open { "no open runs" } else { "no runs yet" }))?;
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, id: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let run = answer(context, calls.get_run(v1::GetRunRequest { run: id.to_owned() })).await?;
    context.output.show(&view::run(&run), || page(&context.output, &run))?;
    Ok(Exit::Done)
}

/// Runs as a table, one row per host.
pub(super) fn table(runs: &[v1::Run], empty: &'static str) -> Table {
    let mut table = Table::new(&["RUN", "STARTED", "RUNBOOK", "HOST", "STATE", "BY"], empty);
    for run in runs {
        for host in &run.hosts {
            table.row([
                run.id.clone(),
                time(run.created_at),
                run.runbook.clone(),
                host.host.clone(),
                state(host),
                run.origin.clone(),
            ]);
        }
    }
    table
}

/// The state of a host run in a word and its glyph; the ending when it has ended.
pub(super) fn state(host: &v1::HostRun) -> String {
    let state = match host.state.as_str() {
        "ended" => stated(&host.ending),
        "waiting" => match host.waiting_for.as_str() {
            "" => stated("waiting"),
            what @ ("gate" | "resolve" | "wave" | "window") => format!("… waiting for {what}"),
            what => format!("… waiting for {}", unknown(what)),
        },
        state => stated(state),
    };
    let pause = host.pause.as_ref().map_or("", |pause| match (pause.on, pause.confirmed) {
        (true, true) => ", paused",
        (true, false) => ", pause not confirmed yet",
        (false, true) => "",
        (false, false) => ", resumption not confirmed yet",
    });
    format!("{state}{pause}")
}

/// Who paused it and why, and how it goes on; absent when it is not paused.
pub(crate) fn paused_why(run: &v1::Run, host: &v1::HostRun) -> Option<String> {
    let pause = host.pause.as_ref().filter(|pause| pause.on)?;
    let (why, id) = (visible(&pause.reason), visible(&run.id));
    // Others may have paused the others.
    let there = if run.hosts.len() > 1 { format!(" --host {}", visible(&host.host)) } else { String::new() };
    Some(format!("paused by {why}; let it go on with: fettle run resume {id}{there}"))
}

/// A run as a person reads it.
pub(crate) fn page(out: &Output, run: &v1::Run) -> String {
    let certified = if run.certified { "certified" } else { "not certified" };
    let mut text = format!(
        "{}  {}  {}\n  by:       {}   mode {}\n  started:  {}",
        out.paint(Tone::Strong, &run.runbook),
        visible(&run.id),
        out.paint(if run.certified { Tone::Dim } else { Tone::Warn }, certified),
        visible(&run.origin),
        visible(&run.mode),
        time(run.created_at),
    );
    if run.ended_at != 0 {
        let took = u64::try_from(run.ended_at.saturating_sub(run.created_at)).unwrap_or(0);
        text.push_str(&format!("   took {}", span(took)));
    }
    if !run.incident.is_empty() {
        text.push_str(&format!("\n  incident: {}", visible(&run.incident)));
    }
    if let Some(of) = &run.of {
        text.push_str(&format!("\n  {} of:  {}{}", visible(&of.how), visible(&of.run), because(of)));
    }
    for later in &run.follow_ups {
        text.push_str(&format!(
            "\n  {} by:  {}  {} on {}{}",
            visible(&later.how),
            visible(&later.run),
            visible(&later.origin),
            visible(&later.hosts.join(", ")),
            because(later)
        ));
    }
    let mut inputs: Vec<_> = run.inputs.iter().collect();
    inputs.sort();
    for (name, value) in inputs {
        text.push_str(&format!("\n  {} = {}", out.paint(Tone::Dim, name), visible(value)));
    }
    for host in &run.hosts {
        let word = if host.state == "ended" { &host.ending } else { &host.state };
        text.push_str(&format!(
            "\n\n{}  {}{}",
            out.paint(Tone::Strong, &host.host),
            out.paint(Tone::of(word), &state(host)),
            if host.agent_connected { "" } else { "  (its agent is away)" },
        ));
        if !host.reason.is_empty() {
            text.push_str(&format!("\n  {}", visible(&host.reason)));
        }
        if let Some(why) = paused_why(run, host) {
            text.push_str(&format!("\n  {why}"));
        }
        if let Some(lost) = super::stop::if_lost(host) {
            text.push_str(&format!("\n  {lost}"));
        }
        if !host.gate.is_empty() && host.waiting_for == "gate" {
            text.push_str(&format!(
                "\n  gate: {}   → fettle approve {}",
                visible(&host.gate),
                visible(&host.gate)
            ));
        }
        if !host.steps.is_empty() {
            text.push('\n');
            text.push_str(&steps(out, host));
        }
    }
    let next = super::stop::waiting(run);
    if !next.is_empty() {
        text.push_str("\n\n");
        text.push_str(&next);
    }
    let further = further(run);
    if !further.is_empty() {
        text.push_str(&format!("\n\n  then: {}", further.join("\n        ")));
    }
    text
}

/// What to type about a run that is over and did not end well, once its hosts were looked at.
pub(super) fn further(run: &v1::Run) -> Vec<String> {
    let ended = |ending: &str| run.hosts.iter().any(|host| host.ending == ending);
    if run.ended_at == 0 || !run.follow_ups.is_empty() {
        return Vec::new();
    }
    let undo = |of: &str| format!("fettle run undo {} --reason '…'", visible(of));
    match run.of.as_ref().filter(|of| of.how == FollowUp::Undo.word()) {
        Some(of) if ended("failed") || ended("unverified") => vec![undo(&of.run)],
        Some(_) => Vec::new(),
        None => {
            let retry = ended("failed").then(|| format!("fettle run retry {}", visible(&run.id)));
            retry.into_iter().chain(ended("unverified").then(|| undo(&run.id))).collect()
        }
    }
}

fn because(follow: &v1::FollowUp) -> String {
    if follow.reason.is_empty() { String::new() } else { format!(": {}", visible(&follow.reason)) }
}

fn steps(out: &Output, host: &v1::HostRun) -> String {
    let mut table = Table::new(&["STEP", "RISK", "STATE", "TOOK", "SAYS"], "");
    for step in &host.steps {
        let path =
            if step.attempt > 1 { format!("{} #{}", step.path, step.attempt) } else { step.path.clone() };
        let took = match (step.started_at, step.ended_at) {
            (0, _) | (_, 0) => "-".to_owned(),
            (start, end) => span(u64::try_from(end.saturating_sub(start)).unwrap_or(0)),
        };
        let mut says = step.message.clone();
        let mut outputs: Vec<_> = step.outputs.iter().collect();
        outputs.sort();
        for (name, value) in outputs {
            if !says.is_empty() {
                says.push(' ');
            }
            says.push_str(&format!("{name}={}", value.chars().take(60).collect::<String>()));
        }
        table.row([path, step.risk.clone(), stated(&step.state), took, says]);
    }
    table.render(out).lines().map(|line| format!("\n  {line}")).collect::<String>()
}

/// The plan of each host: what remediation would do, or does. As an approver reads it.
pub(crate) fn plans(out: &Output, run: &v1::Run, columns: usize) -> String {
    let mut text = String::new();
    for host in &run.hosts {
        text.push_str(&format!("{}  {}\n", out.paint(Tone::Strong, &host.host), visible(&state(host))));
        if host.plan.is_empty() {
            let why = if host.reason.is_empty() { "there is no plan yet" } else { &host.reason };
            text.push_str(&format!("  {}\n", visible(why)));
            continue;
        }
        text.push_str(&format!("  plan {}\n", view::digest(&host.plan_digest).as_str().unwrap_or("-")));
        match fettle_proto::signed::plan::decode(&host.plan) {
            Ok(plan) => text.push_str(&people::brief::plan(&plan, run.certified, out, columns)),
            Err(error) => {
                text.push_str(&format!("  the plan cannot be read: {}\n", visible(&error.to_string())))
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn example() -> v1::Run {
        v1::Run {
            id: "run_1".into(),
            runbook: "host/service-down".into(),
            certified: true,
            inputs: [("unit".to_owned(), "$(touch x)\u{1b}".to_owned())].into(),
            origin: "person ana".into(),
            mode: "approve".into(),
            created_at: 1_600_000_000_000,
            hosts: vec![v1::HostRun {
                host: "web-1".into(),
                state: "waiting".into(),
                waiting_for: "gate".into(),
                gate: "gate_1".into(),
                agent_connected: true,
                steps: vec![v1::StepView {
                    path: "diagnose/port".into(),
                    attempt: 1,
                    risk: "read".into(),
                    state: "succeeded".into(),
                    started_at: 1_600_000_000_000,
                    ended_at: 1_600_000_000_040,
                    outputs: [("open".to_owned(), "false".to_owned())].into(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_run_shows_what_it_waits_for_and_how_to_go_on() {
        insta::assert_snapshot!(page(&Output::plain(Format::Table), &example()), @r"
        host/service-down  run_1  certified
          by:       person ana   mode approve
          started:  2020-09-13 12:26:40Z
          unit = $(touch x)\u{1b}

        web-1  … waiting for gate
          gate: gate_1   → fettle approve gate_1

          STEP           RISK  STATE        TOOK   SAYS
          diagnose/port  read  ✓ succeeded  40 ms  open=false
        ");
    }

    #[test]
    fn a_run_shows_that_it_is_paused_what_it_goes_on_from_and_what_goes_on_from_it() {
        let out = Output::plain(Format::Table);
        let follow = |run: &str, how: &str, reason: &str| v1::FollowUp {
            run: run.into(),
            how: how.into(),
            origin: "person ben".into(),
            reason: reason.into(),
            hosts: vec!["web-1".into(), "web-2".into()],
            ..Default::default()
        };
        let mut run = example();
        run.inputs.clear();
        run.of = Some(follow("run_0", "retry", "the disk is back\u{1b}"));
        run.hosts[0].steps.clear();
        run.hosts[0].pause = Some(v1::PauseView { on: true, confirmed: true, reason: "ana: wait".into() });
        insta::assert_snapshot!(page(&out, &run), @r"
        host/service-down  run_1  certified
          by:       person ana   mode approve
          started:  2020-09-13 12:26:40Z
          retry of:  run_0: the disk is back\u{1b}

        web-1  … waiting for gate, paused
          paused by ana: wait; let it go on with: fettle run resume run_1
          gate: gate_1   → fettle approve gate_1
        ");

        run.of = None;
        run.ended_at = run.created_at + 61_000;
        run.follow_ups = vec![follow("run_2", "retry", ""), follow("run_3", "undo", "it made things worse")];
        run.hosts[0] = v1::HostRun {
            host: "web-1".into(),
            state: "ended".into(),
            ending: "failed".into(),
            ..Default::default()
        };
        insta::assert_snapshot!(page(&out, &run), @r"
        host/service-down  run_1  certified
          by:       person ana   mode approve
          started:  2020-09-13 12:26:40Z   took 1 min 1 s
          retry by:  run_2  person ben on web-1, web-2
          undo by:  run_3  person ben on web-1, web-2: it made things worse

        web-1  ✗ failed  (its agent is away)
        ");

        (run.ended_at, run.follow_ups) = (0, Vec::new());
        run.hosts[0] = v1::HostRun {
            host: "web-1".into(),
            state: "waiting".into(),
            waiting_for: "resolve".into(),
            resolve: "remediate/purge".into(),
            reason: "the host was switched off".into(),
            gate: "gate_2".into(),
            again: true,
            agent_connected: true,
            ..Default::default()
        };
        insta::assert_snapshot!(page(&out, &run), @r"
        host/service-down  run_1  certified
          by:       person ana   mode approve
          started:  2020-09-13 12:26:40Z

        web-1  … waiting for resolve
          the host was switched off

          nobody can tell whether remediate/purge took effect (the host was switched off); look at web-1, then say what you found:
            fettle run resolve run_1 --host web-1 --step remediate/purge --ran --reason '…'
            fettle run resolve run_1 --host web-1 --step remediate/purge --did-not-run --reason '…'
          or, to let it run again, which people are asked:
            fettle approve gate_2
        ");
    }

    #[test]
    fn a_plan_is_laid_out_as_for_an_approver_and_nothing_of_it_is_raw() {
        let mut run = example();
        run.hosts[0].plan = fettle_proto::signed::plan::encode(&people::sample_plan()).into();
        let text = plans(&Output::plain(Format::Table), &run, 60);
        for c in text.chars() {
            assert!(c == '\n' || !c.is_control(), "{c:?} is raw in:\n{text}");
        }
        insta::assert_snapshot!(text);
    }
}
