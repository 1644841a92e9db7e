//! How the controller is started, and what its exit code says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Config;
use crate::life::{self, Ended};

const AFTER: &str = "\
Exit codes: 0 stopped as asked, or the configuration is good · 1 failed · 2 usage, or the configuration is wrong ·
3 stopped as asked, but work was still going on when time ran out

Examples:
  fettle-controller --config /etc/fettle/controller.yaml
  fettle-controller --config controller.yaml --check-config
  fettle-controller --config controller.yaml --print-config     with every default filled in

SIGTERM and SIGINT stop it in order: no new connections, what has begun is finished, agents are told to come back.";

/// The controller: takes signals in, decides, dispatches, and holds risky actions until people agree.
#[derive(Debug, Parser)]
#[command(name = "fettle-controller", version, after_help = AFTER, max_term_width = 110)]
struct Args {
    /// The configuration file.
    #[arg(long, env = "FETTLE_CONTROLLER_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and everything it names, then leave.
    #[arg(long)]
    check_config: bool,
    /// Print the configuration with its defaults, then leave.
    #[arg(long, conflicts_with = "check_config")]
    print_config: bool,
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
    let config = match Config::read(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            say(&format!("error: {problems}\n  next: fettle-controller --config FILE --check-config"));
            return ExitCode::from(2);
        }
    };
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

fn say(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}
