//! From a value of the native protocol to a parameter of Bind.
//!
//! A value whose type the statement has for that parameter goes in binary where that is a few
//! bytes; everything else goes as text, which PostgreSQL converts as its own clients' texts.

use super::text::{self, BadValue};
use crate::proto::native::Value;

/// The type that a value has of itself; 0 = PostgreSQL is to find out.
pub fn natural_oid(value: &Value) -> u32 {
    match value {
        Value::Null | Value::Text(_) => 0,
        Value::Bool(_) => 16,
        Value::Int2(_) => 21,
        Value::Int4(_) => 23,
        Value::Int8(_) => 20,
        Value::Float4(_) => 700,
        Value::Float8(_) => 701,
        Value::Numeric(_) => 1700,
        Value::Bytea(_) => 17,
        Value::Date(_) => 1082,
        Value::Time(_) => 1083,
        Value::TimeTz { .. } => 1266,
        Value::Timestamp(_) => 1114,
        Value::TimestampTz(_) => 1184,
        Value::Interval { .. } => 1186,
        Value::Uuid(_) => 2950,
        Value::Json(_) => 114,
        Value::Jsonb(_) => 3802,
        Value::Inet(_) => 869,
        Value::Cidr(_) => 650,
        Value::MacAddr(bytes) if bytes.len() == 8 => 774,
        Value::MacAddr(_) => 829,
        Value::Bit { .. } => 1562,
        Value::Oid(_) => 26,
        Value::Money(_) => 790,
        Value::Array { element_oid, .. } => array_of(*element_oid),
        Value::Range { element_oid, .. } => range_of(*element_oid).0,
        Value::Multirange { element_oid, .. } => range_of(*element_oid).1,
        Value::Composite { type_oid, .. } | Value::Other { type_oid, .. } => match *type_oid {
            // PostgreSQL takes no anonymous row.
            2249 => 0,
            oid => oid,
        },
    }
}

/// The array type over a built-in type.
fn array_of(element: u32) -> u32 {
    match element {
        16 => 1000,
        17 => 1001,
        18 => 1002,
        19 => 1003,
        20 => 1016,
        21 => 1005,
        23 => 1007,
        25 => 1009,
        26 => 1028,
        114 => 199,
        600 => 1017,
        650 => 651,
        700 => 1021,
        701 => 1022,
        774 => 775,
        790 => 791,
        829 => 1040,
        869 => 1041,
        1042 => 1014,
        1043 => 1015,
        1082 => 1182,
        1083 => 1183,
        1114 => 1115,
        1184 => 1185,
        1186 => 1187,
        1266 => 1270,
        1560 => 1561,
        1562 => 1563,
        1700 => 1231,
        2950 => 2951,
        3802 => 3807,
        _ => 0,
    }
}

/// The range and the multirange type over a built-in type.
fn range_of(element: u32) -> (u32, u32) {
    match element {
        20 => (3926, 4536),
        23 => (3904, 4451),
        1082 => (3912, 4535),
        1114 => (3908, 4533),
        1184 => (3910, 4534),
        1700 => (3906, 4532),
        _ => (0, 0),
    }
}

