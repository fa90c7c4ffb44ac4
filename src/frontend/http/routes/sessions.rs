//! The sessions of all doors, and those that clients of the API open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody, Params};
use super::super::paging::{List, Page};
use super::super::values::{millis, timestamp};
use super::super::{HttpDoor, answer, fetch};
use super::session_state::{Settings, StateView, apply, look};
use super::suspension::{resume, suspend};
use super::unsupported::unsupported;
use super::{Routes, aliased, aliased_to};
use crate::error::{Error, ErrorKind, Result};
use crate::session::admin::PoolKind;
use crate::session::{SessionView, Stop};
use crate::types::Protocol;

/// Longest name of a session.
const MAX_NAME: usize = 128;

/// Longest payload of an event.
const MAX_PAYLOAD: usize = 1 << 10;

/// Routes of this file.
pub fn routes() -> Routes {
    let one = |path: &str| path.replacen("/pool/", "/", 1);
    Routes::new()
        .routes(routes!(get_sessions, open_session))
        .routes(routes!(get_session, terminate_session))
        .route("/api/v1/pool/sessions", aliased("/api/v1/sessions", get(get_sessions)))
        .route(
            "/api/v1/pool/sessions/{id}",
            aliased_to(get(get_session).delete(terminate_session), one),
        )
        .routes(routes!(get_session_auth))
        .routes(routes!(refresh_session_auth))
        .routes(routes!(get_session_privileges))
        .routes(routes!(get_session_events))
        .routes(routes!(trigger_session_event))
        .routes(routes!(get_session_callbacks))
}

/// A session.
#[derive(Serialize, ToSchema)]
struct SessionEntry {
    /// Its number.
    session_id: u64,
    /// Its role.
    user: String,
    /// Its database.
    database: String,
    /// postgres, native, http.
    protocol: &'static str,
    /// Where its client is.
    client_addr: String,
    /// What its client calls itself.
    application_name: String,
    /// active: a request or a transaction is in work; idle; suspended: it waits to be resumed;
    /// killed: it is about to end.
    #[schema(inline)]
    state: SessionState,
    /// When it was opened.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its present request began, or its last one; null where that is not written down.
    #[schema(required)]
    last_activity: Option<String>,
    /// Its transaction over several HTTP requests.
    #[schema(required)]
    transaction_id: Option<u64>,
    /// The connection to PostgreSQL that it holds.
    #[schema(required)]
    connection_id: Option<String>,
    /// What keeps it on that connection.
    #[schema(required)]
    pinned: Option<&'static str>,
    /// Milliseconds that it has waited for a connection, when it does.
    #[schema(required)]
    waiting_ms: Option<u64>,
    /// Whether X-Session-Id can name it.
    is_open: bool,
}

fn described(door: &HttpDoor, view: &SessionView) -> SessionEntry {
    let entry = &view.entry;
    let kept = door.kept.look(entry.id.0);
    let last = match (view.request_at, &kept) {
        (Some(at), _) => Some(at),
        (None, Some(kept)) => SystemTime::now().checked_sub(kept.unused()),
        (None, None) => None,
    };
    let is_active = view.request_at.is_some() || view.transaction_at.is_some();
    let transactions = door.transactions.list(|open| open.entry.id == entry.id);
    let connection = |pid| {
        let held = door.admin.held(PoolKind::Main);
        let found = held.iter().find(|held| held.server.listed.pid() == pid);
        found.map(|held| format!("main-{}", held.server.listed.id))
    };
    SessionEntry {
        session_id: entry.id.0,
        user: entry.role.to_string(),
        database: entry.database.to_string(),
        protocol: entry.protocol.as_str(),
        client_addr: entry.peer.to_string(),
        application_name: entry.application(),
        state: match (entry.stop(), is_active) {
            (Stop::No, _) if kept.as_ref().is_some_and(|kept| kept.is_suspended()) => {
                SessionState::Suspended
            }
            (Stop::No, true) => SessionState::Active,
            (Stop::No, false) => SessionState::Idle,
            _ => SessionState::Killed,
        },
        created_at: timestamp(view.connected_at),
        last_activity: last.map(timestamp),
        transaction_id: transactions.first().map(|open| open.id),
        connection_id: view.backend_pid.and_then(connection),
        pinned: entry.pinned(),
        waiting_ms: view.waiting.map(millis),
        is_open: kept.is_some(),
    }
}

