//! A log that is a file, from its newest line backwards.
//!
//! A line is as old as the stamp it begins with; one without a stamp belongs to the stamped one before it. Reading ends well
//! before what is too old, and only where times do not rise: lines of several writers are not quite in order, and a
//! stranger who gets an old date to the beginning of lines should not hide what stands above them.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::allowed::{self, Log};
use super::stamps::{self, Stamp, Zone};
use super::{Ask, Hits, MOST_BYTES, MOST_OF_A_LINE, TOO_SLOW, too_much};

/// So many old lines after one another, and what is above them is old.
const OLD_ENOUGH: u32 = 200;
/// How much later than one below it a line may be: requests have the time when they began, and are written when they end.
const DISORDER_MS: i64 = 10 * 60 * 1000;
/// What is read at first.
const BLOCK: u64 = 64 * 1024;
/// What has no stamp so far has none.
const UNSTAMPED: u64 = 1024 * 1024;
/// Endings of what cannot be read as it is.
const PACKED: [&str; 5] = ["gz", "xz", "zst", "bz2", "lz4"];

pub(super) fn read(path: &Path, ask: &Ask, state: &Path) -> Result<Hits, String> {
    let log = allowed::open(path, state)?.ok_or("there is no such file")?;
    let mut sieve =
        Sieve { ask, hits: Hits::default(), pending: Hits::default(), old: Old::default(), stamped: false };
    let mut left = MOST_BYTES;
    let mut read = vec![log.identity()];
    if sieve.sift(log, &mut left)?.is_break() {
        return Ok(sieve.hits);
    }
    // All of it is recent: it was rotated not long ago.
    for before in rotated(path, ask)? {
        let of_it = |why: String| format!("{}: {why}", before.display());
        if PACKED.iter().any(|kind| before.extension().is_some_and(|ending| ending == *kind)) {
            return Err(of_it("it has lines of that time and is compressed: ask for a shorter time".into()));
        }
        let Some(log) = allowed::open(&before, state).map_err(of_it)? else { continue };
        if read.contains(&log.identity()) {
            continue;
        }
        read.push(log.identity());
        if sieve.sift(log, &mut left).map_err(of_it)?.is_break() {
            break;
        }
    }
    // What stands above the first stamp may be as recent.
    sieve.hits.older(sieve.pending);
    Ok(sieve.hits)
}

