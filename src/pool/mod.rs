//! The one pool: connections to PostgreSQL, kept in lanes, lent to sessions.
//!
//! A *lane* is what makes connections interchangeable: database, role and start-up parameters.
//! `max_size` counts over all lanes. Who finds nothing idle and no room waits in one queue, first
//! come, first served; an idle connection of another lane is closed to make room.
//!
//! Each worker thread has its own event loop, and a connection is registered with the one of the
//! thread that used it last; that thread gets it first, and another one moves it.
//!
//! Every connection is in exactly one of these states, and the total is the sum of them:
//! being made (a slot), idle, parked, lent, being cleaned.

mod ceilings;
pub mod classes;
mod create;
mod creation;
mod inner;
mod parked;
mod pooled;
mod reset;
mod sizing;
mod steer;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::auth::AccessChanges;
use crate::backend::{BackendConn, CancelKey, Credentials, Roster, Servers, Told};
use crate::config::{self, Config, Live, RecyclingStrategy};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::Metrics;
use crate::telemetry::pool::PoolMetrics;
use creation::Gates;
pub use inner::LaneKey;
use inner::{Grant, Inner, Turn};
pub use parked::Kept;
pub use pooled::{Borrowed, ClassView, Found, Hold};
use sizing::Policy;
pub use steer::{Counts, Paused, ServerView, Waits};

/// Which of the two pools: they differ in size and in nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Connections of the clients' roles.
    Main,
    /// Connections of the system role, for log-ins and health; never starved by clients.
    System,
}

impl PoolKind {
    /// Size and limits.
    fn shape(self, config: &Config) -> (Policy, Gates) {
        let pool = &config.pool;
        match self {
            PoolKind::Main => {
                let sizing = config.sizing.clone();
                let policy = Policy { min_size: pool.min_size, max_size: pool.max_size, sizing };
                (policy, Gates::new(pool))
            }
            PoolKind::System => {
                let sizing = config::Sizing::default();
                let policy = Policy { min_size: 1, max_size: pool.reserved_size, sizing };
                (policy, Gates::default())
            }
        }
    }

    /// Time that a session waits for a PostgreSQL that is out of reach.
    fn failover_wait(self, config: &Config) -> Duration {
        let wait = config.backend.failover_wait_secs.duration();
        match self {
            PoolKind::Main => wait,
            // Early enough for a log-in to be told why it failed.
            PoolKind::System => wait.min(config.network.connection_timeout_secs.duration() / 2),
        }
    }
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    kind: PoolKind,
    servers: Servers,
    config: Live,
    reset_timeout_ms: AtomicU64,
    /// [`RecyclingStrategy`], to be read without the configuration.
    recycling: AtomicU8,
    changes: AccessChanges,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
    roster: Arc<Roster>,
    resumed: Notify,
    /// Sessions in the wait queue, to be read without the lock.
    waiting: AtomicU32,
    /// Told when a connection was parked, or was not.
    parked: Notify,
    /// Places for pooled sessions that are held, where their number is limited.
    places: Option<Arc<Semaphore>>,
    /// Sessions that wait for such a place.
    waiting_for_place: AtomicU32,
}

/// What a session asks for.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Database, role, parameters.
    pub lane: Arc<LaneKey>,
    /// How to log in when a connection has to be made.
    pub credentials: Credentials,
}

impl Pool {
    /// An empty pool.
    pub fn new(
        kind: PoolKind,
        servers: Servers,
        live: Live,
        changes: AccessChanges,
        metrics: Arc<Metrics>,
    ) -> Self {
        let config = live.now();
        let (policy, gates) = kind.shape(&config);
        let made = Self(Arc::new(Shared {
            kind,
            servers,
            inner: Mutex::new(Inner::new(policy, gates, &config)),
            config: live,
            reset_timeout_ms: AtomicU64::new(0),
            recycling: AtomicU8::new(0),
            roster: Arc::default(),
            resumed: Notify::new(),
            changes,
            metrics,
            waiting: AtomicU32::new(0),
            parked: Notify::new(),
            places: config.drcp.max_size.map(|most| Arc::new(Semaphore::new(most))),
            waiting_for_place: AtomicU32::new(0),
        }));
        made.0.set_returns(&config.pool);
        made
    }

