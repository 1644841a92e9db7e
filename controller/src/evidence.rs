//! What a person needs who is woken up: what was tried, what came of it, what was read, what to type.
//!
//! Made of the steps as the hosts reported them, for the notification and for the incident alike. Everything in it came from
//! a host, so it is bounded, control characters are made visible, and what looks like a secret is left out: a notification
//! goes to a chat, where more people read than on the host. That is a net, not a wall: what a step prints, people see.

use std::collections::BTreeMap;

use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::run::Ending;
use serde::Serialize;

use crate::model::row::{Blob, HostRunRow, RunRow, StepRow};

mod hide;

pub use hide::plain;

/// Lines of one step.
const LINES: usize = 5;
/// Characters of a line.
const LINE: usize = 200;
/// Characters of a reason.
pub const REASON: usize = 600;
/// Steps told of.
const STEPS: usize = 24;
/// Steps whose output is told of.
const OUTPUTS: usize = 8;

/// What is known of a host run that people must look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Every step that was reached, in the order of time.
    pub tried: Vec<Tried>,
    /// The conditions of `verify` that did not hold, with the values they read.
    pub readings: Vec<String>,
    /// The last lines of what the diagnose steps wrote.
    pub seen: Vec<Seen>,
    /// What to type next.
    pub next: Vec<String>,
}

/// One step, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Its path.
    pub step: String,
    /// `succeeded`, `failed`, `skipped` …
    pub outcome: String,
    /// Why; empty when it succeeded.
    pub why: String,
}

/// What one step wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its path.
    pub step: String,
    /// The last lines.
    pub lines: Vec<String>,
}

/// Whether people must look at what ended so.
pub fn wanted(ending: Ending) -> bool {
    match ending {
        Ending::Unverified
        | Ending::Failed
        | Ending::Undone
        | Ending::Rejected
        | Ending::Expired
        | Ending::Refused => true,
        Ending::Verified | Ending::Succeeded | Ending::Cancelled => false,
    }
}

/// The evidence of one host run.
pub fn of<'a>(run: &RunRow, host_run: &HostRunRow, steps: impl IntoIterator<Item = &'a StepRow>) -> Evidence {
    let mut steps: Vec<&StepRow> = steps.into_iter().filter(|step| step.host == host_run.host).collect();
    steps.sort_by_key(|step| (step.ended_at.or(step.started_at), step.attempt));
    let why = |step: &StepRow| match step.state.as_str() {
        "succeeded" => String::new(),
        _ => plain(&step.message, REASON),
    };
    // A step may have been tried several times: the last one counts.
    let last: BTreeMap<&str, u32> = steps.iter().map(|step| (step.path.as_str(), step.attempt)).collect();
    let of_phase = |phase: &'static str| {
        let of = steps.iter().filter(move |step| step.path.starts_with(phase));
        of.filter(|step| last.get(step.path.as_str()) == Some(&step.attempt))
    };
    let failed = of_phase("verify/")
        .filter(|step| !matches!(step.state.as_str(), "succeeded" | "skipped" | "running"));
    let latest = steps.len().saturating_sub(STEPS);
    Evidence {
        tried: steps[latest..]
            .iter()
            .map(|step| Tried {
                step: plain(&step.path, LINE),
                outcome: plain(&step.state, LINE),
                why: why(step),
            })
            .collect(),
        readings: failed.take(STEPS).map(|step| why(step)).collect(),
        seen: of_phase("diagnose/").filter_map(|step| seen(step)).take(OUTPUTS).collect(),
        next: next(run, host_run),
    }
}

