//! What a pool does beside lending: its wait queue, the lives of its connections, its leaks.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody};
use super::super::paging::{List, Page};
use super::super::values::{millis, present, timestamp};
use super::super::{HttpDoor, answer};
use super::Routes;
use super::pools::{change, kind_of, main_only, metrics_of, name_of};
use super::unsupported::unsupported;
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionView;
use crate::session::admin::{Leak, PoolKind};
use crate::telemetry::Spread;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_wait_queue))
        .routes(routes!(get_wait_queue_stats))
        .routes(routes!(clear_wait_queue))
        .routes(routes!(get_lifecycle_policy, update_lifecycle_policy))
        .routes(routes!(recycle_connections))
        .routes(routes!(get_lifecycle_stats))
        .routes(routes!(get_leaks))
        .routes(routes!(clear_leaks))
}

/// A session that waits for a connection.
#[derive(Serialize, ToSchema)]
struct Waiter {
    /// Its place, from 1.
    position: usize,
    /// Number of the session.
    session_id: u64,
    /// Its role.
    user: String,
    /// Its database.
    database: String,
    /// Always normal: who came first is served first.
    priority: &'static str,
    /// Milliseconds that it has waited.
    waited_ms: u64,
}

/// Who waits for a connection.
#[derive(Serialize, ToSchema)]
struct WaitQueue {
    /// Always fair: who came first is served first.
    mode: &'static str,
    /// Those who wait, the first to be served first.
    waiters: List<Waiter>,
}

/// Get the wait queue of a pool
///
/// Sessions that wait for a connection, also for one that is being made, or for the end of a drain.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}/wait-queue", tag = "pools",
    params(("id" = String, Path, description = "main, system."), Page),
    responses((status = 200, description = "The queue.", body = WaitQueue))
)]
async fn get_wait_queue(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
    page: Page,
) -> ApiResult {
    // Log-ins wait for the system pool; they are no sessions yet.
    let mut views = match kind_of(&id)? {
        PoolKind::Main => door.admin.sessions(),
        PoolKind::System => Vec::new(),
    };
    views.retain(|view| view.waiting.is_some());
    views.sort_by_key(|view| std::cmp::Reverse(view.waiting));
    let waiter = |(at, view): (usize, SessionView)| Waiter {
        position: at + 1,
        session_id: view.entry.id.0,
        user: view.entry.role.to_string(),
        database: view.entry.database.to_string(),
        priority: "normal",
        waited_ms: view.waiting.map_or(0, millis),
    };
    let waiters = page.of_mapped(views.into_iter().enumerate().collect(), waiter)?;
    Ok(answer(StatusCode::OK, &WaitQueue { mode: "fair", waiters }))
}

/// What happened in the wait queue since the start of the server.
#[derive(Serialize, ToSchema)]
struct WaitQueueStatistics {
    /// Sessions that wait now.
    current_waiters: usize,
    /// The most that ever waited.
    max_waiters: usize,
    /// Milliseconds in the queue, on average.
    avg_wait_ms: f64,
    /// Milliseconds within which 95 of 100 were served; null when that is not known.
    #[schema(required)]
    p95_wait_ms: Option<f64>,
    /// Sessions that waited too long.
    timeouts: u64,
    /// Sessions that found the queue full, or were sent away.
    rejected: u64,
    /// Sessions that waited for longer than pool.starvation_threshold_secs.
    starved: u64,
    /// Always 0: nobody is preferred, the queue is fair.
    starvation_boosts: u64,
    /// Always null: deadlocks are looked for among PostgreSQL's locks.
    #[schema(required)]
    deadlocks_detected: Option<u64>,
}

/// Get the statistics of a wait queue
///
/// Since the start of the server.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}/wait-queue/stats", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    responses((status = 200, description = "The statistics.", body = WaitQueueStatistics))
)]
async fn get_wait_queue_stats(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    let kind = kind_of(&id)?;
    let (counts, metrics) = (door.admin.counts(kind), metrics_of(&door, kind));
    let wait = Spread::of(&metrics.wait_duration);
    let statistics = WaitQueueStatistics {
        current_waiters: counts.waiting,
        max_waiters: counts.most_waiting,
        avg_wait_ms: wait.mean_ms(),
        p95_wait_ms: wait.p95.map(|secs| secs * 1000.0),
        timeouts: metrics.acquire_timeout.get(),
        rejected: metrics.acquire_rejected.get(),
        starved: metrics.starved.get(),
        starvation_boosts: 0,
        deadlocks_detected: None,
    };
    Ok(answer(StatusCode::OK, &statistics))
}

/// Whom the clearing of a queue has sent away.
#[derive(Serialize, ToSchema)]
struct ClearedQueue {
    /// Sessions that got the error POOL_EXHAUSTED.
    cleared: usize,
}

