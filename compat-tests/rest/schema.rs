//! Tables, schemas, views, indexes and databases.

use serde_json::{Value, json};

use crate::api::{Api, admin};
use crate::harness::shared::guarded;

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn a_table_is_made_looked_at_altered_and_dropped() {
    let api = admin();
    let counted = json!({
        "name": "counted",
        "columns": [{ "name": "id", "type": "BigSerial", "primary_key": true }],
    });
    let made = api.post("/api/v1/tables", counted).expect(201);
    let id = &made["columns"][0];
    assert_eq!((&id["type"], &id["nullable"]), (&json!("bigint"), &json!(false)));
    let more = json!({ "add_columns": [{ "name": "b", "type": "serial4" }] });
    api.put("/api/v1/tables/counted", more).expect(200);
    let wrong = json!({ "name": "never", "columns": [{ "name": "a", "type": "serial9" }] });
    api.post("/api/v1/tables", wrong).refused(400, "VALIDATION_ERROR");
    api.post("/api/v1/schemas", json!({ "name": "Shop \"1\"" })).expect(201);
    let place = "schema=Shop%20%221%22";
    let customer = json!({
        "name": "customer", "schema": "Shop \"1\"",
        "columns": [
            { "name": "id", "type": "bigint", "primary_key": true },
            { "name": "mail", "type": "varchar(80)", "nullable": false, "unique": true },
        ],
    });
    let made = api.post("/api/v1/tables", customer.clone()).expect(201);
    assert_eq!(made["primary_key"], json!(["id"]));
    api.post("/api/v1/tables", customer).refused(409, "CONFLICT");
    let order = json!({
        "schema": "Shop \"1\"",
        "columns": [
            { "name": "id", "type": "int", "primary_key": true, "default": "7 -- the first" },
            { "name": "Total; drop", "type": "numeric(12,2)[]", "comment": "it's \\ much" },
            { "name": "customer", "type": "int8", "check": "customer > 0",
              "references": { "table": "customer", "on_delete": "cascade" } },
        ],
        "constraints": [{ "unique": ["id", "customer"] }, { "check": "id <> 3" }],
    });
    let made = api.post("/api/v1/tables/order", order);
    assert_eq!(made.header("deprecation"), "true");
    assert!(made.header("link").starts_with("</api/v1/tables>"));
    let made = made.expect(201);
    assert_eq!(made["columns"][1]["type"], "numeric(12,2)[]");
    assert_eq!(made["columns"][1]["comment"], "it's \\ much");
    assert_eq!(made["columns"][0]["default"], "7");
    assert_eq!(made["foreign_keys"][0]["references"]["columns"], json!(["id"]));
    assert_eq!(made["constraints"].as_array().unwrap().len(), 3);
    let changed = json!({
        "add_columns": [{ "name": "note", "type": "text", "default": "'none'" }],
        "alter_columns": [
            { "name": "id", "type": "bigint", "default": null },
            { "name": "Total; drop", "rename_to": "total", "nullable": false },
        ],
        "drop_columns": ["customer"], "comment": "orders", "rename_to": "orders",
    });
    let path = format!("/api/v1/tables/order?{place}");
    let changed = api.put(&path, changed).expect(200);
    let columns = changed["columns"].as_array().unwrap();
    let columns: Vec<_> = columns.iter().map(|c| (&c["name"], &c["type"], &c["default"])).collect();
    assert_eq!(
        json!(columns),
        json!([
            ["id", "bigint", null],
            ["total", "numeric(12,2)[]", null],
            ["note", "text", "'none'::text"]
        ])
    );
    assert_eq!((&changed["name"], &changed["comment"]), (&"orders".into(), &"orders".into()));
    // All of it, or nothing.
    let broken = json!({ "drop_columns": ["note", "nothing"] });
    let path = format!("/api/v1/tables/orders?{place}");
    api.put(&path, broken).refused(400, "VALIDATION_ERROR");
    assert_eq!(api.get(&path).expect(200)["columns"].as_array().unwrap().len(), 3);
    api.put(&path, json!({})).refused(400, "VALIDATION_ERROR");

    let list = api.get(&format!("/api/v1/tables?{place}&limit=1")).expect(200);
    assert_eq!(names(&list), ["customer"]);
    assert_eq!((&list["total"], &list["has_more"]), (&2.into(), &true.into()));
    let list = api.get(&format!("/api/v1/tables?{place}&page_size=1&page=2")).expect(200);
    assert_eq!((names(&list), &list["has_more"]), (vec!["orders"], &false.into()));

    assert_eq!(api.delete(&path).status, 204);
    api.delete(&path).refused(404, "NOT_FOUND");
    assert_eq!(api.delete(&format!("{path}&if_exists=true")).status, 204);
    api.delete("/api/v1/schemas/Shop%20%221%22").refused(409, "CONFLICT");
    assert_eq!(api.delete("/api/v1/schemas/Shop%20%221%22?cascade=true").status, 204);
    api.get("/api/v1/schemas/Shop%20%221%22").refused(404, "NOT_FOUND");
}

