//! Locks of PostgreSQL's sessions, and who waits for whom.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, Params};
use super::super::open::Open;
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;

/// How often, and after which pause, it is looked whether a lock is gone.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(50);

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_locks))
        .routes(routes!(list_lock_waits))
        .routes(routes!(detect_deadlocks))
        .routes(routes!(release_lock))
}

/// A lock.
#[derive(Serialize, Deserialize, ToSchema)]
struct Lock {
    /// Its number.
    lock_id: String,
    /// What is locked: relation, tuple, transactionid, advisory, …
    locktype: String,
    /// The relation.
    #[schema(required)]
    relation: Option<String>,
    /// AccessShareLock, …
    mode: String,
    /// Whether it is held; else it is waited for.
    granted: bool,
    /// PostgreSQL's process.
    #[schema(required)]
    pid: Option<u32>,
    /// The caller's transaction that holds it or waits for it; anybody's for a superuser.
    #[serde(default)]
    #[schema(required)]
    transaction_id: Option<u64>,
    /// Milliseconds that it has waited.
    #[schema(required)]
    waiting_ms: Option<i64>,
    /// Processes that it waits for.
    blocked_by: Vec<i32>,
}

/// Which locks.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LockQuery {
    /// Those of this relation.
    relation: Option<String>,
    /// Those that are held, or those that are waited for.
    granted: Option<bool>,
    /// Another database than api.database.
    database: Option<String>,
}

/// List locks
///
/// What PostgreSQL's sessions hold or wait for, those that wait first.
#[utoipa::path(
    get, path = "/api/v1/transactions/locks", tag = "transactions", params(LockQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<Lock>))
)]
async fn get_locks(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<LockQuery>,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, query.database.as_deref())?;
    let granted = query.granted.map(|granted| granted.to_string());
    let sql = include_str!("../../../../sql/api/locks.sql");
    let params = [query.relation.as_deref(), granted.as_deref()];
    let list = fetch::page::<Lock>(&door, &mut session, sql, &params, page).await?;
    let identity = &caller.identity;
    let own = |open: &Open| identity.is_superuser || open.owner == identity.role;
    let open: HashMap<_, _> = door
        .transactions
        .list(own)
        .into_iter()
        .filter_map(|open| Some((open.entry.slot().backend_pid()?, open.id)))
        .collect();
    let list = list.map(|lock| {
        let transaction_id = lock.pid.and_then(|pid| open.get(&pid).copied());
        Lock { transaction_id, ..lock }
    });
    Ok(answer(StatusCode::OK, &list))
}

/// A pair of processes.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
struct Wait {
    /// Process that waits.
    waiting: i32,
    /// Process that it waits for.
    holding: i32,
    /// Role of the one.
    #[schema(required)]
    waiting_user: Option<String>,
    /// Role of the other.
    #[schema(required)]
    holding_user: Option<String>,
    /// Statement of the one.
    #[schema(required)]
    waiting_query: Option<String>,
    /// Statement of the other.
    #[schema(required)]
    holding_query: Option<String>,
}

/// Who waits for whom.
#[derive(Serialize, ToSchema)]
struct WaitGraph {
    /// The processes.
    nodes: Vec<i32>,
    /// From the one that waits to the one that it waits for.
    edges: Vec<Wait>,
}

async fn waits(door: &HttpDoor, caller: &Caller) -> Result<Vec<Wait>> {
    let mut session = caller.session(door, None)?;
    let sql = include_str!("../../../../sql/api/lock_waits.sql");
    fetch::run(door, &mut session, sql, &[]).await?.typed()
}

