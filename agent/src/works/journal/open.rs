//! Finding the journal, reading it, and putting damaged files aside.

use std::any::Any;

use super::frame::{self, Parsed, Verdict};
use super::writer::{self, Files};
use super::*;
use crate::crash::{self, crash_point};
use crate::works::ballast::is_full;
use crate::works::disk::DiskFile;

/// In the name of a file that was put aside: why.
const DAMAGED: &str = "quarantined";
pub(super) const EARLIER: &str = "put-back";

/// Opens the journal in `dir`, or creates it.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    world: &dyn World,
    dir: &Path,
) -> Result<(Opened, Writer), OpenError> {
    let on = &**disk;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    on.make_dir(dir).map_err(io(dir))?;
    let lock = lock(on, dir)?;
    let generations = generations(on, dir).map_err(io(dir))?;
    let mut damage = None;
    let mut live = None;
    if let Some((generation, path)) = generations.last() {
        let bytes = on.read(path).map_err(io(path))?;
        match judge(*generation, &bytes) {
            Ok(parsed) => live = Some((path, bytes, parsed)),
            Err((reason, before)) => {
                let before = before.iter().map_while(|record| Record::decode(record).ok()).collect();
                let file = put_aside(on, dir, &generations, DAMAGED).map_err(io(path))?;
                damage = Some(Damage { file, reason, before });
            }
        }
    }
    let (header, next, file, records) = match live {
        Some((path, bytes, parsed)) => {
            let file = reopen(on, path, &bytes, &parsed).map_err(io(path))?;
            let records = decode(path, &parsed.records)?;
            (parsed.header, parsed.next, file, records)
        }
        None => {
            let name = fresh_name(world).map_err(io(dir))?;
            let generation = generations.last().map_or(1, |(generation, _)| generation + 1);
            let (header, bytes, next) = writer::snapshot(generation, &name, &[]);
            let file = writer::create(on, dir, generation, &bytes, &crash::CREATED).map_err(io(dir))?;
            (header, next, file, Vec::new())
        }
    };
    // Its name may not be durable, nor may the directory's own.
    on.sync_dir(dir).map_err(io(dir))?;
    dir.parent().map_or(Ok(()), |parent| on.sync_dir(parent)).map_err(io(dir))?;
    for (generation, path) in &generations {
        if damage.is_none() && *generation < header.generation {
            on.remove(path).map_err(io(path))?;
        }
    }
    let name = header.name.as_str().into();
    let reserved = file.size().map_err(io(dir))?;
    let files = Files {
        disk: Arc::clone(disk),
        dir: dir.to_owned(),
        file,
        generation: header.generation,
        reserved,
        _lock: lock,
    };
    let (handle, writer) = writer::new(header, next, Box::new(files));
    let quarantined = quarantined(on, dir).map_err(io(dir))?;
    Ok((Opened { journal: Journal { name, writer: handle }, records, damage, quarantined }, writer))
}

/// Keeps other agents away from the directory until it is dropped.
fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Any + Send>, OpenError> {
    let path = dir.join("lock");
    match disk.lock(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(OpenError::InUse(path)),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// The generations in the directory, oldest first.
fn generations(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let generation = |name: &String| name.strip_suffix(".journal")?.parse().ok();
    let names = disk.names(dir)?;
    let mut found: Vec<_> =
        names.iter().filter_map(|name| Some((generation(name)?, dir.join(name)))).collect();
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
///
/// What was read is acted upon, so it must be durable. Of the last batch only memory may know: its fsync never came, or
/// failed, after which the kernel takes its pages for written. So it is written again.
fn reopen(disk: &dyn Disk, path: &Path, bytes: &[u8], parsed: &Parsed) -> io::Result<Box<dyn DiskFile>> {
    let mut file = disk.open(path)?;
    let torn = match &parsed.verdict {
        Verdict::Clean => false,
        Verdict::Torn | Verdict::Corrupt(_) => true,
    };
    if torn {
        file.set_size(parsed.next.at)?;
        crash_point("journal.cut.unsynced");
    }
    let last = bytes.get(parsed.last as usize..parsed.next.at as usize).unwrap_or_default();
    match file.write_at(last, parsed.last) {
        // Where even writing the same again needs space, an agent that waits for it is better than none.
        Err(error) if is_full(&error) => {}
        written => written?,
    }
    file.sync()?;
    if torn {
        crash_point("journal.cut.durable");
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

/// Puts the journal of a disk aside that is whole, but not the last that this host wrote. Gives back its new name.
pub(super) fn put_earlier_aside(disk: &dyn Disk, dir: &Path) -> io::Result<PathBuf> {
    put_aside(disk, dir, &generations(disk, dir)?, EARLIER)
}

/// Renames all generations, the newest of which cannot be gone on with. Gives back the new name of that one.
fn put_aside(disk: &dyn Disk, dir: &Path, generations: &[(u64, PathBuf)], why: &str) -> io::Result<PathBuf> {
    let taken = disk.names(dir)?;
    let mut newest = PathBuf::new();
    for (generation, path) in generations {
        let free = (0..)
            .map(|copy| format!("{generation:08}.{why}-{copy}"))
            .find(|name| !taken.contains(name))
            .unwrap_or_default();
        newest = dir.join(free);
        disk.rename(path, &newest)?;
    }
    crash_point("journal.aside.undurable");
    disk.sync_dir(dir)?;
    crash_point("journal.aside.durable");
    Ok(newest)
}

/// Files that were put aside and are still there.
fn quarantined(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = disk
        .names(dir)?
        .iter()
        .filter(|name| [DAMAGED, EARLIER].iter().any(|why| name.contains(&format!(".{why}-"))))
        .map(|name| dir.join(name))
        .collect();
    found.sort();
    Ok(found)
}

fn fresh_name(world: &dyn World) -> io::Result<String> {
    let mut random = [0; 16];
    world.random(&mut random)?;
    Ok(fettle_proto::signed::words::hex(&random))
}
