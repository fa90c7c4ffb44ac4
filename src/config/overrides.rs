//! What the pool does differently for one role or one database.

use std::collections::BTreeMap;

use toml::Value as Toml;

use super::value::{PoolingMode, Value};
use super::{Config, Pool};
use crate::types::{Database, Protocol, Role};

/// The settings of one role or one database; a setting without a value is the pool's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolOverride {
    /// Connections of all lanes of the role, or of the database.
    pub max_size: Option<usize>,
    /// When its clients give their connection back.
    pub pooling_mode: Option<PoolingMode>,
}

/// Overrides by the name of the role or the database.
pub type PoolOverrides = BTreeMap<String, PoolOverride>;

/// A table of tables, or the same as one inline table in a string.
impl Value for PoolOverrides {
    fn read(raw: &Toml) -> Result<Self, String> {
        match raw {
            Toml::Table(table) => {
                let read = |(name, value): (&String, &Toml)| {
                    let settings = PoolOverride::read(value).map_err(|e| format!("{name}: {e}"));
                    Ok((name.clone(), settings?))
                };
                table.iter().map(read).collect()
            }
            Toml::String(text) if text.trim().is_empty() => Ok(Self::new()),
            Toml::String(text) => match format!("it = {text}").parse::<toml::Table>() {
                Ok(table) => table.get("it").map_or_else(|| Err(expected()), Self::read),
                Err(_) => Err(expected()),
            },
            _ => Err(expected()),
        }
    }

    fn write(&self) -> Toml {
        Toml::Table(self.iter().map(|(name, settings)| (name.clone(), settings.write())).collect())
    }
}

fn expected() -> String {
    "tables such as { alice = { max_size = 20, pooling_mode = \"session\" } }".into()
}

impl PoolOverride {
    fn read(raw: &Toml) -> Result<Self, String> {
        let mut settings = Self::default();
        for (key, value) in raw.as_table().ok_or_else(expected)? {
            match key.as_str() {
                "max_size" => settings.max_size = Some(at_least_one(value)?),
                "pooling_mode" => settings.pooling_mode = Some(PoolingMode::read(value)?),
                _ => return Err(format!("max_size or pooling_mode, not {key}")),
            }
        }
        Ok(settings)
    }

    fn write(&self) -> Toml {
        let mut table = toml::Table::new();
        if let Some(size) = &self.max_size {
            table.insert("max_size".into(), size.write());
        }
        if let Some(mode) = &self.pooling_mode {
            table.insert("pooling_mode".into(), mode.write());
        }
        Toml::Table(table)
    }
}

fn at_least_one(value: &Toml) -> Result<usize, String> {
    match usize::read(value) {
        Ok(0) | Err(_) => Err("a max_size of 1 or more".into()),
        Ok(size) => Ok(size),
    }
}

impl Config {
    /// The pooling mode of a client: its role's, else its database's, else its protocol's.
    pub fn pooling_mode(
        &self,
        role: &Role,
        database: &Database,
        protocol: Protocol,
    ) -> PoolingMode {
        let Pool { users, databases, pooling_mode, .. } = &self.pool;
        let usual = match protocol {
            Protocol::Native => self.native.pooling_mode,
            Protocol::Postgres | Protocol::Http => *pooling_mode,
        };
        let of = |overrides: &PoolOverrides, name| overrides.get(name)?.pooling_mode;
        of(users, role.as_str()).or_else(|| of(databases, database.as_str())).unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(text: &str) -> Result<PoolOverrides, String> {
        PoolOverrides::read(&Toml::String(text.into()))
    }

    #[test]
    fn a_role_comes_before_its_database_before_the_pool() {
        let mut config = Config::default();
        let mode = |config: &Config| {
            config.pooling_mode(&"alice".into(), &"app".into(), Protocol::Postgres)
        };
        assert_eq!(mode(&config), PoolingMode::Transaction);
        config.pool.databases = overrides("{ app = { pooling_mode = 'statement' } }").unwrap();
        assert_eq!(mode(&config), PoolingMode::Statement);
        config.pool.users = overrides("{ alice = { max_size = 3 } }").unwrap();
        assert_eq!(mode(&config), PoolingMode::Statement);
        config.pool.users = overrides("{ alice = { pooling_mode = 'session' } }").unwrap();
        assert_eq!(mode(&config), PoolingMode::Session);
        assert_eq!(
            config.pooling_mode(&"bob".into(), &"x".into(), Protocol::Postgres),
            PoolingMode::Transaction
        );
    }

    #[test]
    fn what_is_written_is_read_again_and_mistakes_are_named() {
        let both = overrides("{ \"a b\" = { max_size = 3, pooling_mode = 'session' }, c = {} }");
        let both = both.unwrap();
        assert_eq!(PoolOverrides::read(&both.write()), Ok(both));
        assert_eq!(overrides(""), Ok(PoolOverrides::new()));
        for (wrong, word) in [
            ("{ a = { max_size = 0 } }", "1 or more"),
            ("{ a = { maxsize = 1 } }", "maxsize"),
            ("{ a = { pooling_mode = 'x' } }", "session transaction statement"),
            ("{ a = 1 }", "max_size"),
            ("{", "max_size"),
            ("3", "max_size"),
        ] {
            let error = overrides(wrong).unwrap_err();
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }
}
