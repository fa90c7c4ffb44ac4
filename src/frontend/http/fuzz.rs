//! What fuzz targets feed: bodies of HTTP requests that are read here and not by a library.

use super::formats::unpack;

/// A body in MessagePack becomes JSON that serde_json reads, or an error.
pub fn msgpack_body(data: &[u8]) {
    let Ok(json) = unpack(data) else { return };
    assert!(json.len() <= 8 * data.len() + 32, "{} bytes of {}", json.len(), data.len());
    let read = serde_json::from_slice::<serde::de::IgnoredAny>(&json);
    assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(&json));
}

#[cfg(test)]
mod tests {
    #[test]
    fn documents_at_the_bounds() {
        for data in
            [&b""[..], b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x81\xa1a\xcb\x7f\xf0\0\0\0\0\0\0"]
        {
            super::msgpack_body(data);
        }
        for depth in 120..140 {
            super::msgpack_body(&[vec![0x91; depth], vec![0xc0]].concat());
        }
        super::msgpack_body(&[&[0xd9, 200][..], &[1; 200]].concat());
    }
}
