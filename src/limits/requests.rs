//! Which rates a request falls under, and what all of them together say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::rate::{Decision, Rate, RateLimiter, Subject};
use crate::config::{RateAlgorithm, RateLimit, RateRule, RateScope};
use crate::types::Role;

/// The default rate, and that of an API key that has one of its own.
const DEFAULT: u32 = 10;
const KEY: u32 = 11;

/// The first rule of the configuration.
const RULES: u32 = 100;

/// Who asks for what. A request is asked about in parts, as more of it is known: what one part
/// names, the others leave out, so nothing is counted twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The address of a client of which nothing else is known; the default rate counts it.
    pub stranger: Option<IpAddr>,
    /// Whether rules for everybody together count it.
    pub everybody: bool,
    /// The client's address, for the rules of addresses.
    pub address: Option<IpAddr>,
    /// Who it is; the default rate counts him, too.
    pub user: Option<&'a Role>,
    /// The public id of its API key, and the requests a second that this one is good for.
    pub api_key: Option<(&'a str, Option<u32>)>,
    /// The template of the route.
    pub route: Option<&'a str>,
}

/// What the limits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The tightest of them; it is in the answer's headers.
    pub tightest: Decision,
    /// The scope of the one that said no, for metrics and the log.
    pub refused: Option<RateScope>,
}

/// Spends `cost` under every rate that a request falls under, or under none if one of them says no;
/// `None` = there is no limit. More than can ever be there beside the request itself costs as much
/// as that, so that it is possible.
pub fn admit(
    limiter: &RateLimiter,
    config: &RateLimit,
    asked: &Asked<'_>,
    cost: u64,
    now: Duration,
) -> Option<Limits> {
    if !config.enabled {
        return None;
    }
    let rates = rates(config, asked);
    let cost_of = |rate: &Rate| cost.min(rate.most().saturating_sub(1)).max(1);
    if let [(scope, number, rate, subject)] = rates.as_slice() {
        let tightest = limiter.take((*number, *rate), subject, cost_of(rate), now);
        let refused = (!tightest.allowed).then_some(*scope);
        return Some(Limits { tightest, refused });
    }
    let look = |(scope, number, rate, subject): &(RateScope, u32, Rate, Subject)| {
        (*scope, limiter.look((*number, *rate), subject, cost_of(rate), now))
    };
    let refused = rates.iter().map(look).find(|(_, decision)| !decision.allowed);
    if let Some((scope, decision)) = refused {
        return Some(Limits { tightest: decision, refused: Some(scope) });
    }
    let taken = rates.iter().map(|(scope, number, rate, subject)| {
        (*scope, limiter.take((*number, *rate), subject, cost_of(rate), now))
    });
    // Between the look and now another request may have been faster.
    let tightest = taken.min_by_key(|(_, decision)| (decision.allowed, decision.remaining));
    tightest.map(|(scope, tightest)| {
        let refused = (!tightest.allowed).then_some(scope);
        Limits { tightest, refused }
    })
}

/// Takes back what [`admit`] has spent for a stranger: he has proved who he is, and is counted as
/// that.
pub fn recognised(limiter: &RateLimiter, config: &RateLimit, address: IpAddr, cost: u64) {
    if config.enabled {
        limiter.give_back((DEFAULT, default(config)), &Subject::address(address), cost);
    }
}

fn default(config: &RateLimit) -> Rate {
    Rate {
        algorithm: config.algorithm,
        requests: config.requests.into(),
        window: config.window_secs.duration(),
        burst: config.burst.into(),
    }
}

fn rates(config: &RateLimit, asked: &Asked<'_>) -> Vec<(RateScope, u32, Rate, Subject)> {
    let mut rates = Vec::with_capacity(2);
    let by_default = match (asked.user, asked.stranger) {
        (Some(user), _) => Some((RateScope::User, Subject::User(user.clone()))),
        (None, Some(address)) => Some((RateScope::Address, Subject::address(address))),
        (None, None) => None,
    };
    rates.extend(by_default.map(|(scope, subject)| (scope, DEFAULT, default(config), subject)));
    if let Some((id, Some(requests))) = asked.api_key {
        let requests = u64::from(requests.max(1));
        let algorithm = RateAlgorithm::TokenBucket;
        let rate = Rate { algorithm, requests, window: Duration::from_secs(1), burst: requests };
        rates.push((RateScope::ApiKey, KEY, rate, Subject::ApiKey(id.into())));
    }
    for (number, rule) in (RULES..).zip(&config.rules) {
        if let Some(subject) = subject(rule, asked) {
            let requests = u64::from(rule.requests);
            let rate = Rate {
                algorithm: rule.algorithm,
                requests,
                window: Duration::from_secs(rule.window_secs.into()),
                burst: rule.burst.map_or(requests, u64::from),
            };
            rates.push((rule.scope, number, rate, subject));
        }
    }
    rates
}

