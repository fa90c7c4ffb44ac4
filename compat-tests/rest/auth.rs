//! Who may come in over HTTP, and with what.

use serde_json::{Value, json};

use crate::api::{Answer, Api, admin};
use crate::harness::shared::guarded;

/// A role that may log in.
fn role(name: &str) -> Api<'static> {
    let sql = format!("create role {name} login password '{name}-secret'");
    admin().post("/api/v1/query", json!({ "sql": sql })).expect(200);
    Api::of(guarded(), name, &format!("{name}-secret"))
}

fn log_in(name: &str) -> Value {
    let body = json!({ "username": name, "password": format!("{name}-secret") });
    Api::nobody(guarded()).post("/api/v1/auth/login", body).expect(200)
}

/// A request with this header for credentials.
fn with(header: (&str, &str), method: &str, path: &str, body: Value) -> Answer {
    let headers = [header, ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Api::nobody(guarded()).send(method, path, &headers, body.as_bytes())
}

fn bearer(token: &Value, method: &str, path: &str, body: Value) -> Answer {
    let header = format!("Bearer {}", token.as_str().unwrap());
    with(("authorization", &header), method, path, body)
}

fn who(sql_answer: Answer) -> Value {
    sql_answer.expect(200)["rows"][0]["who"].clone()
}

const WHO: &str = "select session_user as who";

#[test]
fn tokens_are_given_rotated_and_taken_back() {
    role("walter");
    let first = log_in("walter");
    assert_eq!((&first["token_type"], &first["user"]), (&"Bearer".into(), &"walter".into()));
    let query = || json!({ "sql": WHO });
    let access = &first["access_token"];
    assert_eq!(who(bearer(access, "POST", "/api/v1/query", query())), "walter");
    let me = bearer(access, "GET", "/api/v1/auth/me", Value::Null).expect(200);
    assert_eq!((&me["user"], &me["method"]), (&"walter".into(), &"access_token".into()));
    assert!(me["permissions"].as_array().unwrap().contains(&"execute:queries".into()));

    let refresh = |token: &Value| {
        let body = json!({ "refresh_token": token });
        Api::nobody(guarded()).post("/api/v1/auth/refresh", body)
    };
    let second = refresh(&first["refresh_token"]).expect(200);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    // Who uses one twice has stolen it, or was robbed: the whole log-in ends.
    refresh(&first["refresh_token"]).refused(401, "AUTHENTICATION_FAILED");
    refresh(&second["refresh_token"]).refused(401, "AUTHENTICATION_FAILED");

    let third = log_in("walter");
    let access = &third["access_token"];
    let logged_out = bearer(access, "POST", "/api/v1/auth/logout", Value::Null);
    assert_eq!(logged_out.status, 204);
    bearer(access, "POST", "/api/v1/query", query()).refused(401, "AUTHENTICATION_FAILED");
    refresh(&third["refresh_token"]).refused(401, "AUTHENTICATION_FAILED");

    let checked = admin().post("/api/v1/auth/validate", json!({ "token": access })).expect(200);
    assert_eq!(checked["valid"], false);
    let fourth = log_in("walter");
    let body = json!({ "token": fourth["access_token"] });
    let checked = admin().post("/api/v1/auth/validate", body).expect(200);
    assert_eq!((&checked["valid"], &checked["user"]), (&true.into(), &"walter".into()));
}

#[test]
fn what_is_no_token_is_refused() {
    role("vera");
    let token = log_in("vera")["access_token"].as_str().unwrap().to_owned();
    let parts: Vec<_> = token.split('.').collect();
    let none = "eyJhbGciOiJub25lIn0";
    for forged in [
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(43)),
        format!("{}.{}", parts[0], parts[1]),
        "x".into(),
        String::new(),
        "a".repeat(20_000),
    ] {
        let header = format!("Bearer {forged}");
        let answer = with(("authorization", &header), "GET", "/api/v1/auth/me", Value::Null);
        // Headers beyond the limit are refused by the HTTP parser, without a body.
        assert!(matches!(answer.status, 401 | 431), "{} {}", answer.status, answer.text);
        if answer.status == 401 {
            // Not Basic, for which browsers ask for a password.
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, "Bearer realm=\"RustyDB\", error=\"invalid_token\"");
        }
    }
    for bad in [
        json!({ "username": "vera", "password": "wrong" }),
        json!({ "username": "nobody_like_this", "password": "wrong" }),
    ] {
        let answer = Api::nobody(guarded()).post("/api/v1/auth/login", bad);
        answer.refused(401, "AUTHENTICATION_FAILED");
    }
    let ldap = json!({ "username": "vera", "password": "x", "provider": "ldap" });
    Api::nobody(guarded()).post("/api/v1/auth/login", ldap).refused(501, "NOT_SUPPORTED");
}

