//! The composition root: the only place that sees everything. It starts the parts in order, opens
//! the doors, waits, and drains.
//!
//! The main thread runs an event loop of its own for the supervisor, the samplers and the signals;
//! clients live on the workers, so no query waits for them.

#[cfg(test)]
mod access_tests;
mod backend;
mod control;
mod leaks;
mod sampler;
mod service;
mod takeover;
mod worker;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::audit::AuditLog;
use crate::auth::{AccessChanges, Authenticator, Means, StandbyRoles};
use crate::config::{Config, Live, Reloader};
use crate::executor::roles::SystemRoles;
use crate::executor::system::OwnSql;
use crate::limits::rate::RateLimiter;
use crate::limits::{Gate, Shares};
use crate::net::{
    BindError, Door, Drain, DrainWatch, Inherited, ServerTls, Stage, bind_tcp, bind_unix,
};
use crate::pool::{Pool, PoolKind};
use crate::session::admin::{Admin, ORDERS, Parts};
use crate::session::{Sessions, Stop};
use crate::supervisor::data_dir::{self, DataDir};
use crate::supervisor::{Exit, StartError};
use crate::telemetry::health::Phase;
use crate::telemetry::log::Log;
use crate::telemetry::{Health, Metrics};
use crate::types::{Database, Protocol, Role};
pub use backend::{Backend, initialise, read_password};
use control::{Control, Leave, Reload, Signals, most_connections};
use takeover::{Giver, Offer, Predecessor, Taking};
use worker::Workers;

/// How often the shutdown looks whether the sessions are gone.
const DRAIN_CHECK: Duration = Duration::from_millis(20);

/// How often a process that was replaced looks whether its clients are gone.
const STAY_CHECK: Duration = Duration::from_millis(500);

/// The audit log in the data directory.
const AUDIT_LOG: &str = "audit.jsonl";

/// Time for sessions that were told to stop now.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Parts that every worker shares.
pub(crate) struct Shared {
    /// What the server was started with.
    pub(crate) config: Arc<Config>,
    /// What is in force.
    pub(crate) live: Live,
    pub(crate) gates: Gates,
    pub(crate) admin: Admin,
    pub(crate) roles: Arc<StandbyRoles>,
    pub(crate) auth: Arc<Authenticator>,
    pub(crate) limiter: Arc<RateLimiter>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) pool: Pool,
    pub(crate) system_pool: Pool,
    pub(crate) system: crate::pool::Demand,
    pub(crate) changes: AccessChanges,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) drain: DrainWatch,
}

/// Who may be inside of what.
pub(crate) struct Gates {
    pub(crate) postgres: Arc<Gate>,
    pub(crate) requests: Arc<Gate>,
    pub(crate) sockets: Arc<Gate>,
    pub(crate) users: Arc<Shares<Role>>,
    pub(crate) databases: Arc<Shares<Database>>,
    pub(crate) addresses: Arc<Shares<IpAddr>>,
}

impl Gates {
    fn new(config: &Config) -> Self {
        Self {
            postgres: Gate::new(config.network.max_connections),
            requests: Gate::new(config.api.max_connections),
            sockets: Gate::new(config.api.max_sockets),
            users: Shares::new(config.network.max_connections_per_user),
            databases: Shares::new(config.network.max_connections_per_database),
            addresses: Shares::new(config.network.max_connections_per_address),
        }
    }

    fn resize(&self, config: &Config) {
        self.postgres.set_most(config.network.max_connections);
        self.requests.set_most(config.api.max_connections);
        self.sockets.set_most(config.api.max_sockets);
        let network = &config.network;
        self.users.set_most(network.max_connections_per_user);
        self.databases.set_most(network.max_connections_per_database);
        self.addresses.set_most(network.max_connections_per_address);
    }
}

/// Bound sockets.
pub(crate) struct Doors {
    postgres: Vec<Door>,
    api: Vec<Door>,
    metrics: Vec<Door>,
}

/// Where the listening sockets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the service manager or the kernel.
    Fresh,
    /// From the process that serves the data directory now.
    TakeOver,
}

/// Runs the server until it is told to stop; returns the exit code.
///
/// # Errors
/// What keeps it from starting, in one sentence and with its exit code.
pub fn serve(reloader: Reloader, log: Log, start: Start) -> Result<u8, StartError> {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|e| StartError::runtime(format!("cannot start an event loop: {e}")))?;
    let code = runtime.block_on(Server::run(Arc::new(reloader), log, start, begun));
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// The directory of the configuration, or the default one.
pub fn data_dir_of(config: &Config) -> PathBuf {
    config.server.data_dir.clone().unwrap_or_else(data_dir::default_path)
}

