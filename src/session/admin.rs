//! What an administrator's console may see and do: the one handle through which an adapter reaches
//! the registry, the pool and the server itself.

mod pools;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::registry::{Newcomer, Sessions};
use super::{Entry, SessionView, Stop};
use crate::auth::Identity;
use crate::auth::tables::SystemSql;
use crate::config::{Changes, Live, PoolOverrides, PoolingMode, Reloader, Setting, Wishes};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Pool;
pub use crate::pool::{ClassView, Counts, Paused, PoolKind, ServerView};
use crate::query::quote_literal;
pub use crate::supervisor::backups::{Backup, BackupKind, Backups};
use crate::telemetry::health::Phase;
use crate::telemetry::{Health, Totals};
use crate::types::{BackendAddr, Database, Protocol, Role};
pub use pools::{Drained, Leak};

/// The database that is the console.
pub const DATABASE: &str = "rustydb_admin";

/// Orders that may wait for the server's main loop.
pub const ORDERS: usize = 16;

/// How often a pause looks whether the connections are back.
const REST_CHECK: Duration = Duration::from_millis(20);

/// Time for PostgreSQL to say whether a database exists.
const EXISTS_LIMIT: Duration = Duration::from_secs(1);

/// Without a connection that was ever made, a version that every driver can work with.
const SOME_VERSION: &str = "17.0";

/// What the server itself has to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again, and tell what came of it.
    Reload(oneshot::Sender<Result<Changes>>),
    /// Change one key until the next reload, and tell what came of it.
    Set(String, String, oneshot::Sender<Result<Changes>>),
    /// Change keys for good, and tell what came of it.
    Change(Wishes, oneshot::Sender<Result<Changes>>),
    /// Accept nobody, wait for everybody, then end.
    Drain,
    /// End, at once or gracefully.
    Shutdown {
        /// Without waiting for anybody.
        at_once: bool,
    },
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Look.
    Look,
    /// Everything.
    All,
}

/// What the handle is made of.
pub struct Parts {
    /// The registry.
    pub sessions: Arc<Sessions>,
    /// The clients' pool.
    pub pool: Pool,
    /// The system role's pool.
    pub system_pool: Pool,
    /// The configuration.
    pub reloader: Arc<Reloader>,
    /// The configuration in force.
    pub live: Live,
    /// Health and phase.
    pub health: Arc<Health>,
    /// Where PostgreSQL is.
    pub backend: BackendAddr,
    /// Statements as the system role.
    pub sql: Arc<dyn SystemSql>,
    /// What makes backups of it, where it is ours.
    pub backups: Option<Backups>,
    /// To the server's main loop.
    pub orders: mpsc::Sender<Order>,
    /// Backends and since when they do nothing, of which nobody wants to hear any more. No more
    /// than the pool has connections.
    pub forgiven: Mutex<HashSet<(u32, i64)>>,
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<Parts>);

/// Sessions and connections of one role in one database.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// Sessions that do not wait.
    pub clients_active: i64,
    /// Sessions that wait for a connection.
    pub clients_waiting: i64,
    /// Sessions whose cancel request is on its way.
    pub clients_cancelling: i64,
    /// Sessions that cannot give their connection back.
    pub clients_pinned: i64,
    /// Connections that sessions hold.
    pub servers_active: i64,
    /// Connections that nobody uses.
    pub servers_idle: i64,
    /// Connections that are being cleaned or closed.
    pub servers_tested: i64,
    /// Connections that are being made.
    pub servers_login: i64,
    /// The longest present wait.
    pub longest_wait: Duration,
}

/// A connection with who holds it.
pub struct HeldServer {
    /// The connection.
    pub server: ServerView,
    /// Its session.
    pub holder: Option<SessionView>,
}

impl HeldServer {
    /// `login`, `idle`, `active`, or `tested`: being cleaned or closed.
    pub fn state(&self) -> &'static str {
        match (&self.holder, self.server.idle) {
            _ if self.server.listed.pid() == 0 => "login",
            (_, true) => "idle",
            (Some(_), _) => "active",
            (None, false) => "tested",
        }
    }
}

impl Admin {
    /// A handle over the parts of a server.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What a proven identity may do here. Without authentication everybody could say that he is
    /// the administrator, so nobody is asked.
    ///
    /// # Errors
    /// 42501 for everybody who is neither a superuser nor named in the configuration.
    pub fn authority(&self, identity: &Identity) -> Result<Authority> {
        let config = self.0.live.now();
        let is_in = |list: &[String]| list.iter().any(|name| name == identity.role.as_str());
        if identity.is_superuser || !config.security.enable_auth || is_in(&config.admin.users) {
            return Ok(Authority::All);
        }
        if is_in(&config.admin.stats_users) {
            return Ok(Authority::Look);
        }
        Err(Error::sql(b"42501", format!("permission denied for database \"{DATABASE}\""))
            .with_hint("log in as a superuser, or as a role of admin.users or admin.stats_users"))
    }

