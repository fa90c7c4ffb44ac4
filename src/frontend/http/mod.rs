//! The HTTP door: one router for every listener and worker, and what every request goes through.
//!
//! `gate → request id → route → (log-in → session) → answer → metrics, access log`. Adding an
//! endpoint touches `routes/` only.

mod body;
mod counted;
mod description;
mod error;
mod extract;
mod fetch;
mod kept;
mod open;
mod paging;
mod routes;
mod shelf;
mod values;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;

use counted::Counted;
pub use kept::KeptSessions;
pub use open::OpenTransactions;

use crate::auth::Authenticator;
use crate::catalog::Catalog;
use crate::config::Live;
use crate::error::{Error, ErrorKind};
use crate::limits::{Gate, Permit};
use crate::net::{DrainWatch, Listener, ServerTls, Stage, Stream};
use crate::session::Opener;
use crate::session::admin::Admin;
use crate::telemetry::metrics::Raised;
use crate::telemetry::{Health, Metrics};
use crate::types::Protocol;

/// Bytes of a request's head, and of a response that wait to be sent.
const MAX_BUFFER: usize = 64 << 10;

/// The content type of a TLS record with a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Headers of a request.
const MAX_HEADERS: usize = 100;

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
    /// [`openapi`].
    pub description: Bytes,
    /// What an administrator may see and do.
    pub admin: Admin,
    /// Transactions over several requests.
    pub transactions: Arc<OpenTransactions>,
    /// Sessions that clients have opened.
    pub kept: KeptSessions,
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
        routes
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(self.clone())
            .layer(middleware::from_fn_with_state(self.clone(), attend))
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
        let peer = Peer(stream.peer().into());
        let metrics = self.metrics.protocol(Protocol::Http);
        metrics.connections_total.inc();
        let _open = Raised::new(&metrics.connections_active);
        let Some(stream) = self.encrypted(stream, face).await else { return };
        let way = Way {
            has_tls: matches!(stream, Stream::Tls(_)),
            is_far: face == Face::Api
                && stream.peer_address().is_some_and(|a| !a.ip().to_canonical().is_loopback()),
        };
        let router = router.layer(axum::Extension(peer)).layer(axum::Extension(way));
        let service = TowerToHyperService::new(router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also bounds how long a connection is kept before and between requests.
            .header_read_timeout(self.config.now().api.keep_alive_secs.duration())
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(Counted::new(stream, metrics)), service);
        let mut drain = self.drain.clone();
        tokio::pin!(connection);
        let finished = tokio::select! {
            finished = connection.as_mut() => finished,
            () = drain.reached(Stage::Draining) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    finished = connection.as_mut() => finished,
                    () = drain.reached(Stage::Stopping) => Ok(()),
                }
            }
        };
        if let Err(e) = finished {
            tracing::debug!(error = %e, "an HTTP connection ended early");
        }
    }
}

impl HttpDoor {
    /// The same port takes HTTP and HTTPS: a TLS handshake begins with a byte that no method has.
    async fn encrypted(&self, stream: Stream, face: Face) -> Option<Stream> {
        let Some(tls) = self.tls.as_ref().filter(|_| face == Face::Api) else {
            return Some(stream);
        };
        let config = self.config.now();
        let first = tokio::time::timeout(config.api.keep_alive_secs.duration(), stream.peek());
        if first.await.ok()?.ok()?? != TLS_HANDSHAKE {
            return Some(stream);
        }
        let served = tls.current();
        let limit = config.network.connection_timeout_secs.duration();
        match tokio::time::timeout(limit, stream.accept_https(&served)).await {
            Ok(Ok((stream, facts))) => {
                self.metrics.tls_handshake(Some(facts.version));
                Some(stream)
            }
            Ok(Err((stream, error))) => {
                self.metrics.tls_handshake(None);
                let peer = stream.peer();
                tracing::info!(peer, %error, "TLS handshake of an HTTP client failed");
                None
            }
            Err(_) => {
                self.metrics.connection_rejected("connection_timeout");
                None
            }
        }
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug)]
struct Way {
    has_tls: bool,
    /// From another host, to a listener that asks for passwords.
    is_far: bool,
}

/// Address of the client.
#[derive(Clone, Debug)]
pub struct Peer(Arc<str>);

