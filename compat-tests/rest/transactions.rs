//! Transactions over several requests, batches, plans and locks.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, admin};
use crate::harness::shared::guarded;
use crate::harness::{SOON, Server, eventually, piped};

fn sql(api: &Api<'_>, sql: &str) -> Value {
    api.sql(sql)
}

fn within(api: &Api<'_>, id: &Value, sql: &str) -> crate::api::Answer {
    api.post("/api/v1/query", json!({ "sql": sql, "transaction_id": id }))
}

fn begin(api: &Api<'_>, how: Value) -> Value {
    api.post("/api/v1/transactions", how).expect(201)["transaction_id"].clone()
}

#[test]
fn a_transaction_goes_on_from_request_to_request() {
    let api = admin();
    sql(&api, "create table over_requests (a int unique deferrable initially deferred)");
    let begun = api
        .post("/api/v1/transactions", json!({ "isolation_level": "repeatable_read", "name": "n" }))
        .expect(201);
    assert_eq!(
        (&begun["isolation_level"], &begun["state"], &begun["name"]),
        (&"repeatable_read".into(), &"open".into(), &"n".into())
    );
    let id = begun["transaction_id"].clone();
    within(&api, &id, "insert into over_requests values (1)").expect(200);
    assert_eq!(sql(&api, "select count(*) as n from over_requests"), json!([{ "n": 0 }]));
    let header = id.to_string();
    let headers = [("x-transaction-id", header.as_str()), ("content-type", "application/json")];
    let count = br#"{"sql":"select count(*) as n from over_requests"}"#;
    let answer = api.send("POST", "/api/v1/query", &headers, count).expect(200);
    assert_eq!((&answer["rows"], &answer["transaction_id"]), (&json!([{ "n": 1 }]), &id));

    let path = |rest: &str| format!("/api/v1/transactions/{id}{rest}");
    api.post(&path("/savepoints"), json!({ "name": "one" })).expect(201);
    within(&api, &id, "insert into over_requests values (2)").expect(200);
    let made = api.post(&path("/savepoints"), json!({ "name": "two" })).expect(201);
    assert_eq!(made["savepoints"], json!(["one", "two"]));
    within(&api, &id, "insert into nowhere values (3)").refused(404, "NOT_FOUND");
    assert_eq!(api.get(&path("")).expect(200)["state"], "failed");
    within(&api, &id, "select 1").refused(409, "TRANSACTION_FAILED");
    let back = api.post(&path("/savepoints/one/rollback"), json!(null)).expect(200);
    assert_eq!(back["savepoints"], json!(["one"]));
    api.post(&path("/savepoints/two/rollback"), json!(null)).refused(404, "NOT_FOUND");
    within(&api, &id, "select 1").refused(409, "TRANSACTION_FAILED");
    api.post(&path("/savepoints/one/rollback"), json!(null)).expect(200);
    assert_eq!(api.delete(&path("/savepoints/one")).expect(200)["savepoints"], json!([]));
    let seen = api.get(&path("")).expect(200);
    assert_eq!(seen["state"], "open");
    assert!(seen["backend_pid"].is_number() && seen["queries_executed"].as_u64() > Some(5));
    let all = api.get("/api/v1/transactions").expect(200);
    assert!(all["items"].as_array().unwrap().iter().any(|t| t["transaction_id"] == id));
    assert_eq!(api.get("/api/v1/transactions/active").header("deprecation"), "true");

    let ended = api.post(&path("/commit"), json!(null)).expect(200);
    assert_eq!(ended["status"], "committed");
    api.post(&path("/commit"), json!(null)).refused(404, "NOT_FOUND");
    within(&api, &id, "select 1").refused(404, "NOT_FOUND");
    assert_eq!(sql(&api, "select a from over_requests"), json!([{ "a": 1 }]));

    // What fails at the commit, and what had failed before it.
    let id = begin(&api, json!({}));
    within(&api, &id, "insert into over_requests values (1)").expect(200);
    api.post(&format!("/api/v1/transactions/{id}/commit"), json!(null)).refused(409, "CONFLICT");
    let id = begin(&api, json!({}));
    within(&api, &id, "select 1/0").refused(400, "VALIDATION_ERROR");
    let commit = format!("/api/v1/transactions/{id}/commit");
    api.post(&commit, json!(null)).refused(409, "TRANSACTION_FAILED");
    api.get(&format!("/api/v1/transactions/{id}")).refused(404, "NOT_FOUND");

    // The client may end it itself.
    let id = begin(&api, json!({}));
    within(&api, &id, "rollback").expect(200);
    within(&api, &id, "select 1").refused(404, "NOT_FOUND");
}