    /// Borrows a connection: an idle one, a new one, or the next that is released.
    ///
    /// # Errors
    /// `53300` when the wait queue is full or the wait took longer than `acquire_timeout_secs`;
    /// `57P03` when PostgreSQL is out of reach for `failover_wait_secs`; what PostgreSQL said when
    /// it refused.
    pub async fn acquire(&self, demand: &Demand, slot: &Arc<CancelSlot>) -> Result<Lease> {
        let begun = Instant::now();
        let result = self.acquire_conn(demand, slot).await;
        let metrics = self.0.metrics();
        match result {
            Ok(conn) => {
                metrics.acquired_after(begun.elapsed());
                Ok(self.lend(conn, demand, slot, thread::current().id()))
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::PoolExhausted if error.detail().is_some() => {
                        metrics.acquire_timeout.inc();
                    }
                    ErrorKind::PoolExhausted => metrics.acquire_rejected.inc(),
                    _ => metrics.acquire_failed.inc(),
                }
                Err(error)
            }
        }
    }

    /// Borrows a connection if one is idle and needs no check; nobody is overtaken.
    pub fn try_acquire(&self, demand: &Demand, slot: &Arc<CancelSlot>) -> Option<Lease> {
        let worker = thread::current().id();
        loop {
            let (from, conn) = self.0.inner.lock().take_fresh(&demand.lane, worker)?;
            if let Some(conn) = self.ready(conn, from, worker) {
                self.0.metrics().acquire_duration.observe(0.0);
                return Some(self.lend(conn, demand, slot, worker));
            }
        }
    }

    fn lend(
        &self,
        conn: Box<BackendConn>,
        demand: &Demand,
        slot: &Arc<CancelSlot>,
        worker: ThreadId,
    ) -> Lease {
        self.0.metrics().acquired.inc();
        if let Some(ticket) = &conn.ticket {
            ticket.lent();
        }
        slot.set(Some(conn.cancel.clone()));
        Lease {
            conn: Some(conn),
            used: false,
            pool: self.clone(),
            worker,
            slot: slot.clone(),
            lane: demand.lane.clone(),
        }
    }

    /// Whether sessions wait for a connection.
    pub fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    async fn acquire_conn(&self, demand: &Demand, slot: &CancelSlot) -> Result<Box<BackendConn>> {
        let worker = thread::current().id();
        loop {
            let turn = self.0.inner.lock().turn(demand, worker);
            let lent = match turn {
                Turn::Now(lent) => lent,
                Turn::Full => return Err(self.queue_full(&demand.lane)),
                Turn::Paused => {
                    let _wait = slot.waits.begin();
                    self.0.until_resumed(demand.lane.database()).await;
                    continue;
                }
                Turn::Wait(ticket, receiver) => {
                    let _wait = slot.waits.begin();
                    let _wanted = Wanted::new(&self.0.waiting);
                    let mut waiting = Waiting { pool: self, ticket, receiver, demand };
                    self.displace_for(&demand.lane);
                    self.pump();
                    match self.wait(&mut waiting.receiver, demand).await? {
                        Grant::Conn(lent) => lent,
                        Grant::Again => continue,
                        Grant::Refused(error) => return Err(error),
                    }
                }
                Turn::Closed => return Err(stopping()),
            };
            // It may have died while it was idle; then its room is free again, so ask again.
            let Some(conn) = self.ready(lent.conn, lent.worker, worker) else { continue };
            match lent.stale_since {
                None => return Ok(conn),
                Some(since) => {
                    if let Some(conn) = self.checked(conn, since, &demand.lane).await {
                        return Ok(conn);
                    }
                }
            }
        }
    }

    /// The parameters that PostgreSQL reports in this lane, when a connection of it was made
    /// before: enough to greet a client without borrowing a connection.
    pub fn parameters(&self, lane: &LaneKey) -> Option<(Arc<LaneKey>, Arc<Told>)> {
        let changes = self.0.changes.count();
        self.0.inner.lock().parameters(lane, changes)
    }

    /// Closes what is idle. PostgreSQL refuses to drop, rename or copy a database that somebody is
    /// connected to, and a client does not know of our connections.
    pub fn close_idle(&self) {
        let idle = self.0.inner.lock().take_idle();
        idle.into_iter().for_each(|conn| self.part("database_change", conn));
    }

    /// Sends waiters away and closes what is idle; lent connections close on their return.
    pub fn close(&self) {
        let idle = self.0.inner.lock().close();
        self.drain();
        idle.into_iter().for_each(|conn| self.part("drain", conn));
        self.report();
    }

    /// Connections in all, and whether somebody waits.
    pub fn load(&self) -> (usize, usize) {
        let inner = self.0.inner.lock();
        (inner.total(), inner.waiting())
    }
}

