//! Code that only pretends to read. A thief who could have any script run as "diagnosis" would need no approval.

use fettle_proto::v1;
use fettle_tests::Cluster;

use super::raid::{PRETENDER, Raid, WRITER, diagnose, remediate, strike, verify, with_reads};
use super::thief::Thief;

const FACTS: &str = "- id: facts\n    that: memory.total_bytes > 0";

#[test]
fn a_program_that_only_reads_runs_if_reviewers_or_a_person_vouch_for_it() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let in_diagnose = with_reads("high", PRETENDER, FACTS);
    let in_verify = with_reads("high", FACTS, PRETENDER);
    let by_argv = with_reads("high", "- id: peek\n    run: [touch, \"${{ inputs.marker }}\"]", FACTS);

    for text in [&in_diagnose, &in_verify, &by_argv] {
        let raid = Raid::uncertified(&thief, "web-1", text.clone());
        raid.refused("read-uncertified", &raid.order(diagnose()));
        // With the certificate of another file.
        let mut raid = Raid::uncertified(&thief, "web-1", text.clone());
        raid.certificates = Raid::of(&thief, "web-1", strike("high")).certificates;
        raid.refused("read-uncertified", &raid.order(diagnose()));
        // With a start of another file, which ana did sign.
        let wish = Raid::uncertified(&thief, "web-1", strike("high")).wish("ana");
        raid.start = Some(raid.signed_wish(&fettle_proto::signed::Start { run: raid.run, ..wish }, "ana"));
        raid.refused("start-mismatch", &raid.order(diagnose()));
        // By a person who may start nothing.
        raid.start = Some(raid.signed_wish(&raid.wish("rosa"), "rosa"));
        raid.refused("scope-missing", &raid.order(diagnose()));
        raid.nothing_happened();
    }

    // Smuggled into a run that is known already: as another diagnosis, and as the verification of the plan made before;
    // of a run that a trigger started, and of one that ana started with a harmless file.
    for harmless in [
        Raid::uncertified(&thief, "web-1", strike("high")),
        Raid::uncertified(&thief, "web-1", strike("high")).started_by("ana"),
    ] {
        let plan_bytes = harmless.plan();
        for text in [&in_diagnose, &in_verify] {
            for (work, codes) in [
                (diagnose(), ["read-uncertified", "segment-conflict", "start-mismatch"]),
                (verify(&plan_bytes), ["plan-mismatch", "plan-mismatch", "start-mismatch"]),
                (remediate(&plan_bytes, None), ["plan-mismatch", "plan-mismatch", "start-mismatch"]),
            ] {
                for start in [harmless.start.clone(), None] {
                    let mut order = harmless.order(work.clone());
                    order.runbook = text.clone().into_bytes().into();
                    order.start = start.map(Into::into);
                    let answer = harmless.answer(&order);
                    let v1::report::What::Refused(refused) = answer else {
                        panic!("smuggled in: {answer:?}")
                    };
                    assert!(codes.contains(&refused.code.as_str()), "{refused:?}");
                    harmless.nothing_happened();
                }
            }
        }
        // The file that was started goes on.
        let ended = harmless.carried_out(&harmless.order(verify(&plan_bytes)));
        assert_eq!(ended.verification(), v1::Verification::Failed, "{ended:?}");
    }

    // Reviewers vouch for these bytes, or a person for exactly this run of them: it runs, and still it only reads.
    for raid in [
        Raid::of(&thief, "web-1", in_diagnose.clone()),
        Raid::uncertified(&thief, "web-1", in_diagnose).started_by(WRITER),
        Raid::of(&thief, "web-1", in_verify.clone()),
        Raid::uncertified(&thief, "web-1", in_verify).started_by(WRITER),
    ] {
        let plan_bytes = raid.plan();
        raid.carried_out(&raid.order(verify(&plan_bytes)));
        assert!(raid.heard("denied by the read-only sandbox"), "it ran, and was refused what it tried");
        raid.nothing_happened();
    }
}

#[test]
fn facts_need_nobody_to_vouch_for_them() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let raid = Raid::uncertified(&thief, "web-1", strike("high"));
    let plan_bytes = raid.plan();
    raid.stops_at_the_gate(&plan_bytes);
}

#[test]
fn what_is_in_a_log_is_told_to_nobody_unless_reviewers_or_a_person_vouch_for_it() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let log = r#"log("/var/log/auth.log").last(".*", duration("7d"))"#;
    let by_condition = format!("- id: peek\n    that: '{log} != \"\"'");
    let by_output = format!("- id: peek\n    that: memory.total_bytes > 0\n    outputs: {{ it: '{log}' }}");
    let by_skipping = format!("- id: peek\n    if: '{log} == \"\"'\n    wait: 1s");
    for text in [
        with_reads("high", &by_condition, FACTS),
        with_reads("high", &by_output, FACTS),
        with_reads("high", FACTS, &by_skipping),
        strike("high").replace("    risk: high", &format!("    risk: high\n    if: '{log} == \"\"'")),
    ] {
        assert!(text.contains("auth.log"), "{text}");
        let raid = Raid::uncertified(&thief, "web-1", text.clone());
        raid.refused("read-uncertified", &raid.order(diagnose()));
        raid.nothing_happened();
        // With reviewers or a person behind it, it is looked at like any other fact.
        for raid in [
            Raid::of(&thief, "web-1", text.clone()),
            Raid::uncertified(&thief, "web-1", text.clone()).started_by(WRITER),
        ] {
            raid.plan();
            raid.nothing_happened();
        }
    }
}
