//! Who may make a host act. Each row of the table is an attack; each has its code.

use fettle_proto::grant::{self, missing, required, strictest};
use fettle_proto::signed::{
    Again, Decision, Envelope, Factor, Leaf, Namespace, Roster, Scope, Signed, Start, Until, certified,
    digest, sign,
};
use fettle_proto::{Code, merkle, signed};
use fettle_runbooks::runbook::Risk;

use crate::world::{self, Case, FROM};

fn anyone(need: u32) -> Factor {
    Factor { from: [].into(), need }
}

fn of(groups: &[&str], need: u32) -> Factor {
    Factor { from: groups.iter().map(|&group| group.to_owned()).collect(), need }
}

#[test]
fn a_good_grant_gives_a_permit_that_names_what_was_approved() {
    let case = Case::new();
    let permit = case.check().expect("a permit");
    assert_eq!(permit.approvers(), ["ana"]);
    assert_eq!(permit.plan(), signed::plan::digest_of(&signed::plan::encode(&case.plan)));
    assert_eq!(permit.nonce(), case.plan.nonce);
    assert_eq!(permit.start_by(), case.request.start_by);
}

/// The case, as a request to run the step again whose attempt 2 is unknown.
fn again(mut case: Case, path: &str, attempt: u32) -> Case {
    let again = Again { path: path.to_owned(), attempt, boot: case.boot.clone() };
    let leaf = Leaf {
        agent: case.host.clone(),
        plan: signed::plan::digest_of(&signed::plan::encode(&case.plan)),
        nonce: again.nonce(&case.plan.nonce),
    };
    (case.request.root, case.request.leaves) = (merkle::root(&[leaf.hash()]), 1);
    (case.leaf_index, case.path, case.unknown) = (0, Vec::new(), Some(2));
    case.request.again = Some(again);
    case.approved_by(&["ana"])
}

#[test]
fn a_step_whose_outcome_is_unknown_runs_again_by_a_grant_for_exactly_that_attempt() {
    let case = again(Case::new(), FROM, 2);
    let permit = case.check().expect("a permit");
    assert_ne!(permit.nonce(), case.plan.nonce, "the plan's nonce may be used up");
    assert_eq!(permit.again().map(|again| again.attempt), Some(2));
    let refused = |case: Case| case.check().expect_err("refused").code;
    assert_eq!(refused(again(Case::new(), FROM, 1)), Code::AgainMismatch, "another attempt");
    assert_eq!(refused(again(Case::new(), "remediate/other", 2)), Code::AgainMismatch, "another step");
    let known = Case { unknown: None, ..again(Case::new(), FROM, 2) };
    assert_eq!(refused(known), Code::AgainMismatch, "nothing is unknown");
    let mut plain = again(Case::new(), FROM, 2);
    plain.request.again = None;
    assert_eq!(refused(plain.approved_by(&["ana"])), Code::LeafMismatch, "the plan's own nonce is another");
    // The plan may be of an earlier boot: people were asked in this one. Later, they have to be asked again.
    let mut rebooted = Case::new();
    rebooted.boot = "the next boot".to_owned();
    again(rebooted, FROM, 2).check().expect("a permit");
    let mut later = again(Case::new(), FROM, 2);
    later.boot = "the next boot".to_owned();
    assert_eq!(refused(later), Code::Rebooted);
    let mut asked = again(Case::new(), FROM, 2);
    asked.roster.persons[4].scopes.insert(Scope::Approve);
    assert_eq!(refused(asked.approved_by(&["eve"])), Code::ApproverIsRequester);
    assert_eq!(refused(again(Case::new(), FROM, 2).approved_by(&[])), Code::Quorum);
}

