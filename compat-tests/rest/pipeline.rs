//! What every request goes through, whatever its route.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Answer, Api, admin};
use crate::harness::shared::{Shared, guarded};
use crate::harness::{SOON, Server, eventually};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A server with small limits, whose pages come from elsewhere.
fn small() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    let builder = || {
        Server::builder()
            .set("api.max_body_size=20000")
            .set("api.request_timeout_secs=2")
            .set("api.cors_origins=https://app.test")
            .set("security.audit.level=all")
    };
    &SERVER.get_or_init(|| Shared::start(builder())).server
}

fn administrator(server: &Server) -> Api<'_> {
    Api::of(server, "rustydb", &server.password)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.api_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// The status line, the headers in lower case, and what has come of the body.
fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Sends bytes, and gives the status and the body of the answer as JSON.
fn raw(server: &Server, request: &[u8]) -> (u16, Value) {
    let mut stream = connect(server);
    stream.write_all(request).unwrap();
    let head = read_head(&mut stream);
    let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn query(api: &Api<'_>, headers: &[(&str, &str)], sql: &str) -> Answer {
    let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
    api.send("POST", "/api/v1/query", &headers, json!({ "sql": sql }).to_string().as_bytes())
}

#[test]
fn every_answer_says_who_it_is() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("x-correlation-id", "order-17"),
        ("traceparent", trace),
        ("tracestate", "vendor=1"),
        ("x-tenant-id", "acme"),
    ];
    for (path, status) in [("/api/v1/tables", 200), ("/api/v1/nothing", 404), ("/", 404)] {
        let answer = admin().send("GET", path, &headers, b"");
        assert_eq!(answer.status, status, "{}", answer.text);
        for (name, expected) in [
            ("x-api-version", "1"),
            ("x-rustydb-version", env!("CARGO_PKG_VERSION")),
            ("x-request-id", "order-17"),
            ("x-correlation-id", "order-17"),
            ("traceparent", trace),
            ("tracestate", "vendor=1"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), expected, "{name} of {path}");
        }
        let timing = answer.header("server-timing");
        assert_eq!(timing.contains("auth;dur="), status == 200, "{timing}");
        let total = timing.split("total;dur=").nth(1).unwrap();
        assert!(total.parse::<f64>().unwrap() > 0.0, "{timing}");
    }
    let broken = [("traceparent", "00-xyz"), ("tracestate", "vendor=1")];
    let answer = admin().send("GET", "/api/v1/tables", &broken, b"");
    assert_eq!((answer.header("traceparent"), answer.header("tracestate")), ("", ""));
    let other = admin().get("/api/v7/tables");
    assert_eq!(other.json["error"]["details"]["supported_versions"], "v1");
    other.refused(404, "NOT_FOUND");
    let tenant = [("x-tenant-id", "two words")];
    admin().send("GET", "/api/v1/tables", &tenant, b"").refused(400, "VALIDATION_ERROR");
}

#[test]
fn what_a_route_cannot_do_is_said() {
    let answer = admin().send("BREW", "/api/v1/query", &[], b"");
    assert_eq!(answer.header("allow"), "POST");
    answer.refused(405, "METHOD_NOT_ALLOWED");
    let allowed = admin().send("PATCH", "/api/v1/tables", &[], b"").header("allow").to_owned();
    let mut allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let options = admin().send("OPTIONS", "/api/v1/query", &[], b"");
    options.refused(405, "METHOD_NOT_ALLOWED");
    let body = br#"{"sql": "select 1"}"#;
    let xml = [("content-type", "application/xml")];
    admin().send("POST", "/api/v1/query", &xml, body).refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let html = [JSON, ("accept", "text/html")];
    admin().send("POST", "/api/v1/query", &html, body).refused(406, "NOT_ACCEPTABLE");
}

#[test]
fn pages_of_known_origins_may_ask() {
    let server = small();
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "DELETE"),
            ("access-control-request-headers", "authorization, x-csrf-token"),
        ];
        Api::nobody(server).send("OPTIONS", "/api/v1/tables/x", &headers, b"")
    };
    let allowed = preflight("https://app.test");
    assert_eq!(allowed.status, 204, "{}", allowed.text);
    for (name, expected) in [
        ("access-control-allow-origin", "https://app.test"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", "authorization, x-csrf-token"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(allowed.header(name), expected, "{name}");
    }
    assert!(allowed.header("access-control-allow-methods").contains("DELETE"));
    for foreign in ["https://evil.test", "http://app.test", "null", "https://app.test.evil.test"] {
        let refused = preflight(foreign);
        assert_eq!(refused.header("access-control-allow-origin"), "", "{foreign}");
        refused.refused(403, "AUTHORIZATION_FAILED");
    }
    let api = administrator(server);
    let get = |origin: &str| {
        let answer = api.send("GET", "/api/v1/tables", &[("origin", origin)], b"");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("vary"), "Origin");
        answer.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(get("https://app.test"), "https://app.test");
    assert_eq!(get("https://evil.test"), "");
    // Where nobody is named, nobody may, and nothing depends on it.
    let answer = admin().send("GET", "/api/v1/tables", &[("origin", "https://app.test")], b"");
    let depends = (answer.header("access-control-allow-origin"), answer.header("vary"));
    assert_eq!(depends, ("", ""));
}

