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
    /// The body is needed in one piece or, when it is longer, its first bytes.
    Prefix(usize),
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
            Want::Prefix(most) if bytes.len() < HEADER + body.min(most) => {
                Step::More(HEADER + body.min(most))
            }
            Want::Prefix(most) if body <= most => Step::Whole { tag, body },
            _ => {
                self.remaining = body;
                Step::Begin { tag, body }
            }
        }
    }

    /// Moves past bytes of the body of a frame that has begun.
    pub fn took(&mut self, bytes: usize) {
        self.remaining = self.remaining.saturating_sub(bytes);
    }

    /// Whether the position is between two frames.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0
    }
}

/// Free bytes kept before the first one, so that a few can be put in front without moving the rest.
const HEADROOM: usize = 128;

/// Memory of windows that are empty, kept by each thread for its next ones: a request needs one for
/// as long as it takes, and the allocator is slower than this.
pub mod spare {
    use std::cell::RefCell;

    use super::HEADROOM;

    /// Room of a usual window, in bytes.
    const WINDOW: usize = (8 << 10) + HEADROOM;

    /// Pieces that a thread keeps.
    const MOST: usize = 16;

    /// Longer pieces are given back: they were for one large message.
    const LONGEST: usize = 16 << 10;

    thread_local! {
        static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    /// An empty piece with this capacity, if there is one.
    pub(super) fn take(capacity: usize) -> Option<Vec<u8>> {
        SPARE.with_borrow_mut(|spare| spare.pop_if(|piece| piece.capacity() >= capacity))
    }

    /// An empty piece with room for 8 KiB at least.
    pub fn window() -> Vec<u8> {
        take(WINDOW).unwrap_or_else(|| Vec::with_capacity(WINDOW))
    }

    /// Keeps a piece that nobody needs any more; one of an unusual size is given back.
    pub fn keep(mut piece: Vec<u8>) {
        if !(WINDOW..=LONGEST).contains(&piece.capacity()) {
            return;
        }
        piece.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(piece);
            }
        });
    }
}

/// A window of bytes between a reader and a writer, with the scanner's position in it.
///
/// `start ≤ scanned ≤ data.len()`: what lies before `scanned` may be written out, what lies behind
/// it has not been understood yet. Messages can be put in, taken out and given another name where
/// they lie ([`FrameBuf::splice`]). The memory is given back when the window is empty, so an idle
/// connection holds none.
#[derive(Debug, Default)]
pub struct FrameBuf {
    data: Vec<u8>,
    start: usize,
    scanned: usize,
}

impl FrameBuf {
    /// A window with bytes that are not understood yet.
    pub fn of(bytes: &[u8]) -> Self {
        let mut window = Self::default();
        if !bytes.is_empty() {
            window.tail(bytes.len()).extend_from_slice(bytes);
        }
        window
    }

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

    /// Replaces `remove` bytes, `at` bytes behind the understood ones, with others, by moving
    /// whichever side is free to move and shorter.
    pub fn splice(&mut self, at: usize, remove: usize, insert: &[u8]) {
        let from = self.scanned + at;
        let to = from + remove;
        let before = from - self.start;
        match insert.len().checked_sub(remove) {
            Some(growth) if growth <= self.start => {
                self.data.copy_within(self.start..from, self.start - growth);
                self.start -= growth;
                self.scanned -= growth;
                self.data[to - insert.len()..to].copy_from_slice(insert);
            }
            None if before <= self.data.len() - to => {
                let shrink = remove - insert.len();
                self.data.copy_within(self.start..from, self.start + shrink);
                self.start += shrink;
                self.scanned += shrink;
                self.data[to - insert.len()..to].copy_from_slice(insert);
            }
            _ => {
                self.data.splice(from..to, insert.iter().copied());
            }
        }
    }

    /// Writes over bytes that are not understood yet.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        let from = self.scanned + at;
        if let Some(place) = self.data.get_mut(from..from + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Puts understood bytes behind those that are understood.
    pub fn put_scanned(&mut self, bytes: &[u8]) {
        self.make_headroom();
        self.splice(0, 0, bytes);
        self.scanned += bytes.len();
    }

    fn make_headroom(&mut self) {
        if self.data.is_empty() {
            self.data.extend_from_slice(&[0; HEADROOM]);
            self.start = HEADROOM;
            self.scanned = HEADROOM;
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
        if self.is_empty() && self.data.capacity() > 0 {
            spare::keep(std::mem::take(self).data);
        }
    }

    /// The vector to append to, with room for at least `room` bytes. The leftover is moved to the
    /// front first, which is cheap: it is at most a header or one small wanted body.
    pub fn tail(&mut self, room: usize) -> &mut Vec<u8> {
        if self.data.is_empty() {
            let whole = room + HEADROOM;
            if self.data.capacity() == 0 {
                self.data = spare::take(whole).unwrap_or_default();
            }
            self.data.reserve_exact(whole);
            self.make_headroom();
        } else if self.data.capacity() - self.data.len() < room {
            self.data.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
            self.data.reserve(room);
        }
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

    /// Every replacement gives what a plain vector would give, wherever the free bytes are.
    #[test]
    fn bytes_are_replaced_where_they_lie() {
        for consumed in [0, 3, 20] {
            for (at, remove, insert) in
                [(0, 0, "abc"), (0, 5, ""), (2, 1, "a long name"), (3, 4, "x"), (7, 3, "yyy")]
            {
                let mut buf = FrameBuf::default();
                buf.tail(64).extend_from_slice(b"........................SENT0123456789");
                buf.mark_scanned(28);
                buf.consume(consumed);
                let sent = buf.scanned().to_vec();
                let mut expected = buf.unscanned().to_vec();
                expected.splice(at..at + remove, insert.bytes());
                buf.splice(at, remove, insert.as_bytes());
                assert_eq!(buf.scanned(), sent, "{consumed} {at} {remove} {insert}");
                assert_eq!(buf.unscanned(), expected, "{consumed} {at} {remove} {insert}");
                buf.put_scanned(&[b'e'; 200]);
                assert_eq!(buf.scanned(), [&sent, &[b'e'; 200][..]].concat());
                assert_eq!(buf.unscanned(), expected);
                buf.overwrite(1, b"OV");
                assert_eq!(&buf.unscanned()[..3], [expected[0], b'O', b'V']);
            }
        }
    }

    #[test]
    fn a_prefix_is_enough_of_a_long_message() {
        let rule = |_| (Want::Prefix(4), 1 << 20);
        let long = message(b'B', b"12345678");
        let mut scanner = Scanner::default();
        assert_eq!(scanner.step(&long[..8], rule), Step::More(9));
        assert_eq!(scanner.step(&long[..9], rule), Step::Begin { tag: b'B', body: 8 });
        assert_eq!(scanner.step(&long[5..9], rule), Step::Pass(4));
        let short = message(b'B', b"123");
        assert_eq!(Scanner::default().step(&short, rule), Step::Whole { tag: b'B', body: 3 });
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
