//! From a DataRow into a frame: each value is written as the native protocol wants it, straight
//! from the bytes that PostgreSQL sent.

use super::numbers::{write_inet, write_numeric};
use super::text_array;
use super::{MAX_DEPTH, Shape, Types};
use crate::proto::native::Writer;
use crate::proto::{Cursor, Malformed};

// Numbers of the variants of `Value`.
pub(super) const NULL: u32 = 0;
const BOOL: u8 = 1;
const INT2: u8 = 2;
const INT4: u8 = 3;
const INT8: u8 = 4;
const FLOAT4: u8 = 5;
const FLOAT8: u8 = 6;
const NUMERIC: u8 = 7;
const TEXT: u8 = 8;
const BYTEA: u8 = 9;
const DATE: u8 = 10;
const TIME: u8 = 11;
const TIMETZ: u32 = 12;
const TIMESTAMP: u8 = 13;
const TIMESTAMPTZ: u8 = 14;
const INTERVAL: u32 = 15;
const UUID: u8 = 16;
const JSON: u8 = 17;
const JSONB: u8 = 18;
const INET: u8 = 19;
const CIDR: u8 = 20;
const MACADDR: u8 = 21;
const BIT: u32 = 22;
const OID: u32 = 23;
const MONEY: u8 = 24;
pub(super) const ARRAY: u32 = 25;
const RANGE: u32 = 26;
const MULTIRANGE: u32 = 27;
const COMPOSITE: u32 = 28;
pub(super) const OTHER: u32 = 29;

/// How one column of a result comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its type.
    pub oid: u32,
    /// How values of the type travel.
    pub shape: Shape,
    /// Whether PostgreSQL sends it in binary.
    pub binary: bool,
}

/// Writes values; keeps a buffer for those that are put together first.
#[derive(Default)]
pub struct Encoder {
    scratch: String,
}

impl Encoder {
    /// Appends the values of a DataRow with their count.
    ///
    /// # Errors
    /// The row is not what PostgreSQL sends, or has another number of values than there are
    /// columns; `out` may have a part of it.
    pub fn put_row(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        columns: &[Column],
        row: &[u8],
    ) -> Result<(), Malformed> {
        let mut cursor = Cursor(row);
        if usize::from(cursor.i16()? as u16) != columns.len() {
            return Err(Malformed("a row has another number of values than columns"));
        }
        Writer::new(out).unsigned(columns.len() as u64);
        for column in columns {
            let Ok(length) = usize::try_from(cursor.i32()?) else {
                Writer::new(out).variant(NULL);
                continue;
            };
            let raw = cursor.take(length)?;
            let w = &mut Writer::new(out);
            if !column.binary || put_plain(w, column.shape, raw).is_err() {
                self.put(out, types, *column, raw, 0);
            }
        }
        Ok(())
    }

    /// What cannot be read as the type says goes out as it came.
    fn put(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        column: Column,
        raw: &[u8],
        depth: usize,
    ) {
        let start = out.len();
        let written = match (column.binary, column.shape) {
            (true, _) => self.put_binary(out, types, column, raw, depth),
            (false, Shape::Array(element)) => text_array::put(out, element, raw, depth),
            (false, shape) => put_text(out, shape, raw),
        };
        if written.is_err() {
            out.truncate(start);
            let mut w = Writer::new(out);
            w.variant(OTHER);
            w.unsigned(column.oid.into());
            w.byte(u8::from(column.binary));
            w.counted(raw);
        }
    }

    fn put_binary(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        column: Column,
        raw: &[u8],
        depth: usize,
    ) -> Result<(), Malformed> {
        let mut w = Writer::new(out);
        let mut cursor = Cursor(raw);
        match column.shape {
            Shape::Array(element) => return self.put_array(out, types, element, raw, depth),
            Shape::Range(element) => {
                w.variant(RANGE);
                w.unsigned(element.into());
                return self.put_range(out, types, element, raw, depth);
            }
            Shape::Multirange(element) => {
                w.variant(MULTIRANGE);
                w.unsigned(element.into());
                let count = cursor.i32()? as u32;
                w.unsigned(count.into());
                for _ in 0..count {
                    let length = cursor.i32()? as u32 as usize;
                    self.put_range(out, types, element, cursor.take(length)?, depth)?;
                }
                return end(&cursor);
            }
            Shape::Composite => return self.put_composite(out, types, column.oid, raw, depth),
            Shape::Numeric | Shape::Inet | Shape::Cidr => {
                self.scratch.clear();
                let variant = match column.shape {
                    Shape::Numeric => {
                        write_numeric(&mut self.scratch, raw)?;
                        NUMERIC
                    }
                    Shape::Inet => {
                        write_inet(&mut self.scratch, raw, false)?;
                        INET
                    }
                    _ => {
                        write_inet(&mut self.scratch, raw, true)?;
                        CIDR
                    }
                };
                w.tagged_bytes(variant, self.scratch.as_bytes());
            }
            scalar => return put_scalar(&mut w, scalar, raw),
        }
        Ok(())
    }

