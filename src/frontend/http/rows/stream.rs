//! The rows of a running statement as chunks of a body.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use serde_json::Value;

use super::super::HttpDoor;
use super::super::formats::{Encoder, Layout as Form, RowWriter, strip_nulls};
use super::super::running::{Chunks, Fill, Running};
use super::failure::Failure;
use super::guided::{self, Guided};
use super::nested::Nested;
use super::{Job, Settings, note_unknown, value_of};
use crate::error::{Error, Result};
use crate::proto::backend::DataRow;
use crate::proto::json::{self, Style};
use crate::query::plan::{Layout, Statement};
use crate::session::{Columns, Event, Known};

/// Bytes that are there before an answer begins, about: until then everything can still change its
/// status, and how many rows there are is known for its head.
const HELD: usize = 128 << 10;

/// Bytes of a chunk after that.
const CHUNK: usize = 32 << 10;

/// What becomes of rows.
#[derive(Clone, Copy, Debug)]
pub enum Sink {
    /// All of them, in some form.
    Rows(Form),
    /// The first, as a JSON object; the others are counted.
    Object(Style),
    /// The only value of the only row, as JSON.
    Value(Style),
    /// The only value of each row, as a JSON array.
    Values(Style),
    /// The only value of the only row, as it is.
    Text,
    /// The bytes of the only value of the only row.
    Bytes,
    /// They are counted.
    Nothing,
}

impl Sink {
    /// How JSON looks in it.
    fn style(self) -> Style {
        match self {
            Sink::Rows(form) => form.style,
            Sink::Object(style) | Sink::Value(style) | Sink::Values(style) => style,
            Sink::Text | Sink::Bytes | Sink::Nothing => Style::default(),
        }
    }
}

/// What follows the rows in a document, when everything is known.
type Tail = Box<dyn FnOnce(&Stream) -> String + Send>;

/// Rows on their way.
pub struct Stream {
    running: Running,
    known: Arc<Known>,
    layout: Layout,
    sink: Sink,
    /// Columns at the end that are not shown.
    hidden: usize,
    nested: Option<Nested>,
    encoder: Option<Encoder>,
    writer: Option<RowWriter>,
    limit: Option<u64>,
    in_transaction: bool,
    tail: Option<Tail>,
    out: Vec<u8>,
    cut: Vec<u8>,
    unfolded: Vec<u8>,
    /// Bytes that make a chunk.
    chunk: usize,
    rows: u64,
    affected: u64,
    total: Option<u64>,
    has_more: bool,
    last: Vec<Option<String>>,
}

impl Stream {
    pub(super) fn new(running: Running, known: Arc<Known>, job: &Job<'_>) -> Result<Self> {
        let (layout, sink) = (job.statement.layout, job.sink);
        let nested = Nested::of(job.statement, &known);
        let mut stream = Self {
            running,
            known,
            layout,
            sink,
            hidden: job.hidden + layout.cursor_values,
            nested,
            encoder: None,
            writer: None,
            limit: job.limit,
            in_transaction: job.in_transaction,
            tail: None,
            out: Vec::with_capacity(1 << 10),
            cut: Vec::new(),
            unfolded: Vec::new(),
            chunk: HELD,
            rows: 0,
            affected: 0,
            total: None,
            has_more: false,
            last: Vec::new(),
        };
        let columns = &stream.known.described.columns;
        let columns = match &stream.nested {
            Some(nested) => &nested.columns(columns),
            None => columns,
        };
        let columns = stream.shown(columns);
        match sink {
            Sink::Rows(form) => {
                stream.encoder = Some(Encoder::begin(form, columns, &mut stream.out)?)
            }
            Sink::Object(style) => stream.writer = Some(RowWriter::new(columns, false, style)),
            Sink::Values(_) => stream.out.push(b'['),
            Sink::Value(_) | Sink::Text | Sink::Bytes | Sink::Nothing => {}
        }
        Ok(stream)
    }

    /// Columns before those of the rows.
    fn leading(&self) -> usize {
        if self.layout.has_total { 2 } else { 0 }
    }

    fn shown(&self, columns: &Columns) -> Columns {
        columns.part(self.leading(), columns.len().saturating_sub(self.hidden))
    }

    /// What stands around the rows of a document: the text before them is written now.
    pub fn enclose(&mut self, head: &str, tail: impl FnOnce(&Stream) -> String + Send + 'static) {
        self.out.splice(0..0, head.bytes());
        self.tail = Some(Box::new(tail));
    }

