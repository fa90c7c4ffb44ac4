//! Connections are made here, by tasks of their own; sessions wait for what comes first.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::creation::{Failure, Next, Order, Why};
use super::inner::{Grant, LaneKey};
use super::{Demand, Pool, PoolKind, stopping};
use crate::auth::scram::random_bytes;
use crate::backend::{BackendConn, ConnectError};
use crate::error::{Error, ErrorKind, Result};

/// How often a client that has waited for long enough is told of what has changed.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl Pool {
    /// Begins every creation that may begin now.
    pub(super) fn pump(&self) {
        // At process exit there is no event loop any more.
        let Ok(runtime) = Handle::try_current() else { return };
        loop {
            let changes = self.0.changes.count();
            let next = self.0.inner.lock().next_creation(Instant::now(), changes);
            match next {
                Next::Nothing => return,
                Next::Create(order) => {
                    runtime.spawn(Creating { pool: self.clone(), order, ended: false }.run());
                }
                Next::Later { at, why } => {
                    if why == Why::Throttled {
                        self.0.metrics().creation_throttled.inc();
                    }
                    let alarm = Alarm(self.clone(), why, at);
                    runtime.spawn(async move {
                        tokio::time::sleep_until(at.into()).await;
                        let pool = alarm.0.clone();
                        drop(alarm);
                        pool.pump();
                    });
                    return;
                }
            }
        }
    }

    /// A connection is clean, or new: it is handed to who waits, kept, or closed.
    pub(super) fn give(&self, lane: Arc<LaneKey>, worker: ThreadId, conn: Box<BackendConn>) {
        if let Some(ticket) = &conn.ticket {
            ticket.show_cached(&conn.state.statements);
        }
        let refused = {
            let mut inner = self.0.inner.lock();
            let refused = inner.put_back(lane, worker, conn);
            refused.map(|conn| (if inner.is_worn(&conn) { "max_uses" } else { "made_room" }, conn))
        };
        if let Some((reason, conn)) = refused {
            self.part(reason, conn);
        }
    }

    /// Closes a connection with a goodbye; its room goes to who waits.
    pub(super) fn part(&self, reason: &str, mut conn: BackendConn) {
        let created = conn.created;
        // Before the goodbye, so that its room is there when it is given away.
        conn.permits.clear();
        say_goodbye(conn);
        self.gone(reason, created);
    }

    /// Closes a connection of which nothing is known any more.
    pub(super) fn cut(&self, reason: &str, conn: BackendConn) {
        let created = conn.created;
        drop(conn);
        self.gone(reason, created);
    }

    /// A connection does not exist any more; its room goes to who waits.
    pub(super) fn gone(&self, reason: &str, created: Instant) {
        self.0.metrics().destroyed(reason, created.elapsed());
        self.0.inner.lock().room_freed();
        self.pump();
    }

    /// Waits for a place in the queue to be served.
    pub(super) async fn wait(
        &self,
        receiver: &mut oneshot::Receiver<Grant>,
        demand: &Demand,
    ) -> Result<Grant> {
        let begun = Instant::now();
        let config = self.0.config();
        let patience = Patience {
            acquire: config.pool.acquire_timeout_secs.duration(),
            outage: self.0.kind.failover_wait(&config),
        };
        let mut until = patience.acquire.min(patience.outage);
        loop {
            let left = until.saturating_sub(begun.elapsed());
            if let Ok(granted) = tokio::time::timeout(left, &mut *receiver).await {
                self.0.metrics().wait_duration.observe(begun.elapsed().as_secs_f64());
                return granted.map_err(|_| stopping());
            }
            let is_away = self.is_out_of_reach();
            match patience.next_look(begun.elapsed(), is_away) {
                Some(at) => until = at,
                None if is_away => return Err(self.out_of_reach()),
                None => return Err(self.waited_too_long(&demand.lane)),
            }
        }
    }

    /// Whether the last attempt to make a connection found no PostgreSQL, or no primary.
    pub fn is_out_of_reach(&self) -> bool {
        self.0.inner.lock().creations.outage().is_some()
    }

    pub(super) fn queue_full(&self, lane: &LaneKey) -> Error {
        let waiting = self.0.config().pool.max_wait_queue_size;
        let (limit, hint) = self.exhausted(lane);
        let text = format!(
            "all connections are in use ({limit}), and {waiting} sessions wait already \
             (pool.max_wait_queue_size)"
        );
        Error::new(ErrorKind::PoolExhausted, text)
            .with_hint(format!("{hint} or pool.max_wait_queue_size, or try again later"))
    }

    /// The limit that keeps this lane from getting one more connection, and what to do.
    fn exhausted(&self, lane: &LaneKey) -> (String, &'static str) {
        let inner = self.0.inner.lock();
        let theirs = inner.creations.ceilings.words(lane, Instant::now());
        match (inner.gates.shut(lane), theirs) {
            (Some(shut), _) => (shut, "raise it"),
            (None, Some((words, hint))) => (words.to_owned(), hint),
            (None, None) => {
                (format!("{} is {}", self.size_key(), inner.policy.max_size), "raise it")
            }
        }
    }

    fn waited_too_long(&self, lane: &LaneKey) -> Error {
        let secs = self.0.config().pool.acquire_timeout_secs.0;
        let (limit, hint) = self.exhausted(lane);
        let text = format!("no connection was free within {secs} s: {limit}");
        Error::new(ErrorKind::PoolExhausted, text)
            .with_detail("acquire timeout")
            .with_hint(format!("{hint} or pool.acquire_timeout_secs, or try again later"))
    }

    fn out_of_reach(&self) -> Error {
        let secs = self.0.kind.failover_wait(&self.0.config()).as_secs();
        Error::new(ErrorKind::ServiceUnavailable, "PostgreSQL cannot be reached")
            .with_detail(format!("no connection could be made within {secs} s"))
            .with_hint("it is starting, restarting or stopped, or has no primary; try again")
    }

    fn size_key(&self) -> &'static str {
        match self.0.kind {
            PoolKind::Main => "pool.max_size",
            PoolKind::System => "pool.reserved_size",
        }
    }
}

