//! What the controller knows how to mend: the runbooks in force, and which of them a signal asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use fettle_proto::v1;
use fettle_runbooks::runbook::Runbook;

/// One runbook in force, with the exact bytes it was read from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As checked.
    pub runbook: Runbook,
    /// The exact bytes of the file.
    pub bytes: Arc<[u8]>,
    /// The reviewers' certificates found beside it, verbatim.
    pub certificates: Vec<v1::Signed>,
    /// Whether those certificates suffice under the roster in force.
    pub certified: bool,
}

/// The runbooks in force. Whoever reads the folder makes a new one whenever a file changed.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// By name.
    pub entries: BTreeMap<String, Arc<Entry>>,
    /// Files that are not in force, each with its problems, rendered for people.
    pub refused: BTreeMap<String, String>,
}
