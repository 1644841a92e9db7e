//! The things the controller keeps, each as one row of its table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fettle_proto::v1;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, GateId, Host, IncidentId, RunId, SignalId};
use fettle_runbooks::run::{HostRun, State, Wait};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::gate::Factor;
use crate::incident::Readings;
use crate::policy::Mode;
use crate::signal::{Signal, Verdict};
use crate::world::At;

/// Bytes kept exactly as they came, cheap to clone; base64 inside a row.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Bytes);

impl Blob {
    /// Keeps these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Blob {
        Blob(bytes.into())
    }

    /// Keeps a copy. What was decoded from a message shares the memory of the whole of it, for as long as any of it is kept.
    pub fn copied(bytes: &[u8]) -> Blob {
        Blob(Bytes::copy_from_slice(bytes))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same bytes, for a message.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(|bytes| Blob(bytes.into())).map_err(serde::de::Error::custom)
    }
}

/// Bytes somebody signed, with the signature, verbatim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBlob {
    /// What was signed.
    pub bytes: Blob,
    /// How.
    pub signature: Signature,
}

/// How bytes were signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// Not at all; every verifier refuses it.
    Missing,
    /// An armored SSHSIG.
    Sshsig(Blob),
    /// A WebAuthn assertion.
    Webauthn(Blob),
}

impl From<v1::Signed> for SignedBlob {
    fn from(signed: v1::Signed) -> Self {
        let signature = match signed.envelope.and_then(|envelope| envelope.signature) {
            None => Signature::Missing,
            Some(v1::envelope::Signature::Sshsig(text)) => Signature::Sshsig(Blob::new(text)),
            Some(v1::envelope::Signature::Webauthn(bytes)) => Signature::Webauthn(Blob::new(bytes)),
        };
        SignedBlob { bytes: Blob::new(signed.bytes), signature }
    }
}

impl From<&SignedBlob> for v1::Signed {
    fn from(signed: &SignedBlob) -> Self {
        let signature = match &signed.signature {
            Signature::Missing => None,
            Signature::Sshsig(text) => Some(v1::envelope::Signature::Sshsig(text.bytes())),
            Signature::Webauthn(bytes) => Some(v1::envelope::Signature::Webauthn(bytes.bytes())),
        };
        v1::Signed { bytes: signed.bytes.bytes(), envelope: Some(v1::Envelope { signature }) }
    }
}

/// One alert over all its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRow {
    /// Its id here.
    pub id: SignalId,
    /// As last received; `received_at` is the first delivery's.
    pub signal: Signal,
    /// Deliveries after the first that said nothing new.
    pub repeats: u32,
    /// When it was last said to fire.
    #[serde(default)]
    pub seen_at: Option<At>,
    /// Taken for a late message: when it is judged if nobody says by then that it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_until: Option<At>,
    /// The incident it belongs to.
    pub incident: Option<IncidentId>,
    /// The run it started.
    pub run: Option<RunId>,
    /// The enrolled host it is about, if a trigger resolved one.
    #[serde(default)]
    pub host: Option<Host>,
    /// Why what happened happened, and why the rest did not.
    pub trail: Vec<Verdict>,
}

/// What the organisation tracks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRow {
    /// Its id.
    pub id: IncidentId,
    /// What is grouped: `alert@host`, or a source's fingerprint where the host is not known.
    pub key: String,
    /// One line.
    pub title: String,
    /// The host, where it is known.
    pub host: Option<Host>,
    /// When it was opened.
    pub opened_at: At,
    /// When it was closed, and why.
    pub closed: Option<(At, String)>,
    /// All its signals, in order.
    pub signals: Vec<SignalId>,
    /// Those that still fire.
    pub firing: BTreeSet<SignalId>,
    /// Its runs, in order.
    pub runs: Vec<RunId>,
    /// What the three clocks are read from.
    pub readings: Readings,
    /// Whether a run of it may have changed a host.
    #[serde(default)]
    pub acted: bool,
    /// Its remediations the last of which did not help, by runbook and inputs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unhelped: BTreeSet<(String, String)>,
    /// When the symptom was verified gone last, whatever fired since.
    #[serde(default)]
    pub verified_at: Option<At>,
    /// The symptom was verified gone: when to look whether the alert agrees.
    #[serde(default)]
    pub look_again_at: Option<At>,
}

