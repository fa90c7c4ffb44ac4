//! What is written down of a request that is over: metrics, the access log, the audit log.

use axum::http::Method;
use axum::response::Response;

use super::super::HttpDoor;
use super::work::{Passage, Trace};
use crate::audit::{Event, EventType, Outcome};
use crate::config::AuditLevel;
use crate::error::Error;
use crate::types::Protocol;

/// Counts it, and tells the logs.
pub(super) fn record(
    door: &HttpDoor,
    passage: &Passage,
    response: &Response,
    failure: Option<&Error>,
) {
    let status = response.status().as_u16();
    let elapsed = passage.begun.elapsed();
    let method = method_label(&passage.method);
    door.metrics.api_request(method, passage.endpoint(), status, elapsed.as_secs_f64());
    if passage.is_watcher {
        return;
    }
    let ms = elapsed.as_secs_f64() * 1000.0;
    tracing::info!(
        target: "access", method, path = passage.path(), status, request_id = &*passage.id().0,
        trace_id = passage.trace.as_ref().map(Trace::id), ms, "request"
    );
    if !is_wanted(passage.config.audit.level, &passage.method, passage.path()) {
        return;
    }
    let outcome = match status {
        401 | 403 | 429 => Outcome::Denied,
        400.. => Outcome::Error,
        _ => Outcome::Success,
    };
    let mut event = Event::new(EventType::Request, outcome, method).about(passage.path());
    event.user_id = passage.in_work.who().map(|(role, _)| role.to_string());
    event.client_ip = passage.address();
    event.protocol = Some(Protocol::Http);
    event.request_id = Some(passage.id().0.to_string());
    event.error = failure.map(|error| error.kind().code().to_owned());
    let mut more = |name: &str, value: Option<String>| {
        event.metadata.extend(value.map(|value| (name.to_owned(), value)));
    };
    more("status_code", Some(status.to_string()));
    more("duration_ms", Some(format!("{ms:.3}")));
    more("route", passage.route.as_ref().map(|route| route.as_str().to_owned()));
    more("trace_id", passage.trace.as_ref().map(|trace| trace.id().to_owned()));
    more("tenant", passage.tenant().map(str::to_owned));
    door.auth.audit().note(event);
}

/// Whether the audit log is to have a record of a request.
fn is_wanted(level: AuditLevel, method: &Method, path: &str) -> bool {
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    match level {
        AuditLevel::Security => false,
        AuditLevel::Ddl => changes && !is_data(path),
        AuditLevel::Write => changes,
        AuditLevel::All => true,
    }
}

/// Whether a route is for data, for what happens to it, or for log-ins, which have records of their
/// own.
fn is_data(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/api/v1/") else { return true };
    let mut parts = rest.split('/');
    match parts.next().unwrap_or("") {
        "query" | "batch" | "transactions" => true,
        "auth" => parts.next() != Some("api-keys"),
        _ => parts.any(|part| part == "rows"),
    }
}

/// Clients can send any word as a method; only the known ones become label values.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_requests_are_audited() {
        use AuditLevel::*;
        for (method, path, from) in [
            (Method::POST, "/api/v1/tables", Ddl),
            (Method::PUT, "/api/v1/admin/config", Ddl),
            (Method::DELETE, "/api/v1/auth/api-keys/x", Ddl),
            (Method::POST, "/api/v1/tables/x/rows", Write),
            (Method::POST, "/api/v1/query", Write),
            (Method::POST, "/api/v1/auth/login", Write),
            (Method::PATCH, "/rest/v1/x", Write),
            (Method::GET, "/api/v1/tables", All),
        ] {
            let levels = [Security, Ddl, Write, All];
            let wanted = levels.map(|level| is_wanted(level, &method, path));
            let first = levels.iter().position(|level| *level == from);
            let expected = [0, 1, 2, 3].map(|at| Some(at) >= first);
            assert_eq!(wanted, expected, "{method} {path}");
        }
    }
}
