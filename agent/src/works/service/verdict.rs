//! What systemd's words mean for a step: may it be tried, did it go well, and what to do if not.

use fettle_runbooks::unit::Verb;

use super::super::systemd::{Last, No, Unit};

/// Whether it makes sense to ask systemd at all.
///
/// # Errors
/// When it does not, and what to do.
pub(super) fn possible(verb: Verb, unit: &Unit) -> Result<(), String> {
    let id = &unit.id;
    let refusal = match &*unit.load_state {
        "loaded" => None,
        "not-found" => Some(format!("there is no unit {id} on this host")),
        "masked" => Some(format!(
            "{id} is masked: somebody forbade it on this host; `systemctl unmask {id}` allows it again"
        )),
        other => Some(format!("systemd cannot load {id} ({other}: {}); mend its file", unit.load_error)),
    };
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    match verb {
        Verb::Start if !unit.can_start => Err(format!("{id} cannot be started by hand (RefuseManualStart=)")),
        Verb::Stop if !unit.can_stop => Err(format!("{id} cannot be stopped by hand (RefuseManualStop=)")),
        Verb::Restart if !unit.can_start || !unit.can_stop => {
            Err(format!("{id} cannot be restarted by hand (RefuseManualStart= or RefuseManualStop=)"))
        }
        Verb::Reload if !unit.can_reload => {
            Err(format!("{id} cannot reload its configuration (it has no ExecReload=); restart it instead"))
        }
        Verb::Reload if !matches!(&*unit.active_state, "active" | "reloading" | "refreshing") => {
            Err(format!("{id} is {}, and only what runs can reload; start it instead", unit.state()))
        }
        Verb::Start | Verb::Stop | Verb::Restart | Verb::Reload => Ok(()),
    }
}

/// A restart is for what runs or has failed: it would start what somebody has stopped on purpose. `ran`: it ran before the
/// first attempt of the step.
///
/// # Errors
/// When it does neither.
pub(super) fn restartable(unit: &Unit, ran: bool) -> Result<(), String> {
    if ran || unit.active_state != "inactive" {
        return Ok(());
    }
    Err(format!(
        "{} is {}, and only what runs or has failed is restarted; start it instead",
        unit.id,
        unit.state()
    ))
}

/// What a refusal of systemd means, and what to do.
pub(super) fn refused(verb: Verb, unit: &str, no: &No) -> String {
    match no {
        No::Refused { name, message } => {
            let told = format!("systemd refuses to {verb} {unit}: {}", message.trim_end_matches('.'));
            match &**name {
                "TransactionIsDestructive" => format!(
                    "something else is being done with {unit}, which this step leaves alone: see `systemctl list-jobs`; {told}"
                ),
                "OnlyByDependency" => format!("{told}; only other units may do that"),
                "ShuttingDown" => format!("{told}; the host is going down"),
                _ => told,
            }
        }
        No::NotAllowed(_) => {
            format!("{no}; run the agent as root, or let its user do this by a rule of polkit")
        }
        No::Bus { .. } | No::Systemd(_) | No::Silent(_) | No::Broken(_) => no.to_string(),
    }
}

/// A start that failed before systemd began with it: that is its limit. It says so in its journal only, and goes on telling how
/// the start before went.
pub(super) fn not_begun(verb: Verb, unit: &mut Unit) {
    match verb {
        Verb::Start | Verb::Restart => unit.result = "start-limit-hit".to_owned(),
        Verb::Stop | Verb::Reload => {}
    }
}

/// Whether a job has done what it should. `result`: systemd's word for its end; none when nobody heard it.
///
/// # Errors
/// When it has not, and what to do.
pub(super) fn ended(verb: Verb, result: Option<&str>, before: &Unit, unit: &Unit) -> Result<(), String> {
    let id = &unit.id;
    match result {
        Some("done") => wanted(verb, unit),
        // How a unit is tells whether it was started or stopped, but not whether it reloaded.
        None => match verb {
            Verb::Start | Verb::Stop => wanted(verb, unit),
            Verb::Restart if unit.invocation != before.invocation => wanted(verb, unit),
            Verb::Restart | Verb::Reload => Err(format!(
                "it is not known whether systemd did {verb} {id}: the connection broke, and nobody heard how the job ended"
            )),
        },
        Some("failed") => Err(format!("systemd could not {verb} {id}: {}", why(unit))),
        Some("dependency") => Err(format!(
            "systemd could not {verb} {id}: a unit that it needs did not start; see `systemctl --failed`"
        )),
        Some("timeout") => Err(format!("{id} took longer to {verb} than its unit lets it (JobTimeoutSec=)")),
        Some("canceled") => {
            Err(format!("somebody cancelled the job, or ordered the opposite; {id} is {}", unit.state()))
        }
        Some("skipped") => Err(format!("systemd skipped the job: {id} is {}", unit.state())),
        Some("assert") => Err(format!("what {id} asserts of this host does not hold (Assert…= of its unit)")),
        Some("unsupported") => Err(format!("this host does not have what {id} needs")),
        Some(other) => Err(format!("systemd ended the job with `{other}`; {id} is {}", unit.state())),
    }
}

