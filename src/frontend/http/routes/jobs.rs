//! Long operations: what became of them, and their end.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, Params};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer};
use super::Routes;
use crate::auth::Identity;
use crate::error::{Error, Result};
use crate::session::jobs::{Job, JobState, WantedJobs};
use crate::types::Role;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(list_jobs)).routes(routes!(get_job, delete_job))
}

/// Begins a job and answers that it has been accepted.
pub(super) async fn accept<W, F>(
    door: &HttpDoor,
    creator: &Identity,
    kind: &'static str,
    work: W,
) -> ApiResult
where
    W: FnOnce(String) -> F,
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let job = door.jobs.begin(kind, creator, work).await?;
    let mut response = answer(StatusCode::ACCEPTED, &job);
    let place = format!("/api/v1/jobs/{}", job.job_id).parse().map_err(Error::internal)?;
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

/// Which jobs.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct JobQuery {
    /// Those of this kind: create_index, maintenance, backup.
    kind: Option<String>,
    /// Those in this state.
    #[param(inline)]
    state: Option<JobState>,
}

/// Whose jobs the caller sees: his own, or, with `admin:jobs`, everybody's.
async fn whose<'a>(door: &HttpDoor, caller: &'a Caller) -> Result<Option<&'a Role>> {
    Ok((!caller.may(door, "admin:jobs").await?).then_some(&caller.identity.role))
}

/// List jobs
///
/// Those of the caller, newest first; those of everybody for who may `admin:jobs`. They are kept
/// for a day after their end.
#[utoipa::path(
    get, path = "/api/v1/jobs", tag = "jobs", params(JobQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<Job>))
)]
async fn list_jobs(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(query): Params<JobQuery>,
    page: Page,
) -> ApiResult {
    let creator = whose(&door, &caller).await?;
    let wanted = WantedJobs { id: None, creator, kind: query.kind.as_deref(), state: query.state };
    if page.is_sorted() {
        let (jobs, _) = door.jobs.list(wanted, u32::MAX, 0).await?;
        return Ok(answer(StatusCode::OK, &page.of_all(jobs)?));
    }
    let (jobs, total) = door.jobs.list(wanted, page.limit, page.offset).await?;
    Ok(answer(StatusCode::OK, &page.list(jobs, total)))
}

/// Get a job
///
/// How it stands, how far it is, and what came of it.
#[utoipa::path(
    get, path = "/api/v1/jobs/{job_id}", tag = "jobs",
    params(("job_id" = String, Path, description = "Its number.")),
    responses((status = 200, description = "The job.", body = Job))
)]
async fn get_job(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(job_id): InPath<String>,
) -> ApiResult {
    let creator = whose(&door, &caller).await?;
    Ok(answer(StatusCode::OK, &door.jobs.get(&job_id, creator).await?))
}

/// Cancel a job
///
/// Ends what it does: its statement, or the program that it runs.
#[utoipa::path(
    delete, path = "/api/v1/jobs/{job_id}", tag = "jobs",
    params(("job_id" = String, Path, description = "Its number.")),
    responses((status = 200, description = "The job as it is now.", body = Job))
)]
async fn delete_job(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(job_id): InPath<String>,
) -> ApiResult {
    let creator = whose(&door, &caller).await?;
    Ok(answer(StatusCode::OK, &door.jobs.cancel(&job_id, creator).await?))
}