/// A session of the caller's, or of anybody for who may do that to others'.
pub(super) async fn find(
    door: &HttpDoor,
    caller: &Caller,
    id: u64,
    of_others: &str,
) -> Result<SessionView> {
    let view = door.admin.sessions().into_iter().find(|view| view.entry.id.0 == id);
    let missing = || {
        Error::new(ErrorKind::NotFound, format!("there is no session {id}"))
            .with_hint("it has ended, or is somebody else's")
    };
    let view = view.ok_or_else(missing)?;
    match view.entry.role == caller.identity.role || caller.may(door, of_others).await? {
        true => Ok(view),
        false => Err(missing()),
    }
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SessionState {
    Active,
    Idle,
    Suspended,
    Killed,
}

/// Which sessions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SessionQuery {
    /// Those in this state.
    #[param(inline)]
    state: Option<SessionState>,
    /// Those of this role.
    user: Option<String>,
    /// Those in this database.
    database: Option<String>,
}

/// List sessions
///
/// Of all doors: the caller's, everybody's for who may `read:monitoring`.
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "sessions", params(SessionQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<SessionEntry>))
)]
async fn get_sessions(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<SessionQuery>,
    page: Page,
) -> ApiResult {
    let sees_all = caller.may(&door, "read:monitoring").await?;
    let mut views = door.admin.sessions();
    views.retain(|view| {
        let entry = &view.entry;
        (sees_all || entry.role == caller.identity.role)
            && query.user.as_ref().is_none_or(|user| user == entry.role.as_str())
            && query.database.as_ref().is_none_or(|database| database == entry.database.as_str())
    });
    if query.state.is_none() {
        let list = page.of_mapped(views, |view| described(&door, &view))?;
        return Ok(answer(StatusCode::OK, &list));
    }
    let mut all: Vec<_> = views.iter().map(|view| described(&door, view)).collect();
    all.retain(|one| query.state.is_none_or(|state| state == one.state));
    Ok(answer(StatusCode::OK, &page.of_all(all)?))
}

/// A session that is to be opened.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OpenSession {
    /// Name for people.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// Another database than api.database.
    database: Option<String>,
    /// Settings of PostgreSQL with their values.
    #[serde(default)]
    #[schema(value_type = Object, examples(json!({ "search_path": "app, public" })))]
    settings: Settings,
}

