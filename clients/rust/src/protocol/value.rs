//! A value of PostgreSQL as it travels: as a parameter to the server, in a row to the client.

define! {
    /// A value. Times count from 2000-01-01, as in PostgreSQL's binary forms; the largest and the
    /// smallest number of a date or timestamp are `infinity` and `-infinity`.
    pub nested enum Value {
        /// NULL of any type.
        0 Null,
        /// `bool`.
        1 Bool(value: bool),
        /// `int2`.
        2 Int2(value: i16),
        /// `int4`.
        3 Int4(value: i32),
        /// `int8`.
        4 Int8(value: i64),
        /// `float4`.
        #[serde(with = "crate::protocol::codec::numbers")]
        5 Float4(value: f32),
        /// `float8`.
        #[serde(with = "crate::protocol::codec::numbers")]
        6 Float8(value: f64),
        /// `numeric` in decimal, with its scale; `NaN`, `Infinity`, `-Infinity`.
        7 Numeric(value: String),
        /// `text`, `varchar`, `bpchar`, `name`, `"char"`, `xml`, `citext`; the label of an enum. As
        /// a parameter: the text form of any type.
        8 Text(value: String),
        /// `bytea`.
        9 Bytea(value: Vec<u8>),
        /// `date`: days.
        10 Date(value: i32),
        /// `time`: microseconds since midnight.
        11 Time(value: i64),
        /// `timetz`.
        12 TimeTz {
            /// Microseconds since midnight.
            micros: i64,
            /// Seconds east of UTC.
            offset_secs: i32,
        },
        /// `timestamp`: microseconds.
        13 Timestamp(value: i64),
        /// `timestamptz`: microseconds, UTC.
        14 TimestampTz(value: i64),
        /// `interval`; all three largest or smallest are plus or minus infinity.
        15 Interval {
            /// Months.
            months: i32,
            /// Days.
            days: i32,
            /// Microseconds.
            micros: i64,
        },
        /// `uuid`.
        16 Uuid(value: [u8; 16]),
        /// `json`, its text.
        17 Json(value: String),
        /// `jsonb`, its text.
        18 Jsonb(value: String),
        /// `inet`, its text.
        19 Inet(value: String),
        /// `cidr`, its text.
        20 Cidr(value: String),
        /// `macaddr` (6 bytes) or `macaddr8` (8 bytes).
        21 MacAddr(value: Vec<u8>),
        /// `bit`, `varbit`.
        22 Bit {
            /// How many bits there are.
            len: u32,
            /// The bits, most significant first, padded with zeros.
            bytes: Vec<u8>,
        },
        /// `oid`, `xid`, `cid`, `regclass` and the other `reg…` types.
        23 Oid(value: u32),
        /// `money` in the smallest unit of the currency.
        24 Money(value: i64),
        /// An array of any type.
        25 Array {
            /// Type of the elements.
            element_oid: u32,
            /// The dimensions, outermost first; none if the array is empty.
            dims: Vec<Dimension>,
            /// The elements, the last dimension varying fastest.
            values: Vec<Value>,
        },
        /// A range of any type.
        26 Range {
            /// Type of the bounds.
            element_oid: u32,
            /// The bounds.
            range: RangeValue,
        },
        /// A multirange of any type.
        27 Multirange {
            /// Type of the bounds.
            element_oid: u32,
            /// The ranges in ascending order.
            ranges: Vec<RangeValue>,
        },
        /// A row type or `record`.
        28 Composite {
            /// The type; 2249 for an anonymous record.
            type_oid: u32,
            /// The fields in the order of the type.
            fields: Vec<Value>,
        },
        /// Any other type.
        29 Other {
            /// The type.
            type_oid: u32,
            /// Whether `bytes` are the binary form that the type's send function gives.
            binary: bool,
            /// The text form, or the binary one.
            bytes: Vec<u8>,
        },
    }

    /// One dimension of an array.
    pub struct Dimension {
        /// How many elements.
        len: u32,
        /// Subscript of the first one, usually 1.
        lower: i32,
    }

    /// The bounds of a range.
    pub struct RangeValue {
        /// Whether no value lies in it; the bounds are unbounded then.
        empty: bool,
        /// Where it begins.
        lower: Bound,
        /// Where it ends.
        upper: Bound,
    }

    /// One end of a range.
    pub enum Bound {
        /// No end.
        0 Unbounded,
        /// The value belongs to the range.
        1 Inclusive(value: Box<Value>),
        /// The value does not belong to it.
        2 Exclusive(value: Box<Value>),
    }
}

impl RangeValue {
    /// The range that contains nothing.
    pub const EMPTY: RangeValue =
        RangeValue { empty: true, lower: Bound::Unbounded, upper: Bound::Unbounded };
}
