//! `POST /api/v1/batch`: many statements, together or one by one; and the plans of statements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::{self, ApiResult};
use super::super::extract::{Caller, JsonBody};
use super::super::fetch::{self, Fetched};
use super::super::open::Hold;
use super::super::running::timed_out;
use super::super::{HttpDoor, InWork, answer, pipeline};
use super::Routes;
use super::query::{NumberOrString, RowFormat, named};
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;

/// Milliseconds that PostgreSQL can wait at most.
const LONGEST_TIMEOUT: u64 = i32::MAX as u64;

/// Time for PostgreSQL to stop a statement itself.
const GRACE: Duration = Duration::from_secs(2);

/// Statements of a batch.
const MAX_STATEMENTS: usize = 1000;

/// What ends an EXPLAIN within a transaction.
const UNDO: [&str; 2] =
    ["ROLLBACK TO SAVEPOINT rustydb_explain", "RELEASE SAVEPOINT rustydb_explain"];

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(execute_batch)).routes(routes!(explain_query))
}

/// Statements to be run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchRequest {
    /// The statements in order.
    #[schema(min_items = 1, max_items = 1000)]
    statements: Vec<BatchStatement>,
    /// All in one transaction: one that fails undoes the others.
    #[serde(default = "yes")]
    atomic: bool,
    /// Whether a statement that fails is the last one; of an atomic batch it always is.
    #[serde(default = "yes")]
    stop_on_error: bool,
    /// Runs in this transaction, as the header X-Transaction-Id says too; an atomic batch that
    /// fails then undoes its own statements, and the transaction goes on.
    transaction_id: Option<u64>,
    /// Another database than api.database.
    database: Option<String>,
}

fn yes() -> bool {
    true
}

/// A statement of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a statement is a string, or an object with sql and params")]
enum BatchStatement {
    /// The statement alone.
    Text(String),
    /// With parameters.
    WithParams(ParamStatement),
}

/// A statement with parameters.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ParamStatement {
    /// One statement.
    sql: String,
    /// Values of `$1`, `$2`, …
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    params: Vec<serde_json::Value>,
}

impl BatchStatement {
    fn parts(&self) -> (&str, &[serde_json::Value]) {
        match self {
            BatchStatement::Text(sql) => (sql, &[]),
            BatchStatement::WithParams(statement) => (&statement.sql, &statement.params),
        }
    }
}

/// What a statement of a batch gave.
#[derive(Serialize, ToSchema)]
struct BatchResult {
    /// Its place, from 0.
    index: usize,
    /// Whether it succeeded, and was not rolled back with an atomic batch.
    success: bool,
    /// Rows that were inserted, changed or deleted.
    affected_rows: u64,
    /// Rows that were returned.
    row_count: u64,
    /// The rows, if it returns any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>, nullable = false)]
    rows: Option<Vec<Box<RawValue>>>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    error: Option<serde_json::Value>,
}

/// What a batch gave.
#[derive(Serialize, ToSchema)]
struct BatchAnswer {
    /// One for each statement that was run.
    results: Vec<BatchResult>,
    /// How many succeeded; of an atomic batch that failed, none.
    succeeded: usize,
    /// How many failed, were undone, or were not run.
    failed: usize,
    /// From the request to the end.
    execution_time_ms: f64,
}

