//! How many of something there are, and whose: a place is free again when it is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::HttpDoor;
use super::shelf::Purpose;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Role;

/// The places that are taken, by role.
#[derive(Default)]
pub struct Places(Mutex<HashMap<Role, usize>>);

/// One of them.
pub struct Place {
    places: Arc<Places>,
    owner: Role,
}

impl Places {
    /// Takes one for a role, by the limits of this purpose.
    ///
    /// # Errors
    /// There are too many already.
    pub fn take<P: Purpose>(self: &Arc<Self>, door: &HttpDoor, owner: &Role) -> Result<Place> {
        let limits = P::limits(&door.config.now());
        let mut taken = self.0.lock();
        let (all, of_role): (usize, usize) =
            (taken.values().sum(), taken.get(owner).copied().unwrap_or_default());
        let full = |text: String, bound: &'static str| {
            door.metrics.http.refused_to_keep(P::WHAT, bound);
            let error = Error::new(ErrorKind::LimitReached, text);
            Err(error.with_named("limit", bound).with_hint(format!("{bound} bounds them")))
        };
        if all >= limits.most {
            return full(format!("{all} {} are open already", P::COUNTED), P::BOUND);
        }
        if of_role >= limits.most_of_role {
            let text = format!("{of_role} {} of this role are open already", P::COUNTED);
            return full(text, P::BOUND_OF_ROLE);
        }
        *taken.entry(owner.clone()).or_default() += 1;
        Ok(Place { places: self.clone(), owner: owner.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(count) = taken.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

/// A session's claim to a connection of the pool: it has a place among the transactions while it
/// holds one from one request to the next.
pub struct Claim {
    /// Weak, because the door has the session.
    door: Weak<HttpDoor>,
    owner: Role,
    place: Mutex<Option<Place>>,
}

impl Claim {
    /// One without a place.
    pub fn new(door: &Arc<HttpDoor>, owner: &Role) -> Arc<Self> {
        let (door, owner) = (Arc::downgrade(door), owner.clone());
        Arc::new(Self { door, owner, place: Mutex::default() })
    }

    /// Takes the place, unless it is taken.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self) -> Result<()> {
        let mut place = self.place.lock();
        if let (None, Some(door)) = (&*place, self.door.upgrade()) {
            *place = Some(door.transactions.place(&door, &self.owner)?);
        }
        Ok(())
    }

    /// Leaves it.
    pub fn leave(&self) {
        self.place.lock().take();
    }
}