/// Who or what started a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A person, who signed for it.
    Person(String),
    /// An alert.
    Alert(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Person(name) => write!(f, "person {name}"),
            Origin::Alert(name) => write!(f, "alert {name}"),
        }
    }
}

/// The run that another goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Which.
    pub run: RunId,
    /// What is done with it.
    pub how: FollowUp,
    /// Why, in the words of who started the other; may be empty.
    pub reason: String,
}

/// One runbook started once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id, minted by whoever started it.
    pub id: RunId,
    /// The runbook's name.
    pub runbook: String,
    /// Digest of its exact bytes.
    pub runbook_digest: Digest,
    /// The bytes.
    pub source: Blob,
    /// The certificates at the start.
    pub certificates: Vec<SignedBlob>,
    /// Whether they sufficed.
    pub certified: bool,
    /// Inputs as given, by name.
    pub inputs: BTreeMap<String, String>,
    /// Who or what started it.
    pub origin: Origin,
    /// What a person signed to start it.
    pub start: Option<SignedBlob>,
    /// The incident it belongs to.
    pub incident: Option<IncidentId>,
    /// The signal that started it.
    pub signal: Option<SignalId>,
    /// How far it may go by itself.
    pub mode: Mode,
    /// Where it runs.
    pub hosts: Vec<Host>,
    /// When it was started.
    pub created_at: At,
    /// When its last host run ended.
    pub ended_at: Option<At>,
    /// The run that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Earlier>,
    /// What the content of every order of it begins with: the same for all its hosts, so that it is kept once.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub shared: Blob,
}

/// The plan of one host run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRow {
    /// Its exact bytes.
    pub bytes: Blob,
    /// Their digest.
    pub digest: Digest,
    /// What a grant spends.
    pub nonce: String,
    /// Steps that cannot be planned, each with the reason.
    pub impossible: BTreeMap<String, String>,
}

/// One run's part on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRunRow {
    /// The run.
    pub run: RunId,
    /// The host.
    pub host: Host,
    /// The runbook's name, for guards.
    pub runbook: String,
    /// Its inputs, in short, for guards.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Where it stands.
    pub machine: HostRun,
    /// Why it stands or ended there, for people.
    pub reason: String,
    /// Its plan.
    pub plan: Option<PlanRow>,
    /// Its latest gate.
    pub gate: Option<GateId>,
    /// When its remediation was let through the guards.
    pub remediated_at: Option<At>,
    /// When it ended.
    pub ended_at: Option<At>,
    /// The first of the runs that go on from one another, if it goes on from one: for guards they are one remediation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RunId>,
    /// What people found out about steps whose outcome nobody could tell: whether it ran, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<String, bool>,
    /// Of one that was taken in after a restore: whether its host has told of it, or only another host of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<bool>,
}

impl HostRunRow {
    /// Whether steps of it may still begin: it is not over, and nobody has cancelled it.
    pub fn goes_on(&self) -> bool {
        let cancelled = matches!(
            self.machine.state,
            State::Cancelling { .. } | State::Waiting(Wait::Resolve { cancelled: true, .. })
        );
        self.machine.ended().is_none() && !cancelled
    }
}

/// One attempt of one step, as last reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    /// The run.
    pub run: RunId,
    /// The host.
    pub host: Host,
    /// `phase/step[/iteration][/undo]`.
    pub path: String,
    /// Which attempt.
    pub attempt: u32,
    /// `running`, `succeeded`, `failed`, `timed-out`, `killed`, `unknown`, `not-started`, `skipped`.
    pub state: String,
    /// Why, for people.
    pub message: String,
    /// By the host's clock.
    pub started_at: Option<At>,
    /// By the host's clock.
    pub ended_at: Option<At>,
    /// When the process ended by itself.
    pub exit_code: Option<i32>,
    /// Values it left, as JSON texts.
    pub outputs: BTreeMap<String, String>,
    /// Head and tail of its output.
    pub stdout: KeptRow,
    /// Head and tail of its errors.
    pub stderr: KeptRow,
}

