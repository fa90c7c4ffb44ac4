//! What every HTTP request goes through, whatever its route, in this order:
//!
//! | Stage | Refuses with | In |
//! |---|---|---|
//! | number, trace, timer | | [`work`] |
//! | who may come in: place, host, TLS | 503, 400, 403 | here |
//! | CORS; a preflight is answered | 403 | [`cors`] |
//! | sizes and form of the head, announced length | 400, 413, 414, 431 | [`sizes`] |
//! | rate of the address, and rules for everybody | 429 | [`rates`] |
//! | log-in, CSRF, permission, rate of the role | 401, 403, 429 | `extract::Caller` |
//! | one answer for one Idempotency-Key | 409, 422 | [`replay`] |
//! | the body: decompressed, and no longer than it may be | 413, 415 | [`coding`], [`sizes`] |
//! | time | 504 | [`timely`] |
//! | panics of a handler | 500 | [`guarded`] |
//! | the handler | | `routes/` |
//! | compression, headers | | [`coding`], [`headers`] |
//! | metrics, audit log, access log; after a refusal, too | | [`record`] |

mod coding;
mod cors;
mod headers;
mod rates;
mod record;
mod replay;
mod sizes;
mod work;

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::Response;
use axum::routing::Route;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};
use tower::Service;
use tower::layer::layer_fn;

use super::formats::prefers_msgpack;
use super::rows::rest::PREFIX;
use super::{HttpDoor, error, extract};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::metrics::Raised;

pub use cors::check_origin;
pub use headers::usual as usual_headers;
pub use rates::{charge, proven};
pub use replay::{Replays, known_caller};
pub use sizes::unreadable;
pub use work::{InWork, RequestId};

use work::Passage;

/// What a handler has beyond the limit of all requests, to end with an error that says more.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// Puts the pipeline around the routes of a listener.
pub fn around(routes: Router, door: &Arc<HttpDoor>) -> Router {
    let door = door.clone();
    routes.layer(layer_fn(move |route| Pipeline { door: door.clone(), route }))
}

/// A route with all that is around it.
#[derive(Clone)]
struct Pipeline {
    door: Arc<HttpDoor>,
    route: Route,
}

impl Service<Request> for Pipeline {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (door, route) = (self.door.clone(), self.route.clone());
        Box::pin(async move { Ok(attend(door, request, route).await) })
    }
}

async fn attend(door: Arc<HttpDoor>, mut request: Request, route: Route) -> Response {
    let passage = Passage::begin(&door, &mut request);
    let shows_token = extract::shows_token(request.headers());
    let packs = !passage.uri.path().starts_with(PREFIX) && prefers_msgpack(request.headers());
    let in_flight = Raised::new(&door.metrics.api_in_flight);
    let mut response = match admit(&door, &passage, &request) {
        Ok(Some(preflight)) => preflight,
        Ok(None) => {
            let accepted = request.headers().get(header::ACCEPT_ENCODING).cloned();
            let answer = replay::once(&door, &passage, request, route).await;
            let answer = if packs { coding::pack(answer).await } else { answer };
            coding::compress(&passage.config.api.compression, accepted, answer).await
        }
        Err(error) => {
            if error.kind() == ErrorKind::PayloadTooLarge {
                Box::pin(sizes::discard(request.into_body())).await;
            }
            error::response(error)
        }
    };
    drop(in_flight);
    let failure = error::finish(&mut response, (passage.id(), passage.uri.path()), &door.metrics);
    if packs && failure.is_some() {
        response = coding::pack(response).await;
    }
    if shows_token && response.status() == StatusCode::UNAUTHORIZED {
        // A browser would ask for a password (RFC 6750, section 3).
        let invalid = HeaderValue::from_static("Bearer realm=\"RustyDB\", error=\"invalid_token\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, invalid);
    }
    headers::complete(&door, &passage, &mut response);
    record::record(&door, &passage, &response, failure.as_deref());
    response
}

/// The stages before anything is done for the request; gives the answer to a preflight.
fn admit(door: &HttpDoor, passage: &Passage, request: &Request) -> Result<Option<Response>> {
    let config = &passage.config;
    if !passage.is_watcher && !passage.in_work.has_place() {
        let text = format!("{} requests are in work already", door.requests.most());
        return Err(Error::new(ErrorKind::ServiceUnavailable, text)
            .with_hint("api.max_connections bounds them; try again later"));
    }
    check_host(request)?;
    // A page in a browser on this machine could have its name resolved to loopback.
    if !door.auth.is_required() && !names_this_machine(request.headers()) {
        let text = "without authentication only localhost or an address may be named as Host";
        return Err(Error::new(ErrorKind::AuthorizationFailed, text));
    }
    let way = &passage.way;
    if config.security.require_tls && way.is_far && !way.has_tls && !passage.is_watcher {
        let text = "requests from other hosts must be encrypted: use https";
        return Err(Error::new(ErrorKind::TlsRequired, text));
    }
    if let Some(preflight) = cors::preflight(&config.api, request)? {
        return Ok(Some(preflight));
    }
    sizes::check_head(request, sizes::longest_body(&config.api, request))?;
    passage.check()?;
    if !passage.is_watcher {
        rates::coming(door, passage)?;
    }
    Ok(None)
}

/// The stages around a handler that has a body to read and time to spend.
async fn handle(config: &Config, passage: &InWork, request: Request, route: Route) -> Response {
    let longest = sizes::longest_body(&config.api, &request);
    let request = match coding::decompress(request) {
        Ok(request) => sizes::bound(request, longest),
        Err(error) => return error::response(error),
    };
    timely(config, passage, guarded(request, route)).await
}

/// Ends what takes longer than `api.request_timeout_secs`: dropping a handler cancels the statement
/// that it waits for. Handlers bound themselves too, and know better what took so long; this is for
/// what they forget.
async fn timely(
    config: &Config,
    in_work: &InWork,
    answer: impl Future<Output = Response>,
) -> Response {
    let limit = config.api.request_timeout_secs.duration() + LAST_SECOND;
    let (begun, mut answer, mut over) = (Instant::now(), pin!(answer), None);
    let poll = |cx: &mut Context<'_>| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if in_work.limits_itself() {
            return Poll::Pending;
        }
        // Whatever the handler does with its turn, time goes on.
        let sleep = || Box::pin(unconstrained(sleep_until(begun + limit)));
        over.get_or_insert_with(sleep).as_mut().poll(cx).map(|()| None)
    };
    poll_fn(poll).await.unwrap_or_else(|| {
        let error = Error::new(ErrorKind::Timeout, "the request took too long and was given up");
        error::response(error.with_hint("api.request_timeout_secs bounds it"))
    })
}

