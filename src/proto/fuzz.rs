//! One entry per fuzz target: it feeds arbitrary bytes to a parser and checks what must always
//! hold. The `fuzz/` folder calls these with coverage guidance, the test below with a fixed seed.

use super::frame::{FrameBuf, HEADER, Scanner, Step};
use super::{backend, frontend, json, proxy, startup};

/// The frame scanner, fed in pieces: what passes is what came in, in order.
pub fn frame_scanner(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else { return };
    let rule = if piece & 1 == 0 { backend::relay_rule } else { frontend::session_rule };
    let (mut scanner, mut buf) = (Scanner::default(), FrameBuf::default());
    let mut passed = 0;
    for chunk in stream.chunks(usize::from(piece / 2).max(1)) {
        buf.tail(chunk.len()).extend_from_slice(chunk);
        loop {
            match scanner.step(buf.unscanned(), rule) {
                Step::Pass(n) => buf.mark_scanned(n),
                Step::Begin { .. } => buf.mark_scanned(HEADER),
                Step::Whole { body, .. } => buf.mark_scanned(HEADER + body),
                Step::More(n) => {
                    assert!(n > buf.unscanned().len(), "asked for what is there");
                    break;
                }
                Step::Invalid { .. } => return,
            }
        }
        assert!(stream[passed..].starts_with(buf.scanned()), "bytes changed or moved");
        passed += buf.scanned().len();
        buf.consume_scanned();
    }
}

/// The first bytes and start-up packets of a client, and what a proxy says before them.
pub fn startup_packet(data: &[u8]) {
    if startup::detect(data).is_none() {
        assert!(data.len() < startup::DETECT_BYTES, "eight bytes must decide");
    }
    let _ = startup::parse(data);
    if let Ok(proxy::Header::Missing(n)) = proxy::parse(data) {
        assert!(n > 0, "asked for nothing");
    }
}

/// Every message of a server that is read.
pub fn backend_message(data: &[u8]) {
    if let Ok(report) = backend::Report::parse(data) {
        let _ = report.to_error();
    }
    records(data);
    let _ = backend::parameter_status(data);
    let _ = backend::row_description(data);
    let _ = backend::parameter_description(data);
    let _ = backend::command_complete(data);
    let _ = backend::TxStatus::parse(data);
    if let Ok(row) = backend::DataRow::parse(data) {
        for value in row.flatten().flatten() {
            let mut out = Vec::new();
            json::write_value(&mut out, value, &json::Shape::Text, json::Style::default());
        }
    }
}

/// Rows within a row: what is understood is JSON.
pub fn records(data: &[u8]) {
    let inner = vec![json::Member::new("b", json::Value::Bool)];
    let inner = json::Records { is_one: false, members: inner };
    let members = vec![
        json::Member::new("i", json::Value::Int(json::Shape::Int8)),
        json::Member::new("t", json::Value::Text(json::Shape::Numeric)),
        json::Member::new("r", json::Value::Records(inner)),
    ];
    for is_one in [false, true] {
        let (mut out, members) = (Vec::new(), members.clone());
        let records = json::Records { is_one, members };
        if records.write(Some(data), json::Style::default(), &mut out).is_ok() {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(&out);
            assert!(json.is_ok(), "no JSON came of it");
        }
    }
}

/// The native protocol has its own.
pub use super::native::fuzz::{native_codec, native_frame, native_message, native_value};

#[cfg(test)]
mod tests {
    use super::*;

    /// Xorshift: the same bytes in every run.
    fn random_bytes(seed: &mut u64, most: u64) -> Vec<u8> {
        let mut next = || {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            *seed
        };
        let length = next() % most;
        // Small numbers and real tags reach deeper than uniform noise does.
        const LIKELY: &[u8] = b"\0\0\0\0\x01\x04\x05\x08QPBDESXZCTIE\xff\x16RUSTYDB";
        (0..length)
            .map(|_| match next() % 4 {
                0 => (next() >> 8) as u8,
                n => LIKELY[(next() % (LIKELY.len() as u64 - n)) as usize],
            })
            .collect()
    }

    #[test]
    fn no_parser_panics_on_random_bytes() {
        let mut seed = 0x5eed_1234_abcd_0001;
        for _ in 0..60_000 {
            let data = random_bytes(&mut seed, 200);
            frame_scanner(&data);
            startup_packet(&data);
            backend_message(&data);
        }
    }
}
