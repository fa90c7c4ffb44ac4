//! Values of every kind of type as JSON, and JSON of every kind as a parameter.

use serde_json::{Value, json};

use crate::guarded;
use crate::http::{ask, rows};

/// Types that no other test has, made once in a schema of their own.
fn types() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let setup = guarded().psql(
            "create schema ht; create type ht.mood as enum ('sad', 'so \"so\"');
             create domain ht.small as int check (value < 100);
             create domain ht.tags as text[];
             create type ht.pair as (n int, t text);
             create type ht.nest as (p ht.pair, a int[], j jsonb, at timestamptz);
             create type ht.myrange as range (subtype = int);
             create table ht.t (id int, name text, at timestamptz);",
        );
        assert_eq!(setup.stderr, "");
    });
}

/// The value of an expression.
fn value(expression: &str, options: &Value) -> Value {
    types();
    let mut body = json!({ "sql": format!("select {expression} as v") });
    body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    rows(body)[0]["v"].clone()
}

#[test]
fn values_become_json() {
    let check = |expression: &str, expected: Value| {
        assert_eq!(value(expression, &json!({})), expected, "{expression}");
    };
    check("true", json!(true));
    check("false", json!(false));
    check("null::int", json!(null));
    check("(-32768)::int2", json!(-32768));
    check("2147483647", json!(2147483647));
    check("9223372036854775807", json!(9223372036854775807i64));
    check("(-9223372036854775808)::int8", json!(i64::MIN));
    check("4294967295::oid", json!(4294967295u32));
    check("1.5::float8", json!(1.5));
    check("0.1::float4", json!(0.1));
    check("1e300::float8", json!(1e300));
    check("'NaN'::float8", json!("NaN"));
    check("'Infinity'::float4", json!("Infinity"));
    check("'-Infinity'::float8", json!("-Infinity"));
    check("1.10::numeric", json!("1.10"));
    check("'NaN'::numeric", json!("NaN"));
    check("12345678901234567890.1234567890", json!("12345678901234567890.1234567890"));
    check("'é \"q\" \\ 👋' || chr(1) || chr(10)", json!("é \"q\" \\ 👋\u{1}\n"));
    check("'x'::varchar(5)", json!("x"));
    check("'x'::char(3)", json!("x  "));
    check("'x'::\"char\"", json!("x"));
    check("'x'::name", json!("x"));
    check(
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    );
    check("'10.1.2.3'::inet", json!("10.1.2.3"));
    check("'so \"so\"'::ht.mood", json!("so \"so\""));
    check("7::ht.small", json!(7));
    check("interval '1 year 2 days 03:04:05.6'", json!("P1Y2DT3H4M5.6S"));
    check("interval '-1 day'", json!("P-1D"));
    check("date '2024-02-29'", json!("2024-02-29"));
    check("time '12:34:56.789'", json!("12:34:56.789"));
    check("timetz '12:34:56+02'", json!("12:34:56+02"));
    check("timestamp '2024-02-29 12:34:56.789'", json!("2024-02-29T12:34:56.789"));
    check("timestamptz '2024-02-29 12:34:56+02'", json!("2024-02-29T10:34:56Z"));
    check("timestamptz 'infinity'", json!("infinity"));
    check("'\\x00ff10'::bytea", json!("AP8Q"));
    check("''::bytea", json!(""));
    check("'{\"b\": 1, \"a\": [1, 2.50]}'::json", json!({ "b": 1, "a": [1, 2.50] }));
    check("'{\"b\": [null, true]}'::jsonb", json!({ "b": [null, true] }));
    check("'null'::jsonb", json!(null));
    check("'\"text\"'::jsonb", json!("text"));
    check("array[1, null, 3]", json!([1, null, 3]));
    check("'{}'::int[]", json!([]));
    check("array[[1, 2], [3, 4]]", json!([[1, 2], [3, 4]]));
    check("'[2:3]={1,2}'::int[]", json!([1, 2]));
    check(
        "array['a,b', 'c\"d', '\\', '', null, 'NULL', '{}']",
        json!(["a,b", "c\"d", "\\", "", null, "NULL", "{}"]),
    );
    check("array[1.5, 'NaN']::numeric[]", json!(["1.5", "NaN"]));
    check("array[true, false]", json!([true, false]));
    check("array['\\x00'::bytea]", json!(["AA=="]));
    check("array['{\"a\": \"b c\"}'::jsonb]", json!([{ "a": "b c" }]));
    check("array[timestamptz '2024-01-01 00:00+00']", json!(["2024-01-01T00:00:00Z"]));
    check("array['sad']::ht.mood[]", json!(["sad"]));
    check("array['a', 'b c']::ht.tags", json!(["a", "b c"]));
    check("array[box '(1,1),(0,0)', box '(2,2),(1,1)']", json!(["(1,1),(0,0)", "(2,2),(1,1)"]));
    check("(1, 'x \"y\", z')::ht.pair", json!({ "n": 1, "t": "x \"y\", z" }));
    check("(null, '')::ht.pair", json!({ "n": null, "t": "" }));
    check(
        "((1, 'a b'), array[1, 2], '{\"k\": [1]}', '2024-01-01 00:00+00')::ht.nest",
        json!({ "p": { "n": 1, "t": "a b" }, "a": [1, 2], "j": { "k": [1] },
            "at": "2024-01-01T00:00:00Z" }),
    );
    check("array[(1, 'x')::ht.pair, null]", json!([{ "n": 1, "t": "x" }, null]));
}

