//! The prepared statements of one session by the client's names, and how many there may be.
//!
//! PostgreSQL keeps as many as its memory holds; here each session has a share.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;

use crate::backend::{Refusal, Statement};
use crate::error::{Error, SqlState};
use crate::query::{Class, Reference};

/// Statements prepared with SQL whose completion is waited for.
const MAX_PENDING: usize = 256;

/// How much one session may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Statements, of the protocol and of SQL.
    pub statements: usize,
    /// Bytes of their texts.
    pub bytes: usize,
}

impl Limits {
    /// What there is too much of after a change.
    fn exceeded(&self, before: (usize, usize), after: (usize, usize)) -> Option<Refusal> {
        if after.0 > before.0 && after.0 > self.statements {
            return Some(Refusal::Number);
        }
        (after.1 > before.1 && after.1 > self.bytes).then_some(Refusal::Bytes)
    }
}

/// What SQL in flight refers to.
#[derive(Debug)]
struct Pending {
    /// Number of its batch.
    batch: u64,
    reference: Reference,
    /// Length of its text.
    bytes: usize,
}

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Named {
    limits: Limits,
    by_protocol: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
    /// Those prepared with SQL, as far as they are known, with the length of their text.
    by_sql: HashMap<Box<[u8]>, usize>,
    /// What the SQL in flight prepares and takes away when PostgreSQL completes it.
    pending: VecDeque<Pending>,
    /// Bytes of both.
    bytes: usize,
}

impl Named {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_protocol: HashMap::default(),
            by_sql: HashMap::new(),
            pending: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Statements prepared by protocol.
    pub(super) fn len(&self) -> usize {
        self.by_protocol.len()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.by_protocol.get(name)
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.by_protocol.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        self.by_protocol.iter().map(|(name, statement)| (&**name, statement))
    }

    pub(super) fn insert(
        &mut self,
        name: Box<[u8]>,
        statement: Arc<Statement>,
    ) -> Option<Arc<Statement>> {
        self.bytes += statement.body.len();
        let before = self.by_protocol.insert(name, statement);
        self.bytes -= before.as_ref().map_or(0, |before| before.body.len());
        before
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let before = self.by_protocol.remove(name);
        self.bytes -= before.as_ref().map_or(0, |before| before.body.len());
        before
    }

    /// There are none any more but those whose names are in flight.
    pub(super) fn keep_only(&mut self, coming: &HashSet<Box<[u8]>>) {
        self.by_protocol.retain(|name, _| coming.contains(name));
        self.by_sql.clear();
        self.bytes = self.by_protocol.values().map(|statement| statement.body.len()).sum();
    }

    /// All of them go to somebody else.
    pub(super) fn hand_over(&mut self) -> Self {
        let none = Self::new(self.limits);
        std::mem::replace(self, none)
    }

    /// Why a statement must be refused. One whose name is taken need not: PostgreSQL refuses it.
    pub(super) fn excess(&self, name: &[u8], bytes: usize) -> Option<Refusal> {
        if self.contains(name) || self.by_sql.contains_key(name) {
            return None;
        }
        let before = self.after(&[], 0);
        self.limits.exceeded(before, (before.0 + 1, before.1 + bytes))
    }

    /// Why SQL text must be refused, for what it prepares.
    pub(super) fn excess_of_sql(&self, class: &Class, bytes: usize) -> Option<Refusal> {
        let prepares = |reference: &Reference| matches!(reference, Reference::Prepares(_));
        if !class.refers_to.iter().any(prepares) {
            return None;
        }
        self.limits.exceeded(self.after(&[], 0), self.after(&class.refers_to, bytes))
    }

    /// Statements, and bytes of them, when the SQL in flight is done, and then `more` of a text
    /// that is so long.
    fn after(&self, more: &[Reference], bytes: usize) -> (usize, usize) {
        let (mut count, mut sum) = (self.by_protocol.len() + self.by_sql.len(), self.bytes);
        // What becomes of each name; `None` = it is gone.
        let mut changed: HashMap<&str, Option<usize>> = HashMap::new();
        let pending = self.pending.iter().map(|one| (&one.reference, one.bytes));
        let more = more.iter().map(|reference| (reference, bytes));
        for (reference, bytes) in pending.chain(more) {
            let name = reference.name();
            let there = changed.get(name).copied().unwrap_or_else(|| {
                let by_sql = self.by_sql.get(name.as_bytes()).copied();
                let others = self.by_protocol.get(name.as_bytes());
                by_sql.or(others.map(|statement| statement.body.len()))
            });
            match (reference, there) {
                (Reference::Prepares(name), None) => {
                    (count, sum) = (count + 1, sum + bytes);
                    changed.insert(name, Some(bytes));
                }
                (Reference::Deallocates(name), Some(bytes)) => {
                    (count, sum) = (count - 1, sum - bytes);
                    changed.insert(name, None);
                }
                _ => {}
            }
        }
        (count, sum)
    }

