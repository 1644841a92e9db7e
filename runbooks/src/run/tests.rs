//! Tests of the host run: events in, a transcript out.

use proptest::prelude::*;

use super::*;

fn done(verification: Verification) -> Outcome {
    Outcome { how: How::Done, verification, effects: true, undoing: Undoing::None }
}

fn gate(path: &str, effects: bool) -> Outcome {
    Outcome {
        how: How::Gate { path: path.to_owned() },
        verification: Verification::NotRun,
        effects,
        undoing: Undoing::None,
    }
}

fn failed(verification: Verification, undoing: Undoing) -> Outcome {
    let how = How::Failed { path: "remediate/purge".to_owned(), reason: "it exited with 3".to_owned() };
    Outcome { how, verification, effects: true, undoing }
}

fn unknown() -> Outcome {
    let how =
        How::Unknown { path: "remediate/purge".to_owned(), attempt: 1, reason: "power was lost".to_owned() };
    Outcome { how, verification: Verification::Failed, effects: true, undoing: Undoing::None }
}

fn ended(segment: u32, outcome: Outcome) -> Event {
    Event::SegmentEnded { segment, outcome }
}

fn entered(segment: u32, path: &str, attempt: u32) -> Event {
    let passage = Passage::of(path).expect("a path of a step");
    Event::Entered { segment, passage, path: path.to_owned(), attempt }
}

fn planned() -> Event {
    Event::Planned { segment: 1, first: Some("remediate/vacuum".to_owned()) }
}

/// `who` stopped it.
fn because(why: &str) -> String {
    why.to_owned()
}

fn told(effects: &[Effect]) -> String {
    let each: Vec<String> = effects.iter().map(ToString::to_string).collect();
    if each.is_empty() { "nothing to do".to_owned() } else { each.join(", ") }
}

/// The one place these tests touch the machine.
#[track_caller]
fn follow(mut run: HostRun, events: &[Event], expected: &str) {
    let mut transcript = String::new();
    for event in events {
        match run.apply(event) {
            Ok((next, effects)) => {
                run = next;
                transcript.push_str(&format!("{event} → {}: {}\n", run.state, told(&effects)));
            }
            Err(illegal) => transcript.push_str(&format!("failed to {illegal}\n")),
        }
    }
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(transcript.trim(), expected.join("\n"));
}

#[track_caller]
fn check(until: Until, events: &[Event], expected: &str) {
    follow(HostRun::new(until), events, expected);
}

#[track_caller]
fn check_from(before: &[Event], events: &[Event], expected: &str) {
    let there = |run: HostRun, event| run.apply(event).expect("the way there is legal").0;
    follow(before.iter().fold(HostRun::new(Until::End), there), events, expected);
}

#[test]
fn a_low_risk_plan_runs_to_its_verified_end() {
    check(
        Until::End,
        &[
            Event::Started,
            Event::Accepted { segment: 1 },
            entered(1, "diagnose/usage", 1),
            planned(),
            ended(1, Outcome { effects: false, ..done(Verification::NotRun) }),
            Event::Admitted,
            Event::Accepted { segment: 2 },
            entered(2, "remediate/vacuum", 1),
            entered(2, "verify/below", 1),
            ended(2, done(Verification::Passed)),
        ],
        "
        started → diagnosing: send segment 1 (diagnose)
        accepted → diagnosing: nothing to do
        a diagnose step began → diagnosing: nothing to do
        planned → planned: ask the guards
        segment ended: done → planned: nothing to do
        admitted → remediating: send segment 2 (remediate from remediate/vacuum)
        accepted → remediating: nothing to do
        a remediate step began → remediating: nothing to do
        a verify step began → verifying: nothing to do
        segment ended: done, verify passed → ended (verified): end as verified
        ",
    );
}

#[test]
fn a_run_that_stops_at_the_plan_changes_nothing() {
    check(
        Until::Plan,
        &[Event::Started, planned()],
        "
        started → diagnosing: send segment 1 (diagnose)
        planned → ended (succeeded): end as succeeded
        ",
    );
}

