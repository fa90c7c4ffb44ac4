//! Limits on how much happens at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A door that only so many may be inside of.
#[derive(Debug)]
pub struct Gate {
    inside: AtomicUsize,
    most: usize,
}

/// The right to be inside; leaving is dropping it.
#[derive(Debug)]
pub struct Permit(Arc<Gate>);

impl Gate {
    /// A gate for `most`.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), most })
    }

    /// Goes in, unless it is full.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        let enter = |n| if n < self.most { Some(n + 1) } else { None };
        self.inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter)
            .ok()
            .map(|_| Permit(self.clone()))
    }

    /// Whether nobody can go in now.
    pub fn is_full(&self) -> bool {
        self.inside.load(Ordering::Acquire) >= self.most()
    }

    /// How many may be inside.
    pub fn most(&self) -> usize {
        self.most
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
        assert!(gate.is_full() && gate.enter().is_none());
        drop(a);
        assert!(!gate.is_full());
        assert!(gate.enter().is_some());
        drop(b);
    }
}
