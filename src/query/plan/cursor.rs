//! Where a page ended: the values that order its last row, in a text that clients hand back but
//! cannot make or change.
//!
//! Base64url of: version, hash of the order, number of values, each value (a byte whether it is
//! there, its length, its text), HMAC-SHA256 of all that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::PlanError;

/// Longest cursor in bytes; values that would make a longer one cannot be paged by.
pub const MAX_CURSOR: usize = 8 << 10;

const VERSION: u8 = 1;

/// Bytes of the HMAC.
const MAC: usize = 32;

/// The values that order a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which order they belong to ([`super::ReadPlan::order_hash`]).
    pub order: u64,
    /// Values in PostgreSQL's text form; `None` is NULL.
    pub values: Vec<Option<String>>,
}

impl Position {
    /// The cursor, signed with a key. `None` = the values are too long for one.
    pub fn encode(&self, key: &[u8]) -> Option<String> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.order.to_be_bytes());
        bytes.push(u8::try_from(self.values.len()).ok()?);
        for value in &self.values {
            bytes.push(u8::from(value.is_some()));
            let text = value.as_deref().unwrap_or("");
            bytes.extend_from_slice(&u32::try_from(text.len()).ok()?.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let mac = mac(key, &bytes)?.finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        (text.len() <= MAX_CURSOR).then_some(text)
    }

    /// Reads a cursor that was signed with the same key.
    pub fn decode(cursor: &str, key: &[u8]) -> Result<Self, PlanError> {
        const BAD: PlanError = PlanError::BadCursor("the cursor is not one of this server's");
        if cursor.len() > MAX_CURSOR {
            return Err(BAD);
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BAD)?;
        let (body, signature) = bytes.split_at_checked(bytes.len().wrapping_sub(MAC)).ok_or(BAD)?;
        mac(key, body).ok_or(BAD)?.verify_slice(signature).map_err(|_| BAD)?;
        parse(body).ok_or(BAD)
    }
}

fn mac(key: &[u8], bytes: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(bytes);
    Some(mac)
}

fn parse(body: &[u8]) -> Option<Position> {
    let (&[VERSION], rest) = body.split_first_chunk()? else { return None };
    let (order, rest) = rest.split_first_chunk()?;
    let (&[count], mut rest) = rest.split_first_chunk()?;
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (&[is_there], tail) = rest.split_first_chunk()?;
        let (length, tail) = tail.split_first_chunk()?;
        let (text, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let text = std::str::from_utf8(text).ok()?.to_owned();
        values.push((is_there == 1).then_some(text));
        rest = tail;
    }
    rest.is_empty().then_some(Position { order: u64::from_be_bytes(*order), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let position =
            Position { order: 7, values: vec![Some("a\u{e9}".into()), None, Some(String::new())] };
        let cursor = position.encode(b"key").unwrap();
        assert_eq!(Position::decode(&cursor, b"key").unwrap(), position);
        assert!(Position::decode(&cursor, b"other").is_err());
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Position::decode(&changed, b"key").is_err(), "byte {at} does not matter");
        }
        for short in ["", "A", "AAAA", &cursor[..20], &"A".repeat(MAX_CURSOR + 1)] {
            assert!(Position::decode(short, b"key").is_err());
        }
    }

    #[test]
    fn values_that_are_too_long_make_no_cursor() {
        let long = Position { order: 1, values: vec![Some("x".repeat(MAX_CURSOR))] };
        assert_eq!(long.encode(b"key"), None);
    }
}
