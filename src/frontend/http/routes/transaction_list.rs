//! The open transactions: those over several HTTP requests, and all others that PostgreSQL lets the
//! caller see.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath};
use super::super::open::Open;
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch};
use super::{Routes, aliased};
use crate::error::{ErrorKind, Result};

/// How long a connection is waited for to ask PostgreSQL: that transactions have taken all of them
/// may be why somebody looks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list_transactions))
        .route(
            "/api/v1/transactions/active",
            aliased("/api/v1/transactions", axum::routing::get(list_transactions)),
        )
        .routes(routes!(get_transaction))
}

/// A transaction.
#[derive(Serialize, ToSchema)]
pub struct Transaction {
    /// Its number; null when it did not begin with `POST /api/v1/transactions`.
    #[schema(required)]
    transaction_id: Option<u64>,
    /// Role that began it.
    user: String,
    /// Name for people.
    #[schema(required)]
    name: Option<String>,
    /// The database.
    database: String,
    /// busy: a request uses it; open: none does; failed: none does, and after a statement that has
    /// failed nothing but going back is possible.
    state: &'static str,
    /// read_committed, repeatable_read, serializable; null when it did not begin here.
    #[schema(required)]
    isolation_level: Option<String>,
    /// Whether it may only read; null when it did not begin here.
    #[schema(required)]
    read_only: Option<bool>,
    /// When it began.
    #[schema(format = DateTime)]
    started_at: String,
    /// Milliseconds since then.
    duration_ms: u64,
    /// PostgreSQL's process.
    #[schema(required)]
    backend_pid: Option<u32>,
    /// Its number in PostgreSQL, once it has changed something.
    #[schema(required)]
    backend_xid: Option<u32>,
    /// Locks that it holds; null where PostgreSQL was not asked.
    #[schema(required)]
    locks_held: Option<u64>,
    /// Number of the session; null when its client is not connected to RustyDB.
    #[schema(required)]
    session_id: Option<u64>,
    /// Statements that ran in it; null when it did not begin here.
    #[schema(required)]
    queries_executed: Option<u64>,
    /// Savepoints, the newest last.
    savepoints: Vec<String>,
}

impl From<&Open> for Transaction {
    fn from(open: &Open) -> Self {
        Self {
            transaction_id: Some(open.id),
            user: open.owner.to_string(),
            name: open.about.name.clone(),
            database: open.about.database.clone(),
            state: match (open.is_busy(), open.has_failed()) {
                (true, _) => "busy",
                (false, true) => "failed",
                (false, false) => "open",
            },
            isolation_level: Some(open.about.isolation.lock().clone()),
            read_only: Some(open.about.read_only),
            started_at: open.started_at.format(&Rfc3339).unwrap_or_default(),
            duration_ms: u64::try_from(open.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            backend_pid: open.entry.slot().backend_pid(),
            backend_xid: None,
            locks_held: None,
            session_id: Some(open.entry.id.0),
            queries_executed: Some(open.requests()),
            savepoints: open.about.savepoints.lock().clone(),
        }
    }
}

/// A transaction as PostgreSQL has it.
#[derive(Deserialize)]
struct Seen {
    pid: u32,
    user: Option<String>,
    database: Option<String>,
    state: Option<String>,
    started_at: String,
    duration_ms: u64,
    xid: Option<u32>,
    locks_held: u64,
}

impl Seen {
    fn into_transaction(self, session_id: Option<u64>) -> Transaction {
        Transaction {
            transaction_id: None,
            user: self.user.unwrap_or_default(),
            name: None,
            database: self.database.unwrap_or_default(),
            state: match self.state.as_deref() {
                Some("idle in transaction") => "open",
                Some("idle in transaction (aborted)") => "failed",
                _ => "busy",
            },
            isolation_level: None,
            read_only: None,
            started_at: self.started_at,
            duration_ms: self.duration_ms,
            backend_pid: Some(self.pid),
            backend_xid: self.xid,
            locks_held: Some(self.locks_held),
            session_id,
            queries_executed: None,
            savepoints: Vec::new(),
        }
    }
}

/// What PostgreSQL lets the caller see, by process; nothing when there is no connection for it.
async fn seen(door: &HttpDoor, caller: &Caller) -> Result<HashMap<u32, Seen>> {
    let sql = include_str!("../../../../sql/api/transactions.sql");
    let mut session = caller.session(door, None)?;
    let asked = tokio::time::timeout(PATIENCE, fetch::run(door, &mut session, sql, &[])).await;
    match asked {
        Ok(Ok(found)) => {
            let found: Vec<Seen> = found.typed()?;
            Ok(found.into_iter().map(|one| (one.pid, one)).collect())
        }
        Ok(Err(error)) if error.kind() != ErrorKind::PoolExhausted => Err(error),
        Ok(Err(_)) | Err(_) => Ok(HashMap::new()),
    }
}

/// One that began here, with what PostgreSQL says of it.
fn joined(open: &Open, seen: &mut HashMap<u32, Seen>) -> Transaction {
    let transaction = Transaction::from(open);
    match transaction.backend_pid.and_then(|pid| seen.remove(&pid)) {
        Some(Seen { xid, locks_held, .. }) => {
            Transaction { backend_xid: xid, locks_held: Some(locks_held), ..transaction }
        }
        None => transaction,
    }
}

/// List transactions
///
/// The open ones of the caller, the oldest first, of everybody for a superuser; and those that
/// PostgreSQL shows the caller whoever's client has begun them, without a `transaction_id`. When
/// all connections are taken PostgreSQL is not asked.
#[utoipa::path(
    get, path = "/api/v1/transactions", tag = "transactions", params(Page),
    responses((status = 200, description = "A page of them.", body = List<Transaction>))
)]
async fn list_transactions(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    page: Page,
) -> ApiResult {
    let mut seen = seen(&door, &caller).await?;
    let identity = &caller.identity;
    let own = |open: &Open| identity.is_superuser || open.owner == identity.role;
    let open = door.transactions.list(own);
    let mut all: Vec<_> = open.iter().map(|open| joined(open, &mut seen)).collect();
    let sessions = door.admin.sessions().into_iter();
    let sessions: HashMap<_, _> =
        sessions.filter_map(|view| Some((view.backend_pid?, view.entry.id.0))).collect();
    all.extend(seen.into_values().map(|one| {
        let session = sessions.get(&one.pid).copied();
        one.into_transaction(session)
    }));
    all.sort_by_key(|one| (std::cmp::Reverse(one.duration_ms), one.backend_pid));
    Ok(answer(StatusCode::OK, &page.of_all(all)?))
}

/// Get a transaction
///
/// One that the caller has begun.
#[utoipa::path(
    get, path = "/api/v1/transactions/{id}", tag = "transactions",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "The transaction.", body = Transaction))
)]
async fn get_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let open = door.transactions.find(id, &caller.identity.role)?;
    let mut seen = seen(&door, &caller).await?;
    Ok(answer(StatusCode::OK, &joined(&open, &mut seen)))
}
