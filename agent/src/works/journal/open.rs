//! Finding the journal, reading it, and putting damaged files aside.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use rustix::fs::{FlockOperation, flock};

use super::frame::{self, Parsed, Verdict};
use super::writer::{self, Files};
use super::*;
use crate::works::disk;

/// Opens the journal in `dir`, or creates it.
pub(super) fn open(dir: &Path) -> Result<Opened, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    let lock = lock(dir)?;
    let generations = generations(dir).map_err(io(dir))?;
    let mut damage = None;
    let mut live = None;
    if let Some((generation, path)) = generations.last() {
        let bytes = std::fs::read(path).map_err(io(path))?;
        match judge(*generation, &bytes) {
            Ok(parsed) => live = Some((path, parsed)),
            Err((reason, before)) => {
                let before = before.iter().map_while(|record| Record::decode(record).ok()).collect();
                let file = put_aside(dir, &generations).map_err(io(path))?;
                damage = Some(Damage { file, reason, before });
            }
        }
    }
    let (header, next, file, records) = match live {
        Some((path, parsed)) => {
            let file = reopen(path, &parsed).map_err(io(path))?;
            let records = decode(path, &parsed.records)?;
            (parsed.header, parsed.next, file, records)
        }
        None => {
            let name = fresh_name().map_err(io(dir))?;
            let generation = generations.last().map_or(1, |(generation, _)| generation + 1);
            let (header, bytes, next) = writer::snapshot(generation, &name, &[]);
            let file = writer::create(dir, generation, &bytes).map_err(io(dir))?;
            (header, next, file, Vec::new())
        }
    };
    for (generation, path) in &generations {
        if damage.is_none() && *generation < header.generation {
            std::fs::remove_file(path).map_err(io(path))?;
        }
    }
    let name = header.name.as_str().into();
    let reserved = file.metadata().map_err(io(dir))?.len();
    let files = Files { dir: dir.to_owned(), file, generation: header.generation, reserved, _lock: lock };
    let writer = writer::spawn(header, next, Box::new(files)).map_err(io(dir))?;
    let quarantined = quarantined(dir).map_err(io(dir))?;
    Ok(Opened { journal: Journal { name, writer }, records, damage, quarantined })
}

/// Keeps other agents away from the directory for as long as the file is open.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(path)),
        Err(error) => Err(OpenError::Io { path, source: error.into() }),
    }
}

/// The generations in the directory, oldest first.
fn generations(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let generation = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".journal"))
            .and_then(|digits| digits.parse().ok());
        found.extend(generation.map(|generation| (generation, path)));
    }
    found.sort();
    Ok(found)
}

/// What a file holds, or why it cannot be trusted and what was before the damage.
fn judge(generation: u64, bytes: &[u8]) -> Result<Parsed, (String, Vec<Vec<u8>>)> {
    let parsed = frame::parse(bytes).map_err(|reason| (reason, Vec::new()))?;
    if parsed.header.generation != generation {
        return Err((format!("its header says generation {}", parsed.header.generation), parsed.records));
    }
    match &parsed.verdict {
        Verdict::Clean | Verdict::Torn => Ok(parsed),
        Verdict::Corrupt(reason) => Err((reason.clone(), parsed.records)),
    }
}

/// Opens a good file for writing, without the torn batch it may end in.
fn reopen(path: &Path, parsed: &Parsed) -> io::Result<File> {
    let file = OpenOptions::new().write(true).open(path)?;
    match &parsed.verdict {
        Verdict::Clean => {}
        Verdict::Torn | Verdict::Corrupt(_) => {
            file.set_len(parsed.next.at)?;
            file.sync_all()?;
        }
    }
    Ok(file)
}

fn decode(path: &Path, records: &[Vec<u8>]) -> Result<Vec<Record>, OpenError> {
    records
        .iter()
        .map(|record| Record::decode(record))
        .collect::<Result<_, _>>()
        .map_err(|error| OpenError::Foreign { path: path.to_owned(), what: error.to_string() })
}

/// Renames all generations, the newest of which is damaged. Gives back the new name of that one.
fn put_aside(dir: &Path, generations: &[(u64, PathBuf)]) -> io::Result<PathBuf> {
    let mut newest = PathBuf::new();
    for (generation, path) in generations {
        newest = (0..)
            .map(|copy| dir.join(format!("{generation:08}.quarantined-{copy}")))
            .find(|free| !free.exists())
            .unwrap_or_default();
        std::fs::rename(path, &newest)?;
    }
    disk::sync_dir(dir)?;
    Ok(newest)
}

/// Files that were put aside and are still there.
fn quarantined(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_string_lossy().contains(".quarantined-") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn fresh_name() -> io::Result<String> {
    use std::fmt::Write as _;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(random.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    }))
}
