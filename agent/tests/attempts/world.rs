//! A state directory, and steps to run in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use fettle_agent::works::attempt::{Attempts, Ended, Happening, Observer, Running, Spec, StartBy, Work};
use fettle_agent::works::clock;
use fettle_agent::works::output::{Kept, Stream};
use fettle_agent::works::record::AttemptKey;
use fettle_agent::works::recovery::Found;
use fettle_agent::works::sandbox::Allowed;
use fettle_runbooks::id::RunId;
use fettle_runbooks::runbook::Risk;
use tempfile::TempDir;

use crate::wait::{LIMIT, eventually};

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) attempts: Attempts,
}

/// How an attempt went, as its observer was told.
#[derive(Debug)]
pub(crate) enum Told {
    Output(Stream, u64, Vec<u8>),
    Ended(Ended),
    Unknown(String),
}

impl World {
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        World { attempts: attempts(dir.path()), dir }
    }

    /// A file that steps may write.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a step wrote into a file so far.
    pub(crate) fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub(crate) fn read(&self, spec: &Spec) -> Ended {
        let (observer, told) = observer();
        self.attempts.start_read(spec, observer).unwrap();
        end(&told)
    }

    pub(crate) fn effect(&self, spec: &Spec) -> Ended {
        let (_, told) = self.start(spec);
        end(&told)
    }

    pub(crate) fn start(&self, spec: &Spec) -> (Running, Receiver<Told>) {
        let (observer, told) = observer();
        (self.attempts.start_effect(spec, &soon(), observer).unwrap(), told)
    }

    /// Another process that starts an effect and waits for its end; it can be killed, and its shim told where to die.
    pub(crate) fn starter(&self, spec: &Spec, crash_at: Option<&str>) -> Child {
        std::fs::write(self.file("spec.json"), serde_json::to_vec(spec).unwrap()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "world::an_effect_is_told_to_its_end", "--nocapture"])
            .env("FETTLE_TEST_STATE", self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(point) = crash_at {
            command.env("FETTLE_CRASH_AT", point);
        }
        command.spawn().unwrap()
    }
}

/// Starts an effect and waits for its end: also what [`World::starter`] runs, in a process of its own.
#[test]
fn an_effect_is_told_to_its_end() {
    let own = tempfile::tempdir().unwrap();
    let others = std::env::var_os("FETTLE_TEST_STATE").map(PathBuf::from);
    let state = others.unwrap_or_else(|| {
        let nothing = step(Work::Argv(vec!["true".to_owned()]));
        std::fs::write(own.path().join("spec.json"), serde_json::to_vec(&nothing).unwrap()).unwrap();
        own.path().to_owned()
    });
    let spec: Spec = serde_json::from_slice(&std::fs::read(state.join("spec.json")).unwrap()).unwrap();
    let (observer, told) = observer();
    attempts(&state).start_effect(&spec, &soon(), observer).unwrap();
    let last =
        std::iter::repeat_with(|| told.recv_timeout(LIMIT)).find(|it| !matches!(it, Ok(Told::Output(..))));
    assert!(matches!(last, Some(Ok(Told::Ended(_)))), "it has an end");
}

fn attempts(state: &Path) -> Attempts {
    Attempts::open(state).unwrap().supervised_by(env!("CARGO_BIN_EXE_fettle-agent").into())
}

pub(crate) fn soon() -> StartBy {
    StartBy {
        not_after_ms: clock::wall_ms() + 3_600_000,
        boot: None,
        runbook: "host/test".into(),
        risk: Risk::Medium,
    }
}

/// A run of its own for every step: what marks the processes of a step must not be another test's.
pub(crate) fn key() -> AttemptKey {
    AttemptKey { run: RunId::new(uuid::Uuid::now_v7()), path: "remediate/step".into(), attempt: 1 }
}

pub(crate) fn step(work: Work) -> Spec {
    Spec {
        key: key(),
        work,
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        allowed: Allowed::default(),
        timeout: LIMIT,
        grace: LIMIT,
    }
}

pub(crate) fn script(source: &str) -> Spec {
    step(Work::Script { source: source.into(), interpreter: vec!["/bin/sh".into(), "-eu".into()] })
}

pub(crate) fn observer() -> (Observer, Receiver<Told>) {
    let (tell, told) = channel();
    let observer = Box::new(move |happening: Happening<'_>| {
        let _ = tell.send(match happening {
            Happening::Output { stream, offset, bytes } => Told::Output(stream, offset, bytes.to_vec()),
            Happening::Ended(ended) => Told::Ended(ended),
            Happening::NeverBorn => Told::Unknown("it was never born".to_owned()),
            Happening::Unknown(reason) => Told::Unknown(reason),
        });
    });
    (observer, told)
}

/// Waits for the end, and checks on the way that output comes in order and whole.
pub(crate) fn end(told: &Receiver<Told>) -> Ended {
    let mut at: BTreeMap<Stream, u64> = BTreeMap::new();
    loop {
        match told.recv_timeout(LIMIT).expect("an end within the limit") {
            Told::Output(stream, offset, bytes) => {
                let next = at.entry(stream).or_default();
                assert_eq!(*next, offset, "{stream:?} goes on where it was");
                *next += bytes.len() as u64;
            }
            Told::Ended(ended) => return ended,
            Told::Unknown(reason) => panic!("unknown: {reason}"),
        }
    }
}

pub(crate) fn text(kept: &Kept) -> String {
    String::from_utf8(kept.whole().unwrap()).unwrap()
}

/// Waits until an attempt is not running any more.
pub(crate) fn settled(world: &World, key: &AttemptKey) -> Found {
    eventually("the attempt is over", || match world.attempts.look(key).unwrap() {
        Found::Running => Err("it is running"),
        found @ (Found::Exit(_) | Found::NotStarted | Found::Unknown(_)) => Ok(found),
    })
}

/// Whether steps that only read have a user of their own here.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
