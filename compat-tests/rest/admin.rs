//! Configuration, users, roles, maintenance, backups, extensions.

use serde_json::{Value, json};

use crate::api::{Answer, Api, admin};
use crate::harness::shared::guarded;
use crate::harness::{Server, command};
use crate::jobs::{run, until};

fn log_in(name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password });
    Api::nobody(guarded()).post("/api/v1/auth/login", body)
}

fn value(api: &Api<'_>, sql: &str) -> Value {
    run(api, sql)["rows"][0]["v"].clone()
}

fn has(list: &Value, name: &str) -> bool {
    list.as_array().unwrap().iter().any(|item| item == name)
}

#[test]
fn a_user_lives_and_dies() {
    let api = admin();
    run(&api, "create role staff nologin");
    let new = json!({
        "username": "Otto \"1\"", "password": "otto's-long-secret", "email": "otto@example.org",
        "roles": ["staff", "monitor"], "connection_limit": 7, "valid_until": "2999-01-01",
    });
    let made = api.post("/api/v1/admin/users", new.clone()).expect(201);
    assert_eq!(
        made,
        json!({
            "username": "Otto \"1\"", "email": "otto@example.org", "enabled": true,
            "superuser": false, "connection_limit": 7, "valid_until": "2999-01-01T00:00:00Z",
            "roles": ["monitor", "staff"],
        })
    );
    api.post("/api/v1/admin/users", new).refused(409, "CONFLICT");
    log_in("Otto \"1\"", "otto's-long-secret").expect(200);
    let otto = Api::of(guarded(), "Otto \"1\"", "otto's-long-secret");
    assert_eq!(otto.get("/api/v1/metrics").status, 200, "monitor may watch");
    let member = "select pg_has_role('Otto \"1\"', 'staff', 'member') as v";
    assert_eq!(value(&api, member), true);
    assert_eq!(api.get("/api/v1/admin/users/Otto%20%221%22").expect(200), made);
    let list = api.get("/api/v1/admin/users?limit=1000").expect(200);
    assert!(list["items"].as_array().unwrap().contains(&made));

    let path = "/api/v1/admin/users/Otto%20%221%22";
    let changed = json!({
        "password": "the second one", "email": null, "roles": ["readonly"], "connection_limit": null,
        "valid_until": null,
    });
    let changed = api.put(path, changed).expect(200);
    assert_eq!(
        (
            &changed["email"],
            &changed["roles"],
            &changed["connection_limit"],
            &changed["valid_until"]
        ),
        (&Value::Null, &json!(["readonly"]), &Value::Null, &Value::Null)
    );
    assert_eq!(value(&api, member), false);
    log_in("Otto \"1\"", "otto's-long-secret").refused(401, "AUTHENTICATION_FAILED");
    log_in("Otto \"1\"", "the second one").expect(200);
    let off = api.put(path, json!({ "enabled": false })).expect(200);
    assert_eq!(off["enabled"], false);
    log_in("Otto \"1\"", "the second one").refused(401, "AUTHENTICATION_FAILED");
    api.get(path).expect(200);
    api.put(path, json!({ "enabled": true })).expect(200);

    run(&api, "create table ottos (a int)");
    run(&api, "alter table ottos owner to \"Otto \"\"1\"\"\"");
    api.delete(path).refused(409, "CONFLICT");
    assert_eq!(api.delete(&format!("{path}?reassign_to=rustydb")).status, 204);
    let owner = "select tableowner as v from pg_tables where tablename = 'ottos'";
    assert_eq!(value(&api, owner), "rustydb");
    api.get(path).refused(404, "NOT_FOUND");
    api.delete(path).refused(404, "NOT_FOUND");
    api.put(path, json!({ "enabled": true })).refused(404, "NOT_FOUND");
}

