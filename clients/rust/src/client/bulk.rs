//! Many rows for one table.

use super::pool::PooledConnection;
use super::replies::{BULK, done};
use crate::error::{Error, Result};
use crate::link::{Kind, Link, Pending};
use crate::protocol::frame::flags;
use crate::protocol::wire::{Wire, Writer};
use crate::protocol::{Bulk, Message, OnConflict};
use crate::types::to::BulkRow;

/// Rows are sent when there are so many bytes of them.
const FRAME: usize = 64 << 10;

/// A bulk insert. Dropped before [`BulkInsert::finish`], nothing of it is inserted.
pub struct BulkInsert {
    pending: Pending,
    /// Encoded rows that wait to be sent.
    rows: Vec<u8>,
    count: u64,
    sequence: u32,
    _connection: Option<PooledConnection>,
}

pub(super) async fn begin(
    link: &Link,
    table: &str,
    columns: &[&str],
    on_conflict: OnConflict,
) -> Result<BulkInsert> {
    let (schema, table) = split_name(table)?;
    let columns = columns.iter().map(|&column| column.to_owned()).collect();
    let start = Message::BulkInsert(Bulk::Start { schema, table, columns, on_conflict });
    let body = |out: &mut Writer<'_>| start.encode(out);
    let pending = link.request(Kind::BULK, &body).await?;
    Ok(BulkInsert { pending, rows: Vec::new(), count: 0, sequence: 0, _connection: None })
}

impl BulkInsert {
    pub(super) fn on(mut self, connection: PooledConnection) -> Self {
        self._connection = Some(connection);
        self
    }

    /// Adds a row; it is sent together with others. Waits while the server has no room.
    ///
    /// # Errors
    /// Why the insert has failed: what PostgreSQL says may concern rows from long before.
    pub async fn row(&mut self, row: &impl BulkRow) -> Result<()> {
        row.write_row(&mut Writer::new(&mut self.rows));
        self.count += 1;
        match self.rows.len() >= FRAME {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Sends the rows that wait.
    ///
    /// # Errors
    /// As [`BulkInsert::row`].
    pub async fn flush(&mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let (sequence, count, rows) = (self.sequence, self.count, &self.rows);
        let body = |out: &mut Writer<'_>| {
            out.variant(BULK);
            out.variant(1);
            sequence.encode(out);
            out.unsigned(count);
            out.raw(rows);
        };
        if !self.pending.send(flags::MORE, &body).await? {
            return Err(self.refused().await);
        }
        self.sequence += 1;
        self.count = 0;
        self.rows.clear();
        Ok(())
    }

    /// Inserts everything; returns how many rows were inserted.
    ///
    /// # Errors
    /// Why nothing was inserted.
    pub async fn finish(mut self) -> Result<u64> {
        self.flush().await?;
        let body = |out: &mut Writer<'_>| Message::BulkInsert(Bulk::End).encode(out);
        if !self.pending.send(0, &body).await? {
            return Err(self.refused().await);
        }
        let done = done(&self.pending.reply().await?)?;
        self.pending.note(done.status);
        Ok(done.affected_rows)
    }

    /// The reply that came too early.
    async fn refused(&mut self) -> Error {
        let reply = match self.pending.reply().await {
            Ok(reply) => reply,
            Err(error) => return error,
        };
        match done(&reply) {
            Err(error) => error,
            Ok(_) => Error::Usage("the server ended the insert early".into()),
        }
    }
}

/// Schema and table of a name as in SQL: what is not quoted is folded to lower case.
fn split_name(name: &str) -> Result<(Option<String>, String)> {
    let wrong = || Error::Usage(format!("{name} is no name of a table"));
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let part = parts.last_mut().ok_or_else(wrong)?;
        match c {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => part.push('"'),
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            _ if is_quoted => part.push(c),
            _ => part.extend(c.to_lowercase()),
        }
    }
    if is_quoted || parts.iter().any(String::is_empty) {
        return Err(wrong());
    }
    let table = parts.pop().ok_or_else(wrong)?;
    match parts.len() {
        0 | 1 => Ok((parts.pop(), table)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_in_sql() {
        let split = |name| split_name(name).ok();
        let some = |schema: &str, table: &str| Some((Some(schema.to_owned()), table.to_owned()));
        assert_eq!(split("Users"), Some((None, "users".into())));
        assert_eq!(split("a.B"), some("a", "b"));
        assert_eq!(split(r#""A.b"."c""d""#), some("A.b", "c\"d"));
        for name in ["", "a.", ".a", "a.b.c", "\"a"] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
