//! A host whose power can fail: its state is on a disk of its own, and everything on it dies together.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fettle_tests::cluster::LIMIT;
use fettle_tests::power::Disk;
use fettle_tests::programs::Program;
use fettle_tests::{Cluster, eventually, remains};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use super::Way;

/// Starts a program of a host with an environment.
type Launch<'c> = Box<dyn Fn(&[(&str, &str)]) -> Program + Send + 'c>;

/// A boot of a host.
pub(super) struct Boot {
    pub(super) id: String,
    pub(super) since: SystemTime,
}

/// One host, with one of our programs.
pub(super) struct Host<'c> {
    cluster: &'c Cluster,
    launch: Launch<'c>,
    pub(super) name: String,
    disk: Disk,
    agent: Option<Program>,
    /// How often it was booted.
    boots: u32,
    /// When it was booted last, by the kernel's boot clock, in milliseconds.
    booted: i64,
    /// When everything on it was gone before it was booted last.
    since: SystemTime,
    /// Whether the journal is rewritten at every turn.
    pub(super) compacts: bool,
    /// … as the agent was told that runs.
    compacting: bool,
    /// By how much later it is, to an agent that is started now and looks which runs are old.
    later: Option<Duration>,
    armed: Option<(String, Way)>,
    /// Deaths that were asked for and happened.
    pub(super) deaths: u64,
}

