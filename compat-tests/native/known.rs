//! Statements that were known before: what they may do, and tables that are others by now.

use std::collections::HashSet;

use rustydb_client::protocol::frame::flags::MORE;
use rustydb_client::protocol::*;

use crate::client::{Wire, query};
use crate::open;

const BEGIN: Message = Message::Begin { isolation: None, read_only: None, deferrable: None };
const ROLLBACK: Message = Message::Rollback { to_savepoint: None, and_chain: false };

#[test]
fn what_may_only_read_cannot_leave_that() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_escape", vec![]);
    wire.rows("CREATE TABLE native_escape (a int)", vec![]);
    let reading = |sql: &str| {
        let options = QueryOptions {
            timeout_ms: 0,
            max_rows: 0,
            read_only: true,
            traceparent: None,
            tracestate: None,
        };
        Message::Query(Box::new(Query {
            sql: sql.into(),
            params: vec![],
            param_types: vec![],
            options: Some(options),
        }))
    };
    let insert = "INSERT INTO native_escape VALUES (1)";
    for in_transaction in [false, true] {
        for (before, state) in [
            ("commit", "25001"),
            ("/* x */ ROLLBACK; BEGIN", "25001"),
            ("prepare transaction 'x'", "25001"),
            ("set transaction read write", "25001"),
            ("set transaction_read_only = off", "25001"),
            ("select set_config('transaction_read_only', 'off', true)", "25001"),
            ("select 1", "25006"),
        ] {
            if in_transaction {
                wire.one(&BEGIN);
            }
            let error = wire.refused(&reading(&format!("{before}; {insert}")));
            assert_eq!(error.sqlstate, state, "{before}: {}", error.message);
            if in_transaction {
                wire.one(&ROLLBACK);
            }
        }
    }
    assert_eq!(wire.rows("SELECT count(*) FROM native_escape", vec![]), [[Value::Int8(0)]]);
}

#[test]
fn known_statements_follow_their_tables() {
    let (mut wire, mut other) = (Wire::open(open()), Wire::open(open()));
    wire.rows("DROP TABLE IF EXISTS native_follows", vec![]);
    wire.rows("DROP TYPE IF EXISTS native_humour", vec![]);
    wire.rows("CREATE TABLE native_follows (a int)", vec![]);
    wire.rows("INSERT INTO native_follows VALUES (1)", vec![]);
    let table = "SELECT * FROM native_follows";
    let name = "follows".to_owned();
    let prepare =
        Prepared::Prepare { name: name.clone(), sql: table.into(), param_types: Vec::new() };
    wire.one(&Message::PreparedStatement(prepare));
    let execute =
        Message::PreparedStatement(Prepared::Execute { name, params: vec![], options: None });
    let names = |reply: &Message| match reply {
        Message::QueryResponse(response) => {
            let named = |c: &Column| format!("{} {}", c.name, c.type_name);
            let values = response.rows[0].iter().map(|value| format!("{value:?}"));
            response.columns.iter().map(named).chain(values).collect::<Vec<_>>().join(", ")
        }
        other => panic!("{other:?}"),
    };
    let query = query(table, vec![]);
    for request in [&query, &execute] {
        assert_eq!(names(&wire.one(request)), "a int4, Int4(1)");
    }
    // No binary form; another number of columns: the first time is as good as any.
    other.rows("ALTER TABLE native_follows ADD b aclitem", vec![]);
    for request in [&query, &execute] {
        assert_eq!(names(&wire.one(request)), "a int4, b aclitem, Int4(1), Null");
    }
    other.rows("ALTER TABLE native_follows ADD c int", vec![]);
    // Behind others that are sent before it is answered.
    for id in 100..103 {
        wire.send(id, 0, &execute);
    }
    for id in 100..103 {
        let reply = wire.all_of(id).remove(0);
        assert_eq!(names(&reply), "a int4, b aclitem, c int4, Int4(1), Null, Null");
    }
    other.rows("ALTER TABLE native_follows DROP b, DROP c", vec![]);
    other.rows("CREATE TYPE native_humour AS ENUM ('x', 'y')", vec![]);
    other.rows("ALTER TABLE native_follows ADD m native_humour DEFAULT 'y'", vec![]);
    for request in [&query, &execute] {
        wire.one(request);
        let text = "a int4, m native_humour, Int4(1), Text(\"y\")";
        assert_eq!(names(&wire.one(request)), text);
    }
}

