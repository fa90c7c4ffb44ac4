//! Users: roles of PostgreSQL that may log in, with the roles that they have.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody, Params};
use super::super::paging::{List, Page};
use super::super::values::present;
use super::super::{HttpDoor, answer, fetch, no_content};
use super::Routes;
use crate::audit::EventType;
use crate::auth::principals::User;
use crate::error::{Error, ErrorKind, Result};
use crate::query::ddl::quote_name;
use crate::query::quote_literal;
use crate::session::Session;
use crate::types::{Role, Secret};

/// Roles that one request may name.
const MOST_ROLES: usize = 1000;

/// Longest address for mail.
const LONGEST_EMAIL: usize = 254;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(list_users, create_user)).routes(routes!(
        get_user,
        update_user,
        delete_user
    ))
}

/// List users
///
/// Roles of PostgreSQL that may log in, and users who may not any more.
#[utoipa::path(
    get, path = "/api/v1/admin/users", tag = "admin", params(Page),
    responses((status = 200, description = "A page of them.", body = List<User>))
)]
async fn list_users(State(door): State<Arc<HttpDoor>>, _caller: Caller, page: Page) -> ApiResult {
    if page.is_sorted() {
        let (users, _) = door.auth.users(u32::MAX, 0).await?;
        return Ok(answer(StatusCode::OK, &page.of_all(users)?));
    }
    let (users, total) = door.auth.users(page.limit, page.offset).await?;
    Ok(answer(StatusCode::OK, &page.list(users, total)))
}

/// A user that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateUser {
    /// Name of the role.
    #[schema(min_length = 1, max_length = 63)]
    username: String,
    /// His password, with `security.password.min_length` characters or more. PostgreSQL gets a
    /// SCRAM verifier of it.
    #[schema(min_length = 1, max_length = 1024, format = Password)]
    password: String,
    /// Where he can be written to.
    email: Option<String>,
    /// Roles that he is to have, of PostgreSQL or of RustyDB.
    #[serde(default)]
    roles: Vec<String>,
    /// Whether he may log in.
    #[serde(default = "yes")]
    enabled: bool,
    /// Connections at once.
    #[schema(minimum = 0)]
    connection_limit: Option<u32>,
    /// When his password ends.
    #[schema(format = DateTime)]
    valid_until: Option<String>,
}

fn yes() -> bool {
    true
}

/// Create a user
///
/// `CREATE ROLE … LOGIN` and `GRANT`, as the caller's role. He can give no role that allows what
/// he may not do himself.
#[utoipa::path(
    post, path = "/api/v1/admin/users", tag = "admin", request_body = CreateUser,
    responses((status = 201, description = "He is there.", body = User))
)]
async fn create_user(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateUser>,
) -> ApiResult {
    let name = quote_name(&new.username)?;
    check_email(new.email.as_deref())?;
    // Who is called like a role of RustyDB has it.
    door.auth.may_give_roles(&caller.identity, &[&new.username]).await?;
    let mut session = caller.session(&door, None)?;
    let roles = sort(&door, &caller, &mut session, &new.roles).await?;
    let verifier = door.auth.verifier(Secret::new(new.password)).await?;
    let login = if new.enabled { "LOGIN" } else { "NOLOGIN" };
    let mut sql = format!("CREATE ROLE {name} {login} PASSWORD {}", quote_literal(&verifier));
    if let Some(limit) = new.connection_limit {
        sql += &format!(" CONNECTION LIMIT {limit}");
    }
    if let Some(end) = &new.valid_until {
        sql += &format!(" VALID UNTIL {}", quote_literal(end));
    }
    let mut statements = vec![sql];
    for role in &roles.of_postgres {
        statements.push(format!("GRANT {} TO {name}", quote_name(role)?));
    }
    fetch::all_or_none(&door, &mut session, &statements).await?;
    door.auth.keep_user(&new.username, Some(new.email.as_deref())).await?;
    let role = Role::from(new.username.as_str());
    door.auth.grant_roles(&caller.identity, &role, &roles.of_rustydb, &caller.visit).await?;
    noted(&door, &caller, "create_user", &new.username).await?;
    Ok(answer(StatusCode::CREATED, &door.auth.user(&new.username).await?))
}

async fn noted(door: &HttpDoor, caller: &Caller, action: &'static str, name: &str) -> Result<()> {
    let (identity, visit) = (&caller.identity, &caller.visit);
    door.auth.audit_change(EventType::UserChanged, action, identity, name, visit).await
}

