//! The encoding of one value of any type: bincode 2, `config::standard()`.
//!
//! Little-endian; integers of more than one byte have a variable length, signed ones are zigzagged
//! first. What is decoded comes from a stranger: counts are believed only as far as there are
//! bytes, memory is counted before it is taken, values are nested only so deep.

use std::fmt;

/// Memory that one decoded message may take on the heap, in bytes; more is `54000`.
pub const MAX_DECODED: usize = 64 << 20;

/// How many values may lie inside each other (arrays, composites, ranges); more is `54000`.
pub const MAX_NESTING: usize = 32;

/// What kind of rule was broken; it decides the SQLSTATE and the code of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not what the protocol says.
    Malformed,
    /// A frame is longer than agreed.
    FrameTooLong,
    /// The decoded message would take more than [`MAX_DECODED`], or is nested too deep.
    TooLarge,
    /// A body cannot be decompressed to what it says it is.
    Decompression,
    /// The checksum is not that of the frame.
    Checksum,
}

/// Bytes that are refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which kind of rule.
    pub fault: Fault,
    /// What was wrong, for a human.
    pub text: &'static str,
}

impl Violation {
    /// Bytes that are not what the protocol says.
    pub const fn malformed(text: &'static str) -> Self {
        Self { fault: Fault::Malformed, text }
    }

    /// The SQLSTATE of the answer.
    pub fn sqlstate(&self) -> &'static str {
        if self.fault == Fault::TooLarge { "54000" } else { "08P01" }
    }

    /// The code of the answer.
    pub fn code(&self) -> &'static str {
        match self.fault {
            Fault::Malformed => "PROTOCOL_VIOLATION",
            Fault::FrameTooLong | Fault::TooLarge => "PAYLOAD_TOO_LARGE",
            Fault::Decompression => "DECOMPRESSION_FAILED",
            Fault::Checksum => "CHECKSUM_MISMATCH",
        }
    }

    /// Whether the connection cannot go on: the peers no longer agree on what was sent.
    pub fn is_fatal(&self) -> bool {
        self.fault != Fault::TooLarge
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl std::error::Error for Violation {}

/// A type that has a place on the wire.
pub trait Wire: Sized {
    /// Appends the value in its only, shortest form.
    fn encode(&self, out: &mut Writer<'_>);

    /// Reads one value.
    ///
    /// # Errors
    /// [`Violation`] if the bytes are no such value or break a limit.
    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation>;
}

/// Appends the bytes of a value to `out`.
pub fn encode<T: Wire>(value: &T, out: &mut Vec<u8>) {
    value.encode(&mut Writer::new(out));
}

/// Reads one value that is all of `bytes`.
///
/// # Errors
/// [`Violation`] if the bytes are no such value, break a limit, or something is left over.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, Violation> {
    let mut input = Reader::new(bytes);
    let value = T::decode(&mut input)?;
    input.finish()?;
    Ok(value)
}

// How a variable-length integer begins when it is not one byte, and how many bytes follow.
const TWO: u8 = 251;
const FOUR: u8 = 252;
const EIGHT: u8 = 253;

/// Writes to the end of a vector.
pub struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// One byte as it is.
    #[inline]
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Bytes as they are, without a count.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// An unsigned integer of more than one byte, a count, the number of a variant.
    #[inline]
    pub fn unsigned(&mut self, value: u64) {
        match value {
            0..=250 => self.byte(value as u8),
            _ => self.long(value),
        }
    }

    fn long(&mut self, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        match value {
            0..=0xffff => self.raw(&[TWO, a, b]),
            0x1_0000..=0xffff_ffff => self.raw(&[FOUR, a, b, c, d]),
            _ => self.raw(&[EIGHT, a, b, c, d, e, f, g, h]),
        }
    }

    /// The number of a variant below 251, then a signed integer of more than one byte: what most
    /// values are, in one piece.
    #[inline]
    pub fn tagged(&mut self, variant: u8, value: i64) {
        let zigzag = ((value << 1) ^ (value >> 63)) as u64;
        let [a, b, c, d, e, f, g, h] = zigzag.to_le_bytes();
        let (marker, length) = match zigzag {
            0..=250 => return self.raw(&[variant, a]),
            251..=0xffff => (TWO, 4),
            0x1_0000..=0xffff_ffff => (FOUR, 6),
            _ => (EIGHT, 10),
        };
        let end = self.0.len() + length;
        self.raw(&[variant, marker, a, b, c, d, e, f, g, h]);
        self.0.truncate(end);
    }

    /// The number of a variant below 251, then a count and the bytes.
    #[inline]
    pub fn tagged_bytes(&mut self, variant: u8, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(short @ 0..=250) => self.raw(&[variant, short]),
            _ => {
                self.byte(variant);
                self.unsigned(bytes.len() as u64);
            }
        }
        self.raw(bytes);
    }

    /// A signed integer of more than one byte.
    #[inline]
    pub fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A count, then the bytes: a string or a vector of bytes.
    pub fn counted(&mut self, bytes: &[u8]) {
        self.unsigned(bytes.len() as u64);
        self.raw(bytes);
    }

    /// The number of a variant.
    #[inline]
    pub fn variant(&mut self, number: u32) {
        self.unsigned(u64::from(number));
    }
}

