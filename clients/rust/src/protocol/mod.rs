//! The native protocol without I/O: what a message is, how it becomes bytes, what a frame is.
//!
//! | Module | What it owns |
//! |---|---|
//! | [`wire`] | the encoding of one value of any type, with limits on what comes from outside |
//! | [`messages`] | every message, defined once; [`session`]: what opens and steers a session |
//! | [`value`] | a value of PostgreSQL |
//! | [`frame`] | header, checksum, where a message ends |
//! | [`codec`] | a message as the body of a frame: in that encoding, or in JSON or MessagePack |
//! | [`compression`] | bodies made smaller and back, bounded |
//!
//! The encoding is that of the crate bincode 2 with `config::standard()`; the tests compare them.

#[macro_use]
mod define;

pub mod codec;
pub mod compression;
pub mod frame;
pub mod fuzz;
pub mod messages;
pub mod session;
pub mod value;
pub mod wire;

#[cfg(test)]
mod codec_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
pub(crate) mod vector_tests;

pub use codec::{Codec, Encoding};
pub use frame::{Agreed, Header};
pub use messages::*;
pub use session::*;
pub use value::*;
pub use wire::{Fault, Reader, Violation, Wire, Writer, decode, encode};

/// What a client sends first, before any frame: a name and the format of the preface.
pub const PREFACE: [u8; 8] = *b"RUSTYDB\x01";

/// The version spoken here.
pub const VERSION: Version = Version { major: 1, minor: 0 };

/// Longest text of a statement that the server accepts by default, in bytes.
pub const MAX_SQL_LENGTH: u32 = 1 << 20;

/// Smallest value of a window and of the longest message that may be negotiated, in bytes.
pub const SMALLEST_WINDOW: u32 = 65_536;
