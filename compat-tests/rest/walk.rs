//! Every operation of the API once: what is well formed is carried out, what is not is refused in
//! the one shape, and nobody comes in without credentials. The table is in `operations.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::harness::{Server, eventually};
use crate::operations::{APPENDIX, Ask, Bad, Door, Expect, NOT_DESCRIBED, Operation, all, made};

/// What operations work on; each that uses something up gets its own.
pub struct World<'a> {
    pub api: Api<'a>,
    server: &'a Server,
}

impl World<'_> {
    pub fn sql(&self, sql: &str) -> Value {
        let body = json!({ "sql": sql });
        self.api.post("/api/v1/query", body).expect(200)["rows"].clone()
    }

    /// A transaction that is open.
    pub fn transaction(&self) -> String {
        let begun = self.api.post("/api/v1/transactions", json!({})).expect(201);
        begun["transaction_id"].to_string()
    }

    /// A transaction with this savepoint.
    pub fn savepoint(&self, name: &str) -> String {
        let id = self.transaction();
        let path = format!("/api/v1/transactions/{id}/savepoints");
        self.api.post(&path, json!({ "name": name })).expect(201);
        id
    }

    /// A transaction that is prepared.
    pub fn prepared(&self, gid: &str) {
        let path = format!("/api/v1/transactions/{}/prepare", self.transaction());
        self.api.post(&path, json!({ "gid": gid })).expect(200);
    }

    /// A log-in of a role that may.
    pub fn log_in(&self) -> Value {
        let body = json!({ "username": "walker", "password": "walker-secret" });
        Api::nobody(self.server).post("/api/v1/auth/login", body).expect(200)
    }

    /// The cookie of a browser's session.
    pub fn cookie(&self) -> String {
        let body = json!({ "username": "walker", "password": "walker-secret", "cookie": true });
        let answer = Api::nobody(self.server).post("/api/v1/auth/login", body);
        answer.header("set-cookie").split(';').next().unwrap().to_owned()
    }

    /// The number of a job that waits for something: it can be looked at and cancelled.
    pub fn job(&self) -> String {
        let table = made(self, "table", "(a int)");
        self.hold(&table, "row exclusive");
        let index = json!({ "table": table, "columns": ["a"], "concurrently": true });
        let job = self.api.post("/api/v1/sql/indexes", index).expect(202);
        job["job_id"].as_str().unwrap().to_owned()
    }

    /// The path of a statement that runs for a while.
    pub fn running(&self) -> String {
        let id = self.transaction();
        let (url, authorization) =
            (self.server.url("/api/v1/query"), self.api.authorization().to_owned());
        let body =
            json!({ "sql": "select pg_sleep(60)", "transaction_id": id.parse::<u64>().unwrap() });
        // Its answer is nobody's business.
        std::thread::spawn(move || {
            let request = ureq::http::Request::post(url)
                .header("authorization", authorization)
                .header("content-type", "application/json");
            drop(ureq::agent().run(request.body(body.to_string()).unwrap()));
        });
        let mut path = String::new();
        eventually("it runs", Duration::from_secs(60), || {
            let list = self.api.get("/api/v1/queries/active?limit=1000").expect(200);
            let sleeps = |query: &&Value| query["sql"].as_str().unwrap_or("").contains("pg_sleep");
            let found = list["items"].as_array().unwrap().iter().rfind(sleeps);
            let found = found.and_then(|query| query["query_id"].as_str());
            path = found.map_or_else(String::new, |id| format!("/api/v1/queries/{id}"));
            found.is_some()
        });
        path
    }

    /// Ends every transaction: each holds a connection.
    fn tidy_up(&self) {
        let list = self.api.get("/api/v1/transactions?limit=1000").expect(200);
        for open in list["items"].as_array().unwrap() {
            // One that is busy ends when its statement does.
            self.api.post(
                &format!("/api/v1/transactions/{}/rollback", open["transaction_id"]),
                json!({}),
            );
        }
    }

    /// Holds a lock in a transaction.
    fn hold(&self, table: &str, mode: &str) {
        let id = self.transaction().parse::<u64>().unwrap();
        let sql = format!("lock table {table} in {mode} mode");
        self.api.post("/api/v1/query", json!({ "sql": sql, "transaction_id": id })).expect(200);
    }

    /// The path of a lock that a transaction holds.
    pub fn lock(&self) -> String {
        let table = made(self, "table", "(a int)");
        self.hold(&table, "share");
        let list =
            self.api.get(&format!("/api/v1/transactions/locks?relation={table}")).expect(200);
        let held = |lock: &&Value| lock["mode"] == "ShareLock";
        let found = list["items"].as_array().unwrap().iter().find(held).unwrap();
        format!(
            "/api/v1/transactions/locks/{}",
            found["lock_id"].as_str().unwrap().replace('/', "%2F")
        )
    }

    fn ask(&self, operation: &Operation, ask: &Ask) -> Answer {
        let (nobody, text) = (Api::nobody(self.server), ask.text());
        let mut headers: Vec<(&str, &str)> =
            ask.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if ask.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let api = if ask.as_somebody_else { &nobody } else { &self.api };
        api.send(operation.method, &ask.path, &headers, text.as_bytes())
    }
}

