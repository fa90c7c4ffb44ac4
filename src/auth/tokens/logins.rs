//! Log-ins over HTTP and what comes of them: short access tokens that every node can verify by
//! itself, refresh tokens that are good once, sessions of browsers, and the end of them all.
//!
//! Only hashes are stored, and the tokens are random, so one round of SHA-256 is enough.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::jws::{self, Material, Parsed};
use super::{Checked, Grant, GrantKind, now, refused};
use crate::auth::scram::random_bytes;
use crate::auth::tables::{SqlRow, Tables};
use crate::config::{Live, OWN_ISSUER};
use crate::error::{Error, Result};
use crate::limits::lru::Lru;
use crate::types::{Role, Secret};

/// Prefix of a refresh token, and of a session token.
pub const REFRESH_PREFIX: &str = "rt_";
/// Prefix of a session token.
pub const SESSION_PREFIX: &str = "st_";

/// Tokens and log-ins in memory that were revoked before their end; beyond it the table is asked.
const MOST_REVOKED: usize = 100_000;

/// Age at which what other nodes have revoked is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Sessions that are remembered, and for how long.
const SESSIONS: usize = 10_000;
const SESSION_AGE: Duration = Duration::from_secs(30);

/// Time between two looks for a signing key that another node has made.
const KEY_PAUSE: Duration = Duration::from_secs(10);

/// What a log-in or a refresh gives. The texts are secrets and are shown once.
#[derive(Debug)]
pub struct TokenPair {
    /// For `Authorization: Bearer`.
    pub access_token: Secret,
    /// For the next pair.
    pub refresh_token: Secret,
    /// Seconds that the access token is good for.
    pub expires_in: u64,
    /// The log-in, public.
    pub login: String,
    /// The role.
    pub role: Role,
}

/// What the log-in of a browser gives.
#[derive(Debug)]
pub struct BrowserSession {
    /// For the cookie `rustydb_session`.
    pub session_token: Secret,
    /// For the header `X-CSRF-Token` of unsafe requests.
    pub csrf_token: Secret,
    /// Seconds that they are good for.
    pub expires_in: u64,
    /// The log-in, public.
    pub login: String,
}

/// What became of a refresh token.
#[derive(Debug)]
pub enum Refreshed {
    /// The next pair.
    Pair(TokenPair),
    /// It had been used before: somebody else has it too, and the whole log-in is revoked.
    Reused {
        /// Whose it was.
        role: Role,
        /// The log-in.
        login: String,
    },
}

/// The log-ins of the nodes on one database.
pub struct Logins {
    tables: Arc<Tables>,
    live: Live,
    key: Mutex<Option<SigningKey>>,
    revoked: Mutex<Revoked>,
    /// One look at a time.
    turn: tokio::sync::Mutex<()>,
    sessions: Mutex<Lru<[u8; 32], Checked>>,
}

#[derive(Clone)]
struct SigningKey {
    kid: Arc<str>,
    secret: Arc<[u8]>,
    read: Instant,
}

#[derive(Default)]
struct Revoked {
    /// Token or log-in → the end that it would have had.
    ids: HashMap<String, u64>,
    /// Whether there are more than are kept here.
    overflows: bool,
    looked: Option<Instant>,
    /// The youngest that is known, as PostgreSQL writes it.
    youngest: Option<String>,
}

