//! TLS towards PostgreSQL: which certificates are good enough for which `sslmode`.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::{ALPN, provider, server};
use crate::config::{BackendTls, SslMode};

/// How connections to PostgreSQL are encrypted.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// Whether the server may decline.
    pub is_optional: bool,
}

impl ClientTls {
    /// Reads the files that are named; `None` = no encryption.
    ///
    /// # Errors
    /// A file that cannot be used, in one sentence.
    pub fn new(tls: &BackendTls) -> Result<Option<Self>, String> {
        let roots = match (tls.mode, &tls.root) {
            (SslMode::Disable, _) => return Ok(None),
            (SslMode::Prefer, _) | (SslMode::Require, None) => None,
            (_, Some(file)) => Some(server::authorities(file)?),
            (_, None) => Some(system_authorities()?),
        };
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = match roots {
            Some(roots) if tls.mode == SslMode::VerifyFull => builder.with_root_certificates(roots),
            roots => {
                let verifier = Arc::new(WithoutName { roots, provider });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let (chain, key) = (server::certificates(cert)?, server::private_key(key)?);
                builder.with_client_auth_cert(chain, key).map_err(|e| format!("sslcert: {e}"))?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let is_optional = tls.mode == SslMode::Prefer;
        Ok(Some(Self { config: Arc::new(config), is_optional }))
    }

    pub(super) fn begin(&self, host: &str) -> io::Result<ClientConnection> {
        let wrong = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)
    }
}

fn system_authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("the operating system has no certificate authorities; name a file with \
                     sslrootcert, or choose another sslmode"
            .into()),
        false => Ok(roots),
    }
}

/// Accepts a certificate of the known authorities for whatever host, or, without authorities,
/// every certificate. The server must have the certificate's key in any case.
#[derive(Debug)]
struct WithoutName {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for WithoutName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
