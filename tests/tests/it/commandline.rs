//! What people and programs do with the command line, beside how it ends.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::programs::{Program, binary};
use fettle_tests::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Says something, asks a person, and is then content.
const TALKS: &str = r#"fettle: 1
runbook: test/talks
title: Talks
owner: tests
inputs:
  word: { type: string, default: nothing }
on:
  - alert: Talk
    host: labels.instance
    inputs: { word: "${{ labels.word }}" }
diagnose:
  - id: say
    run: |
      echo "said $WORD"
      echo "muttered $WORD" >&2
    env: { WORD: "${{ inputs.word }}" }
remediate:
  - id: act
    risk: high
    run: ["true"]
    repeat: safe
    undo: none
verify:
  - id: well
    that: file("/").exists
"#;

fn talks() -> Cluster {
    Cluster::builder().runbook(TALKS).agent("web-1").start()
}

#[track_caller]
fn good(output: Output) -> String {
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).expect("it is text")
}

fn interrupt(child: &Child) {
    let _ = kill_process(Pid::from_child(child), Signal::INT);
}

#[test]
fn ctrl_c_detaches_from_a_watch_and_says_how_to_come_back() {
    let cluster = talks();
    let run = cluster.fire("Talk", &[("instance", "web-1"), ("word", "hello")]);
    let gate = cluster.gate(&run);
    let mut watch = cluster
        .typed("ana", &["watch", &run])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fettle can be run");
    // It has told everything so far once it has told of the gate.
    let mut told = String::new();
    let mut out = watch.stdout.take().expect("it has an output");
    while !told.contains("approval") && !told.contains("gate") {
        let mut some = [0; 4096];
        let count = out.read(&mut some).expect("it can be read");
        assert!(count > 0, "the watch ended by itself: {told}");
        told.push_str(&String::from_utf8_lossy(&some[..count]));
    }
    interrupt(&watch);
    let output = watch.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, back) = talk.split_once("Come back with: ").unwrap_or_else(|| panic!("no way back: {talk}"));

    // The run went on; the way back shows only what is new.
    good(cluster.fettle("ana", &["approve", &gate, "--yes"]));
    let words: Vec<&str> = back.split_whitespace().skip(1).collect();
    let again = cluster.fettle("ana", &words);
    assert_eq!(again.status.code(), Some(0), "{}", fettle_tests::cluster::told(&again));
    let again = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(!again.contains("diagnose/say"), "it was told before: {again}");
    assert!(again.contains("remediate/act"), "{again}");
}

#[test]
fn a_start_streams_what_the_steps_say_and_ctrl_c_leaves_it_running() {
    let cluster = talks();
    let arguments = ["start", "test/talks", "--host", "web-1", "-i", "word=live"];
    let mut start = cluster.typed("ana", &arguments);
    let mut start = start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fettle can be run");
    let mut seen = String::new();
    let mut out = start.stdout.take().expect("it has an output");
    while !(seen.contains("said live") && seen.contains("muttered live")) {
        let mut some = [0; 4096];
        let count = out.read(&mut some).expect("it can be read");
        assert!(count > 0, "it ended without saying it: {seen}");
        seen.push_str(&String::from_utf8_lossy(&some[..count]));
    }
    interrupt(&start);
    let output = start.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    let runs = cluster.json("ana", &["run", "list", "--open"]);
    let run = runs[0]["id"].as_str().unwrap_or_else(|| panic!("it goes on: {runs:#}"));
    let gate = cluster.gate(run);

    let logs = good(cluster.fettle("ana", &["logs", run]));
    assert!(logs.contains("said live") && logs.contains("muttered live"), "{logs}");
    let only = good(cluster.fettle("ana", &["logs", run, "--step", "diagnose/say", "-o", "json"]));
    let only: Value = serde_json::from_str(&only).expect("JSON");
    assert_eq!(only[0]["stdout"]["text"], "said live\n", "{only:#}");
    let plan = good(cluster.fettle("ana", &["plan", run]));
    assert!(plan.contains("remediate/act"), "{plan}");
    good(cluster.fettle("ben", &["reject", &gate, "--reason", "enough"]));
}

