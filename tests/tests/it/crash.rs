//! A `kill -9` of any program, at any point: the run ends as it should, and no step acts twice.
//!
//! The stage of these tests is here; the plays are in the modules. What really happened is told by a *ledger*: a file to
//! which each step appends a line with its process id. Steps wait for a file before they go on where a test wants to
//! hold them ([`Story::hold`]), so that a program can be killed at exactly that turn.

mod agent; // at each durable point of agent and shim
mod chance; // at random moments
mod controller; // around each commit, and at each turn of the story
mod disk; // no space left
mod matrix; // every point there is, in both ways
mod power; // … and no power
mod host; // a step in the middle, and what the agent finds when it comes back
mod network; // nothing arrives, or late, or in pieces
mod links; // … on links of the kernel's

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::programs::Program;
use fettle_tests::{Builder, Cluster, eventually};
use serde_json::Value;

/// How the first step may be taken up again when nobody saw its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Low {
    /// Only its check knows.
    Checked,
    /// It may run twice.
    Safe,
}

/// One that any host can run any number of times: each story has a directory of its own.
fn runbook(low: Low) -> String {
    let (name, repeat) = match low {
        Low::Checked => ("checked", "never\n    check: file(inputs.dir + \"/low\").exists"),
        Low::Safe => ("safe", "safe"),
    };
    let step = |word: &str| {
        format!(
            "|
      touch \"$DIR/at-{word}\"
      until [ -e \"$DIR/go-{word}\" ]; do sleep 0.02; done
      echo \"{word} $$\" >> \"$DIR/ledger\"
      touch \"$DIR/{word}\"
      echo {word} is done
    env: {{ DIR: \"${{{{ inputs.dir }}}}\" }}"
        )
    };
    format!(
        r#"fettle: 1
runbook: crash/{name}
title: Two steps that leave a line each
owner: tests
inputs:
  dir: {{ type: path }}
on:
  - alert: Crash-{name}
    host: labels.instance
    inputs: {{ dir: "${{{{ labels.dir }}}}" }}
diagnose:
  - id: look
    run: |
      until [ -e "$DIR/go-look" ]; do sleep 0.02; done
      echo looked
    env: {{ DIR: "${{{{ inputs.dir }}}}" }}
    sandbox: {{ read: all }}
remediate:
  - id: low
    risk: low
    run: {low}
    repeat: {repeat}
    undo: none
  - id: high
    risk: high
    run: {high}
    repeat: never
    undo: none
verify:
  - id: both
    that: file(inputs.dir + "/high").exists && file(inputs.dir + "/go-verify").exists
    within: 20s
"#,
        low = step("low"),
        high = step("high"),
    )
}

/// A controller that knows the runbooks.
fn stage() -> Builder {
    Cluster::builder().runbook(&runbook(Low::Checked)).runbook(&runbook(Low::Safe))
}

/// One alert on one host, and what becomes of it.
struct Story<'c> {
    cluster: &'c Cluster,
    host: String,
    low: Low,
    dir: PathBuf,
    run: String,
}

impl<'c> Story<'c> {
    /// Prepares one; nothing holds it.
    fn new(cluster: &'c Cluster, host: &str, low: Low) -> Story<'c> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let dir = cluster.path(&format!("stories/{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&dir).expect("a folder can be made");
        let story = Story { cluster, host: host.to_owned(), low, dir, run: String::new() };
        ["look", "low", "high", "verify"].iter().for_each(|turn| story.go(turn));
        story
    }

    /// Holds the story before a turn: `look`, `low`, `high` or `verify`.
    fn hold(self, turn: &str) -> Story<'c> {
        fs::remove_file(self.dir.join(format!("go-{turn}"))).expect("it was free to go");
        self
    }

    /// Lets it go on.
    fn go(&self, turn: &str) {
        fs::write(self.dir.join(format!("go-{turn}")), "").expect("a file can be written");
    }

    /// What is posted.
    fn alert(&self) -> Value {
        let name = match self.low {
            Low::Checked => "Crash-checked",
            Low::Safe => "Crash-safe",
        };
        firing(name, &[("instance", &self.host), ("dir", &self.dir.display().to_string())])
    }

    /// Posts the alert until it is taken, as Alertmanager does.
    #[track_caller]
    fn post(&mut self, alert: &Value, mut meanwhile: impl FnMut()) {
        self.run = eventually("the alert is taken and starts a run", LIMIT, || {
            meanwhile();
            let answer = self.cluster.post(alert);
            let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            match said["signals"][0]["run"].as_str() {
                Some(run) if answer.status == 200 => Ok(run.to_owned()),
                Some(_) | None => Err(format!("{answer:?}")),
            }
        });
    }

    /// The alert comes in.
    #[track_caller]
    fn begin(mut self) -> Story<'c> {
        let alert = self.alert();
        self.post(&alert, || ());
        self
    }

    /// The host run as people see it; nothing while nobody answers.
    fn seen(&self) -> Option<Value> {
        let output = self.cluster.fettle("ana", &["run", "show", &self.run, "-o", "json"]);
        let run: Value = serde_json::from_slice(&output.stdout).ok()?;
        output.status.success().then(|| run["hosts"][0].clone())
    }

    /// Waits until a file of the story is there.
    #[track_caller]
    fn until_file(&self, name: &str) {
        eventually(&format!("{name} is there"), LIMIT, || {
            let there = fs::exists(self.dir.join(name)).unwrap_or_default();
            if there {
                Ok(())
            } else {
                Err(format!("{:#}\n{}", self.seen().unwrap_or_default(), self.cluster.said()))
            }
        });
    }

    /// Plays on to the end, approving at the gate, and looking after the programs meanwhile. Gives back the host run:
    /// ended, or waiting for a person to resolve it.
    #[track_caller]
    fn play(&self, mut meanwhile: impl FnMut()) -> Value {
        eventually("the run ends, or waits for a person who looks", 2 * LIMIT, || {
            meanwhile();
            let seen = self.seen().ok_or_else(|| self.cluster.said())?;
            let at = |key: &str| seen[key].as_str().unwrap_or_default().to_owned();
            if at("state") == "ended" || at("waiting_for") == "resolve" {
                return Ok(seen);
            }
            if at("waiting_for") == "gate" {
                self.try_to_approve(&at("gate"));
            }
            Err(format!("{seen:#}\n{}", self.log()))
        })
    }

    fn try_to_approve(&self, gate: &str) {
        // It may be decided already, or the controller may be away: who waits looks again.
        let _ = self.cluster.fettle("ana", &["approve", gate, "--yes", "--reason", "seen"]);
    }

    /// Approves, and it must work.
    #[track_caller]
    fn approve(&self, gate: &str) {
        let output = self.cluster.fettle("ana", &["approve", gate, "--yes", "--reason", "seen"]);
        assert!(output.status.success(), "{}", told(&output));
    }

    /// How often a step did what it does.
    fn times(&self, step: &str) -> usize {
        self.ledger().lines().filter(|line| line.starts_with(step)).count()
    }

    fn ledger(&self) -> String {
        fs::read_to_string(self.dir.join("ledger")).unwrap_or_default()
    }

    /// Fails unless everything went well and each step acted once.
    #[track_caller]
    fn healed(&self, seen: &Value) {
        assert_eq!(seen["ending"], "verified", "{seen:#}\n{}\n{}", self.ledger(), self.log());
        assert_eq!((self.times("low"), self.times("high")), (1, 1), "{seen:#}\n{}", self.ledger());
    }

    fn log(&self) -> String {
        tail(&self.cluster.path(&format!("{}.log", self.host)))
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
}

/// A program that is started again whenever it has died.
struct Kept<'c> {
    start: Box<dyn Fn() -> Program + Send + 'c>,
    program: Program,
    deaths: usize,
}

impl<'c> Kept<'c> {
    /// `first` is how it is started now; `start` how it is after its death.
    fn new(first: Program, start: impl Fn() -> Program + Send + 'c) -> Kept<'c> {
        Kept { start: Box::new(start), program: first, deaths: 0 }
    }

    /// Starts it again if it is dead.
    fn look(&mut self) {
        if !self.program.runs() {
            self.deaths += 1;
            self.program = (self.start)();
        }
    }

    /// `kill -9`, and starts it again.
    fn restart(&mut self) {
        self.program.kill();
        self.look();
    }
}

/// Folds the controller's whole history and compares it with its tables; the controller must have ended.
#[track_caller]
fn history_gives_the_tables(cluster: &Cluster) {
    let store = fettle_controller::store::Sqlite::open(&cluster.path("controller/store")).expect("a store");
    let differences = fettle_controller::store::check_fold(&store).expect("it can be read");
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Joins a host that no other story uses.
#[track_caller]
fn fresh_host(cluster: &Cluster) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let host = format!("host-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    cluster.join(&host, &[]);
    host
}

/// Does things on a few threads; all of them fail when one fails.
fn share<T: Send>(work: Vec<T>, threads: usize, each: impl Fn(T) + Sync) {
    let work = std::sync::Mutex::new(work);
    let next = || work.lock().expect("nobody panics in here").pop();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = next() {
                    each(one);
                }
            });
        }
    });
}

/// Until the controller answers; people stay signed in over its deaths.
#[track_caller]
fn wait_for(cluster: &Cluster) {
    eventually("the controller answers", LIMIT, || {
        let output = cluster.fettle("ana", &["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() { Ok(()) } else { Err(format!("{status:#}\n{}", cluster.said())) }
    });
}
