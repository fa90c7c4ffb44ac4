//! The native protocol on a raw socket, against the built server and a real PostgreSQL.
// The rules for code that a socket can reach; a test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

mod bad_input;
mod batch;
mod client;
mod codecs;
mod edges;
mod known;
mod libraries;
mod life;
mod login;
mod pooled;
mod requests;
mod shell;
mod tls;
mod values;

use harness::shared::{guarded, open};
