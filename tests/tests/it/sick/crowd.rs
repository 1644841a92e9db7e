//! Too many who say nothing, who are slow, or who are wrong.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, SOURCE};
use fettle_tests::memory::{forget_highest, highest, resident};
use fettle_tests::wire::{Wire, client, dial};
use fettle_tests::{Cluster, eventually};
use serde_json::json;

/// As many open files as this process may have.
fn many_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    most.unwrap_or(u64::MAX)
}

/// A good post, from a new connection to its answer.
fn posted(cluster: &Cluster, from: u8) -> std::io::Result<(u16, String)> {
    let body = firing("Nothing", &[("instance", "nobody")]).to_string();
    Wire::to(cluster, from)?.post(SOURCE.1, body.as_bytes())
}

/// A good request, which must be answered at the first try, and how long that took.
#[track_caller]
fn good(cluster: &Cluster, from: u8) -> Duration {
    let began = Instant::now();
    let answered = posted(cluster, from);
    assert!(matches!(answered, Ok((200, _))), "{answered:?}\n{}", cluster.said());
    began.elapsed()
}

/// Says what good requests took, and fails if that was not within a second for every one.
#[track_caller]
fn quick(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let (middle, most) = (took[took.len() / 2], took[took.len() * 9 / 10 - 1]);
    let worst = took[took.len() - 1];
    println!(
        "{what}: {} good requests, median {middle:?}, nine in ten within {most:?}, worst {worst:?}",
        took.len()
    );
    assert!(took.len() >= GOOD && worst < Duration::from_secs(1), "{what}: the worst waited {worst:?}");
}

/// So many good requests at least are made beside each crowd.
const GOOD: usize = 50;
/// Bad posts, one after the other so long apart.
const POSTS: usize = 10_000;
const APART: Duration = Duration::from_millis(1);
/// Those who post: enough of them that one who waits for an answer keeps no other from being in time.
const POSTERS: usize = 48;

#[test]
fn a_crowd_that_never_finishes_a_handshake_holds_up_nobody_and_is_sent_away() {
    let mut cluster = Cluster::builder().agent("web-1").start();
    let each = ((many_files() / 6) as usize).min(3000);
    let pid = cluster.controller().pid();
    let before = resident(pid);
    forget_highest(pid);
    let mut hello = Vec::new();
    client(&cluster).write_tls(&mut hello).expect("it begins to speak");
    let mut crowd: Vec<TcpStream> = Vec::new();
    for number in 0..each {
        for port in [cluster.http, cluster.grpc] {
            // Half of them say nothing, a quarter half a hello, a quarter a whole one and then nothing.
            let stream = dial(66, port).expect("a connection");
            let said = [0, 0, hello.len() / 2, hello.len()][number % 4];
            let _ = std::io::Write::write_all(&mut &stream, &hello[..said]);
            crowd.push(stream);
        }
    }
    let took: Vec<Duration> = (0..GOOD).map(|_| good(&cluster, 1)).collect();
    let during = highest(pid);
    // An agent that has to come back comes back.
    let began = Instant::now();
    cluster.restart_agent("web-1");
    println!(
        "{} half-open connections: {before} MiB before, {during} MiB with them; an agent back in {:?}",
        crowd.len(),
        began.elapsed()
    );
    quick("half-open connections", took);
    assert!(during < before + 128, "{before} MiB before, {during} MiB during");
    // Also from where the crowd is, once it has been silent for a moment.
    eventually("somebody there is answered", LIMIT, || match posted(&cluster, 66) {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}\n{}", cluster.said())),
    });
    let began = Instant::now();
    for stream in &mut crowd {
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        // What the server said of its part, and then the end.
        let mut said = Vec::new();
        match stream.take(64 * 1024).read_to_end(&mut said) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("never closed: {}", cluster.said())
            }
            Ok(_) | Err(_) => {}
        }
    }
    println!("all closed after another {:?}", began.elapsed());
    assert!(cluster.controller().runs());
}

