//! What systemd says of one unit.

use std::collections::HashMap;

use fettle_runbooks::unit::Kind;
use zbus::{OwnedObjectPath, OwnedVariant};

use super::{JobId, No};

/// systemd's way of saying "not counted" and "never".
const NOT_COUNTED: u64 = u64::MAX;

/// Properties by their names.
#[derive(Debug, Default)]
pub(super) struct Properties(pub(super) HashMap<String, OwnedVariant>);

/// One unit, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its own name; what it was asked for by may be another one.
    pub(crate) id: String,
    /// All its names.
    pub(crate) names: Vec<String>,
    pub(crate) description: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub(crate) load_state: String,
    /// Why it could not be loaded.
    pub(crate) load_error: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub(crate) active_state: String,
    /// The same, finer: `running`, `dead`, `auto-restart` …
    pub(crate) sub_state: String,
    /// `enabled`, `disabled`, `static` …; empty when there is no file.
    pub(crate) unit_file_state: String,
    pub(crate) can_start: bool,
    pub(crate) can_stop: bool,
    pub(crate) can_reload: bool,
    /// When it was last to be started, a condition of it did not hold.
    pub(crate) condition_failed: bool,
    /// Names its last start; another one whenever systemd begins to start it.
    pub(crate) invocation: Vec<u8>,
    /// Microseconds of the monotonic clock at which it became active; 0: never.
    pub(crate) active_since_us: u64,
    /// What systemd was told to do with it and has not ended.
    pub(crate) job: Option<JobId>,
    /// Units that stop when it stops.
    pub(crate) stops: Vec<String>,
    /// Units that start, if they do not run, when it starts.
    pub(crate) starts: Vec<String>,
    /// Units that stop when it starts.
    pub(crate) conflicts: Vec<String>,
    /// Units that start it by themselves.
    pub(crate) triggered_by: Vec<String>,
    /// Why it is as it is: `success`, `exit-code`, `start-limit-hit` …; empty for kinds without.
    pub(crate) result: String,
    /// `simple`, `notify`, `oneshot` … of a service.
    pub(crate) service_type: String,
    pub(crate) main_pid: Option<u32>,
    /// How often systemd has started it again by itself.
    pub(crate) restarts: u32,
    /// How its last main process ended.
    pub(crate) last: Option<Last>,
    pub(crate) memory_bytes: Option<u64>,
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// With this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Unit {
    /// It runs, or is about to, or is about to again: whoever left it alone would find it running.
    pub(crate) fn runs(&self) -> bool {
        matches!(&*self.active_state, "active" | "reloading" | "refreshing" | "activating")
    }

    /// `active (running)`
    pub(crate) fn state(&self) -> String {
        format!("{} ({})", self.active_state, self.sub_state)
    }
}

/// The interface of a kind that says more than all units do.
pub(super) fn interface(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Service => "Service",
        Kind::Socket => "Socket",
        Kind::Timer => "Timer",
        Kind::Path => "Path",
        Kind::Mount => "Mount",
        Kind::Automount => "Automount",
        Kind::Swap => "Swap",
        Kind::Slice => "Slice",
        Kind::Scope => "Scope",
        Kind::Target | Kind::Device => return None,
    })
}

pub(super) fn read(general: &Properties, own: &Properties) -> Result<Unit, No> {
    let needed = |name: &str| {
        general.text(name).ok_or_else(|| No::Broken(format!("systemd said nothing of the unit's {name}")))
    };
    let code = own.number("ExecMainCode").unwrap_or(0);
    let status = own.number("ExecMainStatus").and_then(|status| i32::try_from(status).ok());
    Ok(Unit {
        id: needed("Id")?,
        names: general.texts("Names"),
        description: general.text("Description").unwrap_or_default(),
        load_state: needed("LoadState")?,
        load_error: general.second_text("LoadError"),
        active_state: needed("ActiveState")?,
        sub_state: needed("SubState")?,
        unit_file_state: general.text("UnitFileState").unwrap_or_default(),
        can_start: general.truth("CanStart"),
        can_stop: general.truth("CanStop"),
        can_reload: general.truth("CanReload"),
        condition_failed: !general.truth("ConditionResult")
            && general.natural("ConditionTimestampMonotonic").is_some_and(|at| at > 0),
        invocation: general.bytes("InvocationID"),
        active_since_us: general.natural("ActiveEnterTimestampMonotonic").unwrap_or(0),
        job: general.job(),
        stops: general.all(&["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"]),
        starts: general.all(&["Requires", "BindsTo", "Wants", "Upholds"]),
        conflicts: general.all(&["Conflicts", "ConflictedBy"]),
        triggered_by: general.texts("TriggeredBy"),
        result: own.text("Result").unwrap_or_default(),
        service_type: own.text("Type").unwrap_or_default(),
        main_pid: own.natural("MainPID").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        restarts: own.natural("NRestarts").and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        // CLD_EXITED, CLD_KILLED, CLD_DUMPED
        last: match (code, status) {
            (1, Some(status)) => Some(Last::Exit(status)),
            (2 | 3, Some(signal)) => Some(Last::Signal(signal)),
            _ => None,
        },
        memory_bytes: own.natural("MemoryCurrent").filter(|bytes| *bytes != NOT_COUNTED),
    })
}

impl Properties {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        String::try_from(self.0.get(name)?.clone()).ok()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.0.get(name).and_then(|value| Vec::<String>::try_from(value.clone()).ok()).unwrap_or_default()
    }

    fn all(&self, names: &[&str]) -> Vec<String> {
        names.iter().flat_map(|name| self.texts(name)).collect()
    }

    /// Its number; systemd says 0 where there is none.
    fn job(&self) -> Option<JobId> {
        let pair = <(u32, OwnedObjectPath)>::try_from(self.0.get("Job")?.clone()).ok()?;
        (pair.0 > 0).then_some(JobId(pair.0))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.get(name).and_then(|value| Vec::<u8>::try_from(value.clone()).ok()).unwrap_or_default()
    }

    /// Of a pair of texts.
    fn second_text(&self, name: &str) -> String {
        let pair = self.0.get(name).and_then(|value| <(String, String)>::try_from(value.clone()).ok());
        pair.map(|(_, text)| text).unwrap_or_default()
    }

    fn truth(&self, name: &str) -> bool {
        self.0.get(name).and_then(|value| bool::try_from(value.clone()).ok()).unwrap_or(false)
    }

    fn natural(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?.clone();
        u64::try_from(value.clone()).ok().or_else(|| u32::try_from(value).ok().map(u64::from))
    }

    fn number(&self, name: &str) -> Option<i64> {
        i32::try_from(self.0.get(name)?.clone()).ok().map(i64::from)
    }
}
