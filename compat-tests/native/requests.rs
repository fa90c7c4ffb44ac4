//! Every request, and its reply.

use rustydb_client::protocol::*;

use crate::client::{Wire, hello, query};
use crate::{guarded, open};

#[test]
fn a_query_without_and_with_parameters() {
    let mut wire = Wire::open(open());
    let response = wire.response("SELECT 1 AS one, 'x'::text, NULL", vec![]);
    assert_eq!(response.rows, [[Value::Int4(1), Value::Text("x".into()), Value::Null]]);
    assert_eq!((response.affected_rows, response.command_tag.as_str()), (1, "SELECT 1"));
    let column = &response.columns[0];
    assert_eq!((column.name.as_str(), column.type_oid, column.type_size), ("one", 23, 4));
    assert_eq!((column.type_name.as_str(), column.type_modifier), ("int4", -1));
    let rows = wire.rows("SELECT $1::int8 + 1, $2", vec![Value::Int8(-5), Value::Text("é".into())]);
    assert_eq!(rows, [[Value::Int8(-4), Value::Text("é".into())]]);
    // Again, now that it is known.
    let rows = wire.rows("SELECT $1::int8 + 1, $2", vec![Value::Int8(7), Value::Text("b".into())]);
    assert_eq!(rows, [[Value::Int8(8), Value::Text("b".into())]]);
    let error = wire.refused(&query("SELECT * FROM nothing_here", vec![]));
    assert_eq!((error.sqlstate.as_str(), error.position), ("42P01", Some(15)));
    assert_eq!(wire.rows("SELECT 2", vec![]), [[Value::Int4(2)]]);
}

#[test]
fn several_statements_have_a_reply_each() {
    let mut wire = Wire::open(open());
    let replies = wire.ask(&query("SELECT 1; SELECT 'a;b'; ; SELECT 3 WHERE false", vec![]));
    let rows: Vec<_> = replies
        .iter()
        .map(|reply| match reply {
            Message::QueryResponse(response) => (response.statement_index, response.rows.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rows, [(0, 1), (1, 1), (2, 0)]);
    // One transaction: the second error undoes the first.
    let sql = "CREATE TABLE undone (a int); SELECT 1/0";
    assert_eq!(wire.refused(&query(sql, vec![])).sqlstate, "22012");
    assert_eq!(wire.refused(&query("TABLE undone", vec![])).sqlstate, "42P01");
}

#[test]
fn compressed_and_checked() {
    let kinds = [CompressionType::Lz4, CompressionType::Zstd, CompressionType::Snappy];
    for compression in kinds {
        let offer = ClientHello {
            compression: vec![compression],
            capabilities: capabilities::ALL,
            ..hello()
        };
        let mut wire = Wire::open_with(open(), offer);
        assert!(wire.agreed.checksum);
        assert_eq!(wire.agreed.compression, compression);
        let rows = wire.rows("SELECT repeat('x', 100000), $1", vec![Value::Text("y".repeat(9000))]);
        assert_eq!(rows[0], [Value::Text("x".repeat(100_000)), Value::Text("y".repeat(9000))]);
    }
}

#[test]
fn nobody_comes_in_without_a_password() {
    let mut wire = Wire::connect(guarded());
    let hello = wire.handshake(hello());
    assert_eq!(hello.auth_methods[0], AuthMethod::ScramSha256);
    let start = crate::client::start("rustydb", AuthMethod::Trust);
    wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(start))));
    let error = wire.fatal();
    assert_eq!(error.sqlstate, "28000");
}

fn ok(message: &Message) -> (u64, Option<&str>, TxStatus) {
    match message {
        Message::Ok { affected_rows, command_tag, transaction_status } => {
            (*affected_rows, command_tag.as_deref(), *transaction_status)
        }
        other => panic!("{other:?}"),
    }
}

const BEGIN: Message = Message::Begin { isolation: None, read_only: None, deferrable: None };
const COMMIT: Message = Message::Commit { and_chain: false };
const ROLLBACK: Message = Message::Rollback { to_savepoint: None, and_chain: false };

