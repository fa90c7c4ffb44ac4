//! Which connection is made next, for whom, and at whose expense. Pure, as [`Inner`] is.
//!
//! A creation belongs to the lane of the first waiter that nobody serves yet, and so to everybody
//! who waits in that lane: each waiter takes whichever comes first, a connection that is given
//! back or a new one. The number of creations under way is bounded, so a server that is away sees
//! few attempts however many clients wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Demand;
use super::ceilings::{Bars, Ceilings, Refusal};
use super::inner::{Grant, Inner, LaneKey, Waiter};
use super::sizing::{BackOff, Throttle};
use crate::backend::{BackendConn, LimitOf};
use crate::config::{Pool, PoolOverrides};
use crate::error::Error;
use crate::limits::{Gate, Permit};

/// The room of single roles and databases.
#[derive(Default)]
pub(super) struct Gates {
    users: HashMap<String, Own>,
    databases: HashMap<String, Own>,
    /// Who waits before one of them.
    waiting: usize,
}

/// The room of a role or database, and how many wait before it, apart from those for whom a
/// connection is being made.
struct Own {
    gate: Arc<Gate>,
    waiting: usize,
}

impl Gates {
    pub(super) fn new(pool: &Pool) -> Self {
        let gates = |overrides: &PoolOverrides| {
            let limited =
                overrides.iter().filter_map(|(name, o)| Some((name.clone(), o.max_size?)));
            limited.map(|(name, most)| (name, Own { gate: Gate::new(most), waiting: 0 })).collect()
        };
        Self { users: gates(&pool.users), databases: gates(&pool.databases), waiting: 0 }
    }

    /// Counts waiters that have come, or gone.
    pub(super) fn waits(&mut self, key: &LaneKey, delta: isize) {
        let user = self.users.get_mut(key.role());
        let own = user.into_iter().chain(self.databases.get_mut(key.database()));
        let mut is_limited = false;
        for own in own {
            own.waiting = own.waiting.saturating_add_signed(delta);
            is_limited = true;
        }
        if is_limited {
            self.waiting = self.waiting.saturating_add_signed(delta);
        }
    }

    /// Counts them all anew.
    pub(super) fn recount<'a>(&mut self, waiters: impl Iterator<Item = &'a LaneKey>) {
        self.waiting = 0;
        self.users.values_mut().chain(self.databases.values_mut()).for_each(|own| own.waiting = 0);
        waiters.for_each(|key| self.waits(key, 1));
    }

    /// How many wait before a limit of their own.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many wait before the limit of this lane with the longest queue, and for how many of
    /// them there is room; `None` = it has none.
    pub(super) fn places(&self, key: &LaneKey) -> Option<(usize, usize)> {
        let places = self.own(key).into_iter().flatten().map(|own| (own.waiting, own.gate.room()));
        places.max_by_key(|(waiting, room)| waiting.saturating_sub(*room))
    }

    /// Takes over other limits. Who is inside of a gate that stays is counted on.
    pub(super) fn change(&mut self, newer: Self) -> Narrowed {
        Narrowed {
            users: change(&mut self.users, newer.users),
            databases: change(&mut self.databases, newer.databases),
        }
    }

    fn of(&self, key: &LaneKey) -> [Option<&Arc<Gate>>; 2] {
        self.own(key).map(|own| own.map(|own| &own.gate))
    }

    fn own(&self, key: &LaneKey) -> [Option<&Own>; 2] {
        [self.users.get(key.role()), self.databases.get(key.database())]
    }

    /// The limit that keeps this lane from growing, as its key in the configuration.
    pub(super) fn shut(&self, key: &LaneKey) -> Option<String> {
        let [user, database] = self.of(key);
        let named = |gate: Option<&Arc<Gate>>, table: &str, name: &str| {
            let most = gate.filter(|gate| gate.is_full())?.most();
            Some(format!("pool.{table}.{name}.max_size is {most}"))
        };
        named(user, "users", key.role()).or_else(|| named(database, "databases", key.database()))
    }

    fn enter(&self, key: &LaneKey) -> Vec<Permit> {
        self.of(key).into_iter().flatten().filter_map(Gate::enter).collect()
    }
}

