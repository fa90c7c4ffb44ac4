//! The HTTP door: one router for every listener and worker. What every request goes through is in
//! `pipeline/`; adding an endpoint touches `routes/` only.

mod arrival;
mod body;
mod counted;
mod description;
mod error;
mod etag;
mod extract;
mod fetch;
mod formats;
pub mod fuzz;
mod http2;
mod kept;
mod open;
mod paging;
mod pipeline;
mod places;
mod routes;
mod rows;
mod running;
mod shelf;
mod tables;
mod values;
mod within;
mod words;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::Service;

use arrival::Arrived;
use counted::Counted;
pub use kept::KeptSessions;
pub use open::OpenTransactions;
pub use pipeline::{InWork, Replays, RequestId, usual_headers};
pub use rows::shapes::Shapes;

use crate::auth::Authenticator;
use crate::catalog::Catalog;
use crate::config::Live;
use crate::error::{Error, ErrorKind};
use crate::limits::Gate;
use crate::limits::rate::RateLimiter;
use crate::net::{DrainWatch, Ends, Listener, ServerTls, Stage, Stream};
use crate::session::Opener;
use crate::session::admin::Admin;
use crate::session::jobs::Jobs;
use crate::telemetry::metrics::Raised;
use crate::telemetry::{Health, Metrics, Seldom};
use crate::types::Protocol;

/// Bytes of a request's head, and of a response that wait to be sent.
const MAX_BUFFER: usize = 64 << 10;

/// Open connections of the metrics listener.
pub const METRICS_SOCKETS: usize = 256;

/// What every request of this door shares.
pub struct HttpDoor {
    /// Who may come in.
    pub auth: Arc<Authenticator>,
    /// Makes sessions.
    pub opener: Opener,
    /// Types and columns.
    pub catalog: Arc<Catalog>,
    /// `api.max_connections`: requests in work.
    pub requests: Arc<Gate>,
    /// `api.max_sockets`: open connections.
    pub sockets: Arc<Gate>,
    /// [`METRICS_SOCKETS`].
    pub metrics_sockets: Arc<Gate>,
    /// The certificates; `None` = no TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// The configuration.
    pub config: Live,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Health.
    pub health: Arc<Health>,
    /// What the cursors of this process are signed with.
    pub cursor_key: [u8; 32],
    /// [`openapi`].
    pub description: Bytes,
    /// [`usual_headers`]. An answer may begin with a copy of them.
    pub usual_headers: HeaderMap,
    /// What an administrator may see and do.
    pub admin: Admin,
    /// Transactions over several requests.
    pub transactions: Arc<OpenTransactions>,
    /// Sessions that clients have opened.
    pub kept: KeptSessions,
    /// Requests for rows that are planned already.
    pub shapes: Shapes,
    /// How often requests may come; log-ins are counted by the same.
    pub limiter: Arc<RateLimiter>,
    /// When the audit log was told of a request that came too soon.
    pub limited_notes: Seldom,
    /// Answers that are kept to be repeated.
    pub replays: Arc<Replays>,
    /// Long operations.
    pub jobs: Arc<Jobs>,
    /// The shutdown.
    pub drain: DrainWatch,
}

/// The description of the API: OpenAPI 3.1 in JSON.
pub fn openapi() -> String {
    routes::document()
}

/// Which listener a router is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Everything, port 8080.
    Api,
    /// Metrics and probes without a password, port 9090.
    Metrics,
}

impl HttpDoor {
    /// The router of a listener.
    pub fn router(self: &Arc<Self>, face: Face) -> Router {
        let routes = match face {
            Face::Api => routes::api().0,
            Face::Metrics => routes::metrics_only(),
        };
        let routes = routes
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(self.clone());
        pipeline::around(routes, self)
    }

    /// Accepts until the server drains, or is replaced.
    pub async fn serve(self: Arc<Self>, mut listener: Listener, face: Face) {
        let router = self.router(face);
        let mut drain = self.drain.clone();
        loop {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                () = drain.reached(Stage::Replaced) => return,
            };
            // Probes and metrics are to answer when the API is full.
            let sockets = match face {
                Face::Api => &self.sockets,
                Face::Metrics => &self.metrics_sockets,
            };
            let Some(permit) = sockets.enter() else {
                self.metrics.connection_rejected("api_max_sockets");
                continue;
            };
            let config = self.config.now();
            listener.configure(&stream, &config.network);
            stream.give_up_after(config.api.stall_timeout_secs.duration());
            let (door, router) = (self.clone(), router.clone());
            tokio::spawn(async move {
                door.connection(stream, router, face).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: Stream, router: Router, face: Face) {
        let peer = stream.peer();
        let address = stream.peer_address().map(|address| address.ip().to_canonical());
        let metrics = self.metrics.protocol(Protocol::Http);
        metrics.connections_total.inc();
        let _open = Raised::new(&metrics.connections_active);
        let mut drain = self.drain.clone();
        let arrived = tokio::select! {
            biased;
            arrived = self.arrival(stream, face) => arrived,
            () = drain.reached(Stage::Draining) => None,
        };
        let Some(Arrived { stream, ahead, is_http2 }) = arrived else { return };
        let way = Way {
            has_tls: matches!(stream, Stream::Tls(_)),
            is_far: face == Face::Api && address.is_some_and(|address| !address.is_loopback()),
            address,
        };
        let peer = Arc::new(Peer { address: peer.into(), ends: Ends::of(&stream), way });
        let stream = Counted::new(stream, ahead, metrics);
        let finished = match is_http2 {
            // Boxed, so that the others do not cost as much memory.
            true => Box::pin(self.serve_http2(stream, router, peer)).await,
            false => self.serve_http1(stream, router, peer).await,
        };
        if let Err(e) = finished {
            tracing::debug!(error = %e, "an HTTP connection ended early");
        }
    }

    async fn serve_http1(
        &self,
        stream: Counted,
        router: Router,
        peer: Arc<Peer>,
    ) -> hyper::Result<()> {
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also bounds how long a connection is kept before and between requests.
            .header_read_timeout(self.config.now().api.keep_alive_secs.duration())
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let mut drain = self.drain.clone();
        tokio::pin!(connection);
        tokio::select! {
            finished = connection.as_mut() => finished,
            () = drain.reached(Stage::Draining) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    finished = connection.as_mut() => finished,
                    () = drain.reached(Stage::Stopping) => Ok(()),
                }
            }
        }
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    has_tls: bool,
    /// From another host, to a listener that asks for passwords.
    is_far: bool,
    /// Where the client is.
    address: Option<IpAddr>,
}

/// The client's end of a connection, and ours.
#[derive(Debug)]
pub struct Peer {
    address: Arc<str>,
    ends: Ends,
    way: Way,
}

/// How a request came; none of those that did not come by a connection.
fn way_of(extensions: &Extensions) -> Way {
    extensions.get::<Arc<Peer>>().map(|peer| peer.way).unwrap_or_default()
}

async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    let error = Error::new(ErrorKind::NotFound, format!("there is nothing at {path}"));
    match path.strip_prefix("/api/").and_then(|rest| rest.split('/').next()) {
        Some(version) if version != "v1" => {
            error::response(error.with_named("supported_versions", "v1"))
        }
        _ => error::response(error),
    }
}

async fn method_not_allowed(request: Request) -> Response {
    let text = format!("{} is not possible at {}", request.method(), request.uri().path());
    error::response(Error::new(ErrorKind::MethodNotAllowed, text))
}

/// The answer to what has nothing to tell.
fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A plain JSON answer.
fn answer(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(e) => return error::response(Error::internal(e)),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
