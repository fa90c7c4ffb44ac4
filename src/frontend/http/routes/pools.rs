//! The pools: `main` for the clients' roles, `system` for RustyDB's own statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody, Params};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, InWork, answer, fetch};
use super::Routes;
use crate::audit::EventType;
use crate::config::Wishes;
use crate::error::{Error, ErrorKind, Result};
use crate::session::admin::PoolKind;
use crate::telemetry::Spread;
use crate::telemetry::pool::PoolMetrics;

/// Both pools.
pub const KINDS: [PoolKind; 2] = [PoolKind::Main, PoolKind::System];

/// Seconds of a drain that does not say how long.
const DRAIN_SECS: u32 = 30;

/// Longest drain; a request does not wait for longer.
const MAX_DRAIN_SECS: u32 = 3600;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(get_pools))
        .routes(routes!(get_pool, update_pool, delete_pool))
        .routes(routes!(get_pool_stats))
        .routes(routes!(drain_pool))
}

/// What a pool is called.
pub fn name_of(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Main => "main",
        PoolKind::System => "system",
    }
}

pub(super) fn kind_of(id: &str) -> Result<PoolKind> {
    KINDS.into_iter().find(|kind| name_of(*kind) == id).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no pool \"{id}\""))
            .with_hint("the pools are main and system")
    })
}

/// Of the two, only the clients' pool can be steered.
pub(super) fn main_only(id: &str) -> Result<()> {
    match kind_of(id)? {
        PoolKind::Main => Ok(()),
        PoolKind::System => {
            let text = "the pool system is RustyDB's own and cannot be steered";
            Err(Error::new(ErrorKind::Conflict, text))
        }
    }
}

pub(super) fn metrics_of(door: &HttpDoor, kind: PoolKind) -> &PoolMetrics {
    match kind {
        PoolKind::Main => &door.metrics.main_pool,
        PoolKind::System => &door.metrics.system_pool,
    }
}

/// A pool.
#[derive(Serialize, ToSchema)]
struct ConnectionPool {
    /// main, system.
    pool_id: &'static str,
    /// What it is for.
    name: &'static str,
    /// Where PostgreSQL is.
    backend: String,
    /// Connections that are kept although they are idle.
    min_connections: usize,
    /// Connections at most.
    max_connections: usize,
    /// Connections that are held.
    active_connections: usize,
    /// Connections that nobody uses.
    idle_connections: usize,
    /// Connections in all.
    total_connections: usize,
    /// Sessions that wait for one.
    waiting: usize,
    /// Seconds that a session waits at most.
    connection_timeout_seconds: u64,
    /// active; draining: no connection is given out; drained: none is left; unreachable:
    /// PostgreSQL cannot be reached.
    state: &'static str,
}

fn described(door: &HttpDoor, kind: PoolKind) -> ConnectionPool {
    let counts = door.admin.counts(kind);
    let is_paused = kind == PoolKind::Main && door.admin.paused().all;
    ConnectionPool {
        pool_id: name_of(kind),
        name: match kind {
            PoolKind::Main => "connections of the clients' roles",
            PoolKind::System => "connections of the system role, for log-ins and health",
        },
        backend: door.admin.backend().to_string(),
        min_connections: counts.min_size,
        max_connections: counts.max_size,
        active_connections: counts.active(),
        idle_connections: counts.idle,
        total_connections: counts.total,
        waiting: counts.waiting,
        connection_timeout_seconds: door.config.now().pool.acquire_timeout_secs.0,
        state: match (is_paused, counts.total) {
            (true, 0) => "drained",
            (true, _) => "draining",
            (false, _) if door.admin.is_out_of_reach(kind) => "unreachable",
            (false, _) => "active",
        },
    }
}

/// List pools
///
/// main, for the clients' roles, and system, for RustyDB's own statements.
#[utoipa::path(
    get, path = "/api/v1/pools", tag = "pools", params(Page),
    responses((status = 200, description = "A page of them.", body = List<ConnectionPool>))
)]
async fn get_pools(State(door): State<Arc<HttpDoor>>, _: Caller, page: Page) -> ApiResult {
    let all = KINDS.map(|kind| described(&door, kind)).into();
    Ok(answer(StatusCode::OK, &page.of_all(all)?))
}

/// A key of the configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfigKey {
    /// Its value.
    pub(super) value: Value,
    /// default, file, env, command_line, runtime: changed over HTTP, or console.
    pub(super) source: &'static str,
    /// Whether it can be changed at run time.
    pub(super) live: bool,
}

