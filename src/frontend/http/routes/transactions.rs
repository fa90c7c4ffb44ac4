//! Transactions over several requests, and two-phase commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody};
use super::super::open::{self, Hold, Open};
use super::super::paging::{List, Page};
use super::super::shelf::Borrowed;
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use super::transaction_list::Transaction;
use crate::error::{Error, ErrorKind, Result};
use crate::query::ddl::quote_name;
use crate::query::quote_literal;
use crate::session::Session;

/// Savepoints of a transaction.
const MAX_SAVEPOINTS: usize = 1000;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(begin_transaction))
        .routes(routes!(commit_transaction))
        .routes(routes!(rollback_transaction))
        .routes(routes!(list_savepoints, create_savepoint))
        .routes(routes!(delete_savepoint))
        .routes(routes!(rollback_to_savepoint))
        .routes(routes!(get_isolation, update_isolation))
        .routes(routes!(prepare_transaction))
        .routes(routes!(list_prepared_transactions))
        .routes(routes!(commit_prepared_transaction))
        .routes(routes!(rollback_prepared_transaction))
}

/// How far transactions are kept apart.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Isolation {
    /// PostgreSQL takes it as read_committed.
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    fn sql(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "READ UNCOMMITTED",
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        }
    }
}

/// A transaction that is to begin.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BeginTransaction {
    /// The role's default unless said otherwise.
    isolation_level: Option<Isolation>,
    /// Whether it may only read.
    read_only: Option<bool>,
    /// Whether it waits for a moment at which it cannot fail (serializable and read only).
    deferrable: Option<bool>,
    /// Seconds after which it is rolled back, used or not.
    #[schema(minimum = 1)]
    timeout_secs: Option<u32>,
    /// Name for people.
    #[schema(max_length = 128)]
    name: Option<String>,
    /// Another database than api.database.
    database: Option<String>,
}

/// How a transaction ended.
#[derive(Serialize, ToSchema)]
struct Ended {
    /// Its number.
    transaction_id: u64,
    /// committed, rolled_back, prepared.
    status: &'static str,
    /// Milliseconds that it took.
    duration_ms: u64,
}

/// Runs a command in a transaction; what the command leaves is given back.
async fn command(
    door: &HttpDoor,
    mut borrowed: Borrowed<open::Transaction>,
    sql: &str,
) -> Result<String> {
    let ran = fetch::run(door, borrowed.session()?, sql, &[]).await;
    borrowed.give_back();
    Ok(ran?.command)
}

