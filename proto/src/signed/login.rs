//! A person's answer to the controller's challenge.

use jiff::Timestamp;

use super::envelope::{Namespace, Signed};
use super::json::{Malformed, Members, Writer};
use super::roster::{Person, Roster, named};
use super::words;
use crate::refusal::{Code, Refusal};

/// Format `login/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The controller that asks, by its root fingerprint: whoever signs compares it with the trust bundle they have, so that
    /// another controller cannot pass the challenge on and get a session here.
    pub controller: String,
    /// Random, used once.
    pub challenge: [u8; 32],
    /// Who says they are there.
    pub person: String,
    /// The answer must arrive before.
    pub expires: Timestamp,
}

impl Login {
    const FORMAT: &'static str = "login/1";

    /// Its bytes, to be signed by the person.
    pub fn encode(&self) -> Vec<u8> {
        Writer::format(Self::FORMAT)
            .text("controller", &self.controller)
            .text("challenge", words::hex(&self.challenge))
            .text("person", &self.person)
            .text("expires", self.expires)
            .end()
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Login, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let login = Login {
            controller: members.text("controller")?,
            challenge: words::unhex(&members.text("challenge")?)
                .ok_or_else(|| Malformed::value("challenge", "expected 64 hex digits"))?,
            person: words::name(members.text("person")?, "person")?,
            expires: words::time(&mut members, "expires")?,
        };
        members.end()?;
        Ok(login)
    }
}

/// Who answered the challenge whose exact bytes these are.
pub fn verify_login<'r>(
    challenge: &[u8],
    answer: &Signed,
    roster: &'r Roster,
    now: Timestamp,
) -> Result<&'r Person, Refusal> {
    roster.in_force(now)?;
    if answer.bytes != challenge {
        return Err(Refusal::new(Code::SignatureInvalid, "the answer is to another challenge"));
    }
    let person = roster.signer(answer, Namespace::Login, None)?;
    let login = Login::decode(&answer.bytes)?;
    named(person, &login.person)?;
    if now >= login.expires {
        return Err(Refusal::new(
            Code::SignatureInvalid,
            format!("the challenge expired at {}", login.expires),
        ));
    }
    Ok(person)
}
