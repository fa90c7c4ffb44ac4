//! File, environment and command line → [`Config`], with the source of every value, and every
//! error of every source at once.
//!
//! Precedence, highest first: command line, environment, changes at run time, file, default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value as Toml;

use super::{Config, Key};

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The option as it was typed, for instance `--port`.
    pub name: String,
    /// Path of the key it sets.
    pub path: String,
    /// The value as it was typed.
    pub value: String,
}

/// Everything a configuration is made from; tests pass maps instead of the process's environment.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `--config`; must exist when given.
    pub file: Option<PathBuf>,
    /// Searched when `--config` and `RUSTYDB_CONFIG` are absent; the first that exists counts.
    pub search: Vec<PathBuf>,
    /// What was changed at run time; need not exist.
    pub runtime: Option<PathBuf>,
    /// Environment variables; those that do not begin with `RUSTYDB_` are ignored.
    pub env: Vec<(String, String)>,
    /// Options of the command line, later ones win.
    pub flags: Vec<Flag>,
    /// `--insecure`.
    pub insecure: bool,
    /// `--lenient`: unknown names are warnings.
    pub lenient: bool,
}

/// A checked configuration, and where each value came from.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Source by path; absent = default.
    pub sources: BTreeMap<String, String>,
    /// What `--lenient` let pass.
    pub warnings: Vec<String>,
}

/// All that is wrong, one line each.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "error" } else { "errors" };
        write!(f, "{} {plural} in the configuration", self.0.len())?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Variables that are no keys.
const OTHER_VARIABLES: [&str; 3] =
    ["RUSTYDB_CONFIG", "RUSTYDB_ADMIN_PASSWORD", "RUSTYDB_ADMIN_PASSWORD_FILE"];

struct Loader {
    keys: Vec<Key>,
    config: Config,
    sources: BTreeMap<String, String>,
    errors: Vec<String>,
    unknown: Vec<String>,
}

impl Inputs {
    /// The inputs of this process, but for the command line.
    pub fn from_process() -> Self {
        Self {
            search: vec!["/etc/rustydb/config.toml".into(), "rustydb.toml".into()],
            env: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
            ..Self::default()
        }
    }

    /// Reads, merges and checks all sources.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut loader = Loader {
            keys: Config::keys(),
            config: Config::default(),
            sources: BTreeMap::new(),
            errors: Vec::new(),
            unknown: Vec::new(),
        };
        if let Some(file) = self.file_to_read() {
            loader.read_file(&file);
        }
        if let Some(file) = &self.runtime {
            match super::runtime::read(file) {
                Ok(table) => loader.read_table("", &table, super::runtime::RUNTIME),
                Err(e) => loader.errors.push(format!("{}: {}", file.display(), e.trim_end())),
            }
        }
        loader.read_env(&self.env);
        for flag in &self.flags {
            let source = format!("command line {}", flag.name);
            loader.set(&flag.path, &Toml::String(flag.value.clone()), &source);
        }
        if self.insecure {
            loader.config.make_insecure();
            for path in ["security.enable_auth", "network.listen_addr", "api.listen_addr"] {
                loader.sources.insert(path.into(), "command line --insecure".into());
            }
        }
        loader.finish(self.insecure, self.lenient)
    }

    fn file_to_read(&self) -> Option<PathBuf> {
        let from_env = || {
            let value = self.env.iter().find(|(name, _)| name == "RUSTYDB_CONFIG");
            value.map(|(_, path)| PathBuf::from(path))
        };
        let found = || self.search.iter().find(|path| path.exists()).cloned();
        self.file.clone().or_else(from_env).or_else(found)
    }
}

impl Loader {
    fn read_file(&mut self, file: &Path) {
        let table = std::fs::read_to_string(file)
            .map_err(|e| e.to_string())
            .and_then(|text| text.parse::<toml::Table>().map_err(|e| located(&text, &e)));
        match table {
            Ok(table) => self.read_table("", &table, &format!("file {}", file.display())),
            Err(e) => self.errors.push(format!("{}: {}", file.display(), e.trim_end())),
        }
    }

