//! Maps PostgreSQL text-format values to JSON and JSON parameters back to text format.
//!
//! Both directions work on bytes and append to the caller's buffer, because they run once per
//! value of every row. Text that is not what its shape promises (an unusual setting, a type this
//! module misjudges) is never an error on the way out: it is written as a JSON string instead,
//! so that the document around it stays valid.

mod params;
mod records;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;

pub use params::{ParamError, write_param};
pub use records::{Member, NotRecords, Records, Value};

/// The deepest nesting of arrays and composites that is followed in either direction.
const MAX_DEPTH: usize = 32;

/// How the text of a PostgreSQL value becomes JSON. The text is what the type's output function
/// prints, see the chapter <https://www.postgresql.org/docs/current/datatype.html>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `t` or `f`, as JSON `true` or `false`.
    Bool,
    /// An integer that every JSON reader holds exactly, as a number.
    Int,
    /// `oid`, as a number or, by [`Style::as_postgres`], a string.
    Oid,
    /// A 64-bit integer, as a number or, by [`Style::int8_as_string`], a string.
    Int8,
    /// `float4` and `float8`, as a number; `NaN` and the infinities as strings.
    Float,
    /// `numeric`, as a string or, by [`Style::numeric_as_number`], a number.
    Numeric,
    /// `json` and `jsonb`, embedded as they are.
    Json,
    /// Everything else, as a string.
    Text,
    /// `bytea` in the hex format of `bytea_output`, as padded base64.
    Bytea,
    /// `timestamp` in ISO `DateStyle`, with a `T` between date and time.
    Timestamp,
    /// `timestamptz` in ISO `DateStyle`, with a `T` and the offset as `Z` or `+hh:mm`.
    Timestamptz,
    /// An array literal, <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>.
    Array {
        /// The shape of one element; further dimensions of the array share it.
        element: Arc<Shape>,
        /// `pg_type.typdelim` of the element type: a comma, but a semicolon for `box`.
        delimiter: u8,
    },
    /// A record literal as an object,
    /// <https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX>.
    Composite(Arc<[Field]>),
}

/// One attribute of a composite type (`pg_attribute`), in the order of `attnum`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The key in the JSON object.
    pub name: Box<str>,
    /// How the attribute's value becomes JSON.
    pub shape: Shape,
}

/// Choices between number and string where JSON readers differ in the precision they keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// `int8` becomes a string, for readers that hold numbers as IEEE doubles.
    pub int8_as_string: bool,
    /// `numeric` becomes a number, for readers that keep every digit.
    pub numeric_as_number: bool,
    /// `bytea`, `oid` and `timestamptz` look as in JSON that PostgreSQL makes (`to_json`).
    pub as_postgres: bool,
    /// Rows have no members that are null, at any depth; [`write_value`] does not look at this.
    pub without_nulls: bool,
}

/// Appends the JSON form of a value in the server's text format, which is never that of NULL.
///
/// Text that does not match the shape, or nests too deep, becomes a JSON string. Only
/// [`Shape::Json`] is trusted to be what it says, because the server has validated it.
pub fn write_value(out: &mut Vec<u8>, text: &[u8], shape: &Shape, style: Style) {
    Writer { out, style, depth: 0 }.value(text, shape);
}

