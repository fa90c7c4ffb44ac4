//! JSON and MessagePack mean what bincode means, and have its limits.

use super::codec::{Codec, Json, MessagePack, outline};
use super::vector_tests::{entries, file, name};
use super::wire::{Fault, MAX_NESTING, decode, encode};
use super::{Bound, Bulk, Encoding, Message, Query, RangeValue, Value};

fn messages() -> Vec<(String, Message)> {
    let file = file();
    let mut messages: Vec<_> = entries(&file, "frames")
        .iter()
        .map(|entry| {
            let message = serde_json::from_value(entry["message"].clone()).unwrap();
            (name(entry).to_owned(), message)
        })
        .collect();
    // Every value there is, as a parameter.
    for entry in entries(&file, "values") {
        let value: Value = serde_json::from_value(entry["value"].clone()).unwrap();
        messages.push((name(entry).to_owned(), with_params(vec![value])));
    }
    messages
}

fn with_params(params: Vec<Value>) -> Message {
    let query = Query { sql: "x".into(), params, param_types: vec![23, 70_000], options: None };
    Message::Query(Box::new(query))
}

fn bincode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

fn written(encoding: Encoding, message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding.encode(message, &mut bytes).unwrap();
    bytes
}

#[test]
fn every_message_means_the_same() {
    let messages = messages();
    assert!(messages.len() > 60);
    for (name, message) in messages {
        let bytes = bincode(&message);
        for encoding in Encoding::OPTIONAL {
            let mut body = b"before".to_vec();
            body.extend_from_slice(&bytes);
            encoding.transcode(&mut body, 6).unwrap();
            let body = body.split_off(6);
            assert_eq!(body, written(encoding, &message), "{name}");
            let read = encoding.decode(&body).unwrap_or_else(|e| panic!("{name}: {e}"));
            // Compared as bytes: NaN is not equal to itself.
            assert_eq!(bincode(&read), bytes, "{name}: {}", String::from_utf8_lossy(&body));
            // Nothing that is cut off or goes on is a message.
            for end in 0..body.len() {
                let refused = encoding.decode(&body[..end]).unwrap_err();
                assert_eq!(refused.fault, Fault::Malformed, "{name}: {end}");
            }
            let longer = [&body[..], b"1"].concat();
            assert_eq!(encoding.decode(&longer).unwrap_err().fault, Fault::Malformed, "{name}");
            let begin = outline(encoding, &body);
            assert!(!begin.is_empty() && bytes.starts_with(&begin), "{name}: {begin:?}");
            assert!(body.len() <= bytes.len() * 40, "{name}");
        }
    }
}

#[test]
fn numbers_that_json_does_not_have() {
    let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, 0.1, f64::MAX, 1e22];
    let narrow = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-45, 0.1, f32::MAX, 16.0];
    let values = floats.map(Value::Float8).into_iter().chain(narrow.map(Value::Float4));
    let integers = [Value::Int8(i64::MIN), Value::Int8(i64::MAX), Value::Oid(u32::MAX)];
    let message = with_params(values.chain(integers).collect());
    for encoding in Encoding::OPTIONAL {
        let read = encoding.decode(&written(encoding, &message)).unwrap();
        assert_eq!(bincode(&read), bincode(&message));
    }
    let text = String::from_utf8(written(Encoding::Json, &message)).unwrap();
    let begin = r#"[{"Float8":"NaN"},{"Float8":"Infinity"},{"Float8":"-Infinity"},{"Float8":-0.0}"#;
    assert!(text.contains(begin), "{text}");
    for bad in ["\"nan\"", "null", "[1]", "{}", "true", "1e999"] {
        let body = format!(r#"{{"Query":{{"sql":"x","params":[{{"Float8":{bad}}}]}}}}"#);
        assert_eq!(Json::decode(body.as_bytes()).unwrap_err().fault, Fault::Malformed, "{bad}");
    }
}

