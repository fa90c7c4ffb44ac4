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
fn values_of_functions_have_pages() {
    films();
    let api = admin();
    let count = [("prefer", "count=exact")];
    let page = api.send("GET", "/rest/v1/rpc/numbers?most=5&limit=2&offset=1", &count, b"");
    assert_eq!(page.header("content-range"), "1-2/5");
    assert_eq!(page.expect(206), json!([2, 3]));
    let page = api.send("GET", "/rest/v1/rpc/numbers?most=5&limit=2&offset=4", &[], b"");
    assert_eq!(page.header("content-range"), "4-4/*");
    assert_eq!(page.expect(200), json!([5]));
    let all = api.send("GET", "/rest/v1/rpc/numbers?most=3", &count, b"");
    assert_eq!(all.header("content-range"), "0-2/3");
    assert_eq!(all.expect(200), json!([1, 2, 3]));
    let range = [("range", "2-3"), ("content-type", "application/json")];
    let posted = api.send("GET", "/rest/v1/rpc/numbers?most=9", &range, b"");
    assert_eq!(posted.json, json!([3, 4]));
}

#[test]
fn requests_of_one_shape_are_planned_once() {
    let server = Server::start();
    let made = server.psql(
        "create table parts (id int primary key, name text, kind text);
         insert into parts select i, 'part ' || i, 'k' || i % 2 from generate_series(1, 9) i",
    );
    assert_eq!((made.stderr.as_str(), made.code), ("", Some(0)), "{}", made.stdout);
    let api = Api::of(&server, "rustydb", &server.password);
    let metric = |name: &str| -> i64 {
        let text = api.get("/api/v1/metrics").text;
        let line = text.lines().find(|line| line.starts_with(&format!("rustydb_api_{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let name = |id: &str| {
        let path = format!("/rest/v1/parts?id=eq.{id}&select=name");
        api.once("GET", &path, &[], b"")
    };
    for id in 1..=5 {
        let expected = json!([{ "name": format!("part {id}") }]);
        assert_eq!(name(&id.to_string()).expect(200), expected);
    }
    assert_eq!(name("77").expect(200), json!([]));
    let told = ["templates", "template_hits_total", "template_misses_total"].map(metric);
    assert_eq!(told, [1, 4, 2]);
    // A value that is none is refused as it would be the first time.
    assert_eq!(refused(name("x"), 400, "22P02")["message"], {
        "invalid input syntax for type integer: \"x\""
    });
    // Headers are a part of it.
    for _ in 0..3 {
        let path = "/rest/v1/parts?kind=eq.k0&limit=2&select=id&order=id";
        let page = api.once("GET", path, &[("prefer", "count=exact")], b"");
        assert_eq!(page.header("content-range"), "0-1/4");
        assert_eq!(page.expect(206), json!([{ "id": 2 }, { "id": 4 }]));
        let csv = api.once("GET", path, &[("accept", "text/csv")], b"");
        assert_eq!((csv.status, &*csv.text), (200, "id\r\n2\r\n4\r\n"));
    }
    let one = [("accept", "application/vnd.pgrst.object+json")];
    for (id, status) in [(1, 200), (2, 200), (3, 200), (77, 406)] {
        let path = format!("/rest/v1/parts?id=eq.{id}&select=name");
        assert_eq!(api.once("GET", &path, &one, b"").status, status);
    }
    // Definitions that have changed count at once.
    let all = |id: i32| api.once("GET", &format!("/rest/v1/parts?id=eq.{id}"), &[], b"");
    (1..=3).for_each(|id| assert_eq!(all(id).json[0]["kind"], json!(format!("k{}", id % 2))));
    let altered = server.psql("alter table parts drop column kind, add column weight int");
    assert_eq!((altered.stderr.as_str(), altered.code), ("", Some(0)));
    let changed = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        all(1).json == json!([{ "id": 1, "name": "part 1", "weight": null }])
    });
    assert!(changed, "{}", all(1).text);
    assert_eq!(name("4").expect(200), json!([{ "name": "part 4" }]));
}

#[test]
fn what_was_altered_past_rustydb_is_read_at_once() {
    let server = Server::start();
    let made = server.psql(
        "create table boxes (id int primary key, old text);
         create table things (id int primary key, box int references boxes, old text);
         insert into boxes values (1, 'x'); insert into things values (2, 1, 'y')",
    );
    assert_eq!((made.stderr.as_str(), made.code), ("", Some(0)), "{}", made.stdout);
    let api = Api::of(&server, "rustydb", &server.password);
    let once = |path: &str| api.once("GET", path, &[], b"").expect(200);
    let (rows, nested) = ("/rest/v1/boxes?id=eq.1", "/rest/v1/boxes?id=eq.1&select=id,things(*)");
    for _ in 0..4 {
        assert_eq!(once(rows), json!([{ "id": 1, "old": "x" }]));
        let things = json!([{ "id": 2, "box": 1, "old": "y" }]);
        assert_eq!(once(nested), json!([{ "id": 1, "things": things }]));
    }
    server.direct_psql("alter table boxes add size int; alter table things drop old, add new int");
    let things = json!([{ "id": 2, "box": 1, "new": null }]);
    assert_eq!(once(nested), json!([{ "id": 1, "things": things }]));
    assert_eq!(once(rows), json!([{ "id": 1, "old": "x", "size": null }]));
    // What a function raises is not taken for that: it runs once.
    let made = server.psql(
        "create function counted() returns int language plpgsql as $$ begin
             raise log 'it is called'; raise undefined_table; end $$",
    );
    assert_eq!((made.stderr.as_str(), made.code), ("", Some(0)), "{}", made.stdout);
    for _ in 0..2 {
        refused(api.once("GET", "/rest/v1/rpc/counted", &[], b""), 404, "42P01");
    }
    server.psql("do $$ begin raise log 'this is the end'; end $$");
    server.log_line(&["this is the end"]);
    assert_eq!(server.log().matches("it is called").count(), 2);
    // What is not there is not there.
    refused(api.once("GET", "/rest/v1/boxes?nothing=eq.1", &[], b""), 400, "42703");
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
            "data": "\\x00ff", "list": [1, null], "doc": { "a": 1.0 }, "o": "7",
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

#[test]
fn row_security_sees_the_claims() {
    films();
    let whose = |api: &Api<'_>| api.get("/rest/v1/owned?select=id").expect(200);
    assert_eq!(whose(&Api::of(guarded(), "ada", "a")), json!([{ "id": 1 }]));
    assert_eq!(whose(&reader()), json!([]));
    // Clients of Supabase send a key, and a token only when somebody has logged in.
    let token = token("ada", "a");
    let apikey = [("apikey", token.as_str())];
    let nobody = Api::nobody(guarded());
    let found = nobody.send("GET", "/rest/v1/owned?select=what", &apikey, b"");
    assert_eq!(found.expect(200), json!([{ "what": "x" }]));
    refused(nobody.get("/rest/v1/owned"), 401, "PGRST301");
    // Nothing of a request is left for the next one on the same connection.
    let left =
        reader().send("GET", "/rest/v1/rpc/whoami", &[("x-tenant", "acme")], b"").expect(200);
    assert_eq!((&left["tenant"], &left["method"]), (&"acme".into(), &"GET".into()));
    assert_eq!((&left["at"], &left["cookie"]), (&"/rpc/whoami".into(), &Value::Null));
    let cookies = [("cookie", "theme=dark")];
    let left = reader().send("GET", "/rest/v1/rpc/whoami", &cookies, b"").expect(200);
    assert_eq!(left["cookie"], "dark");
    let left = reader().get("/rest/v1/rpc/whoami").expect(200);
    assert_eq!(left["cookie"], Value::Null);
    let zone = films().direct_value("show timezone");
    assert_eq!((&left["tenant"], &left["zone"]), (&Value::Null, &zone.into()));
    let query = json!({ "sql": "select current_setting('request.jwt.claims', true) as v" });
    let seen = reader().post("/api/v1/query", query).expect(200);
    assert!(matches!(seen["rows"][0]["v"].as_str(), None | Some("")), "{seen}");
}

#[test]
fn one_row_is_put_in_its_place() {
    films();
    let api = admin();
    let put = |path: &str, prefer: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("prefer", prefer)];
        api.send("PUT", path, &headers, body.as_bytes())
    };
    let full = "return=representation";
    let made = put("/rest/v1/actors?id=eq.70", full, r#"{"id":70,"name":"new"}"#);
    assert_eq!(made.expect(200), json!([{ "id": 70, "name": "new" }]));
    assert_eq!(put("/rest/v1/actors?id=eq.70", "", r#"{"id":70,"name":"newer"}"#).status, 204);
    let other = put("/rest/v1/actors?id=eq.70", full, r#"{"id":71,"name":"x"}"#);
    refused(other, 400, "PGRST115");
    refused(put("/rest/v1/actors?name=eq.x", full, r#"{"id":71,"name":"x"}"#), 405, "PGRST105");
    let found = api.get("/rest/v1/actors?id=gte.70").expect(200);
    assert_eq!(found, json!([{ "id": 70, "name": "newer" }]));
    let headers = [("content-type", "application/json"), ("prefer", "return=headers-only")];
    let place = api.send("POST", "/rest/v1/actors", &headers, br#"{"id":72,"name":"y"}"#);
    assert_eq!((place.status, place.header("location")), (201, "/rest/v1/actors?id=eq.72"));
    assert_eq!(api.delete("/rest/v1/actors?id=gte.70").status, 204);
}

#[test]
fn values_of_functions_in_their_content_types() {
    films();
    let api = admin();
    let get = |path: &str, accept: &str| api.send("GET", path, &[("accept", accept)], b"");
    let text = get("/rest/v1/rpc/add_up?a=2&b=3", "text/plain");
    assert_eq!((text.header("content-type"), &*text.text), ("text/plain; charset=utf-8", "5"));
    let bytes = get("/rest/v1/rpc/bytes", "application/octet-stream");
    assert_eq!(bytes.header("content-type"), "application/octet-stream");
    assert_eq!(bytes.header("content-length"), "3");
    assert_eq!(get("/rest/v1/rpc/bytes", "*/*").expect(200), "\\x00ff41");
    refused(get("/rest/v1/films", "text/plain"), 406, "PGRST107");
    let methods = api.send("OPTIONS", "/rest/v1/films", &[], b"");
    assert_eq!(methods.header("allow"), "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE");
    let described = api.get("/rest/v1/");
    assert_eq!(described.header("content-type"), "application/openapi+json; charset=utf-8");
    let described = described.expect(200);
    assert_eq!(described["swagger"], "2.0");
    assert_eq!(described["definitions"]["films"]["description"], "Films, all of them");
    let year = &described["definitions"]["films"]["properties"]["year"];
    assert_eq!((&year["type"], &year["format"]), (&"integer".into(), &"int4".into()));
    assert!(described["paths"]["/rpc/add_up"]["post"].is_object());
}

#[test]
fn members_that_are_null_can_be_left_out() {
    films();
    let api = admin();
    let made = guarded().psql(
        "create table sparse (id int primary key, a text, j json, of int references sparse);
        insert into sparse values (1, null, '{\"x\": null, \"y\": [null, {\"z\": null}]}', null),
            (2, 'b', null, 1);
        create function sparse_one() returns json stable language sql as
            $$ select '{\"a\": null, \"b\": 1}'::json $$;",
    );
    assert_eq!(made.stderr, "");
    let array = "application/vnd.pgrst.array+json;nulls=stripped";
    let object = "application/vnd.pgrst.object+json;nulls=stripped";
    let get = |path: &str, accept: &str| {
        let answer = api.send("GET", path, &[("accept", accept)], b"");
        assert_eq!(answer.header("content-type"), format!("{accept}; charset=utf-8"));
        answer.expect(200)
    };
    let rows = "/rest/v1/sparse?select=id,a,j,of(id,a,of)&order=id";
    assert_eq!(
        get(rows, array),
        json!([{ "id": 1, "j": { "y": [null, {}] } }, { "id": 2, "a": "b", "of": { "id": 1 } }])
    );
    assert_eq!(get("/rest/v1/sparse?id=eq.2&select=id,a,j", object), json!({ "id": 2, "a": "b" }));
    assert_eq!(get("/rest/v1/rpc/sparse_one", array), json!({ "b": 1 }));
    let usual = get("/rest/v1/sparse?id=eq.2&select=id,j", "application/vnd.pgrst.object+json");
    assert_eq!(usual, json!({ "id": 2, "j": null }));
    let headers = [("accept", array), ("prefer", "return=representation")];
    let changed = api.send("PATCH", "/rest/v1/sparse?id=eq.2", &headers, br#"{"a":null}"#);
    assert_eq!(changed.expect(200), json!([{ "id": 2, "of": 1 }]));
    let csv = [("accept", "text/csv;nulls=stripped")];
    refused(api.send("GET", "/rest/v1/sparse", &csv, b""), 406, "PGRST107");
}

#[test]
fn functions_say_what_the_answer_is_like() {
    films();
    let api = admin();
    let made = guarded().psql(
        "create table guided (n int);
        create function teapot() returns void language sql as
            $$ select set_config('response.status', '418', true) $$;
        create function cookies(n int) returns setof int language plpgsql as $$ begin
            insert into guided values (n);
            perform set_config('response.headers',
                '[{\"Set-Cookie\": \"a=b\"}, {\"Set-Cookie\": \"c=d\"}, {\"X-Mine\": \"1\"}]', true);
            return query select generate_series(1, n); end $$;
        create function page() returns text stable language plpgsql as $$ begin
            perform set_config('response.headers', '[{\"Content-Type\": \"text/html\"}]', true);
            return '<p>'; end $$;
        create function nonsense(what text, value text) returns int language plpgsql as $$ begin
            insert into guided values (99);
            perform set_config('response.' || what, value, true); -- response.status, response.headers
            return 1; end $$;",
    );
    assert_eq!(made.stderr, "");
    let call = |name: &str, body: Value| api.post(&format!("/rest/v1/rpc/{name}"), body);
    assert_eq!(call("teapot", json!({})).status, 418);
    let cookies = call("cookies", json!({ "n": 2 }));
    let set: Vec<_> = cookies.headers.get_all("set-cookie").iter().collect();
    assert_eq!(set, ["a=b", "c=d"]);
    assert_eq!(cookies.header("x-mine"), "1");
    assert_eq!(cookies.expect(200), json!([1, 2]));
    let none = call("cookies", json!({ "n": 0 }));
    assert_eq!((none.header("x-mine").to_owned(), none.expect(200)), ("1".to_owned(), json!([])));
    let page = api.send("GET", "/rest/v1/rpc/page", &[("accept", "text/plain")], b"");
    assert_eq!((page.header("content-type"), &*page.text), ("text/html", "<p>"));
    // Nothing of it is left for others on the same connection.
    let plain = api.get("/rest/v1/rpc/add_up?a=2&b=3");
    assert_eq!((plain.header("x-mine"), plain.header("set-cookie"), plain.status), ("", "", 200));
    // What is no status or no header is an error, and nothing has happened.
    for (what, value, code) in [
        ("status", "many", "PGRST112"),
        ("headers", "{}", "PGRST111"),
        ("headers", "x", "PGRST111"),
    ] {
        refused(call("nonsense", json!({ "what": what, "value": value })), 500, code);
    }
    assert_eq!(call("nonsense", json!({ "what": "status", "value": "202" })).status, 202);
    let kept = guarded().direct_value("select string_agg(n::text, ' ' order by n) from guided");
    assert_eq!(kept, "0 2 99");
}

/// Memory is the memory of a chunk, and the head tells what can be known of the rows then.
#[test]
fn long_results_are_streamed() {
    films();
    let api = admin();
    let headers = [("content-type", "application/json")];
    let long = api.send("POST", "/rest/v1/rpc/numbers", &headers, br#"{"most":200000}"#);
    let numbers = long.expect(200);
    assert_eq!(numbers.as_array().unwrap().len(), 200_000);
    assert_eq!(numbers[199_999], 200_000);
}

#[test]
fn results_of_functions_have_their_columns() {
    films();
    let api = admin();
    let made = guarded().psql(
        "create function single_out(num int, out num_plus_one int) language sql as
            $$ select num + 1 $$;
        create function single_inout(inout num int) language sql as $$ select num + 1 $$;
        create function a_record() returns record language sql stable as
            $$ select 1 as id, 'x'::text as nm $$;
        create function some_records(most int) returns setof record language sql stable as
            $$ select n as id, 'x'::text as nm from generate_series(1, most) n $$;
        create function listed(variadic v text[]) returns text[] language sql immutable as
            $$ select v $$;
        create type point_3d as (x int, y int, label text);
        create function points() returns setof point_3d language sql stable as
            $$ values (1, 2, 'a'), (3, 4, 'b') $$;
        create function say_hello(name text) returns text language sql as $$ select name $$;
        create function malformed(message text, detail text default null) returns void
            language plpgsql as $$ begin
            if detail is null then raise sqlstate 'PGRST' using message = message; end if;
            raise sqlstate 'PGRST' using message = message, detail = detail; end $$;",
    );
    assert_eq!(made.stderr, "");
    let get = |path: &str| api.get(&format!("/rest/v1/rpc/{path}")).expect(200);
    assert_eq!(get("single_out?num=5"), json!({ "num_plus_one": 6 }));
    assert_eq!(get("single_out?num=5&select=n:num_plus_one::text"), json!({ "n": "6" }));
    assert_eq!(get("single_inout?num=5"), json!({ "num": 6 }));
    let posted = api.post("/rest/v1/rpc/single_out", json!({ "num": 1 }));
    assert_eq!(posted.expect(200), json!({ "num_plus_one": 2 }));
    assert_eq!(get("a_record"), json!({ "id": 1, "nm": "x" }));
    let two = json!([{ "id": 1, "nm": "x" }, { "id": 2, "nm": "x" }]);
    assert_eq!(get("some_records?most=2"), two);
    let posted = api.post("/rest/v1/rpc/some_records", json!({ "most": 2 }));
    assert_eq!(posted.expect(200), two);
    assert_eq!(get("some_records?most=9&offset=1&limit=1"), json!([{ "id": 2, "nm": "x" }]));
    assert_eq!(get("listed?v=%7Bhi%7D"), json!(["{hi}"]));
    assert_eq!(get("listed?v=%7Ba,b%7D&v=c"), json!(["{a,b}", "c"]));
    assert_eq!(get("points?select=x,l:label&y=gt.2&order=x"), json!([{ "x": 3, "l": "b" }]));
    assert_eq!(get("points?limit=1"), json!([{ "x": 1, "y": 2, "label": "a" }]));
    // Of several objects the first is meant.
    let several = api.post("/rest/v1/rpc/add_up", json!([{ "a": 1, "b": 2 }, { "a": 4, "b": 6 }]));
    assert_eq!(several.expect(200), 3);
    let exact = [("prefer", "count=exact")];
    let counted = api.send("GET", "/rest/v1/rpc/add_up?a=1", &exact, b"");
    assert_eq!((counted.status, counted.header("content-range")), (200, "0-0/1"));
    for (path, hint) in [
        ("say_hell", json!("Perhaps you meant to call the function public.say_hello")),
        ("say_hello", json!("Perhaps you meant to call the function public.say_hello(name)")),
        ("nothing_is_like_this", Value::Null),
    ] {
        let answer = api.get(&format!("/rest/v1/rpc/{path}"));
        assert_eq!(refused(answer, 404, "PGRST202")["hint"], hint, "{path}");
    }
    let said = r#"{"code":"1","message":"pay"}"#;
    for (body, details) in [
        (json!({ "message": "INVALID" }), "Invalid JSON value for MESSAGE: 'INVALID'"),
        (json!({ "message": said }), "DETAIL is missing in the RAISE statement"),
        (json!({ "message": said, "detail": "no" }), "Invalid JSON value for DETAIL: 'no'"),
    ] {
        let error = refused(api.post("/rest/v1/rpc/malformed", body), 500, "PGRST121");
        assert_eq!(error["details"], details);
        assert!(error["hint"].as_str().unwrap().contains("obligatory keys"));
    }
    let detail = r#"{"status":402,"headers":{"X-API-Version":"2","X-Own":"3"}}"#;
    let own = api.post("/rest/v1/rpc/malformed", json!({ "message": said, "detail": detail }));
    assert_eq!(own.status, 402);
    for (name, value) in [("x-api-version", "2"), ("x-own", "3"), ("x-frame-options", "DENY")] {
        assert_eq!(own.header(name), value);
    }
}

#[test]
fn views_have_the_key_of_their_table() {
    films();
    let api = admin();
    let made = guarded().psql(
        "create table shelf (id int primary key, name text not null, hidden int default 7);
        create view shelf_view as select name, id as number from shelf;
        create view shelf_over as select number as n, name from shelf_view;
        create view shelf_pairs as select a.id, a.name from shelf a, shelf b;
        create view shelf_last as select id, name from shelf order by id desc;
        insert into shelf values (1, 'a'), (2, 'b');",
    );
    assert_eq!(made.stderr, "");
    let send = |method: &str, path: &str, prefer: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("prefer", prefer)];
        api.send(method, path, &headers, body.as_bytes())
    };
    let merge = "resolution=merge-duplicates, return=representation";
    let merged = send("POST", "/rest/v1/shelf_view", merge, r#"{"number":1,"name":"c"}"#);
    assert_eq!(merged.json, json!([{ "name": "c", "number": 1 }]), "{}", merged.text);
    assert_eq!(
        merged.header("preference-applied"),
        "resolution=merge-duplicates, return=representation"
    );
    let place = send("POST", "/rest/v1/shelf_over", "return=headers-only", r#"{"n":3,"name":"d"}"#);
    assert_eq!((place.status, place.header("location")), (201, "/rest/v1/shelf_over?n=eq.3"));
    let put = send("PUT", "/rest/v1/shelf_over?n=eq.3", "", r#"{"n":3,"name":"e"}"#);
    assert_eq!(put.status, 204, "{}", put.text);
    let order = "/rest/v1/shelf?id=lt.3&order=id.desc&select=id";
    let changed = send("PATCH", order, "return=representation", r#"[{"name":"z"},{"name":"y"}]"#);
    assert_eq!(changed.expect(200), json!([{ "id": 2 }, { "id": 1 }]));
    let unnamed = "/rest/v1/shelf?id=eq.1&columns=name,hidden&select=name,hidden";
    let prefer = "missing=default, return=representation";
    let changed = send("PATCH", unnamed, prefer, r#"[{"name":"w"}]"#);
    assert_eq!(changed.expect(200), json!([{ "name": "w", "hidden": 7 }]));
    let pairs = send("PUT", "/rest/v1/shelf_pairs?id=eq.3", "", r#"{"id":3,"name":"e"}"#);
    refused(pairs, 405, "PGRST105");
    // Of the other API, too; what a view says of its own order stays.
    let row = api.get("/api/v1/tables/shelf_over/rows/3").expect(200);
    assert_eq!(row["name"], "e", "{row}");
    let page = api.get("/api/v1/tables/shelf_over/rows?limit=2&order=n").expect(200);
    assert!(page["next_cursor"].is_string(), "{page}");
    let last = api.get("/api/v1/tables/shelf_last/rows?limit=2").expect(200);
    assert_eq!(last["items"][0]["id"], 3, "{last}");
    assert_eq!(api.get("/api/v1/views/shelf_over").json.get("primary_key"), None);
}

#[test]
fn ranges_as_postgrest_reads_them() {
    films();
    let api = admin();
    let exact = ("prefer", "count=exact");
    let head = api.send("HEAD", "/rest/v1/films", &[exact, ("range", "1-2")], b"");
    assert_eq!((head.status, head.header("content-range")), (200, "0-4/5"));
    let beyond = api.send("GET", "/rest/v1/films?offset=100", &[exact], b"");
    assert_eq!(beyond.header("content-range"), "*/5");
    refused(beyond, 416, "PGRST103");
    let all = api.get("/rest/v1/films?offset=-4&select=id&order=id");
    assert_eq!(all.header("content-range"), "0-4/*");
    all.expect(200);
    refused(api.get("/rest/v1/films?limit=-4"), 416, "PGRST103");
    let grouped = "/rest/v1/films?select=total:year.sum(),...directors(name)&order=directors(name)";
    let expected =
        json!([{ "total": 3948, "name": "Kubrick" }, { "total": 3961, "name": "Scott" }]);
    assert_eq!(api.get(grouped).expect(200), expected);
}

#[test]
fn hostile_requests_are_refused() {
    films();
    let api = admin();
    let quote = "%22%3B%20DROP%20TABLE%20films%3B--";
    let wide = format!("/rest/v1/films?select={}", "id,".repeat(1700));
    let nested = format!("/rest/v1/films?or={}id.eq.1{}", "and(".repeat(100), ")".repeat(100));
    for path in [
        &*format!("/rest/v1/films?{quote}=eq.1"),
        &format!("/rest/v1/films?select={quote}"),
        &format!("/rest/v1/films?select=id::{quote}"),
        &format!("/rest/v1/films?order={quote}"),
        &format!("/rest/v1/films?{quote}.limit=1"),
        "/rest/v1/films?id=eq.99999999999999999999",
        "/rest/v1/films?id=eq.x",
        "/rest/v1/films?id=drop.1",
        "/rest/v1/films?limit=x",
        "/rest/v1/films?order=id.sideways",
        &wide,
        &nested,
    ] {
        let answer = api.get(path);
        let shown: String = path.chars().take(100).collect();
        assert!(matches!(answer.status, 400 | 416), "{shown}: {} {}", answer.status, answer.text);
        assert!(answer.json["code"].is_string(), "{shown}: {}", answer.text);
    }
    // What the pipeline refuses has the same form.
    for path in ["/rest/v1/films?id=eq.%00", "/rest/v1/films?id=eq.%ff", "/rest/v1/%ff"] {
        assert!(refused(api.get(path), 400, "22023")["message"].is_string());
    }
    refused(api.get(&format!("/rest/v1/{quote}")), 404, "PGRST205");
    refused(api.get("/rest/v1/films/1/2"), 404, "42704");
    refused(api.get("/rest/v1/films/1"), 404, "PGRST125");
    refused(api.post(&format!("/rest/v1/rpc/{quote}"), json!({})), 404, "PGRST202");
    let brew = api.send("BREW", "/rest/v1/films", &[], b"");
    assert_eq!(brew.header("allow"), "OPTIONS, GET, HEAD, POST, PUT, PATCH, DELETE");
    refused(brew, 405, "PGRST117");
    refused(api.send("DELETE", "/rest/v1/rpc/add_up", &[], b""), 405, "PGRST101");
    for header in [
        ("accept-profile", "secret\"; DROP SCHEMA public; --"),
        ("prefer", "handling=strict, timezone=UTC'; DROP TABLE films; --"),
        ("accept", "text/html"),
        ("range", "5-1"),
    ] {
        let answer = api.send("GET", "/rest/v1/films", &[header], b"");
        assert!(matches!(answer.status, 400 | 406 | 416), "{header:?}: {}", answer.text);
        assert!(answer.json["code"].is_string(), "{header:?}: {}", answer.text);
    }
    let post = |path: &str, kind: &str, body: &[u8]| {
        api.send("POST", path, &[("content-type", kind)], body)
    };
    let deep = format!("{{\"title\":{}", "[".repeat(100_000));
    for body in [
        &b"{"[..],
        b"[1]",
        b"\"x\"",
        b"{\"title\":\"\xff\"}",
        deep.as_bytes(),
        br#"[{"title":"a"},{"year":1}]"#,
        br#"{"title":"a\u0000"}"#,
        br#"{"title":"a","year":1e400}"#,
        br#"{"title":"a","year":"x"}"#,
        br#"{"title":"a","tags":{}}"#,
    ] {
        let answer = post("/rest/v1/films", "application/json", body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text);
        assert!(answer.json["code"].is_string(), "{shown}: {}", answer.text);
    }
    let csv = post("/rest/v1/films", "text/csv", b"title,year\n\"a");
    refused(csv, 400, "PGRST102");
    assert_eq!(guarded().direct_value("SELECT count(*) FROM films WHERE id <= 5"), "5");
}
