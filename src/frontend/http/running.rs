//! A statement that runs, and the body that is made of what it gives: a chunk is made when the
//! client has taken the one before, so memory does not grow with the result.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use http_body::Frame;
use serde_json::Value;
use tokio::time::{Instant, Sleep};

use super::RequestId;
use super::error;
use super::open::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Permit;
use crate::session::{Event, Session};
use crate::telemetry::Metrics;

/// Time for PostgreSQL to answer a cancel request before the connection is given up.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Time for an error in the middle of a result to reach the client before the break.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A session that executes, and until when it may.
pub struct Running {
    /// Absent when everything has been read.
    hold: Option<Hold>,
    longest_row: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    timed_out: bool,
}

impl Running {
    /// Of a session that executes; rows may have `longest_row` bytes, `deadline` stops the
    /// statement.
    pub fn new(hold: Hold, longest_row: usize, deadline: Option<Instant>) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { hold: Some(hold), longest_row, deadline, timed_out: false }
    }

    /// The session, while it is needed.
    pub fn session(&mut self) -> Result<&mut Session> {
        let over = || Error::internal("the result has been read already");
        self.hold.as_mut().ok_or_else(over)?.session()
    }

    /// What the statement gives next.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        self.poll_event_of(cx, |_, _| {})
    }

    /// The same; `note` sees the session with the error that it ends with.
    pub fn poll_event_of(
        &mut self,
        cx: &mut Context<'_>,
        note: impl FnOnce(&Session, &Error),
    ) -> Poll<Result<Event>> {
        let longest = self.longest_row;
        let session = self.session()?;
        match session.poll_event(cx, longest) {
            Poll::Ready(event) => {
                let event = event.inspect_err(|error| note(session, error));
                Poll::Ready(event.map_err(|error| self.blame(error)))
            }
            Poll::Pending => {
                self.give_up_when_late(cx)?;
                Poll::Pending
            }
        }
    }

    /// Cancels the statement when its time is over, and gives up when that has no effect. To be
    /// called now and then, because a statement that always has rows never lets us wait.
    pub fn give_up_when_late(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let Some(deadline) = &mut self.deadline else { return Ok(()) };
        while deadline.as_mut().poll(cx).is_ready() {
            if self.timed_out {
                return Err(timed_out());
            }
            self.timed_out = true;
            let Some(Ok(session)) = self.hold.as_mut().map(Hold::session) else { return Ok(()) };
            let entry = session.entry_handle();
            tokio::spawn(async move { entry.cancel().await });
            deadline.as_mut().reset(Instant::now() + CANCEL_GRACE);
        }
        Ok(())
    }

    /// A cancellation that our own deadline caused is a time-out.
    fn blame(&mut self, error: Error) -> Error {
        if let Some(mut hold) = self.hold.take() {
            if let Ok(session) = hold.session() {
                session.ended_by("error");
            }
            hold.finish();
        }
        match self.timed_out && error.kind() == ErrorKind::Cancelled {
            true => timed_out(),
            false => error,
        }
    }

    /// Whether nobody needs the session any more.
    pub fn is_over(&self) -> bool {
        self.hold.is_none()
    }

    /// Everything has been read: nobody needs the session any more.
    pub fn finish(&mut self) {
        if let Some(mut hold) = self.hold.take() {
            if let Ok(session) = hold.session() {
                session.ended_by("closed");
            }
            hold.finish();
        }
    }
}

/// The error of a statement that took too long.
pub fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the statement took too long and was cancelled")
        .with_hint("timeout_ms and api.request_timeout_secs bound it")
}

/// The error of a request whose time is over: without a connection its statement never began.
pub fn late(session: &Session) -> Error {
    if session.holds_connection() {
        return timed_out();
    }
    let text = "no connection was free in the time that the request had; nothing was run for it";
    Error::new(ErrorKind::PoolExhausted, text)
        .with_hint("try again, or raise timeout_ms, api.request_timeout_secs or the pool's size")
}

/// What a look at the statement gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Fill {
    /// A chunk is ready, and there is more.
    More,
    /// The last bytes are ready.
    End,
}

/// What makes the chunks of a body.
pub trait Chunks: Unpin {
    /// Works until a chunk is full or everything is there.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill>>;

    /// The chunk.
    fn take(&mut self) -> Bytes;

    /// The last chunk of a body that ends with an error, of which this is the body.
    fn failed(&mut self, error: &Value) -> Bytes;
}

/// A body whose first chunk is there already.
pub struct ChunkedBody<C> {
    chunks: Box<C>,
    first: Option<Bytes>,
    id: RequestId,
    metrics: Arc<Metrics>,
    state: State,
    last_word: Option<Pin<Box<Sleep>>>,
    /// A stream of rows is work until its end.
    _permit: Option<Permit>,
}

#[derive(PartialEq, Eq)]
enum State {
    Running,
    /// The error has been written; the connection is to be broken, so that nobody can take what
    /// came for the whole result. Not at once: what is not on its way yet would be lost with it.
    Broken,
    Over,
}

impl<C: Chunks> ChunkedBody<C> {
    /// Streams; the request's number goes into an error that comes on the way.
    pub fn new(
        mut chunks: Box<C>,
        id: RequestId,
        metrics: Arc<Metrics>,
        permit: Option<Permit>,
    ) -> Self {
        let first = Some(chunks.take());
        let (state, last_word) = (State::Running, None);
        Self { chunks, first, id, metrics, state, last_word, _permit: permit }
    }
}

impl<C: Chunks> http_body::Body for ChunkedBody<C> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match self.state {
            State::Over => return Poll::Ready(None),
            State::Broken => {
                let sleep = || Box::pin(tokio::time::sleep(LAST_WORD));
                ready!(self.last_word.get_or_insert_with(sleep).as_mut().poll(cx));
                self.state = State::Over;
                return Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into())));
            }
            State::Running => {}
        }
        let chunk = match ready!(self.chunks.poll_fill(cx)) {
            Ok(Fill::More) => self.chunks.take(),
            Ok(Fill::End) => {
                self.state = State::Over;
                self.chunks.take()
            }
            Err(error) => {
                self.state = State::Broken;
                error::note(&error, &self.id, &self.metrics);
                let body = error::body(&error, &self.id);
                self.chunks.failed(&body)
            }
        };
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}
