//! A systemd of its own: real, booted for one test, over an overlay of this machine's root filesystem.
//!
//! Inside are the programs and files of this machine; what is changed there is gone with it. It has its own processes, mounts,
//! control groups and host name, journald and D-Bus, no devices, and **the machine's network**: an agent inside joins a
//! [`Cluster`] outside, as `docs/operating.md` says, and is a unit like any other ([`Systemd::agent`]).
//!
//! A script of its own keeps it (`boot.sh`), and ends it when this process has ended, however that was. Only root can do this:
//! elsewhere [`Systemd::boot`] says loudly that a test did not run.

use std::fs;
use std::io::{PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::{LIMIT, told};
use crate::programs::binary;
use crate::{Cluster, eventually};

/// Booting takes half a second where nothing else goes on.
const BOOT: Duration = Duration::from_secs(60);

/// The unit of an agent inside, as `docs/operating.md` has it.
const AGENT: &str = "fettle-agent.service";

/// Its program, inside.
const PROGRAM: &str = "/usr/local/bin/fettle-agent";

/// A running systemd. Dropped, it is gone with everything in it.
pub struct Systemd {
    keeper: Child,
    life: Option<PipeWriter>,
    init: u32,
    directory: TempDir,
}

impl Systemd {
    /// Boots one; waits until it takes units. None, and loud, where this process is not root.
    #[track_caller]
    pub fn boot() -> Option<Systemd> {
        Systemd::boot_over(None)
    }

    /// The same, whose agent's state is in a folder outside, which may be a disk of its own.
    #[track_caller]
    pub fn boot_with(state: &Path) -> Option<Systemd> {
        Systemd::boot_over(Some(state))
    }

    #[track_caller]
    fn boot_over(state: Option<&Path>) -> Option<Systemd> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: only root can boot a systemd of its own, and this test needs one");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("fettle-systemd-").tempdir().expect("a directory");
        let script = directory.path().join("boot.sh");
        fs::create_dir(directory.path().join("machine")).expect("a folder can be made");
        fs::write(&script, include_str!("systemd/boot.sh")).expect("a file can be written");
        let programs = binary("fettle-agent");
        let (stdin, life) = std::io::pipe().expect("a pipe");
        let keeper = Command::new("setsid")
            .arg("bash")
            .args([&script, &directory.path().join("machine")])
            .arg(programs.parent().expect("a program is in a folder"))
            .envs(state.map(|state| ("FETTLE_TEST_STATE", state)))
            .stdin(stdin)
            .stdout(Stdio::null())
            .spawn()
            .expect("setsid and bash can be run");
        let mut machine = Systemd { keeper, life: Some(life), init: 0, directory };
        machine.init = eventually("systemd is started", BOOT, || {
            let ended = machine.keeper.try_wait().expect("a child can be asked for");
            assert!(ended.is_none(), "booting a systemd failed: {}", machine.said());
            machine.find()
        });
        eventually("systemd takes units", BOOT, || {
            let output = machine.run(&["systemctl", "is-active", "fettle-test.target"]);
            if output.status.success() {
                Ok(())
            } else {
                Err(format!("{}\n{}", told(&output), machine.said()))
            }
        });
        Some(machine)
    }

    /// The only child of the starter.
    fn find(&self) -> Result<u32, String> {
        let found = || -> Option<u32> {
            let starter = fs::read_to_string(self.kept("starter")).ok()?;
            let starter = starter.trim();
            let children = fs::read_to_string(format!("/proc/{starter}/task/{starter}/children")).ok()?;
            let child = children.trim().parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim() == "systemd").then_some(child)
        };
        found().ok_or_else(|| self.said())
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.directory.path().join("machine").join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.kept("said")).unwrap_or_else(|error| error.to_string())
    }

    /// The number, outside, of its first process.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Its control group, as seen from outside.
    pub fn group(&self) -> PathBuf {
        fs::read_to_string(self.kept("group")).unwrap_or_default().trim().into()
    }

    /// Where it keeps what it is made of. Nothing of it is there any more afterwards.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command that will run inside as root, outside of every unit.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-p", "-C", "-u", "-i", "-r", "-w", "--"])
            .args(argv)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command inside.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.command(argv).output().expect("nsenter can be run")
    }

    /// Runs a command inside that must work; gives back what it printed.
    #[track_caller]
    pub fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(output.status.success(), "{}: {}", argv.join(" "), told(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// A file inside, for this process to read or write.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Writes a file inside, and the folders above it.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        let mut file = fs::File::create(&path).expect("a file can be written");
        file.write_all(text.as_bytes()).expect("a file can be written");
    }

    /// Makes or changes a unit, without starting it.
    #[track_caller]
    pub fn unit(&self, name: &str, text: &str) {
        self.write(&format!("/etc/systemd/system/{name}"), text);
        self.ok(&["systemctl", "daemon-reload"]);
    }

    /// One property of a unit, as `systemctl show` says it.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&["systemctl", "show", "--value", "--property", name, "--", unit])
    }

    /// Waits until a property of a unit is so.
    #[track_caller]
    pub fn until(&self, unit: &str, name: &str, wanted: &str) {
        eventually(&format!("{name} of {unit} is {wanted}"), LIMIT, || {
            let seen = self.property(unit, name);
            if seen == wanted { Ok(()) } else { Err(format!("{seen}\n{}", self.journal(unit))) }
        });
    }

    /// What a unit and its processes have said.
    pub fn journal(&self, unit: &str) -> String {
        let output =
            self.run(&["journalctl", "--no-pager", "--lines=60", "--output=short-precise", "--unit", unit]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Joins a host to a cluster outside and starts its agent as a unit inside, as `docs/operating.md` says; waits until it is
    /// connected.
    #[track_caller]
    pub fn agent(&self, cluster: &Cluster, host: &str) {
        self.agent_as(cluster, host, "root");
    }

    /// The same, with an agent of another user.
    #[track_caller]
    pub fn agent_as(&self, cluster: &Cluster, host: &str, user: &str) {
        let made = cluster.json("ana", &["agent", "token", "create", host]);
        let token = made["token"].as_str().expect("a token is text");
        let program = PROGRAM;
        self.install_agent(user);
        let controller = format!("https://localhost:{}", cluster.grpc);
        let root = cluster.root_fingerprint();
        let join = ["join", "--controller", &controller, "--token", token, "--root", &root];
        self.ok(&[&["runuser", "--user", user, "--", program], &join[..]].concat());
        self.start_agent(cluster, host);
    }

    /// Makes the agent a unit inside, which does not run yet.
    #[track_caller]
    pub fn install_agent(&self, user: &str) {
        self.write(PROGRAM, "");
        self.ok(&["mount", "--bind", &binary("fettle-agent").display().to_string(), PROGRAM]);
        self.ok(&["install", "--directory", "--mode=700", "--owner", user, "/var/lib/fettle-agent"]);
        let unit =
            format!("[Service]\nExecStart={PROGRAM} run\nRestart=always\nKillMode=process\nUser={user}\n");
        self.unit(AGENT, &unit);
    }

    /// Starts the agent inside, again, and waits until it is connected.
    #[track_caller]
    pub fn start_agent(&self, cluster: &Cluster, host: &str) {
        self.ok(&["systemctl", "start", AGENT]);
        let connected = || {
            let agents = cluster.json("ana", &["agent", "list"]);
            let mut all = agents.as_array().into_iter().flatten();
            let is_there = all.any(|agent| agent["host"] == host && agent["state"] == "connected");
            if is_there { Ok(()) } else { Err(format!("{agents:#}\n{}", self.agent_said())) }
        };
        eventually("the agent inside is connected", LIMIT, connected);
    }

    /// `kill -9` of the agent inside, and starts it again.
    #[track_caller]
    pub fn restart_agent(&self, cluster: &Cluster, host: &str) {
        self.ok(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", AGENT]);
        self.ok(&["systemctl", "stop", AGENT]);
        self.start_agent(cluster, host);
    }

    /// What the agent inside said.
    pub fn agent_said(&self) -> String {
        self.journal(AGENT)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.life.take());
        // It ends by itself now, and must: what it leaves is looked for by nobody else.
        let _ = self.keeper.wait();
    }
}