/// A pool with its configuration.
#[derive(Serialize, ToSchema)]
struct PoolDetails {
    /// The pool.
    #[serde(flatten)]
    pool: ConnectionPool,
    /// Its keys without the `pool.` before them.
    configuration: BTreeMap<String, ConfigKey>,
}

/// A value of the configuration as JSON, secrets hidden.
pub(super) fn value_of(door: &HttpDoor, path: &str) -> Value {
    let value = door.config.now().get(path);
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
}

fn details(door: &HttpDoor, kind: PoolKind) -> PoolDetails {
    let keys = door.admin.settings().into_iter().filter_map(|setting| {
        let name = setting.key.strip_prefix("pool.")?.to_owned();
        let value = value_of(door, &setting.key);
        Some((name, ConfigKey { value, source: setting.origin().word(), live: setting.live }))
    });
    PoolDetails { pool: described(door, kind), configuration: keys.collect() }
}

/// Get a pool
///
/// Its state and its configuration.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    responses((status = 200, description = "The pool.", body = PoolDetails))
)]
async fn get_pool(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
) -> ApiResult {
    Ok(answer(StatusCode::OK, &details(&door, kind_of(&id)?)))
}

/// Change a pool
///
/// Keys of the configuration without the `pool.` before them, for instance `max_size`: all of them,
/// or, when one is refused, none. null takes back what was changed this way.
#[utoipa::path(
    put, path = "/api/v1/pools/{id}", tag = "pools", request_body = Object,
    params(("id" = String, Path, description = "main.")),
    responses((status = 200, description = "The pool as it is now.", body = PoolDetails))
)]
async fn update_pool(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(id): InPath<String>,
    JsonBody(changes): JsonBody<BTreeMap<String, Value>>,
) -> ApiResult {
    main_only(&id)?;
    change(&door, &caller, changes).await?;
    Ok(answer(StatusCode::OK, &details(&door, PoolKind::Main)))
}

/// Remove a pool
///
/// Always refused: no other pools can be made, and the server needs these two.
#[utoipa::path(
    delete, path = "/api/v1/pools/{id}", tag = "pools",
    params(("id" = String, Path, description = "main, system.")),
    responses((status = 409, description = "It cannot be removed."))
)]
async fn delete_pool(_: Caller, InPath(id): InPath<String>) -> ApiResult {
    let text = match kind_of(&id)? {
        PoolKind::Main => "main is the default pool and cannot be removed",
        PoolKind::System => "log-ins and RustyDB's own statements need the pool system",
    };
    Err(Error::new(ErrorKind::Conflict, text)
        .with_hint("POST /api/v1/pools/{id}/drain has a pool give out no more connections")
        .into())
}

