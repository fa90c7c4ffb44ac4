//! A value as PostgreSQL writes it with `DateStyle` ISO and `IntervalStyle` postgres.

use std::fmt::{self, Write};

use super::calendar::ymd;
use crate::protocol::value::{Bound, Dimension, RangeValue, Value};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// How values are written.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// Seconds east of UTC at a moment, which is given in microseconds since 2000-01-01 UTC.
    pub offset_at: &'a dyn Fn(i64) -> i32,
}

impl Default for Style<'_> {
    /// In UTC.
    fn default() -> Self {
        Self { offset_at: &|_| 0 }
    }
}

/// A value and how it is written.
pub struct Styled<'a>(pub &'a Value, pub Style<'a>);

impl fmt::Display for Styled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self.0, self.1)
    }
}

/// As PostgreSQL writes it, in UTC; NULL is empty.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self, Style::default())
    }
}

fn write_value(out: &mut dyn Write, value: &Value, style: Style<'_>) -> fmt::Result {
    match value {
        Value::Null => Ok(()),
        Value::Bool(v) => out.write_char(if *v { 't' } else { 'f' }),
        Value::Int2(v) => write!(out, "{v}"),
        Value::Int4(v) => write!(out, "{v}"),
        Value::Int8(v) => write!(out, "{v}"),
        // PostgreSQL goes over to exponents where all digits would no longer be certain.
        Value::Float4(v) => write_float(out, &format!("{v:e}"), 6),
        Value::Float8(v) => write_float(out, &format!("{v:e}"), 15),
        Value::Numeric(v)
        | Value::Text(v)
        | Value::Json(v)
        | Value::Jsonb(v)
        | Value::Inet(v)
        | Value::Cidr(v) => out.write_str(v),
        Value::Bytea(v) => {
            out.write_str("\\x")?;
            write_hex(out, v)
        }
        Value::Date(v) => write_date(out, *v),
        Value::Time(v) => write_time(out, *v),
        Value::TimeTz { micros, offset_secs } => {
            write_time(out, *micros)?;
            write_offset(out, *offset_secs)
        }
        Value::Timestamp(v) => write_timestamp(out, *v, None),
        Value::TimestampTz(v) => write_timestamp(out, *v, Some(style)),
        Value::Interval { months, days, micros } => write_interval(out, *months, *days, *micros),
        Value::Uuid(v) => {
            for (at, byte) in v.iter().enumerate() {
                let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                write!(out, "{dash}{byte:02x}")?;
            }
            Ok(())
        }
        Value::MacAddr(v) => {
            for (at, byte) in v.iter().enumerate() {
                let colon = if at == 0 { "" } else { ":" };
                write!(out, "{colon}{byte:02x}")?;
            }
            Ok(())
        }
        Value::Bit { len, bytes } => {
            let bit =
                |at: u32| bytes.get(at as usize / 8).is_some_and(|b| b << (at % 8) & 128 != 0);
            (0..*len).try_for_each(|at| out.write_char(if bit(at) { '1' } else { '0' }))
        }
        Value::Oid(v) => write!(out, "{v}"),
        Value::Money(v) => write_money(out, *v),
        Value::Array { dims, values, .. } => write_array(out, dims, values, style),
        Value::Range { range, .. } => write_range(out, range, style),
        Value::Multirange { ranges, .. } => {
            out.write_char('{')?;
            for (at, range) in ranges.iter().enumerate() {
                out.write_str(if at == 0 { "" } else { "," })?;
                write_range(out, range, style)?;
            }
            out.write_char('}')
        }
        Value::Composite { fields, .. } => write_composite(out, fields, style),
        Value::Other { binary: false, bytes, .. } => out.write_str(&String::from_utf8_lossy(bytes)),
        Value::Other { bytes, .. } => {
            out.write_str("\\x")?;
            write_hex(out, bytes)
        }
    }
}

fn write_hex(out: &mut dyn Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// `shortest` is the shortest form that gives the same number, as `1.5e3`.
fn write_float(out: &mut dyn Write, shortest: &str, digits: i32) -> fmt::Result {
    let special = match shortest {
        "NaN" => "NaN",
        "inf" => "Infinity",
        "-inf" => "-Infinity",
        _ => "",
    };
    let parts = shortest.split_once('e').and_then(|(m, e)| Some((m, e.parse::<i32>().ok()?)));
    let Some((mantissa, exponent)) = parts else { return out.write_str(special) };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    out.write_str(sign)?;
    if !(-4..digits).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return write!(out, "0.{}{all}", "0".repeat(zeros));
    }
    let before = usize::try_from(exponent + 1).unwrap_or(0);
    match all.split_at_checked(before) {
        None | Some((_, "")) => write!(out, "{all:0<before$}"),
        Some((whole, fraction)) => write!(out, "{whole}.{fraction}"),
    }
}