struct Server {
    shared: Arc<Shared>,
    drain: Drain,
    workers: Workers,
    control: Control,
    backend: BackendHandle,
    data: DataDir,
}

/// The supervisor, when there is one.
struct BackendHandle {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Exit>>,
}

impl Server {
    async fn run(
        reloader: Arc<Reloader>,
        log: Log,
        start: Start,
        begun: Instant,
    ) -> Result<u8, StartError> {
        let live = reloader.live();
        let config = live.now();
        let mut signals = Signals::new()?;
        raise_descriptor_limit(&config);
        let path = data_dir_of(&config);
        let (mut data, mut inherited, mut taking) = match start {
            Start::Fresh => (DataDir::open(&path)?, service::sockets()?, None),
            Start::TakeOver => {
                let (data, inherited, taking) = take_over(&config, &path).await?;
                (data, inherited, Some(taking))
            }
        };
        let doors = bind(&config, &mut inherited)?;
        let unused = service::unused(inherited, start)?;
        let backend = Backend::prepare(&config, data.path())?;
        let workers_count = worker::count(&config);
        let metrics = Arc::new(Metrics::new());
        let tls = ServerTls::new(&config.security, config.api.enable_http2, metrics.clone())
            .map_err(StartError::config)?;
        warn_of_clear_text(&config);
        let health = Arc::new(Health::new(workers_count));
        let (drain, drain_watch) = Drain::new();
        let changes = AccessChanges::default();
        let servers = backend.servers(&config, &changes, &metrics);
        let pool =
            |kind| Pool::new(kind, servers.clone(), live.clone(), changes.clone(), metrics.clone());
        let (pool, system_pool) = (pool(PoolKind::Main), pool(PoolKind::System));
        let (system, sessions) = (backend.system_demand(), Sessions::new(metrics.clone()));
        let (orders, ordered) = mpsc::channel(ORDERS);
        let roles = SystemRoles::new(system_pool.clone(), system.clone());
        let roles = Arc::new(StandbyRoles::new(Arc::new(roles), live.clone(), health.clone()));
        let limiter = Arc::new(RateLimiter::new(config.rate_limit.max_keys));
        let sql = Arc::new(OwnSql::new(system_pool.clone(), system.clone()));
        let auth = Authenticator::new(Means {
            roles: roles.clone(),
            sql: sql.clone(),
            live: live.clone(),
            changes: changes.clone(),
            limiter: limiter.clone(),
            audit: AuditLog::open(live.clone(), metrics.clone(), data.path().join(AUDIT_LOG))
                .map_err(StartError::runtime)?,
            metrics: metrics.clone(),
        });
        auth.reload().map_err(StartError::config)?;
        let shared = Arc::new(Shared {
            auth: Arc::new(auth),
            limiter,
            gates: Gates::new(&config),
            admin: Admin::new(Parts {
                sessions: sessions.clone(),
                pool: pool.clone(),
                system_pool: system_pool.clone(),
                reloader: reloader.clone(),
                live: live.clone(),
                health: health.clone(),
                backend: backend.addr(),
                sql,
                backups: backend.backups(&config, data.path()),
                orders,
                forgiven: Mutex::default(),
            }),
            roles,
            sessions,
            pool,
            system_pool,
            system,
            live,
            changes,
            tls,
            drain: drain_watch,
            config,
            metrics,
            health,
        });
        for pool in [&shared.pool, &shared.system_pool] {
            let pool = pool.clone();
            shared.metrics.refresh_with(move || pool.report());
        }
        // Probes answer from now on; clients of PostgreSQL wait in the kernel's queue.
        let (open, opened) = watch::channel(false);
        let addresses = doors.describe(&shared.config);
        let offer = Offer::of(&doors).map_err(|e| StartError::runtime(e.to_string()))?;
        let workers = Workers::start(workers_count, &shared, doors, start, opened)?;
        let name = backend.only_name();
        let started = tokio::select! {
            started = backend.start(&shared, &servers, &data) => started,
            () = signals.stop() => return Ok(0),
        };
        let (version, supervisor) = started?;
        let status = serde_json::json!({
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "api": addresses.api_url(),
            "postgres_port": addresses.postgres_port,
        });
        let predecessor = match taking.take() {
            Some(taking) => Some(taking.finish(&offer, &unused, &mut data).await?),
            None => None,
        };
        drop(unused);
        if let Err(error) = data.publish(&status) {
            tracing::warn!(%error, "cannot write the lock file");
        }
        let (stop, stopped) = oneshot::channel();
        let task = supervisor.map(|supervisor| tokio::spawn(supervisor.run(stopped)));
        sampler::start(&shared, &servers, name, data.path());
        shared.health.enter(Phase::Ready);
        let _ = open.send(true);
        let giver = Giver::open(data.path(), offer, &shared);
        addresses.print(&shared.config, &data, &version, begun.elapsed());
        service::notify("READY=1");
        let backend = BackendHandle { stop: Some(stop), task };
        let most_connections = most_connections(&shared.config);
        let mut reload = Reload { reloader, log, debugging: false, most_connections };
        reload.apply(&shared);
        let control = Control::new(signals, ordered, reload, giver);
        if let Some(predecessor) = predecessor {
            follow(&shared, predecessor);
        }
        let mut server = Self { shared, drain, workers, control, backend, data };
        let (code, leave) = server.until_the_end().await;
        server.shut_down(code, leave).await;
        Ok(code)
    }