/// Passwords leave no trace: PostgreSQL gets a verifier.
#[test]
fn a_password_is_nowhere() {
    let server = Server::builder()
        .set("monitoring.slow_query_ms=1")
        .set("backend.embedded.extra_conf=log_statement=all")
        .start();
    let api = Api::of(&server, "rustydb", &server.password);
    let secret = "very-secret-word";
    let body = json!({ "username": "paul", "password": secret });
    let made = api.post("/api/v1/admin/users", body);
    assert!(!made.text.contains(secret));
    made.expect(201);
    let secret2 = json!({ "password": "very-secret-other" });
    api.put("/api/v1/admin/users/paul", secret2).expect(200);
    Api::of(&server, "paul", "very-secret-other").get("/api/v1/auth/me").expect(200);
    // The statements are in the log, the last one too.
    server.log_line(&["ALTER ROLE", "paul"]);
    let log = server.log();
    let audit = std::fs::read_to_string(server.data_dir.join("audit.jsonl")).unwrap();
    assert!(!log.contains("very-secret") && !audit.contains("very-secret"));
    let verifier = server.direct_value("select rolpassword from pg_authid where rolname = 'paul'");
    assert!(verifier.starts_with("SCRAM-SHA-256$"));
}

#[test]
fn what_is_no_user_is_refused() {
    let api = admin();
    let long = "long enough!";
    let user = |name: &str| json!({ "username": name, "password": long });
    for bad in [
        json!({}),
        user(""),
        user("a\u{0}b"),
        user(&"x".repeat(64)),
        json!({ "username": "x", "password": "" }),
        json!({ "username": "x", "password": "a\u{0}b" }),
        json!({ "username": "x", "password": long, "email": "nowhere" }),
        json!({ "username": "x", "password": long, "roles": ["no such role"] }),
        json!({ "username": "x", "password": long, "valid_until": "soon" }),
        json!({ "username": "x", "password": long, "connection_limit": -1 }),
        json!({ "username": "x", "password": long, "superuser": true }),
    ] {
        let text = bad.to_string();
        let answer = api.post("/api/v1/admin/users", bad);
        assert_eq!(answer.status, 400, "{text}: {}", answer.text);
    }
    api.get("/api/v1/admin/users/x").refused(404, "NOT_FOUND");
    // One character less than security.password.min_length, some of them of two bytes.
    for short in ["eleven char", "\u{e4}\u{f6}\u{fc}45678901"] {
        let answer = api.post("/api/v1/admin/users", json!({ "username": "x", "password": short }));
        assert!(answer.text.contains("at least 12 characters"), "{}", answer.text);
        answer.refused(400, "VALIDATION_ERROR");
    }
    api.delete("/api/v1/admin/users/rustydb").refused(409, "CONFLICT");
}

/// Who administers users gives nobody, himself included, what he may not do himself.
#[test]
fn nobody_gives_more_than_he_has() {
    let api = admin();
    let keeper = json!({ "name": "user_keeper", "permissions": ["admin:users", "admin:roles"] });
    api.post("/api/v1/admin/roles", keeper).expect(201);
    let kate =
        json!({ "username": "kate", "password": "kate-long-secret", "roles": ["user_keeper"] });
    api.post("/api/v1/admin/users", kate).expect(201);
    run(&api, "alter role kate createrole");
    let boss = json!({ "username": "boss", "password": "boss-long-secret", "roles": ["admin"] });
    api.post("/api/v1/admin/users", boss).expect(201);

    let kate = Api::of(guarded(), "kate", "kate-long-secret");
    let denied = |answer: Answer| answer.refused(403, "AUTHORIZATION_FAILED");
    denied(kate.put("/api/v1/admin/users/kate", json!({ "roles": ["admin"] })));
    let new = |name: &str, roles: Value| {
        let password = "of-somebody!";
        json!({ "username": name, "password": password, "roles": roles })
    };
    denied(kate.post("/api/v1/admin/users", new("kates", json!(["operator"]))));
    denied(kate.post("/api/v1/admin/users", new("admin", json!([]))));
    denied(kate.put("/api/v1/admin/users/boss", json!({ "password": "known-to-kate" })));
    denied(kate.delete("/api/v1/admin/users/boss"));
    let all = json!({ "name": "all", "permissions": ["*:*"] });
    denied(kate.post("/api/v1/admin/roles", all));
    let heir = json!({ "name": "heir", "inherits_from": ["admin"] });
    denied(kate.post("/api/v1/admin/roles", heir));
    denied(kate.get("/api/v1/admin/config"));
    kate.post("/api/v1/admin/users", new("kates", json!(["user_keeper"]))).expect(201);
    assert_eq!(kate.delete("/api/v1/admin/users/kates").status, 204);
}