#[test]
fn what_people_write() {
    let whole =
        r#" { "Query" : {"sql":"SELECT 1", "param_types":[], "params":[], "options":null} } "#;
    let short = r#"{"Query":{"params":[],"sql":"SELECT 1","param_types":[]}}"#;
    let read = Json::decode(whole.as_bytes()).unwrap();
    assert_eq!(Json::decode(short.as_bytes()), Ok(read));
    assert_eq!(Json::decode(br#""Ping""#), Ok(Message::Ping));
    assert_eq!(MessagePack::decode(b"\xa4Ping"), Ok(Message::Ping));
    // Bytes as such, and as a list of numbers.
    let bytes = |body: &[u8]| match MessagePack::decode(body) {
        Ok(Message::Extension { payload, .. }) => payload,
        other => panic!("{other:?}"),
    };
    let begin = b"\x81\xa9Extension\x82\xa4name\xa1x\xa7payload";
    assert_eq!(bytes(&[&begin[..], b"\xc4\x02\x00\xff"].concat()), [0, 255]);
    assert_eq!(bytes(&[&begin[..], b"\x92\x00\xcc\xff"].concat()), [0, 255]);
    for bad in [
        &b""[..],
        b"null",
        b"[]",
        b"{}",
        b"\"Nothing\"",
        b"{\"Ping\":1}",
        b"{\"Cancel\":{\"target\":-1}}",
        b"{\"Cancel\":{\"target\":1,\"target\":1}}",
        b"{\"Cancel\":{\"target\":1,\"more\":[[[[]]]]}}",
        b"{\"Cancel\":{}}",
        b"{\"Cancel\":{\"target\":1},\"Ping\":null}",
        b"{\"Close\":{\"reason\":\"\xff\"}}",
        b"{\"Close\":{\"reason\":\"\\ud800\"}}",
    ] {
        let refused = Json::decode(bad).unwrap_err();
        let text = String::from_utf8_lossy(bad);
        assert_eq!((refused.sqlstate(), refused.is_fatal()), ("08P01", true), "{text}");
    }
}

/// So many ranges around a number: of all values they have the most levels of JSON.
fn ranges(depth: usize) -> Value {
    (0..depth).fold(Value::Int4(1), |inner, _| Value::Multirange {
        element_oid: 23,
        ranges: vec![RangeValue {
            empty: false,
            lower: Bound::Inclusive(Box::new(inner)),
            upper: Bound::Unbounded,
        }],
    })
}

#[test]
fn values_nest_as_deep_as_in_bincode() {
    for (depth, fault) in [(MAX_NESTING, None), (MAX_NESTING + 1, Some(Fault::TooLarge))] {
        let message = with_params(vec![ranges(depth)]);
        assert_eq!(decode::<Message>(&bincode(&message)).err().map(|e| e.fault), fault);
        for encoding in Encoding::OPTIONAL {
            let read = encoding.decode(&written(encoding, &message));
            assert_eq!(read.err().map(|e| e.fault), fault, "{depth}");
        }
    }
    // Far more than a stack has room for, of values and of anything else.
    for (begin, again, fault) in [
        (
            &br#"{"Query":{"sql":"x","params":["#[..],
            &br#"{"Array":{"element_oid":1,"dims":[],"values":["#[..],
            Fault::TooLarge,
        ),
        (br#"{"Query":{"sql":"#, b"[", Fault::Malformed),
        (br#"{"Query":{"other":"#, b"[", Fault::Malformed),
        (b"", b"[", Fault::Malformed),
        (b"", br#"{"Query":"#, Fault::Malformed),
    ] {
        let body = [begin, &again.repeat(300_000)].concat();
        assert_eq!(Json::decode(&body).unwrap_err().fault, fault);
        outline(Encoding::Json, &body);
    }
    for (begin, again, fault) in [
        (
            &b"\x81\xa5Query\x82\xa3sql\xa1x\xa6params\x91"[..],
            &b"\x81\xa5Array\x83\xabelement_oid\x01\xa4dims\x90\xa6values\x91"[..],
            Fault::TooLarge,
        ),
        (b"\x81\xa5Query\x81\xa3sql", b"\x91", Fault::Malformed),
        (b"\x81\xa5Query\x81\xa5other", b"\x91", Fault::Malformed),
        (b"", b"\x91", Fault::Malformed),
        (b"", b"\x81", Fault::Malformed),
    ] {
        let body = [begin, &again.repeat(300_000)].concat();
        assert_eq!(MessagePack::decode(&body).unwrap_err().fault, fault);
        outline(Encoding::MessagePack, &body);
    }
}

#[test]
fn memory_is_counted_and_no_length_is_believed() {
    // An array of 2^32 - 1, of which nothing comes; text and bytes as long.
    for tail in [&b"\xdd\xff\xff\xff\xff"[..], b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"] {
        for field in [&b"\xa3sql"[..], b"\xa6params", b"\xabparam_types"] {
            let body = [b"\x81\xa5Query\x81", field, tail, b"x"].concat();
            assert_eq!(MessagePack::decode(&body).unwrap_err().fault, Fault::Malformed);
        }
    }
    // What really comes may be small here and large in memory.
    let nulls = 2_000_000;
    let begin: &[u8] = br#"{"Query":{"sql":"x","params":["#;
    let json = [begin, &br#""Null","#.repeat(nulls)].concat();
    let begin: &[u8] = b"\x81\xa5Query\x82\xa3sql\xa1x\xa6params\xdd\x00\x1e\x84\x80";
    let packed = [begin, &b"\xa4Null".repeat(nulls)].concat();
    assert!(json.len() < 16 << 20 && packed.len() < 16 << 20);
    for (encoding, body) in [(Encoding::Json, json), (Encoding::MessagePack, packed)] {
        let refused = encoding.decode(&body).unwrap_err();
        assert_eq!((refused.sqlstate(), refused.is_fatal()), ("54000", false));
        assert_eq!(outline(encoding, &body), [3]);
    }
    let row = vec![Value::Null; 100];
    let rows = Message::BulkInsert(Bulk::Rows { sequence: 0, rows: vec![row; 20_000] });
    for encoding in Encoding::OPTIONAL {
        let body = written(encoding, &rows);
        assert_eq!(encoding.decode(&body).unwrap_err().fault, Fault::TooLarge);
        assert_eq!(outline(encoding, &body), [7, 1]);
        // Ours to send is as bounded.
        let mut ours = bincode(&rows);
        assert_eq!(encoding.transcode(&mut ours, 0).unwrap_err().fault, Fault::TooLarge);
        assert!(ours.is_empty());
    }
}

#[test]
fn every_damage_is_survived() {
    for (name, message) in messages() {
        for encoding in Encoding::OPTIONAL {
            let body = written(encoding, &message);
            for bit in 0..body.len() * 8 {
                let mut damaged = body.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                outline(encoding, &damaged);
                let Ok(read) = encoding.decode(&damaged) else { continue };
                let again = written(encoding, &read);
                let reread = encoding.decode(&again).map(|message| bincode(&message));
                assert_eq!(reread, Ok(bincode(&read)), "{name}");
            }
        }
    }
}

#[test]
fn secrets_are_known_as_such() {
    for (name, message) in messages() {
        let bytes = bincode(&message);
        for encoding in [Encoding::Bincode, Encoding::Json, Encoding::MessagePack] {
            let body = written(encoding, &message);
            assert_eq!(encoding.is_secret(&body), bytes[0] <= 2, "{name}");
        }
    }
}

#[test]
fn control_messages_are_short() {
    let most = u64::MAX >> 1;
    for encoding in [Encoding::Bincode, Encoding::Json, Encoding::MessagePack] {
        for message in [
            Message::Heartbeat { sent_at_us: u64::MAX, pending: u32::MAX },
            Message::WindowUpdate { stream: most, credit: u32::MAX },
            Message::Cancel { target: most },
            Message::Pong,
        ] {
            let length = written(encoding, &message).len() + 4;
            assert!(length <= encoding.max_urgent_payload() as usize, "{message:?}: {length}");
        }
    }
}
