//! What happens to a connection that a session gives back.

use std::sync::Arc;
use std::thread::ThreadId;

use super::{CancelSlot, LaneKey, Pool};
use crate::backend::BackendConn;
use crate::config::RecyclingStrategy;
use crate::error::Error;
use crate::proto::backend::{TxStatus, command_complete, tag};
use crate::proto::frontend;

/// Longest message of a reset.
const LONGEST: usize = 64 << 10;

/// A connection on its way back.
pub(super) struct Return {
    pub(super) conn: Box<BackendConn>,
    pub(super) used: bool,
    pub(super) worker: ThreadId,
    pub(super) slot: Arc<CancelSlot>,
    pub(super) lane: Arc<LaneKey>,
}

impl Pool {
    /// Cleans the connection and keeps it, or closes it. The session does not wait for this.
    pub(super) fn take_back(&self, mut back: Return) {
        // Messages that were understood and not passed on are nobody's any more.
        back.conn.inbound.consume_scanned();
        back.conn.inbound.detach();
        if !back.used {
            return self.keep(back);
        }
        // At process exit there is no event loop any more; the socket closes with the value.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let pool = self.clone();
        runtime.spawn(async move {
            if !back.conn.is_reusable() || back.lane.is_single_use() {
                pool.abandon(back).await;
            } else if pool.0.recycling() == RecyclingStrategy::Replace {
                pool.part("replaced", *back.conn);
            } else {
                pool.clean_and_keep(back).await;
            }
        });
    }

    async fn clean_and_keep(&self, mut back: Return) {
        back.slot.quiet().await;
        let limit = self.0.reset_timeout();
        match tokio::time::timeout(limit, discard_all(&mut back.conn)).await {
            Ok(Ok(())) => {
                self.0.metrics().recycled.inc();
                self.keep(back);
            }
            _ => self.cut("reset_failed", *back.conn),
        }
    }

    /// The session left in the middle of something: the statement is stopped, so that its locks
    /// go, and the connection is closed, because what it would still send is nobody's.
    async fn abandon(&self, back: Return) {
        let reason = if back.conn.state.fatal { "fatal" } else { "unfinished" };
        if !back.conn.state.fatal && !back.conn.state.is_idle() {
            let _ = back.conn.cancel.send().await;
        }
        self.cut(reason, *back.conn);
    }

    /// As [`Pool::keep`], when no cancel request can hit the next session's statement any more.
    pub(super) fn keep_when_quiet(&self, back: Return) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let pool = self.clone();
        runtime.spawn(async move {
            back.slot.quiet().await;
            pool.keep(back);
        });
    }

    pub(super) fn keep(&self, mut back: Return) {
        if back.conn.state.refused_to_write {
            self.suspect(&mut back.conn);
        }
        self.give(back.lane, back.worker, back.conn);
    }
}

/// Ends the transaction, if there is one, and forgets all session state. Returns when PostgreSQL
/// has answered exactly this, so that no reply of the session before can be taken for it. The Sync
/// brings to light what comes without being asked: a `statement_timeout` of the session that goes
/// off at the end of DISCARD ALL is reported when PostgreSQL reads the next message
/// (`ProcessInterrupts`).
pub(super) async fn discard_all(conn: &mut BackendConn) -> Result<(), Error> {
    let mut batch = bytes::BytesMut::new();
    let mut queries = vec![frontend::tag::QUERY];
    if conn.state.tx != TxStatus::Idle {
        frontend::query("ROLLBACK", &mut batch).map_err(Error::internal)?;
        queries.push(frontend::tag::QUERY);
    }
    frontend::query("DISCARD ALL", &mut batch).map_err(Error::internal)?;
    let mut sync = Vec::new();
    frontend::put_sync(&mut sync);
    batch.extend_from_slice(&sync);
    queries.push(frontend::tag::SYNC);
    conn.send(&batch, &queries).await?;
    let mut discarded = false;
    loop {
        match conn.message(LONGEST).await? {
            tag::COMMAND_COMPLETE => {
                discarded = command_complete(conn.body()).is_ok_and(|t| t.command == "DISCARD ALL");
            }
            tag::ERROR => return Err(Error::internal("DISCARD ALL failed")),
            tag::READY_FOR_QUERY if discarded && conn.state.pending() == 0 => break,
            _ => {}
        }
    }
    conn.inbound.consume_scanned();
    conn.inbound.detach();
    conn.state.discarded_all();
    match conn.is_reusable() && conn.state.tx == TxStatus::Idle {
        true => Ok(()),
        false => Err(Error::internal("bytes after the reset")),
    }
}