/// Changes keys of the pool.
pub(super) async fn change(
    door: &HttpDoor,
    caller: &Caller,
    changes: BTreeMap<String, Value>,
) -> Result<()> {
    let invalid = |text: String| Err(Error::new(ErrorKind::ValidationError, text));
    if changes.is_empty() {
        return invalid("nothing is to be changed".into());
    }
    let known = door.admin.settings();
    let mut wanted = Wishes::new();
    for (name, value) in &changes {
        let path = format!("pool.{name}");
        let Some(setting) = known.iter().find(|setting| setting.key == path) else {
            return invalid(format!("there is no key {path}"));
        };
        if !setting.live {
            let text = format!("{path} needs a restart");
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        let value = match value {
            Value::Null => None,
            Value::Array(_) | Value::Object(_) => {
                return invalid(format!("{path} can be changed in the configuration file only"));
            }
            value => Some(serde_json::from_value(value.clone()).map_err(Error::internal)?),
        };
        wanted.push((path, value));
    }
    check_sizes(door, caller, &changes).await?;
    let names = changes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    door.admin.change(wanted).await?;
    let (kind, identity, visit) = (EventType::ConfigChanged, &caller.identity, &caller.visit);
    door.auth.audit_change(kind, "update_pool", identity, names, visit).await
}

/// What no single key can say: that sizes fit each other, and PostgreSQL.
async fn check_sizes(
    door: &HttpDoor,
    caller: &Caller,
    changes: &BTreeMap<String, Value>,
) -> Result<()> {
    let config = door.config.now();
    let size = |name: &str, now: usize| match changes.get(name) {
        Some(value) => value.as_u64().and_then(|n| usize::try_from(n).ok()),
        None => Some(now),
    };
    let (Some(min), Some(max)) =
        (size("min_size", config.pool.min_size), size("max_size", config.pool.max_size))
    else {
        let text = "min_size and max_size are whole numbers";
        return Err(Error::new(ErrorKind::ValidationError, text));
    };
    if min > max {
        let text = format!("min_size ({min}) is more than max_size ({max})");
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    if max <= config.pool.max_size {
        return Ok(());
    }
    #[derive(Deserialize)]
    struct Room {
        room: i64,
    }
    let sql = "SELECT pg_catalog.current_setting('max_connections')::int8 \
               - pg_catalog.current_setting('superuser_reserved_connections')::int8 AS room";
    let mut session = caller.session(door, None)?;
    let room: Room = fetch::run(door, &mut session, sql, &[]).await?.one(String::new)?;
    let reserved = i64::try_from(config.pool.reserved_size).unwrap_or(i64::MAX);
    let room = room.room.saturating_sub(reserved);
    if i64::try_from(max).is_ok_and(|max| max <= room) {
        return Ok(());
    }
    let text = format!("PostgreSQL has room for {room} connections, max_size would be {max}");
    Err(Error::new(ErrorKind::ValidationError, text)
        .with_hint("raise PostgreSQL's max_connections first"))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StatsFormat {
    #[default]
    Json,
    Prometheus,
    Csv,
}

/// How statistics are written.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatsQuery {
    /// json, prometheus, csv.
    #[serde(default)]
    #[param(inline, required = false)]
    format: StatsFormat,
}

/// What a pool did since the start of the server.
#[derive(Serialize, ToSchema)]
struct PoolStatistics {
    /// Connections now.
    total_connections: u64,
    /// Connections now that nobody uses.
    idle_connections: u64,
    /// Connections now that are held.
    active_connections: u64,
    /// How often a connection was asked for.
    total_acquisitions: u64,
    /// How often there was one.
    successful_acquisitions: u64,
    /// How often there was none: PostgreSQL refused, or the queue was full.
    failed_acquisitions: u64,
    /// How often the wait was too long.
    timeout_acquisitions: u64,
    /// Milliseconds until there was one, on average.
    avg_acquire_time_ms: f64,
    /// Milliseconds within which 95 of 100 had one; null when that is not known.
    #[schema(required)]
    p95_acquire_time_ms: Option<f64>,
    /// Milliseconds of the longest time until there was one.
    max_acquire_time_ms: f64,
    /// Milliseconds that closed connections lived, on average.
    avg_connection_lifetime_ms: f64,
    /// Sessions that wait now.
    current_waiters: u64,
    /// The most that ever waited.
    max_waiters: u64,
    /// Milliseconds in the queue, on average.
    avg_wait_time_ms: f64,
    /// Attempts to make a connection that failed.
    connection_errors: u64,
    /// Connections that did not pass their check.
    validation_failures: u64,
    /// Times that a client forgot a transaction.
    leaked_connections: u64,
    /// Connections made.
    connections_created: u64,
    /// Connections closed.
    connections_destroyed: u64,
}

fn statistics(door: &HttpDoor, kind: PoolKind) -> PoolStatistics {
    let (counts, metrics) = (door.admin.counts(kind), metrics_of(door, kind));
    let (acquire, wait) =
        (Spread::of(&metrics.acquire_duration), Spread::of(&metrics.wait_duration));
    let lives = metrics.lives();
    let acquired = metrics.acquired.get();
    let failed = metrics.acquire_failed.get() + metrics.acquire_rejected.get();
    let timeouts = metrics.acquire_timeout.get();
    PoolStatistics {
        total_connections: counts.total as u64,
        idle_connections: counts.idle as u64,
        active_connections: counts.active() as u64,
        total_acquisitions: acquired + failed + timeouts,
        successful_acquisitions: acquired,
        failed_acquisitions: failed,
        timeout_acquisitions: timeouts,
        avg_acquire_time_ms: acquire.mean_ms(),
        p95_acquire_time_ms: acquire.p95.map(|secs| secs * 1000.0),
        max_acquire_time_ms: metrics.longest_acquire.load(Ordering::Relaxed) as f64 / 1000.0,
        avg_connection_lifetime_ms: lives.mean_ms(),
        current_waiters: counts.waiting as u64,
        max_waiters: counts.most_waiting as u64,
        avg_wait_time_ms: wait.mean_ms(),
        connection_errors: metrics.connection_errors.get(),
        validation_failures: metrics.validation_failures.get(),
        leaked_connections: metrics.leaked.get(),
        connections_created: metrics.created.get(),
        connections_destroyed: lives.count,
    }
}

/// Get the statistics of a pool
///
/// As JSON, as CSV with a header, or as the pool's part of the metrics.
#[utoipa::path(
    get, path = "/api/v1/pools/{id}/stats", tag = "pools",
    params(("id" = String, Path, description = "main, system."), StatsQuery),
    responses((status = 200, description = "The statistics.", content(
        (PoolStatistics = "application/json"), (String = "text/plain"), (String = "text/csv"))))
)]
async fn get_pool_stats(
    State(door): State<Arc<HttpDoor>>,
    _: Caller,
    InPath(id): InPath<String>,
    Params(query): Params<StatsQuery>,
) -> ApiResult {
    let kind = kind_of(&id)?;
    let (text, content_type) = match query.format {
        StatsFormat::Json => return Ok(answer(StatusCode::OK, &statistics(&door, kind))),
        StatsFormat::Csv => (csv(&statistics(&door, kind))?, "text/csv; charset=utf-8"),
        StatsFormat::Prometheus => {
            let all = door.metrics.render(door.health.uptime_secs());
            let all = String::from_utf8_lossy(&all);
            (of_pool(&all, name_of(kind)), "text/plain; version=0.0.4; charset=utf-8")
        }
    };
    let mut response = Response::new(Body::from(text));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// One line of names, one of numbers.
fn csv(statistics: &PoolStatistics) -> Result<String> {
    let Value::Object(fields) = serde_json::to_value(statistics).map_err(Error::internal)? else {
        return Err(Error::internal("statistics are an object"));
    };
    let number = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let numbers: Vec<String> = fields.values().map(number).collect();
    Ok(format!("{}\r\n{}\r\n", names.join(","), numbers.join(",")))
}

/// The pool's lines of the metrics, with their descriptions.
fn of_pool(metrics: &str, pool: &str) -> String {
    let label = format!("pool=\"{pool}\"");
    let is_its = |line: &&str| match line.strip_prefix("# ") {
        Some(described) => {
            described.split(' ').nth(1).is_some_and(|name| name.starts_with("rustydb_pool_"))
        }
        None => line.starts_with("rustydb_pool_") && line.contains(&label),
    };
    metrics.lines().filter(is_its).flat_map(|line| [line, "\n"]).collect()
}

/// How a pool is drained, or that it is not any more.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DrainPool {
    /// Seconds to wait for connections that are in use.
    #[schema(minimum = 0, maximum = 3600, default = 30)]
    timeout_secs: Option<u32>,
    /// Whether idle connections are closed; unless said otherwise, they are.
    close_idle: Option<bool>,
    /// Ends the drain.
    #[serde(default)]
    resume: bool,
}

