//! Connections that are *parked*: nobody has them, and what their last client left is still there,
//! for the next one of the same lane and class. Pure, as [`Inner`] is.

use std::any::Any;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use super::classes::{Fit, Tag, Wish};
use super::inner::{Inner, LaneKey};
use crate::backend::BackendConn;
use crate::telemetry::metrics::Raised;

/// What the session's side knows of the state on a connection; the pool only keeps it.
pub type Kept = Box<dyn Any + Send>;

/// A parked connection.
pub(super) struct Spot {
    pub(super) lane: Arc<LaneKey>,
    pub(super) worker: ThreadId,
    pub(super) conn: Box<BackendConn>,
    pub(super) class: Arc<str>,
    pub(super) tag: Tag,
    pub(super) kept: Kept,
    /// Clients that it has served.
    pub(super) uses: usize,
    /// Second of the pool's clock.
    pub(super) since: u32,
    /// Counts it among those of its class.
    pub(super) _counted: Raised,
}

/// All of them, the longest parked first. There are fewer than connections.
#[derive(Default)]
pub(super) struct Parking {
    spots: Vec<Spot>,
    /// Lane and class of those that are being tidied, and will be there in a moment.
    coming: Vec<(Arc<LaneKey>, Arc<str>)>,
}

impl Parking {
    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    pub(super) fn conns(&self) -> impl Iterator<Item = &BackendConn> {
        self.spots.iter().map(|spot| &*spot.conn)
    }

    /// The one whose tag suits best; among equals the last one, whose backend is still warm. Says
    /// whether its tag is exactly the one that is asked for.
    fn take(&mut self, lane: &LaneKey, wish: &Wish) -> Option<(Spot, bool)> {
        let class = wish.class.as_ref()?;
        let of_it = |spot: &Spot| *spot.lane == *lane && spot.class == *class;
        let fitting = self.spots.iter().enumerate().filter(|(_, spot)| of_it(spot));
        let fitting = fitting.filter_map(|(at, spot)| Some((wish.tag.fit(&spot.tag)?, at)));
        let (fit, at) = fitting.max()?;
        Some((self.spots.remove(at), fit == Fit::Exact))
    }

    /// The longest parked one that this is true for.
    pub(super) fn take_oldest(&mut self, fits: impl Fn(&Spot) -> bool) -> Option<Spot> {
        let at = self.spots.iter().position(fits)?;
        Some(self.spots.remove(at))
    }

    /// All that this is true for, at most so many.
    fn take_some(&mut self, most: usize, fits: impl Fn(&Spot) -> bool) -> Vec<BackendConn> {
        let taken = self.spots.extract_if(.., |spot| fits(spot)).take(most);
        taken.map(|spot| *spot.conn).collect()
    }

    /// The connections of all lanes that this is true for.
    pub(super) fn take_in(&mut self, of_it: impl Fn(&LaneKey) -> bool) -> Vec<BackendConn> {
        self.take_some(usize::MAX, |spot| of_it(&spot.lane))
    }

    /// The connections that are from before the last change of access.
    pub(super) fn take_outdated(&mut self, changes: u64) -> Vec<BackendConn> {
        self.take_some(usize::MAX, |spot| spot.conn.changes != changes)
    }

    /// The connections that this is true for.
    pub(super) fn take_where(&mut self, of_it: impl Fn(&BackendConn) -> bool) -> Vec<BackendConn> {
        self.take_some(usize::MAX, |spot| of_it(&spot.conn))
    }

    /// The longest parked ones beyond so many.
    pub(super) fn trim(&mut self, most: usize) -> Vec<BackendConn> {
        self.take_some(self.spots.len().saturating_sub(most), |_| true)
    }

    /// Parks one; returns the longest parked one if there are more than so many tags now.
    fn add(&mut self, spot: Spot, max_tags: usize) -> Option<Spot> {
        self.spots.push(spot);
        let mut tags: Vec<_> = self.spots.iter().map(|spot| (&spot.class, &spot.tag)).collect();
        tags.sort();
        tags.dedup();
        (tags.len() > max_tags).then(|| self.spots.remove(0))
    }

