//! PostgreSQL → Rust.

use std::time::SystemTime;

use super::borrowed::ValueRef;
use super::calendar::{Date, Interval, Time, TimeTz, Timestamp, TimestampTz};
use super::{MacAddr, Money, Uuid};
use crate::protocol::value::Value;

/// A value is not of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The type of Rust.
    pub wanted: &'static str,
    /// What there is.
    pub found: String,
}

impl Mismatch {
    /// `wanted` was asked for, `found` is there.
    pub fn new(wanted: &'static str, found: &ValueRef<'_>) -> Self {
        Self { wanted, found: found.kind().to_owned() }
    }
}

/// A type of Rust that a value can be read as. Integers are read from smaller ones too, never from
/// larger ones; NULL only as an `Option` or as [`Value`].
pub trait FromValue<'a>: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// [`Mismatch`] if it is of another type.
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch>;
}

macro_rules! from {
    ($($type:ty { $($pattern:pat => $result:expr),* $(,)? })*) => {$(
        impl<'a> FromValue<'a> for $type {
            #[inline]
            fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
                match value {
                    $($pattern => Ok($result),)*
                    other => Err(Mismatch::new(stringify!($type), &other)),
                }
            }
        }
    )*};
}

from! {
    bool { ValueRef::Bool(v) => v }
    i16 { ValueRef::Int2(v) => v }
    i32 { ValueRef::Int4(v) => v, ValueRef::Int2(v) => v.into() }
    i64 {
        ValueRef::Int8(v) => v,
        ValueRef::Int4(v) => v.into(),
        ValueRef::Int2(v) => v.into(),
        ValueRef::Oid(v) => v.into(),
    }
    u32 { ValueRef::Oid(v) => v }
    f32 { ValueRef::Float4(v) => v }
    f64 { ValueRef::Float8(v) => v, ValueRef::Float4(v) => v.into() }
    &'a str {
        ValueRef::Text(v) | ValueRef::Json(v) | ValueRef::Jsonb(v) | ValueRef::Numeric(v)
        | ValueRef::Inet(v) | ValueRef::Cidr(v) => v,
    }
    &'a [u8] { ValueRef::Bytea(v) | ValueRef::MacAddr(v) => v }
    Vec<u8> { ValueRef::Bytea(v) | ValueRef::MacAddr(v) => v.to_vec() }
    Date { ValueRef::Date(v) => Date(v) }
    Time { ValueRef::Time(v) => Time(v) }
    TimeTz { ValueRef::TimeTz { micros, offset_secs } => TimeTz { micros, offset_secs } }
    Timestamp { ValueRef::Timestamp(v) => Timestamp(v) }
    TimestampTz { ValueRef::TimestampTz(v) => TimestampTz(v) }
    Interval {
        ValueRef::Interval { months, days, micros } => Interval { months, days, micros },
    }
    Uuid { ValueRef::Uuid(v) => Uuid(v) }
    Money { ValueRef::Money(v) => Money(v) }
    MacAddr { ValueRef::MacAddr(v) => MacAddr(v.to_vec()) }
}

impl<'a> FromValue<'a> for ValueRef<'a> {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl<'a> FromValue<'a> for Value {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        Ok(value.to_owned())
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        match value {
            ValueRef::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// Text, and every other type in PostgreSQL's text form.
impl<'a> FromValue<'a> for String {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        match value {
            ValueRef::Text(text) => Ok(text.to_owned()),
            ValueRef::Null => Err(Mismatch::new("String", &value)),
            other => Ok(other.to_owned().to_string()),
        }
    }
}

impl<'a> FromValue<'a> for SystemTime {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        let moment = match value {
            ValueRef::TimestampTz(micros) => TimestampTz(micros).to_system_time(),
            _ => None,
        };
        moment.ok_or_else(|| Mismatch::new("SystemTime", &value))
    }
}

/// Arrays of one dimension.
impl<'a, T: for<'x> FromValue<'x>> FromValue<'a> for Vec<T> {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        match &value {
            ValueRef::Nested(nested) => match &**nested {
                Value::Array { dims, values, .. } if dims.len() <= 1 => {
                    values.iter().map(|value| T::from_value(value.into())).collect()
                }
                _ => Err(Mismatch::new("Vec", &value)),
            },
            _ => Err(Mismatch::new("Vec", &value)),
        }
    }
}

#[cfg(feature = "rust_decimal")]
impl<'a> FromValue<'a> for rust_decimal::Decimal {
    fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
        let decimal = match value {
            ValueRef::Numeric(text) => Self::from_str_exact(text).ok(),
            ValueRef::Int2(v) => Some(v.into()),
            ValueRef::Int4(v) => Some(v.into()),
            ValueRef::Int8(v) => Some(v.into()),
            _ => None,
        };
        decimal.ok_or_else(|| Mismatch::new("Decimal", &value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_widen_and_never_narrow() {
        assert_eq!(i64::from_value(ValueRef::Int2(-3)), Ok(-3));
        assert_eq!(i32::from_value(ValueRef::Int2(-3)), Ok(-3));
        assert!(i32::from_value(ValueRef::Int8(1)).is_err());
        assert!(f32::from_value(ValueRef::Float8(1.0)).is_err());
        assert_eq!(f64::from_value(ValueRef::Float4(1.5)), Ok(1.5));
        assert_eq!(i64::from_value(ValueRef::Oid(u32::MAX)), Ok(i64::from(u32::MAX)));
        assert!(i64::from_value(ValueRef::Text("1")).is_err());
    }

    #[test]
    fn null_needs_an_option() {
        assert_eq!(Option::<i32>::from_value(ValueRef::Null), Ok(None));
        assert_eq!(Option::<i32>::from_value(ValueRef::Int4(1)), Ok(Some(1)));
        let refused = i32::from_value(ValueRef::Null).unwrap_err();
        assert_eq!((refused.wanted, refused.found.as_str()), ("i32", "NULL"));
        assert!(String::from_value(ValueRef::Null).is_err());
    }

    #[test]
    fn arrays_become_vectors() {
        let dims = vec![crate::protocol::Dimension { len: 2, lower: 1 }];
        let values = vec![Value::Int4(1), Value::Null];
        let array = Value::Array { element_oid: 23, dims, values };
        assert_eq!(Vec::<Option<i32>>::from_value((&array).into()), Ok(vec![Some(1), None]));
        assert!(Vec::<i32>::from_value((&array).into()).is_err());
        assert_eq!(Vec::<u8>::from_value(ValueRef::Bytea(b"ab")), Ok(b"ab".to_vec()));
    }

    #[cfg(feature = "rust_decimal")]
    #[test]
    fn numeric_can_be_a_decimal() {
        use rust_decimal::Decimal;
        assert_eq!(Decimal::from_value(ValueRef::Numeric("12.50")), Ok(Decimal::new(1250, 2)));
        assert!(Decimal::from_value(ValueRef::Numeric("NaN")).is_err());
    }
}
