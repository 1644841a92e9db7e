//! The same of runs that are over, each of which ended in another way; and what a retry and an undo of it come to on its host.

use std::fs;

use fettle_tests::Cluster;
use fettle_tests::cluster::told;

use super::{OVER, Odd, Play, TURNS};

/// Nobody waits long: not for the symptom to go away, and at the gate of the second not for people.
fn cluster() -> Cluster {
    let turns = TURNS.replace("within: 5m", "within: 1s");
    let hasty = turns.replace("control/turns", "control/hasty");
    let hasty = hasty.replace("risk: high", "risk: high\n    approval: { need: 1, within: 1s }");
    Cluster::builder().runbook(&turns).runbook(&hasty).agent("web-1").start()
}

impl Play<'_> {
    /// It ends so, `fettle watch` says so by its exit code, and nothing but a retry and an undo has anything to do with it any more.
    #[track_caller]
    fn over(&self, odd: &mut Odd, ending: &str, exit: i32) {
        assert_eq!(self.cluster.ending(&self.run), ending, "{}", self.story());
        let watched = self.cluster.fettle("ana", &["watch", &self.run]);
        assert_eq!(watched.status.code(), Some(exit), "{}", told(&watched));
        OVER.iter().for_each(|answer| odd.one(self, ending, *answer));
        self.stands("ended");
    }

    /// What goes on from it, begun and left alone.
    #[track_caller]
    fn gone_on_from(&self, verb: &str) -> Self {
        let said = self.typed(verb);
        assert!(said.status.success(), "{}", told(&said));
        let newest = self.cluster.json("ana", &["run", "list", "-n", "1"]);
        let run = newest[0]["id"].as_str().expect("its id").to_owned();
        assert_ne!(run, self.run, "{}", told(&said));
        Play { cluster: self.cluster, dir: self.dir.clone(), run }
    }

    fn take_back(&self, name: &str) {
        fs::remove_file(self.dir.join(name)).expect("it was there");
    }

    /// How often the first step, the last one and the undo of the first have begun.
    fn begun(&self) -> [usize; 3] {
        ["first", "last", "undo"].map(|step| self.pids(step).len())
    }
}

#[test]
fn a_run_that_people_rejected_or_let_expire_goes_on_at_its_gate_or_is_undone() {
    let cluster = cluster();
    let mut odd = Odd::default();

    let play = Play::turns(&cluster, &["go-look", "go-first", "go-undo", "gated"]);
    let gate = cluster.gate(&play.run);
    let no = cluster.fettle("ana", &["reject", &gate, "--reason", "not now"]);
    assert!(no.status.success(), "{}", told(&no));
    play.over(&mut odd, "rejected", 9);
    // Asked anew, of others: she is the requester now.
    let retry = play.gone_on_from("retry");
    let gate = cluster.gate(&retry.run);
    odd.one(&play, "rejected", ("retry", 1, "which is not over"));
    let own = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert_eq!(own.status.code(), Some(5), "{}", told(&own));
    play.let_go(&["go-verify"]);
    let yes = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(yes.status.success(), "{}", told(&yes));
    retry.over(&mut odd, "verified", 0);
    assert_eq!(play.begun(), [1, 1, 0], "what was done before the gate is not done again");
    let undo = retry.gone_on_from("undo");
    undo.over(&mut odd, "undone", 7);
    assert_eq!(play.begun(), [1, 1, 1]);
    odd.one(&undo, "undone", ("undo", 1, "is an undo itself"));
    odd.one(&undo, "undone", ("undo", 1, &format!("fettle run undo {} --reason", retry.run)));
    odd.one(&undo, "undone", ("retry", 1, "is an undo itself"));

    let play = Play::start(&cluster, "ben", "hasty", "web-1");
    play.let_go(&["go-look", "go-first", "go-undo", "gated"]);
    play.over(&mut odd, "expired", 9);
    odd.one(&play, "expired", ("undo in sight", 7, "undone"));
    odd.one(&play, "expired", ("undo", 1, "was undone on web-1"));
    assert_eq!(play.begun(), [1, 0, 1]);
    play.take_back("gated");
    play.let_go(&["go-verify"]);
    odd.one(&play, "expired", ("retry in sight", 0, "verified"));
    assert_eq!(play.begun(), [2, 1, 1], "what was undone is done again");
}

#[test]
fn a_run_that_was_cancelled_goes_on_where_it_was_stopped() {
    let cluster = cluster();
    let mut odd = Odd::default();

    let play = Play::turns(&cluster, &[]);
    play.stands("diagnosing");
    play.cancel("ended");
    play.over(&mut odd, "cancelled", 1);
    odd.one(&play, "cancelled", ("undo", 1, "it changed nothing"));
    play.let_go(&["go-look", "go-first", "go-verify"]);
    odd.one(&play, "cancelled", ("retry in sight", 0, "verified"));
    assert_eq!(play.begun(), [1, 1, 0]);

    let play = Play::turns(&cluster, &["go-look", "go-first", "go-undo", "gated"]);
    play.stands("gate");
    play.cancel("ended");
    play.over(&mut odd, "cancelled", 1);
    play.take_back("gated");
    play.let_go(&["go-verify"]);
    odd.one(&play, "cancelled", ("retry in sight", 0, "remediate/first skipped: done in run_"));
    assert_eq!(play.begun(), [1, 1, 0]);

    for (found, says, first) in [
        ("resolve", "remediate/first on web-1: people say that it ran", 1),
        ("resolve not", "remediate/first on web-1: people say that it did not run", 2),
    ] {
        let play = Play::turns(&cluster, &["go-look"]);
        play.runs("first");
        play.cancel("resolve");
        odd.one(&play, "resolve", (found, 0, "cancelled"));
        play.over(&mut odd, "cancelled", 1);
        play.let_go(&["go-first", "go-verify"]);
        odd.one(&play, "cancelled", ("retry in sight", 0, says));
        assert_eq!(play.begun(), [first, 1, 0], "{found}");
    }
}

