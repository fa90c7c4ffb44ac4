//! Prepared statements that SQL refers to (`PREPARE`, `EXECUTE`, `DEALLOCATE`): they are on the
//! connection under the client's own names. The session stays there as long as nobody else wants
//! the connection; then it leaves, and prepares them again where it comes to.

use std::collections::HashSet;
use std::ops::Range;

use crate::backend::{ConnState, Expect, Kind};
use crate::executor::mux::Mux;
use crate::proto::backend::TxStatus;
use crate::proto::frontend::{put_close, put_parse, put_query, put_sync};
use crate::query::{Class, Effects, Names, Reference, classify, statements};

/// Statements prepared with SQL that are carried along; with more the session stays.
const MAX_CARRIED: usize = 64;

/// Longest text of one that is carried along, as in `sql/probe.sql`.
const LONGEST_CARRIED: usize = 64 << 10;

/// What a Parse without a text has behind its name.
const EMPTY_STATEMENT: &[u8] = b"\0\0\0";

/// A statement prepared with SQL.
#[derive(Debug)]
pub struct Carried {
    /// Name.
    pub name: Box<[u8]>,
    /// The whole command, `PREPARE name AS …`; `None` = it is too long to be carried along.
    pub sql: Option<Box<str>>,
}

impl Carried {
    /// From what PostgreSQL remembers of it: the text that it came in, in which there may be other
    /// statements. They are not to be run again; where it is not clear which one it is, it stays.
    pub fn of(name: Box<[u8]>, text: Option<String>) -> Self {
        let sql = text.and_then(|text| {
            let is_it = |range: &Range<usize>| {
                let class = classify(&text.as_bytes()[range.clone()], &Names::default());
                let prepares = |reference: &Reference| {
                    matches!(reference, Reference::Prepares(_))
                        && reference.name().as_bytes() == &*name
                };
                class.refers_to.iter().any(prepares)
            };
            let mut found = statements(&text).into_iter().filter(is_it);
            found.next().filter(|_| found.next().is_none()).map(|range| text[range].into())
        });
        Self { name, sql }
    }

    fn length(&self) -> usize {
        self.sql.as_ref().map_or(LONGEST_CARRIED, |sql| sql.len())
    }
}

/// A statement that is on the connection under the client's name for SQL in flight to take away. It
/// need not be the right one, and is not when it could not be prepared any more.
#[derive(Debug)]
pub(super) struct StandIn {
    /// Number of the batch of that SQL; `None` = of the next request.
    batch: Option<u64>,
    name: Box<[u8]>,
}

/// Requests of our own before one of the client's.
pub(super) struct Injected {
    between: bool,
    open: bool,
    messages: Vec<(Expect, Vec<u8>)>,
}

impl Injected {
    fn new(conn: &ConnState) -> Self {
        let open = conn.tx != TxStatus::Idle;
        Self { between: conn.expect.is_between(), open, messages: Vec::new() }
    }

    fn close(&mut self, name: &[u8]) {
        let mut bytes = Vec::new();
        put_close(&mut bytes, name);
        self.push(Expect::named(Kind::CloseInjected, name.into()), bytes);
    }

    /// In a transaction a savepoint takes back what a failure does; the statement stays.
    fn parse(&mut self, name: &[u8], body: &[u8]) {
        let mut bytes = Vec::new();
        put_parse(&mut bytes, name, body);
        let guarded = self.between && self.open;
        if guarded {
            self.command(b"SAVEPOINT rdb_look");
        }
        self.push(Expect::named(Kind::ParseInjected, name.into()), bytes);
        if guarded {
            self.command(b"ROLLBACK TO SAVEPOINT rdb_look");
            self.command(b"RELEASE SAVEPOINT rdb_look");
        }
    }

    fn command(&mut self, sql: &[u8]) {
        let mut bytes = Vec::new();
        put_query(&mut bytes, sql);
        self.messages.push((Kind::Attempt.into(), bytes));
    }

    fn push(&mut self, entry: Expect, mut bytes: Vec<u8>) {
        if self.between {
            put_sync(&mut bytes);
            self.messages.push((Expect { kind: Kind::Attempt, ..entry }, bytes));
        } else {
            self.messages.push((entry, bytes));
        }
    }