fn check_email(email: Option<&str>) -> Result<()> {
    let is_one = |text: &str| {
        text.len() <= LONGEST_EMAIL
            && !text.chars().any(|c| c.is_control() || c.is_whitespace())
            && text.split_once('@').is_some_and(|(who, place)| !who.is_empty() && !place.is_empty())
    };
    match email {
        Some(text) if !is_one(text) => {
            Err(Error::new(ErrorKind::ValidationError, "email is no address for mail"))
        }
        _ => Ok(()),
    }
}

/// Roles by who knows them. One that both know is PostgreSQL's: who is in it has the other.
struct Sorted {
    of_postgres: Vec<String>,
    of_rustydb: Vec<String>,
}

/// Finds out whose the roles are, and whether the caller may give them.
async fn sort(
    door: &HttpDoor,
    caller: &Caller,
    session: &mut Session,
    names: &[String],
) -> Result<Sorted> {
    if names.len() > MOST_ROLES {
        let text = format!("there are more than {MOST_ROLES} roles");
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    door.auth.may_give_roles(&caller.identity, &list).await?;
    let of_postgres = of_postgres(door, session, names).await?;
    let others = names.iter().filter(|name| !of_postgres.contains(name));
    let of_rustydb: Vec<String> = others.cloned().collect();
    let roles = door.auth.roles().await?;
    match of_rustydb.iter().find(|name| roles.get(name).is_none()) {
        None => Ok(Sorted { of_postgres, of_rustydb }),
        Some(unknown) => {
            let text = format!("there is no role \"{unknown}\"");
            Err(Error::new(ErrorKind::ValidationError, text))
        }
    }
}

/// Those of the names that are roles of PostgreSQL.
async fn of_postgres(
    door: &HttpDoor,
    session: &mut Session,
    names: &[String],
) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Known {
        rolname: String,
    }
    let json = serde_json::to_string(names).map_err(Error::internal)?;
    let sql = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN \
               (SELECT json_array_elements_text($1::json))";
    let known: Vec<Known> = fetch::run(door, session, sql, &[Some(&json)]).await?.typed()?;
    Ok(known.into_iter().map(|role| role.rolname).collect())
}

/// Get a user
///
/// A user with his roles; never his password.
#[utoipa::path(
    get, path = "/api/v1/admin/users/{username}", tag = "admin",
    params(("username" = String, Path, description = "His name.")),
    responses((status = 200, description = "The user.", body = User))
)]
async fn get_user(
    State(door): State<Arc<HttpDoor>>,
    _caller: Caller,
    InPath(name): InPath<String>,
) -> ApiResult {
    Ok(answer(StatusCode::OK, &door.auth.user(&name).await?))
}

/// A user whom the caller may change: who may do more than the caller is none, because a password
/// would be enough to become him.
async fn manageable(door: &HttpDoor, caller: &Caller, name: &str) -> Result<User> {
    let user = door.auth.user(name).await?;
    let roles: Vec<&str> = user.roles.iter().map(String::as_str).chain([name]).collect();
    door.auth.may_give_roles(&caller.identity, &roles).await?;
    Ok(user)
}

/// What is to be different of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateUser {
    /// A new password, with `security.password.min_length` characters or more.
    #[schema(min_length = 1, max_length = 1024, format = Password)]
    password: Option<String>,
    /// Where he can be written to; null takes it away.
    #[serde(default, deserialize_with = "present")]
    email: Option<Option<String>>,
    /// All roles that he is to have.
    roles: Option<Vec<String>>,
    /// Whether he may log in. Who may not any more is sent away.
    enabled: Option<bool>,
    /// Connections at once; null = any number.
    #[serde(default, deserialize_with = "present")]
    #[schema(minimum = 0)]
    connection_limit: Option<Option<u32>>,
    /// When his password ends; null = never.
    #[serde(default, deserialize_with = "present")]
    #[schema(format = DateTime)]
    valid_until: Option<Option<String>>,
}

