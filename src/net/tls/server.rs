//! What a TLS handshake with a client works with: certificates, the authorities of clients, their
//! revocation lists; and how new files take the place of the old without a restart. Connections
//! keep what they began with.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ProtocolVersion, RootCertStore, ServerConfig};

use super::identity::{Identities, Identity};
use super::{ALPN, ALPN_HTTP, ALPN_HTTP2, ALPN_NATIVE, certificate, provider};
use crate::config::{Security, TlsMode, TlsVersion};
use crate::telemetry::Metrics;

const DAY: u64 = 86_400;

/// Days before the end of the certificate at which the log warns.
const WARN_DAYS: [u64; 3] = [1, 7, 30];

/// What one handshake works with.
#[derive(Debug)]
pub struct Served {
    pub(in crate::net) config: Arc<ServerConfig>,
    /// The same for HTTP.
    pub(in crate::net) http: Arc<ServerConfig>,
    identities: Arc<Identities>,
    /// When the first of the revocation lists has to be replaced, in seconds since 1970.
    lists_end: Option<u64>,
}

impl Served {
    /// The data of the channel binding for a client that asked for this name.
    pub(super) fn binding_for(&self, name: Option<&str>) -> Option<Vec<u8>> {
        self.identities.of(name).binding.clone()
    }
}

/// The settings of TLS for clients, and what was read by them last.
pub struct ServerTls {
    security: Security,
    http2: bool,
    current: RwLock<Arc<Served>>,
    /// The files as they were when `current` was read.
    stamps: Mutex<Vec<Stamp>>,
    /// The threshold that was warned of last, in days.
    warned: Mutex<Option<u64>>,
    /// Whether it was said that a revocation list is too old.
    lists_ended: AtomicBool,
    metrics: Arc<Metrics>,
}

/// What changes when a file does: time, length, number.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
}

impl ServerTls {
    /// Reads the files; `None` = TLS is off. `http2` = HTTP clients may choose it.
    ///
    /// # Errors
    /// A setting or a file that cannot be used, in one sentence.
    pub fn new(
        security: &Security,
        http2: bool,
        metrics: Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, String> {
        let exists = || security.tls_cert_path.exists();
        let enabled = match security.enable_tls {
            TlsMode::On => true,
            TlsMode::Off => false,
            TlsMode::Auto => exists(),
        };
        if !enabled {
            return Ok(None);
        }
        let stamps = stamps(security);
        let served = Arc::new(load(security, http2)?);
        let tls = Self {
            security: security.clone(),
            http2,
            current: RwLock::new(served),
            stamps: Mutex::new(stamps),
            warned: Mutex::new(None),
            lists_ended: AtomicBool::new(false),
            metrics,
        };
        tls.note_expiry();
        Ok(Some(Arc::new(tls)))
    }

    /// What the next handshake works with.
    pub fn current(&self) -> Arc<Served> {
        self.current.read().clone()
    }

    /// Reads the files anew. When they cannot be used, what was there stays.
    ///
    /// # Errors
    /// Why they cannot be used, in one sentence.
    pub fn reload(&self) -> Result<(), String> {
        let stamps = stamps(&self.security);
        let served = Arc::new(load(&self.security, self.http2)?);
        *self.current.write() = served;
        *self.stamps.lock() = stamps;
        *self.warned.lock() = None;
        self.lists_ended.store(false, Ordering::Relaxed);
        self.note_expiry();
        Ok(())
    }

    /// Looks whether the files have changed, and how long the certificate is still good.
    pub fn look(&self) {
        if *self.stamps.lock() != stamps(&self.security) {
            match self.reload() {
                Ok(()) => tracing::info!("the TLS files were read anew"),
                Err(error) => {
                    tracing::error!(%error, "the changed TLS files cannot be used; the old stay");
                }
            }
        }
        self.note_expiry();
    }

    fn note_expiry(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let current = self.current();
        if current.lists_end.is_some_and(|end| end <= now)
            && !self.lists_ended.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                "a revocation list in security.crl_path is past its next update; clients with a \
                 certificate of its authority are refused until there is a new one"
            );
        }
        let left = current.identities.expires().saturating_sub(now);
        self.metrics.tls_cert_expires_in(left);
        let reached = WARN_DAYS.into_iter().find(|days| left < days * DAY);
        let mut warned = self.warned.lock();
        if reached != *warned {
            *warned = reached;
            if reached.is_some() {
                tracing::warn!(days = left / DAY, "the TLS certificate ends soon");
            }
        }
    }
}

