//! Long operations: begun by one request, looked at and cancelled by others.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, admin};
use crate::harness::shared::guarded;
use crate::harness::{Server, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(api: &Api<'_>, sql: &str) -> Value {
    api.post("/api/v1/query", json!({ "sql": sql })).expect(200)
}

/// A table that somebody holds a lock on for as long as the value lives.
struct Locked<'a> {
    api: &'a Api<'a>,
    transaction: Value,
}

impl<'a> Locked<'a> {
    fn new(api: &'a Api<'a>, table: &str) -> Self {
        let begun = api.post("/api/v1/transactions", json!({})).expect(201);
        let transaction = begun["transaction_id"].clone();
        let sql = format!("lock table {table} in row exclusive mode");
        let body = json!({ "sql": sql, "transaction_id": transaction });
        api.post("/api/v1/query", body).expect(200);
        Self { api, transaction }
    }

    fn release(self) {
        let path = format!("/api/v1/transactions/{}/rollback", self.transaction);
        self.api.post(&path, json!({})).expect(200);
    }
}

fn path_of(job: &Value) -> String {
    format!("/api/v1/jobs/{}", job["job_id"].as_str().unwrap())
}

/// Waits until a job is in a state.
pub fn until(api: &Api<'_>, job: &Value, state: &str) -> Value {
    let path = path_of(job);
    let mut last = Value::Null;
    eventually(state, PATIENCE, || {
        last = api.get(&path).expect(200);
        last["state"] == state
    });
    last
}

fn index(table: &str, name: &str) -> Value {
    json!({ "name": name, "table": table, "columns": ["a"], "concurrently": true })
}

#[test]
fn an_index_is_made_by_a_job() {
    let api = admin();
    run(&api, "create table indexed as select generate_series(1, 1000) as a");
    let answer = api.post("/api/v1/sql/indexes", index("indexed", "made_by_job"));
    let place = answer.header("location").to_owned();
    let job = answer.expect(202);
    assert_eq!((place, &job["kind"]), (path_of(&job), &"create_index".into()));
    let done = until(&api, &job, "succeeded");
    assert_eq!(
        (&done["result"]["name"], &done["result"]["valid"]),
        (&json!("made_by_job"), &true.into())
    );
    assert_eq!((&done["progress"]["percent"], &done["error"]), (&json!(100.0), &Value::Null));
    for field in ["created_at", "started_at", "finished_at"] {
        assert!(done[field].as_str().unwrap().ends_with('Z'), "{done}");
    }
    assert_eq!(done["created_by"], "rustydb");
    api.delete(&path_of(&job)).refused(409, "CONFLICT");

    let again = api.post("/api/v1/sql/indexes", index("indexed", "made_by_job")).expect(202);
    let failed = until(&api, &again, "failed");
    assert_eq!(
        (&failed["error"]["code"], &failed["error"]["sqlstate"]),
        (&json!("CONFLICT"), &json!("42P07"))
    );
    let list = api.get("/api/v1/jobs?kind=create_index&state=failed&limit=1").expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert!(list["total"].as_u64().unwrap() >= 1);
}

/// The job ends on the server too, and only who began it, or an administrator, may end it.
#[test]
fn a_job_is_cancelled_by_its_owner() {
    let api = admin();
    for name in ["jane", "jack"] {
        run(&api, &format!("create role {name} login password '{name}-secret'"));
    }
    run(&api, "create table janes (a int)");
    run(&api, "alter table janes owner to jane");
    run(&api, "grant create on schema public to jane");
    let jane = Api::of(guarded(), "jane", "jane-secret");
    let jack = Api::of(guarded(), "jack", "jack-secret");
    let locked = Locked::new(&api, "janes");
    let job = jane.post("/api/v1/sql/indexes", index("janes", "unbuilt")).expect(202);
    let working = "select count(*)::int as n from pg_stat_activity where usename = 'jane' \
                   and application_name like 'rustydb-job-%' and state = 'active' \
                   and query like 'CREATE INDEX%'";
    let at_work = |n: i64| run(&api, working)["rows"][0]["n"] == n;
    eventually("the statement runs", PATIENCE, || at_work(1));
    let seen = until(&jane, &job, "running");
    assert_eq!((&seen["created_by"], &seen["finished_at"]), (&json!("jane"), &Value::Null));
    eventually("progress is told", PATIENCE, || {
        let job = jane.get(&path_of(&job)).expect(200);
        job["progress"]["phase"].as_str().is_some_and(|phase| phase.contains("wait"))
    });

    jack.get(&path_of(&job)).refused(404, "NOT_FOUND");
    jack.delete(&path_of(&job)).refused(404, "NOT_FOUND");
    assert_eq!(jack.get("/api/v1/jobs").expect(200)["total"], 0);
    assert_eq!(jane.get("/api/v1/jobs").expect(200)["total"], 1);
    api.get(&path_of(&job)).expect(200);
    let ended = jane.delete(&path_of(&job)).expect(200);
    assert_eq!((&ended["state"], &ended["result"]), (&json!("cancelled"), &Value::Null));
    eventually("the statement has ended", PATIENCE, || at_work(0));
    locked.release();
    jane.delete(&path_of(&job)).refused(409, "CONFLICT");
}

#[test]
fn what_is_no_job_is_refused() {
    let api = admin();
    for id in ["x", "01a1ff44-8e95-76c4-82fe-138e9d0427cc", "1%3B%20select%201"] {
        api.get(&format!("/api/v1/jobs/{id}")).refused(404, "NOT_FOUND");
        api.delete(&format!("/api/v1/jobs/{id}")).refused(404, "NOT_FOUND");
    }
    api.get("/api/v1/jobs/%00").refused(400, "VALIDATION_ERROR");
    api.get("/api/v1/jobs?state=lost").refused(400, "VALIDATION_ERROR");
    Api::nobody(guarded()).get("/api/v1/jobs").refused(401, "AUTHENTICATION_FAILED");
    // A role that may not do it now may not do it later either.
    run(&api, "create role june login password 'june-secret'");
    run(&api, "create table not_junes (a int)");
    let june = Api::of(guarded(), "june", "june-secret");
    let job = june.post("/api/v1/sql/indexes", index("not_junes", "i")).expect(202);
    let failed = until(&june, &job, "failed");
    assert_eq!(failed["error"]["code"], "AUTHORIZATION_FAILED");
}

/// What a server did when it ended has failed, and so it is told by the next.
#[test]
fn a_job_does_not_outlive_its_server() {
    let mut first = Server::builder().start();
    let password = first.password.clone();
    let api = Api::of(&first, "rustydb", &password);
    run(&api, "create table held (a int)");
    let locked = Locked::new(&api, "held");
    let job = api.post("/api/v1/sql/indexes", index("held", "unbuilt")).expect(202);
    until(&api, &job, "running");
    drop(locked.transaction);
    first.signal("KILL");
    first.wait();
    let second = Server::builder().data_dir(&first.data_dir).start();
    let api = Api::of(&second, "rustydb", &password);
    let failed = api.get(&path_of(&job)).expect(200);
    assert_eq!(
        (&failed["state"], &failed["error"]["code"]),
        (&json!("failed"), &json!("SERVICE_UNAVAILABLE"))
    );
}
