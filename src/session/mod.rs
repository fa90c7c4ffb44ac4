//! A session: what one client of any door is to the rest of the server.
//!
//! Adapters know this module and nothing below it. A session has an identity, a lane and, only
//! while it needs one, a backend connection: for a transaction, for an HTTP request's statement,
//! or, when something cannot be moved ([`crate::executor::mux`]), for as long as that is there.

pub mod admin;
mod copy;
mod describe;
pub mod jobs;
mod kind;
mod limits;
mod own;
mod pooled;
mod registry;
mod schema;
mod statistics;
mod typed;

use std::future::Future;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use foldhash::fast::RandomState;

pub use crate::executor::relay::Client;
pub use crate::executor::typed::{Event, Notice, is_stale};
pub use describe::{Column, Columns, Described};
pub use kind::Start;
pub use limits::TimeLimits;
pub use pooled::{CLASS, PURITY, TAG, TAG_FOUND, TAG_MATCH, check_pooling};
pub use registry::{CancelElsewhere, Entry, Sessions, Stop};
pub use statistics::SessionView;
pub use typed::{Ask, Known};

use crate::auth::Identity;
use crate::backend::{Credentials, Told};
use crate::catalog::DatabaseSnapshot;
use crate::config::{Config, Live};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::mux::{APPLICATION_NAME, Limits, Mux, MuxSetup, Wait};
use crate::executor::probe;
use crate::executor::relay::{self, Dropped, Link, Pause};
use crate::executor::typed::{Events, Local};
use crate::executor::{Executor, Work};
use crate::pool::{Demand, Lease};
use crate::proto::backend::{Severity, TxStatus, put_error, put_ready};
use crate::query::SettingValue;
use crate::types::{Database, Protocol};
use kind::{Kind, Kinds};
use registry::Newcomer;
use typed::KnownStatements;

/// Time for a client to take the errors of requests that found no connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a new session is made of.
pub struct Opening {
    /// Who it is.
    pub identity: Identity,
    /// Database.
    pub database: Database,
    /// Further start-up parameters, in any order.
    pub options: Vec<(String, String)>,
    /// Door.
    pub protocol: Protocol,
    /// Address of the client.
    pub peer: String,
}

/// Opens sessions: all that an adapter has of the server. Cheap to clone.
#[derive(Clone)]
pub struct Opener {
    sessions: Arc<Sessions>,
    executor: Executor,
    config: Live,
    /// The same for all sessions, so that equal statements are found.
    hasher: RandomState,
    known: Arc<KnownStatements>,
    kinds: Arc<Kinds>,
}

/// A session that is about to begin.
struct Beginning<'a> {
    identity: &'a Identity,
    database: Database,
    protocol: Protocol,
    peer: Arc<str>,
}

impl Opener {
    /// Sessions of this registry that work through this executor.
    pub fn new(sessions: Arc<Sessions>, executor: Executor, config: Live) -> Self {
        let (hasher, known, kinds) = (RandomState::default(), Arc::default(), Arc::default());
        Self { sessions, executor, config, hasher, known, kinds }
    }

    /// Opens a session for a proven identity.
    pub fn open(&self, opening: Opening) -> Session {
        let Opening { identity, database, options, protocol, peer } = opening;
        let (config, who) = (self.config.now(), (&identity.role, identity.role_oid));
        let kind = Kind::new(&config, who, &database, options, protocol);
        let start = Beginning { identity: &identity, database, protocol, peer: peer.into() };
        Session::open(self, &config, &kind, start)
    }

    /// Opens a session for an HTTP request, of which many begin alike.
    pub fn open_http(
        &self,
        identity: &Identity,
        database: &str,
        options: &Start<'_>,
        peer: Arc<str>,
    ) -> Session {
        let (config, who) = (self.config.now(), (&identity.role, identity.role_oid));
        let (kind, database) = self.kinds.of(&config, who, database, options);
        let start = Beginning { identity, database, protocol: Protocol::Http, peer };
        Session::open(self, &config, &kind, start)
    }

    /// Carries out a CancelRequest of a PostgreSQL client.
    pub async fn cancel(&self, pid: u32, key: &[u8]) {
        self.sessions.cancel(pid, key).await;
    }
}

