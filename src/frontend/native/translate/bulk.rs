//! BulkInsert: COPY, fed from the parts as they come.
//!
//! Rows go as COPY's binary form while each value has that of its column, which costs PostgreSQL
//! half as much as reading text. From the first row on that does not, they go as text, which every
//! value has, whatever the column's type is: a second COPY, in the same transaction.

use std::future::poll_fn;
use std::task::Poll;

use super::exchange::{complete, put_copy_data, put_copy_done, put_copy_fail};
use super::session::{literal, quoted};
use super::{Done, Failure, Translator};
use crate::frontend::native::errors;
use crate::frontend::native::pipe::ROOM;
use crate::proto::backend::{TxStatus, tag};
use crate::proto::frontend;
use crate::proto::native::{Bulk, OnConflict, Severity, Value, Violation};
use crate::proto::typed::Types;
use crate::proto::typed::parameter::put_copy_field;
use crate::proto::typed::text::{BadValue, put_copy_row};

/// How COPY's binary form begins and ends.
const BINARY_BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const BINARY_END: [u8; 2] = (-1i16).to_be_bytes();

/// The rows of one bulk insert on their way.
struct Feed {
    id: u64,
    /// `schema.table (columns)`
    into: String,
    /// Types of the columns, while rows go in binary.
    types: Option<Vec<u32>>,
    /// The number of the next part.
    expected: u32,
    /// Rows that were taken.
    number: u64,
    data: Vec<u8>,
    /// Rows that came with the part of one that has no binary form, and it itself.
    left: Vec<Vec<Value>>,
}

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
            OnConflict::Fail => self.insert(id, &table, &list, &in_parentheses).await?,
            OnConflict::Skip => self.copy_and_skip(id, &table, &list, &in_parentheses).await?,
        };
        self.ok(id, done).await
    }

    async fn insert(
        &mut self,
        id: u64,
        table: &str,
        list: &str,
        in_parentheses: &str,
    ) -> Result<Done, Failure> {
        let mut feed = Feed::new(id, format!("{table}{in_parentheses}"));
        feed.types = self.column_types(table, list).await?;
        // The second COPY, should there be one, belongs to the first.
        let begins = feed.types.is_some() && self.tx() == TxStatus::Idle;
        if begins {
            self.command("BEGIN").await?;
        }
        let result = self.copy(&mut feed).await;
        self.ended(begins, result).await
    }

    /// Ends the transaction that was begun for a bulk insert.
    async fn ended(
        &mut self,
        begins: bool,
        result: Result<Done, Failure>,
    ) -> Result<Done, Failure> {
        match result {
            Ok(done) => {
                if begins {
                    self.command("COMMIT").await?;
                }
                Ok(done)
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

    /// Types of the columns that rows are for; `None` = they are not known, and COPY says why.
    ///
    /// # Errors
    /// Within a transaction, where an error ends it, what is wrong with the table or a column.
    async fn column_types(&mut self, table: &str, list: &str) -> Result<Option<Vec<u32>>, Failure> {
        let list = match list.is_empty() {
            true => self.plain_columns(table).await?,
            false => list.to_owned(),
        };
        if list.is_empty() {
            return Ok(None);
        }
        let is_free = self.tx() == TxStatus::Idle;
        let described = self.describe(&format!("SELECT {list} FROM {table}"), &[]).await;
        let settled = self.settle().await;
        match described.and_then(|described| settled.map(|()| described)) {
            Ok(described) => {
                let oids: Vec<u32> = described.columns.iter().map(|column| column.oid).collect();
                let has_binary = oids.iter().all(|oid| self.types.can_be_binary(*oid));
                Ok(Some(oids).filter(|_| has_binary))
            }
            Err(failure) if is_free && failure.severity == Severity::Error => Ok(None),
            Err(mut failure) => {
                // Counted in a text that the client does not know.
                failure.position = None;
                Err(failure)
            }
        }
    }

    /// The columns that COPY fills without a list: all but those that are generated.
    async fn plain_columns(&mut self, table: &str) -> Result<String, Failure> {
        let sql = format!(
            "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' \
             ORDER BY attnum) FROM pg_catalog.pg_attribute \
             WHERE attrelid = pg_catalog.to_regclass({}) AND attnum > 0 \
             AND NOT attisdropped AND attgenerated = ''",
            literal(table)?
        );
        let is_free = self.tx() == TxStatus::Idle;
        let rows = match self.text_rows(&sql).await {
            Err(failure) if is_free && failure.severity == Severity::Error => {
                return Ok(String::new());
            }
            rows => rows?,
        };
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
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
        let result = self.skip_within(id, table, list, in_parentheses).await;
        self.ended(begins, result).await
    }

    async fn skip_within(
        &mut self,
        id: u64,
        table: &str,
        list: &str,
        in_parentheses: &str,
    ) -> Result<Done, Failure> {
        let all = match list.is_empty() {
            true => self.plain_columns(table).await?,
            false => list.to_owned(),
        };
        let columns = if all.is_empty() { "*" } else { &all };
        let into = match (list.is_empty(), all.is_empty()) {
            (true, false) => format!(" ({all})"),
            _ => in_parentheses.to_owned(),
        };
        let own = format!("pg_temp.rustydb_bulk_{id}");
        self.command(&format!(
            "CREATE TEMPORARY TABLE rustydb_bulk_{id} ON COMMIT DROP AS \
             SELECT {columns} FROM {table} WITH NO DATA"
        ))
        .await?;
        self.copy(&mut Feed::new(id, own.clone())).await?;
        let done = self
            .command(&format!(
                "INSERT INTO {table}{into} OVERRIDING SYSTEM VALUE \
                 SELECT * FROM {own} ON CONFLICT DO NOTHING"
            ))
            .await?;
        self.command(&format!("DROP TABLE {own}")).await?;
        Ok(done)
    }

    /// Copies all rows; once more for those that have no binary form.
    async fn copy(&mut self, feed: &mut Feed) -> Result<Done, Failure> {
        let mut done = self.copy_once(feed).await?;
        if !feed.left.is_empty() {
            feed.types = None;
            done.rows += self.copy_once(feed).await?.rows;
            done.tag = format!("COPY {}", done.rows);
        }
        Ok(done)
    }

    async fn copy_once(&mut self, feed: &mut Feed) -> Result<Done, Failure> {
        let form = if feed.types.is_some() { " (FORMAT binary)" } else { "" };
        let sql = format!("COPY {} FROM STDIN{form}", feed.into);
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
        match self.feed(feed).await {
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

    /// Passes rows on until the last part, or the first row that has no binary form.
    async fn feed(&mut self, feed: &mut Feed) -> Result<(), Failure> {
        if feed.types.is_some() {
            feed.data.extend_from_slice(BINARY_BEGIN);
        }
        let mut rows = std::mem::take(&mut feed.left);
        loop {
            if self.feed_rows(feed, rows).await? {
                break;
            }
            rows = match self.next_part(feed.id).await {
                Next::Part(Bulk::Rows { sequence, rows }) => {
                    if sequence != feed.expected {
                        let expected = feed.expected;
                        let text = format!("part {sequence} of a bulk insert, expected {expected}");
                        return Err(errors::refusal("08P01", "PROTOCOL_VIOLATION", text));
                    }
                    feed.expected = feed.expected.wrapping_add(1);
                    rows
                }
                Next::Part(Bulk::End) => break,
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
        }
        if feed.types.is_some() {
            feed.data.extend_from_slice(&BINARY_END);
        }
        self.pass(&mut feed.data).await;
        Ok(())
    }

    /// Passes the rows of one part on; true = one has no binary form, and is left with those after
    /// it.
    async fn feed_rows(&mut self, feed: &mut Feed, rows: Vec<Vec<Value>>) -> Result<bool, Failure> {
        let mut rows = rows.into_iter();
        while let Some(row) = rows.next() {
            if !feed.put_row(&row)? {
                feed.left.push(row);
                feed.left.extend(rows);
                return Ok(true);
            }
            if feed.data.len() >= ROOM {
                self.pass(&mut feed.data).await;
            }
        }
        self.pass(&mut feed.data).await;
        Ok(false)
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

impl Feed {
    fn new(id: u64, into: String) -> Self {
        let (data, left) = (Vec::new(), Vec::new());
        Self { id, into, types: None, expected: 0, number: 0, data, left }
    }

    /// Appends a row; false = it has no binary form, and nothing was appended.
    fn put_row(&mut self, row: &[Value]) -> Result<bool, Failure> {
        let at = self.data.len();
        let put = match &self.types {
            None => put_copy_row(&mut self.data, row).map(|()| true),
            // PostgreSQL says what is wrong with a row of another length.
            Some(types) if types.len() != row.len() => Ok(false),
            Some(types) => put_binary_row(&mut self.data, row, types),
        };
        let is_put = put.map_err(|bad| {
            let mut failure = errors::of_value(bad);
            failure.detail = Some(format!("row {}", self.number + 1));
            failure
        })?;
        match is_put {
            true => self.number += 1,
            false => self.data.truncate(at),
        }
        Ok(is_put)
    }
}

fn put_binary_row(data: &mut Vec<u8>, row: &[Value], types: &[u32]) -> Result<bool, BadValue> {
    // Bounded by the columns that a table can have.
    data.extend_from_slice(&(row.len() as u16).to_be_bytes());
    for (value, column) in row.iter().zip(types) {
        if !put_copy_field(data, value, *column)? {
            return Ok(false);
        }
    }
    Ok(true)
}
