//! Values that the keys of tokens, rate limits and the audit log have, and what they must satisfy.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value as Toml;

use super::value::choice;
use super::{Config, Value};
use crate::types::Secret;

/// Issuers and rules in a configuration; more would be a mistake.
const MOST_TABLES: usize = 100;

/// Ten years, within which no sum of times overflows.
const LONGEST_SECS: u64 = 315_360_000;

/// Keys of one issuer.
const MOST_KEYS: usize = 100;

choice! {
    /// How a rate is counted.
    RateAlgorithm {
        /// Even, with a burst.
        TokenBucket = "token_bucket",
        /// In any window of the length.
        SlidingWindow = "sliding_window",
        /// In windows that begin at fixed times.
        FixedWindow = "fixed_window",
    }

    /// Whom a rule of rates counts.
    RateScope {
        /// Everybody together.
        Global = "global",
        /// Each address by itself.
        Address = "address",
        /// Each role by itself.
        User = "user",
        /// Each API key by itself.
        ApiKey = "api_key",
        /// Each route by itself.
        Route = "route",
    }

    /// Which HTTP requests the audit log has a record of.
    AuditLevel {
        /// None.
        Security = "security",
        /// Those that change definitions or the server.
        Ddl = "ddl",
        /// Those that may change something.
        Write = "write",
        /// All.
        All = "all",
    }

    /// What happens to an event when the audit log cannot keep up.
    AuditFull {
        /// What it is about waits for up to a second; then the event is lost and counted.
        Block = "block",
        /// It is lost and counted.
        Drop = "drop",
        /// What it is about is refused.
        Refuse = "refuse",
    }
}

/// An issuer of tokens that is trusted, a table `[[security.jwt.issuers]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuer {
    /// What the claim `iss` of its tokens is.
    pub issuer: String,
    /// What the claim `aud` of its tokens must name one of.
    pub audience: Vec<String>,
    /// Where its keys are published, `https://…` (or `http://` on loopback).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Keys that are known beforehand.
    #[serde(default)]
    pub keys: Vec<JwtKey>,
    /// Algorithms that its tokens may be signed with; empty = those that its keys are made for, but
    /// HMAC only with a secret that stands here.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// The claim that holds the PostgreSQL role: a name, or a path such as `$.app.role`.
    #[serde(default = "role_claim")]
    pub role_claim: String,
    /// The role of tokens without that claim; without a value they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_role: Option<String>,
    /// Roles that its tokens may name; empty = every one that is no superuser.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Seconds by which its clock may be off.
    #[serde(default = "leeway")]
    pub leeway_secs: u32,
}

/// A key that is known beforehand: one of the four.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwtKey {
    /// What the header `kid` of the tokens says; without a value, tokens without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// A public key (PEM, SubjectPublicKeyInfo).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pem_file: Option<PathBuf>,
    /// A JSON Web Key, or a set of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// A secret for HMAC, at least 32 bytes.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "secret",
        serialize_with = "hidden"
    )]
    pub secret: Option<Secret>,
    /// A file with such a secret; the end of its line does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

/// A rule of rates, a table `[[rate_limit.rules]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateRule {
    /// Its name, for the log.
    pub id: String,
    /// Whom it counts: global, address, user, api_key or route.
    #[serde(with = "words")]
    pub scope: RateScope,
    /// The one that it is for: a role, a route, …; without a value, each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// token_bucket, sliding_window or fixed_window.
    #[serde(with = "words", default = "algorithm")]
    pub algorithm: RateAlgorithm,
    /// Cost that may be spent in a window.
    pub requests: u32,
    /// Seconds of a window.
    pub window_secs: u32,
    /// What a token bucket holds; without a value as much as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Words of a choice in a table.
mod words {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::config::Value;

    pub(super) fn serialize<T: Value, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(v.write().as_str().unwrap_or_default())
    }

    pub(super) fn deserialize<'de, T: Value, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        T::read(&toml::Value::String(String::deserialize(d)?)).map_err(serde::de::Error::custom)
    }
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(from).map(|text| Some(Secret::new(text)))
}

fn hidden<S: Serializer>(_: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str("***")
}

fn role_claim() -> String {
    "role".into()
}

fn leeway() -> u32 {
    60
}

fn algorithm() -> RateAlgorithm {
    RateAlgorithm::TokenBucket
}

