//! One host with a good certificate that sends whatever it likes, as fast as it can.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fettle_proto::v1;
use fettle_tests::fleet::{Mint, Pace, raw};
use fettle_tests::memory::{forget_highest, highest, resident};
use fettle_tests::{Cluster, Fleet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::from_agent::What;

use super::EVERYWHERE;

/// Runs of honest hosts that must go well before and while each kind of flood goes on.
const RUNS: usize = 5;
/// Beside a flood the middle one of them may take so much longer than without, …
const LONGER: Duration = Duration::from_millis(500);
/// … and the slowest so much: the machine, which is also the flooder's, does other things too.
const SLOWEST: Duration = Duration::from_secs(1);
/// What a flood of one host may make the controller grow by, MiB, of which most is the one message being decoded and what the
/// allocator keeps of it. 128 reports of 4 MiB, which its credits would let it queue, are 512 MiB.
const GROWTH: u64 = 64;

struct Flood {
    cluster: Cluster,
    fleet: Fleet,
    flooder: PathBuf,
}

/// What one kind of flood does, until it is told to stop; it counts what it managed to send.
type Sends = fn(PathBuf, Arc<AtomicBool>, Arc<AtomicU64>, String);

impl Flood {
    fn start() -> Flood {
        let cluster = Cluster::builder().runbook(EVERYWHERE).start();
        let fleet = Fleet::start(&cluster, "web", 10, Pace::AtOnce);
        let flooder = cluster.path("flooder");
        Mint::of(&cluster).join(&"flooder".parse().expect("a name"), &flooder);
        Flood { cluster, fleet, flooder }
    }

    /// Floods, and meanwhile carries runs out on honest hosts.
    fn goes_on(&mut self, what: &str, sends: Sends) {
        // A run of its own, so that what it reports is of something.
        once(&self.flooder, async |state: &Path| {
            let mut client = raw::connect(state).await.expect("its certificate is good");
            let hello = raw::session(&mut client, What::Hello(hello())).await;
            drop(hello.expect("it is a host like any other").1.message().await);
        });
        let started =
            self.cluster.json("ana", &["start", "test/everywhere", "--host", "flooder", "--detach"]);
        let own = started["run"].as_str().expect("a run has an id").to_owned();

        let alone = self.honest();
        let pid = self.cluster.controller().pid();
        let before = resident(pid);
        forget_highest(pid);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (state, stop_it, count) = (self.flooder.clone(), Arc::clone(&stop), Arc::clone(&sent));
        let flooding = thread::spawn(move || sends(state, stop_it, count, own));
        // It has begun in earnest.
        fettle_tests::eventually("the flood begins", super::LIMIT, || match sent.load(Ordering::Relaxed) {
            0 => Err("nothing was sent"),
            _ => Ok(()),
        });
        let beside = self.honest();
        stop.store(true, Ordering::Relaxed);
        flooding.join().expect("the flooder ends");
        let grown = highest(pid).saturating_sub(before);
        println!(
            "{what}: {} sent; the controller grew by {grown} MiB from {before}; honest runs took {alone:.0?} without, {beside:.0?} \
             beside it",
            sent.load(Ordering::Relaxed)
        );
        assert!(grown < GROWTH, "{what}: the controller grew by {grown} MiB");
        assert!(
            beside[RUNS / 2] < alone[RUNS / 2] + LONGER && beside[RUNS - 1] < alone[RUNS - 1] + SLOWEST,
            "{what}: honest runs took {alone:.0?} without, {beside:.0?} beside it"
        );
        assert_eq!(self.fleet.connected(), 10, "{what}: honest hosts stay");
        self.fleet.until_settled(super::LIMIT);
    }

    /// Runs on honest hosts, one after the other, all of which must go well: how long each took, the quickest first.
    #[track_caller]
    fn honest(&self) -> Vec<Duration> {
        let run = |number| {
            let began = Instant::now();
            let host = format!("web-{number}");
            let started =
                self.cluster.json("ana", &["start", "test/everywhere", "--host", &host, "--detach"]);
            let run = started["run"].as_str().expect("a run has an id").to_owned();
            assert_eq!(self.cluster.ending(&run), "verified");
            began.elapsed()
        };
        let mut took: Vec<Duration> = (1..=RUNS).map(run).collect();
        took.sort_unstable();
        took
    }
}

fn hello() -> v1::Hello {
    v1::Hello { protocol: 1, journal: "flood".to_owned(), ..v1::Hello::default() }
}

fn once(state: &Path, work: impl AsyncFnOnce(&Path)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work(state));
}

