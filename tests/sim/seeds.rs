//! One process for each seed: they share nothing, so that each tells its story as it would alone.

use std::collections::BTreeSet;
use std::env;
use std::ops::Range;
use std::process::{Command, ExitCode, Output};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Failed, Trial};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{chance, story};

/// The seed to be told in this process.
const SEED: &str = "FETTLE_SIM_SEED";
/// Set: only the end is told.
const BRIEF: &str = "FETTLE_SIM_BRIEF";
/// Which seeds to go through.
const SEEDS: &str = "FETTLE_SIM_SEEDS";
/// Set: how often what happened is told as well.
const TALLY: &str = "FETTLE_SIM_TALLY";
/// What is logged.
const LOG: &str = "FETTLE_SIM_LOG";

/// The seeds that every change must pass.
const ALWAYS: Range<u64> = 0..500;
/// Others, with which it is held that every fault strikes and every rule is asked.
const TALLIED: Range<u64> = 1000..1060;
/// Seeds of one test.
const GROUP: u64 = 10;
/// A story may go deep.
const STACK: usize = 64 * 1024 * 1024;

/// Panics in this process; a program that panics is wrong, even where its task is caught.
pub(crate) static PANICS: AtomicUsize = AtomicUsize::new(0);

/// The seed of this process, if it has one.
pub(crate) fn only() -> Option<u64> {
    env::var(SEED).ok()?.parse().ok()
}

/// Tells one seed's story here.
pub(crate) fn play(seed: u64) -> ExitCode {
    chance::seed(seed);
    let aloud = env::var_os(BRIEF).is_none();
    if let Ok(wanted) = env::var(LOG) {
        let targets = Targets::from_str(&wanted).unwrap_or_default();
        let lines = tracing_subscriber::fmt::layer().without_time().with_writer(std::io::stdout);
        tracing_subscriber::registry().with(targets).with(lines).init();
    }
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        default(info);
    }));
    // A thread that begins now has drawn nothing from before the seed.
    let telling = std::thread::Builder::new().stack_size(STACK).spawn(move || story::tell(seed, aloud));
    let told = match telling.expect("a thread").join() {
        Ok(told) => told,
        Err(_) => return ExitCode::FAILURE,
    };
    let (lines, hash) = told.sum;
    let minutes = told.took.as_secs_f64() / 60.0;
    if !aloud && told.wrong.is_some() {
        told.tail.iter().for_each(|line| println!("{line}"));
    }
    println!(
        "seed {seed}: {lines} lines, hash {hash:016x}, {minutes:.1} virtual minutes, {:?}",
        told.endings
    );
    if env::var_os(TALLY).is_some() {
        told.tally.iter().for_each(|(what, often)| println!("tally {often} {what}"));
    }
    match told.wrong {
        None => ExitCode::SUCCESS,
        Some(wrong) => {
            println!("seed {seed}: {wrong}\nagain: {SEED}={seed} cargo test -p fettle-tests --test sim");
            ExitCode::FAILURE
        }
    }
}

/// The seeds as tests.
pub(crate) fn trials() -> Vec<Trial> {
    let range = env::var(SEEDS).ok().map_or(ALWAYS, |text| {
        let (from, to) =
            text.split_once("..").unwrap_or_else(|| panic!("{SEEDS} is `from..to`, not `{text}`"));
        let number = |text: &str| text.parse().unwrap_or_else(|error| panic!("{SEEDS}: `{text}`: {error}"));
        number(from)..number(to)
    });
    let groups = (range.start..range.end).step_by(GROUP as usize).map(|from| {
        let to = (from + GROUP).min(range.end);
        Trial::test(format!("seeds_{from}_to_{}_break_no_rule", to - 1), move || {
            (from..to).try_for_each(pass)
        })
    });
    let again = Trial::test("a_seed_tells_the_same_story_twice", || {
        // With a controller on an old backup, a host on an old disk, two of one host, power that fails, disks that are full and
        // syncs that fail.
        for seed in [11, 18, 31, 115] {
            let (once, twice) = (command(seed)?.output()?, command(seed)?.output()?);
            if once.stdout != twice.stdout {
                let both = [once, twice].map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
                return Err(Failed::from(both.join("\n")));
            }
        }
        Ok(())
    });
    let tried = Trial::test("every_fault_strikes_and_every_rule_is_asked", everything_is_tried);
    groups.chain([again, tried]).collect()
}

/// What may be counted: every fault, and every rule where it is held. Where a name has a brace, something is put in as it is counted.
fn countable() -> BTreeSet<String> {
    let faults =
        include_str!("faults.rs").split_once("enum Fault {").and_then(|(_, rest)| rest.split_once("\n}"));
    let faults = faults.expect("there is one").0.lines().map(str::trim_start);
    let faults = faults.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    let faults = faults.filter_map(|line| line.split(['(', ',']).next()).map(|name| format!("fault {name}"));
    let told = [
        include_str!("check.rs"),
        include_str!("check/approved.rs"),
        include_str!("check/begins.rs"),
        include_str!("check/end.rs"),
        include_str!("check/outcomes.rs"),
        include_str!("controller.rs"),
        include_str!("store.rs"),
    ];
    let rules = told.into_iter().flat_map(|source| source.split("count(").skip(1));
    let rules =
        rules.filter_map(|rest| rest.trim_start_matches("format!(").strip_prefix('"')?.split('"').next());
    let rules = rules.filter(|name| name.starts_with("rule "));
    faults.chain(rules.map(str::to_owned)).collect()
}

/// Rules that never come to be asked, and faults that never strike, prove nothing.
fn everything_is_tried() -> Result<(), Failed> {
    let mut tallied = BTreeSet::new();
    for seed in TALLIED {
        let output = heard(seed, command(seed)?.env(TALLY, "1").output()?)?;
        let lines = output.lines().filter_map(|line| line.strip_prefix("tally ")?.split_once(' '));
        tallied.extend(lines.map(|(_, what)| what.to_owned()));
    }
    let wanted = countable();
    let is_it = |name: &str, what: &str| match name.split_once('{') {
        Some((begin, _)) => what.starts_with(begin),
        None => what == name,
    };
    let missing: Vec<&String> =
        wanted.iter().filter(|name| !tallied.iter().any(|what| is_it(name, what))).collect();
    match (wanted.len() > 50, missing.is_empty()) {
        (true, true) => Ok(()),
        (enough, _) => {
            Err(Failed::from(format!("enough: {enough}; never counted: {missing:?} of {tallied:?}")))
        }
    }
}

fn command(seed: u64) -> Result<Command, Failed> {
    let mut command = Command::new(env::current_exe()?);
    command.env(SEED, seed.to_string()).env(BRIEF, "1");
    Ok(command)
}

/// What it said, if it went well.
fn heard(seed: u64, output: Output) -> Result<String, Failed> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => {
            let (errors, lines) = (said(&output.stderr), said(&output.stdout));
            Err(Failed::from(format!("{errors}\n{lines}\nseed {seed}: {}", output.status)))
        }
    }
}

fn pass(seed: u64) -> Result<(), Failed> {
    heard(seed, command(seed)?.output()?).map(drop)
}
