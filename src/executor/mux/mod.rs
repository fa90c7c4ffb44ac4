//! What lets a session change its connection between two transactions without noticing: its
//! settings, its prepared statements, and what holds it on the connection that it has.
//!
//! Every statement is read before it is sent ([`crate::query::classify`]). What it may leave
//! behind and cannot be carried to another connection *pins* the session; a look at the
//! connection ([`super::probe`]) tells later whether that is still so.

mod carried;
mod columns;
mod foreign;
mod named;
mod outcome;
mod outgoing;
mod pooled;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::backend::{ConnState, Kind, Statement, Told};
use crate::catalog::{DatabaseNames, SequenceRule};
use crate::config::PoolingMode;
use crate::proto::backend::{parameter_status, put_parameter_status};
use crate::proto::frontend::{put_close, put_query, put_sync};
use crate::query::{Change, Class, Effects, Names, SettingValue, Settings};
use crate::telemetry::Metrics;

pub use crate::backend::APPLICATION_NAME;
pub use carried::Carried;
use carried::StandIn;
use columns::Columns;
pub use named::Limits;
use named::Named;
pub use outgoing::{Refused, rule};
use pooled::Pooled;
pub use pooled::{Left, Parcel};

/// What is given up for others when a client rests: it is seldom asked for again.
const SOFT: Effects = Effects::SEQUENCE.and(Effects::SEED);

/// Time between further looks at a session that rests.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Named statements of one session that are carried along; with more it keeps its connection.
const MAX_STATEMENTS: usize = 1024;

/// Settings with a dot that a session may set by function calls.
const MAX_CUSTOM: usize = 64;

/// Changes of settings in one transaction that are followed.
const MAX_JOURNAL: usize = 256;

/// The state of a session that is not on its connection.
pub struct Mux {
    mode: PoolingMode,
    /// Number by which the client knows its backend.
    pid: u32,
    /// Settings of the start-up packet that are not part of the lane.
    start: Arc<Settings>,
    settings: Arc<Settings>,
    told: Arc<Told>,
    /// The `application_name` that the client was told last, whatever `told` says.
    told_name: Box<str>,
    /// Digest of `told` with that name.
    told_digest: u64,
    /// The same, where others look.
    shown_name: Arc<Mutex<String>>,
    /// It was reset, so it is the one of the start-up packet, whatever the connection's is.
    name_is_reset: bool,
    /// What holds the session on its connection.
    pins: Effects,
    /// What the requests since the last settlement may have left behind.
    batch: Effects,
    /// Changes that the statements in flight will make when PostgreSQL completes them, with the
    /// number of their batch ([`crate::backend::Expectations::batch`]).
    pending: VecDeque<(u64, Change)>,
    /// Changes of the open transaction.
    journal: Vec<Change>,
    failed: bool,
    rolled_back: bool,
    defined: bool,
    /// Settings with a dot that were set by function calls.
    custom: Vec<Box<str>>,
    /// Texts beside functions that may set what they are told to.
    mentioned: VecDeque<Box<str>>,
    named: Named,
    unnamed: Option<Arc<Statement>>,
    columns: Columns,
    /// The client's names are the connection's: SQL has referred to prepared statements.
    native: bool,
    /// Statements prepared by protocol that are on the connection under the client's names.
    own: HashSet<Box<[u8]>>,
    /// Those of them that are there to be taken away by SQL in flight.
    stand_ins: Vec<StandIn>,
    /// The batch in flight whose SQL takes prepared statements away; 0 = there is none.
    takes_away: u64,
    /// Statements prepared with SQL, as a look at the connection has found them.
    carried: Vec<Carried>,
    /// What running one of them may leave behind; `None` = not known.
    carried_effects: Option<Effects>,
    settings_moved: bool,
    /// Something may have made settings with a dot that nobody knows of.
    stains: bool,
    probe_due: bool,
    looked_before: bool,
    database: Arc<DatabaseNames>,
    names: Arc<Names>,
    version: u64,
    hasher: RandomState,
    unique: u64,
    requests: u32,
    cache_size: usize,
    metrics: Arc<Metrics>,
    pooled: Pooled,
}