#[test]
fn a_statement_may_run_again_and_again() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_again", vec![]);
    wire.rows("CREATE TABLE native_again AS SELECT 1 AS a", vec![]);
    let prepare = |wire: &mut Wire<_>, name: &str, sql: &str| {
        let (name, sql) = (name.to_owned(), sql.to_owned());
        let request = Prepared::Prepare { name, sql, param_types: Vec::new() };
        wire.one(&Message::PreparedStatement(request));
    };
    let execute = |name: &str, params: &[i32]| {
        let params = params.iter().map(|n| Value::Int4(*n)).collect();
        Message::PreparedStatement(Prepared::Execute { name: name.into(), params, options: None })
    };
    let shown = |reply: &Message| match reply {
        Message::QueryResponse(reply) => {
            let names: Vec<_> = reply.columns.iter().map(|column| column.name.as_str()).collect();
            format!("{} {:?} {}", names.join(","), reply.rows, reply.command_tag)
        }
        Message::Error(error) => error.sqlstate.clone(),
        other => panic!("{other:?}"),
    };
    prepare(&mut wire, "read", "SELECT a, 10 / $1::int4 AS b FROM native_again");
    prepare(&mut wire, "other", "SELECT 'x' AS c");
    prepare(&mut wire, "write", "UPDATE native_again SET a = a + 1");
    let other = "c [[Text(\"x\")]] SELECT 1";
    // Each kind of request between two uses of a statement; the same twice in a row.
    for (request, reply) in [
        (execute("read", &[5]), "a,b [[Int4(1), Int4(2)]] SELECT 1"),
        (execute("read", &[2]), "a,b [[Int4(1), Int4(5)]] SELECT 1"),
        (execute("other", &[]), other),
        (execute("read", &[0]), "22012"),
        (execute("read", &[2]), "a,b [[Int4(1), Int4(5)]] SELECT 1"),
        (execute("write", &[]), " [] UPDATE 1"),
        (execute("write", &[]), " [] UPDATE 1"),
        (execute("read", &[2]), "a,b [[Int4(3), Int4(5)]] SELECT 1"),
        (query("SELECT 'y' AS d", vec![]), "d [[Text(\"y\")]] SELECT 1"),
        (execute("read", &[10]), "a,b [[Int4(3), Int4(1)]] SELECT 1"),
        (execute("read", &[10]), "a,b [[Int4(3), Int4(1)]] SELECT 1"),
        (query("DISCARD ALL", vec![]), " [] DISCARD ALL"),
        (execute("read", &[10]), "a,b [[Int4(3), Int4(1)]] SELECT 1"),
        (execute("read", &[5]), "a,b [[Int4(3), Int4(2)]] SELECT 1"),
        (query("DEALLOCATE ALL", vec![]), " [] DEALLOCATE ALL"),
        (execute("read", &[10]), "a,b [[Int4(3), Int4(1)]] SELECT 1"),
        (query("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$", vec![]), " [] DO"),
        (execute("read", &[5]), "a,b [[Int4(3), Int4(2)]] SELECT 1"),
        (query("PREPARE read AS SELECT 'sql' AS e", vec![]), " [] PREPARE"),
        (execute("read", &[10]), "a,b [[Int4(3), Int4(1)]] SELECT 1"),
        (query("EXECUTE read", vec![]), "e [[Text(\"sql\")]] SELECT 1"),
        (query("DEALLOCATE read", vec![]), " [] DEALLOCATE"),
        (execute("read", &[5]), "a,b [[Int4(3), Int4(2)]] SELECT 1"),
    ] {
        assert_eq!(shown(&wire.one(&request)), reply, "{request:?}");
    }
    // Sent before the first is answered: one of them fails.
    for (id, by) in (300..).zip([1, 2, 0, 5, 0, 10]) {
        wire.send(id, 0, &execute("read", &[by]));
    }
    for (id, by) in (300..).zip([1, 2, 0, 5, 0, 10]) {
        let reply = match by {
            0 => "22012".to_owned(),
            by => format!("a,b [[Int4(3), Int4({})]] SELECT 1", 10 / by),
        };
        assert_eq!(shown(&wire.all_of(id)[0]), reply, "{id}");
    }
    // Another schema's table of that name, which nobody has altered.
    wire.rows("DROP SCHEMA IF EXISTS native_other CASCADE", vec![]);
    wire.rows("CREATE SCHEMA native_other", vec![]);
    wire.rows(
        "CREATE TABLE native_other.native_again AS SELECT 'word' AS w, 1.5::float8 AS f",
        vec![],
    );
    prepare(&mut wire, "any", "SELECT * FROM native_again");
    assert_eq!(shown(&wire.one(&execute("any", &[]))), "a [[Int4(3)]] SELECT 1");
    wire.rows("SET search_path = native_other", vec![]);
    for id in 320..323 {
        wire.send(id, 0, &execute("any", &[]));
    }
    for id in 320..323 {
        let reply = "w,f [[Text(\"word\"), Float8(1.5)]] SELECT 1";
        assert_eq!(shown(&wire.all_of(id)[0]), reply);
    }
    wire.rows("RESET search_path", vec![]);
    // A name may stand for something else later, and a table have other columns, of which nobody
    // tells RustyDB.
    let gone = Prepared::Deallocate { name: "other".into() };
    assert_eq!(shown(&wire.one(&execute("other", &[]))), other);
    wire.one(&Message::PreparedStatement(gone));
    prepare(&mut wire, "other", "SELECT a FROM native_again");
    prepare(&mut wire, "all", "SELECT * FROM native_again");
    for name in ["other", "other", "all", "all"] {
        assert_eq!(shown(&wire.one(&execute(name, &[]))), "a [[Int4(3)]] SELECT 1");
    }
    open().direct_value("ALTER TABLE native_again ADD b text DEFAULT 'new'");
    for _ in 0..2 {
        let reply = shown(&wire.one(&execute("all", &[])));
        assert_eq!(reply, "a,b [[Int4(3), Text(\"new\")]] SELECT 1");
    }
    open().direct_value("ALTER TABLE native_again DROP b");
    for id in 400..404 {
        wire.send(id, 0, &execute("all", &[]));
    }
    for id in 400..404 {
        assert_eq!(shown(&wire.all_of(id)[0]), "a [[Int4(3)]] SELECT 1");
    }
}

