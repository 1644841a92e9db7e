//! A controller with its agents, in one directory.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fettle_proto::signed::{Trust, certificate};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::alerts::{self, Answer};
use crate::network::{CONTROLLER, Network};
use crate::people::People;
use crate::programs::{Program, binary};
use crate::{eventually, remains};

/// How long anything may take before a test fails. Generous, for a machine that does other things too.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The name of the one source, and the token it posts with.
pub const SOURCE: (&str, &str) = ("alertmanager", "0123456789abcdef0123456789abcdef");

/// What a cluster will be made of.
#[derive(Default)]
pub struct Builder {
    runbooks: Vec<(String, bool)>,
    agents: Vec<(String, Vec<(String, String)>)>,
    policy: Value,
    network: Option<Network>,
}

impl Builder {
    /// A certified runbook.
    #[must_use]
    pub fn runbook(mut self, yaml: &str) -> Builder {
        self.runbooks.push((yaml.to_owned(), true));
        self
    }

    /// A runbook that nobody has certified.
    #[must_use]
    pub fn uncertified(mut self, yaml: &str) -> Builder {
        self.runbooks.push((yaml.to_owned(), false));
        self
    }

    /// A host.
    #[must_use]
    pub fn agent(self, host: &str) -> Builder {
        self.agent_with(host, &[])
    }

    /// A host with labels.
    #[must_use]
    pub fn agent_with(mut self, host: &str, labels: &[(&str, &str)]) -> Builder {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.agents.push((host.to_owned(), labels.collect()));
        self
    }

    /// Members of the policy file beside the source; replaces `modes`, which is otherwise `auto` for everything.
    #[must_use]
    pub fn policy(mut self, members: Value) -> Builder {
        self.policy = members;
        self
    }

    /// Hosts that have a link there are there, and so is the controller.
    #[must_use]
    pub fn network(mut self, network: Network) -> Builder {
        self.network = Some(network);
        self
    }

    /// Starts everything, and waits until every agent is connected.
    #[track_caller]
    pub fn start(self) -> Cluster {
        Cluster::start(self)
    }
}

/// A running Fettle.
pub struct Cluster {
    /// Who can sign.
    pub people: People,
    /// The controller's port for agents and people.
    pub grpc: u16,
    /// The controller's port for signals.
    pub http: u16,
    controller: Program,
    agents: BTreeMap<String, Program>,
    network: Option<Network>,
    // Last: what is above runs in it.
    directory: TempDir,
}

impl Cluster {
    /// Describes one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    #[track_caller]
    fn start(mut builder: Builder) -> Cluster {
        let people = People::new();
        let directory = tempfile::Builder::new().prefix("fettle-test-").tempdir().expect("a directory");
        let [grpc, http] = free_ports();
        furnish(directory.path(), &people, &builder, grpc, http);
        let controller = start_controller(directory.path(), &[]);
        let network = builder.network.take();
        let agents = BTreeMap::new();
        let mut cluster = Cluster { people, grpc, http, controller, agents, network, directory };
        cluster.wait_for_controller();
        for (host, labels) in &builder.agents {
            cluster.join(host, labels);
            cluster.start_agent(host);
        }
        cluster
    }

    /// The directory of it all: `controller/`, `library/`, `policy/`, `HOST/` for each host's state.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the command line as a person, as if typed.
    pub fn fettle(&self, person: &str, arguments: &[&str]) -> Output {
        self.fettle_with(person, &[], arguments)
    }

    /// The same with more environment.
    pub fn fettle_with(&self, person: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = self.typed(person, arguments);
        command.envs(environment.iter().copied()).output().expect("fettle can be run")
    }

