//! HTTP/2 on the port of HTTP: how it is chosen, many streams on one connection, readers that stop,
//! clients that leave, and clients that do what they must not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::request::Builder as Head;
use axum::http::{HeaderMap, Request};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::harness::{Server, command, eventually};
use crate::http::admin;
use crate::secured::secured;
use crate::{guarded, lent, running};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of SETTINGS without any, and its acknowledgement.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

const JSON: (&str, &str) = ("accept", "application/json");
const LINES: (&str, &str) = ("accept", "application/x-ndjson");

/// A gigabyte.
const LARGE: &str = "select repeat('x', 1000) as t from generate_series(1, 1000000)";

/// A connection, which goes on for as long as something is waited for.
struct Client<'a> {
    server: &'a Server,
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

type Begun = (ResponseFuture, SendStream<Bytes>);

impl<'a> Client<'a> {
    fn new(server: &'a Server) -> Self {
        Self::with(server, &Builder::new())
    }

    fn with(server: &'a Server, builder: &Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (requests, connection) = runtime.block_on(async {
            let to = ("127.0.0.1", server.api_port);
            let socket = tokio::net::TcpStream::connect(to).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let (requests, connection) = builder.handshake(socket).await.unwrap();
            (requests, tokio::spawn(connection))
        });
        Self { server, runtime, requests, connection }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(Duration::from_secs(60), future).await.unwrap() })
    }

    fn eventually(&self, what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
        eventually(what, Duration::from_secs(seconds), || {
            self.wait(async { sleep(Duration::from_millis(5)).await });
            holds()
        });
    }

    fn begin(&self, head: Head, body: Vec<u8>) -> Result<Begun, h2::Error> {
        let mut requests = self.wait(self.requests.clone().ready())?;
        let (answer, mut stream) =
            requests.send_request(head.body(()).unwrap(), body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body.into(), true)?;
        }
        Ok((answer, stream))
    }

    /// A statement that begins to run, with this header besides.
    fn run(&self, sql: &str, (name, value): (&str, &str)) -> Begun {
        let head = Request::post(self.server.url("/api/v1/query"))
            .header("content-type", "application/json")
            .header("authorization", admin(self.server).authorization())
            .header(name, value);
        self.begin(head, json!({ "sql": sql }).to_string().into_bytes()).unwrap()
    }

    fn rows(&self, sql: &str) -> Value {
        let answer = self.whole(self.run(sql, JSON));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["rows"].clone()
    }

    fn whole(&self, (answer, _): Begun) -> Answer {
        let (head, mut body) = self.wait(answer).unwrap().into_parts();
        let text = String::from_utf8(self.rest(&mut body).unwrap()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }

    /// What is left of a body, taken as it comes.
    fn rest(&self, body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
        self.wait(async {
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len()).unwrap();
                bytes.extend_from_slice(&data);
            }
            Ok(bytes)
        })
    }

    /// How the connection ends.
    fn end(self) -> Result<(), h2::Error> {
        let Self { runtime, requests, connection, .. } = self;
        drop(requests);
        runtime.block_on(async {
            timeout(Duration::from_secs(60), connection).await.unwrap().unwrap()
        })
    }
}

/// What the server says on a connection that begins with these bytes, until it closes.
fn said(server: &Server, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.api_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let begun = Instant::now();
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    (said, begun.elapsed())
}

/// Types of the frames in what a server said.
fn frames(mut said: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while said.len() >= 9 {
        types.push(said[3]);
        let length = u32::from_be_bytes([0, said[0], said[1], said[2]]) as usize;
        said = &said[(9 + length).min(said.len())..];
    }
    types
}

const GOAWAY: u8 = 7;

#[test]
fn it_is_chosen_by_alpn_and_by_prior_knowledge() {
    let secured = secured();
    let server = secured.server;
    let ask = |how: &str, scheme: &str| {
        let output = command("curl")
            .args(["-sS", "-i", "--max-time", "60", how, "--cacert"])
            .arg(secured.root())
            .arg(format!("{scheme}://localhost:{}/health/live", server.api_port))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("alive"), "{text}");
        text.lines().next().unwrap().trim_end().to_owned()
    };
    assert_eq!(ask("--http2", "https"), "HTTP/2 200");
    assert!(ask("--http1.1", "https").starts_with("HTTP/1.1 200"));
    assert!(ask("--no-alpn", "https").starts_with("HTTP/1.1 200"));
    assert_eq!(ask("--http2-prior-knowledge", "http"), "HTTP/2 200");
    // Who asks for an upgrade goes on with what it has.
    assert!(ask("--http2", "http").starts_with("HTTP/1.1 200"));
}

