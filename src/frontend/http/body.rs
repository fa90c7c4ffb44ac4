//! Rows of a running statement as the body of a response: a chunk is made when the client has
//! taken the one before, so memory does not grow with the result.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body::Frame;
use serde_json::json;
use tokio::time::Sleep;

use super::RequestId;
use super::error;
use super::formats::{Encoder, Format, Layout};
use super::open::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Permit;
use crate::session::{Column, Event, Notice, Session};
use crate::telemetry::Metrics;

/// Bytes of a chunk, about: a row is not cut.
const CHUNK: usize = 32 << 10;

/// Room for a small result.
const FIRST_CHUNK: usize = 1 << 10;

/// Notices that are returned; further ones are dropped.
const MAX_NOTICES: usize = 100;

/// Time for PostgreSQL to answer a cancel request before the connection is given up.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Time for an error in the middle of a result to reach the client before the break.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A running statement and its answer.
pub struct Rows {
    /// Absent when everything has been read.
    hold: Option<Hold>,
    format: Format,
    encoder: Encoder,
    /// Rows at most.
    max_rows: Option<u64>,
    longest_row: usize,
    out: Vec<u8>,
    /// What comes after the rows of a document, apart from what is only known then.
    query_id: String,
    notices: Vec<Notice>,
    command: Option<String>,
    affected: u64,
    has_more: bool,
    begun: Instant,
    deadline: Option<Pin<Box<Sleep>>>,
    timed_out: bool,
}

/// What a look at the statement gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Fill {
    /// A chunk is ready, and there is more.
    More,
    /// The last bytes are ready.
    End,
}

/// How a statement is run and its rows are written.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How rows are written.
    pub layout: Layout,
    /// Rows at most.
    pub max_rows: Option<u64>,
    /// Bytes of a row.
    pub longest_row: usize,
    /// When the request came.
    pub begun: Instant,
    /// When the statement is stopped.
    pub deadline: Option<tokio::time::Instant>,
}

impl Rows {
    /// For a session that executes.
    pub fn new(hold: Hold, run: Run, columns: &[Column]) -> Result<Self> {
        let query_id = uuid::Uuid::now_v7().to_string();
        let format = run.layout.format;
        let mut out = Vec::with_capacity(FIRST_CHUNK);
        if format == Format::Json {
            begin_document(&query_id, columns, &mut out);
        }
        let encoder = Encoder::begin(run.layout, columns, &mut out)?;
        Ok(Self {
            hold: Some(hold),
            format,
            encoder,
            max_rows: run.max_rows,
            longest_row: run.longest_row,
            out,
            query_id,
            notices: Vec::new(),
            command: None,
            affected: 0,
            has_more: false,
            begun: run.begun,
            deadline: run.deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            timed_out: false,
        })
    }

    /// Number of the query, for the response's header.
    pub fn query_id(&self) -> &str {
        &self.query_id
    }

    /// Works until a chunk is full or everything is there. Of a stream, the rows that are there are
    /// a chunk as soon as PostgreSQL lets us wait; a document waits, so that an error can still set
    /// the status of the response.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill>> {
        // Here too, because a statement that always has rows never lets us wait.
        give_up_when_late(self, cx)?;
        loop {
            if self.out.len() >= CHUNK {
                return Poll::Ready(Ok(Fill::More));
            }
            let longest = self.longest_row;
            let event = match self.session()?.poll_event(cx, longest) {
                Poll::Ready(event) => event.map_err(|e| self.blame(e))?,
                Poll::Pending => {
                    give_up_when_late(self, cx)?;
                    return match self.is_ready() {
                        true => Poll::Ready(Ok(Fill::More)),
                        false => Poll::Pending,
                    };
                }
            };
            match event {
                Event::Row => self.write_row()?,
                Event::Notice(notice) if self.notices.len() < MAX_NOTICES => {
                    self.notices.push(notice);
                }
                Event::Notice(_) => {}
                Event::Complete { command, rows } => {
                    self.affected = if command == "SELECT" { 0 } else { rows };
                    self.command = Some(command);
                }
                // PostgreSQL names the command only when it is complete.
                Event::Suspended => self.command = None,
                Event::Done => {
                    self.session()?.ended_by("closed");
                    self.hold.take().into_iter().for_each(Hold::finish);
                    self.encoder.end(&mut self.out)?;
                    if self.format == Format::Json {
                        self.end_document();
                    }
                    return Poll::Ready(Ok(Fill::End));
                }
            }
        }
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.hold.as_mut().ok_or_else(over)?.session()
    }

    /// Whether there is something of a stream that can go out. Its head waits for the first row,
    /// so that what fails at once can still set the status.
    fn is_ready(&self) -> bool {
        self.format.is_stream() && !self.out.is_empty() && self.encoder.rows() > 0
    }

    fn write_row(&mut self) -> Result<()> {
        if self.max_rows == Some(self.encoder.rows()) {
            self.has_more = true;
            return Ok(());
        }
        let Self { hold, encoder, out, .. } = self;
        let session = hold.as_mut().ok_or_else(over)?.session()?;
        encoder.row(session.row(), out)
    }

    fn end_document(&mut self) {
        let tail = format!(
            ",\"row_count\":{},\"affected_rows\":{},\"has_more\":{},\"command\":{},\
             \"execution_time_ms\":{:.3},\"notices\":{}}}",
            self.encoder.rows(),
            self.affected,
            self.has_more,
            json!(self.command),
            self.begun.elapsed().as_secs_f64() * 1000.0,
            json!(self.notices),
        );
        self.out.extend_from_slice(tail.as_bytes());
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

    /// The chunk that [`Rows::poll_fill`] made.
    pub fn take(&mut self) -> Bytes {
        // What is at the end needs no room for what follows.
        let room = if self.hold.is_some() { CHUNK + CHUNK / 4 } else { 0 };
        std::mem::replace(&mut self.out, Vec::with_capacity(room)).into()
    }
}

