//! The controller from start to stop.
//!
//! Everything that can be wrong is found before the first connection is taken: configuration, keys, roster, policy, store,
//! ports. Then the coordinator, then the ports; and on SIGTERM the other way round, within `drain-seconds`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use fettle_crash::Replaced;
use fettle_proto::signed::Trust;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::accept::{self, Connections, Limits, Port, Security};
use crate::ca::Ca;
use crate::config::{Config, LogFormat};
use crate::coordinator::{self, Handle, RulesWatch, Setup};
use crate::crash::{self, crash_point};
use crate::grpc::{self, Services};
use crate::library::{self, Loaded, Notices, Places};
use crate::metered::Metered;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::store::{Sqlite, Store};
use crate::tasks::{Stopped, TaskKind, Tasks};
use crate::tls::Ports;
use crate::world::{System, World};
use crate::{agents, api, http, notify, policy};

/// How long the coordinator goes on after the ports have closed, so that what had begun gets its answer.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// How the controller ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to.
    AsAsked,
    /// It was asked to, and some tasks had not come to their end in time.
    Abandoned,
}

/// Runs until SIGTERM or SIGINT, or until something it cannot be without has died.
pub(crate) fn run(config: Config) -> anyhow::Result<Ended> {
    log(&config);
    raise_descriptors();
    // Several threads, so that a handshake's arithmetic stalls no decision; the coordinator is one task all the same.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("controller")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(live(&config));
    // What blocks beneath (a read of a hung disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Every host is a descriptor. Service managers begin with a thousand, for the sake of programs that use `select`, which this one
/// does not; as many as they allow are asked for.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(descriptors = ?maximum, "Hosts may take that many."),
        Err(error) => {
            tracing::warn!(%error, descriptors = ?current, "The limit of descriptors cannot be raised.")
        }
    }
}

/// How many there may be.
fn descriptors() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Checks what the configuration names, beyond the configuration itself. `Ok` says what was found.
pub(crate) fn check(config: &Config) -> Result<String, String> {
    let mut problems = Vec::new();
    let policy = policy::read(&config.policy).unwrap_or_else(|found| {
        problems.extend(found.iter().map(|problem| chain(problem)));
        Policy::default()
    });
    let mut rules = RulesWatch::default();
    rules.read(&policy);
    problems.extend(rules.warnings().cloned());
    let now = jiff::Timestamp::from_millisecond(System.now().0).unwrap_or_default();
    let roots = config.root_keys().unwrap_or_default();
    let places = places(config, Trust { ca_der: Vec::new(), roots });
    let loaded = library::load(&places, &Loaded::default(), now);
    problems.extend(loaded.library.refused.iter().map(|(file, why)| format!("{file}:\n{why}")));
    if loaded.roster.is_none() {
        problems.extend(loaded.notices.iter().filter(|notice| notice.starts_with("roster")).cloned());
    }
    if problems.is_empty() {
        let certified = loaded.library.entries.values().filter(|entry| entry.certified).count();
        return Ok(format!(
            "the configuration is good: {} runbooks, {certified} of them certified; {} sources; roster version {}",
            loaded.library.entries.len(),
            policy.sources.len(),
            loaded.roster.as_ref().map_or(0, |it| it.roster.version),
        ));
    }
    Err(format!("error: what the configuration names cannot be used\n{}", problems.join("\n")))
}

async fn live(config: &Config) -> anyhow::Result<Ended> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let tasks = Tasks::new();
    let started = start(config, &tasks).await;
    if let Err(error) = started {
        tasks.stop(Duration::from_secs(1)).await;
        return Err(error);
    }
    let died = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        kind = tasks.death() => Some(kind),
    };
    tracing::info!(within = ?config.drain(), "Stopping.");
    let stopped = tasks.stop(config.drain()).await;
    match (died, stopped) {
        (Some(kind), _) => Err(anyhow!("the task {kind:?} ended, and nothing works without it")),
        (None, Stopped::Clean) => {
            tracing::info!("Stopped.");
            Ok(Ended::AsAsked)
        }
        (None, Stopped::Abandoned { tasks }) => {
            tracing::warn!(tasks, "Stopped before everything had ended.");
            Ok(Ended::Abandoned)
        }
    }
}

