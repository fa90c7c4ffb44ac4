//! TLS by rustls: what is verified in which mode, and what SCRAM can be bound to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_cert::der::Decode;

use crate::config::{Config, TlsMode};
use crate::error::{Error, Result};

/// The protocol's name in ALPN.
const ALPN: &[u8] = b"rustydb/1";

/// How connections are encrypted.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the files that are named; `None` = no encryption.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        let roots = match (config.tls, &config.tls_ca) {
            (TlsMode::Disable, _) => return Ok(None),
            (TlsMode::Prefer, _) | (TlsMode::Require, None) => None,
            (_, Some(file)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|e| unusable(file, &e))?;
                }
                Some(roots)
            }
            (_, None) => Some(system_authorities()?),
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Config(e.to_string()))?;
        let builder = match roots {
            Some(roots) if config.tls == TlsMode::VerifyFull => {
                builder.with_root_certificates(roots)
            }
            roots => {
                let verifier = Arc::new(WithoutName { roots, provider });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let mut client = match (&config.tls_cert, &config.tls_key) {
            (Some(file), Some(key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
                builder
                    .with_client_auth_cert(certificates(file)?, secret)
                    .map_err(|e| unusable(file, &e))?
            }
            _ => builder.with_no_client_auth(),
        };
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Some(Self(Arc::new(client))))
    }

    /// The handshake with a host.
    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        host: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let wrong = |e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e);
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        TlsConnector::from(self.0.clone()).connect(name, socket).await
    }
}

fn unusable(file: &std::path::Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Config(format!("{}: {reason}", file.display()))
}

fn certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let list: Vec<_> = read.map_err(|e| unusable(file, &e))?;
    match list.is_empty() {
        true => Err(unusable(file, &"there is no certificate in it")),
        false => Ok(list),
    }
}

fn system_authorities() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(Error::Config(
            "the operating system has no certificate authorities; name a file with tls_ca".into(),
        )),
        false => Ok(roots),
    }
}

/// The data of `tls-server-end-point` (RFC 5929, section 4.1): the certificate's hash by the hash
/// function of its signature, or by SHA-256 where that is MD5 or SHA-1. `None` = the signature has
/// no hash function of its own, and no binding is defined.
pub(super) fn binding(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    end_point(stream.get_ref().1.peer_certificates()?.first()?)
}

fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    Some(match certificate.signature_algorithm().oid.to_string().as_str() {
        // RSA and ECDSA with MD5, SHA-1 and SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => Sha256::digest(der).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(der).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(der).to_vec(),
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binding_follows_the_signature() {
        let params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        for (kind, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(kind).unwrap();
            let der = params.self_signed(&key).unwrap().der().to_vec();
            assert_eq!(end_point(&der).map(|hash| hash.len()), length);
        }
        assert_eq!(end_point(b"\x30\x03abc"), None);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let mut config = Config { tls: TlsMode::Disable, ..Config::default() };
        assert!(Tls::new(&config).unwrap().is_none());
        config.tls = TlsMode::VerifyFull;
        config.tls_ca = Some("/nonexistent/ca.pem".into());
        let said = Tls::new(&config).map(drop).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/ca.pem"), "{said}");
        config.tls_ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
        let said = Tls::new(&config).map(drop).unwrap_err().to_string();
        assert!(said.contains("no certificate"), "{said}");
    }
}
