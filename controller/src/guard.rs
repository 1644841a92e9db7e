//! Limits that must hold before a host is touched, whoever asks.
//!
//! Every guard is asked, so that people see all the reasons at once, and each answers with a verdict.

use std::time::Duration;

use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::runbook::Guard;

use crate::policy::Policy;
use crate::signal::{Answer, Verdict};
use crate::world::At;

/// So many remediations in a row may fail to help, where the policy does not say.
pub const BREAKER: u32 = 2;

/// What the guards look at.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The run that wants to remediate.
    pub run: RunId,
    /// Its runbook.
    pub runbook: &'a str,
    /// What the runbook asks for itself.
    pub own: &'a Guard,
    /// The host.
    pub host: &'a Host,
    /// Earlier remediations of the same runbook on the same host, oldest first.
    pub before: &'a [At],
    /// The last of them with the same inputs.
    pub last: Option<At>,
    /// The run that remediates on the host now, if another does.
    pub taken_by: Option<RunId>,
    /// How many remediations of the same runbook on the same host in a row did not help.
    pub failed: u32,
    /// Whether a person started the run.
    pub by_hand: bool,
    /// Now.
    pub now: At,
}

/// What the guards say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All let it through.
    Pass,
    /// None refuses, and one says not yet.
    Wait,
    /// One refuses.
    Refuse,
}

/// Asks every guard.
pub fn judge(asked: &Asked<'_>, policy: &Policy) -> (Outcome, Vec<Verdict>) {
    let verdicts =
        vec![cooldown(asked, policy), max_runs(asked, policy), breaker(asked, policy), one_at_a_time(asked)];
    let outcome = verdicts.iter().map(|verdict| match verdict.answer {
        Answer::Yes => Outcome::Pass,
        Answer::Wait => Outcome::Wait,
        Answer::No => Outcome::Refuse,
    });
    (outcome.max().unwrap_or(Outcome::Pass), verdicts)
}

/// Why a set of verdicts does not pass, in one sentence.
pub fn reasons(verdicts: &[Verdict]) -> String {
    let closed = verdicts.iter().filter(|verdict| verdict.answer != Answer::Yes);
    closed.map(|verdict| format!("{}: {}", verdict.asked, verdict.reason)).collect::<Vec<_>>().join("; ")
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        long if long >= 7200 && long % 3600 == 0 => format!("{} h", long / 3600),
        long if long >= 120 => format!("{} min", long.div_ceil(60)),
        short => format!("{short} s"),
    }
}

fn cooldown(asked: &Asked<'_>, policy: &Policy) -> Verdict {
    let verdict = |answer, reason: String| Verdict::new(asked.now, "guard cooldown", answer, reason);
    let rules = policy.guards(asked.runbook, asked.host).filter_map(|rule| rule.cooldown);
    let Some(cooldown) = asked.own.cooldown.into_iter().chain(rules).max() else {
        return verdict(Answer::Yes, "none is set".to_owned());
    };
    let Some(last) = asked.last else {
        return verdict(Answer::Yes, format!("no earlier remediation; {} is set", seconds(cooldown)));
    };
    let since = asked.now.since(last);
    let text =
        format!("the last remediation was {} ago, at least {} is set", seconds(since), seconds(cooldown));
    verdict(if since < cooldown { Answer::No } else { Answer::Yes }, text)
}

fn max_runs(asked: &Asked<'_>, policy: &Policy) -> Verdict {
    let verdict = |answer, reason: String| Verdict::new(asked.now, "guard max_runs", answer, reason);
    let rules = policy.guards(asked.runbook, asked.host).filter_map(|rule| rule.max_runs);
    let limits: Vec<(u32, Duration)> = asked.own.max_runs.into_iter().chain(rules).collect();
    let within = |per: Duration| asked.before.iter().filter(|at| asked.now.since(**at) < per).count();
    let exceeded = limits.iter().find(|(most, per)| within(*per) >= *most as usize);
    match (exceeded, limits.first()) {
        (Some((most, per)), _) => {
            let text = format!("{} in the last {}, at most {most} are allowed", within(*per), seconds(*per));
            verdict(Answer::No, text)
        }
        (None, Some((most, per))) => verdict(
            Answer::Yes,
            format!("{} in the last {}, {most} are allowed", within(*per), seconds(*per)),
        ),
        (None, None) => verdict(Answer::Yes, "none is set".to_owned()),
    }
}