/// A name is a name, whatever is in it.
#[test]
fn a_name_is_not_sql() {
    for name in [
        "a\ncreate table injected (); --",
        "a\n; create table injected (); --",
        "a'; create table injected (); --",
        "a\\'; create table injected (); --",
        "a\r\n*/ create table injected (); /*",
        "\"; create table injected (); --",
        "$1",
    ] {
        let body = json!({ "username": name, "password": "x" });
        let answer = Api::nobody(guarded()).post("/api/v1/auth/login", body);
        answer.refused(401, "AUTHENTICATION_FAILED");
        let psql = guarded().psql_command().args(["-U", name, "-c", "select 1"]).output().unwrap();
        assert!(!psql.status.success());
    }
    let found = "select count(*) from pg_class where relname = 'injected'";
    for database in ["rustydb", "postgres"] {
        let mut psql = guarded().direct_psql_command();
        let output = psql.args(["-d", database, "-Atc", found]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{database}");
    }
}

#[test]
fn a_browser_has_a_cookie_and_must_show_that_it_asks_itself() {
    role("ursula");
    let body = json!({ "username": "ursula", "password": "ursula-secret", "cookie": true });
    let answer = Api::nobody(guarded()).post("/api/v1/auth/login", body);
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let csrf = answer.expect(200)["csrf_token"].as_str().unwrap().to_owned();
    let ask = |method: &str, path: &str, csrf: Option<&str>, body: &[u8]| {
        let mut headers = vec![("cookie", cookie.as_str()), ("content-type", "application/json")];
        headers.extend(csrf.map(|csrf| ("x-csrf-token", csrf)));
        Api::nobody(guarded()).send(method, path, &headers, body)
    };
    let told = ask("GET", "/api/v1/auth/csrf", None, b"").expect(200);
    assert_eq!(told["csrf_token"], csrf.as_str());
    let query = format!("{{\"sql\":\"{WHO}\"}}");
    ask("POST", "/api/v1/query", None, query.as_bytes()).refused(403, "CSRF_FAILED");
    ask("POST", "/api/v1/query", Some("other"), query.as_bytes()).refused(403, "CSRF_FAILED");
    assert_eq!(who(ask("POST", "/api/v1/query", Some(&csrf), query.as_bytes())), "ursula");
    let own = guarded().url("");
    for (origin, status) in [("https://evil.test", 403), ("null", 403), (&*own, 200)] {
        let headers = [
            ("cookie", cookie.as_str()),
            ("content-type", "application/json"),
            ("x-csrf-token", csrf.as_str()),
            ("origin", origin.trim_end_matches('/')),
        ];
        let answer =
            Api::nobody(guarded()).send("POST", "/api/v1/query", &headers, query.as_bytes());
        assert_eq!(answer.status, status, "{origin} {}", answer.text);
    }
    let out = ask("POST", "/api/v1/auth/logout", Some(&csrf), b"");
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    ask("GET", "/api/v1/auth/me", None, b"").refused(401, "AUTHENTICATION_FAILED");
}

#[test]
fn a_key_is_good_for_what_it_says() {
    let tom = role("tom");
    let made = tom.post("/api/v1/auth/api-keys", json!({ "name": "all" })).expect(201);
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("sk_live_"));
    let query = json!({ "sql": WHO });
    let use_key = |key: &str, method: &str, path: &str, body: Value| {
        with(("x-api-key", key), method, path, body)
    };
    assert_eq!(who(use_key(&key, "POST", "/api/v1/query", query.clone())), "tom");
    let narrow = json!({ "name": "tables", "permissions": ["read:tables"], "ttl_secs": 60 });
    let narrow = tom.post("/api/v1/auth/api-keys", narrow).expect(201);
    let narrow = narrow["key"].as_str().unwrap().to_owned();
    use_key(&narrow, "GET", "/api/v1/tables", Value::Null).expect(200);
    use_key(&narrow, "POST", "/api/v1/query", query.clone()).refused(403, "AUTHORIZATION_FAILED");
    // However the path is written.
    for path in ["rpc/now", "%72pc/now", "%72%70%63/now"] {
        let answer = use_key(&narrow, "GET", &format!("/rest/v1/{path}"), Value::Null);
        assert_eq!(answer.status, 403, "{path}: {}", answer.text);
    }
    assert_eq!(use_key(&narrow, "GET", "/rest/v1/rpc%2Fnow", Value::Null).status, 404);
    use_key(&narrow, "POST", "/api/v1/auth/api-keys", json!({ "name": "x" }))
        .refused(403, "AUTHORIZATION_FAILED");
    let elsewhere = json!({ "name": "elsewhere", "addresses": ["10.0.0.0/8"] });
    let elsewhere = tom.post("/api/v1/auth/api-keys", elsewhere).expect(201);
    let elsewhere = elsewhere["key"].as_str().unwrap();
    use_key(elsewhere, "GET", "/api/v1/auth/me", Value::Null).refused(401, "AUTHENTICATION_FAILED");

    let list = tom.get("/api/v1/auth/api-keys").expect(200);
    assert_eq!(list["total"], 3);
    assert!(!list.to_string().contains(&key));
    let others = role("tess").get("/api/v1/auth/api-keys").expect(200);
    assert_eq!(others["total"], 0);
    let path = format!("/api/v1/auth/api-keys/{}", made["key_id"].as_str().unwrap());
    Api::of(guarded(), "tess", "tess-secret").delete(&path).refused(404, "NOT_FOUND");
    assert_eq!(tom.delete(&path).status, 204);
    tom.delete(&path).refused(404, "NOT_FOUND");
    use_key(&key, "POST", "/api/v1/query", query).refused(401, "AUTHENTICATION_FAILED");
    for bad in [
        json!({ "name": "x", "permissions": ["nonsense"] }),
        json!({ "name": "x", "addresses": ["nowhere"] }),
        json!({}),
    ] {
        tom.post("/api/v1/auth/api-keys", bad).refused(400, "VALIDATION_ERROR");
    }
}