/// Appends JSON values; a method that returns `None` found text that is not of its shape.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self, text: &[u8], shape: &Shape) {
        let (start, depth, style) = (self.out.len(), self.depth, self.style);
        let written = match shape {
            Shape::Bool if text == b"t" => self.verbatim(b"true", true),
            Shape::Bool => self.verbatim(b"false", text == b"f"),
            Shape::Text => None,
            Shape::Int8 if style.int8_as_string => None,
            Shape::Numeric if !style.numeric_as_number => None,
            Shape::Oid if style.as_postgres => None,
            Shape::Int | Shape::Int8 | Shape::Oid => self.verbatim(text, is_integer(text)),
            Shape::Float | Shape::Numeric => self.verbatim(text, skip_number(text) == Some(b"")),
            Shape::Json => return write_json(self.out, text),
            Shape::Bytea if style.as_postgres => None,
            Shape::Bytea => write_bytea(self.out, text),
            Shape::Timestamp | Shape::Timestamptz => {
                write_timestamp(self.out, text, if style.as_postgres { b"+00:00" } else { b"Z" })
            }
            Shape::Array { element, delimiter } => self.array(text, element, *delimiter),
            Shape::Composite(fields) => self.composite(text, fields),
        };
        if written.is_none() {
            self.out.truncate(start);
            write_string(self.out, text);
        }
        self.depth = depth;
    }

    fn verbatim(&mut self, json: &[u8], valid: bool) -> Option<()> {
        valid.then(|| self.out.extend_from_slice(json))
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn array(&mut self, text: &[u8], element: &Shape, delimiter: u8) -> Option<()> {
        // Explicit bounds, as in `[2:3]={1,2}`, have no place in JSON.
        let bounded = text.starts_with(b"[");
        let start = if bounded { text.iter().position(|&byte| byte == b'{')? } else { 0 };
        let mut cursor = Cursor { rest: text.get(start..)?, scratch: Vec::new() };
        self.dimension(&mut cursor, element, delimiter)?;
        cursor.rest.is_empty().then_some(())
    }

    fn dimension(&mut self, cursor: &mut Cursor, element: &Shape, delimiter: u8) -> Option<()> {
        self.deeper()?;
        cursor.rest = cursor.rest.strip_prefix(b"{")?;
        self.out.push(b'[');
        let mut empty = cursor.rest.starts_with(b"}");
        loop {
            cursor.rest = cursor.rest.trim_ascii_start();
            if cursor.rest.starts_with(b"{") {
                self.dimension(cursor, element, delimiter)?;
            } else if !std::mem::take(&mut empty) {
                match cursor.raw_value(delimiter, b'}')?.trim_ascii_end() {
                    [] => return None,
                    raw if raw.eq_ignore_ascii_case(b"null") => self.out.extend(b"null"),
                    raw => self.value(cursor.unquote(raw), element),
                }
            }
            let (&byte, rest) = cursor.rest.split_first()?;
            cursor.rest = rest;
            if byte == b'}' {
                self.out.push(b']');
                self.depth -= 1;
                return Some(());
            }
            self.out.push((byte == delimiter).then_some(b',')?);
        }
    }

    fn composite(&mut self, text: &[u8], fields: &[Field]) -> Option<()> {
        self.deeper()?;
        let mut cursor = Cursor { rest: text.strip_prefix(b"(")?, scratch: Vec::new() };
        self.out.push(b'{');
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                cursor.rest = cursor.rest.strip_prefix(b",")?;
                self.out.push(b',');
            }
            write_string(self.out, field.name.as_bytes());
            self.out.push(b':');
            match cursor.raw_value(b',', b')')? {
                [] => self.out.extend(b"null"),
                raw => self.value(cursor.unquote(raw), &field.shape),
            }
        }
        self.out.push(b'}');
        (cursor.rest == b")").then_some(())
    }
}

/// A position in an array or a record literal.
struct Cursor<'a> {
    rest: &'a [u8],
    /// The unescaped text of one value; unallocated until a value has escapes.
    scratch: Vec<u8>,
}

impl<'a> Cursor<'a> {
    /// The raw text up to an unquoted `delimiter` or `close`.
    fn raw_value(&mut self, delimiter: u8, close: u8) -> Option<&'a [u8]> {
        let (mut at, mut quoted) = (0, false);
        loop {
            match *self.rest.get(at)? {
                b'\\' => at += 1,
                b'"' => quoted = !quoted,
                byte if !quoted && (byte == delimiter || byte == close) => break,
                _ => {}
            }
            at += 1;
        }
        let (raw, rest) = self.rest.split_at_checked(at)?;
        self.rest = rest;
        Some(raw)
    }

    /// Removes quotes, which a record may have around any part of a value, and escapes.
    fn unquote<'b>(&'b mut self, raw: &'b [u8]) -> &'b [u8] {
        let inner = if let [b'"', inner @ .., b'"'] = raw { inner } else { raw };
        if !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
            return inner;
        }
        self.scratch.clear();
        let mut quoted = false;
        let mut bytes = raw.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'\\' => self.scratch.extend(bytes.next()),
                b'"' if quoted && bytes.as_slice().starts_with(b"\"") => {
                    self.scratch.extend(bytes.next());
                }
                b'"' => quoted = !quoted,
                _ => self.scratch.push(byte),
            }
        }
        &self.scratch
    }
}