/// The number of a request, in its log lines, its headers and its errors.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes the client's, if it is 1 to 128 visible ASCII characters, else makes one.
    fn of(request: &Request) -> Self {
        let header = request.headers().get("x-request-id");
        let header = header.or_else(|| request.headers().get("x-correlation-id"));
        let given = header.and_then(|value| value.to_str().ok());
        let fits = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|b| b > b' ');
        match given.filter(fits) {
            Some(id) => Self(id.into()),
            None => Self(uuid::Uuid::now_v7().to_string().into()),
        }
    }
}

/// What every request goes through, whatever its route.
async fn attend(State(door): State<Arc<HttpDoor>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = RequestId::of(&request);
    let method = method_label(request.method());
    let endpoint = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(id.clone());
    let is_foreign = !door.auth.is_required() && !names_this_machine(request.headers());
    let path = request.uri().path().to_owned();
    // Who watches the server is answered when it is full, takes nobody's place, and is not news.
    let is_watcher =
        path == "/metrics" || path.starts_with("/health/") || path.starts_with("/api/v1/health");
    let way = request.extensions().get::<Way>().copied();
    let has_tls = way.is_some_and(|way| way.has_tls);
    let is_bare = door.config.now().security.require_tls && way.is_some_and(|way| way.is_far);
    let place = if is_watcher { None } else { door.requests.enter() };
    let in_work = InWork(Arc::new(Mutex::new(place)));
    request.extensions_mut().insert(in_work.clone());
    let in_flight = Raised::new(&door.metrics.api_in_flight);
    let admitted = in_work.0.lock().is_some();
    let mut response = match admitted || is_watcher {
        // A page in a browser on this machine could have its name resolved to loopback.
        true if is_foreign => {
            let text = "without authentication only localhost or an address may be named as Host";
            error::response(Error::new(ErrorKind::AuthorizationFailed, text))
        }
        true if is_bare && !has_tls && !is_watcher => {
            let text = "requests from other hosts must be encrypted: use https";
            error::response(Error::new(ErrorKind::TlsRequired, text))
        }
        true => next.run(request).await,
        false => {
            let most = door.requests.most();
            let text = format!("{most} requests are in work already");
            error::response(
                Error::new(ErrorKind::ServiceUnavailable, text)
                    .with_hint("api.max_connections bounds them; try again later"),
            )
        }
    };
    drop(in_flight);
    error::finish(&mut response, &id, &door.metrics);
    let endpoint = endpoint.as_ref().map_or("other", MatchedPath::as_str);
    let status = response.status().as_u16();
    let elapsed = begun.elapsed();
    door.metrics.api_request(method, endpoint, status, elapsed.as_secs_f64());
    if !is_watcher {
        tracing::info!(
            target: "access", method, path, status, request_id = &*id.0,
            ms = elapsed.as_secs_f64() * 1000.0, "request"
        );
    }
    let headers = response.headers_mut();
    headers.insert("x-api-version", HeaderValue::from_static("1"));
    headers.insert("x-rustydb-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if door.drain.stage() == Stage::Replaced {
        // The next request goes to the process that accepts now; none is lost in between.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if has_tls {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", id);
    }
    response
}

/// The place of a request among those in work. It is free when the head of the response is there,
/// unless a handler takes it along because its body is still work.
#[derive(Clone)]
pub struct InWork(Arc<Mutex<Option<Permit>>>);

impl InWork {
    /// Takes the place along.
    pub fn keep(&self) -> Option<Permit> {
        self.0.lock().take()
    }
}

/// Whether the request was sent to an address or to localhost, and not to some domain's name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = host.to_str().unwrap_or("").parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
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

async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    let error = Error::new(ErrorKind::NotFound, format!("there is nothing at {path}"));
    match path.strip_prefix("/api/").and_then(|rest| rest.split('/').next()) {
        Some(version) if version != "v1" => {
            error::response(error.with_detail("supported_versions: v1"))
        }
        _ => error::response(error),
    }
}

async fn method_not_allowed(request: Request) -> Response {
    let text = format!("{} is not possible at {}", request.method(), request.uri().path());
    error::response(Error::new(ErrorKind::MethodNotAllowed, text))
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
