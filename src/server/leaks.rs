//! Connections that are held for long and not used: an application forgot to end its transaction.
//!
//! PostgreSQL knows which backends are idle in a transaction and since when, so nothing is
//! recorded for it when a connection is lent.

use std::collections::HashSet;
use std::time::Duration;

use super::Shared;
use crate::session::admin::Leak;

/// Time for PostgreSQL to tell.
const LIMIT: Duration = Duration::from_secs(5);

/// One look after the other.
#[derive(Default)]
pub(super) struct Leaks {
    /// Backends and since when they do nothing; each is reported once. No larger than the pool.
    reported: HashSet<(u32, i64)>,
}

impl Leaks {
    /// Reports sessions that have held a connection without work for longer than
    /// `leak_detection_threshold_secs`. In session pooling a client may do that.
    pub(super) async fn look(&mut self, shared: &Shared) {
        let config = shared.live.now();
        let Some(threshold) = config.pool.leak_detection_threshold_secs else { return };
        let asked = tokio::time::timeout(LIMIT, shared.admin.leaks(threshold.duration()));
        let Ok(Ok(leaks)) = asked.await else { return };
        for Leak { view, pid, since, secs } in &leaks {
            if self.reported.contains(&(*pid, *since)) {
                continue;
            }
            let entry = &view.entry;
            shared.metrics.main_pool.leaked.inc();
            tracing::warn!(
                session = %entry.id, role = %entry.role, database = %entry.database,
                protocol = entry.protocol.as_str(), peer = &*entry.peer, backend_pid = pid, secs,
                "a client holds a connection in a transaction and does nothing"
            );
        }
        self.reported = leaks.iter().map(|leak| (leak.pid, leak.since)).collect();
    }
}
