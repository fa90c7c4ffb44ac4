//! The one rate limiter: how often somebody may do something. Time is a parameter, so everything
//! here can be computed by hand.
//!
//! A *rule* says how often; a *subject* is who is counted. Subjects are kept in a bounded map; one
//! that is forgotten begins anew, as one that was never seen, so forgetting never grants more than
//! that.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::lru::Lru;
use crate::config::RateAlgorithm;
use crate::types::Role;

/// Parts of the map, each with its own lock.
const SHARDS: usize = 16;

/// Up to this many requests in a window each is remembered, so that the window slides exactly.
const EXACT: u64 = 100;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How it is counted.
    pub algorithm: RateAlgorithm,
    /// Cost that may be spent in a window; at least 1.
    pub requests: u64,
    /// The window; at least a millisecond.
    pub window: Duration,
    /// What a token bucket holds when it is full; at least 1. Windows have no burst.
    pub burst: u64,
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everybody together.
    All,
    /// A client's address; see [`Subject::address`].
    Address(IpAddr),
    /// A role.
    User(Role),
    /// An API key, by its public id.
    ApiKey(Arc<str>),
    /// A route, by its template.
    Route(Arc<str>),
    /// A role from one address.
    UserAt(Role, IpAddr),
}

impl Subject {
    /// A client's address. Of IPv6 the first 64 bits count: that much everybody has for himself.
    pub fn address(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }
}

/// The address that stands for a client: an IPv4 address, or a /64 of IPv6.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let first = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(first))
        }
    }
}

/// What became of a request, and what its answer says of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may happen.
    pub allowed: bool,
    /// Cost that may be spent at most, for `RateLimit-Limit`.
    pub limit: u64,
    /// Cost that may be spent now, for `RateLimit-Remaining`.
    pub remaining: u64,
    /// Time until everything may be spent again, for `RateLimit-Reset`.
    pub reset: Duration,
    /// Time until this request could be allowed; zero when it was.
    pub retry_after: Duration,
}

/// What is remembered of a subject under a rule. Times are nanoseconds.
#[derive(Clone, Debug)]
enum State {
    /// `level` is in tokens × `window`, so that no refill is ever rounded.
    Bucket { level: u128, at: u64, window: u64 },
    /// Spent in the window of number `index`, and in the one before.
    Counters { index: u64, window: u64, now: u64, before: u64 },
    /// When each unit of cost was spent, oldest first; at most [`EXACT`].
    Log(VecDeque<u64>),
}

/// A rule by its number, and a subject.
type Key = (u32, Subject);

/// The limiter.
#[derive(Debug)]
pub struct RateLimiter {
    shards: Vec<Mutex<Lru<Key, State>>>,
    hasher: RandomState,
    /// The same moment by both clocks: windows are aligned to the hour, and time never goes back.
    begun: (Instant, Duration),
}

