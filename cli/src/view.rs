//! Things as programs see them: one JSON shape per message of the API, with times as RFC 3339 and digests as text.

use fettle_proto::v1;
use serde_json::{Value, json};

use crate::output::time_json;

/// A run with its hosts.
pub fn run(run: &v1::Run) -> Value {
    json!({
        "id": run.id, "runbook": run.runbook, "runbook_digest": digest(&run.runbook_digest), "certified": run.certified,
        "inputs": run.inputs, "origin": run.origin, "incident": or_null(&run.incident), "mode": run.mode,
        "created_at": time_json(run.created_at), "ended_at": time_json(run.ended_at),
        "hosts": run.hosts.iter().map(host_run).collect::<Vec<_>>(),
        "of": run.of.as_ref().map(follow_up),
        "follow_ups": run.follow_ups.iter().map(follow_up).collect::<Vec<_>>(),
    })
}

fn follow_up(of: &v1::FollowUp) -> Value {
    json!({
        "run": of.run, "how": of.how, "origin": of.origin, "reason": or_null(&of.reason), "hosts": of.hosts,
        "created_at": time_json(of.created_at),
    })
}

fn host_run(host: &v1::HostRun) -> Value {
    json!({
        "host": host.host, "state": host.state, "waiting_for": or_null(&host.waiting_for),
        "ending": or_null(&host.ending), "reason": or_null(&host.reason), "gate": or_null(&host.gate),
        "plan_digest": digest(&host.plan_digest), "plan": embedded(&host.plan), "agent_connected": host.agent_connected,
        "resolve": or_null(&host.resolve), "again": host.again, "found": host.found,
        "cancelled": host.cancelled,
        "pause": host.pause.as_ref().map(|pause| json!({
            "on": pause.on, "confirmed": pause.confirmed, "reason": or_null(&pause.reason),
        })),
        "steps": host.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(step: &v1::StepView) -> Value {
    json!({
        "path": step.path, "attempt": step.attempt, "risk": step.risk, "state": step.state,
        "message": or_null(&step.message), "started_at": time_json(step.started_at),
        "ended_at": time_json(step.ended_at), "exit_code": step.exit_code, "outputs": step.outputs,
    })
}

/// A gate.
pub fn gate(gate: &v1::Gate) -> Value {
    json!({
        "id": gate.id, "run": gate.run, "incident": or_null(&gate.incident), "runbook": gate.runbook,
        "state": gate.state, "reason": or_null(&gate.reason), "request": embedded(&gate.request),
        "opened_at": time_json(gate.opened_at), "decide_by": time_json(gate.decide_by),
        "start_by": time_json(gate.start_by), "waits_for": gate.waits_for,
        "plans": gate.plans.iter().map(|plan| json!({
            "host": plan.host, "from": plan.from, "plan": embedded(&plan.plan),
        })).collect::<Vec<_>>(),
        "decisions": gate.decisions.iter().map(|decision| json!({
            "person": decision.person, "decision": decision.decision, "reason": or_null(&decision.reason),
            "at": time_json(decision.at),
        })).collect::<Vec<_>>(),
    })
}

/// A signal with its trail.
pub fn signal(signal: &v1::Signal) -> Value {
    json!({
        "id": or_null(&signal.id), "source": signal.source, "fingerprint": signal.fingerprint,
        "status": signal.status, "name": signal.name, "labels": signal.labels, "annotations": signal.annotations,
        "starts_at": time_json(signal.starts_at), "ends_at": time_json(signal.ends_at),
        "received_at": time_json(signal.received_at), "incident": or_null(&signal.incident),
        "run": or_null(&signal.run), "host": or_null(&signal.host),
        "trail": signal.trail.iter().map(|verdict| json!({
            "at": time_json(verdict.at), "asked": verdict.asked, "answer": verdict.answer, "reason": verdict.reason,
        })).collect::<Vec<_>>(),
    })
}

/// An incident with its clocks and timeline.
pub fn incident(incident: &v1::Incident) -> Value {
    let clock = |clock: &Option<v1::Clock>| match clock {
        Some(clock) => json!({
            "total_ms": clock.total_ms, "phase_ms": clock.phase_ms, "target_ms": clock.target_ms,
            "verdict": clock.verdict,
        }),
        None => Value::Null,
    };
    json!({
        "id": incident.id, "title": incident.title, "host": incident.host, "state": incident.state,
        "opened_at": time_json(incident.opened_at), "closed_at": time_json(incident.closed_at),
        "signals": incident.signals, "runs": incident.runs,
        "clocks": incident.clocks.as_ref().map(|clocks| json!({
            "onset_at": time_json(clocks.onset_at), "onset_confidence": clocks.onset_confidence,
            "onset_uncertainty_ms": clocks.onset_uncertainty_ms,
            "onset_learnt_from": or_null(&clocks.onset_learnt_from),
            "detect": clock(&clocks.detect), "investigate": clock(&clocks.investigate),
            "remediate": clock(&clocks.remediate),
        })),
        "timeline": incident.timeline.iter().map(|entry| json!({
            "at": time_json(entry.at), "who": entry.who, "text": entry.text,
        })).collect::<Vec<_>>(),
        "evidence": incident.evidence.iter().map(evidence).collect::<Vec<_>>(),
    })
}

fn evidence(evidence: &v1::Evidence) -> Value {
    json!({
        "run": evidence.run, "host": evidence.host, "runbook": evidence.runbook, "ending": evidence.ending,
        "reason": evidence.reason, "readings": evidence.readings, "next": evidence.next,
        "tried": evidence.tried.iter().map(|it| json!({ "step": it.step, "outcome": it.outcome, "why": it.why }))
            .collect::<Vec<_>>(),
        "seen": evidence.seen.iter().map(|it| json!({ "step": it.step, "lines": it.lines })).collect::<Vec<_>>(),
    })
}

/// An agent.
pub fn agent(agent: &v1::Agent) -> Value {
    json!({
        "host": agent.host, "state": agent.state, "version": agent.version, "epoch": agent.epoch,
        "labels": agent.labels, "last_seen_at": time_json(agent.last_seen_at),
        "certificate_not_after": time_json(agent.certificate_not_after), "roster_version": agent.roster_version,
        "missing": agent.missing,
    })
}

/// A runbook of the library, without its bytes.
pub fn runbook(runbook: &v1::Runbook) -> Value {
    json!({
        "name": runbook.name, "title": runbook.title, "owner": runbook.owner, "digest": digest(&runbook.digest),
        "certified": runbook.certified, "certificates": runbook.certificates.len(), "triggers": runbook.triggers,
    })
}

/// A digest as text, or null.
pub fn digest(bytes: &[u8]) -> Value {
    match fettle_runbooks::id::Digest::from_bytes(bytes) {
        Ok(digest) => Value::String(digest.to_string()),
        Err(_) => Value::Null,
    }
}

/// The short form of a digest for a table: the first 12 hex digits.
pub fn short(bytes: &[u8]) -> String {
    bytes.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of a signed format are JSON: shown as such; anything else as text.
pub fn embedded(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) }
}
