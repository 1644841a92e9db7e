//! A person's wish that a runbook run: which bytes, with which inputs, on which hosts, how far.
//!
//! A start that goes on from an earlier run has one member more, `of`. It came after the first release of `start/1`; a reader
//! that does not know it refuses the start, and does not take it for a run of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, Host, RunId};
use jiff::Timestamp;

use super::envelope::{Namespace, Signed};
use super::json::{Malformed, Members, Writer};
use super::roster::{Roster, Scope, named};
use super::{Tag, digest, words};
use crate::refusal::{Code, Refusal};

/// Format `start/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Minted by whoever starts it.
    pub run: RunId,
    /// The runbook's name, for people; the digest is what counts.
    pub runbook: String,
    /// Of the exact bytes.
    pub runbook_digest: Digest,
    /// As given; the host types and checks them.
    pub inputs: BTreeMap<String, String>,
    /// On which hosts.
    pub hosts: BTreeSet<Host>,
    /// Who starts it.
    pub person: String,
    /// When.
    pub at: Timestamp,
    /// How far.
    pub until: Until,
    /// The run that it goes on from.
    pub of: Option<Of>,
}

/// What a start says of the run that it goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Of {
    /// That run.
    pub run: RunId,
    /// What is done with it.
    pub how: FollowUp,
    /// Why, in the person's words; may be empty.
    pub reason: String,
    /// What people found out about steps of it whose outcome nobody could tell: `web-1 remediate/restart` → whether it ran.
    pub found: BTreeMap<(Host, String), bool>,
}

impl Of {
    fn write(&self) -> Writer {
        let found = |((host, path), ran): (&(Host, String), &bool)| {
            Writer::object()
                .text("host", host)
                .text("path", path)
                .text("found", if *ran { "ran" } else { "did-not-run" })
        };
        Writer::object()
            .text("run", self.run)
            .text("how", self.how)
            .text("reason", &self.reason)
            .objects("found", self.found.iter().map(found))
    }

    fn read(mut members: Members) -> Result<Of, Malformed> {
        let mut found = BTreeMap::new();
        let run = members.parsed("run")?;
        let how = members.parsed("how")?;
        let reason = members.text("reason")?;
        for each in members.list("found")? {
            let mut each = Members::of(each, "found")?;
            let step = (each.parsed("host")?, each.text("path")?);
            let ran = match each.text("found")?.as_str() {
                "ran" => true,
                "did-not-run" => false,
                _ => return Err(Malformed::value("found", "expected `ran` or `did-not-run`")),
            };
            each.end()?;
            if found.insert(step, ran).is_some() {
                return Err(Malformed::value("found", "a step stands twice"));
            }
        }
        members.end()?;
        Ok(Of { run, how, reason, found })
    }
}

/// How far a run may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// Diagnose and show the plan.
    Plan,
    /// All the way.
    End,
}

impl Until {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Until::Plan => "plan",
            Until::End => "end",
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Until {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Until, &'static str> {
        match word {
            "plan" => Ok(Until::Plan),
            "end" => Ok(Until::End),
            _ => Err("expected `plan` or `end`"),
        }
    }
}

impl Start {
    const FORMAT: &'static str = "start/1";

    /// Its bytes, to be signed by the person.
    pub fn encode(&self) -> Vec<u8> {
        let start = Writer::format(Self::FORMAT)
            .text("run", self.run)
            .text("runbook", &self.runbook)
            .text("runbook_digest", self.runbook_digest)
            .map("inputs", &self.inputs)
            .texts("hosts", self.hosts.iter().map(Host::as_str))
            .text("person", &self.person)
            .text("at", self.at)
            .text("until", self.until);
        match &self.of {
            None => start.end(),
            Some(of) => start.nested("of", of.write()).end(),
        }
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Start, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let start = Start {
            run: members.parsed("run")?,
            runbook: members.text("runbook")?,
            runbook_digest: members.parsed("runbook_digest")?,
            inputs: members.map("inputs")?,
            hosts: members
                .texts("hosts")?
                .iter()
                .map(|host| host.parse().map_err(|error| Malformed::value("hosts", error)))
                .collect::<Result<_, _>>()?,
            person: words::name(members.text("person")?, "person")?,
            at: words::time(&mut members, "at")?,
            until: members.parsed("until")?,
            of: members.optional("of").map(|of| Of::read(Members::of(of, "of")?)).transpose()?,
        };
        if start.of.as_ref().is_some_and(|of| of.run == start.run) {
            return Err(Malformed::value("of", "a run does not go on from itself"));
        }
        members.end()?;
        Ok(start)
    }

    /// Who started what, of signed bytes: the signature is the person's, and the person may start runs.
    pub fn verify(signed: &Signed, roster: &Roster, now: Timestamp) -> Result<Started, Refusal> {
        roster.in_force(now)?;
        let person = roster.signer(signed, Namespace::Start, Some(Scope::Start))?;
        let start = Start::decode(&signed.bytes)?;
        named(person, &start.person)?;
        Ok(Started { digest: digest(Tag::Start, &signed.bytes), start })
    }

    /// The same of bytes that [`Start::verify`] accepted before, on this host: who asked does not change when the roster
    /// expires or the person leaves.
    pub fn verified_before(signed: &Signed) -> Result<Started, Refusal> {
        let start = Start::decode(&signed.bytes)?;
        Ok(Started { digest: digest(Tag::Start, &signed.bytes), start })
    }
}

/// Proof that a person who may signed a start. [`Start::verify`] makes one, and [`Start::verified_before`] makes it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    digest: Digest,
    start: Start,
}

impl Started {
    /// Of the signed bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What was signed.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Who.
    pub fn person(&self) -> &str {
        &self.start.person
    }

    /// Whether it is a start of exactly this run, with these inputs, on this host.
    pub fn covers(
        &self,
        run: RunId,
        runbook_digest: Digest,
        inputs: &BTreeMap<String, String>,
        host: &Host,
    ) -> Result<(), Refusal> {
        let start = &self.start;
        let mismatch = |what: String| Err(Refusal::new(Code::StartMismatch, what));
        if start.run != run {
            return mismatch(format!("`{}` started {}, the order is for {run}", start.person, start.run));
        }
        if start.runbook_digest != runbook_digest {
            return mismatch(format!(
                "`{}` started runbook {}, the order has {runbook_digest}",
                start.person, start.runbook_digest
            ));
        }
        if start.inputs != *inputs {
            return mismatch(format!("`{}` signed other inputs than the order has", start.person));
        }
        if !start.hosts.contains(host) {
            return mismatch(format!("`{}` did not name {host}", start.person));
        }
        Ok(())
    }

    /// Whether it reaches beyond the plan.
    pub fn remediates(&self) -> Result<(), Refusal> {
        match self.start.until {
            Until::End => Ok(()),
            Until::Plan => Err(Refusal::new(
                Code::StartUntilPlan,
                format!("`{}` started this run until its plan only", self.start.person),
            )),
        }
    }
}
