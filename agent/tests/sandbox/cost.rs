//! What a sandbox costs, beside a process without one. `AGENT` names the program to measure with: a release build.
//!
//! `AGENT=target/release/fettle-agent cargo test -p fettle-agent --test sandbox -- --ignored --nocapture cost::`

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fettle_agent::works::attempt::{Attempts, Happening, Work};
use fettle_agent::works::sandbox::Allowed;

use crate::place::{Agent, Place, agents, read_all, step};

const TIMES: usize = 400;

#[test]
#[ignore = "it measures, and proves nothing"]
fn a_sandbox_beside_none() {
    let agent = agents()[0];
    let place = Place::new(agent);
    let helper = std::env::var("AGENT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fettle-agent").to_owned());
    let attempts = Attempts::open(&place.path("state")).unwrap().supervised_by(helper.into());
    assert_eq!(attempts.confinement().missing(), Vec::<String>::new());
    show("none, spawn to exit", || {
        let began = Instant::now();
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
        began.elapsed()
    });
    let mut kinds = vec![("a sandbox", Allowed::default())];
    if agent == Agent::Root {
        kinds.push(("a sandbox that reads all", read_all()));
    }
    for (name, allowed) in kinds {
        let mut lives = Vec::new();
        show(&format!("{name}, start to the step's first word"), || {
            let (tell, told) = channel();
            let began = Instant::now();
            let observer = Box::new(move |happening: Happening<'_>| {
                let _ = match happening {
                    Happening::Output { .. } => tell.send((false, began.elapsed())),
                    Happening::Ended(_) | Happening::Unknown(_) | Happening::NeverBorn { .. } => {
                        tell.send((true, began.elapsed()))
                    }
                };
            });
            let work = Work::Argv(vec!["/bin/echo".into(), "word".into()]);
            attempts.start_read(&step(work, allowed.clone()), observer).unwrap();
            let first = told.recv().unwrap();
            assert!(!first.0, "it said something");
            lives.push(told.recv().unwrap().1);
            first.1
        });
        lives.sort();
        tell("  … start to end", &lives);
    }
}

fn show(name: &str, mut once: impl FnMut() -> Duration) {
    let mut times: Vec<Duration> = (0..TIMES).map(|_| once()).collect();
    times.sort();
    tell(name, &times);
}

fn tell(name: &str, sorted: &[Duration]) {
    let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
    eprintln!("{name}: p10 {:?}, median {:?}, p90 {:?}, p99 {:?}", at(10), at(50), at(90), at(99));
}
