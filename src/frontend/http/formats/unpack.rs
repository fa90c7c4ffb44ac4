//! A MessagePack document as JSON, so that bodies in either form are read in one way.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmp::Marker;
use serde_json::to_writer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::proto::json::write_string;

/// The deepest nesting that is followed, as that of serde_json.
const MAX_DEPTH: usize = 128;

/// The extension type of a moment.
const TIMESTAMP: i8 = -1;

/// Why a document cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends too early.
    Short,
    /// Something follows it.
    Trailing,
    /// A string that is not UTF-8.
    Utf8,
    /// A key of a map that is no string.
    Key,
    /// An extension type other than a timestamp, or one that is not well-formed.
    Extension,
    /// The byte that means nothing.
    Reserved,
    /// Nested too deep.
    Deep,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the MessagePack document ends too early",
            Self::Trailing => "something follows the MessagePack document",
            Self::Utf8 => "a string is not UTF-8; send bytes as bin",
            Self::Key => "a key of a map is not a string",
            Self::Extension => "an extension type is not a timestamp",
            Self::Reserved => "the byte 0xc1 has no meaning in MessagePack",
            Self::Deep => "the document is nested too deep",
        })
    }
}

/// Makes JSON of a document: binary becomes base64, a timestamp RFC 3339, NaN and the infinities
/// strings, each as a parameter of a statement wants it.
///
/// # Errors
/// [`Malformed`].
pub fn unpack(document: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(document.len() * 2);
    let mut reader = Reader { rest: document, out: &mut out };
    reader.value(0)?;
    match reader.rest.is_empty() {
        true => Ok(out),
        false => Err(Malformed::Trailing),
    }
}

struct Reader<'a, 'b> {
    rest: &'a [u8],
    out: &'b mut Vec<u8>,
}