    /// Returns when the server has to end, or another process serves in its place.
    async fn until_the_end(&mut self) -> (u8, Leave) {
        loop {
            let (code, leave) = self.wait().await;
            if leave != Leave::Replaced || self.hand_over().await {
                return (code, leave);
            }
        }
    }

    /// Hands the sockets over to the process that is ready for them; false = it is gone.
    async fn hand_over(&mut self) -> bool {
        let (Some(heir), Some(lock)) = (self.control.heir.take(), self.data.lock()) else {
            return false;
        };
        let metrics = &self.shared.metrics;
        if let Err(error) = self.control.giver.hand_over(&heir, lock).await {
            tracing::warn!(%error, "no take-over; this process goes on serving");
            metrics.takeover("failed");
            return false;
        }
        metrics.takeover("done");
        self.data.leave_lock();
        self.drain.enter(Stage::Replaced);
        self.shared.health.enter(Phase::Draining);
        let shared = self.shared.clone();
        tokio::spawn(heir.attend(self.shared.clone(), move || clients_left(&shared)));
        true
    }

    /// Another process accepts; the clients of this one stay until they leave or time is up.
    async fn stay(&mut self) -> Leave {
        let config = self.shared.live.now();
        let limit = config.server.takeover_stay_secs.map(|secs| secs.duration());
        let clients = clients_left(&self.shared);
        tracing::info!(clients, secs = limit.map(|l| l.as_secs()), "replaced; clients may stay");
        let shared = self.shared.clone();
        let gone = async {
            let most = shared.pool.max_size();
            loop {
                // First the pause: who was accepted a moment ago may not be counted yet.
                tokio::time::sleep(STAY_CHECK).await;
                let left = clients_left(&shared);
                if left == 0 {
                    return;
                }
                // PostgreSQL has room for one pool; what is not needed here is the other's.
                let left = usize::try_from(left).unwrap_or(most);
                shared.pool.shrink(left.min(most));
            }
        };
        let limited = async {
            match limit {
                Some(limit) => drop(tokio::time::timeout(limit, gone).await),
                None => gone.await,
            }
        };
        match self.unless_told(Leave::Replaced, limited).await {
            Leave::Replaced => Leave::Gracefully,
            told => told,
        }
    }

