//! Reviewers' word that exactly these runbook bytes are fit for production.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fettle_runbooks::id::Digest;
use jiff::Timestamp;

use super::envelope::{Envelope, Namespace, Signed};
use super::json::{Malformed, Members, Writer};
use super::roster::{Roster, Scope, named};
use super::{Tag, digest, words};
use crate::refusal::{Code, Refusal};

/// Format `certificate/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The runbook's name, for people; the digest is what counts.
    pub runbook: String,
    /// Of the exact bytes of the file.
    pub runbook_digest: Digest,
    /// Who wrote it: may neither review it nor approve what it does.
    pub author: String,
    /// Who signs.
    pub reviewer: String,
    /// When.
    pub at: Timestamp,
}

impl Certificate {
    const FORMAT: &'static str = "certificate/1";

    /// Its bytes, to be signed by the reviewer.
    pub fn encode(&self) -> Vec<u8> {
        Writer::format(Self::FORMAT)
            .text("runbook", &self.runbook)
            .text("runbook_digest", self.runbook_digest)
            .text("author", &self.author)
            .text("reviewer", &self.reviewer)
            .text("at", self.at)
            .end()
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Certificate, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let certificate = Certificate {
            runbook: members.text("runbook")?,
            runbook_digest: members.parsed("runbook_digest")?,
            author: words::name(members.text("author")?, "author")?,
            reviewer: words::name(members.text("reviewer")?, "reviewer")?,
            at: words::time(&mut members, "at")?,
        };
        members.end()?;
        Ok(certificate)
    }
}

/// Proof that enough reviewers certified some runbook bytes. Only [`certified`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    digest: Digest,
    author: String,
    reviewers: BTreeSet<String>,
}

impl Certified {
    /// Of which bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Who wrote them, as the reviewers say.
    pub fn author(&self) -> &str {
        &self.author
    }
    /// Who reviewed them.
    pub fn reviewers(&self) -> &BTreeSet<String> {
        &self.reviewers
    }
}

/// Whether the certificates suffice for these bytes under this roster.
///
/// A certificate that does not count (its reviewer has left, it is of older bytes) does no harm as long as enough others
/// do; when too few count, the refusal says what was wrong with the first that did not.
pub fn certified(
    runbook: &[u8],
    certificates: &[Signed],
    roster: &Roster,
    now: Timestamp,
) -> Result<Certified, Refusal> {
    roster.in_force(now)?;
    let digest = digest(Tag::Runbook, runbook);
    let mut reviewers = BTreeSet::new();
    let mut authors = BTreeSet::new();
    let mut first_refusal = None;
    for signed in certificates {
        match counts(signed, digest, roster) {
            Ok(certificate) => {
                reviewers.insert(certificate.reviewer);
                authors.insert(certificate.author);
            }
            Err(refusal) => {
                first_refusal.get_or_insert(refusal);
            }
        }
    }
    if reviewers.len() < roster.reviewers_needed as usize {
        return Err(first_refusal.unwrap_or_else(|| match reviewers.len() {
            0 => Refusal::new(Code::CertificateMissing, "the runbook carries no certificate"),
            few => Refusal::new(
                Code::CertificateQuorum,
                format!("{few} of the {} reviewers needed certified the runbook", roster.reviewers_needed),
            ),
        }));
    }
    let mut authors = authors.into_iter();
    match (authors.next(), authors.next()) {
        (Some(author), None) if !reviewers.iter().any(|name| name.eq_ignore_ascii_case(&author)) => {
            Ok(Certified { digest, author, reviewers })
        }
        (Some(author), None) => Err(self_reviewed(&author)),
        (Some(one), Some(other)) => Err(Refusal::new(
            Code::CertificateAuthors,
            format!("the certificates name `{one}` and `{other}` as the author"),
        )),
        (None, _) => Err(Refusal::new(Code::CertificateMissing, "the runbook carries no certificate")),
    }
}

fn counts(signed: &Signed, digest: Digest, roster: &Roster) -> Result<Certificate, Refusal> {
    let person = roster.signer(signed, Namespace::Runbook, Some(Scope::Review))?;
    let certificate = Certificate::decode(&signed.bytes)?;
    named(person, &certificate.reviewer)?;
    if certificate.runbook_digest != digest {
        return Err(Refusal::new(
            Code::CertificateMismatch,
            format!("the certificate is of {}, the runbook is {digest}", certificate.runbook_digest),
        ));
    }
    if certificate.reviewer.eq_ignore_ascii_case(&certificate.author) {
        return Err(self_reviewed(&certificate.author));
    }
    Ok(certificate)
}

fn self_reviewed(author: &str) -> Refusal {
    Refusal::new(Code::CertificateSelfReviewed, format!("`{author}` is both author and reviewer"))
}

/// The file beside a runbook, `NAME.cert`: the certificates of its bytes. Format `certificates/1`.
pub fn encode_file(certificates: &[Signed]) -> Vec<u8> {
    let entries = certificates.iter().filter_map(|signed| match &signed.envelope {
        Envelope::SshSig(armored) => {
            Some(Writer::object().text("bytes", STANDARD.encode(&signed.bytes)).text("sshsig", armored))
        }
        Envelope::WebAuthn(_) => None,
    });
    Writer::format("certificates/1").objects("certificates", entries).end()
}

/// Reads a `NAME.cert` file; what its certificates are worth is for [`certified`] to say.
pub fn decode_file(bytes: &[u8]) -> Result<Vec<Signed>, Malformed> {
    let mut members = Members::open(bytes.trim_ascii_end(), "certificates/1")?;
    let certificates = members
        .list("certificates")?
        .into_iter()
        .map(|entry| signed_of(Members::of(entry, "certificates")?))
        .collect::<Result<_, _>>()?;
    members.end()?;
    Ok(certificates)
}

/// A file that holds one signed object, such as `roster.json`. Format `signed/1`.
pub fn encode_signed_file(signed: &Signed) -> Option<Vec<u8>> {
    match &signed.envelope {
        Envelope::SshSig(armored) => Some(
            Writer::format("signed/1")
                .text("bytes", STANDARD.encode(&signed.bytes))
                .text("sshsig", armored)
                .end(),
        ),
        Envelope::WebAuthn(_) => None,
    }
}

/// Reads a file that holds one signed object. Nothing is verified yet.
pub fn decode_signed_file(bytes: &[u8]) -> Result<Signed, Malformed> {
    signed_of(Members::open(bytes.trim_ascii_end(), "signed/1")?)
}

fn signed_of(mut members: Members) -> Result<Signed, Malformed> {
    let bytes = STANDARD.decode(members.text("bytes")?).map_err(|error| Malformed::value("bytes", error))?;
    let sshsig = members.text("sshsig")?;
    members.end()?;
    Ok(Signed { bytes, envelope: Envelope::SshSig(sshsig) })
}