#[test]
fn a_runbook_that_only_diagnoses_succeeds() {
    check(
        Until::End,
        &[Event::Started, Event::Planned { segment: 1, first: None }],
        "
        started → diagnosing: send segment 1 (diagnose)
        planned, nothing to do → ended (succeeded): end as succeeded
        ",
    );
}

#[test]
fn a_diagnosis_that_a_host_tells_again_and_that_came_to_no_plan_succeeds() {
    let ends = [Event::Started, Event::Accepted { segment: 1 }, ended(1, done(Verification::NotRun))];
    check(
        Until::End,
        &ends,
        "
        started → diagnosing: send segment 1 (diagnose)
        accepted → diagnosing: nothing to do
        segment ended: done → ended (succeeded): end as succeeded",
    );
}

#[test]
fn a_host_that_has_lost_a_step_and_shows_it_late_has_a_person_asked_and_a_no_stays_a_no() {
    let asks = Some("resolve");
    let all = [
        (Ending::Refused, asks),
        (Ending::Unverified, asks),
        (Ending::Failed, asks),
        (Ending::Rejected, None),
        (Ending::Expired, None),
    ];
    for (ending, waits_for) in all {
        let otherwise = Some(Final { ending, reason: "no".to_owned() });
        let state = State::Verifying { otherwise };
        let run = HostRun { state, segment: 2, effects: true, ..HostRun::new(Until::End) };
        let (then, _) = run.apply(&ended(2, unknown())).unwrap();
        assert_eq!(then.state.waiting_for(), waits_for, "{ending:?}");
    }
}

#[test]
fn a_host_that_shows_a_lost_step_while_people_are_asked_at_a_gate_has_a_person_asked_about_that() {
    for (checking, effects) in [(Checking::Undecided, 2), (Checking::Approved, 1)] {
        let state = State::Waiting(Wait::Gate { from: "remediate/b".into(), checking: Some(checking) });
        let run = HostRun { state, segment: 3, effects: true, ..HostRun::new(Until::End) };
        let (then, told) = run.apply(&ended(3, unknown())).unwrap();
        assert_eq!((then.state.waiting_for(), told.len()), (Some("resolve"), effects), "{checking:?}");
    }
}

/// Started, planned, admitted, and at a gate, having done something or not.
fn at_gate(effects: bool) -> Vec<Event> {
    vec![Event::Started, planned(), Event::Admitted, ended(2, gate("remediate/purge", effects))]
}

#[test]
fn nothing_behind_a_gate_is_sent_before_people_approve() {
    check_from(
        &at_gate(true)[..3],
        &[
            ended(2, gate("remediate/purge", true)),
            Event::Admitted,
            Event::GateApproved,
            ended(3, done(Verification::Passed)),
        ],
        "
        segment ended: gate at remediate/purge → waiting (gate): open a gate at remediate/purge
        failed to apply `admitted` to a run that is waiting (gate)
        approved → remediating: send segment 3 (remediate from remediate/purge, granted)
        segment ended: done, verify passed → ended (verified): end as verified
        ",
    );
}

#[test]
fn a_denied_run_that_did_something_is_verified_before_it_ends() {
    let denied = Event::GateDenied { reason: because("ana said no") };
    check_from(
        &at_gate(true),
        &[denied.clone(), ended(3, Outcome { effects: false, ..done(Verification::Passed) })],
        "
        denied → verifying: send segment 3 (verify)
        segment ended: done, verify passed → ended (verified): end as verified
        ",
    );
    check_from(
        &at_gate(true),
        &[denied.clone(), ended(3, Outcome { effects: false, ..done(Verification::Failed) })],
        "
        denied → verifying: send segment 3 (verify)
        segment ended: done, verify failed → ended (rejected): end as rejected
        ",
    );
    check_from(&at_gate(false), &[denied], "denied → ended (rejected): end as rejected");
}

