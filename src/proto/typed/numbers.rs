//! Binary forms of numbers and addresses as the text that PostgreSQL would print.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::proto::{Cursor, Malformed};

/// Writes a `numeric` with its scale.
pub fn write_numeric(out: &mut String, raw: &[u8]) -> Result<(), Malformed> {
    let mut cursor = Cursor(raw);
    let count = cursor.i16()?;
    let weight = i32::from(cursor.i16()?);
    let sign = cursor.i16()? as u16;
    let scale = usize::from(cursor.i16()? as u16);
    match sign {
        0x0000 => {}
        0x4000 => out.push('-'),
        0xc000 => return put_word(out, "NaN"),
        0xd000 => return put_word(out, "Infinity"),
        0xf000 => return put_word(out, "-Infinity"),
        _ => return Err(Malformed("unknown sign of a numeric")),
    }
    let count = usize::try_from(count).map_err(|_| Malformed("negative count of digits"))?;
    let digits = cursor.take(count * 2)?;
    // Group `at` stands for that power of 10,000 below the first one.
    let group = |at: i32| {
        let place = usize::try_from(at).ok().and_then(|at| digits.chunks_exact(2).nth(at));
        place.map_or(0, |d| u16::from_be_bytes([d[0], d[1]]))
    };
    if weight < 0 {
        out.push('0');
    }
    for at in 0..=weight {
        let _ = if at == 0 { write!(out, "{}", group(0)) } else { write!(out, "{:04}", group(at)) };
    }
    if scale > 0 {
        out.push('.');
        let end = out.len() + scale;
        let mut at = weight + 1;
        while out.len() < end {
            let _ = write!(out, "{:04}", group(at));
            at += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

fn put_word(out: &mut String, word: &str) -> Result<(), Malformed> {
    out.push_str(word);
    Ok(())
}

/// Writes an `inet` or a `cidr`, which always has its mask.
pub fn write_inet(out: &mut String, raw: &[u8], is_cidr: bool) -> Result<(), Malformed> {
    let mut cursor = Cursor(raw);
    let (family, bits) = (cursor.u8()?, cursor.u8()?);
    let (_, length) = (cursor.u8()?, cursor.u8()?);
    let address = cursor.take(usize::from(length))?;
    let longest = match (family, address) {
        (2, &[a, b, c, d]) => {
            let _ = write!(out, "{}", Ipv4Addr::new(a, b, c, d));
            32
        }
        (3, address) => {
            let octets: [u8; 16] = address.try_into().map_err(|_| Malformed("short address"))?;
            write_ipv6(out, octets);
            128
        }
        _ => return Err(Malformed("unknown family of an address")),
    };
    if is_cidr || bits != longest {
        let _ = write!(out, "/{bits}");
    }
    Ok(())
}

/// As PostgreSQL does it, addresses that hold an IPv4 address end like one.
fn write_ipv6(out: &mut String, octets: [u8; 16]) {
    let address = Ipv6Addr::from(octets);
    let words = address.segments();
    let ends_like_ipv4 = words[..6] == [0; 6] && words[6] != 0;
    let _ = match ends_like_ipv4 {
        true => {
            let [.., a, b, c, d] = octets;
            write!(out, "::{}", Ipv4Addr::new(a, b, c, d))
        }
        false => write!(out, "{address}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(digits: &[u16], weight: i16, sign: u16, scale: u16) -> String {
        let mut raw = Vec::new();
        for word in [digits.len() as u16, weight as u16, sign, scale] {
            raw.extend_from_slice(&word.to_be_bytes());
        }
        digits.iter().for_each(|digit| raw.extend_from_slice(&digit.to_be_bytes()));
        let mut out = String::new();
        write_numeric(&mut out, &raw).unwrap();
        out
    }

    #[test]
    fn numerics() {
        assert_eq!(numeric(&[], 0, 0, 0), "0");
        assert_eq!(numeric(&[], 0, 0, 3), "0.000");
        assert_eq!(numeric(&[12, 5000], 0, 0, 2), "12.50");
        assert_eq!(numeric(&[1], 2, 0x4000, 0), "-100000000");
        assert_eq!(numeric(&[1], -2, 0, 8), "0.00000001");
        assert_eq!(numeric(&[1, 2, 3], 1, 0, 4), "10002.0003");
        assert_eq!(numeric(&[], 0, 0xc000, 0), "NaN");
        assert_eq!(numeric(&[], 0, 0xf000, 0), "-Infinity");
        assert!(write_numeric(&mut String::new(), &[0, 1, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(write_numeric(&mut String::new(), &[0xff; 8]).is_err());
    }

    #[test]
    fn addresses() {
        let text = |raw: &[u8], cidr| {
            let mut out = String::new();
            write_inet(&mut out, raw, cidr).map(|()| out)
        };
        assert_eq!(text(&[2, 8, 0, 4, 10, 0, 0, 1], false).unwrap(), "10.0.0.1/8");
        assert_eq!(text(&[2, 32, 0, 4, 10, 0, 0, 1], false).unwrap(), "10.0.0.1");
        assert_eq!(text(&[2, 32, 1, 4, 10, 0, 0, 1], true).unwrap(), "10.0.0.1/32");
        let mut v6 = [0; 20];
        (v6[0], v6[1], v6[3], v6[19]) = (3, 128, 16, 1);
        assert_eq!(text(&v6, false).unwrap(), "::1");
        v6[4] = 0x20;
        assert_eq!(text(&v6, false).unwrap(), "2000::1");
        assert!(text(&[2, 8, 0, 9, 1], false).is_err());
    }
}
