//! Names whose use has effects on the session: functions of PostgreSQL, and what a look at the
//! database has found.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::effects::Effects;
use super::lexer::hash_name;

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
    /// The database was looked at: a name that is not here has no effect.
    complete: bool,
    /// Settings with a dot that functions of this database set.
    pub custom_settings: Vec<Box<str>>,
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
        let mut names =
            Self { effects: HashMap::default(), complete: false, custom_settings: Vec::new() };
        for (name, effects) in FUNCTIONS {
            names.learn(name.as_bytes(), *effects);
        }
        names
    }
}

impl Names {
    /// Adds effects to a name, which is given as the catalog has it.
    pub fn learn(&mut self, name: &[u8], effects: Effects) {
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

    pub(super) fn of_hash(&self, hash: u64) -> Effects {
        self.effects.get(&hash).copied().unwrap_or_default()
    }
}
