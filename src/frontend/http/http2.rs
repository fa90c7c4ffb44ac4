//! A connection with HTTP/2 (RFC 9113). The library moves frames; what is here bounds a connection:
//! how much it may hold, how long it may be idle, and how long one of its streams may be without
//! taking anything. Over HTTP/1.1 the kernel notices a reader that has stopped; here the connection
//! goes on when the reader of one stream stops.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tower::Service;

use super::counted::Counted;
use super::{HttpDoor, Peer};
use crate::config::Api;
use crate::net::Stage;
use crate::telemetry::Metrics;

/// Bytes of a request's headers, as HPACK counts them. The pipeline refuses fewer, and says so.
const LONGEST_HEADERS: u32 = 32 << 10;

/// Bytes of requests that have come and were not read: of a stream, and of all its connection's.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// Bytes of a stream's answer that wait to be sent.
const MAX_SEND_BUFFER: usize = 64 << 10;

/// Bytes of an answer that are given away at once: those of a frame. What a stream has waiting is
/// no more than this above [`MAX_SEND_BUFFER`].
const SLICE: usize = 16 << 10;

/// Streams that a client resets before they were looked at, and streams that are reset because of
/// its errors, after which the connection ends (CVE-2023-44487, RUSTSEC-2024-0003).
const MAX_EARLY_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 100;

impl HttpDoor {
    /// Serves a connection to its end.
    pub(super) async fn serve_http2(
        &self,
        stream: Counted,
        router: Router,
        peer: Arc<Peer>,
    ) -> hyper::Result<()> {
        let config = self.config.now();
        let (keep, patience) =
            (config.api.keep_alive_secs.duration(), config.api.stall_timeout_secs.duration());
        self.metrics.http.http2_connections.inc();
        let streams = Arc::new(Streams::new(patience, self.metrics.clone()));
        let builder = builder(&config.api, streams.clone());
        drop(config);
        let service = service_fn(move |mut request: Request<Incoming>| {
            name_host(&mut request);
            request.extensions_mut().insert(peer.clone());
            let answer = router.clone().call(request);
            async move { answer.await.map(|response| response.map(Paced::new)) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut drain = self.drain.clone();
        tokio::select! {
            biased;
            finished = connection.as_mut() => return finished,
            () = streams.idle_for(keep) => {}
            () = streams.stalled.notified() => {}
            // The next request goes to the process that accepts now.
            () = drain.reached(Stage::Replaced) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            finished = connection.as_mut() => finished,
            // Its client neither takes what is left nor agrees to the end.
            () = streams.idle_for(patience) => Ok(()),
            () = drain.reached(Stage::Stopping) => Ok(()),
        }
    }
}

fn builder(api: &Api, streams: Arc<Streams>) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(Spawner(streams));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(api.http2_max_streams)
        .max_header_list_size(LONGEST_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        // So a client that is gone is noticed while its statement runs.
        .keep_alive_interval(api.keep_alive_secs.duration())
        .keep_alive_timeout(api.stall_timeout_secs.duration());
    builder
}

/// Everything that looks where a request was sent to looks at `Host`.
fn name_host(request: &mut Request<Incoming>) {
    if request.headers().contains_key(header::HOST) {
        return;
    }
    let named = request.uri().authority().map(|authority| authority.as_str());
    if let Some(host) = named.and_then(|name| HeaderValue::from_str(name).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// The streams of a connection.
struct Streams {
    /// How many are served now, and since when it is so.
    open: Mutex<(usize, Instant)>,
    /// One has not taken anything for too long. Its connection takes no new ones, so that what is
    /// left of it is held no longer than the others need.
    stalled: Notify,
    /// How long one may take nothing.
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl Streams {
    fn new(patience: Duration, metrics: Arc<Metrics>) -> Self {
        let open = Mutex::new((0, Instant::now()));
        Self { open, stalled: Notify::new(), patience, metrics }
    }

    fn change(&self, by: isize) {
        let mut open = self.open.lock();
        *open = (open.0.saturating_add_signed(by), Instant::now());
    }

    /// Returns when there was none for so long, from now on.
    async fn idle_for(&self, limit: Duration) {
        let begun = Instant::now();
        loop {
            let (open, since) = *self.open.lock();
            let left = match open {
                0 => (since.max(begun) + limit).saturating_duration_since(Instant::now()),
                _ => limit,
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// Counts a stream for as long as it is served.
struct Counting(Arc<Streams>);

impl Counting {
    fn new(streams: Arc<Streams>) -> Self {
        streams.change(1);
        Self(streams)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

tokio::task_local! {
    /// That of the stream whose task this is.
    static TURN: Arc<Turn>;
}

/// Runs each stream in a task of its own, and ends one whose client takes nothing: the statement is
/// cancelled, and the stream reset.
#[derive(Clone)]
struct Spawner(Arc<Streams>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let counting = Counting::new(self.0.clone());
        let turn = Arc::new(Turn::default());
        tokio::spawn(TURN.scope(turn.clone(), async move {
            let streams = &counting.0;
            tokio::select! {
                biased;
                () = stream => {}
                () = turn.is_missed(streams.patience) => {
                    streams.metrics.http.http2_stalled.inc();
                    streams.stalled.notify_one();
                }
            }
        }));
    }
}

/// Since when it is the client's turn to take something; `None` = it is ours to give.
#[derive(Default)]
struct Turn(Mutex<Option<Instant>>);

impl Turn {
    fn is_ours(&self) {
        *self.0.lock() = None;
    }

    fn is_theirs(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Returns when the client has not taken anything for so long.
    async fn is_missed(&self, patience: Duration) {
        let mut wait = patience;
        loop {
            sleep(wait).await;
            let since = *self.0.lock();
            wait = since.map_or(patience, |since| patience.saturating_sub(since.elapsed()));
            if wait.is_zero() {
                return;
            }
        }
    }
}

/// The body of an answer, given away slice by slice.
struct Paced {
    body: Body,
    /// What is left of a long frame.
    rest: Bytes,
    turn: Option<Arc<Turn>>,
}

impl Paced {
    fn new(body: Body) -> Self {
        let turn = TURN.try_with(Arc::clone).ok();
        if let Some(turn) = &turn {
            turn.is_theirs();
        }
        Self { body, rest: Bytes::new(), turn }
    }

    fn slice(&mut self) -> Bytes {
        self.rest.split_to(self.rest.len().min(SLICE))
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(turn) = &self.turn {
            turn.is_ours();
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? {
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                None => return Poll::Ready(None),
            }
        }
        if let Some(turn) = &self.turn {
            turn.is_theirs();
        }
        Poll::Ready(Some(Ok(Frame::data(self.slice()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
