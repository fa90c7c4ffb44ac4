//! `Idempotency-Key`: a POST that comes again with the same key gets the answer of the first time,
//! and nothing is done twice. Keys are a role's own; of those who share one, each one's.
//!
//! The first request is carried out to its end even when its client leaves: that is why it asks
//! again. Answers are bounded in number, size and age; the oldest makes room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use http_body::Body as _;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::extract::{Caller, read_body};
use super::super::{HttpDoor, description, error};
use super::work::Passage;
use super::{handle, sizes, text_of};
use crate::auth::tokens::GrantKind;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a key.
const LONGEST_KEY: usize = 255;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Keys that are remembered.
const MOST: usize = 10_000;

/// Bytes of one answer that is kept, and of all of them.
const LONGEST_ANSWER: u64 = 1 << 20;
const LONGEST_ALL: usize = 64 << 20;

/// Who, and his key, hashed.
type Key = [u8; 32];

/// Answers that are kept to be repeated.
#[derive(Default)]
pub struct Replays(Mutex<Store>);

#[derive(Default)]
struct Store {
    entries: HashMap<Key, Entry>,
    /// Oldest first; one that is out of date names an entry that is gone or newer.
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

struct Entry {
    at: Instant,
    /// Hash of what was asked for.
    request: [u8; 32],
    state: State,
}

enum State {
    Running,
    /// It was carried out, and its answer is too long to be kept.
    Lost,
    Done(Arc<Kept>),
}

/// An answer.
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    error: Option<Arc<Error>>,
}

impl Kept {
    fn len(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + headers.sum::<usize>()
    }

    fn response(&self) -> Response {
        let mut response = match &self.error {
            Some(error) => error::again(error.clone()),
            None => Response::new(Body::from(self.body.clone())),
        };
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers.clone());
        response
    }
}

/// What is known of a key.
enum Begun {
    /// Nothing: it is being carried out now.
    First,
    /// It is being carried out by another request.
    Busy,
    /// It was for another request.
    Other,
    /// It was carried out; the answer is gone.
    Lost,
    /// It was carried out.
    Done(Arc<Kept>),
}

impl Store {
    fn begin(&mut self, key: Key, request: [u8; 32], now: Instant, ttl: Duration) -> Begun {
        self.forget(now, ttl);
        if let Some(entry) = self.entries.get(&key) {
            return match &entry.state {
                _ if entry.request != request => Begun::Other,
                State::Running => Begun::Busy,
                State::Lost => Begun::Lost,
                State::Done(kept) => Begun::Done(kept.clone()),
            };
        }
        self.entries.insert(key, Entry { at: now, request, state: State::Running });
        self.order.push_back((now, key));
        Begun::First
    }

    /// Ends what was begun; `None` = nothing was done, and it may be tried again.
    fn end(&mut self, key: &Key, begun: Instant, state: Option<State>) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.at == begun) else {
            return;
        };
        match state {
            Some(state) => {
                if let State::Done(kept) = &state {
                    self.bytes += kept.len();
                }
                entry.state = state;
            }
            None => {
                self.entries.remove(key);
            }
        }
    }

    /// Takes out what is too old, and the oldest of what is too much.
    fn forget(&mut self, now: Instant, ttl: Duration) {
        while let Some((at, key)) = self.order.front() {
            let is_old = now.saturating_duration_since(*at) >= ttl;
            if !is_old && self.entries.len() < MOST && self.bytes <= LONGEST_ALL {
                break;
            }
            if self.entries.get(key).is_some_and(|entry| entry.at == *at)
                && let Some(Entry { state: State::Done(kept), .. }) = self.entries.remove(key)
            {
                self.bytes -= kept.len();
            }
            self.order.pop_front();
        }
        // Places of keys that were given up at once must not gather.
        if self.order.len() >= 2 * MOST {
            let entries = &self.entries;
            self.order.retain(|(at, key)| entries.get(key).is_some_and(|entry| entry.at == *at));
        }
    }
}

/// A key that is being carried out; if nobody says how it ended, nothing is known of it.
struct Running {
    door: Arc<HttpDoor>,
    key: Key,
    begun: Instant,
    state: Option<State>,
}

impl Running {
    fn end(mut self, state: Option<State>) {
        self.state = state;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut store = self.door.replays.0.lock();
        store.end(&self.key, self.begun, self.state.take());
        let keys = i64::try_from(store.entries.len()).unwrap_or(i64::MAX);
        self.door.metrics.access.replay_keys.set(keys);
    }
}

