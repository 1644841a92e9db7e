//! A small organisation: four persons, a certified runbook, a plan, a gate. Everything in it is fixed, keys too.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use fettle_proto::grant::{self, Grant, GrantInput, Permit};
use fettle_proto::signed::start::Of;
use fettle_proto::signed::{
    self, Again, Approval, Certificate, Certified, Decision, Factor, Leaf, Login, Namespace, Person,
    PrivateKey, Request, Roster, Rule, Scope, Signed, Start, Started, Tag, Trust, Until, certified, digest,
    sign,
};
use fettle_proto::{Refusal, merkle};
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::plan::{self, Plan, PlannedStep, PlannedUndo, PlannedWork};
use fettle_runbooks::runbook::{self, Escalate, OnFailure, Repeat, Retry, Risk};
use fettle_runbooks::unit::Verb;
use jiff::Timestamp;

pub(crate) const RUNBOOK: &[u8] = b"fettle: 1\nrunbook: host/disk-full\n";
pub(crate) const BOOT: &str = "6f2c5a0e-1111-4222-8333-444455556666";
pub(crate) const FROM: &str = "remediate/purge";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(crate) fn now() -> Timestamp {
    at("2026-11-21T18:05:00Z")
}

/// Making a key costs more than signing with it.
static KEYS: LazyLock<Vec<PrivateKey>> =
    LazyLock::new(|| (0..=10).map(|seed| PrivateKey::from_seed([seed; 32], "golden")).collect());

/// The key of a person of [`roster`], or of nobody for another name.
pub(crate) fn key_of(person: &str) -> PrivateKey {
    KEYS[match person {
        "ana" => 1,
        "ben" => 2,
        "cleo" => 3,
        "dan" => 4,
        "eve" => 5,
        "root" => 9,
        _ => 10,
    }]
    .clone()
}

pub(crate) fn person(name: &str, groups: &[&str], scopes: &[Scope]) -> Person {
    Person {
        name: name.to_owned(),
        keys: vec![key_of(name).public()],
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        scopes: scopes.iter().copied().collect(),
    }
}

pub(crate) fn roster() -> Roster {
    Roster {
        version: 3,
        expires: at("2027-01-01T00:00:00Z"),
        persons: vec![
            person("ana", &["dba-oncall"], &[Scope::Start, Scope::Approve]),
            person("ben", &["dba-oncall"], &[Scope::Approve]),
            person("cleo", &["duty-manager"], &[Scope::Approve, Scope::Review]),
            person("dan", &[], &[Scope::Approve, Scope::Review, Scope::Operate]),
            person("eve", &[], &[Scope::Start]),
        ],
        rules: vec![Rule { risk: Risk::Critical, need: 1, from: ["duty-manager".to_owned()].into() }],
        reviewers_needed: 1,
    }
}

pub(crate) fn trust() -> Trust {
    Trust { ca_der: vec![0x30, 0x03, 0x02, 0x01, 0x05], roots: vec![key_of("root").public()] }
}

pub(crate) fn certificate(author: &str, reviewer: &str) -> Certificate {
    Certificate {
        runbook: "host/disk-full".to_owned(),
        runbook_digest: digest(Tag::Runbook, RUNBOOK),
        author: author.to_owned(),
        reviewer: reviewer.to_owned(),
        at: at("2026-11-01T09:00:00Z"),
    }
}

pub(crate) fn certify(certificate: &Certificate, by: &str) -> Signed {
    sign(&key_of(by), Namespace::Runbook, &certificate.encode()).expect("signs")
}

fn certified_by_cleo() -> Certified {
    static CERTIFIED: LazyLock<Certified> = LazyLock::new(make_certified);
    CERTIFIED.clone()
}

fn make_certified() -> Certified {
    certified(RUNBOOK, &[certify(&certificate("dan", "cleo"), "cleo")], &roster(), now()).expect("certified")
}

pub(crate) fn run() -> RunId {
    "run_01930000000070008000000000000001".parse().expect("a run id")
}

pub(crate) fn host() -> Host {
    "web-1".parse().expect("a host")
}

pub(crate) fn inputs() -> BTreeMap<String, String> {
    [("mount".to_owned(), "/var".to_owned()), ("max_used".to_owned(), "85".to_owned())].into()
}

