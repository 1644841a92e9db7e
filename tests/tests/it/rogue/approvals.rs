//! Consent that is none: of another plan, host, run or person, too late, too few, used up, forged.

use fettle_proto::grant::Grant;
use fettle_proto::merkle;
use fettle_proto::signed::{Approval, Decision, Envelope, Namespace, Request, plan, sign};
use fettle_runbooks::runbook::Risk;
use fettle_tests::Cluster;
use fettle_tests::people::REVIEWER;

use super::raid::{ELSEWHERE, Raid, WRITER, approval, later, leaf_of, remediate, stranger, strike};
use super::thief::Thief;

fn of(grant: &Grant) -> fettle_runbooks::id::Digest {
    Request::digest(&grant.request)
}

#[test]
fn an_approval_counts_only_as_it_was_meant_and_once() {
    let thief =
        Thief::replaces(Cluster::builder().agent("web-1").agent("web-2").start(), &["web-1", "web-2"]);
    let raid = Raid::of(&thief, "web-1", strike("high"));
    let plan_bytes = raid.plan();
    raid.stops_at_the_gate(&plan_bytes);

    // Of a request as the thief writes it, approved by ben, who would rightly be enough.
    type Bend = fn(&mut Request);
    let requests: &[(&str, Bend)] = &[
        ("leaf-mismatch", |request| request.root = ELSEWHERE),
        ("leaf-mismatch", |request| request.leaves = 2),
        ("request-run", |request| request.run = "run_01930000000070008000000000000009".parse().unwrap()),
        ("request-runbook", |request| request.runbook = "test/harmless".to_owned()),
        ("request-start", |request| {
            request.start = Some(request.runbook_digest);
            request.requester = Some("ana".to_owned());
        }),
        ("request-risk", |request| request.risk = Risk::Low),
        ("grant-expired", |request| request.start_by = later(-1)),
        ("approval-late", |request| request.decide_by = later(-1)),
    ];
    for (code, bend) in requests {
        let mut request = raid.request(&plan_bytes);
        bend(&mut request);
        raid.refused(code, &raid.order(remediate(&plan_bytes, Some(raid.grant(&request, &["ben"])))));
    }

    // Of the right request, with approvals that do not count.
    let people = &thief.cluster.people;
    type Spoil<'a> = Box<dyn Fn(&mut Grant) + 'a>;
    let grants: Vec<(&str, Spoil<'_>)> = vec![
        ("quorum", Box::new(|grant| grant.approvals.clear())),
        ("approver-twice", Box::new(|grant| grant.approvals.push(grant.approvals[0].clone()))),
        (
            "approver-twice",
            Box::new(|grant| {
                let again = Approval { reason: "twice".to_owned(), ..approval(of(grant), "ben") };
                grant.approvals.push(raid.signed_approval(&again, "ben"));
            }),
        ),
        (
            "approval-denied",
            Box::new(|grant| {
                let no = Approval { decision: Decision::Deny, ..approval(of(grant), "ben") };
                grant.approvals = vec![raid.signed_approval(&no, "ben")];
            }),
        ),
        (
            "approval-late",
            Box::new(|grant| {
                let late = Approval { at: later(601), ..approval(of(grant), "ben") };
                grant.approvals = vec![raid.signed_approval(&late, "ben")];
            }),
        ),
        // Of a request with one byte changed since.
        (
            "approval-mismatch",
            Box::new(|grant| {
                let mut request = Request::decode(&grant.request).unwrap();
                request.start_by = later(7200);
                grant.request = request.encode();
            }),
        ),
        // A person who may start runs and approve nothing.
        (
            "scope-missing",
            Box::new(|grant| {
                grant.approvals = vec![raid.signed_approval(&approval(of(grant), WRITER), WRITER)]
            }),
        ),
        // A good key that is nobody's.
        (
            "key-unknown",
            Box::new(|grant| {
                let bytes = approval(of(grant), "ben").encode();
                grant.approvals = vec![sign(&stranger(), Namespace::Approval, &bytes).unwrap()];
            }),
        ),
        // In another's name.
        (
            "person-mismatch",
            Box::new(|grant| {
                grant.approvals = vec![raid.signed_approval(&approval(of(grant), "ana"), "ben")]
            }),
        ),
        // The same bytes signed for another purpose.
        (
            "signature-invalid",
            Box::new(|grant| {
                let bytes = grant.approvals[0].bytes.clone();
                grant.approvals = vec![sign(people.key("ben"), Namespace::Start, &bytes).unwrap()];
            }),
        ),
        ("signature-invalid", Box::new(|grant| grant.approvals[0].bytes[60] ^= 1)),
        ("signature-kind", Box::new(|grant| grant.approvals[0].envelope = Envelope::WebAuthn(vec![1]))),
        ("malformed", Box::new(|grant| grant.request.push(b' '))),
        ("leaf-mismatch", Box::new(|grant| grant.leaf_count = 2)),
        ("leaf-mismatch", Box::new(|grant| grant.merkle_path.push(ELSEWHERE))),
    ];
    for (code, spoil) in &grants {
        let mut grant = raid.grant(&raid.request(&plan_bytes), &["ben"]);
        spoil(&mut grant);
        raid.refused(code, &raid.order(remediate(&plan_bytes, Some(grant))));
    }

    // The honest plan of another host of the same run, and ben's honest approval of that.
    let other = raid.on("web-2");
    let others_plan = other.plan();
    let others = other.grant(&other.request(&others_plan), &["ben"]);
    raid.refused("leaf-mismatch", &raid.order(remediate(&plan_bytes, Some(others.clone()))));
    raid.refused("plan-mismatch", &raid.order(remediate(&others_plan, Some(others))));
    // Of both hosts' plans, presented with the other host's place.
    let (ours, theirs) = (leaf_of(&plan_bytes).hash(), leaf_of(&others_plan).hash());
    let mut request = raid.request(&plan_bytes);
    request.root = merkle::root(&[ours, theirs]);
    request.leaves = 2;
    let both = Grant { leaf_count: 2, ..raid.grant(&request, &["ben"]) };
    let wrong_place = Grant { leaf_index: 1, merkle_path: vec![ours], ..both.clone() };
    raid.refused("leaf-mismatch", &raid.order(remediate(&plan_bytes, Some(wrong_place))));

    // Of another plan of the same host and runbook.
    let earlier = Raid::of(&thief, "web-1", strike("high"));
    let earlier_plan = earlier.plan();
    let of_earlier = earlier.grant(&earlier.request(&earlier_plan), &["ben"]);
    raid.refused("request-run", &raid.order(remediate(&plan_bytes, Some(of_earlier.clone()))));
    raid.refused("plan-mismatch", &raid.order(remediate(&earlier_plan, Some(of_earlier))));
    earlier.nothing_happened();

    // Of this plan with one byte changed: what ben saw is not what this host made.
    let forged = String::from_utf8(plan_bytes.clone()).unwrap().replacen("echo struck", "echo strucK", 1);
    assert_ne!(forged.as_bytes(), plan_bytes);
    plan::decode(forged.as_bytes()).expect("still a plan");
    let of_forged = raid.grant(&raid.request(forged.as_bytes()), &["ben"]);
    raid.refused("leaf-mismatch", &raid.order(remediate(&plan_bytes, Some(of_forged.clone()))));
    raid.refused("plan-mismatch", &raid.order(remediate(forged.as_bytes(), Some(of_forged))));

    // What people really agreed to runs, once.
    let honest = Grant { merkle_path: vec![theirs], ..both };
    raid.strikes(remediate(&plan_bytes, Some(honest.clone())));
    raid.refused("nonce-consumed", &raid.order(remediate(&plan_bytes, Some(honest))));
    let fresh = raid.grant(&raid.request(&plan_bytes), &["ben", "ana"]);
    raid.refused("nonce-consumed", &raid.order(remediate(&plan_bytes, Some(fresh))));
    assert_eq!(raid.struck(), "struck\n");
}