/// Begin a transaction
///
/// Further requests take part by `transaction_id`, or by the header `X-Transaction-Id`. One that
/// is not used for `api.transaction_idle_timeout_secs` is rolled back. In the session that
/// `X-Session-Id` names, which does nothing else until the end; without that header in a new one.
#[utoipa::path(
    post, path = "/api/v1/transactions", tag = "transactions", request_body = BeginTransaction,
    responses((status = 201, description = "It has begun.", body = Transaction))
)]
async fn begin_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(begin): JsonBody<BeginTransaction>,
) -> ApiResult {
    if begin.timeout_secs == Some(0) {
        let text = "timeout_secs must be at least 1";
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    if begin.name.as_ref().is_some_and(|name| !(1..=128).contains(&name.len())) {
        let text = "name must have 1 to 128 bytes";
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    let mut hold = Hold::of(&door, &caller, &headers, None, begin.database.as_deref())?;
    if hold.session()?.is_in_transaction() {
        hold.finish();
        let text = "the session is in a transaction that was begun by SQL";
        return Err(Error::new(ErrorKind::Conflict, text).into());
    }
    // Who waits for a connection has begun one, too. A client's session counts itself.
    let role = &caller.identity.role;
    let room = match &hold {
        Hold::Bound(place) => {
            place.kept().about.claim.take().map(|()| door.transactions.room_within(role))
        }
        Hold::Own(_) | Hold::Lent(_) => door.transactions.room(&door, role),
    };
    let room = match room {
        Ok(room) => room,
        Err(error) => {
            hold.finish();
            return Err(error.into());
        }
    };
    let begun = begin_in(&door, hold.session()?, &begin).await;
    let Effective { isolation, read_only } = match begun {
        Ok(effective) => effective,
        Err(error) => {
            undo(&door, hold).await?;
            return Err(error.into());
        }
    };
    let (session, home) = match hold {
        Hold::Own(session) => (*session, None),
        Hold::Bound(mut place) => {
            let session = place.detach()?;
            (session, Some(open::Home { door: door.clone(), place: *place }))
        }
        Hold::Lent(_) => return Err(Error::internal("no session to begin in").into()),
    };
    let about = open::Transaction {
        isolation: Mutex::new(isolation),
        read_only,
        name: begin.name,
        database: session.entry().database.to_string(),
        limit: begin.timeout_secs.map(|secs| Duration::from_secs(secs.into())),
        savepoints: Mutex::default(),
        home: Mutex::new(home),
    };
    let kept = room.keep(&door, about, session)?;
    Ok(answer(StatusCode::CREATED, &Transaction::from(&*kept)))
}

/// A transaction that does not stay: its session is as it was before.
async fn undo(door: &HttpDoor, mut hold: Hold) -> Result<()> {
    if !hold.is_own() && hold.session()?.is_in_transaction() {
        fetch::run(door, hold.session()?, "ROLLBACK", &[]).await?;
    }
    hold.finish();
    Ok(())
}

/// Begins a transaction, and says what it has become.
async fn begin_in(
    door: &HttpDoor,
    session: &mut Session,
    begin: &BeginTransaction,
) -> Result<Effective> {
    let mut sql = String::from("BEGIN");
    if let Some(isolation) = begin.isolation_level {
        sql += &format!(" ISOLATION LEVEL {}", isolation.sql());
    }
    if let Some(read_only) = begin.read_only {
        sql += if read_only { " READ ONLY" } else { " READ WRITE" };
    }
    if let Some(deferrable) = begin.deferrable {
        sql += if deferrable { " DEFERRABLE" } else { " NOT DEFERRABLE" };
    }
    fetch::run(door, session, &sql, &[]).await?;
    effective(door, session).await
}

struct Effective {
    isolation: String,
    read_only: bool,
}

/// Asked with SHOW: a SELECT would be the first query, after which the level cannot be set.
async fn effective(door: &HttpDoor, session: &mut Session) -> Result<Effective> {
    let isolation = show(door, session, "transaction_isolation").await?.replace(' ', "_");
    // PostgreSQL knows the name, and keeps transactions no less apart.
    let isolation = isolation.replace("read_uncommitted", "read_committed");
    let read_only = show(door, session, "transaction_read_only").await? == "on";
    Ok(Effective { isolation, read_only })
}

async fn show(door: &HttpDoor, session: &mut Session, name: &str) -> Result<String> {
    let shown = fetch::run(door, session, &format!("SHOW {name}"), &[]).await?;
    let row: BTreeMap<String, String> = shown.one(|| format!("there is no setting {name}"))?;
    Ok(row.into_values().next().unwrap_or_default())
}

/// Commit a transaction
///
/// One in which a statement has failed is rolled back, and the answer is 409.
#[utoipa::path(
    post, path = "/api/v1/transactions/{id}/commit", tag = "transactions",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "It is committed.", body = Ended))
)]
async fn commit_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let open = door.transactions.find(id, &caller.identity.role)?;
    let borrowed = door.transactions.borrow(id, &caller.identity.role)?;
    if command(&door, borrowed, "COMMIT").await? != "COMMIT" {
        let text = "a statement of the transaction had failed, so it was rolled back";
        return Err(Error::new(ErrorKind::TransactionFailed, text).into());
    }
    Ok(answer(StatusCode::OK, &ended(&open, "committed")))
}

