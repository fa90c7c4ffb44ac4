//! Around the requests: limits of connections, drain, loss of PostgreSQL, memory, pooling.

use std::time::Duration;

use rustydb_client::protocol::frame::flags;
use rustydb_client::protocol::*;

use crate::client::{Wire, hello, query};
use crate::harness::{SOON, Server, eventually};
use crate::open;

#[test]
fn an_idle_connection_costs_little() {
    let server = Server::builder().arg("--insecure").set("network.max_connections=2000").start();
    let mut first: Vec<Wire> = (0..200).map(|_| Wire::open(&server)).collect();
    for wire in &mut first {
        wire.rows("SELECT repeat('x', 100000)", vec![]);
    }
    let before = server.memory_kib().0;
    let mut wires: Vec<Wire> = (0..1000).map(|_| Wire::open(&server)).collect();
    for wire in &mut wires {
        wire.rows("SELECT 1", vec![]);
        wire.rows("SELECT repeat('x', 100000)", vec![]);
    }
    std::thread::sleep(Duration::from_millis(300));
    let grown = server.memory_kib().0.saturating_sub(before);
    // Without optimisation the state of a task is larger.
    let most = if cfg!(debug_assertions) { 14_000 } else { 8_000 };
    assert!(grown <= most, "{grown} KiB for 1000 idle connections");
}

#[test]
fn connections_are_counted_with_those_of_postgres() {
    let server = Server::builder().arg("--insecure").set("network.max_connections=2").start();
    let _held = (Wire::open(&server), Wire::open(&server));
    let mut wire = Wire::connect(&server);
    let error = wire.fatal();
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("53300", "TOO_MANY_CONNECTIONS"));
    let refused = server.psql("select 1");
    assert!(refused.stderr.contains("too many clients"), "{refused:?}");
}

#[test]
fn a_transaction_has_the_connection_and_a_session_has_not() {
    let server = Server::builder().arg("--insecure").set("pool.max_size=1").start();
    let (mut one, mut two) = (Wire::open(&server), Wire::open(&server));
    for _ in 0..3 {
        one.rows("SELECT 1", vec![]);
        two.rows("SELECT 1", vec![]);
    }
    one.rows("SET my.own = 'one'", vec![]);
    two.rows("SET my.own = 'two'", vec![]);
    let show = |wire: &mut Wire| wire.rows("SELECT current_setting('my.own')", vec![]);
    assert_eq!(show(&mut one), [[Value::Text("one".into())]]);
    assert_eq!(show(&mut two), [[Value::Text("two".into())]]);
    let begin = Message::Begin { isolation: None, read_only: None, deferrable: None };
    one.one(&begin);
    one.rows("SELECT 1", vec![]);
    two.send(7, 0, &query("SELECT 2", vec![]));
    std::thread::sleep(Duration::from_millis(200));
    // While it waits it can be cancelled, and answers.
    two.send(8, flags::URGENT, &Message::Ping);
    assert_eq!(two.read().message, Message::Pong);
    two.send(0, flags::URGENT | flags::ONEWAY, &Message::Cancel { target: 7 });
    let Message::Error(error) = two.read_of(7).message else { panic!() };
    assert_eq!(error.sqlstate, "57014");
    one.one(&Message::Commit { and_chain: false });
    assert_eq!(two.rows("SELECT 2", vec![]), [[Value::Int4(2)]]);
}

#[test]
fn a_client_that_leaves_has_its_work_undone() {
    let server = open();
    let mut wire = Wire::open(server);
    wire.rows("CREATE TABLE IF NOT EXISTS native_left (a int)", vec![]);
    let begin = Message::Begin { isolation: None, read_only: None, deferrable: None };
    wire.one(&begin);
    wire.rows("INSERT INTO native_left VALUES (1)", vec![]);
    drop(wire);
    let mut wire = Wire::open(server);
    assert_eq!(wire.rows("SELECT count(*) FROM native_left", vec![]), [[Value::Int8(0)]]);
    wire.send(9, 0, &query("SELECT pg_sleep(30) AS native_gone", vec![]));
    std::thread::sleep(Duration::from_millis(200));
    drop(wire);
    let sql = "select count(*) from pg_stat_activity where state <> 'idle' \
               and query like '%native_gone%' and pid <> pg_backend_pid()";
    eventually("its statement is cancelled", SOON, || server.direct_value(sql) == "0");
}

