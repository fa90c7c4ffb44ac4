//! Limits of PostgreSQL itself, as far as its refusals tell: `max_connections`, `max_wal_senders`,
//! and the `CONNECTION LIMIT` of a role or a database. Pure, as [`super::inner::Inner`] is.
//!
//! A refusal does not say how many connections others have, nor when they go. So what the pool has
//! at that moment is taken for its share, for a while; it concerns those alone whose limit it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inner::LaneKey;
use super::sizing::BackOff;
use crate::backend::LimitOf;
use crate::limits::{Gate, Permit};

/// How long a number of connections that PostgreSQL did not exceed is taken for its limit.
const LASTS: Duration = Duration::from_secs(5);

/// How long a limit that is reached is asked again for somebody who has nothing else to wait for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Roles, and databases, whose limits are remembered at once.
const MOST: usize = 256;

/// Names beyond which those without a connection are forgotten.
const MOST_NAMES: usize = 512;

/// A limit of PostgreSQL that was reached.
#[derive(Debug)]
struct Ceiling {
    /// Connections that the pool may have, at least 1.
    most: usize,
    since: Instant,
    last: Instant,
    back_off: BackOff,
    /// PostgreSQL's words.
    words: String,
}

impl Ceiling {
    fn is_known(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < LASTS
    }

    fn bars(&self, held: usize, now: Instant) -> bool {
        self.is_known(now) && (held >= self.most || self.back_off.not_before(now, true).is_some())
    }

    /// The next moment at which it may let somebody pass.
    fn next_change(&self, now: Instant) -> Option<Instant> {
        let end = self.is_known(now).then(|| self.last + LASTS)?;
        Some(self.back_off.not_before(now, true).map_or(end, |at| at.min(end)))
    }
}

/// Connections by the name of a role or database, those being made included.
#[derive(Debug, Default)]
struct Held(HashMap<String, Arc<Gate>>);

impl Held {
    fn enter(&mut self, name: &str) -> Option<Permit> {
        if let Some(gate) = self.0.get(name) {
            return gate.enter();
        }
        if self.0.len() >= MOST_NAMES {
            self.0.retain(|_, gate| gate.inside() > 0);
        }
        let gate = Gate::new(usize::MAX);
        let permit = gate.enter();
        self.0.insert(name.to_owned(), gate);
        permit
    }

    fn of(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, |gate| gate.inside())
    }
}

/// Limits of one kind, by name.
#[derive(Debug, Default)]
struct Named {
    held: Held,
    reached: HashMap<String, Ceiling>,
}

impl Named {
    fn bars(&self, name: &str, now: Instant) -> bool {
        let reached = self.reached.get(name);
        reached.is_some_and(|ceiling| ceiling.bars(self.held.of(name), now))
    }

    fn known(&self, name: &str, now: Instant) -> Option<&Ceiling> {
        self.reached.get(name).filter(|ceiling| ceiling.is_known(now))
    }
}

/// What PostgreSQL said when it refused a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal<'a> {
    pub(super) of: LimitOf,
    /// PostgreSQL's words.
    pub(super) words: &'a str,
    /// Connections of the pool, whoever's they are, without the refused one.
    pub(super) total: usize,
    pub(super) now: Instant,
    /// Spreads the attempts of many servers.
    pub(super) random: u8,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Who asked has nobody to wait for, and has waited for long enough.
    pub(super) is_final: bool,
    /// The whole pool has to be patient, not just those whose limit it is.
    pub(super) concerns_all: bool,
}

/// What keeps a lane from growing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bars {
    pub(super) role: bool,
    pub(super) database: bool,
    pub(super) senders: bool,
}

impl Bars {
    pub(super) fn any(self) -> bool {
        self.role || self.database || self.senders
    }
}

/// The limits that were reached of late.
#[derive(Debug)]
pub(super) struct Ceilings {
    roles: Named,
    databases: Named,
    senders_held: Arc<Gate>,
    senders: Option<Ceiling>,
    server: Option<Ceiling>,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            roles: Named::default(),
            databases: Named::default(),
            senders_held: Gate::new(usize::MAX),
            senders: None,
            server: None,
        }
    }
}

impl Ceilings {
    /// Counts a connection in, until the permits go.
    pub(super) fn enter(&mut self, key: &LaneKey) -> impl Iterator<Item = Permit> {
        let sender = key.is_single_use().then(|| self.senders_held.enter()).flatten();
        let role = self.roles.held.enter(key.role());
        let database = self.databases.held.enter(key.database());
        [role, database, sender].into_iter().flatten()
    }

