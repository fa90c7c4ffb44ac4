//! Sums over the sessions, and what the log says of them. All of this runs when somebody asks, when
//! a session ends or once a second, never for a statement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

use super::registry::{Entry, Sessions};
use crate::error::Error;
use crate::telemetry::Totals;
use crate::types::{Database, Protocol, SessionId};

/// Databases whose totals are kept apart; those of further ones are kept together.
const MAX_DATABASES: usize = 1000;

/// Name of the row of all further databases.
const OTHERS: &str = "(others)";

/// Seconds that an average is taken over.
pub const AVERAGE_SECS: u32 = 60;

/// Holders that the log names when there is no connection.
const NAMED_HOLDERS: usize = 5;

/// What ended sessions did, and the averages.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    ended: HashMap<Database, Totals>,
    /// The sum that the metrics show already.
    published: Totals,
    /// Totals at the end of the last two periods.
    periods: [HashMap<Database, Totals>; 2],
    period_began: u32,
}

/// A session as an administrator sees it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// The entry.
    pub entry: Arc<Entry>,
    /// PostgreSQL's process that it holds.
    pub backend_pid: Option<u32>,
    /// How long it has waited for a connection, when it does.
    pub waiting: Option<Duration>,
    /// When it was opened.
    pub connected_at: SystemTime,
    /// When its request in work began.
    pub request_at: Option<SystemTime>,
    /// When its open transaction began.
    pub transaction_at: Option<SystemTime>,
    /// What it did.
    pub totals: Totals,
}

impl SessionView {
    /// Holds a backend, waits for one, or neither.
    pub fn state(&self) -> &'static str {
        match (self.backend_pid, self.waiting) {
            (Some(_), _) => "active",
            (None, Some(_)) => "waiting",
            (None, None) => "idle",
        }
    }

    /// What it did since its counters were reset.
    pub fn since_reset(&self) -> Totals {
        let baseline = self.entry.baseline.lock().as_deref().copied().unwrap_or_default();
        self.totals.zip(baseline, u64::saturating_sub)
    }

    /// Resets its counters, for who looks at them this way.
    pub fn reset(&self) {
        *self.entry.baseline.lock() = Some(Box::new(totals(&self.entry)));
    }

    /// Number of its request in work.
    pub fn query_id(&self) -> Option<Uuid> {
        Some(query_id(self.request_at?, self.entry.id))
    }
}

/// Number of a request: when it began, and whose it is, so that it costs nothing until it is asked
/// for.
fn query_id(began: SystemTime, session: SessionId) -> Uuid {
    let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    // Around the four bits that say which kind of number it is.
    let time = (us >> 12) << 16 | us & 0xfff;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&time.to_be_bytes());
    bytes[8..].copy_from_slice(&session.0.to_be_bytes());
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl Statistics {
    /// Adds a session that ends.
    pub(super) fn retire(&mut self, entry: &Entry) {
        let done = totals(entry);
        if done.queries == 0 && done.transactions() == 0 {
            // Who was refused says nothing of the database, which need not exist.
            return;
        }
        let known = self.ended.contains_key(&entry.database);
        let full = !known && self.ended.len() >= MAX_DATABASES;
        let name = if full { OTHERS.into() } else { entry.database.clone() };
        *self.ended.entry(name).or_default() += done;
    }
}

fn totals(entry: &Entry) -> Totals {
    Totals { wait_us: entry.slot().waits().total_us(), ..entry.tally.totals() }
}

impl Sessions {
    /// Number of the request that a session has in work.
    pub(super) fn query_id(&self, entry: &Entry) -> Option<Uuid> {
        Some(query_id(self.epoch.1 + entry.tally.request_since()?, entry.id))
    }

    /// Every session, by its number.
    pub fn views(&self) -> Vec<SessionView> {
        let mut entries: Vec<_> = self.by_pid.lock().values().cloned().collect();
        entries.sort_by_key(|entry| entry.id);
        let at = |since: Duration| self.epoch.1 + since;
        let view = |entry: Arc<Entry>| SessionView {
            backend_pid: entry.slot().backend_pid(),
            waiting: entry.slot().waits().now(),
            connected_at: at(entry.opened.saturating_duration_since(self.epoch.0)),
            request_at: entry.tally.request_since().map(at),
            transaction_at: entry.tally.transaction_since().map(at),
            totals: totals(&entry),
            entry,
        };
        entries.into_iter().map(view).collect()
    }

    /// What was done in each database since the start.
    pub fn totals_by_database(&self) -> HashMap<Database, Totals> {
        let by_pid = self.by_pid.lock();
        let mut sums = self.statistics.lock().ended.clone();
        for entry in by_pid.values() {
            *sums.entry(entry.database.clone()).or_default() += totals(entry);
        }
        sums
    }

