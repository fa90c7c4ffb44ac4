//! Frames on their way to the client: sealed, counted against the windows, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::flow::SendWindow;
use super::handshake::known;
use super::pipe::Bytes;
use crate::proto::native::frame::{self, flags};
use crate::proto::native::{Agreed, Message, Notification, Violation, Wire, Writer};
use crate::telemetry::Metrics;
use crate::types::Compression;

/// Bytes that wait for the socket; beyond them nothing new is made.
const MOST_BYTES: usize = 4 << 20;

/// Frames that wait for credit; beyond them the oldest notification goes.
const MOST_FRAMES: usize = 1000;

/// Small frames are collected up to this before they are written while more are being made.
pub(super) const COALESCE: usize = 16 << 10;

/// A frame that waits for credit.
struct Held {
    bytes: Vec<u8>,
    payload: u32,
    /// A notification may be dropped, a reply may not.
    is_event: bool,
}

/// The way out of one connection.
pub(super) struct Outbox {
    /// For the socket.
    pub(super) ready: Bytes,
    held: VecDeque<Held>,
    window: SendWindow,
    /// Windows of the streams that there are.
    streams: HashMap<u64, SendWindow>,
    stream_window: u32,
    agreed: Agreed,
    dropped: u64,
    /// The time, as the driver last looked: near enough for limits of seconds.
    pub(super) now: Instant,
    /// When the client last took bytes, or none waited for it.
    pub(super) progress_at: Instant,
    /// When the client last granted credit, or nothing waited for that.
    pub(super) credit_at: Instant,
    metrics: Arc<Metrics>,
}

impl Outbox {
    pub(super) fn new(
        agreed: Agreed,
        connection_window: u32,
        stream_window: u32,
        metrics: Arc<Metrics>,
    ) -> Self {
        let now = Instant::now();
        Self {
            ready: Bytes::default(),
            held: VecDeque::new(),
            window: SendWindow::new(connection_window),
            streams: HashMap::new(),
            stream_window,
            agreed,
            dropped: 0,
            now,
            progress_at: now,
            credit_at: now,
            metrics,
        }
    }