    /// Notes how they are answered, and hands them out.
    pub(super) fn send(self, conn: &mut ConnState) -> Vec<u8> {
        let mut batch = Vec::new();
        if !self.messages.is_empty() {
            conn.unnamed = None;
        }
        for (entry, bytes) in self.messages {
            conn.expect.push(entry);
            batch.extend_from_slice(&bytes);
        }
        batch
    }
}

impl Mux {
    /// Whether only statements prepared with SQL hold the session, which can be prepared again.
    pub fn can_be_carried(&self) -> bool {
        self.pins == Effects::PREPARE && self.carried_effects.is_some() && !self.probe_due
    }

    /// Leaves the connection although there are statements prepared with SQL on it.
    pub fn carry_off(&mut self, conn: &mut ConnState) {
        conn.leftovers.extend(self.carried.iter().map(|one| one.name.clone()));
        conn.leftovers.extend(self.own.drain());
        self.native = false;
        self.pins = Effects::NONE;
    }

    /// Prepares again what was prepared with SQL.
    pub(super) fn carry_on(&mut self, conn: &mut ConnState, batch: &mut Vec<u8>) {
        for one in &self.carried {
            put_query(batch, one.sql.as_deref().unwrap_or_default().as_bytes());
            conn.expect.push(Kind::Attempt.into());
        }
        self.native = true;
        self.pins.add(Effects::PREPARE);
    }

    /// There are no prepared statements any more.
    pub(super) fn forget_statements(&mut self) {
        self.keep_only(&HashSet::new());
    }

    fn keep_only(&mut self, coming: &HashSet<Box<[u8]>>) {
        self.named.keep_only(coming);
        self.own.retain(|name| coming.contains(name));
        self.stand_ins.retain(|one| self.own.contains(&one.name));
        self.native = !self.own.is_empty();
        self.carried.clear();
        self.carried_effects = Some(Effects::NONE);
    }

    /// PostgreSQL has taken all of them away; those whose Parse is in flight come later.
    pub(super) fn deallocated_all(&mut self, conn: &mut ConnState) {
        self.keep_only(&conn.expect.coming_names());
        conn.expect.is_gone(None);
    }

    /// PostgreSQL completed a DEALLOCATE of one.
    pub(super) fn deallocated(&mut self, conn: &mut ConnState) {
        let Some(name) = self.named.deallocated(conn.expect.last_ended() + 1) else { return };
        let name = name.as_bytes();
        self.stand_ins.retain(|one| *one.name != *name);
        if !conn.expect.is_gone(Some(name)) {
            self.named.remove(name);
            self.own.remove(name);
        }
    }

    /// The batch of their SQL is over, and they were not taken away.
    pub(super) fn put_stand_ins_away(&mut self, batch: u64, conn: &mut ConnState) {
        let over = |one: &mut StandIn| one.batch.is_some_and(|own| own <= batch);
        for one in self.stand_ins.extract_if(.., over) {
            if self.own.remove(&one.name) {
                conn.leftovers.push(one.name);
            }
        }
    }

    /// Whether what is on the connection under the client's name is what the client means by it.
    pub(super) fn is_own(&self, name: &[u8]) -> bool {
        self.own.contains(name) && !self.is_stand_in(name)
    }

    fn is_stand_in(&self, name: &[u8]) -> bool {
        self.stand_ins.iter().any(|one| *one.name == *name)
    }

    /// The connection does not have a statement under the client's name after all.
    pub(super) fn is_not_there(&mut self, name: &[u8]) {
        self.own.remove(name);
        self.stand_ins.retain(|one| *one.name != *name);
    }

    /// A look has shown which statements are there under the client's names.
    pub(super) fn learn_statements(
        &mut self,
        conn: &mut ConnState,
        prepared: Vec<Carried>,
        by_protocol: Vec<Box<[u8]>>,
    ) {
        self.named.seen(prepared.iter().map(|one| (&*one.name, one.length())));
        self.carried_effects = self.effects_of(&prepared);
        let there: HashSet<&[u8]> = by_protocol.iter().map(|name| &**name).collect();
        let gone = self.own.iter().filter(|name| !there.contains(&***name));
        for name in gone {
            self.named.remove(name);
        }
        self.own.clear();
        if prepared.is_empty() {
            self.native = false;
            conn.leftovers.extend(by_protocol);
        } else {
            // What was only left behind is not what the client means by its name.
            let left: HashSet<&[u8]> = conn.leftovers.iter().map(|name| &**name).collect();
            self.own.extend(by_protocol.into_iter().filter(|name| !left.contains(&**name)));
        }
        self.carried = if self.carried_effects.is_some() { prepared } else { Vec::new() };
    }

