//! A controller on a real store, a clock that stands still, people with real keys, and a host that follows a script.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fettle_proto::grant::{self, Grant, GrantInput};
use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{
    self, Approval, Certificate, Decision, Namespace, Person, PrivateKey, Roster, Scope, Signed, Tag,
};
use fettle_proto::v1;
use fettle_runbooks::expr::Scope as Values;
use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use fettle_runbooks::plan::{self, Plan};
use fettle_runbooks::value::Value;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{AgentCertificate, Gone, Handle, RosterInForce, Session, Setup, new};
use crate::dispatch::Message;
use crate::metrics::Metrics;
use crate::model::row::{AgentRow, GateRow, IncidentRow, SignalRow};
use crate::model::{Model, Row};
use crate::notify::{Deliver, Delivery};
use crate::policy::{Glob, Mode, ModeRule, Notify, Policy};
use crate::signal::{Signal, Status};
use crate::store::backup::backup;
use crate::store::restore::restore;
use crate::store::{
    Of, Record, RunFilter, RunParts, Sqlite, Store, Ticket, Transaction, Unavailable, check_fold,
};
use crate::trigger::{Entry, Library};
use crate::world::{At, World};

pub(super) const BOOT: &str = "boot-1";
pub(super) const MINUTE: i64 = 60_000;
const RUNBOOK: &[u8] = include_bytes!("disk-full.yaml");

/// A clock that moves only when told to.
pub(super) struct Still(watch::Sender<At>);

impl World for Still {
    fn now(&self) -> At {
        *self.0.borrow()
    }
    fn sleep_until(&self, at: At) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut clock = self.0.subscribe();
        Box::pin(async move {
            if clock.wait_for(|now| *now >= at).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
    fn uuid(&self) -> uuid::Uuid {
        uuid::Uuid::now_v7()
    }
    fn secret(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("random bytes");
        bytes
    }
}

/// A store whose next commit does not answer, though it may take effect.
pub(super) struct Faulty {
    inner: Sqlite,
    fault: Arc<Mutex<Option<bool>>>,
}

impl Store for Faulty {
    fn commit(&self, transaction: Transaction) -> Ticket {
        match self.fault.lock().unwrap().take() {
            None => self.inner.commit(transaction),
            Some(took_effect) => {
                if took_effect {
                    let mut ticket = self.inner.commit(transaction);
                    while matches!(ticket.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)) {
                        std::thread::yield_now();
                    }
                }
                tokio::sync::oneshot::channel().1
            }
        }
    }
    fn load(&self, since: At) -> Result<Model, Unavailable> {
        self.inner.load(since)
    }
    fn runs(&self, filter: &RunFilter) -> Result<Vec<RunParts>, Unavailable> {
        self.inner.runs(filter)
    }
    fn run(&self, run: RunId) -> Result<Option<RunParts>, Unavailable> {
        self.inner.run(run)
    }
    fn follow_ups(&self, run: RunId) -> Result<Vec<RunParts>, Unavailable> {
        self.inner.follow_ups(run)
    }
    fn gates(&self, open: bool, limit: usize) -> Result<Vec<GateRow>, Unavailable> {
        self.inner.gates(open, limit)
    }
    fn gate(&self, gate: GateId) -> Result<Option<GateRow>, Unavailable> {
        self.inner.gate(gate)
    }
    fn signals(&self, limit: usize) -> Result<Vec<SignalRow>, Unavailable> {
        self.inner.signals(limit)
    }
    fn signal(&self, signal: SignalId) -> Result<Option<SignalRow>, Unavailable> {
        self.inner.signal(signal)
    }
    fn incidents(&self, open: bool, limit: usize) -> Result<Vec<IncidentRow>, Unavailable> {
        self.inner.incidents(open, limit)
    }
    fn incident(&self, incident: IncidentId) -> Result<Option<IncidentRow>, Unavailable> {
        self.inner.incident(incident)
    }
    fn agents(&self) -> Result<Vec<AgentRow>, Unavailable> {
        self.inner.agents()
    }
    fn agent(&self, host: &Host) -> Result<Option<AgentRow>, Unavailable> {
        self.inner.agent(host)
    }
    fn history(&self, of: Of, after: u64, limit: usize) -> Result<Vec<Record>, Unavailable> {
        self.inner.history(of, after, limit)
    }
    fn rows(&self) -> Result<Vec<Row>, Unavailable> {
        self.inner.rows()
    }
}

/// A receiver of notifications that remembers, and fails as often as it is told to.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) bodies: Mutex<Vec<serde_json::Value>>,
    pub(super) failures: Mutex<u32>,
}

