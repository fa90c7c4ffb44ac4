//! PostgREST's way of asking for rows over HTTP, as pure functions: method, path, query string,
//! headers and body become a plan, or a refusal with PostgREST's code. Grammar and behaviour are
//! those of <https://docs.postgrest.org/en/latest/references/api.html>.

mod error;
mod filter;
mod payload;
mod prefer;
mod query;
mod range;
mod scan;
mod select;
mod shape;

pub use error::{Refusal, status_of_sqlstate};
pub use prefer::{Handling, Preferences, Representation, Transaction};
pub use range::{content_range, read_status};
pub use shape::{Shape, Template};

use super::plan::ask::{
    Arguments, Call, Change, Condition, Count, Field, Keyset, Level, Operator, Payload, Read,
    Resolution, Returning, Target, Test, Write,
};
use super::plan::cursor::Position;
use super::plan::{CallPlan, Limits, ReadPlan, WritePlan, plan_call, plan_read, plan_write};
use super::schema::{Schema, oid};
use super::search_path;
use query::Query;
use range::Rows;

/// Parameters of a query string.
pub const MAX_PARAMETERS: usize = 500;

/// Methods that anything has.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"];

/// Longest name or value of a parameter in bytes.
pub const MAX_PARAMETER: usize = 64 << 10;

/// A request, decoded.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// `GET`, `POST`, …
    pub method: &'r str,
    /// What follows the prefix, between slashes: ``, `films`, or `rpc` and `add`. Each is decoded
    /// by itself, so that a slash in a name does not end it.
    pub path: &'r [&'r str],
    /// The query string's names and values in their order.
    pub query: &'r [(String, String)],
    /// Headers with names in lower case.
    pub headers: &'r [(&'r str, &'r str)],
    /// The body, decompressed.
    pub body: &'r [u8],
}

impl<'r> Request<'r> {
    fn header(&self, name: &str) -> Option<&'r str> {
        self.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value)
    }
}

/// What the caller allows.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Schemas that are shown; the first is meant when none is named.
    pub schemas: Vec<String>,
    /// Limits of plans.
    pub limits: Limits,
    /// Whether `Prefer: tx=` counts.
    pub may_roll_back: bool,
    /// What cursors are signed with; without a key there are none.
    pub cursor_key: Option<Vec<u8>>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell what there is in the schema.
    Describe,
    /// Tell which methods there are (`OPTIONS`), as the value of `Allow`.
    Methods(&'static str),
    /// Read rows.
    Read(Box<ReadPlan>),
    /// Change rows.
    Write(Box<WritePlan>, Verb),
    /// Call a function.
    Call(Box<CallPlan>),
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST: 201.
    Insert,
    /// PATCH: 200 with rows, else 204.
    Update,
    /// PUT of one row: no row back means [`Refusal::put_mismatch`].
    Put,
    /// DELETE: 200 with rows, else 204.
    Delete,
}

/// A request that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The schema that is meant.
    pub schema: String,
    /// Where names without a schema are looked for: in it first.
    pub search_path: String,
    /// What is to be done.
    pub action: Action,
    /// What the client prefers; a resolution only where there are conflicts to resolve.
    pub preferences: Preferences,
    /// The answer has no body (`HEAD`).
    pub headers_only: bool,
    /// The transaction must be read only.
    pub read_only: bool,
    /// The answer is one object, and anything but one row is [`Refusal::singular`].
    pub singular: bool,
}

/// Only what a query string says of rows: which, and what of them.
pub fn level_of(pairs: &[(String, String)]) -> Result<Level, Refusal> {
    check_pairs(pairs)?;
    let mut query = Query::parse(pairs, query::Kind::Rows)?;
    query.level.filter = query.filter;
    Ok(query.level)
}

/// Names of columns, with commas between.
pub fn columns_of(what: &'static str, text: &str) -> Result<Vec<String>, Refusal> {
    select::columns(what, text)
}

/// Rows in JSON, of which each has the members that it has; the others are to have their defaults.
pub fn rows_of(body: &[u8]) -> Result<Payload, Refusal> {
    payload::uneven(body)
}

/// The names of the columns in the first line of CSV.
pub fn csv_header(line: &str) -> Result<Vec<String>, Refusal> {
    payload::csv_names(line)
}

