//! A cheap, cloneable way to talk to the coordinator. Channels stay inside.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use fettle_proto::signed::Roster;
use fettle_proto::v1;
use fettle_runbooks::detect::Monitoring;
use fettle_runbooks::id::{GateId, Host, RunId, SignalId};
use futures_util::Stream;
use prost::Message as _;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::follow::Earlier;
use super::gates::parse;
use super::halts::Halt;
use super::lately::{Asked, Over};
use super::people::{no_run, same_start, taken};
use crate::dispatch::Message;
use crate::model::row::HostRunRow;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::signal::Signal;
use crate::store::Record;
use crate::store::Store;
use crate::trigger::Library;
use crate::world::{At, World};

/// Who is signed in, proven by the token of [`Handle::session`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The person, by the roster.
    pub person: String,
    /// Until when.
    pub expires_at: At,
    /// By the roster in force now, not by the one at login.
    pub groups: Vec<String>,
    /// As `groups`: `start`, `approve`, `review`, `operate`.
    pub scopes: Vec<String>,
}

/// What became of one signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The signal it is recorded as; of a repetition, the first one's.
    pub signal: SignalId,
    /// False for a repetition.
    pub new: bool,
    /// The run it started, if any.
    pub run: Option<RunId>,
}

/// What a spent token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The host the token was bound to.
    pub host: Host,
    /// The labels the token was bound to.
    pub labels: BTreeMap<String, String>,
}

/// What identifies an agent's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCertificate {
    /// Serial number, hex.
    pub serial: String,
    /// Until when it is good.
    pub not_after: At,
}

/// How an agent's stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It said so.
    Goodbye(String),
    /// The stream broke; this says nothing about the host.
    Lost,
}

/// What a person found out about a step whose outcome was unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It took effect.
    Ran,
    /// It did not.
    DidNotRun,
    /// Whatever it did, it is to run again.
    RunAgain,
}

/// What a person says about a step whose outcome was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The step they looked at, by its path; refused when another one waits. Absent: whichever waits.
    pub path: Option<String>,
    /// What they found out.
    pub found: Found,
    /// How they know, for the record; not empty.
    pub reason: String,
}

/// The roster in force: the signed bytes, verified, and what they say.
#[derive(Clone, Debug)]
pub struct RosterInForce {
    /// Verbatim, as agents get it.
    pub signed: v1::Signed,
    /// What it says; a root key signed it.
    pub roster: Roster,
}

/// Everything that has happened to a run, then what happens next. Ends when the run has ended, or with
/// [`Problem::Unavailable`] when the watcher is too slow; it then watches again after the last number it saw.
pub type RunEvents = Pin<Box<dyn Stream<Item = Result<v1::RunEvent, Problem>> + Send>>;

/// Talks to the coordinator. Methods that change something return once the change is durable; queries read what is
/// durable and never wait for the coordinator.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) in_force: Arc<watch::Sender<InForce>>,
    pub(super) store: Arc<dyn Store>,
    pub(super) world: Arc<dyn World>,
    pub(super) live: broadcast::Sender<Arc<Live>>,
    pub(super) connected: Connected,
    /// The number of the last event that is known to be durable.
    pub(super) durable: Arc<AtomicU64>,
    pub(super) version: Arc<str>,
}

/// The hosts whose streams are open.
pub(super) type Connected = Arc<RwLock<BTreeSet<Host>>>;

/// What the files of Prometheus say, by source.
pub(crate) type Rules = Arc<BTreeMap<String, Arc<Monitoring>>>;

/// What is in force.
#[derive(Clone, Default)]
pub(super) struct InForce {
    pub(super) library: Arc<Library>,
    pub(super) policy: Arc<Policy>,
    pub(super) warnings: Vec<String>,
    /// The rules of each source whose onsets are learnt.
    pub(super) rules: Rules,
    pub(super) rule_warnings: Vec<String>,
    pub(super) roster: Option<Arc<RosterInForce>>,
}

/// What watchers hear.
pub(super) enum Live {
    /// Durable history.
    Happened(Vec<Record>),
    /// Output, as it comes.
    Output { host: Host, chunk: v1::OutputChunk },
}

