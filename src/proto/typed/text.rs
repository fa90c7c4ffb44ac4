//! Values of the native protocol as texts that PostgreSQL reads, whatever its settings: as
//! parameters, inside arrays and rows, and in the text form of COPY.

use std::io::Write;

use crate::proto::native::{Bound, RangeValue, Value};

const DAY: i64 = 86_400_000_000;

/// Bytes that the escaping of a value within another may add. Each level doubles what the one
/// below it has added, so that a few nested values would become gigabytes.
const MOST_ESCAPES: usize = 16 << 20;

/// A value that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// The SQLSTATE: `22P02` malformed, `22003` out of range, `54000` too long.
    pub sqlstate: &'static [u8; 5],
    /// What is wrong.
    pub text: &'static str,
}

impl BadValue {
    /// A value that is no value of its kind.
    pub const fn malformed(text: &'static str) -> Self {
        Self { sqlstate: b"22P02", text }
    }

    const fn out_of_range(text: &'static str) -> Self {
        Self { sqlstate: b"22003", text }
    }
}

/// Checks the bytes of a MAC address.
///
/// # Errors
/// There are neither 6 nor 8.
pub fn check_mac(bytes: &[u8]) -> Result<(), BadValue> {
    match bytes.len() {
        6 | 8 => Ok(()),
        _ => Err(BadValue::malformed("a MAC address has 6 or 8 bytes")),
    }
}

/// Checks that there are as many bytes as the bits need, the last one padded with zeros.
///
/// # Errors
/// There are not.
pub fn check_bits(len: u32, bytes: &[u8]) -> Result<(), BadValue> {
    let unused = (8 - len % 8) % 8;
    let padding = bytes.last().map_or(0, |last| last & ((1u16 << unused) - 1) as u8);
    match bytes.len() == len.div_ceil(8) as usize && padding == 0 {
        true => Ok(()),
        false => Err(BadValue::malformed("a bit string has other bytes than its length says")),
    }
}

/// Appends the text of a value that is not NULL.
///
/// # Errors
/// [`BadValue`]; `out` has a part of it then.
pub fn put(out: &mut Vec<u8>, value: &Value) -> Result<(), BadValue> {
    // Writing to a vector does not fail.
    match value {
        Value::Null => {}
        Value::Bool(value) => out.push(if *value { b't' } else { b'f' }),
        Value::Int2(n) => drop(write!(out, "{n}")),
        Value::Int4(n) => drop(write!(out, "{n}")),
        Value::Int8(n) => drop(write!(out, "{n}")),
        Value::Oid(n) => drop(write!(out, "{n}")),
        Value::Float4(n) => put_float(out, f64::from(*n), &n.to_string()),
        Value::Float8(n) => put_float(out, *n, &n.to_string()),
        Value::Money(n) => {
            let sign = if *n < 0 { "-" } else { "" };
            let (units, rest) = (n.unsigned_abs() / 100, n.unsigned_abs() % 100);
            drop(write!(out, "{sign}{units}.{rest:02}"));
        }
        Value::Numeric(text)
        | Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Inet(text)
        | Value::Cidr(text) => put_str(out, text.as_bytes())?,
        Value::Bytea(bytes) => {
            out.extend_from_slice(b"\\x");
            put_hex(out, bytes);
        }
        Value::Date(days) => put_date(out, *days)?,
        Value::Time(micros) => put_time(out, *micros)?,
        Value::TimeTz { micros, offset_secs } => {
            put_time(out, *micros)?;
            put_offset(out, *offset_secs);
        }
        Value::Timestamp(micros) => put_timestamp(out, *micros, "")?,
        Value::TimestampTz(micros) => put_timestamp(out, *micros, "+00")?,
        Value::Interval { months, days, micros } => put_interval(out, *months, *days, *micros),
        Value::Uuid(bytes) => put_hex(out, bytes),
        Value::MacAddr(bytes) => {
            check_mac(bytes)?;
            for (at, byte) in bytes.iter().enumerate() {
                drop(write!(out, "{}{byte:02x}", if at == 0 { "" } else { ":" }));
            }
        }
        Value::Bit { len, bytes } => {
            check_bits(*len, bytes)?;
            let bit = |at: u32| bytes[(at / 8) as usize] >> (7 - at % 8) & 1;
            out.extend((0..*len).map(|at| b'0' + bit(at)));
        }
        Value::Array { element_oid, dims, values } => {
            put_array(out, *element_oid, dims, values)?;
        }
        Value::Range { range, .. } => put_range(out, range)?,
        Value::Multirange { ranges, .. } => {
            out.push(b'{');
            for (at, range) in ranges.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                put_range(out, range)?;
            }
            out.push(b'}');
        }
        Value::Composite { fields, .. } => put_composite(out, fields)?,
        Value::Other { binary: true, .. } => {
            let text = "a value in its type's binary form has to be a parameter of that type";
            return Err(BadValue::malformed(text));
        }
        Value::Other { bytes, .. } => put_str(out, bytes)?,
    }
    Ok(())
}