/// Understands a request.
pub fn plan(schema: &Schema, options: &Options, request: &Request<'_>) -> Result<Planned, Refusal> {
    check_pairs(request.query)?;
    if !METHODS.contains(&request.method) && !matches!(request.path, ["rpc", _, ..]) {
        return Err(unsupported(request.method));
    }
    let prefer = request.headers.iter().filter(|(name, _)| *name == "prefer");
    let mut preferences =
        Preferences::parse(prefer.map(|(_, value)| *value), options.may_roll_back);
    preferences.check()?;
    let profile = profile(options, request)?;
    let planner = Planner { schema, options, request, preferences: &preferences, profile };
    let (action, read_only) = match (request.path, request.method) {
        ([""], "GET" | "HEAD") => (Action::Describe, true),
        ([""], "OPTIONS") => (Action::Methods("OPTIONS,GET,HEAD"), true),
        (["rpc", name], method) if !name.is_empty() => planner.function(name, method)?,
        ([name], method) if !name.is_empty() => planner.table(name, method)?,
        ([""], method) => return Err(unsupported(method)),
        _ => return Err(Refusal::new("PGRST125", 404, "Invalid path specified in request URL")),
    };
    if !matches!(&action, Action::Write(plan, Verb::Insert) if plan.resolves_conflicts()) {
        preferences.resolution = None;
    }
    Ok(Planned {
        schema: profile.to_owned(),
        search_path: search_path(profile),
        action,
        headers_only: request.method == "HEAD",
        read_only,
        singular: accepts_one(request),
        preferences,
    })
}

fn check_pairs(pairs: &[(String, String)]) -> Result<(), Refusal> {
    let too_much = |what| Err(Refusal::new("PGRST100", 400, what));
    if pairs.len() > MAX_PARAMETERS {
        return too_much(format!("a query string may have at most {MAX_PARAMETERS} parameters"));
    }
    let longest = pairs.iter().map(|(name, value)| name.len().max(value.len())).max();
    if longest.is_some_and(|longest| longest > MAX_PARAMETER) {
        return too_much(format!("a parameter may have at most {MAX_PARAMETER} bytes"));
    }
    Ok(())
}

fn unsupported(method: &str) -> Refusal {
    let method: String = method.chars().take(32).collect();
    Refusal::new("PGRST117", 405, format!("Unsupported HTTP method: {method}"))
}

/// The schema that the headers name.
fn profile<'r>(options: &'r Options, request: &Request<'r>) -> Result<&'r str, Refusal> {
    let header = match request.method {
        "GET" | "HEAD" | "OPTIONS" => "accept-profile",
        _ => "content-profile",
    };
    let default = options.schemas.first().map_or("public", String::as_str);
    let asked = request.header(header).filter(|asked| !asked.is_empty());
    let Some(asked) = asked else { return Ok(default) };
    let known = options.schemas.iter().find(|schema| *schema == asked);
    known.map(String::as_str).ok_or_else(|| {
        let shown = options.schemas.join(", ");
        let asked: String = asked.chars().take(63).collect();
        Refusal::new("PGRST106", 406, format!("Invalid schema: {asked}"))
            .hint(format!("Only the following schemas are exposed: {shown}"))
    })
}

fn accepts_one(request: &Request<'_>) -> bool {
    let accept = request.header("accept").unwrap_or("");
    let first = accept.split([',', ';']).next().unwrap_or("").trim();
    first.eq_ignore_ascii_case("application/vnd.pgrst.object+json")
        || first.eq_ignore_ascii_case("application/vnd.pgrst.object")
}

struct Planner<'r> {
    schema: &'r Schema,
    options: &'r Options,
    request: &'r Request<'r>,
    preferences: &'r Preferences,
    profile: &'r str,
}

