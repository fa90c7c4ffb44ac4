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
use crate::types::Protocol;

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
    /// Settings that were changed in it; null in a failed transaction, where PostgreSQL does not
    /// tell.
    #[schema(required)]
    pub(super) settings: Option<BTreeMap<String, String>>,
    /// Where names without a schema are looked for; null = as the session began, or in a failed
    /// transaction.
    #[schema(required)]
    search_path: Option<String>,
    /// Values of the client's own.
    #[schema(value_type = Object)]
    variables: BTreeMap<String, Value>,
    /// Names of the prepared statements.
    prepared_statements: Vec<String>,
    /// Open cursors of PostgreSQL; null in a failed transaction.
    #[schema(required)]
    cursors: Option<Vec<Value>>,
    /// none, open; failed: it can only be rolled back.
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
    let given = borrowed.kept().about.state.lock().settings.clone();
    let session = borrowed.session()?;
    let transaction = match (session.is_in_failed_transaction(), session.is_in_transaction()) {
        (true, _) => "failed",
        (false, true) => "open",
        (false, false) => "none",
    };
    let told = match (transaction, session.entry().slot().backend_pid()) {
        ("failed", _) => None,
        (_, None) => Some(Told { settings: given, ..Told::default() }),
        (_, Some(_)) => Some(ask(door, session, given.into_keys()).await?),
    };
    let (settings, search_path, cursors) = match told {
        Some(told) => (Some(told.settings), told.search_path, Some(told.cursors)),
        None => (None, None, None),
    };
    let state = borrowed.kept().about.state.lock();
    Ok(StateView {
        settings,
        search_path,
        variables: state.variables.clone(),
        prepared_statements: state.named.keys().cloned().collect(),
        cursors,
        transaction,
        tags: Vec::new(),
    })
}

/// Asks PostgreSQL; `given` = names of settings that came through the API.
async fn ask(
    door: &HttpDoor,
    session: &mut Session,
    given: impl Iterator<Item = String>,
) -> Result<Told> {
    let mut custom = session.custom_settings();
    custom.extend(given.filter(|name| name.contains('.')).map(|name| name.to_ascii_lowercase()));
    let custom = serde_json::to_string(&custom).map_err(Error::internal)?;
    let role = session.entry().role.to_string();
    let sql = include_str!("../../../../sql/api/session_state.sql");
    fetch::run(door, session, sql, &[Some(&custom), Some(&role)]).await?.one(String::new)
}

