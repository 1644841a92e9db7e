//! May this host act?
//!
//! [`needs`] says who must agree to a step, from three sources of which the strictest wins: the built-in floor, the
//! roster's rules, and the runbook's own `approval:`. [`check`] says whether a grant is that agreement. Both are pure, and
//! the same code answers on the host (which enforces it), in the controller (which asks for it) and on the command line
//! (which shows it).
//!
//! Deliberately missing: whether the nonce was used, expiry by the boot clock, and the host's own veto. They need the
//! host's disk and clocks, and the agent asks them with the [`Permit`] in hand.

use std::collections::{BTreeMap, BTreeSet};

use fettle_runbooks::id::{Digest, GateId, Host, RunId};
use fettle_runbooks::plan::{Plan, PlannedStep};
use fettle_runbooks::runbook::Risk;
use jiff::Timestamp;

use crate::merkle;
use crate::refusal::{Code, Refusal};
use crate::signed::words::risk_word;
use crate::signed::{
    Again, Approval, Certified, Decision, Factor, Leaf, Person, Request, Roster, Signed, Started, plan,
};

/// What a controller presents so that a host goes beyond its floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The exact bytes of the request.
    pub request: Vec<u8>,
    /// Approvals of it.
    pub approvals: Vec<Signed>,
    /// This host's place among the leaves, from 0.
    pub leaf_index: u64,
    /// How many leaves.
    pub leaf_count: u64,
    /// From the leaf to the root.
    pub merkle_path: Vec<merkle::Hash>,
}

/// The risk that counts: what the runbook says if reviewers certified it, else critical for whatever remediates.
pub fn effective_risk(step: &PlannedStep, certified: bool) -> Risk {
    match step.risk {
        Risk::Read => Risk::Read,
        Risk::Low | Risk::Medium | Risk::High | Risk::Critical if !certified => Risk::Critical,
        risk @ (Risk::Low | Risk::Medium | Risk::High | Risk::Critical) => risk,
    }
}

/// The built-in floor: how many persons a risk needs whatever any file says.
pub const fn floor(risk: Risk) -> u32 {
    match risk {
        Risk::Read | Risk::Low => 0,
        Risk::Medium | Risk::High => 1,
        Risk::Critical => 2,
    }
}

/// Who must agree to one step, by floor, roster, runbook and the addition `also_from` (steps of this risk and above also
/// need someone). Empty: nobody.
pub fn needs(step: &PlannedStep, certified: bool, roster: &Roster, also_from: Option<Risk>) -> Vec<Factor> {
    let risk = effective_risk(step, certified);
    let anyone = |need| Factor { from: BTreeSet::new(), need };
    let mut factors = vec![anyone(floor(risk))];
    if also_from.is_some_and(|from| risk >= from) {
        factors.push(anyone(1));
    }
    let rules = roster.rules.iter().filter(|rule| risk >= rule.risk);
    factors.extend(rules.map(|rule| Factor { from: rule.from.clone(), need: rule.need }));
    if let Some(approval) = &step.approval {
        let escalated = approval.escalate.iter().flat_map(|escalate| &escalate.to);
        let from = match approval.from.is_empty() {
            true => BTreeSet::new(), // Anyone already; escalation only tells more people.
            false => approval.from.iter().chain(escalated).cloned().collect(),
        };
        factors.push(Factor { from, need: approval.need });
    }
    strictest(factors)
}

/// Who must agree to a plan from a step on: to all of it at once.
pub fn required(
    plan: &Plan,
    from: &str,
    certified: bool,
    roster: &Roster,
    also_from: Option<Risk>,
) -> Result<Vec<Factor>, Refusal> {
    let steps = remaining(plan, from)?;
    Ok(strictest(steps.iter().flat_map(|step| needs(step, certified, roster, also_from)).collect()))
}

