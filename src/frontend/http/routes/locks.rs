//! Locks of PostgreSQL's sessions, and who waits for whom.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, Params};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use crate::error::Result;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_locks))
        .routes(routes!(list_lock_waits))
        .routes(routes!(detect_deadlocks))
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
    pid: Option<i32>,
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
    fn circles() {
        assert_eq!(cycles(&[(1, 2), (2, 3)]), Vec::<Vec<i32>>::new());
        assert_eq!(cycles(&[(1, 2), (2, 3), (3, 1), (9, 1)]), [[1, 2, 3]]);
        assert_eq!(cycles(&[(2, 1), (1, 2), (4, 5), (5, 4), (1, 4)]), [[1, 2], [4, 5]]);
        assert_eq!(cycles(&[(1, 1)]), [[1]]);
    }
}