/// The settings that were looked at, for what cannot go on without them.
pub(super) fn readable(
    settings: Option<BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>> {
    settings.ok_or_else(|| {
        Error::sql(b"25P02", "the session is in a failed transaction: its settings cannot be read")
            .with_hint("roll the transaction back first")
    })
}

/// Settings in the order in which they can be given: what one role may set, another may not.
fn in_order(settings: &Settings) -> Vec<(&str, Option<&str>)> {
    let rank = |name: &str| match name.to_ascii_lowercase().as_str() {
        "session_authorization" => 1,
        "role" => 2,
        _ => 0,
    };
    let mut ordered: Vec<_> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    ordered.sort_by_key(|(name, _)| rank(name));
    // Who they are given as is the session's own role, whatever it has become since.
    if ordered.iter().any(|(name, _)| rank(name) > 1) {
        ordered.insert(0, ("role", Some("none")));
    }
    if ordered.iter().any(|(name, _)| rank(name) == 1) {
        ordered.insert(0, ("session_authorization", None));
    }
    ordered
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
    for (name, value) in in_order(settings) {
        if name.contains('\0') || value.is_some_and(|value| value.contains('\0')) {
            let text = "a setting contains U+0000";
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        let value = value.map_or_else(|| "NULL".to_owned(), quote_literal);
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

/// A session whose state is kept here: one of the caller's, or, with `admin:sessions`, anybody's.
pub(super) async fn borrow(door: &HttpDoor, caller: &Caller, id: u64) -> Result<Borrowed<Client>> {
    let view = find(door, caller, id, "read:monitoring").await?;
    if door.kept.look(id).is_none() {
        return Err(unsupported("session_state_of_other_doors"));
    }
    let is_own = view.entry.role == caller.identity.role;
    if !is_own && !caller.may(door, "admin:sessions").await? {
        let text = "the state of somebody else's session is for who may admin:sessions";
        return Err(Error::new(ErrorKind::AuthorizationFailed, text));
    }
    door.kept.borrow_anybodys(id)
}

/// Get the state of a session
///
/// Of one that the caller has opened over HTTP, or anybody for who may `admin:sessions`: what its
/// client of another door keeps is known to that client alone.
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
    let mut borrowed = borrow(&door, &caller, id).await?;
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
    let mut borrowed = borrow(&door, &caller, id).await?;
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
    let mut borrowed = borrow(&door, &caller, id).await?;
    let looked = look(&door, &mut borrowed).await;
    let named = borrowed.kept().about.state.lock().named.clone();
    if looked.as_ref().is_ok_and(|looked| looked.settings.is_some()) {
        borrowed.kept().about.state.lock().note("snapshot", new.name.clone());
    }
    borrowed.give_back();
    let looked = looked?;
    let settings = readable(looked.settings)?;
    let snapshot = Snapshot {
        name: new.name.clone(),
        taken: SystemTime::now(),
        owner: caller.identity.role.clone(),
        settings,
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
    let mut borrowed = borrow(&door, &caller, id).await?;
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
    let now = readable(now.settings)?;
    let mut settings: Settings = now.into_keys().map(|name| (name, None)).collect();
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
    /// Bytes from its client; null of HTTP, where a client's connection is of no session.
    #[schema(required)]
    bytes_received: Option<u64>,
    /// Bytes to its client; null of HTTP.
    #[schema(required)]
    bytes_sent: Option<u64>,
    /// Prepared statements; null where its client alone knows.
    #[schema(required)]
    prepared_statements: Option<usize>,
    /// Open cursors; null where its client alone knows, and while it cannot be asked.
    #[schema(required)]
    cursors: Option<usize>,
    /// Processes that help with its query now.
    parallel_workers: u64,
    /// Its process in PostgreSQL, of the embedded one, while it has one.
    #[schema(required)]
    backend: Option<BackendUsage>,
    /// Limits that were set for it.
    limits: BTreeMap<String, u64>,
}

/// Open cursors of a session that the caller may look into.
async fn cursors_of(door: &HttpDoor, caller: &Caller, id: u64) -> Option<usize> {
    let mut borrowed = borrow(door, caller, id).await.ok()?;
    let looked = look(door, &mut borrowed).await;
    borrowed.give_back();
    Some(looked.ok()?.cursors?.len())
}

async fn resources_of(
    door: &HttpDoor,
    caller: &Caller,
    view: &SessionView,
) -> Result<SessionResources> {
    let totals = view.since_reset();
    let parallel_workers = match view.backend_pid {
        Some(pid) => door.admin.parallel_workers(pid).await?,
        None => 0,
    };
    let cursors = cursors_of(door, caller, view.entry.id.0).await;
    let has_client = view.entry.protocol != Protocol::Http;
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
    Ok(SessionResources {
        session_id: view.entry.id.0,
        queries: totals.queries,
        query_ms: totals.query_us / 1000,
        transactions: totals.transactions(),
        wait_ms: totals.wait_us / 1000 + view.waiting.map_or(0, millis),
        bytes_received: has_client.then_some(totals.received),
        bytes_sent: has_client.then_some(totals.sent),
        prepared_statements: state.as_ref().map(|state| state.named.len()),
        cursors,
        parallel_workers,
        backend: view.backend_pid.filter(|_| is_local).and_then(usage),
        limits: state.map_or_else(BTreeMap::new, |state| state.limits.clone()),
    })
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
    Ok(answer(StatusCode::OK, &resources_of(&door, &caller, &view).await?))
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
    Ok(answer(StatusCode::OK, &resources_of(&door, &caller, &view).await?))
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
/// One that the caller has opened over HTTP, or anybody for who may `admin:sessions`; by settings
/// of PostgreSQL.
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
    let mut borrowed = borrow(&door, &caller, id).await?;
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
    Ok(answer(StatusCode::OK, &resources_of(&door, &caller, &view).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sets_is_settled_last() {
        let settings = |pairs: &[(&str, Option<&str>)]| {
            let owned = |(n, v): &(&str, Option<&str>)| ((*n).to_owned(), v.map(str::to_owned));
            pairs.iter().map(owned).collect::<Settings>()
        };
        let plain = settings(&[("a.b", None), ("work_mem", Some("1MB"))]);
        assert_eq!(in_order(&plain), [("a.b", None), ("work_mem", Some("1MB"))]);
        let all =
            settings(&[("Role", Some("r")), ("session_authorization", Some("s")), ("x", None)]);
        let expected = [
            ("session_authorization", None),
            ("role", Some("none")),
            ("x", None),
            ("session_authorization", Some("s")),
            ("Role", Some("r")),
        ];
        assert_eq!(in_order(&all), expected);
    }
}
