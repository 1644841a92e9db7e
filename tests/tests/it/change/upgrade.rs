//! The agent's program is replaced while a step runs.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fettle_tests::cluster::LIMIT;
use fettle_tests::programs::binary;
use fettle_tests::{Cluster, eventually};
use serde_json::Value;

const TALK: &str = r#"fettle: 1
runbook: change/talk
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
      until [ -e "$DIR/go" ]; do sleep 0.02; done
      echo $$ >> "$DIR/pid"
      for line in $(seq 1 200); do
        echo "line $line of a step that goes on"
        if [ $((line % 50)) = 0 ]; then
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
    that: file(inputs.dir + "/said-200").exists
    within: 10s
"#;

/// Other bytes under the same name, as a package manager puts them there.
fn replace(program: &Path) {
    let fresh = program.with_extension("new");
    fs::copy(binary("fettle-agent"), &fresh).expect("copied");
    fs::rename(&fresh, program).expect("replaced");
}

/// The files that processes run which were started from this name, whatever is under it now.
fn run_from(program: &Path) -> Vec<PathBuf> {
    let name = program.display().to_string();
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| fs::read_link(entry.ok()?.path().join("exe")).ok())
        .filter(|exe| exe.display().to_string().starts_with(&name))
        .collect()
}

#[test]
fn a_step_goes_on_under_the_program_that_began_it_while_the_agent_is_another_one() {
    let mut cluster = Cluster::builder().runbook(TALK).start();
    let program = cluster.path("bin/fettle-agent");
    fs::create_dir_all(cluster.path("bin")).expect("a folder can be made");
    replace(&program);
    let first = fs::metadata(&program).expect("it is there").ino();
    cluster.join("web-1", &[]);
    cluster.start_agent_from("web-1", &program);
    let dir = cluster.path("talk");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let run = cluster.fire("Talk", &[("instance", "web-1"), ("dir", &dir.display().to_string())]);
    let live = cluster.path("live.jsonl");
    let mut watch = cluster
        .typed("ana", &["watch", &run, "-o", "jsonl"])
        .stdout(File::create(&live).expect("a file can be made"))
        .stderr(Stdio::null())
        .spawn()
        .expect("fettle can be run");
    // Before the step says anything, so that everything it says is seen live.
    eventually("somebody watches", LIMIT, || {
        let seen = fs::read_to_string(&live).unwrap_or_default();
        if seen.contains("run-started") { Ok(()) } else { Err(seen) }
    });
    fs::write(dir.join("go"), "").expect("a file can be written");
    for line in [50, 100, 150, 200] {
        eventually(&format!("it has said {line} lines"), LIMIT, || {
            let said = fs::exists(dir.join(format!("said-{line}"))).unwrap_or_default();
            if said { Ok(()) } else { Err(cluster.said()) }
        });
        if line == 100 || line == 150 {
            replace(&program);
            match line {
                100 => assert!(cluster.agent("web-1").stop().success(), "{}", cluster.said()),
                _ => cluster.agent("web-1").kill(),
            }
            cluster.start_agent_from("web-1", &program);
            let files = run_from(&program);
            let old = files.iter().filter(|exe| exe.display().to_string().ends_with("(deleted)")).count();
            assert_eq!((files.len() - old, old), (1, 1), "the new agent, and the old shim: {files:?}");
        }
        fs::write(dir.join(format!("go-{line}")), "").expect("a file can be written");
    }
    cluster.ending(&run);
    assert_ne!(fs::metadata(&program).expect("it is there").ino(), first);
    let seen = cluster.json("ana", &["run", "show", &run]);
    let steps = seen["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
    let talks: Vec<&Value> = steps.iter().filter(|step| step["path"] == "remediate/talk").collect();
    let [talk] = talks.as_slice() else { panic!("it was started once: {seen:#}") };
    assert_eq!((&talk["state"], &talk["exit_code"]), (&"failed".into(), &7.into()), "{seen:#}");
    let pids = fs::read_to_string(dir.join("pid")).expect("it told its process");
    assert_eq!(pids.lines().count(), 1, "one process from beginning to end: {pids}");

    let whole: String = (1..=200).map(|line| format!("line {line} of a step that goes on\n")).collect();
    let logs = cluster.fettle("ana", &["logs", &run, "--step", "remediate/talk"]);
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    let said: String =
        logs.lines().filter_map(|line| line.find("line ").map(|at| format!("{}\n", &line[at..]))).collect();
    assert_eq!(said, whole, "recorded: every line once, in order");
    watch.wait().expect("it ends with the run");
    let told = fs::read_to_string(&live).expect("it was written");
    let mut at = None;
    let mut seen = String::new();
    for chunk in told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if chunk["kind"] != "output" || chunk["path"] != "remediate/talk" || chunk["stream"] != "stdout" {
            continue;
        }
        let (offset, text) = (chunk["offset"].as_u64(), chunk["text"].as_str().unwrap_or_default());
        assert_eq!(offset, at.or(offset), "no gap and nothing twice: {chunk}");
        at = offset.map(|offset| offset + text.len() as u64);
        seen.push_str(text);
    }
    assert_eq!(seen, whole, "live");
}
