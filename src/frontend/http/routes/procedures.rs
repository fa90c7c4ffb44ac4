//! Functions and procedures: list, make, call, drop.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::error::ApiResult;
use super::super::extract::{Caller, InPath, JsonBody, Params};
use super::super::open::Hold;
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, fetch, no_content};
use super::schema::{Created, PlaceQuery};
use super::tables::check_types;
use super::{DropQuery, Routes};
use crate::error::{Error, ErrorKind, Result};
use crate::query::ddl::{check_expression, quote_name, quote_qualified};
use crate::query::quote_literal;
use crate::session::Session;

/// Arguments of a routine (PostgreSQL's `FUNC_MAX_ARGS`).
const MAX_ARGUMENTS: usize = 100;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list_procedures, create_procedure))
        .routes(routes!(delete_procedure))
        .routes(routes!(call_procedure))
}

/// A function or procedure in a list.
#[derive(Serialize, Deserialize, ToSchema)]
struct Routine {
    /// Name.
    name: String,
    /// Its schema.
    schema: String,
    /// function, procedure, aggregate, window.
    kind: String,
    /// Its language.
    language: String,
    /// Its arguments, as in SQL.
    arguments: String,
    /// Type of its result; null for procedures.
    #[schema(required)]
    returns: Option<String>,
    /// immutable, stable, volatile.
    volatility: String,
    /// Whether it runs as its owner.
    security_definer: bool,
    /// Role that owns it.
    owner: String,
    /// COMMENT ON FUNCTION.
    #[schema(required)]
    comment: Option<String>,
}

/// List functions and procedures
///
/// Those of a schema.
#[utoipa::path(
    get, path = "/api/v1/sql/procedures", tag = "schema", params(PlaceQuery, Page),
    responses((status = 200, description = "A page of them.", body = List<Routine>))
)]
async fn list_procedures(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    Params(place): Params<PlaceQuery>,
    page: Page,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let sql = include_str!("../../../../sql/api/procedures.sql");
    let list = fetch::page::<Routine>(&door, &mut session, sql, &[place.of_list()], page).await?;
    Ok(answer(StatusCode::OK, &list))
}

#[derive(Clone, Copy, Deserialize, Serialize, ToSchema, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum RoutineKind {
    Function,
    Procedure,
}

impl RoutineKind {
    fn sql(self) -> &'static str {
        match self {
            RoutineKind::Function => "FUNCTION",
            RoutineKind::Procedure => "PROCEDURE",
        }
    }
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ArgumentMode {
    #[default]
    In,
    Out,
    InOut,
    Variadic,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RoutineVolatility {
    Immutable,
    Stable,
    Volatile,
}

/// An argument, or a column of a result.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoutineArgument {
    /// Name.
    name: Option<String>,
    /// Type as in SQL.
    #[serde(rename = "type")]
    #[schema(examples("integer"))]
    data_type: String,
    /// in, out, inout, variadic.
    #[serde(default)]
    mode: ArgumentMode,
    /// SQL expression.
    default: Option<String>,
}

/// A function or procedure that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateRoutine {
    /// Name.
    name: String,
    /// Schema; public unless said otherwise.
    schema: Option<String>,
    /// function or procedure.
    kind: RoutineKind,
    /// An installed language. One that is not trusted needs a superuser.
    #[schema(examples("sql", "plpgsql"))]
    language: String,
    /// Arguments in order.
    #[serde(default)]
    #[schema(max_items = 100)]
    arguments: Vec<RoutineArgument>,
    /// Type of the result, of functions.
    returns: Option<String>,
    /// The result is a set of them.
    #[serde(default)]
    returns_set: bool,
    /// Instead of `returns`: the result is a set of rows with these columns.
    #[serde(default)]
    #[schema(max_items = 100)]
    returns_table: Vec<RoutineArgument>,
    /// Its text in its language.
    body: String,
    /// immutable, stable, volatile.
    volatility: Option<RoutineVolatility>,
    /// Gives NULL without being called when an argument is NULL.
    #[serde(default)]
    strict: bool,
    /// Runs as its owner.
    #[serde(default)]
    security_definer: bool,
    /// Replaces one of this name with the same types of arguments.
    #[serde(default)]
    or_replace: bool,
    /// Another database than api.database.
    database: Option<String>,
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::ValidationError, text.into())
}