impl RateLimiter {
    /// A limiter that remembers about `most` subjects.
    pub fn new(most: usize) -> Self {
        let each = most.div_ceil(SHARDS);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Lru::new(each))).collect(),
            hasher: RandomState::new(),
            begun: (Instant::now(), wall),
        }
    }

    /// Changes how many subjects are remembered.
    pub fn set_most(&self, most: usize) {
        for shard in &self.shards {
            shard.lock().set_most(most.div_ceil(SHARDS));
        }
    }

    /// Subjects that are remembered now.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time, for the functions below.
    pub fn now(&self) -> Duration {
        self.begun.1 + self.begun.0.elapsed()
    }

    /// Spends `cost` of a subject under the rule of a number, if that much is left.
    pub fn take(&self, rule: (u32, Rate), who: &Subject, cost: u64, now: Duration) -> Decision {
        self.decide(rule, who, cost, now, true)
    }

    /// What [`Self::take`] would say; nothing is spent.
    pub fn look(&self, rule: (u32, Rate), who: &Subject, cost: u64, now: Duration) -> Decision {
        self.decide(rule, who, cost, now, false)
    }

    /// Takes back what was spent a moment ago.
    pub fn give_back(&self, (number, rate): (u32, Rate), who: &Subject, cost: u64) {
        let key = (number, who.clone());
        match self.shard(&key).lock().get(&key) {
            Some(State::Bucket { level, window, .. }) => {
                let full = u128::from(rate.burst.max(1)) * u128::from(*window);
                *level = full.min(*level + u128::from(cost) * u128::from(*window));
            }
            Some(State::Counters { now, .. }) => *now = now.saturating_sub(cost),
            Some(State::Log(times)) => {
                let cost = usize::try_from(cost).unwrap_or(usize::MAX);
                times.truncate(times.len().saturating_sub(cost));
            }
            None => {}
        }
    }

    /// Forgets what a subject has spent under a rule.
    pub fn forget(&self, rule: u32, who: &Subject) {
        let key = (rule, who.clone());
        self.shard(&key).lock().remove(&key);
    }

    /// Forgets whom nothing is remembered of but that it was there; `window` is the longest of all
    /// rules.
    pub fn sweep(&self, window: Duration, now: Duration) {
        let oldest = nanos(now).saturating_sub(nanos(window).saturating_mul(2));
        for shard in &self.shards {
            shard.lock().retain(|_, state| match state {
                State::Bucket { at, .. } => *at >= oldest,
                State::Counters { index, window, .. } => {
                    index.saturating_add(1).saturating_mul(*window) >= oldest
                }
                State::Log(times) => times.back().is_some_and(|at| *at >= oldest),
            });
        }
    }

    fn decide(
        &self,
        (number, rate): (u32, Rate),
        who: &Subject,
        cost: u64,
        now: Duration,
        spend: bool,
    ) -> Decision {
        let now = nanos(now);
        let key = (number, who.clone());
        let mut shard = self.shard(&key).lock();
        // A rule that was changed is counted in another way from now on.
        if let Some(state) = shard.get(&key).filter(|state| rate.fits(state)) {
            return match spend {
                true => rate.apply(state, cost, now, true),
                // A look ahead must not move the time on.
                false => rate.apply(&mut state.clone(), cost, now, false),
            };
        }
        let mut state = rate.fresh(now);
        let decision = rate.apply(&mut state, cost, now, spend);
        if spend && decision.allowed {
            shard.insert(key, state);
        }
        decision
    }

    fn shard(&self, key: &Key) -> &Mutex<Lru<Key, State>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

impl Rate {
    /// What can be spent at once at most.
    pub fn most(&self) -> u64 {
        match self.algorithm {
            RateAlgorithm::TokenBucket => self.burst.max(1),
            _ => self.requests.max(1),
        }
    }

    fn window_nanos(&self) -> u64 {
        nanos(self.window).max(1_000_000)
    }

    fn is_exact(&self) -> bool {
        self.algorithm == RateAlgorithm::SlidingWindow && self.requests <= EXACT
    }

    fn fits(&self, state: &State) -> bool {
        match state {
            State::Bucket { .. } => self.algorithm == RateAlgorithm::TokenBucket,
            State::Log(_) => self.is_exact(),
            State::Counters { window, .. } => {
                self.algorithm != RateAlgorithm::TokenBucket
                    && !self.is_exact()
                    && *window == self.window_nanos()
            }
        }
    }

    fn fresh(&self, now: u64) -> State {
        let window = self.window_nanos();
        match self.algorithm {
            RateAlgorithm::TokenBucket => {
                let level = u128::from(self.burst.max(1)) * u128::from(window);
                State::Bucket { level, at: now, window }
            }
            _ if self.is_exact() => State::Log(VecDeque::new()),
            _ => State::Counters { index: now / window, window, now: 0, before: 0 },
        }
    }