#[test]
fn a_role_is_one_of_postgresql_too() {
    let api = admin();
    for sql in
        ["create table ledger (a int)", "create schema book", "create table book.page (a int)"]
    {
        run(&api, sql);
    }
    let role = json!({
        "name": "clerk", "inherits_from": ["readonly"],
        "permissions": ["read:tables:ledger", { "resource": "tables:book:page", "action": "write" }],
        "denied_permissions": ["delete:tables:ledger"],
    });
    let made = api.post("/api/v1/admin/roles", role.clone()).expect(201);
    assert_eq!(made["permissions"], json!(["read:tables:ledger", "write:tables:book:page"]));
    assert_eq!(
        (&made["built_in"], &made["postgresql"]["superuser"]),
        (&json!(false), &json!(false))
    );
    api.post("/api/v1/admin/roles", role).refused(409, "CONFLICT");
    let may = |privilege: &str, table: &str| {
        value(&api, &format!("select has_table_privilege('clerk', '{table}', '{privilege}') as v"))
    };
    assert_eq!((may("select", "ledger"), may("insert", "ledger")), (true.into(), false.into()));
    assert_eq!(may("delete", "book.page"), true);

    let child = json!({ "name": "apprentice", "inherits_from": ["clerk"] });
    let child = api.post("/api/v1/admin/roles", child).expect(201);
    assert_eq!(child["postgresql"]["member_of"], json!(["clerk"]));
    api.delete("/api/v1/admin/roles/clerk").refused(409, "CONFLICT");
    let carl =
        json!({ "username": "carl", "password": "carl-long-secret", "roles": ["apprentice"] });
    api.post("/api/v1/admin/users", carl).expect(201);
    let carl = Api::of(guarded(), "carl", "carl-long-secret");
    run(&carl, "select * from ledger");
    let me = carl.get("/api/v1/auth/me").expect(200);
    assert!(has(&me["permissions"], "read:tables:ledger"), "{me}");

    let changed = json!({ "permissions": ["create:tables:book:page"] });
    let changed = api.put("/api/v1/admin/roles/clerk", changed).expect(200);
    assert_eq!(
        (&changed["inherits_from"], &changed["denied_permissions"]),
        (&json!(["readonly"]), &json!(["delete:tables:ledger"])),
        "what the body does not say is as before"
    );
    assert_eq!(api.put("/api/v1/admin/roles/clerk", json!({})).expect(200), changed);
    let none = json!({ "inherits_from": [], "denied_permissions": [] });
    let none = api.put("/api/v1/admin/roles/clerk", none).expect(200);
    assert_eq!((&none["inherits_from"], &none["denied_permissions"]), (&json!([]), &json!([])));
    assert_eq!(none["permissions"], changed["permissions"]);
    assert_eq!(
        (may("select", "ledger"), may("insert", "book.page"), may("delete", "book.page")),
        (false.into(), true.into(), false.into())
    );
    let list = api.get("/api/v1/admin/roles?limit=1000").expect(200);
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    for name in ["admin", "clerk", "apprentice", "pg_monitor"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(api.delete("/api/v1/admin/users/carl").status, 204);
    for name in ["apprentice", "clerk"] {
        assert_eq!(api.delete(&format!("/api/v1/admin/roles/{name}")).status, 204, "{name}");
        api.get(&format!("/api/v1/admin/roles/{name}")).refused(404, "NOT_FOUND");
    }
    for (name, status) in [("admin", 409), ("no_such", 404)] {
        assert_eq!(api.delete(&format!("/api/v1/admin/roles/{name}")).status, status);
    }
    for bad in [
        json!({}),
        json!({ "name": "a:b" }),
        json!({ "name": "x", "permissions": ["nonsense"] }),
        json!({ "name": "x", "permissions": [{ "resource": "a", "action": "b", "conditions": [1] }] }),
        json!({ "name": "x", "colour": "red" }),
    ] {
        api.post("/api/v1/admin/roles", bad).refused(400, "VALIDATION_ERROR");
    }
    let lost = json!({ "name": "x", "permissions": ["read:tables:no_such_table"] });
    api.post("/api/v1/admin/roles", lost).refused(404, "NOT_FOUND");
    api.get("/api/v1/admin/roles/x").refused(404, "NOT_FOUND");
}

#[test]
fn the_configuration_is_changed_for_good() {
    let server = Server::builder().set("pool.min_size=0").start();
    let password = server.password.clone();
    let api = Api::of(&server, "rustydb", &password);
    let key = |api: &Api<'_>, name: &str| {
        let config = api.get("/api/v1/admin/config").expect(200);
        let all = config["settings"].as_array().unwrap().clone();
        all.into_iter().find(|setting| setting["key"] == name).unwrap()
    };
    let before = key(&api, "api.max_page_size");
    assert_eq!(
        (&before["value"], &before["source"], &before["restart_required"]),
        (&json!("1000"), &json!("default"), &json!(false))
    );
    assert_eq!(
        (&key(&api, "pool.min_size")["source"], &key(&api, "pool.min_size")["locked"]),
        (&json!("command_line"), &json!(true))
    );
    assert_eq!(key(&api, "network.backlog")["restart_required"], true);

    let put = |body: Value| api.put("/api/v1/admin/config", body);
    let done = put(json!({ "api.max_page_size": 7, "query_timeout": 54321, "max_connections": 99,
        "postgresql.max_wal_senders": 11 }))
    .expect(200);
    for name in ["api.max_page_size", "network.max_connections", "postgresql.statement_timeout"] {
        assert!(has(&done["changed"], name), "{done}");
    }
    assert_eq!(done["restart_required"], json!(["postgresql.max_wal_senders"]));
    assert_eq!(api.get("/api/v1/sql/databases?limit=100").expect(200)["limit"], 7);
    let after = key(&api, "api.max_page_size");
    assert_eq!((&after["value"], &after["source"]), (&json!("7"), &json!("runtime")));

    for (bad, status, code) in [
        (json!({}), 400, "VALIDATION_ERROR"),
        (json!([]), 400, "VALIDATION_ERROR"),
        (json!({ "api.max_page_sise": 1 }), 400, "VALIDATION_ERROR"),
        (json!({ "api.max_page_size": "many" }), 400, "VALIDATION_ERROR"),
        (json!({ "network.port": 1 }), 409, "CONFLICT"),
        (json!({ "pool.min_size": 1 }), 409, "CONFLICT"),
        (json!({ "postgresql.no_such": 1 }), 400, "VALIDATION_ERROR"),
        (json!({ "postgresql.work_mem": "much" }), 400, "VALIDATION_ERROR"),
        (json!({ "postgresql.work_mem": {} }), 400, "VALIDATION_ERROR"),
        (json!({ "postgresql.fsync": "off" }), 409, "CONFLICT"),
        // Nothing is done when one of them is wrong.
        (json!({ "postgresql.work_mem": "5MB", "pool.max_size": 0 }), 400, "VALIDATION_ERROR"),
        (
            json!({ "api.default_page_size": 5, "postgresql.work_mem": "x" }),
            400,
            "VALIDATION_ERROR",
        ),
    ] {
        let text = bad.to_string();
        let answer = put(bad);
        assert_eq!(
            (answer.status, &answer.json["error"]["code"]),
            (status, &json!(code)),
            "{text}: {}",
            answer.text
        );
    }
    assert_eq!(key(&api, "api.default_page_size")["source"], "default");
    let auto = std::fs::read_to_string(server.data_dir.join("pg/postgresql.auto.conf")).unwrap();
    assert!(auto.contains("statement_timeout = '54321'") && !auto.contains("work_mem"), "{auto}");

    // The next process knows it too.
    let mut first = server;
    first.stop();
    let second = Server::builder().set("pool.min_size=0").data_dir(&first.data_dir).start();
    let api = Api::of(&second, "rustydb", &password);
    assert_eq!(key(&api, "api.max_page_size")["value"], "7");
    let sql = "select current_setting('statement_timeout') as v";
    assert_eq!(value(&api, sql), "54321ms");
    let back = json!({ "api.max_page_size": null, "query_timeout": null });
    api.put("/api/v1/admin/config", back).expect(200);
    assert_eq!(key(&api, "api.max_page_size")["source"], "default");
    let reloaded = api.post("/api/v1/admin/reload", json!({})).expect(200);
    assert_eq!(reloaded, json!({ "changed": [], "restart_required": [], "postgresql": true }));
    crate::harness::eventually("it is in the audit log", crate::harness::SOON, || {
        let audit = std::fs::read_to_string(second.data_dir.join("audit.jsonl")).unwrap();
        audit.contains("\"update_config\"") && audit.contains("api.max_page_size")
    });
}

