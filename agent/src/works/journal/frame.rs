//! A journal file as bytes: its header, its batches, and what damage means.
//!
//! ```text
//! header  "fettleJ1"  generation u64  sealed u64  name [32 hex]  crc u32  0 u32
//! batch   "FBAT"  crc u32  generation u64  number u64  previous u32  length u32  count u32  0 u32
//!         count × (length u32, record)          padded to 8 bytes
//! ```
//!
//! Numbers are little-endian. A batch's crc covers everything after it up to the end of its records; `previous` is
//! the crc before it (of the header, for batch 0). `sealed` batches were durable before the file got its name: damage
//! in one of them is never a torn write. After the last batch there are zeros.

/// Bytes of the file's header.
pub(super) const HEADER: usize = 64;
/// Bytes of a batch's header.
const BATCH: usize = 40;
/// The most payload that one batch holds.
pub(super) const LARGEST: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"fettleJ1";
const MARK: &[u8; 4] = b"FBAT";

/// The beginning of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Counts up with every compaction, from 1.
    pub(super) generation: u64,
    /// Batches that were durable before the file had its name.
    pub(super) sealed: u64,
    /// The journal's name, 32 hex digits.
    pub(super) name: String,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..24].copy_from_slice(&self.sealed.to_le_bytes());
        out[24..56].copy_from_slice(self.name.as_bytes());
        let crc = crc32fast::hash(&out[..56]);
        out[56..60].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header, and the checksum that the first batch names as its predecessor's.
    fn decode(file: &[u8]) -> Result<(Header, u32), String> {
        let Some(head) = file.get(..HEADER) else {
            return Err(format!("it has {} bytes, less than a header", file.len()));
        };
        let crc = u32_at(head, 56);
        if crc32fast::hash(&head[..56]) != crc {
            return Err("its header is damaged".into());
        }
        if &head[..8] != MAGIC {
            return Err("it is not a journal of this version".into());
        }
        let name = String::from_utf8_lossy(&head[24..56]).into_owned();
        Ok((Header { generation: u64_at(head, 8), sealed: u64_at(head, 16), name }, crc))
    }
}

/// Where the next batch goes, and what it must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset in the file.
    pub(super) at: u64,
    /// Its number.
    pub(super) number: u64,
    /// The checksum before it.
    pub(super) previous: u32,
}

impl Place {
    /// The place of the first batch after this header.
    pub(super) fn first(header: &Header) -> Place {
        let bytes = header.encode();
        Place { at: HEADER as u64, number: 0, previous: u32_at(&bytes, 56) }
    }
}

/// The bytes of a batch, and the place of the next.
pub(super) fn encode(generation: u64, place: &Place, records: &[Vec<u8>]) -> (Vec<u8>, Place) {
    let length = payload(records);
    let mut out = Vec::with_capacity((BATCH + length).next_multiple_of(8));
    out.extend_from_slice(MARK);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&place.number.to_le_bytes());
    out.extend_from_slice(&place.previous.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&(records.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for record in records {
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(record);
    }
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
    let next = Place { at: place.at + out.len() as u64, number: place.number + 1, previous: crc };
    (out, next)
}

/// Bytes that records take in a batch.
pub(super) fn payload(records: &[Vec<u8>]) -> usize {
    records.iter().map(|record| 4 + record.len()).sum()
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) header: Header,
    /// The records of all batches before the end or the damage.
    pub(super) records: Vec<Vec<u8>>,
    /// Where the last good batch begins; the end of the header when there is none.
    pub(super) last: u64,
    /// Where the next batch goes.
    pub(super) next: Place,
    pub(super) verdict: Verdict,
}

/// What follows the last good batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Zeros, or the end of the file.
    Clean,
    /// A batch that was being written: to be cut off.
    Torn,
    /// Damage in what was durable, and what about it.
    Corrupt(String),
}

/// Reads a whole file. `Err` when not even its header can be trusted.
pub(super) fn parse(file: &[u8]) -> Result<Parsed, String> {
    let (header, _) = Header::decode(file)?;
    let mut next = Place::first(&header);
    let mut last = next.at;
    let mut records = Vec::new();
    let verdict = loop {
        let rest = file.get(next.at as usize..).unwrap_or(&[]);
        match batch(rest, header.generation) {
            Some(found) if found.number == next.number && found.previous == next.previous => {
                records.extend(found.records);
                last = next.at;
                next = Place {
                    at: next.at + found.bytes as u64,
                    number: next.number + 1,
                    previous: found.checksum,
                };
            }
            Some(found) => {
                break Verdict::Corrupt(format!(
                    "batch {} is followed by batch {}, which does not continue it",
                    next.number.wrapping_sub(1),
                    found.number
                ));
            }
            None => break damage(rest, &header, &next),
        }
    };
    Ok(Parsed { header, records, last, next, verdict })
}

/// What it means that there is no good batch here.
fn damage(rest: &[u8], header: &Header, next: &Place) -> Verdict {
    if next.number < header.sealed {
        return Verdict::Corrupt(format!(
            "batch {} of {} sealed ones is damaged",
            next.number, header.sealed
        ));
    }
    if rest.iter().all(|byte| *byte == 0) {
        return Verdict::Clean;
    }
    let later = (8..rest.len())
        .step_by(8)
        .filter(|at| rest[*at..].starts_with(MARK))
        .find_map(|at| batch(&rest[at..], header.generation))
        .filter(|found| found.number > next.number);
    match later {
        Some(later) => Verdict::Corrupt(format!(
            "batch {} is damaged, though batch {} after it is whole",
            next.number, later.number
        )),
        None => Verdict::Torn,
    }
}

struct Batch {
    number: u64,
    previous: u32,
    checksum: u32,
    /// With its padding.
    bytes: usize,
    records: Vec<Vec<u8>>,
}

/// The batch at the beginning of `rest`, if there is a good one.
fn batch(rest: &[u8], generation: u64) -> Option<Batch> {
    let head = rest.get(..BATCH)?;
    let (checksum, length) = (u32_at(head, 4), u32_at(head, 28) as usize);
    if !head.starts_with(MARK) || u64_at(head, 8) != generation || length > LARGEST {
        return None;
    }
    let all = rest.get(..BATCH + length)?;
    if crc32fast::hash(&all[8..]) != checksum {
        return None;
    }
    let mut records = Vec::new();
    let mut payload = &all[BATCH..];
    while !payload.is_empty() {
        let length = u32_at(payload.get(..4)?, 0) as usize;
        records.push(payload.get(4..4 + length)?.to_vec());
        payload = &payload[4 + length..];
    }
    let bytes = all.len().next_multiple_of(8);
    let whole = records.len() == u32_at(head, 32) as usize;
    whole.then_some(Batch { number: u64_at(head, 16), previous: u32_at(head, 24), checksum, bytes, records })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