/// What [`Mux::new`] needs.
pub struct MuxSetup {
    /// Pooling mode.
    pub mode: PoolingMode,
    /// Number for BackendKeyData.
    pub pid: u32,
    /// Settings of the start-up packet that are not part of the lane.
    pub start: Arc<Settings>,
    /// What is known of the database.
    pub database: Arc<DatabaseNames>,
    /// The same for all sessions of the server. It need not withstand who looks for collisions:
    /// texts that share a hash are compared.
    pub hasher: RandomState,
    /// `pool.statement_cache_size`.
    pub cache_size: usize,
    /// Where the client's application_name is written down.
    pub application: Arc<Mutex<String>>,
    /// How much the session may prepare.
    pub limits: Limits,
    /// Counts what is refused.
    pub metrics: Arc<Metrics>,
}

impl Mux {
    /// The state of a session that has done nothing yet.
    pub fn new(setup: MuxSetup) -> Self {
        let (version, names) = setup.database.current();
        Self {
            mode: setup.mode,
            pid: setup.pid,
            settings: setup.start.clone(),
            start: setup.start,
            told: Arc::default(),
            told_name: Box::default(),
            told_digest: 0,
            shown_name: setup.application,
            name_is_reset: false,
            pins: Effects::NONE,
            batch: Effects::NONE,
            pending: VecDeque::new(),
            journal: Vec::new(),
            failed: false,
            rolled_back: false,
            defined: false,
            custom: Vec::new(),
            mentioned: VecDeque::new(),
            named: Named::new(setup.limits),
            unnamed: None,
            columns: Columns::default(),
            native: false,
            own: HashSet::new(),
            stand_ins: Vec::new(),
            takes_away: 0,
            carried: Vec::new(),
            carried_effects: Some(Effects::NONE),
            settings_moved: false,
            stains: false,
            probe_due: false,
            looked_before: false,
            database: setup.database,
            names,
            version,
            hasher: setup.hasher,
            unique: 0,
            requests: 0,
            cache_size: setup.cache_size,
            metrics: setup.metrics,
            pooled: Pooled::default(),
        }
    }

    /// Whether the session keeps its connection to its end.
    pub fn is_session_mode(&self) -> bool {
        self.mode == PoolingMode::Session
    }

    /// Number by which the client knows its backend.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What is known of the session's database.
    pub fn database(&self) -> &Arc<DatabaseNames> {
        &self.database
    }

    /// Writes what the client is told at its log-in.
    pub fn greet(&mut self, told: Arc<Told>, out: &mut Vec<u8>) {
        let name = match self.own_name() {
            "" => told.application_name().unwrap_or_default(),
            own => own,
        };
        told.put_for(out, name);
        self.told_name = name.into();
        self.is_told(told);
    }