    /// The same, not run yet: without a home directory, without a terminal.
    pub fn typed(&self, person: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("fettle"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FETTLE_CONFIG", self.path(&format!("people/{person}/config.yaml")))
            .stdin(Stdio::null());
        command
    }

    /// The same, for what must work: its JSON.
    #[track_caller]
    pub fn json(&self, person: &str, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let output = self.fettle(person, &all);
        assert!(output.status.success(), "fettle {}: {}", all.join(" "), told(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("fettle {}: {error}: {}", all.join(" "), told(&output)))
    }

    /// Posts an alert as the source.
    pub fn post(&self, body: &Value) -> Answer {
        self.post_bytes(Some(SOURCE.1), body.to_string().as_bytes())
    }

    /// Posts anything.
    pub fn post_bytes(&self, token: Option<&str>, body: &[u8]) -> Answer {
        alerts::post(&self.url(&format!("/v1/signals/{}", SOURCE.0)), &self.path("ca.pem"), token, body)
    }

    /// An address on the port for signals.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.http)
    }

    /// The newest signal, with its trail.
    #[track_caller]
    pub fn newest_signal(&self) -> Value {
        let signals = self.json("ana", &["signal", "list", "-n", "1"]);
        let id = signals[0]["id"].as_str().expect("there is a signal").to_owned();
        self.json("ana", &["signal", "explain", &id])
    }

    /// Posts an alert that must be taken, and waits for the run it starts.
    #[track_caller]
    pub fn fire(&self, alertname: &str, labels: &[(&str, &str)]) -> String {
        self.fire_body(&alerts::firing(alertname, labels))
    }

    /// The same for a body.
    #[track_caller]
    pub fn fire_body(&self, body: &Value) -> String {
        let answer = self.post(body);
        assert!((200..300).contains(&answer.status), "{answer:?}");
        eventually("the alert starts a run", LIMIT, || {
            let signals = self.json("ana", &["signal", "list", "-n", "1"]);
            let run = signals[0]["run"].as_str().map(str::to_owned);
            run.ok_or_else(|| format!("{signals:#}\n{}", self.controller.said()))
        })
    }

    /// Waits until a run looks as wanted; sees it as `fettle run show` does.
    #[track_caller]
    pub fn until(&self, run: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the run {what}"), LIMIT, || {
            let seen = self.json("ana", &["run", "show", run]);
            if wanted(&seen) { Ok(seen) } else { Err(format!("{seen:#}\n{}", self.said())) }
        })
    }

    /// Waits until a run of one host has ended, and says how.
    #[track_caller]
    pub fn ending(&self, run: &str) -> String {
        let run = self.until(run, "has ended", |run| run["hosts"][0]["state"] == "ended");
        run["hosts"][0]["ending"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a run of one host is at a gate, and names the gate.
    #[track_caller]
    pub fn gate(&self, run: &str) -> String {
        let run = self.until(run, "waits at a gate", |run| run["hosts"][0]["waiting_for"] == "gate");
        run["hosts"][0]["gate"].as_str().unwrap_or_default().to_owned()
    }

    /// `kill -9` of the controller, and starts it again.
    #[track_caller]
    pub fn restart_controller(&mut self) {
        self.controller.kill();
        self.start_controller();
    }

    /// Starts the controller again after its end, and waits until it answers.
    #[track_caller]
    pub fn start_controller(&mut self) {
        self.controller = self.launch_controller(&[]);
        self.wait_for_controller();
    }

    /// Starts the controller with more in its environment, and leaves it to the caller.
    pub fn launch_controller(&self, env: &[(&str, &str)]) -> Program {
        start_controller(self.directory.path(), env)
    }

    /// The controller's process.
    pub fn controller(&mut self) -> &mut Program {
        &mut self.controller
    }

    /// A host's agent.
    #[track_caller]
    pub fn agent(&mut self, host: &str) -> &mut Program {
        self.agents.get_mut(host).unwrap_or_else(|| panic!("no host is called `{host}`"))
    }

    /// `kill -9` of an agent, and starts it again.
    #[track_caller]
    pub fn restart_agent(&mut self, host: &str) {
        self.agent(host).kill();
        self.start_agent(host);
    }

    /// Joins a host with a token of its own, as `docs/operating.md` says.
    #[track_caller]
    pub fn join(&self, host: &str, labels: &[(String, String)]) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut create = vec!["agent", "token", "create", host];
        labels.iter().for_each(|label| create.extend(["--label", label]));
        let made = self.json("ana", &create);
        let token = made["token"].as_str().expect("a token is text").to_owned();
        let output = self.join_with(host, &token, &self.root_fingerprint());
        assert!(output.status.success(), "{}", told(&output));
    }

    /// The same for a host that reaches the controller through another port of this machine.
    #[track_caller]
    pub fn join_through(&self, host: &str, port: u16) {
        let made = self.json("ana", &["agent", "token", "create", host]);
        let token = made["token"].as_str().expect("a token is text");
        let output = self.join_at(port, host, token, &self.root_fingerprint());
        assert!(output.status.success(), "{}", told(&output));
    }

    /// `fettle-agent join` with any token and root fingerprint.
    pub fn join_with(&self, host: &str, token: &str, root: &str) -> Output {
        self.join_at(self.grpc, host, token, root)
    }

    fn join_at(&self, port: u16, host: &str, token: &str, root: &str) -> Output {
        let argv = self.on(host, &[&binary("fettle-agent").display().to_string(), "join"]);
        let controller = if self.network.is_some() { CONTROLLER } else { "localhost" };
        Command::new(&argv[0])
            .args(&argv[1..])
            .args(["--controller", &format!("https://{controller}:{port}"), "--token", token, "--root", root])
            .arg("--state")
            .arg(self.path(host))
            .stdin(Stdio::null())
            .output()
            .expect("fettle-agent can be run")
    }

    /// The fingerprint that a person reads to another over the phone.
    #[track_caller]
    pub fn root_fingerprint(&self) -> String {
        Trust::fingerprint(&fs::read(self.path("controller/trust.json")).expect("a trust bundle")).to_string()
    }

    /// Starts the agent of a host that has joined, and waits until it is connected.
    #[track_caller]
    pub fn start_agent(&mut self, host: &str) {
        self.start_agent_alone(host);
        self.wait_for_agent(host);
    }

    /// Starts the agent of a host that has joined with more in its environment, and leaves it to the caller.
    pub fn launch_agent(&self, host: &str, env: &[(&str, &str)]) -> Program {
        self.launch_agent_from(host, &binary("fettle-agent"), env)
    }

    fn launch_agent_from(&self, host: &str, program: &Path, env: &[(&str, &str)]) -> Program {
        let state = self.path(host).display().to_string();
        let argv = self.on(host, &[&program.display().to_string(), "run", "--state", &state]);
        Program::start_with(&argv, env, &self.path(&format!("{host}.log")))
    }

    /// What is typed so that a command runs on a host.
    fn on(&self, host: &str, argv: &[&str]) -> Vec<String> {
        let mut all = self.network.as_ref().map_or_else(Vec::new, |network| network.on(host));
        all.extend(argv.iter().map(|word| (*word).to_owned()));
        all
    }

    /// The links of its hosts.
    #[track_caller]
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("it was built with a network")
    }

    /// Starts the agent of a host that has joined from another file, and waits until it is connected.
    #[track_caller]
    pub fn start_agent_from(&mut self, host: &str, program: &Path) {
        let program = self.launch_agent_from(host, program, &[]);
        self.agents.insert(host.to_owned(), program);
        self.wait_for_agent(host);
    }

    /// Waits until the agent of a host is connected.
    #[track_caller]
    pub fn wait_for_agent(&self, host: &str) {
        eventually("the agent is connected", LIMIT, || {
            let agents = self.json("ana", &["agent", "list"]);
            let all = agents.as_array().cloned().unwrap_or_default();
            let is_connected = all.iter().any(|agent| agent["host"] == host && agent["state"] == "connected");
            if is_connected { Ok(()) } else { Err(format!("{agents:#}\n{}", self.said())) }
        });
    }

    /// Starts the agent of a host that has joined, whoever its controller may be by now.
    pub fn start_agent_alone(&mut self, host: &str) {
        let program = self.launch_agent(host, &[]);
        self.agents.insert(host.to_owned(), program);
    }

    #[track_caller]
    fn wait_for_controller(&mut self) {
        let (grpc, http, trust) = (self.grpc, self.http, self.path("controller/trust.json"));
        let controller = &mut self.controller;
        eventually("the controller answers", LIMIT, || {
            assert!(controller.runs(), "the controller has ended: {}", controller.said());
            let reach = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop);
            reach(grpc).and_then(|()| reach(http)).and_then(|()| fs::metadata(&trust).map(drop))
        });
        let trust = fs::read(&trust).expect("a trust bundle");
        let ca = Trust::decode(&trust).expect("the trust bundle is one").ca_der;
        fs::write(self.path("ca.pem"), pem(&ca)).expect("a file can be written");
        for person in self.people.keys.keys() {
            let output = self.fettle(person, &["login"]);
            assert!(output.status.success(), "{person} cannot sign in: {}", told(&output));
        }
    }

    /// The end of what all programs said.
    pub fn said(&self) -> String {
        let agents = self.agents.values().map(Program::said);
        std::iter::once(self.controller.said()).chain(agents).collect::<Vec<_>>().join("\n\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.controller.kill();
        self.agents.values_mut().for_each(Program::kill);
        remains::kill(self.directory.path());
    }
}

