//! A controller on its machine: the real coordinator, services and gRPC server, on a simulated disk, clock and network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fettle_controller::accept::{Conn, Connections, Incoming};
use fettle_controller::agents::Fleet;
use fettle_controller::ca::{Ca, Identity};
use fettle_controller::coordinator::{self, AgentCertificate, Enrolment, Gone, Handle, Setup};
use fettle_controller::dispatch::Message;
use fettle_controller::grpc::{self, Services};
use fettle_controller::http::Refusals;
use fettle_controller::library::Notices;
use fettle_controller::metered::Metered;
use fettle_controller::metrics::Metrics;
use fettle_controller::notify::{Deliver, Delivery};
use fettle_controller::policy::Notify;
use fettle_controller::problem::Problem;
use fettle_controller::store::Store;
use fettle_controller::tasks::{TaskKind, Tasks};
use fettle_controller::world::{At, World};
use fettle_controller::{agents, api};
use fettle_proto::signed::Trust;
use fettle_proto::v1;
use fettle_runbooks::id::Host;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

use crate::cast::{self, Cast};
use crate::chance::Chance;
use crate::check::Broken;
use crate::store::Disk;
use crate::trace::{Trace, count};
use crate::world::{Simulated, Wall};

/// Its name in the network.
pub(crate) const NAME: &str = "controller";
/// Its port.
pub(crate) const PORT: u16 = 7443;

/// The machine; clones share it.
#[derive(Clone)]
pub(crate) struct Machine {
    /// Its disk.
    pub(crate) disk: Disk,
    /// Its clock.
    pub(crate) wall: Wall,
    cast: Arc<Cast>,
    ca: Arc<Ca>,
    /// Whom each machine of the network speaks for; those that are not here are people's.
    identities: Arc<BTreeMap<String, Host>>,
    lives: Arc<Mutex<Chance>>,
    handle: Arc<Mutex<Option<Handle>>>,
    wrong: Arc<Mutex<Option<Broken>>>,
    trace: Trace,
}

impl Machine {
    /// A machine that no controller has run on.
    pub(crate) fn new(
        seed: u64,
        disk: Disk,
        ca: Arc<Ca>,
        cast: Arc<Cast>,
        identities: BTreeMap<String, Host>,
        trace: Trace,
    ) -> Machine {
        Machine {
            disk,
            wall: Wall::default(),
            cast,
            ca,
            identities: Arc::new(identities),
            lives: Arc::new(Mutex::new(Chance::new(seed, "controller"))),
            handle: Arc::default(),
            wrong: Arc::default(),
            trace,
        }
    }

    /// The controller that lives now, for what posts signals.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first thing that it did wrong before anybody could see it.
    pub(crate) fn wrong(&self) -> Option<Broken> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The controller has died: nobody holds on to it.
    pub(crate) fn died(&self) {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// From start to death.
    pub(crate) async fn run(self) -> turmoil::Result {
        let life = self.lives.lock().unwrap_or_else(PoisonError::into_inner).word();
        let chance = Chance::new(life, "life");
        let world: Arc<dyn World> = Arc::new(Simulated::new(self.wall.clone(), chance));
        self.trace.say("the controller starts");
        let tasks = Tasks::new();
        let writing = self.disk.clone().work();
        let serving = self.serve(&tasks, world);
        tokio::select! {
            served = serving => served,
            () = writing => Err("the disk's work has no end".into()),
            died = tasks.death() => Err(format!("the controller's task {died:?} died").into()),
        }
    }

    async fn serve(&self, tasks: &Tasks, world: Arc<dyn World>) -> turmoil::Result {
        let (metrics, connections) = (Metrics::new(), Connections::default());
        let store: Arc<dyn Store> = Arc::new(self.disk.open());
        let trust: Bytes = self.cast.trust.encode().into();
        let setup = Setup {
            store: Arc::new(Metered::new(store, metrics.clone(), tasks.clone())),
            world: Arc::clone(&world),
            deliver: Arc::new(Told(self.trace.clone())),
            root: Trust::fingerprint(&trust).to_string(),
            version: "simulated".to_owned(),
            metrics: metrics.clone(),
        };
        let (handle, life) = coordinator::new(setup, CancellationToken::new());
        tasks.spawn(TaskKind::Coordinator, async move { life.await.expect("the coordinator lives") });
        handle.set_policy(Arc::new(cast::policy()), Vec::new()).await;
        handle.set_roster(Some(Arc::new(self.cast.roster.clone()))).await;
        handle.set_library(Arc::clone(&self.cast.library)).await;
        let parts = agents::Parts {
            fleet: Watched { handle: handle.clone(), epochs: Arc::default(), wrong: Arc::clone(&self.wrong) },
            ca: Arc::clone(&self.ca),
            trust: trust.clone(),
            world: Arc::clone(&world),
            tasks: tasks.clone(),
            settings: agents::Settings::default(),
        };
        let operators = api::service(api::Parts {
            handle: handle.clone(),
            trust,
            notices: Notices::default(),
            refusals: Refusals::default(),
            metrics,
            connections: connections.clone(),
            tasks: tasks.clone(),
            world: Arc::clone(&world),
        });
        let services = Services::default().and(agents::service(parts)).and(operators);
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
        let (deliver, ready) = mpsc::channel(64);
        grpc::serve(services, Incoming::vouched(ready, listener.local_addr()?), tasks);
        self.enrol(&handle).await;
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).replace(handle);
        loop {
            let (stream, address) = listener.accept().await?;
            let machine = turmoil::reverse_lookup(address.ip()).unwrap_or_default();
            let identity = self.identities.get(&machine).map(identity);
            let vouched = Conn::vouched(stream, address, identity, &connections, world.now());
            // A server that takes no more is being stopped.
            let Some(connection) = vouched else { continue };
            if deliver.send(connection).await.is_err() {
                return Err("the gRPC server takes no more connections".into());
            }
        }
    }

