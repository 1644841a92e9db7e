//! Files that nobody reviewed, or not as they are now.

use fettle_runbooks::runbook::Risk;
use fettle_tests::Cluster;

use super::raid::{Raid, WRITER, remediate, strike};
use super::thief::Thief;

#[test]
fn the_risk_a_file_claims_counts_only_for_the_bytes_that_were_reviewed() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);

    // Nobody reviewed it: its `low` means nothing, one person is too few, and a lower label in the request is seen.
    let uncertified = Raid::uncertified(&thief, "web-1", strike("low"));
    // Reviewed as `high`, relabelled since, the certificate kept.
    let reviewed = Raid::of(&thief, "web-1", strike("high"));
    let mut relabelled = Raid::uncertified(&thief, "web-1", strike("low"));
    relabelled.certificates = reviewed.certificates;
    // Certified by a person who reviews nothing, and by its own author.
    let mut unfit = Raid::uncertified(&thief, "web-1", strike("low"));
    unfit.certificates = vec![unfit.certificate(WRITER, "ana")];
    let mut own = Raid::uncertified(&thief, "web-1", strike("low"));
    own.certificates = vec![own.certificate("rosa", "rosa")];

    let raids = [uncertified, relabelled, unfit, own];
    let plans: Vec<Vec<u8>> = raids.iter().map(Raid::plan).collect();
    for (raid, plan_bytes) in raids.iter().zip(&plans) {
        raid.stops_at_the_gate(plan_bytes);
        let grant = raid.grant(&raid.request(plan_bytes), &["ben"]);
        raid.refused("quorum", &raid.order(remediate(plan_bytes, Some(grant))));
        let mut request = raid.request(plan_bytes);
        request.risk = Risk::High;
        let grant = raid.grant(&request, &["ana", "ben"]);
        raid.refused("request-risk", &raid.order(remediate(plan_bytes, Some(grant))));
        raid.nothing_happened();
    }
    // Two persons who know that it is critical may.
    for (raid, plan_bytes) in raids.iter().zip(&plans) {
        let grant = raid.grant(&raid.request(plan_bytes), &["ana", "ben"]);
        raid.strikes(remediate(plan_bytes, Some(grant)));
    }

    // Relabelled between the plan and the order.
    let raid = Raid::of(&thief, "web-1", strike("high"));
    let plan_bytes = raid.plan();
    let mut order = raid.order(remediate(&plan_bytes, None));
    order.runbook = strike("low").into_bytes().into();
    raid.refused("plan-mismatch", &order);
    raid.nothing_happened();

    // What was reviewed as low needs nobody, and is not done twice because another segment asks for it.
    let raid = Raid::of(&thief, "web-1", strike("low"));
    let plan_bytes = raid.plan();
    raid.strikes(remediate(&plan_bytes, None));
    raid.refused("step-order", &raid.order(remediate(&plan_bytes, None)));
    assert_eq!(raid.struck(), "struck\n");
}
