//! Sessions that clients open, and what they keep from request to request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Answer, Api, admin, role};
use crate::harness::Server;

/// A request of a session.
fn of(api: &Api<'_>, session: &Value, method: &str, path: &str, body: Value) -> Answer {
    let number = session.to_string();
    let mut headers = vec![("x-session-id", number.as_str())];
    if body.is_null() {
        return api.send(method, path, &headers, b"");
    }
    headers.push(("content-type", "application/json"));
    api.send(method, path, &headers, body.to_string().as_bytes())
}

fn query(api: &Api<'_>, session: &Value, body: Value) -> Answer {
    of(api, session, "POST", "/api/v1/query", body)
}

#[test]
fn statements_are_prepared_once_and_run_often() {
    let api = admin();
    let sql = "select $1 + 1 as more, $2::text as word";
    let new = json!({ "name": "p 1", "sql": sql, "parameter_types": ["bigint"] });
    let answer = api.post("/api/v1/prepared", new.clone());
    let header = answer.header("x-session-id").to_owned();
    let made = answer.expect(201);
    let session = made["session_id"].clone();
    assert_eq!(header, session.to_string());
    assert_eq!(made["parameter_types"], json!(["int8", "text"]));
    assert_eq!(made["columns"][0], json!({ "name": "more", "type": "int8" }));

    let path = "/api/v1/prepared/p%201";
    for n in [1, 5] {
        let run = query(&api, &session, json!({ "prepared": "p 1", "params": [n, "x"] }));
        assert_eq!(run.expect(200)["rows"], json!([{ "more": n + 1, "word": "x" }]));
    }
    let found = of(&api, &session, "GET", path, Value::Null).expect(200);
    assert_eq!((&found["executions"], &found["sql"]), (&2.into(), &sql.into()));
    let list = api.get("/api/v1/prepared?limit=1000").expect(200);
    assert!(list["items"].as_array().unwrap().iter().any(|p| p["session_id"] == session));

    of(&api, &session, "POST", "/api/v1/prepared", new).refused(409, "CONFLICT");
    let wrong = json!({ "name": "q", "sql": "selec 1" });
    of(&api, &session, "POST", "/api/v1/prepared", wrong.clone()).refused(400, "VALIDATION_ERROR");
    let type_ = json!({ "name": "q", "sql": "select $1", "parameter_types": ["no_such_type"] });
    of(&api, &session, "POST", "/api/v1/prepared", type_).refused(400, "VALIDATION_ERROR");
    // A session that was opened for nothing is not left behind.
    api.post("/api/v1/prepared", wrong).refused(400, "VALIDATION_ERROR");

    for (body, status) in [
        (json!({ "prepared": "p 1", "sql": "select 1" }), 400),
        (json!({ "prepared": "p 1", "params": [1] }), 400),
        (json!({ "prepared": "nothing" }), 404),
        (json!({}), 400),
    ] {
        assert_eq!(query(&api, &session, body.clone()).status, status, "{body}");
    }
    let bare = api.post("/api/v1/query", json!({ "prepared": "p 1", "params": [1, "x"] }));
    bare.refused(400, "VALIDATION_ERROR");
    api.get(path).refused(400, "VALIDATION_ERROR");

    let stranger = role("prepared_stranger");
    of(&stranger, &session, "GET", path, Value::Null).refused(404, "NOT_FOUND");
    let run = json!({ "prepared": "p 1", "params": [1, "x"] });
    query(&stranger, &session, run.clone()).refused(404, "NOT_FOUND");
    let list = |api: &Api<'_>| of(api, &session, "GET", "/api/v1/prepared", Value::Null);
    let elsewhere = json!({ "name": "elsewhere", "sql": "select 1" });
    api.post("/api/v1/prepared", elsewhere).expect(201);
    let listed = list(&api).expect(200);
    assert_eq!((&listed["total"], &listed["items"][0]["name"]), (&1.into(), &"p 1".into()));
    list(&stranger).refused(404, "NOT_FOUND");
    assert_eq!(of(&api, &session, "DELETE", path, Value::Null).status, 204);
    of(&api, &session, "DELETE", path, Value::Null).refused(404, "NOT_FOUND");
    query(&api, &session, run).refused(404, "NOT_FOUND");
}

