//! How a story gets to a point, and how it ends there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use fettle_proto::signed::plan;
use fettle_proto::v1;
use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::desk::Desk;
use fettle_tests::programs::binary;
use fettle_tests::{Builder, Cluster, eventually, eventually_every, remains};
use serde_json::{Value, json};

use super::hosts::{Boot, Host};
use super::words::Word;
use super::{Chance, Row, Way};

/// Two steps whose effect is one call to the kernel, and which tell when they act again.
const RUNBOOK: &str = r#"fettle: 1
runbook: crash/matrix
title: Two steps that make a folder each
owner: tests
inputs:
  dir: { type: path }
on:
  - alert: Crash
    host: labels.instance
    inputs: { dir: "${{ labels.dir }}" }
diagnose:
  - id: look
    run: [echo, looked]
remediate:
  - id: low
    risk: low
    run: mkdir "$DIR/low" || mkdir "$DIR/low-again"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    check: file(inputs.dir + "/low").exists
    undo: none
  - id: high
    risk: high
    run: mkdir "$DIR/high" || mkdir "$DIR/high-again"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
verify:
  - id: both
    that: file(inputs.dir + "/high").exists
    within: 100ms
"#;

/// A run that is over is remembered for a day.
const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

/// Stories after which what a host keeps of them must go: its disk is small.
const ENOUGH: u64 = 40;

/// Between two looks at a run: to ask costs both programs more than a story loses by it.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// A controller that knows the runbook, and goes on trying.
pub(super) fn stage() -> Builder {
    Cluster::builder().runbook(RUNBOOK).policy(json!({
        "modes": [{ "runbook": "*", "mode": "auto" }],
        "guards": [{ "runbook": "*", "breaker": 1_000_000 }],
    }))
}

/// How a story gets to a point of the agent or its shims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Play {
    /// A host joins.
    Join,
    /// Its certificate is renewed.
    Renewal,
    /// It starts for the first time.
    FirstStart,
    /// Every connection has a number.
    Connect,
    /// It hears of a roster.
    Roster,
    /// A run is cancelled at its gate.
    Cancel,
    /// It removes what it kept of runs of old.
    Forget,
    /// Its journal ends in half a batch.
    Torn,
    /// Its journal is damaged.
    Damaged,
    /// Its journal is rewritten at every turn of a story.
    Rewritten,
    /// A story, at any turn.
    Turn,
    /// A story, at one of its steps.
    Step,
}

impl Play {
    pub(super) fn to(point: &str) -> Play {
        let (what, _) = point.split_once('.').unwrap_or((point, ""));
        match what {
            "join" => Play::Join,
            "renewal" => Play::Renewal,
            "attempts" => Play::FirstStart,
            "epoch" => Play::Connect,
            "roster" => Play::Roster,
            "tombstone" => Play::Cancel,
            "forget" => Play::Forget,
            "attempt" | "shim" => Play::Step,
            "journal" => match point.split('.').nth(1).unwrap_or_default() {
                "create" => Play::FirstStart,
                "compact" => Play::Rewritten,
                "cut" => Play::Torn,
                "aside" => Play::Damaged,
                _ => Play::Turn,
            },
            _ => panic!("how does one get to {point}?"),
        }
    }
}

/// One alert on one host.
pub(super) struct Story<'a, 'c> {
    cluster: &'c Cluster,
    desk: &'a Desk<'c>,
    host: String,
    dir: PathBuf,
    run: String,
}

impl<'a, 'c> Story<'a, 'c> {
    pub(super) fn new(
        cluster: &'c Cluster,
        desk: &'a Desk<'c>,
        host: &str,
        stories: &std::path::Path,
        number: u64,
    ) -> Story<'a, 'c> {
        let dir = stories.join(number.to_string());
        fs::create_dir_all(&dir).expect("a folder can be made");
        Story { cluster, desk, host: host.to_owned(), dir, run: String::new() }
    }

