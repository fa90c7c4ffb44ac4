//! `/rest/v1`: tables and functions in PostgREST's dialect.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::HttpDoor;
use super::super::rows::rest;
use super::Routes;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(describe))
        .route("/rest/v1", any(other))
        .route("/rest/v1/", any(other).get(describe))
        .routes(routes!(read_rows, insert_rows, update_rows, put_row, delete_rows, table_methods,))
        .routes(routes!(call_by_get, call_by_post, function_methods))
        .route("/rest/v1/{table}", any(other))
        .route("/rest/v1/rpc/{function}", any(other))
        .route("/rest/v1/{table}/{more}", any(other))
}

/// Body of an answer that is no success, in PostgREST's form.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what is written as JSON")]
struct RestError {
    /// PGRST and a number, or PostgreSQL's SQLSTATE.
    code: String,
    /// Text for people.
    message: String,
    /// More about it.
    #[schema(required)]
    details: Option<Value>,
    /// What to do.
    #[schema(required)]
    hint: Option<String>,
}

/// Describe the schema
///
/// Tables and functions of the schema that Accept-Profile names, as Swagger 2.0.
#[utoipa::path(
    get, path = "/rest/v1", tag = "rest",
    responses(
        (status = 200, description = "The description.", body = Object,
            content_type = "application/openapi+json"),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn describe(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Read rows
///
/// Rows of a table or view. Other parameters are filters: `column=operator.value`.
#[utoipa::path(
    get, path = "/rest/v1/{table}", tag = "rest",
    params(
        ("table" = String, Path, description = "Table or view."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
        ("order" = Option<String>, Query, description = "Order of the rows."),
        ("limit" = Option<u64>, Query, description = "Rows at most."),
        ("offset" = Option<i64>, Query,
            description = "Rows left out at the beginning; a negative number is none."),
        ("Range" = Option<String>, Header, description = "Rows of the page: 0-9."),
        ("Accept-Profile" = Option<String>, Header, description = "Schema."),
    ),
    responses(
        (status = 200, description = "The rows.", body = Value),
        (status = 206, description = "A part of the rows.", body = Value),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn read_rows(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Insert rows
///
/// One row or many, as JSON or CSV; with `Prefer: resolution=` rows that are there already are
/// changed or left alone.
#[utoipa::path(
    post, path = "/rest/v1/{table}", tag = "rest", request_body = Value,
    params(
        ("table" = String, Path, description = "Table or view."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
        ("on_conflict" = Option<String>, Query, description = "What tells whether a row is there."),
        ("columns" = Option<String>, Query, description = "Columns that get values."),
        ("Content-Profile" = Option<String>, Header, description = "Schema."),
    ),
    responses(
        (status = 201, description = "They are there.", body = Value),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn insert_rows(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Change rows
///
/// The rows that the filters name get these values.
#[utoipa::path(
    patch, path = "/rest/v1/{table}", tag = "rest", request_body = Value,
    params(
        ("table" = String, Path, description = "Table or view."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
        ("columns" = Option<String>, Query, description = "Columns that get values."),
        ("Content-Profile" = Option<String>, Header, description = "Schema."),
    ),
    responses(
        (status = 200, description = "The rows as they are now.", body = Value),
        (status = 204, description = "They are changed."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn update_rows(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Put a row
///
/// The row whose primary key the filters name is inserted or replaced.
#[utoipa::path(
    put, path = "/rest/v1/{table}", tag = "rest", request_body = Value,
    params(
        ("table" = String, Path, description = "Table or view."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
        ("Content-Profile" = Option<String>, Header, description = "Schema."),
    ),
    responses(
        (status = 200, description = "The row as it is now.", body = Value),
        (status = 204, description = "It is there."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn put_row(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Delete rows
///
/// The rows that the filters name.
#[utoipa::path(
    delete, path = "/rest/v1/{table}", tag = "rest",
    params(
        ("table" = String, Path, description = "Table or view."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
        ("Content-Profile" = Option<String>, Header, description = "Schema."),
    ),
    responses(
        (status = 200, description = "The rows as they were.", body = Value),
        (status = 204, description = "They are gone."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn delete_rows(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Methods of a table
///
/// Which methods there are.
#[utoipa::path(
    options, path = "/rest/v1/{table}", tag = "rest",
    params(
        ("table" = String, Path, description = "Table or view."),
    ),
    responses(
        (status = 200, description = "In the header Allow."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn table_methods(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Call a function by GET
///
/// Parameters are arguments; filters of its rows have an operator. Runs in a read-only transaction.
#[utoipa::path(
    get, path = "/rest/v1/rpc/{function}", tag = "rest",
    params(
        ("function" = String, Path, description = "Function."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
    ),
    responses(
        (status = 200, description = "What it returns.", body = Value),
        (status = 204, description = "It returns nothing."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn call_by_get(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Call a function
///
/// The body's members are arguments.
#[utoipa::path(
    post, path = "/rest/v1/rpc/{function}", tag = "rest", request_body = Value,
    params(
        ("function" = String, Path, description = "Function."),
        ("select" = Option<String>, Query, description = "Columns, related tables."),
        ("Prefer" = Option<String>, Header, description = "return=, count=, …"),
    ),
    responses(
        (status = 200, description = "What it returns.", body = Value),
        (status = 204, description = "It returns nothing."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn call_by_post(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// Methods of a function
///
/// Which methods there are.
#[utoipa::path(
    options, path = "/rest/v1/rpc/{function}", tag = "rest",
    params(
        ("function" = String, Path, description = "Function."),
    ),
    responses(
        (status = 200, description = "In the header Allow."),
        (status = "default", description = "It was refused.", body = RestError),
    )
)]
async fn function_methods(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    rest::serve(door, request).await
}

/// What is not described is answered, or refused, in the same form.
async fn other(State(door): State<Arc<HttpDoor>>, mut request: Request) -> Response {
    let mut parts = request.uri().path().trim_start_matches("/rest/v1").split('/').skip(1);
    let allowed = match parts.next() {
        None | Some("") => "GET, HEAD",
        Some("rpc") => "OPTIONS, GET, HEAD, POST",
        Some(_) => "OPTIONS, GET, HEAD, POST, PUT, PATCH, DELETE",
    };
    // The method comes before the schema.
    request.headers_mut().remove("content-profile");
    let mut response = rest::serve(door, request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    response
}
