//! How many connections and how fast they are made: rate, back-off and size, as pure functions of
//! the time that is handed in.

use std::time::{Duration, Instant};

use crate::config::{Sizing, SizingMode};

/// First pause after a creation that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause while nobody waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Longest pause while somebody waits: a server that is back is found within this time.
const LONGEST_IN_DEMAND: Duration = Duration::from_millis(500);

/// A token bucket. It starts full, so that the first clients are served at once.
#[derive(Debug)]
pub(super) struct Throttle {
    per_second: Option<f64>,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Throttle {
    pub(super) fn new(per_second: Option<usize>, max_size: usize, now: Instant) -> Self {
        let rate = per_second.map(|n| n as f64);
        let burst = rate.unwrap_or(1.0).max(max_size as f64);
        Self { per_second: rate, burst, tokens: burst, filled: now }
    }

    /// Changes the rate. What was saved stays, up to the new burst.
    pub(super) fn change(&mut self, per_second: Option<usize>, max_size: usize, now: Instant) {
        let tokens = self.tokens(now);
        *self = Self::new(per_second, max_size, now);
        self.tokens = self.burst.min(tokens);
    }

    fn tokens(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + since * self.per_second.unwrap_or(0.0)).min(self.burst)
    }

    /// When the next connection may be made, if that is later than now.
    pub(super) fn not_before(&self, now: Instant) -> Option<Instant> {
        let rate = self.per_second?;
        let missing = 1.0 - self.tokens(now);
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing / rate))
    }

    /// A connection is being made.
    pub(super) fn take(&mut self, now: Instant) {
        self.tokens = (self.tokens(now) - 1.0).max(0.0);
        self.filled = now;
    }
}

/// The pause after failures.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
    failed: Option<Instant>,
    /// Between a half and one.
    part: f64,
}

impl BackOff {
    /// A creation failed. `random` spreads the attempts of many servers.
    pub(super) fn fail(&mut self, now: Instant, random: u8) {
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(now);
        self.part = 0.5 + f64::from(random) / 510.0;
    }

    /// A creation succeeded.
    pub(super) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// When the next attempt may be made, if that is later than now.
    pub(super) fn not_before(&self, now: Instant, in_demand: bool) -> Option<Instant> {
        let doubled = FIRST_PAUSE * 2u32.pow(self.failures.clamp(1, 10) - 1);
        let longest = if in_demand { LONGEST_IN_DEMAND } else { LONGEST_PAUSE };
        let at = self.failed? + doubled.min(longest).mul_f64(self.part);
        (at > now).then_some(at)
    }
}

/// How the pool stands when its size is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) total: usize,
    pub(super) idle: usize,
    pub(super) waiting: usize,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resize {
    Keep,
    /// Make so many in advance.
    Grow(usize),
    /// Close so many idle ones.
    Shrink(usize),
}

/// The bounds of the size and how it moves between them.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) min_size: usize,
    pub(super) max_size: usize,
    pub(super) sizing: Sizing,
}

impl Policy {
    /// Connections that are kept although nobody needs them.
    pub(super) fn floor(&self) -> usize {
        match self.sizing.mode {
            SizingMode::Elastic => self.min_size.min(self.max_size),
            SizingMode::Fixed => self.max_size,
        }
    }

    /// Looks at the size; `rested` = the last shrinking was long enough ago.
    pub(super) fn resize(&self, load: Load, rested: bool) -> Resize {
        let Load { total, idle, waiting } = load;
        let (floor, sizing) = (self.floor(), &self.sizing);
        if total < floor {
            return Resize::Grow(floor - total);
        }
        if sizing.mode == SizingMode::Fixed || total == 0 {
            return Resize::Keep;
        }
        let used = total.saturating_sub(idle) as f64 / total as f64;
        if used < sizing.scale_down_threshold && rested {
            return Resize::Shrink(sizing.step).at_most(idle.min(total - floor));
        }
        // Who waits gets connections anyway, as fast as they may be made.
        if used >= sizing.scale_up_threshold && waiting == 0 {
            return Resize::Grow(sizing.step).at_most(self.max_size.saturating_sub(total));
        }
        Resize::Keep
    }
}

