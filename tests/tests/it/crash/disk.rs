//! No space left, on either side. Only root can make a small disk; without it these tests say that they did not run.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fettle_tests::Cluster;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::eventually;

use super::{Low, Story, history_gives_the_tables, stage, wait_for};

/// A disk of its own in a directory, which goes away with its contents.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts one over what is in a directory, and moves that onto it. None: not allowed.
    /// `sparse`: what files had reserved is not reserved there.
    fn under(directory: &Path, sparse: bool) -> Option<Disk> {
        let aside = directory.with_extension("aside");
        fs::rename(directory, &aside).expect("it can be moved");
        fs::create_dir(directory).expect("a folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"])
            .arg(directory)
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("NOT RUN: only root can make a small disk, and this test needs one");
            return None;
        }
        let disk = Disk { at: directory.to_owned() };
        let copied = Command::new("cp")
            .args(["-a", if sparse { "--sparse=always" } else { "--sparse=never" }, "--"])
            .arg(aside.join("."))
            .arg(directory)
            .status()
            .expect("cp can be run");
        assert!(copied.success());
        Some(disk)
    }

    /// Takes all the space there is: not one byte is left.
    fn fill(&self) {
        let mut file = File::create(self.at.join("filler")).expect("a file can be made");
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        let full = fs::write(self.at.join("one-more"), [1]).expect_err("there is no space");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Gives it back.
    fn free(&self) {
        fs::remove_file(self.at.join("filler")).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.at).status();
    }
}

