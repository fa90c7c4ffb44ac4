//! Metrics in Prometheus' text format.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use utoipa_axum::routes;

use super::super::HttpDoor;
use super::super::error::ApiResult;
use super::super::extract::Caller;
use super::{Routes, aliased};
use crate::error::{Error, ErrorKind};

/// The other format.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// Routes that ask for a password.
pub fn routes() -> Routes {
    let alias = aliased("/api/v1/monitoring/prometheus", get(get_metrics));
    Routes::new().routes(routes!(get_metrics)).route("/api/v1/metrics", alias)
}

/// Routes of the metrics listener.
pub fn open_routes() -> Routes {
    Routes::new().route("/metrics", get(open))
}

/// Get metrics
///
/// Every metric of the server in Prometheus' text format, or in that of OpenMetrics for who
/// accepts it.
#[utoipa::path(
    get, path = "/api/v1/monitoring/prometheus", tag = "server",
    responses((status = 200, description = "The metrics.", body = String,
        content_type = "text/plain"))
)]
async fn get_metrics(
    State(door): State<Arc<HttpDoor>>,
    _caller: Caller,
    headers: HeaderMap,
) -> ApiResult {
    if !door.config.now().monitoring.enable_metrics {
        let text = "metrics are off";
        return Err(Error::new(ErrorKind::NotFound, text)
            .with_hint("monitoring.enable_metrics turns them on")
            .into());
    }
    Ok(open(State(door), headers).await)
}

async fn open(State(door): State<Arc<HttpDoor>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let uptime = door.health.uptime_secs();
    let (text, kind) = match accepted.is_some_and(|kinds| kinds.contains(OPEN_METRICS)) {
        true => (
            door.metrics.render_open(uptime),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        false => (door.metrics.render(uptime), "text/plain; version=0.0.4; charset=utf-8"),
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