    /// Posts the alert until it is taken. Who takes it and says so must not lose it.
    #[track_caller]
    pub(super) fn begin(&mut self, mut meanwhile: impl FnMut()) {
        let alert = firing("Crash", &[("instance", &self.host), ("dir", &self.dir.display().to_string())]);
        self.run = eventually("the alert is taken and starts a run", LIMIT, || {
            meanwhile();
            let answer = self.cluster.post(&alert);
            let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            match said["signals"][0]["run"].as_str() {
                Some(run) if answer.status == 200 => Ok(run.to_owned()),
                Some(_) | None => Err(format!("{answer:?}")),
            }
        });
    }

    /// Looks until the host run looks as wanted.
    #[track_caller]
    fn until(
        &self,
        what: &str,
        mut meanwhile: impl FnMut() -> String,
        wanted: impl Fn(&v1::HostRun) -> bool,
    ) -> v1::HostRun {
        eventually_every(LOOK, what, 2 * LIMIT, || {
            let said = meanwhile();
            let seen = self.desk.host_run(&self.run)?;
            if wanted(&seen) { Ok(seen) } else { Err(format!("{}\n{said}", shown(&seen))) }
        })
    }

    fn acted(&self, step: &str) -> bool {
        self.acted_at(step).is_some()
    }

    fn acted_at(&self, step: &str) -> Option<SystemTime> {
        fs::metadata(self.dir.join(step)).and_then(|it| it.modified()).ok()
    }

    /// Nothing has acted twice, whatever else happened.
    #[track_caller]
    pub(super) fn nothing_twice(&self, context: &str) {
        for again in ["low-again", "high-again"] {
            assert!(!self.acted(again), "{context}: {again}");
        }
    }

    /// Plays to the end: approves at the gate, and says what is so where a person must look. `at_gate` is done before
    /// the approval. Gives back the host run, and the step that a person was asked about.
    #[track_caller]
    pub(super) fn play(
        &self,
        mut meanwhile: impl FnMut() -> String,
        mut at_gate: impl FnMut(),
    ) -> (v1::HostRun, Option<String>) {
        let mut asked = None;
        let mut approved = String::new();
        let mut tried = false;
        let seen = eventually_every(LOOK, "the run ends", 2 * LIMIT, || {
            let said = meanwhile();
            let acted = self.acted("high");
            let seen = self.desk.host_run(&self.run)?;
            assert!(tried || !acted, "it acted before anybody approved: {}", shown(&seen));
            if seen.state == "ended" {
                return Ok(seen);
            }
            if seen.waiting_for == "gate" && approved != seen.gate {
                if approved.is_empty() {
                    at_gate();
                }
                tried = true;
                // It may be decided already, or the controller be away: who waits looks again.
                if self.desk.approve(&seen.gate).is_ok() {
                    approved.clone_from(&seen.gate);
                }
            }
            if seen.waiting_for == "resolve" {
                let step = seen.steps.iter().rev().find(|step| step.path == seen.resolve);
                let state = step.map(|step| step.state.as_str());
                assert_eq!(state, Some("unknown"), "what nobody knows is shown as that: {}", shown(&seen));
            }
            if seen.waiting_for == "resolve" && remains::of(&self.dir).is_empty() {
                asked = Some(seen.resolve.clone());
                let step = seen.resolve.trim_start_matches("remediate/");
                let _ = self.desk.resolve(&self.run, &self.host, &seen.resolve, self.acted(step));
            }
            Err(format!("{}\n{said}", shown(&seen)))
        });
        (seen, asked)
    }
}

/// What people see of a host run.
pub(super) fn shown(seen: &v1::HostRun) -> String {
    let steps = seen
        .steps
        .iter()
        .map(|step| format!("{} {} {} {}", step.path, step.attempt, step.state, step.message));
    let steps: Vec<String> = steps.collect();
    format!("{} {} {} ({})\n  {}", seen.state, seen.waiting_for, seen.ending, seen.reason, steps.join("\n  "))
}

/// The boot in which the plan of a host run was made.
pub(super) fn boot_of_plan(seen: &v1::HostRun) -> Option<String> {
    Some(plan::decode(&seen.plan).ok()?.boot)
}

