//! What happens every few seconds: the registry's clock, the pools' upkeep, health.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::Shared;
use super::leaks::Leaks;
use crate::backend::{Servers, Watch};
use crate::error::{Error, ErrorKind};
use crate::pool::CancelSlot;
use crate::session::TimeLimits;
use crate::telemetry::Check;

/// Free space of the data directory, in percent, below which it is degraded, and failed.
const LOW_SPACE: (u64, u64) = (10, 2);

/// Bytes of WAL that a slot may keep back before replication is degraded.
const SLOT_LAG: i64 = 1 << 30;

/// Time for one health check to find PostgreSQL.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pool that has had waiters for this many samples is exhausted.
const EXHAUSTED_SAMPLES: u32 = 3;

/// Starts the samplers on the calling event loop; `name` is that of a single server.
pub(super) fn start(
    shared: &Arc<Shared>,
    servers: &Servers,
    name: Option<String>,
    data_dir: &Path,
) {
    tokio::spawn(sweep(shared.clone()));
    tokio::spawn(maintain(shared.clone()));
    tokio::spawn(watch_certificate(shared.clone()));
    tokio::spawn(keep_up_log_ins(shared.clone()));
    if let Some(watch) = Watch::over(servers) {
        tokio::spawn(watch_servers(shared.clone(), watch));
    }
    tokio::spawn(sample_health(shared.clone(), name, data_dir.to_owned()));
}

/// How often what is remembered of log-ins and rates is looked through.
const UPKEEP: Duration = Duration::from_secs(60);

async fn keep_up_log_ins(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        let config = shared.live.now();
        let rules = config.rate_limit.rules.iter().map(|rule| u64::from(rule.window_secs));
        let others = [&config.rate_limit.window_secs, &config.lockout.window_secs];
        let others = others.into_iter().map(|window| window.0);
        let longest = rules.chain(others).max().unwrap_or(0).max(UPKEEP.as_secs());
        shared.limiter.sweep(Duration::from_secs(longest), shared.limiter.now());
        let keys = i64::try_from(shared.limiter.len()).unwrap_or(i64::MAX);
        shared.metrics.access.limiter_keys.set(keys);
        shared.auth.upkeep().await;
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        let limits = TimeLimits::of(&shared.live.now());
        let now = u32::try_from(shared.health.uptime_secs()).unwrap_or(u32::MAX);
        shared.sessions.sweep(now, &limits);
        shared.pool.tick(now);
        shared.system_pool.tick(now);
    }
}

async fn maintain(shared: Arc<Shared>) {
    let mut leaks = Leaks::default();
    loop {
        let every = shared.live.now().pool.maintenance_interval_secs.duration();
        tokio::time::sleep(every).await;
        shared.pool.maintain();
        shared.system_pool.maintain();
        leaks.look(&shared).await;
    }
}

async fn watch_certificate(shared: Arc<Shared>) {
    let Some(tls) = shared.tls.clone() else { return };
    loop {
        tls.look();
        tokio::time::sleep(shared.live.now().security.tls_check_secs.duration()).await;
    }
}

async fn watch_servers(shared: Arc<Shared>, mut watch: Watch) {
    loop {
        shared.metrics.backends.stand(&watch.look().await);
        tokio::time::sleep(shared.live.now().backend.health_interval_secs.duration()).await;
    }
}

async fn sample_health(shared: Arc<Shared>, name: Option<String>, data_dir: PathBuf) {
    let mut waiting_samples = 0;
    loop {
        let next = shared.live.now().backend.health_interval_secs.duration();
        let next = tokio::time::Instant::now() + next;
        let asked = Instant::now();
        let (database, replication) = ask_backend(&shared).await;
        let detail = match database {
            Check::Ok => format!("PostgreSQL answered in {} ms", asked.elapsed().as_millis()),
            _ => "PostgreSQL does not answer".to_owned(),
        };
        shared.health.report("database", database, detail);
        let (replication, detail) = replication;
        shared.health.report("replication", replication, detail);
        if let Some(name) = &name {
            shared.metrics.backends.answers(name, database == Check::Ok);
        }
        let (state, detail) = storage(&data_dir);
        shared.health.report("storage", state, detail);
        let (_, waiting) = shared.pool.load();
        waiting_samples = if waiting > 0 { waiting_samples + 1 } else { 0 };
        let pool = match waiting_samples {
            0 => Check::Ok,
            n if n < EXHAUSTED_SAMPLES => Check::Degraded,
            _ => Check::Failed,
        };
        let detail = format!("{waiting} clients wait for a connection");
        shared.health.report("pool", pool, detail);
        if database == Check::Ok {
            shared.roles.refresh().await;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// The state of the database, and that of replication with words about it.
async fn ask_backend(shared: &Shared) -> (Check, (Check, String)) {
    let unknown = || (Check::Disabled, String::new());
    let slot = Arc::new(CancelSlot::default());
    let asked = async {
        let mut lease = shared.system_pool.acquire(&shared.system, &slot).await?;
        let mut lag: Option<i64> = None;
        let sql = include_str!("../../sql/health.sql");
        let read = |row: Vec<Option<String>>| {
            lag = row.get(1).and_then(|value| value.as_ref()?.parse().ok());
        };
        lease.conn().simple(sql, read).await?;
        Ok::<_, Error>(lag)
    };
    let limit = shared.live.now().backend.connect_timeout_secs.duration() * 2;
    let asked = async {
        tokio::select! {
            asked = tokio::time::timeout(limit, asked) => asked,
            () = out_of_reach(shared) => Ok(Err(no_answer())),
        }
    };
    match asked.await {
        Ok(Ok(None)) => (Check::Ok, (Check::Ok, "there is no replication slot".into())),
        Ok(Ok(Some(lag))) => {
            let state = if lag > SLOT_LAG { Check::Degraded } else { Check::Ok };
            (Check::Ok, (state, format!("replication slots keep back {lag} bytes of WAL")))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "PostgreSQL does not answer the health check");
            (Check::Failed, unknown())
        }
        Err(_) => (Check::Failed, unknown()),
    }
}

/// Returns when it is known that PostgreSQL does not answer: clients may wait longer, probes not.
async fn out_of_reach(shared: &Shared) {
    loop {
        tokio::time::sleep(PATIENCE).await;
        if shared.system_pool.is_out_of_reach() {
            return;
        }
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::ServiceUnavailable, "it cannot be reached")
}

fn storage(data_dir: &Path) -> (Check, String) {
    let cluster = data_dir.join("pg");
    if cluster.exists() && std::fs::File::open(cluster.join("global/pg_control")).is_err() {
        return (Check::Failed, "the data directory cannot be read".into());
    }
    let Ok(stat) = statvfs(data_dir) else {
        return (Check::Failed, "the data directory is not there".into());
    };
    let (free, all) = (stat.blocks_available(), stat.blocks());
    let percent = free * 100 / all.max(1);
    let state = match percent {
        percent if percent < LOW_SPACE.1 => Check::Failed,
        percent if percent < LOW_SPACE.0 => Check::Degraded,
        _ => Check::Ok,
    };
    (state, format!("{percent} % of the space are free"))
}
