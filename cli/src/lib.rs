//! The operator's side: the command line.
//!
//! A command line is read ([`args`]), laid over the configuration ([`config`]), and carried out by one file of
//! [`commands`]; what is signed is [`people`]'s. Stdout is data, stderr is talk ([`output`]); the exit code says how it
//! ended ([`exit`]).
//!
//! Deliberately missing: decisions. The command line shows, asks and signs; the controller and the hosts decide.

pub mod args; // what was typed
pub mod config; // … and what the file says
pub mod session; // … and who is signed in
pub mod client; // the way to the controller
pub mod commands; // what it does
pub mod demo; // … and all of it together, to watch
pub mod people; // … and what a person signs
pub mod view; // things as programs and people see them
pub mod output; // where it is printed
pub mod error; // … or why not
pub mod exit; // … and how it ends

use std::ffi::OsString;

use clap::Parser as _;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output::Format;

/// Runs one command line, `args[0]` being the program's name, and says how it ended.
pub fn main_with(args: Vec<OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let format = cli.global.output;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::talk(&format!("error: failed to start: {error}"));
            return Exit::Failed;
        }
    };
    let result = commands::run(cli, &runtime);
    // A reader of stdin or a name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit,
        Err(error) if error.is_silent() => error.exit(),
        Err(error) => {
            match format {
                Format::Table | Format::Yaml => output::talk(&error.to_string()),
                Format::Json | Format::Jsonl => output::talk(&error.to_json().to_string()),
            }
            error.exit()
        }
    }
}
