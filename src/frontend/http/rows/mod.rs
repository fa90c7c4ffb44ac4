//! Rows by plan: one statement that `query/plan` has made runs as the caller's role, and what it
//! gives becomes the body of an answer, whatever dialect asked for it.
//!
//! The session logs in as the role, so row security holds; the settings that the statement runs
//! with (`request.jwt.claims`, …) and the statement itself are one round trip.

pub mod bulk;
mod context;
mod describe;
pub mod failure;
mod guided;
pub mod keyed;
pub mod list;
mod media;
mod nested;
pub mod rest;
pub mod shapes;
mod stream;
pub mod uri;

pub use context::{Settings, cookies_of, headers_of};
use stream::first_value;
pub use stream::{Sink, Stream};

use std::future::poll_fn;
use std::sync::Arc;

use axum::body::Body;
use tokio::time::Instant;

use super::extract::Caller;
use super::fetch::check_size;
use super::open::Hold;
use super::running::{ChunkedBody, Chunks, Fill, Running};
use super::{HttpDoor, InWork, RequestId};
use crate::error::{Error, Result};
use crate::query::plan::ask::Count;
use crate::query::plan::{ReadPlan, Statement};
use crate::query::schema::Schema;
use crate::session::{Event, Known, Session, is_stale};

/// Definitions, the plan that was made of them, and the same once more when it could not be made
/// and something has been defined since.
///
/// # Errors
/// The plan's, or that the definitions cannot be read.
pub async fn planned<T, E: From<Error>>(
    session: &mut Session,
    plan: impl Fn(&Schema) -> std::result::Result<T, E>,
) -> std::result::Result<(Arc<Schema>, T), E> {
    let schema = session.schema().await?;
    match plan(&schema) {
        Ok(planned) => Ok((schema, planned)),
        Err(refused) => match Box::pin(session.newer_schema()).await? {
            None => Err(refused),
            Some(newer) => {
                let planned = plan(&newer)?;
                Ok((newer, planned))
            }
        },
    }
}

/// The same for a session that is held; a transaction that is somebody else's goes on when there is
/// no plan.
///
/// # Errors
/// Those of [`planned`].
pub async fn planned_in<T>(
    mut hold: Hold,
    plan: impl Fn(&Schema) -> Result<T>,
) -> Result<(Hold, Arc<Schema>, T)> {
    let planned = match hold.session() {
        Ok(session) => planned(session, plan).await,
        Err(error) => Err(error),
    };
    match planned {
        Ok((schema, planned)) => Ok((hold, schema, planned)),
        Err(error) => {
            hold.finish();
            Err(error)
        }
    }
}

/// How a statement is run.
pub struct Job<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The statement.
    pub statement: &'a Statement,
    /// Values of its parameters.
    pub values: Vec<Option<&'a [u8]>>,
    /// What it runs with, until the end of its transaction.
    pub settings: &'a Settings<'a>,
    /// Its transaction stays open, for who looks at the answer before it counts.
    pub in_transaction: bool,
    /// What becomes of its rows.
    pub sink: Sink,
    /// Rows that are shown at most; whether there was another one is told.
    pub limit: Option<u64>,
    /// So many columns are not shown: those at the end, before the ones that only a cursor needs.
    pub hidden: usize,
    /// When it is stopped.
    pub deadline: Option<Instant>,
}

/// Runs a statement; its rows are still to come.
///
/// # Errors
/// PostgreSQL does not understand it, or there is no connection.
pub async fn start(door: &HttpDoor, mut hold: Hold, job: Job<'_>) -> Result<Stream> {
    let begun = {
        let begun = std::pin::pin!(begin(door, &mut hold, &job));
        match job.deadline {
            // Dropping the session on the way cancels what it does.
            Some(at) => tokio::time::timeout_at(at, begun).await.ok(),
            None => Some(begun.await),
        }
    };
    match begun.unwrap_or_else(|| Err(hold.late())) {
        Ok(known) => {
            let longest = job.caller.config.api.max_row_size.len();
            let running = Running::new(hold, longest, job.deadline);
            Stream::new(running, known, &job)
        }
        Err(error) => {
            hold.finish();
            Err(error)
        }
    }
}

/// Makes a session ready to run a statement.
async fn ready(
    door: &HttpDoor,
    session: &mut Session,
    statement: &Statement,
) -> Result<Arc<Known>> {
    let types: Vec<u32> = statement.params.iter().map(|param| param.type_oid).collect();
    session.prepare(&door.catalog, &statement.sql, &types).await
}

