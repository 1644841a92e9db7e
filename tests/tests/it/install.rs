//! `docs/operating.md`, done as it says: every command of it is run, every file of it is used, in the order of the page.
//!
//! What is replaced is what cannot be the same: folders are in a temporary directory, names and ports are of this machine,
//! ids are those that came up. The runbook has the name and the inputs of the page's, and does nothing to the machine.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use fettle_tests::alerts::{Answer, firing};
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::programs::{Program, binary};
use fettle_tests::receiver::Receiver;
use fettle_tests::{eventually, remains};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

use crate::docs::lines;
use crate::sources;

const RUNBOOK: &str = r#"fettle: 1
runbook: NAME
title: Reclaim space on a filling filesystem
owner: core-platform
inputs:
  mount: { type: path, default: /var }
on:
  - alert: ALERT
    host: labels.instance
    inputs: { mount: "${{ labels.mountpoint }}" }
diagnose:
  - id: usage
    run: |
      df --output=pcent "$MOUNT" | tail -n 1
    env: { MOUNT: "${{ inputs.mount }}" }
remediate:
  - id: purge
    risk: high
    run: ["true"]
    repeat: safe
    undo: none
    approval: { need: 1, within: 4m }
verify:
  - id: below
    that: disk(inputs.mount).used_percent <= 100
"#;

#[test]
fn the_page_about_operating_is_true_from_top_to_bottom() {
    let page = sources::all()
        .into_iter()
        .find(|source| source.path == "docs/operating.md")
        .expect("docs/operating.md");
    let mut walk = Walk::new();
    for (language, block) in blocks(&page.text) {
        match language.as_str() {
            "sh" => lines(block).iter().for_each(|line| walk.command(line)),
            "yaml" => walk.file(&block),
            "ini" => assert!(block.contains("ExecStart=/usr/local/bin/fettle-agent run"), "{block}"),
            other => panic!("nobody has tried a block of `{other}`:\n{block}"),
        }
    }
    walk.veto_holds();
    // What its table says to do when a host is lost.
    assert!(page.text.contains("`fettle agent revoke web-1 --reason …`"), "the table of what can go wrong");
    walk.run("ana", "fettle agent revoke web-1 --reason lost", 0);
    let done: Vec<&str> = walk.done.iter().map(String::as_str).collect();
    for needed in [
        "fettle-controller",
        "fettle-agent join",
        "fettle detect lint",
        "fettle approve",
        "fettle incident show",
    ] {
        assert!(done.iter().any(|line| line.starts_with(needed)), "`{needed}` is not on the page: {done:#?}");
    }
}

