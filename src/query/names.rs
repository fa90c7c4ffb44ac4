//! Names whose use has effects on the session: functions of PostgreSQL, and what a look at the
//! database has found.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::effects::Effects;
use super::lexer::{hash_name, hash_word};

/// Passes the hash that a name already has.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_name(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 ^ self.0.rotate_left(29)
    }
}

/// Names of a database whose use has effects: functions, and tables with triggers or defaults.
#[derive(Clone, Debug)]
pub struct Names {
    effects: HashMap<u64, Effects, BuildHasherDefault<NameHasher>>,
    sieve: Sieve,
    /// The database was looked at: a name that is not here has no effect.
    complete: bool,
    /// Settings with a dot that functions of this database set.
    pub custom_settings: Vec<Box<str>>,
}

/// Keywords that matter wherever they stand in a statement.
pub(super) const KEYWORDS: [&[u8]; 8] =
    [b"into", b"temp", b"temporary", b"insert", b"regtype", b"regproc", b"execute", b"create"];

/// Tells most words that do not matter from those that may, by their length and a few of their
/// bytes, whatever their case.
#[derive(Clone, Debug)]
struct Sieve([u64; 64]);

impl Sieve {
    /// Place and bit of a word.
    fn of(word: &[u8]) -> (usize, u64) {
        let byte = |at: usize| u32::from(word.get(at).copied().unwrap_or(0) | 0x20);
        let (first, middle, last) =
            (byte(0), byte(word.len() / 2), byte(word.len().wrapping_sub(1)));
        let key = (word.len() as u32) << 24 | first << 16 | middle << 8 | last;
        // The highest bits of a product depend on all bits of its factors.
        let bit = key.wrapping_mul(0x9e37_79b1) >> 20;
        ((bit >> 6) as usize, 1 << (bit & 63))
    }

    fn add(&mut self, word: &[u8]) {
        let (place, bit) = Self::of(word);
        self.0[place] |= bit;
    }

    fn may_have(&self, word: &[u8]) -> bool {
        let (place, bit) = Self::of(word);
        self.0[place] & bit != 0
    }
}

/// Functions of PostgreSQL that act on the session.
const FUNCTIONS: &[(&str, Effects)] = &[
    ("set_config", Effects::SETTING),
    ("setseed", Effects::SEED),
    ("pg_advisory_lock", Effects::ADVISORY),
    ("pg_advisory_lock_shared", Effects::ADVISORY),
    ("pg_try_advisory_lock", Effects::ADVISORY),
    ("pg_try_advisory_lock_shared", Effects::ADVISORY),
    ("pg_advisory_unlock", Effects::ADVISORY),
    ("pg_advisory_unlock_shared", Effects::ADVISORY),
    ("pg_advisory_unlock_all", Effects::ADVISORY),
    ("nextval", Effects::SEQUENCE),
    ("setval", Effects::SEQUENCE),
    ("currval", Effects::READS_SEQUENCE),
    ("lastval", Effects::READS_SEQUENCE),
    ("pg_temp", Effects::TEMP),
    ("pg_prepared_statements", Effects::LISTS_STATEMENTS),
    ("pg_prepared_statement", Effects::LISTS_STATEMENTS),
    ("pg_stat_force_next_flush", Effects::HIDDEN),
    ("pg_replication_origin_session_setup", Effects::HIDDEN),
    ("pg_replication_origin_session_reset", Effects::HIDDEN),
    ("pg_load_libraries", Effects::LOAD),
    ("query_to_xml", Effects::UNCLEAR),
    ("query_to_xmlschema", Effects::UNCLEAR),
    ("query_to_xml_and_xmlschema", Effects::UNCLEAR),
    ("cursor_to_xml", Effects::UNCLEAR),
    ("ts_stat", Effects::UNCLEAR),
    ("ts_rewrite", Effects::UNCLEAR),
    ("dblink_connect", Effects::HIDDEN),
    ("dblink_connect_u", Effects::HIDDEN),
];

impl Default for Names {
    fn default() -> Self {
        let mut names = Self {
            effects: HashMap::default(),
            sieve: Sieve([0; 64]),
            complete: false,
            custom_settings: Vec::new(),
        };
        KEYWORDS.iter().for_each(|keyword| names.sieve.add(keyword));
        for (name, effects) in FUNCTIONS {
            names.learn(name.as_bytes(), *effects);
        }
        names
    }
}