    /// What was agreed on for frames.
    pub(super) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// Whether frames wait for credit.
    pub(super) fn waits_for_credit(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes that are held for the client.
    pub(super) fn bytes(&self) -> usize {
        let held = self.held.iter().map(|held| held.bytes.len());
        self.ready.rest().len() + held.sum::<usize>()
    }

    /// Whether the next frame of a reply may be sent; `stream` = the id of its stream, or 0.
    pub(super) fn has_room(&self, stream: u64) -> bool {
        let stream_is_open = self.streams.get(&stream).is_none_or(SendWindow::is_open);
        self.held.is_empty()
            && self.ready.rest().len() < MOST_BYTES
            && self.window.is_open()
            && stream_is_open
    }

    /// Whether more bytes wait for the socket than are made at once.
    pub(super) fn is_full(&self) -> bool {
        self.ready.rest().len() >= MOST_BYTES
    }

    /// From now on there is a stream with this id.
    pub(super) fn open_stream(&mut self, id: u64) {
        self.streams.insert(id, SendWindow::new(self.stream_window));
    }

    /// There is no stream with this id any more.
    pub(super) fn close_stream(&mut self, id: u64) {
        // A map hashes even to find that there is nothing in it.
        if self.streams.is_empty() {
            return;
        }
        if self.streams.remove(&id).is_some() && self.streams.is_empty() {
            self.streams = HashMap::new();
        }
    }

    /// The client grants credit; false = more than a window can be. A stream that has ended does
    /// not need it any more.
    pub(super) fn grant(&mut self, stream: u64, credit: u32) -> bool {
        let window = match stream {
            0 => Some(&mut self.window),
            id => self.streams.get_mut(&id),
        };
        let fits = window.is_none_or(|window| window.grant(credit));
        self.credit_at = self.now;
        self.release();
        fits
    }

    /// Sends a frame of a reply, for which there is room; `write` writes the body.
    ///
    /// # Errors
    /// The body is longer than agreed; nothing was sent.
    pub(super) fn reply(
        &mut self,
        flags: u16,
        id: u64,
        stream: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Violation> {
        let payload = self.seal(flags | flags::RESPONSE, id, write)?;
        self.window.spend(payload);
        if let Some(window) = self.streams.get_mut(&stream) {
            window.spend(payload);
        }
        Ok(())
    }

    /// Sends a control frame at once, outside of the windows.
    pub(super) fn urgent(&mut self, flags: u16, id: u64, message: &Message) {
        let write = |out: &mut Vec<u8>| message.encode(&mut Writer::new(out));
        // Control messages are shorter than anything that can be agreed.
        let _ = self.seal(flags | flags::URGENT, id, write);
    }

    /// Sends a whole message as soon as there is credit: a refusal, which must not get lost, or an
    /// event, which gives way to newer ones.
    pub(super) fn later(&mut self, id: u64, message: &Message, is_event: bool) {
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        message.encode(&mut Writer::new(&mut bytes));
        self.count(&bytes[start + frame::HEADER..]);
        let sealed = self
            .agreed
            .encoding
            .transcode(&mut bytes, start + frame::HEADER)
            .and_then(|()| frame::finish(&mut bytes, start, flags::RESPONSE, id, &self.agreed));
        let Ok(payload) = sealed else { return };
        if is_event && self.held.len() >= MOST_FRAMES {
            self.drop_oldest_event();
        }
        if self.held.is_empty() {
            self.credit_at = self.now;
        }
        self.held.push_back(Held { bytes, payload, is_event });
        self.release();
    }

    fn drop_oldest_event(&mut self) {
        if let Some(oldest) = self.held.iter().position(|held| held.is_event) {
            self.held.remove(oldest);
            self.dropped += 1;
        }
    }

    /// Moves what has credit now to the socket.
    fn release(&mut self) {
        while self.window.is_open()
            && let Some(held) = self.held.pop_front()
        {
            self.window.spend(held.payload);
            self.metrics.native.sent.wire.inc_by(held.bytes.len() as u64);
            self.ready.tail().extend_from_slice(&held.bytes);
        }
        if self.held.is_empty() {
            self.held = VecDeque::new();
        }
        if self.dropped > 0 && self.held.is_empty() {
            let detail = std::mem::take(&mut self.dropped).to_string();
            let event = Notification::SessionEvent { event: "events_dropped".into(), detail };
            self.later(0, &Message::Notification(event), true);
        }
    }

    fn seal(
        &mut self,
        flags: u16,
        id: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u32, Violation> {
        if self.ready.is_empty() {
            self.progress_at = self.now;
        }
        let out = self.ready.tail();
        let start = frame::begin(out);
        write(out);
        let body = start + frame::HEADER;
        let size = out.len() - body;
        let sent = &self.metrics.native.sent;
        sent.message(out.get(body).copied().unwrap_or(u8::MAX));
        sent.raw.inc_by(size as u64);
        if let Err(refused) = self.agreed.encoding.transcode(out, body) {
            out.truncate(start);
            return Err(refused);
        }
        let size = out.len() - body;
        let compression = known(self.agreed.compression);
        let compresses = compression != Compression::None && size >= self.agreed.threshold;
        let begun = compresses.then(Instant::now);
        let payload = frame::finish(out, start, flags, id, &self.agreed)?;
        if let Some(begun) = begun {
            let duration = self.metrics.native.duration(compression);
            duration.observe(begun.elapsed().as_secs_f64());
        }
        sent.wire.inc_by((out.len() - start) as u64);
        Ok(payload)
    }

    fn count(&self, body: &[u8]) {
        let sent = &self.metrics.native.sent;
        sent.message(body.first().copied().unwrap_or(u8::MAX));
        sent.raw.inc_by(body.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(window: u32) -> Outbox {
        Outbox::new(Agreed::default(), window, 65_536, Arc::new(Metrics::new()))
    }

    fn event(n: u32) -> Message {
        Message::Close { reason: n.to_string() }
    }

    #[test]
    fn what_has_no_credit_waits_and_events_give_way() {
        let mut out = outbox(1);
        out.later(1, &event(0), false);
        assert_eq!((out.held.len(), out.has_room(0)), (0, false));
        out.later(7, &Message::Pong, false);
        for n in 0..1500 {
            out.later(0, &event(n), true);
        }
        assert_eq!(out.held.len(), MOST_FRAMES);
        let sent = out.ready.rest().len();
        assert!(out.grant(0, 1 << 20));
        assert!(out.held.is_empty());
        let released = out.ready.rest()[sent..].to_vec();
        // The refusal is still the first, and the last says how much is missing.
        assert_eq!(released[6], 7);
        let text = String::from_utf8_lossy(&released);
        assert!(text.contains("events_dropped\u{3}501"), "{text}");
    }

    #[test]
    fn a_stream_has_a_window_of_its_own() {
        let mut out = outbox(1 << 20);
        out.open_stream(5);
        out.reply(0, 5, 5, |body| body.resize(body.len() + 70_000, 9)).unwrap();
        assert_eq!((out.has_room(5), out.has_room(0)), (false, true));
        assert!(out.grant(5, 70_000));
        assert!(out.has_room(5));
        assert!(out.grant(6, 1), "a stream that has ended");
        assert!(!out.grant(5, u32::MAX));
        assert!(!out.grant(0, i32::MAX as u32));
    }
}
