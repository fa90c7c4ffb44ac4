//! Roles: permissions of RustyDB, and beside each a role of PostgreSQL that nobody logs in as. Who
//! is in the one has the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch, no_content};
use super::Routes;
use crate::auth::principals::Group;
use crate::auth::rbac::{Permission, PermissionObject, RoleDefinition, Roles};
use crate::error::{Error, ErrorKind, Result};
use crate::query::ddl::{quote_name, quote_qualified};

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(list_roles, create_role)).routes(routes!(
        get_role,
        update_role,
        delete_role
    ))
}

/// A role.
#[derive(Serialize, ToSchema)]
struct RoleEntry {
    /// Its name.
    name: String,
    /// Whether it is always there, and the same.
    built_in: bool,
    /// What it allows.
    permissions: Vec<String>,
    /// What it forbids, whoever else allows it.
    denied_permissions: Vec<String>,
    /// Roles whose permissions it has too.
    inherits_from: Vec<String>,
    /// The role of PostgreSQL of the same name.
    #[schema(required)]
    postgresql: Option<Group>,
}

impl RoleEntry {
    fn new(name: &str, role: Option<&RoleDefinition>, group: Option<Group>) -> Self {
        let texts = |list: &[Permission]| list.iter().map(ToString::to_string).collect();
        Self {
            name: name.to_owned(),
            built_in: Roles::is_built_in(name),
            permissions: role.map(|role| texts(&role.allows)).unwrap_or_default(),
            denied_permissions: role.map(|role| texts(&role.denies)).unwrap_or_default(),
            inherits_from: role.map(|role| role.inherits.clone()).unwrap_or_default(),
            postgresql: group,
        }
    }
}

/// List roles
///
/// Roles of RustyDB, and roles of PostgreSQL that nobody logs in as.
#[utoipa::path(
    get, path = "/api/v1/admin/roles", tag = "admin", params(Page),
    responses((status = 200, description = "A page of them.", body = List<RoleEntry>))
)]
async fn list_roles(State(door): State<Arc<HttpDoor>>, _caller: Caller, page: Page) -> ApiResult {
    let roles = door.auth.roles().await?;
    let groups = door.auth.groups(None).await?;
    let mut all: BTreeMap<String, RoleEntry> = roles
        .iter()
        .map(|(name, role)| (name.to_owned(), RoleEntry::new(name, Some(role), None)))
        .collect();
    for group in groups {
        let name = group.name.clone();
        all.entry(name.clone()).or_insert_with(|| RoleEntry::new(&name, None, None)).postgresql =
            Some(group);
    }
    Ok(answer(StatusCode::OK, &page.of_all(all.into_values().collect())?))
}

async fn group(door: &HttpDoor, name: &str) -> Result<Option<Group>> {
    Ok(door.auth.groups(Some(name)).await?.into_iter().next())
}

async fn look(door: &HttpDoor, name: &str) -> Result<RoleEntry> {
    let roles = door.auth.roles().await?;
    match (roles.get(name), group(door, name).await?) {
        (None, None) => {
            Err(Error::new(ErrorKind::NotFound, format!("there is no role \"{name}\"")))
        }
        (role, group) => Ok(RoleEntry::new(name, role, group)),
    }
}

/// Get a role
///
/// A role of RustyDB, of PostgreSQL, or both.
#[utoipa::path(
    get, path = "/api/v1/admin/roles/{role_name}", tag = "admin",
    params(("role_name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The role.", body = RoleEntry))
)]
async fn get_role(
    State(door): State<Arc<HttpDoor>>,
    _caller: Caller,
    InPath(name): InPath<String>,
) -> ApiResult {
    Ok(answer(StatusCode::OK, &look(&door, &name).await?))
}

/// A permission, in either form.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a permission is a string, or an object with action and resource")]
pub(super) enum GivenPermission {
    /// `action:resource`.
    #[schema(examples("read:tables:users"))]
    Text(String),
    /// The same in parts.
    Parts(PermissionParts),
}

/// A permission in parts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PermissionParts {
    /// On what.
    #[schema(examples("tables:users"))]
    resource: String,
    /// What.
    #[schema(examples("read"))]
    action: String,
    /// Under which conditions; there are none yet.
    #[serde(default)]
    #[schema(max_items = 0)]
    conditions: Vec<Value>,
}

impl GivenPermission {
    pub(super) fn read(self) -> Result<Permission> {
        match self {
            Self::Text(text) => Permission::parse(&text),
            Self::Parts(parts) if parts.conditions.is_empty() => {
                let PermissionParts { resource, action, .. } = parts;
                PermissionObject { resource, action }.try_into()
            }
            Self::Parts(_) => {
                let text = "a permission has no conditions here";
                Err(Error::new(ErrorKind::ValidationError, text))
            }
        }
    }
}

