//! Sessions that stay from one request to the next, one request at a time: those of transactions
//! ([`super::open`]) and those that clients open ([`super::kept`]). A number names one, and only
//! for the role that it is of; the registry of sessions knows them as it knows all others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::HttpDoor;
use super::places::{Place, Places};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Entry, Session, Stop};
use crate::types::Role;

/// Time between two looks at one: whether it is used, whether it is to end.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// What such a session is for.
pub trait Purpose: Send + Sync + 'static {
    /// What it is called.
    const WHAT: &'static str;
    /// What counts, in the plural.
    const COUNTED: &'static str;
    /// The key that bounds their number, and the one for those of a role.
    const BOUND: &'static str;
    /// See [`Purpose::BOUND`].
    const BOUND_OF_ROLE: &'static str;
    /// What may have become of one that is not there.
    const FATE: &'static str;

    /// How many there may be, and how long one may stay unused.
    fn limits(config: &Config) -> Limits;
    /// Its number.
    fn number(session: &Session) -> Result<u64>;
    /// How long it may stay, used or not.
    fn longest(&self) -> Option<Duration>;
    /// Whether it stays after a request.
    fn stays(session: &mut Session) -> bool;
    /// It stays, and nobody uses it now.
    fn rests(&self, session: &Session) {
        let _ = session;
    }
    /// What becomes of the session when it does not stay; `None` = a request has lost it.
    fn leave(&self, session: Option<Session>);
}

/// How many there may be, and for how long.
pub struct Limits {
    /// All.
    pub most: usize,
    /// Of a role.
    pub most_of_role: usize,
    /// How long one may stay unused.
    pub unused: Duration,
}

/// All of one purpose.
pub struct Shelf<P> {
    kept: Mutex<HashMap<u64, Arc<Kept<P>>>>,
    /// How many there are, those included that are being made.
    places: Arc<Places>,
}

impl<P> Default for Shelf<P> {
    fn default() -> Self {
        Self { kept: Mutex::default(), places: Arc::default() }
    }
}

/// One of them.
pub struct Kept<P> {
    /// Its number: below 2^53, so that every program can hold it.
    pub id: u64,
    /// Whose it is.
    pub owner: Role,
    /// What it is for.
    pub about: P,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// The same for measuring.
    pub begun: Instant,
    /// The session as others see it.
    pub entry: Arc<Entry>,
    state: Mutex<State>,
}

struct State {
    /// Absent while a request uses it.
    session: Option<Session>,
    /// Absent when it is over, or counted elsewhere.
    place: Option<Place>,
    used: Instant,
    requests: u64,
    /// Whether it is in a transaction in which a statement has failed.
    has_failed: bool,
}

impl<P> Kept<P> {
    /// How many requests have used it.
    pub fn requests(&self) -> u64 {
        self.state.lock().requests
    }

    /// Whether a request uses it now.
    pub fn is_busy(&self) -> bool {
        self.state.lock().session.is_none()
    }

    /// Whether the last request has left a transaction that can only be rolled back.
    pub fn has_failed(&self) -> bool {
        self.state.lock().has_failed
    }

    /// How long it was not used.
    pub fn unused(&self) -> Duration {
        self.state.lock().used.elapsed()
    }
}

fn gone<P: Purpose>(id: u64) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {} {id}", P::WHAT)).with_hint(P::FATE)
}

impl<P: Purpose> Shelf<P> {
    /// A place of an owner's, for what counts with what is kept here.
    ///
    /// # Errors
    /// There are too many already.
    pub fn place(&self, door: &HttpDoor, owner: &Role) -> Result<Place> {
        self.places.take::<P>(door, owner)
    }

    /// Room for one of an owner's, which counts while it is being made.
    ///
    /// # Errors
    /// There are too many already.
    pub fn room(self: &Arc<Self>, door: &HttpDoor, owner: &Role) -> Result<Room<P>> {
        let place = self.place(door, owner)?;
        Ok(Room { place: Some(place), ..self.room_within(owner) })
    }

    /// Room for one that has a place already.
    pub fn room_within(self: &Arc<Self>, owner: &Role) -> Room<P> {
        Room { shelf: self.clone(), owner: owner.clone(), place: None }
    }

    /// Ends one that nobody uses, that has had its time, or that is to end.
    async fn watch(self: Arc<Self>, door: Arc<HttpDoor>, kept: Arc<Kept<P>>) {
        loop {
            let unused = P::limits(&door.config.now()).unused;
            let (used, busy) = {
                let state = kept.state.lock();
                (state.used, state.session.is_none())
            };
            let ordered = kept.entry.stop() != Stop::No;
            let late = kept.about.longest().map(|longest| kept.begun + longest);
            let at = late.map_or(used + unused, |late| late.min(used + unused));
            if !self.has(kept.id) {
                door.metrics.http.kept(P::WHAT, self.kept.lock().len());
                return;
            }
            if !busy && (ordered || Instant::now() >= at) {
                let why = if ordered { "ended by an administrator" } else { "not used" };
                tracing::info!(number = kept.id, role = %kept.owner, why, "a {} ended", P::WHAT);
                self.remove(kept.id);
                door.metrics.http.kept(P::WHAT, self.kept.lock().len());
                return;
            }
            let wait = at.saturating_duration_since(Instant::now());
            tokio::time::sleep(wait.clamp(SHORTEST_LOOK, LONGEST_LOOK)).await;
        }
    }