/// Appends a JSON string (RFC 8259, section 7) with quotes; invalid UTF-8 becomes U+FFFD.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if std::str::from_utf8(text).is_ok() {
        write_escaped(out, text);
    } else {
        for chunk in text.utf8_chunks() {
            write_escaped(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some((run, tail)) = text.split_at_checked(plain_prefix(text)) {
        out.extend_from_slice(run);
        let Some((&byte, tail)) = tail.split_first() else { return };
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            _ => out.extend([b'\\', b'u', b'0', b'0', hex_digit(byte >> 4), hex_digit(byte & 15)]),
        }
        text = tail;
    }
}

/// The length of the run that needs no escape. The fold over fixed chunks has no early exit, so
/// that the compiler turns it into vector instructions.
fn plain_prefix(text: &[u8]) -> usize {
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    let (chunks, _) = text.as_chunks::<16>();
    let plain = |chunk: &&[u8; 16]| !chunk.iter().fold(false, |any, &byte| any | special(byte));
    let start = chunks.iter().take_while(plain).count() * 16;
    let tail = text.get(start..).unwrap_or_default();
    start + tail.iter().position(|&byte| special(byte)).unwrap_or(tail.len())
}

fn skip_digits(text: &[u8]) -> Option<&[u8]> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count > 0 { text.get(count..) } else { None }
}

fn is_integer(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') && skip_number(text) == Some(b"")
}

/// The text after a JSON number, which has no leading zeros (RFC 8259, section 6).
fn skip_number(text: &[u8]) -> Option<&[u8]> {
    let mut rest = match text.strip_prefix(b"-").unwrap_or(text) {
        [b'0', tail @ ..] => tail,
        digits => skip_digits(digits)?,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = skip_digits(fraction)?;
    }
    match rest {
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => skip_digits(digits),
        _ => Some(rest),
    }
}

/// Line breaks are only whitespace in valid JSON, and one inside a document would end the record
/// early in newline-delimited output.
fn write_json(out: &mut Vec<u8>, text: &[u8]) {
    let start = out.len();
    match std::str::from_utf8(text) {
        Ok("") => out.extend_from_slice(b"null"),
        Ok(text) => out.extend_from_slice(text.as_bytes()),
        Err(_) => out.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
    }
    for byte in out.iter_mut().skip(start) {
        *byte = if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    }
}

/// The hex format of <https://www.postgresql.org/docs/current/datatype-binary.html>.
fn write_bytea(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (pairs, []) = text.strip_prefix(b"\\x")?.as_chunks::<2>() else { return None };
    out.reserve(pairs.len().div_ceil(3) * 4 + 2);
    out.push(b'"');
    // A multiple of 3 bytes, so that base64 pads only the last chunk.
    let mut buffer = [0; 768];
    for chunk in pairs.chunks(buffer.len()) {
        let mut seen = 0;
        for (slot, &[high, low]) in buffer.iter_mut().zip(chunk) {
            let (high, low) = (nibble(high), nibble(low));
            seen |= high | low;
            *slot = high << 4 | low;
        }
        if seen > 15 {
            return None;
        }
        let start = out.len();
        out.resize(start + chunk.len().div_ceil(3) * 4, 0);
        BASE64.encode_slice(buffer.get(..chunk.len())?, out.get_mut(start..)?).ok()?;
    }
    out.push(b'"');
    Some(())
}

/// Appends the bytes of a `bytea` in the hex format; `None` = it is not in that format.
pub fn write_bytes(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (pairs, []) = text.strip_prefix(b"\\x")?.as_chunks::<2>() else { return None };
    let mut seen = 0;
    out.extend(pairs.iter().map(|&[high, low]| {
        let (high, low) = (nibble(high), nibble(low));
        seen |= high | low;
        high << 4 | low
    }));
    (seen <= 15).then_some(())
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).map_or(0xff, |value| value as u8)
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) }
}

