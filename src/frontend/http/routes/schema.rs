//! Everything that a database contains beside tables: schemas, views, indexes, procedures; and
//! the databases themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::etag::tagged;
use super::super::extract::{Caller, InPath, JsonBody, Params};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch, no_content};
use super::{DropQuery, Routes, aliased_to, jobs};
use crate::error::{Error, ErrorKind, Result};
use crate::query::ddl::{check_expression, quote_list, quote_name, quote_qualified};
use crate::query::quote_literal;
use crate::session::Session;
use crate::session::jobs::Job;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_schema))
        .routes(routes!(list_schemas, create_schema))
        .routes(routes!(get_one_schema, delete_schema))
        .route(
            "/api/v1/schema/{name}",
            aliased_to(axum::routing::get(get_one_schema), |path| {
                path.replacen("/schema/", "/schemas/", 1)
            }),
        )
        .routes(routes!(list_databases, create_database))
        .routes(routes!(delete_database))
        .routes(routes!(list_views, create_view))
        .routes(routes!(delete_view))
        .routes(routes!(list_indexes, create_index))
        .routes(routes!(delete_index))
}

/// Which database, and which schema of it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PlaceQuery {
    /// The schema; * = all, in lists.
    #[param(default = "public")]
    schema: Option<String>,
    /// Another database than api.database.
    pub(super) database: Option<String>,
}

impl PlaceQuery {
    pub(super) fn schema(&self) -> &str {
        self.schema.as_deref().unwrap_or("public")
    }

    pub(super) fn of_list(&self) -> Option<&str> {
        Some(self.schema()).filter(|schema| *schema != "*")
    }
}

async fn execute(door: &HttpDoor, caller: &Caller, place: Option<&str>, sql: &str) -> Result<()> {
    let mut session = caller.session(door, place)?;
    fetch::run(door, &mut session, sql, &[]).await.map(drop)
}

/// A schema and what it contains.
#[derive(Serialize, Deserialize, ToSchema)]
struct SchemaTree {
    /// Name.
    name: String,
    /// Role that owns it.
    owner: String,
    /// COMMENT ON SCHEMA.
    #[schema(required)]
    comment: Option<String>,
    /// Tables with their columns.
    tables: Vec<Value>,
    /// Views with their columns.
    views: Vec<Value>,
    /// Functions and procedures.
    functions: Vec<Value>,
    /// Types.
    types: Vec<Value>,
}

/// The schemas of a database.
#[derive(Serialize, ToSchema)]
struct DatabaseTree {
    /// Its schemas.
    schemas: Vec<SchemaTree>,
}

/// Get the whole schema
///
/// Schemas, their tables with columns, views, functions and types; system schemas only by name.
#[utoipa::path(
    get, path = "/api/v1/schema", tag = "schema", params(PlaceQuery),
    responses(
        (status = 200, description = "The tree.", body = DatabaseTree),
        (status = 304, description = "It is what If-None-Match names."),
    )
)]
async fn get_schema(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(place): Params<PlaceQuery>,
    headers: HeaderMap,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = include_str!("../../../../sql/api/schema.sql");
    let found = fetch::run(&door, &mut session, sql, &[place.schema.as_deref()]).await?;
    tagged(&headers, &DatabaseTree { schemas: found.typed()? })
}

/// A schema in a list.
#[derive(Serialize, Deserialize, ToSchema)]
struct SchemaEntry {
    /// Name.
    name: String,
    /// Role that owns it.
    owner: String,
    /// COMMENT ON SCHEMA.
    #[schema(required)]
    comment: Option<String>,
    /// How many tables it has.
    tables: u64,
    /// How many views it has.
    views: u64,
    /// How many functions and procedures it has.
    functions: u64,
}

/// Which schemas.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SchemasQuery {
    /// PostgreSQL's own too.
    #[serde(default)]
    include_system: bool,
    /// Another database than api.database.
    database: Option<String>,
}

