//! Prepared statements of one connection, whoever's they are: the same text with the same types is
//! prepared once and served to every session of the lane.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;

use crate::proto::backend::row_description;
use crate::query::{Class, NameHasher};
use crate::telemetry::pool::StatementCacheMetrics;

/// A statement as a client wrote it.
#[derive(Debug)]
pub struct Statement {
    /// What follows the name in Parse: text, number of types, types.
    pub body: Box<[u8]>,
    /// What else decides its meaning.
    pub world: World,
    /// Hash of the body and the context.
    pub hash: u64,
    /// What its text does.
    pub class: Class,
    /// It lives in the connection's unnamed statement, and is not shared.
    pub raw: bool,
    /// Digest of its columns, as somebody was told of them; 0 = nobody has asked.
    columns: AtomicU64,
    /// The last version of the names with which it was read again, and does nothing; 0 = none.
    quiet: AtomicU64,
}

/// What a text meant when it was read.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// What decides its meaning beside the text; unique when it must not be shared.
    pub context: u64,
    /// Version of the names that it was read with.
    pub version: u64,
    /// Number of the database's definitions at that time.
    pub definitions: u64,
}

/// Digest of the columns of a statement that has none, and never will.
const NO_COLUMNS: u64 = 1;

impl Statement {
    /// One that sessions may share.
    pub fn new(body: Box<[u8]>, hash: u64, world: World, class: Class) -> Self {
        let (columns, quiet) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { body, world, hash, class, raw: false, columns, quiet }
    }

    /// The same, with its hash.
    pub fn shared(hasher: &impl BuildHasher, body: Box<[u8]>, world: World, class: Class) -> Self {
        let hash = hasher.hash_one((&body, world.context));
        Self::new(body, hash, world, class)
    }

    /// Whether it was found to do nothing to its session with this version of the names.
    pub fn is_quiet(&self, version: u64) -> bool {
        self.quiet.load(Ordering::Relaxed) == version
    }

    /// Notes that it does nothing to its session with this version of the names.
    pub fn set_quiet(&self, version: u64) {
        self.quiet.store(version, Ordering::Relaxed);
    }

    /// Whether nobody knows its columns.
    pub fn is_undescribed(&self) -> bool {
        self.columns.load(Ordering::Relaxed) == 0
    }

    /// Whether somebody knows columns that may be others by now.
    pub fn may_have_changed(&self, definitions: u64) -> bool {
        self.world.definitions != definitions && self.columns.load(Ordering::Relaxed) > NO_COLUMNS
    }

    /// Notes the columns that a client is told (the body of a RowDescription; `None` = NoData).
    pub fn describe(&self, hasher: &impl BuildHasher, columns: Option<&[u8]>) {
        self.columns.store(digest(hasher, columns), Ordering::Relaxed);
    }

    /// Whether these are the columns that a client was told.
    pub fn is_described_by(&self, hasher: &impl BuildHasher, columns: Option<&[u8]>) -> bool {
        self.columns.load(Ordering::Relaxed) == digest(hasher, columns)
    }

    fn is(&self, body: &[u8], context: u64) -> bool {
        self.world.context == context && *self.body == *body
    }
}

/// What PostgreSQL compares when it runs a prepared statement again: names and types.
fn digest(hasher: &impl BuildHasher, columns: Option<&[u8]>) -> u64 {
    let columns = columns.and_then(|body| row_description(body).ok());
    let Some(columns) = columns else { return NO_COLUMNS };
    let mut state = hasher.build_hasher();
    for column in columns {
        (column.name, column.type_oid, column.type_modifier).hash(&mut state);
    }
    state.finish().max(NO_COLUMNS + 1)
}

#[derive(Debug)]
struct Kept {
    statement: Arc<Statement>,
    number: u32,
    used: u64,
}

/// Bytes of the statements that are kept on a connection.
const MAX_BYTES: usize = 4 << 20;