/// Plays rows on a host, one after the other. Gives back how many deaths there were.
pub(super) fn on_a_host(
    cluster: &Cluster,
    name: &str,
    share: &[(Row, Way)],
    chance: &mut Chance,
    times: u64,
) -> u64 {
    let Some(host) = Host::new(cluster, name.to_owned()) else { return 0 };
    let desk = Desk::of(cluster, "ana");
    let mut theatre = Theatre { cluster, desk: &desk, host, number: 0 };
    let mut rows: Vec<&(Row, Way)> = share.iter().collect();
    // What joins begins, as on every host.
    rows.sort_by_key(|(row, _)| Play::to(row.point) != Play::Join);
    for (row, way) in rows {
        for time in 0..times {
            let case = format!("{} {way:?} {time} on {name}", row.point);
            theatre.one(row, *way, chance, &case);
        }
    }
    nothing_came_late(&theatre.host.stories());
    theatre.host.deaths
}

/// After all stories: nothing has acted twice in one that was over, either.
#[track_caller]
fn nothing_came_late(stories: &Path) {
    for story in fs::read_dir(stories).expect("stories were told").flatten() {
        for again in ["low-again", "high-again"] {
            let late = story.path().join(again);
            assert!(!late.exists(), "after the run had ended: {}", late.display());
        }
    }
}

struct Theatre<'a, 'c> {
    cluster: &'c Cluster,
    desk: &'a Desk<'c>,
    host: Host<'c>,
    number: u64,
}

impl<'a, 'c> Theatre<'a, 'c> {
    fn one(&mut self, row: &Row, way: Way, chance: &mut Chance, case: &str) {
        let word = Word::of(row.says(way)).expect("it was read before");
        let play = Play::to(row.point);
        if play == Play::Join {
            return self.join(row, way, word, case);
        }
        if !self.host.state().join("identity").exists() {
            self.join_quietly();
        }
        // What is forgotten comes back with the journal, until that is written anew.
        self.host.compacts = matches!(play, Play::Rewritten | Play::Forget);
        let before = self.host.deaths;
        match play {
            Play::Join => {}
            Play::Renewal => {
                self.renewal(row, way);
                self.story(row, way, word, None, case);
            }
            Play::FirstStart => {
                self.host.halt();
                for folder in ["journal", "attempts"] {
                    let _ = fs::remove_dir_all(self.host.state().join(folder));
                }
                self.dies_at_start(row.point, way);
                self.story(row, way, word, None, case);
            }
            Play::Connect | Play::Roster => {
                self.host.halt();
                if play == Play::Roster {
                    let _ = fs::remove_file(self.host.state().join("roster.json"));
                }
                self.dies_at_start(row.point, way);
                self.story(row, way, word, None, case);
            }
            Play::Cancel => self.cancel(row, way, case),
            Play::Forget => self.forget(row, way, word, case),
            Play::Torn | Play::Damaged => self.damaged(row, way, word, play, case),
            Play::Rewritten | Play::Turn | Play::Step => {
                let turn = if chance.below(2) == 0 { Turn::Begin } else { Turn::Gate };
                let most = if play == Play::Step { 1 } else { 4 };
                let nth = 1 + chance.below(most);
                self.story(row, way, word, Some((turn, nth)), case);
                if self.host.waits() {
                    // Not so many times: then the first.
                    self.host.disarm();
                    self.story(row, way, word, Some((Turn::Begin, 1)), case);
                }
            }
        }
        assert!(self.host.deaths > before, "{case}: nobody ever came there\n{}", self.host.said());
        self.host.disarm();
    }

    /// Its agent starts and dies on its way.
    #[track_caller]
    fn dies_at_start(&mut self, point: &str, way: Way) {
        fettle_tests::power::sync(&self.host.state()).expect("it can be synced");
        self.host.arm(point, way);
        self.host.start();
        eventually("somebody dies", LIMIT, || {
            self.host.look();
            if self.host.waits() { Err(self.host.said()) } else { Ok(()) }
        });
    }

    fn next_story(&mut self) -> Story<'a, 'c> {
        self.number += 1;
        if self.number.is_multiple_of(ENOUGH) && !self.host.waits() {
            self.host.halt();
            self.host.start_later(TWO_DAYS);
        }
        Story::new(self.cluster, self.desk, &self.host.name, &self.host.stories(), self.number)
    }

