//! `clients/vectors.json`: what every library must read and write, and what it must refuse.
//!
//! The messages in the file are kept by hand, their bytes are bincode's. `UPDATE_EXPECT=1` writes
//! the bytes anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use bincode::config::standard;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::frame::{self, HEADER, Header, MAX_PAYLOAD};
use super::wire::{Violation, Wire, decode, encode};
use super::{Agreed, CompressionType, Message, Value};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors.json")
}

pub(crate) fn file() -> Json {
    serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap()
}

pub(crate) fn entries<'a>(file: &'a Json, section: &str) -> &'a [Json] {
    file[section].as_array().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}

pub(crate) fn bytes(entry: &Json) -> Vec<u8> {
    let words = entry["bytes"].as_str().unwrap().split_whitespace();
    words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect()
}

pub(crate) fn name(entry: &Json) -> &str {
    entry["name"].as_str().unwrap_or_else(|| entry["type"].as_str().unwrap())
}

/// Bincode's bytes of a value in JSON, after everything has been compared with ours.
fn reference<T>(json: &Json, what: &str) -> Vec<u8>
where
    T: Wire + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value: T = serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(serde_json::to_value(&value).unwrap(), *json, "{what}: JSON");
    let theirs = bincode::serde::encode_to_vec(&value, standard()).unwrap();
    let mut ours = Vec::new();
    encode(&value, &mut ours);
    assert_eq!(hex(&ours), hex(&theirs), "{what}");
    assert_eq!(decode::<T>(&theirs).as_ref(), Ok(&value), "{what}");
    theirs
}

fn primitive(entry: &Json) -> Vec<u8> {
    let kind = entry["type"].as_str().unwrap();
    let integer = || entry["value"].as_str().unwrap().parse::<i128>().unwrap();
    let json = &entry["value"];
    match kind {
        // A byte by itself is no type of ours, except within an array.
        "u8" => reference::<[u8; 1]>(&json!([u8::try_from(integer()).unwrap()]), kind),
        "i8" => reference::<i8>(&json!(i8::try_from(integer()).unwrap()), kind),
        "u16" => reference::<u16>(&json!(u16::try_from(integer()).unwrap()), kind),
        "u64" => reference::<u64>(&json!(u64::try_from(integer()).unwrap()), kind),
        "i32" => reference::<i32>(&json!(i32::try_from(integer()).unwrap()), kind),
        "i64" => reference::<i64>(&json!(i64::try_from(integer()).unwrap()), kind),
        "f32" => reference::<f32>(json, kind),
        "f64" => reference::<f64>(json, kind),
        "String" => reference::<String>(json, kind),
        "Option<u32>" => reference::<Option<u32>>(json, kind),
        "Vec<u8>" => reference::<Vec<u8>>(json, kind),
        "Vec<u32>" => reference::<Vec<u32>>(json, kind),
        "[u8;4]" => reference::<[u8; 4]>(json, kind),
        "(String,String)" => reference::<(String, String)>(json, kind),
        other => panic!("{other}"),
    }
}

/// The frame of an entry as we write it, around bincode's bytes.
fn written_frame(entry: &Json) -> Vec<u8> {
    let body = reference::<Message>(&entry["message"], name(entry));
    let flags = entry["flags"].as_u64().unwrap() as u16;
    let id = entry["id"].as_str().unwrap().parse().unwrap();
    let agreed = agreed(entry, flags);
    let mut out = Vec::new();
    let start = frame::begin(&mut out);
    out.extend_from_slice(&body);
    let made = flags & !(frame::flags::CHECKSUM | frame::flags::COMPRESSED);
    frame::finish(&mut out, start, made, id, &agreed).unwrap();
    out
}

pub(crate) fn agreed(entry: &Json, flags: u16) -> Agreed {
    let compression = match flags & frame::flags::COMPRESSED {
        0 => CompressionType::None,
        _ => serde_json::from_value(entry["compression"].clone()).unwrap_or(CompressionType::Lz4),
    };
    let checksum = flags & frame::flags::CHECKSUM != 0;
    Agreed { compression, checksum, threshold: 1, ..Agreed::default() }
}

