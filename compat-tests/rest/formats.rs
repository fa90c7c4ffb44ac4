//! Results in every form, read by the readers that people use.

use std::io::Read;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType, UInt32Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use serde_json::{Value, json};

use crate::api::{Answer, Api, admin};
use crate::harness::shared::guarded;

const ARROW: &str = "application/vnd.apache.arrow.stream";

/// A row with a value of every kind, and one with NULL.
const KINDS: &str = r#"select * from (values (
    true, 7::int2, -8::int4, 9007199254740993::int8, 'NaN'::float4, 0.1::float8, 12.3400::numeric,
    E'a "b",\n\u00e9', ''::text, '\x00ff'::bytea, '2026-02-28'::date, '23:59:59.5'::time,
    '2026-02-28 01:02:03.000004'::timestamp, '2026-02-28 01:02:03+02'::timestamptz,
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, '{"k": [1, null]}'::jsonb, array[1, null, 3],
    '1 day 2 hours'::interval, 4000000000::oid),
  (null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
    null, null, null)
) as k (bool, int2, int4, int8, float4, float8, numeric, text, empty, bytea, date, time,
    timestamp, timestamptz, uuid, jsonb, array_of, interval, oid)"#;

fn query(api: &Api, accept: &str, body: Value) -> Answer {
    let headers = [("content-type", "application/json"), ("accept", accept)];
    api.send("POST", "/api/v1/query", &headers, body.to_string().as_bytes())
}

fn batches(bytes: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(bytes, None).unwrap().map(Result::unwrap).collect()
}

fn unpacked(mut bytes: &[u8]) -> Vec<rmpv::Value> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.push(rmpv::decode::read_value(&mut bytes).unwrap());
    }
    all
}

