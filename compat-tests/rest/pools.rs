//! Pools and their connections: seen, changed, drained, cleared.

use serde_json::{Value, json};

use crate::api::{Api, role};
use crate::harness::{SOON, Server, eventually, temp_dir};

fn as_admin(server: &Server) -> Api<'_> {
    Api::of(server, "rustydb", &server.password)
}

fn begin(api: &Api<'_>) -> Value {
    api.post("/api/v1/transactions", json!({})).expect(201)["transaction_id"].clone()
}

fn within(api: &Api<'_>, id: &Value, sql: &str) -> crate::api::Answer {
    api.post("/api/v1/query", json!({ "sql": sql, "transaction_id": id }))
}

#[test]
fn a_pool_is_seen_and_changed() {
    let dir = temp_dir();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[pool]\nmax_size = 10\n").unwrap();
    let server = Server::builder().arg(&format!("--config={}", file.display())).start();
    let api = as_admin(&server);
    api.sql("select 1");
    let pools = api.get("/api/v1/pools").expect(200);
    let ids: Vec<_> = pools["items"].as_array().unwrap().iter().map(|p| &p["pool_id"]).collect();
    assert_eq!(ids, ["main", "system"]);
    let main = &pools["items"][0];
    assert_eq!((&main["max_connections"], &main["state"]), (&10.into(), &"active".into()));
    assert!(main["total_connections"].as_u64() >= Some(1), "{main}");
    let put = |body: Value| api.put("/api/v1/pools/main", body);
    let changed =
        put(json!({ "max_size": 8, "min_size": 6, "validation_level": "query" })).expect(200);
    assert_eq!(changed["max_connections"], 8);
    let keys = &changed["configuration"];
    assert_eq!(keys["min_size"], json!({ "value": 6, "source": "runtime", "live": true }));
    assert_eq!(
        (&keys["validation_level"]["value"], &keys["initial_size"]["live"]),
        (&"query".into(), &false.into())
    );
    for (body, status) in [
        (json!({ "max_size": 5 }), 400),
        (json!({ "min_size": 2, "max_wait_queue_size": 0 }), 400),
        (json!({ "min_size": "many" }), 400),
        (json!({ "max_sise": 5 }), 400),
        (json!({ "initial_size": 1 }), 409),
        (json!({ "max_size": 100_000 }), 400),
        (json!({ "users": {} }), 400),
        (json!({}), 400),
    ] {
        assert_eq!(put(body.clone()).status, status, "{body}");
    }
    let now = api.get("/api/v1/pools/main").expect(200);
    assert_eq!(now["configuration"], changed["configuration"]);
    api.put("/api/v1/pools/system", json!({ "max_size": 5 })).refused(409, "CONFLICT");
    api.get("/api/v1/pools/other").refused(404, "NOT_FOUND");

    let stats = api.get("/api/v1/pools/main/stats").expect(200);
    assert!(stats["successful_acquisitions"].as_u64() > Some(0), "{stats}");
    assert!(stats["max_acquire_time_ms"].as_f64() > Some(0.0), "{stats}");
    let list = api.get("/api/v1/connections?pool_id=main").expect(200);
    let caches = list["items"].as_array().unwrap().iter().map(|c| &c["statement_cache"]);
    let used = |cache: &Value| cache["size"].as_u64() > Some(0) && cache["misses"] != 0;
    assert!(caches.clone().any(used), "{list}");
    assert!(caches.clone().all(|cache| cache["max_size"] == 100), "{list}");
    let csv = api.get("/api/v1/pools/main/stats?format=csv");
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<&str> = csv.text.lines().collect();
    assert_eq!(lines[0].split(',').count(), lines[1].split(',').count());
    let text = api.get("/api/v1/pools/system/stats?format=prometheus").text;
    assert!(text.contains("rustydb_pool_total_connections{pool=\"system\"}"), "{text}");
    assert!(!text.contains("pool=\"main\"") && !text.contains("rustydb_uptime"));
    api.get("/api/v1/pools/main/stats?format=xml").refused(400, "VALIDATION_ERROR");

    let policy = "/api/v1/pools/main/lifecycle/policy";
    let times =
        json!({ "max_lifetime_secs": 60, "idle_timeout_secs": null, "aging": "time_based" });
    let set = api.put(policy, times).expect(200);
    assert_eq!((&set["max_lifetime_secs"], &set["idle_timeout_secs"]), (&60.into(), &Value::Null));
    api.put(policy, json!({ "aging": "adaptive" })).refused(501, "NOT_SUPPORTED");
    assert_eq!(set["recycling"], "adaptive");
    assert_eq!(
        api.put(policy, json!({ "recycling": "replace" })).expect(200)["recycling"],
        "replace"
    );
    api.put(policy, json!({ "recycling": "slow" })).refused(400, "VALIDATION_ERROR");
    api.put(policy, json!({ "recycling": "fast" })).refused(501, "NOT_SUPPORTED");
    api.put(policy, json!({ "aging": "usage_based" })).refused(400, "VALIDATION_ERROR");
    let set = api.put(policy, json!({ "recycling": "adaptive", "max_uses": 3 })).expect(200);
    assert_eq!((&set["aging"], &set["max_uses"]), (&"usage_based".into(), &3.into()));
    (0..20).for_each(|_| drop(api.sql("select 1")));
    let lives = api.get("/api/v1/pools/main/lifecycle/stats").expect(200);
    assert!(lives["closed_by_reason"]["max_uses"].as_u64() >= Some(4), "{lives}");
    let set = api.put(policy, json!({ "aging": "time_based" })).expect(200);
    assert_eq!((&set["aging"], &set["max_uses"]), (&"time_based".into(), &Value::Null));
    for (method, path) in [
        ("POST", ""),
        ("GET", "/main/partitions"),
        ("POST", "/main/partitions"),
        ("PUT", "/main/partitions/p"),
        ("GET", "/main/partitions/p/stats"),
    ] {
        let path = format!("/api/v1/pools{path}");
        api.send(method, &path, &[], b"").refused(501, "NOT_SUPPORTED");
    }
    api.delete("/api/v1/pools/main").refused(409, "CONFLICT");
    api.delete("/api/v1/pools/system").refused(409, "CONFLICT");
    api.delete("/api/v1/pools/other").refused(404, "NOT_FOUND");
    for filter in ["state=bogus", "pool_id=bogus"] {
        let path = format!("/api/v1/connections?{filter}");
        api.get(&path).refused(400, "VALIDATION_ERROR");
    }
    let recycle = |body: Value| api.post("/api/v1/pools/main/lifecycle/recycle", body);
    assert!(recycle(json!({})).expect(200)["recycled"].as_u64() >= Some(1));
    recycle(json!({ "connection_ids": ["system-1"] })).refused(400, "VALIDATION_ERROR");
    recycle(json!({ "strategy": "fast" })).refused(501, "NOT_SUPPORTED");
    let lives = api.get("/api/v1/pools/main/lifecycle/stats").expect(200);
    assert!(lives["closed_by_reason"]["recycled"].as_u64() >= Some(1), "{lives}");
    assert!(lives["average_uses"].is_number(), "{lives}");
}