/// Everything that is done with the bytes of one frame.
pub(crate) fn read_frame(bytes: &[u8], agreed: &Agreed) -> Result<(Header, Message), Violation> {
    let cut = Violation::malformed("the connection ends inside a frame");
    let (header, payload) = frame::split(bytes, MAX_PAYLOAD)?.ok_or(cut)?;
    assert_eq!(bytes.len(), HEADER + payload.len());
    let mut scratch = Vec::new();
    let body = frame::open(&header, payload, agreed, &mut scratch)?;
    Ok((header, decode(body)?))
}

#[test]
fn the_file_is_what_bincode_and_we_write() {
    let mut file = file();
    for entry in file["primitives"].as_array_mut().unwrap() {
        entry["bytes"] = hex(&primitive(entry)).into();
    }
    for entry in file["values"].as_array_mut().unwrap() {
        entry["bytes"] = hex(&reference::<Value>(&entry["value"], name(entry))).into();
    }
    for entry in file["frames"].as_array_mut().unwrap() {
        // Another version of LZ4 may write other bytes, all of which read as the same.
        if entry["compression"].is_null() {
            entry["bytes"] = hex(&written_frame(entry)).into();
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path(), rendered(&file)).unwrap();
    } else {
        let there = std::fs::read_to_string(path()).unwrap();
        let must = rendered(&file);
        let wrong = there.lines().zip(must.lines()).find(|(is, must)| is != must);
        assert!(wrong.is_none() && there == must, "{wrong:?}");
    }
}

/// One entry to a line.
fn rendered(file: &Json) -> String {
    let mut text = String::from("{");
    for (at, section) in ["primitives", "values", "frames", "invalid"].iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(text, "{comma}\n  \"{section}\": [").unwrap();
        for (at, entry) in entries(file, section).iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(text, "{comma}\n    {entry}").unwrap();
        }
        text.push_str("\n  ]");
    }
    text + "\n}\n"
}

#[test]
fn every_frame_is_read_as_what_it_is() {
    let file = file();
    for entry in entries(&file, "frames") {
        let flags = entry["flags"].as_u64().unwrap() as u16;
        let (header, message) = read_frame(&bytes(entry), &agreed(entry, flags)).unwrap();
        assert_eq!(header.flags, flags, "{}", name(entry));
        assert_eq!(header.message_id.to_string(), entry["id"].as_str().unwrap());
        assert_eq!(serde_json::to_value(message).unwrap(), entry["message"], "{}", name(entry));
    }
}

#[test]
fn every_invalid_entry_is_refused_for_its_reason() {
    let file = file();
    for entry in entries(&file, "invalid") {
        let bytes = bytes(entry);
        let refused = match entry["what"].as_str().unwrap() {
            "frame" => {
                let flags = Header::parse(&bytes, u32::MAX).ok().flatten().map_or(0, |h| h.flags);
                read_frame(&bytes, &agreed(entry, flags)).map(drop)
            }
            "message" => decode::<Message>(&bytes).map(drop),
            "value" => decode::<Value>(&bytes).map(drop),
            other => panic!("{other}"),
        };
        let refused = refused.expect_err(name(entry));
        let expected = (entry["sqlstate"].as_str().unwrap(), entry["code"].as_str().unwrap());
        assert_eq!((refused.sqlstate(), refused.code()), expected, "{}: {refused}", name(entry));
    }
}

#[test]
fn every_variant_has_a_sample() {
    let file = file();
    let mut missing = Vec::new();
    // The number of a variant is its first byte, in frames after the header.
    let frames: Vec<u8> = entries(&file, "frames")
        .iter()
        .filter(|entry| entry["compression"].is_null())
        .map(|entry| bytes(entry)[HEADER])
        .collect();
    let values: Vec<u8> = entries(&file, "values").iter().map(|entry| bytes(entry)[0]).collect();
    missing.extend((0..=30).filter(|number| !frames.contains(number)).map(|n| ("message", n)));
    missing.extend((0..=29).filter(|number| !values.contains(number)).map(|n| ("value", n)));
    assert!(missing.is_empty(), "{missing:?}");
}
