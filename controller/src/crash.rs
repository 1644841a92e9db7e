//! Points at which a test may kill the controller: before and after everything that is made durable.
//!
//! What becomes of a crash at each is said, and tried, by the table in `docs/crashes.md`.

use fettle_crash::Replaced;

pub(crate) use fettle_crash::point as crash_point;

/// Every point there is.
pub const POINTS: &[&str] = &[
    "ca.unsynced",
    "ca.unnamed",
    "ca.undurable",
    "ca.durable",
    TRUST.unsynced,
    TRUST.unnamed,
    TRUST.undurable,
    TRUST.durable,
    CA_PEM.unsynced,
    CA_PEM.unnamed,
    CA_PEM.undurable,
    CA_PEM.durable,
    "store.before-create",
    "store.migrate-uncommitted",
    "store.migrated",
    "store.created",
    // Decided, not durable.
    "store.before-commit",
    // Durable, and nobody knows.
    "store.after-commit",
    // The coordinator knows, and has neither answered, acknowledged nor sent.
    "coordinator.before-effects",
    // All of that is done.
    "coordinator.after-effects",
    "backup.unsynced",
    "backup.unnamed",
    "backup.undurable",
    "backup.durable",
    "restore.unsynced",
    "restore.unnamed",
    "restore.before-kept",
    "restore.undurable",
    "restore.durable",
];

/// The trust bundle.
pub(crate) const TRUST: Replaced = Replaced {
    unsynced: "trust.unsynced",
    unnamed: "trust.unnamed",
    undurable: "trust.undurable",
    durable: "trust.durable",
};

/// The authority's certificate, for people and their programs.
pub(crate) const CA_PEM: Replaced = Replaced {
    unsynced: "ca-pem.unsynced",
    unnamed: "ca-pem.unnamed",
    undurable: "ca-pem.undurable",
    durable: "ca-pem.durable",
};