/// What a log was rotated into and was written to since, the newest first: `….1`, `….2.gz`, `…-20261121`.
fn rotated(path: &Path, ask: &Ask) -> Result<Vec<PathBuf>, String> {
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    let (Some(dir), Some(name)) = (real.parent(), real.file_name()) else { return Ok(Vec::new()) };
    let unknown = |error| format!("{}: what it was rotated into cannot be told: {error}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unknown)? {
        if Instant::now() > ask.deadline {
            return Err(TOO_SLOW.into());
        }
        let entry = entry.map_err(unknown)?;
        let called = entry.file_name();
        let Some(rest) = called.as_bytes().strip_prefix(name.as_bytes()) else { continue };
        if !matches!(rest, [b'.' | b'-', b'0'..=b'9', ..] | b".old") {
            continue;
        }
        match std::fs::metadata(entry.path()) {
            Ok(meta) if mtime_ms(&meta) >= ask.from_ms => found.push((mtime_ms(&meta), entry.path())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", entry.path().display())),
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn mtime_ms(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1000).saturating_add(meta.mtime_nsec() / 1_000_000)
}

/// What has been seen of a log, newest first.
struct Sieve<'a> {
    ask: &'a Ask,
    hits: Hits,
    /// Of lines that wait for the stamp above them.
    pending: Hits,
    old: Old,
    stamped: bool,
}

/// Old lines after one another, from the newest on.
#[derive(Default)]
struct Old {
    count: u32,
    oldest: i64,
}

impl Old {
    /// Takes one more; whether what is above it is old, too.
    fn take(&mut self, stamp: i64) -> bool {
        if self.count == 0 || stamp > self.oldest.saturating_add(DISORDER_MS) {
            *self = Old { count: 0, oldest: stamp };
        }
        self.count += 1;
        self.oldest = self.oldest.min(stamp);
        self.count >= OLD_ENOUGH
    }
}

impl Sieve<'_> {
    /// Goes through a file. It goes on where the one before may say more.
    fn sift(&mut self, log: Log, left: &mut u64) -> Result<ControlFlow<()>, String> {
        let mtime_ms = mtime_ms(&log.meta);
        if mtime_ms < self.ask.from_ms {
            return Ok(Break(()));
        }
        let mut zone = None;
        self.stamped = false;
        let mut lines =
            Backwards { file: log.file, at: log.meta.len(), text: Vec::new(), end: 0, fresh: true, left };
        let mut number = 0u32;
        loop {
            number += 1;
            if number.is_multiple_of(256) && Instant::now() > self.ask.deadline {
                return Err(TOO_SLOW.into());
            }
            let line = match lines.next()? {
                Line::Text(line) => String::from_utf8_lossy(&line[..line.len().min(MOST_OF_A_LINE)]),
                Line::TooMuch => return Err(too_much("and more is as recent")),
                Line::Begin if self.stamped || log.meta.len() == 0 => break,
                Line::Begin => return Err(NO_STAMPS.into()),
            };
            let stamp = stamps::of(&line).map(|stamp| when(stamp, &mut zone, mtime_ms, self.ask.now_ms));
            if self.line(&line, stamp).is_break() {
                return Ok(Break(()));
            }
            if !self.stamped && log.meta.len() - lines.at > UNSTAMPED {
                return Err(NO_STAMPS.into());
            }
        }
        Ok(if self.old.count > 0 { Break(()) } else { Continue(()) })
    }

    fn line(&mut self, line: &str, stamp: Option<i64>) -> ControlFlow<()> {
        self.pending.take(line, self.ask);
        let Some(stamp) = stamp else { return Continue(()) };
        self.stamped = true;
        let pending = std::mem::take(&mut self.pending);
        if stamp < self.ask.from_ms {
            return if self.old.take(stamp) { Break(()) } else { Continue(()) };
        }
        self.old = Old::default();
        self.hits.older(pending);
        if self.hits.decide(self.ask.question) { Break(()) } else { Continue(()) }
    }
}

const NO_STAMPS: &str =
    "its lines do not begin with a time that is known, so nobody can tell how old they are";

/// The time of a stamp. One that names no zone is of this host's zone or of UTC: the one in which the newest line is nearer to
/// when the file was last written.
fn when(stamp: Stamp, zone: &mut Option<Zone>, mtime_ms: i64, now_ms: i64) -> i64 {
    let known = zone.get_or_insert_with(|| {
        let far = |zone: &Zone| stamp.at(zone, now_ms).abs_diff(mtime_ms);
        let local = Zone::local();
        if far(&Zone::utc()) < far(&local) { Zone::utc() } else { local }
    });
    stamp.at(known, now_ms)
}

/// The lines of a file from the last to the first, and of a long one its beginning: a stranger's may be as long as the file.
struct Backwards<'a> {
    file: File,
    /// What is before this has not been read.
    at: u64,
    /// What has been read and not yet told.
    text: Vec<u8>,
    end: usize,
    /// Nothing has been told: a last line that ends is not followed by an empty one.
    fresh: bool,
    left: &'a mut u64,
}

enum Line<'a> {
    Text(&'a [u8]),
    /// There is no line before.
    Begin,
    /// There are lines before, and no more is read.
    TooMuch,
}

impl Backwards<'_> {
    fn next(&mut self) -> Result<Line<'_>, String> {
        loop {
            if self.end > 0 && std::mem::take(&mut self.fresh) && self.text.last() == Some(&b'\n') {
                self.end -= 1;
            }
            let newline = self.text[..self.end].iter().rposition(|byte| *byte == b'\n');
            if let Some(at) = newline {
                let line = at + 1..self.end;
                self.end = at;
                return Ok(Line::Text(&self.text[line]));
            }
            if self.at == 0 && self.end == 0 {
                return Ok(Line::Begin);
            }
            if self.at == 0 {
                let line = ..std::mem::take(&mut self.end);
                return Ok(Line::Text(&self.text[line]));
            }
            if *self.left == 0 {
                return Ok(Line::TooMuch);
            }
            self.more()?;
        }
    }

    /// Reads what is before.
    fn more(&mut self) -> Result<(), String> {
        let size = BLOCK.min(self.at).min(*self.left);
        let mut text = vec![0; size as usize];
        self.file
            .read_exact_at(&mut text, self.at - size)
            .map_err(|error| format!("it changed while it was read: {error}"))?;
        self.at -= size;
        *self.left -= size;
        text.extend_from_slice(&self.text[..self.end.min(MOST_OF_A_LINE)]);
        self.end = text.len();
        self.text = text;
        Ok(())
    }
}