#[test]
fn sizes_have_limits() {
    let server = small();
    let api = administrator(server);
    let body = |bytes: usize| {
        let body = json!({ "sql": "select length($1) as n", "params": ["x".repeat(bytes)] });
        api.post("/api/v1/query", body)
    };
    assert_eq!(body(19_000).expect(200)["rows"][0]["n"], 19_000);
    body(20_000).refused(413, "PAYLOAD_TOO_LARGE");
    let authorization = api.authorization();
    let head = |more: &str| {
        format!(
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
             Content-Type: application/json\r\n{more}\r\n"
        )
    };
    // Before a byte of it has come.
    let (status, error) = raw(server, head("Content-Length: 20001\r\n").as_bytes());
    assert_eq!((status, &error["error"]["code"]), (413, &"PAYLOAD_TOO_LARGE".into()));
    // One that does not say how long it is.
    let mut chunked = head("Transfer-Encoding: chunked\r\n").into_bytes();
    for _ in 0..21 {
        chunked.extend_from_slice(format!("3e8\r\n{}\r\n", " ".repeat(1000)).as_bytes());
    }
    assert_eq!(raw(server, &chunked).0, 413);
    // Nor is it kept to be compared with the next one.
    let text = String::from_utf8(chunked).unwrap();
    let keyed = text.replacen("Host: x\r\n", "Host: x\r\nIdempotency-Key: long\r\n", 1);
    assert_eq!(raw(server, keyed.as_bytes()).0, 413);
    for (more, expected) in
        [(format!("X-Long: {}\r\n", "y".repeat(17_000)), 431), ("X-Few: y\r\n".repeat(20), 400)]
    {
        let request = head(&format!("{more}Content-Length: 0\r\n"));
        let (status, error) = raw(server, request.as_bytes());
        assert_eq!(status, expected, "{error}");
        assert!(error["error"]["request_id"].is_string(), "{error}");
    }
    // What has more headers is not read as far as that it could be answered with a body.
    let many = head(&format!("{}Content-Length: 0\r\n", "X-Many: y\r\n".repeat(101)));
    assert_eq!(raw(server, many.as_bytes()).0, 431);
    let nobody = Api::nobody(server);
    nobody.get(&format!("/{}", "x".repeat(8200))).refused(414, "PAYLOAD_TOO_LARGE");
    for bad in ["/api/v1/tables/%ff", "/api/v1/tables/a%00b", "/api/v1/tables?schema=%c3%28"] {
        api.get(bad).refused(400, "VALIDATION_ERROR");
    }
    let nested = |depth: usize| {
        let param = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!("{{\"sql\": \"select $1::jsonb as v\", \"params\": [{param}]}}");
        api.send("POST", "/api/v1/query", &[JSON], body.as_bytes())
    };
    assert_eq!(nested(62).status, 200);
    nested(63).refused(400, "VALIDATION_ERROR");
    nested(9000).refused(400, "VALIDATION_ERROR");
}

fn packed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let level = flate2::Compression::default();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
            gzip.write_all(bytes).unwrap();
            gzip.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorReader::new(bytes, 4096, 4, 22).read_to_end(&mut out).unwrap();
            out
        }
        _ => zstd::encode_all(bytes, 3).unwrap(),
    }
}

fn unpacked(coding: &str, bytes: impl Read + 'static) -> Box<dyn Read> {
    match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => Box::new(zstd::Decoder::new(bytes).unwrap()),
        _ => Box::new(bytes),
    }
}

