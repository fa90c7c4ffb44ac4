//! Where two ways meet: binary and text, ahead and cancelled, held and not read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustydb_client::protocol::frame::flags;
use rustydb_client::protocol::*;

use crate::client::{Wire, query};
use crate::harness::{Server, eventually};
use crate::open;

const PATIENCE: Duration = Duration::from_secs(20);
const URGENT: u16 = flags::URGENT | flags::ONEWAY;
const BEGIN: Message = Message::Begin { isolation: None, read_only: None, deferrable: None };
const COMMIT: Message = Message::Commit { and_chain: false };
const ROLLBACK: Message = Message::Rollback { to_savepoint: None, and_chain: false };

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn one_value(wire: &mut Wire, sql: &str) -> Value {
    wire.rows(sql, vec![]).remove(0).remove(0)
}

#[test]
fn what_postgres_cannot_send_in_binary_comes_as_text() {
    let mut wire = Wire::open(open());
    wire.rows("DROP SCHEMA IF EXISTS native_odd CASCADE", vec![]);
    for sql in [
        "CREATE SCHEMA native_odd",
        "SET search_path = native_odd, public",
        // A type with no send function.
        "CREATE TYPE odd",
        "CREATE FUNCTION odd_in(cstring) RETURNS odd LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
        "CREATE FUNCTION odd_out(odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT \
         AS 'textout'",
        "CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = text)",
        "CREATE TYPE granted AS (n int4, acl aclitem[])",
        "CREATE TYPE outer_row AS (t text, inner_row granted)",
        "CREATE TYPE odd_row AS (n int4, o odd)",
        "CREATE DOMAIN acl AS aclitem",
        "CREATE TABLE odd_table (n int4, o odd, acl aclitem[])",
        "INSERT INTO odd_table VALUES (1, 'strange', '{rustydb=r/rustydb}')",
    ] {
        wire.rows(sql, vec![]);
    }
    let acl = "'{rustydb=r/rustydb}'::aclitem[]";
    let cases = [
        (format!("SELECT {acl}"), "{rustydb=r/rustydb}"),
        (format!("SELECT ROW(1, {acl})::granted"), "(1,{rustydb=r/rustydb})"),
        (format!("SELECT ROW('t', ROW(1, {acl}))::outer_row"), "(t,\"(1,{rustydb=r/rustydb})\")"),
        (format!("SELECT ARRAY[ROW(1, {acl})::granted]"), "{\"(1,{rustydb=r/rustydb})\"}"),
        ("SELECT 'rustydb=r/rustydb'::acl".into(), "rustydb=r/rustydb"),
        ("SELECT 'x'::odd".into(), "x"),
        ("SELECT ARRAY['x'::odd]".into(), "{x}"),
        ("SELECT ROW(1, 'x')::odd_row".into(), "(1,x)"),
        ("SELECT odd_table FROM odd_table".into(), "(1,strange,{rustydb=r/rustydb})"),
    ];
    for begins in [false, true] {
        if begins {
            wire.one(&BEGIN);
        }
        for (sql, expected) in &cases {
            let value = one_value(&mut wire, sql);
            let found = match &value {
                Value::Other { binary: false, bytes, .. } => String::from_utf8_lossy(bytes).into(),
                // What can be taken apart is, though it came as text.
                Value::Array { values, .. } => match &values[0] {
                    Value::Other { binary: false, bytes, .. } => {
                        let inner = String::from_utf8_lossy(bytes).into_owned();
                        let quote = if inner.contains(',') { "\"" } else { "" };
                        format!("{{{quote}{inner}{quote}}}")
                    }
                    other => panic!("{sql}: {other:?}"),
                },
                other => panic!("{sql}: {other:?}"),
            };
            assert_eq!(found, *expected, "{sql}");
        }
    }
    wire.one(&ROLLBACK);
    let Value::Array { element_oid: 1033, values, .. } =
        one_value(&mut wire, &format!("SELECT {acl}"))
    else {
        panic!("no array of aclitem")
    };
    assert!(matches!(&values[..], [Value::Other { type_oid: 1033, binary: false, .. }]));
    // Beside it, the others keep their form.
    let rows = wire.rows("SELECT n, o FROM odd_table", vec![]);
    assert_eq!(rows[0][0], Value::Int4(1));
    wire.rows("RESET search_path", vec![]);
    wire.rows("DROP SCHEMA native_odd CASCADE", vec![]);
}

