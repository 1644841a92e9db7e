//! What happens, in order.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser as _;
use fettle_proto::signed::Trust;
use fettle_proto::v1;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::cast::Cast;
use super::hold::Hold;
use super::place::{HOST, Place, Ports, RUNBOOK_NAME};
use super::story::Story;
use super::{Options, alert, kiosk};
use crate::args::{Cli, Global};
use crate::client::{self, Operators};
use crate::commands;
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

/// Nothing in the story takes longer, unless something is wrong.
const LIMIT: Duration = Duration::from_secs(20);

/// Plays the demonstration from beginning to end.
pub(super) fn play(options: &Options, runtime: &Runtime) -> Result<Exit> {
    let mut play = Play::open(options.yes, runtime)?;
    let ended = play.story();
    // What failed, failed because everything is being removed; whoever does that says so, and ends the process.
    play.hold.yield_to_whoever_interrupted();
    match (&ended, options.keep) {
        (Ok(_), true) => play.keep()?,
        (Ok(_), false) => play.hold.end(),
        (Err(_), _) => {
            anstream::eprintln!("{}", crate::output::visible_lines(&play.place.logs(15)));
            play.hold.end();
        }
    }
    ended
}

struct Play<'r> {
    runtime: &'r Runtime,
    story: Story,
    place: Place,
    ports: Ports,
    hold: Hold,
    executable: PathBuf,
    /// The bearer token of the alert's source.
    token: String,
    /// Whether a person is there to be asked.
    asks: bool,
    /// When the kiosk broke.
    since: Timestamp,
    run: String,
    incident: String,
}

