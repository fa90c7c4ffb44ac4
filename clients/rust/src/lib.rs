//! RustyDB's native protocol, as the server and the client library share it.
//!
//! [`protocol`] is bytes without I/O: messages and values, their encoding, frames.

pub mod protocol;
