//! Rust → PostgreSQL.

use std::time::SystemTime;

use super::calendar::{Date, Interval, Time, TimeTz, Timestamp, TimestampTz};
use super::{MacAddr, Money, Uuid};
use crate::protocol::value::Value;
use crate::protocol::wire::{Wire, Writer};

/// Numbers of the variants of [`Value`] that are written without making one.
#[allow(non_upper_case_globals, missing_docs)]
pub(crate) mod number {
    pub const Null: u32 = 0;
    pub const Numeric: u32 = 7;
    pub const Text: u32 = 8;
    pub const Bytea: u32 = 9;
    pub const Json: u32 = 17;
    pub const Jsonb: u32 = 18;
    pub const Inet: u32 = 19;
    pub const Cidr: u32 = 20;
    pub const MacAddr: u32 = 21;
    pub const Array: u32 = 25;
}

/// A type of Rust that a parameter or a value of a row can be. Text is accepted by the server for
/// every type of PostgreSQL, in that type's text form.
pub trait ToValue {
    /// Appends the value in the form of [`Value`].
    fn write(&self, out: &mut Writer<'_>);
}

/// A type that arrays can be made of.
pub trait Element: ToValue {
    /// The type of PostgreSQL, as in `pg_type.oid`.
    const OID: u32;
}

pub(crate) fn text(out: &mut Writer<'_>, number: u32, text: &str) {
    out.variant(number);
    out.counted(text.as_bytes());
}

macro_rules! to {
    ($($type:ty: $number:literal, $oid:literal, |$value:ident| $($inner:expr),+;)*) => {$(
        impl ToValue for $type {
            fn write(&self, out: &mut Writer<'_>) {
                out.variant($number);
                let $value = self;
                $(Wire::encode(&$inner, out);)+
            }
        }

        impl Element for $type {
            const OID: u32 = $oid;
        }
    )*};
}

to! {
    bool: 1, 16, |v| *v;
    i16: 2, 21, |v| *v;
    i32: 3, 23, |v| *v;
    i64: 4, 20, |v| *v;
    f32: 5, 700, |v| *v;
    f64: 6, 701, |v| *v;
    Date: 10, 1082, |v| v.0;
    Time: 11, 1083, |v| v.0;
    TimeTz: 12, 1266, |v| v.micros, v.offset_secs;
    Timestamp: 13, 1114, |v| v.0;
    TimestampTz: 14, 1184, |v| v.0;
    Interval: 15, 1186, |v| v.months, v.days, v.micros;
    Uuid: 16, 2950, |v| v.0;
    u32: 23, 26, |v| *v;
    Money: 24, 790, |v| v.0;
}

impl ToValue for str {
    fn write(&self, out: &mut Writer<'_>) {
        text(out, number::Text, self);
    }
}

impl ToValue for String {
    fn write(&self, out: &mut Writer<'_>) {
        self.as_str().write(out);
    }
}

impl Element for String {
    const OID: u32 = 25;
}

impl Element for &str {
    const OID: u32 = 25;
}

impl ToValue for [u8] {
    fn write(&self, out: &mut Writer<'_>) {
        out.variant(number::Bytea);
        out.counted(self);
    }
}

impl ToValue for Vec<u8> {
    fn write(&self, out: &mut Writer<'_>) {
        self.as_slice().write(out);
    }
}

impl Element for Vec<u8> {
    const OID: u32 = 17;
}

impl<const N: usize> ToValue for [u8; N] {
    fn write(&self, out: &mut Writer<'_>) {
        self.as_slice().write(out);
    }
}

impl ToValue for MacAddr {
    fn write(&self, out: &mut Writer<'_>) {
        out.variant(number::MacAddr);
        out.counted(&self.0);
    }
}

impl ToValue for Value {
    fn write(&self, out: &mut Writer<'_>) {
        self.encode(out);
    }
}

/// A moment that PostgreSQL cannot tell becomes plus or minus infinity.
impl ToValue for SystemTime {
    fn write(&self, out: &mut Writer<'_>) {
        let infinite = match *self < SystemTime::UNIX_EPOCH {
            true => TimestampTz::NEG_INFINITY,
            false => TimestampTz::INFINITY,
        };
        TimestampTz::from_system_time(*self).unwrap_or(infinite).write(out);
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn write(&self, out: &mut Writer<'_>) {
        T::write(self, out);
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn write(&self, out: &mut Writer<'_>) {
        match self {
            Some(value) => value.write(out),
            None => out.variant(number::Null),
        }
    }
}

impl<T: Element> Element for Option<T> {
    const OID: u32 = T::OID;
}

impl<T: Element> ToValue for [T] {
    fn write(&self, out: &mut Writer<'_>) {
        out.variant(number::Array);
        T::OID.encode(out);
        if self.is_empty() {
            out.unsigned(0);
        } else {
            out.unsigned(1);
            out.unsigned(self.len() as u64);
            out.signed(1);
        }
        out.unsigned(self.len() as u64);
        self.iter().for_each(|element| element.write(out));
    }
}

impl<T: Element> ToValue for Vec<T> {
    fn write(&self, out: &mut Writer<'_>) {
        self.as_slice().write(out);
    }
}

#[cfg(feature = "rust_decimal")]
impl ToValue for rust_decimal::Decimal {
    fn write(&self, out: &mut Writer<'_>) {
        text(out, number::Numeric, &self.to_string());
    }
}

/// Parameters of one statement.
pub type Params<'a> = [&'a (dyn ToValue + Sync)];

pub(crate) fn write_all(values: &Params<'_>, out: &mut Writer<'_>) {
    out.unsigned(values.len() as u64);
    values.iter().for_each(|value| value.write(out));
}

/// A row for a bulk insert: a tuple, or a list of values.
pub trait BulkRow {
    /// Appends the count of values, and the values.
    fn write_row(&self, out: &mut Writer<'_>);
}

impl BulkRow for [&(dyn ToValue + Sync)] {
    fn write_row(&self, out: &mut Writer<'_>) {
        write_all(self, out);
    }
}

impl<T: ToValue> BulkRow for Vec<T> {
    fn write_row(&self, out: &mut Writer<'_>) {
        out.unsigned(self.len() as u64);
        self.iter().for_each(|value| value.write(out));
    }
}

impl<T: ToValue, const N: usize> BulkRow for [T; N] {
    fn write_row(&self, out: &mut Writer<'_>) {
        out.unsigned(N as u64);
        self.iter().for_each(|value| value.write(out));
    }
}

impl<R: BulkRow + ?Sized> BulkRow for &R {
    fn write_row(&self, out: &mut Writer<'_>) {
        R::write_row(self, out);
    }
}

macro_rules! tuples {
    ($($count:literal: $($type:ident)*;)*) => {$(
        impl<$($type: ToValue),*> BulkRow for ($($type,)*) {
            #[allow(non_snake_case)]
            fn write_row(&self, out: &mut Writer<'_>) {
                let ($($type,)*) = self;
                out.unsigned($count);
                $($type.write(out);)*
            }
        }
    )*};
}

tuples! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
    7: A B C D E F G;
    8: A B C D E F G H;
    9: A B C D E F G H I;
    10: A B C D E F G H I J;
    11: A B C D E F G H I J K;
    12: A B C D E F G H I J K L;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Dimension, decode};
    use crate::types::{Inet, Jsonb, Numeric};