    /// Nothing is given away before the end.
    pub(super) fn hold_everything(&mut self) {
        self.chunk = usize::MAX;
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that were changed or returned, as PostgreSQL has counted them.
    pub fn affected(&self) -> u64 {
        self.affected
    }

    /// The number of all rows, when the statement counts them; known from the first row on.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether there was a row beyond the limit.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// The values of the last row that are not shown: those that order it come last.
    pub fn last(&self) -> &[Option<String>] {
        &self.last
    }

    /// Ends the transaction that was kept open, after the last row.
    ///
    /// # Errors
    /// PostgreSQL refuses to commit.
    pub async fn end_transaction(&mut self, commit: bool) -> Result<()> {
        let ended = self.running.session()?.end_transaction(commit).await;
        self.running.finish();
        ended
    }

    /// What the function of this statement has said of the answer, in the transaction that was kept
    /// open.
    ///
    /// # Errors
    /// That it is nonsense, or PostgreSQL's.
    pub async fn guided(&mut self, door: &HttpDoor) -> Result<Guided, Failure> {
        let sql = guided::SETTINGS.to_owned();
        let statement = Statement { sql, ..Statement::default() };
        let session = self.running.session()?;
        let text = value_of(door, session, &statement, &Settings::default()).await?;
        Ok(Guided::read(text.as_deref())?)
    }

    fn row(&mut self) -> Result<()> {
        let Self { running, layout, hidden, nested, out, cut, unfolded, .. } = self;
        let mut row = running.session()?.row();
        if let Some(nested) = nested {
            unfolded.clear();
            nested.unfold(row, self.sink.style(), unfolded)?;
            row = unfolded;
        }
        if layout.has_total || *hidden > 0 {
            let (leading, hidden) = (if layout.has_total { 2 } else { 0 }, *hidden);
            let mut values = DataRow::parse(row).map_err(Error::backend_lost)?;
            let count = self.known.described.columns.len();
            if layout.has_total {
                let mut next = || values.next().transpose().map(Option::flatten);
                let total = next().map_err(Error::backend_lost)?;
                self.total = total.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                if next().map_err(Error::backend_lost)?.is_none() {
                    return Ok(());
                }
            }
            if self.limit == Some(self.rows) {
                self.has_more = true;
                return Ok(());
            }
            // The same message with fewer values.
            let left = u16::try_from(count - leading - hidden).unwrap_or(u16::MAX);
            cut.clear();
            cut.extend_from_slice(&left.to_be_bytes());
            cut.extend_from_slice(values.rest());
            row = cut;
            if hidden > 0 {
                let keep = |value: Option<&[u8]>| {
                    value.map(|text| String::from_utf8_lossy(text).into_owned())
                };
                let values = values.skip(count - leading - hidden);
                let values = values.map(|value| value.map(keep)).collect::<Result<_, _>>();
                self.last = values.map_err(Error::backend_lost)?;
            }
        } else if self.limit == Some(self.rows) {
            self.has_more = true;
            return Ok(());
        }
        self.rows += 1;
        match self.sink {
            Sink::Rows(_) => match &mut self.encoder {
                Some(encoder) => encoder.row(row, out),
                None => Ok(()),
            },
            Sink::Object(_) => match self.writer.as_ref().filter(|_| self.rows == 1) {
                Some(writer) => writer.write(row, out),
                None => Ok(()),
            },
            Sink::Nothing => Ok(()),
            Sink::Value(_) | Sink::Text | Sink::Bytes if self.rows > 1 => Ok(()),
            Sink::Value(style) | Sink::Values(style) => {
                if self.rows > 1 {
                    out.push(b',');
                }
                let leading = if layout.has_total { 2 } else { 0 };
                let columns = &self.known.described.columns;
                let shape = columns.get(leading).map(|column| &column.info.shape);
                let start = out.len();
                match (first_value(row)?, shape) {
                    (Some(text), Some(shape)) => json::write_value(out, text, shape, style),
                    _ => out.extend_from_slice(b"null"),
                }
                if style.without_nulls {
                    strip_nulls(out, start);
                }
                Ok(())
            }
            Sink::Text => {
                out.extend_from_slice(first_value(row)?.unwrap_or_default());
                Ok(())
            }
            Sink::Bytes => {
                let text = first_value(row)?.unwrap_or_default();
                let start = out.len();
                if json::write_bytes(out, text).is_none() {
                    out.truncate(start);
                    out.extend_from_slice(text);
                }
                Ok(())
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        if let Some(encoder) = &mut self.encoder {
            encoder.end(&mut self.out)?;
        }
        if matches!(self.sink, Sink::Values(_)) {
            self.out.push(b']');
        }
        if let Some(tail) = self.tail.take() {
            let text = tail(self);
            self.out.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

/// The first value of the body of a DataRow.
pub(super) fn first_value(row: &[u8]) -> Result<Option<&[u8]>> {
    let mut values = DataRow::parse(row).map_err(Error::backend_lost)?;
    Ok(values.next().transpose().map_err(Error::backend_lost)?.flatten())
}

impl Chunks for Stream {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill>> {
        self.running.give_up_when_late(cx)?;
        loop {
            if self.out.len() >= self.chunk {
                return Poll::Ready(Ok(Fill::More));
            }
            let event = match self.running.poll_event_of(cx, note_unknown) {
                // Whoever reads a stream sees what there is.
                Poll::Pending if self.chunk == CHUNK && !self.out.is_empty() => {
                    return Poll::Ready(Ok(Fill::More));
                }
                event => ready!(event)?,
            };
            match event {
                Event::Row => self.row()?,
                Event::Notice(_) | Event::Suspended => {}
                Event::Complete { rows, .. } => self.affected = rows,
                Event::Done => {
                    // Who has begun a transaction ends it.
                    if !self.in_transaction {
                        self.running.finish();
                    }
                    self.end()?;
                    return Poll::Ready(Ok(Fill::End));
                }
            }
        }
    }

    fn take(&mut self) -> Bytes {
        self.chunk = CHUNK;
        std::mem::take(&mut self.out).into()
    }

    fn failed(&mut self, error: &Value) -> Bytes {
        if let Some(encoder) = &mut self.encoder {
            encoder.failed(error, &mut self.out);
        }
        self.take()
    }
}