#[test]
fn a_transaction_is_of_one_kind_and_of_one_role() {
    let api = admin();
    let id = begin(&api, json!({ "read_only": true }));
    within(&api, &id, "create table never (a int)").refused(409, "READ_ONLY");
    let path = format!("/api/v1/transactions/{id}");
    assert_eq!(
        api.post(&format!("{path}/rollback"), json!(null)).expect(200)["status"],
        "rolled_back"
    );
    let id = begin(&api, json!({}));
    let path = format!("/api/v1/transactions/{id}");
    let weak = api.post("/api/v1/transactions", json!({ "isolation_level": "read_uncommitted" }));
    let weak = weak.expect(201);
    assert_eq!(weak["isolation_level"], "read_committed", "as PostgreSQL takes it");
    let end = format!("/api/v1/transactions/{}/rollback", weak["transaction_id"]);
    api.post(&end, json!(null)).expect(200);
    let level = json!({ "isolation_level": "serializable" });
    let set = api.put(&format!("{path}/isolation"), level.clone()).expect(200);
    assert_eq!(set["isolation_level"], "serializable");
    within(&api, &id, "select count(*) from pg_class").expect(200);
    api.put(&format!("{path}/isolation"), json!({ "isolation_level": "read_committed" }))
        .refused(409, "CONFLICT");
    sql(&api, "create role stranger login password 'stranger-pass'");
    let stranger = Api::of(guarded(), "stranger", "stranger-pass");
    stranger.get(&path).refused(404, "NOT_FOUND");
    stranger.post(&format!("{path}/rollback"), json!(null)).refused(404, "NOT_FOUND");
    within(&stranger, &id, "select 1").refused(404, "NOT_FOUND");
    api.post(&format!("{path}/rollback"), json!(null)).expect(200);
    api.get("/api/v1/transactions/x").refused(400, "VALIDATION_ERROR");
    api.get("/api/v1/transactions/99999999999999999999").refused(400, "VALIDATION_ERROR");
    api.post("/api/v1/transactions", json!({ "isolation_level": "chaos" }))
        .refused(400, "VALIDATION_ERROR");
    let headers = [("x-transaction-id", "seven"), ("content-type", "application/json")];
    api.send("POST", "/api/v1/query", &headers, br#"{"sql":"select 1"}"#)
        .refused(400, "VALIDATION_ERROR");
}

#[test]
fn one_statement_at_a_time() {
    let id = begin(&admin(), json!({}));
    let sleeper = {
        let id = id.clone();
        std::thread::spawn(move || within(&admin(), &id, "select pg_sleep(2)").expect(200))
    };
    std::thread::sleep(Duration::from_millis(700));
    within(&admin(), &id, "select 1").refused(409, "CONFLICT");
    let seen = admin().get(&format!("/api/v1/transactions/{id}")).expect(200);
    assert_eq!(seen["state"], "busy");
    sleeper.join().unwrap();
    within(&admin(), &id, "select 1").expect(200);
    admin().post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
}

#[test]
fn nobody_holds_a_transaction_for_ever() {
    let server = Server::builder()
        .arg("--set=api.transaction_idle_timeout_secs=1")
        .arg("--set=api.max_open_transactions=2")
        .start();
    let api = Api::of(&server, "rustydb", &server.password);
    sql(&api, "create table held (a int)");
    let one = begin(&api, json!({}));
    within(&api, &one, "insert into held values (1)").expect(200);
    let timed = begin(&api, json!({ "timeout_secs": 2 }));
    api.post("/api/v1/transactions", json!({})).refused(409, "LIMIT_REACHED");
    // Used often enough, one lives until its own time is over.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        within(&api, &timed, "select 1").expect(200);
    }
    within(&api, &one, "select 1").refused(404, "NOT_FOUND");
    std::thread::sleep(Duration::from_millis(900));
    within(&api, &timed, "select 1").refused(404, "NOT_FOUND");
    assert_eq!(sql(&api, "select count(*) as n from held"), json!([{ "n": 0 }]));
    let busy = "select count(*) as n from pg_stat_activity where state like 'idle in%'";
    assert_eq!(sql(&api, busy), json!([{ "n": 0 }]));
}

