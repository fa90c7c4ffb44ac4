//! `/api/v1/tables/{name}/rows`: the rows of a table.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, json_body};
use super::super::formats::Format;
use super::super::open::Hold;
use super::super::paging::{List, Unsorted};
use super::super::rows::bulk::{self, BulkFormat};
use super::super::rows::keyed::{self, Insertion, Keyed};
use super::super::rows::list::{self, Listing};
use super::super::rows::uri::Parameters;
use super::super::{HttpDoor, InWork};
use super::Routes;
use crate::error::{Error, ErrorKind, Result};
use crate::query::plan::ask::{Payload, Resolution, Target};
use crate::query::postgrest::{columns_of, rows_of};

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(list_table_rows, insert_table_rows)).routes(routes!(
        get_table_row,
        put_table_row,
        patch_table_row,
        delete_table_row
    ))
}

/// Where the rows are.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what is taken out of the query string")]
struct RowsPlace {
    /// The schema of the table.
    #[param(default = "public")]
    schema: Option<String>,
    /// Another database than api.database.
    database: Option<String>,
    /// How int8 is written.
    #[param(pattern = "^(number|string)$", default = "number")]
    int8: Option<String>,
    /// How numeric is written.
    #[param(pattern = "^(number|string)$", default = "string")]
    numeric: Option<String>,
}

/// Which rows. Every other parameter is a filter, `column=operator.value` as in PostgREST:
/// `year=gte.1980`, `or=(a.eq.1,b.is.null)`, `author.name=eq.Ada` for related rows.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what is taken out of the query string")]
struct RowsQuery {
    /// Columns and related rows: `id,name,author:authors(name)`; `select` is the same.
    columns: Option<String>,
    /// A where clause in JSON: `{"field":"age","op":"GREATER_THAN","value":18}`.
    r#where: Option<String>,
    /// Order as in PostgREST: `year.desc.nullslast,id`; `order` is the same.
    order_by: Option<String>,
    /// Order: `name,-age`.
    sort: Option<String>,
    /// Paging by the values of the last row: the next_cursor of the page before. There is one if
    /// there are more rows, and the primary key is among the columns or the order; empty = from
    /// the beginning, and an error where there can be none.
    cursor: Option<String>,
    /// How all rows are counted.
    #[param(pattern = "^(none|exact|planned|estimated)$", default = "none")]
    count: Option<String>,
}

/// What of a row.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what is taken out of the query string")]
struct RowQuery {
    /// Columns and related rows: `id,name,author:authors(name)`.
    columns: Option<String>,
}

/// How rows are inserted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what is taken out of the query string")]
struct InsertQuery {
    /// Columns that tell whether a row is there already; empty = the primary key.
    on_conflict: Option<String>,
    /// What becomes of a row that is there already.
    #[param(pattern = "^(update|nothing)$", default = "update")]
    on_conflict_action: Option<String>,
    /// Columns of the new rows that come back; empty = none.
    #[param(default = "*")]
    returning: Option<String>,
}

/// Rows that were inserted.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what is written piece by piece")]
struct InsertedRows {
    /// How many.
    affected_rows: u64,
    /// The rows, as far as they are wanted; none after CSV and NDJSON.
    items: Vec<Value>,
}

struct Place {
    target: Target,
    database: Option<String>,
}

impl Place {
    fn of(name: String, parameters: &mut Parameters) -> Result<Self> {
        let schema = parameters.take("schema")?.unwrap_or_else(|| "public".into());
        let database = parameters.take("database")?;
        Ok(Self { target: Target { schema, name }, database })
    }

    /// A session of the caller's, or the one of his transaction.
    fn hold(&self, door: &HttpDoor, caller: &Caller, headers: &HeaderMap) -> Result<Hold> {
        let database = self.database.as_deref();
        let own = || caller.session_for_rows(door, database);
        Hold::or_own(door, caller, headers, None, database.is_some(), own)
    }
}

