//! What a session that was opened over HTTP keeps: settings, variables, limits; and how that is
//! carried to another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody};
use super::super::kept::{Client, Snapshot};
use super::super::shelf::Borrowed;
use super::super::values::{millis, present, timestamp};
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use super::sessions::find;
use super::unsupported::unsupported;
use crate::error::{Error, ErrorKind, Result};
use crate::query::quote_literal;
use crate::session::{Session, SessionView};
use crate::telemetry::backend_usage;

/// Settings with their values; null = what the session began with.
pub(super) type Settings = BTreeMap<String, Option<String>>;

/// Settings that one request may give.
const MAX_SETTINGS: usize = 500;

/// Longest name of a snapshot.
const MAX_NAME: usize = 128;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_session_state, update_session_state))
        .routes(routes!(create_session_snapshot))
        .routes(routes!(restore_session_snapshot))
        .routes(routes!(get_session_resources))
        .routes(routes!(update_session_limits))
        .routes(routes!(reset_session_resources))
}

/// What a session keeps.
#[derive(Serialize, ToSchema)]
pub(super) struct StateView {
    /// Settings that were changed in it.
    settings: BTreeMap<String, String>,
    /// Where names without a schema are looked for; null = as the session began.
    #[schema(required)]
    search_path: Option<String>,
    /// Values of the client's own.
    #[schema(value_type = Object)]
    variables: BTreeMap<String, Value>,
    /// Names of the prepared statements.
    prepared_statements: Vec<String>,
    /// Open cursors of PostgreSQL.
    cursors: Vec<Value>,
    /// none, open.
    transaction: &'static str,
    /// Always empty: tags are of pooled sessions of the other doors.
    tags: Vec<String>,
}

/// Settings and cursors, as PostgreSQL tells.
#[derive(Default, Deserialize)]
struct Told {
    settings: BTreeMap<String, String>,
    search_path: Option<String>,
    cursors: Vec<Value>,
}

/// What a session keeps now. One without a connection has left nothing in PostgreSQL.
pub(super) async fn look(door: &HttpDoor, borrowed: &mut Borrowed<Client>) -> Result<StateView> {
    let session = borrowed.session()?;
    let told: Told = match session.entry().slot().backend_pid() {
        None => Told::default(),
        Some(_) => {
            let sql = include_str!("../../../../sql/api/session_state.sql");
            fetch::run(door, session, sql, &[]).await?.one(String::new)?
        }
    };
    let is_open = session.is_in_transaction();
    let state = borrowed.kept().about.state.lock();
    let mut settings = state.settings.clone();
    settings.extend(told.settings);
    Ok(StateView {
        settings,
        search_path: told.search_path,
        variables: state.variables.clone(),
        prepared_statements: state.named.keys().cloned().collect(),
        cursors: told.cursors,
        transaction: if is_open { "open" } else { "none" },
        tags: Vec::new(),
    })
}

/// Gives settings their values: all of them, or none.
pub(super) async fn apply(
    door: &HttpDoor,
    session: &mut Session,
    settings: &Settings,
) -> Result<()> {
    if settings.len() > MAX_SETTINGS {
        let text = format!("a request gives at most {MAX_SETTINGS} settings");
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    let mut calls = Vec::new();
    for (name, value) in settings {
        if name.contains('\0') || value.as_ref().is_some_and(|value| value.contains('\0')) {
            let text = "a setting contains U+0000";
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        let value = value.as_ref().map_or_else(|| "NULL".to_owned(), |text| quote_literal(text));
        calls.push(format!("pg_catalog.set_config({}, {value}, false)", quote_literal(name)));
    }
    if calls.is_empty() {
        return Ok(());
    }
    // One statement: what it has set is undone when it fails.
    let sql = format!("SELECT {}", calls.join(", "));
    fetch::run(door, session, &sql, &[]).await.map(drop).map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::ValidationError),
        _ => error,
    })
}

/// The caller's session, if it is one whose state is kept here.
fn borrow(door: &HttpDoor, caller: &Caller, id: u64) -> Result<Borrowed<Client>> {
    let is_open = door.kept.look(id).is_some();
    door.kept.borrow(door, id, caller).map_err(|error| match error.kind() {
        ErrorKind::Conflict if !is_open => unsupported("session_state_of_other_doors"),
        _ => error,
    })
}