/// Get who waits for whom
///
/// The graph of PostgreSQL's processes that wait for locks.
#[utoipa::path(
    get, path = "/api/v1/transactions/locks/waits", tag = "transactions",
    responses((status = 200, description = "The graph.", body = WaitGraph))
)]
async fn list_lock_waits(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    let edges = waits(&door, &caller).await?;
    let mut nodes: Vec<i32> = edges.iter().flat_map(|edge| [edge.waiting, edge.holding]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    Ok(answer(StatusCode::OK, &WaitGraph { nodes, edges }))
}

/// Circles of processes that wait for each other.
#[derive(Serialize, ToSchema)]
struct Deadlocks {
    /// Each circle, by PostgreSQL's processes.
    cycles: Vec<Vec<i32>>,
}

/// Look for deadlocks
///
/// Circles in the graph of waiting processes. PostgreSQL breaks each after its deadlock_timeout.
#[utoipa::path(
    post, path = "/api/v1/transactions/deadlocks/detect", tag = "transactions",
    responses((status = 200, description = "The circles there are now.", body = Deadlocks))
)]
async fn detect_deadlocks(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    let edges = waits(&door, &caller).await?;
    let edges: Vec<_> = edges.iter().map(|edge| (edge.waiting, edge.holding)).collect();
    Ok(answer(StatusCode::OK, &Deadlocks { cycles: cycles(&edges) }))
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ReleaseMode {
    /// The statement of who holds it, or waits for it, is cancelled.
    #[default]
    Cancel,
    /// His connection is closed.
    Terminate,
}

/// How a lock is released.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReleaseQuery {
    /// cancel, terminate.
    #[serde(default)]
    #[param(inline, required = false)]
    mode: ReleaseMode,
}

/// A lock that was to be released.
#[derive(Serialize, ToSchema)]
struct ReleasedLock {
    /// Its number.
    lock_id: String,
    /// unlock: the advisory lock of a session of the caller's; cancel; terminate.
    action: &'static str,
    /// Whether it is gone. A cancelled statement may leave it to its transaction.
    released: bool,
}

/// A lock as pg_locks has it.
#[derive(Deserialize)]
struct Held {
    pid: Option<u32>,
    granted: bool,
    locktype: String,
    mode: String,
    classid: Option<i64>,
    objid: Option<i64>,
    objsubid: Option<i64>,
}

impl Held {
    /// The call that gives an advisory lock back.
    fn unlock(&self) -> Option<String> {
        let shared = if self.mode == "ShareLock" { "_shared" } else { "" };
        let (high, low) = (self.classid?, self.objid?);
        // Both are unsigned here and signed there.
        let keys = match self.objsubid? {
            1 => ((high << 32) | low).to_string(),
            _ => format!("{}, {}", high as u32 as i32, low as u32 as i32),
        };
        (self.granted && self.locktype == "advisory")
            .then(|| format!("SELECT pg_catalog.pg_advisory_unlock{shared}({keys})"))
    }
}

async fn held(door: &HttpDoor, session: &mut Session, id: &str) -> Result<Option<Held>> {
    let sql = include_str!("../../../../sql/api/lock.sql");
    let found: Vec<Held> = fetch::run(door, session, sql, &[Some(id)]).await?.typed()?;
    Ok(found.into_iter().next())
}