/// Changes gates into others, and names those that let fewer in than before, or are new: what is
/// inside already was not counted.
fn change(gates: &mut HashMap<String, Own>, newer: HashMap<String, Own>) -> Vec<String> {
    let mut narrowed = Vec::new();
    gates.retain(|name, _| newer.contains_key(name));
    for (name, own) in newer {
        let most = own.gate.most();
        match gates.get(&name).map(|own| &own.gate) {
            Some(old) if old.most() <= most => old.set_most(most),
            Some(old) => {
                old.set_most(most);
                narrowed.push(name);
            }
            None => {
                gates.insert(name.clone(), own);
                narrowed.push(name);
            }
        }
    }
    narrowed
}

/// Roles and databases with less room than before: their connections are replaced, so that they
/// are counted, and few enough.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    users: Vec<String>,
    databases: Vec<String>,
}

impl Narrowed {
    /// Whether a connection is to be replaced.
    pub(super) fn concerns(&self, role: &str, database: &str) -> bool {
        self.users.iter().any(|name| name == role)
            || self.databases.iter().any(|name| name == database)
    }
}

/// What keeps a lane from getting one more connection.
pub(super) struct Obstacles {
    user: bool,
    database: bool,
    total: bool,
    /// Those that are PostgreSQL's own.
    bars: Bars,
}

impl Obstacles {
    pub(super) fn any(&self) -> bool {
        self.user || self.database || self.total || self.bars.any()
    }

    /// Whether closing a connection of `other` removes them.
    pub(super) fn are_removed_by(&self, key: &LaneKey, other: &LaneKey) -> bool {
        (!(self.user || self.bars.role) || key.role() == other.role())
            && (!(self.database || self.bars.database) || key.database() == other.database())
            && (!self.bars.senders || other.is_single_use())
    }
}

/// What is known of the making of connections.
pub(super) struct Creations {
    /// Under way.
    pub(super) running: usize,
    /// Waiters for whom one is under way.
    pub(super) served: usize,
    /// Wanted in advance.
    pub(super) spare: usize,
    most: usize,
    initial_size: usize,
    throttle: Throttle,
    back_off: BackOff,
    outage: Option<Instant>,
    /// PostgreSQL's own limits.
    pub(super) ceilings: Ceilings,
    /// Somebody wakes up when the next may be made.
    is_awaited: bool,
    /// When somebody wakes up because a limit of PostgreSQL may let pass again.
    next_look: Option<Instant>,
}

impl Creations {
    pub(super) fn new(pool: &Pool, max_size: usize) -> Self {
        Self {
            running: 0,
            served: 0,
            spare: 0,
            most: pool.max_concurrent_creations,
            initial_size: pool.initial_size.min(max_size),
            throttle: Throttle::new(pool.creation_throttle, max_size, Instant::now()),
            back_off: BackOff::default(),
            outage: None,
            ceilings: Ceilings::default(),
            is_awaited: false,
            next_look: None,
        }
    }

    /// Takes over other limits.
    pub(super) fn change(&mut self, pool: &Pool, max_size: usize) {
        self.most = pool.max_concurrent_creations;
        self.throttle.change(pool.creation_throttle, max_size, Instant::now());
    }

    /// Since when PostgreSQL is out of reach.
    pub(super) fn outage(&self) -> Option<Instant> {
        self.outage
    }
}

/// A connection to be made.
pub(super) struct Order {
    pub(super) demand: Demand,
    /// Who is told when PostgreSQL says no.
    pub(super) ticket: Option<u64>,
    /// Go with the connection.
    pub(super) permits: Vec<Permit>,
    /// To be closed first.
    pub(super) evicted: Option<BackendConn>,
    /// PostgreSQL has no room until that one is really gone.
    pub(super) is_tight: bool,
}

/// What is to be done next.
pub(super) enum Next {
    /// Make one.
    Create(Box<Order>),
    /// Ask again then.
    Later { at: Instant, why: Why },
    /// Nothing, until something changes.
    Nothing,
}

/// Why none is made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The rate of creations.
    Throttled,
    /// The last attempt failed.
    BackOff,
    /// PostgreSQL had no room a moment ago, for anybody or for who waits.
    Full,
}

