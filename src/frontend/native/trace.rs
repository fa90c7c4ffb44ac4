//! Where a request belongs, in the words of its client: W3C Trace Context.

/// The trace of a `traceparent`; `None` = it is not one, and as the recommendation wants it the
/// request goes on without.
pub(super) fn trace_id(traceparent: &str) -> Option<&str> {
    let bytes = traceparent.as_bytes();
    let is_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    if !bytes.is_ascii() || bytes.len() < 55 || [2, 35, 52].iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    let (version, trace) = (&traceparent[..2], &traceparent[3..35]);
    let (parent, flags) = (&traceparent[36..52], &traceparent[53..55]);
    let ends_well = match version {
        "00" => bytes.len() == 55,
        // A later version may have more fields.
        _ => bytes.get(55).is_none_or(|next| *next == b'-'),
    };
    let is_valid = [version, trace, parent, flags].into_iter().all(is_hex)
        && version != "ff"
        && !is_zero(trace)
        && !is_zero(parent)
        && ends_well;
    is_valid.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_trace_and_what_is_not() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |version: &str, trace: &str, rest: &str| {
            trace_id(&format!("{version}-{trace}-{rest}")).map(str::to_owned)
        };
        let right = Some(TRACE.to_owned());
        assert_eq!(of("00", TRACE, "00f067aa0ba902b7-01"), right);
        assert_eq!(of("cc", TRACE, "00f067aa0ba902b7-01-more"), right);
        assert_eq!(of("cc", TRACE, "00f067aa0ba902b7-01"), right);
        for (version, trace, rest) in [
            ("ff", TRACE, "00f067aa0ba902b7-01"),
            ("00", TRACE, "00f067aa0ba902b7-01-more"),
            ("cc", TRACE, "00f067aa0ba902b7-01.more"),
            ("00", TRACE, "0000000000000000-01"),
            ("00", TRACE, "00f067aa0ba902b7-0x"),
            ("00", TRACE, "00f067aa0ba902b7-0"),
            ("0", TRACE, "00f067aa0ba902b7-011"),
            ("00", &TRACE.to_uppercase(), "00f067aa0ba902b7-01"),
            ("00", &"0".repeat(32), "00f067aa0ba902b7-01"),
            ("00", "é", "00f067aa0ba902b7-01-00000000000000000000000000000"),
        ] {
            assert_eq!(of(version, trace, rest), None, "{version} {trace} {rest}");
        }
        assert_eq!(trace_id(""), None);
        assert_eq!(trace_id(&"é".repeat(40)), None);
    }
}
