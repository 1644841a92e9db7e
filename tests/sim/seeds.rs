//! One process for each seed: they share nothing, so that each tells its story as it would alone.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::chance;
use crate::story;
use crate::trace::Trace;

/// The seed to be told in this process.
const SEED: &str = "FETTLE_SIM_SEED";
/// Set: only the end is told.
const BRIEF: &str = "FETTLE_SIM_BRIEF";
/// Which seeds to go through.
const SEEDS: &str = "FETTLE_SIM_SEEDS";
/// Set: how often what happened is told as well.
const TALLY: &str = "FETTLE_SIM_TALLY";
/// Seconds that a seed may take when only its end is told; [`LIMIT`] if nothing is set.
const WITHIN: &str = "FETTLE_SIM_WITHIN";
/// What is logged.
const LOG: &str = "FETTLE_SIM_LOG";

/// The seeds that every change must pass.
const ALWAYS: Range<u64> = 0..500;
/// Others, with which it is held that every fault strikes and every rule is asked.
const TALLIED: Range<u64> = 1000..1100;
/// What these do not hold, for it is rare.
const SELDOM: [&str; 1] = ["a run that a restored controller ended is open again"];
/// Most seeds take a second or two; one that takes so long hangs.
const LIMIT: Duration = Duration::from_secs(120);
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
    let aloud = env::var_os(BRIEF).is_none();
    let trace = Trace::new(aloud);
    if !aloud {
        let (within, trace) = (limit(), trace.clone());
        thread::spawn(move || {
            thread::sleep(within);
            hangs(seed, within, &trace);
        });
    }
    chance::seed(seed);
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
    let telling = thread::Builder::new().stack_size(STACK).spawn(move || story::tell(seed, &trace));
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
            println!("seed {seed}: {wrong}\n{}", again(seed));
            ExitCode::FAILURE
        }
    }
}

/// What plays a seed again.
fn again(seed: u64) -> String {
    format!("again: {SEED}={seed} cargo test -p fettle-tests --test sim")
}

fn limit() -> Duration {
    let asked = env::var(WITHIN).ok().and_then(|text| text.parse().ok());
    asked.map_or(LIMIT, Duration::from_secs)
}

/// A seed that is not over in time says how far it came, and dies: whatever its story waits for, in whichever loop.
fn hangs(seed: u64, within: Duration, trace: &Trace) -> ! {
    trace.tail_so_far().iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: hangs: it was not over after {within:?}\n{}", again(seed));
    std::process::exit(1)
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
    let hung = Trial::test("a_seed_that_hangs_prints_itself", a_hung_seed_prints_itself);
    let tried = Trial::test("every_fault_strikes_and_every_rule_is_asked", everything_is_tried);
    groups.chain([again, hung, tried]).collect()
}

/// What may be counted: every fault, and what the sources of the simulation count. Where a name has a brace, something is put in as
/// it is counted.
fn countable() -> Result<BTreeSet<String>, Failed> {
    let faults =
        include_str!("faults.rs").split_once("enum Fault {").and_then(|(_, rest)| rest.split_once("\n}"));
    let faults = faults.expect("there is one").0.lines().map(str::trim_start);
    let faults = faults.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    let faults = faults.filter_map(|line| line.split(['(', ',']).next()).map(|name| format!("fault {name}"));
    let mut all: BTreeSet<String> = faults.collect();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("sim")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.extension() {
                None => folders.push(path),
                Some(_) => counted_in(&fs::read_to_string(&path)?, &path, &mut all)?,
            }
        }
    }
    Ok(all)
}

/// What a source counts.
fn counted_in(source: &str, path: &Path, all: &mut BTreeSet<String>) -> Result<(), Failed> {
    let mut before = "";
    for rest in source.split(concat!("count", "(")) {
        let (of, is) = (before.ends_with(['.', '_']), before.ends_with("fn "));
        let literal = rest.trim_start().trim_start_matches("format!(").strip_prefix('"');
        match literal.and_then(|rest| rest.split('"').next()) {
            _ if before.is_empty() || of || is => {}
            Some(name) => all.extend([name.to_owned()]),
            None => {
                return Err(format!("{}: what is counted is no literal: {rest:.60}", path.display()).into());
            }
        }
        before = rest;
    }
    Ok(())
}

/// Rules that never come to be asked, and faults that never strike, prove nothing.
fn everything_is_tried() -> Result<(), Failed> {
    let mut tallied: BTreeMap<String, usize> = BTreeMap::new();
    for seed in TALLIED {
        let output = heard(seed, command(seed)?.env(TALLY, "1").output()?)?;
        let lines = output.lines().filter_map(|line| line.strip_prefix("tally ")?.split_once(' '));
        for (often, what) in lines {
            *tallied.entry(what.to_owned()).or_default() += often.parse::<usize>()?;
        }
    }
    let wanted = countable()?;
    let is_it = |name: &str, what: &str| match name.split_once('{') {
        Some((begin, _)) => what.starts_with(begin),
        None => what == name,
    };
    let demanded = wanted.iter().filter(|name| !SELDOM.contains(&name.as_str()));
    let missing: Vec<&String> =
        demanded.filter(|name| !tallied.keys().any(|what| is_it(name, what))).collect();
    tallied.iter().for_each(|(what, often)| println!("{often:>7} {what}"));
    match (wanted.len() > 70, missing.is_empty()) {
        (true, true) => Ok(()),
        (enough, _) => Err(format!("enough: {enough}; never counted: {missing:#?}").into()),
    }
}

/// What hangs is played with no time at all.
fn a_hung_seed_prints_itself() -> Result<(), Failed> {
    let output = command(0)?.env(WITHIN, "0").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    match !output.status.success() && said.contains("seed 0: hangs") && said.contains(&again(0)) {
        true => Ok(()),
        false => Err(format!("{}: {said}", output.status).into()),
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
