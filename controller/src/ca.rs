//! The embedded certificate authority: who is whom on the gRPC port.
//!
//! The root is made at the first start and its key never leaves the data directory. The server's own key exists in
//! memory alone: each start makes a new one, because peers pin the root and not the leaf. From an agent's request
//! only the public key is used; every name, usage and date in its certificate is ours.
//!
//! A certificate's serial number begins with the millisecond of its making, so that "everything issued to this host
//! until now" can be revoked without a list of what was issued.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fettle_runbooks::id::Host;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::crash::crash_point;
use crate::world::At;

/// Before a host's name in the URI of its certificate.
pub const SPIFFE_PREFIX: &str = "spiffe://fettle/host/";

/// How long an agent's certificate lasts unless configured otherwise.
pub const AGENT_VALIDITY: Duration = Duration::from_secs(7 * DAY);

/// How long the server's own certificate lasts; it is replaced at two thirds of that, and at each start.
pub const SERVER_VALIDITY: Duration = Duration::from_secs(30 * DAY);

const DAY: u64 = 24 * 60 * 60;
const ROOT_VALIDITY: Duration = Duration::from_secs(3650 * DAY);
/// A certificate is valid a little before it was made, for hosts whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// Serial numbers: this byte, 8 bytes of milliseconds, 7 random bytes. Never zero, so none is shortened in DER.
const SERIAL_LEAD: u8 = 1;
const SERIAL_LENGTH: usize = 16;

/// Why the authority could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The data directory.
    #[error("read the certificate authority at {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Half of it is there; making a new root would cut every agent off.
    #[error("read the certificate authority at {}: {missing} is missing; restore it from a backup", path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// The data directory.
    #[error("write the certificate authority at {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has other content than it should.
    #[error("understand the certificate authority at {}", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// The configured name cannot be in a certificate.
    #[error("make a certificate for `{name}`")]
    Name {
        /// The configured name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The certificate request cannot be used.
    #[error("use the certificate request")]
    Request {
        /// Why.
        source: rcgen::Error,
    },
    /// Signing or making a key failed.
    #[error("make a certificate")]
    Make {
        /// Why.
        source: rcgen::Error,
    },
    /// The operating system has no randomness.
    #[error("read random bytes: {0}")]
    Random(String),
}

/// The root and its key.
pub struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    agent_validity: Duration,
}

/// A server certificate with its key.
pub struct ServerLeaf {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key, which exists nowhere else.
    pub key: PrivateKeyDer<'static>,
    /// When it should be replaced.
    pub renew_at: At,
}

/// A certificate made for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub der: Vec<u8>,
    /// What it says.
    pub identity: Identity,
}

/// Whom an agent's certificate names. The only source of an agent's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The host.
    pub host: Host,
    /// The serial number, hex.
    pub serial: String,
    /// When it was issued.
    pub issued: At,
    /// When it ends.
    pub not_after: At,
}

