//! The one error body of HTTP:
//! `{"error":{code,message,details,sqlstate,position?,hint?,request_id,timestamp}}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::RequestId;
use super::rows::{failure, rest};
use crate::error::{Error, ErrorKind};
use crate::telemetry::Metrics;

/// An error on its way out of a handler.
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        response(self.0)
    }
}

/// What a handler returns.
pub type ApiResult = Result<Response, ApiError>;

/// A response that stands for an error; [`finish`] gives it its body.
pub fn response(error: Error) -> Response {
    again(Arc::new(error))
}

/// The same for an error that others have, too.
pub fn again(error: Arc<Error>) -> Response {
    let mut response = Response::new(Body::empty());
    let status = StatusCode::from_u16(error.http_status());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(wait) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, seconds(wait).into());
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            let basic = HeaderValue::from_static("Basic realm=\"RustyDB\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        ErrorKind::PoolExhausted
        | ErrorKind::ServiceUnavailable
        | ErrorKind::TooManyConnections => {
            headers.entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
        }
        ErrorKind::DeadlockDetected => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
        }
        _ => {}
    }
    response.extensions_mut().insert(error);
    response
}

/// Whole seconds, for headers: after that many it is over.
pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Writes the body of an error response in the form that belongs to the path, counts and logs it,
/// and gives it; leaves every other one alone.
pub fn finish(
    response: &mut Response,
    (id, path): (&RequestId, &str),
    metrics: &Metrics,
) -> Option<Arc<Error>> {
    let error = response.extensions_mut().remove::<Arc<Error>>()?;
    note(&error, id, metrics);
    if path.starts_with(rest::PREFIX) {
        failure::put(response, &error);
        return Some(error);
    }
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    *response.body_mut() = Body::from(body(&error, id).to_string());
    Some(error)
}

/// Counts an error, and logs its private cause.
pub fn note(error: &Error, id: &RequestId, metrics: &Metrics) {
    metrics.api_error(error.kind().code());
    let request_id = &*id.0;
    let cause = error.cause().map(tracing::field::display);
    if error.kind() == ErrorKind::InternalError {
        tracing::error!(request_id, cause, "{error}");
    } else if cause.is_some() {
        tracing::warn!(request_id, cause, "{error}");
    }
}

/// The error body.
pub fn body(error: &Error, id: &RequestId) -> Value {
    let mut details = json!({});
    if let Some(detail) = error.detail() {
        details["detail"] = detail.into();
    }
    if let Some((name, value)) = error.named() {
        details[name] = value.into();
    }
    if error.is_retryable() {
        details["retryable"] = true.into();
    }
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let mut fields = json!({
        "code": error.kind().code(),
        "message": error.message(),
        "details": details,
        "sqlstate": error.sqlstate().as_str(),
        "request_id": &*id.0,
        "timestamp": now,
    });
    if let Some(position) = error.position() {
        fields["position"] = position.into();
    }
    if let Some(hint) = error.hint() {
        fields["hint"] = hint.into();
    }
    json!({ "error": fields })
}
