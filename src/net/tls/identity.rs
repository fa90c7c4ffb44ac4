//! The certificates that this server can show, and which of them a client sees: the one for the
//! name that it asks for (SNI, RFC 6066), else the first.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate;
use super::server::{certificates, private_key};

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Identity {
    key: Arc<CertifiedKey>,
    /// DNS names in lower case; the first label may be `*`.
    names: Vec<String>,
    /// The data of the channel binding `tls-server-end-point`.
    pub(super) binding: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub(super) expires: u64,
}

impl Identity {
    /// Reads the two files.
    pub(super) fn read(
        cert_file: &Path,
        key_file: &Path,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let chain = certificates(cert_file)?;
        let key = private_key(key_file)?;
        let first = chain.first().map_or(&[][..], |der| der.as_ref());
        let (names, binding) =
            (certificate::dns_names(first), certificate::end_point_binding(first));
        let expires = certificate::not_after(first).unwrap_or(0);
        let key = CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| format!("{}: {e}", cert_file.display()))?;
        Ok(Self { key: Arc::new(key), names, binding, expires })
    }

    fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// A `*` stands for exactly one label (RFC 6125, section 6.4.3).
    fn is_for_all_like(&self, name: &str) -> bool {
        let Some((_, parent)) = name.split_once('.') else { return false };
        self.names.iter().any(|own| own.strip_prefix("*.") == Some(parent))
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Identities {
    pub(super) first: Identity,
    pub(super) others: Vec<Identity>,
}

impl Identities {
    /// The one for a name.
    pub(super) fn of(&self, name: Option<&str>) -> &Identity {
        let all = || std::iter::once(&self.first).chain(&self.others);
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let exact = all().find(|identity| identity.is_for(&name));
        let like = || all().find(|identity| identity.is_for_all_like(&name));
        exact.or_else(like).unwrap_or(&self.first)
    }

    /// The end of the one that ends first, in seconds since 1970.
    pub(super) fn expires(&self) -> u64 {
        let ends = self.others.iter().map(|identity| identity.expires);
        ends.fold(self.first.expires, u64::min)
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name()).key.clone())
    }
}