impl Resize {
    fn at_most(self, most: usize) -> Self {
        match self {
            Resize::Grow(n) if n.min(most) > 0 => Resize::Grow(n.min(most)),
            Resize::Shrink(n) if n.min(most) > 0 => Resize::Shrink(n.min(most)),
            _ => Resize::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_full_pool_may_be_made_at_once_and_then_at_the_rate() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(Some(10), 30, begun);
        for _ in 0..30 {
            assert_eq!(throttle.not_before(begun), None);
            throttle.take(begun);
        }
        let next = throttle.not_before(begun).unwrap();
        assert!((next - begun).abs_diff(100 * MS) < MS, "{:?}", next - begun);
        assert!(throttle.not_before(begun + 90 * MS).is_some());
        assert_eq!(throttle.not_before(begun + 101 * MS), None);
        throttle.take(begun + 101 * MS);
        assert!(throttle.not_before(begun + 101 * MS).is_some());
        // What was not used is saved, up to the burst.
        let mut saved = 0;
        let later = begun + Duration::from_secs(3600);
        while throttle.not_before(later).is_none() {
            throttle.take(later);
            saved += 1;
        }
        assert_eq!(saved, 30);
    }

    #[test]
    fn a_new_rate_counts_at_once() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Some(1), 2, now);
        (0..2).for_each(|_| throttle.take(now));
        throttle.change(Some(100), 2, now);
        let next = throttle.not_before(now).unwrap();
        assert!((next - now).abs_diff(10 * MS) < MS, "{:?}", next - now);
        throttle.change(None, 2, now);
        assert_eq!(throttle.not_before(now), None);
    }

    #[test]
    fn without_a_rate_there_is_no_wait() {
        let now = Instant::now();
        let mut throttle = Throttle::new(None, 1, now);
        for _ in 0..1000 {
            assert_eq!(throttle.not_before(now), None);
            throttle.take(now);
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_that_depends_on_demand() {
        let now = Instant::now();
        let mut back_off = BackOff::default();
        assert_eq!(back_off.not_before(now, false), None);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            back_off.fail(now, 255);
            let pause = |demand| back_off.not_before(now, demand).unwrap() - now;
            pauses.push((pause(false).as_millis(), pause(true).as_millis()));
        }
        assert_eq!(pauses[..4], [(100, 100), (200, 200), (400, 400), (800, 500)]);
        assert_eq!(pauses[39], (10_000, 500));
        back_off.fail(now, 0);
        assert_eq!(back_off.not_before(now, false), Some(now + 5000 * MS));
        assert_eq!(back_off.not_before(now + 5000 * MS, false), None);
        back_off.succeed();
        assert_eq!(back_off.not_before(now, false), None);
    }

    fn decide(policy: &Policy, total: usize, idle: usize, waiting: usize, rested: bool) -> Resize {
        policy.resize(Load { total, idle, waiting }, rested)
    }

    #[test]
    fn the_size_follows_the_load_between_its_bounds() {
        let sizing = Sizing { step: 2, ..Sizing::default() };
        let mut policy = Policy { min_size: 3, max_size: 20, sizing };
        assert_eq!(decide(&policy, 0, 0, 0, true), Resize::Grow(3));
        assert_eq!(decide(&policy, 3, 3, 0, true), Resize::Keep);
        assert_eq!(decide(&policy, 10, 1, 0, true), Resize::Grow(2));
        assert_eq!(decide(&policy, 19, 0, 0, true), Resize::Grow(1));
        assert_eq!(decide(&policy, 20, 0, 0, true), Resize::Keep);
        assert_eq!(decide(&policy, 10, 0, 5, true), Resize::Keep);
        assert_eq!(decide(&policy, 10, 5, 0, true), Resize::Keep);
        assert_eq!(decide(&policy, 10, 9, 0, true), Resize::Shrink(2));
        assert_eq!(decide(&policy, 10, 9, 0, false), Resize::Keep);
        assert_eq!(decide(&policy, 4, 4, 0, true), Resize::Shrink(1));
        policy.sizing.mode = SizingMode::Fixed;
        assert_eq!(decide(&policy, 4, 4, 0, true), Resize::Grow(16));
        assert_eq!(decide(&policy, 20, 20, 0, true), Resize::Keep);
    }
}