/// A certificate that names no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("read the host's name from its certificate: {0}")]
pub struct NoIdentity(&'static str);

impl Ca {
    /// Opens the authority in `<data>/ca`, making it at the first start.
    pub fn open(data: &Path, now: At) -> Result<Ca, CaError> {
        let dir = data.join("ca");
        if !dir.exists() {
            create(data, &dir, now)?;
        }
        let read = |name: &'static str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    return CaError::Incomplete { path: dir.clone(), missing: name };
                }
                CaError::Read { path, source }
            })
        };
        let damaged = |source| CaError::Damaged { path: dir.clone(), source };
        let key = KeyPair::from_pem(&read("key.pem")?).map_err(damaged)?;
        let pem = read("cert.pem")?;
        let certificate =
            pem_certificate(&pem).ok_or_else(|| damaged(rcgen::Error::CouldNotParseCertificate))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(damaged)?;
        Ok(Ca { certificate, issuer, agent_validity: AGENT_VALIDITY })
    }

    /// The same authority with another validity for agents' certificates.
    pub fn with_agent_validity(mut self, validity: Duration) -> Ca {
        self.agent_validity = validity;
        self
    }

    /// The root certificate, which agents pin.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Makes a certificate for this server: `localhost`, the loopback addresses, and the names given (host names or
    /// addresses).
    pub fn server_leaf(&self, names: &[String], now: At) -> Result<ServerLeaf, CaError> {
        let key = KeyPair::generate().map_err(|source| CaError::Make { source })?;
        let mut params = leaf_params("fettle controller", now, SERVER_VALIDITY)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in ["localhost", "127.0.0.1", "::1"].into_iter().chain(names.iter().map(String::as_str)) {
            let san = server_name(name)?;
            if !params.subject_alt_names.contains(&san) {
                params.subject_alt_names.push(san);
            }
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(|source| CaError::Make { source })?;
        Ok(ServerLeaf {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            renew_at: now.plus(SERVER_VALIDITY * 2 / 3),
        })
    }

    /// Whether a certificate request can be used: it can be read, and its signature proves that the sender holds the
    /// private key.
    pub fn check_request(csr_der: &[u8]) -> Result<(), CaError> {
        read_request(csr_der).map(drop)
    }

    /// Makes a certificate for an agent. Of the request only the public key is used, after its signature has proved
    /// that the sender holds the private one.
    pub fn issue(&self, host: &Host, csr_der: &[u8], now: At) -> Result<Issued, CaError> {
        let request = read_request(csr_der)?;
        let mut params = leaf_params(host.as_str(), now, self.agent_validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("{SPIFFE_PREFIX}{host}");
        params.subject_alt_names = vec![SanType::URI(
            uri.as_str().try_into().map_err(|source| CaError::Name { name: uri.clone(), source })?,
        )];
        let certificate =
            params.signed_by(&request.public_key, &self.issuer).map_err(|source| CaError::Make { source })?;
        let identity = identity(certificate.der())
            .map_err(|_| CaError::Name { name: uri, source: rcgen::Error::CouldNotParseCertificate })?;
        Ok(Issued { der: certificate.der().to_vec(), identity })
    }
}

/// Reads whom a certificate names. The caller has verified its chain.
pub fn identity(der: &CertificateDer<'_>) -> Result<Identity, NoIdentity> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|_| NoIdentity("it is not a certificate"))?;
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or(NoIdentity("it has no subject alternative name"))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else { return None };
        uri.strip_prefix(SPIFFE_PREFIX)
    });
    let host = match (uris.next(), uris.next()) {
        (Some(host), None) => host.parse().map_err(|_| NoIdentity("its URI holds no host name"))?,
        (Some(_), Some(_)) => return Err(NoIdentity("it names two hosts")),
        (None, _) => return Err(NoIdentity("it has no URI of a host")),
    };
    let serial = certificate.raw_serial();
    if serial.len() != SERIAL_LENGTH || serial[0] != SERIAL_LEAD {
        return Err(NoIdentity("its serial number is not one of ours"));
    }
    let issued = At(serial[1..9].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte)));
    let not_after = At(certificate.validity().not_after.timestamp().saturating_mul(1000));
    Ok(Identity {
        host,
        serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        issued,
        not_after,
    })
}

/// Which certificates no longer count, though they are signed and in time.
///
/// Revoking a host ends everything issued to it until then; a host that enrols anew gets a certificate that counts.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Arc<RwLock<HashMap<Host, At>>>);

impl Revocations {
    /// Ends every certificate issued to the host until `at`.
    pub fn revoke(&self, host: &Host, at: At) {
        let mut revoked = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let until = revoked.entry(host.clone()).or_insert(at);
        *until = (*until).max(at);
    }

    /// Whether this certificate has been ended.
    pub fn covers(&self, identity: &Identity) -> bool {
        let revoked = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        revoked.get(&identity.host).is_some_and(|until| identity.issued <= *until)
    }
}

fn create(data: &Path, dir: &Path, now: At) -> Result<(), CaError> {
    let make = |source| CaError::Make { source };
    let key = KeyPair::generate().map_err(make)?;
    let mut params = leaf_params("", now, ROOT_VALIDITY)?;
    let mut tag = [0; 4];
    random(&mut tag)?;
    params.distinguished_name = common_name(&format!("fettle root {:08x}", u32::from_be_bytes(tag)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(make)?;

    // Built aside and renamed, so that a root is there whole or not at all.
    let aside = data.join("ca.new");
    let wrote = |path: &Path| {
        let path = path.to_owned();
        move |source| CaError::Write { path, source }
    };
    let _ = fs::remove_dir_all(&aside);
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&aside).map_err(wrote(&aside))?;
    write_new(&aside.join("key.pem"), key.serialize_pem().as_bytes(), 0o600)?;
    write_new(&aside.join("cert.pem"), certificate.pem().as_bytes(), 0o644)?;
    let sync = |path: &Path| fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(wrote(path));
    sync(&aside)?;
    crash_point("ca.unnamed");
    fs::rename(&aside, dir).map_err(wrote(dir))?;
    crash_point("ca.undurable");
    sync(data)?;
    crash_point("ca.durable");
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            crash_point("ca.unsynced");
            file.sync_all()
        })
        .map_err(|source| CaError::Write { path: path.to_owned(), source })
}