impl RoutineArgument {
    fn write(&self, sql: &mut String) -> Result<()> {
        sql.push_str(match self.mode {
            ArgumentMode::In => "IN ",
            ArgumentMode::Out => "OUT ",
            ArgumentMode::InOut => "INOUT ",
            ArgumentMode::Variadic => "VARIADIC ",
        });
        if let Some(name) = &self.name {
            let _ = write!(sql, "{} ", quote_name(name)?);
        }
        sql.push_str(&self.data_type);
        if let Some(default) = &self.default {
            check_expression("default", default)?;
            let _ = write!(sql, " DEFAULT ({default}\n)");
        }
        Ok(())
    }
}

impl CreateRoutine {
    fn types(&self) -> impl Iterator<Item = &str> {
        let arguments = self.arguments.iter().chain(&self.returns_table);
        arguments.map(|argument| argument.data_type.as_str()).chain(self.returns.as_deref())
    }

    /// The statement; PostgreSQL has read the types as such.
    fn sql(&self) -> Result<String> {
        if self.arguments.len() > MAX_ARGUMENTS || self.returns_table.len() > MAX_ARGUMENTS {
            return Err(invalid(format!("a routine has at most {MAX_ARGUMENTS} arguments")));
        }
        if self.body.contains('\0') {
            return Err(invalid("body contains U+0000"));
        }
        let mut sql = String::from("CREATE ");
        if self.or_replace {
            sql.push_str("OR REPLACE ");
        }
        let schema = self.schema.as_deref().unwrap_or("public");
        let _ = write!(sql, "{} {} (", self.kind.sql(), quote_qualified(schema, &self.name)?);
        for (at, argument) in self.arguments.iter().enumerate() {
            sql.push_str(if at > 0 { ", " } else { "" });
            argument.write(&mut sql)?;
        }
        sql.push(')');
        self.write_result(&mut sql)?;
        let _ = write!(sql, " LANGUAGE {}", quote_name(&self.language)?);
        sql.push_str(match self.volatility {
            None => "",
            Some(RoutineVolatility::Immutable) => " IMMUTABLE",
            Some(RoutineVolatility::Stable) => " STABLE",
            Some(RoutineVolatility::Volatile) => " VOLATILE",
        });
        sql.push_str(if self.strict { " STRICT" } else { "" });
        sql.push_str(if self.security_definer { " SECURITY DEFINER" } else { "" });
        let _ = write!(sql, " AS {}", quote_literal(&self.body));
        Ok(sql)
    }

    fn write_result(&self, sql: &mut String) -> Result<()> {
        let has_result = self.returns.is_some() || !self.returns_table.is_empty();
        if self.kind == RoutineKind::Procedure {
            let says_more = has_result || self.volatility.is_some() || self.strict;
            return match says_more || self.returns_set {
                true => Err(invalid("returns, volatility and strict are of functions")),
                false => Ok(()),
            };
        }
        match (&self.returns, &self.returns_table[..]) {
            (Some(_), [_, ..]) => Err(invalid("returns and returns_table exclude each other")),
            (None, []) if self.returns_set => Err(invalid("returns_set says nothing of what")),
            (None, []) => Ok(()),
            (Some(returns), []) => {
                let set = if self.returns_set { "SETOF " } else { "" };
                let _ = write!(sql, " RETURNS {set}{returns}");
                Ok(())
            }
            (None, columns) => {
                let parts: Result<Vec<_>> = columns.iter().map(column).collect();
                let _ = write!(sql, " RETURNS TABLE ({})", parts?.join(", "));
                Ok(())
            }
        }
    }
}

