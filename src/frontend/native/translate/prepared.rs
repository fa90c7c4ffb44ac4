//! Statements with a name. The name belongs to the session and stands for text and types. The relay
//! knows each by a [`WireName`], as it knows those of PostgreSQL's clients, and sees to it that the
//! statement is prepared on whichever connection it runs.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;

use super::exchange::{Description, Unfit, parameters, put_bind_of, put_describe, put_execute};
use super::known::Formats;
use super::query::Run;
use super::{Failure, Translator};
use crate::frontend::native::core::status;
use crate::frontend::native::errors;
use crate::proto::frontend;
use crate::proto::native::{Column, Message, Prepared, QueryOptions, Reader, StatementInfo, Value};
use crate::query::{changes_rows, is_call};

/// Statements of one session.
const MOST: usize = 1024;

/// Bytes of their texts, together.
const MOST_BYTES: usize = 16 << 20;

/// Longest text that the relay knows by a name; a longer one it does not read.
const LONGEST_NAMED: usize = 1 << 20;

/// Longest name, in bytes, as PostgreSQL has it.
const LONGEST_NAME: usize = 63;

// Numbers of the message that is read here.
const PREPARED_STATEMENT: u32 = 5;
const EXECUTE: u32 = 1;

/// The name of a statement in the relay. No two of one process are the same: what a pooled session
/// has kept of somebody else's is never taken for another statement.
pub(super) struct WireName(String);

impl WireName {
    fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(format!("native_{}", LAST.fetch_add(1, Ordering::Relaxed)))
    }
}

impl std::ops::Deref for WireName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

struct Statement {
    sql: String,
    types: Vec<u32>,
    /// `None` = the relay has none for it.
    wire_name: Option<WireName>,
    /// Nothing after an error: the table may have other columns by now.
    formats: Option<Formats>,
    columns: Vec<Column>,
    /// It can be sent before those in front of it are answered.
    may_go_ahead: bool,
    /// As far as its text tells: whether it only reads.
    only_reads: bool,
}

/// The statements of a session.
#[derive(Default)]
pub(super) struct Statements {
    by_name: HashMap<Arc<str>, Statement, RandomState>,
    bytes: usize,
    /// What the relay can forget with the next that is prepared.
    unused: Vec<WireName>,
}

impl Statements {
    fn forget(&mut self, name: &str) -> bool {
        let Some(statement) = self.by_name.remove(name) else { return false };
        self.bytes -= statement.sql.len();
        self.unused.extend(statement.wire_name);
        true
    }

    /// A command of this tag was carried out. The relay has forgotten the names of what was
    /// deallocated, and what is altered may have other columns.
    pub(super) fn follow(&mut self, tag: &str) {
        match tag {
            "DISCARD ALL" | "DEALLOCATE ALL" => {
                self.by_name.values_mut().for_each(|statement| statement.wire_name = None);
                self.unused.clear();
            }
            tag if tag.starts_with("ALTER ") || tag.starts_with("DROP ") => {
                self.by_name.values_mut().for_each(|statement| statement.formats = None);
            }
            _ => {}
        }
    }