fn bulk_start(table: &str, columns: &[&str]) -> Message {
    Message::BulkInsert(Bulk::Start {
        schema: None,
        table: table.into(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        on_conflict: OnConflict::Fail,
    })
}

fn bulk_rows(sequence: u32, rows: Vec<Vec<Value>>) -> Message {
    Message::BulkInsert(Bulk::Rows { sequence, rows })
}

const BULK_END: Message = Message::BulkInsert(Bulk::End);

/// The COPY that PostgreSQL is at.
fn running_copy(watcher: &mut Wire, table: &str) -> String {
    let sql = format!(
        "SELECT query FROM pg_stat_activity WHERE query LIKE 'COPY \"{table}\"%' \
         AND state = 'active'"
    );
    let mut found = String::new();
    eventually("a COPY runs", PATIENCE, || {
        match watcher.rows(&sql, vec![]).first().map(|row| &row[0]) {
            Some(Value::Text(query)) => {
                found = query.clone();
                true
            }
            _ => false,
        }
    });
    found
}

#[test]
fn bulk_inserts_go_in_binary_wherever_they_are() {
    let (mut wire, mut watcher) = (Wire::open(open()), Wire::open(open()));
    wire.rows("DROP TABLE IF EXISTS native_copied", vec![]);
    let sql = "CREATE TABLE native_copied (a int4, twice int4 GENERATED ALWAYS AS (a * 2) STORED, \
               \"B b\" text, gone int4, id int8 GENERATED BY DEFAULT AS IDENTITY)";
    wire.rows(sql, vec![]);
    wire.rows("ALTER TABLE native_copied DROP COLUMN gone", vec![]);
    let row = |n: i32| vec![Value::Int4(n), text("1.50"), Value::Int8(7)];
    let columns = ["a", "B b", "id"];
    let mut id = 100;
    for (in_transaction, columns) in
        [(false, &columns[..]), (false, &[]), (true, &columns), (true, &[])]
    {
        id += 1;
        if in_transaction {
            wire.one(&BEGIN);
        }
        wire.send(id, flags::MORE, &bulk_start("native_copied", columns));
        wire.send(id, flags::MORE, &bulk_rows(0, vec![row(1), row(2)]));
        let copy = running_copy(&mut watcher, "native_copied");
        assert!(copy.ends_with("(FORMAT binary)"), "{in_transaction} {columns:?}: {copy}");
        wire.send(id, 0, &BULK_END);
        let reply = wire.all_of(id).remove(0);
        assert!(matches!(reply, Message::Ok { affected_rows: 2, .. }), "{reply:?}");
        if in_transaction {
            wire.one(&COMMIT);
        }
    }
    let sql = "SELECT count(*), sum(twice)::int8, max(\"B b\"), sum(id)::int8 FROM native_copied";
    let sums = [Value::Int8(8), Value::Int8(24), text("1.50"), Value::Int8(56)];
    assert_eq!(wire.rows(sql, vec![]), [sums]);
    // What is wrong with the table ends a transaction, as an error of COPY would.
    for (table, columns, sqlstate) in [
        ("native_nothing", &[][..], "42P01"),
        ("native_nothing", &["a"], "42P01"),
        ("native_copied", &["b"], "42703"),
    ] {
        for in_transaction in [false, true] {
            id += 1;
            if in_transaction {
                wire.one(&BEGIN);
            }
            wire.send(id, flags::MORE, &bulk_start(table, columns));
            wire.send(id, 0, &BULK_END);
            let Some(Message::Error(error)) = wire.all_of(id).pop() else { panic!() };
            assert_eq!(error.sqlstate, sqlstate, "{table} {columns:?}");
            let status = wire.ask(&query("SELECT 1", vec![])).pop().unwrap();
            assert_eq!(matches!(status, Message::Error(_)), in_transaction);
            if in_transaction {
                wire.one(&ROLLBACK);
            }
        }
    }
}

#[test]
fn from_the_first_row_without_a_binary_form_on_it_goes_as_text() {
    let (mut wire, mut watcher) = (Wire::open(open()), Wire::open(open()));
    wire.rows("DROP TABLE IF EXISTS native_switched", vec![]);
    wire.rows("CREATE TABLE native_switched (a int4, t text)", vec![]);
    let rows = |from: i32, to: i32, as_text: bool| -> Vec<Vec<Value>> {
        let row = |n: i32| match as_text {
            true => vec![text(&n.to_string()), text("text")],
            false => vec![Value::Int4(n), text("binary")],
        };
        (from..to).map(row).collect()
    };
    for (id, in_transaction) in [(1u64, false), (2, true)] {
        if in_transaction {
            wire.one(&BEGIN);
        }
        wire.send(id, flags::MORE, &bulk_start("native_switched", &["a", "t"]));
        wire.send(id, flags::MORE, &bulk_rows(0, rows(0, 1000, false)));
        // In the middle of a part.
        let mixed = [rows(1000, 1010, false), rows(1010, 1020, true), rows(1020, 2000, false)];
        wire.send(id, flags::MORE, &bulk_rows(1, mixed.concat()));
        let mut copy = String::new();
        eventually("rows go as text", PATIENCE, || {
            copy = running_copy(&mut watcher, "native_switched");
            !copy.contains("binary")
        });
        wire.send(id, flags::MORE, &bulk_rows(2, rows(2000, 3000, false)));
        wire.send(id, 0, &BULK_END);
        let reply = wire.all_of(id).remove(0);
        let Message::Ok { affected_rows, command_tag, .. } = reply else { panic!("{reply:?}") };
        assert_eq!((affected_rows, command_tag.as_deref()), (3000, Some("COPY 3000")));
        if in_transaction {
            wire.one(&COMMIT);
        }
    }
    let sql =
        "SELECT count(*), count(DISTINCT a), sum((t = 'text')::int4)::int8 FROM native_switched";
    let counts = [Value::Int8(6000), Value::Int8(3000), Value::Int8(20)];
    assert_eq!(wire.rows(sql, vec![]), [counts]);
    // An error in the second part undoes the first.
    wire.send(3, flags::MORE, &bulk_start("native_switched", &["a", "t"]));
    wire.send(3, flags::MORE, &bulk_rows(0, rows(9000, 9010, false)));
    wire.send(3, flags::MORE, &bulk_rows(1, vec![vec![text("none"), Value::Null]]));
    wire.send(3, 0, &BULK_END);
    let Some(Message::Error(error)) = wire.all_of(3).pop() else { panic!() };
    assert_eq!(error.sqlstate, "22P02");
    let sql = "SELECT count(*) FROM native_switched WHERE a >= 9000";
    assert_eq!(wire.rows(sql, vec![]), [[Value::Int8(0)]]);
}

#[test]
fn a_request_that_was_sent_ahead_can_be_cancelled() {
    let mut wire = Wire::open(open());
    let prepare = Prepared::Prepare {
        name: "sleep".into(),
        sql: "SELECT $1::int8, pg_sleep($2)".into(),
        param_types: vec![],
    };
    wire.one(&Message::PreparedStatement(prepare));
    let execute = |n: u64, secs: f64| {
        let params = vec![Value::Int8(n as i64), Value::Float8(secs)];
        let (name, options) = ("sleep".into(), None);
        Message::PreparedStatement(Prepared::Execute { name, params, options })
    };
    let mut bytes = Vec::new();
    for (id, secs) in [(10, 0.4), (11, 30.0), (12, 0.0), (13, 30.0), (14, 0.0)] {
        bytes.extend(wire.frame(id, 0, &execute(id, secs)));
    }
    let begun = Instant::now();
    wire.raw(&bytes);
    std::thread::sleep(Duration::from_millis(150));
    // The first still runs; these wait behind it in PostgreSQL's own socket.
    wire.send(0, URGENT, &Message::Cancel { target: 11 });
    wire.send(0, URGENT, &Message::Cancel { target: 13 });
    for id in 10..15 {
        let message = wire.all_of(id).pop().unwrap();
        match (id, message) {
            (11 | 13, Message::Error(error)) => {
                assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("57014", "CANCELLED"));
            }
            (_, Message::QueryResponse(response)) => {
                assert_eq!(response.rows[0][0], Value::Int8(id as i64));
            }
            (_, other) => panic!("{id}: {other:?}"),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
}

/// A cancel request that comes when its target has just ended meets the one behind it.
#[test]
fn who_is_met_by_the_cancel_of_another_is_carried_out_once() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_met", vec![]);
    wire.rows("CREATE TABLE native_met AS SELECT 0 AS n", vec![]);
    for (name, sql) in [
        ("rest", "SELECT pg_sleep(0.003)"),
        ("add", "UPDATE native_met SET n = n + 1 FROM pg_sleep(0.002) RETURNING n"),
        ("read", "SELECT n FROM native_met, pg_sleep(0.002)"),
    ] {
        let (name, sql) = (name.into(), sql.into());
        let prepare = Prepared::Prepare { name, sql, param_types: vec![] };
        wire.one(&Message::PreparedStatement(prepare));
    }
    let mut value = 0;
    for round in 0..150u64 {
        let first = 1000 + 10 * round;
        // Behind what writes nothing is sent; what reads has others behind it.
        let names: &[&str] = match round % 3 {
            0 => &["rest", "add"],
            1 => &["rest", "read", "read", "read"],
            _ => &["rest", "read", "add", "read"],
        };
        let mut bytes = Vec::new();
        for (id, name) in (first..).zip(names) {
            let (name, params) = ((*name).into(), vec![]);
            let execute = Prepared::Execute { name, params, options: None };
            bytes.extend(wire.frame(id, 0, &Message::PreparedStatement(execute)));
        }
        wire.raw(&bytes);
        std::thread::sleep(Duration::from_micros(2000 + 50 * (round % 50)));
        wire.send(0, URGENT, &Message::Cancel { target: first });
        // What is carried out again is answered later.
        let mut replies = BTreeMap::new();
        while replies.len() < names.len() {
            let reply = wire.read();
            replies.insert(reply.header.message_id, reply.message);
        }
        for (name, reply) in names.iter().zip(replies.into_values()) {
            match reply {
                Message::QueryResponse(reply) if *name != "rest" => {
                    value += i32::from(*name == "add");
                    assert_eq!(reply.rows[0][0], Value::Int4(value), "{round}: {name}");
                }
                Message::QueryResponse(_) => {}
                Message::Error(error) => {
                    let is_met = round % 3 == 2 && error.retryable;
                    assert!(error.sqlstate == "57014" && (*name == "rest" || is_met), "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(wire.rows("SELECT n FROM native_met", vec![]), [[Value::Int4(value)]]);
}

#[test]
fn who_holds_most_is_not_read_while_all_hold_too_much() {
    const LIMIT: f64 = 500_000.0;
    let limit = format!("network.native.max_inflight_bytes={LIMIT}");
    let server = Server::builder().arg("--insecure").set(&limit).start();
    let (mut large, mut small) = (Wire::open(&server), Wire::open(&server));
    // More than the sockets hold, and less than the window of the connection.
    const REQUESTS: u64 = 150;
    let mut sender = large.stream.try_clone().unwrap();
    let mut bytes = large.frame(1, 0, &query("SELECT pg_sleep(2)", vec![]));
    for id in 2..REQUESTS {
        let value = text(&"x".repeat(100_000));
        bytes.extend(large.frame(id, 0, &query("SELECT length($1)", vec![value])));
    }
    assert!(bytes.len() > 14_000_000);
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        sender.write_all(&bytes).unwrap();
        Instant::now()
    });
    let mut most = 0f64;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        most = most.max(server.metric("rustydb_native_inflight_bytes"));
        // Who holds little is served meanwhile.
        assert_eq!(small.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Beyond the limit by no more than one frame and one read.
    assert!(most > LIMIT / 2.0 && most < LIMIT + 200_000.0, "{most}");
    large.all_of(1);
    for id in 2..REQUESTS {
        let reply = large.all_of(id).pop().unwrap();
        let Message::QueryResponse(response) = reply else { panic!("{reply:?}") };
        assert_eq!(response.rows, [[Value::Int4(100_000)]]);
    }
    let sent = sending.join().unwrap();
    assert!(sent.duration_since(begun) > Duration::from_secs(1), "everything was taken at once");
    eventually("nothing is held", PATIENCE, || {
        server.metric("rustydb_native_inflight_bytes") < 1000.0
    });
}

#[test]
fn what_has_no_room_now_says_when_to_try_again() {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=1")
        .set("pool.acquire_timeout_secs=4")
        .set("network.native.max_queued_requests=2")
        .start();
    let (mut one, mut two) = (Wire::open(&server), Wire::open(&server));
    one.one(&BEGIN);
    one.rows("SELECT 1", vec![]);
    let error = two.refused(&query("SELECT 1", vec![]));
    assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("53300", "POOL_EXHAUSTED"));
    assert_eq!((error.retryable, error.retry_after_ms), (true, Some(1000)));
    one.one(&ROLLBACK);
    let mut bytes = Vec::new();
    for id in 10..20 {
        bytes.extend(one.frame(id, 0, &query("SELECT pg_sleep(0.2)", vec![])));
    }
    one.raw(&bytes);
    let refused = (10..20).map(|_| one.read()).filter_map(|reply| match reply.message {
        Message::Error(error) => Some(error),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert!(!refused.is_empty());
    for error in refused {
        assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("53400", "QUEUE_FULL"));
        assert_eq!((error.retryable, error.retry_after_ms), (true, Some(100)));
    }
}

#[test]
fn an_error_has_the_trace_of_its_request() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let server = Server::builder().arg("--insecure").start();
    let mut wire = Wire::open(&server);
    let failing = |traceparent: Option<String>| Query {
        sql: "SELECT 1/0".into(),
        params: vec![],
        param_types: vec![],
        options: Some(QueryOptions {
            timeout_ms: 0,
            max_rows: 0,
            read_only: false,
            traceparent,
            tracestate: Some("congo=t61rcWkgMzE".into()),
        }),
    };
    let right = || Some(format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let asked = |traceparent| Message::Query(Box::new(failing(traceparent)));
    assert_eq!(wire.refused(&asked(right())).trace_id.as_deref(), Some(TRACE));
    for traceparent in [None, Some("00-nonsense".into()), Some(format!("00-{TRACE}-0-01"))] {
        assert_eq!(wire.refused(&asked(traceparent)).trace_id, None);
    }
    // Each statement of a batch has its own.
    let statements = vec![failing(right()), failing(None)];
    let replies = wire.ask(&Message::Batch { statements, atomic: false, stop_on_error: false });
    let traces: Vec<_> = replies
        .iter()
        .map(|reply| match reply {
            Message::Error(error) => error.trace_id.as_deref(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(traces, [Some(TRACE), None]);
    assert_eq!(wire.refused(&query("SELECT 1/0", vec![])).trace_id, None);
    eventually("the log has it", PATIENCE, || server.log().matches(TRACE).count() == 2);
}
