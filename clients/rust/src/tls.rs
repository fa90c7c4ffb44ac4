//! Certificates of servers, for whoever connects to one: which are accepted, and what SCRAM is
//! bound to. RustyDB itself connects to PostgreSQL with these.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::der::Decode;

/// The data of `tls-server-end-point` (RFC 5929, section 4.1): the certificate's hash by the hash
/// function of its signature, or by SHA-256 where that is MD5 or SHA-1. `None` = the signature has
/// no hash function of its own, and no binding is defined.
pub fn end_point_binding(der: &[u8]) -> Option<Vec<u8>> {
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

/// Who is believed: authorities, and whoever shows one of their certificates as his own.
#[derive(Debug)]
pub struct Trusted {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// Believes these certificates.
    ///
    /// # Errors
    /// One of them is no certificate.
    pub fn given(certificates: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone())?;
        }
        Ok(Self { roots, certificates })
    }

    /// Whether it is one that was given. The library takes those for authorities alone, where
    /// OpenSSL also takes a server's own self-signed certificate, and people rely on it.
    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|known| known.as_ref() == certificate.as_ref())
    }
}

impl From<RootCertStore> for Trusted {
    fn from(roots: RootCertStore) -> Self {
        Self { roots, certificates: Vec::new() }
    }
}

/// Whether a certificate can be used at this time.
fn check_time(der: &[u8], now: UnixTime) -> Result<(), CertificateError> {
    let certificate = x509_cert::Certificate::from_der(der);
    let certificate = certificate.map_err(|_| CertificateError::BadEncoding)?;
    let validity = certificate.tbs_certificate().validity();
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet);
    }
    match now > validity.not_after.to_unix_duration().as_secs() {
        true => Err(CertificateError::Expired),
        false => Ok(()),
    }
}

/// Decides on a server's certificate. The server must have its key in any case.
#[derive(Debug)]
pub struct Verifier {
    trusted: Option<Trusted>,
    with_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Accepts what these have signed, or are; `None` = everything. `with_name` = it must also be
    /// made for the host.
    pub fn new(trusted: Option<Trusted>, with_name: bool, provider: Arc<CryptoProvider>) -> Self {
        Self { trusted, with_name, provider }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(certificate)?;
        if trusted.has(certificate) {
            check_time(certificate, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let (roots, parsed) = (&trusted.roots, &parsed);
            verify_server_cert_signed_by_trust_anchor(
                parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.with_name {
            verify_server_name(&parsed, name)?;
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
    use std::time::Duration;

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
            assert_eq!(end_point_binding(&der).map(|hash| hash.len()), length);
        }
        assert_eq!(end_point_binding(b"\x30\x03abc"), None);
    }

    /// A certificate for "a" that has signed itself, good in the year 2020.
    fn self_signed(is_ca: rcgen::IsCa) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_that_was_given_is_accepted_itself() {
        let year: u64 = 365 * 24 * 3600;
        let verify =
            |trusted: Trusted, with_name, shown: &CertificateDer<'_>, name, year_of: u64| {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let now = Duration::from_secs(year * (year_of - 1970) + year / 2);
                let (name, now) =
                    (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(now));
                let verifier = Verifier::new(Some(trusted), with_name, provider);
                verifier.verify_server_cert(shown, &[], &name, &[], now).map(drop)
            };
        let given = |der: &CertificateDer<'static>| Trusted::given(vec![der.clone()]).unwrap();
        let fails = |result: Result<(), rustls::Error>, word: &str| {
            assert!(result.as_ref().is_err_and(|e| format!("{e:?}").contains(word)), "{result:?}");
        };
        for is_ca in [rcgen::IsCa::NoCa, rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)] {
            let (own, other) = (self_signed(is_ca), self_signed(is_ca));
            verify(given(&own), true, &own, "a", 2020).unwrap();
            verify(given(&own), false, &own, "b", 2020).unwrap();
            fails(verify(given(&own), true, &own, "b", 2020), "NotValidForName");
            fails(verify(given(&own), true, &own, "a", 2019), "NotValidYet");
            fails(verify(given(&own), true, &own, "a", 2022), "Expired");
            assert!(verify(given(&other), false, &own, "a", 2020).is_err());
            assert!(verify(RootCertStore::empty().into(), false, &own, "a", 2020).is_err());
        }
    }
}