impl Deliver for Inbox {
    fn deliver(&self, _to: &Notify, body: String) -> Delivery {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Box::pin(async { Err("not now".to_owned()) });
        }
        self.bodies.lock().unwrap().push(serde_json::from_str(&body).expect("a notification is JSON"));
        Box::pin(async { Ok(()) })
    }
}

impl Inbox {
    pub(super) fn kinds(&self) -> Vec<String> {
        self.bodies.lock().unwrap().iter().map(|body| body["kind"].as_str().unwrap().to_owned()).collect()
    }
}

pub(super) fn key(person: &str) -> PrivateKey {
    let mut seed = [7; 32];
    seed[..person.len()].copy_from_slice(person.as_bytes());
    PrivateKey::from_seed(seed, person)
}

pub(super) fn roster() -> Roster {
    let person = |name: &str, scopes: &[Scope]| Person {
        name: name.to_owned(),
        keys: vec![key(name).public()],
        groups: BTreeSet::new(),
        scopes: scopes.iter().copied().collect(),
    };
    Roster {
        version: 1,
        expires: from_ms(1000 * 24 * 60 * MINUTE),
        persons: vec![
            person("ana", &[Scope::Approve, Scope::Start]),
            person("ben", &[Scope::Approve, Scope::Operate]),
            person("eva", &[Scope::Review]),
        ],
        rules: Vec::new(),
        reviewers_needed: 1,
    }
}

fn certificate() -> Signed {
    let certificate = Certificate {
        runbook: "host/disk-full".to_owned(),
        runbook_digest: signed::digest(Tag::Runbook, RUNBOOK),
        author: "olga".to_owned(),
        reviewer: "eva".to_owned(),
        at: from_ms(0),
    };
    signed::sign(&key("eva"), Namespace::Runbook, &certificate.encode()).expect("eva signs")
}

pub(super) fn host() -> Host {
    "web-1".parse().unwrap()
}