    fn apply(&self, state: &mut State, cost: u64, now: u64, spend: bool) -> Decision {
        match state {
            State::Bucket { level, at, window } => {
                self.bucket((level, at, window), cost, now, spend)
            }
            State::Log(times) => self.log(times, cost, now, spend),
            State::Counters { index, now: spent, before, .. } => {
                self.counters((index, spent, before), cost, now, spend)
            }
        }
    }

    fn bucket(
        &self,
        (level, at, known_window): (&mut u128, &mut u64, &mut u64),
        cost: u64,
        now: u64,
        spend: bool,
    ) -> Decision {
        let window = self.window_nanos();
        let (requests, unit) = (u128::from(self.requests.max(1)), u128::from(window));
        let full = u128::from(self.burst.max(1)) * unit;
        if *known_window != window {
            // As many tokens as before, in the new unit.
            *level = *level / u128::from((*known_window).max(1)) * unit;
            *known_window = window;
        }
        let elapsed = u128::from(now.saturating_sub(*at));
        *level = level.saturating_add(elapsed.saturating_mul(requests)).min(full);
        *at = now.max(*at);
        let wanted = u128::from(cost) * unit;
        let allowed = wanted <= *level;
        if allowed && spend {
            *level -= wanted;
        }
        let until = |goal: u128| time(goal.saturating_sub(*level).div_ceil(requests));
        Decision {
            allowed,
            limit: self.burst.max(1),
            remaining: u64::try_from(*level / unit).unwrap_or(u64::MAX),
            reset: until(full),
            retry_after: if allowed { Duration::ZERO } else { until(wanted.min(full)) },
        }
    }

    fn log(&self, times: &mut VecDeque<u64>, cost: u64, now: u64, spend: bool) -> Decision {
        let window = self.window_nanos();
        let limit = self.requests.max(1);
        while times.front().is_some_and(|at| now.saturating_sub(*at) >= window) {
            times.pop_front();
        }
        let spent = times.len() as u64;
        let left = limit.saturating_sub(spent);
        let allowed = cost <= left;
        let until = |at: Option<&u64>| {
            let end = at.map_or(now, |at| at.saturating_add(window));
            Duration::from_nanos(end.saturating_sub(now))
        };
        // When enough of the oldest have left.
        let missing = usize::try_from(cost.saturating_sub(left)).unwrap_or(usize::MAX);
        let retry = until(times.get(missing.saturating_sub(1)).or(times.back()));
        if allowed && spend {
            times.extend((0..cost).map(|_| now));
        }
        Decision {
            allowed,
            limit,
            remaining: limit.saturating_sub(times.len() as u64),
            reset: until(times.back()),
            retry_after: if allowed { Duration::ZERO } else { retry },
        }
    }