/// Clear a wait queue
///
/// Everybody who waits in it gets the error `POOL_EXHAUSTED`. Who waits for the end of a drain is
/// in no queue.
#[utoipa::path(
    post, path = "/api/v1/pools/{id}/wait-queue/clear", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    responses((status = 200, description = "It is empty.", body = ClearedQueue))
)]
async fn clear_wait_queue(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    let cleared = door.admin.dismiss_waiters(kind_of(&id)?);
    Ok(answer(StatusCode::OK, &ClearedQueue { cleared }))
}

/// When connections are replaced, and what happens to one that comes back.
#[derive(Serialize, ToSchema)]
struct LifecyclePolicy {
    /// time_based; usage_based: max_uses counts, too.
    #[schema(examples("time_based"))]
    aging: &'static str,
    /// What is done with one that comes back. adaptive: it is kept, and gets DISCARD ALL where
    /// what was left on it is not known. checked: it gets that. replace: it is closed.
    #[schema(examples("adaptive"))]
    recycling: &'static str,
    /// Seconds after which a connection is replaced; null = never.
    #[schema(required)]
    max_lifetime_secs: Option<u64>,
    /// Seconds after which an idle connection is closed; null = never.
    #[schema(required)]
    idle_timeout_secs: Option<u64>,
    /// How often a connection is lent before it is replaced; null = as often as sessions come.
    #[schema(required)]
    max_uses: Option<u64>,
}

fn policy(door: &HttpDoor) -> LifecyclePolicy {
    let config = door.config.now();
    let max_uses = Some(u64::from(config.pool.max_uses)).filter(|uses| *uses != 0);
    LifecyclePolicy {
        aging: if max_uses.is_some() { "usage_based" } else { "time_based" },
        recycling: config.pool.recycling_strategy.word(),
        max_lifetime_secs: config.pool.max_lifetime_secs.map(|secs| secs.0),
        idle_timeout_secs: config.pool.idle_timeout_secs.map(|secs| secs.0),
        max_uses,
    }
}

/// Get the lifecycle policy of a pool
///
/// When its connections are replaced, and what happens to one that comes back.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}/lifecycle/policy", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    responses((status = 200, description = "The policy.", body = LifecyclePolicy))
)]
async fn get_lifecycle_policy(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    kind_of(&id)?;
    Ok(answer(StatusCode::OK, &policy(&door)))
}

/// Another lifecycle policy. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdatePolicy {
    /// time_based: max_uses does not count any more; usage_based: there is a max_uses; others
    /// answer 501.
    aging: Option<String>,
    /// adaptive, checked or replace; fast answers 501.
    recycling: Option<String>,
    /// Seconds after which a connection is replaced; null = never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    max_lifetime_secs: Option<Option<u64>>,
    /// Seconds after which an idle connection is closed; null = never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    idle_timeout_secs: Option<Option<u64>>,
    /// How often a connection is lent before it is replaced; null = as often as sessions come.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_uses: Option<Option<u64>>,
}

/// What a new policy makes of `pool.max_uses`, of which 0 = it does not count; `None` = it stays.
fn uses_of(aging: Option<&str>, given: Option<Option<u64>>, now: u64) -> Result<Option<u64>> {
    let invalid = |text: &'static str| Err(Error::new(ErrorKind::ValidationError, text));
    if given == Some(Some(0)) {
        return invalid("max_uses is 1 or more; null = as often as sessions come");
    }
    let wanted = given.map(|uses| uses.unwrap_or(0));
    match (aging, wanted.unwrap_or(now)) {
        (Some("time_based"), _) if wanted.is_some_and(|uses| uses != 0) => {
            invalid("with max_uses the connections' aging is usage_based")
        }
        (Some("time_based"), uses) if uses != 0 => Ok(Some(0)),
        (Some("usage_based"), 0) => invalid("usage_based needs max_uses"),
        (None | Some("time_based" | "usage_based"), _) => Ok(wanted),
        (Some(_), _) => Err(unsupported("pool_aging_policies")),
    }
}

