//! What happens when somebody tries passwords: after some failures he has to wait.
//!
//! Only failures count. A client that has logged in from its address before is counted by itself,
//! by role and address together: nobody elsewhere can lock it out, and it is not held up by what
//! others behind the same address do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{Live, RateAlgorithm};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::lru::Lru;
use crate::limits::rate::{Rate, RateLimiter, Subject, network_of};
use crate::telemetry::Metrics;
use crate::types::Role;

/// Numbers of the rules of log-ins.
const ADDRESS: u32 = 1;
const USER: u32 = 2;
const LOCKOUT: u32 = 3;

/// Pairs of role and address that have logged in.
const KNOWN: usize = 10_000;

/// Roles, or pairs, that are locked at once.
const LOCKED: usize = 100_000;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts failures.
pub struct Guard {
    live: Live,
    limiter: Arc<RateLimiter>,
    metrics: Arc<Metrics>,
    known: Mutex<Lru<(Role, IpAddr), ()>>,
    /// Until when.
    locked: Mutex<Lru<Subject, Duration>>,
}

impl Guard {
    /// Over the server's limiter.
    pub fn new(live: Live, limiter: Arc<RateLimiter>, metrics: Arc<Metrics>) -> Self {
        let (known, locked) = (Mutex::new(Lru::new(KNOWN)), Mutex::new(Lru::new(LOCKED)));
        Self { live, limiter, metrics, known, locked }
    }

    /// Whether somebody may try now. `address` is `None` for a Unix socket.
    ///
    /// # Errors
    /// He has to wait, and for how long. It reads the same whether there is such a role or not.
    pub fn may_try(&self, role: &Role, address: Option<IpAddr>) -> Result<()> {
        self.may_try_at(role, address, self.limiter.now())
    }

    /// Counts a failure; returns whether the role is locked now that was not before.
    pub fn failed(&self, role: &Role, address: Option<IpAddr>) -> bool {
        self.failed_at(role, address, self.limiter.now())
    }

    /// Remembers that a client knows its password.
    pub fn succeeded(&self, role: &Role, address: Option<IpAddr>) {
        let at = place(address);
        let pair = Subject::UserAt(role.clone(), at);
        self.limiter.forget(LOCKOUT, &pair);
        self.known.lock().insert((role.clone(), at), ());
    }

    fn may_try_at(&self, role: &Role, address: Option<IpAddr>, now: Duration) -> Result<()> {
        let whom = self.whom(role, address);
        let locked = self.locked.lock().peek(&whom).copied();
        if let Some(left) = locked.and_then(|until| until.checked_sub(now))
            && !left.is_zero()
        {
            return self.decided(false, left);
        }
        if matches!(whom, Subject::UserAt(..)) {
            return self.decided(true, Duration::ZERO);
        }
        let user = self.live.now().rate_limit.login_per_user;
        let user = user.map(|most| (USER, per_minute(most), whom));
        let address = self.address_rule(address);
        let address = address.map(|(rate, subject)| (ADDRESS, rate, subject));
        for (number, rate, subject) in [user, address].into_iter().flatten() {
            let decision = self.limiter.look((number, rate), &subject, 1, now);
            if !decision.allowed {
                return self.decided(false, decision.retry_after);
            }
        }
        self.decided(true, Duration::ZERO)
    }

    fn failed_at(&self, role: &Role, address: Option<IpAddr>, now: Duration) -> bool {
        let (config, whom) = (self.live.now(), self.whom(role, address));
        if matches!(whom, Subject::User(_)) {
            if let Some(most) = config.rate_limit.login_per_user {
                self.limiter.take((USER, per_minute(most)), &whom, 1, now);
            }
            if let Some((rate, subject)) = self.address_rule(address) {
                self.limiter.take((ADDRESS, rate), &subject, 1, now);
            }
        }
        let lockout = &config.lockout;
        let duration = lockout.duration_secs.duration();
        if duration.is_zero() {
            return false;
        }
        let rate = sliding(lockout.max_failures, lockout.window_secs.duration());
        let decision = self.limiter.take((LOCKOUT, rate), &whom, 1, now);
        if decision.remaining > 0 {
            return false;
        }
        self.limiter.forget(LOCKOUT, &whom);
        self.locked.lock().insert(whom, now + duration);
        true
    }

    /// Who is counted: a role, or a role from an address that knows its password.
    fn whom(&self, role: &Role, address: Option<IpAddr>) -> Subject {
        let at = place(address);
        match self.known.lock().get(&(role.clone(), at)) {
            Some(()) => Subject::UserAt(role.clone(), at),
            None => Subject::User(role.clone()),
        }
    }

