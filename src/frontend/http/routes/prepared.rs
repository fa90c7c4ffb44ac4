//! Prepared statements of the sessions that clients of the API have opened.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody};
use super::super::kept::{Client, Named};
use super::super::open::number_in;
use super::super::paging::{List, Page};
use super::super::running::late;
use super::super::shelf::Borrowed;
use super::super::values::timestamp;
use super::super::{HttpDoor, answer, fetch, no_content};
use super::Routes;

use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;

/// Longest name.
const MAX_NAME: usize = 128;

/// Parameters of a statement (their number is sent in 16 bits).
const MAX_PARAMETERS: usize = 65_535;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list_prepared, create_prepared))
        .routes(routes!(get_prepared, delete_prepared))
}

/// A statement that is to be prepared.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreatePrepared {
    /// Name.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// One statement.
    #[schema(examples("select $1::int + 1 as two"))]
    sql: String,
    /// Types of `$1`, `$2`, … as in SQL; null where PostgreSQL is to find one.
    #[serde(default)]
    parameter_types: Vec<Option<String>>,
    /// For a session that this request opens: another database than api.database.
    database: Option<String>,
}

/// A column of a prepared statement.
#[derive(Serialize, ToSchema)]
struct PreparedColumn {
    /// Name.
    name: String,
    /// Name of the type.
    #[serde(rename = "type")]
    type_name: String,
}

/// A prepared statement.
#[derive(Serialize, ToSchema)]
struct PreparedStatement {
    /// Name.
    name: String,
    /// Number of the session that has it, for X-Session-Id.
    session_id: u64,
    /// The statement.
    sql: String,
    /// Types of its parameters.
    parameter_types: Vec<String>,
    /// Its columns.
    columns: Vec<PreparedColumn>,
    /// When it was prepared.
    #[schema(format = DateTime)]
    created_at: String,
    /// How often it was run.
    executions: u64,
}

fn described(session_id: u64, name: &str, named: &Named) -> PreparedStatement {
    let column = |(name, type_name): &(String, String)| PreparedColumn {
        name: name.clone(),
        type_name: type_name.clone(),
    };
    PreparedStatement {
        name: name.to_owned(),
        session_id,
        sql: named.sql.clone(),
        parameter_types: named.parameters.clone(),
        columns: named.columns.iter().map(column).collect(),
        created_at: timestamp(named.created),
        executions: named.runs,
    }
}

/// Prepare a statement
///
/// In the session that `X-Session-Id` names; without that header in a new session, whose number
/// the answer tells. `POST /api/v1/query` with `prepared` runs it.
#[utoipa::path(
    post, path = "/api/v1/prepared", tag = "query", request_body = CreatePrepared,
    params(("x-session-id" = Option<u64>, Header, description = "Number of the session.")),
    responses((status = 201, description = "It is there.", body = PreparedStatement,
        headers(("x-session-id" = u64, description = "Number of the session."))))
)]
async fn create_prepared(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(new): JsonBody<CreatePrepared>,
) -> ApiResult {
    let invalid = |text: String| Error::new(ErrorKind::ValidationError, text);
    if !(1..=MAX_NAME).contains(&new.name.len()) {
        return Err(invalid(format!("a name has 1 to {MAX_NAME} bytes")).into());
    }
    let longest = door.config.now().network.max_request_size.len();
    if new.sql.len() > longest {
        let text = format!("the statement is longer than {longest} bytes");
        return Err(Error::new(ErrorKind::PayloadTooLarge, text)
            .with_hint("network.max_request_size bounds it")
            .into());
    }
    if new.sql.trim().is_empty() {
        return Err(invalid("sql is empty".into()).into());
    }
    let given = number_in(&headers, "x-session-id")?;
    let id = match given {
        Some(_) if new.database.is_some() => {
            return Err(invalid("database is the session's, not the statement's".into()).into());
        }
        Some(id) => id,
        None => {
            let session = caller.session(&door, new.database.as_deref())?;
            door.kept.keep(&door, &caller, None, *session)?.id
        }
    };
    let mut borrowed = door.kept.borrow(&door, id, &caller)?;
    let prepared = prepare(&door, &mut borrowed, new).await;
    borrowed.give_back();
    if prepared.is_err() && given.is_none() {
        door.kept.remove(id);
    }
    let mut response = answer(StatusCode::CREATED, &prepared?);
    response.headers_mut().insert("x-session-id", HeaderValue::from(id));
    Ok(response)
}

