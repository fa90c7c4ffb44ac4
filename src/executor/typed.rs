//! One statement with parameters, read by a program and not by a PostgreSQL client: the extended
//! protocol in two batches. The first learns the types, so that values can be bound and read with
//! them; the second runs. Rows are looked at where they arrived.

use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use crate::backend::BackendConn;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::backend::{self as replies, Report, tag};
use crate::proto::frontend::{self, tag as request};

/// Name of the statement. Not the unnamed one, which a look-up in the catalog would replace.
const STATEMENT: &str = "rustydb";

/// Longest message that is not a row: a report or a description of 1664 columns.
const LONGEST: usize = 1 << 20;

/// Bytes of a notice that are kept.
const LONGEST_NOTICE: usize = 4 << 10;

/// A statement that PostgreSQL has understood.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Types of `$1`, `$2`, …
    pub parameters: Vec<u32>,
    /// Columns of the result; empty when there is none.
    pub columns: Vec<ColumnInfo>,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Name.
    pub name: String,
    /// The table it comes from, or 0.
    pub table: u32,
    /// Its number in that table, or 0.
    pub attribute: i16,
    /// Type.
    pub type_oid: u32,
}

/// A warning or notice.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, …
    pub severity: String,
    /// SQLSTATE.
    pub sqlstate: String,
    /// Text.
    pub message: String,
}

/// What comes while a statement runs.
#[derive(Debug)]
pub enum Event {
    /// A row; its values are in [`BackendConn::body`] until the next event.
    Row,
    /// A notice.
    Notice(Notice),
    /// The command is complete.
    Complete {
        /// Its tag without numbers.
        command: String,
        /// Rows returned or changed.
        rows: u64,
    },
    /// The row limit was reached and there may be more.
    Suspended,
    /// Everything has been read; the connection is free again.
    Done,
}

/// Prepares a statement and describes it. With `read_only`, a read-only transaction is
/// begun first in the same batch; it is rolled back when the connection is released.
pub async fn prepare(conn: &mut BackendConn, sql: &str, read_only: bool) -> Result<Prepared> {
    if sql.contains('\0') {
        return Err(Error::sql(b"22021", "the statement contains the character U+0000"));
    }
    let mut batch = BytesMut::new();
    let mut requests = Vec::new();
    if read_only {
        frontend::query("BEGIN READ ONLY", &mut batch).map_err(Error::internal)?;
        requests.push(request::QUERY);
    }
    frontend::parse(STATEMENT, sql, [], &mut batch).map_err(Error::internal)?;
    frontend::describe(b'S', STATEMENT, &mut batch).map_err(Error::internal)?;
    frontend::sync(&mut batch);
    requests.push(request::SYNC);
    conn.send(&batch, &requests).await?;
    let mut prepared = Prepared::default();
    let mut error = None;
    while conn.state.pending() > 0 {
        match conn.message(LONGEST).await? {
            tag::PARAMETER_DESCRIPTION => {
                prepared.parameters =
                    replies::parameter_description(conn.body()).map_err(Error::backend_lost)?;
            }
            tag::ROW_DESCRIPTION => prepared.columns = columns(conn.body())?,
            tag::ERROR => error = Some(take_error(conn, error)?),
            _ => {}
        }
    }
    error.map_or(Ok(prepared), Err)
}

fn columns(body: &[u8]) -> Result<Vec<ColumnInfo>> {
    let columns = replies::row_description(body).map_err(Error::backend_lost)?;
    let owned = columns.into_iter().map(|c| ColumnInfo {
        name: String::from_utf8_lossy(c.name).into_owned(),
        table: c.table,
        attribute: c.attribute,
        type_oid: c.type_oid,
    });
    Ok(owned.collect())
}

/// The first error of a batch is the one that counts; after a fatal one nothing follows.
fn take_error(conn: &BackendConn, before: Option<Error>) -> Result<Error> {
    let report = Report::parse(conn.body()).map_err(Error::backend_lost)?;
    let error = before.unwrap_or_else(|| report.to_error());
    if conn.state.fatal { Err(error) } else { Ok(error) }
}

/// Binds text values to the prepared statement and runs it, for at most `max_rows` rows (0 = all).
pub async fn execute(
    conn: &mut BackendConn,
    parameters: &[Option<Vec<u8>>],
    max_rows: u32,
) -> Result<()> {
    let mut batch = BytesMut::new();
    let bound = frontend::bind(
        "",
        STATEMENT,
        [0i16],
        parameters,
        |value, out| match value {
            Some(text) => {
                out.extend_from_slice(text);
                Ok(postgres_protocol::IsNull::No)
            }
            None => Ok(postgres_protocol::IsNull::Yes),
        },
        [0i16],
        &mut batch,
    );
    bound.map_err(|_| Error::new(ErrorKind::PayloadTooLarge, "the parameters are too long"))?;
    let limit = i32::try_from(max_rows).unwrap_or(i32::MAX);
    frontend::execute("", limit, &mut batch).map_err(Error::internal)?;
    frontend::sync(&mut batch);
    conn.send(&batch, &[request::SYNC]).await
}

/// The events of a running statement.
#[derive(Debug, Default)]
pub struct Events {
    error: Option<Error>,
}

impl Events {
    /// The next event. An error comes after the rows before it, and only when PostgreSQL is
    /// ready again, so that the connection is free then (unless it is lost).
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut BackendConn,
        longest_row: usize,
    ) -> Poll<Result<Event>> {
        loop {
            let event = match ready!(conn.poll_message(cx, longest_row.max(LONGEST)))? {
                tag::DATA_ROW if self.error.is_none() => Event::Row,
                tag::COMMAND_COMPLETE => {
                    let tag =
                        replies::command_complete(conn.body()).map_err(Error::backend_lost)?;
                    Event::Complete { command: tag.command.to_owned(), rows: tag.rows }
                }
                tag::PORTAL_SUSPENDED => Event::Suspended,
                tag::NOTICE => match notice(conn.body()) {
                    Some(notice) => Event::Notice(notice),
                    None => continue,
                },
                tag::ERROR => {
                    self.error = Some(take_error(conn, self.error.take())?);
                    continue;
                }
                // There is no place for COPY's bytes in a typed result. The connection is given
                // up in the middle, so its release cancels the COPY.
                tag::COPY_IN | tag::COPY_OUT | tag::COPY_BOTH => {
                    return Poll::Ready(Err(copy_refused()));
                }
                tag::READY_FOR_QUERY if conn.state.pending() == 0 => match self.error.take() {
                    None => Event::Done,
                    Some(error) => return Poll::Ready(Err(error)),
                },
                _ => continue,
            };
            return Poll::Ready(Ok(event));
        }
    }
}

fn copy_refused() -> Error {
    Error::new(
        ErrorKind::NotSupported,
        "COPY from or to the client is not possible over this interface",
    )
    .with_hint("use INSERT or SELECT here, or COPY over the PostgreSQL protocol")
}

fn notice(body: &[u8]) -> Option<Notice> {
    let report = Report::parse(body).ok()?;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_NOTICE)]).into_owned()
    };
    Some(Notice {
        severity: text(report.severity),
        sqlstate: text(report.sqlstate),
        message: text(report.message),
    })
}