#[test]
fn what_is_no_definition_is_refused() {
    let api = admin();
    let table = |column: Value| json!({ "name": "never", "columns": [column] });
    for column in [
        json!({ "name": "a", "type": "int); drop table x; --" }),
        json!({ "name": "a", "type": "int default 5" }),
        json!({ "name": "a", "type": "no_such_type" }),
        json!({ "name": "a", "type": "" }),
        json!({ "name": "", "type": "int" }),
        json!({ "name": "x".repeat(64), "type": "int" }),
        json!({ "name": "a", "type": "int", "default": "1) , (2" }),
        json!({ "name": "a", "type": "int", "default": "1; select 2" }),
        json!({ "name": "a", "type": "int", "check": "a > 0) or (true /*" }),
        json!({ "name": "a", "type": "int", "colour": "red" }),
        json!({ "name": "a", "type": "int",
            "references": { "table": "b", "on_delete": "cascade; drop table x" } }),
    ] {
        let text = column.to_string();
        let answer = api.post("/api/v1/tables", table(column));
        assert_eq!(answer.status, 400, "{text}: {}", answer.text);
    }
    let missing = json!({ "name": "a", "type": "int", "references": { "table": "nowhere" } });
    api.post("/api/v1/tables", table(missing)).refused(404, "NOT_FOUND");
    api.post("/api/v1/tables", json!({ "columns": [] })).refused(400, "VALIDATION_ERROR");
    api.get("/api/v1/tables/never").refused(404, "NOT_FOUND");
    api.get("/api/v1/tables?limit=0").refused(400, "VALIDATION_ERROR");
    api.get("/api/v1/tables?limit=x").refused(400, "VALIDATION_ERROR");
    api.get("/api/v1/tables?database=none_such").refused(404, "NOT_FOUND");
    assert_eq!(api.send("PATCH", "/api/v1/tables", &[], b"").status, 405);
}

