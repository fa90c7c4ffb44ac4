//! What the pool does about its idle connections: checked before use, replaced in time, counted.

use std::thread::ThreadId;
use std::time::Instant;

use super::inner::LaneKey;
use super::{Pool, Shared};
use crate::backend::{BackendConn, Suspect};
use crate::config::ValidationLevel;

impl Pool {
    /// Takes an idle connection to the calling thread and looks whether it is still good.
    pub(super) fn ready(
        &self,
        mut conn: Box<BackendConn>,
        from: ThreadId,
        to: ThreadId,
    ) -> Option<Box<BackendConn>> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if conn.changes != self.0.changes.count() || !conn.absorb_idle(&mut cx) {
            self.cut("lost", *conn);
            return None;
        }
        if from != to {
            let created = conn.created;
            let Ok(moved) = conn.rebind() else {
                self.gone("lost", created);
                return None;
            };
            conn = Box::new(moved);
            // The new event loop knows nothing yet of what the kernel knows.
            if conn.has_input() {
                self.cut("lost", *conn);
                return None;
            }
        }
        Some(conn)
    }

    /// Checks a connection that was idle for long; `None` = it does not work any more.
    pub(super) async fn checked(
        &self,
        conn: Box<BackendConn>,
        idle_since: u32,
        lane: &LaneKey,
    ) -> Option<Box<BackendConn>> {
        let mut held = Held { pool: self, conn: Some(conn) };
        if self.validate(held.conn.as_mut()?).await {
            return held.conn.take();
        }
        self.0.metrics().validation_failures.inc();
        let others = self.0.inner.lock().take_idle_since(lane, idle_since);
        others.into_iter().for_each(|conn| self.part("validation_failed", conn));
        None
    }

    /// Asks a connection that was idle whether it still works.
    async fn validate(&self, conn: &mut BackendConn) -> bool {
        let config = &self.0.config().pool;
        let sql = match config.validation_level {
            ValidationLevel::None => return true,
            ValidationLevel::Ping => "",
            ValidationLevel::Query => config.validation_sql.as_str(),
        };
        let limit = config.validation_timeout_secs.duration();
        let asked = tokio::time::timeout(limit, conn.simple(sql, |_| {})).await;
        matches!(asked, Ok(Ok(()))) && conn.is_reusable()
    }

    /// Moves the pool's clock; runs every second.
    pub fn tick(&self, now_secs: u32) {
        let outdated = {
            let mut inner = self.0.inner.lock();
            let starved = inner.tick(now_secs, self.0.config().pool.starvation_threshold_secs.0);
            self.0.metrics().starved.inc_by(starved);
            inner.take_outdated(&self.0.changes)
        };
        outdated.into_iter().for_each(|conn| self.part("outdated", conn));
        self.tend_parked();
        self.pump();
    }

    /// Closes connections that are too old, idle for too long or too many, and makes some in
    /// advance; runs every `maintenance_interval_secs`.
    pub fn maintain(&self) {
        let now = Instant::now();
        let idle = self.0.config().pool.idle_timeout_secs.map(|s| s.duration());
        let life = self.0.config().pool.max_lifetime_secs.map(|s| s.duration());
        let retired = self.0.inner.lock().retire(now, idle, life);
        retired.into_iter().for_each(|(reason, conn)| self.part(reason, conn));
        let surplus = self.0.inner.lock().adjust(now);
        surplus.into_iter().for_each(|conn| self.part("shrunk", conn));
        self.pump();
        self.report();
    }

    /// Sets the gauges; runs when they are read.
    pub fn report(&self) {
        self.0.report();
    }

    /// A connection that was refused a write comes back: is its server still the primary?
    pub(super) fn suspect(&self, conn: &mut BackendConn) {
        conn.state.refused_to_write = false;
        let Some(suspect) = Suspect::of(conn) else { return };
        let servers = self.0.servers.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { servers.check_writable(suspect).await });
        }
    }
}

impl Shared {
    pub(super) fn report(&self) {
        let counts = self.inner.lock().counts();
        let metrics = self.metrics();
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.total.set(gauge(counts.total));
        metrics.idle.set(gauge(counts.idle));
        metrics.active.set(gauge(counts.active()));
        metrics.waiters.set(gauge(counts.waiting));
        metrics.max_waiters.set(gauge(counts.most_waiting));
    }
}

/// A connection that is being checked; when the session leaves in the middle, it is closed.
struct Held<'a> {
    pool: &'a Pool,
    conn: Option<Box<BackendConn>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.cut("lost", *conn);
        }
    }
}