    fn forget_coming(&mut self, lane: &LaneKey, class: &str) {
        let of_it = |(l, c): &(Arc<LaneKey>, Arc<str>)| **l == *lane && **c == *class;
        if let Some(at) = self.coming.iter().position(of_it) {
            self.coming.swap_remove(at);
        }
    }
}

/// What a look for a parked connection gave.
pub(super) enum Look {
    /// This one; whether its tag is exactly the one that was asked for.
    Found(Box<Spot>, bool),
    /// None, but one is being tidied.
    Soon,
    /// None.
    Nothing,
}

impl Inner {
    /// Looks for a parked connection.
    pub(super) fn look(&mut self, lane: &LaneKey, wish: &Wish) -> Look {
        if self.closed || self.paused().holds(lane.database()) {
            return Look::Nothing;
        }
        if let Some((spot, exact)) = self.parking.take(lane, wish) {
            return Look::Found(Box::new(spot), exact);
        }
        let comes =
            |(l, c): &(Arc<LaneKey>, Arc<str>)| **l == *lane && wish.class.as_ref() == Some(c);
        match self.parking.coming.iter().any(comes) {
            true => Look::Soon,
            false => Look::Nothing,
        }
    }

    /// A connection will be parked, or not, in a moment: [`Inner::has_come`] follows.
    pub(super) fn comes(&mut self, lane: Arc<LaneKey>, class: Arc<str>) {
        self.parking.coming.push((lane, class));
    }

    pub(super) fn has_come(&mut self, lane: &LaneKey, class: &str) {
        self.parking.forget_coming(lane, class);
    }

    /// Parks a connection. Returns one that must be reset, or closed, instead: itself when others
    /// wait or there is no room for it, or the longest parked one.
    pub(super) fn park(&mut self, mut spot: Spot, max_tags: usize) -> Option<Spot> {
        let is_stale = spot.conn.ticket.as_ref().is_some_and(|ticket| ticket.is_stale());
        let unwanted = self.closed
            || is_stale
            || self.first_stuck().is_some()
            || self.total > self.policy.max_size
            || self.paused().holds(spot.lane.database());
        if unwanted {
            return Some(spot);
        }
        spot.since = self.clock;
        self.parking.add(spot, max_tags)
    }

    /// A parked connection that gives way to who waits for one of this lane, if that would help:
    /// of the same lane, else one whose end makes room.
    pub(super) fn give_way(&mut self, lane: &LaneKey) -> Option<Spot> {
        if self.parking.is_empty() {
            return None;
        }
        let obstacles = self.obstacles_now(lane);
        if !obstacles.any() {
            return None;
        }
        let own = self.parking.take_oldest(|spot| *spot.lane == *lane);
        own.or_else(|| self.parking.take_oldest(|s| obstacles.are_removed_by(lane, &s.lane)))
    }

    /// The lane of the first that waits for somebody else's connection, and for whom none can be
    /// made.
    pub(super) fn first_stuck(&self) -> Option<Arc<LaneKey>> {
        let mut waiting = self.waiters.iter().filter(|w| !w.is_served && !w.grant.is_closed());
        let first = waiting.find(|w| self.obstacles_now(&w.demand.lane).any())?;
        Some(first.demand.lane.clone())
    }

    /// Takes out what nobody has taken for too long, beyond `min`, and what is too old.
    pub(super) fn expire(
        &mut self,
        min: usize,
        inactive: Duration,
        life: Duration,
    ) -> Vec<(&'static str, BackendConn)> {
        let clock = self.clock;
        let old = self.parking.take_some(usize::MAX, |s| s.conn.created.elapsed() > life);
        let unused = |spot: &Spot| u64::from(clock.saturating_sub(spot.since)) > inactive.as_secs();
        let spare = self.parking.len().saturating_sub(min);
        let unused = self.parking.take_some(spare, unused);
        let old = old.into_iter().map(|conn| ("max_lifetime", conn));
        old.chain(unused.into_iter().map(|conn| ("parked_idle", conn))).collect()
    }

    /// Since when a parked connection was not used, if that is so long that it needs a check.
    pub(super) fn needs_check(&self, since: u32) -> bool {
        let idle_for = self.clock.wrapping_sub(since);
        self.skip_recent.is_some_and(|recent| idle_for > recent)
    }
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;
