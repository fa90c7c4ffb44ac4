//! Maintenance and backups: jobs that administrators begin.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, JsonBody};
use super::super::{HttpDoor, fetch};
use super::unsupported::unsupported;
use super::{Routes, jobs};
use crate::audit::EventType;
use crate::error::{Error, ErrorKind, Result};
use crate::query::ddl::{quote_name, quote_qualified};
use crate::session::admin::{BackupKind, Backups};
use crate::session::jobs::Job;

/// Workers that VACUUM may have (`MAX_PARALLEL_WORKER_LIMIT`).
const MOST_WORKERS: u32 = 1024;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(create_maintenance)).routes(routes!(create_backup))
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Vacuum,
    Analyze,
    Reindex,
    Cluster,
    Checkpoint,
    RefreshStatistics,
}

/// What a reindex is about.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum TargetKind {
    Table,
    Index,
    Schema,
    Database,
}

/// Options; each operation has its own, and refuses the others.
#[derive(Clone, Debug, Default, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Options {
    /// vacuum: rewrite the table.
    #[serde(default)]
    full: bool,
    /// vacuum: collect statistics too.
    #[serde(default)]
    analyze: bool,
    /// vacuum: freeze all rows.
    #[serde(default)]
    freeze: bool,
    /// vacuum: workers for the indexes; 0 = none.
    #[schema(maximum = 1024)]
    parallel: Option<u32>,
    /// vacuum, analyze: pass over what is locked.
    #[serde(default)]
    skip_locked: bool,
    /// reindex: without stopping writes.
    #[serde(default)]
    concurrently: bool,
    /// reindex: what the target is; table unless said otherwise, the database without a target.
    kind: Option<TargetKind>,
    /// cluster: the index to order by; without one that of the last time.
    index: Option<String>,
}

/// What is to be done with what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    /// What.
    operation: Operation,
    /// A table, for a reindex also an index or a schema; without one, the whole database.
    target: Option<String>,
    /// Schema of the target; public unless said otherwise.
    schema: Option<String>,
    /// Another database than api.database.
    database: Option<String>,
    /// How.
    #[serde(default)]
    options: Options,
}

impl Maintenance {
    /// The command, and the options that are of no use to it.
    fn sql(&self, database: &str) -> Result<String> {
        let target = match &self.target {
            Some(name) => Some(quote_qualified(self.schema.as_deref().unwrap_or("public"), name)?),
            None => None,
        };
        let of = target.as_ref().map_or_else(String::new, |target| format!(" {target}"));
        let mut left = self.options.clone();
        let sql = match self.operation {
            Operation::Vacuum => format!("VACUUM{}{of}", left.take_vacuum()?),
            Operation::Analyze | Operation::RefreshStatistics => {
                let skip = std::mem::take(&mut left.skip_locked);
                format!("ANALYZE{}{of}", if skip { " (SKIP_LOCKED)" } else { "" })
            }
            Operation::Reindex => self.reindex(&mut left, target.as_deref(), database)?,
            Operation::Cluster => match (left.index.take(), &target) {
                (None, _) => format!("CLUSTER{of}"),
                (Some(index), Some(target)) => {
                    format!("CLUSTER {target} USING {}", quote_name(&index)?)
                }
                (Some(_), None) => return Err(invalid("an index to order by needs a target")),
            },
            Operation::Checkpoint if target.is_some() => {
                return Err(invalid("a checkpoint has no target"));
            }
            Operation::Checkpoint => "CHECKPOINT".into(),
        };
        match left == Options::default() {
            true => Ok(sql),
            false => Err(invalid("an option does not belong to this operation")),
        }
    }

    fn reindex(&self, left: &mut Options, target: Option<&str>, database: &str) -> Result<String> {
        let concurrently = match std::mem::take(&mut left.concurrently) {
            true => " CONCURRENTLY",
            false => "",
        };
        let (what, of) = match (left.kind.take(), target, &self.target) {
            (None | Some(TargetKind::Table), Some(table), _) => ("TABLE", table.to_owned()),
            (Some(TargetKind::Index), Some(index), _) => ("INDEX", index.to_owned()),
            (Some(TargetKind::Schema), _, Some(schema)) => ("SCHEMA", quote_name(schema)?),
            (None | Some(TargetKind::Database), None, _) => ("DATABASE", quote_name(database)?),
            (Some(TargetKind::Database), Some(_), _) => {
                return Err(invalid("a database is named by database, not as the target"));
            }
            (Some(_), None, _) | (_, _, None) => return Err(invalid("the target is missing")),
        };
        Ok(format!("REINDEX {what}{concurrently} {of}"))
    }
}

impl Options {
    fn take_vacuum(&mut self) -> Result<String> {
        let mut words = Vec::new();
        let flags = [
            (&mut self.full, "FULL"),
            (&mut self.analyze, "ANALYZE"),
            (&mut self.freeze, "FREEZE"),
            (&mut self.skip_locked, "SKIP_LOCKED"),
        ];
        for (flag, word) in flags {
            if std::mem::take(flag) {
                words.push(word.to_owned());
            }
        }
        match self.parallel.take() {
            Some(workers) if workers > MOST_WORKERS => {
                return Err(invalid("parallel must be at most 1024"));
            }
            Some(workers) => words.push(format!("PARALLEL {workers}")),
            None => {}
        }
        Ok(if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) })
    }
}

fn invalid(text: &'static str) -> Error {
    Error::new(ErrorKind::ValidationError, text)
}

