//! What the two halves of the agent say to each other. They share nothing else, so that they can be two processes: `link`
//! speaks TLS and gRPC and never spawns; `works` verifies, journals and executes and never opens a socket.

use std::collections::BTreeMap;

use fettle_proto::v1;
use fettle_runbooks::id::{Digest, RunId};

/// From the connection to the works.
#[derive(Clone, Debug)]
pub enum ToWorks {
    /// Asks for a [`FromWorks::Greeting`], which is what `Hello` is made of.
    Greet,
    /// The controller welcomed us. Reports that it has not acknowledged are sent again, from `acked` on.
    Connected {
        /// This connection's epoch; durable on the host from now on.
        epoch: u64,
        /// Reports that may be under way unacknowledged.
        credits: u32,
        /// The last report that is durable with the controller.
        acked: u64,
    },
    /// The connection is gone. Nothing else changes: accepted work goes on, reports wait.
    Disconnected,
    /// Work. The digest is checked against the content here, not by the connection.
    Order {
        /// An encoded `v1::OrderContent`, verbatim.
        content: Vec<u8>,
        /// What the controller says its digest is.
        digest: Digest,
    },
    /// All reports up to this one are durable with the controller.
    Acked {
        /// The report's number.
        upto: u64,
    },
    /// Stop a run for good.
    Cancel {
        /// Which.
        run: RunId,
        /// For people.
        reason: String,
    },
    /// Begin nothing of a run that acts, or begin it again.
    Pause {
        /// Which.
        run: RunId,
        /// Whether it is paused from now on.
        on: bool,
        /// The controller's count of what it asked.
        count: u32,
    },
    /// A roster; taken when a root key signed it and it is not older than the one in force.
    Roster(v1::Signed),
    /// End the works: nothing new starts, what runs in shims keeps running.
    Stop,
}

/// From the works to the connection.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are reports")]
pub enum FromWorks {
    /// The answer to [`ToWorks::Greet`].
    Greeting(Greeting),
    /// Durable here and owed to the controller; at most `credits` are unacknowledged. Only sent while connected.
    Report(v1::Report),
}

/// What the works know of themselves; `Hello` without what the connection adds (protocol and version).
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    /// The highest epoch ever welcomed with; 0 at first.
    pub epoch_seen: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Names the journal.
    pub journal: String,
    /// The version of the roster in force; 0 for none.
    pub roster_version: u64,
    /// Runs that are paused here.
    pub paused: Vec<v1::PausedRun>,
    /// What this host cannot do, in words for people.
    pub missing: Vec<String>,
    /// The host's labels.
    pub labels: BTreeMap<String, String>,
}
