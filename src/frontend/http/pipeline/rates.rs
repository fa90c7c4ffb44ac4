//! How often requests may come: first by where they come from, then by whose they are.

use std::time::{Duration, Instant};

use axum::extract::MatchedPath;
use axum::http::request::Parts;

use super::super::extract::Caller;
use super::super::{HttpDoor, description, way_of};
use super::work::{InWork, Passage};
use crate::audit::{Event, EventType, Outcome};
use crate::auth::tokens::GrantKind;
use crate::auth::{Identity, Visit};
use crate::config::RateLimit;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::requests::{Asked, Limits, admit, recognised};
use crate::types::Role;

/// A request of which nothing is known but where it comes from and what it wants.
pub(super) fn coming(door: &HttpDoor, passage: &Passage) -> Result<()> {
    let config = &passage.config.rate_limit;
    let in_work = &passage.in_work;
    let stranger = Asked { stranger: passage.address(), ..Asked::default() };
    let decided = decide(door, in_work, ask(door, config, &stranger));
    if decided.is_err() || config.rules.is_empty() {
        return noted(door, decided, &passage.visit(), None, passage.path());
    }
    // Of a route that asks for no log-in nobody counts the requests later.
    let route = passage.route.as_ref().map(MatchedPath::as_str);
    let route = route.filter(|_| description::is_open(passage.path()));
    let by_rules = Asked { everybody: true, address: passage.address(), route, ..Asked::default() };
    let decided = decide(door, in_work, ask(door, config, &by_rules));
    noted(door, decided, &passage.visit(), None, passage.path())
}

/// A request whose sender is known now: he is counted, and his address is not any more.
///
/// # Errors
/// He comes too often.
pub fn proven(
    door: &HttpDoor,
    parts: &Parts,
    identity: &Identity,
    visit: &Visit,
    begun: Instant,
) -> Result<()> {
    let Some(in_work) = parts.extensions.get::<InWork>() else { return Ok(()) };
    in_work.proven(&identity.role, begun.elapsed());
    let user = principal(identity);
    let config = &door.config.now().rate_limit;
    let address = way_of(&parts.extensions).address;
    if let Some(address) = address.filter(|_| user.is_some()) {
        recognised(&door.limiter, config, address, 1);
    }
    if config.rules.is_empty() {
        in_work.unlimited();
    }
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let asked = Asked { user, api_key: key(identity), route, ..Asked::default() };
    let decided = decide(door, in_work, ask(door, config, &asked));
    noted(door, decided, visit, Some(&identity.role), parts.uri.path())
}

/// What a request at a route costs beside the one that it is.
///
/// # Errors
/// That is too much now.
pub fn charge(
    door: &HttpDoor,
    caller: &Caller,
    in_work: &InWork,
    route: &str,
    cost: usize,
) -> Result<()> {
    if cost == 0 {
        return Ok(());
    }
    let identity = &caller.identity;
    let user = principal(identity);
    let config = &door.config.now().rate_limit;
    let (api_key, route_of) = (key(identity), Some(route));
    let asked = Asked { user, api_key, route: route_of, ..Asked::default() };
    let cost = u64::try_from(cost).unwrap_or(u64::MAX);
    let limits = admit(&door.limiter, config, &asked, cost, door.limiter.now());
    let decided = decide(door, in_work, limits);
    noted(door, decided, &caller.visit, Some(&identity.role), route)
}

/// The API key that was shown, and how often it may be.
fn key(identity: &Identity) -> Option<(&str, Option<u32>)> {
    let grant = identity.grant.as_deref().filter(|grant| grant.kind == GrantKind::ApiKey)?;
    Some((grant.id.as_deref()?, grant.rate_limit))
}

/// Who is counted. Many people share the role of an issuer's tokens; those who show nothing are
/// nobody, and only their addresses are counted.
fn principal(identity: &Identity) -> Option<&Role> {
    match identity.grant.as_deref().map(|grant| (grant.kind, grant)) {
        Some((GrantKind::Anonymous, _)) => None,
        Some((GrantKind::Jwt, grant)) => Some(&grant.principal),
        _ => Some(&identity.role),
    }
}

/// Tells the audit log of a refusal, but not of thousands.
fn noted(
    door: &HttpDoor,
    decided: Result<()>,
    visit: &Visit,
    role: Option<&Role>,
    path: &str,
) -> Result<()> {
    if decided.is_err() && door.limited_notes.may(door.limiter.now()) {
        let mut event = Event::new(EventType::RateLimitExceeded, Outcome::Denied, "request");
        event.user_id = role.map(|role| role.to_string());
        door.auth.audit().note(visit.mark(event.about(path)));
    }
    decided
}

fn ask(door: &HttpDoor, config: &RateLimit, asked: &Asked<'_>) -> Option<Limits> {
    admit(&door.limiter, config, asked, 1, door.limiter.now())
}

fn decide(door: &HttpDoor, in_work: &InWork, limits: Option<Limits>) -> Result<()> {
    let Some(limits) = limits else { return Ok(()) };
    in_work.limited(limits.tightest);
    let Some(scope) = limits.refused else { return Ok(()) };
    door.metrics.access.limited(scope.word(), false);
    let wait = limits.tightest.retry_after.max(Duration::from_secs(1));
    let text = format!("too many requests: more than {} at once", limits.tightest.limit);
    Err(Error::new(ErrorKind::RateLimitExceeded, text)
        .with_hint("Retry-After tells when the next one can be taken")
        .with_retry_after(wait))
}
