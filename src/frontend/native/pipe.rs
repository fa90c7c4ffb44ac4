//! The two byte streams between the relay and the translator: the relay takes this for a client's
//! socket, the translator for a PostgreSQL server.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::core::Core;
use crate::net::Transport;
use crate::proto::frame::{HEADER, spare};

/// Bytes of replies that wait to be translated; beyond them the backend is not read. Bytes for
/// PostgreSQL beyond which the translator waits.
pub(super) const ROOM: usize = 64 << 10;

/// Longest reply that is kept to be translated; of a longer one only that it came.
const LONGEST: usize = 32 << 20;

/// The length in the header of a reply whose body was cut off; no real one counts less than itself.
const CUT: [u8; 4] = [0; 4];

/// Both streams.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// To the relay.
    pub(super) up: Bytes,
    /// From the relay.
    down: Bytes,
    /// Bytes of a reply that is too long, which are still to come.
    skip: usize,
    /// The last reply of the relay found no room.
    was_full: bool,
}

/// Bytes of which a beginning was taken already. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    data: Vec<u8>,
    at: usize,
}

impl Bytes {
    /// What was not taken.
    pub(super) fn rest(&self) -> &[u8] {
        &self.data[self.at..]
    }

    /// Whether everything was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.data.len()
    }

    /// To append to.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.data.capacity() == 0 {
            self.data = spare::window();
        }
        &mut self.data
    }

    /// Takes bytes from the front.
    pub(super) fn take(&mut self, bytes: usize) {
        self.at += bytes;
        if self.is_empty() {
            self.at = 0;
            // What is usual is kept while it is in use.
            match self.data.capacity() {
                0..=ROOM => self.data.clear(),
                _ => self.data = Vec::new(),
            }
        }
    }

    /// Gives the memory back, if there is nothing in it.
    pub(super) fn detach(&mut self) {
        if self.is_empty() && self.data.capacity() > 0 {
            spare::keep(std::mem::take(self).data);
        }
    }

    fn compact(&mut self) {
        if self.at > 0 && self.at * 2 >= self.data.len() {
            self.data.drain(..self.at);
            self.at = 0;
        }
    }
}

/// A reply of PostgreSQL.
pub(super) struct Reply<'a> {
    /// Its type.
    pub(super) tag: u8,
    /// Its body; nothing if it was too long to be kept.
    pub(super) body: Option<&'a [u8]>,
    /// How many bytes it takes in the pipe.
    pub(super) whole: usize,
}

impl Pipe {
    /// The first reply that is there whole.
    pub(super) fn front(&self) -> Option<Reply<'_>> {
        let rest = self.down.rest();
        let &[tag, a, b, c, d] = rest.first_chunk::<HEADER>()?;
        let length = [a, b, c, d];
        if length == CUT {
            return Some(Reply { tag, body: None, whole: HEADER });
        }
        let body = body_length(length);
        let bytes = rest.get(HEADER..HEADER + body)?;
        Some(Reply { tag, body: Some(bytes), whole: HEADER + body })
    }

    /// Forgets the first reply, which takes this many bytes.
    pub(super) fn pop(&mut self, whole: usize) {
        self.down.take(whole);
    }

    /// Whether the relay would find something that it has not seen: bytes for PostgreSQL, or room
    /// for a reply where there was none.
    pub(super) fn calls_relay(&self) -> bool {
        !self.up.is_empty() || (self.was_full && self.has_room())
    }

    /// Gives memory back that is not in use.
    pub(super) fn detach(&mut self) {
        self.up.detach();
        self.down.detach();
    }

    /// Takes bytes of the relay; returns how many, 0 = none now.
    fn write(&mut self, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        if self.skip > 0 {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
        }
        while !bytes.is_empty() && self.has_room() {
            self.down.compact();
            let missing = self.missing();
            let room = ROOM.saturating_sub(self.down.rest().len());
            let taken = bytes.len().min(missing.max(room));
            self.down.tail().extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.skip_long();
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
            }
        }
        all - bytes.len()
    }

    fn has_room(&self) -> bool {
        // An announcement of something too long ends what can be taken.
        self.missing() > 0 || self.down.rest().len() < ROOM
    }

    /// Bytes that the first reply lacks.
    fn missing(&self) -> usize {
        let rest = self.down.rest();
        match rest.first_chunk::<HEADER>() {
            None if rest.is_empty() => 0,
            None => HEADER - rest.len(),
            Some(&[_, a, b, c, d]) => match body_length([a, b, c, d]) {
                body if body > LONGEST => 0,
                body => (HEADER + body).saturating_sub(rest.len()),
            },
        }
    }

    /// Finds a reply that is too long, and cuts its body off.
    fn skip_long(&mut self) {
        let mut at = 0;
        let rest = self.down.rest();
        while let Some(&[_, a, b, c, d]) = rest.get(at..).and_then(|rest| rest.first_chunk()) {
            let body = body_length([a, b, c, d]);
            let there = rest.len() - at - HEADER;
            if body > LONGEST {
                self.skip = body - there.min(body);
                let keep = self.down.at + at + HEADER;
                self.down.data.drain(keep..keep + there.min(body));
                self.down.data[keep - 4..keep].copy_from_slice(&CUT);
                return;
            }
            if there < body {
                return;
            }
            at += HEADER + body;
        }
    }
}

