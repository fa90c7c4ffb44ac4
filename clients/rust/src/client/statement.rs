//! Prepared statements: made on one connection, and again wherever they are used.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::replies::{PREPARED, message, unexpected};
use crate::error::{Error, Result};
use crate::link::{Kind, Link};
use crate::protocol::wire::{Wire, Writer};
use crate::protocol::{Column, Message, Prepared, StatementInfo};

/// Statements that a session keeps for us; the server allows 1,024.
const MOST_KNOWN: usize = 1000;

/// A prepared statement.
#[derive(Clone, Debug)]
pub struct Statement(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    number: u64,
    name: String,
    sql: String,
    given_types: Vec<u32>,
    info: StatementInfo,
    /// Who counts the statements; the same for all connections of a client.
    names: Arc<AtomicU64>,
}

impl Statement {
    /// Its text.
    pub fn sql(&self) -> &str {
        &self.0.sql
    }

    /// Types of its parameters, as in `pg_type.oid`.
    pub fn param_types(&self) -> &[u32] {
        &self.0.info.param_types
    }

    /// What its rows consist of; empty if it gives none.
    pub fn columns(&self) -> &[Column] {
        &self.0.info.columns
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }
}

/// Something to be run: a text, or a [`Statement`].
pub trait ToStatement: Sync {
    /// Which of the two.
    #[doc(hidden)]
    fn source(&self) -> Source<'_>;
}

/// A text, or a prepared statement.
#[derive(Clone, Copy)]
#[doc(hidden)]
pub enum Source<'a> {
    Text(&'a str),
    Prepared(&'a Statement),
}

impl ToStatement for str {
    fn source(&self) -> Source<'_> {
        Source::Text(self)
    }
}

impl ToStatement for String {
    fn source(&self) -> Source<'_> {
        Source::Text(self)
    }
}

impl ToStatement for Statement {
    fn source(&self) -> Source<'_> {
        Source::Prepared(self)
    }
}

/// What a session has prepared for us.
pub(super) struct Known {
    names: Arc<AtomicU64>,
    statements: Mutex<BTreeMap<u64, Weak<Inner>>>,
}

impl Known {
    pub(super) fn new(names: Arc<AtomicU64>) -> Self {
        Self { names, statements: Mutex::default() }
    }

    /// Whether the session has it.
    pub(super) fn has(&self, statement: &Statement) -> Result<bool> {
        if !Arc::ptr_eq(&self.names, &statement.0.names) {
            return Err(Error::Usage("the statement was prepared by another client".into()));
        }
        Ok(self.statements.lock().contains_key(&statement.0.number))
    }

    pub(super) fn forget(&self, statement: &Statement) {
        self.statements.lock().remove(&statement.0.number);
    }

    pub(super) fn clear(&self) {
        self.statements.lock().clear();
    }

    pub(super) async fn prepare(&self, link: &Link, sql: &str, types: &[u32]) -> Result<Statement> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = name_of(number);
        let info = ask(link, &name, sql, types).await?;
        let statement = Statement(Arc::new(Inner {
            number,
            name,
            sql: sql.to_owned(),
            given_types: types.to_vec(),
            info,
            names: self.names.clone(),
        }));
        self.remember(link, &statement);
        Ok(statement)
    }

    pub(super) async fn prepare_again(&self, link: &Link, statement: &Statement) -> Result<()> {
        let inner = &statement.0;
        match ask(link, &inner.name, &inner.sql, &inner.given_types).await {
            Ok(_) => self.remember(link, statement),
            // Another request on this connection was faster.
            Err(e) if e.sqlstate() == "42P05" => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Notes a statement, and has those forgotten that nobody has any more.
    fn remember(&self, link: &Link, statement: &Statement) {
        let mut gone = Vec::new();
        {
            let mut known = self.statements.lock();
            known.retain(|number, inner| {
                let is_used = inner.strong_count() > 0;
                if !is_used {
                    gone.push(*number);
                }
                is_used
            });
            if known.len() >= MOST_KNOWN {
                gone.extend(known.pop_first().map(|(number, _)| number));
            }
            known.insert(statement.0.number, Arc::downgrade(&statement.0));
        }
        for number in gone {
            let deallocate = Prepared::Deallocate { name: name_of(number) };
            link.detached(&Message::PreparedStatement(deallocate));
        }
    }
}

fn name_of(number: u64) -> String {
    format!("rust_{number}")
}

async fn ask(link: &Link, name: &str, sql: &str, types: &[u32]) -> Result<StatementInfo> {
    let body = |out: &mut Writer<'_>| {
        out.variant(PREPARED);
        out.variant(0);
        out.counted(name.as_bytes());
        out.counted(sql.as_bytes());
        out.unsigned(types.len() as u64);
        types.iter().for_each(|oid| oid.encode(out));
    };
    let mut pending = link.request(Kind::PLAIN, &body).await?;
    match message(&pending.reply().await?)? {
        Message::StatementInfo(info) => Ok(info),
        _ => Err(unexpected()),
    }
}
