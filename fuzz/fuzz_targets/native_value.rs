//! See `rustydb::proto::fuzz::native_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::proto::fuzz::native_value(data));
