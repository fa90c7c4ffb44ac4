//! One statement with parameters, read by a program and not by a PostgreSQL client. When its types
//! are known, it is one round trip: what it runs with, the statement, its values. Else a first one
//! asks for the types, so that values can be bound and read with them. Rows are looked at where
//! they arrived.

use std::collections::{HashMap, VecDeque};
use std::iter::empty;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use parking_lot::RwLock;

use crate::backend::{BackendConn, ServerName, Statement, World};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::backend::{self as replies, Report, TxStatus, tag};
use crate::proto::frontend::{self, tag as request};
use crate::query::{Class, Effects, quote_literal};

/// Longest message that is not a row: a report or a description of 1664 columns.
const LONGEST: usize = 1 << 20;

/// Bytes of a notice that are kept.
const LONGEST_NOTICE: usize = 4 << 10;

/// A statement that PostgreSQL has understood.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Types of `$1`, `$2`, …
    pub parameters: Vec<u32>,
    /// Columns of the result; empty when there is none.
    pub columns: Vec<ColumnInfo>,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Name.
    pub name: String,
    /// The table it comes from, or 0.
    pub table: u32,
    /// Its number in that table, or 0.
    pub attribute: i16,
    /// Type.
    pub type_oid: u32,
}

/// A warning or notice.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, …
    pub severity: String,
    /// SQLSTATE.
    pub sqlstate: String,
    /// Text.
    pub message: String,
}

/// What comes while a statement runs.
#[derive(Debug)]
pub enum Event {
    /// A row; its values are in [`BackendConn::body`] until the next event.
    Row,
    /// A notice.
    Notice(Notice),
    /// The command is complete.
    Complete {
        /// Its tag without numbers.
        command: String,
        /// Rows returned or changed.
        rows: u64,
    },
    /// The row limit was reached and there may be more.
    Suspended,
    /// Everything has been read; the connection is free again.
    Done,
}

/// What stands before a statement in its round trip: the beginning of a transaction that goes on
/// after it, and settings of the transaction, such as the role that it runs as.
#[derive(Clone, Debug, Default)]
pub struct Local {
    begins: bool,
    isolation: Option<Isolation>,
    /// Names, each with U+0000 behind it.
    names: String,
    /// Their values, one after the other.
    values: String,
    /// Where each of these ends.
    ends: Vec<usize>,
}

/// The statements that a [`Local`] is made of.
#[derive(Debug)]
pub struct Preludes {
    begin: Arc<Statement>,
    /// As [`ISOLATIONS`].
    isolation: [Arc<Statement>; ISOLATIONS.len()],
    /// By the names of the settings, as a [`Local`] has them.
    settings: RwLock<HashMap<Box<str>, Arc<Statement>, RandomState>>,
    hasher: RandomState,
}

/// Sets of names whose statements are kept; for further ones they are made each time.
const MAX_SETS: usize = 256;

/// Settings that a [`Local`] may have, beside the level of isolation.
pub const MAX_LOCAL: usize = 32;

/// The setting that has no effect any more when a query has been made in the transaction.
const ISOLATION: &str = "transaction_isolation";

/// Its values.
const ISOLATIONS: [&str; 4] =
    ["read uncommitted", "read committed", "repeatable read", "serializable"];

/// A level of isolation, by its place in [`ISOLATIONS`].
type Isolation = usize;

/// The level of isolation among settings.
fn isolation_of(settings: &[(&str, &str)]) -> Option<Isolation> {
    let (_, wanted) = settings.iter().rev().find(|(name, _)| *name == ISOLATION)?;
    ISOLATIONS.iter().position(|level| level.eq_ignore_ascii_case(wanted))
}

/// The command that sets a level of isolation, for as long as the transaction lasts.
fn isolation_sql(level: Isolation) -> String {
    format!("SET {ISOLATION} TO '{}'", ISOLATIONS[level])
}

/// Statements that make settings hold until the end of the transaction that they begin.
pub fn local_sql(settings: &[(&str, &str)]) -> String {
    let isolation = isolation_of(settings);
    let mut sql = isolation.map_or_else(String::new, |level| isolation_sql(level) + ";");
    for (name, value) in settings.iter().filter(|(name, _)| *name != ISOLATION) {
        let (name, value) = (quote_literal(name), quote_literal(value));
        sql += &format!("SELECT pg_catalog.set_config({name}, {value}, true);");
    }
    sql
}