/// Run many statements
///
/// In one transaction unless said otherwise. A statement that fails is told in its place; the
/// status is 200 all the same. Each statement counts as a request for the rate limits.
#[utoipa::path(
    post, path = "/api/v1/batch", tag = "query", request_body = BatchRequest,
    responses((status = 200, description = "What each statement gave.", body = BatchAnswer))
)]
async fn execute_batch(
    State(door): State<Arc<HttpDoor>>,
    Extension(in_work): Extension<InWork>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(batch): JsonBody<BatchRequest>,
) -> ApiResult {
    let begun = Instant::now();
    let count = batch.statements.len();
    if !(1..=MAX_STATEMENTS).contains(&count) {
        let text = format!("a batch has 1 to {MAX_STATEMENTS} statements");
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    pipeline::charge(&door, &caller, &in_work, "/api/v1/batch", count - 1)?;
    let database = batch.database.as_deref();
    let mut hold = Hold::of(&door, &caller, &headers, batch.transaction_id, database)?;
    let bond = Bond::of(batch.atomic, hold.session()?.is_in_transaction());
    let mut results = Vec::with_capacity(count);
    let opened = run_all(&door, &caller, hold.session()?, &batch, bond, &mut results).await;
    let is_own = hold.is_own();
    hold.finish();
    if let Some(from) = opened?.filter(|_| is_own) {
        let text = "it was rolled back, because nothing ended the transaction: say COMMIT at last, \
                    or POST /api/v1/transactions";
        let undone = results.iter_mut().skip(from).filter(|result| result.success);
        undone.for_each(|result| result.undone(&caller, text.into()));
    }
    let succeeded = results.iter().filter(|result| result.success).count();
    let execution_time_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let failed = count - succeeded;
    Ok(answer(StatusCode::OK, &BatchAnswer { results, succeeded, failed, execution_time_ms }))
}

/// What makes the statements of a batch one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    /// Nothing: each is for itself.
    None,
    /// A transaction of the batch's own.
    Transaction,
    /// A savepoint, because the client's transaction is open already, and stays his.
    Savepoint,
}

impl Bond {
    fn of(atomic: bool, is_in_transaction: bool) -> Self {
        match (atomic, is_in_transaction) {
            (false, _) => Self::None,
            (true, false) => Self::Transaction,
            (true, true) => Self::Savepoint,
        }
    }

    /// What begins it, what undoes it, and what ends it otherwise.
    fn statements(self) -> [&'static [&'static str]; 3] {
        const RELEASE: &str = "RELEASE SAVEPOINT rustydb_batch";
        match self {
            Self::None => [&[], &[], &[]],
            Self::Transaction => [&["BEGIN"], &["ROLLBACK"], &["COMMIT"]],
            Self::Savepoint => [
                &["SAVEPOINT rustydb_batch"],
                &["ROLLBACK TO SAVEPOINT rustydb_batch", RELEASE],
                &[RELEASE],
            ],
        }
    }
}

async fn run_each(door: &HttpDoor, session: &mut Session, statements: &[&str]) -> Result<()> {
    for sql in statements {
        fetch::run(door, session, sql, &[]).await?;
    }
    Ok(())
}

/// Runs the statements; gives the first one of a transaction that they have left open.
async fn run_all(
    door: &HttpDoor,
    caller: &Caller,
    session: &mut Session,
    batch: &BatchRequest,
    bond: Bond,
    results: &mut Vec<BatchResult>,
) -> Result<Option<usize>> {
    let [begin, undo, end] = bond.statements();
    run_each(door, session, begin).await?;
    let (mut size, mut opened) = (0, None);
    for (index, statement) in batch.statements.iter().enumerate() {
        let (sql, params) = statement.parts();
        let ran = match bond != Bond::None && ends_transaction(sql) {
            true => Err(Error::sql(b"2D000", "an atomic batch is a transaction already")
                .with_kind(ErrorKind::ValidationError)
                .with_hint("leave out BEGIN, COMMIT and ROLLBACK, or send \"atomic\": false")),
            false => fetch::run_bound(door, session, sql, params).await,
        };
        let ran = ran.and_then(|fetched| {
            size += fetched.rows.iter().map(|row| row.get().len()).sum::<usize>();
            fetch::check_size(size).map(|()| fetched)
        });
        let failed = ran.is_err();
        results.push(result(caller, index, ran));
        if failed && bond != Bond::None {
            run_each(door, session, undo).await?;
            let text = || format!("it was rolled back, because statement {index} failed");
            results.iter_mut().take(index).for_each(|result| result.undone(caller, text()));
            return Ok(None);
        }
        opened = session.is_in_transaction().then(|| opened.unwrap_or(index));
        if failed && batch.stop_on_error {
            break;
        }
    }
    run_each(door, session, end).await?;
    Ok(opened.filter(|_| bond == Bond::None))
}

