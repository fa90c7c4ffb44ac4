//! Keys of programs, `sk_live_…`: random, stored as a hash, shown once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::rbac::{MOST_PERMISSIONS, Permission};
use super::scram::random_bytes;
use super::tables::{SqlRow, Tables};
use super::tokens::logins::{hash_of, texts};
use super::tokens::{Grant, GrantKind, now, refused};
use crate::config::Live;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::lru::Lru;
use crate::limits::recent::is_younger;
use crate::types::{Role, Secret};

/// What keys begin with, for use and for trying out.
pub const PREFIXES: [&str; 2] = ["sk_live_", "sk_test_"];

/// Random bytes of a key, and the digits that they are written with: the fewest that always do.
const RANDOM: usize = 32;
const DIGITS: usize = 43;

/// Keys that there may be.
const MOST_KEYS: usize = 100_000;

/// Keys that are remembered, and for how long. Another node revokes a key at most this much later.
const REMEMBERED: usize = 10_000;
const AGE: Duration = Duration::from_secs(30);

/// Networks that one key may be bound to.
const MOST_NETWORKS: usize = 100;

/// Uses of how many keys wait to be written.
const MOST_PENDING: usize = 10_000;

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// Whether it is only for trying out; nothing differs but its beginning.
    pub is_test: bool,
    /// All that it may be used for; empty = whatever the role may.
    pub permissions: Vec<Permission>,
    /// Where it may be used; empty = everywhere.
    pub addresses: Vec<IpNet>,
    /// Requests a second that it may be used for.
    pub rate_limit: Option<u32>,
    /// Seconds that it is good for; without a value `security.api_keys.default_ttl_secs`.
    pub ttl_secs: Option<u64>,
}

/// What may be known of a key.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyInfo {
    /// Its public id.
    pub key_id: String,
    /// The role that it stands for.
    pub user_id: String,
    /// Name for people.
    pub name: String,
    /// All that it may be used for; empty = whatever the role may.
    pub permissions: Vec<String>,
    /// Networks from where it may be used; empty = from everywhere.
    pub addresses: Vec<String>,
    /// Requests a second.
    #[schema(required)]
    pub rate_limit: Option<u32>,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    #[schema(required)]
    pub expires_at: Option<String>,
    /// When it was used last, to the minute.
    #[schema(required)]
    pub last_used: Option<String>,
    /// How often it was used.
    pub usage_count: u64,
    /// When it was revoked.
    #[schema(required)]
    pub revoked_at: Option<String>,
}

/// The keys of the nodes on one database.
pub struct ApiKeys {
    tables: Arc<Tables>,
    live: Live,
    known: Mutex<Lru<[u8; 32], Known>>,
    /// Uses that are not written yet, by id.
    pending: Mutex<HashMap<String, u64>>,
}

#[derive(Clone)]
struct Known {
    at: Instant,
    /// `None` = there is no such key.
    grant: Option<Arc<Grant>>,
    networks: Arc<[IpNet]>,
}

impl ApiKeys {
    /// Over the tables.
    pub fn new(tables: Arc<Tables>, live: Live) -> Self {
        let known = Mutex::new(Lru::new(REMEMBERED));
        Self { tables, live, known, pending: Mutex::default() }
    }

    /// Whether a text looks like a key.
    pub fn is_key(text: &str) -> bool {
        PREFIXES.iter().any(|prefix| text.starts_with(prefix))
    }

    /// Makes a key for a role; returns its public id and the key, which nobody can see again.
    ///
    /// # Errors
    /// A value is out of bounds, the role has as many as it may, or the tables cannot be reached.
    pub async fn create(&self, role: &Role, oid: u32, new: &NewKey) -> Result<(String, Secret)> {
        check(new)?;
        let config = self.live.now();
        let default = config.api_keys.default_ttl_secs.map(|secs| secs.0);
        let prefix = PREFIXES[usize::from(new.is_test)];
        let key = Secret::new(format!("{prefix}{}", base62(&random_bytes::<RANDOM>())));
        let id = uuid::Uuid::now_v7().to_string();
        let values: [Option<String>; 11] = [
            Some(id.clone()),
            Some(hash_of(key.reveal())),
            Some(role.as_str().to_owned()),
            Some(oid.to_string()),
            Some(new.name.clone()),
            Some(array(new.permissions.iter().map(ToString::to_string))),
            Some(array(new.addresses.iter().map(ToString::to_string))),
            new.rate_limit.map(|n| n.to_string()),
            new.ttl_secs.or(default).map(|n| n.to_string()),
            Some(config.api_keys.max_per_user.to_string()),
            Some(MOST_KEYS.to_string()),
        ];
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        let sql = include_str!("../../sql/auth/create_key.sql");
        match self.tables.run(sql, &values).await?.is_empty() {
            false => Ok((id, key)),
            true => {
                let most = config.api_keys.max_per_user;
                let text = format!("\"{role}\" has {most} API keys, or there are {MOST_KEYS}");
                Err(Error::new(ErrorKind::LimitReached, text)
                    .with_hint("revoke those that are not used any more"))
            }
        }
    }

