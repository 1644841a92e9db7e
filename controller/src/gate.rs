//! Risky steps wait for people here: what is asked of whom, and which answers count.
//!
//! Everything is a pure function of the plan, the roster and the policy. The host asks the same questions again with
//! the same code ([`fettle_proto::grant`]); what is decided here only decides what is asked of people and when it is
//! worth asking the host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fettle_proto::grant;
use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{self, Approval, Decision, Leaf, Request, Roster, Signed};
use fettle_proto::{Refusal, merkle, v1};
use fettle_runbooks::id::{Digest, GateId, Host, RunId};
use fettle_runbooks::plan::Plan;
use fettle_runbooks::runbook::Risk;
use serde::{Deserialize, Serialize};

use crate::model::row::DecisionRow;
use crate::policy::{Mode, Policy};
use crate::problem::Problem;
use crate::world::At;

/// So many distinct persons of these groups, who count for this factor alone. No groups: so many persons in all, those of the
/// other factors included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factor {
    /// Any of these groups.
    pub from: BTreeSet<String>,
    /// How many.
    pub need: u32,
}

impl From<signed::Factor> for Factor {
    fn from(factor: signed::Factor) -> Self {
        Factor { from: factor.from, need: factor.need }
    }
}

impl From<&Factor> for signed::Factor {
    fn from(factor: &Factor) -> Self {
        signed::Factor { from: factor.from.clone(), need: factor.need }
    }
}

/// The risk from which on every step waits for people, beyond what the host demands.
pub fn also_from(mode: Mode, policy: &Policy, runbook: &str, host: &Host) -> Option<Risk> {
    let by_mode = match mode {
        Mode::Approve => Some(Risk::Low),
        Mode::Observe | Mode::Diagnose | Mode::Auto => None,
    };
    let by_policy = policy.additions(runbook, host, Risk::Critical).map(|rule| rule.risk).min();
    by_mode.into_iter().chain(by_policy).min()
}

/// What a gate is about.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its id.
    pub gate: GateId,
    /// The run that waits.
    pub run: RunId,
    /// The host.
    pub host: &'a Host,
    /// The exact bytes of its plan.
    pub plan: &'a [u8],
    /// The first step that waits.
    pub from: &'a str,
    /// Whether the runbook is certified.
    pub certified: bool,
    /// Who wrote it, if a certificate says.
    pub author: Option<&'a str>,
    /// Who started the run, and the digest of what they signed.
    pub started: Option<(&'a str, Digest)>,
    /// How far the trigger may go by itself.
    pub mode: Mode,
    /// The attempt of that step which may have run, when it is to run again.
    pub again: Option<signed::Again>,
    /// Now.
    pub now: At,
}

/// A gate's immutable part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The bytes of the request.
    pub request: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// Who must approve.
    pub factors: Vec<Factor>,
    /// Who may not, and why.
    pub excluded: BTreeMap<String, String>,
    /// What an approval uses up.
    pub nonce: String,
    /// The plan's digest.
    pub plan: Digest,
    /// Until when people may decide.
    pub decide_by: At,
    /// Until when an approved plan must have begun.
    pub start_by: At,
    /// When to tell whom that nobody has decided.
    pub escalate: Option<(At, Vec<String>)>,
}

/// Puts a plan before people.
pub fn open(asked: &Asked<'_>, roster: &Roster, policy: &Policy) -> Result<Opened, Refusal> {
    let plan = signed::plan::decode(asked.plan)?;
    let digest = signed::plan::digest_of(asked.plan);
    let also = also_from(asked.mode, policy, &plan.runbook, asked.host);
    let risk = grant::highest_risk(&plan, asked.from, asked.certified)?;
    let mut factors = grant::required(&plan, asked.from, asked.certified, roster, also)?;
    let additions = policy.additions(&plan.runbook, asked.host, risk);
    let added: Vec<signed::Factor> = additions
        .map(|rule| signed::Factor { from: rule.from.iter().cloned().collect(), need: rule.need })
        .collect();
    let anyone_may = grant::anyone_may(asked.again.as_ref(), &factors, &added);
    if asked.again.is_some() {
        factors = grant::required_again(factors);
    }
    factors.extend(added);
    let factors = grant::strictest(factors);
    let (within, escalate) = times(&plan, asked.from)?;
    let decide_by = asked.now.plus(within.unwrap_or(policy.gates.decide_within));
    let start_by = decide_by.plus(policy.gates.start_within);
    let nonce = asked.again.as_ref().map_or_else(|| plan.nonce.clone(), |again| again.nonce(&plan.nonce));
    let leaf = Leaf { agent: asked.host.clone(), plan: digest, nonce: nonce.clone() };
    let request = Request {
        run: asked.run,
        gate: asked.gate,
        runbook: plan.runbook.clone(),
        runbook_digest: plan.runbook_digest,
        start: asked.started.map(|(_, digest)| digest),
        requester: asked.started.map(|(person, _)| person.to_owned()),
        factors: factors.clone(),
        decide_by: from_ms(decide_by.0),
        start_by: from_ms(start_by.0),
        root: merkle::root(&[leaf.hash()]),
        leaves: 1,
        risk,
        again: asked.again.clone(),
    }
    .encode();
    let requester = asked.started.map(|(person, _)| (person.to_owned(), "started the run".to_owned()));
    let author = asked.author.map(|author| (author.to_owned(), "wrote the runbook".to_owned()));
    Ok(Opened {
        digest: Request::digest(&request),
        request,
        factors: factors.into_iter().map(Factor::from).collect(),
        excluded: requester.into_iter().chain(author).filter(|_| !anyone_may).collect(),
        nonce,
        plan: digest,
        decide_by,
        start_by,
        escalate: escalate.map(|(after, to)| (asked.now.plus(after), to)),
    })
}