impl Shared {
    /// The configuration in force, for what is not on the way of a statement.
    fn config(&self) -> Arc<Config> {
        self.config.now()
    }

    fn metrics(&self) -> &PoolMetrics {
        match self.kind {
            PoolKind::Main => &self.metrics.main_pool,
            PoolKind::System => &self.metrics.system_pool,
        }
    }
}

fn stopping() -> Error {
    Error::new(ErrorKind::ShuttingDown, "the server is shutting down")
}

/// A place in the wait queue. Dropping it, because the session went away or waited too long,
/// leaves the queue; what was granted in the same moment goes to the next.
struct Waiting<'a> {
    pool: &'a Pool,
    ticket: u64,
    receiver: oneshot::Receiver<Grant>,
    demand: &'a Demand,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let shared = &self.pool.0;
        shared.inner.lock().leave(self.ticket);
        self.receiver.close();
        if let Ok(Grant::Conn(lent)) = self.receiver.try_recv() {
            self.pool.give(self.demand.lane.clone(), lent.worker, lent.conn);
        }
    }
}

/// One more that waits, until it is dropped.
struct Wanted<'a>(&'a AtomicU32);

impl<'a> Wanted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a session's cancel key leads to: the backend that it holds at this moment.
///
/// A connection whose cancel request is still under way must not reach another session, or the
/// request would stop the wrong statement; its release waits for that.
#[derive(Debug, Default)]
pub struct CancelSlot {
    target: Mutex<Target>,
    under_way: AtomicU32,
    finished: Notify,
    /// Told when there is no connection to cancel on.
    in_vain: Notify,
    waits: Waits,
}

impl CancelSlot {
    fn set(&self, key: Option<Arc<CancelKey>>) {
        *self.target.lock() = Target { key, hidden: false, deferred: false };
    }

    /// From now on, cancel requests wait: the connection runs a statement of our own.
    pub fn hide(&self) {
        self.target.lock().hidden = true;
    }

    /// Cancel requests go through again; one that came in between is carried out now.
    pub fn show(self: &Arc<Self>) {
        let deferred = {
            let mut target = self.target.lock();
            target.hidden = false;
            std::mem::take(&mut target.deferred)
        };
        if let (true, Ok(runtime)) = (deferred, tokio::runtime::Handle::try_current()) {
            let slot = self.clone();
            runtime.spawn(async move { slot.cancel().await });
        }
    }

    /// Whether a cancel request waits.
    pub fn is_deferred(&self) -> bool {
        self.target.lock().deferred
    }

    /// Returns when no cancel request is under way, and forgets those that came while the
    /// session had nothing to cancel.
    pub async fn shown_idle(&self) {
        {
            let mut target = self.target.lock();
            (target.hidden, target.deferred) = (false, false);
        }
        self.quiet().await;
    }