/// A controller that can be stopped and started again on the same store.
pub(super) struct Bench {
    pub(super) directory: tempfile::TempDir,
    pub(super) clock: Arc<Still>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) mode: Mode,
    /// Set, the next commit does not answer; whether it takes effect.
    pub(super) fault: Arc<Mutex<Option<bool>>>,
    pub(super) handle: Handle,
    pub(super) metrics: Metrics,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Bench {
    pub(super) async fn new(mode: Mode) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Still(watch::channel(At(1_000_000)).0));
        let inbox = Arc::new(Inbox::default());
        let (fault, metrics) = (Arc::default(), Metrics::new());
        let (handle, stop, task) = start(directory.path(), &clock, &inbox, mode, &fault, &metrics).await;
        let task = Some(task);
        let bench = Bench { directory, clock, inbox, mode, fault, handle, metrics, stop, task };
        let request = v1::CreateTokenRequest { host: "web-1".into(), ..Default::default() };
        let (token, _) = bench.handle.create_token(None, request).await.unwrap();
        bench.handle.spend_token(token).await.unwrap();
        bench
    }

    /// Kills the controller and starts another on what it left.
    pub(super) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    async fn start(&mut self) {
        let (handle, stop, task) =
            start(self.directory.path(), &self.clock, &self.inbox, self.mode, &self.fault, &self.metrics)
                .await;
        (self.handle, self.stop, self.task) = (handle, stop, Some(task));
    }

    /// Kills the controller, puts its store in place of itself as if it were a backup, and starts another.
    pub(super) async fn restore(&mut self) {
        self.stop().await;
        let copy = self.directory.path().join("copy.db");
        backup(self.directory.path(), &copy).unwrap();
        restore(self.directory.path(), &copy, self.clock.now(), None).unwrap();
        self.start().await;
    }

    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
        // The store is closed when nobody holds it any more.
        let (commands, _) = mpsc::channel(1);
        self.handle.commands = commands;
        self.handle.store = Arc::new(Sqlite::open(&self.directory.path().join("unused")).unwrap());
    }

    /// Stops, and holds history and tables against each other.
    pub(super) async fn check(mut self) {
        self.stop().await;
        let store = Sqlite::open(self.directory.path()).unwrap();
        assert_eq!(check_fold(&store).unwrap(), []);
    }

    pub(super) fn pass(&self, ms: i64) {
        self.clock.0.send_modify(|now| now.0 += ms);
    }

    pub(super) async fn signal(&self, status: Status) -> Vec<super::super::Receipt> {
        self.handle.signal(vec![self.alert(status, "f1")]).await.unwrap()
    }

    pub(super) fn alert(&self, status: Status, fingerprint: &str) -> Signal {
        let labels = [
            ("alertname", "NodeFilesystemAlmostOutOfSpace"),
            ("instance", "web-1:9100"),
            ("mountpoint", "/var"),
            ("fstype", "ext4"),
        ];
        Signal {
            source: "prod".into(),
            fingerprint: fingerprint.into(),
            status,
            name: "NodeFilesystemAlmostOutOfSpace".into(),
            labels: labels.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            annotations: BTreeMap::new(),
            starts_at: Some(At(990_000)),
            ends_at: None,
            received_at: self.clock.now(),
            remarks: Vec::new(),
        }
    }

    pub(super) fn session(&self, person: &str) -> Session {
        let roster = roster();
        let known = roster.person(person).unwrap();
        Session {
            person: person.to_owned(),
            expires_at: At(i64::MAX),
            groups: Vec::new(),
            scopes: known.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        }
    }

    /// The run of everything, which there is one of.
    pub(super) async fn run(&self) -> v1::Run {
        let runs = self.handle.runs(v1::ListRunsRequest::default()).await.unwrap();
        let id: RunId = runs.first().expect("there is a run").id.parse().unwrap();
        self.handle.run(id).await.unwrap()
    }

    pub(super) async fn state(&self) -> String {
        let run = self.run().await;
        let host = &run.hosts[0];
        [&host.state, &host.waiting_for, &host.ending].map(String::as_str).join(" ").trim().to_owned()
    }

    /// Waits until the run stands so; on a timeout tells where it stood last.
    pub(super) async fn until(&self, expected: &str) {
        let mut last = String::new();
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            last = self.state().await;
            if last.split_whitespace().collect::<Vec<_>>().join(" ") == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("still not `{expected}`, but `{last}`: {:?}", self.run().await.hosts[0].reason);
    }

    pub(super) async fn gate(&self) -> v1::Gate {
        let gate: GateId = self.run().await.hosts[0].gate.parse().unwrap();
        self.handle.gate(gate).await.unwrap()
    }

    pub(super) async fn decide(
        &self,
        person: &str,
        decision: Decision,
    ) -> Result<v1::Gate, crate::problem::Problem> {
        let gate = self.gate().await;
        let approval = Approval {
            request: signed::Request::digest(&gate.request),
            decision,
            person: person.to_owned(),
            reason: "looks right".to_owned(),
            at: from_ms(self.clock.now().0),
        };
        let approval = signed::sign(&key(person), Namespace::Approval, &approval.encode()).unwrap();
        let request = v1::DecideRequest { gate: gate.id, approval: Some(approval.into()) };
        self.handle.decide(self.session(person), request).await
    }
}