    /// Whether a statement only reads; one that is not there does nothing.
    pub(super) fn only_reads(&self, name: &str) -> bool {
        self.by_name.get(name).is_none_or(|statement| statement.only_reads)
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn unknown(name: &str) -> Failure {
    let text = format!("prepared statement \"{name}\" does not exist");
    errors::refusal("26000", "NOT_FOUND", text)
}

impl Translator {
    /// Sends the statement of an Execute that needs nothing around it, and returns its name; `None`
    /// = it is to be carried out in the usual way, where an error of it is told.
    pub(super) fn send_plain(&mut self, body: &[u8]) -> Option<Arc<str>> {
        let mut input = Reader::new(body);
        let kind = (input.variant().ok()?, input.variant().ok()?);
        if kind != (PREPARED_STATEMENT, EXECUTE) {
            return None;
        }
        let name = input.text().ok()?;
        let (name, statement) = self.statements.by_name.get_key_value(name)?;
        // After an error the columns are asked for anew, in the usual way.
        let formats = statement.formats.as_ref()?;
        let wire_name = statement.wire_name.as_ref()?;
        if !statement.may_go_ahead {
            return None;
        }
        let sent = self.core.try_send(|out| {
            put_bind_of(out, wire_name, &mut input, &statement.types, formats)?;
            // No options, and nothing after that.
            if input.rest() != [0] {
                return Err(Unfit);
            }
            put_describe(out);
            put_execute(out, 0);
            frontend::put_sync(out);
            Ok(())
        });
        sent.is_ok().then(|| name.clone())
    }

    pub(super) async fn prepared(&mut self, id: u64, request: Prepared) -> Result<(), Failure> {
        match request {
            Prepared::Prepare { name, sql, param_types } => {
                let info = self.prepare(name, sql, param_types).await?;
                self.answer(id, &Message::StatementInfo(info)).await
            }
            Prepared::Execute { name, params, options } => {
                self.execute(id, &name, params, options).await
            }
            Prepared::Describe { name } => {
                let Some(statement) = self.statements.by_name.get(&*name) else {
                    return Err(unknown(&name));
                };
                let info = StatementInfo {
                    param_types: statement.types.clone(),
                    columns: statement.columns.clone(),
                    name,
                };
                self.answer(id, &Message::StatementInfo(info)).await
            }
            Prepared::Deallocate { name } => match self.statements.forget(&name) {
                true => {
                    let ok = Message::Ok {
                        affected_rows: 0,
                        command_tag: Some("DEALLOCATE".into()),
                        transaction_status: status(self.tx()),
                    };
                    self.answer(id, &ok).await
                }
                false => Err(unknown(&name)),
            },
        }
    }

    async fn prepare(
        &mut self,
        name: String,
        sql: String,
        types: Vec<u32>,
    ) -> Result<StatementInfo, Failure> {
        self.check_sql(&sql)?;
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
            let text = "the name of a statement has 1 to 63 bytes";
            return Err(errors::refusal("22023", "VALIDATION_ERROR", text));
        }
        if self.statements.by_name.contains_key(&*name) {
            let text = format!("prepared statement \"{name}\" already exists");
            return Err(errors::refusal("42P05", "CONFLICT", text));
        }
        if self.statements.by_name.len() >= MOST || self.statements.bytes + sql.len() > MOST_BYTES {
            let text = "too many prepared statements, or too much text in them";
            return Err(errors::too_large(text, "deallocate those that are not used"));
        }
        let (described, wire_name) = self.describe_named(&sql, &types).await?;
        let writes = changes_rows(&sql);
        let statement = Statement {
            wire_name,
            only_reads: !writes,
            // What is sent behind it cannot be taken for data of a COPY, which has no columns.
            // A procedure can commit: it could not be carried out again.
            may_go_ahead: writes || !described.columns.is_empty() && !is_call(&sql),
            types: described.parameters.clone(),
            formats: Some(self.formats(&described)),
            columns: self.column_list(&described.columns),
            sql,
        };
        let info = StatementInfo {
            name: name.clone(),
            param_types: statement.types.clone(),
            columns: statement.columns.clone(),
        };
        self.statements.bytes += statement.sql.len();
        self.statements.by_name.insert(name.into(), statement);
        Ok(info)
    }

    pub(super) fn forget_formats(&mut self, name: &str) {
        if let Some(statement) = self.statements.by_name.get_mut(name) {
            statement.formats = None;
        }
    }

    async fn describe_again(
        &mut self,
        name: &str,
        sql: &str,
        types: &[u32],
    ) -> Result<Formats, Failure> {
        let old = self.statements.by_name.get_mut(name).and_then(|one| one.wire_name.take());
        self.statements.unused.extend(old);
        let (described, wire_name) = self.describe_named(sql, types).await?;
        let formats = self.formats(&described);
        let columns = self.column_list(&described.columns);
        if let Some(statement) = self.statements.by_name.get_mut(name) {
            statement.formats = Some(formats.clone());
            statement.columns = columns;
            statement.wire_name = wire_name;
        }
        Ok(formats)
    }

    /// Whether the relay is to know a statement by a name. Not in a pooled session: the next client
    /// of the class would find it there.
    fn may_name(&self, sql: &str) -> bool {
        !self.is_pooled() && sql.len() < LONGEST_NAMED
    }

    /// Asks what a statement takes and gives, and has the relay know it by a name.
    async fn describe_named(
        &mut self,
        sql: &str,
        types: &[u32],
    ) -> Result<(Description, Option<WireName>), Failure> {
        let name = self.may_name(sql).then(WireName::new);
        let unused = mem::take(&mut self.statements.unused);
        let described = self.describe_as(name.as_deref().unwrap_or(""), &unused, sql, types).await;
        if described.is_err() {
            // It may not have come to that.
            self.statements.unused = unused;
        }
        let described = described?;
        self.settle().await?;
        Ok((described, name))
    }

    async fn execute(
        &mut self,
        id: u64,
        name: &str,
        params: Vec<Value>,
        options: Option<QueryOptions>,
    ) -> Result<(), Failure> {
        let Some(statement) = self.statements.by_name.get(name) else { return Err(unknown(name)) };
        let (sql, types) = (statement.sql.clone(), statement.types.clone());
        let has_name = statement.wire_name.is_some() || !self.may_name(&sql);
        let known = statement.formats.clone().filter(|_| has_name);
        if params.len() != types.len() {
            let text = format!(
                "{} parameters for prepared statement \"{name}\", which has {}",
                params.len(),
                types.len()
            );
            return Err(errors::refusal("08P01", "VALIDATION_ERROR", text));
        }
        self.apply(options.as_ref());
        let parameters = parameters(&params, &types)?;
        let formats = match known {
            Some(formats) => formats,
            None => self.describe_again(name, &sql, &types).await?,
        };
        let max_rows = options.as_ref().map_or(0, |options| options.max_rows);
        let is_alone = true;
        let run = Run { sql: &sql, params: &params, types, max_rows, is_last: true, is_alone };
        let was = self.enter_read_only(&sql, options.as_ref()).await?;
        let mut response = self.response(id, 0, false);
        let mut result = self.run_with(&run, &parameters, &formats, &mut response).await;
        if result.is_err() || response.rows.has_unknown {
            self.forget_formats(name);
        }
        if let Err(failure) = &result
            && self.may_run_again(&run, failure, &response)
        {
            self.settle().await?;
            let formats = self.describe_again(name, &sql, &run.types).await?;
            result = self.run_with(&run, &parameters, &formats, &mut response).await;
        }
        let result = match result {
            Ok(done) => self.settle().await.map(|()| done),
            Err(failure) => Err(failure),
        };
        let done = self.leave_read_only(was, result).await?;
        self.conclude_response(response, &done).await
    }
}
