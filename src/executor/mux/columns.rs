//! Statements that have to be prepared again on another connection after something was defined. The
//! client knows their columns; on its own connection PostgreSQL would refuse to give it others
//! (`RevalidateCachedQuery`). So their columns are looked at before anything runs.

use std::sync::Arc;

use super::Mux;
use super::outgoing::Message;
use crate::backend::{ConnState, Expect, Kind, Refusal, Statement};
use crate::error::Error;
use crate::proto::backend::TxStatus;
use crate::proto::frontend::{put_describe, put_flush};

/// What is known of columns that the session was told.
#[derive(Default)]
pub(super) struct Columns {
    /// The unnamed portal is of this statement, whose columns nobody knows yet.
    bound: Option<Arc<Statement>>,
    /// A look has shown that this one has other columns now.
    changed: Option<Arc<Statement>>,
    /// What had been defined when the statement was read that was last bound or described.
    definitions: u64,
}

impl Mux {
    /// The unnamed portal is bound to a statement.
    pub(super) fn bound(&mut self, statement: &Arc<Statement>) {
        self.columns.bound = statement.is_undescribed().then(|| statement.clone());
    }

    /// A statement is bound or described: PostgreSQL may refuse that.
    pub(super) fn looked_up(&mut self, statement: &Statement) {
        self.columns.definitions = statement.world.definitions;
    }

    /// PostgreSQL has refused to give a prepared statement other columns. What is known of the
    /// definitions is out of date then, unless the statement itself is older.
    pub fn refused_columns(&self) {
        if self.columns.definitions == self.database.definitions() {
            self.database.defined_unseen();
        }
    }

    /// The statement of which a Describe (its body) will tell what nobody knows yet.
    pub(super) fn undescribed(&self, target: &[u8]) -> Option<Arc<Statement>> {
        let statement = match target {
            b"P\0" => self.columns.bound.as_ref(),
            b"S\0" => self.unnamed.as_ref(),
            [b'S', name @ .., 0] => self.statement(name),
            _ => None,
        };
        statement.filter(|statement| statement.is_undescribed()).cloned()
    }

    /// Prepares a statement on a connection that lacks it, and has PostgreSQL describe it, if its
    /// columns may be others than those that the client was told. The message that refers to it
    /// has to wait for the answer.
    pub(super) fn looks_first(
        &mut self,
        conn: &mut ConnState,
        message: &mut Message<'_>,
        statement: &Arc<Statement>,
    ) -> bool {
        let seen = self.columns.changed.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, statement));
        if !statement.may_have_changed(self.database.definitions())
            || seen
            || conn.tx == TxStatus::Failed
            || conn.statements.name_of(statement).is_some()
        {
            return false;
        }
        let name = self.ensure(conn, message, statement);
        let mut batch = Vec::new();
        put_describe(&mut batch, name.as_bytes());
        put_flush(&mut batch);
        conn.expect.push(Expect { statement: Some(statement.clone()), ..Kind::Look.into() });
        message.put_before(&batch);
        true
    }

    /// Whether a look has just shown that a statement has other columns.
    pub(super) fn has_changed(&mut self, statement: &Arc<Statement>) -> bool {
        let is_it = |seen: &mut Arc<Statement>| Arc::ptr_eq(seen, statement);
        self.columns.changed.take_if(is_it).is_some()
    }

    /// PostgreSQL has told of the columns of a statement (`None` = it has none): the client, or us
    /// after a look.
    pub fn described(
        &mut self,
        conn: &mut ConnState,
        statement: &Arc<Statement>,
        looks: bool,
        columns: Option<&[u8]>,
    ) {
        if !looks {
            return statement.describe(&self.hasher, columns);
        }
        if statement.is_described_by(&self.hasher, columns) {
            return;
        }
        // The next use looks again: the table may be altered back.
        if let Some(name) = conn.statements.name_of(statement) {
            conn.leftovers.push(name.as_bytes().into());
        }
        conn.statements.remove(statement);
        self.columns.changed = Some(statement.clone());
    }

    /// What the client is told of a request that was refused; one that was too much is counted.
    pub fn refuse(&self, refusal: Refusal) -> Error {
        if refusal != Refusal::Columns {
            self.metrics.statement_refused(refusal == Refusal::Number);
        }
        self.named.refusal(refusal)
    }
}