/// Open a session
///
/// For the header `X-Session-Id` of further requests: what is set, prepared or made temporary in it
/// stays. One that is not used for `api.session_idle_timeout_secs` ends.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "sessions", request_body = OpenSession,
    responses((status = 201, description = "It is open.", body = SessionEntry))
)]
async fn open_session(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<OpenSession>,
) -> ApiResult {
    if new.name.as_ref().is_some_and(|name| !(1..=MAX_NAME).contains(&name.len())) {
        let text = format!("name is not 1 to {MAX_NAME} bytes long");
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    let mut session = caller.session(&door, new.database.as_deref())?;
    // That the database is there, and that the role may enter it, is known when something has run.
    match new.settings.is_empty() {
        true => drop(fetch::run(&door, &mut session, "SELECT 1", &[]).await?),
        false => apply(&door, &mut session, &new.settings).await?,
    }
    let kept = door.kept.keep(&door, &caller, new.name, *session)?;
    kept.about.state.lock().remember(&new.settings);
    let view = find(&door, &caller, kept.id, "admin:sessions").await?;
    Ok(answer(StatusCode::CREATED, &described(&door, &view)))
}

/// A session with all that is known of it.
#[derive(Serialize, ToSchema)]
struct SessionDetails {
    /// The session.
    #[serde(flatten)]
    session: SessionEntry,
    /// Name for people.
    #[schema(required)]
    name: Option<String>,
    /// Requests since it was opened.
    queries: u64,
    /// Transactions since it was opened.
    transactions: u64,
    /// What it keeps, of one that the caller has opened here and that no request uses.
    #[schema(required)]
    details: Option<StateView>,
}

/// Get a session
///
/// One of the caller's; anybody's for who may `read:monitoring`.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}", tag = "sessions",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "The session.", body = SessionDetails))
)]
async fn get_session(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let view = find(&door, &caller, id, "read:monitoring").await?;
    let kept = door.kept.look(id);
    let details = match door.kept.borrow(&door, id, &caller) {
        Ok(mut borrowed) => {
            let looked = look(&door, &mut borrowed).await;
            borrowed.give_back();
            looked.ok()
        }
        Err(_) => None,
    };
    let found = SessionDetails {
        session: described(&door, &view),
        name: kept.and_then(|kept| kept.about.name.clone()),
        queries: view.totals.queries,
        transactions: view.totals.transactions(),
        details,
    };
    Ok(answer(StatusCode::OK, &found))
}

/// How a session is ended.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TerminateQuery {
    /// Also closes the connection that it holds, whatever it does there.
    #[serde(default)]
    force: bool,
}

/// A session that was ended, suspended or resumed.
#[derive(Serialize, ToSchema)]
struct TerminatedSession {
    /// Its number.
    session_id: u64,
    /// terminated, killed, suspended; idle: it is resumed.
    state: &'static str,
}

/// End a session
///
/// What it does is cancelled and rolled back; its client gets the error 57P01.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{id}", tag = "sessions",
    params(("id" = u64, Path, description = "Its number."), TerminateQuery),
    responses((status = 200, description = "It is ended.", body = TerminatedSession))
)]
async fn terminate_session(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    Params(query): Params<TerminateQuery>,
) -> ApiResult {
    let view = find(&door, &caller, id, "admin:sessions").await?;
    end(&door, &view, query.force).await;
    let state = if query.force { "killed" } else { "terminated" };
    Ok(answer(StatusCode::OK, &TerminatedSession { session_id: id, state }))
}

async fn end(door: &HttpDoor, view: &SessionView, force: bool) {
    let id = view.entry.id;
    door.admin.kill(|entry| entry.id == id);
    if door.kept.look(id.0).is_some_and(|kept| !kept.is_busy()) {
        door.kept.remove(id.0);
    }
    let held = door.admin.held(PoolKind::Main);
    let its = held.iter().find(|h| h.holder.as_ref().is_some_and(|view| view.entry.id == id));
    if let (true, Some(held)) = (force, its) {
        door.admin.close_server(PoolKind::Main, held).await;
    }
}

/// How the client of a session has proved who it is.
#[derive(Serialize, ToSchema)]
struct SessionAuth {
    /// password, trust, jwt, access_token, session, api_key; null where a door does not tell.
    #[schema(required)]
    method: Option<&'static str>,
    /// Whom the credential is about.
    principal: String,
    /// The roles of RustyDB that the caller has, in his own session.
    #[schema(required)]
    roles: Option<Vec<String>>,
    /// When.
    #[schema(format = DateTime)]
    authenticated_at: String,
    /// When the credential ends; null = it does not.
    #[schema(required)]
    expires_at: Option<String>,
    /// Always false: log-ins have one factor.
    mfa: bool,
}

