//! PostgREST's errors: code, HTTP status, message, details, hint
//! (<https://docs.postgrest.org/en/latest/references/errors.html>).

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};
use crate::query::plan::{Candidate, PlanError};

/// A request that is refused before it reaches PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// `PGRST…`, or a SQLSTATE where PostgreSQL would have said the same.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What went wrong.
    pub message: String,
    /// More about it.
    pub details: Box<Value>,
    /// What to do.
    pub hint: Option<String>,
    /// The number of rows that there are, where rows behind them were asked for.
    pub total: Option<u64>,
}

impl Refusal {
    pub(super) fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            status,
            message: message.into(),
            details: Box::default(),
            hint: None,
            total: None,
        }
    }

    pub(super) fn details(mut self, details: impl Into<Value>) -> Self {
        *self.details = details.into();
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A part of the query string is not what the grammar says.
    pub(super) fn syntax(what: &str, text: &str, column: usize, details: String) -> Self {
        // What came in is shown, but not all of a long text.
        let text: String = text.chars().take(200).collect();
        let message = format!("\"failed to parse {what} ({text})\" (line 1, column {column})");
        Self::new("PGRST100", 400, message).details(details)
    }

    /// A function has set `response.headers` to something else.
    pub fn guided_headers() -> Self {
        let text = "response.headers guc must be a JSON array composed of objects with a single \
            key and a string value";
        Self::new("PGRST111", 500, text)
    }

    /// A function has set `response.status` to something else.
    pub fn guided_status() -> Self {
        Self::new("PGRST112", 500, "response.status guc must be a valid status code")
    }

    /// The payload is not what it should be.
    pub fn body(reason: impl Into<String>) -> Self {
        Self::new("PGRST102", 400, reason)
    }

    /// The rows that are left out are more than there are.
    pub(super) fn beyond(offset: u64, total: u64) -> Self {
        let details =
            format!("An offset of {offset} was requested, but there are only {total} rows.");
        Self { total: Some(total), ..Self::range(details) }
    }

    /// The range cannot be had.
    pub fn range(details: impl Into<Value>) -> Self {
        Self::new("PGRST103", 416, "Requested range not satisfiable").details(details)
    }

    /// Not exactly one row where one was asked for.
    pub fn singular(rows: u64) -> Self {
        Self::new("PGRST116", 406, "Cannot coerce the result to a single JSON object")
            .details(format!("The result contains {rows} rows"))
    }

    /// More rows were changed than the request allows.
    pub fn max_affected(rows: u64) -> Self {
        Self::new("PGRST124", 400, "Query result exceeds max-affected preference constraint")
            .details(format!("The query affects {rows} rows"))
    }

    /// The row that was put is not the one of the URL.
    pub fn put_mismatch() -> Self {
        let message = "Payload values do not match URL in primary key column(s)";
        Self::new("PGRST115", 400, message)
    }

    /// None of the accepted media types can be given.
    pub fn media_type(accepted: &str) -> Self {
        let message = format!("None of these media types are available: {accepted}");
        Self::new("PGRST107", 406, message)
    }

    /// The JSON body.
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "hint": self.hint,
        })
    }
}

