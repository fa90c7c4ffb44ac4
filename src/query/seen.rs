//! Texts that were read not long ago and leave nothing behind: the next one that differs from such
//! a text in its whole numbers alone means the same to a session, and need not be read again.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Weak};

use super::classify::{Class, classify};
use super::lexer::{Lexer, Token};
use super::names::Names;

/// Texts that a thread remembers.
const MOST: usize = 64;

/// Lengths of texts worth it, in bytes: shorter ones are read as fast.
const LENGTHS: Range<usize> = 32..513;

/// Other texts that come to the place of one before it makes room, unless it is met again. Texts
/// that are met once only would otherwise cost more than they save.
const PATIENCE: u32 = 64;

thread_local! {
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen([const { None }; MOST])) };
}

/// The same as [`classify`], from what this thread has read before where that is enough.
pub fn classify_again(sql: &[u8], names: &Arc<Names>) -> Class {
    if !LENGTHS.contains(&sql.len()) {
        return classify(sql, names);
    }
    SEEN.with_borrow_mut(|seen| seen.classify(sql, names))
}

struct Seen([Option<Box<Entry>>; MOST]);

struct Entry {
    /// What its words were compared with. It is not kept alive, but its place in memory is.
    names: Weak<Names>,
    text: Box<[u8]>,
    /// What of the text is not a whole number: there is one between each two of them.
    pieces: Box<[Range<usize>]>,
    timeless: bool,
    /// Other texts since it was met.
    others: u32,
}

impl Seen {
    fn classify(&mut self, sql: &[u8], names: &Arc<Names>) -> Class {
        let slot = &mut self.0[place(sql)];
        if let Some(entry) = slot {
            if entry.is_met(sql, names) {
                entry.others = 0;
                return plain(entry.timeless);
            }
            entry.others += 1;
            if entry.others < PATIENCE {
                return classify(sql, names);
            }
        }
        let class = classify(sql, names);
        if class == plain(class.timeless) {
            *slot = Some(Box::new(Entry::of(sql, names, class.timeless)));
        }
        class
    }
}

/// Of a text that leaves nothing behind.
fn plain(timeless: bool) -> Class {
    Class { timeless, ..Class::default() }
}

/// Texts with the same beginning are looked for in the same place.
fn place(sql: &[u8]) -> usize {
    let words = sql.chunks_exact(8).take(4);
    let mix = |all: u64, word: &[u8]| {
        let word = word.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        (all ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    };
    words.fold(0, mix) as usize % MOST
}

impl Entry {
    fn of(sql: &[u8], names: &Arc<Names>, timeless: bool) -> Self {
        let (mut pieces, mut from) = (Vec::new(), 0);
        let mut lexer = Lexer::new(sql);
        while let Some(token) = lexer.next() {
            let whole = lexer.begin..lexer.position();
            // Not a parameter, nor 1.5 or 1e5.
            let is_whole = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
            if token == Token::Number && sql.get(whole.clone()).is_some_and(is_whole) {
                pieces.push(from..whole.start);
                from = whole.end;
            }
        }
        pieces.push(from..sql.len());
        let names = Arc::downgrade(names);
        Self { names, text: sql.into(), pieces: pieces.into(), timeless, others: 0 }
    }

    /// Whether a text is this one but for its whole numbers. What follows a number in it ends a
    /// number in any text, so both have the same tokens.
    fn is_met(&self, sql: &[u8], names: &Arc<Names>) -> bool {
        if self.names.as_ptr() != Arc::as_ptr(names) {
            return false;
        }
        let mut rest = sql;
        for (number, piece) in self.pieces.iter().enumerate() {
            if number > 0 {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits == 0 {
                    return false;
                }
                rest = &rest[digits..];
            }
            let Some(behind) = rest.strip_prefix(&self.text[piece.clone()]) else { return false };
            rest = behind;
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen([const { None }; MOST])
    }

    /// A database that was looked at, and in which no name has an effect.
    fn known() -> Arc<Names> {
        let mut names = Names::default();
        names.complete();
        Arc::new(names)
    }

    fn is_remembered(seen: &Seen, sql: &str, names: &Arc<Names>) -> bool {
        let entry = seen.0[place(sql.as_bytes())].as_ref();
        entry.is_some_and(|entry| entry.is_met(sql.as_bytes(), names))
    }

    /// Pieces that are put together in every order, with other numbers in them.
    const PARTS: [&str; 20] = [
        "12",
        " ",
        "f3(",
        "'4'",
        "$5",
        "$",
        "6.7",
        "8e9",
        "0x1f",
        "e'\\1'",
        "\"a\"2",
        ".3",
        "-- 4",
        "/* 5",
        "*/",
        "u&'\\0061'",
        "nextval('s1')",
        ";",
        "set a.b1 = 2",
        "b",
    ];

    #[test]
    fn what_is_remembered_is_what_would_be_read() {
        let names = known();
        let mut seen = seen();
        let other = |text: &str, by: u8| -> String {
            let change = |c: char| match c {
                '0'..='8' => char::from(c as u8 + by),
                c => c,
            };
            text.chars().map(change).collect()
        };
        let mut checked = 0;
        for a in PARTS {
            for b in PARTS {
                for c in PARTS {
                    let sql = format!("select column_of_a_table from a_table where {a}{b}{c}");
                    for text in [sql.clone(), other(&sql, 1), sql.replace("12", "345")] {
                        let expected = classify(text.as_bytes(), &names);
                        let found = seen.classify(text.as_bytes(), &names);
                        assert_eq!(found, expected, "{text}");
                        checked += usize::from(is_remembered(&seen, &text, &names));
                    }
                    seen.0.iter_mut().for_each(|slot| *slot = None);
                }
            }
        }
        assert!(checked > 1000, "{checked}");
    }

    #[test]
    fn numbers_differ_and_nothing_else() {
        let names = Arc::new(Names::default());
        let mut seen = seen();
        let first = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";
        seen.classify(first.as_bytes(), &names);
        // A database that was not looked at: every name may have an effect.
        assert!(!is_remembered(&seen, first, &names));
        let names = known();
        seen.classify(first.as_bytes(), &names);
        for (text, is) in [
            (first, true),
            ("SELECT abalance FROM pgbench_accounts WHERE aid = 4711", true),
            ("SELECT abalance FROM pgbench_accounts WHERE aid = 1;", false),
            ("SELECT abalance FROM pgbench_accounts WHERE aid = a", false),
            ("SELECT abalance FROM pgbench_accounts WHERE aid = 1a", false),
            ("SELECT abalance FROM pgbench_accounts WHERE aid = ", false),
            ("SELECT abalance FROM pgbench_accounts WHERE bid = 1", false),
        ] {
            assert_eq!(is_remembered(&seen, text, &names), is, "{text}");
        }
        assert!(!is_remembered(&seen, first, &known()), "another database");
    }

    #[test]
    fn one_that_is_met_again_stays() {
        let names = known();
        let mut seen = seen();
        let texts = |n: u32| format!("select 'a text that is met only once' || 'number {n}'");
        let first = texts(0);
        seen.classify(first.as_bytes(), &names);
        for n in 1..PATIENCE {
            seen.classify(texts(n).as_bytes(), &names);
        }
        assert!(is_remembered(&seen, &first, &names));
        seen.classify(first.as_bytes(), &names);
        for n in 1..PATIENCE {
            seen.classify(texts(n).as_bytes(), &names);
        }
        assert!(is_remembered(&seen, &first, &names));
        seen.classify(texts(PATIENCE).as_bytes(), &names);
        assert!(is_remembered(&seen, &texts(PATIENCE), &names));
    }
}
