//! Identities. Each is a type of its own, and prints what it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use uuid::Uuid;

/// Serialised as the text it prints, read back by the parser people's text goes through.
macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {what}: expected `{prefix}_` and 32 hex digits")]
pub struct NotAnId {
    given: String,
    what: &'static str,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that the caller made (version 7, so that ids sort by time).
            pub const fn new(uuid: Uuid) -> Self {
                $name(uuid)
            }
        }

        as_text!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(given: &str) -> Result<Self, NotAnId> {
                given
                    .strip_prefix(concat!($prefix, "_"))
                    .filter(|hex| hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map($name)
                    .ok_or_else(|| NotAnId { given: given.to_owned(), what: $what, prefix: $prefix })
            }
        }
    };
}

id!(
    /// One runbook started once, on one or more hosts. Minted by whoever starts it.
    RunId, "run", "a run id"
);
id!(
    /// A point where a run waits for people.
    GateId, "gate", "a gate id"
);
id!(
    /// What the organisation tracks.
    IncidentId, "inc", "an incident id"
);
id!(
    /// One alert as received.
    SignalId, "sig", "a signal id"
);

/// A host's name, which is also its agent's identity: lower-case letters, digits, `-` and `.`, at most 253 characters,
/// beginning and ending with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

/// Text that cannot be a host's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host name: use lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit, at most 253 characters"
)]
pub struct NotAHost(String);

impl Host {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(given: &str) -> Result<Self, NotAHost> {
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = given.as_bytes();
        let good = bytes.len() <= 253
            && edge(bytes.first().copied())
            && edge(bytes.last().copied())
            && bytes.iter().copied().all(inner)
            && !given.contains("..");
        if good { Ok(Host(given.to_owned())) } else { Err(NotAHost(given.chars().take(80).collect())) }
    }
}

as_text!(Host);
as_text!(Digest);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest; prints as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Text or bytes that are not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 hex digits")]
pub struct NotADigest(String);

impl Digest {
    /// Digest of domain-separated bytes: SHA-256 over `fettle`, NUL, the tag, NUL, the version (big-endian u32), the
    /// length (big-endian u64) and the bytes. The tag keeps one kind of object from standing in for another.
    pub fn of(tag: &str, version: u32, bytes: &[u8]) -> Digest {
        Digest(begin(tag, version, bytes.len()).chain_update(bytes).finalize().into())
    }

    /// A digest from the 32 bytes that travel on the wire.
    pub fn from_bytes(bytes: &[u8]) -> Result<Digest, NotADigest> {
        bytes.try_into().map(Digest).map_err(|_| NotADigest(format!("{} bytes", bytes.len())))
    }
}

/// What several things begin with whose digests are wanted, each as [`Digest::of`] the whole. It is hashed once for each length of
/// the whole, for that comes before it.
#[derive(Debug)]
pub struct Beginning<B> {
    tag: &'static str,
    version: u32,
    bytes: B,
    begun: BTreeMap<usize, sha2::Sha256>,
}

impl<B: AsRef<[u8]>> Beginning<B> {
    /// Of things with a tag and a version.
    pub fn new(tag: &'static str, version: u32, bytes: B) -> Beginning<B> {
        Beginning { tag, version, bytes, begun: BTreeMap::new() }
    }

    /// What they begin with.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The digest of the one that ends so.
    pub fn with(&mut self, end: &[u8]) -> Digest {
        let bytes = self.bytes.as_ref();
        let length = bytes.len() + end.len();
        let begun = self
            .begun
            .entry(length)
            .or_insert_with(|| begin(self.tag, self.version, length).chain_update(bytes));
        Digest(begun.clone().chain_update(end).finalize().into())
    }
}

/// What is hashed before the bytes.
fn begin(tag: &str, version: u32, length: usize) -> sha2::Sha256 {
    sha2::Sha256::new()
        .chain_update(b"fettle\0")
        .chain_update(tag)
        .chain_update(b"\0")
        .chain_update(version.to_be_bytes())
        .chain_update((length as u64).to_be_bytes())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(given: &str) -> Result<Self, NotADigest> {
        let bad = || NotADigest(given.chars().take(80).collect());
        let hex = given.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        if hex.len() != 64 {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(bad)?;
        }
        Ok(Digest(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_things_begin_with_is_hashed_once_for_each_length_of_the_whole() {
        let mut beginning = Beginning::new("order", 1, b"shared ");
        for end in ["web-1", "web-2", "web-10", "", "web-3"] {
            let whole = format!("shared {end}");
            assert_eq!(beginning.with(end.as_bytes()), Digest::of("order", 1, whole.as_bytes()), "{whole}");
        }
        assert_eq!(beginning.begun.len(), 3);
    }
}
