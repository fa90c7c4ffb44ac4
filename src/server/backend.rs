//! The PostgreSQL behind the server, embedded or external, made ready for clients.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use crate::auth::AccessChanges;
use crate::auth::scram::{Verifier, random_bytes};
use crate::backend::{BackendConn, ConnectError, Connector, Credentials, Probe, Servers};
use crate::config::{BackendMode, BackendUrlParts, Config};
use crate::net::ClientTls;
use crate::pool::{Demand, LaneKey};
use crate::query::quote_literal;
use crate::supervisor::backups::Backups;
use crate::supervisor::data_dir::DataDir;
use crate::supervisor::{Plan, StartError, Supervisor};
use crate::telemetry::{Check, EMBEDDED, Health, Metrics};
use crate::types::{BackendAddr, Secret};

/// Oldest PostgreSQL that is worked with.
const OLDEST: u32 = 13;

/// Time for an external PostgreSQL to answer at the start.
const EXTERNAL_WAIT: Duration = Duration::from_secs(10);

/// A file whose presence says that the administrator and its database have been made.
const BOOTSTRAPPED: &str = "bootstrapped";

/// A backend that is not started yet.
pub enum Backend {
    /// Ours.
    Embedded(Box<Plan>),
    /// Somebody else's: one server, or several of which one is the primary.
    External(Vec<(BackendUrlParts, Connector)>),
}

impl Backend {
    /// Finds or makes what is needed.
    pub fn prepare(config: &Config, data_dir: &Path) -> Result<Self, StartError> {
        match (config.backend.mode, &config.backend.url) {
            (BackendMode::Embedded, _) => {
                Plan::prepare(config, data_dir).map(Box::new).map(Self::Embedded)
            }
            (BackendMode::External, Some(url)) => {
                let hosts =
                    url.hosts().map_err(|e| StartError::config(format!("backend.url: {e}")))?;
                let hosts = hosts.into_iter().map(|parts| {
                    let connector = external_connector(&parts)?;
                    Ok((parts, connector))
                });
                Ok(Self::External(hosts.collect::<Result<_, StartError>>()?))
            }
            (BackendMode::External, None) => {
                Err(StartError::config("backend.url is missing".into()))
            }
        }
    }

    /// Where it is.
    pub fn servers(
        &self,
        config: &Config,
        changes: &AccessChanges,
        metrics: &Arc<Metrics>,
    ) -> Servers {
        let limit = config.backend.connect_timeout_secs.duration();
        let (list, probe) = match self {
            Self::Embedded(plan) => (vec![Connector::new(plan.addr())], None),
            Self::External(hosts) => {
                let list = hosts.iter().map(|(_, connector)| connector.clone());
                let demand = self.system_demand();
                let parameters = demand.lane.parameters().to_vec();
                (list.collect(), Some(Probe { parameters, credentials: demand.credentials }))
            }
        };
        Servers::new(list, probe, limit, changes.clone(), metrics.clone())
    }

    /// The first of them, for people.
    pub fn addr(&self) -> BackendAddr {
        match self {
            Self::Embedded(plan) => plan.addr(),
            Self::External(hosts) => hosts
                .first()
                .map_or(BackendAddr::Tcp(String::new(), 0), |(parts, _)| parts.addr.clone()),
        }
    }

    /// Its name in the metrics; `None` = there are several.
    pub fn only_name(&self) -> Option<String> {
        match self {
            Self::Embedded(_) => Some(EMBEDDED.to_owned()),
            Self::External(hosts) => match &hosts[..] {
                [(parts, _)] => Some(parts.addr.to_string()),
                _ => None,
            },
        }
    }

    /// What makes backups of it, if it is ours.
    pub fn backups(&self, config: &Config, data_dir: &Path) -> Option<Backups> {
        let Self::Embedded(plan) = self else { return None };
        let directory = config.embedded.backup_dir.clone();
        let directory = directory.unwrap_or_else(|| data_dir.join("backups"));
        // The programs run elsewhere.
        Some(plan.backups(std::path::absolute(&directory).unwrap_or(directory)))
    }

