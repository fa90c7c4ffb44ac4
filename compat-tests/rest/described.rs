//! The description of the API, as clients get it.

use crate::api::{Api, admin};
use crate::harness::shared::guarded;

#[test]
fn the_description_is_served_to_everybody() {
    let answer = Api::nobody(guarded()).get("/api/v1/openapi.json");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "max-age=300");
    let tag = [("if-none-match", answer.header("etag"))];
    let again = Api::nobody(guarded()).send("GET", "/api/v1/openapi.json", &tag, b"");
    assert_eq!((again.status, again.bytes.len()), (304, 0));
    let described = answer.expect(200);
    assert_eq!(described["info"]["title"], "RustyDB");
    let checked_in = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let checked_in: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(checked_in).unwrap()).unwrap();
    assert_eq!(described, checked_in);
}

/// Whatever needs no body or name answers, and what needs a password asks for it.
#[test]
fn every_described_list_is_there() {
    let described = admin().get("/api/v1/openapi.json").expect(200);
    let nobody = Api::nobody(guarded());
    for (path, item) in described["paths"].as_object().unwrap() {
        // A CSRF token is for browsers only.
        if item["get"].is_null() || path.contains('{') || path.ends_with("/csrf") {
            continue;
        }
        let answer = admin().get(path);
        let is_absent = !item["get"]["responses"]["501"].is_null();
        let status = if is_absent { 501 } else { 200 };
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        let is_open = item["get"]["security"] == serde_json::json!([{}]);
        let expected = if is_open { status } else { 401 };
        assert_eq!(nobody.get(path).status, expected, "{path}");
    }
}