#[test]
fn a_session_goes_on_from_request_to_request() {
    let api = admin();
    let made = api.post("/api/v1/prepared", json!({ "name": "p", "sql": "select 1" })).expect(201);
    let session = made["session_id"].clone();
    let run = |sql: &str| query(&api, &session, json!({ "sql": sql })).expect(200)["rows"].clone();
    run("create temporary table mine (a int)");
    run("insert into mine values (1)");
    run("set work_mem = '3MB'");
    assert_eq!(
        run("select a, current_setting('work_mem') as m from mine"),
        json!([{ "a": 1, "m": "3MB" }])
    );
    // A session of its own sees nothing of it, and an error does not end it.
    assert_eq!(api.sql("select to_regclass('mine') as t"), json!([{ "t": null }]));
    query(&api, &session, json!({ "sql": "select 1/0" })).refused(400, "VALIDATION_ERROR");
    query(&api, &session, json!({ "sql": "create table never (a int)", "read_only": true }))
        .refused(409, "READ_ONLY");
    run("insert into mine values (2)");
    let batch =
        json!({ "statements": ["insert into mine values (3)", "select count(*) n from mine"] });
    let batch = of(&api, &session, "POST", "/api/v1/batch", batch).expect(200);
    assert_eq!(batch["results"][1]["rows"], json!([{ "n": 3 }]));
    // What the client begins, the batch does not commit.
    run("begin");
    let batch = json!({ "statements": ["insert into mine values (4)"] });
    of(&api, &session, "POST", "/api/v1/batch", batch).expect(200);
    run("rollback");
    assert_eq!(run("select count(*) n from mine"), json!([{ "n": 3 }]));

    let begun = api.post("/api/v1/transactions", json!({})).expect(201);
    let both = json!({ "sql": "select 1", "transaction_id": begun["transaction_id"] });
    query(&api, &session, both).refused(400, "VALIDATION_ERROR");
    query(&api, &"x".into(), json!({ "sql": "select 1" })).refused(400, "VALIDATION_ERROR");
    query(&api, &json!(1u64 << 60), json!({ "sql": "select 1" })).refused(404, "NOT_FOUND");
    let elsewhere = json!({ "sql": "select 1", "database": "postgres" });
    query(&api, &session, elsewhere).refused(400, "VALIDATION_ERROR");

    // The loss of its connection is its end.
    query(&api, &session, json!({ "sql": "select pg_terminate_backend(pg_backend_pid())" }));
    query(&api, &session, json!({ "sql": "select 1" })).refused(404, "NOT_FOUND");
}

#[test]
fn nobody_holds_a_session_for_ever() {
    let server = Server::builder()
        .arg("--set=api.session_idle_timeout_secs=1")
        .arg("--set=api.max_open_sessions=2")
        .start();
    let api = Api::of(&server, "rustydb", &server.password);
    let open =
        |name: &str| api.post("/api/v1/prepared", json!({ "name": name, "sql": "select 1" }));
    let one = open("a").expect(201)["session_id"].clone();
    query(&api, &one, json!({ "sql": "create temporary table t (a int)" })).expect(200);
    let busy = std::thread::scope(|scope| {
        let asleep = scope.spawn(|| {
            let api = Api::of(&server, "rustydb", &server.password);
            query(&api, &one, json!({ "sql": "select pg_sleep(2)" })).status
        });
        std::thread::sleep(Duration::from_millis(700));
        query(&api, &one, json!({ "sql": "select 1" })).refused(409, "CONFLICT");
        open("b").expect(201);
        open("c").refused(409, "LIMIT_REACHED");
        asleep.join().unwrap()
    });
    assert_eq!(busy, 200);
    std::thread::sleep(Duration::from_secs(3));
    query(&api, &one, json!({ "sql": "select 1" })).refused(404, "NOT_FOUND");
    assert_eq!(open("d").status, 201);
}