/// Change the lifecycle policy of a pool
///
/// The times, the uses, and what is done with connections that come back.
#[utoipa::path(
    put, path = "/api/v1/pools/{id}/lifecycle/policy", tag = "pools",
    params(("id" = String, Path, description = "main.")), request_body = UpdatePolicy,
    responses((status = 200, description = "The policy as it is now.", body = LifecyclePolicy))
)]
async fn update_lifecycle_policy(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<String>,
    JsonBody(new): JsonBody<UpdatePolicy>,
) -> ApiResult {
    main_only(&id)?;
    let present = u64::from(door.config.now().pool.max_uses);
    let uses = uses_of(new.aging.as_deref(), new.max_uses, present)?;
    if new.recycling.as_deref() == Some("fast") {
        return Err(unsupported("pool_recycling_fast").into());
    }
    let mut changes = BTreeMap::new();
    if let Some(uses) = uses {
        changes.insert("max_uses".to_owned(), Value::from(uses));
    }
    if let Some(recycling) = new.recycling {
        changes.insert("recycling_strategy".to_owned(), Value::from(recycling));
    }
    let times = [
        ("max_lifetime_secs", new.max_lifetime_secs),
        ("idle_timeout_secs", new.idle_timeout_secs),
    ];
    for (name, value) in times {
        if let Some(secs) = value {
            changes.insert(name.to_owned(), secs.map_or_else(|| Value::from("none"), Value::from));
        }
    }
    if !changes.is_empty() {
        change(&door, &caller, changes).await?;
    }
    Ok(answer(StatusCode::OK, &policy(&door)))
}

/// Which connections are replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecycleConnections {
    /// Their numbers; all unless said otherwise.
    #[schema(examples("main-7"))]
    connection_ids: Option<Vec<String>>,
    /// replace; others answer 501.
    strategy: Option<String>,
}

/// How many are replaced.
#[derive(Serialize, ToSchema)]
struct Recycled {
    /// Connections: those that were idle are closed, the others will be when they come back.
    recycled: usize,
}

/// Recycle connections
///
/// Replaces them: idle ones now, those in use when they come back.
#[utoipa::path(
    post, path = "/api/v1/pools/{id}/lifecycle/recycle", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    request_body = RecycleConnections,
    responses((status = 200, description = "They are replaced.", body = Recycled))
)]
async fn recycle_connections(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
    JsonBody(which): JsonBody<RecycleConnections>,
) -> ApiResult {
    let kind = kind_of(&id)?;
    if which.strategy.is_some_and(|strategy| strategy != "replace") {
        return Err(unsupported("pool_recycling_on_demand").into());
    }
    let prefix = format!("{}-", name_of(kind));
    let number = |id: &String| {
        let number = id.strip_prefix(&prefix).and_then(|number| number.parse().ok());
        let missing = || format!("the pool has no connection \"{id}\"");
        number.ok_or_else(|| Error::new(ErrorKind::ValidationError, missing()))
    };
    let numbers = which.connection_ids.map(|ids| ids.iter().map(number).collect()).transpose()?;
    let numbers: Option<HashSet<u64>> = numbers;
    let recycled = door.admin.recycle(kind, numbers.as_ref());
    Ok(answer(StatusCode::OK, &Recycled { recycled }))
}

/// What became of a pool's connections since the start of the server.
#[derive(Serialize, ToSchema)]
struct LifecycleStatistics {
    /// Connections made.
    created: u64,
    /// Connections cleaned for the next session.
    recycled: u64,
    /// Connections closed because they were too old, used too often, idle for too long, or too
    /// many.
    retired: u64,
    /// Connections closed for other reasons.
    replaced: u64,
    /// Closed connections by their reason.
    closed_by_reason: BTreeMap<String, u64>,
    /// Connections that did not pass their check.
    validation_failures: u64,
    /// Milliseconds that present connections have lived, on average.
    average_age_ms: u64,
    /// How often present connections were lent to sessions, on average.
    average_uses: f64,
    /// Milliseconds that closed connections lived, on average.
    average_lifetime_ms: f64,
}

/// Get the lifecycle statistics of a pool
///
/// Connections made, cleaned and closed since the start of the server.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}/lifecycle/stats", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    responses((status = 200, description = "The statistics.", body = LifecycleStatistics))
)]
async fn get_lifecycle_stats(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    let kind = kind_of(&id)?;
    let metrics = metrics_of(&door, kind);
    let closed = metrics.closed();
    let ends = ["max_lifetime", "max_uses", "idle", "shrunk", "resize"];
    let retired = |reason: &str| ends.contains(&reason);
    let (old, other): (Vec<_>, Vec<_>) = closed.iter().partition(|(reason, _)| retired(reason));
    let sum = |list: Vec<(&String, &u64)>| list.into_iter().map(|(_, count)| count).sum();
    let now = SystemTime::now();
    let held = door.admin.held(kind);
    let ages = held.iter().filter_map(|h| now.duration_since(h.server.listed.since).ok());
    let age: Duration = ages.sum();
    let uses: u64 = held.iter().map(|held| held.server.listed.borrows()).sum();
    let statistics = LifecycleStatistics {
        created: metrics.created.get(),
        recycled: metrics.recycled.get(),
        retired: sum(old),
        replaced: sum(other),
        validation_failures: metrics.validation_failures.get(),
        average_age_ms: millis(age) / held.len().max(1) as u64,
        average_uses: uses as f64 / held.len().max(1) as f64,
        average_lifetime_ms: metrics.lives().mean_ms(),
        closed_by_reason: closed,
    };
    Ok(answer(StatusCode::OK, &statistics))
}