/// Change a user
///
/// `ALTER ROLE`, `GRANT` and `REVOKE`, as the caller's role: all of it, or nothing.
#[utoipa::path(
    put, path = "/api/v1/admin/users/{username}", tag = "admin", request_body = UpdateUser,
    params(("username" = String, Path, description = "His name.")),
    responses((status = 200, description = "The user as he is now.", body = User))
)]
async fn update_user(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(username): InPath<String>,
    JsonBody(mut update): JsonBody<UpdateUser>,
) -> ApiResult {
    let user = manageable(&door, &caller, &username).await?;
    let name = quote_name(&username)?;
    check_email(update.email.as_ref().and_then(Option::as_deref))?;
    let mut session = caller.session(&door, None)?;
    let verifier = match update.password.take() {
        Some(password) => Some(door.auth.verifier(Secret::new(password)).await?),
        None => None,
    };
    let mut statements: Vec<String> =
        update.clauses(verifier).map(|clause| format!("ALTER ROLE {name} {clause}")).collect();
    let mut of_rustydb = None;
    if let Some(wanted) = &update.roles {
        let new: Vec<String> =
            wanted.iter().filter(|role| !user.roles.contains(role)).cloned().collect();
        sort(&door, &caller, &mut session, &new).await?;
        let all: Vec<String> = user.roles.iter().chain(&new).cloned().collect();
        let known = of_postgres(&door, &mut session, &all).await?;
        for role in &known {
            let (is_wanted, is_there) = (wanted.contains(role), user.roles.contains(role));
            match (is_wanted, is_there) {
                (true, false) => statements.push(format!("GRANT {} TO {name}", quote_name(role)?)),
                (false, true) => {
                    statements.push(format!("REVOKE {} FROM {name}", quote_name(role)?));
                }
                _ => {}
            }
        }
        of_rustydb =
            Some(wanted.iter().filter(|r| !known.contains(r)).cloned().collect::<Vec<_>>());
    }
    if !statements.is_empty() {
        fetch::all_or_none(&door, &mut session, &statements).await?;
    }
    let email = update.email.as_ref().map(Option::as_deref);
    door.auth.keep_user(&username, email).await?;
    let role = Role::from(username.as_str());
    if let Some(roles) = of_rustydb {
        door.auth.grant_roles(&caller.identity, &role, &roles, &caller.visit).await?;
    }
    noted(&door, &caller, "update_user", &username).await?;
    drop(session);
    if update.enabled == Some(false) {
        door.admin.kill(|entry| entry.role == role);
    }
    Ok(answer(StatusCode::OK, &door.auth.user(&username).await?))
}

impl UpdateUser {
    /// What follows ALTER ROLE and the name, each.
    fn clauses(&self, verifier: Option<String>) -> impl Iterator<Item = String> {
        let password = verifier.map(|text| format!("PASSWORD {}", quote_literal(&text)));
        let login = self.enabled.map(|enabled| if enabled { "LOGIN" } else { "NOLOGIN" }.into());
        let limit = self.connection_limit.map(|limit| match limit {
            Some(limit) => format!("CONNECTION LIMIT {limit}"),
            None => "CONNECTION LIMIT -1".into(),
        });
        let end = self.valid_until.as_ref().map(|end| {
            format!("VALID UNTIL {}", quote_literal(end.as_deref().unwrap_or("infinity")))
        });
        [password, login, limit, end].into_iter().flatten()
    }
}

/// How a user is removed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Role that gets what he owns in api.database; without it a user who owns something stays.
    reassign_to: Option<String>,
}

/// Remove a user
///
/// `DROP ROLE`, with `reassign_to` after `REASSIGN OWNED` and `DROP OWNED` in the database of the
/// API; his sessions end, his keys and log-ins are not good any more.
#[utoipa::path(
    delete, path = "/api/v1/admin/users/{username}", tag = "admin",
    params(("username" = String, Path, description = "His name."), DeleteQuery),
    responses((status = 204, description = "He is gone."))
)]
async fn delete_user(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(username): InPath<String>,
    Params(how): Params<DeleteQuery>,
) -> ApiResult {
    manageable(&door, &caller, &username).await?;
    let name = quote_name(&username)?;
    let mut statements = Vec::new();
    if let Some(heir) = &how.reassign_to {
        statements.push(format!("REASSIGN OWNED BY {name} TO {}", quote_name(heir)?));
        // What is left are privileges.
        statements.push(format!("DROP OWNED BY {name}"));
    }
    statements.push(format!("DROP ROLE {name}"));
    let mut session = caller.session(&door, None)?;
    fetch::all_or_none(&door, &mut session, &statements).await?;
    door.auth.forget_user(&username).await?;
    let role = Role::from(username.as_str());
    door.admin.kill(|entry| entry.role == role);
    noted(&door, &caller, "delete_user", &username).await?;
    Ok(no_content())
}
