//! Who and what takes part: people with keys, the roster, the runbooks and the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fettle_controller::coordinator::RosterInForce;
use fettle_controller::policy::{GateTimes, Glob, Mode, ModeRule, Notify, Policy};
use fettle_controller::trigger::{Entry, Library};
use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{
    self, Certificate, Namespace, Person, PrivateKey, Roster, Rule, Scope, Signed, Tag, Trust,
};
use fettle_runbooks::runbook::Risk;

use crate::host::EPOCH_MS;

/// The symptom is there from this use of `/var` on, percent.
pub(crate) const TOO_FULL: f64 = 85.0;

/// What an alert triggers: a step without risk, a risky one that may not repeat, and a look whether it helped.
pub(crate) const MEND: &str = r#"fettle: 1
runbook: sim/mend
title: Reclaim space
owner: sim
description: |
  Vacuums, then purges what must not be purged twice.
on:
  - alert: DiskFull
    host: labels.instance
guard: { cooldown: 1s }
diagnose:
  - id: usage
    run: [sim, "take=300ms"]
    outputs: { code: exit_code }
remediate:
  - id: vacuum
    risk: low
    run: [sim, "lower=/var:4"]
    repeat: safe
    undo: none
  - id: purge
    risk: high
    if: disk("/var").used_percent >= 85
    run: [sim, "lower=/var:40"]
    timeout: 20s
    repeat: never
    undo: none
    approval: { need: 1, within: 3m }
verify:
  - id: below
    that: disk("/var").used_percent < 85
    within: 30s
    every: 2s
    stable_for: 4s
"#;

/// What people start by hand: steps that may repeat, that are probed, that are undone, that are tried again.
pub(crate) const TEND: &str = r#"fettle: 1
runbook: sim/tend
title: Tend a host by hand
owner: sim
description: |
  A step of each kind.
remediate:
  - id: safe
    risk: medium
    run: [sim, "lower=/var:1"]
    timeout: 15s
    repeat: safe
    retry: { times: 2, first: 2s }
    undo: none
    on_failure: continue
  - id: probed
    risk: low
    run: [sim, "lower=/var:30"]
    timeout: 15s
    repeat: never
    check: disk("/var").used_percent < 60
    undo: [sim, "raise=/var:30"]
    on_failure: undo
  - id: last
    risk: low
    run: [sim]
    timeout: 15s
    repeat: never
    undo: none
    on_failure: undo
verify:
  - id: below
    that: disk("/var").used_percent < 85
    within: 5s
"#;

/// Steps in a row that may not repeat, each with its own way of failing: what a retry goes on with and an undo takes back.
pub(crate) const WALK: &str = r#"fettle: 1
runbook: sim/walk
title: Go through a row of steps
owner: sim
description: |
  None of them may happen twice.
remediate:
  - id: one
    risk: low
    run: [sim, one]
    timeout: 15s
    repeat: never
    undo: [sim, not, one]
  - id: two
    risk: low
    run: [sim, two]
    env: { STEP: two }
    timeout: 15s
    repeat: never
    undo: [sim, not, two]
  - id: three
    risk: medium
    run: [sim, three]
    timeout: 15s
    repeat: never
    undo: none
verify:
  - id: below
    that: disk("/var").used_percent < 85
    within: 5s
"#;

/// What only looks.
pub(crate) const LOOK: &str = r#"fettle: 1
runbook: sim/look
title: Look at a host
owner: sim
description: |
  There is nothing to remediate.
diagnose:
  - id: usage
    run: [sim, "take=300ms"]
    outputs: { code: exit_code }
"#;

/// | Person | Scopes | |
/// | --- | --- | --- |
/// | ana | approve, operate, start | looks at steps whose outcome is unknown |
/// | ben | approve, start | |
/// | rosa | review | certifies |
const EVERYONE: &[(&str, &[Scope])] = &[
    ("ana", &[Scope::Approve, Scope::Operate, Scope::Start]),
    ("ben", &[Scope::Approve, Scope::Operate, Scope::Start]),
    ("rosa", &[Scope::Review]),
];

/// Everything that is fixed before the first step.
pub(crate) struct Cast {
    keys: BTreeMap<&'static str, PrivateKey>,
    /// The roster, signed by the root.
    pub(crate) roster: RosterInForce,
    /// The runbooks, certified.
    pub(crate) library: Arc<Library>,
    /// Whom hosts believe.
    pub(crate) trust: Trust,
}

fn key(name: &str) -> PrivateKey {
    let mut seed = [7; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    PrivateKey::from_seed(seed, name)
}

impl Cast {
    /// The same for every seed, but for the authority's certificate.
    pub(crate) fn new(ca_der: Vec<u8>) -> Cast {
        let keys: BTreeMap<_, _> = EVERYONE.iter().map(|(name, _)| (*name, key(name))).collect();
        let persons = EVERYONE.iter().map(|(name, scopes)| Person {
            name: (*name).to_owned(),
            keys: vec![keys[name].public()],
            groups: BTreeSet::new(),
            scopes: scopes.iter().copied().collect(),
        });
        let roster = Roster {
            version: 1,
            expires: from_ms(EPOCH_MS + 100 * 24 * 60 * 60 * 1000),
            persons: persons.collect(),
            rules: vec![Rule { risk: Risk::High, need: 1, from: BTreeSet::new() }],
            reviewers_needed: 1,
        };
        let root = key("root");
        let signed = signed::sign(&root, Namespace::Roster, &roster.encode()).expect("the root signs");
        let entries = [MEND, TEND, WALK, LOOK].map(|text| {
            let entry = entry(text, &keys["rosa"]);
            (entry.runbook.name().to_owned(), Arc::new(entry))
        });
        Cast {
            keys,
            roster: RosterInForce { signed: signed.into(), roster },
            library: Arc::new(Library { entries: entries.into(), refused: BTreeMap::new() }),
            trust: Trust { ca_der, roots: vec![root.public()] },
        }
    }

    /// A person's key.
    pub(crate) fn key(&self, person: &str) -> &PrivateKey {
        &self.keys[person]
    }

    /// The content of a joined host's `roster.json`.
    pub(crate) fn roster_file(&self) -> Vec<u8> {
        let signed = Signed::try_from(self.roster.signed.clone()).expect("it was signed here");
        signed::certificate::encode_signed_file(&signed).expect("it is signed by SSH")
    }
}

fn entry(text: &str, reviewer: &PrivateKey) -> Entry {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let read = fettle_runbooks::read(&bytes).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let certificate = Certificate {
        runbook: read.runbook.name().to_owned(),
        runbook_digest: signed::digest(Tag::Runbook, &bytes),
        author: "wil".to_owned(),
        reviewer: "rosa".to_owned(),
        at: from_ms(EPOCH_MS),
    };
    let signed = signed::sign(reviewer, Namespace::Runbook, &certificate.encode()).expect("rosa signs");
    Entry { runbook: read.runbook, bytes, certificates: vec![signed.into()], certified: true }
}

/// Everything by itself as far as its risk lets, and people are told.
pub(crate) fn policy() -> Policy {
    let rule = ModeRule { runbook: Glob::new("*"), alert: None, hosts: None, mode: Mode::Auto };
    let notify = Some(Notify { url: "http://nowhere.test/".into(), secret: vec![1] });
    let gates =
        GateTimes { decide_within: Duration::from_secs(3 * 60), start_within: Duration::from_secs(90) };
    Policy { modes: vec![rule], notify, gates, ..Policy::default() }
}
