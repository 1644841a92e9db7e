//! Messages ⇄ what they mean.
//!
//! A message may lack anything; what is converted from one has everything it needs. Converting back gives the message it
//! came from.

use std::fmt;

use crate::grant::Grant;
use crate::refusal::{Code, Refusal};
use crate::signed::{Envelope, Signed};
use crate::{merkle, v1};

/// A message that lacks something, or has something it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {problem}")]
pub struct Unreadable {
    /// Which message.
    pub message: &'static str,
    /// For people.
    pub problem: String,
}

impl Unreadable {
    /// Why a message cannot be read.
    pub fn new(message: &'static str, problem: impl fmt::Display) -> Unreadable {
        Unreadable { message, problem: problem.to_string() }
    }
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Refusal {
        Refusal::new(Code::Malformed, unreadable.to_string())
    }
}

impl From<Signed> for v1::Signed {
    fn from(signed: Signed) -> v1::Signed {
        let signature = match signed.envelope {
            Envelope::SshSig(armored) => v1::envelope::Signature::Sshsig(armored.into_bytes().into()),
            Envelope::WebAuthn(bytes) => v1::envelope::Signature::Webauthn(bytes.into()),
        };
        v1::Signed { bytes: signed.bytes.into(), envelope: Some(v1::Envelope { signature: Some(signature) }) }
    }
}

impl TryFrom<v1::Signed> for Signed {
    type Error = Unreadable;

    fn try_from(message: v1::Signed) -> Result<Signed, Unreadable> {
        let signature = message
            .envelope
            .and_then(|envelope| envelope.signature)
            .ok_or_else(|| Unreadable::new("Signed", "it carries no signature of a known kind"))?;
        let envelope = match signature {
            v1::envelope::Signature::Sshsig(armored) => Envelope::SshSig(
                String::from_utf8(armored.to_vec())
                    .map_err(|_| Unreadable::new("Signed", "the signature is not text"))?,
            ),
            v1::envelope::Signature::Webauthn(bytes) => Envelope::WebAuthn(bytes.to_vec()),
        };
        Ok(Signed { bytes: message.bytes.to_vec(), envelope })
    }
}

/// Several at once, all or nothing.
pub fn all_signed(messages: Vec<v1::Signed>) -> Result<Vec<Signed>, Unreadable> {
    messages.into_iter().map(Signed::try_from).collect()
}

impl From<Grant> for v1::Grant {
    fn from(grant: Grant) -> v1::Grant {
        v1::Grant {
            request: grant.request.into(),
            approvals: grant.approvals.into_iter().map(v1::Signed::from).collect(),
            leaf_index: grant.leaf_index,
            leaf_count: grant.leaf_count,
            merkle_path: grant.merkle_path.iter().map(|hash| hash.to_vec().into()).collect(),
        }
    }
}

impl TryFrom<v1::Grant> for Grant {
    type Error = Unreadable;

    fn try_from(message: v1::Grant) -> Result<Grant, Unreadable> {
        Ok(Grant {
            request: message.request.to_vec(),
            approvals: all_signed(message.approvals)?,
            leaf_index: message.leaf_index,
            leaf_count: message.leaf_count,
            merkle_path: message
                .merkle_path
                .iter()
                .map(|hash| {
                    merkle::Hash::try_from(hash.as_ref()).map_err(|_| {
                        Unreadable::new("Grant", format!("a Merkle hash of {} bytes", hash.len()))
                    })
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The head and the tail of what a step wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The beginning.
    pub head: Vec<u8>,
    /// The end; empty when nothing was dropped and the beginning is all.
    pub tail: Vec<u8>,
    /// Bytes between them that were not kept.
    pub dropped: u64,
}

impl From<Kept> for v1::Kept {
    fn from(kept: Kept) -> v1::Kept {
        v1::Kept { head: kept.head.into(), tail: kept.tail.into(), dropped: kept.dropped }
    }
}

impl From<v1::Kept> for Kept {
    fn from(message: v1::Kept) -> Kept {
        Kept { head: message.head.to_vec(), tail: message.tail.to_vec(), dropped: message.dropped }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.head))?;
        if self.dropped > 0 {
            writeln!(f, "\n[{} bytes not kept]", self.dropped)?;
        }
        f.write_str(&String::from_utf8_lossy(&self.tail))
    }
}

impl From<Refusal> for v1::Refused {
    fn from(refusal: Refusal) -> v1::Refused {
        v1::Refused { code: refusal.code.as_str().to_owned(), message: refusal.message }
    }
}

/// Reads an id, a digest or a host's name out of a message's text.
pub fn id<T>(message: &'static str, text: &str) -> Result<T, Unreadable>
where
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| Unreadable::new(message, error))
}

/// Reads a digest out of a message's bytes.
pub fn digest(message: &'static str, bytes: &[u8]) -> Result<fettle_runbooks::id::Digest, Unreadable> {
    fettle_runbooks::id::Digest::from_bytes(bytes).map_err(|error| Unreadable::new(message, error))
}