/// A session. Dropping it ends it; what it holds is cleaned or closed.
pub struct Session {
    // Before the entry, so that the connection is on its way back when the entry goes.
    lease: Option<Lease>,
    work: Option<Work>,
    events: Events,
    known: Arc<KnownStatements>,
    /// The statement of a program that runs.
    running: Option<Arc<Known>>,
    local: Local,
    /// A program may have left something behind.
    dirty: bool,
    /// It has defined something in this transaction.
    defined: bool,
    /// What the database defines, when somebody has asked.
    snapshot: Option<Arc<DatabaseSnapshot>>,
    most_statements: usize,
    demand: Demand,
    mux: Mux,
    unpin_after: Duration,
    pooled: Option<Box<pooled::Holding>>,
    /// Asked before a program's statement makes the session hold its connection.
    ask: Option<Ask>,
    executor: Executor,
    entry: Arc<Entry>,
    sessions: Arc<Sessions>,
    ended: &'static str,
}

/// How a PostgreSQL session ended.
#[derive(Debug)]
pub enum End {
    /// By the client, or by the backend with its own words.
    Closed,
    /// Between two messages: the client is to be told this before the connection is closed.
    Told(Error),
    /// In the middle of a message, where nothing can be told.
    Broken(Error),
}

impl Session {
    fn open(opener: &Opener, config: &Config, kind: &Kind, start: Beginning<'_>) -> Self {
        let Opener { sessions, executor, hasher, known, .. } = opener;
        let Beginning { identity, database, protocol, peer } = start;
        let credentials = match &identity.keys {
            Some(keys) => Credentials::Keys(keys.clone()),
            None => Credentials::Local,
        };
        let names = executor.names_of(&database);
        let entry = sessions.register(Newcomer {
            role: identity.role.clone(),
            database,
            protocol,
            peer,
            application: kind.application.to_string(),
            mode: kind.mode,
            is_console: false,
            grant: identity.grant.clone(),
        });
        let mut mux = Mux::new(MuxSetup {
            mode: kind.asked.mode,
            pid: entry.pid,
            start: kind.start.clone(),
            database: names,
            hasher: hasher.clone(),
            cache_size: config.pool.statement_cache_size,
            application: entry.application_cell(),
            limits: Limits {
                statements: config.session.max_prepared_statements,
                bytes: config.session.max_prepared_bytes.len(),
            },
            metrics: executor.metrics().clone(),
        });
        if kind.can_pool {
            mux.pool_sessions(kind.asked.default, kind.asked.preset.clone());
        }
        Self {
            lease: None,
            work: None,
            events: Events::default(),
            known: known.clone(),
            running: None,
            local: Local::default(),
            defined: false,
            snapshot: None,
            dirty: false,
            most_statements: config.pool.statement_cache_size,
            demand: Demand { lane: kind.lane.clone(), credentials },
            mux,
            unpin_after: Duration::from_millis(config.pool.unpin_after_ms.into()),
            pooled: None,
            ask: None,
            executor: executor.clone(),
            entry,
            sessions: sessions.clone(),
            ended: "closed",
        }
    }

    /// The entry that others see.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Number and key for BackendKeyData; the key is long for clients that can take it.
    pub fn cancel_key(&self, long: bool) -> (u32, Vec<u8>) {
        self.entry.cancel_key(long)
    }

    /// Writes the parameters that PostgreSQL reports to a session like this one. The first session
    /// of its kind borrows a connection for that, so that a database that does not exist, or a role
    /// that may not enter it, is refused at the log-in with PostgreSQL's own words.
    pub async fn greet(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.check_wish()?;
        let mut known = self.executor.pool().parameters(&self.demand.lane);
        if known.is_none() {
            let lease = self.executor.acquire(&self.demand, &self.entry.slot).await;
            let lease = self.noted(lease)?;
            known = self.executor.pool().parameters(&self.demand.lane);
            if known.is_none() {
                let told = Told::of(lease.parameters().to_vec());
                known = Some((self.demand.lane.clone(), Arc::new(told)));
            }
            if self.demand.lane.is_single_use() {
                self.lease = Some(lease);
            }
        }
        let Some((lane, told)) = known else { return Ok(()) };
        // The pool's own key: comparing it with itself is quick.
        self.demand.lane = lane;
        self.mux.greet(told, out);
        Ok(())
    }

