//! Rows on their way into frames.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::exchange::{ColumnInfo, complete, completed};
use super::{Done, Failure, Translator};
use crate::frontend::native::core::{is_aside, status};
use crate::frontend::native::errors;
use crate::proto::backend::{TxStatus, tag};
use crate::proto::frame::spare;
use crate::proto::native::{Column, Wire, Writer};
use crate::proto::typed::{self, Types};

/// Room that a frame needs beside rows and columns.
const OVERHEAD: usize = 1024;

/// Bytes of rows after which a part of a large result is sent, where parts were agreed.
pub(super) const PART: usize = 1 << 20;

// Numbers of the messages that are written here.
const QUERY_RESPONSE: u32 = 4;

/// The columns of a result, ready to be written.
#[derive(Default)]
pub(super) struct Columns {
    /// As a list of the protocol.
    pub(super) wire: Vec<u8>,
    /// How each value is written.
    pub(super) plan: Vec<typed::result::Column>,
    pub(super) names: Vec<String>,
    /// The RowDescription that they were made from.
    described: Vec<u8>,
}

/// Rows that are not sent yet, as the protocol has them.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
    /// Where the last of them begins.
    last: usize,
    /// All rows so far.
    pub(super) total: u64,
    /// The statement was bound, so that it may have done something.
    pub(super) is_bound: bool,
    /// A column has a type that was not looked up yet.
    pub(super) has_unknown: bool,
}

impl Rows {
    fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes = spare::window();
        }
    }

    /// Takes out what is there; without the last row, if that does not fit beside the others.
    pub(super) fn take(&mut self, most: usize) -> (Vec<u8>, u64) {
        self.total += self.count;
        if self.bytes.len() <= most || self.count < 2 {
            let count = std::mem::take(&mut self.count);
            self.last = 0;
            return (std::mem::take(&mut self.bytes), count);
        }
        let rest = self.bytes.split_off(self.last);
        let count = self.count - 1;
        self.total -= 1;
        (self.count, self.last) = (1, 0);
        (std::mem::replace(&mut self.bytes, rest), count)
    }
}

/// Why the rows stopped for now.
#[derive(Debug)]
pub(super) enum Stop {
    /// There are enough for a frame.
    Full,
    /// The statement is complete.
    Complete(Done),
    /// The portal has more rows.
    Suspended,
    /// PostgreSQL wants data of a COPY.
    CopyIn,
    /// PostgreSQL sends data of a COPY.
    CopyOut,
}

/// A result on its way.
pub(super) struct Response {
    pub(super) index: u32,
    pub(super) columns: Arc<Columns>,
    pub(super) rows: Rows,
    /// The columns were sent.
    has_begun: bool,
    /// The request has further replies.
    pub(super) more: bool,
    id: u64,
    /// Rows are sent in parts.
    in_parts: bool,
    most: usize,
    /// How much longer rows can be than they are here when they are sent.
    expansion: usize,
}

impl Response {
    /// Whether it has to fit into one message whatever was agreed.
    pub(super) fn set_whole(&mut self, whole: bool) {
        self.in_parts &= !whole;
    }

    /// Whether some of it was sent.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes of rows after which a part is sent, or the result is too large.
    fn limit(&self) -> usize {
        if self.in_parts { self.part_limit().min(PART) } else { self.most() }
    }

    /// Room for rows in one message.
    fn most(&self) -> usize {
        self.most.saturating_sub(OVERHEAD + self.columns.wire.len())
    }

    /// What certainly has room, but for a row that is longer by itself.
    fn part_limit(&self) -> usize {
        self.most() / self.expansion
    }

    /// Writes a QueryResponse: rows with their number, and what the statement gave.
    fn write(
        &self,
        out: &mut Vec<u8>,
        (rows, count): (&[u8], u64),
        (affected, tag): (u64, &str),
        (micros, tx): (u64, TxStatus),
    ) {
        let mut w = Writer::new(out);
        w.variant(QUERY_RESPONSE);
        w.unsigned(self.index.into());
        match self.has_begun || self.columns.wire.is_empty() {
            true => w.unsigned(0),
            false => w.raw(&self.columns.wire),
        }
        w.unsigned(count);
        w.raw(rows);
        w.unsigned(affected);
        w.counted(tag.as_bytes());
        w.unsigned(micros);
        status(tx).encode(&mut w);
    }
}

