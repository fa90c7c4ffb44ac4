//! SQL over HTTP: requests, answers, limits of a request, errors.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::{guarded, wait_until_gone};

/// Who asks.
pub struct Client<'a> {
    pub user: &'a str,
    pub password: &'a str,
}

pub fn admin(server: &Server) -> Client<'_> {
    Client { user: "rustydb", password: &server.password }
}

impl Client<'_> {
    pub fn authorization(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
    /// The text as JSON, else null.
    pub json: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or("")
    }
}

fn agent() -> ureq::Agent {
    let limit = Some(Duration::from_secs(60));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(limit).build().into()
}

/// A POST of these bytes to the query endpoint, with exactly these headers.
pub fn send(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = agent().post(server.url("/api/v1/query"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(request.send(body).unwrap())
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), text, json }
}

pub fn post(server: &Server, client: &Client<'_>, body: &Value) -> Answer {
    let authorization = client.authorization();
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    send(server, &headers, body.to_string().as_bytes())
}

/// A request of the administrator.
pub fn ask(body: Value) -> Answer {
    let server = guarded();
    post(server, &admin(server), &body)
}

/// The rows of a statement that must succeed.
pub fn rows(body: Value) -> Value {
    let answer = ask(body.clone());
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    answer.json["rows"].clone()
}

#[test]
fn an_answer_has_the_documented_shape() {
    let answer = ask(json!({ "sql": "select 1 as a, 'x'::text as b" }));
    let j = &answer.json;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-api-version"), "1");
    assert_eq!(answer.header("x-rustydb-version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-query-id"), j["query_id"].as_str().unwrap());
    assert_eq!(
        j["columns"],
        json!([{ "name": "a", "type": "int4", "type_oid": 23, "nullable": true },
            { "name": "b", "type": "text", "type_oid": 25, "nullable": true }])
    );
    assert_eq!(j["rows"], json!([{ "a": 1, "b": "x" }]));
    let rest = [&j["row_count"], &j["affected_rows"], &j["has_more"], &j["command"], &j["notices"]];
    assert_eq!(json!(rest), json!([1, 0, false, "SELECT", []]));
    assert!(j["execution_time_ms"].as_f64().unwrap() > 0.0);
    let array = ask(json!({ "sql": "select 1 as a, 2 as a, null as a", "row_format": "array" }));
    assert_eq!(array.json["rows"], json!([[1, 2, null]]));
    // Both columns are there, whatever a reader makes of a key that comes twice.
    let twice = ask(json!({ "sql": "select 1 as a, 2 as a" }));
    assert!(twice.text.contains("\"rows\":[{\"a\":1,\"a\":2}]"), "{}", twice.text);
    assert_eq!(twice.json["columns"].as_array().unwrap().len(), 2);
    let empty = ask(json!({ "sql": "select 1 as a where false" })).json;
    assert_eq!((&empty["rows"], &empty["row_count"]), (&json!([]), &json!(0)));
    assert_eq!(rows(json!({ "sql": "select" })), json!([{}]));
}

#[test]
fn writes_report_what_they_did() {
    let check = |sql: &str, command: &str, affected: u64, rows: Value| {
        let j = ask(json!({ "sql": sql })).json;
        let got = json!([j["command"], j["affected_rows"], j["rows"]]);
        assert_eq!(got, json!([command, affected, rows]), "{sql}: {j}");
    };
    check(
        "create table http_w (id int primary key, t text not null)",
        "CREATE TABLE",
        0,
        json!([]),
    );
    check("insert into http_w select i, 'x' from generate_series(1, 5) i", "INSERT", 5, json!([]));
    check("update http_w set t = 'y' where id > 2", "UPDATE", 3, json!([]));
    check(
        "update http_w set t = 'z' where id = 1 returning id, t",
        "UPDATE",
        1,
        json!([{ "id": 1, "t": "z" }]),
    );
    check("delete from http_w where id > 100", "DELETE", 0, json!([]));
    check("delete from http_w where id = 5 returning *", "DELETE", 1, json!([{"id": 5, "t": "y"}]));
    check(
        "merge into http_w using (values (1), (9)) v (id) on http_w.id = v.id
        when matched then delete when not matched then insert values (v.id, 'm')",
        "MERGE",
        2,
        json!([]),
    );
    check(
        "with d as (delete from http_w returning id) select count(*) as n from d",
        "SELECT",
        0,
        json!([{ "n": 4 }]),
    );
    let columns =
        ask(json!({ "sql": "select id, t, id + 1 as n from http_w" })).json["columns"].clone();
    let nullable: Vec<_> =
        columns.as_array().unwrap().iter().map(|c| c["nullable"].clone()).collect();
    assert_eq!(json!(nullable), json!([false, false, true]));
    check("drop table http_w", "DROP TABLE", 0, json!([]));
    let sql = "do $$ begin raise notice 'n'; raise warning 'w'; end $$";
    let j = ask(json!({ "sql": sql })).json;
    assert_eq!((&j["command"], j["notices"].as_array().unwrap().len()), (&json!("DO"), 2));
    assert_eq!(
        j["notices"][1],
        json!({ "severity": "WARNING", "sqlstate": "01000", "message": "w" })
    );
}

