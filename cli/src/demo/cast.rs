//! Who plays in the demonstration, with keys that exist for as long as it does.
//!
//! The root signs the roster and is then gone; it stands for a key in a safe. Rosa reviews runbooks, ben wrote the one
//! that is used, ana is on call. Nobody here is who started anything: an alert does.

use std::collections::BTreeSet;

use fettle_proto::signed::{
    self, Certificate, Namespace, Person, PrivateKey, PublicKey, Roster, Rule, Scope, SignError, Signed,
};
use fettle_runbooks::id::Digest;
use fettle_runbooks::runbook::Risk;
use jiff::{SignedDuration, Timestamp};

/// The person on call.
pub(super) const APPROVER: &str = "ana";
/// Who wrote the runbook.
pub(super) const AUTHOR: &str = "ben";
/// Who certified it.
pub(super) const REVIEWER: &str = "rosa";
/// The group whose members may approve what is risky.
pub(super) const ON_CALL: &str = "on-call";

/// Everyone's keys.
pub struct Cast {
    /// Signs rosters.
    pub root: PrivateKey,
    /// Approves and operates.
    pub approver: PrivateKey,
    /// Wrote the runbook.
    pub author: PrivateKey,
    /// Certifies it.
    pub reviewer: PrivateKey,
}

impl Cast {
    /// Makes keys from 32 bytes of randomness each.
    pub fn new(mut random: impl FnMut() -> [u8; 32]) -> Cast {
        let mut key = |comment| PrivateKey::from_seed(random(), comment);
        Cast { root: key("root"), approver: key(APPROVER), author: key(AUTHOR), reviewer: key(REVIEWER) }
    }

    /// Who may do what, for a week.
    pub fn roster(&self, now: Timestamp) -> Roster {
        Roster {
            version: 1,
            expires: now + SignedDuration::from_hours(7 * 24),
            persons: vec![
                person(APPROVER, &self.approver, &[ON_CALL], &[Scope::Approve, Scope::Operate, Scope::Start]),
                person(AUTHOR, &self.author, &[], &[Scope::Start]),
                person(REVIEWER, &self.reviewer, &["reviewers"], &[Scope::Review, Scope::Approve]),
            ],
            rules: vec![Rule { risk: Risk::High, need: 1, from: BTreeSet::from([ON_CALL.to_owned()]) }],
            reviewers_needed: 1,
        }
    }

    /// The roster, signed by the root.
    pub fn signed_roster(&self, now: Timestamp) -> Result<Signed, SignError> {
        signed::sign(&self.root, Namespace::Roster, &self.roster(now).encode())
    }

    /// The reviewer's certificate of a runbook's exact bytes.
    pub fn certify(&self, runbook: &str, digest: Digest, now: Timestamp) -> Result<Signed, SignError> {
        let certificate = Certificate {
            runbook: runbook.to_owned(),
            runbook_digest: digest,
            author: AUTHOR.to_owned(),
            reviewer: REVIEWER.to_owned(),
            at: now,
        };
        signed::sign(&self.reviewer, Namespace::Runbook, &certificate.encode())
    }

    /// What hosts pin.
    pub fn root_key(&self) -> PublicKey {
        self.root.public()
    }
}

fn person(name: &str, key: &PrivateKey, groups: &[&str], scopes: &[Scope]) -> Person {
    Person {
        name: name.to_owned(),
        keys: vec![key.public()],
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        scopes: scopes.iter().copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use fettle_proto::signed::{Tag, Trust, certified, digest};

    use super::*;

    #[test]
    fn hosts_believe_the_roster_and_the_certificate() {
        let mut counted = 0;
        let cast = Cast::new(|| {
            counted += 1;
            [counted; 32]
        });
        let now = Timestamp::UNIX_EPOCH;
        let trust = Trust { ca_der: vec![1], roots: vec![cast.root_key()] };
        let signed = cast.signed_roster(now).expect("the root signs");
        let roster = Roster::trusted(&signed, &trust).expect("hosts believe the root");
        let runbook = b"a runbook";
        let certificate = cast.certify("demo/x", digest(Tag::Runbook, runbook), now).expect("rosa signs");
        let certified = certified(runbook, &[certificate], &roster, now).expect("it is certified");
        assert_eq!(certified.author(), AUTHOR);
    }
}