/// The highest risk of a plan from a step on.
pub fn highest_risk(plan: &Plan, from: &str, certified: bool) -> Result<Risk, Refusal> {
    let steps = remaining(plan, from)?;
    Ok(steps.iter().map(|step| effective_risk(step, certified)).max().unwrap_or(Risk::Read))
}

/// The steps of a plan from the one at this path on.
pub fn remaining<'p>(plan: &'p Plan, from: &str) -> Result<&'p [PlannedStep], Refusal> {
    let at = plan.steps.iter().position(|step| step.path == from).ok_or_else(|| {
        Refusal::new(Code::StepUnknown, format!("the plan has no step `{}`", from.escape_debug()))
    })?;
    Ok(&plan.steps[at..])
}

/// Whether an order begins where it must: at the step this host stopped at, or at the first if it has not stopped yet. People
/// approve a plan as a whole, and its first steps may be what makes the later ones safe.
pub fn in_turn(plan: &Plan, stopped_at: Option<&str>, from: &str) -> Result<(), Refusal> {
    let expected = stopped_at.or(plan.steps.first().map(|step| step.path.as_str()));
    if expected == Some(from) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::StepOrder,
        format!(
            "the order begins at `{}`, this host is at `{}`",
            from.escape_debug(),
            expected.unwrap_or("no step")
        ),
    ))
}

/// Puts factors together so that the strictest wins: of factors of the same groups the largest. A number of persons in all
/// is left out when the particular groups need as many anyway. Doing it again changes nothing, so that what one party put
/// together may be put together with more by another.
pub fn strictest(factors: Vec<Factor>) -> Vec<Factor> {
    let mut largest: BTreeMap<BTreeSet<String>, u32> = BTreeMap::new();
    for factor in factors {
        let need = largest.entry(factor.from).or_default();
        *need = factor.need.max(*need);
    }
    let in_all = largest.remove(&BTreeSet::new()).unwrap_or(0);
    let particular = largest.values().fold(0u32, |sum, need| sum.saturating_add(*need));
    if in_all > particular {
        largest.insert(BTreeSet::new(), in_all);
    }
    largest.into_iter().filter(|(_, need)| *need > 0).map(|(from, need)| Factor { from, need }).collect()
}

/// Everything a grant is checked against. All of it is the host's own: read from its disk, or verified before.
#[derive(Debug)]
pub struct GrantInput<'a> {
    /// What the controller presents.
    pub grant: &'a Grant,
    /// The roster this host trusts.
    pub roster: &'a Roster,
    /// This host.
    pub host: &'a Host,
    /// The run of the order.
    pub run: RunId,
    /// The exact bytes of the plan, as this host journaled them.
    pub plan: &'a [u8],
    /// The nonce that was journaled with it.
    pub nonce: &'a str,
    /// The kernel's boot id now.
    pub boot: &'a str,
    /// The first step that would start.
    pub from: &'a str,
    /// The attempt of that step whose outcome is unknown here, if the run waits for people to say.
    pub unknown: Option<u32>,
    /// What reviewers said of the runbook; none: uncertified.
    pub certified: Option<&'a Certified>,
    /// The start that this host verified when it accepted the run; none: a trigger started it.
    pub started: Option<&'a Started>,
    /// The order's addition: steps of this risk and above need someone.
    pub also_from: Option<Risk>,
    /// Wall clock.
    pub now: Timestamp,
}

/// Proof that people agreed to this plan on this host. Only [`check`] makes one, and it can be spent once.
#[derive(Debug)]
pub struct Permit {
    plan: Digest,
    request: Digest,
    gate: GateId,
    nonce: String,
    approvers: Vec<String>,
    start_by: Timestamp,
    again: Option<Again>,
}

