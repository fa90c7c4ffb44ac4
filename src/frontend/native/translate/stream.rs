//! Streaming: a result or a large object in parts, as fast as the client takes them.
//!
//! A result comes through a portal, some rows at a time: between two of them the client can end the
//! stream without an error, which within a transaction would undo everything. What PostgreSQL has
//! sent and the client has no credit for stays in the backend's socket.

use std::sync::Arc;

use super::exchange::{
    parameter_types, parameters, put_bind, put_close_portal, put_describe, put_execute, put_flush,
    put_parse,
};
use super::known::{self, Formats};
use super::response::{Columns, Rows, Stop, too_large_row};
use super::{Done, Failure, Translator};
use crate::frontend::native::core::status;
use crate::frontend::native::errors;
use crate::proto::backend::{DataRow, TxStatus, tag};
use crate::proto::frontend;
use crate::proto::native::{Query, Severity, Streaming, Value, Wire, Writer};

/// Rows of a part, unless the client says otherwise, and the most.
const USUAL_ROWS: u32 = 100;
const MOST_ROWS: u32 = 100_000;

/// Rows that PostgreSQL is asked for at once, at least: a round trip for each part would cost more
/// than the part.
const FETCH: u32 = 1000;

/// Times that it is asked before it has answered the first of them, so that it need not wait while
/// what it has sent is on its way to the client.
const ASKED_AHEAD: u32 = 2;

/// Bytes of a large object in one part.
const OBJECT_PART: u64 = 64 << 10;

// Numbers of the messages that are written here.
const STREAMING: u32 = 8;
const HEADER: u32 = 1;
const CHUNK: u32 = 2;
const END: u32 = 4;
const DATA: u32 = 6;

/// A stream on its way.
struct Stream {
    id: u64,
    columns: Arc<Columns>,
    rows: Rows,
    sequence: u32,
    has_header: bool,
    /// Rows that PostgreSQL was asked for, all together; and how often it has not answered yet.
    asked: u64,
    unanswered: u32,
    chunk_rows: u64,
    chunk_bytes: usize,
    /// What certainly has room in a part, but for a row that is longer by itself.
    most_bytes: usize,
}

impl Translator {
    pub(super) async fn stream(&mut self, id: u64, part: Streaming) -> Result<(), Failure> {
        match part {
            Streaming::Open { query, chunk_rows } => {
                self.stream_query(id, *query, chunk_rows).await
            }
            Streaming::OpenObject { oid, offset, length } => {
                self.stream_object(id, oid, offset, length).await
            }
            _ => Err(errors::violation("a stream that does not begin with Open")),
        }
    }

    async fn stream_query(
        &mut self,
        id: u64,
        query: Query,
        chunk_rows: u32,
    ) -> Result<(), Failure> {
        self.check_sql(&query.sql)?;
        self.apply(query.options.as_ref());
        let chunk_rows = if chunk_rows == 0 { USUAL_ROWS } else { chunk_rows.min(MOST_ROWS) };
        let native = self.config.now().native.stream_chunk_bytes.len();
        let agreed = self.agreed;
        let most = agreed.max_message_size as usize / agreed.encoding.expansion();
        let mut stream = Stream {
            id,
            columns: Arc::default(),
            rows: Rows::default(),
            sequence: 0,
            has_header: false,
            asked: 0,
            unanswered: 0,
            chunk_rows: chunk_rows.into(),
            chunk_bytes: native.min(most / 2),
            most_bytes: most / 2,
        };
        let was = self.enter_read_only(&query.sql, query.options.as_ref()).await?;
        let result = match self.stream_rows(&query, &mut stream).await {
            Ok(done) => self.settle().await.map(|()| done),
            Err(failure) => Err(failure),
        };
        let done = self.leave_read_only(was, result).await?;
        self.end_stream(id, done.rows, &done.tag).await
    }

