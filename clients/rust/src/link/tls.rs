//! TLS by rustls: what is verified in which mode, and what SCRAM can be bound to.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Config, TlsMode};
use crate::error::{Error, Result};
use crate::tls::{Trusted, Verifier, end_point_binding};

/// The protocol's name in ALPN.
const ALPN: &[u8] = b"rustydb/1";

/// How connections are encrypted.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the files that are named; `None` = no encryption.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        let trusted = match (config.tls, &config.tls_ca) {
            (TlsMode::Disable, _) => return Ok(None),
            (TlsMode::Prefer, _) | (TlsMode::Require, None) => None,
            (_, Some(file)) => {
                Some(Trusted::given(certificates(file)?).map_err(|e| unusable(file, &e))?)
            }
            (_, None) => Some(system_authorities()?.into()),
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Config(e.to_string()))?;
        let verifier = Verifier::new(trusted, config.tls == TlsMode::VerifyFull, provider);
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
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

/// What SCRAM can be bound to; `None` = nothing.
pub(super) fn binding(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    end_point_binding(stream.get_ref().1.peer_certificates()?.first()?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
