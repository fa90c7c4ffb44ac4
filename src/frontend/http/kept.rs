//! Sessions that clients of the API open and name with `X-Session-Id`: what was set, prepared or
//! made temporary is there for the next request. Who does not use his for
//! `api.session_idle_timeout_secs` has lost it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;
use uuid::Uuid;

use super::HttpDoor;
use super::extract::Caller;
use super::places::Claim;
use super::shelf::{Borrowed, Kept, Limits, Purpose, Shelf};
use super::values::millis;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::types::Role;

/// Events of a session that are remembered.
const MAX_EVENTS: usize = 1000;

/// Variables of a session, and bytes of their names and values.
const MAX_VARIABLES: usize = 1000;
const MAX_VARIABLE_BYTES: usize = 256 << 10;

/// Snapshots of a role, and of all; the oldest makes room.
const MAX_SNAPSHOTS_OF_ONE: usize = 20;
const MAX_SNAPSHOTS: usize = 2000;

/// What belongs to a client's session beside what PostgreSQL keeps.
pub struct Client {
    /// The database.
    pub database: String,
    /// Name for people.
    pub name: Option<String>,
    /// What it holds counts as an open transaction does.
    pub claim: Arc<Claim>,
    /// What requests have put there.
    pub state: Mutex<ClientState>,
}

/// What requests have put into a session.
#[derive(Default)]
pub struct ClientState {
    /// Statements that have a name.
    pub named: BTreeMap<String, Named>,
    /// Values of the client's own.
    pub variables: BTreeMap<String, Value>,
    /// Settings that were given through the API.
    pub settings: BTreeMap<String, String>,
    /// Limits that were set.
    pub limits: BTreeMap<String, u64>,
    /// What happened, the oldest first.
    pub events: VecDeque<Happened>,
    /// While it is suspended: the settings that it gets back.
    pub suspended: Option<BTreeMap<String, String>>,
}

/// Something that happened in a session.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When.
    pub at: SystemTime,
    /// In one word.
    pub event: &'static str,
    /// In more.
    pub detail: Option<String>,
}

/// A statement that has a name.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its text.
    pub sql: String,
    /// Types of its parameters where the client said them; 0 = PostgreSQL finds it.
    pub types: Vec<u32>,
    /// Names of the types of its parameters.
    pub parameters: Vec<String>,
    /// Its columns with the names of their types.
    pub columns: Vec<(String, String)>,
    /// When it was prepared.
    pub created: SystemTime,
    /// How often it was run.
    pub runs: u64,
}

impl ClientState {
    /// Writes down what happened.
    pub fn note(&mut self, event: &'static str, detail: Option<String>) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Happened { at: SystemTime::now(), event, detail });
    }

    /// Writes down settings that were given; null = what the session began with.
    pub fn remember(&mut self, settings: &BTreeMap<String, Option<String>>) {
        for (name, value) in settings {
            match value {
                Some(value) => self.settings.insert(name.clone(), value.clone()),
                None => self.settings.remove(name),
            };
        }
    }

    /// Names a statement.
    ///
    /// # Errors
    /// The name is taken, or there are too many, or too long ones.
    pub fn name(&mut self, config: &Config, name: String, named: Named) -> Result<()> {
        let full = |text: String, key| {
            let hint = format!("{key} bounds them");
            Err(Error::new(ErrorKind::LimitReached, text).with_hint(hint))
        };
        if self.named.contains_key(&name) {
            let text = format!("prepared statement \"{name}\" already exists");
            return Err(Error::sql(b"42P05", text));
        }
        let most = config.session.max_prepared_statements;
        if self.named.len() >= most {
            let text = format!("the session has {most} prepared statements already");
            return full(text, "session.max_prepared_statements");
        }
        let bytes: usize = self.named.values().map(|named| named.sql.len()).sum();
        if bytes + named.sql.len() > config.session.max_prepared_bytes.len() {
            let text = "the session's prepared statements are too long".to_owned();
            return full(text, "session.max_prepared_bytes");
        }
        self.named.insert(name, named);
        Ok(())
    }

    /// Gives values to variables; null takes one away.
    ///
    /// # Errors
    /// There would be too many, or too long ones.
    pub fn set_variables(&mut self, changes: BTreeMap<String, Value>) -> Result<()> {
        let mut variables = self.variables.clone();
        for (name, value) in changes {
            match value {
                Value::Null => variables.remove(&name),
                value => variables.insert(name, value),
            };
        }
        let bytes = |(name, value): (&String, &Value)| name.len() + value.to_string().len();
        let size: usize = variables.iter().map(bytes).sum();
        if variables.len() > MAX_VARIABLES || size > MAX_VARIABLE_BYTES {
            let text = format!(
                "a session has at most {MAX_VARIABLES} variables, of {MAX_VARIABLE_BYTES} bytes"
            );
            return Err(Error::new(ErrorKind::LimitReached, text));
        }
        self.variables = variables;
        Ok(())
    }
}