    /// Every host has joined before the story begins; a store that knows them is left alone.
    async fn enrol(&self, handle: &Handle) {
        let known = loop {
            match handle.agents().await {
                Ok(known) => break known,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        };
        let hosts: std::collections::BTreeSet<&Host> = self.identities.values().collect();
        for host in hosts.into_iter().filter(|host| known.iter().all(|agent| agent.host != host.as_str())) {
            let identity = identity(host);
            let certificate = AgentCertificate { serial: identity.serial, not_after: identity.not_after };
            // A disk that fails just now: the host is refused until the next start, which asks again.
            let _ = handle.certificate_issued(host.clone(), certificate).await;
        }
    }
}

/// The epoch of each host, and what it said last.
type Epochs = BTreeMap<Host, (u64, Vec<v1::Report>)>;

/// What agents say on its way to the coordinator: what a lower epoch says must come to nothing.
#[derive(Clone)]
struct Watched {
    handle: Handle,
    epochs: Arc<Mutex<Epochs>>,
    wrong: Arc<Mutex<Option<Broken>>>,
}

impl Watched {
    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet for Watched {
    async fn spend_token(&self, token: String) -> Result<Enrolment, Problem> {
        self.handle.spend_token(token).await
    }

    async fn certificate_issued(&self, host: Host, certificate: AgentCertificate) -> Result<(), Problem> {
        self.handle.certificate_issued(host, certificate).await
    }

    async fn connected(
        &self,
        host: Host,
        hello: v1::Hello,
        certificate: AgentCertificate,
        orders: mpsc::Sender<Message>,
    ) -> Result<v1::Welcome, Problem> {
        let welcome = self.handle.agent_connected(host.clone(), hello, certificate, orders).await?;
        let before = self.epochs().insert(host.clone(), (welcome.epoch, Vec::new()));
        // What was said on the connection before is still on its way in here.
        if let Some((lower, late)) = before.filter(|(_, late)| !late.is_empty()) {
            let _ = self.reports(host, lower, late).await;
        }
        Ok(welcome)
    }

    async fn reports(&self, host: Host, epoch: u64, reports: Vec<v1::Report>) -> Result<u64, Problem> {
        let highest = match self.epochs().entry(host.clone()).or_default() {
            (highest, last) if *highest == epoch => {
                last.clone_from(&reports);
                epoch
            }
            (highest, _) => *highest,
        };
        let answer = self.handle.reports(host.clone(), epoch, reports).await;
        if epoch < highest {
            count("rule epoch: a lower one reports");
            if answer.is_ok() {
                let how =
                    format!("what {host} reports in epoch {epoch} is taken after epoch {highest} was given");
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                wrong.get_or_insert(Broken { rule: "epoch", how });
            }
        }
        answer
    }

    async fn gone(&self, host: Host, epoch: u64, how: Gone) {
        self.handle.agent_gone(host, epoch, how).await;
    }

    fn output(&self, host: Host, chunk: v1::OutputChunk) {
        self.handle.output(host, chunk);
    }
}

fn identity(host: &Host) -> Identity {
    Identity { host: host.clone(), serial: "01".to_owned(), issued: At(1), not_after: At(i64::MAX / 2) }
}

/// People's inbox.
struct Told(Trace);

impl Deliver for Told {
    fn deliver(&self, _to: &Notify, body: String) -> Delivery {
        let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        self.0.say(format_args!("people are told {} {}: {}", body["id"], body["kind"], body["title"]));
        Box::pin(std::future::ready(Ok(())))
    }
}