#[test]
fn bodies_are_decompressed_within_their_limit() {
    let server = small();
    let api = administrator(server);
    let send = |coding: &str, body: &[u8]| {
        api.send("POST", "/api/v1/query", &[JSON, ("content-encoding", coding)], body)
    };
    let body = |bytes: usize| {
        let params = ["x".repeat(bytes)];
        json!({ "sql": "select length($1) as n", "params": params }).to_string()
    };
    for coding in ["gzip", "br", "zstd"] {
        let answer = send(coding, &packed(coding, body(15_000).as_bytes()));
        assert_eq!(answer.expect(200)["rows"][0]["n"], 15_000, "{coding}");
        // A few bytes that become many.
        let bomb = packed(coding, body(10_000_000).as_bytes());
        assert!(bomb.len() < 20_000, "{coding} {}", bomb.len());
        send(coding, &bomb).refused(413, "PAYLOAD_TOO_LARGE");
        // In two parts, each compressed by itself; what follows them is no part of it.
        let (text, half) = (body(15_000), 7_000);
        let parts = [&text.as_bytes()[..half], &text.as_bytes()[half..]];
        let two = parts.map(|part| packed(coding, part)).concat();
        if coding != "br" {
            assert_eq!(send(coding, &two).expect(200)["rows"][0]["n"], 15_000, "{coding}");
        }
        let more = [packed(coding, text.as_bytes()), b"more of it".to_vec()].concat();
        send(coding, &more).refused(400, "VALIDATION_ERROR");
        let whole = packed(coding, body(15_000).as_bytes());
        send(coding, &whole[..whole.len() / 2]).refused(400, "VALIDATION_ERROR");
        send(coding, b"this is not compressed").refused(400, "VALIDATION_ERROR");
    }
    assert_eq!(send("identity", body(3).as_bytes()).status, 200);
    assert_eq!(send("X-GZip", &packed("gzip", body(3).as_bytes())).status, 200);
    for unknown in ["compress", "gzip, br", "x"] {
        send(unknown, body(3).as_bytes()).refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
}

/// The answer to a query as a stream, with its head.
fn streamed(api: &Api<'_>, server: &Server, more: &str, sql: &str) -> (String, TcpStream) {
    let body = json!({ "sql": sql }).to_string();
    let authorization = api.authorization();
    let mut stream = connect(server);
    let request = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    (read_head(&mut stream), stream)
}

/// The chunks of a body (RFC 9112, section 7.1).
struct Chunks {
    stream: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear();
                self.stream.read_line(&mut line)?;
            }
            self.left = usize::from_str_radix(line.trim(), 16).unwrap();
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.left);
        let read = self.stream.read(&mut into[..most])?;
        self.left -= read;
        Ok(read)
    }
}

#[test]
fn answers_are_compressed_and_streams_stay_streams() {
    let server = guarded();
    let api = admin();
    let large = "select i, 'the same text in every row' as t from generate_series(1, 500) i";
    let plain = query(&api, &[("accept-encoding", "identity")], large);
    assert_eq!(plain.header("content-encoding"), "");
    for coding in ["gzip", "br", "zstd"] {
        let more = format!("Accept-Encoding: {coding}\r\n");
        let (head, stream) = streamed(&api, server, &more, large);
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        assert!(head.contains("vary: accept-encoding"), "{head}");
        let mut text = String::new();
        let chunks = Chunks { stream: BufReader::new(stream), left: 0 };
        unpacked(coding, chunks).read_to_string(&mut text).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["rows"], plain.json["rows"], "{coding}");
        // The first row is there while the second one is being waited for.
        // (PostgreSQL itself sends 8 KiB at a time.)
        let sql = "select i, repeat('x', 9000) as t from generate_series(1, 3) i \
                   where i < 3 or pg_sleep(20) is not null";
        let more = format!("{more}Accept: application/x-ndjson\r\n");
        let (head, stream) = streamed(&api, server, &more, sql);
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        let chunks = Chunks { stream: BufReader::new(stream), left: 0 };
        let begun = Instant::now();
        let mut first = vec![0; 9000];
        unpacked(coding, chunks).read_exact(&mut first).unwrap();
        assert!(first.starts_with(b"{\"i\":1,\"t\":\"xxx"), "{coding}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{coding}");
    }
    let (head, _) = streamed(&api, server, "Accept-Encoding: gzip\r\n", "select 1");
    assert!(!head.contains("content-encoding"), "{head}");
}

#[test]
fn what_takes_too_long_ends() {
    let server = small();
    let api = administrator(server);
    let slow = query(&api, &[], "select pg_sleep(60) as pipeline_slow");
    slow.refused(504, "TIMEOUT");
    let running = "select count(*) from pg_stat_activity where state = 'active' \
                   and query like '%pipeline_slow%' and pid <> pg_backend_pid()";
    eventually("the statement is cancelled", SOON, || server.direct_value(running) == "0");
    // Who says how long it may take is not cut off.
    let body = json!({ "sql": "select pg_sleep(3.5)", "timeout_ms": 60_000 });
    api.post("/api/v1/query", body).expect(200);
    // A body that does not come.
    let authorization = api.authorization();
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    );
    let (status, error) = raw(server, head.as_bytes());
    assert_eq!((status, &error["error"]["code"]), (408, &"TIMEOUT".into()));
}

