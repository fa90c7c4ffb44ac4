//! What this server is, what it can do, and how it is configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::Caller;
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use super::pools::value_of;
use super::unsupported::{FEATURES, Standing};
use crate::config::BackendMode;
use crate::error::Result;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(get_info)).routes(routes!(get_config))
}

/// How the server was built.
#[derive(Serialize, ToSchema)]
struct Build {
    /// release, debug.
    profile: &'static str,
    /// Operating system.
    os: &'static str,
    /// Kind of processor.
    arch: &'static str,
}

/// PostgreSQL behind the server.
#[derive(Serialize, ToSchema)]
struct BackendInfo {
    /// Its version.
    version: String,
    /// embedded, external.
    kind: &'static str,
    /// Whether it is a standby, or recovers.
    in_recovery: bool,
}

/// An extension of PostgreSQL.
#[derive(Serialize, Deserialize, ToSchema)]
struct ExtensionInfo {
    /// Name.
    name: String,
    /// Version that CREATE EXTENSION installs.
    default_version: Option<String>,
    /// Version that is installed in the database; null = it is not.
    #[schema(required)]
    installed_version: Option<String>,
}

/// What a server is, and what it can do.
#[derive(Serialize, ToSchema)]
struct Info {
    /// Version of RustyDB.
    version: &'static str,
    /// How it was built.
    build: Build,
    /// Name of the machine and port for PostgreSQL clients.
    node_id: String,
    /// PostgreSQL.
    backend: BackendInfo,
    /// What clients may speak.
    protocols: Vec<&'static str>,
    /// Extensions of PostgreSQL that there are.
    extensions: Vec<ExtensionInfo>,
    /// Features by their names: supported, needs an extension, or why it is not there.
    #[schema(value_type = Object)]
    features: BTreeMap<&'static str, String>,
}

/// Get what the server is
///
/// Its version, PostgreSQL behind it, and the features that it has and has not.
#[utoipa::path(
    get, path = "/api/v1/info", tag = "server",
    responses((status = 200, description = "What it is.", body = Info))
)]
async fn get_info(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    #[derive(Deserialize)]
    struct Told {
        version: String,
        in_recovery: bool,
        extensions: Vec<ExtensionInfo>,
    }
    let mut session = caller.session(&door, None)?;
    let sql = include_str!("../../../../sql/api/info.sql");
    let told: Told = fetch::run(&door, &mut session, sql, &[]).await?.one(String::new)?;
    let config = door.config.now();
    let is_installed = |name: &str| {
        told.extensions.iter().any(|known| known.name == name && known.installed_version.is_some())
    };
    let words = |standing: Standing| match standing {
        Standing::Needs(extension) if is_installed(extension) => Standing::Supported.words(),
        standing => standing.words(),
    };
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        build: Build {
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        },
        node_id: format!("{}:{}", host_name(), config.network.port),
        backend: BackendInfo {
            version: told.version,
            kind: match config.backend.mode {
                BackendMode::Embedded => "embedded",
                BackendMode::External => "external",
            },
            in_recovery: told.in_recovery,
        },
        protocols: protocols(config.api.enable_http2),
        features: FEATURES.iter().map(|f| (f.name, words(f.standing))).collect(),
        extensions: told.extensions,
    };
    Ok(answer(StatusCode::OK, &info))
}

fn protocols(has_http2: bool) -> Vec<&'static str> {
    let mut all = vec!["postgresql/3.0", "postgresql/3.2", "rustydb/1", "http/1.1"];
    all.extend(has_http2.then_some("h2"));
    all
}

/// The machine's name, where it is known.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// The configuration in force.
#[derive(Serialize, ToSchema)]
struct EffectiveConfig {
    /// Every key of RustyDB with its value; secrets are hidden.
    #[schema(value_type = Object)]
    configuration: BTreeMap<String, Value>,
    /// Settings of PostgreSQL that matter to who uses it.
    postgresql: BTreeMap<String, String>,
}

/// Settings of PostgreSQL that are shown.
const SHOWN: &str = "{max_connections,superuser_reserved_connections,shared_buffers,work_mem,\
                     maintenance_work_mem,effective_cache_size,max_prepared_transactions,\
                     max_locks_per_transaction,statement_timeout,lock_timeout,deadlock_timeout,\
                     idle_in_transaction_session_timeout,default_transaction_isolation,\
                     server_version,server_encoding,TimeZone,wal_level,fsync,\
                     synchronous_commit,autovacuum,jit}";

/// Get the configuration
///
/// The values in force, secrets hidden. Where they come from, and how they are changed, is told
/// below `/api/v1/admin`.
#[utoipa::path(
    get, path = "/api/v1/config", tag = "server",
    responses((status = 200, description = "The configuration.", body = EffectiveConfig))
)]
async fn get_config(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    let keys = door.admin.settings().into_iter().map(|setting| setting.key);
    let configuration = keys.map(|key| (key.clone(), value_of(&door, &key))).collect();
    let postgresql = shown(&door, &caller).await?;
    Ok(answer(StatusCode::OK, &EffectiveConfig { configuration, postgresql }))
}

async fn shown(door: &HttpDoor, caller: &Caller) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Shown {
        name: String,
        value: String,
    }
    let mut session = caller.session(door, None)?;
    let sql = "SELECT s.name AS name, pg_catalog.current_setting(s.name) AS value \
               FROM pg_catalog.pg_settings s WHERE s.name = ANY ($1::text[])";
    let shown: Vec<Shown> = fetch::run(door, &mut session, sql, &[Some(SHOWN)]).await?.typed()?;
    Ok(shown.into_iter().map(|one| (one.name, one.value)).collect())
}
