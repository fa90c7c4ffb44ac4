//! Rows within a row: records as `record_send` writes them, one after the other, become JSON
//! objects. A value is in the binary format where that is the shorter way to JSON, else text.
//!
//! A record is the number of its columns, then for each its type, its length (-1 is NULL) and its
//! bytes: `record_send` in PostgreSQL's `src/backend/utils/adt/rowtypes.c`.

use std::io::Write;

use super::{Shape, Style, write_string, write_value};

/// What the bytes of rows within a row are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// There is one row or none, and it is an object or null; else they are an array.
    pub is_one: bool,
    /// The columns of each row.
    pub members: Vec<Member>,
}

/// A column of such rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `"name":`
    key: Vec<u8>,
    value: Value,
}

/// What the bytes of a value are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `bool`: a byte.
    Bool,
    /// `int2`, `int4` and `int8`: as many bytes, big-endian.
    Int(Shape),
    /// `jsonb`: the version of its format, 1, and text.
    Jsonb,
    /// Text, as the output function of the type writes it.
    Text(Shape),
    /// `bytea` with rows.
    Records(Records),
}

impl Member {
    /// A column of this name.
    pub fn new(name: &str, value: Value) -> Self {
        let mut key = Vec::with_capacity(name.len() + 3);
        write_string(&mut key, name.as_bytes());
        key.push(b':');
        Self { key, value }
    }
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRecords;

impl Records {
    /// Appends the rows in `bytes` (`None` is NULL) as JSON.
    ///
    /// # Errors
    /// There are no such rows in them; `out` has the part of them that was understood.
    pub fn write(
        &self,
        bytes: Option<&[u8]>,
        style: Style,
        out: &mut Vec<u8>,
    ) -> Result<(), NotRecords> {
        let Some(bytes) = bytes else {
            let none: &[u8] = if self.is_one { b"null" } else { b"[]" };
            out.extend_from_slice(none);
            return Ok(());
        };
        let rest = match self.is_one {
            true => self.row(bytes, style, out),
            false => self.rows(bytes, style, out),
        };
        if rest.is_some_and(<[u8]>::is_empty) { Ok(()) } else { Err(NotRecords) }
    }

    fn rows<'b>(&self, mut rest: &'b [u8], style: Style, out: &mut Vec<u8>) -> Option<&'b [u8]> {
        out.push(b'[');
        while !rest.is_empty() {
            if out.last() != Some(&b'[') {
                out.push(b',');
            }
            rest = self.row(rest, style, out)?;
        }
        out.push(b']');
        Some(rest)
    }

    /// Writes the first row, and gives what is behind it.
    fn row<'b>(&self, bytes: &'b [u8], style: Style, out: &mut Vec<u8>) -> Option<&'b [u8]> {
        let (count, mut rest) = number(bytes)?;
        if usize::try_from(count).ok()? != self.members.len() {
            return None;
        }
        out.push(b'{');
        for (at, member) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&member.key);
            let (_type_oid, tail) = number(rest)?;
            let (length, tail) = number(tail)?;
            let (value, tail) = match usize::try_from(length) {
                Ok(length) => tail.split_at_checked(length).map(|(v, tail)| (Some(v), tail))?,
                Err(_) => (None, tail),
            };
            member.value.write(value, style, out)?;
            rest = tail;
        }
        out.push(b'}');
        Some(rest)
    }
}

impl Value {
    fn write(&self, bytes: Option<&[u8]>, style: Style, out: &mut Vec<u8>) -> Option<()> {
        match (self, bytes) {
            (Value::Records(records), bytes) => records.write(bytes, style, out).ok()?,
            (_, None) => out.extend_from_slice(b"null"),
            (Value::Bool, Some(&[byte])) => {
                let text: &[u8] = if byte == 0 { b"false" } else { b"true" };
                out.extend_from_slice(text);
            }
            (Value::Bool, Some(_)) => return None,
            (Value::Int(shape), Some(bytes)) => write_int(integer(bytes)?, shape, style, out),
            (Value::Jsonb, Some(bytes)) => {
                write_value(out, bytes.strip_prefix(&[1])?, &Shape::Json, style);
            }
            (Value::Text(shape), Some(text)) => write_value(out, text, shape, style),
        }
        Some(())
    }
}