/// Runs the handler; when it panics, that is an error like others.
async fn guarded(
    request: Request,
    mut route: impl Service<Request, Response = Response, Error = Infallible>,
) -> Response {
    let mut answer = match catch_unwind(AssertUnwindSafe(|| route.call(request))) {
        Ok(answer) => pin!(answer),
        Err(cause) => return panicked(cause),
    };
    // It is not polled again after a panic.
    let poll =
        |cx: &mut Context<'_>| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
            Ok(answer) => answer.map(|answer| answer.unwrap_or_else(|never| match never {})),
            Err(cause) => Poll::Ready(panicked(cause)),
        };
    poll_fn(poll).await
}

fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| cause.downcast_ref::<String>().cloned());
    let text = format!("a handler panicked: {}", text.as_deref().unwrap_or("without a word"));
    error::response(Error::internal(text))
}

/// Every stage looks at the header Host, so there must be no doubt about it. HTTP/1.1 has exactly
/// one (RFC 9112, section 3.2); HTTP/2 names the server in `:authority`, and a Host header must not
/// say otherwise (RFC 9113, section 8.3.1).
fn check_host(request: &Request) -> Result<()> {
    let invalid = |text: &'static str| Err(Error::new(ErrorKind::ValidationError, text));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    if request.version() == Version::HTTP_2 {
        let Some(named) = request.uri().authority() else { return Ok(()) };
        let is_same =
            |host: &HeaderValue| named.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes());
        return match hosts.all(is_same) {
            true => Ok(()),
            false => invalid("the header Host and :authority name different servers"),
        };
    }
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => invalid("there is more than one header Host"),
        (Some(host), None) if !is_host(host) => invalid("the header Host names no server"),
        (None, _) if request.version() == Version::HTTP_11 => invalid("the header Host is missing"),
        _ => Ok(()),
    }
}

/// Whether it is a name or address with or without a port; a client that knows none sends nothing.
fn is_host(value: &HeaderValue) -> bool {
    let text = value.to_str().ok();
    text.is_some_and(|text| {
        text.is_empty() || !text.contains('@') && text.parse::<Authority>().is_ok()
    })
}

/// Whether the request was sent to an address or to localhost, and not to some domain's name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = host.to_str().unwrap_or("").parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// A header of the request as text; what is not visible ASCII is an error.
fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| {
        let text = format!("the header {name} is empty, or not visible ASCII");
        Error::new(ErrorKind::ValidationError, text)
    });
    text.map(Some)
}

/// A number as the value of a header.
fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_request() {
        async fn later(request: Request) -> Result<Response, Infallible> {
            tokio::task::yield_now().await;
            assert_ne!(request.uri(), "/later");
            Ok(Response::default())
        }
        let handler = |request: Request| {
            assert_ne!(request.uri(), "/now");
            later(request)
        };
        for (path, status) in [("/", 200), ("/now", 500), ("/later", 500)] {
            let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
            let response = guarded(request, tower::service_fn(handler)).await;
            assert_eq!(response.status(), status, "{path}");
        }
    }

    #[test]
    fn hosts() {
        let check = |version: Version, uri: &str, hosts: &[&str]| {
            let request = axum::http::Request::builder().version(version).uri(uri);
            let request = hosts.iter().fold(request, |request, host| request.header("host", *host));
            check_host(&request.body(Body::empty()).unwrap()).is_ok()
        };
        let (old, usual, new) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for host in ["a", "a.b:8080", "127.0.0.1:1", "[::1]:8080", ""] {
            assert!(check(usual, "/", &[host]) && check(old, "/", &[host]), "{host}");
        }
        for host in ["a b", "u@a", "a/b", "[::1", "\u{e4}"] {
            assert!(!check(usual, "/", &[host]) && !check(old, "/", &[host]), "{host}");
        }
        assert!(check(old, "/", &[]) && !check(usual, "/", &[]) && !check(usual, "http://a/", &[]));
        for version in [old, usual] {
            assert!(!check(version, "/", &["a", "a"]));
        }
        assert!(check(new, "https://a/", &[]) && check(new, "https://a/", &["A"]));
        assert!(!check(new, "https://a/", &["a", "b"]));
    }
}
