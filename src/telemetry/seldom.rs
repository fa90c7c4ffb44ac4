//! Records that could come in thousands, let through once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lets something happen at most once in a period.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    /// Milliseconds plus one of the last time; 0 = never.
    last: AtomicU64,
}

impl Seldom {
    /// Once in `every`.
    pub fn new(every: Duration) -> Self {
        Self { every, last: AtomicU64::new(0) }
    }

    /// Whether it may happen; `now` counts from any fixed moment.
    pub fn may(&self, now: Duration) -> bool {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1);
        let (now, last) = (ms(now) + 1, self.last.load(Ordering::Relaxed));
        if last != 0 && now < last + ms(self.every) {
            return false;
        }
        self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_period() {
        let seldom = Seldom::new(Duration::from_secs(5));
        let at = |secs| seldom.may(Duration::from_secs(secs));
        assert_eq!([0, 1, 4, 5, 9, 11].map(at), [true, false, false, true, false, true]);
    }
}
