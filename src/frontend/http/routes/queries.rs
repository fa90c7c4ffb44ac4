//! Statements in work: who runs what, and how it is stopped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath};
use super::super::paging::{List, Page};
use super::super::values::{millis, timestamp};
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Session, SessionView};

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(list_active_queries)).routes(routes!(cancel_query))
}

/// A statement in work.
#[derive(Serialize, ToSchema)]
struct ActiveQuery {
    /// Its number.
    #[schema(format = "uuid")]
    query_id: String,
    /// Number of its session.
    session_id: u64,
    /// Role that runs it.
    user: String,
    /// The database.
    database: String,
    /// postgres, native, http.
    protocol: &'static str,
    /// The statement; null while it waits for a connection.
    #[schema(required)]
    sql: Option<String>,
    /// active, or waiting: for a connection.
    state: &'static str,
    /// When it began.
    #[schema(format = DateTime)]
    started_at: String,
    /// Milliseconds since then.
    duration_ms: u64,
    /// What PostgreSQL waits for.
    #[schema(required)]
    wait_event: Option<String>,
    /// PostgreSQL's process.
    #[schema(required)]
    backend_pid: Option<u32>,
}

/// What PostgreSQL says of a process.
#[derive(Deserialize)]
pub(super) struct Activity {
    pid: u32,
    sql: Option<String>,
    wait_event: Option<String>,
    /// When its state changed.
    pub(super) changed_at: Option<String>,
    /// Milliseconds since then.
    pub(super) rested_ms: Option<i64>,
}

/// What PostgreSQL says of processes, as far as the session's role may know it.
pub(super) async fn activity(
    door: &HttpDoor,
    session: &mut Session,
    pids: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, Activity>> {
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    if pids.is_empty() {
        return Ok(HashMap::new());
    }
    let pids = format!("{{{}}}", pids.join(","));
    let sql = include_str!("../../../../sql/api/activity.sql");
    let found: Vec<Activity> = fetch::run(door, session, sql, &[Some(&pids)]).await?.typed()?;
    Ok(found.into_iter().map(|one| (one.pid, one)).collect())
}

/// Whether the session's role is in one of these roles of PostgreSQL.
async fn is_member(door: &HttpDoor, session: &mut Session, roles: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Member {
        yes: bool,
    }
    let sql = "SELECT pg_catalog.bool_or(pg_catalog.pg_has_role(r.oid, 'MEMBER')) AS yes \
               FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::name[])";
    let found = fetch::run(door, session, sql, &[Some(roles)]).await?;
    Ok(found.one::<Member>(|| "there are no roles".into())?.yes)
}

/// List running statements
///
/// The caller's own; everybody's for administrators, for who may `read:monitoring`, and for
/// members of `pg_read_all_stats` and `pg_signal_backend`.
#[utoipa::path(
    get, path = "/api/v1/queries/active", tag = "query", params(Page),
    responses((status = 200, description = "A page of them.", body = List<ActiveQuery>))
)]
async fn list_active_queries(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, None)?;
    let sees_all = caller.may(&door, "read:monitoring").await?
        || is_member(&door, &mut session, "{pg_read_all_stats,pg_signal_backend}").await?;
    let own = session.entry().id;
    let is_visible = |view: &SessionView| {
        let entry = &view.entry;
        view.request_at.is_some()
            && entry.id != own
            && (sees_all || entry.role == caller.identity.role)
    };
    let views: Vec<_> = door.admin.sessions().into_iter().filter(is_visible).collect();
    let pids = views.iter().filter_map(|view| view.backend_pid);
    let mut known = activity(&door, &mut session, pids).await?;
    let described = |view: SessionView| {
        let entry = &view.entry;
        let activity = view.backend_pid.and_then(|pid| known.remove(&pid));
        let (sql, wait_event) = activity.map_or((None, None), |a| (a.sql, a.wait_event));
        let began = view.request_at.unwrap_or_else(SystemTime::now);
        ActiveQuery {
            query_id: view.query_id().unwrap_or_default().to_string(),
            session_id: entry.id.0,
            user: entry.role.to_string(),
            database: entry.database.to_string(),
            protocol: entry.protocol.as_str(),
            sql,
            state: if view.waiting.is_some() { "waiting" } else { "active" },
            started_at: timestamp(began),
            duration_ms: began.elapsed().map_or(0, millis),
            wait_event,
            backend_pid: view.backend_pid,
        }
    };
    Ok(answer(StatusCode::OK, &page.of_mapped(views, described)?))
}

/// A statement that was asked to stop.
#[derive(Serialize, ToSchema)]
struct CancelledQuery {
    /// Its number.
    #[schema(format = "uuid")]
    query_id: String,
    /// Always cancelled: PostgreSQL was told; whoever ran it gets the error 57014.
    status: &'static str,
}

/// Cancel a running statement
///
/// One's own; that of another role as an administrator, or where PostgreSQL's own
/// `pg_cancel_backend` may be called for it.
#[utoipa::path(
    delete, path = "/api/v1/queries/{query_id}", tag = "query",
    params(("query_id" = String, Path, description = "Its number.", format = "uuid")),
    responses((status = 200, description = "It was told to stop.", body = CancelledQuery))
)]
async fn cancel_query(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    let query_id = Uuid::parse_str(&id)
        .map_err(|_| Error::new(ErrorKind::ValidationError, "the number is no UUID"))?;
    let missing = || {
        Error::new(ErrorKind::NotFound, format!("there is no running statement {query_id}"))
            .with_hint("GET /api/v1/queries/active lists them")
    };
    let found = door.admin.sessions().into_iter().find(|view| view.query_id() == Some(query_id));
    let view = found.ok_or_else(missing)?;
    let is_own = view.entry.role == caller.identity.role;
    if is_own || caller.may(&door, "admin:queries").await? {
        view.entry.cancel().await;
    } else {
        let mut session = caller.session(&door, None)?;
        if !is_member(&door, &mut session, "{pg_signal_backend}").await? {
            return Err(missing().into());
        }
        let pid = view.backend_pid.ok_or_else(missing)?.to_string();
        let sql = "SELECT pg_catalog.pg_cancel_backend($1::int4)";
        fetch::run(&door, &mut session, sql, &[Some(&pid)]).await?;
    }
    let query_id = query_id.to_string();
    Ok(answer(StatusCode::OK, &CancelledQuery { query_id, status: "cancelled" }))
}
