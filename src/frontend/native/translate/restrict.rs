//! What surrounds a statement: that it may only read, and for how long it may run.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use super::{Failure, Translator};
use crate::frontend::native::errors;
use crate::proto::backend::TxStatus;
use crate::proto::native::{QueryOptions, Severity};
use crate::query::controls_transaction;

impl Translator {
    /// Begins to run statements that may only read, if the options say so; returns how the session
    /// stood. In a subtransaction, so that they cannot make it one that writes.
    pub(super) async fn enter_read_only(
        &mut self,
        sql: &str,
        options: Option<&QueryOptions>,
    ) -> Result<Option<TxStatus>, Failure> {
        if !options.is_some_and(|options| options.read_only) {
            return Ok(None);
        }
        if controls_transaction(sql) {
            let text = "read_only statements cannot begin, end or divide a transaction";
            return Err(errors::refusal("25001", "VALIDATION_ERROR", text));
        }
        let was = self.tx();
        match was {
            TxStatus::Idle => self.command("BEGIN READ ONLY; SAVEPOINT rustydb_read_only").await?,
            _ => self.command("SAVEPOINT rustydb_read_only; SET TRANSACTION READ ONLY").await?,
        };
        Ok(Some(was))
    }

    /// Ends it. What only read can be undone without a loss, and with it the restriction.
    pub(super) async fn leave_read_only<T>(
        &mut self,
        was: Option<TxStatus>,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(was) = was else { return result };
        if result.as_ref().is_err_and(|failure| failure.severity != Severity::Error) {
            return result;
        }
        self.settle().await.or_else(|later| match later.severity {
            Severity::Error => Ok(()),
            _ => Err(later),
        })?;
        let sql = match (was, result.is_ok()) {
            (TxStatus::Idle, true) => "COMMIT",
            (TxStatus::Idle, false) => "ROLLBACK",
            (_, true) => "ROLLBACK TO rustydb_read_only; RELEASE rustydb_read_only",
            // The transaction has failed, as it would have without the restriction.
            (_, false) => return result,
        };
        let is_cancelled = self.forget_cancel().await;
        let ended = self.command(sql).await;
        if let Some(current) = &mut self.core.lock().current {
            current.is_cancelled = is_cancelled;
        }
        ended.and(result)
    }

    /// What follows is ours, and is not to be cancelled; returns whether the client wanted that.
    pub(super) async fn forget_cancel(&self) -> bool {
        self.past_cancel().await;
        let mut state = self.core.lock();
        let Some(current) = &mut state.current else { return false };
        (current.timed_out, current.deadline) = (false, None);
        std::mem::take(&mut current.is_cancelled)
    }

    /// Waits until no cancel request is on its way: it would meet what comes next.
    async fn past_cancel(&self) {
        poll_fn(|_| match self.core.lock().is_cancelling {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// A statement of several begins: its time is its own, a cancel is that of all.
    pub(super) async fn begin_statement(
        &mut self,
        options: Option<&QueryOptions>,
    ) -> Result<(), Failure> {
        self.past_cancel().await;
        if let Some(current) = &mut self.core.lock().current {
            (current.timed_out, current.deadline) = (false, None);
        }
        self.check_cancelled()?;
        self.began = Instant::now();
        self.apply(options);
        Ok(())
    }
}
