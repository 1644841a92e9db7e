//! One host's plan as a leaf of the tree that people approve.

use fettle_runbooks::id::{Digest, Host};

use super::json::{Malformed, Members, Writer};
use crate::merkle;

/// Format `leaf/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The host, which is its agent's identity.
    pub agent: Host,
    /// Of the plan's exact bytes.
    pub plan: Digest,
    /// The plan's nonce, hex: drawn by the host, used once.
    pub nonce: String,
}

impl Leaf {
    const FORMAT: &'static str = "leaf/1";

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::format(Self::FORMAT)
            .text("agent", &self.agent)
            .text("plan", self.plan)
            .text("nonce", &self.nonce)
            .end()
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Leaf, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let leaf = Leaf {
            agent: members.parsed("agent")?,
            plan: members.parsed("plan")?,
            nonce: members.text("nonce")?,
        };
        members.end()?;
        Ok(leaf)
    }

    /// The hash that stands in the tree.
    pub fn hash(&self) -> merkle::Hash {
        merkle::leaf(&self.encode())
    }
}
