//! Bytes without I/O: PostgreSQL's messages, the frame of the native protocol, values and JSON.
//!
//! Nothing here knows a socket or a clock, so all of it is table-tested and fuzzed.

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod fuzz;
pub mod json;
pub mod proxy;
pub mod rows;
pub mod startup;
pub mod typed;

pub use rustydb_client::protocol as native;

/// Bytes that are not what the protocol says; the text is for the log and for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// A bounds-checked walk over the body of a message.
#[derive(Clone)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Malformed("message too short"))?;
        self.0 = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Two bytes, network order.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        let bytes = self.take(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Four bytes, network order.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A string up to its NUL, without it.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed("unterminated string"))?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(text)
    }
}
