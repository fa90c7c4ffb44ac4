//! The operations of the API: each with a well-formed request and malformed ones.

use serde_json::{Value, json};

use crate::walk::World;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub path: String,
    pub body: Option<Value>,
    pub headers: Vec<(&'static str, String)>,
    /// Without the administrator's credentials.
    pub as_somebody_else: bool,
    /// This text instead of the body.
    pub raw: Option<&'static str>,
}

impl Ask {
    fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    fn with(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::at(path) }
    }

    pub fn text(&self) -> String {
        match (self.raw, &self.body) {
            (Some(raw), _) => raw.to_owned(),
            (None, Some(body)) => body.to_string(),
            (None, None) => String::new(),
        }
    }
}

/// What makes a request malformed.
#[derive(Clone, Copy, Debug)]
pub enum Bad {
    Body(&'static str),
    Path(&'static str),
    Query(&'static str),
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Guarded,
    Open,
}

/// What comes of a well-formed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Done,
    /// 501 with the name of the feature.
    Absent,
    /// 409 with the reason.
    Refused,
}

pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub good: fn(&World<'_>) -> Ask,
    pub bad: &'static [Bad],
    pub door: Door,
    pub expect: Expect,
}

const fn op(
    method: &'static str,
    path: &'static str,
    good: fn(&World<'_>) -> Ask,
    bad: &'static [Bad],
) -> Operation {
    Operation { method, path, good, bad, door: Door::Guarded, expect: Expect::Done }
}

impl Operation {
    const fn open(self) -> Self {
        Self { door: Door::Open, ..self }
    }

    const fn absent(self) -> Self {
        Self { expect: Expect::Absent, ..self }
    }

    const fn refused(self) -> Self {
        Self { expect: Expect::Refused, ..self }
    }
}

/// Neither half of an object, nor one with unknown members, nor nothing.
const BODY: &[Bad] = &[Bad::Body("{"), Bad::Body("{\"no_such_member\":1}"), Bad::Body("[1]")];
const PAGE: &[Bad] = &[Bad::Query("limit=0"), Bad::Query("offset=x")];
/// There is nothing that could be malformed but the credentials.
const NOTHING: &[Bad] = &[];

/// Every operation.
pub fn all() -> Vec<Operation> {
    let parts = [
        query(),
        tables(),
        schema(),
        transactions(),
        auth(),
        admin(),
        server(),
        pools(),
        sessions(),
    ];
    parts.into_iter().flatten().collect()
}

fn query() -> Vec<Operation> {
    fn prepared(world: &World<'_>) -> Ask {
        let session = session(world);
        let name = fresh(world, "statement");
        let body = json!({ "name": name, "sql": "select 1" }).to_string();
        let headers = [("x-session-id", session.as_str()), ("content-type", "application/json")];
        let made = world.api.send("POST", "/api/v1/prepared", &headers, body.as_bytes());
        made.expect(201);
        let headers = vec![("x-session-id", session)];
        Ask { headers, ..Ask::at(format!("/api/v1/prepared/{name}")) }
    }
    vec![
        op("GET", "/api/v1/queries/active", |_| Ask::at("/api/v1/queries/active"), PAGE),
        op(
            "DELETE",
            "/api/v1/queries/{query_id}",
            |world| Ask::at(world.running()),
            &[Bad::Path("/api/v1/queries/x")],
        ),
        op("GET", "/api/v1/prepared", |_| Ask::at("/api/v1/prepared"), PAGE),
        op(
            "POST",
            "/api/v1/prepared",
            |world| {
                let body = json!({ "name": fresh(world, "statement"), "sql": "select 1" });
                let headers = vec![("x-session-id", session(world))];
                Ask { headers, ..Ask::with("/api/v1/prepared", body) }
            },
            BODY,
        ),
        op("GET", "/api/v1/prepared/{name}", prepared, &[Bad::Path("/api/v1/prepared/no_such")]),
        op("DELETE", "/api/v1/prepared/{name}", prepared, &[Bad::Path("/api/v1/prepared/no_such")]),
        op(
            "POST",
            "/api/v1/query",
            |_| Ask::with("/api/v1/query", json!({ "sql": "select 1" })),
            BODY,
        ),
        op(
            "POST",
            "/api/v1/batch",
            |_| Ask::with("/api/v1/batch", json!({ "statements": ["select 1"] })),
            BODY,
        ),
        op(
            "POST",
            "/api/v1/query/explain",
            |_| Ask::with("/api/v1/query/explain", json!({ "sql": "select 1" })),
            BODY,
        ),
        op(
            "GET",
            "/api/v1/jobs",
            |_| Ask::at("/api/v1/jobs"),
            &[Bad::Query("state=lost"), Bad::Query("limit=0")],
        ),
        op(
            "GET",
            "/api/v1/jobs/{job_id}",
            |world| Ask::at(format!("/api/v1/jobs/{}", world.job())),
            &[Bad::Path("/api/v1/jobs/x")],
        ),
        op(
            "DELETE",
            "/api/v1/jobs/{job_id}",
            |world| Ask::at(format!("/api/v1/jobs/{}", world.job())),
            &[Bad::Path("/api/v1/jobs/x")],
        ),
    ]
}

/// A session of the API.
fn session(world: &World<'_>) -> String {
    let made = world.api.post("/api/v1/sessions", json!({})).expect(201);
    let id = &made["session_id"];
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// A name that nothing has yet.
fn fresh(world: &World<'_>, what: &str) -> String {
    let sql = "select md5(random()::text) as word";
    format!("{what}_{}", &world.sql(sql)[0]["word"].as_str().unwrap()[..8])
}

pub fn made(world: &World<'_>, kind: &str, rest: &str) -> String {
    let name = fresh(world, "made");
    world.sql(&format!("create {kind} {name} {rest}"));
    name
}

fn tables() -> Vec<Operation> {
    const TABLE: &[Bad] = &[Bad::Path("/api/v1/tables/no_such_table")];
    vec![
        op("GET", "/api/v1/tables", |_| Ask::at("/api/v1/tables"), PAGE),
        op(
            "POST",
            "/api/v1/tables",
            |world| {
                let name = fresh(world, "table");
                Ask::with(
                    "/api/v1/tables",
                    json!({ "name": name, "columns": [{ "name": "a", "type": "int" }] }),
                )
            },
            BODY,
        ),
        op(
            "POST",
            "/api/v1/tables/{name}",
            |world| {
                let name = fresh(world, "table");
                Ask::with(
                    format!("/api/v1/tables/{name}"),
                    json!({ "columns": [{ "name": "a", "type": "int" }] }),
                )
            },
            BODY,
        ),
        op("GET", "/api/v1/tables/{name}", |_| Ask::at("/api/v1/tables/walked"), TABLE),
        op(
            "PUT",
            "/api/v1/tables/{name}",
            |world| {
                let name = made(world, "table", "(a int)");
                Ask::with(format!("/api/v1/tables/{name}"), json!({ "comment": "walked" }))
            },
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/tables/{name}",
            |world| Ask::at(format!("/api/v1/tables/{}", made(world, "table", "(a int)"))),
            TABLE,
        ),
        op(
            "GET",
            "/api/v1/tables/{name}/rows",
            |_| Ask::at("/api/v1/tables/walked/rows"),
            &[
                Bad::Query("limit=0"),
                Bad::Query("no_such_column=eq.1"),
                Bad::Path("/api/v1/tables/no_such_table/rows"),
            ],
        ),
        op(
            "POST",
            "/api/v1/tables/{name}/rows",
            |world| {
                let name = made(world, "table", "(a int primary key)");
                Ask::with(format!("/api/v1/tables/{name}/rows"), json!({ "a": 1 }))
            },
            BODY,
        ),
        op(
            "GET",
            "/api/v1/tables/{name}/rows/{id}",
            |_| Ask::at("/api/v1/tables/walked/rows/1"),
            &[
                Bad::Path("/api/v1/tables/walked/rows/x"),
                Bad::Path("/api/v1/tables/walked/rows/99"),
            ],
        ),
        op(
            "PUT",
            "/api/v1/tables/{name}/rows/{id}",
            |_| Ask::with("/api/v1/tables/walked/rows/2", json!({ "b": "zwei" })),
            BODY,
        ),
        op(
            "PATCH",
            "/api/v1/tables/{name}/rows/{id}",
            |_| Ask::with("/api/v1/tables/walked/rows/2", json!({ "b": "deux" })),
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/tables/{name}/rows/{id}",
            |world| {
                world.sql("insert into walked values (9, 'nine') on conflict do nothing");
                Ask::at("/api/v1/tables/walked/rows/9")
            },
            &[Bad::Path("/api/v1/tables/walked/rows/99")],
        ),
        op("GET", "/rest/v1", |_| Ask::at("/rest/v1"), NOTHING),
        op(
            "GET",
            "/rest/v1/{table}",
            |_| Ask::at("/rest/v1/walked"),
            &[Bad::Query("a=near.1"), Bad::Path("/rest/v1/no_such")],
        ),
        op(
            "POST",
            "/rest/v1/{table}",
            |world| {
                let name = made(world, "table", "(a int primary key)");
                Ask::with(format!("/rest/v1/{name}"), json!({ "a": 1 }))
            },
            BODY,
        ),
        op(
            "PATCH",
            "/rest/v1/{table}",
            |_| Ask::with("/rest/v1/walked?a=eq.3", json!({ "b": "trois" })),
            BODY,
        ),
        op(
            "PUT",
            "/rest/v1/{table}",
            |_| Ask::with("/rest/v1/walked?a=eq.3", json!({ "a": 3, "b": "drei" })),
            BODY,
        ),
        op(
            "DELETE",
            "/rest/v1/{table}",
            |_| Ask::at("/rest/v1/walked?a=eq.8"),
            &[Bad::Query("a=near.1")],
        ),
        op(
            "OPTIONS",
            "/rest/v1/{table}",
            |_| Ask::at("/rest/v1/walked"),
            &[Bad::Path("/rest/v1/no_such")],
        )
        .open(),
        op(
            "GET",
            "/rest/v1/rpc/{function}",
            |_| Ask::at("/rest/v1/rpc/walked_twice?a=2"),
            &[Bad::Query("b=1"), Bad::Path("/rest/v1/rpc/no_such")],
        ),
        op(
            "POST",
            "/rest/v1/rpc/{function}",
            |_| Ask::with("/rest/v1/rpc/walked_twice", json!({ "a": 2 })),
            BODY,
        ),
        op("OPTIONS", "/rest/v1/rpc/{function}", |_| Ask::at("/rest/v1/rpc/walked_twice"), NOTHING)
            .open(),
    ]
}

fn schema() -> Vec<Operation> {
    vec![
        op(
            "GET",
            "/api/v1/schema",
            |_| Ask::at("/api/v1/schema"),
            &[Bad::Query("database=no_such")],
        ),
        op("GET", "/api/v1/schemas", |_| Ask::at("/api/v1/schemas"), PAGE),
        op(
            "GET",
            "/api/v1/schemas/{name}",
            |_| Ask::at("/api/v1/schemas/public"),
            &[Bad::Path("/api/v1/schemas/no_such")],
        ),
        op(
            "POST",
            "/api/v1/schemas",
            |world| Ask::with("/api/v1/schemas", json!({ "name": fresh(world, "schema") })),
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/schemas/{name}",
            |world| Ask::at(format!("/api/v1/schemas/{}", made(world, "schema", ""))),
            &[Bad::Path("/api/v1/schemas/no_such"), Bad::Query("cascade=perhaps")],
        ),
        op("GET", "/api/v1/sql/databases", |_| Ask::at("/api/v1/sql/databases"), PAGE),
        op(
            "POST",
            "/api/v1/sql/databases",
            |world| {
                Ask::with(
                    "/api/v1/sql/databases",
                    json!({ "name": fresh(world, "database"), "template": "template0" }),
                )
            },
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/sql/databases/{name}",
            |world| {
                Ask::at(format!(
                    "/api/v1/sql/databases/{}",
                    made(world, "database", "template template0")
                ))
            },
            &[Bad::Path("/api/v1/sql/databases/no_such")],
        ),
        op("GET", "/api/v1/sql/views", |_| Ask::at("/api/v1/sql/views"), PAGE),
        op(
            "POST",
            "/api/v1/sql/views",
            |world| {
                Ask::with(
                    "/api/v1/sql/views",
                    json!({ "name": fresh(world, "view"), "query": "select 1 as a" }),
                )
            },
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/sql/views/{name}",
            |world| {
                Ask::at(format!("/api/v1/sql/views/{}", made(world, "view", "as select 1 as a")))
            },
            &[Bad::Path("/api/v1/sql/views/no_such")],
        ),
        op("GET", "/api/v1/sql/indexes", |_| Ask::at("/api/v1/sql/indexes"), PAGE),
        op(
            "POST",
            "/api/v1/sql/indexes",
            |_| Ask::with("/api/v1/sql/indexes", json!({ "table": "walked", "columns": ["b"] })),
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/sql/indexes/{name}",
            |world| {
                Ask::at(format!("/api/v1/sql/indexes/{}", made(world, "index", "on walked (b)")))
            },
            &[Bad::Path("/api/v1/sql/indexes/no_such")],
        ),
        op("GET", "/api/v1/sql/procedures", |_| Ask::at("/api/v1/sql/procedures"), PAGE),
        op(
            "POST",
            "/api/v1/sql/procedures",
            |world| {
                Ask::with(
                    "/api/v1/sql/procedures",
                    json!({ "name": fresh(world, "routine"), "kind": "function",
                "language": "sql", "returns": "int", "body": "select 1" }),
                )
            },
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/sql/procedures/{name}",
            |world| {
                let name = fresh(world, "made");
                world.sql(&format!(
                    "create function {name}() returns int language sql as 'select 1'"
                ));
                Ask::at(format!("/api/v1/sql/procedures/{name}"))
            },
            &[Bad::Path("/api/v1/sql/procedures/no_such")],
        ),
        op(
            "POST",
            "/api/v1/sql/procedures/{name}/call",
            |_| Ask::with("/api/v1/sql/procedures/walked_twice/call", json!({ "arguments": [2] })),
            BODY,
        ),
    ]
}

fn transactions() -> Vec<Operation> {
    const LOST: &[Bad] =
        &[Bad::Path("/api/v1/transactions/1"), Bad::Path("/api/v1/transactions/x")];
    vec![
        op(
            "POST",
            "/api/v1/transactions",
            |_| Ask::with("/api/v1/transactions", json!({})),
            &[
                Bad::Body("{"),
                Bad::Body("{\"no_such_member\":1}"),
                Bad::Body("{\"isolation_level\":\"chaos\"}"),
            ],
        ),
        op("GET", "/api/v1/transactions", |_| Ask::at("/api/v1/transactions"), PAGE),
        op(
            "GET",
            "/api/v1/transactions/{id}",
            |world| Ask::at(format!("/api/v1/transactions/{}", world.transaction())),
            LOST,
        ),
        op(
            "POST",
            "/api/v1/transactions/{id}/commit",
            |world| Ask::at(format!("/api/v1/transactions/{}/commit", world.transaction())),
            &[
                Bad::Path("/api/v1/transactions/1/commit"),
                Bad::Path("/api/v1/transactions/x/commit"),
            ],
        ),
        op(
            "POST",
            "/api/v1/transactions/{id}/rollback",
            |world| Ask::at(format!("/api/v1/transactions/{}/rollback", world.transaction())),
            &[Bad::Path("/api/v1/transactions/1/rollback")],
        ),
        op(
            "POST",
            "/api/v1/transactions/{id}/savepoints",
            |world| {
                Ask::with(
                    format!("/api/v1/transactions/{}/savepoints", world.transaction()),
                    json!({ "name": "s" }),
                )
            },
            BODY,
        ),
        op(
            "GET",
            "/api/v1/transactions/{id}/savepoints",
            |world| Ask::at(format!("/api/v1/transactions/{}/savepoints", world.savepoint("s"))),
            &[Bad::Path("/api/v1/transactions/1/savepoints")],
        ),
        op(
            "POST",
            "/api/v1/transactions/{id}/savepoints/{name}/rollback",
            |world| {
                Ask::at(format!(
                    "/api/v1/transactions/{}/savepoints/s/rollback",
                    world.savepoint("s")
                ))
            },
            &[Bad::Path("/api/v1/transactions/1/savepoints/s/rollback")],
        ),
        op(
            "DELETE",
            "/api/v1/transactions/{id}/savepoints/{name}",
            |world| Ask::at(format!("/api/v1/transactions/{}/savepoints/s", world.savepoint("s"))),
            &[Bad::Path("/api/v1/transactions/1/savepoints/s")],
        ),
        op(
            "GET",
            "/api/v1/transactions/{id}/isolation",
            |world| Ask::at(format!("/api/v1/transactions/{}/isolation", world.transaction())),
            &[Bad::Path("/api/v1/transactions/1/isolation")],
        ),
        op(
            "PUT",
            "/api/v1/transactions/{id}/isolation",
            |world| {
                let level = json!({ "isolation_level": "serializable" });
                Ask::with(format!("/api/v1/transactions/{}/isolation", world.transaction()), level)
            },
            BODY,
        ),
        op("GET", "/api/v1/transactions/stats", |_| Ask::at("/api/v1/transactions/stats"), NOTHING),
        op(
            "GET",
            "/api/v1/transactions/prepared",
            |_| Ask::at("/api/v1/transactions/prepared"),
            PAGE,
        ),
        op(
            "POST",
            "/api/v1/transactions/{id}/prepare",
            |world| {
                let path = format!("/api/v1/transactions/{}/prepare", world.transaction());
                Ask::with(path, json!({ "gid": "walked" }))
            },
            BODY,
        ),
        op(
            "POST",
            "/api/v1/transactions/prepared/{gid}/commit",
            |world| {
                let gid = fresh(world, "gid");
                world.prepared(&gid);
                Ask::at(format!("/api/v1/transactions/prepared/{gid}/commit"))
            },
            &[Bad::Path("/api/v1/transactions/prepared/no_such/commit")],
        ),
        op(
            "POST",
            "/api/v1/transactions/prepared/{gid}/rollback",
            |world| {
                let gid = fresh(world, "gid");
                world.prepared(&gid);
                Ask::at(format!("/api/v1/transactions/prepared/{gid}/rollback"))
            },
            &[Bad::Path("/api/v1/transactions/prepared/no_such/rollback")],
        ),
        op("GET", "/api/v1/transactions/locks", |_| Ask::at("/api/v1/transactions/locks"), PAGE),
        op(
            "GET",
            "/api/v1/transactions/locks/waits",
            |_| Ask::at("/api/v1/transactions/locks/waits"),
            NOTHING,
        ),
        op(
            "DELETE",
            "/api/v1/transactions/locks/{lock_id}",
            |world| Ask::at(world.lock()),
            &[Bad::Path("/api/v1/transactions/locks/x")],
        ),
        op(
            "GET",
            "/api/v1/transactions/deadlocks",
            |_| Ask::at("/api/v1/transactions/deadlocks"),
            PAGE,
        ),
        op(
            "POST",
            "/api/v1/transactions/deadlocks/detect",
            |_| Ask::at("/api/v1/transactions/deadlocks/detect"),
            NOTHING,
        ),
    ]
}

fn auth() -> Vec<Operation> {
    fn bearer(world: &World<'_>, path: &str) -> Ask {
        let token = world.log_in()["access_token"].as_str().unwrap().to_owned();
        let headers = vec![("authorization", format!("Bearer {token}"))];
        Ask { headers, as_somebody_else: true, ..Ask::at(path) }
    }
    vec![
        op(
            "POST",
            "/api/v1/auth/login",
            |_| {
                let body = json!({ "username": "walker", "password": "walker-secret" });
                Ask::with("/api/v1/auth/login", body)
            },
            BODY,
        )
        .open(),
        op("POST", "/api/v1/auth/logout", |world| bearer(world, "/api/v1/auth/logout"), NOTHING),
        op(
            "POST",
            "/api/v1/auth/refresh",
            |world| {
                Ask::with(
                    "/api/v1/auth/refresh",
                    json!({ "refresh_token": world.log_in()["refresh_token"] }),
                )
            },
            BODY,
        )
        .open(),
        op("GET", "/api/v1/auth/validate", |_| Ask::at("/api/v1/auth/validate"), NOTHING),
        op(
            "POST",
            "/api/v1/auth/validate",
            |_| Ask::with("/api/v1/auth/validate", json!({ "token": "x" })),
            BODY,
        ),
        op("GET", "/api/v1/auth/ldap", |_| Ask::at("/api/v1/auth/ldap"), NOTHING).absent(),
        op("PUT", "/api/v1/auth/ldap", |_| Ask::with("/api/v1/auth/ldap", json!({})), NOTHING)
            .absent(),
        op("GET", "/api/v1/auth/oauth", |_| Ask::at("/api/v1/auth/oauth"), NOTHING).absent(),
        op("PUT", "/api/v1/auth/oauth", |_| Ask::with("/api/v1/auth/oauth", json!({})), NOTHING)
            .absent(),
        op("GET", "/api/v1/auth/sso", |_| Ask::at("/api/v1/auth/sso"), NOTHING).absent(),
        op("PUT", "/api/v1/auth/sso", |_| Ask::with("/api/v1/auth/sso", json!({})), NOTHING)
            .absent(),
        op(
            "GET",
            "/api/v1/auth/oauth/authorize",
            |_| Ask::at("/api/v1/auth/oauth/authorize"),
            NOTHING,
        )
        .open()
        .absent(),
        op(
            "GET",
            "/api/v1/auth/oauth/callback",
            |_| Ask::at("/api/v1/auth/oauth/callback?code=x"),
            NOTHING,
        )
        .open()
        .absent(),
        op("POST", "/api/v1/auth/saml/acs", |_| Ask::at("/api/v1/auth/saml/acs"), NOTHING)
            .open()
            .absent(),
        op(
            "POST",
            "/api/v1/auth/mfa/verify",
            |_| Ask::with("/api/v1/auth/mfa/verify", json!({ "challenge_id": "x", "code": "1" })),
            NOTHING,
        )
        .open()
        .absent(),
        op("GET", "/api/v1/auth/me", |_| Ask::at("/api/v1/auth/me"), NOTHING),
        op(
            "GET",
            "/api/v1/auth/csrf",
            |world| {
                let headers = vec![("cookie", world.cookie())];
                Ask { headers, as_somebody_else: true, ..Ask::at("/api/v1/auth/csrf") }
            },
            NOTHING,
        ),
        op("GET", "/api/v1/auth/api-keys", |_| Ask::at("/api/v1/auth/api-keys"), PAGE),
        op(
            "POST",
            "/api/v1/auth/api-keys",
            |_| Ask::with("/api/v1/auth/api-keys", json!({ "name": "walked" })),
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/auth/api-keys/{key_id}",
            |world| {
                let made = world
                    .api
                    .post("/api/v1/auth/api-keys", json!({ "name": "walked" }))
                    .expect(201);
                Ask::at(format!("/api/v1/auth/api-keys/{}", made["key_id"].as_str().unwrap()))
            },
            &[Bad::Path("/api/v1/auth/api-keys/x")],
        ),
    ]
}

fn admin() -> Vec<Operation> {
    fn user(world: &World<'_>) -> String {
        let name = fresh(world, "user");
        let body = json!({ "username": name, "password": "a-long-secret" });
        world.api.post("/api/v1/admin/users", body).expect(201);
        format!("/api/v1/admin/users/{name}")
    }
    fn role(world: &World<'_>) -> String {
        let name = fresh(world, "role");
        world.api.post("/api/v1/admin/roles", json!({ "name": name })).expect(201);
        format!("/api/v1/admin/roles/{name}")
    }
    vec![
        op("GET", "/api/v1/admin/config", |_| Ask::at("/api/v1/admin/config"), NOTHING),
        op(
            "PUT",
            "/api/v1/admin/config",
            |_| Ask::with("/api/v1/admin/config", json!({ "api.max_page_size": 999 })),
            BODY,
        ),
        op(
            "POST",
            "/api/v1/admin/backup",
            |world| {
                Ask::with(
                    "/api/v1/admin/backup",
                    json!({ "type": "logical", "destination": fresh(world, "backup") }),
                )
            },
            BODY,
        ),
        op(
            "POST",
            "/api/v1/admin/maintenance",
            |_| {
                Ask::with(
                    "/api/v1/admin/maintenance",
                    json!({ "operation": "analyze", "target": "walked" }),
                )
            },
            BODY,
        ),
        op("GET", "/api/v1/admin/users", |_| Ask::at("/api/v1/admin/users"), PAGE),
        op(
            "POST",
            "/api/v1/admin/users",
            |world| {
                Ask::with(
                    "/api/v1/admin/users",
                    json!({ "username": fresh(world, "user"), "password": "a-long-secret" }),
                )
            },
            BODY,
        ),
        op(
            "GET",
            "/api/v1/admin/users/{username}",
            |_| Ask::at("/api/v1/admin/users/walker"),
            &[Bad::Path("/api/v1/admin/users/no_such")],
        ),
        op(
            "PUT",
            "/api/v1/admin/users/{username}",
            |world| Ask::with(user(world), json!({ "email": "a@b" })),
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/admin/users/{username}",
            |world| Ask::at(user(world)),
            &[Bad::Path("/api/v1/admin/users/no_such")],
        ),
        op("GET", "/api/v1/admin/roles", |_| Ask::at("/api/v1/admin/roles"), PAGE),
        op(
            "POST",
            "/api/v1/admin/roles",
            |world| {
                Ask::with(
                    "/api/v1/admin/roles",
                    json!({ "name": fresh(world, "role"), "permissions": ["read:tables"] }),
                )
            },
            BODY,
        ),
        op(
            "GET",
            "/api/v1/admin/roles/{role_name}",
            |_| Ask::at("/api/v1/admin/roles/walked_role"),
            &[Bad::Path("/api/v1/admin/roles/no_such")],
        ),
        op(
            "PUT",
            "/api/v1/admin/roles/{role_name}",
            |world| Ask::with(role(world), json!({ "permissions": ["read:tables"] })),
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/admin/roles/{role_name}",
            |world| Ask::at(role(world)),
            &[Bad::Path("/api/v1/admin/roles/no_such")],
        ),
        op("GET", "/api/v1/admin/extensions", |_| Ask::at("/api/v1/admin/extensions"), PAGE),
        op(
            "POST",
            "/api/v1/admin/extensions",
            |world| {
                // One that is always there.
                world.sql("drop extension if exists plpgsql cascade");
                Ask::with("/api/v1/admin/extensions", json!({ "name": "plpgsql" }))
            },
            BODY,
        ),
        op(
            "DELETE",
            "/api/v1/admin/extensions/{name}",
            |world| {
                world.sql("create extension if not exists plpgsql");
                Ask::at("/api/v1/admin/extensions/plpgsql")
            },
            &[Bad::Path("/api/v1/admin/extensions/no_such")],
        ),
        op("POST", "/api/v1/admin/reload", |_| Ask::at("/api/v1/admin/reload"), NOTHING),
    ]
}

fn server() -> Vec<Operation> {
    vec![
        op("GET", "/api/v1/config", |_| Ask::at("/api/v1/config"), NOTHING),
        op("GET", "/api/v1/info", |_| Ask::at("/api/v1/info"), NOTHING),
        op("GET", "/api/v1/health", |_| Ask::at("/api/v1/health"), NOTHING).open(),
        op(
            "GET",
            "/api/v1/monitoring/prometheus",
            |_| Ask::at("/api/v1/monitoring/prometheus"),
            NOTHING,
        ),
        op("GET", "/api/v1/openapi.json", |_| Ask::at("/api/v1/openapi.json"), NOTHING).open(),
        op("GET", "/swagger-ui/", |_| Ask::at("/swagger-ui/"), NOTHING).open(),
        op("GET", "/redoc/", |_| Ask::at("/redoc/"), NOTHING).open(),
        op("GET", "/health/live", |_| Ask::at("/health/live"), NOTHING).open(),
        op("GET", "/health/ready", |_| Ask::at("/health/ready"), NOTHING).open(),
        op("GET", "/health/startup", |_| Ask::at("/health/startup"), NOTHING).open(),
    ]
}

fn pools() -> Vec<Operation> {
    fn connection(world: &World<'_>) -> String {
        let list = world.api.get("/api/v1/connections?pool_id=main").expect(200);
        format!("/api/v1/connections/{}", list["items"][0]["connection_id"].as_str().unwrap())
    }
    const LOST: &[Bad] = &[Bad::Path("/api/v1/pools/no_such")];
    vec![
        op("GET", "/api/v1/pools", |_| Ask::at("/api/v1/pools"), PAGE),
        op("GET", "/api/v1/pools/{id}", |_| Ask::at("/api/v1/pools/main"), LOST),
        op(
            "PUT",
            "/api/v1/pools/{id}",
            |_| Ask::with("/api/v1/pools/main", json!({ "max_size": 50 })),
            BODY,
        ),
        op(
            "GET",
            "/api/v1/pools/{id}/stats",
            |_| Ask::at("/api/v1/pools/main/stats"),
            &[Bad::Query("format=xml")],
        ),
        op(
            "POST",
            "/api/v1/pools/{id}/drain",
            |world| {
                // So that there is something to resume.
                world.api.post("/api/v1/pools/main/drain", json!({ "timeout_secs": 0 }));
                Ask::with("/api/v1/pools/main/drain", json!({ "resume": true }))
            },
            BODY,
        ),
        op(
            "GET",
            "/api/v1/pools/{id}/wait-queue",
            |_| Ask::at("/api/v1/pools/main/wait-queue"),
            &[Bad::Path("/api/v1/pools/no_such/wait-queue")],
        ),
        op(
            "GET",
            "/api/v1/pools/{id}/wait-queue/stats",
            |_| Ask::at("/api/v1/pools/main/wait-queue/stats"),
            &[Bad::Path("/api/v1/pools/no_such/wait-queue/stats")],
        ),
        op(
            "POST",
            "/api/v1/pools/{id}/wait-queue/clear",
            |_| Ask::at("/api/v1/pools/main/wait-queue/clear"),
            &[Bad::Path("/api/v1/pools/no_such/wait-queue/clear")],
        ),
        op(
            "GET",
            "/api/v1/pools/{id}/lifecycle/policy",
            |_| Ask::at("/api/v1/pools/main/lifecycle/policy"),
            &[Bad::Path("/api/v1/pools/no_such/lifecycle/policy")],
        ),
        op(
            "PUT",
            "/api/v1/pools/{id}/lifecycle/policy",
            |_| {
                Ask::with(
                    "/api/v1/pools/main/lifecycle/policy",
                    json!({ "idle_timeout_secs": 300 }),
                )
            },
            BODY,
        ),
        op(
            "POST",
            "/api/v1/pools/{id}/lifecycle/recycle",
            |_| Ask::with("/api/v1/pools/main/lifecycle/recycle", json!({})),
            &[Bad::Body("{"), Bad::Body("{\"no_such_member\":1}")],
        ),
        op(
            "GET",
            "/api/v1/pools/{id}/lifecycle/stats",
            |_| Ask::at("/api/v1/pools/main/lifecycle/stats"),
            &[Bad::Path("/api/v1/pools/no_such/lifecycle/stats")],
        ),
        op(
            "GET",
            "/api/v1/pools/{id}/leaks",
            |_| Ask::at("/api/v1/pools/main/leaks"),
            &[Bad::Path("/api/v1/pools/no_such/leaks")],
        ),
        op(
            "POST",
            "/api/v1/pools/{id}/leaks/clear",
            |_| Ask::with("/api/v1/pools/main/leaks/clear", json!({})),
            &[Bad::Body("{"), Bad::Body("{\"no_such_member\":1}")],
        ),
        op("GET", "/api/v1/connections", |_| Ask::at("/api/v1/connections"), PAGE),
        op(
            "GET",
            "/api/v1/connections/{id}",
            |world| Ask::at(connection(world)),
            &[Bad::Path("/api/v1/connections/x")],
        ),
        op(
            "DELETE",
            "/api/v1/connections/{id}",
            |world| Ask::at(connection(world)),
            &[Bad::Path("/api/v1/connections/x")],
        ),
        op(
            "POST",
            "/api/v1/pools",
            |_| Ask::with("/api/v1/pools", json!({ "name": "x" })),
            NOTHING,
        )
        .absent(),
        op("DELETE", "/api/v1/pools/{id}", |_| Ask::at("/api/v1/pools/main"), LOST).refused(),
        op(
            "GET",
            "/api/v1/pools/{id}/partitions",
            |_| Ask::at("/api/v1/pools/main/partitions"),
            NOTHING,
        )
        .absent(),
        op(
            "POST",
            "/api/v1/pools/{id}/partitions",
            |_| Ask::with("/api/v1/pools/main/partitions", json!({})),
            NOTHING,
        )
        .absent(),
        op(
            "GET",
            "/api/v1/pools/{id}/partitions/{name}",
            |_| Ask::at("/api/v1/pools/main/partitions/x"),
            NOTHING,
        )
        .absent(),
        op(
            "PUT",
            "/api/v1/pools/{id}/partitions/{name}",
            |_| Ask::with("/api/v1/pools/main/partitions/x", json!({})),
            NOTHING,
        )
        .absent(),
        op(
            "DELETE",
            "/api/v1/pools/{id}/partitions/{name}",
            |_| Ask::at("/api/v1/pools/main/partitions/x"),
            NOTHING,
        )
        .absent(),
        op(
            "GET",
            "/api/v1/pools/{id}/partitions/{name}/stats",
            |_| Ask::at("/api/v1/pools/main/partitions/x/stats"),
            NOTHING,
        )
        .absent(),
    ]
}

fn sessions() -> Vec<Operation> {
    fn of(world: &World<'_>, rest: &str) -> String {
        format!("/api/v1/sessions/{}{rest}", session(world))
    }
    vec![
        op("GET", "/api/v1/sessions", |_| Ask::at("/api/v1/sessions"), PAGE),
        op("POST", "/api/v1/sessions", |_| Ask::with("/api/v1/sessions", json!({})), BODY),
        op(
            "GET",
            "/api/v1/sessions/{id}",
            |world| Ask::at(of(world, "")),
            &[Bad::Path("/api/v1/sessions/x")],
        ),
        op(
            "DELETE",
            "/api/v1/sessions/{id}",
            |world| Ask::at(of(world, "")),
            &[Bad::Path("/api/v1/sessions/x")],
        ),
        op(
            "GET",
            "/api/v1/sessions/{id}/resources",
            |world| Ask::at(of(world, "/resources")),
            &[Bad::Path("/api/v1/sessions/x/resources")],
        ),
        op(
            "PUT",
            "/api/v1/sessions/{id}/resources/limits",
            |world| Ask::with(of(world, "/resources/limits"), json!({ "max_parallel_queries": 1 })),
            BODY,
        ),
        op(
            "POST",
            "/api/v1/sessions/{id}/resources/reset",
            |world| Ask::at(of(world, "/resources/reset")),
            &[Bad::Path("/api/v1/sessions/x/resources/reset")],
        ),
        op(
            "GET",
            "/api/v1/sessions/{id}/auth",
            |world| Ask::at(of(world, "/auth")),
            &[Bad::Path("/api/v1/sessions/x/auth")],
        ),
        op(
            "POST",
            "/api/v1/sessions/{id}/auth/refresh",
            |world| Ask::at(of(world, "/auth/refresh")),
            &[Bad::Path("/api/v1/sessions/x/auth/refresh")],
        ),
        op(
            "GET",
            "/api/v1/sessions/{id}/privileges",
            |world| Ask::at(of(world, "/privileges")),
            &[Bad::Path("/api/v1/sessions/x/privileges")],
        ),
        op(
            "GET",
            "/api/v1/sessions/{id}/events",
            |world| Ask::at(of(world, "/events")),
            &[Bad::Path("/api/v1/sessions/x/events")],
        ),
        op(
            "POST",
            "/api/v1/sessions/{id}/events/trigger",
            |world| Ask::with(of(world, "/events/trigger"), json!({ "event": "kill" })),
            BODY,
        ),
        op(
            "GET",
            "/api/v1/sessions/{id}/callbacks",
            |world| Ask::at(of(world, "/callbacks")),
            &[Bad::Path("/api/v1/sessions/x/callbacks")],
        ),
        op(
            "GET",
            "/api/v1/sessions/{id}/state",
            |world| Ask::at(of(world, "/state")),
            &[Bad::Path("/api/v1/sessions/x/state")],
        ),
        op(
            "PUT",
            "/api/v1/sessions/{id}/state",
            |world| {
                Ask::with(of(world, "/state"), json!({ "settings": { "search_path": "public" } }))
            },
            BODY,
        ),
        op(
            "POST",
            "/api/v1/sessions/{id}/state/snapshot",
            |world| Ask::with(of(world, "/state/snapshot"), json!({})),
            &[Bad::Body("{"), Bad::Body("{\"no_such_member\":1}")],
        ),
        op(
            "POST",
            "/api/v1/sessions/{id}/state/restore",
            |world| {
                let id = session(world);
                let path = format!("/api/v1/sessions/{id}/state");
                let snapshot = world.api.post(&format!("{path}/snapshot"), json!({}));
                let body = json!({ "snapshot_id": snapshot.json["snapshot_id"] });
                Ask::with(format!("{path}/restore"), body)
            },
            BODY,
        ),
    ]
}

/// There, and no part of the description: pages for people.
pub const NOT_DESCRIBED: &str = "
GET /swagger-ui/
GET /redoc/
";

/// What there is to be.
pub const APPENDIX: &str = "
GET /api/v1/jobs
GET /api/v1/jobs/{job_id}
DELETE /api/v1/jobs/{job_id}
POST /api/v1/query
POST /api/v1/batch
POST /api/v1/query/explain
GET /api/v1/queries/active
DELETE /api/v1/queries/{query_id}
POST /api/v1/prepared
GET /api/v1/prepared/{name}
DELETE /api/v1/prepared/{name}
GET /api/v1/tables
POST /api/v1/tables
GET /api/v1/tables/{name}
PUT /api/v1/tables/{name}
DELETE /api/v1/tables/{name}
GET /api/v1/tables/{name}/rows
POST /api/v1/tables/{name}/rows
GET /api/v1/tables/{name}/rows/{id}
PUT /api/v1/tables/{name}/rows/{id}
DELETE /api/v1/tables/{name}/rows/{id}
GET /api/v1/schema
GET /api/v1/schemas
GET /api/v1/schemas/{name}
POST /api/v1/schemas
DELETE /api/v1/schemas/{name}
GET /api/v1/sql/databases
POST /api/v1/sql/databases
DELETE /api/v1/sql/databases/{name}
GET /api/v1/sql/views
POST /api/v1/sql/views
DELETE /api/v1/sql/views/{name}
GET /api/v1/sql/indexes
POST /api/v1/sql/indexes
DELETE /api/v1/sql/indexes/{name}
GET /api/v1/sql/procedures
POST /api/v1/sql/procedures
POST /api/v1/sql/procedures/{name}/call
GET /api/v1/config
GET /api/v1/health
GET /api/v1/monitoring/prometheus
GET /api/v1/info
GET /api/v1/openapi.json
GET /swagger-ui/
GET /redoc/
POST /api/v1/transactions
GET /api/v1/transactions
GET /api/v1/transactions/{id}
POST /api/v1/transactions/{id}/commit
POST /api/v1/transactions/{id}/rollback
POST /api/v1/transactions/{id}/savepoints
POST /api/v1/transactions/{id}/savepoints/{name}/rollback
GET /api/v1/transactions/{id}/savepoints
DELETE /api/v1/transactions/{id}/savepoints/{name}
GET /api/v1/transactions/{id}/isolation
PUT /api/v1/transactions/{id}/isolation
GET /api/v1/transactions/stats
GET /api/v1/transactions/prepared
POST /api/v1/transactions/{id}/prepare
POST /api/v1/transactions/prepared/{gid}/commit
POST /api/v1/transactions/prepared/{gid}/rollback
GET /api/v1/transactions/locks
GET /api/v1/transactions/locks/waits
DELETE /api/v1/transactions/locks/{lock_id}
GET /api/v1/transactions/deadlocks
POST /api/v1/transactions/deadlocks/detect
GET /health/live
GET /health/ready
GET /health/startup
POST /api/v1/auth/login
POST /api/v1/auth/logout
POST /api/v1/auth/refresh
GET /api/v1/auth/validate
POST /api/v1/auth/validate
GET /api/v1/auth/ldap
PUT /api/v1/auth/ldap
GET /api/v1/auth/oauth
PUT /api/v1/auth/oauth
GET /api/v1/auth/sso
PUT /api/v1/auth/sso
GET /api/v1/auth/oauth/authorize
GET /api/v1/auth/oauth/callback
POST /api/v1/auth/saml/acs
POST /api/v1/auth/mfa/verify
GET /api/v1/auth/me
GET /api/v1/auth/csrf
GET /api/v1/auth/api-keys
POST /api/v1/auth/api-keys
DELETE /api/v1/auth/api-keys/{key_id}
GET /api/v1/admin/config
PUT /api/v1/admin/config
POST /api/v1/admin/backup
POST /api/v1/admin/maintenance
GET /api/v1/admin/users
POST /api/v1/admin/users
GET /api/v1/admin/users/{username}
PUT /api/v1/admin/users/{username}
DELETE /api/v1/admin/users/{username}
GET /api/v1/admin/roles
POST /api/v1/admin/roles
GET /api/v1/admin/roles/{role_name}
PUT /api/v1/admin/roles/{role_name}
DELETE /api/v1/admin/roles/{role_name}
GET /api/v1/admin/extensions
POST /api/v1/admin/extensions
DELETE /api/v1/admin/extensions/{name}
POST /api/v1/admin/reload
GET /api/v1/pools
POST /api/v1/pools
DELETE /api/v1/pools/{id}
GET /api/v1/pools/{id}
PUT /api/v1/pools/{id}
GET /api/v1/pools/{id}/stats
POST /api/v1/pools/{id}/drain
GET /api/v1/pools/{id}/partitions
POST /api/v1/pools/{id}/partitions
GET /api/v1/pools/{id}/partitions/{name}
PUT /api/v1/pools/{id}/partitions/{name}
DELETE /api/v1/pools/{id}/partitions/{name}
GET /api/v1/pools/{id}/partitions/{name}/stats
GET /api/v1/pools/{id}/wait-queue
GET /api/v1/pools/{id}/wait-queue/stats
POST /api/v1/pools/{id}/wait-queue/clear
GET /api/v1/pools/{id}/lifecycle/policy
PUT /api/v1/pools/{id}/lifecycle/policy
POST /api/v1/pools/{id}/lifecycle/recycle
GET /api/v1/pools/{id}/lifecycle/stats
GET /api/v1/pools/{id}/leaks
POST /api/v1/pools/{id}/leaks/clear
GET /api/v1/connections
GET /api/v1/connections/{id}
DELETE /api/v1/connections/{id}
GET /api/v1/sessions
GET /api/v1/sessions/{id}
DELETE /api/v1/sessions/{id}
GET /api/v1/sessions/{id}/resources
PUT /api/v1/sessions/{id}/resources/limits
POST /api/v1/sessions/{id}/resources/reset
GET /api/v1/sessions/{id}/auth
POST /api/v1/sessions/{id}/auth/refresh
GET /api/v1/sessions/{id}/privileges
GET /api/v1/sessions/{id}/events
POST /api/v1/sessions/{id}/events/trigger
GET /api/v1/sessions/{id}/callbacks
GET /api/v1/sessions/{id}/state
PUT /api/v1/sessions/{id}/state
POST /api/v1/sessions/{id}/state/snapshot
POST /api/v1/sessions/{id}/state/restore
";
