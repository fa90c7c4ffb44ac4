//! The task of a connection: writes what has been asked for, reads what is answered.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::Sleep;

use super::socket::Socket;
use super::{Lost, MOST_EVENTS, Reply, Shared};
use crate::protocol::frame::{self, HEADER, Header, SERVER_ID, flags};
use crate::protocol::wire::decode;
use crate::protocol::{Message, Notification};

/// Least and most space for one read, in bytes; it grows while reads fill it.
const SMALLEST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 256 << 10;

/// An output buffer above this size is not kept, in bytes.
const KEPT_OUTPUT: usize = 256 << 10;

/// Time for the server to close after the good-bye.
const GRACE: Duration = Duration::from_secs(5);

/// Heartbeats without an answer after which the server counts as gone.
const MOST_UNANSWERED: u32 = 2;

/// The task.
pub(super) struct Driver {
    shared: Arc<Shared>,
    socket: Socket,
    input: BytesMut,
    read_size: usize,
    output: Vec<u8>,
    written: usize,
    must_flush: bool,
    /// When something was received last, and since when heartbeats count from.
    heard: Instant,
    interval: Duration,
    unanswered: u32,
    timer: Pin<Box<Sleep>>,
    /// When it is too late for the server to close, once good-bye is said.
    close_by: Option<Instant>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let lost = ready!(self.turn(cx));
        self.shared.lose(&lost);
        // Best effort: TLS says good-bye too.
        let _ = self.socket.poll_shutdown(cx);
        Poll::Ready(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The runtime may end before the connection does.
        self.shared.lose(&Lost::new("its task has ended"));
    }
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, socket: Socket, input: BytesMut) -> Self {
        let interval = match shared.hello.heartbeat_interval_ms {
            0 => Duration::from_secs(30),
            millis => Duration::from_millis(millis.into()),
        };
        Self {
            shared,
            socket,
            input,
            read_size: SMALLEST_READ,
            output: Vec::new(),
            written: 0,
            must_flush: false,
            heard: Instant::now(),
            interval,
            unanswered: 0,
            timer: Box::pin(tokio::time::sleep(interval)),
            close_by: None,
        }
    }

    /// Moves what can be moved; ready when the connection is lost.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        // What came with the last message of the login.
        if let Err(lost) = self.take_frames() {
            return Poll::Ready(lost);
        }
        loop {
            self.collect(cx);
            let wrote = match self.write(cx) {
                Ok(wrote) => wrote,
                Err(e) => return Poll::Ready(lost(&e)),
            };
            let read = match self.read(cx) {
                Ok(read) => read,
                Err(lost) => return Poll::Ready(lost),
            };
            if !wrote && !read {
                return self.watch(cx);
            }
        }
    }

    /// Takes over what is to be written, if everything before is.
    fn collect(&mut self, cx: &Context<'_>) {
        let mut state = self.shared.state.lock();
        if !state.waker.will_wake(cx.waker()) {
            state.waker = cx.waker().clone();
        }
        if self.written < self.output.len() {
            // The socket will tell.
            return;
        }
        if state.is_closing && self.close_by.is_none() {
            self.close_by = Some(Instant::now() + GRACE);
            self.timer.as_mut().reset(tokio::time::Instant::now() + GRACE);
            let id = state.next_id;
            let close = Message::Close { reason: "the client is done".into() };
            self.shared.append(&mut state, 0, id, &close);
        }
        let now = Instant::now();
        while let Some((id, message)) = state.urgent.next(now) {
            let flags = match message {
                Message::Pong => flags::URGENT,
                _ => flags::URGENT | flags::ONEWAY,
            };
            self.shared.append(&mut state, flags, id, &message);
        }
        if state.out.is_empty() {
            state.is_asleep = true;
            return;
        }
        self.output.clear();
        if self.output.capacity() > KEPT_OUTPUT {
            self.output = Vec::new();
        }
        self.written = 0;
        std::mem::swap(&mut self.output, &mut state.out);
        if std::mem::take(&mut state.is_starved) {
            self.shared.room.notify_waiters();
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut progress = false;
        while let Some(rest @ [_, ..]) = self.output.get(self.written..) {
            match self.socket.poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    (progress, self.must_flush) = (true, true);
                }
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => return Ok(progress),
            }
        }
        if self.must_flush && self.socket.poll_flush(cx)?.is_ready() {
            self.must_flush = false;
        }
        Ok(progress)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        let space = self.space();
        self.input.reserve(space);
        let spare = self.input.capacity() - self.input.len();
        match self.socket.poll_read(cx, &mut self.input) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(e)) => Err(lost(&e)),
            Poll::Ready(Ok(0)) if self.close_by.is_some() => Err(Lost::new("it is closed")),
            Poll::Ready(Ok(0)) => Err(Lost::new("the server has closed it")),
            Poll::Ready(Ok(count)) => {
                if count == spare {
                    self.read_size = (self.read_size * 2).min(LARGEST_READ);
                }
                self.heard = Instant::now();
                self.unanswered = 0;
                self.take_frames()?;
                Ok(true)
            }
        }
    }

    /// How much to read at once: the rest of a frame that has begun, if that is more.
    fn space(&self) -> usize {
        let most = self.shared.agreed.max_message_size;
        let rest = match Header::parse(&self.input, most) {
            Ok(Some(header)) => HEADER + header.length as usize - self.input.len(),
            _ => 0,
        };
        match self.input.capacity() - self.input.len() {
            spare if spare >= rest.max(SMALLEST_READ / 2) => 1,
            _ => rest.max(self.read_size),
        }
    }

    /// Gives every whole frame to whom it belongs.
    fn take_frames(&mut self) -> Result<(), Lost> {
        let most = self.shared.agreed.max_message_size;
        loop {
            let header = match frame::split(&self.input, most) {
                Ok(Some((header, _))) => header,
                Ok(None) => return Ok(()),
                Err(violation) => return Err(Lost::new(violation.text)),
            };
            let whole = self.input.split_to(HEADER + header.length as usize).freeze();
            let body = frame::body(&header, &whole[HEADER..], &self.shared.agreed)
                .map_err(|violation| Lost::new(violation.text))?;
            self.dispatch(&header, whole.slice_ref(body))?;
        }
    }

    fn dispatch(&mut self, header: &Header, body: Bytes) -> Result<(), Lost> {
        let id = header.message_id;
        if id == 0 || id & SERVER_ID != 0 {
            return self.own_message(header, body);
        }
        let mut state = self.shared.state.lock();
        if !header.has(flags::URGENT) {
            state.urgent.received(header.length);
        }
        let more = header.has(flags::MORE);
        let slot = match more {
            true => state.pending.get(&id).cloned(),
            false => {
                state.urgent.end(id);
                state.pending.remove(&id)
            }
        };
        if std::mem::take(&mut state.is_starved) {
            self.shared.room.notify_waiters();
        }
        drop(state);
        let is_compressed = header.has(flags::COMPRESSED);
        if !is_compressed && is_fatal(&body) {
            // The server closes the connection next: nobody else shall get it.
            self.shared.events.lock().is_draining = true;
        }
        let reply = Reply { body, is_compressed, more, payload: header.length };
        // The answer to a heartbeat belongs to nobody.
        if let Some(unwanted) = slot.and_then(|slot| slot.push(reply))
            && unwanted.more
        {
            self.shared.consumed(id, unwanted.payload);
        }
        Ok(())
    }

    /// A message that answers no request.
    fn own_message(&mut self, header: &Header, body: Bytes) -> Result<(), Lost> {
        let body = match header.has(flags::COMPRESSED) {
            true => self.shared.decompress(&body).map_err(|e| Lost::new(e.text))?,
            false => body,
        };
        let message = decode::<Message>(&body).map_err(|e| Lost::new(e.text))?;
        let mut state = self.shared.state.lock();
        if !header.has(flags::URGENT) {
            state.urgent.received(header.length);
        }
        match message {
            Message::WindowUpdate { stream: 0, credit } => {
                state.window += i64::from(credit);
                state.is_starved = false;
                self.shared.room.notify_waiters();
            }
            Message::WindowUpdate { stream, credit } => {
                if let Some(slot) = state.pending.get(&stream) {
                    slot.credit(credit);
                }
                state.is_starved = false;
                self.shared.room.notify_waiters();
            }
            Message::Heartbeat { sent_at_us, .. } => {
                let pending = state.pending.len() as u32;
                let echo = Message::Heartbeat { sent_at_us, pending };
                state.urgent.reply(header.message_id, echo);
            }
            Message::Ping => state.urgent.reply(header.message_id, Message::Pong),
            Message::Error(error) => return Err(Lost::by_server(*error)),
            Message::Notification(event) => {
                drop(state);
                self.event(event);
            }
            // The socket is closed next, or it is of an extension that is not known.
            _ => {}
        }
        Ok(())
    }

    fn event(&self, event: Notification) {
        let mut events = self.shared.events.lock();
        match &event {
            Notification::ParameterStatus { name, value } => {
                let known = &mut events.parameters;
                known.retain(|(other, _)| other != name);
                if known.len() < MOST_EVENTS {
                    known.push((name.clone(), value.clone()));
                }
            }
            Notification::Shutdown { .. } => events.is_draining = true,
            _ => {}
        }
        if events.queue.len() >= MOST_EVENTS {
            events.queue.pop_front();
        }
        events.queue.push_back(event);
        drop(events);
        self.shared.news.notify_waiters();
    }

    /// Looks at the clock when nothing can be moved.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        loop {
            let late = self.shared.state.lock().urgent.wake_at();
            if let Some(at) = late.filter(|at| *at < self.timer.deadline().into_std()) {
                self.timer.as_mut().reset(at.into());
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.close_by.is_some_and(|by| by <= now) {
                return Poll::Ready(Lost::new("it is closed"));
            }
            if late.is_some_and(|at| at <= now) {
                let next = self.next_look(now);
                self.timer.as_mut().reset(next.into());
                // There may be something to write now.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if now >= self.heard + self.interval * (self.unanswered + 1) {
                if self.unanswered >= MOST_UNANSWERED {
                    return Poll::Ready(Lost::new("the server does not answer heartbeats"));
                }
                self.unanswered += 1;
                self.send_heartbeat();
                cx.waker().wake_by_ref();
            }
            let next = self.next_look(now);
            self.timer.as_mut().reset(next.into());
        }
    }

    fn next_look(&self, now: Instant) -> Instant {
        let heartbeat = self.heard + self.interval * (self.unanswered + 1);
        let next = self.close_by.map_or(heartbeat, |by| by.min(heartbeat));
        // Never at once again, whatever the clock says.
        next.max(now + Duration::from_millis(1))
    }

    fn send_heartbeat(&self) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let sent_at_us = since.map_or(0, |since| since.as_micros() as u64);
        let mut state = self.shared.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let pending = state.pending.len() as u32;
        let heartbeat = Message::Heartbeat { sent_at_us, pending };
        self.shared.append(&mut state, flags::URGENT, id, &heartbeat);
    }
}

fn lost(error: &io::Error) -> Lost {
    Lost::new(&error.to_string())
}

/// Whether a reply is an error after which the connection ends: the number of Error, and a severity
/// above that of an error.
fn is_fatal(body: &[u8]) -> bool {
    matches!(body, [19, severity, ..] if *severity != 0)
}
