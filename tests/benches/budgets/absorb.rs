//! Alerts that come again and again, through HTTP, each answered when it is durable.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fettle_tests::Cluster;
use fettle_tests::alerts::firing;
use serde_json::Value;

use crate::webhook::Webhook;
use crate::{limit, store, table};

/// How long it must keep up.
const SUSTAINED: Duration = Duration::from_secs(15);
/// Sources that post at a time.
const SOURCES: usize = 8;
/// Different alerts of each.
const DIFFERENT: usize = 250;

pub(crate) fn measure() {
    let cluster = Cluster::builder().start();
    let single = sustained(&cluster, 1);
    let grouped = sustained(&cluster, 25);
    let plain = store::plain_rows(&cluster.path(""));
    table::line(&format!("{SOURCES} sources, one alert a post: alerts per second"), format!("{single:.0}"));
    table::line(&format!("{SOURCES} sources, 25 alerts a post: alerts per second"), format!("{grouped:.0}"));
    table::line("limit: plain inserts, rows per second (an alert is two)", format!("{plain:.0}"));
    table::line(
        "of that limit",
        format!("{:.0} % and {:.0} %", 200.0 * single / plain, 200.0 * grouped / plain),
    );
    let _ = limit::disk(&cluster.path(""));
    table::at_least("signals absorbed with dedupe, one a post, per second", single, 5000.0, "");
    table::at_least("signals absorbed with dedupe, 25 a post, per second", grouped, 5000.0, "");
}

/// Alerts per second that are taken in.
fn sustained(cluster: &Cluster, group: usize) -> f64 {
    let (stop, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    let all_known = Barrier::new(SOURCES + 1);
    thread::scope(|scope| {
        for source in 0..SOURCES {
            let (stop, taken, all_known) = (&stop, &taken, &all_known);
            let bodies = bodies(source, group);
            let mut webhook = Webhook::open(cluster);
            scope.spawn(move || {
                // Each is new once, which is not counted.
                bodies.iter().for_each(|body| webhook.post(body));
                all_known.wait();
                for body in bodies.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    webhook.post(body);
                    taken.fetch_add(group as u64, Ordering::Relaxed);
                }
            });
        }
        all_known.wait();
        let began = Instant::now();
        thread::sleep(SUSTAINED);
        let rate = taken.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Bodies that have so many alerts each, all different.
fn bodies(source: usize, group: usize) -> Vec<String> {
    let alert = |number: usize| {
        let name = format!("web-{source}-{number}");
        firing("Absorbed", &[("instance", &name), ("group", &group.to_string())])
    };
    let all: Vec<Value> = (0..DIFFERENT).map(alert).collect();
    let together = |some: &[Value]| {
        let mut body = some[0].clone();
        body["alerts"] = some.iter().map(|one| one["alerts"][0].clone()).collect();
        body.to_string()
    };
    all.chunks(group).map(together).collect()
}
