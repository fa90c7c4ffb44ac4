//! Requests that follow each other without waiting: prepared statements are sent to PostgreSQL
//! while those in front of them are not answered yet, each with its own Sync, so that a client that
//! has many under way costs few writes and reads.
//!
//! Only outside of a transaction, and only statements that need nothing around them. A cancel
//! request of PostgreSQL has no target but the connection: one that comes too late for its request
//! can meet the next, which is carried out again then. Where it cannot be, because it or one of
//! those sent behind it writes, or part of its rows is with the client, its error is marked as
//! worth a retry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::query::is_outdated;
use super::response::{Response, Usual};
use super::{Failure, Translator};
use crate::frontend::native::core::Request;
use crate::proto::frame::spare;
use crate::proto::native::Severity;

/// Requests that are sent ahead.
const MOST: usize = 32;

/// A request whose turn it is.
pub(super) enum Turn {
    /// It is to be carried out.
    Request(Request),
    /// It was sent, has done nothing, and is to be carried out.
    Again(Request),
    /// It was sent.
    Sent { request: Request, statement: Arc<str>, began: Instant },
}

/// How a request that was sent has ended.
pub(super) enum Sent {
    /// It is answered.
    Answered,
    /// It has done nothing, and is to be carried out in the usual way.
    Again,
}

impl Turn {
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Request(request) | Self::Again(request) | Self::Sent { request, .. } => {
                request.id
            }
        }
    }
}

/// Prepared::Execute, as a body begins with it.
fn is_execute(request: &Request) -> bool {
    request.frame.plain_body().is_some_and(|body| body.starts_with(&[5, 1]))
}

impl Translator {
    /// The next request; `None` = there will be none.
    pub(super) async fn next_turn(&mut self) -> Option<Turn> {
        let turn = match self.ahead.pop_front() {
            Some(turn) => {
                self.core.begin_ahead().await;
                turn
            }
            None => {
                // An idle connection holds no memory for it.
                self.ahead = VecDeque::new();
                let request = self.core.next_request().await?;
                self.send_request(request)
            }
        };
        if matches!(turn, Turn::Sent { .. }) {
            self.look_ahead();
        }
        Some(turn)
    }

    fn look_ahead(&mut self) {
        // Nothing is sent behind what is still to be carried out: its replies would be taken for
        // those.
        let is_sent = |turn: Option<&Turn>| turn.is_none_or(|t| matches!(t, Turn::Sent { .. }));
        while self.ahead.len() < MOST && is_sent(self.ahead.back()) {
            let Some(request) = self.core.take_ahead(is_execute) else { return };
            let turn = self.send_request(request);
            if matches!(turn, Turn::Sent { .. })
                && let Some(ahead) = self.core.lock().ahead.back_mut()
            {
                ahead.is_sent = true;
            }
            self.ahead.push_back(turn);
        }
    }

    /// Sends a request, if it needs nothing around it.
    fn send_request(&mut self, request: Request) -> Turn {
        let (is_free, began) = {
            let state = self.core.lock();
            let is_idle = state.tx == crate::proto::backend::TxStatus::Idle;
            (is_idle && !state.is_cancelled(), state.out.now)
        };
        let body = request.frame.plain_body().filter(|_| is_free && is_execute(&request));
        match body.and_then(|body| self.send_plain(body)) {
            Some(statement) => Turn::Sent { request, statement, began },
            None => Turn::Request(request),
        }
    }

    /// Takes the replies to a request that was sent.
    pub(super) async fn answer_sent(&mut self, id: u64, statement: &str) -> Result<Sent, Failure> {
        (self.is_unsynced, self.is_owed) = (false, true);
        let mut response = self.response(id, 0, false);
        let usual = self.take_usual(&mut response).await;
        if matches!(usual, Usual::Answered) {
            self.is_owed = false;
            spare::keep(response.rows.bytes);
            return Ok(Sent::Answered);
        }
        // Boxed: what is seldom needed is not carried by the others.
        Box::pin(self.answer_rest(statement, response, usual)).await
    }

    /// How many requests were sent before those that were not.
    pub(super) fn were_sent(&self) -> usize {
        self.ahead.iter().take_while(|turn| !matches!(turn, Turn::Request(_))).count()
    }

    /// Whether a statement can still be carried out after those that were sent behind it: if
    /// nobody can tell, because all of them only read.
    fn may_follow(&self, statement: &str) -> bool {
        let only_reads = |name: &str| self.statements.only_reads(name);
        let mut behind = self.ahead.iter().filter_map(|turn| match turn {
            Turn::Sent { statement, .. } => Some(&**statement),
            Turn::Request(_) | Turn::Again(_) => None,
        });
        match behind.next() {
            None => true,
            Some(next) => only_reads(statement) && only_reads(next) && behind.all(only_reads),
        }
    }

    /// Whether the cancel request of another has stopped the present one. It is undone then.
    fn was_met(&self, failure: &Failure) -> bool {
        let state = self.core.lock();
        let is_stopped = failure.sqlstate == "57014" && failure.severity == Severity::Error;
        is_stopped && state.may_have_met && !state.is_cancelled()
    }

    async fn answer_rest(
        &mut self,
        statement: &str,
        mut response: Response,
        come: Usual,
    ) -> Result<Sent, Failure> {
        let done = match come {
            Usual::Answered => return Ok(Sent::Answered),
            Usual::Other(None) => self.collect(&mut response).await,
            Usual::Other(Some(done)) => Ok(done),
            Usual::Ready(done) => {
                self.is_owed = false;
                Ok(done)
            }
        };
        let done = match done {
            Ok(done) => self.settle().await.map(|()| done),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(done) => {
                if response.rows.has_unknown {
                    self.forget_formats(statement);
                }
                self.conclude_response(response, &done).await.map(|()| Sent::Answered)
            }
            Err(mut failure) => {
                // The table may have other columns by now.
                self.forget_formats(statement);
                if is_outdated(&failure, &response) {
                    self.settle().await?;
                    if self.is_free() && self.may_follow(statement) {
                        return Ok(Sent::Again);
                    }
                    // Those behind it were carried out: it has to say that it was not.
                    failure.retryable = true;
                }
                if self.was_met(&failure) {
                    self.settle().await?;
                    // What was sent of the rows cannot be taken back.
                    if self.is_free() && !response.has_begun() && self.may_follow(statement) {
                        return Ok(Sent::Again);
                    }
                    failure.retryable = true;
                }
                Err(failure)
            }
        }
    }
}
