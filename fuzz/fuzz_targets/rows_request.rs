//! See `rustydb::query::fuzz::rows_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::query::fuzz::rows_request(data));