fn stamps(security: &Security) -> Vec<Stamp> {
    let pairs = security.sni_certificates.iter().flat_map(|(cert, key)| [cert, key]);
    [&security.tls_cert_path, &security.tls_key_path]
        .into_iter()
        .chain(&security.ca_cert_path)
        .chain(&security.crl_path)
        .map(PathBuf::as_path)
        .chain(pairs.map(Path::new))
        .map(stamp)
        .collect()
}

fn load(security: &Security, http2: bool) -> Result<Served, String> {
    let named = |file: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let provider = Arc::new(with_suites(&security.cipher_suites)?);
    let versions: &[_] = match security.min_tls_version {
        TlsVersion::V12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|e| format!("security.cipher_suites: {e}"))?;
    let lists = security.crl_path.as_ref().map_or_else(|| Ok(Vec::new()), |f| revoked(f))?;
    let lists_end = lists.iter().filter_map(|der| certificate::next_update(der)).min();
    let builder = match &security.ca_cert_path {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                // As PostgreSQL with ssl_crl_file: the whole chain, and no list is no answer.
                .with_crls(lists)
                .enforce_revocation_expiration();
            let verifier = match security.require_client_cert {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|e| match &security.crl_path {
                Some(lists) => format!("{} with {}: {e}", file.display(), lists.display()),
                None => named(file, &e),
            });
            builder.with_client_cert_verifier(verifier?)
        }
    };
    let read = |cert: &Path, key: &Path| Identity::read(cert, key, &provider);
    let others =
        security.sni_certificates.iter().map(|(cert, key)| read(cert.as_ref(), key.as_ref()));
    let identities = Arc::new(Identities {
        first: read(&security.tls_cert_path, &security.tls_key_path)?,
        others: others.collect::<Result<_, _>>()?,
    });
    let mut config = builder.with_cert_resolver(identities.clone());
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_NATIVE.to_vec()];
    // As PostgreSQL: no session is resumed, so a client's certificate is looked at each time.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let mut http = config.clone();
    let names = [ALPN_HTTP2, ALPN_HTTP].into_iter().skip(usize::from(!http2));
    http.alpn_protocols = names.map(<[u8]>::to_vec).collect();
    Ok(Served { config: Arc::new(config), http: Arc::new(http), identities, lists_end })
}

/// The library's suites: those of TLS 1.3 that are named, in their order, and all of TLS 1.2,
/// which have forward secrecy and AEAD.
fn with_suites(names: &[String]) -> Result<CryptoProvider, String> {
    let all = provider();
    let mut provider = (*all).clone();
    let v13 = |name: &String| {
        let wanted = format!("TLS13_{}", name.trim_start_matches("TLS_"));
        let found = all.cipher_suites.iter().find(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3
                && format!("{:?}", suite.suite()) == wanted
        });
        found.copied().ok_or_else(|| format!("security.cipher_suites: {name} is not known"))
    };
    let chosen: Vec<_> = names.iter().map(v13).collect::<Result<_, _>>()?;
    provider.cipher_suites.retain(|suite| suite.version().version == ProtocolVersion::TLSv1_2);
    provider.cipher_suites.splice(0..0, chosen);
    Ok(provider)
}

/// The certificates of a file.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let chain: Vec<_> = read.map_err(|e| format!("{}: {e}", file.display()))?;
    match chain.is_empty() {
        true => Err(format!("{}: there is no certificate in it", file.display())),
        false => Ok(chain),
    }
}

/// The revocation lists of a file.
fn revoked(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let read = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
    let lists: Vec<_> = read.map_err(|e| format!("{}: {e}", file.display()))?;
    match lists.is_empty() {
        true => Err(format!("{}: there is no revocation list in it", file.display())),
        false => Ok(lists),
    }
}

/// The certificates of a file as those that are believed.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(roots)
}

