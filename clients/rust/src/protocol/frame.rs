//! Frames: 14 bytes of header, little-endian, then the body, then perhaps a checksum.

use super::codec::Encoding;
use super::compression::{self, THRESHOLD};
use super::session::CompressionType;
use super::wire::{Fault, Violation};

/// Bytes before the payload.
pub const HEADER: usize = 14;

/// Longest payload that can be agreed, in bytes.
pub const MAX_PAYLOAD: u32 = 16 << 20;

/// Longest payload of an urgent frame in any encoding, in bytes.
pub const MAX_URGENT_PAYLOAD: u32 = 128;

const LONG_URGENT: Violation = Violation::malformed("an urgent frame is longer than 64 bytes");

/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// Marks the ids that the server chooses.
pub const SERVER_ID: u64 = 1 << 63;

/// Bits of the flags field.
pub mod flags {
    /// The body is compressed.
    pub const COMPRESSED: u16 = 0x0001;
    /// The last four payload bytes are CRC-32C.
    pub const CHECKSUM: u16 = 0x0002;
    /// More frames with this id follow in this direction.
    pub const MORE: u16 = 0x0004;
    /// A reply, notification or event of the server.
    pub const RESPONSE: u16 = 0x0008;
    /// Is handled at once, outside queues and windows.
    pub const URGENT: u16 = 0x0010;
    /// No reply is expected.
    pub const ONEWAY: u16 = 0x0020;
    /// The two bits of the priority.
    pub const PRIORITY: u16 = 0x00c0;
    /// How far the priority is shifted.
    pub const PRIORITY_SHIFT: u32 = 6;
    /// Starts only after everything before it has finished.
    pub const ORDERED: u16 = 0x0100;
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
    /// Reads a header; `Ok(None)` = fewer than 14 bytes are there. `most` is the longest payload.
    ///
    /// # Errors
    /// [`Violation`] if it breaks a rule; so far nothing has been reserved for the payload.
    pub fn parse(bytes: &[u8], most: u32) -> Result<Option<Self>, Violation> {
        let Some(h) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let header = Self {
            length: u32::from_le_bytes([h[0], h[1], h[2], h[3]]),
            flags: u16::from_le_bytes([h[4], h[5]]),
            message_id: u64::from_le_bytes([h[6], h[7], h[8], h[9], h[10], h[11], h[12], h[13]]),
        };
        header.check(most.min(MAX_PAYLOAD)).map(|()| Some(header))
    }

    fn check(&self, most: u32) -> Result<(), Violation> {
        let trailer = if self.has(flags::CHECKSUM) { CHECKSUM } else { 0 };
        let prefix = if self.has(flags::COMPRESSED) { compression::SIZE } else { 0 };
        if self.length > most {
            let text = "a frame is longer than the longest message";
            Err(Violation { fault: Fault::FrameTooLong, text })
        } else if self.has(flags::RESERVED) {
            Err(Violation::malformed("reserved flag bits are set"))
        } else if (self.length as usize) < trailer + prefix {
            Err(Violation::malformed("a frame is shorter than its flags say"))
        } else if self.has(flags::URGENT) && self.length > MAX_URGENT_PAYLOAD {
            Err(LONG_URGENT)
        } else {
            Ok(())
        }
    }

    /// Whether any of these flags is set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// The priority as sent: 0 normal, 1 low, 2 high, 3 critical.
    pub fn priority(&self) -> u16 {
        (self.flags & flags::PRIORITY) >> flags::PRIORITY_SHIFT
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_le_bytes());
        bytes[6..].copy_from_slice(&self.message_id.to_le_bytes());
        bytes
    }
}

/// What the handshake has agreed on for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// How large bodies are compressed.
    pub compression: CompressionType,
    /// Smallest body that is compressed, in bytes.
    pub threshold: usize,
    /// Whether every frame has a checksum.
    pub checksum: bool,
    /// Longest payload, in bytes.
    pub max_message_size: u32,
    /// What bodies are written in.
    pub encoding: Encoding,
}

impl Default for Agreed {
    /// As it is before the handshake.
    fn default() -> Self {
        Self {
            compression: CompressionType::None,
            threshold: THRESHOLD,
            checksum: false,
            max_message_size: MAX_PAYLOAD,
            encoding: Encoding::Bincode,
        }
    }
}