#[test]
fn transactions_and_savepoints() {
    let mut wire = Wire::open(open());
    assert_eq!(wire.refused(&COMMIT).sqlstate, "25P01");
    assert_eq!(wire.refused(&ROLLBACK).sqlstate, "25P01");
    wire.rows("DROP TABLE IF EXISTS native_tx", vec![]);
    wire.rows("CREATE TABLE native_tx (a int)", vec![]);
    let begin = Message::Begin {
        isolation: Some(Isolation::Serializable),
        read_only: Some(false),
        deferrable: None,
    };
    let Message::TransactionStarted { transaction_id } = wire.one(&begin) else { panic!() };
    assert!(transaction_id > 0);
    assert_eq!(wire.refused(&BEGIN).sqlstate, "25001");
    let level = wire.response("SHOW transaction_isolation", vec![]);
    assert_eq!(level.rows, [[Value::Text("serializable".into())]]);
    assert_eq!(level.transaction_status, TxStatus::InTransaction);
    wire.rows("INSERT INTO native_tx VALUES (1)", vec![]);
    let savepoint = |release| Message::Savepoint { name: "a \"b".into(), release };
    assert_eq!(ok(&wire.one(&savepoint(false))).1, Some("SAVEPOINT"));
    wire.rows("INSERT INTO native_tx VALUES (2)", vec![]);
    let error = wire.refused(&query("SELECT 1/0", vec![]));
    assert_eq!(error.sqlstate, "22012");
    let error = wire.refused(&query("SELECT 1", vec![]));
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("25P02", "TRANSACTION_FAILED"));
    assert_eq!(wire.refused(&BEGIN).sqlstate, "25P02");
    let back = Message::Rollback { to_savepoint: Some("a \"b".into()), and_chain: false };
    assert_eq!(ok(&wire.one(&back)), (0, Some("ROLLBACK"), TxStatus::InTransaction));
    assert_eq!(ok(&wire.one(&savepoint(true))).1, Some("RELEASE"));
    assert_eq!(ok(&wire.one(&COMMIT)), (0, Some("COMMIT"), TxStatus::Idle));
    assert_eq!(wire.rows("TABLE native_tx", vec![]), [[Value::Int4(1)]]);
    // The commit of a failed transaction says what it was.
    wire.one(&BEGIN);
    wire.refused(&query("SELECT 1/0", vec![]));
    assert_eq!(ok(&wire.one(&COMMIT)).1, Some("ROLLBACK"));
    wire.one(&BEGIN);
    let chained = Message::Commit { and_chain: true };
    assert_eq!(ok(&wire.one(&chained)).2, TxStatus::InTransaction);
    wire.one(&ROLLBACK);
}

#[test]
fn prepared_statements() {
    let mut wire = Wire::open(open());
    let prepare = |name: &str, sql: &str, types: Vec<u32>| {
        Message::PreparedStatement(Prepared::Prepare {
            name: name.into(),
            sql: sql.into(),
            param_types: types,
        })
    };
    let execute = |name: &str, params: Vec<Value>| {
        Message::PreparedStatement(Prepared::Execute { name: name.into(), params, options: None })
    };
    let info = wire.one(&prepare("s1", "SELECT $1 + 1 AS n, $2::text", vec![20]));
    let Message::StatementInfo(info) = info else { panic!("{info:?}") };
    assert_eq!((info.name.as_str(), &info.param_types[..]), ("s1", &[20, 25][..]));
    assert_eq!((info.columns[0].name.as_str(), info.columns[0].type_oid), ("n", 20));
    for n in 0..3 {
        // An int4 where an int8 is wanted.
        let reply = wire.one(&execute("s1", vec![Value::Int4(n), Value::Text("t".into())]));
        let Message::QueryResponse(response) = reply else { panic!("{reply:?}") };
        assert_eq!(response.rows[0][0], Value::Int8(i64::from(n) + 1));
    }
    assert_eq!(wire.refused(&prepare("s1", "SELECT 1", vec![])).sqlstate, "42P05");
    assert_eq!(wire.refused(&execute("s2", vec![])).sqlstate, "26000");
    assert_eq!(wire.refused(&execute("s1", vec![])).sqlstate, "08P01");
    assert_eq!(wire.refused(&prepare(&"x".repeat(64), "SELECT 1", vec![])).sqlstate, "22023");
    let describe = Message::PreparedStatement(Prepared::Describe { name: "s1".into() });
    assert_eq!(wire.one(&describe), Message::StatementInfo(info));
    let deallocate = Message::PreparedStatement(Prepared::Deallocate { name: "s1".into() });
    assert_eq!(ok(&wire.one(&deallocate)).1, Some("DEALLOCATE"));
    assert_eq!(wire.refused(&deallocate).sqlstate, "26000");
    for n in 0..1024 {
        wire.one(&prepare(&format!("p{n}"), "SELECT 1", vec![]));
    }
    let error = wire.refused(&prepare("p1024", "SELECT 1", vec![]));
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("54000", "PAYLOAD_TOO_LARGE"));
}

