//! Bytes and requests that break the rules, at the socket.

use std::time::{Duration, Instant};

use rustydb_client::protocol::frame::{self, HEADER, Header, flags};
use rustydb_client::protocol::*;

use crate::client::{Wire, hello, query};
use crate::harness::Server;
use crate::open;

fn bytes(entry: &serde_json::Value) -> Vec<u8> {
    let words = entry["bytes"].as_str().unwrap().split_whitespace();
    words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect()
}

fn framed(body: &[u8], flags: u16, id: u64) -> Vec<u8> {
    let mut out = Header { length: body.len() as u32, flags, message_id: id }.bytes().to_vec();
    out.extend_from_slice(body);
    out
}

/// Every invalid entry of the vectors gets the answer that it names.
#[test]
fn every_invalid_vector_is_refused_at_the_socket() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/vectors.json");
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for entry in file["invalid"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let bytes = bytes(entry);
        let is_cut = name.contains("then the end");
        let sent = match entry["what"].as_str().unwrap() {
            "frame" => bytes,
            "message" => framed(&bytes, 0, 7),
            // As the only parameter of a query.
            "value" => {
                let mut body = vec![3, 8];
                body.extend_from_slice(b"SELECT 1\x01");
                body.extend_from_slice(&bytes);
                body.extend_from_slice(&[0, 0]);
                framed(&body, 0, 7)
            }
            other => panic!("{other}"),
        };
        let compression = vec![CompressionType::Lz4];
        let mut wire = Wire::open_with(open(), ClientHello { compression, ..hello() });
        wire.raw(&sent);
        if is_cut {
            wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(wire.try_read().is_none(), "{name}");
            continue;
        }
        // A value that is followed by the rest of the query may be read as something else.
        let code = entry["code"].as_str().unwrap();
        // Only a request can be refused; a Close that cannot be read ends the connection.
        let is_request = sent.get(HEADER) != Some(&0x1e);
        let error = if entry["sqlstate"] == "54000" && is_request {
            match wire.read().message {
                Message::Error(error) => {
                    assert_eq!(error.severity, Severity::Error, "{name}");
                    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
                    *error
                }
                other => panic!("{name}: {other:?}"),
            }
        } else {
            wire.fatal()
        };
        let expected = (entry["sqlstate"].as_str().unwrap(), code);
        assert_eq!((error.sqlstate.as_str(), error.code.as_str()), expected, "{name}: {error:?}");
    }
}

#[test]
fn every_prefix_of_a_frame_is_waited_for() {
    let mut wire = Wire::open(open());
    let frame = wire.frame(300, 0, &query("SELECT 1", vec![]));
    for byte in &frame[..frame.len() - 1] {
        wire.raw(&[*byte]);
    }
    std::thread::sleep(Duration::from_millis(50));
    wire.raw(&frame[frame.len() - 1..]);
    assert_eq!(wire.all_of(300).len(), 1);
}

#[test]
fn an_announced_length_costs_nothing() {
    let server = Server::builder().arg("--insecure").start();
    Wire::open(&server).rows("SELECT 1", vec![]);
    let before = server.memory_kib().0;
    let mut open: Vec<Wire> = (0..50).map(|_| Wire::open(&server)).collect();
    for wire in &mut open {
        wire.raw(&Header { length: 16 << 20, flags: 0, message_id: 9 }.bytes());
        wire.raw(&[3; 100]);
    }
    std::thread::sleep(Duration::from_millis(300));
    let grown = server.memory_kib().0.saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB for 50 connections");
}