/// What a role is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    /// Its name: letters, digits, `_`, `-` and dots; where the path has it, not needed.
    #[schema(min_length = 1, max_length = 63)]
    name: Option<String>,
    /// What it allows. One that names a table, such as `read:tables:users`,
    /// `read:tables:app.users` or `read:tables:app:*`, is for this one below `/api/v1/tables` and
    /// `/rest/v1`, and a privilege in PostgreSQL too, unless it has a `*`: read, create, update
    /// and delete are SELECT, INSERT, UPDATE, DELETE; write is the last three.
    permissions: Option<Vec<GivenPermission>>,
    /// What it forbids, whoever else allows it; only over HTTP. SQL of a role's own
    /// (`execute:queries`) can reach every table that PostgreSQL lets it reach.
    denied_permissions: Option<Vec<GivenPermission>>,
    /// Roles whose permissions it has too.
    inherits_from: Option<Vec<String>>,
}

impl RoleBody {
    /// What it says; what it does not say is as before.
    fn definition(self, old: RoleDefinition) -> Result<RoleDefinition> {
        let read = |given: Option<Vec<GivenPermission>>, old| match given {
            Some(list) => list.into_iter().map(GivenPermission::read).collect::<Result<_>>(),
            None => Ok(old),
        };
        Ok(RoleDefinition {
            allows: read(self.permissions, old.allows)?,
            denies: read(self.denied_permissions, old.denies)?,
            inherits: self.inherits_from.unwrap_or(old.inherits),
        })
    }
}

/// Create a role
///
/// In RustyDB, and `CREATE ROLE … NOLOGIN` with its privileges in PostgreSQL as the caller's role,
/// unless there is one of that name that nobody logs in as.
#[utoipa::path(
    post, path = "/api/v1/admin/roles", tag = "admin", request_body = RoleBody,
    responses((status = 201, description = "It is there.", body = RoleEntry))
)]
async fn create_role(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(mut body): JsonBody<RoleBody>,
) -> ApiResult {
    let Some(name) = body.name.take() else {
        return Err(Error::new(ErrorKind::ValidationError, "name is missing").into());
    };
    if door.auth.roles().await?.get(&name).is_some() {
        let text = format!("there is a role \"{name}\" already");
        return Err(Error::new(ErrorKind::Conflict, text).into());
    }
    put(&door, &caller, &name, body.definition(RoleDefinition::default())?).await?;
    Ok(answer(StatusCode::CREATED, &look(&door, &name).await?))
}

