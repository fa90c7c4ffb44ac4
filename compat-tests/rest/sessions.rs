//! Sessions: those of all doors are seen and ended; those opened over HTTP keep what is put there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Answer, Api, admin, role};
use crate::harness::shared::guarded;
use crate::harness::{SOON, Server, eventually};

fn open(api: &Api<'_>, body: Value) -> Value {
    let made = api.post("/api/v1/sessions", body).expect(201);
    assert_eq!((&made["is_open"], &made["protocol"]), (&true.into(), &"http".into()));
    made["session_id"].clone()
}

fn at(session: &Value, rest: &str) -> String {
    format!("/api/v1/sessions/{session}{rest}")
}

fn query(api: &Api<'_>, session: &Value, sql: &str) -> Answer {
    let number = session.to_string();
    let headers = [("x-session-id", number.as_str()), ("content-type", "application/json")];
    api.send("POST", "/api/v1/query", &headers, json!({ "sql": sql }).to_string().as_bytes())
}

#[test]
fn a_session_is_opened_looked_at_and_ended() {
    let api = admin();
    let session = open(&api, json!({ "name": "mine", "settings": { "work_mem": "3MB" } }));
    let shown = query(&api, &session, "show work_mem").expect(200);
    assert_eq!(shown["rows"], json!([{ "work_mem": "3MB" }]));
    let found = api.get(&at(&session, "")).expect(200);
    assert_eq!((&found["name"], &found["state"]), (&"mine".into(), &"idle".into()));
    assert_eq!(found["details"]["settings"], json!({ "work_mem": "3MB" }));
    assert!(found["connection_id"].as_str().unwrap().starts_with("main-"), "{found}");
    assert!(found["queries"].as_u64() >= Some(2) && found["last_activity"].is_string());
    query(&api, &session, "begin").expect(200);
    let found = api.get(&at(&session, "")).expect(200);
    assert_eq!(
        (&found["state"], &found["details"]["transaction"]),
        (&"active".into(), &"open".into())
    );
    api.get("/api/v1/sessions?state=bogus").refused(400, "VALIDATION_ERROR");
    let list = api.get("/api/v1/sessions?limit=1000&user=rustydb&state=active").expect(200);
    let ids = |list: &Value| -> Vec<Value> {
        list["items"].as_array().unwrap().iter().map(|s| s["session_id"].clone()).collect()
    };
    assert!(ids(&list).contains(&session));
    assert_eq!(api.get("/api/v1/pool/sessions").header("deprecation"), "true");

    let auth = api.get(&at(&session, "/auth")).expect(200);
    assert_eq!((&auth["method"], &auth["principal"]), (&"password".into(), &"rustydb".into()));
    assert!(auth["roles"].as_array().unwrap().contains(&"admin".into()), "{auth}");
    api.post(&at(&session, "/auth/refresh"), json!(null)).expect(200);
    let may = api.get(&at(&session, "/privileges")).expect(200);
    assert_eq!(may["postgresql"]["superuser"], true);
    assert!(may["permissions"].as_array().unwrap().contains(&"*:*".into()), "{may}");

    let ended = api.delete(&at(&session, "")).expect(200);
    assert_eq!(ended, json!({ "session_id": session, "state": "terminated" }));
    eventually("it has ended", SOON, || api.get(&at(&session, "")).status == 404);
    query(&api, &session, "select 1").refused(404, "NOT_FOUND");
    for (body, status) in [
        (json!({ "settings": { "no_such_setting": "1" } }), 400),
        (json!({ "settings": { "work_mem": "much" } }), 400),
        (json!({ "database": "no_such_database" }), 404),
        (json!({ "name": "x".repeat(129) }), 400),
        (json!({ "nam": "x" }), 400),
    ] {
        assert_eq!(api.post("/api/v1/sessions", body.clone()).status, status, "{body}");
    }
}

