//! Tokens from end to end: what is taken, and everything that is not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};

use super::rsa_vectors::{CLAIMS, PUBLIC, SIGNATURES};
use super::*;
use crate::auth::tables::{SqlFuture, SystemSql, Tables};
use crate::config::{Config, JwtIssuer, JwtKey};
use crate::types::Secret;

const SECRET: &str = "a secret of at least thirty-two bytes";

/// A PostgreSQL without tables of RustyDB's own.
struct NoTables;

impl SystemSql for NoTables {
    fn run(&self, _: String) -> SqlFuture<'_> {
        Box::pin(async { Ok(vec![vec![None]]) })
    }
}

fn issuer(name: &str, keys: Vec<JwtKey>) -> JwtIssuer {
    let text = format!("issuer = \"{name}\"\naudience = [\"api\", \"web\"]");
    JwtIssuer { keys, leeway_secs: 5, ..toml::from_str(&text).unwrap() }
}

fn secret_key() -> JwtKey {
    JwtKey { secret: Some(Secret::new(SECRET)), kid: Some("s".into()), ..JwtKey::default() }
}

fn tokens(issuers: Vec<JwtIssuer>) -> Tokens {
    let mut config = Config::default();
    config.jwt.issuers = issuers;
    let live = Live::fixed(config);
    let logins = Logins::new(Arc::new(Tables::new(Arc::new(NoTables))), live.clone());
    let tokens = Tokens::new(live, Arc::default(), logins);
    tokens.reload().unwrap();
    tokens
}

fn claims(issuer: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut claims = serde_json::json!({
        "iss": issuer, "sub": "user-1", "aud": "api", "role": "web",
        "iat": now(), "exp": now() + 100, "app": { "role": "inner" },
    });
    change(&mut claims);
    claims.to_string()
}

