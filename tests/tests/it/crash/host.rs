//! The agent is killed or told to end while its step runs, and finds its state directory other than it left it.

use std::fs;
use std::process::Command;

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::programs::binary;
use fettle_tests::{Cluster, eventually};
use serde_json::Value;

use super::{Low, Story, history_gives_the_tables, stage};

/// A step that tells its process, writes a line whenever it is let, and ends with 7, which is no reason to stop.
const TALKER: &str = r#"fettle: 1
runbook: crash/talker
title: A step that talks for a while
owner: tests
inputs:
  dir: { type: path }
on:
  - alert: Talk
    host: labels.instance
    inputs: { dir: "${{ labels.dir }}" }
diagnose:
  - id: look
    run: [echo, looked]
remediate:
  - id: talk
    risk: low
    run: |
      echo $$ >> "$DIR/pid"
      for line in $(seq 1 400); do
        echo "line $line of a step that goes on"
        if [ $((line % 100)) = 0 ]; then
          touch "$DIR/said-$line"
          until [ -e "$DIR/go-$line" ]; do sleep 0.02; done
        fi
      done
      exit 7
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
    on_failure: continue
verify:
  - id: said
    that: file(inputs.dir + "/said-400").exists
    within: 10s
"#;

fn talk_over(interrupt: impl Fn(&mut Cluster)) {
    let mut cluster = Cluster::builder().runbook(TALKER).agent("web-1").start();
    let dir = cluster.path("talk");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let run = cluster.fire("Talk", &[("instance", "web-1"), ("dir", &dir.display().to_string())]);
    for line in [100, 200, 300, 400] {
        eventually(&format!("it has said {line} lines"), LIMIT, || {
            let said = fs::exists(dir.join(format!("said-{line}"))).unwrap_or_default();
            if said { Ok(()) } else { Err(cluster.said()) }
        });
        if line == 200 || line == 300 {
            interrupt(&mut cluster);
        }
        fs::write(dir.join(format!("go-{line}")), "").expect("a file can be written");
    }
    cluster.ending(&run);
    let seen = cluster.json("ana", &["run", "show", &run]);
    let steps = seen["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
    let talks: Vec<&Value> = steps.iter().filter(|step| step["path"] == "remediate/talk").collect();
    let [talk] = talks.as_slice() else { panic!("it was started once: {seen:#}") };
    assert_eq!((&talk["state"], &talk["exit_code"]), (&"failed".into(), &7.into()), "{seen:#}");
    let pids = fs::read_to_string(dir.join("pid")).expect("it told its process");
    assert_eq!(pids.lines().count(), 1, "one process from beginning to end: {pids}");
    let logs = cluster.fettle("ana", &["logs", &run, "--step", "remediate/talk"]);
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    let said: Vec<&str> = logs.lines().filter_map(|line| line.find("line ").map(|at| &line[at..])).collect();
    let whole: Vec<String> = (1..=400).map(|line| format!("line {line} of a step that goes on")).collect();
    assert_eq!(said, whole, "every line once, in order");
}

#[test]
fn a_step_goes_on_while_its_agent_is_killed_and_the_next_agent_follows_it() {
    talk_over(|cluster| cluster.restart_agent("web-1"));
}

#[test]
fn a_step_goes_on_while_its_agent_is_told_to_end_and_the_next_agent_follows_it() {
    talk_over(|cluster| {
        let status = cluster.agent("web-1").stop();
        assert!(status.success(), "{status}: {}", cluster.said());
        cluster.start_agent("web-1");
    });
}

#[test]
fn two_agents_never_share_a_state_directory() {
    let mut cluster = stage().agent("web-1").start();
    let second = Command::new(binary("fettle-agent"))
        .args(["run", "--state"])
        .arg(cluster.path("web-1"))
        .output()
        .expect("it can be run");
    assert!(!second.status.success(), "{}", told(&second));
    assert!(told(&second).contains("another agent is using this state directory"), "{}", told(&second));
    assert!(cluster.agent("web-1").runs(), "the first one is not disturbed");
    // The lock goes with its owner, however that ends.
    cluster.restart_agent("web-1");
    let story = Story::new(&cluster, "web-1", Low::Checked).begin();
    let seen = story.play(|| ());
    story.healed(&seen);
}

#[test]
fn a_host_that_has_lost_its_journal_refuses_what_people_approved_before() {
    let mut cluster = stage().agent("web-1").start();
    let (seen, times, said) = {
        let story = Story::new(&cluster, "web-1", Low::Checked).begin();
        let gate = cluster.gate(&story.run);
        let dir = story.dir.clone();
        let run = story.run.clone();
        cluster.agent("web-1").kill();
        fs::remove_dir_all(cluster.path("web-1/journal")).expect("it was there");
        cluster.start_agent("web-1");
        let story = Story { cluster: &cluster, host: "web-1".to_owned(), low: Low::Checked, dir, run };
        story.approve(&gate);
        let seen = story.play(|| ());
        (seen, (story.times("low"), story.times("high")), story.log())
    };
    // Nothing is known to be wrong with what was done, and nothing was verified either.
    assert_eq!(seen["state"], "ended", "{seen:#}");
    assert_ne!(seen["ending"], "verified", "{seen:#}");
    assert_eq!(times, (1, 0), "{seen:#}");
    assert!(said.contains("plan-mismatch"), "{said}");
    assert!(seen["reason"].as_str().is_some_and(|reason| reason.contains("plan")), "{seen:#}");
    cluster.controller().kill();
    history_gives_the_tables(&cluster);
}