pub(crate) fn login() -> Login {
    Login {
        controller: "fettle.example".to_owned(),
        challenge: [0xab; 32],
        person: "ana".to_owned(),
        expires: at("2026-11-21T18:06:00Z"),
    }
}

pub(crate) fn start() -> Start {
    Start {
        run: run(),
        runbook: "host/disk-full".to_owned(),
        runbook_digest: digest(Tag::Runbook, RUNBOOK),
        inputs: inputs(),
        hosts: [host(), "web-2".parse().expect("a host")].into(),
        person: "eve".to_owned(),
        at: at("2026-11-21T18:00:00Z"),
        until: Until::End,
        of: None,
    }
}

pub(crate) fn step(path: &str, risk: Risk, work: PlannedWork) -> PlannedStep {
    PlannedStep {
        path: path.to_owned(),
        risk,
        name: path.to_owned(),
        work,
        env: [("MOUNT".to_owned(), "/var".to_owned())].into(),
        cwd: "/".to_owned(),
        user: String::new(),
        sandbox: Default::default(),
        timeout: Duration::from_secs(120),
        retry: Retry { times: 2, first: Duration::from_millis(500), longest: Duration::from_secs(8) },
        repeat: Repeat::Safe,
        condition: Some("disk(inputs.mount).used_percent >= inputs.max_used".to_owned()),
        undo: PlannedUndo::None,
        check: None,
        on_failure: OnFailure::Stop,
        approval: None,
        outputs: BTreeMap::new(),
        done_in: None,
    }
}

pub(crate) fn plan() -> Plan {
    let vacuum = step(
        "remediate/vacuum",
        Risk::Low,
        PlannedWork::Argv(vec!["journalctl".to_owned(), "--vacuum-size=200M".to_owned()]),
    );
    let mut purge = step(
        FROM,
        Risk::High,
        PlannedWork::Script {
            source: "find \"$MOUNT\" -delete\n# \u{202e}\u{1b}[2J 'hidden'\n".to_owned(),
            interpreter: vec!["/bin/sh".to_owned(), "-eu".to_owned()],
        },
    );
    purge.undo = PlannedUndo::Work(PlannedWork::Argv(vec!["restore".to_owned(), "/var".to_owned()]));
    purge.repeat = Repeat::Never;
    purge.on_failure = OnFailure::Undo;
    purge.check = Some("file(\"/var/purged\").exists".to_owned());
    purge.approval = Some(runbook::Approval {
        from: vec!["dba-oncall".to_owned()],
        need: 1,
        within: Duration::from_secs(240),
        escalate: Some(Escalate { after: Duration::from_secs(90), to: vec!["duty-manager".to_owned()] }),
    });
    let mut settle = step("remediate/settle", Risk::Low, PlannedWork::Wait(Duration::from_secs(5)));
    settle.condition = None;
    settle.outputs = [("freed".to_owned(), "int(stdout)".to_owned())].into();
    let impossible =
        step("remediate/extend", Risk::Low, PlannedWork::Impossible("steps.lv.name is not known".to_owned()));
    let below = step(
        "verify/below",
        Risk::Read,
        PlannedWork::That {
            condition: "disk(inputs.mount).used_percent < inputs.max_used".to_owned(),
            within: Duration::from_secs(60),
            stable_for: Duration::from_secs(10),
            every: Duration::from_secs(1),
        },
    );
    Plan {
        agent: host(),
        run: run(),
        nonce: "5e".repeat(32),
        boot: BOOT.to_owned(),
        runbook: "host/disk-full".to_owned(),
        runbook_digest: digest(Tag::Runbook, RUNBOOK),
        inputs: inputs(),
        evidence: [("usage.used".to_owned(), "97".to_owned())].into(),
        steps: vec![vacuum, purge, settle, impossible],
        verify: vec![below],
        of: None,
    }
}

/// A plan whose steps do something with units.
pub(crate) fn plan_with_units() -> Plan {
    let work = |verb, unit: &str| PlannedWork::Service { verb, unit: unit.parse().expect("a unit") };
    let mut restart = step("remediate/restart", Risk::Medium, work(Verb::Restart, "nginx.service"));
    restart.undo = PlannedUndo::Previous;
    restart.env.clear();
    let reload = step("remediate/reload", Risk::Low, work(Verb::Reload, "app@1.service"));
    Plan { runbook: "host/service-down".to_owned(), steps: vec![restart, reload], ..plan() }
}