    /// SQL that prepares statements or takes them away is on its way, in this batch.
    pub(super) fn requested(&mut self, class: &Class, bytes: usize, batch: u64) {
        for reference in &class.refers_to {
            let counts = !matches!(reference, Reference::Executes(_));
            if counts && self.pending.len() < MAX_PENDING {
                self.pending.push_back(Pending { batch, reference: reference.clone(), bytes });
            }
        }
    }

    /// What the batch in work has requested first, and was not completed yet.
    fn next_of(&mut self, batch: u64) -> Option<Pending> {
        self.pending.front().filter(|one| one.batch <= batch)?;
        self.pending.pop_front()
    }

    /// PostgreSQL completed a PREPARE of the batch in work.
    pub(super) fn prepared(&mut self, batch: u64) {
        while let Some(one) = self.next_of(batch) {
            if let Reference::Prepares(name) = one.reference {
                return self.note(name.as_bytes(), one.bytes);
            }
        }
    }

    /// PostgreSQL completed a DEALLOCATE of the batch in work; returns its name.
    pub(super) fn deallocated(&mut self, batch: u64) -> Option<Box<str>> {
        while let Some(one) = self.next_of(batch) {
            if let Reference::Deallocates(name) = one.reference {
                self.bytes -= self.by_sql.remove(name.as_bytes()).unwrap_or(0);
                return Some(name);
            }
        }
        None
    }

    /// What this batch and those before have requested is not carried out, or all of it has been.
    pub(super) fn is_over(&mut self, batch: u64) {
        while self.next_of(batch).is_some() {}
    }

