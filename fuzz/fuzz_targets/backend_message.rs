//! See `rustydb::proto::fuzz::backend_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::proto::fuzz::backend_message(data));
