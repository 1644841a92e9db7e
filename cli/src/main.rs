//! The command line of Fettle.

use std::process::ExitCode;

fn main() -> ExitCode {
    fettle::main_with(std::env::args_os().collect()).into()
}