    /// Connections that PostgreSQL has room for, as far as that is known.
    pub(super) fn limit(&self, now: Instant) -> usize {
        let known = self.server.as_ref().filter(|ceiling| ceiling.is_known(now));
        known.map_or(usize::MAX, |ceiling| ceiling.most)
    }

    /// What keeps this lane from getting one more connection, beside [`Ceilings::limit`].
    pub(super) fn bars(&self, key: &LaneKey, now: Instant) -> Bars {
        let senders = self.senders.as_ref().filter(|_| key.is_single_use());
        Bars {
            role: self.roles.bars(key.role(), now),
            database: self.databases.bars(key.database(), now),
            senders: senders.is_some_and(|c| c.bars(self.senders_held.inside(), now)),
        }
    }

    /// PostgreSQL's words about a limit that concerns this lane, and what may be done about it.
    pub(super) fn words(&self, key: &LaneKey, now: Instant) -> Option<(&str, &'static str)> {
        let known = |ceiling: &&Ceiling| ceiling.is_known(now);
        let role = self.roles.known(key.role(), now);
        let database = self.databases.known(key.database(), now);
        let senders = self.senders.as_ref().filter(|_| key.is_single_use()).filter(known);
        let server = self.server.as_ref().filter(known);
        role.map(|ceiling| (ceiling, "raise the role's CONNECTION LIMIT"))
            .or_else(|| database.map(|ceiling| (ceiling, "raise the database's CONNECTION LIMIT")))
            .or_else(|| senders.map(|ceiling| (ceiling, "raise PostgreSQL's max_wal_senders")))
            .or_else(|| server.map(|ceiling| (ceiling, "raise PostgreSQL's max_connections")))
            .map(|(ceiling, hint)| (ceiling.words.as_str(), hint))
    }

    /// The next moment at which one of them may let somebody pass.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let named = self.roles.reached.values().chain(self.databases.reached.values());
        let all = named.chain(&self.senders).chain(&self.server);
        all.filter_map(|ceiling| ceiling.next_change(now)).min()
    }

    /// PostgreSQL had no room for a connection of this lane.
    pub(super) fn reached(&mut self, key: &LaneKey, refusal: &Refusal<'_>) -> Verdict {
        match refusal.of {
            LimitOf::Role => reached_named(&mut self.roles, key.role(), refusal),
            LimitOf::Database => reached_named(&mut self.databases, key.database(), refusal),
            LimitOf::Replication => {
                let held = self.senders_held.inside();
                let (ceiling, is_final) = renewed(self.senders.take(), held, refusal);
                self.senders = Some(ceiling);
                Verdict { is_final, concerns_all: false }
            }
            LimitOf::Server => {
                let (ceiling, is_final) = renewed(self.server.take(), refusal.total, refusal);
                // The pool's own back-off is enough.
                self.server = Some(Ceiling { back_off: BackOff::default(), ..ceiling });
                Verdict { is_final, concerns_all: true }
            }
        }
    }
}

fn reached_named(named: &mut Named, name: &str, refusal: &Refusal<'_>) -> Verdict {
    let held = named.held.of(name);
    let (ceiling, is_final) = renewed(named.reached.remove(name), held, refusal);
    named.reached.retain(|_, ceiling| ceiling.is_known(refusal.now));
    let concerns_all = named.reached.len() >= MOST;
    if !concerns_all {
        named.reached.insert(name.to_owned(), ceiling);
    }
    Verdict { is_final, concerns_all }
}

