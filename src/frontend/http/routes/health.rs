//! Probes: they ask for no password, wait for nothing, and name nothing internal.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::super::{HttpDoor, json as answer};
use crate::telemetry::Check;
use crate::telemetry::health::Phase;

/// Routes of this file.
pub fn routes() -> Router<Arc<HttpDoor>> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/startup", get(startup))
        .route("/api/v1/health", get(full))
        .route("/api/v1/health/live", get(live))
        .route("/api/v1/health/ready", get(ready))
        .route("/api/v1/health/startup", get(startup))
}

fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn checks(door: &HttpDoor) -> Value {
    let checks = door.health.checks().into_iter();
    Value::Object(
        checks.map(|(name, check)| (name.into(), check.as_str().into())).collect::<Map<_, _>>(),
    )
}

async fn live(State(door): State<Arc<HttpDoor>>) -> Response {
    let live = door.health.is_live();
    answer(status(live), &json!({ "status": if live { "alive" } else { "stuck" } }))
}

async fn ready(State(door): State<Arc<HttpDoor>>) -> Response {
    let ready = door.health.is_ready();
    let word = if ready { "ready" } else { "not_ready" };
    answer(status(ready), &json!({ "status": word, "checks": checks(&door) }))
}

async fn startup(State(door): State<Arc<HttpDoor>>) -> Response {
    let started = door.health.phase() != Phase::Starting;
    let word = if started { "started" } else { "starting" };
    answer(status(started), &json!({ "status": word }))
}

async fn full(State(door): State<Arc<HttpDoor>>) -> Response {
    let word = match door.health.worst() {
        Check::Disabled | Check::Ok => "healthy",
        Check::Degraded => "degraded",
        Check::Failed => "unhealthy",
    };
    let body = json!({
        "status": word,
        "checks": checks(&door),
        "uptime_seconds": door.health.uptime_secs(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    answer(status(word != "unhealthy"), &body)
}