fn put_str(out: &mut Vec<u8>, text: &[u8]) -> Result<(), BadValue> {
    if text.contains(&0) {
        return Err(BadValue { sqlstate: b"22021", text: "a text contains a NUL character" });
    }
    out.extend_from_slice(text);
    Ok(())
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn put_float(out: &mut Vec<u8>, value: f64, shortest: &str) {
    let text = match value {
        _ if value.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => shortest,
    };
    out.extend_from_slice(text.as_bytes());
}

/// Year, month and day of a number of days since 2000-01-01, by the proleptic Gregorian calendar
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 730_425;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Writes year, month and day; returns what belongs at the end.
fn put_day(out: &mut Vec<u8>, days: i64) -> &'static str {
    let (year, month, day) = civil(days);
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    drop(write!(out, "{shown:04}-{month:02}-{day:02}"));
    era
}

fn put_date(out: &mut Vec<u8>, days: i32) -> Result<(), BadValue> {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        // 4714-11-24 BC to 5874897-12-31.
        -2_451_545..=2_145_031_948 => {
            let era = put_day(out, days.into());
            out.extend_from_slice(era.as_bytes());
        }
        _ => return Err(BadValue::out_of_range("date out of range")),
    }
    Ok(())
}

fn put_clock(out: &mut Vec<u8>, micros: i64) {
    let seconds = micros / 1_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    drop(write!(out, "{hours:02}:{minutes:02}:{:02}", seconds % 60));
    if micros % 1_000_000 != 0 {
        drop(write!(out, ".{:06}", micros % 1_000_000));
    }
}

fn put_time(out: &mut Vec<u8>, micros: i64) -> Result<(), BadValue> {
    if !(0..=DAY).contains(&micros) {
        return Err(BadValue::out_of_range("time out of range"));
    }
    put_clock(out, micros);
    Ok(())
}

