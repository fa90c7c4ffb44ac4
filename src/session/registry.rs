//! The one registry of sessions: who is connected, how to cancel, how to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use atomic_waker::AtomicWaker;
use foldhash::quality::RandomState;
use parking_lot::Mutex;
use rand::Rng;
use subtle::ConstantTimeEq;
use tokio::sync::{mpsc, oneshot};

use super::statistics::Statistics;
use crate::auth::tokens::Grant;
use crate::config::PoolingMode;
use crate::error::{Error, ErrorKind};
use crate::net::Ends;
use crate::pool::CancelSlot;
use crate::query::Effects;
use crate::telemetry::{Metrics, Seldom, Tally, Totals};
use crate::types::{Database, Protocol, Role, SessionId};

/// The log names the holders of the connections at most this often.
const HOLDERS_EVERY: Duration = Duration::from_secs(5);

/// Time for another process to carry out a cancel request.
const ELSEWHERE_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of the key of a cancel request in protocol 3.0, and from 3.2 on.
const SHORT_KEY: usize = 4;
const LONG_KEY: usize = 32;

/// Why and when a session has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stop {
    /// Not at all.
    No,
    /// It was idle for too long: now, if it still is.
    Idle,
    /// It did nothing within a transaction for too long: now, if that is still so.
    InTransaction,
    /// It has been there for too long: as soon as it is idle.
    Expired,
    /// The server drains: as soon as it is idle.
    Drain,
    /// An administrator ends it: now.
    Kill,
    /// The server stops: now.
    Now,
}

impl Stop {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Stop::No,
            1 => Stop::Idle,
            2 => Stop::InTransaction,
            3 => Stop::Expired,
            4 => Stop::Drain,
            5 => Stop::Kill,
            _ => Stop::Now,
        }
    }

    /// What the client is told.
    pub fn error(self) -> Error {
        match self {
            Stop::Idle => Error::new(
                ErrorKind::IdleTimeout,
                "terminating connection due to idle-session timeout",
            ),
            Stop::InTransaction => {
                Error::sql(b"25P03", "terminating connection due to idle-in-transaction timeout")
                    .with_hint("session.idle_in_transaction_timeout_secs is the limit")
            }
            Stop::Expired => Error::new(
                ErrorKind::ShuttingDown,
                "terminating connection due to session.max_session_lifetime_secs",
            ),
            _ => Error::new(
                ErrorKind::ShuttingDown,
                "terminating connection due to administrator command",
            ),
        }
    }

    /// The `reason` of the metric.
    pub fn reason(self) -> &'static str {
        match self {
            Stop::Idle => "idle_timeout",
            Stop::InTransaction => "idle_in_transaction_timeout",
            Stop::Expired => "max_lifetime",
            Stop::Kill => "killed",
            _ => "shutdown",
        }
    }

    /// Whether that is the `reason` of a time limit.
    fn is_timeout(reason: &str) -> bool {
        [Stop::Idle, Stop::InTransaction, Stop::Expired].iter().any(|stop| stop.reason() == reason)
    }
}

/// One session as others see it.
#[derive(Debug)]
pub struct Entry {
    /// Number.
    pub id: SessionId,
    /// Number that a PostgreSQL client knows it by.
    pub pid: u32,
    key: [u8; LONG_KEY],
    /// Bytes of the key that the client was given.
    key_length: AtomicU8,
    /// Role.
    pub role: Role,
    /// Database.
    pub database: Database,
    /// Door.
    pub protocol: Protocol,
    /// Address of the client.
    pub peer: Arc<str>,
    /// When it was opened.
    pub opened: Instant,
    /// The same in seconds of the registry's clock.
    pub(super) since_secs: u32,
    /// What it did.
    pub tally: Arc<Tally>,
    /// When it gives its connection back.
    pub mode: PoolingMode,
    /// Whether it is an administrator's console, which a drain leaves open.
    pub is_console: bool,
    application: Arc<Mutex<String>>,
    ends: Mutex<Ends>,
    /// What was shown instead of a password.
    grant: Option<Arc<Grant>>,
    /// What it had done when its counters were reset.
    pub(super) baseline: Mutex<Option<Box<Totals>>>,
    /// Leads a cancel request to the backend that the session holds.
    pub(super) slot: Arc<CancelSlot>,
    stop: AtomicU8,
    /// Second of the registry's clock since which it is idle; 0 = it is not.
    idle_since: AtomicU32,
    /// What that was when somebody looked last.
    idle_seen: AtomicU32,
    /// Second of that clock since which it does nothing within a transaction, and below it the
    /// number of its requests then; 0 = it does something, or is in none.
    rest_seen: AtomicU64,
    waker: AtomicWaker,
}