/// What a program printed, both ways.
pub fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\nstdout:\n{out}\nstderr:\n{err}", output.status)
}

fn furnish(directory: &Path, people: &People, builder: &Builder, grpc: u16, http: u16) {
    let at = |name: &str| directory.join(name);
    let roster =
        certificate::encode_signed_file(&people.sign_roster(&people.roster(1))).expect("it is signed by SSH");
    write(&at("roster.json"), &roster);
    write(&at("root.pub"), format!("{}\n", people.root.public().line()).as_bytes());
    for (person, key) in &people.keys {
        write(&at(&format!("people/{person}/key")), key.to_openssh().expect("a key is text").as_bytes());
        let config = json!({
            "controller": format!("https://localhost:{grpc}"),
            "trust": at("controller/trust.json"),
            "person": person,
            "key": "key",
        });
        write(&at(&format!("people/{person}/config.yaml")), yaml(&config).as_bytes());
    }
    fs::create_dir_all(at("library")).expect("a folder can be made");
    for (text, certified) in &builder.runbooks {
        let name = text
            .lines()
            .find_map(|line| line.strip_prefix("runbook: "))
            .expect("a runbook has a name")
            .trim();
        write(&at(&format!("library/{name}.yaml")), text.as_bytes());
        if *certified {
            let certificates = certificate::encode_file(&[people.certify(name, text.as_bytes())]);
            write(&at(&format!("library/{name}.cert")), &certificates);
        }
    }
    let mut policy = json!({
        "fettle-policy": 1,
        "sources": { SOURCE.0: { "token_file": "token", "onset": { "for": "0s", "interval": "1s" } } },
        "modes": [{ "runbook": "*", "mode": "auto" }],
    });
    for (name, value) in builder.policy.as_object().into_iter().flatten() {
        policy[name] = value.clone();
    }
    write(&at("policy/token"), SOURCE.1.as_bytes());
    write(&at("policy/policy.yaml"), yaml(&policy).as_bytes());
    let mut names = vec!["localhost", "127.0.0.1"];
    let mut address = "127.0.0.1";
    if builder.network.is_some() {
        names.push(CONTROLLER);
        address = "0.0.0.0";
    }
    let controller = json!({
        "state": at("controller"),
        "grpc": format!("{address}:{grpc}"),
        "http": format!("127.0.0.1:{http}"),
        "names": names,
        "library": at("library"),
        "policy": at("policy"),
        "roster": at("roster.json"),
        "roots": at("root.pub"),
    });
    write(&at("controller.yaml"), yaml(&controller).as_bytes());
}

fn start_controller(directory: &Path, env: &[(&str, &str)]) -> Program {
    let argv = [
        binary("fettle-controller").display().to_string(),
        "--config".to_owned(),
        directory.join("controller.yaml").display().to_string(),
    ];
    Program::start_with(&argv, env, &directory.join("controller.log"))
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let folder = path.parent().expect("a file is in a folder");
    fs::create_dir_all(folder).expect("a folder can be made");
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).expect("a new file");
    std::io::Write::write_all(&mut file, bytes).expect("a file can be written");
}

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).expect("JSON is YAML")
}

/// A certificate as people keep it.
pub fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Different ports that were free a moment ago, and below those that the kernel gives to whoever names none: a server that is down
/// for a while finds its own free again.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    const FROM: u16 = 10_000;
    const SO_MANY: u16 = 22_000;
    let (chance, mut tries) = (RandomState::new(), 0u16..2000);
    let any = |at: u16| {
        let port = FROM + u16::try_from(chance.hash_one(at) % u64::from(SO_MANY)).expect("it is less");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    };
    // All are held at once, or one might be given twice.
    let bound = [(); N].map(|()| tries.find_map(any).expect("a port is free"));
    bound.map(|listener| listener.local_addr().expect("it has an address").port())
}