impl Permit {
    /// The plan.
    pub fn plan(&self) -> Digest {
        self.plan
    }
    /// The request that was approved.
    pub fn request(&self) -> Digest {
        self.request
    }
    /// The gate it opens.
    pub fn gate(&self) -> GateId {
        self.gate
    }
    /// To be consumed with the acceptance of the order.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }
    /// The attempt that may have run, if people agreed that its step runs again.
    pub fn again(&self) -> Option<&Again> {
        self.again.as_ref()
    }
    /// Who agreed.
    pub fn approvers(&self) -> &[String] {
        &self.approvers
    }
    /// The host must not begin later.
    pub fn start_by(&self) -> Timestamp {
        self.start_by
    }
}

/// Whether people agreed to what this host is about to do.
pub fn check(input: &GrantInput<'_>) -> Result<Permit, Refusal> {
    let GrantInput { grant, roster, now, .. } = *input;
    roster.in_force(now)?;
    let plan = plan::decode(input.plan)?;
    let plan_digest = plan::digest_of(input.plan);
    own_plan(input, &plan)?;

    let request = Request::decode(&grant.request)?;
    let request_digest = Request::digest(&grant.request);
    same_run(input, &plan, &request)?;
    same_attempt(input, &plan, &request)?;
    same_leaf(input, &plan, plan_digest, &request)?;
    if now > request.start_by {
        return Err(Refusal::new(
            Code::GrantExpired,
            format!("it had to begin by {}, and it is {now}", request.start_by),
        ));
    }

    let certified = input.certified.is_some_and(|certified| certified.digest() == plan.runbook_digest);
    let risk = highest_risk(&plan, input.from, certified)?;
    if request.risk < risk {
        return Err(Refusal::new(
            Code::RequestRisk,
            format!("the request says {} and the plan is {}", risk_word(request.risk), risk_word(risk)),
        ));
    }

    let mut factors = required(&plan, input.from, certified, roster, input.also_from)?;
    let anyone_may = anyone_may(request.again.as_ref(), &factors, &request.factors);
    if request.again.is_some() {
        factors = required_again(factors);
    }
    let approvers = approvers(input, &request, request_digest, anyone_may)?;
    factors.extend(request.factors.iter().cloned());
    quorum(&strictest(factors), &approvers)?;

    Ok(Permit {
        plan: plan_digest,
        request: request_digest,
        gate: request.gate,
        nonce: request.nonce(&plan.nonce),
        again: request.again,
        approvers: approvers.iter().map(|person| person.name.clone()).collect(),
        start_by: request.start_by,
    })
}

/// The host's own plan is of this host and this run; a mistake here is ours, and is refused all the same.
fn own_plan(input: &GrantInput<'_>, plan: &Plan) -> Result<(), Refusal> {
    if plan.agent != *input.host || plan.run != input.run {
        return Err(Refusal::new(
            Code::PlanMismatch,
            format!(
                "the plan is of {} on {}, the order of {} on {}",
                plan.run, plan.agent, input.run, input.host
            ),
        ));
    }
    if plan.nonce != input.nonce {
        return Err(Refusal::new(
            Code::NonceMismatch,
            "the plan has another nonce than was journaled with it",
        ));
    }
    Ok(())
}

/// A request to run a step again is of exactly the attempt whose outcome is unknown here, in the boot that it was asked in; any
/// other is of a plan made in this boot.
fn same_attempt(input: &GrantInput<'_>, plan: &Plan, request: &Request) -> Result<(), Refusal> {
    let Some(again) = &request.again else {
        if plan.boot != input.boot {
            return Err(Refusal::new(Code::Rebooted, "the host was rebooted after the plan was made"));
        }
        return Ok(());
    };
    if again.path != input.from || Some(again.attempt) != input.unknown {
        let what = match input.unknown {
            None => format!("no outcome of `{}` is unknown here", input.from.escape_debug()),
            Some(attempt) => format!("attempt {attempt} of `{}` is unknown here", input.from.escape_debug()),
        };
        let asked = again.path.escape_debug();
        return Err(Refusal::new(
            Code::AgainMismatch,
            format!("the request is to run `{asked}` again after attempt {}; {what}", again.attempt),
        ));
    }
    if again.boot != input.boot {
        return Err(Refusal::new(Code::Rebooted, "the host was rebooted after people were asked"));
    }
    Ok(())
}

