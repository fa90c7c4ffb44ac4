//! What is wrong with a request, in the words of HTTP and JSON: the libraries that read it speak of
//! Rust's types.

/// A library's word, and ours; where one is the beginning of another, the longer one comes first.
const WORDS: [(&str, &str); 22] = [
    ("Failed to deserialize query string: ", ""),
    ("Invalid URL: ", ""),
    ("Cannot parse", "cannot read"),
    ("tuple struct ", "struct "),
    ("tuple variant ", "variant "),
    ("struct variant ", "variant "),
    ("a sequence", "an array"),
    ("sequence", "array"),
    ("a map", "an object"),
    ("map", "object"),
    ("unit variant", "one of the known words"),
    ("nonzero ", ""),
    ("usize", "whole number that is not negative"),
    ("u128", "whole number that is not negative"),
    ("u64", "whole number that is not negative"),
    ("u32", "whole number that is not negative"),
    ("u16", "whole number that is not negative"),
    ("u8", "whole number that is not negative"),
    ("i64", "whole number"),
    ("i32", "whole number"),
    ("f64", "number"),
    ("invalid digit found in string", "it is no whole number that is not negative"),
];

/// The same without a library's words. What is between `` ` `` or quotes was said by the client.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let is_inside_word = out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let known = WORDS.iter().find(|(word, _)| !is_inside_word && is_word(rest, word));
        if let Some(quoted) = quoted(rest, next) {
            // A type's name in quotes is the library's.
            let inner = quoted.trim_matches(next);
            match WORDS.iter().find(|(word, _)| *word == inner) {
                Some((_, ours)) => out.push_str(ours),
                None => out.push_str(quoted),
            }
            rest = &rest[quoted.len()..];
        } else if let Some((word, ours)) = known {
            out.push_str(ours);
            rest = &rest[word.len()..];
        } else if let Some(name) = rest.strip_prefix("struct ").filter(|_| !is_inside_word) {
            out.push_str("an object");
            rest = name.trim_start_matches(is_of_name);
        } else if let Some(name) = rest.strip_prefix("enum ").filter(|_| !is_inside_word) {
            out.push_str("forms");
            rest = name.trim_start_matches(is_of_name);
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether a text begins with a word, and not with a longer one.
fn is_word(text: &str, word: &str) -> bool {
    let ends = |rest: &str| word.ends_with(' ') || !rest.starts_with(is_of_name);
    text.strip_prefix(word).is_some_and(ends)
}

/// What a text begins with, if that is in quotes.
fn quoted(text: &str, quote: char) -> Option<&str> {
    let inside = text.strip_prefix(['`', '"'])?;
    Some(&text[..inside.find(quote)? + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_is_not_spoken() {
        for (said, expected) in [
            (
                "invalid type: string \"u64 map\", expected u64 at line 1 column 9",
                "invalid type: string \"u64 map\", expected whole number that is not negative \
                 at line 1 column 9",
            ),
            (
                "invalid type: integer `7`, expected struct Partitioning",
                "invalid type: integer `7`, expected an object",
            ),
            ("invalid type: map, expected a sequence", "invalid type: object, expected an array"),
            (
                "Invalid URL: Cannot parse `abc` to a `u64`",
                "cannot read `abc` to a whole number that is not negative",
            ),
            (
                "Failed to deserialize query string: limit: invalid digit found in string",
                "limit: it is no whole number that is not negative",
            ),
            (
                "unknown field `mapped`, expected `map_u64`",
                "unknown field `mapped`, expected `map_u64`",
            ),
            ("mapping \"é", "mapping \"é"),
            ("", ""),
        ] {
            assert_eq!(plain(said), expected, "{said}");
        }
    }
}