    async fn stream_rows(&mut self, query: &Query, stream: &mut Stream) -> Result<Done, Failure> {
        let types = parameter_types(&query.params, &query.param_types);
        let parameters = parameters(&query.params, &types)?;
        let key = known::key(&query.sql, &types);
        let formats = match self.known.get(key) {
            Some(formats) => formats.clone(),
            None => {
                let described = self.describe(&query.sql, &types).await?;
                let formats = self.formats(&described);
                self.known.learn(key, formats.clone());
                formats
            }
        };
        let most_rows = match query.options.as_ref().map_or(0, |options| options.max_rows) {
            0 => u64::MAX,
            most => most.into(),
        };
        self.check_cancelled()?;
        self.send_open(|out| {
            put_parse(out, &query.sql, &types);
            put_bind(out, &parameters, &formats);
            put_describe(out);
            // Once: what has no rows could not be executed again.
            stream.ask(out, most_rows);
            put_flush(out);
        });
        let result = self.fetch(stream, most_rows).await;
        if result.is_err() || stream.rows.has_unknown {
            self.known.forget(key);
        }
        result
    }

    async fn fetch(&mut self, stream: &mut Stream, most_rows: u64) -> Result<Done, Failure> {
        loop {
            let (bytes, rows) = (stream.chunk_bytes, stream.chunk_rows);
            let stop = self.rows(&mut stream.columns, &mut stream.rows, bytes, rows).await?;
            match stop {
                Stop::Full => self.chunk(stream).await?,
                Stop::Complete(done) => {
                    self.chunk(stream).await?;
                    // PostgreSQL counts from the last time that it was asked for more.
                    let rows = stream.rows.total.max(done.rows);
                    return Ok(match done.tag.starts_with("SELECT ") {
                        true => Done { tag: format!("SELECT {rows}"), rows },
                        false => Done { rows, ..done },
                    });
                }
                Stop::Suspended => {
                    stream.unanswered -= 1;
                    let delivered = stream.rows.total + stream.rows.count;
                    if self.wants_end(stream.id) || delivered >= most_rows {
                        self.chunk(stream).await?;
                        self.send_open(put_close_portal);
                        let tag = format!("SELECT {delivered}");
                        return Ok(Done { tag, rows: delivered });
                    }
                    self.check_cancelled()?;
                    self.send_open(|out| {
                        while stream.unanswered < ASKED_AHEAD && stream.asked < most_rows {
                            stream.ask(out, most_rows);
                        }
                        put_flush(out);
                    });
                }
                Stop::CopyIn => {
                    self.send_open(|out| super::exchange::put_copy_fail(out, "not supported"));
                    let text = "COPY FROM STDIN is not possible with Streaming";
                    return Err(errors::not_supported(text));
                }
                Stop::CopyOut => {
                    return Err(errors::not_supported(
                        "COPY TO STDOUT is not possible with Streaming",
                    ));
                }
            }
        }
    }

    fn wants_end(&self, id: u64) -> bool {
        let state = self.core.lock();
        state.current.as_ref().is_some_and(|current| current.id == id && current.wants_end)
    }

    /// Sends the rows that are there, after the columns.
    async fn chunk(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let id = stream.id;
        if !stream.has_header {
            stream.has_header = true;
            let columns = &stream.columns.wire;
            let write = |out: &mut Vec<u8>| {
                let mut w = Writer::new(out);
                w.variant(STREAMING);
                w.variant(HEADER);
                match columns.is_empty() {
                    true => w.unsigned(0),
                    false => w.raw(columns),
                }
            };
            self.core.reply(true, id, id, write).await.map_err(errors::of_violation)?;
        }
        let most = self.agreed.max_message_size as usize - 64;
        while stream.rows.count > 0 {
            let (mut bytes, count) = stream.rows.take(stream.most_bytes);
            if bytes.len() > most {
                self.stop_statement();
                return Err(too_large_row());
            }
            let sequence = stream.sequence;
            let write = |out: &mut Vec<u8>| {
                let mut w = Writer::new(out);
                w.variant(STREAMING);
                w.variant(CHUNK);
                w.unsigned(sequence.into());
                w.unsigned(count);
                w.raw(&bytes);
            };
            self.core.reply(true, id, id, write).await.map_err(errors::of_violation)?;
            stream.sequence = stream.sequence.wrapping_add(1);
            if stream.rows.bytes.is_empty() {
                // The next rows take its place.
                bytes.clear();
                stream.rows.bytes = bytes;
            }
        }
        Ok(())
    }

