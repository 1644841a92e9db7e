//! Many hosts in one process: each with its own identity, its own connection through real TLS and the agent's own protocol
//! ([`fettle_agent::link`]), and [`Works`] that do nothing. What they cost here a controller cannot tell from a real fleet.

mod identity; // who they are
mod works; // what they do, which is nothing
pub mod raw; // one that keeps to nothing

pub use identity::Mint;
pub use works::{Pace, Works};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fettle_agent::link::{self, Dial, DialError, Dialled, Settings, Wires};
use fettle_runbooks::id::Host;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Cluster, eventually};
use works::Readings;

/// Hosts that connect for the first time at once: a fleet that is joined by people does not come all together either.
const AT_ONCE: usize = 48;

/// Hosts that run until this is dropped.
pub struct Fleet {
    works: Vec<Works>,
    /// When each has dialled.
    dials: Vec<Dials>,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    // Last: the connections read it.
    _identities: TempDir,
}

type Dials = Arc<Mutex<Vec<Instant>>>;

/// Dials as hosts do, and notes when.
struct Noted {
    settings: Settings,
    dials: Dials,
}

impl Dial for Noted {
    async fn dial(&self) -> Result<Dialled, DialError> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        self.settings.dial().await
    }

    async fn renewed(&self, dialled: &Dialled) {
        self.settings.renewed(dialled).await;
    }

    fn chance(&self) -> f64 {
        self.settings.chance()
    }
}

/// Raises the limit of descriptors of this process, and of what it starts from now on; how many there may be.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Not raised: then whoever asked sees it in the answer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Thousands of small files, which a busy disk takes a minute to make and to forget.
fn in_memory() -> TempDir {
    let mut name = tempfile::Builder::new();
    name.prefix("fettle-test-");
    name.tempdir_in("/dev/shm").or_else(|_| name.tempdir()).expect("a directory")
}

/// What this process starts from now on begins with as few descriptors as service managers give.
pub fn few_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let few = limit.maximum.map_or(1024, |most| most.min(1024));
    setrlimit(Resource::Nofile, Rlimit { current: Some(few), maximum: limit.maximum })
        .expect("fewer may be asked for");
}

impl Fleet {
    /// Starts hosts called `PREFIX-1` and so on, and waits until all are connected.
    #[track_caller]
    pub fn start(cluster: &Cluster, prefix: &str, count: usize, pace: Pace) -> Fleet {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fleet")
            .enable_all()
            .build()
            .expect("a runtime");
        let mint = Mint::of(cluster);
        let (stop, readings) = (CancellationToken::new(), Arc::<Readings>::default());
        let identities = in_memory();
        let states = identities.path().to_owned();
        let works = Vec::with_capacity(count);
        let dials = Vec::with_capacity(count);
        let mut fleet = Fleet { works, dials, stop, runtime: None, _identities: identities };
        for number in 1..=count {
            let host: Host = format!("{prefix}-{number}").parse().expect("a host's name");
            let state = states.join(host.as_str());
            mint.join(&host, &state);
            let (to_link, from_works) = mpsc::unbounded_channel();
            let works = Works::new(host, pace, Arc::clone(&readings), runtime.handle().clone(), to_link);
            let (told, (chunks, output)) = (works.clone(), mpsc::channel(1));
            let wires = Wires { to_works: Box::new(move |message| told.told(message)), from_works, output };
            let (dials, stop) = (Dials::default(), fleet.stop.clone());
            fleet.dials.push(Arc::clone(&dials));
            let by = Noted { settings: Settings { state, now: SystemTime::now }, dials };
            runtime.spawn(async move {
                link::run(by, wires, stop).await;
                drop(chunks);
            });
            fleet.works.push(works);
            if number % AT_ONCE == 0 {
                fleet.until_connected(crate::cluster::LIMIT);
            }
        }
        fleet.runtime = Some(runtime);
        fleet.until_connected(crate::cluster::LIMIT);
        fleet
    }

    /// The hosts.
    pub fn works(&self) -> &[Works] {
        &self.works
    }

    /// Their names.
    pub fn hosts(&self) -> Vec<String> {
        self.works.iter().map(|works| works.host().to_string()).collect()
    }

    /// How many are connected.
    pub fn connected(&self) -> usize {
        self.works.iter().filter(|works| works.connected()).count()
    }

    /// Waits until all are connected.
    #[track_caller]
    pub fn until_connected(&self, limit: Duration) {
        eventually("the whole fleet is connected", limit, || match self.connected() {
            all if all == self.works.len() => Ok(()),
            some => Err(format!("{some} of {}", self.works.len())),
        });
    }

    /// Waits until everything that the hosts reported is durable with the controller.
    #[track_caller]
    pub fn until_settled(&self, limit: Duration) {
        eventually("all reports are acknowledged", limit, || {
            match self.works.iter().map(Works::owed).sum::<usize>() {
                0 => Ok(()),
                owed => Err(format!("{owed} are owed")),
            }
        });
    }

    /// When each host dialled for the first time since a moment, whether somebody answered or not, the earliest first.
    pub fn dials(&self, since: Instant) -> Vec<Duration> {
        let first = |dials: &Dials| {
            let dials = dials.lock().unwrap_or_else(PoisonError::into_inner);
            dials.iter().find(|at| **at >= since).map(|at| at.duration_since(since))
        };
        let mut dials: Vec<Duration> = self.dials.iter().filter_map(first).collect();
        dials.sort_unstable();
        dials
    }

    /// When each host was welcomed for the first time since a moment, the earliest first.
    pub fn arrivals(&self, since: Instant) -> Vec<Duration> {
        let first = |works: &Works| works.welcomed().into_iter().find(|at| *at >= since);
        let mut arrivals: Vec<Duration> =
            self.works.iter().filter_map(first).map(|at| at.duration_since(since)).collect();
        arrivals.sort_unstable();
        arrivals
    }

    /// Ends all connections at once, without a goodbye.
    pub fn vanish(mut self) {
        self.stop = CancellationToken::new();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(3));
        }
    }
}