fn ended(open: &Open, status: &'static str) -> Ended {
    let duration_ms = u64::try_from(open.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ended { transaction_id: open.id, status, duration_ms }
}

/// Roll a transaction back
///
/// Nothing of it stays.
#[utoipa::path(
    post, path = "/api/v1/transactions/{id}/rollback", tag = "transactions",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "It is rolled back.", body = Ended))
)]
async fn rollback_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let open = door.transactions.find(id, &caller.identity.role)?;
    let borrowed = door.transactions.borrow(id, &caller.identity.role)?;
    command(&door, borrowed, "ROLLBACK").await?;
    Ok(answer(StatusCode::OK, &ended(&open, "rolled_back")))
}

/// A savepoint that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSavepoint {
    /// Name.
    name: String,
}

/// Savepoints of a transaction.
#[derive(Serialize, ToSchema)]
struct Savepoints {
    /// The transaction.
    transaction_id: u64,
    /// Names, the newest last.
    savepoints: Vec<String>,
}

fn savepoints(borrowed: &Open) -> Savepoints {
    Savepoints { transaction_id: borrowed.id, savepoints: borrowed.about.savepoints.lock().clone() }
}

/// List savepoints
///
/// Those that were made over HTTP, the newest last.
#[utoipa::path(
    get, path = "/api/v1/transactions/{id}/savepoints", tag = "transactions",
    params(("id" = u64, Path, description = "Number of the transaction.")),
    responses((status = 200, description = "Their names.", body = Savepoints))
)]
async fn list_savepoints(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let open = door.transactions.find(id, &caller.identity.role)?;
    Ok(answer(StatusCode::OK, &savepoints(&open)))
}

/// Make a savepoint
///
/// `SAVEPOINT`.
#[utoipa::path(
    post, path = "/api/v1/transactions/{id}/savepoints", tag = "transactions",
    params(("id" = u64, Path, description = "Number of the transaction.")),
    request_body = CreateSavepoint,
    responses((status = 201, description = "It is there.", body = Savepoints))
)]
async fn create_savepoint(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(new): JsonBody<CreateSavepoint>,
) -> ApiResult {
    let name = quote_name(&new.name)?;
    let open = door.transactions.find(id, &caller.identity.role)?;
    if open.about.savepoints.lock().len() >= MAX_SAVEPOINTS {
        let text = format!("a transaction has at most {MAX_SAVEPOINTS} savepoints");
        return Err(Error::new(ErrorKind::LimitReached, text).into());
    }
    let mut borrowed = door.transactions.borrow(id, &caller.identity.role)?;
    let made = fetch::run(&door, borrowed.session()?, &format!("SAVEPOINT {name}"), &[]).await;
    if made.is_ok() {
        open.about.savepoints.lock().push(new.name);
    }
    borrowed.give_back();
    made?;
    Ok(answer(StatusCode::CREATED, &savepoints(&open)))
}

/// Release a savepoint
///
/// `RELEASE SAVEPOINT`: what came after it stays.
#[utoipa::path(
    delete, path = "/api/v1/transactions/{id}/savepoints/{name}", tag = "transactions",
    params(("id" = u64, Path, description = "Number of the transaction."),
        ("name" = String, Path, description = "Name of the savepoint.")),
    responses((status = 200, description = "It is gone.", body = Savepoints))
)]
async fn delete_savepoint(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath((id, name)): InPath<(u64, String)>,
) -> ApiResult {
    to_savepoint(&door, &caller, id, &name, "RELEASE SAVEPOINT").await
}

/// Roll back to a savepoint
///
/// `ROLLBACK TO SAVEPOINT`: what came after it is undone; the savepoint stays.
#[utoipa::path(
    post, path = "/api/v1/transactions/{id}/savepoints/{name}/rollback", tag = "transactions",
    params(("id" = u64, Path, description = "Number of the transaction."),
        ("name" = String, Path, description = "Name of the savepoint.")),
    responses((status = 200, description = "It is as it was then.", body = Savepoints))
)]
async fn rollback_to_savepoint(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath((id, name)): InPath<(u64, String)>,
) -> ApiResult {
    to_savepoint(&door, &caller, id, &name, "ROLLBACK TO SAVEPOINT").await
}

