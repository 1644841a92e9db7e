//! That the power really fails in these tests: what was not made durable is gone, and what was is there.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};

use fettle_tests::power::Disk;

#[test]
fn after_a_power_failure_what_was_synced_is_there_and_what_was_not_is_gone() {
    let place = tempfile::tempdir().expect("a folder");
    let at = place.path().join("disk");
    let Some(mut disk) = Disk::over(&at) else { return };
    let folder = || File::open(&at).expect("it is there");

    // A file, its directory and its content; then a name, of a file that is durable under its old one.
    let mut kept = File::create(at.join("kept")).expect("a file");
    kept.write_all(b"kept").and_then(|()| kept.sync_all()).expect("it is written");
    fs::write(at.join("aside"), "new").expect("it is written");
    File::open(at.join("aside")).and_then(|file| file.sync_all()).expect("it is synced");
    folder().sync_all().expect("it is synced");
    // … and now everything that a program might forget.
    kept.write_all(b" and more").expect("it is written");
    fs::write(at.join("lost"), "lost").expect("it is written");
    fs::rename(at.join("aside"), at.join("named")).expect("it is renamed");
    fs::remove_file(at.join("kept")).expect("it is removed");
    let seen = |name: &str| fs::read_to_string(at.join(name)).unwrap_or_default();
    assert_eq!((seen("lost"), seen("named")), ("lost".to_owned(), "new".to_owned()), "as the living see it");

    assert!(!disk.is_cut());
    disk.cut();
    assert!(disk.is_cut(), "it takes nothing any more");
    drop(kept);
    disk.mount_again();
    assert!(!disk.is_cut());
    assert_eq!(
        seen("kept"),
        "kept",
        "what was removed without a sync is back, without what was written since"
    );
    assert_eq!(seen("aside"), "new", "its name is the one that was durable");
    assert!(!at.join("lost").exists() && !at.join("named").exists());
}

/// What tells this test that it is the one to be killed, and where its disk is.
const KILLED: &str = "FETTLE_TEST_KILLED_WITH_A_DISK_AT";

#[test]
fn a_disk_of_a_test_that_was_killed_is_gone_when_the_next_one_needs_a_disk() {
    if let Some(at) = std::env::var_os(KILLED) {
        let disk = Disk::over(at.as_ref());
        std::mem::forget(disk);
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let left = place.path().join("left");
    let mut killed = Command::new(std::env::current_exe().expect("a test knows where it is"))
        .args([
            "--exact",
            "crash::power::a_disk_of_a_test_that_was_killed_is_gone_when_the_next_one_needs_a_disk",
        ])
        .env(KILLED, &left)
        .stdout(Stdio::null())
        .spawn()
        .expect("a test can be run");
    let owner = killed.id();
    assert!(killed.wait().is_ok_and(|status| status.success()));
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("it is there");
    let images = || {
        let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&format!("fettle-disk-{owner}-"))).count()
    };
    let is_left = || mounts().contains(&left.display().to_string());
    let Some(_next) = Disk::over(&place.path().join("next")) else { return };
    assert!(!is_left() && images() == 0, "{}", mounts());
}