/// How far [`Translator::take_usual`] has come.
pub(super) enum Usual {
    /// To the end.
    Answered,
    /// To something else than usual, which is still to be taken: before the end of the statement,
    /// or behind it.
    Other(Option<Done>),
    /// To ReadyForQuery; there is no room for the answer now.
    Ready(Done),
}

impl Translator {
    /// A result of this request that is empty so far.
    pub(super) fn response(&self, id: u64, index: u32, more: bool) -> Response {
        let in_parts = self.has(crate::proto::native::capabilities::STREAMING);
        Response {
            index,
            columns: Arc::default(),
            rows: Rows::default(),
            has_begun: false,
            more,
            id,
            in_parts,
            most: self.agreed.max_message_size as usize,
            expansion: self.agreed.encoding.expansion(),
        }
    }

    /// Makes columns ready.
    fn columns(&self, infos: &[ColumnInfo], described: Vec<u8>) -> Columns {
        let mut columns = Columns { described, ..Columns::default() };
        let list = self.column_list(infos);
        list.encode(&mut Writer::new(&mut columns.wire));
        columns.plan = infos
            .iter()
            .map(|info| typed::result::Column {
                oid: info.oid,
                shape: self.types.shape(info.oid),
                binary: info.binary,
            })
            .collect();
        columns.names = list.into_iter().map(|column| column.name).collect();
        columns
    }

    /// Columns as the client is told.
    pub(super) fn column_list(&self, infos: &[ColumnInfo]) -> Vec<Column> {
        let column = |info: &ColumnInfo| Column {
            name: info.name.clone(),
            type_oid: info.oid,
            type_name: self.types.name(info.oid),
            type_modifier: info.modifier,
            type_size: info.size,
            table_oid: info.table,
            column_number: info.attribute,
            nullable: None,
        };
        infos.iter().map(column).collect()
    }

    /// Writes rows until there are `most_bytes` or `most_rows`, or something else comes. A
    /// RowDescription on the way gives the columns.
    pub(super) async fn rows(
        &mut self,
        columns: &mut Arc<Columns>,
        rows: &mut Rows,
        most_bytes: usize,
        most_rows: u64,
    ) -> Result<Stop, Failure> {
        loop {
            enum Seen {
                Columns(Vec<ColumnInfo>, Vec<u8>),
                SameColumns,
                Stop(Stop),
                Failed(Vec<u8>),
                Broken(Failure),
            }
            let (encoder, types, last) = (&mut self.encoder, &self.types, &self.last_columns);
            let plan = &columns.plan;
            let seen = self
                .core
                .replies(|tag, body| match tag {
                    tag::DATA_ROW => {
                        let Some(body) = body else {
                            return Some(Seen::Broken(too_large_row()));
                        };
                        rows.make_room();
                        rows.last = rows.bytes.len();
                        if encoder.put_row(&mut rows.bytes, types, plan, body).is_err() {
                            let failure = errors::of_error_text("a DataRow that cannot be read");
                            return Some(Seen::Broken(failure));
                        }
                        rows.count += 1;
                        let full = rows.bytes.len() >= most_bytes || rows.count >= most_rows;
                        full.then_some(Seen::Stop(Stop::Full))
                    }
                    tag::BIND_COMPLETE => {
                        rows.is_bound = true;
                        None
                    }
                    tag::ROW_DESCRIPTION if body == Some(&last.described[..]) => {
                        Some(Seen::SameColumns)
                    }
                    tag::ROW_DESCRIPTION => Some(match super::exchange::columns(body) {
                        Ok(columns) => Seen::Columns(columns, body.unwrap_or_default().to_vec()),
                        Err(failure) => Seen::Broken(failure),
                    }),
                    tag::COMMAND_COMPLETE => Some(Seen::Stop(Stop::Complete(complete(body)))),
                    tag::EMPTY_QUERY => Some(Seen::Stop(Stop::Complete(Done::default()))),
                    tag::PORTAL_SUSPENDED => Some(Seen::Stop(Stop::Suspended)),
                    tag::COPY_IN | tag::COPY_BOTH => Some(Seen::Stop(Stop::CopyIn)),
                    tag::COPY_OUT => Some(Seen::Stop(Stop::CopyOut)),
                    tag::ERROR => Some(Seen::Failed(body.unwrap_or_default().to_vec())),
                    _ => None,
                })
                .await;
            match seen {
                Seen::SameColumns => *columns = self.last_columns.clone(),
                Seen::Columns(infos, described) => {
                    *columns = Arc::new(self.columns(&infos, described));
                    // There is no asking now: the rows follow. The next time is better.
                    let oids = infos.iter().map(|column| column.oid);
                    rows.has_unknown = self.types.missing(oids).is_some();
                    if !rows.has_unknown {
                        self.last_columns = columns.clone();
                    }
                }
                Seen::Stop(stop) => return Ok(stop),
                Seen::Failed(body) => return Err(self.reported(Some(&body))),
                Seen::Broken(failure) => {
                    self.stop_statement();
                    return Err(failure);
                }
            }
        }
    }