type Times = (Option<Duration>, Option<(Duration, Vec<String>)>);

/// The strictest times that the steps behind the gate ask for.
fn times(plan: &Plan, from: &str) -> Result<Times, Refusal> {
    let approvals = || {
        grant::remaining(plan, from)
            .map(|steps| steps.iter().filter_map(|step| step.approval.as_ref()).collect::<Vec<_>>())
    };
    let within = approvals()?.iter().map(|approval| approval.within).min();
    let escalations: Vec<_> =
        approvals()?.into_iter().filter_map(|approval| approval.escalate.as_ref()).collect();
    let to: BTreeSet<String> = escalations.iter().flat_map(|escalate| escalate.to.iter().cloned()).collect();
    let after = escalations.iter().map(|escalate| escalate.after).min();
    Ok((within, after.map(|after| (after, to.into_iter().collect()))))
}

/// A decision that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Who.
    pub person: String,
    /// What.
    pub decision: Decision,
    /// Why, in their words.
    pub reason: String,
}

/// What a decision is judged against.
#[derive(Debug)]
pub struct BallotBox<'a> {
    /// The request's digest.
    pub digest: Digest,
    /// Who may not decide, and why.
    pub excluded: &'a BTreeMap<String, String>,
    /// Until when.
    pub decide_by: At,
    /// Now.
    pub now: At,
}

/// Whether a signed decision counts: of this request, in time, by somebody who may, and by who is signed in.
pub fn judge(
    ballot_box: &BallotBox<'_>,
    signed: &Signed,
    roster: &Roster,
    signed_in: &str,
) -> Result<Ballot, Problem> {
    let refused = |refusal: Refusal| Problem::not_allowed(refusal.code.as_str(), refusal.message);
    roster.in_force(from_ms(ballot_box.now.0)).map_err(refused)?;
    let (approval, person) = Approval::verify(signed, roster).map_err(refused)?;
    if person.name != signed_in {
        let message = format!("`{}` signed this, and `{signed_in}` is signed in", person.name);
        return Err(Problem::not_allowed("person-mismatch", message));
    }
    if approval.request != ballot_box.digest {
        return Err(Problem::invalid(
            "approval-mismatch",
            "the decision is of another request than the gate's",
        ));
    }
    if let Some(why) = ballot_box.excluded.get(&person.name) {
        let message = format!("`{}` {why} and may not decide", person.name);
        return Err(Problem::not_allowed("excluded", message));
    }
    let decide_by = from_ms(ballot_box.decide_by.0);
    if ballot_box.now > ballot_box.decide_by || approval.at > decide_by {
        return Err(Problem::conflict("gate-closed", format!("the time to decide ended at {decide_by}")));
    }
    Ok(Ballot { person: person.name.clone(), decision: approval.decision, reason: approval.reason })
}

/// Who has approved, by decisions that still count under this roster: a key that was taken out of it takes its approvals
/// along, as it does on the host.
pub fn approvers<'a>(decisions: &'a [DecisionRow], roster: &Roster) -> Vec<&'a str> {
    let counts = |decision: &DecisionRow| {
        let signed = Signed::try_from(v1::Signed::from(&decision.signed)).ok()?;
        let (_, person) = Approval::verify(&signed, roster).ok()?;
        (person.name == decision.person).then_some(())
    };
    let approved = decisions.iter().filter(|decision| decision.approves);
    let counting: BTreeSet<&str> = approved
        .filter(|decision| counts(decision).is_some())
        .map(|decision| decision.person.as_str())
        .collect();
    counting.into_iter().collect()
}

/// Which factors still miss someone, given who approved.
pub fn missing(factors: &[Factor], approvers: &[&str], roster: &Roster) -> Vec<Factor> {
    let factors: Vec<signed::Factor> = factors.iter().map(signed::Factor::from).collect();
    let persons: Vec<_> = approvers.iter().filter_map(|name| roster.person(name)).collect();
    grant::missing(&factors, &persons).into_iter().map(Factor::from).collect()
}

/// A factor in words: `1 of dba-oncall or duty-manager`.
pub fn describe(factor: &Factor) -> String {
    grant::describe(&factor.into())
}

/// The grant that opens a gate of one host; only approvals that count under the roster in force belong into it.
pub fn grant(request: &[u8], leaf: &Leaf, approvals: Vec<Signed>) -> grant::Grant {
    let leaves = [leaf.hash()];
    grant::Grant {
        request: request.to_vec(),
        approvals,
        leaf_index: 0,
        leaf_count: 1,
        merkle_path: merkle::path(&leaves, 0).unwrap_or_default(),
    }
}
