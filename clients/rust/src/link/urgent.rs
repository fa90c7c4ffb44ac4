//! Frames outside of queues and windows: credit, cancels, echoes. The server allows a hundred of
//! them in a second; what is beyond that waits, and windows grow so that less is needed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ById;
use crate::protocol::Message;

/// Urgent frames that may go out at once.
const BURST: u32 = 20;

/// Time after which one more may go out. Together they stay below a hundred in every second.
const EVERY: Duration = Duration::from_millis(13);

/// A window grows to this size, in bytes, if credit has to wait for urgent frames.
const LARGEST_WINDOW: u32 = 8 << 20;

/// Echoes that wait; the server does not send more than one heartbeat at a time.
const MOST_ECHOES: usize = 16;

/// What waits to be sent urgently.
pub(super) struct Urgent {
    tokens: u32,
    refilled: Instant,
    /// Something had to wait.
    is_late: bool,
    replies: VecDeque<(u64, Message)>,
    cancels: VecDeque<u64>,
    stream_window: u32,
    connection_window: u32,
    /// Bytes received on the connection that have not been credited.
    received: u32,
    streams: ById<Stream>,
    /// Streams with credit to be returned.
    due: VecDeque<u64>,
}

struct Stream {
    window: u32,
    /// Bytes used that have not been credited.
    used: u32,
    is_due: bool,
}

impl Urgent {
    pub(super) fn new(stream_window: u32, connection_window: u32) -> Self {
        Self {
            tokens: BURST,
            refilled: Instant::now(),
            is_late: false,
            replies: VecDeque::new(),
            cancels: VecDeque::new(),
            stream_window,
            connection_window,
            received: 0,
            streams: ById::default(),
            due: VecDeque::new(),
        }
    }

    /// Answers a frame of the server that has this id.
    pub(super) fn reply(&mut self, id: u64, message: Message) {
        if self.replies.len() < MOST_ECHOES {
            self.replies.push_back((id, message));
        }
    }

    pub(super) fn cancel(&mut self, id: u64) {
        // There are no more of them than requests under way.
        if !self.cancels.contains(&id) {
            self.cancels.push_back(id);
        }
    }

    /// A stream of this id begins.
    pub(super) fn open(&mut self, id: u64) {
        let stream = Stream { window: self.stream_window, used: 0, is_due: false };
        self.streams.insert(id, stream);
    }

    /// A request has ended.
    pub(super) fn end(&mut self, id: u64) {
        self.streams.remove(&id);
        if !self.cancels.is_empty() {
            self.cancels.retain(|other| *other != id);
        }
    }

    /// Counts what has come; it is in memory, and streams have windows of their own.
    pub(super) fn received(&mut self, payload: u32) {
        self.received += payload;
    }

    /// Counts what has been used of a stream; true = credit is to be returned.
    pub(super) fn consumed(&mut self, id: u64, payload: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        stream.used += payload;
        if stream.is_due || stream.used < stream.window / 2 {
            return false;
        }
        stream.is_due = true;
        self.due.push_back(id);
        true
    }

    /// The next frame that may go out, and its id.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, Message)> {
        if !self.is_waiting() {
            self.is_late = false;
            return None;
        }
        self.refill(now);
        if self.tokens == 0 {
            self.is_late = true;
            return None;
        }
        self.tokens -= 1;
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        if let Some(target) = self.cancels.pop_front() {
            return Some((0, Message::Cancel { target }));
        }
        if self.received >= self.connection_window / 2 {
            let credit = std::mem::take(&mut self.received);
            return Some((0, Message::WindowUpdate { stream: 0, credit }));
        }
        while let Some(id) = self.due.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_due = false;
            let mut credit = std::mem::take(&mut stream.used);
            let most = LARGEST_WINDOW.min(self.connection_window);
            if self.is_late && stream.window <= most / 2 {
                credit += stream.window;
                stream.window *= 2;
            }
            return Some((0, Message::WindowUpdate { stream: id, credit }));
        }
        self.tokens += 1;
        None
    }

    /// When more may go out, if something waits for that.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.is_late.then(|| self.refilled + EVERY)
    }

    fn is_waiting(&self) -> bool {
        !self.replies.is_empty()
            || !self.cancels.is_empty()
            || !self.due.is_empty()
            || self.received >= self.connection_window / 2
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let more = passed.as_micros() / EVERY.as_micros();
        if more == 0 {
            return;
        }
        let more = u32::try_from(more).unwrap_or(BURST);
        self.tokens = self.tokens.saturating_add(more).min(BURST);
        self.refilled = match self.tokens {
            BURST => now,
            _ => self.refilled + EVERY * more,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(frame: Option<(u64, Message)>) -> Option<(u64, u32)> {
        match frame {
            Some((0, Message::WindowUpdate { stream, credit })) => Some((stream, credit)),
            _ => None,
        }
    }

    #[test]
    fn credit_is_returned_at_half_of_a_window() {
        let now = Instant::now();
        let mut urgent = Urgent::new(1000, 10_000);
        urgent.open(5);
        assert!(!urgent.consumed(5, 499));
        assert!(!urgent.consumed(6, 5000), "there is no such stream");
        assert!(urgent.consumed(5, 2));
        urgent.received(4999);
        assert_eq!(credit(urgent.next(now)), Some((5, 501)));
        assert!(urgent.next(now).is_none());
        urgent.received(1);
        assert_eq!(credit(urgent.next(now)), Some((0, 5000)));
        assert!(urgent.consumed(5, 900));
        urgent.end(5);
        assert!(urgent.next(now).is_none());
    }

    #[test]
    fn never_a_hundred_in_a_second() {
        let start = Instant::now();
        let mut urgent = Urgent::new(1000, 10_000);
        let mut sent = Vec::new();
        for millisecond in 0..3000 {
            let now = start + Duration::from_millis(millisecond);
            for id in 0..3 {
                urgent.cancel(millisecond * 3 + id);
            }
            while urgent.next(now).is_some() {
                sent.push(millisecond);
            }
        }
        for first in 0..2000 {
            let window = first..first + 1000;
            let count = sent.iter().filter(|at| window.contains(*at)).count();
            assert!((70..100).contains(&count), "{count} from {first}");
        }
        assert!(urgent.wake_at().is_some());
    }

    #[test]
    fn windows_grow_when_credit_comes_late_and_stop_growing() {
        let mut now = Instant::now();
        let mut urgent = Urgent::new(65_536, 16 << 20);
        urgent.open(1);
        let mut granted = 0u64;
        let mut used = 0u64;
        for _ in 0..10_000 {
            // As fast as the window allows.
            let window = 65_536 + granted - used;
            used += window;
            urgent.consumed(1, u32::try_from(window).unwrap());
            while let Some((_, credit)) = credit(urgent.next(now)) {
                granted += u64::from(credit);
            }
            now += Duration::from_millis(1);
        }
        assert_eq!(urgent.streams[&1].window, LARGEST_WINDOW);
        assert_eq!(65_536 + granted - used + u64::from(urgent.streams[&1].used), 8 << 20);
    }
}