/// The date without the era; whether it is before Christ.
fn write_day(out: &mut dyn Write, days: i64) -> Result<bool, fmt::Error> {
    let (year, month, day) = ymd(days);
    let shown = if year <= 0 { 1 - year } else { year };
    write!(out, "{shown:04}-{month:02}-{day:02}")?;
    Ok(year <= 0)
}

fn write_date(out: &mut dyn Write, days: i32) -> fmt::Result {
    match days {
        i32::MAX => out.write_str("infinity"),
        i32::MIN => out.write_str("-infinity"),
        _ if write_day(out, days.into())? => out.write_str(" BC"),
        _ => Ok(()),
    }
}

fn write_time(out: &mut dyn Write, micros: i64) -> fmt::Result {
    let seconds = micros.div_euclid(SECOND);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    write!(out, "{hours:02}:{minutes:02}:{:02}", seconds % 60)?;
    write_fraction(out, micros.rem_euclid(SECOND))
}

fn write_fraction(out: &mut dyn Write, micros: i64) -> fmt::Result {
    if micros == 0 {
        return Ok(());
    }
    let digits = format!("{micros:06}");
    write!(out, ".{}", digits.trim_end_matches('0'))
}

fn write_offset(out: &mut dyn Write, seconds: i32) -> fmt::Result {
    let sign = if seconds < 0 { '-' } else { '+' };
    let distance = seconds.unsigned_abs();
    let (hours, minutes, seconds) = (distance / 3600, distance / 60 % 60, distance % 60);
    write!(out, "{sign}{hours:02}")?;
    match (minutes, seconds) {
        (0, 0) => Ok(()),
        (_, 0) => write!(out, ":{minutes:02}"),
        _ => write!(out, ":{minutes:02}:{seconds:02}"),
    }
}

fn write_timestamp(out: &mut dyn Write, micros: i64, zone: Option<Style<'_>>) -> fmt::Result {
    match micros {
        i64::MAX => return out.write_str("infinity"),
        i64::MIN => return out.write_str("-infinity"),
        _ => {}
    }
    let offset = zone.map(|style| (style.offset_at)(micros));
    let local = micros.saturating_add(i64::from(offset.unwrap_or(0)) * SECOND);
    let is_bc = write_day(out, local.div_euclid(DAY))?;
    out.write_char(' ')?;
    write_time(out, local.rem_euclid(DAY))?;
    if let Some(offset) = offset {
        write_offset(out, offset)?;
    }
    out.write_str(if is_bc { " BC" } else { "" })
}

fn write_interval(out: &mut dyn Write, months: i32, days: i32, micros: i64) -> fmt::Result {
    match (months, days, micros) {
        (i32::MAX, i32::MAX, i64::MAX) => return out.write_str("infinity"),
        (i32::MIN, i32::MIN, i64::MIN) => return out.write_str("-infinity"),
        _ => {}
    }
    let mut is_first = true;
    // A plus sign is written where the part before was negative.
    let mut was_negative = false;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count == 0 {
            continue;
        }
        let space = if is_first { "" } else { " " };
        let plus = if was_negative && count > 0 { "+" } else { "" };
        let plural = if count == 1 { "" } else { "s" };
        write!(out, "{space}{plus}{count} {unit}{plural}")?;
        (is_first, was_negative) = (false, count < 0);
    }
    if micros == 0 && !is_first {
        return Ok(());
    }
    let sign = match (micros < 0, was_negative) {
        (true, _) => "-",
        (false, true) => "+",
        (false, false) => "",
    };
    let space = if is_first { "" } else { " " };
    let distance = micros.unsigned_abs();
    let seconds = distance / SECOND.unsigned_abs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    write!(out, "{space}{sign}{hours:02}:{minutes:02}:{:02}", seconds % 60)?;
    write_fraction(out, (distance % SECOND.unsigned_abs()) as i64)
}