#[test]
fn a_plan_reads_the_host_and_changes_nothing() {
    let cluster = talks();
    let output = cluster.fettle("ana", &["plan", "test/talks", "--host", "web-1"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("remediate/act") && shown.contains("high"), "{shown}");
    let status = cluster.json("ana", &["status"]);
    assert_eq!(status["gates"], serde_json::json!([]), "a plan asks nobody: {status:#}");
    let runs = cluster.json("ana", &["run", "list"]);
    assert_eq!(runs[0]["hosts"][0]["state"], "ended", "{runs:#}");
    let steps = runs[0]["hosts"][0]["steps"].to_string();
    assert!(!steps.contains("\"remediate/act\",\"risk\":\"high\",\"state\":\"succeeded\""), "{steps}");
}

#[test]
fn every_answer_is_clean_data_for_programs() {
    let cluster = talks();
    let run = cluster.fire("Talk", &[("instance", "web-1"), ("word", "a\u{1b}[31mb\nc\"d\u{7}")]);
    let gate = cluster.gate(&run);
    let signal = cluster.newest_signal()["id"].as_str().expect("an id").to_owned();
    let shown = cluster.json("ana", &["run", "show", &run]);
    let incident = shown["incident"].as_str().expect("an incident").to_owned();
    let body = cluster.path("body.json");
    fs::write(&body, firing("Talk", &[("instance", "web-1")]).to_string()).expect("it can be written");
    let body = body.display().to_string();
    let runbook = cluster.path("library/test/talks.yaml").display().to_string();
    let roster = cluster.path("roster.json").display().to_string();
    let commands: &[&[&str]] = &[
        &["status"],
        &["whoami"],
        &["run", "list"],
        &["run", "show", &run],
        &["plan", &run],
        &["logs", &run],
        &["signal", "list"],
        &["signal", "explain", &signal],
        &["signal", "test", &body],
        &["incident", "list"],
        &["incident", "show", &incident],
        &["agent", "list"],
        &["agent", "show", "web-1"],
        &["agent", "token", "create", "web-7", "--label", "a=b"],
        &["runbook", "list"],
        &["runbook", "show", "test/talks"],
        &["runbook", "lint", &runbook],
        &["runbook", "verify", &runbook],
        &["roster", "show"],
        &["roster", "show", &roster],
        &["version"],
        &["login"],
        &["start", "test/talks", "--host", "web-1", "--detach"],
        &["approve", &gate, "--yes"],
        &["watch", &run],
        &["agent", "revoke", "web-1", "--reason", "over"],
    ];
    // What can only be done once is asked for in one format alone.
    let once = ["approve", "start"];
    for (format, parse) in [("json", json as fn(&str)), ("jsonl", jsonl), ("yaml", yaml), ("table", table)] {
        for command in commands {
            if format != "json" && once.contains(&command[0]) {
                continue;
            }
            let output = cluster.fettle("ana", &[command, &["-o", format][..]].concat());
            assert!(output.status.success(), "fettle {}: {}", command.join(" "), told(&output));
            let text = String::from_utf8(output.stdout.clone()).expect("it is text");
            assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{}: {text:?}", command.join(" "));
            if command[0] == "watch" && matches!(format, "json" | "yaml") {
                // A stream of events is one document per line, whatever it is called.
                jsonl_or_yaml(&text);
                continue;
            }
            std::panic::catch_unwind(|| parse(&text))
                .unwrap_or_else(|_| panic!("fettle {} -o {format}: {}", command.join(" "), told(&output)));
        }
    }
    // And so are mistakes, on the other channel.
    let wrong = cluster.fettle("ana", &["run", "show", "run_01930000000070008000000000000009", "-o", "json"]);
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(3), 0), "{}", told(&wrong));
    let error: Value = serde_json::from_slice(&wrong.stderr).expect("JSON");
    assert_eq!(error["error"]["exit"], 3, "{error:#}");
}

