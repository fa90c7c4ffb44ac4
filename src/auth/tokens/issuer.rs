//! The issuers that are trusted, and their keys: from files, or fetched from where they publish
//! them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use url::Url;

use super::jws::{Algorithm, Fault};
use super::keys::{self, Key, KeySet};
use crate::config::{JwtIssuer, JwtKey};
use crate::net::fetch;
use crate::telemetry::Metrics;

/// Age at which fetched keys are fetched again.
const REFRESH: Duration = Duration::from_secs(3600);

/// Age at which they are of no use any more, if they could not be fetched again.
const OLDEST: Duration = Duration::from_secs(86_400);

/// Time between two attempts to fetch them, whatever names of keys are made up.
const COOL_DOWN: Duration = Duration::from_secs(60);

/// The same while there are none at all: the issuer may be starting.
const FIRST_COOL_DOWN: Duration = Duration::from_secs(5);

/// Time that an issuer has to answer, and bytes of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: usize = 256 << 10;

/// An issuer with its keys.
#[derive(Debug)]
pub struct Issuer {
    /// What the configuration says of it.
    pub config: JwtIssuer,
    algorithms: Vec<Algorithm>,
    fixed: KeySet,
    remote: Option<Arc<Remote>>,
}

/// Keys that are fetched.
#[derive(Debug)]
struct Remote {
    url: Url,
    state: Mutex<State>,
    /// One fetch at a time; others wait for it.
    turn: tokio::sync::Mutex<()>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    /// When they came.
    fetched: Option<Instant>,
    /// When they were last asked for.
    tried: Option<Instant>,
}

impl Issuer {
    /// Reads the keys that the configuration names; others are fetched when they are needed.
    ///
    /// # Errors
    /// A file that cannot be used, in one sentence.
    pub fn new(config: &JwtIssuer, metrics: &Arc<Metrics>) -> Result<Self, String> {
        let of = |text: String| format!("security.jwt.issuers: \"{}\": {text}", config.issuer);
        let algorithms = config.algorithms.iter().map(|name| {
            Algorithm::of(name).ok_or_else(|| of(format!("\"{name}\" is no algorithm")))
        });
        let mut fixed = Vec::new();
        for key in &config.keys {
            fixed.extend(read(key).map_err(of)?);
        }
        let remote = match &config.jwks_url {
            Some(url) => {
                let url = Url::parse(url).map_err(|e| of(format!("{url}: {e}")))?;
                let (state, turn) = (Mutex::default(), tokio::sync::Mutex::default());
                Some(Arc::new(Remote { url, state, turn, metrics: metrics.clone() }))
            }
            None => None,
        };
        Ok(Self {
            config: config.clone(),
            algorithms: algorithms.collect::<Result<_, String>>()?,
            fixed: KeySet::new(fixed),
            remote,
        })
    }

    /// The key that a token names.
    ///
    /// # Errors
    /// There is none, or the issuer does not sign in that way.
    pub async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Key, Fault> {
        if !self.algorithms.is_empty() && !self.algorithms.contains(&algorithm) {
            return Err("its algorithm is not accepted");
        }
        if let Some(key) = self.fixed.find(kid, algorithm) {
            return Ok(key.clone());
        }
        let Some(remote) = &self.remote else { return Err("its key is not known") };
        let now = Instant::now;
        if let Some(key) = remote.known(now()).find(kid, algorithm) {
            let key = key.clone();
            if remote.is_due(now()) {
                // What is known serves meanwhile, also when the issuer cannot be reached.
                let remote = remote.clone();
                tokio::spawn(async move { remote.refresh().await });
            }
            return Ok(key);
        }
        remote.refresh().await;
        let known = remote.known(now());
        known.find(kid, algorithm).cloned().ok_or("its key is not known")
    }
}

impl Remote {
    fn known(&self, now: Instant) -> Arc<KeySet> {
        let state = self.state.lock();
        match state.fetched {
            Some(at) if now.saturating_duration_since(at) < OLDEST => state.keys.clone(),
            _ => Arc::default(),
        }
    }

    /// Whether what is known is old.
    fn is_due(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.fetched.is_none_or(|at| now.saturating_duration_since(at) >= REFRESH)
            && state.may_try(now)
    }

    /// Fetches the keys, unless that was tried a moment ago.
    async fn refresh(&self) {
        let _turn = self.turn.lock().await;
        {
            let mut state = self.state.lock();
            if !state.may_try(Instant::now()) {
                return;
            }
            state.tried = Some(Instant::now());
        }
        let fetched = fetch(&self.url, LONGEST, PATIENCE).await;
        let keys = fetched.and_then(|text| KeySet::of_json(&text, false));
        self.metrics.access.keys_fetched(keys.is_ok());
        match keys {
            Ok(keys) => {
                let mut state = self.state.lock();
                (state.keys, state.fetched) = (Arc::new(keys), Some(Instant::now()));
            }
            Err(error) => {
                tracing::warn!(url = %self.url, error, "no keys from an issuer of tokens")
            }
        }
    }
}