#[test]
fn a_gate_that_nobody_decides_expires_and_never_continues() {
    check_from(
        &at_gate(false),
        &[Event::GateExpired { reason: because("nobody decided by 03:14") }, Event::GateApproved],
        "
        expired → ended (expired): end as expired
        failed to apply `approved` to a run that is ended (expired)
        ",
    );
}

#[test]
fn an_alert_that_resolves_while_a_gate_is_open_has_the_symptom_read_again() {
    let look = |v| ended(3, Outcome { effects: false, ..done(v) });
    check_from(
        &at_gate(true),
        &[Event::AlertResolved, look(Verification::Failed), Event::AlertResolved],
        "
        alert resolved → waiting (gate): send segment 3 (verify)
        segment ended: done, verify failed → waiting (gate): go on if people have approved
        alert resolved → waiting (gate): send segment 4 (verify)
        ",
    );
    check_from(
        &at_gate(true),
        &[Event::AlertResolved, look(Verification::Passed)],
        "
        alert resolved → waiting (gate): send segment 3 (verify)
        segment ended: done, verify passed → ended (verified): close the gate, end as verified
        ",
    );
}

#[test]
fn that_a_look_fails_after_people_cancelled_ends_nothing_and_that_the_symptom_is_gone_does() {
    let look = |v| ended(3, Outcome { effects: false, ..done(v) });
    let stop = || Event::CancelAsked { reason: because("ana stopped it") };
    let gone = || Event::Cancelled { interrupted: None };
    for (told, ending) in [
        (Verification::Failed, Ending::Cancelled),
        (Verification::NotRun, Ending::Cancelled),
        (Verification::Passed, Ending::Verified),
    ] {
        let resolved = [&at_gate(true)[..3], &[ended(2, unknown()), Event::Resolved(Resolution::DidNotRun)]];
        for before in [[at_gate(true), vec![Event::AlertResolved]].concat(), resolved.concat()] {
            let all = before.into_iter().chain([stop(), look(told), gone()]);
            let over = all.fold(HostRun::new(Until::End), |run, event| run.apply(&event).expect("legal").0);
            assert_eq!(over.ended().map(|how| how.ending), Some(ending), "{told:?}");
        }
    }
}

#[test]
fn an_approval_during_that_look_waits_for_it() {
    let look = |v| ended(3, Outcome { effects: false, ..done(v) });
    check_from(
        &at_gate(true),
        &[Event::AlertResolved, Event::GateApproved, look(Verification::Failed)],
        "
        alert resolved → waiting (gate): send segment 3 (verify)
        approved → waiting (gate): nothing to do
        segment ended: done, verify failed → remediating: send segment 4 (remediate from remediate/purge, granted)
        ",
    );
    check_from(
        &at_gate(true),
        &[Event::AlertResolved, Event::GateApproved, look(Verification::Passed)],
        "
        alert resolved → waiting (gate): send segment 3 (verify)
        approved → waiting (gate): nothing to do
        segment ended: done, verify passed → ended (verified): end as verified
        ",
    );
}

#[test]
fn a_failed_step_ends_the_run_failed_or_undone() {
    let running = &at_gate(false)[..3];
    check_from(
        running,
        &[ended(2, failed(Verification::Failed, Undoing::None))],
        "segment ended: failed, verify failed → ended (failed): end as failed",
    );
    check_from(
        running,
        &[entered(2, "remediate/vacuum/undo", 1), ended(2, failed(Verification::Failed, Undoing::Done))],
        "
        an undo began → undoing: nothing to do
        segment ended: failed, undone, verify failed → ended (undone): end as undone
        ",
    );
    check_from(
        running,
        &[ended(2, failed(Verification::Passed, Undoing::Failed))],
        "segment ended: failed, undo failed, verify passed → ended (failed): end as failed",
    );
}