/// For so long a test waits for what is to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until it is so, or for as long as a test waits.
pub(super) async fn eventually(is_so: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_so() && Instant::now() < limit {
        tokio::task::spawn_blocking(|| ()).await.expect("a thread");
    }
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task and waits for it")]
async fn start(
    directory: &Path,
    clock: &Arc<Still>,
    inbox: &Arc<Inbox>,
    mode: Mode,
    fault: &Arc<Mutex<Option<bool>>>,
    metrics: &Metrics,
) -> (Handle, CancellationToken, JoinHandle<()>) {
    let mut opened = Sqlite::open(directory);
    let limit = Instant::now() + PATIENCE;
    while opened.is_err() && Instant::now() < limit {
        // A blocking read of the one before may still hold the lock.
        tokio::task::spawn_blocking(|| ()).await.expect("a thread");
        opened = Sqlite::open(directory);
    }
    let stop = CancellationToken::new();
    let setup = Setup {
        store: Arc::new(Faulty { inner: opened.expect("the store opens"), fault: Arc::clone(fault) }),
        world: Arc::clone(clock) as Arc<dyn World>,
        deliver: Arc::clone(inbox) as Arc<dyn Deliver>,
        root: "sha256:0".into(),
        version: "test".into(),
        metrics: metrics.clone(),
    };
    let (handle, life) = new(setup, stop.clone());
    let task = tokio::spawn(async move { life.await.expect("it lives") });
    let read = fettle_runbooks::read(RUNBOOK).expect("the shipped runbook is good");
    let entry = Entry {
        runbook: read.runbook,
        bytes: Bytes::from_static(RUNBOOK),
        certificates: vec![certificate().into()],
        certified: true,
    };
    let entries = BTreeMap::from([("host/disk-full".to_owned(), Arc::new(entry))]);
    handle.set_library(Arc::new(Library { entries, refused: BTreeMap::new() })).await;
    let rule = ModeRule { runbook: Glob::new("*"), alert: None, hosts: None, mode };
    let notify = Some(Notify { url: "http://nowhere.test/".into(), secret: vec![1] });
    let policy = Policy { modes: vec![rule], notify, ..Policy::default() };
    handle.set_policy(Arc::new(policy), Vec::new()).await;
    let bytes = roster().encode();
    let signed = signed::sign(&key("root"), Namespace::Roster, &bytes).expect("root signs");
    let in_force = RosterInForce { signed: signed.into(), roster: roster() };
    handle.set_roster(Some(Arc::new(in_force))).await;
    (handle, stop, task)
}

/// A host that follows a script and remembers, as a journal does.
pub(super) struct FakeAgent {
    inbox: mpsc::Receiver<Message>,
    pub(super) epoch: u64,
    seq: u64,
    /// Everything ever reported, as a journal keeps it until it is acknowledged.
    pub(super) reported: Vec<v1::Report>,
    /// Digests of the orders seen, by segment.
    pub(super) orders: BTreeMap<u32, Vec<u8>>,
    pub(super) plan: Vec<u8>,
    /// The last order, to the byte.
    pub(super) last: Bytes,
}

impl FakeAgent {
    pub(super) async fn join(bench: &Bench) -> FakeAgent {
        let (_, inbox) = mpsc::channel(1);
        let mut agent = FakeAgent {
            inbox,
            epoch: 0,
            seq: 0,
            reported: Vec::new(),
            orders: BTreeMap::new(),
            plan: Vec::new(),
            last: Bytes::new(),
        };
        agent.connect(bench).await;
        agent
    }

    /// Connects, and sends again whatever is not acknowledged.
    pub(super) async fn connect(&mut self, bench: &Bench) {
        let (sender, inbox) = mpsc::channel(64);
        let hello = v1::Hello {
            protocol: 1,
            version: "test".into(),
            epoch_seen: self.epoch,
            boot_id: BOOT.into(),
            journal: "journal-1".into(),
            roster_version: 1,
            ..Default::default()
        };
        let certificate = AgentCertificate { serial: "01".into(), not_after: At(i64::MAX) };
        let welcome = bench.handle.agent_connected(host(), hello, certificate, sender).await.unwrap();
        assert!(welcome.epoch > self.epoch);
        (self.epoch, self.inbox) = (welcome.epoch, inbox);
        let owed: Vec<_> =
            self.reported.iter().filter(|report| report.seq > welcome.acked).cloned().collect();
        bench.handle.reports(host(), self.epoch, owed).await.unwrap();
    }

    pub(super) async fn leave(&mut self, bench: &Bench) {
        bench.handle.agent_gone(host(), self.epoch, Gone::Lost).await;
    }

    /// The next order that was not seen before; one seen before must be the same to the byte.
    pub(super) async fn order(&mut self) -> v1::OrderContent {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.inbox.recv()).await;
            let message = message.expect("an order comes").expect("the stream is open");
            let Some(v1::to_agent::What::Order(order)) = message.whole().what else { continue };
            assert_eq!(signed::digest(Tag::Order, &order.content).0.as_slice(), &order.digest[..]);
            self.last = order.content.clone();
            let content = v1::OrderContent::decode(order.content).unwrap();
            match self.orders.insert(content.segment, order.digest.to_vec()) {
                None => return content,
                Some(before) => assert_eq!(before, order.digest.to_vec()),
            }
        }
    }

    /// Whether an order comes before the host is told that the run is paused, or goes on.
    pub(super) async fn order_before_pause(&mut self, on: bool) -> bool {
        let mut ordered = false;
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.inbox.recv()).await;
            match message.expect("a pause comes").expect("the stream is open").whole().what {
                Some(v1::to_agent::What::Pause(pause)) if pause.on == on => return ordered,
                Some(v1::to_agent::What::Order(_)) => ordered = true,
                Some(_) | None => {}
            }
        }
    }

    /// The next word about a pause that is later than this one.
    pub(super) async fn hears_pause_after(&mut self, count: u32) -> v1::Pause {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.inbox.recv()).await;
            let message = message.expect("a pause comes").expect("the stream is open");
            if let Some(v1::to_agent::What::Pause(pause)) = message.whole().what
                && pause.count > count
            {
                return pause;
            }
        }
    }

    pub(super) async fn report(&mut self, bench: &Bench, order: &v1::OrderContent, what: v1::report::What) {
        self.seq += 1;
        let report = v1::Report {
            seq: self.seq,
            run: order.run.clone(),
            segment: order.segment,
            at_ms: bench.clock.now().0,
            what: Some(what),
        };
        self.reported.push(report.clone());
        let acked = bench.handle.reports(host(), self.epoch, vec![report]).await.unwrap();
        assert_eq!(acked, self.seq);
    }

    pub(super) async fn accept(&mut self, bench: &Bench, order: &v1::OrderContent) {
        self.report(bench, order, v1::report::What::Accepted(v1::Accepted::default())).await;
    }

    /// One step, from its start to its end.
    pub(super) async fn step(&mut self, bench: &Bench, order: &v1::OrderContent, path: &str) {
        let started = v1::StepStarted { path: path.into(), attempt: 1 };
        self.report(bench, order, v1::report::What::StepStarted(started)).await;
        let ended = v1::StepEnded {
            path: path.into(),
            attempt: 1,
            outcome: "succeeded".into(),
            exit_code: Some(0),
            stdout: Some(v1::Kept { head: "91".into(), ..Default::default() }),
            took_ms: 5,
            ..Default::default()
        };
        self.report(bench, order, v1::report::What::StepEnded(ended)).await;
    }

    /// Renders the plan with the real renderer and reports it.
    pub(super) async fn plan(&mut self, bench: &Bench, order: &v1::OrderContent) {
        let read = fettle_runbooks::read(&order.runbook).unwrap();
        let given: BTreeMap<String, String> = order.inputs.clone().into_iter().collect();
        let inputs = fettle_runbooks::input::bind(read.runbook.inputs(), &given).unwrap();
        let outputs =
            BTreeMap::from([("usage".to_owned(), BTreeMap::from([("used".to_owned(), Value::Int(91))]))]);
        let scope = Values(BTreeMap::from([("inputs".to_owned(), Value::Map(inputs))]));
        let rendering = plan::render(&read.runbook, &scope, &outputs).unwrap();
        let plan = Plan {
            agent: host(),
            run: order.run.parse().unwrap(),
            nonce: "ab".repeat(32),
            boot: BOOT.to_owned(),
            runbook: read.runbook.name().to_owned(),
            runbook_digest: read.runbook.digest(),
            inputs: given,
            evidence: rendering.evidence,
            steps: rendering.steps,
            verify: rendering.verify,
            of: None,
        };
        self.plan = signed::plan::encode(&plan);
        let planned = v1::Planned { plan: self.plan.clone().into(), ..Default::default() };
        self.report(bench, order, v1::report::What::Planned(planned)).await;
    }

    pub(super) async fn end(
        &mut self,
        bench: &Bench,
        order: &v1::OrderContent,
        how: v1::segment_ended::How,
        verification: v1::Verification,
        effects: bool,
    ) {
        let ended = v1::SegmentEnded {
            how: Some(how),
            verification: verification.into(),
            effects,
            undoing: v1::Undoing::None.into(),
        };
        self.report(bench, order, v1::report::What::SegmentEnded(ended)).await;
    }

    pub(super) async fn done(
        &mut self,
        bench: &Bench,
        order: &v1::OrderContent,
        verification: v1::Verification,
    ) {
        let how = v1::segment_ended::How::Done(v1::SegmentDone {});
        self.end(bench, order, how, verification, false).await;
    }

    /// The check a real host makes of a grant.
    pub(super) fn check_grant(&self, bench: &Bench, order: &v1::OrderContent) -> Result<Vec<String>, String> {
        let Some(v1::order_content::Work::Remediate(work)) = &order.work else {
            return Err("no remediation".into());
        };
        let grant = work.grant.clone().ok_or("no grant")?;
        let grant = Grant::try_from(grant).map_err(|error| error.to_string())?;
        let certificates: Vec<Signed> =
            order.certificates.iter().cloned().map(|signed| Signed::try_from(signed).unwrap()).collect();
        let now = from_ms(bench.clock.now().0);
        let certified = signed::certified(&order.runbook, &certificates, &roster(), now).ok();
        let started = order
            .start
            .clone()
            .map(|start| signed::Start::verify(&Signed::try_from(start).unwrap(), &roster(), now).unwrap());
        let permit = grant::check(&GrantInput {
            grant: &grant,
            roster: &roster(),
            host: &host(),
            run: order.run.parse().unwrap(),
            plan: &self.plan,
            nonce: &"ab".repeat(32),
            boot: BOOT,
            unknown: None,
            from: &work.from,
            certified: certified.as_ref(),
            started: started.as_ref(),
            also_from: None,
            now,
        });
        permit.map(|permit| permit.approvers().to_vec()).map_err(|refusal| refusal.to_string())
    }
}
