//! Requests that were accepted and not started: a heap by priority, then by arrival.
//!
//! Each full second of waiting counts as one level more, so nothing starves. What belongs to a
//! transaction, and what asks for it, keeps the order of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// After each of these an entry counts one level higher.
const PROMOTION: Duration = Duration::from_secs(1);

/// How urgent a request is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Low,
    Normal,
    High,
    Critical,
}

impl Level {
    /// The level of the two bits of a frame's flags.
    pub(super) fn of_bits(bits: u16) -> Self {
        match bits {
            1 => Self::Low,
            2 => Self::High,
            3 => Self::Critical,
            _ => Self::Normal,
        }
    }

    fn raised(self, by: u64) -> Self {
        match self as u64 + by {
            0 => Self::Low,
            1 => Self::Normal,
            2 => Self::High,
            _ => Self::Critical,
        }
    }
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    level: Level,
    /// Counts arrivals.
    number: u64,
    at: Instant,
    /// Starts only when nothing that came before waits.
    ordered: bool,
    /// The request.
    pub(super) item: T,
}

/// The greatest is the next one.
struct Ranked<T> {
    key: (Level, Reverse<u64>),
    waiting: Waiting<T>,
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// The queue. Whoever puts something in sees to its bound.
pub(super) struct Queue<T> {
    heap: BinaryHeap<Ranked<T>>,
    arrivals: u64,
    /// When the levels were last computed.
    ranked: Option<Instant>,
    /// Between the arrival of a Begin and that of its end.
    in_transaction: bool,
}

/// What a request means for the order of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    Any,
    /// It waits for everything before it.
    Ordered,
    /// It begins a transaction.
    Begins,
    /// It ends one.
    Ends,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), arrivals: 0, ranked: None, in_transaction: false }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Puts a request in.
    pub(super) fn push(&mut self, level: Level, order: Order, now: Instant, item: T) {
        let ordered = self.in_transaction || matches!(order, Order::Ordered);
        match order {
            Order::Begins => self.in_transaction = true,
            Order::Ends => self.in_transaction = false,
            Order::Any | Order::Ordered => {}
        }
        self.arrivals += 1;
        let waiting = Waiting { level, number: self.arrivals, at: now, ordered, item };
        self.heap.push(Ranked { key: (level, Reverse(self.arrivals)), waiting });
        self.ranked.get_or_insert(now);
    }

    /// Takes the next one out. In a transaction that is the oldest.
    pub(super) fn pop(&mut self, now: Instant, in_transaction: bool) -> Option<T> {
        self.promote(now);
        let top = self.heap.peek()?;
        let popped = if in_transaction || top.waiting.ordered {
            let oldest = self.heap.iter().map(|ranked| ranked.waiting.number).min()?;
            // Something ordered gives way to the best of those that need not wait.
            let best = |ranked: &&Ranked<T>| {
                ranked.waiting.number == oldest || !in_transaction && !ranked.waiting.ordered
            };
            let only_oldest = in_transaction || top.waiting.number == oldest;
            let number = match only_oldest {
                true => oldest,
                false => self.heap.iter().filter(best).max()?.waiting.number,
            };
            self.take(|ranked| ranked.waiting.number == number)
        } else {
            self.heap.pop().map(|ranked| ranked.waiting.item)
        };
        if self.heap.is_empty() {
            self.ranked = None;
        }
        popped
    }

    /// Gives the memory back, if there is nothing in it, but for what one request at a time needs.
    pub(super) fn detach(&mut self) {
        if self.heap.is_empty() && self.heap.capacity() > 4 {
            self.heap = BinaryHeap::new();
        }
    }

    /// Takes the next one out outside of a transaction, if it fits and need not wait for others.
    pub(super) fn pop_if(&mut self, now: Instant, fits: impl Fn(&T) -> bool) -> Option<T> {
        self.promote(now);
        let top = &self.heap.peek()?.waiting;
        if top.ordered || !fits(&top.item) {
            return None;
        }
        self.pop(now, false)
    }

    /// Takes out the one that fits.
    pub(super) fn remove(&mut self, fits: impl Fn(&T) -> bool) -> Option<T> {
        self.take(|ranked| fits(&ranked.waiting.item))
    }

    /// Takes out the newest of the lowest level, if that is below this level.
    pub(super) fn give_way(&mut self, to: Level) -> Option<T> {
        let lowest = self.heap.iter().min()?;
        if lowest.key.0 >= to {
            return None;
        }
        let number = lowest.waiting.number;
        self.take(|ranked| ranked.waiting.number == number)
    }

    fn take(&mut self, fits: impl Fn(&Ranked<T>) -> bool) -> Option<T> {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        let found = all.iter().position(fits).map(|at| all.swap_remove(at).waiting.item);
        self.heap = all.into();
        found
    }

    fn promote(&mut self, now: Instant) {
        let due = |at| now.saturating_duration_since(at) >= PROMOTION;
        if self.heap.len() < 2 || !self.ranked.is_some_and(due) {
            return;
        }
        self.ranked = Some(now);
        let mut all = std::mem::take(&mut self.heap).into_vec();
        for ranked in &mut all {
            let waited = now.saturating_duration_since(ranked.waiting.at).as_secs();
            ranked.key.0 = ranked.waiting.level.raised(waited);
        }
        self.heap = all.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop(now, false)).collect()
    }

    #[test]
    fn the_most_urgent_comes_first_and_equals_in_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (level, item) in [
            (Level::Normal, "a"),
            (Level::Low, "b"),
            (Level::Critical, "c"),
            (Level::Normal, "d"),
            (Level::High, "e"),
        ] {
            queue.push(level, Order::Any, now, item);
        }
        assert_eq!(queue.len(), 5);
        assert_eq!(drain(&mut queue, now), ["c", "e", "a", "d", "b"]);
    }

    #[test]
    fn waiting_makes_more_urgent() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.push(Level::Low, Order::Any, start, "old");
        let later = start + Duration::from_millis(2100);
        queue.push(Level::Normal, Order::Any, later, "new");
        assert_eq!(queue.pop(later, false), Some("old"));
        queue.push(Level::Low, Order::Any, later, "low");
        assert_eq!(drain(&mut queue, later), ["new", "low"]);
        // Not beyond the highest level.
        queue.push(Level::High, Order::Any, start, "first");
        queue.push(Level::Critical, Order::Any, start, "second");
        assert_eq!(drain(&mut queue, start + Duration::from_secs(60)), ["first", "second"]);
    }

    #[test]
    fn what_is_ordered_waits_for_what_came_before() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Level::Normal, Order::Any, now, "a");
        queue.push(Level::Critical, Order::Ordered, now, "b");
        queue.push(Level::High, Order::Any, now, "c");
        assert_eq!(drain(&mut queue, now), ["c", "a", "b"]);
    }

    #[test]
    fn a_transaction_keeps_its_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Level::Normal, Order::Begins, now, "begin");
        queue.push(Level::Critical, Order::Any, now, "inside");
        queue.push(Level::Low, Order::Ends, now, "commit");
        queue.push(Level::Critical, Order::Any, now, "after");
        assert_eq!(queue.pop(now, false), Some("after"));
        assert_eq!(queue.pop(now, false), Some("begin"));
        queue.push(Level::Critical, Order::Any, now, "later");
        assert_eq!(queue.pop(now, true), Some("inside"));
        assert_eq!(queue.pop(now, true), Some("commit"));
        assert_eq!(queue.pop(now, false), Some("later"));
    }

    #[test]
    fn the_next_one_is_taken_only_if_it_fits() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Level::Normal, Order::Any, now, "a");
        queue.push(Level::High, Order::Any, now, "b");
        queue.push(Level::Normal, Order::Ordered, now, "c");
        assert_eq!(queue.pop_if(now, |item| *item == "a"), None);
        assert_eq!(queue.pop_if(now, |item| *item == "b"), Some("b"));
        assert_eq!(queue.pop_if(now, |_| true), Some("a"));
        assert_eq!(queue.pop_if(now, |_| true), None, "what is ordered stays");
        assert_eq!(drain(&mut queue, now), ["c"]);
    }

    #[test]
    fn the_newest_of_the_lowest_gives_way() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Level::Low, Order::Any, now, "a");
        queue.push(Level::Low, Order::Any, now, "b");
        queue.push(Level::High, Order::Any, now, "c");
        assert_eq!(queue.give_way(Level::Low), None);
        assert_eq!(queue.give_way(Level::Normal), Some("b"));
        assert_eq!(queue.remove(|item| *item == "c"), Some("c"));
        assert_eq!(drain(&mut queue, now), ["a"]);
    }
}
