//! What a step wrote: its head and its tail, and how much lay between.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes kept from the beginning.
pub const HEAD: usize = 16 * 1024;
/// Bytes kept from the end.
pub const TAIL: usize = 48 * 1024;

/// Which of its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// The head and the tail of an output, never more than [`HEAD`] + [`TAIL`] bytes.
///
/// Only this type holds output in memory, so no path can keep a gigabyte of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The first bytes.
    #[serde(with = "super::base64_bytes")]
    pub head: Vec<u8>,
    /// The last bytes that are not in `head`.
    #[serde(with = "super::base64_bytes")]
    pub tail: Vec<u8>,
    /// Bytes between the two that are not here.
    pub dropped: u64,
}

impl Kept {
    /// Takes more output.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = HEAD.saturating_sub(self.head.len());
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        if rest.is_empty() {
            return;
        }
        // What cannot stay is not copied: a flood costs no more than its last 48 KiB.
        let useless = rest.len().saturating_sub(TAIL);
        self.dropped += useless as u64;
        self.tail.extend_from_slice(&rest[useless..]);
        let excess = self.tail.len().saturating_sub(TAIL);
        // Twice the tail before moving it, so that many small writes do not each move 48 KiB.
        if excess >= TAIL {
            self.drain(excess);
        }
    }

    /// Says that no more comes.
    pub fn finish(&mut self) {
        let excess = self.tail.len().saturating_sub(TAIL);
        self.drain(excess);
    }

    fn drain(&mut self, excess: usize) {
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    /// All that was written, if all was kept.
    pub fn whole(&self) -> Option<Vec<u8>> {
        (self.dropped == 0).then(|| [self.head.as_slice(), &self.tail].concat())
    }

    /// How many bytes the step wrote.
    pub fn written(&self) -> u64 {
        self.head.len() as u64 + self.dropped + self.tail.len() as u64
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped == 0 {
            let whole = [self.head.as_slice(), &self.tail].concat();
            return f.write_str(&String::from_utf8_lossy(&whole));
        }
        f.write_str(&String::from_utf8_lossy(&self.head))?;
        write!(f, "\n[{} bytes not shown]\n", self.dropped)?;
        f.write_str(&String::from_utf8_lossy(&self.tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn head_tail_and_count_are_right_however_the_output_is_cut(
            pieces in prop::collection::vec(0usize..40_000, 0..12),
        ) {
            let all: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
            let mut kept = Kept::default();
            let mut rest = all.as_slice();
            for piece in pieces {
                let (now, later) = rest.split_at(piece);
                kept.push(now);
                rest = later;
            }
            kept.finish();
            prop_assert_eq!(kept.written(), all.len() as u64);
            prop_assert!(all.starts_with(&kept.head));
            prop_assert!(all.ends_with(&kept.tail));
            prop_assert!(kept.head.len() <= HEAD && kept.tail.len() <= TAIL);
            prop_assert_eq!(kept.dropped > 0, all.len() > HEAD + TAIL);
        }
    }

    #[test]
    fn what_is_missing_is_said_in_the_text() {
        let mut kept = Kept::default();
        kept.push(&vec![b'a'; HEAD + TAIL + 7]);
        kept.finish();
        assert!(kept.to_string().contains("[7 bytes not shown]"));
        assert_eq!(kept.whole(), None);
    }
}