#[test]
fn one_role_does_not_take_all_the_connections() {
    let server = Server::builder()
        .arg("--set=api.max_open_transactions_per_role=2")
        .arg("--set=pool.max_size=2")
        .start();
    let api = Api::of(&server, "rustydb", &server.password);
    for name in ["holder", "other"] {
        sql(&api, &format!("create role {name} login password '{name}-pass'"));
    }
    let holder = Api::of(&server, "holder", "holder-pass");
    let other = Api::of(&server, "other", "other-pass");
    let held = begin(&other, json!({}));
    let first = begin(&holder, json!({}));
    // One that waits for a connection counts; there is none for it now.
    let waiter = {
        let (url, authorization) =
            (server.url("/api/v1/transactions"), holder.authorization().to_owned());
        std::thread::spawn(move || begin_at(&url, &authorization))
    };
    let full = || {
        let refused = holder.post("/api/v1/transactions", json!({}));
        let limit = refused.json["error"]["details"]["limit"].clone();
        refused.status == 409 && limit == "api.max_open_transactions_per_role"
    };
    eventually("the one that waits is known", SOON, || {
        server.metric("rustydb_pool_wait_queue_size{pool=\"main\"}") > 0.0 || waiter.is_finished()
    });
    assert!(full());
    other.post(&format!("/api/v1/transactions/{held}/rollback"), json!(null)).expect(200);
    assert_eq!(waiter.join().unwrap(), 201);
    assert!(full());
    holder.post(&format!("/api/v1/transactions/{first}/rollback"), json!(null)).expect(200);
    begin(&holder, json!({}));
}

#[test]
fn sessions_that_hold_connections_count_as_transactions_do() {
    let server = Server::builder().arg("--set=api.max_open_transactions_per_role=2").start();
    let admin = Api::of(&server, "rustydb", &server.password);
    sql(&admin, "create role holder login password 'holder-pass'");
    let api = Api::of(&server, "holder", "holder-pass");
    let open = || {
        let made = api.send("POST", "/api/v1/sessions", &[], b"").expect(201);
        made["session_id"].to_string()
    };
    let [one, two, three] = [open(), open(), open()];
    let post = |session: &str, path: &str, body: Value| {
        let headers = [("x-session-id", session), ("content-type", "application/json")];
        api.send("POST", path, &headers, body.to_string().as_bytes())
    };
    let run = |session: &str, sql: &str| post(session, "/api/v1/query", json!({ "sql": sql }));
    let refused = |answer: crate::api::Answer| {
        let limit = answer.json["error"]["details"]["limit"].clone();
        assert_eq!(limit, "api.max_open_transactions_per_role", "{}", answer.text);
        answer.refused(409, "LIMIT_REACHED");
    };
    run(&one, "begin").expect(200);
    run(&two, "create temp table held (a int)").expect(200);
    for begins in ["begin", "create temp table held (a int)", "set work_mem = '3MB'"] {
        refused(run(&three, begins));
    }
    refused(post(&three, "/api/v1/transactions", json!({})));
    refused(api.post("/api/v1/transactions", json!({})));
    let settings = json!({ "settings": { "work_mem": "3MB" } });
    refused(api.post("/api/v1/sessions", settings));
    // What holds nothing runs, and so does what holds something already.
    run(&three, "select 1").expect(200);
    run(&one, "select 1").expect(200);
    run(&two, "insert into held values (1)").expect(200);
    begin(&admin, json!({}));

    run(&one, "commit").expect(200);
    let begun = post(&three, "/api/v1/transactions", json!({})).expect(201);
    refused(run(&one, "begin"));
    let end = format!("/api/v1/transactions/{}/rollback", begun["transaction_id"]);
    api.post(&end, json!(null)).expect(200);
    run(&three, "begin").expect(200);
    refused(run(&one, "begin"));
    api.delete(&format!("/api/v1/sessions/{two}")).expect(200);
    run(&one, "begin").expect(200);
    let labels = "limit=\"api.max_open_transactions_per_role\",what=\"transaction\"";
    server.expect_metric(&format!("rustydb_api_open_refused_total{{{labels}}}"), 8.0);
}

