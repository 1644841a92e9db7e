//! A disk whose power can fail.
//!
//! An ext4 in an image file, of its own, mounted over a directory. When its power fails (`FETTLE_CRASH_AT`, or [`Disk::cut`])
//! it takes nothing any more, and what was not made durable is not there when it is [mounted again](Disk::mount_again).
//! By itself it writes nothing back for five minutes: so whatever a program did not fsync is lost. What is mounted again is a
//! copy of the image as it was then: processes with mounts of their own may hold the old one a little longer.
//!
//! Only root can mount one. Those of a test that was killed are taken away by the next that needs one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::{eventually, remains};

/// How long it may take until nobody uses it.
const LIMIT: Duration = Duration::from_secs(30);

/// Megabytes, most of which nobody ever writes.
const SIZE: u64 = 256;

/// A mounted disk. It goes away with its contents.
pub struct Disk {
    image: PathBuf,
    device: String,
    at: PathBuf,
}

impl Disk {
    /// Makes an empty one and mounts it over a directory, which is made if it is not there. None: not allowed to.
    pub fn over(directory: &Path) -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: only root can mount a disk, and this test needs one whose power can fail");
            return None;
        }
        clear_up();
        fs::create_dir_all(directory).expect("a folder can be made");
        let image = image();
        done(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-J", "size=4"]).arg(&image));
        let device = attach(&image);
        let disk = Disk { image, device, at: directory.to_owned() };
        disk.mount();
        let _ = fs::remove_dir(disk.at.join("lost+found"));
        Some(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Its power fails, now.
    pub fn cut(&self) {
        fettle_crash::cut(&self.at).expect("an ext4 can be shut down");
    }

    /// Whether its power has failed.
    pub fn is_cut(&self) -> bool {
        File::create(self.at.join("probe")).is_err()
    }

    /// After a power failure: what was durable is there again. Whoever used it must be gone.
    #[track_caller]
    pub fn mount_again(&mut self) {
        eventually("nobody uses the disk any more", LIMIT, || {
            let output = Command::new("umount").arg(&self.at).output().expect("umount can be run");
            if output.status.success() { Ok(()) } else { Err(said(&output)) }
        });
        let (old, image) = (self.image.clone(), image());
        done(Command::new("cp").arg("--sparse=always").args([&old, &image]));
        self.detach();
        self.device = attach(&image);
        self.image = image;
        self.mount();
    }

    /// It goes when its last user does.
    fn detach(&self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
        let _ = fs::remove_file(&self.image);
    }

    #[track_caller]
    fn mount(&self) {
        // Nothing is written because some time has passed.
        let options = "commit=300,noatime,nodiscard";
        done(Command::new("mount").args(["-t", "ext4", "-o", options, &self.device]).arg(&self.at));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
        self.detach();
    }
}

/// How the name of an image begins; the number of the process that has it follows.
const PREFIX: &str = "fettle-disk-";

/// Where images are. In memory, where there is some to be had: this is about what is lost, not how long it takes.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// An empty image file.
fn image() -> PathBuf {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let image = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder()).expect("a file");
    let (file, image) = image.keep().expect("a file can be kept");
    file.set_len(SIZE << 20).expect("a file can be long");
    image
}

#[track_caller]
fn attach(image: &Path) -> String {
    let device = done(Command::new("losetup").args(["--find", "--show"]).arg(image));
    String::from_utf8_lossy(&device.stdout).trim().to_owned()
}

/// Takes away what processes have left that were killed before they could.
fn clear_up() {
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner: u32| !Path::new(&format!("/proc/{owner}")).exists()) {
            abandoned(&entry.path());
        }
    }
}

/// The disk of an image that nobody owns any more: what runs on it, its mounts, its device and the image.
fn abandoned(image: &Path) {
    // One at a time: whoever came late would take away the device's next disk.
    let Ok(_turn) =
        File::open(image).and_then(|file| Ok((flock(&file, FlockOperation::LockExclusive)?, file)))
    else {
        return;
    };
    let devices = Command::new("losetup")
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(image)
        .output();
    let devices =
        devices.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for device in devices.lines().map(str::trim) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let of_it =
            |line: &str| Some(line.strip_prefix(device)?.strip_prefix(' ')?.split(' ').next()?.to_owned());
        for mount in mounts.lines().filter_map(of_it) {
            remains::kill(Path::new(&mount));
            let _ = Command::new("umount").args(["--lazy", &mount]).output();
        }
        let _ = Command::new("losetup").args(["--detach", device]).output();
    }
    let _ = fs::remove_file(image);
}

/// What the disk of this path would lose, were its power to fail, is all written back.
///
/// # Errors
/// When it cannot be.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|file| rustix::fs::syncfs(file).map_err(io::Error::from))
}

#[track_caller]
fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
