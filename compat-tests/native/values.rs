//! Values of every type: what PostgreSQL prints is what comes back when they are sent again.

use rustydb_client::protocol::frame::flags;
use rustydb_client::protocol::*;

use crate::client::Wire;
use crate::open;

/// Types, literals, and the variant that they travel in.
const VALUES: &[(&str, &[&str], &str)] = &[
    ("bool", &["true", "false"], "Bool"),
    ("int2", &["-32768", "32767"], "Int2"),
    ("int4", &["-2147483648", "0", "2147483647"], "Int4"),
    ("int8", &["-9223372036854775808", "9223372036854775807"], "Int8"),
    ("float4", &["1.5", "-0", "3.4e38", "1e-45", "NaN", "Infinity", "-Infinity", "0.1"], "Float4"),
    ("float8", &["-2.25", "1.7976931348623157e308", "5e-324", "NaN", "-Infinity", "0.1"], "Float8"),
    (
        "numeric",
        &[
            "0",
            "0.00",
            "-12.50",
            "1e100",
            "0.000000000000000001",
            "12345678901234567890.123456789",
            "NaN",
            "Infinity",
            "-Infinity",
            "10000",
            "9999.9999",
            "100000000",
            "-0.0001",
        ],
        "Numeric",
    ),
    ("text", &["", "é 日本", "a\"b\\c,{}", "NULL", " x "], "Text"),
    ("varchar", &["x"], "Text"),
    ("bpchar", &["x  "], "Text"),
    ("name", &["a_name"], "Text"),
    ("\"char\"", &["x", ""], "Text"),
    ("xml", &["<a>b</a>"], "Text"),
    ("bytea", &["\\x", "\\xdeadbeef00"], "Bytea"),
    (
        "date",
        &[
            "2000-01-01",
            "2026-07-28",
            "1999-12-31",
            "0001-01-01",
            "4713-01-01 BC",
            "0044-03-15 BC",
            "5874897-12-31",
            "infinity",
            "-infinity",
            "2000-02-29",
            "1900-03-01",
        ],
        "Date",
    ),
    ("time", &["00:00", "24:00", "23:59:59.999999"], "Time"),
    ("timetz", &["01:02:03.5+02", "00:00-15:59:59", "12:00:00+05:30"], "TimeTz"),
    (
        "timestamp",
        &[
            "2000-01-01 00:00:01",
            "1999-12-31 23:59:59.999999",
            "0044-03-15 12:00 BC",
            "294276-12-31 23:59:59",
            "infinity",
            "-infinity",
        ],
        "Timestamp",
    ),
    ("timestamptz", &["2026-01-01 00:00+00", "0001-01-01 00:00+00 BC", "infinity"], "TimestampTz"),
    (
        "interval",
        &[
            "1 mon 2 d 3 s",
            "-1 year 3 days -04:05:06.789",
            "0",
            "178000000 years",
            "-0.000001 s",
            "1 mon -1 day",
        ],
        "Interval",
    ),
    ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], "Uuid"),
    ("json", &["{\"a\": 1}", "null"], "Json"),
    ("jsonb", &["{\"a\": [1, 2.50, \"x\"]}", "[]"], "Jsonb"),
    (
        "inet",
        &[
            "10.0.0.1/8",
            "10.0.0.1",
            "::1",
            "2001:db8::ff00:42:8329/64",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "::5",
            "1::",
            "1:0:0:2::",
            "::",
        ],
        "Inet",
    ),
    ("cidr", &["10.0.0.0/8", "192.168.1.1/32", "::/0", "2001:db8::/32"], "Cidr"),
    ("macaddr", &["08:00:2b:01:02:03"], "MacAddr"),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"], "MacAddr"),
    ("bit(3)", &["101"], "Bit"),
    ("varbit", &["", "1", "10101010", "111111111"], "Bit"),
    ("oid", &["0", "4294967295"], "Oid"),
    ("regclass", &["pg_class"], "Oid"),
    ("regtype", &["int4"], "Oid"),
    ("xid", &["7"], "Oid"),
    ("money", &["1.00", "-12345.67", "0"], "Money"),
    (
        "int4[]",
        &["{1,NULL}", "{}", "{{1,2},{3,4}}", "[2:3]={5,6}", "[-1:0][5:6]={{1,2},{3,4}}"],
        "Array",
    ),
    ("text[]", &["{\"a\\\"b\\\\\",\"\",NULL,\"NULL\",\"{x}\"}"], "Array"),
    ("numeric[]", &["{1.50,NaN,-3}"], "Array"),
    ("timestamptz[]", &["{\"2026-01-01 00:00+00\",infinity}"], "Array"),
    ("bytea[]", &["{\"\\\\xdead\",NULL}"], "Array"),
    ("jsonb[]", &["{\"{\\\"a\\\": \\\"b\\\\\\\\c\\\"}\"}"], "Array"),
    ("interval[]", &["{\"1 mon -2 days\"}"], "Array"),
    ("point[]", &["{\"(1,2)\",NULL}"], "Array"),
    ("box[]", &["{(1,1),(0,0);(3,3),(2,2)}"], "Array"),
    ("int4range", &["[1,5)", "empty", "(,)", "[3,)"], "Range"),
    ("numrange", &["(1.5,2.50]"], "Range"),
    ("tstzrange", &["[\"2026-01-01 00:00+00\",infinity)"], "Range"),
    ("daterange", &["[2026-01-01,)"], "Range"),
    ("int4multirange", &["{[1,5),[7,9)}", "{}"], "Multirange"),
    ("int4range[]", &["{\"[1,2)\",empty}"], "Array"),
    ("point", &["(1,2)"], "Other"),
    ("path", &["[(0,0),(1,1)]"], "Other"),
    ("tsvector", &["'a':1 'b'"], "Other"),
    ("pg_lsn", &["16/B374D848"], "Other"),
    ("aclitem", &["rustydb=r/rustydb"], "Other"),
    ("native_mood", &["happy", "sad"], "Text"),
    ("native_mood[]", &["{happy,NULL}"], "Array"),
    ("native_pair", &["(1,\"a \\\"b\")", "(,)"], "Composite"),
    ("native_deep", &["(\"(1,x)\",\"{happy}\",5)"], "Composite"),
    ("native_pair[]", &["{\"(1,a)\",\"(2,)\"}"], "Array"),
    ("native_small", &["5"], "Int4"),
    ("native_small[]", &["{5,6}"], "Array"),
    ("native_floats", &["[1.5,2.5)"], "Range"),
];

