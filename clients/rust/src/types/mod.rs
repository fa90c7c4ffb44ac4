//! Values of PostgreSQL and of Rust, each as the other.
//!
//! | Module | What it owns |
//! |---|---|
//! | [`borrowed`] | a value that still lies in the frame it came in |
//! | [`from`] | PostgreSQL → Rust |
//! | [`to`] | Rust → PostgreSQL |
//! | [`calendar`] | dates, times and intervals, infinite ones too |
//! | [`text`] | a value as PostgreSQL writes it |

pub mod borrowed;
pub mod calendar;
pub mod from;
pub mod text;
pub mod to;

pub use borrowed::ValueRef;
pub use calendar::{Date, Interval, Time, TimeTz, Timestamp, TimestampTz};
pub use from::{FromValue, Mismatch};
pub use to::{BulkRow, Element, ToValue};

macro_rules! texts {
    ($($(#[$meta:meta])* $name:ident: $variant:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub String);

        impl<'a> FromValue<'a> for $name {
            fn from_value(value: ValueRef<'a>) -> Result<Self, Mismatch> {
                match value {
                    ValueRef::$variant(text) => Ok(Self(text.to_owned())),
                    other => Err(Mismatch::new(stringify!($name), &other)),
                }
            }
        }

        impl ToValue for $name {
            fn write(&self, out: &mut crate::protocol::Writer<'_>) {
                let number = crate::types::to::number::$variant;
                crate::types::to::text(out, number, &self.0);
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// `numeric` in decimal, with its scale; `NaN`, `Infinity`, `-Infinity`.
    Numeric: Numeric;
    /// `json`, its text.
    Json: Json;
    /// `jsonb`, its text.
    Jsonb: Jsonb;
    /// `inet`, its text, for instance `10.0.0.1/8`.
    Inet: Inet;
    /// `cidr`, its text, for instance `10.0.0.0/8`.
    Cidr: Cidr;
}

/// `uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

/// `money` in the smallest unit of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Money(pub i64);

/// `macaddr` (6 bytes) or `macaddr8` (8 bytes).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub Vec<u8>);
