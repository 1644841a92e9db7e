//! A run begins: its rows, as they are before anything has moved.

use std::collections::BTreeMap;

use fettle_proto::v1;
use fettle_runbooks::id::{Digest, Host, IncidentId, RunId, SignalId};
use fettle_runbooks::run::{HostRun, Until};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::model::row::{Blob, Earlier, HostRunRow, Origin, RunRow, SignedBlob};
use crate::policy::Mode;
use crate::world::At;

/// Everything a run is begun with.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// Minted by whoever starts it.
    pub id: RunId,
    /// The runbook's name.
    pub runbook: &'a str,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: bytes::Bytes,
    /// Its certificates.
    pub certificates: &'a [v1::Signed],
    /// Whether they suffice.
    pub certified: bool,
    /// As given.
    pub inputs: BTreeMap<String, String>,
    /// Who or what starts it.
    pub origin: Origin,
    /// What a person signed.
    pub start: Option<v1::Signed>,
    /// The incident.
    pub incident: Option<IncidentId>,
    /// The signal.
    pub signal: Option<SignalId>,
    /// How far by itself.
    pub mode: Mode,
    /// Where.
    pub hosts: Vec<Host>,
    /// What it goes on from, and the first of the runs that did so.
    pub of: Option<(Earlier, RunId)>,
    /// Now.
    pub now: At,
}

/// What tells runs of one runbook on one host apart: the inputs, in short. Nothing where there are none.
pub fn about(inputs: &BTreeMap<String, String>) -> String {
    if inputs.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    for text in inputs.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The rows of a run nothing of which has been sent.
pub fn begin(beginning: Beginning<'_>) -> (RunRow, Vec<HostRunRow>) {
    let until = match beginning.mode {
        Mode::Observe | Mode::Diagnose => Until::Plan,
        Mode::Approve | Mode::Auto => Until::End,
    };
    let about = about(&beginning.inputs);
    let hosts = beginning.hosts.iter().map(|host| HostRunRow {
        run: beginning.id,
        host: host.clone(),
        runbook: beginning.runbook.to_owned(),
        about: about.clone(),
        machine: HostRun::new(until),
        reason: String::new(),
        plan: None,
        gate: None,
        remediated_at: None,
        ended_at: None,
        root: beginning.of.as_ref().map(|(_, root)| *root),
        found: BTreeMap::new(),
        told: None,
    });
    let hosts = hosts.collect();
    let shared = v1::OrderContent {
        run: beginning.id.to_string(),
        runbook: beginning.bytes.clone(),
        certificates: beginning.certificates.to_vec(),
        inputs: beginning.inputs.clone().into_iter().collect(),
        start: beginning.start.clone(),
        ..v1::OrderContent::default()
    };
    let run = RunRow {
        id: beginning.id,
        runbook: beginning.runbook.to_owned(),
        runbook_digest: beginning.digest,
        source: Blob::new(beginning.bytes),
        certificates: beginning.certificates.iter().cloned().map(SignedBlob::from).collect(),
        certified: beginning.certified,
        inputs: beginning.inputs,
        origin: beginning.origin,
        start: beginning.start.map(SignedBlob::from),
        incident: beginning.incident,
        signal: beginning.signal,
        mode: beginning.mode,
        hosts: beginning.hosts,
        created_at: beginning.now,
        ended_at: None,
        of: beginning.of.map(|(of, _)| of),
        shared: Blob::new(shared.encode_to_vec()),
    };
    (run, hosts)
}
