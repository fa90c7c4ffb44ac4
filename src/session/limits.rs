//! Time limits of sessions. They are looked at once a second, so no session reads a clock for them;
//! each limit is kept to within a second, and nobody is sent away early.

use std::sync::atomic::Ordering;

use super::registry::{Entry, Sessions, Stop};
use crate::config::Config;
use crate::types::Protocol;

/// In seconds; `None` = there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeLimits {
    /// Without a request, outside of a transaction.
    pub idle: Option<u64>,
    /// Without a request, within a transaction.
    pub in_transaction: Option<u64>,
    /// From the beginning; a tenth more for some, so that not all go at once.
    pub life: Option<u64>,
}

impl TimeLimits {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            idle: config.network.idle_timeout_secs.map(|secs| secs.0),
            in_transaction: config.session.idle_in_transaction_timeout_secs.map(|secs| secs.0),
            life: config.session.max_session_lifetime_secs.map(|secs| secs.0),
        }
    }

    /// What a client has to do now.
    fn order(&self, entry: &Entry, now_secs: u32) -> Option<Stop> {
        let is_over = |limit: Option<u64>, since: Option<u32>| {
            // Both are whole seconds: a second more, and nobody is sent away early.
            limit.zip(since).is_some_and(|(most, t)| u64::from(now_secs.saturating_sub(t)) > most)
        };
        let in_transaction = self.in_transaction.and_then(|_| entry.rests_in_transaction(now_secs));
        let life = self.life.map(|life| life + u64::from(entry.pid) % (life / 10 + 1));
        match () {
            () if is_over(life, Some(entry.since_secs)) => Some(Stop::Expired),
            () if is_over(self.in_transaction, in_transaction) => Some(Stop::InTransaction),
            // Who listens is not idle.
            () if entry.protocol == Protocol::Native && entry.pinned().is_some() => None,
            () if is_over(self.idle, entry.idle_since()) => Some(Stop::Idle),
            () => None,
        }
    }
}

impl Sessions {
    /// Moves the clock, lets sessions that wait see whether their clients do, and ends those of
    /// PostgreSQL and native clients that have reached a limit.
    pub fn sweep(&self, now_secs: u32, limits: &TimeLimits) {
        self.clock.store(now_secs.max(1), Ordering::Relaxed);
        self.publish(now_secs);
        for entry in self.by_pid.lock().values() {
            if entry.slot.waits().now().is_some() {
                entry.wake();
            }
            if entry.protocol == Protocol::Http || entry.is_console {
                continue;
            }
            if let Some(stop) = limits.order(entry, now_secs) {
                entry.order(stop);
            }
        }
    }
}
