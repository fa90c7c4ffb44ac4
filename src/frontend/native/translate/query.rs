//! Query: SQL text, with parameters one statement, without as many as there are.

use super::exchange::{
    parameter_types, parameters, put_bind, put_describe, put_execute, put_flush, put_parse,
};
use super::known::{self, Formats};
use super::response::Response;
use super::{Done, Failure, Translator};
use crate::frontend::native::errors;
use crate::proto::backend::TxStatus;
use crate::proto::frontend;
use crate::proto::native::{Query, Severity, Value, Wire, Writer};
use crate::query::statements;

/// What a SimpleReply with rows begins with.
const SIMPLE_REPLY: u32 = 28;

/// Whether PostgreSQL has refused a Bind because the columns are others by now: their number is
/// another, or a prepared statement would have to give them; or because the statement was
/// deallocated. That a type has no binary form it says
/// with the first row; what was done before is undone then.
pub(super) fn is_outdated(failure: &Failure, response: &Response) -> bool {
    let is_refused = match failure.sqlstate.as_str() {
        "08P01" | "0A000" | "26000" => !response.rows.is_bound,
        "42883" => failure.message.starts_with("no binary output function"),
        _ => false,
    };
    is_refused && failure.severity == Severity::Error
}

/// One statement and what it runs with.
pub(super) struct Run<'a> {
    pub(super) sql: &'a str,
    pub(super) params: &'a [Value],
    pub(super) types: Vec<u32>,
    /// 0 = all.
    pub(super) max_rows: u32,
    /// Nothing else follows before ReadyForQuery.
    pub(super) is_last: bool,
    /// Nor did anything come before it since then.
    pub(super) is_alone: bool,
}

impl Translator {
    pub(super) async fn query(&mut self, id: u64, query: Query) -> Result<(), Failure> {
        self.check_sql(&query.sql)?;
        self.apply(query.options.as_ref());
        let was = self.enter_read_only(&query.sql, query.options.as_ref()).await?;
        let result = self.all_statements(id, &query, false).await;
        let (response, done) = self.leave_read_only(was, result).await?;
        self.conclude_response(response, &done).await
    }

    /// The reply of the first protocol: the last statement's rows, names for columns.
    pub(super) async fn simple_query(&mut self, id: u64, sql: &str) -> Result<(), Failure> {
        self.check_sql(sql)?;
        let query =
            Query { sql: sql.into(), params: Vec::new(), param_types: Vec::new(), options: None };
        let (response, done) = self.all_statements(id, &query, true).await?;
        let write = |out: &mut Vec<u8>| {
            let mut w = Writer::new(out);
            w.variant(SIMPLE_REPLY);
            w.variant(0);
            response.columns.names.encode(&mut w);
            w.unsigned(response.rows.count);
            w.raw(&response.rows.bytes);
            w.unsigned(done.rows);
        };
        self.core.reply(false, id, 0, write).await.map_err(errors::of_violation)
    }

    /// Text that may be a statement.
    pub(super) fn check_sql(&self, sql: &str) -> Result<(), Failure> {
        let longest = self.config.now().network.max_request_size.len();
        if sql.len() > longest {
            let text = format!("the SQL text is longer than {longest} bytes");
            return Err(errors::too_large(text, "pass values as parameters, or use BulkInsert"));
        }
        match sql.contains('\0') {
            true => {
                Err(errors::refusal("22021", "VALIDATION_ERROR", "a NUL character in SQL text"))
            }
            false => Ok(()),
        }
    }