#[test]
fn an_unknown_outcome_is_put_before_a_person_and_never_shown_as_failed() {
    let running = &at_gate(false)[..3];
    check_from(
        running,
        &[
            ended(2, unknown()),
            Event::Resolved(Resolution::Ran),
            ended(3, Outcome { effects: false, ..done(Verification::Passed) }),
        ],
        "
        segment ended: unknown, verify failed → waiting (resolve): ask a person about remediate/purge
        a person says that it ran → verifying: send segment 3 (verify)
        segment ended: done, verify passed → ended (verified): end as verified
        ",
    );
}

#[test]
fn a_cancelled_run_is_cancelled_only_when_the_host_says_so() {
    let asked = Event::CancelAsked { reason: because("ana stopped it") };
    check_from(
        &at_gate(false)[..3],
        &[asked.clone(), asked.clone(), Event::Cancelled { interrupted: None }],
        "
        cancel asked → cancelling: ask the host to stop
        cancel asked → cancelling: nothing to do
        the host stopped → ended (cancelled): end as cancelled
        ",
    );
    check_from(
        &at_gate(false),
        &[asked.clone(), Event::Cancelled { interrupted: None }],
        "
        cancel asked → cancelling: close the gate, ask the host to stop
        the host stopped → ended (cancelled): end as cancelled
        ",
    );
    check(Until::End, &[asked], "cancel asked → ended (cancelled): end as cancelled");
}

#[test]
fn a_step_that_was_stopped_midway_is_put_before_a_person() {
    check_from(
        &at_gate(false)[..3],
        &[
            Event::CancelAsked { reason: because("ana stopped it") },
            Event::Cancelled { interrupted: Some("remediate/purge".to_owned()) },
            Event::Resolved(Resolution::DidNotRun),
        ],
        "
        cancel asked → cancelling: ask the host to stop
        the host stopped midway → waiting (resolve): ask a person about remediate/purge
        a person says that it did not run → ended (cancelled): end as cancelled
        ",
    );
}

#[test]
fn a_run_that_had_ended_before_the_cancel_reached_it_says_how() {
    check_from(
        &at_gate(false)[..3],
        &[
            Event::CancelAsked { reason: because("ana stopped it") },
            ended(2, done(Verification::Passed)),
            Event::Cancelled { interrupted: None },
        ],
        "
        cancel asked → cancelling: ask the host to stop
        segment ended: done, verify passed → cancelling: nothing to do
        the host stopped → ended (verified): end as verified
        ",
    );
}

#[test]
fn a_refused_order_ends_the_run_and_what_was_done_is_verified() {
    let refused =
        |segment| Event::Refused { segment, code: because("quorum"), message: because("1 of 2 approved") };
    check_from(&[Event::Started], &[refused(1)], "refused → ended (refused): end as refused");
    let mut approved = at_gate(true);
    approved.push(Event::GateApproved);
    check_from(
        &approved,
        &[refused(3), ended(4, Outcome { effects: false, ..done(Verification::Failed) })],
        "
        refused → verifying: send segment 4 (verify)
        segment ended: done, verify failed → ended (refused): end as refused
        ",
    );
}

#[test]
fn guards_can_hold_a_planned_run_or_refuse_it() {
    let planned = &[Event::Started, planned()];
    check_from(
        planned,
        &[Event::Held(Held::Window), Event::Held(Held::Wave), Event::Admitted],
        "
        held for a window → waiting (window): nothing to do
        held for its wave → waiting (wave): nothing to do
        admitted → remediating: send segment 2 (remediate from remediate/vacuum)
        ",
    );
    check_from(
        planned,
        &[Event::Barred { reason: because("cooling down for 12m") }],
        "barred by a guard → ended (refused): end as refused",
    );
}

#[test]
fn a_report_of_an_earlier_segment_is_history() {
    let mut approved = at_gate(true);
    approved.push(Event::GateApproved);
    check_from(
        &approved,
        &[ended(2, done(Verification::Passed)), Event::Accepted { segment: 1 }],
        "
        segment ended: done, verify passed → remediating: nothing to do
        accepted → remediating: nothing to do
        ",
    );
}