/// Tells whether `bytes` begin with a whole frame, and which; `Ok(None)` = more must come. The
/// frame takes [`HEADER`] and the payload's length.
///
/// # Errors
/// [`Violation`] as soon as the header is there, and breaks a rule.
pub fn split(bytes: &[u8], most: u32) -> Result<Option<(Header, &[u8])>, Violation> {
    let Some(header) = Header::parse(bytes, most)? else { return Ok(None) };
    Ok(bytes[HEADER..].get(..header.length as usize).map(|payload| (header, payload)))
}

/// The body of a whole frame: the checksum is verified and taken off, the body decompressed into
/// `scratch` if need be.
///
/// # Errors
/// [`Violation`] if the checksum is wrong or missing, or the body is not what it says.
pub fn open<'a>(
    header: &Header,
    payload: &'a [u8],
    agreed: &Agreed,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], Violation> {
    let body = body(header, payload, agreed)?;
    if !header.has(flags::COMPRESSED) {
        return Ok(body);
    }
    compression::decompress(agreed.compression, body, agreed.max_message_size, scratch)?;
    Ok(scratch)
}

/// The body of a whole frame as it was sent, perhaps compressed: the checksum is verified and taken
/// off.
///
/// # Errors
/// [`Violation`] if the checksum is wrong or missing, or compression was not agreed on.
pub fn body<'a>(
    header: &Header,
    payload: &'a [u8],
    agreed: &Agreed,
) -> Result<&'a [u8], Violation> {
    if header.has(flags::COMPRESSED) && agreed.compression == CompressionType::None {
        return Err(Violation::malformed("a body is compressed, although that was not agreed"));
    }
    if header.has(flags::URGENT) && header.length > agreed.encoding.max_urgent_payload() {
        return Err(LONG_URGENT);
    }
    match payload.split_last_chunk::<CHECKSUM>() {
        _ if !header.has(flags::CHECKSUM) && agreed.checksum => {
            let text = "a frame has no checksum, although that was agreed";
            Err(Violation { fault: Fault::Checksum, text })
        }
        Some((body, sum)) if header.has(flags::CHECKSUM) => {
            if checksum(&header.bytes(), body) != u32::from_le_bytes(*sum) {
                let text = "the checksum of a frame is wrong";
                return Err(Violation { fault: Fault::Checksum, text });
            }
            Ok(body)
        }
        _ => Ok(payload),
    }
}

/// Begins a frame at the end of `out`, to which the body is appended next; returns where.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    start
}

/// Finishes the frame that begins at `start` and ends with `out`; returns the payload's length.
/// Bodies are compressed if that was agreed and helps, except those of handshake and
/// authentication.
///
/// # Errors
/// [`Fault::TooLarge`] if the body is longer than agreed; `out` ends before the frame then.
pub fn finish(
    out: &mut Vec<u8>,
    start: usize,
    mut flags: u16,
    message_id: u64,
    agreed: &Agreed,
) -> Result<u32, Violation> {
    let body = start + HEADER;
    let trailer = if agreed.checksum { CHECKSUM } else { 0 };
    let size = out.len() - body;
    if size + trailer > agreed.max_message_size as usize {
        out.truncate(start);
        let text = "the message is longer than the longest one agreed";
        return Err(Violation { fault: Fault::TooLarge, text });
    }
    let is_secret = agreed.encoding.is_secret(&out[body..]);
    if size >= agreed.threshold && !is_secret && agreed.compression != CompressionType::None {
        let mut small = Vec::new();
        if compression::compress(agreed.compression, &out[body..], &mut small) {
            out.truncate(body);
            out.extend_from_slice(&small);
            flags |= flags::COMPRESSED;
        }
    }
    if agreed.checksum {
        flags |= flags::CHECKSUM;
    }
    let length = (out.len() - body + trailer) as u32;
    let header = Header { length, flags, message_id }.bytes();
    out[start..body].copy_from_slice(&header);
    if agreed.checksum {
        let sum = checksum(&header, &out[body..]);
        out.extend_from_slice(&sum.to_le_bytes());
    }
    Ok(length)
}