async fn auth_of(door: &HttpDoor, caller: &Caller, view: &SessionView) -> Result<SessionAuth> {
    let entry = &view.entry;
    let is_own = entry.role == caller.identity.role;
    let roles = match is_own {
        true => Some(door.auth.permissions_of(&caller.identity).await?.0),
        false => None,
    };
    let grant = entry.grant();
    let method = match (grant, entry.protocol, door.auth.is_required()) {
        (Some(grant), ..) => Some(grant.kind.as_str()),
        (None, _, false) => Some("trust"),
        (None, Protocol::Http, true) => Some("password"),
        (None, _, true) => None,
    };
    let expires = grant.and_then(|grant| grant.expires_at);
    let at = |secs| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    Ok(SessionAuth {
        method,
        principal: grant.map_or_else(|| entry.role.to_string(), |grant| grant.subject.clone()),
        roles,
        authenticated_at: timestamp(view.connected_at),
        expires_at: expires.map(|secs| timestamp(at(secs))),
        mfa: false,
    })
}

/// Get how a session was authenticated
///
/// One of the caller's; anybody's for who may `read:monitoring`.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/auth", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "How.", body = SessionAuth))
)]
async fn get_session_auth(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let view = find(&door, &caller, id, "read:monitoring").await?;
    Ok(answer(StatusCode::OK, &auth_of(&door, &caller, &view).await?))
}

/// Look at a session's roles again
///
/// What is remembered of roles and their members is forgotten, so that changes count at once.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/auth/refresh", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "How it stands now.", body = SessionAuth))
)]
async fn refresh_session_auth(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let view = find(&door, &caller, id, "admin:sessions").await?;
    door.auth.look_again();
    Ok(answer(StatusCode::OK, &auth_of(&door, &caller, &view).await?))
}

/// What a role may do in PostgreSQL.
#[derive(Serialize, Deserialize, ToSchema)]
struct RolePrivileges {
    /// Whether it may do everything.
    superuser: bool,
    /// Whether it may create databases.
    create_database: bool,
    /// Whether it may create roles.
    create_role: bool,
    /// Whether row security does not count for it.
    bypass_row_security: bool,
    /// Roles that it is in.
    member_of: Vec<String>,
    /// What it may do in the database.
    database_privileges: Vec<String>,
    /// What it may do with tables and views, 1000 at most.
    #[schema(value_type = Object)]
    tables: Value,
}

/// What the role of a session may do.
#[derive(Serialize, ToSchema)]
struct SessionPrivileges {
    /// The role.
    user: String,
    /// The database.
    database: String,
    /// Permissions of RustyDB, in the caller's own session.
    #[schema(required)]
    permissions: Option<Vec<String>>,
    /// Privileges of PostgreSQL.
    postgresql: RolePrivileges,
}

/// Get what a session may do
///
/// Permissions of RustyDB and privileges of PostgreSQL, in the session's database.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/privileges", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "What it may do.", body = SessionPrivileges))
)]
async fn get_session_privileges(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    let view = find(&door, &caller, id, "read:monitoring").await?;
    let entry = &view.entry;
    let permissions = match entry.role == caller.identity.role {
        true => Some(door.auth.permissions_of(&caller.identity).await?.1),
        false => None,
    };
    let mut session = caller.session(&door, Some(entry.database.as_str()))?;
    let sql = include_str!("../../../../sql/api/privileges.sql");
    let found = fetch::run(&door, &mut session, sql, &[Some(entry.role.as_str())]).await?;
    let privileges = SessionPrivileges {
        user: entry.role.to_string(),
        database: entry.database.to_string(),
        permissions,
        postgresql: found.one(|| format!("there is no role \"{}\"", entry.role))?,
    };
    Ok(answer(StatusCode::OK, &privileges))
}

/// Something that happened in a session.
#[derive(Serialize, ToSchema)]
struct SessionEvent {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// created, authenticated, query, state, limits, snapshot, restore, suspend, resume, kill.
    event: &'static str,
    /// More of it.
    #[schema(required)]
    detail: Option<String>,
}