impl Local {
    /// Names and values of settings; further ones than [`MAX_LOCAL`] are left out.
    pub fn new(settings: &[(&str, &str)]) -> Self {
        let others = || settings.iter().filter(|(name, _)| *name != ISOLATION).take(MAX_LOCAL);
        let mut names = String::with_capacity(others().map(|(name, _)| name.len() + 1).sum());
        let mut values = String::with_capacity(others().map(|(_, value)| value.len()).sum());
        let mut ends = Vec::with_capacity(settings.len().min(MAX_LOCAL));
        for (name, value) in others() {
            names.push_str(name);
            names.push('\0');
            values.push_str(value);
            ends.push(values.len());
        }
        Self { begins: false, isolation: isolation_of(settings), names, values, ends }
    }

    fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let from = std::mem::replace(&mut from, *end);
            self.values.as_bytes().get(from..*end)
        })
    }

    /// The transaction goes on after the statement.
    pub fn beginning(self) -> Self {
        Self { begins: true, ..self }
    }
}

impl Preludes {
    /// For sessions whose statements have hashes of this hasher.
    pub fn new(hasher: RandomState) -> Self {
        let class = Class { effects: Effects::BEGIN, ..Class::default() };
        let begin = Statement::shared(&hasher, statement_body("BEGIN", &[]), WORLD, class);
        let isolation = std::array::from_fn(|level| {
            let body = statement_body(&isolation_sql(level), &[]);
            Arc::new(Statement::shared(&hasher, body, WORLD, Class::default()))
        });
        Self { begin: Arc::new(begin), isolation, settings: RwLock::default(), hasher }
    }

    /// The statement that sets what a [`Local`] has. The names are in its text: PostgreSQL has
    /// fewer values to read then.
    fn settings(&self, local: &Local) -> Option<Arc<Statement>> {
        if local.ends.is_empty() {
            return None;
        }
        let kept = self.settings.read().get(&*local.names).cloned();
        Some(kept.unwrap_or_else(|| self.setting(&local.names)))
    }

    fn setting(&self, names: &str) -> Arc<Statement> {
        let call = |(at, name): (usize, &str)| {
            format!("pg_catalog.set_config({},${},true)", quote_literal(name), at + 1)
        };
        let calls: Vec<_> = names.split_terminator('\0').enumerate().map(call).collect();
        let sql = format!("select {}", calls.join(","));
        let body = statement_body(&sql, &vec![TEXT; calls.len()]);
        let made = Arc::new(Statement::shared(&self.hasher, body, WORLD, Class::default()));
        let mut settings = self.settings.write();
        if settings.len() < MAX_SETS {
            settings.insert(names.into(), made.clone());
        }
        made
    }
}

/// Type of the values of settings.
const TEXT: u32 = 25;

/// Keeps the statements of this module apart from those of PostgreSQL clients on a connection.
pub const CONTEXT: u64 = 0x7479_7065_6400;

/// That of statements of our own, which no definition changes.
const WORLD: World = World { context: CONTEXT, version: 0, definitions: 0 };

/// What follows the name in Parse.
pub fn statement_body(sql: &str, types: &[u32]) -> Box<[u8]> {
    let mut body = Vec::with_capacity(sql.len() + 3 + 4 * types.len());
    body.extend_from_slice(sql.as_bytes());
    body.push(0);
    let count = u16::try_from(types.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&count.to_be_bytes());
    types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
    body.into()
}

/// A round trip in the making.
struct Batch<'a> {
    conn: &'a mut BackendConn,
    most: usize,
    out: BytesMut,
    /// Statements that the connection gains.
    parsed: VecDeque<Arc<Statement>>,
}

impl<'a> Batch<'a> {
    /// On a connection that keeps `most` statements.
    fn new(conn: &'a mut BackendConn, most: usize) -> Self {
        let mut closed = Vec::new();
        conn.state.leftovers.drain(..).for_each(|name| frontend::put_close(&mut closed, &name));
        let mut out = BytesMut::with_capacity(1024);
        out.extend_from_slice(&closed);
        Self { conn, most, out, parsed: VecDeque::new() }
    }

    /// The name of a statement, which is prepared if the connection does not have it.
    fn name(&mut self, statement: &Arc<Statement>) -> ServerName {
        let kept = &mut self.conn.state.statements;
        if let Some(name) = kept.name_to_run(statement) {
            return name;
        }
        let mut out = Vec::with_capacity(statement.body.len() + 64);
        while let Some((_, name)) = kept.evict(self.most, statement) {
            frontend::put_close(&mut out, name.as_bytes());
        }
        let name = kept.insert(statement.clone());
        frontend::put_parse(&mut out, name.as_bytes(), &statement.body);
        self.out.extend_from_slice(&out);
        self.parsed.push_back(statement.clone());
        name
    }

