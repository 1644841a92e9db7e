//! Other people: rosters that are old, expired, or written by the thief.

use fettle_proto::signed::{Namespace, Scope, Signed, sign};
use fettle_tests::Cluster;

use super::raid::{PRETENDER, Raid, diagnose, later, remediate, stranger, strike, with_reads};
use super::thief::Thief;

#[test]
fn a_host_takes_no_roster_back_and_none_of_the_thiefs() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let people = &thief.cluster.people;
    assert_eq!(thief.hello("web-1").roster_version, 1);

    // The thief's own, with the thief in it; signed by a key of the thief, and by a person who is no root.
    let mut mine = people.roster(9);
    mine.persons[0].keys = vec![stranger().public()];
    mine.persons[0].scopes = Scope::ALL.into();
    mine.rules.clear();
    let by_stranger = sign(&stranger(), Namespace::Roster, &mine.encode()).unwrap();
    let by_ana = sign(people.key("ana"), Namespace::Roster, &mine.encode()).unwrap();
    let mut altered = people.sign_roster(&people.roster(9));
    altered.bytes = mine.encode();
    let rosters: [(Signed, &str); 3] =
        [(by_stranger, "roster-untrusted"), (by_ana, "roster-untrusted"), (altered, "signature-invalid")];
    for (roster, code) in rosters {
        thief.give_roster("web-1", roster);
        thief.log_has("web-1", code);
    }
    let raid = Raid::of(&thief, "web-1", strike("high"));
    let plan_bytes = raid.plan();
    let mut grant = raid.grant(&raid.request(&plan_bytes), &["ana"]);
    grant.approvals[0] = sign(&stranger(), Namespace::Approval, &grant.approvals[0].bytes).unwrap();
    raid.refused("key-unknown", &raid.order(remediate(&plan_bytes, Some(grant))));

    // Ben leaves. The thief kept the roster in which he counts, and his key.
    let mut without_ben = people.roster(3);
    without_ben.persons.retain(|person| person.name != "ben");
    thief.give_roster("web-1", people.sign_roster(&without_ben));
    thief.give_roster("web-1", people.sign_roster(&people.roster(2)));
    thief.log_has("web-1", "roster-old");
    let grant = raid.grant(&raid.request(&plan_bytes), &["ben"]);
    raid.refused("key-unknown", &raid.order(remediate(&plan_bytes, Some(grant))));
    raid.nothing_happened();

    let grant = raid.grant(&raid.request(&plan_bytes), &["ana"]);
    raid.strikes(remediate(&plan_bytes, Some(grant)));
}

#[test]
fn an_expired_roster_lets_nobody_do_anything() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let people = &thief.cluster.people;
    let raid = Raid::of(&thief, "web-1", strike("high"));
    let plan_bytes = raid.plan();
    let low = Raid::of(&thief, "web-1", strike("low"));
    let low_plan = low.plan();

    let mut expired = people.roster(2);
    expired.expires = later(-1);
    thief.give_roster("web-1", people.sign_roster(&expired));
    let grant = raid.grant(&raid.request(&plan_bytes), &["ben"]);
    raid.refused("roster-expired", &raid.order(remediate(&plan_bytes, Some(grant))));
    // Certificates do not count either: what was low waits for people, and nobody is any.
    low.stops_at_the_gate(&low_plan);
    let started = Raid::of(&thief, "web-1", strike("low")).started_by("ana");
    started.refused("roster-expired", &started.order(diagnose()));
    let reads = Raid::of(&thief, "web-1", with_reads("high", PRETENDER, "- id: up\n    that: load.one >= 0"));
    reads.refused("read-uncertified", &reads.order(diagnose()));

    // A new one brings them back.
    thief.give_roster("web-1", people.sign_roster(&people.roster(3)));
    let grant = raid.grant(&raid.request(&plan_bytes), &["ben"]);
    raid.strikes(remediate(&plan_bytes, Some(grant)));
}

#[test]
fn a_host_that_never_had_a_roster_believes_nobody() {
    let mut cluster = Cluster::builder().start();
    cluster.join("web-1", &[]);
    cluster.controller().kill();
    cluster.start_agent_alone("web-1");
    let thief = Thief::replaces(cluster, &["web-1"]);
    assert_eq!(thief.hello("web-1").roster_version, 0);

    let raid = Raid::of(&thief, "web-1", strike("low"));
    let plan_bytes = raid.plan();
    raid.stops_at_the_gate(&plan_bytes);
    let grant = raid.grant(&raid.request(&plan_bytes), &["ana", "ben"]);
    raid.refused("roster-missing", &raid.order(remediate(&plan_bytes, Some(grant))));
    let started = Raid::of(&thief, "web-1", strike("low")).started_by("ana");
    started.refused("roster-missing", &started.order(diagnose()));
    let reads = Raid::of(&thief, "web-1", with_reads("high", PRETENDER, "- id: up\n    that: load.one >= 0"));
    reads.refused("read-uncertified", &reads.order(diagnose()));
    raid.nothing_happened();

    // It takes the first that a root signed.
    thief.give_roster("web-1", thief.cluster.people.sign_roster(&thief.cluster.people.roster(1)));
    raid.strikes(remediate(&plan_bytes, None));
}