    /// A window of fixed place, or the weighted sum of it and the one before.
    fn counters(
        &self,
        (index, spent, before): (&mut u64, &mut u64, &mut u64),
        cost: u64,
        now: u64,
        spend: bool,
    ) -> Decision {
        let (window, limit) = (self.window_nanos(), self.requests.max(1));
        let current = now / window;
        if current > *index {
            *before = if current == *index + 1 { *spent } else { 0 };
            *spent = 0;
            *index = current;
        }
        let into = now.saturating_sub(index.saturating_mul(window));
        let slides = self.algorithm == RateAlgorithm::SlidingWindow;
        // Rounded up: never more than the limit in any window of that length, as far as the
        // requests of the window before were spread evenly.
        let carried = match slides {
            true => {
                let rest = u128::from(window - into.min(window));
                let carried = (u128::from(*before) * rest).div_ceil(u128::from(window));
                u64::try_from(carried).unwrap_or(u64::MAX)
            }
            false => 0,
        };
        let used = carried.saturating_add(*spent);
        let allowed = cost <= limit.saturating_sub(used);
        if allowed && spend {
            *spent += cost;
        }
        let end = Duration::from_nanos(window.saturating_sub(into));
        let used = carried.saturating_add(*spent);
        let retry_after = match (allowed, slides) {
            (true, _) => Duration::ZERO,
            (false, false) => end,
            (false, true) => {
                let over = u128::from(used.saturating_add(cost).saturating_sub(limit));
                // What was carried falls evenly until the end of this window.
                match u128::from(*before) {
                    before if before > 0 && spent.saturating_add(cost) <= limit => {
                        time((over * u128::from(window)).div_ceil(before)).min(end)
                    }
                    _ => end,
                }
            }
        };
        Decision {
            allowed,
            limit,
            remaining: limit.saturating_sub(used),
            reset: if slides { end + self.window } else { end },
            retry_after,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn time(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use RateAlgorithm::{FixedWindow, SlidingWindow, TokenBucket};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn rate(algorithm: RateAlgorithm, requests: u64, window_ms: u64, burst: u64) -> Rate {
        Rate { algorithm, requests, window: MS(window_ms), burst }
    }

    fn user(name: &str) -> Subject {
        Subject::User(name.into())
    }

    /// Steps of (milliseconds, cost) → (allowed, remaining, reset ms, retry ms).
    /// When and for how much it is asked, and what is answered.
    type Step = ((u64, u64), (bool, u64, u64, u64));

    fn run(rate: Rate, steps: &[Step]) {
        let limiter = RateLimiter::new(100);
        for (step, ((at, cost), expected)) in steps.iter().enumerate() {
            let looked = limiter.look((1, rate), &user("a"), *cost, MS(*at));
            let got = limiter.take((1, rate), &user("a"), *cost, MS(*at));
            assert_eq!(looked.allowed, got.allowed, "step {step}");
            let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap();
            let got = (got.allowed, got.remaining, ms(got.reset), ms(got.retry_after));
            assert_eq!(got, *expected, "{rate:?}, step {step}");
        }
    }

    #[test]
    fn a_token_bucket_fills_evenly_up_to_its_burst() {
        run(
            rate(TokenBucket, 10, 1000, 4),
            &[
                ((0, 1), (true, 3, 100, 0)),
                ((0, 3), (true, 0, 400, 0)),
                ((50, 1), (false, 0, 350, 50)),
                ((100, 1), (true, 0, 400, 0)),
                ((350, 3), (false, 2, 150, 50)),
                ((350, 0), (true, 2, 150, 0)),
                ((10_000, 4), (true, 0, 400, 0)),
                ((10_000, 9), (false, 0, 400, 400)),
                // A clock that goes back gives nothing.
                ((9_000, 1), (false, 0, 400, 100)),
            ],
        );
    }

    #[test]
    fn a_fixed_window_begins_anew_at_its_end() {
        run(
            rate(FixedWindow, 3, 1000, 1),
            &[
                ((900, 2), (true, 1, 100, 0)),
                ((900, 2), (false, 1, 100, 100)),
                ((999, 1), (true, 0, 1, 0)),
                ((1000, 3), (true, 0, 1000, 0)),
                ((1999, 1), (false, 0, 1, 1)),
            ],
        );
    }

    #[test]
    fn a_sliding_window_is_exact_for_few_and_weighted_for_many() {
        run(
            rate(SlidingWindow, 3, 1000, 1),
            &[
                ((0, 1), (true, 2, 1000, 0)),
                ((400, 2), (true, 0, 1000, 0)),
                ((900, 1), (false, 0, 500, 100)),
                ((900, 2), (false, 0, 500, 500)),
                ((1000, 1), (true, 0, 1000, 0)),
                ((1399, 1), (false, 0, 601, 1)),
                ((1400, 2), (true, 0, 1000, 0)),
            ],
        );
        run(
            rate(SlidingWindow, 200, 1000, 1),
            &[
                ((500, 200), (true, 0, 1500, 0)),
                ((1000, 1), (false, 0, 2000, 5)),
                ((1005, 1), (true, 0, 1995, 0)),
                ((1500, 99), (true, 0, 1500, 0)),
                ((1500, 1), (false, 0, 1500, 5)),
                ((4000, 200), (true, 0, 2000, 0)),
            ],
        );
    }

    #[test]
    fn whatever_is_asked_no_more_is_granted_than_the_rule_allows() {
        for (algorithm, most_at_once) in [(TokenBucket, 30), (FixedWindow, 40), (SlidingWindow, 20)]
        {
            let rate = rate(algorithm, 20, 1000, 10);
            let limiter = RateLimiter::new(1000);
            let (mut seed, mut now, mut granted) = (1_u64, 0_u64, Vec::new());
            for _ in 0..20_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now += (seed >> 33) % 60;
                let cost = 1 + (seed >> 60) % 3;
                let decision = limiter.take((0, rate), &user("x"), cost, MS(now));
                if decision.allowed {
                    granted.push((now, cost));
                } else {
                    assert!(decision.retry_after > Duration::ZERO);
                    // It is honest: what is asked again then is granted.
                    let later = MS(now) + decision.retry_after;
                    assert!(limiter.look((0, rate), &user("x"), cost, later).allowed);
                }
            }
            for (at, (begin, _)) in granted.iter().enumerate() {
                let within = granted[at..].iter().take_while(|(time, _)| time - begin < 1000);
                let sum: u64 = within.map(|(_, cost)| cost).sum();
                assert!(sum <= most_at_once, "{algorithm:?}: {sum}");
            }
            // In the long run the rate is used up.
            let total: u64 = granted.iter().map(|(_, cost)| cost).sum();
            assert!(total * 1000 >= now * 20 * 9 / 10, "{algorithm:?}: {total} in {now} ms");
        }
    }

    #[test]
    fn rules_and_subjects_do_not_disturb_each_other_and_are_bounded() {
        let (limiter, one) = (RateLimiter::new(160), rate(FixedWindow, 1, 1000, 1));
        assert!(limiter.take((1, one), &user("a"), 1, MS(0)).allowed);
        assert!(limiter.take((2, one), &user("a"), 1, MS(0)).allowed);
        assert!(limiter.take((1, one), &user("b"), 1, MS(0)).allowed);
        assert!(!limiter.take((1, one), &user("a"), 1, MS(0)).allowed);
        limiter.forget(1, &user("a"));
        assert!(limiter.take((1, one), &user("a"), 1, MS(0)).allowed);
        for n in 0..10_000 {
            limiter.take((1, one), &user(&n.to_string()), 1, MS(0));
        }
        assert!(limiter.len() <= 160);
        limiter.sweep(MS(1000), MS(2999));
        assert!(!limiter.is_empty());
        limiter.sweep(MS(1000), MS(3100));
        assert!(limiter.is_empty());
    }

    #[test]
    fn who_is_refused_for_the_first_time_takes_no_room() {
        let (limiter, rate) = (RateLimiter::new(16), rate(TokenBucket, 1, 1000, 1));
        assert!(!limiter.take((1, rate), &user("a"), 5, MS(0)).allowed);
        assert!(limiter.is_empty());
    }

    #[test]
    fn a_changed_rule_keeps_what_was_spent_from_a_bucket() {
        let limiter = RateLimiter::new(16);
        let before = rate(TokenBucket, 10, 1000, 10);
        assert!(limiter.take((1, before), &user("a"), 8, MS(0)).allowed);
        let after = rate(TokenBucket, 10, 60_000, 20);
        assert_eq!(limiter.look((1, after), &user("a"), 1, MS(0)).remaining, 2);
        let window = rate(SlidingWindow, 5, 1000, 1);
        assert_eq!(limiter.take((1, window), &user("a"), 1, MS(0)).remaining, 4);
    }

    #[test]
    fn neighbours_within_a_64_are_one_client() {
        let of = |text: &str| Subject::address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
