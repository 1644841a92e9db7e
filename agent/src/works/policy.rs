//! The host's own veto: `policy.yaml`, which nobody can lift from afar.
//!
//! ```yaml
//! fettle-host-policy: 1
//! freeze: false                 # true: no step that acts runs here
//! deny:
//!   - runbook: "database/*"     # these runbooks do not act here …
//!   - risk_above: medium        # … nor any step above this risk
//!   - program: [reboot, /sbin/*]
//!   - unit: ["postgres*"]       # nor any step that starts, stops, restarts or reloads these units of systemd
//! read_only: enforced           # full: steps that only read start only where nothing of their sandbox is missing;
//!                               # enforced: where the kernel keeps them from writing; unenforced: anyway
//! ```
//!
//! It is asked when an order is accepted and again by the shim, just before a step starts. `freeze` and `deny` bind steps
//! that act; reading is always allowed, where it is sure to be nothing else. A file that cannot be read or understood denies every step that acts: a veto must not
//! disappear through a typing error.

use std::fmt;
use std::path::Path;

use fettle_proto::signed::words::risk_of;
use fettle_runbooks::runbook::Risk;
use serde::Deserialize;

/// What a step that acts must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// The file was read.
    Read(Rules),
    /// It was not, and why. Denies everything that acts.
    Unreadable(String),
}

/// The rules of the file. The default denies nothing, as does a host without the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    freeze: bool,
    deny: Vec<Deny>,
    read_only: ReadOnly,
}

/// How sure a host must be that a step that only reads does nothing else. A later one asks for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadOnly {
    /// Its word is enough.
    Unenforced,
    /// The kernel keeps it from writing.
    #[default]
    Enforced,
    /// Nothing of the sandbox is missing.
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deny {
    #[serde(default)]
    runbook: Option<OneOrMore>,
    #[serde(default)]
    risk_above: Option<String>,
    #[serde(default)]
    program: Option<OneOrMore>,
    #[serde(default)]
    unit: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// The program that a step which acts on a unit counts as. It starts none, but whoever forbids this one forbids what it does.
const SYSTEMCTL: [&str; 3] = ["systemctl", "/usr/bin/systemctl", "/bin/systemctl"];

/// A step that wants to run, as the veto sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The runbook's path in the library.
    pub runbook: &'a str,
    /// The step's risk.
    pub risk: Risk,
    /// The program it starts; empty for a step that acts on a unit, which counts as `systemctl`.
    pub program: &'a str,
    /// The systemd unit that it does something with, with its kind (`nginx.service`); empty for a step that does not.
    pub unit: &'a str,
}

/// A refusal of the host itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Veto {
    /// Stable: `vetoed` or `veto-unreadable`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "fettle-host-policy")]
    version: u32,
    #[serde(default)]
    freeze: bool,
    #[serde(default)]
    deny: Vec<Deny>,
    #[serde(default)]
    read_only: ReadOnly,
}

impl HostPolicy {
    /// Reads `policy.yaml`. A file that is not there denies nothing.
    pub fn read(path: &Path) -> HostPolicy {
        match std::fs::read(path) {
            Ok(bytes) => HostPolicy::parse(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => HostPolicy::Read(Rules::default()),
            Err(error) => HostPolicy::Unreadable(error.to_string()),
        }
    }

    fn parse(bytes: &[u8]) -> HostPolicy {
        let written: Written = match serde_yaml::from_slice(bytes) {
            Ok(written) => written,
            Err(error) => return HostPolicy::Unreadable(error.to_string()),
        };
        if written.version != 1 {
            return HostPolicy::Unreadable(format!("`fettle-host-policy: {}` is not 1", written.version));
        }
        match written.deny.iter().find_map(Deny::problem) {
            Some(problem) => HostPolicy::Unreadable(problem),
            None => HostPolicy::Read(Rules {
                freeze: written.freeze,
                deny: written.deny,
                read_only: written.read_only,
            }),
        }
    }

    /// Whether a step that only reads may start where the kernel makes so sure of it.
    ///
    /// # Errors
    /// When it may not, with the reason.
    pub fn allows_reading(&self, sure: ReadOnly) -> Result<(), Veto> {
        let (wanted, code) = match self {
            HostPolicy::Read(rules) => (rules.read_only, "vetoed"),
            HostPolicy::Unreadable(_) => (ReadOnly::Full, "veto-unreadable"),
        };
        if sure >= wanted {
            return Ok(());
        }
        let message = match wanted {
            ReadOnly::Full => {
                "something of the read-only sandbox is missing on this host, and its policy.yaml asks for all of it"
            }
            ReadOnly::Enforced | ReadOnly::Unenforced => {
                "nothing keeps a step from writing on this host (no root, no Landlock), and its policy.yaml does not say \
                 `read_only: unenforced`"
            }
        };
        Err(Veto { code, message: message.to_owned() })
    }

    /// Whether a step may act here.
    ///
    /// # Errors
    /// When it may not, with the reason.
    pub fn allows(&self, asked: Asked<'_>) -> Result<(), Veto> {
        if asked.risk == Risk::Read {
            return Ok(());
        }
        let rules = match self {
            HostPolicy::Read(rules) => rules,
            HostPolicy::Unreadable(why) => {
                let message = format!("this host's policy.yaml cannot be read, so nothing acts here: {why}");
                return Err(Veto { code: "veto-unreadable", message });
            }
        };
        let veto = |message| Err(Veto { code: "vetoed", message });
        if rules.freeze {
            return veto("this host's policy.yaml says `freeze: true`".into());
        }
        match rules.deny.iter().position(|deny| deny.covers(asked)) {
            None => Ok(()),
            Some(place) => veto(format!(
                "this host's policy.yaml denies it (entry {} of `deny`: {})",
                place + 1,
                rules.deny[place]
            )),
        }
    }
}

impl Deny {
    fn problem(&self) -> Option<String> {
        let globs = [&self.runbook, &self.program, &self.unit];
        if self.risk_above.is_none() && globs.iter().all(|globs| globs.is_none()) {
            return Some("an entry of `deny` says nothing: give runbook, risk_above, program or unit".into());
        }
        let risk = self.risk_above.as_deref()?;
        risk_of(risk)
            .is_none()
            .then(|| format!("`risk_above: {risk}` is not a risk: read, low, medium, high, critical"))
    }

