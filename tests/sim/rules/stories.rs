//! The histories: each with what it is, the rule that it breaks if it breaks one, and what happens in it.

use super::*;

/// A history after the plan, and the rule it breaks; none for a good one.
pub(super) const STORIES: &[Story] = &[
    ("a_run_that_goes_well_breaks_no_rule", None, |told| {
        told.connected(1);
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/purge", "succeeded");
        told.checker.away(&host(), Duration::from_secs(20));
        told.connected(2);
        told.heard(Ack::Started(run()));
        told.ended(Ending::Verified);
    }),
    ("an_attempt_that_starts_twice_is_seen", Some("once"), |told| {
        told.vacuum(1);
        told.vacuum(1);
    }),
    ("a_step_that_must_not_repeat_and_does_is_seen", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.purge(2);
    }),
    (
        "a_step_with_a_check_that_starts_again_although_it_is_known_to_have_failed_is_seen",
        Some("again"),
        |told| {
            told.tends();
            told.probed(1, What::Begun);
            told.probed(1, What::Done { code: 1 });
            told.ended_in(later(), "remediate/probed", 1, "failed", Some(1));
            told.probed(2, What::Begun);
        },
    ),
    ("a_step_with_a_check_that_starts_again_after_nobody_could_tell_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.tends();
        told.probed(1, What::Begun);
        told.probed(1, What::Died);
        told.ended_in(later(), "remediate/probed", 1, "unknown", None);
        told.probed(2, What::Begun);
    }),
    ("a_step_that_people_signed_for_may_start_again", None, |told| {
        told.approved();
        told.purge(1);
        told.asked(Some(once_more(1)));
        told.purge(2);
    }),
    ("a_step_that_people_signed_for_once_may_not_start_twice_again", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.asked(Some(once_more(1)));
        told.purge(2);
        told.purge(3);
    }),
    ("a_word_that_a_step_did_not_run_is_no_signature_to_run_it_again", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.resolved("remediate/purge");
        told.purge(2);
    }),
    ("a_step_that_went_with_its_host_and_runs_again_in_a_retry_is_seen", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Died);
        told.followed(FollowUp::Retry, "");
        told.purge_again();
    }),
    ("a_retry_of_what_failed_breaks_no_rule", None, |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 1 });
        told.followed(FollowUp::Retry, "remediate/vacuum");
        told.approves(the_plan_after(FollowUp::Retry, "remediate/vacuum").1);
        told.purge_again();
    }),
    ("a_step_that_was_done_and_is_done_again_against_its_plan_is_seen", Some("done"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Retry, "remediate/vacuum");
        told.happened_in(later(), "vacuum", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_step_that_was_done_and_that_no_plan_remembers_is_seen", Some("done"), |told| {
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Retry, "");
        told.purge_again();
    }),
    ("an_undo_of_what_never_ran_is_seen", Some("undo"), |told| {
        told.followed(FollowUp::Undo, "remediate/vacuum");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_second_undo_is_seen", Some("undo"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.happened("vacuum/undo", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Undo, "remediate/vacuum");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("an_undo_of_what_is_done_breaks_no_rule", None, |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Undo, "remediate/vacuum");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_step_that_begins_although_its_host_knows_of_a_pause_is_seen", Some("paused"), |told| {
        told.paused(true);
        told.change(Change::PauseConfirmed { run: run(), host: host(), on: true });
        told.vacuum(1);
    }),
    ("a_step_that_begins_before_its_host_knows_of_a_pause_or_after_it_breaks_no_rule", None, |told| {
        told.paused(true);
        told.vacuum(1);
        told.change(Change::PauseConfirmed { run: run(), host: host(), on: true });
        told.paused(false);
        told.vacuum(2);
    }),
    ("a_step_behind_a_gate_that_nobody_approved_is_seen", Some("gate"), |told| told.purge(1)),
    ("an_approved_step_that_begins_after_a_reboot_is_seen", Some("gate"), |told| {
        told.approved();
        told.boot = "the next boot";
        told.purge(1);
    }),
    ("a_step_that_people_signed_for_after_a_reboot_may_start_again", None, |told| {
        told.approved();
        told.purge(1);
        told.boot = "the next boot";
        told.asked(Some(in_boot("the next boot", 1)));
        told.purge(2);
    }),
    ("a_step_that_begins_after_its_run_has_ended_is_seen", Some("ended"), |told| {
        told.approved();
        told.ended(Ending::Cancelled);
        told.purge(1);
    }),
    ("a_step_that_begins_in_the_moment_in_which_its_run_ends_breaks_no_rule", None, |told| {
        told.approved();
        told.checker.at(Duration::from_secs(10));
        told.ended(Ending::Cancelled);
        told.purge(1);
    }),
    ("an_attempt_that_begins_although_it_is_known_how_it_ended_is_seen", Some("ended"), |told| {
        told.approved();
        told.step_ended("remediate/purge", "failed");
        told.purge(1);
    }),
    ("a_step_without_risk_behind_a_gate_that_nobody_approved_is_seen", Some("gate"), |told| {
        told.plans(later(), planned(TEND, later()));
        told.happened_in(later(), "probed", 1, &["sim", "lower=/var:30"], What::Begun);
    }),
    ("an_undo_without_risk_behind_a_gate_that_nobody_approved_is_seen", Some("gate"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Undo, "");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_step_without_risk_before_a_gate_that_nobody_approved_breaks_no_rule", None, |told| {
        told.plans(later(), planned(WALK, later()));
        told.happened_with(later(), "two", 1, &["sim", "two"], &[("STEP", "two")], What::Begun);
    }),
    ("a_gate_that_counts_as_approved_without_an_approval_is_seen", Some("gate"), |told| {
        told.gate(Asked { by: &[], ..Asked::default() });
    }),
    ("a_gate_whose_request_covers_another_plan_is_seen", Some("gate"), |told| {
        told.gate(Asked { covers: the_plan_after(FollowUp::Retry, "").1, ..Asked::default() });
    }),
    ("a_gate_that_counts_as_approved_beside_a_denial_is_seen", Some("gate"), |told| {
        told.gate(Asked { by: &[("ana", Decision::Approve), ("ben", Decision::Deny)], ..Asked::default() });
    }),
    ("a_gate_that_is_approved_with_the_key_of_another_person_is_seen", Some("gate"), |told| {
        told.gate(Asked { key: Some("ben"), ..Asked::default() });
    }),
    ("a_gate_that_is_approved_by_somebody_who_may_not_is_seen", Some("gate"), |told| {
        told.gate(Asked { by: &[("rosa", Decision::Approve)], ..Asked::default() });
    }),
    ("a_gate_that_is_approved_by_words_about_another_is_seen", Some("gate"), |told| {
        told.gate(Asked { decided: Some(the_plan().1), ..Asked::default() });
    }),
    ("other_words_than_those_of_the_plan_are_seen", Some("plan"), |told| {
        told.happened("vacuum", 1, &["sim", "lower=/var:99"], What::Begun);
    }),
    ("a_plan_whose_row_names_another_is_seen", Some("plan"), |told| {
        let (bytes, _) = the_plan();
        told.plans(run(), (bytes, the_plan_after(FollowUp::Retry, "").1));
    }),
    ("another_environment_than_that_of_the_plan_is_seen", Some("plan"), |told| {
        told.plans(later(), planned(WALK, later()));
        told.happened_with(later(), "two", 1, &["sim", "two"], &[("STEP", "three")], What::Begun);
    }),
    ("a_step_that_is_in_no_plan_is_seen", Some("plan"), |told| {
        told.happened("other", 1, &["sim"], What::Begun);
    }),
    ("a_success_that_was_none_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.step_ended("remediate/vacuum", "succeeded");
    }),
    ("an_outcome_that_nobody_can_tell_although_nothing_struck_its_host_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
    }),
    ("an_outcome_without_a_meaning_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "lost");
    }),
    ("a_success_of_an_undo_whose_step_has_a_check_is_seen_when_it_was_none", Some("truth"), |told| {
        told.tends();
        let undo = |told: &mut Told, what| {
            told.happened_in(later(), "probed/undo", 1, &["sim", "raise=/var:30"], what);
        };
        told.probed(1, What::Begun);
        told.probed(1, What::Done { code: 0 });
        undo(told, What::Begun);
        undo(told, What::Done { code: 1 });
        told.ended_in(later(), "remediate/probed/undo", 1, "succeeded", None);
    }),
    ("a_success_with_an_exit_code_that_says_otherwise_is_seen", Some("truth"), |told| {
        told.tends();
        told.probed(1, What::Begun);
        told.probed(1, What::Done { code: 1 });
        told.ended_in(later(), "remediate/probed", 1, "succeeded", Some(1));
    }),
    ("another_exit_code_than_that_of_the_process_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.ended_in(run(), "remediate/vacuum", 1, "failed", Some(2));
    }),
    ("a_run_that_is_verified_by_what_was_before_it_is_seen", Some("truth"), |told| {
        told.checker.at(Duration::from_secs(3));
        told.checker.away(&host(), Duration::from_secs(2));
        told.begins(later(), MEND);
        told.ends(later(), Ending::Verified);
    }),
    ("a_run_that_failed_although_all_of_it_was_done_is_seen", Some("truth"), |told| {
        told.approved();
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 0 });
        told.ended(Ending::Failed);
    }),
    ("a_run_that_is_undone_although_a_step_of_it_is_done_is_seen", Some("truth"), |told| {
        told.tends();
        told.probed(1, What::Begun);
        told.probed(1, What::Done { code: 0 });
        told.ends(later(), Ending::Undone);
    }),
    ("a_run_that_had_nothing_to_do_and_did_something_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.ended(Ending::Succeeded);
    }),
    ("a_run_that_had_nothing_to_do_breaks_no_rule", None, |told| told.ended(Ending::Succeeded)),
    ("a_run_that_is_verified_although_a_step_of_it_was_not_done_is_seen", Some("truth"), |told| {
        told.walks(&["one", "three"]);
        told.checker.away(&host(), Duration::from_secs(20));
        told.ends_with(later(), Ending::Verified, "the symptom is gone");
    }),
    ("a_run_that_is_unverified_although_a_step_of_it_was_not_done_is_seen", Some("truth"), |told| {
        told.walks(&["one", "three"]);
        told.checker.there(host(), Duration::from_secs(20));
        told.ends_with(later(), Ending::Unverified, "it ran, and the symptom is still there");
    }),
    ("a_run_that_is_verified_when_all_of_it_is_done_breaks_no_rule", None, |told| {
        told.walks(&["one", "two", "three"]);
        told.checker.away(&host(), Duration::from_secs(20));
        told.ends_with(later(), Ending::Verified, "the symptom is gone");
    }),
    ("a_run_that_is_unverified_although_its_symptom_was_never_there_is_seen", Some("truth"), |told| {
        told.walks(&["one", "two", "three"]);
        told.checker.there(host(), Duration::from_secs(5));
        told.ends_with(later(), Ending::Unverified, "it ran, and the symptom is still there");
    }),
    ("a_commit_that_leaves_out_a_row_which_its_events_touch_is_seen", Some("fold"), |told| {
        told.commits(|_| None);
    }),
    ("a_commit_whose_row_is_not_what_its_events_make_is_seen", Some("fold"), |told| {
        told.commits(|row| {
            let Row::Agent(row) = row else { return Some(row) };
            Some(Row::Agent(AgentRow { epoch: 4, ..row }))
        });
    }),
    ("a_commit_whose_rows_are_what_its_events_make_breaks_no_rule", None, |told| told.commits(Some)),
    ("an_undo_of_what_was_stopped_and_a_person_found_to_have_run_breaks_no_rule", None, |told| {
        told.walks(&["two"]);
        told.happened_in(later(), "one", 1, &["sim", "one"], What::Begun);
        told.happened_in(later(), "one", 1, &["sim", "one"], What::Killed);
        told.found(later(), "remediate/one", true);
        told.happened_in(later(), "one/undo", 1, &["sim", "not", "one"], What::Begun);
    }),
    ("an_undo_of_what_was_stopped_and_a_person_found_not_to_have_run_is_seen", Some("undo"), |told| {
        told.walks(&["two"]);
        told.happened_in(later(), "one", 1, &["sim", "one"], What::Begun);
        told.happened_in(later(), "one", 1, &["sim", "one"], What::Killed);
        told.found(later(), "remediate/one", false);
        told.happened_in(later(), "one/undo", 1, &["sim", "not", "one"], What::Begun);
    }),
    ("a_step_that_ran_and_is_told_not_to_have_started_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "not-started");
    }),
    ("a_symptom_that_was_never_away_is_not_verified", Some("truth"), |told| {
        told.checker.away(&host(), Duration::from_secs(5));
        told.vacuum(1);
        told.ended(Ending::Verified);
    }),
    ("a_run_that_ends_over_an_unknown_outcome_is_seen", Some("unknown"), |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.ended(Ending::Failed);
    }),
    ("a_word_about_an_earlier_attempt_does_not_tell_of_a_later_one", Some("unknown"), |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.resolved("remediate/vacuum");
        told.vacuum(2);
        told.ended_in(run(), "remediate/vacuum", 2, "unknown", None);
        told.ended(Ending::Failed);
    }),
    ("a_run_that_ends_when_somebody_has_looked_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.resolved("remediate/vacuum");
        told.ended(Ending::Failed);
    }),
    ("an_end_that_changes_is_seen", Some("ended"), |told| {
        told.ended(Ending::Failed);
        told.ended(Ending::Cancelled);
    }),
    ("an_end_that_is_replaced_without_a_move_is_seen", Some("ended"), |told| {
        told.ended(Ending::Failed);
        let machine = HostRun { state: State::Remediating, ..HostRun::new(Until::End) };
        told.change(Change::Marked { run: run(), host: host(), machine });
    }),
    ("an_end_that_is_created_anew_is_seen", Some("ended"), |told| {
        told.ended(Ending::Failed);
        told.begins(run(), MEND);
    }),
    ("an_approved_gate_that_expires_is_seen", Some("ended"), |told| {
        told.approved();
        told.change(Change::GateClosed { gate: gate(), state: GateState::Expired, reason: String::new() });
    }),
    ("an_outcome_that_changes_is_seen", Some("ended"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.step_ended("remediate/vacuum", "failed");
        told.step_ended("remediate/vacuum", "unknown");
    }),
    ("an_outcome_that_was_unknown_and_is_known_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
    }),
    ("an_attempt_that_was_not_born_and_is_born_later_breaks_no_rule", None, |told| {
        told.step_ended("remediate/vacuum", "not-started");
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
    }),
    ("an_acknowledgement_of_what_is_not_there_is_seen", Some("kept"), |told| {
        told.heard(Ack::Cancelled(run()));
    }),
    ("a_pause_that_is_acknowledged_when_the_run_has_gone_on_is_seen", Some("kept"), |told| {
        told.paused(true);
        told.paused(false);
        told.heard(Ack::Paused(run(), true));
    }),
    ("a_second_pause_that_only_the_first_stands_for_is_seen", Some("kept"), |told| {
        told.paused(true);
        told.heard(Ack::Paused(run(), true));
        told.heard(Ack::Paused(run(), true));
    }),
    ("a_second_word_about_a_step_that_only_the_first_stands_for_is_seen", Some("kept"), |told| {
        told.resolved("remediate/purge");
        told.heard(Ack::Resolved(run(), host(), "remediate/purge".to_owned()));
        told.heard(Ack::Resolved(run(), host(), "remediate/purge".to_owned()));
    }),
    ("words_that_are_kept_break_no_rule", None, |told| {
        told.paused(true);
        told.heard(Ack::Paused(run(), true));
        told.paused(false);
        told.heard(Ack::Paused(run(), false));
        told.resolved("remediate/purge");
        told.heard(Ack::Resolved(run(), host(), "remediate/purge".to_owned()));
        told.broken = told.broken.take().or(told.checker.all_kept().err());
    }),
    ("a_gap_in_the_history_is_seen", Some("kept"), |told| {
        told.number += 1;
        told.moved(State::Remediating);
    }),
    ("an_epoch_that_is_given_twice_to_a_host_whose_disk_was_put_back_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.checker.forgets(&host(), None);
        told.connected(3);
    }),
    (
        "an_epoch_that_a_host_has_seen_and_that_a_restored_controller_gives_again_is_seen",
        Some("epoch"),
        |told| {
            told.connected(3);
            told.restored(3);
            told.connected(3);
        },
    ),
    ("an_epoch_that_no_host_has_seen_may_be_given_again_by_a_restored_controller", None, |told| {
        told.connected(3);
        told.restored(2);
        told.connected(3);
    }),
    ("an_epoch_that_a_restored_controller_gives_twice_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.restored(2);
        told.connected(4);
        told.connected(4);
    }),
    ("a_connection_that_is_gone_although_another_has_come_after_it_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.connected(4);
        told.change(Change::AgentGone { host: host(), epoch: 3, reason: String::new() });
    }),
    ("what_a_host_forgot_with_its_disk_may_start_again_if_nobody_can_tell_it", None, |told| {
        told.vacuum(1);
        told.acknowledged(4);
        told.checker.forgets(&host(), Some(("its journal", 4)));
        told.vacuum(1);
    }),
    ("what_a_host_forgot_with_its_disk_starts_no_more_if_that_was_acknowledged", Some("once"), |told| {
        told.vacuum(1);
        told.acknowledged(5);
        told.checker.forgets(&host(), Some(("its journal", 4)));
        told.vacuum(1);
    }),
    ("what_a_restored_controller_cannot_tell_a_host_either_may_start_again", None, |told| {
        told.vacuum(1);
        told.acknowledged(5);
        told.checker.forgets(&host(), Some(("its journal", 4)));
        told.restored(0);
        told.vacuum(1);
    }),
    ("a_host_whose_disk_was_put_back_knows_what_came_later", Some("once"), |told| {
        told.checker.forgets(&host(), None);
        told.begins(later(), WALK);
        told.plans(later(), planned(WALK, later()));
        let one = |told: &mut Told| told.happened_in(later(), "one", 1, &["sim", "one"], What::Begun);
        one(told);
        one(told);
    }),
    ("a_host_whose_disk_was_put_back_starts_nothing_that_is_not_approved", Some("gate"), |told| {
        told.checker.forgets(&host(), None);
        told.purge(1);
    }),
    ("a_host_whose_disk_was_put_back_starts_nothing_that_is_not_planned", Some("plan"), |told| {
        told.checker.forgets(&host(), None);
        told.happened("vacuum", 1, &["sim", "lower=/var:99"], What::Begun);
    }),
    (
        "a_host_whose_disk_was_put_back_and_that_knows_of_a_pause_again_starts_nothing",
        Some("paused"),
        |told| {
            told.checker.forgets(&host(), None);
            told.paused(true);
            told.change(Change::PauseConfirmed { run: run(), host: host(), on: true });
            told.vacuum(1);
        },
    ),
    ("a_step_that_each_of_two_hosts_with_one_name_starts_once_breaks_no_rule", None, |told| {
        told.checker.has_twin(host());
        told.vacuum(1);
        told.on("twin-0", |told| told.vacuum(1));
    }),
    ("a_step_that_one_of_two_hosts_with_one_name_starts_twice_is_seen", Some("once"), |told| {
        told.checker.has_twin(host());
        told.on("twin-0", |told| told.vacuum(1));
        told.on("twin-0", |told| told.vacuum(1));
    }),
    ("an_epoch_that_is_given_twice_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.connected(3);
    }),
    ("a_run_that_nothing_will_move_is_seen", Some("cause"), |told| {
        told.broken = told.checker.at_rest().err();
    }),
    ("a_question_about_a_step_that_is_known_is_seen", Some("cause"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
        told.asks_about("remediate/vacuum");
    }),
    ("a_question_about_a_step_that_nobody_knows_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.asks_about("remediate/vacuum");
    }),
    ("a_run_that_does_not_end_is_seen", Some("liveness"), |told| {
        told.broken = told.checker.must_be_over(Duration::from_secs(900)).err();
    }),
    ("an_agent_that_goes_down_by_itself_is_seen", Some("agent"), |told| {
        let why_down = vec!["12s: its link has lost its works".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("an_agent_whose_works_end_although_no_fsync_failed_is_seen", Some("agent"), |told| {
        let why_down = vec!["12s: its works have ended".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("an_agent_that_puts_its_journal_aside_when_its_disk_was_put_back_breaks_no_rule", None, |told| {
        told.checker.forgets(&host(), None);
        let why_down = vec!["12s: its works have ended".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("an_agent_that_goes_down_once_for_each_fsync_that_failed_breaks_no_rule", None, |told| {
        told.checker.fails_to_sync(host());
        let why_down = vec!["12s: its works have ended".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("a_step_that_outlives_everything_is_seen", Some("alive"), |told| {
        let alive = vec![(run(), "remediate/vacuum".to_owned(), 1)];
        told.broken = told.checker.left(&host(), &Left { alive, ..Left::default() }).err();
    }),
    ("an_epoch_that_nobody_gave_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.broken = told.checker.left(&host(), &Left { epoch: 4, ..Left::default() }).err();
    }),
];
