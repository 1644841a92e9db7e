//! The host's own veto: `policy.yaml`, which nobody can lift from afar.
//!
//! ```yaml
//! fettle-host-policy: 1
//! freeze: false                 # true: no step that acts runs here
//! deny:
//!   - runbook: "database/*"     # these runbooks do not act here …
//!   - risk_above: medium        # … nor any step above this risk
//!   - program: [reboot, /sbin/*]
//! ```
//!
//! It is asked when an order is accepted and again by the shim, just before a step starts. It binds steps that act;
//! reading is always allowed. A file that cannot be read or understood denies every step that acts: a veto must not
//! disappear through a typing error.

use std::path::Path;

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
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// A step that wants to run, as the veto sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The runbook's path in the library.
    pub runbook: &'a str,
    /// The step's risk.
    pub risk: Risk,
    /// The program it starts; empty for a step that starts none.
    pub program: &'a str,
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

impl HostPolicy {
    /// Reads `policy.yaml`. A file that is not there denies nothing.
    pub fn read(_path: &Path) -> HostPolicy {
        unimplemented!()
    }

    /// Whether a step may act here.
    ///
    /// # Errors
    /// When it may not, with the reason.
    pub fn allows(&self, _asked: Asked<'_>) -> Result<(), Veto> {
        unimplemented!()
    }
}
