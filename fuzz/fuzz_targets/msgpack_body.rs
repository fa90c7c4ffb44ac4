//! See `rustydb::frontend::http::fuzz::msgpack_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rustydb::frontend::http::fuzz::msgpack_body(data));
