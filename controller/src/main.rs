//! The controller of Fettle.

use std::process::ExitCode;

/// Gives back what hosts took that have gone; the reasons are in `docs/architecture.md`.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fettle_controller::main_with(std::env::args_os().collect())
}
