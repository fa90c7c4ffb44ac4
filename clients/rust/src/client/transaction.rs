//! Transactions and savepoints.

use std::ops::Deref;

use super::connection::Connection;
use super::pool::PooledConnection;
use super::replies::unexpected;
use crate::error::{Error, Result};
use crate::protocol::{Isolation, Message, TxStatus};

/// How a transaction runs; None = as the session says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransactionOptions {
    /// Isolation level.
    pub isolation: Option<Isolation>,
    /// Whether it may only read.
    pub read_only: Option<bool>,
    /// Whether a serializable one that only reads waits until it cannot fail.
    pub deferrable: Option<bool>,
}

/// A transaction, or what happens after a savepoint in it. Everything that a [`Connection`] can do
/// is done inside of it. Dropped without [`Transaction::commit`], it is rolled back.
pub struct Transaction<'c> {
    home: Home<'c>,
    id: u64,
    /// None = the transaction itself.
    savepoint: Option<String>,
    is_open: bool,
}

/// Whose connection it is.
pub(super) enum Home<'c> {
    Borrowed(&'c Connection),
    Pooled(PooledConnection),
}

impl Deref for Home<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Borrowed(connection) => connection,
            Self::Pooled(connection) => connection,
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.home
    }
}

impl<'c> Transaction<'c> {
    pub(super) async fn begin(home: Home<'c>, options: &TransactionOptions) -> Result<Self> {
        let begin = Message::Begin {
            isolation: options.isolation,
            read_only: options.read_only,
            deferrable: options.deferrable,
        };
        // Made first, so that a begin whose answer is not waited for is rolled back too.
        let mut transaction = Self { home, id: 0, savepoint: None, is_open: true };
        match transaction.home.ask(&begin).await {
            Ok(Message::TransactionStarted { transaction_id }) => {
                transaction.id = transaction_id;
                transaction.home.link.note(TxStatus::InTransaction);
                Ok(transaction)
            }
            Ok(_) => Err(unexpected()),
            Err(e) => {
                transaction.is_open = matches!(e, Error::Timeout(_));
                Err(e)
            }
        }
    }

    /// The server's number for the transaction.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sets a savepoint. What is done by the returned object is kept by its `commit`, and undone by
    /// its `rollback` or when it is dropped, without the rest of the transaction.
    ///
    /// # Errors
    /// What PostgreSQL says, or that the connection is lost.
    pub async fn savepoint(&mut self, name: &str) -> Result<Transaction<'_>> {
        let savepoint = Message::Savepoint { name: name.to_owned(), release: false };
        self.home.command(&savepoint).await?;
        Ok(Transaction {
            home: Home::Borrowed(&self.home),
            id: self.id,
            savepoint: Some(name.to_owned()),
            is_open: true,
        })
    }

    /// Keeps what was done. A transaction in which something had failed is rolled back by the
    /// server, which is an error here (`25P02`).
    ///
    /// # Errors
    /// What PostgreSQL says, or that the connection is lost.
    pub async fn commit(mut self) -> Result<()> {
        if let Some(name) = self.savepoint.clone() {
            // Refused where something had failed; then it is rolled back by the drop.
            self.home.command(&Message::Savepoint { name, release: true }).await?;
            self.is_open = false;
            return Ok(());
        }
        self.is_open = false;
        match self.home.ask(&Message::Commit { and_chain: false }).await? {
            Message::Ok { command_tag, transaction_status, .. } => {
                self.home.link.note(transaction_status);
                match command_tag.as_deref() {
                    Some("ROLLBACK") => Err(failed()),
                    _ => Ok(()),
                }
            }
            _ => Err(unexpected()),
        }
    }

    /// Undoes what was done.
    ///
    /// # Errors
    /// That the connection is lost.
    pub async fn rollback(mut self) -> Result<()> {
        self.is_open = false;
        let savepoint = self.savepoint.take();
        self.home.command(&rollback(savepoint.as_deref())).await?;
        if let Some(name) = savepoint {
            // A savepoint stays when it is rolled back to.
            self.home.command(&Message::Savepoint { name, release: true }).await?;
        }
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let link = &self.home.link;
        link.detached(&rollback(self.savepoint.as_deref()));
        match self.savepoint.take() {
            Some(name) => link.detached(&Message::Savepoint { name, release: true }),
            None => link.note(TxStatus::Idle),
        }
    }
}

fn rollback(to: Option<&str>) -> Message {
    Message::Rollback { to_savepoint: to.map(str::to_owned), and_chain: false }
}

fn failed() -> Error {
    let text = "the transaction had failed and was rolled back";
    let severity = crate::protocol::Severity::Error;
    crate::protocol::ErrorBody::new(severity, "25P02", "TRANSACTION_FAILED", text).into()
}
