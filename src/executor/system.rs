//! Statements on RustyDB's own tables, over the system connection.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::tables::{SqlFuture, SqlRow, SystemSql};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{CancelSlot, Demand, Pool};

/// Time for one of them, the wait for a connection included.
const LIMIT: Duration = Duration::from_secs(10);

/// Rows that a statement may return; the statements have limits of their own below it.
const MOST_ROWS: usize = 200_000;

/// Runs statements as the system role.
pub struct OwnSql {
    pool: Pool,
    demand: Demand,
}

impl OwnSql {
    /// Over the system pool; `demand` names the system role and its database.
    pub fn new(pool: Pool, demand: Demand) -> Self {
        Self { pool, demand }
    }

    async fn ask(&self, sql: &str) -> Result<Vec<SqlRow>> {
        let slot = Arc::new(CancelSlot::default());
        let mut rows = Vec::new();
        let asked = async {
            let mut lease = self.pool.acquire(&self.demand, &slot).await?;
            let keep = |row| {
                if rows.len() < MOST_ROWS {
                    rows.push(row);
                }
            };
            lease.conn().simple(sql, keep).await
        };
        let late =
            |_| Error::new(ErrorKind::ServiceUnavailable, "PostgreSQL did not answer in time");
        tokio::time::timeout(LIMIT, asked).await.map_err(late)??;
        Ok(rows)
    }
}

impl SystemSql for OwnSql {
    fn run(&self, sql: String) -> SqlFuture<'_> {
        Box::pin(async move { self.ask(&sql).await })
    }
}