    /// Header: dimensions, whether there are NULLs, type of the elements; then length and lower
    /// bound of each dimension.
    fn put_array(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        declared: u32,
        raw: &[u8],
        depth: usize,
    ) -> Result<(), Malformed> {
        let mut cursor = Cursor(raw);
        let dimensions = cursor.i32()?;
        let _has_nulls = cursor.i32()?;
        let element = cursor.i32()? as u32;
        let element = if element == 0 { declared } else { element };
        if !(0..=6).contains(&dimensions) || depth >= MAX_DEPTH {
            return Err(Malformed("an array with too many dimensions"));
        }
        let mut w = Writer::new(out);
        w.variant(ARRAY);
        w.unsigned(element.into());
        w.unsigned(dimensions as u64);
        let mut count = u64::from(dimensions > 0);
        for _ in 0..dimensions {
            let length = u32::try_from(cursor.i32()?).map_err(|_| Malformed("negative length"))?;
            let lower = cursor.i32()?;
            w.unsigned(length.into());
            w.signed(lower.into());
            count = count.saturating_mul(length.into());
        }
        w.unsigned(count);
        let column = Column { oid: element, shape: types.shape(element), binary: true };
        for _ in 0..count {
            self.put_nullable(out, types, column, &mut cursor, depth + 1)?;
        }
        end(&cursor)
    }

    fn put_nullable(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        column: Column,
        cursor: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), Malformed> {
        match usize::try_from(cursor.i32()?) {
            Ok(length) => self.put(out, types, column, cursor.take(length)?, depth),
            Err(_) => Writer::new(out).variant(NULL),
        }
        Ok(())
    }

    /// Flags, then the bounds that there are
    /// (`RANGE_EMPTY`, `RANGE_LB_INC`, `RANGE_UB_INC`, `RANGE_LB_INF`, `RANGE_UB_INF`).
    fn put_range(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        element: u32,
        raw: &[u8],
        depth: usize,
    ) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return Err(Malformed("ranges are nested too deep"));
        }
        let mut cursor = Cursor(raw);
        let flags = cursor.u8()?;
        let is_empty = flags & 0x01 != 0;
        out.push(u8::from(is_empty));
        let column = Column { oid: element, shape: types.shape(element), binary: true };
        for (inclusive, infinite) in [(0x02, 0x08), (0x04, 0x10)] {
            if is_empty || flags & infinite != 0 {
                out.push(0);
            } else {
                out.push(if flags & inclusive != 0 { 1 } else { 2 });
                let length = cursor.i32()? as u32 as usize;
                let bound = cursor.take(length)?;
                self.put(out, types, column, bound, depth + 1);
            }
        }
        end(&cursor)
    }

    /// Number of fields, then type and value of each. The row's own type is not among it.
    fn put_composite(
        &mut self,
        out: &mut Vec<u8>,
        types: &impl Types,
        oid: u32,
        raw: &[u8],
        depth: usize,
    ) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return Err(Malformed("rows are nested too deep"));
        }
        let mut cursor = Cursor(raw);
        let count = cursor.i32()? as u32;
        let mut w = Writer::new(out);
        w.variant(COMPOSITE);
        w.unsigned(oid.into());
        w.unsigned(count.into());
        for _ in 0..count {
            let oid = cursor.i32()? as u32;
            let column = Column { oid, shape: types.shape(oid), binary: true };
            self.put_nullable(out, types, column, &mut cursor, depth + 1)?;
        }
        end(&cursor)
    }
}

fn end(cursor: &Cursor<'_>) -> Result<(), Malformed> {
    if cursor.0.is_empty() { Ok(()) } else { Err(Malformed("a value is longer than it says")) }
}

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], Malformed> {
    raw.try_into().map_err(|_| Malformed("a value has another length than its type"))
}

/// The values that are no more than a few numbers or a text.
fn put_scalar(w: &mut Writer<'_>, shape: Shape, raw: &[u8]) -> Result<(), Malformed> {
    put_plain(w, shape, raw).or_else(|_| put_rarer(w, shape, raw))
}

