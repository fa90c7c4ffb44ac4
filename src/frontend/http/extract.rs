//! What handlers take from a request: who it is, and its JSON body.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::{HttpDoor, Peer, RequestId};
use crate::auth::Identity;
use crate::error::{Error, ErrorKind};
use crate::session::{Opening, Session};
use crate::types::{Protocol, Role, Secret};

/// Parameters that make text values of PostgreSQL unambiguous, and JSON of them possible.
const SESSION_PARAMETERS: [(&str, &str); 6] = [
    ("application_name", "rustydb-http"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("options", "-c bytea_output=hex -c extra_float_digits=1"),
];

/// A client whose password fits.
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// Where it is.
    pub peer: String,
    /// The request.
    pub id: RequestId,
}

impl Caller {
    /// A session of the caller's in a database; `None` = `api.database`.
    pub fn session(&self, door: &HttpDoor, database: Option<&str>) -> Result<Session, Error> {
        let config = door.config.now();
        let database = database.unwrap_or(&config.api.database);
        if database.contains('\0') {
            return Err(Error::new(ErrorKind::ValidationError, "database contains U+0000"));
        }
        let options = SESSION_PARAMETERS.map(|(name, value)| (name.into(), value.into())).to_vec();
        Ok(door.opener.open(Opening {
            identity: self.identity.clone(),
            database: database.into(),
            options,
            protocol: Protocol::Http,
            peer: self.peer.clone(),
        }))
    }
}

impl FromRequestParts<Arc<HttpDoor>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>().map_or_else(String::new, |p| p.0.to_string());
        let id = parts.extensions.get::<RequestId>().cloned();
        let id = id.ok_or_else(|| Error::internal("the request has no number"))?;
        let identity = match basic(&parts.headers)? {
            Some((role, password)) => {
                let limit = door.config.now().api.request_timeout_secs.duration();
                let checked = tokio::time::timeout(limit, door.auth.password(role, password));
                let late = |_| Error::new(ErrorKind::Timeout, "the log-in took too long");
                checked.await.map_err(late)??
            }
            // Without required authentication a request acts as the administrator.
            None if !door.auth.is_required() => door.auth.trust("rustydb".into())?,
            None => {
                let text = "a role's name and password are needed (HTTP Basic)";
                return Err(Error::new(ErrorKind::AuthenticationFailed, text)
                    .with_hint("curl -u name:password …")
                    .into());
            }
        };
        Ok(Self { identity, peer, id })
    }
}

/// Reads `Authorization: Basic` (RFC 7617).
fn basic(headers: &HeaderMap) -> Result<Option<(Role, Secret)>, Error> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let malformed = || {
        let text = "the Authorization header is not HTTP Basic";
        Error::new(ErrorKind::AuthenticationFailed, text)
    };
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, credentials) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = BASE64.decode(credentials.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (name, password) = text.split_once(':').ok_or_else(malformed)?;
    Ok(Some((name.into(), Secret::new(password))))
}

/// The parameters of the query string.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<HttpDoor>> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(e) => {
                let text = format!("the query string is not valid: {}", e.body_text());
                Err(Error::new(ErrorKind::ValidationError, text).into())
            }
        }
    }
}

/// The parameters of the path.
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<HttpDoor>> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        match Path::<T>::from_request_parts(parts, door).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(e) => {
                let text = format!("the path is not valid: {}", e.body_text());
                Err(Error::new(ErrorKind::ValidationError, text).into())
            }
        }
    }
}

/// A JSON body, within `api.max_body_size` and `api.request_timeout_secs`.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<HttpDoor>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, door: &Arc<HttpDoor>) -> Result<Self, Self::Rejection> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let text = format!("the body's content type is \"{essence}\", not application/json");
            return Err(Error::new(ErrorKind::UnsupportedMediaType, text)
                .with_hint("send the header Content-Type: application/json")
                .into());
        }
        let bytes = read(request, door).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| {
            Error::new(ErrorKind::ValidationError, format!("the body is not valid: {e}")).into()
        })
    }
}

async fn read(request: Request, door: &HttpDoor) -> Result<Bytes, Error> {
    let longest = door.config.now().api.max_body_size.len();
    let body = Limited::new(request.into_body(), longest).collect();
    let limit = door.config.now().api.request_timeout_secs.duration();
    match tokio::time::timeout(limit, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() => {
            let text = format!("the body is longer than {longest} bytes");
            Err(Error::new(ErrorKind::PayloadTooLarge, text)
                .with_hint("api.max_body_size bounds it"))
        }
        Ok(Err(_)) => Err(Error::new(ErrorKind::ValidationError, "the body ended early")),
        Err(_) => Err(Error::new(ErrorKind::Timeout, "the body did not arrive in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        let (role, password) = basic(&headers("Basic am9lOnNlYzpyZXQ=")).unwrap().unwrap();
        assert_eq!((role.as_str(), password.reveal()), ("joe", "sec:ret"));
        assert!(basic(&HeaderMap::new()).unwrap().is_none());
        for bad in ["Bearer x", "Basic", "Basic !!", "Basic am9l", "Basic /w=="] {
            let error = basic(&headers(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{bad}");
        }
    }
}
