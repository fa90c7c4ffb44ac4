//! What a program calls.
//!
//! | Module | What it owns |
//! |---|---|
//! | [`connection`] | one connection: queries, several at a time |
//! | [`replies`] | from replies to results |
//! | [`statement`] | statements by name, wherever they are needed |
//! | [`transaction`] | transactions and savepoints |
//! | [`stream`] | results that are too large for memory; large objects |
//! | [`bulk`], [`batch`] | many rows, many statements |
//! | [`listen`] | notifications and subscriptions |
//! | [`pool`] | connections that are kept, and requests that are tried again |

mod batch;
mod bulk;
mod connection;
mod listen;
mod pool;
mod replies;
mod statement;
mod stream;
mod transaction;

pub use crate::link::Session;
pub use crate::protocol::{Column, Isolation, Notification, OnConflict, Purity, TxStatus, Value};
pub use batch::Batch;
pub use bulk::BulkInsert;
pub use connection::{Canceller, Connection, Options, Params};
pub use listen::{Event, Listener, Notified, Subscription};
pub use pool::{Client, IntoConfig, PooledConnection};
pub use replies::Results;
pub use statement::{Statement, ToStatement};
pub use stream::{ObjectStream, RowStream};
pub use transaction::{Transaction, TransactionOptions};
