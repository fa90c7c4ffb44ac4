//! A program's `COPY … FROM STDIN` in a session.

use super::{Session, held};
use crate::error::Result;
use crate::executor::copy;
use crate::executor::typed::local_sql;
use crate::proto::backend::CommandTag;

impl Session {
    /// Makes ready for COPYs that count together: begins a transaction with these settings, or has
    /// them hold in the one that is open. Gives whether it was begun; then
    /// [`Session::end_transaction`] ends it.
    ///
    /// # Errors
    /// PostgreSQL's, or there is no connection; a transaction that was begun is over then.
    pub async fn begin_copies(&mut self, settings: &[(&str, &str)]) -> Result<bool> {
        self.ask.as_ref().map_or(Ok(()), |ask| ask())?;
        self.attach_typed().await?;
        let begins = !self.is_in_transaction();
        // Not together with a COPY, for whose time-out PostgreSQL would not look at them.
        let sql = format!("{}{}", if begins { "BEGIN;" } else { "" }, local_sql(settings));
        // What triggers do is nobody's who comes after.
        self.dirty = true;
        let conn = held(&mut self.lease)?.conn();
        conn.inbound.consume_scanned();
        let begun = conn.simple(&sql, |_| {}).await;
        let begun = self.note_failure(begun);
        if begins && begun.is_err() && self.is_in_transaction() {
            self.end_transaction(false).await?;
        }
        begun.map(|()| begins)
    }

    /// Begins a COPY into a table, after [`Session::begin_copies`]. Other statements may stand
    /// around it.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn copy_in(&mut self, sql: &str) -> Result<()> {
        self.finish_work();
        let admitted = self.executor.admit(self.entry.protocol, sql.as_bytes(), &self.entry.tally);
        self.work = Some(admitted);
        let begun = copy::begin(held(&mut self.lease)?.conn(), sql).await;
        self.note_failure(begun)
    }

    /// Sends data.
    ///
    /// # Errors
    /// PostgreSQL has refused what it got; the COPY is over then.
    pub async fn copy_write(&mut self, data: &[u8]) -> Result<()> {
        let written = copy::write(held(&mut self.lease)?.conn(), data).await;
        self.note_failure(written)
    }

    /// Ends the data; gives the number of rows.
    ///
    /// # Errors
    /// PostgreSQL's: no row is there then.
    pub async fn copy_end(&mut self) -> Result<u64> {
        let ended = copy::end(held(&mut self.lease)?.conn()).await;
        let rows = self.note_failure(ended)?;
        if let Some(work) = &mut self.work {
            work.completed(CommandTag { command: "COPY", rows });
        }
        Ok(rows)
    }

    /// Gives up: no row is there.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn copy_fail(&mut self) -> Result<()> {
        copy::fail(held(&mut self.lease)?.conn()).await
    }
}
