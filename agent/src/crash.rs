//! Points at which a test may kill the agent, a shim or a step of ours: before and after everything that is made durable.
//!
//! What becomes of a crash at each is said, and tried, by the table in `docs/crashes.md`.

use fettle_crash::Replaced;

pub(crate) use fettle_crash::point as crash_point;

/// The points of the agent.
pub const POINTS: &[&str] = &[
    "join.key-unsynced",
    "join.key-durable",
    "join.identity-unnamed",
    "join.identity-undurable",
    "join.identity-durable",
    RENEWAL.unsynced,
    RENEWAL.unnamed,
    RENEWAL.undurable,
    RENEWAL.durable,
    "attempts.undurable",
    "attempts.durable",
    CREATED.unsynced,
    CREATED.unnamed,
    CREATED.undurable,
    CREATED.durable,
    "journal.before-write",
    "journal.before-sync",
    "journal.after-sync",
    COMPACTED.unsynced,
    COMPACTED.unnamed,
    COMPACTED.undurable,
    COMPACTED.durable,
    "journal.compact.durable",
    "journal.cut.unsynced",
    "journal.cut.durable",
    "journal.aside.undurable",
    "journal.aside.durable",
    EPOCH.unsynced,
    EPOCH.unnamed,
    EPOCH.undurable,
    EPOCH.durable,
    ROSTER.unsynced,
    ROSTER.unnamed,
    ROSTER.undurable,
    ROSTER.durable,
    TOMBSTONE.unsynced,
    TOMBSTONE.unnamed,
    TOMBSTONE.undurable,
    TOMBSTONE.durable,
    "forget.unremoved",
    "forget.tombstone",
    "forget.undurable",
    "forget.durable",
    "attempt.before-prepare",
    "attempt.before-spawn",
    "attempt.after-spawn",
];

/// Bytes of the journal after which it is rewritten, where a test says that (`FETTLE_COMPACT_AT`): a story that fills
/// eight megabytes would be a long one. Builds without crash points do not look at it.
pub(crate) fn compact_at() -> Option<u64> {
    if !fettle_crash::POSSIBLE {
        return None;
    }
    std::env::var("FETTLE_COMPACT_AT").ok()?.parse().ok()
}

/// By how much later, in milliseconds, the agent takes it to be when it looks which runs are old, where a test says that
/// (`FETTLE_LATER_MS`): they are remembered for a day. Builds without crash points do not look at it.
pub(crate) fn later_ms() -> i64 {
    if !fettle_crash::POSSIBLE {
        return 0;
    }
    std::env::var("FETTLE_LATER_MS").ok().and_then(|later| later.parse().ok()).unwrap_or(0)
}

/// What a process of ours hands to the next in its environment: only what tests say of all of them.
pub(crate) fn told() -> Vec<(String, String)> {
    let told = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    let told = ["FETTLE_CRASH_AT", crate::works::clock::BOOT].into_iter().filter_map(told);
    told.filter(|_| fettle_crash::POSSIBLE).collect()
}

/// The points of a shim.
pub const SHIM_POINTS: &[&str] = &[
    "shim.born",
    "shim.before-started",
    "shim.started-unsynced",
    "shim.started-undurable",
    "shim.started",
    "shim.before-spawn",
    "shim.after-spawn",
    "shim.step-over",
    "shim.exit-unsynced",
    "shim.exit-unnamed",
    "shim.exit-undurable",
    "shim.exit-durable",
];

/// The points of a step that does something with a unit, which is this program too.
pub const STEP_POINTS: &[&str] = &[BEFORE.unsynced, BEFORE.unnamed, BEFORE.undurable, BEFORE.durable];

pub(crate) const RENEWAL: Replaced = Replaced {
    unsynced: "renewal.unsynced",
    unnamed: "renewal.unnamed",
    undurable: "renewal.undurable",
    durable: "renewal.durable",
};

pub(crate) const EPOCH: Replaced = Replaced {
    unsynced: "epoch.unsynced",
    unnamed: "epoch.unnamed",
    undurable: "epoch.undurable",
    durable: "epoch.durable",
};

pub(crate) const ROSTER: Replaced = Replaced {
    unsynced: "roster.unsynced",
    unnamed: "roster.unnamed",
    undurable: "roster.undurable",
    durable: "roster.durable",
};

pub(crate) const TOMBSTONE: Replaced = Replaced {
    unsynced: "tombstone.unsynced",
    unnamed: "tombstone.unnamed",
    undurable: "tombstone.undurable",
    durable: "tombstone.durable",
};

/// A journal that was not there.
pub(crate) const CREATED: Replaced = Replaced {
    unsynced: "journal.create.unsynced",
    unnamed: "journal.create.unnamed",
    undurable: "journal.create.undurable",
    durable: "journal.create.durable",
};

/// A journal that is written anew, with what is still needed.
pub(crate) const COMPACTED: Replaced = Replaced {
    unsynced: "journal.compact.unsynced",
    unnamed: "journal.compact.unnamed",
    undurable: "journal.compact.undurable",
    durable: "journal.compact.named",
};

/// How a unit was before its step.
pub(crate) const BEFORE: Replaced = Replaced {
    unsynced: "before.unsynced",
    unnamed: "before.unnamed",
    undurable: "before.undurable",
    durable: "before.durable",
};
