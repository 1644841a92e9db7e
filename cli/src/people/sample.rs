//! A gate as a controller would show it, for tests: the plan of one host, every kind of work in it, values that would
//! deceive a terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_proto::signed::{
    self, Certificate, Factor, Leaf, Namespace, Person, PrivateKey, Request, Roster, Scope, Start, Tag,
    Until, digest, plan, sign,
};
use fettle_proto::{merkle, v1};
use fettle_runbooks::plan::{Plan, PlannedStep, PlannedUndo, PlannedWork};
use fettle_runbooks::runbook::{OnFailure, Repeat, Retry, Risk};
use jiff::Timestamp;

pub(super) const GATE: &str = "gate_01930000000070008000000000000002";
pub(super) const RUNBOOK: &[u8] = b"fettle: 1\n";

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(super) fn now() -> Timestamp {
    at("2026-11-21T18:02:00Z")
}

fn key(person: &str) -> PrivateKey {
    let mut seed = [0; 32];
    seed[..person.len()].copy_from_slice(person.as_bytes());
    PrivateKey::from_seed(seed, person)
}

pub(super) fn roster() -> Roster {
    let person = |name: &str, groups: &[&str], scopes: &[Scope]| Person {
        name: name.to_owned(),
        keys: vec![key(name).public()],
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        scopes: scopes.iter().copied().collect(),
    };
    Roster {
        version: 3,
        expires: at("2027-01-01T00:00:00Z"),
        persons: vec![
            person("ana", &["dba-oncall"], &[Scope::Approve]),
            person("cleo", &[], &[Scope::Approve, Scope::Review]),
            person("dan", &[], &[Scope::Approve]),
            person("eve", &[], &[Scope::Approve, Scope::Start]),
            person("fay", &[], &[]),
        ],
        rules: vec![],
        reviewers_needed: 1,
    }
}

fn step(path: &str, risk: Risk, work: PlannedWork) -> PlannedStep {
    PlannedStep {
        path: path.to_owned(),
        risk,
        name: path.rsplit('/').next().unwrap_or(path).to_owned(),
        work,
        env: BTreeMap::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        sandbox: Default::default(),
        timeout: Duration::from_secs(120),
        retry: Retry::default(),
        repeat: Repeat::Safe,
        condition: None,
        undo: PlannedUndo::None,
        check: None,
        on_failure: OnFailure::Stop,
        approval: None,
        outputs: BTreeMap::new(),
        done_in: None,
    }
}

pub(crate) fn sample_plan() -> Plan {
    let vacuum = step(
        "remediate/vacuum",
        Risk::Low,
        PlannedWork::Argv(vec!["journalctl".to_owned(), "--vacuum-size=200M".to_owned()]),
    );
    let mut purge = step(
        "remediate/purge",
        Risk::High,
        PlannedWork::Script {
            source: "find \"$MOUNT\" -type f -delete\necho '\u{1b}[2J\u{202e}harmless'\n".to_owned(),
            interpreter: vec!["/bin/sh".to_owned(), "-eu".to_owned()],
        },
    );
    purge.env = [("MOUNT".to_owned(), "/var\r\u{1b}]0;x".to_owned())].into();
    purge.condition = Some("disk(inputs.mount).used_percent >= 85".to_owned());
    purge.user = "app".to_owned();
    purge.repeat = Repeat::Never;
    purge.check = Some("file(\"/var/purged\").exists".to_owned());
    purge.on_failure = OnFailure::Undo;
    purge.undo = PlannedUndo::Work(PlannedWork::Argv(vec!["restore".to_owned(), "from here".to_owned()]));
    let below = step(
        "verify/below",
        Risk::Read,
        PlannedWork::That {
            condition: "disk(inputs.mount).used_percent < 85".to_owned(),
            within: Duration::from_secs(60),
            stable_for: Duration::from_secs(10),
            every: Duration::from_secs(1),
        },
    );
    Plan {
        agent: "web-1".parse().expect("a host"),
        run: "run_01930000000070008000000000000001".parse().expect("a run id"),
        nonce: "5e".repeat(32),
        boot: "6f2c5a0e-1111-4222-8333-444455556666".to_owned(),
        runbook: "host/disk-full".to_owned(),
        runbook_digest: digest(Tag::Runbook, RUNBOOK),
        inputs: [("mount".to_owned(), "/var".to_owned())].into(),
        evidence: [("usage.used".to_owned(), "97".to_owned())].into(),
        steps: vec![vacuum, purge],
        verify: vec![below],
        of: None,
    }
}

/// The gate of these plan bytes; started by `eve`, written by `dan`, certified by `cleo`.
pub(super) fn gate_of(plan: &Plan, change: impl FnOnce(&mut Request)) -> v1::Gate {
    let plan_bytes = plan::encode(plan);
    let leaf =
        Leaf { agent: plan.agent.clone(), plan: plan::digest_of(&plan_bytes), nonce: plan.nonce.clone() };
    let start = Start {
        run: plan.run,
        runbook: plan.runbook.clone(),
        runbook_digest: plan.runbook_digest,
        inputs: plan.inputs.clone(),
        hosts: [plan.agent.clone()].into(),
        person: "eve".to_owned(),
        at: at("2026-11-21T18:00:00Z"),
        until: Until::End,
        of: None,
    };
    let start = sign(&key("eve"), Namespace::Start, &start.encode()).expect("signs");
    let certificate = Certificate {
        runbook: plan.runbook.clone(),
        runbook_digest: plan.runbook_digest,
        author: "dan".to_owned(),
        reviewer: "cleo".to_owned(),
        at: at("2026-11-01T00:00:00Z"),
    };
    let certificate = sign(&key("cleo"), Namespace::Runbook, &certificate.encode()).expect("signs");
    let mut request = Request {
        run: plan.run,
        gate: GATE.parse().expect("a gate id"),
        runbook: plan.runbook.clone(),
        runbook_digest: plan.runbook_digest,
        start: Some(digest(Tag::Start, &start.bytes)),
        requester: Some("eve".to_owned()),
        factors: vec![Factor { from: ["dba-oncall".to_owned()].into(), need: 1 }],
        decide_by: at("2026-11-21T18:06:00Z"),
        start_by: at("2026-11-21T18:16:00Z"),
        root: merkle::root(&[leaf.hash()]),
        leaves: 1,
        risk: Risk::High,
        again: None,
    };
    change(&mut request);
    v1::Gate {
        id: GATE.to_owned(),
        run: plan.run.to_string(),
        incident: "inc_01930000000070008000000000000003".to_owned(),
        runbook: plan.runbook.clone(),
        state: "open".to_owned(),
        request: request.encode().into(),
        plans: vec![v1::GatePlan {
            host: plan.agent.to_string(),
            plan: plan_bytes.into(),
            nonce: plan.nonce.clone(),
            from: "remediate/purge".to_owned(),
        }],
        runbook_bytes: RUNBOOK.into(),
        certificates: vec![signed::Signed::into(certificate)],
        start: Some(start.into()),
        waits_for: vec!["1 of dba-oncall: ana\u{7}".to_owned()],
        ..v1::Gate::default()
    }
}

pub(super) fn gate() -> v1::Gate {
    gate_of(&sample_plan(), |_| {})
}
