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