/// Fenced blocks with their languages, in order.
fn blocks(markdown: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in markdown.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

struct Walk {
    /// What stands for what on the page.
    words: BTreeMap<String, String>,
    controller: Option<Program>,
    agent: Option<Program>,
    token: String,
    veto: String,
    receiver: Receiver,
    http: u16,
    done: Vec<String>,
    // Last: what is above runs in it.
    directory: TempDir,
}

impl Walk {
    fn new() -> Walk {
        let directory = tempfile::Builder::new().prefix("fettle-test-").tempdir().expect("a directory");
        let [grpc, http] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let port = |listener: TcpListener| listener.local_addr().expect("it has an address").port();
        let (grpc, http) = (port(grpc), port(http));
        let receiver = Receiver::start(200);
        let mut walk = Walk {
            words: BTreeMap::new(),
            controller: None,
            agent: None,
            token: String::new(),
            veto: String::new(),
            http,
            done: Vec::new(),
            directory,
            receiver,
        };
        for folder in
            ["home/ana/.ssh", "home/ana/.config/fettle", "home/rosa/.ssh", "home/rosa/.config/fettle"]
        {
            fs::create_dir_all(walk.path(folder)).expect("a folder can be made");
        }
        for folder in ["etc/policy", "etc/library/host", "desk/library/host", "prometheus/rules", "backup"] {
            fs::create_dir_all(walk.path(folder)).expect("a folder can be made");
        }
        let hook = format!("http://127.0.0.1:{}/hook", walk.receiver.port);
        let expires = (Timestamp::now() + SignedDuration::from_hours(24)).to_string();
        for (word, stands_for) in [
            ("https://chat.example/hook", hook),
            ("2027-06-30T00:00:00Z", expires),
            ("fettle.example", "localhost".to_owned()),
            ("0.0.0.0", "127.0.0.1".to_owned()),
            ("7443", grpc.to_string()),
            ("7480", http.to_string()),
            ("/etc/alertmanager", walk.path("alertmanager").display().to_string()),
            ("/etc/prometheus", walk.path("prometheus").display().to_string()),
            ("/etc/fettle", walk.path("etc").display().to_string()),
            ("/var/lib/fettle", walk.path("var").display().to_string()),
            ("/backup", walk.path("backup").display().to_string()),
        ] {
            walk.means(word, stands_for);
        }
        walk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file can be written");
    }

    fn means(&mut self, word: &str, stands_for: impl Into<String>) {
        self.words.insert(word.to_owned(), stands_for.into());
    }

    /// The text of the page with what it stands for here.
    fn here(&self, text: &str) -> String {
        // Longer words first: one may be the beginning of another.
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        words.into_iter().fold(text.to_owned(), |text, (word, stands_for)| text.replace(word, stands_for))
    }

    /// Runs a line in a shell, at a person's desk.
    #[track_caller]
    fn run(&self, person: &str, line: &str, code: i32) -> Output {
        let output = self.shell(person, line).output().expect("a shell can be run");
        assert_eq!(output.status.code(), Some(code), "{line}\n{}\n{}", told(&output), self.said());
        output
    }

    fn shell(&self, person: &str, line: &str) -> Command {
        let programs = binary("fettle").parent().expect("it is in a folder").display().to_string();
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(self.path("desk")).env_clear();
        shell.env("PATH", format!("{programs}:/usr/bin:/bin"));
        shell.env("HOME", self.path(&format!("home/{person}"))).stdin(Stdio::null());
        shell
    }

    fn said(&self) -> String {
        [&self.controller, &self.agent].into_iter().flatten().map(Program::said).collect()
    }

    /// A block that is a file.
    #[track_caller]
    fn file(&mut self, block: &str) {
        let text = self.here(block);
        match () {
            () if block.contains("reviewers_needed:") => self.write("desk/roster.yaml", &text),
            () if block.contains("grpc:") => {
                fs::copy(self.path("desk/roster.json"), self.path("etc/roster.json")).expect("it was signed");
                fs::copy(self.path("desk/root_ed25519.pub"), self.path("etc/root.pub")).expect("it was made");
                self.write("etc/controller.yaml", &text);
            }
            () if block.contains("person: ana") => {
                for person in ["ana", "rosa"] {
                    let text = text.replace("person: ana", &format!("person: {person}"));
                    self.write(&format!("home/{person}/.config/fettle/config.yaml"), &text);
                    let to = self.path(&format!("home/{person}/.config/fettle/trust.json"));
                    fs::copy(self.path("var/trust.json"), to).expect("the controller wrote it");
                }
            }
            () if block.contains("fettle-host-policy:") => self.veto = text,
            () if block.contains("fettle-policy:") => {
                for file in ["alertmanager.token", "metrics.token", "notify.secret"] {
                    assert!(block.contains(file), "{file} is not named any more");
                    self.write(
                        &format!("etc/policy/{file}"),
                        &format!("{file}-0123456789abcdef0123456789abcdef\n"),
                    );
                }
                self.write("etc/policy/policy.yaml", &text);
            }
            () if block.contains("receivers:") => self.alertmanager(&text),
            () if block.contains("scrape_configs:") => self.write("prometheus/prometheus.yml", &text),
            () if block.contains("groups:") => self.write("prometheus/rules/node.yml", &text),
            () => panic!("nobody has tried this file:\n{block}"),
        }
    }

    /// A line that is typed.
    #[track_caller]
    fn command(&mut self, typed: &str) {
        let line = self.here(typed);
        self.done.push(typed.to_owned());
        match () {
            () if typed.starts_with("cargo build ") => {
                let manifest = fs::read_to_string(sources::top().join("Cargo.toml")).expect("a manifest");
                assert!(manifest.contains("[profile.dist]"), "`{typed}` names a profile that is not there");
            }
            () if typed.starts_with("ssh-keygen ") => self.key(&line),
            () if typed.starts_with("fettle-controller backup ") => {
                self.run("ana", &line, 0);
            }
            () if typed.starts_with("fettle-controller restore ") => {
                self.run("ana", &line, 1);
                self.controller = None;
                self.run("ana", &line, 0);
                let start = self.done.iter().find(|line| line.starts_with("fettle-controller --config"));
                let start = self.here(start.expect("it was started before"));
                self.start_controller(&start);
            }
            () if typed.starts_with("fettle-controller ") => self.start_controller(&line),
            () if typed.starts_with("fettle agent token create ") => {
                let output = self.run("ana", &line, 0);
                self.token = String::from_utf8_lossy(&output.stdout).into_owned();
            }
            () if typed.starts_with("fettle-agent join ") => {
                let token = format!("printf %s '{}' | {line} --state \"$HOME/agent\"", self.token.trim());
                self.run("ana", &token, 0);
            }
            () if typed == "fettle-agent run" => self.start_agent(&line),
            () if typed.starts_with("fettle runbook lint ") => {
                let [first, second] =
                    [("disk-full", "NodeFilesystemAlmostOutOfSpace"), ("inodes-full", "NoInodes")].map(
                        |(name, alert)| {
                            (name, RUNBOOK.replace("NAME", &format!("host/{name}")).replace("ALERT", alert))
                        },
                    );
                for (name, text) in [first, second] {
                    self.write(&format!("desk/library/host/{name}.yaml"), &text);
                }
                self.run("ana", &line, 0);
            }
            () if typed.starts_with("fettle runbook certify ") => {
                self.run("rosa", &line, 0);
                self.run("rosa", &line.replace("disk-full", "inodes-full"), 0);
            }
            () if typed == "fettle runbook list" => self.library(&line),
            () if typed.starts_with("fettle signal test ") => {
                let body = alert("NodeFilesystemAlmostOutOfSpace");
                self.write("desk/alert.json", &body.to_string());
                let output = self.run("ana", &line, 0);
                assert!(told(&output).contains("Nothing was changed"), "{}", told(&output));
                // And now for real.
                let gate = self.alert("NodeFilesystemAlmostOutOfSpace");
                self.means("gate_0190…", gate);
            }
            () if typed.starts_with("fettle approve ") => {
                // Ana wrote the runbook, so it is rosa who decides.
                self.run("ana", &format!("{line} --yes"), 5);
                self.run("rosa", &format!("{line} --yes"), 0);
                let other = self.gate_of_another();
                self.means("gate_0190…", other);
            }
            () if typed.starts_with("fettle reject ") => {
                self.run("rosa", &line, 0);
            }
            // What is stepped in on, now and below, must still be going on: this one waits for people.
            () if typed.starts_with("fettle run pause ") => {
                let output = self.run("ana", "fettle start host/inodes-full --host web-1 --detach", 0);
                self.means("run_0190…", String::from_utf8_lossy(&output.stdout).trim());
                self.run("ana", &self.here(typed), 0);
            }
            // Goes on from it, and waits for people, too.
            () if typed.starts_with("fettle run retry ") => {
                let output = self.run("ana", &format!("{line} --detach"), 0);
                self.means("run_0190…", String::from_utf8_lossy(&output.stdout).trim());
            }
            // That one is not over, which the next line of the page sees to; and it has changed nothing yet.
            () if typed.starts_with("fettle run undo ") => {
                let (code, says) = match typed.contains("--cancel") {
                    true => (1, "it changed nothing"),
                    false => (8, "--cancel"),
                };
                let output = self.run("ana", &line, code);
                assert!(told(&output).contains(says), "{}", told(&output));
            }
            // Nobody has to look at that run, and that is what is answered.
            () if typed.starts_with("fettle run resolve ") => {
                self.run("ana", &line, 1);
            }
            () if typed == "fettle login" => {
                self.run("ana", &line, 0);
                self.run("rosa", &line, 0);
            }
            // The cool-down of the page's policy: the approved run has just been.
            () if typed.starts_with("fettle start ") => {
                let output = self.run("ana", &line, 13);
                assert!(told(&output).contains("cooldown"), "{}", told(&output));
            }
            () => {
                self.run("ana", &line, 0);
            }
        }
    }

    fn key(&mut self, line: &str) {
        let line = format!("{line} -q -N ''");
        if !line.contains("~/.ssh") {
            self.run("ana", &line, 0);
            return;
        }
        for person in ["ana", "rosa"] {
            self.run(person, &line, 0);
            let public = self.path(&format!("home/{person}/.ssh/id_ed25519.pub"));
            let public = fs::read_to_string(public).expect("a public key");
            let key: Vec<&str> = public.split_whitespace().take(2).collect();
            self.means(&format!("ssh-ed25519 AAAA… {person}"), format!("{} {person}", key.join(" ")));
        }
    }

    fn start_controller(&mut self, line: &str) {
        let program = binary("fettle-controller").display().to_string();
        let argv = std::iter::once(program).chain(line.split_whitespace().skip(1).map(str::to_owned));
        let log = self.path("controller.log");
        self.controller = Some(Program::start(&argv.collect::<Vec<_>>(), &log));
        // It says its root fingerprint, which is noted down.
        let root = eventually("the controller says its root fingerprint", LIMIT, || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let found = said.split("sha256:").nth(1).map(|rest| rest.chars().take(64).collect::<String>());
            found.filter(|hex| hex.len() == 64).ok_or(said)
        });
        self.means("sha256:…", format!("sha256:{root}"));
        let http = self.http;
        eventually("the controller answers", LIMIT, || {
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, http)).map(drop)
        });
    }

    fn start_agent(&mut self, line: &str) {
        let program = binary("fettle-agent").display().to_string();
        let mut argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        argv[0] = program;
        argv.extend(["--state".to_owned(), self.path("home/ana/agent").display().to_string()]);
        self.agent = Some(Program::start(&argv, &self.path("agent.log")));
        eventually("the agent is connected", LIMIT, || {
            let output = self.run("ana", "fettle agent list -o json", 0);
            let agents: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            if agents[0]["state"] == "connected" {
                Ok(())
            } else {
                Err(format!("{agents:#}\n{}", self.said()))
            }
        });
    }

    /// Puts runbooks and certificates into the library, and waits until they count.
    fn library(&self, line: &str) {
        for name in ["disk-full", "inodes-full"] {
            for kind in ["yaml", "cert"] {
                let file = format!("library/host/{name}.{kind}");
                fs::copy(self.path(&format!("desk/{file}")), self.path(&format!("etc/{file}")))
                    .expect("a copy");
            }
        }
        self.run("ana", line, 0);
        eventually("both runbooks are certified", LIMIT, || {
            let output = self.run("ana", "fettle runbook list -o json", 0);
            let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let certified = all.as_array().into_iter().flatten().filter(|one| one["certified"] == true);
            if certified.count() == 2 { Ok(()) } else { Err(format!("{all:#}")) }
        });
    }

    /// Its configuration, as far as it says how to post.
    fn alertmanager(&mut self, text: &str) {
        let config: serde_yaml::Value = serde_yaml::from_str(text).expect("it is YAML");
        let webhook = &config["receivers"][0]["webhook_configs"][0];
        let word = |value: &serde_yaml::Value| value.as_str().expect("it is text").to_owned();
        let credentials = word(&webhook["http_config"]["authorization"]["credentials_file"]);
        let ca = word(&webhook["http_config"]["tls_config"]["ca_file"]);
        assert_eq!(webhook["send_resolved"].as_bool(), Some(true));
        fs::create_dir_all(self.path("alertmanager")).expect("a folder can be made");
        self.write("alertmanager/alertmanager.yml", text);
        fs::copy(self.path("etc/policy/alertmanager.token"), &credentials).expect("the same token");
        fs::copy(self.path("var/ca.pem"), &ca).expect("the controller's CA");
        for (name, value) in [("url", word(&webhook["url"])), ("token", credentials), ("ca", ca)] {
            self.means(&format!("alertmanager {name}"), value);
        }
        eventually("the policy is in force", LIMIT, || {
            let output = self.run("ana", "fettle status -o json", 0);
            let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let answer = self.post(b"{}");
            if answer.status == 422 { Ok(()) } else { Err(format!("{answer:?}\n{status:#}")) }
        });
    }

    fn post(&self, body: &[u8]) -> Answer {
        let token = fs::read_to_string(&self.words["alertmanager token"]).expect("a token");
        let ca = PathBuf::from(&self.words["alertmanager ca"]);
        fettle_tests::alerts::post(&self.words["alertmanager url"], &ca, Some(token.trim()), body)
    }

    /// Posts an alert, notes the ids down, and waits for the gate.
    fn alert(&mut self, name: &str) -> String {
        let answer = self.post(alert(name).to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        let (signal, run) = (&said["signals"][0]["signal"], &said["signals"][0]["run"]);
        let run = run.as_str().unwrap_or_else(|| panic!("it starts a run: {said:#}")).to_owned();
        let shown = eventually("a gate is open", LIMIT, || {
            let output = self.run("ana", &format!("fettle run show {run} -o json"), 0);
            let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            if shown["hosts"][0]["waiting_for"] == "gate" { Ok(shown) } else { Err(format!("{shown:#}")) }
        });
        self.words.entry("sig_0190…".to_owned()).or_insert(signal.as_str().expect("an id").to_owned());
        self.words.entry("run_0190…".to_owned()).or_insert(run);
        let incident = shown["incident"].as_str().expect("an incident").to_owned();
        self.words.entry("inc_0190…".to_owned()).or_insert(incident);
        shown["hosts"][0]["gate"].as_str().expect("a gate").to_owned()
    }

    fn gate_of_another(&mut self) -> String {
        self.alert("NoInodes")
    }

    /// The veto of the page forbids what is above medium, whoever approves.
    fn veto_holds(&mut self) {
        self.write("home/ana/agent/policy.yaml", &self.veto);
        if let Some(agent) = &mut self.agent {
            agent.kill();
        }
        self.start_agent("fettle-agent run");
        let start = "fettle start host/inodes-full --host web-1 --detach -o json";
        let output = self.run("ana", start, 0);
        let started: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let run = started["run"].as_str().expect("a run").to_owned();
        let mut approved = false;
        let shown = eventually("the run has ended", LIMIT, || {
            let output = self.run("ana", &format!("fettle run show {run} -o json"), 0);
            let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            if let Some(gate) = shown["hosts"][0]["gate"].as_str().filter(|_| !approved) {
                self.run("rosa", &format!("fettle approve {gate} --yes"), 0);
                approved = true;
            }
            if shown["hosts"][0]["state"] == "ended" { Ok(shown) } else { Err(format!("{shown:#}")) }
        });
        let said = shown["hosts"][0].to_string();
        assert!(
            !["verified", "succeeded"].contains(&shown["hosts"][0]["ending"].as_str().unwrap_or("")),
            "{said}"
        );
        assert!(said.contains("polic") || said.contains("veto"), "it says who forbade it: {said}");
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        for program in [&mut self.controller, &mut self.agent].into_iter().flatten() {
            program.kill();
        }
        remains::kill(self.directory.path());
    }
}

fn alert(name: &str) -> Value {
    firing(name, &[("instance", "web-1:9100"), ("mountpoint", "/var"), ("fstype", "ext4")])
}
