//! The agent of a host.

use std::process::ExitCode;

fn main() -> ExitCode {
    fettle_agent::shim_if_asked();
    fettle_agent::main_with(std::env::args_os().collect())
}