    async fn end_stream(&mut self, id: u64, rows: u64, tag: &str) -> Result<(), Failure> {
        let tx = status(self.tx());
        let write = |out: &mut Vec<u8>| {
            let mut w = Writer::new(out);
            w.variant(STREAMING);
            w.variant(END);
            w.unsigned(rows);
            w.counted(tag.as_bytes());
            tx.encode(&mut w);
        };
        self.core.reply(false, id, id, write).await.map_err(errors::of_violation)
    }

    /// Reads a large object, as it was at one moment.
    async fn stream_object(
        &mut self,
        id: u64,
        oid: u32,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(), Failure> {
        let begins = self.tx() == TxStatus::Idle;
        if begins {
            self.command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        }
        match self.object_parts(id, oid, offset, length.unwrap_or(u64::MAX)).await {
            Ok(sent) => {
                if begins {
                    self.command("COMMIT").await?;
                }
                self.end_stream(id, sent, "").await
            }
            Err(failure) => {
                if begins && failure.severity == Severity::Error {
                    self.settle().await.or(Ok::<(), Failure>(()))?;
                    self.forget_cancel().await;
                    self.command("ROLLBACK").await?;
                }
                Err(failure)
            }
        }
    }

    async fn object_parts(
        &mut self,
        id: u64,
        oid: u32,
        offset: u64,
        length: u64,
    ) -> Result<u64, Failure> {
        let (mut sent, mut sequence) = (0u64, 0u32);
        let agreed = self.agreed;
        let room = (agreed.max_message_size as usize - 64) / agreed.encoding.expansion();
        let most = OBJECT_PART.min(room as u64);
        while sent < length && !self.wants_end(id) {
            self.check_cancelled()?;
            let wanted = most.min(length - sent);
            let at = i64::try_from(offset + sent).map_err(|_| {
                errors::refusal("22003", "VALIDATION_ERROR", "a position beyond any object")
            })?;
            let bytes = self.object_part(oid, at, wanted).await?;
            if bytes.is_empty() {
                break;
            }
            let write = |out: &mut Vec<u8>| {
                let mut w = Writer::new(out);
                w.variant(STREAMING);
                w.variant(DATA);
                w.unsigned(sequence.into());
                w.counted(&bytes);
            };
            self.core.reply(true, id, id, write).await.map_err(errors::of_violation)?;
            sent += bytes.len() as u64;
            sequence = sequence.wrapping_add(1);
            if (bytes.len() as u64) < wanted {
                break;
            }
        }
        Ok(sent)
    }

    async fn object_part(&mut self, oid: u32, at: i64, length: u64) -> Result<Vec<u8>, Failure> {
        const SQL: &str = "SELECT pg_catalog.lo_get($1, $2, $3)";
        let types = [26, 20, 23];
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        let values = [Value::Oid(oid), Value::Int8(at), Value::Int4(length)];
        let parameters = parameters(&values, &types)?;
        self.send_closed(|out| {
            put_parse(out, SQL, &types);
            put_bind(out, &parameters, &Formats::Binary);
            put_execute(out, 0);
            frontend::put_sync(out);
        });
        let mut bytes = Vec::new();
        let failure = self
            .core
            .replies(|tag, body| match tag {
                tag::DATA_ROW => {
                    let row = DataRow::parse(body.unwrap_or_default()).ok();
                    let value = row.and_then(|mut row| row.next()).and_then(Result::ok).flatten();
                    bytes.extend_from_slice(value.unwrap_or_default());
                    None
                }
                tag::ERROR => Some(Some(body.unwrap_or_default().to_vec())),
                tag::READY_FOR_QUERY => Some(None),
                _ => None,
            })
            .await;
        match failure {
            Some(body) => Err(self.reported(Some(&body))),
            None => {
                self.is_owed = false;
                Ok(bytes)
            }
        }
    }
}

impl Stream {
    /// Asks for half as many rows as the client has got already: what a client that ends the
    /// stream does not take is then never more than what it took.
    fn ask(&mut self, out: &mut Vec<u8>, most_rows: u64) {
        let got = (self.rows.total / u64::from(ASKED_AHEAD)).min(MOST_ROWS.into());
        let left = most_rows - self.asked;
        let rows = self.chunk_rows.max(FETCH.into()).max(got).min(left);
        self.asked += rows;
        self.unanswered += 1;
        put_execute(out, u32::try_from(rows).unwrap_or(FETCH));
    }
}
