//! Requests that took long: counted, and logged once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::{Seldom, Tally};

/// Records of slow requests come at most this often.
const EVERY: Duration = Duration::from_millis(100);

/// The limit, the counter and the log.
#[derive(Debug)]
pub struct SlowQuery {
    made: Instant,
    /// Nobody is slower than `u64::MAX`.
    limit_us: AtomicU64,
    total: IntCounter,
    logged: Seldom,
}

impl SlowQuery {
    /// Without a limit.
    pub fn new(total: IntCounter) -> Self {
        let (made, limit_us) = (Instant::now(), AtomicU64::new(u64::MAX));
        Self { made, limit_us, total, logged: Seldom::new(EVERY) }
    }

    /// Requests of this length are slow; zero = none are.
    pub fn set_limit(&self, limit: Duration) {
        let us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        self.limit_us.store(if us == 0 { u64::MAX } else { us }, Ordering::Relaxed);
    }

    /// How long that is.
    pub fn limit(&self) -> Duration {
        Duration::from_micros(self.limit_us.load(Ordering::Relaxed))
    }

    /// Counts a slow request.
    pub fn note(&self, took: Duration, tally: &Tally, protocol: &str, kind: &str) {
        self.total.inc();
        if self.logged.may(self.made.elapsed()) {
            let ms = took.as_secs_f64() * 1000.0;
            let (session, (role, database)) = (tally.session(), tally.whose());
            tracing::info!(session, %role, %database, protocol, r#type = kind, ms, "slow request");
        }
    }
}
