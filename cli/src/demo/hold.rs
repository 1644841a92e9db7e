//! The demonstration's hold on its keeper. When it lets go, for whatever reason, everything is removed.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::keeper::{Program, Told};

/// A running keeper; clones share it.
#[derive(Clone)]
pub(super) struct Hold {
    held: Arc<Mutex<Option<Held>>>,
    pid: u32,
    interrupted: Arc<AtomicBool>,
}

struct Held {
    keeper: Child,
    input: ChildStdin,
    directory: Unkept,
}

impl Hold {
    /// Starts the keeper of a directory, which is removed even if that fails.
    #[expect(clippy::disallowed_methods, reason = "the keeper is this program again, not a step on a host")]
    pub(super) fn take(executable: &Path, directory: &Path) -> io::Result<Hold> {
        let unkept = Unkept(Some(directory.to_owned()));
        let mut keeper = Command::new(executable)
            .args(["__demo", "keeper"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let input = keeper.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let pid = keeper.id();
        let held = Arc::new(Mutex::new(Some(Held { keeper, input, directory: unkept })));
        Ok(Hold { held, pid, interrupted: Arc::default() })
    }

    /// The keeper's process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a program; its output goes to `NAME.log`.
    pub(super) fn start(&self, name: &str, argv: Vec<String>, again: bool) -> io::Result<()> {
        self.tell(&Told::Start(Program { name: name.to_owned(), argv, again }))
    }

    /// Lets go without ending anything.
    pub(super) fn keep(&self) -> io::Result<()> {
        self.tell(&Told::Keep)?;
        if let Some(held) = self.lock().take() {
            held.directory.stays();
        }
        Ok(())
    }

    /// Lets go because somebody wants that; the caller then ends the process.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.end();
    }

    /// Does not come back if somebody has interrupted: the process ends with that, and not with what it led to.
    pub(super) fn yield_to_whoever_interrupted(&self) {
        while self.interrupted.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    /// Lets go, and waits until nothing is left.
    pub(super) fn end(&self) {
        if let Some(Held { mut keeper, input, directory }) = self.lock().take() {
            drop(input);
            // It can only fail when the keeper has gone already.
            let _ = keeper.wait();
            drop(directory);
        }
    }

    fn tell(&self, what: &Told) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        match self.lock().as_mut() {
            Some(held) => held.input.write_all(&line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that is removed when this goes. The keeper has done that already, unless it was interrupted before it had
/// begun.
struct Unkept(Option<PathBuf>);

impl Unkept {
    /// The keeper alone has it now.
    fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            // Nobody is left to tell.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