fn open_stream(sql: &str, chunk_rows: u32) -> Message {
    let query =
        Query { sql: sql.into(), params: Vec::new(), param_types: Vec::new(), options: None };
    Message::Streaming(Streaming::Open { query: Box::new(query), chunk_rows })
}

fn count(replies: &[Message]) -> (usize, usize, u64) {
    let (mut chunks, mut rows, mut end) = (0, 0, u64::MAX);
    for (at, reply) in replies.iter().enumerate() {
        match reply {
            Message::Streaming(Streaming::Header { columns }) => {
                assert_eq!((at, columns.len()), (0, 1));
            }
            Message::Streaming(Streaming::Chunk { sequence, rows: some }) => {
                assert_eq!(*sequence as usize, chunks);
                chunks += 1;
                rows += some.len();
            }
            Message::Streaming(Streaming::End { rows, .. }) => end = *rows,
            other => panic!("{other:?}"),
        }
    }
    (chunks, rows, end)
}

#[test]
fn streams_come_in_parts() {
    let mut wire = Wire::open(open());
    let replies = wire.ask(&open_stream("SELECT generate_series(1, 2550)", 0));
    assert_eq!(count(&replies), (26, 2550, 2550));
    let replies = wire.ask(&open_stream("SELECT generate_series(1, 5000)", 2000));
    assert_eq!(count(&replies), (3, 5000, 5000));
    let replies = wire.ask(&open_stream("SELECT 1 WHERE false", 10));
    assert_eq!(count(&replies), (0, 0, 0));
    // Parts of about 64 KiB.
    let replies = wire.ask(&open_stream("SELECT repeat('x', 30000) FROM generate_series(1, 9)", 0));
    assert_eq!(count(&replies), (3, 9, 9));
    let error = wire.refused(&open_stream("SELECT 1/(5 - n) FROM generate_series(1, 9) n", 2));
    assert_eq!(error.sqlstate, "22012");
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
}

#[test]
fn a_stream_can_be_ended_without_losing_the_transaction() {
    let mut wire = Wire::open(open());
    wire.one(&BEGIN);
    wire.send(7, 0, &open_stream("SELECT generate_series(1, 100000000)", 100));
    wire.read_of(7);
    wire.send(7, frame_flags::ONEWAY, &Message::Streaming(Streaming::Cancel));
    let replies = wire.all_of(7);
    let last = replies.last().unwrap();
    let Message::Streaming(Streaming::End { rows, transaction_status, .. }) = last else {
        panic!("{last:?}")
    };
    assert!(*rows > 0 && *rows < 50_000_000, "{rows}");
    assert_eq!(*transaction_status, TxStatus::InTransaction);
    assert_eq!(ok(&wire.one(&COMMIT)).1, Some("COMMIT"));
}

use rustydb_client::protocol::frame::flags as frame_flags;

fn bulk_start(table: &str, columns: &[&str], on_conflict: OnConflict) -> Message {
    Message::BulkInsert(Bulk::Start {
        schema: None,
        table: table.into(),
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        on_conflict,
    })
}

fn bulk_rows(sequence: u32, rows: Vec<Vec<Value>>) -> Message {
    Message::BulkInsert(Bulk::Rows { sequence, rows })
}

const BULK_END: Message = Message::BulkInsert(Bulk::End);