#[test]
fn a_controller_restored_from_a_backup_believes_the_host() {
    check_from(
        &at_gate(true),
        &[ended(3, done(Verification::Passed))],
        "segment ended: done, verify passed → ended (verified): close the gate, end as verified",
    );
}

#[test]
fn a_run_is_stored_and_read_back_in_every_state() {
    for (_, run) in table::states().into_iter().chain(table::paused()) {
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<HostRun>(&text).unwrap(), run, "{text}");
    }
}

#[test]
fn the_documented_table_is_the_one_in_the_code() {
    crate::table::documented("run", &table::markdown());
}

#[test]
fn the_documented_table_of_pauses_is_the_one_in_the_code() {
    crate::table::documented("run-paused", &table::markdown_paused());
}

#[test]
fn a_paused_run_sends_nothing_that_acts_and_asks_anew_when_it_is_resumed() {
    let pause = || Event::PauseAsked { reason: because("ana wants to look") };
    check_from(
        &[Event::Started],
        &[
            pause(),
            Event::PauseTold { on: true, count: 1 },
            planned(),
            Event::Admitted,
            Event::ResumeAsked,
            Event::PauseTold { on: false, count: 2 },
            Event::Admitted,
            pause(),
            ended(2, gate("remediate/purge", true)),
            Event::GateApproved,
            Event::ResumeAsked,
            Event::GateApproved,
        ],
        "
        pause asked → diagnosing: tell the host
        the host says that it is paused → diagnosing: nothing to do
        planned → planned: nothing to do
        failed to apply `admitted` to a run that is planned
        resumption asked → planned: tell the host, ask the guards
        the host says that it is not paused → planned: nothing to do
        admitted → remediating: send segment 2 (remediate from remediate/vacuum)
        pause asked → remediating: tell the host
        segment ended: gate at remediate/purge → waiting (gate): open a gate at remediate/purge
        failed to apply `approved` to a run that is waiting (gate)
        resumption asked → waiting (gate): tell the host, go on if people have approved
        approved → remediating: send segment 3 (remediate from remediate/purge, granted)
        ",
    );
}

#[test]
fn a_pause_extends_no_approval_and_a_gate_that_expires_meanwhile_ends_the_run() {
    let mut paused = at_gate(false);
    paused.push(Event::PauseAsked { reason: because("ana wants to look") });
    check_from(
        &paused,
        &[Event::GateExpired { reason: because("nobody decided by 03:14") }, Event::ResumeAsked],
        "
        expired → ended (expired): end as expired
        failed to apply `resumption asked` to a run that is ended (expired)
        ",
    );
}

#[test]
fn a_pause_is_confirmed_only_by_what_the_host_says_of_the_latest_wish() {
    let pause = |run: &HostRun| run.apply(&Event::PauseAsked { reason: because("ana") }).expect("legal").0;
    let told = |run: &HostRun, on, count| run.apply(&Event::PauseTold { on, count }).expect("legal").0;
    let first = pause(&HostRun::new(Until::End));
    assert!(first.pause.on && !first.pause.is_confirmed());
    assert!(told(&first, true, 1).pause.is_confirmed());
    let again = pause(&first.apply(&Event::ResumeAsked).expect("legal").0);
    assert!(!told(&again, true, 1).pause.is_confirmed(), "that was the first pause");
    let confirmed = told(&again, true, 3);
    assert!(confirmed.pause.is_confirmed());
    let (put_back, asks) = confirmed.apply(&Event::PauseTold { on: false, count: 2 }).expect("legal");
    assert!(put_back.pause.on && !put_back.pause.is_confirmed(), "a disk that was put back has lost it");
    assert_eq!(asks, [Effect::AskPause]);
    let restored = told(&HostRun::new(Until::End), true, 3);
    assert!(restored.pause.on && restored.pause.is_confirmed(), "a restored controller believes the host");
}

