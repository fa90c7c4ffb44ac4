//! Connections of the pools to PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, Params};
use super::super::paging::{List, Page};
use super::super::values::timestamp;
use super::super::{HttpDoor, answer, fetch};
use super::pools::{KINDS, kind_of, name_of};
use super::queries::{Activity, activity};
use super::{Routes, aliased, aliased_to};
use crate::error::{Error, ErrorKind, Result};
use crate::session::admin::{HeldServer, PoolKind};

/// Time for PostgreSQL to say what its processes did last; without an answer it stays unknown.
const LOOK: Duration = Duration::from_secs(2);

/// Routes of this file.
pub fn routes() -> Routes {
    let one = |path: &str| path.replacen("/pool/", "/", 1);
    Routes::new()
        .routes(routes!(get_connections))
        .routes(routes!(get_connection, kill_connection))
        .route("/api/v1/pool/connections", aliased("/api/v1/connections", get(get_connections)))
        .route(
            "/api/v1/pool/connections/{id}",
            aliased_to(get(get_connection).delete(kill_connection), one),
        )
}

/// The prepared statements of a connection, as it was when it was given back last.
#[derive(Serialize, ToSchema)]
struct StatementCache {
    /// How many it may keep.
    max_size: usize,
    /// How many it has.
    size: u64,
    /// How often one was there that was to be run.
    hits: u64,
    /// How often PostgreSQL had to parse it.
    misses: u64,
}

/// A connection to PostgreSQL.
#[derive(Serialize, ToSchema)]
struct Connection {
    /// Its number, with the pool before it.
    #[schema(examples("main-7"))]
    connection_id: String,
    /// The pool: main, system.
    pool_id: &'static str,
    /// Number of the session that holds it.
    #[schema(required)]
    session_id: Option<u64>,
    /// Role that it is logged in as.
    user: String,
    /// The database.
    database: String,
    /// creating, idle, active, or recycling: being cleaned or closed.
    #[schema(inline)]
    state: ConnectionState,
    /// When its log-in began.
    #[schema(format = DateTime)]
    created_at: String,
    /// When PostgreSQL's process last did something, where the caller may know it.
    #[schema(required)]
    last_activity: Option<String>,
    /// PostgreSQL's process; null before the log-in is done.
    #[schema(required)]
    backend_pid: Option<u32>,
    /// How often it was lent to a session.
    borrow_count: u64,
    /// Its prepared statements.
    statement_cache: StatementCache,
    /// Version and cipher suite of its TLS; null = none.
    #[schema(required)]
    tls: Option<String>,
    /// Whether it is closed when it comes back.
    closing: bool,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ConnectionState {
    Creating,
    Idle,
    Active,
    Recycling,
}

fn state_of(kind: PoolKind, held: &HeldServer) -> ConnectionState {
    match (held.state(), kind) {
        ("login", _) => ConnectionState::Creating,
        ("idle", _) => ConnectionState::Idle,
        // No session of a client's holds it, but the server itself.
        ("tested", PoolKind::Main) => ConnectionState::Recycling,
        _ => ConnectionState::Active,
    }
}

fn pid_of(held: &HeldServer) -> Option<u32> {
    Some(held.server.listed.pid()).filter(|pid| *pid != 0)
}

fn described(
    door: &HttpDoor,
    kind: PoolKind,
    held: &HeldServer,
    known: &HashMap<u32, Activity>,
) -> Connection {
    let listed = &held.server.listed;
    let cached = listed.cached();
    let pid = pid_of(held);
    Connection {
        connection_id: id_of(kind, held),
        pool_id: name_of(kind),
        session_id: held.holder.as_ref().map(|view| view.entry.id.0),
        user: listed.role.to_string(),
        database: listed.database.to_string(),
        state: state_of(kind, held),
        created_at: timestamp(listed.since),
        last_activity: pid.and_then(|pid| known.get(&pid)?.changed_at.clone()),
        backend_pid: pid,
        borrow_count: listed.borrows(),
        statement_cache: StatementCache {
            max_size: door.config.now().pool.statement_cache_size,
            size: cached.size,
            hits: cached.hits,
            misses: cached.misses,
        },
        tls: listed.reached().and_then(|reached| Some(reached.ends.tls.as_deref()?.to_owned())),
        closing: listed.is_stale(),
    }
}

fn id_of(kind: PoolKind, held: &HeldServer) -> String {
    format!("{}-{}", name_of(kind), held.server.listed.id)
}

/// The connection of this number.
fn find(door: &HttpDoor, id: &str) -> Result<(PoolKind, HeldServer)> {
    let all = KINDS
        .into_iter()
        .flat_map(|kind| door.admin.held(kind).into_iter().map(move |held| (kind, held)));
    let mut found = all.filter(|(kind, held)| id_of(*kind, held) == id);
    found
        .next()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no connection \"{id}\"")))
}