    /// All that the entry names must fit.
    fn covers(&self, asked: Asked<'_>) -> bool {
        let base = asked.program.rsplit('/').next().unwrap_or_default();
        let programs = if asked.unit.is_empty() { &[asked.program, base][..] } else { &SYSTEMCTL };
        let runbook = self.runbook.as_ref().is_none_or(|globs| globs.fit(asked.runbook));
        let program =
            self.program.as_ref().is_none_or(|globs| programs.iter().any(|program| globs.fit(program)));
        let unit = self.unit.as_ref().is_none_or(|globs| globs.fit_unit(asked.unit));
        let above = self.risk_above.as_deref().and_then(risk_of);
        runbook && program && unit && above.is_none_or(|above| asked.risk > above)
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |globs: &Option<OneOrMore>| globs.as_ref().map(|globs| globs.all().join(", "));
        let parts = [
            ("runbook", list(&self.runbook)),
            ("risk_above", self.risk_above.clone()),
            ("program", list(&self.program)),
            ("unit", list(&self.unit)),
        ];
        let parts = parts.into_iter().filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
        f.write_str(&parts.collect::<Vec<_>>().join("; "))
    }
}

impl OneOrMore {
    fn all(&self) -> &[String] {
        match self {
            OneOrMore::One(glob) => std::slice::from_ref(glob),
            OneOrMore::More(globs) => globs,
        }
    }

    /// A unit's name, with its kind or, of a service, without.
    fn fit_unit(&self, unit: &str) -> bool {
        !unit.is_empty()
            && (self.fit(unit) || unit.strip_suffix(".service").is_some_and(|name| self.fit(name)))
    }

