//! TLS towards PostgreSQL: which certificates are good enough for which `sslmode`.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustydb_client::tls::{Trusted, Verifier};

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
        let trusted = match (tls.mode, &tls.root) {
            (SslMode::Disable, _) => return Ok(None),
            (SslMode::Prefer, _) | (SslMode::Require, None) => None,
            (_, Some(file)) => {
                let trusted = Trusted::given(server::certificates(file)?);
                Some(trusted.map_err(|e| format!("{}: {e}", file.display()))?)
            }
            (_, None) => Some(system_authorities()?.into()),
        };
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let verifier = Verifier::new(trusted, tls.mode == SslMode::VerifyFull, provider);
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
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

/// A server's certificate that libpq would take and this library does not, in words that tell what
/// to do.
pub(super) fn explained(error: io::Error) -> io::Error {
    let cause = error.to_string();
    let text = if cause.contains("UnsupportedCertVersion") {
        "the server's certificate is of X.509 version 1, which is not taken: make one of version 3 \
         (openssl req -x509, or openssl x509 -extfile with a subjectAltName)"
    } else if cause.contains("CaUsedAsEndEntity") {
        "the server shows the certificate of an authority (CA:TRUE) that is not in the file of \
         sslrootcert: put it there, or sign one for the server with it"
    } else {
        return error;
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// How documents are fetched from other servers: their certificates must fit their names.
pub(in crate::net) fn https_config() -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let mut config = builder.with_root_certificates(system_authorities()?).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_another_kind_are_explained() {
        for (cause, words) in [
            ("invalid peer certificate: Other(OtherError(UnsupportedCertVersion))", "version 3"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "an authority"),
            ("invalid peer certificate: Expired", "Expired"),
        ] {
            let text = explained(io::Error::other(cause)).to_string();
            assert!(text.contains(words), "{text}");
        }
    }
}