/// List schemas
///
/// The schemas of a database.
#[utoipa::path(
    get, path = "/api/v1/schemas", tag = "schema", params(SchemasQuery, Page),
    responses(
        (status = 200, description = "A page of them.", body = List<SchemaEntry>),
        (status = 304, description = "It is what If-None-Match names."),
    )
)]
async fn list_schemas(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<SchemasQuery>,
    page: Page,
    headers: HeaderMap,
) -> ApiResult {
    let mut session = caller.session(&door, query.database.as_deref())?;
    let system = query.include_system.to_string();
    let sql = include_str!("../../../../sql/api/schemas.sql");
    let params = [None, Some(system.as_str())];
    let list = fetch::page::<SchemaEntry>(&door, &mut session, sql, &params, page).await?;
    tagged(&headers, &list)
}

/// Get a schema
///
/// A schema with its tables, views, functions and types.
#[utoipa::path(
    get, path = "/api/v1/schemas/{name}", tag = "schema",
    params(("name" = String, Path, description = "Name of the schema."),
        ("database" = Option<String>, Query, description = "Another database.")),
    responses(
        (status = 200, description = "The schema.", body = SchemaTree),
        (status = 304, description = "It is what If-None-Match names."),
    )
)]
async fn get_one_schema(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(place): Params<PlaceQuery>,
    headers: HeaderMap,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = include_str!("../../../../sql/api/schema.sql");
    let found = fetch::run(&door, &mut session, sql, &[Some(&name)]).await?;
    let schema: SchemaTree = found.one(|| format!("there is no schema \"{name}\""))?;
    tagged(&headers, &schema)
}

/// A schema that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSchema {
    /// Name.
    name: String,
    /// Role that owns it; the caller unless said otherwise.
    owner: Option<String>,
    /// Not an error when there is one of this name.
    #[serde(default)]
    if_not_exists: bool,
    /// Another database than api.database.
    database: Option<String>,
}

/// What was made.
#[derive(Serialize, ToSchema)]
pub(super) struct Created {
    /// Its name.
    pub(super) name: String,
    /// Its schema, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<String>,
}

/// Create a schema
///
/// `CREATE SCHEMA`, as the caller's role.
#[utoipa::path(
    post, path = "/api/v1/schemas", tag = "schema", request_body = CreateSchema,
    responses((status = 201, description = "It is there.", body = Created))
)]
async fn create_schema(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateSchema>,
) -> ApiResult {
    let if_not_exists = if new.if_not_exists { "IF NOT EXISTS " } else { "" };
    let mut sql = format!("CREATE SCHEMA {if_not_exists}{}", quote_name(&new.name)?);
    if let Some(owner) = &new.owner {
        sql += &format!(" AUTHORIZATION {}", quote_name(owner)?);
    }
    execute(&door, &caller, new.database.as_deref(), &sql).await?;
    Ok(answer(StatusCode::CREATED, &Created { name: new.name, schema: None }))
}

/// Drop a schema
///
/// `DROP SCHEMA`, as the caller's role.
#[utoipa::path(
    delete, path = "/api/v1/schemas/{name}", tag = "schema",
    params(("name" = String, Path, description = "Name of the schema."), DropQuery,
        ("database" = Option<String>, Query, description = "Another database.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_schema(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(place): Params<PlaceQuery>,
    Params(how): Params<DropQuery>,
) -> ApiResult {
    let sql = how.sql("SCHEMA", &quote_name(&name)?);
    execute(&door, &caller, place.database.as_deref(), &sql).await?;
    Ok(no_content())
}

/// A database in a list.
#[derive(Serialize, Deserialize, ToSchema)]
struct DatabaseEntry {
    /// Name.
    name: String,
    /// Role that owns it.
    owner: String,
    /// Encoding.
    encoding: String,
    /// Collation.
    collate: String,
    /// Whether it is a template.
    is_template: bool,
    /// Whether it can be connected to.
    allows_connections: bool,
    /// Bytes; null for who may not connect to it.
    #[schema(required)]
    size_bytes: Option<i64>,
    /// COMMENT ON DATABASE.
    #[schema(required)]
    comment: Option<String>,
}

/// List databases
///
/// The databases of the server.
#[utoipa::path(
    get, path = "/api/v1/sql/databases", tag = "schema", params(Page),
    responses((status = 200, description = "A page of them.", body = List<DatabaseEntry>))
)]
async fn list_databases(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, None)?;
    let sql = include_str!("../../../../sql/api/databases.sql");
    let list = fetch::page::<DatabaseEntry>(&door, &mut session, sql, &[], page).await?;
    Ok(answer(StatusCode::OK, &list))
}