    /// Runs what a query has; the last result is returned, those before it are sent, unless only
    /// the last one counts.
    async fn all_statements(
        &mut self,
        id: u64,
        query: &Query,
        only_last: bool,
    ) -> Result<(Response, Done), Failure> {
        let max_rows = query.options.as_ref().map_or(0, |options| options.max_rows);
        let parts = match query.params.is_empty() && query.param_types.is_empty() {
            true => statements(&query.sql),
            false => Vec::new(),
        };
        if parts.len() < 2 {
            return self.one_statement(id, query, max_rows, only_last).await;
        }
        let last = parts.len() - 1;
        for (at, range) in parts.into_iter().enumerate() {
            let run = Run {
                sql: &query.sql[range.clone()],
                params: &[],
                types: Vec::new(),
                max_rows,
                is_last: at == last,
                is_alone: false,
            };
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let mut response = self.response(id, index, at != last);
            response.set_whole(only_last);
            let done = match self.run(&run, &mut response).await {
                Ok(done) => done,
                Err(mut failure) => {
                    // Positions count from the beginning of the whole text.
                    let before = query.sql[..range.start].chars().count();
                    let before = u32::try_from(before).unwrap_or(0);
                    failure.position = failure.position.map(|position| position + before);
                    return Err(failure);
                }
            };
            if at == last {
                self.settle().await?;
                return Ok((response, done));
            }
            if !only_last {
                self.conclude_response(response, &done).await?;
            }
        }
        Err(errors::of_error_text("a query without a last statement"))
    }

    async fn one_statement(
        &mut self,
        id: u64,
        query: &Query,
        max_rows: u32,
        whole: bool,
    ) -> Result<(Response, Done), Failure> {
        let types = parameter_types(&query.params, &query.param_types);
        let run = Run {
            sql: &query.sql,
            params: &query.params,
            types,
            max_rows,
            is_last: true,
            is_alone: true,
        };
        let mut response = self.response(id, 0, false);
        response.set_whole(whole);
        let done = self.run(&run, &mut response).await?;
        self.settle().await?;
        Ok((response, done))
    }

    /// Runs one statement and takes its rows.
    pub(super) async fn run(
        &mut self,
        run: &Run<'_>,
        response: &mut Response,
    ) -> Result<Done, Failure> {
        let parameters = parameters(run.params, &run.types)?;
        let key = known::key(run.sql, &run.types);
        if let Some(formats) = self.known.get(key).cloned() {
            let result = self.run_with(run, &parameters, &formats, response).await;
            if result.is_err() || response.rows.has_unknown {
                // The table may have other columns by now.
                self.known.forget(key);
            }
            match result {
                Err(failure) if self.may_run_again(run, &failure, response) => {
                    self.settle().await?
                }
                result => return result,
            }
        }
        let described = self.describe(run.sql, &run.types).await?;
        let formats = self.formats(&described);
        self.known.learn(key, formats.clone());
        let result = self.run_with(run, &parameters, &formats, response).await;
        if result.is_err() {
            self.known.forget(key);
        }
        result
    }

    /// Whether a statement has failed because its columns are others than those that were known,
    /// and has done nothing.
    pub(super) fn may_run_again(
        &self,
        run: &Run<'_>,
        failure: &Failure,
        response: &Response,
    ) -> bool {
        run.is_alone && is_outdated(failure, response) && self.is_free()
    }

    /// Outside of a transaction, which an error would have ended.
    pub(super) fn is_free(&self) -> bool {
        self.tx() == TxStatus::Idle
    }

    /// Runs one statement whose columns are known.
    pub(super) async fn run_with(
        &mut self,
        run: &Run<'_>,
        parameters: &[u8],
        formats: &Formats,
        response: &mut Response,
    ) -> Result<Done, Failure> {
        self.check_cancelled()?;
        let write = |out: &mut Vec<u8>| {
            put_parse(out, run.sql, &run.types);
            put_bind(out, parameters, formats);
            put_describe(out);
            put_execute(out, run.max_rows);
            match run.is_last {
                true => frontend::put_sync(out),
                false => put_flush(out),
            }
        };
        match run.is_last {
            true => self.send_closed(write),
            false => self.send_open(write),
        }
        self.collect(response).await
    }
}
