//! What people's clients call: the `Operators` service.
//!
//! Every call but `Login` carries a bearer session in its metadata; what the session may do follows from the roster in
//! force now. This module checks who asks and reads what they sent; the coordinator decides.

mod door;
mod login;
mod refusal;
mod view;

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fettle_proto::signed::Trust;
use fettle_proto::v1;
use fettle_proto::v1::operators_server::OperatorsServer;
use fettle_runbooks::id::Host;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::accept::{Connections, Peer};
use crate::coordinator::{Found, Halt, Handle, Looked, Session};
use crate::http::Refusals;
use crate::library::Notices;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::signal::intake;
use crate::tasks::{TaskKind, Tasks};
use crate::world::World;
use door::Door;
use refusal::{invalid, no, parse};

/// The largest message a client may send: a runbook is at most 1 MiB.
const LARGEST: usize = 2 * 1024 * 1024;
/// How often it is looked whether a stream's session is still good.
const SESSION_AGAIN: Duration = Duration::from_secs(10);
/// Items of a list when the caller does not say, and at most.
const LIMITS: (u32, u32) = (50, 1000);
/// An enrolment token that does not say how long it is good.
const TOKEN_VALID: Duration = Duration::from_secs(3600);
/// How long one may be good at most.
const TOKEN_LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the service is made of.
#[derive(Clone)]
pub struct Parts {
    /// Decides.
    pub handle: Handle,
    /// The exact bytes of the trust bundle.
    pub trust: Bytes,
    /// Files that are not in force.
    pub notices: Notices,
    /// What sources posted in vain.
    pub refusals: Refusals,
    /// What is counted.
    pub metrics: Metrics,
    /// The live connections of agents, which a revocation ends.
    pub connections: Connections,
    /// Where its tasks go.
    pub tasks: Tasks,
    /// When a tested signal "arrived".
    pub world: Arc<dyn World>,
}

impl Parts {
    /// Takes the identity of a host away. In a task of its own, as whoever asked may hang up in between.
    pub(crate) async fn revoke(&self, session: Session, host: Host, reason: String) -> Result<bool, Problem> {
        // Before anything: what is refused voids nothing, whether or not the store answers.
        if reason.trim().is_empty() {
            return Err(Problem::invalid("reason-missing", "say why: the record keeps it"));
        }
        let (parts, (tell, told)) = (self.clone(), oneshot::channel());
        self.tasks.spawn(TaskKind::Revocation, async move {
            let revoked = parts.handle.revoke(session, host.clone(), reason).await;
            // Durable, or not known to be: the handshake refuses it too from now on, and what is open is closed.
            if matches!(revoked, Ok(_) | Err(Problem::Unavailable { .. })) {
                parts.connections.revoke(&host, parts.world.now());
            }
            let _ = tell.send(revoked);
        });
        told.await.unwrap_or_else(|_| Err(Problem::unavailable()))
    }
}

/// The service.
pub struct Operators {
    parts: Parts,
    door: Door,
}

/// The service, ready to be added to a server.
pub fn service(parts: Parts) -> OperatorsServer<Operators> {
    OperatorsServer::new(Operators { parts, door: Door::new() }).max_decoding_message_size(LARGEST)
}

/// What a call needs its caller to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Anybody who is signed in.
    Any,
    /// `start`
    Start,
    /// `approve`
    Approve,
    /// `operate`
    Operate,
}

