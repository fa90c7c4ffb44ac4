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
//! being made (a slot), idle, lent, being cleaned.

mod inner;
mod reset;
mod steer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::auth::AccessChanges;
use crate::backend::{BackendConn, CancelKey, ConnectError, Connector, Credentials, Roster, Told};
use crate::config::Live;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::PoolMetrics;
pub use inner::LaneKey;
use inner::{Grant, Inner, Turn};
pub use steer::{Paused, ServerView, Waits};

/// First and longest pause between two attempts to reach PostgreSQL.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Which of the two pools: they differ in size and in nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Connections of the clients' roles.
    Main,
    /// Connections of the system role, for log-ins and health; never starved by clients.
    System,
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    kind: PoolKind,
    connector: Connector,
    config: Live,
    reset_timeout_ms: AtomicU64,
    changes: AccessChanges,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
    /// Sessions in the wait queue, to be read without the lock.
    waiting: AtomicU32,
    roster: Arc<Roster>,
    resumed: Notify,
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
        connector: Connector,
        config: Live,
        changes: AccessChanges,
        metrics: Arc<Metrics>,
    ) -> Self {
        let now = config.now();
        let pool = Self(Arc::new(Shared {
            kind,
            connector,
            config,
            reset_timeout_ms: AtomicU64::new(0),
            inner: Mutex::new(Inner::new(0, 0)),
            roster: Arc::default(),
            resumed: Notify::new(),
            changes,
            metrics,
            waiting: AtomicU32::new(0),
        }));
        pool.resize(&now);
        pool
    }

    /// Borrows a connection: an idle one, a new one, or the next that is released.
    ///
    /// # Errors
    /// `53300` when the wait queue is full or the wait took longer than `acquire_timeout_secs`;
    /// `57P03` when PostgreSQL is out of reach; what PostgreSQL said when it refused.
    pub async fn acquire(&self, demand: &Demand, slot: &Arc<CancelSlot>) -> Result<Lease> {
        let begun = Instant::now();
        let result = self.acquire_conn(demand, slot).await;
        let metrics = self.0.metrics();
        match result {
            Ok(conn) => {
                metrics.acquire_duration.observe(begun.elapsed().as_secs_f64());
                Ok(self.lend(Box::new(conn), demand, slot))
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

    /// Borrows a connection if one is idle; nobody is overtaken.
    pub fn try_acquire(&self, demand: &Demand, slot: &Arc<CancelSlot>) -> Option<Lease> {
        let worker = thread::current().id();
        loop {
            let (from, conn) = self.0.inner.lock().take_idle_of(&demand.lane, worker)?;
            match self.ready(conn, from, worker) {
                Some(conn) => {
                    self.0.metrics().acquire_duration.observe(0.0);
                    return Some(self.lend(conn, demand, slot));
                }
                None => self.0.give_back_room("lost"),
            }
        }
    }

    fn lend(&self, conn: Box<BackendConn>, demand: &Demand, slot: &Arc<CancelSlot>) -> Lease {
        let metrics = self.0.metrics();
        metrics.acquired.inc();
        metrics.active.inc();
        slot.set(Some(conn.cancel.clone()));
        Lease {
            conn: Some(conn),
            used: false,
            pool: self.clone(),
            worker: thread::current().id(),
            slot: slot.clone(),
            lane: demand.lane.clone(),
        }
    }

    /// Whether sessions wait for a connection.
    pub fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    async fn acquire_conn(&self, demand: &Demand, slot: &CancelSlot) -> Result<BackendConn> {
        let shared = &self.0;
        let worker = thread::current().id();
        loop {
            let turn = shared.inner.lock().turn(&demand.lane, worker);
            shared.report();
            let grant = match turn {
                Turn::Now(grant) => grant,
                Turn::Evict(old) => {
                    shared.metrics().destroyed("evicted");
                    tokio::spawn(old.close());
                    Grant::Room
                }
                Turn::Full => return Err(shared.queue_full()),
                Turn::Paused => {
                    let _wait = slot.waits.begin();
                    shared.until_resumed(demand.lane.database()).await;
                    Grant::Again
                }
                Turn::Wait(ticket, receiver) => {
                    let _wanted = Wanted::new(&shared.waiting);
                    let _wait = slot.waits.begin();
                    let mut waiting = Waiting { pool: self, ticket, receiver, demand };
                    let limit = shared.config.now().pool.acquire_timeout_secs.duration();
                    match tokio::time::timeout(limit, &mut waiting.receiver).await {
                        Ok(Ok(grant)) => grant,
                        Ok(Err(_)) => return Err(stopping()),
                        Err(_) => return Err(shared.waited_too_long()),
                    }
                }
                Turn::Closed => return Err(stopping()),
            };
            match grant {
                Grant::Again => {}
                Grant::Room => return self.create(demand).await,
                Grant::Conn(from, conn) => match self.ready(conn, from, worker) {
                    Some(conn) => return Ok(*conn),
                    // It died while it was idle; its room is free again, so ask again.
                    None => shared.give_back_room("lost"),
                },
            }
        }
    }

    /// Takes an idle connection to the calling thread and looks whether it is still good.
    fn ready(
        &self,
        mut conn: Box<BackendConn>,
        from: ThreadId,
        to: ThreadId,
    ) -> Option<Box<BackendConn>> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if conn.changes != self.0.changes.count() || !conn.absorb_idle(&mut cx) {
            return None;
        }
        if from != to {
            conn = Box::new(conn.rebind().ok()?);
            // The new event loop knows nothing yet of what the kernel knows.
            return (!conn.has_input()).then_some(conn);
        }
        Some(conn)
    }

    async fn create(&self, demand: &Demand) -> Result<BackendConn> {
        let mut room = Room { shared: &self.0, held: true };
        let limit = self.0.config.now().backend.connect_timeout_secs.duration();
        let deadline = Instant::now() + limit;
        let (role, database) = (demand.lane.role(), demand.lane.database());
        let ticket = self.0.roster.enter(role.into(), database.into());
        let mut pause = RETRY.0;
        loop {
            let changes = self.0.changes.count();
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = self.0.connector.connect(demand.lane.parameters(), &demand.credentials);
            match tokio::time::timeout(left.max(Duration::from_millis(1)), attempt).await {
                Ok(Ok(mut conn)) => {
                    room.held = false;
                    conn.changes = changes;
                    ticket.logged_in(conn.cancel.pid);
                    conn.ticket = Some(ticket);
                    self.0.metrics().created.inc();
                    self.0.inner.lock().learn(&demand.lane, &conn);
                    return Ok(conn);
                }
                Ok(Err(ConnectError::Refused(error))) => return Err(error),
                Ok(Err(ConnectError::Unavailable(error))) => {
                    if Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                }
                Err(_) => {
                    return Err(Error::new(
                        ErrorKind::ServiceUnavailable,
                        "PostgreSQL did not answer in time",
                    )
                    .with_hint("backend.connect_timeout_secs bounds the wait; try again"));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// The parameters that PostgreSQL reports in this lane, when a connection of it was made
    /// before: enough to greet a client without borrowing a connection.
    pub fn parameters(&self, lane: &Arc<LaneKey>) -> Option<Arc<Told>> {
        let changes = self.0.changes.count();
        self.0.inner.lock().parameters(lane, changes)
    }

    /// Closes what is idle. PostgreSQL refuses to drop, rename or copy a database that somebody is
    /// connected to, and a client does not know of our connections.
    pub fn close_idle(&self) {
        let idle = self.0.inner.lock().take_idle();
        for conn in idle {
            self.0.give_back_room("database_change");
            tokio::spawn(conn.close());
        }
    }

    /// Closes connections that are too old or idle for too long; runs every
    /// `maintenance_interval_secs`.
    pub fn maintain(&self) {
        let (now, config) = (Instant::now(), self.0.config.now());
        let idle = config.pool.idle_timeout_secs.map(|s| s.duration());
        let life = config.pool.max_lifetime_secs.map(|s| s.duration());
        let retired = self.0.inner.lock().retire(now, idle, life);
        for (reason, conn) in retired {
            self.0.give_back_room(reason);
            tokio::spawn(conn.close());
        }
        self.0.report();
    }

    /// Sends waiters away and closes what is idle; lent connections close on their return.
    pub fn close(&self) {
        let idle = self.0.inner.lock().close();
        self.drain();
        for conn in idle {
            self.0.give_back_room("drain");
            tokio::spawn(conn.close());
        }
        self.0.report();
    }

    /// Connections in all, and whether somebody waits.
    pub fn load(&self) -> (usize, usize) {
        let inner = self.0.inner.lock();
        (inner.total(), inner.waiting())
    }
}

impl Shared {
    fn metrics(&self) -> &PoolMetrics {
        match self.kind {
            PoolKind::Main => &self.metrics.main_pool,
            PoolKind::System => &self.metrics.system_pool,
        }
    }

    fn report(&self) {
        let (total, idle, waiting) = {
            let inner = self.inner.lock();
            (inner.total(), inner.idle(), inner.waiting())
        };
        let metrics = self.metrics();
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.total.set(gauge(total));
        metrics.idle.set(gauge(idle));
        metrics.waiters.set(gauge(waiting));
    }

    /// A connection is gone: its room goes to the first waiter.
    fn give_back_room(&self, reason: &str) {
        self.metrics().destroyed(reason);
        self.inner.lock().room_freed();
        self.report();
    }

    fn queue_full(&self) -> Error {
        let n = self.config.now().pool.max_wait_queue_size;
        Error::new(
            ErrorKind::PoolExhausted,
            format!("all connections are in use and {n} sessions wait already"),
        )
        .with_hint("raise pool.max_size or pool.max_wait_queue_size, or try again later")
    }

    fn waited_too_long(&self) -> Error {
        let secs = self.config.now().pool.acquire_timeout_secs.0;
        Error::new(ErrorKind::PoolExhausted, format!("no connection was free within {secs} s"))
            .with_detail("acquire timeout")
            .with_hint("raise pool.max_size or pool.acquire_timeout_secs, or try again later")
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
        match self.receiver.try_recv() {
            Ok(Grant::Conn(worker, conn)) => {
                let lane = self.demand.lane.clone();
                if shared.inner.lock().put_back(lane, worker, conn).is_some() {
                    shared.give_back_room("made_room");
                }
            }
            Ok(Grant::Room) => shared.inner.lock().room_freed(),
            Ok(Grant::Again) | Err(_) => {}
        }
        shared.report();
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

/// The right to make a connection, given back unless one was made.
struct Room<'a> {
    shared: &'a Shared,
    held: bool,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.held {
            self.shared.inner.lock().room_freed();
            self.shared.report();
        }
    }
}

/// What a session's cancel key leads to: the backend that it holds at this moment.
///
/// A connection whose cancel request is still under way must not reach another session, or the
/// request would stop the wrong statement; its release waits for that.
#[derive(Debug, Default)]
pub struct CancelSlot {
    target: Mutex<Option<Arc<CancelKey>>>,
    under_way: AtomicU32,
    finished: Notify,
    /// Told when there is no connection to cancel on.
    in_vain: Notify,
    waits: Waits,
}

impl CancelSlot {
    fn set(&self, target: Option<Arc<CancelKey>>) {
        *self.target.lock() = target;
    }

    /// Returns when a cancel request comes while there is no connection.
    pub async fn cancelled_in_vain(&self) {
        self.in_vain.notified().await;
    }

    fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Cancels what the session's backend is doing; does nothing when it holds none.
    pub async fn cancel(&self) {
        let target = {
            let target = self.target.lock();
            let Some(target) = target.clone() else {
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
    async fn quiet(&self) {
        loop {
            let finished = self.finished.notified();
            if self.is_quiet() {
                return;
            }
            finished.await;
        }
    }
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
        let Some(conn) = self.conn.take() else { return };
        self.slot.set(None);
        self.pool.0.metrics().active.dec();
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
        self.pool.0.metrics().active.dec();
        self.pool.0.give_back_room("spoiled");
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(conn.close());
        }
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
        self.pool.0.metrics().active.dec();
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