impl Planner<'_> {
    fn target(&self, name: &str) -> Target {
        Target { schema: self.profile.to_owned(), name: name.to_owned() }
    }

    fn table(&self, name: &str, method: &str) -> Result<(Action, bool), Refusal> {
        match method {
            "GET" | "HEAD" => self.read(name).map(|action| (action, true)),
            "POST" => self.insert(name).map(|action| (action, false)),
            "PATCH" => self.update(name).map(|action| (action, false)),
            "PUT" => self.put(name).map(|action| (action, false)),
            "DELETE" => self.delete(name).map(|action| (action, false)),
            "OPTIONS" => match self.schema.table(self.profile, name) {
                Some(_) => Ok((Action::Methods("OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"), true)),
                None => Err(self.unknown(name)),
            },
            other => Err(unsupported(other)),
        }
    }

    fn unknown(&self, name: &str) -> Refusal {
        let read = Read {
            target: self.target(name),
            level: Level::default(),
            count: Count::None,
            keyset: None,
        };
        match plan_read(self.schema, Limits::default(), &read) {
            Err(error) => error.into(),
            Ok(_) => Refusal::new("PGRST205", 404, "no such table"),
        }
    }

    /// What the query string and the headers say about the rows of the first level.
    fn page(&self, query: &mut Query) -> Result<(), Refusal> {
        let asked = Rows { offset: query.level.offset, limit: query.level.limit };
        let header = match self.request.header("range") {
            Some(text) if self.request.method == "GET" => range::header(text)?,
            _ => None,
        };
        let rows = header.map_or(asked, |header| range::both(asked, header));
        if rows.limit == Some(0) && asked.limit != Some(0) {
            return Err(Refusal::range("The Range header and limit/offset have no row in common."));
        }
        (query.level.offset, query.level.limit) = (rows.offset, rows.limit);
        Ok(())
    }

    fn count(&self) -> Count {
        self.preferences.count.unwrap_or_default()
    }

    fn read(&self, name: &str) -> Result<Action, Refusal> {
        let mut query = Query::parse(self.request.query, query::Kind::Rows)?;
        self.page(&mut query)?;
        let keyset = match &query.cursor {
            None => None,
            Some(text) => Some(self.keyset(text)?),
        };
        let mut level = query.level;
        level.filter = query.filter;
        let read = Read { target: self.target(name), level, count: self.count(), keyset };
        let plan = plan_read(self.schema, self.options.limits, &read)?;
        Ok(Action::Read(Box::new(plan)))
    }

    fn keyset(&self, text: &str) -> Result<Keyset, Refusal> {
        let key = self.options.cursor_key.as_deref();
        let key = key.ok_or_else(|| Refusal::new("PGRST100", 400, "cursors are switched off"))?;
        match text {
            "" => Ok(Keyset::Start),
            text => Ok(Keyset::After(Position::decode(text, key)?)),
        }
    }

    fn returning(&self, level: Level, of_insert: bool) -> Returning {
        match self.preferences.representation {
            Some(Representation::Full) => Returning::Rows(level),
            Some(Representation::HeadersOnly) if of_insert => Returning::Keys,
            _ => Returning::Nothing,
        }
    }

    fn payload(&self, columns: Option<Vec<String>>) -> Result<Payload, Refusal> {
        let missing_default = self.preferences.missing_default == Some(true);
        let body = self.request.body;
        match self.content_type() {
            Content::Json => payload::json(body, columns, missing_default),
            Content::Csv => payload::json(&payload::csv(body)?, columns, missing_default),
            Content::Form => payload::json(&payload::form(body)?, columns, missing_default),
            _ => Err(self.unacceptable()),
        }
    }

    fn unacceptable(&self) -> Refusal {
        let sent: String = self.media_type().chars().take(100).collect();
        Refusal::body(format!("Content-Type not acceptable: {sent}"))
    }

    fn media_type(&self) -> String {
        let header = self.request.header("content-type").unwrap_or("application/json");
        header.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }

    fn content_type(&self) -> Content {
        let essence = self.media_type();
        match essence.as_str() {
            "" | "application/json" | "*/*" => Content::Json,
            _ if essence.starts_with("application/vnd.pgrst.") => Content::Json,
            "text/csv" => Content::Csv,
            "application/x-www-form-urlencoded" => Content::Form,
            "text/plain" => Content::Text,
            "text/xml" => Content::Xml,
            "application/octet-stream" => Content::Bytes,
            _ => Content::Other,
        }
    }

    fn write(&self, name: &str, change: Change, level: Level) -> Result<Box<WritePlan>, Refusal> {
        let returning = self.returning(level, matches!(change, Change::Insert { .. }));
        let write = Write { target: self.target(name), change, returning };
        Ok(Box::new(plan_write(self.schema, self.options.limits, &write)?))
    }

    fn insert(&self, name: &str) -> Result<Action, Refusal> {
        let query = Query::parse(self.request.query, query::Kind::Change)?;
        let payload = self.payload(query.columns)?;
        let columns = query.on_conflict;
        let conflict = self.preferences.resolution.map(|resolution| (resolution, columns));
        let change = Change::Insert { payload, conflict, only: None };
        Ok(Action::Write(self.write(name, change, query.level)?, Verb::Insert))
    }

    fn update(&self, name: &str) -> Result<Action, Refusal> {
        let query = Query::parse(self.request.query, query::Kind::Change)?;
        let payload = payload::first(self.payload(query.columns)?)?;
        let change = Change::Update { payload, filter: query.filter };
        Ok(Action::Write(self.write(name, change, query.level)?, Verb::Update))
    }

    fn delete(&self, name: &str) -> Result<Action, Refusal> {
        let query = Query::parse(self.request.query, query::Kind::Change)?;
        let change = Change::Delete { filter: query.filter };
        Ok(Action::Write(self.write(name, change, query.level)?, Verb::Delete))
    }

    /// One row in the place that the filters name: they are the primary key.
    fn put(&self, name: &str) -> Result<Action, Refusal> {
        let query = Query::parse(self.request.query, query::Kind::Change)?;
        if query.has_range {
            let message = "limit/offset querystring parameters are not allowed for PUT";
            return Err(Refusal::new("PGRST114", 400, message));
        }
        let Some(table) = self.schema.table(self.profile, name) else {
            return Err(self.unknown(name));
        };
        let mut key: Vec<&str> = table.key_names().map(|name| &**name).collect();
        key.sort_unstable();
        let mut named = query.filter.as_ref().map_or(Some(Vec::new()), equal_columns);
        if let Some(named) = &mut named {
            named.sort_unstable();
        }
        if key.is_empty() || named != Some(key) {
            let message =
                "Filters must include all and only primary key columns with 'eq' operators";
            return Err(Refusal::new("PGRST105", 405, message));
        }
        let payload = self.payload(query.columns)?;
        let change = Change::Insert {
            payload,
            conflict: Some((Resolution::Merge, None)),
            only: query.filter,
        };
        Ok(Action::Write(self.write(name, change, query.level)?, Verb::Put))
    }

    fn function(&self, name: &str, method: &str) -> Result<(Action, bool), Refusal> {
        let by_get = matches!(method, "GET" | "HEAD");
        match method {
            "GET" | "HEAD" | "POST" => {}
            "OPTIONS" => return Ok((Action::Methods("OPTIONS,GET,HEAD,POST"), true)),
            other => {
                let other: String = other.chars().take(32).collect();
                let message = format!("Cannot use the {other} method on RPC");
                return Err(Refusal::new("PGRST101", 405, message));
            }
        }
        let kind = if by_get { query::Kind::Call } else { query::Kind::Rows };
        let mut query = Query::parse(self.request.query, kind)?;
        if query.cursor.is_some() {
            return Err(Refusal::new("PGRST127", 400, "Feature not implemented")
                .details("the rows of a function cannot be paged by a cursor"));
        }
        if by_get {
            self.page(&mut query)?;
        }
        let (arguments, fallback) = match by_get {
            true => (Arguments::Named(std::mem::take(&mut query.arguments)), None),
            false => self.arguments(query.columns.take())?,
        };
        let mut level = query.level;
        level.filter = query.filter;
        let (target, count) = (self.target(name), self.count());
        let call = Call { target, arguments, fallback, level, count };
        let plan = plan_call(self.schema, self.options.limits, &call)?;
        let read_only = by_get || plan.is_read_only();
        Ok((Action::Call(Box::new(plan)), read_only))
    }

    /// Arguments in a body, and what a function with one unnamed argument gets.
    fn arguments(
        &self,
        columns: Option<Vec<String>>,
    ) -> Result<(Arguments, Option<Arguments>), Refusal> {
        let body = self.request.body;
        let single =
            |types: &[u32]| Arguments::Single { value: body.to_vec(), types: types.to_vec() };
        match self.content_type() {
            Content::Json => {
                let whole = single(&[oid::JSON, oid::JSONB]);
                match payload::object_names(body)? {
                    Some((json, names)) => {
                        let names = columns.unwrap_or(names);
                        let fallback = (!body.is_empty()).then_some(whole);
                        Ok((Arguments::Json { json, names }, fallback))
                    }
                    None => Ok((whole, None)),
                }
            }
            Content::Form => {
                let pairs = url::form_urlencoded::parse(body);
                let pairs = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
                Ok((Arguments::Named(pairs.collect()), None))
            }
            Content::Text => Ok((single(&[oid::TEXT]), None)),
            Content::Xml => Ok((single(&[oid::XML]), None)),
            Content::Bytes => Ok((single(&[oid::BYTEA]), None)),
            _ => Err(self.unacceptable()),
        }
    }
}

/// Columns that a condition compares for equality, when it does nothing else.
fn equal_columns(condition: &Condition) -> Option<Vec<&str>> {
    let one = |condition| match condition {
        &Condition::Test(
            Field { ref name, ref path, .. },
            Test::Compare { operator: Operator::Equal, quantifier: None, .. },
        ) if path.is_empty() => Some(name.as_str()),
        _ => None,
    };
    match condition {
        Condition::And(all) => all.iter().map(one).collect(),
        other => one(other).map(|name| vec![name]),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Json,
    Csv,
    Form,
    Text,
    Xml,
    Bytes,
    Other,
}

#[cfg(test)]
mod tests;