    fn fit(&self, text: &str) -> bool {
        self.all().iter().any(|glob| fits(glob.as_bytes(), text.as_bytes()))
    }
}

/// `*` is any text, `/` included; everything else is itself.
fn fits(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when it turns out that the last star must take one byte more.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(byte) if *byte == text[from] => {
                at += 1;
                from += 1;
            }
            Some(_) | None => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (at, from) = (after, taken + 1);
            }
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &str, runbook: &str, risk: Risk, program: &str) -> Result<(), &'static str> {
        let (program, unit) = match program.strip_prefix("unit ") {
            Some(unit) => ("", unit),
            None => (program, ""),
        };
        let asked = Asked { runbook, risk, program, unit };
        HostPolicy::parse(policy.as_bytes()).allows(asked).map_err(|veto| veto.code)
    }

    #[test]
    fn a_host_without_the_file_denies_nothing() {
        let policy = HostPolicy::read(Path::new("/nonexistent/policy.yaml"));
        assert_eq!(policy, HostPolicy::Read(Rules::default()));
        policy.allows(Asked { runbook: "a/b", risk: Risk::Critical, program: "reboot", unit: "" }).unwrap();
    }

    #[test]
    fn each_rule_denies_what_it_names_and_nothing_else() {
        let policy = r#"
fettle-host-policy: 1
deny:
  - runbook: "database/*"
  - risk_above: medium
  - program: [reboot, "/opt/legacy/*"]
  - unit: ["postgres*", backup, "*.mount"]
"#;
        let cases = [
            ("host/disk", Risk::Low, "logrotate", Ok(())),
            ("host/disk", Risk::Medium, "logrotate", Ok(())),
            ("host/disk", Risk::High, "logrotate", Err("vetoed")),
            ("database/failover", Risk::Low, "psql", Err("vetoed")),
            ("database/failover", Risk::Read, "psql", Ok(())),
            ("host/disk", Risk::Low, "/sbin/reboot", Err("vetoed")),
            ("host/disk", Risk::Low, "reboots", Ok(())),
            ("host/disk", Risk::Low, "/opt/legacy/bin/fix", Err("vetoed")),
            ("host/disk", Risk::Low, "postgres", Ok(())),
            ("host/disk", Risk::Low, "unit postgresql@15-main.service", Err("vetoed")),
            ("host/disk", Risk::Low, "unit backup.service", Err("vetoed")),
            ("host/disk", Risk::Low, "unit backup.timer", Ok(())),
            ("host/disk", Risk::Low, "unit data.mount", Err("vetoed")),
            ("host/disk", Risk::Low, "unit reboot.service", Ok(())),
            ("host/disk", Risk::Low, "unit nginx.service", Ok(())),
        ];
        for (runbook, risk, program, expected) in cases {
            assert_eq!(verdict(policy, runbook, risk, program), expected, "{runbook} {risk:?} {program}");
        }
    }

    #[test]
    fn what_one_entry_names_must_fit_together() {
        let policy = "fettle-host-policy: 1\ndeny: [{ runbook: 'a/*', risk_above: low }]";
        assert_eq!(verdict(policy, "a/b", Risk::Low, "x"), Ok(()));
        assert_eq!(verdict(policy, "a/b", Risk::Medium, "x"), Err("vetoed"));
        assert_eq!(verdict(policy, "c/b", Risk::Medium, "x"), Ok(()));
    }

    #[test]
    fn whoever_forbids_systemctl_or_all_programs_forbids_units_too() {
        for program in ["'*'", "systemctl", "/usr/bin/systemctl", "[reboot, '/bin/*']", "'system*'"] {
            let policy = format!("fettle-host-policy: 1\ndeny: [{{ program: {program} }}]");
            assert_eq!(verdict(&policy, "a/b", Risk::Low, "unit nginx.service"), Err("vetoed"), "{program}");
            let ls = if program == "'*'" { Err("vetoed") } else { Ok(()) };
            assert_eq!(verdict(&policy, "a/b", Risk::Low, "ls"), ls);
        }
        let both = "fettle-host-policy: 1\ndeny: [{ program: systemctl, unit: 'ssh*' }]";
        assert_eq!(verdict(both, "a/b", Risk::Low, "unit ssh.service"), Err("vetoed"));
        assert_eq!(verdict(both, "a/b", Risk::Low, "unit nginx.service"), Ok(()));
        assert_eq!(verdict(both, "a/b", Risk::Low, "systemctl"), Ok(()));
    }

    #[test]
    fn a_step_that_only_reads_starts_where_the_host_is_as_sure_as_it_wants_to_be() {
        use ReadOnly::{Enforced, Full, Unenforced};
        for (policy, enough) in [
            ("fettle-host-policy: 1", Enforced),
            ("fettle-host-policy: 1\nread_only: full", Full),
            ("fettle-host-policy: 1\nread_only: unenforced", Unenforced),
            ("fettle-host-policy: 1\nread_only: ful", Full),
        ] {
            for sure in [Unenforced, Enforced, Full] {
                let verdict = HostPolicy::parse(policy.as_bytes()).allows_reading(sure);
                assert_eq!(verdict.is_ok(), sure >= enough, "{policy} {sure:?}");
            }
        }
    }

    #[test]
    fn a_freeze_stops_everything_but_reading() {
        let policy = "fettle-host-policy: 1\nfreeze: true";
        assert_eq!(verdict(policy, "a/b", Risk::Low, "x"), Err("vetoed"));
        assert_eq!(verdict(policy, "a/b", Risk::Read, "x"), Ok(()));
    }

    #[test]
    fn a_file_with_a_mistake_denies_everything_but_reading() {
        for bad in [
            "",
            "fettle-host-policy: 2",
            "fettle-host-policy: 1\nfreez: true",
            "fettle-host-policy: 1\ndeny: [{}]",
            "fettle-host-policy: 1\ndeny: [{ units: [a] }]",
            "fettle-host-policy: 1\ndeny: [{ risk_above: hihg }]",
            "freeze: false",
            "\u{0}",
        ] {
            assert_eq!(verdict(bad, "a/b", Risk::Low, "x"), Err("veto-unreadable"), "{bad}");
            assert_eq!(verdict(bad, "a/b", Risk::Read, "x"), Ok(()), "{bad}");
        }
        assert!(matches!(HostPolicy::read(Path::new("/proc")), HostPolicy::Unreadable(_)));
    }

    #[test]
    fn stars_take_as_much_as_they_must() {
        for (glob, text, fit) in [
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("*a", "baa", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(fits(glob.as_bytes(), text.as_bytes()), fit, "{glob} {text}");
        }
    }
}