    /// One story, in which somebody dies (or has died already), and its end.
    fn story(&mut self, row: &Row, way: Way, word: Word, dies: Option<(Turn, u64)>, case: &str) {
        self.host.start_if_not();
        let mut story = self.next_story();
        let arm = |host: &mut Host<'_>, nth: u64| host.arm(&format!("{}#{nth}", row.point), way);
        let host = &mut self.host;
        if let Some((Turn::Begin, nth)) = dies {
            arm(host, nth);
        }
        let host = std::cell::RefCell::new(host);
        let look = || {
            let mut host = host.borrow_mut();
            host.look();
            host.said()
        };
        story.begin(|| drop(look()));
        let at_gate = || {
            if let Some((Turn::Gate, nth)) = dies {
                arm(&mut host.borrow_mut(), nth);
            }
        };
        let (seen, asked) = story.play(look, at_gate);
        let host = host.into_inner();
        host.look();
        let context = format!("{case}, {dies:?}: {}\n{}", shown(&seen), host.said());
        story.nothing_twice(&context);
        if host.waits() {
            // Nobody died; it is tried again another way.
            assert_eq!(asked, None, "{context}");
            goes_on(&story, &seen, Some(&host.booted()), &context);
            return;
        }
        let hit = match dies {
            Some((Turn::Gate, _)) => "remediate/high",
            Some((Turn::Begin, _)) | None => "remediate/low",
        };
        match word {
            // A journal is written to, or anew, at any moment, also while `high` runs, and a shim may have begun it: then nobody can
            // know.
            Word::GoesOn if asked.is_some() && dies.is_some() && may_be_while_it_runs(row.point, way) => {
                assert_eq!(asked.as_deref(), Some("remediate/high"), "{context}");
                assert_eq!(seen.ending == "verified", story.acted("high"), "{context}");
                assert!(story.acted("low"), "{context}");
            }
            Word::GoesOn if dies.is_some() && was_cut_at_birth(&story, &seen, way, &context) => {
                assert_eq!(asked, None, "{context}");
            }
            // The agent has heard of the result already, and what it wrote took the result's name along.
            Word::Asks if asked.is_none() && (row.point, way) == ("shim.exit-undurable", Way::Power) => {
                goes_on(&story, &seen, Some(&host.booted()), &context);
            }
            Word::Asks if hit == "remediate/high" => {
                assert_eq!(asked.as_deref(), Some(hit), "{context}");
                assert_eq!(seen.ending == "verified", story.acted("high"), "{context}");
                assert!(story.acted("low"), "{context}");
            }
            Word::GoesOn | Word::Asks => {
                assert_eq!(asked, None, "{context}");
                goes_on(&story, &seen, Some(&host.booted()), &context);
            }
            Word::Cancelled
            | Word::SameToken
            | Word::NewToken
            | Word::Joined
            | Word::Starts
            | Word::Undone
            | Word::NoCopy
            | Word::Copy
            | Word::Before
            | Word::Restored
            | Word::PutAside => {
                panic!("{context}: a story does not end so")
            }
        }
    }

    /// A run that is cancelled at its gate.
    fn cancel(&mut self, row: &Row, way: Way, case: &str) {
        self.host.start_if_not();
        let mut story = self.next_story();
        story.begin(|| ());
        let host = &mut self.host;
        story.until("the run waits at a gate", || host.said(), |seen| seen.waiting_for == "gate");
        host.arm(row.point, way);
        story.desk.cancel(&story.run).expect("it can be cancelled");
        let look = || {
            host.look();
            host.said()
        };
        let seen = story.until("the run has ended", look, |seen| seen.state == "ended");
        let context = format!("{case}: {}\n{}", shown(&seen), host.said());
        assert_eq!(seen.ending, "cancelled", "{context}");
        assert!(story.acted("low") && !story.acted("high"), "{context}");
        story.nothing_twice(&context);
        eventually("whoever died is back", LIMIT, || {
            host.look();
            if host.waits() { Err(host.said()) } else { Ok(()) }
        });
        let runs = host.state().join("attempts").join(format!("{}.tombstone", story.run));
        assert!(runs.exists(), "{context}: {} is not there", runs.display());
    }

