//! Reading what a database defines, and which of its names have effects: in the background, as the
//! system role.

use std::sync::Arc;

use crate::catalog::{
    DatabaseNames, DatabaseSnapshot, MAX_ROWS, MAX_SNAPSHOT_ROWS, Row, names_query, snapshot_query,
};
use crate::error::{Error, Result};
use crate::pool::{CancelSlot, Demand, LaneKey, Pool};
use crate::types::Database;

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
            let rows = reader.read(&names.database, names_query, MAX_ROWS).await;
            let database = &names.database;
            match &rows {
                Ok(rows) => {
                    tracing::debug!(%database, rows = rows.len(), "the database's names are known");
                }
                Err(error) => {
                    tracing::debug!(%database, %error, "the database's names are not known");
                }
            }
            names.learn(definitions, rows.ok().as_deref());
        });
    }

    /// Reads the definitions of a database in the background, if it is time to. The answer comes
    /// to `snapshot`.
    pub fn look(&self, names: &DatabaseNames, snapshot: &Arc<DatabaseSnapshot>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(look) = snapshot.look(names.definitions()) else { return };
        let (reader, database) = (self.clone(), names.database.clone());
        runtime.spawn(async move {
            // So that defaults are printed with the schemas of what they mention.
            let sql = |major| format!("SET search_path = pg_catalog;{}", snapshot_query(major));
            let rows = reader.read(&database, sql, MAX_SNAPSHOT_ROWS).await;
            if let Err(error) = &rows {
                tracing::warn!(%database, %error, "the definitions of a database are not known");
            }
            look.learn(rows.ok().as_deref());
        });
    }

    /// Runs the query for this version of the server, for at most `most` rows.
    async fn read(
        &self,
        database: &Database,
        query: impl FnOnce(u32) -> String,
        most: usize,
    ) -> Result<Vec<Row>> {
        let parameters = self.system.lane.parameters();
        let user = parameters.iter().find(|(name, _)| name == "user");
        let user = user.map_or("postgres", |(_, value)| value).into();
        let options = parameters
            .iter()
            .filter(|(name, _)| name != "user" && name != "database")
            .cloned()
            .collect();
        let lane = Arc::new(LaneKey::new(&user, None, database, options));
        let demand = Demand { lane, credentials: self.system.credentials.clone() };
        let slot = Arc::new(CancelSlot::default());
        let mut lease = self.pool.acquire(&demand, &slot).await?;
        let version = lease.parameters().iter().find(|(name, _)| name == "server_version");
        let major = version.and_then(|(_, v)| v.split(|c: char| !c.is_ascii_digit()).next());
        let sql = query(major.and_then(|v| v.parse().ok()).unwrap_or(0));
        let mut rows = Vec::new();
        let read = lease.conn().simple(&sql, |row| {
            if rows.len() <= most {
                rows.push(row);
            }
        });
        let read = read.await;
        // Nobody must find us connected when the database is to be dropped.
        lease.retire();
        read?;
        if rows.len() > most {
            return Err(Error::internal("the catalog is too large"));
        }
        Ok(rows)
    }
}