#[test]
fn maintenance_is_a_job() {
    let api = admin();
    run(&api, "create table kept as select generate_series(1, 100) as a");
    run(&api, "create index kept_a on kept (a)");
    for (body, command) in [
        (
            json!({ "operation": "vacuum", "target": "kept", "options": { "analyze": true } }),
            "VACUUM (ANALYZE) \"public\".\"kept\"",
        ),
        (json!({ "operation": "analyze", "target": "kept" }), "ANALYZE \"public\".\"kept\""),
        (
            json!({ "operation": "refresh_statistics", "target": "kept" }),
            "ANALYZE \"public\".\"kept\"",
        ),
        (
            json!({ "operation": "reindex", "target": "kept_a", "options": { "kind": "index" } }),
            "REINDEX INDEX \"public\".\"kept_a\"",
        ),
        (
            json!({ "operation": "cluster", "target": "kept", "options": { "index": "kept_a" } }),
            "CLUSTER \"public\".\"kept\" USING \"kept_a\"",
        ),
        (json!({ "operation": "checkpoint" }), "CHECKPOINT"),
    ] {
        let job = api.post("/api/v1/admin/maintenance", body).expect(202);
        let done = until(&api, &job, "succeeded");
        assert_eq!(done["result"]["command"], command);
    }
    let analyzed = "select reltuples::int as v from pg_class where relname = 'kept'";
    assert_eq!(value(&api, analyzed), 100);
    let lost = json!({ "operation": "vacuum", "target": "no_such_table" });
    let job = api.post("/api/v1/admin/maintenance", lost).expect(202);
    assert_eq!(until(&api, &job, "failed")["error"]["code"], "NOT_FOUND");
    for bad in [
        json!({}),
        json!({ "operation": "vacuum; drop table kept" }),
        json!({ "operation": "vacuum", "target": "" }),
        json!({ "operation": "checkpoint", "options": { "full": true } }),
    ] {
        api.post("/api/v1/admin/maintenance", bad).refused(400, "VALIDATION_ERROR");
    }
}

