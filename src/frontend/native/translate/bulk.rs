//! BulkInsert: COPY, fed from the parts as they come.
//!
//! Rows go as COPY's text form: every value has one, whatever the column's type is, where the
//! binary form would have to be exactly the column's.

use std::future::poll_fn;
use std::task::Poll;

use super::exchange::{complete, put_copy_data, put_copy_done, put_copy_fail};
use super::session::quoted;
use super::{Done, Failure, Translator};
use crate::frontend::native::errors;
use crate::proto::backend::{TxStatus, tag};
use crate::proto::frontend;
use crate::proto::native::{Bulk, OnConflict, Severity, Value, Violation};
use crate::proto::typed::text::put_copy_row;

/// Bytes that wait for PostgreSQL before more rows are taken.
const ROOM: usize = 64 << 10;

/// What comes next.
enum Next {
    Part(Bulk),
    Broken(Violation),
    /// PostgreSQL wants no more, or the client does not.
    Over,
}

impl Translator {
    pub(super) async fn bulk(&mut self, id: u64, bulk: Bulk) -> Result<(), Failure> {
        let Bulk::Start { schema, table, columns, on_conflict } = bulk else {
            return Err(errors::violation("a bulk insert that does not begin with Start"));
        };
        let table = match schema {
            Some(schema) => format!("{}.{}", quoted(&schema)?, quoted(&table)?),
            None => quoted(&table)?,
        };
        let columns: Result<Vec<String>, Failure> = columns.iter().map(|c| quoted(c)).collect();
        let list = columns?.join(", ");
        let in_parentheses = if list.is_empty() { String::new() } else { format!(" ({list})") };
        let done = match on_conflict {
            OnConflict::Fail => {
                self.copy(id, &format!("COPY {table}{in_parentheses} FROM STDIN")).await?
            }
            OnConflict::Skip => self.copy_and_skip(id, &table, &list, &in_parentheses).await?,
        };
        self.ok(id, done).await
    }

    /// Through a temporary table, from which only what is not there yet is inserted.
    async fn copy_and_skip(
        &mut self,
        id: u64,
        table: &str,
        list: &str,
        in_parentheses: &str,
    ) -> Result<Done, Failure> {
        let begins = self.tx() == TxStatus::Idle;
        if begins {
            self.command("BEGIN").await?;
        }
        match self.skip_within(id, table, list, in_parentheses).await {
            Ok(done) => {
                if begins {
                    self.command("COMMIT").await?;
                }
                Ok(done)
            }
            Err(failure) => {
                if begins && failure.severity == Severity::Error {
                    self.settle().await.or(Ok::<(), Failure>(()))?;
                    self.forget_cancel();
                    self.command("ROLLBACK").await?;
                }
                Err(failure)
            }
        }
    }

    async fn skip_within(
        &mut self,
        id: u64,
        table: &str,
        list: &str,
        in_parentheses: &str,
    ) -> Result<Done, Failure> {
        let columns = if list.is_empty() { "*" } else { list };
        let own = format!("pg_temp.rustydb_bulk_{id}");
        self.command(&format!(
            "CREATE TEMPORARY TABLE rustydb_bulk_{id} ON COMMIT DROP AS \
             SELECT {columns} FROM {table} WITH NO DATA"
        ))
        .await?;
        self.copy(id, &format!("COPY {own} FROM STDIN")).await?;
        let done = self
            .command(&format!(
                "INSERT INTO {table}{in_parentheses} OVERRIDING SYSTEM VALUE \
                 SELECT * FROM {own} ON CONFLICT DO NOTHING"
            ))
            .await?;
        self.command(&format!("DROP TABLE {own}")).await?;
        Ok(done)
    }