    /// The parameters that the client was told, with their values.
    pub fn parameters(&self) -> Vec<(String, String)> {
        self.mux.parameters()
    }

    /// Serves a PostgreSQL client until one side ends.
    pub async fn relay(&mut self, client: &mut Client) -> End {
        // What is seldom waited for is boxed: an idle client should not carry the room for it.
        loop {
            let pause = self.relay_once(client).await;
            self.count(client);
            let (ended, end) = match pause {
                Pause::NeedsBackend | Pause::NeedsSettings => {
                    match Box::pin(self.attach(client)).await {
                        Some(Ok(())) => continue,
                        Some(Err(error)) => match refuse(client, &error).await {
                            true => continue,
                            false => ("error", End::Told(error)),
                        },
                        None => ("client_gone", End::Closed),
                    }
                }
                Pause::Held => continue,
                Pause::Skipped => {
                    let mut ready = Vec::new();
                    put_ready(&mut ready);
                    match tell(client, &ready).await {
                        true => continue,
                        false => ("client_gone", End::Closed),
                    }
                }
                Pause::Released => {
                    self.release_pooled();
                    continue;
                }
                Pause::Thinks => {
                    self.take_away(client);
                    continue;
                }
                pause @ (Pause::NeedsProbe | Pause::Rests) => {
                    match Box::pin(self.probe(client, &pause)).await {
                        Some(Ok(())) => continue,
                        Some(Err(error)) => ("error", End::Told(error)),
                        None => ("client_gone", End::Closed),
                    }
                }
                Pause::Terminated => ("closed", End::Closed),
                Pause::ClientGone => ("client_gone", End::Closed),
                Pause::BackendGone => ("backend_gone", End::Closed),
                Pause::Fatal(error) => ("error", End::Told(error)),
                Pause::Stopped => {
                    let stop = self.entry.stop();
                    (stop.reason(), End::Told(stop.error()))
                }
            };
            self.ended = ended;
            let end = match end {
                End::Told(error) if !self.is_between_messages() => End::Broken(error),
                end => end,
            };
            if self.mux.spoils()
                && let Some(lease) = self.lease.take_if(|lease| lease.conn().is_reusable())
            {
                lease.retire();
            }
            return end;
        }
    }

    async fn relay_once(&mut self, client: &mut Client) -> Pause {
        let (entry, clock) = (&self.entry, &self.sessions.clock);
        let stop = |cx: &mut Context<'_>, idle| entry.must_stop(cx, idle, clock);
        let next_look = self.lease.as_ref().and_then(|_| self.mux.next_look(self.unpin_after));
        let thinking = self.pooled.as_ref().and_then(|held| held.next_check());
        let (looks, next_look) = pooled::earlier(next_look, thinking);
        let link = Link {
            executor: &self.executor,
            protocol: self.entry.protocol,
            lease: &mut self.lease,
            mux: &mut self.mux,
            demand: &self.demand,
            slot: &self.entry.slot,
            has_timer: next_look.is_some(),
            work: &mut self.work,
            tally: &self.entry.tally,
        };
        let relaying = relay::run(link, client, stop);
        let Some(next_look) = next_look else { return relaying.await };
        // Dropping it loses nothing: all state lies outside of it.
        match tokio::time::timeout(next_look, relaying).await {
            Ok(pause) => pause,
            Err(_) => self.rested(looks),
        }
    }