/// Connects over and over, sends what `make` makes until that ends the stream, and never waits for an acknowledgement.
fn reporting(state: &Path, stop: &AtomicBool, sent: &AtomicU64, make: impl Fn(u64) -> Vec<v1::Report>) {
    once(state, async |state: &Path| {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut client) = raw::connect(state).await else { continue };
            let Ok((say, mut hear)) = raw::session(&mut client, What::Hello(hello())).await else { continue };
            let mut seq = 0;
            let sending = async {
                while !stop.load(Ordering::Relaxed) {
                    seq += 1;
                    let message =
                        v1::FromAgent { what: Some(What::Reports(v1::Reports { reports: make(seq) })) };
                    let taken = tokio::time::timeout(Duration::from_millis(500), say.send(message)).await;
                    match taken {
                        Ok(Ok(())) => sent.fetch_add(1, Ordering::Relaxed),
                        Ok(Err(_)) => return,
                        // Slowed down, which is an answer too.
                        Err(_) => continue,
                    };
                }
            };
            let hearing = async { while let Ok(Some(_)) = hear.message().await {} };
            tokio::select! {
                () = sending => {}
                () = hearing => {}
            }
        }
    });
}

fn giants(state: PathBuf, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, run: String) {
    let giant = bytes(3 * 1024 * 1024);
    reporting(&state, &stop, &sent, |seq| {
        let ended = v1::StepEnded {
            path: format!("remediate/act-{seq}"),
            attempt: 1,
            stdout: Some(v1::Kept { head: giant.clone().into(), ..v1::Kept::default() }),
            ..v1::StepEnded::default()
        };
        let what = Some(v1::report::What::StepEnded(ended));
        vec![v1::Report { seq, run: run.clone(), segment: 1, at_ms: 1, what }]
    });
}

fn crowds(state: PathBuf, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, _: String) {
    // Two bytes each on the wire.
    reporting(&state, &stop, &sent, |_| vec![v1::Report::default(); 500_000]);
}

fn beyond_credit(state: PathBuf, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, run: String) {
    reporting(&state, &stop, &sent, |seq| {
        let report = |seq| v1::Report { seq, run: run.clone(), segment: 1, ..v1::Report::default() };
        (1..=200).map(|number| report(seq * 200 + number)).collect()
    });
}

fn hellos(state: PathBuf, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, _: String) {
    once(&state, async |state: &Path| {
        while !stop.load(Ordering::Relaxed) {
            let Ok(client) = raw::connect(state).await else { continue };
            let mut streams = tokio::task::JoinSet::new();
            for number in 0..100 {
                let mut client = client.clone();
                streams.spawn(async move {
                    // Half of them take over from one another, half say more than a host has to say.
                    let missing = if number % 2 == 0 { Vec::new() } else { vec![String::new(); 200_000] };
                    let hello = v1::Hello { missing, ..hello() };
                    if let Ok((_say, mut hear)) = raw::session(&mut client, What::Hello(hello)).await {
                        let _ = tokio::time::timeout(Duration::from_secs(1), hear.message()).await;
                    }
                });
            }
            streams.join_all().await;
            sent.fetch_add(100, Ordering::Relaxed);
        }
    });
}

fn chunks(state: PathBuf, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, run: String) {
    let data = bytes(64 * 1024);
    once(&state, async |state: &Path| {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut client) = raw::connect(state).await else { continue };
            let (say, messages) = mpsc::channel(4);
            let chunk =
                v1::OutputChunk { run: run.clone(), data: data.clone().into(), ..v1::OutputChunk::default() };
            let _ = say.send(chunk.clone()).await;
            let Ok(_replies) = client.output(ReceiverStream::new(messages)).await else { continue };
            while !stop.load(Ordering::Relaxed) && say.send(chunk.clone()).await.is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

fn bytes(count: usize) -> Vec<u8> {
    vec![b'x'; count]
}

#[test]
fn a_host_that_floods_is_slowed_or_cut_off_and_costs_the_others_nothing() {
    let mut flood = Flood::start();
    flood.goes_on("reports of 3 MiB", giants);
    flood.goes_on("half a million reports in a message", crowds);
    flood.goes_on("more reports than credits", beyond_credit);
    flood.goes_on("hellos", hellos);
    flood.goes_on("output", chunks);
}
