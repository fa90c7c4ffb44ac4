//! Limits on how much happens at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_opens_when_somebody_leaves() {
        let gate = Gate::new(2);
        let (a, b) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.enter().is_none());
        drop(a);
        assert!(gate.enter().is_some());
        gate.set_most(1);
        assert!(gate.enter().is_none());
        drop(b);
        assert!(gate.enter().is_some());
    }
}
