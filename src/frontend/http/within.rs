//! Which operations run in the transaction that `X-Transaction-Id` names, or in the session of
//! `X-Session-Id`. Everywhere else the headers are refused: who sends one means that what he does
//! belongs there, and must not find that it was done elsewhere.

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use super::open::number_in;
use crate::error::{Error, ErrorKind, Result};

/// The header that names a transaction.
pub const TRANSACTION: &str = "x-transaction-id";

/// The header that names a session.
pub const SESSION: &str = "x-session-id";

static X_TRANSACTION_ID: HeaderName = HeaderName::from_static(TRANSACTION);
static X_SESSION_ID: HeaderName = HeaderName::from_static(SESSION);

/// What an operation takes: a transaction, a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Either.
    Both,
    /// A session.
    Session,
}

/// Routes whose operations run there; a method before it means this one alone.
const OPERATIONS: [(&str, Takes); 13] = [
    ("/api/v1/query", Takes::Both),
    ("/api/v1/query/explain", Takes::Both),
    ("/api/v1/batch", Takes::Both),
    ("/api/v1/sql/procedures/{name}/call", Takes::Both),
    ("/api/v1/tables/{name}/rows", Takes::Both),
    ("/api/v1/tables/{name}/rows/{id}", Takes::Both),
    ("POST /api/v1/transactions", Takes::Session),
    ("POST /api/v1/prepared", Takes::Session),
    ("GET /api/v1/prepared", Takes::Session),
    ("HEAD /api/v1/prepared", Takes::Session),
    ("GET /api/v1/prepared/{name}", Takes::Session),
    ("HEAD /api/v1/prepared/{name}", Takes::Session),
    ("DELETE /api/v1/prepared/{name}", Takes::Session),
];

/// Whether the operation of a route takes this header.
pub fn takes(header: &str, method: &str, route: &str) -> bool {
    let is_it = |name: &str| match name.split_once(' ') {
        Some((only, path)) => only == method && path == route,
        None => name == route,
    };
    let found = OPERATIONS.iter().find(|(name, _)| is_it(name));
    found.is_some_and(|(_, takes)| *takes == Takes::Both || header == SESSION)
}

/// Refuses the headers where they would not count.
///
/// # Errors
/// One is there, and the operation does not take it.
pub fn check(parts: &Parts) -> Result<()> {
    if ![&X_TRANSACTION_ID, &X_SESSION_ID].iter().any(|name| parts.headers.contains_key(*name)) {
        return Ok(());
    }
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let path = parts.uri.path();
    refuse(&parts.headers, TRANSACTION, (parts.method.as_str(), route), path)?;
    refuse(&parts.headers, SESSION, (parts.method.as_str(), route), path)
}

fn refuse(
    headers: &HeaderMap,
    header: &'static str,
    (method, route): (&str, &str),
    path: &str,
) -> Result<()> {
    if takes(header, method, route) {
        return Ok(());
    }
    let Some(number) = number_in(headers, header)? else { return Ok(()) };
    let (name, group, where_else) = match header {
        TRANSACTION => (
            "X-Transaction-Id",
            "/api/v1/transactions/",
            "/api/v1/query, its /explain, /api/v1/batch, /api/v1/tables/{name}/rows and \
             /api/v1/sql/procedures/{name}/call take it",
        ),
        _ => (
            "X-Session-Id",
            "/api/v1/sessions/",
            "/api/v1/query, its /explain, /api/v1/batch, /api/v1/tables/{name}/rows, \
             /api/v1/prepared, /api/v1/sql/procedures/{name}/call and POST /api/v1/transactions \
             take it",
        ),
    };
    // What the path names already may be named once more.
    let named = path.strip_prefix(group).and_then(|rest| rest.split('/').next());
    if named.is_some_and(|named| named == number.to_string()) {
        return Ok(());
    }
    let text = format!("{method} {route} does not run where {name} says: leave the header out");
    Err(Error::new(ErrorKind::ValidationError, text).with_hint(where_else))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_which() {
        for (method, route, transaction, session) in [
            ("POST", "/api/v1/query", true, true),
            ("PATCH", "/api/v1/tables/{name}/rows/{id}", true, true),
            ("POST", "/api/v1/query/explain", true, true),
            ("POST", "/api/v1/transactions", false, true),
            ("GET", "/api/v1/transactions", false, false),
            ("DELETE", "/api/v1/prepared/{name}", false, true),
            ("GET", "/api/v1/prepared", false, true),
            ("POST", "/api/v1/tables", false, false),
            ("GET", "/rest/v1/{table}", false, false),
        ] {
            let found = (takes(TRANSACTION, method, route), takes(SESSION, method, route));
            assert_eq!(found, (transaction, session), "{method} {route}");
        }
    }

    #[test]
    fn what_the_path_names_may_be_named_again() {
        let headers = HeaderMap::from_iter([(
            axum::http::HeaderName::from_static(TRANSACTION),
            "7".parse().unwrap(),
        )]);
        let commit = ("POST", "/api/v1/transactions/{id}/commit");
        let refuse = |path: &str| refuse(&headers, TRANSACTION, commit, path);
        assert!(refuse("/api/v1/transactions/7/commit").is_ok());
        assert!(refuse("/api/v1/transactions/8/commit").is_err());
    }
}
