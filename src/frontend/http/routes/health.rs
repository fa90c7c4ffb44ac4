//! Probes: they ask for no password, wait for nothing, and name nothing internal.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::extract::Params;
use super::super::{HttpDoor, answer};
use super::{Routes, aliased};
use crate::telemetry::Check;
use crate::telemetry::health::Phase;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_liveness))
        .routes(routes!(get_readiness))
        .routes(routes!(get_startup))
        .routes(routes!(get_health))
        .route("/api/v1/health/live", aliased("/health/live", get(get_liveness)))
        .route("/api/v1/health/ready", aliased("/health/ready", get(get_readiness)))
        .route("/api/v1/health/startup", aliased("/health/startup", get(get_startup)))
}

/// A state in a word.
#[derive(Serialize, ToSchema)]
struct Word {
    /// Of this probe: alive or stuck; ready or not_ready; started or starting.
    #[schema(examples("alive"))]
    status: &'static str,
}

/// A state and what it is made of.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// ready, or not_ready.
    status: &'static str,
    /// Each check: ok, degraded, failed, disabled.
    checks: BTreeMap<&'static str, &'static str>,
}

/// The health of the server.
#[derive(Serialize, ToSchema)]
struct HealthReport {
    /// healthy, degraded, unhealthy.
    status: &'static str,
    /// Each check: ok, degraded, failed, disabled.
    checks: BTreeMap<&'static str, &'static str>,
    /// Seconds since the start.
    uptime_seconds: u64,
    /// Version of RustyDB.
    version: &'static str,
    /// More about each check, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    details: Option<BTreeMap<&'static str, String>>,
}

/// How much is told.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HealthQuery {
    /// More about each check.
    #[serde(default)]
    verbose: bool,
}

fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn checks(door: &HttpDoor) -> BTreeMap<&'static str, &'static str> {
    door.health.checks().into_iter().map(|(name, check)| (name, check.as_str())).collect()
}

/// Is it alive
///
/// Whether the process answers. PostgreSQL is not asked.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses(
        (status = 200, description = "It is.", body = Word),
        (status = 503, description = "It is stuck.", body = Word),
    )
)]
async fn get_liveness(State(door): State<Arc<HttpDoor>>) -> Response {
    let live = door.health.is_live();
    answer(status(live), &Word { status: if live { "alive" } else { "stuck" } })
}

/// Can it serve
///
/// Whether PostgreSQL can be used.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, description = "It can.", body = Readiness),
        (status = 503, description = "It cannot.", body = Readiness),
    )
)]
async fn get_readiness(State(door): State<Arc<HttpDoor>>) -> Response {
    let ready = door.health.is_ready();
    let word = if ready { "ready" } else { "not_ready" };
    answer(status(ready), &Readiness { status: word, checks: checks(&door) })
}

/// Has it started
///
/// Whether the start is over.
#[utoipa::path(
    get, path = "/health/startup", tag = "health",
    responses(
        (status = 200, description = "It has.", body = Word),
        (status = 503, description = "It is starting.", body = Word),
    )
)]
async fn get_startup(State(door): State<Arc<HttpDoor>>) -> Response {
    let started = door.health.phase() != Phase::Starting;
    answer(status(started), &Word { status: if started { "started" } else { "starting" } })
}

/// Get the health of the server
///
/// Every check, with the sum of them.
#[utoipa::path(
    get, path = "/api/v1/health", tag = "health", params(HealthQuery),
    responses(
        (status = 200, description = "Healthy or degraded.", body = HealthReport),
        (status = 503, description = "Unhealthy.", body = HealthReport),
    )
)]
async fn get_health(
    State(door): State<Arc<HttpDoor>>,
    Params(query): Params<HealthQuery>,
) -> Response {
    let word = match door.health.worst() {
        Check::Disabled | Check::Ok => "healthy",
        Check::Degraded => "degraded",
        Check::Failed => "unhealthy",
    };
    let report = HealthReport {
        status: word,
        checks: checks(&door),
        uptime_seconds: door.health.uptime_secs(),
        version: env!("CARGO_PKG_VERSION"),
        details: query.verbose.then(|| door.health.details().into_iter().collect()),
    };
    answer(status(word != "unhealthy"), &report)
}