pub(crate) fn leaf_of(plan_bytes: &[u8], plan: &Plan) -> Leaf {
    Leaf { agent: plan.agent.clone(), plan: signed::plan::digest_of(plan_bytes), nonce: plan.nonce.clone() }
}

pub(crate) fn request() -> Request {
    Case::new().request
}

pub(crate) fn approval(request: &[u8], person: &str) -> Approval {
    Approval {
        request: Request::digest(request),
        decision: Decision::Approve,
        person: person.to_owned(),
        reason: "disk alarm, known cache".to_owned(),
        at: at("2026-11-21T18:03:00Z"),
    }
}

/// One grant, every part of which a test may spoil before it is checked.
pub(crate) struct Case {
    pub(crate) roster: Roster,
    pub(crate) host: Host,
    pub(crate) run: RunId,
    /// What the host has.
    pub(crate) plan: Plan,
    pub(crate) nonce: String,
    pub(crate) boot: String,
    /// The attempt that it does not know the outcome of.
    pub(crate) unknown: Option<u32>,
    pub(crate) from: String,
    pub(crate) certified: Option<Certified>,
    pub(crate) started: Option<Started>,
    pub(crate) also_from: Option<Risk>,
    pub(crate) now: Timestamp,
    /// What people were asked.
    pub(crate) request: Request,
    pub(crate) leaf_index: u64,
    pub(crate) path: Vec<merkle::Hash>,
    /// Who says yes, and with whose key.
    pub(crate) approvals: Vec<(Approval, &'static str)>,
    /// The last word before the check.
    pub(crate) spoil: fn(&mut Grant),
}

impl Case {
    /// A run that `eve` started on two hosts, `dan` wrote, `cleo` certified, and `ana` approves.
    pub(crate) fn new() -> Case {
        let plan = plan();
        let ours = leaf_of(&signed::plan::encode(&plan), &plan).hash();
        let other = Leaf {
            agent: "web-2".parse().expect("a host"),
            plan: digest(Tag::Plan, b"another"),
            nonce: "00".repeat(32),
        };
        let leaves = [other.hash(), ours];
        static STARTED: LazyLock<Started> = LazyLock::new(|| {
            let start = sign(&key_of("eve"), Namespace::Start, &start().encode()).expect("signs");
            Start::verify(&start, &roster(), now()).expect("a start")
        });
        let (roster, started) = (roster(), STARTED.clone());
        let request = Request {
            run: run(),
            gate: "gate_01930000000070008000000000000002".parse().expect("a gate id"),
            runbook: "host/disk-full".to_owned(),
            runbook_digest: digest(Tag::Runbook, RUNBOOK),
            start: Some(started.digest()),
            requester: Some("eve".to_owned()),
            factors: vec![Factor {
                from: ["dba-oncall".to_owned(), "duty-manager".to_owned()].into(),
                need: 1,
            }],
            decide_by: at("2026-11-21T18:04:00Z"),
            start_by: at("2026-11-21T18:10:00Z"),
            root: merkle::root(&leaves),
            leaves: 2,
            risk: Risk::High,
            again: None,
        };
        let approvals = vec![(approval(&request.encode(), "ana"), "ana")];
        Case {
            roster,
            host: host(),
            run: run(),
            nonce: plan.nonce.clone(),
            boot: BOOT.to_owned(),
            unknown: None,
            plan,
            from: FROM.to_owned(),
            certified: Some(certified_by_cleo()),
            started: Some(started),
            also_from: None,
            now: now(),
            request,
            leaf_index: 1,
            path: merkle::path(&leaves, 1).expect("a leaf"),
            approvals,
            spoil: |_| {},
        }
    }

