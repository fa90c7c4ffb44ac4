//! What becomes of a client's frame: it is answered at once, joins the queue, or is refused.

use std::time::{Duration, Instant};

use super::core::{BulkParts, Core, Request, State, Stored, status};
use super::errors;
use super::flow::ReceiveWindow;
use super::queue::{Level, Order};
use crate::config::{Live, QueueFullPolicy};
use crate::proto::native::frame::{Header, SERVER_ID, flags};
use crate::proto::native::{Bulk, ErrorBody, Message, Streaming, Violation, capabilities, decode};
use crate::telemetry::metrics::ProtocolMetrics;
use crate::types::Protocol;

/// Requests refused one after the other before the connection is given up.
const MOST_REFUSED: u32 = 1000;

/// Urgent frames in one second.
const MOST_URGENT: u32 = 100;

/// Half of the smallest window that may be agreed on: who returns so much at once may do it as
/// often as it is used.
const MUCH_CREDIT: u32 = 32 << 10;

/// Bulk inserts that may wait at once: each holds up to a stream's window.
const MOST_BULKS: usize = 8;

/// Fatal for the connection.
type Fatal = Box<ErrorBody>;

// Numbers of the variants of `Message` that a client may send.
const HANDSHAKE: u8 = 0;
const AUTH: u8 = 1;
const QUERY: u8 = 3;
const PREPARED: u8 = 5;
const BULK: u8 = 7;
const STREAMING: u8 = 8;
const HEARTBEAT: u8 = 9;
const NOTIFICATION: u8 = 10;
const BEGIN: u8 = 11;
const COMMIT: u8 = 13;
const ROLLBACK: u8 = 14;
const SAVEPOINT: u8 = 15;
const PING: u8 = 16;
const PONG: u8 = 17;
const CANCEL: u8 = 20;
const WINDOW_UPDATE: u8 = 21;
const SESSION: u8 = 22;
const SUBSCRIBE: u8 = 23;
const UNSUBSCRIBE: u8 = 25;
const BATCH: u8 = 26;
const SIMPLE: u8 = 27;
const EXTENSION: u8 = 29;
const CLOSE: u8 = 30;

/// Takes the frames of one client.
pub(super) struct Intake {
    config: Live,
    capabilities: u32,
    stream_window: u32,
    refused: u32,
    /// The second that is counted, and the urgent frames in it.
    urgent: (Instant, u32),
}

impl Intake {
    pub(super) fn new(config: Live, capabilities: u32, stream_window: u32) -> Self {
        Self { config, capabilities, stream_window, refused: 0, urgent: (Instant::now(), 0) }
    }

