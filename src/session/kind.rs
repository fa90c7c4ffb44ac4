//! What sessions have in common that begin alike: how they are pooled, and what connections they
//! can use. Each HTTP request begins a session, so for those it is found out once.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;
use parking_lot::RwLock;

use super::pooled::Asked;
use super::{application_of, take_portable};
use crate::config::{Config, PoolingMode};
use crate::pool::LaneKey;
use crate::query::Settings;
use crate::types::{Database, Protocol, Role};

/// Kinds that are remembered.
const MOST: usize = 1024;

/// Start-up parameters: names and values, in several lists.
pub type Start<'s> = [&'s [(&'s str, &'s str)]];

/// How a kind of sessions begins.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) application: Box<str>,
    pub(super) mode: PoolingMode,
    pub(super) can_pool: bool,
    /// What they ask for of pooled sessions; what it begins with is in `start`.
    pub(super) asked: Asked,
    pub(super) start: Arc<Settings>,
    pub(super) lane: Arc<LaneKey>,
}

impl Kind {
    /// `options` are further start-up parameters, in any order.
    pub(super) fn new(
        config: &Config,
        (role, role_oid): (&Role, Option<u32>),
        database: &Database,
        mut options: Vec<(String, String)>,
        protocol: Protocol,
    ) -> Self {
        options.sort();
        let application = application_of(&options).into();
        let is_single_use = options.iter().any(|(name, _)| name == "replication");
        let mode = match is_single_use {
            true => PoolingMode::Session,
            false => config.pooling_mode(role, database, protocol),
        };
        let can_pool = config.drcp.enabled && !is_single_use && protocol != Protocol::Http;
        let mut asked = Asked::take(can_pool, mode, protocol, &mut options);
        let mut portable = match asked.mode {
            PoolingMode::Session => Vec::new(),
            _ => take_portable(&mut options),
        };
        portable.append(&mut asked.start);
        let start = Arc::new(Settings::from_pairs(portable));
        let lane = Arc::new(LaneKey::new(role, role_oid, database, options));
        Self { application, mode, can_pool, asked, start, lane }
    }
}

/// Kinds of sessions of HTTP.
#[derive(Default)]
pub(super) struct Kinds {
    kept: RwLock<HashMap<u64, Kept>>,
    hasher: RandomState,
}

struct Kept {
    config: Arc<Config>,
    role: Role,
    role_oid: Option<u32>,
    database: Database,
    options: Vec<(String, String)>,
    kind: Arc<Kind>,
}

impl Kept {
    fn has(&self, options: &Start<'_>) -> bool {
        let mut others = options.iter().copied().flatten();
        let is_next = |(name, value): &(String, String)| others.next() == Some(&(name, value));
        self.options.iter().all(is_next) && others.next().is_none()
    }
}

impl Kinds {
    /// The kind of a session that is to begin with the configuration in force.
    pub(super) fn of(
        &self,
        config: &Arc<Config>,
        (role, role_oid): (&Role, Option<u32>),
        database: &str,
        options: &Start<'_>,
    ) -> (Arc<Kind>, Database) {
        let mut hash = self.hasher.build_hasher();
        (role, role_oid, database).hash(&mut hash);
        options.iter().copied().flatten().for_each(|pair| pair.hash(&mut hash));
        let hash = hash.finish();
        let is_it = |kept: &&Kept| {
            Arc::ptr_eq(&kept.config, config)
                && (&kept.role, kept.role_oid) == (role, role_oid)
                && kept.database.as_str() == database
                && kept.has(options)
        };
        if let Some(kept) = self.kept.read().get(&hash).filter(is_it) {
            return (kept.kind.clone(), kept.database.clone());
        }
        let (database, who) = (Database::from(database), (role, role_oid));
        let owned = options.iter().copied().flatten();
        let options: Vec<_> = owned.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let kind = Kind::new(config, who, &database, options.clone(), Protocol::Http);
        let kind = Arc::new(kind);
        let (config, role) = (config.clone(), role.clone());
        let kept = Kept {
            config,
            role,
            role_oid,
            database: database.clone(),
            options,
            kind: kind.clone(),
        };
        let mut all = self.kept.write();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(hash, kept);
        (kind, database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_begin_alike_are_of_one_kind() {
        let (kinds, config) = (Kinds::default(), Arc::new(Config::default()));
        let role = Role::from("a");
        let of = |config: &Arc<Config>, oid, database: &str, options: &Start<'_>| {
            kinds.of(config, (&role, oid), database, options).0
        };
        let (encoding, name) = (("client_encoding", "UTF8"), ("application_name", "x"));
        let first = of(&config, Some(1), "d", &[&[encoding], &[name]]);
        assert_eq!(&*first.application, "x");
        let same = |other: &Arc<Kind>| Arc::ptr_eq(&first, other);
        assert!(same(&of(&config, Some(1), "d", &[&[encoding, name]])));
        assert!(!same(&of(&config, Some(2), "d", &[&[encoding], &[name]])));
        assert!(!same(&of(&config, Some(1), "e", &[&[encoding], &[name]])));
        assert!(!same(&of(&config, Some(1), "d", &[&[encoding]])));
        assert!(!same(&of(&config, Some(1), "d", &[&[encoding, name, ("a", "b")]])));
        assert!(!same(&of(&Arc::new(Config::default()), Some(1), "d", &[&[encoding], &[name]])));
        let number = |at: usize| format!("{at}");
        (0..=MOST).for_each(|at| drop(of(&config, None, &number(at), &[])));
        assert!(kinds.kept.read().len() <= MOST);
    }
}