#[test]
fn a_used_approval_stays_used_when_the_agent_is_killed() {
    let mut thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let (run, content, replayed, after_restart) = {
        let raid = Raid::of(&thief, "web-1", strike("high"));
        let plan_bytes = raid.plan();
        let grant = raid.grant(&raid.request(&plan_bytes), &["ben"]);
        raid.strikes(remediate(&plan_bytes, Some(grant.clone())));
        let replayed = raid.order(remediate(&plan_bytes, Some(grant.clone())));
        raid.refused("nonce-consumed", &replayed);
        let after = raid.order(remediate(&plan_bytes, Some(grant)));
        (raid.run, raid.struck(), replayed.segment, after)
    };
    assert_eq!((content.as_str(), replayed), ("struck\n", 3));
    let pid = thief.cluster.agent("web-1").pid();
    thief.cluster.agent("web-1").kill();
    thief.gone("web-1");
    thief.cluster.start_agent_alone("web-1");
    thief.hello("web-1");
    assert_ne!(thief.cluster.agent("web-1").pid(), pid);
    let raid = Raid::again(&thief, "web-1", strike("high"), run);
    raid.refused("nonce-consumed", &after_restart);
    assert_eq!(raid.struck(), "struck\n");
}

#[test]
fn critical_takes_two_persons_and_neither_asked_nor_wrote_it() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);

    let mut raid = Raid::of(&thief, "web-1", strike("critical")).started_by("ana");
    // Rosa says that ben wrote it.
    raid.certificates = vec![raid.certificate("ben", REVIEWER)];
    let plan_bytes = raid.plan();
    raid.stops_at_the_gate(&plan_bytes);
    for (code, persons) in [
        ("quorum", &[REVIEWER][..]),
        ("approver-is-requester", &["ana", REVIEWER]),
        ("approver-is-author", &[REVIEWER, "ben"]),
        ("approver-twice", &[REVIEWER, REVIEWER]),
    ] {
        let grant = raid.grant(&raid.request(&plan_bytes), persons);
        raid.refused(code, &raid.order(remediate(&plan_bytes, Some(grant))));
    }
    // A request that conceals that ana asked.
    let mut request = raid.request(&plan_bytes);
    (request.start, request.requester) = (None, None);
    let grant = raid.grant(&request, &["ana", REVIEWER]);
    raid.refused("request-start", &raid.order(remediate(&plan_bytes, Some(grant.clone()))));
    // An order that conceals it too, after the host has heard of it.
    let mut order = raid.order(remediate(&plan_bytes, Some(grant)));
    order.start = None;
    raid.refused("request-start", &order);
    raid.nothing_happened();

    let raid = Raid::of(&thief, "web-1", strike("critical")).started_by(WRITER);
    let plan_bytes = raid.plan();
    let grant = raid.grant(&raid.request(&plan_bytes), &["ana", "ben"]);
    raid.strikes(remediate(&plan_bytes, Some(grant)));
}
