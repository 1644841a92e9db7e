//! Wishes that nobody had: starts that are forged, stretched, moved or taken back.

use fettle_proto::signed::{Envelope, Namespace, Roster, Signed, Start, Until, sign};
use fettle_tests::Cluster;

use super::raid::{Raid, WRITER, diagnose, later, remediate, stranger, strike};
use super::thief::Thief;

#[test]
fn a_start_is_of_the_person_the_run_the_file_the_inputs_and_the_host_it_names() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let raid = Raid::of(&thief, "web-1", strike("low"));
    let wish = raid.wish("ana");
    let by_ana = |start: &Start| raid.signed_wish(start, "ana");

    let rows: Vec<(&str, Signed)> = vec![
        ("signature-invalid", Signed { bytes: wish.encode(), envelope: Envelope::SshSig(String::new()) }),
        ("signature-kind", Signed { bytes: wish.encode(), envelope: Envelope::WebAuthn(vec![1]) }),
        ("key-unknown", sign(&stranger(), Namespace::Start, &wish.encode()).unwrap()),
        ("person-mismatch", raid.signed_wish(&wish, "ben")),
        // Rosa reviews and approves; she may start nothing.
        ("scope-missing", raid.signed_wish(&raid.wish("rosa"), "rosa")),
        (
            "start-mismatch",
            by_ana(&Start { run: "run_01930000000070008000000000000009".parse().unwrap(), ..wish.clone() }),
        ),
        (
            "start-mismatch",
            by_ana(&Start { runbook_digest: fettle_runbooks::id::Digest([1; 32]), ..wish.clone() }),
        ),
        ("start-mismatch", by_ana(&Start { inputs: [].into(), ..wish.clone() })),
        ("start-mismatch", by_ana(&Start { hosts: ["web-2".parse().unwrap()].into(), ..wish.clone() })),
        // Kept until a host would have forgotten the run.
        ("start-expired", by_ana(&Start { at: later(-86_401), ..wish.clone() })),
    ];
    for (code, start) in rows {
        let mut order = raid.order(diagnose());
        order.start = Some(start.into());
        raid.refused(code, &order);
    }
    raid.nothing_happened();

    // To the plan and no further, even for a low step; also if the order no longer mentions it.
    let mut raid = Raid::of(&thief, "web-1", strike("low"));
    raid.start = Some(raid.signed_wish(&Start { until: Until::Plan, ..raid.wish("ana") }, "ana"));
    let plan_bytes = raid.plan();
    raid.refused("start-until-plan", &raid.order(remediate(&plan_bytes, None)));
    let mut silent = raid.order(remediate(&plan_bytes, None));
    silent.start = None;
    raid.refused("start-until-plan", &silent);
    // A second, longer wish does not replace the first.
    let mut other = raid.order(remediate(&plan_bytes, None));
    other.start = Some(raid.signed_wish(&raid.wish("ana"), "ana").into());
    raid.refused("start-mismatch", &other);
    raid.nothing_happened();

    // A run that a trigger started is not ana's afterwards.
    let raid = Raid::of(&thief, "web-1", strike("low"));
    let plan_bytes = raid.plan();
    let mut late = raid.order(remediate(&plan_bytes, None));
    late.start = Some(raid.signed_wish(&raid.wish("ana"), "ana").into());
    raid.refused("start-mismatch", &late);

    let raid = Raid::of(&thief, "web-1", strike("low")).started_by(WRITER);
    let plan_bytes = raid.plan();
    raid.strikes(remediate(&plan_bytes, None));
}

#[test]
fn who_asked_is_remembered_when_the_agent_was_killed_and_the_roster_expired() {
    let mut thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let raid = Raid::of(&thief, "web-1", strike("high")).started_by("ana");
    let (run, start, plan_bytes) = (raid.run, raid.start.clone(), raid.plan());
    let people = &thief.cluster.people;
    thief.give_roster("web-1", people.sign_roster(&Roster { expires: later(-1), ..people.roster(2) }));
    raid.refused("roster-expired", &raid.order(remediate(&plan_bytes, None)));

    thief.cluster.agent("web-1").kill();
    thief.gone("web-1");
    thief.cluster.start_agent_alone("web-1");
    assert_eq!(thief.hello("web-1").roster_version, 2);
    let people = &thief.cluster.people;
    thief.give_roster("web-1", people.sign_roster(&people.roster(3)));

    // Ana asked; were that forgotten, she could agree as well.
    let mut raid = Raid::again(&thief, "web-1", strike("high"), run);
    let concealed = raid.grant(&raid.request(&plan_bytes), &["ana"]);
    raid.refused("request-start", &raid.order(remediate(&plan_bytes, Some(concealed))));
    (raid.start, raid.requester) = (start, Some("ana".to_owned()));
    let by_ana = raid.grant(&raid.request(&plan_bytes), &["ana"]);
    raid.refused("approver-is-requester", &raid.order(remediate(&plan_bytes, Some(by_ana))));
    raid.nothing_happened();
    let by_ben = raid.grant(&raid.request(&plan_bytes), &["ben"]);
    raid.strikes(remediate(&plan_bytes, Some(by_ben)));
}