#[test]
fn views_indexes_and_the_tree() {
    let api = admin();
    api.post("/api/v1/schemas", json!({ "name": "tree" })).expect(201);
    let columns = json!([{ "name": "a", "type": "int" }, { "name": "b", "type": "text" }]);
    let table = json!({ "name": "t", "schema": "tree", "columns": columns });
    api.post("/api/v1/tables", table).expect(201);

    let view = |name: &str, query: &str| json!({ "name": name, "schema": "tree", "query": query });
    api.post("/api/v1/sql/views", view("v", "select a from tree.t;")).expect(201);
    api.post("/api/v1/sql/views", view("w", "select 1; drop table tree.t"))
        .refused(400, "VALIDATION_ERROR");
    let mut kept = view("m", "select b from tree.t");
    kept["materialized"] = true.into();
    api.post("/api/v1/sql/views", kept).expect(201);
    let views = api.get("/api/v1/sql/views?schema=tree").expect(200);
    assert_eq!(names(&views), ["m", "v"]);

    let index = json!({
        "name": "i", "schema": "tree", "table": "t", "columns": ["a"], "unique": true,
        "include": ["b"], "where": "a > 0",
    });
    let made = api.post("/api/v1/sql/indexes", index).expect(201);
    assert_eq!(
        (&made["name"], &made["unique"], &made["valid"]),
        (&"i".into(), &true.into(), &true.into())
    );
    let other = json!({ "schema": "tree", "table": "t", "columns": ["b"], "method": "rtree" });
    api.post("/api/v1/sql/indexes", other).refused(400, "VALIDATION_ERROR");
    let indexes = api.get("/api/v1/sql/indexes?schema=tree&table=t").expect(200);
    assert_eq!(names(&indexes), ["i"]);

    let answer = api.get("/api/v1/schema?schema=tree");
    let tag = answer.header("etag").to_owned();
    let tree = answer.expect(200);
    assert_eq!(tree["schemas"][0]["tables"][0]["columns"][1]["type"], "text");
    assert_eq!(tree["schemas"][0]["views"].as_array().unwrap().len(), 2);
    let again = api.send("GET", "/api/v1/schema?schema=tree", &[("if-none-match", &tag)], b"");
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    for path in ["/api/v1/schemas", "/api/v1/schemas/tree"] {
        let tag = api.get(path).header("etag").to_owned();
        let again = api.send("GET", path, &[("if-none-match", &tag)], b"");
        // Other tests may make a schema at the same time.
        assert!(again.status == 304 || path.ends_with("schemas"), "{path}: {}", again.text);
    }
    let aliased = api.get("/api/v1/schema/tree");
    assert_eq!(aliased.header("deprecation"), "true");
    assert_eq!(aliased.header("link"), "</api/v1/schemas/tree>; rel=\"successor-version\"");
    assert_eq!(aliased.expect(200), tree["schemas"][0]);

    for path in ["views/m", "views/v", "indexes/i"] {
        assert_eq!(api.delete(&format!("/api/v1/sql/{path}?schema=tree")).status, 204, "{path}");
    }
    let changed = api.send("GET", "/api/v1/schema?schema=tree", &[("if-none-match", &tag)], b"");
    assert_eq!(changed.status, 200);
    let schemas = api.get("/api/v1/schemas").expect(200);
    assert!(names(&schemas).contains(&"tree"));
}

#[test]
fn databases_are_made_and_dropped() {
    let api = admin();
    api.post("/api/v1/sql/databases", json!({ "name": "made over http" })).expect(201);
    let list = api.get("/api/v1/sql/databases?limit=1000").expect(200);
    assert!(names(&list).contains(&"made over http"));
    let table = json!({
        "name": "t", "database": "made over http", "columns": [{ "name": "a", "type": "int" }],
    });
    api.post("/api/v1/tables", table).expect(201);
    let tables = api.get("/api/v1/tables?database=made%20over%20http").expect(200);
    assert_eq!(names(&tables), ["t"]);
    api.post("/api/v1/sql/databases", json!({ "name": "made over http" })).refused(409, "CONFLICT");
    assert_eq!(api.delete("/api/v1/sql/databases/made%20over%20http?force=true").status, 204);
    api.delete("/api/v1/sql/databases/made%20over%20http").refused(404, "NOT_FOUND");
}

/// PostgreSQL decides what a role may do.
#[test]
fn a_role_may_do_what_it_may() {
    let api = admin();
    let make = "create role visitor login password 'visitor-pass'";
    api.post("/api/v1/query", json!({ "sql": make })).expect(200);
    let visitor = Api::of(guarded(), "visitor", "visitor-pass");
    assert_eq!(visitor.get("/api/v1/tables").status, 200);
    visitor.post("/api/v1/schemas", json!({ "name": "mine" })).refused(403, "AUTHORIZATION_FAILED");
    visitor
        .post("/api/v1/sql/databases", json!({ "name": "mine" }))
        .refused(403, "AUTHORIZATION_FAILED");
    Api::of(guarded(), "visitor", "wrong")
        .get("/api/v1/tables")
        .refused(401, "AUTHENTICATION_FAILED");
    Api::nobody(guarded()).get("/api/v1/tables").refused(401, "AUTHENTICATION_FAILED");
}
