//! That the power really fails in these tests: what was not made durable is gone, and what was is there.

use std::fs::{self, File};
use std::io::Write as _;

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
