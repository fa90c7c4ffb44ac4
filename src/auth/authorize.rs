//! What an identity may do: the roles of RustyDB as the tables and PostgreSQL's memberships give
//! them, remembered for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Identity;
use super::rbac::{self, Permission, RoleDefinition, Roles, Sum, Verdict, Wanted};
use super::tables::Tables;
use super::tokens::logins::texts;
use crate::config::{Config, Live};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::lru::Lru;
use crate::limits::recent::is_younger;
use crate::types::Role;

/// How long roles, and who has them, are remembered. Changes on this node count at once.
const AGE: Duration = Duration::from_secs(30);

/// PostgreSQL roles whose roles of RustyDB are remembered.
const REMEMBERED: usize = 10_000;

/// Names of roles, and when they were asked for.
type Given = (Instant, Arc<[String]>);

/// What a PostgreSQL role may, and what that was found out from.
struct May {
    /// When the oldest of it was asked for.
    at: Instant,
    config: Arc<Config>,
    is_superuser: bool,
    sum: Arc<Sum>,
}

/// The decisions.
pub(super) struct Permissions {
    tables: Arc<Tables>,
    live: Live,
    roles: Mutex<Option<(Instant, Arc<Roles>)>>,
    members: Mutex<Lru<Role, Given>>,
    may: Mutex<Lru<Role, May>>,
    /// How often everything was forgotten.
    forgotten: AtomicU64,
}

impl Permissions {
    pub(super) fn new(tables: Arc<Tables>, live: Live) -> Self {
        let (members, may) = (Mutex::new(Lru::new(REMEMBERED)), Mutex::new(Lru::new(REMEMBERED)));
        Self { tables, live, roles: Mutex::default(), members, may, forgotten: AtomicU64::new(0) }
    }

    pub(super) async fn check(&self, identity: &Identity, wanted: &dyn Wanted) -> Result<()> {
        let missing = |why: String| {
            Err(Error::new(ErrorKind::AuthorizationFailed, format!("permission denied: {why}")))
        };
        if !identity.is_for(wanted) {
            return missing(format!("the key is not for {wanted}"));
        }
        match self.sum(identity).await?.decide(wanted) {
            Verdict::Allowed => Ok(()),
            Verdict::Denied(by) => missing(format!("{by} is forbidden")),
            Verdict::NotAllowed => missing(format!("{wanted} is needed")),
        }
    }

    async fn sum(&self, identity: &Identity) -> Result<Arc<Sum>> {
        let (config, is_superuser) = (self.live.now(), identity.is_superuser);
        let known = self.may.lock().get(&identity.role).and_then(|may| {
            let is_same = Arc::ptr_eq(&may.config, &config) && may.is_superuser == is_superuser;
            (is_same && is_younger(may.at, AGE)).then(|| may.sum.clone())
        });
        match known {
            Some(sum) => Ok(sum),
            // Boxed, as what is seldom needed is: every request would carry it.
            None => Box::pin(self.sum_anew(identity, config)).await,
        }
    }

    async fn sum_anew(&self, identity: &Identity, config: Arc<Config>) -> Result<Arc<Sum>> {
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let (at, roles, names) = self.names(identity).await?;
        let sum = Arc::new(roles.sum(names.iter().map(String::as_str)));
        let (role, is_superuser) = (identity.role.clone(), identity.is_superuser);
        let may = May { at, config, is_superuser, sum: sum.clone() };
        let mut all = self.may.lock();
        // What was changed meanwhile may not be in it.
        if self.forgotten.load(Ordering::Acquire) == forgotten {
            all.insert(role, may);
        }
        Ok(sum)
    }

    /// Names of roles, and permissions as texts.
    pub(super) async fn of(&self, identity: &Identity) -> Result<(Vec<String>, Vec<String>)> {
        let (_, roles, names) = self.names(identity).await?;
        let names: Vec<String> = names.into_iter().filter(|n| roles.get(n).is_some()).collect();
        let allowed = roles.allowed(names.iter().map(String::as_str));
        let scopes = identity.grant.as_ref().and_then(|grant| grant.permissions.as_ref());
        let texts = match scopes {
            Some(scopes) => scopes.iter().map(ToString::to_string).collect(),
            None => allowed.into_iter().map(ToString::to_string).collect(),
        };
        Ok((names, texts))
    }