    /// Returns when a cancel request comes while there is no connection.
    pub async fn cancelled_in_vain(&self) {
        self.in_vain.notified().await;
    }

    fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Process number of the backend that the session holds.
    pub fn backend_pid(&self) -> Option<u32> {
        self.target.lock().key.as_ref().map(|key| key.pid)
    }

    /// Cancels what the session's backend is doing; does nothing when it holds none.
    pub async fn cancel(&self) {
        let target = {
            let mut target = self.target.lock();
            if target.hidden {
                target.deferred = true;
                return;
            }
            let Some(target) = target.key.clone() else {
                // Only a session that waits for a connection listens.
                self.in_vain.notify_waiters();
                return;
            };
            // Under the lock, so that a release sees either no request or this one.
            self.under_way.fetch_add(1, Ordering::AcqRel);
            target
        };
        let _done = CancelDone(self);
        if let Err(e) = target.send().await {
            tracing::warn!(error = %e, "a cancel request did not reach PostgreSQL");
        }
    }

    /// Returns when no cancel request is under way.
    pub async fn quiet(&self) {
        loop {
            let finished = self.finished.notified();
            if self.is_quiet() {
                return;
            }
            finished.await;
        }
    }
}

/// Where a cancel request goes.
#[derive(Debug, Default)]
struct Target {
    key: Option<Arc<CancelKey>>,
    /// The connection runs a statement of our own, which nobody may cancel.
    hidden: bool,
    /// A request came in the meantime.
    deferred: bool,
}

struct CancelDone<'a>(&'a CancelSlot);

impl Drop for CancelDone<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.finished.notify_waiters();
    }
}

/// A borrowed connection. Dropping it gives the connection back: cleaned for the next session
/// when it is between requests, cancelled and closed when it is not.
pub struct Lease {
    conn: Option<Box<BackendConn>>,
    used: bool,
    pool: Pool,
    worker: ThreadId,
    slot: Arc<CancelSlot>,
    lane: Arc<LaneKey>,
}

impl Lease {
    /// Gives the connection back between two transactions. What the session left on it is known
    /// ([`crate::backend::ConnState`]), so the next one of the lane can take it as it is.
    pub fn release(mut self) {
        if self.conn.as_ref().is_some_and(|conn| conn.state.spoiled) {
            return self.retire();
        }
        match self.pool.0.recycling() {
            RecyclingStrategy::Adaptive => {}
            RecyclingStrategy::Checked | RecyclingStrategy::Replace => {
                // As one whose state is not known.
                self.used = true;
                return;
            }
        }
        let Some(conn) = self.conn.take() else { return };
        self.slot.set(None);
        let back = reset::Return {
            conn,
            used: false,
            worker: self.worker,
            slot: self.slot.clone(),
            lane: self.lane.clone(),
        };
        match self.slot.is_quiet() {
            true => self.pool.keep(back),
            false => self.pool.keep_when_quiet(back),
        }
    }

    /// Closes the connection instead of giving it back.
    pub fn retire(mut self) {
        let Some(conn) = self.conn.take() else { return };
        self.slot.set(None);
        self.pool.part("spoiled", *conn);
    }

    /// The connection, from now on dirty.
    pub fn conn(&mut self) -> &mut BackendConn {
        self.used = true;
        match &mut self.conn {
            Some(conn) => conn,
            // Only `drop` takes it out.
            None => unreachable!("a lease has its connection until it is dropped"),
        }
    }

    /// Parameters that PostgreSQL reports.
    pub fn parameters(&self) -> &[(String, String)] {
        self.conn.as_ref().map_or(&[], |conn| &conn.state.parameters)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        self.slot.set(None);
        let back = reset::Return {
            conn,
            used: self.used,
            worker: self.worker,
            slot: self.slot.clone(),
            lane: self.lane.clone(),
        };
        self.pool.take_back(back);
    }
}
