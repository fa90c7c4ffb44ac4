//! See `rustydb::proto::fuzz::frame_scanner`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::proto::fuzz::frame_scanner(data));
