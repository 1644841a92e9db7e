//! People sign in, start runs and stop them.

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_proto::signed::login::verify_login;
use fettle_proto::signed::words::{from_ms, is_name};
use fettle_proto::signed::{self, Login, Namespace, Scope, Signed, Start, Tag};
use fettle_proto::{Refusal, v1};
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::input;
use fettle_runbooks::run::{Event, Resolution, State, Wait};
use sha2::{Digest as _, Sha256};

use super::desk::Desk;
use super::follow::Earlier;
use super::halts::{no_host_of, nothing_to_resolve};
use super::handle::{Found, Looked, Session};
use crate::model::Change;
use crate::model::row::{Origin, RunRow, SessionRow, SignedBlob};
use crate::policy::Mode;
use crate::problem::Problem;
use crate::run::{Beginning, begin};
use crate::world::At;

/// A challenge may be answered for so long.
const CHALLENGE_FOR: Duration = Duration::from_secs(120);

/// A session lasts so long.
const SESSION_FOR: Duration = Duration::from_secs(8 * 60 * 60);

/// Challenges kept at a time; the oldest go first, so that nobody can fill the memory.
const CHALLENGES: usize = 4096;

/// Challenges that were sent and not answered. Lost with a restart; whoever signs in then asks again.
#[derive(Debug, Default)]
pub(super) struct Challenges(BTreeMap<Vec<u8>, At>);

impl Challenges {
    fn put(&mut self, bytes: Vec<u8>, expires: At, now: At) {
        self.0.retain(|_, at| *at > now);
        while self.0.len() >= CHALLENGES {
            let Some(oldest) = self.0.iter().min_by_key(|(_, at)| **at).map(|(bytes, _)| bytes.clone())
            else {
                break;
            };
            self.0.remove(&oldest);
        }
        self.0.insert(bytes, expires);
    }

    pub(super) fn forget(&mut self, bytes: &[u8]) {
        self.0.remove(bytes);
    }
}

/// What is kept of a secret that somebody else holds.
pub(super) fn hash(secret: &str) -> String {
    signed::words::hex(&Sha256::digest(secret.as_bytes()))
}

fn sign_in(message: impl Into<String>) -> Problem {
    Problem::SignIn { message: message.into() }
}

fn refused(refusal: Refusal) -> Problem {
    Problem::not_allowed(refusal.code.as_str(), refusal.message)
}

impl Session {
    /// Refuses whoever does not have a scope.
    pub fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.iter().any(|have| have == scope.as_str()) {
            return Ok(());
        }
        let message =
            format!("`{}` does not have the scope `{}` in the roster in force", self.person, scope.as_str());
        Err(Problem::not_allowed("scope-missing", message))
    }
}

