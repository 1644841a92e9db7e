//! What people are shown: rows and history as messages, and each change as one line.

mod line;

use std::collections::BTreeMap;

use fettle_proto::signed::Roster;
use fettle_proto::signed::words::risk_word;
use fettle_proto::{signed, v1};
use fettle_runbooks::id::Host;
use fettle_runbooks::run::{Ending, State, Wait};

use crate::evidence;
use crate::gate;
use crate::incident::{self, Clock};
use crate::model::row::{AgentRow, GateRow, GateState, HostRunRow, IncidentRow, RunRow, SignalRow, StepRow};
use crate::store::{Record, RunParts};
use crate::world::At;

pub use line::{Line, line};

fn digest_bytes(digest: &fettle_runbooks::id::Digest) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&digest.0)
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

fn ms(at: Option<At>) -> i64 {
    at.map_or(0, |at| at.0)
}

/// A run; its plans and steps only where `whole`.
pub fn run(parts: &RunParts, connected: &dyn Fn(&Host) -> bool, whole: bool) -> v1::Run {
    let row = &parts.run;
    v1::Run {
        id: row.id.to_string(),
        runbook: row.runbook.clone(),
        runbook_digest: digest_bytes(&row.runbook_digest),
        certified: row.certified,
        inputs: row.inputs.clone().into_iter().collect(),
        origin: row.origin.to_string(),
        incident: text(row.incident.as_ref()),
        mode: row.mode.word().to_owned(),
        created_at: row.created_at.0,
        ended_at: ms(row.ended_at),
        hosts: parts.hosts.iter().map(|host| host_run(host, &parts.steps, connected, whole)).collect(),
        of: row.of.as_ref().map(|of| v1::FollowUp { run: of.run.to_string(), ..follow_up(row) }),
        follow_ups: Vec::new(),
    }
}

/// A run that goes on from another, as that one names it.
pub fn follow_up(row: &RunRow) -> v1::FollowUp {
    v1::FollowUp {
        run: row.id.to_string(),
        how: row.of.as_ref().map(|of| of.how.word()).unwrap_or_default().to_owned(),
        origin: row.origin.to_string(),
        reason: row.of.as_ref().map(|of| of.reason.clone()).unwrap_or_default(),
        hosts: row.hosts.iter().map(Host::to_string).collect(),
        created_at: row.created_at.0,
    }
}

fn host_run(
    row: &HostRunRow,
    steps: &[StepRow],
    connected: &dyn Fn(&Host) -> bool,
    whole: bool,
) -> v1::HostRun {
    let state = &row.machine.state;
    let plan = row.plan.as_ref();
    v1::HostRun {
        host: row.host.to_string(),
        state: state.word().to_owned(),
        waiting_for: state.waiting_for().unwrap_or_default().to_owned(),
        ending: row.machine.ended().map(|how| how.ending.word()).unwrap_or_default().to_owned(),
        reason: row.reason.clone(),
        gate: text(row.gate.as_ref()),
        plan_digest: plan.map(|plan| digest_bytes(&plan.digest)).unwrap_or_default(),
        plan: plan.filter(|_| whole).map(|plan| plan.bytes.bytes()).unwrap_or_default(),
        steps: if whole { step_views(row, steps) } else { Vec::new() },
        agent_connected: connected(&row.host),
        resolve: match state.wait() {
            Some(Wait::Resolve { path, .. }) => path.clone(),
            Some(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. }) | None => String::new(),
        },
        found: row.found.iter().map(|(path, ran)| (path.clone(), found_word(*ran).to_owned())).collect(),
        pause: paused(row),
        again: state.waiting_for() == Some("resolve") && row.machine.again.is_some(),
        cancelled: match row.machine.ended() {
            Some(how) => how.ending == Ending::Cancelled,
            None => !row.goes_on(),
        },
    }
}

fn found_word(ran: bool) -> &'static str {
    if ran { "ran" } else { "did-not-run" }
}

/// Whether it is paused, while that is of interest.
fn paused(row: &HostRunRow) -> Option<v1::PauseView> {
    let pause = &row.machine.pause;
    let told = row.goes_on() && (pause.on || !pause.is_confirmed());
    told.then(|| v1::PauseView {
        on: pause.on,
        confirmed: pause.is_confirmed(),
        reason: pause.reason.clone(),
    })
}