/// Change a role
///
/// It is afterwards as the body says, and as before where the body says nothing; privileges and
/// memberships of its role of PostgreSQL follow.
#[utoipa::path(
    put, path = "/api/v1/admin/roles/{role_name}", tag = "admin", request_body = RoleBody,
    params(("role_name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The role as it is now.", body = RoleEntry))
)]
async fn update_role(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    JsonBody(body): JsonBody<RoleBody>,
) -> ApiResult {
    if body.name.as_ref().is_some_and(|other| *other != name) {
        let text = "the name in the body is not that in the path";
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    look(&door, &name).await?;
    let old = door.auth.roles().await?.get(&name).cloned().unwrap_or_default();
    put(&door, &caller, &name, body.definition(old)?).await?;
    Ok(answer(StatusCode::OK, &look(&door, &name).await?))
}

async fn put(door: &HttpDoor, caller: &Caller, name: &str, new: RoleDefinition) -> Result<()> {
    let roles = door.auth.roles().await?;
    let mut changed = Roles::clone(&roles);
    changed.put(name, new.clone())?;
    door.auth.may_give(&caller.identity, changed.allowed([name])).await?;
    let old = roles.get(name).cloned().unwrap_or_default();
    let mut statements = Vec::new();
    if group(door, name).await?.is_none() {
        statements.push(format!("CREATE ROLE {} NOLOGIN", quote_name(name)?));
    }
    changes(name, &old, &new, &mut statements)?;
    memberships(door, name, &old, &new, &mut statements).await?;
    if !statements.is_empty() {
        let mut session = caller.session(door, None)?;
        fetch::all_or_none(door, &mut session, &statements).await?;
    }
    door.auth.change_role(&caller.identity, name, Some(new), &caller.visit).await
}

/// Privileges on tables that come and go with permissions.
fn changes(
    name: &str,
    old: &RoleDefinition,
    new: &RoleDefinition,
    statements: &mut Vec<String>,
) -> Result<()> {
    let role = quote_name(name)?;
    let mut revoked = Vec::new();
    for permission in old.allows.iter().filter(|p| !new.allows.contains(p)) {
        if let Some((privilege, table)) = privilege(permission)? {
            statements.push(format!("REVOKE {privilege} ON {table} FROM {role}"));
            revoked.push(table);
        }
    }
    for permission in &new.allows {
        let is_new = !old.allows.contains(permission);
        // What stays may have been part of what was taken away.
        if let Some((privilege, table)) = privilege(permission)?
            && (is_new || revoked.contains(&table))
        {
            statements.push(format!("GRANT {privilege} ON {table} TO {role}"));
        }
    }
    Ok(())
}

/// What a permission on one table is in PostgreSQL.
fn privilege(permission: &Permission) -> Result<Option<(&'static str, String)>> {
    let Some((schema, table)) = permission.table() else { return Ok(None) };
    let PermissionObject { action, .. } = permission.to_object();
    let privilege = match action.as_str() {
        "read" => "SELECT",
        "create" => "INSERT",
        "update" => "UPDATE",
        "delete" => "DELETE",
        "write" => "INSERT, UPDATE, DELETE",
        _ => return Ok(None),
    };
    match [schema, table].contains(&"*") {
        true => Ok(None),
        false => Ok(Some((privilege, format!("TABLE {}", quote_qualified(schema, table)?)))),
    }
}

/// Who inherits in RustyDB is a member in PostgreSQL, where that has both roles.
async fn memberships(
    door: &HttpDoor,
    name: &str,
    old: &RoleDefinition,
    new: &RoleDefinition,
    statements: &mut Vec<String>,
) -> Result<()> {
    let role = quote_name(name)?;
    for gone in old.inherits.iter().filter(|from| !new.inherits.contains(from)) {
        if group(door, gone).await?.is_some() {
            statements.push(format!("REVOKE {} FROM {role}", quote_name(gone)?));
        }
    }
    for added in new.inherits.iter().filter(|from| !old.inherits.contains(from)) {
        if group(door, added).await?.is_some() {
            statements.push(format!("GRANT {} TO {role}", quote_name(added)?));
        }
    }
    Ok(())
}

/// Remove a role
///
/// In RustyDB and, with its privileges on the tables that its permissions name, in PostgreSQL. One
/// that owns something there, or has other privileges, stays.
#[utoipa::path(
    delete, path = "/api/v1/admin/roles/{role_name}", tag = "admin",
    params(("role_name" = String, Path, description = "Its name.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_role(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> ApiResult {
    let roles = door.auth.roles().await?;
    let known = roles.get(&name).cloned();
    if known.is_some() {
        Roles::clone(&roles).remove(&name)?;
        door.auth.may_give_roles(&caller.identity, &[&name]).await?;
    }
    match group(&door, &name).await? {
        None if known.is_none() => {
            let text = format!("there is no role \"{name}\"");
            return Err(Error::new(ErrorKind::NotFound, text).into());
        }
        None => {}
        Some(_) => {
            let mut statements = Vec::new();
            let old = known.clone().unwrap_or_default();
            changes(&name, &old, &RoleDefinition::default(), &mut statements)?;
            statements.push(format!("DROP ROLE {}", quote_name(&name)?));
            let mut session = caller.session(&door, None)?;
            fetch::all_or_none(&door, &mut session, &statements).await?;
        }
    }
    if known.is_some() {
        door.auth.change_role(&caller.identity, &name, None, &caller.visit).await?;
    }
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_come_and_go_with_permissions() {
        let role = |texts: &[&str]| RoleDefinition {
            allows: texts.iter().map(|text| Permission::parse(text).unwrap()).collect(),
            ..RoleDefinition::default()
        };
        let statements = |old: &[&str], new: &[&str]| {
            let mut statements = Vec::new();
            changes("r", &role(old), &role(new), &mut statements).unwrap();
            statements
        };
        let (write, update) = ("write:tables:t", "update:tables:t");
        assert_eq!(statements(&[update], &[update]), Vec::<String>::new());
        assert_eq!(
            statements(&[write, update, "read:tables:u"], &[update, "read:tables:u"]),
            [
                r#"REVOKE INSERT, UPDATE, DELETE ON TABLE "public"."t" FROM "r""#,
                r#"GRANT UPDATE ON TABLE "public"."t" TO "r""#,
            ]
        );
    }

    #[test]
    fn permissions_on_one_table_are_privileges() {
        for (permission, expected) in [
            ("read:tables:users", Some("SELECT TABLE \"public\".\"users\"")),
            ("read:tables:app.users", Some("SELECT TABLE \"app\".\"users\"")),
            ("write:tables:App:a b", Some("INSERT, UPDATE, DELETE TABLE \"App\".\"a b\"")),
            ("create:tables:x", Some("INSERT TABLE \"public\".\"x\"")),
            ("read:tables", None),
            ("read:tables:*", None),
            ("read:tables:app:*", None),
            ("execute:queries", None),
            ("admin:tables:users", None),
            ("subscribe:tables:users", None),
        ] {
            let found = privilege(&Permission::parse(permission).unwrap()).unwrap();
            let found = found.map(|(privilege, table)| format!("{privilege} {table}"));
            assert_eq!(found.as_deref(), expected, "{permission}");
        }
    }
}
