//! Reading which names of a database have effects, in the background, as the system role.

use std::sync::Arc;

use crate::catalog::{DatabaseNames, MAX_ROWS, names_query};
use crate::error::Result;
use crate::pool::{CancelSlot, Demand, LaneKey, Pool};

/// Looks into databases.
#[derive(Clone)]
pub struct NameReader {
    pool: Pool,
    /// The system role; its database is replaced by the one that is looked at.
    system: Demand,
}

impl NameReader {
    /// Over the system pool.
    pub fn new(pool: Pool, system: Demand) -> Self {
        Self { pool, system }
    }

    /// Looks in the background, if it is time to. The answer comes to `names`.
    pub fn refresh(&self, names: &Arc<DatabaseNames>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !names.wants_a_look() {
            return;
        }
        let (reader, names) = (self.clone(), names.clone());
        runtime.spawn(async move {
            let definitions = names.definitions();
            let rows = reader.read(&names).await;
            if let Err(error) = &rows {
                let database = &names.database;
                tracing::debug!(%database, %error, "the database's names are not known");
            }
            names.learn(definitions, rows.ok().as_deref());
        });
    }

    async fn read(&self, names: &DatabaseNames) -> Result<Vec<crate::catalog::Row>> {
        let parameters = self.system.lane.parameters();
        let user = parameters.iter().find(|(name, _)| name == "user");
        let user = user.map_or("postgres", |(_, value)| value).into();
        let options = parameters
            .iter()
            .filter(|(name, _)| name != "user" && name != "database")
            .cloned()
            .collect();
        let lane = Arc::new(LaneKey::new(&user, None, &names.database, options));
        let demand = Demand { lane, credentials: self.system.credentials.clone() };
        let slot = Arc::new(CancelSlot::default());
        let mut lease = self.pool.acquire(&demand, &slot).await?;
        let version = lease.parameters().iter().find(|(name, _)| name == "server_version");
        let major = version.and_then(|(_, v)| v.split(|c: char| !c.is_ascii_digit()).next());
        let sql = names_query(major.and_then(|v| v.parse().ok()).unwrap_or(0));
        let mut rows = Vec::new();
        let read = lease.conn().simple(&sql, |row| {
            if rows.len() <= MAX_ROWS {
                rows.push(row);
            }
        });
        let read = read.await;
        // Nobody must find us connected when the database is to be dropped.
        lease.retire();
        read?;
        if rows.len() > MAX_ROWS {
            return Err(crate::error::Error::internal("the catalog is too large"));
        }
        Ok(rows)
    }
}
