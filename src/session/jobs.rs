//! Long operations that nobody waits for: begun by a request, looked at and cancelled by others.
//!
//! What is known of them is in the table `rustydb.jobs`; the process that runs one says so every
//! few seconds, so that others see when it is gone.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore, watch};
use utoipa::ToSchema;

use crate::auth::Identity;
use crate::auth::tables::{SqlRow, Tables};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{DrainWatch, Stage};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Raised;
use crate::types::Role;

/// Jobs that are kept.
const MOST_KEPT: u32 = 10_000;

/// Seconds that one is kept after its end.
const KEPT_SECS: u32 = 24 * 3600;

/// Jobs of this process that have not ended.
const MOST_OPEN: usize = 100;

/// Jobs of this process that run at once; the others wait.
const MOST_RUNNING: usize = 4;

/// How often a process says that it still runs a job, and looks whether somebody cancels it.
const BEAT: Duration = Duration::from_secs(1);

/// Seconds without a word after which a process is gone.
const GONE_SECS: u32 = 60;

/// How long a request to cancel waits for the end of the job.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

/// How often, and with what pauses, the end of a job is written down when that fails.
const FINISH_TRIES: u32 = 10;
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for others to end.
    Queued,
    /// It is at work.
    Running,
    /// It has done what it was to do.
    Succeeded,
    /// It has not.
    Failed,
    /// Somebody has ended it.
    Cancelled,
}

impl JobState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// What it does now, in PostgreSQL's words.
    pub phase: String,
    /// How much of the phase is done.
    #[schema(required)]
    pub percent: Option<f64>,
    /// The same in units.
    #[schema(required)]
    pub done: Option<i64>,
    /// Units of the whole phase.
    #[schema(required)]
    pub total: Option<i64>,
    /// What a unit is: blocks, bytes.
    #[schema(required)]
    pub unit: Option<String>,
}

/// Why a job has failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// Word for programs, as in the body of errors.
    pub code: String,
    /// Text for people.
    pub message: String,
    /// SQLSTATE.
    pub sqlstate: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
}

impl From<&Error> for JobError {
    fn from(error: &Error) -> Self {
        Self {
            code: error.kind().code().to_owned(),
            message: error.message().to_owned(),
            sqlstate: error.sqlstate().as_str().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// A long operation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its number.
    pub job_id: String,
    /// What it is: create_index, maintenance, backup.
    pub kind: String,
    /// How it stands.
    pub state: JobState,
    /// How far it is, if that is known.
    #[schema(required)]
    pub progress: Option<Progress>,
    /// What it gave; its form depends on the kind.
    #[schema(required)]
    pub result: Option<Value>,
    /// Why it has failed.
    #[schema(required)]
    pub error: Option<JobError>,
    /// When it was asked for.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it began.
    #[schema(required, format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[schema(required, format = DateTime)]
    pub finished_at: Option<String>,
    /// Who asked for it.
    pub created_by: String,
}

/// Which jobs are wanted; empty fields fit all.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantedJobs<'a> {
    /// Its number.
    pub id: Option<&'a str>,
    /// Of this role.
    pub creator: Option<&'a Role>,
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// In this state.
    pub state: Option<JobState>,
}

/// The jobs.
pub struct Jobs {
    tables: Arc<Tables>,
    /// Number of this process among those that have run jobs.
    owner: String,
    /// Nobody else can run jobs in these tables.
    is_alone: bool,
    settled: OnceCell<()>,
    open: Mutex<HashMap<String, watch::Sender<bool>>>,
    turns: Semaphore,
    drain: DrainWatch,
    metrics: Arc<Metrics>,
}

/// A job's place among those that have not ended.
struct Place {
    jobs: Arc<Jobs>,
    id: String,
    _raised: Raised,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.jobs.open.lock().remove(&self.id);
    }
}

