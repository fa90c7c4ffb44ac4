//! Transactions that stay open from one request to the next. A number names one, and only for the
//! role that began it; who does not use it for `api.transaction_idle_timeout_secs` has lost it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::HttpDoor;
use crate::auth::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Session, Stop};
use crate::types::Role;

/// Time between two looks at a transaction: whether it is used, whether it is to end.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// The open transactions of all clients.
#[derive(Default)]
pub struct OpenTransactions(Mutex<HashMap<u64, Arc<Open>>>);

/// An open transaction.
pub struct Open {
    /// Its number: below 2^53, so that every program can hold it.
    pub id: u64,
    /// Who began it.
    pub owner: Role,
    /// What its beginning said of it.
    pub about: About,
    /// When.
    pub started_at: OffsetDateTime,
    /// The same for measuring.
    pub begun: Instant,
    state: Mutex<State>,
}

/// What the beginning of a transaction says of it.
#[derive(Clone, Debug)]
pub struct About {
    /// Its isolation level, as PostgreSQL names it.
    pub isolation: String,
    /// Whether it can only read.
    pub read_only: bool,
    /// Name for people.
    pub name: Option<String>,
    /// The database.
    pub database: String,
    /// How long it may take.
    pub limit: Option<Duration>,
}

struct State {
    /// Absent while a request uses it.
    session: Option<Session>,
    used: Instant,
    statements: u64,
    savepoints: Vec<String>,
}

/// What can be seen of a transaction.
pub struct Seen {
    /// Statements that ran in it.
    pub statements: u64,
    /// Savepoints, the newest last.
    pub savepoints: Vec<String>,
    /// Whether a request uses it.
    pub busy: bool,
    /// Process of PostgreSQL that has it; not known while it is busy.
    pub backend_pid: Option<u32>,
    /// Number of its session; not known while it is busy.
    pub session_id: Option<u64>,
}

fn gone(id: u64) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no transaction {id}"))
        .with_hint("it is over, or was rolled back because it was not used")
}

impl OpenTransactions {
    /// Keeps the session of a transaction that has begun.
    pub fn keep(
        self: &Arc<Self>,
        door: &Arc<HttpDoor>,
        owner: &Identity,
        about: About,
        session: Session,
    ) -> Result<Arc<Open>> {
        let most = door.config.now().api.max_open_transactions;
        let mut all = self.0.lock();
        if all.len() >= most {
            let text = format!("{most} transactions are open already");
            return Err(Error::new(ErrorKind::LimitReached, text)
                .with_hint("api.max_open_transactions bounds them"));
        }
        let id = loop {
            let id = number()?;
            if !all.contains_key(&id) {
                break id;
            }
        };
        let now = Instant::now();
        let session = Some(session);
        let open = Arc::new(Open {
            id,
            owner: owner.role.clone(),
            about,
            started_at: OffsetDateTime::now_utc(),
            begun: now,
            state: Mutex::new(State { session, used: now, statements: 0, savepoints: Vec::new() }),
        });
        all.insert(id, open.clone());
        drop(all);
        tokio::spawn(self.clone().watch(door.clone(), open.clone()));
        Ok(open)
    }

    /// Ends a transaction that nobody uses, or that has had its time.
    async fn watch(self: Arc<Self>, door: Arc<HttpDoor>, open: Arc<Open>) {
        loop {
            let idle = door.config.now().api.transaction_idle_timeout_secs.duration();
            let (used, busy, ordered) = {
                let state = open.state.lock();
                let stop = state.session.as_ref().map_or(Stop::No, |s| s.entry().stop());
                (state.used, state.session.is_none(), stop != Stop::No)
            };
            let late = open.about.limit.map(|limit| open.begun + limit);
            let at = late.map_or(used + idle, |late| late.min(used + idle));
            if !self.has(open.id) {
                return;
            }
            if ordered || !busy && Instant::now() >= at {
                let why = if ordered { "ended by an administrator" } else { "not used" };
                tracing::info!(transaction = open.id, role = %open.owner, why, "rolled back");
                self.remove(open.id);
                return;
            }
            let wait = at.saturating_duration_since(Instant::now());
            tokio::time::sleep(wait.clamp(SHORTEST_LOOK, LONGEST_LOOK)).await;
        }
    }