/// What did not help twice does not help a third time, and may make things worse: a person looks first.
fn breaker(asked: &Asked<'_>, policy: &Policy) -> Verdict {
    let verdict = |answer, reason: String| Verdict::new(asked.now, "guard breaker", answer, reason);
    let rules = policy.guards(asked.runbook, asked.host).filter_map(|rule| rule.breaker);
    let most = rules.min().unwrap_or(BREAKER);
    match asked.failed {
        _ if asked.by_hand => verdict(Answer::Yes, "a person started the run".to_owned()),
        0 => verdict(Answer::Yes, "the last remediation helped, or there was none".to_owned()),
        failed if failed < most => {
            verdict(Answer::Yes, format!("{failed} in a row did not help, {most} may"))
        }
        failed => {
            let text = format!(
                "{failed} remediations in a row did not help, so no alert starts another: look at the host, then start it by \
                 hand, which counts from nothing if it helps; else alerts try again a day after the last"
            );
            verdict(Answer::No, text)
        }
    }
}

fn one_at_a_time(asked: &Asked<'_>) -> Verdict {
    match asked.taken_by.filter(|run| *run != asked.run) {
        None => Verdict::new(asked.now, "guard host", Answer::Yes, "nothing else changes the host"),
        Some(run) => {
            Verdict::new(asked.now, "guard host", Answer::Wait, format!("{run} changes the host now"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Glob, GuardRule};
    use fettle_runbooks::id::RunId;

    const MINUTE: i64 = 60_000;

    fn check(before: &[At], taken: bool, now: i64, expected: Outcome, reason: &str) {
        check_breaker(before, taken, now, (0, false), expected, reason);
    }

    fn check_breaker(
        before: &[At],
        taken: bool,
        now: i64,
        (failed, by_hand): (u32, bool),
        expected: Outcome,
        reason: &str,
    ) {
        let own = Guard {
            cooldown: Some(Duration::from_secs(30 * 60)),
            max_runs: Some((2, Duration::from_secs(86_400))),
        };
        let policy = Policy {
            guards: vec![GuardRule {
                runbook: Glob::new("host/*"),
                hosts: None,
                cooldown: Some(Duration::from_secs(60)),
                max_runs: None,
                breaker: Some(3),
            }],
            ..Policy::default()
        };
        let (run, other) = (RunId::new(uuid::Uuid::nil()), RunId::new(uuid::Uuid::max()));
        let asked = Asked {
            run,
            runbook: "host/x",
            own: &own,
            host: &"web-1".parse().unwrap(),
            before,
            last: before.last().copied(),
            taken_by: Some(if taken { other } else { run }),
            failed,
            by_hand,
            now: At(now),
        };
        let (outcome, verdicts) = judge(&asked, &policy);
        assert_eq!(outcome, expected, "{verdicts:?}");
        assert!(reasons(&verdicts).contains(reason), "{}", reasons(&verdicts));
    }

    #[test]
    fn every_guard_answers_and_the_hardest_answer_counts() {
        check(&[], false, 0, Outcome::Pass, "");
        check(
            &[At(0)],
            false,
            29 * MINUTE,
            Outcome::Refuse,
            "guard cooldown: the last remediation was 29 min ago",
        );
        check(&[At(0)], false, 30 * MINUTE, Outcome::Pass, "");
        check(
            &[At(0), At(MINUTE)],
            false,
            60 * MINUTE,
            Outcome::Refuse,
            "guard max_runs: 2 in the last 24 h",
        );
        check(&[At(0), At(MINUTE)], false, 25 * 60 * MINUTE, Outcome::Pass, "");
        check(&[], true, 0, Outcome::Wait, "changes the host now");
        check(&[At(0)], true, MINUTE, Outcome::Refuse, "guard host");
    }

    #[test]
    fn what_did_not_help_is_not_tried_again_until_a_person_does() {
        let check = |failed, by_hand, expected, reason: &str| {
            check_breaker(&[], false, 0, (failed, by_hand), expected, reason);
        };
        check(2, false, Outcome::Pass, "");
        check(3, false, Outcome::Refuse, "guard breaker: 3 remediations in a row did not help");
        check(3, true, Outcome::Pass, "");
    }
}
