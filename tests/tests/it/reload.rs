//! Files of the controller that change while it runs: good ones are taken up, bad ones are refused and told of.

use std::fs;

use fettle_proto::signed::{PrivateKey, Scope, certificate};
use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::{Cluster, eventually};
use serde_json::json;

const LOOK: &str =
    "fettle: 1\nrunbook: test/look\ntitle: Look\nowner: tests\ndiagnose:\n  - id: up\n    run: [uptime]\n";

/// A command that somebody would like a shell to evaluate.
const TEMPLATED: &str = r#"fettle: 1
runbook: test/templated
title: Never
owner: tests
inputs: { unit: { type: string } }
diagnose:
  - id: never
    run: [sh, -c, "systemctl status ${{ inputs.unit }}"]
"#;

#[track_caller]
fn warned(cluster: &Cluster, words: &[&str]) {
    eventually(&format!("the status warns of {words:?}"), LIMIT, || {
        let warnings = cluster.json("ana", &["status"])["warnings"].to_string();
        if words.iter().all(|word| warnings.contains(word)) { Ok(()) } else { Err(warnings) }
    });
}

#[track_caller]
fn content(cluster: &Cluster) {
    eventually("the status warns of nothing", LIMIT, || {
        let warnings = cluster.json("ana", &["status"])["warnings"].clone();
        // The roster of a test does not last long, and that is told.
        let others =
            warnings.as_array().into_iter().flatten().filter(|it| !it.to_string().contains("expires"));
        if others.count() == 0 { Ok(()) } else { Err(warnings.to_string()) }
    });
}

