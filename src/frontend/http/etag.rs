//! Entity tags: who says which version he knows gets 304 instead of what he has.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::ApiResult;
use crate::error::{Error, ErrorKind, Result};

/// Entity tags that one header may name.
const MAX_TAGS: usize = 100;

/// Bytes of a hash that are in a tag.
const LENGTH: usize = 16;

/// What `If-Match` or `If-None-Match` names.
#[derive(Debug, PartialEq, Eq)]
pub enum Tags {
    /// Whatever there is.
    Any,
    /// These, without quotes.
    These(Vec<String>),
}

impl Tags {
    /// What the header of this name says.
    ///
    /// # Errors
    /// It is not a list of tags, or too long.
    pub fn of(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Self>> {
        let mut values = headers.get_all(&name).iter().peekable();
        if values.peek().is_none() {
            return Ok(None);
        }
        let bad = || {
            let text = format!("the header {name} is no list of entity tags");
            Error::new(ErrorKind::ValidationError, text)
        };
        let mut tags = Vec::new();
        for value in values {
            for item in value.to_str().map_err(|_| bad())?.split(',').map(str::trim) {
                if item == "*" {
                    return Ok(Some(Tags::Any));
                }
                let item = item.strip_prefix("W/").unwrap_or(item);
                let tag = item.strip_prefix('"').and_then(|item| item.strip_suffix('"'));
                tags.push(tag.ok_or_else(bad)?.to_owned());
            }
        }
        if tags.len() > MAX_TAGS {
            let text = format!("the header {name} names more than {MAX_TAGS} entity tags");
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        Ok(Some(Tags::These(tags)))
    }

    /// Whether this one is named.
    pub fn has(&self, tag: &str) -> bool {
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|one| one == tag),
        }
    }
}

/// The answer to who has it already.
pub fn not_modified() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// An answer of the caller's own with a tag of its content: he asks again each time.
pub fn tagged(headers: &HeaderMap, value: &impl Serialize) -> ApiResult {
    let bytes = serde_json::to_vec(value).map_err(Error::internal)?;
    Ok(tagged_bytes(headers, bytes.into(), "private, no-cache")?)
}

/// The same for JSON that is there already.
///
/// # Errors
/// If-None-Match cannot be read.
pub fn tagged_bytes(headers: &HeaderMap, json: Bytes, caching: &'static str) -> Result<Response> {
    let digest = Sha256::digest(&json);
    let tag: String = digest.iter().take(LENGTH).map(|byte| format!("{byte:02x}")).collect();
    let known = Tags::of(headers, header::IF_NONE_MATCH)?;
    let mut response = match known.is_some_and(|known| known.has(&tag)) {
        true => not_modified(),
        false => {
            let mut response = Response::new(Body::from(json));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
    };
    let headers = response.headers_mut();
    // Weak: compressed it is the same.
    let tag = HeaderValue::from_str(&format!("W/\"{tag}\"")).map_err(Error::internal)?;
    headers.insert(header::ETAG, tag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags() {
        let tags = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, text.parse().unwrap());
            Tags::of(&headers, header::IF_MATCH)
        };
        let these = tags("\"a\", W/\"b\"").unwrap().unwrap();
        assert!(these.has("a") && these.has("b") && !these.has("c"));
        assert_eq!(tags("*").unwrap(), Some(Tags::Any));
        for bad in ["a", "\"a", "\"a\" \"b\"x", ""] {
            assert!(tags(bad).is_err(), "{bad}");
        }
        assert!(tags(&"\"a\",".repeat(MAX_TAGS)).is_err());
    }

    fn asked(known: &[&str]) -> Result<Response> {
        let mut headers = HeaderMap::new();
        for known in known {
            headers.append(header::IF_NONE_MATCH, known.parse().unwrap());
        }
        tagged_bytes(&headers, Bytes::from_static(b"{}"), "max-age=300")
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let first = asked(&[]).unwrap();
        assert_eq!(
            (first.status(), &first.headers()[header::CACHE_CONTROL]),
            (StatusCode::OK, &HeaderValue::from_static("max-age=300"),)
        );
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        let strong = tag.trim_start_matches("W/");
        let list = format!("\"x\", {tag}");
        for known in [&[tag.as_str()][..], &["\"x\"", strong], &[&list], &["*"]] {
            let again = asked(known).unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known:?}");
            assert_eq!(again.headers()[header::ETAG], tag.as_str());
        }
        assert_eq!(asked(&["\"x\""]).unwrap().status(), StatusCode::OK);
        assert_eq!(asked(&["x"]).unwrap_err().http_status(), 400);
    }
}