impl Scope {
    const fn word(self) -> Option<&'static str> {
        match self {
            Scope::Any => None,
            Scope::Start => Some("start"),
            Scope::Approve => Some("approve"),
            Scope::Operate => Some("operate"),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Operators {
    /// Who calls, if they may.
    async fn caller<T>(&self, request: &Request<T>, needs: Scope) -> Result<Session, Status> {
        let token = refusal::bearer(request.metadata())?;
        let session = self.parts.handle.session(token).await.map_err(|problem| no(&problem))?;
        match needs.word() {
            Some(word) if !session.scopes.iter().any(|scope| scope == word) => {
                Err(refusal::scope(&session.person, word, &session.scopes))
            }
            Some(_) | None => Ok(session),
        }
    }

    /// Pauses a run, or lets it go on; on all its hosts, if none is named.
    async fn halt(
        &self,
        session: Session,
        run: &str,
        host: &str,
        on: bool,
        reason: String,
    ) -> Result<v1::Run, Status> {
        let run = parse(run)?;
        let host = if host.is_empty() { None } else { Some(parse(host)?) };
        let asked = self.parts.handle.halt(session, Halt { run, host, on, reason }).await;
        asked.map_err(|problem| no(&problem))?;
        self.parts.handle.run(run).await.map_err(|problem| no(&problem))
    }

    /// Checks the caller, does the work, and counts the answer.
    async fn answer<Q, T, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        needs: Scope,
        work: impl FnOnce(Session, Q) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let answer = match self.caller(&request, needs).await {
            Ok(session) => work(session, request.into_inner()).await,
            Err(status) => Err(status),
        };
        self.parts.metrics.called(method, answer.as_ref().err().map_or(Code::Ok, Status::code));
        answer.map(Response::new)
    }
}

/// Returns once a session is over: a stream that was opened with it shows no more then.
async fn signed_out(handle: Handle, token: String) {
    loop {
        tokio::time::sleep(SESSION_AGAIN).await;
        if let Err(Problem::SignIn { .. }) = handle.session(token.clone()).await {
            return;
        }
    }
}

fn limit(asked: u32) -> u32 {
    if asked == 0 { LIMITS.0 } else { asked.min(LIMITS.1) }
}

#[tonic::async_trait]
impl v1::operators_server::Operators for Operators {
    type LoginStream = Events<v1::LoginReply>;
    type WatchRunStream = Events<v1::RunEvent>;