impl State {
    fn may_try(&self, now: Instant) -> bool {
        let pause = if self.fetched.is_some() { COOL_DOWN } else { FIRST_COOL_DOWN };
        self.tried.is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

/// The keys that one entry of the configuration holds.
fn read(key: &JwtKey) -> Result<Vec<Key>, String> {
    let text = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let named = |material| vec![Key { kid: key.kid.clone(), algorithm: None, material }];
    if let Some(secret) = &key.secret {
        return keys::secret(secret.reveal()).map(named);
    }
    let of = |path: &std::path::Path, e: String| format!("{}: {e}", path.display());
    if let Some(path) = &key.secret_file {
        let text = text(path)?;
        return keys::secret(text.trim_end_matches(['\r', '\n']))
            .map(named)
            .map_err(|e| of(path, e));
    }
    if let Some(path) = &key.pem_file {
        return keys::public_key(&text(path)?).map(named).map_err(|e| of(path, e));
    }
    if let Some(path) = &key.jwks_file {
        let set = KeySet::of_json(text(path)?.as_bytes(), true).map_err(|e| of(path, e))?;
        return Ok(set.into_keys());
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn remote(url: &str) -> JwtIssuer {
        let text = format!("issuer = \"i\"\naudience = [\"a\"]\njwks_url = \"{url}\"");
        toml::from_str(&text).unwrap()
    }

    /// A server that answers every request with `body` and counts them.
    async fn serve(body: impl Fn(usize) -> String + Send + 'static) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?x=1", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 2048];
                let n = socket.read(&mut request).await.unwrap();
                assert!(request[..n].starts_with(b"GET /keys?x=1 HTTP/1.1\r\n"));
                let body = body(counted.fetch_add(1, Ordering::SeqCst));
                let length = body.len();
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                socket.write_all(text.as_bytes()).await.unwrap();
            }
        });
        (url, count)
    }

    fn set(kids: &[&str]) -> String {
        let x = URL_SAFE_NO_PAD.encode([1; 32]);
        let key =
            |kid: &&str| format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}"#);
        let keys: Vec<String> = kids.iter().map(key).collect();
        format!("{{\"keys\":[{}]}}", keys.join(","))
    }

    #[tokio::test]
    async fn a_flood_of_made_up_keys_is_one_fetch() {
        let (url, count) = serve(|_| set(&["a"])).await;
        let metrics = Arc::new(Metrics::new());
        let issuer = Arc::new(Issuer::new(&remote(&url), &metrics).unwrap());
        let tasks = (0..100).map(|n| {
            let issuer = issuer.clone();
            tokio::spawn(async move {
                let kid = if n % 2 == 0 { "a".to_owned() } else { format!("forged-{n}") };
                issuer.key(Some(&kid), Algorithm::EdDsa).await.is_ok()
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), n % 2 == 0);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn new_keys_are_found_after_the_pause_and_old_ones_serve_when_nobody_answers() {
        let (url, count) = serve(|n| match n {
            0 => set(&["a"]),
            1 => set(&["a", "b"]),
            _ => "broken".into(),
        })
        .await;
        let issuer = Issuer::new(&remote(&url), &Arc::default()).unwrap();
        let remote = issuer.remote.clone().unwrap();
        let back = |fetched: Duration, tried: Duration| {
            let now = Instant::now();
            let mut state = remote.state.lock();
            (state.fetched, state.tried) = (now.checked_sub(fetched), now.checked_sub(tried));
        };
        let has = async |kid| issuer.key(Some(kid), Algorithm::EdDsa).await.is_ok();
        assert!(has("a").await && !has("b").await);
        back(COOL_DOWN, COOL_DOWN);
        assert!(has("b").await);
        assert_eq!(count.load(Ordering::SeqCst), 2);
        back(REFRESH, REFRESH);
        assert!(has("b").await, "the answer is broken, the key stays");
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if count.load(Ordering::SeqCst) == 3 {
                break;
            }
        }
        assert_eq!(count.load(Ordering::SeqCst), 3, "it was asked in the background");
        assert!(has("a").await);
        back(OLDEST, Duration::ZERO);
        assert!(!has("a").await, "but not for ever");
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_read() {
        let (url, _) = serve(|_| " ".repeat(LONGEST + 1)).await;
        let url = Url::parse(&url).unwrap();
        assert!(fetch(&url, LONGEST, PATIENCE).await.is_err());
        let issuer = remote("http://127.0.0.1:1/");
        let issuer = Issuer::new(&issuer, &Arc::default()).unwrap();
        assert!(issuer.key(None, Algorithm::EdDsa).await.is_err(), "nobody listens");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let mut config = remote("https://x/");
        config.keys = vec![JwtKey { pem_file: Some("/missing.pem".into()), ..JwtKey::default() }];
        let error = Issuer::new(&config, &Arc::default()).unwrap_err();
        assert!(error.contains("/missing.pem"), "{error}");
        config.keys.clear();
        config.algorithms = vec!["none".into()];
        assert!(Issuer::new(&config, &Arc::default()).is_err());
    }
}
