//! The pool's state, pure: no sockets are touched and nothing waits here. All of it lies under
//! one lock that is held for a few instructions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use tokio::sync::oneshot;

use super::Demand;
use super::creation::{Creations, Gates, Narrowed};
use super::parked::Parking;
use super::sizing::{Load, Policy, Resize};
use super::steer::{Counts, MAX_PAUSED, Paused};
use crate::auth::AccessChanges;
use crate::backend::{BackendConn, Credentials, Told};
use crate::config::Config;
use crate::error::Error;
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

/// Passes on the hash that a [`LaneKey`] has.
#[derive(Default)]
pub(super) struct KnownHash(u64);

impl Hasher for KnownHash {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
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
        let hash = FixedState::default().hash_one((role_oid, &parameters));
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

/// Seconds of being idle after which a connection needs a check.
fn skip_recent(pool: &crate::config::Pool) -> Option<u32> {
    let recent = u32::try_from(pool.validation_skip_recent_secs.0).unwrap_or(u32::MAX);
    (pool.validation_level != crate::config::ValidationLevel::None).then_some(recent)
}

/// What a session gets.
pub(super) enum Grant {
    /// A connection, and the thread whose event loop it is registered with.
    Conn(Lent),
    /// PostgreSQL said no.
    Refused(Error),
    /// Nothing: things have changed, ask again.
    Again,
}

/// A connection on its way to a session.
pub(super) struct Lent {
    pub(super) conn: Box<BackendConn>,
    pub(super) worker: ThreadId,
    /// Since when it is idle, by the pool's clock, if that is so long that it needs a check.
    pub(super) stale_since: Option<u32>,
}

/// The answer to an acquisition.
pub(super) enum Turn {
    /// Served.
    Now(Lent),
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
    /// Second of the pool's clock.
    since: u32,
}

#[derive(Default)]
pub(super) struct Lane {
    /// Last returned, last in: few connections stay warm, the others time out.
    idle: Vec<Idle>,
    reported: Option<Reported>,
    pub(super) last_used: u64,
}

/// What the last log-in of a lane told.
pub(super) struct Reported {
    /// [`crate::auth::AccessChanges`] when it began.
    pub(super) changes: u64,
    /// Parameters that PostgreSQL reported.
    values: Arc<Told>,
    /// With what it succeeded.
    pub(super) credentials: Credentials,
}

pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) demand: Demand,
    /// A connection is being made for it; it takes what comes first.
    pub(super) is_served: bool,
    /// Second of the pool's clock.
    since: u32,
    is_starved: bool,
    pub(super) grant: oneshot::Sender<Grant>,
}

pub(super) struct Inner {
    pub(super) policy: Policy,
    max_waiters: usize,
    /// Seconds of being idle after which a connection needs a check.
    pub(super) skip_recent: Option<u32>,
    /// How often a connection is lent; 0 = as often as sessions come.
    max_uses: u32,
    /// Seconds, moved by [`Inner::tick`], so that nobody reads a clock for a connection.
    pub(super) clock: u32,
    /// Connections in every state, those being made included.
    pub(super) total: usize,
    pub(super) idle: usize,
    pub(super) lanes: HashMap<Arc<LaneKey>, Lane, BuildHasherDefault<KnownHash>>,
    /// Tickets ascend, so the queue is sorted by them.
    pub(super) waiters: VecDeque<Waiter>,
    pub(super) creations: Creations,
    pub(super) gates: Gates,
    pub(super) parking: Parking,
    next_ticket: u64,
    most_waiting: usize,
    /// More may wait than otherwise: PostgreSQL was out of reach a moment ago.
    after_outage: bool,
    shrunk: Option<Instant>,
    paused: Paused,
    /// Nobody will end a pause any more.
    draining: bool,
    pub(super) closed: bool,
}