/// As with `lc_monetary` C; the currency is the server's secret.
fn write_money(out: &mut dyn Write, cents: i64) -> fmt::Result {
    let digits = (cents.unsigned_abs() / 100).to_string();
    out.write_str(if cents < 0 { "-$" } else { "$" })?;
    for (at, digit) in digits.chars().enumerate() {
        let comma = at != 0 && (digits.len() - at).is_multiple_of(3);
        out.write_str(if comma { "," } else { "" })?;
        out.write_char(digit)?;
    }
    write!(out, ".{:02}", cents.unsigned_abs() % 100)
}

fn write_array(
    out: &mut dyn Write,
    dims: &[Dimension],
    values: &[Value],
    style: Style<'_>,
) -> fmt::Result {
    if dims.iter().any(|dim| dim.lower != 1) {
        for dim in dims {
            let upper = i64::from(dim.lower) + i64::from(dim.len) - 1;
            write!(out, "[{}:{upper}]", dim.lower)?;
        }
        out.write_char('=')?;
    }
    write_dimension(out, dims, values, style)
}

fn write_dimension(
    out: &mut dyn Write,
    dims: &[Dimension],
    values: &[Value],
    style: Style<'_>,
) -> fmt::Result {
    out.write_char('{')?;
    let size = match dims {
        [_, inner @ ..] if !inner.is_empty() => {
            inner.iter().map(|dim| dim.len as usize).product::<usize>().max(1)
        }
        _ => 1,
    };
    for (at, part) in values.chunks(size).enumerate() {
        out.write_str(if at == 0 { "" } else { "," })?;
        match part {
            _ if dims.len() > 1 => write_dimension(out, &dims[1..], part, style)?,
            [Value::Null] => out.write_str("NULL")?,
            [value] => {
                let text = Styled(value, style).to_string();
                let special = |c: char| "{}\",\\".contains(c) || c.is_ascii_whitespace();
                let quoted = text.eq_ignore_ascii_case("null") || needs_quotes(&text, special);
                write_element(out, &text, quoted, '\\')?;
            }
            _ => {}
        }
    }
    out.write_char('}')
}

fn write_range(out: &mut dyn Write, range: &RangeValue, style: Style<'_>) -> fmt::Result {
    if range.empty {
        return out.write_str("empty");
    }
    let mut bound = |bound: &Bound, sides: [&str; 3], first: bool| {
        let (side, value) = match bound {
            Bound::Unbounded => (sides[0], None),
            Bound::Inclusive(value) => (sides[1], Some(value)),
            Bound::Exclusive(value) => (sides[2], Some(value)),
        };
        if first {
            out.write_str(side)?;
        }
        if let Some(value) = value {
            let text = Styled(value, style).to_string();
            let special = |c: char| "()[],\"\\".contains(c) || c.is_ascii_whitespace();
            let quoted = needs_quotes(&text, special);
            write_element(out, &text, quoted, '"')?;
        }
        out.write_str(if first { "," } else { side })
    };
    bound(&range.lower, ["(", "[", "("], true)?;
    bound(&range.upper, [")", "]", ")"], false)
}

fn write_composite(out: &mut dyn Write, fields: &[Value], style: Style<'_>) -> fmt::Result {
    out.write_char('(')?;
    for (at, field) in fields.iter().enumerate() {
        out.write_str(if at == 0 { "" } else { "," })?;
        if *field != Value::Null {
            let text = Styled(field, style).to_string();
            let special = |c: char| "(),\"\\".contains(c) || c.is_ascii_whitespace();
            let quoted = needs_quotes(&text, special);
            write_element(out, &text, quoted, '"')?;
        }
    }
    out.write_char(')')
}

fn needs_quotes(text: &str, special: impl Fn(char) -> bool) -> bool {
    text.is_empty() || text.chars().any(special)
}

