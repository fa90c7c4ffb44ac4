//! Batch: several statements, each with its own reply; together or one by one.

use super::exchange::parameter_types;
use super::query::Run;
use super::response::Response;
use super::{Done, Failure, Translator};
use crate::frontend::native::errors;
use crate::proto::backend::TxStatus;
use crate::proto::native::{Message, Query, Severity, Wire, Writer};

impl Translator {
    pub(super) async fn batch(
        &mut self,
        id: u64,
        queries: Vec<Query>,
        atomic: bool,
        stop_on_error: bool,
    ) -> Result<(), Failure> {
        let most = self.config.now().native.max_batch_statements as usize;
        if queries.len() > most {
            let text = format!("a batch of more than {most} statements");
            return Err(errors::too_large(text, "send several batches"));
        }
        if queries.is_empty() {
            return self.ok(id, Done::default()).await;
        }
        for query in &queries {
            self.check_sql(&query.sql)?;
        }
        match atomic {
            true => self.together(id, &queries).await,
            false => self.one_by_one(id, &queries, stop_on_error).await,
        }
    }

    /// One transaction, or a part of the one that is open; the first error undoes it.
    async fn together(&mut self, id: u64, queries: &[Query]) -> Result<(), Failure> {
        let begins = self.tx() == TxStatus::Idle;
        self.command(if begins { "BEGIN" } else { "SAVEPOINT rustydb_batch" }).await?;
        let last = queries.len() - 1;
        for (at, query) in queries.iter().enumerate() {
            let result = self.member(id, at, query, at != last).await;
            let (response, done) = match result {
                Ok(result) => result,
                Err(failure) => return self.undo(begins, failure).await,
            };
            if at == last {
                // Only when everything is certain the last reply goes out.
                self.forget_cancel().await;
                let end = if begins { "COMMIT" } else { "RELEASE SAVEPOINT rustydb_batch" };
                return match self.command(end).await {
                    Ok(_) => self.conclude_response(response, &done).await,
                    Err(failure) => self.undo(begins, failure).await,
                };
            }
            self.conclude_response(response, &done).await?;
        }
        Ok(())
    }

    async fn undo(&mut self, begins: bool, failure: Failure) -> Result<(), Failure> {
        if failure.severity != Severity::Error {
            return Err(failure);
        }
        self.settle().await.or(Ok::<(), Failure>(()))?;
        if self.tx() != TxStatus::Idle {
            self.forget_cancel().await;
            let back = "ROLLBACK TO SAVEPOINT rustydb_batch; RELEASE SAVEPOINT rustydb_batch";
            self.command(if begins { "ROLLBACK" } else { back }).await?;
        }
        Err(failure)
    }

    async fn one_by_one(
        &mut self,
        id: u64,
        queries: &[Query],
        stop_on_error: bool,
    ) -> Result<(), Failure> {
        let last = queries.len() - 1;
        for (at, query) in queries.iter().enumerate() {
            let mut failure = match self.member(id, at, query, at != last).await {
                Ok((response, done)) => {
                    self.conclude_response(response, &done).await?;
                    continue;
                }
                Err(failure) => failure,
            };
            // A statement whose time was up has failed as any other; a cancel is that of all.
            let cancelled = self.core.lock().current.as_ref().is_some_and(|c| c.is_cancelled);
            if failure.severity != Severity::Error || stop_on_error || at == last || cancelled {
                return Err(failure);
            }
            if let Err(later) = self.settle().await
                && later.severity != Severity::Error
            {
                return Err(later);
            }
            self.mark(id, &mut failure);
            let message = Message::Error(failure);
            let write = |out: &mut Vec<u8>| message.encode(&mut Writer::new(out));
            self.core.reply(true, id, 0, write).await.map_err(errors::of_violation)?;
        }
        Ok(())
    }

    async fn member(
        &mut self,
        id: u64,
        at: usize,
        query: &Query,
        more: bool,
    ) -> Result<(Response, Done), Failure> {
        self.begin_statement(query.options.as_ref()).await?;
        let was = self.enter_read_only(&query.sql, query.options.as_ref()).await?;
        let result = self.run_member(id, at, query, more).await;
        self.leave_read_only(was, result).await
    }

    async fn run_member(
        &mut self,
        id: u64,
        at: usize,
        query: &Query,
        more: bool,
    ) -> Result<(Response, Done), Failure> {
        let run = Run {
            sql: &query.sql,
            params: &query.params,
            types: parameter_types(&query.params, &query.param_types),
            max_rows: query.options.as_ref().map_or(0, |options| options.max_rows),
            is_last: true,
            is_alone: true,
        };
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        let mut response = self.response(id, index, more);
        let done = self.run(&run, &mut response).await?;
        self.settle().await?;
        Ok((response, done))
    }
}