    fn read_table(&mut self, prefix: &str, table: &toml::Table, source: &str) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                // A table is a section, unless it is the value of a key such as extra_conf.
                Toml::Table(inner) if self.full_path(&path).is_none() => {
                    self.read_table(&path, inner, source);
                }
                _ => self.set(&path, value, source),
            }
        }
    }

    fn read_env(&mut self, env: &[(String, String)]) {
        let mut from: BTreeMap<String, (String, String)> = BTreeMap::new();
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with("RUSTYDB_")) {
            if OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let (path, value) = match self.env_key(name) {
                Some(path) => (path, value.clone()),
                None => match name.strip_suffix("_FILE").and_then(|base| self.env_key(base)) {
                    Some(path) => match std::fs::read_to_string(value) {
                        Ok(text) => (path, text.trim_end().to_owned()),
                        Err(e) => {
                            self.errors.push(format!("{name}: {value}: {e}"));
                            continue;
                        }
                    },
                    None => {
                        let names = self.keys.iter().map(|key| env_name(&key.path));
                        let aliases = self.keys.iter().filter_map(|key| key.env_alias);
                        let near = nearest(name, names.chain(aliases.map(str::to_owned)));
                        self.unknown.push(format!("{name}: no such key{near}"));
                        continue;
                    }
                },
            };
            match from.get(&path) {
                Some((other, before)) if *before != value => {
                    self.errors.push(format!("{path}: {name} and {other} are both set and differ"));
                }
                _ => {
                    from.insert(path, (name.clone(), value));
                }
            }
        }
        for (path, (name, value)) in from {
            self.set(&path, &Toml::String(value), &format!("environment {name}"));
        }
    }

    fn env_key(&self, name: &str) -> Option<String> {
        let is_it = |key: &&Key| env_name(&key.path) == name || key.env_alias == Some(name);
        self.keys.iter().find(is_it).map(|key| key.path.clone())
    }

    /// The key that a path means: itself, or a duration whose suffix was left out.
    fn full_path(&self, path: &str) -> Option<String> {
        let mut names = ["", "_secs", "_ms"].iter().map(|suffix| format!("{path}{suffix}"));
        names.find(|name| self.keys.iter().any(|key| key.path == *name))
    }

    fn set(&mut self, path: &str, value: &Toml, source: &str) {
        let Some(full) = self.full_path(path) else {
            let near = nearest(path, self.keys.iter().map(|key| key.path.clone()));
            self.unknown.push(format!("{path}: no such key{near} ({source})"));
            return;
        };
        match self.config.set(&full, value) {
            Some(Ok(())) => {
                self.sources.insert(full, source.to_owned());
            }
            Some(Err(expected)) => {
                self.errors.push(format!("{full}: expected {expected} ({source})"));
            }
            None => {}
        }
    }

    fn finish(mut self, insecure: bool, lenient: bool) -> Result<Loaded, ConfigErrors> {
        let warnings = if lenient { std::mem::take(&mut self.unknown) } else { Vec::new() };
        self.errors.append(&mut self.unknown);
        for (path, text) in self.config.contradictions(insecure) {
            let source = self.sources.get(path).map_or("default", String::as_str);
            self.errors.push(format!("{path}: {text} ({source})"));
        }
        if self.errors.is_empty() {
            self.config.complete();
            Ok(Loaded { config: self.config, sources: self.sources, warnings })
        } else {
            Err(ConfigErrors(self.errors))
        }
    }
}

impl Loaded {
    /// Every effective value with its source, secrets hidden.
    pub fn show(&self) -> String {
        let lines = Config::keys().into_iter().filter_map(|key| {
            let value = self.config.get(&key.path)?;
            let source = self.sources.get(&key.path).map_or("default", String::as_str);
            Some(format!("{} = {value}  # {source}\n", key.path))
        });
        lines.collect()
    }
}

/// The default configuration as a commented file.
pub fn default_file() -> String {
    let defaults = Config::default();
    let mut text = String::from(
        "# RustyDB's configuration: every key, with its default.\n\
         # Precedence: command line, environment (RUSTYDB_TABLE__KEY), this file, default.\n",
    );
    for (table, doc) in Config::sections() {
        text.push('\n');
        push_comment(&mut text, doc);
        text.push_str(&format!("[{table}]\n"));
        let prefix = format!("{table}.");
        for key in Config::keys() {
            let Some(name) = key.path.strip_prefix(&prefix).filter(|name| !name.contains('.'))
            else {
                continue;
            };
            push_comment(&mut text, key.doc);
            if let Some(alias) = key.env_alias {
                text.push_str(&format!("# Environment: {alias}\n"));
            }
            if key.live {
                text.push_str("# A reload (SIGHUP) changes it.\n");
            }
            if let Some(value) = defaults.get(&key.path) {
                text.push_str(&format!("{name} = {value}\n"));
            }
        }
    }
    text
}

fn push_comment(text: &mut String, doc: &str) {
    for line in doc.lines() {
        text.push_str(&format!("# {}\n", line.trim()));
    }
}

