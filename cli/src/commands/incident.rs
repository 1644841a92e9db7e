//! `fettle incident …`

use fettle_proto::v1;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, span, time, visible};
use crate::view;

pub(super) async fn list(context: &Context, open: bool, limit: u32) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::ListIncidentsRequest { open, limit };
    let incidents = answer(context, calls.list_incidents(request)).await?.incidents;
    let data: Vec<_> = incidents.iter().map(view::incident).collect();
    context.output.list(&data, || {
        let mut table = Table::new(
            &["INCIDENT", "OPENED", "STATE", "HOST", "DETECT", "INVESTIGATE", "REMEDIATE", "TITLE"],
            if open { "no open incidents" } else { "no incidents yet" },
        );
        for incident in &incidents {
            let clocks = incident.clocks.clone().unwrap_or_default();
            let cell = |clock: &Option<v1::Clock>| {
                clock.as_ref().and_then(|clock| clock.total_ms).map_or_else(|| "-".to_owned(), span)
            };
            table.row([
                incident.id.clone(),
                time(incident.opened_at),
                incident.state.clone(),
                incident.host.clone(),
                cell(&clocks.detect),
                cell(&clocks.investigate),
                cell(&clocks.remediate),
                incident.title.clone(),
            ]);
        }
        table
    })?;
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, incident: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::GetIncidentRequest { incident: incident.to_owned() };
    let incident = answer(context, calls.get_incident(request)).await?;
    context.output.show(&view::incident(&incident), || report(&context.output, &incident))?;
    Ok(Exit::Done)
}

/// The incident as a person reads it: clocks first, then what happened.
pub(crate) fn report(out: &Output, incident: &v1::Incident) -> String {
    let mut text = format!(
        "{}  {}  {}\n  host:    {}\n  opened:  {}",
        out.paint(Tone::Strong, &incident.title),
        out.paint(Tone::of(&incident.state), &incident.state),
        visible(&incident.id),
        visible(&incident.host),
        time(incident.opened_at),
    );
    if incident.closed_at != 0 {
        text.push_str(&format!("\n  closed:  {}", time(incident.closed_at)));
    }
    for run in &incident.runs {
        text.push_str(&format!("\n  run:     {}", visible(run)));
    }
    if let Some(clocks) = &incident.clocks {
        let since = match clocks.onset_confidence.as_str() {
            "learnt" => format!("learnt from rules {}", clocks.onset_learnt_from),
            "declared" => "the onset the source declares".to_owned(),
            "since-firing" => {
                "the alert's firing; the onset is not known, so nothing counts as in time".into()
            }
            other => other.to_owned(),
        };
        let about = match clocks.onset_uncertainty_ms {
            0 => String::new(),
            ms => format!(", give or take {}", span(ms)),
        };
        text.push_str(&format!("\n\nClocks, from {}{about} ({})", time(clocks.onset_at), visible(&since)));
        for (name, clock) in [
            ("detect", &clocks.detect),
            ("investigate", &clocks.investigate),
            ("remediate", &clocks.remediate),
        ] {
            if let Some(clock) = clock {
                text.push_str(&format!("\n  {}", reading(out, name, clock)));
            }
        }
    }
    if !incident.timeline.is_empty() {
        text.push_str("\n\nTimeline\n");
        let mut table = Table::new(&["TIME", "WHO", "WHAT"], "");
        for entry in &incident.timeline {
            let clock = time(entry.at);
            let clock = clock.split_once(' ').map_or(clock.clone(), |(_, clock)| clock.to_owned());
            table.row([clock, entry.who.clone(), entry.text.clone()]);
        }
        text.push_str(&table.render(out).lines().map(|line| format!("  {line}\n")).collect::<String>());
    }
    for evidence in &incident.evidence {
        text.truncate(text.trim_end().len());
        text.push_str(&wanted(out, evidence));
    }
    text
}