/// Release a lock
///
/// PostgreSQL cannot take a lock from a session. The statement of who holds it is cancelled, or his
/// connection closed, where the caller may do that in PostgreSQL. An advisory lock of a session
/// that the caller has opened over HTTP is given back in that session.
#[utoipa::path(
    delete, path = "/api/v1/transactions/locks/{lock_id}", tag = "transactions",
    params(("lock_id" = String, Path, description = "Its number in the list."), ReleaseQuery),
    responses((status = 200, description = "What was done.", body = ReleasedLock))
)]
async fn release_lock(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<String>,
    Params(query): Params<ReleaseQuery>,
) -> ApiResult {
    let mut session = caller.session(&door, None)?;
    let missing = || Error::new(ErrorKind::NotFound, format!("there is no lock {id}"));
    let lock = held(&door, &mut session, &id).await?.ok_or_else(missing)?;
    let Some(pid) = lock.pid else {
        let text = "a prepared transaction holds the lock";
        return Err(Error::new(ErrorKind::Conflict, text)
            .with_hint("GET /api/v1/transactions/prepared lists those that can be rolled back")
            .into());
    };
    let action = match unlock(&door, &caller, pid, &lock).await? {
        true => "unlock",
        false => {
            let (function, action) = match query.mode {
                ReleaseMode::Cancel => ("pg_cancel_backend", "cancel"),
                ReleaseMode::Terminate => ("pg_terminate_backend", "terminate"),
            };
            let sql = format!("SELECT pg_catalog.{function}($1::int4)");
            fetch::run(&door, &mut session, &sql, &[Some(&pid.to_string())]).await?;
            action
        }
    };
    let mut released = false;
    for _ in 0..LOOKS {
        released = held(&door, &mut session, &id).await?.is_none();
        if released {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(answer(StatusCode::OK, &ReleasedLock { lock_id: id, action, released }))
}

/// Gives an advisory lock back in the caller's session that has it, if it is one.
async fn unlock(door: &HttpDoor, caller: &Caller, pid: u32, lock: &Held) -> Result<bool> {
    let Some(sql) = lock.unlock() else { return Ok(false) };
    let open = door.kept.of(&caller.identity.role);
    let Some(kept) = open.iter().find(|kept| kept.entry.slot().backend_pid() == Some(pid)) else {
        return Ok(false);
    };
    let mut borrowed = door.kept.borrow(door, kept.id, caller)?;
    let ran = fetch::run(door, borrowed.session()?, &sql, &[]).await;
    borrowed.give_back();
    ran.map(|_| true)
}

/// The circles of a graph, each once, beginning with its lowest number.
fn cycles(edges: &[(i32, i32)]) -> Vec<Vec<i32>> {
    let mut next: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    edges.iter().for_each(|(from, to)| next.entry(*from).or_default().push(*to));
    let mut found = Vec::new();
    for start in next.keys() {
        // The shortest way back, through higher numbers only.
        let mut before: BTreeMap<i32, i32> = BTreeMap::new();
        let mut queue = VecDeque::from([*start]);
        'search: while let Some(at) = queue.pop_front() {
            for to in next.get(&at).into_iter().flatten() {
                if to == start {
                    let mut cycle = vec![at];
                    while let Some(from) = before.get(cycle.last().unwrap_or(start)) {
                        cycle.push(*from);
                    }
                    cycle.reverse();
                    found.push(cycle);
                    break 'search;
                }
                if to > start && !before.contains_key(to) {
                    before.insert(*to, at);
                    queue.push_back(*to);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advisory_locks_are_given_back_by_their_keys() {
        let lock = |classid, objid, objsubid, mode: &str| Held {
            pid: Some(1),
            granted: true,
            locktype: "advisory".into(),
            mode: mode.into(),
            classid: Some(classid),
            objid: Some(objid),
            objsubid: Some(objsubid),
        };
        let sql = |lock: Held| lock.unlock().unwrap();
        let call = |keys: &str| format!("SELECT pg_catalog.pg_advisory_unlock{keys}");
        assert_eq!(sql(lock(0, 7, 1, "ExclusiveLock")), call("(7)"));
        let (high, low) = (0xffff_ffff, 0xffff_fffe);
        assert_eq!(sql(lock(high, low, 1, "ShareLock")), call("_shared(-2)"));
        assert_eq!(sql(lock(high, 5, 2, "ExclusiveLock")), call("(-1, 5)"));
        let waits = Held { granted: false, ..lock(0, 7, 1, "ExclusiveLock") };
        assert_eq!(waits.unlock(), None);
    }

    #[test]
    fn circles() {
        assert_eq!(cycles(&[(1, 2), (2, 3)]), Vec::<Vec<i32>>::new());
        assert_eq!(cycles(&[(1, 2), (2, 3), (3, 1), (9, 1)]), [[1, 2, 3]]);
        assert_eq!(cycles(&[(2, 1), (1, 2), (4, 5), (5, 4), (1, 4)]), [[1, 2], [4, 5]]);
        assert_eq!(cycles(&[(1, 1)]), [[1]]);
    }
}