/// Head and tail of what a step wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRow {
    /// The beginning.
    pub head: Blob,
    /// The end.
    pub tail: Blob,
    /// Bytes between them that were not kept.
    pub dropped: u64,
}

/// Bytes of the head, and of the tail, beyond which nothing is kept. Agents send less.
const MOST_KEPT: usize = 64 * 1024;

impl From<v1::Kept> for KeptRow {
    fn from(kept: v1::Kept) -> Self {
        let (head, tail) = (kept.head.len().min(MOST_KEPT), kept.tail.len().min(MOST_KEPT));
        let cut = kept.head.len() + kept.tail.len() - head - tail;
        KeptRow {
            head: Blob::copied(&kept.head[..head]),
            tail: Blob::copied(&kept.tail[kept.tail.len() - tail..]),
            dropped: kept.dropped.saturating_add(cut as u64),
        }
    }
}

impl From<&KeptRow> for v1::Kept {
    fn from(kept: &KeptRow) -> Self {
        v1::Kept { head: kept.head.bytes(), tail: kept.tail.bytes(), dropped: kept.dropped }
    }
}

/// One order in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRow {
    /// The run.
    pub run: RunId,
    /// The host.
    pub host: Host,
    /// The segment's number.
    pub segment: u32,
    /// The exact bytes of the order's content, produced once; without those that its run's orders share, where `after_shared`.
    pub content: Blob,
    /// Whether what the run's orders share comes before these bytes. Earlier versions kept them whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_shared: bool,
    /// Digest of the whole content.
    pub digest: Digest,
    /// When it was issued.
    pub issued_at: At,
    /// After this the host refuses it.
    pub not_after: At,
    /// When the host took it on.
    pub accepted_at: Option<At>,
    /// When the segment was over, or the order not needed any more.
    pub closed_at: Option<At>,
}

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateState {
    /// It waits for people.
    Open,
    /// Enough people approved.
    Approved,
    /// Someone denied.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// It was not needed any more.
    Closed,
}

impl GateState {
    /// As people and messages write it.
    pub const fn word(self) -> &'static str {
        match self {
            GateState::Open => "open",
            GateState::Approved => "approved",
            GateState::Denied => "denied",
            GateState::Expired => "expired",
            GateState::Closed => "closed",
        }
    }
}

/// One host's place in a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The host.
    pub host: Host,
    /// Its plan.
    pub plan: Digest,
    /// The plan's nonce.
    pub nonce: String,
    /// The first step that waits.
    pub from: String,
}

/// One person's decision on one gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// Who.
    pub person: String,
    /// Approve, or deny.
    pub approves: bool,
    /// Why.
    pub reason: String,
    /// When it was received.
    pub at: At,
    /// What was signed.
    pub signed: SignedBlob,
}

/// A point where a run waits for people. Everything but its decisions and state is fixed when it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRow {
    /// Its id.
    pub id: GateId,
    /// The run.
    pub run: RunId,
    /// The incident, if the run has one.
    pub incident: Option<IncidentId>,
    /// The runbook's name.
    pub runbook: String,
    /// What approvals name the digest of.
    pub request: Blob,
    /// That digest.
    pub digest: Digest,
    /// The hosts, in the order of the tree's leaves.
    pub leaves: Vec<Leaf>,
    /// Who must approve.
    pub factors: Vec<Factor>,
    /// Persons who may not decide: the requester and the authors.
    pub excluded: BTreeMap<String, String>,
    /// When it was opened.
    pub opened_at: At,
    /// Until when people may decide.
    pub decide_by: At,
    /// Until when an approved plan must have begun.
    pub start_by: At,
    /// When to tell others that nobody has decided, and whom.
    pub escalate: Option<(At, Vec<String>)>,
    /// When that was done.
    pub escalated_at: Option<At>,
    /// How it stands.
    pub state: GateState,
    /// Why, when it is not open.
    pub reason: String,
    /// When it stopped being open.
    pub closed_at: Option<At>,
    /// What people decided.
    pub decisions: Vec<DecisionRow>,
}

