//! `fettle status`

use std::collections::BTreeSet;

use fettle_proto::v1;
use serde_json::json;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, time, visible};
use crate::view;

pub(super) async fn run(context: &Context) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let status = answer(context, calls.get_status(v1::GetStatusRequest {})).await?;
    let data = json!({
        "version": status.version, "gates": status.gates.iter().map(view::gate).collect::<Vec<_>>(),
        "runs": status.runs.iter().map(view::run).collect::<Vec<_>>(),
        "agents_connected": status.agents_connected, "agents_away": status.agents_away,
        "incidents_open": status.incidents_open, "warnings": status.warnings,
    });
    context.output.show(&data, || page(&context.output, &status))?;
    Ok(Exit::Done)
}

fn page(out: &Output, status: &v1::Status) -> String {
    let mut text = String::new();
    for warning in &status.warnings {
        text.push_str(&format!("{}\n", out.paint(Tone::Warn, &format!("warning: {warning}"))));
    }
    if status.gates.is_empty() {
        text.push_str("No gate waits for anyone.\n");
    } else {
        text.push_str(&format!("{}\n", out.paint(Tone::Strong, "Waiting for people")));
        let mut table = Table::new(&["GATE", "RUNBOOK", "HOST", "DECIDE BY", "WAITS FOR"], "");
        for gate in &status.gates {
            let hosts: Vec<&str> = gate.plans.iter().map(|plan| plan.host.as_str()).collect();
            table.row([
                gate.id.clone(),
                gate.runbook.clone(),
                hosts.join(" "),
                time(gate.decide_by),
                gate.waits_for.join("; "),
            ]);
        }
        text.push_str(&table.render(out));
        text.push_str("→ fettle approve GATE, or fettle reject GATE --reason …\n");
    }
    let looks: Vec<String> =
        status.runs.iter().map(super::stop::waiting).filter(|text| !text.is_empty()).collect();
    if !looks.is_empty() {
        text.push_str(&format!("\n{}\n", out.paint(Tone::Strong, "Waiting for somebody to look")));
        text.push_str(&looks.join("\n"));
        text.push('\n');
    }
    text.push('\n');
    if status.runs.is_empty() {
        text.push_str("Nothing runs.\n");
    } else {
        text.push_str(&format!("{}\n", out.paint(Tone::Strong, "Open runs")));
        text.push_str(&super::run::table(&status.runs, "").render(out));
        let lost: BTreeSet<String> =
            status.runs.iter().flat_map(|run| &run.hosts).filter_map(super::stop::if_lost).collect();
        lost.iter().for_each(|lost| text.push_str(&format!("→ {lost}\n")));
    }
    text.push_str(&format!(
        "\n{} agents connected, {} away{}; {} incidents open; controller {}",
        status.agents_connected,
        status.agents_away.len(),
        if status.agents_away.is_empty() {
            String::new()
        } else {
            format!(" ({})", visible(&status.agents_away.join(", ")))
        },
        status.incidents_open,
        visible(&status.version),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn what_waits_for_people_comes_first() {
        let status = v1::Status {
            version: "0.1.0".into(),
            gates: vec![v1::Gate {
                id: "gate_1".into(),
                runbook: "host/service-down".into(),
                decide_by: 1_600_000_000_000,
                plans: vec![v1::GatePlan { host: "web-1".into(), ..Default::default() }],
                waits_for: vec!["1 of oncall".into()],
                ..Default::default()
            }],
            agents_connected: 3,
            agents_away: vec!["web-9".into()],
            incidents_open: 1,
            warnings: vec!["policy/modes.yaml is refused; the one before it is in force".into()],
            ..Default::default()
        };
        insta::assert_snapshot!(page(&Output::plain(Format::Table), &status), @r"
        warning: policy/modes.yaml is refused; the one before it is in force
        Waiting for people
        GATE    RUNBOOK            HOST   DECIDE BY             WAITS FOR
        gate_1  host/service-down  web-1  2020-09-13 12:26:40Z  1 of oncall
        → fettle approve GATE, or fettle reject GATE --reason …

        Nothing runs.

        3 agents connected, 1 away (web-9); 1 incidents open; controller 0.1.0
        ");
    }
}