/// What PostgreSQL says of the processes, if it says it soon: a pool that is drained has no
/// connection to ask over.
async fn known(
    door: &HttpDoor,
    caller: &Caller,
    servers: &[(PoolKind, HeldServer)],
) -> Result<HashMap<u32, Activity>> {
    if door.admin.paused().any() {
        return Ok(HashMap::new());
    }
    let mut session = caller.session(door, None)?;
    let pids = servers.iter().filter_map(|(_, held)| pid_of(held));
    let asked = tokio::time::timeout(LOOK, activity(door, &mut session, pids)).await;
    Ok(asked.ok().and_then(Result::ok).unwrap_or_default())
}

/// Which connections.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ConnectionQuery {
    /// Those of this pool: main, system.
    pool_id: Option<String>,
    /// Those in this state.
    #[param(inline)]
    state: Option<ConnectionState>,
    /// Those of this role.
    user: Option<String>,
    /// Those whose process has done nothing for so many seconds.
    min_idle_time: Option<u32>,
}

/// List connections
///
/// To PostgreSQL, of both pools.
#[utoipa::path(
    get, path = "/api/v1/connections", tag = "pools", params(ConnectionQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<Connection>))
)]
async fn get_connections(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<ConnectionQuery>,
    page: Page,
) -> ApiResult {
    let pool = query.pool_id.as_deref().map(kind_of).transpose();
    let pool = pool.map_err(|error| error.with_kind(ErrorKind::ValidationError))?;
    let mut all = Vec::new();
    for kind in KINDS {
        if pool.is_some_and(|pool| pool != kind) {
            continue;
        }
        all.extend(door.admin.held(kind).into_iter().map(|held| (kind, held)));
    }
    all.retain(|(kind, held)| {
        query.state.is_none_or(|state| state == state_of(*kind, held))
            && query.user.as_ref().is_none_or(|user| user == held.server.listed.role.as_str())
    });
    let known = known(&door, &caller, &all).await?;
    if let Some(least) = query.min_idle_time {
        let rested = |pid: u32| known.get(&pid)?.rested_ms;
        all.retain(|(_, held)| {
            pid_of(held).and_then(rested).is_some_and(|ms| ms >= i64::from(least) * 1000)
        });
    }
    let all: Vec<_> =
        all.iter().map(|(kind, held)| described(&door, *kind, held, &known)).collect();
    Ok(answer(StatusCode::OK, &page.of_all(all)?))
}

/// Get a connection
///
/// One of the connections to PostgreSQL.
#[utoipa::path(
    get, path = "/api/v1/connections/{id}", tag = "pools",
    params(("id" = String, Path, description = "Its number.", example = "main-7")),
    responses((status = 200, description = "The connection.", body = Connection))
)]
async fn get_connection(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    let found = [find(&door, &id)?];
    let known = known(&door, &caller, &found).await?;
    let [(kind, held)] = &found;
    Ok(answer(StatusCode::OK, &described(&door, *kind, held, &known)))
}

/// A connection that was closed.
#[derive(Serialize, ToSchema)]
struct ClosedConnection {
    /// Its number.
    connection_id: String,
    /// closed; or closing: it goes as soon as PostgreSQL lets it.
    status: &'static str,
}

/// Close a connection
///
/// Its statement is cancelled, and the session that holds it ends. A process of PostgreSQL that
/// does not end this way is terminated, where the caller may do that.
#[utoipa::path(
    delete, path = "/api/v1/connections/{id}", tag = "pools",
    params(("id" = String, Path, description = "Its number.", example = "main-7")),
    responses((status = 200, description = "It is closed.", body = ClosedConnection))
)]
async fn kill_connection(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    let (kind, held) = find(&door, &id)?;
    let mut is_closed = door.admin.close_server(kind, &held).await;
    if !is_closed && let Some(pid) = pid_of(&held) {
        let mut session = caller.session(&door, None)?;
        let sql = "SELECT pg_catalog.pg_terminate_backend($1::int4)";
        fetch::run(&door, &mut session, sql, &[Some(&pid.to_string())]).await?;
        is_closed = door.admin.close_server(kind, &held).await;
    }
    let status = if is_closed { "closed" } else { "closing" };
    Ok(answer(StatusCode::OK, &ClosedConnection { connection_id: id, status }))
}
