//! The controller of Fettle.

use std::process::ExitCode;

fn main() -> ExitCode {
    fettle_controller::main_with(std::env::args_os().collect())
}
