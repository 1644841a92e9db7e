//! What this organisation lets happen by itself: modes, guards, gates, sources and whom to tell.
//!
//! Policy is files (`*.yaml` in one directory, each `fettle-policy: 1`), read by [`read`], and re-read when they change. A bad
//! file is refused and what was in force stays. Policy can only add to what a host demands.

mod file;
mod glob;
mod learn;

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_runbooks::id::Host;
use fettle_runbooks::runbook::Risk;
use serde::{Deserialize, Serialize};

pub use file::{PolicyProblem, check, read};
pub use glob::Glob;
pub use learn::Learn;

/// How far a trigger may go by itself. The order is meaningful.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Record what would be done.
    #[default]
    Observe,
    /// Stop at the plan.
    Diagnose,
    /// Every remediate step waits for people.
    Approve,
    /// As far as the risk of each step lets.
    Auto,
}

impl Mode {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Diagnose => "diagnose",
            Mode::Approve => "approve",
            Mode::Auto => "auto",
        }
    }
}

/// The policy in force. Its default lets nothing happen by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Who may post signals, by name.
    pub sources: BTreeMap<String, Source>,
    /// SHA-256 of the bearer token with which `/metrics` may be read; absent: nobody may.
    pub metrics: Option<[u8; 32]>,
    /// Other names for hosts, as alerts use them.
    pub hosts: BTreeMap<String, Host>,
    /// How far triggers may go; the first that fits decides, none is observe.
    pub modes: Vec<ModeRule>,
    /// Limits beyond those of the runbooks.
    pub guards: Vec<GuardRule>,
    /// Times of gates.
    pub gates: GateTimes,
    /// Times of incidents.
    pub incidents: IncidentTimes,
    /// Approval beyond what hosts demand.
    pub approvals: Vec<ApprovalRule>,
    /// Whom to tell.
    pub notify: Option<Notify>,
}

/// A source of signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// SHA-256 of its bearer token.
    pub token_sha256: [u8; 32],
    /// How late its alerts are, if the policy says.
    pub declared: Option<Declared>,
    /// The files of Prometheus from which that is learnt for each alert.
    pub learn: Option<Learn>,
}

/// What the policy says of a source's delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The rule's `for`.
    pub held_for: Duration,
    /// The interval between evaluations.
    pub interval: Duration,
}

/// How far the triggers it fits may go.
#[derive(Clone, Debug, PartialEq)]
pub struct ModeRule {
    /// Runbook names.
    pub runbook: Glob,
    /// Alert names; absent: any.
    pub alert: Option<Glob>,
    /// Hosts; absent: any.
    pub hosts: Option<Vec<Glob>>,
    /// How far.
    pub mode: Mode,
}

/// A limit on remediations.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardRule {
    /// Runbook names.
    pub runbook: Glob,
    /// Hosts; absent: any.
    pub hosts: Option<Vec<Glob>>,
    /// After a remediation of the same runbook on the same host, none for this long.
    pub cooldown: Option<Duration>,
    /// At most so many remediations per length of time, of one runbook on one host.
    pub max_runs: Option<(u32, Duration)>,
    /// After so many remediations in a row that did not help, none by an alert.
    pub breaker: Option<u32>,
}

/// How long gates stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateTimes {
    /// Until people must have decided, where the runbook's `approval: within` does not say.
    pub decide_within: Duration,
    /// After `decide_by`, until an approved plan must have begun.
    pub start_within: Duration,
}

impl Default for GateTimes {
    fn default() -> Self {
        GateTimes { decide_within: Duration::from_secs(10 * 60), start_within: Duration::from_secs(5 * 60) }
    }
}

/// What is looked at again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentTimes {
    /// An alert that fires so long after its symptom was verified gone is told to people.
    pub still_firing_after: Duration,
}

impl Default for IncidentTimes {
    fn default() -> Self {
        // Alertmanager tells of an end with its next `group_interval`, five minutes if nobody said otherwise.
        IncidentTimes { still_firing_after: Duration::from_secs(10 * 60) }
    }
}

/// Approval beyond what hosts demand.
#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalRule {
    /// Runbook names.
    pub runbook: Glob,
    /// Hosts; absent: any.
    pub hosts: Option<Vec<Glob>>,
    /// Steps of this risk and above.
    pub risk: Risk,
    /// How many persons.
    pub need: u32,
    /// Of these groups; empty: anyone the roster lets.
    pub from: Vec<String>,
}

/// Where notifications go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// `http://` or `https://`.
    pub url: String,
    /// Key of the HMAC in the header `fettle-signature`.
    pub secret: Vec<u8>,
}

fn fits(globs: Option<&Vec<Glob>>, text: &str) -> bool {
    globs.is_none_or(|globs| globs.iter().any(|glob| glob.matches(text)))
}

impl Policy {
    /// How far a trigger may go by itself, and which rule says so.
    pub fn mode(&self, runbook: &str, alert: &str, host: &Host) -> (Mode, String) {
        let rule = self.modes.iter().position(|rule| {
            rule.runbook.matches(runbook)
                && rule.alert.as_ref().is_none_or(|glob| glob.matches(alert))
                && fits(rule.hosts.as_ref(), host.as_str())
        });
        match rule {
            Some(index) => {
                let mode = self.modes[index].mode;
                (mode, format!("{}: mode rule {} of the policy", mode.word(), index + 1))
            }
            None => (Mode::Observe, "observe: no mode rule of the policy fits".to_owned()),
        }
    }

    /// The limits that bind remediations of this runbook on this host.
    pub fn guards<'p>(&'p self, runbook: &'p str, host: &'p Host) -> impl Iterator<Item = &'p GuardRule> {
        self.guards
            .iter()
            .filter(move |rule| rule.runbook.matches(runbook) && fits(rule.hosts.as_ref(), host.as_str()))
    }

    /// What approvals it adds for a step of this risk.
    pub fn additions<'p>(
        &'p self,
        runbook: &'p str,
        host: &'p Host,
        risk: Risk,
    ) -> impl Iterator<Item = &'p ApprovalRule> {
        self.approvals.iter().filter(move |rule| {
            rule.runbook.matches(runbook) && fits(rule.hosts.as_ref(), host.as_str()) && risk >= rule.risk
        })
    }
}
