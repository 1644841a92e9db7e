//! The works as the connection sees them: one inbox, two outlets, one thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

use fettle_proto::signed::Trust;
use fettle_proto::v1;
use fettle_runbooks::id::Host;
use tokio::sync::mpsc;

use super::driver::{Driver, StartError, Wake};
use super::hands::{Hands, HostHands};
use crate::message::{FromWorks, ToWorks};

/// Chunks of live output that wait for the connection. What finds no place is dropped: it is still in the step's result.
const OUTPUT_QUEUE: usize = 256;

/// Evaluating an expression may go deep; memory that is not touched costs nothing.
const STACK: usize = 16 * 1024 * 1024;

/// What the works need to know before they do anything.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory: `journal/`, `attempts/`, `roster.json`, `policy.yaml`, `epoch` are in it.
    pub state: PathBuf,
    /// This host's name.
    pub host: Host,
    /// Its labels, which runbooks see as `host.labels`.
    pub labels: BTreeMap<String, String>,
    /// What it believes since it joined.
    pub trust: Trust,
    /// The program that re-executes itself as a shim; absent: this one.
    pub shim: Option<PathBuf>,
}

/// A cheap way to talk to the works.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: std_mpsc::Sender<Wake>,
}

impl Handle {
    /// Tells the works something. Never blocks. False: the works have ended, and with them the agent must.
    pub fn send(&self, message: ToWorks) -> bool {
        self.inbox.send(Wake::Told(message)).is_ok()
    }
}

/// Running works.
#[derive(Debug)]
pub struct Works {
    /// To them.
    pub handle: Handle,
    /// From them. It ends when they do.
    pub from: mpsc::UnboundedReceiver<FromWorks>,
    /// Live output, as much of it as the connection takes.
    pub output: mpsc::Receiver<v1::OutputChunk>,
    /// Ends after [`ToWorks::Stop`], or when the journal cannot be written any more.
    pub thread: JoinHandle<()>,
}

/// Opens the journal, finds out what became of unfinished work, and goes on with it.
///
/// # Errors
/// When the state directory cannot be used.
pub fn spawn(config: Config) -> Result<Works, StartError> {
    let hands = HostHands::open(&config)?;
    spawn_with(config, hands)
}

pub(super) fn spawn_with(config: Config, hands: impl Hands) -> Result<Works, StartError> {
    let (inbox, wakes) = std_mpsc::channel();
    let (to_link, from) = mpsc::unbounded_channel();
    let (chunks, output) = mpsc::channel(OUTPUT_QUEUE);
    let handle = Handle { inbox: inbox.clone() };
    let driver = Driver::open(config, Box::new(hands), inbox, to_link, chunks)?;
    let thread = std::thread::Builder::new()
        .name("works".to_owned())
        .stack_size(STACK)
        .spawn(move || driver.run(&wakes))
        .map_err(|source| StartError::Io { what: "start the works' thread".to_owned(), source })?;
    Ok(Works { handle, from, output, thread })
}
