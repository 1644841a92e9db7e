//! The budgets of the architecture, measured: each beside a limit or a peer of the same run, and said to be met or missed.
//!
//! ```text
//! cargo bench -p fettle-tests                    everything
//! cargo bench -p fettle-tests -- signal steps    some of it
//! ```
//!
//! The programs are the real ones, started as the tests start them. On a machine that does other things too, look at the
//! ratios rather than at the times: what was measured and its limit suffered alike, within the same minute.
//! `FETTLE_TESTS_BINARIES=target/dist` measures programs of another profile.
//!
//! Nothing here fails because it was slow; a budget that is missed is said to be missed.

#![expect(clippy::disallowed_methods, reason = "what is measured here are processes")]

mod absorb; // alerts that come again and again
mod bare; // what gRPC costs by itself
mod fleet; // many hosts at once
mod idle; // what it costs while nothing happens
mod many; // a thousand of them
mod limit; // what the machine can do at all
mod marker; // a process that says when it began
mod sandbox; // steps that only read
mod signal; // from an alert to the first process
mod steps; // steps that act
mod store; // the controller's store
mod table; // measured, limit, budget, verdict
mod webhook; // a source that keeps its connection

/// What can be measured, in the order in which it is.
const ALL: &[(&str, fn())] = &[
    ("signal", signal::measure),
    ("steps", steps::measure),
    ("sandbox", sandbox::measure),
    ("store", store::measure),
    ("fleet", fleet::measure),
    ("thousand", many::run),
    ("ten-thousand", many::most),
    ("memory", many::memory),
    ("return", many::back),
    ("signals", absorb::measure),
    ("idle", idle::measure),
];

fn main() {
    bare::serve_if_asked();
    // Cargo adds `--bench`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|word| ALL.iter().all(|(name, _)| name != word)) {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no benchmark `{unknown}`, but: {}", names.join(", "));
        std::process::exit(2);
    }
    println!("programs: {}", fettle_tests::programs::binary("fettle-agent").display());
    for (name, measure) in ALL {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            table::begin(name);
            measure();
        }
    }
}