    /// Returns when the server has to end, with its exit code and how.
    async fn wait(&mut self) -> (u8, Leave) {
        let supervisor = async {
            match &mut self.backend.task {
                Some(task) => task.await.map_or(Exit::GaveUp, |exit| exit),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            leave = self.control.until_told_to_leave(&self.shared) => (0, leave),
            _ = supervisor => {
                self.backend.task = None;
                (1, Leave::Gracefully)
            }
        }
    }

    /// Waits, but for who is in more of a hurry; returns how to leave now.
    async fn unless_told(&mut self, leave: Leave, wait: impl Future<Output = ()>) -> Leave {
        tokio::pin!(wait);
        loop {
            let told = tokio::select! {
                () = &mut wait => return leave,
                told = self.control.until_told_to_leave(&self.shared) => told,
            };
            match (leave, told) {
                // Too late for another process: it finds the sockets closed, or has them.
                (_, Leave::WhenEmpty | Leave::Replaced) => {}
                (Leave::WhenEmpty | Leave::Replaced, told) => return told,
                // The second time.
                _ => return Leave::Now,
            }
        }
    }

    /// Readiness off, no new clients, idle ones leave, busy ones finish, PostgreSQL stops.
    async fn shut_down(mut self, code: u8, leave: Leave) {
        match leave {
            Leave::Replaced => {}
            _ => service::notify("STOPPING=1"),
        }
        tracing::info!(code, "shutting down");
        let config = self.shared.live.now();
        let delay = config.server.shutdown_delay_secs.duration();
        let grace = config.server.shutdown_grace_secs.duration();
        self.shared.health.enter(Phase::Draining);
        let mut leave = leave;
        if leave == Leave::Replaced {
            leave = self.stay().await;
        } else if leave != Leave::Now {
            leave = self.unless_told(leave, tokio::time::sleep(delay)).await;
        }
        self.control.giver.close();
        self.drain.enter(Stage::Draining);
        let sessions = self.shared.sessions.clone();
        sessions.stop_all(Stop::Drain);
        self.shared.pool.drain();
        if leave == Leave::WhenEmpty {
            leave = self.unless_told(leave, emptied(&sessions, Duration::MAX)).await;
        }
        if leave == Leave::Gracefully {
            self.unless_told(leave, emptied(&sessions, grace)).await;
        }
        self.shared.sessions.stop_all(Stop::Now);
        emptied(&self.shared.sessions, STOP_GRACE).await;
        self.drain.enter(Stage::Stopping);
        self.shared.pool.close();
        self.shared.system_pool.close();
        self.workers.join();
        if let Some(stop) = self.backend.stop.take() {
            let _ = stop.send(());
        }
        if let Some(task) = self.backend.task.take() {
            let _ = task.await;
        }
        tracing::info!("stopped");
    }
}

/// Asks the process that serves the data directory to be taken over.
async fn take_over(
    config: &Config,
    path: &std::path::Path,
) -> Result<(DataDir, Inherited, Taking), StartError> {
    if config.backend.mode == crate::config::BackendMode::Embedded {
        return Err(StartError::config(
            "--takeover needs an external PostgreSQL (backend.mode): an embedded one ends with the \
             process that started it; stop that process and start this one without --takeover"
                .into(),
        ));
    }
    let data = DataDir::of_another(path)?;
    let (taking, inherited) = Taking::begin(data.path()).await?;
    Ok((data, inherited, taking))
}

/// Looks after the clients of the process that was taken over.
fn follow(shared: &Arc<Shared>, predecessor: Predecessor) {
    shared.metrics.takeover("done");
    tokio::spawn(predecessor.attend(shared.sessions.clone(), shared.metrics.clone()));
}

/// Clients that keep a process that was replaced alive: its own, without the consoles, and those
/// of the processes before it, whose cancel requests come through this one.
fn clients_left(shared: &Shared) -> u64 {
    let sessions = &shared.sessions;
    let of = |protocol| shared.metrics.protocol(protocol).connections_active.get();
    let open: i64 = Protocol::ALL.into_iter().map(of).sum();
    let consoles = i64::try_from(sessions.consoles()).unwrap_or(i64::MAX);
    let before = shared.metrics.clients_elsewhere.get();
    u64::try_from(open - consoles + before).unwrap_or(0)
}

/// Returns when no session is left, or after `limit`.
async fn emptied(sessions: &Sessions, limit: Duration) {
    let begun = Instant::now();
    while !sessions.is_empty() && begun.elapsed() < limit {
        tokio::time::sleep(DRAIN_CHECK).await;
    }
}

fn bind(config: &Config, inherited: &mut Inherited) -> Result<Doors, StartError> {
    let failed = |e: BindError| match e.is_taken() {
        true => StartError::port(format!("{e}; stop it, or choose another port")),
        // An address or a directory that does not exist here.
        false => StartError::config(e.to_string()),
    };
    let backlog = config.network.backlog;
    let network = &config.network;
    let mut tcp = |addresses: &[String], port, name| {
        bind_tcp(addresses, port, backlog, (inherited, name)).map_err(failed)
    };
    let mut postgres = tcp(&network.listen_addr, network.port, POSTGRES)?;
    let api = tcp(&config.api.listen_addr, config.api.port, API)?;
    let monitoring = &config.monitoring;
    let metrics = match monitoring.metrics_port {
        port if port > 0 && monitoring.enable_metrics => {
            tcp(std::slice::from_ref(&monitoring.metrics_addr), port, METRICS)?
        }
        _ => Vec::new(),
    };
    let port = postgres.first().map_or(network.port, Door::port);
    if let Some(directory) = &network.unix_socket_dir {
        postgres.push(bind_unix(directory, port, inherited).map_err(failed)?);
    }
    Ok(Doors { postgres, api, metrics })
}

/// Names of the doors, also for sockets of the service manager (`FileDescriptorName=`).
const POSTGRES: &str = "postgres";
const API: &str = "api";
const METRICS: &str = "metrics";

/// What people need to know to come in.
struct Addresses {
    host: String,
    postgres_port: u16,
    api_host: String,
    api_port: u16,
    metrics: Option<String>,
}

impl Doors {
    fn describe(&self, config: &Config) -> Addresses {
        let port = |doors: &[Door]| doors.first().map_or(0, Door::port);
        let host = |addresses: &[String]| match addresses.first().map(String::as_str) {
            None | Some("0.0.0.0" | "::" | "127.0.0.1" | "::1") => "localhost".to_owned(),
            Some(address) if address.contains(':') => format!("[{address}]"),
            Some(address) => address.to_owned(),
        };
        let metrics = &config.monitoring;
        Addresses {
            host: host(&config.network.listen_addr),
            postgres_port: port(&self.postgres),
            api_host: host(&config.api.listen_addr),
            api_port: port(&self.api),
            metrics: (!self.metrics.is_empty())
                .then(|| format!("{}:{}", metrics.metrics_addr, port(&self.metrics))),
        }
    }

