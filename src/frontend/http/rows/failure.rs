//! Errors in PostgREST's form: `{"code", "message", "details", "hint"}`
//! (<https://docs.postgrest.org/en/latest/references/errors.html>).

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error;
use crate::error::{Error, ErrorKind};
use crate::query::postgrest::{Refusal, content_range, status_of_sqlstate};
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
                if let Some(total) = refusal.total {
                    let range = HeaderValue::try_from(content_range(0, 0, Some(total)));
                    let range = range.map(|range| (header::CONTENT_RANGE, range));
                    response.headers_mut().extend(range);
                }
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
    if state.as_str() == "PGRST" {
        let raised = raised(error).unwrap_or_else(Raised::malformed);
        write(response, raised.status, &raised.body);
        return response.headers_mut().extend(raised.headers);
    }
    // Where an error came from is said by PostgreSQL alone.
    let is_ours = error.origin().is_empty();
    let (code, status) = match error.kind() {
        ErrorKind::AuthenticationFailed if is_ours => ("PGRST301", 401),
        _ if is_ours => (state.as_str(), error.http_status()),
        kind => {
            let is_nobody = kind == ErrorKind::AuthenticationFailed;
            (state.as_str(), status_of_sqlstate(state.as_str(), error.message(), is_nobody))
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

/// The MESSAGE of an error that a function raises with SQLSTATE `PGRST`.
#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
    #[serde(default)]
    details: Value,
    #[serde(default)]
    hint: Value,
}

/// Its DETAIL.
#[derive(Deserialize)]
struct Status {
    status: u16,
    headers: Map<String, Value>,
}

/// The answer that a function gives by raising SQLSTATE `PGRST`.
struct Raised {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Value,
}

/// What of such an error cannot be understood, with its text.
enum Unclear<'e> {
    Message(&'e str),
    Detail(Option<&'e str>),
}

/// A function that raises SQLSTATE `PGRST` says itself what the answer is.
fn raised(error: &Error) -> Result<Raised, Unclear<'_>> {
    let Said { code, message, details, hint } =
        serde_json::from_str(error.message()).map_err(|_| Unclear::Message(error.message()))?;
    let (status, headers) = error
        .detail()
        .and_then(status_and_headers)
        .ok_or_else(|| Unclear::Detail(error.detail()))?;
    let body = json!({ "code": code, "message": message, "details": details, "hint": hint });
    Ok(Raised { status, headers, body })
}

fn status_and_headers(detail: &str) -> Option<(u16, Vec<(HeaderName, HeaderValue)>)> {
    let Status { status, headers } = serde_json::from_str(detail).ok()?;
    let status = Some(status).filter(|status| (200..600).contains(status))?;
    let header = |(name, value): (&String, &Value)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    };
    Some((status, headers.iter().map(header).collect::<Option<_>>()?))
}

impl Raised {
    fn malformed(unclear: Unclear<'_>) -> Self {
        let details = match unclear {
            Unclear::Message(text) => format!("Invalid JSON value for MESSAGE: '{text}'"),
            Unclear::Detail(Some(text)) => format!("Invalid JSON value for DETAIL: '{text}'"),
            Unclear::Detail(None) => "DETAIL is missing in the RAISE statement".into(),
        };
        let hint = match unclear {
            Unclear::Message(_) => {
                "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and \
                 optional keys: 'details', 'hint'."
            }
            Unclear::Detail(_) => {
                "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and \
                 optional key: 'status_text'."
            }
        };
        let body = json!({
            "code": "PGRST121",
            "message": "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
            "details": details,
            "hint": hint,
        });
        Raised { status: 500, headers: Vec::new(), body }
    }
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
        for raised in [
            Error::sql(b"PGRST", "no JSON").with_detail(detail),
            Error::sql(b"PGRST", r#"{"code":"1","message":"pay"}"#),
            Error::sql(b"PGRST", r#"{"code":"1","message":"pay"}"#).with_detail("no JSON"),
        ] {
            assert_eq!(shown(&raised).status().as_u16(), 500, "{raised}");
        }
        let safe = "UPDATE requires a WHERE clause";
        for (message, status) in [(safe, 400), ("more than one row returned", 500)] {
            let error = Error::sql(b"21000", message).with_origin(b"Fx.c\0".to_vec());
            assert_eq!(shown(&error).status().as_u16(), status, "{message}");
        }
        let raised = Error::sql(b"PGRST", r#"{"code":"1","message":"pay"}"#).with_detail(detail);
        let response = shown(&raised);
        assert_eq!(response.status().as_u16(), 402);
        assert_eq!(response.headers()["x-a"], "b");
    }
}
