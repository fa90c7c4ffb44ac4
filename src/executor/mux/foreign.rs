//! Settings with a dot, which PostgreSQL makes when somebody sets them: on a connection that others
//! have used they are there, and empty, where a session of its own would find none.

use super::Mux;
use crate::backend::ConnState;
use crate::proto::frame::HEADER;
use crate::query::classify;

impl Mux {
    /// Whether the client asks for a setting with a dot that others have made on the connection,
    /// and that it has not made itself.
    pub fn asks_for_foreign(&self, conn: &ConnState, requests: &[u8]) -> bool {
        if !requests.contains(&b'.') {
            return false;
        }
        let foreign = conn.foreign.iter().filter(|name| self.settings.get(name).is_none());
        let mut asked = foreign.filter(|name| mentions(requests, name)).peekable();
        if asked.peek().is_none() {
            return false;
        }
        let text = requests.get(HEADER..).unwrap_or(&[]);
        let text = text.split(|b| *b == 0).find(|part| !part.is_empty()).unwrap_or(&[]);
        let class = classify(text, &self.names);
        asked.any(|name| !class.custom_settings.contains(name))
    }
}

/// Whether the bytes contain a name with a dot, in capitals or not.
fn mentions(bytes: &[u8], name: &str) -> bool {
    let Some(before) = name.find('.') else { return false };
    let mut from = before;
    while let Some(dot) = bytes.get(from..).and_then(|rest| rest.iter().position(|b| *b == b'.')) {
        let begin = from + dot - before;
        let part = bytes.get(begin..begin + name.len());
        if part.is_some_and(|part| part.eq_ignore_ascii_case(name.as_bytes())) {
            return true;
        }
        from += dot + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand() {
        for (bytes, name, found) in [
            ("a.b", "a.b", true),
            ("select current_setting('My.Name')", "my.name", true),
            ("my.nam", "my.name", false),
            ("y.name", "my.name", false),
            ("x.my.name", "my.name", true),
            ("my.my.name.", "my.name", true),
            (".my.name", "my.name", true),
            ("a.b.c.d", "b.c.d", true),
            ("a.b.c", "b.c.d", false),
            ("..", "a.b", false),
            ("my_name", "my.name", false),
            ("", "a.b", false),
            ("a.b", "ab", false),
            ("\u{c4}.\u{d6}", "\u{c4}.\u{d6}", true),
        ] {
            assert_eq!(mentions(bytes.as_bytes(), name), found, "{name} in {bytes}");
        }
        assert!(mentions(b"Q\0\0\0\x12select\0\xffA.B\0", "a.b"));
    }
}