    /// It is two days later, and the host comes to remove what it kept of the only run before; whatever happens to it on
    /// its way, the next time nothing of that is left.
    fn forget(&mut self, row: &Row, way: Way, word: Word, case: &str) {
        // A host looks what is old when it starts: here all that was before this run.
        self.host.halt();
        self.host.start_later(TWO_DAYS);
        let old = self.next_story();
        let old = self.quiet_story(old, case);
        for dies in [true, false] {
            self.host.halt();
            fettle_tests::power::sync(&self.host.state()).expect("it can be synced");
            if dies {
                self.host.arm(row.point, way);
            }
            self.host.start_later(TWO_DAYS);
            self.story(row, way, word, None, case);
            assert!(!self.host.waits(), "{case}: nobody ever came there\n{}", self.host.said());
            let kept = fs::read_dir(self.host.state().join("attempts")).expect("it is there").flatten();
            let kept = kept.filter_map(|entry| entry.file_name().into_string().ok());
            let kept: Vec<String> = kept.filter(|name| name.starts_with(&old)).collect();
            match row.point {
                "forget.unremoved" if dies => assert!(!kept.is_empty(), "{case}: {old} is forgotten"),
                "forget.tombstone" | "forget.undurable" if dies => {}
                _ => assert!(kept.is_empty(), "{case}: {old} is not forgotten: {kept:?}"),
            }
        }
    }

    /// A story in which nobody dies. Gives back its run.
    fn quiet_story(&mut self, mut story: Story<'a, 'c>, case: &str) -> String {
        let host = &mut self.host;
        story.begin(|| ());
        let (seen, _) = story.play(|| host.said(), || ());
        assert_eq!(seen.ending, "verified", "{case}: {}\n{}", shown(&seen), host.said());
        story.run
    }

