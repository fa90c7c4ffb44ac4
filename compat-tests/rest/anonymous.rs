//! Roles without LOGIN, which tokens of other issuers name, and requests that show nothing.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::harness::{Server, temp_dir};

const SECRET: &str = "a secret of at least thirty-two bytes";

const CONFIG: &str = r#"
[api]
authenticator_role = "authenticator"
anonymous_role = "anon"

[[security.jwt.issuers]]
issuer = "https://id.example"
audience = ["authenticated"]
algorithms = ["HS256"]
keys = [{ secret = "a secret of at least thirty-two bytes" }]
"#;

const DEFINITIONS: &str = "
    create role anon nologin;
    create role authenticated nologin;
    create role stranger nologin;
    create role authenticator login password 'a' noinherit;
    grant anon, authenticated to authenticator;
    create table note (id int primary key, owner text not null, body text);
    insert into note values (1, 'ann', 'hers'), (2, 'bob', 'his'), (3, 'all', 'everybody''s');
    grant select on note to anon, authenticated;
    grant insert on note to authenticated;
    alter table note enable row level security;
    create policy everybodys on note for select using (owner = 'all');
    create policy own on note to authenticated
        using (owner = current_setting('request.jwt.claims')::json->>'sub');
    create role direct login;
    grant select on note to direct;
    create policy owns on note to direct
        using (owner = current_setting('request.jwt.claims', true)::json->>'sub');
    create function whoami() returns json stable language sql as
        $$ select json_build_object('current', current_user, 'session', session_user) $$;
    create table signed (at int generated always as identity, who text);
    create function sign() returns text language sql security definer as
        $$ insert into signed (who)
        values (coalesce(current_setting('request.jwt.claims', true)::json->>'sub', 'nobody'))
        returning who $$;
    create function put_off() returns text language plpgsql as
        $$ begin perform set_config('role', 'none', true); return current_user; end $$;
";

fn start() -> Server {
    let folder = temp_dir();
    let file = folder.path().join("rustydb.toml");
    fs::write(&file, CONFIG).unwrap();
    let server = Server::builder().arg("--config").arg(file.to_str().unwrap()).start();
    assert_eq!(server.psql(DEFINITIONS).stderr, "");
    server
}