/// A database that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateDatabase {
    /// Name.
    name: String,
    /// Role that owns it; the caller unless said otherwise.
    owner: Option<String>,
    /// Database that it is a copy of.
    template: Option<String>,
    /// Encoding.
    encoding: Option<String>,
}

/// Create a database
///
/// `CREATE DATABASE`, as the caller's role.
#[utoipa::path(
    post, path = "/api/v1/sql/databases", tag = "schema", request_body = CreateDatabase,
    responses((status = 201, description = "It is there.", body = Created))
)]
async fn create_database(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateDatabase>,
) -> ApiResult {
    let mut sql = format!("CREATE DATABASE {}", quote_name(&new.name)?);
    if let Some(owner) = &new.owner {
        sql += &format!(" OWNER {}", quote_name(owner)?);
    }
    if let Some(template) = &new.template {
        sql += &format!(" TEMPLATE {}", quote_name(template)?);
    }
    if let Some(encoding) = &new.encoding {
        sql += &format!(" ENCODING {}", quote_literal(encoding));
    }
    execute(&door, &caller, None, &sql).await?;
    Ok(answer(StatusCode::CREATED, &Created { name: new.name, schema: None }))
}

/// How a database is dropped.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DropDatabaseQuery {
    /// Ends the sessions that are in it.
    #[serde(default)]
    force: bool,
    /// Not an error when there is none.
    #[serde(default)]
    if_exists: bool,
}

/// Drop a database
///
/// `DROP DATABASE`, as the caller's role.
#[utoipa::path(
    delete, path = "/api/v1/sql/databases/{name}", tag = "schema",
    params(("name" = String, Path, description = "Name of the database."), DropDatabaseQuery),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_database(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(how): Params<DropDatabaseQuery>,
) -> ApiResult {
    let if_exists = if how.if_exists { "IF EXISTS " } else { "" };
    let force = if how.force { " WITH (FORCE)" } else { "" };
    let sql = format!("DROP DATABASE {if_exists}{}{force}", quote_name(&name)?);
    execute(&door, &caller, None, &sql).await?;
    Ok(no_content())
}

/// A view in a list.
#[derive(Serialize, Deserialize, ToSchema)]
struct ViewEntry {
    /// Name.
    name: String,
    /// Its schema.
    schema: String,
    /// view, materialized view.
    kind: String,
    /// Its query.
    definition: String,
    /// Role that owns it.
    owner: String,
    /// COMMENT ON VIEW.
    #[schema(required)]
    comment: Option<String>,
}

/// List views
///
/// The views and materialized views of a schema.
#[utoipa::path(
    get, path = "/api/v1/sql/views", tag = "schema", params(PlaceQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<ViewEntry>))
)]
async fn list_views(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(place): Params<PlaceQuery>,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = include_str!("../../../../sql/api/views.sql");
    let list = fetch::page::<ViewEntry>(&door, &mut session, sql, &[place.of_list()], page).await?;
    Ok(answer(StatusCode::OK, &list))
}

/// A view that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateView {
    /// Name.
    name: String,
    /// Schema; public unless said otherwise.
    schema: Option<String>,
    /// Its query.
    #[schema(examples("select 1 as one"))]
    query: String,
    /// Keeps its rows until it is refreshed.
    #[serde(default)]
    materialized: bool,
    /// Replaces a view of this name.
    #[serde(default)]
    or_replace: bool,
    /// Another database than api.database.
    database: Option<String>,
}