/// Reads a list of tables.
fn tables<T: for<'de> Deserialize<'de>>(raw: &Toml, what: &str) -> Result<Vec<T>, String> {
    let items = match raw {
        Toml::Array(items) if items.len() <= MOST_TABLES => items,
        Toml::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
        _ => return Err(format!("a list of at most {MOST_TABLES} tables, each {what}")),
    };
    let read = |item: &Toml| item.clone().try_into().map_err(|e: toml::de::Error| e);
    let read: Result<Vec<T>, _> = items.iter().map(read).collect();
    read.map_err(|e| format!("a list of tables, each {what}: {}", e.message().trim()))
}

fn written<T: Serialize>(items: &[T]) -> Toml {
    let item = |item| Toml::try_from(item).unwrap_or_else(|_| Toml::String("?".into()));
    Toml::Array(items.iter().map(item).collect())
}

impl Value for Vec<JwtIssuer> {
    fn read(raw: &Toml) -> Result<Self, String> {
        tables(raw, "an issuer of tokens")
    }

    fn write(&self) -> Toml {
        written(self)
    }
}

impl Value for Vec<RateRule> {
    fn read(raw: &Toml) -> Result<Self, String> {
        tables(raw, "a rule of rates")
    }

    fn write(&self) -> Toml {
        written(self)
    }
}

impl JwtIssuer {
    /// What is wrong with it, in a few words.
    fn fault(&self) -> Option<String> {
        let fault = |text: &str| Some(format!("of \"{}\": {text}", self.issuer));
        if self.issuer.is_empty() {
            return Some("an issuer has no name".into());
        }
        if self.audience.is_empty() {
            return fault("audience is empty; tokens for somebody else would be taken");
        }
        if self.keys.is_empty() == self.jwks_url.is_none() && self.keys.is_empty() {
            return fault("it has neither keys nor a jwks_url");
        }
        if self.keys.len() > MOST_KEYS {
            return fault("it has more than 100 keys");
        }
        if self.leeway_secs > 600 {
            return fault("leeway_secs must be at most 600");
        }
        if let Some(url) = &self.jwks_url
            && !is_private(url)
        {
            return fault("jwks_url must begin with https:// (http:// only on loopback)");
        }
        let one = |key: &JwtKey| {
            [key.pem_file.is_some(), key.jwks_file.is_some(), key.secret.is_some()]
                .into_iter()
                .chain([key.secret_file.is_some()])
                .filter(|is| *is)
                .count()
                == 1
        };
        if !self.keys.iter().all(one) {
            return fault("a key needs one of pem_file, jwks_file, secret, secret_file");
        }
        let path = self.role_claim.strip_prefix("$.").unwrap_or(&self.role_claim);
        if path.split('.').any(|part| part.is_empty() || part.starts_with('$')) {
            return fault("role_claim must be a name, or a path such as $.app.role");
        }
        None
    }
}

/// Whether nobody on the way can change what is fetched.
fn is_private(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(url::Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(url::Host::Ipv6(address))) => address.is_loopback(),
        ("http", Some(url::Host::Domain(name))) => name == "localhost",
        _ => false,
    }
}

