//! The pool's state, pure: no sockets are touched and nothing waits here. All of it lies under
//! one lock that is held for a few instructions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::steer::{MAX_PAUSED, Paused};
use crate::backend::{BackendConn, Told};
use crate::types::{Database, Role};

/// Lanes that may exist at once; the longest unused empty one goes first.
const MAX_LANES: usize = 256;

/// What makes connections interchangeable.
#[derive(Debug)]
pub struct LaneKey {
    /// A name can pass to another role; the number does not.
    role_oid: Option<u32>,
    parameters: Vec<(String, String)>,
    /// Hash of the others, so that a look-up costs the same whatever their length.
    hash: u64,
}

impl Hash for LaneKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for LaneKey {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.hash == other.hash
                && self.role_oid == other.role_oid
                && self.parameters == other.parameters)
    }
}

impl Eq for LaneKey {}

impl LaneKey {
    /// A lane; `options` are the further parameters of the start-up packet.
    pub fn new(
        role: &Role,
        role_oid: Option<u32>,
        database: &Database,
        options: Vec<(String, String)>,
    ) -> Self {
        let mut parameters = vec![
            ("user".to_owned(), role.as_str().to_owned()),
            ("database".to_owned(), database.as_str().to_owned()),
        ];
        parameters.extend(options);
        let mut hasher = DefaultHasher::new();
        (role_oid, &parameters).hash(&mut hasher);
        let hash = hasher.finish();
        Self { role_oid, parameters, hash }
    }

    /// The start-up packet.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// The role.
    pub fn role(&self) -> &str {
        &self.parameters[0].1
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.parameters[1].1
    }

    /// Replication connections speak another command language; DISCARD ALL is not part of it.
    pub fn is_single_use(&self) -> bool {
        self.parameters.iter().any(|(name, _)| name == "replication")
    }
}

/// What a session gets.
pub(super) enum Grant {
    /// An idle connection, and the thread whose event loop it is registered with.
    Conn(ThreadId, Box<BackendConn>),
    /// The right to make one.
    Room,
    /// Nothing: things have changed, ask again.
    Again,
}

/// The answer to an acquisition.
pub(super) enum Turn {
    /// Served.
    Now(Grant),
    /// Served with the room of this connection, which is to be closed.
    Evict(Box<BackendConn>),
    /// Wait for the grant; the ticket is for leaving early.
    Wait(u64, oneshot::Receiver<Grant>),
    /// The wait queue is full.
    Full,
    /// The database is paused.
    Paused,
    /// The pool is closed.
    Closed,
}

struct Idle {
    conn: Box<BackendConn>,
    worker: ThreadId,
    since: Instant,
}

#[derive(Default)]
struct Lane {
    /// Last returned, last in: few connections stay warm, the others time out.
    idle: Vec<Idle>,
    parameters: Option<Reported>,
    last_used: u64,
}

/// Parameters that PostgreSQL reported to the last connection of a lane.
struct Reported {
    /// [`crate::auth::AccessChanges`] when it was made.
    changes: u64,
    values: Arc<Told>,
}

struct Waiter {
    ticket: u64,
    lane: Arc<LaneKey>,
    grant: oneshot::Sender<Grant>,
}

pub(super) struct Inner {
    max_size: usize,
    max_waiters: usize,
    /// Connections in every state, slots included.
    total: usize,
    idle: usize,
    lanes: HashMap<Arc<LaneKey>, Lane>,
    /// Tickets ascend, so the queue is sorted by them.
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
    paused: Paused,
    /// Nobody will end a pause any more.
    draining: bool,
    closed: bool,
}

