//! Results that are read while they come, and large objects.
//!
//! Credit for a part of a stream is returned when it is taken, so the server is never further ahead
//! than the window says.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use super::connection::{Options, Params, write_query};
use super::pool::PooledConnection;
use super::replies::{STREAMING, columns, in_sequence, message, open, unexpected};
use crate::error::Result;
use crate::link::{Kind, Link, Pending, Reply};
use crate::protocol::wire::{Wire, Writer};
use crate::protocol::{Message, Streaming};
use crate::rows::{Chunk, Columns, Rest, Row};

// Numbers of the variants that are not decoded whole.
const HEADER: u32 = 1;
const CHUNK: u32 = 2;
const DATA: u32 = 6;

/// Rows as they come. Dropped before the end, the query is cancelled.
pub struct RowStream {
    pending: Pending,
    columns: Columns,
    rest: Option<Rest>,
    sequence: u32,
    rows: u64,
    command_tag: Option<String>,
    /// Goes back to the pool after the request is given up.
    _connection: Option<PooledConnection>,
}

impl RowStream {
    pub(super) async fn open(
        link: &Link,
        sql: &str,
        params: &Params<'_>,
        options: &Options,
    ) -> Result<Self> {
        let body = |out: &mut Writer<'_>| {
            out.variant(STREAMING);
            out.variant(0);
            write_query(out, sql, params, options);
            out.unsigned(0);
        };
        let mut pending = link.request(Kind::STREAM, &body).await?;
        let reply = pending.reply().await?;
        let columns = match part(&reply)? {
            (HEADER, mut input) => columns(&reply, &mut input)?,
            _ => return Err(message(&reply).map_or_else(|e| e, |_| unexpected())),
        };
        Ok(Self {
            pending,
            columns,
            rest: None,
            sequence: 0,
            rows: 0,
            command_tag: None,
            _connection: None,
        })
    }

    pub(super) fn on(mut self, connection: PooledConnection) -> Self {
        self._connection = Some(connection);
        self
    }

    /// What the rows consist of.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The next row; none = that was all.
    pub async fn next(&mut self) -> Option<Result<Row>> {
        poll_fn(|cx| self.poll_row(cx)).await
    }

    /// After the end: PostgreSQL's tag of the command.
    pub fn command_tag(&self) -> Option<&str> {
        self.command_tag.as_deref()
    }

    /// After the end: how many rows there were.
    pub fn row_count(&self) -> u64 {
        self.rows
    }

    /// Asks the server to stop; what has come is still given, and an error after it.
    pub fn cancel(&self) {
        self.pending.cancel();
    }

    fn poll_row(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Row>>> {
        loop {
            if let Some(row) = self.rest.as_mut().and_then(Rest::next) {
                return Poll::Ready(Some(Ok(row)));
            }
            self.rest = None;
            if self.pending.is_done() {
                return Poll::Ready(None);
            }
            let reply = ready!(self.pending.poll_reply(cx));
            if let Err(error) = reply.and_then(|reply| self.take(&reply)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn take(&mut self, reply: &Reply) -> Result<()> {
        if let (CHUNK, mut input) = part(reply)? {
            in_sequence(&mut input, &mut self.sequence)?;
            let chunk = Chunk::take(&reply.body, &mut input, &self.columns)?;
            input.finish()?;
            self.rest = Some(Rest::of(chunk));
            return Ok(());
        }
        match message(reply)? {
            Message::Streaming(Streaming::End { rows, command_tag, transaction_status }) => {
                self.rows = rows;
                self.command_tag = Some(command_tag);
                self.pending.note(transaction_status);
                Ok(())
            }
            _ => Err(unexpected()),
        }
    }
}

impl Stream for RowStream {
    type Item = Result<Row>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Row>>> {
        self.poll_row(cx)
    }
}

/// The variant within Streaming, and a reader of what follows; 0 = another message.
fn part(reply: &Reply) -> Result<(u32, crate::protocol::Reader<'_>)> {
    let (variant, mut input) = open(reply)?;
    let inner = if variant == STREAMING { input.variant()? } else { 0 };
    Ok((inner, input))
}

/// The bytes of a large object as they come.
pub struct ObjectStream {
    pending: Pending,
    sequence: u32,
    _connection: Option<PooledConnection>,
}

impl ObjectStream {
    pub(super) async fn open(
        link: &Link,
        oid: u32,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Self> {
        let request = Message::Streaming(Streaming::OpenObject { oid, offset, length });
        let body = |out: &mut Writer<'_>| request.encode(out);
        let pending = link.request(Kind::STREAM, &body).await?;
        Ok(Self { pending, sequence: 0, _connection: None })
    }

    pub(super) fn on(mut self, connection: PooledConnection) -> Self {
        self._connection = Some(connection);
        self
    }

    /// The next bytes; none = that was all.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.pending.is_done() {
            return None;
        }
        let reply = match self.pending.reply().await {
            Ok(reply) => reply,
            Err(error) => return Some(Err(error)),
        };
        self.take(&reply).transpose()
    }

    fn take(&mut self, reply: &Reply) -> Result<Option<Bytes>> {
        if let (DATA, mut input) = part(reply)? {
            in_sequence(&mut input, &mut self.sequence)?;
            let bytes = input.counted()?;
            input.finish()?;
            return Ok(Some(reply.body.slice_ref(bytes)));
        }
        match message(reply)? {
            Message::Streaming(Streaming::End { transaction_status, .. }) => {
                self.pending.note(transaction_status);
                Ok(None)
            }
            _ => Err(unexpected()),
        }
    }
}
