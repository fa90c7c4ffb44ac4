//! Requests that are wrong, clients that leave, connections reused, and more work than there is
//! room for.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{SOON, Server, eventually};
use crate::http::{Client, admin, ask, post, send};
use crate::{guarded, lent, wait_until_gone, wait_until_running};

const JSON: (&str, &str) = ("content-type", "application/json");

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.api_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// A request as bytes.
fn request(server: &Server, body: &Value, more: &str) -> Vec<u8> {
    let body = body.to_string();
    let authorization = admin(server).authorization();
    format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one answer with a length: status and body.
fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let status = head[9..12].parse().unwrap();
    let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[test]
fn requests_that_are_wrong_are_refused() {
    let server = guarded();
    let authorization = admin(server).authorization();
    let auth = ("authorization", authorization.as_str());
    let good = br#"{"sql": "select 1"}"#;
    let check = |headers: &[(&str, &str)], body: &[u8], status: u16, code: &str, text: &str| {
        let answer = send(server, headers, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]);
        assert_eq!((answer.status, answer.code()), (status, code), "{headers:?} {shown}");
        let message = answer.json["error"]["message"].as_str().unwrap();
        assert!(message.contains(text), "{shown}: {message}");
        assert_eq!(answer.header("x-api-version"), "1");
        answer
    };
    let invalid = |body: &[u8], text: &str| {
        check(&[auth, JSON], body, 400, "VALIDATION_ERROR", text);
    };
    invalid(b"", "not valid");
    invalid(b"{", "not valid");
    invalid(b"[]", "not valid");
    invalid(b"{}", "sql is empty");
    invalid(b"\xff\xfe", "not valid");
    invalid(br#"{"sql": 1}"#, "not valid");
    invalid(br#"{"sql": ""}"#, "sql is empty");
    invalid(br#"{"sql": " \n "}"#, "sql is empty");
    invalid(br#"{"sql": "select 1", "nosuch": 1}"#, "unknown field `nosuch`");
    invalid(br#"{"sql": "select 1", "sql": "select 2"}"#, "duplicate field");
    invalid(br#"{"sql": "select 1", "params": {}}"#, "not valid");
    invalid(br#"{"sql": "select 1", "max_rows": 0}"#, "max_rows");
    invalid(br#"{"sql": "select 1", "max_rows": -1}"#, "not valid");
    invalid(br#"{"sql": "select 1", "timeout_ms": 0}"#, "timeout_ms");
    invalid(br#"{"sql": "select 1", "row_format": "tuple"}"#, "unknown variant `tuple`");
    invalid(br#"{"sql": "select '\u0000'"}"#, "U+0000");
    invalid(br#"{"sql": "select 1", "database": "a\u0000b"}"#, "U+0000");
    invalid(br#"{"sql": "select 1"} trailing"#, "not valid");
    let nested =
        format!("{{\"sql\": \"select $1::jsonb\", \"params\": [{}]}}", "[".repeat(100_000));
    invalid(nested.as_bytes(), "not valid");
    for kind in ["text/plain", "", "application/x-www-form-urlencoded", "application/cbor"] {
        check(&[auth, ("content-type", kind)], good, 415, "UNSUPPORTED_MEDIA_TYPE", "");
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(send(server, &[auth, ("content-type", kind)], good).status, 200, "{kind}");
    }
    for accept in ["text/html", "image/png", "application/xml, text/plain;q=0.5"] {
        check(&[auth, JSON, ("accept", accept)], good, 406, "NOT_ACCEPTABLE", "");
    }
    for accept in ["*/*", "application/*", "text/html, application/json;q=0.1"] {
        assert_eq!(send(server, &[auth, JSON, ("accept", accept)], good).status, 200, "{accept}");
    }
    let wrong = Client { user: "rustydb", password: "wrong" }.authorization();
    let nobody = Client { user: "nobody_there", password: "x" }.authorization();
    let odd = Client { user: "nul\0name", password: "x" }.authorization();
    for value in ["", &wrong, &nobody, &odd, "Bearer abc", "Basic", "Basic !!!", "Basic YWJj"] {
        let with = [("authorization", value), JSON];
        let headers = if value.is_empty() { &with[1..] } else { &with[..] };
        let answer = check(headers, good, 401, "AUTHENTICATION_FAILED", "");
        // RFC 6750: who has shown a token is to show a better one.
        let way = if value.starts_with("Bearer") { "Bearer" } else { "Basic" };
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with(&format!("{way} realm=")), "{value}: {challenge}");
    }
    let long = json!({ "sql": format!("select '{}'", "x".repeat(1 << 20)) }).to_string();
    check(&[auth, JSON], long.as_bytes(), 413, "PAYLOAD_TOO_LARGE", "longer than 1048576 bytes");
    let longer = json!({ "sql": "select $1", "params": ["x".repeat(11 << 20)] }).to_string();
    check(&[auth, JSON], longer.as_bytes(), 413, "PAYLOAD_TOO_LARGE", "longer than 10485760 bytes");
    let fits = json!({ "sql": "select length($1) as n", "params": ["x".repeat(9 << 20)] });
    assert_eq!(ask(fits).json["rows"], json!([{ "n": 9 << 20 }]));
}

#[test]
fn a_new_password_works_at_once_over_http() {
    let server = guarded();
    let try_with = |password: &str| {
        let client = Client { user: "edges_changing", password };
        post(server, &client, &json!({ "sql": "select 1" })).status
    };
    server.psql("create role edges_changing login password 'one';");
    assert_eq!((try_with("one"), try_with("two")), (200, 401));
    assert_eq!(try_with("one"), 200);
    server.psql("alter role edges_changing password 'two';");
    assert_eq!((try_with("two"), try_with("one")), (200, 401));
}

#[test]
fn paths_methods_and_request_numbers() {
    let server = guarded();
    let call = |method: &str, path: &str| {
        let mut stream = connect(server);
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (status, body) = answer(&mut stream);
        (status, body["error"]["code"].as_str().unwrap_or("").to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(call("GET", "/api/v1/nothere"), refused(404, "NOT_FOUND"));
    assert_eq!(call("POST", "/api/v2/query"), refused(404, "NOT_FOUND"));
    assert_eq!(call("GET", "/"), refused(404, "NOT_FOUND"));
    assert_eq!(call("GET", "/api/v1/query"), refused(405, "METHOD_NOT_ALLOWED"));
    assert_eq!(call("BREW", "/api/v1/query"), refused(405, "METHOD_NOT_ALLOWED"));
    assert_eq!(call("GET", "/api/v1/query/../../etc/passwd").0, 404);
    let authorization = admin(server).authorization();
    let with = |name: &'static str, value: &str| {
        let headers = [("authorization", authorization.as_str()), JSON, (name, value)];
        send(server, &headers, br#"{"sql": "selec"}"#)
    };
    for name in ["x-request-id", "x-correlation-id"] {
        let answer = with(name, "my-own.number/1");
        assert_eq!(answer.header("x-request-id"), "my-own.number/1");
        assert_eq!(answer.json["error"]["request_id"], "my-own.number/1");
    }
    for bad in ["has space", &"x".repeat(129)] {
        let answer = with("x-request-id", bad);
        let made = answer.header("x-request-id").to_owned();
        assert!(made.len() == 36 && answer.json["error"]["request_id"] == made, "{made}");
    }
    let [one, two] = [(); 2].map(|()| ask(json!({ "sql": "select 1" })));
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[test]
fn connections_are_kept_and_pipelined() {
    let server = guarded();
    let mut stream = connect(server);
    for n in 0..20 {
        // A failure must not spoil the connection.
        let sql = if n % 3 == 2 { "select 1/0".into() } else { format!("select {n} as n") };
        stream.write_all(&request(server, &json!({ "sql": sql }), "")).unwrap();
        let (status, body) = answer(&mut stream);
        match n % 3 {
            2 => assert_eq!(status, 400),
            _ => assert_eq!((status, &body["rows"]), (200, &json!([{ "n": n }]))),
        }
    }
    let sql = |n: i32| json!({ "sql": format!("select {n} as n, pg_sleep(0.01 * {})", 5 - n) });
    let batch: Vec<u8> = (0..5).flat_map(|n| request(server, &sql(n), "")).collect();
    stream.write_all(&batch).unwrap();
    for n in 0..5 {
        assert_eq!(answer(&mut stream).1["rows"][0]["n"], json!(n));
    }
    // A body in two parts, and one that is announced first.
    let bytes = request(server, &json!({ "sql": "select 'parts' as p" }), "");
    let (first, second) = bytes.split_at(bytes.len() - 10);
    stream.write_all(first).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(second).unwrap();
    assert_eq!(answer(&mut stream).0, 200);
    stream
        .write_all(&request(server, &json!({ "sql": "select 1" }), "Connection: close\r\n"))
        .unwrap();
    assert_eq!(answer(&mut stream).0, 200);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_request_names_its_host_once() {
    let server = guarded();
    for (version, hosts, status) in [
        ("1.1", "Host: x\r\n", 200),
        ("1.1", "Host:\r\n", 200),
        ("1.1", "", 400),
        ("1.1", "Host: x\r\nHost: x\r\n", 400),
        ("1.1", "Host: x y\r\n", 400),
        ("1.0", "", 200),
        ("1.0", "Host: x\r\nHost: y\r\n", 400),
    ] {
        let mut stream = connect(server);
        write!(stream, "GET /health/live HTTP/{version}\r\n{hosts}\r\n").unwrap();
        let (answered, body) = answer(&mut stream);
        assert_eq!(answered, status, "{version} {hosts}: {body}");
        let is_fine = status == 200 || body["error"]["code"] == "VALIDATION_ERROR";
        assert!(is_fine && body.is_object(), "{body}");
    }
}

#[test]
fn noise_on_the_http_port_harms_nobody() {
    let server = guarded();
    let whole = request(server, &json!({ "sql": "select 'half' as http_half" }), "");
    let head = whole.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let long_head = [&whole[..head - 2], &b"X-A: b\r\n".repeat(20_000)[..], b"\r\n"].concat();
    let mut cases: Vec<Vec<u8>> =
        [1, 10, head - 1, head, head + 5].map(|n| whole[..n].to_vec()).into();
    cases.extend([
        b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(),
        crate::raw::usual_startup(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\r\n\r\n".to_vec(),
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"
            .to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all".to_vec(),
        (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        long_head,
    ]);
    for case in cases {
        let mut stream = connect(server);
        let _ = stream.write_all(&case);
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let text = String::from_utf8_lossy(&said);
        assert!(!text.starts_with("HTTP/1.1 2") && !text.contains(" 500 "), "{text}");
        assert_eq!(ask(json!({ "sql": "select 1" })).status, 200);
    }
}

#[test]
fn the_statement_of_a_client_that_left_is_stopped() {
    let server = guarded();
    let check = |marker: &str, sql: &str, accept: &str, read: usize| {
        let mut stream = connect(server);
        let sql = sql.replace("MARKER", marker);
        stream.write_all(&request(server, &json!({ "sql": sql }), accept)).unwrap();
        wait_until_running(server, marker);
        stream.read_exact(&mut vec![0; read]).unwrap();
        drop(stream);
        wait_until_gone(server, marker);
    };
    let lines = "Accept: application/x-ndjson\r\n";
    check("left_one", "select pg_sleep(30) as MARKER", "", 0);
    check("left_two", "select pg_sleep(30) as MARKER", lines, 0);
    let large = "select 'MARKER', generate_series(1, 1000000000)";
    check("left_three", large, lines, 200_000);
    check("left_four", large, "", 200_000);
    let updating = "with w as (select pg_sleep(30)) select count(*) as MARKER from w";
    check("left_five", updating, "", 0);
    let batches = "Accept: application/vnd.apache.arrow.stream\r\n";
    check("left_six", large, batches, 200_000);
    check("left_seven", large, "Accept: text/csv\r\n", 200_000);
    check("left_eight", large, "Accept: application/msgpack\r\n", 200_000);
}

#[test]
fn an_error_in_the_middle_breaks_the_stream() {
    let server = guarded();
    for (accept, lines) in [("Accept: application/x-ndjson\r\n", true), ("", false)] {
        let mut stream = connect(server);
        let sql = "select 1/(50000-i) as v from generate_series(1,100000) i";
        let more = format!("{accept}X-Request-Id: middle\r\n");
        stream.write_all(&request(server, &json!({ "sql": sql }), &more)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &text[..100]);
        // The end that a whole answer in chunks has.
        assert!(!text.ends_with("0\r\n\r\n"));
        let tail = &text[text.len() - 600..];
        assert!(tail.contains("\"request_id\":\"middle\"") && tail.contains("22012"), "{tail}");
        if lines {
            let rows = text.lines().filter(|line| line.starts_with("{\"v\":")).count();
            let last = text.lines().rev().find(|line| line.starts_with("{\"error\"")).unwrap();
            let error: Value = serde_json::from_str(last).unwrap();
            assert_eq!(error["error"]["code"], "VALIDATION_ERROR");
            // All rows before the error came, give or take those that a chunk cut.
            assert!((49_000..50_000).contains(&rows), "{rows}");
        }
        // A client that knows HTTP sees a failure, not an end.
        let mut body = ureq::post(server.url("/api/v1/query"))
            .header("authorization", admin(server).authorization())
            .header("content-type", "application/json")
            .header("accept", if lines { "application/x-ndjson" } else { "application/json" })
            .send(json!({ "sql": sql }).to_string())
            .unwrap();
        let read = body.body_mut().as_reader().read_to_end(&mut Vec::new());
        assert!(read.is_err(), "{read:?}");
    }
    // Before the first chunk it is an ordinary error.
    let answer = ask(json!({ "sql": "select 1/(50-i) from generate_series(1,100) i" }));
    assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"));
}

#[test]
fn many_requests_share_two_connections() {
    let server = Server::builder().set("pool.max_size=2").start();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let server = &server;
            scope.spawn(move || {
                for n in 0..10 {
                    let id = worker * 100 + n;
                    let body = json!({ "sql": "select $1::int as id", "params": [id] });
                    let answer = post(server, &admin(server), &body);
                    assert_eq!(answer.json["rows"], json!([{ "id": id }]), "{answer:?}");
                }
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert!(server.metric("rustydb_pool_total_connections{pool=\"main\"}") <= 2.0);
    eventually("every connection is back", SOON, || lent(&server) == 0.0);
}

#[test]
fn a_full_queue_is_told_at_once() {
    let server = Server::builder()
        .set("pool.max_size=1")
        .set("pool.max_wait_queue_size=1")
        .set("pool.acquire_timeout_secs=8")
        .start();
    let sleep =
        |marker: &str, secs: u32| json!({ "sql": format!("select pg_sleep({secs}) as {marker}") });
    let mut holder = connect(&server);
    holder.write_all(&request(&server, &sleep("queue_holder", 20), "")).unwrap();
    wait_until_running(&server, "queue_holder");
    let mut waiter = connect(&server);
    waiter.write_all(&request(&server, &json!({ "sql": "select 1" }), "")).unwrap();
    let waiting = "rustydb_pool_wait_queue_size{pool=\"main\"}";
    eventually("one waits", SOON, || server.metric(waiting) == 1.0);
    let begun = Instant::now();
    let refused = post(&server, &admin(&server), &json!({ "sql": "select 2" }));
    assert_eq!((refused.status, refused.code()), (503, "POOL_EXHAUSTED"), "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.json["error"]["details"]["retryable"], json!(true));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // The same over the other door, in its words.
    let psql = server.psql("select 3;");
    assert!(psql.stderr.contains("FATAL:"), "{psql:?}");
    // The one that waits is not kept waiting for ever.
    let (status, body) = answer(&mut waiter);
    assert_eq!((status, &body["error"]["code"]), (503, &json!("POOL_EXHAUSTED")));
    drop(holder);
    eventually("the connection is back", SOON, || lent(&server) == 0.0);
    assert_eq!(post(&server, &admin(&server), &json!({ "sql": "select 4" })).status, 200);
}

#[test]
fn clients_that_do_nothing_are_sent_away() {
    let server = Server::builder()
        .set("api.keep_alive_secs=1")
        .set("api.stall_timeout_secs=2")
        .set("api.max_connections=1")
        .start();
    for beginning in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\n", b"POST /api/v1/query HTTP/1.1\r\n"]
    {
        let mut stream = connect(&server);
        stream.write_all(beginning).unwrap();
        let begun = Instant::now();
        // Whatever it says, it ends.
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(begun.elapsed() < Duration::from_secs(5), "{beginning:?}");
    }
    // One that leaves while its statement runs is not counted any more.
    let mut leaving = connect(&server);
    let sleep = json!({ "sql": "select pg_sleep(30)" });
    leaving.write_all(&request(&server, &sleep, "")).unwrap();
    eventually("the statement runs", SOON, || lent(&server) == 1.0);
    drop(leaving);
    let in_flight = || server.metric("rustydb_api_requests_in_flight");
    // The request for the metrics is itself one.
    eventually("it is forgotten", SOON, || in_flight() == 1.0);
    eventually("its backend is free", SOON, || lent(&server) == 0.0);
    // One that asks for much and takes nothing does not keep its backend, nor the only place.
    let mut stalled = connect(&server);
    let sql = "select repeat('x', 1000) as t from generate_series(1, 1000000)";
    let lines = "Accept: application/x-ndjson\r\n";
    stalled.write_all(&request(&server, &json!({ "sql": sql }), lines)).unwrap();
    eventually("the statement runs", SOON, || lent(&server) == 1.0);
    eventually("the reader is given up", Duration::from_secs(20), || lent(&server) == 0.0);
    assert_eq!(post(&server, &admin(&server), &json!({ "sql": "select 1" })).status, 200);
}

#[test]
fn an_answer_that_nobody_takes_holds_no_place() {
    let server = Server::builder().set("api.max_connections=1").start();
    let mut streams: Vec<TcpStream> = (0..5).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        stream.write_all(&b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200)).unwrap();
    }
    eventually("there is a place", SOON, || {
        post(&server, &admin(&server), &json!({ "sql": "select 1" })).status == 200
    });
}

#[test]
fn without_authentication_only_this_machine_is_answered() {
    let server = Server::builder().arg("--insecure").start();
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
    ] {
        let body = json!({ "sql": "select 1" }).to_string();
        let mut stream = connect(&server);
        let head = format!(
            "POST /api/v1/query HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(answer(&mut stream).0, status, "{host}");
    }
}