#[test]
fn ranges_and_the_rest_become_strings() {
    let check = |expression: &str, expected: &str| {
        assert_eq!(value(expression, &json!({})), json!(expected), "{expression}");
    };
    check("int4range(1, 5)", "[1,5)");
    check("'{[1,2),[5,)}'::int4multirange", "{[1,2),[5,)}");
    check("ht.myrange(1, 3, '[]')", "[1,3]");
    check("row(1, 'x')", "(1,x)");
    check("point(1, 2)", "(1,2)");
    check("b'101'", "101");
    check("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03");
    check("'a & b'::tsquery", "'a' & 'b'");
    check("'pg_class'::regclass", "pg_class");
    check("'<a>b</a>'::xml", "<a>b</a>");
    check("'0/16B3748'::pg_lsn", "0/16B3748");
    check("'0044-03-15 BC'::date", "0044-03-15 BC");
}

#[test]
fn numbers_can_be_asked_for_as_strings_or_numbers() {
    let check = |expression: &str, options: Value, expected: &str| {
        types();
        let mut body = json!({ "sql": format!("select {expression} as v") });
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let text = ask(body).text;
        assert!(text.contains(&format!("\"rows\":[{{\"v\":{expected}}}]")), "{expression}: {text}");
    };
    check("9223372036854775807", json!({ "int8": "string" }), "\"9223372036854775807\"");
    check("9223372036854775807", json!({ "int8": "number" }), "9223372036854775807");
    check("1::int4", json!({ "int8": "string" }), "1");
    check("array[1::int8, 2]", json!({ "int8": "string" }), "[\"1\",\"2\"]");
    check("1.10", json!({ "numeric": "number" }), "1.10");
    check("12345678901234567890.123", json!({ "numeric": "number" }), "12345678901234567890.123");
    check("'NaN'::numeric", json!({ "numeric": "number" }), "\"NaN\"");
    check("1.10", json!({ "numeric": "string" }), "\"1.10\"");
    check("array[1.10, null]", json!({ "numeric": "number" }), "[1.10,null]");
    check("'{\"n\": 1.10}'::json", json!({}), "{\"n\": 1.10}");
}

#[test]
fn a_rows_own_type_and_settings_of_the_role_do_not_matter() {
    types();
    let sql = "select t as whole from (values (1, 'x', '2024-01-01 00:00+00'::timestamptz))
        v(id, name, at),
        lateral (select row(v.id, v.name, v.at)::ht.t as t) x";
    let expected = json!([{ "whole": { "id": 1, "name": "x", "at": "2024-01-01T00:00:00Z" } }]);
    assert_eq!(rows(json!({ "sql": sql })), expected);
    // A role's own settings lose against those that make JSON possible.
    let server = guarded();
    server.psql(
        "create role ht_role login password 'pw'; alter role ht_role set datestyle = 'SQL, DMY';
         alter role ht_role set bytea_output = 'escape'; 
         alter role ht_role set intervalstyle = 'sql_standard';
         alter role ht_role set timezone = 'Asia/Tokyo'; 
         alter role ht_role set client_encoding = 'LATIN1';
         alter role ht_role set extra_float_digits = 0;",
    );
    let client = crate::http::Client { user: "ht_role", password: "pw" };
    let sql = "select timestamptz '2024-02-29 12:00+00' as t, '\\xff'::bytea as b,
        interval '1 day' as i, 'é' as e, 0.1::float8 + 0.2 as f";
    let answer = crate::http::post(server, &client, &json!({ "sql": sql }));
    assert_eq!(
        answer.json["rows"][0],
        json!({ "t": "2024-02-29T12:00:00Z", "b": "/w==", "i": "P1D", "e": "é",
            "f": 0.30000000000000004 }),
        "{answer:?}"
    );
}

