//! Values between PostgreSQL's binary and text forms and the native protocol's.
//!
//! What comes from PostgreSQL goes into a frame without a value in between ([`result`]); parameters
//! go the other way ([`parameter`], [`text`]).

pub mod parameter;
pub mod result;
pub mod text;

mod numbers;
mod text_array;

use postgres_types::{Kind, Type};

/// How the values of a type travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `bool`.
    Bool,
    /// `int2`.
    Int2,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `float4`.
    Float4,
    /// `float8`.
    Float8,
    /// `numeric`.
    Numeric,
    /// Types whose binary form is their text.
    Text,
    /// `"char"`: one byte.
    Char,
    /// `bytea`.
    Bytea,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timetz`.
    TimeTz,
    /// `timestamp`.
    Timestamp,
    /// `timestamptz`.
    TimestampTz,
    /// `interval`.
    Interval,
    /// `uuid`.
    Uuid,
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `inet`.
    Inet,
    /// `cidr`.
    Cidr,
    /// `macaddr`, `macaddr8`.
    MacAddr,
    /// `bit`, `varbit`.
    Bit,
    /// `oid` and what has its form.
    Oid,
    /// `money`.
    Money,
    /// An array of the type with this number.
    Array(u32),
    /// A range over it.
    Range(u32),
    /// A multirange over it.
    Multirange(u32),
    /// A row type.
    Composite,
    /// Any other type, which travels as its text.
    Other,
}

/// Tells the shapes of types that are not built in.
pub trait Types {
    /// The shape; [`Shape::Other`] if the type is not known.
    fn shape(&self, oid: u32) -> Shape;

    /// Whether PostgreSQL can send and receive a value of the type, and everything within it, in
    /// binary.
    fn can_be_binary(&self, oid: u32) -> bool {
        has_send(oid)
    }
}

/// Whether a built-in type has a send and a receive function; those that have none are named here.
pub fn has_send(oid: u32) -> bool {
    let without = [Type::ACLITEM, Type::ACLITEM_ARRAY, Type::GTS_VECTOR, Type::GTS_VECTOR_ARRAY];
    !without.iter().any(|known| known.oid() == oid)
}

/// Deepest nesting that is followed, as in the protocol.
pub const MAX_DEPTH: usize = super::native::wire::MAX_NESTING;

/// Types with a number from here on differ between databases.
pub const FIRST_OWN_OID: u32 = 16_384;

/// The shape of a built-in type; `None` = it is not one.
pub fn builtin(oid: u32) -> Option<Shape> {
    let known = Type::from_oid(oid)?;
    Some(match known.kind() {
        Kind::Array(element) => Shape::Array(element.oid()),
        Kind::Range(element) => Shape::Range(element.oid()),
        Kind::Multirange(element) => Shape::Multirange(element.oid()),
        _ => scalar(&known),
    })
}

fn scalar(known: &Type) -> Shape {
    match *known {
        Type::BOOL => Shape::Bool,
        Type::INT2 => Shape::Int2,
        Type::INT4 => Shape::Int4,
        Type::INT8 => Shape::Int8,
        Type::FLOAT4 => Shape::Float4,
        Type::FLOAT8 => Shape::Float8,
        Type::NUMERIC => Shape::Numeric,
        Type::CHAR => Shape::Char,
        Type::BYTEA => Shape::Bytea,
        Type::DATE => Shape::Date,
        Type::TIME => Shape::Time,
        Type::TIMETZ => Shape::TimeTz,
        Type::TIMESTAMP => Shape::Timestamp,
        Type::TIMESTAMPTZ => Shape::TimestampTz,
        Type::INTERVAL => Shape::Interval,
        Type::UUID => Shape::Uuid,
        Type::JSON => Shape::Json,
        Type::JSONB => Shape::Jsonb,
        Type::INET => Shape::Inet,
        Type::CIDR => Shape::Cidr,
        Type::MACADDR | Type::MACADDR8 => Shape::MacAddr,
        Type::BIT | Type::VARBIT => Shape::Bit,
        Type::OID
        | Type::XID
        | Type::CID
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGCONFIG
        | Type::REGDICTIONARY
        | Type::REGNAMESPACE
        | Type::REGROLE
        | Type::REGCOLLATION => Shape::Oid,
        Type::MONEY => Shape::Money,
        Type::RECORD => Shape::Composite,
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::XML
        | Type::UNKNOWN
        | Type::VOID
        | Type::REFCURSOR
        | Type::CSTRING => Shape::Text,
        _ => Shape::Other,
    }
}

/// Whether a result is asked for in binary: not when it would be of no use, or when PostgreSQL may
/// not have such a form.
pub fn is_binary(types: &impl Types, oid: u32) -> bool {
    let shape = types.shape(oid);
    let is_of_use = match shape {
        Shape::Array(inner) | Shape::Range(inner) | Shape::Multirange(inner) => {
            !matches!(types.shape(inner), Shape::Other)
        }
        other => other != Shape::Other,
    };
    is_of_use && types.can_be_binary(oid)
}
