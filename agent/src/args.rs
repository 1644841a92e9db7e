//! How the agent is started. Exit codes are an interface: service managers and scripts read them.

use std::error::Error;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fettle_runbooks::id::Digest;

use crate::chain::Chain;
use crate::config::Config;
use crate::identity::Identity;
use crate::join::{Join, JoinError, Token};
use crate::life;
use crate::link::connect::Controller;

/// It ended as it was asked to.
pub const CLEAN: u8 = 0;
/// It could not do what it was asked to.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The host has not joined, or has joined already.
pub const NOT_JOINED: u8 = 3;
/// The controller refused the token, or is not who it should be.
pub const REFUSED: u8 = 5;
/// The controller cannot be reached.
pub const UNREACHABLE: u8 = 14;
/// It could not start.
pub const COULD_NOT_START: u8 = 70;
/// The configuration is wrong.
pub const BAD_CONFIG: u8 = 78;

/// The agent of a host: runs runbooks that its controller dispatches and people have approved.
#[derive(Debug, Parser)]
#[command(name = "fettle-agent", version, max_term_width = 100)]
struct Cli {
    /// The configuration file [default: /etc/fettle/agent.yaml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state folder [default: of the configuration, else /var/lib/fettle-agent]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and end
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this host one of a controller's, once
    Join(JoinArgs),
    /// Run the agent (as without a command)
    Run,
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// Where the controller is, as https://HOST:PORT
    #[arg(long, value_name = "URL")]
    controller: Controller,
    /// The controller's root fingerprint, as somebody who runs it told you
    #[arg(long, value_name = "sha256:…")]
    root: Digest,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct TokenArgs {
    /// The single-use token; others on this host can see it in `ps`, so prefer FETTLE_TOKEN or --token-file
    #[arg(long, env = "FETTLE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// A file with the token; `-` reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

/// Does what the command line says. `args` begins with the program's name.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(told) => {
            // `--help` and `--version` come this way too, and are no mistakes.
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { USAGE } else { CLEAN });
        }
    };
    // Everything that can be wrong with the configuration is found before the first socket is opened.
    let config = match Config::load(cli.config.as_deref(), cli.state.as_deref()) {
        Ok(config) => config,
        Err(error) => return give_up(&error, BAD_CONFIG),
    };
    match cli.command {
        _ if cli.check_config => check(&config),
        Some(Command::Join(args)) => join(&config, args),
        Some(Command::Run) | None => run(&config),
    }
}

fn check(config: &Config) -> ExitCode {
    match Identity::load(&config.state) {
        Ok(identity) => println!("The configuration is good; this host is {}.", identity.host),
        Err(error) => println!("The configuration is good; failed to {}.", Chain(&error)),
    }
    ExitCode::from(CLEAN)
}

fn join(config: &Config, args: JoinArgs) -> ExitCode {
    let token = match read_token(args.token) {
        Ok(token) => token,
        Err((path, error)) => {
            eprintln!("fettle-agent: failed to read the token from {}: {error}", path.display());
            return ExitCode::from(USAGE);
        }
    };
    let join = Join { controller: args.controller, root: args.root, token, state: config.state.clone() };
    let runtime = match life::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error, COULD_NOT_START),
    };
    match runtime.block_on(crate::join::join(join)) {
        Ok(host) => {
            println!("Joined as {host}. Start the agent: fettle-agent run{}", state_flag(&config.state));
            ExitCode::from(CLEAN)
        }
        Err(error) => {
            let code = exit_code(&error);
            give_up(&error, code)
        }
    }
}

fn state_flag(state: &Path) -> String {
    match state == Path::new(crate::config::DEFAULT_STATE) {
        true => String::new(),
        false => format!(" --state {}", state.display()),
    }
}

fn exit_code(error: &JoinError) -> u8 {
    match error {
        JoinError::AlreadyJoined { .. } => NOT_JOINED,
        JoinError::OtherRoot { .. } | JoinError::Impostor { .. } | JoinError::Refused { .. } => REFUSED,
        JoinError::Connect { .. } | JoinError::TooSlow => UNREACHABLE,
        JoinError::Key { .. }
        | JoinError::Keep { .. }
        | JoinError::Trust { .. }
        | JoinError::Nonsense(_)
        | JoinError::Name { .. } => FAILED,
    }
}

fn read_token(args: TokenArgs) -> Result<Token, (PathBuf, std::io::Error)> {
    let Some(path) = args.token_file else {
        return Ok(Token::new(&args.token.unwrap_or_default()));
    };
    let mut text = String::new();
    let read = match path == Path::new("-") {
        // A token is short; more is a mistake that need not fill memory.
        true => std::io::stdin().take(4096).read_to_string(&mut text),
        false => std::fs::File::open(&path).and_then(|file| file.take(4096).read_to_string(&mut text)),
    };
    read.map(|_| Token::new(&text)).map_err(|error| (path, error))
}

fn run(config: &Config) -> ExitCode {
    let identity = match Identity::load(&config.state) {
        Ok(identity) => identity,
        Err(error) => return give_up(&error, NOT_JOINED),
    };
    match life::live(config, identity) {
        Ok(life::Exit::Clean) => ExitCode::from(CLEAN),
        Ok(life::Exit::WorksGone) => ExitCode::from(COULD_NOT_START),
        Err(error) => give_up(&error, COULD_NOT_START),
    }
}

fn give_up(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("fettle-agent: failed to {}", Chain(error));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, String> {
        Cli::try_parse_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_line_says_what_it_means() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_token_is_never_shown() {
        let root = format!("sha256:{}", "0".repeat(64));
        let args =
            ["fettle-agent", "join", "--controller", "https://c:1", "--root", &root, "--token", "hush"];
        let cli = parse(&args).expect("it is complete");
        assert!(!format!("{cli:?}").contains("hush"));
    }

    #[test]
    fn joining_needs_a_controller_a_root_and_a_token() {
        for args in [
            vec!["fettle-agent", "join"],
            vec!["fettle-agent", "join", "--controller", "http://c:1", "--root", "x", "--token", "t"],
            vec!["fettle-agent", "join", "--controller", "https://c:1", "--root", "x", "--token", "t"],
        ] {
            assert!(parse(&args).is_err(), "{args:?}");
        }
    }
}