fn json(text: &str) {
    serde_json::from_str::<Value>(text).expect("one JSON document");
}

fn jsonl(text: &str) {
    for line in text.lines() {
        json(line);
    }
}

fn yaml(text: &str) {
    serde_yaml::from_str::<serde_yaml::Value>(text).expect("one YAML document");
}

fn jsonl_or_yaml(text: &str) {
    if text.starts_with('{') && text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) {
        return;
    }
    if serde_json::from_str::<Value>(text).is_ok() {
        return;
    }
    use serde::Deserialize as _;
    for document in serde_yaml::Deserializer::from_str(text) {
        serde_yaml::Value::deserialize(document).expect("YAML documents");
    }
}

fn table(text: &str) {
    assert!(!text.contains('\r'), "lines end as lines do");
}

/// Runs a line on a terminal of its own, and answers what it asks; what the terminal showed.
fn on_a_terminal(command: &Command, answer: &str) -> (Option<i32>, String) {
    let mut line = String::from("exec env -i");
    for (name, value) in command.get_envs() {
        let value = value.expect("it is set").to_string_lossy().into_owned();
        line.push_str(&format!(" '{}={value}'", name.to_string_lossy()));
    }
    line.push_str(&format!(" '{}'", command.get_program().to_string_lossy()));
    for argument in command.get_args() {
        line.push_str(&format!(" '{}'", argument.to_string_lossy()));
    }
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--echo", "never", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of bsdutils, can be run");
    let mut shown = String::new();
    let mut out = script.stdout.take().expect("it has an output");
    let mut input = script.stdin.take();
    loop {
        let mut some = [0; 4096];
        let count = out.read(&mut some).unwrap_or_default();
        if count == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&some[..count]));
        if shown.contains("Approve test/talks") && input.is_some() {
            use std::io::Write as _;
            let mut input = input.take().expect("it is there");
            input.write_all(answer.as_bytes()).expect("it can be answered");
            // Kept open until the end: its end would be the terminal's.
            std::mem::forget(input);
        }
    }
    (script.wait().expect("it ends").code(), shown)
}

#[test]
fn a_person_at_a_terminal_is_asked_and_sees_colours_unless_they_want_none() {
    let cluster = talks();
    let run = cluster.fire("Talk", &[("instance", "web-1"), ("word", "x")]);
    let gate = cluster.gate(&run);
    let coloured = |environment: &[(&str, &str)]| {
        let mut status = cluster.typed("ana", &["status"]);
        status.env("TERM", "xterm-256color").envs(environment.iter().copied());
        let (code, shown) = on_a_terminal(&status, "");
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains(&gate), "{shown}");
        shown.contains('\u{1b}')
    };
    assert!(coloured(&[]), "a terminal gets colours");
    assert!(!coloured(&[("NO_COLOR", "1")]), "NO_COLOR is heard");

    let (code, shown) = on_a_terminal(&cluster.typed("ana", &["approve", &gate]), "y\n");
    assert_eq!(code, Some(8), "{shown}");
    assert!(shown.contains("nothing was signed"), "only a whole `yes` is one: {shown}");
    assert_eq!(cluster.json("ana", &["status"])["gates"][0]["state"], "open");
    let (code, shown) = on_a_terminal(&cluster.typed("ana", &["approve", &gate]), "yes\n");
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(cluster.ending(&run), "verified");
}