    /// Registers a console, for as long as the value lives.
    pub fn open(&self, role: Role, application: String, peer: String) -> Console {
        let entry = self.0.sessions.register(Newcomer {
            role,
            database: DATABASE.into(),
            protocol: Protocol::Postgres,
            peer: peer.into(),
            application,
            mode: PoolingMode::Statement,
            is_console: true,
            grant: None,
        });
        Console { entry, sessions: self.0.sessions.clone(), ended: "closed" }
    }

    /// Version of PostgreSQL, as far as it is known.
    pub fn server_version(&self) -> String {
        let pools = [&self.0.pool, &self.0.system_pool];
        let mut known = pools.iter().filter_map(|pool| pool.reported("server_version"));
        known.next().unwrap_or_else(|| SOME_VERSION.to_owned())
    }

    /// Where PostgreSQL is.
    pub fn backend(&self) -> &BackendAddr {
        &self.0.backend
    }

    /// What makes backups of PostgreSQL; `None` = it is not ours.
    pub fn backups(&self) -> Option<&Backups> {
        self.0.backups.as_ref()
    }

    /// Every session, by its number.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.0.sessions.views()
    }

    /// Every connection of the clients' pool with who holds it.
    pub fn servers(&self) -> Vec<HeldServer> {
        let sessions = self.0.sessions.views();
        let held = |server: ServerView| {
            let pid = Some(server.listed.pid()).filter(|pid| *pid != 0 && !server.idle);
            let holder = sessions.iter().find(|view| pid.is_some() && view.backend_pid == pid);
            HeldServer { holder: holder.cloned(), server }
        };
        self.0.pool.servers().into_iter().map(held).collect()
    }

    /// Sessions and connections by database and role.
    pub fn pools(&self) -> BTreeMap<(Database, Role), PoolView> {
        let mut pools: BTreeMap<(Database, Role), PoolView> = BTreeMap::new();
        for view in self.sessions() {
            let entry = &view.entry;
            let pool = pools.entry((entry.database.clone(), entry.role.clone())).or_default();
            match view.waiting {
                Some(waiting) => {
                    pool.clients_waiting += 1;
                    pool.longest_wait = pool.longest_wait.max(waiting);
                }
                None => pool.clients_active += 1,
            }
            pool.clients_cancelling += i64::from(entry.slot().cancels_under_way());
            pool.clients_pinned += i64::from(entry.pinned().is_some());
        }
        for held in self.servers() {
            let listed = &held.server.listed;
            let pool = pools.entry((listed.database.clone(), listed.role.clone())).or_default();
            match held.state() {
                "idle" => pool.servers_idle += 1,
                "active" => pool.servers_active += 1,
                "login" => pool.servers_login += 1,
                _ => pool.servers_tested += 1,
            }
        }
        pools
    }

    /// Connection classes and their pooled sessions.
    pub fn classes(&self) -> Vec<ClassView> {
        self.0.pool.classes()
    }

    /// Every database that has, or had, something to do here.
    pub fn databases(&self) -> BTreeSet<Database> {
        let pools = self.pools().into_keys().map(|(database, _)| database);
        let counted = self.0.sessions.totals_by_database().into_keys();
        pools.chain(counted).chain(self.0.pool.paused().databases).collect()
    }

    /// What was done in each database since the start.
    pub fn totals(&self) -> BTreeMap<Database, Totals> {
        self.0.sessions.totals_by_database().into_iter().collect()
    }

    /// What was done in each database per second of the last minute.
    pub fn averages(&self) -> BTreeMap<Database, Totals> {
        self.0.sessions.averages_by_database().into_iter().collect()
    }

    /// Every key of the configuration.
    pub fn settings(&self) -> Vec<Setting> {
        self.0.reloader.settings()
    }

    /// `pool.max_size`.
    pub fn pool_size(&self) -> usize {
        self.0.pool.max_size()
    }

    /// Connections of the system role.
    pub fn system_servers(&self) -> Vec<ServerView> {
        self.0.system_pool.servers()
    }

    /// When a role's clients in a database give their connection back.
    pub fn pool_mode(&self, role: &Role, database: &Database) -> &'static str {
        match database.as_str() {
            DATABASE => PoolingMode::Statement.word(),
            _ => self.0.live.now().pooling_mode(role, database, Protocol::Postgres).word(),
        }
    }

    /// What differs for a role, and for a database.
    pub fn overrides(&self) -> (PoolOverrides, PoolOverrides) {
        let pool = &self.0.live.now().pool;
        (pool.users.clone(), pool.databases.clone())
    }

    /// `network.max_connections`.
    pub fn max_clients(&self) -> usize {
        self.0.live.now().network.max_connections
    }

    /// What is paused.
    pub fn paused(&self) -> Paused {
        self.0.pool.paused()
    }

    /// Whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.0.health.phase() == Phase::Draining
    }

    /// Gives out no connections to the database, or to any, and returns when all are closed.
    pub async fn pause(&self, database: Option<&Database>) -> Result<()> {
        self.0.pool.pause(database)?;
        tracing::warn!(database = database.map(Database::as_str), "paused");
        while !self.0.pool.is_at_rest(database) {
            tokio::time::sleep(REST_CHECK).await;
            // Somebody else may have ended the pause.
            let paused = self.0.pool.paused();
            if !database.map_or(paused.all, |database| paused.holds(database.as_str())) {
                return Err(Error::new(ErrorKind::Cancelled, "the pause was ended by RESUME"));
            }
        }
        Ok(())
    }

    /// Refuses a name that no database has. Any may be one while PostgreSQL does not answer.
    ///
    /// # Errors
    /// `3D000`.
    pub async fn must_exist(&self, database: &Database) -> Result<()> {
        let name = quote_literal(database.as_str());
        let sql = format!("SELECT 1 FROM pg_catalog.pg_database WHERE datname = {name}");
        let asked = tokio::time::timeout(EXISTS_LIMIT, self.0.sql.run(sql)).await;
        match asked {
            Ok(Ok(rows)) if rows.is_empty() => {
                let text = format!("database \"{database}\" does not exist");
                Err(Error::sql(b"3D000", text).with_hint("SHOW DATABASES tells those in use"))
            }
            _ => Ok(()),
        }
    }

    /// Ends a pause; without a name, every pause.
    pub fn resume(&self, database: Option<&Database>) -> Result<()> {
        if self.0.pool.resume(database) {
            tracing::warn!(database = database.map(Database::as_str), "resumed");
            return Ok(());
        }
        let paused = self.0.pool.paused();
        let text = database.map_or("nothing is paused".to_owned(), |database| {
            format!("database \"{database}\" is not paused by its name")
        });
        let error = Error::sql(b"55000", text);
        Err(match paused.all {
            true => error.with_hint("all databases are paused; use RESUME without a name"),
            false => error.with_hint("SHOW DATABASES tells what is paused"),
        })
    }

    /// Replaces every connection to the database, or to any.
    pub fn reconnect(&self, database: Option<&Database>) {
        self.0.pool.reconnect(database);
        tracing::info!(database = database.map(Database::as_str), "connections are replaced");
    }

    /// Ends the sessions that `whom` is true for, and returns how many.
    pub fn kill(&self, whom: impl Fn(&Entry) -> bool) -> usize {
        let sessions = self.0.sessions.views();
        let doomed = sessions.iter().filter(|view| whom(&view.entry));
        let killed = doomed.inspect(|view| self.kill_one(&view.entry)).count();
        tracing::warn!(sessions = killed, "killed by an administrator");
        killed
    }

    fn kill_one(&self, entry: &Arc<Entry>) {
        entry.kill();
        // A request over HTTP ends when its statement does.
        if entry.protocol == Protocol::Http {
            let entry = entry.clone();
            tokio::spawn(async move { entry.cancel().await });
        }
    }

    /// Has the configuration read again.
    pub async fn reload(&self) -> Result<Changes> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Reload(reply))?;
        answer.await.map_err(|_| Stop::Now.error())?
    }

    /// Changes one key of the configuration until the next reload.
    ///
    /// # Errors
    /// There is no such key, the value does not fit, or the key needs a restart.
    pub async fn set(&self, key: &str, value: &str) -> Result<Changes> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Set(key.to_owned(), value.to_owned(), reply))?;
        answer.await.map_err(|_| Stop::Now.error())?
    }

    /// Changes keys of the configuration for good: all of them, or none.
    ///
    /// # Errors
    /// As [`Reloader::change`].
    pub async fn change(&self, wishes: Wishes) -> Result<Changes> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Change(wishes, reply))?;
        answer.await.map_err(|_| Stop::Now.error())?
    }

    /// Tells the server what to do.
    pub fn order(&self, order: Order) -> Result<()> {
        self.0.orders.try_send(order).map_err(|_| {
            Error::new(ErrorKind::LimitReached, format!("{ORDERS} orders wait already"))
                .with_hint("try again in a moment")
        })
    }
}

/// The place of a console among the sessions; dropping it ends the session.
pub struct Console {
    entry: Arc<Entry>,
    sessions: Arc<Sessions>,
    ended: &'static str,
}

impl Console {
    /// The entry that others see.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Number and key for BackendKeyData.
    pub fn cancel_key(&self, long: bool) -> (u32, Vec<u8>) {
        self.entry.cancel_key(long)
    }

    /// Says why it ends, for the metric.
    pub fn ended_by(&mut self, reason: &'static str) {
        self.ended = reason;
    }

    /// Returns when the console has to end.
    pub async fn stopped(&self) -> Stop {
        poll_fn(|cx| match self.entry.must_stop(cx, true, &self.sessions.clock) {
            true => Poll::Ready(self.entry.stop()),
            false => Poll::Pending,
        })
        .await
    }

    /// Returns when the client asks to cancel what the console does.
    pub async fn interrupted(&self) {
        self.entry.slot().cancelled_in_vain().await;
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.sessions.unregister(&self.entry, self.ended);
    }
}
