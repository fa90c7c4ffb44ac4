//! What an administrator does to a pool, and sees of it: pause, reconnect, resize, list.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{CancelSlot, Pool, PoolKind, Shared};
use crate::backend::Listed;
use crate::config::RecyclingStrategy;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Database;

/// Databases that may be paused by name at once.
pub(super) const MAX_PAUSED: usize = 1000;

/// A connection as an administrator sees it.
#[derive(Clone, Debug)]
pub struct ServerView {
    /// What does not change.
    pub listed: Arc<Listed>,
    /// Whether nobody uses it.
    pub idle: bool,
}

/// How many of what a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections, those being made or cleaned included.
    pub total: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that are being made, or parked for a pooled session.
    pub aside: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// The most that ever waited.
    pub most_waiting: usize,
    /// Connections that are kept although they are idle.
    pub min_size: usize,
    /// Connections at most.
    pub max_size: usize,
}

impl Counts {
    /// Connections that sessions hold.
    pub fn active(&self) -> usize {
        self.total.saturating_sub(self.idle + self.aside)
    }
}

/// Which databases are paused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paused {
    /// All of them.
    pub all: bool,
    /// These.
    pub databases: HashSet<Database>,
}

impl Paused {
    /// Whether this one is.
    pub fn holds(&self, database: &str) -> bool {
        self.all || self.databases.iter().any(|paused| paused.as_str() == database)
    }

    /// Whether any is.
    pub fn any(&self) -> bool {
        self.all || !self.databases.is_empty()
    }
}

impl Pool {
    /// Lets nobody have a connection to the database, or to any, until [`Pool::resume`]. Who has
    /// one keeps it; [`Pool::is_at_rest`] tells when all are back.
    pub fn pause(&self, database: Option<&Database>) -> Result<()> {
        if !self.0.inner.lock().pause(database) {
            let text = format!("{MAX_PAUSED} databases are paused by name already");
            return Err(Error::new(ErrorKind::LimitReached, text)
                .with_hint("PAUSE without a name pauses all of them"));
        }
        Ok(())
    }

    /// Ends a pause; false = there was none. Without a name it ends every pause.
    pub fn resume(&self, database: Option<&Database>) -> bool {
        let resumed = self.0.inner.lock().resume(database);
        self.0.resumed.notify_waiters();
        resumed
    }

    /// Sends away who waits for the end of a pause: the server ends before.
    pub fn drain(&self) {
        self.0.inner.lock().drain();
        self.0.resumed.notify_waiters();
    }

    /// What is paused.
    pub fn paused(&self) -> Paused {
        self.0.inner.lock().paused().clone()
    }

    /// Whether no connection to the database, or to any, is left. Idle ones are closed on the way.
    pub fn is_at_rest(&self, database: Option<&Database>) -> bool {
        let idle = self
            .0
            .inner
            .lock()
            .take_idle_in(|key| database.is_none_or(|d| d.as_str() == key.database()));
        idle.into_iter().for_each(|conn| self.part("pause", conn));
        let of_it = |listed: &Arc<Listed>| database.is_none_or(|d| *d == listed.database);
        !self.0.roster.all().iter().any(of_it)
    }

    /// Replaces every connection to the database, or to any: idle ones now, lent ones when they
    /// come back.
    pub fn reconnect(&self, database: Option<&Database>) {
        let of_it = |listed: &Arc<Listed>| database.is_none_or(|d| *d == listed.database);
        self.0.roster.all().into_iter().filter(of_it).for_each(|listed| listed.make_stale());
        let idle = self
            .0
            .inner
            .lock()
            .take_idle_in(|key| database.is_none_or(|d| d.as_str() == key.database()));
        idle.into_iter().for_each(|conn| self.part("reconnect", conn));
    }

    /// Replaces the connections with these numbers, or all: idle ones now, lent ones when they come
    /// back. Returns how many.
    pub fn recycle(&self, numbers: Option<&HashSet<u64>>) -> usize {
        let mut all = self.0.roster.all();
        all.retain(|listed| numbers.is_none_or(|numbers| numbers.contains(&listed.id)));
        all.iter().for_each(|listed| listed.make_stale());
        let idle = self.0.inner.lock().take_stale();
        idle.into_iter().for_each(|conn| self.part("recycled", conn));
        all.len()
    }

    /// Fails everybody who waits in the queue; returns how many.
    pub fn dismiss(&self) -> usize {
        let error = || {
            let text = "an administrator has cleared the wait queue";
            Error::new(ErrorKind::PoolExhausted, text).with_hint("try again in a moment")
        };
        self.0.inner.lock().dismiss(error)
    }

    /// How many connections and waiters there are.
    pub fn counts(&self) -> Counts {
        self.0.inner.lock().counts()
    }

