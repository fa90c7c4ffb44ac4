//! The description of the API.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::etag::tagged_bytes;
use super::super::{HttpDoor, description};
use super::Routes;
use crate::error::{Error, ErrorKind};

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(get_openapi))
}

/// The description as a JSON document.
pub fn document() -> String {
    // It is made of strings and numbers, which always become JSON.
    let mut described = serde_json::to_value(super::api().1).unwrap_or_default();
    description::sharpen(&mut described);
    let mut text = serde_json::to_string_pretty(&described).unwrap_or_default();
    text.push('\n');
    text
}

/// Describe the API
///
/// OpenAPI 3.1, for people's tools and for generators of clients.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "server",
    responses(
        (status = 200, description = "The document.", body = Object),
        (status = 304, description = "It is what If-None-Match names."),
    )
)]
async fn get_openapi(State(door): State<Arc<HttpDoor>>, headers: HeaderMap) -> ApiResult {
    if !door.config.now().api.enable_swagger {
        let text = "the API is not described: api.enable_swagger is off";
        return Err(Error::new(ErrorKind::NotFound, text).into());
    }
    Ok(tagged_bytes(&headers, door.description.clone(), "max-age=300")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_EXPECT=1` writes it anew (`make openapi-file`).
    #[test]
    fn the_checked_in_description_is_that_of_the_routes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let same = std::fs::read_to_string(path).is_ok_and(|text| text == document());
        assert!(same, "docs/openapi.json is not what the routes say: run `make openapi-file`");
    }

    /// Operations whose names generated clients rely on.
    const NAMED: [(&str, &str); 34] = [
        ("post /api/v1/query", "execute_query"),
        ("post /api/v1/batch", "execute_batch"),
        ("get /api/v1/tables/{name}", "get_table"),
        ("post /api/v1/tables", "create_table"),
        ("put /api/v1/tables/{name}", "update_table"),
        ("delete /api/v1/tables/{name}", "delete_table"),
        ("get /api/v1/schema", "get_schema"),
        ("post /api/v1/transactions", "begin_transaction"),
        ("post /api/v1/transactions/{id}/commit", "commit_transaction"),
        ("post /api/v1/transactions/{id}/rollback", "rollback_transaction"),
        ("get /api/v1/health", "get_health"),
        ("get /api/v1/monitoring/prometheus", "get_metrics"),
        ("get /api/v1/config", "get_config"),
        ("get /api/v1/transactions/locks", "get_locks"),
        ("delete /api/v1/transactions/locks/{lock_id}", "release_lock"),
        ("get /api/v1/pools", "get_pools"),
        ("get /api/v1/pools/{id}", "get_pool"),
        ("put /api/v1/pools/{id}", "update_pool"),
        ("get /api/v1/pools/{id}/stats", "get_pool_stats"),
        ("post /api/v1/pools/{id}/drain", "drain_pool"),
        ("get /api/v1/connections", "get_connections"),
        ("get /api/v1/connections/{id}", "get_connection"),
        ("delete /api/v1/connections/{id}", "kill_connection"),
        ("get /api/v1/sessions", "get_sessions"),
        ("get /api/v1/sessions/{id}", "get_session"),
        ("delete /api/v1/sessions/{id}", "terminate_session"),
        ("get /api/v1/admin/config", "admin_get_config"),
        ("get /api/v1/admin/users/{username}", "get_user"),
        ("get /api/v1/admin/roles/{role_name}", "get_role"),
        ("post /api/v1/admin/roles", "create_role"),
        ("post /api/v1/sql/databases", "create_database"),
        ("post /api/v1/sql/views", "create_view"),
        ("post /api/v1/sql/indexes", "create_index"),
        ("post /api/v1/sql/procedures", "create_procedure"),
    ];

    #[test]
    fn operations_keep_their_names() {
        let described: serde_json::Value = serde_json::from_str(&document()).unwrap();
        for (of, name) in NAMED {
            let (method, path) = of.split_once(' ').unwrap();
            assert_eq!(described["paths"][path][method]["operationId"], name, "{of}");
        }
    }

    #[test]
    fn every_operation_is_described() {
        let described: serde_json::Value = serde_json::from_str(&document()).unwrap();
        assert_eq!(described["openapi"], "3.1.0");
        let paths = described["paths"].as_object().unwrap();
        let mut names = std::collections::HashSet::new();
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                let whose = format!("{method} {path}");
                for part in ["operationId", "summary", "description", "tags", "security"] {
                    assert!(!operation[part].is_null(), "{whose} has no {part}");
                }
                assert!(names.insert(operation["operationId"].to_string()), "{whose}: same name");
            }
        }
    }
}
