//! The result of an attempt, on its way to the disk.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};

use crate::crash::crash_point;
use crate::works::attempt::Ended;
use crate::works::disk;
use crate::works::output::Stream;
use crate::works::place::Place;

/// The largest a result gets: twice head and tail in base64, and the words around them.
const LARGEST: u64 = 256 * 1024;

/// A file for the result, whose space is reserved before the step starts: a step that fills the disk must not take away
/// the room for saying that it did.
#[derive(Debug)]
pub(super) struct Exit {
    file: File,
    path: PathBuf,
}

pub(super) fn reserve(place: &Place) -> io::Result<Exit> {
    let path = place.file(&format!("exit.{}.tmp", std::process::id()));
    let file = disk::create(&path, 0o600)?;
    match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LARGEST) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(Exit { file, path }),
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err(error.into())
        }
    }
}

/// Gives back the space that dead shims had reserved: the attempt may be remembered for long. What they wrote stays.
pub(crate) fn give_back(place: &Place) {
    for entry in std::fs::read_dir(place.dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("exit.") && name.ends_with(".tmp")) {
            let file = File::options().write(true).open(entry.path());
            let _ = file.and_then(|file| file.set_len(file.metadata()?.len()));
        }
    }
}

impl Exit {
    /// Makes the result durable, then visible, then durably visible.
    pub(super) fn leave(mut self, place: &Place, ended: &Ended) -> io::Result<()> {
        let bytes = serde_json::to_vec(ended)?;
        if self.write(&bytes).is_err() {
            // Where space could not be reserved: the whole output is the less important half.
            for stream in [Stream::Stdout, Stream::Stderr] {
                let _ = File::create(place.spool(stream));
            }
            self.file.set_len(0)?;
            self.write(&bytes)?;
        }
        // Gives back what was reserved and not needed.
        self.file.set_len(bytes.len() as u64)?;
        crash_point("shim.exit-unsynced");
        self.file.sync_all()?;
        crash_point("shim.exit-unnamed");
        std::fs::rename(&self.path, place.file("exit"))?;
        crash_point("shim.exit-undurable");
        disk::sync_dir(place.dir())?;
        crash_point("shim.exit-durable");
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        use std::io::Seek as _;
        self.file.rewind()?;
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_a_dead_shim_had_reserved_is_given_back_and_what_it_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::at(dir.path().to_owned());
        let mut exit = reserve(&place).unwrap();
        exit.write(b"half").unwrap();
        exit.file.sync_all().unwrap();
        let blocks = || std::fs::metadata(&exit.path).unwrap().blocks();
        let reserved = blocks();
        crate::works::recovery::look(&place).unwrap();
        assert!(blocks() <= 8, "{} of {reserved} blocks", blocks());
        assert_eq!(std::fs::read(&exit.path).unwrap(), b"half");
    }
}