/// Whether a statement would end the transaction that RustyDB has begun.
fn ends_transaction(sql: &str) -> bool {
    let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
    let ends = ["begin", "start", "commit", "end", "rollback", "abort"];
    ends.iter().any(|verb| verb.eq_ignore_ascii_case(word))
        && !sql.to_ascii_lowercase().contains("savepoint")
}

fn result(caller: &Caller, index: usize, ran: Result<Fetched>) -> BatchResult {
    match ran {
        Ok(fetched) => {
            let reads = fetched.returns_rows;
            BatchResult {
                index,
                success: true,
                affected_rows: if fetched.command == "SELECT" { 0 } else { fetched.affected },
                row_count: fetched.rows.len() as u64,
                rows: reads.then_some(fetched.rows),
                error: None,
            }
        }
        Err(failure) => BatchResult {
            index,
            success: false,
            affected_rows: 0,
            row_count: 0,
            rows: None,
            error: Some(error::body(&failure, &caller.id)["error"].take()),
        },
    }
}

impl BatchResult {
    /// What it gave is not there any more.
    fn undone(&mut self, caller: &Caller, text: String) {
        let error = Error::new(ErrorKind::TransactionFailed, text);
        *self = result(caller, self.index, Err(error));
    }
}

/// A statement whose plan is asked for: that of `POST /api/v1/query`, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "what is about rows means nothing for a plan, and is taken all the same"
)]
struct ExplainRequest {
    /// One statement.
    #[serde(default)]
    #[schema(required = false, examples("select 1"))]
    sql: String,
    /// Instead of sql: the name of a prepared statement of the session that X-Session-Id names.
    prepared: Option<String>,
    /// Values of `$1`, `$2`, …
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    params: Vec<serde_json::Value>,
    /// Runs the statement, and rolls it back.
    #[serde(default)]
    analyze: bool,
    /// Counts buffers.
    #[serde(default)]
    buffers: bool,
    /// How the plan is written.
    #[serde(default)]
    format: PlanFormat,
    /// Runs in this transaction, as the header X-Transaction-Id says too; it stays as it was.
    transaction_id: Option<u64>,
    /// Milliseconds after which the statement is stopped.
    #[schema(minimum = 1)]
    timeout_ms: Option<u64>,
    /// Refuses what writes.
    #[serde(default)]
    read_only: bool,
    /// Means nothing for a plan.
    #[schema(minimum = 1)]
    max_rows: Option<u32>,
    /// Means nothing for a plan.
    #[serde(default)]
    row_format: RowFormat,
    /// Means nothing for a plan.
    #[serde(default)]
    numeric: NumberOrString,
    /// Means nothing for a plan.
    int8: Option<NumberOrString>,
    /// Another database than api.database.
    database: Option<String>,
}

impl ExplainRequest {
    fn check(&self) -> Result<()> {
        let text = match (self.sql.trim().is_empty(), &self.prepared) {
            (true, None) => "sql is empty",
            (false, Some(_)) => "sql and prepared exclude each other",
            _ if self.timeout_ms == Some(0) => "timeout_ms must be at least 1",
            _ if self.max_rows == Some(0) => "max_rows must be at least 1",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::ValidationError, text))
    }

    /// Settings of the statement, gone with what it did.
    fn settings(&self) -> Vec<String> {
        let limit = self.timeout_ms.map(|ms| ms.min(LONGEST_TIMEOUT));
        let limit = limit.map(|ms| format!("SET LOCAL statement_timeout = {ms}"));
        let read_only = self.read_only.then(|| "SET LOCAL transaction_read_only = on".to_owned());
        limit.into_iter().chain(read_only).collect()
    }
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum PlanFormat {
    #[default]
    Json,
    Text,
    Xml,
    Yaml,
}

/// A plan.
#[derive(Serialize, ToSchema)]
struct Plan {
    /// A document in JSON; else text.
    #[schema(value_type = Value)]
    plan: Box<RawValue>,
}