    fn written(value: &dyn ToValue) -> Value {
        let mut bytes = Vec::new();
        value.write(&mut Writer::new(&mut bytes));
        decode(&bytes).unwrap()
    }

    #[test]
    fn each_type_has_its_variant() {
        let table: Vec<(Box<dyn ToValue>, Value)> = vec![
            (Box::new(true), Value::Bool(true)),
            (Box::new(-1i16), Value::Int2(-1)),
            (Box::new(1i32), Value::Int4(1)),
            (Box::new(300i64), Value::Int8(300)),
            (Box::new(1.5f32), Value::Float4(1.5)),
            (Box::new(-2.25f64), Value::Float8(-2.25)),
            (Box::new("é"), Value::Text("é".into())),
            (Box::new(String::from("x")), Value::Text("x".into())),
            (Box::new(*b"ab"), Value::Bytea(b"ab".to_vec())),
            (Box::new(25u32), Value::Oid(25)),
            (Box::new(Date(1)), Value::Date(1)),
            (Box::new(Time(2)), Value::Time(2)),
            (
                Box::new(TimeTz { micros: 1, offset_secs: 2 }),
                Value::TimeTz { micros: 1, offset_secs: 2 },
            ),
            (Box::new(Timestamp(3)), Value::Timestamp(3)),
            (Box::new(TimestampTz(4)), Value::TimestampTz(4)),
            (
                Box::new(Interval { months: 1, days: 2, micros: 3 }),
                Value::Interval { months: 1, days: 2, micros: 3 },
            ),
            (Box::new(Uuid([7; 16])), Value::Uuid([7; 16])),
            (Box::new(Money(100)), Value::Money(100)),
            (Box::new(MacAddr(vec![1; 6])), Value::MacAddr(vec![1; 6])),
            (Box::new(Numeric("1.0".into())), Value::Numeric("1.0".into())),
            (Box::new(Jsonb("[]".into())), Value::Jsonb("[]".into())),
            (Box::new(Inet("::1".into())), Value::Inet("::1".into())),
            (Box::new(None::<i32>), Value::Null),
            (Box::new(Some(5i32)), Value::Int4(5)),
            (Box::new(SystemTime::UNIX_EPOCH), Value::TimestampTz(-946_684_800_000_000)),
            (Box::new(Value::Int4(9)), Value::Int4(9)),
        ];
        for (value, expected) in table {
            assert_eq!(written(&*value), expected);
        }
    }

    #[test]
    fn vectors_are_arrays() {
        let array = |dims, values| Value::Array { element_oid: 23, dims, values };
        let dims = vec![Dimension { len: 2, lower: 1 }];
        let expected = array(dims, vec![Value::Int4(1), Value::Null]);
        assert_eq!(written(&vec![Some(1i32), None]), expected);
        assert_eq!(written(&Vec::<i32>::new()), array(vec![], vec![]));
    }

    #[test]
    fn rows_are_tuples_or_lists() {
        let row = |row: &dyn BulkRow| {
            let mut bytes = Vec::new();
            row.write_row(&mut Writer::new(&mut bytes));
            decode::<Vec<Value>>(&bytes).unwrap()
        };
        let expected = [Value::Int4(1), Value::Text("a".into())];
        assert_eq!(row(&(1i32, "a")), expected);
        assert_eq!(row(&expected.to_vec()), expected);
        let list: &[&(dyn ToValue + Sync)] = &[&1i32, &"a"];
        assert_eq!(row(&list), expected);
    }
}