const TYPES: &str = "
    DO $$ BEGIN
    CREATE TYPE native_mood AS ENUM ('happy', 'sad');
    CREATE DOMAIN native_small AS int4 CHECK (value < 10);
    CREATE TYPE native_pair AS (a int4, b text);
    CREATE TYPE native_deep AS (p native_pair, m native_mood[], s native_small);
    CREATE TYPE native_floats AS RANGE (subtype = float8);
    EXCEPTION WHEN duplicate_object THEN NULL; END $$";

fn variant(value: &Value) -> String {
    let text = format!("{value:?}");
    text.split(['(', ' ', '{']).next().unwrap().to_owned()
}

fn text(wire: &mut Wire, sql: &str, params: Vec<Value>) -> String {
    match &wire.rows(sql, params)[0][0] {
        Value::Text(text) => text.clone(),
        other => panic!("{sql}: {other:?}"),
    }
}

fn quote(literal: &str) -> String {
    format!("'{}'", literal.replace('\'', "''"))
}

#[test]
fn values_come_back_as_they_went() {
    let mut wire = Wire::open(open());
    wire.rows(TYPES, vec![]);
    wire.rows("SET timezone = 'UTC'", vec![]);
    for (kind, literals, expected) in VALUES {
        for literal in *literals {
            let what = format!("{}::{kind}", quote(literal));
            let printed = text(&mut wire, &format!("SELECT ({what})::text"), vec![]);
            let value = wire.rows(&format!("SELECT {what}"), vec![])[0][0].clone();
            assert_eq!(variant(&value), *expected, "{what}");
            // Sent again as a parameter, and as its text.
            let back = format!("SELECT (($1)::{kind})::text");
            // PostgreSQL does not cast an oid to an xid.
            if *kind != "xid" {
                let again = text(&mut wire, &back, vec![value.clone()]);
                assert_eq!(again, printed, "{what}: {value:?}");
            }
            let as_text = Value::Text((*literal).to_owned());
            assert_eq!(text(&mut wire, &back, vec![as_text]), printed, "{what}");
            texts_are_postgres_texts(&value, &printed);
        }
    }
}

