//! `docs/native-protocol.md` says what the code does: its tables of types, flags and vectors, and
//! the bytes of its recorded sessions.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::{self, MAX_PAYLOAD};
use super::vector_tests::{bytes, entries, file, name, read_frame};
use super::{Agreed, PREFACE, encode};

const SOURCES: [&str; 4] = [
    include_str!("messages.rs"),
    include_str!("session.rs"),
    include_str!("value.rs"),
    include_str!("frame.rs"),
];

/// Rows of a type: number (empty in a struct), name, fields.
type Rows = Vec<[String; 3]>;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/native-protocol.md");
    std::fs::read_to_string(path).unwrap()
}

/// The tables of the page: the header's cells, then those of each row, without marks of code.
fn tables(page: &str) -> Vec<Vec<Vec<String>>> {
    let cells = |line: &str| {
        let line = line.trim().trim_matches('|').replace('`', "");
        line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let blocks = page.split("\n\n").filter(|block| block.starts_with('|'));
    let is_row = |line: &&str| !line.starts_with("|--") && !line.starts_with("|:-");
    blocks.map(|block| block.lines().filter(is_row).map(cells).collect()).collect()
}

/// Every type that `define!` makes, as its source has it.
fn defined() -> BTreeMap<String, Rows> {
    let mut types = BTreeMap::<String, Rows>::new();
    let (mut current, mut in_variant) = (String::new(), false);
    for source in SOURCES {
        let Some((_, source)) = source.split_once("define! {\n") else { continue };
        let body = source.split("\n}\n").next().unwrap();
        for line in body.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("pub ") {
                let words: Vec<&str> = rest.split_whitespace().collect();
                current = words[words.len() - 2].to_owned();
                assert!(types.insert(current.clone(), Vec::new()).is_none());
            } else if line.starts_with('}') {
                in_variant = false;
            } else if line.starts_with(char::is_alphanumeric) {
                let rows = types.get_mut(&current).unwrap();
                let line = line.trim_end_matches(',');
                if in_variant {
                    let fields = &mut rows.last_mut().unwrap()[2];
                    let comma = if fields == "–" { "" } else { ", " };
                    *fields = format!("{}{comma}{}", fields.replace('–', ""), unboxed(line));
                } else if !line.starts_with(|first: char| first.is_ascii_digit()) {
                    let (field, kind) = line.split_once(": ").unwrap();
                    rows.push([String::new(), field.to_owned(), unboxed(kind)]);
                } else {
                    let (number, rest) = line.split_once(' ').unwrap();
                    let (variant, fields) = match rest.split_once('(') {
                        Some((variant, inner)) => {
                            let kind = inner.trim_end_matches(')').split_once(": ").unwrap().1;
                            (variant, unboxed(kind))
                        }
                        None => (rest.trim_end_matches(" {"), "–".to_owned()),
                    };
                    rows.push([number.to_owned(), variant.to_owned(), fields]);
                    in_variant = rest.ends_with('{');
                }
            }
        }
    }
    types
}

/// A type as it travels: what is boxed travels as it is.
fn unboxed(kind: &str) -> String {
    match kind.split_once("Box<") {
        Some((before, inner)) => format!("{before}{}", inner.strip_suffix('>').unwrap()),
        None => kind.to_owned(),
    }
}

#[test]
fn every_type_is_described_as_it_is() {
    let defined = defined();
    let mut described = BTreeMap::<String, Rows>::new();
    for table in tables(&page()) {
        let (header, rows) = table.split_first().unwrap();
        let is_enum = header[0] == "No.";
        if !is_enum && header.get(1).is_none_or(|second| second != "Type") {
            continue;
        }
        let row = |cells: &Vec<String>| match is_enum {
            true => [cells[0].clone(), cells[1].clone(), cells[2].clone()],
            false => [String::new(), cells[0].clone(), cells[1].clone()],
        };
        let name = header[usize::from(is_enum)].clone();
        described.insert(name, rows.iter().map(row).collect());
    }
    let names = |types: &BTreeMap<String, Rows>| types.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&described), names(&defined));
    for (name, rows) in &defined {
        assert_eq!(described[name], *rows, "{name}");
    }
    assert_eq!(defined["Message"].len(), 31);
    assert_eq!(
        defined["Value"][25][2],
        "element_oid: u32, dims: Vec<Dimension>, values: Vec<Value>"
    );
}

#[test]
fn every_flag_and_capability_is_the_codes() {
    let constants: Vec<(String, u16)> = SOURCES
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": "))
        .filter_map(|(name, rest)| {
            let hex = rest.split_once("= 0x")?.1.trim_end_matches(';');
            Some((name.to_owned(), u16::from_str_radix(hex, 16).ok()?))
        })
        .collect();
    let mut seen = 0;
    for table in tables(&page()) {
        if !matches!(table[0][0].as_str(), "Flag" | "Capability") {
            continue;
        }
        for row in &table[1..] {
            let number = u16::from_str_radix(row[0].trim_start_matches("0x"), 16).unwrap();
            assert!(constants.contains(&(row[1].clone(), number)), "{row:?}");
            seen += 1;
        }
    }
    // All constants but the union of the capabilities.
    assert_eq!(seen, constants.len() - 1);
}

#[test]
fn every_vector_is_in_the_file() {
    let file = file();
    let mut known = BTreeMap::new();
    for entry in ["values", "frames"].iter().flat_map(|section| entries(&file, section)) {
        known.insert(name(entry).to_owned(), bytes(entry));
    }
    for entry in entries(&file, "primitives") {
        let value =
            entry["value"].as_str().map_or_else(|| entry["value"].to_string(), str::to_owned);
        known.insert(format!("{} {value}", name(entry)).trim().to_owned(), bytes(entry));
    }
    let mut quoted = 0;
    for table in tables(&page()) {
        let [.., example, last] = table[0].as_slice() else { continue };
        if example != "Example" || last != "Bytes" {
            continue;
        }
        for row in &table[1..] {
            let [.., example, hex] = row.as_slice() else { panic!("{row:?}") };
            assert_eq!(known.get(example), Some(&unhex(hex)), "{example}");
            quoted += 1;
        }
    }
    assert!(quoted > 100, "{quoted}");
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|word| u8::from_str_radix(word, 16).unwrap()).collect()
}

/// What is shown as sent is made of whole frames that are written in the same way.
#[test]
fn every_recorded_frame_is_one() {
    let page = page();
    let mut frames = 0;
    for block in page.split("```frames\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        for sent in text.split(['C', 'S']).skip(1) {
            let sent = unhex(sent);
            if sent == PREFACE {
                continue;
            }
            assert!(frame::split(&sent, MAX_PAYLOAD).unwrap().is_some(), "{sent:02x?}");
            let agreed = Agreed::default();
            let (header, message) = read_frame(&sent, &agreed).unwrap();
            let mut written = Vec::new();
            let start = frame::begin(&mut written);
            encode(&message, &mut written);
            frame::finish(&mut written, start, header.flags, header.message_id, &agreed).unwrap();
            assert_eq!(written, sent);
            frames += 1;
        }
    }
    assert_eq!(frames, 20);
}