#[test]
fn csv() {
    let answer = query(&admin(), "text/csv", json!({ "sql": KINDS }));
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
    let mut reader = csv::Reader::from_reader(answer.bytes.as_slice());
    let names = reader.headers().unwrap().clone();
    assert_eq!((names.get(0), names.get(18)), (Some("bool"), Some("oid")));
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let expected = [
        "t",
        "7",
        "-8",
        "9007199254740993",
        "NaN",
        "0.1",
        "12.3400",
        "a \"b\",\n\u{e9}",
        "",
        "\\x00ff",
        "2026-02-28",
        "23:59:59.5",
        "2026-02-28 01:02:03.000004",
        "2026-02-27 23:02:03+00",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{\"k\": [1, null]}",
        "{1,NULL,3}",
        "P1DT2H",
        "4000000000",
    ];
    assert_eq!(rows[0].iter().collect::<Vec<_>>(), expected);
    // Quotes tell an empty string from NULL.
    assert!(answer.text.contains(",\"\",\\x00ff,"), "{}", answer.text);
    assert!(answer.text.ends_with(&format!("\r\n{}\r\n", ",".repeat(18))), "{}", answer.text);
    let odd = "select * from (values ('\\.', null), ('', 'x,y'), (E'\"\\n', '')) as v (a, b)";
    let text = query(&admin(), "text/csv", json!({ "sql": odd })).text;
    assert_eq!(text, "a,b\r\n\\.,\r\n\"\",\"x,y\"\r\n\"\"\"\n\",\"\"\r\n");
}

#[test]
fn arrow() {
    let answer = query(&admin(), ARROW, json!({ "sql": KINDS }));
    assert_eq!(answer.header("content-type"), ARROW);
    let batches = batches(&answer.bytes);
    let [batch] = batches.as_slice() else { panic!("{batches:?}") };
    assert_eq!((batch.num_columns(), batch.num_rows()), (19, 2));
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert!(column("bool").as_boolean().value(0));
    assert_eq!(column("int2").as_primitive::<Int16Type>().value(0), 7);
    assert_eq!(column("int4").as_primitive::<Int32Type>().value(0), -8);
    assert_eq!(column("int8").as_primitive::<Int64Type>().value(0), 9_007_199_254_740_993);
    assert!(column("float4").as_primitive::<Float32Type>().value(0).is_nan());
    assert_eq!(column("float8").as_primitive::<Float64Type>().value(0), 0.1);
    assert_eq!(column("bytea").as_binary::<i32>().value(0), b"\x00\xff");
    assert_eq!(column("date").as_primitive::<Date32Type>().value(0), 20_512);
    let time = column("time").as_primitive::<Time64MicrosecondType>().value(0);
    assert_eq!(time, 86_399_500_000);
    let moment = |name| column(name).as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(moment("timestamp"), 1_772_240_523_000_004);
    assert_eq!(moment("timestamptz"), 1_772_233_323_000_000);
    assert_eq!(column("uuid").as_fixed_size_binary().value(0)[..4], [0xa0, 0xee, 0xbc, 0x99]);
    assert_eq!(column("oid").as_primitive::<UInt32Type>().value(0), 4_000_000_000);
    for (name, text) in [
        ("numeric", "12.3400"),
        ("text", "a \"b\",\n\u{e9}"),
        ("empty", ""),
        ("jsonb", "{\"k\": [1, null]}"),
        ("array_of", "{1,NULL,3}"),
        ("interval", "P1DT2H"),
    ] {
        assert_eq!(column(name).as_string::<i32>().value(0), text, "{name}");
    }
    assert!(batch.columns().iter().all(|column| column.is_null(1) && column.is_valid(0)));
    let schema = batch.schema();
    let field = |name| schema.field_with_name(name).unwrap();
    assert_eq!(field("uuid").extension_type_name(), Some("arrow.uuid"));
    assert_eq!(field("numeric").metadata()["postgresql.type"], "numeric");
    assert_eq!(field("timestamptz").data_type().to_string(), "Timestamp(\u{b5}s, \"UTC\")");
}

/// Batches are bounded; nothing and no columns are results too.
#[test]
fn arrow_of_much_and_of_nothing() {
    let api = admin();
    let count = "select i, repeat('x', 100) as t from generate_series(1, $1::int) i";
    let answer = query(&api, ARROW, json!({ "sql": count, "params": [20_000] }));
    let all = batches(&answer.bytes);
    assert!(all.len() > 5 && all.iter().all(|batch| batch.num_rows() <= 8192));
    let numbers =
        all.iter().flat_map(|b| b.column(0).as_primitive::<Int32Type>().values().to_vec());
    assert!(numbers.eq(1..=20_000));
    let none = query(&api, ARROW, json!({ "sql": count, "params": [0] }));
    let reader = StreamReader::try_new(none.bytes.as_slice(), None).unwrap();
    assert_eq!((reader.schema().fields().len(), reader.count()), (2, 0));
    let bare = query(&api, ARROW, json!({ "sql": "select from generate_series(1, 3)" }));
    assert_eq!(batches(&bare.bytes)[0].num_rows(), 3);
    let ends = "select 'infinity'::date as d, '-infinity'::timestamptz as t";
    let ends = batches(&query(&api, ARROW, json!({ "sql": ends })).bytes);
    assert_eq!(ends[0].column(0).as_primitive::<Date32Type>().value(0), i32::MAX);
    assert_eq!(ends[0].column(1).as_primitive::<TimestampMicrosecondType>().value(0), i64::MIN);
    // What a form cannot say is an error before the head of the answer, if it comes early.
    let late = query(&api, ARROW, json!({ "sql": "select '294276-12-31'::timestamp as t" }));
    late.refused(400, "VALIDATION_ERROR");
}

#[test]
fn messagepack() {
    let answer = query(&admin(), "application/msgpack", json!({ "sql": KINDS }));
    assert_eq!(answer.header("content-type"), "application/msgpack");
    let rows = unpacked(&answer.bytes);
    let [row, nulls] = rows.as_slice() else { panic!("{rows:?}") };
    assert!(nulls.as_map().unwrap().iter().all(|(_, value)| value.is_nil()));
    assert!(matches!(&row["float4"], rmpv::Value::F32(value) if value.is_nan()));
    for (name, expected) in [
        ("bool", true.into()),
        ("int2", 7.into()),
        ("int4", (-8).into()),
        ("int8", 9_007_199_254_740_993_i64.into()),
        ("float8", 0.1.into()),
        ("numeric", "12.3400".into()),
        ("text", "a \"b\",\n\u{e9}".into()),
        ("bytea", rmpv::Value::Binary(vec![0, 0xff])),
        ("timestamptz", "2026-02-27T23:02:03Z".into()),
        ("array_of", rmpv::Value::Array(vec![1.into(), rmpv::Value::Nil, 3.into()])),
        ("oid", 4_000_000_000_u32.into()),
    ] {
        assert_eq!(row[name], expected, "{name}");
    }
    assert_eq!(row["jsonb"]["k"][0], 1.into());
    let arrays = json!({ "sql": "select 1 as a, 'b' as a", "row_format": "array" });
    let rows = unpacked(&query(&admin(), "application/x-msgpack", arrays).bytes);
    assert_eq!(rows, [rmpv::Value::Array(vec![1.into(), "b".into()])]);
}

#[test]
fn a_body_in_messagepack_says_the_same_as_one_in_json() {
    let api = admin();
    let send = |content_type: &str, body: &[u8]| {
        api.send("POST", "/api/v1/query", &[("content-type", content_type)], body)
    };
    let map = |pairs: Vec<(&str, rmpv::Value)>| {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &rmpv::Value::Map(pairs)).unwrap();
        bytes
    };
    let sql = "select $1::int8 as n, $2::bytea as b, $3::float8 as f, $4::text[] as a";
    let params = vec![
        i64::MIN.into(),
        rmpv::Value::Binary(vec![1, 2, 255]),
        f64::INFINITY.into(),
        rmpv::Value::Array(vec!["x".into(), rmpv::Value::Nil]),
    ];
    let body = map(vec![("sql", sql.into()), ("params", rmpv::Value::Array(params))]);
    let row = send("application/msgpack", &body).expect(200)["rows"][0].clone();
    let expected = json!({ "n": i64::MIN, "b": "AQL/", "f": "Infinity", "a": ["x", null] });
    assert_eq!(row, expected);
    assert_eq!(send("application/x-msgpack", &body).status, 200);
    let unknown = map(vec![("sql", "select 1".into()), ("what", 1.into())]);
    send("application/msgpack", &unknown).refused(400, "VALIDATION_ERROR");
    for bad in [&body[..body.len() - 1], b"\xc1", b"\x81\xa3sql\x01"] {
        send("application/msgpack", bad).refused(400, "VALIDATION_ERROR");
    }
    send("text/plain", &body).refused(415, "UNSUPPORTED_MEDIA_TYPE");
}