#[test]
fn what_needs_nobody_runs_again_when_one_person_signs_whoever_that_is() {
    let low = || {
        let mut case = Case::new();
        for step in &mut case.plan.steps {
            (step.risk, step.approval) = (Risk::Low, None);
        }
        case.request.factors = Vec::new();
        case
    };
    // Who asked for the run may.
    let mut asked = again(low(), FROM, 2);
    asked.roster.persons[4].scopes.insert(Scope::Approve);
    let permit = asked.approved_by(&["eve"]).check().expect("a permit");
    assert_eq!(permit.approvers(), ["eve"]);
    let refused = |case: Case| case.check().expect_err("refused").code;
    assert_eq!(refused(again(low(), FROM, 2).approved_by(&[])), Code::Quorum, "but not without anybody");
    // Where the site wants somebody to agree, it is not who asked.
    let site = |signer: &'static str| {
        let mut case = low();
        let eve = &mut case.roster.persons[4];
        eve.scopes.insert(Scope::Approve);
        eve.groups.insert("dba-oncall".to_owned());
        case.request.factors = vec![of(&["dba-oncall"], 1)];
        again(case, FROM, 2).approved_by(&[signer])
    };
    assert_eq!(refused(site("eve")), Code::ApproverIsRequester);
    site("ana").check().expect("a permit");
}

#[test]
fn every_way_to_present_a_grant_that_is_none_is_refused_with_its_code() {
    type Spoil = fn(Case) -> Case;
    let table: &[(Code, Spoil)] = &[
        (Code::RosterExpired, |mut c| {
            c.roster.expires = c.now;
            c
        }),
        (Code::PlanMismatch, |mut c| {
            c.host = "web-2".parse().expect("a host");
            c
        }),
        (Code::NonceMismatch, |mut c| {
            c.nonce = "11".repeat(32);
            c
        }),
        (Code::Rebooted, |mut c| {
            c.boot = "another".to_owned();
            c
        }),
        (Code::Malformed, |mut c| {
            c.spoil = |grant| grant.request.push(b' ');
            c
        }),
        (Code::RequestRun, |mut c| {
            c.request.run = "run_01930000000070008000000000000009".parse().expect("a run id");
            c.approved_by(&["ana"])
        }),
        (Code::RequestRunbook, |mut c| {
            c.request.runbook_digest = digest(signed::Tag::Runbook, b"another");
            c.approved_by(&["ana"])
        }),
        (Code::RequestRunbook, |mut c| {
            c.request.runbook = "host/harmless".to_owned();
            c.approved_by(&["ana"])
        }),
        // A controller that conceals who asked, so that they may approve.
        (Code::RequestStart, |mut c| {
            c.request.start = None;
            c.request.requester = None;
            c.approved_by(&["ana"])
        }),
        (Code::RequestStart, |mut c| {
            c.request.requester = Some("ben".to_owned());
            c.approved_by(&["ana"])
        }),
        (Code::RequestStart, |mut c| {
            c.started = None;
            c
        }),
        (Code::StartUntilPlan, |mut c| {
            let mut start = world::start();
            start.until = Until::Plan;
            let signed = sign(&world::key_of("eve"), Namespace::Start, &start.encode()).expect("signs");
            let started = Start::verify(&signed, &c.roster, c.now).expect("a start");
            c.request.start = Some(started.digest());
            c.started = Some(started);
            c.approved_by(&["ana"])
        }),
        // One byte of the plan changed after people had seen it.
        (Code::LeafMismatch, |mut c| {
            c.plan.steps[3].name.push('x');
            c
        }),
        // Another host's place in the same tree.
        (Code::LeafMismatch, |mut c| {
            c.leaf_index = 0;
            c
        }),
        (Code::LeafMismatch, |mut c| {
            c.path.clear();
            c
        }),
        (Code::LeafMismatch, |mut c| {
            c.spoil = |grant| grant.leaf_count = 3;
            c
        }),
        (Code::GrantExpired, |mut c| {
            c.now = world::at("2026-11-21T18:10:00.001Z");
            c
        }),
        (Code::StepUnknown, |mut c| {
            c.from = "remediate/invented".to_owned();
            c
        }),
        (Code::RequestRisk, |mut c| {
            c.request.risk = Risk::Medium;
            c.approved_by(&["ana"])
        }),
        // The file's risk labels count only if reviewers certified them.
        (Code::RequestRisk, |mut c| {
            c.certified = None;
            c
        }),
        // The approval is of a request that was changed since.
        (Code::ApprovalMismatch, |mut c| {
            c.request.start_by = world::at("2026-11-21T23:00:00Z");
            c
        }),
        (Code::ApprovalDenied, |mut c| {
            c.approvals[0].0.decision = Decision::Deny;
            c
        }),
        (Code::ApprovalLate, |mut c| {
            c.approvals[0].0.at = world::at("2026-11-21T18:04:00.001Z");
            c
        }),
        (Code::ApproverIsRequester, |mut c| {
            c.roster.persons[4].scopes.insert(Scope::Approve);
            c.approved_by(&["eve"])
        }),
        (Code::ApproverIsAuthor, |c| c.approved_by(&["dan"])),
        (Code::ApproverTwice, |c| c.approved_by(&["ana", "ana"])),
        // The same person with a second key is still one person.
        (Code::ApproverTwice, |mut c| {
            c.roster.persons[0].keys.push(world::key_of("root").public());
            let request = c.request.encode();
            c.approvals.push((world::approval(&request, "ana"), "root"));
            c
        }),
        (Code::PersonMismatch, |mut c| {
            c.approvals[0].1 = "ben";
            c
        }),
        (Code::KeyUnknown, |mut c| {
            c.approvals[0].1 = "a stranger";
            c.roster.persons.truncate(4);
            c
        }),
        (Code::ScopeMissing, |mut c| {
            c.roster.persons[0].scopes.remove(&Scope::Approve);
            c
        }),
        (Code::SignatureInvalid, |mut c| {
            c.spoil = |grant| grant.approvals[0].bytes[40] ^= 1;
            c
        }),
        // A signature of the same bytes for another purpose.
        (Code::SignatureInvalid, |mut c| {
            c.spoil = |grant| {
                let bytes = grant.approvals[0].bytes.clone();
                grant.approvals[0] = sign(&world::key_of("ana"), Namespace::Login, &bytes).expect("signs");
            };
            c
        }),
        (Code::SignatureKind, |mut c| {
            c.spoil = |grant| grant.approvals[0].envelope = Envelope::WebAuthn(vec![1]);
            c
        }),
        (Code::Quorum, |c| c.approved_by(&[])),
        // A leaver is not in today's roster, whatever an old one said.
        (Code::KeyUnknown, |mut c| {
            c.roster.persons.remove(0);
            c
        }),
        // Of the wrong group: `dba-oncall` or `duty-manager` is needed.
        (Code::Quorum, |mut c| {
            c.roster.persons[0].groups.clear();
            c
        }),
        // The controller's additions bind too.
        (Code::Quorum, |mut c| {
            c.request.factors.push(of(&["security"], 1));
            c.approved_by(&["ana"])
        }),
        // An uncertified runbook is critical: two persons, one of them a duty manager by the roster's rule.
        (Code::Quorum, |mut c| {
            c.certified = None;
            c.request.risk = Risk::Critical;
            c.approved_by(&["ana"])
        }),
        (Code::Quorum, |mut c| {
            c.certified = None;
            c.request.risk = Risk::Critical;
            c.approved_by(&["ana", "ben"])
        }),
    ];
    for (row, (code, spoil)) in table.iter().enumerate() {
        match spoil(Case::new()).check() {
            Err(refusal) => assert_eq!(refusal.code, *code, "row {row}: {refusal}"),
            Ok(permit) => panic!("row {row} should be {code} and gave {permit:?}"),
        }
    }
}