#[test]
fn an_administrator_ends_a_session() {
    let server = open();
    let mut wire = Wire::open(server);
    wire.send(9, 0, &query("SELECT pg_sleep(30) AS native_killed", vec![]));
    std::thread::sleep(Duration::from_millis(300));
    server.direct_value(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where query like '%native_killed%' and pid <> pg_backend_pid() limit 1",
    );
    let reply = wire.read();
    assert_eq!(reply.header.message_id, 9);
    let Message::Error(error) = reply.message else { panic!("{reply:?}") };
    assert_eq!((error.sqlstate.as_str(), error.severity), ("57P01", Severity::Fatal));
    assert!(wire.try_read().is_none());
}

#[test]
fn a_drain_tells_its_clients() {
    let mut server = Server::builder().arg("--insecure").start();
    let (mut idle, mut busy) = (Wire::open(&server), Wire::open(&server));
    busy.send(9, 0, &query("SELECT pg_sleep(1)", vec![]));
    std::thread::sleep(Duration::from_millis(300));
    server.signal("TERM");
    let reply = idle.read();
    assert!(
        matches!(reply.message, Message::Notification(Notification::Shutdown { .. })),
        "{reply:?}"
    );
    let error = idle.fatal();
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("57P01", "SHUTTING_DOWN"));
    let reply = busy.read_of(9);
    assert!(matches!(reply.message, Message::QueryResponse(_)), "{reply:?}");
    assert_eq!(busy.fatal().sqlstate, "57P01");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn an_idle_client_is_sent_away_and_a_listening_one_is_not() {
    let server = Server::builder().arg("--insecure").set("network.idle_timeout_secs=1").start();
    let (mut idle, mut listening) = (Wire::open(&server), Wire::open(&server));
    listening.one(&Message::Notification(Notification::Listen { channel: "c".into() }));
    idle.rows("SELECT 1", vec![]);
    assert_eq!(idle.fatal().sqlstate, "57P05");
    assert_eq!(listening.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
}

#[test]
fn both_protocols_share_the_unix_socket() {
    use std::os::unix::net::UnixStream;
    let server = open();
    let path = server.socket_dir.join(format!(".s.PGSQL.{}", server.port));
    let mut stream = UnixStream::connect(path).unwrap();
    use std::io::{Read, Write};
    stream.write_all(&PREFACE).unwrap();
    let offer = Message::Handshake(Handshake::ClientHello(Box::new(hello())));
    let mut bytes = Vec::new();
    let start = rustydb_client::protocol::frame::begin(&mut bytes);
    encode(&offer, &mut bytes);
    rustydb_client::protocol::frame::finish(&mut bytes, start, 0, 1, &Agreed::default()).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut header = [0; 14];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[6], 1);
}

#[test]
fn a_long_stream_costs_little_memory() {
    let server = Server::builder().arg("--insecure").start();
    let mut wire = Wire::open(&server);
    let mut run = |rows: u32| {
        let stream = Streaming::Open {
            query: Box::new(Query {
                sql: format!("SELECT i, repeat('x', 20) FROM generate_series(1, {rows}) i"),
                params: Vec::new(),
                param_types: Vec::new(),
                options: None,
            }),
            chunk_rows: 0,
        };
        wire.send(5, 0, &Message::Streaming(stream));
        let (mut count, mut used) = (0, 0);
        loop {
            let reply = wire.read();
            match reply.message {
                Message::Streaming(Streaming::Chunk { rows, .. }) => count += rows.len(),
                Message::Streaming(Streaming::End { rows, .. }) => {
                    assert_eq!(rows as usize, count);
                    return count;
                }
                Message::Streaming(_) => {}
                other => panic!("{other:?}"),
            }
            used += reply.header.length;
            if used > 300_000 {
                for stream in [0, 5] {
                    let update = Message::WindowUpdate { stream, credit: used };
                    wire.send(0, flags::URGENT | flags::ONEWAY, &update);
                }
                used = 0;
            }
        }
    };
    run(10_000);
    let before = server.memory_kib().1;
    assert_eq!(run(1_000_000), 1_000_000);
    let grown = server.memory_kib().1.saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
}