#[test]
fn rows_in_bulk() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_bulk", vec![]);
    let sql = "CREATE TABLE native_bulk (id int8 PRIMARY KEY, t text, b bytea, ts timestamptz)";
    wire.rows(sql, vec![]);
    let more = frame_flags::MORE;
    let columns = ["id", "t", "b", "ts"];
    wire.send(9, more, &bulk_start("native_bulk", &columns, OnConflict::Fail));
    for part in 0..10 {
        let rows = (0..1000).map(|n| {
            let n = part * 1000 + n;
            let text = if n % 3 == 0 { Value::Null } else { Value::Text(format!("t\t\\{n}\n")) };
            vec![Value::Int4(n), text, Value::Bytea(vec![0, 92, n as u8]), Value::TimestampTz(0)]
        });
        wire.send(9, more, &bulk_rows(part as u32, rows.collect()));
    }
    wire.send(9, 0, &BULK_END);
    assert_eq!(ok(&wire.all_of(9)[0]), (10_000, Some("COPY 10000"), TxStatus::Idle));
    let rows = wire.rows("SELECT t, b, ts FROM native_bulk WHERE id = 9998", vec![]);
    let expected =
        [Value::Text("t\t\\9998\n".into()), Value::Bytea(vec![0, 92, 14]), Value::TimestampTz(0)];
    assert_eq!(rows, [expected]);
    // A conflict fails, or is left out.
    let row = |id| vec![Value::Int8(id), Value::Null, Value::Null, Value::Null];
    wire.send(10, more, &bulk_start("native_bulk", &columns, OnConflict::Fail));
    wire.send(10, more, &bulk_rows(0, vec![row(20_000), row(1)]));
    wire.send(10, 0, &BULK_END);
    let replies = wire.all_of(10);
    let Message::Error(error) = &replies[0] else { panic!("{replies:?}") };
    assert_eq!((error.sqlstate.as_str(), error.table.as_deref()), ("23505", Some("native_bulk")));
    wire.send(11, more, &bulk_start("native_bulk", &columns, OnConflict::Skip));
    wire.send(11, more, &bulk_rows(0, vec![row(20_000), row(1), row(20_001)]));
    wire.send(11, 0, &BULK_END);
    assert_eq!(ok(&wire.all_of(11)[0]).0, 2);
    let rows = wire.rows("SELECT count(*) FROM native_bulk", vec![]);
    assert_eq!(rows, [[Value::Int8(10_002)]]);
}

#[test]
fn a_bulk_insert_that_fails_leaves_the_connection_usable() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_bad_bulk", vec![]);
    wire.rows("CREATE TABLE native_bad_bulk (id int)", vec![]);
    let more = frame_flags::MORE;
    let bad = |wire: &mut Wire, id: u64, parts: Vec<Message>| {
        wire.send(id, more, &bulk_start("native_bad_bulk", &["id"], OnConflict::Fail));
        let last = parts.len();
        for (at, part) in parts.iter().enumerate() {
            wire.send(id, if at + 1 == last { 0 } else { more }, part);
        }
        match wire.all_of(id).pop() {
            Some(Message::Error(error)) => error.sqlstate,
            other => panic!("{other:?}"),
        }
    };
    let text = |t: &str| vec![vec![Value::Text(t.into())]];
    let cases = [
        (vec![bulk_rows(0, text("x")), bulk_rows(1, text("1")), BULK_END], "22P02"),
        (vec![bulk_rows(1, text("1")), BULK_END], "08P01"),
        (vec![bulk_rows(0, vec![vec![Value::MacAddr(vec![1])]]), BULK_END], "22P02"),
        (vec![Message::BulkInsert(Bulk::Abort { reason: "no".into() })], "57014"),
    ];
    for (n, (parts, sqlstate)) in cases.into_iter().enumerate() {
        assert_eq!(bad(&mut wire, 20 + n as u64, parts), sqlstate);
        assert_eq!(wire.rows("SELECT count(*) FROM native_bad_bulk", vec![]), [[Value::Int8(0)]]);
    }
    wire.send(40, more, &bulk_start("no_such_table", &[], OnConflict::Skip));
    wire.send(40, 0, &BULK_END);
    let Some(Message::Error(error)) = wire.all_of(40).pop() else { panic!() };
    assert_eq!(error.sqlstate, "42P01");
    assert_eq!(wire.response("SELECT 1", vec![]).transaction_status, TxStatus::Idle);
}

