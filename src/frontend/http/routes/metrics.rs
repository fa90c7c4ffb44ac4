//! Metrics in Prometheus' text format.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;

use super::super::HttpDoor;
use super::super::error::ApiResult;
use super::super::extract::Caller;
use crate::error::{Error, ErrorKind};

/// Routes that ask for a password.
pub fn routes() -> Router<Arc<HttpDoor>> {
    Router::new().route("/api/v1/metrics", get(guarded))
}

/// Routes of the metrics listener.
pub fn open_routes() -> Router<Arc<HttpDoor>> {
    Router::new().route("/metrics", get(open))
}

async fn guarded(State(door): State<Arc<HttpDoor>>, _caller: Caller) -> ApiResult {
    if !door.config.now().monitoring.enable_metrics {
        let text = "metrics are off";
        return Err(Error::new(ErrorKind::NotFound, text)
            .with_hint("monitoring.enable_metrics turns them on")
            .into());
    }
    Ok(open(State(door)).await)
}

async fn open(State(door): State<Arc<HttpDoor>>) -> Response {
    let mut response = Response::new(Body::from(door.metrics.render(door.health.uptime_secs())));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