    /// Handles one frame: its payload as it was sent, and its body.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn frame(
        &mut self,
        core: &Core,
        state: &mut State,
        header: &Header,
        sent: &[u8],
        body: &[u8],
    ) -> Result<(), Fatal> {
        let now = state.out.now;
        let native = &core.metrics.native.received;
        let Some(&variant) = body.first() else {
            return Err(errors::violation("a frame has no message"));
        };
        native.message(variant);
        native.raw.inc_by(body.len() as u64);
        let is_urgent = header.has(flags::URGENT);
        let payload = if is_urgent { 0 } else { header.length };
        if is_urgent && variant != WINDOW_UPDATE {
            self.count_urgent(now)?;
        } else if !is_urgent && !state.window.receive(payload) {
            return Err(flow_error("a frame was sent without credit"));
        }
        if state.is_closing && variant != WINDOW_UPDATE {
            return Err(errors::violation("a message came after Close"));
        }
        match variant {
            HEARTBEAT | PING | PONG | CANCEL | WINDOW_UPDATE | CLOSE => {
                state.free(payload);
                self.control(core, state, (header, body), now)
            }
            BULK if body.get(1) != Some(&0) => {
                self.bulk_part(core, state, header, (sent, body), payload)
            }
            STREAMING if !matches!(body.get(1), Some(0 | 5)) => {
                state.free(payload);
                self.end_stream(core, state, header.message_id, body)
            }
            HANDSHAKE | AUTH => Err(errors::violation("the session is open already")),
            QUERY | PREPARED | BULK | STREAMING | NOTIFICATION | BEGIN | COMMIT | ROLLBACK
            | SAVEPOINT | SESSION | SUBSCRIBE | UNSUBSCRIBE | BATCH | SIMPLE | EXTENSION => {
                self.request(core, state, header, (sent, body), now)
            }
            _ => {
                // Says what is wrong with it, if it is no message at all.
                decode::<Message>(body).map_err(errors::of_violation)?;
                Err(errors::violation("a message that only a server sends"))
            }
        }
    }

    fn count_urgent(&mut self, now: Instant) -> Result<(), Fatal> {
        let (second, count) = &mut self.urgent;
        if now.saturating_duration_since(*second) >= Duration::from_secs(1) {
            (*second, *count) = (now, 0);
        }
        *count += 1;
        match *count > MOST_URGENT {
            true => Err(errors::violation("more than 100 urgent frames in one second")),
            false => Ok(()),
        }
    }

    /// Handles what is outside of the queue.
    fn control(
        &mut self,
        core: &Core,
        state: &mut State,
        (header, body): (&Header, &[u8]),
        now: Instant,
    ) -> Result<(), Fatal> {
        let message = decode::<Message>(body).map_err(errors::of_violation)?;
        let id = header.message_id;
        match message {
            Message::Heartbeat { .. } if id & SERVER_ID != 0 => {}
            Message::Heartbeat { sent_at_us, .. } => {
                let pending = u32::try_from(state.pending.len()).unwrap_or(u32::MAX);
                let echo = Message::Heartbeat { sent_at_us, pending };
                state.out.urgent(flags::RESPONSE, id, &echo);
            }
            Message::Ping => state.out.urgent(flags::RESPONSE, id, &Message::Pong),
            Message::WindowUpdate { stream, credit } => {
                // Who reads fast returns much credit often: only crumbs are counted.
                if credit < MUCH_CREDIT && header.has(flags::URGENT) {
                    self.count_urgent(now)?;
                }
                let fits = state.out.grant(stream, credit);
                fits.then_some(()).ok_or_else(|| flow_error("a window of more than 2^31 - 1"))?;
            }
            Message::Cancel { target } => cancel(core, state, target),
            Message::Close { reason } => {
                tracing::debug!(reason, "a native client closes");
                state.is_closing = true;
            }
            _ => {}
        }
        state.progress = true;
        Ok(())
    }

    /// A part of a bulk insert after the first.
    fn bulk_part(
        &mut self,
        core: &Core,
        state: &mut State,
        header: &Header,
        (sent, body): (&[u8], &[u8]),
        payload: u32,
    ) -> Result<(), Fatal> {
        let id = header.message_id;
        let is_last = matches!(body.get(1), Some(2 | 3));
        let Some(bulk) = state.bulks.get_mut(&id) else {
            return Err(errors::violation("a part of a bulk insert that has not begun"));
        };
        if !bulk.window.receive(payload) {
            return Err(flow_error("a part of a bulk insert was sent without credit"));
        }
        if bulk.is_whole {
            return Err(errors::violation("a part of a bulk insert after its end"));
        }
        bulk.is_whole = is_last;
        if bulk.is_over {
            decode::<Message>(body).map_err(errors::of_violation)?;
            state.free_part(id, payload);
            if is_last {
                state.drop_bulk(id);
            }
        } else {
            bulk.parts.push_back((Stored::new(header, sent), payload));
            core.metrics.native.queued.inc();
        }
        state.progress = true;
        Ok(())
    }

    /// The client wants no more of a stream.
    fn end_stream(
        &mut self,
        core: &Core,
        state: &mut State,
        id: u64,
        body: &[u8],
    ) -> Result<(), Fatal> {
        match decode::<Message>(body).map_err(errors::of_violation)? {
            Message::Streaming(Streaming::Cancel) => {}
            _ => return Err(errors::violation("a message that only a server sends")),
        }
        let in_transaction = state.tx != crate::proto::backend::TxStatus::Idle;
        let transaction_status = status(state.tx);
        match &mut state.current {
            Some(current) if current.id == id => {
                current.wants_end = true;
                // Within a transaction an error would cost more than the rest of the part.
                current.is_cancelled |= !in_transaction && current.is_running;
            }
            // Within a transaction it ends, as one does that has begun, and the transaction lives.
            _ if in_transaction => {
                let end =
                    Streaming::End { rows: 0, command_tag: String::new(), transaction_status };
                take_back(core, state, id, &Message::Streaming(end));
            }
            _ => cancel(core, state, id),
        }
        state.progress = true;
        Ok(())
    }

    /// A request: into the queue, or refused.
    fn request(
        &mut self,
        core: &Core,
        state: &mut State,
        header: &Header,
        (sent, body): (&[u8], &[u8]),
        now: Instant,
    ) -> Result<(), Fatal> {
        let id = header.message_id;
        if id == 0 || id & SERVER_ID != 0 {
            return Err(errors::violation("the id of a request is 0, or one of the server's"));
        }
        if state.pending.contains(id) || state.bulks.contains_key(&id) {
            return Err(errors::violation("the id of a request that is not finished"));
        }
        let pipelines = self.capabilities & capabilities::PIPELINING != 0;
        if !pipelines && !state.pending.is_empty() {
            let text = "a request before the reply to the one before, without PIPELINING";
            return Err(errors::violation(text));
        }
        let variant = body[0];
        let payload = if header.has(flags::URGENT) { 0 } else { header.length };
        if let Err(refusal) = self.admit(core, state, header, variant) {
            state.free(payload);
            if variant == BULK && header.has(flags::MORE) {
                // Its parts are on their way already, and are to be passed over.
                self.expect_bulk(state, id, true)?;
            }
            return self.refuse(core, state, id, refusal);
        }
        self.refused = 0;
        let order = order_of(header, body);
        let level = Level::of_bits(header.priority());
        let request = Request { id, frame: Stored::new(header, sent), payload };
        state.queue.push(level, order, now, request);
        state.pending.insert(id);
        core.metrics.native.queued.inc();
        core.metrics.native.pending.inc();
        match variant {
            BULK => self.expect_bulk(state, id, false)?,
            STREAMING => state.out.open_stream(id),
            _ => {}
        }
        state.progress = true;
        Ok(())
    }

    /// Parts of a bulk insert will come.
    fn expect_bulk(&self, state: &mut State, id: u64, is_over: bool) -> Result<(), Fatal> {
        if state.bulks.len() >= MOST_REFUSED as usize {
            return Err(errors::violation("too many bulk inserts that are refused and not ended"));
        }
        let parts = BulkParts {
            parts: std::collections::VecDeque::new(),
            is_whole: false,
            is_over,
            window: ReceiveWindow::new(self.stream_window),
        };
        state.bulks.insert(id, parts);
        Ok(())
    }

    /// Whether a request may join the queue.
    fn admit(
        &mut self,
        core: &Core,
        state: &mut State,
        header: &Header,
        variant: u8,
    ) -> Result<(), Box<ErrorBody>> {
        let needed = match variant {
            PREPARED => capabilities::PREPARED,
            BULK => capabilities::BULK_INSERT,
            STREAMING => capabilities::STREAMING,
            NOTIFICATION => capabilities::NOTIFICATIONS,
            SUBSCRIBE | UNSUBSCRIBE => capabilities::SUBSCRIPTIONS,
            SIMPLE => capabilities::SIMPLE,
            _ => 0,
        };
        if self.capabilities & needed != needed {
            return Err(errors::not_supported("the capability for this message was not agreed"));
        }
        if state.pending.is_empty() && variant != BULK {
            return Ok(());
        }
        let config = self.config.now();
        let native = &config.native;
        let limit = |code: &str, text: &str| Err(errors::busy(code, text));
        if state.pending.len() >= native.max_pending_requests as usize {
            let text = "too many requests without a reply on this connection";
            return limit("TOO_MANY_PENDING_REQUESTS", text);
        }
        let text = "too many requests wait on this connection";
        let open = state.bulks.values().filter(|bulk| !bulk.is_over).count();
        if variant == BULK && open >= MOST_BULKS {
            return limit("QUEUE_FULL", text);
        }
        if state.queue.len() < native.max_queued_requests as usize {
            return Ok(());
        }
        let level = Level::of_bits(header.priority());
        let drops = native.queue_full_policy == QueueFullPolicy::DropLowest;
        let other = if drops { state.queue.give_way(level) } else { None };
        match other {
            Some(other) => {
                core.metrics.native.queued.dec();
                core.metrics.native.rejected("queue_full");
                state.free(other.payload);
                let Err(body) = limit("QUEUE_FULL", text) else { return Ok(()) };
                state.finish(core, other.id);
                state.out.later(other.id, &Message::Error(body), false);
                Ok(())
            }
            None => limit("QUEUE_FULL", text),
        }
    }

    fn refuse(
        &mut self,
        core: &Core,
        state: &mut State,
        id: u64,
        refusal: Box<ErrorBody>,
    ) -> Result<(), Fatal> {
        core.metrics.native.rejected(&refusal.code.to_ascii_lowercase());
        self.refused += 1;
        if self.refused >= MOST_REFUSED {
            let mut fatal = refusal;
            fatal.severity = crate::proto::native::Severity::Fatal;
            fatal.retryable = false;
            return Err(fatal);
        }
        state.out.later(id, &Message::Error(refusal), false);
        state.progress = true;
        Ok(())
    }

    /// Bytes came from the socket.
    pub(super) fn received(&self, core: &Core, bytes: usize) {
        door(core).bytes_received.inc_by(bytes as u64);
        core.metrics.native.received.wire.inc_by(bytes as u64);
    }

    /// Bytes went to the socket.
    pub(super) fn sent(&self, core: &Core, bytes: usize) {
        door(core).bytes_sent.inc_by(bytes as u64);
    }
}

