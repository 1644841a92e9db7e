//! Who this host is: its name, key and certificate, whom it believes, and where its controller is.
//!
//! Written whole by `join` (aside, then renamed) and read at every connection; `renew` replaces the certificate alone.
//! The key was made here and never leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fettle_proto::signed::{Malformed, Trust};
use fettle_runbooks::id::Host;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::crash::{RENEWAL, crash_point};
use crate::link::connect::{Controller, NotAController};

/// The folder below the state folder.
const FOLDER: &str = "identity";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const TRUST: &str = "trust.json";
const HOST: &str = "host.json";
/// Before a host's name in the URI of its certificate.
const URI: &str = "spiffe://fettle/host/";

/// What a joined host has.
#[derive(Debug)]
pub struct Identity {
    /// Its name.
    pub host: Host,
    /// Where its controller is.
    pub controller: Controller,
    /// The labels its token was bound to.
    pub labels: BTreeMap<String, String>,
    /// Whom it believes.
    pub trust: Trust,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// When the certificate begins and ends.
    pub valid: (SystemTime, SystemTime),
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody has joined this host yet.
    #[error(
        "find this host's identity in {}: join it first, with `fettle-agent join --controller URL --root sha256:…`",
        path.display()
    )]
    NotJoined {
        /// The folder that is not there.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("understand {}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The trust bundle does not hold what it should.
    #[error("understand {}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Malformed,
    },
    /// The controller's address.
    #[error("understand {}", path.display())]
    Controller {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NotAController,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFile {
    host: String,
    controller: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Identity {
    /// Reads the identity below a state folder.
    pub fn load(state: &Path) -> Result<Identity, IdentityError> {
        let dir = folder(state);
        if !dir.exists() {
            return Err(IdentityError::NotJoined { path: dir });
        }
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|source| IdentityError::Read { path, source })
        };
        let damaged = |name: &str, why: String| IdentityError::Damaged { path: dir.join(name), why };

        let file: HostFile =
            serde_json::from_slice(&read(HOST)?).map_err(|error| damaged(HOST, error.to_string()))?;
        let trust = Trust::decode(&read(TRUST)?)
            .map_err(|source| IdentityError::Trust { path: dir.join(TRUST), source })?;
        let certificate = CertificateDer::from_pem_slice(&read(CERTIFICATE)?)
            .map_err(|error| damaged(CERTIFICATE, error.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_slice(&read(KEY)?).map_err(|error| damaged(KEY, error.to_string()))?;
        let valid =
            validity(&certificate).ok_or_else(|| damaged(CERTIFICATE, "it is no certificate".into()))?;
        let host: Host = file.host.parse().map_err(|error| damaged(HOST, format!("{error}")))?;
        if !names(&certificate, &host) {
            let why = format!("the certificate is not that of {host}, as which this host joined");
            return Err(damaged(CERTIFICATE, why));
        }
        Ok(Identity {
            host,
            controller: file
                .controller
                .parse()
                .map_err(|source| IdentityError::Controller { path: dir.join(HOST), source })?,
            labels: file.labels,
            trust,
            certificate,
            key,
            valid,
        })
    }

    /// When to ask for the next certificate: at two thirds of this one's life.
    pub fn renew_at(&self) -> SystemTime {
        let (begin, end) = self.valid;
        begin + end.duration_since(begin).unwrap_or_default() * 2 / 3
    }
}

/// Where the identity is, below a state folder.
pub fn folder(state: &Path) -> PathBuf {
    state.join(FOLDER)
}

/// The whole identity of a host that just joined.
pub(crate) struct Joined<'a> {
    pub(crate) host: &'a Host,
    pub(crate) controller: &'a Controller,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) trust: &'a [u8],
    pub(crate) certificate: &'a CertificateDer<'static>,
}

/// A key that waits for its certificate. Joining again after a failure uses the same one.
pub(crate) struct Pending {
    dir: PathBuf,
    pub(crate) key_pem: String,
}

impl Pending {
    /// Opens what an earlier attempt left, or makes a key.
    pub(crate) fn open(state: &Path, make: impl FnOnce() -> String) -> Result<Pending, IdentityError> {
        let dir = state.join(format!("{FOLDER}.pending"));
        let wrote = |source| IdentityError::Write { path: dir.clone(), source };
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir).map_err(wrote)?;
        let path = dir.join(KEY);
        match fs::read_to_string(&path) {
            Ok(key_pem) if key_pem.contains("-----END PRIVATE KEY-----") => {
                return Ok(Pending { dir, key_pem });
            }
            Ok(_) => fs::remove_file(&path).map_err(wrote)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(IdentityError::Read { path, source }),
        }
        let key_pem = make();
        write_at(&path, key_pem.as_bytes(), "join.key-unsynced")?;
        // Its names, too: a token that was spent for this key is of no use to another.
        sync(&dir).and_then(|()| sync(state)).map_err(wrote)?;
        crash_point("join.key-durable");
        Ok(Pending { dir, key_pem })
    }

    /// Puts everything in place at once.
    pub(crate) fn complete(self, state: &Path, joined: &Joined<'_>) -> Result<(), IdentityError> {
        let file = HostFile {
            host: joined.host.to_string(),
            controller: joined.controller.to_string(),
            labels: joined.labels.clone(),
        };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|error| IdentityError::Damaged { path: self.dir.join(HOST), why: error.to_string() })?;
        write(&self.dir.join(HOST), &text)?;
        write(&self.dir.join(TRUST), joined.trust)?;
        write(&self.dir.join(CERTIFICATE), pem(joined.certificate).as_bytes())?;
        let dir = folder(state);
        let wrote = |source| IdentityError::Write { path: dir.clone(), source };
        sync(&self.dir).map_err(wrote)?;
        crash_point("join.identity-unnamed");
        fs::rename(&self.dir, &dir).map_err(wrote)?;
        crash_point("join.identity-undurable");
        sync(state).map_err(wrote)?;
        crash_point("join.identity-durable");
        Ok(())
    }
}

