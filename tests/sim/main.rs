//! The whole of Fettle in simulated time: one controller, several agents, people and a source of alerts in one process
//! and one thread, on a simulated network, disks, clocks and processes, with faults drawn from a seed.
//!
//! What is real: the coordinator and its model, SQLite, the gRPC services of agents and operators with tonic and HTTP/2
//! beneath, the agent's link and works with their journal, every signature. What is simulated: the network (turmoil), the
//! controller's fsync, the hosts' disks and processes, every clock, all randomness ([`chance`]). There is no TLS: the
//! simulated listener vouches for its peers by their address. TLS, joining and revocation are tested elsewhere, as are
//! real processes, cgroups and the sandbox.
//!
//! The same seed tells the same story, to the letter: a process has one seed and draws nothing from anywhere else.
//!
//! ```text
//! cargo test -p fettle-tests --test sim                                    # the seeds that every change must pass
//! FETTLE_SIM_SEEDS=1000..9000 cargo test -p fettle-tests --test sim seeds  # others
//! FETTLE_SIM_SEED=4711 cargo test -p fettle-tests --test sim               # one, with every line of it
//! ```
//!
//! `FETTLE_SIM_LOG=debug` adds what the programs log, `FETTLE_SIM_TALLY=1` how often which fault struck and which rule was
//! held against something. A seed that breaks a rule, or is not over within two minutes, prints its end and the command
//! that repeats it. Rules are in [`check`], faults in [`faults`].

#![expect(clippy::disallowed_methods, reason = "the harness starts itself once for each seed")]

mod cast; // who takes part
mod chance; // all randomness
mod check; // what must hold
mod controller; // a controller on its machine
mod faults; // what goes wrong
mod host; // an agent on its host
mod people; // people and alerts
mod rules; // the rules can be broken
mod seeds; // one process for each
mod store; // the controller's disk
mod story; // one seed, from its first step to its last
mod trace; // what happened
mod world; // the controller's time

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(seed) = seeds::only() {
        return seeds::play(seed);
    }
    let arguments = Arguments::from_args();
    let disk = host::disk::TESTS.iter().map(|(name, test)| {
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    });
    let trials = rules::trials().into_iter().chain(disk).chain(seeds::trials()).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
