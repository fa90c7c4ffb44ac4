//! A request as long as it is in work: its number, where it comes from, and what the stages find
//! out about it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use parking_lot::{Mutex, MutexGuard};

use super::super::{HttpDoor, Way, way_of};
use super::headers::{TRACEPARENT, X_CORRELATION_ID, X_REQUEST_ID};
use super::text_of;
use crate::auth::Visit;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Permit;
use crate::limits::rate::Decision;
use crate::types::{Protocol, Role};

static X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

/// Bytes of a text that a client gives to be written down: a number, a name.
const LONGEST_NAME: usize = 128;

/// Bytes of `tracestate` (W3C Trace Context asks for at least 512).
const LONGEST_STATE: usize = 512;

/// The number of a request, in its log lines, its headers and its errors.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// Takes the client's, if it is 1 to 128 visible ASCII characters, else makes one.
    fn of(headers: &HeaderMap) -> Self {
        let header = headers.get(&X_REQUEST_ID).or_else(|| headers.get(&X_CORRELATION_ID));
        match header.and_then(|value| value.to_str().ok()).filter(|id| is_word(id)) {
            Some(id) => Self(id.into()),
            None => Self(uuid::Uuid::now_v7().to_string().into()),
        }
    }
}

fn is_word(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// What handlers and stages know of a request in work, and share.
#[derive(Clone)]
pub struct InWork(Arc<(RequestId, Mutex<Known>)>);

#[derive(Default)]
struct Known {
    place: Option<Permit>,
    limits_itself: bool,
    proven: Option<(Role, Duration)>,
    tightest: Option<Decision>,
}

impl InWork {
    fn new(id: RequestId, place: Option<Permit>) -> Self {
        Self(Arc::new((id, Mutex::new(Known { place, ..Known::default() }))))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.1.lock()
    }

    /// Its number.
    pub fn id(&self) -> &RequestId {
        &self.0.0
    }

    /// Takes the place among the requests in work along. Otherwise it is free when the head of the
    /// response is there.
    pub fn keep(&self) -> Option<Permit> {
        self.known().place.take()
    }

    /// Says that the handler bounds its time by itself, as the request asked for.
    pub fn has_own_limit(&self) {
        self.known().limits_itself = true;
    }

    pub(super) fn has_place(&self) -> bool {
        self.known().place.is_some()
    }

    pub(super) fn limits_itself(&self) -> bool {
        self.known().limits_itself
    }

    pub(super) fn proven(&self, role: &Role, took: Duration) {
        self.known().proven = Some((role.clone(), took));
    }

    pub(super) fn who(&self) -> Option<(Role, Duration)> {
        self.known().proven.clone()
    }

    /// What the headers tell of the limits: the tightest of those that count.
    pub(super) fn limited(&self, decision: Decision) {
        let mut known = self.known();
        let order = |decision: &Decision| (decision.allowed, decision.remaining);
        let is_tighter = known.tightest.is_none_or(|other| order(&decision) < order(&other));
        if is_tighter {
            known.tightest = Some(decision);
        }
    }

    /// Forgets the limits that do not count any more.
    pub(super) fn unlimited(&self) {
        self.known().tightest = None;
    }

    pub(super) fn tightest(&self) -> Option<Decision> {
        self.known().tightest
    }
}

/// W3C Trace Context as it came.
pub(super) struct Trace {
    pub(super) parent: HeaderValue,
    pub(super) state: Option<HeaderValue>,
}

impl Trace {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let parent = headers.get(&TRACEPARENT)?;
        is_traceparent(parent.as_bytes()).then(|| Self {
            parent: parent.clone(),
            state: headers.get("tracestate").filter(|s| s.len() <= LONGEST_STATE).cloned(),
        })
    }

    /// The trace's number.
    pub(super) fn id(&self) -> &str {
        self.parent.to_str().ok().and_then(|text| text.get(3..35)).unwrap_or("")
    }
}

/// `version-trace-parent-flags` in lower-case hexadecimal; later versions may have more behind it.
fn is_traceparent(text: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let number = |part: &[u8]| hex(part) && part.iter().any(|b| *b != b'0');
    let dashes = |text: &[u8]| [2, 35, 52].iter().all(|at| text[*at] == b'-');
    text.len() >= 55
        && dashes(text)
        && hex(&text[..2])
        && &text[..2] != b"ff"
        && number(&text[3..35])
        && number(&text[36..52])
        && hex(&text[53..55])
        && (text.len() == 55 || &text[..2] != b"00" && text[55] == b'-')
}