/// A key for one table reaches nothing else of its role: neither other keys nor jobs nor sessions.
#[test]
fn a_key_for_one_table_is_for_nothing_else() {
    let alice = role("alice_of_keys");
    let made = |permissions: Value| {
        let body = json!({ "name": "k", "permissions": permissions });
        alice.post("/api/v1/auth/api-keys", body).expect(201)
    };
    let (narrow, other) = (made(json!(["read:tables:t"])), made(json!([])));
    let key = |made: &Value| made["key"].as_str().unwrap().to_owned();
    let ask = |made: &Value, method: &str, path: &str| {
        with(("x-api-key", &key(made)), method, path, Value::Null)
    };
    let revoke = |of: &Value| format!("/api/v1/auth/api-keys/{}", of["key_id"].as_str().unwrap());
    ask(&narrow, "DELETE", &revoke(&other)).refused(403, "AUTHORIZATION_FAILED");
    ask(&other, "DELETE", &revoke(&narrow)).refused(403, "AUTHORIZATION_FAILED");
    ask(&other, "GET", "/api/v1/auth/me").expect(200);
    // One for keys sees them; none is more than itself.
    let parts = json!([{ "resource": "keys", "action": "manage" }, "read:tables:t"]);
    let keeper = made(parts);
    let list = ask(&keeper, "GET", "/api/v1/auth/api-keys").expect(200);
    assert_eq!(list["total"], 3);
    assert!(list.to_string().contains("manage:keys"), "{list}");
    assert_eq!(ask(&keeper, "DELETE", &revoke(&keeper)).status, 204);

    // What such a key may ask for all the same, and why.
    let may = [
        ("/api/v1/auth/", "about itself, or before anybody is known"),
        ("/api/v1/info", "what the server is: anybody who may come in may know"),
        ("/api/v1/openapi", "the description"),
        ("/docs", "the description"),
        ("/redoc", "the description"),
        ("/api/v1/health", "probes"),
        ("/health", "probes"),
        ("/api/v1/tables/t/rows", "its table"),
    ];
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let described: Value =
        serde_json::from_str(&std::fs::read_to_string(document).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (path, item) in described["paths"].as_object().unwrap() {
        let is_allowed = may.iter().any(|(below, _)| path.starts_with(below));
        if is_allowed && !path.contains("api-keys") {
            continue;
        }
        let asked = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
        let asked = asked.collect::<Vec<_>>().join("/");
        for method in ["get", "put", "post", "patch", "delete"] {
            if item[method].is_null() {
                continue;
            }
            let body = if method == "get" { Value::Null } else { json!({}) };
            let narrow = key(&narrow);
            let answer = with(("x-api-key", &narrow), &method.to_uppercase(), &asked, body);
            // What is not there says so to whoever asks.
            if answer.status != 403 && answer.status != 501 {
                wrong.push(format!("{method} {path}: {} {}", answer.status, answer.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_log_in_takes_the_password_as_it_comes() {
    let oda = role("oda");
    let tokens = oda.send("POST", "/api/v1/auth/login", &[], b"").expect(200);
    assert_eq!(tokens["user"], "oda");
    let nobody = Api::nobody(guarded());
    let factor = json!({ "username": "oda", "password": "oda-secret", "mfa_code": "123456" });
    nobody.post("/api/v1/auth/login", factor).expect(200);
    nobody.send("POST", "/api/v1/auth/login", &[], b"").refused(400, "VALIDATION_ERROR");
    let half = json!({ "username": "oda" });
    oda.post("/api/v1/auth/login", half).refused(400, "VALIDATION_ERROR");
    let wrong = Api::of(guarded(), "oda", "wrong");
    wrong.send("POST", "/api/v1/auth/login", &[], b"").refused(401, "AUTHENTICATION_FAILED");
}

/// A name is a value, wherever it stands in a statement of RustyDB's own.
#[test]
fn no_name_is_sql() {
    let made = "select rolname from pg_roles where rolname like 'injected%'";
    for (at, name) in ["x\n; CREATE ROLE injected SUPERUSER; --", "x'; CREATE ROLE injected; --"]
        .into_iter()
        .enumerate()
    {
        let body = json!({ "username": name, "password": "x" });
        let answer = Api::nobody(guarded()).post("/api/v1/auth/login", body);
        answer.refused(401, "AUTHENTICATION_FAILED");
        let sql = format!("create role \"{name}{at}\" login password 'secret-{at}'");
        admin().post("/api/v1/query", json!({ "sql": sql })).expect(200);
        let body = json!({ "username": format!("{name}{at}"), "password": format!("secret-{at}") });
        let tokens = Api::nobody(guarded()).post("/api/v1/auth/login", body).expect(200);
        let me = bearer(&tokens["access_token"], "GET", "/api/v1/auth/me", Value::Null);
        assert_eq!(me.expect(200)["user"], format!("{name}{at}"));
        let rows = admin().post("/api/v1/query", json!({ "sql": made })).expect(200);
        assert_eq!(rows["rows"], json!([]));
    }
}

/// Watching the server is not everybody's business.
#[test]
fn a_plain_role_does_not_watch_the_server() {
    role("rita").get("/api/v1/metrics").refused(403, "AUTHORIZATION_FAILED");
    assert_eq!(admin().get("/api/v1/metrics").status, 200);
}
