//! See `rustydb::proto::fuzz::startup_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::proto::fuzz::startup_packet(data));
