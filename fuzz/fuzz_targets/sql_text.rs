//! See `rustydb::query::fuzz::sql_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::query::fuzz::sql_text(data));