#[test]
fn slow_senders_end_in_time_and_hold_up_neither_other_sources_nor_for_long_their_own() {
    let source = json!({ "token_file": "token" });
    let policy = json!({ "sources": { SOURCE.0: source, "slow": source } });
    let mut cluster = Cluster::builder().policy(policy).start();
    let pid = cluster.controller().pid();
    let before = resident(pid);
    forget_highest(pid);
    let mut slow: Vec<Wire> = Vec::new();
    for number in 0..120 {
        let mut wire = Wire::to(&cluster, 66).expect("a connection");
        let head = Wire::head("slow", SOURCE.1, 1000);
        // A third does not even finish its headers.
        let said = if number % 3 == 0 { &head[..head.len() / 2] } else { &head[..] };
        wire.say(said.as_bytes()).expect("it is heard");
        slow.push(wire);
    }
    let stop = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while stop.load(Ordering::Relaxed) == 0 {
                // Byte by byte; some have been sent away by now.
                slow.iter_mut().for_each(|wire| drop(wire.say(b"{")));
                turn += 1;
                std::thread::park_timeout(Duration::from_millis(300));
                assert!(turn < 200, "the test goes on for ever");
            }
            for wire in &mut slow {
                assert!(wire.ends_within(LIMIT), "a slow sender is still there: {}", cluster.said());
            }
        });
        let took = (0..GOOD).map(|_| good(&cluster, 1)).collect();
        // Its own source, too: who has been slow for two seconds gives way.
        let body = firing("Nothing", &[]).to_string();
        let post = [Wire::head("slow", SOURCE.1, body.len()).as_bytes(), body.as_bytes()].concat();
        eventually("a good post of the slow source is taken in", LIMIT, || {
            let mut wire = Wire::to(&cluster, 1).map_err(|error| error.to_string())?;
            let answer = wire.say(&post).and_then(|()| wire.answer());
            if matches!(answer, Ok((200, _))) { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        let during = highest(pid);
        stop.store(1, Ordering::Relaxed);
        quick("slow senders", took);
        println!("{before} MiB before, {during} MiB with slow senders");
        assert!(during < before + 32, "{before} MiB before, {during} MiB with them");
    });
}

#[test]
fn ten_thousand_bad_posts_are_counted_and_hold_up_nobody() {
    let token = json!({ "token_file": "token" });
    let policy = json!({ "sources": { SOURCE.0: token }, "metrics": token });
    let mut cluster = Cluster::builder().policy(policy).agent("web-1").start();
    let pid = cluster.controller().pid();
    let before = resident(pid);
    forget_highest(pid);
    let deep = "[".repeat(60_000);
    let huge = " ".repeat(3 << 19);
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    let mut took = Vec::new();
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..POSTERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut wire = None;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= POSTS {
                            return;
                        }
                        let due = APART * number as u32;
                        while let Some(early) = due.checked_sub(began.elapsed()).filter(|it| !it.is_zero()) {
                            std::thread::park_timeout(early);
                        }
                        let (token, body, status) = match number % 100 {
                            0 => (SOURCE.1, huge.as_str(), 413),
                            1..10 => (SOURCE.1, deep.as_str(), 400),
                            10..55 => (SOURCE.1, "{ \"alerts\": [", 400),
                            _ => ("wrong", "{}", 401),
                        };
                        // Who has been refused may find the connection closed, and makes another.
                        eventually("a bad post is refused", LIMIT, || {
                            let mut open = match wire.take() {
                                Some(open) => open,
                                None => Wire::to(&cluster, 66).map_err(|error| error.to_string())?,
                            };
                            let (said, body) =
                                open.post(token, body.as_bytes()).map_err(|error| error.to_string())?;
                            assert!((400..500).contains(&said), "{status} was expected: {said} {body}");
                            wire = Some(open);
                            Ok::<_, String>(())
                        });
                    }
                })
            })
            .collect();
        while !floods.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            // From elsewhere, and from where the bad ones come from.
            took.extend([1, 66].map(|from| good(&cluster, from)));
        }
    });
    let took_all = began.elapsed();
    let (most, after) = (highest(pid), resident(pid));
    let log = std::fs::read_to_string(cluster.path("controller.log")).expect("a log");
    let lines = log.lines().filter(|line| line.contains("A post was not taken in")).count();
    println!(
        "{POSTS} bad posts in {took_all:?}, {:.0} a second: {before} MiB before, {most} MiB at most, {after} MiB after; \
         {lines} lines of log",
        POSTS as f64 / took_all.as_secs_f64()
    );
    if took_all > APART * POSTS as u32 * 11 / 10 {
        eprintln!(
            "NOT AS FAST AS IT SAYS: this machine does not manage a post each {APART:?}; the rest is held all the same"
        );
    }
    quick("bad posts", took);
    assert!(most < before + 64, "{before} MiB before, {most} MiB at most");
    // Twenty lines in ten seconds.
    let spans = began.elapsed().as_secs() as usize / 10 + 1;
    assert!(lines <= 20 * spans && lines > 0, "{lines} lines in {:?}", began.elapsed());
    let counted = std::process::Command::new("curl")
        .args(["--silent", "--cacert"])
        .arg(cluster.path("ca.pem"))
        .args(["--header", &format!("Authorization: Bearer {}", SOURCE.1), &cluster.url("/metrics")])
        .output()
        .expect("curl can be run");
    let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
    let refused: u64 = counted
        .lines()
        .filter(|line| line.contains("result=\"refused\"") || line.contains("result=\"unauthorised\""))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum();
    assert!(refused >= POSTS as u64, "{refused} counted:\n{counted}");
}