impl<'c> Host<'c> {
    /// A host with an empty disk and an agent; none when that is not allowed here.
    pub(super) fn new(cluster: &'c Cluster, name: String) -> Option<Host<'c>> {
        let of = name.clone();
        Host::with(cluster, name, Box::new(move |env| cluster.launch_agent(&of, env)))
    }

    /// The controller's host, whose disk is empty. The controller must not run.
    pub(super) fn of_controller(cluster: &'c Cluster) -> Option<Host<'c>> {
        // The certificates of all the world's authorities take a debug build longer to read than all else that it starts with.
        let launch = |env: &[(&str, &str)]| {
            let authorities = cluster.path("ca.pem").display().to_string();
            cluster.launch_controller(&[env, &[("SSL_CERT_FILE", &*authorities)]].concat())
        };
        Host::with(cluster, "controller".to_owned(), Box::new(launch))
    }

    fn with(cluster: &'c Cluster, name: String, launch: Launch<'c>) -> Option<Host<'c>> {
        let disk = Disk::over(&cluster.path(&name))?;
        fs::create_dir_all(cluster.path(&format!("stories/{name}"))).expect("a folder can be made");
        Some(Host {
            cluster,
            launch,
            name,
            disk,
            agent: None,
            boots: 1,
            booted: uptime(),
            since: SystemTime::now(),
            compacts: false,
            compacting: false,
            later: None,
            armed: None,
            deaths: 0,
        })
    }

    /// A new one in its place, as if nothing had ever been on it.
    pub(super) fn wipe(&mut self) {
        self.halt();
        for entry in fs::read_dir(self.disk.path()).expect("it can be read").flatten() {
            let gone = if entry.path().is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            gone.expect("it can be removed");
        }
        fettle_tests::power::sync(self.disk.path()).expect("it can be synced");
    }

    /// What it is part of.
    pub(super) fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// The boot it is in.
    fn boot(&self) -> String {
        format!("{}-boot-{}", self.name, self.boots)
    }

    /// The boot it is in, and since when: whatever acted before is of an earlier one.
    pub(super) fn booted(&self) -> Boot {
        Boot { id: self.boot(), since: self.since }
    }

    /// Where its stories are told.
    pub(super) fn stories(&self) -> PathBuf {
        self.cluster.path(&format!("stories/{}", self.name))
    }

    fn arm_file(&self) -> PathBuf {
        self.cluster.path(&format!("{}.arm", self.name))
    }

    /// The environment of its programs.
    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("FETTLE_CRASH_AT", format!("@{}", self.arm_file().display())),
            ("FETTLE_BOOT", format!("{}@{}", self.boot(), self.booted)),
        ];
        env.extend(self.later.map(|later| ("FETTLE_LATER_MS", later.as_millis().to_string())));
        env.extend(self.compacts.then(|| ("FETTLE_COMPACT_AT", "1".to_owned())));
        env
    }

    /// Starts its agent.
    pub(super) fn start(&mut self) {
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.agent = Some((self.launch)(&env));
        self.compacting = self.compacts;
    }

    /// Starts its agent, which takes it to be so much later when it looks which runs are old; after its death it does not.
    pub(super) fn start_later(&mut self, later: Duration) {
        self.later = Some(later);
        self.start();
        self.later = None;
    }

    /// Starts its agent, unless it runs as it should.
    pub(super) fn start_if_not(&mut self) {
        if self.agent.is_none() || self.compacting != self.compacts {
            self.halt();
            self.start();
        }
    }

    /// Stops its agent, and everything else it runs.
    pub(super) fn halt(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill();
        }
        let state = self.disk.path().to_owned();
        let stories = self.stories();
        eventually("everything on the host is gone", LIMIT, || {
            // What its steps do has the story's folder in its environment.
            let left = remains::of_any(&[&state, &stories]);
            if left.is_empty() {
                return Ok(());
            }
            left.iter().filter_map(|pid| Pid::from_raw(*pid)).for_each(|pid| {
                let _ = kill_process(pid, Signal::KILL);
            });
            Err(format!("{left:?}"))
        });
    }

    /// Says where the next program of it dies, and how.
    pub(super) fn arm(&mut self, at: &str, way: Way) {
        let told = match way {
            Way::Kill => at.to_owned(),
            Way::Power => format!("{at} power={}", self.disk.path().display()),
        };
        let fresh = self.arm_file().with_extension("new");
        fs::write(&fresh, told).and_then(|()| fs::rename(&fresh, self.arm_file())).expect("a file");
        self.armed = Some((at.to_owned(), way));
    }

    /// Nobody dies there any more.
    pub(super) fn disarm(&mut self) {
        // Unless somebody just did.
        if fs::remove_file(self.arm_file()).is_err() {
            self.look();
        }
        self.armed = None;
    }

    /// Whether a death was asked for and has not happened yet.
    pub(super) fn waits(&self) -> bool {
        self.armed.is_some()
    }

    /// Looks whether somebody has died, and does what is done then: after a kill, the agent is started again by whoever
    /// looks after services; after a power failure, the whole host is booted again.
    pub(super) fn look(&mut self) {
        let died = self.armed.as_ref().filter(|_| !self.arm_file().exists()).map(|(_, way)| *way);
        match died {
            Some(Way::Power) => {
                eventually("the power is gone", LIMIT, || {
                    if self.disk.is_cut() { Ok(()) } else { Err("the disk still takes something") }
                });
                self.reboot();
            }
            Some(Way::Kill) | None => {
                if let Some(agent) = &mut self.agent
                    && let Some(how) = agent.ended()
                {
                    // A service manager would start it again whatever the reason was, and hide it.
                    assert_eq!(how.signal(), Some(Signal::KILL.as_raw()), "{how}: {}", agent.said());
                    self.start();
                }
            }
        }
        if died.is_some() {
            self.armed = None;
            self.deaths += 1;
        }
    }

    /// Everything of it is gone, and it comes up again with what was durable.
    fn reboot(&mut self) {
        let ran = self.agent.is_some();
        self.halt();
        self.since = SystemTime::now();
        self.disk.mount_again();
        self.boots += 1;
        self.booted = uptime();
        if ran {
            self.start();
        }
    }

    /// The state folder.
    pub(super) fn state(&self) -> PathBuf {
        self.disk.path().to_owned()
    }

    /// The end of what its agent said.
    pub(super) fn said(&self) -> String {
        self.agent.as_ref().map(Program::said).unwrap_or_default()
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.kill();
        }
        remains::kill(self.disk.path());
        remains::kill(&self.stories());
    }
}

/// The kernel's boot clock, in milliseconds.
pub(super) fn uptime() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}