#[test]
fn batches() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_batch", vec![]);
    wire.rows("CREATE TABLE native_batch (a int PRIMARY KEY)", vec![]);
    let batch = |sqls: &[&str], atomic, stop_on_error| Message::Batch {
        statements: sqls
            .iter()
            .map(|sql| Query {
                sql: (*sql).into(),
                params: Vec::new(),
                param_types: Vec::new(),
                options: None,
            })
            .collect(),
        atomic,
        stop_on_error,
    };
    let kinds = |replies: &[Message]| -> String {
        let kind = |reply: &Message| match reply {
            Message::QueryResponse(_) => 'r',
            Message::Error(_) => 'e',
            other => panic!("{other:?}"),
        };
        replies.iter().map(kind).collect()
    };
    let count = |wire: &mut Wire| wire.rows("SELECT count(*) FROM native_batch", vec![]);
    let insert = |n: u32| format!("INSERT INTO native_batch VALUES ({n})");
    let (one, two, three) = (insert(1), insert(2), insert(3));
    let replies = wire.ask(&batch(&[&one, &one, &two], true, false));
    assert_eq!((kinds(&replies).as_str(), count(&mut wire)), ("re", vec![vec![Value::Int8(0)]]));
    let replies = wire.ask(&batch(&[&one, &one, &two], false, false));
    assert_eq!((kinds(&replies).as_str(), count(&mut wire)), ("rer", vec![vec![Value::Int8(2)]]));
    let replies = wire.ask(&batch(&[&one, &three], false, true));
    assert_eq!((kinds(&replies).as_str(), count(&mut wire)), ("e", vec![vec![Value::Int8(2)]]));
    let replies = wire.ask(&batch(&[&three, "SELECT 1"], true, true));
    assert_eq!((kinds(&replies).as_str(), count(&mut wire)), ("rr", vec![vec![Value::Int8(3)]]));
    // Within a transaction only the batch is undone.
    wire.one(&BEGIN);
    wire.rows(&insert(4), vec![]);
    wire.ask(&batch(&[&insert(5), &one], true, true));
    assert_eq!(ok(&wire.one(&COMMIT)).1, Some("COMMIT"));
    assert_eq!(count(&mut wire), [[Value::Int8(4)]]);
    assert_eq!(ok(&wire.one(&batch(&[], true, true))).0, 0);
    let many = vec!["SELECT 1"; 1001];
    assert_eq!(wire.refused(&batch(&many, true, true)).sqlstate, "54000");
}