async fn to_savepoint(
    door: &HttpDoor,
    caller: &Caller,
    id: u64,
    name: &str,
    verb: &str,
) -> ApiResult {
    let sql = format!("{verb} {}", quote_name(name)?);
    let mut borrowed = door.transactions.borrow(id, &caller.identity.role)?;
    let ran = fetch::run(door, borrowed.session()?, &sql, &[]).await;
    if ran.is_ok() {
        let keeps = usize::from(verb.starts_with("ROLLBACK"));
        let mut list = borrowed.kept().about.savepoints.lock();
        if let Some(at) = list.iter().rposition(|known| known == name) {
            list.truncate(at + keeps);
        }
    }
    let answered = savepoints(borrowed.kept());
    borrowed.give_back();
    ran.map_err(|error| match error.sqlstate().as_str() {
        "3B001" => error.with_kind(ErrorKind::NotFound),
        _ => error,
    })?;
    Ok(answer(StatusCode::OK, &answered))
}

/// How far a transaction is kept apart from others.
#[derive(Serialize, ToSchema)]
struct IsolationLevel {
    /// The transaction.
    transaction_id: u64,
    /// read_committed, repeatable_read, serializable.
    isolation_level: String,
    /// Whether it may only read.
    read_only: bool,
}

/// A new isolation level.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateIsolation {
    /// The level.
    isolation_level: Isolation,
}

/// Get the isolation level
///
/// As PostgreSQL has it.
#[utoipa::path(
    get, path = "/api/v1/transactions/{id}/isolation", tag = "transactions",
    params(("id" = u64, Path, description = "Number of the transaction.")),
    responses((status = 200, description = "The level.", body = IsolationLevel))
)]
async fn get_isolation(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    isolation(&door, &caller, id, None).await
}

/// Set the isolation level
///
/// `SET TRANSACTION`; PostgreSQL allows it before the first query only.
#[utoipa::path(
    put, path = "/api/v1/transactions/{id}/isolation", tag = "transactions",
    params(("id" = u64, Path, description = "Number of the transaction.")),
    request_body = UpdateIsolation,
    responses((status = 200, description = "The level.", body = IsolationLevel))
)]
async fn update_isolation(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(update): JsonBody<UpdateIsolation>,
) -> ApiResult {
    isolation(&door, &caller, id, Some(update.isolation_level)).await
}

async fn isolation(
    door: &HttpDoor,
    caller: &Caller,
    id: u64,
    change: Option<Isolation>,
) -> ApiResult {
    let mut borrowed = door.transactions.borrow(id, &caller.identity.role)?;
    let session = borrowed.session()?;
    let changed = match change {
        Some(level) => {
            let sql = format!("SET TRANSACTION ISOLATION LEVEL {}", level.sql());
            fetch::run(door, session, &sql, &[]).await.map(drop)
        }
        None => Ok(()),
    };
    let level = match changed {
        Ok(()) => effective(door, session).await,
        Err(error) => Err(error),
    };
    if let Ok(level) = &level {
        borrowed.kept().about.isolation.lock().clone_from(&level.isolation);
    }
    borrowed.give_back();
    let Effective { isolation, read_only } = level?;
    let level = IsolationLevel { transaction_id: id, isolation_level: isolation, read_only };
    Ok(answer(StatusCode::OK, &level))
}

/// A name for a prepared transaction.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PrepareTransaction {
    /// Its name among all prepared transactions.
    #[schema(min_length = 1, max_length = 199)]
    gid: String,
}