#[test]
fn a_backup_is_whole_or_gone() {
    let server = Server::start();
    let api = Api::of(&server, "rustydb", &server.password);
    run(&api, "create table saved as select 'precious' as word");
    let backup = |body: Value| api.post("/api/v1/admin/backup", body);
    let directory = server.data_dir.join("backups");
    for (name, body) in [
        ("full", json!({ "type": "full", "destination": "full" })),
        ("packed", json!({ "type": "full", "destination": "packed", "compress": true })),
        ("dump", json!({ "type": "logical", "destination": "dump", "compress": true })),
    ] {
        let job = backup(body.clone()).expect(202);
        let done = until(&api, &job, "succeeded");
        let path = directory.join(name);
        assert_eq!(done["result"]["path"], path.to_str().unwrap());
        assert!(done["result"]["bytes"].as_u64().unwrap() > 100, "{done}");
        assert!(path.join("backup.json").exists());
        let again = backup(body).expect(202);
        assert_eq!(until(&api, &again, "failed")["error"]["code"], "CONFLICT");
        assert!(path.join("backup.json").exists(), "the first one stays");
    }
    assert!(directory.join("full/base/PG_VERSION").exists());
    assert!(directory.join("packed/base/base.tar.gz").exists());
    let bin = server.direct_value("select setting from pg_config where name = 'BINDIR'");
    let restore = command(&format!("{bin}/pg_restore"))
        .args(["--data-only", "--table=saved", "--file=-"])
        .arg(directory.join("dump/dump"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&restore.stdout).contains("precious"));

    let lost = backup(json!({ "type": "logical", "destination": "lost", "database": "no such" }));
    let failed = until(&api, &lost.expect(202), "failed");
    assert!(failed["error"]["detail"].as_str().unwrap().contains("no such"), "{failed}");
    crate::harness::eventually("it is removed", std::time::Duration::from_secs(20), || {
        !directory.join("lost").exists()
    });
    for (bad, status) in [
        (json!({ "type": "full", "destination": "../outside" }), 400),
        (json!({ "type": "full", "destination": "/tmp/outside" }), 400),
        (json!({ "type": "full", "destination": "" }), 400),
        (json!({ "type": "full", "destination": "x", "database": "rustydb" }), 400),
        (json!({ "type": "half", "destination": "x" }), 400),
        (json!({ "type": "full" }), 400),
        (json!({ "type": "incremental", "destination": "x" }), 501),
        (json!({ "type": "full", "destination": "x", "encrypt": true }), 501),
    ] {
        let text = bad.to_string();
        let answer = backup(bad);
        assert_eq!(answer.status, status, "{text}: {}", answer.text);
    }
}

