//! How much a request may be, and what no part of it may contain.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;

use super::super::rows::bulk::BulkFormat;
use crate::config::Api;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the request line.
const LONGEST_LINE: usize = 8 << 10;

/// What is read of a body that is refused, and for how long.
const MOST_DISCARDED: usize = 64 << 20;
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// Headers, and their bytes with what separates them.
const MOST_HEADERS: usize = 100;
const LONGEST_HEADERS: usize = 16 << 10;

/// Most bytes of the body. That of rows in lines is read as it comes.
pub(super) fn longest_body(config: &Api, request: &Request) -> usize {
    let path = request.uri().path();
    let is_rows = path.starts_with("/api/v1/tables/") && path.ends_with("/rows");
    match is_rows && BulkFormat::of(request.headers()).is_some() {
        true => config.max_bulk_size.len(),
        false => config.max_body_size.len(),
    }
}

/// Checks everything but the body itself. What the parser would not take for HTTP does not come
/// here.
pub(super) fn check_head(request: &Request, longest_body: usize) -> Result<()> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    // With the version and the two spaces.
    if request.method().as_str().len() + target.len() + 10 > LONGEST_LINE {
        let text = format!("the request line is longer than {LONGEST_LINE} bytes");
        return Err(too_large(text).with_http_status(414));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, v)| name.as_str().len() + v.len() + 4).sum();
    if headers.len() > MOST_HEADERS || bytes > LONGEST_HEADERS {
        let text =
            format!("a request has at most {MOST_HEADERS} headers of {LONGEST_HEADERS} bytes");
        return Err(too_large(text).with_http_status(431));
    }
    // Most paths have nothing that would have to be decoded.
    if target.contains('%') && !is_text(target) {
        let text = "the path or the query string is not UTF-8, or contains U+0000";
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse().ok()).is_some_and(|n: u64| n > longest_body as u64) {
        return Err(body_too_long(&format!("{longest_body} bytes")));
    }
    Ok(())
}

/// Reads what comes of a body that is refused, for a while: a client that is still sending when its
/// connection is closed does not see the answer.
pub(super) async fn discard(body: Body) {
    let mut body = Limited::new(body, MOST_DISCARDED);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // However it ends, the answer comes now.
    let _ = tokio::time::timeout(DISCARD_FOR, all).await;
}

fn is_text(target: &str) -> bool {
    percent_decode_str(target).decode_utf8().is_ok_and(|text| !text.contains('\0'))
}

fn too_large(text: String) -> Error {
    Error::new(ErrorKind::PayloadTooLarge, text)
}

fn body_too_long(longest: &str) -> Error {
    Error::new(ErrorKind::PayloadTooLarge, format!("the body is longer than {longest}"))
        .with_hint("api.max_body_size bounds it, also when it was compressed")
}

/// Whoever reads the body gets no more than so many bytes, and then an error.
pub(super) fn bound(request: Request, longest: usize) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(Limited::new(body, longest)))
}

/// What it means that a body could not be read to its end.
pub fn unreadable(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return body_too_long("it may be");
        }
        cause = error.source();
    }
    Error::new(ErrorKind::ValidationError, "the body ended early, or is not what it says it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = axum::http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        check_head(&request, 1000).map_or_else(|error| error.http_status(), |()| 200)
    }

    #[test]
    fn heads() {
        assert_eq!(check("/a/b%20c%C3%A4?d=%F0%9F%98%80", &[("x", "y")]), 200);
        for bad in ["/a%00b", "/a?b=%00", "/%ff", "/a?b=%c3%28", "/%ed%a0%80"] {
            assert_eq!(check(bad, &[]), 400, "{bad}");
        }
        assert_eq!(check(&format!("/{}", "x".repeat(LONGEST_LINE - 15)), &[]), 200);
        assert_eq!(check(&format!("/{}", "x".repeat(LONGEST_LINE)), &[]), 414);
        assert_eq!(check("/", &[("x", &"y".repeat(LONGEST_HEADERS - 5))]), 200);
        assert_eq!(check("/", &[("x", &"y".repeat(LONGEST_HEADERS))]), 431);
        assert_eq!(check("/", &[("x", "y"); MOST_HEADERS]), 200);
        assert_eq!(check("/", &[("x", "y"); MOST_HEADERS + 1]), 431);
        assert_eq!(check("/", &[("content-length", "1000")]), 200);
        assert_eq!(check("/", &[("content-length", "1001")]), 413);
    }
}