/// List what happened in a session
///
/// Its beginning, its present request, and, of one that was opened over HTTP, its requests and what
/// was done to it (the last 1000). The requests of the other doors are not written down, and of no
/// door the statements; how many there were is told.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/events", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session."), Page),
    responses((status = 200, description = "A page of them.", body = List<SessionEvent>))
)]
async fn get_session_events(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    page: Page,
) -> ApiResult {
    let view = find(&door, &caller, id, "read:monitoring").await?;
    let event = |at: SystemTime, event, detail| SessionEvent { at: timestamp(at), event, detail };
    let mut events = vec![
        event(view.connected_at, "created", Some(view.entry.protocol.as_str().to_owned())),
        event(view.connected_at, "authenticated", Some(view.entry.role.to_string())),
    ];
    if let Some(kept) = door.kept.look(id) {
        let state = kept.about.state.lock();
        events.extend(state.events.iter().map(|h| event(h.at, h.event, h.detail.clone())));
    }
    if let Some(at) = view.request_at {
        let count = format!("the {}. of the session", view.totals.queries + 1);
        events.push(event(at, "query", Some(count)));
    }
    if view.entry.stop() != Stop::No {
        let reason = view.entry.stop().reason().to_owned();
        events.push(event(SystemTime::now(), "kill", Some(reason)));
    }
    Ok(answer(StatusCode::OK, &page.of_all(events)?))
}

/// What is called when something happens to a session.
#[derive(Serialize, ToSchema)]
struct SessionCallbacks {
    /// For each event its callbacks: none, they cannot be registered.
    callbacks: BTreeMap<&'static str, Vec<String>>,
}

/// List callbacks of a session
///
/// There are none: nothing can be registered that is called when something happens to a session.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/callbacks", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    responses((status = 200, description = "Those of each event.", body = SessionCallbacks))
)]
async fn get_session_callbacks(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
) -> ApiResult {
    find(&door, &caller, id, "read:monitoring").await?;
    let events = ["login", "logoff", "suspend", "resume", "timeout", "kill"];
    let callbacks = events.map(|event| (event, Vec::new())).into();
    Ok(answer(StatusCode::OK, &SessionCallbacks { callbacks }))
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Trigger {
    Login,
    Logoff,
    Suspend,
    Resume,
    Timeout,
    Kill,
}

/// An event that is to happen.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TriggerEvent {
    /// logoff, timeout, kill, suspend, resume; login answers 501.
    event: Trigger,
    /// For the log.
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
}

/// Have an event happen to a session
///
/// `logoff`, `timeout` and `kill` end it. `suspend`, of one that was opened over HTTP, rolls its
/// transaction back and gives up its connection; settings, variables and prepared statements are
/// there again after `resume`, and until then its requests answer 409.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/events/trigger", tag = "sessions",
    params(("id" = u64, Path, description = "Number of the session.")),
    request_body = TriggerEvent,
    responses((status = 200, description = "It has happened.", body = TerminatedSession))
)]
async fn trigger_session_event(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<u64>,
    JsonBody(trigger): JsonBody<TriggerEvent>,
) -> ApiResult {
    let payload = trigger.payload.map(|payload| payload.to_string()).unwrap_or_default();
    if payload.len() > MAX_PAYLOAD {
        let text = format!("payload is longer than {MAX_PAYLOAD} bytes");
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    let view = find(&door, &caller, id, "admin:sessions").await?;
    let state = match trigger.event {
        Trigger::Logoff | Trigger::Timeout => {
            end(&door, &view, false).await;
            "terminated"
        }
        Trigger::Kill => {
            end(&door, &view, true).await;
            "killed"
        }
        Trigger::Suspend => {
            suspend(&door, &caller, id).await?;
            "suspended"
        }
        Trigger::Resume => {
            resume(&door, id).await?;
            "idle"
        }
        Trigger::Login => return Err(unsupported("session_callbacks").into()),
    };
    tracing::info!(session = id, event = ?trigger.event, payload, "triggered over HTTP");
    Ok(answer(StatusCode::OK, &TerminatedSession { session_id: id, state }))
}