#[test]
fn a_run_that_ended_badly_or_only_planned_is_gone_on_from_as_far_as_there_is_anything_to_do() {
    let cluster = cluster();
    let mut odd = Odd::default();

    let play = Play::turns(&cluster, &["go-look", "go-first", "go-undo", "fail"]);
    play.over(&mut odd, "undone", 7);
    odd.one(&play, "undone", ("undo in sight", 13, "has been undone"));
    play.take_back("fail");
    play.let_go(&["go-verify"]);
    let retry = play.gone_on_from("retry");
    retry.over(&mut odd, "verified", 0);
    assert_eq!(play.begun(), [2, 2, 1]);
    odd.one(&retry, "verified", ("retry", 1, "is left to retry"));

    let play = Play::turns(&cluster, &["go-look"]);
    play.lose(play.runs("first"));
    odd.one(&play, "resolve", ("resolve not", 0, "it goes on"));
    play.over(&mut odd, "failed", 1);
    play.let_go(&["go-first", "go-verify"]);
    odd.one(&play, "failed", ("retry in sight", 0, "verified"));
    assert_eq!(play.begun(), [2, 1, 0]);

    let dir = play.dir.join("planned");
    fs::create_dir_all(&dir).expect("a folder can be made");
    fs::write(dir.join("go-look"), "").expect("a file can be written");
    let input = format!("dir={}", dir.display());
    let planned = ["plan", "control/turns", "--host", "web-1", "-i", &input];
    let planned = cluster.fettle("ben", &planned);
    assert!(planned.status.success(), "{}", told(&planned));
    let newest = cluster.json("ana", &["run", "list", "-n", "1"]);
    let play = Play { cluster: &cluster, dir, run: newest[0]["id"].as_str().expect("its id").to_owned() };
    play.over(&mut odd, "succeeded", 0);
    odd.one(&play, "succeeded", ("retry", 1, "is left to retry"));
    odd.one(&play, "succeeded", ("undo", 1, "it changed nothing"));
    assert_eq!(play.begun(), [0, 0, 0]);
}

#[test]
fn a_run_that_a_guard_or_the_host_refused_is_retried_once_they_let_it_and_does_no_more_than_it_says() {
    let once = serde_json::json!({
        "modes": [{ "runbook": "*", "mode": "auto" }],
        "guards": [{ "runbook": "control/turns", "max_runs": "1 per 24h" }],
    });
    let turns = TURNS.replace("within: 5m", "within: 1s");
    let mut cluster = Cluster::builder().runbook(&turns).agent("web-1").policy(once).start();
    let mut odd = Odd::default();
    let go = ["go-look", "go-first", "go-undo", "go-verify"];
    let (dir, run) = {
        let play = Play::turns(&cluster, &go);
        assert_eq!(cluster.ending(&play.run), "verified");
        let play = Play::turns(&cluster, &go);
        play.over(&mut odd, "refused", 13);
        odd.one(&play, "refused", ("undo", 1, "it changed nothing"));
        odd.one(&play, "refused", ("retry in sight", 13, "guard max_runs: 1 in the last 24 h"));
        assert_eq!(play.begun(), [0, 0, 0]);
        (play.dir, play.run)
    };
    let policy = cluster.path("policy/policy.yaml");
    let text = fs::read_to_string(&policy).expect("a policy");
    fs::write(&policy, text.replace("1 per 24h", "9 per 24h")).expect("it can be written");
    cluster.restart_controller();
    cluster.wait_for_agent("web-1");
    let (gated, gate) = {
        let play = Play { cluster: &cluster, dir, run };
        let newest = cluster.json("ana", &["run", "list", "-n", "1"])[0]["id"].clone();
        let last = newest.as_str().expect("its id").to_owned();
        odd.one(&play, "refused", ("retry in sight", 0, "verified"));
        assert_eq!(play.begun(), [1, 1, 0]);
        let last = Play { cluster: &cluster, dir: play.dir.clone(), run: last };
        odd.one(&last, "refused", ("retry in sight", 13, "name that one"));
        assert_eq!(play.begun(), [1, 1, 0], "one remediation is gone on from once");

        let play = Play::turns(&cluster, &["go-look", "go-first", "go-undo", "gated"]);
        ((play.dir.clone(), play.run.clone()), cluster.gate(&play.run))
    };
    // Its host forgets the plan at the gate, and with it what it did.
    cluster.agent("web-1").kill();
    fs::remove_dir_all(cluster.path("web-1/journal")).expect("it is there");
    cluster.start_agent("web-1");
    let yes = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert!(yes.status.success(), "{}", told(&yes));
    let play = Play { cluster: &cluster, dir: gated.0, run: gated.1 };
    play.over(&mut odd, "refused", 13);
    odd.one(&play, "refused", ("undo in sight", 13, "nothing can be undone"));
    assert_eq!(play.begun(), [1, 0, 0]);
    play.take_back("gated");
    play.let_go(&["go-verify"]);
    odd.one(&play, "refused", ("retry in sight", 0, "verified"));
    assert_eq!(play.begun(), [2, 1, 0], "a host that has forgotten skips nothing");
}
