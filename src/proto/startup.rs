//! The first bytes of a connection: which protocol it is, and PostgreSQL's start-up packets
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use super::{Cursor, Malformed};

/// What a client speaks, told from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A PostgreSQL start-up packet.
    Postgres,
    /// A TLS ClientHello.
    Tls,
    /// The preface of the native protocol.
    Native,
    /// A request line of HTTP.
    Http,
    /// None of them.
    Unknown,
}

/// Bytes that decide in every case.
pub const DETECT_BYTES: usize = 8;

/// The preface of the native protocol: its name and the format of the preface.
pub const NATIVE_PREFACE: [u8; 8] = super::native::PREFACE;

/// Tells the dialect from the first bytes; `None` = more are needed.
///
/// No two can be confused: a start-up packet is shorter than 64 KiB, so its length begins `00 00`;
/// a TLS record begins `16`, the native preface `52`, a request line with an upper-case letter.
pub fn detect(first: &[u8]) -> Option<Dialect> {
    match first {
        [] => None,
        [0x16, ..] => Some(Dialect::Tls),
        [0, 0, ..] => Some(Dialect::Postgres),
        [0] => None,
        [b'R', ..] => {
            let n = first.len().min(NATIVE_PREFACE.len() - 1);
            match first[..n] == NATIVE_PREFACE[..n] {
                true if first.len() < NATIVE_PREFACE.len() => None,
                true => Some(Dialect::Native),
                false => Some(Dialect::Unknown),
            }
        }
        [b'G' | b'H' | b'P' | b'D' | b'O' | b'C' | b'T', ..] => detect_http(first),
        _ => Some(Dialect::Unknown),
    }
}

fn detect_http(first: &[u8]) -> Option<Dialect> {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"PATCH ",
        b"DELETE ",
        b"OPTIONS ",
        b"CONNECT ",
        b"TRACE ",
    ];
    if METHODS.iter().any(|m| first.starts_with(&m[..m.len().min(DETECT_BYTES)])) {
        return Some(Dialect::Http);
    }
    let unfinished = first.len() < DETECT_BYTES && METHODS.iter().any(|m| m.starts_with(first));
    if unfinished { None } else { Some(Dialect::Unknown) }
}

/// A start-up packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    GssEnc,
    /// CancelRequest: the number and the key that BackendKeyData gave.
    Cancel {
        /// Process number.
        pid: u32,
        /// Secret key.
        key: Vec<u8>,
    },
    /// StartupMessage of protocol 3.
    Start(StartupMessage),
    /// A protocol that is not 3.
    Unsupported {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
}

/// The parameters of a new session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupMessage {
    /// Minor version the client asks for.
    pub minor: u16,
    /// Name and value, in the order of the packet, without `_pq_.` options.
    pub parameters: Vec<(String, String)>,
    /// Names of `_pq_.` options; none is known, so they are refused by negotiation.
    pub protocol_options: Vec<String>,
}

impl StartupMessage {
    /// The last value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether the session is for physical replication, which belongs to no database.
    pub fn is_physical_replication(&self) -> bool {
        let value = self.get("replication").unwrap_or("off").to_ascii_lowercase();
        matches!(value.as_str(), "on" | "true" | "t" | "yes" | "y" | "1")
    }
}

/// The newest minor version of protocol 3 that is spoken.
pub const NEWEST_MINOR: u16 = 2;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// Reads a start-up packet without its length.
pub fn parse(packet: &[u8]) -> Result<Startup, Malformed> {
    let mut cursor = Cursor(packet);
    let code = cursor.i32()? as u32;
    match code {
        SSL if cursor.0.is_empty() => Ok(Startup::Ssl),
        GSSENC if cursor.0.is_empty() => Ok(Startup::GssEnc),
        CANCEL => {
            let pid = cursor.i32()? as u32;
            // Protocol 3.2 allows keys of 4 to 256 bytes.
            match cursor.0.len() {
                4..=256 => Ok(Startup::Cancel { pid, key: cursor.0.to_vec() }),
                _ => Err(Malformed("invalid length of a cancel request")),
            }
        }
        _ if code >> 16 == 3 => parameters(cursor, (code & 0xffff) as u16).map(Startup::Start),
        _ => Ok(Startup::Unsupported { major: (code >> 16) as u16, minor: (code & 0xffff) as u16 }),
    }
}

fn parameters(mut cursor: Cursor<'_>, minor: u16) -> Result<StartupMessage, Malformed> {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| Malformed("start-up packet is not valid UTF-8"))
    };
    let mut message = StartupMessage { minor, ..StartupMessage::default() };
    loop {
        let name = text(cursor.cstr()?)?;
        if name.is_empty() {
            break;
        }
        let value = text(cursor.cstr()?)?;
        if name.starts_with("_pq_.") {
            message.protocol_options.push(name);
        } else {
            message.parameters.push((name, value));
        }
    }
    match cursor.0.is_empty() {
        true => Ok(message),
        false => Err(Malformed("invalid startup packet layout: expected terminator as last byte")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_told_from_its_first_bytes() {
        for (first, expected) in [
            (&b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..], Some(Dialect::Postgres)),
            (b"\x00", None),
            (b"", None),
            (b"\x16\x03\x01", Some(Dialect::Tls)),
            (b"RUSTYDB\x01", Some(Dialect::Native)),
            (b"RUSTYDB\x02", Some(Dialect::Native)),
            (b"RUSTYDB", None),
            (b"RUSTIC", Some(Dialect::Unknown)),
            (b"GET / HT", Some(Dialect::Http)),
            (b"OPTIONS ", Some(Dialect::Http)),
            (b"GE", None),
            (b"GELD", Some(Dialect::Unknown)),
            (b"\x80\x01", Some(Dialect::Unknown)),
            (b"\x00\x01\x00\x00\x00\x03\x00\x00", Some(Dialect::Unknown)),
        ] {
            assert_eq!(detect(first), expected, "{first:?}");
        }
    }

    #[test]
    fn start_up_packets() {
        let start = parse(b"\x00\x03\x00\x02user\0joe\0_pq_.x\x001\0database\0d\0\0").unwrap();
        let Startup::Start(start) = start else { panic!("{start:?}") };
        assert_eq!(
            (start.minor, start.get("user"), start.get("database")),
            (2, Some("joe"), Some("d"))
        );
        assert_eq!(start.protocol_options, ["_pq_.x"]);
        assert_eq!(parse(b"\x04\xd2\x16\x2f"), Ok(Startup::Ssl));
        assert_eq!(parse(b"\x04\xd2\x16\x30"), Ok(Startup::GssEnc));
        assert_eq!(
            parse(b"\x04\xd2\x16\x2e\0\0\0\x07abcd"),
            Ok(Startup::Cancel { pid: 7, key: b"abcd".to_vec() })
        );
        assert_eq!(parse(b"\0\x02\0\0"), Ok(Startup::Unsupported { major: 2, minor: 0 }));
    }

    #[test]
    fn malformed_packets_are_refused() {
        for bad in [
            &b""[..],
            b"\x00\x03",
            b"\x00\x03\x00\x00user",
            b"\x00\x03\x00\x00user\0joe",
            b"\x00\x03\x00\x00user\0joe\0",
            b"\x00\x03\x00\x00user\0\xff\xfe\0\0",
            b"\x00\x03\x00\x00user\0joe\0\0x",
            b"\x04\xd2\x16\x2e\0\0\0\x07abc",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
