//! Values never become code: hostile text goes through the whole system and comes out as the same text.

use std::fs;

use fettle_tests::Cluster;
use fettle_tests::alerts::firing;
use fettle_tests::cluster::told;

/// Shows what a value is when it arrives: in a variable, and as an argument.
const SHOW: &str = r#"fettle: 1
runbook: test/show
title: Shows what it is given
owner: tests
inputs:
  dir: { type: path }
  text: { type: string }
on:
  - alert: Show
    host: labels.instance
    inputs: { dir: "${{ labels.dir }}", text: "${{ labels.text }}" }
diagnose:
  - id: read
    run: |
      printf '%s' "$TEXT" | base64 -w 0
    env: { TEXT: "${{ inputs.text }}" }
    outputs: { text: stdout }
  - id: environment
    run: |
      env -0 | base64 -w 0
    env: { TEXT: "${{ inputs.text }}" }
    outputs: { all: stdout }
  - id: argv
    run: [printf, "[%s]", "${{ inputs.text }}", "x${{ inputs.text }}y"]
    allow_leading_dash: true
    outputs: { all: stdout }
remediate:
  - id: act
    risk: low
    run: |
      printf '%s' "$TEXT" > "$DIR/act.text"
      printf '%s' "$SEEN" > "$DIR/act.seen"
      printf '%s' "$READ" | base64 -d > "$DIR/read.text"
      printf '%s' "$ENVIRONMENT" | base64 -d > "$DIR/read.env"
    env:
      TEXT: "${{ inputs.text }}"
      DIR: "${{ inputs.dir }}"
      SEEN: "${{ steps.argv.all }}"
      READ: "${{ steps.read.text }}"
      ENVIRONMENT: "${{ steps.environment.all }}"
    repeat: safe
    undo: none
verify:
  - id: there
    that: file(inputs.dir + "/act.text").exists
"#;

/// A value as a whole argument, without leave to begin with a dash.
const DASH: &str = r#"fettle: 1
runbook: test/dash
title: Touches what it is told
owner: tests
inputs: { name: { type: string }, dir: { type: path } }
remediate:
  - id: act
    risk: low
    run: [touch, "${{ inputs.name }}"]
    cwd: "${{ inputs.dir }}"
    repeat: safe
    undo: none
verify:
  - id: well
    that: file("/").exists
"#;

#[test]
fn hostile_text_arrives_literally_and_nowhere_else() {
    let cluster = Cluster::builder().runbook(SHOW).agent("web-1").start();
    let base = cluster.path("").display().to_string();
    let base = base.trim_end_matches('/');
    let mark = format!("{base}/mark");
    let texts = [
        format!("$(touch {mark});--help ${{{{ 1 }}}}"),
        format!("`touch {mark}`\n touch {mark} #\t\"'\\"),
        format!("--help; touch {mark} && ${{IFS}}%n%s{{}}"),
        "${{ inputs.dir }} $${{ $HOME ${PATH} \u{202e}\u{1b}[2J\u{7}ü😀".to_owned(),
        "../../../../etc/passwd\r\n- a: !!python/object x".to_owned(),
    ];
    for (number, text) in texts.iter().enumerate() {
        let dir = cluster.path(&format!("seen-{number}"));
        fs::create_dir(&dir).expect("a new folder");
        let labels =
            [("instance", "web-1"), ("dir", dir.to_str().expect("a path is text")), ("text", text.as_str())];
        let answer = cluster.post(&firing("Show", &labels));
        assert_eq!(answer.status, 200, "{answer:?}");
        let run = cluster.newest_signal()["run"].as_str().expect("a run").to_owned();
        let ending = cluster.ending(&run);
        let shown = cluster.json("ana", &["run", "show", &run]);
        assert_eq!(ending, "verified", "{text:?}: {shown:#}");

        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("the step wrote it");
        assert_eq!(&read("read.text"), text, "in the environment of a diagnose step");
        assert_eq!(&read("act.text"), text, "in the environment of a remediate step");
        assert_eq!(read("act.seen"), format!("[{text}][x{text}y]"), "as arguments, each of them one");
        assert_eq!(shown["inputs"]["text"], text.as_str(), "in what people are shown");
        // It is in that one variable, and the environment holds nothing that was not asked for.
        let environment = read("read.env");
        let holding: Vec<&str> = environment
            .split('\0')
            .filter(|variable| variable.contains(text.as_str()))
            .map(|variable| variable.split('=').next().unwrap_or_default())
            .collect();
        assert_eq!(holding, ["TEXT"]);
        let names: Vec<&str> =
            environment.split('\0').filter_map(|variable| Some(variable.split_once('=')?.0)).collect();
        assert!(!names.iter().any(|name| name.contains("TOKEN") || name.contains("SSH")), "{names:?}");
        assert!(!fs::exists(&mark).unwrap_or_default(), "somebody ran {text:?}");
        // What people look at stays text, too.
        for command in
            [&["run", "show", &run][..], &["signal", "list"], &["incident", "list"], &["logs", &run]]
        {
            let output = cluster.fettle("ana", command);
            assert!(output.status.success(), "{}", told(&output));
            let bytes = &output.stdout;
            assert!(!bytes.contains(&0x1b) && !bytes.contains(&7), "{}", told(&output));
        }
    }
    let log = fs::read_to_string(cluster.path("controller.log")).unwrap_or_default();
    assert!(!log.contains("\u{1b}[2J"), "the log holds what a terminal would obey");
}

#[test]
fn a_value_that_begins_with_a_dash_is_no_option_unless_the_step_says_so() {
    let cluster = Cluster::builder().runbook(DASH).agent("web-1").start();
    let dir = format!("dir={}", cluster.path("").display());
    let dir = dir.trim_end_matches('/');
    let start = |name: &str| {
        let name = format!("name={name}");
        cluster.fettle("ana", &["start", "test/dash", "--host", "web-1", "-i", dir, "-i", &name])
    };
    let output = start("plain; touch mark $(touch mark)");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(cluster.path("plain; touch mark $(touch mark)").exists(), "it is one argument");
    assert!(!cluster.path("mark").exists());
    for dashed in ["--reference=/etc/shadow", "-c", "-"] {
        let output = start(dashed);
        assert_eq!(output.status.code(), Some(1), "{dashed}: {}", told(&output));
        assert!(told(&output).contains("dash") || told(&output).contains("`-`"), "{}", told(&output));
    }
}