#[test]
fn it_can_be_switched_off() {
    let server = Server::builder().set("api.enable_http2=false").start();
    let (said, _) = said(&server, &[PREFACE, SETTINGS].concat());
    assert!(!frames(&said).contains(&4), "{said:?}");
    let answer = ureq::get(server.url("/health/live")).call().unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn many_streams_share_a_connection() {
    // Room for all of them, as they are read one after the other.
    let client = Client::with(guarded(), Builder::new().initial_connection_window_size(8 << 20));
    let begun: Vec<_> = (0..100)
        .map(|n| client.run(&format!("select {n} as n, repeat('{}', 3000) as t", n % 10), JSON))
        .collect();
    for (n, begun) in begun.into_iter().enumerate() {
        let answer = client.whole(begun);
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.headers["x-api-version"], "1");
        let expected = json!([{ "n": n, "t": (n % 10).to_string().repeat(3000) }]);
        assert_eq!(answer.json()["rows"], expected);
    }
    // More than any buffer holds, in both directions and byte for byte.
    let text: String = (0..300_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    assert_eq!(client.rows(&format!("select '{text}' as t")), json!([{ "t": text }]));
    let (answer, _) = client.run("select n from generate_series(1, 200000) n", LINES);
    let mut body = client.wait(answer).unwrap().into_body();
    let lines = String::from_utf8(client.rest(&mut body).unwrap()).unwrap();
    let mut expected = String::new();
    (1..=200_000).for_each(|n| expected += &format!("{{\"n\":{n}}}\n"));
    assert!(lines == expected);
    drop(body);
    assert!(client.end().is_ok());
    guarded().expect_metric_of_at_least("rustydb_api_http2_connections_total", 1.0);
}

#[test]
fn a_client_may_have_so_many_streams() {
    let server = Server::builder().set("api.http2_max_streams=3").start();
    let client = Client::new(&server);
    assert_eq!(client.rows("select 1 as n"), json!([{ "n": 1 }]));
    assert_eq!(client.requests.current_max_send_streams(), 3);
    let begun: Vec<_> = (0..3).map(|_| client.run("select pg_sleep(0.3)", JSON)).collect();
    // The fourth waits until there is room.
    assert_eq!(client.rows("select 4 as n"), json!([{ "n": 4 }]));
    begun.into_iter().for_each(|begun| assert_eq!(client.whole(begun).status, 200));
}

#[test]
fn heads_and_bodies_have_the_same_limits() {
    let server = guarded();
    let client = Client::new(server);
    let ask = |head: Head, body: Vec<u8>| client.whole(client.begin(head, body).unwrap());
    let code = |answer: &Answer| answer.json()["error"]["code"].as_str().unwrap_or("").to_owned();
    let live = || Request::get(server.url("/health/live"));
    let long = ask(live().header("x", "y".repeat(17 << 10)), Vec::new());
    assert_eq!((long.status, &*code(&long)), (431, "PAYLOAD_TOO_LARGE"), "{}", long.text);
    // What the library refuses has no body.
    assert_eq!(ask(live().header("x", "y".repeat(60 << 10)), Vec::new()).status, 431);
    let target = format!("/health/live?{}", "x".repeat(9 << 10));
    assert_eq!(ask(Request::get(server.url(&target)), Vec::new()).status, 414);
    let post = Request::post(server.url("/api/v1/query"))
        .header("content-type", "application/json")
        .header("authorization", admin(server).authorization());
    let large = ask(post, vec![b' '; 11 << 20]);
    assert_eq!((large.status, &*code(&large)), (413, "PAYLOAD_TOO_LARGE"), "{}", large.text);
    assert_eq!(ask(Request::get(server.url("/nothing")), Vec::new()).status, 404);
    assert_eq!(client.rows("select 1 as n"), json!([{ "n": 1 }]));
}

#[test]
fn the_authority_counts_as_host() {
    let server = Server::builder().arg("--insecure").start();
    let client = Client::new(&server);
    for (authority, host, status) in [
        ("localhost", None, 200),
        ("127.0.0.1:8080", None, 200),
        ("[::1]:8080", None, 200),
        ("localhost:8080", Some("LOCALHOST:8080"), 200),
        ("evil.example", None, 403),
        ("evil.example:8080", None, 403),
        ("evil.example", Some("evil.example"), 403),
        ("evil.example", Some("localhost"), 400),
        ("localhost", Some("evil.example"), 400),
    ] {
        let mut head = Request::get(format!("http://{authority}/api/v1/info"));
        if let Some(host) = host {
            head = head.header("host", host);
        }
        let answer = client.whole(client.begin(head, Vec::new()).unwrap());
        assert_eq!(answer.status, status, "{authority} {host:?} {}", answer.text);
    }
    // A page of this server's own, as browsers name it, and one of nobody's.
    for (origin, status) in [("http://localhost:8080", 204), ("http://evil.example", 403)] {
        let head = Request::options("http://localhost:8080/api/v1/query")
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        assert_eq!(client.whole(client.begin(head, Vec::new()).unwrap()).status, status);
    }
}

#[test]
fn a_stream_that_is_reset_stops_its_statement_alone() {
    let server = guarded();
    let client = Client::new(server);
    let (other, _other) = client.run("select 'stays' as t, pg_sleep(3) as http2_stays", JSON);
    for (marker, sql, accept) in [
        ("http2_one", "select pg_sleep(30) as MARKER", JSON),
        ("http2_two", "select pg_sleep(30) as MARKER", LINES),
        ("http2_three", "select 'MARKER', generate_series(1, 1000000000)", LINES),
        ("http2_four", "select 'MARKER', generate_series(1, 1000000000)", JSON),
    ] {
        let (answer, mut stream) = client.run(&sql.replace("MARKER", marker), accept);
        client.eventually("it runs", 20, || running(server, marker) > 0);
        stream.send_reset(Reason::CANCEL);
        client.eventually("it is cancelled", 10, || running(server, marker) == 0);
        drop(answer);
    }
    let answer = client.wait(other).unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_client_that_leaves_stops_all_its_statements() {
    let server = guarded();
    let client = Client::new(server);
    let sleeping = client.run("select pg_sleep(30) as http2_leaves", JSON);
    let large = "select 'http2_leaves', generate_series(1, 1000000000)";
    let (answer, _stream) = client.run(large, LINES);
    let body = client.wait(answer).unwrap().into_body();
    client.eventually("both run", 20, || running(server, "http2_leaves") == 2);
    client.connection.abort();
    client.eventually("both are gone", 10, || running(server, "http2_leaves") == 0);
    drop((sleeping, body));
}

#[test]
fn a_reader_that_stops_harms_nobody_else() {
    let server = Server::builder().set("api.stall_timeout_secs=2").start();
    let client = Client::new(&server);
    assert_eq!(client.rows("select 1 as n"), json!([{ "n": 1 }]));
    let (before, _) = server.memory_kib();
    let stopped: Vec<_> = (0..8)
        .map(|n| {
            let (answer, stream) = client.run(&format!("{LARGE} -- http2_stopped {n}"), LINES);
            let body = client.wait(answer).unwrap().into_body();
            (body, stream)
        })
        .collect();
    client.eventually("all of them wait", 20, || running(&server, "http2_stopped") == 8);
    // The window of the connection is used up by what nobody takes, as HTTP/2 has it: small
    // answers still come when there is room for them.
    let mut other = Builder::new();
    other.initial_connection_window_size(8 << 20);
    let other = Client::with(&server, &other);
    let (answer, _stream) = other.run(&format!("{LARGE} -- http2_stopped"), LINES);
    let kept = other.wait(answer).unwrap().into_body();
    for n in 0..20 {
        assert_eq!(other.rows(&format!("select {n} as n")), json!([{ "n": n }]));
    }
    let (after, _) = server.memory_kib();
    assert!(after < before + (64 << 10), "{before} KiB, then {after} KiB");
    let begun = Instant::now();
    client.eventually("they are given up", 20, || lent(&server) == 0.0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.expect_metric_of_at_least("rustydb_api_http2_streams_stalled_total", 9.0);
    // Such a connection ends; what comes next needs another one.
    drop((stopped, kept));
    assert!(client.end().is_ok());
    assert_eq!(Client::new(&server).rows("select 2 as n"), json!([{ "n": 2 }]));
}

#[test]
fn a_slow_reader_gets_everything() {
    let server = Server::builder().set("api.stall_timeout_secs=2").start();
    let mut narrow = Builder::new();
    narrow.initial_window_size(16 << 10);
    let client = Client::with(&server, &narrow);
    let (answer, _stream) = client.run("select repeat('y', 400000) as t", JSON);
    let mut body = client.wait(answer).unwrap().into_body();
    let mut bytes = Vec::new();
    // Longer in all than the server has patience for a single step.
    while let Some(data) = client.wait(body.data()) {
        let data = data.unwrap();
        bytes.extend_from_slice(&data);
        client.wait(async { sleep(Duration::from_millis(150)).await });
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer["rows"][0]["t"].as_str().unwrap().len(), 400_000);
    server.expect_metric("rustydb_api_http2_streams_stalled_total", 0.0);
}

#[test]
fn resets_in_a_row_end_the_connection() {
    let server = guarded();
    // GET /health/live by HPACK: indexed :method and :scheme, a literal :path and :authority.
    let block = b"\x82\x86\x44\x0c/health/live\x41\x09localhost";
    let mut bytes = [PREFACE, SETTINGS, SETTINGS_ACK].concat();
    for id in (1..4000u32).step_by(2) {
        bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 5]);
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(block);
        bytes.extend_from_slice(b"\0\0\x04\x03\0");
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&8u32.to_be_bytes());
    }
    let (said, took) = said(server, &bytes);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(frames(&said).contains(&GOAWAY) || said.is_empty(), "{:?}", frames(&said));
    assert_eq!(Client::new(server).rows("select 1 as n"), json!([{ "n": 1 }]));
}