    /// What a key grants, to somebody at this address.
    ///
    /// # Errors
    /// It is unknown, has ended, or is not for this address.
    pub async fn check(&self, key: &Secret, address: Option<IpAddr>) -> Result<Arc<Grant>> {
        let unknown = || refused("the API key is unknown, has expired or was revoked");
        let text = key.reveal();
        let is_one = |prefix: &str| {
            let rest = text.strip_prefix(prefix).unwrap_or_default();
            rest.len() == DIGITS && rest.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        if !self.live.now().api_keys.enabled || !PREFIXES.iter().any(|prefix| is_one(prefix)) {
            return Err(unknown());
        }
        let tag: [u8; 32] = Sha256::digest(text).into();
        let known = self.known.lock().get(&tag).filter(|known| is_younger(known.at, AGE)).cloned();
        let known = match known {
            Some(known) => known,
            None => {
                let known = self.read(text).await?;
                self.known.lock().insert(tag, known.clone());
                known
            }
        };
        let grant = known.grant.ok_or_else(unknown)?;
        if grant.expires_at.is_some_and(|end| now() >= end) {
            return Err(unknown());
        }
        let is_within = |address: IpAddr| {
            known.networks.iter().any(|network| network.contains(&address.to_canonical()))
        };
        if !known.networks.is_empty() && !address.is_some_and(is_within) {
            return Err(refused("the API key is not for this address"));
        }
        if let Some(id) = &grant.id {
            let mut pending = self.pending.lock();
            if pending.len() < MOST_PENDING || pending.contains_key(id) {
                *pending.entry(id.clone()).or_default() += 1;
            }
        }
        Ok(grant)
    }

    async fn read(&self, key: &str) -> Result<Known> {
        let sql = include_str!("../../sql/auth/find_key.sql");
        let rows = self.tables.ask(sql, &[Some(&hash_of(key))]).await?.unwrap_or_default();
        let (at, none) = (Instant::now(), || Arc::from([]));
        let Some(row) = rows.into_iter().next() else {
            return Ok(Known { at, grant: None, networks: none() });
        };
        let mut row = row.into_iter();
        let mut next = || row.next().flatten();
        let damaged = || Error::internal("a row of rustydb.api_keys is damaged");
        let (id, role, oid) = (next(), next().ok_or_else(damaged)?, next());
        let list = |text: Option<String>| {
            serde_json::from_str::<Vec<String>>(&text.unwrap_or_default()).map_err(Error::internal)
        };
        let permissions = list(next())?;
        let permissions: Vec<Permission> =
            permissions.iter().map(|text| Permission::parse(text)).collect::<Result<_>>()?;
        let networks = list(next())?;
        let networks: Vec<IpNet> = networks
            .iter()
            .map(|text| text.parse().map_err(Error::internal))
            .collect::<Result<_>>()?;
        let (rate_limit, end) = (next(), next());
        let grant = Grant {
            kind: GrantKind::ApiKey,
            subject: role.clone(),
            principal: role.as_str().into(),
            role: role.as_str().into(),
            role_oid: oid.and_then(|oid| oid.parse().ok()),
            may_be_superuser: true,
            claims: None,
            expires_at: end.and_then(|end| end.parse().ok()),
            id,
            login: None,
            permissions: (!permissions.is_empty()).then_some(permissions),
            rate_limit: rate_limit.and_then(|rate| rate.parse().ok()),
        };
        Ok(Known { at, grant: Some(Arc::new(grant)), networks: networks.into() })
    }

    /// The keys of a role, or of all, newest first.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn list(&self, role: Option<&Role>, most: usize) -> Result<Vec<KeyInfo>> {
        let sql = include_str!("../../sql/auth/list_keys.sql");
        let most = most.to_string();
        let rows = self.tables.ask(sql, &[role.map(Role::as_str), Some(&most)]).await?;
        rows.unwrap_or_default().into_iter().map(info).collect()
    }

