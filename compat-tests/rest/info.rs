//! What the server says of itself: features, configuration, how transactions fare.

use serde_json::{Value, json};

use crate::api::{Api, admin, role};
use crate::harness::shared::guarded;
use crate::harness::{SOON, Server, eventually, temp_dir};

fn begin(api: &Api<'_>) -> Value {
    api.post("/api/v1/transactions", json!({})).expect(201)["transaction_id"].clone()
}

fn within(api: &Api<'_>, id: &Value, sql: &str) -> crate::api::Answer {
    api.post("/api/v1/query", json!({ "sql": sql, "transaction_id": id }))
}

fn end(api: &Api<'_>, id: &Value) {
    api.post(&format!("/api/v1/transactions/{id}/rollback"), json!(null)).expect(200);
}

#[test]
fn the_server_says_what_it_is_and_can() {
    let info = role("info_reader").get("/api/v1/info").expect(200);
    assert_eq!(info["backend"]["kind"], "embedded");
    assert_eq!(
        (&info["version"], &info["features"]["query"]),
        (&env!("CARGO_PKG_VERSION").into(), &"supported".into())
    );
    assert!(info["protocols"].as_array().unwrap().contains(&"h2".into()), "{info}");
    let extensions = info["extensions"].as_array().unwrap();
    let plpgsql = extensions.iter().find(|e| e["name"] == "plpgsql").unwrap();
    assert!(plpgsql["installed_version"].is_string());
    // What answers 501 says the same there.
    let refused = admin().get("/api/v1/pools/main/partitions");
    assert_eq!(refused.json["error"]["message"], info["features"]["pool_partitions"]);
    assert_eq!(refused.json["error"]["details"]["feature"], "pool_partitions");
}

/// What later versions will have says that it is not there yet, whoever asks.
#[test]
fn whole_parts_answer_why_not() {
    let reader = role("parts_reader");
    let info = reader.get("/api/v1/info").expect(200);
    for (method, path, feature) in [
        ("GET", "/api/v1/stream", "websocket"),
        ("GET", "/ws", "websocket"),
        ("GET", "/api/v1/ws/query", "websocket"),
        ("POST", "/graphql", "graphql"),
        ("GET", "/graphql", "graphql"),
        ("GET", "/graphql/ws", "graphql"),
        ("POST", "/api/v1/graphql/persisted-queries", "graphql"),
        ("DELETE", "/api/v1/graphql/persisted-queries/x", "graphql"),
        ("GET", "/api/v1/transactions/mvcc/snapshots", "mvcc"),
        ("POST", "/api/v1/transactions/wal/checkpoint", "wal"),
        ("GET", "/api/v1/monitoring/alerts", "monitoring"),
        ("PUT", "/api/v1/cluster/nodes/1", "cluster"),
        ("POST", "/api/v1/backup/full", "backups_api"),
    ] {
        let answer = reader.send(method, path, &[], b"");
        let error = &answer.json["error"];
        assert_eq!(error["details"]["feature"], feature, "{method} {path} {}", answer.text);
        assert_eq!(error["message"], info["features"][feature]);
        answer.refused(501, "NOT_SUPPORTED");
        assert_eq!(Api::nobody(guarded()).send(method, path, &[], b"").status, 401, "{path}");
    }
    let metrics = admin().get("/api/v1/monitoring/prometheus");
    assert!(metrics.text.contains("rustydb_api_requests_total"));
    let alias = admin().get("/api/v1/metrics");
    assert_eq!((alias.status, alias.header("deprecation")), (200, "true"));
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let secret = "a-secret-of-more-than-thirty-two-bytes";
    let dir = temp_dir();
    let file = dir.path().join("config.toml");
    let text = format!(
        "[pool]\nmax_size = 7\n[[security.jwt.issuers]]\nissuer = \"https://i\"\naudience = [\"a\"]\n\
         algorithms = [\"HS256\"]\nkeys = [{{ kid = \"k\", secret = \"{secret}\" }}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let server = Server::builder().arg(&format!("--config={}", file.display())).start();
    let api = Api::of(&server, "rustydb", &server.password);
    let answer = api.get("/api/v1/config");
    assert!(!answer.text.contains(secret) && !answer.text.contains(&server.password));
    let config = answer.expect(200);
    assert_eq!(config["configuration"]["pool.max_size"], 7);
    assert_eq!(config["configuration"]["security.enable_auth"], true);
    assert!(config["configuration"]["security.jwt.issuers"].to_string().contains("https://i"));
    assert_eq!(config["postgresql"]["fsync"], "on");
    role("config_reader").get("/api/v1/config").refused(403, "AUTHORIZATION_FAILED");
}

#[test]
fn deadlocks_are_remembered() {
    let api = admin();
    api.sql("create table deadlocked (a int primary key, b int)");
    api.sql("insert into deadlocked values (1, 0), (2, 0)");
    let before = api.get("/api/v1/transactions/stats").expect(200);
    let (one, two) = (begin(&api), begin(&api));
    let update = |id: &Value, a: i32| {
        within(&admin(), id, &format!("update deadlocked set b = b + 1 where a = {a}"))
    };
    update(&one, 1).expect(200);
    update(&two, 2).expect(200);
    let answers = std::thread::scope(|scope| {
        let first = scope.spawn(|| update(&one, 2));
        let second = scope.spawn(|| update(&two, 1));
        [first.join().unwrap(), second.join().unwrap()]
    });
    let mut statuses = [answers[0].status, answers[1].status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let history = api.get("/api/v1/transactions/deadlocks").expect(200);
    let last = &history["items"][0];
    assert_eq!(
        (&last["victim"]["user"], &last["victim"]["database"]),
        (&"rustydb".into(), &"rustydb".into())
    );
    assert_eq!(last["participants"].as_array().unwrap().len(), 2, "{last}");
    assert!(last["resource"][0].as_str().unwrap().contains("Lock on"), "{last}");
    let after = api.get("/api/v1/transactions/stats").expect(200);
    let grown = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert_eq!(grown("deadlocks"), 1);
    assert!(grown("committed") > 0 && after["active"].as_u64() >= Some(1), "{after}");
    assert!(after["database"]["committed"].as_i64() > Some(0));
    let others = role("deadlock_stranger").get("/api/v1/transactions/deadlocks").expect(200);
    assert_eq!(others["items"], json!([]));
    for id in [&one, &two] {
        end(&api, id);
    }
}

/// The lock that a filter finds, when there is one.
fn lock(api: &Api<'_>, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    eventually("there is a lock", SOON, || {
        let list = api.get("/api/v1/transactions/locks?limit=1000").expect(200);
        let one = list["items"].as_array().unwrap().iter().find(|lock| is_it(lock)).cloned();
        found = one.unwrap_or_default();
        !found.is_null()
    });
    found
}