/// One request on its way through the stages.
pub(super) struct Passage {
    /// As it was when the request came.
    pub(super) config: Arc<Config>,
    pub(super) begun: Instant,
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// The template of its route.
    pub(super) route: Option<MatchedPath>,
    pub(super) way: Way,
    /// Who watches the server is answered when it is full, takes nobody's place, and is not news.
    pub(super) is_watcher: bool,
    pub(super) in_work: InWork,
    pub(super) trace: Option<Trace>,
    pub(super) origin: Option<HeaderValue>,
    pub(super) host: Option<HeaderValue>,
    pub(super) correlation: Option<HeaderValue>,
    tenant: Result<Option<Arc<str>>>,
}

impl Passage {
    /// Gives a request its number and its place.
    pub(super) fn begin(door: &HttpDoor, request: &mut Request) -> Self {
        let headers = request.headers();
        let id = RequestId::of(headers);
        let path = request.uri().path();
        let is_watcher = path == "/metrics"
            || path.starts_with("/health/")
            || path.starts_with("/api/v1/health");
        let place = if is_watcher { None } else { door.requests.enter() };
        let passage = Self {
            config: door.config.now(),
            begun: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            way: way_of(request.extensions()),
            is_watcher,
            in_work: InWork::new(id, place),
            trace: Trace::of(headers),
            origin: headers.get(ORIGIN).cloned(),
            host: headers.get(HOST).cloned(),
            correlation: headers.get(&X_CORRELATION_ID).cloned(),
            tenant: word(headers, &X_TENANT_ID),
        };
        request.extensions_mut().insert(passage.in_work.clone());
        passage
    }

    /// What its headers say of it must be words.
    pub(super) fn check(&self) -> Result<()> {
        match &self.tenant {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(error.kind(), error.message().to_owned())),
        }
    }

    pub(super) fn id(&self) -> &RequestId {
        self.in_work.id()
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.way.address
    }

    /// Where it comes from, for the logs.
    pub(super) fn visit(&self) -> Visit {
        let mut visit = Visit::new(Protocol::Http, self.way.address);
        visit.request_id = Some(self.id().0.clone());
        visit
    }

    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().ok()?.as_deref()
    }

    /// Its route for metrics: one of a bounded number.
    pub(super) fn endpoint(&self) -> &str {
        self.route.as_ref().map_or("other", MatchedPath::as_str)
    }
}

fn word(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Arc<str>>> {
    match text_of(headers, name)? {
        Some(text) if !is_word(text) => {
            let text = format!("the header {name} is not a word of at most {LONGEST_NAME} bytes");
            Err(Error::new(ErrorKind::ValidationError, text))
        }
        text => Ok(text.map(Arc::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (text, expected) in [
            (good.to_owned(), true),
            (format!("cc{}-what-the-future-has", &good[2..]), true),
            (format!("{good}-more"), false),
            (good.to_uppercase(), false),
            (good.replace("00f067aa0ba902b7", "0000000000000000"), false),
            (good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), false),
            (format!("ff{}", &good[2..]), false),
            (good[..54].to_owned(), false),
            (good.replace("-01", "_01"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_traceparent(text.as_bytes()), expected, "{text}");
        }
        let headers =
            HeaderMap::from_iter([("traceparent".parse().unwrap(), good.parse().unwrap())]);
        assert_eq!(Trace::of(&headers).unwrap().id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn the_tightest_limit_is_told() {
        let in_work = InWork::new(RequestId("x".into()), None);
        let decision = |remaining| Decision {
            allowed: true,
            limit: 9,
            remaining,
            reset: Duration::ZERO,
            retry_after: Duration::ZERO,
        };
        for remaining in [5, 3, 4] {
            in_work.limited(decision(remaining));
        }
        assert_eq!(in_work.tightest().unwrap().remaining, 3);
        in_work.limited(Decision { allowed: false, ..decision(8) });
        assert_eq!(in_work.tightest().unwrap().remaining, 8);
        in_work.unlimited();
        assert_eq!(in_work.tightest(), None);
    }
}
