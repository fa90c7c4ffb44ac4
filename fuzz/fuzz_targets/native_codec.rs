//! See `rustydb::proto::fuzz::native_codec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::proto::fuzz::native_codec(data));