/// Why a connection could not be made.
pub(super) enum Failure {
    /// PostgreSQL cannot be reached, or there is no primary.
    Unavailable,
    /// PostgreSQL has no room, by this limit.
    Full(Error, LimitOf),
    /// PostgreSQL said no to this role, database or parameters.
    Refused(Error),
    /// It was given up.
    Abandoned,
}

impl Inner {
    /// The next creation that may begin. `changes` tells whose credentials are still good.
    pub(super) fn next_creation(&mut self, now: Instant, changes: u64) -> Next {
        let creations = &self.creations;
        if self.closed || creations.running >= creations.most {
            return Next::Nothing;
        }
        let Some((demand, ticket)) = self.candidate(now, changes) else { return self.later(now) };
        let in_demand = ticket.is_some();
        let creations = &mut self.creations;
        let throttled = creations.throttle.not_before(now);
        let at = throttled.max(creations.back_off.not_before(now, in_demand));
        if let Some(at) = at {
            if std::mem::replace(&mut creations.is_awaited, true) {
                return Next::Nothing;
            }
            let why = if throttled.is_some() { Why::Throttled } else { Why::BackOff };
            return Next::Later { at, why };
        }
        self.begin(demand, ticket, now)
    }

    /// Nothing can be made. If that is because of PostgreSQL's own limits, somebody has to look
    /// again when one of them may let pass: nothing else need happen until then.
    fn later(&mut self, now: Instant) -> Next {
        let creations = &mut self.creations;
        let change = creations.ceilings.next_change(now).filter(|_| !self.waiters.is_empty());
        let Some(at) = change else { return Next::Nothing };
        if creations.next_look.is_some_and(|known| known <= at) {
            return Next::Nothing;
        }
        creations.next_look = Some(at);
        Next::Later { at, why: Why::Full }
    }

    /// The time that was waited for has come.
    pub(super) fn wake(&mut self, why: Why, at: Instant) {
        let creations = &mut self.creations;
        match why {
            // Another one may be waiting for an earlier moment since.
            Why::Full => creations.next_look = creations.next_look.filter(|known| *known != at),
            Why::Throttled | Why::BackOff => creations.is_awaited = false,
        }
    }

    fn candidate(&mut self, now: Instant, changes: u64) -> Option<(Demand, Option<u64>)> {
        let limit = self.limit(now);
        // Of many waiters for a pool that is in use, none is looked at.
        if self.total >= limit && self.idle == 0 {
            return None;
        }
        let waiters = self.waiters.iter();
        let mut open = waiters.filter(|w| !w.is_served && !w.grant.is_closed());
        let first = open.find(|waiter| {
            let key = &waiter.demand.lane;
            let obstacles = self.obstacles(key, limit, now);
            !obstacles.any()
                || self.oldest_idle(|other| obstacles.are_removed_by(key, other)).is_some()
        });
        if let Some(waiter) = first {
            return Some((waiter.demand.clone(), Some(waiter.ticket)));
        }
        if self.creations.spare == 0 {
            return None;
        }
        let favourite = self.favourite(changes);
        let favourite = favourite.filter(|demand| !self.obstacles(&demand.lane, limit, now).any());
        if favourite.is_none() {
            self.creations.spare = 0;
        }
        favourite.map(|demand| (demand, None))
    }

    fn begin(&mut self, demand: Demand, ticket: Option<u64>, now: Instant) -> Next {
        let obstacles = self.obstacles(&demand.lane, self.limit(now), now);
        let mut evicted = None;
        if obstacles.any() {
            let removes = |other: &LaneKey| obstacles.are_removed_by(&demand.lane, other);
            evicted = self.oldest_idle(removes).and_then(|lane| self.pop_oldest(&lane));
        }
        match &mut evicted {
            Some(conn) => conn.permits.clear(),
            None => self.total += 1,
        }
        self.creations.throttle.take(now);
        self.creations.running += 1;
        match ticket {
            Some(ticket) => self.serve(ticket, true),
            None => self.creations.spare = self.creations.spare.saturating_sub(1),
        }
        let mut permits = self.gates.enter(&demand.lane);
        permits.extend(self.creations.ceilings.enter(&demand.lane));
        let is_tight = self.total >= self.creations.ceilings.limit(now) || obstacles.bars.any();
        Next::Create(Box::new(Order { demand, ticket, permits, evicted, is_tight }))
    }