/// A host's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// The host.
    pub host: Host,
    /// From its last hello, and above that from its token.
    pub labels: BTreeMap<String, String>,
    /// Those of its token, which no hello changes.
    #[serde(default)]
    pub bound: BTreeMap<String, String>,
    /// The last epoch given.
    pub epoch: u64,
    /// Whether that epoch's stream is open here.
    pub connected: bool,
    /// Software version.
    pub version: String,
    /// When it was last heard of.
    pub last_seen_at: At,
    /// Serial number of its newest certificate.
    pub serial: String,
    /// Until when that is good.
    pub not_after: At,
    /// When and why it was revoked.
    pub revoked: Option<(At, String)>,
    /// Certificates issued until then count no more, also after the host has joined anew.
    #[serde(default)]
    pub void_until: At,
    /// The version of the roster it trusts.
    pub roster_version: u64,
    /// What its host cannot do.
    pub missing: Vec<String>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// By journal: the last report that is durable here.
    pub acked: BTreeMap<String, u64>,
    /// The journal of the open stream.
    pub journal: String,
    /// How remediations of this host went lately, by runbook.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tallies: BTreeMap<String, Tally>,
    /// It may know what this store has lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Ahead>,
}

/// A host may know what a store that was put back from a backup does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Until then nothing of this host is given up for being late: it may have been done.
    pub until: At,
    /// Of so many runs that are not known here it may tell.
    pub runs: u32,
    /// Not 0: since it was last asked to tell all of it, some of that were not taken in, because too many are open.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Ahead {
    /// For so long a host has time to come back and tell.
    const TIME: Duration = Duration::from_secs(10 * 60);

    /// More runs than one host has in the day for which it remembers them.
    const RUNS: u32 = 10_000;

    /// A host that is found at this moment to be ahead.
    pub fn from(now: At) -> Ahead {
        Ahead { until: now.plus(Ahead::TIME), runs: Ahead::RUNS, missed: 0 }
    }

    /// When it was found to be.
    pub fn since(&self) -> At {
        self.until.minus(Ahead::TIME)
    }
}

/// How remediations of one runbook on one host went lately: what the breaker goes by, and what people were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Remediations in a row that did not help.
    pub failed: u32,
    /// When the last of them ended.
    #[serde(default)]
    pub failed_at: At,
    /// When, and in which incident, people were told that a guard refuses; until a remediation is let through again.
    pub told: Option<(At, Option<IncidentId>)>,
}

/// A single-use enrolment token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// The host it is bound to.
    pub host: Host,
    /// The labels it is bound to.
    pub labels: BTreeMap<String, String>,
    /// Until when it may be spent.
    pub expires_at: At,
    /// Who made it.
    pub by: String,
    /// When it was spent.
    pub spent_at: Option<At>,
}

/// A person's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// SHA-256 of the bearer token, hex.
    pub hash: String,
    /// Whose.
    pub person: String,
    /// Fingerprint of the key that signed for it; without that key in the roster the session is over.
    #[serde(default)]
    pub key: String,
    /// Until when.
    pub expires_at: At,
}

/// One notification on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRow {
    /// Counts up.
    pub id: u64,
    /// The exact body.
    pub body: String,
    /// When it was made.
    pub created_at: At,
    /// Deliveries tried.
    pub tries: u32,
    /// When to try next; absent once it is delivered or given up.
    pub next_at: Option<At>,
    /// What became of it, or why the last try failed.
    pub note: String,
}
