//! How transactions fared: numbers, and the last deadlocks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, Params};
use super::super::paging::{List, Page};
use super::super::values::timestamp;
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use crate::error::Result;
use crate::telemetry::{Deadlock, Totals};

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(get_transaction_stats)).routes(routes!(list_deadlocks))
}

/// Which database.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DatabaseQuery {
    /// Another database than api.database.
    database: Option<String>,
}

/// What PostgreSQL has counted in a database since its statistics were reset.
#[derive(Default, Serialize, Deserialize, ToSchema)]
struct DatabaseCounters {
    /// The database.
    database: String,
    /// Transactions committed.
    committed: i64,
    /// Transactions rolled back.
    rolled_back: i64,
    /// Queries cancelled on a standby because of what the primary did.
    conflicts: i64,
    /// Deadlocks.
    deadlocks: i64,
}

async fn counters(
    door: &HttpDoor,
    caller: &Caller,
    query: &DatabaseQuery,
) -> Result<DatabaseCounters> {
    let mut session = caller.session(door, query.database.as_deref())?;
    let sql = "SELECT d.datname AS database, d.xact_commit AS committed, \
               d.xact_rollback AS rolled_back, d.conflicts AS conflicts, \
               d.deadlocks AS deadlocks FROM pg_catalog.pg_stat_database d \
               WHERE d.datname = pg_catalog.current_database()";
    fetch::run(door, &mut session, sql, &[]).await?.one(|| "the database is gone".into())
}

/// How the transactions of all sessions of this server fared, since its start.
#[derive(Serialize, ToSchema)]
struct TransactionStatistics {
    /// Transactions committed, single statements included.
    committed: u64,
    /// Transactions rolled back.
    rolled_back: u64,
    /// Transactions that are open now.
    active: usize,
    /// Transactions that failed because others ran at the same time (40001).
    conflicts: u64,
    /// Transactions that were the victims of deadlocks.
    deadlocks: u64,
    /// Milliseconds of a transaction, on average.
    average_duration_ms: f64,
    /// Transactions a second, on average of the last whole minute.
    throughput_per_second: u64,
    /// What PostgreSQL has counted in the database, other clients' included.
    database: DatabaseCounters,
}

/// Get the statistics of transactions
///
/// Of all sessions of this server, and what PostgreSQL has counted in the database.
#[utoipa::path(
    get, path = "/api/v1/transactions/stats", tag = "transactions", params(DatabaseQuery),
    responses((status = 200, description = "The numbers.", body = TransactionStatistics))
)]
async fn get_transaction_stats(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<DatabaseQuery>,
) -> ApiResult {
    let database = counters(&door, &caller, &query).await?;
    let mut totals = Totals::default();
    door.admin.totals().into_values().for_each(|of_one| totals += of_one);
    let mut averages = Totals::default();
    door.admin.averages().into_values().for_each(|of_one| averages += of_one);
    let open = door.admin.sessions().into_iter().filter(|view| view.transaction_at.is_some());
    let us = totals.transaction_us as f64 / totals.transactions().max(1) as f64;
    let statistics = TransactionStatistics {
        committed: totals.committed,
        rolled_back: totals.rolled_back,
        active: open.count(),
        conflicts: door.metrics.serialization_failures.get(),
        deadlocks: door.metrics.deadlocks.total(),
        average_duration_ms: us / 1000.0,
        throughput_per_second: averages.transactions(),
        database,
    };
    Ok(answer(StatusCode::OK, &statistics))
}

/// Whose transaction PostgreSQL has given up.
#[derive(Serialize, ToSchema)]
struct Victim {
    /// Number of the session.
    session_id: u64,
    /// Its role.
    user: String,
    /// Its database.
    database: String,
}

/// A deadlock.
#[derive(Serialize, ToSchema)]
struct DeadlockEntry {
    /// When the victim was told.
    #[schema(format = DateTime)]
    detected_at: String,
    /// Whose transaction was given up.
    victim: Victim,
    /// Processes of PostgreSQL that waited in a circle.
    participants: Vec<u32>,
    /// Always null: PostgreSQL writes the statements into its own log only.
    #[schema(required)]
    queries: Option<Vec<String>>,
    /// What each of the processes waited for.
    resource: Vec<String>,
    /// PostgreSQL's own words.
    detail: String,
}

impl From<Deadlock> for DeadlockEntry {
    fn from(deadlock: Deadlock) -> Self {
        let (participants, resource) = deadlock.waits().into_iter().unzip();
        Self {
            detected_at: timestamp(deadlock.at),
            victim: Victim {
                session_id: deadlock.session,
                user: deadlock.role.to_string(),
                database: deadlock.database.to_string(),
            },
            participants,
            queries: None,
            resource,
            detail: deadlock.detail,
        }
    }
}

/// The last deadlocks.
#[derive(Serialize, ToSchema)]
struct DeadlockHistory {
    /// What PostgreSQL has counted in the database since its statistics were reset.
    count: i64,
    /// Those in sessions of this server, the newest first.
    #[serde(flatten)]
    history: List<DeadlockEntry>,
}

/// List deadlocks
///
/// The last 100 in sessions of this server: those of the caller's role; everybody's for who may
/// `read:monitoring`.
#[utoipa::path(
    get, path = "/api/v1/transactions/deadlocks", tag = "transactions",
    params(DatabaseQuery, Page),
    responses((status = 200, description = "A page of them.", body = DeadlockHistory))
)]
async fn list_deadlocks(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<DatabaseQuery>,
    page: Page,
) -> ApiResult {
    let count = counters(&door, &caller, &query).await?.deadlocks;
    let sees_all = caller.may(&door, "read:monitoring").await?;
    let mut all = door.metrics.deadlocks.last();
    all.retain(|deadlock| sees_all || deadlock.role == caller.identity.role);
    let history = page.of_mapped(all, DeadlockEntry::from)?;
    Ok(answer(StatusCode::OK, &DeadlockHistory { count, history }))
}