#[test]
fn pools_are_for_those_who_may() {
    let visitor = role("pool_visitor");
    for path in ["/pools", "/pools/main", "/pools/main/leaks", "/connections", "/connections/x"] {
        visitor.get(&format!("/api/v1{path}")).refused(403, "AUTHORIZATION_FAILED");
    }
    visitor
        .put("/api/v1/pools/main", json!({ "max_size": 1 }))
        .refused(403, "AUTHORIZATION_FAILED");
    visitor.delete("/api/v1/connections/main-1").refused(403, "AUTHORIZATION_FAILED");
    visitor.delete("/api/v1/pool/connections/main-1").refused(403, "AUTHORIZATION_FAILED");
}

#[test]
fn a_pool_is_drained_and_resumed() {
    let server = Server::start();
    let api = as_admin(&server);
    let id = begin(&api);
    let drain = |body: Value| api.post("/api/v1/pools/main/drain", body);
    let drained = drain(json!({ "timeout_secs": 1 })).expect(200);
    assert_eq!((&drained["remaining"], &drained["state"]), (&1.into(), &"draining".into()));
    // What has a connection goes on; nobody else gets one, but those who look are answered.
    within(&api, &id, "select 1").expect(200);
    let waiter = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| as_admin(&server).sql("select 1 as one"));
        eventually("it waits", SOON, || {
            let queue = api.get("/api/v1/pools/main/wait-queue").expect(200);
            queue["waiters"]["total"] == 1
        });
        let list = api.get("/api/v1/connections?pool_id=main&state=active").expect(200);
        assert_eq!(list["total"], 1);
        api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
        eventually("it is drained", SOON, || {
            drain(json!({ "timeout_secs": 0 })).expect(200)["state"] == "drained"
        });
        let resumed = drain(json!({ "resume": true })).expect(200);
        assert_eq!(resumed["state"], "active");
        waiter.join().unwrap()
    });
    assert_eq!(waiter, json!([{ "one": 1 }]));
    assert_eq!(drain(json!({ "resume": true })).expect(200)["state"], "active");
    drain(json!({ "timeout_secs": 3601 })).refused(400, "VALIDATION_ERROR");
}

#[test]
fn who_waits_is_seen_and_sent_away() {
    let server = Server::builder().arg("--set=pool.max_size=1").start();
    let api = as_admin(&server);
    let id = begin(&api);
    let refused = std::thread::scope(|scope| {
        let waiter =
            scope.spawn(|| as_admin(&server).post("/api/v1/query", json!({ "sql": "select 1" })));
        let queue = "/api/v1/pools/main/wait-queue";
        eventually("it waits", SOON, || {
            let queue = api.get(queue).expect(200);
            let first = &queue["waiters"]["items"][0];
            (first["position"] == 1 && first["user"] == "rustydb") && queue["mode"] == "fair"
        });
        let stats = api.get(&format!("{queue}/stats")).expect(200);
        assert_eq!((&stats["current_waiters"], &stats["max_waiters"]), (&1.into(), &1.into()));
        let cleared = api.post(&format!("{queue}/clear"), json!(null)).expect(200);
        assert_eq!(cleared["cleared"], 1);
        let refused = waiter.join().unwrap();
        let stats = api.get(&format!("{queue}/stats")).expect(200);
        assert_eq!((&stats["current_waiters"], &stats["rejected"]), (&0.into(), &1.into()));
        refused
    });
    assert_eq!(refused.header("retry-after"), "1");
    refused.refused(503, "POOL_EXHAUSTED");
    within(&api, &id, "select 1").expect(200);
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
    assert_eq!(api.sql("select 1 as one"), json!([{ "one": 1 }]));
}

