//! What one session did: plain counters that only the session itself writes, summed when somebody
//! asks. No lock and no read-modify-write on the way of a statement.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::types::{Database, Role};

/// The counters of one session.
#[derive(Debug)]
pub struct Tally {
    /// Number of the session, for the log.
    session: u64,
    /// Its role and database.
    whose: (Role, Database),
    /// All times count from here.
    epoch: Instant,
    /// Microseconds plus one; 0 = no request is in work.
    request_since: AtomicU64,
    /// Likewise for the open transaction.
    transaction_since: AtomicU64,
    queries: AtomicU64,
    query_us: AtomicU64,
    committed: AtomicU64,
    rolled_back: AtomicU64,
    transaction_us: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// What keeps the session on its connection, in the words of who knows.
    pinned: AtomicU32,
}

/// Counters of one or several sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests.
    pub queries: u64,
    /// Microseconds of requests.
    pub query_us: u64,
    /// Transactions that were committed, single statements included.
    pub committed: u64,
    /// Transactions that were rolled back.
    pub rolled_back: u64,
    /// Microseconds of transactions.
    pub transaction_us: u64,
    /// Microseconds of waiting for a connection.
    pub wait_us: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
}

impl Totals {
    /// Transactions, however they ended.
    pub fn transactions(&self) -> u64 {
        self.committed + self.rolled_back
    }

    /// Combines two totals, field by field.
    pub fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            queries: f(self.queries, other.queries),
            query_us: f(self.query_us, other.query_us),
            committed: f(self.committed, other.committed),
            rolled_back: f(self.rolled_back, other.rolled_back),
            transaction_us: f(self.transaction_us, other.transaction_us),
            wait_us: f(self.wait_us, other.wait_us),
            received: f(self.received, other.received),
            sent: f(self.sent, other.sent),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, |a, b| a.wrapping_add(b));
    }
}

/// There is one writer, so this needs no atomic addition.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    /// Counters of a session; `epoch` is the same for all of them.
    pub fn new(session: u64, epoch: Instant, whose: (Role, Database)) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            session,
            whose,
            epoch,
            request_since: zero(),
            transaction_since: zero(),
            queries: zero(),
            query_us: zero(),
            committed: zero(),
            rolled_back: zero(),
            transaction_us: zero(),
            received: zero(),
            sent: zero(),
            pinned: AtomicU32::new(0),
        }
    }

    /// What keeps the session on its connection; 0 = nothing.
    pub fn pinned(&self) -> u32 {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Changes that.
    pub fn set_pinned(&self, pins: u32) {
        self.pinned.store(pins, Ordering::Relaxed);
    }

    /// Number of the session.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Role and database of the session.
    pub fn whose(&self) -> &(Role, Database) {
        &self.whose
    }

    /// A request begins, and with it a transaction unless one is open.
    pub fn request_begins(&self, now: Instant) {
        let at = micros(now.saturating_duration_since(self.epoch)) + 1;
        self.request_since.store(at, Ordering::Relaxed);
        if self.transaction_since.load(Ordering::Relaxed) == 0 {
            self.transaction_since.store(at, Ordering::Relaxed);
        }
    }

    /// The request took this long; `ended` = it left no transaction open, and whether that was
    /// committed. Returns how long a transaction took that has ended.
    pub fn request_ends(&self, took: Duration, ended: Option<bool>) -> Option<Duration> {
        let begun = self.request_since.swap_plain(0);
        let took = micros(took);
        add(&self.queries, 1);
        add(&self.query_us, took);
        let committed = ended?;
        let since = self.transaction_since.swap_plain(0);
        let transaction = (begun + took).saturating_sub(since);
        add(&self.transaction_us, transaction);
        add(if committed { &self.committed } else { &self.rolled_back }, 1);
        Some(Duration::from_micros(transaction))
    }

    /// The session gave up its transaction without a request, for instance by leaving.
    pub fn transaction_lost(&self) {
        if self.transaction_since.swap_plain(0) != 0 {
            add(&self.rolled_back, 1);
        }
    }

    /// Bytes passed.
    pub fn bytes(&self, received: u64, sent: u64) {
        add(&self.received, received);
        add(&self.sent, sent);
    }

    /// When the request in work began, from the epoch.
    pub fn request_since(&self) -> Option<Duration> {
        since(&self.request_since)
    }

    /// When the open transaction began, from the epoch.
    pub fn transaction_since(&self) -> Option<Duration> {
        since(&self.transaction_since)
    }

    /// The counters; waiting is counted elsewhere.
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            queries: read(&self.queries),
            query_us: read(&self.query_us),
            committed: read(&self.committed),
            rolled_back: read(&self.rolled_back),
            transaction_us: read(&self.transaction_us),
            wait_us: 0,
            received: read(&self.received),
            sent: read(&self.sent),
        }
    }
}

fn since(at: &AtomicU64) -> Option<Duration> {
    at.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_micros)
}

trait SwapPlain {
    fn swap_plain(&self, value: u64) -> u64;
}

impl SwapPlain for AtomicU64 {
    /// A swap for a single writer.
    fn swap_plain(&self, value: u64) -> u64 {
        let before = self.load(Ordering::Relaxed);
        self.store(value, Ordering::Relaxed);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_spans_its_requests() {
        let epoch = Instant::now();
        let (tally, ms) = (Tally::new(1, epoch, ("r".into(), "d".into())), Duration::from_millis);
        tally.request_begins(epoch + ms(10));
        assert_eq!(tally.request_since(), Some(ms(10)));
        tally.request_ends(ms(1), None);
        assert_eq!((tally.request_since(), tally.transaction_since()), (None, Some(ms(10))));
        tally.request_begins(epoch + ms(20));
        tally.request_ends(ms(2), Some(true));
        tally.request_begins(epoch + ms(30));
        tally.request_ends(ms(3), Some(false));
        tally.request_begins(epoch + ms(40));
        tally.transaction_lost();
        let totals = tally.totals();
        assert_eq!((totals.queries, totals.query_us), (3, 6000));
        assert_eq!((totals.committed, totals.rolled_back), (1, 2));
        assert_eq!(totals.transaction_us, 12_000 + 3000);
    }
}
