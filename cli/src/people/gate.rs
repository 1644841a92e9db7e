//! What a decision on a gate would sign, recomputed from the bytes that would be signed.
//!
//! A controller shows a gate; [`recompute`] believes none of it. The request must parse, the plans' leaves must give its
//! Merkle root, the runbook's bytes must have its digest, the start must be signed by who is said to have asked. What
//! cannot be tied to the request in this way stays in [`Unsigned`], and is shown apart.

use std::path::Path;

use fettle_proto::convert::all_signed;
use fettle_proto::grant::{anyone_may, highest_risk, required, required_again, strictest};
use fettle_proto::refusal::{Code, Refusal};
use fettle_proto::signed::words::risk_word;
use fettle_proto::signed::{
    Certified, Factor, Leaf, Request, Roster, Signed, Start, Started, Tag, Trust, certified, digest, plan,
};
use fettle_proto::{merkle, v1};
use fettle_runbooks::id::{Digest, Host};
use fettle_runbooks::plan::Plan;
use jiff::Timestamp;

/// A gate, as far as its request vouches for it.
#[derive(Debug)]
pub struct Checked {
    /// What would be approved.
    pub request: Request,
    /// What the approval names.
    pub digest: Digest,
    /// Every plan it covers.
    pub plans: Vec<CheckedPlan>,
    /// Who reviewed the runbook; or why it counts as uncertified.
    pub certified: Result<Certified, Refusal>,
    /// The start that a person signed.
    pub started: Option<Started>,
    /// Who must agree: what hosts will demand, and what the request adds.
    pub factors: Vec<Factor>,
    /// Nobody would have to agree, and one person must sign because a step may have run: whoever asked may.
    pub anyone_may: bool,
    /// What nothing vouches for.
    pub unsigned: Unsigned,
}

/// One host's plan.
#[derive(Debug)]
pub struct CheckedPlan {
    /// What the bytes say.
    pub plan: Plan,
    /// Of the bytes.
    pub digest: Digest,
    /// Where the controller says it stands. Not signed: a grant covers the whole plan.
    pub from: String,
}

/// What the controller says besides.
#[derive(Debug)]
pub struct Unsigned {
    /// The gate's state.
    pub state: String,
    /// Who has decided.
    pub decisions: Vec<v1::Decision>,
    /// Who still may.
    pub waits_for: Vec<String>,
    /// The incident.
    pub incident: String,
}

/// Why what the controller shows is not what would be signed.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// A part of it cannot be read.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// Which part.
        what: String,
        /// Why.
        why: String,
    },
    /// Two parts that must agree do not.
    #[error("{0}")]
    Differs(String),
}

impl Mismatch {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Mismatch::Unreadable { .. } => {
                "if the controller is newer than this fettle, use the one of its version; if not, tell whoever runs it"
            }
            Mismatch::Differs(_) => {
                "tell whoever runs the controller: it is broken, or not what it should be"
            }
        }
    }
}

fn differs(what: impl Into<String>) -> Mismatch {
    Mismatch::Differs(what.into())
}

fn unreadable(what: impl Into<String>, why: impl std::fmt::Display) -> Mismatch {
    Mismatch::Unreadable { what: what.into(), why: why.to_string() }
}