#[test]
fn what_is_no_http_2_ends_at_once_and_who_is_idle_in_time() {
    let server =
        Server::builder().set("api.keep_alive_secs=1").set("api.stall_timeout_secs=1").start();
    let garbage = [PREFACE, b"garbage that is no frame at all"].concat();
    let wrong = b"PRI * HTTP/2.0\r\n\r\nXY\r\n\r\n".to_vec();
    let head = [PREFACE, SETTINGS, b"\0\xff\xff\x01\x04\0\0\0\x01"].concat();
    for bytes in [
        PREFACE[..1].to_vec(),
        PREFACE[..23].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, SETTINGS].concat(),
        [PREFACE, SETTINGS, SETTINGS_ACK].concat(),
        head,
        wrong,
        garbage,
    ] {
        let (_, took) = said(&server, &bytes);
        assert!(took < Duration::from_secs(8), "{took:?} {:?}", String::from_utf8_lossy(&bytes));
    }
    // One that answers every ping and asks for nothing is sent away politely.
    let client = Client::new(&server);
    assert_eq!(client.rows("select 1 as n"), json!([{ "n": 1 }]));
    let begun = Instant::now();
    let Client { runtime, requests, connection, .. } = client;
    let ended = async { timeout(Duration::from_secs(20), connection).await.unwrap().unwrap() };
    assert!(runtime.block_on(ended).is_ok());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(requests);
    // A statement may take longer than that.
    assert_eq!(Client::new(&server).rows("select pg_sleep(4)::text as n")[0]["n"], json!(""));
}