impl Logins {
    /// Over the tables.
    pub fn new(tables: Arc<Tables>, live: Live) -> Self {
        let sessions = Mutex::new(Lru::new(SESSIONS));
        let (key, revoked, turn) =
            (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self { tables, live, key, revoked, turn, sessions }
    }

    /// Gives tokens to a role that has proved itself.
    ///
    /// # Errors
    /// The tables cannot be reached or made.
    pub async fn begin(&self, role: &Role, oid: u32) -> Result<TokenPair> {
        let login = uuid::Uuid::now_v7().to_string();
        let refresh = random_token(REFRESH_PREFIX);
        let ttl = self.live.now().tokens.refresh_ttl_secs.0;
        let sql = include_str!("../../../sql/auth/begin.sql");
        let (hash, ttl, oid_text) = (hash_of(refresh.reveal()), ttl.to_string(), oid.to_string());
        let values = [&login, role.as_str(), &oid_text, &hash, &ttl].map(Some);
        self.tables.run(sql, &values).await?;
        self.pair(role.clone(), oid, login, refresh).await
    }

    async fn pair(
        &self,
        role: Role,
        oid: u32,
        login: String,
        refresh_token: Secret,
    ) -> Result<TokenPair> {
        let key = self.signing_key().await?;
        let expires_in = self.live.now().tokens.access_ttl_secs.0;
        let at = now();
        let claims = serde_json::json!({
            "iss": OWN_ISSUER,
            "sub": role.as_str(),
            "role": role.as_str(),
            "aud": OWN_ISSUER,
            "iat": at,
            "nbf": at,
            "exp": at + expires_in,
            "jti": uuid::Uuid::now_v7().to_string(),
            "sid": login,
            "oid": oid,
        });
        let access_token = Secret::new(jws::sign(&key.secret, &key.kid, &claims.to_string()));
        Ok(TokenPair { access_token, refresh_token, expires_in, login, role })
    }

    /// Takes a refresh token and gives the next pair.
    ///
    /// # Errors
    /// It is unknown, has expired, or its log-in has ended.
    pub async fn refresh(&self, token: &Secret) -> Result<Refreshed> {
        if !token.reveal().starts_with(REFRESH_PREFIX) || token.reveal().len() > 128 {
            return Err(refused("it is no refresh token"));
        }
        let next = random_token(REFRESH_PREFIX);
        let (old, new) = (hash_of(token.reveal()), hash_of(next.reveal()));
        let ttl = self.live.now().tokens.refresh_ttl_secs.0.to_string();
        let sql = include_str!("../../../sql/auth/refresh.sql");
        let rows = self.tables.ask(sql, &[Some(&old), Some(&new), Some(&ttl)]).await?;
        let rows = rows.unwrap_or_default();
        if let Some([login, role, oid]) = rows.into_iter().next().and_then(texts) {
            let role = role.as_str().into();
            let oid = oid.parse().map_err(Error::internal)?;
            return Ok(Refreshed::Pair(self.pair(role, oid, login, next).await?));
        }
        // Not good: did somebody use it before?
        let sql = "SELECT l.login_id, l.role_name, l.role_oid FROM rustydb.refresh_tokens t \
                   JOIN rustydb.logins l USING (login_id) \
                   WHERE t.hash = decode($1, 'hex') AND t.used_at IS NOT NULL";
        let rows = self.tables.ask(sql, &[Some(&old)]).await?.unwrap_or_default();
        match rows.into_iter().next().and_then(texts) {
            Some([login, role, _]) => {
                self.end(&login).await?;
                Ok(Refreshed::Reused { role: role.as_str().into(), login })
            }
            None => Err(refused("it is unknown, has expired or its log-in has ended")),
        }
    }

    /// Gives a browser a session.
    ///
    /// # Errors
    /// The tables cannot be reached or made.
    pub async fn begin_session(&self, role: &Role, oid: u32) -> Result<BrowserSession> {
        let login = uuid::Uuid::now_v7().to_string();
        let session_token = random_token(SESSION_PREFIX);
        let expires_in = self.live.now().tokens.session_ttl_secs.0;
        let sql = include_str!("../../../sql/auth/begin_session.sql");
        let hash = hash_of(session_token.reveal());
        let (ttl, oid) = (expires_in.to_string(), oid.to_string());
        let values = [&login, role.as_str(), &oid, &hash, &ttl].map(Some);
        self.tables.run(sql, &values).await?;
        let csrf_token = csrf_of(&session_token);
        Ok(BrowserSession { session_token, csrf_token, expires_in, login })
    }

    /// Whose session a token is.
    ///
    /// # Errors
    /// Nobody's.
    pub async fn session(&self, token: &Secret) -> Result<Arc<Grant>> {
        let unknown = || refused("the session is unknown or has ended");
        if !token.reveal().starts_with(SESSION_PREFIX) || token.reveal().len() > 128 {
            return Err(unknown());
        }
        let tag: [u8; 32] = Sha256::digest(token.reveal()).into();
        let known = self.sessions.lock().get(&tag).cloned();
        let grant = match known {
            Some((at, grant)) if at.elapsed() < SESSION_AGE => grant,
            _ => {
                let sql = "SELECT l.login_id, l.role_name, l.role_oid, \
                           floor(extract(epoch FROM l.expires_at))::bigint \
                           FROM rustydb.session_tokens t JOIN rustydb.logins l USING (login_id) \
                           WHERE t.hash = decode($1, 'hex') AND l.revoked_at IS NULL \
                           AND l.expires_at > now()";
                let hash = hash_of(token.reveal());
                let rows = self.tables.ask(sql, &[Some(&hash)]).await?.unwrap_or_default();
                let row = rows.into_iter().next().and_then(texts).ok_or_else(unknown)?;
                let [login, role, oid, end] = row;
                let grant = Arc::new(Grant {
                    kind: GrantKind::Session,
                    role: role.as_str().into(),
                    principal: role.as_str().into(),
                    subject: role,
                    role_oid: oid.parse().ok(),
                    may_be_superuser: true,
                    claims: None,
                    expires_at: end.parse().ok(),
                    id: None,
                    login: Some(login),
                    permissions: None,
                    rate_limit: None,
                });
                self.sessions.lock().insert(tag, (Instant::now(), grant.clone()));
                grant
            }
        };
        let is_over = grant.expires_at.is_none_or(|end| now() >= end);
        if is_over || self.is_revoked(&grant).await? {
            self.sessions.lock().remove(&tag);
            return Err(unknown());
        }
        Ok(grant)
    }

    /// Ends a log-in: its access tokens, refresh tokens and session.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn end(&self, login: &str) -> Result<()> {
        let config = self.live.now();
        // Longer than anything that comes from it lives without the tables.
        let ttl = config.tokens.access_ttl_secs.0 + 60;
        let sql = include_str!("../../../sql/auth/end.sql");
        self.tables.run(sql, &[Some(login), Some(&ttl.to_string())]).await?;
        self.revoked.lock().put(login.to_owned(), now() + ttl);
        Ok(())
    }