fn body_length(length: [u8; 4]) -> usize {
    (u32::from_be_bytes(length) as usize).saturating_sub(4)
}

/// The relay's end.
pub(super) struct RelayEnd(pub(super) Arc<Core>);

impl std::fmt::Debug for RelayEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayEnd")
    }
}

impl Transport for RelayEnd {
    fn poll_read(&mut self, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let rest = state.pipe.up.rest();
        if rest.is_empty() {
            return Poll::Pending;
        }
        let taken = rest.len().min(into.remaining());
        into.put_slice(&rest[..taken]);
        // Nobody waits for room where there was some.
        let was_full = rest.len() >= ROOM;
        state.pipe.up.take(taken);
        state.progress |= was_full;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        let taken = state.pipe.write(bytes);
        state.pipe.was_full = taken == 0;
        match taken {
            0 => Poll::Pending,
            _ => {
                state.progress = true;
                Poll::Ready(Ok(taken))
            }
        }
    }

    /// The driver sees that itself, and ends the task.
    fn is_closed(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn tags(pipe: &mut Pipe) -> Vec<(u8, Option<usize>)> {
        std::iter::from_fn(|| {
            let found = pipe.front().map(|reply| (reply.tag, reply.body.map(<[u8]>::len)));
            let whole = pipe.front().map_or(0, |reply| reply.whole);
            pipe.pop(whole);
            found
        })
        .collect()
    }

    #[test]
    fn replies_are_found_however_they_come() {
        let stream = [message(b'T', &[1; 300]), message(b'D', b""), message(b'Z', b"I")].concat();
        for piece in 1..stream.len() + 1 {
            let mut pipe = Pipe::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(piece) {
                assert_eq!(pipe.write(chunk), chunk.len());
                found.extend(tags(&mut pipe));
            }
            assert_eq!(found, [(b'T', Some(300)), (b'D', Some(0)), (b'Z', Some(1))]);
            assert!(pipe.down.is_empty());
        }
    }

    #[test]
    fn there_is_room_for_so_much_or_for_one_reply() {
        let mut pipe = Pipe::default();
        let large = message(b'D', &[7; 300_000]);
        let mut written = 0;
        while written < large.len() {
            let n = pipe.write(&large[written..(written + 8192).min(large.len())]);
            assert!(n > 0);
            written += n;
        }
        assert_eq!(pipe.write(b"D"), 0, "the first one has to be taken");
        assert_eq!(tags(&mut pipe), [(b'D', Some(300_000))]);
        assert_eq!(pipe.write(b"D"), 1);
    }

    #[test]
    fn of_a_reply_that_is_too_long_only_the_header_stays() {
        let mut pipe = Pipe::default();
        let body = LONGEST + 1000;
        let mut header = vec![b'D'];
        header.extend_from_slice(&(body as u32 + 4).to_be_bytes());
        let before = message(b'1', b"");
        assert_eq!(pipe.write(&[&before[..], &header, &[0; 100]].concat()), 110);
        let mut left = body - 100;
        while left > 0 {
            let n = pipe.write(&vec![0; left.min(1 << 20)]);
            assert!(n > 0);
            left -= n;
        }
        assert!(pipe.down.rest().len() < 100);
        assert_eq!(pipe.write(&message(b'Z', b"I")), 6);
        assert_eq!(tags(&mut pipe), [(b'1', Some(0)), (b'D', None), (b'Z', Some(1))]);
    }
}