#[test]
fn json_becomes_parameters() {
    types();
    let check = |pg_type: &str, given: Value, expected: &str| {
        let sql = format!("select $1::{pg_type}::text as v");
        let answer = ask(json!({ "sql": sql, "params": [given] }));
        assert_eq!(answer.status, 200, "{pg_type} {given}: {}", answer.text);
        assert_eq!(answer.json["rows"][0]["v"], json!(expected), "{pg_type} {given}");
    };
    check("int", json!(42), "42");
    check("int", json!("42"), "42");
    check("int8", json!(i64::MAX), "9223372036854775807");
    check("float8", json!(1.5), "1.5");
    check("float8", json!("NaN"), "NaN");
    check("numeric", json!("1.10"), "1.10");
    check("bool", json!(true), "true");
    check("bool", json!("f"), "false");
    check("text", json!("é \" \\ \n"), "é \" \\ \n");
    check("text", json!(true), "true");
    check("text", json!(7), "7");
    check("text", json!({ "a": 1 }), "{\"a\":1}");
    check("json", json!({ "a": [1, null] }), "{\"a\":[1,null]}");
    check("jsonb", json!("text"), "\"text\"");
    check("jsonb", json!([1, "x"]), "[1, \"x\"]");
    check("jsonb", json!(5), "5");
    check("bytea", json!("AP8="), "\\x00ff");
    check("bytea", json!(""), "\\x");
    check(
        "uuid",
        json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    );
    check("timestamptz", json!("2024-02-29T12:00:00+02:00"), "2024-02-29 10:00:00+00");
    check("timestamptz", json!("2024-02-29T10:00:00Z"), "2024-02-29 10:00:00+00");
    check("date", json!("2024-02-29"), "2024-02-29");
    check("interval", json!("P1DT2H"), "P1DT2H");
    check("int[]", json!([1, null, 3]), "{1,NULL,3}");
    check("int[]", json!([[1, 2], [3, 4]]), "{{1,2},{3,4}}");
    check("int[]", json!("{1,2}"), "{1,2}");
    check(
        "text[]",
        json!(["a,b", "c\"d", "\\", "", null, "NULL"]),
        "{\"a,b\",\"c\\\"d\",\"\\\\\",\"\",NULL,\"NULL\"}",
    );
    check("bytea[]", json!(["AP8="]), "{\"\\\\x00ff\"}");
    check("jsonb[]", json!([{ "a": 1 }, [1]]), "{\"{\\\"a\\\": 1}\",[1]}");
    check("ht.pair", json!({ "n": 1, "t": "x, \"y\"" }), "(1,\"x, \"\"y\"\"\")");
    check("ht.pair", json!([1, null]), "(1,)");
    check("ht.pair[]", json!([{ "n": 1, "t": "x" }]), "{\"(1,x)\"}");
    check("ht.mood", json!("sad"), "sad");
    check("ht.small", json!(5), "5");
    check("int4range", json!("[1,5)"), "[1,5)");
    check("inet", json!("10.0.0.1"), "10.0.0.1/32");
    for pg_type in ["int", "text", "jsonb", "int[]", "uuid", "timestamptz", "bytea", "ht.pair"] {
        let sql = format!("select $1::{pg_type} is null as v");
        assert_eq!(
            rows(json!({ "sql": sql, "params": [null] })),
            json!([{ "v": true }]),
            "{pg_type}"
        );
    }
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let check = |pg_type: &str, given: Value| {
        let sql = format!("select $1::{pg_type} as v");
        let answer = ask(json!({ "sql": sql, "params": [given] }));
        let got = (answer.status, answer.code());
        assert_eq!(got, (400, "VALIDATION_ERROR"), "{pg_type} {given}: {}", answer.text);
    };
    check("int", json!("x"));
    check("int", json!(1.5));
    check("int", json!(1e20));
    check("int2", json!(40000));
    check("int", json!({}));
    check("bool", json!("maybe"));
    check("uuid", json!("x"));
    check("bytea", json!("*"));
    check("int[]", json!(5));
    check("int[]", json!([[1], [2, 3]]));
    check("text", json!("a\0b"));
    check("text[]", json!(["a\0b"]));
    check("jsonb", json!({ "a": "\0" }));
    check("timestamptz", json!("tomorrowish"));
    // The number of parameters.
    for (sql, params) in [
        ("select 1", json!([1])),
        ("select $1::int", json!([])),
        ("select $1::int, $2::int", json!([1])),
        ("select $3::int, $1::int, $2::int", json!([1, 2, 3, 4])),
    ] {
        let answer = ask(json!({ "sql": sql, "params": params }));
        let got = (answer.status, answer.code(), &answer.json["error"]["sqlstate"]);
        assert_eq!(got, (400, "VALIDATION_ERROR", &json!("08P01")), "{sql}: {}", answer.text);
    }
    // Not a way around the parameters.
    let evil = "'; drop table nothere; --";
    assert_eq!(
        rows(json!({ "sql": "select $1::text as v", "params": [evil] })),
        json!([{ "v": evil }])
    );
}
