//! The controller is killed around each commit, and at each turn of the story.

use fettle_controller::crash::POINTS;
use fettle_tests::Cluster;
use fettle_tests::cluster::LIMIT;
use fettle_tests::eventually;
use jiff::Timestamp;

use super::{Kept, Low, Story, history_gives_the_tables, share, stage, wait_for};

/// A cluster without its controller, and the controller to keep.
fn kept<'c>(cluster: &'c Cluster, env: &[(&'static str, &str)]) -> Kept<'c> {
    let env: Vec<(&'static str, String)> =
        env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let start = move || {
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        cluster.launch_controller(&env)
    };
    Kept::new(start(), start)
}

/// It dies at every third, fourth … commit of each of its lives, and is started again, until the story is over: so it
/// dies at ever other turns of it. Whoever posts the alert posts it until it is taken.
#[test]
fn a_controller_that_dies_at_every_few_commits_tells_the_story_to_its_end() {
    let of_each_commit = |point: &&str| {
        !["ca", "trust", "store.create", "store.before-create", "store.migrate", "backup.", "restore."]
            .iter()
            .any(|no| point.starts_with(no))
    };
    share(POINTS.iter().copied().filter(of_each_commit).collect(), 2, |point| {
        let mut cluster = stage().agent("web-1").start();
        cluster.controller().kill();
        for commits in [3, 4, 5, 8] {
            // The third is the host's first report: before that is durable, nothing has happened yet.
            if (point, commits) == ("store.before-commit", 3) {
                continue;
            }
            let mut controller = kept(&cluster, &[("FETTLE_CRASH_AT", &format!("{point}#{commits}"))]);
            let mut story = Story::new(&cluster, "web-1", Low::Checked);
            let alert = story.alert();
            story.post(&alert, || controller.look());
            let seen = story.play(|| controller.look());
            story.healed(&seen);
            assert!(controller.deaths > 0, "{point}: it never died");
            controller.program.kill();
            history_gives_the_tables(&cluster);
        }
    });
}

/// The turns of a story, as files say that they have come.
const TURNS: [(&str, Option<&str>); 4] =
    [("look", None), ("low", Some("at-low")), ("high", Some("at-high")), ("verify", Some("high"))];

/// Waits until the story stands before a turn.
#[track_caller]
fn until_at(story: &Story<'_>, at: Option<&str>) {
    if let Some(file) = at {
        story.until_file(file);
    }
}

fn held<'c>(cluster: &'c Cluster) -> Story<'c> {
    let story = Story::new(cluster, "web-1", Low::Checked);
    story.hold("look").hold("low").hold("high").hold("verify").begin()
}

#[track_caller]
fn gate(story: &Story<'_>, controller: &mut Kept<'_>) -> String {
    eventually("the run waits at a gate", LIMIT, || {
        controller.look();
        let seen = story.seen().ok_or_else(|| story.cluster.said())?;
        match seen["gate"].as_str() {
            Some(gate) if seen["waiting_for"] == "gate" => Ok(gate.to_owned()),
            Some(_) | None => Err(format!("{seen:#}")),
        }
    })
}

#[test]
fn a_controller_killed_at_each_turn_of_the_story_goes_on_where_it_was() {
    let mut cluster = stage().agent("web-1").start();
    cluster.controller().kill();
    let mut controller = kept(&cluster, &[]);
    wait_for(&cluster);
    let story = held(&cluster);
    for (turn, at) in TURNS {
        if turn == "high" {
            let gate = gate(&story, &mut controller);
            controller.restart();
            wait_for(&cluster);
            story.approve(&gate);
        }
        until_at(&story, at);
        controller.restart();
        wait_for(&cluster);
        story.go(turn);
    }
    let seen = story.play(|| controller.look());
    story.healed(&seen);
    controller.program.kill();
    history_gives_the_tables(&cluster);
}

#[test]
fn the_host_goes_on_while_the_controller_is_away_and_its_reports_come_later_with_its_own_times() {
    let mut cluster = stage().agent("web-1").start();
    cluster.controller().kill();
    let mut controller = kept(&cluster, &[]);
    wait_for(&cluster);
    let story = held(&cluster);
    let mut ended_by = Vec::new();
    for (turn, at) in TURNS {
        if turn == "high" {
            let gate = gate(&story, &mut controller);
            story.approve(&gate);
        }
        until_at(&story, at);
        controller.program.kill();
        story.go(turn);
        let done = match turn {
            "low" | "high" => Some(turn),
            _ => None,
        };
        if let Some(step) = done {
            story.until_file(step);
            let by = Timestamp::now();
            // So that a time of the controller's could not be taken for one of the host's.
            eventually("two seconds are over", LIMIT, || {
                let passed = Timestamp::now().duration_since(by);
                if passed.as_secs() >= 2 { Ok(()) } else { Err(format!("{passed:?}")) }
            });
            ended_by.push((format!("remediate/{step}"), by));
        }
        controller.look();
        wait_for(&cluster);
    }
    let seen = story.play(|| controller.look());
    story.healed(&seen);
    for (path, by) in ended_by {
        let steps = seen["steps"].as_array().cloned().unwrap_or_default();
        let step = steps.iter().find(|step| step["path"] == path.as_str()).expect("it is among the steps");
        let at: Timestamp = step["ended_at"].as_str().and_then(|at| at.parse().ok()).expect("it has an end");
        // A process takes a moment to be gone after its last word.
        assert!(at.duration_since(by).as_millis() < 1500, "{path} ended by {by}, and is said to at {at}");
    }
    controller.program.kill();
    history_gives_the_tables(&cluster);
}

#[test]
fn an_alert_whose_answer_was_lost_is_taken_once() {
    let mut cluster = stage().agent("web-1").start();
    cluster.controller().kill();
    // It dies after the signal is durable, and before anybody is told.
    let mut controller = kept(&cluster, &[]);
    wait_for(&cluster);
    cluster.wait_for_agent("web-1");
    let mut story = Story::new(&cluster, "web-1", Low::Checked);
    let alert = story.alert();
    controller.program.kill();
    controller.program = cluster.launch_controller(&[("FETTLE_CRASH_AT", "store.after-commit#4")]);
    story.post(&alert, || controller.look());
    let first = story.run.clone();
    story.post(&alert, || controller.look());
    assert_eq!(story.run, first, "posting it again is the same alert");
    let seen = story.play(|| controller.look());
    story.healed(&seen);
    let runs = cluster.json("ana", &["run", "list"]);
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs:#}");
}
