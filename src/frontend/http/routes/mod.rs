//! The routes, one file for each domain. A new domain adds one line here.

mod health;
mod metrics;
mod openapi;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::MethodRouter;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use openapi::document;

use super::{HttpDoor, description};

/// What a file of this folder gives.
type Routes = OpenApiRouter<Arc<HttpDoor>>;

/// The same under an older path: the answer says where it is now.
fn aliased<S>(canonical: &'static str, routes: MethodRouter<S>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.layer(map_response(move |mut response: Response| async move {
        let headers = response.headers_mut();
        headers.insert("deprecation", HeaderValue::from_static("true"));
        if let Ok(link) = format!("<{canonical}>; rel=\"successor-version\"").parse() {
            headers.insert(header::LINK, link);
        }
        response
    }))
}

/// Everything that the HTTP door serves, and its description.
pub fn api() -> (Router<Arc<HttpDoor>>, OpenApi) {
    let (router, described) = OpenApiRouter::with_openapi(description::base())
        .merge(query::routes())
        .merge(metrics::routes())
        .merge(openapi::routes())
        .merge(health::routes())
        .split_for_parts();
    (router, description::finish(described))
}

/// What the metrics listener serves.
pub fn metrics_only() -> Router<Arc<HttpDoor>> {
    let routes = health::routes().merge(metrics::open_routes());
    routes.split_for_parts().0
}