/// Get the state of a session
///
/// Of one that the caller has opened over HTTP: what its client of another door keeps is known to
/// that client alone.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/state", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "The state.", body = StateView))
)]
async fn get_session_state(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let mut borrowed = borrow(&door, &caller, id)?;
    let looked = look(&door, &mut borrowed).await;
    borrowed.give_back();
    Ok(answer(StatusCode::OK, &looked?))
}

/// Changes of a session's state.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateState {
    /// Settings of PostgreSQL; null = what the session began with.
    #[serde(default)]
    #[schema(value_type = Object)]
    settings: Settings,
    /// Values of the client's own; null takes one away.
    #[serde(default)]
    #[schema(value_type = Object)]
    variables: BTreeMap<String, Value>,
    /// Answers 501.
    tag: Option<String>,
}

/// Change the state of a session
///
/// Settings and variables: all of them, or, when one is refused, none.
#[utoipa::path(
    put, path = "/api/v1/sessions/{id}/state", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    request_body = UpdateState,
    responses((status = 200, description = "The state as it is now.", body = StateView))
)]
async fn update_session_state(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(new): JsonBody<UpdateState>,
) -> ApiResult {
    if new.tag.is_some() {
        return Err(unsupported("session_tags").into());
    }
    let mut borrowed = borrow(&door, &caller, id)?;
    let changed = change(&door, &mut borrowed, new).await;
    let looked = match changed {
        Ok(()) => look(&door, &mut borrowed).await,
        Err(error) => Err(error),
    };
    borrowed.give_back();
    Ok(answer(StatusCode::OK, &looked?))
}

async fn change(door: &HttpDoor, borrowed: &mut Borrowed<Client>, new: UpdateState) -> Result<()> {
    let before = {
        let mut state = borrowed.kept().about.state.lock();
        let before = state.variables.clone();
        state.set_variables(new.variables)?;
        before
    };
    let applied = apply(door, borrowed.session()?, &new.settings).await;
    let mut state = borrowed.kept().about.state.lock();
    if applied.is_err() {
        state.variables = before;
        return applied;
    }
    state.remember(&new.settings);
    let names: Vec<&str> = new.settings.keys().map(String::as_str).collect();
    state.note("state", Some(names.join(", ")));
    Ok(())
}

/// A snapshot that is to be taken.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSnapshot {
    /// Name for people.
    #[schema(max_length = 128)]
    name: Option<String>,
}

/// A snapshot of a session.
#[derive(Serialize, ToSchema)]
struct SnapshotTaken {
    /// Its number.
    #[schema(format = "uuid")]
    snapshot_id: String,
    /// Name for people.
    #[schema(required)]
    name: Option<String>,
    /// When it was taken.
    #[schema(format = DateTime)]
    taken_at: String,
    /// Settings in it.
    settings: usize,
    /// Variables in it.
    variables: usize,
    /// Prepared statements in it.
    prepared_statements: usize,
}

/// Take a snapshot of a session
///
/// Its settings, variables and prepared statements; not its cursors, temporary tables and
/// transaction. The last 20 of a role are kept, until the server ends.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/state/snapshot", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    request_body = CreateSnapshot,
    responses((status = 201, description = "It is taken.", body = SnapshotTaken))
)]
async fn create_session_snapshot(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(new): JsonBody<CreateSnapshot>,
) -> ApiResult {
    if new.name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
        let text = format!("name is longer than {MAX_NAME} bytes");
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    let mut borrowed = borrow(&door, &caller, id)?;
    let looked = look(&door, &mut borrowed).await;
    let named = borrowed.kept().about.state.lock().named.clone();
    if looked.is_ok() {
        borrowed.kept().about.state.lock().note("snapshot", new.name.clone());
    }
    borrowed.give_back();
    let looked = looked?;
    let snapshot = Snapshot {
        name: new.name.clone(),
        taken: SystemTime::now(),
        owner: caller.identity.role.clone(),
        settings: looked.settings,
        variables: looked.variables,
        named,
    };
    let taken = SnapshotTaken {
        name: new.name,
        taken_at: timestamp(snapshot.taken),
        settings: snapshot.settings.len(),
        variables: snapshot.variables.len(),
        prepared_statements: snapshot.named.len(),
        snapshot_id: door.kept.keep_snapshot(snapshot).to_string(),
    };
    Ok(answer(StatusCode::CREATED, &taken))
}

