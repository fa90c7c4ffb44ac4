//! Sessions of programs: statements with their types, run one at a time. Between two transactions
//! the connection goes back as it is when a statement is known to leave nothing behind, so that
//! the statements prepared on it serve the next session too.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{Described, Event, Session, held};
use crate::backend::{Statement, World};
use crate::catalog::{Catalog, DatabaseNames, SequenceRule};
use crate::error::{Error, Result};
use crate::executor::typed::{self, Local, Preludes};
use crate::limits::recent::is_younger;
use crate::pool::LaneKey;
use crate::proto::backend::{CommandTag, TxStatus};
use crate::query::{Change, Class, Effects, classify};

/// Statements whose types are remembered.
const MAX_KNOWN: usize = 4096;

/// Bytes of their texts.
const MAX_BYTES: usize = 32 << 20;

/// How long the types of a statement are believed in: tables may change behind our back.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// A statement and what is known of it.
#[derive(Debug)]
pub struct Known {
    statement: Arc<Statement>,
    /// Its parameters and columns.
    pub described: Described,
    lane: Arc<LaneKey>,
    definitions: u64,
    at: Instant,
    used: AtomicU64,
}

/// Whether a session may hold a connection from now on, and if not why.
pub type Ask = Arc<dyn Fn() -> Result<()> + Send + Sync>;

impl Known {
    /// What the statement leaves in its session for sure, and the next one there would find: a name
    /// for people.
    pub fn leaves(&self) -> Option<&'static str> {
        const SURE: Effects = Effects::TEMP
            .and(Effects::HOLD)
            .and(Effects::ADVISORY)
            .and(Effects::LISTEN)
            .and(Effects::PREPARE)
            .and(Effects::ROLE)
            .and(Effects::LOAD)
            .and(Effects::SEED)
            .and(Effects::SETTING);
        let class = &self.statement.class;
        let sets = class.changes.iter().any(|change| matches!(change, Change::Set(..)));
        class.effects.only(SURE).reason().or(sets.then_some("setting"))
    }

    fn is_current(&self, names: &DatabaseNames) -> bool {
        self.definitions == names.definitions()
            && self.statement.world.version == names.version()
            && is_younger(self.at, FRESH_FOR)
    }
}

/// The statements that sessions of programs have run, so that their types are asked for once.
#[derive(Debug)]
pub struct KnownStatements {
    hasher: RandomState,
    kept: Mutex<Kept>,
    uses: AtomicU64,
    preludes: Preludes,
}

#[derive(Debug, Default)]
struct Kept {
    by_hash: HashMap<u64, Arc<Known>>,
    bytes: usize,
}

impl Default for KnownStatements {
    fn default() -> Self {
        let hasher = RandomState::default();
        let preludes = Preludes::new(hasher.clone());
        Self { hasher, kept: Mutex::default(), uses: AtomicU64::new(0), preludes }
    }
}

impl KnownStatements {
    fn hash(&self, lane: &LaneKey, body: &[u8]) -> u64 {
        self.hasher.hash_one((lane, body))
    }

    fn find(&self, lane: &LaneKey, body: &[u8], names: &DatabaseNames) -> Option<Arc<Known>> {
        let known = self.kept.lock().by_hash.get(&self.hash(lane, body))?.clone();
        let same = *known.lane == *lane && *known.statement.body == *body;
        if !same || !known.is_current(names) {
            return None;
        }
        known.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(known)
    }

    fn keep(&self, known: &Arc<Known>) {
        known.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let hash = self.hash(&known.lane, &known.statement.body);
        let mut kept = self.kept.lock();
        kept.remove(hash);
        let length = known.statement.body.len();
        if kept.by_hash.len() >= MAX_KNOWN || kept.bytes + length > MAX_BYTES {
            kept.make_room();
        }
        kept.bytes += length;
        kept.by_hash.insert(hash, known.clone());
    }

    fn forget(&self, known: &Known) {
        self.kept.lock().remove(self.hash(&known.lane, &known.statement.body));
    }
}

