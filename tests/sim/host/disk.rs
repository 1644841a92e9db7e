//! A disk that forgets what was not synced.
//!
//! Content and names are durable separately, as on a real one: a file's bytes by its own fsync, its name by that of the
//! directory. When the power goes, of what was not durable the seed keeps any part: of a file's writes the first few and
//! single sectors of the next, of a directory's changes the first few.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::chance::Chance;
use crate::trace::count;

/// What is written as a whole or not at all.
const SECTOR: usize = 512;

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Made(PathBuf, Node),
    Gone(PathBuf),
    Renamed(PathBuf, PathBuf),
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        match self {
            Change::Made(path, _) | Change::Gone(path) | Change::Renamed(path, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Made(path, node) => drop(names.insert(path.clone(), *node)),
            Change::Gone(path) => drop(names.remove(path)),
            Change::Renamed(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// A change of content that is not durable yet.
#[derive(Clone, Debug)]
enum Write {
    At(usize, Vec<u8>),
    Size(usize),
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Write::At(at, new) => put(bytes, *at, new),
            Write::Size(size) if *size < bytes.len() => bytes.truncate(*size),
            Write::Size(size) => grow(bytes, *size),
        }
    }

    /// Some of its sectors; whether some, and not all.
    fn tear(&self, bytes: &mut Vec<u8>, chance: &mut Chance) -> bool {
        let Write::At(at, new) = self else { return false };
        let (mut kept, mut lost) = (false, false);
        let mut from = *at;
        while from < at + new.len() {
            let to = ((from / SECTOR + 1) * SECTOR).min(at + new.len());
            let keeps = chance.happens(0.5);
            if keeps {
                put(bytes, from, &new[from - at..to - at]);
            }
            (kept, lost) = (kept || keeps, lost || !keeps);
            from = to;
        }
        kept && lost
    }
}

/// Makes it at least as long, with zeros: at once, where `resize` goes byte by byte in a build that is not optimised.
fn grow(bytes: &mut Vec<u8>, size: usize) {
    bytes.extend_from_slice(&vec![0; size.saturating_sub(bytes.len())]);
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    grow(bytes, at + new.len());
    bytes[at..at + new.len()].copy_from_slice(new);
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

impl Content {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.now);
        self.pending.push(write);
    }

    /// Any part of what is pending becomes durable, and the rest never will by itself.
    fn settle(&mut self, chance: &mut Chance) {
        let pending = std::mem::take(&mut self.pending);
        let kept = chance.among(0..pending.len() as u64 + 1) as usize;
        pending[..kept].iter().for_each(|write| write.apply(&mut self.durable));
        if let Some(torn) = pending.get(kept) {
            count("a write that was not synced is lost");
            if torn.tear(&mut self.durable, chance) {
                count("a write is torn");
            }
        }
    }
}

/// A disk with one file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    contents: BTreeMap<u64, Content>,
    made: u64,
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
    /// Nothing fits any more.
    pub(crate) full: bool,
    /// What is overwritten needs new space, as on file systems that copy on write.
    pub(crate) copies: bool,
    /// So many of the next syncs of files fail.
    pub(crate) bad_syncs: u32,
}

/// What a whole disk held at some moment.
#[derive(Clone, Debug)]
pub(crate) struct DiskImage(Disk);

impl Disk {
    /// An empty disk with one directory.
    pub(crate) fn new(root: &Path) -> Disk {
        let mut disk = Disk::default();
        disk.names.insert(root.to_owned(), Node::Dir);
        disk.durable.insert(root.to_owned(), Node::Dir);
        disk
    }

    /// Whether the name means something.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    /// Makes a directory, and those it is in.
    pub(crate) fn make_dir(&mut self, dir: &Path) -> io::Result<()> {
        let missing: Vec<_> =
            dir.ancestors().take_while(|dir| !self.exists(dir)).map(Path::to_owned).collect();
        for dir in missing.into_iter().rev() {
            self.needs_space(true)?;
            self.change(Change::Made(dir, Node::Dir));
        }
        Ok(())
    }