    /// Looks whether the session is still held on its connection, if it is idle. When the look
    /// fails it stays there, or has lost it with all that was on it, and ends. `None` = the
    /// client is gone.
    async fn probe(&mut self, client: &mut Client, pause: &Pause) -> Option<Result<()>> {
        let Some(lease) = &mut self.lease else { return Some(Ok(())) };
        let wait = match (pause, self.executor.pool().is_wanted()) {
            (Pause::NeedsProbe, _) => Wait::Work,
            (_, false) => Wait::Rest,
            (_, true) => Wait::RestWanted,
        };
        let conn = lease.conn();
        if !conn.is_reusable() || conn.state.tx != TxStatus::Idle {
            return Some(Ok(()));
        }
        // A cancel request that is under way was meant for a statement that is over.
        self.entry.slot.hide();
        let deadline = (self.executor.pool().reset_timeout(), ErrorKind::ConnectionFailure);
        let look = async {
            // What functions may have set is not known before; one that could not be known is taken
            // away with all others when the session leaves.
            self.mux.database().first_look().await;
            self.entry.slot.quiet().await;
            probe::look(conn, &mut self.mux, self.entry.role.as_str(), wait).await
        };
        let looked = own::bounded(&client.stream, &self.entry, deadline, look).await;
        match &looked {
            Some(Ok(())) => {}
            Some(Err(error)) if conn.is_reusable() => {
                tracing::debug!(%error, "a look at a session's connection failed");
                self.mux.not_seen();
            }
            _ => {
                if conn.has_lost_notifications() {
                    self.executor.metrics().notifications_lost.inc();
                }
                self.lease = None;
                return looked;
            }
        }
        let asides = conn.take_asides();
        conn.inbound.put_scanned(&asides);
        // Nothing else might come that would wake who reads it.
        let caught_up = relay::catch_up(conn, &mut self.mux, &self.entry.slot, &mut self.work);
        if let Err(error) = caught_up {
            self.lease = None;
            return Some(Err(error));
        }
        let meant = self.entry.slot.is_deferred() && client.has_input();
        self.entry.slot.shown_idle().await;
        if meant {
            own::cancel_next(self.entry.clone());
        }
        if self.mux.can_be_carried() {
            relay::leave(&mut self.lease, &mut self.mux);
        }
        Some(Ok(()))
    }

    /// Puts settings in force that PostgreSQL might refuse by now; nothing runs before it is
    /// certain that they are. `None` = the client is gone.
    async fn take_over(&mut self, client: &mut Client) -> Option<Result<()>> {
        let conn = match held(&mut self.lease) {
            Ok(lease) => lease.conn(),
            Err(error) => return Some(Err(error)),
        };
        if !self.mux.attaches_harmlessly(&conn.state) {
            let sql = conn.state.transition(self.mux.settings());
            self.entry.slot.hide();
            let deadline = (self.executor.pool().reset_timeout(), ErrorKind::ServiceUnavailable);
            let set = async {
                self.entry.slot.quiet().await;
                conn.simple(&sql, |_| {}).await
            };
            let set = own::bounded(&client.stream, &self.entry, deadline, set).await;
            if !matches!(set, Some(Ok(()))) {
                self.lease = None;
                return set;
            }
            conn.state.applies(self.mux.settings());
            let meant = self.entry.slot.is_deferred();
            self.entry.slot.shown_idle().await;
            if meant {
                own::cancel_next(self.entry.clone());
            }
        }
        relay::attach(client, &mut self.mux, &self.entry.slot, conn);
        Some(Ok(()))
    }

    /// Whether everything that the client was sent ends with a whole message.
    fn is_between_messages(&mut self) -> bool {
        self.lease.as_mut().is_none_or(|lease| {
            let conn = lease.conn();
            conn.inbound.scanned().is_empty() && conn.scanner.at_boundary()
        })
    }