async fn prepare(
    door: &HttpDoor,
    borrowed: &mut Borrowed<Client>,
    new: CreatePrepared,
) -> Result<PreparedStatement> {
    let id = borrowed.kept().id;
    let session = borrowed.session()?;
    let types = numbers_of(door, session, &new.parameter_types).await?;
    let limit = door.config.now().api.request_timeout_secs.duration();
    let learnt = session.prepare(&door.catalog, &new.sql, &types);
    let learnt = tokio::time::timeout(limit, learnt).await;
    let known = learnt.unwrap_or_else(|_| Err(late(session)))?;
    let columns = known.described.columns.iter();
    let named = Named {
        sql: new.sql,
        types,
        parameters: known.described.parameters.iter().map(|info| info.name.to_string()).collect(),
        columns: columns.map(|c| (c.name.clone(), c.info.name.to_string())).collect(),
        created: SystemTime::now(),
        runs: 0,
    };
    let answered = described(id, &new.name, &named);
    borrowed.kept().about.state.lock().name(&door.config.now(), new.name, named)?;
    Ok(answered)
}

/// Numbers of the types; 0 = PostgreSQL finds it.
async fn numbers_of(
    door: &HttpDoor,
    session: &mut Session,
    types: &[Option<String>],
) -> Result<Vec<u32>> {
    if types.len() > MAX_PARAMETERS {
        let text = format!("a statement has at most {MAX_PARAMETERS} parameters");
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    if types.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    #[derive(Deserialize)]
    struct Number {
        number: u32,
    }
    let list = serde_json::to_string(types).map_err(Error::internal)?;
    let sql = "SELECT coalesce(t.value::regtype::oid, 0::oid) AS number \
               FROM json_array_elements_text($1::json) WITH ORDINALITY AS t(value, at) ORDER BY at";
    let found = fetch::run(door, session, sql, &[Some(&list)]).await;
    let found = found.map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::ValidationError),
        _ => error,
    });
    let numbers: Vec<Number> = found?.typed()?;
    Ok(numbers.into_iter().map(|number| number.number).collect())
}

/// List prepared statements
///
/// Those of all sessions that the caller has opened, or of the one that `X-Session-Id` names.
#[utoipa::path(
    get, path = "/api/v1/prepared", tag = "query",
    params(Page, ("x-session-id" = Option<u64>, Header, description = "Number of the session.")),
    responses((status = 200, description = "A page of them.", body = List<PreparedStatement>))
)]
async fn list_prepared(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    headers: HeaderMap,
    page: Page,
) -> ApiResult {
    let role = &caller.identity.role;
    let sessions = match number_in(&headers, "x-session-id")? {
        Some(id) => vec![door.kept.find(id, role)?],
        None => door.kept.of(role),
    };
    let mut all = Vec::new();
    for kept in sessions {
        let state = kept.about.state.lock();
        all.extend(state.named.iter().map(|(name, named)| described(kept.id, name, named)));
    }
    Ok(answer(StatusCode::OK, &page.of_all(all)?))
}

/// Number of the session that a request must name.
fn session_in(headers: &HeaderMap) -> Result<u64> {
    number_in(headers, "x-session-id")?.ok_or_else(|| {
        let text = "prepared statements belong to a session: X-Session-Id is missing";
        Error::new(ErrorKind::ValidationError, text)
    })
}

fn missing(name: &str) -> Error {
    Error::sql(b"26000", format!("prepared statement \"{name}\" does not exist"))
}

/// Get a prepared statement
///
/// Of the session that `X-Session-Id` names.
#[utoipa::path(
    get, path = "/api/v1/prepared/{name}", tag = "query",
    params(("name" = String, Path, description = "Its name."),
        ("x-session-id" = u64, Header, description = "Number of the session.")),
    responses((status = 200, description = "The statement.", body = PreparedStatement))
)]
async fn get_prepared(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    headers: HeaderMap,
    InPath(name): InPath<String>,
) -> ApiResult {
    let kept = door.kept.find(session_in(&headers)?, &caller.identity.role)?;
    let state = kept.about.state.lock();
    let named = state.named.get(&name).ok_or_else(|| missing(&name))?;
    Ok(answer(StatusCode::OK, &described(kept.id, &name, named)))
}

/// Forget a prepared statement
///
/// Of the session that `X-Session-Id` names.
#[utoipa::path(
    delete, path = "/api/v1/prepared/{name}", tag = "query",
    params(("name" = String, Path, description = "Its name."),
        ("x-session-id" = u64, Header, description = "Number of the session.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_prepared(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    headers: HeaderMap,
    InPath(name): InPath<String>,
) -> ApiResult {
    let kept = door.kept.find(session_in(&headers)?, &caller.identity.role)?;
    let removed = kept.about.state.lock().named.remove(&name);
    removed.map(|_| no_content()).ok_or_else(|| missing(&name).into())
}