async fn begin(door: &HttpDoor, hold: &mut Hold, job: &Job<'_>) -> Result<Arc<Known>> {
    job.caller.may_read(door, &job.statement.related).await?;
    let is_own = hold.is_own();
    let session = hold.session()?;
    session.ended_by("error");
    let known = ready(door, session, job.statement).await;
    let known = known.inspect_err(|error| note_unknown(session, error))?;
    let settings = job.settings.pairs();
    match is_own && job.in_transaction {
        true => session.begin_with(&settings),
        false => session.run_with(&settings),
    }
    let formats = nested::formats(job.statement, &known);
    let begun = session.execute_params(job.values.iter().copied(), formats).await;
    if !is_own {
        // What its owner runs then begins with nothing of ours.
        session.run_with(&[]);
    }
    begun?;
    session.ended_by("client_gone");
    Ok(known)
}

/// A statement of ours names tables and columns that there are, or were when we looked.
fn note_unknown(session: &Session, error: &Error) {
    if names_unknown(error) {
        session.definitions_are_old();
    }
}

/// Whether PostgreSQL does not know a column or a table.
fn names_unknown(error: &Error) -> bool {
    matches!(error.sqlstate().as_str(), "42703" | "42P01")
}

/// Whether PostgreSQL refuses a statement because something that it is about was altered.
fn is_outdated(error: &Error) -> bool {
    names_unknown(error) || is_stale(error)
}

/// The first value of a statement's first row, as text.
///
/// # Errors
/// PostgreSQL's.
async fn value_of(
    door: &HttpDoor,
    session: &mut Session,
    statement: &Statement,
    settings: &Settings<'_>,
) -> Result<Option<String>> {
    session.ended_by("error");
    ready(door, session, statement).await?;
    session.run_with(&settings.pairs());
    let begun = session.execute_params(statement.values().into_iter(), std::iter::empty()).await;
    session.run_with(&[]);
    begun?;
    let longest = door.config.now().api.max_row_size.len();
    let mut value = None;
    loop {
        match poll_fn(|cx| session.poll_event(cx, longest)).await? {
            Event::Row if value.is_none() => {
                let first = first_value(session.row())?;
                value = first.map(|text| String::from_utf8_lossy(text).into_owned());
            }
            Event::Done => {
                session.ended_by("closed");
                return Ok(value);
            }
            _ => {}
        }
    }
}

/// Rows up to which an estimated count is counted instead.
const COUNTED: u64 = 1000;

/// How all rows are counted.
pub struct Counting {
    /// The statement does it.
    pub with_total: bool,
    /// The number that PostgreSQL's planner believes, when that is enough.
    pub total: Option<u64>,
}

/// Finds out how the rows of a plan are to be counted.
///
/// # Errors
/// PostgreSQL's.
pub async fn counting(
    door: &HttpDoor,
    session: &mut Session,
    schema: &Schema,
    plan: &ReadPlan,
    settings: &Settings<'_>,
) -> Result<Counting> {
    let count = plan.count();
    if !matches!(count, Count::Planned | Count::Estimated) {
        return Ok(Counting { with_total: count == Count::Exact, total: None });
    }
    let estimate = plan.estimate(schema);
    let explained = Box::pin(value_of(door, session, &estimate, settings)).await?;
    let estimate = explained.as_deref().and_then(estimated_rows);
    let with_total = count == Count::Estimated && estimate.is_none_or(|n| n <= COUNTED);
    Ok(Counting { with_total, total: estimate.filter(|_| !with_total) })
}

/// The rows that PostgreSQL's planner expects, from `EXPLAIN (FORMAT JSON)`.
fn estimated_rows(explained: &str) -> Option<u64> {
    let plans: serde_json::Value = serde_json::from_str(explained).ok()?;
    plans.get(0)?.get("Plan")?.get("Plan Rows")?.as_f64().map(|rows| rows as u64)
}

impl Stream {
    /// Works until everything is there, or so much that the answer must begin.
    ///
    /// # Errors
    /// PostgreSQL's, which can still set the status.
    pub async fn first(&mut self) -> Result<Fill> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Works until everything is there, in memory.
    ///
    /// # Errors
    /// PostgreSQL's, or that it is too much.
    pub async fn whole(&mut self) -> Result<()> {
        self.hold_everything();
        loop {
            let fill = self.first().await?;
            check_size(self.len())?;
            if fill == Fill::End {
                return Ok(());
            }
        }
    }

    /// The body of the answer, after [`Stream::first`].
    pub fn into_body(
        mut self,
        fill: Fill,
        door: &HttpDoor,
        id: RequestId,
        in_work: &InWork,
    ) -> Body {
        match fill {
            Fill::End => Body::from(self.take()),
            Fill::More => {
                let permit = in_work.keep();
                Body::new(ChunkedBody::new(Box::new(self), id, door.metrics.clone(), permit))
            }
        }
    }
}
