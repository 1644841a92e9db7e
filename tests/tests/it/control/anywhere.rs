//! What each way of stepping in answers, wherever a run stands. A run is held in a state by a file that is missing, so the states
//! are those of real programs.

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::{Cluster, eventually};

use super::Play;

mod over; // … and once the run is over

/// One that waits in each phase, and at a gate if there is a file `gated`; its last step waits while there is a file `hold`,
/// and fails if there is a file `fail`: then what was done is undone.
const TURNS: &str = r#"fettle: 1
runbook: control/turns
title: Waits wherever a file is missing
owner: tests
inputs:
  dir: { type: path }
diagnose:
  - id: look
    run: |
      until [ -e "$DIR/go-look" ]; do sleep 0.02; done
    env: { DIR: "${{ inputs.dir }}" }
    timeout: 5m
    sandbox: { read: all }
remediate:
  - id: first
    risk: low
    run: |
      echo $$ >> "$DIR/first"
      until [ -e "$DIR/go-first" ]; do sleep 0.02; done
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo:
      run: |
        echo $$ >> "$DIR/undo"
        until [ -e "$DIR/go-undo" ]; do sleep 0.02; done
  - id: gated
    risk: high
    if: file(inputs.dir + "/gated").exists
    run: ["true"]
    repeat: never
    undo: none
  - id: last
    risk: low
    run: |
      echo $$ >> "$DIR/last"
      while [ -e "$DIR/hold" ]; do sleep 0.02; done
      test ! -e "$DIR/fail"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
    on_failure: undo
verify:
  - id: done
    that: file(inputs.dir + "/go-verify").exists
    within: 5m
"#;

/// What is typed, its exit code, and what it says.
type Answer = (&'static str, i32, &'static str);

/// Of a run that goes on: what is refused first, then a pause and its end.
const GOES_ON: &[Answer] = &[
    ("resume", 1, "is not paused"),
    ("retry", 8, "is not over, and only a run that is over is gone on from"),
    ("undo", 8, "to stop it on all its hosts first, add --cancel"),
    ("resolve", 1, "does not wait for anybody to look"),
    ("pause", 0, "let it go on with: fettle run resume"),
    ("pause", 1, "is paused already"),
    ("retry", 8, "is not over"),
    ("undo", 8, "add --cancel"),
    ("resume", 0, "it goes on; see how it ends with: fettle watch"),
];

/// Of a run that is being stopped: nothing lets it go on.
const CANCELLING: &[Answer] = &[
    ("pause", 1, "is cancelled: nothing of it begins any more"),
    ("resume", 1, "is cancelled"),
    ("retry", 8, "is not over"),
    ("undo", 8, "is not over"),
    ("resolve", 1, "does not wait for anybody to look"),
    ("cancel", 0, "cancelling"),
];

/// Of a run that waits for a person who looks, and may go on after that.
const UNKNOWN: &[Answer] = &[
    ("resume", 1, "is not paused"),
    ("retry", 15, "say what you found, then retry it"),
    ("undo", 15, "say what you found, then undo it"),
    ("resolve elsewhere", 1, "waits for somebody to look at remediate/first, not at remediate/last"),
    ("pause", 0, "let it go on with: fettle run resume"),
    ("retry", 15, "say what you found"),
    ("resume", 0, "say what you found"),
];

/// The same, where it was cancelled.
const STOPPED: &[Answer] = &[
    ("pause", 1, "is cancelled: nothing of it begins any more"),
    ("resume", 1, "is cancelled"),
    ("retry", 15, "say what you found, then retry it"),
    ("undo", 15, "say what you found, then undo it"),
    ("cancel", 0, "say what you found"),
];

/// Of one that is over; what goes on from it depends on how it ended.
const OVER: &[Answer] = &[
    ("cancel", 1, "ended at"),
    ("cancel", 1, "fettle run show run_"),
    ("pause", 1, "ended at"),
    ("pause", 1, "fettle run show run_"),
    ("resume", 1, "ended at"),
    ("resume", 1, "fettle run show run_"),
    ("resolve", 1, "ended at"),
    ("resolve", 1, "fettle run show run_"),
];

/// Of one that never was.
const NOWHERE: &[Answer] = &[
    ("cancel", 3, "failed to find run"),
    ("pause", 3, "failed to find run"),
    ("resume", 3, "failed to find run"),
    ("retry", 3, "failed to find run"),
    ("undo", 3, "failed to find run"),
    ("resolve", 3, "failed to find run"),
];

/// What did not answer as it should, so that one look shows all.
#[derive(Default)]
struct Odd(Vec<String>);

