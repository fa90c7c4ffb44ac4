//! The frame scanner: finds message boundaries in a stream of bytes without copying them.
//!
//! A PostgreSQL message is one tag byte, a 32-bit length that counts itself, and a body
//! (<https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>).
//! The relay looks at headers, asks for the few bodies it needs, and lets everything else pass in
//! whatever pieces it arrives.

/// Bytes of tag and length.
pub const HEADER: usize = 5;

/// What the first bytes of the unread stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This many bytes belong to a frame that was announced before.
    Pass(usize),
    /// A frame begins, its body is not wanted: the header may pass, the body follows as `Pass`.
    Begin {
        /// Message type.
        tag: u8,
        /// Length of the body.
        body: usize,
    },
    /// A wanted frame is there whole: `HEADER + body` bytes.
    Whole {
        /// Message type.
        tag: u8,
        /// Length of the body.
        body: usize,
    },
    /// Nothing can be said until this many bytes are there, counted from the same place.
    More(usize),
    /// The length is impossible for this tag.
    Invalid {
        /// Message type.
        tag: u8,
        /// The length field as it came.
        length: u32,
    },
}

/// How the scanner treats a message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Only the header is of interest.
    Header,
    /// The body is needed in one piece, unless it is longer than this.
    Body(usize),
}

/// Position in a stream of frames.
#[derive(Debug, Default)]
pub struct Scanner {
    remaining: usize,
}

impl Scanner {
    /// Says what `bytes`, the stream from the current position on, begins with, and moves past
    /// what it says may pass. `rule` gives for a tag what is wanted and the longest valid body.
    pub fn step(&mut self, bytes: &[u8], rule: impl FnOnce(u8) -> (Want, usize)) -> Step {
        if self.remaining > 0 {
            if bytes.is_empty() {
                return Step::More(1);
            }
            let pass = self.remaining.min(bytes.len());
            self.remaining -= pass;
            return Step::Pass(pass);
        }
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER>() else {
            return Step::More(HEADER);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let (want, longest) = rule(tag);
        let body = match (length as usize).checked_sub(4) {
            Some(body) if body <= longest => body,
            _ => return Step::Invalid { tag, length },
        };
        match want {
            Want::Body(most) if body <= most => {
                if bytes.len() < HEADER + body {
                    return Step::More(HEADER + body);
                }
                Step::Whole { tag, body }
            }
            _ => {
                self.remaining = body;
                Step::Begin { tag, body }
            }
        }
    }

    /// Whether the position is between two frames.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0
    }
}

/// A window of bytes between a reader and a writer, with the scanner's position in it.
///
/// `start ≤ scanned ≤ data.len()`: what lies before `scanned` may be written out, what lies behind
/// it has not been understood yet. The memory is given back when the window is empty, so an idle
/// connection holds none.
#[derive(Debug, Default)]
pub struct FrameBuf {
    data: Vec<u8>,
    start: usize,
    scanned: usize,
}

impl FrameBuf {
    /// Bytes that may be written out.
    pub fn scanned(&self) -> &[u8] {
        &self.data[self.start..self.scanned]
    }

    /// Bytes that are not understood yet.
    pub fn unscanned(&self) -> &[u8] {
        &self.data[self.scanned..]
    }

    /// Marks `n` more bytes as understood.
    pub fn mark_scanned(&mut self, n: usize) {
        self.scanned = (self.scanned + n).min(self.data.len());
    }

    /// Forgets the first `n` understood bytes.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.scanned);
        if self.start == self.data.len() {
            self.data.clear();
            self.start = 0;
            self.scanned = 0;
        }
    }

    /// Forgets every understood byte.
    pub fn consume_scanned(&mut self) {
        self.consume(self.scanned - self.start);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.data.len()
    }

    /// Gives the memory back; the window must be empty.
    pub fn detach(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// The vector to append to, with room for at least `room` bytes. The leftover is moved to the
    /// front first, which is cheap: it is at most a header or one small wanted body.
    pub fn tail(&mut self, room: usize) -> &mut Vec<u8> {
        if self.data.capacity() - self.data.len() < room && self.start > 0 {
            self.data.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.data.reserve(room);
        &mut self.data
    }

    /// Length of the unread stream that the memory can hold without moving.
    pub fn capacity(&self) -> usize {
        self.data.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(tag: u8) -> (Want, usize) {
        match tag {
            b'Z' => (Want::Body(5), 1),
            b'C' => (Want::Body(64), usize::MAX),
            _ => (Want::Header, 1 << 30),
        }
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Scans a stream that arrives in pieces; returns the tags and the bytes that passed.
    fn scan(stream: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut tags, mut passed) = (Vec::new(), Vec::new());
        let (mut scanner, mut buf) = (Scanner::default(), FrameBuf::default());
        for chunk in stream.chunks(piece) {
            buf.tail(chunk.len()).extend_from_slice(chunk);
            loop {
                match scanner.step(buf.unscanned(), rule) {
                    Step::Pass(n) => buf.mark_scanned(n),
                    Step::Begin { tag, .. } => {
                        tags.push(tag);
                        buf.mark_scanned(HEADER);
                    }
                    Step::Whole { tag, body } => {
                        tags.push(tag);
                        buf.mark_scanned(HEADER + body);
                    }
                    Step::More(_) => break,
                    Step::Invalid { .. } => return (tags, passed),
                }
            }
            passed.extend_from_slice(buf.scanned());
            buf.consume_scanned();
        }
        (tags, passed)
    }

    #[test]
    fn frames_are_found_at_every_split() {
        let mut stream = message(b'T', b"columns");
        stream.extend(message(b'D', &[7; 300]));
        stream.extend(message(b'C', b"SELECT 1\0"));
        stream.extend(message(b'D', b""));
        stream.extend(message(b'Z', b"I"));
        for piece in 1..stream.len() + 1 {
            let (tags, passed) = scan(&stream, piece);
            assert_eq!(tags, b"TDCDZ", "piece {piece}");
            assert_eq!(passed, stream, "piece {piece}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused_before_anything_is_kept() {
        for (tag, length) in [(b'D', 0u32), (b'D', 3), (b'D', u32::MAX), (b'Z', 6), (b'D', 1 << 31)]
        {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(
                Scanner::default().step(&bytes, rule),
                Step::Invalid { tag, length },
                "{length}"
            );
        }
    }

    #[test]
    fn an_empty_window_gives_its_memory_back() {
        let mut buf = FrameBuf::default();
        buf.tail(8192).extend_from_slice(b"abc");
        buf.mark_scanned(2);
        buf.consume_scanned();
        buf.detach();
        assert_eq!(buf.unscanned(), b"c");
        buf.mark_scanned(1);
        buf.consume_scanned();
        assert!(buf.is_empty());
        buf.detach();
        assert_eq!(buf.capacity(), 0);
    }
}