#[test]
fn what_is_written_is_written_in_order() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_order", vec![]);
    wire.rows("CREATE TABLE native_order AS SELECT 0 AS n", vec![]);
    for (name, to) in [("add", "n + 1"), ("double", "n * 2")] {
        let sql = format!("UPDATE native_order SET n = {to} RETURNING *");
        let request = Prepared::Prepare { name: name.into(), sql, param_types: Vec::new() };
        wire.one(&Message::PreparedStatement(request));
    }
    let mut value = 0;
    let mut id = 500;
    // Returns how many were refused: those say that they were not carried out.
    let mut run = |wire: &mut Wire<_>, names: [&str; 6]| {
        let first = id;
        for name in names {
            let (name, params) = (name.into(), vec![]);
            let request = Prepared::Execute { name, params, options: None };
            wire.send(id, 0, &Message::PreparedStatement(request));
            id += 1;
        }
        let mut refused = 0;
        for (id, name) in (first..).zip(names) {
            match wire.all_of(id).remove(0) {
                Message::QueryResponse(reply) => {
                    value = if name == "add" { value + 1 } else { value * 2 };
                    assert_eq!(reply.rows[0][0], Value::Int4(value), "{id}: {name}");
                }
                Message::Error(error) => {
                    assert!(error.sqlstate == "0A000" && error.retryable, "{error:?}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        refused
    };
    let names = ["add", "double", "add", "add", "double", "double"];
    assert_eq!(run(&mut wire, names), 0);
    for sql in ["DEALLOCATE ALL", "DISCARD ALL", "ALTER TABLE native_order ADD b int"] {
        wire.rows(sql, vec![]);
        assert_eq!(run(&mut wire, names), 0, "{sql}");
    }
    // Of this, nobody tells RustyDB.
    open().direct_value("ALTER TABLE native_order ADD c int");
    run(&mut wire, names);
    assert_eq!(run(&mut wire, names), 0);
}

#[test]
fn each_of_many_gets_its_own_rows_while_a_statement_is_prepared_anew() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_many", vec![]);
    wire.rows("CREATE TABLE native_many AS SELECT 1 AS a", vec![]);
    let statements =
        [("many", "SELECT $1::int4 AS k, m.* FROM native_many m"), ("other", "SELECT $1::int4")];
    for (name, sql) in statements {
        let (name, sql) = (name.to_owned(), sql.to_owned());
        let request = Prepared::Prepare { name, sql, param_types: Vec::new() };
        wire.one(&Message::PreparedStatement(request));
    }
    for round in 0..3_u64 {
        let first = 1000 * (round + 1);
        for id in first..first + 100 {
            let name = if id.is_multiple_of(3) { "many" } else { "other" }.to_owned();
            let params = vec![Value::Int4(id as i32)];
            let request = Prepared::Execute { name, params, options: None };
            wire.send(id, 0, &Message::PreparedStatement(request));
        }
        // What is prepared anew is answered later.
        let mut answered = HashSet::new();
        while answered.len() < 100 {
            let reply = wire.read();
            let id = reply.header.message_id;
            if id == 0 {
                continue;
            }
            let Message::QueryResponse(reply) = reply.message else { panic!("{reply:?}") };
            assert!((first..first + 100).contains(&id) && answered.insert(id), "{id}");
            assert_eq!(reply.rows[0][0], Value::Int4(id as i32), "{round}");
            let columns = if id.is_multiple_of(3) { 2 + round as usize } else { 1 };
            assert_eq!(reply.rows[0].len(), columns, "{round}");
        }
        // Of this, nobody tells RustyDB.
        open().direct_value(&format!("ALTER TABLE native_many ADD b{round} int"));
    }
}

#[test]
fn what_is_deallocated_is_not_kept() {
    let mut wire = Wire::open(open());
    let message = |request| Message::PreparedStatement(request);
    let kept = "SELECT count(*)::int4 FROM pg_prepared_statements WHERE name LIKE 'native_%'";
    for round in 0..20 {
        let (name, sql) = ("short".to_owned(), format!("SELECT {round} AS n"));
        wire.one(&message(Prepared::Prepare { name, sql, param_types: Vec::new() }));
        for _ in 0..2 {
            let (name, params) = ("short".into(), vec![]);
            let reply = wire.one(&message(Prepared::Execute { name, params, options: None }));
            let Message::QueryResponse(reply) = reply else { panic!("{reply:?}") };
            assert_eq!(reply.rows, [[Value::Int4(round)]]);
        }
        assert_eq!(wire.rows(kept, vec![]), [[Value::Int4(1)]], "{round}");
        wire.one(&message(Prepared::Deallocate { name: "short".into() }));
    }
}

#[test]
fn conflicts_are_skipped_in_a_table_with_generated_columns() {
    let mut wire = Wire::open(open());
    wire.rows("DROP TABLE IF EXISTS native_skips", vec![]);
    let sql = "CREATE TABLE native_skips (a int4 PRIMARY KEY, \
               twice int4 GENERATED ALWAYS AS (a * 2) STORED, \
               i int4 GENERATED ALWAYS AS IDENTITY)";
    wire.rows(sql, vec![]);
    let start = |on_conflict| {
        let (schema, table, columns) = (None, "native_skips".into(), Vec::new());
        Message::BulkInsert(Bulk::Start { schema, table, columns, on_conflict })
    };
    let row = |a, i| vec![Value::Int4(a), Value::Int4(i)];
    for (id, on_conflict, first, added) in
        [(201, OnConflict::Fail, 1, 2), (202, OnConflict::Skip, 2, 1)]
    {
        wire.send(id, MORE, &start(on_conflict));
        let rows = vec![row(first, 10), row(first + 1, 20)];
        wire.send(id, MORE, &Message::BulkInsert(Bulk::Rows { sequence: 0, rows }));
        wire.send(id, 0, &Message::BulkInsert(Bulk::End));
        match &wire.all_of(id)[0] {
            Message::Ok { affected_rows, .. } => assert_eq!(*affected_rows, added),
            other => panic!("{other:?}"),
        }
    }
    let rows = wire.rows("SELECT a, twice, i FROM native_skips WHERE a = 3", vec![]);
    assert_eq!(rows, [[Value::Int4(3), Value::Int4(6), Value::Int4(20)]]);
}
