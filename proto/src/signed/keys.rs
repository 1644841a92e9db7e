//! The keys of persons.
//!
//! Two algorithms are accepted, Ed25519 and ECDSA on P-256. A key of another kind may stand in a roster without making
//! it unreadable, but nothing it signs counts.

use std::fmt;

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg};

use crate::refusal::{Code, Refusal};

/// A public key, as one line of OpenSSH.
#[derive(Clone)]
pub struct PublicKey {
    key: ssh_key::PublicKey,
}

/// Text or bytes that are no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error("`{given}` is not an OpenSSH public key")]
    Public {
        /// The beginning of the text.
        given: String,
        /// Why.
        source: ssh_key::Error,
    },
    /// Not a private key.
    #[error("this is not an OpenSSH private key")]
    Private {
        /// Why.
        source: ssh_key::Error,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open the key")]
    Passphrase {
        /// Why.
        source: ssh_key::Error,
    },
}

impl PublicKey {
    /// Reads one line of OpenSSH: algorithm, base64, comment.
    pub fn parse(line: &str) -> Result<PublicKey, KeyError> {
        let bad = |source| KeyError::Public { given: line.chars().take(40).collect(), source };
        let key = ssh_key::PublicKey::from_openssh(line.trim()).map(|key| PublicKey { key }).map_err(bad)?;
        // The library overlooks a wrong length within; a key has one spelling here.
        let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
        if words(line) == words(&key.line()) { Ok(key) } else { Err(bad(ssh_key::Error::FormatEncoding)) }
    }

    /// A key in the encoding that travels between ssh-agent and its clients.
    pub fn from_blob(blob: &[u8]) -> Result<PublicKey, KeyError> {
        ssh_key::PublicKey::from_bytes(blob)
            .map(|key| PublicKey { key })
            .map_err(|source| KeyError::Public { given: format!("{} bytes", blob.len()), source })
    }

    /// The encoding that travels between ssh-agent and its clients.
    pub fn to_blob(&self) -> Vec<u8> {
        self.key.to_bytes().unwrap_or_default()
    }

    /// Algorithm and base64, without the comment: the form that is compared and written into rosters.
    pub fn line(&self) -> String {
        let mut bare = self.key.clone();
        bare.set_comment("");
        bare.to_openssh().unwrap_or_default().trim_end().to_owned()
    }

    /// What people compare: `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, …
    pub fn algorithm(&self) -> String {
        self.key.algorithm().to_string()
    }

    /// The comment of the line it was read from.
    pub fn comment(&self) -> &str {
        self.key.comment()
    }

    /// Whether signatures of this key may count.
    pub fn allowed(&self) -> Result<(), Refusal> {
        allowed(self.key.key_data())
    }

    pub(crate) fn data(&self) -> &KeyData {
        self.key.key_data()
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum that grows: what it gains is not accepted"
)]
pub(crate) fn allowed(key: &KeyData) -> Result<(), Refusal> {
    let algorithm = key.algorithm();
    match &algorithm {
        Algorithm::Ed25519 | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 } => Ok(()),
        Algorithm::Dsa => Err(Refusal::new(Code::KeyWeak, "a DSA key is too weak")),
        Algorithm::Rsa { .. } => match key.rsa().map(|rsa| bits(rsa.n.as_bytes())) {
            Some(bits) if bits < 3072 => {
                Err(Refusal::new(Code::KeyWeak, format!("an RSA key of {bits} bits is too weak")))
            }
            Some(_) | None => Err(not_allowed(&algorithm)),
        },
        other => Err(not_allowed(other)),
    }
}

fn bits(big_endian: &[u8]) -> usize {
    match big_endian.iter().position(|byte| *byte != 0) {
        Some(first) => (big_endian.len() - first) * 8 - big_endian[first].leading_zeros() as usize,
        None => 0,
    }
}

fn not_allowed(algorithm: &Algorithm) -> Refusal {
    Refusal::new(
        Code::KeyNotAllowed,
        format!("keys of algorithm `{algorithm}` are not accepted: use ssh-ed25519 or ecdsa-sha2-nistp256"),
    )
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.data() == other.data() // The comment is no part of a key.
    }
}

impl Eq for PublicKey {}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

/// A private key that can sign.
#[derive(Clone)]
pub struct PrivateKey {
    key: ssh_key::PrivateKey,
}

impl PrivateKey {
    /// Reads the text of an OpenSSH private key file. It may still be encrypted.
    pub fn parse(text: &str) -> Result<PrivateKey, KeyError> {
        ssh_key::PrivateKey::from_openssh(text)
            .map(|key| PrivateKey { key })
            .map_err(|source| KeyError::Private { source })
    }

    /// A fresh Ed25519 key from 32 random bytes that the caller drew.
    pub fn from_seed(seed: [u8; 32], comment: &str) -> PrivateKey {
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
        let mut key = ssh_key::PrivateKey::from(pair);
        key.set_comment(comment);
        PrivateKey { key }
    }

    /// Whether a passphrase is needed first.
    pub fn is_encrypted(&self) -> bool {
        self.key.is_encrypted()
    }

    /// Opens it.
    pub fn decrypt(&self, passphrase: &str) -> Result<PrivateKey, KeyError> {
        self.key
            .decrypt(passphrase)
            .map(|key| PrivateKey { key })
            .map_err(|source| KeyError::Passphrase { source })
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { key: self.key.public_key().clone() }
    }

    /// The text of an OpenSSH private key file, unencrypted.
    pub fn to_openssh(&self) -> Result<String, KeyError> {
        self.key
            .to_openssh(ssh_key::LineEnding::LF)
            .map(|text| text.to_string())
            .map_err(|source| KeyError::Private { source })
    }

    pub(crate) fn inner(&self) -> &ssh_key::PrivateKey {
        &self.key
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public())
    }
}