#[test]
fn a_pause_that_no_host_has_confirmed_is_not_ended_by_what_it_was_told_before_a_restore() {
    let told = |run: &HostRun, on, count| run.apply(&Event::PauseTold { on, count }).expect("legal");
    let paused = Event::PauseAsked { reason: because("ana wants to look") };
    let asked = HostRun::new(Until::End).apply(&paused).expect("legal").0;
    // Before the restore it had been paused, and had been told to go on.
    let (still, effects) = told(&asked, false, 2);
    let Pause { on, reason, asked, .. } = &still.pause;
    assert_eq!(
        (*on, reason.as_str(), *asked, still.pause.is_confirmed()),
        (true, "ana wants to look", 3, false)
    );
    assert_eq!(effects, [Effect::AskPause]);
    assert_eq!(told(&still, true, 1), (still.clone(), Vec::new()), "what it heard first");
    let confirmed = told(&still, true, 3).0;
    assert!(confirmed.pause.on && confirmed.pause.is_confirmed());
    // One that it had confirmed before the backup has ended since.
    let over = told(&confirmed, false, 4).0;
    assert!(!over.pause.on && over.pause.is_confirmed());
}

#[test]
fn a_step_runs_again_when_people_sign_and_stays_unknown_until_it_has_begun() {
    let mut looked = at_gate(false)[..3].to_vec();
    looked.push(ended(2, unknown()));
    let again = Event::Resolved(Resolution::Again);
    let refused = Event::Refused { segment: 3, code: because("rebooted"), message: because("x") };
    check_from(
        &looked,
        &[again.clone(), again.clone(), Event::GateApproved, refused, again.clone()],
        "
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        failed to apply `a person wants it to run again` to a run that is waiting (resolve)
        approved → remediating: send segment 3 (remediate from remediate/purge, granted)
        refused → waiting (resolve): ask a person about remediate/purge
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        ",
    );
    check_from(
        &looked,
        &[again.clone(), Event::GateDenied { reason: because("no") }, Event::Resolved(Resolution::Ran)],
        "
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        denied → waiting (resolve): ask a person about remediate/purge
        a person says that it ran → verifying: send segment 3 (verify)
        ",
    );
    let begun = entered(3, "remediate/purge", 2);
    let stop = Event::CancelAsked { reason: because("ana stopped it") };
    let gone = Event::Cancelled { interrupted: None };
    check_from(
        &looked,
        &[again.clone(), Event::GateApproved, stop.clone(), gone.clone()],
        "
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        approved → remediating: send segment 3 (remediate from remediate/purge, granted)
        cancel asked → cancelling: ask the host to stop
        the host stopped → waiting (resolve): ask a person about remediate/purge
        ",
    );
    let skipped = ended(3, done(Verification::Passed));
    check_from(
        &looked,
        &[again.clone(), Event::GateApproved, skipped],
        "
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        approved → remediating: send segment 3 (remediate from remediate/purge, granted)
        segment ended: done, verify passed → waiting (resolve): ask a person about remediate/purge
        ",
    );
    check_from(
        &looked,
        &[again, Event::GateApproved, begun, stop, gone],
        "
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        approved → remediating: send segment 3 (remediate from remediate/purge, granted)
        a remediate step began → remediating: nothing to do
        cancel asked → cancelling: ask the host to stop
        the host stopped → ended (cancelled): end as cancelled
        ",
    );
}

