//! Where steps are tried: a directory that everybody may read and write, with an agent's state beside it; and two ways to
//! start a step in it.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use fettle_agent::works::attempt::{Attempts, Ended, Happening, Outcome, Spec, Work};
use fettle_agent::works::record::AttemptKey;
use fettle_agent::works::sandbox::{Allowed, Reading};
use fettle_runbooks::id::RunId;
use tempfile::TempDir;

use crate::wait::{LIMIT, eventually};

/// `nobody`, whose agent is an ordinary user's.
const NOBODY: u32 = 65_534;

/// Whose agent starts the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    /// Root's: everything the kernel has.
    Root,
    /// An ordinary user's: what the kernel gives to everybody.
    Ordinary,
}

/// The agents that can be tried here. Only root can try both.
pub(crate) fn agents() -> Vec<Agent> {
    if rustix::process::geteuid().is_root() {
        vec![Agent::Root, Agent::Ordinary]
    } else {
        eprintln!("not root: only the sandbox of an ordinary user's agent is tried");
        vec![Agent::Ordinary]
    }
}

/// A directory for one agent.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) agent: Agent,
    /// What root does first, in a mount namespace of the agent's own.
    before: Option<String>,
}

impl Place {
    pub(crate) fn new(agent: Agent) -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap(), agent, before: None };
        open_to_all(place.dir.path());
        // The programs, where every user can start them.
        let programs = [
            ("helper", std::env::current_exe().unwrap()),
            ("agent", env!("CARGO_BIN_EXE_fettle-agent").into()),
        ];
        for (name, program) in programs {
            let link = std::fs::hard_link(&program, place.path(name));
            link.or_else(|_| std::fs::copy(&program, place.path(name)).map(drop)).unwrap();
        }
        std::fs::create_dir(place.path("state")).unwrap();
        std::fs::write(place.path("state/secret"), "the agent's own").unwrap();
        std::fs::write(place.path("file"), "a file of everybody's").unwrap();
        std::fs::set_permissions(place.path("file"), Permissions::from_mode(0o666)).unwrap();
        for name in ["state", "state/secret", "file"] {
            place.give(name);
        }
        place.give("");
        place
    }

    /// On a host that root changes first by this script, for this agent alone.
    pub(crate) fn after(mut self, script: &str) -> Place {
        self.before = Some(script.to_owned());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a file that of the user whose agent it is.
    pub(crate) fn give(&self, name: &str) {
        if self.is_another() {
            std::os::unix::fs::chown(self.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// The agent's user is not the test's.
    fn is_another(&self) -> bool {
        self.agent == Agent::Ordinary && rustix::process::geteuid().is_root()
    }

    /// A process outside all sandboxes, of the agent's own user.
    pub(crate) fn bystander(&self) -> Bystander {
        let mut command = Command::new("sleep");
        command.arg("1000");
        if self.is_another() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Bystander(command.spawn().unwrap())
    }

    /// Runs one of the [tries](crate::tries) in the sandbox; gives back what the kernel answered: an error's name, or
    /// `allowed`.
    pub(crate) fn tries(&self, what: &str, with: &[&str]) -> String {
        self.tries_allowed(Allowed::default(), what, with)
    }

    pub(crate) fn tries_allowed(&self, allowed: Allowed, what: &str, with: &[&str]) -> String {
        let helper = self.path("helper");
        let argv = [
            &helper.to_string_lossy(),
            "--exact",
            "tries::a_try_says_what_the_kernel_answers",
            "--nocapture",
            "--quiet",
        ];
        let mut spec = step(Work::Argv(argv.iter().map(|word| (*word).to_owned()).collect()), allowed);
        spec.env.insert("TRY".into(), what.into());
        spec.env.insert("WITH".into(), with.join("\n"));
        let ended = self.run(&spec);
        let said = text(&ended);
        let answer =
            said.lines().find_map(|line| line.split_once("answer: ")).map(|(_, answer)| answer.to_owned());
        answer.unwrap_or_else(|| panic!("{what} said nothing: {ended:?}"))
    }

    /// Runs a script in the sandbox.
    pub(crate) fn script(&self, source: &str, allowed: Allowed) -> Ended {
        let work = Work::Script { source: source.into(), interpreter: vec!["/bin/sh".into(), "-eu".into()] };
        self.run(&step(work, allowed))
    }

    pub(crate) fn run(&self, spec: &Spec) -> Ended {
        if !self.is_another() && self.before.is_none() {
            return start(&self.path("state"), spec);
        }
        let done = self.starter(spec).wait().unwrap();
        assert!(done.success(), "{done}");
        serde_json::from_slice(&std::fs::read(self.path("ended.json")).unwrap()).unwrap()
    }

    /// An agent that is a process of its own, for one step.
    pub(crate) fn starter(&self, spec: &Spec) -> Child {
        let order = self.path("spec.json");
        std::fs::write(&order, serde_json::to_vec(spec).unwrap()).unwrap();
        std::fs::set_permissions(&order, Permissions::from_mode(0o644)).unwrap();
        let helper = self.path("helper");
        let mut command = match &self.before {
            None => Command::new(&helper),
            Some(script) => self.changed(script, &helper),
        };
        command
            .args(["--exact", "place::a_step_that_only_reads_is_told_to_its_end", "--nocapture"])
            .env("STATE", self.path("state"))
            .env("SPEC", &order)
            .env("ENDED", self.path("ended.json"))
            .env("AGENT", self.path("agent"))
            .stdout(Stdio::null())
            .current_dir("/");
        if self.is_another() && self.before.is_none() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn().unwrap()
    }

    fn changed(&self, script: &str, helper: &Path) -> Command {
        let user = NOBODY.to_string();
        let become_it = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
        command.arg(format!("{script}\nexec \"$@\"")).arg("sh");
        if self.is_another() {
            command.args(become_it);
        }
        command.arg(helper);
        command
    }
}

/// A process that others try to harm; it is gone when the test is.
pub(crate) struct Bystander(Child);

impl Bystander {
    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The agent of another user, for one step of whoever asks for it; else one of this process, for a step of its own.
#[test]
fn a_step_that_only_reads_is_told_to_its_end() {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(state), Some(order), Some(result)) = (path("STATE"), path("SPEC"), path("ENDED")) else {
        let own = tempfile::tempdir().unwrap();
        let words = ["echo", "read"].map(str::to_owned).to_vec();
        let ended = start(own.path(), &step(Work::Argv(words), Allowed::default()));
        assert_eq!(text(&ended).trim(), "read", "{ended:?}");
        return;
    };
    let spec: Spec = serde_json::from_slice(&std::fs::read(order).unwrap()).unwrap();
    let ended = start(&state, &spec);
    std::fs::write(result, serde_json::to_vec(&ended).unwrap()).unwrap();
}

fn start(state: &Path, spec: &Spec) -> Ended {
    let helper =
        std::env::var_os("AGENT").map_or_else(|| env!("CARGO_BIN_EXE_fettle-agent").into(), PathBuf::from);
    let attempts = Attempts::open(state).unwrap().supervised_by(helper);
    let (tell, told) = channel();
    let observer = Box::new(move |happening: Happening<'_>| {
        if let Happening::Ended(ended) = happening {
            let _ = tell.send(ended);
        }
    });
    attempts.start_read(spec, observer).unwrap();
    told.recv_timeout(LIMIT).expect("an end within the limit")
}

pub(crate) fn step(work: Work, allowed: Allowed) -> Spec {
    let run = RunId::new(uuid::Uuid::now_v7());
    Spec {
        key: AttemptKey { run, path: "diagnose/step".into(), attempt: 1 },
        work,
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        allowed,
        timeout: LIMIT,
        grace: Duration::from_secs(1),
    }
}

/// What a certified runbook may ask for.
pub(crate) fn read_all() -> Allowed {
    Allowed { read: Reading::All, ..Allowed::default() }
}

pub(crate) fn connect(ports: &[u16]) -> Allowed {
    Allowed { connect: ports.to_vec(), ..Allowed::default() }
}

/// What a step wrote to its output. It must have been started.
pub(crate) fn text(ended: &Ended) -> String {
    assert_eq!(ended.outcome, Outcome::Exited, "{ended:?}");
    String::from_utf8(ended.stdout.whole().unwrap()).unwrap()
}

/// Waits for a process that was started with these words.
pub(crate) fn process_of(words: &[&str]) -> String {
    let wanted: String = words.iter().map(|word| format!("{word}\0")).collect();
    eventually(&format!("`{}` runs", words.join(" ")), || {
        let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((String::from_utf8_lossy(&words).into_owned(), entry.file_name()))
        });
        let all: Vec<_> = all.filter(|(words, _)| !words.is_empty()).collect();
        let found = all.iter().find(|(words, _)| *words == wanted);
        found.map(|(_, pid)| pid.to_string_lossy().into_owned()).ok_or_else(|| format!("{all:#?}"))
    })
}

fn open_to_all(dir: &Path) {
    std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
}
