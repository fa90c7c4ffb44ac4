//! `/rest/v1`: PostgREST's dialect, as its documentation says and as its clients expect.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::api::{Answer, Api, admin};
use crate::harness::Server;
use crate::harness::shared::guarded;
use crate::installed::{self, Language};

/// A schema with films, made once; everybody who asks has a role of his own.
fn films() -> &'static Server {
    static MADE: OnceLock<()> = OnceLock::new();
    let server = guarded();
    MADE.get_or_init(|| {
        let made = server.psql(include_str!("postgrest.sql"));
        assert_eq!((made.stderr.as_str(), made.code), ("", Some(0)), "{}", made.stdout);
    });
    server
}

fn reader() -> Api<'static> {
    Api::of(films(), "rest_reader", "r")
}

/// Fails unless it is this error in PostgREST's form.
#[track_caller]
fn refused(answer: Answer, status: u16, code: &str) -> Value {
    let json = answer.json.clone();
    assert_eq!((answer.status, &json["code"]), (status, &code.into()), "{}", answer.text);
    for field in ["message", "details", "hint"] {
        assert!(json.get(field).is_some(), "{field} is missing: {}", answer.text);
    }
    json
}

#[test]
fn rows_are_read() {
    films();
    let api = admin();
    let found = api.get("/rest/v1/films?id=eq.1&select=id,title,director:directors(name)");
    assert_eq!(found.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(found.header("content-range"), "0-0/*");
    let expected = json!([{ "id": 1, "title": "Alien", "director": { "name": "Scott" } }]);
    assert_eq!(found.expect(200), expected);
    let page = api.send(
        "GET",
        "/rest/v1/films?select=id&order=id&limit=2&offset=1",
        &[("prefer", "count=exact")],
        b"",
    );
    assert_eq!(page.header("content-range"), "1-2/5");
    assert_eq!(page.header("preference-applied"), "count=exact");
    assert_eq!(page.expect(206), json!([{ "id": 2 }, { "id": 3 }]));
    let head = api.send("HEAD", "/rest/v1/films", &[("prefer", "count=exact")], b"");
    assert_eq!((head.status, head.header("content-range"), &*head.text), (200, "0-4/5", ""));
    let one = [("accept", "application/vnd.pgrst.object+json")];
    let found = api.send("GET", "/rest/v1/films?id=eq.2&select=title", &one, b"");
    assert_eq!(found.header("content-type"), "application/vnd.pgrst.object+json; charset=utf-8");
    assert_eq!(found.expect(200), json!({ "title": "Blade Runner" }));
    let several = refused(api.send("GET", "/rest/v1/films", &one, b""), 406, "PGRST116");
    assert_eq!(several["details"], "The result contains 5 rows");
    let csv = api.send(
        "GET",
        "/rest/v1/films?id=lt.3&select=id,title&order=id",
        &[("accept", "text/csv")],
        b"",
    );
    assert_eq!(csv.text, "id,title\r\n1,Alien\r\n2,Blade Runner\r\n");
    let values = api.get("/rest/v1/kinds?select=*").expect(200);
    assert_eq!(
        values,
        json!([{
            "big": 9_007_199_254_740_993_i64, "num": 1.10, "at": "2026-01-02T03:04:05+00:00",
            "data": "\\x00ff", "list": [1, null], "doc": { "a": 1.0 },
        }])
    );
}

/// A token of a role, as its log-in gives it.
fn token(role: &str, password: &str) -> String {
    let login = json!({ "username": role, "password": password });
    let given = Api::nobody(films()).post("/api/v1/auth/login", login).expect(200);
    given["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn the_client_of_supabase_works_unchanged() {
    let Some(packages) = installed::find("postgrest_js", Language::Node) else { return };
    let server = films();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/compat-tests/rest/postgrest.js"))
        .args([server.url("/rest/v1"), token("rest_writer", "w"), token("rest_reader", "r")])
        .env("NODE_PATH", packages.join("node_modules"))
        .output()
        .unwrap();
    let (said, failed) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}{failed}", String::from_utf8_lossy(&said));
    assert_eq!(String::from_utf8_lossy(&said).lines().count(), 8);
}
