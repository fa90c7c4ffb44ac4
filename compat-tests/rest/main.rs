//! The HTTP API through a real server and a real PostgreSQL.
// The rules for code that a socket can reach; a test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod anonymous;
mod api;
mod auth;
mod described;
mod docs;
mod formats;
mod info;
#[allow(dead_code, reason = "the drivers' own suite uses all of it")]
#[path = "../drivers/installed.rs"]
mod installed;
mod jobs;
mod operations;
mod pages;
mod pipeline;
mod pools;
mod postgrest;
mod prepared;
mod procedures;
mod queries;
mod rows;
mod schema;
mod sessions;
mod tools;
mod transactions;
mod walk;
