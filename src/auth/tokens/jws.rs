//! A signed token as bytes: its three parts, and whether a key has signed it (RFC 7515, 7518).
//!
//! The key decides which algorithms it can be used with; the header only chooses among them. So a
//! public key is never taken for a secret, and "none" is no algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use serde::Deserialize;

/// Longest token, in bytes.
pub const LONGEST: usize = 16 << 10;

/// Shortest secret for HMAC, in bytes (RFC 7518, 3.2 for SHA-256).
pub const SHORTEST_SECRET: usize = 32;

macro_rules! algorithms {
    ($($name:ident = $text:literal,)*) => {
        /// How a token is signed.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Algorithm { $($name,)* }

        impl Algorithm {
            /// The algorithm of a name; `none`, and what this server cannot verify, is none.
            pub fn of(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

algorithms! {
    Hs256 = "HS256",
    Hs384 = "HS384",
    Hs512 = "HS512",
    Rs256 = "RS256",
    Rs384 = "RS384",
    Rs512 = "RS512",
    Ps256 = "PS256",
    Ps384 = "PS384",
    Ps512 = "PS512",
    Es256 = "ES256",
    Es384 = "ES384",
    EdDsa = "EdDSA",
}

/// What a token is verified with.
#[derive(Clone)]
pub enum Material {
    /// A shared secret.
    Secret(Vec<u8>),
    /// An RSA public key: modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
    /// An RSA public key as DER (RSAPublicKey).
    RsaDer(Vec<u8>),
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// A point on P-384, uncompressed.
    P384(Vec<u8>),
    /// An Ed25519 public key.
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Rsa(..) | Self::RsaDer(_) => "Rsa",
            Self::P256(_) => "P256",
            Self::P384(_) => "P384",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl Material {
    /// Whether tokens of this algorithm can be verified with it.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        use Algorithm::*;
        match self {
            Self::Secret(_) => matches!(algorithm, Hs256 | Hs384 | Hs512),
            Self::Rsa(..) | Self::RsaDer(_) => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Self::P256(_) => algorithm == Es256,
            Self::P384(_) => algorithm == Es384,
            Self::Ed25519(_) => algorithm == EdDsa,
        }
    }

    /// Whether it has signed `message`.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.takes(algorithm) {
            return false;
        }
        match self {
            Self::Secret(secret) => {
                let key = hmac::Key::new(hmac_algorithm(algorithm), secret);
                hmac::verify(&key, message, signature).is_ok()
            }
            Self::Rsa(n, e) => rsa_algorithm(algorithm).is_some_and(|algorithm| {
                let key = signature::RsaPublicKeyComponents { n, e };
                key.verify(algorithm, message, signature).is_ok()
            }),
            Self::RsaDer(key) => rsa_algorithm(algorithm).is_some_and(|algorithm| {
                let key = signature::UnparsedPublicKey::new(algorithm, key);
                key.verify(message, signature).is_ok()
            }),
            Self::P256(key) => fits(&signature::ECDSA_P256_SHA256_FIXED, key, message, signature),
            Self::P384(key) => fits(&signature::ECDSA_P384_SHA384_FIXED, key, message, signature),
            Self::Ed25519(key) => fits(&signature::ED25519, key, message, signature),
        }
    }
}

fn fits(
    algorithm: &'static dyn signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signed: &[u8],
) -> bool {
    signature::UnparsedPublicKey::new(algorithm, key).verify(message, signed).is_ok()
}

fn hmac_algorithm(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA256,
    }
}

fn rsa_algorithm(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// The header of a token.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<serde_json::Value>,
}

/// A token whose parts have been read, and nothing else.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Which key has signed it, as it says.
    pub kid: Option<String>,
    /// The claims, JSON.
    pub payload: String,
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// Why a token is not good. The client reads it.
pub type Fault = &'static str;

impl<'a> Parsed<'a> {
    /// Takes a token in the compact form apart.
    ///
    /// # Errors
    /// It is none.
    pub fn of(token: &'a str) -> Result<Self, Fault> {
        const MALFORMED: Fault = "it is malformed";
        if token.len() > LONGEST {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| MALFORMED)?;
        if header.crit.is_some() {
            return Err("it needs an extension that is not known");
        }
        let algorithm = Algorithm::of(&header.alg).ok_or("its algorithm is not accepted")?;
        if header.kid.as_ref().is_some_and(|kid| kid.len() > 256) {
            return Err(MALFORMED);
        }
        Ok(Self {
            algorithm,
            kid: header.kid,
            payload: String::from_utf8(decode(payload)?).map_err(|_| MALFORMED)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// Whether a key has signed it.
    pub fn is_signed_with(&self, key: &Material) -> bool {
        key.verifies(self.algorithm, self.signed, &self.signature)
    }
}

/// Makes a token that is signed with a secret (HS256).
pub fn sign(secret: &[u8], kid: &str, payload: &str) -> String {
    let header = serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": kid }).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, A.1: a token that others have signed with a secret.
    const RFC_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHA\
        iOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27u\
        hbUJU1p1r_wW1gFWFOEjXk";
    const RFC_SECRET: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

    #[test]
    fn the_example_of_the_rfc_is_verified() {
        let parsed = Parsed::of(RFC_TOKEN).unwrap();
        let secret = Material::Secret(URL_SAFE_NO_PAD.decode(RFC_SECRET).unwrap());
        assert!(parsed.is_signed_with(&secret));
        assert!(parsed.payload.contains("\"joe\""));
        assert!(!parsed.is_signed_with(&Material::Secret(vec![1; 64])));
        assert!(!parsed.is_signed_with(&Material::Ed25519(vec![1; 32])));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = sign(&[7; 32], "k", "{}");
        assert!(Parsed::of(&good).unwrap().is_signed_with(&Material::Secret(vec![7; 32])));
        let parts: Vec<&str> = good.split('.').collect();
        let (header, claims, tag) = (parts[0], parts[1], parts[2]);
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for bad in [
            String::new(),
            "a".into(),
            "a.b".into(),
            "..".into(),
            format!("{header}.{claims}"),
            format!("{header}.{claims}.{tag}.x"),
            format!("{header}.{claims}.{tag}="),
            format!("{header}.!!.{tag}"),
            format!("!!.{claims}.{tag}"),
            format!("{}.{claims}.{tag}", encode("[]")),
            format!("{}.{claims}.{tag}", encode("{}")),
            format!("{}.{claims}.{tag}", encode("{\"alg\":\"none\"}")),
            format!("{}.{claims}.", encode("{\"alg\":\"none\"}")),
            format!("{}.{claims}.", encode("{\"alg\":\"None\"}")),
            format!("{}.{claims}.{tag}", encode("{\"alg\":\"HS256\",\"crit\":[\"b64\"]}")),
            format!("{}.{claims}.{tag}", encode("{\"alg\":\"HS256\",\"alg\":\"none\"}")),
            format!("{header}.{}.{tag}", URL_SAFE_NO_PAD.encode([0xff])),
            format!("{header}.{}.{tag}", "A".repeat(LONGEST)),
        ] {
            assert!(Parsed::of(&bad).is_err(), "{bad:.80}");
        }
        // Without its signature it is a token, but nobody's.
        let unsigned = format!("{header}.{claims}.");
        let parsed = Parsed::of(&unsigned).unwrap();
        assert!(!parsed.is_signed_with(&Material::Secret(vec![7; 32])));
    }
}
