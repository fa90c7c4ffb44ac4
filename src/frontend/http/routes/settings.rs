//! The configuration as administrators see and change it: RustyDB's, and PostgreSQL's settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, JsonBody};
use super::super::{HttpDoor, answer, fetch};
use super::Routes;
use crate::audit::EventType;
use crate::config::{BackendMode, Setting, Wishes};
use crate::error::{Error, ErrorKind, Result};
use crate::query::{quote_ident, quote_literal};
use crate::session::Session;

/// Keys that one request may change.
const MOST_KEYS: usize = 1000;

/// What the names of PostgreSQL's settings begin with here.
const POSTGRESQL: &str = "postgresql.";

/// Short names, and what they stand for.
const ALIASES: [(&str, &str); 2] = [
    ("max_connections", "network.max_connections"),
    ("query_timeout", "postgresql.statement_timeout"),
];

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(admin_get_config, update_config)).routes(routes!(reload))
}

/// A key of RustyDB's configuration.
#[derive(Serialize, ToSchema)]
struct Key {
    /// Its path.
    key: String,
    /// The value in force, as it stands in the file; secrets are `***`.
    value: String,
    /// The value without any configuration.
    default: String,
    /// default, file, runtime, console, env, command_line.
    source: &'static str,
    /// The same with the name of the file, variable or option.
    origin: String,
    /// Whether it comes from where it cannot be changed at run time.
    locked: bool,
    /// Whether another value needs a restart.
    restart_required: bool,
}

impl From<Setting> for Key {
    fn from(setting: Setting) -> Self {
        let origin = setting.origin();
        Self {
            key: setting.key,
            value: setting.value,
            default: setting.default,
            source: origin.word(),
            origin: setting.source,
            locked: origin.is_fixed(),
            restart_required: !setting.live,
        }
    }
}

/// A setting of PostgreSQL.
#[derive(Serialize, Deserialize, ToSchema)]
struct PostgresSetting {
    /// Its name.
    name: String,
    /// Its value, in its unit.
    #[schema(required)]
    value: Option<String>,
    /// What it is counted in.
    #[schema(required)]
    unit: Option<String>,
    /// What it belongs to.
    category: String,
    /// What it does.
    description: String,
    /// Who may change it when, in PostgreSQL's words.
    context: String,
    /// Where its value comes from, in PostgreSQL's words.
    source: String,
    /// Whether a new value waits for a restart.
    restart_pending: bool,
    /// Whether another value needs a restart.
    restart_required: bool,
}

/// The configuration.
#[derive(Serialize, ToSchema)]
struct AdminConfig {
    /// RustyDB's keys, in the order of the file.
    settings: Vec<Key>,
    /// PostgreSQL's settings.
    postgresql: Vec<PostgresSetting>,
}

/// Get the configuration with its sources
///
/// Every key of RustyDB and every setting of PostgreSQL: its value, where it comes from, and
/// whether a change needs a restart.
#[utoipa::path(
    get, path = "/api/v1/admin/config", tag = "admin",
    responses((status = 200, description = "All of it.", body = AdminConfig))
)]
async fn admin_get_config(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    let mut session = caller.session(&door, None)?;
    let postgresql = postgres_settings(&door, &mut session, None).await?;
    let settings = door.admin.settings().into_iter().map(Key::from).collect();
    Ok(answer(StatusCode::OK, &AdminConfig { settings, postgresql }))
}

async fn postgres_settings(
    door: &HttpDoor,
    session: &mut Session,
    names: Option<&str>,
) -> Result<Vec<PostgresSetting>> {
    let sql = include_str!("../../../../sql/api/postgresql_settings.sql");
    fetch::run(door, session, sql, &[names]).await?.typed()
}

/// What a change of the configuration did.
#[derive(Serialize, ToSchema)]
struct Changed {
    /// Keys that have another value now.
    changed: Vec<String>,
    /// Keys that will have another value after a restart.
    restart_required: Vec<String>,
}

