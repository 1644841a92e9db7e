//! A host to break, and a controller that heals it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fettle_tests::alerts::firing;
use fettle_tests::cluster::told;
use fettle_tests::{Builder, Cluster, Systemd, eventually};
use serde_json::Value;

/// How long a whole run may take: it verifies for up to a minute and a half.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// The runbooks of the group `host`, as shipped, each with its name.
pub(super) fn shipped() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runbooks/library/host");
    let mut found: Vec<(String, String)> = fs::read_dir(folder)
        .expect("there is a library")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| {
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("it is text"))
        })
        .collect();
    found.sort();
    found
}

/// A controller with the whole group in its library, certified, and everything in mode `auto`.
pub(super) fn builder() -> Builder {
    shipped().iter().fold(Cluster::builder(), |builder, (_, text)| builder.runbook(text))
}

/// The host `web-1`, inside its own systemd.
pub(super) struct Scene {
    pub(super) machine: Systemd,
    pub(super) cluster: Cluster,
}

impl Scene {
    /// Boots, prepares the host, and lets its agent join. None, and loud, where nothing can be booted.
    #[track_caller]
    pub(super) fn new(prepare: impl FnOnce(&Systemd)) -> Option<Scene> {
        Scene::with(builder(), prepare)
    }

    /// The same for runbooks whose guards have been taken off, so that several runs follow each other at once.
    #[track_caller]
    pub(super) fn unguarded(prepare: impl FnOnce(&Systemd)) -> Option<Scene> {
        let open = |text: &str| -> String {
            text.lines().filter(|line| !line.starts_with("guard:")).map(|line| format!("{line}\n")).collect()
        };
        let builder =
            shipped().iter().fold(Cluster::builder(), |builder, (_, text)| builder.runbook(&open(text)));
        Scene::with(builder, prepare)
    }

    #[track_caller]
    fn with(builder: Builder, prepare: impl FnOnce(&Systemd)) -> Option<Scene> {
        let machine = Systemd::boot()?;
        prepare(&machine);
        let cluster = builder.start();
        machine.agent(&cluster, "web-1");
        Some(Scene { machine, cluster })
    }

    /// Posts an alert about this host, and gives back the run it starts.
    #[track_caller]
    pub(super) fn fire(&self, alert: &str, labels: &[(&str, &str)]) -> String {
        let labels: Vec<(&str, &str)> =
            [("instance", "web-1:9100")].into_iter().chain(labels.iter().copied()).collect();
        self.cluster.fire_body(&firing(alert, &labels))
    }

    /// A person starts a runbook here.
    #[track_caller]
    pub(super) fn start(&self, runbook: &str, inputs: &[&str]) -> String {
        let mut arguments = vec!["start", runbook, "--host", "web-1", "--detach"];
        inputs.iter().for_each(|input| arguments.extend(["-i", input]));
        let started = self.cluster.json("ana", &arguments);
        started["run"].as_str().expect("a start names its run").to_owned()
    }

    /// Another person approves the gate at which a run waits; gives back what they were shown.
    #[track_caller]
    pub(super) fn approve(&self, run: &str) -> String {
        let gate = self.cluster.gate(run);
        let output = self.cluster.fettle("ben", &["approve", &gate, "--yes", "--reason", "seen"]);
        assert!(output.status.success(), "{}", told(&output));
        told(&output)
    }

    /// Waits until a run has ended.
    #[track_caller]
    pub(super) fn ended(&self, run: &str) -> Ended {
        let shown = eventually("the run has ended", LIMIT, || {
            let shown = self.cluster.json("ana", &["run", "show", run]);
            if shown["hosts"][0]["state"] == "ended" {
                Ok(shown)
            } else {
                Err(format!("{shown:#}\n{}\n{}", self.cluster.said(), self.machine.agent_said()))
            }
        });
        let logs = self.cluster.fettle("ana", &["logs", run]);
        Ended { run: shown["hosts"][0].clone(), said: told(&logs) }
    }

