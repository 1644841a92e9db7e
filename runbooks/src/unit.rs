//! Units of systemd: what they may be called, and what a step may do with which of them.
//!
//! A unit's name often comes out of an alert, so out of anyone's hands. [`UnitName`] is made of nothing but the characters
//! that such a name may have, and [`UnitName::acted_on`] says which units a step may act on at all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name systemd takes.
const LONGEST: usize = 255;

/// What a step does with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// It shall run.
    Start,
    /// It shall not run.
    Stop,
    /// It shall run, and not as it does now.
    Restart,
    /// It shall read its configuration again, and go on running.
    Reload,
}

impl Verb {
    /// Every one.
    pub const ALL: [Verb; 4] = [Verb::Start, Verb::Stop, Verb::Restart, Verb::Reload];

    /// As written.
    pub const fn word(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Reload => "reload",
        }
    }

    /// The verb of that word.
    pub fn named(word: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.word() == word)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The kinds of units, which are the ends of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processes.
    Service,
    /// What starts a service when somebody connects.
    Socket,
    /// What starts a service when its time has come.
    Timer,
    /// What starts a service when a file changes.
    Path,
    /// A mounted filesystem.
    Mount,
    /// What mounts a filesystem when it is used.
    Automount,
    /// Swap space.
    Swap,
    /// A state of the whole host.
    Target,
    /// A part of the host's resources.
    Slice,
    /// Processes that others started.
    Scope,
    /// A device of the kernel.
    Device,
}

impl Kind {
    const ALL: [(&'static str, Kind); 11] = [
        ("service", Kind::Service),
        ("socket", Kind::Socket),
        ("timer", Kind::Timer),
        ("path", Kind::Path),
        ("mount", Kind::Mount),
        ("automount", Kind::Automount),
        ("swap", Kind::Swap),
        ("target", Kind::Target),
        ("slice", Kind::Slice),
        ("scope", Kind::Scope),
        ("device", Kind::Device),
    ];
}

/// The name of a unit, with its kind: `nginx.service`, `getty@tty1.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

/// Text that is not the name of a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUnit {
    /// No text at all.
    #[error("it is empty")]
    Empty,
    /// Longer than systemd takes.
    #[error("it has {0} characters, and the name of a unit has at most {LONGEST}")]
    TooLong(usize),
    /// A program could take it for an option.
    #[error("it begins with `-`")]
    LeadingDash,
    /// A character that no name has.
    #[error("it has `{}` in it; a unit's name has letters, digits and `:-_.\\@`", .0.escape_default())]
    Character(char),
    /// Nothing before the `@` or the kind.
    #[error("there is nothing before its `{0}`")]
    NoPrefix(char),
}

/// A unit that no step acts on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotActedOn {
    /// It stands for many units and is none.
    #[error("`{0}` is a template: name one of its instances, such as `{1}`")]
    Template(UnitName, String),
    /// Not something that runs or does not.
    #[error("`{0}` is {1}, and a step acts on services, sockets, timers, paths, mounts and swaps only")]
    Kind(UnitName, &'static str),
    /// What it does is done to the whole host.
    #[error("`{0}` ends, suspends or opens the whole host, which no `service` step does")]
    WholeHost(UnitName),
}

impl UnitName {
    /// As systemd has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What kind of unit.
    pub fn kind(&self) -> Kind {
        kind(&self.0).unwrap_or(Kind::Service)
    }

    /// What stands before the kind.
    fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&*self.0, |(stem, _)| stem)
    }

    /// Stands for units with something after the `@`, and is none itself.
    pub fn is_template(&self) -> bool {
        self.stem().ends_with('@')
    }

    /// Whether a step may act on it. Whoever can choose the value in a step's `service` could otherwise choose
    /// `poweroff.target`.
    ///
    /// # Errors
    /// When no step may, with the reason.
    pub fn acted_on(&self) -> Result<(), NotActedOn> {
        let other = |what| Err(NotActedOn::Kind(self.clone(), what));
        match self.kind() {
            Kind::Target => return other("a state of the whole host"),
            Kind::Slice => return other("a part of the host's resources"),
            Kind::Scope => return other("a group of processes that others started"),
            Kind::Device => return other("a device of the kernel"),
            Kind::Service
            | Kind::Socket
            | Kind::Timer
            | Kind::Path
            | Kind::Mount
            | Kind::Automount
            | Kind::Swap => {}
        }
        if self.is_template() {
            return Err(NotActedOn::Template(self.clone(), self.0.replacen("@.", "@NAME.", 1)));
        }
        if WHOLE_HOST.contains(&self.stem()) {
            return Err(NotActedOn::WholeHost(self.clone()));
        }
        Ok(())
    }
}

