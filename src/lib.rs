//! RustyDB: one server in front of PostgreSQL. This page is the map; `ARCHITECTURE.md` says why.
//!
//! Modules in reading order; each imports only from those above it, which a test checks:
//!
//! | Module | What it owns |
//! |---|---|
//! | [`types`], [`error`] | names that must not be mixed up; the one error and its table |
//! | [`config`] | every key, plain data |
//! | [`telemetry`] | metrics, health, log |
//! | [`audit`] | who came in, what was changed |
//! | [`proto`] | bytes without I/O |
//! | [`query`] | SQL text |
//! | [`limits`] | how much at once |
//! | [`net`] | listeners, streams, drain |
//! | [`auth`] | credentials → identity |
//! | [`backend`] | one PostgreSQL connection |
//! | [`supervisor`] | the embedded PostgreSQL |
//! | [`pool`] | acquire, release |
//! | [`catalog`] | types and columns |
//! | [`executor`] | what happens to a request |
//! | [`session`] | one client; all that adapters know |
//! | [`frontend`] | the doors |
//! | [`server`] | puts it together |
//! | [`shell`] | `rustydb sql`, a client of the native protocol |
//! | [`cli`] | the command line |

pub mod audit;
pub mod auth;
pub mod backend;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod error;
pub mod executor;
pub mod frontend;
pub mod limits;
pub mod net;
pub mod pool;
pub mod proto;
pub mod query;
pub mod server;
pub mod session;
pub mod shell;
pub mod supervisor;
pub mod telemetry;
pub mod types;

#[cfg(test)]
mod tidy;