/// What became of a drain.
#[derive(Serialize, ToSchema)]
struct DrainedPool {
    /// Connections that were closed.
    drained: usize,
    /// Connections that are left; each is closed when it comes back.
    remaining: usize,
    /// active, draining, drained.
    state: &'static str,
}

/// Drain a pool
///
/// From now on it gives out no connection; what runs may finish. `{"resume": true}` ends that.
#[utoipa::path(
    post, path = "/api/v1/pools/{id}/drain", tag = "pools", request_body = DrainPool,
    params(("id" = String, Path, description = "main.")),
    responses((status = 200, description = "How far it is.", body = DrainedPool))
)]
async fn drain_pool(
    State(door): State<Arc<HttpDoor>>,
    Extension(in_work): Extension<InWork>,
    _: Caller,
    InPath(id): InPath<String>,
    JsonBody(how): JsonBody<DrainPool>,
) -> ApiResult {
    main_only(&id)?;
    let secs = how.timeout_secs.unwrap_or(DRAIN_SECS);
    if secs > MAX_DRAIN_SECS {
        let text = format!("timeout_secs is at most {MAX_DRAIN_SECS}");
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    }
    in_work.has_own_limit();
    let (drained, remaining) = if how.resume {
        // Once more does no harm.
        if door.admin.paused().any() {
            door.admin.resume(None)?;
        }
        (0, door.admin.counts(PoolKind::Main).total)
    } else {
        let limit = Duration::from_secs(secs.into());
        let drained = door.admin.drain(limit, how.close_idle != Some(false)).await?;
        (drained.closed, drained.remaining)
    };
    let state = described(&door, PoolKind::Main).state;
    Ok(answer(StatusCode::OK, &DrainedPool { drained, remaining, state }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_one_pool() {
        let metrics = "# HELP rustydb_pool_x X\n# TYPE rustydb_pool_x gauge\n\
                       rustydb_pool_x{pool=\"main\"} 1\nrustydb_pool_x{pool=\"system\"} 2\n\
                       # HELP other pool\nother{pool=\"main\"} 3\n";
        let expected = "# HELP rustydb_pool_x X\n# TYPE rustydb_pool_x gauge\n\
                        rustydb_pool_x{pool=\"main\"} 1\n";
        assert_eq!(of_pool(metrics, "main"), expected);
    }
}