/// What a person needs who has to look at a host.
fn wanted(out: &Output, evidence: &v1::Evidence) -> String {
    let mut text = format!(
        "\n\nLook at {}: {} {}  {}",
        visible(&evidence.host),
        visible(&evidence.runbook),
        out.paint(Tone::of(&evidence.ending), &evidence.ending),
        visible(&evidence.run),
    );
    let mut line =
        |depth: usize, words: &str| text.push_str(&format!("\n{}{}", "  ".repeat(depth), visible(words)));
    line(1, &evidence.reason);
    for reading in &evidence.readings {
        line(1, reading);
    }
    if !evidence.tried.is_empty() {
        line(1, "tried:");
    }
    for tried in &evidence.tried {
        let why = if tried.why.is_empty() { String::new() } else { format!(": {}", tried.why) };
        line(2, &format!("{} {}{why}", tried.step, tried.outcome));
    }
    for seen in &evidence.seen {
        line(1, &format!("{} wrote last:", seen.step));
        seen.lines.iter().for_each(|written| line(2, written));
    }
    line(1, "next:");
    evidence.next.iter().for_each(|command| line(2, command));
    text
}

fn reading(out: &Output, name: &str, clock: &v1::Clock) -> String {
    let total = clock.total_ms.map_or_else(|| "-".to_owned(), span);
    let phase = clock.phase_ms.map_or_else(String::new, |ms| format!("  (this phase {})", span(ms)));
    format!(
        "{name:<12} {total:>12}  of {:>2} min  {}{phase}",
        clock.target_ms / 60_000,
        out.paint(Tone::of(&clock.verdict), &clock.verdict)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_report_has_the_three_clocks_and_the_timeline() {
        let clock = |total, phase, minutes: u64, verdict: &str| {
            Some(v1::Clock {
                total_ms: total,
                phase_ms: phase,
                target_ms: minutes * 60_000,
                verdict: verdict.to_owned(),
            })
        };
        let incident = v1::Incident {
            id: "inc_1".into(),
            title: "HostServiceDown on web-1".into(),
            host: "web-1".into(),
            state: "closed".into(),
            opened_at: 1_600_000_000_000,
            closed_at: 1_600_000_012_000,
            runs: vec!["run_1".into()],
            clocks: Some(v1::Clocks {
                onset_at: 1_599_999_980_000,
                onset_confidence: "learnt".into(),
                onset_uncertainty_ms: 8_000,
                onset_learnt_from: "node.yml:12".into(),
                detect: clock(Some(20_000), Some(20_000), 1, "in time"),
                investigate: clock(Some(21_200), Some(1_200), 5, "in time"),
                remediate: clock(None, None, 10, "running"),
            }),
            timeline: vec![v1::TimelineEntry {
                at: 1_600_000_000_000,
                who: "source alertmanager".into(),
                text: "HostServiceDown is firing\nfor web-1".into(),
            }],
            evidence: vec![v1::Evidence {
                run: "run_1".into(),
                host: "web-1".into(),
                runbook: "host/service-down".into(),
                ending: "unverified".into(),
                reason: "the symptom is still there".into(),
                tried: vec![v1::Tried {
                    step: "remediate/restart".into(),
                    outcome: "failed".into(),
                    why: "it exited with 1".into(),
                }],
                readings: vec!["`unit(\"app\").active` is false".into()],
                seen: vec![v1::Seen { step: "diagnose/log".into(), lines: vec!["out of memory".into()] }],
                next: vec!["fettle logs run_1".into()],
            }],
            ..Default::default()
        };
        insta::assert_snapshot!(report(&Output::plain(Format::Table), &incident), @r#"
        HostServiceDown on web-1  closed  inc_1
          host:    web-1
          opened:  2020-09-13 12:26:40Z
          closed:  2020-09-13 12:26:52Z
          run:     run_1

        Clocks, from 2020-09-13 12:26:20Z, give or take 8.0 s (learnt from rules node.yml:12)
          detect             20.0 s  of  1 min  in time  (this phase 20.0 s)
          investigate        21.2 s  of  5 min  in time  (this phase 1.2 s)
          remediate               -  of 10 min  running

        Timeline
          TIME       WHO                  WHAT
          12:26:40Z  source alertmanager  HostServiceDown is firing\nfor web-1

        Look at web-1: host/service-down unverified  run_1
          the symptom is still there
          `unit("app").active` is false
          tried:
            remediate/restart failed: it exited with 1
          diagnose/log wrote last:
            out of memory
          next:
            fettle logs run_1
        "#);
    }
}