    fn has(&self, id: u64) -> bool {
        self.0.lock().contains_key(&id)
    }

    fn remove(&self, id: u64) {
        let removed = self.0.lock().remove(&id);
        // Outside of the lock: the session's end does more than to free memory.
        if let Some(open) = removed {
            let session = open.state.lock().session.take();
            drop(session);
        }
    }

    /// One of the caller's; those of others are not there.
    pub fn find(&self, id: u64, caller: &Identity) -> Result<Arc<Open>> {
        let found = self.0.lock().get(&id).filter(|open| open.owner == caller.role).cloned();
        found.ok_or_else(|| gone(id))
    }

    /// The caller's, or everybody's for an administrator; by number.
    pub fn list(&self, caller: &Identity) -> Vec<Arc<Open>> {
        let all = self.0.lock();
        let visible = |open: &&Arc<Open>| caller.is_superuser || open.owner == caller.role;
        let mut list: Vec<_> = all.values().filter(visible).cloned().collect();
        drop(all);
        list.sort_by_key(|open| open.begun);
        list
    }

    /// Borrows the session of a transaction for one request.
    pub fn borrow(self: &Arc<Self>, id: u64, caller: &Identity) -> Result<Borrowed> {
        let open = self.find(id, caller)?;
        let mut state = open.state.lock();
        let Some(session) = state.session.take() else {
            let text = format!("the transaction {id} is busy with another request");
            return Err(
                Error::new(ErrorKind::Conflict, text).with_hint("it runs one statement at a time")
            );
        };
        state.statements += 1;
        state.used = Instant::now();
        drop(state);
        Ok(Borrowed { session: Some(session), open, all: self.clone() })
    }
}

fn number() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    Ok((u64::from_le_bytes(bytes) >> 11).max(1))
}

impl Open {
    /// Its present state.
    pub fn seen(&self) -> Seen {
        let state = self.state.lock();
        let entry = state.session.as_ref().map(|session| session.entry());
        Seen {
            statements: state.statements,
            savepoints: state.savepoints.clone(),
            busy: state.session.is_none(),
            backend_pid: entry.and_then(|entry| entry.slot().backend_pid()),
            session_id: entry.map(|entry| entry.id.0),
        }
    }
}

/// The session of a transaction, borrowed. Unless it is given back, the transaction is over.
pub struct Borrowed {
    session: Option<Session>,
    open: Arc<Open>,
    all: Arc<OpenTransactions>,
}

impl Borrowed {
    /// The session.
    pub fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| gone(self.open.id))
    }

    /// Changes the list of savepoints.
    pub fn savepoints(&self, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.open.state.lock().savepoints);
    }

    /// The transaction.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Puts the session back, if its transaction goes on.
    pub fn give_back(mut self) {
        if let Some(session) = self.session.take_if(|session| session.is_in_transaction()) {
            let mut state = self.open.state.lock();
            state.used = Instant::now();
            state.session = Some(session);
        } else {
            self.all.remove(self.open.id);
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.all.remove(self.open.id);
            drop(session);
        }
    }
}

/// A session of a request's own, or that of a transaction.
pub enum Hold {
    /// Its own.
    Own(Session),
    /// Borrowed.
    Lent(Borrowed),
}

impl Hold {
    /// The session.
    pub fn session(&mut self) -> Result<&mut Session> {
        match self {
            Hold::Own(session) => Ok(session),
            Hold::Lent(borrowed) => borrowed.session(),
        }
    }

    /// The request needs it no more, and has read everything.
    pub fn finish(self) {
        if let Hold::Lent(borrowed) = self {
            borrowed.give_back();
        }
    }
}