    /// Revokes a key, of this role or of anybody; returns whether there was one.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn revoke(&self, key_id: &str, role: Option<&Role>) -> Result<bool> {
        let Ok(id) = uuid::Uuid::parse_str(key_id) else { return Ok(false) };
        let id = id.to_string();
        let sql = "UPDATE rustydb.api_keys SET revoked_at = now() WHERE key_id = $1::uuid \
                   AND revoked_at IS NULL AND ($2::text IS NULL OR role_name = $2) RETURNING 1";
        let rows = self.tables.ask(sql, &[Some(&id), role.map(Role::as_str)]).await?;
        let is_it = |known: &Known| {
            known.grant.as_ref().is_some_and(|grant| grant.id.as_ref() == Some(&id))
        };
        self.known.lock().retain(|_, known| !is_it(known));
        Ok(rows.is_some_and(|rows| !rows.is_empty()))
    }

    /// Writes down how often the keys were used; to be called about once a minute.
    ///
    /// # Errors
    /// The tables cannot be reached; then it is tried again.
    pub async fn write_uses(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.pending.lock());
        if pending.is_empty() {
            return Ok(());
        }
        let json = serde_json::to_string(&pending).map_err(Error::internal)?;
        let sql = include_str!("../../sql/auth/use_keys.sql");
        let written = self.tables.ask(sql, &[Some(&json)]).await;
        if written.is_err() {
            let mut now = self.pending.lock();
            for (id, uses) in pending {
                if now.len() < MOST_PENDING || now.contains_key(&id) {
                    *now.entry(id).or_default() += uses;
                }
            }
        }
        written.map(drop)
    }
}

fn check(new: &NewKey) -> Result<()> {
    let wrong = |text: &str| Err(Error::new(ErrorKind::ValidationError, text.to_owned()));
    if new.name.is_empty() || new.name.chars().count() > 100 {
        return wrong("the name of an API key has 1 to 100 characters");
    }
    if new.permissions.len() > MOST_PERMISSIONS || new.addresses.len() > MOST_NETWORKS {
        return wrong("an API key may have 1000 permissions and 100 networks");
    }
    if new.rate_limit == Some(0) || new.rate_limit.is_some_and(|rate| rate > 1_000_000) {
        return wrong("the rate limit of an API key must lie between 1 and 1000000");
    }
    // A thousand years, within what a timestamp can hold.
    if new.ttl_secs.is_some_and(|secs| !(1..=31_557_600_000).contains(&secs)) {
        return wrong("the life of an API key must lie between a second and a thousand years");
    }
    Ok(())
}

fn info(row: SqlRow) -> Result<KeyInfo> {
    let damaged = || Error::internal("a row of rustydb.api_keys is damaged");
    let list = |text: String| serde_json::from_str::<Vec<String>>(&text).map_err(Error::internal);
    let mut row = row;
    let optional = row.split_off(row.len().min(7));
    let [key_id, user_id, name, permissions, addresses, created_at, uses] =
        texts(row).ok_or_else(damaged)?;
    let [rate_limit, expires_at, last_used, revoked_at]: [Option<String>; 4] =
        optional.try_into().map_err(|_| damaged())?;
    Ok(KeyInfo {
        key_id,
        user_id,
        name,
        permissions: list(permissions)?,
        addresses: list(addresses)?,
        rate_limit: rate_limit.and_then(|rate| rate.parse().ok()),
        created_at,
        expires_at,
        last_used,
        usage_count: uses.parse().unwrap_or(0),
        revoked_at,
    })
}

/// A JSON array of texts.
fn array(texts: impl Iterator<Item = String>) -> String {
    serde_json::Value::from_iter(texts).to_string()
}

/// 43 digits of 62, most significant first.
fn base62(bytes: &[u8; RANDOM]) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = *bytes;
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(0);
            rest = value % 62;
        }
        *digit = ALPHABET[usize::try_from(rest).unwrap_or(0)];
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_number_of_43_digits() {
        let mut number = [0; RANDOM];
        assert_eq!(base62(&number), "0".repeat(DIGITS));
        number[RANDOM - 1] = 61;
        assert!(base62(&number).ends_with("0z"));
        (number[RANDOM - 1], number[RANDOM - 2]) = (0, 1);
        assert!(base62(&number).ends_with("048"), "256 = 4 * 62 + 8");
        // The largest number has as many digits, and its first is not cut off.
        assert_eq!(base62(&[255; RANDOM]).len(), DIGITS);
        assert_ne!(base62(&[255; RANDOM]), base62(&[127; RANDOM]));
        assert!(base62(&[255; RANDOM]).as_bytes()[0] > b'0');
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let good = NewKey { name: "n".into(), ..NewKey::default() };
        assert!(check(&good).is_ok());
        for bad in [
            NewKey { name: String::new(), ..good.clone() },
            NewKey { name: "x".repeat(101), ..good.clone() },
            NewKey { rate_limit: Some(0), ..good.clone() },
            NewKey { ttl_secs: Some(0), ..good.clone() },
            NewKey { ttl_secs: Some(u64::MAX), ..good.clone() },
            NewKey { addresses: vec!["10.0.0.0/8".parse().unwrap(); 101], ..good.clone() },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
