//! Orders out of place: for another host, altered, too late, twice, out of turn.

use fettle_proto::signed::{Tag, digest};
use fettle_proto::v1;
use fettle_tests::Cluster;
use prost::Message as _;

use super::raid::{Raid, STRIKE, diagnose, is_refused, later, remediate, remediate_from, strike, verify};
use super::thief::Thief;

#[test]
fn an_order_is_carried_out_only_here_in_time_unaltered_and_in_its_turn() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    // Low and certified: nothing but the order itself stands in its way.
    let raid = Raid::of(&thief, "web-1", strike("low"));
    let plan_bytes = raid.plan();
    let good = || raid.order(remediate(&plan_bytes, None));

    type Bend<'a> = Box<dyn Fn(&mut v1::OrderContent) + 'a>;
    let rows: Vec<(&str, Bend<'_>)> = vec![
        ("order-host", Box::new(|order| order.host = "web-2".to_owned())),
        ("order-expired", Box::new(|order| order.not_after_ms = later(-1).as_millisecond())),
        ("order-malformed", Box::new(|order| order.work = None)),
        ("runbook-invalid", Box::new(|order| order.runbook = vec![0xff].into())),
        (
            "inputs-invalid",
            Box::new(|order| {
                order.inputs.insert("other".to_owned(), "x".to_owned());
            }),
        ),
        // The plan was made with other inputs, whatever is to be done with it.
        (
            "plan-mismatch",
            Box::new(|order| {
                order.inputs.insert("marker".to_owned(), "/elsewhere".to_owned());
            }),
        ),
        (
            "plan-mismatch",
            Box::new(|order| {
                order.inputs.insert("marker".to_owned(), "/elsewhere".to_owned());
                order.work = Some(verify(&plan_bytes));
            }),
        ),
        (
            "step-unknown",
            Box::new(|order| {
                order.work = Some(remediate_from(&plan_bytes, "remediate/invented", None));
            }),
        ),
        // The number of the diagnosis, with other content.
        ("segment-conflict", Box::new(|order| order.segment = 1)),
        // A second diagnosis would make a second plan, with a place to begin that belongs to the first.
        ("segment-conflict", Box::new(|order| order.work = Some(diagnose()))),
    ];
    for (code, bend) in &rows {
        let mut order = good();
        bend(&mut order);
        raid.refused(code, &order);
    }

    // One byte changed on the way.
    let order = good();
    let bytes = order.encode_to_vec();
    let said = digest(Tag::Order, &bytes);
    let mut altered = order.clone();
    altered.not_after_ms += 1;
    is_refused("order-malformed", &raid.answer_to(order.segment, altered.encode_to_vec(), said));
    raid.nothing_happened();

    raid.strikes(remediate(&plan_bytes, None));

    // A cancelled run stays so.
    let raid = Raid::of(&thief, "web-1", strike("low"));
    let plan_bytes = raid.plan();
    let cancel = v1::Cancel { run: raid.run.to_string(), reason: "no".to_owned() };
    thief.say("web-1", v1::to_agent::What::Cancel(cancel));
    raid.refused("run-cancelled", &raid.order(remediate(&plan_bytes, None)));
    raid.nothing_happened();
}

#[test]
fn the_first_steps_of_an_approved_plan_are_not_left_out() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let careful =
        "remediate:\n  - id: drain\n    risk: high\n    run: [\"true\"]\n    repeat: safe\n    undo: none\n";
    let raid = Raid::of(&thief, "web-1", strike("high").replace("remediate:\n", careful));
    let plan_bytes = raid.plan();
    let grant = raid.grant(&raid.request(&plan_bytes), &["ben"]);
    raid.refused("step-order", &raid.order(remediate_from(&plan_bytes, STRIKE, Some(grant.clone()))));
    raid.refused("step-order", &raid.order(remediate_from(&plan_bytes, STRIKE, None)));
    raid.nothing_happened();
    raid.strikes(remediate_from(&plan_bytes, "remediate/drain", Some(grant)));
}
