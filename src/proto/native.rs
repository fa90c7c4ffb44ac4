//! The frame header of the native protocol: 14 bytes, little-endian, then the payload.
//!
//! Only the header is read here; a length is refused before anything is allocated for it.

use super::Malformed;

/// Bytes before the payload.
pub const HEADER: usize = 14;

/// Longest payload.
pub const MAX_PAYLOAD: u32 = 16 << 20;

/// Bits of the flags field.
pub mod flags {
    /// The body is compressed.
    pub const COMPRESSED: u16 = 0x0001;
    /// The last four payload bytes are CRC-32C.
    pub const CHECKSUM: u16 = 0x0002;
    /// These bits must be zero.
    pub const RESERVED: u16 = 0xfe00;
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes, checksum included.
    pub length: u32,
    /// See [`flags`].
    pub flags: u16,
    /// Correlates a reply with its request.
    pub message_id: u64,
}

impl Header {
    /// Reads a header; `Ok(None)` = fewer than 14 bytes are there.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(h) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let header = Self {
            length: u32::from_le_bytes([h[0], h[1], h[2], h[3]]),
            flags: u16::from_le_bytes([h[4], h[5]]),
            message_id: u64::from_le_bytes([h[6], h[7], h[8], h[9], h[10], h[11], h[12], h[13]]),
        };
        header.check().map(|()| Some(header))
    }

    fn check(&self) -> Result<(), Malformed> {
        // A compressed body begins with its size, a checksum ends the payload: four bytes each.
        let trailer = if self.flags & flags::CHECKSUM != 0 { 4 } else { 0 };
        let prefix = if self.flags & flags::COMPRESSED != 0 { 4 } else { 0 };
        if self.length > MAX_PAYLOAD {
            Err(Malformed("frame longer than 16 MiB"))
        } else if self.flags & flags::RESERVED != 0 {
            Err(Malformed("reserved flag bits are set"))
        } else if self.length < trailer + prefix {
            Err(Malformed("frame shorter than its flags say"))
        } else {
            Ok(())
        }
    }

    /// Writes the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.message_id.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_a_round_trip() {
        let header = Header { length: 300, flags: 0x0042, message_id: u64::MAX >> 1 };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        assert_eq!(Header::parse(&bytes), Ok(Some(header)));
        assert_eq!(Header::parse(&bytes[..13]), Ok(None));
    }

    #[test]
    fn bad_headers_are_refused() {
        for (length, flags) in [(MAX_PAYLOAD + 1, 0), (0, 0x0200), (3, 2), (7, 3), (u32::MAX, 0)] {
            let mut bytes = Vec::new();
            Header { length, flags, message_id: 1 }.write(&mut bytes);
            assert!(Header::parse(&bytes).is_err(), "{length} {flags:#x}");
        }
    }
}
