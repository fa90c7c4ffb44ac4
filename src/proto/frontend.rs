//! Messages of a client: their types, and the limits PostgreSQL puts on their length.
//!
//! What RustyDB itself sends to PostgreSQL is encoded by `postgres-protocol`, which is re-exported
//! here so that there is one place to look.

pub use postgres_protocol::message::frontend::*;

use super::frame::{HEADER, Want};

/// Longest message, PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT` (MaxAllocSize − 1).
pub const LARGE_MESSAGE: usize = 0x3fff_ffff - 4;

/// Longest message of the kinds that are always short, `PQ_SMALL_MESSAGE_LIMIT`.
pub const SMALL_MESSAGE: usize = 10_000 - 4;

/// Types of the messages that a client sends after the log-in.
pub mod tag {
    #![allow(missing_docs)]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

fn put(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(tag);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Writes Query.
pub fn put_query(out: &mut Vec<u8>, sql: &[u8]) {
    put(out, tag::QUERY, &[sql, b"\0"]);
}

/// Writes Parse; `body` is what follows the name.
pub fn put_parse(out: &mut Vec<u8>, name: &[u8], body: &[u8]) {
    put(out, tag::PARSE, &[name, b"\0", body]);
}

/// Writes Close of a statement.
pub fn put_close(out: &mut Vec<u8>, name: &[u8]) {
    put(out, tag::CLOSE, &[b"S", name, b"\0"]);
}

/// Writes Describe of a statement.
pub fn put_describe(out: &mut Vec<u8>, name: &[u8]) {
    put(out, tag::DESCRIBE, &[b"S", name, b"\0"]);
}

/// Writes Flush.
pub fn put_flush(out: &mut Vec<u8>) {
    put(out, tag::FLUSH, &[]);
}

/// Writes Sync.
pub fn put_sync(out: &mut Vec<u8>) {
    put(out, tag::SYNC, &[]);
}

/// Whether a client may send this type in a session.
pub fn is_known(tag: u8) -> bool {
    matches!(
        tag,
        b'B' | b'C' | b'd' | b'c' | b'f' | b'D' | b'E' | b'H' | b'F' | b'P' | b'Q' | b'S' | b'X'
    )
}

/// The scanner's rule for a session: headers only, lengths as `SocketBackend()` in PostgreSQL's
/// `postgres.c` limits them.
pub fn session_rule(tag: u8) -> (Want, usize) {
    let longest = match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' | b'f' => LARGE_MESSAGE,
        _ => SMALL_MESSAGE,
    };
    (Want::Header, longest)
}

/// The text of a Query or Parse at the beginning of a batch, as far as it is there.
pub fn sql_of(batch: &[u8]) -> &[u8] {
    match (batch.first(), batch.get(HEADER..)) {
        (Some(&tag::QUERY), Some(body)) => body,
        (Some(&tag::PARSE), Some(body)) => {
            let name = body.iter().position(|b| *b == 0).map_or(body.len(), |at| at + 1);
            &body[name..]
        }
        _ => &[],
    }
}
