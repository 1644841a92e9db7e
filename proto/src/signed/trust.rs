//! What a host believes from the day it joined: the CA of its controller, and the root keys that sign rosters.
//!
//! Nobody signs it. Its digest is the *root fingerprint* that `fettle-agent join --root` is given out of band.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fettle_runbooks::id::Digest;

use super::json::{Malformed, Members, Writer};
use super::keys::PublicKey;
use super::{Tag, digest};

/// Format `trust/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The CA's certificate, DER.
    pub ca_der: Vec<u8>,
    /// Keys that may sign rosters.
    pub roots: Vec<PublicKey>,
}

impl Trust {
    const FORMAT: &'static str = "trust/1";

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::format(Self::FORMAT)
            .text("ca", STANDARD.encode(&self.ca_der))
            .texts("roots", self.roots.iter().map(PublicKey::line))
            .end()
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Trust, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let ca_der = STANDARD.decode(members.text("ca")?).map_err(|error| Malformed::value("ca", error))?;
        let roots = members
            .texts("roots")?
            .iter()
            .map(|line| PublicKey::parse(line).map_err(|error| Malformed::value("roots", error)))
            .collect::<Result<Vec<_>, _>>()?;
        members.end()?;
        if roots.is_empty() {
            return Err(Malformed::value("roots", "expected at least one key"));
        }
        Ok(Trust { ca_der, roots })
    }

    /// The root fingerprint of these bytes.
    pub fn fingerprint(bytes: &[u8]) -> Digest {
        digest(Tag::Trust, bytes)
    }
}
