//! The crash matrix: every point of `docs/crashes.md`, with `kill -9` and with a power failure, again and again.
//!
//! The table there is what is tried: it names each point that is in the code and no other, and says how a story must end
//! when somebody dies there. How to get to a point is in [`plays`]; what the words of the table mean is in [`words`].
//! `FETTLE_CRASH_REPETITIONS` says how often each is tried, `FETTLE_TEST_SEED` which variations of it.

mod hosts; // a host whose power can fail
mod plays; // how a story gets to a point
mod starts; // … of a controller that starts for the first time
mod copies; // … of a store that is copied, and put back
mod units; // … of a step that does something with a unit
mod words; // how it must end

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fettle_agent::crash::{POINTS as AGENT, SHIM_POINTS as SHIM, STEP_POINTS as STEP};
use fettle_controller::crash::POINTS as CONTROLLER;

use super::chance::{Chance, seed};
use crate::sources;

/// How often each is tried, unless somebody says otherwise.
const REPETITIONS: u64 = 20;

/// Hosts at a time: more than the machine has cores, for a story waits most of the time.
const HOSTS: usize = 4;

/// How a program dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kill,
    Power,
}

/// One line of the table.
#[derive(Clone, Debug)]
struct Row {
    point: &'static str,
    /// How a story ends after each way to die.
    kill: String,
    power: String,
}

impl Row {
    fn says(&self, way: Way) -> &str {
        match way {
            Way::Kill => &self.kill,
            Way::Power => &self.power,
        }
    }
}

/// Every point of the code and who comes to it.
fn points() -> Vec<(&'static str, &'static str)> {
    let of = |who, points: &[&'static str]| points.iter().map(move |point| (*point, who)).collect::<Vec<_>>();
    [of("agent", AGENT), of("shim", SHIM), of("step", STEP), of("controller", CONTROLLER)].concat()
}

/// The table of the page.
fn table() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(sources::top().join("docs/crashes.md")).expect("the page is there");
    let lines = page.lines().filter_map(|line| line.strip_prefix("| `"));
    lines
        .filter_map(|line| line.split_once('`'))
        .map(|(point, rest)| {
            let cells = rest.trim_matches([' ', '|']).split(" | ").map(|cell| cell.trim().to_owned());
            (point.to_owned(), cells.collect())
        })
        .filter(|(_, cells): &(String, Vec<String>)| cells.len() == 4)
        .collect()
}

/// The rows of some points.
fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let table = table();
    let row = |point: &'static str| {
        let found = table.iter().find(|(named, _)| named == point);
        let (_, cells) = found.unwrap_or_else(|| panic!("docs/crashes.md does not name {point}"));
        let [_, _, kill, power] = cells.as_slice() else { panic!("{point}: a row has five cells") };
        Row { point, kill: kill.clone(), power: power.clone() }
    };
    points().into_iter().map(|(point, _)| point).filter(|point| wanted(point)).map(row).collect()
}

#[test]
fn the_table_of_crashes_names_each_point_of_the_code_and_no_other() {
    let told: Vec<(String, String)> =
        table().into_iter().map(|(point, cells)| (point, cells[0].clone())).collect();
    let known: Vec<(String, String)> =
        points().into_iter().map(|(point, who)| (point.to_owned(), who.to_owned())).collect();
    assert_eq!(told, known, "docs/crashes.md and the lists in code, in their order");
    for row in rows(|_| true) {
        for way in [Way::Kill, Way::Power] {
            words::Word::of(row.says(way)).unwrap_or_else(|why| panic!("{}: {why}", row.point));
        }
    }
    // Every point in the code is in a list: what is written at the place is what is listed.
    let in_code = sources::rust("agent/src/").into_iter().chain(sources::rust("controller/src/"));
    for source in in_code {
        for (line, code) in source.code() {
            let Some((_, rest)) = code.split_once("crash_point(\"") else { continue };
            let name = rest.split('"').next().unwrap_or_default();
            let listed = points().iter().any(|(point, _)| *point == name);
            assert!(listed, "{}:{line}: `{name}` is in no list", source.path);
        }
    }
}

/// How often each is tried.
fn repetitions() -> u64 {
    let asked = std::env::var("FETTLE_CRASH_REPETITIONS").ok();
    asked.map_or(REPETITIONS, |asked| asked.parse().expect("FETTLE_CRASH_REPETITIONS is a number"))
}