fn say_goodbye(conn: BackendConn) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(conn.close());
    }
}

/// How long a session waits, while PostgreSQL is there and while it is not.
struct Patience {
    acquire: Duration,
    outage: Duration,
}

impl Patience {
    /// When a session that has waited for so long looks again; `None` = it gives up.
    fn next_look(&self, waited: Duration, is_away: bool) -> Option<Duration> {
        let limit = if is_away { self.outage } else { self.acquire };
        (waited < limit).then(|| (waited + SECOND_LOOK).min(limit))
    }
}

/// Somebody who will wake the pool; when it goes, another is needed.
struct Alarm(Pool, Why, Instant);

impl Drop for Alarm {
    fn drop(&mut self) {
        // No pumping here: an event loop that is shutting down drops what it is given at once.
        self.0.0.inner.lock().wake(self.1, self.2);
    }
}

/// A creation under way. Dropping it gives its room back.
struct Creating {
    pool: Pool,
    order: Box<Order>,
    ended: bool,
}

impl Creating {
    async fn run(self) {
        let pool = self.pool.clone();
        self.make().await;
        pool.pump();
    }

    async fn make(mut self) {
        let shared = self.pool.0.clone();
        if let Some(old) = self.order.evicted.take() {
            // Its room is the new one's.
            shared.metrics().destroyed("evicted", old.created.elapsed());
            match self.order.is_tight {
                true => old.close_and_wait().await,
                false => say_goodbye(old),
            }
        }
        let changes = shared.changes.count();
        let demand = self.order.demand.clone();
        let (role, database) = (demand.lane.role(), demand.lane.database());
        let ticket = shared.roster.enter(role.into(), database.into());
        match shared.servers.connect(demand.lane.parameters(), &demand.credentials).await {
            Ok(mut conn) => {
                self.ended = true;
                conn.changes = changes;
                ticket.logged_in(conn.cancel.pid, conn.reached());
                conn.state.statements.count_with(shared.metrics().statement_cache.clone());
                conn.ticket = Some(ticket);
                conn.permits = std::mem::take(&mut self.order.permits);
                shared.metrics().created.inc();
                let was_away = {
                    let mut inner = shared.inner.lock();
                    let was_away = inner.creations.outage();
                    inner.created(&demand, &conn);
                    was_away
                };
                if let Some(since) = was_away {
                    let secs = since.elapsed().as_secs_f64();
                    tracing::info!(secs, "PostgreSQL can be reached again");
                }
                self.pool.give(demand.lane, thread::current().id(), Box::new(conn));
                shared.inner.lock().made_for(self.order.ticket);
            }
            Err(error) => {
                shared.metrics().connection_errors.inc();
                let failure = match error {
                    ConnectError::Unavailable(error) => {
                        self.fail(Failure::Unavailable, Some(&error));
                        return;
                    }
                    ConnectError::Full(error, limit) => Failure::Full(error, limit),
                    ConnectError::Refused(error) => Failure::Refused(error),
                };
                self.fail(failure, None);
            }
        }
    }

    fn fail(&mut self, failure: Failure, error: Option<&Error>) {
        self.ended = true;
        self.order.permits.clear();
        let [random] = random_bytes();
        let mut inner = self.pool.0.inner.lock();
        let is_new = inner.not_created(&self.order, failure, Instant::now(), random);
        drop(inner);
        if let Some(error) = error.filter(|_| is_new) {
            let cause = error.cause().map(ToString::to_string);
            tracing::warn!(%error, cause, "PostgreSQL is out of reach; new transactions wait");
        }
    }
}

impl Drop for Creating {
    fn drop(&mut self) {
        if !self.ended {
            self.fail(Failure::Abandoned, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_depends_on_whether_postgresql_is_there() {
        let s = Duration::from_secs;
        let patience = Patience { acquire: s(30), outage: s(60) };
        assert_eq!(patience.next_look(s(30), false), None);
        assert_eq!(patience.next_look(s(30), true), Some(s(31)));
        assert_eq!(patience.next_look(s(60), true), None);
        // It came back, and nothing was free since.
        assert_eq!(patience.next_look(s(45), false), None);
        let short = Patience { acquire: s(30), outage: s(5) };
        assert_eq!(short.next_look(s(5), true), None);
        assert_eq!(short.next_look(s(5), false), Some(s(6)));
        assert_eq!(short.next_look(Duration::from_millis(29_500), false), Some(s(30)));
    }
}