    /// Takes over sizes, limits and times that have changed. Lent connections that are too many
    /// are closed when they come back.
    pub fn resize(&self, config: &crate::config::Config) {
        self.0.set_returns(&config.pool);
        self.0.servers.set_limit(config.backend.connect_timeout_secs.duration());
        let (policy, gates) = self.0.kind.shape(config);
        let (surplus, narrowed) = self.0.inner.lock().change(policy, gates, &config.pool);
        for listed in self.0.roster.all() {
            if narrowed.concerns(listed.role.as_str(), listed.database.as_str()) {
                listed.make_stale();
            }
        }
        surplus.into_iter().for_each(|conn| self.part("resize", conn));
        self.pump();
    }

    /// From now on at most this many connections, at least one; the others are closed when nobody
    /// has them.
    pub fn shrink(&self, most: usize) {
        let surplus = self.0.inner.lock().shrink(most.max(1));
        surplus.into_iter().for_each(|conn| self.part("replaced", conn));
        self.pump();
    }

    /// Every connection, those being made included.
    pub fn servers(&self) -> Vec<ServerView> {
        let idle = self.0.inner.lock().idle_ids();
        let all = self.0.roster.all().into_iter();
        all.map(|listed| ServerView { idle: idle.contains(&listed.id), listed }).collect()
    }

    /// Time that a statement of our own on a lent connection may take.
    pub fn reset_timeout(&self) -> Duration {
        self.0.reset_timeout()
    }

    /// How long a client may hold a pooled session without a request.
    pub fn max_think_time(&self) -> Duration {
        self.0.config().drcp.max_think_time_secs.duration()
    }

    /// Most connections at once.
    pub fn max_size(&self) -> usize {
        self.0.inner.lock().max_size()
    }

    /// A parameter that PostgreSQL reported to the last connection of some lane.
    pub fn reported(&self, name: &str) -> Option<String> {
        self.0.inner.lock().reported(name)
    }
}

impl Shared {
    /// Returns when the database is not paused any more.
    pub(super) async fn until_resumed(&self, database: &str) {
        loop {
            let resumed = self.resumed.notified();
            tokio::pin!(resumed);
            // Before the look, so that a resume in between is not missed.
            resumed.as_mut().enable();
            if !self.inner.lock().holds_up(database) {
                return;
            }
            resumed.await;
        }
    }

    /// What counts for connections that come back.
    pub(super) fn set_returns(&self, pool: &crate::config::Pool) {
        let ms = u64::try_from(pool.reset_timeout_secs.duration().as_millis()).unwrap_or(u64::MAX);
        self.reset_timeout_ms.store(ms, Ordering::Relaxed);
        let strategy = match self.kind {
            PoolKind::Main => pool.recycling_strategy,
            // Its statements are RustyDB's own.
            PoolKind::System => RecyclingStrategy::Adaptive,
        };
        self.recycling.store(strategy as u8, Ordering::Relaxed);
    }

    /// What is done with connections that come back.
    pub(super) fn recycling(&self) -> RecyclingStrategy {
        const CHECKED: u8 = RecyclingStrategy::Checked as u8;
        const REPLACE: u8 = RecyclingStrategy::Replace as u8;
        match self.recycling.load(Ordering::Relaxed) {
            CHECKED => RecyclingStrategy::Checked,
            REPLACE => RecyclingStrategy::Replace,
            _ => RecyclingStrategy::Adaptive,
        }
    }

    pub(super) fn reset_timeout(&self) -> Duration {
        Duration::from_millis(self.reset_timeout_ms.load(Ordering::Relaxed))
    }
}

/// How long a session waits, and waited, for connections.
#[derive(Debug, Default)]
pub struct Waits {
    since: Mutex<Option<Instant>>,
    total_us: AtomicU64,
}

/// A wait in progress; dropping it ends and counts it.
pub(super) struct Wait<'a>(&'a Waits);

impl Waits {
    pub(super) fn begin(&self) -> Wait<'_> {
        *self.since.lock() = Some(Instant::now());
        Wait(self)
    }

    /// How long it has waited so far, when it waits now.
    pub fn now(&self) -> Option<Duration> {
        self.since.lock().map(|since| since.elapsed())
    }

    /// Microseconds of all waits that are over.
    pub fn total_us(&self) -> u64 {
        self.total_us.load(Ordering::Relaxed)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let took = self.0.since.lock().take().map_or(Duration::ZERO, |since| since.elapsed());
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.total_us.fetch_add(took, Ordering::Relaxed);
    }
}

impl CancelSlot {
    /// Cancel requests of the session that are on their way.
    pub fn cancels_under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// How the session waits.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }
}
