//! Errors in PostgREST's form: `{"code", "message", "details", "hint"}`
//! (<https://docs.postgrest.org/en/latest/references/errors.html>).

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error;
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
    /// The answer; an error's body is still to be [`put`].
    pub fn into_response(self, metrics: &Metrics) -> Response {
        match self {
            Failure::Refused(refusal) => {
                metrics.api_error(kind_of(refusal.status).code());
                let mut response = Response::default();
                write(&mut response, refusal.status, &refusal.to_json());
                response
            }
            Failure::Failed(error) => error::response(error),
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

fn write(response: &mut Response, status: u16, body: &Value) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    *response.body_mut() = Body::from(body.to_string());
}

/// Writes an error into the response that stands for it.
pub fn put(response: &mut Response, error: &Error) {
    let state = error.sqlstate();
    if state.as_str() == "PGRST" && put_raised(response, error).is_some() {
        return;
    }
    // Where an error came from is said by PostgreSQL alone.
    let is_ours = error.origin().is_empty();
    let (code, status) = match error.kind() {
        ErrorKind::AuthenticationFailed if is_ours => ("PGRST301", 401),
        _ if is_ours => (state.as_str(), error.http_status()),
        kind => {
            let is_nobody = kind == ErrorKind::AuthenticationFailed;
            (state.as_str(), status_of_sqlstate(state.as_str(), is_nobody))
        }
    };
    let body = json!({
        "code": code,
        "message": error.message(),
        "details": error.detail(),
        "hint": error.hint(),
    });
    write(response, status, &body);
    if status == 405 {
        // Only what is read is refused because it would have written.
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
}

/// The DETAIL of an error that a function raises with SQLSTATE `PGRST`.
#[derive(Deserialize)]
struct Status {
    status: u16,
    #[serde(default)]
    headers: Map<String, Value>,
}

/// A function that raises SQLSTATE `PGRST` says itself what the answer is.
fn put_raised(response: &mut Response, error: &Error) -> Option<()> {
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
    let header = |(name, value): (&String, &Value)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    };
    let headers: Vec<_> = headers.iter().map(header).collect::<Option<_>>()?;
    write(response, status, &body);
    response.headers_mut().extend(headers);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_by_where_an_error_comes_from() {
        let shown = |error: &Error| {
            let mut response = Response::default();
            put(&mut response, error);
            response
        };
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
            assert_eq!(shown(&error).status().as_u16(), status, "{error}");
        }
        let detail = r#"{"status":402,"headers":{"X-A":"b"}}"#;
        let raised = Error::sql(b"PGRST", "no JSON").with_detail(detail);
        assert_eq!(shown(&raised).status().as_u16(), 500);
        let raised = Error::sql(b"PGRST", r#"{"code":"1","message":"pay"}"#).with_detail(detail);
        let response = shown(&raised);
        assert_eq!(response.status().as_u16(), 402);
        assert_eq!(response.headers()["x-a"], "b");
    }
}