    /// What running one of these may leave behind; `None` = they cannot be carried along.
    fn effects_of(&self, prepared: &[Carried]) -> Option<Effects> {
        if prepared.len() > MAX_CARRIED {
            return None;
        }
        let mut all = Effects::NONE;
        for one in prepared {
            all.add(classify(one.sql.as_ref()?.as_bytes(), &self.names).effects);
        }
        Some(all.without(Effects::PREPARE.and(Effects::EXECUTES)))
    }

    /// The messages that take our own statements away, which nobody is to see.
    pub(super) fn without_ours(conn: &mut ConnState) -> Injected {
        let mut injected = Injected::new(conn);
        for name in conn.statements.names() {
            injected.close(name.as_bytes());
        }
        conn.statements.clear();
        injected
    }

    /// The messages that put the statements to which SQL is about to refer on the connection under
    /// the client's names, and how each is answered. Between two requests one that cannot be
    /// prepared any more does no harm; within a batch only those that are run are prepared.
    pub(super) fn under_own_names(&mut self, conn: &mut ConnState, class: &Class) -> Injected {
        let between = conn.expect.is_between();
        let lists = class.effects.has(Effects::LISTS_STATEMENTS);
        let mut injected = match lists {
            true => Self::without_ours(conn),
            false => Injected::new(conn),
        };
        self.native |= class.effects.has(Effects::PREPARE);
        let taken_now = self.takes_away == conn.expect.batch();
        for (name, statement) in self.named.iter() {
            let refers = |reference: &&Reference| reference.name().as_bytes() == name;
            let reference = class.refers_to.iter().find(refers);
            // Within a batch a failure of ours is the client's.
            if reference.is_none() && !(lists && between) {
                continue;
            }
            let runs = lists || matches!(reference, Some(Reference::Executes(_)));
            if self.own.contains(name) {
                // What was only to be taken away is run after all, if it was not.
                let is_it = |one: &StandIn| *one.name == *name;
                let at = self.stand_ins.iter().position(is_it).filter(|_| runs && !taken_now);
                let Some(at) = at else { continue };
                self.stand_ins.swap_remove(at);
                injected.close(name);
            }
            if let Some(at) = conn.leftovers.iter().position(|left| **left == *name) {
                conn.leftovers.swap_remove(at);
                injected.close(name);
            }
            // It need only be there, to be taken away or to be in the way.
            injected.parse(name, if runs { &statement.body } else { EMPTY_STATEMENT });
            if !runs {
                self.stand_ins.push(StandIn { batch: None, name: name.into() });
            }
            self.own.insert(name.into());
        }
        if !self.own.is_empty() {
            self.native = true;
            self.batch.add(Effects::PREPARE);
        }
        injected
    }

    /// The next request is the one that the last stand-ins are for.
    pub(super) fn stand_ins_go_with(&mut self, batch: u64) {
        self.stand_ins.iter_mut().for_each(|one| one.batch = one.batch.or(Some(batch)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_statement_itself_is_prepared_again() {
        for (text, expected) in [
            ("prepare p as select 1", Some("prepare p as select 1")),
            ("/* a */ PREPARE p AS select ';' ; -- b", Some("PREPARE p AS select ';' ")),
            (
                "insert into t values (1); prepare P as select 1; commit",
                Some("prepare P as select 1"),
            ),
            ("prepare q as select 1; prepare p as select 2", Some("prepare p as select 2")),
            ("prepare p as select 1; deallocate p; prepare p as select 2", None),
            ("select 1", None),
            ("", None),
        ] {
            let carried = Carried::of((*b"p").into(), Some(text.into()));
            assert_eq!(carried.sql.as_deref(), expected, "{text}");
        }
        assert!(Carried::of((*b"p").into(), None).sql.is_none());
    }
}