fn put_offset(out: &mut Vec<u8>, seconds: i32) {
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.unsigned_abs();
    drop(write!(out, "{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
}

fn put_timestamp(out: &mut Vec<u8>, micros: i64, zone: &str) -> Result<(), BadValue> {
    match micros {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        // From 4714-11-24 BC on, to the end of 294276.
        -211_813_488_000_000_000..9_223_371_331_200_000_000 => {
            let era = put_day(out, micros.div_euclid(DAY));
            out.push(b' ');
            put_clock(out, micros.rem_euclid(DAY));
            drop(write!(out, "{zone}{era}"));
        }
        _ => return Err(BadValue::out_of_range("timestamp out of range")),
    }
    Ok(())
}

/// Every part has its own sign, so that no setting gives the sign of the first to the others.
fn put_interval(out: &mut Vec<u8>, months: i32, days: i32, micros: i64) {
    match (months, days, micros) {
        (i32::MAX, i32::MAX, i64::MAX) => out.extend_from_slice(b"infinity"),
        (i32::MIN, i32::MIN, i64::MIN) => out.extend_from_slice(b"-infinity"),
        _ => {
            let sign = if micros < 0 { '-' } else { '+' };
            let clock = micros.unsigned_abs();
            let (seconds, rest) = (clock / 1_000_000, clock % 1_000_000);
            drop(write!(out, "{months:+} mons {days:+} days {sign}{seconds}.{rest:06} secs"));
        }
    }
}

/// Appends what `put` writes in double quotes.
fn put_quoted(
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), BadValue>,
) -> Result<(), BadValue> {
    out.push(b'"');
    let start = out.len();
    put(out)?;
    let special = |byte: &&u8| matches!(byte, b'"' | b'\\');
    let escapes = out[start..].iter().filter(special).count();
    if escapes > MOST_ESCAPES {
        let text = "values within each other become too long as text";
        return Err(BadValue { sqlstate: b"54000", text });
    }
    if escapes > 0 {
        let plain = out.split_off(start);
        for byte in plain {
            if special(&&byte) {
                out.push(b'\\');
            }
            out.push(byte);
        }
    }
    out.push(b'"');
    Ok(())
}

fn put_array(
    out: &mut Vec<u8>,
    element: u32,
    dims: &[crate::proto::native::Dimension],
    values: &[Value],
) -> Result<(), BadValue> {
    let lengths = dims.iter().map(|dim| u64::from(dim.len));
    let count = match dims {
        [] => 0,
        _ => lengths.fold(1u64, u64::saturating_mul),
    };
    if count != values.len() as u64 || dims.len() > 6 {
        return Err(BadValue::malformed("an array has other elements than its dimensions say"));
    }
    if values.is_empty() {
        out.extend_from_slice(b"{}");
        return Ok(());
    }
    if dims.iter().any(|dim| dim.lower != 1) {
        for dim in dims {
            let upper = i64::from(dim.lower) + i64::from(dim.len) - 1;
            drop(write!(out, "[{}:{upper}]", dim.lower));
        }
        out.push(b'=');
    }
    let lengths: Vec<usize> = dims.iter().map(|dim| dim.len as usize).collect();
    // The only built-in type whose elements are not separated by commas.
    let delimiter = if element == 603 { b';' } else { b',' };
    put_level(out, delimiter, &lengths, values)
}

fn put_level(
    out: &mut Vec<u8>,
    delimiter: u8,
    lengths: &[usize],
    values: &[Value],
) -> Result<(), BadValue> {
    let Some((length, inner)) = lengths.split_first() else { return Ok(()) };
    out.push(b'{');
    for (at, part) in values.chunks(values.len() / length).enumerate() {
        if at > 0 {
            out.push(delimiter);
        }
        match part {
            [Value::Null] if inner.is_empty() => out.extend_from_slice(b"NULL"),
            [value] if inner.is_empty() => put_quoted(out, |out| put(out, value))?,
            part => put_level(out, delimiter, inner, part)?,
        }
    }
    out.push(b'}');
    Ok(())
}

fn put_range(out: &mut Vec<u8>, range: &RangeValue) -> Result<(), BadValue> {
    if range.empty {
        out.extend_from_slice(b"empty");
        return Ok(());
    }
    out.push(if matches!(range.lower, Bound::Inclusive(_)) { b'[' } else { b'(' });
    for (bound, end) in [(&range.lower, b','), (&range.upper, b')')] {
        match bound {
            Bound::Unbounded => {}
            Bound::Inclusive(value) | Bound::Exclusive(value) => {
                put_quoted(out, |out| put(out, value))?;
            }
        }
        let is_last = end == b')';
        let closes = is_last && matches!(bound, Bound::Inclusive(_));
        out.push(if closes { b']' } else { end });
    }
    Ok(())
}

fn put_composite(out: &mut Vec<u8>, fields: &[Value]) -> Result<(), BadValue> {
    out.push(b'(');
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if *field != Value::Null {
            put_quoted(out, |out| put(out, field))?;
        }
    }
    out.push(b')');
    Ok(())
}