#[test]
fn an_uncertified_runbook_runs_once_the_duty_manager_and_one_more_agree() {
    let mut case = Case::new();
    case.certified = None;
    case.request.risk = Risk::Critical;
    // The runbook asks for 1 of dba-oncall or duty-manager, the roster for 1 duty-manager: two persons, which is the floor.
    case.approved_by(&["ana", "cleo"]).check().expect("a permit");
}

#[test]
fn what_a_step_needs_is_the_strictest_of_floor_roster_and_runbook() {
    let roster = world::roster();
    let plan = world::plan();
    let need = |from: &str, certified, also| required(&plan, from, certified, &roster, also).expect("a step");
    assert_eq!(need("remediate/settle", true, None), []);
    assert_eq!(need("remediate/settle", true, Some(Risk::Low)), [anyone(1)]);
    assert_eq!(need("remediate/settle", false, None), [anyone(2), of(&["duty-manager"], 1)]);
    assert_eq!(need(FROM, true, None), [of(&["dba-oncall", "duty-manager"], 1)]);
    assert_eq!(
        need(FROM, false, None),
        [of(&["dba-oncall", "duty-manager"], 1), of(&["duty-manager"], 1)],
        "the floor of two is met by the two particular ones"
    );
    assert_eq!(grant::highest_risk(&plan, "remediate/vacuum", true).expect("a step"), Risk::High);
}

