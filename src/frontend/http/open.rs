//! Transactions that stay open from one request to the next; who does not use his for
//! `api.transaction_idle_timeout_secs` has lost it. And in which session a request runs.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use parking_lot::Mutex;

use super::extract::Caller;
use super::kept::Client;
use super::running::late;
use super::shelf::{Borrowed, Kept, Limits, Purpose, Shelf};
use super::{HttpDoor, fetch, within};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;

/// A transaction.
pub struct Transaction {
    /// Its isolation level, as PostgreSQL names it.
    pub isolation: Mutex<String>,
    /// Whether it can only read.
    pub read_only: bool,
    /// Name for people.
    pub name: Option<String>,
    /// The database.
    pub database: String,
    /// How long it may take.
    pub limit: Option<Duration>,
    /// Savepoints, the newest last.
    pub savepoints: Mutex<Vec<String>>,
    /// The client's session that it is in.
    pub home: Mutex<Option<Home>>,
}

/// Where a transaction's session goes back to.
pub struct Home {
    /// For the command that rolls it back.
    pub door: Arc<HttpDoor>,
    /// The place of the session.
    pub place: Borrowed<Client>,
}

impl Home {
    fn take(self, session: Option<Session>) {
        let Self { door, place } = self;
        let Some(mut session) = session else { return place.abandon() };
        if !session.is_in_transaction() {
            return place.give_back_with(session);
        }
        tokio::spawn(async move {
            match fetch::run(&door, &mut session, "ROLLBACK", &[]).await {
                Ok(_) => place.give_back_with(session),
                Err(_) => place.abandon(),
            }
        });
    }
}

/// The open transactions of all clients.
pub type OpenTransactions = Shelf<Transaction>;

/// One of them.
pub type Open = Kept<Transaction>;

impl Purpose for Transaction {
    const WHAT: &'static str = "transaction";
    const COUNTED: &'static str = "transactions, and sessions that hold a connection,";
    const BOUND: &'static str = "api.max_open_transactions";
    const BOUND_OF_ROLE: &'static str = "api.max_open_transactions_per_role";
    const FATE: &'static str = "it is over, or was rolled back because it was not used";

    fn limits(config: &Config) -> Limits {
        Limits {
            most: config.api.max_open_transactions,
            most_of_role: config.api.max_open_transactions_per_role,
            unused: config.api.transaction_idle_timeout_secs.duration(),
        }
    }

    fn number(_: &Session) -> Result<u64> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        Ok((u64::from_le_bytes(bytes) >> 11).max(1))
    }

    fn longest(&self) -> Option<Duration> {
        self.limit
    }

    fn stays(session: &mut Session) -> bool {
        session.is_in_transaction()
    }

    fn leave(&self, session: Option<Session>) {
        if let Some(home) = self.home.lock().take() {
            home.take(session);
        }
    }
}

/// A session of a request's own, that of a transaction, or one that the client has opened; behind a
/// box, because it is handed on many times.
pub enum Hold {
    /// Its own.
    Own(Box<Session>),
    /// A transaction's.
    Lent(Box<Borrowed<Transaction>>),
    /// The client's.
    Bound(Box<Borrowed<Client>>),
}

impl Hold {
    /// What a request runs in: the transaction of its body or of `X-Transaction-Id`, the session of
    /// `X-Session-Id`, else a session of its own in this database.
    pub fn of(
        door: &HttpDoor,
        caller: &Caller,
        headers: &HeaderMap,
        transaction: Option<u64>,
        database: Option<&str>,
    ) -> Result<Self> {
        let own = || caller.session(door, database);
        Self::or_own(door, caller, headers, transaction, database.is_some(), own)
    }

    /// The same with another session of its own; `names_database` = the request names one.
    pub fn or_own(
        door: &HttpDoor,
        caller: &Caller,
        headers: &HeaderMap,
        transaction: Option<u64>,
        names_database: bool,
        own: impl FnOnce() -> Result<Box<Session>>,
    ) -> Result<Self> {
        let invalid = |text: &'static str| Err(Error::new(ErrorKind::ValidationError, text));
        let transaction = transaction_of(headers, transaction)?;
        let session = number_in(headers, within::SESSION)?;
        match (transaction, session) {
            (Some(id), Some(session))
                if door.transactions.find(id, &caller.identity.role)?.entry.id.0 != session =>
            {
                invalid("the transaction did not begin in the session that X-Session-Id names")
            }
            (Some(_), _) if names_database => {
                invalid("database is the transaction's, not the request's")
            }
            (None, Some(_)) if names_database => {
                invalid("database is the session's, not the request's")
            }
            (Some(id), _) => {
                let borrowed = door.transactions.borrow(id, &caller.identity.role)?;
                Ok(Hold::Lent(Box::new(borrowed)))
            }
            (None, Some(id)) => Ok(Hold::Bound(Box::new(door.kept.borrow(door, id, caller)?))),
            (None, None) => own().map(Hold::Own),
        }
    }

    /// The session.
    pub fn session(&mut self) -> Result<&mut Session> {
        match self {
            Hold::Own(session) => Ok(session),
            Hold::Lent(borrowed) => borrowed.session(),
            Hold::Bound(borrowed) => borrowed.session(),
        }
    }

    /// The error of a request whose time is over.
    pub fn late(&mut self) -> Error {
        self.session().map_or_else(|error| error, |session| late(session))
    }

    /// The transaction that the client has named.
    pub fn transaction(&self) -> Option<u64> {
        match self {
            Hold::Lent(borrowed) => Some(borrowed.kept().id),
            Hold::Own(_) | Hold::Bound(_) => None,
        }
    }

    /// Whether it is the request's own, so that what runs in it is nobody else's.
    pub fn is_own(&self) -> bool {
        matches!(self, Hold::Own(_))
    }

    /// The request needs it no more, and has read everything.
    pub fn finish(self) {
        match self {
            Hold::Own(_) => {}
            Hold::Lent(borrowed) => {
                let home = |home: &Home| home.place.kept().clone();
                let kept = borrowed.kept().about.home.lock().as_ref().map(home);
                let took = borrowed.kept().unused();
                borrowed.give_back();
                if let Some(kept) = kept {
                    kept.note_request(took);
                }
            }
            Hold::Bound(borrowed) => {
                let (kept, took) = (borrowed.kept().clone(), borrowed.kept().unused());
                borrowed.give_back();
                kept.note_request(took);
            }
        }
    }
}

/// The number in a header.
pub fn number_in(headers: &HeaderMap, name: &str) -> Result<Option<u64>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let wrong = || {
        let text = format!("the header {name} is not a number");
        Error::new(ErrorKind::ValidationError, text)
    };
    number.map(Some).ok_or_else(wrong)
}

/// The transaction that a request names, in its body or in a header.
fn transaction_of(headers: &HeaderMap, in_body: Option<u64>) -> Result<Option<u64>> {
    match (number_in(headers, within::TRANSACTION)?, in_body) {
        (Some(number), Some(other)) if number != other => {
            let text = "X-Transaction-Id and transaction_id name two transactions";
            Err(Error::new(ErrorKind::ValidationError, text))
        }
        (number, other) => Ok(number.or(other)),
    }
}
