//! What a certificate says, as far as a log-in and an operator need it. Whether it may be trusted
//! is decided elsewhere, by rustls.

pub(super) use rustydb_client::tls::end_point_binding;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The names of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The common name of the subject, if there is exactly one.
    pub common_name: Option<String>,
    /// Alternative names: DNS, e-mail, URI.
    pub alternative: Vec<String>,
}

impl PeerCertificate {
    /// Reads the names; a certificate that cannot be read has none.
    pub(super) fn read(der: &[u8]) -> Self {
        let Ok(certificate) = Certificate::from_der(der) else { return Self::default() };
        let body = certificate.tbs_certificate();
        // A NUL could make a name look like another, shorter one.
        let sound = |name: &String| !name.is_empty() && !name.contains('\0');
        let common_name = body.subject().common_name().ok().flatten();
        let common_name = common_name.map(|name| name.value().into_owned()).filter(sound);
        let alternative = match body.get_extension::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(text).filter(sound).collect(),
            _ => Vec::new(),
        };
        Self { common_name, alternative }
    }
}

fn text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::Rfc822Name(text)
        | GeneralName::DnsName(text)
        | GeneralName::UniformResourceIdentifier(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// The DNS names of a server's certificate, in lower case.
pub(super) fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(text) => Some(text.as_str().to_ascii_lowercase()),
        _ => None,
    };
    match certificate.tbs_certificate().get_extension::<SubjectAltName>() {
        Ok(Some((_, names))) => names.0.iter().filter_map(name).collect(),
        _ => Vec::new(),
    }
}

/// Seconds since 1970 at which a revocation list has to be replaced; `None` = never, or it is none.
pub(super) fn next_update(der: &[u8]) -> Option<u64> {
    let list: CertificateList = CertificateList::from_der(der).ok()?;
    Some(list.tbs_cert_list.next_update?.to_unix_duration().as_secs())
}

/// Seconds since 1970 at which a certificate ends.
pub(super) fn not_after(der: &[u8]) -> Option<u64> {
    let certificate = Certificate::from_der(der).ok()?;
    let end = certificate.tbs_certificate().validity().not_after;
    Some(end.to_unix_duration().as_secs())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn names_end_and_binding_are_read() {
        let names = ["joe.example".to_owned(), "10.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "joe");
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let peer = PeerCertificate::read(&der);
        assert_eq!(peer.common_name.as_deref(), Some("joe"));
        assert_eq!(peer.alternative, ["joe.example"]);
        assert_eq!(dns_names(&der), ["joe.example"]);
        assert_eq!(not_after(&der), Some(4_070_908_800));
        assert_eq!(end_point_binding(&der), Some(Sha256::digest(&der).to_vec()));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(end_point_binding(params.self_signed(&key).unwrap().der()), None);
    }

    #[test]
    fn garbage_has_no_names() {
        assert_eq!(PeerCertificate::read(b"\x30\x03abc"), PeerCertificate::default());
        assert_eq!(not_after(b""), None);
        assert_eq!(next_update(b"\x30\x00"), None);
        assert!(dns_names(b"\x30\x00").is_empty());
        assert_eq!(end_point_binding(b"\x30\x80"), None);
    }
}