/// Variants that are texts say what PostgreSQL prints.
fn texts_are_postgres_texts(value: &Value, printed: &str) {
    match value {
        Value::Numeric(text)
        | Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Inet(text)
        | Value::Cidr(text) => {
            // ::text cuts blanks off a bpchar, and masks off an inet without one are not printed.
            let shown = printed.strip_suffix("/32").or(printed.strip_suffix("/128"));
            assert!(
                text.trim_end() == printed.trim_end() || Some(text.as_str()) == shown,
                "{text} {printed}"
            );
        }
        Value::Other { binary: false, bytes, .. } => assert_eq!(bytes, printed.as_bytes()),
        _ => {}
    }
}

#[test]
fn values_go_in_bulk_as_they_are() {
    let mut wire = Wire::open(open());
    wire.rows(TYPES, vec![]);
    for (number, (kind, literals, _)) in VALUES.iter().enumerate() {
        let table = format!("native_values_{number}");
        wire.rows(&format!("DROP TABLE IF EXISTS {table}"), vec![]);
        wire.rows(&format!("CREATE TABLE {table} (n int, v {kind})"), vec![]);
        let mut rows = Vec::new();
        let mut printed = Vec::new();
        for (n, literal) in literals.iter().enumerate() {
            let what = format!("{}::{kind}", quote(literal));
            printed.push(text(&mut wire, &format!("SELECT ({what})::text"), vec![]));
            let value = wire.rows(&format!("SELECT {what}"), vec![])[0][0].clone();
            rows.push(vec![Value::Int4(n as i32), value]);
        }
        let id = 5000 + number as u64;
        let start = Bulk::Start {
            schema: Some("public".into()),
            table: table.clone(),
            columns: Vec::new(),
            on_conflict: OnConflict::Fail,
        };
        wire.send(id, flags::MORE, &Message::BulkInsert(start));
        wire.send(id, flags::MORE, &Message::BulkInsert(Bulk::Rows { sequence: 0, rows }));
        wire.send(id, 0, &Message::BulkInsert(Bulk::End));
        let replies = wire.all_of(id);
        assert!(matches!(replies[0], Message::Ok { .. }), "{kind}: {replies:?}");
        let sql = format!("SELECT array_agg(v::text ORDER BY n)::text[] FROM {table}");
        let Value::Array { values, .. } = &wire.rows(&sql, vec![])[0][0] else { panic!() };
        let found: Vec<String> = values
            .iter()
            .map(|value| match value {
                Value::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, printed, "{kind}");
        wire.rows(&format!("DROP TABLE {table}"), vec![]);
    }
}

#[test]
fn a_catalog_with_types_that_have_no_binary_form() {
    let mut wire = Wire::open(open());
    for table in ["pg_class", "pg_proc", "pg_attribute", "pg_type", "pg_database", "pg_statistic"] {
        let response = wire.ask(&crate::client::query(&format!("SELECT * FROM {table}"), vec![]));
        assert!(
            matches!(response.last(), Some(Message::QueryResponse(_))),
            "{table}: {response:?}"
        );
    }
}

#[test]
fn a_value_that_does_not_fit_is_refused_with_its_sqlstate() {
    let mut wire = Wire::open(open());
    for (sql, value, sqlstate) in [
        ("SELECT $1::int2", Value::Int4(40_000), "22003"),
        ("SELECT $1::date", Value::Date(i32::MAX - 1), "22008"),
        ("SELECT $1::text", Value::Date(i32::MAX - 1), "22008"),
        ("SELECT $1::timestamp::text", Value::Timestamp(i64::MAX - 1), "22008"),
        ("SELECT $1::numeric", Value::Numeric("x".into()), "22P02"),
        ("SELECT $1::int4", Value::Text("x".into()), "22P02"),
        ("SELECT $1::bit(9)", Value::Bit { len: 9, bytes: vec![1] }, "22P02"),
        ("SELECT $1::macaddr", Value::MacAddr(vec![1, 2]), "22P02"),
        ("SELECT $1::text", Value::Text("a\0b".into()), "22021"),
        ("SELECT $1::uuid", Value::Text("zz".into()), "22P02"),
    ] {
        let error = wire.refused(&crate::client::query(sql, vec![value.clone()]));
        assert_eq!(error.sqlstate, sqlstate, "{sql} {value:?}: {error:?}");
    }
    assert_eq!(wire.rows("SELECT 1", vec![]), [[Value::Int4(1)]]);
}