fn door(core: &Core) -> &ProtocolMetrics {
    core.metrics.protocol(Protocol::Native)
}

/// Cancels a request, wherever it is; one that is over is not looked for.
fn cancel(core: &Core, state: &mut State, target: u64) {
    match &mut state.current {
        Some(current) if current.id == target => current.is_cancelled = true,
        _ => {
            if let Some(ahead) = state.ahead.iter_mut().find(|ahead| ahead.id == target) {
                ahead.is_cancelled = true;
                return;
            }
            take_back(core, state, target, &Message::Error(errors::cancelled(false)));
        }
    }
}

/// Answers a request that still waits in the queue.
fn take_back(core: &Core, state: &mut State, target: u64, answer: &Message) {
    if let Some(request) = state.queue.remove(|request| request.id == target) {
        core.metrics.native.queued.dec();
        state.free(request.payload);
        state.finish(core, target);
        state.out.later(target, answer, false);
    }
}

fn flow_error(text: &str) -> Fatal {
    errors::fatal("08P01", "FLOW_CONTROL_ERROR", text)
}

/// What a request means for the order of those after it. Its body is not checked yet, so only its
/// first bytes are looked at.
fn order_of(header: &Header, body: &[u8]) -> Order {
    match body {
        [BEGIN, ..] | [SIMPLE, 1, ..] => Order::Begins,
        // Without AND CHAIN, and not only to a savepoint.
        [COMMIT, 0, ..] | [ROLLBACK, 0, 0, ..] | [SIMPLE, 2 | 3, ..] => Order::Ends,
        _ if header.has(flags::ORDERED) => Order::Ordered,
        _ => Order::Any,
    }
}

