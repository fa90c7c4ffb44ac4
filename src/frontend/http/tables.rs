//! Which table a request's path is about, for permissions that name one.

use std::borrow::Cow;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method};

use super::rows::uri::{Parameters, pairs, segments};
use crate::config::Api;
use crate::error::Result;

static ACCEPT_PROFILE: HeaderName = HeaderName::from_static("accept-profile");
static CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");

/// Schema and name of the table, and what writing its rows is more exactly.
type Named<'p> = (Cow<'p, str>, Cow<'p, str>, &'static [&'static str]);

/// The table of a request, read as its handler will.
///
/// # Errors
/// The path or the query string is not UTF-8, or names two schemas.
pub fn named<'p>(parts: &'p Parts, api: &'p Api) -> Result<Option<Named<'p>>> {
    let path = parts.uri.path();
    if let Some(rest) = path.strip_prefix("/rest/v1") {
        let schema = profile(parts, api);
        let mut segments = segments(rest)?;
        let name = segments.pop().filter(|name| segments.is_empty() && !name.is_empty());
        return Ok(name.map(|name| (schema.into(), name, actions(parts, true))));
    }
    let Some(rest) = path.strip_prefix("/api/v1/tables/") else { return Ok(None) };
    let schema = Parameters::of(parts.uri.query())?.take("schema")?;
    let schema = schema.map_or("public".into(), Cow::Owned);
    let mut segments = segments(rest)?.into_iter();
    let name = segments.next().filter(|name| !name.is_empty());
    let is_rows = segments.next().is_some_and(|part| part == "rows");
    Ok(name.map(|name| (schema, name, actions(parts, is_rows))))
}

/// The schema that the headers name below `/rest/v1`.
fn profile<'p>(parts: &'p Parts, api: &'p Api) -> &'p str {
    let header = match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS => &ACCEPT_PROFILE,
        _ => &CONTENT_PROFILE,
    };
    let named = parts.headers.get(header).and_then(|value| value.to_str().ok());
    let named = named.filter(|schema| !schema.is_empty());
    let usual = || api.rest_schemas.first().map_or("public", String::as_str);
    named.unwrap_or_else(usual)
}

/// What writing rows is, more exactly.
fn actions(parts: &Parts, is_rows: bool) -> &'static [&'static str] {
    let is_rest = parts.uri.path().starts_with("/rest/");
    match parts.method {
        _ if !is_rows => &[],
        Method::POST if changes_what_is_there(parts) => &["create", "update"],
        Method::POST => &["create"],
        Method::PUT if is_rest => &["create", "update"],
        Method::PATCH | Method::PUT => &["update"],
        Method::DELETE => &["delete"],
        _ => &[],
    }
}

/// Whether rows that are inserted may be there already.
fn changes_what_is_there(parts: &Parts) -> bool {
    let is_preferred = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("resolution"))
    };
    parts.headers.get_all("prefer").iter().any(is_preferred)
        || parts.uri.query().is_some_and(|query| {
            pairs(query)
                .is_ok_and(|all| all.iter().any(|(name, _)| name.starts_with("on_conflict")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    #[test]
    fn which_table() {
        let api = Api { rest_schemas: vec!["api".into(), "app".into()], ..Api::default() };
        for (method, uri, profile, expected) in [
            ("GET", "/rest/v1/films?id=eq.1", "", Some(("api", "films", &[][..]))),
            ("GET", "/rest/v1/%66ilms/", "app", Some(("app", "films", &[][..]))),
            ("POST", "/rest/v1/films", "app", Some(("app", "films", &["create"][..]))),
            ("GET", "/rest/v1/rpc/films", "", None),
            ("GET", "/rest/v1/", "", None),
            ("GET", "/api/v1/tables/films", "", Some(("public", "films", &[][..]))),
            ("DELETE", "/api/v1/tables/f%2Eg?schema=%61", "", Some(("a", "f.g", &[][..]))),
            ("DELETE", "/api/v1/tables/f/rows/1?schema=a", "", Some(("a", "f", &["delete"][..]))),
            ("GET", "/api/v1/tables", "", None),
            ("GET", "/api/v1/query", "", None),
        ] {
            let request = Request::builder().method(method).uri(uri);
            let request = request.header("accept-profile", profile);
            let request = request.header("content-profile", profile).body(()).unwrap();
            let parts = request.into_parts().0;
            let found = named(&parts, &api).unwrap();
            let found = found.as_ref().map(|(schema, name, how)| (&**schema, &**name, *how));
            assert_eq!(found, expected, "{method} {uri}");
        }
        let twice = Request::get("/api/v1/tables/f?schema=a&schema=b").body(()).unwrap();
        assert!(named(&twice.into_parts().0, &api).is_err());
    }
}
