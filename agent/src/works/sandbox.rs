//! Steps that only read can do nothing else: the kernel sees to it.
//!
//! Between the agent and such a step stands a *keeper*: this program again, before it has threads or a runtime. It adopts
//! whatever the step forks, and ends all of it when the step, its time or the agent is over. Its child becomes the step:
//!
//! ```text
//! agent ──spawn──▶ keeper ──fork──▶ mounts ▶ rights ▶ Landlock ▶ seccomp ──exec──▶ step
//!   ▲                 │                      (the order matters: each takes away what the one before needs)
//!   └── how it ended ─┘
//! ```
//!
//! Where the agent is root, the step has a user of its own that owns nothing, sees every mount read-only, a small `/dev`,
//! and neither secrets nor control sockets. Everywhere it has no new privileges, Landlock (no writing, no signals to
//! others, no ports but those it names) and a seccomp filter. What is missing on a host is found out once, by trying
//! ([`Confinement::missing`]), and said in `Hello`.
//!
//! Deliberately missing: a way to ask for more than ports and reading. A step that must change something is no diagnosis.

mod keeper; // stands between agent and step
mod mounts; // what the step sees …
pub(super) mod secrets; // … and what it does not
mod rights; // who it is
mod land; // where it may write, connect and signal: nowhere
mod calls; // what it may ask of the kernel
mod uids; // a user for each step
pub(crate) mod denied; // … and how a "no" reads

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use super::policy::ReadOnly;
use super::unix::{self, Birth};

pub(super) use keeper::keep;
pub(super) use uids::Uid;

/// What a step that only reads may beyond what every such step may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// TCP ports it may connect to.
    pub connect: Vec<u16>,
    /// What it may read.
    pub read: Reading,
}

/// What a step may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// What anybody may.
    #[default]
    Ordinary,
    /// What only root may as well, and the kernel's log: but no secrets.
    All,
    /// What anybody may: the step asked for all, and its runbook is not certified here.
    NotCertified,
}

/// What a keeper is told. It travels in a file in memory: in the keeper's own environment, the step's variables could
/// change what the keeper does.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// What becomes the step; absent: only try whether the sandbox can be set up.
    program: Option<PathBuf>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
    /// A user and group of its own; absent where the agent is not root.
    uid: Option<u32>,
    allowed: Allowed,
    /// The agent's own state, which no step may see.
    state: PathBuf,
    /// A script stands at the third extra descriptor.
    script: bool,
}

/// What a keeper says at the end, as one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// The step exited.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// There was no step, for this reason.
    Failed(String),
}

/// A step, ready to be started in a sandbox.
pub(super) struct Reader<'a> {
    /// An absolute path.
    pub(super) program: &'a Path,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: &'a Path,
    pub(super) script: Option<OwnedFd>,
    pub(super) allowed: &'a Allowed,
}

/// A keeper, and what is the step's for as long as the keeper lives.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) pid: Pid,
    /// Where the keeper says how it ended.
    pub(super) said: OwnedFd,
    pub(super) uid: Option<Uid>,
}

/// The version of Landlock from which on nothing is missing: it knows signals.
const WHOLE: u32 = 6;

/// What this host can do to keep steps from doing.
#[derive(Clone, Debug)]
pub struct Confinement {
    helper: PathBuf,
    state: PathBuf,
    tried: Arc<OnceLock<Tried>>,
    uids: uids::Pool,
}

/// What was found by trying.
#[derive(Debug)]
struct Tried {
    /// Mounts and a user of its own; or why not.
    isolation: Result<(), String>,
    /// The rest; or why not.
    rest: Result<(), String>,
    landlock: u32,
}

impl Confinement {
    pub(super) fn new(helper: PathBuf, state: PathBuf) -> Confinement {
        Confinement { helper, state, tried: Arc::default(), uids: uids::Pool::default() }
    }

    pub(super) fn helped_by(self, helper: PathBuf) -> Confinement {
        Confinement { helper, tried: Arc::default(), ..self }
    }

    /// What this host cannot do, in words for people.
    pub fn missing(&self) -> Vec<String> {
        let tried = self.tried();
        let mut missing = Vec::new();
        if let Err(why) = &tried.rest {
            missing.push(format!("no sandbox, so no step that only reads starts: {why}"));
            return missing;
        }
        if let Err(why) = &tried.isolation {
            missing.push(format!(
                "steps that only read have the agent's own user, and its files and sockets are not hidden: {why}"
            ));
        }
        let lacks = match tried.landlock {
            0 if tried.isolation.is_ok() => {
                "no Landlock: `connect` of a sandbox is refused, and what is read-only is so by mounts alone"
            }
            0 => "no Landlock: steps that only read may write whatever the agent's user may",
            1..=3 => "an old Landlock: TCP ports are not limited, so `connect` of a sandbox is refused",
            4 | 5 => "an old Landlock: a step that only reads may signal processes of its own user",
            _ => return missing,
        };
        missing.push(lacks.to_owned());
        missing
    }