    /// Ends a single token before its time.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn revoke(&self, id: &str, expires_at: u64) -> Result<()> {
        let sql = "INSERT INTO rustydb.revoked (id, expires_at) \
                   VALUES ($1, to_timestamp($2::float8)) ON CONFLICT (id) DO NOTHING";
        self.tables.run(sql, &[Some(id), Some(&expires_at.to_string())]).await?;
        self.revoked.lock().put(id.to_owned(), expires_at);
        Ok(())
    }

    /// Whether a token, or the log-in that it comes from, was ended before its time. Another node
    /// is heard of within [`LOOK_EVERY`].
    pub(super) async fn is_revoked(&self, grant: &Grant) -> Result<bool> {
        self.look().await?;
        let ids = [grant.id.as_deref(), grant.login.as_deref()];
        let overflows = {
            let revoked = self.revoked.lock();
            if ids.into_iter().flatten().any(|id| revoked.ids.contains_key(id)) {
                return Ok(true);
            }
            revoked.overflows
        };
        if !overflows {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM rustydb.revoked WHERE id IN ($1, $2)";
        Ok(self.tables.ask(sql, &ids).await?.is_some_and(|rows| !rows.is_empty()))
    }

    async fn look(&self) -> Result<()> {
        let is_fresh = || {
            let looked = self.revoked.lock().looked;
            looked.is_some_and(|at| at.elapsed() < LOOK_EVERY)
        };
        if is_fresh() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if is_fresh() {
            return Ok(());
        }
        let youngest = self.revoked.lock().youngest.clone();
        // A few seconds again: who began earlier may have finished later.
        let sql = "SELECT id, ceil(extract(epoch FROM expires_at))::bigint, revoked_at \
                   FROM rustydb.revoked WHERE expires_at > now() \
                   AND ($1::timestamptz IS NULL OR revoked_at > $1::timestamptz - interval '30 s') \
                   ORDER BY revoked_at LIMIT 100001";
        let rows = self.tables.ask(sql, &[youngest.as_deref()]).await?.unwrap_or_default();
        let mut revoked = self.revoked.lock();
        let at = now();
        revoked.ids.retain(|_, end| *end > at);
        if revoked.ids.is_empty() {
            revoked.overflows = false;
        }
        for [id, end, youngest] in rows.into_iter().filter_map(texts) {
            revoked.youngest = Some(youngest);
            revoked.put(id, end.parse().unwrap_or(u64::MAX));
        }
        revoked.looked = Some(Instant::now());
        Ok(())
    }

    /// Whether a token that claims to be RustyDB's own is.
    pub(super) async fn has_signed(&self, token: &Parsed<'_>) -> Result<bool> {
        let Some(mut key) = self.known_key().await? else { return Ok(false) };
        if token.kid.as_deref() != Some(&*key.kid) && key.read.elapsed() > KEY_PAUSE {
            // Another node may have another one, since the tables were restored.
            *self.key.lock() = None;
            let Some(newer) = self.known_key().await? else { return Ok(false) };
            key = newer;
        }
        Ok(token.is_signed_with(&Material::Secret(key.secret.to_vec())))
    }

    /// The key that all nodes share; the first that needs one makes it.
    async fn signing_key(&self) -> Result<SigningKey> {
        if let Some(key) = self.known_key().await? {
            return Ok(key);
        }
        let made = hex(&random_bytes::<32>());
        let put = "INSERT INTO rustydb.secrets (name, value) \
                   VALUES ('access_token', decode($1, 'hex')) ON CONFLICT DO NOTHING";
        self.tables.run(put, &[Some(&made)]).await?;
        let key = self.known_key().await?;
        key.ok_or_else(|| Error::internal("the signing key is gone as soon as it is stored"))
    }

    /// The same, unless nobody has made one.
    async fn known_key(&self) -> Result<Option<SigningKey>> {
        if let Some(key) = self.key.lock().clone() {
            return Ok(Some(key));
        }
        let ask = "SELECT encode(value, 'hex') FROM rustydb.secrets WHERE name = 'access_token'";
        let rows = self.tables.ask(ask, &[]).await?.unwrap_or_default();
        let Some([text]) = rows.into_iter().next().and_then(texts) else { return Ok(None) };
        let secret = unhex(&text).filter(|secret| secret.len() >= 32);
        let secret = secret.ok_or_else(|| Error::internal("the stored signing key is damaged"))?;
        let kid = hex(&Sha256::digest(&secret)[..8]).into();
        let key = SigningKey { kid, secret: secret.into(), read: Instant::now() };
        *self.key.lock() = Some(key.clone());
        Ok(Some(key))
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn sweep(&self) -> Result<()> {
        self.tables.ask(include_str!("../../../sql/auth/sweep.sql"), &[]).await.map(drop)
    }
}

impl Revoked {
    fn put(&mut self, id: String, end: u64) {
        match self.ids.len() < MOST_REVOKED || self.ids.contains_key(&id) {
            true => drop(self.ids.insert(id, end)),
            false => self.overflows = true,
        }
    }
}

/// The CSRF token of a session: who can read the one can compute the other, nobody else can.
pub fn csrf_of(session_token: &Secret) -> Secret {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, session_token.reveal().as_bytes());
    Secret::new(URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, b"csrf")))
}

/// Whether a CSRF token belongs to a session.
pub fn csrf_fits(session_token: &Secret, csrf_token: &str) -> bool {
    csrf_of(session_token).reveal().as_bytes().ct_eq(csrf_token.as_bytes()).into()
}

/// 256 random bits.
fn random_token(prefix: &str) -> Secret {
    Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>())))
}

/// SHA-256, in hexadecimal digits.
pub(in crate::auth) fn hash_of(token: &str) -> String {
    hex(&Sha256::digest(token))
}

pub(in crate::auth) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair.get(1)?).ok()).collect()
}

/// A row of a known number of values, none of them NULL.
pub(in crate::auth) fn texts<const N: usize>(row: SqlRow) -> Option<[String; N]> {
    let row: Option<Vec<String>> = row.into_iter().collect();
    row?.try_into().ok()
}