impl Entry {
    /// Whether the session must end now; if not, the task is woken when that changes.
    pub(super) fn must_stop(&self, cx: &Context<'_>, idle: bool, clock: &AtomicU32) -> bool {
        self.waker.register(cx.waker());
        let was_idle = self.idle_since.load(Ordering::Relaxed) != 0;
        if was_idle != idle {
            let since = if idle { clock.load(Ordering::Relaxed).max(1) } else { 0 };
            self.idle_since.store(since, Ordering::Relaxed);
        }
        match self.stop() {
            Stop::No => false,
            Stop::Kill | Stop::Now => true,
            // It began to work in the same moment.
            order @ Stop::Idle if !idle => self.withdraw(order),
            order @ Stop::InTransaction if !self.is_at_rest_in_transaction() => {
                self.withdraw(order)
            }
            Stop::InTransaction => true,
            Stop::Idle | Stop::Expired | Stop::Drain => idle,
        }
    }

    /// The order does not count any more, unless another one has come.
    fn withdraw(&self, order: Stop) -> bool {
        let no = Stop::No as u8;
        let _ = self.stop.compare_exchange(order as u8, no, Ordering::AcqRel, Ordering::Relaxed);
        false
    }

    fn is_at_rest_in_transaction(&self) -> bool {
        self.tally.transaction_since().is_some() && self.tally.request_since().is_none()
    }

    /// Since when its client does nothing within a transaction, as far as looks at it tell.
    pub(super) fn rests_in_transaction(&self, now_secs: u32) -> Option<u32> {
        if !self.is_at_rest_in_transaction() {
            self.rest_seen.store(0, Ordering::Relaxed);
            return None;
        }
        let requests = self.tally.totals().queries as u32;
        let seen = self.rest_seen.load(Ordering::Relaxed);
        let (since, before) = ((seen >> 32) as u32, seen as u32);
        if since != 0 && before == requests {
            return Some(since);
        }
        let now = u64::from(now_secs.max(1)) << 32 | u64::from(requests);
        self.rest_seen.store(now, Ordering::Relaxed);
        Some(now_secs)
    }

    /// Returns when it is time to see whether a client that waits for a connection is still there:
    /// each second, and when something is ordered.
    pub(super) async fn next_look(&self, clock: &AtomicU32) {
        let (began, order) = (clock.load(Ordering::Relaxed), self.stop());
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            match clock.load(Ordering::Relaxed) == began && self.stop() == order {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Number and key for BackendKeyData; the key is long for clients that can take it.
    pub(super) fn cancel_key(&self, long: bool) -> (u32, Vec<u8>) {
        let length = if long { LONG_KEY } else { SHORT_KEY };
        self.key_length.store(length as u8, Ordering::Release);
        (self.pid, self.key[..length].to_vec())
    }

    /// Whether this is the key, the whole key, that the client was given.
    fn has_key(&self, key: &[u8]) -> bool {
        let length = usize::from(self.key_length.load(Ordering::Acquire));
        bool::from(self.key[..length].ct_eq(key))
    }

    /// The client's application_name.
    pub fn application(&self) -> String {
        self.application.lock().clone()
    }

    /// Where the client's application_name is written down, for who sees it change.
    pub(super) fn application_cell(&self) -> Arc<Mutex<String>> {
        self.application.clone()
    }

    /// What is known of the client's connection.
    pub fn ends(&self) -> Ends {
        self.ends.lock().clone()
    }

    /// Says what is known of the client's connection.
    pub fn set_ends(&self, ends: Ends) {
        *self.ends.lock() = ends;
    }

    /// What its client has shown instead of a password.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_deref()
    }

    /// What keeps the session on its backend.
    pub fn pinned(&self) -> Option<&'static str> {
        Effects::from_bits(self.tally.pinned()).reason()
    }