/// Who cancels a backup leaves nothing of it: no program, no file.
#[test]
fn a_cancelled_backup_leaves_nothing() {
    let server = Server::start();
    let api = Api::of(&server, "rustydb", &server.password);
    run(&api, "create table busy (a int)");
    let begun = api.post("/api/v1/transactions", json!({})).expect(201);
    let sql = json!({ "sql": "lock table busy", "transaction_id": begun["transaction_id"] });
    api.post("/api/v1/query", sql).expect(200);
    // pg_dump waits for the lock.
    let body = json!({ "type": "logical", "destination": "never" });
    let job = api.post("/api/v1/admin/backup", body).expect(202);
    let dumps = "select count(*)::int as v from pg_stat_activity \
                 where application_name like 'rustydb-job-%' and wait_event_type = 'Lock'";
    let patience = std::time::Duration::from_secs(60);
    crate::harness::eventually("it waits", patience, || value(&api, dumps) == 1);
    let path = format!("/api/v1/jobs/{}", job["job_id"].as_str().unwrap());
    assert_eq!(api.delete(&path).expect(200)["state"], "cancelled");
    let left = || server.data_dir.join("backups/never").exists();
    crate::harness::eventually("it is removed", patience, || !left());
}

#[test]
fn extensions_come_and_go() {
    let api = admin();
    let list = api.get("/api/v1/admin/extensions?limit=1000").expect(200);
    let all = list["items"].as_array().unwrap();
    assert!(all.iter().any(|e| e["name"] == "plpgsql" && e["installed_version"] != Value::Null));
    let installed = api.get("/api/v1/admin/extensions?installed=true").expect(200);
    assert!(installed["total"].as_u64().unwrap() <= list["total"].as_u64().unwrap());
    let none = json!({ "name": "no_such_extension" });
    for answer in [
        api.post("/api/v1/admin/extensions", none),
        api.post("/api/v1/query", json!({ "sql": "create extension no_such_extension" })),
        api.post("/api/v1/query", json!({ "sql": "load 'no_such_extension'" })),
    ] {
        let extension = &answer.json["error"]["details"]["extension"];
        assert_eq!(extension, "no_such_extension", "{}", answer.text);
        answer.refused(501, "EXTENSION_REQUIRED");
    }
    // Other files that are not there need no extension.
    let file = api.post("/api/v1/query", json!({ "sql": "select pg_read_file('/nope')" }));
    file.refused(500, "INTERNAL_ERROR");
    api.post("/api/v1/admin/extensions", json!({ "name": "plpgsql" })).refused(409, "CONFLICT");
    api.post("/api/v1/admin/extensions", json!({})).refused(400, "VALIDATION_ERROR");
    api.delete("/api/v1/admin/extensions/no_such_extension").refused(404, "NOT_FOUND");
    assert_eq!(api.delete("/api/v1/admin/extensions/no_such_extension?if_exists=true").status, 204);
    if all.iter().any(|extension| extension["name"] == "citext") {
        run(&api, "create schema further");
        let new = json!({ "name": "citext", "schema": "further" });
        let made = api.post("/api/v1/admin/extensions", new).expect(201);
        assert_eq!((&made["name"], &made["schema"]), (&json!("citext"), &json!("further")));
        assert_eq!(api.delete("/api/v1/admin/extensions/citext").status, 204);
    }
}

/// Administration is for administrators.
#[test]
fn a_plain_role_administers_nothing() {
    run(&admin(), "create role plain login password 'plain-secret'");
    let plain = Api::of(guarded(), "plain", "plain-secret");
    for path in ["config", "users", "users/plain", "roles", "roles/admin", "extensions"] {
        plain.get(&format!("/api/v1/admin/{path}")).refused(403, "AUTHORIZATION_FAILED");
        let nobody = Api::nobody(guarded()).get(&format!("/api/v1/admin/{path}"));
        nobody.refused(401, "AUTHENTICATION_FAILED");
    }
    for path in ["backup", "maintenance", "users", "roles", "extensions", "reload"] {
        let answer = plain.post(&format!("/api/v1/admin/{path}"), json!({}));
        answer.refused(403, "AUTHORIZATION_FAILED");
    }
}