/// Quotes and backslashes inside of quotes: both by a backslash (arrays), or each doubled.
fn write_element(out: &mut dyn Write, text: &str, quoted: bool, escape: char) -> fmt::Result {
    if !quoted {
        return out.write_str(text);
    }
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' if escape == '\\' => out.write_char('\\')?,
            '"' | '\\' => out.write_char(c)?,
            _ => {}
        }
        out.write_char(c)?;
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn numbers_look_as_in_postgresql() {
        for (value, expected) in [
            (Value::Float8(0.0), "0"),
            (Value::Float8(-0.0), "-0"),
            (Value::Float8(-2.25), "-2.25"),
            (Value::Float8(0.1), "0.1"),
            (Value::Float8(0.0001), "0.0001"),
            (Value::Float8(0.00001), "1e-05"),
            (Value::Float8(123_456_789_012_345.0), "123456789012345"),
            (Value::Float8(1e15), "1e+15"),
            (Value::Float8(1.5e300), "1.5e+300"),
            (Value::Float8(100.0), "100"),
            (Value::Float8(f64::NAN), "NaN"),
            (Value::Float8(f64::NEG_INFINITY), "-Infinity"),
            (Value::Float4(0.1), "0.1"),
            (Value::Float4(1_000_000.0), "1e+06"),
            (Value::Float4(123_456.0), "123456"),
            (Value::Money(-123_456_789), "-$1,234,567.89"),
            (Value::Money(5), "$0.05"),
            (Value::Bool(true), "t"),
            (Value::Bytea(vec![0xde, 0xad]), "\\xdead"),
            (Value::Bit { len: 3, bytes: vec![0xa0] }, "101"),
            (Value::MacAddr(vec![8, 0, 0x2b, 1, 2, 3]), "08:00:2b:01:02:03"),
        ] {
            assert_eq!(value.to_string(), expected, "{value:?}");
        }
    }

    #[test]
    fn times_look_as_in_postgresql() {
        let interval = |months, days, micros| Value::Interval { months, days, micros };
        for (value, expected) in [
            (Value::Date(0), "2000-01-01"),
            (Value::Date(-730_426), "0001-02-29 BC"),
            (Value::Date(i32::MAX), "infinity"),
            (Value::Date(2_145_031_948), "5874897-12-31"),
            (Value::Time(DAY), "24:00:00"),
            (Value::Time(1_500_000), "00:00:01.5"),
            (Value::TimeTz { micros: 0, offset_secs: -12_600 }, "00:00:00-03:30"),
            (Value::Timestamp(-1), "1999-12-31 23:59:59.999999"),
            (Value::TimestampTz(820_540_800_000_000), "2026-01-01 00:00:00+00"),
            (Value::TimestampTz(i64::MIN), "-infinity"),
            (interval(0, 0, 0), "00:00:00"),
            (interval(1, 2, 3_000_000), "1 mon 2 days 00:00:03"),
            (interval(-14, 3, -1), "-1 years -2 mons +3 days -00:00:00.000001"),
            (interval(0, -1, 1_000_000), "-1 days +00:00:01"),
            (interval(12, 0, 0), "1 year"),
            (interval(0, 0, 400_000 * SECOND), "111:06:40"),
        ] {
            assert_eq!(value.to_string(), expected, "{value:?}");
        }
        let style = Style { offset_at: &|_| 7200 };
        let moment = Value::TimestampTz(820_540_800_000_000);
        assert_eq!(Styled(&moment, style).to_string(), "2026-01-01 02:00:00+02");
    }

    #[test]
    fn what_contains_others_is_quoted_where_it_must_be() {
        let dim = |len, lower| Dimension { len, lower };
        let array = |dims, values| Value::Array { element_oid: 25, dims, values };
        let range = |lower, upper| {
            let range = RangeValue { empty: false, lower, upper };
            Value::Range { element_oid: 1114, range }
        };
        let numbers = || (1..=4).map(Value::Int4).collect();
        let words = ["a b", "", "null", "q\"\\", "{}", "plain"].map(text);
        let mut list = words.to_vec();
        list.push(Value::Null);
        for (value, expected) in [
            (array(vec![], vec![]), "{}"),
            (array(vec![dim(7, 1)], list), r#"{"a b","","null","q\"\\","{}",plain,NULL}"#),
            (array(vec![dim(2, 1), dim(2, 1)], numbers()), "{{1,2},{3,4}}"),
            (array(vec![dim(2, 0), dim(2, 1)], numbers()), "[0:1][1:2]={{1,2},{3,4}}"),
            (
                range(
                    Bound::Inclusive(Value::Timestamp(0).into()),
                    Bound::Exclusive(text("a\"b").into()),
                ),
                r#"["2000-01-01 00:00:00","a""b")"#,
            ),
            (range(Bound::Unbounded, Bound::Inclusive(Value::Int4(5).into())), "(,5]"),
            (Value::Range { element_oid: 23, range: RangeValue::EMPTY }, "empty"),
            (
                Value::Composite {
                    type_oid: 2249,
                    fields: vec![Value::Int4(1), Value::Null, text("a,\"\\b"), text("")],
                },
                r#"(1,,"a,""\\b","")"#,
            ),
        ] {
            assert_eq!(value.to_string(), expected);
        }
    }
}
