//! What approvers are asked: may these plans run, until when, and who must agree.

use std::collections::BTreeSet;

use fettle_runbooks::id::{Digest, GateId, RunId};
use fettle_runbooks::runbook::Risk;
use jiff::Timestamp;

use super::json::{Json, Malformed, Members, Writer};
use super::{Tag, digest, words};
use crate::merkle;

/// Format `request/1`. Nobody signs it; approvals name its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The run that waits.
    pub run: RunId,
    /// Where it waits.
    pub gate: GateId,
    /// The runbook's name.
    pub runbook: String,
    /// Of its exact bytes.
    pub runbook_digest: Digest,
    /// Digest of the signed start; none when a trigger started the run.
    pub start: Option<Digest>,
    /// Who started it; none when a trigger did. May not approve.
    pub requester: Option<String>,
    /// Who must agree.
    pub factors: Vec<Factor>,
    /// Approvals signed later do not count.
    pub decide_by: Timestamp,
    /// The host does not begin later.
    pub start_by: Timestamp,
    /// Over all plans' leaves.
    pub root: merkle::Hash,
    /// How many leaves.
    pub leaves: u64,
    /// The highest risk among what it covers.
    pub risk: Risk,
    /// A step that may have run, and is to run again; absent in every other request.
    pub again: Option<Again>,
}

/// An attempt whose outcome nobody knows, and that is to be followed by another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Again {
    /// The step; what follows it in the plan is covered as well.
    pub path: String,
    /// The attempt whose outcome is unknown.
    pub attempt: u32,
    /// The kernel's boot id of the host. A reboot voids the approval.
    pub boot: String,
}

impl Again {
    const FORMAT: &'static str = "again/1";

    /// What such an approval uses up: made of the plan's nonce, which only this host's plan has, so that the host can tell it
    /// without having been asked. Hex.
    pub fn nonce(&self, of_plan: &str) -> String {
        let bytes = Writer::format(Self::FORMAT)
            .text("nonce", of_plan)
            .text("path", &self.path)
            .text("attempt", self.attempt)
            .text("boot", &self.boot)
            .end();
        words::hex(&digest(Tag::Again, &bytes).0)
    }
}

/// So many distinct persons of these groups, each person counted for one such factor. Without groups: so many persons in
/// all, of those who may approve, whatever else they are counted for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor {
    /// Any of these groups; empty: no group in particular.
    pub from: BTreeSet<String>,
    /// How many.
    pub need: u32,
}

impl Request {
    const FORMAT: &'static str = "request/1";

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let factors = self
            .factors
            .iter()
            .map(|factor| Writer::object().texts("from", &factor.from).text("need", factor.need));
        let request = Writer::format(Self::FORMAT)
            .text("run", self.run)
            .text("gate", self.gate)
            .text("runbook", &self.runbook)
            .text("runbook_digest", self.runbook_digest)
            .text("start", self.start.map(|start| start.to_string()).unwrap_or_default())
            .text("requester", self.requester.as_deref().unwrap_or_default())
            .objects("factors", factors)
            .text("decide_by", self.decide_by)
            .text("start_by", self.start_by)
            .text("root", words::hex(&self.root))
            .text("leaves", self.leaves)
            .text("risk", words::risk_word(self.risk));
        match &self.again {
            None => request.end(),
            Some(Again { path, attempt, boot }) => request
                .nested(
                    "again",
                    Writer::object().text("path", path).text("attempt", attempt).text("boot", boot),
                )
                .end(),
        }
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let request = Request {
            run: members.parsed("run")?,
            gate: members.parsed("gate")?,
            runbook: members.text("runbook")?,
            runbook_digest: members.parsed("runbook_digest")?,
            start: some(members.text("start")?)
                .map(|text| text.parse().map_err(|error| Malformed::value("start", error)))
                .transpose()?,
            requester: some(members.text("requester")?)
                .map(|person| words::name(person, "requester"))
                .transpose()?,
            factors: members.list("factors")?.into_iter().map(factor).collect::<Result<_, _>>()?,
            decide_by: words::time(&mut members, "decide_by")?,
            start_by: words::time(&mut members, "start_by")?,
            root: words::unhex(&members.text("root")?)
                .ok_or_else(|| Malformed::value("root", "expected 64 hex digits"))?,
            leaves: members.number("leaves")?,
            risk: words::risk(&mut members, "risk")?,
            again: members.optional("again").map(again).transpose()?,
        };
        members.end()?;
        if request.start.is_some() != request.requester.is_some() {
            return Err(Malformed::value("requester", "a start and who asked for it go together"));
        }
        Ok(request)
    }

    /// What an approval of it uses up on a host whose plan has this nonce.
    pub fn nonce(&self, of_plan: &str) -> String {
        self.again.as_ref().map_or_else(|| of_plan.to_owned(), |again| again.nonce(of_plan))
    }

    /// The digest that approvals name.
    pub fn digest(bytes: &[u8]) -> Digest {
        digest(Tag::Request, bytes)
    }
}

fn again(value: Json) -> Result<Again, Malformed> {
    let mut members = Members::of(value, "again")?;
    let again = Again {
        path: members.text("path")?,
        attempt: words::count(members.number("attempt")?, "attempt")?,
        boot: members.text("boot")?,
    };
    members.end()?;
    Ok(again)
}

fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

fn factor(value: Json) -> Result<Factor, Malformed> {
    let mut members = Members::of(value, "factors")?;
    let factor = Factor {
        from: members
            .texts("from")?
            .into_iter()
            .map(|group| words::name(group, "from"))
            .collect::<Result<_, _>>()?,
        need: words::count(members.number("need")?, "need")?,
    };
    members.end()?;
    Ok(factor)
}