#[test]
fn messages_out_of_place_are_fatal() {
    let again = Message::Handshake(Handshake::ClientHello(Box::new(hello())));
    let auth = Message::Auth(Auth::Certificate);
    let reply = Message::TransactionStarted { transaction_id: 1 };
    let chunk = Message::Streaming(Streaming::Chunk { sequence: 0, rows: Vec::new() });
    let part = Message::BulkInsert(Bulk::Rows { sequence: 0, rows: Vec::new() });
    for message in [again, auth, reply, chunk, part] {
        let mut wire = Wire::open(open());
        wire.send(7, 0, &message);
        let error = wire.fatal();
        assert_eq!(error.sqlstate, "08P01", "{message:?}");
    }
    for (id, text) in [(0, "id"), (1 << 63 | 5, "id")] {
        let mut wire = Wire::open(open());
        wire.send(id, 0, &query("SELECT 1", vec![]));
        assert!(wire.fatal().message.contains(text));
    }
    // A request before the session is ready, and before the handshake.
    let mut wire = Wire::connect(open());
    wire.send(1, 0, &query("SELECT 1", vec![]));
    assert_eq!(wire.fatal().sqlstate, "08P01");
    let mut wire = Wire::connect(open());
    wire.handshake(hello());
    wire.send(2, 0, &query("SELECT 1", vec![]));
    assert_eq!(wire.fatal().sqlstate, "08P01");
}

#[test]
fn an_unfinished_id_is_not_used_twice() {
    let mut wire = Wire::open(open());
    wire.send(7, 0, &query("SELECT pg_sleep(5)", vec![]));
    wire.send(7, 0, &query("SELECT 1", vec![]));
    assert_eq!(wire.fatal().sqlstate, "08P01");
    // A finished one is.
    let mut wire = Wire::open(open());
    for _ in 0..3 {
        wire.send(7, 0, &query("SELECT 1", vec![]));
        wire.all_of(7);
    }
}

#[test]
fn prefaces() {
    let error = Wire::with_preface(open(), b"RUSTYDB\x02").fatal();
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("0A000", "VERSION_NOT_SUPPORTED"));
}

#[test]
fn too_many_queued_and_pending() {
    let mut wire = Wire::open(open());
    wire.send(1, 0, &query("SELECT pg_sleep(0.5)", vec![]));
    std::thread::sleep(Duration::from_millis(200));
    let mut bytes = Vec::new();
    for id in 2..=1002 {
        bytes.extend(wire.frame(id, 0, &query("SELECT 1", vec![])));
    }
    wire.raw(&bytes);
    // The refusal comes first: it does not wait.
    let Message::Error(error) = wire.read_of(1002).message else { panic!() };
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("53400", "QUEUE_FULL"));
    assert!(error.retryable);
    for id in 1..=1001 {
        assert!(matches!(wire.read_of(id).message, Message::QueryResponse(_)), "{id}");
    }
    let server =
        Server::builder().arg("--insecure").set("network.native.max_queued_requests=20000").start();
    let mut wire = Wire::open(&server);
    wire.send(1, 0, &query("SELECT pg_sleep(1)", vec![]));
    let mut bytes = Vec::new();
    for id in 2..=10_001 {
        bytes.extend(wire.frame(id, 0, &query("SELECT 1", vec![])));
    }
    wire.raw(&bytes);
    let Message::Error(error) = wire.read_of(10_001).message else { panic!() };
    assert_eq!(error.code, "TOO_MANY_PENDING_REQUESTS");
    for id in 1..=10_000 {
        assert!(matches!(wire.read_of(id).message, Message::QueryResponse(_)), "{id}");
    }
    server.expect_metric("rustydb_native_pending_requests", 0.0);
    server.expect_metric("rustydb_native_queued_requests", 0.0);
}

#[test]
fn who_is_refused_a_thousand_times_is_sent_away() {
    let mut wire = Wire::open_with(open(), ClientHello { capabilities: 2, ..hello() });
    let listen = Message::Notification(Notification::Unlisten { channel: None });
    let mut bytes = Vec::new();
    for id in 10..1010 {
        bytes.extend(wire.frame(id, 0, &listen));
    }
    wire.raw(&bytes);
    for id in 10..1009 {
        let Message::Error(error) = wire.read_of(id).message else { panic!() };
        assert_eq!((error.sqlstate.as_str(), error.severity), ("0A000", Severity::Error));
    }
    assert_eq!(wire.fatal().severity, Severity::Fatal);
}

