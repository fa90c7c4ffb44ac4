//! The one authentication chain: credentials of any door → [`Identity`].
//!
//! A PostgreSQL role is the identity. Passwords are checked against PostgreSQL's own verifiers,
//! which come through [`RoleStore`]; this module knows no connection.
//!
//! | File | What it knows |
//! |---|---|
//! | this, [`scram`] | passwords |
//! | [`tokens`], [`api_keys`] | credentials that are no passwords |
//! | `chain.rs` | from any of them to an identity; log-ins and log-outs over HTTP |
//! | [`guard`] | who has to wait after failures |
//! | [`rbac`], `authorize.rs` | what an identity may do |
//! | [`principals`] | users and groups, as administrators see them |
//! | [`tables`] | where all this is kept |

pub mod api_keys;
mod authorize;
mod chain;
pub mod guard;
pub mod hba;
pub mod principals;
pub mod rbac;
pub mod scram;
mod standby;
pub mod tables;
pub mod tokens;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::audit::{AuditLog, Event, EventType, Outcome};
use crate::config::{HbaMethod, Live};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::rate::RateLimiter;
use crate::limits::recent::is_younger;
use crate::telemetry::Metrics;
use crate::types::{Protocol, Role, Secret};
use api_keys::ApiKeys;
use authorize::Permissions;
pub use chain::{Credential, Login, Visit};
use guard::Guard;
use hba::Rules;
use scram::{Channel, ScramError, ScramKeys, ServerExchange, Verifier};
pub use standby::StandbyRoles;
use tables::{SystemSql, Tables};
use tokens::logins::Logins;
use tokens::{Grant, Tokens};

/// Roles whose verifier or checked password is remembered; the oldest go first.
const CACHE_ROLES: usize = 10_000;

/// What PostgreSQL knows of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRecord {
    /// Its number: a role that is renamed keeps it, one that is made anew has another.
    pub oid: u32,
    /// The SCRAM verifier; `None` when the role has no password, or one stored as MD5.
    pub verifier: Option<Verifier>,
    /// `rolcanlogin`.
    pub can_login: bool,
    /// Whether `rolvaliduntil` has passed.
    pub expired: bool,
    /// `rolsuper`.
    pub is_superuser: bool,
}

/// A boxed future, because the store is used as a trait object.
pub type RoleFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<RoleRecord>>> + Send + 'a>>;

/// Where role records come from.
pub trait RoleStore: Send + Sync {
    /// The record of a role, `None` when there is no such role.
    fn role<'a>(&'a self, role: &'a Role) -> RoleFuture<'a>;
}

/// Counts the commands through this server that make a difference to the next log-in: what was
/// remembered before the last one, a verifier or an idle connection, may be wrong.
#[derive(Clone, Debug, Default)]
pub struct AccessChanges(Arc<AtomicU64>);

