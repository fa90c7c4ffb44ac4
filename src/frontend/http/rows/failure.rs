//! Errors in PostgREST's form: `{"code", "message", "details", "hint"}`
//! (<https://docs.postgrest.org/en/latest/references/errors.html>).

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{RequestId, error};
use crate::error::{Error, ErrorKind};
use crate::query::postgrest::{Refusal, status_of_sqlstate};
use crate::telemetry::Metrics;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The request is not understood, or not what it should be.
    Refused(Refusal),
    /// PostgreSQL has refused it, or the server cannot do it now.
    Failed(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl Failure {
    /// The answer.
    pub fn into_response(self, id: Option<&RequestId>, metrics: &Metrics) -> Response {
        match self {
            Failure::Refused(refusal) => {
                metrics.api_error(kind_of(refusal.status).code());
                response(refusal.status, &refusal.to_json())
            }
            Failure::Failed(error) => {
                if let Some(id) = id {
                    error::note(&error, id, metrics);
                }
                failed(&error)
            }
        }
    }
}

fn kind_of(status: u16) -> ErrorKind {
    match status {
        404 => ErrorKind::NotFound,
        405 => ErrorKind::MethodNotAllowed,
        406 => ErrorKind::NotAcceptable,
        _ => ErrorKind::ValidationError,
    }
}

fn response(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn failed(error: &Error) -> Response {
    let state = error.sqlstate();
    if state.as_str() == "PGRST"
        && let Some(raised) = raised(error)
    {
        return raised;
    }
    // Where an error came from is said by PostgreSQL alone.
    let is_ours = error.origin().is_empty();
    let (code, status) = match error.kind() {
        ErrorKind::AuthenticationFailed if is_ours => ("PGRST301", 401),
        kind if is_ours => (state.as_str(), kind.http_status()),
        _ => (state.as_str(), status_of_sqlstate(state.as_str(), false)),
    };
    let body = json!({
        "code": code,
        "message": error.message(),
        "details": error.detail(),
        "hint": error.hint(),
    });
    let mut response = response(status, &body);
    let headers = response.headers_mut();
    match status {
        401 => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        503 => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// The DETAIL of an error that a function raises with SQLSTATE `PGRST`.
#[derive(Deserialize)]
struct Status {
    status: u16,
    #[serde(default)]
    headers: Map<String, Value>,
}

/// A function that raises SQLSTATE `PGRST` says itself what the answer is.
fn raised(error: &Error) -> Option<Response> {
    let body: Map<String, Value> = serde_json::from_str(error.message()).ok()?;
    let Status { status, headers } = serde_json::from_str(error.detail()?).ok()?;
    let status = Some(status).filter(|status| (200..600).contains(status))?;
    let said = |name: &str| body.get(name).cloned().unwrap_or(Value::Null);
    let body = json!({
        "code": said("code"),
        "message": said("message"),
        "details": said("details"),
        "hint": said("hint"),
    });
    let mut response = response(status, &body);
    for (name, value) in &headers {
        let name = HeaderName::try_from(name).ok()?;
        let value = HeaderValue::from_str(value.as_str()?).ok()?;
        response.headers_mut().insert(name, value);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_by_where_an_error_comes_from() {
        let of_postgres = |state: &[u8; 5]| Error::sql(state, "x").with_origin(b"Fx.c\0".to_vec());
        for (error, status) in [
            (of_postgres(b"23505"), 409),
            (of_postgres(b"42501"), 403),
            (of_postgres(b"PT418"), 418),
            (of_postgres(b"25006"), 405),
            (Error::new(ErrorKind::AuthenticationFailed, "who"), 401),
            (Error::new(ErrorKind::PoolExhausted, "later"), 503),
            (Error::new(ErrorKind::Timeout, "late"), 504),
        ] {
            assert_eq!(failed(&error).status().as_u16(), status, "{error}");
        }
        let raised = of_postgres(b"PGRST").with_detail(r#"{"status":402,"headers":{"X-A":"b"}}"#);
        assert_eq!(failed(&raised).status().as_u16(), 500, "the message is no JSON");
        let raised = Error::sql(b"PGRST", r#"{"code":"1","message":"pay"}"#)
            .with_detail(r#"{"status":402,"headers":{"X-A":"b"}}"#);
        let response = failed(&raised);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-a"]),
            (402, &"b".parse().unwrap())
        );
    }
}