/// For dialects that have errors of their own.
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match (refusal.code, refusal.status) {
            ("PGRST127", _) => ErrorKind::NotSupported,
            (_, 404) => ErrorKind::NotFound,
            (_, 406) => ErrorKind::NotAcceptable,
            _ => ErrorKind::ValidationError,
        };
        let error = Error::new(kind, refusal.message);
        let error = match *refusal.details {
            Value::Null => error,
            Value::String(text) => error.with_detail(text),
            other => error.with_detail(other.to_string()),
        };
        match refusal.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        use PlanError::*;
        let message = error.message();
        match error {
            UnknownTable { schema, similar, .. } => {
                let refusal = Refusal::new("PGRST205", 404, message);
                match similar {
                    Some(name) => {
                        refusal.hint(format!("Perhaps you meant the table '{schema}.{name}'"))
                    }
                    None => refusal,
                }
            }
            UnknownColumn { is_written: true, .. } => Refusal::new("PGRST204", 400, message),
            UnknownColumn { .. } => Refusal::new("42703", 400, message),
            UnknownType(_) => Refusal::new("42704", 400, message),
            NoRelation { schema, origin, target, hint } => {
                let hint = hint.map(|h| format!(" using the hint '{h}'")).unwrap_or_default();
                Refusal::new("PGRST200", 400, message).details(format!(
                    "Searched for a foreign key relationship between '{origin}' and '{target}'\
                     {hint} in the schema '{schema}', but no matches were found."
                ))
            }
            AmbiguousRelation { target, candidates, .. } => {
                ambiguous(message, &target, &candidates)
            }
            NotEmbedded(name) => Refusal::new("PGRST108", 400, message)
                .hint(format!("Verify that '{name}' is included in the 'select' query parameter.")),
            OrderNotToOne { origin, target } => {
                Refusal::new("PGRST118", 400, message).details(format!(
                    "'{origin}' and '{target}' do not form a many-to-one or one-to-one relationship"
                ))
            }
            BadEmbedTest(_) => Refusal::new("PGRST120", 400, message)
                .details("Only is null or not is null filters are allowed on embedded resources"),
            AggregatesOff => Refusal::new("PGRST123", 400, message),
            UnknownFunction { schema, name, arguments, similar } => {
                let refusal = unknown_function(message, &format!("{schema}.{name}"), &arguments);
                match similar {
                    Some(similar) => refusal
                        .hint(format!("Perhaps you meant to call the function {schema}.{similar}")),
                    None => refusal,
                }
            }
            AmbiguousFunction(_) => Refusal::new("PGRST203", 300, message).hint(
                "Try renaming the parameters or the function itself in the database so function \
                 overloading can be resolved",
            ),
            BadPayload(_) => Refusal::body(message),
            BadName(_) | BadCursor(_) | TooMuch(..) => Refusal::new("PGRST100", 400, message),
            Unsupported(_) => {
                Refusal::new("PGRST127", 400, "Feature not implemented").details(message)
            }
        }
    }
}

fn ambiguous(message: String, target: &str, candidates: &[Candidate]) -> Refusal {
    let one = |c: &Candidate| {
        json!({
            "cardinality": c.cardinality,
            "embedding": c.embedding,
            "relationship": c.relationship,
        })
    };
    let hints: Vec<String> = candidates.iter().map(|c| format!("'{}'", c.hint)).collect();
    Refusal::new("PGRST201", 300, message)
        .details(Value::Array(candidates.iter().map(one).collect()))
        .hint(format!(
            "Try changing '{target}' to one of the following: {}. Find the desired relationship \
             in the 'details' key.",
            hints.join(", ")
        ))
}

fn unknown_function(message: String, function: &str, arguments: &[String]) -> Refusal {
    let with = match arguments {
        [] => " without parameters".to_owned(),
        [only] => format!(" with parameter {only}"),
        several => format!(" with parameters {}", several.join(", ")),
    };
    Refusal::new("PGRST202", 404, message).details(format!(
        "Searched for the function {function}{with}, but no matches were found in the schema cache."
    ))
}

/// The HTTP status of an error of PostgreSQL with this message. Lack of a privilege is 401 for who
/// has not said who he is.
pub fn status_of_sqlstate(state: &str, message: &str, is_anonymous: bool) -> u16 {
    match state {
        "23503" | "23505" => 409,
        "25006" => 405,
        // What pg-safeupdate says to a change of a whole table.
        "21000" if message.ends_with("requires a WHERE clause") => 400,
        "21000" => 500,
        "42883" | "42P01" => 404,
        "42P17" => 500,
        "42501" if is_anonymous => 401,
        "42501" => 403,
        "53400" => 500,
        "P0001" => 400,
        "PT404" => 404,
        _ if state.starts_with("PT") => {
            let status = state[2..].parse().unwrap_or(500);
            // What is only informational is no answer.
            if (200..600).contains(&status) { status } else { 500 }
        }
        _ => match state.get(..2).unwrap_or("") {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0"
            | "HV" | "P0" | "XX" => 500,
            _ => 400,
        },
    }
}
