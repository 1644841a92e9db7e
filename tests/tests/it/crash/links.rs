//! Hosts whose links are ill: pulled, silent, deaf, mute, or under another address.
//!
//! What a program notices here is what the kernel tells it, which in most of these cases is nothing: no packet says that the
//! others are lost.

use std::time::{Duration, Instant};

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::{Cluster, Network, eventually};

use super::{Low, Story, stage};

/// Three heartbeats of ten seconds are missed; a connection on which nothing is answered ends after 30 and 20 seconds at most.
const NOTICED: Duration = Duration::from_secs(50);

/// A cluster of these hosts, each at the end of a link of its own. None where nobody may make such links.
fn linked(hosts: &[&str]) -> Option<Cluster> {
    let network = Network::of(hosts)?;
    Some(hosts.iter().fold(stage().network(network), |all, host| all.agent(host)).start())
}

/// A story whose first step is running, and waits to be let on.
#[track_caller]
fn midway<'c>(cluster: &'c Cluster, host: &str) -> Story<'c> {
    let story = Story::new(cluster, host, Low::Checked).hold("low").begin();
    story.until_file("at-low");
    story
}

impl Story<'_> {
    /// Ends well; each step acted once, and was told of once.
    #[track_caller]
    fn told_once(&self) {
        let seen = self.play(|| ());
        self.healed(&seen);
        let story = self.cluster.fettle("ana", &["watch", &self.run]);
        for step in ["remediate/low", "remediate/high"] {
            let ends = told(&story).matches(&format!("{step} succeeded")).count();
            assert_eq!(ends, 1, "{step}: {}", told(&story));
        }
    }

    /// The host runs on by itself: its step ends though nobody hears of it.
    #[track_caller]
    fn goes_on_alone(&self) {
        self.go("low");
        self.until_file("low");
        let seen = self.seen().unwrap_or_default();
        assert_eq!(seen["state"], "remediating", "nobody has heard of it: {seen:#}");
    }
}

/// How often the controller lost the host.
fn lost(cluster: &Cluster, host: &str) -> usize {
    let log = std::fs::read_to_string(cluster.path("controller.log")).expect("a log");
    log.lines().filter(|line| line.contains(&format!("Agent gone. host={host} "))).count()
}

#[test]
fn a_cable_that_is_pulled_for_a_moment_costs_nothing_and_one_that_loses_half_of_it_only_time() {
    let Some(cluster) = linked(&["web-1"]) else { return };
    let story = midway(&cluster, "web-1");
    cluster.network().plug("web-1", false);
    story.goes_on_alone();
    cluster.network().plug("web-1", true);
    story.told_once();
    assert_eq!(lost(&cluster, "web-1"), 0, "{}", cluster.said());

    // A link that loses about half of what it carries.
    let story = midway(&cluster, "web-1");
    story.go("low");
    let mut plugged = true;
    let seen = story.play(|| {
        plugged = !plugged;
        cluster.network().plug("web-1", plugged);
    });
    cluster.network().plug("web-1", true);
    story.healed(&seen);
}

#[test]
fn a_host_that_is_cut_off_without_a_word_is_missed_in_time_and_the_others_work_on() {
    let hosts = ["pulled", "silent", "mute", "deaf", "moved", "well"];
    let Some(cluster) = linked(&hosts) else { return };
    let network = cluster.network();
    let (ill, well) = hosts.split_at(hosts.len() - 1);
    let stories: Vec<Story<'_>> = ill.iter().map(|host| midway(&cluster, host)).collect();
    let began = Instant::now();
    network.plug("pulled", false);
    for host in ["silent", "mute"] {
        network.mute(host, true);
    }
    for host in ["silent", "deaf"] {
        network.deaf(host, true);
    }
    network.readdress("moved");
    stories
        .iter()
        .filter(|story| story.host != "deaf" && story.host != "moved")
        .for_each(Story::goes_on_alone);
    // It may say what nobody hears, and be heard where it hears nothing.
    stories.iter().for_each(|story| story.go("low"));
    stories.iter().for_each(|story| story.until_file("low"));

    let mut worked = Vec::new();
    let mut missing: Vec<String> = ill.iter().map(|host| (*host).to_owned()).collect();
    while !missing.is_empty() {
        let took = Instant::now();
        Story::new(&cluster, well[0], Low::Checked).begin().told_once();
        worked.push(took.elapsed());
        missing.retain(|host| lost(&cluster, host) == 0);
        assert!(began.elapsed() < NOTICED + LIMIT, "{missing:?} are not missed\n{}", cluster.said());
    }
    println!("all are missed after {:?}; meanwhile a run elsewhere took {worked:.0?}", began.elapsed());
    assert_eq!(lost(&cluster, well[0]), 0, "{}", cluster.said());
    for host in ["pulled", "silent", "deaf"] {
        eventually("the host knows that it hears nothing", NOTICED, || {
            let log = std::fs::read_to_string(cluster.path(&format!("{host}.log"))).expect("a log");
            if log.contains("three heartbeats of the controller were missed") { Ok(()) } else { Err(log) }
        });
    }
    // From its new address, one comes back by itself.
    cluster.wait_for_agent("moved");

    network.plug("pulled", true);
    for host in ["silent", "mute"] {
        network.mute(host, false);
    }
    for host in ["silent", "deaf"] {
        network.deaf(host, false);
    }
    stories.iter().for_each(Story::told_once);
}
