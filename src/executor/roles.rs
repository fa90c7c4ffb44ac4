//! PostgreSQL's roles for the authentication chain, read over the system connection.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::scram::Verifier;
use crate::auth::{RoleFuture, RoleRecord, RoleStore};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{CancelSlot, Demand, Pool};
use crate::query::quote_literal;
use crate::types::Role;

/// Time for PostgreSQL to tell of a role.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads `pg_authid` as the system role.
pub struct SystemRoles {
    pool: Pool,
    demand: Demand,
}

impl SystemRoles {
    /// Over the system pool; `demand` names the system role and its database.
    pub fn new(pool: Pool, demand: Demand) -> Self {
        Self { pool, demand }
    }

    async fn read(&self, role: &Role) -> Result<Option<RoleRecord>> {
        // A NUL cannot be part of a name, and would end the statement.
        if role.as_str().contains('\0') {
            return Ok(None);
        }
        let slot = Arc::new(CancelSlot::default());
        let mut lease = self.pool.acquire(&self.demand, &slot).await?;
        let name = quote_literal(role.as_str());
        let sql = include_str!("../../sql/role.sql").replace("$1", &name);
        let mut found = None;
        let asked = lease.conn().simple(&sql, |row| found = Some(row));
        let read = tokio::time::timeout(LIMIT, asked).await.map_err(|_| {
            Error::new(ErrorKind::ServiceUnavailable, "PostgreSQL did not answer in time")
        })?;
        read.map_err(|e| match e.sqlstate().as_str() {
            "42501" => Error::internal(e)
                .with_hint("the system role of an external backend must be a superuser"),
            _ => e,
        })?;
        Ok(found.map(|row| {
            let is = |at: usize| row.get(at).and_then(|v| v.as_deref()) == Some("t");
            let password = row.first().and_then(|value| value.as_deref());
            RoleRecord {
                oid: row.get(3).and_then(|value| value.as_deref()?.parse().ok()).unwrap_or(0),
                verifier: password.and_then(Verifier::parse),
                can_login: is(1),
                expired: is(2),
                is_superuser: is(4),
            }
        }))
    }
}

impl RoleStore for SystemRoles {
    fn role<'a>(&'a self, role: &'a Role) -> RoleFuture<'a> {
        Box::pin(self.read(role))
    }
}
