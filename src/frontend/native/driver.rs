//! The socket's side of a connection: bytes to frames and back, heartbeats, what is handled at
//! once, and the way of a request into the queue.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Sleep;

use super::core::{Core, State};
use super::errors;
use super::handshake::known;
use super::intake::Intake;
use super::transcode::in_bincode;
use crate::config::Live;
use crate::net::{DrainWatch, Stage, Stream};
use crate::proto::frame::spare;
use crate::proto::native::frame::{self, HEADER, SERVER_ID, flags};
use crate::proto::native::{Agreed, ErrorBody, Message, Notification};
use crate::session::Entry;

/// Room for a first read, and the most that is read at once.
const READ_SMALL: usize = 8 << 10;
const READ_LARGE: usize = 64 << 10;

/// A request that is still there is cancelled again after so long: the first time, PostgreSQL may
/// not have begun with it.
const CANCEL_AGAIN: Duration = Duration::from_millis(250);

/// A connection that is not read because all together hold too much looks again after so long.
const PAUSE: Duration = Duration::from_millis(50);

/// Below this a connection is read, whatever all together hold.
const MODEST: i64 = 64 << 10;

/// Why the driver stopped.
#[derive(Debug)]
pub(super) enum Over {
    /// The client is gone.
    Gone,
    /// The client broke the rules, and is to be told so. The id is that of the frame.
    Broken(u64, Box<ErrorBody>),
    /// The client took nothing, or did not answer: nobody is there to be told.
    Silent(&'static str),
}

/// Bytes that all connections hold.
#[derive(Debug, Default)]
pub struct Inflight {
    bytes: AtomicI64,
    connections: AtomicI64,
}

/// One connection's part of it.
#[derive(Debug)]
struct Share {
    all: Arc<Inflight>,
    mine: i64,
    gauge: IntGauge,
}

impl Share {
    fn new(all: Arc<Inflight>, gauge: IntGauge) -> Self {
        all.connections.fetch_add(1, Ordering::Relaxed);
        Self { all, mine: 0, gauge }
    }

    /// Notes what this connection holds; true = it has to wait before it takes more, because all
    /// together hold more than `most`.
    fn hold(&mut self, bytes: i64, most: impl FnOnce() -> i64) -> bool {
        let before = std::mem::replace(&mut self.mine, bytes);
        let delta = bytes - before;
        if delta != 0 {
            self.gauge.add(delta);
            self.all.bytes.fetch_add(delta, Ordering::Relaxed);
        }
        if bytes <= MODEST {
            return false;
        }
        let all = self.all.bytes.load(Ordering::Relaxed);
        let connections = self.all.connections.load(Ordering::Relaxed).max(1);
        all > most() && bytes >= all / connections
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.sub(self.mine);
        self.all.bytes.fetch_sub(self.mine, Ordering::Relaxed);
        self.all.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) stream: Stream,
    /// What was read of it already.
    pub(super) ahead: Vec<u8>,
    pub(super) agreed: Agreed,
    pub(super) intake: Intake,
    pub(super) entry: Arc<Entry>,
    pub(super) config: Live,
    pub(super) drain: DrainWatch,
    pub(super) inflight: Arc<Inflight>,
    pub(super) gauge: IntGauge,
}

/// The socket's side of a connection.
pub(super) struct Driver {
    pub(super) stream: Stream,
    agreed: Agreed,
    intake: Intake,
    entry: Arc<Entry>,
    config: Live,
    drain: DrainWatch,
    told_drain: bool,
    share: Share,
    inbound: Vec<u8>,
    /// What came before the session was open was not looked at yet.
    has_ahead: bool,
    /// The socket had nothing to read, and the task is written down there.
    waits: bool,
    scratch: Vec<u8>,
    now: Instant,
    heard: Instant,
    heartbeats: u32,
    heartbeat_id: u64,
    cancel: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    cancel_next: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    begun: Instant,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let share = Share::new(parts.inflight, parts.gauge);
        Self {
            stream: parts.stream,
            agreed: parts.agreed,
            intake: parts.intake,
            entry: parts.entry,
            config: parts.config,
            drain: parts.drain,
            told_drain: false,
            share,
            has_ahead: !parts.ahead.is_empty(),
            waits: false,
            inbound: parts.ahead,
            scratch: Vec::new(),
            now,
            heard: now,
            heartbeats: 0,
            heartbeat_id: SERVER_ID,
            cancel: None,
            cancel_next: None,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            timer_at: now,
            begun: now,
        }
    }

