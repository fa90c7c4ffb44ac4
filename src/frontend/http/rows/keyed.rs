//! `/api/v1/tables/{name}/rows`: new rows, and single rows by their primary key.
//!
//! The version of a row, its `ETag`, is a hash of its text, so that it differs when anything in the
//! row differs. `If-Match` becomes a part of the condition: PostgreSQL itself compares, and nobody
//! can come in between. Who may not read every column gets named ones without a version.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::super::HttpDoor;
use super::super::etag::{Tags, not_modified};
use super::super::extract::Caller;
use super::super::formats::{Format, Layout as Form};
use super::super::open::Hold;
use super::super::running::Chunks;
use super::list::{LIMITS, has_embeds, settings};
use super::{Job, Sink, Stream, planned_in, start, value_of};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json::Style;
use crate::query::plan::ask::{
    Change, Condition, Count, Item, Level, Payload, Read, Resolution, Returning, Target, Write,
};
use crate::query::plan::{PlanError, Statement, plan_read, plan_write};
use crate::query::schema::{Origin, Schema, Table};
use crate::query::where_json;

/// A row by its primary key.
#[derive(Debug)]
pub struct Keyed {
    /// Database, when it is not the usual one.
    pub database: Option<String>,
    /// Table.
    pub target: Target,
    /// The text of its key, or a JSON array when it has several columns.
    pub id: String,
    /// What is wanted of it.
    pub level: Level,
    /// Numbers or strings.
    pub style: Style,
}

fn table<'s>(schema: &'s Schema, target: &Target) -> Result<&'s Table> {
    let found = schema.table(&target.schema, &target.name);
    found.ok_or_else(|| {
        let (schema, name) = (target.schema.clone(), target.name.clone());
        PlanError::UnknownTable { schema, name, similar: None }.into()
    })
}

fn missing(target: &Target) -> Error {
    let text = format!("there is no such row in {}.{}", target.schema, target.name);
    Error::new(ErrorKind::NotFound, text)
}

/// The row has one of these versions; `None` = it may have any.
fn condition(tags: Tags) -> Option<Condition> {
    match tags {
        Tags::Any => None,
        Tags::These(tags) => {
            Some(Condition::Or(tags.into_iter().map(Condition::Version).collect()))
        }
    }
}

/// What must hold of a row before it is changed.
fn preconditions(headers: &HeaderMap) -> Result<Option<Condition>> {
    let fits = Tags::of(headers, header::IF_MATCH)?;
    let other = Tags::of(headers, header::IF_NONE_MATCH)?;
    if fits.is_none() && other.is_none() {
        return Ok(None);
    }
    let mut all: Vec<Condition> = fits.and_then(condition).into_iter().collect();
    if let Some(tags) = other {
        // Any version is one too many when there must be no row.
        let these = condition(tags).unwrap_or(Condition::And(Vec::new()));
        all.push(Condition::Not(Box::new(these)));
    }
    Ok(Some(Condition::And(all)))
}

fn put_tag(response: &mut Response, tag: Option<&str>) {
    let value = tag.and_then(|tag| HeaderValue::from_str(&format!("\"{tag}\"")).ok());
    if let Some(value) = value {
        response.headers_mut().insert(header::ETAG, value);
    }
}

/// Whether a statement whose session is the request's own can be run again without the version of
/// its row, for which PostgreSQL wants the right to read every column.
fn can_do_without(hold: &Hold, level: &Level, headers: &HeaderMap) -> bool {
    let is_asked =
        [header::IF_MATCH, header::IF_NONE_MATCH].iter().any(|h| headers.contains_key(h));
    hold.is_own() && !is_asked && !level.items.is_empty() && !level.items.contains(&Item::All)
}

fn is_denied(error: &Error) -> bool {
    error.sqlstate().as_str() == "42501"
}

fn version(stream: &Stream) -> Option<&str> {
    stream.last().first().and_then(Option::as_deref)
}