/// Recomputes a gate from its bytes, under a roster that the pinned trust bundle vouches for.
pub fn recompute(asked: &str, gate: &v1::Gate, roster: &Roster, now: Timestamp) -> Result<Checked, Mismatch> {
    let request = Request::decode(&gate.request).map_err(|error| unreadable("the request", error))?;
    if request.gate.to_string() != asked {
        return Err(differs(format!("asked for {asked}, was shown a request of {}", request.gate)));
    }
    if digest(Tag::Runbook, &gate.runbook_bytes) != request.runbook_digest {
        return Err(differs("the runbook shown is not the one the request names"));
    }
    let plans = plans(gate, &request)?;
    let certificates =
        all_signed(gate.certificates.clone()).map_err(|error| unreadable("a certificate", error))?;
    let certified = certified(&gate.runbook_bytes, &certificates, roster, now);
    let started = started(gate, &request, roster, now)?;

    if let Some(again) = &request.again
        && let Some(other) = plans.iter().find(|plan| plan.from != again.path)
    {
        let what = format!(
            "the request is to run {} again, and {} is shown to stand at {}",
            again.path, other.plan.agent, other.from
        );
        return Err(differs(what));
    }
    let mut demanded = Vec::new();
    for CheckedPlan { plan, from, .. } in &plans {
        let read = |refusal: Refusal| differs(format!("the plan of {}: {}", plan.agent, refusal.message));
        let risk = highest_risk(plan, from, certified.is_ok()).map_err(read)?;
        if request.risk < risk {
            return Err(differs(format!(
                "the request says its risk is {}, and the plan of {} is {}",
                risk_word(request.risk),
                plan.agent,
                risk_word(risk)
            )));
        }
        demanded.extend(required(plan, from, certified.is_ok(), roster, None).map_err(read)?);
    }
    let anyone_may = anyone_may(request.again.as_ref(), &demanded, &request.factors);
    let mut factors = if request.again.is_some() { required_again(demanded) } else { demanded };
    factors.extend(request.factors.iter().cloned());
    Ok(Checked {
        anyone_may,
        digest: Request::digest(&gate.request),
        factors: strictest(factors),
        request,
        plans,
        certified,
        started,
        unsigned: Unsigned {
            state: gate.state.clone(),
            decisions: gate.decisions.clone(),
            waits_for: gate.waits_for.clone(),
            incident: gate.incident.clone(),
        },
    })
}

fn plans(gate: &v1::Gate, request: &Request) -> Result<Vec<CheckedPlan>, Mismatch> {
    let mut plans = Vec::new();
    let mut leaves = Vec::new();
    for shown in &gate.plans {
        let host: Host = shown.host.parse().map_err(|error| unreadable("a host's name", error))?;
        let plan =
            plan::decode(&shown.plan).map_err(|error| unreadable(format!("the plan of {host}"), error))?;
        let digest = plan::digest_of(&shown.plan);
        if plan.agent != host {
            return Err(differs(format!("a plan of {} is shown as one of {host}", plan.agent)));
        }
        if plan.run != request.run {
            return Err(differs(format!(
                "the plan of {host} is of {}, the request of {}",
                plan.run, request.run
            )));
        }
        if plan.runbook_digest != request.runbook_digest || plan.runbook != request.runbook {
            return Err(differs(format!("the plan of {host} is of another runbook than the request")));
        }
        if plans.iter().any(|other: &CheckedPlan| other.plan.agent == host) {
            return Err(differs(format!("{host} is shown with two plans")));
        }
        leaves.push(Leaf { agent: host, plan: digest, nonce: request.nonce(&plan.nonce) }.hash());
        plans.push(CheckedPlan { plan, digest, from: shown.from.clone() });
    }
    if leaves.len() as u64 != request.leaves {
        return Err(differs(format!(
            "the request covers {} plans, {} are shown",
            request.leaves,
            leaves.len()
        )));
    }
    if plans.is_empty() || merkle::root(&leaves) != request.root {
        return Err(differs("the plans shown are not those the request covers"));
    }
    Ok(plans)
}

fn started(
    gate: &v1::Gate,
    request: &Request,
    roster: &Roster,
    now: Timestamp,
) -> Result<Option<Started>, Mismatch> {
    let (Some(expected), Some(requester)) = (request.start, &request.requester) else { return Ok(None) };
    let signed =
        gate.start.clone().ok_or_else(|| differs("the start that the request names is not shown"))?;
    let signed = Signed::try_from(signed).map_err(|error| unreadable("the start", error))?;
    let started = Start::verify(&signed, roster, now).map_err(|refusal| unreadable("the start", refusal))?;
    let start = started.start();
    if started.digest() != expected
        || started.person() != requester
        || start.run != request.run
        || start.runbook_digest != request.runbook_digest
    {
        return Err(differs("the start shown is not the one the request names"));
    }
    Ok(Some(started))
}