#[test]
fn requests_come_only_so_often() {
    let server = Server::builder()
        .set("rate_limit.enabled=true")
        .set("rate_limit.requests=1")
        .set("rate_limit.window_secs=3600")
        .set("rate_limit.burst=5")
        .start();
    let api = administrator(&server);
    for left in (0..5).rev() {
        let answer = api.get("/api/v1/auth/me");
        assert_eq!(answer.status, 200, "{}", answer.text);
        for prefix in ["", "x-"] {
            let of = |name: &str| answer.header(&format!("{prefix}ratelimit-{name}")).to_owned();
            assert_eq!((of("limit"), of("remaining")), ("5".into(), left.to_string()));
            let reset: u64 = of("reset").parse().unwrap();
            assert!((3500 * (5 - left)..=3600 * (5 - left)).contains(&reset), "{reset}");
        }
    }
    let refused = api.get("/api/v1/auth/me");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit-remaining"), "0");
    refused.refused(429, "RATE_LIMIT_EXCEEDED");
    // The address was not counted for those; now it is.
    let nobody = Api::nobody(&server);
    for _ in 0..5 {
        nobody.get("/api/v1/auth/me").refused(401, "AUTHENTICATION_FAILED");
    }
    nobody.get("/api/v1/auth/me").refused(429, "RATE_LIMIT_EXCEEDED");
    nobody.get("/nothing").refused(429, "RATE_LIMIT_EXCEEDED");
    // Who watches the server may always.
    for _ in 0..10 {
        assert_eq!(nobody.get("/health/live").status, 200);
    }
    let limited =
        |scope| server.metric(&format!("rustydb_rate_limiter_decisions_total{{{scope}}}"));
    assert_eq!(limited("result=\"limited\",scope=\"user\""), 1.0);
    assert_eq!(limited("result=\"limited\",scope=\"address\""), 2.0);
    let log = server.data_dir.join("audit.jsonl");
    eventually("it is in the audit log", SOON, || {
        std::fs::read_to_string(&log).unwrap().contains("\"rate_limit_exceeded\"")
    });
}

#[test]
fn a_batch_costs_what_its_statements_cost() {
    let server = Server::builder()
        .set("rate_limit.enabled=true")
        .set("rate_limit.requests=1")
        .set("rate_limit.window_secs=3600")
        .set("rate_limit.burst=8")
        .start();
    let api = administrator(&server);
    let batch = |statements: usize| {
        api.post("/api/v1/batch", json!({ "statements": vec!["select 1"; statements] }))
    };
    let answer = batch(5);
    assert_eq!((answer.status, answer.header("ratelimit-remaining")), (200, "3"));
    let refused = batch(5);
    assert!(!refused.header("retry-after").is_empty());
    refused.refused(429, "RATE_LIMIT_EXCEEDED");
    // What was refused has cost the request alone.
    assert_eq!(api.get("/api/v1/auth/me").header("ratelimit-remaining"), "1");
}