    /// Bytes of the client, and what is due.
    pub(super) fn poll(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<Over> {
        self.now = Instant::now();
        self.tell_drain(core);
        let (pause, is_full) = {
            let mut state = core.lock();
            state.out.now = self.now;
            (self.note_share(&state), state.out.is_full())
        };
        if !pause
            && !is_full
            && let Err(over) = self.read(core, cx)
        {
            return Poll::Ready(over);
        }
        self.poll_cancel(core, cx);
        self.poll_timer(core, cx, pause)
    }

    /// Writes what waits for the socket; true = something was written.
    pub(super) fn flush(&mut self, core: &Core, cx: &mut Context<'_>) -> Result<bool, Over> {
        let mut state = core.lock();
        let mut wrote = false;
        while !state.out.ready.is_empty() {
            match self.stream.poll_write(cx, state.out.ready.rest()) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => {
                    state.out.ready.take(n);
                    wrote = true;
                    self.intake.sent(core, n);
                }
                Poll::Ready(_) => return Err(Over::Gone),
            }
        }
        if wrote {
            state.out.progress_at = state.out.now;
        }
        Ok(wrote)
    }

    /// Notes what is held until the next wake-up, and gives back what is not needed for that.
    pub(super) fn rest(&mut self, core: &Core) {
        if self.inbound.is_empty() && self.inbound.capacity() > 0 {
            spare::keep(std::mem::take(&mut self.inbound));
        }
        if self.scratch.capacity() > 0 {
            self.scratch = Vec::new();
        }
        let mut state = core.lock();
        state.rest();
        self.note_share(&state);
    }

    fn note_share(&mut self, state: &State) -> bool {
        let held = state.out.bytes() as i64 + state.window.held() + self.inbound.len() as i64;
        let config = &self.config;
        self.share.hold(held, || {
            i64::try_from(config.now().native.max_inflight_bytes.0).unwrap_or(i64::MAX)
        })
    }