/// Prepare a transaction
///
/// `PREPARE TRANSACTION`: the first phase of a two-phase commit. An external PostgreSQL must be
/// configured with `max_prepared_transactions`; the embedded one is.
#[utoipa::path(
    post, path = "/api/v1/transactions/{id}/prepare", tag = "transactions",
    params(("id" = u64, Path, description = "Its number.")), request_body = PrepareTransaction,
    responses((status = 200, description = "It is prepared.", body = Ended))
)]
async fn prepare_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(prepare): JsonBody<PrepareTransaction>,
) -> ApiResult {
    let sql = format!("PREPARE TRANSACTION {}", gid(&prepare.gid)?);
    let open = door.transactions.find(id, &caller.identity.role)?;
    let borrowed = door.transactions.borrow(id, &caller.identity.role)?;
    if command(&door, borrowed, &sql).await? != "PREPARE TRANSACTION" {
        let text = "a statement of the transaction had failed, so it was rolled back";
        return Err(Error::new(ErrorKind::TransactionFailed, text).into());
    }
    Ok(answer(StatusCode::OK, &ended(&open, "prepared")))
}

fn gid(gid: &str) -> Result<String> {
    match (1..200).contains(&gid.len()) && !gid.contains('\0') {
        true => Ok(quote_literal(gid)),
        false => Err(Error::new(ErrorKind::ValidationError, "gid must have 1 to 199 bytes")),
    }
}

/// A prepared transaction.
#[derive(Serialize, Deserialize, ToSchema)]
struct Prepared {
    /// Its name.
    gid: String,
    /// When it was prepared.
    #[schema(format = DateTime)]
    prepared: String,
    /// Role that prepared it.
    owner: String,
    /// Its database.
    database: String,
}

/// List prepared transactions
///
/// Those that wait for the second phase, of the whole cluster.
#[utoipa::path(
    get, path = "/api/v1/transactions/prepared", tag = "transactions", params(Page),
    responses((status = 200, description = "A page of them.", body = List<Prepared>))
)]
async fn list_prepared_transactions(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, None)?;
    let sql = "SELECT gid, prepared, owner::text AS owner, database::text AS database, \
               count(*) OVER () AS total FROM pg_catalog.pg_prepared_xacts \
               ORDER BY prepared LIMIT $1::int8 OFFSET $2::int8";
    let list = fetch::page::<Prepared>(&door, &mut session, sql, &[], page).await?;
    Ok(answer(StatusCode::OK, &list))
}

/// How a prepared transaction ended.
#[derive(Serialize, ToSchema)]
struct PreparedEnded {
    /// Its name.
    gid: String,
    /// committed, rolled_back.
    status: &'static str,
}

/// Commit a prepared transaction
///
/// `COMMIT PREPARED`.
#[utoipa::path(
    post, path = "/api/v1/transactions/prepared/{gid}/commit", tag = "transactions",
    params(("gid" = String, Path, description = "Its name.")),
    responses((status = 200, description = "It is committed.", body = PreparedEnded))
)]
async fn commit_prepared_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> ApiResult {
    let sql = format!("COMMIT PREPARED {}", gid(&name)?);
    let mut session = caller.session(&door, None)?;
    fetch::run(&door, &mut session, &sql, &[]).await?;
    Ok(answer(StatusCode::OK, &PreparedEnded { gid: name, status: "committed" }))
}

/// Roll a prepared transaction back
///
/// `ROLLBACK PREPARED`.
#[utoipa::path(
    post, path = "/api/v1/transactions/prepared/{gid}/rollback", tag = "transactions",
    params(("gid" = String, Path, description = "Its name.")),
    responses((status = 200, description = "It is rolled back.", body = PreparedEnded))
)]
async fn rollback_prepared_transaction(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> ApiResult {
    let sql = format!("ROLLBACK PREPARED {}", gid(&name)?);
    let mut session = caller.session(&door, None)?;
    fetch::run(&door, &mut session, &sql, &[]).await?;
    Ok(answer(StatusCode::OK, &PreparedEnded { gid: name, status: "rolled_back" }))
}