    /// The connection that was made for a waiter is there. If it went to somebody else, or had to
    /// make room, another one is made.
    pub(super) fn made_for(&mut self, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            self.serve(ticket, false);
        }
    }

    fn serve(&mut self, ticket: u64, is_served: bool) {
        if let Ok(at) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket)
            && self.waiters[at].is_served != is_served
        {
            self.waiters[at].is_served = is_served;
            let lane = &self.waiters[at].demand.lane;
            match is_served {
                true => self.creations.served += 1,
                false => self.creations.served -= 1,
            }
            self.gates.waits(lane, if is_served { -1 } else { 1 });
        }
    }

    fn limit(&self, now: Instant) -> usize {
        self.policy.max_size.min(self.creations.ceilings.limit(now))
    }

    /// What keeps this lane from getting one more connection now.
    pub(super) fn obstacles_now(&self, key: &LaneKey) -> Obstacles {
        let now = Instant::now();
        self.obstacles(key, self.limit(now), now)
    }

    fn obstacles(&self, key: &LaneKey, limit: usize, now: Instant) -> Obstacles {
        let [user, database] = self.gates.of(key).map(|gate| gate.is_some_and(|g| g.is_full()));
        let bars = self.creations.ceilings.bars(key, now);
        Obstacles { user, database, total: self.total >= limit, bars }
    }

    /// Whether a connection of lane `key` that comes back has to go, so that one can be made for
    /// a waiter of another lane.
    pub(super) fn has_to_make_room(&self, waiter: &Waiter, key: &LaneKey) -> bool {
        let creations = &self.creations;
        if waiter.is_served || creations.running >= creations.most || waiter.grant.is_closed() {
            return false;
        }
        let now = Instant::now();
        let own = &waiter.demand.lane;
        let obstacles = self.obstacles(own, self.limit(now), now);
        obstacles.any()
            && obstacles.are_removed_by(own, key)
            && creations.back_off.not_before(now, true).is_none()
            && creations.throttle.not_before(now).is_none()
    }

    /// A connection was made. It is handed out by [`Inner::put_back`].
    pub(super) fn created(&mut self, demand: &Demand, conn: &BackendConn) {
        self.creations.running -= 1;
        self.creations.back_off.succeed();
        self.creations.outage = None;
        self.learn(demand, conn);
        let in_advance = std::mem::take(&mut self.creations.initial_size);
        if in_advance > 0 {
            self.creations.spare = in_advance.saturating_sub(self.total);
        }
    }

    /// A connection was not made; its permits are given back already. Returns true when PostgreSQL
    /// has just gone out of reach.
    pub(super) fn not_created(
        &mut self,
        order: &Order,
        failure: Failure,
        now: Instant,
        random: u8,
    ) -> bool {
        self.creations.running -= 1;
        self.room_freed();
        let ticket = order.ticket;
        if let Some(ticket) = ticket {
            self.serve(ticket, false);
        }
        match failure {
            Failure::Abandoned => false,
            Failure::Refused(error) => {
                self.creations.spare = 0;
                self.creations.back_off.succeed();
                self.creations.outage = None;
                self.refuse(ticket, error);
                false
            }
            Failure::Unavailable => {
                self.creations.back_off.fail(now, random);
                let is_new = self.creations.outage.is_none();
                self.creations.outage.get_or_insert(now);
                is_new
            }
            Failure::Full(error, of) => {
                let (words, total) = (error.message(), self.total);
                let refusal = Refusal { of, words, total, now, random };
                let verdict = self.creations.ceilings.reached(&order.demand.lane, &refusal);
                if verdict.concerns_all {
                    self.creations.back_off.fail(now, random);
                }
                if verdict.is_final {
                    self.refuse(ticket, error);
                }
                false
            }
        }
    }

    fn refuse(&mut self, ticket: Option<u64>, error: Error) {
        if let Some(waiter) = ticket.and_then(|ticket| self.leave(ticket)) {
            // Who has left does not need to know.
            let _ = waiter.grant.send(Grant::Refused(error));
        }
    }
}