/// Anybody who may approve.
fn one() -> Factor {
    Factor { from: BTreeSet::new(), need: 1 }
}

/// Who must agree that a step runs again which may have run, and the steps after it: whoever would have to agree to them anyway;
/// if that is nobody, one person who signs for it.
pub fn required_again(needed: Vec<Factor>) -> Vec<Factor> {
    if needed.is_empty() { vec![one()] } else { needed }
}

/// Whether who asked for a run, and who wrote its runbook, may sign as well that a step runs again: only where nobody would have to
/// agree to its steps, neither by what the plan and the roster demand (`needed`) nor by what the site added (`added`).
pub fn anyone_may(again: Option<&Again>, needed: &[Factor], added: &[Factor]) -> bool {
    again.is_some() && needed.is_empty() && added.iter().all(|factor| *factor == one())
}

fn same_run(input: &GrantInput<'_>, plan: &Plan, request: &Request) -> Result<(), Refusal> {
    if request.run != input.run {
        return Err(Refusal::new(
            Code::RequestRun,
            format!("the request is of {}, the order of {}", request.run, input.run),
        ));
    }
    if request.runbook_digest != plan.runbook_digest || request.runbook != plan.runbook {
        return Err(Refusal::new(
            Code::RequestRunbook,
            format!(
                "the request is of `{}` {}, the plan of `{}` {}",
                request.runbook.escape_debug(),
                request.runbook_digest,
                plan.runbook,
                plan.runbook_digest
            ),
        ));
    }
    let asked = (request.start, request.requester.as_deref());
    let known = (input.started.map(Started::digest), input.started.map(Started::person));
    if asked != known {
        let who = |person: Option<&str>| person.unwrap_or("a trigger").to_owned();
        return Err(Refusal::new(
            Code::RequestStart,
            format!("the request says {} started it, this host knows {}", who(asked.1), who(known.1)),
        ));
    }
    input.started.map_or(Ok(()), Started::remediates)
}

fn same_leaf(input: &GrantInput<'_>, plan: &Plan, digest: Digest, request: &Request) -> Result<(), Refusal> {
    let grant = input.grant;
    let leaf = Leaf { agent: input.host.clone(), plan: digest, nonce: request.nonce(&plan.nonce) };
    if grant.leaf_count != request.leaves {
        return Err(Refusal::new(
            Code::LeafMismatch,
            format!("the request covers {} plans, the grant counts {}", request.leaves, grant.leaf_count),
        ));
    }
    if !merkle::verify(&request.root, &leaf.hash(), grant.leaf_index, grant.leaf_count, &grant.merkle_path) {
        return Err(Refusal::new(
            Code::LeafMismatch,
            format!("the plan {digest} of {} is not among those the request covers", input.host),
        ));
    }
    Ok(())
}

