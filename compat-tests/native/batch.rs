//! Options of the statements of a batch: each has its own.

use std::time::{Duration, Instant};

use rustydb_client::protocol::frame::flags;
use rustydb_client::protocol::*;

use crate::client::{Wire, query};
use crate::open;

const OPTIONS: QueryOptions = QueryOptions {
    timeout_ms: 0,
    max_rows: 0,
    read_only: false,
    traceparent: None,
    tracestate: None,
};

fn member(sql: &str, options: Option<QueryOptions>) -> Query {
    Query { sql: sql.into(), params: Vec::new(), param_types: Vec::new(), options }
}

fn within(sql: &str, timeout_ms: u32) -> Query {
    member(sql, Some(QueryOptions { timeout_ms, ..OPTIONS }))
}

fn reading(sql: &str) -> Query {
    member(sql, Some(QueryOptions { read_only: true, ..OPTIONS }))
}

fn batch(statements: Vec<Query>, atomic: bool, stop_on_error: bool) -> Message {
    Message::Batch { statements, atomic, stop_on_error }
}

/// What became of each statement: its tag, or its SQLSTATE.
fn outcomes(replies: &[Message]) -> Vec<String> {
    let outcome = |reply: &Message| match reply {
        Message::QueryResponse(response) => response.command_tag.clone(),
        Message::Error(error) => error.sqlstate.clone(),
        other => panic!("{other:?}"),
    };
    replies.iter().map(outcome).collect()
}

#[test]
fn each_statement_has_its_own_time() {
    let mut wire = Wire::open(open());
    let (second, third) = ("SELECT pg_sleep(0.2)", "SELECT pg_sleep(0.5)");
    for atomic in [false, true] {
        // From the beginning of the batch the second would be over its time, and the third, which
        // has none, over that of the second.
        let statements = vec![
            member("SELECT pg_sleep(0.6)", None),
            within(second, 500),
            member(third, None),
            within("SELECT 1", 10_000),
        ];
        let replies = wire.ask(&batch(statements, atomic, true));
        assert_eq!(outcomes(&replies), ["SELECT 1"; 4], "atomic {atomic}");
        let times: Vec<u64> = replies
            .iter()
            .map(|reply| match reply {
                Message::QueryResponse(response) => response.execution_time_us,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(times[0] >= 600_000 && times[1] < 600_000 && times[3] < 500_000, "{times:?}");
    }
}

#[test]
fn a_statement_whose_time_is_up_fails_alone() {
    let mut wire = Wire::open(open());
    let statements = || {
        vec![
            member("SELECT 1", None),
            within("SELECT pg_sleep(20)", 100),
            member("SELECT 2", None),
            within("SELECT pg_sleep(20)", 100),
            reading("SELECT 3"),
        ]
    };
    let begun = Instant::now();
    let replies = wire.ask(&batch(statements(), false, false));
    assert_eq!(outcomes(&replies), ["SELECT 1", "57014", "SELECT 1", "57014", "SELECT 1"]);
    let Message::Error(error) = &replies[3] else { panic!() };
    assert_eq!(error.code, "TIMEOUT");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(outcomes(&wire.ask(&batch(statements(), false, true))), ["SELECT 1", "57014"]);
    assert_eq!(outcomes(&wire.ask(&batch(statements(), true, false))), ["SELECT 1", "57014"]);
    assert_eq!(wire.response("SELECT 1", vec![]).transaction_status, TxStatus::Idle);
}

#[test]
fn a_cancel_is_that_of_the_whole_batch() {
    let mut wire = Wire::open(open());
    let statements = vec![member("SELECT pg_sleep(20)", None), member("SELECT 2", None)];
    wire.send(70, 0, &batch(statements, false, false));
    std::thread::sleep(Duration::from_millis(300));
    wire.send(0, flags::URGENT | flags::ONEWAY, &Message::Cancel { target: 70 });
    assert_eq!(outcomes(&wire.all_of(70)), ["57014"]);
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
}

#[test]
fn a_statement_that_may_only_read_does_not_write() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_read_only", vec![]);
    wire.rows("CREATE TABLE native_read_only (a int)", vec![]);
    let insert = |n: u32| format!("INSERT INTO native_read_only VALUES ({n})");
    let count = |wire: &mut Wire| wire.rows("SELECT sum(a) FROM native_read_only", vec![]);
    // Alone: only what may write does, and what only reads does not keep the next from writing.
    let statements = vec![
        member(&insert(1), None),
        reading(&insert(2)),
        reading("TABLE native_read_only"),
        member(&insert(4), None),
    ];
    let replies = wire.ask(&batch(statements, false, false));
    assert_eq!(outcomes(&replies), ["INSERT 0 1", "25006", "SELECT 1", "INSERT 0 1"]);
    assert_eq!(count(&mut wire), [[Value::Int8(5)]]);
    // Together: reading sees what was written before, and what comes after may write.
    let statements = vec![
        member(&insert(8), None),
        reading("TABLE native_read_only"),
        member(&insert(16), None),
    ];
    let replies = wire.ask(&batch(statements, true, true));
    assert_eq!(outcomes(&replies), ["INSERT 0 1", "SELECT 3", "INSERT 0 1"]);
    assert_eq!(count(&mut wire), [[Value::Int8(29)]]);
    let replies = wire.ask(&batch(vec![member(&insert(1), None), reading(&insert(2))], true, true));
    assert_eq!(outcomes(&replies), ["INSERT 0 1", "25006"]);
    assert_eq!(count(&mut wire), [[Value::Int8(29)]]);
    // Within a transaction of the client.
    wire.one(&Message::Begin { isolation: None, read_only: None, deferrable: None });
    let statements = vec![reading("SELECT 1"), member(&insert(32), None)];
    assert_eq!(outcomes(&wire.ask(&batch(statements, true, true))), ["SELECT 1", "INSERT 0 1"]);
    let replies = wire.ask(&batch(vec![reading(&insert(64))], true, true));
    assert_eq!(outcomes(&replies), ["25006"]);
    wire.one(&Message::Commit { and_chain: false });
    assert_eq!(count(&mut wire), [[Value::Int8(61)]]);
    let refused = wire.refused(&query("SELECT 1/0", vec![]));
    assert_eq!(refused.sqlstate, "22012");
}