    /// The roles that there are, the names of those that he has, and since when that is known.
    async fn names(&self, identity: &Identity) -> Result<(Instant, Arc<Roles>, Vec<String>)> {
        let (roles_at, roles) = self.known_roles().await?;
        let (given_at, given) = self.given(&identity.role).await?;
        let config = self.live.now();
        // Nobody is asked for a password: everybody is the administrator of his own machine.
        let is_superuser = identity.is_superuser || !config.security.enable_auth;
        let names = rbac::roles_of(
            is_superuser,
            [],
            given.iter().map(String::as_str),
            &config.rbac.default_role,
        );
        let names = names.into_iter().map(str::to_owned).collect();
        Ok((roles_at.min(given_at), roles, names))
    }

    /// The roles that a PostgreSQL role was given here, and those of PostgreSQL that it is in.
    async fn given(&self, role: &Role) -> Result<Given> {
        let known = self.members.lock().get(role).cloned();
        if let Some((at, names)) = known
            && is_younger(at, AGE)
        {
            return Ok((at, names));
        }
        let member = include_str!("../../sql/auth/member_of.sql");
        // Boxed, as what is seldom needed is: every request would carry it.
        let rows = Box::pin(self.tables.read(member, &[Some(role.as_str())])).await?;
        let granted = "SELECT granted FROM rustydb.role_grants WHERE role_name = $1 LIMIT 1000";
        let granted = Box::pin(self.tables.ask(granted, &[Some(role.as_str())])).await?;
        let rows = rows.into_iter().chain(granted.unwrap_or_default());
        let names: Arc<[String]> = rows.filter_map(texts).map(|[name]| name).collect();
        let given = (Instant::now(), names);
        self.members.lock().insert(role.clone(), given.clone());
        Ok(given)
    }

    pub(super) async fn roles(&self) -> Result<Arc<Roles>> {
        Ok(self.known_roles().await?.1)
    }

    async fn known_roles(&self) -> Result<(Instant, Arc<Roles>)> {
        let known = self.roles.lock().clone();
        if let Some((at, roles)) = known
            && is_younger(at, AGE)
        {
            return Ok((at, roles));
        }
        let asked = self.tables.ask(include_str!("../../sql/auth/roles.sql"), &[]);
        let rows = Box::pin(asked).await?;
        let mut further: HashMap<String, RoleDefinition> = HashMap::new();
        for [name, kind, value] in rows.unwrap_or_default().into_iter().filter_map(texts) {
            let role = further.entry(name).or_default();
            match kind.as_str() {
                "allow" => role.allows.push(Permission::parse(&value)?),
                "deny" => role.denies.push(Permission::parse(&value)?),
                "inherit" => role.inherits.push(value),
                _ => {}
            }
        }
        let known = (Instant::now(), Arc::new(Roles::with(further)?));
        *self.roles.lock() = Some(known.clone());
        Ok(known)
    }

    pub(super) fn forget(&self) {
        *self.roles.lock() = None;
        self.members.lock().clear();
        let mut may = self.may.lock();
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        may.clear();
    }

    pub(super) async fn change(&self, name: &str, role: Option<RoleDefinition>) -> Result<()> {
        self.forget();
        let mut roles = Roles::clone(&*self.roles().await?);
        match &role {
            Some(role) => roles.put(name, role.clone())?,
            None => roles.remove(name)?,
        }
        match role {
            None => {
                let sql = "DELETE FROM rustydb.role_grants WHERE granted = $1; \
                           DELETE FROM rustydb.roles WHERE name = $1";
                self.tables.run(sql, &[Some(name)]).await?;
            }
            Some(role) => {
                let list = |list: &[Permission]| {
                    let texts = list.iter().map(ToString::to_string);
                    serde_json::Value::from_iter(texts).to_string()
                };
                let (allows, denies) = (list(&role.allows), list(&role.denies));
                let inherits = serde_json::Value::from_iter(role.inherits).to_string();
                let sql = include_str!("../../sql/auth/put_role.sql");
                let values = [name, &allows, &denies, &inherits].map(Some);
                self.tables.run(sql, &values).await?;
            }
        }
        self.forget();
        Ok(())
    }

    pub(super) async fn grant(&self, to: &Role, names: &[String]) -> Result<()> {
        self.forget();
        let roles = self.roles().await?;
        if let Some(unknown) = names.iter().find(|name| roles.get(name).is_none()) {
            let text = format!("there is no role \"{unknown}\" in RustyDB");
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        let names = serde_json::Value::from_iter(names.iter().map(String::as_str)).to_string();
        let sql = "DELETE FROM rustydb.role_grants WHERE role_name = $1; \
                   INSERT INTO rustydb.role_grants (role_name, granted) \
                   SELECT DISTINCT $1, r FROM json_array_elements_text($2::json) r";
        self.tables.run(sql, &[Some(to.as_str()), Some(&names)]).await?;
        self.forget();
        Ok(())
    }
}