/// Replaces the certificate by a newer one of the same key.
pub(crate) fn replace_certificate(state: &Path, der: &CertificateDer<'_>) -> Result<(), IdentityError> {
    let path = folder(state).join(CERTIFICATE);
    let aside = path.with_extension("pem.new");
    write_at(&aside, pem(der).as_bytes(), RENEWAL.unsynced)?;
    crash_point(RENEWAL.unnamed);
    let renamed = fs::rename(&aside, &path).and_then(|()| {
        crash_point(RENEWAL.undurable);
        sync(&folder(state))
    });
    renamed.map_err(|source| IdentityError::Write { path, source })?;
    crash_point(RENEWAL.durable);
    Ok(())
}

/// Whether a certificate names this host and no other. Controllers go by that name and hosts by the one they joined
/// with: if the two differed, approvals for one host would be carried out on another.
pub(crate) fn names(der: &CertificateDer<'_>, host: &Host) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return false };
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return false };
    let mut uris = alternative.value.general_names.iter().filter_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else { return None };
        uri.strip_prefix(URI)
    });
    uris.next() == Some(host.as_str()) && uris.next().is_none()
}

/// From when until when a certificate is valid.
pub(crate) fn validity(der: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Some((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    put(path, bytes, || ())
}

/// With a point at which it is written and not durable.
fn write_at(path: &Path, bytes: &[u8], unsynced: &'static str) -> Result<(), IdentityError> {
    put(path, bytes, || crash_point(unsynced))
}

fn put(path: &Path, bytes: &[u8], unsynced: impl FnOnce()) -> Result<(), IdentityError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            unsynced();
            file.sync_all()
        })
        .map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
        params.subject_alt_names = uris.iter().map(uri).collect();
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn a_certificate_names_one_host() {
        let host = "web-1".parse().expect("a name");
        let (web_1, web_2) = ("spiffe://fettle/host/web-1", "spiffe://fettle/host/web-2");
        assert!(names(&certificate(&[web_1]), &host));
        for other in [&[][..], &[web_2], &[web_1, web_2], &["spiffe://fettle/host/web-11"], &["web-1"]] {
            assert!(!names(&certificate(other), &host), "{other:?}");
        }
        assert!(!names(&CertificateDer::from(vec![1, 2, 3]), &host));
    }
}