    /// Since when it does nothing, in seconds of the registry's clock.
    pub fn idle_since(&self) -> Option<u32> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }

    /// Seconds that it did nothing, when that has ended since this was asked last; `gone` = it has
    /// ended itself.
    pub(super) fn rested(&self, now_secs: u32, gone: bool) -> Option<u32> {
        let since = if gone { 0 } else { self.idle_since.load(Ordering::Relaxed) };
        let before = self.idle_seen.swap(since, Ordering::Relaxed);
        let secs = now_secs.saturating_sub(before);
        (before != 0 && before != since && secs > 0).then_some(secs)
    }

    /// Leads to the backend that it holds, and tells how it waits.
    pub fn slot(&self) -> &Arc<CancelSlot> {
        &self.slot
    }

    /// Ends it at once with 57P01.
    pub fn kill(&self) {
        self.order(Stop::Kill);
    }

    /// Cancels what the session is doing.
    pub async fn cancel(&self) {
        self.slot.cancel().await;
    }

    /// What was ordered.
    pub fn stop(&self) -> Stop {
        Stop::from_u8(self.stop.load(Ordering::Acquire))
    }

    pub(super) fn order(&self, stop: Stop) {
        self.stop.fetch_max(stop as u8, Ordering::AcqRel);
        self.wake();
    }

    /// Has its task look at its orders.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

/// What an entry is made of.
pub(super) struct Newcomer {
    pub(super) role: Role,
    pub(super) database: Database,
    pub(super) protocol: Protocol,
    pub(super) peer: Arc<str>,
    pub(super) application: String,
    pub(super) mode: PoolingMode,
    pub(super) is_console: bool,
    pub(super) grant: Option<Arc<Grant>>,
}

/// A cancel request for a session of another process. Dropping it says that it is over.
#[derive(Debug)]
pub struct CancelElsewhere {
    /// Number.
    pub pid: u32,
    /// Key.
    pub key: Vec<u8>,
    _done: oneshot::Sender<()>,
}

/// The registry. Its size is bounded by the connection limits of the doors.
pub struct Sessions {
    pub(super) by_pid: Mutex<HashMap<u32, Arc<Entry>, RandomState>>,
    next_id: Mutex<u64>,
    /// Consoles among them.
    consoles: AtomicUsize,
    /// When the registry was made, by both clocks; all times of sessions count from here.
    pub(super) epoch: (Instant, SystemTime),
    /// What ended sessions did, and the averages.
    pub(super) statistics: Mutex<Statistics>,
    pub(super) holders_logged: Seldom,
    /// Leads to the process whose sockets this one took over, while that has sessions.
    elsewhere: Mutex<Option<mpsc::Sender<CancelElsewhere>>>,
    /// Seconds since start, moved by [`Sessions::sweep`], so that no session reads a clock.
    pub(super) clock: AtomicU32,
    pub(super) metrics: Arc<Metrics>,
}