fn described() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// An operation with nameless parameters: what they are called is no one's business.
fn plain(method: &str, path: &str) -> (String, String) {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    (method.to_uppercase(), parts.collect::<Vec<_>>().join("/"))
}

/// What the table, the document and the list of what there is to be say is the same.
#[test]
fn no_operation_is_missing() {
    const METHODS: [&str; 7] = ["get", "put", "post", "delete", "patch", "head", "options"];
    let described = described();
    let described: BTreeSet<_> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = METHODS.iter().filter(|method| !item[**method].is_null());
            methods.map(|method| plain(method, path))
        })
        .collect();
    let table: BTreeSet<_> = all().iter().map(|op| plain(op.method, op.path)).collect();
    assert_eq!(table.len(), all().len(), "an operation is in the table twice");
    let list = |text: &str| -> BTreeSet<_> {
        let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
        lines.map(|(method, path)| plain(method, path.trim())).collect()
    };
    let (wanted, bare) = (list(APPENDIX), list(NOT_DESCRIBED));
    let left = |a: &BTreeSet<_>, b: &BTreeSet<_>| a.difference(b).cloned().collect::<Vec<_>>();
    let none = Vec::<(String, String)>::new();
    assert_eq!(left(&described, &table), none, "described, and not in the table");
    let there = described.union(&bare).cloned().collect();
    assert_eq!(left(&table, &there), none, "in the table, and not there");
    assert_eq!(left(&wanted, &table), none, "to be there, and not in the table");
}

#[test]
fn every_operation_answers() {
    let server = Server::builder()
        .set("backend.embedded.extra_conf=max_prepared_transactions=9")
        .set("rate_limit.enabled=false")
        // Wrong passwords are part of the walk.
        .set("rate_limit.login_per_user=none")
        .set("security.lockout.duration_secs=0")
        .start();
    let world = World { api: Api::of(&server, "rustydb", &server.password), server: &server };
    for sql in [
        "create role walker login password 'walker-secret'",
        "create table walked (a int primary key, b text)",
        "insert into walked values (1, 'one'), (2, 'two'), (3, 'three')",
        "create function walked_twice(a int) returns int language sql as 'select 2 * a'",
        "create role walked_role nologin",
    ] {
        world.sql(sql);
    }
    let info = world.api.get("/api/v1/info");
    let features = (info.status == 200).then(|| info.json["features"].clone());
    let mut wrong = Vec::new();
    for operation in all() {
        let said = walk(&world, &operation, features.as_ref());
        world.tidy_up();
        wrong.extend(
            said.into_iter().map(|s| format!("{} {}: {s}", operation.method, operation.path)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with an operation.
fn walk(world: &World<'_>, operation: &Operation, features: Option<&Value>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |is_right: bool, what: &str, answer: &Answer| {
        if !is_right {
            wrong.push(format!("{what}: {} {}", answer.status, answer.text));
        }
    };
    let ask = (operation.good)(world);
    if operation.door == Door::Guarded {
        let stranger = Ask { as_somebody_else: true, headers: Vec::new(), ..ask.clone() };
        let answer = world.ask(operation, &stranger);
        check(is_error(&answer, 401), "without credentials", &answer);
        // Wrong passwords would lock somebody out.
        for nonsense in ["Basic !", "Bearer x.y.z", "Bearer sk_live_x", "Nonsense"] {
            let headers = vec![("authorization", nonsense.to_owned())];
            let forged = Ask { as_somebody_else: true, headers, ..ask.clone() };
            let answer = world.ask(operation, &forged);
            check(is_error(&answer, 401), "with wrong credentials", &answer);
        }
    }
    for bad in operation.bad {
        let mut ask = (operation.good)(world);
        match bad {
            Bad::Body(text) => ask.raw = Some(text),
            Bad::Path(path) => ask.path = (*path).to_owned(),
            Bad::Query(query) => {
                let joint = if ask.path.contains('?') { '&' } else { '?' };
                ask.path = format!("{}{joint}{query}", ask.path);
            }
        }
        let answer = world.ask(operation, &ask);
        let is_refusal = (400..500).contains(&answer.status) && is_error(&answer, answer.status);
        check(is_refusal && answer.status != 401, &format!("malformed, {bad:?}"), &answer);
    }
    // Nothing of that has been done, so what is well formed is.
    let answer = world.ask(operation, &(operation.good)(world));
    match operation.expect {
        Expect::Done => check((200..300).contains(&answer.status), "well formed", &answer),
        Expect::Refused => check(is_error(&answer, 409), "well formed", &answer),
        Expect::Absent => {
            check(is_error(&answer, 501), "not supported", &answer);
            let feature = answer.json["error"]["details"]["feature"].as_str().unwrap_or_default();
            let reason = features.map_or("?", |f| f[feature].as_str().unwrap_or_default());
            check(!feature.is_empty() && !matches!(reason, "" | "supported"), "listed", &answer);
        }
    }
    wrong
}

/// Whether it is an error in the one shape, or in that of PostgREST below its paths.
fn is_error(answer: &Answer, status: u16) -> bool {
    let error = &answer.json["error"];
    let is_ours = ["code", "message", "details", "sqlstate", "request_id", "timestamp"]
        .iter()
        .all(|field| !error[*field].is_null());
    let is_rest = answer.json["code"].is_string() && answer.json["message"].is_string();
    answer.status == status && (is_ours || is_rest)
}