    fn tell_drain(&mut self, core: &Core) {
        if self.told_drain || self.drain.stage() < Stage::Draining {
            return;
        }
        self.told_drain = true;
        let grace = self.config.now().server.shutdown_grace_secs.duration();
        let shutdown = Notification::Shutdown {
            grace_ms: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX),
            reason: "the server is shutting down".into(),
        };
        core.lock().out.later(0, &Message::Notification(shutdown), true);
    }

    /// Reads, and looks whether there is more: that is read when this has been dealt with.
    fn read(&mut self, core: &Core, cx: &mut Context<'_>) -> Result<(), Over> {
        if std::mem::take(&mut self.has_ahead) {
            core.lock().calls_driver = true;
            return self.take_frames(core);
        }
        if self.waits && !self.stream.may_have_input() {
            return Ok(());
        }
        let more = self.read_once(core, cx)? && self.stream.poll_readable(cx).is_ready();
        if more {
            core.lock().calls_driver = true;
        }
        // Who has used up its time slice was not written down.
        self.waits = !more && has_budget_remaining();
        Ok(())
    }

    fn read_once(&mut self, core: &Core, cx: &mut Context<'_>) -> Result<bool, Over> {
        if self.inbound.capacity() == 0 {
            self.inbound = spare::window();
        }
        // A buffer grows with what has come, not with what is announced.
        let room = self.inbound.len().clamp(READ_SMALL, READ_LARGE);
        self.inbound.reserve(room);
        match self.stream.poll_read_into(cx, || &mut self.inbound) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => self.intake.received(core, n),
            Poll::Ready(Ok(_)) => {
                if !self.inbound.is_empty() {
                    core.metrics.native.error("truncated_frame");
                }
                return Err(Over::Gone);
            }
            Poll::Ready(Err(_)) => return Err(Over::Gone),
        }
        self.heard = self.now;
        self.heartbeats = 0;
        self.take_frames(core)?;
        Ok(true)
    }

    fn take_frames(&mut self, core: &Core) -> Result<(), Over> {
        let mut state = core.lock();
        let mut at = 0;
        let agreed = &self.agreed;
        let result = loop {
            let found = match frame::split(&self.inbound[at..], agreed.max_message_size) {
                Ok(found) => found,
                Err(refused) => break Err(Over::Broken(0, errors::of_violation(refused))),
            };
            let Some((header, payload)) = found else { break Ok(()) };
            at += HEADER + payload.len();
            let begun = header.has(flags::COMPRESSED).then(Instant::now);
            let opened = frame::open(&header, payload, agreed, &mut self.scratch);
            if let Some(begun) = begun {
                let duration = core.metrics.native.duration(known(agreed.compression));
                duration.observe(begun.elapsed().as_secs_f64());
            }
            let body = match opened {
                Ok(body) => body,
                Err(refused) => {
                    break Err(Over::Broken(header.message_id, errors::of_violation(refused)));
                }
            };
            let taken = in_bincode(agreed.encoding, body)
                .and_then(|body| self.intake.frame(core, &mut state, &header, payload, &body));
            if let Err(error) = taken {
                break Err(Over::Broken(header.message_id, error));
            }
        };
        self.inbound.drain(..at);
        if self.inbound.is_empty() && self.inbound.capacity() > READ_LARGE {
            self.inbound = Vec::new();
        }
        result
    }

    /// Has PostgreSQL cancel the present request, if the client or the time wants it.
    fn poll_cancel(&mut self, core: &Core, cx: &mut Context<'_>) {
        let now = self.now;
        if let Some(cancel) = &mut self.cancel
            && cancel.as_mut().poll(cx).is_ready()
        {
            self.cancel = None;
            self.cancel_next = Some(now + CANCEL_AGAIN);
            let mut state = core.lock();
            state.is_cancelling = false;
            state.progress = true;
        }
        let wanted = {
            let mut state = core.lock();
            match &mut state.current {
                None => false,
                Some(current) => {
                    if current.deadline.is_some_and(|deadline| now >= deadline)
                        && !current.timed_out
                    {
                        current.timed_out = true;
                        state.progress = true;
                    }
                    state.is_cancelled() && state.is_running()
                }
            }
        };
        if !wanted {
            self.cancel_next = None;
        }
        let due = self.cancel_next.is_none_or(|next| now >= next);
        if wanted && due && self.cancel.is_none() {
            let entry = self.entry.clone();
            {
                let mut state = core.lock();
                state.may_have_met |= state.ahead.iter().any(|ahead| ahead.is_sent);
            }
            let mut cancel: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(async move { entry.cancel().await });
            if cancel.as_mut().poll(cx).is_pending() {
                core.lock().is_cancelling = true;
                self.cancel = Some(cancel);
            } else {
                self.cancel_next = Some(now + CANCEL_AGAIN);
            }
        }
    }

    fn poll_timer(&mut self, core: &Core, cx: &mut Context<'_>, paused: bool) -> Poll<Over> {
        // The timer goes off before anything is due, unless something has come up since it was set.
        if self.now < self.timer_at && !paused && !self.has_limits(&core.lock()) {
            return Poll::Pending;
        }
        loop {
            let now = Instant::now();
            let next = match self.due(core, now, paused) {
                Ok(next) => next,
                Err(over) => return Poll::Ready(over),
            };
            // A timer that goes off too early costs less than one that is moved each time.
            if next < self.timer_at || self.timer_at <= now {
                self.timer_at = next.max(now + Duration::from_millis(1));
                self.timer.as_mut().reset(self.timer_at.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether something may be due before the next heartbeat.
    fn has_limits(&self, state: &State) -> bool {
        let has_deadline = state.current.as_ref().is_some_and(|now| now.deadline.is_some());
        has_deadline || self.cancel_next.is_some() || state.stalled_since().is_some()
    }

    /// Does what is due, and says when to look again.
    fn due(&mut self, core: &Core, now: Instant, paused: bool) -> Result<Instant, Over> {
        let config = self.config.now();
        let native = &config.native;
        let interval = native.heartbeat_interval_ms.duration();
        let mut heartbeat = self.heard + interval * (self.heartbeats + 1);
        let mut state = core.lock();
        if now >= heartbeat {
            if self.heartbeats >= 2 {
                return Err(Over::Silent("heartbeat"));
            }
            self.heartbeats += 1;
            self.heartbeat_id += 1;
            let sent_at_us = u64::try_from(now.duration_since(self.begun).as_micros()).unwrap_or(0);
            let pending = u32::try_from(state.pending.len()).unwrap_or(u32::MAX);
            // Without RESPONSE: it asks for an echo.
            state.out.urgent(0, self.heartbeat_id, &Message::Heartbeat { sent_at_us, pending });
            state.progress = true;
            heartbeat = self.heard + interval * (self.heartbeats + 1);
        }
        let mut next = heartbeat;
        if let Some(since) = state.stalled_since() {
            let limit = since + native.slow_consumer_timeout_secs.duration();
            if now >= limit {
                return Err(Over::Silent("slow_consumer"));
            }
            next = next.min(limit);
        }
        if let Some(current) = &state.current {
            let open = current.deadline.filter(|_| !current.timed_out);
            next = open.into_iter().chain(self.cancel_next).fold(next, Instant::min);
        }
        if paused {
            next = next.min(now + PAUSE);
        }
        Ok(next)
    }
}
