//! The text format of OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>),
//! made of Prometheus'.

use std::collections::HashSet;
use std::fmt::Write;

/// A counter's family is named without `_total`, and the text has an end.
pub(super) fn open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let words = (words.next(), words.next(), words.next(), words.next());
        if let (Some("#"), Some(kind), Some(name), Some(rest)) = words
            && counters.contains(name)
        {
            let family = name.strip_suffix("_total").unwrap_or(name);
            // Writing to a string does not fail.
            let _ = writeln!(out, "# {kind} {family} {rest}");
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_lose_their_suffix_and_nothing_else_changes() {
        let text = "# HELP a_total Of a\n# TYPE a_total counter\na_total{x=\"y z\"} 1\n\
                    # HELP b Of b\n# TYPE b gauge\nb 2\n";
        let expected = "# HELP a Of a\n# TYPE a counter\na_total{x=\"y z\"} 1\n\
                        # HELP b Of b\n# TYPE b gauge\nb 2\n# EOF\n";
        assert_eq!(open_metrics(text), expected);
    }
}
