//! Metrics of the pools.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::maker::Maker;

/// Seconds; the life of a connection.
const LIFETIMES: [f64; 9] = [0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0];

/// Statements that connections keep prepared, `pool.statement_cache_size` each.
#[derive(Debug)]
pub struct StatementCacheMetrics {
    /// Found, by the text of a Parse or by the name of a Bind.
    pub hits: IntCounter,
    /// Parsed by PostgreSQL.
    pub misses: IntCounter,
    /// Closed to make room.
    pub evictions: IntCounter,
}

/// Metrics of one pool.
pub struct PoolMetrics {
    /// Connections, those being made or cleaned included.
    pub total: IntGauge,
    /// Connections that wait for work.
    pub idle: IntGauge,
    /// Connections lent to sessions.
    pub active: IntGauge,
    /// Sessions that wait for a connection.
    pub waiters: IntGauge,
    /// The most that ever waited.
    pub max_waiters: IntGauge,
    /// Sessions that waited for longer than the threshold.
    pub starved: IntCounter,
    /// Time in the wait queue.
    pub wait_duration: Histogram,
    /// Acquisitions by result.
    pub acquired: IntCounter,
    /// Acquisitions that found the backend out of reach or refusing.
    pub acquire_failed: IntCounter,
    /// Acquisitions that waited too long.
    pub acquire_timeout: IntCounter,
    /// Acquisitions that found the wait queue full.
    pub acquire_rejected: IntCounter,
    /// Time from asking for a connection to having it.
    pub acquire_duration: Histogram,
    /// Microseconds of the longest of them.
    pub longest_acquire: AtomicU64,
    /// Connections made.
    pub created: IntCounter,
    /// Creations that had to wait for their rate.
    pub creation_throttled: IntCounter,
    /// Attempts to make a connection that failed.
    pub connection_errors: IntCounter,
    /// Idle connections that did not pass their check.
    pub validation_failures: IntCounter,
    /// Sessions that hold a connection for long and do nothing.
    pub leaked: IntCounter,
    /// Connections cleaned for the next session.
    pub recycled: IntCounter,
    /// Statements of all its connections.
    pub statement_cache: Arc<StatementCacheMetrics>,
    pub(super) lifetime: Histogram,
    pub(super) destroyed: IntCounterVec,
    pub(super) name: &'static str,
}

impl PoolMetrics {
    /// Counts a connection that was asked for and came after this time.
    pub fn acquired_after(&self, took: Duration) {
        self.acquire_duration.observe(took.as_secs_f64());
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.longest_acquire.fetch_max(us, Ordering::Relaxed);
    }

    /// Counts a closed connection.
    pub fn destroyed(&self, reason: &str, age: Duration) {
        self.lifetime.observe(age.as_secs_f64());
        self.destroyed.with_label_values(&[self.name, reason]).inc();
    }
}

/// Those of the clients' pool, and of the system role's.
pub(super) fn pool_metrics(make: &Maker<'_>) -> [PoolMetrics; 2] {
    const P: &[&str] = &["pool"];
    let total = make.gauges("rustydb_pool_total_connections", "Connections to PostgreSQL", P);
    let idle = make.gauges("rustydb_pool_idle_connections", "Connections without work", P);
    let active = make.gauges("rustydb_pool_active_connections", "Connections lent out", P);
    let waiters = make.gauges("rustydb_pool_wait_queue_size", "Sessions that wait", P);
    let max_waiters = make.gauges("rustydb_pool_max_waiters", "Most sessions that ever waited", P);
    let starved = make.counters(
        "rustydb_pool_starved_total",
        "Sessions that waited for longer than pool.starvation_threshold_secs",
        P,
    );
    let wait = make.histograms("rustydb_pool_wait_duration_seconds", "Time in the queue", P);
    let lifetime = make.spread(
        "rustydb_pool_connection_lifetime_seconds",
        "Age of connections when they were closed",
        P,
        &LIFETIMES,
    );
    let errors = make.counters(
        "rustydb_pool_connection_errors_total",
        "Attempts to make a connection that failed",
        P,
    );
    let invalid = make.counters(
        "rustydb_pool_validation_failures_total",
        "Idle connections that did not pass their check",
        P,
    );
    let leaked = make.counters(
        "rustydb_pool_leaked_connections_total",
        "Connections held for longer than pool.leak_detection_threshold_secs without work",
        P,
    );
    let throttled = make.counters(
        "rustydb_pool_creation_throttled_total",
        "Creations that had to wait for pool.creation_throttle",
        P,
    );
    let acquisitions = make.counters(
        "rustydb_pool_acquisitions_total",
        "Acquisitions by result",
        &["pool", "result"],
    );
    let acquire = make.histograms(
        "rustydb_pool_acquire_duration_seconds",
        "Time from asking for a connection to having it",
        P,
    );
    let created = make.counters("rustydb_pool_connections_created_total", "Connections made", P);
    let recycled = make.counters(
        "rustydb_pool_connections_recycled_total",
        "Connections cleaned for the next session",
        &["pool", "strategy"],
    );
    let destroyed = make.counters(
        "rustydb_pool_connections_destroyed_total",
        "Connections closed",
        &["pool", "reason"],
    );
    let cache = |what: &str, help: &str| {
        make.counters(&format!("rustydb_pool_statement_cache_{what}_total"), help, P)
    };
    let hits = cache("hits", "Prepared statements that their connection had");
    let misses = cache("misses", "Prepared statements that PostgreSQL had to parse");
    let evictions = cache("evictions", "Prepared statements closed to make room for others");
    ["main", "system"].map(|name| {
        let l = &[name];
        PoolMetrics {
            statement_cache: Arc::new(StatementCacheMetrics {
                hits: hits.with_label_values(l),
                misses: misses.with_label_values(l),
                evictions: evictions.with_label_values(l),
            }),
            total: total.with_label_values(l),
            idle: idle.with_label_values(l),
            active: active.with_label_values(l),
            waiters: waiters.with_label_values(l),
            max_waiters: max_waiters.with_label_values(l),
            starved: starved.with_label_values(l),
            wait_duration: wait.with_label_values(l),
            creation_throttled: throttled.with_label_values(l),
            connection_errors: errors.with_label_values(l),
            validation_failures: invalid.with_label_values(l),
            leaked: leaked.with_label_values(l),
            lifetime: lifetime.with_label_values(l),
            acquired: acquisitions.with_label_values(&[name, "success"]),
            acquire_failed: acquisitions.with_label_values(&[name, "failed"]),
            acquire_timeout: acquisitions.with_label_values(&[name, "timeout"]),
            acquire_rejected: acquisitions.with_label_values(&[name, "rejected"]),
            acquire_duration: acquire.with_label_values(l),
            longest_acquire: AtomicU64::new(0),
            created: created.with_label_values(l),
            recycled: recycled.with_label_values(&[name, "discard_all"]),
            destroyed: destroyed.clone(),
            name,
        }
    })
}
