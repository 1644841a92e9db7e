//! The directory of one attempt: what is in it, and what each file means.
//!
//! ```text
//! attempts/RUN.PATH.ATTEMPT/
//!   lock       held by the shim for as long as it lives
//!   order      what to run, and what must still hold
//!   started    created once, exclusively: from then on the attempt counts as started
//!   stop       somebody asks for its end; `stop.tmp` until then, for a disk that may be full by that time
//!   stdout     stderr: whole output, up to a limit
//!   exit       its result; put here by rename, so it is whole or not there
//! attempts/RUN.PATH.before       how the unit of the step at PATH was before its first attempt; none where an earlier run has it
//! attempts/RUN.tombstone         no attempt of the run starts any more; `RUN.tmp` until then
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fettle_runbooks::id::RunId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::attempt::{Ended, Spec, StartBy};
use super::output::Stream;
use super::record::AttemptKey;

/// The end of the name of the file that says how a unit was.
pub(crate) const BEFORE: &str = ".before";

/// What a shim is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) spec: Spec,
    pub(crate) start_by: StartBy,
    /// The host's veto.
    pub(crate) policy: PathBuf,
    /// The agent's own unit of systemd; empty where it is none.
    #[serde(default)]
    pub(crate) agent: String,
    /// When this file is there, nothing starts.
    pub(crate) tombstone: PathBuf,
}

/// What a shim leaves when it starts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Which boot: in another one, nothing of the attempt runs.
    pub(crate) boot: String,
    /// The shim.
    pub(crate) pid: i32,
    /// The control group of the step, if it has one.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Whether a shim ever started.
#[derive(Debug)]
pub(crate) enum Start {
    /// None did.
    Never,
    /// One died while it was writing this, and so before it went on to anything else.
    Broken,
    /// One did, and what it wrote cannot be understood.
    Unreadable,
    /// One did.
    Made(Started),
}

/// The directory of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn of(attempts: &Path, key: &AttemptKey) -> Place {
        Place(attempts.join(format!("{}.{}.{}", key.run, plain(&key.path), key.attempt)))
    }

    pub(crate) fn at(dir: PathBuf) -> Place {
        Place(dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where it is kept how the unit of the attempt's step was before the step; an undo finds its step's there.
    pub(crate) fn before(&self, key: &AttemptKey) -> Option<PathBuf> {
        let step = key.path.strip_suffix("/undo").unwrap_or(&key.path);
        Some(self.0.parent()?.join(format!("{}.{}{BEFORE}", key.run, plain(step))))
    }

    /// Whether every attempt of the step that these are the undo of, in one run after the other, is over, and none of them
    /// ended well.
    pub(crate) fn all_failed(&self, keys: &[AttemptKey]) -> bool {
        let Some(attempts) = self.0.parent() else { return false };
        let all_of = |key: &AttemptKey| {
            let (run, path) = (key.run, key.path.strip_suffix("/undo").unwrap_or(&key.path).to_owned());
            let at = move |attempt| Place::of(attempts, &AttemptKey { run, path: path.clone(), attempt });
            (1..).map(at).take_while(|place| place.dir().exists())
        };
        let mut all = keys.iter().flat_map(all_of).peekable();
        let failed = |exit| matches!(exit, Ok(Some(Ok(Ended { exit_code, .. }))) if exit_code != Some(0));
        all.peek().is_some() && all.all(|place| failed(place.exit()))
    }

    pub(crate) fn spool(&self, stream: Stream) -> PathBuf {
        self.file(match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }

    /// Takes the lock; none when a living shim has it.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let path = self.file("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a shim left at its start.
    pub(crate) fn started(&self) -> io::Result<Start> {
        let bytes = match std::fs::read(self.file("started")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Start::Never),
            Err(error) => return Err(error),
        };
        if !bytes.ends_with(b"}") {
            return Ok(Start::Broken);
        }
        Ok(serde_json::from_slice(&bytes).map_or(Start::Unreadable, Start::Made))
    }

    /// The result, if there is one.
    pub(crate) fn exit(&self) -> io::Result<Option<Result<Ended, String>>> {
        read(&self.file("exit"))
    }
}

/// Where the tombstone of a run is.
pub(crate) fn tombstone(attempts: &Path, run: RunId) -> PathBuf {
    attempts.join(format!("{run}.tombstone"))
}

/// The name of a file that is made before it is needed.
pub(crate) fn reserved(file: &Path) -> PathBuf {
    file.with_extension("tmp")
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<Result<T, String>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|error| error.to_string()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A step's path as one plain file name; no two paths have the same.
fn plain(path: &str) -> String {
    path.bytes().fold(String::new(), |mut name, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'/' => name.push('~'),
            other => name.push_str(&format!("%{other:02x}")),
        }
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undo_finds_what_every_attempt_of_its_step_kept_and_no_other_step_does() {
        let run: RunId = "run_0193a1b2c3d4e5f60718293a4b5c6d7e".parse().unwrap();
        let before = |path: &str, attempt| {
            let key = AttemptKey { run, path: path.to_owned(), attempt };
            Place::of(Path::new("/a"), &key).before(&key).unwrap()
        };
        assert_eq!(before("remediate/x", 1), Path::new(&format!("/a/{run}.remediate~x.before")));
        assert_eq!(before("remediate/x", 1), before("remediate/x", 2));
        assert_eq!(before("remediate/x", 1), before("remediate/x/undo", 1));
        assert_ne!(before("remediate/x", 1), before("remediate/y", 1));
    }

    #[test]
    fn no_path_leaves_the_directory_or_meets_another() {
        assert_eq!(plain("remediate/restart/2/undo"), "remediate~restart~2~undo");
        assert_eq!(plain("../x"), "%2e%2e~x");
        assert_ne!(plain("a~b"), plain("a/b"));
    }
}
