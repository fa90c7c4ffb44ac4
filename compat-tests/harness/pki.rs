//! A certificate authority of the tests, and the certificates it signs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of a certificate and its key.
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `<name>.crt` and `<name>.key` for a common name and alternative names.
    pub fn issue(&self, folder: &Path, name: &str, common: &str, alternative: &[&str]) -> Files {
        let alternative: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        write_pair(folder, name, &params.signed_by(&key, &self.0).unwrap().pem(), &key)
    }

    /// The same for a certificate that has signed itself, as `openssl req -x509` makes it: one of
    /// an authority.
    pub fn issue_self_signed(folder: &Path, name: &str, alternative: &[&str]) -> Files {
        let alternative: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(alternative).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        write_pair(folder, name, &params.self_signed(&key).unwrap().pem(), &key)
    }

    /// Writes a list that revokes these certificates, good until the first day of a year.
    pub fn revoke(&self, file: &Path, revoked: &[&Files], until: i32) {
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let params = |files: &&Files| rcgen::RevokedCertParams {
            serial_number: serial_number(&files.cert),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(params).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let next = file.with_extension("next");
        std::fs::write(&next, list.signed_by(&self.0).unwrap().pem().unwrap()).unwrap();
        std::fs::rename(&next, file).unwrap();
    }

    /// Writes the authority's own certificate.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let file = folder.join(format!("{name}.crt"));
        std::fs::write(&file, self.0.pem()).unwrap();
        file
    }
}

fn write_pair(folder: &Path, name: &str, pem: &str, key: &KeyPair) -> Files {
    let (cert, key_file) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    write_private(&key_file, &key.serialize_pem());
    std::fs::write(&cert, pem).unwrap();
    Files { cert, key: key_file }
}

fn serial_number(cert: &Path) -> rcgen::SerialNumber {
    use x509_cert::der::Decode;
    let der = CertificateDer::from_pem_file(cert).unwrap();
    let cert = x509_cert::Certificate::from_der(&der).unwrap();
    rcgen::SerialNumber::from_slice(cert.tbs_certificate().serial_number().as_bytes())
}

/// Replaces a file that only its owner may read, at once.
fn write_private(file: &Path, text: &str) {
    let next = file.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&next, file).unwrap();
}