/// Begin maintenance
///
/// VACUUM, ANALYZE, REINDEX, CLUSTER or CHECKPOINT as a job, as the caller's role.
/// `refresh_statistics` is ANALYZE.
#[utoipa::path(
    post, path = "/api/v1/admin/maintenance", tag = "admin", request_body = Maintenance,
    responses((status = 202, description = "A job does it.", body = Job))
)]
async fn create_maintenance(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(wanted): JsonBody<Maintenance>,
) -> ApiResult {
    let config = door.config.now();
    let database = wanted.database.unwrap_or_else(|| config.api.database.clone());
    let wanted = Maintenance { database: None, ..wanted };
    let sql = wanted.sql(&database)?;
    let about = format!("{sql} in {database}");
    let (kind, visit) = (EventType::Administration, &caller.visit);
    door.auth.audit_change(kind, "maintenance", &caller.identity, about, visit).await?;
    let (creator, working) = (caller.identity.clone(), door.clone());
    let work = |name: String| async move {
        let mut session = caller.session_of_job(&working, Some(&database), &name)?;
        fetch::run_unhurried(&working, &mut session, &sql).await?;
        Ok(json!({ "command": sql, "database": database }))
    };
    jobs::accept(&door, &creator, "maintenance", work).await
}

/// How much is saved.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum BackupType {
    /// The whole cluster, as files.
    Full,
    /// What has changed since another one.
    Incremental,
    /// One database, as an archive for pg_restore.
    Logical,
}

/// A backup that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateBackup {
    /// How much.
    #[serde(rename = "type")]
    #[schema(inline)]
    kind: BackupType,
    /// Name of the directory that is made for it in backend.embedded.backup_dir.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    destination: String,
    /// Compress it with gzip.
    #[serde(default)]
    compress: bool,
    /// Encrypt it; not possible here.
    #[serde(default)]
    encrypt: bool,
    /// Of a logical one: another database than api.database.
    database: Option<String>,
}

/// Begin a backup
///
/// `pg_basebackup` of the embedded PostgreSQL, or `pg_dump` of one of its databases, as a job.
#[utoipa::path(
    post, path = "/api/v1/admin/backup", tag = "admin", request_body = CreateBackup,
    responses((status = 202, description = "A job makes it.", body = Job))
)]
async fn create_backup(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(wanted): JsonBody<CreateBackup>,
) -> ApiResult {
    let Some(backups) = door.admin.backups().cloned() else {
        return Err(unsupported("backup_of_external").into());
    };
    Backups::check_name(&wanted.destination)?;
    if wanted.encrypt {
        return Err(unsupported("backup_encryption").into());
    }
    let kind = match (wanted.kind, wanted.database) {
        (BackupType::Incremental, _) => return Err(unsupported("backup_incremental").into()),
        (BackupType::Full, Some(_)) => {
            return Err(invalid("a full backup is of all databases").into());
        }
        (BackupType::Full, None) => BackupKind::Full,
        (BackupType::Logical, database) => {
            let database = database.unwrap_or_else(|| door.config.now().api.database.clone());
            quote_name(&database)?;
            BackupKind::Logical(database)
        }
    };
    let (creator, visit) = (&caller.identity, &caller.visit);
    let (event, about) = (EventType::Administration, wanted.destination.as_str());
    door.auth.audit_change(event, "backup", creator, about, visit).await?;
    let work = |name: String| async move {
        let made = backups.make(wanted.destination, kind, wanted.compress, &name).await?;
        serde_json::to_value(made).map_err(Error::internal)
    };
    jobs::accept(&door, creator, "backup", work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sql(body: Value) -> Result<String> {
        let wanted: Maintenance = serde_json::from_value(body).map_err(Error::internal)?;
        wanted.sql("d b")
    }

    #[test]
    fn commands() {
        for (body, expected) in [
            (json!({ "operation": "vacuum" }), "VACUUM"),
            (
                json!({ "operation": "vacuum", "target": "a b", "schema": "s",
                    "options": { "full": true, "analyze": true, "parallel": 2 } }),
                r#"VACUUM (FULL, ANALYZE, PARALLEL 2) "s"."a b""#,
            ),
            (json!({ "operation": "analyze", "target": "t" }), r#"ANALYZE "public"."t""#),
            (json!({ "operation": "refresh_statistics" }), "ANALYZE"),
            (json!({ "operation": "reindex" }), r#"REINDEX DATABASE "d b""#),
            (
                json!({ "operation": "reindex", "target": "i",
                    "options": { "kind": "index", "concurrently": true } }),
                r#"REINDEX INDEX CONCURRENTLY "public"."i""#,
            ),
            (
                json!({ "operation": "reindex", "target": "s", "options": { "kind": "schema" } }),
                r#"REINDEX SCHEMA "s""#,
            ),
            (
                json!({ "operation": "cluster", "target": "t", "options": { "index": "i" } }),
                r#"CLUSTER "public"."t" USING "i""#,
            ),
            (json!({ "operation": "checkpoint" }), "CHECKPOINT"),
        ] {
            assert_eq!(sql(body).unwrap(), expected);
        }
        for bad in [
            json!({ "operation": "drop" }),
            json!({ "operation": "checkpoint", "target": "t" }),
            json!({ "operation": "checkpoint", "options": { "full": true } }),
            json!({ "operation": "analyze", "options": { "freeze": true } }),
            json!({ "operation": "vacuum", "options": { "parallel": 1025 } }),
            json!({ "operation": "reindex", "options": { "kind": "table" } }),
            json!({ "operation": "cluster", "options": { "index": "i" } }),
            json!({ "operation": "vacuum", "target": "" }),
        ] {
            assert!(sql(bad.clone()).is_err(), "{bad}");
        }
    }
}
