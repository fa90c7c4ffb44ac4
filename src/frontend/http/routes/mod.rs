//! The routes, one file for each domain. A new domain adds one line here.

mod health;
mod metrics;
mod query;

use std::sync::Arc;

use axum::Router;

use super::HttpDoor;

/// Everything that the HTTP door serves.
pub fn api() -> Router<Arc<HttpDoor>> {
    Router::new().merge(query::routes()).merge(health::routes()).merge(metrics::routes())
}

/// What the metrics listener serves.
pub fn metrics_only() -> Router<Arc<HttpDoor>> {
    Router::new().merge(health::routes()).merge(metrics::open_routes())
}
