//! Why there is no plan.

use crate::error::{Error, ErrorKind};

/// One of several relations that could be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `many-to-one` and so on.
    pub cardinality: &'static str,
    /// Both tables.
    pub embedding: String,
    /// The references it rests on.
    pub relationship: String,
    /// What to write instead of the target.
    pub hint: String,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// No such table.
    UnknownTable {
        /// Schema.
        schema: String,
        /// Name.
        name: String,
        /// A similar one.
        similar: Option<String>,
    },
    /// No such column.
    UnknownColumn {
        /// Table.
        table: String,
        /// Name.
        column: String,
        /// Whether it was to get a value.
        is_written: bool,
    },
    /// No such type.
    UnknownType(String),
    /// No relation between two tables.
    NoRelation {
        /// Schema.
        schema: String,
        /// Table it was to start from.
        origin: String,
        /// Table it was to lead to.
        target: String,
        /// How it was to be told from others.
        hint: Option<String>,
    },
    /// More than one relation between two tables.
    AmbiguousRelation {
        /// Table they start from.
        origin: String,
        /// What was asked for.
        target: String,
        /// All of them.
        candidates: Vec<Candidate>,
    },
    /// A part of the request speaks of a resource that is not embedded.
    NotEmbedded(String),
    /// Rows cannot be ordered by a resource of which each has many.
    OrderNotToOne {
        /// Table.
        origin: String,
        /// Resource.
        target: String,
    },
    /// An embedded resource can only be tested for being there.
    BadEmbedTest(String),
    /// Functions over many rows are switched off.
    AggregatesOff,
    /// No function fits.
    UnknownFunction {
        /// Schema.
        schema: String,
        /// Name.
        name: String,
        /// Names of the arguments given.
        arguments: Vec<String>,
        /// A similar name, or this one with the names of the arguments that it takes.
        similar: Option<String>,
    },
    /// More than one function fits.
    AmbiguousFunction(Vec<String>),
    /// The payload is not what it should be.
    BadPayload(String),
    /// The name of a result cannot be one.
    BadName(String),
    /// The cursor does not belong to this request.
    BadCursor(&'static str),
    /// More than a request may have; which limit, and its value.
    TooMuch(&'static str, usize),
    /// It cannot be done.
    Unsupported(&'static str),
}

impl PlanError {
    /// The error in one sentence.
    pub fn message(&self) -> String {
        use PlanError::*;
        match self {
            UnknownTable { schema, name, .. } => {
                format!("Could not find the table '{schema}.{name}' in the schema cache")
            }
            UnknownColumn { table, column, is_written: true } => {
                format!("Could not find the '{column}' column of '{table}' in the schema cache")
            }
            UnknownColumn { table, column, .. } => {
                format!("column {table}.{column} does not exist")
            }
            UnknownType(name) => format!("type \"{name}\" does not exist"),
            NoRelation { origin, target, .. } => format!(
                "Could not find a relationship between '{origin}' and '{target}' in the schema \
                     cache"
            ),
            AmbiguousRelation { origin, target, .. } => format!(
                "Could not embed because more than one relationship was found for '{origin}' and \
                 '{target}'"
            ),
            NotEmbedded(name) => {
                format!("'{name}' is not an embedded resource in this request")
            }
            OrderNotToOne { target, .. } => {
                format!("A related order on '{target}' is not possible")
            }
            BadEmbedTest(name) => format!("Bad operator on the '{name}' embedded resource"),
            AggregatesOff => "Use of aggregate functions is not allowed".into(),
            UnknownFunction { schema, name, arguments, .. } => format!(
                "Could not find the function {schema}.{name}{} in the schema cache",
                argument_list(arguments, "", " without parameters")
            ),
            AmbiguousFunction(functions) => format!(
                "Could not choose the best candidate function between: {}",
                functions.join(", ")
            ),
            BadPayload(reason) => reason.clone(),
            BadName(name) => format!("\"{name}\" cannot be the name of a result"),
            BadCursor(reason) => (*reason).into(),
            TooMuch(what, most) => format!("a request may have at most {most} {what}"),
            Unsupported(what) => (*what).into(),
        }
    }
}

/// `(a, b)` after a word, or what to say when there is none.
pub(crate) fn argument_list(arguments: &[String], before: &str, none: &str) -> String {
    match arguments {
        [] => none.into(),
        some => format!("{before}({})", some.join(", ")),
    }
}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        use PlanError::*;
        let message = error.message();
        match error {
            UnknownTable { .. } => Error::sql(b"42P01", message),
            UnknownColumn { .. } => Error::sql(b"42703", message),
            UnknownType(_) => Error::sql(b"42704", message),
            UnknownFunction { .. } => Error::sql(b"42883", message),
            AmbiguousFunction(_) => Error::sql(b"42725", message),
            TooMuch(..) => Error::sql(b"54000", message),
            Unsupported(_) | AggregatesOff => Error::new(ErrorKind::NotSupported, message),
            AmbiguousRelation { candidates, .. } => {
                let hints: Vec<String> = candidates.into_iter().map(|c| c.hint).collect();
                Error::new(ErrorKind::ValidationError, message)
                    .with_hint(format!("write one of: {}", hints.join(", ")))
            }
            _ => Error::new(ErrorKind::ValidationError, message),
        }
    }
}