#[test]
fn max_rows_is_exact() {
    for (made, max_rows, returned, has_more) in [
        (5, 5, 5, false),
        (6, 5, 5, true),
        (4, 5, 4, false),
        (1, 1, 1, false),
        (0, 1, 0, false),
        (100_000, 1, 1, true),
        (100_000, 99_999, 99_999, true),
        (10, 4_294_967_295u32, 10, false),
    ] {
        let sql = format!("select generate_series(1, {made}) as i");
        let j = ask(json!({ "sql": sql, "max_rows": max_rows })).json;
        let got = (j["rows"].as_array().unwrap().len(), &j["row_count"], &j["has_more"]);
        assert_eq!(got, (returned, &json!(returned), &json!(has_more)), "{made} {max_rows}");
    }
    // A statement that writes is carried out whole.
    ask(json!({ "sql": "create table http_m (i int)" }));
    let sql = "insert into http_m select generate_series(1, 10) returning i";
    let j = ask(json!({ "sql": sql, "max_rows": 3 })).json;
    assert_eq!((j["rows"].as_array().unwrap().len(), &j["has_more"]), (3, &json!(true)), "{j}");
    assert_eq!((&j["affected_rows"], &j["command"]), (&json!(10), &json!("INSERT")), "{j}");
    assert_eq!(rows(json!({ "sql": "select count(*) as n from http_m" })), json!([{ "n": 10 }]));
}