#[test]
fn a_session_is_its_owners() {
    let (api, owner) = (admin(), role("session_owner"));
    let stranger = role("session_stranger");
    let session = open(&owner, json!({}));
    for rest in ["", "/state", "/auth", "/privileges", "/events", "/resources"] {
        stranger.get(&at(&session, rest)).refused(404, "NOT_FOUND");
        owner.get(&at(&session, rest)).expect(200);
    }
    stranger.delete(&at(&session, "")).refused(404, "NOT_FOUND");
    let trigger = |api: &Api<'_>, event: &str| {
        api.post(&at(&session, "/events/trigger"), json!({ "event": event }))
    };
    trigger(&stranger, "kill").refused(404, "NOT_FOUND");
    query(&stranger, &session, "select 1").refused(404, "NOT_FOUND");
    let seen = stranger.get("/api/v1/sessions?limit=1000").expect(200);
    let users = seen["items"].as_array().unwrap().iter().map(|s| s["user"].as_str().unwrap());
    assert!(users.clone().all(|user| user == "session_stranger"), "{seen}");

    // An administrator sees it and may end it, but does not work in it.
    let found = api.get(&at(&session, "")).expect(200);
    assert_eq!((&found["user"], &found["details"]), (&"session_owner".into(), &Value::Null));
    query(&api, &session, "select 1").refused(404, "NOT_FOUND");
    assert_eq!(api.get(&at(&session, "/state")).expect(200)["transaction"], "none");
    let limits = json!({ "max_memory_mb": 7 });
    let limited = api.put(&at(&session, "/resources/limits"), limits.clone()).expect(200);
    assert_eq!(limited["limits"], limits);
    let monitor = json!({ "username": "session_monitor", "password": "session_monitor-pass",
        "roles": ["monitor"] });
    api.post("/api/v1/admin/users", monitor).expect(201);
    let monitor = Api::of(guarded(), "session_monitor", "session_monitor-pass");
    monitor.get(&at(&session, "")).expect(200);
    monitor.get(&at(&session, "/state")).refused(403, "AUTHORIZATION_FAILED");
    let events = api.get(&at(&session, "/events")).expect(200);
    assert_eq!(events["items"][0]["event"], "created");
    trigger(&stranger, "suspend").refused(404, "NOT_FOUND");
    trigger(&owner, "login").refused(501, "NOT_SUPPORTED");
    let callbacks = owner.get(&at(&session, "/callbacks")).expect(200);
    assert_eq!(callbacks["callbacks"]["login"], json!([]));
    stranger.get(&at(&session, "/callbacks")).refused(404, "NOT_FOUND");
    trigger(&owner, "party").refused(400, "VALIDATION_ERROR");
    assert_eq!(trigger(&api, "kill").expect(200)["state"], "killed");
    eventually("it has ended", SOON, || query(&owner, &session, "select 1").status == 404);
}

#[test]
fn a_session_of_another_door_is_seen_and_ended() {
    let api = admin();
    let server = guarded();
    let sleep = std::thread::spawn(move || server.psql("select 'at_the_door', pg_sleep(60)"));
    let mut session = Value::Null;
    eventually("it is seen", Duration::from_secs(20), || {
        let list = api.get("/api/v1/sessions?limit=1000&state=active").expect(200);
        let is_psql = |s: &&Value| s["protocol"] == "postgres" && s["application_name"] == "psql";
        let found = list["items"].as_array().unwrap().iter().find(is_psql).cloned();
        session = found.map_or(Value::Null, |found| found["session_id"].clone());
        !session.is_null()
    });
    api.get(&at(&session, "/state")).refused(501, "NOT_SUPPORTED");
    api.post(&at(&session, "/state/snapshot"), json!({})).refused(501, "NOT_SUPPORTED");
    api.put(&at(&session, "/resources/limits"), json!({ "max_memory_mb": 7 }))
        .refused(501, "NOT_SUPPORTED");
    query(&api, &session, "select 1").refused(409, "CONFLICT");
    api.post(&at(&session, "/events/trigger"), json!({ "event": "suspend" }))
        .refused(501, "NOT_SUPPORTED");
    let used = api.get(&at(&session, "/resources")).expect(200);
    assert!(used["backend"]["memory_bytes"].as_u64() > Some(0), "{used}");
    assert_eq!(api.delete(&at(&session, "?force=true")).expect(200)["state"], "killed");
    let psql = sleep.join().unwrap();
    assert!(psql.stderr.contains("administrator command"), "{}", psql.stderr);
}