/// Whom a rule counts, if the request falls under it.
fn subject(rule: &RateRule, asked: &Asked<'_>) -> Option<Subject> {
    let is_meant = |name: &str| rule.key.as_deref().is_none_or(|key| key == name);
    match rule.scope {
        RateScope::Global => asked.everybody.then_some(Subject::All),
        RateScope::Address => {
            let address = asked.address?.to_canonical();
            is_meant(&address.to_string()).then(|| Subject::address(address))
        }
        RateScope::User => {
            let user = asked.user.filter(|user| is_meant(user.as_str()))?;
            Some(Subject::User(user.clone()))
        }
        RateScope::ApiKey => {
            let (id, _) = asked.api_key.filter(|(id, _)| is_meant(id))?;
            Some(Subject::ApiKey(id.into()))
        }
        RateScope::Route => {
            let route = asked.route.filter(|route| is_meant(route))?;
            Some(Subject::Route(Arc::from(route)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn rule(scope: RateScope, key: Option<&str>, requests: u32) -> RateRule {
        RateRule {
            id: "r".into(),
            scope,
            key: key.map(str::to_owned),
            algorithm: RateAlgorithm::FixedWindow,
            requests,
            window_secs: 60,
            burst: None,
        }
    }

    #[test]
    fn all_must_hold_and_the_tightest_is_told() {
        let config = RateLimit {
            rules: vec![
                rule(RateScope::Route, Some("/q"), 3),
                rule(RateScope::User, Some("joe"), 5),
            ],
            ..RateLimit::default()
        };
        let limiter = RateLimiter::new(1000);
        let (joe, ann) = (Role::from("joe"), Role::from("ann"));
        let ask = |user, route, cost| {
            let asked = Asked { user: Some(user), route: Some(route), ..Asked::default() };
            let limits = admit(&limiter, &config, &asked, cost, MS(0)).unwrap();
            (limits.refused, limits.tightest.remaining)
        };
        assert_eq!(ask(&joe, "/q", 2), (None, 1));
        assert_eq!(ask(&joe, "/q", 2), (Some(RateScope::Route), 1));
        // What one refused has cost nothing elsewhere.
        assert_eq!(ask(&joe, "/other", 1), (None, 2));
        assert_eq!(ask(&ann, "/q", 1), (None, 0));
        assert_eq!(ask(&ann, "/other", 1), (None, 198));
        assert_eq!(ask(&joe, "/other", 3), (Some(RateScope::User), 2));
        // What costs more than there can ever be is possible when there is everything.
        let tim = Role::from("tim");
        assert_eq!(ask(&tim, "/other", 1), (None, 199));
        assert_eq!(ask(&tim, "/other", 999), (None, 0));
        assert_eq!(ask(&tim, "/other", 999), (Some(RateScope::User), 0));
    }

    #[test]
    fn who_is_not_known_is_counted_by_address_and_a_key_by_itself() {
        let config = RateLimit { requests: 1, burst: 2, ..RateLimit::default() };
        let limiter = RateLimiter::new(1000);
        let asked =
            |address: &str| Asked { stranger: Some(address.parse().unwrap()), ..Asked::default() };
        let ask =
            |asked: &Asked<'_>, at| admit(&limiter, &config, asked, 1, MS(at)).unwrap().refused;
        assert_eq!(ask(&asked("2001:db8::1"), 0), None);
        assert_eq!(ask(&asked("2001:db8::2"), 0), None);
        assert_eq!(ask(&asked("2001:db8::3"), 0), Some(RateScope::Address));
        assert_eq!(ask(&asked("2001:db8:0:1::1"), 0), None);
        assert_eq!(ask(&asked("2001:db8::3"), 1000), None);
        recognised(&limiter, &config, "2001:db8::9".parse().unwrap(), 1);
        assert_eq!(ask(&asked("2001:db8::3"), 1000), None);
        assert_eq!(ask(&asked("2001:db8::3"), 1000), Some(RateScope::Address));
        let key = Asked { api_key: Some(("k", Some(1))), ..Asked::default() };
        assert_eq!(ask(&key, 0), None);
        assert_eq!(ask(&key, 0), Some(RateScope::ApiKey));
        let nothing = admit(&limiter, &config, &Asked::default(), 1, MS(0));
        assert_eq!(nothing, None);
        let rules = vec![rule(RateScope::Global, None, 1)];
        let all = RateLimit { rules, ..config.clone() };
        let everybody = Asked { everybody: true, ..Asked::default() };
        assert_eq!(admit(&limiter, &all, &everybody, 1, MS(0)).unwrap().refused, None);
        let refused = admit(&limiter, &all, &everybody, 1, MS(0)).unwrap().refused;
        assert_eq!(refused, Some(RateScope::Global));
        let off = RateLimit { enabled: false, ..config.clone() };
        assert_eq!(admit(&limiter, &off, &key, 1, MS(0)), None);
    }
}