/// Explain a statement
///
/// `EXPLAIN`. With `analyze` the statement is run, and what it did is rolled back.
#[utoipa::path(
    post, path = "/api/v1/query/explain", tag = "query", request_body = ExplainRequest,
    responses((status = 200, description = "The plan.", body = Plan))
)]
async fn explain_query(
    State(door): State<Arc<HttpDoor>>,
    Extension(in_work): Extension<InWork>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(mut request): JsonBody<ExplainRequest>,
) -> ApiResult {
    request.check()?;
    if request.timeout_ms.is_some() {
        in_work.has_own_limit();
    }
    let format = match request.format {
        PlanFormat::Json => "JSON",
        PlanFormat::Text => "TEXT",
        PlanFormat::Xml => "XML",
        PlanFormat::Yaml => "YAML",
    };
    let ExplainRequest { analyze, buffers, .. } = &request;
    let explain = format!("EXPLAIN (FORMAT {format}, ANALYZE {analyze}, BUFFERS {buffers}) ");
    let database = request.database.as_deref();
    let mut hold = Hold::of(&door, &caller, &headers, request.transaction_id, database)?;
    let types = match &request.prepared {
        Some(name) => {
            let types;
            (request.sql, types) = named(&hold, name, 0)?;
            types
        }
        None => Vec::new(),
    };
    let sql = format!("{explain}{}", request.sql);
    let explained = undone(&door, hold.session()?, (&sql, &types), &request).await;
    hold.finish();
    let explained = explained.map_err(|error| error.behind(explain.len()))?;
    let plan = plan(&explained, request.format)?;
    Ok(answer(StatusCode::OK, &Plan { plan }))
}

/// Runs a statement, and undoes what it did; a transaction that is open goes on.
async fn undone(
    door: &HttpDoor,
    session: &mut Session,
    statement: (&str, &[u32]),
    request: &ExplainRequest,
) -> Result<Fetched> {
    let (begin, ends): (_, &[&str]) = match session.is_in_transaction() {
        true => ("SAVEPOINT rustydb_explain", &UNDO),
        false => ("BEGIN", &["ROLLBACK"]),
    };
    let limit = request.timeout_ms.map(Duration::from_millis);
    fetch::run_typed(door, session, (begin, &[]), &[], limit).await?;
    for setting in request.settings() {
        fetch::run(door, session, &setting, &[]).await?;
    }
    let begun = Instant::now();
    // PostgreSQL stops it first, so that a transaction can go on.
    let ours = limit.map(|limit| limit.saturating_add(GRACE));
    let ran = fetch::run_typed(door, session, statement, &request.params, ours).await;
    if !session.is_sound() {
        return ran;
    }
    run_each(door, session, ends).await?;
    ran.map_err(|error| match error.kind() {
        ErrorKind::Cancelled if limit.is_some_and(|limit| begun.elapsed() >= limit) => timed_out(),
        _ => error,
    })
}

fn plan(explained: &Fetched, format: PlanFormat) -> Result<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "QUERY PLAN")]
        line: Box<RawValue>,
    }
    let lines: Vec<Line> = explained.typed()?;
    if format == PlanFormat::Json {
        let plan = lines.into_iter().next().map(|line| line.line);
        return plan.ok_or_else(|| Error::internal("EXPLAIN gave no plan"));
    }
    let lines: serde_json::Result<Vec<String>> =
        lines.iter().map(|line| serde_json::from_str(line.line.get())).collect();
    let text = serde_json::to_string(&lines.map_err(Error::internal)?.join("\n"));
    RawValue::from_string(text.map_err(Error::internal)?).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_transactions() {
        for (sql, expected) in [
            (" Commit;", true),
            ("rollback", true),
            ("BEGIN", true),
            ("rollback to savepoint a", false),
            ("select 1 as commit", false),
            ("", false),
        ] {
            assert_eq!(ends_transaction(sql), expected, "{sql}");
        }
    }
}