    /// The same people say yes to the request as it is now.
    pub(crate) fn approved_by(mut self, persons: &[&'static str]) -> Case {
        let request = self.request.encode();
        self.approvals = persons.iter().map(|&person| (approval(&request, person), person)).collect();
        self
    }

    pub(crate) fn check(&self) -> Result<Permit, Refusal> {
        let approvals = self
            .approvals
            .iter()
            .map(|(approval, by)| sign(&key_of(by), Namespace::Approval, &approval.encode()).expect("signs"))
            .collect();
        let mut grant = Grant {
            request: self.request.encode(),
            approvals,
            leaf_index: self.leaf_index,
            leaf_count: self.request.leaves,
            merkle_path: self.path.clone(),
        };
        (self.spoil)(&mut grant);
        let plan = signed::plan::encode(&self.plan);
        grant::check(&GrantInput {
            grant: &grant,
            roster: &self.roster,
            host: &self.host,
            run: self.run,
            plan: &plan,
            nonce: &self.nonce,
            boot: &self.boot,
            unknown: self.unknown,
            from: &self.from,
            certified: self.certified.as_ref(),
            started: self.started.as_ref(),
            also_from: self.also_from,
            now: self.now,
        })
    }
}

/// One format.
pub(crate) type Format = (&'static str, Vec<u8>, Option<Tag>, Option<(Namespace, &'static str)>);

/// Bytes of every format, under its name, with the namespace it is signed in if people sign it. Made once.
pub(crate) fn formats() -> Vec<Format> {
    static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(make_formats);
    FORMATS.clone()
}

/// Eve goes on from a run, of one step of which people have found out that it did not run.
fn follow_up() -> Start {
    let found = [((host(), FROM.to_owned()), false), ((host(), "remediate/vacuum/undo".to_owned()), true)];
    let reason = "the disk \"filled\" again".to_owned();
    Start { of: Some(Of { run: earlier(), how: FollowUp::Retry, reason, found: found.into() }), ..start() }
}

fn earlier() -> RunId {
    "run_01930000000070008000000000000000".parse().expect("a run id")
}

/// A retry whose first step was done in the run that it goes on from.
fn plan_of_retry() -> Plan {
    let says = vec!["1 step was done and is not run again".to_owned(), format!("it resumes at {FROM}")];
    let mut plan = Plan { of: Some(plan::Of { run: earlier(), how: FollowUp::Retry, says }), ..plan() };
    plan.steps[0].done_in = Some(earlier());
    plan
}

/// The undo of a run whose one step has an undo.
fn plan_of_undo() -> Plan {
    let mut undo = step(
        "remediate/purge/undo",
        Risk::High,
        PlannedWork::Argv(vec!["restore".to_owned(), "/var".to_owned()]),
    );
    undo.done_in = Some(earlier());
    let of = plan::Of { run: earlier(), how: FollowUp::Undo, says: Vec::new() };
    Plan { of: Some(of), steps: vec![undo], verify: Vec::new(), ..plan() }
}

/// People are asked to let a step run again.
fn request_again() -> Request {
    Request { again: Some(Again { path: FROM.to_owned(), attempt: 1, boot: BOOT.to_owned() }), ..request() }
}

fn make_formats() -> Vec<Format> {
    let plan = plan();
    let plan_bytes = signed::plan::encode(&plan);
    let request = request().encode();
    let approval = approval(&request, "ana").encode();
    vec![
        ("trust", trust().encode(), Some(Tag::Trust), None),
        ("roster", roster().encode(), Some(Tag::Roster), Some((Namespace::Roster, "root"))),
        (
            "certificate",
            certificate("dan", "cleo").encode(),
            Some(Tag::Certificate),
            Some((Namespace::Runbook, "cleo")),
        ),
        ("login", login().encode(), None, Some((Namespace::Login, "ana"))),
        ("start", start().encode(), Some(Tag::Start), Some((Namespace::Start, "eve"))),
        ("leaf", leaf_of(&plan_bytes, &plan).encode(), Some(Tag::Leaf), None),
        ("plan", plan_bytes, Some(Tag::Plan), None),
        ("plan-units", signed::plan::encode(&plan_with_units()), Some(Tag::Plan), None),
        ("request", request, Some(Tag::Request), None),
        ("approval", approval, Some(Tag::Approval), Some((Namespace::Approval, "ana"))),
        ("start-follow-up", follow_up().encode(), Some(Tag::Start), Some((Namespace::Start, "eve"))),
        ("plan-retry", signed::plan::encode(&plan_of_retry()), Some(Tag::Plan), None),
        ("plan-undo", signed::plan::encode(&plan_of_undo()), Some(Tag::Plan), None),
        ("request-again", request_again().encode(), Some(Tag::Request), None),
    ]
}