fn token(role: &str, subject: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "https://id.example", "aud": "authenticated", "sub": subject, "role": role,
        "iat": now, "exp": now + 600,
    });
    let signed = format!("{}.{}", part(json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

fn ask(server: &Server, token: Option<&str>, method: &str, path: &str, body: &Value) -> Answer {
    let header = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(header.as_deref().map(|value| ("authorization", value)));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Api::nobody(server).send(method, path, &headers, body.as_bytes())
}

#[test]
fn roles_without_log_in_are_taken_on_for_rows_and_for_nothing_else() {
    let server = &start();
    let get = |token: Option<&str>, path: &str| ask(server, token, "GET", path, &Value::Null);
    let bodies = |answer: Answer| {
        let rows = answer.expect(200);
        let rows = rows.get("items").unwrap_or(&rows).as_array().unwrap().clone();
        rows.iter().map(|row| row["body"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (ann, anon) = (token("authenticated", "ann"), token("anon", "x"));
    for path in ["/rest/v1/note?select=body&order=id", "/api/v1/tables/note/rows?sort=id"] {
        assert_eq!(bodies(get(Some(&ann), path)), ["hers", "everybody's"], "{path}");
        assert_eq!(bodies(get(Some(&anon), path)), ["everybody's"], "{path}");
        assert_eq!(bodies(get(None, path)), ["everybody's"], "{path}");
    }
    let who = |token| get(token, "/rest/v1/rpc/whoami").expect(200);
    assert_eq!(who(Some(&ann)), json!({ "current": "authenticated", "session": "authenticator" }));
    assert_eq!(who(None), json!({ "current": "anon", "session": "authenticator" }));

    // Who asks is known in his transaction, too.
    let direct = token("direct", "bob");
    let begun = ask(server, Some(&direct), "POST", "/api/v1/transactions", &json!({})).expect(201);
    let headers = [
        ("authorization", format!("Bearer {direct}")),
        ("x-transaction-id", begun["transaction_id"].to_string()),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for headers in [&headers[..1], &headers] {
        let path = "/api/v1/tables/note/rows?sort=id";
        let answer = Api::nobody(server).send("GET", path, headers, b"");
        assert_eq!(bodies(answer), ["his", "everybody's"]);
    }

    let note = |owner: &str| json!({ "id": 9, "owner": owner, "body": "new" });
    let post = |token, note: &Value| ask(server, token, "POST", "/rest/v1/note", note);
    assert_eq!(post(None, &note("anon")).status, 401, "nobody may say who he is");
    assert_eq!(post(Some(&ann), &note("bob")).status, 403, "row security");
    assert_eq!(post(Some(&ann), &note("ann")).status, 201);

    // Many at once, for which PostgreSQL does not copy: the policies hold all the same.
    let many = |token: &str, body: &str| {
        let token = format!("Bearer {token}");
        let headers = [("content-type", "text/csv"), ("authorization", token.as_str())];
        Api::nobody(server).send("POST", "/api/v1/tables/note/rows", &headers, body.as_bytes())
    };
    many(&ann, "id,owner\n20,ann\n21,bob\n").refused(403, "AUTHORIZATION_FAILED");
    assert_eq!(many(&ann, "id,owner\n20,ann\n21,ann\n").expect(201)["affected_rows"], 2);

    // A function that puts the role off does so for its transaction at most.
    ask(server, Some(&anon), "POST", "/rest/v1/rpc/put_off", &json!({}));
    assert_eq!(who(Some(&anon))["current"], "anon");

    // The authenticator is no member of it.
    let refused = get(Some(&token("stranger", "x")), "/rest/v1/note");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(get(Some(&token("nobody", "x")), "/rest/v1/note").status, 401);
    // Its own SQL could put the role off.
    let query = json!({ "sql": "reset role; select current_user" });
    for token in [&ann, &anon] {
        let answer = ask(server, Some(token), "POST", "/api/v1/query", &query);
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let nobody = ask(server, None, "POST", "/api/v1/query", &json!({ "sql": "select 1" }));
    assert_eq!(nobody.status, 401);
}

#[test]
fn those_who_share_a_role_have_their_own_idempotency_keys() {
    let server = &start();
    let sign = |token: Option<&str>| {
        let header = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json"), ("idempotency-key", "one")];
        headers.extend(header.as_deref().map(|value| ("authorization", value)));
        let answer = Api::nobody(server).send("POST", "/rest/v1/rpc/sign", &headers, b"{}");
        let again = answer.header("idempotency-replayed") == "true";
        (answer.expect(200), again)
    };
    let (ann, bob) = (token("authenticated", "ann"), token("authenticated", "bob"));
    for again in [false, true] {
        assert_eq!(sign(Some(&ann)), (json!("ann"), again));
        assert_eq!(sign(Some(&bob)), (json!("bob"), again));
        // The subject alone is nobody: the role counts, too.
        assert_eq!(sign(Some(&token("anon", "ann"))), (json!("ann"), again));
        assert_eq!(sign(None), (json!("nobody"), again));
    }
    let signed = server.direct_value("select string_agg(who, ' ' order by at) from signed");
    assert_eq!(signed, "ann bob ann nobody");
}

#[test]
fn a_role_that_is_taken_on_brings_its_settings() {
    let server = &start();
    let ready = server.psql(
        "alter role anon set statement_timeout = '300ms';
         alter role anon set default_transaction_isolation = 'Serializable';
         alter role anon set log_min_messages = 'fatal';
         alter role anon set timezone = 'Asia/Tokyo';
         alter role anon set app.tenant = 'all';
         alter role authenticated set work_mem = '1MB';
         alter role authenticated set default_transaction_read_only = on;
         select format('alter role authenticated in database %I set work_mem = %L',
             current_database(), '7MB') \\gexec
         create function setting(name text) returns text language sql as
             $$ select current_setting(name, true) $$;
         create function nap() returns void language sql as $$ select pg_sleep(5) $$;
         create function brief() returns void language sql set statement_timeout = '200ms'
             as $$ select pg_sleep(5) $$;
         create function careful() returns text language sql
             set default_transaction_isolation = 'repeatable read'
             as $$ select current_setting('transaction_isolation') $$;
         create function rest_late() returns trigger language plpgsql as
             $$ begin perform pg_sleep(5); return new; end $$;
         create table late (id int);
         create trigger late before insert on late execute function rest_late();
         grant select, insert on late to anon;
         create function span() returns interval language sql as
             $$ select interval '1 year 2 mons 3 days 04:05:06' $$;
         create function moment() returns timestamptz language sql as
             $$ select timestamptz '2026-01-02 03:04:05Z' $$;",
    );
    assert_eq!(ready.stderr, "");
    let (ann, direct) = (token("authenticated", "ann"), token("direct", "bob"));
    let call = |token: Option<&str>, name: &str, body: Value| {
        ask(server, token, "POST", &format!("/rest/v1/rpc/{name}"), &body)
    };
    let setting = |token, name: &str| {
        call(token, "setting", json!({ "name": name })).expect(200).as_str().unwrap().to_owned()
    };
    assert_eq!(setting(None, "statement_timeout"), "300ms");
    assert_eq!(setting(None, "transaction_isolation"), "serializable");
    assert_eq!(setting(None, "TimeZone"), "Asia/Tokyo");
    assert_eq!(setting(None, "app.tenant"), "all");
    assert_eq!(call(None, "moment", json!({})).expect(200), "2026-01-02T12:04:05+09:00");
    assert_eq!(call(None, "span", json!({})).expect(200), "1 year 2 mons 3 days 04:05:06");
    assert_eq!(setting(None, "log_min_messages"), "warning", "the authenticator may not set it");
    assert_eq!(setting(Some(&ann), "work_mem"), "7MB");
    assert_eq!(setting(Some(&ann), "transaction_read_only"), "on");
    assert_eq!(setting(Some(&direct), "statement_timeout"), "0", "nobody else has them");
    assert_eq!(setting(Some(&direct), "transaction_isolation"), "read committed");
    // They hold for the statement beside which they are set.
    let late = |answer: Answer| assert!(answer.text.contains("57014"), "{}", answer.text);
    late(call(None, "nap", json!({})));
    let csv = [("content-type", "text/csv")];
    let rows = "/api/v1/tables/late/rows";
    late(Api::nobody(server).send("POST", rows, &csv, b"id\n1\n"));
    late(ask(server, None, "POST", rows, &json!({ "id": 1 })));
    // Those of a function hold for its call, whoever calls it.
    late(call(Some(&direct), "brief", json!({})));
    assert_eq!(call(Some(&direct), "careful", json!({})).expect(200), "repeatable read");
    // Too many are refused, and not left out.
    let many: String = (0..21).map(|n| format!("alter role anon set app.n{n} = '1';")).collect();
    assert_eq!(server.psql(&many).stderr, "");
    for _ in 0..100 {
        let answer = call(None, "setting", json!({ "name": "app.n20" }));
        if answer.status != 200 {
            assert!(answer.text.contains("settings"), "{}", answer.text);
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("more settings than can be taken on are left out");
}
