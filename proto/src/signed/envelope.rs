//! Bytes, and who signed them.
//!
//! The signature is an SSHSIG over the exact bytes, so `ssh-keygen -Y verify` can check each without us. A WebAuthn
//! envelope has its place on the wire from the first day and is refused until there is a verifier for it.

use ssh_key::{HashAlg, LineEnding, SshSig};

use super::keys::{self, PrivateKey, PublicKey};
use crate::refusal::{Code, Refusal};

/// What a signature is for. A signature of one namespace never counts in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Root keys over rosters.
    Roster,
    /// Reviewers over runbooks' certificates.
    Runbook,
    /// Persons over login challenges.
    Login,
    /// Persons over starts.
    Start,
    /// Persons over approvals and denials.
    Approval,
}

impl Namespace {
    /// As `ssh-keygen -n` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Namespace::Roster => "roster@fettle",
            Namespace::Runbook => "runbook@fettle",
            Namespace::Login => "login@fettle",
            Namespace::Start => "start@fettle",
            Namespace::Approval => "approval@fettle",
        }
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes somebody signed, verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Verified before they are parsed, never encoded again.
    pub bytes: Vec<u8>,
    /// The signature.
    pub envelope: Envelope,
}

/// How they were signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// An armored SSHSIG.
    SshSig(String),
    /// A WebAuthn assertion; refused by every verifier today.
    WebAuthn(Vec<u8>),
}

/// The longest armored signature anyone will read, in bytes.
const LONGEST: usize = 16 * 1024;

/// The key could not sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Nothing it signs would count.
    #[error("the key may not sign")]
    NotAllowed {
        /// Why.
        source: Refusal,
    },
    /// The library failed.
    #[error("failed to sign")]
    Failed {
        /// Why.
        source: ssh_key::Error,
    },
}

/// Signs bytes with a private key.
pub fn sign(key: &PrivateKey, namespace: Namespace, bytes: &[u8]) -> Result<Signed, SignError> {
    key.public().allowed().map_err(|source| SignError::NotAllowed { source })?;
    let armored = key
        .inner()
        .sign(namespace.as_str(), HashAlg::Sha512, bytes)
        .and_then(|signature| signature.to_pem(LineEnding::LF))
        .map_err(|source| SignError::Failed { source })?;
    Ok(Signed { bytes: bytes.to_vec(), envelope: Envelope::SshSig(armored) })
}

/// What a signer elsewhere (ssh-agent) must sign so that [`assemble`] can make a [`Signed`] of it.
pub fn to_be_signed(namespace: Namespace, bytes: &[u8]) -> Result<Vec<u8>, SignError> {
    SshSig::signed_data(namespace.as_str(), HashAlg::Sha512, bytes)
        .map_err(|source| SignError::Failed { source })
}

/// Makes a [`Signed`] of bytes and the signature blob (algorithm, signature) that a signer elsewhere gave, and checks it.
pub fn assemble(
    key: &PublicKey,
    namespace: Namespace,
    bytes: &[u8],
    blob: &[u8],
) -> Result<Signed, SignError> {
    key.allowed().map_err(|source| SignError::NotAllowed { source })?;
    let armored = ssh_key::Signature::try_from(blob)
        .and_then(|signature| SshSig::new(key.data().clone(), namespace.as_str(), HashAlg::Sha512, signature))
        .and_then(|signature| signature.to_pem(LineEnding::LF))
        .map_err(|source| SignError::Failed { source })?;
    let signed = Signed { bytes: bytes.to_vec(), envelope: Envelope::SshSig(armored) };
    signer(&signed, namespace).map_err(|source| SignError::NotAllowed { source })?;
    Ok(signed)
}

/// The key that signed, whoever it belongs to: the signature is whole, of this namespace, by an accepted algorithm.
pub fn signer(signed: &Signed, namespace: Namespace) -> Result<PublicKey, Refusal> {
    let armored = match &signed.envelope {
        Envelope::SshSig(armored) => armored,
        Envelope::WebAuthn(_) => {
            return Err(Refusal::new(Code::SignatureKind, "a WebAuthn signature is not accepted here"));
        }
    };
    let invalid = |why: String| Refusal::new(Code::SignatureInvalid, why);
    if armored.len() > LONGEST {
        return Err(invalid(format!("the signature is {} bytes long", armored.len())));
    }
    let signature = SshSig::from_pem(armored).map_err(|error| invalid(format!("not an SSHSIG: {error}")))?;
    keys::allowed(signature.public_key())?;
    if signature.namespace() != namespace.as_str() {
        return Err(invalid(format!(
            "the signature is for `{}`, not for `{namespace}`",
            signature.namespace().chars().take(40).collect::<String>().escape_debug()
        )));
    }
    let key = ssh_key::PublicKey::new(signature.public_key().clone(), "");
    key.verify(namespace.as_str(), &signed.bytes, &signature)
        .map_err(|_| invalid("the signature is not of these bytes".to_owned()))?;
    PublicKey::from_blob(&key.to_bytes().unwrap_or_default()).map_err(|error| invalid(error.to_string()))
}

/// Checks a signature against the keys that may have made it, and says which did.
pub fn verify<'k>(
    signed: &Signed,
    namespace: Namespace,
    keys: &'k [PublicKey],
) -> Result<&'k PublicKey, Refusal> {
    let signer = signer(signed, namespace)?;
    keys.iter().find(|key| **key == signer).ok_or_else(|| {
        Refusal::new(
            Code::KeyUnknown,
            format!("the key {} is none of those that may sign this", signer.fingerprint()),
        )
    })
}
