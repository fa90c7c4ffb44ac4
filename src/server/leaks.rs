//! Connections that are held for long and not used: an application forgot to end its transaction.
//!
//! PostgreSQL knows which backends are idle in a transaction and since when, so nothing is
//! recorded for it when a connection is lent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::config::PoolingMode;
use crate::error::Result;
use crate::pool::CancelSlot;

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
    /// `leak_threshold_secs`. In session pooling a client may do that.
    pub(super) async fn look(&mut self, shared: &Shared) {
        let config = shared.live.now();
        let Some(threshold) = config.pool.leak_threshold_secs else { return };
        let mut holders = shared.sessions.holders();
        holders.retain(|_, entry| {
            let mode = config.pooling_mode(&entry.role, &entry.database, entry.protocol);
            mode != PoolingMode::Session
        });
        if holders.is_empty() {
            self.reported.clear();
            return;
        }
        let pids: Vec<u32> = holders.keys().copied().collect();
        let Ok(Ok(idle)) = tokio::time::timeout(LIMIT, ask(shared, &pids, threshold.0)).await
        else {
            return;
        };
        for (pid, since, secs) in &idle {
            let Some(entry) = holders.get(pid) else { continue };
            if self.reported.contains(&(*pid, *since)) {
                continue;
            }
            shared.metrics.main_pool.leaked.inc();
            tracing::warn!(
                session = %entry.id, role = %entry.role, database = %entry.database,
                protocol = entry.protocol.as_str(), peer = entry.peer, backend_pid = pid, secs,
                "a client holds a connection in a transaction and does nothing"
            );
        }
        self.reported = idle.into_iter().map(|(pid, since, _)| (pid, since)).collect();
    }
}

/// Process number, second of the last change, seconds since then.
async fn ask(shared: &Shared, pids: &[u32], threshold: u64) -> Result<Vec<(u32, i64, i64)>> {
    let slot = Arc::new(CancelSlot::default());
    let mut lease = shared.system_pool.acquire(&shared.system, &slot).await?;
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let sql = include_str!("../../sql/leaks.sql")
        .replace("$1", &format!("'{{{}}}'::int[]", pids.join(",")))
        .replace("$2", &threshold.to_string());
    let mut found = Vec::new();
    let row = |row: Vec<Option<String>>| {
        let number = |at: usize| row.get(at)?.as_ref()?.parse::<i64>().ok();
        if let (Some(pid), Some(since), Some(secs)) = (number(0), number(1), number(2)) {
            found.push((u32::try_from(pid).unwrap_or(0), since, secs));
        }
    };
    lease.conn().simple(&sql, row).await?;
    Ok(found)
}
