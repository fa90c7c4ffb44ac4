//! `COPY … FROM STDIN`, fed by a program: what it writes goes on at once, and a client that is
//! faster than PostgreSQL waits for it.

use std::future::poll_fn;
use std::task::Poll;

use crate::backend::BackendConn;
use crate::error::{Error, Result};
use crate::proto::backend::{self as replies, Report, tag};
use crate::proto::frontend::tag as request;

/// Longest message that is understood.
const LONGEST: usize = 1 << 20;

/// Bytes of one message with data.
const PART: usize = 64 << 10;

/// Sends statements among which there is a COPY; returns when PostgreSQL takes data.
///
/// # Errors
/// PostgreSQL's; nothing is open then.
pub async fn begin(conn: &mut BackendConn, sql: &str) -> Result<()> {
    let mut batch = bytes::BytesMut::new();
    crate::proto::frontend::query(sql, &mut batch).map_err(Error::internal)?;
    conn.send(&batch, &[request::QUERY]).await?;
    let mut error = None;
    loop {
        match conn.message(LONGEST).await? {
            tag::COPY_IN => return Ok(()),
            tag::ERROR => error = Some(report(conn)?),
            tag::READY_FOR_QUERY if conn.state.pending() == 0 => {
                let none = || Error::internal("the statement is no COPY");
                return Err(error.unwrap_or_else(none));
            }
            _ => {}
        }
    }
}

fn report(conn: &BackendConn) -> Result<Error> {
    let report = Report::parse(conn.body()).map_err(Error::backend_lost)?;
    let error = report.to_error();
    if conn.state.fatal { Err(error) } else { Ok(error) }
}

/// Sends data.
///
/// # Errors
/// PostgreSQL has refused what it got; the COPY is over then.
pub async fn write(conn: &mut BackendConn, data: &[u8]) -> Result<()> {
    let mut message = Vec::with_capacity(data.len().min(PART) + 5);
    for part in data.chunks(PART) {
        message.clear();
        message.push(request::COPY_DATA);
        let length = i32::try_from(part.len() + 4).unwrap_or(i32::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(part);
        conn.send(&message, &[]).await?;
    }
    // It says nothing until the end, unless it refuses.
    loop {
        let said = poll_fn(|cx| match conn.poll_message(cx, LONGEST) {
            Poll::Ready(said) => Poll::Ready(Some(said)),
            Poll::Pending => Poll::Ready(None),
        });
        match said.await.transpose()? {
            None => return Ok(()),
            Some(tag::ERROR) => {
                let error = report(conn)?;
                settle(conn).await?;
                return Err(error);
            }
            Some(_) => {}
        }
    }
}

/// Ends the data; gives the number of rows.
///
/// # Errors
/// PostgreSQL's: no row is there then.
pub async fn end(conn: &mut BackendConn) -> Result<u64> {
    conn.send(&[request::COPY_DONE, 0, 0, 0, 4], &[request::COPY_DONE]).await?;
    settle(conn).await
}

/// Gives up: no row is there.
///
/// # Errors
/// The connection is lost.
pub async fn fail(conn: &mut BackendConn) -> Result<()> {
    conn.send(&[request::COPY_FAIL, 0, 0, 0, 5, 0], &[request::COPY_FAIL]).await?;
    // PostgreSQL reports that it was given up.
    let _ = settle(conn).await;
    Ok(())
}

/// Reads up to the end of the statements.
async fn settle(conn: &mut BackendConn) -> Result<u64> {
    let (mut rows, mut error) = (0, None);
    while conn.state.pending() > 0 {
        match conn.message(LONGEST).await? {
            tag::COMMAND_COMPLETE => {
                let done = replies::command_complete(conn.body()).map_err(Error::backend_lost)?;
                // An INSERT after it takes them to where they belong.
                if matches!(done.command, "COPY" | "INSERT") {
                    rows = done.rows;
                }
            }
            tag::ERROR => error = error.or(Some(report(conn)?)),
            _ => {}
        }
    }
    conn.inbound.consume_scanned();
    error.map_or(Ok(rows), Err)
}