    /// Loopback is no address: behind it are all the programs of the machine, or a proxy.
    fn address_rule(&self, address: Option<IpAddr>) -> Option<(Rate, Subject)> {
        let most = self.live.now().rate_limit.login_per_address?;
        let address = address.filter(|address| !address.to_canonical().is_loopback())?;
        Some((per_minute(most), Subject::address(address)))
    }

    fn decided(&self, allowed: bool, wait: Duration) -> Result<()> {
        self.metrics.access.limited("login", allowed);
        if allowed {
            return Ok(());
        }
        let seconds = wait.as_secs().max(1);
        Err(Error::new(ErrorKind::RateLimitExceeded, "too many failed log-ins")
            .with_detail(format!("The next attempt is possible in {seconds} s."))
            .with_retry_after(wait))
    }
}

fn per_minute(most: u32) -> Rate {
    sliding(most, MINUTE)
}

fn sliding(most: u32, window: Duration) -> Rate {
    let requests = u64::from(most.max(1));
    Rate { algorithm: RateAlgorithm::SlidingWindow, requests, window, burst: requests }
}

/// The Unix socket is a place of its own.
fn place(address: Option<IpAddr>) -> IpAddr {
    address.map_or(IpAddr::from([0, 0, 0, 0]), network_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const AT: fn(u64) -> Duration = |secs| Duration::from_secs(1_000_000 + secs);

    fn guard() -> Guard {
        let limiter = Arc::new(RateLimiter::new(1000));
        Guard::new(Live::fixed(Config::default()), limiter, Arc::default())
    }

    fn from(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_role_waits_after_five_failures_and_is_locked_after_ten() {
        let (guard, joe, far) = (guard(), Role::from("joe"), from("192.0.2.1"));
        for n in 0..5 {
            guard.may_try_at(&joe, far, AT(n)).unwrap();
            assert!(!guard.failed_at(&joe, far, AT(n)));
        }
        let error = guard.may_try_at(&joe, from("192.0.2.9"), AT(5)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimitExceeded);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(55)));
        assert_eq!(error.sqlstate().as_str(), "53400");
        assert!(guard.may_try_at(&"ann".into(), far, AT(5)).is_ok());
        assert!(guard.may_try_at(&joe, far, AT(60)).is_ok());
        let locks: Vec<bool> = (60..65).map(|n| guard.failed_at(&joe, far, AT(n))).collect();
        assert_eq!(locks, [false, false, false, false, true]);
        assert!(guard.may_try_at(&joe, far, AT(64 + 899)).is_err());
        assert!(guard.may_try_at(&joe, far, AT(64 + 900)).is_ok());
    }

    #[test]
    fn who_has_logged_in_before_is_not_locked_out_by_others() {
        let (guard, joe) = (guard(), Role::from("joe"));
        guard.succeeded(&joe, from("10.0.0.1"));
        for n in 0..40 {
            guard.failed_at(&joe, from("192.0.2.1"), AT(n));
        }
        assert!(guard.may_try_at(&joe, from("192.0.2.1"), AT(40)).is_err());
        assert!(guard.may_try_at(&joe, from("10.0.0.1"), AT(40)).is_ok());
        // But by himself he is.
        for n in 40..49 {
            assert!(!guard.failed_at(&joe, from("10.0.0.1"), AT(n)));
        }
        assert!(guard.may_try_at(&joe, from("10.0.0.1"), AT(49)).is_ok());
        assert!(guard.failed_at(&joe, from("10.0.0.1"), AT(49)));
        assert!(guard.may_try_at(&joe, from("10.0.0.1"), AT(50)).is_err());
    }

    #[test]
    fn an_address_waits_after_ten_failures_whoever_it_claims_to_be() {
        let guard = guard();
        for (address, waits) in [("192.0.2.1", true), ("127.0.0.1", false), ("::1", false)] {
            for n in 0..10 {
                let role = Role::from(format!("{address}{n}").as_str());
                guard.failed_at(&role, from(address), AT(n));
            }
            let next = guard.may_try_at(&"other".into(), from(address), AT(10));
            assert_eq!(next.is_err(), waits, "{address}");
        }
        assert!(guard.may_try_at(&"other".into(), None, AT(10)).is_ok());
    }

    #[test]
    fn success_is_never_counted() {
        let (guard, joe) = (guard(), Role::from("joe"));
        for n in 0..1000 {
            guard.may_try_at(&joe, from("192.0.2.1"), AT(n / 100)).unwrap();
            guard.succeeded(&joe, from("192.0.2.1"));
        }
    }
}