/// What became of reports.
pub(crate) enum Taken {
    /// All up to this one are durable.
    Upto(u64),
    /// None was taken: what the store said of their runs no longer holds.
    AskAgain(Vec<v1::Report>),
}

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// Everything the coordinator can be asked to do.
pub(crate) enum Command {
    Signals {
        signals: Vec<Signal>,
        reply: Reply<Vec<Receipt>>,
    },
    TestSignals {
        signals: Vec<Signal>,
        reply: Reply<Vec<v1::Signal>>,
    },
    Start {
        session: Session,
        request: v1::StartRunRequest,
        /// The run that the start names.
        earlier: Option<Box<Earlier>>,
        /// The run that it starts, and the number of an event that was durable before the store was asked about it.
        asked: Option<(RunId, u64)>,
        /// None where what the store said no longer holds.
        reply: Reply<Option<v1::StartRunReply>>,
    },
    Decide {
        session: Session,
        request: v1::DecideRequest,
        reply: Reply<GateId>,
    },
    Cancel {
        session: Session,
        run: RunId,
        reason: String,
        reply: Reply<()>,
    },
    Halt {
        session: Session,
        halt: Halt,
        reply: Reply<()>,
    },
    Resolve {
        session: Session,
        run: RunId,
        host: Host,
        looked: Looked,
        reply: Reply<()>,
    },
    Challenge {
        person: String,
        reply: Reply<Vec<u8>>,
    },
    ForgetChallenge {
        challenge: Vec<u8>,
    },
    Answer {
        challenge: Vec<u8>,
        signed: v1::Signed,
        reply: Reply<v1::LoginSession>,
    },
    Session {
        token: String,
        reply: Reply<Session>,
    },
    CreateToken {
        session: Option<Session>,
        request: v1::CreateTokenRequest,
        reply: Reply<(String, At)>,
    },
    SpendToken {
        token: String,
        reply: Reply<Enrolment>,
    },
    Certified {
        host: Host,
        certificate: AgentCertificate,
        reply: Reply<()>,
    },
    Connected {
        host: Host,
        hello: Box<v1::Hello>,
        certificate: AgentCertificate,
        sender: mpsc::Sender<Message>,
        reply: Reply<v1::Welcome>,
    },
    Gone {
        host: Host,
        epoch: u64,
        how: Gone,
    },
    Reports {
        host: Host,
        epoch: u64,
        reports: Vec<v1::Report>,
        asked: Asked,
        reply: Reply<Taken>,
    },
    Revoke {
        session: Session,
        host: Host,
        reason: String,
        reply: Reply<bool>,
    },
}

/// Whether a host has carried out more of a run than is known of it.
fn went_on(known: &HostRunRow, told: &v1::ToldAgain) -> bool {
    let further = |order: v1::OrderContent| order.segment > known.machine.segment;
    known.told.is_none() && v1::OrderContent::decode(&told.order[..]).is_ok_and(further)
}

