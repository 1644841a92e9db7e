//! A person's way to the controller without the command line: for tests that ask hundreds of times.

use std::sync::Mutex;
use std::time::Duration;

use fettle::args::Global;
use fettle::client::{self, Operators};
use fettle::config::Context;
use fettle_proto::signed::{Approval, Decision, Namespace, Request, sign};
use fettle_proto::v1;
use jiff::Timestamp;
use tokio::runtime::Runtime;

use crate::Cluster;

/// One person who is signed in. Connects again whenever the controller was away.
pub struct Desk<'c> {
    cluster: &'c Cluster,
    person: &'static str,
    context: Context,
    runtime: Runtime,
    calls: Mutex<Option<Operators>>,
}

impl<'c> Desk<'c> {
    /// Sits down. The person must be signed in.
    pub fn of(cluster: &'c Cluster, person: &'static str) -> Desk<'c> {
        let config = cluster.path(&format!("people/{person}/config.yaml"));
        let global = Global { config: Some(config), ..Global::default() };
        let context = Context::new(&global).expect("the cluster wrote it");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Desk { cluster, person, context, runtime: runtime.expect("a runtime"), calls: Mutex::new(None) }
    }

    /// A host run as people see it.
    ///
    /// # Errors
    /// When nobody answers, in words.
    pub fn host_run(&self, run: &str) -> Result<v1::HostRun, String> {
        let asked = v1::GetRunRequest { run: run.to_owned() };
        let run = self.ask(async |calls| calls.get_run(asked).await)?;
        run.hosts.into_iter().next().ok_or_else(|| "a run without hosts".to_owned())
    }

    /// Approves what a gate asks for.
    ///
    /// # Errors
    /// When it is refused, or nobody answers, in words.
    pub fn approve(&self, gate: &str) -> Result<(), String> {
        let asked = v1::GetGateRequest { gate: gate.to_owned() };
        let seen = self.ask(async |calls| calls.get_gate(asked).await)?;
        let approval = Approval {
            request: Request::digest(&seen.request),
            decision: Decision::Approve,
            person: self.person.to_owned(),
            reason: "seen".to_owned(),
            at: Timestamp::now(),
        };
        let key = self.cluster.people.key(self.person);
        let signed = sign(key, Namespace::Approval, &approval.encode()).map_err(|error| error.to_string())?;
        let request = v1::DecideRequest { gate: gate.to_owned(), approval: Some(signed.into()) };
        self.ask(async |calls| calls.decide(request).await).map(drop)
    }

    /// Says whether the step that a host run waits for took effect.
    ///
    /// # Errors
    /// When it is refused, or nobody answers, in words.
    pub fn resolve(&self, run: &str, host: &str, path: &str, ran: bool) -> Result<(), String> {
        let request = v1::ResolveStepRequest {
            run: run.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            found: if ran { v1::Found::Ran } else { v1::Found::DidNotRun }.into(),
            reason: "looked".to_owned(),
        };
        self.ask(async |calls| calls.resolve_step(request).await).map(drop)
    }

    /// Asks for a run's end.
    ///
    /// # Errors
    /// When it is refused, or nobody answers, in words.
    pub fn cancel(&self, run: &str) -> Result<(), String> {
        let request = v1::CancelRunRequest { run: run.to_owned(), reason: "enough".to_owned() };
        self.ask(async |calls| calls.cancel_run(request).await).map(drop)
    }

    /// Whether the agent of a host is connected.
    pub fn is_connected(&self, host: &str) -> bool {
        let asked = v1::GetAgentRequest { host: host.to_owned() };
        self.ask(async |calls| calls.get_agent(asked).await).is_ok_and(|agent| agent.state == "connected")
    }

    fn ask<T>(
        &self,
        call: impl AsyncFnOnce(&mut Operators) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, String> {
        let mut kept = self.calls.lock().expect("nobody panics in here");
        self.runtime.block_on(async {
            let mut calls = match kept.take() {
                Some(calls) => calls,
                None => client::connect(&self.context).await.map_err(|error| error.to_string())?,
            };
            let answer = tokio::time::timeout(Duration::from_secs(10), call(&mut calls)).await;
            match answer {
                Ok(Ok(answer)) => {
                    *kept = Some(calls);
                    Ok(answer.into_inner())
                }
                Ok(Err(status)) => {
                    // The controller may be another process next time.
                    if status.code() != tonic::Code::Unavailable {
                        *kept = Some(calls);
                    }
                    Err(status.to_string())
                }
                Err(_) => Err("no answer in time".to_owned()),
            }
        })
    }
}
