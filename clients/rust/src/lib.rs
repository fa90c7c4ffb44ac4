//! RustyDB's native protocol, and a client for it.
//!
//! | Module | What it owns |
//! |---|---|
//! | [`protocol`] | messages, values and frames as bytes, without I/O; the server uses it too |
//! | [`tls`] | which certificates are accepted without a name, and what SCRAM is bound to |
//! | [`types`] | values of PostgreSQL and of Rust, each as the other |
//! | [`Config`] | the connection string |
//! | [`Row`], [`ResultSet`] | results, read where they lie |
//! | [`Connection`] | one connection, on which many requests may be under way |
//! | [`Client`] | a pool of them |
#![cfg_attr(feature = "client", doc = "")]
#![cfg_attr(feature = "client", doc = include_str!("../README.md"))]

pub mod protocol;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod config;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod link;
#[cfg(feature = "client")]
mod rows;
#[cfg(feature = "client")]
pub mod tls;
#[cfg(feature = "client")]
pub mod types;

#[cfg(feature = "client")]
pub use client::*;
#[cfg(feature = "client")]
pub use config::{AuthKind, Config, DEFAULT_PORT, Hidden, Host, MfaAnswer, TlsMode};
#[cfg(feature = "client")]
pub use error::{Error, Result};
#[cfg(feature = "client")]
pub use rows::{ColumnIndex, Columns, ResultSet, Row};
#[cfg(feature = "client")]
pub use types::{BulkRow, FromValue, ToValue, ValueRef};

/// Name of this library, as the server sees it.
#[cfg(feature = "client")]
const NAME: &str = "rustydb-rust";