impl Desk<'_> {
    pub(super) fn challenge(&self, challenges: &mut Challenges, person: String) -> Result<Vec<u8>, Problem> {
        if !is_name(&person) {
            return Err(Problem::invalid("malformed", "this cannot be a person's name"));
        }
        let expires = self.now.plus(CHALLENGE_FOR);
        let challenge = self.world.secret();
        let login =
            Login { controller: self.root.to_owned(), challenge, person, expires: from_ms(expires.0) };
        let bytes = login.encode();
        challenges.put(bytes.clone(), expires, self.now);
        Ok(bytes)
    }

    pub(super) fn answer(
        &mut self,
        challenges: &mut Challenges,
        challenge: &[u8],
        answer: v1::Signed,
    ) -> Result<v1::LoginSession, Problem> {
        if challenges.0.remove(challenge).is_none_or(|expires| expires <= self.now) {
            return Err(sign_in("the challenge is not known here, or was answered before: ask for another"));
        }
        let roster = self.roster()?;
        let signed = Signed::try_from(answer).map_err(|error| sign_in(error.to_string()))?;
        let person = verify_login(challenge, &signed, &roster.roster, from_ms(self.now.0))
            .map_err(|refusal| sign_in(refusal.message))?;
        let token = format!("fts_{}", signed::words::hex(&self.world.secret()));
        let expires_at = self.now.plus(SESSION_FOR);
        let person = person.name.clone();
        let key = signed::envelope::signer(&signed, Namespace::Login)
            .map_err(|refusal| sign_in(refusal.message))?
            .fingerprint();
        self.change(Change::SessionOpened(SessionRow { hash: hash(&token), person, key, expires_at }));
        Ok(v1::LoginSession { token, expires_at: expires_at.0 })
    }

    pub(super) fn session(&self, token: &str) -> Result<Session, Problem> {
        let row = self.model.sessions.get(&hash(token)).filter(|row| row.expires_at > self.now);
        let row = row.ok_or_else(|| sign_in("the session is not known or is over: sign in again"))?;
        let roster = self.roster()?;
        roster.roster.in_force(from_ms(self.now.0)).map_err(|refusal| sign_in(refusal.message))?;
        let person = roster
            .roster
            .person(&row.person)
            .ok_or_else(|| sign_in(format!("`{}` is not in the roster in force", row.person)))?;
        if !person.keys.iter().any(|key| key.fingerprint() == row.key) {
            let message =
                format!("the key that `{}` signed in with is not in the roster in force", row.person);
            return Err(sign_in(message));
        }
        Ok(Session {
            person: row.person.clone(),
            expires_at: row.expires_at,
            groups: person.groups.iter().cloned().collect(),
            scopes: person.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        })
    }

    /// Starts what a person signed.
    pub(super) fn start(
        &mut self,
        session: &Session,
        request: v1::StartRunRequest,
        earlier: Option<&Earlier>,
    ) -> Result<v1::StartRunReply, Problem> {
        let roster = self.roster()?;
        let message = request.start.ok_or_else(|| Problem::invalid("start-missing", "no start was sent"))?;
        let signed = Signed::try_from(message.clone())
            .map_err(|error| Problem::invalid("signature-malformed", error.to_string()))?;
        let started = Start::verify(&signed, &roster.roster, from_ms(self.now.0)).map_err(refused)?;
        let start = started.start();
        if start.person != session.person {
            let message = format!("`{}` signed this, and `{}` is signed in", start.person, session.person);
            return Err(Problem::not_allowed("person-mismatch", message));
        }
        let reply = |created| v1::StartRunReply { run: start.run.to_string(), created };
        if let Some(known) = self.model.runs.get(&start.run) {
            let same = known.start.as_ref().is_some_and(|start| start.bytes.bytes() == message.bytes);
            return if same { Ok(reply(false)) } else { Err(taken(start.run)) };
        }
        if start.hosts.is_empty() {
            return Err(Problem::invalid("no-host", "a run needs at least one host"));
        }
        if let Some(host) = start.hosts.iter().find(|host| !self.enrolled(host)) {
            let revoked = self.model.agents.contains_key(host);
            let what = if revoked { "it is revoked" } else { "no such host is enrolled" };
            let problem = Problem::not_found(format!("host `{host}`: {what}"));
            return Err(match start.hosts.len() {
                1 => problem.next("fettle agent list"),
                _ => problem.fix("name the others with --host").next("fettle agent list"),
            });
        }
        let followed = self.follow(start, earlier)?;
        let source = match followed.as_ref().and_then(|followed| followed.source.clone()) {
            Some(source) => source,
            None => self.source(start, request.runbook)?,
        };
        input::bind(source.runbook.inputs(), &start.inputs).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Problem::invalid("bad-input", problems.join("; "))
        })?;
        let mode = match start.until {
            signed::Until::Plan => Mode::Diagnose,
            signed::Until::End => Mode::Auto,
        };
        let incident = followed.as_ref().and_then(|followed| followed.incident);
        let hosts: Vec<Host> = start.hosts.iter().cloned().collect();
        let (run, rows) = begin(Beginning {
            id: start.run,
            runbook: source.runbook.name(),
            digest: source.runbook.digest(),
            bytes: source.bytes.clone(),
            certificates: &source.certificates,
            certified: source.certified,
            inputs: start.inputs.clone(),
            origin: Origin::Person(start.person.clone()),
            start: Some(message),
            incident,
            signal: None,
            mode,
            hosts: hosts.clone(),
            of: followed.map(|followed| followed.of),
            now: self.now,
        });
        self.change(Change::RunCreated { run: Box::new(run), hosts: rows });
        if let Some(incident) = incident {
            self.change(Change::IncidentJoined { incident, signal: None, run: Some(start.run) });
        }
        for host in hosts {
            self.host_event(start.run, &host, Event::Started);
        }
        Ok(reply(true))
    }

    /// The runbook a start names: of the library, or the bytes that came along, which nobody certified.
    fn source(
        &self,
        start: &Start,
        given: bytes::Bytes,
    ) -> Result<std::sync::Arc<crate::trigger::Entry>, Problem> {
        let in_library = self.in_force.library.entries.get(&start.runbook);
        if let Some(entry) = in_library.filter(|entry| entry.runbook.digest() == start.runbook_digest) {
            return Ok(std::sync::Arc::clone(entry));
        }
        if given.is_empty() {
            return Err(match in_library {
                Some(entry) => {
                    let digest = entry.runbook.digest();
                    let message = format!(
                        "`{}` is {digest} in the library now, and another was signed for: look at it again",
                        start.runbook
                    );
                    Problem::conflict("runbook-changed", message)
                }
                None => Problem::not_found(format!("runbook `{}`", start.runbook)),
            });
        }
        if signed::digest(Tag::Runbook, &given) != start.runbook_digest {
            return Err(Problem::invalid("runbook-mismatch", "the runbook sent is not the one signed for"));
        }
        let read = fettle_runbooks::read(&given).map_err(|problems| {
            let all: Vec<String> = problems
                .iter()
                .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message))
                .collect();
            Problem::invalid("bad-runbook", all.join("\n"))
        })?;
        if read.runbook.name() != start.runbook {
            return Err(Problem::invalid(
                "runbook-mismatch",
                "the runbook sent has another name than the one signed for",
            ));
        }
        Ok(std::sync::Arc::new(crate::trigger::Entry {
            runbook: read.runbook,
            bytes: given,
            certificates: Vec::new(),
            certified: false,
        }))
    }

    /// Takes what a person found out about a step whose outcome was unknown.
    pub(super) fn resolve(
        &mut self,
        session: &Session,
        run: RunId,
        host: &Host,
        looked: Looked,
    ) -> Result<(), Problem> {
        session.may(Scope::Operate)?;
        let Looked { path: wanted, found, reason } = looked;
        if reason.trim().is_empty() {
            return Err(Problem::invalid("reason-missing", "say how you know: the record keeps it"));
        }
        if let Some(row) = self.model.runs.get(&run).filter(|row| !row.hosts.contains(host)) {
            return Err(no_host_of(row, host));
        }
        let state = self.model.host_runs.get(&(run, host.clone())).map(|row| &row.machine.state);
        let Some(State::Waiting(Wait::Resolve { path, .. })) = state else {
            return Err(nothing_to_resolve(run, host));
        };
        if let Some(wanted) = wanted.filter(|wanted| wanted != path) {
            let message = format!("{run} on {host} waits for somebody to look at {path}, not at {wanted}");
            return Err(
                Problem::conflict("nothing-to-resolve", message).next(&format!("fettle run show {run}"))
            );
        }
        let (resolution, ran) = match found {
            Found::Ran => (Resolution::Ran, true),
            Found::DidNotRun => (Resolution::DidNotRun, false),
            Found::RunAgain => return self.run_again(session, run, host, reason),
        };
        let (path, by) = (path.clone(), session.person.clone());
        self.change(Change::Resolved { run, host: host.clone(), path, ran, by, reason });
        self.host_event(run, host, Event::Resolved(resolution));
        Ok(())
    }

    /// A run that whoever asks may steer: it is theirs, or they operate.
    pub(super) fn steered(&self, session: &Session, run: RunId) -> Result<&RunRow, Problem> {
        let row = self
            .model
            .runs
            .get(&run)
            .ok_or_else(|| Problem::conflict("run-ended", format!("{run} has ended or never was")))?;
        if row.origin != Origin::Person(session.person.clone()) {
            let whose = match &row.origin {
                Origin::Person(person) => format!("ask `{person}`, who started it, or "),
                Origin::Alert(_) => "ask ".to_owned(),
            };
            session
                .may(Scope::Operate)
                .map_err(|problem| problem.fix(&format!("{whose}somebody with the scope `operate`")))?;
        }
        Ok(row)
    }

    /// Stops a run on all its hosts.
    pub(super) fn cancel(&mut self, session: &Session, run: RunId, reason: &str) -> Result<(), Problem> {
        let row = self.steered(session, run)?;
        let hosts = row.hosts.clone();
        let by = session.person.clone();
        self.change(Change::CancelAsked { run, by, reason: reason.to_owned() });
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let reason = format!("cancelled by {}{why}", session.person);
        for host in hosts {
            let open = self
                .model
                .host_runs
                .get(&(run, host.clone()))
                .is_some_and(|row| row.machine.ended().is_none());
            if open {
                self.host_event(run, &host, Event::CancelAsked { reason: reason.clone() });
            }
        }
        Ok(())
    }
}

/// A run that there is not.
pub(super) fn no_run(run: RunId) -> Problem {
    Problem::not_found(format!("run `{run}`")).next("fettle run list")
}

/// A run id that something else has.
pub(super) fn taken(run: RunId) -> Problem {
    Problem::conflict("run-exists", format!("{run} is another start's: mint a new id"))
}

/// Whether a run that is over was started by exactly this.
pub(super) fn same_start(known: Option<&SignedBlob>, given: Option<&v1::Signed>) -> bool {
    known.zip(given).is_some_and(|(known, given)| known.bytes.bytes() == given.bytes)
}