fn column(column: &RoutineArgument) -> Result<String> {
    let Some(name) = column.name.as_ref().filter(|_| column.default.is_none()) else {
        return Err(invalid("a column of returns_table has a name and a type"));
    };
    Ok(format!("{} {}", quote_name(name)?, column.data_type))
}

/// Create a function or procedure
///
/// `CREATE FUNCTION` or `CREATE PROCEDURE`, as the caller's role.
#[utoipa::path(
    post, path = "/api/v1/sql/procedures", tag = "schema", request_body = CreateRoutine,
    responses((status = 201, description = "It is there.", body = Created))
)]
async fn create_procedure(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateRoutine>,
) -> ApiResult {
    let sql = new.sql()?;
    let mut session = caller.session(&door, new.database.as_deref())?;
    check_types(&door, &mut session, new.types()).await?;
    fetch::run(&door, &mut session, &sql, &[]).await?;
    let schema = new.schema.unwrap_or_else(|| "public".into());
    Ok(answer(StatusCode::CREATED, &Created { name: new.name, schema: Some(schema) }))
}

/// Which of several with one name.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OverloadQuery {
    /// Types of its arguments, with commas; needed when several have the name.
    #[param(example = "integer, text")]
    arguments: Option<String>,
}

/// Drop a function or procedure
///
/// `DROP ROUTINE`, as the caller's role.
#[utoipa::path(
    delete, path = "/api/v1/sql/procedures/{name}", tag = "schema",
    params(("name" = String, Path, description = "Its name."), PlaceQuery, OverloadQuery,
        DropQuery),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_procedure(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(name): InPath<String>,
    Params(place): Params<PlaceQuery>,
    Params(which): Params<OverloadQuery>,
    Params(how): Params<DropQuery>,
) -> ApiResult {
    let mut session = caller.session(&door, place.database.as_deref())?;
    let mut routine = quote_qualified(place.schema(), &name)?;
    if let Some(arguments) = &which.arguments {
        let types: Vec<&str> =
            arguments.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        check_types(&door, &mut session, types.iter().copied()).await?;
        let _ = write!(routine, "({})", types.join(", "));
    }
    fetch::run(&door, &mut session, &how.sql("ROUTINE", &routine), &[]).await?;
    Ok(no_content())
}

/// A call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CallRoutine {
    /// Values: an array in the order of the arguments, or an object by their names.
    #[schema(value_type = Object, examples(json!([1, "two"]), json!({ "a": 1 })))]
    arguments: Option<Box<RawValue>>,
    /// Schema; public unless said otherwise.
    schema: Option<String>,
    /// function or procedure, where both have the name.
    kind: Option<RoutineKind>,
    /// Runs in this transaction, as the header X-Transaction-Id says too.
    transaction_id: Option<u64>,
    /// Another database than api.database.
    database: Option<String>,
}

/// What a call gave.
#[derive(Serialize, ToSchema)]
struct Called {
    /// function or procedure.
    kind: RoutineKind,
    /// The rows of a function, or the row of a procedure with OUT arguments.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Box<RawValue>>,
    /// How many rows there are.
    row_count: usize,
    /// From the request to the end.
    execution_time_ms: f64,
}

/// The list of arguments in SQL, and their values.
fn arguments(given: Option<&RawValue>) -> Result<(String, Vec<Box<RawValue>>)> {
    let text = given.map_or("[]", |given| given.get().trim());
    let wrong = |e: serde_json::Error| invalid(format!("arguments is not valid: {e}"));
    let (list, values): (Vec<String>, Vec<Box<RawValue>>) = match text.as_bytes().first() {
        Some(b'[') => {
            let values: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(wrong)?;
            ((1..=values.len()).map(|number| format!("${number}")).collect(), values)
        }
        Some(b'{') => {
            let named: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(text).map_err(wrong)?;
            let number =
                |(at, name): (usize, &String)| Ok(format!("{} => ${}", quote_name(name)?, at + 1));
            let list: Result<Vec<_>> = named.keys().enumerate().map(number).collect();
            (list?, named.into_values().collect())
        }
        _ => return Err(invalid("arguments is neither an array nor an object")),
    };
    match values.len() > MAX_ARGUMENTS {
        true => Err(invalid(format!("a routine has at most {MAX_ARGUMENTS} arguments"))),
        false => Ok((list.join(", "), values)),
    }
}

