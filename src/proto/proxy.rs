//! The PROXY protocol, versions 1 and 2: what a load balancer says of the client before the first
//! byte of the client (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Malformed;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1, its end included.
const LONGEST_V1: usize = 107;

/// Longest header of version 2 that is taken: addresses, and some hundred bytes of extensions.
const LONGEST_V2: usize = 16 + 1024;

const FIXED_V2: usize = 16;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// At least this many bytes more belong to it.
    Missing(usize),
    /// It is whole. The client's address, where the header names one: a health check of the load
    /// balancer itself has none.
    Client(Option<SocketAddr>),
}

/// Reads a header from its beginning. Bytes after it are never asked for.
///
/// # Errors
/// It is none.
pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    match bytes {
        [] => Ok(Header::Missing(1)),
        [b'P', ..] => version_1(bytes),
        [b'\r', ..] => version_2(bytes),
        _ => Err(Malformed("the PROXY protocol header is missing")),
    }
}

fn version_1(bytes: &[u8]) -> Result<Header, Malformed> {
    const WRONG: Malformed = Malformed("malformed PROXY protocol header");
    let line = match bytes.strip_suffix(b"\r\n") {
        Some(line) => std::str::from_utf8(line).map_err(|_| WRONG)?,
        None if bytes.len() >= LONGEST_V1 || bytes.contains(&b'\n') => return Err(WRONG),
        // The shortest whole line has fifteen bytes; after that its end comes byte by byte.
        None => return Ok(Header::Missing(15usize.saturating_sub(bytes.len()).max(1))),
    };
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(Header::Client(None)),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip: IpAddr = source.parse().map_err(|_| WRONG)?;
            let port: u16 = port.parse().map_err(|_| WRONG)?;
            match ip.is_ipv4() == (family == "TCP4") {
                true => Ok(Header::Client(Some((ip, port).into()))),
                false => Err(WRONG),
            }
        }
        _ => Err(WRONG),
    }
}

fn version_2(bytes: &[u8]) -> Result<Header, Malformed> {
    const WRONG: Malformed = Malformed("malformed PROXY protocol header");
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(WRONG);
    }
    if bytes.len() < FIXED_V2 {
        return Ok(Header::Missing(FIXED_V2 - bytes.len()));
    }
    let whole = FIXED_V2 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if whole > LONGEST_V2 || bytes[12] >> 4 != 2 {
        return Err(WRONG);
    }
    if bytes.len() < whole {
        return Ok(Header::Missing(whole - bytes.len()));
    }
    let body = &bytes[FIXED_V2..];
    match (bytes[12] & 0x0f, bytes[13]) {
        (0, _) => Ok(Header::Client(None)),
        (1, 0x11) => {
            let (ip, ports) = split::<4>(body).ok_or(WRONG)?;
            Ok(Header::Client(Some((Ipv4Addr::from(ip), ports).into())))
        }
        (1, 0x21) => {
            let (ip, ports) = split::<16>(body).ok_or(WRONG)?;
            Ok(Header::Client(Some((Ipv6Addr::from(ip), ports).into())))
        }
        // A Unix socket on the far side, or not said.
        (1, _) => Ok(Header::Client(None)),
        _ => Err(WRONG),
    }
}

/// Source address, destination address, source port, …
fn split<const N: usize>(body: &[u8]) -> Option<([u8; N], u16)> {
    let ip = body.first_chunk::<N>()?;
    let port = body.get(2 * N..2 * N + 4)?;
    Some((*ip, u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    /// Reads as a socket is read: never more than is asked for.
    fn read(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), Malformed> {
        let mut have = 0;
        loop {
            match parse(&bytes[..have])? {
                Header::Missing(n) if have + n > bytes.len() => return Err(Malformed("short")),
                Header::Missing(n) => have += n,
                Header::Client(client) => return Ok((client, have)),
            }
        }
    }

    #[test]
    fn both_versions_name_the_client_and_leave_what_follows() {
        let v4 = [10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0x15, 0x38];
        let mut v6 = [0u8; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&[0, 80]);
        for (header, client) in [
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 12345 5432\r\n".to_vec(), Some("10.0.0.1:12345")),
            (b"PROXY TCP6 ::1 ::2 80 5432\r\n".to_vec(), Some("[::1]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ff x y z\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("10.0.0.1:12345")),
            (v2(0x21, 0x11, &[&v4[..], b"\x04\0\x03abc"].concat()), Some("10.0.0.1:12345")),
            (v2(0x21, 0x21, &v6), Some("[::1]:80")),
            (v2(0x20, 0x00, b""), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = client.map(|text| text.parse().unwrap());
            let whole = [&header[..], b"PROXY"].concat();
            assert_eq!(read(&whole), Ok((expected, header.len())), "{client:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        for bad in [
            b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(),
            b"POST / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 80 5432\r\n".to_vec(),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 99999 5432\r\n".to_vec(),
            b"PROXY TCP4 10.0.0.1\r\n".to_vec(),
            b"PROXY TCP4 10.0.0.1 1\nxxxxxxxxxxx".to_vec(),
            long.into_bytes(),
            b"\r\n\r\n\0\r\nQUIT\r\x21\x11\0\0".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x11, &[0; 4000]),
        ] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
    }
}