/// Whatever is JSON elsewhere is MessagePack for who likes that better, errors too.
#[test]
fn every_document_is_there_as_messagepack() {
    let api = admin();
    let get = |path: &str, accept: &str| api.send("GET", path, &[("accept", accept)], b"");
    let field = |value: &rmpv::Value, name: &str| {
        let pairs = value.as_map().unwrap().iter();
        pairs.clone().find(|(key, _)| key.as_str() == Some(name)).unwrap().1.clone()
    };
    for path in ["/api/v1/schemas", "/api/v1/tables", "/api/v1/pools", "/api/v1/auth/me"] {
        let answer = get(path, "application/json;q=0.5, application/msgpack");
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/msgpack"));
        assert_eq!(unpacked(&answer.bytes).len(), 1, "{path}");
        for accept in ["*/*", "application/json, application/msgpack", "application/msgpack;q=0"] {
            let answer = get(path, accept);
            assert_eq!(answer.header("content-type"), "application/json", "{path} {accept}");
        }
    }
    let refused = get("/api/v1/tables/never", "application/x-msgpack");
    assert_eq!((refused.status, refused.header("content-type")), (404, "application/msgpack"));
    let error = field(&unpacked(&refused.bytes)[0], "error");
    assert_eq!(field(&error, "code").as_str(), Some("NOT_FOUND"));
    let done = api.send(
        "POST",
        "/api/v1/batch",
        &[("accept", "application/msgpack"), ("content-type", "application/json")],
        br#"{"statements":[{"sql":"select 1 as one"}]}"#,
    );
    assert_eq!(done.header("content-type"), "application/msgpack", "{}", done.text);
}

/// Rows of a table have the same forms.
#[test]
fn rows_of_a_table() {
    let api = admin();
    let make = "create table public.formed (id int primary key, word text)";
    api.post("/api/v1/query", json!({ "sql": make })).expect(200);
    let path = "/api/v1/tables/formed/rows";
    let row = rmpv::Value::Map(vec![("id".into(), 1.into()), ("word".into(), "one".into())]);
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, &row).unwrap();
    api.send("POST", path, &[("content-type", "application/msgpack")], &body).expect(201);
    let get = |accept| api.send("GET", path, &[("accept", accept)], b"");
    assert_eq!(unpacked(&get("application/msgpack").bytes), [row]);
    let found = batches(&get(ARROW).bytes);
    assert_eq!(found[0].column(1).as_string::<i32>().value(0), "one");
    assert_eq!(get("text/csv").text, "id,word\r\n1,one\r\n");
    assert_eq!(get("application/x-ndjson").text, "{\"id\":1,\"word\":\"one\"}\n");
    api.post("/api/v1/query", json!({ "sql": "drop table public.formed" })).expect(200);
}

#[test]
fn what_is_not_on_offer_is_not_acceptable() {
    let body = json!({ "sql": "select 1 as one" });
    for accept in ["text/html", "application/json;q=0", "image/*"] {
        query(&admin(), accept, body.clone()).refused(406, "NOT_ACCEPTABLE");
    }
    let answer = query(&admin(), "application/json;q=0.1, text/*", body);
    assert_eq!(answer.text, "one\r\n1\r\n");
}

/// What came of a result that an error cut off.
fn cut_off(accept: &str) -> Vec<u8> {
    let server = guarded();
    let sql = "select 1/(50000-i) as v from generate_series(1,100000) i";
    let api = admin();
    let mut response = ureq::post(server.url("/api/v1/query"))
        .header("authorization", api.authorization())
        .header("content-type", "application/json")
        .header("accept", accept)
        .send(json!({ "sql": sql }).to_string())
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut bytes = Vec::new();
    let read = response.body_mut().as_reader().read_to_end(&mut bytes);
    assert!(read.is_err(), "{accept}: it looks like the end: {read:?}");
    bytes
}

#[test]
fn a_result_that_is_cut_off_does_not_look_complete() {
    let text = String::from_utf8(cut_off("application/json")).unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_err());
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["sqlstate"], "22012");

    let bytes = cut_off(ARROW);
    let mut rows = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let last = rows.by_ref().find(Result::is_err);
    assert!(last.is_some(), "the stream of Arrow has an end");

    let rows = unpacked(&cut_off("application/msgpack"));
    assert_eq!(rows.last().unwrap()["error"]["sqlstate"], "22012".into());
    assert!(rows.len() > 40_000);

    let text = String::from_utf8(cut_off("text/csv")).unwrap();
    assert!(text.ends_with("\r\n") && text.lines().count() > 40_000);
}