impl Kept {
    fn remove(&mut self, hash: u64) {
        if let Some(gone) = self.by_hash.remove(&hash) {
            self.bytes -= gone.statement.body.len();
        }
    }

    /// Forgets the half that was not used for longest.
    fn make_room(&mut self) {
        let used = |known: &Arc<Known>| known.used.load(Ordering::Relaxed);
        let mut uses: Vec<u64> = self.by_hash.values().map(used).collect();
        let middle = uses.len() / 2;
        let (_, middle, _) = uses.select_nth_unstable(middle);
        let middle = *middle;
        self.by_hash.retain(|_, known| used(known) > middle);
        self.bytes = self.by_hash.values().map(|known| known.statement.body.len()).sum();
    }
}

/// Whether a statement may leave something behind that the next session must not find.
fn leaves_something(class: &Class, names: &DatabaseNames) -> bool {
    let mut left = class.effects.only(Effects::HOLDING.and(Effects::DISCARD_ALL));
    if left.has(Effects::SEQUENCE) {
        names.sequence_used();
        if names.keeps_sequences() == SequenceRule::Forget {
            left = left.without(Effects::SEQUENCE);
        }
    }
    !(left.is_none()
        && class.changes.is_empty()
        && class.custom_settings.is_empty()
        && class.refers_to.is_empty())
}

impl Session {
    /// Makes the statements that follow run with these settings, each in the transaction that it
    /// belongs to. `transaction_isolation` is set before anything else: a transaction that is open
    /// already must not be given one.
    pub fn run_with(&mut self, settings: &[(&str, &str)]) {
        self.local = Local::new(settings);
    }

    /// The same, and the next statement begins a transaction that [`Session::end_transaction`]
    /// ends.
    pub fn begin_with(&mut self, settings: &[(&str, &str)]) {
        self.local = Local::new(settings).beginning();
    }

    /// Ends the transaction that a statement has begun.
    ///
    /// # Errors
    /// PostgreSQL refuses to commit it, or the connection is lost.
    pub async fn end_transaction(&mut self, commit: bool) -> Result<()> {
        self.local = Local::default();
        let conn = held(&mut self.lease)?.conn();
        conn.inbound.consume_scanned();
        let ended = conn.simple(if commit { "COMMIT" } else { "ROLLBACK" }, |_| {}).await;
        let ended = self.note_failure(ended);
        self.settle();
        ended
    }

    /// From now on somebody is asked before a statement makes the session hold its connection from
    /// one statement to the next: it begins a transaction, or leaves something behind.
    pub fn ask_before_holding(&mut self, ask: Ask) {
        self.ask = Some(ask);
    }

    /// Whether it has a connection that nobody else can use.
    pub fn holds_connection(&self) -> bool {
        self.lease.is_some()
    }

    /// Asks whether what was prepared may run.
    fn check_holding(&mut self, known: &Known) -> Result<()> {
        let Some(ask) = &self.ask else { return Ok(()) };
        let class = &known.statement.class;
        let begins = class.effects.has(Effects::BEGIN);
        match begins || leaves_something(class, self.mux.database()) {
            true => ask(),
            false => Ok(()),
        }
    }

    /// Makes ready to run a statement; `types` are those of its parameters where PostgreSQL is not
    /// to find them itself (0 = it is).
    pub async fn prepare(
        &mut self,
        catalog: &Catalog,
        sql: &str,
        types: &[u32],
    ) -> Result<Arc<Known>> {
        if sql.contains('\0') {
            return Err(Error::sql(b"22021", "the statement contains the character U+0000"));
        }
        self.finish_work();
        let admitted = self.executor.admit(self.entry.protocol, sql.as_bytes(), &self.entry.tally);
        self.work = Some(admitted);
        self.attach_typed().await?;
        let names = self.mux.database().clone();
        self.executor.refresh(&names);
        let body = typed::statement_body(sql, types);
        let lane = self.demand.lane.clone();
        // What a transaction has defined is nobody else's yet.
        let is_alone = self.dirty || held(&mut self.lease)?.conn().state.tx != TxStatus::Idle;
        if !is_alone && let Some(known) = self.known.find(&lane, &body, &names) {
            // Another connection may give other columns: somebody else may have altered the table.
            let statements = &mut held(&mut self.lease)?.conn().state.statements;
            if statements.has_current(&known.statement) {
                self.check_holding(&known)?;
                self.running = Some(known.clone());
                return Ok(known);
            }
        }
        // Boxed: what is known is ready without it.
        Box::pin(self.prepare_anew(catalog, sql, body, is_alone)).await
    }

