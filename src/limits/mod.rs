//! Limits on how much happens at once, and how often.

pub mod lru;
pub mod rate;
pub mod recent;
pub mod requests;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// A door that only so many may be inside of.
#[derive(Debug)]
pub struct Gate {
    inside: AtomicUsize,
    most: AtomicUsize,
}

/// The right to be inside; leaving is dropping it.
#[derive(Debug)]
pub struct Permit(Arc<Gate>);

impl Gate {
    /// A gate for `most`.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), most: AtomicUsize::new(most) })
    }

    /// Goes in, unless it is full.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        let enter = |n| if n < self.most() { Some(n + 1) } else { None };
        self.inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter)
            .ok()
            .map(|_| Permit(self.clone()))
    }

    /// Whether nobody can go in now.
    pub fn is_full(&self) -> bool {
        self.inside() >= self.most()
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// How many more can go in now.
    pub fn room(&self) -> usize {
        self.most().saturating_sub(self.inside())
    }

    /// How many may be inside.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Changes that. Who is inside stays, also when they are more than that now.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Many small gates, one for each key that somebody is inside with, so their number is bounded by
/// the gate that everybody passes before.
#[derive(Debug)]
pub struct Shares<K: Hash + Eq> {
    inside: Mutex<HashMap<K, usize>>,
    /// `usize::MAX` = any number.
    most: AtomicUsize,
}

/// The right to be inside with a key; leaving is dropping it.
#[derive(Debug)]
pub struct Share<K: Hash + Eq>(Arc<Shares<K>>, K);

impl<K: Hash + Eq + Clone> Shares<K> {
    /// Gates for `most` each; `None` = for any number.
    pub fn new(most: Option<usize>) -> Arc<Self> {
        let most = AtomicUsize::new(most.unwrap_or(usize::MAX));
        Arc::new(Self { inside: Mutex::default(), most })
    }

    /// Changes that. Who is inside stays, also when they are more than that now.
    pub fn set_most(&self, most: Option<usize>) {
        self.most.store(most.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Goes in with a key.
    ///
    /// # Errors
    /// The limit, when it is reached.
    pub fn enter(self: &Arc<Self>, key: &K) -> Result<Share<K>, usize> {
        let most = self.most.load(Ordering::Relaxed);
        let mut inside = self.inside.lock();
        match inside.get_mut(key) {
            Some(n) if *n >= most => return Err(most),
            Some(n) => *n += 1,
            None if most == 0 => return Err(most),
            None => {
                inside.insert(key.clone(), 1);
            }
        }
        Ok(Share(self.clone(), key.clone()))
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let Self(shares, key) = self;
        let mut inside = shares.inside.lock();
        if let Some(n) = inside.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                inside.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_nobody_is_inside_with_is_forgotten() {
        let shares = Shares::new(Some(2));
        let (a, b) = (shares.enter(&"a").unwrap(), shares.enter(&"a").unwrap());
        assert_eq!(shares.enter(&"a").err(), Some(2));
        let c = shares.enter(&"c").unwrap();
        drop(a);
        let d = shares.enter(&"a").unwrap();
        drop((b, c, d));
        assert!(shares.inside.lock().is_empty());
        let open = Shares::new(None);
        let mut all: Vec<_> = (0..9).map(|_| open.enter(&1).unwrap()).collect();
        open.set_most(Some(8));
        assert_eq!(open.enter(&1).err(), Some(8), "who is inside counts");
        all.truncate(7);
        assert!(open.enter(&1).is_ok());
        open.set_most(Some(0));
        assert_eq!(open.enter(&2).err(), Some(0));
    }

    #[test]
    fn a_full_gate_opens_when_somebody_leaves() {
        let gate = Gate::new(2);
        let (a, b) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.is_full() && gate.enter().is_none());
        drop(a);
        assert!(!gate.is_full());
        assert!(gate.enter().is_some());
        gate.set_most(1);
        assert!(gate.enter().is_none());
        drop(b);
        assert!(gate.enter().is_some());
    }
}
