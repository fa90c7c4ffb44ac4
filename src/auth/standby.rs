//! Administrators are let in while PostgreSQL is down: their last known records stand in for it,
//! and for nobody else. Who got a new password, or lost his rights, since PostgreSQL was last
//! asked is judged by the old record until it answers again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{RoleFuture, RoleRecord, RoleStore};
use crate::config::Live;
use crate::error::{ErrorKind, Result};
use crate::telemetry::{Check, Health};
use crate::types::Role;

/// Administrators that are remembered.
const MOST: usize = 100;

/// The role that the embedded server is set up with.
const FIRST_ADMINISTRATOR: &str = "rustydb";

/// A store behind which PostgreSQL may be down.
pub struct StandbyRoles {
    roles: Arc<dyn RoleStore>,
    live: Live,
    health: Arc<Health>,
    known: Mutex<HashMap<Role, RoleRecord>>,
}

impl StandbyRoles {
    /// In front of a store.
    pub fn new(roles: Arc<dyn RoleStore>, live: Live, health: Arc<Health>) -> Self {
        Self { roles, live, health, known: Mutex::default() }
    }

    /// Asks for the administrators again, so that their records are there when they are needed.
    pub async fn refresh(&self) {
        let mut roles: Vec<Role> = self.known.lock().keys().cloned().collect();
        let admin = &self.live.now().admin;
        let named = admin.users.iter().chain(&admin.stats_users).map(String::as_str);
        roles.extend(named.chain([FIRST_ADMINISTRATOR]).map(Role::from));
        roles.sort();
        roles.dedup();
        for role in roles.iter().take(MOST) {
            if self.ask(role).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&self, role: &Role) -> Result<Option<RoleRecord>> {
        let record = self.roles.role(role).await?;
        let admin = &self.live.now().admin;
        let is_in = |list: &[String]| list.iter().any(|name| name == role.as_str());
        let is_named = is_in(&admin.users) || is_in(&admin.stats_users);
        let mut known = self.known.lock();
        match &record {
            Some(record) if record.is_superuser || is_named => {
                if known.len() < MOST || known.contains_key(role) {
                    known.insert(role.clone(), record.clone());
                }
            }
            _ => {
                known.remove(role);
            }
        }
        Ok(record)
    }

    async fn ask_or_remember(&self, role: &Role) -> Result<Option<RoleRecord>> {
        let known = self.known.lock().get(role).cloned();
        if known.is_some() && self.health.check("database") == Check::Failed {
            return Ok(known);
        }
        match (self.ask(role).await, known) {
            (Err(error), Some(known)) if is_out_of_reach(error.kind()) => {
                tracing::warn!(%role, %error, "PostgreSQL is out of reach; using what is known");
                Ok(Some(known))
            }
            (asked, _) => asked,
        }
    }
}

fn is_out_of_reach(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ServiceUnavailable | ErrorKind::ConnectionFailure | ErrorKind::PoolExhausted
    )
}

impl RoleStore for StandbyRoles {
    fn role<'a>(&'a self, role: &'a Role) -> RoleFuture<'a> {
        Box::pin(self.ask_or_remember(role))
    }
}