/// As a run that was restored, or whose host is of another version, might hear it.
#[test]
fn only_a_new_attempt_of_that_very_step_makes_an_unknown_outcome_history() {
    let mut again = at_gate(false)[..3].to_vec();
    again.extend([ended(2, unknown()), Event::Resolved(Resolution::Again), Event::GateApproved]);
    let asks = "ask a person about remediate/purge";
    let ends = [
        ended(3, done(Verification::Passed)),
        ended(3, gate("remediate/purge", false)),
        ended(3, gate("remediate/later", true)),
        ended(3, failed(Verification::Failed, Undoing::None)),
        ended(3, unknown()),
        ended(3, Outcome { how: How::Stopped { reason: because("vetoed") }, ..done(Verification::NotRun) }),
        Event::Refused { segment: 3, code: because("rebooted"), message: because("x") },
    ];
    for others in ["remediate/later", "remediate/vacuum/undo", "verify/below"] {
        for end in &ends {
            let begun = [entered(3, "remediate/purge", 1), entered(3, others, 2), end.clone()];
            let there = |run: HostRun, event: &Event| run.apply(event).expect("legal").0;
            let run = again.iter().chain(&begun[..2]).fold(HostRun::new(Until::End), there);
            let (asked, effects) = run.apply(end).expect("legal");
            assert_eq!(format!("{}: {}", asked.state, told(&effects)), format!("waiting (resolve): {asks}"));
            assert_eq!(asked.unclear(), Some(Unclear { path: because("remediate/purge"), attempt: 1 }));
            assert_eq!(asked.again, None, "people may be asked again whether it runs again");
        }
    }
    // A controller that was restored to where a person was asked, and hears that people let the step run again.
    for end in &ends {
        let there = |run: HostRun, event: &Event| run.apply(event).expect("legal").0;
        let restored = again[..again.len() - 2].iter().fold(HostRun::new(Until::End), there);
        let (asked, effects) = restored.apply(end).expect("legal");
        assert_eq!(format!("{}: {}", asked.state, told(&effects)), format!("waiting (resolve): {asks}"));
        assert_eq!(asked.unclear(), Some(Unclear { path: because("remediate/purge"), attempt: 1 }));
    }
    // The host stops before it has begun, or says that it did not come to that.
    let stop = Event::CancelAsked { reason: because("ana stopped it") };
    for interrupted in [None, Some(because("remediate/purge"))] {
        let gone = Event::Cancelled { interrupted };
        let all = again.iter().chain([&stop]).cloned().chain([entered(3, "remediate/later", 1), gone]);
        let there = |run: HostRun, event: Event| run.apply(&event).expect("legal").0;
        let stopped = all.fold(HostRun::new(Until::End), there);
        assert_eq!(stopped.unclear(), Some(Unclear { path: because("remediate/purge"), attempt: 1 }));
    }
    // It begins, and then its host says that it was never born.
    check_from(
        &again,
        &[entered(3, "remediate/purge", 2), ended(3, unknown()), Event::Resolved(Resolution::Again)],
        "
        a remediate step began → remediating: nothing to do
        segment ended: unknown, verify failed → waiting (resolve): ask a person about remediate/purge
        a person wants it to run again → waiting (resolve): open a gate to run remediate/purge again
        ",
    );
}