fn step_views(row: &HostRunRow, steps: &[StepRow]) -> Vec<v1::StepView> {
    let plan = row.plan.as_ref().and_then(|plan| signed::plan::decode(&plan.bytes.bytes()).ok());
    let planned = || plan.iter().flat_map(|plan| plan.steps.iter().chain(&plan.verify));
    let risks: BTreeMap<&str, &'static str> =
        planned().map(|step| (step.path.as_str(), risk_word(step.risk))).collect();
    let risk = |path: &str| {
        let of = path.strip_suffix("/undo").unwrap_or(path);
        risks.get(path).or_else(|| risks.get(of)).copied().unwrap_or("read").to_owned()
    };
    let mine: Vec<&StepRow> = steps.iter().filter(|step| step.host == row.host).collect();
    let mut views: Vec<v1::StepView> = mine
        .iter()
        .map(|step| v1::StepView {
            path: step.path.clone(),
            attempt: step.attempt,
            risk: risk(&step.path),
            state: step.state.clone(),
            message: step.message.clone(),
            started_at: ms(step.started_at),
            ended_at: ms(step.ended_at),
            exit_code: step.exit_code,
            outputs: step.outputs.clone().into_iter().collect(),
        })
        .collect();
    let over = matches!(row.machine.state, State::Ended(_));
    if !over {
        let waiting = planned().filter(|step| mine.iter().all(|known| known.path != step.path));
        views.extend(waiting.map(|step| v1::StepView {
            path: step.path.clone(),
            attempt: 0,
            risk: risk_word(step.risk).to_owned(),
            state: "pending".to_owned(),
            ..v1::StepView::default()
        }));
    }
    views
}

/// Kept output of a run's steps.
pub fn logs(parts: &RunParts, host: &str, path: &str) -> Vec<v1::StepLog> {
    let wanted = |step: &&StepRow| {
        (host.is_empty() || step.host.as_str() == host) && (path.is_empty() || step.path == path)
    };
    let shown = parts.steps.iter().filter(wanted);
    shown
        .map(|step| v1::StepLog {
            host: step.host.to_string(),
            path: step.path.clone(),
            attempt: step.attempt,
            stdout: Some((&step.stdout).into()),
            stderr: Some((&step.stderr).into()),
        })
        .collect()
}

/// A gate, with what its approver needs where the run is given.
pub fn gate(row: &GateRow, run: Option<&RunParts>, roster: Option<&Roster>) -> v1::Gate {
    let plan_of = |host: &Host| {
        let hosts = run.map(|parts| parts.hosts.as_slice()).unwrap_or_default();
        let plan = hosts.iter().find(|row| row.host == *host).and_then(|row| row.plan.as_ref());
        plan.map(|plan| plan.bytes.bytes()).unwrap_or_default()
    };
    let plans = row.leaves.iter().map(|leaf| v1::GatePlan {
        host: leaf.host.to_string(),
        plan: plan_of(&leaf.host),
        nonce: leaf.nonce.clone(),
        from: leaf.from.clone(),
    });
    let decisions = row.decisions.iter().map(|decision| v1::Decision {
        person: decision.person.clone(),
        decision: if decision.approves { "approve" } else { "deny" }.to_owned(),
        reason: decision.reason.clone(),
        at: decision.at.0,
        signed: Some((&decision.signed).into()),
    });
    v1::Gate {
        id: row.id.to_string(),
        run: row.run.to_string(),
        incident: text(row.incident.as_ref()),
        runbook: row.runbook.clone(),
        state: row.state.word().to_owned(),
        reason: row.reason.clone(),
        request: row.request.bytes(),
        plans: plans.collect(),
        runbook_bytes: run.map(|parts| parts.run.source.bytes()).unwrap_or_default(),
        certificates: run
            .map(|parts| parts.run.certificates.iter().map(v1::Signed::from).collect())
            .unwrap_or_default(),
        start: run.and_then(|parts| parts.run.start.as_ref()).map(v1::Signed::from),
        opened_at: row.opened_at.0,
        decide_by: row.decide_by.0,
        start_by: row.start_by.0,
        decisions: decisions.collect(),
        waits_for: waits_for(row, roster),
    }
}

/// Who may still decide, in words.
pub fn waits_for(row: &GateRow, roster: Option<&Roster>) -> Vec<String> {
    if row.state != GateState::Open {
        return Vec::new();
    }
    let Some(roster) = roster else { return vec!["nobody: no roster is in force".to_owned()] };
    let approvers = gate::approvers(&row.decisions, roster);
    let mut words: Vec<String> =
        gate::missing(&row.factors, &approvers, roster).iter().map(gate::describe).collect();
    words.extend(row.excluded.iter().map(|(person, why)| format!("not {person}, who {why}")));
    words
}

