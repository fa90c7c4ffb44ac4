//! What administrators have changed while the server ran: `runtime.toml` in the data directory, a
//! line for each key.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind as Io, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Changes, Config, Inputs, Key, Loaded, Reloader, Setting};
use crate::error::{Error, ErrorKind, Result};

/// Its name.
pub const RUNTIME_FILE: &str = "runtime.toml";

/// The source of its values.
pub(super) const RUNTIME: &str = "runtime";

/// Keys with new values; `None` = what holds without the file.
pub type Wishes = Vec<(String, Option<toml::Value>)>;

impl Setting {
    /// Where its value comes from, in one word.
    pub fn origin(&self) -> Origin {
        match self.source.split(' ').next() {
            Some("file") => Origin::File,
            Some("environment") => Origin::Env,
            Some("command") => Origin::CommandLine,
            Some(RUNTIME) => Origin::Runtime,
            Some(super::live::HERE) => Origin::Console,
            _ => Origin::Default,
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// The configuration file.
    File,
    /// [`RUNTIME_FILE`].
    Runtime,
    /// The console, until the next reload.
    Console,
    /// The environment.
    Env,
    /// The command line.
    CommandLine,
}

impl Origin {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Runtime => "runtime",
            Self::Console => "console",
            Self::Env => "env",
            Self::CommandLine => "command_line",
        }
    }

    /// Whether it comes before [`RUNTIME_FILE`].
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::Env | Self::CommandLine)
    }
}

impl Reloader {
    /// Changes keys for good: they are written down, then every source is read again, as at a
    /// reload. All of it is done, or nothing.
    ///
    /// # Errors
    /// There is no such key, a value does not fit, the key needs a restart or comes from where it
    /// cannot be changed; or something else is wrong with the sources.
    pub fn change(&self, wishes: &[(String, Option<toml::Value>)]) -> Result<Changes> {
        let mut loaded = self.loaded.lock();
        let Some(path) = &self.inputs.runtime else {
            return Err(Error::internal("there is no place for changes of the configuration"));
        };
        let keys = Config::keys();
        wishes.iter().try_for_each(|(name, _)| may_change(&keys, &loaded, name))?;
        let unreadable = |e: String| Error::internal(format!("{}: {e}", path.display()));
        let mut table = read(path).map_err(unreadable)?;
        for (name, value) in wishes {
            match value {
                Some(value) => table.insert(name.clone(), value.clone()),
                None => table.remove(name),
            };
        }
        let fresh = path.with_extension("toml.new");
        write(&fresh, &table).map_err(|e| unreadable(e.to_string()))?;
        let inputs = Inputs { runtime: Some(fresh.clone()), ..self.inputs.clone() };
        let taken = inputs.load().and_then(|newer| self.take_over(&mut loaded, &newer));
        match taken {
            Ok(changes) => {
                fs::rename(&fresh, path).map_err(|e| unreadable(e.to_string()))?;
                Ok(changes)
            }
            Err(errors) => {
                let _ = fs::remove_file(&fresh);
                Err(Error::new(ErrorKind::ValidationError, errors.0.join("; ")))
            }
        }
    }
}

fn may_change(keys: &[Key], loaded: &Loaded, name: &str) -> Result<()> {
    let Some(key) = keys.iter().find(|key| key.path == name) else {
        return Err(Error::new(ErrorKind::ValidationError, super::load::no_such_key(name)));
    };
    let source = loaded.sources.get(name).map_or("default", String::as_str);
    let refused = |text: String| Err(Error::new(ErrorKind::Conflict, text));
    if !key.live {
        return refused(format!("{name} needs a restart: change it in the configuration file"));
    }
    match source.starts_with("environment") || source.starts_with("command line") {
        true => refused(format!("{name} is fixed by the {source}")),
        false => Ok(()),
    }
}

/// The keys of the file; none without it.
pub(super) fn read(path: &Path) -> std::result::Result<toml::Table, String> {
    match fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|e: toml::de::Error| super::load::located(&text, &e)),
        Err(e) if e.kind() == Io::NotFound => Ok(toml::Table::new()),
        Err(e) => Err(e.to_string()),
    }
}

fn write(path: &PathBuf, table: &toml::Table) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut text =
        String::from("# Written by RustyDB: what PUT /api/v1/admin/config has changed.\n");
    for (name, value) in table {
        text.push_str(&format!("\"{name}\" = {value}\n"));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_outlive_a_restart_and_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "[pool]\nmax_size = 7\n").unwrap();
        let env = vec![("RUSTYDB_POOL__MIN_SIZE".into(), "1".into())];
        let runtime = Some(dir.path().join(RUNTIME_FILE));
        let inputs = Inputs { file: Some(file), env, runtime, ..Inputs::default() };
        let reloader = Reloader::new(inputs.clone(), inputs.load().unwrap());
        let live = reloader.live();
        let wish = |name: &str, value: toml::Value| (name.to_owned(), Some(value));
        let overrides: toml::Table = "\"a \\\"b\" = { max_size = 2 }".parse().unwrap();
        let wishes = [
            wish("pool.max_size", 9.into()),
            wish("pool.users", toml::Value::Table(overrides)),
            wish("monitoring.log_level", "warn".into()),
        ];
        let changes = reloader.change(&wishes).unwrap();
        assert_eq!(changes.taken, ["pool.max_size", "pool.users", "monitoring.log_level"]);
        assert_eq!(live.now().pool.max_size, 9);
        let origin = |reloader: &Reloader, key: &str| {
            let settings = reloader.settings();
            settings.iter().find(|setting| setting.key == key).unwrap().origin()
        };
        assert_eq!(origin(&reloader, "pool.max_size"), Origin::Runtime);
        assert_eq!(origin(&reloader, "pool.min_size"), Origin::Env);
        // The next process.
        let next = Reloader::new(inputs.clone(), inputs.load().unwrap());
        assert_eq!(next.live().now().pool.users["a \"b"].max_size, Some(2));
        next.change(&[("pool.max_size".into(), None), ("pool.users".into(), None)]).unwrap();
        assert_eq!(next.live().now().pool.max_size, 7);
        assert_eq!(origin(&next, "pool.max_size"), Origin::File);
        assert_eq!(origin(&next, "monitoring.log_level"), Origin::Runtime);
    }

    #[test]
    fn nothing_is_changed_when_something_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RUNTIME_FILE);
        let env = vec![("RUSTYDB_POOL__MIN_SIZE".into(), "1".into())];
        let inputs = Inputs { env, runtime: Some(path.clone()), ..Inputs::default() };
        let reloader = Reloader::new(inputs.clone(), inputs.load().unwrap());
        for (name, value, kind) in [
            ("pool.max_sise", 1, ErrorKind::ValidationError),
            ("pool.max_size", 0, ErrorKind::ValidationError),
            ("pool.pooling_mode", 1, ErrorKind::ValidationError),
            ("network.port", 1, ErrorKind::Conflict),
            ("pool.min_size", 2, ErrorKind::Conflict),
        ] {
            let good = ("pool.statement_cache_size".to_owned(), Some(5.into()));
            let error = reloader.change(&[good, (name.into(), Some(value.into()))]).unwrap_err();
            assert_eq!(error.kind(), kind, "{name}: {error}");
        }
        assert_eq!(reloader.live().now().pool.statement_cache_size, 100);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "\"pool.max_size\" = \n").unwrap();
        assert!(inputs.load().unwrap_err().to_string().contains("runtime.toml: line 1"));
    }
}