    /// The journal is damaged while the agent is away, at the gate of a story.
    fn damaged(&mut self, row: &Row, way: Way, word: Word, play: Play, case: &str) {
        self.host.start_if_not();
        let mut story = self.next_story();
        story.begin(|| ());
        let host = &mut self.host;
        story.until("the run waits at a gate", || host.said(), |seen| seen.waiting_for == "gate");
        host.halt();
        let folder = host.state().join("journal");
        let journal = fs::read_dir(&folder).expect("it is there").flatten().map(|entry| entry.path());
        let journal = journal.filter(|path| path.extension().is_some_and(|end| end == "journal")).max();
        let journal = journal.expect("there is a journal");
        let mut bytes = fs::read(&journal).expect("it can be read");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("there is something in it") + 1;
        if play == Play::Damaged {
            bytes[end / 3] ^= 0x40;
        } else {
            bytes.resize(bytes.len().max(end + 256), 0);
            bytes[end + 8..end + 200].fill(0x7e);
        }
        fs::write(&journal, &bytes).expect("it can be written");
        self.dies_at_start(row.point, way);
        let host = std::cell::RefCell::new(&mut self.host);
        let look = || {
            let mut host = host.borrow_mut();
            host.look();
            host.said()
        };
        let (seen, asked) = story.play(look, || ());
        let host = host.into_inner();
        let context = format!("{case}: {}\n{}", shown(&seen), host.said());
        story.nothing_twice(&context);
        assert_eq!(asked, None, "{context}");
        let aside: Vec<PathBuf> = fs::read_dir(&folder)
            .expect("it is there")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(".quarantined-"))
            .collect();
        if word == Word::PutAside {
            assert!(!aside.is_empty(), "{context}");
            assert!(matches!(seen.ending.as_str(), "failed" | "refused"), "{context}");
            assert!(story.acted("low") && !story.acted("high"), "{context}");
        } else {
            assert!(aside.is_empty(), "{context}: {aside:?}");
            goes_on(&story, &seen, Some(&host.booted()), &context);
        }
        // A person has looked.
        aside.iter().for_each(|path| fs::remove_file(path).expect("it can be removed"));
    }

    fn renewal(&mut self, row: &Row, way: Way) {
        self.host.halt();
        let file = self.host.state().join("identity/cert.pem");
        let old = age(self.cluster, &self.host);
        self.dies_at_start(row.point, way);
        eventually("the certificate is renewed and the host is connected", LIMIT, || {
            self.host.look();
            let now = fs::read(&file).expect("there is always one");
            if now != old && self.desk.is_connected(&self.host.name) { Ok(()) } else { Err(self.host.said()) }
        });
    }

    fn join_quietly(&mut self) {
        let token = self.token();
        let output = self.try_to_join(&token);
        assert!(output.status.success(), "{}", told(&output));
        fettle_tests::power::sync(&self.host.state()).expect("it can be synced");
    }

    fn token(&self) -> String {
        let made = self.cluster.json("ana", &["agent", "token", "create", &self.host.name]);
        made["token"].as_str().expect("a token is text").to_owned()
    }

    fn try_to_join(&self, token: &str) -> std::process::Output {
        Command::new(binary("fettle-agent"))
            .args(["join", "--controller", &format!("https://localhost:{}", self.cluster.grpc)])
            .args(["--token", token, "--root", &self.cluster.root_fingerprint(), "--state"])
            .arg(self.host.state())
            .envs(self.host.env())
            .stdin(Stdio::null())
            .output()
            .expect("fettle-agent can be run")
    }

    /// Somebody types `fettle-agent join`, it dies, and they type it again.
    fn join(&mut self, row: &Row, way: Way, word: Word, case: &str) {
        self.host.wipe();
        let token = self.token();
        self.host.arm(row.point, way);
        let died = self.try_to_join(&token);
        assert!(!died.status.success(), "{case}: {}", told(&died));
        self.host.look();
        assert!(!self.host.waits(), "{case}: nobody ever came there: {}", told(&died));
        let again = self.try_to_join(&token);
        let said = told(&again);
        let came = if again.status.success() {
            Word::SameToken
        } else if said.contains("joined already") {
            Word::Joined
        } else {
            let anew = self.try_to_join(&self.token());
            assert!(anew.status.success(), "{case}: {said}\n{}", told(&anew));
            assert!(said.contains("token"), "{case}: {said}");
            Word::NewToken
        };
        assert_eq!(came, word, "{case}: {said}");
        self.host.start();
        eventually("the host is connected", LIMIT, || {
            if self.desk.is_connected(&self.host.name) { Ok(()) } else { Err(self.host.said()) }
        });
    }
}

/// Puts the state of a cluster's controller on a disk whose power can fail. The controller does not run afterwards.
pub(super) fn move_controller(cluster: &mut Cluster) -> Option<Host<'_>> {
    cluster.controller().kill();
    let (state, aside) = (cluster.path("controller"), cluster.path("controller.aside"));
    fs::rename(&state, &aside).expect("it can be moved");
    let host = Host::of_controller(cluster)?;
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(&state).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be moved");
    fettle_tests::power::sync(&state).expect("it can be synced");
    Some(host)
}

/// Plays rows on a controller of its own, whose host's power can fail; the agent's host goes on. Gives back how many
/// deaths there were.
pub(super) fn on_a_controller(share: &[(Row, Way)], chance: &mut Chance, times: u64) -> u64 {
    let mut cluster = stage().agent("web-1").start();
    let Some(mut host) = move_controller(&mut cluster) else { return 0 };
    let cluster = host.cluster();
    let desk = Desk::of(cluster, "ana");
    let mut number = 0;
    // They are another host's: what runs there goes on when the controller's power fails.
    let stories = cluster.path("stories").join("web-1");
    for (row, way) in share {
        host.start_if_not();
        for time in 0..times {
            let case = format!("{} {way:?} {time}", row.point);
            let before = host.deaths;
            // Commits of a story, from its alert to its end; should there be fewer, the first.
            for nth in [1 + chance.below(12), 1] {
                number += 1;
                let mut story = Story::new(cluster, &desk, "web-1", &stories, number);
                host.arm(&format!("{}#{nth}", row.point), *way);
                let looked = std::cell::RefCell::new(&mut host);
                let look = || {
                    looked.borrow_mut().look();
                    looked.borrow().said()
                };
                story.begin(|| drop(look()));
                let (seen, asked) = story.play(look, || ());
                let context = format!("{case}#{nth}: {}\n{}", shown(&seen), host.said());
                story.nothing_twice(&context);
                assert_eq!(asked, None, "{context}");
                goes_on(&story, &seen, None, &context);
                host.disarm();
                if host.deaths > before {
                    break;
                }
            }
            assert!(host.deaths > before, "{case}: nobody ever came there\n{}", host.said());
        }
        host.halt();
        nothing_came_late(&stories);
        super::super::history_gives_the_tables(cluster);
    }
    host.deaths
}