    fn run<'v>(
        &mut self,
        statement: &Arc<Statement>,
        values: impl Iterator<Item = Option<&'v [u8]>>,
        formats: impl Iterator<Item = i16>,
        max_rows: u32,
    ) -> Result<()> {
        let name = self.name(statement);
        let name = std::str::from_utf8(name.as_bytes()).map_err(Error::internal)?;
        let write = |value: Option<&[u8]>, out: &mut BytesMut| match value {
            Some(text) => {
                out.extend_from_slice(text);
                Ok(postgres_protocol::IsNull::No)
            }
            None => Ok(postgres_protocol::IsNull::Yes),
        };
        frontend::bind("", name, [0i16], values, write, formats, &mut self.out)
            .map_err(|_| Error::new(ErrorKind::PayloadTooLarge, "the parameters are too long"))?;
        let limit = i32::try_from(max_rows).unwrap_or(i32::MAX);
        frontend::execute("", limit, &mut self.out).map_err(Error::internal)
    }

    async fn send(mut self) -> Result<VecDeque<Arc<Statement>>> {
        frontend::sync(&mut self.out);
        self.conn.send(&self.out, &[request::SYNC]).await?;
        Ok(self.parsed)
    }
}

/// Asks for the types of a statement; it is prepared on the connection afterwards.
pub async fn describe(
    conn: &mut BackendConn,
    statement: &Arc<Statement>,
    most: usize,
) -> Result<Prepared> {
    if !conn.state.statements.has_current(statement) {
        take_away(conn, statement);
    }
    match describe_once(conn, statement, most).await {
        // What it means was altered, and not through RustyDB.
        Err(error) if is_stale(&error) && conn.state.is_idle() => {
            take_away(conn, statement);
            match conn.state.tx {
                TxStatus::Idle => describe_once(conn, statement, most).await,
                TxStatus::Open | TxStatus::Failed => Err(error),
            }
        }
        described => described,
    }
}

/// What is prepared there under the same text is closed before anything else.
fn take_away(conn: &mut BackendConn, statement: &Statement) {
    if let Some(name) = conn.state.statements.name_of(statement) {
        conn.state.leftovers.push(name.as_bytes().into());
        conn.state.statements.remove(statement);
    }
}

async fn describe_once(
    conn: &mut BackendConn,
    statement: &Arc<Statement>,
    most: usize,
) -> Result<Prepared> {
    let mut batch = Batch::new(conn, most);
    let name = batch.name(statement);
    let name = std::str::from_utf8(name.as_bytes()).map_err(Error::internal)?;
    frontend::describe(b'S', name, &mut batch.out).map_err(Error::internal)?;
    let parsed = batch.send().await?;
    let mut prepared = Prepared::default();
    let mut error = None;
    while conn.state.pending() > 0 {
        match conn.message(LONGEST).await? {
            tag::PARAMETER_DESCRIPTION => {
                prepared.parameters =
                    replies::parameter_description(conn.body()).map_err(Error::backend_lost)?;
            }
            tag::ROW_DESCRIPTION => prepared.columns = columns(conn.body())?,
            tag::ERROR => error = Some(take_error(conn, error)?),
            _ => {}
        }
    }
    let Some(error) = error else { return Ok(prepared) };
    parsed.iter().for_each(|statement| conn.state.statements.remove(statement));
    Err(error)
}

fn columns(body: &[u8]) -> Result<Vec<ColumnInfo>> {
    let columns = replies::row_description(body).map_err(Error::backend_lost)?;
    let owned = columns.into_iter().map(|c| ColumnInfo {
        name: String::from_utf8_lossy(c.name).into_owned(),
        table: c.table,
        attribute: c.attribute,
        type_oid: c.type_oid,
    });
    Ok(owned.collect())
}

/// The first error of a batch is the one that counts; after a fatal one nothing follows.
fn take_error(conn: &BackendConn, before: Option<Error>) -> Result<Error> {
    let report = Report::parse(conn.body()).map_err(Error::backend_lost)?;
    let error = before.unwrap_or_else(|| report.to_error());
    if conn.state.fatal { Err(error) } else { Ok(error) }
}