/// Services that end or suspend the host when they start, or open it to whoever stands before it. The list is not whole:
/// any unit can do anything. It is what comes with systemd.
const WHOLE_HOST: [&str; 15] = [
    "systemd-poweroff",
    "systemd-reboot",
    "systemd-soft-reboot",
    "systemd-halt",
    "systemd-kexec",
    "kexec",
    "systemd-exit",
    "systemd-suspend",
    "systemd-hibernate",
    "systemd-hybrid-sleep",
    "systemd-suspend-then-hibernate",
    "rescue",
    "emergency",
    "debug-shell",
    "systemd-storagetm",
];

/// Whether a value may be part of a unit's name. systemd reads `\x3b` in an instance's name as any character and hands it to
/// the unit's commands; and `@` chooses among templates, some of which do something with whatever their instance is called
/// (`modprobe@`). `instances`: the runbook's author has written that it may.
///
/// # Errors
/// When it may not, with the reason.
pub(crate) fn in_name(value: &str, instances: bool) -> Result<(), &'static str> {
    if value.contains('\\') {
        return Err("a value in it has `\\`, which stands for any character there");
    }
    if value.contains('@') && !instances {
        return Err(
            "a value in it chooses an instance of a template; write the `@` outside of the value, or into the `pattern` of the input",
        );
    }
    Ok(())
}

fn kind(name: &str) -> Option<Kind> {
    let (_, end) = name.rsplit_once('.')?;
    Kind::ALL.iter().find(|(word, _)| *word == end).map(|(_, kind)| *kind)
}

impl FromStr for UnitName {
    type Err = NotAUnit;

    /// A name without a kind is a service's.
    fn from_str(text: &str) -> Result<UnitName, NotAUnit> {
        if text.is_empty() {
            return Err(NotAUnit::Empty);
        }
        if text.starts_with('-') {
            return Err(NotAUnit::LeadingDash);
        }
        let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if let Some(bad) = text.chars().find(|c| !good(*c)) {
            return Err(NotAUnit::Character(bad));
        }
        let name = if kind(text).is_some() { text.to_owned() } else { format!("{text}.service") };
        if name.len() > LONGEST {
            return Err(NotAUnit::TooLong(name.len()));
        }
        match name.chars().next() {
            Some(first @ ('@' | '.')) => Err(NotAUnit::NoPrefix(first)),
            Some(_) | None => Ok(UnitName(name)),
        }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UnitName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<UnitName, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> UnitName {
        text.parse().expect("it is a unit's name")
    }

    #[test]
    fn a_name_without_a_kind_is_a_services() {
        for (text, name) in [
            ("nginx", "nginx.service"),
            ("nginx.service", "nginx.service"),
            ("app.v2", "app.v2.service"),
            ("getty@tty1", "getty@tty1.service"),
            ("data.mount", "data.mount"),
            (r"dev-disk-by\x2dlabel.swap", r"dev-disk-by\x2dlabel.swap"),
        ] {
            assert_eq!(unit(text).as_str(), name);
        }
    }

    #[test]
    fn what_is_no_name_of_a_unit_is_told_apart() {
        for (text, why) in [
            ("", "it is empty"),
            ("--now", "it begins with `-`"),
            ("a b", "it has ` ` in it; a unit's name has letters, digits and `:-_.\\@`"),
            ("nginx;reboot", "it has `;` in it; a unit's name has letters, digits and `:-_.\\@`"),
            ("../x", "it has `/` in it; a unit's name has letters, digits and `:-_.\\@`"),
            ("a\nb", "it has `\\n` in it; a unit's name has letters, digits and `:-_.\\@`"),
            ("na*", "it has `*` in it; a unit's name has letters, digits and `:-_.\\@`"),
            ("ñginx", "it has `\\u{f1}` in it; a unit's name has letters, digits and `:-_.\\@`"),
            ("@tty1", "there is nothing before its `@`"),
            (".service", "there is nothing before its `.`"),
        ] {
            assert_eq!(text.parse::<UnitName>().expect_err(text).to_string(), why);
        }
        assert_eq!("x".repeat(300).parse::<UnitName>(), Err(NotAUnit::TooLong(308)));
    }

    #[test]
    fn a_step_acts_on_one_unit_and_never_on_the_whole_host() {
        for text in ["nginx", "app@1", "data.mount", "backup.timer", "docker.socket"] {
            assert_eq!(unit(text).acted_on(), Ok(()), "{text}");
        }
        for text in [
            "app@",
            "poweroff.target",
            "system.slice",
            "init.scope",
            "sda.device",
            "systemd-reboot",
            "rescue.service",
            "kexec",
            "systemd-storagetm.service",
        ] {
            assert!(unit(text).acted_on().is_err(), "{text}");
        }
        assert_eq!(
            unit("app@").acted_on().expect_err("a template").to_string(),
            "`app@.service` is a template: name one of its instances, such as `app@NAME.service`"
        );
    }
}