/// Every state there is, paused or not: what a wish to cancel comes to, and the host's word.
#[test]
fn every_state_can_be_cancelled_and_is_cancelled_only_when_the_host_has_confirmed() {
    let asked = Event::CancelAsked { reason: because("ana stopped it") };
    for (name, run) in table::states().into_iter().chain(table::paused()) {
        let unclear = run.unclear();
        let Ok((stopping, effects)) = run.apply(&asked) else {
            assert!(run.ended().is_some(), "{name} cannot be cancelled");
            continue;
        };
        let gate = run.at_gate_for_people();
        assert_eq!(gate, effects.iter().any(|effect| matches!(effect, Effect::CloseGate { .. })), "{name}");
        if let State::Ended(how) = &stopping.state {
            assert_eq!((run.segment, how.ending), (0, Ending::Cancelled), "{name}: nothing was ever sent");
            continue;
        }
        if matches!(stopping.state, State::Waiting(_)) {
            let cancelled = matches!(stopping.state, State::Waiting(Wait::Resolve { cancelled: true, .. }));
            assert!(cancelled && run == stopping, "{name} becomes {}", stopping.state);
            continue;
        }
        assert!(matches!(stopping.state, State::Cancelling { .. }), "{name} becomes {}", stopping.state);
        let tells = effects.iter().any(|effect| matches!(effect, Effect::AskCancel { .. }));
        assert!(tells || run == stopping, "{name}: the host is not told");
        let still = stopping.apply(&Event::Cancelled { interrupted: None }).expect("the host may confirm").0;
        match (&still.state, &unclear) {
            (State::Ended(how), None) => assert_eq!(how.ending, Ending::Cancelled, "{name}"),
            (State::Waiting(Wait::Resolve { path, attempt, cancelled: true }), Some(unclear)) => {
                assert_eq!((path, attempt), (&unclear.path, &unclear.attempt), "{name}");
            }
            other => panic!("{name} comes to {other:?}"),
        }
        let midway = Event::Cancelled { interrupted: Some("remediate/b".to_owned()) };
        let midway = stopping.apply(&midway).expect("the host may confirm").0;
        let looks = matches!(midway.state, State::Waiting(Wait::Resolve { cancelled: true, .. }));
        assert!(looks, "{name}: what may have had an effect is looked at: {}", midway.state);
        for found in [Resolution::Ran, Resolution::DidNotRun] {
            let over = midway.apply(&Event::Resolved(found)).expect("a person may look").0;
            assert_eq!(over.ended().map(|how| how.ending), Some(Ending::Cancelled), "{name}");
        }
        assert!(midway.apply(&Event::Resolved(Resolution::Again)).is_err(), "{name}: it has a tombstone");
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let events: Vec<Event> =
        table::events(2).into_iter().chain(table::events(3)).chain(table::events(1)).collect();
    prop::sample::select(events)
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_the_machine(events in prop::collection::vec(any_event(), 0..60)) {
        let mut run = HostRun::new(Until::End);
        let mut ended: Option<HostRun> = None;
        let mut ends = 0;
        for event in events {
            let (before, was_ended) = (run.clone(), run.ended().is_some());
            match run.apply(&event) {
                Err(_) => prop_assert_eq!(&run, &before),
                Ok((next, effects)) => {
                    prop_assert!(next.segment >= before.segment);
                    let acts = |effect: &Effect| {
                        matches!(effect, Effect::SendSegment { work: Work::Remediate { .. }, .. })
                    };
                    prop_assert!(!next.pause.on || !effects.iter().any(acts), "{event:?} in {before:?}");
                    for effect in &effects {
                        match effect {
                            Effect::End(_) => ends += 1,
                            // Only a decision lets a granted segment out.
                            Effect::SendSegment { work: Work::Remediate { granted: true, .. }, .. } => {
                                let decided = matches!(
                                    (&before.state, &event),
                                    (State::Waiting(Wait::Gate { .. }), Event::GateApproved)
                                        | (State::Waiting(Wait::Gate { checking: Some(Checking::Approved), .. }), _)
                                        | (State::Waiting(Wait::Resolve { .. }), Event::GateApproved)
                                );
                                prop_assert!(decided, "{event:?} in {before:?}");
                            }
                            // Nothing leaves a waiting gate for remediation without one.
                            Effect::SendSegment { work: Work::Remediate { granted: false, .. }, .. } => {
                                prop_assert_eq!(before.state.waiting_for() != Some("gate"), true);
                            }
                            // The guards let it take the host, so they are not asked before it may.
                            Effect::AskGuards => prop_assert!(!next.pause.on),
                            Effect::SendSegment { .. }
                            | Effect::OpenGate { .. }
                            | Effect::OpenAgain(_)
                            | Effect::AskGate
                            | Effect::SendAgain
                            | Effect::AskPause
                            | Effect::CloseGate { .. }
                            | Effect::AskCancel { .. }
                            | Effect::AskResolve { .. } => {}
                        }
                    }
                    if was_ended {
                        prop_assert!(effects.is_empty());
                    }
                    run = next;
                }
            }
            if let Some(ended) = &ended {
                prop_assert_eq!(ended, &run);
            } else if run.ended().is_some() {
                ended = Some(run.clone());
            }
            prop_assert!(ends <= 1);
            prop_assert_eq!(ends == 1, run.ended().is_some());
        }
    }
}