/// A session that holds a connection in a transaction and does nothing.
#[derive(Serialize, ToSchema)]
struct LeakInfo {
    /// The connection.
    #[schema(required)]
    connection_id: Option<String>,
    /// When its transaction began.
    #[schema(required, format = DateTime)]
    acquired_at: Option<String>,
    /// Milliseconds that it has done nothing.
    held_ms: i64,
    /// Its role.
    user: String,
    /// Number of the session.
    session_id: u64,
    /// PostgreSQL's process.
    backend_pid: u32,
}

fn leak_info(door: &HttpDoor, leak: &Leak) -> LeakInfo {
    let held = door.admin.held(PoolKind::Main);
    let number = held.iter().find(|held| held.server.listed.pid() == leak.pid);
    LeakInfo {
        connection_id: number.map(|held| format!("main-{}", held.server.listed.id)),
        acquired_at: leak.view.transaction_at.map(timestamp),
        held_ms: leak.secs.saturating_mul(1000),
        user: leak.view.entry.role.to_string(),
        session_id: leak.view.entry.id.0,
        backend_pid: leak.pid,
    }
}

/// The leaks of a pool; there is nobody who could forget something in the system pool.
async fn leaks(door: &HttpDoor, id: &str) -> Result<Vec<Leak>> {
    match (kind_of(id)?, door.config.now().pool.leak_detection_threshold_secs) {
        (PoolKind::Main, Some(threshold)) => door.admin.leaks(threshold.duration()).await,
        _ => Ok(Vec::new()),
    }
}

/// List leaks
///
/// Sessions that have done nothing in a transaction for longer than
/// `pool.leak_detection_threshold_secs`.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}/leaks", tag = "pools",
    params(("id" = String, Path, description = "main, system."), Page),
    responses((status = 200, description = "A page of them.", body = List<LeakInfo>))
)]
async fn get_leaks(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
    page: Page,
) -> ApiResult {
    let list = page.of_mapped(leaks(&door, &id).await?, |leak| leak_info(&door, &leak))?;
    Ok(answer(StatusCode::OK, &list))
}

/// What is done about leaks.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ClearLeaks {
    /// Ends the sessions; their transactions are rolled back.
    #[serde(default)]
    reclaim: bool,
}

/// What was done about leaks.
#[derive(Serialize, ToSchema)]
struct ClearedLeaks {
    /// Leaks that are not reported any more.
    cleared: usize,
    /// Sessions that were ended.
    reclaimed: usize,
}

/// Clear leaks
///
/// They are not reported any more; with `reclaim` their sessions are ended.
#[utoipa::path(
    post, path = "/api/v1/pools/{id}/leaks/clear", tag = "pools", request_body = ClearLeaks,
    params(("id" = String, Path, description = "main.")),
    responses((status = 200, description = "They are cleared.", body = ClearedLeaks))
)]
async fn clear_leaks(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
    JsonBody(how): JsonBody<ClearLeaks>,
) -> ApiResult {
    let leaks = leaks(&door, &id).await?;
    let reclaimed = match how.reclaim {
        true => door.admin.kill(|entry| leaks.iter().any(|leak| leak.view.entry.id == entry.id)),
        false => 0,
    };
    door.admin.forgive(&leaks);
    Ok(answer(StatusCode::OK, &ClearedLeaks { cleared: leaks.len(), reclaimed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aging_by_uses() {
        let kind = |error: Error| error.kind();
        let uses = |aging, given, now| uses_of(aging, given, now).map_err(kind);
        let (time, usage) = (Some("time_based"), Some("usage_based"));
        assert_eq!(uses(None, None, 5), Ok(None));
        assert_eq!(uses(None, Some(Some(3)), 5), Ok(Some(3)));
        assert_eq!(uses(None, Some(None), 5), Ok(Some(0)));
        assert_eq!((uses(time, None, 0), uses(time, None, 5)), (Ok(None), Ok(Some(0))));
        assert_eq!((uses(usage, None, 5), uses(usage, Some(Some(2)), 0)), (Ok(None), Ok(Some(2))));
        let invalid = Err(ErrorKind::ValidationError);
        assert_eq!((uses(usage, None, 0), uses(usage, Some(None), 5)), (invalid, invalid));
        assert_eq!(uses(time, Some(Some(2)), 0), invalid);
        assert_eq!(uses(None, Some(Some(0)), 0), invalid);
        assert_eq!(uses(Some("adaptive"), None, 0), Err(ErrorKind::NotSupported));
    }
}