impl<'a> Reader<'a, '_> {
    fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        let [first] = self.bytes()?;
        match Marker::from_u8(first) {
            Marker::Null => self.out.extend_from_slice(b"null"),
            Marker::True => self.out.extend_from_slice(b"true"),
            Marker::False => self.out.extend_from_slice(b"false"),
            Marker::FixPos(n) => self.json(&n),
            Marker::FixNeg(n) => self.json(&n),
            Marker::U8 => self.number(u8::from_be_bytes)?,
            Marker::U16 => self.number(u16::from_be_bytes)?,
            Marker::U32 => self.number(u32::from_be_bytes)?,
            Marker::U64 => self.number(u64::from_be_bytes)?,
            Marker::I8 => self.number(i8::from_be_bytes)?,
            Marker::I16 => self.number(i16::from_be_bytes)?,
            Marker::I32 => self.number(i32::from_be_bytes)?,
            Marker::I64 => self.number(i64::from_be_bytes)?,
            Marker::F32 => {
                let value = f32::from_be_bytes(self.bytes()?);
                self.float(value.into(), &value);
            }
            Marker::F64 => {
                let value = f64::from_be_bytes(self.bytes()?);
                self.float(value, &value);
            }
            Marker::Reserved => return Err(Malformed::Reserved),
            marker => self.long(marker, depth)?,
        }
        Ok(())
    }

    /// A value that begins with a length.
    fn long(&mut self, marker: Marker, depth: usize) -> Result<(), Malformed> {
        let length = match marker {
            Marker::FixStr(n) | Marker::FixArray(n) | Marker::FixMap(n) => n.into(),
            Marker::Str8 | Marker::Bin8 | Marker::Ext8 => u8::from_be_bytes(self.bytes()?).into(),
            Marker::Str16 | Marker::Bin16 | Marker::Ext16 | Marker::Array16 | Marker::Map16 => {
                u16::from_be_bytes(self.bytes()?).into()
            }
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            _ => u32::from_be_bytes(self.bytes()?),
        };
        match marker {
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => self.string(length),
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let encoded = BASE64.encode(self.take(length)?);
                self.json(&encoded);
                Ok(())
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                self.array(length, deeper(depth)?)
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => self.map(length, deeper(depth)?),
            _ => self.extension(length),
        }
    }

    fn array(&mut self, length: u32, depth: usize) -> Result<(), Malformed> {
        self.out.push(b'[');
        for at in 0..length {
            if at > 0 {
                self.out.push(b',');
            }
            self.value(depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, length: u32, depth: usize) -> Result<(), Malformed> {
        self.out.push(b'{');
        for at in 0..length {
            if at > 0 {
                self.out.push(b',');
            }
            let [first] = self.bytes()?;
            match Marker::from_u8(first) {
                marker @ (Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32) => {
                    self.long(marker, depth)?;
                }
                _ => return Err(Malformed::Key),
            }
            self.out.push(b':');
            self.value(depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn string(&mut self, length: u32) -> Result<(), Malformed> {
        let text = self.take(length)?;
        std::str::from_utf8(text).map_err(|_| Malformed::Utf8)?;
        write_string(self.out, text);
        Ok(())
    }

    /// A moment in one of its three forms: seconds; nanoseconds and seconds in 30 and 34 bits; the
    /// two in full.
    fn extension(&mut self, length: u32) -> Result<(), Malformed> {
        let [kind] = self.bytes()?;
        if i8::from_be_bytes([kind]) != TIMESTAMP {
            return Err(Malformed::Extension);
        }
        let (seconds, nanos) = match length {
            4 => (u32::from_be_bytes(self.bytes()?).into(), 0),
            8 => {
                let both = u64::from_be_bytes(self.bytes()?);
                ((both & 0x3_ffff_ffff).cast_signed(), both >> 34)
            }
            12 => {
                let nanos = u32::from_be_bytes(self.bytes()?);
                (i64::from_be_bytes(self.bytes()?), nanos.into())
            }
            _ => return Err(Malformed::Extension),
        };
        if nanos > 999_999_999 {
            return Err(Malformed::Extension);
        }
        let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos);
        let text = moment.ok().and_then(|moment| moment.format(&Rfc3339).ok());
        self.json(&text.ok_or(Malformed::Extension)?);
        Ok(())
    }

    fn number<T: serde::Serialize, const N: usize>(
        &mut self,
        read: impl FnOnce([u8; N]) -> T,
    ) -> Result<(), Malformed> {
        let value = read(self.bytes()?);
        self.json(&value);
        Ok(())
    }

    /// `own` is the value in its own size, whose text is shorter.
    fn float(&mut self, value: f64, own: &impl serde::Serialize) {
        match value {
            value if value.is_nan() => self.json(&"NaN"),
            f64::INFINITY => self.json(&"Infinity"),
            f64::NEG_INFINITY => self.json(&"-Infinity"),
            _ => self.json(own),
        }
    }

    fn json(&mut self, value: &impl serde::Serialize) {
        // Numbers and strings into a vector: it does not fail.
        let _ = to_writer(&mut *self.out, value);
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length as usize).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*taken)
    }
}

fn deeper(depth: usize) -> Result<usize, Malformed> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Malformed::Deep) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn documents_of_a_real_writer_are_read() {
        let long = "x".repeat(70_000);
        let many: Vec<u32> = (0..70_000).collect();
        for document in [
            json!(null),
            json!([true, false, 0, 127, 128, 255, 256, 65_536, 4_294_967_296_u64, u64::MAX]),
            json!([-1, -32, -33, -128, -129, -32_769, i64::from(i32::MIN) - 1, i64::MIN]),
            json!([0.5, -1e300, 5e-324]),
            json!({ "sql": "select \"é\n\"", "params": [{}, [], "", long], "many": many }),
        ] {
            let packed = rmp_serde::to_vec(&document).unwrap();
            let unpacked = unpack(&packed).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&unpacked).unwrap(), document);
        }
    }

    #[test]
    fn what_json_does_not_have() {
        for (packed, expected) in [
            (&b"\xc4\x02\x00\xff"[..], "\"AP8=\""),
            (b"\xca\x3f\x8c\xcc\xcd", "1.1"),
            (b"\xca\x7f\xc0\x00\x00", "\"NaN\""),
            (b"\xcb\xff\xf0\0\0\0\0\0\0", "\"-Infinity\""),
            (b"\xd6\xff\0\0\0\x01", "\"1970-01-01T00:00:01Z\""),
            (b"\xd7\xff\x77\x35\x94\x00\0\0\0\x01", "\"1970-01-01T00:00:01.5Z\""),
            (b"\xc7\x0c\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "\"1969-12-31T23:59:59Z\""),
        ] {
            let unpacked = unpack(packed).map(|json| String::from_utf8(json).unwrap());
            assert_eq!(unpacked.as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let deep = b"\x91".repeat(MAX_DEPTH + 1);
        for (packed, expected) in [
            (&b""[..], Malformed::Short),
            (b"\xdd\xff\xff\xff\xff", Malformed::Short),
            (b"\xdb\xff\xff\xff\xff", Malformed::Short),
            (b"\xa2a", Malformed::Short),
            (b"\xc0\xc0", Malformed::Trailing),
            (b"\xa1\xff", Malformed::Utf8),
            (b"\x81\x01\x02", Malformed::Key),
            (b"\xd4\x05\x00", Malformed::Extension),
            (b"\xd4\xff\x00", Malformed::Extension),
            (b"\xd7\xff\xff\xff\xff\xff\0\0\0\0", Malformed::Extension),
            (b"\xc1", Malformed::Reserved),
            (&deep, Malformed::Deep),
        ] {
            assert_eq!(unpack(packed), Err(expected), "{packed:x?}");
        }
    }
}
