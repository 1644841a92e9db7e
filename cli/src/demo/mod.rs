//! `fettle demo`: the whole story on one machine, with nothing pretended.
//!
//! A controller and an agent, each a process of its own, meet over mTLS in a temporary directory. A small service is
//! broken, an alert is posted, and what then happens is what would happen in production: diagnosis, plan, the harmless
//! step, the gate, a signed approval, the risky step, verification, the incident.
//!
//! The demonstration embeds the other two programs by running itself again (`fettle __controller`, `fettle __agent`).
//! Everything runs beneath a [`keeper`], which removes it all, however the demonstration ends. What a person would type
//! goes through the same code as if it had been typed.
//!
//! Deliberately missing: any way around the controller or the agent. The demonstration has keys, not powers.

mod cast; // who plays
mod place; // where
mod keeper; // under whose eyes
mod hold; // … and how they are kept open
mod kiosk; // what breaks
mod alert; // who notices
mod story; // how it is told
mod play; // what happens

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};
use crate::exit::Exit;

pub use cast::Cast;

/// `fettle demo`
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Leave it running, and print what to try next.
    #[arg(long)]
    pub keep: bool,
    /// Do not ask: sign with the demonstration's own key, as when there is no terminal.
    #[arg(short, long)]
    pub yes: bool,
}

/// What the demonstration runs itself again for.
#[derive(Clone, Debug, Subcommand)]
pub enum Part {
    /// Starts, watches and removes everything else.
    Keeper {
        /// The directory of the demonstration.
        directory: PathBuf,
    },
    /// The service that breaks.
    Kiosk {
        /// The directory of the demonstration.
        directory: PathBuf,
        /// Where it answers.
        port: u16,
    },
}

/// Plays it.
pub fn run(options: &Options, runtime: &Runtime) -> Result<Exit> {
    play::play(options, runtime)
}

/// Plays one part of it.
pub fn part(part: &Part, runtime: &Runtime) -> Result<Exit> {
    let done = match part {
        Part::Keeper { directory } => keeper::run(directory),
        Part::Kiosk { directory, port } => runtime.block_on(kiosk::run(directory, *port)),
    };
    done.map(|()| Exit::Done)
        .map_err(|error| Error::new(Exit::Failed, "the demonstration failed").because(&error))
}

/// Waits until somebody wants this process to end.
async fn interrupted() -> std::io::Result<SignalKind> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(kinds[0])?, signal(kinds[1])?, signal(kinds[2])?];
    Ok(tokio::select! {
        _ = interrupt.recv() => kinds[0],
        _ = terminate.recv() => kinds[1],
        _ = hangup.recv() => kinds[2],
    })
}
