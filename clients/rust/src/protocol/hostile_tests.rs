//! Bytes of a stranger: nothing panics, nothing is taken on trust, and bincode would agree.

use bincode::config::standard;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::HEADER;
use super::vector_tests::{agreed, bytes, entries, file, name, read_frame};
use super::wire::{Fault, MAX_NESTING, Wire, decode, encode};
use super::{Dimension, Message, Value};

/// The bodies of all frames that are not compressed or checked.
fn bodies() -> Vec<(String, Vec<u8>)> {
    let file = file();
    let plain = |entry: &&serde_json::Value| entry["flags"].as_u64().unwrap() & 3 == 0;
    let frames = entries(&file, "frames").iter().filter(plain);
    frames.map(|entry| (name(entry).to_owned(), bytes(entry)[HEADER..].to_vec())).collect()
}

/// What we make of the bytes is what bincode makes of them.
fn agrees_with_bincode<T>(data: &[u8], what: &str)
where
    T: Wire + Serialize + DeserializeOwned,
{
    let limited = standard().with_limit::<{ 64 << 20 }>();
    let theirs = bincode::serde::decode_from_slice::<T, _>(data, limited);
    let theirs = theirs.ok().filter(|(_, read)| *read == data.len()).map(|(value, _)| {
        // Compared as bytes: NaN is not equal to itself.
        bincode::serde::encode_to_vec(value, standard()).unwrap()
    });
    let ours = decode::<T>(data).ok().map(|value| {
        let mut bytes = Vec::new();
        encode(&value, &mut bytes);
        bytes
    });
    assert_eq!(ours, theirs, "{what}: {data:02x?}");
}

#[test]
fn every_prefix_of_a_message_is_refused() {
    for (name, body) in bodies() {
        for end in 0..body.len() {
            assert!(decode::<Message>(&body[..end]).is_err(), "{name}: {end} bytes");
        }
    }
}

#[test]
fn every_flipped_bit_gives_an_error_or_what_bincode_reads() {
    for (name, body) in bodies() {
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            agrees_with_bincode::<Message>(&damaged, &name);
        }
    }
    let file = file();
    for entry in entries(&file, "values") {
        let body = bytes(entry);
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            agrees_with_bincode::<Value>(&damaged, name(entry));
        }
    }
}

#[test]
fn every_flipped_bit_and_prefix_of_a_frame_is_survived() {
    let file = file();
    for entry in entries(&file, "frames") {
        let whole = bytes(entry);
        let agreed = agreed(entry, entry["flags"].as_u64().unwrap() as u16);
        for end in 0..whole.len() {
            assert!(read_frame(&whole[..end], &agreed).is_err(), "{}: {end}", name(entry));
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A shorter length leaves bytes that belong to a next frame.
            if bit >= 32 {
                let _ = read_frame(&damaged, &agreed);
            }
        }
    }
}

#[test]
fn longer_forms_are_accepted_if_they_fit() {
    for (bytes, value) in [
        (&[0xfb, 1, 0][..], 1),
        (&[0xfb, 0, 0], 0),
        (&[0xfc, 1, 0, 0, 0], 1),
        (&[0xfd, 1, 0, 0, 0, 0, 0, 0, 0], 1),
    ] {
        assert_eq!(decode::<u64>(bytes), Ok(value));
        agrees_with_bincode::<u64>(bytes, "u64");
        agrees_with_bincode::<u32>(bytes, "u32");
        agrees_with_bincode::<u16>(bytes, "u16");
        agrees_with_bincode::<i16>(bytes, "i16");
    }
    for first in 0..=255 {
        for second in [0, 1, 0x7f, 0x80, 0xff] {
            let bytes = [first, second, 0, 0, 0, 0, 0, 0, 0x80];
            for end in 0..=bytes.len() {
                agrees_with_bincode::<u64>(&bytes[..end], "u64");
                agrees_with_bincode::<i64>(&bytes[..end], "i64");
                agrees_with_bincode::<i32>(&bytes[..end], "i32");
                agrees_with_bincode::<u16>(&bytes[..end], "u16");
                agrees_with_bincode::<i8>(&bytes[..end], "i8");
                agrees_with_bincode::<bool>(&bytes[..end], "bool");
            }
        }
    }
}

/// So many arrays around a number.
fn arrays(depth: usize) -> Value {
    (0..depth).fold(Value::Int4(1), |inner, _| Value::Array {
        element_oid: 23,
        dims: vec![Dimension { len: 1, lower: 1 }],
        values: vec![inner],
    })
}

#[test]
fn values_nest_so_deep_and_no_deeper() {
    for (depth, fault) in
        [(MAX_NESTING, None), (MAX_NESTING + 1, Some(Fault::TooLarge)), (40, Some(Fault::TooLarge))]
    {
        let value = arrays(depth);
        let mut bytes = Vec::new();
        encode(&value, &mut bytes);
        assert_eq!(decode::<Value>(&bytes).err().map(|e| e.fault), fault, "{depth}");
    }
    // Half a million levels, far more than a stack has room for.
    let deep: Vec<u8> = [0x1c, 0, 1].repeat(500_000);
    assert_eq!(decode::<Value>(&deep).unwrap_err().fault, Fault::TooLarge);
}

#[test]
fn memory_is_counted_before_it_is_taken() {
    // A forged count of the largest elements there are, with and without bytes behind it.
    for count in [1u64 << 20, 1 << 30, 1 << 40, u64::MAX] {
        for rest in [0, 100] {
            let mut bytes = vec![3, 0];
            super::Writer::new(&mut bytes).unsigned(count);
            bytes.extend(std::iter::repeat_n(0, rest));
            assert!(decode::<Message>(&bytes).is_err(), "{count}");
        }
    }
    // 16 MiB of NULLs are honest, but would take far more than 64 MiB.
    let many = (16 << 20) - 64;
    let mut bytes = vec![3, 0];
    super::Writer::new(&mut bytes).unsigned(many);
    bytes.extend(std::iter::repeat_n(0, many as usize + 2));
    let refused = decode::<Message>(&bytes).unwrap_err();
    assert_eq!((refused.sqlstate(), refused.code()), ("54000", "PAYLOAD_TOO_LARGE"));
    assert!(!refused.is_fatal());
}

#[test]
fn random_bytes_are_survived() {
    let mut seed = 0x5eed_1234_abcd_0001u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..60_000 {
        let length = next() % 64;
        // Small numbers reach deeper than uniform noise does.
        let data: Vec<u8> = (0..length)
            .map(|_| if next() % 3 == 0 { (next() >> 8) as u8 } else { (next() % 32) as u8 })
            .collect();
        super::fuzz::native_frame(&data);
        super::fuzz::native_message(&data);
        super::fuzz::native_value(&data);
        super::fuzz::native_codec(&data);
        agrees_with_bincode::<Message>(&data, "message");
    }
}
