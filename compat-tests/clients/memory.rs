//! Memory does not grow with the result, whatever the door.

use std::io::Read;

use crate::harness::Server;
use crate::http::admin;
use crate::raw::{Wire, bind, execute, parse, query, sync, usual_startup};

/// Most that a result may add to the peak.
const MOST_KIB: u64 = 16 << 10;

fn sql() -> String {
    let rows = if cfg!(debug_assertions) { 2_000_000 } else { 5_000_000 };
    format!("select i, repeat('x', 20) as t from generate_series(1, {rows}) i")
}

/// Reads to ReadyForQuery and throws everything away; returns the bytes.
fn discard(server: &Server, request: &[u8]) -> u64 {
    let mut stream = server.connect();
    std::io::Write::write_all(&mut stream, &usual_startup()).unwrap();
    let mut wire = Wire::over(stream.try_clone().unwrap());
    wire.until(b'Z');
    wire.send(request);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    let mut tail = [0; 6];
    while tail != [b'Z', 0, 0, 0, 5, b'I'] {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the connection ended after {total} bytes");
        total += n as u64;
        if n >= 6 {
            tail.copy_from_slice(&buffer[n - 6..n]);
        } else {
            tail.rotate_left(n);
            tail[6 - n..].copy_from_slice(&buffer[..n]);
        }
    }
    total
}

#[test]
fn a_large_result_costs_little_memory() {
    let server = Server::builder().arg("--insecure").start();
    // What any first statement costs on each door.
    discard(&server, &query("select generate_series(1, 10000)"));
    http(&server, "select generate_series(1, 10000) as i");
    let peak = || server.memory_kib().1;
    let check = |door: &str, bytes: &mut dyn FnMut() -> u64| {
        let before = peak();
        let bytes = bytes();
        assert!(bytes > 60_000_000, "{door}: only {bytes} bytes came");
        let grown = peak().saturating_sub(before);
        assert!(grown <= MOST_KIB, "{door}: {grown} KiB for {bytes} bytes");
    };
    let extended = [parse("", &sql(), &[]), bind("", "", &[], (0, 1)), execute("", 0), sync()];
    check("simple", &mut || discard(&server, &query(&sql())));
    check("extended", &mut || discard(&server, &extended.concat()));
    let copy = format!("copy ({}) to stdout", sql());
    check("copy", &mut || discard(&server, &query(&copy)));
    check("http", &mut || http(&server, &sql()));
}

fn http(server: &Server, sql: &str) -> u64 {
    let mut response = ureq::post(server.url("/api/v1/query"))
        .header("authorization", admin(server).authorization())
        .header("content-type", "application/json")
        .header("accept", "application/x-ndjson")
        .send(serde_json::json!({ "sql": sql }).to_string())
        .unwrap();
    std::io::copy(&mut response.body_mut().as_reader(), &mut std::io::sink()).unwrap()
}

#[test]
fn what_a_client_makes_postgres_log_costs_little_memory() {
    let server = Server::builder().arg("--insecure").start();
    let wordy = |length: u32| format!("do $$ begin raise log '%', repeat('x', {length}); end $$");
    assert_eq!(server.psql(&wordy(1000)).stderr, "");
    let before = server.memory_kib().1;
    assert_eq!(server.psql(&wordy(100_000_000)).stderr, "");
    let grown = server.memory_kib().1.saturating_sub(before);
    assert!(grown <= MOST_KIB, "{grown} KiB");
}
