//! The embedded PostgreSQL: found, initialised, started, watched, restarted and stopped.
//!
//! Invariants: it is reachable through a private Unix socket only; its settings are durable; it
//! never outlives RustyDB (the kernel tells it when its parent dies); one that died is restarted
//! after every process of the old one is gone, because they share memory and files.

pub mod backups;
pub mod data_dir;
mod install;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use install::{Install, RunAs};
pub use process::{Exit, Supervisor};

use crate::config::Config;
use crate::types::BackendAddr;

/// Why the server cannot start: one sentence for the terminal, and the exit code.
#[derive(Debug)]
pub struct StartError {
    /// What is wrong and what to do.
    pub message: String,
    /// 1 runtime, 2 configuration, 3 PostgreSQL, 4 port in use.
    pub exit_code: u8,
}

impl StartError {
    /// Something failed at run time.
    pub fn runtime(message: String) -> Self {
        Self { message, exit_code: 1 }
    }

    /// The configuration is wrong.
    pub fn config(message: String) -> Self {
        Self { message, exit_code: 2 }
    }

    /// PostgreSQL cannot be had.
    pub fn backend(message: String) -> Self {
        Self { message, exit_code: 3 }
    }

    /// An address is taken.
    pub fn port(message: String) -> Self {
        Self { message, exit_code: 4 }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// The number in the name of the private socket. Nothing listens on a TCP port of that number.
const SOCKET_PORT: u16 = 5432;

/// Longest path of a Unix socket, without its terminator (`sun_path`).
const SOCKET_PATH_MAX: usize = 107;

/// Everything needed to start the server, with a cluster that exists.
#[derive(Clone, Debug)]
pub struct Plan {
    install: Install,
    cluster: PathBuf,
    run_dir: PathBuf,
    user: RunAs,
    settings: BTreeMap<String, String>,
    max_restarts: u32,
    start_timeout: std::time::Duration,
    /// Whether `pg_stat_statements` is preloaded.
    pub has_statistics: bool,
}

impl Plan {
    /// Finds PostgreSQL and makes the cluster if there is none.
    pub fn prepare(config: &Config, data_dir: &Path) -> Result<Self, StartError> {
        let embedded = &config.embedded;
        let cluster = data_dir.join("pg");
        let run_dir = data_dir.join("run");
        let install = Install::find(embedded, &cluster)?;
        let user = install::choose_user(embedded, &cluster)?;
        install::check_reachable(data_dir, user)?;
        let has_statistics = install.has_library("pg_stat_statements");
        let settings = settings(config, &run_dir, has_statistics);
        let plan = Self {
            install,
            cluster,
            run_dir,
            user,
            settings,
            has_statistics,
            max_restarts: embedded.max_restarts,
            start_timeout: embedded.start_timeout_secs.duration(),
        };
        plan.check_socket_path()?;
        install::make_private(&plan.run_dir, user).map_err(|e| {
            StartError::backend(format!("cannot make {}: {e}", plan.run_dir.display()))
        })?;
        if !plan.cluster.join("PG_VERSION").exists() {
            plan.install.init_cluster(&plan.cluster, user)?;
        }
        Ok(plan)
    }

    fn check_socket_path(&self) -> Result<(), StartError> {
        let path = self.socket();
        match path.as_os_str().len() <= SOCKET_PATH_MAX {
            true => Ok(()),
            false => Err(StartError::config(format!(
                "the path {} is longer than the {SOCKET_PATH_MAX} bytes a Unix socket may have; \
                 choose a shorter --data-dir",
                path.display()
            ))),
        }
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join(format!(".s.PGSQL.{SOCKET_PORT}"))
    }

    /// Where the server listens.
    pub fn addr(&self) -> BackendAddr {
        BackendAddr::Unix(self.socket())
    }

    /// PostgreSQL's version, for people.
    pub fn version(&self) -> &str {
        &self.install.version
    }
}

/// Settings of the command line: what the operator configured, then what RustyDB relies on.
fn settings(config: &Config, run_dir: &Path, has_statistics: bool) -> BTreeMap<String, String> {
    /// Walsenders' and administrators' room beside the pools.
    const SPARE_CONNECTIONS: usize = 10;
    let mut settings = config.embedded.extra_conf.clone();
    let buffers = config.embedded.shared_buffers.clone().unwrap_or_else(default_shared_buffers);
    let connections = config.pool.max_size + config.pool.reserved_size + SPARE_CONNECTIONS;
    let mut set = |name: &str, value: &str| settings.insert(name.into(), value.into());
    set("shared_buffers", &buffers);
    set("max_connections", &connections.to_string());
    set("listen_addresses", "");
    set("port", &SOCKET_PORT.to_string());
    set("unix_socket_directories", &run_dir.display().to_string());
    set("unix_socket_permissions", "0700");
    set("fsync", "on");
    set("wal_level", "logical");
    set("cluster_name", "rustydb");
    // The log comes to us; the clients' statements stay out of it.
    set("logging_collector", "off");
    set("log_destination", "stderr");
    set("log_line_prefix", "");
    set("log_min_error_statement", "panic");
    // Everybody who has a connection may prepare a transaction.
    let prepared = config.pool.max_size.to_string();
    settings.entry("max_prepared_transactions".into()).or_insert(prepared);
    if has_statistics && !settings.contains_key("shared_preload_libraries") {
        settings.insert("shared_preload_libraries".into(), "pg_stat_statements".into());
    }
    settings
}

/// A quarter of the memory, at most 8 GiB, at least PostgreSQL's own default.
fn default_shared_buffers() -> String {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = total.and_then(|t| t.trim().strip_suffix("kB")?.trim().parse().ok());
    let mib = (kib.unwrap_or(0) / 1024 / 4).clamp(128, 8192);
    format!("{mib}MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rustydb_relies_on_cannot_be_configured_away() {
        let mut config = Config::default();
        config.embedded.extra_conf.insert("fsync".into(), "off".into());
        config.embedded.extra_conf.insert("work_mem".into(), "16MB".into());
        let settings = settings(&config, Path::new("/x"), true);
        assert_eq!(settings["fsync"], "on");
        assert_eq!(settings["work_mem"], "16MB");
        assert_eq!(settings["max_connections"], "115");
        assert_eq!(settings["max_prepared_transactions"], "100");
        assert_eq!(settings["shared_preload_libraries"], "pg_stat_statements");
    }
}