/// A signal, with its trail where `whole`.
pub fn signal(row: &SignalRow, whole: bool) -> v1::Signal {
    let signal = &row.signal;
    v1::Signal {
        id: row.id.to_string(),
        source: signal.source.clone(),
        fingerprint: signal.fingerprint.clone(),
        status: signal.status.word().to_owned(),
        name: signal.name.clone(),
        labels: signal.labels.clone().into_iter().collect(),
        annotations: signal.annotations.clone().into_iter().collect(),
        starts_at: ms(signal.starts_at),
        ends_at: ms(signal.ends_at),
        received_at: signal.received_at.0,
        incident: text(row.incident.as_ref()),
        run: text(row.run.as_ref()),
        host: text(row.host.as_ref()),
        trail: row
            .trail
            .iter()
            .filter(|_| whole)
            .map(|verdict| v1::Verdict {
                at: verdict.at.0,
                asked: verdict.asked.clone(),
                answer: verdict.answer.word().to_owned(),
                reason: verdict.reason.clone(),
            })
            .collect(),
    }
}

/// What happened, as far as it tells people anything.
pub fn timeline(history: &[Record]) -> impl Iterator<Item = v1::TimelineEntry> + '_ {
    history.iter().filter_map(|record| {
        let line = line(&record.change)?;
        Some(v1::TimelineEntry { at: record.at.0, who: line.who, text: line.text })
    })
}

/// An incident as it stands, with what happened in it.
pub fn incident(
    row: &IncidentRow,
    timeline: Vec<v1::TimelineEntry>,
    runs: &[RunParts],
    now: At,
) -> v1::Incident {
    let [detect, investigate, remediate] = incident::clocks(&row.readings, now);
    v1::Incident {
        id: row.id.to_string(),
        title: row.title.clone(),
        host: text(row.host.as_ref()),
        state: if row.closed.is_some() { "closed" } else { "open" }.to_owned(),
        opened_at: row.opened_at.0,
        closed_at: ms(row.closed.as_ref().map(|(at, _)| *at)),
        signals: row.signals.iter().map(ToString::to_string).collect(),
        runs: row.runs.iter().map(ToString::to_string).collect(),
        clocks: Some(v1::Clocks {
            onset_at: row.readings.onset.0,
            onset_confidence: row.readings.confidence.word().to_owned(),
            onset_uncertainty_ms: whole_ms(row.readings.uncertainty),
            onset_learnt_from: row.readings.learnt_from.clone().unwrap_or_default(),
            detect: Some(clock(detect)),
            investigate: Some(clock(investigate)),
            remediate: Some(clock(remediate)),
        }),
        timeline,
        evidence: runs.iter().flat_map(evidence).collect(),
    }
}

/// What is known of the hosts of a run that people must look at.
fn evidence(parts: &RunParts) -> Vec<v1::Evidence> {
    let ended = parts.hosts.iter().filter_map(|row| Some((row, row.machine.ended()?)));
    let wanted = ended.filter(|(_, how)| evidence::wanted(how.ending));
    let each = wanted.map(|(row, how)| {
        let evidence = evidence::of(&parts.run, row, &parts.steps);
        v1::Evidence {
            run: row.run.to_string(),
            host: row.host.to_string(),
            runbook: row.runbook.clone(),
            ending: how.ending.word().to_owned(),
            reason: evidence::plain(&row.reason, evidence::REASON),
            tried: evidence
                .tried
                .into_iter()
                .map(|it| v1::Tried { step: it.step, outcome: it.outcome, why: it.why })
                .collect(),
            readings: evidence.readings,
            seen: evidence.seen.into_iter().map(|it| v1::Seen { step: it.step, lines: it.lines }).collect(),
            next: evidence.next,
        }
    });
    each.collect()
}

fn whole_ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn clock(clock: Clock) -> v1::Clock {
    v1::Clock {
        total_ms: clock.total.map(whole_ms),
        phase_ms: clock.phase.map(whole_ms),
        target_ms: whole_ms(clock.target),
        verdict: clock.standing.word().to_owned(),
    }
}

/// A host's agent.
pub fn agent(row: &AgentRow) -> v1::Agent {
    let state = match (&row.revoked, row.connected) {
        (Some(_), _) => "revoked",
        (None, true) => "connected",
        (None, false) => "away",
    };
    v1::Agent {
        host: row.host.to_string(),
        state: state.to_owned(),
        version: row.version.clone(),
        epoch: row.epoch,
        labels: row.labels.clone().into_iter().collect(),
        last_seen_at: row.last_seen_at.0,
        certificate_not_after: row.not_after.0,
        roster_version: row.roster_version,
        missing: row.missing.clone(),
    }
}