#[test]
fn without_a_home_directory_everything_works_or_says_what_to_set() {
    let cluster = talks();
    // The harness never sets HOME, so every other test shows the first half.
    let bare = |environment: &[(&str, &str)], arguments: &[&str]| {
        Command::new(binary("fettle"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("fettle can be run")
    };
    let lost = bare(&[], &["status"]);
    assert_eq!(lost.status.code(), Some(2), "{}", told(&lost));
    assert!(told(&lost).contains("FETTLE_CONFIG"), "{}", told(&lost));
    let lint =
        bare(&[], &["runbook", "lint", &cluster.path("library/test/talks.yaml").display().to_string()]);
    assert_eq!(lint.status.code(), Some(0), "{}", told(&lint));

    // Only flags and environment: no file at all.
    let at = |name: &str| cluster.path(name).display().to_string();
    let (controller, trust, key, session) = (
        format!("https://localhost:{}", cluster.grpc),
        at("controller/trust.json"),
        at("people/ana/key"),
        at("s"),
    );
    let all = [
        ("FETTLE_CONTROLLER", controller.as_str()),
        ("FETTLE_TRUST", &trust),
        ("FETTLE_PERSON", "ana"),
        ("FETTLE_KEY", &key),
        ("FETTLE_SESSION", &session),
    ];
    for command in [&["login"], &["whoami"], &["status"]] {
        let output = bare(&all, command);
        assert!(output.status.success(), "{}", told(&output));
    }
    // A home directory that is not there yet is made when there is something to keep.
    let home = at("home");
    let mut with_home = all[..4].to_vec();
    with_home.push(("HOME", &home));
    let output = bare(&with_home, &["login"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(Path::new(&home).join(".config/fettle/session.json").is_file());
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let cluster = talks();
    let line = format!("'{}' runbook show test/talks -o json | true", binary("fettle").display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env_clear().env("PATH", "/usr/bin:/bin");
    shell.env("FETTLE_CONFIG", cluster.path("people/ana/config.yaml"));
    let output = shell.stdin(Stdio::null()).output().expect("a shell can be run");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nobody needs to hear of a broken pipe");
}

#[test]
fn a_key_in_ssh_agent_signs_in_starts_and_approves() {
    let cluster = talks();
    let socket = cluster.path("ssh.sock").display().to_string();
    let argv = ["ssh-agent", "-D", "-a", &socket].map(str::to_owned);
    let _agent = Program::start(&argv, &cluster.path("ssh-agent.log"));
    eventually("ssh-agent listens", LIMIT, || fs::metadata(&socket).map(drop));
    let add = |key: &str| {
        let status = Command::new("ssh-add")
            .args(["-q", &cluster.path(key).display().to_string()])
            .env("SSH_AUTH_SOCK", &socket)
            .status()
            .expect("ssh-add can be run");
        assert!(status.success());
    };
    // Configurations that name no key.
    let person = |name: &str| {
        let config = serde_json::json!({
            "controller": format!("https://localhost:{}", cluster.grpc),
            "trust": cluster.path("controller/trust.json"), "person": name,
        });
        let path = cluster.path(&format!("agent-{name}.yaml"));
        fs::write(&path, config.to_string()).expect("it can be written");
        path.display().to_string()
    };
    let fettle = |name: &str, arguments: &[&str]| {
        let (config, session) = (person(name), cluster.path(&format!("{name}.json")).display().to_string());
        let environment =
            [("SSH_AUTH_SOCK", socket.as_str()), ("FETTLE_CONFIG", &config), ("FETTLE_SESSION", &session)];
        cluster.fettle_with("ana", &environment, arguments)
    };
    let none = fettle("ben", &["login"]);
    assert_eq!(none.status.code(), Some(4), "it holds no key yet: {}", told(&none));
    add("people/ben/key");
    good(fettle("ben", &["login"]));
    let started = good(fettle("ben", &["start", "test/talks", "--host", "web-1", "--detach"]));
    let gate = cluster.gate(started.trim());
    // Ana's key is not there: ben's would be of no use.
    let other = fettle("ana", &["login"]);
    assert!(!other.status.success(), "{}", told(&other));
    // Two keys: the roster knows which is whose.
    add("people/ana/key");
    let key = cluster.path("people/ana/key").display().to_string();
    good(fettle("ana", &["login", "--key", &key]));
    good(fettle("ana", &["approve", &gate, "--yes"]));
    assert_eq!(cluster.ending(started.trim()), "verified");
    good(fettle("ben", &["whoami"]));
}
