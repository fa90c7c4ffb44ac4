//! One or more PostgreSQL servers, of which one is the primary: found by asking, not by
//! configuration.
//!
//! A single server is taken as it is. Of several, the one that was the primary last is tried
//! first; when it cannot be reached, or says that it is a standby, all are asked at once. While
//! none is the primary, nobody gets a connection, and who wants one tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{BackendConn, ConnectError, Connector, Credentials};
use crate::auth::AccessChanges;
use crate::error::{Error, ErrorKind};
use crate::telemetry::Metrics;
use crate::types::BackendAddr;

/// Time for the primary of last time to answer before the others are asked as well.
const PROMPT: Duration = Duration::from_secs(1);

/// An answer about the roles is good for so long: many find out at once that the primary is gone.
const ANSWER_LASTS: Duration = Duration::from_millis(100);

/// How the servers are asked for their roles.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Start-up parameters of the system role.
    pub parameters: Vec<(String, String)>,
    /// Its credentials.
    pub credentials: Credentials,
}

/// The servers. Cheap to clone.
#[derive(Clone)]
pub struct Servers(Arc<Shared>);

struct Shared {
    list: Vec<Connector>,
    /// Its place in the list, as far as is known.
    primary: AtomicUsize,
    probe: Option<Probe>,
    /// Longest time for one log-in, in milliseconds.
    limit: AtomicU64,
    asking: tokio::sync::Mutex<()>,
    last_answer: Mutex<Option<(Instant, Option<usize>)>>,
    changes: AccessChanges,
    metrics: Arc<Metrics>,
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

impl Servers {
    /// These servers, at least one. Without a probe, their roles are never asked.
    pub fn new(
        list: Vec<Connector>,
        probe: Option<Probe>,
        limit: Duration,
        changes: AccessChanges,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Shared {
            list,
            primary: AtomicUsize::new(0),
            probe,
            limit: AtomicU64::new(millis(limit)),
            asking: tokio::sync::Mutex::default(),
            last_answer: Mutex::default(),
            changes,
            metrics,
        }))
    }

    /// Changes the longest time for one log-in.
    pub fn set_limit(&self, limit: Duration) {
        self.0.limit.store(millis(limit), Ordering::Relaxed);
    }

    /// Where they are, in the order of the list.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &BackendAddr> {
        self.0.list.iter().map(Connector::addr)
    }

    /// Longest time for one log-in.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.0.limit.load(Ordering::Relaxed))
    }

    /// Logs in to the primary.
    pub async fn connect(
        &self,
        parameters: &[(String, String)],
        credentials: &Credentials,
    ) -> Result<BackendConn, ConnectError> {
        let at = self.0.primary.load(Ordering::Acquire);
        if self.0.list.len() == 1 {
            return self.log_in(at, parameters, credentials, self.limit()).await;
        }
        let prompt = PROMPT.min(self.limit());
        match self.log_in(at, parameters, credentials, prompt).await {
            Ok(mut conn) => {
                if is_primary(&mut conn).await {
                    return Ok(conn);
                }
            }
            Err(ConnectError::Unavailable(_)) => {}
            Err(other) => return Err(other),
        }
        let at = self.find_primary().await.ok_or_else(no_primary)?;
        let mut conn = self.log_in(at, parameters, credentials, self.limit()).await?;
        match is_primary(&mut conn).await {
            true => Ok(conn),
            false => Err(no_primary()),
        }
    }

    /// Logs in to one of them as the system role; `None` = it does not answer, or nobody may ask.
    pub(super) async fn log_in_to_look(&self, at: usize) -> Option<BackendConn> {
        let Probe { parameters, credentials } = self.0.probe.as_ref()?;
        self.log_in(at, parameters, credentials, self.limit()).await.ok()
    }

    async fn log_in(
        &self,
        at: usize,
        parameters: &[(String, String)],
        credentials: &Credentials,
        limit: Duration,
    ) -> Result<BackendConn, ConnectError> {
        let connector = self.0.list.get(at).ok_or_else(no_primary)?;
        let attempt = connector.connect(parameters, credentials);
        timeout(limit, attempt).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Asks every server for its role. Those who ask at the same time get one answer.
    pub async fn find_primary(&self) -> Option<usize> {
        let _one_at_a_time = self.0.asking.lock().await;
        if let Some((at, answer)) = *self.0.last_answer.lock()
            && at.elapsed() < ANSWER_LASTS
        {
            return answer;
        }
        let found = self.ask_all().await;
        *self.0.last_answer.lock() = Some((Instant::now(), found));
        if let Some(at) = found {
            let before = self.0.primary.swap(at, Ordering::AcqRel);
            if before != at {
                let addr = |at: usize| self.0.list.get(at).map(|c| c.addr().to_string());
                tracing::warn!(before = addr(before), now = addr(at), "another primary");
                self.0.metrics.backends.primary_changes.inc();
                self.0.changes.primary_changed();
            }
        }
        found
    }

    async fn ask_all(&self) -> Option<usize> {
        let mut asked = JoinSet::new();
        for at in 0..self.0.list.len() {
            let servers = self.clone();
            asked.spawn(async move {
                let mut conn = servers.log_in_to_look(at).await?;
                let found = timeout(servers.limit(), is_primary(&mut conn)).await.unwrap_or(false);
                conn.close().await;
                found.then_some(at)
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some(at)) = answer {
                return Some(at);
            }
        }
        None
    }

    /// A connection was refused a write. When its server is not the primary, its connections are
    /// given up: behind one address there may be another server now.
    pub async fn check_writable(&self, suspect: Suspect) {
        if self.0.probe.is_none() {
            return;
        }
        let found = self.find_primary().await;
        let known = found.and_then(|at| self.0.list.get(at));
        let moved = known.is_some_and(|now| *now.addr() != suspect.addr || suspect.is_standby);
        if moved && suspect.changes == self.0.changes.count() {
            tracing::warn!(server = %suspect.addr, "it is no longer the primary");
            self.0.changes.primary_changed();
        }
    }
}

/// A connection that was refused a write, and whose server reports that it is not for writing.
pub struct Suspect {
    addr: BackendAddr,
    is_standby: bool,
    changes: u64,
}

impl Suspect {
    /// Looks at a connection; `None` when the client itself asked for a read-only transaction.
    pub fn of(conn: &BackendConn) -> Option<Self> {
        let says = |name: &str| reported(conn, name);
        let is_standby = says("in_hot_standby") == Some("on");
        let unknown = says("in_hot_standby").is_none();
        let read_only = says("default_transaction_read_only") == Some("on");
        let addr = conn.cancel.addr().clone();
        let suspect = is_standby || unknown || read_only;
        suspect.then_some(Self { addr, is_standby, changes: conn.changes })
    }
}

fn reported<'a>(conn: &'a BackendConn, name: &str) -> Option<&'a str> {
    let mut parameters = conn.state.parameters.iter();
    parameters.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// PostgreSQL 14 and newer say it at the log-in, older ones are asked.
async fn is_primary(conn: &mut BackendConn) -> bool {
    match reported(conn, "in_hot_standby") {
        Some(value) => value == "off",
        None => {
            let mut primary = false;
            let sql = "SELECT NOT pg_catalog.pg_is_in_recovery()";
            let row = |row: Vec<Option<String>>| {
                primary = row.first().is_some_and(|value| value.as_deref() == Some("t"));
            };
            conn.simple(sql, row).await.is_ok() && primary
        }
    }
}

fn no_primary() -> ConnectError {
    let error = Error::new(ErrorKind::ServiceUnavailable, "no PostgreSQL server is the primary")
        .with_hint("one is being elected, or all are down; try again");
    ConnectError::Unavailable(error)
}

fn no_answer() -> ConnectError {
    let error = Error::new(ErrorKind::ServiceUnavailable, "PostgreSQL did not answer in time")
        .with_hint("backend.connect_timeout_secs bounds the wait; try again");
    ConnectError::Unavailable(error)
}