/// Create a view
///
/// `CREATE VIEW`, as the caller's role.
#[utoipa::path(
    post, path = "/api/v1/sql/views", tag = "schema", request_body = CreateView,
    responses((status = 201, description = "It is there.", body = Created))
)]
async fn create_view(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateView>,
) -> ApiResult {
    if new.materialized && new.or_replace {
        let text = "PostgreSQL cannot replace a materialized view";
        return Err(Error::new(ErrorKind::ValidationError, text).with_hint("drop it first").into());
    }
    let query = new.query.trim().trim_end_matches(';');
    check_expression("query", query)?;
    let schema = new.schema.unwrap_or_else(|| "public".into());
    let what = match (new.materialized, new.or_replace) {
        (true, _) => "MATERIALIZED VIEW",
        (false, true) => "OR REPLACE VIEW",
        (false, false) => "VIEW",
    };
    let sql = format!("CREATE {what} {} AS {query}", quote_qualified(&schema, &new.name)?);
    execute(&door, &caller, new.database.as_deref(), &sql).await?;
    Ok(answer(StatusCode::CREATED, &Created { name: new.name, schema: Some(schema) }))
}

/// Drop a view
///
/// `DROP VIEW` or `DROP MATERIALIZED VIEW`, as the caller's role.
#[utoipa::path(
    delete, path = "/api/v1/sql/views/{name}", tag = "schema",
    params(("name" = String, Path, description = "Name of the view."), PlaceQuery, DropQuery),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_view(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(place): Params<PlaceQuery>,
    Params(how): Params<DropQuery>,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = "SELECT c.relkind::text AS kind FROM pg_catalog.pg_class c JOIN \
               pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2";
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    let params = [Some(place.schema()), Some(name.as_str())];
    let found: Vec<Kind> = fetch::run(&door, &mut session, sql, &params).await?.typed()?;
    let is_materialized = found.first().is_some_and(|found| found.kind == "m");
    let what = if is_materialized { "MATERIALIZED VIEW" } else { "VIEW" };
    let sql = how.sql(what, &quote_qualified(place.schema(), &name)?);
    fetch::run(&door, &mut session, &sql, &[]).await?;
    Ok(no_content())
}

/// An index in a list.
#[derive(Serialize, Deserialize, ToSchema)]
struct IndexEntry {
    /// Name.
    name: String,
    /// Its schema.
    schema: String,
    /// Its table.
    table: String,
    /// btree, hash, gin, gist, brin, spgist.
    method: String,
    /// Whether no two rows have the same key.
    unique: bool,
    /// Whether it belongs to the primary key.
    primary: bool,
    /// Whether it can be used.
    valid: bool,
    /// Bytes.
    size_bytes: i64,
    /// How often it was used.
    scans: i64,
    /// The statement that makes it.
    definition: String,
}

/// Which indexes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct IndexQuery {
    /// Those of this table.
    table: Option<String>,
}

/// List indexes
///
/// The indexes of a schema or of one table.
#[utoipa::path(
    get, path = "/api/v1/sql/indexes", tag = "schema", params(PlaceQuery, IndexQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<IndexEntry>))
)]
async fn list_indexes(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(place): Params<PlaceQuery>,
    Params(of): Params<IndexQuery>,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = include_str!("../../../../sql/api/indexes.sql");
    let params = [place.of_list(), of.table.as_deref()];
    let list = fetch::page::<IndexEntry>(&door, &mut session, sql, &params, page).await?;
    Ok(answer(StatusCode::OK, &list))
}

/// An index that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateIndex {
    /// Name; PostgreSQL finds one unless said otherwise.
    name: Option<String>,
    /// Schema of the table; public unless said otherwise.
    schema: Option<String>,
    /// The table.
    table: String,
    /// Columns in order.
    #[schema(min_items = 1, max_items = 32)]
    columns: Vec<String>,
    /// No two rows have the same key.
    #[serde(default)]
    unique: bool,
    /// btree (unless said otherwise), hash, gin, gist, brin, spgist.
    method: Option<String>,
    /// SQL expression: only rows of which it is true.
    #[serde(rename = "where")]
    predicate: Option<String>,
    /// Further columns that the index holds.
    #[serde(default)]
    include: Vec<String>,
    /// Without stopping writes to the table: a job does it.
    #[serde(default)]
    concurrently: bool,
    /// Another database than api.database.
    database: Option<String>,
}