impl<'r> Play<'r> {
    /// The directory with everything in it, the keeper, and a watch for whoever interrupts.
    fn open(yes: bool, runtime: &'r Runtime) -> Result<Play<'r>> {
        let failed = |error: &std::io::Error| {
            Error::new(Exit::Failed, "failed to set the demonstration up").because(error)
        };
        let story = Story::new();
        let executable = std::env::current_exe().map_err(|error| failed(&error))?;
        let place = Place::new().map_err(|error| failed(&error))?;
        let hold = Hold::take(&executable, place.directory()).map_err(|error| failed(&error))?;
        leave_when_interrupted(hold.clone()).map_err(|error| failed(&error))?;
        story.part(&format!("Setting up in {}", place.directory().display()));

        let cast = Cast::new(random);
        let token = random().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let ports = Ports::find().map_err(|error| failed(&error))?;
        place.furnish(&cast, ports, &token, now()).map_err(|error| failed(&error))?;
        story.line(
            "keys",
            "ana is on call, rosa reviewed the runbook that ben wrote; a root key signed the roster",
        );

        let asks = !yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let (run, incident) = (String::new(), String::new());
        Ok(Play { runtime, story, place, ports, hold, executable, token, asks, since: now(), run, incident })
    }

    fn story(&mut self) -> Result<Exit> {
        self.controller()?;
        self.agent()?;
        self.kiosk()?;
        self.story.part("Something breaks");
        self.break_it()?;
        self.alert()?;
        self.story.part("Fettle looks, plans, and does what needs nobody");
        let exit = self.follow()?;
        self.end(exit)
    }

    fn controller(&self) -> Result<()> {
        let config = self.place.path("controller.yaml");
        self.start("controller", &["__controller", "--config", &config.to_string_lossy()], false)?;
        self.wait_for("the controller answers", async || {
            TcpStream::connect(("127.0.0.1", self.ports.http)).await.map_err(|error| error.to_string())?;
            TcpStream::connect(("127.0.0.1", self.ports.grpc)).await.map_err(|error| error.to_string())?;
            std::fs::metadata(self.place.trust()).map(drop).map_err(|error| error.to_string())
        })?;
        self.story.line(
            "controller",
            &format!(
                "answers on port {} for hosts and people, {} for alerts",
                self.ports.grpc, self.ports.http
            ),
        );
        self.fettle(&["login"]).map(drop)
    }

    /// Joins as a host would: a token made for it, and a root fingerprint that came by another way.
    fn agent(&self) -> Result<()> {
        let request = v1::CreateTokenRequest {
            host: HOST.to_owned(),
            labels: [("role".to_owned(), "kiosk".to_owned())].into(),
            valid_ms: 60_000,
        };
        let made = self.ask(async |mut operators, context| {
            client::answer(&context, operators.create_token(request)).await
        })?;
        let trust = std::fs::read(self.place.trust())
            .map_err(|error| broken("failed to read the trust bundle", &error))?;
        let root = Trust::fingerprint(&trust).to_string();
        let state = self.place.path("agent");
        let controller = format!("https://localhost:{}", self.ports.grpc);
        let arguments =
            ["join", "--controller", &controller, "--root", &root, "--state", &state.to_string_lossy()];
        self.join(&arguments, &made.token)?;
        self.start("agent", &["__agent", "run", "--state", &state.to_string_lossy()], false)?;
        self.wait_for("the agent is connected", async || {
            let context = self.context().map_err(|error| error.to_string())?;
            let mut operators = client::connect(&context).await.map_err(|error| error.to_string())?;
            let agents =
                operators.list_agents(v1::ListAgentsRequest {}).await.map_err(|error| error.to_string())?;
            let agents = agents.into_inner().agents;
            let agent = agents.iter().find(|agent| agent.host == HOST).ok_or("it is not known yet")?;
            if agent.state == "connected" { Ok(()) } else { Err(format!("it is {}", agent.state)) }
        })?;
        self.story.line("agent", &format!("joined as {HOST} with a single-use token; connected by mTLS"));
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the agent is this program again, not a step on a host")]
    fn join(&self, arguments: &[&str], token: &str) -> Result<()> {
        let output = std::process::Command::new(&self.executable)
            .arg("__agent")
            .args(arguments)
            .env("FETTLE_TOKEN", token)
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|error| broken("failed to start the agent", &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::new(Exit::Failed, "the agent failed to join").why(said))
    }

    fn kiosk(&self) -> Result<()> {
        let directory = self.place.directory().to_string_lossy();
        self.start("kiosk", &["__demo", "kiosk", &directory, &self.ports.kiosk.to_string()], true)?;
        self.wait_for("the kiosk answers", async || self.kiosk_answers(true).await)?;
        self.story.line("kiosk", &format!("a small service, answers on port {}", self.ports.kiosk));
        Ok(())
    }

    fn break_it(&mut self) -> Result<()> {
        self.since = now();
        kiosk::wedge(self.place.directory()).map_err(|error| broken("failed to break the kiosk", &error))?;
        self.wait_for("the kiosk is broken", async || self.kiosk_answers(false).await)?;
        self.story.bad("kiosk", "no longer answers: its process lives, its port is closed");
        Ok(())
    }

    async fn kiosk_answers(&self, expected: bool) -> std::result::Result<(), String> {
        let answers = kiosk::answers(self.ports.kiosk).await;
        if answers == expected { Ok(()) } else { Err(format!("answers: {answers}")) }
    }

    fn alert(&mut self) -> Result<()> {
        self.post(None)?;
        self.story.line("alert", "DemoServiceDown posted to /v1/signals/alertmanager, as Alertmanager would");
        let run = self.wait_for("the alert started a run", async || {
            let context = self.context().map_err(|error| error.to_string())?;
            let mut operators = client::connect(&context).await.map_err(|error| error.to_string())?;
            let signals = operators.list_signals(v1::ListSignalsRequest { limit: 1 }).await;
            let signals = signals.map_err(|error| error.to_string())?.into_inner().signals;
            let signal = signals.first().ok_or("no signal is known")?;
            let trail = || {
                signal
                    .trail
                    .iter()
                    .map(|verdict| format!("{}: {} ({})", verdict.asked, verdict.answer, verdict.reason))
            };
            if signal.run.is_empty() {
                Err(trail().collect::<Vec<_>>().join("; "))
            } else {
                Ok((signal.run.clone(), signal.incident.clone()))
            }
        })?;
        (self.run, self.incident) = run;
        self.story.line("controller", &format!("starts {RUNBOOK_NAME} on {HOST}: {}", self.run));
        Ok(())
    }

    /// Posts that the kiosk does not answer, or did not until then.
    fn post(&self, until: Option<Timestamp>) -> Result<()> {
        let trust = std::fs::read(self.place.trust())
            .map_err(|error| broken("failed to read the trust bundle", &error))?;
        let trust =
            Trust::decode(&trust).map_err(|error| broken("failed to read the trust bundle", &error))?;
        let body = alert::body(HOST, self.ports.kiosk, self.place.directory(), self.since, until);
        self.runtime.block_on(alert::post(self.ports.http, &trust.ca_der, &self.token, &body)).map(drop)
    }

    /// Says that the alert is over, as Alertmanager would, and waits until the incident is too.
    fn resolve(&self) -> Result<()> {
        self.post(Some(now()))?;
        self.story.line("alert", "resolved, as Alertmanager would say now");
        self.wait_for("the incident is closed", async || {
            let context = self.context().map_err(|error| error.to_string())?;
            let mut operators = client::connect(&context).await.map_err(|error| error.to_string())?;
            let request = v1::GetIncidentRequest { incident: self.incident.clone() };
            let incident = operators.get_incident(request).await.map_err(|error| error.to_string())?;
            let state = incident.into_inner().state;
            if state == "closed" { Ok(()) } else { Err(format!("it is {state}")) }
        })
    }

    /// Tells what happens to the run until it has ended, and decides its gate on the way.
    fn follow(&self) -> Result<Exit> {
        let deadline = Instant::now() + if self.asks { Duration::from_secs(600) } else { LIMIT * 2 };
        let (mut after, mut decided) = (0, false);
        loop {
            let stop = self.watch(&mut after, decided, deadline)?;
            match stop {
                Stop::Gate(gate) => {
                    decided = true;
                    self.decide(&gate)?;
                }
                Stop::Ended(exit) => return Ok(exit),
            }
        }
    }

    /// Tells what is new after an event number, until the run waits for people or has ended.
    fn watch(&self, after: &mut u64, decided: bool, deadline: Instant) -> Result<Stop> {
        let context = self.context()?;
        self.runtime.block_on(async {
            let mut operators = client::connect(&context).await?;
            let request = v1::WatchRunRequest { run: self.run.clone(), after: *after };
            let mut events = operators
                .watch_run(request)
                .await
                .map_err(|status| client::explain(&context, status))?
                .into_inner();
            let mut last = Stop::Ended(Exit::Pending);
            loop {
                let next = tokio::time::timeout_at(deadline.into(), events.message()).await;
                let event = match next {
                    Ok(Ok(Some(event))) => event,
                    Ok(Ok(None)) => return Ok(last),
                    Ok(Err(status)) => return Err(client::explain(&context, status)),
                    Err(_) => {
                        return Err(Error::new(Exit::Failed, "the run did not end in time")
                            .next(format!("fettle run show {}", self.run)));
                    }
                };
                *after = (*after).max(event.number);
                match event.what {
                    Some(v1::run_event::What::Happened(happened)) => self.tell(&event.host, &happened),
                    Some(v1::run_event::What::Output(output)) => {
                        self.story.more(&String::from_utf8_lossy(&output.data))
                    }
                    Some(v1::run_event::What::Run(run)) => {
                        let exit = Exit::of_run(&run.hosts);
                        if run.ended_at > 0 || run.hosts.iter().all(|host| host.state == "ended") {
                            last = Stop::Ended(exit);
                        }
                        let gate =
                            run.hosts.iter().find(|host| host.waiting_for == "gate" && !host.gate.is_empty());
                        if let Some(host) = gate.filter(|_| !decided) {
                            return Ok(Stop::Gate(host.gate.clone()));
                        }
                    }
                    None => {}
                }
            }
        })
    }

    fn tell(&self, host: &str, happened: &v1::Happened) {
        self.story.line(if host.is_empty() { "controller" } else { host }, &happened.text);
    }

    /// Shows the plan and decides, as the person on call.
    fn decide(&self, gate: &str) -> Result<()> {
        self.story.part("A person is asked");
        if self.asks {
            self.story.line("ana", &format!("is asked; what follows is `fettle approve {gate}`"));
            let approved = matches!(self.fettle(&["approve", gate]), Ok(Exit::Done));
            if !approved {
                // A "no" at the prompt leaves the gate open, for somebody else to decide. Here there is nobody else.
                self.fettle(&["reject", gate, "--reason", "said no in the demonstration"])?;
            }
        } else {
            let why = "nobody is at a terminal, so the demonstration signs with ana's key, which it has made itself";
            self.story.line("ana", why);
            self.fettle(&["approve", gate, "--yes", "--reason", "demonstration: signed without asking"])?;
        }
        self.story.part("Fettle carries it out, and looks whether it helped");
        Ok(())
    }

    fn end(&self, exit: Exit) -> Result<Exit> {
        if self.runtime.block_on(kiosk::answers(self.ports.kiosk)) {
            self.story.good("kiosk", "answers again");
            self.resolve()?;
        } else {
            self.story.bad("kiosk", "still does not answer");
        }
        self.story.part("The incident, as an auditor will read it");
        self.fettle(&["incident", "show", &self.incident])?;
        Ok(exit)
    }

    /// Leaves everything running and says what to try.
    fn keep(&self) -> Result<()> {
        self.hold.keep().map_err(|error| broken("failed to leave it running", &error))?;
        let Play { run, incident, .. } = self;
        let fettle = format!(
            "FETTLE_CONFIG={} {}",
            quoted(&self.place.config().to_string_lossy()),
            quoted(&self.executable.to_string_lossy())
        );
        let trusting =
            format!("--cacert {}", quoted(&self.place.path("controller/ca.pem").to_string_lossy()));
        let _ = trusting;
        self.story.part("It is still running. What to try next:");
        let address = format!("127.0.0.1:{}", self.ports.kiosk);
        let inputs = format!(
            "-i address={address} -i pid_file={} -i log={}",
            quoted(&kiosk::pid_file(self.place.directory()).to_string_lossy()),
            quoted(&super::keeper::log_file(self.place.directory(), "kiosk").to_string_lossy()),
        );
        for (command, why) in [
            (format!("{fettle} status"), "what waits, what runs"),
            (format!("{fettle} run show {run}"), "the run, step by step"),
            (format!("{fettle} logs {run}"), "what its steps printed"),
            (format!("{fettle} incident show {incident} -o json"), "the incident, for programs"),
            (format!("{fettle} signal list"), "what came in"),
            (format!("{fettle} agent list"), "the hosts"),
            (format!("{fettle} runbook show {RUNBOOK_NAME}"), "the runbook"),
            (
                format!("{fettle} start {RUNBOOK_NAME} --host {HOST} {inputs}"),
                "run it yourself, on a healthy kiosk",
            ),
            (format!("kill {}", self.hold.pid()), "end it and remove everything"),
        ] {
            anstream::println!("\n# {why}\n{command}");
        }
        Ok(())
    }

    /// Does what typing `fettle …` would do, as the person on call.
    fn fettle(&self, arguments: &[&str]) -> Result<Exit> {
        let config = self.place.config();
        let line = ["fettle".into(), "--config".into(), config.into_os_string()];
        let line = line.into_iter().chain(arguments.iter().map(|argument| (*argument).into()));
        let cli = Cli::try_parse_from(line)
            .map_err(|error| Error::usage("the demonstration mistyped a command").why(error))?;
        commands::run(cli, self.runtime)
    }

    fn context(&self) -> Result<Context> {
        Context::new(&Global { config: Some(self.place.config()), ..Global::default() })
    }

    fn ask<T>(&self, question: impl AsyncFnOnce(Operators, Context) -> Result<T>) -> Result<T> {
        let context = self.context()?;
        self.runtime.block_on(async {
            let operators = client::connect(&context).await?;
            question(operators, context).await
        })
    }

    fn start(&self, name: &str, arguments: &[&str], again: bool) -> Result<()> {
        let mut argv = vec![self.executable.to_string_lossy().into_owned()];
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.hold.start(name, argv, again).map_err(|error| broken("the keeper has gone", &error))
    }

    /// Looks until it is so, and says what was seen last when it never is.
    fn wait_for<T>(&self, what: &str, look: impl AsyncFn() -> std::result::Result<T, String>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        self.runtime.block_on(async {
            loop {
                match look().await {
                    Ok(seen) => return Ok(seen),
                    Err(last) if Instant::now() >= deadline => {
                        return Err(
                            Error::new(Exit::Failed, format!("waited in vain until {what}")).why(last)
                        );
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
                }
            }
        })
    }
}

/// Why the story pauses.
enum Stop {
    /// People are asked.
    Gate(String),
    /// It is over.
    Ended(Exit),
}

/// Ends everything and then this process, on the first SIGINT, SIGTERM or SIGHUP, whatever it is doing: it may be
/// waiting for an answer on the terminal.
fn leave_when_interrupted(hold: Hold) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("interrupted".to_owned()).spawn(move || {
        if let Ok(kind) = runtime.block_on(super::interrupted()) {
            hold.interrupt();
            anstream::eprintln!("\ninterrupted; everything is removed");
            leave(128 + kind.as_raw_value());
        }
    })?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the main thread may wait for a person; there is nothing left to drop"
)]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}

fn broken(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(Exit::Failed, what).because(error)
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=+,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_quoted_word_is_read_back_by_a_shell() {
        assert_eq!(quoted("/tmp/fettle-demo-1f/config.yaml"), "/tmp/fettle-demo-1f/config.yaml");
        assert_eq!(quoted("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