/// List rows
///
/// A page of rows of a table or view, with related rows within them. As NDJSON or CSV all rows
/// come, unless there is a limit.
#[utoipa::path(
    get, path = "/api/v1/tables/{name}/rows", tag = "tables",
    params(("name" = String, Path, description = "Table or view."), RowsPlace, RowsQuery, Unsorted),
    responses((status = 200, description = "The rows.", content(
        (List<Value> = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream"),
        (Vec<u8> = "application/msgpack")
    )))
)]
async fn list_table_rows(
    State(door): State<Arc<HttpDoor>>,
    Extension(in_work): Extension<InWork>,
    caller: Caller,
    InPath(name): InPath<String>,
    Unsorted(page): Unsorted,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let format = Format::accepted(&headers)?;
    if format.is_stream() {
        in_work.has_own_limit();
    }
    let mut parameters = Parameters::of(uri.query())?;
    let place = Place::of(name, &mut parameters)?;
    let (limit, size) = (parameters.take("limit")?, parameters.take("page_size")?);
    let limit = match (limit.or(size), format.is_stream()) {
        (None, true) => None,
        (Some(text), true) => Some(text.parse().unwrap_or(u64::MAX)),
        (_, false) => Some(page.limit.into()),
    };
    for name in ["offset", "page"] {
        parameters.take(name)?;
    }
    let (count, style) = (list::count(&mut parameters)?, list::style(&mut parameters)?);
    let cursor = parameters.take("cursor")?;
    let level = list::level(&mut parameters)?;
    let hold = place.hold(&door, &caller, &headers)?;
    let target = place.target;
    let offset = page.offset;
    let asked = Listing { target, level, count, cursor, limit, offset, format, style };
    Ok(list::answer(&door, &caller, &in_work, hold, asked).await?)
}

/// Insert rows
///
/// A row, or many: as JSON (an object or a list of them; what an object does not name has its
/// default), or as NDJSON or CSV of any length, which PostgreSQL reads as they come (COPY).
#[utoipa::path(
    post, path = "/api/v1/tables/{name}/rows", tag = "tables",
    params(("name" = String, Path, description = "Table or view."), RowsPlace, InsertQuery),
    request_body(content(
        (Value = "application/json"), (Value = "application/msgpack"),
        (String = "application/x-ndjson"), (String = "text/csv")
    )),
    responses(
        (status = 200, description = "They were there already.", body = InsertedRows),
        (status = 201, description = "They are there.", body = InsertedRows),
    )
)]
async fn insert_table_rows(
    State(door): State<Arc<HttpDoor>>,
    Extension(in_work): Extension<InWork>,
    caller: Caller,
    InPath(name): InPath<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let mut parameters = Parameters::of(uri.query())?;
    let place = Place::of(name, &mut parameters)?;
    let style = list::style(&mut parameters)?;
    let conflict = conflict(&mut parameters)?;
    let returning = parameters.take("returning")?;
    only_known(&parameters)?;
    if let Some(format) = BulkFormat::of(&headers) {
        in_work.has_own_limit();
        if conflict.is_some() || returning.is_some() {
            let text = "on_conflict and returning are for rows as JSON: COPY knows neither";
            return Err(Error::new(ErrorKind::ValidationError, text).into());
        }
        let hold = place.hold(&door, &caller, &headers)?;
        return Ok(bulk::load(&door, &caller, hold, (&place.target, format), body).await?);
    }
    let payload = rows_of(&json_body(&headers, body, &door).await?).map_err(Error::from)?;
    let returning = match returning.as_deref() {
        Some("") => None,
        Some(columns) => Some(of_columns(columns)?),
        None => Some(of_columns("*")?),
    };
    let is_uneven = payload.present.len() < payload.columns.len();
    if is_uneven && matches!(conflict, Some((Resolution::Merge, _))) {
        // What an object does not name would be its default in a row that is there already.
        let text = "objects that may change rows must all have the same members";
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    let hold = place.hold(&door, &caller, &headers)?;
    let Place { target, database } = place;
    let asked = Insertion { database, target, payload, conflict, returning, style };
    Ok(keyed::insert(&door, &caller, hold, asked, (uri.path(), &headers)).await?)
}

/// Get a row
///
/// The row with this primary key. Its ETag tells whether it has changed since.
#[utoipa::path(
    get, path = "/api/v1/tables/{name}/rows/{id}", tag = "tables",
    params(
        ("name" = String, Path, description = "Table or view."),
        ("id" = String, Path, description = "Primary key; a JSON array of several columns."),
        RowsPlace, RowQuery,
        ("If-None-Match" = Option<String>, Header, description = "ETags that are known."),
    ),
    responses(
        (status = 200, description = "The row.", body = Value),
        (status = 304, description = "It is what If-None-Match names."),
    )
)]
async fn get_table_row(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath((name, id)): InPath<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let (asked, hold) = keyed_of(&door, &caller, (name, id), uri.query(), &headers)?;
    Ok(keyed::read(&door, &caller, hold, asked, &headers).await?)
}

