//! The command line of Fettle. It is also, when it runs itself again, the other two programs of a demonstration.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before there are threads: a step of an embedded agent is watched by this program again.
    fettle_agent::shim_if_asked();
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("__agent") => fettle_agent::main_with(without_name("fettle-agent", args)),
        Some("__controller") => fettle_controller::main_with(without_name("fettle-controller", args)),
        Some(_) | None => fettle::main_with(args).into(),
    }
}

/// The arguments of an embedded program: its own name instead of ours and the word that asked for it.
fn without_name(name: &str, args: Vec<OsString>) -> Vec<OsString> {
    std::iter::once(name.into()).chain(args.into_iter().skip(2)).collect()
}