    /// What the client was told.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let mut told = self.told.values.clone();
        let name = told.iter_mut().find(|(name, _)| name == APPLICATION_NAME);
        if let Some((_, value)) = name {
            self.told_name.as_ref().clone_into(value);
        }
        told
    }

    fn is_told(&mut self, told: Arc<Told>) {
        self.told_digest = told.digest_for(&self.told_name);
        self.told = told;
    }

    /// The `application_name` of the start-up packet.
    fn own_name(&self) -> &str {
        self.start.get(APPLICATION_NAME).map_or("", config_value)
    }

    fn now_called(&mut self, name: &str) {
        self.told_name = name.into();
        name.clone_into(&mut self.shown_name.lock());
    }

    /// What the client gets of a ParameterStatus.
    pub fn reported(&mut self, body: &[u8]) -> Reported {
        let Ok((name, value)) = parameter_status(body) else { return Reported::Pass };
        if name != APPLICATION_NAME.as_bytes() {
            return Reported::Pass;
        }
        if self.is_session_mode() {
            self.now_called(&String::from_utf8_lossy(value));
            return Reported::Pass;
        }
        let reset = self.name_is_reset && value.is_empty() && !self.own_name().is_empty();
        if !reset {
            self.now_called(&String::from_utf8_lossy(value));
            return Reported::Pass;
        }
        if *self.told_name == *self.own_name() {
            return Reported::Keep;
        }
        let start = self.start.clone();
        self.now_called(start.get(APPLICATION_NAME).map_or("", config_value));
        let mut message = Vec::new();
        put_parameter_status(&mut message, APPLICATION_NAME, self.own_name());
        Reported::Instead(message)
    }

    /// Settings in force for the session.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Settings with a dot that must be looked for one by one.
    pub fn custom_settings(&self) -> impl Iterator<Item = &str> {
        let known = &self.names.custom_settings;
        let set = self.settings.names().filter(|name| name.contains('.'));
        let own = self.custom.iter().chain(&self.mentioned);
        own.chain(known.iter()).map(AsRef::as_ref).chain(set)
    }

    /// A name that something may have set; of too many the oldest is forgotten.
    fn mention(&mut self, name: Box<str>) {
        if !self.mentioned.contains(&name) {
            if self.mentioned.len() >= MAX_CUSTOM {
                self.mentioned.pop_front();
            }
            self.mentioned.push_back(name);
        }
    }

    /// Settings with a dot that a statement may have set whose effects are not followed here can be
    /// looked for from now on.
    pub fn may_have_set(&mut self, class: &Class) {
        let set = class.changes.iter().filter_map(|change| match change {
            Change::Set(name, _) if name.contains('.') => Some(name),
            _ => None,
        });
        for name in set.chain(&class.custom_settings).chain(&class.mentions) {
            self.mention(name.clone());
        }
    }

    /// Takes over what is known of the database by now.
    pub fn refresh_names(&mut self) {
        if self.database.version() != self.version {
            (self.version, self.names) = self.database.current();
        }
    }

    /// Whether somebody should see if it is time to look at the database again.
    pub fn may_want_names(&mut self) -> bool {
        self.requests = self.requests.wrapping_add(1);
        !self.is_session_mode() && (self.requests & 0xff == 0 || !self.names.is_complete())
    }

    /// Most prepared statements.
    pub fn most_statements(&self) -> usize {
        self.named.limit()
    }

    /// Where a report of PostgreSQL names a statement by our name, and the client's name for it.
    pub fn renamed(&self, conn: &ConnState, report: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
        let from = report.windows(5).position(|part| part == b"\"rdb_")? + 1;
        let length = report[from..].iter().position(|b| *b == b'"')?;
        let statement = conn.statements.by_name(&report[from..from + length])?;
        let own = self.named.iter().find(|(_, named)| Arc::ptr_eq(named, statement));
        // Its name may have been closed behind what failed.
        let closed = || conn.expect.name_before(statement);
        let name = own.map(|(name, _)| name).or_else(closed).unwrap_or_default().to_vec();
        Some((from..from + length, name))
    }

    /// Between two transactions: what was done counts from now on. Says whether the connection
    /// may go.
    pub fn settle(&mut self) -> bool {
        if !self.batch.is_none() {
            self.settle_batch();
        }
        self.settle_behind();
        self.pins.is_none() && !self.is_session_mode() && !self.native
    }

    /// The same when others wait for the connection. A client that is held for the last values of
    /// sequences and never rests gives them up too, when enough transactions have shown that
    /// nobody asks for them.
    pub fn settle_wanted(&mut self) -> bool {
        self.pins = self.without_sequences(self.pins);
        self.settle()
    }

    fn without_sequences(&self, effects: Effects) -> Effects {
        if effects.has(Effects::SEQUENCE) {
            self.database.sequence_used();
            if self.database.keeps_sequences() == SequenceRule::Forget {
                return effects.without(Effects::SEQUENCE);
            }
        }
        effects
    }

    fn settle_batch(&mut self) {
        self.stains |= self.batch.has(Effects::UNCLEAR);
        let left = self.without_sequences(self.batch.only(Effects::HOLDING));
        self.batch = Effects::NONE;
        self.pins.add(left);
        self.looked_before = false;
        self.probe_due |= left.has(Effects::VISIBLE.and(SOFT)) || self.native;
    }

    /// What keeps the session on its connection.
    pub fn pins(&self) -> Effects {
        self.pins
    }

    /// Whether no reset gets the connection clean.
    pub fn spoils(&self) -> bool {
        let lasting = Effects::LOAD.and(Effects::SEED).and(Effects::HIDDEN).and(Effects::UNTRACKED);
        self.pins.and(self.batch).has(lasting)
    }

    /// Whether a look at the connection may free it.
    pub fn wants_probe(&self) -> bool {
        // Notifications may arrive while one is in work, but a listener must not miss any.
        self.probe_due && !self.is_session_mode()
    }

    /// The look failed, for instance because the client has set a time limit for statements: the
    /// session stays where it is until there is a reason to look again.
    pub fn not_seen(&mut self) {
        self.probe_due = false;
    }

    /// The look was taken: what is visible is known exactly now.
    pub fn probed(&mut self, conn: &mut ConnState, seen: Seen, wait: Wait) {
        self.probe_due = false;
        self.pins = self.pins.without(Effects::VISIBLE).and(seen.effects);
        let given = self.start.names().filter(|name| {
            // What the start-up packet gave is in force, unless something else was seen.
            !seen.settings.iter().any(|(seen, _)| **seen == **name)
                && conn.applied.get(name) == self.start.get(name)
        });
        let given: Vec<_> =
            given.filter_map(|name| Some((name.into(), self.start.get(name)?.clone()))).collect();
        let settings = Settings::from_pairs(given.into_iter().chain(seen.settings));
        if settings != *conn.applied {
            conn.applied = Arc::new(settings);
        }
        // A reset gives back what the start-up packet said, at the latest with the next
        // connection.
        let missing = self.start.names().filter(|name| conn.applied.get(name).is_none());
        let missing: Vec<_> =
            missing.filter_map(|name| Some((name.into(), self.start.get(name)?.clone()))).collect();
        let settings = match missing.is_empty() {
            true => conn.applied.clone(),
            false => Arc::new(conn.applied.with(missing)),
        };
        let was = std::mem::replace(&mut self.settings, settings);
        self.follow_wish(&[]);
        self.follow_tag(&was);
        self.heard();
        conn.spoiled |= seen.spoiled;
        if seen.too_long {
            self.pins.add(Effects::HIDDEN);
        }
        self.learn_statements(conn, seen.prepared, seen.statements);
        if self.pins.has(SOFT) && !self.keeps_soft(wait) {
            self.pins = self.pins.without(SOFT);
        }
        self.give_up_for_wish();
    }

    /// The seed and the values of sequences are kept while the client is at work. When it rests,
    /// they give way to others who wait, and to everybody as long as nobody asked for them.
    fn keeps_soft(&mut self, wait: Wait) -> bool {
        let rested = std::mem::replace(&mut self.looked_before, true);
        match self.database.keeps_sequences() {
            _ if wait == Wait::Work || !rested => true,
            SequenceRule::Keep => wait != Wait::RestWanted,
            SequenceRule::Learn | SequenceRule::Forget => self.pins.has(Effects::SEED),
        }
    }

    /// How long an idle session is left alone before the next look; `None` = there is no need.
    pub fn next_look(&self, first: Duration) -> Option<Duration> {
        let held = self.pins.only(Effects::HOLDING);
        match () {
            () if self.is_session_mode() || held.is_none() && !self.native => None,
            () if self.probe_due => Some(first),
            () if held.without(SOFT.and(Effects::PREPARE)).is_none() => Some(SECOND_LOOK),
            () => None,
        }
    }

    /// Whether [`Mux::attach`] has nothing to do.
    pub fn is_attached(&self, conn: &ConnState) -> bool {
        Arc::ptr_eq(&conn.applied, &self.settings)
            && !conn.stained
            && conn.leftovers.is_empty()
            && self.carried.is_empty()
    }

    /// Takes the session to a connection: returns the messages that must go before its first
    /// request, empty when nothing differs.
    pub fn attach(&mut self, conn: &mut ConnState) -> Vec<u8> {
        let mut batch = Vec::new();
        if self.is_session_mode() {
            return batch;
        }
        if !conn.leftovers.is_empty() {
            for name in conn.leftovers.drain(..) {
                put_close(&mut batch, &name);
            }
            put_sync(&mut batch);
            conn.expect.push(Kind::Apply.into());
        }
        if conn.stained || !Arc::ptr_eq(&conn.applied, &self.settings) {
            if conn.stained || conn.applied != self.settings {
                let sql = conn.transition(&self.settings);
                conn.unnamed = None;
                put_query(&mut batch, sql.as_bytes());
                conn.expect.push(Kind::Apply.into());
                conn.applies(&self.settings);
            } else if Arc::as_ptr(&conn.applied) < Arc::as_ptr(&self.settings) {
                // Of equal ones, sessions and connections soon have the same.
                self.settings = conn.applied.clone();
            } else {
                conn.applied = self.settings.clone();
            }
        }
        if !self.carried.is_empty() && !self.pins.has(Effects::PREPARE) {
            self.carry_on(conn, &mut batch);
        }
        batch
    }

    /// Whether taking over the settings cannot fail.
    pub fn attaches_harmlessly(&self, conn: &ConnState) -> bool {
        let applied = if conn.stained { &Arc::default() } else { &conn.applied };
        Arc::ptr_eq(applied, &self.settings) || applied.is_harmless(&self.settings)
    }

    /// What the client must be told of, so that it knows this connection's parameters.
    pub fn untold<'a>(&self, conn: &'a ConnState) -> Vec<&'a (String, String)> {
        if conn.digest == self.told_digest {
            return Vec::new();
        }
        let is_new = |pair: &&(String, String)| match pair.0.as_str() {
            APPLICATION_NAME => *pair.1 != *self.told_name,
            _ => !self.told.values.contains(pair),
        };
        conn.parameters.iter().filter(is_new).collect()
    }

    /// The unnamed statement is gone: one that was to take its place was refused.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// The session goes from its connection.
    pub fn leaves(&mut self, conn: &mut ConnState) {
        conn.stained |= std::mem::take(&mut self.stains);
        self.knows(conn);
    }

    /// The client knows the parameters of its connection.
    pub fn knows(&mut self, conn: &ConnState) {
        if conn.digest != self.told_digest {
            self.is_told(Arc::new(Told::of(conn.parameters.clone())));
        }
    }
}

fn config_value(value: &SettingValue) -> &str {
    match value {
        SettingValue::Config(text) => text,
        _ => "",
    }
}

/// When a look at a connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At once, because others wait for a connection.
    Work,
    /// The client has not asked for anything for a while.
    Rest,
    /// The same, and others wait for a connection.
    RestWanted,
}

/// What becomes of a ParameterStatus.
pub enum Reported {
    /// The client gets it.
    Pass,
    /// The client knows it.
    Keep,
    /// The client gets this message.
    Instead(Vec<u8>),
}

/// What a look at a connection showed.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those of [`Effects::VISIBLE`] that are there.
    pub effects: Effects,
    /// Settings that the session has changed.
    pub settings: Vec<(Box<str>, SettingValue)>,
    /// Statements that were prepared by protocol under a client's own name.
    pub statements: Vec<Box<[u8]>>,
    /// Statements that were prepared with SQL.
    pub prepared: Vec<Carried>,
    /// A setting has a value that is too long to be carried along.
    pub too_long: bool,
    /// The connection has something that nothing takes away: a temporary namespace.
    pub spoiled: bool,
}
