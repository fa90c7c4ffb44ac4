//! The executor: what happens to a request, whatever door it came through.
//!
//! The phases are `admit → classify → route → acquire → send → stream → settle`:
//!
//! | Phase | Here |
//! |---|---|
//! | admit | [`Executor::admit`]: the request counts as in work |
//! | classify | the type of the message, later the tag of the command |
//! | classify, for PostgreSQL clients | [`mux`]: what a statement leaves behind in its session |
//! | route | [`Demand`]: database, role and parameters name the lane |
//! | acquire | [`Executor::acquire`] |
//! | send, stream | [`relay`] for bytes that pass, [`typed`] for rows that are read |
//! | settle | [`Work`]: always runs, also when the client vanished; duration, rows, errors |

pub mod copy;
pub mod mux;
pub mod names;
pub mod probe;
pub mod relay;
mod replies;
pub mod roles;
pub mod system;
pub mod typed;

use std::sync::Arc;
use std::time::Instant;

use crate::auth::AccessChanges;
use crate::catalog::{DatabaseNames, DatabaseSnapshot, NameStore, Snapshots};
use crate::error::{Result, SqlState};
use crate::pool::{CancelSlot, Demand, Lease, Pool};
use crate::proto::backend::CommandTag;
use crate::query::{Effects, changes_database};
use crate::telemetry::metrics::StatementKind;
use crate::telemetry::{Metrics, Tally};
use crate::types::{Database, Protocol};
use names::NameReader;

/// Executes the requests of sessions. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    pool: Pool,
    names: NameReader,
    databases: Arc<NameStore>,
    snapshots: Arc<Snapshots>,
    changes: AccessChanges,
    metrics: Arc<Metrics>,
}

impl Executor {
    /// An executor over a pool; it tells `changes` of commands that matter to log-ins.
    pub fn new(
        pool: Pool,
        names: NameReader,
        databases: Arc<NameStore>,
        changes: AccessChanges,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { pool, names, databases, snapshots: Arc::default(), changes, metrics }
    }

    /// What is known of a database.
    pub fn names_of(&self, database: &Database) -> Arc<DatabaseNames> {
        self.databases.of(database)
    }

    /// Looks at a database again, if it is time to.
    pub fn refresh(&self, names: &Arc<DatabaseNames>) {
        self.names.refresh(names);
    }

    /// The definitions of a database, as far as they are known.
    pub fn snapshot_of(&self, database: &Database) -> Arc<DatabaseSnapshot> {
        self.snapshots.of(database)
    }

    /// Reads them, if it is time to.
    pub fn look(&self, names: &DatabaseNames, snapshot: &Arc<DatabaseSnapshot>) {
        self.names.look(names, snapshot);
    }

    /// The pool, for what a session must know before it needs a connection.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Borrows a connection for a session; its cancel slot leads to it from now on.
    pub async fn acquire(&self, demand: &Demand, slot: &Arc<CancelSlot>) -> Result<Lease> {
        self.pool.acquire(demand, slot).await
    }

    /// Says what keeps a session on its connection from now on; each new reason is counted.
    pub fn note_pins(&self, protocol: Protocol, pins: Effects, tally: &Tally) {
        tally.set_pinned(pins.bits());
        if let Some(cause) = pins.reason() {
            self.metrics.session_pinned(protocol, cause);
        }
    }

    /// Counts a request as in work until the value is dropped; `sql` is its text, or the beginning
    /// of it.
    pub fn admit(&self, protocol: Protocol, sql: &[u8], tally: &Arc<Tally>) -> Work {
        if !sql.is_empty() && changes_database(sql) {
            self.pool.close_idle();
        }
        self.metrics.query_active.inc();
        self.metrics.protocol(protocol).sessions_active.inc();
        let begun = Instant::now();
        tally.request_begins(begun);
        Work {
            metrics: self.metrics.clone(),
            changes: self.changes.clone(),
            protocol,
            tally: tally.clone(),
            begun,
            kind: StatementKind::Other,
            committed: true,
            in_transaction: false,
        }
    }
}

/// A request in work. Dropping it settles the request.
pub struct Work {
    metrics: Arc<Metrics>,
    changes: AccessChanges,
    protocol: Protocol,
    tally: Arc<Tally>,
    begun: Instant,
    kind: StatementKind,
    /// Whether the transaction that ends with the request, if one does, is kept.
    committed: bool,
    /// Whether a transaction is open at the end.
    in_transaction: bool,
}

impl Work {
    /// A command of the request is complete.
    pub fn completed(&mut self, tag: CommandTag<'_>) {
        self.kind = StatementKind::of_command(tag.command);
        self.changes.saw(tag.command);
        self.committed = tag.command != "ROLLBACK";
        self.metrics.rows_returned(self.kind, tag.rows);
    }

    /// PostgreSQL reported an error; `detail` is its DETAIL line.
    pub fn failed(&mut self, state: SqlState, detail: impl FnOnce() -> String) {
        self.committed = false;
        self.metrics.query_error(state.class());
        match state.as_str() {
            "40P01" => self.metrics.deadlocks.note(&self.tally, detail()),
            "40001" => self.metrics.serialization_failures.inc(),
            _ => {}
        }
    }

    /// PostgreSQL is ready for the next request; a transaction may be open.
    pub fn ready(&mut self, in_transaction: bool) {
        self.in_transaction = in_transaction;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let protocol = self.metrics.protocol(self.protocol);
        let took = self.begun.elapsed();
        protocol.duration(self.kind).observe(took.as_secs_f64());
        let ended = (!self.in_transaction).then_some(self.committed);
        if let Some(transaction) = self.tally.request_ends(took, ended) {
            self.metrics.transactions_duration.observe(transaction.as_secs_f64());
        }
        if took >= self.metrics.slow_query.limit() {
            let (door, kind) = (self.protocol.as_str(), self.kind.as_str());
            self.metrics.slow_query.note(took, &self.tally, door, kind);
        }
        protocol.sessions_active.dec();
        self.metrics.query_active.dec();
    }
}
