//! How the controller is started, and what its exit code says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::keep;
use crate::life::{self, Ended};

const AFTER: &str = "\
Exit codes: 0 stopped as asked, the configuration is good, or done · 1 failed · 2 usage, or the configuration is wrong ·
3 stopped as asked, but work was still going on when time ran out

Examples:
  fettle-controller --config /etc/fettle/controller.yaml
  fettle-controller --config controller.yaml --check-config
  fettle-controller --config controller.yaml --print-config     with every default filled in
  fettle-controller backup --config controller.yaml --to /backup/fettle-monday.db     while it runs
  fettle-controller restore --config controller.yaml --from /backup/fettle-monday.db  while it is stopped

SIGTERM and SIGINT stop it in order: no new connections, what has begun is finished, agents are told to come back.";

/// The controller: takes signals in, decides, dispatches, and holds risky actions until people agree.
#[derive(Debug, Parser)]
#[command(name = "fettle-controller", version, after_help = AFTER, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file.
    #[arg(long, env = "FETTLE_CONTROLLER_CONFIG", value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Check the configuration and everything it names, then leave.
    #[arg(long)]
    check_config: bool,
    /// Print the configuration with its defaults, then leave.
    #[arg(long, conflicts_with = "check_config")]
    print_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy the store to a file, while the controller runs.
    ///
    /// The file is checked and durable when this says so, and nobody but its owner can read it. It holds runs, approvals, incidents and
    /// hosts; the CA, the roster, the policy and the library are files already.
    Backup {
        /// The configuration file.
        #[arg(long, env = "FETTLE_CONTROLLER_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// Where to; no file of that name may be there.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Put the store back from a backup, while the controller is stopped.
    ///
    /// The backup is checked first: that it is whole, that this version can read it, that its history gives its tables. The database in
    /// place is kept beside it. Hosts tell again what they did since the backup, and nothing is run twice. Run it as the controller's
    /// user: the restored database belongs to whoever types it.
    Restore {
        /// The configuration file.
        #[arg(long, env = "FETTLE_CONTROLLER_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Runs the controller to its end. `args[0]` is the program's name.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match args.command {
        Some(Command::Backup { config, to, output }) => {
            return with(&config, |config| keep::backup(&config, &to, output));
        }
        Some(Command::Restore { config, from, output }) => {
            return with(&config, |config| keep::restore(&config, &from, output));
        }
        None => {}
    }
    let file = args.config.clone().unwrap_or_default();
    with(&file, |config| run(&args, config))
}

/// Does something with a configuration that can be used.
fn with(file: &std::path::Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::read(file) {
        Ok(config) => then(config),
        Err(problems) => {
            say(&format!("error: {problems}\n  next: fettle-controller --config FILE --check-config"));
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args, config: Config) -> ExitCode {
    if args.print_config {
        print(&config.print());
        return ExitCode::SUCCESS;
    }
    if args.check_config {
        return match life::check(&config) {
            Ok(told) => {
                print(&told);
                ExitCode::SUCCESS
            }
            Err(problems) => {
                say(&problems);
                ExitCode::from(2)
            }
        };
    }
    match life::run(config) {
        Ok(Ended::AsAsked) => ExitCode::SUCCESS,
        Ok(Ended::Abandoned) => ExitCode::from(3),
        Err(error) => {
            let mut text = "error: the controller cannot go on".to_owned();
            for cause in error.chain() {
                text.push_str(&format!("\n   why: {cause}"));
            }
            say(&text);
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}