    /// How the system role gets in.
    pub fn system_demand(&self) -> Demand {
        let (user, database, credentials) = match self.system_parts() {
            None => ("postgres", "postgres", Credentials::Local),
            Some(parts) => {
                let secret =
                    parts.password.clone().map_or(Credentials::Local, Credentials::Password);
                (parts.user.as_str(), parts.database.as_str(), secret)
            }
        };
        let options = vec![("application_name".to_owned(), "rustydb-system".to_owned())];
        let lane = Arc::new(LaneKey::new(&user.into(), None, &database.into(), options));
        Demand { lane, credentials }
    }

    /// The system role and its database are the same on all servers.
    fn system_parts(&self) -> Option<&BackendUrlParts> {
        match self {
            Self::Embedded(_) => None,
            Self::External(hosts) => hosts.first().map(|(parts, _)| parts),
        }
    }

    /// Starts it, if it is ours, and checks that it can be worked with. Returns its version.
    pub(super) async fn start(
        self,
        shared: &Arc<Shared>,
        servers: &Servers,
        data: &DataDir,
    ) -> Result<(String, Option<Supervisor>), StartError> {
        let (demand, name) = (self.system_demand(), self.only_name());
        let started = match self {
            Self::Embedded(plan) => {
                let (metrics, health) = (shared.metrics.clone(), shared.health.clone());
                let supervisor = start_embedded(&plan, data, None, metrics, health).await?;
                (plan.version().to_owned(), Some(supervisor))
            }
            Self::External(hosts) => (check_external(servers, &hosts, &demand).await?, None),
        };
        shared.health.report("database", Check::Ok, "PostgreSQL answers");
        name.iter().for_each(|name| shared.metrics.backends.answers(name, true));
        Ok(started)
    }
}

/// `rustydb init`: makes the cluster, the administrator and its database, and stops again.
pub fn initialise(config: &Config, password: Option<Secret>) -> Result<String, StartError> {
    let mut data = DataDir::open(&super::data_dir_of(config))?;
    data.publish(&serde_json::json!({ "pid": std::process::id() }))
        .map_err(|e| StartError::runtime(e.to_string()))?;
    let plan = Plan::prepare(config, data.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError::runtime(e.to_string()))?;
    runtime.block_on(async {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new(0)));
        let was_made = data.path().join(BOOTSTRAPPED).exists();
        let supervisor = start_embedded(&plan, &data, password, metrics, health).await?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        drop(stop);
        supervisor.run(stopped).await;
        let path = data.password_file();
        let password = match path.exists() {
            true => format!("the administrator's password is in {}", path.display()),
            false if was_made => "the administrator keeps the password it had".to_owned(),
            false => "the administrator has the given password".to_owned(),
        };
        let directory = data.path().display();
        Ok(format!("{directory} is ready (PostgreSQL {}); {password}", plan.version()))
    })
}

/// The administrator's first password: that of the command line, or of the environment.
fn given_password(password: Option<Secret>) -> Result<Option<Secret>, StartError> {
    const VARIABLE: &str = "RUSTYDB_ADMIN_PASSWORD";
    let file = std::env::var_os("RUSTYDB_ADMIN_PASSWORD_FILE");
    let password = match (password, std::env::var(VARIABLE), file) {
        (Some(password), ..) => Some(password),
        (None, Ok(text), _) => Some(Secret::new(text)),
        (None, Err(std::env::VarError::NotUnicode(_)), _) => {
            return Err(StartError::config(format!("{VARIABLE} is not UTF-8")));
        }
        (None, Err(_), Some(file)) => Some(read_password(Path::new(&file))?),
        (None, Err(_), None) => None,
    };
    match password {
        Some(password) if password.reveal().is_empty() => Err(StartError::config(format!(
            "the administrator's password is empty; correct {VARIABLE} or the file, or unset it \
             for a random one"
        ))),
        password => Ok(password),
    }
}

/// A password from a file, without the end of its line.
pub fn read_password(file: &Path) -> Result<Secret, StartError> {
    std::fs::read_to_string(file)
        .map(|text| Secret::new(text.trim_end_matches(['\r', '\n'])))
        .map_err(|e| StartError::config(format!("{}: {e}", file.display())))
}