#[test]
fn state_is_changed_taken_and_restored() {
    let api = admin();
    let session = open(&api, json!({}));
    let state = |session: &Value| api.get(&at(session, "/state")).expect(200);
    assert_eq!(state(&session)["settings"], json!({}));
    let put = |body: Value| api.put(&at(&session, "/state"), body);
    let changed = put(json!({
        "settings": { "search_path": "pg_catalog, public", "app.user": "it's" },
        "variables": { "theme": { "dark": true }, "n": 1 },
    }));
    let changed = changed.expect(200);
    assert_eq!(changed["search_path"], "pg_catalog, public");
    assert_eq!(changed["variables"], json!({ "n": 1, "theme": { "dark": true } }));
    let read = query(&api, &session, "select current_setting('app.user') as u").expect(200);
    assert_eq!(read["rows"], json!([{ "u": "it's" }]));
    // All of it, or nothing.
    put(json!({ "settings": { "work_mem": "5MB", "no_such": "1" }, "variables": { "n": 2 } }))
        .refused(400, "VALIDATION_ERROR");
    let now = state(&session);
    assert_eq!((&now["variables"]["n"], &now["settings"]["work_mem"]), (&1.into(), &Value::Null));
    put(json!({ "tag": "x=y" })).refused(501, "NOT_SUPPORTED");
    put(json!({ "variables": { "n": "x".repeat(300_000) } })).refused(409, "LIMIT_REACHED");

    let number = session.to_string();
    let headers = [("x-session-id", number.as_str()), ("content-type", "application/json")];
    let prepared = json!({ "name": "p", "sql": "select 1 as one" }).to_string();
    api.send("POST", "/api/v1/prepared", &headers, prepared.as_bytes()).expect(201);
    let taken = api.post(&at(&session, "/state/snapshot"), json!({ "name": "s" })).expect(201);
    assert_eq!((&taken["settings"], &taken["prepared_statements"]), (&2.into(), &1.into()));

    let other = open(&api, json!({ "settings": { "work_mem": "9MB" } }));
    let restore = json!({ "snapshot_id": taken["snapshot_id"] });
    let restored = api.post(&at(&other, "/state/restore"), restore.clone()).expect(200);
    assert_eq!(restored["settings"]["app.user"], "it's");
    assert_eq!(
        (&restored["settings"]["work_mem"], &restored["prepared_statements"]),
        (&Value::Null, &json!(["p"]))
    );
    assert_eq!(restored["variables"], now["variables"]);
    let number = other.to_string();
    let headers = [("x-session-id", number.as_str()), ("content-type", "application/json")];
    let run = api.send("POST", "/api/v1/query", &headers, br#"{"prepared":"p"}"#).expect(200);
    assert_eq!(run["rows"], json!([{ "one": 1 }]));
    let stranger = role("state_stranger");
    let theirs = open(&stranger, json!({}));
    stranger.post(&at(&theirs, "/state/restore"), restore).refused(404, "NOT_FOUND");
    let events = api.get(&at(&other, "/events")).expect(200);
    let words: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| &e["event"]).collect();
    assert!(words.contains(&&"restore".into()), "{words:?}");
}

#[test]
fn settings_that_nobody_has_defined_are_restored() {
    let api = admin();
    let session = open(&api, json!({}));
    query(&api, &session, "set app.z = 'q'").expect(200);
    query(&api, &session, "select set_config('App.x', 'it''s', false)").expect(200);
    let state = api.get(&at(&session, "/state")).expect(200);
    assert_eq!(state["settings"], json!({ "app.z": "q", "app.x": "it's" }));
    let taken = api.post(&at(&session, "/state/snapshot"), json!({})).expect(201);
    let other = open(&api, json!({ "settings": { "app.other": "1" } }));
    let restore = json!({ "snapshot_id": taken["snapshot_id"] });
    let restored = api.post(&at(&other, "/state/restore"), restore).expect(200);
    assert_eq!(restored["settings"], state["settings"]);
    let sql = "select current_setting('app.z', true) as z, current_setting('app.other', true) as o";
    assert_eq!(query(&api, &other, sql).expect(200)["rows"], json!([{ "z": "q", "o": "" }]));
    // What was taken back with SQL is not there any more.
    query(&api, &other, "reset app.z").expect(200);
    assert_eq!(api.get(&at(&other, "/state")).expect(200)["settings"], json!({ "app.x": "it's" }));
}