fn release(api: &Api<'_>, lock: &Value, how: &str) -> crate::api::Answer {
    let id = lock["lock_id"].as_str().unwrap();
    api.delete(&format!("/api/v1/transactions/locks/{id}{how}"))
}

#[test]
fn locks_are_released() {
    let api = admin();
    api.sql("create table to_release (a int)");
    let id = begin(&api);
    within(&api, &id, "lock table to_release in access exclusive mode").expect(200);
    let held = lock(&api, |lock| lock["relation"] == "to_release");
    let waiter = std::thread::spawn(|| {
        admin().post("/api/v1/query", json!({ "sql": "select * from to_release" }))
    });
    let waiting = |lock: &Value| lock["relation"] == "to_release" && lock["granted"] == false;
    let waits = lock(&api, waiting);
    let stranger = role("lock_stranger");
    release(&stranger, &held, "").refused(403, "AUTHORIZATION_FAILED");
    let cancelled = release(&api, &waits, "").expect(200);
    assert_eq!((&cancelled["action"], &cancelled["released"]), (&"cancel".into(), &true.into()));
    waiter.join().unwrap().refused(499, "CANCELLED");
    // Who does nothing cannot be cancelled.
    assert_eq!(release(&api, &held, "").expect(200)["released"], false);
    let ended = release(&api, &held, "?mode=terminate").expect(200);
    assert_eq!((&ended["action"], &ended["released"]), (&"terminate".into(), &true.into()));
    release(&api, &held, "").refused(404, "NOT_FOUND");
    release(&api, &held, "?mode=ask").refused(400, "VALIDATION_ERROR");
    within(&api, &id, "select 1");
    within(&api, &id, "select 1").refused(404, "NOT_FOUND");

    let session = api.post("/api/v1/sessions", json!({})).expect(201)["session_id"].clone();
    let number = session.to_string();
    let headers = [("x-session-id", number.as_str()), ("content-type", "application/json")];
    let take = br#"{"sql":"select pg_advisory_lock(-7), pg_advisory_lock_shared(1, -2)"}"#;
    api.send("POST", "/api/v1/query", &headers, take).expect(200);
    let connection = api.get(&format!("/api/v1/sessions/{session}")).expect(200);
    let path = format!("/api/v1/connections/{}", connection["connection_id"].as_str().unwrap());
    let pid = api.get(&path).expect(200)["backend_pid"].clone();
    for mode in ["ExclusiveLock", "ShareLock"] {
        let is_its = |lock: &Value| {
            lock["pid"] == pid && lock["locktype"] == "advisory" && lock["mode"] == mode
        };
        let unlocked = release(&api, &lock(&api, is_its), "").expect(200);
        assert_eq!((&unlocked["action"], &unlocked["released"]), (&"unlock".into(), &true.into()));
    }
    assert_eq!(api.delete(&format!("/api/v1/sessions/{session}")).status, 200);
}
