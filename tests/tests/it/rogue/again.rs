//! A step that may have run is to run again, and those who say so are not those who may, or said something else.

use std::fs;

use fettle_proto::merkle;
use fettle_proto::signed::{Again, Leaf, Request};
use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process};

use super::raid::{Raid, STRIKE, leaf_of, remediate, with_reads};
use super::thief::Thief;

/// Its step tells its process and waits; the marker has a line for each attempt that was let go on.
fn waits() -> String {
    with_reads(
        "high",
        "- id: facts\n    that: memory.total_bytes > 0",
        "- id: there\n    that: file(inputs.marker).exists\n    within: 2s",
    )
    .replace(
        "      echo struck >> \"$MARKER\"\n",
        "      echo $$ >> \"$MARKER.pid\"\n      until [ -e \"$MARKER.go\" ]; do sleep 0.02; done\n      echo struck >> \"$MARKER\"\n",
    )
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the kernel says").trim().to_owned()
}

fn again(path: &str, attempt: u32, boot: String) -> Again {
    Again { path: path.to_owned(), attempt, boot }
}

/// The honest request to run something again.
fn request(raid: &Raid<'_>, plan_bytes: &[u8], again: Again) -> Request {
    let leaf = leaf_of(plan_bytes);
    let leaf = Leaf { nonce: again.nonce(&leaf.nonce), ..leaf };
    Request { root: merkle::root(&[leaf.hash()]), again: Some(again), ..raid.request(plan_bytes) }
}

#[test]
fn a_step_runs_again_only_as_people_signed_for_it_and_once() {
    let thief = Thief::replaces(Cluster::builder().agent("web-1").start(), &["web-1"]);
    let raid = Raid::of(&thief, "web-1", waits());
    let plan = raid.plan();
    raid.stops_at_the_gate(&plan);
    let granted = |request: &Request, persons: &[&str]| remediate(&plan, Some(raid.grant(request, persons)));

    // Before anything is unknown, nothing runs "again".
    let early = request(&raid, &plan, again(STRIKE, 1, boot()));
    raid.refused("again-mismatch", &raid.order(granted(&early, &["ben"])));

    // It begins, and nobody sees its end.
    let order = raid.order(granted(&raid.request(&plan), &["ben"]));
    let pids = raid.inputs["marker"].clone() + ".pid";
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            let pid = eventually("the step runs", LIMIT, || {
                let text = fs::read_to_string(&pids).unwrap_or_default();
                text.trim().parse::<i32>().map_err(|_| format!("{text:?}"))
            });
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            let shim = parent.and_then(Pid::from_raw).expect("it has a parent");
            kill_process(shim, Signal::KILL).expect("it can be killed");
        });
        raid.carried_out(&order)
    });
    assert!(
        matches!(&ended.how, Some(fettle_proto::v1::segment_ended::How::Unknown(unknown)) if unknown.path == STRIKE),
        "{ended:?}"
    );

    // What was approved before lets nothing run again, nor does an order without anybody's consent.
    raid.refused("nonce-consumed", &raid.order(granted(&raid.request(&plan), &["ben"])));
    raid.refused("outcome-unknown", &raid.order(remediate(&plan, None)));
    let honest = || request(&raid, &plan, again(STRIKE, 1, boot()));
    let requests: Vec<(&str, Request)> = vec![
        ("again-mismatch", request(&raid, &plan, again(STRIKE, 2, boot()))),
        ("again-mismatch", request(&raid, &plan, again("remediate/other", 1, boot()))),
        ("rebooted", request(&raid, &plan, again(STRIKE, 1, "another boot".to_owned()))),
        // The plan's own nonce, and one made of another attempt.
        ("leaf-mismatch", Request { again: honest().again, ..raid.request(&plan) }),
        ("leaf-mismatch", Request { root: request(&raid, &plan, again(STRIKE, 2, boot())).root, ..honest() }),
        ("nonce-consumed", Request { again: None, ..raid.request(&plan) }),
    ];
    for (code, request) in &requests {
        raid.refused(code, &raid.order(granted(request, &["ben"])));
    }
    raid.refused("quorum", &raid.order(granted(&honest(), &[])));
    let mut twice = raid.grant(&honest(), &["ben"]);
    twice.approvals.push(twice.approvals[0].clone());
    raid.refused("approver-twice", &raid.order(remediate(&plan, Some(twice))));
    let mut bent = raid.grant(&honest(), &["ben"]);
    let text = String::from_utf8(bent.request).expect("JSON");
    bent.request = text.replacen("\"risk\":\"critical\"", "\"risk\":\"high\"", 1).into_bytes();
    raid.refused("approval-mismatch", &raid.order(remediate(&plan, Some(bent))));

    // People's honest consent works, once.
    fs::write(raid.inputs["marker"].clone() + ".go", "").expect("a file can be written");
    let honest = honest();
    raid.strikes(granted(&honest, &["ben"]));
    raid.refused("again-mismatch", &raid.order(granted(&honest, &["ben"])));
    assert_eq!(raid.struck(), "struck\n");
}