#[test]
fn a_post_that_comes_again_is_done_once() {
    let api = admin();
    let run = |sql: &str| query(&admin(), &[], sql).expect(200);
    run("create table once (id int generated always as identity, what text)");
    let insert = |key: &str, what: &str| {
        let sql = format!("insert into once (what) values ('{what}') returning id");
        query(&api, &[("idempotency-key", key)], &sql)
    };
    let count = || run("select count(*)::int as n from once")["rows"][0]["n"].as_u64().unwrap();
    let first = insert("one", "a");
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = insert("one", "a");
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!((again.text.clone(), count()), (first.text.clone(), 1));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    insert("one", "b").refused(422, "VALIDATION_ERROR");
    let other_form = [("idempotency-key", "one"), ("accept", "text/csv")];
    let sql = "insert into once (what) values ('a') returning id";
    query(&api, &other_form, sql).refused(422, "VALIDATION_ERROR");
    insert("two", "b").expect(200);
    assert_eq!(count(), 2);
    // An error is an answer, too.
    let fails = || query(&api, &[("idempotency-key", "bad")], "select 1/0");
    fails().refused(400, "VALIDATION_ERROR");
    let again = fails();
    assert_eq!(again.header("idempotency-replayed"), "true");
    again.refused(400, "VALIDATION_ERROR");
    // Keys are a role's own, and nothing is told to who has not proved who he is.
    let nobody = Api::nobody(guarded());
    query(&nobody, &[("idempotency-key", "one")], "x").refused(401, "AUTHENTICATION_FAILED");
    run("create role olga login password 'olga-secret'; ");
    run("grant all on once to olga");
    let olga = Api::of(guarded(), "olga", "olga-secret");
    let sql = "insert into once (what) values ('a') returning id";
    let other = query(&olga, &[("idempotency-key", "one")], sql);
    assert_eq!(other.header("idempotency-replayed"), "");
    assert_eq!(count(), 3);
    for bad in ["", &"k".repeat(256)] {
        query(&api, &[("idempotency-key", bad)], "select 1").refused(400, "VALIDATION_ERROR");
    }

    // Its client leaves; it is carried out all the same, when the lock is free.
    let lock = api.post("/api/v1/transactions", json!({})).expect(201);
    let transaction = lock["transaction_id"].to_string();
    let held = [("x-transaction-id", transaction.as_str())];
    query(&api, &held, "select pg_advisory_xact_lock(4711)").expect(200);
    let sql = "insert into once (what) select 'left' from pg_advisory_xact_lock(4711)";
    let body = json!({ "sql": sql }).to_string();
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nIdempotency-Key: left\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        api.authorization(),
        body.len()
    );
    let mut stream = connect(guarded());
    stream.write_all(head.as_bytes()).unwrap();
    let waiting = "select count(*) from pg_stat_activity \
                   where query like 'insert into once%' and wait_event_type = 'Lock'";
    eventually("it waits", Duration::from_secs(20), || guarded().direct_value(waiting) == "1");
    drop(stream);
    let busy = query(&api, &[("idempotency-key", "left")], sql);
    assert_eq!(busy.header("retry-after"), "1", "{}", busy.text);
    busy.refused(409, "CONFLICT");
    let path = format!("/api/v1/transactions/{transaction}/rollback");
    api.post(&path, json!({})).expect(200);
    eventually("its answer is known", Duration::from_secs(20), || {
        let again = query(&api, &[("idempotency-key", "left")], sql);
        again.status == 200 && again.header("idempotency-replayed") == "true"
    });
    guarded().expect_metric_of_at_least("rustydb_api_idempotency_total{result=\"repeated\"}", 3.0);
    guarded().expect_metric_of_at_least("rustydb_api_idempotency_keys", 4.0);
    assert_eq!(count(), 4);
}

#[test]
fn a_session_has_the_name_of_its_application() {
    let name = |headers: &[(&str, &str)]| {
        let sql = "select current_setting('application_name') as name";
        query(&admin(), headers, sql)
    };
    let named = name(&[("x-application-name", "shop: cart")]).expect(200);
    assert_eq!(named["rows"][0]["name"], "shop: cart");
    assert_eq!(name(&[]).expect(200)["rows"][0]["name"], "rustydb-http");
    for bad in ["", &"x".repeat(64), "sch\u{f6}n"] {
        name(&[("x-application-name", bad)]).refused(400, "VALIDATION_ERROR");
    }
}

#[test]
fn requests_are_in_the_audit_log() {
    let server = small();
    let api = administrator(server);
    let id = ("x-request-id", "audited-1");
    let tenant = ("x-tenant-id", "acme");
    query(&api, &[id, tenant], "select 1").expect(200);
    let id = ("x-request-id", "audited-2");
    Api::nobody(server).send("GET", "/api/v1/tables?x=secret", &[id], b"");
    let log = server.data_dir.join("audit.jsonl");
    let find = |id: &str| {
        let text = std::fs::read_to_string(&log).unwrap();
        // The last one may be half there.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|r| r["request_id"] == id && r["event_type"] == "request")
    };
    eventually("both are there", SOON, || {
        find("audited-1").is_some() && find("audited-2").is_some()
    });
    let record = find("audited-1").unwrap();
    assert_eq!((&record["user_id"], &record["result"]), (&"rustydb".into(), &"success".into()));
    assert_eq!((&record["action"], &record["resource"]), (&"POST".into(), &"/api/v1/query".into()));
    let more = &record["metadata"];
    assert_eq!((&more["status_code"], &more["tenant"]), (&"200".into(), &"acme".into()));
    let record = find("audited-2").unwrap();
    assert_eq!((&record["result"], &record["user_id"]), (&"denied".into(), &Value::Null));
    assert!(!record.to_string().contains("secret"), "{record}");
}