/// The status and body of a GET.
fn get(cluster: &Cluster, path: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}", "--cacert"])
        .arg(cluster.path("ca.pem"))
        .arg(format!("https://localhost:{}{path}", cluster.http))
        .output()
        .expect("curl can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_controller_without_space_says_so_and_goes_on_when_there_is_some() {
    let mut cluster = stage().agent("web-1").start();
    cluster.controller().kill();
    let Some(disk) = Disk::under(&cluster.path("controller"), false) else { return };
    cluster.start_controller();
    cluster.wait_for_agent("web-1");
    let (asked, gate) = {
        let story = Story::new(&cluster, "web-1", Low::Safe).begin();
        let gate = cluster.gate(&story.run);
        ((story.dir.clone(), story.run.clone()), gate)
    };
    let before = {
        let story = Story::new(&cluster, "web-1", Low::Checked).hold("low").begin();
        story.until_file("at-low");
        (story.dir.clone(), story.run.clone())
    };
    assert_eq!(get(&cluster, "/readyz").0, "200");

    disk.fill();
    let refused = eventually("a signal is refused", LIMIT, || {
        let alert =
            fettle_tests::alerts::firing("Anything", &[("instance", &jiff::Timestamp::now().to_string())]);
        let answer = cluster.post(&alert);
        if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert!(refused.body.contains("post the same body again"), "{refused:?}");
    eventually("the controller says that it is not ready, and why", LIMIT, || {
        let (status, body) = get(&cluster, "/readyz");
        if status == "503" && body.contains("full") { Ok(()) } else { Err(format!("{status} {body}")) }
    });
    // People are told, whatever they type.
    let warning = "warning: nothing can be recorded: the store fails to commit: database or disk is full";
    eventually("the status warns", LIMIT, || {
        let status = cluster.fettle("ana", &["status"]);
        // Whoever asks just when a commit fails is told the same as an error.
        if status.status.success() && told(&status).contains(warning) { Ok(()) } else { Err(told(&status)) }
    });
    let typed = [
        vec!["approve", &gate, "--yes", "--reason", "seen"],
        vec!["run", "cancel", &asked.1],
        vec!["start", "crash/safe", "--host", "web-1", "-i", "dir=/nowhere", "--detach"],
    ];
    for words in typed {
        let said = cluster.fettle("ana", &words);
        assert_eq!(said.status.code(), Some(14), "{words:?}: {}", told(&said));
        for line in ["database or disk is full; whether it happened is not known", "safe to repeat"] {
            assert!(told(&said).contains(line), "{words:?}: {}", told(&said));
        }
    }
    // What runs goes on meanwhile.
    fs::write(before.0.join("go-low"), "").expect("a file can be written");
    eventually("the step has acted", LIMIT, || fs::metadata(before.0.join("low")).map(drop));
    assert!(cluster.controller().runs(), "{}", cluster.said());

    disk.free();
    eventually("the controller is ready again", LIMIT, || {
        let (status, body) = get(&cluster, "/readyz");
        if status == "200" { Ok(()) } else { Err(format!("{status} {body}")) }
    });
    wait_for(&cluster);
    let status = cluster.fettle("ana", &["status"]);
    assert!(!told(&status).contains("nothing can be recorded"), "{}", told(&status));
    // What was asked meanwhile did not happen, and can be asked again.
    assert_eq!(cluster.gate(&asked.1), gate);
    for (low, (dir, run)) in [(Low::Checked, before), (Low::Safe, asked)] {
        let story = Story { cluster: &cluster, host: "web-1".to_owned(), low, dir, run };
        let seen = story.play(|| ());
        story.healed(&seen);
    }
    let next = Story::new(&cluster, "web-1", Low::Checked).begin();
    let seen = next.play(|| ());
    next.healed(&seen);
    cluster.controller().kill();
    history_gives_the_tables(&cluster);
}

/// A host whose disk is full when a risky step has been approved. Gives back how the run ends once there is space again.
fn approved_on_a_full_disk(sparse: bool, says: &str) -> Option<String> {
    let mut cluster = stage().agent("web-1").start();
    // So that the journal has reserved what it grows by.
    let first = Story::new(&cluster, "web-1", Low::Checked).begin();
    let seen = first.play(|| ());
    first.healed(&seen);
    cluster.agent("web-1").kill();
    let disk = Disk::under(&cluster.path("web-1"), sparse)?;
    cluster.start_agent("web-1");
    let story = Story::new(&cluster, "web-1", Low::Checked).begin();
    let gate = cluster.gate(&story.run);
    assert_eq!((story.times("low"), story.times("high")), (1, 0));

    // Not even what the agent keeps for this.
    fs::remove_file(cluster.path("web-1/ballast")).expect("there is some");
    disk.fill();
    story.approve(&gate);
    eventually("the host says what is wrong", LIMIT, || {
        let log = story.log();
        let seen = story.seen().unwrap_or_default();
        let told = log.contains(says) || seen.to_string().contains(says);
        if told { Ok(()) } else { Err(format!("{seen:#}\n{log}")) }
    });
    assert_eq!(story.times("high"), 0, "{}", story.log());

    disk.free();
    let seen = story.play(|| ());
    let ending = seen["ending"].as_str().unwrap_or_default().to_owned();
    let ran = usize::from(ending == "verified");
    assert_eq!((story.times("low"), story.times("high")), (1, ran), "{seen:#}");
    // And the host goes on.
    let next = Story::new(&cluster, "web-1", Low::Checked).begin();
    let seen = next.play(|| ());
    next.healed(&seen);
    Some(ending)
}

#[test]
fn a_host_whose_journal_cannot_grow_waits_for_space_before_it_runs_anything() {
    if let Some(ending) = approved_on_a_full_disk(true, "the disk is full") {
        assert_eq!(ending, "verified");
    }
}

#[test]
fn a_host_without_space_for_a_step_runs_nothing_and_says_why() {
    if let Some(ending) = approved_on_a_full_disk(false, "No space left on device") {
        assert_eq!(ending, "failed");
    }
}

/// A host whose state is on a small disk of its own.
fn host_on_a_disk() -> Option<(Cluster, Disk)> {
    let mut cluster = stage().agent("web-1").start();
    cluster.agent("web-1").kill();
    let disk = Disk::under(&cluster.path("web-1"), false)?;
    cluster.start_agent("web-1");
    Some((cluster, disk))
}

#[test]
fn a_host_without_a_byte_of_space_acts_and_says_how_it_went_and_is_ready_for_the_next_time() {
    let Some((mut cluster, disk)) = host_on_a_disk() else { return };
    for _ in 0..2 {
        let ballast = cluster.path("web-1/ballast");
        eventually("there is a ballast", LIMIT, || fs::metadata(&ballast).map(drop));
        disk.fill();
        // It comes back to its controller, too.
        cluster.agent("web-1").kill();
        cluster.start_agent("web-1");
        let story = Story::new(&cluster, "web-1", Low::Checked).begin();
        let seen = story.play(|| ());
        story.healed(&seen);
        assert!(!ballast.exists(), "that was what it took");
        disk.free();
        // The next step finds space, and leaves the ballast as it was.
        let story = Story::new(&cluster, "web-1", Low::Checked).begin();
        let seen = story.play(|| ());
        story.healed(&seen);
    }
}

#[test]
fn what_ran_while_the_disk_became_full_is_recorded_there_and_reported() {
    let Some((mut cluster, disk)) = host_on_a_disk() else { return };
    let story = Story::new(&cluster, "web-1", Low::Checked).hold("high").begin();
    let gate = cluster.gate(&story.run);
    story.approve(&gate);
    story.until_file("at-high");
    disk.fill();
    story.go("high");
    // To the very end without a byte: result, journal and report have their space since before the step began.
    let seen = story.play(|| ());
    story.healed(&seen);
    let run = story.run.clone();
    // Killed and started again, it still knows.
    cluster.agent("web-1").kill();
    cluster.start_agent("web-1");
    assert_eq!(cluster.ending(&run), "verified");
    disk.free();
}