    /// Asks PostgreSQL for the types of a statement.
    async fn prepare_anew(
        &mut self,
        catalog: &Catalog,
        sql: &str,
        body: Box<[u8]>,
        is_alone: bool,
    ) -> Result<Arc<Known>> {
        let (names, lane) = (self.mux.database().clone(), self.demand.lane.clone());
        let definitions = names.definitions();
        let (version, list) = names.current();
        let class = classify(sql.as_bytes(), &list);
        let context = match class.timeless && !is_alone {
            true => typed::CONTEXT,
            false => self.known.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1 << 63),
        };
        let hasher = &self.known.hasher;
        let world = World { context, version, definitions };
        let statement = Arc::new(Statement::shared(hasher, body, world, class));
        let most = self.most_statements;
        let conn = held(&mut self.lease)?.conn();
        let prepared = typed::describe(conn, &statement, most).await;
        let prepared = self.note_failure(prepared)?;
        let described = self.describe(catalog, &prepared).await?;
        let (at, used) = (Instant::now(), AtomicU64::new(0));
        let known = Arc::new(Known { statement, described, lane, definitions, at, used });
        if context == typed::CONTEXT {
            self.known.keep(&known);
        }
        self.check_holding(&known)?;
        self.running = Some(known.clone());
        Ok(known)
    }

    pub(super) async fn attach_typed(&mut self) -> Result<()> {
        if self.lease.is_some() {
            return Ok(());
        }
        let ready = self.executor.pool().try_acquire(&self.demand, &self.entry.slot);
        let lease = match ready {
            Some(lease) => Ok(lease),
            // Boxed: whoever need not wait does not carry the room for it.
            None => Box::pin(self.executor.acquire(&self.demand, &self.entry.slot)).await,
        };
        self.lease = Some(self.noted(lease)?);
        let conn = held(&mut self.lease)?.conn();
        let sql = conn.state.transition(self.mux.settings());
        if !sql.is_empty() {
            Box::pin(conn.simple(&sql, |_| {})).await?;
            conn.state.applies(self.mux.settings());
        }
        Ok(())
    }

    /// Runs the prepared statement with text values; the events follow.
    pub async fn execute(&mut self, values: &[Option<Vec<u8>>], max_rows: u32) -> Result<()> {
        self.send(values.iter().map(Option::as_deref), std::iter::empty(), max_rows).await
    }

    /// The same for values that are somewhere else. `formats` has none for columns that are all
    /// text, else one for each of them.
    ///
    /// # Errors
    /// The connection is lost, or the values are too long.
    pub async fn execute_params<'v>(
        &mut self,
        values: impl Iterator<Item = Option<&'v [u8]>>,
        formats: impl Iterator<Item = i16>,
    ) -> Result<()> {
        self.send(values, formats, 0).await
    }

    async fn send<'v>(
        &mut self,
        values: impl Iterator<Item = Option<&'v [u8]>>,
        formats: impl Iterator<Item = i16>,
        max_rows: u32,
    ) -> Result<()> {
        let Some(known) = &self.running else {
            return Err(Error::internal("no statement was prepared"));
        };
        let (statement, local) = (&known.statement, &self.local);
        let local = (local, &self.known.preludes);
        let conn = held(&mut self.lease)?.conn();
        let most = self.most_statements;
        self.events =
            typed::execute(conn, statement, local, (values, formats), max_rows, most).await?;
        Ok(())
    }

    /// The next event of the running statement; the values of a row are in [`Session::row`].
    pub fn poll_event(&mut self, cx: &mut Context<'_>, longest_row: usize) -> Poll<Result<Event>> {
        let conn = held(&mut self.lease)?.conn();
        let event = std::task::ready!(self.events.poll(cx, conn, longest_row));
        match &event {
            Ok(Event::Complete { command, rows }) => self.completed(command, *rows),
            Ok(Event::Done) => self.settle(),
            Ok(_) => {}
            Err(error) => {
                if let Some(known) = self.running.take_if(|_| typed::is_stale(error)) {
                    self.known.forget(&known);
                }
                self.settle();
            }
        }
        let event = self.note_failure(event);
        if matches!(event, Ok(Event::Done) | Err(_)) {
            self.finish_work();
        }
        Poll::Ready(event)
    }

    /// The request in work is over; a transaction may be open.
    pub(super) fn finish_work(&mut self) {
        let Some(mut work) = self.work.take() else { return };
        work.ready(self.is_in_transaction());
    }

    fn completed(&mut self, command: &str, rows: u64) {
        if let Some(work) = &mut self.work {
            work.completed(CommandTag { command, rows });
        }
        let defines = |known: &Arc<Known>| known.statement.class.effects.has(Effects::DDL);
        if self.running.as_ref().is_some_and(defines) {
            // Others see it at the end of the transaction only.
            self.defined = true;
            self.mux.database().defined();
        }
    }

    /// At the end of a statement: outside of a transaction the connection goes back.
    fn settle(&mut self) {
        let names = self.mux.database();
        let leaves = |known: &Arc<Known>| leaves_something(&known.statement.class, names);
        self.dirty |= self.running.as_ref().is_none_or(leaves);
        if let Some(known) = &self.running {
            self.mux.may_have_set(&known.statement.class);
        }
        self.let_go();
    }

    /// Gives the connection back if nothing of the session is on it.
    fn let_go(&mut self) {
        let dirty = self.dirty;
        self.settle_definitions();
        let goes = |lease: &mut crate::pool::Lease| {
            let conn = lease.conn();
            // The last message has been understood.
            conn.inbound.consume_scanned();
            !dirty && conn.is_reusable() && conn.state.tx == TxStatus::Idle
        };
        if let Some(lease) = self.lease.take_if(goes) {
            lease.release();
        }
    }

    /// Between two requests: nothing is in work, and the connection goes back if it can.
    pub fn rest(&mut self) {
        self.running = None;
        self.finish_work();
        self.let_go();
    }

    /// Gives up its connection, on which nothing of it stays: a transaction is rolled back,
    /// settings and temporary tables are gone.
    pub fn give_up_connection(&mut self) {
        self.running = None;
        self.finish_work();
        self.lease = None;
        self.dirty = false;
        self.entry.tally.transaction_lost();
        if std::mem::take(&mut self.defined) {
            self.mux.database().defined();
        }
    }

    fn settle_definitions(&mut self) {
        let is_over = |lease: &mut crate::pool::Lease| lease.conn().state.tx == TxStatus::Idle;
        if self.defined && self.lease.as_mut().is_some_and(is_over) {
            self.defined = false;
            self.mux.database().defined();
        }
    }

    /// Body of the DataRow that the last event was.
    pub fn row(&mut self) -> &[u8] {
        self.lease.as_mut().map_or(&[], |lease| lease.conn().body())
    }
}