async fn start(config: &Config, tasks: &Tasks) -> anyhow::Result<()> {
    let world: Arc<dyn World> = Arc::new(System);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state)
        .with_context(|| format!("create the state folder {}", config.state.display()))?;
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&config.state.join("store"))?);
    let ca = Arc::new(Ca::open(&config.state, world.now())?);
    let trust = trust(config, &ca)?;

    // Bound now, so that a port that is taken is found before anything starts.
    let grpc_listener = bind(config.grpc).await?;
    let http_listener = bind(config.http).await?;

    let places = places(config, trust.1);
    let loaded = library::load(&places, &Loaded::default(), now(&*world));
    let (Some(roster), notices) = (loaded.roster.clone(), Notices::default()) else {
        bail!("use a roster: {}", loaded.notices.join("; "));
    };
    let policy = policy::read(&config.policy)
        .map_err(|problems| anyhow!(problems.iter().map(|it| chain(it)).collect::<Vec<_>>().join("; ")))
        .context("use the policy")?;

    let metrics = Metrics::new();
    let handle = coordinate(&trust.0, store, &world, &metrics, tasks)?;
    let mut rules = RulesWatch::default();
    rules.read(&policy);
    rules.apply(&handle);
    handle.set_policy(Arc::new(policy), Vec::new()).await;
    handle.set_roster(Some(roster)).await;
    handle.set_library(Arc::clone(&loaded.library)).await;

    let connections = Connections::default();
    revoked_stay_revoked(&handle, &connections).await?;
    let ports = Ports::start(
        Arc::clone(&ca),
        config.names.clone(),
        connections.revocations(),
        Arc::clone(&world),
        tasks,
    )?;
    let listen = |listener, security, kind| {
        let port = Port {
            listener,
            security,
            limits: Limits::default().within(descriptors()),
            connections: connections.clone(),
            world: Arc::clone(&world),
            kind,
        };
        accept::start(port, tasks).context("listen")
    };

    let refusals = http::Refusals::default();
    let fleet = agents::service(agents::Parts {
        fleet: handle.clone(),
        ca,
        trust: trust.0.clone(),
        world: Arc::clone(&world),
        tasks: tasks.clone(),
        settings: agents::Settings::default(),
    });
    let operators = api::service(api::Parts {
        handle: handle.clone(),
        trust: trust.0.clone(),
        notices: notices.clone(),
        refusals: refusals.clone(),
        metrics: metrics.clone(),
        connections: connections.clone(),
        tasks: tasks.clone(),
        world: Arc::clone(&world),
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let services = Services::default().and(fleet).and(operators).and(health_service);
    grpc::serve(services, listen(grpc_listener, Security::Tls(ports.grpc), TaskKind::GrpcAccept)?, tasks);

    let security = if config.tls { Security::Tls(ports.http) } else { Security::Plain };
    let signals = http::Parts {
        intake: handle.clone(),
        metrics,
        connections: connections.clone(),
        tasks: tasks.clone(),
        world: Arc::clone(&world),
        refusals,
    };
    tasks.spawn(
        TaskKind::HttpServer,
        http::serve(listen(http_listener, security, TaskKind::HttpAccept)?, signals),
    );

    let watching = coordinator::watch_policy(config.policy.clone(), handle.clone(), tasks.stopping());
    tasks.spawn(TaskKind::FolderWatch, watching);
    tasks.spawn(TaskKind::FolderWatch, rules.watch(handle.clone(), tasks.stopping()));
    let watching = library::watch(places, loaded, handle, notices, world, tasks.stopping());
    tasks.spawn(TaskKind::FolderWatch, watching);
    tracing::info!(
        grpc = %config.grpc, http = %config.http, tls = config.tls, state = %config.state.display(),
        root = %Trust::fingerprint(&trust.0), "Started."
    );
    Ok(())
}

fn coordinate(
    trust: &[u8],
    store: Arc<dyn Store>,
    world: &Arc<dyn World>,
    metrics: &Metrics,
    tasks: &Tasks,
) -> anyhow::Result<Handle> {
    let setup = Setup {
        store: Arc::new(Metered::new(store, metrics.clone(), tasks.clone())),
        world: Arc::clone(world),
        deliver: Arc::new(notify::Http::new().context("set up notifications")?),
        root: Trust::fingerprint(trust).to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        metrics: metrics.clone(),
    };
    let stop = CancellationToken::new();
    let (handle, life) = coordinator::new(setup, stop.clone());
    let stopping = tasks.stopping();
    tasks.spawn(TaskKind::Coordinator, async move {
        let stop_later = async {
            stopping.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = life => if let Err(error) = ended {
                tracing::error!(error = %chain(&error), "The coordinator ended.");
            },
            () = stop_later => {}
        }
    });
    Ok(handle)
}

/// Certificates of revoked hosts are refused at the handshake, across restarts.
async fn revoked_stay_revoked(handle: &Handle, connections: &Connections) -> anyhow::Result<()> {
    for (host, until) in handle.voided().await.context("read the fleet")? {
        connections.revocations().revoke(&host, until);
    }
    Ok(())
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

fn places(config: &Config, trust: Trust) -> Places {
    Places { library: config.library.clone(), roster: config.roster.clone(), trust }
}

/// The trust bundle that joining hosts compare with the fingerprint they were given. Written at the first start; after
/// that it must stay what it is, because hosts have pinned it.
fn trust(config: &Config, ca: &Ca) -> anyhow::Result<(Bytes, Trust)> {
    let roots = config.root_keys().map_err(|why| anyhow!(why))?;
    let trust = Trust { ca_der: ca.certificate().to_vec(), roots };
    let bytes = trust.encode();
    let path = config.state.join("trust.json");
    match fs::read(&path) {
        Ok(kept) if kept == bytes => {}
        Ok(_) => bail!(
            "use {}: it has another authority or other root keys than the configuration; hosts that joined have pinned \
             it. To begin anew, remove it and join every host again",
            path.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_new(&path, &bytes, &crash::TRUST)?;
            tracing::info!(path = %path.display(), root = %Trust::fingerprint(&bytes), "Trust bundle written.");
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let pem = config.state.join("ca.pem");
    if !pem.exists() {
        write_new(&pem, to_pem(&trust.ca_der).as_bytes(), &crash::CA_PEM)?;
    }
    Ok((bytes.into(), trust))
}

/// Whole or not at all, readable by everybody: neither file is secret.
fn write_new(path: &Path, bytes: &[u8], points: &Replaced) -> anyhow::Result<()> {
    let failed = || format!("write {}", path.display());
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&fresh)
        .with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    crash_point(points.unsynced);
    file.sync_all().with_context(failed)?;
    crash_point(points.unnamed);
    fs::rename(&fresh, path).with_context(failed)?;
    crash_point(points.undurable);
    let folder = path.parent().unwrap_or(path);
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
    crash_point(points.durable);
    Ok(())
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

fn now(world: &dyn World) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(world.now().0).unwrap_or_default()
}

/// An error with everything beneath it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn log(config: &Config) {
    let targets =
        Targets::from_str(&config.log).unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let registry = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // Embedded somewhere that logs already: its choice stands.
    let _ = match config.log_format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
        }
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
}