/// Who waits for a connection longer than its request may take has run nothing.
#[test]
fn a_request_that_only_waited_is_not_said_to_have_run() {
    let server = Server::builder()
        .arg("--set=pool.max_size=1")
        .arg("--set=api.request_timeout_secs=2")
        .start();
    let api = as_admin(&server);
    let id = begin(&api);
    let impatient = json!({ "sql": "select 1", "timeout_ms": 300 });
    for (path, body) in [
        ("/api/v1/query", impatient.clone()),
        ("/api/v1/query", json!({ "sql": "select 1" })),
        ("/api/v1/batch", json!({ "statements": ["select 1"] })),
        ("/api/v1/query/explain", impatient),
    ] {
        let refused = api.post(path, body);
        assert!(!refused.header("retry-after").is_empty(), "{path}");
        assert!(!refused.text.contains("cancelled"), "{path} {}", refused.text);
        refused.refused(503, "POOL_EXHAUSTED");
    }
    let slow = json!({ "sql": "select pg_sleep(9)", "timeout_ms": 300, "transaction_id": id });
    api.post("/api/v1/query", slow).refused(504, "TIMEOUT");
}

#[test]
fn a_connection_is_closed_with_its_session() {
    let server = Server::start();
    let api = as_admin(&server);
    let id = begin(&api);
    let pid = api.get(&format!("/api/v1/transactions/{id}")).expect(200)["backend_pid"].clone();
    let list = api.get("/api/v1/connections?limit=1000&user=rustydb").expect(200);
    let mine = list["items"].as_array().unwrap().iter().find(|c| c["backend_pid"] == pid).unwrap();
    assert_eq!((&mine["state"], &mine["pool_id"]), (&"active".into(), &"main".into()));
    assert!(mine["session_id"].is_number() && mine["last_activity"].is_string(), "{mine}");
    let path = format!("/api/v1/connections/{}", mine["connection_id"].as_str().unwrap());
    let again = api.get(&path).expect(200);
    assert_eq!(
        (&again["created_at"], &again["borrow_count"]),
        (&mine["created_at"], &mine["borrow_count"])
    );
    assert!(mine["borrow_count"].as_u64() > Some(0), "{mine}");
    let rested = api.get("/api/v1/connections?pool_id=main&min_idle_time=3600").expect(200);
    assert_eq!(rested["total"], 0);
    assert_eq!(api.get("/api/v1/pool/connections").header("deprecation"), "true");

    assert_eq!(api.delete(&path).expect(200)["status"], "closed");
    api.get(&path).refused(404, "NOT_FOUND");
    eventually("its transaction is over", SOON, || within(&api, &id, "select 1").status == 404);
    // One that nobody uses.
    api.sql("select 1");
    let idle = api.get("/api/v1/connections?state=idle&pool_id=main").expect(200);
    let number = idle["items"][0]["connection_id"].as_str().unwrap().to_owned();
    let alias = format!("/api/v1/pool/connections/{number}");
    let closed = api.delete(&alias);
    assert_eq!(
        closed.header("link"),
        format!("</api/v1/connections/{number}>; rel=\"successor-version\"")
    );
    assert_eq!(closed.expect(200)["status"], "closed");
}

#[test]
fn forgotten_transactions_are_seen_and_ended() {
    let server = Server::builder().arg("--set=pool.leak_detection_threshold_secs=1").start();
    let api = as_admin(&server);
    let id = begin(&api);
    let path = "/api/v1/pools/main/leaks";
    let leaks = || api.get(path).expect(200)["items"].as_array().unwrap().clone();
    let clear = |body: Value| api.post(&format!("{path}/clear"), body).expect(200);
    eventually("it is a leak", SOON, || leaks().len() == 1);
    let leak = leaks()[0].clone();
    assert!(leak["held_ms"].as_i64() >= Some(1000) && leak["acquired_at"].is_string(), "{leak}");
    assert!(leak["connection_id"].as_str().unwrap().starts_with("main-"), "{leak}");
    assert_eq!(clear(json!({})), json!({ "cleared": 1, "reclaimed": 0 }));
    assert!(leaks().is_empty());
    within(&api, &id, "select 1").expect(200);
    eventually("it is one again", SOON, || leaks().len() == 1);
    assert_eq!(clear(json!({ "reclaim": true })), json!({ "cleared": 1, "reclaimed": 1 }));
    eventually("its transaction is over", SOON, || within(&api, &id, "select 1").status == 404);
}