impl Inner {
    /// An empty pool of this size; `config` says everything else.
    pub(super) fn new(policy: Policy, gates: Gates, config: &Config) -> Self {
        let pool = &config.pool;
        Self {
            creations: Creations::new(pool, policy.max_size),
            policy,
            max_waiters: pool.max_wait_queue_size,
            skip_recent: skip_recent(pool),
            max_uses: pool.max_uses,
            clock: 0,
            total: 0,
            idle: 0,
            lanes: HashMap::default(),
            waiters: VecDeque::new(),
            gates,
            parking: Parking::default(),
            next_ticket: 0,
            most_waiting: 0,
            after_outage: false,
            shrunk: None,
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

    /// Sessions that wait for somebody else's connection; those for whom one is being made are
    /// not among them.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.len() - self.creations.served
    }

    /// The most that ever waited.
    pub(super) fn most_waiting(&self) -> usize {
        self.most_waiting
    }

    /// How many of what there is.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            total: self.total,
            idle: self.idle(),
            aside: self.creations.running + self.parking.len(),
            waiting: self.waiting(),
            most_waiting: self.most_waiting(),
            min_size: self.policy.floor(),
            max_size: self.policy.max_size,
        }
    }

    /// Refuses everybody who waits; returns how many.
    pub(super) fn dismiss(&mut self, error: impl Fn() -> Error) -> usize {
        let mut dismissed = 0;
        while let Some(waiter) = self.remove_waiter(0) {
            dismissed += usize::from(waiter.grant.send(Grant::Refused(error())).is_ok());
        }
        dismissed
    }

    /// Serves an acquisition from what is idle, or queues it. Nobody of the same lane is
    /// overtaken: what comes back goes to who waits, so nothing is idle while somebody waits.
    pub(super) fn turn(&mut self, demand: &Demand, worker: ThreadId) -> Turn {
        if self.closed {
            return Turn::Closed;
        }
        if self.paused.any() && self.paused.holds(demand.lane.database()) {
            return if self.draining { Turn::Closed } else { Turn::Paused };
        }
        self.next_ticket += 1;
        self.touch(&demand.lane, self.next_ticket);
        if let Some(lent) = self.pop_idle(&demand.lane, worker, |_| true) {
            return Turn::Now(lent);
        }
        if !self.may_wait(&demand.lane) {
            return Turn::Full;
        }
        self.gates.waits(&demand.lane, 1);
        let (grant, receiver) = oneshot::channel();
        self.waiters.push_back(Waiter {
            ticket: self.next_ticket,
            demand: demand.clone(),
            is_served: false,
            since: self.clock,
            is_starved: false,
            grant,
        });
        self.most_waiting = self.most_waiting.max(self.waiting());
        Turn::Wait(self.next_ticket, receiver)
    }

    /// Whether there is a place in the queue. Who has a limit of his own waits among those whom it
    /// concerns, and takes no place from the others; a connection that can still be made is not
    /// waited for. While PostgreSQL is out of reach, and until those who came meanwhile are served,
    /// everybody waits: there are no more of them than clients.
    fn may_wait(&mut self, key: &LaneKey) -> bool {
        let own = self.gates.places(key);
        let waiting = self.waiting().saturating_sub(self.gates.waiting());
        let room = self.policy.max_size.saturating_sub(self.total);
        let is_long = waiting >= self.max_waiters + room;
        self.after_outage = self.creations.outage().is_some() || self.after_outage && is_long;
        self.after_outage
            || own.map_or(!is_long, |(waiting, room)| waiting < self.max_waiters + room)
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

    /// An idle connection of this lane, if there is one that needs no check.
    pub(super) fn take_fresh(
        &mut self,
        key: &Arc<LaneKey>,
        worker: ThreadId,
    ) -> Option<(ThreadId, Box<BackendConn>)> {
        if self.closed || (self.paused.any() && self.paused.holds(key.database())) {
            return None;
        }
        let lent = self.pop_idle(key, worker, |stale| !stale)?;
        Some((lent.worker, lent.conn))
    }

    /// The last returned connection of this worker, else the last returned; `None` also when its
    /// being stale does not suit.
    fn pop_idle(
        &mut self,
        key: &Arc<LaneKey>,
        worker: ThreadId,
        suits: impl Fn(bool) -> bool,
    ) -> Option<Lent> {
        let lane = self.lanes.get_mut(key)?;
        lane.last_used = self.next_ticket;
        let own = lane.idle.iter().rposition(|idle| idle.worker == worker);
        let at = own.or(lane.idle.len().checked_sub(1))?;
        let idle_for = self.clock.wrapping_sub(lane.idle[at].since);
        let stale = self.skip_recent.is_some_and(|recent| idle_for > recent);
        if !suits(stale) {
            return None;
        }
        self.idle -= 1;
        let Idle { conn, worker, since } = lane.idle.remove(at);
        Some(Lent { conn, worker, stale_since: stale.then_some(since) })
    }

    /// The lane among those that fit whose connection has been idle for longest.
    pub(super) fn oldest_idle(&self, fits: impl Fn(&LaneKey) -> bool) -> Option<Arc<LaneKey>> {
        let idle =
            self.lanes.iter().filter_map(|(key, lane)| Some((key, lane.idle.first()?.since)));
        let fitting = idle.filter(|(key, _)| fits(key));
        fitting.min_by_key(|(_, since)| *since).map(|(key, _)| key.clone())
    }

    /// The connection of this lane that has been idle for longest.
    pub(super) fn pop_oldest(&mut self, key: &LaneKey) -> Option<BackendConn> {
        let lane = self.lanes.get_mut(key)?;
        let oldest = (!lane.idle.is_empty()).then(|| lane.idle.remove(0))?;
        self.idle -= 1;
        Some(*oldest.conn)
    }

    /// A waiter gives up, or is served.
    pub(super) fn leave(&mut self, ticket: u64) -> Option<Waiter> {
        let at = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        self.remove_waiter(at)
    }

    fn remove_waiter(&mut self, at: usize) -> Option<Waiter> {
        let waiter = self.waiters.remove(at)?;
        if !waiter.is_served {
            self.gates.waits(&waiter.demand.lane, -1);
        }
        self.creations.served -= usize::from(waiter.is_served);
        Some(waiter)
    }

    /// Keeps a clean connection, or hands it to the first waiter who can use it. Returns it when
    /// it is not wanted any more, or has to make room for the connection of somebody who waits
    /// for longer; its room then still counts.
    pub(super) fn put_back(
        &mut self,
        key: Arc<LaneKey>,
        worker: ThreadId,
        mut conn: Box<BackendConn>,
    ) -> Option<BackendConn> {
        let is_stale = conn.ticket.as_ref().is_some_and(|ticket| ticket.is_stale());
        let is_unwanted = self.closed || is_stale || self.total > self.policy.max_size;
        if is_unwanted || self.is_worn(&conn) {
            return Some(*conn);
        }
        let mut at = 0;
        while let Some(waiter) = self.waiters.get(at) {
            if waiter.demand.lane == key {
                let Some(waiter) = self.remove_waiter(at) else { break };
                let lent = Lent { conn, worker, stale_since: None };
                match waiter.grant.send(Grant::Conn(lent)) {
                    Err(Grant::Conn(back)) => conn = back.conn,
                    Ok(()) | Err(Grant::Refused(_) | Grant::Again) => return None,
                }
            } else if self.has_to_make_room(waiter, &key) {
                return Some(*conn);
            } else {
                at += 1;
            }
        }
        self.idle += 1;
        let idle = Idle { conn, worker, since: self.clock };
        match self.lanes.get_mut(&key) {
            Some(lane) => lane.idle.push(idle),
            None => self.lanes.entry(key).or_default().idle.push(idle),
        }
        None
    }

    /// Whether a connection was lent as often as one may be.
    pub(super) fn is_worn(&self, conn: &BackendConn) -> bool {
        let uses = || conn.ticket.as_ref().map_or(0, |ticket| ticket.borrows());
        self.max_uses != 0 && uses() >= u64::from(self.max_uses)
    }

    /// A connection is gone, or could not be made.
    pub(super) fn room_freed(&mut self) {
        self.total = self.total.saturating_sub(1);
    }

    pub(super) fn learn(&mut self, demand: &Demand, conn: &BackendConn) {
        // A lane that was forgotten in the meantime is not worth a place.
        let Some(lane) = self.lanes.get_mut(&demand.lane) else { return };
        let values = match lane.reported.take() {
            Some(known) if known.values.digest == conn.state.digest => known.values,
            _ => Arc::new(Told::of(conn.state.parameters.clone())),
        };
        let credentials = demand.credentials.clone();
        lane.reported = Some(Reported { changes: conn.changes, values, credentials });
    }

    /// Where a connection made in advance is most likely to be of use: the lane that was used
    /// last and whose credentials are still good.
    pub(super) fn favourite(&self, changes: u64) -> Option<Demand> {
        let known = self.lanes.iter().filter(|(key, lane)| {
            let fresh = lane.reported.as_ref().is_some_and(|known| known.changes == changes);
            fresh && !key.is_single_use() && !self.paused.holds(key.database())
        });
        let (lane, known) = known.max_by_key(|(_, lane)| lane.last_used)?;
        let credentials = known.reported.as_ref()?.credentials.clone();
        Some(Demand { lane: lane.clone(), credentials })
    }

    pub(super) fn parameters(
        &self,
        key: &LaneKey,
        changes: u64,
    ) -> Option<(Arc<LaneKey>, Arc<Told>)> {
        let (key, lane) = self.lanes.get_key_value(key)?;
        let known = lane.reported.as_ref().filter(|known| known.changes == changes)?;
        Some((key.clone(), known.values.clone()))
    }

    /// Takes out everything that is idle or parked.
    pub(super) fn take_idle(&mut self) -> Vec<BackendConn> {
        self.take_idle_in(|_| true)
    }

    /// Takes out what is idle or parked in the lanes that `of_it` is true for.
    pub(super) fn take_idle_in(&mut self, of_it: impl Fn(&LaneKey) -> bool) -> Vec<BackendConn> {
        let parked = self.parking.take_in(&of_it);
        let lanes = self.lanes.iter_mut().filter(|(key, _)| of_it(key));
        let taken: Vec<_> = lanes.flat_map(|(_, lane)| lane.idle.drain(..)).collect();
        self.idle -= taken.len();
        taken.into_iter().map(|idle| *idle.conn).chain(parked).collect()
    }

    /// Numbers of the idle and parked connections in the roster.
    pub(super) fn idle_ids(&self) -> HashSet<u64> {
        let idle = self.lanes.values().flat_map(|lane| &lane.idle).map(|idle| &*idle.conn);
        let conns = idle.chain(self.parking.conns());
        conns.filter_map(|conn| conn.ticket.as_ref().map(|ticket| ticket.id)).collect()
    }

    pub(super) fn max_size(&self) -> usize {
        self.policy.max_size
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
        let mut at = 0;
        while let Some(waiter) = self.waiters.get(at) {
            if !self.paused.holds(waiter.demand.lane.database()) {
                at += 1;
            } else if let Some(waiter) = self.remove_waiter(at) {
                let _ = waiter.grant.send(Grant::Again);
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

    /// Takes over other limits. Returns idle connections that are too many now, and whose
    /// connections must be replaced when they come back.
    pub(super) fn change(
        &mut self,
        policy: Policy,
        gates: Gates,
        pool: &crate::config::Pool,
    ) -> (Vec<BackendConn>, Narrowed) {
        self.creations.change(pool, policy.max_size);
        let surplus = self.total.saturating_sub(policy.max_size);
        (self.policy, self.max_waiters) = (policy, pool.max_wait_queue_size);
        (self.skip_recent, self.max_uses) = (skip_recent(pool), pool.max_uses);
        let narrowed = self.gates.change(gates);
        let unserved = self.waiters.iter().filter(|waiter| !waiter.is_served);
        self.gates.recount(unserved.map(|waiter| &*waiter.demand.lane));
        let mut taken = self.take_idle_in(|key| narrowed.concerns(key.role(), key.database()));
        while taken.len() < surplus {
            let Some(conn) = self.pop_any() else { break };
            taken.push(conn);
        }
        (taken, narrowed)
    }

    /// From now on at most this many connections; returns idle ones that are too many.
    pub(super) fn shrink(&mut self, most: usize) -> Vec<BackendConn> {
        self.policy.max_size = most;
        let surplus = self.total.saturating_sub(most);
        std::iter::from_fn(|| self.pop_any()).take(surplus).collect()
    }

    /// The connection that has been idle for longest, else the longest parked one.
    fn pop_any(&mut self) -> Option<BackendConn> {
        match self.oldest_idle(|_| true) {
            Some(lane) => self.pop_oldest(&lane),
            None => self.parking.take_oldest(|_| true).map(|spot| *spot.conn),
        }
    }

    /// A parameter that some lane's last connection was told.
    pub(super) fn reported(&self, name: &str) -> Option<String> {
        let lanes = self.lanes.values().filter_map(|lane| lane.reported.as_ref());
        let mut values = lanes.flat_map(|reported| reported.values.values.iter());
        values.find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Takes out idle connections of the lane that were last used then or earlier: what broke one
    /// of them while it was idle broke them all.
    pub(super) fn take_idle_since(&mut self, key: &LaneKey, since: u32) -> Vec<BackendConn> {
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        let taken: Vec<_> = lane.idle.extract_if(.., |idle| idle.since <= since).collect();
        self.idle -= taken.len();
        taken.into_iter().map(|idle| *idle.conn).collect()
    }

    /// Takes out idle connections that are from before the last change of access.
    pub(super) fn take_outdated(&mut self, changes: &AccessChanges) -> Vec<BackendConn> {
        let count = changes.count();
        let lanes = self.lanes.values_mut();
        let taken: Vec<_> = lanes
            .flat_map(|lane| lane.idle.extract_if(.., |idle| idle.conn.changes != count))
            .collect();
        self.idle -= taken.len();
        let parked = self.parking.take_outdated(count);
        taken.into_iter().map(|idle| *idle.conn).chain(parked).collect()
    }

    /// Takes out what is idle or parked and is to be closed.
    pub(super) fn take_stale(&mut self) -> Vec<BackendConn> {
        let is_stale =
            |conn: &BackendConn| conn.ticket.as_ref().is_some_and(|ticket| ticket.is_stale());
        let lanes = self.lanes.values_mut();
        let taken: Vec<_> =
            lanes.flat_map(|lane| lane.idle.extract_if(.., |idle| is_stale(&idle.conn))).collect();
        self.idle -= taken.len();
        let parked = self.parking.take_where(is_stale);
        taken.into_iter().map(|idle| *idle.conn).chain(parked).collect()
    }

    /// Moves the clock; returns how many waiters have begun to starve.
    pub(super) fn tick(&mut self, now_secs: u32, starvation_secs: u64) -> u64 {
        self.clock = now_secs;
        let mut starved = 0;
        for waiter in &mut self.waiters {
            let waited = u64::from(now_secs.saturating_sub(waiter.since));
            if !waiter.is_starved && waited > starvation_secs {
                waiter.is_starved = true;
                starved += 1;
            }
        }
        starved
    }

    /// Takes out what is idle for too long, too old, or too much. The age limit varies by a tenth
    /// with the connection's process number, so that connections made together do not go together.
    pub(super) fn retire(
        &mut self,
        now: Instant,
        idle_timeout: Option<Duration>,
        max_lifetime: Option<Duration>,
    ) -> Vec<(&'static str, BackendConn)> {
        let mut retired = Vec::new();
        let is_old = |idle: &mut Idle| {
            let jitter = 90 + idle.conn.cancel.pid % 21;
            max_lifetime
                .is_some_and(|life| now.duration_since(idle.conn.created) > life * jitter / 100)
        };
        for lane in self.lanes.values_mut() {
            let old = lane.idle.extract_if(.., is_old);
            retired.extend(old.map(|idle| ("max_lifetime", *idle.conn)));
        }
        self.idle -= retired.len();
        // What is taken out still counts until its room is given back.
        let kept = self.total - retired.len();
        let mut spare = kept.saturating_sub(self.policy.floor());
        let clock = self.clock;
        for lane in self.lanes.values_mut() {
            let is_unused = |idle: &mut Idle| {
                let unused = Duration::from_secs(u64::from(clock.saturating_sub(idle.since)));
                idle_timeout.is_some_and(|limit| unused > limit)
            };
            let unused: Vec<_> = lane.idle.extract_if(.., is_unused).take(spare).collect();
            spare -= unused.len();
            self.idle -= unused.len();
            retired.extend(unused.into_iter().map(|idle| ("idle", *idle.conn)));
        }
        retired
    }

    /// Follows the load: asks for connections in advance, or returns some that are too many.
    pub(super) fn adjust(&mut self, now: Instant) -> Vec<BackendConn> {
        // What is parked is not in work either; it goes by its own limits.
        let idle = self.idle + self.parking.len();
        let load = Load { total: self.total, idle, waiting: self.waiting() };
        let cool_down = self.policy.sizing.cool_down_secs.duration();
        let rested = self.shrunk.is_none_or(|at| now.duration_since(at) >= cool_down);
        match self.policy.resize(load, rested) {
            Resize::Keep => Vec::new(),
            Resize::Grow(n) => {
                self.creations.spare = n;
                Vec::new()
            }
            Resize::Shrink(n) => {
                self.shrunk = Some(now);
                let oldest = |_| self.pop_oldest(&*self.oldest_idle(|_| true)?);
                (0..n).map_while(oldest).collect()
            }
        }
    }

    /// Refuses every later acquisition, lets the waiters go, and returns what is idle.
    pub(super) fn close(&mut self) -> Vec<BackendConn> {
        self.closed = true;
        self.waiters.clear();
        self.gates.recount([].into_iter());
        self.creations.served = 0;
        self.take_idle()
    }
}

#[cfg(test)]
#[path = "inner_tests.rs"]
mod tests;