impl Sessions {
    /// An empty registry.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            by_pid: Mutex::default(),
            next_id: Mutex::new(0),
            consoles: AtomicUsize::new(0),
            epoch: (Instant::now(), SystemTime::now()),
            statistics: Mutex::default(),
            holders_logged: Seldom::new(HOLDERS_EVERY),
            elsewhere: Mutex::default(),
            clock: AtomicU32::new(1),
            metrics,
        })
    }

    pub(super) fn register(&self, newcomer: Newcomer) -> Arc<Entry> {
        let Newcomer { role, database, protocol, peer, application, mode, is_console, grant } =
            newcomer;
        let id = {
            let mut next = self.next_id.lock();
            *next += 1;
            SessionId(*next)
        };
        let mut by_pid = self.by_pid.lock();
        let pid = loop {
            // Drivers read the number as a signed integer, and 0 as "no number".
            let pid = rand::random::<u32>() & 0x7fff_ffff;
            if pid != 0 && !by_pid.contains_key(&pid) {
                break pid;
            }
        };
        let whose = (role.clone(), database.clone());
        // From a generator that the operating system seeds: no system call for each session.
        let mut key = [0; LONG_KEY];
        rand::rng().fill_bytes(&mut key);
        let entry = Arc::new(Entry {
            id,
            pid,
            key,
            key_length: AtomicU8::new(SHORT_KEY as u8),
            role,
            database,
            protocol,
            peer,
            opened: Instant::now(),
            since_secs: self.clock.load(Ordering::Relaxed),
            tally: Arc::new(Tally::new(id.0, self.epoch.0, whose)),
            is_console,
            mode,
            application: Arc::new(Mutex::new(application)),
            ends: Mutex::default(),
            grant,
            baseline: Mutex::default(),
            slot: Arc::new(CancelSlot::default()),
            stop: AtomicU8::new(Stop::No as u8),
            idle_since: AtomicU32::new(0),
            idle_seen: AtomicU32::new(0),
            rest_seen: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        });
        by_pid.insert(pid, entry.clone());
        self.consoles.fetch_add(usize::from(is_console), Ordering::AcqRel);
        let metrics = self.metrics.protocol(protocol);
        metrics.sessions.inc();
        // Under the lock, so that nobody else raises it meanwhile.
        metrics.sessions_peak.set(metrics.sessions_peak.get().max(metrics.sessions.get()));
        metrics.sessions_created.inc();
        entry
    }

    pub(super) fn unregister(&self, entry: &Entry, ended: &'static str) {
        entry.tally.transaction_lost();
        {
            let mut by_pid = self.by_pid.lock();
            by_pid.remove(&entry.pid);
            // Under the same lock, so that a sum finds it in one of the two places.
            self.statistics.lock().retire(entry);
        }
        self.consoles.fetch_sub(usize::from(entry.is_console), Ordering::AcqRel);
        self.count_rest(entry, self.clock.load(Ordering::Relaxed), true);
        let life = entry.opened.elapsed();
        let metrics = self.metrics.protocol(entry.protocol);
        metrics.sessions.dec();
        metrics.session_lifetime.observe(life.as_secs_f64());
        self.metrics.session_terminated(entry.protocol, ended);
        if Stop::is_timeout(ended) {
            metrics.session_timeouts.inc();
        }
        self.log_end(entry, ended, life);
    }

    /// Carries out a CancelRequest; a wrong key does nothing, and says nothing.
    pub async fn cancel(&self, pid: u32, key: &[u8]) {
        let entry = self.by_pid.lock().get(&pid).cloned();
        match entry {
            Some(entry) if entry.has_key(key) => entry.slot.cancel().await,
            _ => self.cancel_elsewhere(pid, key).await,
        }
    }

    async fn cancel_elsewhere(&self, pid: u32, key: &[u8]) {
        let Some(elsewhere) = self.elsewhere.lock().clone() else { return };
        let (done, finished) = oneshot::channel();
        let request = CancelElsewhere { pid, key: key.to_vec(), _done: done };
        // One too many is dropped, as a request with a wrong key is.
        if elsewhere.try_send(request).is_ok() {
            let _ = tokio::time::timeout(ELSEWHERE_LIMIT, finished).await;
        }
    }

    /// From now on requests that are none of ours go there; `None` = nowhere.
    pub fn forward_cancels(&self, elsewhere: Option<mpsc::Sender<CancelElsewhere>>) {
        *self.elsewhere.lock() = elsewhere;
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_pid.lock().len()
    }

    /// Whether there is none, consoles aside.
    pub fn is_empty(&self) -> bool {
        self.len() <= self.consoles()
    }

    /// How many of them are consoles.
    pub fn consoles(&self) -> usize {
        self.consoles.load(Ordering::Acquire)
    }

    /// Sessions that hold a connection, by the process number of the backend.
    pub fn holders(&self) -> HashMap<u32, Arc<Entry>> {
        let by_pid = self.by_pid.lock();
        let held = |entry: &Arc<Entry>| Some((entry.slot.backend_pid()?, entry.clone()));
        by_pid.values().filter_map(held).collect()
    }

    /// Orders every session to stop. A drain leaves the consoles: they watch it.
    pub fn stop_all(&self, stop: Stop) {
        let spared = |entry: &&Arc<Entry>| entry.is_console && stop == Stop::Drain;
        let by_pid = self.by_pid.lock();
        by_pid.values().filter(|entry| !spared(entry)).for_each(|entry| entry.order(stop));
    }
}

#[cfg(test)]
mod tests {
    use super::super::TimeLimits;
    use super::*;

    fn registry() -> (Arc<Sessions>, Arc<Entry>) {
        let sessions = Sessions::new(Arc::new(Metrics::new()));
        let entry = sessions.register(Newcomer {
            role: "r".into(),
            database: "d".into(),
            protocol: Protocol::Postgres,
            peer: "local".into(),
            application: String::new(),
            mode: PoolingMode::Transaction,
            is_console: false,
            grant: None,
        });
        (sessions, entry)
    }

