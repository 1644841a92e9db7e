//! One file per noun, and the table that leads to them.

mod agent;
mod detect;
mod follow;
mod incident;
mod lint;
mod logs;
mod plan;
mod run;
mod runbook;
mod signal;
mod start;
mod status;
mod stop;
mod watch;
mod whoami;

pub(crate) use run::paused_why;
pub(crate) use start::check as checked;

use clap::CommandFactory as _;
use fettle_proto::v1;
use tokio::runtime::Runtime;

use crate::args::{Agent, Cli, Command, Detect, Incident, Roster, Run, Runbook, Signal, Token};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::{demo, output, people};

/// Carries out one command.
pub fn run(cli: Cli, runtime: &Runtime) -> Result<Exit> {
    let context = || Context::new(&cli.global);
    match &cli.command {
        Command::Start(args) => runtime.block_on(start::run(&context()?, args)),
        Command::Plan(args) => runtime.block_on(plan::run(&context()?, args)),
        Command::Watch(args) => runtime.block_on(watch::run(&context()?, args)),
        Command::Logs(args) => runtime.block_on(logs::run(&context()?, args)),
        Command::Approve(args) => runtime.block_on(people::approve(&context()?, args)),
        Command::Reject(args) => runtime.block_on(people::reject(&context()?, args)),
        Command::Status => runtime.block_on(status::run(&context()?)),
        Command::Run(Run::List { host, open, limit, before }) => {
            runtime.block_on(run::list(&context()?, host.as_deref(), *open, *limit, before.as_deref()))
        }
        Command::Run(Run::Show { run }) => runtime.block_on(run::show(&context()?, run)),
        Command::Run(Run::Retry { of, reason }) => runtime.block_on(follow::retry(&context()?, of, reason)),
        Command::Run(Run::Undo { of, reason, cancel }) => {
            runtime.block_on(follow::undo(&context()?, of, reason, *cancel))
        }
        Command::Run(Run::Cancel { run, reason }) => runtime.block_on(stop::cancel(&context()?, run, reason)),
        Command::Run(Run::Pause { run, host, reason }) => {
            runtime.block_on(stop::pause(&context()?, run, host.as_deref(), reason))
        }
        Command::Run(Run::Resume { run, host }) => {
            runtime.block_on(stop::resume(&context()?, run, host.as_deref()))
        }
        Command::Run(Run::Resolve { run, host, step, ran, did_not_run: _, run_again, yes, reason }) => {
            let found = match (ran, run_again) {
                (true, _) => v1::Found::Ran,
                (false, true) => v1::Found::RunAgain,
                (false, false) => v1::Found::DidNotRun,
            };
            let looked = stop::Looked { run, host, step: step.as_deref(), found, reason, yes: *yes };
            runtime.block_on(stop::resolve(&context()?, &looked))
        }
        Command::Signal(Signal::List { limit }) => runtime.block_on(signal::list(&context()?, *limit)),
        Command::Signal(Signal::Explain { signal }) => runtime.block_on(signal::explain(&context()?, signal)),
        Command::Signal(Signal::Test { file, source }) => {
            runtime.block_on(signal::test(&context()?, file, source))
        }
        Command::Incident(Incident::List { open, limit }) => {
            runtime.block_on(incident::list(&context()?, *open, *limit))
        }
        Command::Incident(Incident::Show { incident }) => {
            runtime.block_on(incident::show(&context()?, incident))
        }
        Command::Agent(Agent::List) => runtime.block_on(agent::list(&context()?)),
        Command::Agent(Agent::Show { host }) => runtime.block_on(agent::show(&context()?, host)),
        Command::Agent(Agent::Token(Token::Create { host, labels, valid })) => {
            runtime.block_on(agent::create_token(&context()?, host, labels, *valid))
        }
        Command::Agent(Agent::Revoke { host, reason }) => {
            runtime.block_on(agent::revoke(&context()?, host, reason))
        }
        Command::Runbook(Runbook::List) => runtime.block_on(runbook::list(&context()?)),
        Command::Runbook(Runbook::Show { runbook, source }) => {
            runtime.block_on(runbook::show(&context()?, runbook, *source))
        }
        Command::Runbook(Runbook::Lint { files, strict }) => {
            lint::run(&output::Output::new(cli.global.output), files, *strict)
        }
        Command::Runbook(Runbook::Certify { file, author }) => {
            runtime.block_on(people::certify(&context()?, file, author))
        }
        Command::Runbook(Runbook::Verify { file, roster }) => {
            runtime.block_on(people::verify(&context()?, file, roster.as_deref()))
        }
        Command::Detect(Detect::Lint(args)) => detect::lint(&output::Output::new(cli.global.output), args),
        Command::Roster(Roster::Sign { file, out }) => {
            runtime.block_on(people::roster_sign(&context()?, file, out.as_deref()))
        }
        Command::Roster(Roster::Show { file }) => {
            runtime.block_on(people::roster_show(&context()?, file.as_deref()))
        }
        Command::Login(args) => runtime.block_on(people::login(&context()?, args)),
        Command::Demo(options) => demo::run(options, runtime),
        Command::DemoPart(part) => demo::part(part, runtime),
        Command::Whoami => runtime.block_on(whoami::run(&context()?)),
        Command::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "fettle", &mut script);
            output::print_bytes(&script)?;
            Ok(Exit::Done)
        }
        Command::Version => {
            let output = output::Output::new(cli.global.output);
            let version = env!("CARGO_PKG_VERSION");
            output.show(&serde_json::json!({ "version": version }), || format!("fettle {version}"))?;
            Ok(Exit::Done)
        }
    }
}