impl Session {
    /// Number of the request in work, by which others can find and cancel it.
    pub fn query_id(&self) -> Option<uuid::Uuid> {
        self.sessions.query_id(&self.entry)
    }

    /// Names of settings with a dot that may be set in it; PostgreSQL lists none of them.
    pub fn custom_settings(&mut self) -> BTreeSet<String> {
        self.mux.refresh_names();
        self.mux.custom_settings().map(str::to_owned).collect()
    }

    /// Whether the session can be gone on with: what it holds, if it holds anything, works.
    pub fn is_sound(&mut self) -> bool {
        self.lease.as_mut().is_none_or(|lease| {
            let conn = lease.conn();
            conn.inbound.consume_scanned();
            conn.is_reusable()
        })
    }

    /// Whether a statement has failed in a transaction that is open.
    pub fn is_in_failed_transaction(&mut self) -> bool {
        self.is_in_transaction()
            && self.lease.as_mut().is_some_and(|l| l.conn().state.tx == TxStatus::Failed)
    }

    /// Whether a transaction is open, failed or not, and can be gone on with.
    pub fn is_in_transaction(&mut self) -> bool {
        self.lease.as_mut().is_some_and(|lease| {
            let conn = lease.conn();
            conn.inbound.consume_scanned();
            conn.is_reusable() && conn.state.tx != TxStatus::Idle
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::NameStore;

    fn lane(role: &str) -> Arc<LaneKey> {
        Arc::new(LaneKey::new(&role.into(), None, &"d".into(), Vec::new()))
    }

    fn known(store: &KnownStatements, names: &DatabaseNames, role: &str, sql: &str) -> Arc<Known> {
        let body = typed::statement_body(sql, &[]);
        let world = World { context: typed::CONTEXT, version: names.version(), definitions: 0 };
        let statement = Statement::shared(&store.hasher, body, world, Class::default());
        Arc::new(Known {
            statement: Arc::new(statement),
            described: Described { parameters: Vec::new(), columns: Vec::new().into() },
            lane: lane(role),
            definitions: names.definitions(),
            at: Instant::now(),
            used: AtomicU64::new(0),
        })
    }

    #[test]
    fn a_statement_is_known_to_its_lane_until_something_is_defined() {
        let (store, names) = (KnownStatements::default(), NameStore::default().of(&"d".into()));
        let find = |role: &str, sql: &str| {
            store.find(&lane(role), &typed::statement_body(sql, &[]), &names)
        };
        store.keep(&known(&store, &names, "a", "select 1"));
        assert!(find("a", "select 1").is_some());
        assert!(find("b", "select 1").is_none() && find("a", "select 2").is_none());
        store.forget(&find("a", "select 1").unwrap());
        assert!(find("a", "select 1").is_none() && store.kept.lock().bytes == 0);
        store.keep(&known(&store, &names, "a", "select 1"));
        names.defined();
        assert!(find("a", "select 1").is_none());
    }

    #[test]
    fn only_so_many_are_known() {
        let (store, names) = (KnownStatements::default(), NameStore::default().of(&"d".into()));
        for number in 0..=MAX_KNOWN {
            store.keep(&known(&store, &names, "a", &format!("select {number}")));
        }
        let count = store.kept.lock().by_hash.len();
        assert!((MAX_KNOWN / 2..MAX_KNOWN).contains(&count), "{count}");
        let newest = typed::statement_body(&format!("select {MAX_KNOWN}"), &[]);
        assert!(store.find(&lane("a"), &newest, &names).is_some());
        let oldest = typed::statement_body("select 0", &[]);
        assert!(store.find(&lane("a"), &oldest, &names).is_none());
    }

    #[test]
    fn what_leaves_something_behind() {
        let names = NameStore::default().of(&"d".into());
        let leaves = |class: Class| leaves_something(&class, &names);
        assert!(!leaves(Class::default()));
        for effects in [Effects::TEMP, Effects::UNCLEAR, Effects::DISCARD_ALL, Effects::LISTEN] {
            assert!(leaves(Class { effects, ..Class::default() }), "{effects:?}");
        }
        let ddl = Class { effects: Effects::DDL, ..Class::default() };
        assert!(!leaves(ddl));
        assert!(leaves(Class { custom_settings: vec!["a.b".into()], ..Class::default() }));
    }
}