    #[test]
    fn a_part_of_the_key_is_not_the_key() {
        let (_, entry) = registry();
        let (_, short) = entry.cancel_key(false);
        assert!(entry.has_key(&short) && short.len() == SHORT_KEY);
        let (_, long) = entry.cancel_key(true);
        assert!(entry.has_key(&long) && long.len() == LONG_KEY);
        for wrong in [&short[..], &long[1..], b"", &[0; LONG_KEY]] {
            assert!(!entry.has_key(wrong));
        }
    }

    fn must_stop(sessions: &Sessions, entry: &Entry, idle: bool) -> bool {
        let cx = Context::from_waker(std::task::Waker::noop());
        entry.must_stop(&cx, idle, &sessions.clock)
    }

    #[test]
    fn times_without_work_are_told_once() {
        let (sessions, entry) = registry();
        let rested = |now, gone| {
            sessions.clock.store(now, Ordering::Relaxed);
            entry.rested(now, gone)
        };
        assert!(!must_stop(&sessions, &entry, true));
        assert_eq!((rested(5, false), rested(9, false)), (None, None));
        assert!(!must_stop(&sessions, &entry, false));
        assert_eq!((rested(10, false), rested(11, false)), (Some(9), None));
        assert!(!must_stop(&sessions, &entry, true));
        // Nobody looked in between.
        assert!(!must_stop(&sessions, &entry, false));
        assert_eq!(rested(12, false), None);
        assert!(!must_stop(&sessions, &entry, true));
        assert_eq!((rested(13, false), rested(20, true), rested(20, true)), (None, Some(8), None));
    }

    #[test]
    fn a_draining_session_ends_when_it_is_idle() {
        let (sessions, entry) = registry();
        assert!(!must_stop(&sessions, &entry, true));
        sessions.stop_all(Stop::Drain);
        assert!(!must_stop(&sessions, &entry, false));
        assert!(must_stop(&sessions, &entry, true));
        sessions.stop_all(Stop::Now);
        assert!(must_stop(&sessions, &entry, false));
    }

    #[test]
    fn the_idle_limit_spares_who_works() {
        let (sessions, entry) = registry();
        assert!(!must_stop(&sessions, &entry, true));
        let limits = TimeLimits { idle: Some(10), ..TimeLimits::default() };
        sessions.sweep(9, &limits);
        assert!(!must_stop(&sessions, &entry, true));
        sessions.sweep(11, &limits);
        assert!(!must_stop(&sessions, &entry, true));
        sessions.sweep(12, &limits);
        assert!(!must_stop(&sessions, &entry, false));
        assert!(!must_stop(&sessions, &entry, true));
        sessions.sweep(30, &limits);
        assert!(must_stop(&sessions, &entry, true));
        assert_eq!(entry.stop().error().sqlstate().as_str(), "57P05");
    }

    #[test]
    fn within_a_transaction_there_is_a_limit_of_its_own() {
        let (sessions, entry) = registry();
        let limits = TimeLimits { in_transaction: Some(10), ..TimeLimits::default() };
        let tally = &entry.tally;
        let request = |ended| {
            tally.request_begins(Instant::now());
            tally.request_ends(Duration::ZERO, ended);
        };
        let ends_at = |now| {
            sessions.sweep(now, &limits);
            must_stop(&sessions, &entry, false)
        };
        request(None);
        assert!(!ends_at(1) && !ends_at(9));
        // It was at work in between, and then begins another transaction.
        request(None);
        assert!(!ends_at(12) && !ends_at(22));
        request(Some(true));
        assert!(!ends_at(23));
        request(None);
        assert!(!ends_at(24) && !ends_at(34));
        // In the very moment.
        sessions.sweep(35, &limits);
        tally.request_begins(Instant::now());
        assert!(!must_stop(&sessions, &entry, false));
        assert_eq!(entry.stop(), Stop::No);
        tally.request_ends(Duration::ZERO, None);
        assert!(!ends_at(36) && !ends_at(46) && ends_at(47));
        assert_eq!(entry.stop().error().sqlstate().as_str(), "25P03");
        assert!(Stop::is_timeout(entry.stop().reason()));
    }

    #[test]
    fn a_life_ends_between_two_transactions() {
        let (sessions, entry) = registry();
        let limits = TimeLimits { life: Some(100), ..TimeLimits::default() };
        sessions.sweep(100, &limits);
        assert_eq!(entry.stop(), Stop::No);
        // A tenth later at most.
        sessions.sweep(112, &limits);
        assert!(!must_stop(&sessions, &entry, false) && must_stop(&sessions, &entry, true));
        assert_eq!(entry.stop().reason(), "max_lifetime");
    }
}
