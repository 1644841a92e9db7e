//! When a run is over and people are not done with it: they retry what failed, or undo what was done.

use std::fs;

use fettle_tests::Cluster;
use fettle_tests::cluster::told;
use serde_json::Value;

mod backwards; // what a run did is undone
mod resumed; // … or its rest is done

/// Each step adds a line to the ledger; so does each undo. The second fails until `FILE.ok` is there.
const THREE: &str = r#"fettle: 1
runbook: test/three
title: Three steps in a row
owner: tests
inputs:
  file: { type: path }
on:
  - alert: Three
    host: labels.instance
    inputs: { file: "${{ labels.file }}" }
diagnose:
  - id: look
    that: memory.total_bytes > 0
    outputs: { other: file(inputs.file + ".other").exists }
remediate:
  - id: one
    risk: low
    run: |
      echo "one $OTHER" >> "$FILE"
    env: { FILE: "${{ inputs.file }}", OTHER: "${{ steps.look.other }}" }
    repeat: never
    undo: { run: 'echo undo-one >> "$FILE"' }
  - id: two
    risk: low
    run: |
      test -e "$FILE.ok"
      echo two >> "$FILE"
    env: { FILE: "${{ inputs.file }}" }
    repeat: never
    undo: { run: 'echo undo-two >> "$FILE"' }
  - id: three
    risk: low
    run: |
      echo three >> "$FILE"
    env: { FILE: "${{ inputs.file }}" }
    repeat: never
    undo: none
verify:
  - id: there
    that: file(inputs.file + ".ok").exists
"#;

struct Scene {
    cluster: Cluster,
    file: String,
}

impl Scene {
    fn new(runbook: &str) -> Scene {
        let cluster = Cluster::builder().runbook(runbook).agent("web-1").start();
        let file = cluster.path("ledger").display().to_string();
        Scene { cluster, file }
    }

    /// Starts the runbook as a person and waits for the end that is expected.
    #[track_caller]
    fn start(&self, person: &str, ending: &str) -> String {
        let input = format!("file={}", self.file);
        let words = ["start", "test/three", "--host", "web-1", "-i", &input, "--detach"];
        let run = self.cluster.json(person, &words)["run"].as_str().expect("its id").to_owned();
        assert_eq!(self.cluster.ending(&run), ending, "{}", self.show(&run));
        run
    }

    /// Types `fettle run …` as ana, who may operate; its exit code must be this. What was said, and the newest run.
    #[track_caller]
    fn typed(&self, exit: i32, words: &[&str]) -> (String, String) {
        let all: Vec<&str> = ["run"].iter().chain(words).copied().collect();
        let output = self.cluster.fettle("ana", &all);
        assert_eq!(output.status.code(), Some(exit), "{}", told(&output));
        let newest = self.cluster.json("ana", &["run", "list", "-n", "1"]);
        (told(&output), newest[0]["id"].as_str().unwrap_or_default().to_owned())
    }

    fn show(&self, run: &str) -> Value {
        self.cluster.json("ana", &["run", "show", run])
    }

    /// Its only host's steps, as `path state`.
    fn steps(&self, run: &str) -> Vec<String> {
        let run = self.show(run);
        let steps = run["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        steps.iter().map(|step| format!("{} {}", word(&step["path"]), word(&step["state"]))).collect()
    }

    fn touch(&self, suffix: &str) {
        fs::write(format!("{}{suffix}", self.file), "").expect("it can be written");
    }

    fn ledger(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