/// Whether the unit is in the state that the verb wants.
fn wanted(verb: Verb, unit: &Unit) -> Result<(), String> {
    let id = &unit.id;
    let state = &*unit.active_state;
    match verb {
        Verb::Stop if matches!(state, "inactive" | "failed") => Ok(()),
        Verb::Stop => {
            let by = &unit.triggered_by;
            let by = if by.is_empty() { String::new() } else { format!(" ({} may start it)", by.join(", ")) };
            Err(format!("systemd stopped {id}, and now it is {}{by}", unit.state()))
        }
        Verb::Start | Verb::Restart | Verb::Reload
            if matches!(state, "active" | "reloading" | "refreshing") =>
        {
            Ok(())
        }
        // Its process has done its work and ended, as such a unit's should.
        Verb::Start | Verb::Restart
            if state == "inactive"
                && unit.service_type == "oneshot"
                && unit.result == "success"
                && !unit.condition_failed =>
        {
            Ok(())
        }
        Verb::Start | Verb::Restart if state == "inactive" && unit.condition_failed => {
            Err(format!("a condition of {id} does not hold (Condition…= of its unit), so it was not started"))
        }
        Verb::Start | Verb::Restart | Verb::Reload => {
            Err(format!("systemd did {verb} {id}, but it is {}: {}", unit.state(), why(unit)))
        }
    }
}