    /// All of them, by their names.
    fn named(&self) -> [(&'static str, &[Door]); 3] {
        [(POSTGRES, &self.postgres), (API, &self.api), (METRICS, &self.metrics)]
    }

    pub(crate) fn api_port(&self) -> u16 {
        self.api.first().map_or(0, Door::port)
    }
}

impl Addresses {
    fn api_url(&self) -> String {
        format!("http://{}:{}", self.api_host, self.api_port)
    }

    /// One line for each door, on standard output.
    fn print(&self, config: &Config, data: &DataDir, version: &str, took: Duration) {
        let password = data.password_file();
        let embedded = config.backend.mode == crate::config::BackendMode::Embedded;
        let role = if embedded { "rustydb" } else { "ROLE" };
        let database = &config.api.database;
        let mut lines = vec![
            format!(
                "RustyDB {} is ready after {:.2} s; PostgreSQL {version}; data in {}",
                env!("CARGO_PKG_VERSION"),
                took.as_secs_f64(),
                data.path().display()
            ),
            format!(
                "  psql      psql \"postgresql://{role}@{}:{}/{database}\"",
                self.host, self.postgres_port
            ),
            format!(
                "  curl      curl -u {role} {}/api/v1/query -H 'Content-Type: application/json' \
                 -d '{{\"sql\":\"select 1 as one\"}}'",
                self.api_url()
            ),
        ];
        lines.push(match &self.metrics {
            Some(address) => format!("  metrics   http://{address}/metrics"),
            None => format!("  metrics   {}/api/v1/metrics", self.api_url()),
        });
        lines.push(match (config.security.enable_auth, embedded) {
            (false, _) => "  password  none is asked for (--insecure, loopback only)".into(),
            (true, true) if password.exists() => {
                format!("  password  of the administrator rustydb: {}", password.display())
            }
            (true, true) => "  password  the one given as RUSTYDB_ADMIN_PASSWORD".into(),
            (true, false) => "  password  that of the role in the external PostgreSQL".into(),
        });
        // A closed standard output must not end the server.
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), "{}", lines.join("\n"));
        let _ = std::io::stdout().flush();
    }
}

/// Other hosts may come in without TLS unless that is forbidden.
fn warn_of_clear_text(config: &Config) {
    let loopback = |address: &String| {
        address == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    if !config.security.require_tls && !config.network.listen_addr.iter().all(loopback) {
        tracing::warn!("other hosts may connect without TLS: security.require_tls is false");
    }
}

/// Lets the process have as many descriptors as it may: the usual limit of 1024 is far below what
/// the configuration allows.
fn raise_descriptor_limit(config: &Config) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        tracing::warn!(soft, hard, "cannot raise the limit of open files");
    }
    let wanted = config.network.max_connections + config.api.max_sockets + config.pool.max_size;
    if hard < wanted as u64 {
        tracing::info!(hard, wanted, "fewer open files are allowed than max_connections needs");
    }
}