#[test]
fn a_snapshot_may_hold_a_role() {
    let api = admin();
    role("snapshot_role");
    let session = open(&api, json!({}));
    query(&api, &session, "set temp_file_limit = '5MB'").expect(200);
    query(&api, &session, "set role snapshot_role").expect(200);
    let state = api.get(&at(&session, "/state")).expect(200);
    assert_eq!(state["settings"], json!({ "role": "snapshot_role", "temp_file_limit": "5MB" }));
    let taken = api.post(&at(&session, "/state/snapshot"), json!({})).expect(201);
    let restore = json!({ "snapshot_id": taken["snapshot_id"] });
    let other = open(&api, json!({}));
    for _ in 0..2 {
        let restored = api.post(&at(&other, "/state/restore"), restore.clone()).expect(200);
        assert_eq!(restored["settings"], state["settings"]);
    }
    let who = query(&api, &other, "select current_user::text as u").expect(200);
    assert_eq!(who["rows"], json!([{ "u": "snapshot_role" }]));
}

#[test]
fn the_state_of_a_failed_transaction() {
    let api = admin();
    let session = open(&api, json!({}));
    query(&api, &session, "begin").expect(200);
    query(&api, &session, "select 1/0").refused(400, "VALIDATION_ERROR");
    let state = api.get(&at(&session, "/state")).expect(200);
    assert_eq!((&state["transaction"], &state["settings"]), (&"failed".into(), &Value::Null));
    let found = api.get(&at(&session, "")).expect(200);
    assert_eq!(found["details"]["transaction"], "failed");
    let taken = api.post(&at(&session, "/state/snapshot"), json!({}));
    assert_eq!(taken.status, 409, "{}", taken.text);
    query(&api, &session, "rollback").expect(200);
    let state = api.get(&at(&session, "/state")).expect(200);
    assert_eq!((&state["transaction"], &state["settings"]), (&"none".into(), &json!({})));
}

#[test]
fn a_suspended_session_holds_nothing_and_comes_back() {
    let (api, owner) = (admin(), role("suspend_owner"));
    let session = open(&owner, json!({ "settings": { "work_mem": "3MB", "app.who": "me" } }));
    owner.put(&at(&session, "/state"), json!({ "variables": { "n": 1 } })).expect(200);
    let trigger = |api: &Api<'_>, event: &str| {
        api.post(&at(&session, "/events/trigger"), json!({ "event": event }))
    };
    trigger(&owner, "resume").refused(409, "CONFLICT");
    query(&owner, &session, "begin").expect(200);
    query(&owner, &session, "select 1/0").refused(400, "VALIDATION_ERROR");
    assert_eq!(trigger(&owner, "suspend").expect(200)["state"], "suspended");
    let found = owner.get(&at(&session, "")).expect(200);
    assert_eq!((&found["state"], &found["connection_id"]), (&"suspended".into(), &Value::Null));
    let list = owner.get("/api/v1/sessions?state=suspended").expect(200);
    assert_eq!(list["items"][0]["session_id"], session);
    query(&owner, &session, "select 1").refused(409, "CONFLICT");
    owner.get(&at(&session, "/state")).refused(409, "CONFLICT");
    trigger(&owner, "suspend").refused(409, "CONFLICT");
    assert_eq!(trigger(&api, "resume").expect(200)["state"], "idle");
    let state = owner.get(&at(&session, "/state")).expect(200);
    assert_eq!(state["settings"], json!({ "work_mem": "3MB", "app.who": "me" }));
    assert_eq!((&state["variables"]["n"], &state["transaction"]), (&1.into(), &"none".into()));
    let events = owner.get(&at(&session, "/events")).expect(200);
    let words: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| &e["event"]).collect();
    assert_eq!(words[2..], ["state", "query", "query", "suspend", "resume"]);
}

