//! Which names of a database have effects on the session that uses them: functions that set
//! something, tables whose triggers call such functions, and so on. Read from the catalog now and
//! then, and not believed in between when something was defined.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Row;
use crate::limits::recent::is_younger;
use crate::query::{Effects, Names, classify_body};
use crate::types::Database;

/// Databases remembered; when full, all are forgotten.
const MAX_DATABASES: usize = 256;

/// Rows of the catalog that are looked at; a larger database is never known well enough.
pub const MAX_ROWS: usize = 200_000;

/// How long a look at the catalog is believed in: somebody may define things behind our back.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// Longest time that the first look is waited for.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Shortest time between two definitions that are only inferred.
const UNSEEN_PAUSE: Duration = Duration::from_millis(100);

/// Rounds until the effects of functions that call each other have spread.
const MAX_ROUNDS: usize = 12;

/// Transactions that took values from sequences, after which a database is believed not to ask for
/// them later (`currval`), as long as nobody did.
const LEARNING: u32 = 1000;

/// What is known of one database, shared by its sessions.
#[derive(Debug)]
pub struct DatabaseNames {
    /// Database.
    pub database: Database,
    state: Mutex<State>,
    /// Moves whenever `current` gives something else.
    version: AtomicU64,
    /// Moves whenever something was defined.
    definitions: AtomicU64,
    loading: AtomicBool,
    /// Told when a look has ended.
    looked: Notify,
    sequence_uses: AtomicU32,
    sequence_reads: AtomicBool,
}

#[derive(Debug)]
struct State {
    names: Arc<Names>,
    loaded: Option<Instant>,
    /// When the first look began.
    begun: Option<Instant>,
    /// `definitions` when the last look began.
    definitions: u64,
    /// When something was last found to be defined that nobody had told of.
    unseen: Option<Instant>,
}

impl DatabaseNames {
    fn new(database: Database) -> Self {
        Self {
            database,
            state: Mutex::new(State {
                names: Arc::default(),
                loaded: None,
                begun: None,
                definitions: 0,
                unseen: None,
            }),
            version: AtomicU64::new(1),
            definitions: AtomicU64::new(1),
            loading: AtomicBool::new(false),
            looked: Notify::new(),
            sequence_uses: AtomicU32::new(0),
            sequence_reads: AtomicBool::new(false),
        }
    }

    /// Changes when [`DatabaseNames::current`] would give something else.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The names, and their version.
    pub fn current(&self) -> (u64, Arc<Names>) {
        let state = self.state.lock();
        (self.version(), state.names.clone())
    }

    /// How often something was defined: part of what a statement's text means.
    pub fn definitions(&self) -> u64 {
        self.definitions.load(Ordering::Acquire)
    }

