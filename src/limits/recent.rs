//! Whether something that is remembered is too old by now, told to a second: a clock is too slow to
//! be read ten times for each request.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The event loop of this thread turns, as it does at least once a second.
pub fn tick() {
    NOW.set(Some(Instant::now()));
}

/// Whether it is younger than this, or was a second ago. Threads that do not [`tick`] look at the
/// clock.
pub fn is_younger(at: Instant, age: Duration) -> bool {
    let now = NOW.get().unwrap_or_else(Instant::now);
    now.saturating_duration_since(at) < age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_with_the_event_loop() {
        let (age, now) = (Duration::from_secs(3), Instant::now());
        let at = now.checked_sub(age).unwrap();
        assert!(is_younger(now, age) && !is_younger(at, age));
        NOW.set(Some(at));
        assert!(is_younger(at, age));
        tick();
        assert!(!is_younger(at, age));
    }
}
