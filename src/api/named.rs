//! Checks certificates against the name that the settings give, whatever the address is.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, DnsName, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

use crate::error::BoxError;

/// Expects a certificate for this name.
#[derive(Debug)]
pub(super) struct Expecting {
    name: ServerName<'static>,
    checks: Arc<dyn ServerCertVerifier>,
}

impl Expecting {
    /// Trusts these authorities, or those of the system.
    pub(super) fn new(
        name: DnsName<'static>,
        roots: Option<Vec<CertificateDer<'static>>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, BoxError> {
        let checks: Arc<dyn ServerCertVerifier> = match roots {
            Some(roots) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots);
                let (store, provider) = (Arc::new(store), provider.clone());
                WebPkiServerVerifier::builder_with_provider(store, provider).build()?
            }
            None => Arc::new(Verifier::new(provider.clone())?),
        };
        Ok(Self { name: ServerName::DnsName(name), checks })
    }
}

impl ServerCertVerifier for Expecting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.checks.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checks.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checks.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.supported_verify_schemes()
    }
}