/// The limit as it is known now, and whether who asked is not to ask again.
fn renewed(known: Option<Ceiling>, held: usize, refusal: &Refusal<'_>) -> (Ceiling, bool) {
    let Refusal { now, random, words, .. } = *refusal;
    let known = known.filter(|ceiling| ceiling.is_known(now));
    let (since, mut back_off) =
        known.map_or_else(|| (now, BackOff::default()), |known| (known.since, known.back_off));
    back_off.fail(now, random);
    let ceiling =
        Ceiling { most: held.max(1), since, last: now, back_off, words: words.to_owned() };
    // Nobody is going to give a connection back.
    let is_final = held == 0 && now.saturating_duration_since(since) >= PATIENCE;
    (ceiling, is_final)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(role: &str, database: &str) -> LaneKey {
        LaneKey::new(&role.into(), None, &database.into(), Vec::new())
    }

    fn replication() -> LaneKey {
        let options = vec![("replication".to_owned(), "true".to_owned())];
        LaneKey::new(&"r".into(), None, &"db".into(), options)
    }

    fn refusal(of: LimitOf, now: Instant) -> Refusal<'static> {
        Refusal { of, words: "too many", total: 3, now, random: 255 }
    }

    fn bars(role: bool, database: bool, senders: bool) -> Bars {
        Bars { role, database, senders }
    }

    #[test]
    fn a_limit_bars_those_whose_it_is_and_nobody_else() {
        let now = Instant::now();
        let none = Bars::default();
        // What is refused to (a, x); what bars (a, x), (a, y), (b, x), replication; the total.
        for (of, expected, limit) in [
            (LimitOf::Role, [bars(true, false, false), bars(true, false, false), none], usize::MAX),
            (
                LimitOf::Database,
                [bars(false, true, false), none, bars(false, true, false)],
                usize::MAX,
            ),
            (LimitOf::Server, [none, none, none], 3),
        ] {
            let mut ceilings = Ceilings::default();
            let _held: Vec<_> = ceilings.enter(&lane("a", "x")).collect();
            let verdict = ceilings.reached(&lane("a", "x"), &refusal(of, now));
            assert_eq!(verdict.concerns_all, of == LimitOf::Server, "{of:?}");
            let later = now + Duration::from_secs(4);
            let seen = [lane("a", "x"), lane("a", "y"), lane("b", "x")]
                .map(|key| ceilings.bars(&key, later));
            assert_eq!((seen, ceilings.limit(later)), (expected, limit), "{of:?}");
            assert_eq!(ceilings.bars(&replication(), later), none, "{of:?}");
            assert_eq!(ceilings.words(&lane("a", "x"), later).unwrap().0, "too many", "{of:?}");
            assert!(ceilings.words(&lane("b", "y"), later).is_some() == verdict.concerns_all);
            let end = now + LASTS;
            assert_eq!(ceilings.next_change(later), Some(end), "{of:?}");
            assert_eq!(ceilings.bars(&lane("a", "x"), end), none, "{of:?}");
            assert_eq!((ceilings.limit(end), ceilings.next_change(end)), (usize::MAX, None));
        }
    }

    #[test]
    fn replication_has_a_limit_of_its_own() {
        let (mut ceilings, now) = (Ceilings::default(), Instant::now());
        let verdict = ceilings.reached(&replication(), &refusal(LimitOf::Replication, now));
        assert_eq!(verdict, Verdict { is_final: false, concerns_all: false });
        assert_eq!(ceilings.bars(&replication(), now), bars(false, false, true));
        assert_eq!(ceilings.bars(&lane("r", "db"), now), Bars::default());
        assert_eq!(ceilings.limit(now), usize::MAX);
    }

    #[test]
    fn a_connection_that_goes_lets_the_next_one_try() {
        let (mut ceilings, now, key) = (Ceilings::default(), Instant::now(), lane("a", "x"));
        let first: Vec<_> = ceilings.enter(&key).collect();
        let second: Vec<_> = ceilings.enter(&key).collect();
        ceilings.reached(&key, &refusal(LimitOf::Role, now));
        let later = now + Duration::from_secs(1);
        assert!(ceilings.bars(&key, later).any());
        drop(second);
        assert!(!ceilings.bars(&key, later).any());
        assert!(ceilings.bars(&key, now).any(), "not at once");
        drop(first);
    }

    #[test]
    fn who_has_nobody_to_wait_for_is_refused_after_a_while() {
        let (mut ceilings, begun, key) = (Ceilings::default(), Instant::now(), lane("a", "x"));
        let at = |ms| refusal(LimitOf::Role, begun + Duration::from_millis(ms));
        assert!(!ceilings.reached(&key, &at(0)).is_final);
        assert!(!ceilings.reached(&key, &at(900)).is_final);
        assert!(ceilings.reached(&key, &at(1100)).is_final);
        // It was forgotten in between.
        assert!(!ceilings.reached(&key, &at(9000)).is_final);
        let _held: Vec<_> = ceilings.enter(&key).collect();
        assert!(!ceilings.reached(&key, &at(11_000)).is_final, "its own will come back");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut ceilings, now) = (Ceilings::default(), Instant::now());
        for n in 0..MOST {
            let key = lane(&n.to_string(), "x");
            assert!(!ceilings.reached(&key, &refusal(LimitOf::Role, now)).concerns_all, "{n}");
        }
        let late = lane("late", "x");
        assert!(ceilings.reached(&late, &refusal(LimitOf::Role, now)).concerns_all);
        assert!(!ceilings.bars(&late, now).any());
        let later = now + LASTS;
        assert!(!ceilings.reached(&late, &refusal(LimitOf::Role, later)).concerns_all);
        assert_eq!(ceilings.roles.reached.len(), 1);
        for n in 0..2 * MOST_NAMES {
            drop(ceilings.enter(&lane(&n.to_string(), "x")));
        }
        assert!(ceilings.roles.held.0.len() <= MOST_NAMES);
    }
}