pub(super) async fn start_embedded(
    plan: &Plan,
    data: &DataDir,
    password: Option<Secret>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Result<Supervisor, StartError> {
    let marker = data.path().join(BOOTSTRAPPED);
    let is_first = !marker.exists();
    let password = if is_first { given_password(password)? } else { None };
    let supervisor = Supervisor::start(plan.clone(), metrics, health).await?;
    if is_first {
        let connector = Connector::new(plan.addr());
        bootstrap(&connector, data, password, plan.has_statistics).await.map_err(|e| {
            StartError::backend(format!("cannot make the administrator and its database: {e}"))
        })?;
        std::fs::write(&marker, "").map_err(|e| StartError::runtime(e.to_string()))?;
    }
    Ok(supervisor)
}

/// Makes the role and the database `rustydb`. Each step looks first, so that a start that was
/// interrupted is carried on by the next.
async fn bootstrap(
    connector: &Connector,
    data: &DataDir,
    password: Option<Secret>,
    has_statistics: bool,
) -> Result<(), crate::error::Error> {
    let mut conn = system(connector, "postgres").await?;
    if !exists(&mut conn, "SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rustydb'").await? {
        let password = match password {
            Some(password) => password,
            None => {
                let password = Secret::new(random_password());
                data.keep_password(&password).map_err(crate::error::Error::internal)?;
                password
            }
        };
        let verifier = quote_literal(&Verifier::of_password(&password).to_text());
        let sql = include_str!("../../sql/bootstrap.sql").replace("$1", &verifier);
        conn.simple(&sql, |_| {}).await?;
    }
    if !exists(&mut conn, "SELECT FROM pg_catalog.pg_database WHERE datname = 'rustydb'").await? {
        conn.simple("CREATE DATABASE rustydb OWNER rustydb", |_| {}).await?;
    }
    conn.close().await;
    if has_statistics {
        let mut conn = system(connector, "rustydb").await?;
        conn.simple("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", |_| {}).await?;
        conn.close().await;
    }
    Ok(())
}

async fn system(connector: &Connector, database: &str) -> Result<BackendConn, crate::error::Error> {
    let parameters =
        [("user", "postgres"), ("database", database)].map(|(n, v)| (n.into(), v.into()));
    let connected = connector.connect(&parameters, &Credentials::Local).await;
    connected.map_err(ConnectError::into_error)
}

async fn exists(conn: &mut BackendConn, sql: &str) -> Result<bool, crate::error::Error> {
    let mut found = false;
    conn.simple(sql, |_| found = true).await?;
    Ok(found)
}

/// 144 bits, in characters that need no quoting anywhere.
fn random_password() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bytes: [u8; 24] = random_bytes();
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect()
}

fn external_connector(parts: &BackendUrlParts) -> Result<Connector, StartError> {
    let tls =
        ClientTls::new(&parts.tls).map_err(|e| StartError::config(format!("backend.url: {e}")))?;
    Ok(Connector::with_tls(parts.addr.clone(), tls))
}

async fn check_external(
    servers: &Servers,
    hosts: &[(BackendUrlParts, Connector)],
    demand: &Demand,
) -> Result<String, StartError> {
    let addrs: Vec<String> = hosts.iter().map(|(parts, _)| parts.addr.to_string()).collect();
    let addrs = addrs.join(", ");
    let deadline = Instant::now() + EXTERNAL_WAIT;
    let mut conn = loop {
        let attempt = servers.connect(demand.lane.parameters(), &demand.credentials);
        let why = match tokio::time::timeout(EXTERNAL_WAIT, attempt).await {
            Ok(Ok(conn)) => break conn,
            Ok(Err(ConnectError::Unavailable(_) | ConnectError::Full(..)))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Ok(Err(e)) => {
                let error = e.into_error();
                error.cause().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
            }
            Err(_) => "no answer in time".to_owned(),
        };
        return Err(StartError::backend(format!("cannot log in to {addrs}: {why}")));
    };
    let version = conn.state.parameters.iter().find(|(name, _)| name == "server_version");
    let version = version.map_or_else(String::new, |(_, value)| value.clone());
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    if digits.parse::<u32>().is_ok_and(|major| major < OLDEST) {
        return Err(StartError::backend(format!(
            "PostgreSQL {version} at {} is too old; RustyDB needs {OLDEST} or newer",
            conn.cancel.addr()
        )));
    }
    let readable = conn.simple("SELECT FROM pg_catalog.pg_authid LIMIT 1", |_| {}).await;
    if let Err(e) = readable {
        return Err(StartError::backend(format!(
            "the role \"{}\" of backend.url cannot read the roles' verifiers ({e}); it must be a \
             superuser",
            demand.lane.role()
        )));
    }
    conn.close().await;
    Ok(version)
}
