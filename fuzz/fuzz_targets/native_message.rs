//! See `rustydb::proto::fuzz::native_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::proto::fuzz::native_message(data));
