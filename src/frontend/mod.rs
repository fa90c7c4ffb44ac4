//! The doors: each turns a protocol into calls of [`crate::session::Session`] and knows nothing
//! below it.

pub mod http;
pub mod native;
pub mod pgwire;
