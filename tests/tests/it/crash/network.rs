//! A network that is ill in every way, between a host and its controller.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use fettle_tests::cluster::LIMIT;
use fettle_tests::proxy::{Proxy, Weather};
use fettle_tests::{Builder, Cluster, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Low, Story, stage};

/// A cluster whose one host, `far-1`, reaches its controller through an ill network.
fn far(builder: Builder) -> (Cluster, Proxy) {
    let mut cluster = builder.start();
    let proxy = Proxy::to(cluster.grpc);
    cluster.join_through("far-1", proxy.port());
    cluster.start_agent("far-1");
    (cluster, proxy)
}

#[test]
fn nothing_gets_through_a_hole_that_was_said_after_it_is_one_and_all_of_it_does_later() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap().port());
    let mut caller = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    let (mut called, _) = listener.accept().unwrap();
    let mut heard = [0];
    for said in 0..50 {
        proxy.weather(Weather::Hole);
        caller.write_all(&[said]).unwrap();
        called.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let silence = called.read(&mut heard).map_err(|error| error.kind());
        assert!(
            matches!(silence, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)),
            "{said}: {silence:?} {heard:?}"
        );
        proxy.weather(Weather::Fair);
        called.set_read_timeout(Some(LIMIT)).unwrap();
        called.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [said]);
    }
}

#[test]
fn a_run_goes_through_every_illness_of_the_network_once() {
    let (cluster, proxy) = far(stage());
    let seed = std::env::var("FETTLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut chance: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("FETTLE_SEED={chance}");
    let mut random = move || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chance >> 33
    };
    // From the middle of the first step on, until that has acted and the network is well again.
    for weather in [Weather::Down, Weather::Hole, Weather::Mute, Weather::Deaf] {
        let story = Story::new(&cluster, "far-1", Low::Checked).hold("low").begin();
        story.until_file("at-low");
        proxy.weather(weather);
        story.go("low");
        story.until_file("low");
        proxy.weather(Weather::Fair);
        let seen = story.play(|| ());
        story.healed(&seen);
    }
    // All of it late.
    proxy.weather(Weather::Slow(Duration::from_millis(100)));
    let story = Story::new(&cluster, "far-1", Low::Checked).begin();
    let seen = story.play(|| ());
    story.healed(&seen);
    // All of it in pieces that end anywhere, after the handshake at least.
    let made = proxy.made();
    proxy.weather(Weather::CutAfter(5_000 + random() % 8_000));
    let story = Story::new(&cluster, "far-1", Low::Safe).begin();
    let mut looks = 0;
    let seen = story.play(|| {
        looks += 1;
        // What is longer than a piece would never arrive.
        let bytes = 5_000 + random() % 8_000 * (1 + looks / 8);
        proxy.weather(Weather::CutAfter(bytes));
    });
    story.healed(&seen);
    println!("{} connections were cut", proxy.made() - made);
    assert!(proxy.made() > made, "nothing was cut");
}

#[test]
fn a_connection_that_is_half_open_is_noticed_by_both_sides_and_an_approval_arrives_after_it() {
    let (cluster, proxy) = far(stage());
    let story = Story::new(&cluster, "far-1", Low::Checked).begin();
    let gate = cluster.gate(&story.run);
    proxy.weather(Weather::Hole);
    story.approve(&gate);
    eventually("both sides notice", 2 * LIMIT, || {
        let (agent, all) = (story.log(), cluster.said());
        let heard = [
            agent.contains("three heartbeats of the controller were missed"),
            all.contains("Agent gone. host=far-1"),
        ];
        if heard == [true; 2] { Ok(()) } else { Err(format!("{heard:?}\n{agent}\n{all}")) }
    });
    assert_eq!((story.times("low"), story.times("high")), (1, 0));
    proxy.weather(Weather::Fair);
    let seen = story.play(|| ());
    story.healed(&seen);
}

#[test]
fn an_approval_that_the_host_hears_of_too_late_runs_nothing_and_the_run_says_so() {
    let builder = stage().policy(json!({ "gates": { "decide_within": "10s", "start_within": "1s" } }));
    let (cluster, proxy) = far(builder);
    let story = Story::new(&cluster, "far-1", Low::Checked).begin();
    let gate = cluster.gate(&story.run);
    // Ten seconds to decide, and one to begin.
    let too_late = Timestamp::now() + SignedDuration::from_secs(12);
    proxy.weather(Weather::Down);
    story.approve(&gate);
    eventually("its time to begin is over", LIMIT, || {
        if Timestamp::now() > too_late {
            Ok(())
        } else {
            Err(format!("{:#}", story.seen().unwrap_or_default()))
        }
    });
    proxy.weather(Weather::Fair);
    let seen = story.play(|| ());
    println!("it ended {}: {}", seen["ending"], seen["reason"]);
    assert!(
        ["expired", "unverified", "refused"].iter().any(|ending| seen["ending"] == *ending),
        "{seen:#}\n{}",
        story.log()
    );
    assert_eq!((story.times("low"), story.times("high")), (1, 0), "{seen:#}");
}