    fn has(&self, id: u64) -> bool {
        self.kept.lock().contains_key(&id)
    }

    /// Ends one; a request that uses it finishes first.
    pub fn remove(&self, id: u64) {
        let removed = self.kept.lock().remove(&id);
        // Outside of the lock: the session's end does more than to free memory.
        if let Some(kept) = removed {
            let (session, _place) = {
                let mut state = kept.state.lock();
                (state.session.take(), state.place.take())
            };
            if session.is_some() {
                kept.about.leave(session);
            }
        }
    }

    /// One of a role's; those of others are not there.
    pub fn find(&self, id: u64, role: &Role) -> Result<Arc<Kept<P>>> {
        self.look(id).filter(|kept| kept.owner == *role).ok_or_else(|| gone::<P>(id))
    }

    /// One, whoever's it is.
    pub fn look(&self, id: u64) -> Option<Arc<Kept<P>>> {
        self.kept.lock().get(&id).cloned()
    }

    /// Those that are visible, the oldest first.
    pub fn list(&self, is_visible: impl Fn(&Kept<P>) -> bool) -> Vec<Arc<Kept<P>>> {
        let all = self.kept.lock();
        let mut list: Vec<_> = all.values().filter(|kept| is_visible(kept)).cloned().collect();
        drop(all);
        list.sort_by_key(|kept| kept.begun);
        list
    }

    /// Borrows a role's session for one request.
    ///
    /// # Errors
    /// There is none of this number, or another request uses it.
    pub fn borrow(self: &Arc<Self>, id: u64, role: &Role) -> Result<Borrowed<P>> {
        let kept = self.find(id, role)?;
        let mut state = kept.state.lock();
        let Some(session) = state.session.take() else {
            let text = format!("the {} {id} is busy with another request", P::WHAT);
            return Err(
                Error::new(ErrorKind::Conflict, text).with_hint("it runs one statement at a time")
            );
        };
        state.requests += 1;
        state.used = Instant::now();
        drop(state);
        Ok(Borrowed { session: Some(session), kept, shelf: self.clone() })
    }
}

/// Room for one that is being made.
pub struct Room<P> {
    shelf: Arc<Shelf<P>>,
    owner: Role,
    place: Option<Place>,
}

impl<P: Purpose> Room<P> {
    /// Keeps what was made.
    ///
    /// # Errors
    /// It gets no number.
    pub fn keep(self, door: &Arc<HttpDoor>, about: P, session: Session) -> Result<Arc<Kept<P>>> {
        let shelf = self.shelf.clone();
        let mut all = shelf.kept.lock();
        let id = loop {
            let id = P::number(&session)?;
            if !all.contains_key(&id) {
                break id;
            }
        };
        let now = Instant::now();
        let kept = Arc::new(Kept {
            id,
            owner: self.owner,
            about,
            started_at: OffsetDateTime::now_utc(),
            begun: now,
            entry: session.entry_handle(),
            state: Mutex::new(State {
                session: Some(session),
                place: self.place,
                used: now,
                requests: 0,
                has_failed: false,
            }),
        });
        all.insert(id, kept.clone());
        door.metrics.http.kept(P::WHAT, all.len());
        drop(all);
        tokio::spawn(shelf.watch(door.clone(), kept.clone()));
        Ok(kept)
    }
}

/// A borrowed session. Unless it is given back, it is over.
pub struct Borrowed<P: Purpose> {
    session: Option<Session>,
    kept: Arc<Kept<P>>,
    shelf: Arc<Shelf<P>>,
}

impl<P: Purpose> Borrowed<P> {
    /// The session.
    pub fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| gone::<P>(self.kept.id))
    }

    /// What it is.
    pub fn kept(&self) -> &Arc<Kept<P>> {
        &self.kept
    }

    /// Takes the session away for longer than a request: it stays busy until it is given back with
    /// one, or abandoned.
    pub fn detach(&mut self) -> Result<Session> {
        self.session.take().ok_or_else(|| gone::<P>(self.kept.id))
    }

    /// Gives a detached session back.
    pub fn give_back_with(mut self, session: Session) {
        self.session = Some(session);
        self.give_back();
    }

    /// The detached session is lost.
    pub fn abandon(self) {
        self.shelf.remove(self.kept.id);
        self.kept.about.leave(None);
    }

    /// Puts the session back, if it stays.
    pub fn give_back(mut self) {
        let stays = |session: &mut Session| P::stays(session) && session.entry().stop() == Stop::No;
        if let Some(session) = &mut self.session {
            session.rest();
        }
        if let Some(mut session) = self.session.take_if(stays) {
            let has_failed = session.is_in_failed_transaction();
            self.kept.about.rests(&session);
            let mut state = self.kept.state.lock();
            state.has_failed = has_failed;
            state.used = Instant::now();
            state.session = Some(session);
            drop(state);
            // It may have been ended in the meantime.
            if !self.shelf.has(self.kept.id) {
                let session = self.kept.state.lock().session.take();
                if session.is_some() {
                    self.kept.about.leave(session);
                }
            }
        } else {
            self.shelf.remove(self.kept.id);
            if let Some(session) = self.session.take() {
                self.kept.about.leave(Some(session));
            }
        }
    }
}

impl<P: Purpose> Drop for Borrowed<P> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.shelf.remove(self.kept.id);
            drop(session);
            self.kept.about.leave(None);
        }
    }
}