/// What all our certificates share. `rcgen` would date them 1975 to 4096 and call them self-signed.
fn leaf_params(name: &str, now: At, validity: Duration) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.not_before = system_time(now.minus(BACKDATED)).into();
    params.not_after = system_time(now.plus(validity)).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial(now)?);
    Ok(params)
}

/// A common name holds 64 characters at most; the whole name is in the URI.
fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn serial(now: At) -> Result<SerialNumber, CaError> {
    let mut bytes = [0; SERIAL_LENGTH];
    random(&mut bytes)?;
    bytes[0] = SERIAL_LEAD;
    bytes[1..9].copy_from_slice(&now.0.to_be_bytes());
    Ok(SerialNumber::from_slice(&bytes))
}

fn system_time(at: At) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

fn random(bytes: &mut [u8]) -> Result<(), CaError> {
    getrandom::fill(bytes).map_err(|error| CaError::Random(error.to_string()))
}

fn read_request(csr_der: &[u8]) -> Result<CertificateSigningRequestParams, CaError> {
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
        .map_err(|source| CaError::Request { source })
}

fn server_name(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let dns = name.try_into().map_err(|source| CaError::Name { name: name.to_owned(), source })?;
    Ok(SanType::DnsName(dns))
}

fn pem_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn now() -> At {
        At(1_800_000_000_000)
    }

    fn request(names: &[&str]) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        params.serialize_request(&key).expect("a request").der().to_vec()
    }

    #[test]
    fn the_root_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Ca::open(dir.path(), now()).expect("a new root");
        let second = Ca::open(dir.path(), now()).expect("the same root");
        assert_eq!(first.certificate(), second.certificate());
        let mode = fs::metadata(dir.path().join("ca/key.pem")).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn half_a_root_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        Ca::open(dir.path(), now()).expect("a new root");
        fs::remove_file(dir.path().join("ca/key.pem")).expect("removed");
        let refused = Ca::open(dir.path(), now()).err().expect("refused").to_string();
        assert!(refused.contains("key.pem is missing"), "{refused}");
    }

    #[test]
    fn nothing_but_the_public_key_of_a_request_is_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path(), now()).expect("a root");
        let host: Host = "web-1".parse().expect("a name");
        let issued = ca.issue(&host, &request(&["evil.example"]), now()).expect("issued");
        assert_eq!(issued.identity.host, host);
        assert_eq!(issued.identity.issued, now());
        assert_eq!(issued.identity.not_after, now().plus(AGENT_VALIDITY));
        let text = String::from_utf8_lossy(&issued.der).into_owned();
        assert!(!text.contains("evil.example"));
        let (_, certificate) = x509_parser::parse_x509_certificate(&issued.der).expect("a certificate");
        let usage = certificate.extended_key_usage().expect("readable").expect("present");
        assert!(usage.value.client_auth && !usage.value.server_auth);
        assert!(!certificate.is_ca());
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path(), now()).expect("a root");
        let mut forged = request(&[]);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(matches!(
            ca.issue(&"web-1".parse().expect("a name"), &forged, now()),
            Err(CaError::Request { .. })
        ));
        assert!(matches!(
            ca.issue(&"web-1".parse().expect("a name"), b"x", now()),
            Err(CaError::Request { .. })
        ));
    }

    #[test]
    fn revoking_ends_what_was_issued_until_then() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path(), now()).expect("a root");
        let host: Host = "web-1".parse().expect("a name");
        let before = ca.issue(&host, &request(&[]), now()).expect("issued").identity;
        let after =
            ca.issue(&host, &request(&[]), now().plus(Duration::from_millis(1))).expect("issued").identity;
        let revocations = Revocations::default();
        assert!(!revocations.covers(&before));
        revocations.revoke(&host, now());
        assert!(revocations.covers(&before));
        assert!(!revocations.covers(&after));
    }

    #[test]
    fn a_certificate_without_our_name_names_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path(), now()).expect("a root");
        let leaf =
            ca.server_leaf(&["controller.example".to_owned(), "10.1.2.3".to_owned()], now()).expect("a leaf");
        assert_eq!(identity(&leaf.chain[0]), Err(NoIdentity("it has no URI of a host")));
        assert!(ca.server_leaf(&["a\u{e9}".to_owned()], now()).is_err());
    }
}