/// The statements that the connection has, least recently used first out.
#[derive(Debug, Default)]
pub struct Statements {
    /// Counts what is found; nobody, before the connection is the pool's.
    metrics: Option<Arc<StatementCacheMetrics>>,
    kept: HashMap<u64, Kept, BuildHasherDefault<NameHasher>>,
    /// Bytes of all of them.
    bytes: usize,
    next: u32,
    uses: u64,
    /// How often one was found, and how often PostgreSQL had to parse it.
    found: (u64, u64),
}

/// The server's name of a statement, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct ServerName {
    bytes: [u8; 14],
    from: usize,
}

impl ServerName {
    /// Prefix of all of them.
    pub const PREFIX: &'static [u8] = b"rdb_";

    fn new(mut number: u32) -> Self {
        let mut name = Self { bytes: [0; 14], from: 14 };
        loop {
            name.from -= 1;
            name.bytes[name.from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        name.from -= Self::PREFIX.len();
        name.bytes[name.from..name.from + 4].copy_from_slice(Self::PREFIX);
        name
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

impl Statements {
    /// How often a statement was found since the connection was made, and how often not.
    pub fn found(&self) -> (u64, u64) {
        self.found
    }

    /// From now on what is found is counted.
    pub fn count_with(&mut self, metrics: Arc<StatementCacheMetrics>) {
        self.metrics = Some(metrics);
    }

    /// Finds a statement that was parsed before, by its text and context.
    pub fn find(&mut self, hash: u64, body: &[u8], context: u64) -> Option<Arc<Statement>> {
        let kept = self.kept.get(&hash).filter(|kept| kept.statement.is(body, context))?;
        self.found.0 += 1;
        self.count(|metrics| &metrics.hits);
        Some(kept.statement.clone())
    }

    fn count(&self, which: impl Fn(&StatementCacheMetrics) -> &IntCounter) {
        if let Some(metrics) = &self.metrics {
            which(metrics).inc();
        }
    }

    /// [`Self::name_of`], for a statement that is run.
    pub fn name_to_run(&mut self, statement: &Statement) -> Option<ServerName> {
        let name = self.name_of(statement)?;
        self.found.0 += 1;
        self.count(|metrics| &metrics.hits);
        Some(name)
    }

    /// The server's name of a statement, if the connection has it.
    pub fn name_of(&mut self, statement: &Statement) -> Option<ServerName> {
        let kept = self.kept.get_mut(&statement.hash)?;
        let same = std::ptr::eq(&*kept.statement, statement)
            || kept.statement.is(&statement.body, statement.world.context);
        if !same {
            return None;
        }
        self.uses += 1;
        kept.used = self.uses;
        Some(ServerName::new(kept.number))
    }

    /// Whether the connection has prepared it when the definitions were those that it knows.
    pub fn has_current(&mut self, statement: &Statement) -> bool {
        self.name_of(statement).is_some()
            && self
                .kept
                .get(&statement.hash)
                .is_some_and(|kept| kept.statement.world.definitions == statement.world.definitions)
    }

    /// Takes out what has to make room for one more among at most `most`, one at a time.
    pub fn evict(
        &mut self,
        most: usize,
        newcomer: &Statement,
    ) -> Option<(Arc<Statement>, ServerName)> {
        let victim = match self.kept.contains_key(&newcomer.hash) {
            true => newcomer.hash,
            false if self.kept.len() < most.max(1) && self.has_room(newcomer) => return None,
            false => *self.kept.iter().min_by_key(|(_, kept)| kept.used)?.0,
        };
        let kept = self.kept.remove(&victim)?;
        self.count(|metrics| &metrics.evictions);
        self.bytes -= kept.statement.body.len();
        Some((kept.statement, ServerName::new(kept.number)))
    }

    fn has_room(&self, newcomer: &Statement) -> bool {
        self.bytes + newcomer.body.len() <= MAX_BYTES
    }

    /// Adds a statement; returns the name to prepare it under.
    pub fn insert(&mut self, statement: Arc<Statement>) -> ServerName {
        self.found.1 += 1;
        self.count(|metrics| &metrics.misses);
        self.next = self.next.wrapping_add(1);
        self.uses += 1;
        let (number, used) = (self.next, self.uses);
        self.bytes += statement.body.len();
        let before = self.kept.insert(statement.hash, Kept { statement, number, used });
        self.bytes -= before.map_or(0, |before| before.statement.body.len());
        ServerName::new(number)
    }

    /// The server does not have it after all, or not any more.
    pub fn remove(&mut self, statement: &Statement) {
        let gone = self.kept.remove(&statement.hash);
        self.bytes -= gone.map_or(0, |gone| gone.statement.body.len());
    }

    /// The statement that the server knows by this name.
    pub fn by_name(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        let digits = std::str::from_utf8(name.strip_prefix(ServerName::PREFIX)?).ok()?;
        let number: u32 = digits.parse().ok()?;
        self.kept.values().find(|kept| kept.number == number).map(|kept| &kept.statement)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = ServerName> {
        self.kept.values().map(|kept| ServerName::new(kept.number))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The server has no others any more.
    pub fn retain(&mut self, stays: impl Fn(&Arc<Statement>) -> bool) {
        self.kept.retain(|_, kept| stays(&kept.statement));
        self.bytes = self.kept.values().map(|kept| kept.statement.body.len()).sum();
    }

    /// The server has none any more.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str, hash: u64) -> Arc<Statement> {
        let body = text.as_bytes().into();
        let world = World { context: 0, version: 0, definitions: 0 };
        Arc::new(Statement::new(body, hash, world, Class::default()))
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut kept = Statements::default();
        let (a, b, c) = (statement("a", 1), statement("b", 2), statement("c", 3));
        assert_eq!(kept.insert(a.clone()).as_bytes(), b"rdb_1");
        kept.insert(b.clone());
        assert!(Arc::ptr_eq(kept.by_name(b"rdb_2").unwrap(), &b));
        assert!(kept.by_name(b"rdb_9").is_none() && kept.by_name(b"x").is_none());
        assert_eq!(kept.name_of(&a).unwrap().as_bytes(), b"rdb_1");
        let (out, name) = kept.evict(2, &c).unwrap();
        assert_eq!((&*out.body, name.as_bytes()), (&b"b"[..], &b"rdb_2"[..]));
        kept.insert(c.clone());
        assert!(kept.find(3, b"c", 0).is_some() && kept.find(3, b"c", 1).is_none());
        assert!(kept.name_of(&b).is_none());
    }

    #[test]
    fn long_statements_leave_room_for_few() {
        let mut kept = Statements::default();
        let long = |hash| statement(&"x".repeat(MAX_BYTES / 2), hash);
        for hash in 1..=2 {
            assert!(kept.evict(100, &long(hash)).is_none());
            kept.insert(long(hash));
        }
        assert!(kept.evict(100, &statement("", 9)).is_none());
        assert_eq!(kept.evict(100, &statement("a", 9)).unwrap().0.hash, 1);
        assert!(kept.evict(100, &statement("a", 9)).is_none());
        kept.insert(long(2));
        kept.remove(&long(2));
        assert_eq!(kept.bytes, 0);
        kept.insert(long(3));
        kept.clear();
        assert!(kept.is_empty() && kept.bytes == 0);
    }

    #[test]
    fn statements_with_one_hash_are_told_apart() {
        let mut kept = Statements::default();
        let (a, b) = (statement("a", 1), statement("b", 1));
        kept.insert(a.clone());
        assert!(kept.name_of(&b).is_none() && kept.find(1, b"b", 0).is_none());
        assert!(Arc::ptr_eq(&kept.evict(100, &b).unwrap().0, &a));
    }

    #[test]
    fn names() {
        for (number, name) in [(0, "rdb_0"), (7, "rdb_7"), (u32::MAX, "rdb_4294967295")] {
            assert_eq!(ServerName::new(number).as_bytes(), name.as_bytes());
        }
    }
}
