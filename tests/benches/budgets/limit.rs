//! What the machine can do at all.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::marker;
use crate::table::{self, Samples};

/// Appends a few bytes and makes them durable, over and over.
pub(crate) fn fdatasync(directory: &Path, times: usize) -> Samples {
    let path = directory.join("appended");
    let mut file = File::create(&path).expect("a file can be made");
    // Like our journals: the file has its size already, so that only data is written.
    file.write_all(&vec![0; times * 512]).and_then(|()| file.sync_all()).expect("a file can be written");
    std::io::Seek::rewind(&mut file).expect("a file can be written again");
    let mut samples = Samples::default();
    for _ in 0..times {
        let before = marker::now();
        file.write_all(&[1; 512]).and_then(|()| file.sync_data()).expect("a file can be written");
        samples.add(marker::now() - before);
    }
    let _ = std::fs::remove_file(path);
    samples
}

/// A new file made durable, renamed, and its name made durable: what a shim needs of the disk to leave word.
fn new_files(directory: &Path, times: usize) -> Samples {
    let (new, name) = (directory.join("new"), directory.join("named"));
    let folder = File::open(directory).expect("a folder");
    let mut samples = Samples::default();
    for _ in 0..times {
        let before = marker::now();
        let mut file = File::create(&new).expect("a file can be made");
        file.write_all(&[1; 170]).and_then(|()| file.sync_all()).expect("a file can be written");
        std::fs::rename(&new, &name).and_then(|()| folder.sync_all()).expect("a file can be renamed");
        samples.add(marker::now() - before);
    }
    let _ = std::fs::remove_file(name);
    samples
}

/// Prints that for the disk of a directory.
pub(crate) fn disk(directory: &Path) -> Samples {
    let samples = fdatasync(directory, 500);
    table::line("append 512 bytes + fdatasync, same disk", &samples);
    table::line("new file + fsync + rename + fsync of the folder", new_files(directory, 100));
    samples
}

/// Spawn and wait of a marker: until it began, and until it was over.
pub(crate) fn spawn(program: &Path, directory: &Path, times: usize) -> (Samples, Samples) {
    let file = directory.join("spawned");
    let (mut began, mut over) = (Samples::default(), Samples::default());
    for _ in 0..times {
        let (one, other) = marker::spawn_and_wait(program, &file);
        began.add(one);
        over.add(other);
    }
    let _ = std::fs::remove_file(file);
    (began, over)
}
