//! Public keys and secrets as others write them: JSON Web Keys (RFC 7517) and PEM.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::jws::{Algorithm, Material, SHORTEST_SECRET};

/// Keys of one issuer; more are a mistake or an attack.
pub const MOST_KEYS: usize = 100;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A key with its name.
#[derive(Clone, Debug)]
pub struct Key {
    /// What tokens call it.
    pub kid: Option<String>,
    /// The only algorithm that it is meant for, if it says so.
    pub algorithm: Option<Algorithm>,
    /// The key itself.
    pub material: Material,
}

impl Key {
    /// Whether tokens of this algorithm may be verified with it.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|only| only == algorithm) && self.material.takes(algorithm)
    }
}

/// The keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// These keys, [`MOST_KEYS`] at most.
    pub fn new(mut keys: Vec<Key>) -> Self {
        keys.truncate(MOST_KEYS);
        Self(keys)
    }

    /// The key that a token names. One that names none is verified with the only key that fits.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.takes(algorithm));
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => {
                let only = fitting.next();
                only.filter(|_| fitting.next().is_none())
            }
        }
    }

    /// The keys one by one.
    pub fn into_keys(self) -> Vec<Key> {
        self.0
    }

    /// Reads `{"keys": […]}`, or a single key. Keys that are of no use for signatures or of a kind
    /// that is not known, are left out; `secrets` says whether there may be secrets among them,
    /// which no document that is published can hold.
    ///
    /// # Errors
    /// It is no such document, or holds no key that can be used.
    pub fn of_json(text: &[u8], secrets: bool) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Document {
            Set { keys: Vec<serde_json::Value> },
            One(serde_json::Value),
        }
        let document = serde_json::from_slice(text).map_err(|_| "it is not JSON")?;
        let keys = match document {
            Document::Set { keys } => keys,
            Document::One(key) => vec![key],
        };
        if keys.len() > MOST_KEYS {
            return Err(format!("it holds more than {MOST_KEYS} keys"));
        }
        let keys = keys.into_iter().filter_map(|key| {
            let key: Jwk = serde_json::from_value(key).ok()?;
            key.read().filter(|key| secrets || !matches!(key.material, Material::Secret(_)))
        });
        match keys.collect::<Vec<_>>() {
            keys if keys.is_empty() => Err("it holds no key that can be used".into()),
            keys => Ok(Self::new(keys)),
        }
    }
}

/// A JSON Web Key, as far as it matters.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Jwk {
    fn read(self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        // A key for an algorithm that is not known is a key for no other.
        let algorithm = match &self.alg {
            Some(name) => Some(Algorithm::of(name)?),
            None => None,
        };
        let bytes = |value: &Option<String>| {
            let text = value.as_deref()?.trim_end_matches('=');
            URL_SAFE_NO_PAD.decode(text).ok()
        };
        let point = |length: usize| {
            let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
            let fits = x.len() == length && y.len() == length;
            fits.then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let number = |value| {
                    let bytes: Vec<u8> = bytes(value)?;
                    let first = bytes.iter().position(|byte| *byte != 0)?;
                    Some(bytes[first..].to_vec())
                };
                Material::Rsa(number(&self.n)?, number(&self.e)?)
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => {
                Material::Ed25519(bytes(&self.x).filter(|key| key.len() == 32)?)
            }
            ("oct", _) => Material::Secret(bytes(&self.k).filter(|k| k.len() >= SHORTEST_SECRET)?),
            _ => return None,
        };
        Some(Key { kid: self.kid, algorithm, material })
    }
}

/// Reads a public key in PEM (SubjectPublicKeyInfo).
///
/// # Errors
/// It is none, or of a kind that is not known.
pub fn public_key(pem: &str) -> Result<Material, String> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    let body = pem.split_once(BEGIN).and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY"));
    let (body, _) = body.ok_or_else(|| format!("it has no \"{BEGIN}\""))?;
    let body: String = body.split_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| "it is not base64")?;
    let key = SubjectPublicKeyInfoOwned::from_der(&der).map_err(|e| e.to_string())?;
    let bits = key.subject_public_key.as_bytes().ok_or("its key is not whole bytes")?.to_vec();
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match (key.algorithm.oid, curve) {
        (RSA, _) => Ok(Material::RsaDer(bits)),
        (EC, Some(P256)) => Ok(Material::P256(bits)),
        (EC, Some(P384)) => Ok(Material::P384(bits)),
        (ED25519, _) => Ok(Material::Ed25519(bits)),
        _ => Err("it is neither RSA, nor of the curves P-256 and P-384, nor Ed25519".into()),
    }
}