impl Odd {
    /// Types all of it, and looks that the run stands where it stood.
    #[track_caller]
    fn expect(&mut self, play: &Play<'_>, state: &str, answers: &[Answer]) {
        for (verb, exit, says) in answers {
            self.one(play, state, (verb, *exit, says));
        }
        play.stands(state);
    }

    fn one(&mut self, play: &Play<'_>, state: &str, (verb, exit, says): (&str, i32, &str)) {
        let said = play.typed(verb);
        if said.status.code() != Some(exit) || !told(&said).contains(says) {
            self.0.push(format!("{state}: {verb}: expected {exit} with `{says}`: {}", told(&said)));
        }
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        let all = self.0.join("\n\n");
        match std::thread::panicking() {
            true => eprintln!("{all}"),
            false => assert!(all.is_empty(), "{all}"),
        }
    }
}

impl<'c> Play<'c> {
    /// Starts it; it waits until it is let go.
    #[track_caller]
    fn turns(cluster: &'c Cluster, go: &[&str]) -> Play<'c> {
        let play = Play::start(cluster, "ben", "turns", "web-1");
        play.let_go(go);
        play
    }

    fn let_go(&self, go: &[&str]) {
        let put = |name: &str| std::fs::write(self.dir.join(name), "").expect("a file can be written");
        go.iter().for_each(|name| put(name));
    }

    /// Types a command about it, as ana, who may operate.
    fn typed(&self, verb: &str) -> std::process::Output {
        let (verb, more): (&str, &[&str]) = match verb {
            "pause" => ("pause", &["--reason", "wait"]),
            "retry" => ("retry", &["--detach"]),
            "undo" => ("undo", &["--reason", "it was wrong", "--detach"]),
            "undo --cancel" => ("undo", &["--cancel", "--reason", "it was wrong"]),
            "retry in sight" => ("retry", &[]),
            "undo in sight" => ("undo", &["--reason", "it was wrong"]),
            "resolve" => ("resolve", &["--host", "web-1", "--ran", "--reason", "saw it"]),
            "resolve not" => ("resolve", &["--host", "web-1", "--did-not-run", "--reason", "saw it"]),
            "resolve elsewhere" => {
                ("resolve", &["--host", "web-1", "--step", "remediate/last", "--ran", "--reason", "saw it"])
            }
            verb => (verb, &[]),
        };
        self.cluster.fettle("ana", &[&["run", verb, &self.run], more].concat())
    }

    /// Waits until it stands so: its state, or what it waits for.
    #[track_caller]
    fn stands(&self, state: &str) {
        self.cluster.until(&self.run, &format!("is {state}"), |run| {
            let host = &run["hosts"][0];
            if host["state"] == "waiting" { host["waiting_for"] == state } else { host["state"] == state }
        });
    }

    /// Waits until a step runs, and gives its process.
    #[track_caller]
    fn runs(&self, step: &str) -> i32 {
        eventually(&format!("{step} runs"), LIMIT, || {
            self.pids(step).last().copied().ok_or_else(|| self.cluster.said())
        })
    }

    /// Cancels it, which must work, and waits until nothing of it is under way.
    #[track_caller]
    fn cancel(&self, then: &str) {
        let said = self.typed("cancel");
        assert!(said.status.success(), "{}", told(&said));
        self.stands(then);
    }
}

#[test]
fn every_way_to_step_in_answers_wherever_the_run_stands() {
    let mut cluster = Cluster::builder().runbook(TURNS).agent("web-1").start();
    let mut odd = Odd::default();
    let killed = {
        let cluster = &cluster;
        let play = Play::turns(cluster, &[]);
        play.stands("diagnosing");
        odd.expect(&play, "diagnosing", GOES_ON);
        play.cancel("ended");

        let play = Play::turns(cluster, &[]);
        play.stands("diagnosing");
        assert!(play.typed("pause").status.success());
        play.let_go(&["go-look"]);
        play.stands("planned");
        odd.expect(&play, "planned", &GOES_ON[1..4]);
        odd.one(&play, "planned", ("pause", 1, "is paused already"));
        play.cancel("ended");
        odd.expect(&play, "ended", OVER);

        let play = Play::turns(cluster, &["go-look"]);
        play.runs("first");
        odd.expect(&play, "remediating", GOES_ON);
        let next = Play::turns(cluster, &["go-look"]);
        next.stands("wave");
        odd.expect(&next, "wave", GOES_ON);
        next.cancel("ended");
        play.cancel("resolve");
        odd.expect(&play, "resolve", STOPPED);
        odd.one(&play, "resolve", ("resolve", 0, "cancelled"));
        play.stands("ended");

        let play = Play::turns(cluster, &["go-look", "go-first", "gated"]);
        play.stands("gate");
        odd.expect(&play, "gate", GOES_ON);
        // What was done before the gate is looked at, however people decide.
        let gate = cluster.gate(&play.run);
        let no = cluster.fettle("ana", &["reject", &gate, "--reason", "not now"]);
        assert!(no.status.success(), "{}", told(&no));
        play.stands("verifying");
        odd.expect(&play, "verifying", GOES_ON);
        play.cancel("ended");
        assert_eq!(cluster.ending(&play.run), "cancelled");

        let play = Play::turns(cluster, &["go-look", "go-first"]);
        play.stands("verifying");
        odd.expect(&play, "verifying", GOES_ON);
        play.cancel("ended");
        assert_eq!(cluster.ending(&play.run), "cancelled");
        odd.expect(&play, "ended", OVER);
        play.let_go(&["go-verify"]);
        odd.one(&play, "ended", ("retry in sight", 0, "remediate/last skipped: done in run_"));
        assert_eq!((play.pids("first").len(), play.pids("last").len()), (1, 1), "only the symptom is read");

        let play = Play::turns(cluster, &["go-look", "go-first", "go-undo"]);
        play.stands("verifying");
        odd.one(&play, "verifying", ("undo --cancel", 7, "undone"));
        assert_eq!(play.pids("undo").len(), 1);

        let play = Play::turns(cluster, &["go-look", "go-first", "fail"]);
        play.runs("undo");
        play.stands("undoing");
        odd.expect(&play, "undoing", GOES_ON);
        play.cancel("resolve");
        odd.expect(&play, "resolve", STOPPED);
        odd.one(&play, "resolve", ("resolve", 0, "cancelled"));
        play.stands("ended");

        let play = Play::turns(cluster, &["go-look", "go-verify"]);
        play.lose(play.runs("first"));
        odd.expect(&play, "resolve", UNKNOWN);
        odd.one(&play, "resolve", ("undo --cancel", 15, "say what you found, then undo it"));
        odd.expect(&play, "resolve", STOPPED);
        odd.one(&play, "resolve", ("resolve", 0, "cancelled"));
        play.stands("ended");

        let nowhere = Play { cluster, dir: play.dir, run: format!("run_{}", uuid::Uuid::now_v7().simple()) };
        NOWHERE.iter().for_each(|answer| odd.one(&nowhere, "nowhere", *answer));

        let play = Play::turns(cluster, &["go-look"]);
        play.runs("first");
        (play.dir, play.run)
    };
    cluster.agent("web-1").kill();
    let (dir, run) = killed;
    {
        let play = Play { cluster: &cluster, dir: dir.clone(), run: run.clone() };
        play.cancel("cancelling");
        odd.expect(&play, "cancelling", CANCELLING);
    }
    cluster.start_agent("web-1");
    let play = Play { cluster: &cluster, dir, run };
    play.stands("resolve");
    odd.expect(&play, "resolve", STOPPED);
}

#[test]
fn a_running_run_is_stopped_and_undone_once_a_person_has_said_what_the_stopped_step_did() {
    let cluster = Cluster::builder().runbook(TURNS).agent("web-1").start();
    let play = Play::turns(&cluster, &["go-look", "go-first", "go-undo", "go-verify", "hold"]);
    play.runs("last");
    let mut odd = Odd::default();
    odd.one(&play, "remediating", ("undo --cancel", 15, "say what you found, then undo it"));
    odd.one(&play, "resolve", ("undo --cancel", 15, "say what you found, then undo it"));
    odd.one(&play, "resolve", ("resolve", 0, "cancelled"));
    play.stands("ended");
    odd.one(&play, "ended", ("undo --cancel", 7, "undone"));
    assert_eq!(play.pids("undo").len(), 1, "it was undone once");
    odd.one(&play, "undone", ("undo --cancel", 1, "was undone on web-1"));
}

#[test]
fn a_run_that_waits_for_a_person_who_looks_is_retried_once_they_have_said_what_they_found() {
    let turns = TURNS.replace("within: 5m", "within: 1s");
    let cluster = Cluster::builder().runbook(&turns).agent("web-1").start();
    let play = Play::turns(&cluster, &["go-look"]);
    play.lose(play.runs("first"));
    let mut odd = Odd::default();
    odd.one(&play, "resolve", ("retry", 15, "say what you found, then retry it"));
    odd.one(&play, "resolve", ("resolve", 0, "it goes on"));
    assert_eq!(cluster.ending(&play.run), "unverified");
    play.let_go(&["go-verify"]);
    odd.one(&play, "ended", ("retry", 0, "run_"));
    let retry =
        cluster.json("ana", &["run", "list", "-n", "1"])[0]["id"].as_str().expect("its id").to_owned();
    assert_ne!(retry, play.run);
    assert_eq!(cluster.ending(&retry), "verified");
    assert_eq!(play.pids("first").len(), 1, "people say that it ran, so it does not run again");
}
