//! A value that still lies in the frame it came in.

use crate::protocol::value::Value;
use crate::protocol::wire::{Reader, Violation, Wire};

/// A value of a row, borrowed from what was received; variants are those of [`Value`]. Only values
/// that contain others are made into objects.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ValueRef<'a> {
    /// NULL of any type.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int2`.
    Int2(i16),
    /// `int4`.
    Int4(i32),
    /// `int8`.
    Int8(i64),
    /// `float4`.
    Float4(f32),
    /// `float8`.
    Float8(f64),
    /// `numeric` in decimal.
    Numeric(&'a str),
    /// `text` and its relatives; the label of an enum.
    Text(&'a str),
    /// `bytea`.
    Bytea(&'a [u8]),
    /// `date`: days since 2000-01-01.
    Date(i32),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// `timetz`.
    TimeTz {
        /// Microseconds since midnight.
        micros: i64,
        /// Seconds east of UTC.
        offset_secs: i32,
    },
    /// `timestamp`: microseconds since 2000-01-01.
    Timestamp(i64),
    /// `timestamptz`: microseconds since 2000-01-01 UTC.
    TimestampTz(i64),
    /// `interval`.
    Interval {
        /// Months.
        months: i32,
        /// Days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
    /// `uuid`.
    Uuid([u8; 16]),
    /// `json`.
    Json(&'a str),
    /// `jsonb`.
    Jsonb(&'a str),
    /// `inet`.
    Inet(&'a str),
    /// `cidr`.
    Cidr(&'a str),
    /// `macaddr`, `macaddr8`.
    MacAddr(&'a [u8]),
    /// `bit`, `varbit`.
    Bit {
        /// How many bits there are.
        len: u32,
        /// The bits, most significant first.
        bytes: &'a [u8],
    },
    /// `oid` and the like.
    Oid(u32),
    /// `money`.
    Money(i64),
    /// A value of another type.
    Other {
        /// The type.
        type_oid: u32,
        /// Whether `bytes` are the binary form.
        binary: bool,
        /// The text form, or the binary one.
        bytes: &'a [u8],
    },
    /// An array, a range, a multirange or a composite.
    Nested(Box<Value>),
}

/// Numbers of the variants that contain other values.
const NESTED: std::ops::RangeInclusive<u32> = 25..=28;

impl<'a> ValueRef<'a> {
    /// Reads the value that `bytes` begin with.
    ///
    /// # Errors
    /// [`Violation`] if they are no value.
    #[inline(always)]
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Violation> {
        let input = &mut Reader::new(bytes);
        Ok(match input.variant()? {
            0 => Self::Null,
            1 => Self::Bool(Wire::decode(input)?),
            3 => Self::Int4(Wire::decode(input)?),
            4 => Self::Int8(Wire::decode(input)?),
            6 => Self::Float8(Wire::decode(input)?),
            8 => Self::Text(input.text()?),
            14 => Self::TimestampTz(Wire::decode(input)?),
            variant => return Self::read_rarer(variant, input, bytes),
        })
    }

    /// Those that [`ValueRef::read`] does not have in line, where the type that is wanted is known.
    fn read_rarer(
        variant: u32,
        input: &mut Reader<'a>,
        bytes: &'a [u8],
    ) -> Result<Self, Violation> {
        Ok(match variant {
            2 => Self::Int2(Wire::decode(input)?),
            5 => Self::Float4(Wire::decode(input)?),
            7 => Self::Numeric(input.text()?),
            9 => Self::Bytea(input.counted()?),
            10 => Self::Date(Wire::decode(input)?),
            11 => Self::Time(Wire::decode(input)?),
            12 => Self::TimeTz { micros: Wire::decode(input)?, offset_secs: Wire::decode(input)? },
            13 => Self::Timestamp(Wire::decode(input)?),
            15 => Self::Interval {
                months: Wire::decode(input)?,
                days: Wire::decode(input)?,
                micros: Wire::decode(input)?,
            },
            16 => Self::Uuid(Wire::decode(input)?),
            17 => Self::Json(input.text()?),
            18 => Self::Jsonb(input.text()?),
            19 => Self::Inet(input.text()?),
            20 => Self::Cidr(input.text()?),
            21 => Self::MacAddr(input.counted()?),
            22 => Self::Bit { len: Wire::decode(input)?, bytes: input.counted()? },
            23 => Self::Oid(Wire::decode(input)?),
            24 => Self::Money(Wire::decode(input)?),
            29 => Self::Other {
                type_oid: Wire::decode(input)?,
                binary: Wire::decode(input)?,
                bytes: input.counted()?,
            },
            nested if NESTED.contains(&nested) => {
                Self::Nested(Box::new(Value::decode(&mut Reader::new(bytes))?))
            }
            _ => return Err(Violation::malformed("unknown variant of Value")),
        })
    }

    /// The same value with memory of its own.
    pub fn to_owned(&self) -> Value {
        match self.clone() {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(v),
            Self::Int2(v) => Value::Int2(v),
            Self::Int4(v) => Value::Int4(v),
            Self::Int8(v) => Value::Int8(v),
            Self::Float4(v) => Value::Float4(v),
            Self::Float8(v) => Value::Float8(v),
            Self::Numeric(v) => Value::Numeric(v.into()),
            Self::Text(v) => Value::Text(v.into()),
            Self::Bytea(v) => Value::Bytea(v.into()),
            Self::Date(v) => Value::Date(v),
            Self::Time(v) => Value::Time(v),
            Self::TimeTz { micros, offset_secs } => Value::TimeTz { micros, offset_secs },
            Self::Timestamp(v) => Value::Timestamp(v),
            Self::TimestampTz(v) => Value::TimestampTz(v),
            Self::Interval { months, days, micros } => Value::Interval { months, days, micros },
            Self::Uuid(v) => Value::Uuid(v),
            Self::Json(v) => Value::Json(v.into()),
            Self::Jsonb(v) => Value::Jsonb(v.into()),
            Self::Inet(v) => Value::Inet(v.into()),
            Self::Cidr(v) => Value::Cidr(v.into()),
            Self::MacAddr(v) => Value::MacAddr(v.into()),
            Self::Bit { len, bytes } => Value::Bit { len, bytes: bytes.into() },
            Self::Oid(v) => Value::Oid(v),
            Self::Money(v) => Value::Money(v),
            Self::Other { type_oid, binary, bytes } => {
                Value::Other { type_oid, binary, bytes: bytes.into() }
            }
            Self::Nested(v) => *v,
        }
    }

    /// What kind of value it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool(_) => "bool",
            Self::Int2(_) => "int2",
            Self::Int4(_) => "int4",
            Self::Int8(_) => "int8",
            Self::Float4(_) => "float4",
            Self::Float8(_) => "float8",
            Self::Numeric(_) => "numeric",
            Self::Text(_) => "text",
            Self::Bytea(_) => "bytea",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::TimeTz { .. } => "timetz",
            Self::Timestamp(_) => "timestamp",
            Self::TimestampTz(_) => "timestamptz",
            Self::Interval { .. } => "interval",
            Self::Uuid(_) => "uuid",
            Self::Json(_) => "json",
            Self::Jsonb(_) => "jsonb",
            Self::Inet(_) => "inet",
            Self::Cidr(_) => "cidr",
            Self::MacAddr(_) => "macaddr",
            Self::Bit { .. } => "bit",
            Self::Oid(_) => "oid",
            Self::Money(_) => "money",
            Self::Other { .. } => "another type",
            Self::Nested(value) => match **value {
                Value::Array { .. } => "an array",
                Value::Composite { .. } => "a row type",
                _ => "a range",
            },
        }
    }
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(v) => Self::Bool(*v),
            Value::Int2(v) => Self::Int2(*v),
            Value::Int4(v) => Self::Int4(*v),
            Value::Int8(v) => Self::Int8(*v),
            Value::Float4(v) => Self::Float4(*v),
            Value::Float8(v) => Self::Float8(*v),
            Value::Numeric(v) => Self::Numeric(v),
            Value::Text(v) => Self::Text(v),
            Value::Bytea(v) => Self::Bytea(v),
            Value::Date(v) => Self::Date(*v),
            Value::Time(v) => Self::Time(*v),
            Value::TimeTz { micros, offset_secs } => {
                Self::TimeTz { micros: *micros, offset_secs: *offset_secs }
            }
            Value::Timestamp(v) => Self::Timestamp(*v),
            Value::TimestampTz(v) => Self::TimestampTz(*v),
            Value::Interval { months, days, micros } => {
                Self::Interval { months: *months, days: *days, micros: *micros }
            }
            Value::Uuid(v) => Self::Uuid(*v),
            Value::Json(v) => Self::Json(v),
            Value::Jsonb(v) => Self::Jsonb(v),
            Value::Inet(v) => Self::Inet(v),
            Value::Cidr(v) => Self::Cidr(v),
            Value::MacAddr(v) => Self::MacAddr(v),
            Value::Bit { len, bytes } => Self::Bit { len: *len, bytes },
            Value::Oid(v) => Self::Oid(*v),
            Value::Money(v) => Self::Money(*v),
            Value::Other { type_oid, binary, bytes } => {
                Self::Other { type_oid: *type_oid, binary: *binary, bytes }
            }
            nested => Self::Nested(Box::new(nested.clone())),
        }
    }
}

/// Passes over one value; what is inside of text and bytes is not looked at.
///
/// # Errors
/// [`Violation`] if there is none.
pub(crate) fn skip(input: &mut Reader<'_>) -> Result<(), Violation> {
    match input.variant()? {
        0 => {}
        1 => drop(input.byte()?),
        2 => drop(input.unsigned(2)?),
        3 | 10 | 23 => drop(input.unsigned(4)?),
        4 | 11 | 13 | 14 | 24 => drop(input.unsigned(8)?),
        5 => drop(input.raw(4)?),
        6 => drop(input.raw(8)?),
        7..=9 | 17..=21 => drop(input.counted()?),
        12 => {
            input.unsigned(8)?;
            input.unsigned(4)?;
        }
        15 => {
            input.unsigned(4)?;
            input.unsigned(4)?;
            input.unsigned(8)?;
        }
        16 => drop(input.raw(16)?),
        22 => {
            input.unsigned(4)?;
            input.counted()?;
        }
        29 => {
            input.unsigned(4)?;
            input.byte()?;
            input.counted()?;
        }
        nested if NESTED.contains(&nested) => input.nested(|input| skip_inside(input, nested))?,
        _ => return Err(Violation::malformed("unknown variant of Value")),
    }
    Ok(())
}

fn skip_inside(input: &mut Reader<'_>, variant: u32) -> Result<(), Violation> {
    // The type of the elements, or of the row.
    input.unsigned(4)?;
    match variant {
        25 => {
            for _ in 0..input.count(8)? {
                input.unsigned(4)?;
                input.unsigned(4)?;
            }
            skip_several(input)
        }
        26 => skip_range(input),
        27 => {
            for _ in 0..input.count(1)? {
                skip_range(input)?;
            }
            Ok(())
        }
        _ => skip_several(input),
    }
}

fn skip_several(input: &mut Reader<'_>) -> Result<(), Violation> {
    for _ in 0..input.count(size_of::<Value>())? {
        skip(input)?;
    }
    Ok(())
}

fn skip_range(input: &mut Reader<'_>) -> Result<(), Violation> {
    input.byte()?;
    for _ in 0..2 {
        match input.variant()? {
            0 => {}
            1 | 2 => skip(input)?,
            _ => return Err(Violation::malformed("unknown variant of Bound")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::vector_tests::{bytes, entries, file, name};
    use crate::protocol::{decode, encode};

    #[test]
    fn values_are_read_and_passed_over_as_they_are_decoded() {
        let vectors = file();
        for entry in entries(&vectors, "values") {
            let mut bytes = bytes(entry);
            let value: Value = decode(&bytes).unwrap();
            assert_eq!(ValueRef::read(&bytes).unwrap().to_owned(), value, "{}", name(entry));
            assert_eq!(ValueRef::from(&value).to_owned(), value);
            for end in 0..bytes.len() {
                assert!(skip(&mut Reader::new(&bytes[..end])).is_err(), "{} {end}", name(entry));
                assert!(ValueRef::read(&bytes[..end]).is_err());
            }
            bytes.push(7);
            let mut input = Reader::new(&bytes);
            skip(&mut input).unwrap();
            assert_eq!(input.rest(), [7], "{}", name(entry));
        }
    }

    #[test]
    fn nesting_and_counts_are_bounded() {
        let mut value = Value::Int4(1);
        for _ in 0..40 {
            value = Value::Composite { type_oid: 1, fields: vec![value] };
        }
        let mut bytes = Vec::new();
        encode(&value, &mut bytes);
        assert_eq!(skip(&mut Reader::new(&bytes)).unwrap_err().sqlstate(), "54000");
        assert!(ValueRef::read(&bytes).is_err());
        // A composite of 2^40 fields.
        let forged = [28, 1, 253, 0, 0, 0, 0, 0, 1, 0, 0];
        assert!(skip(&mut Reader::new(&forged)).is_err());
        assert!(ValueRef::read(&[30]).is_err());
    }
}
