//! Extensions: messages as JSON and as MessagePack, and messages of an extension's own.

use std::sync::OnceLock;

use rustydb_client::protocol::frame::{self, flags};
use rustydb_client::protocol::*;

use crate::client::{Wire, hello, query};
use crate::harness::Server;
use crate::harness::shared::Shared;
use crate::open;

/// A server on which all extensions are on.
fn extended() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    let builder = || {
        let names = "network.native.extensions=codec.json,codec.msgpack,rustydb.echo";
        Server::builder().arg("--insecure").set(names)
    };
    &SERVER.get_or_init(|| Shared::start(builder())).server
}

fn offers(names: &[&str]) -> Vec<ExtensionOffer> {
    names.iter().map(|name| ExtensionOffer { name: (*name).into(), version: 1 }).collect()
}

fn offering(names: &[&str]) -> ClientHello {
    ClientHello { extensions: offers(names), ..hello() }
}

const CODECS: [&str; 2] = ["codec.json", "codec.msgpack"];

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn what_goes_over_the_wire_is_what_was_agreed() {
    let mut wire = Wire::connect(extended());
    let reply = wire.handshake(offering(&["codec.none", "codec.json", "codec.msgpack"]));
    assert_eq!(reply.extensions, offers(&["codec.json"]));
    let raw = |wire: &mut Wire, id: u64, body: &[u8]| {
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        bytes.extend_from_slice(body);
        frame::finish(&mut bytes, start, 0, id, &Agreed::default()).unwrap();
        wire.raw(&bytes);
    };
    raw(
        &mut wire,
        2,
        br#"{"Auth":{"Start":{"user":"rustydb","database":"rustydb","method":"Trust",
            "application_name":"by hand","parameters":[["TimeZone","UTC"]]}}}"#,
    );
    let success = wire.read().message;
    assert!(matches!(success, Message::AuthReply(AuthReply::Success { .. })), "{success:?}");
    raw(
        &mut wire,
        3,
        br#"{"Query":{"sql":"SELECT $1, 2.5::float8","params":[{"Int4":1}],"param_types":[]}}"#,
    );
    // Read without any help.
    let body = loop {
        if let Some(body) = raw_body(&mut wire) {
            break body;
        }
    };
    let text = String::from_utf8(body).unwrap();
    assert!(text.starts_with(r#"{"QueryResponse":{"statement_index":0,"columns":[{"name":"#));
    assert!(text.contains(r#""rows":[[{"Int4":1},{"Float8":2.5}]]"#), "{text}");
    assert!(text.ends_with(r#""transaction_status":"Idle"}}"#), "{text}");
    raw(&mut wire, 4, br#"{"Query":{"sql":"SELECT 1","parms":[]}}"#);
    let error = wire.fatal();
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("08P01", "PROTOCOL_VIOLATION"));
}

/// The body of the next frame, when it has come.
fn raw_body(wire: &mut Wire) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut header = [0; frame::HEADER];
    wire.stream.read_exact(&mut header).unwrap();
    let header = Header::parse(&header, frame::MAX_PAYLOAD).unwrap().unwrap();
    let mut body = vec![0; header.length as usize];
    wire.stream.read_exact(&mut body).unwrap();
    (header.message_id == 3).then_some(body)
}

#[test]
fn nothing_is_agreed_unless_it_is_on() {
    let mut wire = Wire::connect(open());
    let reply = wire.handshake(offering(&["codec.json", "rustydb.echo"]));
    assert_eq!(reply.extensions, []);
    let mut wire = Wire::open_with(open(), offering(&["rustydb.echo"]));
    let message = Message::Extension { name: "rustydb.echo".into(), payload: vec![1] };
    assert_eq!(wire.refused(&message).sqlstate, "0A000");
}

#[test]
fn an_extension_answers_its_messages() {
    for names in [&["rustydb.echo"][..], &["rustydb.echo", "codec.json"]] {
        let mut wire = Wire::open_with(extended(), offering(names));
        let message =
            |payload: Vec<u8>| Message::Extension { name: "rustydb.echo".into(), payload };
        for payload in [vec![], vec![0, 255], vec![7; 100_000]] {
            assert_eq!(wire.one(&message(payload.clone())), message(payload));
        }
        let other = Message::Extension { name: "codec.json".into(), payload: vec![] };
        assert_eq!(wire.refused(&other).sqlstate, "0A000");
        assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
    }
}

#[test]
fn every_request_in_every_form() {
    for name in CODECS {
        for compression in [CompressionType::None, CompressionType::Zstd] {
            let offer = ClientHello {
                compression: vec![compression],
                capabilities: capabilities::ALL,
                ..offering(&[name])
            };
            let mut wire = Wire::open_with(extended(), offer);
            assert_eq!(wire.agreed.encoding.name(), name);
            requests(&mut wire);
        }
    }
}

fn requests(wire: &mut Wire) {
    let sql = "SELECT $1::bytea, ARRAY[1,NULL], 'NaN'::float8, int4range(1, 5), repeat('x', 5000)";
    let rows = wire.rows(sql, vec![Value::Bytea(vec![0, 255])]);
    assert_eq!(rows[0][0], Value::Bytea(vec![0, 255]));
    assert!(matches!(rows[0][2], Value::Float8(nan) if nan.is_nan()));
    assert_eq!(rows[0][4], text(&"x".repeat(5000)));
    assert_eq!(wire.refused(&query("SELECT 1/0", vec![])).sqlstate, "22012");
    let prepare =
        Prepared::Prepare { name: "s".into(), sql: "SELECT $1 + 1".into(), param_types: vec![20] };
    assert!(matches!(wire.one(&Message::PreparedStatement(prepare)), Message::StatementInfo(_)));
    // Many at once: they are sent ahead in bincode, and have to come right here, too.
    let execute = |n: i64| {
        let (name, params) = ("s".into(), vec![Value::Int8(n)]);
        Message::PreparedStatement(Prepared::Execute { name, params, options: None })
    };
    for n in 1..100 {
        wire.send(1000 + n, 0, &execute(n as i64));
    }
    for n in 1..100 {
        let Message::QueryResponse(response) = &wire.all_of(1000 + n)[0] else { panic!() };
        assert_eq!(response.rows, [[Value::Int8(n as i64 + 1)]]);
    }
    wire.one(&Message::Begin { isolation: None, read_only: None, deferrable: None });
    wire.rows("CREATE TEMPORARY TABLE codec_rows (n int, t text)", vec![]);
    let start = Bulk::Start {
        schema: None,
        table: "codec_rows".into(),
        columns: vec!["n".into(), "t".into()],
        on_conflict: OnConflict::Fail,
    };
    wire.send(50, flags::MORE, &Message::BulkInsert(start));
    for sequence in 0..5 {
        let rows = (0..500).map(|n| vec![Value::Int4(n), text("a row")]).collect();
        wire.send(50, flags::MORE, &Message::BulkInsert(Bulk::Rows { sequence, rows }));
    }
    wire.send(50, 0, &Message::BulkInsert(Bulk::End));
    let Message::Ok { affected_rows, .. } = wire.all_of(50).remove(0) else { panic!() };
    assert_eq!(affected_rows, 2500);
    let all = Query {
        sql: "TABLE codec_rows".into(),
        params: vec![],
        param_types: vec![],
        options: None,
    };
    let replies =
        wire.ask(&Message::Streaming(Streaming::Open { query: Box::new(all), chunk_rows: 0 }));
    let rows = replies.iter().map(|reply| match reply {
        Message::Streaming(Streaming::Chunk { rows, .. }) => rows.len(),
        _ => 0,
    });
    assert_eq!((replies.len(), rows.sum::<usize>()), (27, 2500));
    wire.one(&Message::Rollback { to_savepoint: None, and_chain: false });
    wire.send(60, 0, &query("SELECT pg_sleep(20)", vec![]));
    std::thread::sleep(std::time::Duration::from_millis(100));
    wire.send(0, flags::URGENT | flags::ONEWAY, &Message::Cancel { target: 60 });
    let Message::Error(error) = wire.read_of(60).message else { panic!() };
    assert_eq!(error.sqlstate, "57014");
    wire.send(61, flags::URGENT, &Message::Ping);
    assert_eq!(wire.read_of(61).message, Message::Pong);
    let beat = Message::Heartbeat { sent_at_us: u64::MAX, pending: u32::MAX };
    wire.send(62, flags::URGENT, &beat);
    assert!(matches!(wire.read_of(62).message, Message::Heartbeat { sent_at_us: u64::MAX, .. }));
}

#[test]
fn what_gets_longer_still_fits() {
    for name in CODECS {
        let offer = ClientHello { max_message_size: 65_536, ..offering(&[name]) };
        let mut wire = Wire::open_with(extended(), offer);
        // The rows that grow most: five bytes in bincode, ninety in JSON.
        let sql = "SELECT 'empty'::int4range, NULL, '0'::interval FROM generate_series(1, 20000)";
        let replies = wire.ask(&query(sql, vec![]));
        let rows = replies.iter().map(|reply| match reply {
            Message::QueryResponse(part) => part.rows.len(),
            other => panic!("{other:?}"),
        });
        assert!(replies.len() > 10);
        assert_eq!(rows.sum::<usize>(), 20_000);
        // A row alone may use all there is.
        let replies = wire.ask(&query("SELECT repeat('x', 60000)", vec![]));
        let Message::QueryResponse(first) = &replies[0] else { panic!() };
        assert_eq!(first.rows[0][0], text(&"x".repeat(60_000)));
        assert_eq!(wire.refused(&query("SELECT repeat('x', 65536)", vec![])).sqlstate, "54000");
        let oid =
            wire.rows("SELECT lo_from_bytea(0, convert_to(repeat('y', 200000), 'UTF8'))", vec![]);
        let Value::Oid(oid) = oid[0][0] else { panic!() };
        let open = Streaming::OpenObject { oid, offset: 0, length: None };
        let replies = wire.ask(&Message::Streaming(open));
        let last = replies.last().unwrap();
        assert!(
            matches!(last, Message::Streaming(Streaming::End { rows: 200_000, .. })),
            "{last:?}"
        );
    }
}

#[test]
fn a_message_that_is_too_large_in_memory_is_refused_alone() {
    for name in CODECS {
        let mut wire = Wire::open_with(extended(), offering(&[name]));
        // Megabytes are read and written without optimisation here.
        wire.stream.set_read_timeout(Some(std::time::Duration::from_secs(120))).unwrap();
        let many = vec![Value::Null; 1_800_000];
        let error = wire.refused(&query("SELECT 1", many.clone()));
        assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("54000", "PAYLOAD_TOO_LARGE"));
        let nested = (0..40)
            .fold(Value::Null, |inner, _| Value::Composite { type_oid: 2249, fields: vec![inner] });
        assert_eq!(wire.refused(&query("SELECT $1", vec![nested])).sqlstate, "54000");
        wire.rows("CREATE TEMPORARY TABLE codec_large (n int)", vec![]);
        let start = Bulk::Start {
            schema: None,
            table: "codec_large".into(),
            columns: vec!["n".into()],
            on_conflict: OnConflict::Fail,
        };
        wire.send(50, flags::MORE, &Message::BulkInsert(start));
        let rows = many.into_iter().take(1_000_000).map(|null| vec![null]).collect();
        wire.send(50, flags::MORE, &Message::BulkInsert(Bulk::Rows { sequence: 0, rows }));
        wire.send(50, 0, &Message::BulkInsert(Bulk::End));
        let Some(Message::Error(error)) = wire.all_of(50).pop() else { panic!() };
        assert_eq!(error.sqlstate, "54000");
        assert_eq!(wire.rows("SELECT count(*) FROM codec_large", vec![]), [[Value::Int8(0)]]);
    }
}