/// A caller that was asked for before the handler asks for it.
#[derive(Clone)]
struct Known(Arc<Mutex<Option<Caller>>>);

/// The caller, if a stage has found out who it is.
pub fn known_caller(parts: &mut Parts) -> Option<Caller> {
    parts.extensions.remove::<Known>()?.0.lock().take()
}

/// Carries a request out, or repeats the answer that it had.
pub(super) async fn once(
    door: &Arc<HttpDoor>,
    passage: &Passage,
    request: Request,
    route: Route,
) -> Response {
    let asks = request.method() == Method::POST
        && request.headers().contains_key(&IDEMPOTENCY_KEY)
        && passage.route.is_some()
        && !description::is_open(passage.path());
    if !asks {
        return handle(&passage.config, &passage.in_work, request, route).await;
    }
    match Box::pin(keyed(door, passage, request, route)).await {
        Ok(response) => response,
        Err(error) => error::response(error),
    }
}

/// Claims that differ between two tokens of one and the same caller.
const OF_THE_TOKEN: [&str; 5] = ["exp", "iat", "nbf", "jti", "auth_time"];

/// What of a request's headers decides what it does and how it is answered.
const ASKS: [&str; 10] = [
    "accept",
    "accept-profile",
    "content-profile",
    "content-type",
    "if-match",
    "if-none-match",
    "prefer",
    "range",
    "x-session-id",
    "x-transaction-id",
];

