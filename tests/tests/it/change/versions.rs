//! Command line and controller of versions one apart: what either does not know of the other is passed over or refused, and said.

use std::fs;
use std::process::Output;

use bytes::Bytes;
use fettle_proto::v1::{self, run_event::What};
use fettle_tests::Cluster;
use fettle_tests::cluster::told;
use prost::Message as _;
use serde_json::Value;
use tonic::Status;

use super::between::{Between, Change, Way};
use super::{STEPS, Story};

/// What a newer version may say besides, of a number and of a text: fields that no message has yet.
const MORE: &[u8] = &[0xf8, 0x3e, 1, 0x82, 0x3f, 5, b'n', b'e', b'w', b'e', b'r'];

/// A person whose controller is of another version.
struct Person<'c> {
    cluster: &'c Cluster,
    between: Between,
    session: String,
}

impl<'c> Person<'c> {
    #[track_caller]
    fn of(cluster: &'c Cluster, change: Change) -> Person<'c> {
        let between = Between::of(cluster, change);
        let session = cluster.path(&format!("session-{}.json", between.address().replace('/', "")));
        let person = Person { cluster, between, session: session.display().to_string() };
        let signed_in = person.types(&["login"]);
        assert!(signed_in.status.success(), "{}", told(&signed_in));
        person
    }

    fn types(&self, arguments: &[&str]) -> Output {
        let address = self.between.address();
        let all = [arguments, &["--controller", &address]].concat();
        self.cluster.fettle_with("ana", &[("FETTLE_SESSION", &self.session)], &all)
    }

    /// What is printed, for what must work.
    #[track_caller]
    fn reads(&self, arguments: &[&str]) -> String {
        let output = self.types(arguments);
        assert!(output.status.success(), "fettle {}: {}", arguments.join(" "), told(&output));
        String::from_utf8(output.stdout).expect("it is text")
    }

    /// What must not work: its exit, and that it says all of this.
    #[track_caller]
    fn is_told(&self, exit: i32, arguments: &[&str], says: &[&str]) {
        let output = self.types(arguments);
        assert_eq!(output.status.code(), Some(exit), "fettle {}: {}", arguments.join(" "), told(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        says.iter().for_each(|text| assert!(said.contains(text), "`{text}` is missing in: {said}"));
    }
}

fn as_it_is(message: Bytes) -> Result<Vec<u8>, Status> {
    Ok(message.to_vec())
}

/// Changes a message of a known kind.
fn with<T: prost::Message + Default>(message: Bytes, change: impl FnOnce(&mut T)) -> Result<Vec<u8>, Status> {
    let mut read = T::decode(message).expect("it is one");
    change(&mut read);
    Ok(read.encode_to_vec())
}

/// Changes every run that is shown.
fn each_run(way: Way, call: &str, message: Bytes, change: fn(&mut v1::Run)) -> Result<Vec<u8>, Status> {
    match (way, call) {
        (Way::Told, "GetRun") => with(message, change),
        (Way::Told, "ListRuns") => {
            with(message, |reply: &mut v1::ListRunsReply| reply.runs.iter_mut().for_each(change))
        }
        (Way::Told, "GetStatus") => {
            with(message, |status: &mut v1::Status| status.runs.iter_mut().for_each(change))
        }
        (Way::Told, "WatchRun") => with(message, |event: &mut v1::RunEvent| {
            if let Some(What::Run(run)) = &mut event.what {
                change(run);
            }
        }),
        (Way::Told | Way::Asked, _) => as_it_is(message),
    }
}

fn cluster() -> Cluster {
    Cluster::builder().runbook(STEPS).agent("web-1").start()
}

/// A run that has been approved and is verified.
#[track_caller]
fn verified(cluster: &Cluster) -> String {
    let story = Story::begin(cluster, "verified", &[]);
    story.approve(&cluster.gate(&story.run));
    assert_eq!(cluster.ending(&story.run), "verified");
    story.run
}

#[test]
fn what_either_says_beyond_what_the_other_knows_changes_nothing() {
    let cluster = cluster();
    let person = Person::of(&cluster, |_, _, message| Ok([&message[..], MORE].concat()));
    let story = Story::begin(&cluster, "more", &[]);
    let gate = cluster.gate(&story.run);
    let status = person.reads(&["status"]);
    assert!(status.contains(&gate), "{status}");
    person.reads(&["approve", &gate, "--yes", "--reason", "seen"]);
    let watched = person.reads(&["watch", &story.run]);
    let same = cluster.fettle("ana", &["watch", &story.run]);
    let happened = |watched: &str| -> Vec<String> {
        let lines = watched.lines().filter(|line| !line.contains(" | "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(happened(&watched), happened(&String::from_utf8_lossy(&same.stdout)));
    for arguments in [
        &["run", "show", &story.run][..],
        &["run", "list"],
        &["logs", &story.run],
        &["signal", "list"],
        &["incident", "list"],
        &["agent", "token", "create", "web-2", "--label", "zone=a"],
        &["runbook", "show", "change/steps"],
        &["roster", "show"],
        &["whoami"],
    ] {
        let arguments = [arguments, &["-o", "jsonl"]].concat();
        let (here, there) = (cluster.fettle("ana", &arguments), person.reads(&arguments));
        assert!(here.status.success(), "{}", told(&here));
        // Tokens, and times until when, are each time others.
        if !arguments.contains(&"token") && arguments[0] != "whoami" {
            assert_eq!(there, String::from_utf8_lossy(&here.stdout), "fettle {}", arguments.join(" "));
        }
    }
}

#[test]
fn an_ending_that_is_not_known_is_said_and_is_no_success() {
    let cluster = cluster();
    let run = verified(&cluster);
    let person = Person::of(&cluster, |way, call, message| {
        each_run(way, call, message, |run| {
            run.hosts.iter_mut().for_each(|host| host.ending = "splendid".into())
        })
    });
    let unknown = "? splendid (not known to this fettle)";
    for arguments in [&["run", "list"][..], &["run", "show", &run]] {
        let shown = person.reads(arguments);
        assert!(shown.contains(unknown) && !shown.contains("✓ splendid"), "{shown}");
    }
    let shown: Value =
        serde_json::from_str(&person.reads(&["run", "show", &run, "-o", "json"])).expect("JSON");
    assert_eq!(shown["hosts"][0]["ending"], "splendid", "programs are told the word: {shown:#}");
    person.is_told(1, &["watch", &run], &["splendid (not known to this fettle)"]);
}

#[test]
fn a_state_that_is_not_known_or_not_told_is_said() {
    let cluster = cluster();
    let story = Story::begin(&cluster, "states", &[]);
    let gate = cluster.gate(&story.run);
    let newer = Person::of(&cluster, |way, call, message| {
        each_run(way, call, message, |run| {
            for host in &mut run.hosts {
                host.waiting_for = "moonlight".into();
                host.steps.iter_mut().for_each(|step| step.state = "hovering".into());
            }
        })
    });
    let shown = newer.reads(&["run", "show", &story.run]);
    for unknown in
        ["waiting for moonlight (not known to this fettle)", "? hovering (not known to this fettle)"]
    {
        assert!(shown.contains(unknown), "{shown}");
    }
    let older = Person::of(&cluster, |way, call, message| {
        each_run(way, call, message, |run| run.hosts.iter_mut().for_each(|host| *host = host_of_old(host)))
    });
    for arguments in [&["status"][..], &["run", "show", &story.run]] {
        let shown = older.reads(arguments);
        assert!(shown.contains("? (not told)"), "{shown}");
    }
    story.approve(&gate);
    assert_eq!(cluster.ending(&story.run), "verified");
    // Nobody says that it has ended, so nobody can say that it is well.
    older.is_told(14, &["watch", &story.run], &["it told of no end of the run that this fettle knows"]);
}

/// Of a host run only its host.
fn host_of_old(host: &v1::HostRun) -> v1::HostRun {
    v1::HostRun { host: host.host.clone(), ..v1::HostRun::default() }
}

#[test]
fn events_of_a_kind_that_is_not_known_are_not_passed_over_in_silence() {
    let cluster = cluster();
    let run = verified(&cluster);
    let newer = Person::of(&cluster, |way, call, message| match (way, call) {
        (Way::Told, "WatchRun") => {
            let event = v1::RunEvent::decode(message).expect("an event");
            if matches!(event.what, Some(What::Run(_))) {
                return Ok(event.encode_to_vec());
            }
            Ok([&v1::RunEvent { what: None, ..event }.encode_to_vec(), MORE].concat())
        }
        (Way::Told | Way::Asked, _) => as_it_is(message),
    });
    let watched = newer.reads(&["watch", &run]);
    assert!(watched.contains("something happened that this fettle does not know"), "{watched}");
    let lines = newer.reads(&["watch", &run, "-o", "jsonl"]);
    let unknown = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let unknown: Vec<Value> = unknown.filter(|event| event["kind"] == "unknown").collect();
    assert!(unknown.iter().any(|event| event["number"].as_u64() > Some(0)), "{lines}");
}

#[test]
fn a_controller_that_does_not_know_a_call_is_said_to_be_older() {
    let cluster = cluster();
    let story = Story::begin(&cluster, "older", &[]);
    let gate = cluster.gate(&story.run);
    let older = Person::of(&cluster, |way, call, message| match (way, call) {
        (Way::Asked, "GetStatus" | "PauseRun" | "WatchRun" | "GetRun") => Err(Status::unimplemented("")),
        (Way::Told | Way::Asked, _) => as_it_is(message),
    });
    let says = &["the controller does not know this call", "older than this fettle"];
    older.is_told(1, &["status"], says);
    older.is_told(1, &["watch", &story.run], says);
    older.is_told(1, &["run", "pause", &story.run, "--reason", "wait"], says);
    let seen = cluster.json("ana", &["run", "show", &story.run]);
    assert_eq!(seen["hosts"][0]["pause"], Value::Null, "{seen:#}");
    // What it does know works.
    older.reads(&["approve", &gate, "--yes", "--reason", "seen"]);
    assert_eq!(cluster.ending(&story.run), "verified");
}

/// The same with other bytes in place of some, which must be there.
fn replaced(bytes: &Bytes, this: &str, that: &str) -> Bytes {
    let text = std::str::from_utf8(bytes).expect("it is text");
    assert!(text.contains(this), "{text}");
    text.replacen(this, that, 1).into()
}

fn gate_with(way: Way, call: &str, message: Bytes, change: fn(&mut v1::Gate)) -> Result<Vec<u8>, Status> {
    if (way, call) == (Way::Told, "GetGate") { with(message, change) } else { as_it_is(message) }
}

#[test]
fn what_is_to_be_signed_is_not_signed_where_any_of_it_is_not_known() {
    let cluster = cluster();
    let story = Story::begin(&cluster, "signed", &[]);
    let gate = cluster.gate(&story.run);
    let approve = ["approve", &gate, "--yes", "--reason", "seen"];
    let kinds: &[(Change, i32, &[&str])] = &[
        (
            |way, call, message| {
                gate_with(way, call, message, |gate| {
                    gate.request = replaced(&gate.request, "request/1", "request/2");
                })
            },
            5,
            &["nothing was signed", "request/2", "if the controller is newer"],
        ),
        (
            |way, call, message| {
                gate_with(way, call, message, |gate| {
                    gate.request = replaced(&gate.request, "{", r#"{"sudo":"yes","#);
                })
            },
            5,
            &["nothing was signed", "the request cannot be read"],
        ),
        (
            |way, call, message| {
                gate_with(way, call, message, |gate| {
                    gate.request =
                        [&gate.request[..gate.request.len() - 1], br#","sudo":"yes"}"#].concat().into();
                })
            },
            5,
            &["nothing was signed", "sudo"],
        ),
        (
            |way, call, message| {
                gate_with(way, call, message, |gate| {
                    let plan = &mut gate.plans[0].plan;
                    *plan = replaced(plan, "plan/1", "plan/2");
                })
            },
            5,
            &["nothing was signed", "plan/2"],
        ),
        (
            |way, call, message| gate_with(way, call, message, |gate| gate.state = "simmering".into()),
            1,
            &["the gate is simmering (not known to this fettle)", "nothing was signed"],
        ),
        // What is asked is a controller's of today: it knows no such signature.
        (
            |way, call, message| match (way, call) {
                (Way::Asked, "Decide") => with(message, |request: &mut v1::DecideRequest| {
                    let signed = request.approval.as_mut().expect("an approval");
                    signed.envelope = Some(v1::Envelope::decode(MORE).expect("an envelope of another kind"));
                }),
                (Way::Told | Way::Asked, _) => as_it_is(message),
            },
            2,
            &["no signature of a known kind"],
        ),
    ];
    for (change, exit, says) in kinds {
        Person::of(&cluster, *change).is_told(*exit, &approve, says);
        let status = cluster.json("ana", &["status"]);
        assert_eq!(status["gates"][0]["decisions"], serde_json::json!([]), "{says:?}: {status:#}");
    }
    story.approve(&gate);
    assert_eq!(cluster.ending(&story.run), "verified");
}

#[test]
fn a_sign_in_and_a_finding_of_another_version_are_refused() {
    let cluster = cluster();
    let run = verified(&cluster);
    let newer = Person::of(&cluster, |way, call, message| match (way, call) {
        (Way::Asked, "ResolveStep") => {
            with(message, |request: &mut v1::ResolveStepRequest| request.found = 9)
        }
        (Way::Told | Way::Asked, _) => as_it_is(message),
    });
    let resolve = ["run", "resolve", &run, "--host", "web-1", "--ran", "--reason", "looked"];
    newer.is_told(2, &resolve, &["it must be said whether the step ran"]);

    let between = Between::of(&cluster, |way, call, message| match (way, call) {
        (Way::Told, "Login") => with(message, |reply: &mut v1::LoginReply| {
            if let Some(v1::login_reply::What::Challenge(challenge)) = &mut reply.what {
                *challenge = replaced(challenge, "login/1", "login/2");
            }
        }),
        (Way::Told | Way::Asked, _) => as_it_is(message),
    });
    let session = cluster.path("none.json").display().to_string();
    let person = Person { cluster: &cluster, between, session: session.clone() };
    person.is_told(5, &["login"], &["the controller's challenge is not one to sign", "login/2"]);
    assert!(!fs::exists(&session).expect("a folder"), "nobody is signed in");
}
