//! The answer to `POST /api/v1/query`: the rows of the statement, and in a JSON document what is
//! known of them.

use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Bytes;
use serde_json::{Value, json};

use super::formats::{Encoder, Format, Layout};
use super::open::Hold;
use super::running::{Chunks, Fill, Running};
use crate::error::Result;
use crate::session::{Column, Columns, Event, Notice};

/// Bytes of a chunk, about: a row is not cut.
const CHUNK: usize = 32 << 10;

/// Room for a small result.
const FIRST_CHUNK: usize = 1 << 10;

/// Notices that are returned; further ones are dropped.
const MAX_NOTICES: usize = 100;

/// A running statement and its answer.
pub struct Rows {
    running: Running,
    format: Format,
    encoder: Encoder,
    /// Rows at most.
    max_rows: Option<u64>,
    out: Vec<u8>,
    /// What comes after the rows of a document, apart from what is only known then.
    query_id: String,
    notices: Vec<Notice>,
    command: Option<String>,
    affected: u64,
    has_more: bool,
    /// The transaction that it runs in, if the client has named one.
    transaction: Option<u64>,
    begun: Instant,
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
    pub fn new(mut hold: Hold, run: Run, columns: &Columns) -> Result<Self> {
        let transaction = hold.transaction();
        let known = hold.session().ok().and_then(|session| session.query_id());
        let query_id = known.unwrap_or_else(uuid::Uuid::now_v7).to_string();
        let format = run.layout.format;
        let mut out = Vec::with_capacity(FIRST_CHUNK);
        if format == Format::Json {
            begin_document(&query_id, columns, &mut out);
        }
        let encoder = Encoder::begin(run.layout, columns.clone(), &mut out)?;
        Ok(Self {
            running: Running::new(hold, run.longest_row, run.deadline),
            format,
            encoder,
            max_rows: run.max_rows,
            out,
            query_id,
            notices: Vec::new(),
            command: None,
            affected: 0,
            has_more: false,
            transaction,
            begun: run.begun,
        })
    }

    /// Puts a notice of ours before those of PostgreSQL.
    pub fn note(&mut self, notice: Option<Notice>) {
        self.notices.extend(notice);
    }

    /// Number of the query, for the response's header.
    pub fn query_id(&self) -> &str {
        &self.query_id
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
        let Self { running, encoder, out, .. } = self;
        encoder.row(running.session()?.row(), out)
    }

    fn end_document(&mut self) {
        let tail = format!(
            ",\"row_count\":{},\"affected_rows\":{},\"has_more\":{},\"command\":{},\
             \"execution_time_ms\":{:.3},\"notices\":{}{}}}",
            self.encoder.rows(),
            self.affected,
            self.has_more,
            json!(self.command),
            self.begun.elapsed().as_secs_f64() * 1000.0,
            json!(self.notices),
            self.transaction.map(|id| format!(",\"transaction_id\":{id}")).unwrap_or_default(),
        );
        self.out.extend_from_slice(tail.as_bytes());
    }
}

impl Chunks for Rows {
    /// Of a stream, the rows that are there are a chunk as soon as PostgreSQL lets us wait; a
    /// document waits, so that an error can still set the status of the response.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill>> {
        // Here too, because a statement that always has rows never lets us wait.
        self.running.give_up_when_late(cx)?;
        loop {
            if self.out.len() >= CHUNK {
                return Poll::Ready(Ok(Fill::More));
            }
            let event = match self.running.poll_event(cx) {
                Poll::Ready(event) => event?,
                Poll::Pending if self.is_ready() => return Poll::Ready(Ok(Fill::More)),
                Poll::Pending => return Poll::Pending,
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
                    self.running.finish();
                    self.encoder.end(&mut self.out)?;
                    if self.format == Format::Json {
                        self.end_document();
                    }
                    return Poll::Ready(Ok(Fill::End));
                }
            }
        }
    }

    fn take(&mut self) -> Bytes {
        // What is at the end needs no room for what follows.
        let room = if self.running.is_over() { 0 } else { CHUNK + CHUNK / 4 };
        std::mem::replace(&mut self.out, Vec::with_capacity(room)).into()
    }

    fn failed(&mut self, error: &Value) -> Bytes {
        self.encoder.failed(error, &mut self.out);
        self.take()
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