impl State {
    /// A request has its final reply: its id is free.
    pub(super) fn finish(&mut self, core: &Core, id: u64) {
        if self.pending.remove(id) {
            core.metrics.native.pending.dec();
        }
        self.out.close_stream(id);
        self.end_bulk(core, id);
        if self.current.as_ref().is_some_and(|current| current.id == id) {
            self.current = None;
        }
        self.progress = true;
    }

    /// What still comes of a bulk insert is passed over.
    fn end_bulk(&mut self, core: &Core, id: u64) {
        let Some(bulk) = self.bulks.get_mut(&id) else { return };
        bulk.is_over = true;
        let parts = std::mem::take(&mut bulk.parts);
        let is_whole = bulk.is_whole;
        for (_, payload) in parts {
            core.metrics.native.queued.dec();
            self.free_part(id, payload);
        }
        if is_whole {
            self.drop_bulk(id);
        }
    }

    /// Takes the next part of a bulk insert.
    pub(super) fn next_part(&mut self, core: &Core, id: u64) -> Option<Result<Bulk, Violation>> {
        let (part, payload) = self.bulks.get_mut(&id)?.parts.pop_front()?;
        core.metrics.native.queued.dec();
        self.free_part(id, payload);
        let agreed = *self.out.agreed();
        Some(part.message(&agreed).and_then(|message| match message {
            Message::BulkInsert(bulk) => Ok(bulk),
            _ => Err(Violation::malformed("not a part of a bulk insert")),
        }))
    }

    fn free_part(&mut self, id: u64, payload: u32) {
        self.free(payload);
        let credit = self.bulks.get_mut(&id).and_then(|bulk| bulk.window.free(payload));
        if let Some(credit) = credit {
            self.grant(id, credit);
        }
    }

    fn drop_bulk(&mut self, id: u64) {
        self.bulks.remove(&id);
        if self.bulks.is_empty() {
            self.bulks = std::collections::HashMap::new();
        }
    }

    /// Whether there is something in PostgreSQL to cancel.
    pub(super) fn is_running(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.is_running)
    }
}