/// Tries each row in both ways, a few at a time. `each` plays one story and says what happened if it went wrong.
fn every(
    rows: Vec<Row>,
    threads: usize,
    each: impl Fn(usize, &[(Row, Way)], &mut Chance, u64) -> u64 + Sync,
) {
    let (seed, times, began) = (seed(), repetitions(), Instant::now());
    println!("FETTLE_TEST_SEED={seed} FETTLE_CRASH_REPETITIONS={times}");
    let cases: Vec<(Row, Way)> = rows
        .into_iter()
        .flat_map(|row| [Way::Kill, Way::Power].map(|way| (row.clone(), way)))
        .filter(|(row, way)| row.says(*way) != "–")
        .collect();
    let stories = AtomicUsize::new(0);
    // Each thread has its share from the beginning, so that a seed says what happens on each of them.
    let shares: Vec<Vec<(Row, Way)>> =
        (0..threads).map(|thread| cases.iter().skip(thread).step_by(threads).cloned().collect()).collect();
    std::thread::scope(|scope| {
        for (thread, share) in shares.iter().enumerate() {
            let (each, stories) = (&each, &stories);
            scope.spawn(move || {
                let mut chance = Chance::of(seed.wrapping_add(thread as u64));
                stories.fetch_add(each(thread, share, &mut chance, times) as usize, Ordering::Relaxed);
            });
        }
    });
    println!("{} deaths at {} places in {:.1?}", stories.into_inner(), cases.len(), began.elapsed());
}

/// The rows of a program that runs on hosts, a few hosts at a time.
fn on_hosts(wanted: impl Fn(&str) -> bool) {
    let cluster = plays::stage().start();
    every(rows(wanted), HOSTS, |thread, share, chance, times| {
        plays::on_a_host(&cluster, &format!("host-{}", thread + 1), share, chance, times)
    });
}

#[test]
fn a_host_that_dies_while_it_joins_is_as_the_table_says() {
    on_hosts(|point| ["join.", "renewal."].iter().any(|of| point.starts_with(of)));
}

#[test]
fn a_host_that_dies_while_it_starts_is_as_the_table_says() {
    on_hosts(|point| {
        ["attempts.", "journal.create.", "epoch.", "roster."].iter().any(|of| point.starts_with(of))
    });
}

#[test]
fn a_host_that_dies_at_a_write_of_its_journal_is_as_the_table_says() {
    on_hosts(|point| {
        (point.starts_with("journal.") && !point.starts_with("journal.create."))
            || point.starts_with("tombstone.")
            || point.starts_with("forget.")
    });
}

#[test]
fn a_host_that_dies_around_a_step_is_as_the_table_says() {
    on_hosts(|point| point.starts_with("attempt.") || point.starts_with("shim."));
}

#[test]
fn a_step_that_dies_where_it_keeps_how_a_unit_was_is_as_the_table_says() {
    every(rows(|point| point.starts_with("before.")), 2, |_, share, _, times| {
        share.iter().map(|(row, way)| units::on_a_host(row, *way, times)).sum()
    });
}

fn is_of_the_first_start(point: &str) -> bool {
    ["ca.", "trust.", "ca-pem.", "store.create", "store.before-create"].iter().any(|of| point.starts_with(of))
}

fn is_of_a_migration(point: &str) -> bool {
    point.starts_with("store.migrate")
}

fn is_of_a_copy(point: &str) -> bool {
    point.starts_with("backup.") || point.starts_with("restore.")
}

fn is_of_the_controller(point: &str) -> bool {
    CONTROLLER.contains(&point)
}

#[test]
fn a_controller_that_dies_at_its_first_start_is_as_the_table_says() {
    every(
        rows(|point| is_of_the_controller(point) && is_of_the_first_start(point)),
        4,
        |_, share, _, times| starts::on_a_first_controller(share, times),
    );
}

#[test]
fn a_controller_that_dies_while_it_takes_over_an_older_store_is_as_the_table_says() {
    every(rows(is_of_a_migration), 4, |_, share, _, times| starts::on_an_older_store(share, times));
}

#[test]
fn a_controller_that_dies_at_a_commit_is_as_the_table_says() {
    every(
        rows(|point| {
            let elsewhere = is_of_the_first_start(point) || is_of_a_migration(point) || is_of_a_copy(point);
            is_of_the_controller(point) && !elsewhere
        }),
        2,
        |_, share, chance, times| plays::on_a_controller(share, chance, times),
    );
}

#[test]
fn a_store_that_is_copied_by_somebody_who_dies_is_as_the_table_says() {
    with_copies("backup.");
}

#[test]
fn a_store_that_is_put_back_by_somebody_who_dies_is_as_the_table_says() {
    with_copies("restore.");
}

fn with_copies(points: &str) {
    every(rows(|point| point.starts_with(points)), 4, |_, share, chance, times| {
        share.iter().map(|(row, way)| copies::on_a_controller(row, *way, chance, times)).sum()
    });
}