/// The scalars that most results consist of; writes nothing of any other, or of one that is not as
/// its type says.
#[inline]
fn put_plain(w: &mut Writer<'_>, shape: Shape, raw: &[u8]) -> Result<(), Malformed> {
    let mut number = |variant: u8, value: i64| w.tagged(variant, value);
    match shape {
        Shape::Int2 => number(INT2, i16::from_be_bytes(fixed(raw)?).into()),
        Shape::Int4 => number(INT4, i32::from_be_bytes(fixed(raw)?).into()),
        Shape::Int8 => number(INT8, i64::from_be_bytes(fixed(raw)?)),
        Shape::Date => number(DATE, i32::from_be_bytes(fixed(raw)?).into()),
        Shape::Time => number(TIME, i64::from_be_bytes(fixed(raw)?)),
        Shape::Timestamp => number(TIMESTAMP, i64::from_be_bytes(fixed(raw)?)),
        Shape::TimestampTz => number(TIMESTAMPTZ, i64::from_be_bytes(fixed(raw)?)),
        Shape::Money => number(MONEY, i64::from_be_bytes(fixed(raw)?)),
        Shape::Bool => {
            let [value] = fixed(raw)?;
            w.raw(&[BOOL, u8::from(value != 0)]);
        }
        Shape::Float4 => {
            let [a, b, c, d]: [u8; 4] = fixed(raw)?;
            w.raw(&[FLOAT4, d, c, b, a]);
        }
        Shape::Float8 => {
            let [a, b, c, d, e, f, g, h]: [u8; 8] = fixed(raw)?;
            w.raw(&[FLOAT8, h, g, f, e, d, c, b, a]);
        }
        Shape::Text => w.tagged_bytes(TEXT, utf8(raw)?),
        Shape::Json => w.tagged_bytes(JSON, utf8(raw)?),
        Shape::Bytea => w.tagged_bytes(BYTEA, raw),
        _ => return Err(Malformed("not a plain value")),
    }
    Ok(())
}

/// Text is nearly always ASCII, which is found out much faster.
#[inline]
fn utf8(raw: &[u8]) -> Result<&[u8], Malformed> {
    match raw.is_ascii() || std::str::from_utf8(raw).is_ok() {
        true => Ok(raw),
        false => Err(Malformed("text is not UTF-8")),
    }
}

fn put_rarer(w: &mut Writer<'_>, shape: Shape, raw: &[u8]) -> Result<(), Malformed> {
    match shape {
        Shape::Char => put_char(w, fixed(raw)?),
        Shape::Jsonb => match raw.split_first() {
            // The version of the form.
            Some((1, json)) => w.tagged_bytes(JSONB, utf8(json)?),
            _ => return Err(Malformed("unknown version of jsonb")),
        },
        Shape::Uuid => {
            let uuid: [u8; 16] = fixed(raw)?;
            w.byte(UUID);
            w.raw(&uuid);
        }
        Shape::MacAddr if matches!(raw.len(), 6 | 8) => w.tagged_bytes(MACADDR, raw),
        Shape::Oid => {
            let oid = u32::from_be_bytes(fixed(raw)?);
            w.variant(OID);
            w.unsigned(oid.into());
        }
        Shape::TimeTz | Shape::Interval | Shape::Bit => return put_several(w, shape, raw),
        _ => return Err(Malformed("not a scalar, or not one of its type")),
    }
    Ok(())
}

fn put_several(w: &mut Writer<'_>, shape: Shape, raw: &[u8]) -> Result<(), Malformed> {
    let mut cursor = Cursor(raw);
    match shape {
        Shape::TimeTz => {
            let micros = i64::from_be_bytes(fixed(cursor.take(8)?)?);
            // PostgreSQL counts seconds west of UTC.
            let west = cursor.i32()?;
            w.variant(TIMETZ);
            w.signed(micros);
            w.signed(-i64::from(west));
        }
        Shape::Interval => {
            let micros = i64::from_be_bytes(fixed(cursor.take(8)?)?);
            let (days, months) = (cursor.i32()?, cursor.i32()?);
            w.variant(INTERVAL);
            w.signed(months.into());
            w.signed(days.into());
            w.signed(micros);
        }
        _ => {
            let bits = u32::try_from(cursor.i32()?).map_err(|_| Malformed("negative length"))?;
            let bytes = cursor.take(bits.div_ceil(8) as usize)?;
            w.variant(BIT);
            w.unsigned(bits.into());
            w.counted(bytes);
        }
    }
    end(&cursor)
}

/// A byte beyond ASCII is printed in octal, no byte as nothing.
fn put_char(w: &mut Writer<'_>, [byte]: [u8; 1]) {
    match byte {
        0 => w.tagged_bytes(TEXT, b""),
        1..=0x7f => w.tagged_bytes(TEXT, &[byte]),
        _ => w.tagged_bytes(TEXT, format!("\\{byte:03o}").as_bytes()),
    }
}