impl Inner {
    pub(super) fn new(max_size: usize, max_waiters: usize) -> Self {
        Self {
            max_size,
            max_waiters,
            total: 0,
            idle: 0,
            lanes: HashMap::new(),
            waiters: VecDeque::new(),
            next_ticket: 0,
            paused: Paused::default(),
            draining: false,
            closed: false,
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn idle(&self) -> usize {
        self.idle
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Serves an acquisition, or queues it.
    pub(super) fn turn(&mut self, key: &Arc<LaneKey>, worker: ThreadId) -> Turn {
        if self.closed {
            return Turn::Closed;
        }
        if self.paused.any() && self.paused.holds(key.database()) {
            return if self.draining { Turn::Closed } else { Turn::Paused };
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.touch(key, ticket);
        // Nobody overtakes the queue.
        if self.waiters.is_empty() {
            if let Some(idle) = self.pop_idle(key, worker) {
                return Turn::Now(Grant::Conn(idle.worker, idle.conn));
            }
            if self.total < self.max_size {
                self.total += 1;
                return Turn::Now(Grant::Room);
            }
            if let Some(old) = self.pop_oldest() {
                return Turn::Evict(old.conn);
            }
        }
        if self.waiters.len() >= self.max_waiters {
            return Turn::Full;
        }
        let (grant, receiver) = oneshot::channel();
        self.waiters.push_back(Waiter { ticket, lane: key.clone(), grant });
        Turn::Wait(ticket, receiver)
    }

    /// An idle connection of this lane, unless others wait for one.
    pub(super) fn take_idle_of(
        &mut self,
        key: &Arc<LaneKey>,
        worker: ThreadId,
    ) -> Option<(ThreadId, Box<BackendConn>)> {
        let paused = self.paused.any() && self.paused.holds(key.database());
        if self.closed || paused || !self.waiters.is_empty() {
            return None;
        }
        let idle = self.pop_idle(key, worker)?;
        Some((idle.worker, idle.conn))
    }

    fn touch(&mut self, key: &Arc<LaneKey>, now: u64) {
        if !self.lanes.contains_key(key) && self.lanes.len() >= MAX_LANES {
            let empty = self.lanes.iter().filter(|(_, lane)| lane.idle.is_empty());
            let oldest = empty.min_by_key(|(_, lane)| lane.last_used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.lanes.remove(&oldest);
            }
        }
        self.lanes.entry(key.clone()).or_default().last_used = now;
    }

    /// The last returned connection of this worker, else the last returned.
    fn pop_idle(&mut self, key: &Arc<LaneKey>, worker: ThreadId) -> Option<Idle> {
        let lane = self.lanes.get_mut(key)?;
        lane.last_used = self.next_ticket;
        let own = lane.idle.iter().rposition(|idle| idle.worker == worker);
        let at = own.or(lane.idle.len().checked_sub(1))?;
        self.idle -= 1;
        Some(lane.idle.remove(at))
    }

    /// The connection that has been idle for longest in any lane.
    fn pop_oldest(&mut self) -> Option<Idle> {
        let lanes = self.lanes.values_mut().filter(|lane| !lane.idle.is_empty());
        let lane = lanes.min_by_key(|lane| lane.idle.first().map(|idle| idle.since))?;
        self.idle -= 1;
        Some(lane.idle.remove(0))
    }

    /// A waiter gives up.
    pub(super) fn leave(&mut self, ticket: u64) {
        if let Ok(at) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            self.waiters.remove(at);
        }
    }

    /// Keeps a clean connection, or hands it to the first waiter. Returns it when it is not
    /// wanted any more; its room then still counts.
    pub(super) fn put_back(
        &mut self,
        key: Arc<LaneKey>,
        worker: ThreadId,
        mut conn: Box<BackendConn>,
    ) -> Option<BackendConn> {
        let is_stale = conn.ticket.as_ref().is_some_and(|ticket| ticket.is_stale());
        if self.closed || is_stale || self.total > self.max_size {
            return Some(*conn);
        }
        while let Some(waiter) = self.waiters.pop_front() {
            if waiter.lane != key {
                // First come, first served: the room is the first waiter's, whatever its lane.
                self.waiters.push_front(waiter);
                return Some(*conn);
            }
            match waiter.grant.send(Grant::Conn(worker, conn)) {
                Err(Grant::Conn(_, back)) => conn = back,
                Ok(()) | Err(Grant::Room | Grant::Again) => return None,
            }
        }
        self.idle += 1;
        let idle = Idle { conn, worker, since: Instant::now() };
        match self.lanes.get_mut(&key) {
            Some(lane) => lane.idle.push(idle),
            None => self.lanes.entry(key).or_default().idle.push(idle),
        }
        None
    }

    /// A connection or a slot is gone; the first waiter may make one instead.
    pub(super) fn room_freed(&mut self) {
        while self.total <= self.max_size
            && let Some(waiter) = self.waiters.pop_front()
        {
            if waiter.grant.send(Grant::Room).is_ok() {
                return;
            }
        }
        self.total = self.total.saturating_sub(1);
    }

    pub(super) fn learn(&mut self, key: &Arc<LaneKey>, conn: &BackendConn) {
        // A lane that was forgotten in the meantime is not worth a place.
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let values = match lane.parameters.take() {
            Some(known) if known.values.digest == conn.state.digest => known.values,
            _ => Arc::new(Told::of(conn.state.parameters.clone())),
        };
        lane.parameters = Some(Reported { changes: conn.changes, values });
    }

    pub(super) fn parameters(&self, key: &Arc<LaneKey>, changes: u64) -> Option<Arc<Told>> {
        let known = self.lanes.get(key)?.parameters.as_ref()?;
        (known.changes == changes).then(|| known.values.clone())
    }

    /// Takes out everything that is idle.
    pub(super) fn take_idle(&mut self) -> Vec<BackendConn> {
        self.take_idle_in(|_| true)
    }

    /// Takes out what is idle in the databases that `of_it` is true for.
    pub(super) fn take_idle_in(&mut self, of_it: impl Fn(&str) -> bool) -> Vec<BackendConn> {
        let lanes = self.lanes.iter_mut().filter(|(key, _)| of_it(key.database()));
        let taken: Vec<_> = lanes.flat_map(|(_, lane)| lane.idle.drain(..)).collect();
        self.idle -= taken.len();
        taken.into_iter().map(|idle| *idle.conn).collect()
    }

    /// Numbers of the idle connections in the roster.
    pub(super) fn idle_ids(&self) -> HashSet<u64> {
        let idle = self.lanes.values().flat_map(|lane| &lane.idle);
        idle.filter_map(|idle| idle.conn.ticket.as_ref().map(|ticket| ticket.id)).collect()
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn paused(&self) -> &Paused {
        &self.paused
    }

    /// Pauses a database, or all, and sends its waiters away to ask again; false = too many.
    pub(super) fn pause(&mut self, database: Option<&Database>) -> bool {
        match database {
            None => self.paused.all = true,
            Some(name) => {
                let is_new = !self.paused.databases.contains(name);
                if is_new && self.paused.databases.len() >= MAX_PAUSED {
                    return false;
                }
                self.paused.databases.insert(name.clone());
            }
        }
        for waiter in std::mem::take(&mut self.waiters) {
            if self.paused.holds(waiter.lane.database()) {
                let _ = waiter.grant.send(Grant::Again);
            } else {
                self.waiters.push_back(waiter);
            }
        }
        true
    }

    /// The server drains: who waits for the end of a pause is sent away.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn holds_up(&self, database: &str) -> bool {
        !self.draining && self.paused.holds(database)
    }

    /// Ends the pause of a database, or every pause; false = there was none.
    pub(super) fn resume(&mut self, database: Option<&Database>) -> bool {
        match database {
            None => std::mem::take(&mut self.paused).any(),
            Some(name) => self.paused.databases.remove(name),
        }
    }

    /// Changes the limits; returns idle connections that are too many now.
    pub(super) fn resize(&mut self, max_size: usize, max_waiters: usize) -> Vec<BackendConn> {
        (self.max_size, self.max_waiters) = (max_size, max_waiters);
        while self.total < max_size
            && let Some(waiter) = self.waiters.pop_front()
        {
            self.total += usize::from(waiter.grant.send(Grant::Room).is_ok());
        }
        let surplus = self.total.saturating_sub(max_size);
        let taken = std::iter::from_fn(|| self.pop_oldest());
        taken.take(surplus).map(|idle| *idle.conn).collect()
    }

    /// A parameter that some lane's last connection was told.
    pub(super) fn reported(&self, name: &str) -> Option<String> {
        let lanes = self.lanes.values().filter_map(|lane| lane.parameters.as_ref());
        let mut values = lanes.flat_map(|reported| reported.values.values.iter());
        values.find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Takes out what is idle for too long or too old. The age limit varies by a tenth with the
    /// connection's process number, so that connections made together do not go together.
    pub(super) fn retire(
        &mut self,
        now: Instant,
        idle_timeout: Option<Duration>,
        max_lifetime: Option<Duration>,
    ) -> Vec<(&'static str, BackendConn)> {
        let mut retired = Vec::new();
        let expired = |idle: &Idle| {
            let jitter = 90 + idle.conn.cancel.pid % 21;
            let old = max_lifetime
                .is_some_and(|life| now.duration_since(idle.conn.created) > life * jitter / 100);
            let unused = idle_timeout.is_some_and(|limit| now.duration_since(idle.since) > limit);
            match (old, unused) {
                (true, _) => Some("max_lifetime"),
                (_, true) => Some("idle"),
                _ => None,
            }
        };
        for lane in self.lanes.values_mut() {
            for at in (0..lane.idle.len()).rev() {
                if let Some(reason) = expired(&lane.idle[at]) {
                    retired.push((reason, *lane.idle.remove(at).conn));
                }
            }
        }
        self.idle -= retired.len();
        retired
    }

    /// Refuses every later acquisition, lets the waiters go, and returns what is idle.
    pub(super) fn close(&mut self) -> Vec<BackendConn> {
        self.closed = true;
        self.waiters.clear();
        self.take_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(role: &str) -> Arc<LaneKey> {
        Arc::new(LaneKey::new(&role.into(), None, &"db".into(), Vec::new()))
    }

    fn me() -> ThreadId {
        std::thread::current().id()
    }

    fn wait(inner: &mut Inner, key: &Arc<LaneKey>) -> (u64, oneshot::Receiver<Grant>) {
        match inner.turn(key, me()) {
            Turn::Wait(ticket, receiver) => (ticket, receiver),
            _ => panic!("there was no need to wait"),
        }
    }

    #[test]
    fn room_is_bounded_and_goes_to_waiters_in_order() {
        let (mut inner, key) = (Inner::new(1, 2), lane("a"));
        assert!(matches!(inner.turn(&key, me()), Turn::Now(Grant::Room)));
        let (_, mut first) = wait(&mut inner, &key);
        let (_, mut second) = wait(&mut inner, &key);
        assert!(matches!(inner.turn(&key, me()), Turn::Full));
        inner.room_freed();
        assert!(matches!(first.try_recv(), Ok(Grant::Room)));
        assert!(second.try_recv().is_err());
        inner.room_freed();
        assert!(matches!(second.try_recv(), Ok(Grant::Room)));
        inner.room_freed();
        assert_eq!((inner.total(), inner.waiting()), (0, 0));
    }

    #[test]
    fn a_waiter_that_left_is_passed_over() {
        let (mut inner, key) = (Inner::new(1, 9), lane("a"));
        assert!(matches!(inner.turn(&key, me()), Turn::Now(Grant::Room)));
        let (ticket, gone) = wait(&mut inner, &key);
        let (_, dropped) = wait(&mut inner, &key);
        let (_, mut last) = wait(&mut inner, &key);
        inner.leave(ticket);
        drop((gone, dropped));
        inner.room_freed();
        assert!(matches!(last.try_recv(), Ok(Grant::Room)));
        assert_eq!((inner.total(), inner.waiting()), (1, 0));
    }

    #[test]
    fn a_pause_sends_waiters_away_and_a_resume_lets_them_in() {
        let (mut inner, key) = (Inner::new(1, 9), lane("a"));
        assert!(matches!(inner.turn(&key, me()), Turn::Now(Grant::Room)));
        let (_, mut waiting) = wait(&mut inner, &key);
        assert!(inner.pause(Some(&"other".into())));
        assert!(waiting.try_recv().is_err());
        assert!(inner.pause(Some(&"db".into())));
        assert!(matches!(waiting.try_recv(), Ok(Grant::Again)));
        assert!(matches!(inner.turn(&key, me()), Turn::Paused));
        assert!(inner.resume(Some(&"db".into())) && !inner.resume(Some(&"db".into())));
        let (_, _waits) = wait(&mut inner, &key);
        assert!(inner.pause(None) && inner.paused().holds("any"));
        assert!(inner.resume(None) && !inner.paused().any());
    }

    #[test]
    fn a_pool_grows_at_once_and_shrinks_as_room_is_freed() {
        let (mut inner, key) = (Inner::new(1, 9), lane("a"));
        assert!(matches!(inner.turn(&key, me()), Turn::Now(Grant::Room)));
        let (_, mut first) = wait(&mut inner, &key);
        let (_, mut second) = wait(&mut inner, &key);
        let (_, mut third) = wait(&mut inner, &key);
        assert!(inner.resize(3, 9).is_empty());
        assert!(matches!(first.try_recv(), Ok(Grant::Room)));
        assert!(matches!(second.try_recv(), Ok(Grant::Room)));
        assert!(third.try_recv().is_err());
        assert!(inner.resize(1, 9).is_empty());
        inner.room_freed();
        inner.room_freed();
        assert!(third.try_recv().is_err());
        assert_eq!(inner.total(), 1);
        inner.room_freed();
        assert!(matches!(third.try_recv(), Ok(Grant::Room)));
    }

    #[test]
    fn lanes_are_bounded() {
        let mut inner = Inner::new(1, 9);
        for n in 0..2 * MAX_LANES {
            inner.touch(&lane(&n.to_string()), n as u64);
        }
        assert_eq!(inner.lanes.len(), MAX_LANES);
        assert!(!inner.lanes.contains_key(&lane("0")));
    }

    #[test]
    fn a_closed_pool_lets_its_waiters_go() {
        let (mut inner, key) = (Inner::new(1, 9), lane("a"));
        assert!(matches!(inner.turn(&key, me()), Turn::Now(Grant::Room)));
        let (_, mut waiting) = wait(&mut inner, &key);
        assert!(inner.close().is_empty());
        assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(inner.turn(&key, me()), Turn::Closed));
    }
}