/// When somebody dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// From the alert on.
    Begin,
    /// From the approval on.
    Gate,
}

/// Whether somebody may die there while `high` runs, and it with them. A batch is written while a step runs when reports of
/// the steps before are acknowledged late; and a shim that lives goes on until the power fails.
fn may_be_while_it_runs(point: &str, way: Way) -> bool {
    let power = way == Way::Power && (point.starts_with("journal.") || point == "attempt.after-spawn");
    power || point.starts_with("journal.compact.")
}

/// Whether the power failed while a shim was writing that it starts, so that a name without its content is left. Then its
/// step has not begun, and the run says so and ends; neither that step nor a later one acts.
#[track_caller]
fn was_cut_at_birth(story: &Story<'_, '_>, seen: &v1::HostRun, way: Way, context: &str) -> bool {
    const CUT: &str = "its supervisor ended while it was starting, before the step did";
    if way != Way::Power || seen.ending != "failed" {
        return false;
    }
    let Some(step) = seen.steps.iter().find(|step| step.message == CUT) else { return false };
    assert_eq!(step.state, "not-started", "{context}");
    assert!(seen.reason.contains(CUT), "{context}");
    assert!(!story.acted("high"), "{context}");
    assert_eq!(story.acted("low"), step.path == "remediate/high", "{context}");
    true
}

/// Each step has acted once and the run is verified; but what people approved, or are asked to approve, of a plan from
/// before a reboot does not act any more, and the run says that it did not. `boot` is the one that the host came to be in; none of
/// a host that nobody rebooted.
#[track_caller]
pub(super) fn goes_on(story: &Story<'_, '_>, seen: &v1::HostRun, boot: Option<&Boot>, context: &str) {
    assert!(story.acted("low"), "{context}");
    let void = boot.filter(|boot| boot_of_plan(seen).is_some_and(|planned| planned != boot.id));
    let high = story.acted_at("high");
    if let (Some(boot), Some(at)) = (void, high) {
        assert!(at < boot.since, "it acted after a reboot had made what people approved void: {context}");
    }
    if void.is_some() && high.is_none() {
        assert!(matches!(seen.ending.as_str(), "failed" | "refused"), "{context}");
        assert!(seen.reason.contains("reboot"), "{context}");
        return;
    }
    assert_eq!(seen.ending, "verified", "{context}");
    assert!(high.is_some(), "{context}");
}

/// Makes the certificate of a host one that is to be renewed at once. Gives it back as its file has it.
fn age(cluster: &Cluster, host: &Host<'_>) -> Vec<u8> {
    use fettle_controller::ca::Ca;
    use fettle_controller::world::{System, World as _};
    let hour = Duration::from_secs(3600);
    let now = System.now();
    let ca =
        Ca::open(&cluster.path("controller"), now).expect("there is an authority").with_agent_validity(hour);
    let folder = host.state().join("identity");
    let key = fs::read_to_string(folder.join("key.pem")).expect("there is a key");
    let key = rcgen::KeyPair::from_pem(&key).expect("it is one");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("it can be asked");
    let name = host.name.parse().expect("it is a name");
    let issued = ca.issue(&name, request.der(), now.minus(hour * 5 / 6)).expect("it is given");
    let pem = fettle_tests::cluster::pem(&issued.der).into_bytes();
    fs::write(folder.join("cert.pem"), &pem).expect("it can be written");
    pem
}