impl Config {
    pub(super) fn check_access(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let one = "must be at least 1";
        for fault in self.jwt.issuers.iter().filter_map(JwtIssuer::fault) {
            check(false, "security.jwt.issuers", &fault);
        }
        let mut names: Vec<&str> = self.jwt.issuers.iter().map(|i| i.issuer.as_str()).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        check(names.len() == before, "security.jwt.issuers", "names an issuer twice");
        check(
            !names.contains(&super::OWN_ISSUER),
            "security.jwt.issuers",
            "names the issuer of RustyDB's own tokens",
        );
        let tokens = &self.tokens;
        for (secs, path) in [
            (&tokens.access_ttl_secs, "security.tokens.access_ttl_secs"),
            (&tokens.refresh_ttl_secs, "security.tokens.refresh_ttl_secs"),
            (&tokens.session_ttl_secs, "security.tokens.session_ttl_secs"),
            (&self.lockout.window_secs, "security.lockout.window_secs"),
            (&self.lockout.duration_secs, "security.lockout.duration_secs"),
            (&self.rate_limit.window_secs, "rate_limit.window_secs"),
        ] {
            check(secs.0 <= LONGEST_SECS, path, "must be at most ten years");
        }
        check(tokens.access_ttl_secs.0 > 0, "security.tokens.access_ttl_secs", one);
        check(tokens.refresh_ttl_secs.0 > 0, "security.tokens.refresh_ttl_secs", one);
        check(tokens.session_ttl_secs.0 > 0, "security.tokens.session_ttl_secs", one);
        let keys = self.api_keys.max_per_user;
        check((1..=1000).contains(&keys), "security.api_keys.max_per_user", "must be 1 to 1000");
        let shortest = self.password.min_length;
        check((1..=128).contains(&shortest), "security.password.min_length", "must be 1 to 128");
        let lockout = &self.lockout;
        check(
            (1..=100).contains(&lockout.max_failures),
            "security.lockout.max_failures",
            "must lie between 1 and 100",
        );
        check(lockout.window_secs.0 > 0, "security.lockout.window_secs", one);
        let audit = &self.audit;
        let sizes = 4096..=1 << 40;
        check(
            sizes.contains(&audit.rotate_bytes.0),
            "security.audit.rotate_bytes",
            "must lie between 4 KiB and 1 TiB",
        );
        let files = 1..=1000;
        check(
            files.contains(&audit.rotate_files),
            "security.audit.rotate_files",
            "must be 1 to 1000",
        );
        let channel = 1..=1_000_000;
        check(channel.contains(&audit.channel), "security.audit.channel", "must be 1 to 1000000");
        let rates = &self.rate_limit;
        check(rates.requests > 0, "rate_limit.requests", one);
        check(rates.window_secs.0 > 0, "rate_limit.window_secs", one);
        check(rates.burst > 0, "rate_limit.burst", one);
        let keys = 16..=10_000_000;
        check(keys.contains(&rates.max_keys), "rate_limit.max_keys", "must be 16 to 10000000");
        for rule in &rates.rules {
            let is_right = rule.requests > 0 && rule.window_secs > 0 && rule.burst != Some(0);
            check(is_right, "rate_limit.rules", &format!("rule \"{}\" has a zero", rule.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Inputs, RateAlgorithm, RateScope};

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let inputs = Inputs { file: Some(file.path().into()), ..Inputs::default() };
        inputs.load().map(|loaded| loaded.config).map_err(|e| e.to_string())
    }

    #[test]
    fn issuers_and_rules_are_tables() {
        let config = load(
            "[[security.jwt.issuers]]\n\
             issuer = \"https://a\"\naudience = [\"api\"]\njwks_url = \"https://a/jwks\"\n\
             [[security.jwt.issuers]]\n\
             issuer = \"b\"\naudience = [\"api\"]\nrole_claim = \"$.app.role\"\n\
             keys = [{ kid = \"1\", secret = \"hush hush hush hush hush hush hush\" }]\n\
             [[rate_limit.rules]]\n\
             id = \"r\"\nscope = \"route\"\nkey = \"/q\"\nalgorithm = \"sliding_window\"\n\
             requests = 1000\nwindow_secs = 60\n",
        );
        let config = config.unwrap();
        assert_eq!(config.jwt.issuers.len(), 2);
        assert_eq!(config.jwt.issuers[0].leeway_secs, 60);
        let rule = &config.rate_limit.rules[0];
        assert_eq!((rule.scope, rule.algorithm), (RateScope::Route, RateAlgorithm::SlidingWindow));
        let shown = config.get("security.jwt.issuers").unwrap().to_string();
        assert!(shown.contains("***") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn what_would_let_anybody_in_is_refused() {
        let of = |text: &str| load(&format!("[[security.jwt.issuers]]\n{text}")).unwrap_err();
        for (text, wrong) in [
            ("issuer = \"a\"\naudience = []\njwks_url = \"https://a\"", "audience is empty"),
            ("issuer = \"a\"\naudience = [\"x\"]", "neither keys nor"),
            ("issuer = \"a\"\naudience = [\"x\"]\njwks_url = \"http://a/\"", "https://"),
            ("issuer = \"a\"\naudience = [\"x\"]\njwks_url = \"https://a\"\nrol = 1", "rol"),
            ("issuer = \"a\"\naudience = [\"x\"]\nkeys = [{ kid = \"1\" }]", "needs one of"),
            ("issuer = \"rustydb\"\naudience = [\"x\"]\njwks_url = \"https://a\"", "own tokens"),
            ("audience = [\"x\"]", "issuer"),
        ] {
            let error = of(text);
            assert!(error.contains(wrong), "{error}");
        }
    }
}