#[test]
fn settings() {
    let mut wire = Wire::open(open());
    let set = |name: &str, value: &str, local| {
        let (name, value) = (name.into(), value.into());
        Message::Session(SessionCommand::Set { name, value, local })
    };
    let show = |wire: &mut Wire, name: &str| {
        let show = Message::Session(SessionCommand::Show { name: name.into() });
        match wire.one(&show) {
            Message::QueryResponse(response) => match &response.rows[0][0] {
                Value::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ok(&wire.one(&set("work_mem", "8MB", false))).1, Some("SET"));
    assert_eq!(show(&mut wire, "work_mem"), "8MB");
    wire.one(&set("search_path", "a, \"B\", public", false));
    assert_eq!(show(&mut wire, "search_path"), "a, \"B\", public");
    wire.one(&set("my.own", "it's \\ 'x", false));
    assert_eq!(show(&mut wire, "my.own"), "it's \\ 'x");
    assert_eq!(wire.refused(&set("work_mem", "nonsense", false)).sqlstate, "22023");
    wire.one(&BEGIN);
    wire.one(&set("work_mem", "16MB", true));
    assert_eq!(show(&mut wire, "work_mem"), "16MB");
    wire.one(&COMMIT);
    assert_eq!(show(&mut wire, "work_mem"), "8MB");
    wire.one(&Message::Session(SessionCommand::Reset { name: Some("work_mem".into()) }));
    assert_eq!(show(&mut wire, "work_mem"), "4MB");
    wire.one(&Message::Session(SessionCommand::Reset { name: None }));
    assert_eq!(show(&mut wire, "search_path"), "\"$user\", public");
    assert_eq!(show(&mut wire, "application_name"), "native-test");
    assert_eq!(ok(&wire.one(&Message::Session(SessionCommand::DiscardAll))).1, Some("DISCARD ALL"));
    let acquire = Message::Session(SessionCommand::Acquire {
        connection_class: Some("webapp".into()),
        tag: None,
        purity: Purity::New,
    });
    assert!(matches!(wire.one(&acquire), Message::AuthReply(AuthReply::Success { .. })));
    wire.one(&Message::Session(SessionCommand::Release { tag: None }));
}

#[test]
fn channels() {
    let (mut listener, mut speaker) = (Wire::open(open()), Wire::open(open()));
    let listen =
        |channel: &str| Message::Notification(Notification::Listen { channel: channel.into() });
    assert_eq!(ok(&listener.one(&listen("Jobs \"x\""))).1, Some("LISTEN"));
    speaker.rows("SELECT pg_notify('Jobs \"x\"', 'forty-two')", vec![]);
    let reply = listener.read();
    assert_eq!(reply.header.message_id, 0);
    let Message::Notification(Notification::Event { channel, payload, .. }) = reply.message else {
        panic!("{reply:?}")
    };
    assert_eq!((channel.as_str(), payload.as_str()), ("Jobs \"x\"", "forty-two"));
    let unlisten = Message::Notification(Notification::Unlisten { channel: None });
    assert_eq!(ok(&listener.one(&unlisten)).1, Some("UNLISTEN"));
    listener.send(50, 0, &query("DO $$ begin raise warning 'careful'; end $$", vec![]));
    let Message::Notification(Notification::Notice { severity, message, .. }) =
        listener.read().message
    else {
        panic!()
    };
    assert_eq!((severity, message.as_str()), (NoticeSeverity::Warning, "careful"));
    listener.all_of(50);
}

#[test]
fn large_objects() {
    let mut wire = Wire::open(open());
    let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let sql = "SELECT lo_from_bytea(0, $1)";
    let rows = wire.rows(sql, vec![Value::Bytea(bytes.clone())]);
    let Value::Oid(oid) = rows[0][0] else { panic!("{rows:?}") };
    let mut read = |offset, length| {
        let open = Message::Streaming(Streaming::OpenObject { oid, offset, length });
        let mut found = Vec::new();
        for (at, reply) in wire.ask(&open).into_iter().enumerate() {
            match reply {
                Message::Streaming(Streaming::Data { sequence, bytes }) => {
                    assert_eq!(sequence as usize, at);
                    found.extend(bytes);
                }
                Message::Streaming(Streaming::End { rows, .. }) => {
                    assert_eq!(rows as usize, found.len());
                }
                other => panic!("{other:?}"),
            }
        }
        found
    };
    assert!(read(0, None) == bytes);
    assert!(read(100_000, Some(70_000)) == bytes[100_000..170_000]);
    assert!(read(300_000, None).is_empty());
    let missing = Streaming::OpenObject { oid: 1, offset: 0, length: None };
    assert_eq!(wire.refused(&Message::Streaming(missing)).sqlstate, "42704");
    assert_eq!(wire.response("SELECT 1", vec![]).transaction_status, TxStatus::Idle);
}

#[test]
fn the_requests_of_the_first_protocol() {
    let mut wire = Wire::open(open());
    let mut simple = |request: SimpleRequest| match wire.one(&Message::Simple(request)) {
        Message::SimpleReply(response) => response,
        other => panic!("{other:?}"),
    };
    let result = simple(SimpleRequest::Query { sql: "SELECT 0; SELECT 1".into() });
    let SimpleResponse::QueryResult { columns, rows, affected_rows } = result else { panic!() };
    assert_eq!((&columns[0][..], affected_rows), ("?column?", 1));
    assert_eq!(rows, [[Value::Int4(1)]]);
    assert!(matches!(simple(SimpleRequest::BeginTransaction), SimpleResponse::TransactionId(_)));
    let SimpleResponse::Error(text) = simple(SimpleRequest::Query { sql: "SELECT x".into() })
    else {
        panic!()
    };
    assert!(text.starts_with("42703: "), "{text}");
    assert_eq!(simple(SimpleRequest::Rollback), SimpleResponse::Ok);
    assert_eq!(simple(SimpleRequest::Ping), SimpleResponse::Pong);
    assert!(matches!(simple(SimpleRequest::Commit), SimpleResponse::Error(_)));
}

fn with_options(sql: &str, options: QueryOptions) -> Message {
    Message::Query(Box::new(Query {
        sql: sql.into(),
        params: Vec::new(),
        param_types: Vec::new(),
        options: Some(options),
    }))
}

const OPTIONS: QueryOptions = QueryOptions {
    timeout_ms: 0,
    max_rows: 0,
    read_only: false,
    traceparent: None,
    tracestate: None,
};

#[test]
fn options_of_a_query() {
    let mut wire = Wire::open(open());
    wire.rows("CREATE TABLE IF NOT EXISTS native_options (a int)", vec![]);
    let few = QueryOptions { max_rows: 3, ..OPTIONS };
    let reply = wire.one(&with_options("SELECT generate_series(1, 10)", few));
    let Message::QueryResponse(response) = reply else { panic!("{reply:?}") };
    assert_eq!((response.rows.len(), response.affected_rows), (3, 3));
    let read_only = || QueryOptions { read_only: true, ..OPTIONS };
    let write = with_options("INSERT INTO native_options VALUES (1)", read_only());
    assert_eq!(wire.refused(&write).sqlstate, "25006");
    let read = with_options("SELECT 7", read_only());
    let Message::QueryResponse(response) = wire.one(&read) else { panic!() };
    assert_eq!((response.rows.len(), response.transaction_status), (1, TxStatus::Idle));
    wire.one(&BEGIN);
    wire.rows("INSERT INTO native_options VALUES (1)", vec![]);
    wire.one(&read);
    wire.rows("INSERT INTO native_options VALUES (2)", vec![]);
    assert_eq!(ok(&wire.one(&COMMIT)).1, Some("COMMIT"));
    let short = QueryOptions { timeout_ms: 100, ..OPTIONS };
    let error = wire.refused(&with_options("SELECT pg_sleep(20)", short));
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("57014", "TIMEOUT"));
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
}

#[test]
fn a_request_is_cancelled_wherever_it_is() {
    let mut wire = Wire::open(open());
    wire.send(60, 0, &query("SELECT pg_sleep(20)", vec![]));
    wire.send(61, 0, &query("SELECT 61", vec![]));
    wire.send(62, 0, &query("SELECT 62", vec![]));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let cancel = |target| Message::Cancel { target };
    let urgent = frame_flags::URGENT | frame_flags::ONEWAY;
    // Of one that waits, of one that nobody knows, of the one that runs.
    wire.send(0, urgent, &cancel(61));
    let Message::Error(error) = wire.read_of(61).message else { panic!() };
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("57014", "CANCELLED"));
    wire.send(0, urgent, &cancel(999));
    wire.send(0, urgent, &cancel(60));
    let Message::Error(error) = wire.read_of(60).message else { panic!() };
    assert_eq!(error.sqlstate, "57014");
    let Message::QueryResponse(response) = wire.read_of(62).message else { panic!() };
    assert_eq!(response.rows, [[Value::Int4(62)]]);
}

