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
use super::open::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Permit;
use crate::proto::backend::DataRow;
use crate::proto::json::{self as values, Shape, Style};
use crate::session::{Column, Event, Notice, Session};
use crate::telemetry::Metrics;

/// Bytes of a chunk, about: a row is not cut.
const CHUNK: usize = 32 << 10;

/// Notices that are returned; further ones are dropped.
const MAX_NOTICES: usize = 100;

/// Time for PostgreSQL to answer a cancel request before the connection is given up.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Time for an error in the middle of a result to reach the client before the break.
const LAST_WORD: Duration = Duration::from_millis(100);

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// One line for each row.
    Ndjson,
}

/// How a value and a row are written.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Document or lines.
    pub format: Format,
    /// Rows as arrays instead of objects.
    pub rows_as_arrays: bool,
    /// Rows at most.
    pub max_rows: Option<u64>,
    /// Numbers or strings.
    pub style: Style,
}

struct OutColumn {
    /// `"name":` for objects.
    key: Vec<u8>,
    shape: Shape,
}

/// Writes the rows of a result as JSON.
pub struct RowWriter {
    columns: Vec<OutColumn>,
    as_arrays: bool,
    style: Style,
}

impl RowWriter {
    /// For rows of these columns.
    pub fn new(columns: &[Column], as_arrays: bool, style: Style) -> Self {
        let column = |column: &Column| {
            let mut key = Vec::new();
            values::write_string(&mut key, column.name.as_bytes());
            key.push(b':');
            OutColumn { key, shape: column.info.shape.clone() }
        };
        Self { columns: columns.iter().map(column).collect(), as_arrays, style }
    }

    /// Writes the body of a DataRow.
    pub fn write(&self, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let (open, close) = if self.as_arrays { (b'[', b']') } else { (b'{', b'}') };
        out.push(open);
        let row = DataRow::parse(row).map_err(Error::backend_lost)?;
        for (at, (value, column)) in row.zip(&self.columns).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if !self.as_arrays {
                out.extend_from_slice(&column.key);
            }
            match value.map_err(Error::backend_lost)? {
                Some(text) => values::write_value(out, text, &column.shape, self.style),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(close);
        Ok(())
    }
}

/// A running statement and its answer.
pub struct Rows {
    /// Absent when everything has been read.
    hold: Option<Hold>,
    layout: Layout,
    writer: RowWriter,
    longest_row: usize,
    out: Vec<u8>,
    /// What comes after the rows of a document, apart from what is only known then.
    query_id: String,
    notices: Vec<Notice>,
    command: Option<String>,
    rows: u64,
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

impl Rows {
    /// For a session that executes; `deadline` stops the statement.
    pub fn new(
        hold: Hold,
        layout: Layout,
        columns: &[Column],
        longest_row: usize,
        begun: Instant,
        deadline: Option<tokio::time::Instant>,
    ) -> Self {
        let mut hold = hold;
        let known = hold.session().ok().and_then(|session| session.query_id());
        let query_id = known.unwrap_or_else(uuid::Uuid::now_v7).to_string();
        let mut rows = Self {
            hold: Some(hold),
            layout,
            writer: RowWriter::new(columns, layout.rows_as_arrays, layout.style),
            longest_row,
            out: Vec::with_capacity(1 << 10),
            query_id,
            notices: Vec::new(),
            command: None,
            rows: 0,
            affected: 0,
            has_more: false,
            begun,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            timed_out: false,
        };
        if layout.format == Format::Json {
            rows.begin_document(columns);
        }
        rows
    }

    /// Number of the query, for the response's header.
    pub fn query_id(&self) -> &str {
        &self.query_id
    }

    fn begin_document(&mut self, columns: &[Column]) {
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
        let head = format!(
            "{{\"query_id\":\"{}\",\"columns\":{},\"rows\":[",
            self.query_id,
            serde_json::Value::Array(described)
        );
        self.out.extend_from_slice(head.as_bytes());
    }

    /// Works until a chunk is full or everything is there. Of lines, what is there is a chunk as
    /// soon as PostgreSQL lets us wait; a document waits, so that an error can still set the
    /// status of the response.
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
                    if self.layout.format == Format::Ndjson && !self.out.is_empty() {
                        return Poll::Ready(Ok(Fill::More));
                    }
                    return Poll::Pending;
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
                    if self.layout.format == Format::Json {
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

    fn write_row(&mut self) -> Result<()> {
        if self.layout.max_rows == Some(self.rows) {
            self.has_more = true;
            return Ok(());
        }
        let Self { hold, writer, layout, out, rows, .. } = self;
        let session = hold.as_mut().ok_or_else(over)?.session()?;
        if *rows > 0 && layout.format == Format::Json {
            out.push(b',');
        }
        writer.write(session.row(), out)?;
        if layout.format == Format::Ndjson {
            out.push(b'\n');
        }
        *rows += 1;
        Ok(())
    }

    fn end_document(&mut self) {
        let tail = format!(
            "],\"row_count\":{},\"affected_rows\":{},\"has_more\":{},\"command\":{},\
             \"execution_time_ms\":{:.3},\"notices\":{}}}",
            self.rows,
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
        std::mem::take(&mut self.out).into()
    }
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
        let text = match self.rows.layout.format {
            Format::Ndjson => format!("{body}\n"),
            Format::Json => format!("],\"error\":{}}}", body["error"]),
        };
        out.extend_from_slice(text.as_bytes());
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