impl Names {
    /// Adds effects to a name, which is given as the catalog has it.
    pub fn learn(&mut self, name: &[u8], effects: Effects) {
        self.sieve.add(name);
        self.effects.entry(hash_name(name)).or_default().add(effects);
    }

    /// From now on a name that was not learnt has no effect.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether a name that was not learnt has no effect.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Effects of a name.
    pub fn of(&self, name: &[u8]) -> Effects {
        self.effects.get(&hash_name(name)).copied().unwrap_or_default()
    }

    /// Effects of the name that a word without quotes stands for.
    pub(super) fn of_word(&self, word: &[u8]) -> Effects {
        self.effects.get(&hash_word(word)).copied().unwrap_or_default()
    }

    /// Whether a word may be a keyword that matters, or a name that was learnt.
    pub(super) fn may_matter(&self, word: &[u8]) -> bool {
        self.sieve.may_have(word)
    }

    /// The same names, of which every word is looked up.
    #[cfg(test)]
    pub(super) fn without_sieve(&self) -> Self {
        Self { sieve: Sieve([u64::MAX; 64]), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::classify;
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        for (name, effects) in [
            ("audited", Effects::UNCLEAR),
            ("orders", Effects::HAS_SEQUENCE),
            ("Odd Name", Effects::UNCLEAR),
            ("größe", Effects::SEED),
            ("", Effects::SEED),
        ] {
            names.learn(name.as_bytes(), effects);
        }
        names.complete();
        names
    }

    #[test]
    fn the_sieve_lets_through_what_matters_and_little_else() {
        let names = names();
        for word in KEYWORDS.into_iter().chain(FUNCTIONS.iter().map(|(name, _)| name.as_bytes())) {
            assert!(names.may_matter(word) && names.may_matter(&word.to_ascii_uppercase()));
        }
        assert!(names.may_matter("GRößE".as_bytes()) && names.may_matter(b""));
        let known = |word: &String| names.may_matter(word.as_bytes());
        let passed = (0..10_000).map(|n| format!("column_{n}")).filter(known).count();
        assert!(passed < 300, "{passed}");
    }

    /// A text means the same whether or not the sieve spares the look-ups.
    fn compare(sql: &[u8], names: &[(Names, Names)]) {
        for (with, without) in names {
            let text = String::from_utf8_lossy(sql);
            assert_eq!(classify(sql, with), classify(sql, without), "{text}");
        }
    }

    #[test]
    fn the_sieve_changes_nothing() {
        let pairs = [names(), Names::default()].map(|names| (names.clone(), names.without_sieve()));
        let words: Vec<&[u8]> = KEYWORDS
            .into_iter()
            .chain(FUNCTIONS.iter().map(|(name, _)| name.as_bytes()))
            .chain([&b"select"[..], b"SELECT", b"update", b"with", b"do", b"declare", b"prepare"])
            .chain([&b"orders"[..], b"Audited", b"t", b"x", b"set", b"hold", b"Into", b"TEMP"])
            .chain([&b"("[..], b")", b";", b",", b"'now'", b"\"orders\"", b"1", b"$1", b"--c\n"])
            .chain([&b"/* x */"[..], b"$$ audited $$", b"E'\\'", b"'", b"true", b"\xff"])
            .collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..20_000 {
            let mut sql = Vec::new();
            for _ in 0..random(12) + 1 {
                sql.extend_from_slice(words[random(words.len())]);
                sql.extend_from_slice([&b" "[..], b"", b"  ", b"\n"][random(4)]);
            }
            compare(&sql, &pairs);
        }
        // What the compatibility tests send.
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests");
        let mut lines = 0;
        for directory in ["sql", "wire", "clients", "lifecycle", "regress"] {
            for file in std::fs::read_dir(tests.join(directory)).unwrap() {
                let Ok(text) = std::fs::read(file.unwrap().path()) else { continue };
                for line in text.split(|b| *b == b'\n') {
                    lines += 1;
                    compare(line, &pairs);
                    line.split(|b| *b == b'"').for_each(|piece| compare(piece, &pairs));
                }
            }
        }
        assert!(lines > 1000, "{lines}");
    }
}