/// Replace a row
///
/// Every column gets a value: those that the body does not name have their defaults.
#[utoipa::path(
    put, path = "/api/v1/tables/{name}/rows/{id}", tag = "tables", request_body = Value,
    params(
        ("name" = String, Path, description = "Table or view."),
        ("id" = String, Path, description = "Primary key; a JSON array of several columns."),
        RowsPlace, RowQuery,
        ("If-Match" = Option<String>, Header, description = "The ETag that the row must have."),
    ),
    responses((status = 200, description = "The row as it is now.", body = Value))
)]
async fn put_table_row(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(row): InPath<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    change(&door, &caller, (row, Method::PUT), uri.query(), &headers, Some(body)).await
}

/// Change a row
///
/// The columns that the body names get new values.
#[utoipa::path(
    patch, path = "/api/v1/tables/{name}/rows/{id}", tag = "tables", request_body = Value,
    params(
        ("name" = String, Path, description = "Table or view."),
        ("id" = String, Path, description = "Primary key; a JSON array of several columns."),
        RowsPlace, RowQuery,
        ("If-Match" = Option<String>, Header, description = "The ETag that the row must have."),
    ),
    responses((status = 200, description = "The row as it is now.", body = Value))
)]
async fn patch_table_row(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(row): InPath<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    change(&door, &caller, (row, Method::PATCH), uri.query(), &headers, Some(body)).await
}

/// Delete a row
///
/// The answer is the row as it was.
#[utoipa::path(
    delete, path = "/api/v1/tables/{name}/rows/{id}", tag = "tables",
    params(
        ("name" = String, Path, description = "Table or view."),
        ("id" = String, Path, description = "Primary key; a JSON array of several columns."),
        RowsPlace, RowQuery,
        ("If-Match" = Option<String>, Header, description = "The ETag that the row must have."),
    ),
    responses((status = 200, description = "The row as it was.", body = Value))
)]
async fn delete_table_row(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(row): InPath<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    change(&door, &caller, (row, Method::DELETE), uri.query(), &headers, None).await
}

async fn change(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    (row, method): ((String, String), Method),
    query: Option<&str>,
    headers: &HeaderMap,
    body: Option<Body>,
) -> ApiResult {
    let payload = match body {
        None => None,
        Some(body) => Some(object(body, door, headers).await?),
    };
    let (asked, hold) = keyed_of(door, caller, row, query, headers)?;
    Ok(keyed::change(door, caller, hold, asked, (&method, headers), payload).await?)
}

fn keyed_of(
    door: &HttpDoor,
    caller: &Caller,
    (name, id): (String, String),
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(Keyed, Hold)> {
    let mut parameters = Parameters::of(query)?;
    let place = Place::of(name, &mut parameters)?;
    let style = list::style(&mut parameters)?;
    let columns = parameters.take("columns")?.unwrap_or_else(|| "*".into());
    only_known(&parameters)?;
    let level = of_columns(&columns)?;
    let hold = place.hold(door, caller, headers)?;
    let Place { target, database } = place;
    Ok((Keyed { database, target, id, level, style }, hold))
}

fn of_columns(columns: &str) -> Result<crate::query::plan::ask::Level> {
    let mut parameters = Parameters::default();
    parameters.put("columns", columns.to_owned());
    list::level(&mut parameters)
}

fn only_known(parameters: &Parameters) -> Result<()> {
    match parameters.rest().first() {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(100).collect();
            let text = format!("there is no parameter \"{name}\"");
            Err(Error::new(ErrorKind::ValidationError, text))
        }
    }
}

/// A body that is one object.
async fn object(body: Body, door: &HttpDoor, headers: &HeaderMap) -> Result<Payload> {
    let payload = rows_of(&json_body(headers, body, door).await?).map_err(Error::from)?;
    if payload.is_array {
        return Err(Error::new(ErrorKind::ValidationError, "the body is a list, not an object"));
    }
    Ok(payload)
}

fn conflict(parameters: &mut Parameters) -> Result<Option<(Resolution, Option<Vec<String>>)>> {
    let resolution = match parameters.take("on_conflict_action")?.as_deref() {
        None => None,
        Some("update") => Some(Resolution::Merge),
        Some("nothing") => Some(Resolution::Ignore),
        Some(_) => {
            let text = "on_conflict_action is update or nothing";
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
    };
    let columns = match parameters.take("on_conflict")?.as_deref() {
        None if resolution.is_none() => return Ok(None),
        None | Some("") => None,
        Some(names) => Some(columns_of("on_conflict", names)?),
    };
    Ok(Some((resolution.unwrap_or(Resolution::Merge), columns)))
}