    /// Borrows a connection for what the client has begun to send, unless it has one that only
    /// lacks its settings; `None` = it did not wait.
    async fn attach(&mut self, client: &mut Client) -> Option<Result<()>> {
        if client.has_lost_unnamed() {
            self.mux.forget_unnamed();
        }
        if let Some(error) = self.lost() {
            return Some(Err(error));
        }
        self.forget_lost();
        if self.lease.is_none() && self.mux.lacks_pooled() {
            // Boxed: who never borrows one does not carry it.
            match Box::pin(self.borrow(client)).await? {
                Ok(()) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        while self.lease.is_none() {
            match self.wait_for_backend(client).await? {
                Ok(mut lease) => {
                    if relay::suits(client, &self.mux, lease.conn()) {
                        self.lease = Some(lease);
                    } else {
                        lease.retire();
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.take_over(client).await
    }

    async fn wait_for_backend(&self, client: &mut Client) -> Option<Result<Lease>> {
        self.wait_for(client, self.executor.acquire(&self.demand, &self.entry.slot)).await
    }

    /// Waits for something of the pool; `None` = the client did not wait.
    async fn wait_for<T>(
        &self,
        client: &mut Client,
        acquire: impl Future<Output = Result<T>>,
    ) -> Option<Result<T>> {
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                lease = &mut acquire => return Some(self.noted(lease)),
                () = self.entry.slot.cancelled_in_vain() => {
                    let text = "canceling statement due to user request";
                    return Some(Err(Error::new(ErrorKind::Cancelled, text)));
                }
                () = self.entry.next_look(&self.sessions.clock) => {
                    if client.stream.peer_has_closed() {
                        return None;
                    }
                    if self.entry.stop() >= Stop::Kill {
                        return Some(Err(self.entry.stop().error()));
                    }
                }
            }
        }
    }

    fn count(&self, client: &mut Client) {
        let (received, sent) = client.take_counts();
        let metrics = self.executor.metrics().protocol(self.entry.protocol);
        metrics.bytes_received.inc_by(received);
        metrics.bytes_sent.inc_by(sent);
        self.entry.tally.bytes(received, sent);
    }

    /// Who found no connection learns nothing about the others, but the log does.
    fn noted<T>(&self, acquired: Result<T>) -> Result<T> {
        if let Err(error) = &acquired
            && error.kind() == ErrorKind::PoolExhausted
        {
            self.sessions.log_holders(error);
        }
        acquired
    }

    /// A handle that can cancel while the session is borrowed.
    pub fn entry_handle(&self) -> Arc<Entry> {
        self.entry.clone()
    }

    fn note_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        if let (Err(error), Some(work)) = (&result, &mut self.work) {
            work.failed(error.sqlstate(), || error.detail().unwrap_or_default().to_owned());
        }
        result
    }

    /// Says why the session ends, for the metric.
    pub fn ended_by(&mut self, reason: &'static str) {
        self.ended = reason;
    }
}

/// Answers a request for which there is no connection now with an error, so that the client can
/// try again; false = the session has to end instead.
async fn refuse(client: &mut Client, error: &Error) -> bool {
    let passing = matches!(
        error.kind(),
        ErrorKind::PoolExhausted
            | ErrorKind::ServiceUnavailable
            | ErrorKind::Cancelled
            | ErrorKind::LimitReached
            | ErrorKind::IdleTimeout
    );
    if !passing {
        return false;
    }
    let mut answer = Vec::new();
    put_error(&mut answer, Severity::Error, error);
    if relay::drop_request(client) == Dropped::Whole {
        put_ready(&mut answer);
    }
    tell(client, &answer).await
}

/// Writes an answer of ours; false = the client does not take it.
async fn tell(client: &mut Client, answer: &[u8]) -> bool {
    let sent = tokio::time::timeout(ANSWER_LIMIT, client.stream.write_all(answer)).await;
    sent.is_ok_and(|written| written.is_ok())
}

/// Takes out of the start-up parameters what a connection can be told later, so that clients that
/// differ in nothing else share connections.
fn take_portable(options: &mut Vec<(String, String)>) -> Vec<(Box<str>, SettingValue)> {
    // PostgreSQL cuts names and replaces what is not ASCII.
    let portable = |name: &str, value: &str| {
        name == APPLICATION_NAME
            && value.len() < 64
            && value.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    let mut taken = Vec::new();
    options.retain(|(name, value)| {
        let takes = portable(name, value);
        if takes && !value.is_empty() {
            let value = SettingValue::Config(value.as_str().into());
            taken.push((name.as_str().into(), value));
        }
        !takes
    });
    taken
}

fn application_of(options: &[(String, String)]) -> String {
    let named = options.iter().find(|(name, _)| name == "application_name");
    named.map_or_else(String::new, |(_, value)| value.clone())
}

fn held(lease: &mut Option<Lease>) -> Result<&mut Lease> {
    lease.as_mut().ok_or_else(|| Error::internal("no statement was prepared"))
}

impl Drop for Session {
    fn drop(&mut self) {
        // Settled first: what it did is summed when the entry goes.
        self.work = None;
        self.release_pooled();
        self.sessions.unregister(&self.entry, self.ended);
    }
}
