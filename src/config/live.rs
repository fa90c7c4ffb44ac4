//! The configuration of a running server: read anew as a whole, changed as a whole or not at all.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Config, ConfigErrors, Inputs, Loaded};

/// The configuration in force. Who works on something for a while takes a snapshot when it begins;
/// nothing looks here for each message. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live(watch::Receiver<Arc<Config>>);

impl Live {
    /// A configuration that never changes.
    #[cfg(test)]
    pub(crate) fn fixed(config: Config) -> Self {
        Self(watch::channel(Arc::new(config)).1)
    }

    /// A snapshot.
    pub fn now(&self) -> Arc<Config> {
        self.0.borrow().clone()
    }

    /// Returns the next configuration when there is one; never when the server is gone.
    pub async fn changed(&mut self) -> Arc<Config> {
        match self.0.changed().await {
            Ok(()) => self.0.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    }
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that have another value now.
    pub taken: Vec<&'static str>,
    /// Keys whose new value needs a restart.
    pub left: Vec<&'static str>,
}

/// One key as a person sees it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Dotted path.
    pub key: String,
    /// Value in force, secrets hidden.
    pub value: String,
    /// Value without any configuration.
    pub default: String,
    /// Whether a reload changes it.
    pub live: bool,
    /// Where the value comes from.
    pub source: String,
}

/// The source of a value that was set in the console.
pub(super) const HERE: &str = "console";

/// Reads the sources again; the one owner of the configuration.
pub struct Reloader {
    pub(super) inputs: Inputs,
    sender: watch::Sender<Arc<Config>>,
    /// The last load that was right, for the sources of the values.
    pub(super) loaded: Mutex<Loaded>,
}

impl Reloader {
    /// Starts from what these inputs gave.
    pub fn new(inputs: Inputs, loaded: Loaded) -> Self {
        let (sender, _) = watch::channel(Arc::new(loaded.config.clone()));
        Self { inputs, sender, loaded: Mutex::new(loaded) }
    }

    /// The view for everybody else.
    pub fn live(&self) -> Live {
        Live(self.sender.subscribe())
    }

    /// Reads every source again and takes over what can change at run time.
    ///
    /// # Errors
    /// Everything that is wrong; then nothing has changed.
    pub fn reload(&self) -> Result<Changes, ConfigErrors> {
        let mut loaded = self.loaded.lock();
        let newer = self.inputs.load()?;
        self.take_over(&mut loaded, &newer)
    }

    /// Takes over what can change at run time, and where it comes from.
    pub(super) fn take_over(
        &self,
        loaded: &mut Loaded,
        newer: &Loaded,
    ) -> Result<Changes, ConfigErrors> {
        let changes = self.take(loaded, &newer.config)?;
        for warning in &newer.warnings {
            tracing::warn!("{warning}");
        }
        // A key that needs a restart keeps the source of the value that is in force.
        let live = Config::keys().into_iter().filter(|key| key.live).map(|key| key.path);
        for path in live {
            match newer.sources.get(&path) {
                Some(source) => loaded.sources.insert(path, source.clone()),
                None => loaded.sources.remove(&path),
            };
        }
        Ok(changes)
    }

    /// Changes one key until the next reload. Nothing has changed when it is among those that need
    /// a restart.
    ///
    /// # Errors
    /// There is no such key, or the value does not fit it, or the others.
    pub fn set(&self, path: &str, value: &str) -> Result<Changes, ConfigErrors> {
        let mut loaded = self.loaded.lock();
        let mut newer = loaded.config.clone();
        let wrong = match newer.set(path, &toml::Value::String(value.to_owned())) {
            None => Some(super::load::no_such_key(path)),
            Some(Err(expected)) => Some(format!("{path}: expected {expected}")),
            Some(Ok(())) => None,
        };
        if let Some(wrong) = wrong {
            return Err(ConfigErrors(vec![wrong]));
        }
        if path == "api.rate_limit_rps" {
            newer.complete();
        }
        let changes = self.take(&mut loaded, &newer)?;
        for path in &changes.taken {
            loaded.sources.insert((*path).to_owned(), HERE.to_owned());
        }
        Ok(changes)
    }

