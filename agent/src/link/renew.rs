//! A fresh certificate before the old one ends: at two thirds of its life, then every hour until it works.

use std::time::Duration;

use fettle_proto::v1;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
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
enum RenewError {
    #[error("make a certificate request")]
    Request { source: rcgen::Error },
    #[error("have the certificate renewed")]
    Call { source: Box<Status> },
    #[error("use the renewed certificate: it is not for this host's key")]
    OtherKey,
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

async fn renew(settings: &Settings, identity: &Identity, channel: Channel) -> Result<(), RenewError> {
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

/// Whether a certificate holds this key.
pub(crate) fn is_for_key(der: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        *certificate.public_key().subject_public_key.data == *key.public_key_raw()
    })
}
