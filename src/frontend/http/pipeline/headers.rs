//! What is in the head of every answer.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use super::super::HttpDoor;
use super::super::error::seconds;
use super::work::Passage;
use super::{cors, number};
use crate::limits::rate::Decision;
use crate::net::Stage;

static X_API_VERSION: HeaderName = HeaderName::from_static("x-api-version");
static X_RUSTYDB_VERSION: HeaderName = HeaderName::from_static("x-rustydb-version");
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) static X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
static RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
static X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const fn value(value: &'static str) -> HeaderValue {
    HeaderValue::from_static(value)
}

/// What every answer has, whatever it is.
pub fn usual() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL);
    headers.insert(&X_API_VERSION, value("1"));
    headers.insert(&X_RUSTYDB_VERSION, value(env!("CARGO_PKG_VERSION")));
    headers.insert(header::CACHE_CONTROL, value("no-store"));
    // For browsers: an answer is data, and no part of a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, value("DENY"));
    headers.insert(header::REFERRER_POLICY, value("no-referrer"));
    let nothing = value("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    headers
}

/// The headers that most answers get here and from their handlers.
const USUAL: usize = 24;

/// Adds what every answer has; what a handler has set stays.
pub(super) fn complete(door: &HttpDoor, passage: &Passage, response: &mut Response) {
    let headers = response.headers_mut();
    headers.reserve(USUAL.saturating_sub(headers.len()));
    for (name, value) in &door.usual_headers {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if let Ok(id) = HeaderValue::from_str(&passage.id().0) {
        headers.insert(&X_REQUEST_ID, id);
    }
    if let Some(id) = &passage.correlation {
        headers.insert(&X_CORRELATION_ID, id.clone());
    }
    if let Some(trace) = &passage.trace {
        headers.insert(&TRACEPARENT, trace.parent.clone());
        if let Some(state) = &trace.state {
            headers.insert(&TRACESTATE, state.clone());
        }
    }
    if passage.way.has_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value("max-age=31536000"));
    }
    let sent_to = (passage.host.as_ref(), &passage.uri);
    cors::complete(&passage.config.api, passage.origin.as_ref(), sent_to, headers);
    if let Some(decision) = passage.in_work.tightest() {
        limits(&decision, headers);
    }
    if let Ok(timing) = HeaderValue::from_maybe_shared(Bytes::from(timing(passage))) {
        headers.insert(&SERVER_TIMING, timing);
    }
    if door.drain.stage() == Stage::Replaced {
        // The next request goes to the process that accepts now; none is lost in between.
        headers.insert(header::CONNECTION, value("close"));
    }
}

fn limits(decision: &Decision, headers: &mut HeaderMap) {
    let [limit, remaining] = [decision.limit, decision.remaining].map(number);
    let reset = number(seconds(decision.reset));
    headers.insert(&RATELIMIT_LIMIT, limit.clone());
    headers.insert(&RATELIMIT_REMAINING, remaining.clone());
    headers.insert(&RATELIMIT_RESET, reset.clone());
    headers.insert(&X_RATELIMIT_LIMIT, limit);
    headers.insert(&X_RATELIMIT_REMAINING, remaining);
    headers.insert(&X_RATELIMIT_RESET, reset);
}

/// How long the log-in took, and everything up to the head of the answer, in milliseconds.
fn timing(passage: &Passage) -> String {
    let mut text = String::with_capacity(64);
    let mut add = |name: &str, took: Duration| {
        let (millis, micros) = (took.as_millis() as u64, took.subsec_micros() % 1000);
        text.push_str(name);
        text.push_str(";dur=");
        text.push_str(itoa::Buffer::new().format(millis));
        text.push('.');
        // With its leading zeros.
        text.push_str(itoa::Buffer::new().format(1000 + micros).get(1..).unwrap_or_default());
    };
    if let Some((_, took)) = passage.in_work.who() {
        add("auth", took);
        add(", total", passage.begun.elapsed());
    } else {
        add("total", passage.begun.elapsed());
    }
    text
}