    async fn copy(&mut self, id: u64, sql: &str) -> Result<Done, Failure> {
        self.send_closed(|out| frontend::put_query(out, sql.as_bytes()));
        let failure = self
            .core
            .replies(|tag, body| match tag {
                tag::COPY_IN => Some(None),
                tag::ERROR => Some(Some(body.unwrap_or_default().to_vec())),
                _ => None,
            })
            .await;
        if let Some(body) = failure {
            return Err(self.reported(Some(&body)));
        }
        match self.feed(id).await {
            Ok(()) => self.core.send(put_copy_done),
            Err(failure) => {
                self.core.send(|out| put_copy_fail(out, &failure.message));
                return match self.settle().await {
                    // PostgreSQL's own reason comes first, where it had one.
                    Err(theirs) if theirs.severity != Severity::Error => Err(theirs),
                    Err(theirs) if failure.code == OVER && theirs.sqlstate != "57014" => {
                        Err(theirs)
                    }
                    _ if failure.code == OVER => Err(self.over()),
                    _ => Err(failure),
                };
            }
        }
        let mut done = Done::default();
        let failure = self
            .core
            .replies(|tag, body| match tag {
                tag::COMMAND_COMPLETE => {
                    done = complete(body);
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
                Ok(done)
            }
        }
    }

    fn over(&self) -> Failure {
        let state = self.core.lock();
        errors::cancelled(state.current.as_ref().is_some_and(|current| current.timed_out))
    }

    /// Passes rows on until the last part.
    async fn feed(&mut self, id: u64) -> Result<(), Failure> {
        let mut expected = 0;
        let mut data = Vec::new();
        let mut number = 0u64;
        loop {
            let (sequence, rows) = match self.next_part(id).await {
                Next::Part(Bulk::Rows { sequence, rows }) => (sequence, rows),
                Next::Part(Bulk::End) => return Ok(()),
                Next::Part(Bulk::Abort { reason }) => {
                    let mut failure = errors::cancelled(false);
                    failure.message = "the bulk insert was aborted by the client".into();
                    failure.detail = Some(reason).filter(|reason| !reason.is_empty());
                    return Err(failure);
                }
                Next::Part(Bulk::Start { .. }) => {
                    return Err(errors::violation("a bulk insert begins twice"));
                }
                Next::Broken(violation) => return Err(errors::of_violation(violation)),
                Next::Over => return Err(errors::refusal("57014", OVER, "over")),
            };
            if sequence != expected {
                let text = format!("part {sequence} of a bulk insert, expected {expected}");
                return Err(errors::refusal("08P01", "PROTOCOL_VIOLATION", text));
            }
            expected = expected.wrapping_add(1);
            for row in &rows {
                number += 1;
                put_row(&mut data, row, number)?;
                if data.len() >= ROOM {
                    self.pass(&mut data).await;
                }
            }
            self.pass(&mut data).await;
        }
    }

    /// Hands rows to PostgreSQL, when it has taken those before.
    async fn pass(&self, data: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        poll_fn(|_| {
            let state = self.core.lock();
            let has_room = state.pipe.up.rest().len() < ROOM;
            match has_room || state.pipe.front().is_some() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        self.core.send(|out| put_copy_data(out, data));
        data.clear();
    }

    async fn next_part(&self, id: u64) -> Next {
        poll_fn(|_| {
            let mut state = self.core.lock();
            let refused = state.pipe.front().is_some_and(|reply| reply.tag == tag::ERROR);
            if refused || state.is_cancelled() {
                return Poll::Ready(Next::Over);
            }
            match state.next_part(&self.core, id) {
                Some(Ok(part)) => Poll::Ready(Next::Part(part)),
                Some(Err(violation)) => Poll::Ready(Next::Broken(violation)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Stands for the reason that PostgreSQL will give.
const OVER: &str = "OVER";

fn put_row(data: &mut Vec<u8>, row: &[Value], number: u64) -> Result<(), Failure> {
    put_copy_row(data, row).map_err(|bad| {
        let mut failure = errors::of_value(bad);
        failure.detail = Some(format!("row {number}"));
        failure
    })
}
