//! Reading policy files: strict, with the line and column of what is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fettle_runbooks::id::Host;
use fettle_runbooks::runbook::Risk;
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest as _, Sha256};

use super::{
    ApprovalRule, Declared, GateTimes, Glob, GuardRule, IncidentTimes, Learn, Mode, ModeRule, Notify, Policy,
    Source,
};

/// A policy file may be so long.
const LIMIT: u64 = 1024 * 1024;

/// Why a policy is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyProblem {
    /// A file or the directory cannot be read.
    #[error("read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file says something it must not.
    #[error("{}{}: {message}", path.display(), Place(*line, *column))]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// From 1; 0 where no place can be told.
        line: usize,
        /// From 1; 0 where no place can be told.
        column: usize,
        /// What, and how to fix it.
        message: String,
    },
}

struct Place(usize, usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place(0, _) => Ok(()),
            Place(line, column) => write!(f, ":{line}:{column}"),
        }
    }
}

/// Reads every `*.yaml` of a directory, in the order of their names, into one policy; reports all that is wrong.
pub fn read(directory: &Path) -> Result<Policy, Vec<PolicyProblem>> {
    let unreadable = |path: &Path, source| PolicyProblem::Unreadable { path: path.to_owned(), source };
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|source| vec![unreadable(directory, source)])?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let (mut policy, mut problems) = (Policy::default(), Vec::new());
    let mut once = Once::default();
    for path in &paths {
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > LIMIT => {
                problems.push(wrong(path, 0, 0, format!("is longer than {LIMIT} bytes")));
                continue;
            }
            Ok(_) => fs::read_to_string(path),
            Err(error) => Err(error),
        };
        let text = match text {
            Ok(text) => text,
            Err(source) => {
                problems.push(unreadable(path, source));
                continue;
            }
        };
        match check(path, &text) {
            Ok(part) => merge(&mut policy, part, path, &mut once, &mut problems),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(policy) } else { Err(problems) }
}

/// One file's part of the policy, and which of the settings that only one file may have it has.
#[derive(Debug)]
pub struct Part {
    policy: Policy,
    gates: bool,
    incidents: bool,
}

fn wrong(path: &Path, line: usize, column: usize, message: impl Into<String>) -> PolicyProblem {
    PolicyProblem::Wrong { path: path.to_owned(), line, column, message: message.into() }
}

/// Which file has each of the settings that only one file may have.
#[derive(Default)]
struct Once {
    gates: Option<PathBuf>,
    incidents: Option<PathBuf>,
    notify: Option<PathBuf>,
    metrics: Option<PathBuf>,
}

fn merge(into: &mut Policy, part: Part, path: &Path, seen: &mut Once, problems: &mut Vec<PolicyProblem>) {
    let Part { policy, gates, incidents } = part;
    for (name, source) in policy.sources {
        if into.sources.insert(name.clone(), source).is_some() {
            problems.push(wrong(path, 0, 0, format!("source `{name}` is in another file already")));
        }
    }
    for (name, host) in policy.hosts {
        if into.hosts.insert(name.clone(), host).is_some() {
            problems.push(wrong(path, 0, 0, format!("host alias `{name}` is in another file already")));
        }
    }
    into.modes.extend(policy.modes);
    into.guards.extend(policy.guards);
    into.approvals.extend(policy.approvals);
    let mut once = |what: &str, seen: &mut Option<PathBuf>| {
        if let Some(first) = seen {
            problems.push(wrong(path, 0, 0, format!("`{what}:` is in {} already", first.display())));
        }
        *seen = Some(path.to_owned());
    };
    if gates {
        once("gates", &mut seen.gates);
        into.gates = policy.gates;
    }
    if incidents {
        once("incidents", &mut seen.incidents);
        into.incidents = policy.incidents;
    }
    if policy.notify.is_some() {
        once("notify", &mut seen.notify);
        into.notify = policy.notify;
    }
    if policy.metrics.is_some() {
        once("metrics", &mut seen.metrics);
        into.metrics = policy.metrics;
    }
}

