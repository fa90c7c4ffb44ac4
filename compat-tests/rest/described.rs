//! The description of the API, as clients get it.

use serde_json::Value;

use crate::api::{Api, admin};
use crate::harness::Server;
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

/// By every field that its entries have, and by no other.
#[test]
fn every_list_can_be_sorted() {
    // Of its own: nobody else's schemas come and go.
    let server = Server::builder().start();
    server.psql("create schema one; create schema two; create table one.t (a int)");
    let api = Api::of(&server, "rustydb", &server.password);
    let described = api.get("/api/v1/openapi.json").expect(200);
    let mut lists = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array();
        let sorts = parameters.is_some_and(|all| all.iter().any(|one| one["name"] == "sort"));
        if !sorts || path.contains('{') {
            continue;
        }
        lists += 1;
        api.get(&format!("{path}?sort=no_such_field")).refused(400, "VALIDATION_ERROR");
        let plain = api.get(&format!("{path}?limit=1000")).expect(200);
        let items = &plain.get("history").unwrap_or(&plain)["items"];
        let Some(first) = items.as_array().unwrap().first() else { continue };
        for field in first.as_object().unwrap().keys() {
            for sort in [field.clone(), format!("-{field}")] {
                let sorted = api.get(&format!("{path}?limit=1000&sort={sort}")).expect(200);
                let name = |entry: &Value| entry[field].as_str().map(str::to_owned);
                let names = sorted["items"].as_array().unwrap().iter().map(name);
                let names: Option<Vec<_>> = names.collect();
                let is_plain = |n: &&String| n.bytes().all(|b| b.is_ascii_lowercase());
                // Only of words is every collation sure.
                let Some(names) = names.filter(|all| all.iter().all(|n| is_plain(&n))) else {
                    continue;
                };
                let is_up = names.is_sorted();
                let is_down = names.iter().rev().is_sorted();
                assert!(if sort.starts_with('-') { is_down } else { is_up }, "{path} {sort}");
            }
        }
    }
    assert!(lists > 12, "{lists}");
    let one = api.get("/api/v1/schemas?sort=-name&limit=1&offset=1").expect(200);
    let all = api.get("/api/v1/schemas?sort=name&limit=1000").expect(200);
    let names = all["items"].as_array().unwrap();
    assert_eq!(one["items"][0]["name"], names[names.len() - 2]["name"]);
    assert_eq!((&one["total"], &one["has_more"]), (&all["total"], &true.into()));
}