/// Appends a parameter, with its length, as one of type `declared` (0 = not known) and returns its
/// format: 0 text, 1 binary.
///
/// # Errors
/// [`BadValue`] if the value contradicts itself; `out` has a part of it then.
pub fn put(out: &mut Vec<u8>, value: &Value, declared: u32) -> Result<u16, BadValue> {
    if *value == Value::Null {
        out.extend_from_slice(&(-1i32).to_be_bytes());
        return Ok(0);
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let natural = natural_oid(value);
    let is_own = declared == natural || matches!((declared, natural), (1560, 1562));
    let is_binary = match value {
        Value::Other { binary: true, bytes, .. } if declared == natural || declared == 0 => {
            out.extend_from_slice(bytes);
            true
        }
        _ => is_own && put_binary(out, value)?,
    };
    if !is_binary {
        text::put(out, value)?;
    }
    let length = i32::try_from(out.len() - at - 4).map_err(|_| BadValue::malformed("too long"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(u16::from(is_binary))
}

/// Appends a value of a row of COPY's binary form, for a column of type `column`; false = it has
/// no binary form for that type here, and `out` is as it was.
///
/// # Errors
/// [`BadValue`] if the value contradicts itself; `out` has a part of it then.
pub fn put_copy_field(out: &mut Vec<u8>, value: &Value, column: u32) -> Result<bool, BadValue> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let is_written = match (value, column) {
        (Value::Null, _) => {
            out[at..].copy_from_slice(&(-1i32).to_be_bytes());
            return Ok(true);
        }
        (Value::Int2(n), 20 | 21 | 23) => put_integer(out, i64::from(*n), column),
        (Value::Int4(n), 20 | 21 | 23) => put_integer(out, i64::from(*n), column),
        (Value::Int8(n), 20 | 21 | 23) => put_integer(out, *n, column),
        // text, varchar, bpchar, json: their binary form is the text.
        (Value::Text(_), 25 | 114 | 1042 | 1043) | (Value::Json(_), 114) => {
            text::put(out, value)?;
            true
        }
        _ => natural_oid(value) == column && put_binary(out, value)?,
    };
    if !is_written {
        out.truncate(at);
        return Ok(false);
    }
    let length = i32::try_from(out.len() - at - 4).map_err(|_| BadValue::malformed("too long"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(true)
}

/// Appends an integer as one of this type; false = it does not fit.
fn put_integer(out: &mut Vec<u8>, n: i64, oid: u32) -> bool {
    match oid {
        20 => out.extend_from_slice(&n.to_be_bytes()),
        23 => match i32::try_from(n) {
            Ok(n) => out.extend_from_slice(&n.to_be_bytes()),
            Err(_) => return false,
        },
        _ => match i16::try_from(n) {
            Ok(n) => out.extend_from_slice(&n.to_be_bytes()),
            Err(_) => return false,
        },
    }
    true
}

/// Appends the binary form; false = there is none here.
fn put_binary(out: &mut Vec<u8>, value: &Value) -> Result<bool, BadValue> {
    match value {
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Int2(n) => out.extend_from_slice(&n.to_be_bytes()),
        Value::Int4(n) | Value::Date(n) => out.extend_from_slice(&n.to_be_bytes()),
        Value::Int8(n)
        | Value::Time(n)
        | Value::Timestamp(n)
        | Value::TimestampTz(n)
        | Value::Money(n) => out.extend_from_slice(&n.to_be_bytes()),
        Value::Float4(n) => out.extend_from_slice(&n.to_be_bytes()),
        Value::Float8(n) => out.extend_from_slice(&n.to_be_bytes()),
        Value::Bytea(bytes) => out.extend_from_slice(bytes),
        Value::TimeTz { micros, offset_secs } => {
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&offset_secs.wrapping_neg().to_be_bytes());
        }
        Value::Interval { months, days, micros } => {
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&months.to_be_bytes());
        }
        Value::Uuid(bytes) => out.extend_from_slice(bytes),
        Value::MacAddr(bytes) => {
            text::check_mac(bytes)?;
            out.extend_from_slice(bytes);
        }
        Value::Bit { len, bytes } => {
            text::check_bits(*len, bytes)?;
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        Value::Oid(oid) => out.extend_from_slice(&oid.to_be_bytes()),
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(value: &Value, declared: u32) -> (u16, Vec<u8>) {
        let mut out = Vec::new();
        let format = put(&mut out, value, declared).unwrap();
        let length = i32::from_be_bytes(out[..4].try_into().unwrap());
        assert_eq!(length as usize, out.len() - 4);
        (format, out.split_off(4))
    }

    #[test]
    fn a_value_of_the_declared_type_is_binary_and_another_is_text() {
        assert_eq!(parameter(&Value::Int4(300), 23), (1, vec![0, 0, 1, 44]));
        assert_eq!(parameter(&Value::Int4(300), 20), (0, b"300".to_vec()));
        assert_eq!(parameter(&Value::Int4(300), 0), (0, b"300".to_vec()));
        assert_eq!(parameter(&Value::Text("7".into()), 23), (0, b"7".to_vec()));
        assert_eq!(parameter(&Value::Bool(true), 16), (1, vec![1]));
        let point = Value::Other { type_oid: 600, binary: true, bytes: vec![1] };
        assert_eq!(parameter(&point, 600), (1, vec![1]));
        let mut null = Vec::new();
        assert_eq!(put(&mut null, &Value::Null, 23), Ok(0));
        assert_eq!(null, [0xff; 4]);
    }

    #[test]
    fn a_field_of_a_copy_is_what_its_column_takes() {
        let field = |value: &Value, column| {
            let mut out = vec![9];
            put_copy_field(&mut out, value, column).unwrap().then(|| out.split_off(1)).or_else(
                || {
                    assert_eq!(out, [9], "what has no form leaves nothing");
                    None
                },
            )
        };
        assert_eq!(field(&Value::Null, 600), Some(vec![0xff; 4]));
        assert_eq!(field(&Value::Int4(300), 23), Some(vec![0, 0, 0, 4, 0, 0, 1, 44]));
        assert_eq!(field(&Value::Int8(-2), 21), Some(vec![0, 0, 0, 2, 0xff, 0xfe]));
        assert_eq!(field(&Value::Int2(1), 20), Some(vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(field(&Value::Int8(1 << 40), 23), None);
        assert_eq!(field(&Value::Int8(1), 701), None);
        assert_eq!(field(&Value::Text("ab".into()), 1043), Some(b"\0\0\0\x02ab".to_vec()));
        assert_eq!(field(&Value::Text("7".into()), 23), None);
        assert_eq!(field(&Value::Numeric("7".into()), 1700), None);
        assert_eq!(field(&Value::TimestampTz(1), 1114), None);
        assert!(put_copy_field(&mut Vec::new(), &Value::Text("a\0".into()), 25).is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for bad in [
            Value::MacAddr(vec![1, 2, 3]),
            Value::Bit { len: 9, bytes: vec![1] },
            Value::Text("a\0b".into()),
        ] {
            assert!(put(&mut Vec::new(), &bad, natural_oid(&bad)).is_err(), "{bad:?}");
        }
    }
}