/// Checks one file's text; `path` is for messages and for the files it names.
pub fn check(path: &Path, text: &str) -> Result<Part, PolicyProblem> {
    let file: File = serde_yaml::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
        let message = error.to_string();
        // serde_yaml appends the place; it is said once, in front.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        wrong(path, line, column, message)
    })?;
    if file.version != 1 {
        let message = format!("`fettle-policy: {}` is not known here; this controller reads 1", file.version);
        return Err(wrong(path, 1, 1, message));
    }
    let beside = |name: &Path| path.parent().unwrap_or(Path::new(".")).join(name);
    let secret = |name: &Path| {
        let file = beside(name);
        fs::read_to_string(&file)
            .map(|text| text.trim().to_owned())
            .map_err(|source| PolicyProblem::Unreadable { path: file, source })
    };
    let token = |of: &str, hash: Option<Sha256Text>, file: Option<PathBuf>| match (hash, file) {
        (Some(hash), None) => Ok(hash.0),
        (None, Some(file)) => Ok(Sha256::digest(secret(&file)?).into()),
        (Some(_), Some(_)) | (None, None) => {
            Err(wrong(path, 0, 0, format!("{of} needs either `token_sha256` or `token_file`")))
        }
    };
    let metrics = file.metrics.map(|it| token("`metrics`", it.token_sha256, it.token_file)).transpose()?;
    let mut sources = BTreeMap::new();
    for (name, source) in file.sources {
        let token_sha256 = token(&format!("source `{name}`"), source.token_sha256, source.token_file)?;
        let (declared, learn) = source.onset.map_or(Ok((None, None)), |onset| {
            onset.read(&beside).map_err(|message| wrong(path, 0, 0, format!("source `{name}`: {message}")))
        })?;
        sources.insert(name, Source { token_sha256, declared, learn });
    }
    let notify = match file.notify {
        None => None,
        Some(notify) => {
            if !notify.url.starts_with("http://") && !notify.url.starts_with("https://") {
                return Err(wrong(path, 0, 0, "`notify.url` must begin with `http://` or `https://`"));
            }
            let secret = match (notify.secret, notify.secret_file) {
                (Some(text), None) => text,
                (None, Some(file)) => secret(&file)?,
                (Some(_), Some(_)) | (None, None) => {
                    return Err(wrong(path, 0, 0, "`notify` needs either `secret` or `secret_file`"));
                }
            };
            Some(Notify { url: notify.url, secret: secret.into_bytes() })
        }
    };
    let defaults = GateTimes::default();
    let gates = file.gates.is_some();
    let times = file.gates.map_or(defaults, |gates| GateTimes {
        decide_within: gates.decide_within.map_or(defaults.decide_within, |text| text.0),
        start_within: gates.start_within.map_or(defaults.start_within, |text| text.0),
    });
    let incidents = file.incidents.is_some();
    let again = file.incidents.and_then(|text| text.still_firing_after).map(|text| text.0);
    let policy = Policy {
        sources,
        metrics,
        hosts: file.hosts,
        modes: file.modes.into_iter().map(ModeRule::from).collect(),
        guards: file.guards.into_iter().map(GuardRule::from).collect(),
        gates: times,
        incidents: again
            .map_or_else(IncidentTimes::default, |still_firing_after| IncidentTimes { still_firing_after }),
        approvals: file.approvals.into_iter().map(ApprovalRule::from).collect(),
        notify,
    };
    Ok(Part { policy, gates, incidents })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "fettle-policy")]
    version: u32,
    #[serde(default)]
    sources: BTreeMap<String, SourceText>,
    metrics: Option<MetricsText>,
    #[serde(default)]
    hosts: BTreeMap<String, Host>,
    #[serde(default)]
    modes: Vec<ModeText>,
    #[serde(default)]
    guards: Vec<GuardText>,
    gates: Option<GatesText>,
    incidents: Option<IncidentsText>,
    #[serde(default)]
    approvals: Vec<ApprovalText>,
    notify: Option<NotifyText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceText {
    token_sha256: Option<Sha256Text>,
    token_file: Option<PathBuf>,
    onset: Option<OnsetText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsText {
    token_sha256: Option<Sha256Text>,
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnsetText {
    #[serde(rename = "for")]
    held_for: Option<DurationText>,
    interval: Option<DurationText>,
    prometheus: Option<PathBuf>,
    #[serde(default)]
    rules: Vec<PathBuf>,
}

impl OnsetText {
    fn read(
        self,
        beside: &dyn Fn(&Path) -> PathBuf,
    ) -> Result<(Option<Declared>, Option<Learn>), &'static str> {
        let declared = match (self.held_for, self.interval) {
            (Some(held_for), Some(interval)) => Some(Declared { held_for: held_for.0, interval: interval.0 }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err("`onset` with `for` or `interval` needs both"),
        };
        let prometheus = self.prometheus.map(|path| beside(&path));
        let rules: Vec<PathBuf> = self.rules.iter().map(|pattern| beside(pattern)).collect();
        let learn = (prometheus.is_some() || !rules.is_empty()).then_some(Learn { prometheus, rules });
        match (&declared, &learn) {
            (None, None) => {
                Err("`onset` needs `for` and `interval`, or `prometheus` or `rules` to learn them from")
            }
            (Some(_), _) | (_, Some(_)) => Ok((declared, learn)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeText {
    runbook: Glob,
    alert: Option<Glob>,
    hosts: Option<Vec<Glob>>,
    mode: Mode,
}

impl From<ModeText> for ModeRule {
    fn from(ModeText { runbook, alert, hosts, mode }: ModeText) -> Self {
        ModeRule { runbook, alert, hosts, mode }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardText {
    runbook: Glob,
    hosts: Option<Vec<Glob>>,
    cooldown: Option<DurationText>,
    max_runs: Option<MaxRunsText>,
    breaker: Option<std::num::NonZeroU32>,
}

impl From<GuardText> for GuardRule {
    fn from(GuardText { runbook, hosts, cooldown, max_runs, breaker }: GuardText) -> Self {
        GuardRule {
            runbook,
            hosts,
            cooldown: cooldown.map(|text| text.0),
            max_runs: max_runs.map(|text| (text.0, text.1)),
            breaker: breaker.map(std::num::NonZeroU32::get),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatesText {
    decide_within: Option<DurationText>,
    start_within: Option<DurationText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IncidentsText {
    still_firing_after: Option<DurationText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalText {
    #[serde(default = "any")]
    runbook: Glob,
    hosts: Option<Vec<Glob>>,
    risk: RiskText,
    need: u32,
    #[serde(default)]
    from: Vec<String>,
}

fn any() -> Glob {
    Glob::new("*")
}

impl From<ApprovalText> for ApprovalRule {
    fn from(ApprovalText { runbook, hosts, risk, need, from }: ApprovalText) -> Self {
        let risk = match risk {
            RiskText::Low => Risk::Low,
            RiskText::Medium => Risk::Medium,
            RiskText::High => Risk::High,
            RiskText::Critical => Risk::Critical,
        };
        ApprovalRule { runbook, hosts, risk, need, from }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RiskText {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyText {
    url: String,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
}

/// `90s`, `5m`, `1h30m`, `2d`, `250ms`.
struct DurationText(Duration);

fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let letters = unit.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, left) = unit.split_at(letters);
        let number: u64 = number.parse().ok()?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = left;
    }
    (!text.is_empty()).then_some(total)
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        duration(&text).map(DurationText).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is not a length of time: write `90s`, `5m`, `1h30m` or `2d`"))
        })
    }
}

/// `3 per 24h`
struct MaxRunsText(u32, Duration);

impl<'de> Deserialize<'de> for MaxRunsText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.split_once(" per ")
            .and_then(|(count, per)| Some(MaxRunsText(count.trim().parse().ok()?, duration(per.trim())?)))
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a limit: write `3 per 24h`")))
    }
}

struct Sha256Text([u8; 32]);

impl<'de> Deserialize<'de> for Sha256Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let hex = text.strip_prefix("sha256:").unwrap_or(&text);
        format!("sha256:{hex}")
            .parse::<fettle_runbooks::id::Digest>()
            .map(|digest| Sha256Text(digest.0))
            .map_err(|_| de::Error::custom("the token's SHA-256 is 64 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests;