impl Jobs {
    /// Jobs of this process. Those of another that had these tables for itself, as this one has
    /// when it `is_alone`, have ended with it.
    pub fn new(
        tables: Arc<Tables>,
        is_alone: bool,
        drain: DrainWatch,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tables,
            owner: uuid::Uuid::now_v7().to_string(),
            is_alone,
            settled: OnceCell::new(),
            open: Mutex::default(),
            turns: Semaphore::new(MOST_RUNNING),
            drain,
            metrics,
        })
    }

    /// Writes down what came of the jobs of the process before this one.
    async fn settle(&self) -> Result<()> {
        let settle = async || {
            if self.is_alone {
                let sql = include_str!("../../sql/jobs/settle.sql");
                self.tables.ask(sql, &[Some(&self.owner)]).await?;
            }
            Ok(())
        };
        self.settled.get_or_try_init(settle).await.map(drop)
    }

    /// Begins a job. `work` gets the name that its sessions are to have (`application_name`), by
    /// which its progress is found; it is dropped when the job is cancelled.
    ///
    /// # Errors
    /// There are too many, or the tables cannot be reached or made.
    pub async fn begin<W, F>(
        self: &Arc<Self>,
        kind: &'static str,
        creator: &Identity,
        work: W,
    ) -> Result<Job>
    where
        W: FnOnce(String) -> F,
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        self.settle().await?;
        let id = uuid::Uuid::now_v7().to_string();
        let (wanted, unwanted) = watch::channel(false);
        let place = self.place(&id, wanted)?;
        let (most, secs) = (MOST_KEPT.to_string(), KEPT_SECS.to_string());
        let values = [&id, kind, creator.role.as_str(), &self.owner, &most, &secs].map(Some);
        let begun = self.tables.run(include_str!("../../sql/jobs/begin.sql"), &values).await?;
        if begun.is_empty() {
            return Err(too_many(MOST_KEPT as usize));
        }
        let work = work(application_name(&id));
        tokio::spawn(self.clone().run(place, kind, unwanted, work));
        self.get(&id, None).await
    }

    fn place(self: &Arc<Self>, id: &str, wanted: watch::Sender<bool>) -> Result<Place> {
        let mut open = self.open.lock();
        if open.len() >= MOST_OPEN {
            return Err(too_many(MOST_OPEN));
        }
        open.insert(id.to_owned(), wanted);
        let raised = Raised::new(&self.metrics.jobs.open);
        Ok(Place { jobs: self.clone(), id: id.to_owned(), _raised: raised })
    }

    async fn run(
        self: Arc<Self>,
        place: Place,
        kind: &'static str,
        mut unwanted: watch::Receiver<bool>,
        work: impl Future<Output = Result<Value>>,
    ) {
        let mut drain = self.drain.clone();
        let working = async {
            let _turn = self.turns.acquire().await.map_err(Error::internal)?;
            let sql = "UPDATE rustydb.jobs SET state = 'running', started_at = now() \
                       WHERE job_id = $1 AND state = 'queued'";
            self.tables.run(sql, &[Some(&place.id)]).await?;
            work.await
        };
        // Whatever comes first, the work is dropped, and what it does with it.
        let ended = tokio::select! {
            done = working => match done {
                Ok(result) => (JobState::Succeeded, Some(result), None),
                Err(error) => (JobState::Failed, None, Some(error)),
            },
            () = self.until_cancelled(&place.id, &mut unwanted) => {
                (JobState::Cancelled, None, None)
            }
            () = drain.reached(Stage::Stopping) => {
                let error = Error::new(ErrorKind::ShuttingDown, "the server was shut down");
                (JobState::Failed, None, Some(error))
            }
        };
        self.finish(&place.id, kind, ended).await;
    }

    /// Tells that the job is alive until somebody wants it to end.
    async fn until_cancelled(&self, id: &str, unwanted: &mut watch::Receiver<bool>) {
        let name = application_name(id);
        loop {
            let unwanted = unwanted.wait_for(|unwanted| *unwanted);
            if tokio::time::timeout(BEAT, unwanted).await.is_ok() {
                return;
            }
            let sql = include_str!("../../sql/jobs/beat.sql");
            match self.tables.run(sql, &[Some(id), Some(&name)]).await {
                Ok(rows) if is_true(&rows) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(job = id, %error, "a job cannot be written down"),
            }
        }
    }

    async fn finish(
        &self,
        id: &str,
        kind: &str,
        (state, result, error): (JobState, Option<Value>, Option<Error>),
    ) {
        self.metrics.jobs.finished(kind, state.word());
        let cause = error.as_ref().and_then(Error::cause).map(tracing::field::display);
        tracing::info!(job = id, kind, state = state.word(), cause, "a job has ended");
        let result = result.map(|result| result.to_string());
        let error = error.map(|error| json!(JobError::from(&error)).to_string());
        let values = [Some(id), Some(state.word()), result.as_deref(), error.as_deref()];
        for _ in 0..FINISH_TRIES {
            match self.tables.run(include_str!("../../sql/jobs/finish.sql"), &values).await {
                Ok(_) => return,
                Err(error) => tracing::warn!(job = id, %error, "its end cannot be written down"),
            }
            tokio::time::sleep(FINISH_PAUSE).await;
        }
    }

    /// A page of the jobs, newest first, and how many there are.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn list(
        &self,
        wanted: WantedJobs<'_>,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Job>, Option<u64>)> {
        self.settle().await?;
        let (limit, after, gone) = (limit.to_string(), offset.to_string(), GONE_SECS.to_string());
        let values = [
            wanted.id,
            wanted.creator.map(Role::as_str),
            wanted.kind,
            wanted.state.map(JobState::word),
            Some(&limit),
            Some(&after),
            Some(&gone),
        ];
        let rows = self.tables.ask(include_str!("../../sql/jobs/list.sql"), &values).await?;
        let mut total = (offset == 0).then_some(0);
        let mut jobs = Vec::new();
        for row in rows.unwrap_or_default() {
            let mut row = row.into_iter().flatten();
            let json = row.next().unwrap_or_default();
            jobs.push(serde_json::from_str(&json).map_err(Error::internal)?);
            total = row.next().and_then(|count| count.parse().ok()).or(total);
        }
        Ok((jobs, total))
    }

    /// One job, of this role or of anybody.
    ///
    /// # Errors
    /// There is none, or the tables cannot be reached.
    pub async fn get(&self, id: &str, creator: Option<&Role>) -> Result<Job> {
        let id = known_form(id)?;
        let wanted = WantedJobs { id: Some(&id), creator, ..WantedJobs::default() };
        let (jobs, _) = self.list(wanted, 1, 0).await?;
        jobs.into_iter().next().ok_or_else(|| no_such(&id))
    }

    /// Ends a job, of this role or of anybody, and tells how it stands then; one that another
    /// process runs ends a moment later.
    ///
    /// # Errors
    /// There is none, it has ended, or the tables cannot be reached.
    pub async fn cancel(&self, id: &str, creator: Option<&Role>) -> Result<Job> {
        let job = self.get(id, creator).await?;
        if !matches!(job.state, JobState::Queued | JobState::Running) {
            let text = format!("the job {id} is over: it has {}", ended_how(job.state));
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        let sql = "UPDATE rustydb.jobs SET is_unwanted = true WHERE job_id = $1";
        self.tables.run(sql, &[Some(&job.job_id)]).await?;
        let running = self.open.lock().get(&job.job_id).cloned();
        if let Some(running) = running {
            running.send_replace(true);
            let begun = tokio::time::Instant::now();
            while begun.elapsed() < CANCEL_WAIT && self.open.lock().contains_key(&job.job_id) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self.get(&job.job_id, creator).await
    }
}

/// What the sessions of a job are called.
fn application_name(id: &str) -> String {
    format!("rustydb-job-{id}")
}

fn ended_how(state: JobState) -> &'static str {
    match state {
        JobState::Cancelled => "been cancelled",
        state => state.word(),
    }
}

fn is_true(rows: &[SqlRow]) -> bool {
    rows.first().and_then(|row| row.first()?.as_deref()) == Some("t")
}

/// What is no number of a job names none.
fn known_form(id: &str) -> Result<String> {
    uuid::Uuid::parse_str(id).map(|id| id.to_string()).map_err(|_| no_such(id))
}

fn no_such(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no job {id}"))
}

fn too_many(most: usize) -> Error {
    Error::new(ErrorKind::LimitReached, format!("{most} jobs have not ended yet"))
        .with_hint("wait for some of them, or cancel them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_called_as_in_json() {
        for state in [
            JobState::Queued,
            JobState::Running,
            JobState::Succeeded,
            JobState::Failed,
            JobState::Cancelled,
        ] {
            assert_eq!(json!(state), state.word());
        }
    }

    #[test]
    fn what_is_no_number_names_no_job() {
        let id = uuid::Uuid::now_v7().to_string();
        assert_eq!(known_form(&id.to_uppercase()).unwrap(), id);
        for bad in ["", "x", "1; drop table x", "../x"] {
            assert_eq!(known_form(bad).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}