/// Which snapshot.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreSnapshot {
    /// Its number.
    #[schema(format = "uuid")]
    snapshot_id: String,
}

/// Restore a snapshot
///
/// Settings, variables and prepared statements of a session become those of the snapshot, which
/// may be of another session of the same role.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/state/restore", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    request_body = RestoreSnapshot,
    responses((status = 200, description = "The state as it is now.", body = StateView))
)]
async fn restore_session_snapshot(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(which): JsonBody<RestoreSnapshot>,
) -> ApiResult {
    let snapshot = door.kept.snapshot(&which.snapshot_id, &caller.identity.role)?;
    let mut borrowed = borrow(&door, &caller, id)?;
    let restored = restore(&door, &mut borrowed, snapshot).await;
    borrowed.give_back();
    Ok(answer(StatusCode::OK, &restored?))
}

async fn restore(
    door: &HttpDoor,
    borrowed: &mut Borrowed<Client>,
    snapshot: Snapshot,
) -> Result<StateView> {
    let now = look(door, borrowed).await?;
    let mut settings: Settings = now.settings.into_keys().map(|name| (name, None)).collect();
    settings.extend(snapshot.settings.into_iter().map(|(name, value)| (name, Some(value))));
    apply(door, borrowed.session()?, &settings).await?;
    {
        let mut state = borrowed.kept().about.state.lock();
        state.remember(&settings);
        state.variables = snapshot.variables;
        state.named = snapshot.named;
        state.note("restore", snapshot.name);
    }
    look(door, borrowed).await
}

/// What PostgreSQL's process of a session has used since it began; other sessions may have had it.
#[derive(Serialize, ToSchema)]
struct BackendUsage {
    /// The process.
    backend_pid: u32,
    /// Bytes of memory that it has, without those that all processes share.
    memory_bytes: u64,
    /// Milliseconds on a processor.
    cpu_ms: u64,
    /// Bytes read from disk; null where the system does not tell.
    #[schema(required)]
    read_bytes: Option<u64>,
    /// Bytes written to disk; null where the system does not tell.
    #[schema(required)]
    written_bytes: Option<u64>,
}

/// What a session has used.
#[derive(Serialize, ToSchema)]
struct SessionResources {
    /// Number of the session.
    session_id: u64,
    /// Requests.
    queries: u64,
    /// Milliseconds of requests.
    query_ms: u64,
    /// Transactions.
    transactions: u64,
    /// Milliseconds of waiting for connections.
    wait_ms: u64,
    /// Bytes from its client.
    bytes_received: u64,
    /// Bytes to its client.
    bytes_sent: u64,
    /// Prepared statements; null where its client alone knows.
    #[schema(required)]
    prepared_statements: Option<usize>,
    /// Its process in PostgreSQL, of the embedded one, while it has one.
    #[schema(required)]
    backend: Option<BackendUsage>,
    /// Limits that were set for it.
    limits: BTreeMap<String, u64>,
}

fn resources_of(door: &HttpDoor, view: &SessionView) -> SessionResources {
    let totals = view.since_reset();
    let kept = door.kept.look(view.entry.id.0);
    let usage = |pid| {
        let usage = backend_usage(pid)?;
        Some(BackendUsage {
            backend_pid: pid,
            memory_bytes: usage.memory_bytes,
            cpu_ms: usage.cpu_ms,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
        })
    };
    let is_local = door.config.now().backend.mode == crate::config::BackendMode::Embedded;
    let state = kept.as_ref().map(|kept| kept.about.state.lock());
    SessionResources {
        session_id: view.entry.id.0,
        queries: totals.queries,
        query_ms: totals.query_us / 1000,
        transactions: totals.transactions(),
        wait_ms: totals.wait_us / 1000 + view.waiting.map_or(0, millis),
        bytes_received: totals.received,
        bytes_sent: totals.sent,
        prepared_statements: state.as_ref().map(|state| state.named.len()),
        backend: view.backend_pid.filter(|_| is_local).and_then(usage),
        limits: state.map_or_else(BTreeMap::new, |state| state.limits.clone()),
    }
}

