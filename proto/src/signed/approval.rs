//! One person's yes or no to one request.

use std::fmt;
use std::str::FromStr;

use fettle_runbooks::id::Digest;
use jiff::Timestamp;

use super::envelope::{Namespace, Signed};
use super::json::{Malformed, Members, Writer};
use super::roster::{Person, Roster, Scope, named};
use super::words;
use crate::refusal::Refusal;

/// Format `approval/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Digest of the request's exact bytes.
    pub request: Digest,
    /// Yes or no.
    pub decision: Decision,
    /// Who decides.
    pub person: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Approve,
    /// It may not.
    Deny,
}

impl Decision {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Decision::Approve => "approve",
            Decision::Deny => "deny",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Decision {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Decision, &'static str> {
        match word {
            "approve" => Ok(Decision::Approve),
            "deny" => Ok(Decision::Deny),
            _ => Err("expected `approve` or `deny`"),
        }
    }
}

impl Approval {
    const FORMAT: &'static str = "approval/1";

    /// Its bytes, to be signed by the person.
    pub fn encode(&self) -> Vec<u8> {
        Writer::format(Self::FORMAT)
            .text("request", self.request)
            .text("decision", self.decision)
            .text("person", &self.person)
            .text("reason", &self.reason)
            .text("at", self.at)
            .end()
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Approval, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let approval = Approval {
            request: members.parsed("request")?,
            decision: members.parsed("decision")?,
            person: words::name(members.text("person")?, "person")?,
            reason: members.text("reason")?,
            at: words::time(&mut members, "at")?,
        };
        members.end()?;
        Ok(approval)
    }

    /// Who decided what, of signed bytes: the signature is the person's, and the person may decide gates. Whether it is
    /// of the right request, and whether this person may decide this one, is for [`crate::grant`] to say.
    pub fn verify<'r>(signed: &Signed, roster: &'r Roster) -> Result<(Approval, &'r Person), Refusal> {
        let person = roster.signer(signed, Namespace::Approval, Some(Scope::Approve))?;
        let approval = Approval::decode(&signed.bytes)?;
        named(person, &approval.person)?;
        Ok((approval, person))
    }
}