#[test]
fn resources_are_counted_and_limited() {
    let api = admin();
    let session = open(&api, json!({}));
    query(&api, &session, "select 1").expect(200);
    let used = api.get(&at(&session, "/resources")).expect(200);
    assert_eq!((&used["bytes_sent"], &used["cursors"]), (&Value::Null, &0.into()));
    assert_eq!(used["parallel_workers"], 0);
    let cursor = open(&api, json!({}));
    query(&api, &cursor, "begin").expect(200);
    query(&api, &cursor, "declare c cursor for select 1").expect(200);
    assert_eq!(api.get(&at(&cursor, "/resources")).expect(200)["cursors"], 1);
    assert_eq!((&used["queries"], &used["limits"]), (&2.into(), &json!({})));
    let reset = api.post(&at(&session, "/resources/reset"), json!(null)).expect(200);
    assert_eq!(reset["queries"], 0);
    let limit = |body: Value| api.put(&at(&session, "/resources/limits"), body);
    let limited =
        limit(json!({ "max_memory_mb": 7, "max_cpu_seconds": 1, "max_parallel_queries": 0,
        "max_io_bytes": 5000 }));
    assert_eq!(limited.expect(200)["limits"]["max_memory_mb"], 7);
    let sql = "select current_setting('work_mem') as m, current_setting('temp_file_limit') as t";
    assert_eq!(query(&api, &session, sql).expect(200)["rows"], json!([{ "m": "7MB", "t": "5kB" }]));
    query(&api, &session, "select pg_sleep(10)").refused(499, "CANCELLED");
    let limited = limit(json!({ "max_cpu_seconds": null })).expect(200);
    assert_eq!(limited["limits"]["max_cpu_seconds"], Value::Null);
    query(&api, &session, "select pg_sleep(1.5)").expect(200);
    limit(json!({ "max_open_cursors": 5 })).refused(501, "NOT_SUPPORTED");
    limit(json!({})).refused(400, "VALIDATION_ERROR");
    limit(json!({ "max_memory_mb": 0 })).refused(400, "VALIDATION_ERROR");
    let owner = role("limits_owner");
    let theirs = open(&owner, json!({}));
    let files = json!({ "max_io_bytes": 5000 });
    owner.put(&at(&theirs, "/resources/limits"), files).refused(403, "AUTHORIZATION_FAILED");
}

#[test]
fn one_role_does_not_take_all_the_sessions() {
    let server = Server::builder()
        .arg("--set=api.max_open_sessions=4")
        .arg("--set=api.max_open_sessions_per_role=2")
        .start();
    let api = Api::of(&server, "rustydb", &server.password);
    api.sql("create role many login password 'many-pass'");
    let many = Api::of(&server, "many", "many-pass");
    let open = |api: &Api<'_>| api.post("/api/v1/sessions", json!({}));
    let first = open(&many).expect(201)["session_id"].clone();
    open(&many).expect(201);
    let refused = open(&many);
    let limit = &refused.json["error"]["details"]["limit"];
    assert_eq!(limit, "api.max_open_sessions_per_role", "{}", refused.text);
    refused.refused(409, "LIMIT_REACHED");
    open(&api).expect(201);
    open(&api).expect(201);
    let refused = open(&api);
    assert_eq!(refused.json["error"]["details"]["limit"], "api.max_open_sessions");
    server.expect_metric("rustydb_api_open{what=\"session\"}", 4.0);
    let count = |limit: &str| {
        let labels = format!("limit=\"{limit}\",what=\"session\"");
        server.metric(&format!("rustydb_api_open_refused_total{{{labels}}}"))
    };
    assert_eq!(count("api.max_open_sessions_per_role"), 1.0);
    assert_eq!(count("api.max_open_sessions"), 1.0);
    many.delete(&at(&first, "")).expect(200);
    eventually("there is room", SOON, || open(&many).status == 201);
}
