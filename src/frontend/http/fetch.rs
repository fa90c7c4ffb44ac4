//! RustyDB's own statements for the endpoints: run as the caller, their rows in memory.
//!
//! For answers of a bounded size only; what can be large is streamed ([`super::body`]).

use std::borrow::Cow;
use std::future::poll_fn;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::HttpDoor;
use super::formats::RowWriter;
use super::paging::{List, Page, Term};
use super::running::late;
use super::values::bind;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json::Style;
use crate::query::quote_ident;
use crate::session::{Described, Event, Session};

/// Bytes of an answer.
const MOST: usize = 16 << 20;

/// The answer to a statement.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Rows as JSON objects.
    pub rows: Vec<Box<RawValue>>,
    /// The command's tag without numbers.
    pub command: String,
    /// Rows that were returned or changed.
    pub affected: u64,
    /// Whether it is a statement that returns rows.
    pub returns_rows: bool,
}

impl Fetched {
    /// The rows as values of a type that has their columns as fields.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.rows.iter().map(|row| parse(row)).collect()
    }

    /// The only row; none is the error that there is no such thing.
    pub fn one<T: DeserializeOwned>(&self, missing: impl FnOnce() -> String) -> Result<T> {
        match self.rows.first() {
            Some(row) => parse(row),
            None => Err(Error::new(ErrorKind::NotFound, missing())),
        }
    }
}

fn parse<T: DeserializeOwned>(row: &RawValue) -> Result<T> {
    serde_json::from_str(row.get()).map_err(Error::internal)
}

/// Runs one statement; the parameters are text that PostgreSQL reads as the types it finds.
pub async fn run(
    door: &HttpDoor,
    session: &mut Session,
    sql: &str,
    params: &[Option<&str>],
) -> Result<Fetched> {
    let bytes = |value: &Option<&str>| value.map(|text| text.as_bytes().to_vec());
    let values = params.iter().map(bytes).collect();
    within(door, session, (sql, &[]), None, |_| Ok(values)).await
}

/// As [`run`], for as long as it takes: for jobs.
pub async fn run_unhurried(door: &HttpDoor, session: &mut Session, sql: &str) -> Result<Fetched> {
    run_within(door, session, (sql, &[]), |_| Ok(Vec::new())).await
}

/// Runs one statement of a client with JSON parameters.
pub async fn run_bound(
    door: &HttpDoor,
    session: &mut Session,
    sql: &str,
    params: &[Value],
) -> Result<Fetched> {
    run_typed(door, session, (sql, &[]), params, None).await
}

/// The same with the types of parameters that PostgreSQL is not to find itself (0 = it is), and for
/// as long as this instead of `api.request_timeout_secs`.
pub async fn run_typed(
    door: &HttpDoor,
    session: &mut Session,
    statement: (&str, &[u32]),
    params: &[Value],
    limit: Option<Duration>,
) -> Result<Fetched> {
    let raw = |value: &Value| RawValue::from_string(value.to_string()).map_err(Error::internal);
    let params = params.iter().map(raw).collect::<Result<Vec<_>>>()?;
    within(door, session, statement, limit, |described| bind(&params, described)).await
}

/// The same with every digit of their numbers.
pub async fn run_raw(
    door: &HttpDoor,
    session: &mut Session,
    sql: &str,
    params: &[Box<RawValue>],
) -> Result<Fetched> {
    within(door, session, (sql, &[]), None, |described| bind(params, described)).await
}

/// Dropping the session on the way cancels what it does.
async fn within(
    door: &HttpDoor,
    session: &mut Session,
    statement: (&str, &[u32]),
    limit: Option<Duration>,
    bind: impl FnOnce(&Described) -> Result<Vec<Option<Vec<u8>>>>,
) -> Result<Fetched> {
    let limit = limit.unwrap_or_else(|| door.config.now().api.request_timeout_secs.duration());
    let ran = tokio::time::timeout(limit, run_within(door, session, statement, bind)).await;
    ran.unwrap_or_else(|_| Err(late(session)))
}