impl AccessChanges {
    /// A command is complete; some change who may enter, or with which settings.
    pub fn saw(&self, command: &str) {
        if matches!(command, "ALTER ROLE" | "DROP ROLE" | "ALTER DATABASE" | "REVOKE") {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Another server is the primary now: it may know other roles, and every connection to the one
    /// before is of no use.
    pub fn primary_changed(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Who a client is, proven.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The PostgreSQL role.
    pub role: Role,
    /// Its number, where it was asked for.
    pub role_oid: Option<u32>,
    /// Whether it is a superuser, as far as was asked.
    pub is_superuser: bool,
    /// Keys for logging in to an external backend as that role.
    pub keys: Option<ScramKeys>,
    /// What he has shown instead of a password.
    pub grant: Option<Arc<Grant>>,
    /// Who logs in for a role that may not do so itself, and then takes it on: good for statements
    /// that RustyDB makes, as SQL of a client's could put the role off again.
    pub stand_in: Option<Arc<Identity>>,
}

impl Identity {
    /// A role, and what is recorded of it.
    fn new(role: Role, record: Option<&RoleRecord>) -> Self {
        Self {
            role,
            role_oid: record.map(|record| record.oid),
            is_superuser: record.is_some_and(|record| record.is_superuser),
            keys: None,
            grant: None,
            stand_in: None,
        }
    }

    /// Whether his credentials are for this, whatever his role may: a key can be for less.
    pub fn is_for(&self, wanted: &dyn rbac::Wanted) -> bool {
        let scopes = self.grant.as_ref().and_then(|grant| grant.permissions.as_ref());
        scopes.is_none_or(|scopes| scopes.iter().any(|scope| wanted.is_allowed_by(scope)))
    }
}

/// What a chain is made of.
pub struct Means {
    /// Where role records come from.
    pub roles: Arc<dyn RoleStore>,
    /// How RustyDB's own tables are reached.
    pub sql: Arc<dyn SystemSql>,
    /// The configuration in force.
    pub live: Live,
    /// Commands that matter to log-ins.
    pub changes: AccessChanges,
    /// The server's limiter.
    pub limiter: Arc<RateLimiter>,
    /// The server's audit log.
    pub audit: AuditLog,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The chain.
pub struct Authenticator {
    roles: Arc<dyn RoleStore>,
    tables: Arc<Tables>,
    sql: Arc<dyn SystemSql>,
    /// False only with `--insecure`.
    required: bool,
    config: Live,
    /// Random for each process: salts of mock verifiers and tags of checked passwords.
    secret: [u8; 32],
    cache: Mutex<Caches>,
    changes: AccessChanges,
    metrics: Arc<Metrics>,
    audit: AuditLog,
    guard: Guard,
    tokens: Tokens,
    keys: ApiKeys,
    permissions: Permissions,
    /// Successes over HTTP that the audit log has heard of a moment ago.
    noted: chain::Noted,
}

#[derive(Default)]
struct Caches {
    roles: HashMap<Role, Remembered, RandomState>,
    passwords: HashMap<Role, CheckedPassword, RandomState>,
}

struct Remembered {
    at: Instant,
    /// [`AccessChanges`] when it was asked for.
    changes: u64,
    record: RoleRecord,
}

/// A password that fitted a verifier: the same pair need not be derived again.
struct CheckedPassword {
    verifier: Verifier,
    tag: [u8; 32],
    keys: ScramKeys,
}

/// A SCRAM log-in between the client's two messages.
pub struct PendingLogin {
    role: Role,
    record: Option<RoleRecord>,
    exchange: ServerExchange,
    visit: Visit,
}

impl Authenticator {
    /// A chain; issuers of tokens are trusted after [`Self::reload`].
    pub fn new(means: Means) -> Self {
        let Means { roles, sql, live, changes, limiter, audit, metrics } = means;
        let tables = Arc::new(Tables::new(sql.clone()));
        let logins = Logins::new(tables.clone(), live.clone());
        Self {
            roles,
            sql,
            required: live.now().security.enable_auth,
            secret: scram::random_bytes(),
            cache: Mutex::default(),
            changes,
            guard: Guard::new(live.clone(), limiter, metrics.clone()),
            tokens: Tokens::new(live.clone(), metrics.clone(), logins),
            keys: ApiKeys::new(tables.clone(), live.clone()),
            permissions: Permissions::new(tables.clone(), live.clone()),
            tables,
            noted: chain::Noted::default(),
            config: live,
            metrics,
            audit,
        }
    }

    /// RustyDB's own tables.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Whether clients must prove who they are.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Takes a client at its word; only without required authentication.
    pub fn trust(&self, role: Role) -> Result<Identity> {
        if self.required {
            return Err(refused(&role));
        }
        self.metrics.auth_attempt("trust", true);
        Ok(Identity::new(role, None))
    }

    /// The rules of the PostgreSQL door, as they are now; `None` = nobody is asked.
    pub fn rules(&self) -> Option<Rules> {
        self.required.then(|| Rules::new(self.config.now()))
    }

    /// Lets a role in for which something else than a password spoke, as a rule says.
    ///
    /// # Errors
    /// There is no such role, or it may not log in.
    pub async fn vouched(&self, method: HbaMethod, role: Role, visit: &Visit) -> Result<Identity> {
        let record = self.record(&role).await?;
        let refusal = match &record {
            None => Some(Error::sql(b"28000", format!("role \"{role}\" does not exist"))),
            Some(record) if !record.can_login => Some(may_not_log_in(&role)),
            Some(_) => None,
        };
        self.metrics.auth_attempt(method.word(), refusal.is_none());
        self.audit_login(method.word(), &role, visit, refusal.as_ref().map(Error::message)).await?;
        match (refusal, record) {
            (None, Some(record)) => Ok(Identity::new(role, Some(&record))),
            (error, _) => {
                self.cache.lock().roles.remove(&role);
                Err(error.unwrap_or_else(|| hba::failed(method, role.as_str())))
            }
        }
    }

    /// Counts a client whom a method other than a password refused, and says so in the log.
    pub fn refuse(&self, method: HbaMethod, role: &str, visit: &Visit, error: Error) -> Error {
        self.metrics.auth_attempt(method.word(), false);
        let event = Event::new(EventType::AuthenticationFailure, Outcome::Denied, method.word());
        self.audit.note(visit.mark(Event { error: Some(error.to_string()), ..event.by(role) }));
        let (method, address) = (method.word(), visit.address.map(tracing::field::display));
        tracing::info!(role, method, address, reason = %error, "log-in refused");
        error
    }

    /// Checks a name and a password, of somebody who came over HTTP from nobody knows where.
    pub async fn password(&self, role: Role, password: Secret) -> Result<Identity> {
        self.password_from(role, password, &Visit::new(Protocol::Http, None)).await
    }

    /// Checks a name and a password.
    ///
    /// # Errors
    /// They do not fit, or the client has to wait after too many failures.
    pub async fn password_from(
        &self,
        role: Role,
        password: Secret,
        visit: &Visit,
    ) -> Result<Identity> {
        if !self.required {
            return self.trust(role);
        }
        self.guard.may_try(&role, visit.address)?;
        let mut record = self.record(&role).await?;
        let mut keys = self.check_record(&role, record.as_ref(), &password).await?;
        if keys.is_none() && self.cache.lock().roles.remove(&role).is_some() {
            // The password may be newer than what was remembered.
            let fresh = self.record(&role).await?;
            if fresh != record {
                keys = self.check_record(&role, fresh.as_ref(), &password).await?;
                record = fresh;
            }
        }
        self.conclude("password", role, record.as_ref(), keys, visit).await
    }

    async fn check_record(
        &self,
        role: &Role,
        record: Option<&RoleRecord>,
        password: &Secret,
    ) -> Result<Option<ScramKeys>> {
        let verifier = record.and_then(|record| record.verifier.clone());
        // Without one, the same work is done in vain: the time must not tell who exists.
        let verifier = verifier.unwrap_or_else(|| Verifier::mock(&self.secret, role.as_str()));
        self.check_password(role, verifier, password.clone()).await
    }

    async fn check_password(
        &self,
        role: &Role,
        verifier: Verifier,
        password: Secret,
    ) -> Result<Option<ScramKeys>> {
        let tag = scram::password_tag(&self.secret, &password);
        if let Some(known) = self.cache.lock().passwords.get(role)
            && known.verifier == verifier
            && bool::from(known.tag.ct_eq(&tag))
        {
            return Ok(Some(known.keys.clone()));
        }
        // Thousands of hash rounds: not on a thread that serves other clients.
        let (keys, verifier) = tokio::task::spawn_blocking(move || {
            let keys = verifier.check(&password);
            (keys, verifier)
        })
        .await
        .map_err(Error::internal)?;
        if let Some(keys) = &keys {
            let checked = CheckedPassword { verifier, tag, keys: keys.clone() };
            let mut cache = self.cache.lock();
            bound(&mut cache.passwords);
            cache.passwords.insert(role.clone(), checked);
        }
        Ok(keys)
    }

    /// Begins a SCRAM log-in; returns it and the server's first message. An unknown role gets a
    /// challenge too, which nothing answers.
    pub async fn scram_begin(
        &self,
        role: Role,
        client_first: &[u8],
        channel: Channel<'_>,
        visit: &Visit,
    ) -> Result<(PendingLogin, String)> {
        self.guard.may_try(&role, visit.address)?;
        let record = self.record(&role).await?;
        let verifier = record
            .as_ref()
            .and_then(|record| record.verifier.clone())
            .unwrap_or_else(|| Verifier::mock(&self.secret, role.as_str()));
        let begun = ServerExchange::begin(client_first, verifier, channel);
        let (exchange, message) = begun.map_err(|e| {
            self.metrics.auth_attempt("scram", false);
            scram_refused(e)
        })?;
        Ok((PendingLogin { role, record, exchange, visit: visit.clone() }, message))
    }

    /// Ends a SCRAM log-in; returns the identity and the server's last message.
    pub async fn scram_finish(
        &self,
        login: PendingLogin,
        client_final: &[u8],
    ) -> Result<(Identity, String)> {
        let PendingLogin { role, record, exchange, visit } = login;
        let (keys, message) = match exchange.finish(client_final) {
            Ok((keys, message)) => (Some(keys), message),
            Err(e @ ScramError::BindingMismatch) => {
                self.metrics.auth_attempt("scram", false);
                tracing::warn!(%role, "the client of a log-in sees another certificate than ours");
                return Err(scram_refused(e));
            }
            Err(_) => (None, String::new()),
        };
        let identity = self.conclude("scram", role, record.as_ref(), keys, &visit).await?;
        Ok((identity, message))
    }

    /// Every method ends here: the same conditions, the same text, the same metric.
    async fn conclude(
        &self,
        method: &'static str,
        role: Role,
        record: Option<&RoleRecord>,
        keys: Option<ScramKeys>,
        visit: &Visit,
    ) -> Result<Identity> {
        let refusal = match (record, &keys) {
            (Some(record), Some(_)) if !record.can_login => Some(may_not_log_in(&role)),
            (Some(record), Some(_)) if !record.expired => None,
            _ => Some(refused(&role)),
        };
        self.metrics.auth_attempt(method, refusal.is_none());
        let why = refusal.is_some().then(|| reason(record, &keys));
        self.audit_login(method, &role, visit, why).await?;
        match refusal {
            None => {
                self.guard.succeeded(&role, visit.address);
                Ok(Identity { keys, ..Identity::new(role, record) })
            }
            Some(error) => {
                // Who knows the password guesses at nothing.
                if keys.is_none() && self.guard.failed(&role, visit.address) {
                    tracing::warn!(%role, address = ?visit.address, "locked after failed log-ins");
                }
                let (why, address) =
                    (reason(record, &keys), visit.address.map(tracing::field::display));
                tracing::info!(%role, method, address, reason = why, "log-in refused");
                // A new password must work at once, so a failure is never remembered.
                self.cache.lock().roles.remove(&role);
                Err(error)
            }
        }
    }

    async fn record(&self, role: &Role) -> Result<Option<RoleRecord>> {
        let changes = self.changes.count();
        // Bounds how long a role that was dropped elsewhere still gets in.
        let cache_for = self.config.now().security.verifier_cache_secs.duration();
        if let Some(known) = self.cache.lock().roles.get(role)
            && is_younger(known.at, cache_for)
            && known.changes == changes
        {
            return Ok(Some(known.record.clone()));
        }
        // Boxed: what is seldom needed is not carried by every request.
        let record = Box::pin(self.roles.role(role)).await?;
        // Unknown names are not kept: anybody can make them up.
        if let Some(record) = &record {
            let mut cache = self.cache.lock();
            bound(&mut cache.roles);
            let known = Remembered { at: Instant::now(), changes, record: record.clone() };
            cache.roles.insert(role.clone(), known);
        }
        Ok(record)
    }
}

/// Keeps a cache below its bound by emptying it: it refills in one query per role.
fn bound<V>(map: &mut HashMap<Role, V, RandomState>) {
    if map.len() >= CACHE_ROLES {
        map.clear();
    }
}

fn refused(role: &Role) -> Error {
    Error::sql(b"28P01", format!("password authentication failed for user \"{role}\""))
}

fn may_not_log_in(role: &Role) -> Error {
    Error::sql(b"28000", format!("role \"{role}\" is not permitted to log in"))
}

/// PostgreSQL's words for a SCRAM exchange that cannot go on.
fn scram_refused(error: ScramError) -> Error {
    let malformed = |detail: &str| {
        let error = Error::new(ErrorKind::ProtocolViolation, "malformed SCRAM message");
        if detail.is_empty() { error } else { error.with_detail(detail) }
    };
    match error {
        ScramError::BindingMissing => malformed(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include \
             channel binding data.",
        ),
        ScramError::BindingUnexpected => malformed(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message \
             includes channel binding data.",
        ),
        ScramError::BindingDowngraded => {
            let text = "SCRAM channel binding negotiation error";
            Error::sql(b"28000", text).with_detail(
                "The client supports SCRAM channel binding but thinks the server does not.  \
                 However, this server does support channel binding.",
            )
        }
        ScramError::BindingType => {
            Error::new(ErrorKind::ProtocolViolation, "unsupported SCRAM channel-binding type")
        }
        ScramError::BindingMismatch => Error::sql(b"28000", "SCRAM channel binding check failed"),
        _ => malformed(""),
    }
}

/// For the log: the client must not learn which it was.
fn reason(record: Option<&RoleRecord>, keys: &Option<ScramKeys>) -> &'static str {
    match record {
        None => "no such role",
        Some(record) if record.verifier.is_none() => "the role has no SCRAM-SHA-256 verifier",
        Some(_) if keys.is_none() => "wrong password",
        Some(record) if !record.can_login => "the role may not log in",
        Some(_) => "the password has expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Fixed {
        records: HashMap<&'static str, RoleRecord>,
        asked: AtomicUsize,
    }

    impl RoleStore for Fixed {
        fn role<'a>(&'a self, role: &'a Role) -> RoleFuture<'a> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let record = self.records.get(role.as_str()).cloned();
            Box::pin(async move { Ok(record) })
        }
    }

    fn record(password: &str, can_login: bool, expired: bool) -> RoleRecord {
        let verifier = Some(Verifier::of_password(&Secret::new(password)));
        RoleRecord { oid: 1, verifier, can_login, expired, is_superuser: false }
    }

    /// A PostgreSQL without tables of RustyDB's own.
    struct NoTables;

    impl SystemSql for NoTables {
        fn run(&self, _: String) -> tables::SqlFuture<'_> {
            Box::pin(async { Ok(vec![vec![None]]) })
        }
    }

    fn chain_of(roles: Arc<dyn RoleStore>, config: crate::config::Config) -> Authenticator {
        let (live, metrics) = (Live::fixed(config), Arc::new(Metrics::new()));
        Authenticator::new(Means {
            roles,
            sql: Arc::new(NoTables),
            audit: AuditLog::in_memory(live.clone(), metrics.clone()),
            live,
            changes: AccessChanges::default(),
            limiter: Arc::new(RateLimiter::new(1000)),
            metrics,
        })
    }

    fn chain(required: bool) -> (Arc<Fixed>, Authenticator) {
        let mut store = Fixed::default();
        store.records.insert("joe", record("secret", true, false));
        store.records.insert("nologin", record("secret", false, false));
        store.records.insert("old", record("secret", true, true));
        store
            .records
            .insert("none", RoleRecord { verifier: None, ..record("secret", true, false) });
        let store = Arc::new(store);
        let mut config = crate::config::Config::default();
        config.security.enable_auth = required;
        config.security.verifier_cache_secs = crate::config::Secs(60);
        (store.clone(), chain_of(store, config))
    }

    #[tokio::test]
    async fn a_password_is_checked_once_and_then_remembered() {
        let (store, chain) = chain(true);
        for _ in 0..3 {
            let identity = chain.password("joe".into(), Secret::new("secret")).await.unwrap();
            assert!(identity.keys.is_some());
        }
        assert_eq!(store.asked.load(Ordering::Relaxed), 1);
        chain.changes.saw("ALTER ROLE");
        assert!(chain.password("joe".into(), Secret::new("secret")).await.is_ok());
        assert_eq!(store.asked.load(Ordering::Relaxed), 2);
        assert!(chain.password("joe".into(), Secret::new("Secret")).await.is_err());
        assert!(chain.password("joe".into(), Secret::new("secret")).await.is_ok());
    }

    #[tokio::test]
    async fn every_refusal_reads_the_same_but_for_roles_that_may_not_log_in() {
        let (_, chain) = chain(true);
        for role in ["joe", "nobody", "old", "none"] {
            let password = if role == "joe" { "wrong" } else { "secret" };
            let error = chain.password(role.into(), Secret::new(password)).await.unwrap_err();
            assert_eq!(error.sqlstate().as_str(), "28P01", "{role}");
            let expected = format!("password authentication failed for user \"{role}\"");
            assert_eq!(error.message(), expected);
        }
        let error = chain.password("nologin".into(), Secret::new("secret")).await.unwrap_err();
        assert_eq!(error.sqlstate().as_str(), "28000");
    }

    #[tokio::test]
    async fn who_is_vouched_for_must_exist_and_may_log_in() {
        let (_, chain) = chain(true);
        let identity =
            chain.vouched(HbaMethod::Peer, "old".into(), &Visit::default()).await.unwrap();
        assert_eq!((identity.role_oid, identity.keys.is_none()), (Some(1), true));
        for (role, text) in [
            ("nobody", "role \"nobody\" does not exist"),
            ("nologin", "role \"nologin\" is not permitted to log in"),
        ] {
            let error =
                chain.vouched(HbaMethod::Trust, role.into(), &Visit::default()).await.unwrap_err();
            assert_eq!((error.sqlstate().as_str(), error.message()), ("28000", text));
        }
    }

    #[tokio::test]
    async fn trust_needs_authentication_to_be_off() {
        assert!(chain(true).1.trust("joe".into()).is_err());
        assert!(chain(false).1.trust("joe".into()).is_ok());
        assert!(chain(false).1.password("x".into(), Secret::new("")).await.is_ok());
    }
}