    /// Makes a small ext4 file system at a place inside, or a tmpfs where there are no loop devices; it goes with the machine.
    #[track_caller]
    pub(super) fn ext4(machine: &Systemd, place: &str, megabytes: u32, inodes: u32) {
        let image = machine.directory().join(format!("image{}", place.replace('/', "-")));
        let file = fs::File::create(&image).expect("a file can be made");
        file.set_len(u64::from(megabytes) << 20).expect("it can be long");
        let image = image.display().to_string();
        outside(&["mkfs.ext4", "-q", "-F", "-m", "0", "-N", &inodes.to_string(), &image]);
        machine.ok(&["mkdir", "-p", place]);
        let loops = Command::new("losetup").args(["--find", "--show", &image]).output();
        let Some(loops) = loops.ok().filter(|output| output.status.success()) else {
            eprintln!("no loop devices here: {place} is a tmpfs of the same size instead of ext4");
            let size = format!("size={megabytes}M,nr_inodes={inodes}");
            machine.ok(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", place]);
            return;
        };
        let device = String::from_utf8_lossy(&loops.stdout).trim().to_owned();
        let number = device.trim_start_matches("/dev/loop").to_owned();
        machine.ok(&["mknod", &device, "b", "7", &number]);
        machine.ok(&["mount", "-t", "ext4", &device, place]);
        // It is let go when the last mount of it is gone.
        outside(&["losetup", "--detach", &device]);
    }

    /// Everything below a place: kind, size, path.
    #[track_caller]
    pub(super) fn listing(&self, place: &str) -> BTreeSet<String> {
        let listed = self.machine.ok(&["find", place, "-xdev", "-printf", "%y %s %p\\0"]);
        // A directory's own size is the file system's business.
        let entries = listed.split('\0').filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                if entry.starts_with('d') {
                    entry.rsplit_once(' ').map_or(entry, |(_, path)| path)
                } else {
                    entry
                }
                .to_owned()
            })
            .collect()
    }
}

/// A service that, the first time it is started, writes so many megabytes into a file that it deletes and keeps open.
pub(super) fn leaky(file: &str, megabytes: u32) -> String {
    let program = format!(
        r#"unless (-e "/run/once") {{ open(L, ">{file}") or die; print L "x" x 1000000 for 1..{megabytes}; L->flush; unlink "{file}"; open(A, ">/run/once") }} $$SIG{{HUP}} = sub {{ close L }}; while (1) {{ sleep 1000 }}"#
    );
    format!(
        "[Service]\nExecStart=/usr/bin/perl -MIO::Handle -e '{program}'\nExecReload=/bin/kill -HUP $MAINPID\n"
    )
}

/// Runs a command on this machine that must work.
#[track_caller]
pub(super) fn outside(argv: &[&str]) -> String {
    let output = Command::new(argv[0]).args(&argv[1..]).output().expect("it can be run");
    assert!(output.status.success(), "{}: {}", argv.join(" "), told(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A run of one host that is over.
pub(super) struct Ended {
    run: Value,
    /// What its steps printed.
    pub(super) said: String,
}

impl Ended {
    pub(super) fn how(&self) -> &str {
        self.run["ending"].as_str().unwrap_or_default()
    }

    /// How a step ended: `succeeded`, `skipped` …; empty if it was not reached.
    pub(super) fn step(&self, path: &str) -> &str {
        let steps = self.run["steps"].as_array().map_or(&[][..], Vec::as_slice);
        steps
            .iter()
            .rev()
            .find(|step| step["path"] == path)
            .and_then(|step| step["state"].as_str())
            .unwrap_or_default()
    }

    /// One output of a step, as shown; empty if there is none.
    pub(super) fn output(&self, path: &str, name: &str) -> &str {
        let steps = self.run["steps"].as_array().map_or(&[][..], Vec::as_slice);
        let step = steps.iter().find(|step| step["path"] == path).unwrap_or(&Value::Null);
        step["outputs"][name].as_str().unwrap_or_default()
    }

    /// Everything there is to see of it, for when a test fails.
    pub(super) fn all(&self) -> String {
        format!("{:#}\n{}", self.run, self.said)
    }

    /// What is said about a step.
    pub(super) fn message(&self, path: &str) -> &str {
        let steps = self.run["steps"].as_array().map_or(&[][..], Vec::as_slice);
        let found = steps.iter().rev().find(|step| step["path"] == path);
        found.and_then(|step| step["message"].as_str()).unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn is(&self, how: &str) {
        assert_eq!(self.how(), how, "{}", self.all());
    }

    #[track_caller]
    pub(super) fn steps(&self, expected: &[(&str, &str)]) {
        let seen: Vec<(&str, &str)> = expected.iter().map(|(path, _)| (*path, self.step(path))).collect();
        assert_eq!(seen, expected, "{}", self.all());
    }
}