/// Appends a row in the text form of COPY, with its end.
///
/// # Errors
/// [`BadValue`]; `out` has a part of it then.
pub fn put_copy_row(out: &mut Vec<u8>, row: &[Value]) -> Result<(), BadValue> {
    for (at, value) in row.iter().enumerate() {
        if at > 0 {
            out.push(b'\t');
        }
        if *value == Value::Null {
            out.extend_from_slice(b"\\N");
            continue;
        }
        let start = out.len();
        put(out, value)?;
        if out[start..].iter().any(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
            let plain = out.split_off(start);
            for byte in plain {
                match byte {
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    b'\t' => out.extend_from_slice(b"\\t"),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    byte => out.push(byte),
                }
            }
        }
    }
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::native::Dimension;

    fn text(value: &Value) -> String {
        let mut out = Vec::new();
        put(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_within_each_other_cannot_become_gigabytes() {
        let dims = vec![Dimension { len: 1, lower: 1 }];
        let nested = |value: Value, depth: usize| {
            (0..depth).fold(value, |value, _| Value::Array {
                element_oid: 23,
                dims: dims.clone(),
                values: vec![value],
            })
        };
        let written = |depth| {
            let mut out = Vec::new();
            put(&mut out, &nested(Value::Int4(1), depth)).map(|()| out.len())
        };
        assert!(written(8).is_ok_and(|length| length < 4096));
        assert_eq!(written(32).map_err(|bad| bad.sqlstate), Err(b"54000"));
    }

    #[test]
    fn dates_and_times() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (9497, "2026-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-2_451_545, "4714-11-24 BC"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(text(&Value::Date(days)), expected);
        }
        assert_eq!(text(&Value::Timestamp(-1)), "1999-12-31 23:59:59.999999");
        assert_eq!(text(&Value::TimestampTz(820_540_800_000_000)), "2026-01-01 00:00:00+00");
        assert_eq!(text(&Value::Time(DAY)), "24:00:00");
        let zoned = Value::TimeTz { micros: 3_600_000_000, offset_secs: -5400 };
        assert_eq!(text(&zoned), "01:00:00-01:30:00");
        let interval = Value::Interval { months: -1, days: 2, micros: -3_500_000 };
        assert_eq!(text(&interval), "-1 mons +2 days -3.500000 secs");
        let out = &mut Vec::new();
        assert_eq!(put(out, &Value::Date(i32::MAX - 1)).unwrap_err().sqlstate, b"22003");
        assert!(put(out, &Value::Time(-1)).is_err());
        assert!(put(out, &Value::Timestamp(i64::MAX - 1)).is_err());
    }

    #[test]
    fn numbers() {
        assert_eq!(text(&Value::Float4(0.1)), "0.1");
        assert_eq!(text(&Value::Float8(-2.25)), "-2.25");
        assert_eq!(text(&Value::Float8(f64::NEG_INFINITY)), "-Infinity");
        assert_eq!(text(&Value::Money(-105)), "-1.05");
        assert_eq!(text(&Value::Bit { len: 3, bytes: vec![0xa0] }), "101");
        assert!(put(&mut Vec::new(), &Value::Bit { len: 3, bytes: vec![0xa1] }).is_err());
    }

    #[test]
    fn what_contains_other_values() {
        let array = |dims: &[(u32, i32)], values: Vec<Value>| Value::Array {
            element_oid: 25,
            dims: dims.iter().map(|(len, lower)| Dimension { len: *len, lower: *lower }).collect(),
            values,
        };
        let texts = vec![Value::Text("a\"\\".into()), Value::Null];
        assert_eq!(text(&array(&[(2, 1)], texts.clone())), r#"{"a\"\\",NULL}"#);
        assert_eq!(text(&array(&[(2, 0)], texts.clone())), r#"[0:1]={"a\"\\",NULL}"#);
        assert_eq!(text(&array(&[], vec![])), "{}");
        let four: Vec<Value> = (1..5).map(Value::Int4).collect();
        assert_eq!(text(&array(&[(2, 1), (2, 1)], four)), r#"{{"1","2"},{"3","4"}}"#);
        assert!(put(&mut Vec::new(), &array(&[(3, 1)], texts)).is_err());
        let one = || Box::new(Value::Int4(1));
        let range = RangeValue {
            empty: false,
            lower: Bound::Exclusive(one()),
            upper: Bound::Inclusive(one()),
        };
        let many = Value::Multirange { element_oid: 23, ranges: vec![range, RangeValue::EMPTY] };
        assert_eq!(text(&many), r#"{("1","1"],empty}"#);
        let fields = vec![Value::Null, Value::Text(String::new())];
        assert_eq!(text(&Value::Composite { type_oid: 20_000, fields }), r#"(,"")"#);
    }

    #[test]
    fn rows_of_copy() {
        let mut out = Vec::new();
        put_copy_row(&mut out, &[Value::Null, Value::Text("a\tb\\N\n".into())]).unwrap();
        put_copy_row(&mut out, &[Value::Bytea(vec![0xde])]).unwrap();
        assert_eq!(out, b"\\N\ta\\tb\\\\N\\n\n\\\\xde\n");
    }
}