fn put_text(out: &mut Vec<u8>, shape: Shape, raw: &[u8]) -> Result<(), Malformed> {
    match shape {
        Shape::Text => put_scalar(&mut Writer::new(out), Shape::Text, raw),
        _ => Err(Malformed("a text of another type")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::builtin;
    use super::*;
    use crate::proto::native::{Bound, RangeValue, Value, decode};

    struct Builtin;

    impl Types for Builtin {
        fn shape(&self, oid: u32) -> Shape {
            builtin(oid).unwrap_or(Shape::Other)
        }
    }

    fn value(oid: u32, raw: &[u8]) -> Value {
        let column = Column { oid, shape: Builtin.shape(oid), binary: true };
        let mut row = vec![0, 1];
        row.extend_from_slice(&(raw.len() as u32).to_be_bytes());
        row.extend_from_slice(raw);
        let mut out = Vec::new();
        Encoder::default().put_row(&mut out, &Builtin, &[column], &row).unwrap();
        let mut values: Vec<Value> = decode(&out).unwrap();
        values.pop().unwrap()
    }

    #[test]
    fn scalars() {
        for (oid, raw, expected) in [
            (16, &b"\x01"[..], Value::Bool(true)),
            (21, b"\xff\xff", Value::Int2(-1)),
            (23, b"\0\0\x01\x2c", Value::Int4(300)),
            (18, b"x", Value::Text("x".into())),
            (18, b"\0", Value::Text(String::new())),
            (18, b"\xff", Value::Text("\\377".into())),
            (25, "é".as_bytes(), Value::Text("é".into())),
            (3802, b"\x01[]", Value::Jsonb("[]".into())),
            (829, b"\x08\0\x2b\x01\x02\x03", Value::MacAddr(vec![8, 0, 43, 1, 2, 3])),
            (1560, b"\0\0\0\x03\xa0", Value::Bit { len: 3, bytes: vec![0xa0] }),
            (
                1266,
                b"\0\0\0\0\xd6\x93\xa4\0\xff\xff\xe3\xe0",
                Value::TimeTz { micros: 3_600_000_000, offset_secs: 7200 },
            ),
            (
                1186,
                b"\0\0\0\0\0\x2d\xc6\xc0\0\0\0\x02\0\0\0\x01",
                Value::Interval { months: 1, days: 2, micros: 3_000_000 },
            ),
            (26, b"\xff\xff\xff\xff", Value::Oid(u32::MAX)),
        ] {
            assert_eq!(value(oid, raw), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_goes_out_as_it_came() {
        for (oid, raw) in [
            (23, &b"\x01"[..]),
            (25, b"\xff"),
            (600, b"12"),
            (1007, b"\0\0\0\x01"),
            (1007, b"\0\0\0\x01\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\x01"),
            (3904, b"\x02\0\0\0\x09a"),
        ] {
            let expected = Value::Other { type_oid: oid, binary: true, bytes: raw.to_vec() };
            assert_eq!(value(oid, raw), expected);
        }
    }

    #[test]
    fn ranges() {
        let int = |n: i32| Box::new(Value::Int4(n));
        let range = RangeValue {
            empty: false,
            lower: Bound::Inclusive(int(1)),
            upper: Bound::Exclusive(int(5)),
        };
        let raw = b"\x02\0\0\0\x04\0\0\0\x01\0\0\0\x04\0\0\0\x05";
        assert_eq!(value(3904, raw), Value::Range { element_oid: 23, range: range.clone() });
        let many = [&b"\0\0\0\x01\0\0\0\x11"[..], raw].concat();
        assert_eq!(value(4451, &many), Value::Multirange { element_oid: 23, ranges: vec![range] });
        let empty = Value::Range { element_oid: 23, range: RangeValue::EMPTY };
        assert_eq!(value(3904, b"\x01"), empty);
    }

    #[test]
    fn arrays_and_rows() {
        let raw = b"\0\0\0\x01\0\0\0\x01\0\0\0\x17\0\0\0\x02\0\0\0\x01\
                    \0\0\0\x04\0\0\0\x01\xff\xff\xff\xff";
        let Value::Array { element_oid, dims, values } = value(1007, raw) else { panic!() };
        assert_eq!((element_oid, dims[0].len, dims[0].lower), (23, 2, 1));
        assert_eq!(values, [Value::Int4(1), Value::Null]);
        let empty = value(1007, b"\0\0\0\0\0\0\0\0\0\0\0\x17");
        assert_eq!(empty, Value::Array { element_oid: 23, dims: vec![], values: vec![] });
        let raw = b"\0\0\0\x02\0\0\0\x17\0\0\0\x04\0\0\0\x01\0\0\0\x19\0\0\0\x01a";
        let fields = vec![Value::Int4(1), Value::Text("a".into())];
        assert_eq!(value(2249, raw), Value::Composite { type_oid: 2249, fields });
    }

    #[test]
    fn a_row_must_have_the_values_that_its_columns_say() {
        let mut out = Vec::new();
        let refused = Encoder::default().put_row(&mut out, &Builtin, &[], b"\0\x01\0\0\0\0");
        assert!(refused.is_err());
    }
}
