//! Extensions of PostgreSQL.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody, Params};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch, no_content};
use super::{DropQuery, Routes};
use crate::audit::EventType;
use crate::error::Result;
use crate::query::ddl::quote_name;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list_extensions, create_extension))
        .routes(routes!(delete_extension))
}

/// An extension.
#[derive(Serialize, Deserialize, ToSchema)]
struct Extension {
    /// Its name.
    name: String,
    /// The version that would be installed.
    #[schema(required)]
    default_version: Option<String>,
    /// The version that is installed; null = none.
    #[schema(required)]
    installed_version: Option<String>,
    /// The schema that it is installed in.
    #[schema(required)]
    schema: Option<String>,
    /// What it is for.
    #[schema(required)]
    comment: Option<String>,
}

/// Which extensions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExtensionQuery {
    /// Only those that are installed.
    #[serde(default)]
    installed: bool,
    /// Another database than api.database.
    database: Option<String>,
}

/// List extensions
///
/// Those that PostgreSQL has, installed in a database or not.
#[utoipa::path(
    get, path = "/api/v1/admin/extensions", tag = "admin", params(ExtensionQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<Extension>))
)]
async fn list_extensions(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<ExtensionQuery>,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, query.database.as_deref())?;
    let installed = query.installed.to_string();
    let sql = include_str!("../../../../sql/api/extensions.sql");
    let params = [Some(installed.as_str())];
    let list = fetch::page::<Extension>(&door, &mut session, sql, &params, page).await?;
    Ok(answer(StatusCode::OK, &list))
}

/// An extension that is to be installed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateExtension {
    /// Its name.
    name: String,
    /// Schema for its objects.
    schema: Option<String>,
    /// Another version than the default one.
    version: Option<String>,
    /// With the extensions that it needs.
    #[serde(default)]
    cascade: bool,
    /// Another database than api.database.
    database: Option<String>,
}

impl CreateExtension {
    fn sql(&self) -> Result<String> {
        let mut sql = format!("CREATE EXTENSION {}", quote_name(&self.name)?);
        if let Some(schema) = &self.schema {
            sql += &format!(" SCHEMA {}", quote_name(schema)?);
        }
        if let Some(version) = &self.version {
            sql += &format!(" VERSION {}", quote_name(version)?);
        }
        if self.cascade {
            sql += " CASCADE";
        }
        Ok(sql)
    }
}

/// Install an extension
///
/// `CREATE EXTENSION`, as the caller's role.
#[utoipa::path(
    post, path = "/api/v1/admin/extensions", tag = "admin", request_body = CreateExtension,
    responses((status = 201, description = "It is installed.", body = Extension))
)]
async fn create_extension(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateExtension>,
) -> ApiResult {
    let sql = new.sql()?;
    let mut session = caller.session(&door, new.database.as_deref())?;
    fetch::run(&door, &mut session, &sql, &[]).await?;
    let (kind, identity, visit) = (EventType::Administration, &caller.identity, &caller.visit);
    door.auth.audit_change(kind, "create_extension", identity, new.name.as_str(), visit).await?;
    let sql = "SELECT a.name, a.default_version, a.installed_version, n.nspname AS schema, \
               a.comment FROM pg_catalog.pg_available_extensions a \
               JOIN pg_catalog.pg_extension e ON e.extname = a.name \
               JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE a.name = $1";
    let found = fetch::run(&door, &mut session, sql, &[Some(&new.name)]).await?;
    let extension: Extension = found.one(|| "the extension is gone already".into())?;
    Ok(answer(StatusCode::CREATED, &extension))
}

/// Remove an extension
///
/// `DROP EXTENSION`, as the caller's role.
#[utoipa::path(
    delete, path = "/api/v1/admin/extensions/{name}", tag = "admin",
    params(("name" = String, Path, description = "Its name."), DropQuery,
        ("database" = Option<String>, Query, description = "Another database.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_extension(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(how): Params<DropQuery>,
    Params(place): Params<ExtensionQuery>,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = how.sql("EXTENSION", &quote_name(&name)?);
    fetch::run(&door, &mut session, &sql, &[]).await?;
    let (kind, identity, visit) = (EventType::Administration, &caller.identity, &caller.visit);
    door.auth.audit_change(kind, "delete_extension", identity, name, visit).await?;
    Ok(no_content())
}