#[test]
fn an_error_in_the_middle_resets_the_stream_alone() {
    let client = Client::new(guarded());
    let sql = "select 1 / (200000 - n) as n from generate_series(1, 300000) n";
    let (answer, _stream) = client.run(sql, LINES);
    let mut body = client.wait(answer).unwrap().into_body();
    let mut text = String::new();
    let failed = client.wait(async {
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    text += std::str::from_utf8(&data).unwrap();
                }
                Err(error) => return Some(error),
            }
        }
        None
    });
    assert!(failed.unwrap().is_reset(), "{}", &text[text.len() - 100..]);
    assert!(text.lines().last().unwrap().contains("division by zero"), "{}", text.len());
    assert_eq!(client.rows("select 1 as n"), json!([{ "n": 1 }]));
}

#[test]
fn a_server_that_stops_finishes_what_runs() {
    let mut server = Server::builder().start();
    let (status, text) = {
        let client = Client::new(&server);
        let begun = client.run("select 'to the end' as t, pg_sleep(2) as http2_last", JSON);
        client.eventually("it runs", 20, || running(&server, "http2_last") > 0);
        server.signal("TERM");
        let answer = client.whole(begun);
        assert!(client.end().is_ok());
        (answer.status, answer.text)
    };
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("to the end"), "{text}");
    assert_eq!(server.wait(), Some(0));
}