/// Call a function or procedure
///
/// `SELECT * FROM …` or `CALL …`, as the caller's role. PostgreSQL chooses among those with the
/// same name.
#[utoipa::path(
    post, path = "/api/v1/sql/procedures/{name}/call", tag = "schema",
    params(("name" = String, Path, description = "Its name.")),
    request_body = CallRoutine,
    responses((status = 200, description = "What it gave.", body = Called))
)]
async fn call_procedure(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    headers: HeaderMap,
    InPath(name): InPath<String>,
    JsonBody(call): JsonBody<CallRoutine>,
) -> ApiResult {
    let begun = Instant::now();
    let (list, values) = arguments(call.arguments.as_deref())?;
    let schema = call.schema.as_deref().unwrap_or("public");
    let routine = quote_qualified(schema, &name)?;
    let database = call.database.as_deref();
    let mut hold = Hold::of(&door, &caller, &headers, call.transaction_id, database)?;
    let session = hold.session()?;
    let called = async {
        let kind = match call.kind {
            Some(kind) => kind,
            None => kind_of(&door, session, schema, &name).await?,
        };
        let sql = match kind {
            RoutineKind::Function => format!("SELECT * FROM {routine}({list})"),
            RoutineKind::Procedure => format!("CALL {routine}({list})"),
        };
        let fetched = fetch::run_raw(&door, session, &sql, &values).await?;
        Ok((kind, fetched.rows))
    };
    let called: Result<_> = called.await;
    hold.finish();
    let (kind, rows) = called.map_err(as_missing)?;
    let execution_time_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let row_count = rows.len();
    Ok(answer(StatusCode::OK, &Called { kind, rows, row_count, execution_time_ms }))
}

/// That there is no function with these arguments is an error of the request, as everywhere; only
/// the hint that names SQL's casts helps nobody here.
fn as_missing(error: Error) -> Error {
    match error.sqlstate().as_str() {
        "42883" => error.with_hint("GET /api/v1/sql/procedures lists names and arguments"),
        _ => error,
    }
}

async fn kind_of(
    door: &HttpDoor,
    session: &mut Session,
    schema: &str,
    name: &str,
) -> Result<RoutineKind> {
    #[derive(Deserialize)]
    struct Kind {
        kind: RoutineKind,
    }
    let sql = "SELECT DISTINCT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END \
               AS kind FROM pg_catalog.pg_proc p \
               JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
               WHERE n.nspname = $1 AND p.proname = $2 AND p.prokind IN ('f', 'p')";
    let found: Vec<Kind> =
        fetch::run(door, session, sql, &[Some(schema), Some(name)]).await?.typed()?;
    match &found[..] {
        [only] => Ok(only.kind),
        [] => {
            let text = format!("there is no function \"{name}\" in the schema \"{schema}\"");
            Err(Error::new(ErrorKind::NotFound, text))
        }
        _ => Err(invalid(format!("functions and procedures are named \"{name}\""))
            .with_hint("say which with \"kind\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_arguments() {
        let list = |json: &str| {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            arguments(Some(&raw)).map(|(list, values)| (list, values.len())).ok()
        };
        assert_eq!(arguments(None).unwrap().0, "");
        assert_eq!(list("[1, [2], null]"), Some(("$1, $2, $3".into(), 3)));
        let named = r#"{"b": 1, "A b": 2}"#;
        assert_eq!(list(named), Some((r#""A b" => $1, "b" => $2"#.into(), 2)));
        for wrong in ["7", "null", r#""a""#, r#"{"": 1}"#] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
        assert_eq!(list(&format!("[{}1]", "1,".repeat(100))), None);
    }
}