impl CreateIndex {
    fn sql(&self) -> Result<String> {
        if self.columns.is_empty() {
            return Err(Error::new(ErrorKind::ValidationError, "columns is empty"));
        }
        let method = self.method.as_deref().unwrap_or("btree");
        if !["btree", "hash", "gin", "gist", "brin", "spgist"].contains(&method) {
            let text = format!("the method \"{method}\" is not known");
            return Err(Error::new(ErrorKind::ValidationError, text)
                .with_hint("btree, hash, gin, gist, brin or spgist"));
        }
        let unique = if self.unique { "UNIQUE " } else { "" };
        let concurrently = if self.concurrently { "CONCURRENTLY " } else { "" };
        let name = match &self.name {
            Some(name) => quote_name(name)? + " ",
            None => String::new(),
        };
        let table = quote_qualified(self.schema.as_deref().unwrap_or("public"), &self.table)?;
        let columns = quote_list(&self.columns)?;
        let mut sql = format!(
            "CREATE {unique}INDEX {concurrently}{name}ON {table} USING {method} ({columns})"
        );
        if !self.include.is_empty() {
            sql += &format!(" INCLUDE ({})", quote_list(&self.include)?);
        }
        if let Some(predicate) = &self.predicate {
            check_expression("where", predicate)?;
            sql += &format!(" WHERE ({predicate}\n)");
        }
        Ok(sql)
    }
}

/// Create an index
///
/// `CREATE INDEX`, as the caller's role; with `concurrently` in a job.
#[utoipa::path(
    post, path = "/api/v1/sql/indexes", tag = "schema", request_body = CreateIndex,
    responses(
        (status = 201, description = "It is there.", body = IndexEntry),
        (status = 202, description = "A job makes it; its result is the index.", body = Job),
    )
)]
async fn create_index(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateIndex>,
) -> ApiResult {
    let sql = new.sql()?;
    if new.concurrently {
        let (creator, working) = (caller.identity.clone(), door.clone());
        let work = |name: String| async move {
            let mut session = caller.session_of_job(&working, new.database.as_deref(), &name)?;
            fetch::run_unhurried(&working, &mut session, &sql).await?;
            let index = newest_index(&working, &mut session, &new).await?;
            serde_json::to_value(&index).map_err(Error::internal)
        };
        return jobs::accept(&door, &creator, "create_index", work).await;
    }
    let mut session = caller.session(&door, new.database.as_deref())?;
    fetch::run(&door, &mut session, &sql, &[]).await?;
    let index = newest_index(&door, &mut session, &new).await?;
    Ok(answer(StatusCode::CREATED, &index))
}

/// The newest of the table is the one that was just made.
async fn newest_index(
    door: &HttpDoor,
    session: &mut Session,
    new: &CreateIndex,
) -> Result<IndexEntry> {
    let sql = include_str!("../../../../sql/api/indexes.sql")
        .replace("ORDER BY n.nspname, i.relname", "ORDER BY i.oid DESC");
    let schema = new.schema.as_deref().unwrap_or("public");
    let params = [Some(schema), Some(new.table.as_str()), Some("1"), Some("0")];
    let found = fetch::run(door, session, &sql, &params).await?;
    found.one(|| "the index is gone already".into())
}

/// How an index is dropped.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DropIndexQuery {
    /// Without stopping writes to the table.
    #[serde(default)]
    concurrently: bool,
}

/// Drop an index
///
/// `DROP INDEX`, as the caller's role.
#[utoipa::path(
    delete, path = "/api/v1/sql/indexes/{name}", tag = "schema",
    params(("name" = String, Path, description = "Name of the index."), PlaceQuery, DropQuery,
        DropIndexQuery),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_index(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(place): Params<PlaceQuery>,
    Params(how): Params<DropQuery>,
    Params(index): Params<DropIndexQuery>,
) -> ApiResult {
    let what = if index.concurrently { "INDEX CONCURRENTLY" } else { "INDEX" };
    let sql = how.sql(what, &quote_qualified(place.schema(), &name)?);
    execute(&door, &caller, place.database.as_deref(), &sql).await?;
    Ok(no_content())
}