    /// What is in a directory.
    pub(crate) fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.dir(dir)?;
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    /// The content as programs see it.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.contents[&self.open(path)?].now.clone())
    }

    /// The content that a power loss now could not take away.
    pub(crate) fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        match self.durable.get(path)? {
            Node::File(file) => Some(self.contents.get(file)?.durable.clone()),
            Node::Dir => None,
        }
    }

    /// Creates a file.
    pub(crate) fn create_new(&mut self, path: &Path) -> io::Result<u64> {
        self.dir(path.parent().unwrap_or(path))?;
        if self.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.needs_space(true)?;
        self.made += 1;
        self.contents.insert(self.made, Content::default());
        self.change(Change::Made(path.to_owned(), Node::File(self.made)));
        Ok(self.made)
    }

    /// The file of a name.
    pub(crate) fn open(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives a file another name.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.open(from)?;
        self.change(Change::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Removes a file, or a directory with all that is in it.
    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        if !self.exists(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside: Vec<_> = self.names.keys().filter(|inner| inner.starts_with(path)).cloned().collect();
        inside.into_iter().rev().for_each(|path| self.change(Change::Gone(path)));
        Ok(())
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.dir(dir)?;
        let (its, others) =
            std::mem::take(&mut self.changes).into_iter().partition(|change| change.dir() == Some(dir));
        self.changes = others;
        let its: Vec<Change> = its;
        its.iter().for_each(|change| change.apply(&mut self.durable));
        Ok(())
    }

    /// How long a file is.
    pub(crate) fn size(&self, file: u64) -> u64 {
        self.contents[&file].now.len() as u64
    }

    /// Cuts a file off, or fills it up.
    pub(crate) fn set_size(&mut self, file: u64, size: u64) -> io::Result<()> {
        self.needs_space(size > self.size(file))?;
        self.content(file).write(Write::Size(size as usize));
        Ok(())
    }

    /// Writes.
    pub(crate) fn write(&mut self, file: u64, bytes: &[u8], at: u64) -> io::Result<()> {
        self.needs_space(self.copies || at + bytes.len() as u64 > self.size(file))?;
        self.content(file).write(Write::At(at as usize, bytes.to_vec()));
        Ok(())
    }

    /// Makes content durable. One that fails has made any part of it durable, and the next one no more.
    pub(crate) fn sync(&mut self, file: u64, chance: &mut Chance) -> io::Result<()> {
        if self.bad_syncs > 0 {
            self.bad_syncs -= 1;
            count("an fsync fails");
            self.content(file).settle(chance);
            return Err(io::Error::other("input/output error"));
        }
        let content = self.content(file);
        let pending = std::mem::take(&mut content.pending);
        pending.iter().for_each(|write| write.apply(&mut content.durable));
        Ok(())
    }

    /// The power goes.
    pub(crate) fn lose_power(&mut self, chance: &mut Chance) {
        let changes = std::mem::take(&mut self.changes);
        let dirs: BTreeSet<_> = changes.iter().filter_map(Change::dir).map(Path::to_owned).collect();
        for dir in dirs {
            let its: Vec<_> = changes.iter().filter(|change| change.dir() == Some(&dir)).collect();
            let kept = chance.among(0..its.len() as u64 + 1) as usize;
            its[..kept].iter().for_each(|change| change.apply(&mut self.durable));
        }
        self.names.clear();
        for (path, node) in &self.durable {
            // What it was in comes first; a directory whose own name is gone takes everything with it.
            let reachable = path.parent().is_none_or(|dir| self.names.contains_key(dir));
            if reachable || self.names.is_empty() {
                self.names.insert(path.clone(), *node);
            }
        }
        self.durable = self.names.clone();
        for content in self.contents.values_mut() {
            content.settle(chance);
            content.now = content.durable.clone();
        }
        self.bad_syncs = 0;
    }

    /// What programs see now, as if all of it were durable.
    pub(crate) fn image(&self) -> DiskImage {
        let mut disk = self.clone();
        (disk.durable, disk.changes) = (disk.names.clone(), Vec::new());
        for content in disk.contents.values_mut() {
            (content.durable, content.pending) = (content.now.clone(), Vec::new());
        }
        (disk.full, disk.bad_syncs) = (false, 0);
        DiskImage(disk)
    }

    /// A disk that holds this.
    pub(crate) fn from_image(image: &DiskImage) -> Disk {
        image.0.clone()
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.contents.entry(file).or_default()
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn dir(&self, dir: &Path) -> io::Result<()> {
        match self.names.get(dir) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn needs_space(&self, needs: bool) -> io::Result<()> {
        if self.full && needs {
            count("a write finds no space");
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// What this disk promises, and what the journal makes of it.
pub(crate) const TESTS: &[(&str, fn())] = &[
    ("what_was_synced_survives_every_power_loss", what_was_synced_survives),
    ("what_was_not_synced_is_there_whole_torn_or_not_at_all", what_was_not_synced),
    ("a_name_is_durable_by_its_directory_and_bytes_by_their_file", a_name_is_durable),
    ("after_a_sync_that_failed_a_good_one_proves_nothing", after_a_failed_sync),
    ("what_the_journal_said_or_gave_back_is_there_for_ever", super::journal::what_it_said_is_there),
];

fn disk_with(bytes: &[u8]) -> (Disk, u64) {
    let root = Path::new("/state");
    let mut disk = Disk::new(root);
    let file = disk.create_new(&root.join("file")).expect("created");
    disk.write(file, bytes, 0).expect("written");
    (disk, file)
}

fn what_was_synced_survives() {
    for seed in 0..50 {
        let mut chance = Chance::new(seed, "disk");
        let (mut disk, file) = disk_with(b"kept");
        disk.sync(file, &mut chance).expect("synced");
        disk.sync_dir("/state".as_ref()).expect("synced");
        disk.write(file, b"lost", 4).expect("written");
        disk.lose_power(&mut chance);
        assert!(disk.read("/state/file".as_ref()).expect("it is there").starts_with(b"kept"), "seed {seed}");
    }
}

fn what_was_not_synced() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let mut chance = Chance::new(seed, "disk");
        let (mut disk, file) = disk_with(&[]);
        disk.sync_dir("/state".as_ref()).expect("synced");
        disk.write(file, &[7; 2 * SECTOR], 0).expect("written");
        disk.lose_power(&mut chance);
        let left = disk.read("/state/file".as_ref()).expect("its name is durable");
        let sector = |at: usize| left.get(at * SECTOR).copied().unwrap_or_default() == 7;
        assert!(
            left.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "seed {seed}"
        );
        seen.insert((sector(0), sector(1)));
    }
    assert_eq!(seen.len(), 4, "every part is kept some time: {seen:?}");
}

fn a_name_is_durable() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let mut chance = Chance::new(seed, "disk");
        let (mut disk, file) = disk_with(b"new");
        disk.sync(file, &mut chance).expect("synced");
        disk.rename("/state/file".as_ref(), "/state/name".as_ref()).expect("renamed");
        disk.lose_power(&mut chance);
        let at = |name: &str| disk.read(Path::new(name)).ok();
        let (old, new) = (at("/state/file"), at("/state/name"));
        assert!(old.is_none() || new.is_none(), "seed {seed}: never both names");
        assert!(
            [&old, &new].into_iter().flatten().all(|bytes| bytes == b"new"),
            "seed {seed}: bytes are whole"
        );
        seen.insert((old.is_some(), new.is_some()));
    }
    assert_eq!(seen.len(), 3, "no name, the old, the new: {seen:?}");
}

fn after_a_failed_sync() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut chance = Chance::new(seed, "disk");
        let (mut disk, file) = disk_with(b"word");
        disk.sync_dir("/state".as_ref()).expect("synced");
        disk.bad_syncs = 1;
        disk.sync(file, &mut chance).expect_err("it fails");
        disk.sync(file, &mut chance).expect("it lies");
        assert_eq!(disk.read("/state/file".as_ref()).expect("cached"), b"word");
        disk.lose_power(&mut chance);
        lost += u32::from(disk.read("/state/file".as_ref()).expect("named") != b"word");
    }
    assert!(lost > 0);
}