#[test]
fn all_transactions_are_listed_that_postgresql_shows() {
    let server = Server::start();
    let api = Api::of(&server, "rustydb", &server.password);
    sql(&api, "create table listed (a int)");
    let id = begin(&api, json!({ "name": "ours" }));
    within(&api, &id, "insert into listed values (1)").expect(200);
    let mut through = piped(&mut server.psql_command());
    let mut beside = piped(&mut server.direct_psql_command());
    for other in [&mut through, &mut beside] {
        let lock = b"begin; lock table listed in access share mode;\n";
        other.stdin.as_mut().unwrap().write_all(lock).unwrap();
    }
    let listed = || {
        let list = api.get("/api/v1/transactions").expect(200)["items"].clone();
        let open = list.as_array().unwrap().iter().filter(|one| one["state"] == "open");
        open.cloned().collect::<Vec<Value>>()
    };
    eventually("all are listed", SOON, || listed().len() == 3);
    let all = listed();
    let ours = all.iter().find(|one| one["transaction_id"] == id).unwrap();
    let held = |one: &Value| one["locks_held"].as_u64();
    assert!(ours["backend_xid"].as_u64() > Some(0) && held(ours) > Some(1), "{ours}");
    let one = api.get(&format!("/api/v1/transactions/{id}")).expect(200);
    assert_eq!((&one["backend_xid"], held(&one)), (&ours["backend_xid"], held(ours)));
    let others: Vec<_> = all.iter().filter(|one| one["transaction_id"] == Value::Null).collect();
    for other in &others {
        assert_eq!((&other["user"], &other["database"]), (&"rustydb".into(), &"rustydb".into()));
        assert_eq!((&other["backend_xid"], &other["savepoints"]), (&Value::Null, &json!([])));
        assert!(held(other) > Some(0), "{other}");
    }
    let sessions = others.iter().filter(|one| one["session_id"].is_u64()).count();
    assert_eq!((others.len(), sessions), (2, 1), "one of them is connected to RustyDB");
    let locks = api.get("/api/v1/transactions/locks?relation=listed").expect(200);
    let of = |transaction: &Value| {
        let locks = locks["items"].as_array().unwrap();
        let pid = &transaction["backend_pid"];
        locks.iter().find(|lock| lock["pid"] == *pid).unwrap()["transaction_id"].clone()
    };
    assert_eq!((of(ours), of(others[0]), of(others[1])), (id, Value::Null, Value::Null));

    // PostgreSQL hides them from other roles, and so does the list.
    sql(&api, "create role looker login password 'looker-pass'");
    let list = Api::of(&server, "looker", "looker-pass").get("/api/v1/transactions").expect(200);
    assert_eq!(list["items"], json!([]));
    for other in [&mut through, &mut beside] {
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}

#[test]
fn transactions_are_listed_when_they_have_taken_every_connection() {
    let server = Server::builder().arg("--set=pool.max_size=1").start();
    let api = Api::of(&server, "rustydb", &server.password);
    let id = begin(&api, json!({}));
    let list = api.get("/api/v1/transactions").expect(200);
    assert_eq!(list["items"][0]["transaction_id"], id);
    assert_eq!(list["items"][0]["locks_held"], Value::Null);
    assert_eq!(list["total"], 1);
}

/// The status of a request that begins a transaction.
fn begin_at(url: &str, authorization: &str) -> u16 {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    agent.post(url).header("authorization", authorization).send_empty().unwrap().status().as_u16()
}

#[test]
fn a_transaction_is_not_ignored() {
    let api = admin();
    sql(&api, "create table not_ignored (a int primary key)");
    // Nothing has to be said of how it begins.
    let begun = api.send("POST", "/api/v1/transactions", &[], b"").expect(201);
    let id = begun["transaction_id"].to_string();
    let session = api.send("POST", "/api/v1/sessions", &[], b"").expect(201);
    let session = session["session_id"].to_string();
    for header in [("x-transaction-id", id.as_str()), ("x-session-id", session.as_str())] {
        for (method, path, body) in [
            ("POST", "/api/v1/tables", r#"{"name":"t","columns":[{"name":"a","type":"int"}]}"#),
            ("GET", "/api/v1/tables/not_ignored", ""),
            ("POST", "/api/v1/sql/indexes", r#"{"table":"not_ignored","columns":["a"]}"#),
            ("GET", "/api/v1/transactions", ""),
        ] {
            let headers = [header, ("content-type", "application/json")];
            let answer = api.send(method, path, &headers, body.as_bytes());
            let hint = answer.json["error"]["hint"].as_str().unwrap_or("").to_owned();
            assert!(hint.contains("/api/v1/query"), "{method} {path} {}", answer.text);
            answer.refused(400, "VALIDATION_ERROR");
        }
        for (method, path) in [("GET", "/rest/v1/not_ignored"), ("POST", "/rest/v1/not_ignored")] {
            let headers = [header, ("content-type", "application/json")];
            let answer = api.send(method, path, &headers, br#"{"a":1}"#);
            assert_eq!((answer.status, answer.json["code"].is_string()), (400, true));
        }
    }
    assert_eq!(sql(&api, "select a from not_ignored"), json!([]));
    // Whom the path names may be named once more.
    let path = format!("/api/v1/transactions/{id}/rollback");
    let other = [("x-transaction-id", session.as_str())];
    api.send("POST", &path, &other, b"").refused(400, "VALIDATION_ERROR");
    api.send("POST", &path, &[("x-transaction-id", id.as_str())], b"").expect(200);
}

#[test]
fn who_sends_nothing_gives_no_field() {
    let api = admin();
    let post =
        |path: &str, headers: &[(&str, &str)], body: &[u8]| api.send("POST", path, headers, body);
    let id = post("/api/v1/transactions", &[], b"").expect(201)["transaction_id"].to_string();
    post(&format!("/api/v1/transactions/{id}/rollback"), &[], b"").expect(200);
    let missing = post("/api/v1/query", &[], b"");
    assert!(missing.text.contains("sql"), "{}", missing.text);
    missing.refused(400, "VALIDATION_ERROR");
    // Rows are not made of nothing, and something is of a kind.
    sql(&api, "create table of_nothing (a int default 1)");
    post("/api/v1/tables/of_nothing/rows", &[], b"").refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let put = api.send("PUT", "/api/v1/tables/of_nothing", &[], b"");
    put.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let plain = [("content-type", "text/plain")];
    post("/api/v1/transactions", &plain, b"{}").refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(sql(&api, "select a from of_nothing"), json!([]));
}

#[test]
fn a_batch_is_done_or_not() {
    let api = admin();
    sql(&api, "create table batched (a int primary key)");
    let insert = |a: i32| json!({ "sql": "insert into batched values ($1)", "params": [a] });
    let batch = |statements: Value| api.post("/api/v1/batch", statements).expect(200);
    let done = batch(json!({ "statements": [insert(1), "select a from batched", "select" ] }));
    assert_eq!((&done["succeeded"], &done["failed"]), (&3.into(), &0.into()));
    assert_eq!(done["results"][0]["affected_rows"], 1);
    assert_eq!(done["results"][1]["rows"], json!([{ "a": 1 }]));
    let failed = batch(json!({ "statements": [insert(2), insert(1), insert(3)] }));
    assert_eq!((&failed["succeeded"], &failed["failed"]), (&0.into(), &3.into()));
    assert_eq!(failed["results"].as_array().unwrap().len(), 2);
    assert_eq!(failed["results"][1]["error"]["sqlstate"], "23505");
    let undone = &failed["results"][0];
    assert_eq!((&undone["success"], &undone["affected_rows"]), (&false.into(), &0.into()));
    assert_eq!(undone["error"]["code"], "TRANSACTION_FAILED");
    let loose = json!({ "statements": [insert(2), insert(1), insert(3)], "atomic": false,
        "stop_on_error": false });
    let loose = batch(loose);
    assert_eq!((&loose["succeeded"], &loose["failed"]), (&2.into(), &1.into()));
    let ends = batch(json!({ "statements": [insert(4), "commit", "select 1/0"] }));
    assert_eq!(ends["succeeded"], 0);
    assert_eq!(sql(&api, "select count(*) as n from batched"), json!([{ "n": 3 }]));

    let id = begin(&api, json!({}));
    within(&api, &id, "insert into batched values (7)").expect(200);
    let part = batch(json!({ "statements": [insert(8), insert(1)], "transaction_id": id }));
    assert_eq!((&part["succeeded"], &part["failed"]), (&0.into(), &2.into()));
    assert_eq!(part["results"][0]["error"]["code"], "TRANSACTION_FAILED");
    // Its own statements are undone, and nothing else.
    let good = batch(json!({ "statements": [insert(9)], "transaction_id": id }));
    assert_eq!(good["succeeded"], 1);
    let ends = batch(json!({ "statements": [insert(10), "commit"], "transaction_id": id }));
    assert_eq!(ends["results"][1]["error"]["sqlstate"], "2D000");
    let rows = within(&api, &id, "select a from batched where a > 6 order by a").expect(200);
    assert_eq!(rows["rows"], json!([{ "a": 7 }, { "a": 9 }]));
    let loose = json!({ "statements": ["select 1/0"], "atomic": false, "transaction_id": id });
    assert_eq!(batch(loose)["failed"], 1);
    within(&api, &id, "select 1").refused(409, "TRANSACTION_FAILED");
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);

    for bad in [
        json!({ "statements": [] }),
        json!({ "statements": vec!["select 1"; 1001] }),
        json!({ "statements": [7] }),
        json!({ "statements": ["select 1"], "atomik": true }),
    ] {
        let answer = api.post("/api/v1/batch", bad);
        assert!(!answer.text.contains("BatchStatement"), "{}", answer.text);
        answer.refused(400, "VALIDATION_ERROR");
    }
}

#[test]
fn plans() {
    let api = admin();
    sql(&api, "create table planned (a int)");
    let ask = |request: Value| api.post("/api/v1/query/explain", request);
    let plan = ask(json!({ "sql": "select * from planned where a = $1", "params": [1] }));
    assert_eq!(plan.expect(200)["plan"][0]["Plan"]["Node Type"], "Seq Scan");
    let insert = "insert into planned values (1)";
    let plan = ask(json!({ "sql": insert, "analyze": true, "buffers": true, "format": "text" }));
    assert!(plan.expect(200)["plan"].as_str().unwrap().contains("Insert on planned"));
    assert_eq!(sql(&api, "select count(*) as n from planned"), json!([{ "n": 0 }]));
    ask(json!({ "sql": "select 1; drop table planned" })).refused(400, "VALIDATION_ERROR");
    ask(json!({ "sql": "select" , "params": [1] })).refused(400, "VALIDATION_ERROR");
    let failed = ask(json!({ "sql": "select 1 frm planned" }));
    assert_eq!(failed.json["error"]["position"], 14, "{}", failed.text);

    // What a query takes is taken, and what bounds it counts.
    let like_a_query = json!({
        "sql": "select $1::int", "params": [1], "timeout_ms": 60000, "read_only": true,
        "max_rows": 1, "row_format": "array", "numeric": "number", "int8": "string",
    });
    ask(like_a_query).expect(200);
    ask(json!({ "sql": "select 1", "timeout_ms": 0 })).refused(400, "VALIDATION_ERROR");
    ask(json!({ "sql": "select 1", "prepared": "p" })).refused(400, "VALIDATION_ERROR");
    let writes = json!({ "sql": insert, "analyze": true, "read_only": true });
    ask(writes).refused(409, "READ_ONLY");
    let slow = |id: &Value| {
        json!({ "sql": "select pg_sleep(60)", "analyze": true, "timeout_ms": 200,
            "transaction_id": id })
    };
    ask(slow(&Value::Null)).refused(504, "TIMEOUT");
    let id = begin(&api, json!({ "read_only": false }));
    ask(slow(&id)).refused(504, "TIMEOUT");
    let left = "select current_setting('statement_timeout') as t";
    assert_eq!(within(&api, &id, left).expect(200)["rows"][0]["t"], api.sql(left)[0]["t"]);
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
    let made = json!({ "name": "p", "sql": "select $1", "parameter_types": ["int8"] });
    let session = api.post("/api/v1/prepared", made).expect(201)["session_id"].to_string();
    let headers = [("x-session-id", session.as_str()), ("content-type", "application/json")];
    let named = br#"{"prepared":"p","params":[7],"format":"text"}"#;
    let plan = api.send("POST", "/api/v1/query/explain", &headers, named).expect(200);
    assert!(plan["plan"].as_str().unwrap().contains("Result"), "{plan}");

    // Within a transaction, which goes on as it was.
    let id = begin(&api, json!({}));
    within(&api, &id, "create temp table planned_here (a int)").expect(200);
    let insert = "insert into planned_here values (1)";
    let ask = |sql: &str| ask(json!({ "sql": sql, "analyze": true, "transaction_id": id }));
    assert!(ask(insert).expect(200)["plan"].is_array());
    ask("select * from nowhere").refused(404, "NOT_FOUND");
    let rows = within(&api, &id, "select a from planned_here").expect(200)["rows"].clone();
    assert_eq!(rows, json!([]));
    within(&api, &id, "rollback to savepoint rustydb_explain").refused(404, "NOT_FOUND");
    ask("select 1").refused(409, "TRANSACTION_FAILED");
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
}

#[test]
fn locks_are_seen() {
    let api = admin();
    sql(&api, "create table locked (a int)");
    let id = begin(&api, json!({}));
    within(&api, &id, "lock table locked in access exclusive mode").expect(200);
    let waiter = std::thread::spawn(|| sql(&admin(), "select * from locked"));
    eventually("somebody waits", SOON, || {
        let waits = admin().get("/api/v1/transactions/locks/waits").expect(200);
        let here = |edge: &Value| {
            edge["waiting_query"].as_str().is_some_and(|query| query.contains("from locked"))
        };
        let nodes = waits["nodes"].as_array().unwrap().len();
        nodes >= 2 && waits["edges"].as_array().unwrap().iter().any(here)
    });
    let locks = api.get("/api/v1/transactions/locks?relation=locked&granted=true").expect(200);
    assert!(locks["items"].as_array().unwrap().iter().any(|l| l["mode"] == "AccessExclusiveLock"));
    let waiting = api.get("/api/v1/transactions/locks?relation=locked&granted=false").expect(200);
    assert_eq!(waiting["items"][0]["blocked_by"].as_array().unwrap().len(), 1);
    let found = api.post("/api/v1/transactions/deadlocks/detect", json!(null)).expect(200);
    assert!(found["cycles"].is_array());
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
    assert_eq!(waiter.join().unwrap(), json!([]));
}

#[test]
fn two_phases() {
    // As it is without a word about it; nobody else prepares transactions here.
    let server = Server::builder().start();
    let api = Api::of(&server, "rustydb", &server.password);
    sql(&api, "create table phased (a int)");
    for (a, end, rows) in [(1, "commit", 1), (2, "rollback", 1)] {
        let id = begin(&api, json!({}));
        within(&api, &id, &format!("insert into phased values ({a})")).expect(200);
        let path = format!("/api/v1/transactions/{id}/prepare");
        let prepared = api.post(&path, json!({ "gid": "it's one" })).expect(200);
        assert_eq!(prepared["status"], "prepared");
        within(&api, &id, "select 1").refused(404, "NOT_FOUND");
        let list = api.get("/api/v1/transactions/prepared").expect(200);
        assert_eq!(list["items"][0]["gid"], "it's one");
        let path = format!("/api/v1/transactions/prepared/it%27s%20one/{end}");
        api.post(&path, json!(null)).expect(200);
        api.post(&path, json!(null)).refused(404, "NOT_FOUND");
        assert_eq!(sql(&api, "select count(*) as n from phased"), json!([{ "n": rows }]));
    }
    drop(server);
    let off = "--set=backend.embedded.extra_conf=max_prepared_transactions=0";
    let server = Server::builder().arg(off).start();
    let api = Api::of(&server, "rustydb", &server.password);
    assert_eq!(api.sql("show max_prepared_transactions")[0]["max_prepared_transactions"], "0");
}

/// An administrator ends one; a shutdown does not wait for those that nobody uses.
#[test]
fn a_transaction_ends_when_it_is_told_to() {
    let mut server = Server::builder().start();
    let api = Api::of(&server, "rustydb", &server.password);
    let id = begin(&api, json!({}));
    let session = api.get(&format!("/api/v1/transactions/{id}")).expect(200)["session_id"].clone();
    let mut console = server.psql_command();
    let killed = console.args(["-d", "rustydb_admin", "-c", &format!("KILL_CLIENT {session}")]);
    let killed = killed.output().unwrap();
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    eventually("it is gone", SOON, || api.get(&format!("/api/v1/transactions/{id}")).status == 404);
    begin(&api, json!({}));
    let begun = std::time::Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_transaction_begins_in_a_session_of_the_clients() {
    let server = Server::builder()
        .arg("--set=api.transaction_idle_timeout_secs=2")
        .arg("--set=api.max_open_transactions=1")
        .start();
    let api = Api::of(&server, "rustydb", &server.password);
    let settings = json!({ "settings": { "work_mem": "3MB" } });
    let session = api.post("/api/v1/sessions", settings).expect(201)["session_id"].clone();
    let number = session.to_string();
    let post = |path: &str, more: &[(&str, &str)], body: Value| {
        let session = ("x-session-id", number.as_str());
        let headers = [&[session, ("content-type", "application/json")], more].concat();
        api.send("POST", path, &headers, body.to_string().as_bytes())
    };
    let query = |sql: &str| post("/api/v1/query", &[], json!({ "sql": sql }));
    let begin = |how: Value| post("/api/v1/transactions", &[], how);
    query("create temporary table mine (a int)").expect(200);

    let begun = begin(json!({ "read_only": false })).expect(201);
    assert_eq!(begun["session_id"], session);
    let id = begun["transaction_id"].clone();
    within(&api, &id, "insert into mine values (1)").expect(200);
    let shown = within(&api, &id, "show work_mem").expect(200);
    assert_eq!(shown["rows"], json!([{ "work_mem": "3MB" }]));
    let seen = api.get(&format!("/api/v1/sessions/{session}")).expect(200);
    assert_eq!((&seen["transaction_id"], &seen["state"]), (&id, &"active".into()));
    // Nothing else runs in it; who names both means the same.
    query("select 1").refused(409, "CONFLICT");
    begin(json!({})).refused(409, "CONFLICT");
    let header = id.to_string();
    let both = [("x-transaction-id", header.as_str())];
    let count = json!({ "sql": "select count(*) as n from mine" });
    let rows = post("/api/v1/query", &both, count).expect(200)["rows"].clone();
    assert_eq!(rows, json!([{ "n": 1 }]));
    post("/api/v1/transactions", &both, json!({})).refused(400, "VALIDATION_ERROR");
    let other = api.post("/api/v1/sessions", json!({})).expect(201)["session_id"].to_string();
    let wrong = [("x-session-id", other.as_str()), both[0], ("content-type", "application/json")];
    let body = json!({ "sql": "select 1" }).to_string();
    api.send("POST", "/api/v1/query", &wrong, body.as_bytes()).refused(400, "VALIDATION_ERROR");
    // There is no room for another one, whose session stays as it is.
    let full = [wrong[0], wrong[2]];
    let refused = api.send("POST", "/api/v1/transactions", &full, b"{}");
    refused.refused(409, "LIMIT_REACHED");
    let ask = json!({ "sql": "select 1 as n" }).to_string();
    api.send("POST", "/api/v1/query", &full, ask.as_bytes()).expect(200);
    let open = "select count(*) as n from pg_stat_activity where state like 'idle in%'";
    assert_eq!(sql(&api, open), json!([{ "n": 1 }]));

    api.post(&format!("/api/v1/transactions/{id}/commit"), json!(null)).expect(200);
    let rows = |sql: &str| query(sql).expect(200)["rows"].clone();
    assert_eq!(rows("select a from mine"), json!([{ "a": 1 }]));
    // One that nobody uses is rolled back, and its session goes on.
    let forgotten = begin(json!({})).expect(201)["transaction_id"].clone();
    within(&api, &forgotten, "insert into mine values (2)").expect(200);
    eventually("it is rolled back", Duration::from_secs(20), || query("select 1").status == 200);
    within(&api, &forgotten, "select 1").refused(404, "NOT_FOUND");
    assert_eq!(rows("select a from mine"), json!([{ "a": 1 }]));
    // What SQL has begun is not begun once more.
    query("begin").expect(200);
    begin(json!({})).refused(409, "CONFLICT");
    query("rollback").expect(200);
    begin(json!({ "database": "postgres" })).refused(400, "VALIDATION_ERROR");
    // The session of a transaction that loses its connection is lost with it.
    let lost = begin(json!({})).expect(201)["transaction_id"].clone();
    within(&api, &lost, "select pg_terminate_backend(pg_backend_pid())");
    query("select 1").refused(404, "NOT_FOUND");
}

/// A transaction that SQL begins needs somewhere to stay open, and so does what a session keeps.
#[test]
fn nothing_is_begun_that_ends_with_its_request() {
    let api = admin();
    sql(&api, "create table lone (a int)");
    let query = |sql: &str| api.post("/api/v1/query", json!({ "sql": sql }));
    for control in ["begin", "/* x */ Start Transaction", "commit", "rollback", "savepoint s"] {
        let refused = query(control);
        assert_eq!(refused.json["error"]["sqlstate"], "2D000", "{}", refused.text);
        let hint = &refused.json["error"]["hint"];
        assert_eq!(hint, "POST /api/v1/transactions, or X-Session-Id");
        refused.refused(400, "VALIDATION_ERROR");
    }
    // Of a prepared one PostgreSQL says that it is not there.
    query("rollback prepared 'none'").refused(404, "NOT_FOUND");
    let warned = |sql: &str| {
        let done = query(sql).expect(200);
        let notices = done["notices"].as_array().unwrap();
        let is_it = |notice: &&Value| {
            let message = notice["message"].as_str().unwrap();
            notice["severity"] == "WARNING" && message.contains("X-Session-Id")
        };
        notices.iter().filter(is_it).count()
    };
    for leaves in [
        "set work_mem = '3MB'",
        "select set_config('work_mem', '3MB', false)",
        "prepare lone as select 1",
        "listen lone",
        "create temp table lone_here (a int)",
        "declare c cursor with hold for select 1",
        "select pg_advisory_lock(4711)",
    ] {
        assert_eq!(warned(leaves), 1, "{leaves}");
    }
    for leaves_nothing in [
        "select 1",
        "insert into lone values (1)",
        "create table lone_too (a serial)",
        "reset work_mem",
        "select set_config('work_mem', '3MB', true)",
    ] {
        assert_eq!(warned(leaves_nothing), 0, "{leaves_nothing}");
    }
    // Nor does a batch leave one open: what it says to be done is done.
    let batch = |statements: Value| {
        let body = json!({ "statements": statements, "atomic": false });
        api.post("/api/v1/batch", body).expect(200)
    };
    let insert = "insert into lone values (2)";
    let left = batch(json!([insert, "begin", insert]));
    assert_eq!((&left["succeeded"], &left["failed"]), (&1.into(), &2.into()), "{left}");
    assert_eq!(left["results"][2]["error"]["code"], "TRANSACTION_FAILED");
    let whole = batch(json!(["begin", insert, "commit"]));
    assert_eq!(whole["succeeded"], 3);
    let count = "select count(*) as n from lone where a = 2";
    assert_eq!(sql(&api, count), json!([{ "n": 2 }]));
}
