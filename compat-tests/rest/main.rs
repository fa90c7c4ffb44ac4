//! The HTTP API through a real server and a real PostgreSQL.

#[path = "../harness/mod.rs"]
mod harness;

mod api;
mod described;
mod schema;
mod transactions;