#[test]
fn a_queue_may_give_way_to_what_is_more_important() {
    let server = Server::builder()
        .arg("--insecure")
        .set("network.native.max_queued_requests=2")
        .set("network.native.queue_full_policy=drop_lowest")
        .start();
    let mut wire = Wire::open(&server);
    wire.send(1, 0, &query("SELECT pg_sleep(0.4)", vec![]));
    std::thread::sleep(Duration::from_millis(150));
    wire.send(2, 0, &query("SELECT 1", vec![]));
    wire.send(3, 0, &query("SELECT 1", vec![]));
    wire.send(4, 2 << flags::PRIORITY_SHIFT, &query("SELECT 1", vec![]));
    let Message::Error(error) = wire.read_of(3).message else { panic!() };
    assert_eq!(error.code, "QUEUE_FULL");
    let order: Vec<u64> = (0..3).map(|_| wire.read().header.message_id).collect();
    assert_eq!(order, [1, 4, 2]);
}

#[test]
fn without_pipelining_there_is_one_request() {
    let mut wire = Wire::open_with(open(), ClientHello { capabilities: 0, ..hello() });
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
    wire.send(7, 0, &query("SELECT pg_sleep(3)", vec![]));
    wire.send(8, 0, &query("SELECT 1", vec![]));
    assert_eq!(wire.fatal().sqlstate, "08P01");
}