/// The private key of a file that others cannot read.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    check_privacy(file)?;
    PrivateKeyDer::from_pem_file(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// PostgreSQL's rule for the file of a private key: nobody but its owner may read it, and if that
/// is root, its group.
fn check_privacy(file: &Path) -> Result<(), String> {
    let meta = std::fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    match meta.mode() & forbidden {
        0 => Ok(()),
        _ => Err(format!(
            "private key file {} has group or world access; it must have permissions u=rw (0600) \
             or less, or u=rw,g=r (0640) or less if owned by root",
            file.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Files {
        _folder: tempfile::TempDir,
        security: Security,
    }

    fn write(security: &Security) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        write_files(security, &cert.pem(), &key.serialize_pem());
    }

    fn write_files(security: &Security, cert: &str, key: &str) {
        std::fs::write(&security.tls_cert_path, cert).unwrap();
        std::fs::write(&security.tls_key_path, key).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&security.tls_key_path, private).unwrap();
    }

    fn files() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let security = Security {
            tls_cert_path: folder.path().join("crt"),
            tls_key_path: folder.path().join("key"),
            ..Security::default()
        };
        write(&security);
        Files { _folder: folder, security }
    }

    fn tls(security: &Security) -> Result<Option<Arc<ServerTls>>, String> {
        ServerTls::new(security, true, Arc::new(Metrics::new()))
    }

    #[test]
    fn changed_files_are_taken_and_broken_ones_are_not() {
        let files = files();
        let tls = tls(&files.security).unwrap().unwrap();
        let first = tls.current();
        tls.look();
        assert!(Arc::ptr_eq(&first, &tls.current()));
        write(&files.security);
        tls.look();
        let second = tls.current();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(&files.security.tls_cert_path, "nothing").unwrap();
        tls.look();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&second, &tls.current()));
        write(&files.security);
        tls.look();
        assert!(!Arc::ptr_eq(&second, &tls.current()));
    }

    #[test]
    fn a_client_sees_the_certificate_of_the_name_that_it_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let files = ["crt", "key"].map(|end| folder.path().join(format!("{name}.{end}")));
            let [tls_cert_path, tls_key_path] = files;
            let security = Security { tls_cert_path, tls_key_path, ..Security::default() };
            let key = rcgen::KeyPair::generate().unwrap();
            let names = vec![name.replace('_', "*")];
            let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
            write_files(&security, &cert.pem(), &key.serialize_pem());
            let binding = certificate::end_point_binding(cert.der());
            (security, binding)
        };
        let (mut security, first) = of("first.example");
        let (exact, exact_binding) = of("db.example");
        let (wide, wide_binding) = of("_.example");
        for other in [&exact, &wide] {
            let text = |path: &Path| path.display().to_string();
            let pair = (text(&other.tls_cert_path), text(&other.tls_key_path));
            security.sni_certificates.extend([pair]);
        }
        let served = tls(&security).unwrap().unwrap().current();
        for (name, binding) in [
            (None, &first),
            (Some("nobody"), &first),
            (Some("DB.example"), &exact_binding),
            (Some("other.example"), &wide_binding),
            (Some("first.example"), &first),
            (Some("a.b.example"), &first),
        ] {
            assert_eq!(&served.binding_for(name), binding, "{name:?}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let files = files();
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&files.security.tls_key_path, open).unwrap();
        let error = tls(&files.security).err().unwrap();
        assert!(error.contains("group or world access"), "{error}");
    }

    #[test]
    fn without_a_certificate_it_depends_on_what_was_asked() {
        let files = files();
        std::fs::remove_file(&files.security.tls_cert_path).unwrap();
        assert!(tls(&files.security).unwrap().is_none());
        let on = Security { enable_tls: TlsMode::On, ..files.security.clone() };
        assert!(tls(&on).is_err());
        let off = Security { enable_tls: TlsMode::Off, ..files.security };
        assert!(tls(&off).unwrap().is_none());
    }

    #[test]
    fn suites_are_chosen_by_their_names() {
        let suites = with_suites(&Security::default().cipher_suites).unwrap().cipher_suites;
        let v13 =
            |s: &&rustls::SupportedCipherSuite| s.version().version == ProtocolVersion::TLSv1_3;
        assert_eq!(suites.iter().filter(v13).count(), 2);
        assert!(suites.len() > 2);
        assert!(with_suites(&["TLS_NULL".into()]).is_err());
    }
}