    /// What was done in each database in one second of the last whole period. Times are averages
    /// over what was done, as in PgBouncer.
    pub fn averages_by_database(&self) -> HashMap<Database, Totals> {
        let statistics = self.statistics.lock();
        let [before, after] = &statistics.periods;
        let secs = u64::from(AVERAGE_SECS);
        let average = |(name, now): (&Database, &Totals)| {
            let then = before.get(name).copied().unwrap_or_default();
            let grown = now.zip(then, u64::wrapping_sub);
            let mut average = grown.zip(Totals::default(), |n, _| n / secs);
            average.query_us = grown.query_us / grown.queries.max(1);
            average.transaction_us = grown.transaction_us / grown.transactions().max(1);
            // From the sum: two halves rounded down could lose one.
            average.committed = grown.transactions() / secs;
            average.rolled_back = 0;
            (name.clone(), average)
        };
        after.iter().map(average).collect()
    }

    /// Brings the metrics up to date; once a second.
    pub(super) fn publish(&self, now_secs: u32) {
        let mut by_state = [(0i64, 0i64); Protocol::ALL.len()];
        let mut transactions = 0;
        for entry in self.by_pid.lock().values() {
            self.count_rest(entry, now_secs, false);
            let (idle, without_backend) = &mut by_state[entry.protocol as usize];
            *idle += i64::from(entry.idle_since().is_some());
            *without_backend += i64::from(entry.slot().backend_pid().is_none());
            transactions += i64::from(entry.tally.transaction_since().is_some());
        }
        for (protocol, (idle, without_backend)) in Protocol::ALL.into_iter().zip(by_state) {
            self.metrics.protocol(protocol).sessions_idle.set(idle);
            self.metrics.protocol(protocol).sessions_pooled.set(without_backend);
        }
        self.metrics.transactions_active.set(transactions);
        let by_database = self.totals_by_database();
        let mut sum = Totals::default();
        by_database.values().for_each(|totals| sum += *totals);
        let mut statistics = self.statistics.lock();
        let grown = sum.zip(statistics.published, u64::saturating_sub);
        self.metrics.transactions_committed.inc_by(grown.committed);
        self.metrics.transactions_rolled_back.inc_by(grown.rolled_back);
        statistics.published = sum;
        if now_secs.saturating_sub(statistics.period_began) >= AVERAGE_SECS {
            statistics.period_began = now_secs;
            statistics.periods.swap(0, 1);
            statistics.periods[1] = by_database;
        }
    }

    /// Counts a time without work that has ended. A console's says nothing.
    pub(super) fn count_rest(&self, entry: &Entry, now_secs: u32, gone: bool) {
        if let Some(secs) = entry.rested(now_secs, gone).filter(|_| !entry.is_console) {
            self.metrics.session_was_idle(entry.protocol, secs);
        }
    }

    /// What a session was, for who looks for it later.
    pub(super) fn log_end(&self, entry: &Entry, ended: &str, life: Duration) {
        let done = totals(entry);
        tracing::debug!(
            session = %entry.id, role = %entry.role, database = %entry.database,
            application = entry.application(), peer = &*entry.peer,
            protocol = entry.protocol.as_str(), reason = ended, secs = life.as_secs_f64(),
            transactions = done.transactions(), queries = done.queries,
            wait_ms = done.wait_us / 1000, received = done.received, sent = done.sent,
            "session ended"
        );
    }

    /// Who holds the connections, longest first; seldom, however many find none.
    pub(super) fn log_holders(&self, error: &Error) {
        if !self.holders_logged.may(self.epoch.0.elapsed()) {
            return;
        }
        let views = self.views();
        let (waiting, held): (Vec<_>, Vec<_>) =
            views.into_iter().partition(|view| view.backend_pid.is_none());
        let waiting = waiting.iter().filter(|view| view.waiting.is_some()).count();
        tracing::warn!(holders = held.len(), waiting, "{error}");
        let mut held = held;
        held.sort_by_key(|view| view.transaction_at.unwrap_or(view.connected_at));
        for view in held.iter().take(NAMED_HOLDERS) {
            let since = view.transaction_at.unwrap_or(view.connected_at);
            let secs = since.elapsed().map_or(0.0, |held| held.as_secs_f64());
            tracing::warn!(
                session = %view.entry.id, role = %view.entry.role,
                database = %view.entry.database, application = view.entry.application(),
                backend_pid = view.backend_pid, secs,
                in_transaction = view.transaction_at.is_some(),
                pinned = view.entry.pinned(),
                "holds a connection"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_requests() {
        let at = |us: u64| UNIX_EPOCH + Duration::from_micros(us);
        let id = |us, session| query_id(at(us), SessionId(session));
        assert_eq!(id(0x1234_5678_9abc, 7).to_string(), "00012345-6789-8abc-8000-000000000007");
        assert!(id(0xfff, 9) < id(0x1000, 1) && id(1, 1) != id(1, 2));
    }
}