fn seen(step: &StepRow) -> Option<Seen> {
    let text = |kept: &Blob| String::from_utf8_lossy(&kept.0).into_owned();
    let kept = [&step.stdout, &step.stderr].into_iter().map(|kept| (text(&kept.head), text(&kept.tail)));
    let (head, tail) = kept.into_iter().find(|(head, tail)| !format!("{head}{tail}").trim().is_empty())?;
    // A key may begin in what is not shown.
    let lines: Vec<&str> = head.lines().chain(tail.lines()).collect();
    let hidden = hide::block(&lines);
    let shown = if tail.is_empty() { &hidden[..] } else { &hidden[head.lines().count()..] };
    let shown: Vec<&&str> = shown.iter().filter(|line| !line.trim().is_empty()).collect();
    let last = shown.len().saturating_sub(LINES);
    let lines = shown[last..].iter().map(|line| plain(line, LINE)).collect();
    Some(Seen { step: plain(&step.path, LINE), lines })
}

fn next(run: &RunRow, host_run: &HostRunRow) -> Vec<String> {
    let mut next = Vec::new();
    next.extend(run.incident.map(|incident| format!("fettle incident show {incident}")));
    next.push(format!("fettle logs {}", run.id));
    let host = &host_run.host;
    let ending = host_run.machine.ended().map(|how| how.ending);
    match (run.of.as_ref().filter(|of| of.how == FollowUp::Undo), ending) {
        // As asked.
        (Some(_), Some(Ending::Undone)) => return next,
        // What is undone is not undone twice.
        (Some(of), _) => {
            next.push(format!("fettle run undo {} --host {host} --reason '…'", of.run));
            return next;
        }
        (None, Some(Ending::Failed)) => {
            next.push(format!("fettle run retry {} --host {host}", run.id));
            return next;
        }
        (None, Some(Ending::Unverified)) => {
            next.push(format!("fettle run undo {} --host {host} --reason '…'", run.id));
        }
        (None, _) => {}
    }
    let inputs: Option<String> = run
        .inputs
        .iter()
        .map(|(name, value)| is_word(value).then(|| format!(" -i {name}={value}")))
        .collect();
    // A value that a shell might take for something else is nobody's to paste.
    next.extend(inputs.map(|inputs| format!("fettle start {} --host {host}{inputs}", run.runbook)));
    next
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::row::{KeptRow, Origin};
    use crate::policy::Mode;
    use crate::world::At;
    use fettle_runbooks::id::{Digest, RunId};
    use fettle_runbooks::run::{HostRun, Until};

    fn rows(inputs: &[(&str, &str)]) -> (RunRow, HostRunRow) {
        let id = RunId::new(uuid::Uuid::nil());
        let host: fettle_runbooks::id::Host = "web-1".parse().expect("a host");
        let run = RunRow {
            id,
            runbook: "host/disk-full".into(),
            runbook_digest: Digest([0; 32]),
            source: Blob::default(),
            certificates: Vec::new(),
            certified: true,
            inputs: inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            origin: Origin::Alert("DiskFull".into()),
            start: None,
            incident: None,
            signal: None,
            mode: Mode::Auto,
            hosts: vec![host.clone()],
            created_at: At(0),
            ended_at: None,
            of: None,
            shared: Blob::default(),
        };
        let host_run = HostRunRow {
            run: id,
            host,
            runbook: run.runbook.clone(),
            about: String::new(),
            machine: HostRun::new(Until::End),
            reason: String::new(),
            plan: None,
            gate: None,
            remediated_at: None,
            root: None,
            found: Default::default(),
            told: None,
            ended_at: None,
        };
        (run, host_run)
    }

    fn step(path: &str, state: &str, message: &str, at: i64, stdout: &str) -> StepRow {
        StepRow {
            run: RunId::new(uuid::Uuid::nil()),
            host: "web-1".parse().expect("a host"),
            path: path.into(),
            attempt: 1,
            state: state.into(),
            message: message.into(),
            started_at: Some(At(at)),
            ended_at: Some(At(at)),
            exit_code: None,
            outputs: Default::default(),
            stdout: KeptRow { head: Blob::new(stdout.to_owned()), ..Default::default() },
            stderr: KeptRow::default(),
        }
    }

    #[test]
    fn it_says_what_was_tried_what_was_read_and_what_to_type() {
        let (run, host_run) = rows(&[("mount", "/var")]);
        let steps = [
            step("verify/below", "failed", "`disk(inputs.mount).used_percent < 85.0` is false (97.3)", 4, ""),
            step("remediate/vacuum", "succeeded", "", 3, "freed 3 MiB"),
            step("diagnose/biggest", "succeeded", "", 2, "1\n2\n3\n\n4\n5\n6\u{1b}[2J\n"),
        ];
        let evidence = of(&run, &host_run, &steps);
        assert_eq!(evidence.readings, ["`disk(inputs.mount).used_percent < 85.0` is false (97.3)"]);
        let tried: Vec<&str> = evidence.tried.iter().map(|tried| tried.step.as_str()).collect();
        assert_eq!(tried, ["diagnose/biggest", "remediate/vacuum", "verify/below"]);
        assert_eq!(evidence.seen[0].lines, ["2", "3", "4", "5", "6\\u{1b}[2J"]);
        assert_eq!(
            evidence.next,
            [
                format!("fettle logs {}", run.id),
                "fettle start host/disk-full --host web-1 -i mount=/var".into()
            ]
        );
    }

    #[test]
    fn a_value_that_a_shell_would_obey_is_not_offered_for_pasting() {
        let (run, host_run) = rows(&[("mount", "/var; reboot")]);
        assert_eq!(of(&run, &host_run, []).next, [format!("fettle logs {}", run.id)]);
    }

    #[test]
    fn it_is_bounded_whatever_a_host_says() {
        let (run, host_run) = rows(&[]);
        let long = "x".repeat(100_000);
        for phases in [&["diagnose"][..], &["verify"], &["remediate"], &["diagnose", "remediate", "verify"]] {
            let steps: Vec<StepRow> = (0..500)
                .flat_map(|n| phases.iter().map(move |phase| (phase, n)))
                .map(|(phase, n)| step(&format!("{phase}/{n}"), "failed", &long, n, &long))
                .collect();
            let evidence = of(&run, &host_run, &steps);
            let size = serde_json::to_string(&evidence).expect("JSON").len();
            assert!(size < 64 * 1024, "{phases:?}: {size}");
        }
    }

    #[test]
    fn of_several_looks_the_last_counts() {
        let (run, host_run) = rows(&[]);
        let look = |attempt, state: &str, message: &str| StepRow {
            attempt,
            ..step("verify/below", state, message, attempt.into(), "")
        };
        let readings = |steps: &[StepRow]| of(&run, &host_run, steps).readings;
        assert_eq!(readings(&[look(1, "failed", "97"), look(2, "succeeded", "")]), [""; 0]);
        assert_eq!(readings(&[look(1, "failed", "97"), look(2, "failed", "96")]), ["96"]);
    }

    #[test]
    fn no_line_of_a_private_key_is_shown_however_much_of_it_was_kept() {
        let (run, host_run) = rows(&[]);
        let seen = |head: &str, tail: &str| {
            let mut row = step("diagnose/show", "succeeded", "", 1, head);
            row.stdout.tail = Blob::new(tail.to_owned());
            of(&run, &host_run, [&row]).seen.remove(0).lines.join(" ")
        };
        let key = "MIIE\n".repeat(9);
        let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----\n", "-----END RSA PRIVATE KEY-----\n");
        for (head, tail, shown) in [
            (format!("{begin}{key}"), String::new(), "*** *** *** *** ***"),
            (format!("{begin}{key}"), key.clone(), "*** *** *** *** ***"),
            (format!("a\n{begin}"), format!("{key}{end}b\n"), "*** *** *** *** b"),
            (String::new(), format!("MIIE\n{end}a\n{begin}{end}"), "*** *** a *** ***"),
            ("a\n".to_owned(), "b\n".to_owned(), "b"),
        ] {
            assert_eq!(seen(&head, &tail), shown, "{head}{tail}");
        }
    }
}