#[test]
fn the_strictest_keeps_the_largest_of_equal_groups_and_loses_nothing_when_repeated() {
    assert_eq!(strictest(vec![anyone(2), anyone(1)]), [anyone(2)]);
    assert_eq!(strictest(vec![anyone(2), of(&["a"], 1)]), [anyone(2), of(&["a"], 1)]);
    assert_eq!(strictest(vec![anyone(1), of(&["a"], 1), of(&["a"], 3), of(&["b"], 0)]), [of(&["a"], 3)]);
    assert_eq!(strictest(vec![of(&["a"], u32::MAX), of(&["b"], u32::MAX), anyone(9)]).len(), 2);
    let once = strictest(vec![anyone(3), of(&["a"], 1), of(&["b"], 1)]);
    let twice = strictest([once.clone(), once.clone()].concat());
    assert_eq!(once, twice, "or a second party would ask for less");
}

#[test]
fn an_order_begins_where_the_host_is_and_leaves_nothing_out() {
    let plan = world::plan();
    grant::in_turn(&plan, None, "remediate/vacuum").expect("the first");
    grant::in_turn(&plan, Some(FROM), FROM).expect("where it stopped");
    for (stopped_at, from) in
        [(None, FROM), (Some(FROM), "remediate/settle"), (Some(FROM), "remediate/vacuum")]
    {
        assert_eq!(grant::in_turn(&plan, stopped_at, from).expect_err("left out").code, Code::StepOrder);
    }
}

#[test]
fn one_person_fills_one_place_and_is_put_where_they_help_most() {
    let both = world::person("both", &["a", "b"], &[Scope::Approve]);
    let only_a = world::person("only-a", &["a"], &[Scope::Approve]);
    let factors = [of(&["a"], 1), of(&["b"], 1)];
    assert_eq!(missing(&factors, &[&both]), [of(&["b"], 1)]);
    assert_eq!(missing(&factors, &[&both, &only_a]), []);
    assert_eq!(missing(&factors, &[&only_a, &both]), []);
    assert_eq!(missing(&[anyone(2), of(&["a"], 1)], &[&only_a]), [anyone(1)]);
    assert_eq!(missing(&[anyone(2), of(&["a"], 1)], &[&only_a, &both]), []);
    assert_eq!(missing(&[of(&["a"], u32::MAX)], &[&both]), [of(&["a"], u32::MAX - 1)]);
}

#[test]
fn certificates_count_only_from_enough_reviewers_who_are_not_the_author() {
    let roster = world::roster();
    let good = || world::certify(&world::certificate("dan", "cleo"), "cleo");
    let code = |certificates: &[Signed]| {
        certified(world::RUNBOOK, certificates, &roster, world::now()).expect_err("refused").code
    };
    assert_eq!(code(&[]), Code::CertificateMissing);
    assert_eq!(
        code(&[world::certify(&world::certificate("dan", "dan"), "dan")]),
        Code::CertificateSelfReviewed
    );
    assert_eq!(code(&[world::certify(&world::certificate("dan", "cleo"), "dan")]), Code::PersonMismatch);
    assert_eq!(code(&[world::certify(&world::certificate("dan", "ana"), "ana")]), Code::ScopeMissing);
    assert_eq!(
        code(&[good(), world::certify(&world::certificate("ana", "dan"), "dan")]),
        Code::CertificateAuthors
    );

    let relabelled = certified(b"fettle: 1\nrisk: low\n", &[good()], &roster, world::now());
    assert_eq!(relabelled.expect_err("other bytes").code, Code::CertificateMismatch);

    let mut two = world::roster();
    two.reviewers_needed = 2;
    let refusal =
        certified(world::RUNBOOK, &[good(), good()], &two, world::now()).expect_err("one person twice");
    assert_eq!(refusal.code, Code::CertificateQuorum);

    // A certificate of a reviewer who has left does no harm beside a good one.
    let left = world::certify(&world::certificate("dan", "zoe"), "zoe");
    let by = certified(world::RUNBOOK, &[left, good()], &roster, world::now()).expect("certified");
    assert_eq!((by.author(), by.reviewers().len()), ("dan", 1));
}