/// Change the configuration
///
/// An object of keys with their new values; null takes a change back. RustyDB's keys are kept in
/// `runtime.toml` in the data directory, and everything is read again, as at a reload; settings of
/// PostgreSQL, `postgresql.work_mem` for instance, are for `ALTER SYSTEM` of the embedded one, as
/// the caller's role. `max_connections` is `network.max_connections`, `query_timeout` is
/// `postgresql.statement_timeout` (milliseconds). All of it is done, or nothing.
#[utoipa::path(
    put, path = "/api/v1/admin/config", tag = "admin",
    request_body(content = BTreeMap<String, Value>, example = json!({ "pool.max_size": 50 })),
    responses((status = 200, description = "What is different now.", body = Changed))
)]
async fn update_config(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(wanted): JsonBody<BTreeMap<String, Value>>,
) -> ApiResult {
    let invalid = |text: String| Error::new(ErrorKind::ValidationError, text);
    if wanted.is_empty() || wanted.len() > MOST_KEYS {
        return Err(invalid(format!("1 to {MOST_KEYS} keys can be changed at once")).into());
    }
    let (mut wishes, mut settings) = (Wishes::new(), Vec::new());
    for (name, value) in &wanted {
        let alias = ALIASES.iter().find(|(alias, _)| alias == name);
        let name = alias.map_or(name.as_str(), |(_, name)| name);
        match name.strip_prefix(POSTGRESQL) {
            Some(setting) => settings.push((setting, setting_text(name, value)?)),
            None => wishes.push((name.to_owned(), as_toml(name, value)?)),
        }
    }
    let mut done = Changed { changed: Vec::new(), restart_required: Vec::new() };
    let mut session = caller.session(&door, None)?;
    let before = alter_system(&door, &mut session, &settings, &mut done).await?;
    if !wishes.is_empty() {
        match door.admin.change(wishes).await {
            Ok(changes) => done.changed.extend(changes.taken.iter().map(ToString::to_string)),
            Err(error) => {
                restore(&door, &mut session, &before).await;
                return Err(error.into());
            }
        }
    }
    if !settings.is_empty() {
        fetch::run(&door, &mut session, "SELECT pg_reload_conf()", &[]).await?;
    }
    let keys = wanted.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (kind, identity, visit) = (EventType::ConfigChanged, &caller.identity, &caller.visit);
    door.auth.audit_change(kind, "update_config", identity, keys, visit).await?;
    Ok(answer(StatusCode::OK, &done))
}

fn as_toml(name: &str, value: &Value) -> Result<Option<toml::Value>> {
    if value.is_null() {
        return Ok(None);
    }
    let read = serde_json::from_value(value.clone());
    let wrong =
        |_| Error::new(ErrorKind::ValidationError, format!("{name}: not a value for a key"));
    read.map(Some).map_err(wrong)
}

/// The value of a setting as SQL; `None` = what holds without ALTER SYSTEM.
fn setting_text(name: &str, value: &Value) -> Result<Option<String>> {
    let one = |value: &Value| match value {
        Value::String(text) if !text.contains('\0') => Ok(quote_literal(text)),
        Value::Number(number) => Ok(quote_literal(&number.to_string())),
        Value::Bool(is_on) => Ok(quote_literal(if *is_on { "on" } else { "off" })),
        _ => {
            let text = format!("{name}: a text, a number, a boolean or a list of them is expected");
            Err(Error::new(ErrorKind::ValidationError, text))
        }
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(list) if !list.is_empty() => {
            let list: Result<Vec<_>> = list.iter().map(one).collect();
            Ok(Some(list?.join(", ")))
        }
        value => one(value).map(Some),
    }
}

/// A setting, and what ALTER SYSTEM had made of it.
#[derive(Deserialize)]
struct Before {
    name: String,
    value: Option<String>,
}

