//! The routes, one file for each domain. A new domain adds one line here.

mod auth;
mod batch;
mod connections;
mod extensions;
mod health;
mod info;
mod jobs;
mod locks;
mod maintenance;
mod metrics;
mod openapi;
mod pages;
mod pool_upkeep;
mod pools;
mod prepared;
mod procedures;
mod queries;
mod query;
mod rest;
mod roles;
mod rows;
mod schema;
mod session_state;
mod sessions;
mod settings;
mod suspension;
mod tables;
mod transaction_list;
mod transaction_stats;
mod transactions;
mod unsupported;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::routing::MethodRouter;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use openapi::document;
pub use unsupported::is_absent;

use super::{HttpDoor, description};

/// How something is dropped.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DropQuery {
    /// With everything that depends on it.
    #[serde(default)]
    cascade: bool,
    /// Not an error when there is none.
    #[serde(default)]
    if_exists: bool,
}

impl DropQuery {
    fn sql(&self, what: &str, name: &str) -> String {
        let if_exists = if self.if_exists { "IF EXISTS " } else { "" };
        let cascade = if self.cascade { " CASCADE" } else { "" };
        format!("DROP {what} {if_exists}{name}{cascade}")
    }
}

/// What a file of this folder gives.
type Routes = OpenApiRouter<Arc<HttpDoor>>;

/// The same under another path: the answer says where it is meant to be.
fn aliased<S>(canonical: &'static str, routes: MethodRouter<S>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    aliased_to(routes, move |_| canonical.into())
}

/// The same where the path has parameters.
fn aliased_to<S>(
    routes: MethodRouter<S>,
    canonical: impl Fn(&str) -> String + Clone + Send + Sync + 'static,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.layer(from_fn(move |request: Request, next: Next| {
        let link = format!("<{}>; rel=\"successor-version\"", canonical(request.uri().path()));
        async move {
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.insert("deprecation", HeaderValue::from_static("true"));
            if let Ok(link) = link.parse() {
                headers.insert(header::LINK, link);
            }
            response
        }
    }))
}

/// Everything that the HTTP door serves, and its description.
pub fn api() -> (Router<Arc<HttpDoor>>, OpenApi) {
    let (router, described) = OpenApiRouter::with_openapi(description::base())
        .merge(query::routes())
        .merge(queries::routes())
        .merge(prepared::routes())
        .merge(auth::routes())
        .merge(batch::routes())
        .merge(tables::routes())
        .merge(transaction_list::routes())
        .merge(transactions::routes())
        .merge(locks::routes())
        .merge(transaction_stats::routes())
        .merge(info::routes())
        .merge(schema::routes())
        .merge(procedures::routes())
        .merge(pools::routes())
        .merge(pool_upkeep::routes())
        .merge(connections::routes())
        .merge(sessions::routes())
        .merge(session_state::routes())
        .merge(jobs::routes())
        .merge(settings::routes())
        .merge(maintenance::routes())
        .merge(users::routes())
        .merge(roles::routes())
        .merge(extensions::routes())
        .merge(unsupported::routes())
        .merge(rest::routes())
        .merge(rows::routes())
        .merge(metrics::routes())
        .merge(openapi::routes())
        .merge(pages::routes())
        .merge(health::routes())
        .split_for_parts();
    (router, description::finish(described))
}

/// What the metrics listener serves.
pub fn metrics_only() -> Router<Arc<HttpDoor>> {
    let routes = health::routes().merge(metrics::open_routes());
    routes.split_for_parts().0
}