/// What is done by others is said, and listed.
#[test]
fn log_ins_by_others_answer_why_not() {
    let api = admin();
    for (method, path, feature) in [
        ("GET", "/api/v1/auth/ldap", "ldap"),
        ("PUT", "/api/v1/auth/ldap/config", "ldap"),
        ("GET", "/api/v1/auth/oauth", "oauth_login"),
        ("GET", "/api/v1/auth/oauth/authorize", "oauth_login"),
        ("GET", "/api/v1/auth/oauth/callback", "oauth_login"),
        ("PUT", "/api/v1/auth/sso", "saml"),
        ("POST", "/api/v1/auth/saml/acs", "saml"),
        ("POST", "/api/v1/auth/mfa/verify", "mfa"),
    ] {
        let answer = api.send(method, path, &[("content-type", "application/json")], b"{}");
        assert_eq!(answer.json["error"]["details"]["feature"], feature, "{path}: {}", answer.text);
        let is_alias = path.ends_with("/config");
        assert_eq!(answer.header("deprecation"), if is_alias { "true" } else { "" }, "{path}");
        answer.refused(501, "NOT_SUPPORTED");
    }
}

#[test]
fn permissions_of_one_table() {
    let api = admin();
    api.sql("create table one_director (id int primary key, name text)");
    api.sql(
        "create table one_film (id int primary key, title text, \
         director int references one_director)",
    );
    api.sql("insert into one_director values (1, 'Lynch')");
    api.sql("insert into one_film values (1, 'Dune', 1)");
    let role = |name: &str, allows: Value, denies: Value| {
        let body = json!({ "name": name, "permissions": allows, "denied_permissions": denies });
        api.post("/api/v1/admin/roles", body).expect(201);
    };
    role("one_denied", json!([]), json!(["read:tables:one_film"]));
    role("one_dotted", json!([]), json!(["*:tables:public.one_film"]));
    let user = |name: &'static str, role: &str| {
        let body = json!({
            "username": name, "password": "a-long-enough-word", "roles": [role] });
        api.post("/api/v1/admin/users", body).expect(201);
        api.sql(&format!("grant all on one_film, one_director to {name}"));
        Api::of(guarded(), name, "a-long-enough-word")
    };
    let (denied, dotted) = (user("one_erin", "one_denied"), user("one_ann", "one_dotted"));
    for path in [
        "/rest/v1/one_film?select=id",
        "/rest/v1/%6Fne_film",
        "/rest/v1/one_director?select=id,one_film(title)",
        "/rest/v1/one_director?select=id&one_film.id=eq.1",
        "/api/v1/tables/one_film/rows",
        "/api/v1/tables/one_film/rows/1",
        "/api/v1/tables/one_film",
        "/api/v1/tables/one_director/rows?columns=id,one_film(title)",
    ] {
        for who in [&denied, &dotted] {
            let answer = who.get(path);
            // A filter of what is not embedded is refused for that.
            let expected = if path.contains("&one_film.") { 400 } else { 403 };
            assert_eq!(answer.status, expected, "{path} {}", answer.text);
        }
    }
    denied.get("/rest/v1/one_director").expect(200);
    denied.post("/rest/v1/one_film", json!({ "id": 2 })).expect(201);
    assert_eq!(dotted.post("/rest/v1/one_film", json!({ "id": 3 })).status, 403);

    // A key for one table is good for that, and for no other.
    let keys = json!({ "name": "one", "permissions": ["read:tables:one_film"] });
    let key = api.post("/api/v1/auth/api-keys", keys).expect(201)["key"].clone();
    let nobody = Api::nobody(guarded());
    let get =
        |path: &str| nobody.send("GET", path, &[("x-api-key", key.as_str().unwrap())], b"").status;
    assert_eq!(get("/rest/v1/one_film"), 200);
    assert_eq!(get("/api/v1/tables/one_film/rows/1"), 200);
    assert_eq!(get("/rest/v1/one_film?select=id,one_director(name)"), 403);
    assert_eq!(get("/rest/v1/one_director"), 403);
    assert_eq!(get("/api/v1/tables"), 403);
    let query = [("x-api-key", key.as_str().unwrap())];
    nobody.send("POST", "/rest/v1/one_film", &query, b"{}").expect(403);
}
