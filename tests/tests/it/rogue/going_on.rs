//! Runs that go on from others: steps left out or undone though nobody wished it, or on what is not so any more.

use fettle_proto::signed::start::Of;
use fettle_proto::signed::{Namespace, Signed, Start, plan, sign};
use fettle_proto::v1;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::RunId;
use fettle_tests::Cluster;
use uuid::Uuid;

use super::raid::{Raid, WRITER, diagnose, remediate, remediate_from, stranger, strike};
use super::thief::Thief;

const UNDO: &str = "remediate/strike/undo";

fn undoable(risk: &str) -> String {
    strike(risk).replace("undo: none", "undo: { run: 'echo undone >> \"$MARKER\"' }")
}

/// What a person would sign to go on from a run.
fn wish(raid: &Raid<'_>, earlier: RunId, how: FollowUp, person: &str) -> Start {
    let of = Of { run: earlier, how, reason: "it must be".to_owned(), found: Default::default() };
    Start { of: Some(of), ..raid.wish(person) }
}

/// A run of the same runbook with the same inputs, which goes on from another because a person signed that.
fn follows<'t>(earlier: &Raid<'t>, how: FollowUp, person: &str) -> Raid<'t> {
    let mut raid = earlier.on("web-1");
    raid.run = RunId::new(Uuid::now_v7());
    raid.start = Some(raid.signed_wish(&wish(&raid, earlier.run, how, person), person));
    raid.requester = Some(person.to_owned());
    raid
}

#[test]
fn a_step_is_skipped_or_undone_only_because_a_person_signed_that_and_only_once() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let first = Raid::of(&thief, "web-1", undoable("low")).started_by(WRITER);
    first.strikes(remediate(&first.plan(), None));

    let undo = follows(&first, FollowUp::Undo, "ana");
    let honest = wish(&undo, first.run, FollowUp::Undo, "ana");
    let plain = undo.signed_wish(&undo.wish("ana"), "ana");
    let rows: Vec<(&str, Signed)> = vec![
        // Ana's signature of a start, with the wish to undo added to its bytes.
        ("signature-invalid", Signed { bytes: honest.encode(), envelope: plain.envelope.clone() }),
        ("key-unknown", sign(&stranger(), Namespace::Start, &honest.encode()).unwrap()),
        ("scope-missing", undo.signed_wish(&wish(&undo, first.run, FollowUp::Undo, "rosa"), "rosa")),
        // Her wish to undo, in another run.
        ("start-mismatch", follows(&first, FollowUp::Undo, "ana").start.expect("signed")),
    ];
    for (code, start) in rows {
        let mut order = undo.order(diagnose());
        order.start = Some(start.into());
        undo.refused(code, &order);
    }

    // Without a word of anybody it is a run like any other: nothing is skipped, and nothing undone.
    let mut other = first.on("web-1");
    (other.run, other.start) = (RunId::new(Uuid::now_v7()), None);
    let plan_bytes = other.plan();
    let made = plan::decode(&plan_bytes).expect("a plan");
    assert_eq!((made.of, made.steps[0].done_in), (None, None));
    other.refused("step-unknown", &other.order(remediate_from(&plan_bytes, UNDO, None)));

    let plan_bytes = undo.plan();
    undo.refused("step-unknown", &undo.order(remediate(&plan_bytes, None)));
    let ended = undo.carried_out(&undo.order(remediate_from(&plan_bytes, UNDO, None)));
    assert_eq!(ended.undoing(), v1::Undoing::Done, "{ended:?}");
    assert_eq!(first.struck(), "struck\nundone\n");

    let again = follows(&first, FollowUp::Undo, "ana");
    again.refused("nothing-to-undo", &again.order(diagnose()));
    let back = follows(&undo, FollowUp::Undo, "ana");
    back.refused("earlier-mismatch", &back.order(diagnose()));
    let mut nobody = first.on("web-1");
    nobody.run = RunId::new(Uuid::now_v7());
    let nobody = follows(&nobody, FollowUp::Undo, "ana");
    nobody.refused("earlier-forgotten", &nobody.order(diagnose()));
    assert_eq!(first.struck(), "struck\nundone\n");
}

#[test]
fn what_was_approved_for_one_run_is_good_for_no_other_and_for_nothing_that_has_changed_since() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let first = Raid::of(&thief, "web-1", undoable("high"));
    let first_plan = first.plan();
    first.stops_at_the_gate(&first_plan);
    let kept_back = first.grant(&first.request(&first_plan), &["ben"]);

    let retry = follows(&first, FollowUp::Retry, "ana");
    let plan_bytes = retry.plan();
    // Nothing of the first will start again, whoever approved it.
    first.refused("run-cancelled", &first.order(remediate(&first_plan, Some(kept_back.clone()))));
    retry.refused("request-run", &retry.order(remediate(&plan_bytes, Some(kept_back))));
    let own = retry.grant(&retry.request(&plan_bytes), &["ana"]);
    retry.refused("approver-is-requester", &retry.order(remediate(&plan_bytes, Some(own))));
    retry.stops_at_the_gate(&plan_bytes);
    let spent = retry.grant(&retry.request(&plan_bytes), &["ben"]);
    retry.strikes(remediate(&plan_bytes, Some(spent.clone())));

    let one = follows(&retry, FollowUp::Undo, "ana");
    let plan_one = one.plan();
    one.refused("request-run", &one.order(remediate_from(&plan_one, UNDO, Some(spent))));
    let gate = one.carried_out(&one.order(remediate_from(&plan_one, UNDO, None)));
    assert!(matches!(&gate.how, Some(v1::segment_ended::How::Gate(gate)) if gate.path == UNDO), "{gate:?}");
    let good = one.grant(&one.request(&plan_one), &["ben"]);
    // Approved, and not so any more: somebody else goes on from the same run, and one of the two acts.
    let two = follows(&retry, FollowUp::Undo, "wil");
    let plan_two = two.plan();
    one.refused("run-cancelled", &one.order(remediate_from(&plan_one, UNDO, Some(good.clone()))));
    two.refused("request-run", &two.order(remediate_from(&plan_two, UNDO, Some(good))));
    let own = two.grant(&two.request(&plan_two), &["ben"]);
    two.carried_out(&two.order(remediate_from(&plan_two, UNDO, Some(own))));
    assert_eq!(first.struck(), "struck\nundone\n");
}