    /// Takes over what can change at run time.
    fn take(&self, loaded: &mut Loaded, newer: &Config) -> Result<Changes, ConfigErrors> {
        let mut config = loaded.config.clone();
        let (taken, left) = config.take_live(newer);
        // New values beside old ones that need a restart may contradict each other.
        let wrong = config.contradictions(self.inputs.insecure);
        if !wrong.is_empty() {
            let line = |(path, text)| format!("{path}: {text} (before a restart)");
            return Err(ConfigErrors(wrong.into_iter().map(line).collect()));
        }
        loaded.config = config.clone();
        self.sender.send_replace(Arc::new(config));
        Ok(Changes { taken, left })
    }

    /// Every key, in the order of the file.
    pub fn settings(&self) -> Vec<Setting> {
        let (loaded, defaults) = (self.loaded.lock(), Config::default());
        let text = |config: &Config, path: &str| match config.get(path) {
            Some(toml::Value::String(text)) => text,
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let setting = |key: super::Key| Setting {
            value: text(&loaded.config, &key.path),
            default: text(&defaults, &key.path),
            source: loaded.sources.get(&key.path).map_or("default", String::as_str).to_owned(),
            live: key.live,
            key: key.path,
        };
        Config::keys().into_iter().map(setting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_takes_what_can_change_and_names_what_cannot() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inputs = Inputs { file: Some(file.path().into()), ..Inputs::default() };
        let reloader = Reloader::new(inputs.clone(), inputs.load().unwrap());
        let live = reloader.live();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("[pool]\nmax_size = 7\n[network]\nport = 9\n");
        let changes = reloader.reload().unwrap();
        assert_eq!(changes, Changes { taken: vec!["pool.max_size"], left: vec!["network.port"] });
        assert_eq!((live.now().pool.max_size, live.now().network.port), (7, 5432));
        let settings = reloader.settings();
        let of = |key: &str| settings.iter().find(|s| s.key == key).unwrap();
        assert_eq!((of("pool.max_size").value.as_str(), of("pool.max_size").live), ("7", true));
        assert!(of("pool.max_size").source.starts_with("file "));
        assert_eq!((of("network.port").value.as_str(), of("network.port").live), ("5432", false));
        assert_eq!(of("network.port").source, "default");

        write("[pool]\nmax_size = 8\nmax_sise = 9\nacquire_timeout_secs = 0\n");
        assert_eq!(reloader.reload().unwrap_err().0.len(), 2);
        assert_eq!(live.now().pool.max_size, 7);
        write("");
        assert_eq!(reloader.reload().unwrap().taken, ["pool.max_size"]);
        assert_eq!(live.now().pool.max_size, 100);
    }

    #[test]
    fn a_key_can_be_set_until_the_next_reload() {
        let inputs = Inputs::default();
        let reloader = Reloader::new(inputs.clone(), inputs.load().unwrap());
        let live = reloader.live();
        let source = |key: &str| {
            let settings = reloader.settings();
            settings.into_iter().find(|setting| setting.key == key).unwrap().source
        };
        assert_eq!(reloader.set("pool.max_size", "7").unwrap().taken, ["pool.max_size"]);
        assert_eq!((live.now().pool.max_size, &*source("pool.max_size")), (7, "console"));
        assert_eq!(reloader.set("pool.max_wait_queue_size", "1000").unwrap(), Changes::default());
        assert_eq!(reloader.set("network.port", "9").unwrap().left, ["network.port"]);
        assert_eq!(live.now().network.port, 5432);
        for (key, value, wrong) in [
            ("pool.max_sise", "1", "did you mean pool.max_size?"),
            ("pool.max_size", "many", "pool.max_size: expected"),
            ("pool.max_size", "0", "must be at least 1"),
        ] {
            let errors = reloader.set(key, value).unwrap_err();
            assert!(errors.to_string().contains(wrong), "{errors}");
        }
        assert_eq!(live.now().pool.max_size, 7);
        assert_eq!(reloader.reload().unwrap().taken, ["pool.max_size"]);
        assert_eq!((live.now().pool.max_size, &*source("pool.max_size")), (100, "default"));
    }
}