fn begin_document(query_id: &str, columns: &[Column], out: &mut Vec<u8>) {
    let described: Vec<_> = columns
        .iter()
        .map(|c| {
            json!({
                "name": c.name,
                "type": &*c.info.name,
                "type_oid": c.type_oid,
                "nullable": c.nullable,
            })
        })
        .collect();
    let described = serde_json::Value::Array(described);
    let head = format!("{{\"query_id\":\"{query_id}\",\"columns\":{described},\"rows\":");
    out.extend_from_slice(head.as_bytes());
}

fn over() -> Error {
    Error::internal("the result has been read already")
}

/// The error of a statement that took too long.
pub fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the statement took too long and was cancelled")
        .with_hint("timeout_ms and api.request_timeout_secs bound it")
}

/// Cancels the statement when its time is over, and gives up when that has no effect.
fn give_up_when_late(rows: &mut Rows, cx: &mut Context<'_>) -> Result<()> {
    let Some(deadline) = &mut rows.deadline else { return Ok(()) };
    while deadline.as_mut().poll(cx).is_ready() {
        if rows.timed_out {
            return Err(timed_out());
        }
        rows.timed_out = true;
        let Some(Ok(session)) = rows.hold.as_mut().map(Hold::session) else { return Ok(()) };
        let entry = session.entry_handle();
        tokio::spawn(async move { entry.cancel().await });
        deadline.as_mut().reset(tokio::time::Instant::now() + CANCEL_GRACE);
    }
    Ok(())
}

/// A body over [`Rows`] whose first chunk is there already.
pub struct RowsBody {
    rows: Box<Rows>,
    first: Option<Bytes>,
    id: RequestId,
    metrics: Arc<Metrics>,
    state: BodyState,
    last_word: Option<Pin<Box<Sleep>>>,
    /// A stream of rows is work until its end.
    _permit: Option<Permit>,
}

#[derive(PartialEq, Eq)]
enum BodyState {
    Running,
    /// The error has been written; the connection is to be broken, so that nobody can take what
    /// came for the whole result. Not at once: what is not on its way yet would be lost with it.
    Broken,
    Over,
}

impl RowsBody {
    /// Streams; the request's number goes into an error that comes on the way.
    pub fn new(
        mut rows: Box<Rows>,
        id: RequestId,
        metrics: Arc<Metrics>,
        permit: Option<Permit>,
    ) -> Self {
        let first = Some(rows.take());
        let state = BodyState::Running;
        Self { rows, first, id, metrics, state, last_word: None, _permit: permit }
    }

    fn error_chunk(&mut self, error: &Error) -> Bytes {
        error::note(error, &self.id, &self.metrics);
        let body = error::body(error, &self.id);
        let mut out = std::mem::take(&mut self.rows.out);
        self.rows.encoder.failed(&body, &mut out);
        out.into()
    }
}

impl http_body::Body for RowsBody {
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
            BodyState::Over => return Poll::Ready(None),
            BodyState::Broken => {
                let sleep = || Box::pin(tokio::time::sleep(LAST_WORD));
                ready!(self.last_word.get_or_insert_with(sleep).as_mut().poll(cx));
                self.state = BodyState::Over;
                return Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into())));
            }
            BodyState::Running => {}
        }
        let chunk = match ready!(self.rows.poll_fill(cx)) {
            Ok(Fill::More) => self.rows.take(),
            Ok(Fill::End) => {
                self.state = BodyState::Over;
                self.rows.take()
            }
            Err(error) => {
                self.state = BodyState::Broken;
                self.error_chunk(&error)
            }
        };
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}
