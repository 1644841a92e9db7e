//! Persons with keys that exist for one test.

use std::collections::{BTreeMap, BTreeSet};

use fettle_proto::signed::{self, Certificate, Namespace, Person, PrivateKey, Roster, Rule, Scope, Signed};
use fettle_runbooks::id::Digest;
use fettle_runbooks::runbook::Risk;
use jiff::{SignedDuration, Timestamp};

/// Everyone a test knows.
///
/// | Person | Groups | Scopes | |
/// | --- | --- | --- | --- |
/// | ana | on-call | approve, operate, start | the one most tests speak as |
/// | ben | dba | approve, start | a second approver |
/// | rosa | reviewers | review, approve | certifies runbooks |
/// | wil | | start | writes runbooks; may approve nothing |
pub struct People {
    /// Signs rosters.
    pub root: PrivateKey,
    /// By name.
    pub keys: BTreeMap<&'static str, PrivateKey>,
}

/// Who wrote the certified runbooks.
pub const AUTHOR: &str = "wil";
/// Who certified them.
pub const REVIEWER: &str = "rosa";

const EVERYONE: &[(&str, &[&str], &[Scope])] = &[
    ("ana", &["on-call"], &[Scope::Approve, Scope::Operate, Scope::Start]),
    ("ben", &["dba"], &[Scope::Approve, Scope::Start]),
    ("rosa", &["reviewers"], &[Scope::Review, Scope::Approve]),
    ("wil", &[], &[Scope::Start]),
];

impl Default for People {
    fn default() -> People {
        People::new()
    }
}

impl People {
    /// With fresh keys.
    pub fn new() -> People {
        let keys = EVERYONE.iter().map(|(name, _, _)| (*name, key(name))).collect();
        People { root: key("root"), keys }
    }

    /// The key of a person.
    #[track_caller]
    pub fn key(&self, person: &str) -> &PrivateKey {
        self.keys.get(person).unwrap_or_else(|| panic!("no test knows `{person}`"))
    }

    /// The roster, not signed yet, for changing it.
    pub fn roster(&self, version: u64) -> Roster {
        let persons = EVERYONE.iter().map(|(name, groups, scopes)| Person {
            name: (*name).to_owned(),
            keys: vec![self.key(name).public()],
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            scopes: scopes.iter().copied().collect(),
        });
        Roster {
            version,
            expires: Timestamp::now() + SignedDuration::from_hours(24),
            persons: persons.collect(),
            rules: vec![Rule { risk: Risk::High, need: 1, from: BTreeSet::new() }],
            reviewers_needed: 1,
        }
    }

    /// A roster, signed by the root.
    pub fn sign_roster(&self, roster: &Roster) -> Signed {
        signed::sign(&self.root, Namespace::Roster, &roster.encode()).expect("the root key signs")
    }

    /// The reviewer's certificate of a runbook's exact bytes.
    pub fn certify(&self, runbook: &str, bytes: &[u8]) -> Signed {
        let certificate = Certificate {
            runbook: runbook.to_owned(),
            runbook_digest: Digest::of("runbook", 1, bytes),
            author: AUTHOR.to_owned(),
            reviewer: REVIEWER.to_owned(),
            at: Timestamp::now(),
        };
        signed::sign(self.key(REVIEWER), Namespace::Runbook, &certificate.encode())
            .expect("the reviewer signs")
    }
}

fn key(comment: &str) -> PrivateKey {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system has randomness");
    PrivateKey::from_seed(seed, comment)
}
