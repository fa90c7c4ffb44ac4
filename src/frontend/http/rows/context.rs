//! What a generated statement runs with: who asks, and for what, where policies and functions can
//! read it with `current_setting('request.…', true)`.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::super::extract::SESSION_COOKIE;
use crate::auth::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json::write_string;
use crate::query::schema::Schema;

/// Headers that are nobody's business in the database: credentials, and what belongs to the
/// connection.
const HIDDEN: [&str; 10] = [
    "authorization",
    "apikey",
    "x-api-key",
    "cookie",
    "x-csrf-token",
    "proxy-authorization",
    "connection",
    "keep-alive",
    "te",
    "transfer-encoding",
];

/// Settings of the transaction of a statement.
#[derive(Debug, Default)]
pub struct Settings<'a>(Vec<(&'a str, Cow<'a, str>)>);

/// Settings that most requests have.
const USUAL: usize = 8;

/// Settings of a role at most that are taken on with it.
const MOST: usize = 20;

/// Settings that are not taken on: who asks, and the forms of values that are understood.
const OURS: [&str; 7] = [
    "role",
    "session_authorization",
    "client_encoding",
    "DateStyle",
    "bytea_output",
    "extra_float_digits",
    "application_name",
];

impl<'a> Settings<'a> {
    /// Those that every statement for somebody begins with: his role where another one has logged
    /// in for him, with what `ALTER ROLE … SET` says of it, and who he is. `fixed` are settings
    /// that the session has for its answers.
    ///
    /// # Errors
    /// The role has more settings than can be taken on.
    pub fn of(identity: &'a Identity, schema: &'a Schema, fixed: &[&str]) -> Result<Self> {
        let mut settings = Self(Vec::with_capacity(USUAL));
        if let Some(login) = &identity.stand_in {
            let (role, login) = (identity.role.as_str(), login.role.as_str());
            for (name, value) in schema.settings_of_role(role, login) {
                if !fixed.iter().chain(&OURS).any(|ours| ours.eq_ignore_ascii_case(name)) {
                    settings = settings.hoisted(name, value);
                }
            }
            if settings.0.len() > MOST {
                let text = format!("the role {role} has more than {MOST} settings of its own");
                return Err(Error::new(ErrorKind::NotSupported, text)
                    .with_hint("ALTER ROLE … RESET takes away those that it does not need"));
            }
            // After them, for they are those that the other one may set.
            settings = settings.with("role", role);
        }
        Ok(settings.with("request.jwt.claims", claims_of(identity)))
    }

    /// One that would be in force before a transaction begins if somebody had logged in with it, or
    /// a function been called with it.
    pub fn hoisted(self, name: &'a str, value: &'a str) -> Self {
        match name {
            "default_transaction_isolation" => self.with("transaction_isolation", value),
            // It cannot be taken back when the other one's is on, which is the safer.
            "default_transaction_read_only" => self.read_only(is_on(value)),
            name => self.with(name, value),
        }
    }

    /// Who he is, and nothing else.
    pub fn claims(identity: &'a Identity) -> Self {
        Self::default().with("request.jwt.claims", claims_of(identity))
    }

    /// One more.
    pub fn with(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The statement must not change anything.
    pub fn read_only(self, is_read_only: bool) -> Self {
        if is_read_only { self.with("transaction_read_only", "on") } else { self }
    }

    /// Names and values.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value)).collect()
    }
}

/// Whether a text is one of PostgreSQL's for yes.
fn is_on(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&text);
    matches!(&*text, "on" | "1") || begins("true") || begins("yes")
}

/// The claims of the token that was shown; without one what is known of the caller.
fn claims_of(identity: &Identity) -> Cow<'_, str> {
    let claims = identity.grant.as_ref().and_then(|grant| grant.claims.as_deref());
    match claims {
        Some(claims) => claims.into(),
        None => {
            let role = identity.role.as_str();
            json!({ "role": role, "sub": role }).to_string().into()
        }
    }
}

/// The headers of a request as a JSON object.
pub fn headers_of(headers: &HeaderMap) -> String {
    let mut object = Vec::with_capacity(512);
    object.push(b'{');
    // Of several headers of a name the first counts: a name is there once.
    for name in headers.keys().filter(|name| !HIDDEN.contains(&name.as_str())) {
        let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        if object.len() > 1 {
            object.push(b',');
        }
        write_string(&mut object, name.as_str().as_bytes());
        object.push(b':');
        write_string(&mut object, value.as_bytes());
    }
    object.push(b'}');
    String::from_utf8(object).unwrap_or_default()
}

/// The cookies of a request as a JSON object, without that of RustyDB's own sessions; `None` =
/// there are no others.
pub fn cookies_of(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let others = pairs.filter(|(name, _)| *name != SESSION_COOKIE);
    // Of several cookies of a name the last counts.
    let object: Map<String, Value> =
        others.map(|(name, value)| (name.to_owned(), value.into())).collect();
    (!object.is_empty()).then(|| Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_get_into_the_database() {
        let mut headers = HeaderMap::new();
        for name in HIDDEN {
            headers.insert(name, "secret".parse().unwrap());
        }
        headers.insert("x-tenant", "\"a\\".parse().unwrap());
        assert_eq!(headers_of(&headers), r#"{"x-tenant":"\"a\\"}"#);
    }

    #[test]
    fn cookies_of_others_get_there() {
        let cookies = |lines: &[&str]| {
            let line = |line: &&str| (header::COOKIE, line.parse().unwrap());
            cookies_of(&lines.iter().map(line).collect())
        };
        assert_eq!(cookies(&[]), None);
        assert_eq!(cookies(&["rustydb_session=secret; nothing"]), None);
        let several = cookies(&["a=1=2; rustydb_session=secret", "b=\"x\""]);
        assert_eq!(several.as_deref(), Some(r#"{"a":"1=2","b":"\"x\""}"#));
    }

    #[test]
    fn defaults_of_a_role_hold_for_the_transaction() {
        let settings = Settings::default()
            .hoisted("default_transaction_isolation", "serializable")
            .hoisted("default_transaction_read_only", "Y")
            .hoisted("default_transaction_read_only", "off")
            .hoisted("statement_timeout", "1s");
        let expected = [
            ("transaction_isolation", "serializable"),
            ("transaction_read_only", "on"),
            ("statement_timeout", "1s"),
        ];
        assert_eq!(settings.pairs(), expected);
    }
}