async fn run(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    (hold, schema): (Hold, &Schema),
    (statement, sink, hidden): (&Statement, Sink, usize),
    read_only: bool,
) -> Result<Stream> {
    let settings = settings(caller, &hold, schema)?;
    let read_only = read_only && matches!(hold, Hold::Own(_));
    let settings = settings.read_only(read_only);
    let deadline = Instant::now() + door.config.now().api.request_timeout_secs.duration();
    let job = Job {
        caller,
        statement,
        values: statement.values(),
        settings: &settings,
        in_transaction: false,
        sink,
        limit: None,
        hidden,
        deadline: Some(deadline),
    };
    let mut stream = start(door, hold, job).await?;
    stream.whole().await?;
    Ok(stream)
}

fn row_response(status: StatusCode, mut stream: Stream) -> Response {
    let mut response = Response::new(Body::from(stream.take()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Answers with one row.
///
/// # Errors
/// There is none, or PostgreSQL refuses.
pub async fn read(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    asked: Keyed,
    headers: &HeaderMap,
) -> Result<Response> {
    // What is in related rows is not in the version of this one.
    let has_version = !has_embeds(&asked.level);
    let may_go_without = has_version && can_do_without(&hold, &asked.level, headers);
    match Box::pin(read_once(door, caller, hold, (&asked, has_version), headers)).await {
        Err(error) if may_go_without && is_denied(&error) => {
            let own = Hold::Own(caller.session_for_rows(door, asked.database.as_deref())?);
            Box::pin(read_once(door, caller, own, (&asked, false), headers)).await
        }
        answered => answered,
    }
}

async fn read_once(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    (asked, has_version): (&Keyed, bool),
    headers: &HeaderMap,
) -> Result<Response> {
    let fits = Tags::of(headers, header::IF_MATCH)?;
    let known = Tags::of(headers, header::IF_NONE_MATCH)?;
    let Keyed { target, id, level, style, .. } = asked;
    let plan = |schema: &Schema| {
        let mut level = level.clone();
        level.filter = Some(where_json::by_key(table(schema, target)?, id)?);
        if has_version {
            level.items.push(Item::Version);
        }
        let read = Read { target: target.clone(), level, count: Count::None, keyset: None };
        plan_read(schema, LIMITS, &read).map_err(Error::from)
    };
    let (hold, schema, plan) = planned_in(hold, plan).await?;
    let statement = plan.statement(&schema);
    let wanted = (&statement, Sink::Object(*style), usize::from(has_version));
    let stream = run(door, caller, (hold, &schema), wanted, true).await?;
    if stream.rows() == 0 {
        return Err(missing(target));
    }
    let tag = version(&stream).map(str::to_owned);
    if let (Some(tags), Some(tag)) = (&fits, &tag)
        && !tags.has(tag)
    {
        return Err(changed());
    }
    let is_known = tag.as_deref().is_some_and(|tag| known.is_some_and(|known| known.has(tag)));
    let mut response = match is_known {
        true => not_modified(),
        false => row_response(StatusCode::OK, stream),
    };
    put_tag(&mut response, tag.as_deref());
    if tag.is_some() {
        let again = HeaderValue::from_static("private, no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, again);
    }
    Ok(response)
}

fn changed() -> Error {
    let text = "the row is not the one that If-Match or If-None-Match speaks of";
    Error::new(ErrorKind::PreconditionFailed, text).with_hint("read it again, and send its ETag")
}

/// Changes or deletes one row.
///
/// # Errors
/// There is none, it is another one than the request rests on, or PostgreSQL refuses.
pub async fn change(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    asked: Keyed,
    (method, headers): (&Method, &HeaderMap),
    payload: Option<Payload>,
) -> Result<Response> {
    let has_version = payload.is_some();
    let may_go_without = has_version && can_do_without(&hold, &asked.level, headers);
    let (request, payload) = ((method, headers), payload.as_ref());
    match Box::pin(change_once(door, caller, hold, (&asked, has_version), request, payload)).await {
        Err(error) if may_go_without && is_denied(&error) => {
            let own = Hold::Own(caller.session_for_rows(door, asked.database.as_deref())?);
            Box::pin(change_once(door, caller, own, (&asked, false), request, payload)).await
        }
        answered => answered,
    }
}

async fn change_once(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    (asked, has_version): (&Keyed, bool),
    (method, headers): (&Method, &HeaderMap),
    payload: Option<&Payload>,
) -> Result<Response> {
    let condition = preconditions(headers)?;
    let Keyed { database, target, id, level, style } = asked;
    let plan = |schema: &Schema| {
        let table = table(schema, target)?;
        let key = where_json::by_key(table, id)?;
        let filter = Some(match &condition {
            Some(condition) => Condition::And(vec![key, condition.clone()]),
            None => key,
        });
        let mut level = level.clone();
        if has_version {
            level.items.push(Item::Version);
        }
        let changes_nothing = |payload: &Payload| payload.columns.is_empty();
        if method == Method::PATCH && payload.is_some_and(changes_nothing) {
            level.filter = filter;
            let read = Read { target: target.clone(), level, count: Count::None, keyset: None };
            return Ok(plan_read(schema, LIMITS, &read)?.statement(schema));
        }
        let change = match payload.cloned() {
            None => Change::Delete { filter },
            Some(payload) if method == Method::PUT => {
                Change::Update { payload: whole(table, payload), filter }
            }
            Some(payload) => Change::Update { payload, filter },
        };
        let write = Write { target: target.clone(), change, returning: Returning::Rows(level) };
        let plan = plan_write(schema, LIMITS, &write)?;
        Ok::<_, Error>(plan.statement(schema)?)
    };
    let (hold, schema, statement) = planned_in(hold, plan).await?;
    let wanted = (&statement, Sink::Object(*style), usize::from(has_version));
    let stream = run(door, caller, (hold, &schema), wanted, false).await?;
    if stream.rows() == 0 {
        return Err(match condition {
            None => missing(target),
            Some(_) => why_not(door, caller, &schema, (target, database.as_deref()), id).await?,
        });
    }
    let tag = version(&stream).map(str::to_owned);
    let mut response = row_response(StatusCode::OK, stream);
    put_tag(&mut response, tag.as_deref());
    Ok(response)
}

/// Why a row with preconditions was not changed: it is another one, or there is none.
async fn why_not(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    schema: &Schema,
    (target, database): (&Target, Option<&str>),
    id: &str,
) -> Result<Error> {
    let filter = Some(where_json::by_key(table(schema, target)?, id)?);
    let level = Level { filter, items: vec![Item::Version], ..Level::default() };
    let read = Read { target: target.clone(), level, count: Count::None, keyset: None };
    let statement = plan_read(schema, LIMITS, &read)?.statement(schema);
    let hold = Hold::Own(caller.session_for_rows(door, database)?);
    let settings = settings(caller, &hold, schema)?.read_only(true);
    let Hold::Own(mut session) = hold else { return Ok(changed()) };
    let found = value_of(door, &mut session, &statement, &settings).await?;
    Ok(if found.is_some() { changed() } else { missing(target) })
}

/// Every column gets a value: those that are not named have their defaults.
fn whole(table: &Table, mut payload: Payload) -> Payload {
    let key: Vec<&str> = table.key_names().map(|name| &**name).collect();
    for column in &table.columns {
        let is_own = matches!(column.origin, Origin::Plain | Origin::IdentityByDefault);
        let is_named = payload.columns.iter().any(|name| **name == *column.name);
        if is_own && !is_named && !key.contains(&&*column.name) {
            payload.columns.push(column.name.to_string());
        }
    }
    payload
}

/// New rows.
#[derive(Debug)]
pub struct Insertion {
    /// Database, when it is not the usual one.
    pub database: Option<String>,
    /// Table.
    pub target: Target,
    /// Values.
    pub payload: Payload,
    /// What about rows that are there already, and the columns that tell.
    pub conflict: Option<(Resolution, Option<Vec<String>>)>,
    /// What is wanted of the new rows; `None` = nothing.
    pub returning: Option<Level>,
    /// Numbers or strings.
    pub style: Style,
}

/// Inserts rows that are there as JSON.
///
/// # Errors
/// PostgreSQL refuses one of them; then none is there.
pub async fn insert(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    asked: Insertion,
    (path, headers): (&str, &HeaderMap),
) -> Result<Response> {
    let level = asked.returning.as_ref().filter(|level| !has_embeds(level));
    let level = level.filter(|_| !asked.payload.is_array);
    let has_version = level.is_some();
    let may_go_without = level.is_some_and(|level| can_do_without(&hold, level, headers));
    match Box::pin(insert_once(door, caller, hold, (&asked, has_version), path)).await {
        Err(error) if may_go_without && is_denied(&error) => {
            let own = Hold::Own(caller.session_for_rows(door, asked.database.as_deref())?);
            Box::pin(insert_once(door, caller, own, (&asked, false), path)).await
        }
        answered => answered,
    }
}

async fn insert_once(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    (asked, has_version): (&Insertion, bool),
    path: &str,
) -> Result<Response> {
    let Insertion { target, payload, conflict, returning, style, .. } = asked;
    let is_one = !payload.is_array;
    let plan = |schema: &Schema| {
        let (payload, conflict) = (payload.clone(), conflict.clone());
        let change = Change::Insert { payload, conflict, only: None };
        let returning = match returning.clone() {
            None => Returning::Nothing,
            Some(mut level) => {
                if has_version {
                    level.items.push(Item::Version);
                }
                Returning::Rows(level)
            }
        };
        let write = Write { target: target.clone(), change, returning };
        let plan = plan_write(schema, LIMITS, &write)?;
        let key = table(schema, target)?.key_names().map(|name| name.to_string());
        Ok::<_, Error>((plan.statement(schema)?, key.collect::<Vec<_>>()))
    };
    let (hold, schema, (statement, key)) = planned_in(hold, plan).await?;
    let form = Form { format: Format::Json, rows_as_arrays: false, style: *style };
    let sink = if returning.is_some() { Sink::Rows(form) } else { Sink::Nothing };
    let wanted = (&statement, sink, usize::from(has_version));
    let mut stream = run(door, caller, (hold, &schema), wanted, false).await?;
    let affected = if returning.is_some() { stream.rows() } else { stream.affected() };
    let tag = version(&stream).map(str::to_owned).filter(|_| affected == 1);
    let rows = stream.take();
    let place = (is_one && affected == 1).then(|| place_of(&rows, &key, path)).flatten();
    let rows: &[u8] = if returning.is_some() { &rows } else { b"[]" };
    let mut body = format!("{{\"affected_rows\":{affected},\"items\":").into_bytes();
    body.extend_from_slice(rows);
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    let is_new = affected > 0;
    *response.status_mut() = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    put_tag(&mut response, tag.as_deref());
    if let Some(place) = place.and_then(|place| HeaderValue::from_str(&place).ok()) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Where the only new row is, when its key is among what came back.
fn place_of(rows: &[u8], key: &[String], path: &str) -> Option<String> {
    let rows: Vec<Map<String, Value>> = serde_json::from_slice(rows).ok()?;
    let values: Option<Vec<&Value>> = key.iter().map(|name| rows.first()?.get(name)).collect();
    let id = match &values?[..] {
        [] => return None,
        [Value::String(text)] => text.clone(),
        [other] => other.to_string(),
        several => serde_json::to_string(several).ok()?,
    };
    let path = path.trim_end_matches('/');
    Some(format!("{path}/{}", utf8_percent_encode(&id, NON_ALPHANUMERIC)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_new_rows() {
        let place = |rows: &str, key: &[&str]| {
            let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
            place_of(rows.as_bytes(), &key, "/t/rows/")
        };
        assert_eq!(place(r#"[{"id":"a/b"}]"#, &["id"]).unwrap(), "/t/rows/a%2Fb");
        assert_eq!(
            place(r#"[{"a":1,"b":"x"}]"#, &["a", "b"]).unwrap(),
            "/t/rows/%5B1%2C%22x%22%5D"
        );
        assert_eq!(place(r#"[{"a":1}]"#, &["b"]), None);
        assert_eq!(place(r#"[{"a":1}]"#, &[]), None);
    }
}