    /// Something was defined, altered or dropped: no name is trusted until the next look.
    pub fn defined(&self) {
        self.definitions.fetch_add(1, Ordering::AcqRel);
        let mut state = self.state.lock();
        if state.loaded.is_some() {
            state.names = Arc::default();
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        state.loaded = state.loaded.map(|_| Instant::now() - FRESH_FOR);
    }

    /// PostgreSQL has refused to run a statement that was prepared before something was defined of
    /// which nobody has told: past RustyDB, or by a function. Ten times a second at most, since a
    /// client could bring it about again and again.
    pub fn defined_unseen(&self) {
        let now = Instant::now();
        {
            let mut state = self.state.lock();
            if state.unseen.is_some_and(|at| now.saturating_duration_since(at) < UNSEEN_PAUSE) {
                return;
            }
            state.unseen = Some(now);
        }
        self.defined();
    }

    /// Whether the caller should take a look now; then it must call [`DatabaseNames::learn`].
    pub fn wants_a_look(&self) -> bool {
        let mut state = self.state.lock();
        let due = match state.loaded {
            None => true,
            Some(at) if state.definitions != self.definitions() => at.elapsed() > PAUSE,
            Some(at) => !is_younger(at, FRESH_FOR),
        };
        let looks = due && !self.loading.swap(true, Ordering::AcqRel);
        if looks {
            state.begun.get_or_insert_with(Instant::now);
        }
        looks
    }

    /// Waits for the end of the first look, if that is being taken and did not begin long ago.
    pub async fn first_look(&self) {
        let mut looked = std::pin::pin!(self.looked.notified());
        looked.as_mut().enable();
        let begun = {
            let state = self.state.lock();
            state.begun.filter(|_| state.loaded.is_none())
        };
        if let Some(begun) = begun {
            let _ = tokio::time::timeout_at((begun + FIRST_LOOK).into(), looked).await;
        }
    }

    /// Learns from the answer to [`query`], asked when `definitions` was this.
    pub fn learn(&self, definitions: u64, rows: Option<&[Row]>) {
        let mut state = self.state.lock();
        state.loaded = Some(Instant::now());
        state.definitions = definitions;
        let current = definitions == self.definitions();
        state.names = match rows {
            Some(rows) if current => Arc::new(build(rows)),
            _ => Arc::default(),
        };
        self.version.fetch_add(1, Ordering::AcqRel);
        self.loading.store(false, Ordering::Release);
        self.looked.notify_waiters();
    }

    /// A transaction took values from sequences. Says whether they may be asked for later: when
    /// somebody ever did, or until enough transactions have shown that nobody does.
    pub fn sequence_used(&self) {
        self.sequence_uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody asked for a sequence's last value.
    pub fn sequence_read(&self) {
        self.sequence_reads.store(true, Ordering::Relaxed);
    }

    /// Whether sequences' last values must be kept for a session that took some.
    pub fn keeps_sequences(&self) -> SequenceRule {
        if self.sequence_reads.load(Ordering::Relaxed) {
            SequenceRule::Keep
        } else if self.sequence_uses.load(Ordering::Relaxed) < LEARNING {
            SequenceRule::Learn
        } else {
            SequenceRule::Forget
        }
    }
}

/// What to do about the last values of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceRule {
    /// They are asked for in this database.
    Keep,
    /// It is not known yet: keep them for a moment.
    Learn,
    /// They are not asked for.
    Forget,
}

/// The memory, shared by all sessions.
#[derive(Default)]
pub struct NameStore {
    databases: Mutex<HashMap<Database, Arc<DatabaseNames>, RandomState>>,
}

impl NameStore {
    /// What is known of a database.
    pub fn of(&self, database: &Database) -> Arc<DatabaseNames> {
        let mut databases = self.databases.lock();
        if let Some(known) = databases.get(database) {
            return known.clone();
        }
        if databases.len() >= MAX_DATABASES {
            databases.clear();
        }
        let names = Arc::new(DatabaseNames::new(database.clone()));
        databases.insert(database.clone(), names.clone());
        names
    }
}

/// The query whose answer [`DatabaseNames::learn`] takes.
pub fn query(server_version: u32) -> String {
    let body = match server_version {
        0..14 => "NULL::text",
        _ => "pg_catalog.pg_get_function_sqlbody(p.oid)",
    };
    include_str!("../../sql/names.sql").replace("$sqlbody", body)
}

/// What a function or a relation was found to do.
#[derive(Default)]
struct Found {
    /// By the number of a function or relation.
    effects: HashMap<u32, Effects>,
    custom: Vec<Box<str>>,
}

impl Found {
    fn add(&mut self, oid: u32, effects: Effects) -> bool {
        let known = self.effects.entry(oid).or_default();
        let before = *known;
        known.add(effects);
        *known != before
    }

