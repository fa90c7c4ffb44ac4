//! What a generated statement runs with: who asks, and for what, where policies and functions can
//! read it with `current_setting('request.…', true)`.

use std::borrow::Cow;

use axum::http::HeaderMap;
use serde_json::json;

use crate::auth::Identity;
use crate::proto::json::write_string;
use crate::query::quote_ident;

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
pub struct Settings<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Settings<'a> {
    /// Those that every statement for somebody begins with: his role where another one has logged
    /// in for him, and who he is.
    pub fn of(identity: &'a Identity) -> Self {
        let settings = Self::default();
        let settings = match identity.stand_in {
            Some(_) => settings.with("role", identity.role.as_str()),
            None => settings,
        };
        settings.with("request.jwt.claims", claims_of(identity))
    }

    /// Who he is, and nothing else.
    pub fn claims(identity: &'a Identity) -> Self {
        Self::default().with("request.jwt.claims", claims_of(identity))
    }

    /// One more.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The statement must not change anything.
    pub fn read_only(self, is_read_only: bool) -> Self {
        if is_read_only { self.with("transaction_read_only", "on") } else { self }
    }

    /// Names without a schema are looked for in this one first.
    pub fn search_path(self, schema: &str) -> Self {
        match schema {
            "public" => self.with("search_path", "public"),
            schema => self.with("search_path", format!("{}, public", quote_ident(schema))),
        }
    }

    /// Names and values.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value)).collect()
    }
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
    fn the_schema_of_a_request_is_looked_into_first() {
        let settings = Settings::default().search_path("a\", b").read_only(true);
        let expected = [("search_path", "\"a\"\", b\", public"), ("transaction_read_only", "on")];
        assert_eq!(settings.pairs(), expected);
    }
}