impl Handle {
    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| Problem::unavailable())?;
        answer.await.map_err(|_| Problem::unavailable())?
    }

    // --- sources ---

    /// Takes in what a source posted. Returns once all of it is durable, in the order given.
    pub async fn signal(&self, signals: Vec<Signal>) -> Result<Vec<Receipt>, Problem> {
        self.ask(|reply| Command::Signals { signals, reply }).await
    }

    /// What [`Handle::signal`] would do now, with the whole decision trail. Changes nothing.
    pub async fn test_signal(&self, signals: Vec<Signal>) -> Result<Vec<v1::Signal>, Problem> {
        self.ask(|reply| Command::TestSignals { signals, reply }).await
    }

    // --- people ---

    /// The bytes (format `login/1`) this person shall sign. Unknown persons get one too; the answer then fails.
    pub async fn challenge(&self, person: String) -> Result<Vec<u8>, Problem> {
        self.ask(|reply| Command::Challenge { person, reply }).await
    }

    /// Nobody will answer this challenge any more.
    pub async fn forget_challenge(&self, challenge: Vec<u8>) {
        // A coordinator that is not there has forgotten it already.
        let _ = self.commands.send(Command::ForgetChallenge { challenge }).await;
    }

    /// Opens a session for a correctly signed challenge. A challenge is good once.
    pub async fn answer(&self, challenge: Vec<u8>, signed: v1::Signed) -> Result<v1::LoginSession, Problem> {
        self.ask(|reply| Command::Answer { challenge, signed, reply }).await
    }

    /// Whose bearer token this is.
    pub async fn session(&self, token: String) -> Result<Session, Problem> {
        self.ask(|reply| Command::Session { token, reply }).await
    }

    /// Starts a run that a person signed for, which may go on from one that is over. The same start again gives the same run,
    /// `created` false.
    pub async fn start(
        &self,
        session: Session,
        request: v1::StartRunRequest,
    ) -> Result<v1::StartRunReply, Problem> {
        let signed = request.start.as_ref();
        let start = signed.and_then(|signed| fettle_proto::signed::Start::decode(&signed.bytes).ok());
        loop {
            let upto = self.durable.load(Ordering::Acquire);
            // The coordinator remembers only runs that have not ended.
            if let Some(start) = &start
                && start.person == session.person
                && let Some(known) = self.parts(start.run).await?
            {
                return match same_start(known.run.start.as_ref(), request.start.as_ref()) {
                    true => Ok(v1::StartRunReply { run: start.run.to_string(), created: false }),
                    false => Err(taken(start.run)),
                };
            }
            let earlier = match start.as_ref().and_then(|start| start.of.as_ref()) {
                Some(of) => Some(Box::new(self.earlier(of.run).await?)),
                None => None,
            };
            let asked = start.as_ref().map(|start| (start.run, upto));
            let (session, request) = (session.clone(), request.clone());
            let started =
                self.ask(|reply| Command::Start { session, request, earlier, asked, reply }).await?;
            if let Some(started) = started {
                return Ok(started);
            }
        }
    }

    /// Records one person's signed decision and returns the gate as it then stands.
    pub async fn decide(&self, session: Session, request: v1::DecideRequest) -> Result<v1::Gate, Problem> {
        // The coordinator remembers only gates of runs that have not ended.
        let known = self.gate(parse(&request.gate)?).await?;
        let again = known.decisions.iter().any(|decision| {
            decision.signed.as_ref().map(|signed| &signed.bytes)
                == request.approval.as_ref().map(|signed| &signed.bytes)
        });
        if again {
            return Ok(known);
        }
        if known.state != "open" {
            let message = format!("the gate is {}: {}", known.state, known.reason);
            return Err(Problem::conflict("gate-closed", message));
        }
        let gate = self.ask(|reply| Command::Decide { session, request, reply }).await?;
        self.gate(gate).await
    }

    /// Asks the hosts of a run to stop it. Needs the scope `operate`, or to be who started it.
    pub async fn cancel(&self, session: Session, run: RunId, reason: String) -> Result<(), Problem> {
        self.still_open(run).await?;
        self.ask(|reply| Command::Cancel { session, run, reason, reply }).await
    }

    /// Pauses a run, or lets it go on. Needs the scope `operate`, or to be who started it.
    pub async fn halt(&self, session: Session, halt: Halt) -> Result<(), Problem> {
        self.still_open(halt.run).await?;
        self.ask(|reply| Command::Halt { session, halt, reply }).await
    }

    /// Records what a person found out about a step whose outcome was unknown, or opens the gate at which people sign for it to
    /// run again. Needs the scope `operate`.
    pub async fn resolve(
        &self,
        session: Session,
        run: RunId,
        host: Host,
        looked: Looked,
    ) -> Result<(), Problem> {
        self.still_open(run).await?;
        self.ask(|reply| Command::Resolve { session, run, host, looked, reply }).await
    }

    /// Refuses what is asked of a run that is over or never was: the coordinator remembers only open ones.
    async fn still_open(&self, run: RunId) -> Result<(), Problem> {
        let known = self.parts(run).await?.ok_or_else(|| no_run(run))?;
        match known.run.ended_at {
            None => Ok(()),
            Some(at) => Err(Problem::conflict("run-ended", format!("{run} ended at {at}"))
                .next(&format!("fettle run show {run}"))),
        }
    }

    // --- agents ---

    /// A single-use enrolment token and until when it may be spent. Only its hash is kept. Without a session only for
    /// the controller's own command line on its own machine.
    pub async fn create_token(
        &self,
        session: Option<Session>,
        request: v1::CreateTokenRequest,
    ) -> Result<(String, At), Problem> {
        self.ask(|reply| Command::CreateToken { session, request, reply }).await
    }

    /// Spends a token: the second time it is refused.
    pub async fn spend_token(&self, token: String) -> Result<Enrolment, Problem> {
        self.ask(|reply| Command::SpendToken { token, reply }).await
    }

    /// Records the certificate just issued to a host. Call it before the certificate leaves.
    pub async fn certificate_issued(&self, host: Host, certificate: AgentCertificate) -> Result<(), Problem> {
        self.ask(|reply| Command::Certified { host, certificate, reply }).await
    }

    /// An agent said hello. The epoch of the answer is durable. Send the welcome before anything that arrives through
    /// `sender`: open orders follow at once. When the channel is full or dropped, the agent counts as gone; a newer
    /// connection of the same host ends the older one by dropping its sender.
    pub async fn agent_connected(
        &self,
        host: Host,
        hello: v1::Hello,
        certificate: AgentCertificate,
        sender: mpsc::Sender<Message>,
    ) -> Result<v1::Welcome, Problem> {
        let hello = Box::new(hello);
        self.ask(|reply| Command::Connected { host, hello, certificate, sender, reply }).await
    }

    /// A stream ended. Of an older epoch than the current one this changes nothing.
    pub async fn agent_gone(&self, host: Host, epoch: u64, how: Gone) {
        // A coordinator that is not there has nothing to update.
        let _ = self.commands.send(Command::Gone { host, epoch, how }).await;
    }

    /// Takes reports in. Returns the number up to which all are durable: acknowledge that. The same reports again
    /// change nothing.
    pub async fn reports(
        &self,
        host: Host,
        epoch: u64,
        mut reports: Vec<v1::Report>,
    ) -> Result<u64, Problem> {
        loop {
            let asked = self.asked(&host, &mut reports).await?;
            let (host, taking) = (host.clone(), reports);
            match self.ask(|reply| Command::Reports { host, epoch, reports: taking, asked, reply }).await? {
                Taken::Upto(upto) => return Ok(upto),
                Taken::AskAgain(again) => reports = again,
            }
        }
    }

    /// What the store says of the runs that a host tells of again; what it says of those that are over here is left out. The
    /// coordinator remembers only runs that have not ended, and must not take one that has for a stranger.
    async fn asked(&self, host: &Host, reports: &mut [v1::Report]) -> Result<Asked, Problem> {
        let mut asked = Asked { upto: self.durable.load(Ordering::Acquire), over: BTreeMap::new() };
        for report in reports {
            if let Some(v1::report::What::ToldAgain(told)) = &report.what
                && let Ok(run) = report.run.parse()
                && let Some(known) = self.parts(run).await?.filter(|known| known.run.ended_at.is_some())
            {
                let own = known.hosts.iter().find(|row| row.host == *host);
                // Only the host knows how its own part ended; that of another host says nothing of it, nor does what was
                // decided here before the host could tell that it had gone on.
                if own.is_some_and(|row| row.told != Some(false) && !went_on(row, told)) {
                    report.what = None;
                } else {
                    let told = own.is_some_and(|row| row.told != Some(false));
                    let ended_at = own.and_then(|row| row.ended_at);
                    asked.over.insert(run, Over { parts: known, told, ended_at });
                }
            }
        }
        Ok(asked)
    }

    /// Live output, for whoever watches. Never waits; dropped when nobody can take it.
    pub fn output(&self, host: Host, chunk: v1::OutputChunk) {
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(Arc::new(Live::Output { host, chunk }));
        }
    }

    /// Ends an agent: its certificate counts no more and its sender is dropped. True if it was connected.
    pub async fn revoke(&self, session: Session, host: Host, reason: String) -> Result<bool, Problem> {
        self.ask(|reply| Command::Revoke { session, host, reason, reply }).await
    }

    // --- what is in force ---

    /// Puts a library in force.
    pub async fn set_library(&self, library: Arc<Library>) {
        self.in_force.send_modify(|in_force| in_force.library = library);
    }

    /// Puts a policy in force; `warnings` name files that were refused, for `Status`.
    pub async fn set_policy(&self, policy: Arc<Policy>, warnings: Vec<String>) {
        self.in_force.send_modify(|in_force| {
            in_force.policy = policy;
            in_force.warnings = warnings;
        });
    }

    /// Puts rules in force, from which onsets are learnt; `warnings` name files that were refused, for `Status`.
    pub(crate) fn set_rules(&self, rules: Rules, warnings: Vec<String>) {
        self.in_force.send_modify(|in_force| {
            in_force.rules = rules;
            in_force.rule_warnings = warnings;
        });
    }

    /// Puts a verified roster in force; connected agents get it.
    pub async fn set_roster(&self, roster: Option<Arc<RosterInForce>>) {
        self.in_force.send_modify(|in_force| in_force.roster = roster);
    }

    // --- queries are in `query` ---

    /// The runbooks in force.
    pub fn library(&self) -> Arc<Library> {
        Arc::clone(&self.in_force.borrow().library)
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.in_force.borrow().policy)
    }

    /// The roster in force.
    pub fn roster(&self) -> Option<Arc<RosterInForce>> {
        self.in_force.borrow().roster.clone()
    }
}