/// The ISO style of `timestamp` and, with an offset, `timestamptz`,
/// <https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-OUTPUT>.
/// Years before Christ and the infinities are left alone, as RFC 3339 has no form for them.
fn write_timestamp(out: &mut Vec<u8>, text: &[u8], utc: &[u8]) -> Option<()> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    let (date, time) = (text.get(..space)?, text.get(space + 1..)?);
    let clean = |text: &[u8], marks: &[u8]| {
        text.iter().all(|byte| byte.is_ascii_digit() || marks.contains(byte))
    };
    (clean(date, b"-") && clean(time, b":.+-")).then_some(())?;
    let sign = time.iter().position(|byte| matches!(byte, b'+' | b'-')).unwrap_or(time.len());
    let (time, offset) = time.split_at_checked(sign)?;
    let (offset, minutes): (&[u8], &[u8]) = match offset {
        b"+00" => (utc, b""),
        [_, _, _] => (offset, b":00"),
        _ => (offset, b""),
    };
    for part in [b"\"", date, b"T", time, offset, minutes, b"\""] {
        out.extend_from_slice(part);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const PLAIN: Style = Style {
        int8_as_string: false,
        numeric_as_number: false,
        as_postgres: false,
        without_nulls: false,
    };
    const FLIPPED: Style = Style { int8_as_string: true, numeric_as_number: true, ..PLAIN };

    /// Cases `text => json` by shape; a case that is only text becomes a JSON string.
    const VALUES: &str = r#"
bool: t => true | f => false | x | =>""
int: 0 => 0 | -42 => -42 | 007 | 1.5 | - | +1 | 1x
int8: 9223372036854775807 => 9223372036854775807 | 1e5
float: 1e+20 => 1e+20 | 0.1 => 0.1 | -0 => -0 | 2E5 => 2E5 | 1e-7 => 1e-7 | NaN | Infinity
float: -Infinity | 1. | .5 | 1e | 1e+ | 01 | 1.5x
numeric: 1.50 | NaN | Infinity
json: {"a": [1]} => {"a": [1]} | =>null | "t" => "t"
text: =>"" | a"b\c => "a\"b\\c" | é→😀 | NULL | {}
bytea: \x => "" | \x00ff => "AP8=" | \xDEADbeef => "3q2+7w==" | \x0 | \x0g | \001a | x00
timestamp: 2024-01-02 03:04:05.123 => "2024-01-02T03:04:05.123" | infinity | x 1 | 2024-01-02
timestamp: 294276-12-31 23:59:59 => "294276-12-31T23:59:59" | 0044-03-15 00:00:00 BC | -infinity
timestamptz: 2024-01-02 03:04:05.1+00 => "2024-01-02T03:04:05.1Z" | 0044-03-15 00:00:00+00 BC
timestamptz: 2024-01-02 03:04:05+02 => "2024-01-02T03:04:05+02:00" | infinity
timestamptz: 1800-01-02 03:04:05-05:30:15 => "1800-01-02T03:04:05-05:30:15"
int[]: {} => [] | {1,2,NULL,null} => [1,2,null,null] | {{1,2},{3,4}} => [[1,2],[3,4]]
int[]: { 1 , 2 } => [1,2] | [2:3]={1,2} => [1,2] | [0:0][-1:0]={{1,2}} => [[1,2]] | {1,x} => [1,"x"]
int[]: { | {1 | {1, | {1,} | {,1} | {1}} | {1} 2 | 1 | =>"" | [1:2] | {1{2}} | {{1}2} | {"1 | {"1\
text[]: {"a,b","c\"d","\\","",é,"NULL",x y,"{}"} => ["a,b","c\"d","\\","","é","NULL","x y","{}"]
bool[]: {t,f} => [true,false] | {{t},{NULL}} => [[true],[null]]
json[]: {"{\"a\": 1}",2} => [{"a": 1},2]
int[][]: {"{1,2}","{3}"} => [[1,2],[3]]
box[]: {(1,1),(0,0);(2,2),(1,1)} => ["(1,1),(0,0)","(2,2),(1,1)"]
row: (1,"a b",) => {"n":1,"t\"":"a b","j":null} | (,"x""y",[1]) => {"n":null,"t\"":"x\"y","j":[1]}
row: (1,a" ""b",2) => {"n":1,"t\"":"a \"b","j":2} | (1,x\"y\,,) => {"n":1,"t\"":"x\"y,","j":null}
row: (,"",) => {"n":null,"t\"":"","j":null} | (1,2) | (1,2,3,4) | (1,2,3 | 1,2,3) | () | =>""
row: (1,2,\) | (1,2,"3) | (1,2,3)) | (1,2,3)x
empty: () => {} | (1)
nested[]: {"(\"{1,2}\",\"(1,\"\"a b\"\",)\")"} => [{"a":[1,2],"r":{"n":1,"t\"":"a b","j":null}}]
"#;

    /// Cases `json => text` by shape; an error is its message after `! `.
    const PARAMS: &str = r#"
json: "a" => "a" | {"a":"\u0000"} => {"a":"\u0000"} | 1 => 1 | null => SQL NULL
text: true => true | 1.50e3 => 1.50e3 | "a\t\u00e9" => a	é | ""=> | null => SQL NULL
text: {"a": 1} => {"a": 1} | [1, 2] => [1, 2] | "\ud800" => ! expected valid JSON and Unicode
text: "\u0000" => ! a string must not contain the character U+0000
bytea: "AP8=" => \x00ff | "AP8" => \x00ff | "" => \x | "*" => ! expected base64 for bytea
text[]: [] => {} | [1, "a", null, "NULL", ""] => {1,a,NULL,"NULL",""} | null => SQL NULL
text[]: ["a,b", "c\"d", "\\", "{", "x y"] => {"a,b","c\"d","\\","{","x y"} | "{1,2}" => {1,2}
text[]: [["a", true], [null]] => {{a,true},{NULL}} | [{"a":1}] => {"{\"a\":1}"}
text[]: 5 => ! expected an array | {} => ! expected an array
bytea[]: ["AP8="] => {"\\x00ff"}
json[]: [[1], "a", null] => {"[1]","\"a\"",NULL}
int[][]: [[1,2],[3]] => {"{1,2}","{3}"}
box[]: ["(1,1),(0,0)", "(2,2),(1,1)"] => {"(1,1),(0,0)";"(2,2),(1,1)"}
row: {"t\"": "a \"b", "n": 1} => (1,"a \"b",) | "(1,,)" => (1,,) | null => SQL NULL
row: [null, "", {"k": 1}] => (,"","{\"k\": 1}") | {"x": 1} => ! the composite type has no field "x"
row: [1] => ! expected 3 values, found 1 | 1 => ! expected an object
row[]: [[1,null,null],{"n":2}] => {"(1,,)","(2,,)"}
"#;

    fn shape(name: &str) -> Shape {
        if let Some(element) = name.strip_suffix("[]") {
            let delimiter = if element == "box" { b';' } else { b',' };
            return Shape::Array { element: Arc::new(shape(element)), delimiter };
        }
        use Shape::{Bool, Bytea, Float, Int, Int8, Json, Numeric, Text, Timestamp, Timestamptz};
        let named = |shape: &Shape| format!("{shape:?}").eq_ignore_ascii_case(name);
        let scalars = [Bool, Int, Int8, Float, Numeric, Json, Bytea, Timestamp, Timestamptz];
        let fields: &[(&str, &str)] = match name {
            "row" => &[("n", "int"), ("t\"", "text"), ("j", "json")],
            "nested" => &[("a", "int[]"), ("r", "row")],
            "flat" => &[("n", "int"), ("a", "text[]")],
            "empty" => &[],
            _ => return scalars.into_iter().find(named).unwrap_or(Text),
        };
        let field = |&(name, of): &(&str, &str)| Field { name: name.into(), shape: shape(of) };
        Shape::Composite(fields.iter().map(field).collect())
    }

    fn cases(table: &str) -> impl Iterator<Item = (Shape, &str)> {
        let lines = table.lines().filter_map(|line| line.split_once(": "));
        lines.flat_map(|(name, cases)| cases.split(" | ").map(|case| (shape(name), case)))
    }

    fn written(text: &[u8], shape: &Shape, style: Style) -> String {
        let mut out = b"#".to_vec();
        write_value(&mut out, text, shape, style);
        String::from_utf8(out).unwrap().split_off(1)
    }

    fn check(shape: &Shape, text: &str, expected: &str) {
        assert_eq!(written(text.as_bytes(), shape, PLAIN), expected, "{shape:?} {text:?}");
    }

    fn param_text(shape: &Shape, json: &str) -> String {
        let mut out = b"#".to_vec();
        let result = write_param(&mut out, json, shape);
        let text = String::from_utf8(out).unwrap().split_off(1);
        assert!(result == Ok(true) || text.is_empty(), "{json}");
        result.map_or_else(|e| format!("! {e}"), |some| if some { text } else { "SQL NULL".into() })
    }

    #[test]
    fn values_become_json() {
        for (shape, case) in cases(VALUES) {
            match case.split_once("=>") {
                Some((text, expected)) => check(&shape, text.trim(), expected.trim()),
                None => check(&shape, case, &serde_json::to_string(case).unwrap()),
            }
        }
        let flipped = |text: &str, name| written(text.as_bytes(), &shape(name), FLIPPED);
        assert_eq!(flipped("{1,NULL}", "int8[]"), r#"["1",null]"#);
        assert_eq!(flipped("{1.50,NaN}", "numeric[]"), r#"[1.50,"NaN"]"#);
    }

    #[test]
    fn params_become_text() {
        for (shape, case) in cases(PARAMS) {
            let (json, expected) = case.split_once("=>").unwrap();
            assert_eq!(param_text(&shape, json), expected.trim(), "{shape:?} {case}");
        }
    }

    #[test]
    fn long_and_invalid_bytes_stay_strings() {
        let controls = "\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}";
        check(&Shape::Text, controls, "\"\\n\\r\\t\\u0008\\u000c\\u0001\\u001f\u{7f}\"");
        check(&Shape::Json, "[1,\r\n2]", "[1,  2]");
        for length in 0..70 {
            let text = "x".repeat(length) + "\"" + &"y".repeat(length) + "\n";
            check(&Shape::Text, &text, &serde_json::to_string(&text).unwrap());
        }
        assert_eq!(written(b"a\xc3(\xe2\x82\n", &Shape::Text, PLAIN), "\"a\u{fffd}(\u{fffd}\\n\"");
        assert_eq!(written(b"[\"\xff\"]", &Shape::Json, PLAIN), "[\"\u{fffd}\"]");
        for length in [767, 768, 769, 3000] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            let json = format!("\"{}\"", BASE64.encode(&bytes));
            check(&Shape::Bytea, &param_text(&Shape::Bytea, &json), &json);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nest = |open: &str, close: &str, levels| open.repeat(levels) + &close.repeat(levels);
        let ints = shape("int[]");
        check(&ints, &nest("{", "}", 32), &nest("[", "]", 32));
        assert_eq!(param_text(&ints, &nest("[", "]", 32)), nest("{", "}", 32));
        let too_deep = "! nested deeper than 32 levels";
        for levels in [33, 100_000] {
            check(&ints, &nest("{", "}", levels), &format!("{:?}", nest("{", "}", levels)));
            assert_eq!(param_text(&ints, &nest("[", "]", levels)), too_deep);
        }
        let field = |shape| Field { name: "a".into(), shape };
        let deep = (0..40).fold(Shape::Int, |shape, _| Shape::Composite([field(shape)].into()));
        assert_eq!(param_text(&deep, &nest("[", "]", 40)), too_deep);
    }

    #[test]
    fn random_bytes_give_valid_json() {
        const ALPHABET: &[u8] = b"{}\",\\()NULLtf0123456789-+.:eE x\xff\n";
        let names =
            "bool int int8 float numeric text bytea timestamp timestamptz box[] int[][] flat[]";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        // Random bytes alone seldom get past the first byte of a literal.
        let frames: [(&[u8], &[u8]); 4] = [(b"", b""), (b"{", b"}"), (b"(", b")"), (b"\\x", b"")];
        let shapes: Vec<Shape> = names.split_whitespace().map(shape).collect();
        for (open, close) in frames.into_iter().cycle().take(20_000) {
            let body: Vec<u8> = (0..random(24)).map(|_| ALPHABET[random(ALPHABET.len())]).collect();
            let text = [open, &body, close].concat();
            for (shape, style) in shapes.iter().flat_map(|of| [(of, PLAIN), (of, FLIPPED)]) {
                let json = written(&text, shape, style);
                let valid = serde_json::from_str::<&RawValue>(&json).is_ok();
                assert!(valid && !json.contains('\n'), "{shape:?} {text:?} {json}");
                let _ = write_param(&mut Vec::new(), &String::from_utf8_lossy(&text), shape);
            }
        }
    }
}