/// Why this person's approval would not count; `Ok` if it would.
pub fn may_approve(checked: &Checked, roster: &Roster, person: &str, now: Timestamp) -> Result<(), Refusal> {
    let request = &checked.request;
    if now > request.decide_by {
        return Err(Refusal::new(
            Code::ApprovalLate,
            format!("the time to decide ended at {}", request.decide_by),
        ));
    }
    if !checked.anyone_may && request.requester.as_deref() == Some(person) {
        return Err(Refusal::new(
            Code::ApproverIsRequester,
            "you asked for this run; somebody else must approve it",
        ));
    }
    let wrote = |certified: &Certified| certified.author().eq_ignore_ascii_case(person);
    if !checked.anyone_may && checked.certified.as_ref().is_ok_and(wrote) {
        return Err(Refusal::new(
            Code::ApproverIsAuthor,
            "you wrote this runbook; somebody else must approve what it does",
        ));
    }
    let known = roster.person(person);
    if !known.is_some_and(|known| known.scopes.contains(&fettle_proto::signed::Scope::Approve)) {
        return Err(Refusal::new(
            Code::ScopeMissing,
            format!("`{person}` may not approve under roster version {}", roster.version),
        ));
    }
    Ok(())
}

/// The roster, if a root key of the pinned bundle signed it and it has not expired.
pub fn trusted_roster(
    signed: Option<v1::Signed>,
    trust: &Path,
    now: Timestamp,
) -> crate::error::Result<Roster> {
    use crate::error::Error;
    use crate::exit::Exit;
    let refused = |why: &dyn std::fmt::Display| {
        Error::new(Exit::NotAllowed, "the controller's roster is not to be believed")
            .why(why)
            .fix("ask whoever keeps your roster's root key; until then sign nothing")
    };
    let bytes = std::fs::read(trust).map_err(|error| {
        Error::usage("failed to read the trust bundle").at(trust.display()).because(&error)
    })?;
    let trust = Trust::decode(bytes.trim_ascii_end()).map_err(|error| {
        Error::usage("failed to read the trust bundle").at(trust.display()).because(&error)
    })?;
    let signed = signed.ok_or_else(|| refused(&"it has none"))?;
    let signed = Signed::try_from(signed).map_err(|error| refused(&error))?;
    let roster = Roster::trusted(&signed, &trust).map_err(|refusal| refused(&refusal))?;
    roster.in_force(now).map_err(|refusal| refused(&refusal))?;
    Ok(roster)
}

#[cfg(test)]
mod tests {
    use fettle_runbooks::runbook::Risk;

    use super::*;
    use crate::people::sample::{self, GATE, gate_of, roster, sample_plan};

    fn check(gate: &v1::Gate) -> Result<Checked, Mismatch> {
        recompute(GATE, gate, &roster(), sample::now())
    }

    #[test]
    fn a_step_that_may_have_run_is_shown_as_such_and_is_of_this_attempt_only() {
        let again = || fettle_proto::signed::Again {
            path: "remediate/purge".to_owned(),
            attempt: 1,
            boot: "6f2c5a0e-1111-4222-8333-444455556666".to_owned(),
        };
        let plan = sample_plan();
        let of = |nonce: String| Leaf {
            agent: plan.agent.clone(),
            plan: plan::digest_of(&plan::encode(&plan)),
            nonce,
        };
        let mut gate = gate_of(&plan, |request| {
            request.root = merkle::root(&[of(again().nonce(&plan.nonce)).hash()]);
            request.again = Some(again());
        });
        gate.plans[0].from = "remediate/purge".to_owned();
        let checked = check(&gate).expect("honest");
        let out = crate::output::Output::plain(crate::output::Format::Table);
        let text = crate::people::brief::render(&checked, &out, 60, sample::now());
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("remediate/purge attempt 1 MAY HAVE RUN"), "{text}");

