//! From start to stop.
//!
//! A stop ends the connection with a goodbye and the works with their journal whole; steps that run in shims go on, and
//! the next agent finds them.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Config;
use crate::identity::Identity;
use crate::link::{self, Outcome, Wires};
use crate::message::ToWorks;
use crate::works;

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was asked to.
    Clean,
    /// The works died; the service manager should start a whole agent.
    WorksGone,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("start the runtime")]
    Runtime { source: io::Error },
    #[error("listen for signals")]
    Signals { source: io::Error },
    #[error("start the works")]
    Works { source: works::StartError },
}

/// One thread for everything that waits; work happens elsewhere.
pub(crate) fn runtime() -> Result<Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Runtime { source })
}

/// Runs until asked to stop.
pub(crate) fn live(config: &Config, identity: Identity) -> Result<Exit, StartError> {
    log(config);
    works::go_last();
    let runtime = runtime()?;
    tracing::info!(host = %identity.host, controller = %identity.controller, state = %config.state.display(), "Starting.");
    let works =
        works::spawn(works_config(config, identity)).map_err(|source| StartError::Works { source })?;
    let (tell, ask) = (works.handle.clone(), works.handle);
    let wires = Wires {
        // The works' end shows itself as the end of `from_works`.
        to_works: Box::new(move |message| {
            tell.send(message);
        }),
        from_works: works.from,
        output: works.output,
    };
    let outcome = runtime.block_on(connected(config, wires))?;

    tracing::info!(within = ?config.stop_within, "Stopping.");
    ask.send(ToWorks::Stop);
    let stopped = wait(works.thread, config.stop_within);
    Ok(match (outcome, stopped) {
        (Outcome::Stopped, true) => Exit::Clean,
        (Outcome::Stopped, false) => {
            tracing::warn!("The works did not stop in time; the journal has what they did.");
            Exit::Clean
        }
        (Outcome::WorksGone, _) => Exit::WorksGone,
    })
}

async fn connected(config: &Config, wires: Wires) -> Result<Outcome, StartError> {
    let signals = |kind| signal(kind).map_err(|source| StartError::Signals { source });
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    // A closed terminal is no reason to leave a host alone.
    let mut hangup: Signal = signals(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "this is where the connection reads the time")]
    let settings = link::Settings { state: config.state.clone(), now: SystemTime::now };
    let mut run = std::pin::pin!(link::run(settings, wires, stop.clone()));
    loop {
        tokio::select! {
            outcome = &mut run => return Ok(outcome),
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
            _ = hangup.recv() => {}
        }
    }
}

/// What the works are told; a token's labels win over the file's, since an operator bound them.
fn works_config(config: &Config, identity: Identity) -> works::Config {
    let mut labels = config.labels.clone();
    labels.extend(identity.labels);
    works::Config {
        state: config.state.clone(),
        host: identity.host,
        labels,
        trust: identity.trust,
        shim: None,
    }
}

fn wait(thread: JoinHandle<()>, budget: Duration) -> bool {
    let deadline = Instant::now() + budget;
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.join().is_ok()
}

fn log(config: &Config) {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false);
    // A program that embeds the agent may have set up its own.
    let _ = tracing_subscriber::registry().with(config.log.targets()).with(lines).try_init();
}
