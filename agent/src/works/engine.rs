//! The works without their threads: an engine that is turned whenever something happened or a timer is due.
//!
//! An agent turns it on a thread of its own ([`Engine::run`]); a simulation turns it in simulated time, beside other hosts.
//! Everything it touches is handed in as [`Parts`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use fettle_proto::v1;
use tokio::sync::mpsc;

use super::disk::Disk;
use super::driver::{Driver, StartError, Wake};
use super::handle::{Config, Handle};
use super::hands::Hands;
use super::journal::Writer;
use super::world::World;
use crate::message::FromWorks;

/// Chunks of live output that wait for the connection. What finds no place is dropped: it is still in the step's result.
const OUTPUT_QUEUE: usize = 256;

/// What an engine is made of.
pub struct Parts {
    /// What it is told.
    pub config: Config,
    /// Clocks, boot and chance.
    pub world: Arc<dyn World>,
    /// Steps and facts.
    pub hands: Box<dyn Hands>,
    /// Where journal, epoch and roster are.
    pub disk: Arc<dyn Disk>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// An engine, and the ends of what it is connected with.
#[derive(Debug)]
pub struct Opened {
    /// To be turned.
    pub engine: Engine,
    /// To be turned as well, or nothing becomes durable: see [`Writer::turn`].
    pub writer: Writer,
    /// To the works.
    pub handle: Handle,
    /// From them.
    pub from: mpsc::UnboundedReceiver<FromWorks>,
    /// Live output, as much of it as is taken.
    pub output: mpsc::Receiver<v1::OutputChunk>,
}

/// When an engine wants to be turned again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something happens, and at this moment of [`World::monotonic`] at the latest.
    Until(Duration),
    /// When something happens.
    Idle,
    /// Never: it was told to stop, or its journal takes nothing any more.
    Stopped,
}

/// The works of one agent.
pub struct Engine {
    driver: Driver,
    wakes: Receiver<Wake>,
    /// What ended the wait.
    woken_by: Option<Wake>,
    resumed: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("host", &self.driver.config.host).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the journal. Nothing that is unfinished is gone on with before the first turn.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn open(parts: Parts) -> Result<Opened, StartError> {
        let (inbox, wakes) = channel();
        let (to_link, from) = mpsc::unbounded_channel();
        let (chunks, output) = mpsc::channel(OUTPUT_QUEUE);
        let handle = Handle { inbox: inbox.clone() };
        let (driver, writer) = Driver::open(parts, inbox, to_link, chunks)?;
        let engine = Engine { driver, wakes, woken_by: None, resumed: false };
        Ok(Opened { engine, writer, handle, from, output })
    }

    /// Does everything that waits and everything that is due. Waits for nothing itself.
    pub fn turn(&mut self) -> Next {
        if !self.resumed {
            self.resumed = true;
            if self.driver.unconfirmed {
                tracing::info!(
                    "What was accepted before this host booted waits until the controller is reached."
                );
            } else {
                self.driver.resume();
            }
        }
        while !self.driver.stop {
            if self.driver.due().is_some_and(|at| at <= self.driver.world.monotonic()) {
                self.driver.tick(); // However much waits.
            }
            match self.woken_by.take().map_or_else(|| self.wakes.try_recv(), Ok) {
                Ok(wake) => self.driver.handle(wake),
                Err(TryRecvError::Empty) => match self.driver.due() {
                    None => return Next::Idle,
                    Some(at) if at > self.driver.world.monotonic() => return Next::Until(at),
                    Some(_) => {}
                },
                Err(TryRecvError::Disconnected) => return Next::Stopped,
            }
        }
        Next::Stopped
    }

    /// Turns until it stops, asleep in between.
    pub(super) fn run(mut self) {
        loop {
            let wake = match self.turn() {
                Next::Stopped => return,
                Next::Idle => self.wakes.recv().map_err(RecvTimeoutError::from),
                Next::Until(at) => self.wakes.recv_timeout(at.saturating_sub(self.driver.world.monotonic())),
            };
            match wake {
                Ok(wake) => self.woken_by = Some(wake),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Has the journal written by a thread of its own.
    pub(super) fn written_by_thread(&self, writer: Writer) -> io::Result<()> {
        self.driver.journal.written_by_thread(writer)
    }
}
