//! What the database of a session defines. The snapshot of it is there already on the way of nearly
//! every request; the first one waits for it, and so does who asks for what it does not have, when
//! something has been defined since.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::catalog::DatabaseSnapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::query::schema::Schema;

/// How long somebody waits for the definitions.
const LIMIT: Duration = Duration::from_secs(20);

/// How often it is seen whether they can be read now.
const POLL: Duration = Duration::from_millis(50);

impl Session {
    fn snapshot(&mut self) -> Arc<DatabaseSnapshot> {
        let database = &self.mux.database().database;
        self.snapshot.get_or_insert_with(|| self.executor.snapshot_of(database)).clone()
    }

    /// The definitions, which may be a moment old ([`Session::newer_schema`]).
    ///
    /// # Errors
    /// They are not known yet, and cannot be read.
    pub async fn schema(&mut self) -> Result<Arc<Schema>> {
        let snapshot = self.snapshot();
        self.executor.look(self.mux.database(), &snapshot);
        if let Some((_, schema)) = snapshot.current() {
            return Ok(schema);
        }
        // A database that is not there, or is closed to the role, is refused in PostgreSQL's words.
        Box::pin(self.attach_typed()).await?;
        let is_known = |snapshot: &DatabaseSnapshot| snapshot.current().is_some();
        Box::pin(self.wait_for_snapshot(&snapshot, is_known)).await?;
        let known = snapshot.current().map(|(_, schema)| schema);
        known.ok_or_else(|| Error::internal("the definitions are gone"))
    }

    /// The definitions with everything that had been defined through RustyDB when this was called;
    /// `None` = [`Session::schema`] has them already.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn newer_schema(&mut self) -> Result<Option<Arc<Schema>>> {
        let snapshot = self.snapshot();
        let definitions = self.mux.database().definitions();
        if !snapshot.is_behind(definitions) {
            return Ok(None);
        }
        let is_new = |snapshot: &DatabaseSnapshot| !snapshot.is_behind(definitions);
        self.wait_for_snapshot(&snapshot, is_new).await?;
        Ok(snapshot.current().map(|(_, schema)| schema))
    }

    /// PostgreSQL does not know what the definitions have: somebody has altered it, not through
    /// RustyDB. They are read anew for the next one who asks.
    pub fn definitions_are_old(&self) {
        self.mux.database().defined_unseen();
    }

    async fn wait_for_snapshot(
        &self,
        snapshot: &Arc<DatabaseSnapshot>,
        holds: impl Fn(&DatabaseSnapshot) -> bool,
    ) -> Result<()> {
        let waiting = async {
            loop {
                let looked = snapshot.looked();
                self.executor.look(self.mux.database(), snapshot);
                if holds(snapshot) {
                    return;
                }
                let _ = tokio::time::timeout(POLL, looked).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.map_err(|_| {
            let text = "the definitions of the database could not be read";
            Error::new(ErrorKind::ServiceUnavailable, text).with_hint("the log says why")
        })
    }
}
