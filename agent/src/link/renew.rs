//! A fresh certificate before the old one ends: at two thirds of its life, then every hour until it works.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fettle_proto::v1;
use rcgen::{CertificateParams, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use tonic::Status;
use tonic::transport::Channel;

use super::Settings;
use crate::chain::Chain;
use crate::identity::{self, Identity, IdentityError};

/// Between tries.
const AGAIN: Duration = Duration::from_secs(3600);
/// A clock may be set; look at it again this often.
const LOOK: Duration = Duration::from_secs(3600);

/// Why there is no fresh certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    #[error("make a certificate request")]
    Request { source: rcgen::Error },
    #[error("have the certificate renewed")]
    Call { source: Box<Status> },
    #[error("use the renewed certificate: it is not for this host's key")]
    OtherKey,
    #[error("use the renewed certificate: it is of another name than this host's")]
    OtherName,
    #[error("use the renewed certificate: it does not follow from the pinned root")]
    OtherRoot { source: rustls::Error },
    #[error("keep the renewed certificate")]
    Keep { source: IdentityError },
}

/// Returns once a fresh certificate is in place.
pub(super) async fn at_its_time(settings: &Settings, identity: &Identity, channel: Channel) {
    loop {
        while let Ok(left) = identity.renew_at().duration_since((settings.now)()) {
            tokio::time::sleep(left.min(LOOK)).await;
        }
        match renew(settings, identity, channel.clone()).await {
            Ok(()) => {
                tracing::info!("Certificate renewed.");
                return;
            }
            Err(error) => tracing::error!(error = %Chain(&error), "Certificate not renewed."),
        }
        tokio::time::sleep(AGAIN.mul_f64(0.5 + super::backoff::chance())).await;
    }
}

pub(super) async fn renew(
    settings: &Settings,
    identity: &Identity,
    channel: Channel,
) -> Result<(), RenewError> {
    let key = key_pair(identity).map_err(|source| RenewError::Request { source })?;
    let csr_der = request(&key).map_err(|source| RenewError::Request { source })?;
    let mut client = v1::agents_client::AgentsClient::new(channel);
    let reply = client
        .renew(v1::RenewRequest { csr_der: csr_der.into() })
        .await
        .map_err(|status| RenewError::Call { source: Box::new(status) })?
        .into_inner();
    let der = CertificateDer::from(reply.certificate_der.to_vec());
    if !is_for_key(&der, &key) {
        return Err(RenewError::OtherKey);
    }
    // With a useless certificate this host could not come back by itself.
    if !same_names(&der, &identity.certificate) {
        return Err(RenewError::OtherName);
    }
    follows(&der, identity, (settings.now)()).map_err(|source| RenewError::OtherRoot { source })?;
    identity::replace_certificate(&settings.state, &der).map_err(|source| RenewError::Keep { source })
}

fn key_pair(identity: &Identity) -> Result<KeyPair, rcgen::Error> {
    KeyPair::try_from(identity.key.secret_der())
}

/// A certificate request for a key. The controller uses nothing else of it.
pub(crate) fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Whether two certificates are of the same names.
fn same_names(one: &CertificateDer<'_>, other: &CertificateDer<'_>) -> bool {
    let names = |der: &CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        Some(format!("{:?}", names.value.general_names))
    };
    let names_of_one = names(one);
    names_of_one.is_some() && names_of_one == names(other)
}

/// Whether a controller that trusts the pinned root will take the certificate now.
fn follows(der: &CertificateDer<'_>, identity: &Identity, now: SystemTime) -> Result<(), rustls::Error> {
    let roots = super::connect::pinned(&identity.trust.ca_der)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::connect::provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    verifier.verify_client_cert(der, &[], now).map(drop)
}

/// Whether a certificate holds this key.
pub(crate) fn is_for_key(der: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        *certificate.public_key().subject_public_key.data == *key.public_key_raw()
    })
}