/// A secret for HMAC.
///
/// # Errors
/// It is too short.
pub fn secret(text: &str) -> Result<Material, String> {
    match text.len() {
        length if length < SHORTEST_SECRET => {
            Err(format!("a secret must have at least {SHORTEST_SECRET} bytes"))
        }
        _ => Ok(Material::Secret(text.as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_what_can_be_used() {
        let x = URL_SAFE_NO_PAD.encode([1; 32]);
        let k = URL_SAFE_NO_PAD.encode([1; 32]);
        let text = format!(
            r#"{{"keys": [
                {{"kty":"EC","crv":"P-256","kid":"ec","x":"{x}","y":"{x}"}},
                {{"kty":"EC","crv":"P-521","kid":"far","x":"{x}","y":"{x}"}},
                {{"kty":"EC","crv":"P-256","kid":"short","x":"AA","y":"{x}"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{x}"}},
                {{"kty":"OKP","crv":"Ed25519","kid":"enc","use":"enc","x":"{x}"}},
                {{"kty":"RSA","kid":"rsa","alg":"PS256","n":"AAEC","e":"AQAB"}},
                {{"kty":"RSA","kid":"odd","alg":"RSA-OAEP","n":"AAEC","e":"AQAB"}},
                {{"kty":"oct","kid":"oct","k":"{k}"}},
                17
            ]}}"#
        );
        let set = KeySet::of_json(text.as_bytes(), false).unwrap();
        let has = |kid, algorithm| set.find(Some(kid), algorithm).is_some();
        use Algorithm::*;
        for (kid, algorithm, there) in [
            ("ec", Es256, true),
            ("ec", Es384, false),
            ("ed", EdDsa, true),
            ("rsa", Ps256, true),
            ("rsa", Rs256, false),
            ("odd", Rs256, false),
            ("oct", Hs256, false),
            ("far", Es256, false),
            ("short", Es256, false),
            ("enc", EdDsa, false),
        ] {
            assert_eq!(has(kid, algorithm), there, "{kid} {algorithm:?}");
        }
        assert!(set.find(None, EdDsa).is_some(), "the only one");
        let own = KeySet::of_json(text.as_bytes(), true).unwrap();
        assert!(own.find(Some("oct"), Hs256).is_some());
        assert!(own.find(None, Hs256).is_some());
        for bad in ["", "[]", "{}", "{\"keys\":[]}", "{\"keys\":{}}", "{\"kty\":\"RSA\"}"] {
            assert!(KeySet::of_json(bad.as_bytes(), true).is_err(), "{bad}");
        }
        let many = vec!["{}"; MOST_KEYS + 1].join(",");
        assert!(KeySet::of_json(format!("{{\"keys\":[{many}]}}").as_bytes(), true).is_err());
    }

    #[test]
    fn a_token_without_a_name_needs_the_only_key() {
        let ed = |n| Key {
            kid: Some(format!("{n}")),
            algorithm: None,
            material: Material::Ed25519(vec![n; 32]),
        };
        assert!(KeySet::new(vec![ed(1)]).find(None, Algorithm::EdDsa).is_some());
        assert!(KeySet::new(vec![ed(1), ed(2)]).find(None, Algorithm::EdDsa).is_none());
        assert!(secret("short").is_err());
    }

    #[test]
    fn a_public_key_is_read_from_pem() {
        for (algorithm, takes) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::Es256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::Es384),
            (&rcgen::PKCS_ED25519, Algorithm::EdDsa),
        ] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let material = public_key(&pair.public_key_pem()).unwrap();
            assert!(material.takes(takes), "{takes:?}");
            assert!(public_key(&pair.serialize_pem()).is_err(), "a private key");
        }
        assert!(public_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").is_err());
    }
}