    /// A look at the connection shows what was prepared with SQL. What functions have prepared
    /// beyond the limit is not kept by name.
    pub(super) fn seen<'a>(&mut self, statements: impl Iterator<Item = (&'a [u8], usize)>) {
        self.bytes -= self.by_sql.values().sum::<usize>();
        self.by_sql.clear();
        for (name, bytes) in statements.take(self.limits.statements) {
            self.note(name, bytes);
        }
    }

    fn note(&mut self, name: &[u8], bytes: usize) {
        self.bytes += bytes;
        self.bytes -= self.by_sql.insert(name.into(), bytes).unwrap_or(0);
    }

    /// Most statements.
    pub(super) fn limit(&self) -> usize {
        self.limits.statements
    }

    /// What the client is told of a request that is refused.
    pub(super) fn refusal(&self, refusal: Refusal) -> Error {
        let Limits { statements, bytes } = self.limits;
        let (text, key) = match refusal {
            Refusal::Number => (
                format!("a session may have {statements} prepared statements at most"),
                "session.max_prepared_statements",
            ),
            Refusal::Bytes => (
                format!("the prepared statements of a session may be {bytes} bytes long together"),
                "session.max_prepared_bytes",
            ),
            Refusal::Columns => {
                // Drivers tell by the place that they have to prepare the statement again.
                let place = b"Fplancache.c\0RRevalidateCachedQuery\0".to_vec();
                let text = "cached plan must not change result type";
                return Error::sql(b"0A000", text).with_origin(place);
            }
        };
        let hint = format!(
            "close statements that are not needed any more (Close, DEALLOCATE), or raise {key}"
        );
        let kind = crate::error::ErrorKind::LimitReached;
        Error::new(kind, text).with_sqlstate(SqlState::new(b"54000")).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::World;
    use crate::query::{Names, classify};

    fn statement(bytes: usize) -> Arc<Statement> {
        let body = vec![b'x'; bytes].into();
        let class = Class::default();
        let world = World { context: 0, version: 0, definitions: 0 };
        Arc::new(Statement::new(body, 0, world, class))
    }

    fn named(statements: usize, bytes: usize) -> Named {
        Named::new(Limits { statements, bytes })
    }

    fn all(named: &Named) -> usize {
        named.by_protocol.len() + named.by_sql.len()
    }

    /// Runs SQL as far as it may run.
    fn run(named: &mut Named, sql: &str) -> Option<Refusal> {
        let class = classify(sql.as_bytes(), &Names::default());
        let excess = named.excess_of_sql(&class, sql.len());
        if excess.is_none() {
            named.requested(&class, sql.len(), 1);
        }
        excess
    }

    #[test]
    fn the_number_is_limited_and_what_goes_makes_room() {
        let mut named = named(2, 1000);
        named.insert((*b"a").into(), statement(10));
        assert_eq!(named.excess(b"b", 10), None);
        named.insert((*b"b").into(), statement(10));
        assert_eq!(named.excess(b"c", 10), Some(Refusal::Number));
        assert_eq!(named.excess(b"a", 10), None, "PostgreSQL says that it is taken");
        assert_eq!(run(&mut named, "prepare c as select 1"), Some(Refusal::Number));
        named.remove(b"a");
        assert_eq!(named.excess(b"c", 10), None);
        named.keep_only(&HashSet::new());
        assert_eq!((named.len(), named.bytes), (0, 0));
    }

    #[test]
    fn the_texts_are_limited_together() {
        let mut named = named(100, 50);
        named.insert((*b"a").into(), statement(30));
        assert_eq!(named.excess(b"b", 20), None);
        assert_eq!(named.excess(b"b", 21), Some(Refusal::Bytes));
        assert_eq!(run(&mut named, "prepare b as select 1234"), Some(Refusal::Bytes));
        named.insert((*b"a").into(), statement(10));
        assert_eq!(named.bytes, 10);
        assert_eq!(run(&mut named, "prepare b as select 1234"), None);
        named.prepared(1);
        assert_eq!(named.bytes, 34);
        named.seen([(&b"z"[..], 5)].into_iter());
        assert_eq!(named.bytes, 15);
        assert!(named.remove(b"nobody").is_none());
    }

    #[test]
    fn sql_counts_when_it_is_complete() {
        let mut named = named(2, 1000);
        assert_eq!(run(&mut named, "prepare a as select 1; prepare b as select 2"), None);
        assert_eq!(named.excess(b"c", 1), Some(Refusal::Number), "they are on their way");
        named.is_over(1);
        assert_eq!(named.excess(b"c", 1), None, "they failed");
        assert_eq!(run(&mut named, "prepare a as select 1; deallocate a"), None);
        named.prepared(1);
        assert_eq!(all(&named), 1);
        named.deallocated(1);
        assert_eq!(all(&named), 0);
        assert_eq!(run(&mut named, "prepare a as select 1"), None);
        named.prepared(1);
        assert_eq!(run(&mut named, "prepare a as select 1"), None, "it is taken");
        named.is_over(1);
        named.seen([(&b"a"[..], 1), (b"b", 1), (b"c", 1)].into_iter());
        assert_eq!(
            (all(&named), run(&mut named, "prepare d as select 1")),
            (2, Some(Refusal::Number))
        );
        assert_eq!(run(&mut named, "deallocate a"), None);
        assert_eq!(run(&mut named, "prepare d as select 1"), None, "one after the other");
        assert_eq!(run(&mut named, "deallocate d"), None);
        assert_eq!(run(&mut named, "prepare e as select 1"), None);
        assert_eq!(run(&mut named, "prepare f as select 1"), Some(Refusal::Number));
        named.deallocated(1);
        named.prepared(1);
        named.deallocated(1);
        named.prepared(1);
        assert_eq!(all(&named), 2, "b and e");
        named.insert((*b"p").into(), statement(1));
        assert_eq!(run(&mut named, "prepare g as select 1"), Some(Refusal::Number));
        assert_eq!(run(&mut named, "deallocate p; prepare e as select 1"), None);
        named.is_over(1);
        named.remove(b"p");
        assert_eq!(run(&mut named, "deallocate b; deallocate all; prepare g as select 1"), None);
        named.deallocated(1);
        named.keep_only(&HashSet::new());
        named.prepared(1);
        assert_eq!(all(&named), 1, "g");
        named.keep_only(&HashSet::new());
        for name in ["b", "e"] {
            assert_eq!(run(&mut named, &format!("prepare {name} as select 1")), None);
            named.prepared(1);
        }
        // A completion that nobody announced, as from a batch after one that failed.
        named.prepared(1);
        named.deallocated(1);
        assert_eq!(all(&named), 2);
    }

    #[test]
    fn a_batch_that_fails_takes_nothing_of_the_next_one() {
        let mut named = named(9, 1000);
        let class = |sql: &str| classify(sql.as_bytes(), &Names::default());
        named.requested(&class("deallocate a; prepare b as select 1"), 1, 7);
        named.requested(&class("deallocate c"), 1, 8);
        named.is_over(7);
        assert_eq!(named.deallocated(8).as_deref(), Some("c"));
        named.requested(&class("deallocate c"), 1, 9);
        assert_eq!(named.deallocated(8), None, "it was not announced in this batch");
        assert_eq!(named.deallocated(9).as_deref(), Some("c"));
        for name in [*b"a", *b"b"] {
            named.insert(name.into(), statement(5));
        }
        named.requested(&class("prepare z as select 1"), 3, 10);
        named.keep_only(&HashSet::from([(*b"b").into()]));
        named.prepared(10);
        assert_eq!((all(&named), named.bytes), (2, 8), "b and z");
    }
}
