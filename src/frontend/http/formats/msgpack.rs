//! Rows as MessagePack (<https://github.com/msgpack/msgpack/blob/master/spec.md>): a map for each
//! row, one after the other without anything around them, as stream readers of MessagePack expect
//! it: an array would have to say at its beginning how many rows follow.
//!
//! A value is what it is in JSON, but for `bytea`, which is binary, and float4 and float8, which
//! are floats of that size, NaN and the infinities among them. Within arrays, composite types and
//! JSON it is exactly what it is in JSON.

use std::fmt;

use postgres_types::Type;
use rmp::encode;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Layout;
use crate::error::{Error, Result};
use crate::proto::backend::DataRow;
use crate::proto::json::{self, Shape, Style};
use crate::session::Column;

/// The heads of arrays and maps whose length is a number of four bytes.
const ARRAY: u8 = 0xdd;
const MAP: u8 = 0xdf;

struct OutColumn {
    /// The name as a string of MessagePack; nothing for arrays.
    key: Vec<u8>,
    shape: Shape,
    is_float4: bool,
}

/// Writes the rows of a result.
pub struct Rows {
    columns: Vec<OutColumn>,
    /// What a row begins with.
    head: Vec<u8>,
    style: Style,
    scratch: Vec<u8>,
}

impl Rows {
    /// For rows of these columns.
    pub fn new(columns: &[Column], layout: Layout) -> Self {
        let mut head = Vec::new();
        let count = u32::try_from(columns.len()).unwrap_or(u32::MAX);
        // Writing to a vector does not fail.
        let _ = match layout.rows_as_arrays {
            true => encode::write_array_len(&mut head, count),
            false => encode::write_map_len(&mut head, count),
        };
        let column = |column: &Column| {
            let mut key = Vec::new();
            if !layout.rows_as_arrays {
                string(column.name.as_bytes(), &mut key);
            }
            let is_float4 = column.type_oid == Type::FLOAT4.oid();
            OutColumn { key, shape: column.info.shape.clone(), is_float4 }
        };
        let columns = columns.iter().map(column).collect();
        Self { columns, head, style: layout.style, scratch: Vec::new() }
    }

    /// Writes the body of a DataRow.
    pub fn row(&mut self, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.head);
        let row = DataRow::parse(row).map_err(Error::backend_lost)?;
        for (value, column) in row.zip(&self.columns) {
            out.extend_from_slice(&column.key);
            match value.map_err(Error::backend_lost)? {
                Some(text) => value_of(text, column, self.style, &mut self.scratch, out),
                None => nil(out),
            }
        }
        Ok(())
    }
}

fn value_of(
    text: &[u8],
    column: &OutColumn,
    style: Style,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    let written = match &column.shape {
        Shape::Text => None,
        Shape::Numeric if !style.numeric_as_number => None,
        Shape::Int8 if style.int8_as_string => None,
        Shape::Bool => encode::write_bool(out, text == b"t").ok(),
        Shape::Bytea => {
            scratch.clear();
            json::write_bytes(scratch, text).map(|()| drop(encode::write_bin(out, scratch)))
        }
        Shape::Float if column.is_float4 => {
            number(text).map(|value| drop(encode::write_f32(out, value)))
        }
        Shape::Float => number(text).map(|value| drop(encode::write_f64(out, value))),
        Shape::Oid if style.as_postgres => None,
        Shape::Int | Shape::Int8 | Shape::Oid => {
            number(text).map(|value| drop(encode::write_sint(out, value)))
        }
        Shape::Json => return pack_json(text, out),
        other => {
            scratch.clear();
            json::write_value(scratch, text, other, style);
            return pack_json(scratch, out);
        }
    };
    if written.is_none() {
        string(text, out);
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn nil(out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = encode::write_nil(out);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    let _ = encode::write_str(out, &String::from_utf8_lossy(text));
}

/// Appends a JSON document; one that serde does not read, because it is nested too deep, as the
/// string that it is.
pub fn pack_json(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let done = Pack(out).deserialize(&mut reader).and_then(|()| reader.end());
    if done.is_err() {
        out.truncate(start);
        string(json, out);
    }
}

/// Writes what it is shown, without a value in between.
struct Pack<'a>(&'a mut Vec<u8>);

impl Pack<'_> {
    /// Writes an array or a map whose length is known at its end.
    fn counted<E: serde::de::Error>(
        self,
        head: u8,
        mut next: impl FnMut(&mut Vec<u8>) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        self.0.push(head);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let mut count: u32 = 0;
        while next(self.0)? {
            count = count.checked_add(1).ok_or_else(|| E::custom("too many"))?;
        }
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Pack<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pack<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> std::result::Result<(), E> {
        encode::write_bool(self.0, value).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> std::result::Result<(), E> {
        encode::write_sint(self.0, value).map(drop).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> std::result::Result<(), E> {
        encode::write_uint(self.0, value).map(drop).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<(), E> {
        encode::write_f64(self.0, value).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<(), E> {
        encode::write_str(self.0, value).map_err(E::custom)
    }

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<(), E> {
        encode::write_nil(self.0).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        self.counted(ARRAY, |out| Ok(seq.next_element_seed(Pack(out))?.is_some()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        self.counted(MAP, |out| {
            let some = map.next_key_seed(Pack(out))?.is_some();
            if some {
                map.next_value_seed(Pack(out))?;
            }
            Ok::<_, A::Error>(some)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_the_same_in_messagepack() {
        for text in [
            "null",
            "[true, false, 0, -1, 127, 128, 65536, 18446744073709551615, -9223372036854775808]",
            r#"{"a": {"b\n\u00e9": [1.5, {}, []]}, "of more than thirty-one bytes": "0123456789"}"#,
        ] {
            let mut out = Vec::new();
            pack_json(text.as_bytes(), &mut out);
            let read: serde_json::Value = rmp_serde::from_slice(&out).unwrap();
            assert_eq!(read, serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
    }

    #[test]
    fn what_is_no_json_is_a_string() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        for text in [deep.as_str(), "{\"a\":", "1 2"] {
            let mut out = b"before".to_vec();
            pack_json(text.as_bytes(), &mut out);
            let read: String = rmp_serde::from_slice(&out[6..]).unwrap();
            assert_eq!(read, text);
        }
    }
}