#[test]
fn lines_stream_a_million_rows() {
    let server = guarded();
    let sql = "select i, 'x' as t from generate_series(1, 1000000) i";
    let request = agent()
        .post(server.url("/api/v1/query"))
        .header("authorization", admin(server).authorization())
        .header("content-type", "application/json")
        .header("accept", "application/x-ndjson");
    let mut response = request.send(json!({ "sql": sql }).to_string()).unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut bytes = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut bytes).unwrap();
    let mut lines = bytes.split(|b| *b == b'\n');
    assert_eq!(lines.next().unwrap(), br#"{"i":1,"t":"x"}"#);
    assert_eq!(lines.next_back().unwrap(), b"");
    assert_eq!(lines.next_back().unwrap(), br#"{"i":1000000,"t":"x"}"#);
    assert_eq!(lines.count(), 999_998);
}

#[test]
fn time_outs_stop_the_statement() {
    let begun = Instant::now();
    for sql in [
        "select pg_sleep(30) as http_slow",
        "select 'http_slow', i from generate_series(1, 1000000000) i where i < 0",
    ] {
        let answer = ask(json!({ "sql": sql, "timeout_ms": 300 }));
        assert_eq!((answer.status, answer.code()), (504, "TIMEOUT"), "{}", answer.text);
        wait_until_gone(guarded(), "http_slow");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let fast = ask(json!({ "sql": "select 1", "timeout_ms": 60000 }));
    assert_eq!(fast.status, 200);
    let own =
        ask(json!({ "sql": "select set_config('statement_timeout', '1', true), pg_sleep(5)" }));
    assert_eq!(own.status, 200, "PostgreSQL reads it when a statement begins: {}", own.text);
}

#[test]
fn read_only_requests_cannot_write() {
    ask(json!({ "sql": "create table http_ro (i int)" }));
    let check = |sql: &str, status: u16| {
        let answer = ask(json!({ "sql": sql, "read_only": true }));
        assert_eq!(answer.status, status, "{sql}: {}", answer.text);
        if status == 409 {
            assert_eq!(
                (answer.code(), &answer.json["error"]["sqlstate"]),
                ("READ_ONLY", &json!("25006"))
            );
        }
    };
    check("select * from http_ro", 200);
    check("insert into http_ro values (1)", 409);
    check("create table http_ro2 (i int)", 409);
    check("with w as (insert into http_ro values (2) returning i) select * from w", 409);
    check("select nextval('http_ro_seq')", 404);
    // Whatever a client does to get out, the write does not stay.
    for sql in ["commit", "set transaction read write", "rollback; insert into http_ro values (3)"]
    {
        ask(json!({ "sql": sql, "read_only": true }));
    }
    assert_eq!(rows(json!({ "sql": "select count(*) as n from http_ro" })), json!([{ "n": 0 }]));
    assert_eq!(ask(json!({ "sql": "insert into http_ro values (1)" })).status, 200);
}

#[test]
fn errors_have_one_shape() {
    ask(json!({ "sql": "create table http_e (id int primary key, n int check (n > 0))" }));
    ask(json!({ "sql": "insert into http_e values (1, 1)" }));
    ask(json!({ "sql": "create role http_e_role login password 'pw'" }));
    let raise = |state: &str| format!("do $$ begin raise 'x' using errcode = '{state}'; end $$");
    let check = |sql: &str, status: u16, code: &str, state: &str| {
        let answer = ask(json!({ "sql": sql }));
        let error = answer.json["error"].as_object().unwrap_or_else(|| panic!("{sql}: {answer:?}"));
        assert_eq!(
            (answer.status, &error["code"], &error["sqlstate"]),
            (status, &json!(code), &json!(state)),
            "{sql}"
        );
        assert_eq!(answer.json.as_object().unwrap().len(), 1);
        let known = [
            "code",
            "message",
            "details",
            "sqlstate",
            "position",
            "hint",
            "request_id",
            "timestamp",
        ];
        assert!(error.keys().all(|key| known.contains(&key.as_str())), "{sql}: {error:?}");
        assert!(
            error["details"].is_object() && error["timestamp"].as_str().unwrap().ends_with('Z')
        );
        assert_eq!(error["request_id"], answer.header("x-request-id"));
        assert_eq!(answer.header("content-type"), "application/json");
        answer.json["error"].clone()
    };
    let error = check("selec 1", 400, "VALIDATION_ERROR", "42601");
    assert_eq!(
        (&error["position"], &error["message"]),
        (&json!(1), &json!("syntax error at or near \"selec\""))
    );
    let error = check("select * from nothere", 404, "NOT_FOUND", "42P01");
    assert_eq!(error["position"], json!(15));
    let error = check("insert into http_e values (1, 1)", 409, "CONFLICT", "23505");
    assert_eq!(error["details"]["detail"], json!("Key (id)=(1) already exists."));
    check("insert into http_e values (2, 0)", 409, "CONFLICT", "23514");
    check("insert into http_e values (null, 1)", 409, "CONFLICT", "23502");
    check("select 1/0", 400, "VALIDATION_ERROR", "22012");
    check("select 'x'::int", 400, "VALIDATION_ERROR", "22P02");
    let error = check("select abs('a', 'b')", 400, "VALIDATION_ERROR", "42883");
    assert!(error["hint"].as_str().unwrap().contains("explicit type casts"), "{error}");
    check("create table http_e (a int)", 409, "CONFLICT", "42P07");
    check("select 1; select 2", 400, "VALIDATION_ERROR", "42601");
    check("vacuum full pg_database; select 1", 400, "VALIDATION_ERROR", "42601");
    let error = check(&raise("40001"), 409, "CONFLICT", "40001");
    assert_eq!(error["details"]["retryable"], json!(true));
    check(&raise("40P01"), 409, "DEADLOCK_DETECTED", "40P01");
    check(&raise("P0001"), 400, "VALIDATION_ERROR", "P0001");
    check(&raise("ZZ999"), 500, "INTERNAL_ERROR", "ZZ999");
    check("copy http_e from stdin", 501, "NOT_SUPPORTED", "0A000");
    check("copy http_e to stdout", 501, "NOT_SUPPORTED", "0A000");
    check("select 1/(i - 20) from generate_series(1, 30) i", 400, "VALIDATION_ERROR", "22012");
    check("commit prepared 'x'", 404, "NOT_FOUND", "42704");
    let client = Client { user: "http_e_role", password: "pw" };
    let answer = post(guarded(), &client, &json!({ "sql": "select * from http_e" }));
    let got = (answer.status, answer.code(), &answer.json["error"]["sqlstate"]);
    assert_eq!(got, (403, "AUTHORIZATION_FAILED", &json!("42501")));
    let answer = ask(json!({ "sql": "select 1", "database": "nothere" }));
    assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"), "{}", answer.text);
    let answer = ask(json!({ "sql": "select current_database() as d", "database": "postgres" }));
    assert_eq!(answer.json["rows"], json!([{ "d": "postgres" }]));
    // Nothing of a failed request stays.
    assert_eq!(rows(json!({ "sql": "select count(*) as n from http_e" })), json!([{ "n": 1 }]));
}