/// Who of those who share a role: the claims of a token, which SQL may go by; nobody in particular
/// by his address.
fn subject(caller: &Caller) -> String {
    match caller.identity.grant.as_deref() {
        Some(grant) if grant.kind == GrantKind::Jwt => {
            let claims = grant.claims.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let mut claims: BTreeMap<String, Value> = claims.unwrap_or_default();
            claims.retain(|name, _| !OF_THE_TOKEN.contains(&name.as_str()));
            format!("{} {claims:?}", grant.subject)
        }
        Some(grant) if grant.kind == GrantKind::Anonymous => {
            caller.visit.address.map(|address| address.to_string()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

async fn keyed(
    door: &Arc<HttpDoor>,
    passage: &Passage,
    request: Request,
    route: Route,
) -> Result<Response> {
    let name = text_of(request.headers(), &IDEMPOTENCY_KEY)?.unwrap_or("").to_owned();
    if name.len() > LONGEST_KEY {
        let text = format!("the header Idempotency-Key is longer than {LONGEST_KEY} bytes");
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    let longest = passage.config.api.max_body_size.len();
    let (mut parts, body) = sizes::bound(request, longest).into_parts();
    let caller = match Caller::from_request_parts(&mut parts, door).await {
        Ok(caller) => caller,
        Err(refused) => return Ok(refused.into_response()),
    };
    let subject = subject(&caller);
    let role = caller.identity.role.as_str();
    let key = hash(&[role.as_bytes(), subject.as_bytes(), name.as_bytes()]);
    let bytes = read_body(body, door).await?;
    let mut headers = Vec::new();
    for name in ASKS {
        // `*/*` is what is meant without it (RFC 9110, 12.5.1).
        for value in parts.headers.get_all(name).iter().filter(|value| *value != "*/*") {
            headers.extend([name.as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
    }
    let asked = hash(&[
        // Over HTTP/2 the whole URI also says how the request came.
        parts.uri.path_and_query().map_or(b"", |target| target.as_str().as_bytes()),
        &headers,
        &bytes,
    ]);
    let ttl = passage.config.api.idempotency_ttl_secs.duration();
    let now = Instant::now();
    let begun = door.replays.0.lock().begin(key, asked, now, ttl);
    let counted = |result| door.metrics.access.replayed(result);
    let conflict = |text: &'static str| Error::new(ErrorKind::Conflict, text);
    match begun {
        Begun::First => counted("first"),
        Begun::Done(kept) => {
            counted("repeated");
            let mut response = kept.response();
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert("idempotency-replayed", yes);
            return Ok(response);
        }
        Begun::Busy => {
            counted("busy");
            return Err(conflict("a request with this Idempotency-Key is still in work")
                .with_retry_after(Duration::from_secs(1)));
        }
        Begun::Lost => {
            counted("lost");
            return Err(conflict(
                "the request with this Idempotency-Key was carried out; its answer is gone",
            ));
        }
        Begun::Other => {
            counted("other");
            let text = "this Idempotency-Key was used for another request";
            return Err(Error::new(ErrorKind::ValidationError, text).with_http_status(422));
        }
    }
    parts.extensions.insert(Known(Arc::new(Mutex::new(Some(caller)))));
    let request = Request::from_parts(parts, Body::from(bytes));
    // What is not known in the end counts as carried out.
    let state = Some(State::Lost);
    let running = Running { door: door.clone(), key, begun: now, state };
    let (in_work, config) = (passage.in_work.clone(), passage.config.clone());
    let carried_out = tokio::spawn(async move {
        let response = handle(&config, &in_work, request, route).await;
        let (state, response) = kept(response).await;
        running.end(state);
        response
    });
    carried_out.await.map_err(Error::internal)
}

/// What is kept of an answer.
async fn kept(response: Response) -> (Option<State>, Response) {
    let (mut parts, body) = response.into_parts();
    let error = parts.extensions.get::<Arc<Error>>().cloned();
    let undone = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::REQUEST_TIMEOUT,
    ];
    if undone.contains(&parts.status) {
        return (None, Response::from_parts(parts, body));
    }
    if body.size_hint().upper().is_none_or(|size| size > LONGEST_ANSWER) {
        return (Some(State::Lost), Response::from_parts(parts, body));
    }
    let Ok(body) = body.collect().await else {
        parts.status = StatusCode::INTERNAL_SERVER_ERROR;
        return (Some(State::Lost), Response::from_parts(parts, Body::empty()));
    };
    let body = body.to_bytes();
    let (status, mut headers) = (parts.status, parts.headers.clone());
    headers.remove(header::SET_COOKIE);
    let kept = Kept { status, headers, body: body.clone(), error };
    (Some(State::Done(Arc::new(kept))), Response::from_parts(parts, Body::from(body)))
}

/// A hash of parts that cannot be moved from one to the next.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    fn key(n: usize) -> Key {
        hash(&[&n.to_le_bytes()])
    }

    fn word(begun: &Begun) -> &'static str {
        match begun {
            Begun::First => "first",
            Begun::Busy => "busy",
            Begun::Other => "other",
            Begun::Lost => "lost",
            Begun::Done(_) => "done",
        }
    }

    fn done(bytes: usize) -> Option<State> {
        let body = Bytes::from(vec![0; bytes]);
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        Some(State::Done(Arc::new(Kept { status, headers, body, error: None })))
    }

    #[test]
    fn an_answer_is_kept_for_its_time() {
        let (mut store, begun) = (Store::default(), Instant::now());
        let ask = |store: &mut Store, n, request, secs| {
            let at = begun + Duration::from_secs(secs);
            word(&store.begin(key(n), [request; 32], at, TTL))
        };
        assert_eq!(ask(&mut store, 1, 1, 0), "first");
        assert_eq!(ask(&mut store, 1, 1, 1), "busy");
        assert_eq!(ask(&mut store, 1, 2, 1), "other");
        store.end(&key(1), begun, done(10));
        assert_eq!(ask(&mut store, 1, 1, 599), "done");
        assert_eq!(ask(&mut store, 1, 2, 599), "other");
        assert_eq!(ask(&mut store, 1, 2, 600), "first");
        assert_eq!(store.bytes, 0);
        // The end of the one before does not count for this one.
        store.end(&key(1), begun, done(10));
        assert_eq!(ask(&mut store, 1, 2, 601), "busy");
        store.end(&key(1), begun + TTL, None);
        assert_eq!(ask(&mut store, 1, 3, 602), "first");
        store.end(&key(1), begun + Duration::from_secs(602), Some(State::Lost));
        assert_eq!(ask(&mut store, 1, 3, 603), "lost");
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut store, now) = (Store::default(), Instant::now());
        for n in 0..MOST + 5 {
            store.begin(key(n), [0; 32], now, TTL);
            store.end(&key(n), now, done(1));
        }
        assert_eq!((store.entries.len(), store.bytes), (MOST, MOST));
        assert_eq!(word(&store.begin(key(4), [0; 32], now, TTL)), "first");
        for n in 0..3 * MOST {
            store.begin(key(MOST + 9 + n), [0; 32], now, TTL);
            store.end(&key(MOST + 9 + n), now, None);
        }
        assert!(store.order.len() <= 2 * MOST);
        let mut store = Store::default();
        for n in 0..100 {
            store.begin(key(n), [0; 32], now, TTL);
            store.end(&key(n), now, done(1 << 20));
        }
        assert!(store.bytes <= LONGEST_ALL + (1 << 20), "{}", store.bytes);
    }
}