    /// How sure it is that a step that only reads does nothing else.
    pub fn sure(&self) -> ReadOnly {
        let tried = self.tried();
        match (&tried.isolation, tried.landlock) {
            (Ok(()), WHOLE..) => ReadOnly::Full,
            (Ok(()), _) | (Err(_), 1..) => ReadOnly::Enforced,
            (Err(_), 0) => ReadOnly::Unenforced,
        }
    }

    fn tried(&self) -> &Tried {
        self.tried.get_or_init(|| {
            let isolation = if rustix::process::geteuid().is_root() {
                self.uids.take().map_err(|error| error.to_string()).and_then(|uid| self.attempt(Some(uid)))
            } else {
                Err("the agent is not root".to_owned())
            };
            let rest = if isolation.is_ok() { Ok(()) } else { self.attempt(None) };
            Tried { isolation, rest, landlock: unix::landlock_version() }
        })
    }

    /// Sets a sandbox up and runs nothing in it.
    fn attempt(&self, uid: Option<Uid>) -> Result<(), String> {
        let order = Order {
            program: None,
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            uid: uid.as_ref().map(Uid::number),
            allowed: Allowed { connect: vec![], read: Reading::All },
            state: self.state.clone(),
            script: false,
        };
        let tried = || -> io::Result<Option<Said>> {
            let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
            let (pid, said) = self.spawn(&order, [null.as_fd(), null.as_fd(), null.as_fd()], None)?;
            waitpid(Some(pid), WaitOptions::empty())?;
            Ok(hear(&said))
        };
        match tried() {
            Ok(Some(Said::Exited(0))) => Ok(()),
            Ok(Some(Said::Failed(why))) => Err(why),
            Ok(said) => Err(format!("trying it ended with {said:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Starts a step.
    pub(super) fn start(
        &self,
        reader: Reader<'_>,
        ends: [std::os::fd::BorrowedFd<'_>; 3],
    ) -> io::Result<Keeper> {
        let tried = self.tried();
        if let Err(why) = &tried.rest {
            return Err(io::Error::other(format!("the read-only sandbox cannot be set up here: {why}")));
        }
        if tried.landlock < 4 && !reader.allowed.connect.is_empty() {
            let message = "this host's kernel cannot limit a step to the ports of its `connect`";
            return Err(io::Error::other(message));
        }
        let isolated = tried.isolation.is_ok();
        let uid = if isolated { Some(self.uids.take()?) } else { None };
        let mut env = reader.env;
        if isolated && !env.iter().any(|(name, _)| name == "TMPDIR") {
            env.push(("TMPDIR".to_owned(), mounts::SCRATCH.to_owned()));
        }
        let order = Order {
            program: Some(reader.program.to_owned()),
            args: reader.args,
            env,
            cwd: reader.cwd.to_owned(),
            uid: uid.as_ref().map(Uid::number),
            allowed: reader.allowed.clone(),
            state: self.state.clone(),
            script: reader.script.is_some(),
        };
        let (pid, said) = self.spawn(&order, ends, reader.script)?;
        Ok(Keeper { pid, said, uid })
    }

    fn spawn(
        &self,
        order: &Order,
        fds: [std::os::fd::BorrowedFd<'_>; 3],
        script: Option<OwnedFd>,
    ) -> io::Result<(Pid, OwnedFd)> {
        let told = in_memory("fettle-order", &serde_json::to_vec(order)?)?;
        let (said, say) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&said, true)?;
        let extra = [told.as_fd(), say.as_fd()].into_iter().chain(script.as_ref().map(AsFd::as_fd));
        let args = ["fettle-keeper".to_owned(), super::shim::WORD.to_owned(), "read".to_owned()];
        let pid = unix::spawn(&Birth {
            program: &self.helper,
            args: &args,
            env: &[],
            cwd: Path::new("/"),
            fds,
            extra: extra.collect(),
            group: None,
        })?;
        Ok((pid, said))
    }
}

/// A file that is nowhere, and that nobody changes any more.
pub(super) fn in_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek as _, Write as _};
    let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(bytes)?;
    file.rewind()?;
    let memory = OwnedFd::from(file);
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(memory)
}

/// What a keeper has said so far, if anything.
pub(super) fn hear(said: &OwnedFd) -> Option<Said> {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = rustix::io::read(said, &mut buffer) {
        heard.extend_from_slice(&buffer[..read]);
    }
    serde_json::from_slice(heard.split(|byte| *byte == b'\n').next()?).ok()
}
