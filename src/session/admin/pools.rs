//! What an administrator may see and do of the pools and of single connections.

use std::collections::HashSet;
use std::time::Duration;

use super::{Admin, HeldServer, PoolKind};
use crate::config::PoolingMode;
use crate::error::Result;
use crate::pool::{Counts, Pool};
use crate::session::SessionView;

/// Time in which a connection that nobody uses any more has gone.
const CLOSING: Duration = Duration::from_secs(5);

/// Between two looks whether it has.
const CLOSING_LOOK: Duration = Duration::from_millis(20);

/// A session that holds a connection in a transaction and does nothing.
#[derive(Clone, Debug)]
pub struct Leak {
    /// The session.
    pub view: SessionView,
    /// PostgreSQL's process.
    pub pid: u32,
    /// Second since 1970 in which it last did something.
    pub since: i64,
    /// Seconds since then.
    pub secs: i64,
}

/// What became of an order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that are closed.
    pub closed: usize,
    /// Connections that are still in use.
    pub remaining: usize,
}

impl Admin {
    fn pool(&self, kind: PoolKind) -> &Pool {
        match kind {
            PoolKind::Main => &self.0.pool,
            PoolKind::System => &self.0.system_pool,
        }
    }

    /// How many connections and waiters a pool has.
    pub fn counts(&self, kind: PoolKind) -> Counts {
        self.pool(kind).counts()
    }

    /// Whether a pool cannot reach PostgreSQL.
    pub fn is_out_of_reach(&self, kind: PoolKind) -> bool {
        self.pool(kind).is_out_of_reach()
    }

    /// Every connection of a pool with who holds it.
    pub fn held(&self, kind: PoolKind) -> Vec<HeldServer> {
        match kind {
            PoolKind::Main => self.servers(),
            PoolKind::System => {
                let alone = |server| HeldServer { server, holder: None };
                self.system_servers().into_iter().map(alone).collect()
            }
        }
    }

    /// Gives out no connections of the clients' pool until they are all back and closed, or the
    /// time is over; it stays so until [`Admin::resume`].
    ///
    /// # Errors
    /// Somebody has ended the pause.
    pub async fn drain(&self, limit: Duration, close_idle: bool) -> Result<Drained> {
        let before = self.0.pool.servers().len();
        if close_idle {
            // Who is not back in time is closed when he is.
            if let Ok(paused) = tokio::time::timeout(limit, self.pause(None)).await {
                paused?;
            }
        } else {
            self.0.pool.pause(None)?;
        }
        let remaining = self.0.pool.servers().len();
        Ok(Drained { closed: before.saturating_sub(remaining), remaining })
    }

    /// Replaces these connections of a pool, or all: idle ones now, lent ones when they come back.
    /// Returns how many.
    pub fn recycle(&self, kind: PoolKind, numbers: Option<&HashSet<u64>>) -> usize {
        let recycled = self.pool(kind).recycle(numbers);
        tracing::info!(connections = recycled, "connections are replaced");
        recycled
    }

    /// Fails everybody who waits in a pool's queue; returns how many.
    pub fn dismiss_waiters(&self, kind: PoolKind) -> usize {
        let dismissed = self.pool(kind).dismiss();
        tracing::warn!(sessions = dismissed, "sent away from the wait queue");
        dismissed
    }

    /// Closes a connection: one that is idle at once, one that is held with its session. Returns
    /// whether it has gone within a few seconds.
    pub async fn close_server(&self, kind: PoolKind, held: &HeldServer) -> bool {
        let number = held.server.listed.id;
        self.recycle(kind, Some(&HashSet::from([number])));
        if let Some(holder) = &held.holder {
            let session = holder.entry.id;
            self.kill(|entry| entry.id == session);
            holder.entry.cancel().await;
        }
        let is_there = || self.pool(kind).servers().iter().any(|s| s.listed.id == number);
        let gone = async {
            while is_there() {
                tokio::time::sleep(CLOSING_LOOK).await;
            }
        };
        tokio::time::timeout(CLOSING, gone).await.is_ok()
    }

    /// Processes of PostgreSQL that help another one with its query.
    ///
    /// # Errors
    /// PostgreSQL, which knows, cannot be asked.
    pub async fn parallel_workers(&self, pid: u32) -> Result<u64> {
        let sql = format!(
            "SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.leader_pid = {pid}"
        );
        let rows = self.0.sql.run(sql).await?;
        let count = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        Ok(count.unwrap_or(0))
    }

    /// Sessions that have held a connection in a transaction without work for longer than the
    /// threshold. In session pooling a client may do that.
    ///
    /// # Errors
    /// PostgreSQL, which knows, cannot be asked.
    pub async fn leaks(&self, threshold: Duration) -> Result<Vec<Leak>> {
        let config = self.0.live.now();
        let mut views = self.sessions();
        views.retain(|view| {
            let entry = &view.entry;
            let mode = config.pooling_mode(&entry.role, &entry.database, entry.protocol);
            view.backend_pid.is_some() && mode != PoolingMode::Session
        });
        if views.is_empty() {
            return Ok(Vec::new());
        }
        let pids = views.iter().filter_map(|view| view.backend_pid);
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let sql = include_str!("../../../sql/leaks.sql")
            .replace("$1", &format!("'{{{}}}'::int[]", pids.join(",")))
            .replace("$2", &threshold.as_secs().to_string());
        let mut leaks = Vec::new();
        for row in self.0.sql.run(sql).await? {
            let number = |at: usize| row.get(at)?.as_ref()?.parse::<i64>().ok();
            let (Some(pid), Some(since), Some(secs)) = (number(0), number(1), number(2)) else {
                continue;
            };
            let pid = u32::try_from(pid).unwrap_or(0);
            if let Some(view) = views.iter().find(|view| view.backend_pid == Some(pid)) {
                leaks.push(Leak { view: view.clone(), pid, since, secs });
            }
        }
        let mut forgiven = self.0.forgiven.lock();
        forgiven.retain(|known| leaks.iter().any(|leak| (leak.pid, leak.since) == *known));
        leaks.retain(|leak| !forgiven.contains(&(leak.pid, leak.since)));
        Ok(leaks)
    }

    /// Reports these no more, until they do something and then leak again.
    pub fn forgive(&self, leaks: &[Leak]) {
        self.0.forgiven.lock().extend(leaks.iter().map(|leak| (leak.pid, leak.since)));
    }
}