/// The persons who validly approved. One approval that does not count spoils the grant: it has no business there. Where nobody would
/// have to agree (`anyone_may`), who asked for the run may sign as well.
fn approvers<'a>(
    input: &GrantInput<'a>,
    request: &Request,
    digest: Digest,
    anyone_may: bool,
) -> Result<Vec<&'a Person>, Refusal> {
    let mut persons: Vec<&Person> = Vec::new();
    for signed in &input.grant.approvals {
        let (approval, person) = Approval::verify(signed, input.roster)?;
        let name = &person.name;
        if approval.request != digest {
            return Err(Refusal::new(
                Code::ApprovalMismatch,
                format!("`{name}` approved {}, the request is {digest}", approval.request),
            ));
        }
        match approval.decision {
            Decision::Approve => {}
            Decision::Deny => {
                return Err(Refusal::new(Code::ApprovalDenied, format!("`{name}` said no")));
            }
        }
        if approval.at > request.decide_by {
            return Err(Refusal::new(
                Code::ApprovalLate,
                format!(
                    "`{name}` approved at {}, the time to decide ended at {}",
                    approval.at, request.decide_by
                ),
            ));
        }
        if !anyone_may && request.requester.as_ref() == Some(name) {
            return Err(Refusal::new(Code::ApproverIsRequester, format!("`{name}` asked for this run")));
        }
        if !anyone_may
            && input.certified.is_some_and(|certified| certified.author().eq_ignore_ascii_case(name))
        {
            return Err(Refusal::new(Code::ApproverIsAuthor, format!("`{name}` wrote the runbook")));
        }
        if persons.iter().any(|other| other.name == *name) {
            return Err(Refusal::new(Code::ApproverTwice, format!("`{name}` stands twice")));
        }
        persons.push(person);
    }
    Ok(persons)
}

/// Whether the persons meet the factors, each person counted for one particular group's.
pub fn quorum(factors: &[Factor], persons: &[&Person]) -> Result<(), Refusal> {
    let missing = missing(factors, persons);
    if missing.is_empty() {
        return Ok(());
    }
    let wants = missing.iter().map(describe).collect::<Vec<_>>().join(" and ");
    Err(Refusal::new(Code::Quorum, format!("{} approved; still needed: {wants}", persons.len())))
}

/// `2 persons in all`, `1 of dba-oncall or duty-manager`.
pub fn describe(factor: &Factor) -> String {
    match (factor.from.is_empty(), factor.need) {
        (true, 1) => "1 person".to_owned(),
        (true, need) => format!("{need} persons in all"),
        (false, need) => {
            format!("{need} of {}", factor.from.iter().cloned().collect::<Vec<_>>().join(" or "))
        }
    }
}

/// What of the factors these persons do not meet. Persons must be distinct.
///
/// Each person is seated at one place of one particular group's factor, where they help most: a maximum matching, by
/// augmenting paths. For a number of persons in all, everyone counts.
pub fn missing(factors: &[Factor], persons: &[&Person]) -> Vec<Factor> {
    let present = u32::try_from(persons.len()).unwrap_or(u32::MAX);
    let mut left: Vec<Factor> = factors.to_vec();
    // More places of one factor than there are persons can't be filled anyway.
    let places: Vec<usize> = (0..factors.len())
        .filter(|&index| !factors[index].from.is_empty())
        .flat_map(|index| std::iter::repeat_n(index, factors[index].need.min(present) as usize))
        .collect();
    let mut seats = Seats { factors, persons, places: &places, holder: vec![None; places.len()] };
    for person in 0..persons.len() {
        seats.seat(person, &mut vec![false; places.len()]);
    }
    for (place, holder) in places.iter().zip(&seats.holder) {
        left[*place].need -= u32::from(holder.is_some());
    }
    for factor in left.iter_mut().filter(|factor| factor.from.is_empty()) {
        factor.need = factor.need.saturating_sub(present);
    }
    left.retain(|factor| factor.need > 0);
    left
}

struct Seats<'a> {
    factors: &'a [Factor],
    persons: &'a [&'a Person],
    /// The factor of each place.
    places: &'a [usize],
    /// The person at each place.
    holder: Vec<Option<usize>>,
}

impl Seats<'_> {
    /// Finds a place for a person, moving others on if need be.
    fn seat(&mut self, person: usize, tried: &mut [bool]) -> bool {
        for place in 0..self.places.len() {
            let from = &self.factors[self.places[place]].from;
            if tried[place] || from.is_disjoint(&self.persons[person].groups) {
                continue;
            }
            tried[place] = true;
            let free = match self.holder[place] {
                None => true,
                Some(other) => self.seat(other, tried),
            };
            if free {
                self.holder[place] = Some(person);
                return true;
            }
        }
        false
    }
}
