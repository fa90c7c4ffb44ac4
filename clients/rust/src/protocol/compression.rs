//! Bodies of frames made smaller, and back to what they say they are.
//!
//! A compressed body begins with its real size, four bytes, little-endian.

use super::session::CompressionType;
use super::wire::{Fault, Violation};

/// Bodies below this size are not worth it, in bytes.
pub const THRESHOLD: usize = 1024;

/// Bytes of the stated size.
pub const SIZE: usize = 4;

// Zstandard's fastest ordinary level: a frame is made once and read once.
const ZSTD_LEVEL: i32 = 1;

const FAILED: Violation =
    Violation { fault: Fault::Decompression, text: "a body cannot be decompressed" };

/// Appends the stated size and the compressed body to `out`, if that is smaller than the body;
/// otherwise leaves `out` as it is and returns false.
pub fn compress(how: CompressionType, body: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let Ok(size) = u32::try_from(body.len()) else { return false };
    let bound = match how {
        CompressionType::None => return false,
        CompressionType::Lz4 => lz4_flex::block::get_maximum_output_size(body.len()),
        CompressionType::Zstd => zstd::zstd_safe::compress_bound(body.len()),
        CompressionType::Snappy => snap::raw::max_compress_len(body.len()),
    };
    out.extend_from_slice(&size.to_le_bytes());
    let begin = out.len();
    out.resize(begin + bound, 0);
    let free = &mut out[begin..];
    let written = match how {
        CompressionType::None => None,
        CompressionType::Lz4 => lz4_flex::block::compress_into(body, free).ok(),
        CompressionType::Zstd => zstd::bulk::compress_to_buffer(body, free, ZSTD_LEVEL).ok(),
        CompressionType::Snappy => snap::raw::Encoder::new().compress(body, free).ok(),
    };
    match written {
        Some(written) if SIZE + written < body.len() => {
            out.truncate(begin + written);
            true
        }
        _ => {
            out.truncate(start);
            false
        }
    }
}

/// Decompresses a body into `out`, which is emptied first. `most` is the largest size accepted.
///
/// # Errors
/// [`Fault::Decompression`] if the body is not what it says.
pub fn decompress(
    how: CompressionType,
    compressed: &[u8],
    most: u32,
    out: &mut Vec<u8>,
) -> Result<(), Violation> {
    let (size, body) = compressed.split_first_chunk::<SIZE>().ok_or(FAILED)?;
    let size = u32::from_le_bytes(*size);
    if size > most {
        let text = "a body states a size above the longest message";
        return Err(Violation { text, ..FAILED });
    }
    let size = size as usize;
    out.clear();
    if !may_hold(how, body, size) {
        return Err(FAILED);
    }
    // Zeroed memory of this size is not touched before it is written, so a forged size costs
    // address space only.
    *out = vec![0; size];
    let written = match how {
        CompressionType::None => None,
        CompressionType::Lz4 => lz4_flex::block::decompress_into(body, out).ok(),
        CompressionType::Zstd => zstd::bulk::decompress_to_buffer(body, &mut out[..]).ok(),
        CompressionType::Snappy => snap::raw::Decoder::new().decompress(body, out).ok(),
    };
    if written == Some(size) {
        return Ok(());
    }
    *out = Vec::new();
    Err(FAILED)
}

/// Whether the body can be of that size at all, as far as can be told without decompressing.
fn may_hold(how: CompressionType, body: &[u8], size: usize) -> bool {
    match how {
        CompressionType::None => false,
        // A byte of LZ4 stands for at most 255.
        CompressionType::Lz4 => size / 256 <= body.len(),
        CompressionType::Snappy => snap::raw::decompress_len(body) == Ok(size),
        // One frame, and nothing after it.
        CompressionType::Zstd => {
            zstd::zstd_safe::find_frame_compressed_size(body) == Ok(body.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CompressionType; 3] =
        [CompressionType::Lz4, CompressionType::Zstd, CompressionType::Snappy];

    #[test]
    fn what_was_compressed_comes_back() {
        let body: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for how in ALL {
            let (mut small, mut large) = (b"before".to_vec(), vec![1, 2, 3]);
            assert!(compress(how, &body, &mut small));
            assert!(small.len() < body.len());
            decompress(how, &small[6..], 16 << 20, &mut large).unwrap();
            assert!(large == body, "{how:?}");
        }
    }

    #[test]
    fn what_does_not_get_smaller_stays() {
        let mut seed = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(5000)
        .collect();
        for how in [CompressionType::None].into_iter().chain(ALL) {
            let mut out = vec![7];
            assert!(!compress(how, &noise, &mut out), "{how:?}");
            assert_eq!(out, [7]);
        }
    }

    #[test]
    fn decompression_stops_at_the_stated_size() {
        let bomb = vec![0; 8 << 20];
        for how in ALL {
            let mut small = Vec::new();
            assert!(compress(how, &bomb, &mut small));
            let mut out = Vec::new();
            let said = |size: u32| {
                let mut forged = small.clone();
                forged[..SIZE].copy_from_slice(&size.to_le_bytes());
                forged
            };
            for size in [0, 1, 1 << 20, (8 << 20) - 1, (8 << 20) + 1] {
                let refused = decompress(how, &said(size), 16 << 20, &mut out).unwrap_err();
                assert_eq!(refused.fault, Fault::Decompression, "{how:?} {size}");
                assert_eq!(out.capacity(), 0);
            }
            assert!(decompress(how, &small, 1 << 20, &mut out).is_err(), "{how:?}: above the most");
            assert!(decompress(how, &small[..3], 16 << 20, &mut out).is_err());
            small.push(0);
            assert!(decompress(how, &small, 16 << 20, &mut out).is_err(), "{how:?}: a byte more");
        }
    }

    #[test]
    fn damaged_bodies_never_panic() {
        let body: Vec<u8> = (0..3000u32).map(|n| (n % 50) as u8).collect();
        for how in ALL {
            let mut small = Vec::new();
            assert!(compress(how, &body, &mut small));
            let mut out = Vec::new();
            for bit in 0..small.len() * 8 {
                let mut damaged = small.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let _ = decompress(how, &damaged, 1 << 20, &mut out);
            }
            for end in 0..small.len() {
                assert!(decompress(how, &small[..end], 1 << 20, &mut out).is_err());
            }
        }
    }
}