/// CRC-32C over a header and a body as sent.
pub fn checksum(header: &[u8; HEADER], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn headers_survive_a_round_trip() {
        let header = Header { length: 300, flags: 0x0042, message_id: u64::MAX >> 1 };
        let bytes = header.bytes();
        assert_eq!(Header::parse(&bytes, MAX_PAYLOAD), Ok(Some(header)));
        assert_eq!(Header::parse(&bytes[..13], MAX_PAYLOAD), Ok(None));
        assert_eq!(header.priority(), 1);
    }

    #[test]
    fn bad_headers_are_refused() {
        use Fault::{FrameTooLong, Malformed};
        for (length, flags, fault) in [
            (MAX_PAYLOAD + 1, 0, FrameTooLong),
            (u32::MAX, 0, FrameTooLong),
            (0, 0x0200, Malformed),
            (3, flags::CHECKSUM, Malformed),
            (7, flags::CHECKSUM | flags::COMPRESSED, Malformed),
            (129, flags::URGENT, Malformed),
        ] {
            let bytes = Header { length, flags, message_id: 1 }.bytes();
            let refused = Header::parse(&bytes, u32::MAX).unwrap_err();
            assert_eq!(refused.fault, fault, "{length} {flags:#x}");
        }
        let bytes = Header { length: 65_537, flags: 0, message_id: 1 }.bytes();
        assert_eq!(Header::parse(&bytes, 65_536).unwrap_err().code(), "PAYLOAD_TOO_LARGE");
    }

    fn sealed(body: &[u8], agreed: &Agreed) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let start = begin(&mut out);
        out.extend_from_slice(body);
        finish(&mut out, start, flags::RESPONSE, 9, agreed).unwrap();
        out.split_off(6)
    }

    #[test]
    fn frames_survive_a_round_trip_however_they_are_made() {
        let body = [3; 5000];
        for compression in [CompressionType::None, CompressionType::Lz4, CompressionType::Zstd] {
            for checksum in [false, true] {
                let agreed = Agreed { compression, checksum, ..Agreed::default() };
                let frame = sealed(&body, &agreed);
                for end in 0..frame.len() {
                    assert_eq!(split(&frame[..end], MAX_PAYLOAD), Ok(None));
                }
                let (header, payload) = split(&frame, MAX_PAYLOAD).unwrap().unwrap();
                let small = compression != CompressionType::None;
                assert_eq!(header.has(flags::COMPRESSED), small);
                assert_eq!(header.has(flags::CHECKSUM), checksum);
                let mut scratch = Vec::new();
                assert_eq!(open(&header, payload, &agreed, &mut scratch), Ok(&body[..]));
            }
        }
    }

    #[test]
    fn a_checksum_that_was_agreed_must_be_there_and_right() {
        let agreed = Agreed { checksum: true, ..Agreed::default() };
        let frame = sealed(b"\x10", &agreed);
        let mut scratch = Vec::new();
        for byte in HEADER..frame.len() {
            let mut damaged = frame.clone();
            damaged[byte] ^= 1;
            let (header, payload) = split(&damaged, MAX_PAYLOAD).unwrap().unwrap();
            let refused = open(&header, payload, &agreed, &mut scratch).unwrap_err();
            assert_eq!(refused.code(), "CHECKSUM_MISMATCH");
        }
        let plain = sealed(b"\x10", &Agreed::default());
        let (header, payload) = split(&plain, MAX_PAYLOAD).unwrap().unwrap();
        assert_eq!(
            open(&header, payload, &agreed, &mut scratch).unwrap_err().fault,
            Fault::Checksum
        );
    }

    #[test]
    fn secrets_are_not_compressed_and_long_messages_not_sent() {
        let agreed = Agreed { compression: CompressionType::Lz4, ..Agreed::default() };
        for variant in 0..=2 {
            let frame = sealed(&[variant; 5000], &agreed);
            assert_eq!(frame.len(), HEADER + 5000);
        }
        let small = Agreed { max_message_size: 65_536, checksum: true, ..agreed };
        let mut out = Vec::new();
        let start = begin(&mut out);
        out.resize(HEADER + 65_533, 9);
        assert_eq!(finish(&mut out, start, 0, 1, &small).unwrap_err().sqlstate(), "54000");
        assert!(out.is_empty());
    }
}
