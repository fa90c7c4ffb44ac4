//! A program's `COPY … FROM STDIN` in a session.

use super::{Session, held};
use crate::error::Result;
use crate::executor::copy;
use crate::proto::backend::CommandTag;
use crate::query::quote_literal;

impl Session {
    /// Begins a COPY into a table, in a transaction with these settings unless one is open. Other
    /// statements may stand around it; they are one transaction with it.
    ///
    /// # Errors
    /// PostgreSQL's, or there is no connection.
    pub async fn copy_in(&mut self, sql: &str, settings: &[(&str, &str)]) -> Result<()> {
        self.ask.as_ref().map_or(Ok(()), |ask| ask())?;
        let admitted = self.executor.admit(self.entry.protocol, sql.as_bytes(), &self.entry.tally);
        self.work = Some(admitted);
        self.attach_typed().await?;
        let mut text = String::new();
        for (name, value) in settings {
            let (name, value) = (quote_literal(name), quote_literal(value));
            text += &format!("SELECT pg_catalog.set_config({name}, {value}, true);");
        }
        // Statements that are sent together are one transaction.
        text += sql;
        // What its triggers do is nobody's who comes after.
        self.dirty = true;
        let conn = held(&mut self.lease)?.conn();
        let begun = copy::begin(conn, &text).await;
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
