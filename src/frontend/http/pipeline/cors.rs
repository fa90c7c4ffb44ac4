//! Cross-origin resource sharing: which pages may use the API from a browser. Not tower-http's
//! layer: origins change with the configuration, a foreign preflight is refused in the one error
//! shape, and `OPTIONS` without one belongs to the routes.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;

use super::number;
use crate::config::Api;
use crate::error::{Error, ErrorKind, Result};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// Headers of answers that a page may read beside those that every page may.
const EXPOSED: &str = "Allow, Content-Range, Deprecation, ETag, Idempotency-Replayed, Link, \
    Location, Preference-Applied, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, \
    Retry-After, Server-Timing, X-API-Version, X-Correlation-Id, X-Query-Id, X-Request-Id, \
    X-RustyDB-Version";

/// What a page may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// It is this server's own.
    Own,
    /// It is one of `api.cors_origins`.
    Trusted,
    /// Every page may, which is said to it as `*`.
    Any,
    /// It may not.
    Foreign,
}

fn page(api: &Api, origin: &HeaderValue, host: Option<&str>) -> Page {
    let Ok(origin) = origin.to_str() else { return Page::Foreign };
    let is_own = origin.split_once("://").is_some_and(|(scheme, at)| {
        let standard = if scheme == "https" { ":443" } else { ":80" };
        let bare = |name: &str| name.strip_suffix(standard).unwrap_or(name).to_ascii_lowercase();
        host.is_some_and(|host| bare(host) == bare(at))
    });
    let known = |wanted: &str| api.enable_cors && api.cors_origins.iter().any(|o| o == wanted);
    match () {
        () if is_own => Page::Own,
        () if known(origin) => Page::Trusted,
        () if known("*") => Page::Any,
        () => Page::Foreign,
    }
}

/// Where a request was sent to.
fn host<'a>(host: Option<&'a HeaderValue>, uri: &'a Uri) -> Option<&'a str> {
    let named = host.and_then(|host| host.to_str().ok());
    named.or_else(|| uri.authority().map(|authority| authority.as_str()))
}

/// The answer to a browser that asks before it sends a page's request; `None` = it is another
/// request.
pub(super) fn preflight(api: &Api, request: &Request) -> Result<Option<Response>> {
    let headers = request.headers();
    let asks = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let Some(origin) = headers.get(header::ORIGIN).filter(|_| asks) else { return Ok(None) };
    if page(api, origin, host(headers.get(header::HOST), request.uri())) == Page::Foreign {
        let text = "pages of this origin may not use the API";
        return Err(Error::new(ErrorKind::AuthorizationFailed, text)
            .with_hint("api.cors_origins names those that may"));
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, number(api.cors_max_age_secs.0));
    let depends = "Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.append(header::VARY, HeaderValue::from_static(depends));
    Ok(Some(response))
}

/// Checks that a request that a browser's cookie vouches for was not made by a foreign page.
///
/// # Errors
/// It was, or by a page that is only trusted as everybody is.
pub fn check_origin(api: &Api, headers: &HeaderMap, uri: &Uri) -> Result<()> {
    let is_foreign = match headers.get(header::ORIGIN) {
        Some(origin) => {
            let page = page(api, origin, host(headers.get(header::HOST), uri));
            matches!(page, Page::Foreign | Page::Any)
        }
        None => headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site"),
    };
    if is_foreign {
        let text = "pages of this origin may not use a session of the browser's";
        return Err(Error::new(ErrorKind::CsrfFailed, text)
            .with_hint("api.cors_origins names those that may"));
    }
    Ok(())
}

/// Tells the browser whether the page may read the answer.
pub(super) fn complete(
    api: &Api,
    origin: Option<&HeaderValue>,
    sent_to: (Option<&HeaderValue>, &Uri),
    answer: &mut HeaderMap,
) {
    if api.enable_cors && !api.cors_origins.is_empty() {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    let Some(origin) = origin else { return };
    let allowed = match page(api, origin, host(sent_to.0, sent_to.1)) {
        Page::Own | Page::Foreign => return,
        Page::Trusted => origin.clone(),
        Page::Any => HeaderValue::from_static("*"),
    };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    if api.cors_credentials {
        let yes = HeaderValue::from_static("true");
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let trusting = Api { cors_origins: vec!["https://app.test".into()], ..Api::default() };
        let of = |api: &Api, origin: &str, host: &str| {
            page(api, &HeaderValue::from_str(origin).unwrap(), Some(host))
        };
        for (origin, host, expected) in [
            ("https://app.test", "db.test", Page::Trusted),
            ("http://app.test", "db.test", Page::Foreign),
            ("https://app.test.evil.test", "db.test", Page::Foreign),
            ("http://db.test:8080", "db.test:8080", Page::Own),
            ("http://DB.test", "db.test:80", Page::Own),
            ("https://db.test", "db.test:443", Page::Own),
            ("http://db.test:8080", "db.test", Page::Foreign),
            ("null", "db.test", Page::Foreign),
            ("*", "db.test", Page::Foreign),
        ] {
            assert_eq!(of(&trusting, origin, host), expected, "{origin} {host}");
        }
        let off = Api { enable_cors: false, ..trusting };
        assert_eq!(of(&off, "https://app.test", "db.test"), Page::Foreign);
        let any = Api { cors_origins: vec!["*".into()], ..Api::default() };
        assert_eq!(of(&any, "null", "db.test"), Page::Any);
        let check = |name: &'static str, value: &'static str| {
            let headers = [("host", "db.test"), (name, value)];
            let headers = headers.map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            check_origin(&any, &HeaderMap::from_iter(headers), &Uri::from_static("/x")).is_ok()
        };
        assert!(check("origin", "http://db.test") && check("sec-fetch-site", "same-origin"));
        assert!(!check("origin", "http://app.test") && !check("sec-fetch-site", "cross-site"));
    }
}