#[test]
fn pipelined_requests_keep_their_order() {
    let mut wire = Wire::open(open());
    let mut bytes = Vec::new();
    for id in 1000..1500 {
        bytes.extend(wire.frame(id, 0, &query("SELECT $1::int8", vec![Value::Int8(id as i64)])));
    }
    wire.raw(&bytes);
    for id in 1000..1500 {
        let reply = wire.read();
        assert_eq!(reply.header.message_id, id);
        let Message::QueryResponse(response) = reply.message else { panic!("{reply:?}") };
        assert_eq!(response.rows, [[Value::Int8(id as i64)]]);
    }
}

#[test]
fn what_is_urgent_overtakes() {
    let mut wire = Wire::open(open());
    wire.send(70, 0, &query("SELECT pg_sleep(0.3)", vec![]));
    std::thread::sleep(std::time::Duration::from_millis(100));
    let level = |n: u16| n << frame_flags::PRIORITY_SHIFT;
    for (id, priority) in [(71, 1), (72, 0), (73, 2), (74, 3), (75, 0)] {
        wire.send(id, level(priority), &query("SELECT 1", vec![]));
    }
    wire.send(76, level(3) | frame_flags::ORDERED, &query("SELECT 1", vec![]));
    let order: Vec<u64> = (0..7).map(|_| wire.read().header.message_id).collect();
    assert_eq!(order, [70, 74, 73, 72, 75, 71, 76]);
    // A ping does not wait.
    wire.send(80, 0, &query("SELECT pg_sleep(0.3)", vec![]));
    wire.send(81, frame_flags::URGENT, &Message::Ping);
    let reply = wire.read();
    assert_eq!((reply.header.message_id, reply.message), (81, Message::Pong));
    assert_eq!(reply.header.flags, frame_flags::URGENT | frame_flags::RESPONSE);
    let beat = Message::Heartbeat { sent_at_us: 77, pending: 0 };
    wire.send(82, frame_flags::URGENT, &beat);
    let reply = wire.read();
    assert!(
        matches!(reply.message, Message::Heartbeat { sent_at_us: 77, pending: 1 }),
        "{reply:?}"
    );
    wire.all_of(80);
}