/// Runs a statement with text values, for at most `max_rows` rows (0 = all); the events follow.
/// `formats` are those of its columns: none = all are text, else one for each.
pub async fn execute<'v>(
    conn: &mut BackendConn,
    statement: &Arc<Statement>,
    (local, preludes): (&Local, &Preludes),
    (values, formats): (impl Iterator<Item = Option<&'v [u8]>>, impl Iterator<Item = i16>),
    max_rows: u32,
    most: usize,
) -> Result<Events> {
    let mut batch = Batch::new(conn, most);
    let mut before = 0;
    if local.begins {
        batch.run(&preludes.begin, empty(), empty(), 0)?;
        before += 1;
    }
    if let Some(statement) = local.isolation.and_then(|level| preludes.isolation.get(level)) {
        batch.run(statement, empty(), empty(), 0)?;
        before += 1;
    }
    if let Some(settings) = preludes.settings(local) {
        batch.run(&settings, local.values(), empty(), 0)?;
        before += 1;
    }
    batch.run(statement, values, formats, max_rows)?;
    let parsed = batch.send().await?;
    Ok(Events { error: None, parsed, before, statement: Some(statement.clone()) })
}

/// The events of a running statement.
#[derive(Debug, Default)]
pub struct Events {
    error: Option<Error>,
    /// Statements that the connection gains when it says so.
    parsed: VecDeque<Arc<Statement>>,
    /// Commands before the statement that are not complete.
    before: u8,
    statement: Option<Arc<Statement>>,
}

impl Events {
    /// The next event. An error comes after the rows before it, and only when PostgreSQL is
    /// ready again, so that the connection is free then (unless it is lost).
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut BackendConn,
        longest_row: usize,
    ) -> Poll<Result<Event>> {
        loop {
            let tag = ready!(conn.poll_message(cx, longest_row.max(LONGEST)))?;
            let event = match tag {
                tag::PARSE_COMPLETE => {
                    self.parsed.pop_front();
                    continue;
                }
                tag::DATA_ROW if self.before > 0 => continue,
                tag::COMMAND_COMPLETE if self.before > 0 => {
                    self.before -= 1;
                    continue;
                }
                tag::DATA_ROW if self.error.is_none() => Event::Row,
                tag::COMMAND_COMPLETE => {
                    let tag =
                        replies::command_complete(conn.body()).map_err(Error::backend_lost)?;
                    Event::Complete { command: tag.command.to_owned(), rows: tag.rows }
                }
                tag::PORTAL_SUSPENDED => Event::Suspended,
                tag::NOTICE => match notice(conn.body()) {
                    Some(notice) => Event::Notice(notice),
                    None => continue,
                },
                tag::ERROR => {
                    let error = take_error(conn, self.error.take())?;
                    self.forget(conn, &error);
                    self.error = Some(error);
                    continue;
                }
                // There is no place for COPY's bytes in a typed result. The connection is given
                // up in the middle, so its release cancels the COPY.
                tag::COPY_IN | tag::COPY_OUT | tag::COPY_BOTH => {
                    return Poll::Ready(Err(copy_refused()));
                }
                tag::READY_FOR_QUERY if conn.state.pending() == 0 => match self.error.take() {
                    None => Event::Done,
                    Some(error) => return Poll::Ready(Err(error)),
                },
                _ => continue,
            };
            return Poll::Ready(Ok(event));
        }
    }
}

impl Events {
    /// What was to be prepared was not, or is not as it was any more.
    fn forget(&mut self, conn: &mut BackendConn, error: &Error) {
        self.parsed.drain(..).for_each(|gone| conn.state.statements.remove(&gone));
        if let Some(statement) = self.statement.take().filter(|_| is_stale(error)) {
            take_away(conn, &statement);
        }
    }
}

/// "cached plan must not change result type", and a statement that is not there.
pub fn is_stale(error: &Error) -> bool {
    matches!(error.sqlstate().as_str(), "0A000" | "26000")
}

fn copy_refused() -> Error {
    Error::new(
        ErrorKind::NotSupported,
        "COPY from or to the client is not possible over this interface",
    )
    .with_hint("use INSERT or SELECT here, or COPY over the PostgreSQL protocol")
}

fn notice(body: &[u8]) -> Option<Notice> {
    let report = Report::parse(body).ok()?;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_NOTICE)]).into_owned()
    };
    Some(Notice {
        severity: text(report.severity),
        sqlstate: text(report.sqlstate),
        message: text(report.message),
    })
}