/// Refuses an answer that is too large to be held.
pub fn check_size(bytes: usize) -> Result<()> {
    match bytes > MOST {
        true => Err(Error::new(ErrorKind::PayloadTooLarge, "the answer is too large")
            .with_hint("ask for a smaller page, or for less of each entry")),
        false => Ok(()),
    }
}

async fn run_within(
    door: &HttpDoor,
    session: &mut Session,
    (sql, types): (&str, &[u32]),
    bind: impl FnOnce(&Described) -> Result<Vec<Option<Vec<u8>>>>,
) -> Result<Fetched> {
    session.ended_by("error");
    let known = session.prepare(&door.catalog, sql, types).await?;
    let values = bind(&known.described)?;
    session.execute(&values, 0).await?;
    let columns = &known.described.columns;
    let writer = RowWriter::new(columns.clone(), false, Style::default());
    let longest = door.config.now().api.max_row_size.len();
    let mut fetched = Fetched { returns_rows: !columns.is_empty(), ..Fetched::default() };
    let mut size = 0;
    loop {
        match poll_fn(|cx| session.poll_event(cx, longest)).await? {
            Event::Row => {
                let mut row = Vec::new();
                writer.write(session.row(), &mut row)?;
                size += row.len();
                check_size(size)?;
                let row = String::from_utf8(row).map_err(Error::internal)?;
                fetched.rows.push(RawValue::from_string(row).map_err(Error::internal)?);
            }
            Event::Complete { command, rows } => {
                fetched.command = command;
                fetched.affected = rows;
            }
            Event::Notice(_) | Event::Suspended => {}
            Event::Done => {
                session.ended_by("closed");
                return Ok(fetched);
            }
        }
    }
}

/// A row of a statement that counts all of them in the column `total`.
#[derive(serde::Deserialize)]
struct Counted<T> {
    #[serde(flatten)]
    entry: T,
    total: u64,
}

/// A page of a list: the statement's last two parameters are limit and offset, and its column
/// `total` counts the entries of all pages.
///
/// # Errors
/// PostgreSQL's, or the entries have no field that they are to be sorted by.
pub async fn page<T: DeserializeOwned + ToSchema>(
    door: &HttpDoor,
    session: &mut Session,
    sql: &str,
    params: &[Option<&str>],
    page: Page,
) -> Result<List<T>> {
    let (limit, offset) = (page.limit.to_string(), page.offset.to_string());
    let terms = page.terms::<T>()?;
    let (sql, cut) = match terms.is_empty() {
        true => (Cow::Borrowed(sql), [Some(limit.as_str()), Some(offset.as_str())]),
        // All of them are sorted, so it is not there that the page is cut out.
        false => (sorted(sql, &terms, &page).into(), [None, Some("0")]),
    };
    let params: Vec<_> = params.iter().copied().chain(cut).collect();
    let rows = run(door, session, &sql, &params).await?.typed::<Counted<T>>()?;
    // Beyond the last page there is no row that could say how many there are.
    let total = rows.first().map(|row| row.total).or((page.offset == 0).then_some(0));
    Ok(page.list(rows.into_iter().map(|row| row.entry).collect(), total))
}

/// A statement whose rows come in another order, cut to a page.
fn sorted(sql: &str, terms: &[Term], page: &Page) -> String {
    let order = |term: &Term| {
        let direction = if term.descends { "DESC" } else { "ASC" };
        format!("list.{} {direction}", quote_ident(&term.field))
    };
    let order: Vec<_> = terms.iter().map(order).collect();
    let Page { limit, offset, .. } = page;
    let order = order.join(", ");
    format!("SELECT * FROM (\n{sql}\n) AS list ORDER BY {order} LIMIT {limit} OFFSET {offset}")
}

/// Runs statements that belong together: all of them, or none.
pub async fn all_or_none(
    door: &HttpDoor,
    session: &mut Session,
    statements: &[String],
) -> Result<()> {
    if let [only] = statements {
        return run(door, session, only, &[]).await.map(drop);
    }
    run(door, session, "BEGIN", &[]).await?;
    for statement in statements {
        // What a failure leaves is rolled back with the session.
        run(door, session, statement, &[]).await?;
    }
    run(door, session, "COMMIT", &[]).await.map(drop)
}