    /// Takes the replies to a statement that was sent with its Sync, and answers it, as long as
    /// they are what nearly all are: rows with the columns of the last result, the end,
    /// ReadyForQuery. All in one, because it is the way of most requests.
    pub(super) async fn take_usual(&mut self, response: &mut Response) -> Usual {
        let Self { core, encoder, types, last_columns: last, last_tag, began, .. } = self;
        let (mut affected, mut limit) = (None, response.limit());
        poll_fn(|_| {
            let mut state = core.lock();
            let state = &mut *state;
            while let Some(reply) = state.pipe.front() {
                let whole = reply.whole;
                match (reply.tag, reply.body) {
                    (tag::PARSE_COMPLETE | tag::NO_DATA, _) => {}
                    (tag::BIND_COMPLETE, _) => response.rows.is_bound = true,
                    (tag::ROW_DESCRIPTION, Some(body)) if *body == *last.described => {
                        response.columns = last.clone();
                        limit = response.limit();
                    }
                    (tag::DATA_ROW, Some(body)) => {
                        let (columns, rows) = (&response.columns.plan, &mut response.rows);
                        rows.make_room();
                        rows.last = rows.bytes.len();
                        if encoder.put_row(&mut rows.bytes, types, columns, body).is_err() {
                            rows.bytes.truncate(rows.last);
                            return Poll::Ready(Usual::Other(None));
                        }
                        rows.count += 1;
                        if rows.bytes.len() >= limit {
                            state.pipe.pop(whole);
                            state.progress = true;
                            return Poll::Ready(Usual::Other(None));
                        }
                    }
                    (tag::COMMAND_COMPLETE, body) => {
                        let (rows, text) = completed(body);
                        affected = Some(rows);
                        last_tag.clear();
                        last_tag.push_str(&text);
                    }
                    (tag::READY_FOR_QUERY, Some(b"I")) if affected.is_some() => {
                        let affected = affected.unwrap_or_default();
                        state.tx = TxStatus::Idle;
                        state.pipe.pop(whole);
                        state.progress = true;
                        let micros = u64::try_from(began.elapsed().as_micros());
                        let facts = (micros.unwrap_or(u64::MAX), TxStatus::Idle);
                        let rows = (&response.rows.bytes[..], response.rows.count);
                        let done = (affected, last_tag.as_str());
                        let write = |out: &mut Vec<u8>| response.write(out, rows, done, facts);
                        return Poll::Ready(match state.answer(response.id, write) {
                            true => Usual::Answered,
                            false => Usual::Ready(Done { rows: affected, tag: last_tag.clone() }),
                        });
                    }
                    (tag, _) if is_aside(tag) => {
                        state.pass_on_asides();
                        continue;
                    }
                    _ => {
                        let done = affected.map(|rows| Done { rows, tag: last_tag.clone() });
                        return Poll::Ready(Usual::Other(done));
                    }
                }
                state.pipe.pop(whole);
                state.progress = true;
            }
            Poll::Pending
        })
        .await
    }

