//! The works as the connection sees them: one inbox, two outlets, one thread.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

use fettle_proto::signed::Trust;
use fettle_proto::v1;
use fettle_runbooks::id::Host;
use tokio::sync::mpsc;

use super::disk::HostDisk;
use super::driver::{StartError, Wake};
use super::engine::{Engine, Opened, Parts};
use super::hands::HostHands;
use super::world::HostWorld;
use crate::message::{FromWorks, ToWorks};

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
    pub(super) inbox: std_mpsc::Sender<Wake>,
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
    ours_alone(&config.state).map_err(|source| StartError::Io {
        what: format!("keep what this host believes and remembers in {}", config.state.display()),
        source,
    })?;
    let hands = Box::new(HostHands::open(&config)?);
    run(Parts { config, world: Arc::new(HostWorld::new()), hands, disk: Arc::new(HostDisk) })
}

/// Whoever can write to the state directory can put another root of trust there, or another journal.
fn ours_alone(state: &Path) -> io::Result<()> {
    let meta = match std::fs::metadata(state) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // It is made for us alone.
        Err(error) => return Err(error),
    };
    let me = rustix::process::geteuid();
    // Where people have a group each, theirs may write; what acts as root relies on nobody's group.
    let others = if me.is_root() { 0o022 } else { 0o002 };
    if meta.uid() != me.as_raw() && meta.uid() != 0 {
        return Err(io::Error::other(format!("it belongs to the user {}", meta.uid())));
    }
    if meta.mode() & others != 0 {
        return Err(io::Error::other(format!("others may write to it (mode {:o})", meta.mode() & 0o7777)));
    }
    Ok(())
}

/// The works on this host, with a thread for the driver and one for the journal.
fn run(parts: Parts) -> Result<Works, StartError> {
    let Opened { engine, writer, handle, from, output } = Engine::open(parts)?;
    let thread = |source| StartError::Io { what: "start the works' threads".to_owned(), source };
    engine.written_by_thread(writer).map_err(thread)?;
    let builder = std::thread::Builder::new().name("works".to_owned()).stack_size(STACK);
    let thread = builder.spawn(move || engine.run()).map_err(thread)?;
    Ok(Works { handle, from, output, thread })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_state_directory_that_others_may_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o700, true), (0o755, true), (0o777, false), (0o1777, false)] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(ours_alone(dir.path()).is_ok(), good, "{mode:o}");
        }
        ours_alone(&dir.path().join("not-there")).unwrap();
    }
}