impl Kept<Client> {
    /// Writes down that a request has used it for this long.
    pub fn note_request(&self, took: Duration) {
        let count = self.entry.tally.totals().queries;
        let detail = format!("the {count}. of the session, {} ms", millis(took));
        self.about.state.lock().note("query", Some(detail));
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> bool {
        self.about.state.lock().suspended.is_some()
    }
}

impl Purpose for Client {
    const WHAT: &'static str = "session";
    const COUNTED: &'static str = "sessions";
    const BOUND: &'static str = "api.max_open_sessions";
    const BOUND_OF_ROLE: &'static str = "api.max_open_sessions_per_role";
    const FATE: &'static str = "it has ended, was not used for too long, or is somebody else's";

    fn limits(config: &Config) -> Limits {
        Limits {
            most: config.api.max_open_sessions,
            most_of_role: config.api.max_open_sessions_per_role,
            unused: config.api.session_idle_timeout_secs.duration(),
        }
    }

    fn number(session: &Session) -> Result<u64> {
        Ok(session.entry().id.0)
    }

    fn longest(&self) -> Option<Duration> {
        None
    }

    fn stays(session: &mut Session) -> bool {
        session.is_sound()
    }

    fn rests(&self, session: &Session) {
        if !session.holds_connection() {
            self.claim.leave();
        }
    }

    fn leave(&self, session: Option<Session>) {
        drop(session);
        self.claim.leave();
    }
}

/// What can be carried from one session to another.
#[derive(Clone)]
pub struct Snapshot {
    /// Name for people.
    pub name: Option<String>,
    /// When it was taken.
    pub taken: SystemTime,
    /// Whose it is.
    pub owner: Role,
    /// Settings with their values.
    pub settings: BTreeMap<String, String>,
    /// Variables.
    pub variables: BTreeMap<String, Value>,
    /// Named statements.
    pub named: BTreeMap<String, Named>,
}

/// The sessions of all clients, and snapshots of them.
#[derive(Default)]
pub struct KeptSessions {
    shelf: Arc<Shelf<Client>>,
    snapshots: Mutex<HashMap<Uuid, Snapshot>>,
}

impl KeptSessions {
    /// Keeps a session of a caller's.
    ///
    /// # Errors
    /// There are too many already.
    pub fn keep(
        &self,
        door: &Arc<HttpDoor>,
        caller: &Caller,
        name: Option<String>,
        mut session: Session,
    ) -> Result<Arc<Kept<Client>>> {
        let owner = &caller.identity.role;
        let room = self.shelf.room(door, owner)?;
        let claim = Claim::new(door, owner);
        if session.holds_connection() {
            claim.take()?;
        }
        let asked = claim.clone();
        session.ask_before_holding(Arc::new(move || asked.take()));
        let database = session.entry().database.to_string();
        room.keep(door, Client { database, name, claim, state: Mutex::default() }, session)
    }

    /// Borrows a caller's session for one request.
    ///
    /// # Errors
    /// He has none of this number, it is busy or suspended, or its client is at another door.
    pub fn borrow(&self, door: &HttpDoor, id: u64, caller: &Caller) -> Result<Borrowed<Client>> {
        let role = &caller.identity.role;
        let borrowed = self.shelf.borrow(id, role);
        let elsewhere = || {
            let views = door.admin.sessions();
            views.iter().any(|view| view.entry.id.0 == id && view.entry.role == *role)
        };
        match borrowed {
            Err(error) if error.kind() == ErrorKind::NotFound && elsewhere() => {
                let text = format!("the session {id} is in the hands of another client");
                Err(Error::new(ErrorKind::Conflict, text)
                    .with_hint("POST /api/v1/sessions opens one for X-Session-Id"))
            }
            borrowed => awake(borrowed?),
        }
    }

    /// Borrows one, whoever's it is, for one request of somebody who may do that.
    ///
    /// # Errors
    /// There is none of this number, or it is busy or suspended.
    pub fn borrow_anybodys(&self, id: u64) -> Result<Borrowed<Client>> {
        awake(self.borrow_suspended(id)?)
    }

    /// As [`KeptSessions::borrow_anybodys`], suspended or not.
    ///
    /// # Errors
    /// There is none of this number, or it is busy.
    pub fn borrow_suspended(&self, id: u64) -> Result<Borrowed<Client>> {
        let owner = self.look(id).map(|kept| kept.owner.clone());
        self.shelf.borrow(id, &owner.unwrap_or_else(|| "".into()))
    }

    /// One of a role's; those of others are not there.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn find(&self, id: u64, role: &Role) -> Result<Arc<Kept<Client>>> {
        self.shelf.find(id, role)
    }

    /// One, whoever's it is.
    pub fn look(&self, id: u64) -> Option<Arc<Kept<Client>>> {
        self.shelf.look(id)
    }