#[test]
fn a_frame_without_credit_is_fatal() {
    let server = Server::builder()
        .arg("--insecure")
        .set("network.native.stream_window=65536")
        .set("network.native.connection_window=131072")
        .start();
    let mut wire = Wire::open(&server);
    wire.rows("CREATE TABLE t (a text)", vec![]);
    wire.send(1, 0, &query("SELECT pg_sleep(5)", vec![]));
    let large = || query("SELECT $1::text", vec![Value::Text("x".repeat(70_000))]);
    for id in 2..5 {
        wire.send(id, 0, &large());
    }
    let error = wire.fatal();
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("08P01", "FLOW_CONTROL_ERROR"));
    // The same for a stream that is not served yet.
    let mut wire = Wire::open(&server);
    wire.send(1, 0, &query("SELECT pg_sleep(5)", vec![]));
    let start = Bulk::Start {
        schema: None,
        table: "t".into(),
        columns: Vec::new(),
        on_conflict: OnConflict::Fail,
    };
    wire.send(2, flags::MORE, &Message::BulkInsert(start));
    for sequence in 0..3 {
        let rows = vec![vec![Value::Text("x".repeat(40_000))]];
        wire.send(2, flags::MORE, &Message::BulkInsert(Bulk::Rows { sequence, rows }));
    }
    assert_eq!(wire.fatal().code, "FLOW_CONTROL_ERROR");
    // Credit comes when half of a window is free again.
    let mut wire = Wire::open(&server);
    for id in 2..6 {
        wire.send(id, 0, &large());
        let mut granted = 0;
        loop {
            let reply = wire.read();
            match reply.message {
                Message::WindowUpdate { stream: 0, credit } => {
                    assert_eq!(reply.header.flags, flags::URGENT | flags::ONEWAY);
                    granted += credit;
                }
                Message::QueryResponse(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(granted >= 65_536, "{granted}");
    }
    wire.send(0, flags::URGENT, &Message::WindowUpdate { stream: 0, credit: i32::MAX as u32 });
    assert_eq!(wire.fatal().code, "FLOW_CONTROL_ERROR");
}

#[test]
fn urgent_frames_are_short_and_few() {
    let mut wire = Wire::open(open());
    let mut bytes = Vec::new();
    for id in 0..101 {
        bytes.extend(framed(&[16], flags::URGENT, 10 + id));
    }
    wire.raw(&bytes);
    loop {
        match wire.read().message {
            Message::Pong => {}
            Message::Error(error) => {
                assert_eq!((error.sqlstate.as_str(), error.severity), ("08P01", Severity::Fatal));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A server that gives up soon.
fn impatient() -> Server {
    Server::builder()
        .arg("--insecure")
        .set("network.native.slow_consumer_timeout_secs=2")
        .set("network.native.heartbeat_interval_ms=700")
        .set("network.native.handshake_timeout_secs=1")
        .set("network.native.auth_timeout_secs=1")
        .start()
}

#[test]
fn who_says_nothing_is_given_up() {
    let server = impatient();
    let mut silent = Wire::open(&server);
    let begun = Instant::now();
    // Two heartbeats, then the end.
    for _ in 0..2 {
        let reply = silent.read();
        assert!(matches!(reply.message, Message::Heartbeat { .. }), "{reply:?}");
        assert_eq!(reply.header.flags, flags::URGENT);
        assert!(reply.header.message_id & frame::SERVER_ID != 0);
    }
    assert!(silent.try_read().is_none());
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(15), "{took:?}");
    // Who answers stays.
    let mut polite = Wire::open(&server);
    for _ in 0..4 {
        let reply = polite.read();
        polite.send(reply.header.message_id, flags::URGENT, &reply.message);
    }
    let mut wire = Wire::connect(&server);
    assert_eq!(wire.fatal().sqlstate, "08P01");
    let mut wire = Wire::connect(&server);
    wire.handshake(hello());
    assert_eq!(wire.fatal().sqlstate, "08P01");
    assert!(
        server.metric("rustydb_network_connections_rejected_total{reason=\"heartbeat\"}") > 0.0
    );
}

#[test]
fn who_grants_no_credit_stops_its_stream_and_is_given_up() {
    let server = impatient();
    let offer = ClientHello { stream_window: 65_536, connection_window: 65_536, ..hello() };
    let mut wire = Wire::open_with(&server, offer);
    let stream = Streaming::Open {
        query: Box::new(Query {
            sql: "SELECT repeat('x', 1000) FROM generate_series(1, 10000000)".into(),
            params: Vec::new(),
            param_types: Vec::new(),
            options: None,
        }),
        chunk_rows: 10,
    };
    let before = server.memory_kib().0;
    wire.send(5, 0, &Message::Streaming(stream));
    let mut taken = 0;
    let begun = Instant::now();
    while let Some(reply) = wire.try_read() {
        match reply.message {
            Message::Streaming(_) => taken += reply.header.length,
            Message::Heartbeat { .. } => {
                wire.send(reply.header.message_id, flags::URGENT, &reply.message);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(taken > 60_000 && taken < 90_000, "{taken} bytes without credit");
    assert!(begun.elapsed() > Duration::from_millis(1800), "{:?}", begun.elapsed());
    let grown = server.memory_kib().0.saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB");
    let given_up = "rustydb_network_connections_rejected_total{reason=\"slow_consumer\"}";
    server.expect_metric(given_up, 1.0);
}

#[test]
fn what_is_long_is_refused() {
    let mut wire = Wire::open(open());
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    let error = wire.refused(&query(&long, vec![]));
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("54000", "PAYLOAD_TOO_LARGE"));
    let error = wire.refused(&query("SELECT 1\0", vec![]));
    assert_eq!(error.sqlstate, "22021");
    let error = wire.refused(&query("SELECT 1", vec![Value::Int4(1); 65_536]));
    assert_eq!(error.sqlstate, "54000");
    let mut start = Wire::connect(open());
    start.handshake(hello());
    start.raw(&Header { length: 70_000, flags: 0, message_id: 2 }.bytes());
    assert_eq!(start.fatal().code, "PAYLOAD_TOO_LARGE");
    assert_eq!(HEADER, 14);
}