#[test]
fn a_start_covers_its_own_run_runbook_inputs_and_hosts_only() {
    let roster = Case::new().roster;
    let start = world::start();
    let signed = sign(&world::key_of("eve"), Namespace::Start, &start.encode()).expect("signs");
    let started = Start::verify(&signed, &roster, world::now()).expect("a start");
    let (run, inputs) = (world::run(), world::inputs());
    started.covers(run, start.runbook_digest, &inputs, &world::host()).expect("covers");

    let other_run = "run_01930000000070008000000000000009".parse().expect("a run id");
    let mut other_inputs = inputs.clone();
    other_inputs.insert("mount".to_owned(), "/".to_owned());
    let other_book = digest(signed::Tag::Runbook, b"another");
    for refused in [
        started.covers(other_run, start.runbook_digest, &inputs, &world::host()),
        started.covers(run, other_book, &inputs, &world::host()),
        started.covers(run, start.runbook_digest, &other_inputs, &world::host()),
        started.covers(run, start.runbook_digest, &inputs, &"db-1".parse().expect("a host")),
    ] {
        assert_eq!(refused.expect_err("refused").code, Code::StartMismatch);
    }
    let by_ben = sign(&world::key_of("ben"), Namespace::Start, &start.encode()).expect("signs");
    assert_eq!(Start::verify(&by_ben, &roster, world::now()).expect_err("no scope").code, Code::ScopeMissing);
}

#[test]
fn a_roster_counts_only_from_a_root_key_and_never_goes_back() {
    let bytes = world::roster().encode();
    let sign_by = |who: &str| sign(&world::key_of(who), Namespace::Roster, &bytes).expect("signs");
    let roster = Roster::trusted(&sign_by("root"), &world::trust()).expect("trusted");
    assert_eq!(roster, world::roster());
    let refusal = Roster::trusted(&sign_by("ana"), &world::trust()).expect_err("not a root key");
    assert_eq!(refusal.code, Code::RosterUntrusted);
    roster.may_follow(3).expect("the same version again");
    assert_eq!(roster.may_follow(4).expect_err("older").code, Code::RosterOld);
    assert_eq!(roster.in_force(roster.expires).expect_err("expired").code, Code::RosterExpired);
}

#[test]
fn a_roster_that_gives_one_key_or_one_name_to_two_persons_is_unreadable() {
    let mut two_names = world::roster();
    two_names.persons[1].name = "ANA".to_owned();
    Roster::decode(&two_names.encode()).expect_err("one name, two persons");
    let mut one_key = world::roster();
    one_key.persons[1].keys = one_key.persons[0].keys.clone();
    Roster::decode(&one_key.encode()).expect_err("one key, two persons");
}

#[test]
fn a_login_is_an_answer_to_this_challenge_by_the_person_it_names_in_time() {
    let roster = world::roster();
    let challenge = world::login().encode();
    let answer = |by: &str| sign(&world::key_of(by), Namespace::Login, &challenge).expect("signs");
    let check = |answer: &Signed, now| signed::login::verify_login(&challenge, answer, &roster, now);
    assert_eq!(check(&answer("ana"), world::now()).expect("it is ana").name, "ana");
    assert_eq!(check(&answer("ben"), world::now()).expect_err("not ana").code, Code::PersonMismatch);
    assert!(check(&answer("ana"), world::at("2026-11-21T18:06:00Z")).is_err(), "too late");
    let mut other = world::login();
    other.challenge[0] ^= 1;
    let other = sign(&world::key_of("ana"), Namespace::Login, &other.encode()).expect("signs");
    assert!(check(&other, world::now()).is_err(), "another challenge");
}