    /// Those of a role, the oldest first.
    pub fn of(&self, role: &Role) -> Vec<Arc<Kept<Client>>> {
        self.shelf.list(|kept| kept.owner == *role)
    }

    /// Ends one; a request that uses it finishes first.
    pub fn remove(&self, id: u64) {
        self.shelf.remove(id);
    }

    /// Keeps a snapshot; the oldest of its owner's, or of all, makes room for it.
    pub fn keep_snapshot(&self, snapshot: Snapshot) -> Uuid {
        let mut all = self.snapshots.lock();
        let oldest = |of: &dyn Fn(&Snapshot) -> bool, all: &HashMap<Uuid, Snapshot>| {
            let those = all.iter().filter(|(_, snapshot)| of(snapshot));
            those.min_by_key(|(_, snapshot)| snapshot.taken).map(|(id, _)| *id)
        };
        let is_of_owner = |other: &Snapshot| other.owner == snapshot.owner;
        if all.values().filter(|other| is_of_owner(other)).count() >= MAX_SNAPSHOTS_OF_ONE {
            oldest(&is_of_owner, &all).map(|id| all.remove(&id));
        }
        if all.len() >= MAX_SNAPSHOTS {
            oldest(&|_| true, &all).map(|id| all.remove(&id));
        }
        let id = Uuid::now_v7();
        all.insert(id, snapshot);
        id
    }

    /// A role's snapshot.
    ///
    /// # Errors
    /// It has none of this number.
    pub fn snapshot(&self, id: &str, role: &Role) -> Result<Snapshot> {
        let found = Uuid::parse_str(id).ok().and_then(|id| self.snapshots.lock().get(&id).cloned());
        found.filter(|snapshot| snapshot.owner == *role).ok_or_else(|| {
            let hint = format!("the last {MAX_SNAPSHOTS_OF_ONE} of a role are kept");
            Error::new(ErrorKind::NotFound, format!("there is no snapshot {id}")).with_hint(hint)
        })
    }
}

/// Refuses one that is suspended.
fn awake(borrowed: Borrowed<Client>) -> Result<Borrowed<Client>> {
    if !borrowed.kept().is_suspended() {
        return Ok(borrowed);
    }
    let id = borrowed.kept().id;
    borrowed.give_back();
    let hint = format!("POST /api/v1/sessions/{id}/events/trigger with the event resume");
    Err(Error::new(ErrorKind::Conflict, format!("the session {id} is suspended")).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sql: &str) -> Named {
        Named {
            sql: sql.into(),
            types: Vec::new(),
            parameters: Vec::new(),
            columns: Vec::new(),
            created: SystemTime::now(),
            runs: 0,
        }
    }

    #[test]
    fn what_a_session_keeps_is_bounded() {
        let mut state = ClientState::default();
        let mut config = Config::default();
        config.session.max_prepared_statements = 2;
        config.session.max_prepared_bytes.0 = 20;
        let mut name = |name: &str, sql: &str| {
            state.name(&config, name.into(), named(sql)).map_err(|error| error.kind()).err()
        };
        assert_eq!(name("a", "select 1"), None);
        assert_eq!(name("a", "select 2"), Some(ErrorKind::Conflict));
        assert_eq!(name("b", "select 1, 2, 3"), Some(ErrorKind::LimitReached));
        assert_eq!(name("b", "select 2"), None);
        assert_eq!(name("c", ""), Some(ErrorKind::LimitReached));

        let one = |name: &str, value: Value| BTreeMap::from([(name.to_owned(), value)]);
        state.set_variables(one("a", 7.into())).unwrap();
        let long = "x".repeat(MAX_VARIABLE_BYTES);
        assert!(state.set_variables(one("b", long.into())).is_err());
        assert_eq!(state.variables, one("a", 7.into()));
        state.set_variables(one("a", Value::Null)).unwrap();
        assert!(state.variables.is_empty());
        (0..=MAX_EVENTS).for_each(|n| state.note("query", Some(n.to_string())));
        assert_eq!((state.events.len(), state.events[0].detail.as_deref()), (1000, Some("1")));
    }

    #[test]
    fn the_oldest_snapshot_makes_room() {
        let kept = KeptSessions::default();
        let taken = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        let snapshot = |owner: &str, n: u64| Snapshot {
            name: None,
            taken: taken(n),
            owner: owner.into(),
            settings: BTreeMap::new(),
            variables: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        let other = kept.keep_snapshot(snapshot("b", 0)).to_string();
        let ids: Vec<_> =
            (1..=21).map(|n| kept.keep_snapshot(snapshot("a", n)).to_string()).collect();
        let has = |id: &str, role: &str| kept.snapshot(id, &role.into()).is_ok();
        assert!(!has(&ids[0], "a") && has(&ids[1], "a") && has(&other, "b"));
        assert!(!has(&ids[1], "b") && !has("x", "a"));
    }
}