#[test]
fn close_waits_for_what_was_asked() {
    let mut wire = Wire::open(open());
    wire.send(90, 0, &query("SELECT 1", vec![]));
    wire.send(91, 0, &query("SELECT pg_sleep(0.2)", vec![]));
    wire.send(92, 0, &Message::Close { reason: "bye".into() });
    wire.all_of(90);
    wire.all_of(91);
    assert!(wire.try_read().is_none());
}

#[test]
fn a_large_result_comes_in_parts_or_not_at_all() {
    let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    let mut wire = Wire::open(open());
    let replies = wire.ask(&query(sql, vec![]));
    assert!(replies.len() > 1);
    let (mut rows, last) = (0, replies.len() - 1);
    for (at, reply) in replies.into_iter().enumerate() {
        let Message::QueryResponse(part) = reply else { panic!("{reply:?}") };
        assert_eq!((part.columns.len(), part.statement_index), (usize::from(at == 0), 0));
        assert_eq!(part.command_tag.is_empty(), at < last);
        rows += part.rows.len();
    }
    assert_eq!(rows, 5000);
    let small =
        ClientHello { max_message_size: 65_536, capabilities: capabilities::PIPELINING, ..hello() };
    let mut wire = Wire::open_with(open(), small);
    let error = wire.refused(&query(sql, vec![]));
    assert_eq!((error.sqlstate.as_str(), error.hint.as_deref()), ("54000", Some("use Streaming")));
    let error = wire.refused(&query("SELECT repeat('x', 70000)", vec![]));
    assert_eq!(error.sqlstate, "54000");
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
    let stream = open_stream(sql, 0);
    assert_eq!(wire.refused(&stream).sqlstate, "0A000");
}

#[test]
fn copy_in_a_query_is_refused() {
    let mut wire = Wire::open(open());
    wire.rows("CREATE TABLE IF NOT EXISTS native_copy (a int)", vec![]);
    for sql in ["COPY native_copy FROM STDIN", "COPY native_copy TO STDOUT"] {
        assert_eq!(wire.refused(&query(sql, vec![])).sqlstate, "0A000", "{sql}");
        assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
    }
}

#[test]
fn settings_at_the_log_in() {
    let mut wire = Wire::connect(open());
    wire.handshake(hello());
    let mut start = crate::client::start("rustydb", AuthMethod::Trust);
    start.parameters = vec![("TimeZone".into(), "Asia/Tokyo".into())];
    wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(start))));
    let Message::AuthReply(AuthReply::Success { user, parameters, .. }) = wire.read().message
    else {
        panic!()
    };
    assert_eq!(user, "rustydb");
    let value = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!((value("TimeZone"), value("client_encoding")), (Some("Asia/Tokyo"), Some("UTF8")));
    let rows = wire.rows("SHOW timezone", vec![]);
    assert_eq!(rows, [[Value::Text("Asia/Tokyo".into())]]);
}