/// Reads from the front of a slice.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Memory that may still be taken.
    memory: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader of one message.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, memory: MAX_DECODED, depth: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if there is.
    pub fn finish(&self) -> Result<(), Violation> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Violation::malformed("bytes are left over after the message")),
        }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if there are fewer.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(Violation::malformed("the message ends inside a value"))?;
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Fault::Malformed`] at the end.
    pub fn byte(&mut self) -> Result<u8, Violation> {
        Ok(self.raw(1)?[0])
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// An unsigned integer of at most `width` bytes. A longer form than needed is accepted, a
    /// marker for more than `width` bytes is not, even if the number would fit.
    ///
    /// # Errors
    /// [`Fault::Malformed`].
    #[inline]
    pub fn unsigned(&mut self, width: usize) -> Result<u64, Violation> {
        match self.rest {
            [small @ 0..=250, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*small))
            }
            _ => self.long(width),
        }
    }

    fn long(&mut self, width: usize) -> Result<u64, Violation> {
        match self.byte()? {
            small @ 0..=250 => Ok(u64::from(small)),
            TWO if width >= 2 => Ok(u64::from(u16::from_le_bytes(self.array()?))),
            FOUR if width >= 4 => Ok(u64::from(u32::from_le_bytes(self.array()?))),
            EIGHT if width >= 8 => Ok(u64::from_le_bytes(self.array()?)),
            _ => Err(Violation::malformed("an integer is longer than its type")),
        }
    }

    /// A signed integer of at most `width` bytes.
    ///
    /// # Errors
    /// [`Fault::Malformed`].
    #[inline]
    pub fn signed(&mut self, width: usize) -> Result<i64, Violation> {
        let zigzag = self.unsigned(width)?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// The number of a variant.
    ///
    /// # Errors
    /// [`Fault::Malformed`].
    #[inline]
    pub fn variant(&mut self) -> Result<u32, Violation> {
        self.unsigned(4).map(|number| number as u32)
    }

    /// Counts memory on the heap that a value takes.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] when the message has taken too much.
    pub fn claim(&mut self, bytes: usize) -> Result<(), Violation> {
        self.memory = self.memory.checked_sub(bytes).ok_or(Violation {
            fault: Fault::TooLarge,
            text: "the message takes more than 64 MiB when it is decoded",
        })?;
        Ok(())
    }

    /// How many elements follow, each of which takes `size` bytes in memory and at least one on the
    /// wire. The memory is counted; nothing is reserved.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] if they would take too much memory, [`Fault::Malformed`] if there are
    /// fewer bytes than elements.
    pub fn count(&mut self, size: usize) -> Result<usize, Violation> {
        let count = self.unsigned(8)?;
        let memory = count.saturating_mul(size as u64);
        self.claim(usize::try_from(memory).unwrap_or(usize::MAX))?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(Violation::malformed("the message ends inside a list")),
        }
    }

    /// Bytes with their count.
    ///
    /// # Errors
    /// As [`Reader::count`].
    #[inline]
    pub fn counted(&mut self) -> Result<&'a [u8], Violation> {
        let count = self.count(1)?;
        self.raw(count)
    }

    /// Text with its count.
    ///
    /// # Errors
    /// As [`Reader::count`], or if it is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Violation> {
        std::str::from_utf8(self.counted()?)
            .map_err(|_| Violation::malformed("a string is not valid UTF-8"))
    }

    /// Reads something that may contain its own kind.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] beyond [`MAX_NESTING`], and whatever `read` says.
    pub fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        // The outermost value lies inside none.
        if self.depth > MAX_NESTING {
            let text = "values are nested deeper than 32 levels";
            return Err(Violation { fault: Fault::TooLarge, text });
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}

macro_rules! integers {
    ($($type:ty: $method:ident as $wide:ty),*) => {$(
        impl Wire for $type {
            fn encode(&self, out: &mut Writer<'_>) {
                out.$method(<$wide>::from(*self));
            }

            #[inline]
            fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
                // A shorter form cannot hold more than its type, so nothing is cut off.
                input.$method(size_of::<$type>()).map(|wide| wide as $type)
            }
        }
    )*};
}

integers!(
    u16: unsigned as u64, u32: unsigned as u64, u64: unsigned as u64,
    i16: signed as i64, i32: signed as i64, i64: signed as i64
);

macro_rules! fixed {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn encode(&self, out: &mut Writer<'_>) {
                out.raw(&self.to_le_bytes());
            }

            #[inline]
            fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
                input.array().map(<$type>::from_le_bytes)
            }
        }
    )*};
}

fixed!(i8, f32, f64);

impl Wire for bool {
    fn encode(&self, out: &mut Writer<'_>) {
        out.byte(u8::from(*self));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Violation::malformed("a truth value is neither 0 nor 1")),
        }
    }
}

impl Wire for String {
    fn encode(&self, out: &mut Writer<'_>) {
        out.counted(self.as_bytes());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        input.text().map(str::to_owned)
    }
}

// `u8` itself is no `Wire`, so that its vector can be copied at once.
impl Wire for Vec<u8> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.counted(self);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        input.counted().map(<[u8]>::to_vec)
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn encode(&self, out: &mut Writer<'_>) {
        out.raw(self);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        input.array()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.unsigned(self.len() as u64);
        self.iter().for_each(|element| element.encode(out));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        let count = input.count(size_of::<T>())?;
        // A count is only a claim: what is reserved for it is bounded by what has really come.
        let mut elements = Vec::with_capacity(count.min(input.rest.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            elements.push(T::decode(input)?);
        }
        Ok(elements)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn encode(&self, out: &mut Writer<'_>) {
        out.byte(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        match input.byte()? {
            0 => Ok(None),
            1 => T::decode(input).map(Some),
            _ => Err(Violation::malformed("an optional value begins with neither 0 nor 1")),
        }
    }
}

impl<T: Wire> Wire for Box<T> {
    fn encode(&self, out: &mut Writer<'_>) {
        T::encode(self, out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        input.claim(size_of::<T>())?;
        T::decode(input).map(Box::new)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn encode(&self, out: &mut Writer<'_>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Violation> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}