        gate.plans[0].from = "remediate/vacuum".to_owned();
        let shown = check(&gate).expect_err("it begins elsewhere").to_string();
        assert!(shown.contains("stand at"), "{shown}");
        let mut plain = gate_of(&plan, |request| request.again = Some(again()));
        plain.plans[0].from = "remediate/purge".to_owned();
        check(&plain).expect_err("the approval would use up the plan's own nonce");
    }

    #[test]
    fn an_honest_gate_is_what_its_request_says() {
        let checked = check(&sample::gate()).expect("honest");
        assert_eq!(checked.plans[0].plan, sample_plan());
        assert_eq!(checked.certified.expect("certified").author(), "dan");
        assert_eq!(checked.started.expect("started").person(), "eve");
    }

    #[test]
    fn a_gate_that_shows_anything_but_what_would_be_signed_is_found_out() {
        type Lie = (&'static str, fn() -> v1::Gate);
        let lies: &[Lie] = &[
            ("was shown a request of", || {
                gate_of(&sample_plan(), |request| {
                    request.gate = "gate_01930000000070008000000000000009".parse().expect("a gate id");
                })
            }),
            ("the runbook shown", || v1::Gate { runbook_bytes: "other".into(), ..sample::gate() }),
            // A harmless plan is shown, another one would be signed.
            ("not those the request covers", || {
                let mut shown = sample_plan();
                shown.steps[1].undo = fettle_runbooks::plan::PlannedUndo::None;
                let mut gate = sample::gate();
                gate.plans[0].plan = plan::encode(&shown).into();
                gate
            }),
            ("the request covers 2 plans", || gate_of(&sample_plan(), |request| request.leaves = 2)),
            ("the request covers 1 plans, 0 are shown", || v1::Gate { plans: vec![], ..sample::gate() }),
            ("shown with two plans", || {
                let mut gate = sample::gate();
                gate.plans.push(gate.plans[0].clone());
                gate
            }),
            ("is shown as one of", || {
                let mut gate = sample::gate();
                gate.plans[0].host = "web-2".to_owned();
                gate
            }),
            ("is not shown", || v1::Gate { start: None, ..sample::gate() }),
            ("the start shown", || {
                gate_of(&sample_plan(), |request| request.requester = Some("ana".to_owned()))
            }),
            ("its risk is low", || gate_of(&sample_plan(), |request| request.risk = Risk::Low)),
            // Uncertified, so critical, whatever the request says.
            ("is critical", || v1::Gate { certificates: vec![], ..sample::gate() }),
            ("has no step", || {
                let mut gate = sample::gate();
                gate.plans[0].from = "remediate/none".to_owned();
                gate
            }),
            ("the request cannot be read", || v1::Gate { request: "{}".into(), ..sample::gate() }),
            ("the plan of web-1 cannot be read", || {
                let mut gate = sample::gate();
                gate.plans[0].plan = "{}".into();
                gate
            }),
        ];
        for (says, lie) in lies {
            let error = check(&lie()).expect_err(says).to_string();
            assert!(error.contains(says), "`{says}` is missing in: {error}");
        }
    }

    #[test]
    fn an_approval_that_would_not_count_is_said_before_it_is_signed() {
        let checked = check(&sample::gate()).expect("honest");
        let code = |person: &str| {
            may_approve(&checked, &roster(), person, sample::now()).map_err(|refusal| refusal.code)
        };
        assert_eq!(code("ana"), Ok(()));
        assert_eq!(code("eve"), Err(Code::ApproverIsRequester));
        assert_eq!(code("dan"), Err(Code::ApproverIsAuthor));
        assert_eq!(code("fay"), Err(Code::ScopeMissing));
        assert_eq!(code("nobody"), Err(Code::ScopeMissing));
        let late = may_approve(&checked, &roster(), "ana", sample::at("2026-11-21T18:06:01Z"));
        assert_eq!(late.expect_err("late").code, Code::ApprovalLate);
    }
}