/// Why a unit is not as it should be, and what to do.
fn why(unit: &Unit) -> String {
    let end = match unit.last {
        Some(Last::Exit(code)) => format!("its main process exited with {code}"),
        Some(Last::Signal(signal)) => format!("signal {signal} ended its main process"),
        None => "it has not run".to_owned(),
    };
    match &*unit.result {
        "start-limit-hit" => format!(
            "it was started too often (start-limit-hit); mend what ends it, then `systemctl reset-failed {}`",
            unit.id
        ),
        "exit-code" | "signal" | "core-dump" => end,
        "timeout" => "it took longer than its unit lets it (TimeoutStartSec= or TimeoutStopSec=)".to_owned(),
        "watchdog" => "it did not answer its watchdog".to_owned(),
        "oom-kill" => "the kernel killed it for want of memory".to_owned(),
        "resources" => "systemd lacked something to start it with".to_owned(),
        "protocol" => "it did not say that it was ready, as its Type= asks for".to_owned(),
        "success" | "" => end,
        other => format!("{other}; {end}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(state: &str) -> Unit {
        Unit {
            id: "x.service".to_owned(),
            load_state: "loaded".to_owned(),
            active_state: state.to_owned(),
            sub_state: "sub".to_owned(),
            can_start: true,
            can_stop: true,
            can_reload: true,
            result: "success".to_owned(),
            ..Unit::default()
        }
    }

    #[test]
    fn systemd_is_not_asked_for_what_cannot_be() {
        let told = |verb, unit: Unit| possible(verb, &unit).expect_err("it cannot be");
        for verb in Verb::ALL {
            possible(verb, &unit("active")).unwrap();
            let masked = Unit { load_state: "masked".into(), ..unit("inactive") };
            assert!(told(verb, masked).contains("systemctl unmask x.service"));
            let absent = Unit { load_state: "not-found".into(), ..unit("inactive") };
            assert_eq!(told(verb, absent), "there is no unit x.service on this host");
            let broken = Unit {
                load_state: "bad-setting".into(),
                load_error: "no ExecStart".into(),
                ..unit("inactive")
            };
            assert!(told(verb, broken).contains("no ExecStart"));
        }
        assert!(
            told(Verb::Start, Unit { can_start: false, ..unit("inactive") }).contains("RefuseManualStart")
        );
        assert!(told(Verb::Stop, Unit { can_stop: false, ..unit("active") }).contains("RefuseManualStop"));
        assert!(told(Verb::Restart, Unit { can_stop: false, ..unit("active") }).contains("RefuseManualStop"));
        assert!(
            told(Verb::Reload, Unit { can_reload: false, ..unit("active") }).contains("restart it instead")
        );
        assert!(told(Verb::Reload, unit("inactive")).contains("start it instead"));
    }

    #[test]
    fn a_restart_starts_nothing_that_did_not_run() {
        for (state, ran, good) in [
            ("active", true, true),
            ("activating", true, true),
            ("deactivating", false, true),
            ("failed", false, true),
            ("inactive", false, false),
            ("inactive", true, true),
        ] {
            assert_eq!(restartable(&unit(state), ran).is_ok(), good, "{state} {ran}");
        }
        assert!(restartable(&unit("inactive"), false).unwrap_err().ends_with("start it instead"));
    }

    #[test]
    fn a_job_that_is_done_is_believed_only_if_the_unit_is_as_it_should_be() {
        let oneshot = |state| Unit { service_type: "oneshot".into(), ..unit(state) };
        for (verb, unit, good) in [
            (Verb::Start, unit("active"), true),
            (Verb::Start, unit("activating"), false),
            (Verb::Start, unit("failed"), false),
            (Verb::Start, unit("inactive"), false),
            (Verb::Start, oneshot("inactive"), true),
            (Verb::Restart, Unit { condition_failed: true, ..oneshot("inactive") }, false),
            (Verb::Restart, Unit { result: "exit-code".into(), ..oneshot("inactive") }, false),
            (Verb::Restart, unit("active"), true),
            (Verb::Reload, unit("active"), true),
            (Verb::Reload, oneshot("inactive"), false),
            (Verb::Stop, unit("inactive"), true),
            (Verb::Stop, unit("failed"), true),
            (Verb::Stop, unit("active"), false),
            (Verb::Stop, unit("activating"), false),
        ] {
            let before = Unit { invocation: vec![1], ..unit.clone() };
            let again = Unit { invocation: vec![2], ..unit.clone() };
            assert_eq!(ended(verb, Some("done"), &before, &before).is_ok(), good, "{verb} {unit:?}");
            let known = verb != Verb::Reload;
            assert_eq!(ended(verb, None, &before, &again).is_ok(), good && known, "{verb} {unit:?}");
            let known = !matches!(verb, Verb::Reload | Verb::Restart);
            assert_eq!(ended(verb, None, &before, &before).is_ok(), good && known, "{verb} {unit:?}");
            for result in ["failed", "canceled", "timeout", "dependency", "skipped", "assert", "once"] {
                assert!(ended(verb, Some(result), &before, &again).is_err(), "{verb} {result}");
            }
        }
    }

    #[test]
    fn what_went_wrong_is_said_with_what_to_do() {
        let ended = |verb, result, unit: &Unit| ended(verb, result, unit, unit);
        let crashed = Unit { result: "exit-code".into(), last: Some(Last::Exit(3)), ..unit("failed") };
        assert_eq!(
            ended(Verb::Start, Some("failed"), &crashed).unwrap_err(),
            "systemd could not start x.service: its main process exited with 3"
        );
        assert_eq!(
            ended(Verb::Restart, Some("done"), &crashed).unwrap_err(),
            "systemd did restart x.service, but it is failed (sub): its main process exited with 3"
        );
        let often = Unit { result: "start-limit-hit".into(), ..unit("failed") };
        assert!(
            ended(Verb::Start, Some("failed"), &often)
                .unwrap_err()
                .contains("systemctl reset-failed x.service")
        );
        let socket = Unit { triggered_by: vec!["x.socket".into()], ..unit("active") };
        assert!(ended(Verb::Stop, Some("done"), &socket).unwrap_err().contains("x.socket may start it"));
        let refusal = No::Refused { name: "TransactionIsDestructive".into(), message: "It is.".into() };
        assert!(refused(Verb::Start, "x.service", &refusal).contains("systemctl list-jobs"));
        assert!(refused(Verb::Start, "x.service", &No::NotAllowed("no".into())).contains("as root"));
    }
}
