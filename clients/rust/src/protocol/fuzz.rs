//! One entry per fuzz target: it feeds arbitrary bytes to a decoder and checks what must always
//! hold.

use super::codec::outline;
use super::wire::{Wire, decode, encode};
use super::{Agreed, CompressionType, Encoding, Message, Value, frame};

/// The frames of a stream, with every kind of compression.
pub fn native_frame(data: &[u8]) {
    let Some((&choice, mut stream)) = data.split_first() else { return };
    let compression = match choice % 4 {
        0 => CompressionType::None,
        1 => CompressionType::Lz4,
        2 => CompressionType::Zstd,
        _ => CompressionType::Snappy,
    };
    let agreed = Agreed { compression, max_message_size: 1 << 20, ..Agreed::default() };
    let mut scratch = Vec::new();
    while let Ok(Some((header, payload))) = frame::split(stream, agreed.max_message_size) {
        let whole = frame::HEADER + payload.len();
        assert_eq!(header.bytes(), stream[..frame::HEADER]);
        if let Ok(body) = frame::open(&header, payload, &agreed, &mut scratch) {
            assert!(body.len() <= agreed.max_message_size as usize);
        }
        stream = &stream[whole..];
    }
}

/// A message: what is accepted can be written, and is then read as the same.
pub fn native_message(data: &[u8]) {
    again::<Message>(data);
}

/// A value, likewise.
pub fn native_value(data: &[u8]) {
    again::<Value>(data);
}

/// A message in another form than bincode: what is accepted can be written in every form, and is
/// then read as the same.
pub fn native_codec(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let encoding = Encoding::OPTIONAL[usize::from(choice) % Encoding::OPTIONAL.len()];
    assert!(outline(encoding, body).len() <= 2);
    let Ok(first) = encoding.decode(body) else { return };
    let through = |other: Encoding, message: &Message| {
        let mut written = Vec::new();
        assert_eq!(other.encode(message, &mut written), Ok(()));
        let reread = other.decode(&written);
        reread.unwrap_or_else(|e| unreachable!("what was written can be read: {e}"))
    };
    for other in Encoding::OPTIONAL {
        // Of a NaN the bits may be others, but only once.
        let second = through(other, &first);
        let (mut bytes, mut again) = (Vec::new(), Vec::new());
        encode(&second, &mut bytes);
        encode(&through(other, &second), &mut again);
        assert_eq!(bytes, again);
    }
}

fn again<T: Wire>(data: &[u8]) {
    let Ok(first) = decode::<T>(data) else { return };
    let mut bytes = Vec::new();
    encode(&first, &mut bytes);
    assert!(bytes.len() <= data.len(), "the written form is the shortest");
    // Compared as bytes: NaN is not equal to itself.
    let mut second = Vec::new();
    let reread = decode::<T>(&bytes).map(|value| encode(&value, &mut second));
    assert_eq!(reread, Ok(()), "what was written can be read");
    assert_eq!(bytes, second);
}