    fn of(&self, oid: u32) -> Effects {
        self.effects.get(&oid).copied().unwrap_or_default()
    }
}

fn build(rows: &[Row]) -> Names {
    let mut names = Names::default();
    let (mut found, mut named) = (Found::default(), HashMap::new());
    for row in rows {
        if let (Some(oid), Some(name)) = (super::number::<u32>(row, 1), super::text(row, 2)) {
            named.insert(oid, name);
        }
    }
    for _ in 0..MAX_ROUNDS {
        let mut moved = false;
        for row in rows {
            let Some(oid) = super::number::<u32>(row, 1) else {
                // A cast, an operator, a type: it is not named where it is used.
                let function = super::number(row, 3).unwrap_or(0);
                if found.of(function).has(Effects::HOLDING) {
                    return unclear(rows);
                }
                continue;
            };
            let effects = effects_of(row, &names, &mut found);
            if found.add(oid, effects) {
                moved = true;
                if let Some(name) = named.get(&oid) {
                    names.learn(name.as_bytes(), effects);
                }
            }
        }
        if !moved {
            names.custom_settings = once_each(found.custom);
            names.complete();
            return names;
        }
        found.custom.clear();
    }
    unclear(rows)
}

/// Every name may have effects. Settings with a dot must be looked for all the same.
fn unclear(rows: &[Row]) -> Names {
    let (mut names, mut found) = (Names::default(), Found::default());
    for row in rows {
        effects_of(row, &names, &mut found);
    }
    names.custom_settings = once_each(found.custom);
    names
}

fn once_each(mut custom: Vec<Box<str>>) -> Vec<Box<str>> {
    custom.sort_unstable();
    custom.dedup();
    custom
}

fn effects_of(row: &Row, names: &Names, found: &mut Found) -> Effects {
    let other = || super::number::<u32>(row, 3).unwrap_or(0);
    match super::text(row, 0) {
        Some("function") => match super::text(row, 3) {
            Some(body) => {
                let class = classify_body(body.as_bytes(), names);
                found.custom.extend(class.custom_settings);
                class.effects.only(Effects::HOLDING.and(Effects::READS_SEQUENCE))
            }
            None => Effects::UNCLEAR.and(Effects::HIDDEN),
        },
        Some("builtin") => Effects::UNCLEAR.and(Effects::HIDDEN),
        Some("sequence") => Effects::HAS_SEQUENCE,
        Some("call" | "reach") => found.of(other()),
        _ => Effects::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::classify;

    fn rows(text: &str) -> Vec<Row> {
        let cell = |cell: &str| (cell != "-").then(|| cell.to_owned());
        text.lines().map(|line| line.split('|').map(|c| cell(c.trim())).collect()).collect()
    }

    fn reason(rows_text: &str, sql: &str) -> &'static str {
        let names = build(&rows(rows_text));
        classify(sql.as_bytes(), &names).effects.only(Effects::HOLDING).reason().unwrap_or("")
    }

    const DATABASE: &str = "function|1|quiet|begin return now(); end\n\
        function|2|audit|begin perform loud(); return new; end\n\
        function|3|loud|begin perform pg_advisory_lock(1); end\n\
        function|4|foreign_code|-\n\
        relation|10|plain|-\n\
        relation|11|audited|-\n\
        relation|12|parent|-\n\
        relation|13|orders|-\n\
        call|11|-|2\n\
        reach|12|-|11\n\
        sequence|13|-|-";

    #[test]
    fn effects_spread_from_functions_to_what_calls_them() {
        for (sql, expected) in [
            ("select quiet() from plain", ""),
            ("select loud()", "advisory lock"),
            ("insert into audited values (1)", "advisory lock"),
            ("update parent set a = 1", "advisory lock"),
            ("select foreign_code()", "hidden state"),
            ("insert into orders default values", "sequence values"),
            ("select * from orders", ""),
        ] {
            assert_eq!(reason(DATABASE, sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_call_that_has_no_name_makes_everything_unclear() {
        let rows = format!("{DATABASE}\ncall|-|-|3");
        assert_eq!(reason(&rows, "select 1 from plain"), "sequence values");
        let harmless = format!("{DATABASE}\ncall|-|-|1");
        assert_eq!(reason(&harmless, "select 1 from plain"), "");
    }

    #[test]
    fn a_definition_makes_what_is_known_void() {
        let names = NameStore::default().of(&"d".into());
        assert!(names.wants_a_look() && !names.wants_a_look());
        names.learn(names.definitions(), Some(&rows(DATABASE)));
        let (version, known) = names.current();
        assert!(known.of(b"loud").has(Effects::ADVISORY));
        names.defined();
        assert_ne!(names.version(), version);
        assert!(names.current().1.of(b"loud").is_none());
        // A look that began before the definition does not count.
        names.learn(1, Some(&rows(DATABASE)));
        assert!(names.current().1.of(b"loud").is_none());
    }

    #[test]
    fn sequences_are_kept_until_it_is_clear_that_nobody_asks() {
        let names = NameStore::default().of(&"d".into());
        assert_eq!(names.keeps_sequences(), SequenceRule::Learn);
        (0..LEARNING).for_each(|_| names.sequence_used());
        assert_eq!(names.keeps_sequences(), SequenceRule::Forget);
        names.sequence_read();
        assert_eq!(names.keeps_sequences(), SequenceRule::Keep);
    }
}
