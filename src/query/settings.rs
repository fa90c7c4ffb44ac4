//! The settings that a session has changed, as they can be given to another connection.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::quote_literal;

/// Settings remembered for one session; beyond this the session keeps its connection.
pub const MAX_SETTINGS: usize = 200;

/// Bytes of all values of one session.
pub const MAX_SETTINGS_BYTES: usize = 64 << 10;

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SettingValue {
    /// What stood behind `SET name TO`.
    Sql(Box<str>),
    /// What `SHOW` or `pg_settings` said, for `set_config`.
    Config(Box<str>),
}

/// What a command does to the settings of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `SET name TO value`.
    Set(Box<str>, SettingValue),
    /// `RESET name`, `SET name TO DEFAULT`.
    Reset(Box<str>),
    /// `RESET ALL`.
    ResetAll,
    /// It is over with the transaction: `SET LOCAL`, `SET TRANSACTION`, `SET CONSTRAINTS`.
    Local,
}

/// The settings of a session, or those in force on a connection, beside the start-up parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<Box<str>, SettingValue>,
    bytes: usize,
    fingerprint: u64,
}

impl Settings {
    /// Settings from pairs of name and value.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (Box<str>, SettingValue)>) -> Self {
        let mut settings = Self::default();
        pairs.into_iter().for_each(|(name, value)| settings.insert(name, value));
        settings.seal();
        settings
    }

    /// Equal settings have equal fingerprints; 0 = none.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether there are more than a session may have.
    pub fn is_too_large(&self) -> bool {
        self.values.len() > MAX_SETTINGS || self.bytes > MAX_SETTINGS_BYTES
    }

    /// One value.
    pub fn get(&self, name: &str) -> Option<&SettingValue> {
        self.values.get(name)
    }

    /// Names in force, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(AsRef::as_ref)
    }

    fn insert(&mut self, name: Box<str>, value: SettingValue) {
        let (SettingValue::Sql(text) | SettingValue::Config(text)) = &value;
        self.bytes += name.len() + text.len();
        self.values.insert(name, value);
    }

    fn seal(&mut self) {
        self.bytes = 0;
        for (name, value) in &self.values {
            let (SettingValue::Sql(text) | SettingValue::Config(text)) = value;
            self.bytes += name.len() + text.len();
        }
        self.fingerprint = if self.values.is_empty() {
            0
        } else {
            let mut hasher = DefaultHasher::new();
            self.values.hash(&mut hasher);
            hasher.finish() | 1
        };
    }

    /// The settings after a change; what is reset falls back to `start`.
    pub fn after(&self, change: &Change, start: &Settings) -> Settings {
        let mut next = self.clone();
        match change {
            Change::Set(name, value) => next.insert(name.clone(), value.clone()),
            Change::Reset(name) => match start.values.get(name) {
                Some(value) => next.insert(name.clone(), value.clone()),
                None => {
                    next.values.remove(name);
                }
            },
            Change::ResetAll => next = start.clone(),
            Change::Local => {}
        }
        next.seal();
        next
    }

    /// These settings with some of `others` laid over them.
    pub fn with(&self, others: impl IntoIterator<Item = (Box<str>, SettingValue)>) -> Settings {
        let mut next = self.clone();
        others.into_iter().for_each(|(name, value)| next.insert(name, value));
        next.seal();
        next
    }

    /// The statements that turn a connection with `self` in force into one with `wanted`.
    pub fn transition(&self, wanted: &Settings) -> String {
        let mut sql = String::new();
        for name in self.values.keys().filter(|name| !wanted.values.contains_key(*name)) {
            let _ = write!(sql, "RESET {};", quoted(name));
        }
        for (name, value) in &wanted.values {
            if self.values.get(name) == Some(value) {
                continue;
            }
            let _ = match value {
                SettingValue::Sql(value) => write!(sql, "SET {} TO {value};", quoted(name)),
                SettingValue::Config(value) => write!(
                    sql,
                    "SELECT pg_catalog.set_config({},{},false);",
                    quote_literal(name),
                    quote_literal(value)
                ),
            };
        }
        sql
    }

    /// Whether [`Settings::transition`] cannot fail, whatever happened to the database since the
    /// values were accepted.
    pub fn is_harmless(&self, wanted: &Settings) -> bool {
        let harmless = |name: &str| HARMLESS.contains(&name);
        wanted.values.iter().all(|(n, v)| self.values.get(n) == Some(v) || harmless(n))
    }
}

/// The name of a setting with a dot, if a text is one
/// (<https://www.postgresql.org/docs/current/runtime-config-custom.html>).
pub fn custom_name(text: &[u8]) -> Option<Box<str>> {
    let is_part = |part: &[u8]| {
        part.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
            && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))
    };
    let is_name =
        text.len() <= 63 && text.contains(&b'.') && text.split(|b| *b == b'.').all(is_part);
    let text = std::str::from_utf8(text).ok().filter(|_| is_name)?;
    Some(text.to_ascii_lowercase().into())
}

/// Settings whose accepted values stay acceptable.
const HARMLESS: [&str; 24] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "enable_seqscan",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "rustydb.connection_class",
    "rustydb.purity",
    "rustydb.tag",
    "rustydb.tag_found",
    "rustydb.tag_match",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "timezone",
    "work_mem",
];

/// A setting's name as an identifier; the dot separates a prefix.
fn quoted(name: &str) -> String {
    name.split('.').map(super::quote_ident).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Change {
        Change::Set(name.into(), SettingValue::Sql(value.into()))
    }

    #[test]
    fn settings_change_and_fall_back_to_the_start() {
        let app = ("application_name".into(), SettingValue::Config("a'b".into()));
        let start = Settings::from_pairs([app]);
        let one = start.after(&set("work_mem", "'4MB'"), &start);
        let two = one.after(&set("application_name", "x"), &start);
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert_eq!(two.after(&Change::Reset("application_name".into()), &start), one);
        assert_eq!(two.after(&Change::ResetAll, &start), start);
        assert_eq!(two.after(&Change::Local, &start), two);
        assert_eq!(
            Settings::default().transition(&one),
            "SELECT pg_catalog.set_config(E'application_name',E'a''b',false);\
             SET \"work_mem\" TO '4MB';"
        );
        assert_eq!(one.transition(&start), "RESET \"work_mem\";");
        assert_eq!(one.transition(&one), "");
        assert_eq!(Settings::default().fingerprint(), 0);
    }

    #[test]
    fn names_with_a_dot() {
        let is = |text: &str| custom_name(text.as_bytes()).is_some();
        assert_eq!(custom_name(b"App.Tenant_1").as_deref(), Some("app.tenant_1"));
        assert!(is("a.b.c") && is("_a.b$") && !is("a") && !is("a.") && !is(".b") && !is("a..b"));
        assert!(!is("1.5") && !is("a.b c") && !is("me@x.org") && !is(&"a.b".repeat(30)));
    }

    #[test]
    fn a_change_that_may_be_refused_is_known() {
        let none = Settings::default();
        let path = none.after(&set("search_path", "a, b"), &none);
        let space = none.after(&set("default_tablespace", "x"), &none);
        assert!(none.is_harmless(&path) && space.is_harmless(&none));
        assert!(!none.is_harmless(&space));
    }
}