    /// What is still to come of a statement is not wanted.
    pub(super) fn stop_statement(&self) {
        let mut state = self.core.lock();
        if let Some(current) = &mut state.current {
            current.is_cancelled = true;
        }
        state.calls_driver = true;
    }

    /// Takes the rows of a statement until it is complete, and sends full parts.
    pub(super) async fn collect(&mut self, response: &mut Response) -> Result<Done, Failure> {
        loop {
            let limit = response.limit();
            let (columns, rows) = (&mut response.columns, &mut response.rows);
            match self.rows(columns, rows, limit, u64::MAX).await? {
                Stop::Complete(done) => return Ok(done),
                Stop::Suspended => {
                    // max_rows was reached: what counts is what was delivered.
                    let rows = response.rows.total + response.rows.count;
                    return Ok(Done { tag: format!("SELECT {rows}"), rows });
                }
                Stop::Full if response.in_parts => self.part(response).await?,
                Stop::Full if response.rows.bytes.len() <= response.limit() => {}
                Stop::Full => {
                    self.stop_statement();
                    let text = "the result is longer than the longest message";
                    return Err(errors::too_large(text, "use Streaming"));
                }
                Stop::CopyIn => {
                    self.send_open(|out| super::exchange::put_copy_fail(out, "not supported"));
                    self.is_owed = false;
                    let text = "COPY FROM STDIN is not possible with Query";
                    return Err(hinted(errors::not_supported(text), "use BulkInsert"));
                }
                Stop::CopyOut => {
                    let text = "COPY TO STDOUT is not possible with Query";
                    return Err(hinted(errors::not_supported(text), "use SELECT with Streaming"));
                }
            }
        }
    }

    /// Sends the rows that are there.
    async fn part(&mut self, response: &mut Response) -> Result<(), Failure> {
        let (bytes, count) = response.rows.take(response.part_limit());
        if bytes.len() > response.most() {
            self.stop_statement();
            return Err(too_large_row());
        }
        let done = Done::default();
        self.put(response, &bytes, count, &done, true).await?;
        spare::keep(bytes);
        Ok(())
    }

    /// Sends the rest, and what the statement gave.
    pub(super) async fn conclude_response(
        &mut self,
        mut response: Response,
        done: &Done,
    ) -> Result<(), Failure> {
        if response.in_parts && response.rows.bytes.len() > response.part_limit() {
            self.part(&mut response).await?;
        }
        let (bytes, count) = response.rows.take(usize::MAX);
        if bytes.len() > response.most() {
            let text = "the result is longer than the longest message";
            return Err(errors::too_large(text, "use Streaming"));
        }
        self.statements.follow(&done.tag);
        let more = response.more;
        self.put(&mut response, &bytes, count, done, more).await?;
        spare::keep(bytes);
        Ok(())
    }

    async fn put(
        &mut self,
        response: &mut Response,
        rows: &[u8],
        count: u64,
        done: &Done,
        more: bool,
    ) -> Result<(), Failure> {
        let (micros, tx) = (self.micros(), self.tx());
        let done = (done.rows, done.tag.as_str());
        let write = |out: &mut Vec<u8>| response.write(out, (rows, count), done, (micros, tx));
        let sent = self.core.reply(more, response.id, 0, write).await;
        sent.map_err(errors::of_violation)?;
        response.has_begun = true;
        Ok(())
    }
}

fn hinted(mut failure: Failure, hint: &str) -> Failure {
    failure.hint = Some(hint.to_owned());
    failure
}

pub(super) fn too_large_row() -> Failure {
    errors::too_large("a row is longer than the longest message", "select less of it")
}
