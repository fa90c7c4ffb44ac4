//! From what is asked of a database to one SQL statement: [`ask`] says what a request is,
//! `resolve` looks every name up in the [`Schema`], `sql` writes the statement.
//!
//! Nothing that a client wrote becomes SQL text, but for the names that it gives to results, which
//! are quoted: names are looked up and written as the catalog has them, values are parameters.
//! Nothing here knows where a request came from.

pub mod ask;
mod call;
mod condition;
pub mod cursor;
mod error;
mod nested;
mod read;
mod resolve;
mod rows;
mod sql;
mod write;

pub use call::{CallPlan, Returns, plan_call};
pub use error::{Candidate, PlanError};
pub use nested::NestedColumns;
pub use read::{ReadPlan, plan_read};
pub use resolve::Limits;
pub use sql::{Layout, Param, Statement};
pub use write::{WritePlan, plan_write};

use crate::query::schema::Schema;

/// Levels of embedding.
pub const MAX_DEPTH: usize = 12;

/// Embedded resources of one request.
pub const MAX_EMBEDS: usize = 100;

/// Conditions of one request, all levels together.
pub const MAX_CONDITIONS: usize = 1000;

/// Depth of `and`, `or` and `not` within each other.
pub const MAX_CONDITION_DEPTH: usize = 32;

/// Results that one level may ask for; PostgreSQL's own limit is 1664.
pub const MAX_ITEMS: usize = 1600;

/// Terms of an order.
pub const MAX_ORDER: usize = 32;

/// Steps of a path into JSON.
pub const MAX_PATH: usize = 32;

/// Values of one list.
pub const MAX_LIST: usize = 10_000;

/// Longest name of a result in bytes; PostgreSQL would cut a longer one.
pub const MAX_NAME: usize = 63;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

/// What a request is resolved against.
pub(crate) type Catalog<'s> = &'s Schema;
