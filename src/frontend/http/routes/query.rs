//! `POST /api/v1/query`: one SQL statement with parameters, its rows as JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::body::{Rows, Run};
use super::super::error::ApiResult;
use super::super::extract::{Caller, JsonBody};
use super::super::formats::{Format, Layout};
use super::super::open::Hold;
use super::super::running::{ChunkedBody, Chunks, Fill};
use super::super::values::bind;
use super::super::{HttpDoor, InWork};
use super::Routes;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json::Style;
use crate::query::{changes_rows, needs_transaction};
use crate::session::{Known, Notice};

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(execute_query))
}

/// A statement to be run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QueryRequest {
    /// One statement.
    #[serde(default)]
    #[schema(required = false, examples("select $1::int + 1 as two"))]
    sql: String,
    /// Instead of sql: the name of a prepared statement of the session that X-Session-Id names.
    prepared: Option<String>,
    /// Values of `$1`, `$2`, …
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>, examples(json!([1])))]
    params: Vec<Box<RawValue>>,
    /// Another database than `api.database`.
    database: Option<String>,
    /// Milliseconds after which the statement is stopped.
    #[schema(minimum = 1)]
    timeout_ms: Option<u64>,
    /// Rows at most; `has_more` tells whether there were others.
    #[schema(minimum = 1)]
    max_rows: Option<u32>,
    /// Rows as objects, or as arrays in the order of the columns.
    #[serde(default)]
    row_format: RowFormat,
    /// How numeric values are written: numbers lose digits in many programs.
    #[serde(default)]
    numeric: NumberOrString,
    /// How int8 values are written: as numbers, unless said otherwise.
    int8: Option<NumberOrString>,
    /// Runs in this transaction, as the header X-Transaction-Id says too.
    transaction_id: Option<u64>,
    /// Runs in a read-only transaction.
    #[serde(default)]
    read_only: bool,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RowFormat {
    #[default]
    Object,
    Array,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum NumberOrString {
    Number,
    #[default]
    String,
}

/// What a statement returned. Columns of it: name, type, number of the type, whether NULL can be.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what the rows' body writes piece by piece")]
struct QueryResult {
    /// Number of the query.
    #[schema(format = "uuid")]
    query_id: String,
    /// The columns.
    columns: Vec<QueryColumn>,
    /// The rows.
    rows: Vec<serde_json::Value>,
    /// How many rows there are here.
    row_count: u64,
    /// Rows that were inserted, changed or deleted.
    affected_rows: u64,
    /// Whether max_rows left rows out.
    has_more: bool,
    /// The command; null when max_rows left rows of a query out.
    #[schema(required)]
    command: Option<String>,
    /// From the request to the end of the result.
    execution_time_ms: f64,
    /// Warnings and notices of PostgreSQL, 100 at most.
    notices: Vec<Notice>,
    /// The transaction that it ran in, if the request has named one.
    #[schema(required = false, nullable = false)]
    transaction_id: Option<u64>,
}

/// A column of a result.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what the rows' body writes piece by piece")]
struct QueryColumn {
    /// Name.
    name: String,
    /// Name of the type.
    #[serde(rename = "type")]
    type_name: String,
    /// Number of the type.
    type_oid: u32,
    /// Whether it can be NULL, as far as is known.
    nullable: bool,
}

impl QueryRequest {
    fn check(&self, longest: usize) -> Result<()> {
        let invalid = |text: &'static str| Err(Error::new(ErrorKind::ValidationError, text));
        if self.sql.len() > longest {
            let text = format!("the statement is longer than {longest} bytes");
            return Err(Error::new(ErrorKind::PayloadTooLarge, text)
                .with_hint("network.max_request_size bounds it; pass long values as params"));
        }
        match (self.sql.trim().is_empty(), &self.prepared) {
            (true, None) => return invalid("sql is empty"),
            (false, Some(_)) => return invalid("sql and prepared exclude each other"),
            _ => {}
        }
        if self.timeout_ms == Some(0) {
            return invalid("timeout_ms must be at least 1");
        }
        if self.max_rows == Some(0) {
            return invalid("max_rows must be at least 1");
        }
        Ok(())
    }

    fn style(&self) -> Style {
        Style {
            int8_as_string: self.int8 == Some(NumberOrString::String),
            numeric_as_number: self.numeric == NumberOrString::Number,
            ..Style::default()
        }
    }
}

/// Run a statement
///
/// Runs one SQL statement with parameters as the caller's role. `Accept` chooses the form of the
/// result: one JSON document, or a stream of rows as they come: lines of JSON, CSV, an Arrow IPC
/// stream, MessagePack maps one after the other. A stream has the rows alone, and no time limit
/// unless `timeout_ms` sets one. One that is cut off by an error ends with `{"error":…}` where the
/// form can say it, and its connection is broken in any case.
#[utoipa::path(
    post, path = "/api/v1/query", tag = "query", request_body = QueryRequest,
    responses((status = 200, description = "The result.",
        content(
            (QueryResult = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (Vec<u8> = "application/msgpack"),
        )))
)]
async fn execute_query(
    State(door): State<Arc<HttpDoor>>,
    Extension(in_work): Extension<InWork>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(request): JsonBody<QueryRequest>,
) -> ApiResult {
    let begun = Instant::now();
    let config = door.config.now();
    request.check(config.network.max_request_size.len())?;
    let format = Format::accepted(&headers)?;
    let rows_as_arrays = request.row_format == RowFormat::Array;
    let layout = Layout { format, rows_as_arrays, style: request.style() };
    let max_rows = request.max_rows.map(u64::from);
    let deadline = deadline(&request, format, config.api.request_timeout_secs.duration());
    if request.timeout_ms.is_some() || format.is_stream() {
        in_work.has_own_limit();
    }
    let id = caller.id.clone();
    let database = request.database.as_deref();
    let hold = Hold::of(&door, &caller, &headers, request.transaction_id, database)?;
    let (hold, known) = start(&door, hold, request, deadline).await?;
    let warning = known.leaves().filter(|_| hold.is_own()).map(gone);
    let longest_row = config.api.max_row_size.len();
    let run = Run { layout, max_rows, longest_row, begun, deadline };
    let mut rows = Box::new(Rows::new(hold, run, &known.described.columns)?);
    rows.note(warning);
    let fill = std::future::poll_fn(|cx| rows.poll_fill(cx)).await?;
    let query_id = rows.query_id().to_owned();
    let body = match fill {
        Fill::End => Body::from(rows.take()),
        Fill::More => Body::new(ChunkedBody::new(rows, id, door.metrics.clone(), in_work.keep())),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Ok(query_id) = HeaderValue::from_str(&query_id) {
        headers.insert("x-query-id", query_id);
    }
    Ok(response)
}

/// A stream of rows may take as long as its reader wants, unless the request says otherwise.
fn deadline(
    request: &QueryRequest,
    format: Format,
    usual: Duration,
) -> Option<tokio::time::Instant> {
    let limit = match request.timeout_ms {
        Some(ms) => Duration::from_millis(ms),
        None if format.is_stream() => return None,
        None => usual,
    };
    tokio::time::Instant::now().checked_add(limit)
}

/// Learns the types, binds the parameters and runs the statement.
async fn start(
    door: &HttpDoor,
    mut hold: Hold,
    mut request: QueryRequest,
    deadline: Option<tokio::time::Instant>,
) -> Result<(Hold, Arc<Known>)> {
    let begun = begin(door, &mut hold, &mut request);
    let begun = match deadline {
        // Dropping the session on the way cancels what it does.
        Some(at) => tokio::time::timeout_at(at, begun).await.ok(),
        None => Some(begun.await),
    };
    match begun.unwrap_or_else(|| Err(hold.late())) {
        Ok(known) => Ok((hold, known)),
        Err(error) => {
            hold.finish();
            Err(error)
        }
    }
}

async fn begin(door: &HttpDoor, hold: &mut Hold, request: &mut QueryRequest) -> Result<Arc<Known>> {
    let mut types = Vec::new();
    if let Some(name) = &request.prepared {
        (request.sql, types) = named(hold, name, 1)?;
    }
    if request.read_only && matches!(hold, Hold::Lent(_)) {
        let text = "read_only is the transaction's, not the statement's";
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    let is_own = hold.is_own();
    if is_own && needs_transaction(&request.sql) {
        let text = "the transaction would not outlive the request: nothing here keeps it open";
        return Err(Error::sql(b"2D000", text)
            .with_kind(ErrorKind::ValidationError)
            .with_hint("POST /api/v1/transactions, or X-Session-Id"));
    }
    let session = hold.session()?;
    session.ended_by("error");
    match (request.read_only, is_own) {
        (true, _) => session.run_with(&[("transaction_read_only", "on")]),
        (false, true) => {}
        // What the request before wanted is over.
        (false, false) => session.run_with(&[]),
    }
    let known = session.prepare(&door.catalog, &request.sql, &types).await?;
    let values = bind(&request.params, &known.described)?;
    // One more than asked for, which is not returned, tells whether there are more. How many rows
    // were changed PostgreSQL tells only behind all of them.
    let limit = request.max_rows.filter(|_| !changes_rows(&request.sql));
    session.execute(&values, limit.map_or(0, |n| n.saturating_add(1))).await?;
    session.ended_by("client_gone");
    Ok(known)
}

/// What is told of a statement that has left something in a session which ends with the request.
fn gone(what: &'static str) -> Notice {
    Notice {
        severity: "WARNING".into(),
        sqlstate: "01000".into(),
        message: format!(
            "what the statement leaves in its session ({what}) is gone with the request: send \
             X-Session-Id or a transaction_id to keep it"
        ),
    }
}

/// Text and types of a prepared statement, which is about to be run so often.
pub(super) fn named(hold: &Hold, name: &str, runs: u64) -> Result<(String, Vec<u32>)> {
    let Hold::Bound(borrowed) = hold else {
        let text = "prepared statements belong to a session: X-Session-Id is missing";
        return Err(Error::new(ErrorKind::ValidationError, text));
    };
    let mut state = borrowed.kept().about.state.lock();
    let Some(named) = state.named.get_mut(name) else {
        let text = format!("prepared statement \"{name}\" does not exist");
        return Err(Error::sql(b"26000", text));
    };
    named.runs += runs;
    Ok((named.sql.clone(), named.types.clone()))
}