/// Writes settings of PostgreSQL down; returns what there was before.
async fn alter_system(
    door: &HttpDoor,
    session: &mut Session,
    settings: &[(&str, Option<String>)],
    done: &mut Changed,
) -> Result<Vec<Before>> {
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    if door.config.now().backend.mode == BackendMode::External {
        let text = "the settings of an external PostgreSQL are changed there";
        return Err(Error::new(ErrorKind::NotSupported, text));
    }
    let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    let names = serde_json::to_string(&names).map_err(Error::internal)?;
    let known = postgres_settings(door, session, Some(&names)).await?;
    for (name, _) in settings {
        let Some(setting) = known.iter().find(|setting| setting.name == *name) else {
            let text = format!("PostgreSQL has no setting \"{name}\"");
            return Err(Error::new(ErrorKind::ValidationError, text));
        };
        if setting.source == "command line" {
            let text = format!("{POSTGRESQL}{name} is fixed: RustyDB sets it at the start");
            return Err(Error::new(ErrorKind::Conflict, text).with_hint(
                "the section backend.embedded of the configuration has what can be set",
            ));
        }
        let key = format!("{POSTGRESQL}{name}");
        match setting.restart_required {
            true => done.restart_required.push(key),
            false => done.changed.push(key),
        }
    }
    let sql = "SELECT s.name, f.setting AS value \
               FROM (SELECT json_array_elements_text($1::json) AS name) s \
               LEFT JOIN pg_catalog.pg_file_settings f ON f.name = s.name \
               AND f.sourcefile LIKE '%postgresql.auto.conf'";
    let before: Vec<Before> = fetch::run(door, session, sql, &[Some(&names)]).await?.typed()?;
    for (name, value) in settings {
        let sql = match value {
            Some(value) => format!("ALTER SYSTEM SET {} = {value}", quote_ident(name)),
            None => format!("ALTER SYSTEM RESET {}", quote_ident(name)),
        };
        if let Err(error) = fetch::run(door, session, &sql, &[]).await {
            restore(door, session, &before).await;
            return Err(error);
        }
    }
    Ok(before)
}

/// Takes back what was written down.
async fn restore(door: &HttpDoor, session: &mut Session, before: &[Before]) {
    for Before { name, value } in before {
        let name = quote_ident(name);
        let sql = match value {
            Some(value) => format!("ALTER SYSTEM SET {name} = {}", quote_literal(value)),
            None => format!("ALTER SYSTEM RESET {name}"),
        };
        if let Err(error) = fetch::run(door, session, &sql, &[]).await {
            tracing::warn!(name, %error, "a setting of PostgreSQL cannot be taken back");
        }
    }
}

/// What a reload did.
#[derive(Serialize, ToSchema)]
struct Reloaded {
    /// Keys that have another value now.
    changed: Vec<String>,
    /// Keys whose new value needs a restart.
    restart_required: Vec<String>,
    /// Whether PostgreSQL has read its own configuration again too.
    postgresql: bool,
}

/// Read the configuration again
///
/// RustyDB's files, environment and certificates, as at SIGHUP; the embedded PostgreSQL reads its
/// own again as well.
#[utoipa::path(
    post, path = "/api/v1/admin/reload", tag = "admin",
    responses((status = 200, description = "What is different now.", body = Reloaded))
)]
async fn reload(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    let changes = door.admin.reload().await?;
    let postgresql = door.config.now().backend.mode == BackendMode::Embedded;
    if postgresql {
        let mut session = caller.session(&door, None)?;
        fetch::run(&door, &mut session, "SELECT pg_reload_conf()", &[]).await?;
    }
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let (changed, restart_required) = (texts(&changes.taken), texts(&changes.left));
    let (kind, identity, visit) = (EventType::ConfigChanged, &caller.identity, &caller.visit);
    door.auth.audit_change(kind, "reload", identity, "", visit).await?;
    Ok(answer(StatusCode::OK, &Reloaded { changed, restart_required, postgresql }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_settings() {
        for (value, expected) in [
            (json!(null), None),
            (json!("64MB"), Some("E'64MB'")),
            (json!("a'b"), Some("E'a''b'")),
            (json!(60000), Some("E'60000'")),
            (json!(true), Some("E'on'")),
            (json!(["a", "b"]), Some("E'a', E'b'")),
        ] {
            assert_eq!(setting_text("x", &value).unwrap().as_deref(), expected);
        }
        for bad in [json!({}), json!([]), json!([[]]), json!("a\0b")] {
            assert!(setting_text("x", &bad).is_err(), "{bad}");
        }
        assert!(as_toml("x", &json!([null])).is_err());
        assert_eq!(as_toml("x", &json!(5)).unwrap(), Some(5.into()));
    }
}