    async fn login(&self, request: Request<Streaming<v1::LoginRequest>>) -> Answer<Self::LoginStream> {
        let peer = request.extensions().get::<Peer>();
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
        let Some(place) = self.door.enter(address) else {
            return Err(Status::resource_exhausted(
                "too many people are signing in at once\nnext: try again in a moment",
            ));
        };
        Ok(Response::new(login::start(&self.parts, request.into_inner(), place)))
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIReply> {
        self.answer("WhoAmI", request, Scope::Any, async |session, _| {
            Ok(v1::WhoAmIReply {
                person: session.person,
                groups: session.groups,
                scopes: session.scopes,
                expires_at: session.expires_at.0,
            })
        })
        .await
    }

    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Answer<v1::Status> {
        self.answer("GetStatus", request, Scope::Any, async |_, _| {
            let mut status = self.parts.handle.status().await.map_err(|problem| no(&problem))?;
            let refusals = {
                let now = self.parts.world.now();
                self.parts.refusals.sentences(&self.parts.handle.policy(), now)
            };
            for notice in self.parts.notices.get().into_iter().chain(refusals) {
                if !status.warnings.contains(&notice) {
                    status.warnings.push(notice);
                }
            }
            Ok(status)
        })
        .await
    }

    async fn start_run(&self, request: Request<v1::StartRunRequest>) -> Answer<v1::StartRunReply> {
        self.answer("StartRun", request, Scope::Start, async |session, request| {
            self.parts.handle.start(session, request).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Answer<v1::ListRunsReply> {
        self.answer("ListRuns", request, Scope::Any, async |_, mut filter| {
            filter.limit = limit(filter.limit);
            if !filter.before.is_empty() {
                parse::<fettle_runbooks::id::RunId>(&filter.before)?;
            }
            let runs = self.parts.handle.runs(filter).await.map_err(|problem| no(&problem))?;
            Ok(v1::ListRunsReply { runs })
        })
        .await
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Answer<v1::Run> {
        self.answer("GetRun", request, Scope::Any, async |_, request| {
            self.parts.handle.run(parse(&request.run)?).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn watch_run(&self, request: Request<v1::WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        let token = refusal::bearer(request.metadata());
        self.answer("WatchRun", request, Scope::Any, async |_, request| {
            let (run, token) = (parse(&request.run)?, token?);
            let events = self.parts.handle.watch(run, request.after).await.map_err(|problem| no(&problem))?;
            let stopping = self.parts.tasks.stopping();
            let handle = self.parts.handle.clone();
            let events = events
                .map(|event| event.map_err(|problem| no(&problem)))
                .take_until(async move { stopping.run_until_cancelled(signed_out(handle, token)).await });
            Ok(Box::pin(events) as Self::WatchRunStream)
        })
        .await
    }

    async fn get_logs(&self, request: Request<v1::GetLogsRequest>) -> Answer<v1::GetLogsReply> {
        self.answer("GetLogs", request, Scope::Any, async |_, request| {
            let run = parse(&request.run)?;
            let logs = self.parts.handle.logs(run, request.host, request.path).await;
            Ok(v1::GetLogsReply { steps: logs.map_err(|problem| no(&problem))? })
        })
        .await
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Answer<v1::Run> {
        // Whoever started a run may stop it; the coordinator asks everybody else for `operate`.
        self.answer("CancelRun", request, Scope::Any, async |session, request| {
            let run = parse(&request.run)?;
            let asked = self.parts.handle.cancel(session, run, request.reason).await;
            asked.map_err(|problem| no(&problem))?;
            self.parts.handle.run(run).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn pause_run(&self, request: Request<v1::PauseRunRequest>) -> Answer<v1::Run> {
        // As for cancelling.
        self.answer("PauseRun", request, Scope::Any, async |session, request| {
            let v1::PauseRunRequest { run, host, reason } = request;
            self.halt(session, &run, &host, true, reason).await
        })
        .await
    }

    async fn resume_run(&self, request: Request<v1::ResumeRunRequest>) -> Answer<v1::Run> {
        self.answer("ResumeRun", request, Scope::Any, async |session, request| {
            let v1::ResumeRunRequest { run, host } = request;
            self.halt(session, &run, &host, false, String::new()).await
        })
        .await
    }

    async fn resolve_step(&self, request: Request<v1::ResolveStepRequest>) -> Answer<v1::Run> {
        self.answer("ResolveStep", request, Scope::Operate, async |session, request| {
            let (run, host) = (parse(&request.run)?, parse(&request.host)?);
            let found = match request.found() {
                v1::Found::Ran => Found::Ran,
                v1::Found::DidNotRun => Found::DidNotRun,
                v1::Found::RunAgain => Found::RunAgain,
                v1::Found::Unspecified => {
                    return Err(invalid(
                        "it must be said whether the step ran",
                        "",
                        "say ran, did not run, or run again",
                    ));
                }
            };
            let path = Some(request.path).filter(|path| !path.is_empty());
            let looked = Looked { path, found, reason: request.reason };
            let done = self.parts.handle.resolve(session, run, host, looked).await;
            done.map_err(|problem| no(&problem))?;
            self.parts.handle.run(run).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn list_gates(&self, request: Request<v1::ListGatesRequest>) -> Answer<v1::ListGatesReply> {
        self.answer("ListGates", request, Scope::Any, async |_, request| {
            let gates = self.parts.handle.gates(request.open).await.map_err(|problem| no(&problem))?;
            Ok(v1::ListGatesReply { gates })
        })
        .await
    }

    async fn get_gate(&self, request: Request<v1::GetGateRequest>) -> Answer<v1::Gate> {
        self.answer("GetGate", request, Scope::Any, async |_, request| {
            self.parts.handle.gate(parse(&request.gate)?).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn decide(&self, request: Request<v1::DecideRequest>) -> Answer<v1::DecideReply> {
        self.answer("Decide", request, Scope::Approve, async |session, request| {
            parse::<fettle_runbooks::id::GateId>(&request.gate)?;
            let gate = self.parts.handle.decide(session, request).await.map_err(|problem| no(&problem))?;
            Ok(v1::DecideReply { gate: Some(gate) })
        })
        .await
    }

    async fn list_signals(&self, request: Request<v1::ListSignalsRequest>) -> Answer<v1::ListSignalsReply> {
        self.answer("ListSignals", request, Scope::Any, async |_, request| {
            let signals = self.parts.handle.signals(limit(request.limit)).await;
            Ok(v1::ListSignalsReply { signals: signals.map_err(|problem| no(&problem))? })
        })
        .await
    }

    async fn explain_signal(&self, request: Request<v1::ExplainSignalRequest>) -> Answer<v1::Signal> {
        self.answer("ExplainSignal", request, Scope::Any, async |_, request| {
            self.parts.handle.explain(parse(&request.signal)?).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn test_signal(&self, request: Request<v1::TestSignalRequest>) -> Answer<v1::TestSignalReply> {
        self.answer("TestSignal", request, Scope::Any, async |_, request| {
            if !self.parts.handle.policy().sources.contains_key(&request.source) {
                return Err(Status::not_found(format!(
                    "the policy names no source `{}`\nfix: add it under `sources:`, or name another with --source",
                    request.source.escape_debug()
                )));
            }
            let now = self.parts.world.now();
            let read = intake::read(&request.source, &request.body, now).map_err(|refused| {
                invalid("the body would be refused", &refused.why, &refused.fix)
            })?;
            let signals = self.parts.handle.test_signal(read.signals).await.map_err(|problem| no(&problem))?;
            Ok(v1::TestSignalReply { signals })
        })
        .await
    }

    async fn list_incidents(
        &self,
        request: Request<v1::ListIncidentsRequest>,
    ) -> Answer<v1::ListIncidentsReply> {
        self.answer("ListIncidents", request, Scope::Any, async |_, request| {
            let incidents = self.parts.handle.incidents(request.open, limit(request.limit)).await;
            Ok(v1::ListIncidentsReply { incidents: incidents.map_err(|problem| no(&problem))? })
        })
        .await
    }

    async fn get_incident(&self, request: Request<v1::GetIncidentRequest>) -> Answer<v1::Incident> {
        self.answer("GetIncident", request, Scope::Any, async |_, request| {
            self.parts.handle.incident(parse(&request.incident)?).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn list_agents(&self, request: Request<v1::ListAgentsRequest>) -> Answer<v1::ListAgentsReply> {
        self.answer("ListAgents", request, Scope::Any, async |_, _| {
            let agents = self.parts.handle.agents().await.map_err(|problem| no(&problem))?;
            Ok(v1::ListAgentsReply { agents })
        })
        .await
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Answer<v1::Agent> {
        self.answer("GetAgent", request, Scope::Any, async |_, request| {
            self.parts.handle.agent(parse(&request.host)?).await.map_err(|problem| no(&problem))
        })
        .await
    }

    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> Answer<v1::CreateTokenReply> {
        self.answer("CreateToken", request, Scope::Operate, async |session, mut request| {
            parse::<Host>(&request.host)?;
            if request.valid_ms == 0 {
                request.valid_ms = u64::try_from(TOKEN_VALID.as_millis()).unwrap_or(u64::MAX);
            }
            if u128::from(request.valid_ms) > TOKEN_LONGEST.as_millis() {
                return Err(invalid("a token is valid for at most 7 days", "", "ask for a shorter time"));
            }
            let (token, expires) = self
                .parts
                .handle
                .create_token(Some(session), request)
                .await
                .map_err(|problem| no(&problem))?;
            let root = Trust::fingerprint(&self.parts.trust).to_string();
            Ok(v1::CreateTokenReply { token, expires_at: expires.0, root })
        })
        .await
    }

    async fn revoke_agent(&self, request: Request<v1::RevokeAgentRequest>) -> Answer<v1::RevokeAgentReply> {
        self.answer("RevokeAgent", request, Scope::Operate, async |session, request| {
            let host: Host = parse(&request.host)?;
            let revoked = self.parts.revoke(session, host, request.reason).await;
            let was_connected = revoked.map_err(|problem| no(&problem))?;
            Ok(v1::RevokeAgentReply { was_connected })
        })
        .await
    }

    async fn list_runbooks(
        &self,
        request: Request<v1::ListRunbooksRequest>,
    ) -> Answer<v1::ListRunbooksReply> {
        self.answer("ListRunbooks", request, Scope::Any, async |_, _| {
            let (library, policy) = (self.parts.handle.library(), self.parts.handle.policy());
            let runbooks = library.entries.values().map(|entry| view::listed(entry, &policy)).collect();
            let refused = library.refused.iter().map(|(file, why)| (file.clone(), why.clone())).collect();
            Ok(v1::ListRunbooksReply { runbooks, refused })
        })
        .await
    }

    async fn get_runbook(&self, request: Request<v1::GetRunbookRequest>) -> Answer<v1::Runbook> {
        self.answer("GetRunbook", request, Scope::Any, async |_, request| {
            let (library, policy) = (self.parts.handle.library(), self.parts.handle.policy());
            match library.entries.get(&request.runbook) {
                Some(entry) => Ok(view::whole(entry, &policy)),
                None => Err(refusal::no_runbook(&request.runbook, &library)),
            }
        })
        .await
    }

    async fn get_roster(&self, request: Request<v1::GetRosterRequest>) -> Answer<v1::Roster> {
        self.answer("GetRoster", request, Scope::Any, async |_, _| match self.parts.handle.roster() {
            Some(roster) => Ok(v1::Roster { roster: Some(roster.signed.clone()) }),
            None => Err(Status::not_found("no roster is in force\nnext: fettle status")),
        })
        .await
    }
}