fn assemble(
    header: &serde_json::Value,
    claims: &str,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(&header.to_string()), encode(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_good_token_names_its_role_and_keeps_its_claims() {
    let tokens = tokens(vec![
        issuer("a", vec![secret_key()]),
        JwtIssuer { role_claim: "$.app.role".into(), ..issuer("b", vec![secret_key()]) },
        JwtIssuer {
            role_claim: "missing".into(),
            default_role: Some("anon".into()),
            ..issuer("c", vec![secret_key()])
        },
    ]);
    for (issuer, role, named) in [("a", "web", false), ("b", "inner", false), ("c", "anon", true)] {
        let claims = claims(issuer, |_| {});
        let token = jws::sign(SECRET.as_bytes(), "s", &claims);
        for _ in 0..2 {
            let grant = tokens.verify(&token).await.unwrap();
            assert_eq!((grant.role.as_str(), grant.subject.as_str()), (role, "user-1"));
            assert_eq!(grant.claims.as_deref(), Some(claims.as_str()));
            assert_eq!(grant.may_be_superuser, named);
        }
    }
    assert_eq!(tokens.verified.lock().len(), 3);
}

#[tokio::test]
async fn what_is_not_good_is_refused() {
    let tokens = tokens(vec![
        issuer("a", vec![secret_key()]),
        JwtIssuer { roles: vec!["web".into()], ..issuer("r", vec![secret_key()]) },
        JwtIssuer { role_claim: "missing".into(), ..issuer("m", vec![secret_key()]) },
        JwtIssuer { algorithms: vec!["HS512".into()], ..issuer("h", vec![secret_key()]) },
    ]);
    let sign = |claims: &str| jws::sign(SECRET.as_bytes(), "s", claims);
    let with = |issuer: &str, name: &str, value: serde_json::Value| {
        sign(&claims(issuer, |claims| claims[name] = value))
    };
    let good = sign(&claims("a", |_| {}));
    let none = serde_json::json!({ "alg": "none", "kid": "s" });
    let cut = &good[..good.len() - 3];
    for (what, token, why) in [
        ("none", assemble(&none, &claims("a", |_| {}), |_| Vec::new()), "algorithm"),
        ("wrong secret", jws::sign(&[1; 32], "s", &claims("a", |_| {})), "signature"),
        ("cut", cut.to_owned(), "signature"),
        ("unknown key", jws::sign(SECRET.as_bytes(), "t", &claims("a", |_| {})), "key"),
        ("audience", with("a", "aud", "other".into()), "somebody else"),
        ("expired", with("a", "exp", (now() - 6).into()), "expired"),
        ("not yet", with("a", "nbf", (now() + 60).into()), "not valid yet"),
        ("future", with("a", "iat", (now() + 60).into()), "future"),
        ("no subject", with("a", "sub", serde_json::Value::Null), "sub"),
        ("unknown issuer", with("a", "iss", "x".into()), "issuer"),
        ("no issuer", with("a", "iss", serde_json::Value::Null), "issued"),
        ("its role may not be named", with("r", "role", "postgres".into()), "role"),
        ("no role", sign(&claims("m", |_| {})), "role"),
        ("another algorithm", sign(&claims("h", |_| {})), "algorithm"),
        ("claims to be ours", with("a", "iss", OWN_ISSUER.into()), "signature"),
        ("too long", with("a", "pad", "x".repeat(jws::LONGEST).into()), "too long"),
    ] {
        let error = tokens.verify(&token).await.expect_err(what);
        assert!(error.message().contains(why), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{what}");
    }
    assert!(tokens.verify(&good).await.is_ok());
    assert_eq!(tokens.verified.lock().len(), 1, "what is refused is not remembered");
}

#[tokio::test]
async fn a_remembered_token_still_expires() {
    let tokens = tokens(vec![JwtIssuer { leeway_secs: 0, ..issuer("a", vec![secret_key()]) }]);
    let claims = claims("a", |claims| claims["exp"] = (now() + 2).into());
    let token = jws::sign(SECRET.as_bytes(), "s", &claims);
    assert!(tokens.verify(&token).await.is_ok());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let error = tokens.verify(&token).await.unwrap_err();
    assert!(error.message().contains("expired"), "{error}");
    assert!(tokens.verified.lock().is_empty());
}

/// A file with a public key, and the key as its bytes.
fn pem(text: &str) -> (tempfile::NamedTempFile, JwtKey) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let pem_file = Some(file.path().to_owned());
    (file, JwtKey { pem_file, kid: Some("p".into()), ..JwtKey::default() })
}

#[tokio::test]
async fn public_keys_verify_and_are_never_secrets() {
    let random = SystemRandom::new();
    for (kind, name) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384"),
        (&rcgen::PKCS_ED25519, "EdDSA"),
    ] {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        let public = pair.public_key_pem();
        let (_file, key) = pem(&public);
        let tokens = tokens(vec![issuer("a", vec![key])]);
        let ecdsa = |algorithm, message: &[u8]| {
            let key = EcdsaKeyPair::from_pkcs8(algorithm, &der, &random).unwrap();
            key.sign(&random, message).unwrap().as_ref().to_vec()
        };
        let sign = |message: &[u8]| match name {
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, message),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, message),
            _ => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
                .unwrap()
                .sign(message)
                .as_ref()
                .to_vec(),
        };
        let header = serde_json::json!({ "alg": name, "kid": "p" });
        let good = assemble(&header, &claims("a", |_| {}), sign);
        assert_eq!(tokens.verify(&good).await.unwrap().role.as_str(), "web", "{name}");
        let mut bad = good.clone().into_bytes();
        let middle = good.find('.').unwrap() + 10;
        bad[middle] = if bad[middle] == b'A' { b'B' } else { b'A' };
        assert!(tokens.verify(std::str::from_utf8(&bad).unwrap()).await.is_err(), "{name}");

        // The key as it is published, taken as the secret of HMAC, in every way it may be written.
        let raw = pair.public_key_raw().to_vec();
        let spki = pair.subject_public_key_info();
        for secret in [public.as_bytes(), public.trim_end().as_bytes(), &raw, &spki] {
            for algorithm in ["HS256", name] {
                let header = serde_json::json!({ "alg": algorithm, "kid": "p" });
                let forged = assemble(&header, &claims("a", |_| {}), |message| {
                    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                    ring::hmac::sign(&key, message).as_ref().to_vec()
                });
                assert!(tokens.verify(&forged).await.is_err(), "{name} {algorithm}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_of_other_programs_with_rsa_keys_are_taken() {
    let (_file, key) = pem(PUBLIC);
    let tokens = tokens(vec![issuer("a", vec![key])]);
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(CLAIMS).unwrap()).unwrap();
    let of = |algorithm: &str, signature: &str| {
        let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"p\"}}");
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let header = serde_json::from_str(&header).unwrap();
        assemble(&header, &claims, |_| signature)
    };
    for (algorithm, signature) in SIGNATURES {
        let grant = tokens.verify(&of(algorithm, signature)).await;
        assert_eq!(grant.unwrap().role.as_str(), "web", "{algorithm}");
        for (other, _) in SIGNATURES.iter().filter(|(other, _)| *other != algorithm) {
            assert!(tokens.verify(&of(other, signature)).await.is_err(), "{algorithm} {other}");
        }
    }
}