#[test]
fn a_runbook_that_goes_bad_is_refused_with_its_reason_and_the_good_one_stays() {
    let cluster = Cluster::builder().runbook(LOOK).agent("web-1").start();
    let file = cluster.path("library/test/look.yaml");
    let path = file.display().to_string();
    let lint = || cluster.fettle("ana", &["runbook", "lint", &path]);
    let bad: [(&[u8], &[&str]); 5] = [
        (b"\xff\xfe\x00f\x00e", &["UTF-8"]),
        (b"fettle: 1\nrunbook: test/look\ndiagnose: [\n", &["look.yaml:"]),
        (
            b"fettle: 1\nrunbook: test/look\ndiagnose:\n  - id: up\n    rn: [uptime]\n",
            &["rn", "did you mean"],
        ),
        (b"fettle: 1\nrunbook: test/look\na: &x [*x]\n", &["anchor"]),
        (b"", &["empty"]),
    ];
    for (bytes, words) in bad {
        fs::write(&file, bytes).expect("it can be written");
        let linted = lint();
        assert_eq!(linted.status.code(), Some(1), "{}", told(&linted));
        for word in words {
            assert!(told(&linted).contains(word), "`{word}` is missing: {}", told(&linted));
        }
        warned(&cluster, &["test/look.yaml"]);
        let listed = cluster.fettle("ana", &["runbook", "list"]);
        assert!(told(&listed).contains("refused: test/look.yaml"), "{}", told(&listed));
        // What was good is still what runs.
        let run = cluster.fettle("ana", &["start", "test/look", "--host", "web-1"]);
        assert_eq!(run.status.code(), Some(0), "{}", told(&run));
        let shown = cluster.fettle("ana", &["runbook", "show", "test/look", "--source"]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout), LOOK);
    }
    fs::write(&file, LOOK).expect("it can be written");
    content(&cluster);

    // New files that are bad never come into force: no template reaches a shell, by no door.
    fs::write(cluster.path("library/test/templated.yaml"), TEMPLATED).expect("it can be written");
    fs::write(cluster.path("library/test/binary.yaml"), b"\x00\xff").expect("it can be written");
    fs::write(cluster.path("library/test/other.yaml"), LOOK).expect("it can be written");
    fs::write(cluster.path("library/test/huge.yaml"), " ".repeat(2 << 20)).expect("it can be written");
    warned(&cluster, &["templated.yaml", "binary.yaml", "other.yaml", "huge.yaml"]);
    let start = ["start", "test/templated", "--host", "web-1", "-i", "unit=x"];
    let refused = cluster.fettle("ana", &start);
    assert_eq!(refused.status.code(), Some(3), "{}", told(&refused));
    assert!(told(&refused).contains("is refused"), "{}", told(&refused));
    let templated = cluster.path("library/test/templated.yaml").display().to_string();
    let linted = cluster.fettle("ana", &["runbook", "lint", &templated]);
    assert_eq!(linted.status.code(), Some(1), "{}", told(&linted));
    assert!(told(&linted).contains("env"), "it says what to do instead: {}", told(&linted));
    let own = cluster.fettle("ana", &["start", "--file", &templated, "--host", "web-1", "-i", "unit=x"]);
    assert_eq!(own.status.code(), Some(2), "{}", told(&own));
    let certified = cluster.fettle("rosa", &["runbook", "certify", &templated, "--author", "wil"]);
    assert_eq!(certified.status.code(), Some(2), "nobody certifies it: {}", told(&certified));
    let names: Vec<String> = cluster
        .json("ana", &["runbook", "list"])
        .as_array()
        .into_iter()
        .flatten()
        .map(|runbook| runbook["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["test/look"]);
}

#[test]
fn a_certificate_counts_for_exactly_the_bytes_it_stands_beside() {
    let cluster = Cluster::builder().runbook(LOOK).start();
    let file = cluster.path("library/test/look.yaml");
    let is_certified = || cluster.json("ana", &["runbook", "show", "test/look"])["certified"] == true;
    assert!(is_certified());
    fs::write(&file, format!("{LOOK}# changed\n")).expect("it can be written");
    eventually("the changed file is not certified", LIMIT, || {
        if is_certified() { Err("it is") } else { Ok(()) }
    });
    let path = file.display().to_string();
    // The author's own word is worth nothing, and neither is that of somebody who may not review.
    let own = cluster.fettle("wil", &["runbook", "certify", &path, "--author", "wil"]);
    assert_eq!(own.status.code(), Some(5), "{}", told(&own));
    let certify = |person: &str| cluster.fettle(person, &["runbook", "certify", &path, "--author", "wil"]);
    assert!(certify("ana").status.success(), "a signature can be made by anybody");
    let verified = cluster.fettle("ana", &["runbook", "verify", &path]);
    assert_eq!(verified.status.code(), Some(1), "and does not count: {}", told(&verified));
    assert!(certify("rosa").status.success());
    let verified = cluster.fettle("ana", &["runbook", "verify", &path]);
    eventually("it is certified again", LIMIT, || if is_certified() { Ok(()) } else { Err(told(&verified)) });
}

#[test]
fn a_policy_that_goes_bad_is_refused_as_a_whole_and_the_good_one_stays() {
    let cluster = Cluster::builder().start();
    let file = cluster.path("policy/policy.yaml");
    let good = fs::read_to_string(&file).expect("the policy");
    for (bad, word) in [
        (format!("{good}mods: []\n"), "unknown field `mods`"),
        (good.replace("auto", "yolo"), "yolo"),
        ("fettle-policy: 1\nsources: [\n".to_owned(), "policy.yaml:"),
        (good.replace("token_file: token", "token_file: gone"), "gone"),
        (good.replace("fettle-policy: 1", "fettle-policy: 9"), "fettle-policy: 9"),
    ] {
        fs::write(&file, &bad).expect("it can be written");
        warned(&cluster, &["policy not put in force", word]);
        assert_eq!(cluster.post(&firing("Kept", &[("bad", word)])).status, 200, "its source may still post");
    }
    fs::write(&file, &good).expect("it can be written");
    content(&cluster);
    // A second file may add, not contradict.
    fs::write(
        cluster.path("policy/z.yaml"),
        "fettle-policy: 1\nsources:\n  alertmanager: { token_file: token }\n",
    )
    .expect("it can be written");
    warned(&cluster, &["z.yaml", "is in another file already"]);
}

#[test]
fn a_roster_that_goes_bad_lets_everybody_stay_and_nobody_in() {
    let cluster = Cluster::builder().start();
    let file = cluster.path("roster.json");
    let good = fs::read(&file).expect("the roster");
    let write = |signed: &fettle_proto::signed::Signed| {
        fs::write(&file, certificate::encode_signed_file(signed).expect("an SSHSIG"))
            .expect("it can be written");
    };
    fs::write(&file, b"{}").expect("it can be written");
    warned(&cluster, &["roster", "version 1 stays in force"]);
    // Signed by somebody who is no root.
    let stranger = PrivateKey::from_seed([9; 32], "stranger");
    let mut coup = cluster.people.roster(2);
    coup.persons[0].scopes.extend([Scope::Review]);
    let forged =
        fettle_proto::signed::sign(&stranger, fettle_proto::signed::Namespace::Roster, &coup.encode());
    write(&forged.expect("signed"));
    warned(&cluster, &["roster-untrusted"]);
    // The same version with other words.
    let mut other = cluster.people.roster(1);
    other.persons.pop();
    write(&cluster.people.sign_roster(&other));
    warned(&cluster, &["same version 1"]);
    assert_eq!(cluster.json("ana", &["roster", "show"])["version"], json!(1));

    // A good one: wil leaves, and is out at once.
    let mut next = cluster.people.roster(2);
    next.persons.retain(|person| person.name != "wil");
    write(&cluster.people.sign_roster(&next));
    content(&cluster);
    let gone = cluster.fettle("wil", &["status"]);
    assert_eq!(gone.status.code(), Some(4), "{}", told(&gone));
    assert!(cluster.fettle("ana", &["status"]).status.success(), "ana's session is as good as before");
    // The way back is no way: an old roster is refused.
    fs::write(&file, &good).expect("it can be written");
    warned(&cluster, &["roster-old"]);
    assert_eq!(cluster.fettle("wil", &["login"]).status.code(), Some(4));
}