/// Get what a session has used
///
/// Since it was opened, or since its counters were reset.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/resources", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "What it has used.", body = SessionResources))
)]
async fn get_session_resources(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let view = find(&door, &caller, id, "read:monitoring").await?;
    Ok(answer(StatusCode::OK, &resources_of(&door, &view)))
}

/// Reset the counters of a session
///
/// What it uses is counted from now on.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/resources/reset", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "What it has used since.", body = SessionResources))
)]
async fn reset_session_resources(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let view = find(&door, &caller, id, "admin:sessions").await?;
    view.reset();
    let view = find(&door, &caller, id, "admin:sessions").await?;
    Ok(answer(StatusCode::OK, &resources_of(&door, &view)))
}

/// Limits of a session. What is left out stays; null takes one away.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateLimits {
    /// MiB of memory for one step of a query (work_mem).
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_memory_mb: Option<Option<u64>>,
    /// Seconds of a statement (statement_timeout).
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_cpu_seconds: Option<Option<u64>>,
    /// Bytes of temporary files (temp_file_limit); for superusers.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    max_io_bytes: Option<Option<u64>>,
    /// Processes that help with a query (max_parallel_workers_per_gather).
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    max_parallel_queries: Option<Option<u64>>,
    /// Answers 501.
    max_open_cursors: Option<u64>,
    /// Answers 501; network.max_connections_per_user is the same for everybody.
    max_sessions_per_user: Option<u64>,
}

impl UpdateLimits {
    /// Each limit with its value, the setting that enforces it, and how that is written.
    fn settings(&self) -> Vec<(&'static str, Option<u64>, &'static str, String)> {
        type Write = fn(u64) -> String;
        let all: [(&str, Option<Option<u64>>, &str, Write); 4] = [
            ("max_memory_mb", self.max_memory_mb, "work_mem", |n| format!("{n}MB")),
            ("max_cpu_seconds", self.max_cpu_seconds, "statement_timeout", |n| format!("{n}s")),
            ("max_io_bytes", self.max_io_bytes, "temp_file_limit", |n| {
                n.div_ceil(1024).to_string()
            }),
            (
                "max_parallel_queries",
                self.max_parallel_queries,
                "max_parallel_workers_per_gather",
                |n| n.to_string(),
            ),
        ];
        let given = all.into_iter().filter_map(|(name, value, setting, write)| {
            let value = value?;
            Some((name, value, setting, value.map(write).unwrap_or_default()))
        });
        given.collect()
    }
}

/// Limit what a session may use
///
/// One that the caller has opened over HTTP; by settings of PostgreSQL.
#[utoipa::path(
    put, path = "/api/v1/sessions/{id}/resources/limits", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    request_body = UpdateLimits,
    responses((status = 200, description = "Its use and its limits.", body = SessionResources))
)]
async fn update_session_limits(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(new): JsonBody<UpdateLimits>,
) -> ApiResult {
    if new.max_open_cursors.is_some() || new.max_sessions_per_user.is_some() {
        return Err(unsupported("session_limits_of_rustydb").into());
    }
    let limits = new.settings();
    if limits.is_empty() {
        return Err(Error::new(ErrorKind::ValidationError, "no limit is given").into());
    }
    let given = |(_, value, setting, text): &(&str, Option<u64>, &str, String)| {
        ((*setting).to_owned(), value.map(|_| text.clone()))
    };
    let settings: Settings = limits.iter().map(given).collect();
    let mut borrowed = borrow(&door, &caller, id)?;
    let applied = apply(&door, borrowed.session()?, &settings).await;
    if applied.is_ok() {
        let mut state = borrowed.kept().about.state.lock();
        state.remember(&settings);
        for (name, value, ..) in &limits {
            match value {
                Some(value) => state.limits.insert((*name).to_owned(), *value),
                None => state.limits.remove(*name),
            };
        }
        let names: Vec<&str> = limits.iter().map(|(name, ..)| *name).collect();
        state.note("limits", Some(names.join(", ")));
    }
    borrowed.give_back();
    applied?;
    let view = find(&door, &caller, id, "admin:sessions").await?;
    Ok(answer(StatusCode::OK, &resources_of(&door, &view)))
}
