//! Functions and procedures: made, listed, called and dropped.

use serde_json::{Value, json};

use crate::api::{Api, admin, role};

const PATH: &str = "/api/v1/sql/procedures";

fn make(api: &Api<'_>, routine: Value) {
    api.post(PATH, routine).expect(201);
}

fn call(api: &Api<'_>, name: &str, body: Value) -> crate::api::Answer {
    api.post(&format!("{PATH}/{name}/call"), body)
}

#[test]
fn routines_are_made_called_and_dropped() {
    let api = admin();
    api.sql("create schema routines");
    let add = json!({
        "name": "add \"up", "schema": "routines", "kind": "function", "language": "sql",
        "arguments": [
            { "name": "a", "type": "numeric(40,2)" },
            { "name": "b", "type": "numeric", "default": "10" },
        ],
        "returns": "numeric", "volatility": "immutable", "strict": true,
        "body": "select a + b -- it's \\ the 'sum'",
    });
    make(&api, add.clone());
    api.post(PATH, add.clone()).refused(409, "CONFLICT");
    let mut again = add;
    again["or_replace"] = true.into();
    make(&api, again);
    let list = api.get(&format!("{PATH}?schema=routines")).expect(200);
    let entry = &list["items"][0];
    assert_eq!((&list["total"], &entry["volatility"]), (&1.into(), &"immutable".into()));
    assert_eq!(entry["arguments"], "a numeric, b numeric DEFAULT 10");

    let name = "add%20%22up";
    let sum = |arguments: Value| {
        let called = call(&api, name, json!({ "schema": "routines", "arguments": arguments }));
        let called = called.expect(200);
        assert_eq!((&called["kind"], &called["row_count"]), (&"function".into(), &1.into()));
        called["rows"][0]["add \"up"].clone()
    };
    assert_eq!(sum(json!([1.5, 2])), "3.5");
    assert_eq!(sum(json!({ "b": 1, "a": "2" })), "3");
    assert_eq!(sum(json!([1])), "11");
    assert_eq!(sum(json!({ "a": null })), Value::Null);
    // Every digit arrives.
    let path = format!("{PATH}/{name}/call");
    let headers = [("content-type", "application/json")];
    let digits = br#"{"schema":"routines","arguments":[123456789012345678901234567890.12,0]}"#;
    let called = api.send("POST", &path, &headers, digits).expect(200);
    assert_eq!(called["rows"][0]["add \"up"], "123456789012345678901234567890.12");

    let at = |rest: &str| format!("{PATH}/{name}?schema=routines{rest}");
    api.delete(&at("&arguments=text")).refused(400, "VALIDATION_ERROR");
    api.delete(&at("&arguments=text);drop%20schema%20routines")).refused(400, "VALIDATION_ERROR");
    assert_eq!(api.delete(&at("&arguments=numeric,%20numeric")).status, 204);
    api.delete(&at("")).refused(400, "VALIDATION_ERROR");
    assert_eq!(api.delete(&at("&if_exists=true")).status, 204);
}

#[test]
fn rows_procedures_and_overloads() {
    let api = admin();
    api.sql("create schema calls");
    api.sql("create table calls.log (a int)");
    let rows = json!({
        "name": "series", "schema": "calls", "kind": "function", "language": "sql",
        "arguments": [{ "name": "n", "type": "int" }],
        "returns_table": [{ "name": "i", "type": "int" }, { "name": "square", "type": "bigint" }],
        "body": "select i, i * i from generate_series(1, n) i",
    });
    make(&api, rows);
    let called = call(&api, "series", json!({ "schema": "calls", "arguments": { "n": 3 } }));
    assert_eq!(called.expect(200)["rows"][2], json!({ "i": 3, "square": 9 }));
    let procedure = json!({
        "name": "note", "schema": "calls", "kind": "procedure", "language": "plpgsql",
        "arguments": [
            { "name": "a", "type": "int" },
            { "name": "total", "type": "bigint", "mode": "inout", "default": "null" },
        ],
        "body": "begin insert into calls.log values (a); commit; \
                 select count(*) into total from calls.log; end",
    });
    make(&api, procedure);
    let noted = call(&api, "note", json!({ "schema": "calls", "arguments": [7] })).expect(200);
    assert_eq!((&noted["kind"], &noted["rows"]), (&"procedure".into(), &json!([{ "total": 1 }])));
    // A transaction of the caller's cannot be committed inside; what it left is rolled back.
    let begun = api.post("/api/v1/transactions", json!({})).expect(201);
    let id = &begun["transaction_id"];
    let within = json!({ "schema": "calls", "arguments": [8], "transaction_id": id });
    assert_eq!(call(&api, "note", within).status, 409);
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
    assert_eq!(api.sql("select a from calls.log"), json!([{ "a": 7 }]));

    make(
        &api,
        json!({
            "name": "note", "schema": "calls", "kind": "function", "language": "sql",
            "arguments": [{ "type": "text" }], "returns": "text", "body": "select $1",
        }),
    );
    let both = json!({ "schema": "calls", "arguments": ["x"] });
    call(&api, "note", both).refused(400, "VALIDATION_ERROR");
    let one = json!({ "schema": "calls", "arguments": ["x"], "kind": "function" });
    assert_eq!(call(&api, "note", one).expect(200)["rows"], json!([{ "note": "x" }]));
    call(&api, "no_such_routine", json!({})).refused(404, "NOT_FOUND");
    call(&api, "series", json!({ "schema": "calls", "arguments": ["x"] }))
        .refused(400, "VALIDATION_ERROR");
}

#[test]
fn what_is_no_routine_is_refused() {
    let api = admin();
    let with = |name: &str, value: Value| {
        let mut routine = json!({
            "name": "never", "kind": "function", "language": "sql", "returns": "int",
            "body": "select 1",
        });
        routine[name] = value;
        let text = routine.to_string();
        let answer = api.post(PATH, routine);
        assert!(matches!(answer.status, 400 | 404), "{text}: {}", answer.text);
    };
    with("kind", "trigger".into());
    with("language", "no_such_language".into());
    with("language", "sql as 'x'; drop table a; --".into());
    with("returns", "int language sql as 'select 2'; drop table a".into());
    with("returns_table", json!([{ "name": "a", "type": "int" }]));
    with("arguments", json!([{ "name": "a", "type": "int default 5" }]));
    with("arguments", json!([{ "type": "int", "default": "1) as x, (2" }]));
    with("arguments", json!(vec![json!({ "type": "int" }); 101]));
    with("body", "not sql".into());
    with("body", "a\u{0}b".into());
    with("colour", "red".into());
    let procedure = json!({
        "name": "never", "kind": "procedure", "language": "sql", "returns": "int", "body": "",
    });
    api.post(PATH, procedure).refused(400, "VALIDATION_ERROR");
    call(&api, "never", json!({ "arguments": 7 })).refused(400, "VALIDATION_ERROR");

    let maker = role("routine_maker");
    let routine = json!({
        "name": "never", "kind": "function", "language": "c", "returns": "int", "body": "x",
    });
    maker.post(PATH, routine).refused(403, "AUTHORIZATION_FAILED");
}