/// A syntax error with its line number, but without the line: it may hold a password.
pub(super) fn located(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

fn env_name(path: &str) -> String {
    format!("RUSTYDB_{}", path.replace('.', "__").to_ascii_uppercase())
}

/// What is said of a key that there is not.
pub(super) fn no_such_key(path: &str) -> String {
    let near = nearest(path, Config::keys().into_iter().map(|key| key.path));
    format!("{path}: no such key{near}")
}

/// `; did you mean …?` when a known name is close enough to be meant.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let best = known.map(|other| (distance(name, &other), other)).min();
    match best {
        Some((d, other)) if d <= name.len() / 3 => format!("; did you mean {other}?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca.to_ascii_lowercase() != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Inputs {
        let env = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Inputs { env, ..Inputs::default() }
    }

    fn flag(path: &str, value: &str) -> Flag {
        Flag { name: "--set".into(), path: path.into(), value: value.into() }
    }

    #[test]
    fn the_checked_in_file_is_the_default_file() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rustydb.toml");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, default_file()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), default_file());
        let loaded = Inputs { file: Some(file), ..Inputs::default() }.load().unwrap();
        for key in Config::keys() {
            assert_eq!(loaded.config.get(&key.path), Config::default().get(&key.path));
            assert!(loaded.sources.contains_key(&key.path), "{} is not in the file", key.path);
            assert!(!key.doc.trim().is_empty(), "{} has no documentation", key.path);
        }
    }

    #[test]
    fn the_command_line_beats_the_environment_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[network]\nport = 1\nbacklog = 7\n[pool]\nmax_size = 3\n").unwrap();
        let mut inputs = env(&[("RUSTYDB_PORT", "2"), ("RUSTYDB_POOL__MAX_SIZE", "4")]);
        inputs.file = Some(file.path().into());
        inputs.flags = vec![flag("network.port", "3")];
        let loaded = inputs.load().unwrap();
        assert_eq!(loaded.config.network.port, 3);
        assert_eq!(loaded.config.pool.max_size, 4);
        assert_eq!(loaded.config.network.backlog, 7);
        assert_eq!(loaded.sources["pool.max_size"], "environment RUSTYDB_POOL__MAX_SIZE");
        assert!(loaded.show().contains("network.port = 3  # command line --set"));
    }

    #[test]
    fn all_errors_are_reported_at_once_with_their_paths() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[network]\nprot = 1\nport = \"x\"\n[pool]\nmax_size = 0\n").unwrap();
        let mut inputs = env(&[("RUSTYDB_POOL__MAXSIZE", "4"), ("RUSTYDB_LOG_LEVEL", "loud")]);
        inputs.file = Some(file.path().into());
        let errors = inputs.load().unwrap_err().to_string();
        for expected in [
            "network.prot: no such key; did you mean network.port?",
            "network.port: expected a port, 0 to 65535",
            "pool.max_size: must be at least 1",
            "RUSTYDB_POOL__MAXSIZE: no such key; did you mean RUSTYDB_POOL__MAX_SIZE?",
            "monitoring.log_level: expected one of: trace debug info warn error",
        ] {
            assert!(errors.contains(expected), "{expected} is not in\n{errors}");
        }
    }

    #[test]
    fn an_alias_and_the_full_name_must_agree() {
        let both = |a, b| env(&[("RUSTYDB_PORT", a), ("RUSTYDB_NETWORK__PORT", b)]).load();
        assert_eq!(both("9", "9").unwrap().config.network.port, 9);
        assert!(both("9", "8").unwrap_err().to_string().contains("both set and differ"));
    }

    #[test]
    fn a_syntax_error_does_not_show_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[backend]\nurl = \"postgresql://u:hunter2@h/d\n").unwrap();
        let inputs = Inputs { file: Some(file.path().into()), ..Inputs::default() };
        let errors = inputs.load().unwrap_err().to_string();
        assert!(errors.contains("line 2: "), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }

    #[test]
    fn a_secret_can_come_from_a_file_and_is_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "postgresql://u:hunter2@h/d\n").unwrap();
        let path = file.path().to_str().unwrap();
        let loaded = env(&[("RUSTYDB_BACKEND__URL_FILE", path)]).load().unwrap();
        assert!(loaded.show().contains("u:***@h"));
        assert!(!loaded.show().contains("hunter2"));
    }

    #[test]
    fn no_authentication_needs_insecure_and_insecure_binds_to_loopback() {
        let off =
            Inputs { flags: vec![flag("security.enable_auth", "false")], ..Inputs::default() };
        assert!(off.load().unwrap_err().to_string().contains("--insecure"));
        let config = Inputs { insecure: true, ..off }.load().unwrap().config;
        assert_eq!(config.network.listen_addr, ["127.0.0.1"]);
        assert!(!config.security.enable_auth);
    }

    #[test]
    fn lenient_turns_unknown_names_into_warnings() {
        let mut inputs = env(&[("RUSTYDB_NONSENSE", "1")]);
        assert!(inputs.load().is_err());
        inputs.lenient = true;
        assert_eq!(inputs.load().unwrap().warnings.len(), 1);
    }

    #[test]
    fn a_duration_may_be_written_without_its_suffix() {
        let inputs =
            Inputs { flags: vec![flag("pool.acquire_timeout", "2m")], ..Inputs::default() };
        assert_eq!(inputs.load().unwrap().config.pool.acquire_timeout_secs.0, 120);
    }
}
