//! The description of the API.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use utoipa_axum::routes;

use super::super::{HttpDoor, description, error};
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
    responses((status = 200, description = "The document.", body = Object))
)]
async fn get_openapi(State(door): State<Arc<HttpDoor>>) -> Response {
    if !door.config.now().api.enable_swagger {
        let text = "the API is not described: api.enable_swagger is off";
        return error::response(Error::new(ErrorKind::NotFound, text));
    }
    let mut response = Response::new(Body::from(door.description.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    response
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