fn write_int(value: i64, shape: &Shape, style: Style, out: &mut Vec<u8>) {
    // Longest: -9223372036854775808.
    let mut text = [0; 20];
    let mut left = &mut text[..];
    // A slice that is long enough takes everything.
    let _ = write!(left, "{value}");
    let length = 20 - left.len();
    write_value(out, text.get(..length).unwrap_or_default(), shape, style);
}

fn number(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes(*number), rest))
}

fn integer(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        2 => Some(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        4 => Some(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        8 => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = (values.len() as i32).to_be_bytes().to_vec();
        for value in values {
            bytes.extend(25_i32.to_be_bytes());
            bytes.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            bytes.extend(value.unwrap_or_default());
        }
        bytes
    }

    fn members() -> Vec<Member> {
        let inner =
            Records { is_one: true, members: vec![Member::new("a", Value::Text(Shape::Numeric))] };
        vec![
            Member::new("i", Value::Int(Shape::Int)),
            Member::new("l", Value::Int(Shape::Int8)),
            Member::new("b\"", Value::Bool),
            Member::new("j", Value::Jsonb),
            Member::new("one", Value::Records(inner)),
        ]
    }

    #[test]
    fn rows_are_objects() {
        let inner = record(&[Some(b"1.50")]);
        let full = record(&[
            Some(&(-7_i16).to_be_bytes()),
            Some(&i64::MIN.to_be_bytes()),
            Some(&[1]),
            Some(b"\x01{\"k\": 1}"),
            Some(&inner),
        ]);
        let empty = record(&[Some(&7_i32.to_be_bytes()), None, Some(&[0]), None, None]);
        let many = Records { is_one: false, members: members() };
        let shown = |bytes: Option<&[u8]>, style| {
            let mut out = Vec::new();
            many.write(bytes, style, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let rows = [&full[..], &empty].concat();
        assert_eq!(
            shown(Some(&rows), Style::default()),
            r#"[{"i":-7,"l":-9223372036854775808,"b\"":true,"j":{"k": 1},"one":{"a":"1.50"}},"#
                .to_owned()
                + r#"{"i":7,"l":null,"b\"":false,"j":null,"one":null}]"#,
        );
        let style = Style { int8_as_string: true, numeric_as_number: true, ..Style::default() };
        assert!(shown(Some(&full), style).contains(r#""l":"-9223372036854775808""#));
        assert!(shown(Some(&full), style).contains(r#"{"a":1.50}"#));
        assert_eq!((shown(Some(b""), style), shown(None, style)), ("[]".into(), "[]".into()));
    }

    #[test]
    fn one_row_is_an_object_or_null() {
        let one = Records { is_one: true, members: vec![Member::new("b", Value::Bool)] };
        let write = |bytes: Option<&[u8]>| {
            let mut out = Vec::new();
            one.write(bytes, Style::default(), &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let row = record(&[Some(&[1])]);
        assert_eq!(write(Some(&row)).as_deref(), Ok(r#"{"b":true}"#));
        assert_eq!(write(None).as_deref(), Ok("null"));
        assert_eq!(write(Some(&[&row[..], &row].concat())), Err(NotRecords));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let whole = record(&[
            Some(&[0, 1]),
            Some(&[0; 8]),
            Some(&[1]),
            Some(b"\x01true"),
            Some(&record(&[Some(b"1")])),
        ]);
        let many = Records { is_one: false, members: members() };
        let write = |bytes: &[u8]| many.write(Some(bytes), Style::default(), &mut Vec::new());
        assert_eq!(write(&whole), Ok(()));
        for length in 1..whole.len() {
            assert_eq!(write(&whole[..length]), Err(NotRecords), "{length}");
        }
        for (at, byte) in [(3, 6), (11, 3), (11, 255), (8, 127)] {
            let mut wrong = whole.clone();
            wrong[at] = byte;
            assert_eq!(write(&wrong), Err(NotRecords), "{at}");
        }
    }
}
