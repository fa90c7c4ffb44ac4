//! What the three parts of a connection share: the driver (socket and frames), the translator
//! (requests) and the relay (PostgreSQL). One task polls all three, so the lock is never waited
//! for, and nobody has to wake anybody.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::errors;
use super::flow::ReceiveWindow;
use super::outbox::Outbox;
use super::pipe::{Pipe, ROOM};
use super::queue::Queue;
use crate::proto::backend::{Report, TxStatus, parameter_status, tag};
use crate::proto::native::frame::{self, Header, flags};
use crate::proto::native::{Agreed, Message, NoticeSeverity, Notification, Violation};
use crate::proto::{Cursor, native};
use crate::telemetry::Metrics;

/// A frame as it came: still compressed, so that what waits takes no more than the client has
/// credit for.
#[derive(Debug)]
pub(super) struct Stored {
    header: Header,
    payload: Vec<u8>,
}

impl Stored {
    /// Keeps a frame.
    pub(super) fn new(header: &Header, payload: &[u8]) -> Self {
        Self { header: *header, payload: payload.to_vec() }
    }

    /// Its body, unless that is compressed. Its checksum was looked at when it came. In another
    /// form than bincode it begins as no message of bincode does.
    pub(super) fn plain_body(&self) -> Option<&[u8]> {
        let trailer = if self.header.has(flags::CHECKSUM) { 4 } else { 0 };
        let length = self.payload.len().checked_sub(trailer)?;
        (!self.header.has(flags::COMPRESSED)).then(|| &self.payload[..length])
    }

    /// Its message.
    ///
    /// # Errors
    /// There is none in it.
    pub(super) fn message(&self, agreed: &Agreed) -> Result<Message, Violation> {
        let mut scratch = Vec::new();
        agreed.encoding.decode(frame::open(&self.header, &self.payload, agreed, &mut scratch)?)
    }
}

/// A request that waits, as it came.
#[derive(Debug)]
pub(super) struct Request {
    /// Its id.
    pub(super) id: u64,
    /// Its frame.
    pub(super) frame: Stored,
    /// What it took of the receive window.
    pub(super) payload: u32,
}

/// The request that is carried out.
#[derive(Debug)]
pub(super) struct Current {
    /// Its id.
    pub(super) id: u64,
    /// The client wants no more of it.
    pub(super) is_cancelled: bool,
    /// The client wants no more of this stream, and its transaction is to live on.
    pub(super) wants_end: bool,
    /// When it has to be cancelled.
    pub(super) deadline: Option<Instant>,
    /// That was so.
    pub(super) timed_out: bool,
    /// It runs in PostgreSQL, so that there is something to cancel.
    pub(super) is_running: bool,
}

/// A request that was taken out of the queue before the one in front of it was answered.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Its id.
    pub(super) id: u64,
    /// It was sent to PostgreSQL.
    pub(super) is_sent: bool,
    /// The client wants no more of it.
    pub(super) is_cancelled: bool,
}

/// Ids of requests, in ascending order: clients count up, and are answered in nearly that order, so
/// that what happens, happens at the ends.
#[derive(Debug, Default)]
pub(super) struct Ids(VecDeque<u64>);

impl Ids {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.0.back().is_some_and(|last| *last >= id) && self.0.binary_search(&id).is_ok()
    }

    /// Puts an id in that is not there.
    pub(super) fn insert(&mut self, id: u64) {
        let at = self.0.partition_point(|other| *other < id);
        self.0.insert(at, id);
    }

    /// Takes an id out; false = it is not there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let found = self.0.binary_search(&id);
        found.is_ok_and(|at| self.0.remove(at).is_some())
    }

    /// Gives the memory back, if there is nothing in it, but for what one request at a time needs.
    fn detach(&mut self) {
        if self.0.is_empty() && self.0.capacity() > 4 {
            self.0 = VecDeque::new();
        }
    }
}

/// The parts of a bulk insert that have come.
#[derive(Debug)]
pub(super) struct BulkParts {
    /// Frames, and what they took of the receive window.
    pub(super) parts: VecDeque<(Stored, u32)>,
    /// The last part has come.
    pub(super) is_whole: bool,
    /// The final reply was sent: what still comes is passed over.
    pub(super) is_over: bool,
    pub(super) window: ReceiveWindow,
}

/// The state of a connection.
pub(super) struct State {
    /// Something moved, so that another part may have work.
    pub(super) progress: bool,
    /// The driver has something to do that only a request brought about: a deadline, a cancel, a
    /// reply that waits for the client.
    pub(super) calls_driver: bool,
    pub(super) pipe: Pipe,
    pub(super) out: Outbox,
    pub(super) queue: Queue<Request>,
    /// Ids without a final reply.
    pub(super) pending: Ids,
    pub(super) bulks: HashMap<u64, BulkParts>,
    pub(super) current: Option<Current>,
    /// What comes after it for certain, in this order.
    pub(super) ahead: VecDeque<Ahead>,
    /// PostgreSQL was asked to cancel while something was sent ahead: it may have met that.
    pub(super) may_have_met: bool,
    /// A cancel request is on its way to PostgreSQL; nothing new begins before it has arrived.
    pub(super) is_cancelling: bool,
    pub(super) window: ReceiveWindow,
    /// As PostgreSQL last said.
    pub(super) tx: TxStatus,
    /// The client wants to go when everything is answered.
    pub(super) is_closing: bool,
    /// The relay has ended: what it has said is still passed on, nothing new begins.
    pub(super) has_lost_relay: bool,
    /// The client hears of notices, parameters and channels.
    pub(super) notifies: bool,
    /// A reply waits for room.
    is_blocked: bool,
    /// What PostgreSQL reports to a session like this, for the welcome.
    pub(super) parameters: Option<Vec<(String, String)>>,
}

/// The state behind its lock.
pub(super) struct Core {
    state: Mutex<State>,
    pub(super) metrics: Arc<Metrics>,
}

impl Core {
    pub(super) fn new(
        out: Outbox,
        window: u32,
        notifies: bool,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let state = State {
            progress: false,
            calls_driver: false,
            pipe: Pipe::default(),
            out,
            queue: Queue::default(),
            pending: Ids::default(),
            bulks: HashMap::new(),
            current: None,
            ahead: VecDeque::new(),
            may_have_met: false,
            is_cancelling: false,
            window: ReceiveWindow::new(window),
            tx: TxStatus::Idle,
            is_closing: false,
            has_lost_relay: false,
            notifies,
            is_blocked: false,
            parameters: None,
        };
        Arc::new(Self { state: Mutex::new(state), metrics })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The next request; `None` = there will be none.
    pub(super) async fn next_request(&self) -> Option<Request> {
        poll_fn(|_| {
            let mut state = self.lock();
            state.pass_on_asides();
            if state.is_cancelling || state.has_lost_relay {
                return Poll::Pending;
            }
            let in_transaction = state.tx != TxStatus::Idle;
            let now = state.out.now;
            match state.queue.pop(now, in_transaction) {
                Some(request) => {
                    self.metrics.native.queued.dec();
                    state.may_have_met = false;
                    state.begin(request.id);
                    state.free(request.payload);
                    Poll::Ready(Some(request))
                }
                None if state.is_closing => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The next request, while the present one is not answered yet: if `fits` says so, and nothing
    /// is open that it had to wait for.
    pub(super) fn take_ahead(&self, fits: impl Fn(&Request) -> bool) -> Option<Request> {
        let mut state = self.lock();
        let waits = state.tx != TxStatus::Idle
            || state.is_cancelling
            || state.is_unwanted()
            || state.pipe.up.rest().len() >= ROOM;
        if waits {
            return None;
        }
        let now = state.out.now;
        let request = state.queue.pop_if(now, fits)?;
        self.metrics.native.queued.dec();
        state.free(request.payload);
        let ahead = Ahead { id: request.id, is_sent: false, is_cancelled: false };
        state.ahead.push_back(ahead);
        Some(request)
    }

    /// The present request is carried out after the first `behind` of those taken ahead.
    pub(super) fn put_back(&self, id: u64, behind: usize) {
        let mut state = self.lock();
        let is_cancelled = state.current.take().is_some_and(|current| current.is_cancelled);
        state.ahead.insert(behind, Ahead { id, is_sent: false, is_cancelled });
    }

    /// The first of what was taken ahead becomes the present request. One that was not sent waits
    /// until no cancel request is on its way any more.
    pub(super) async fn begin_ahead(&self) {
        poll_fn(|_| {
            let mut state = self.lock();
            let waits = state.is_cancelling && !state.ahead.front().is_some_and(|a| a.is_sent);
            if waits {
                return Poll::Pending;
            }
            if let Some(ahead) = state.ahead.pop_front() {
                state.begin(ahead.id);
                state.calls_driver |= ahead.is_cancelled;
                if let Some(current) = &mut state.current {
                    current.is_running = ahead.is_sent;
                    current.is_cancelled = ahead.is_cancelled;
                }
            }
            Poll::Ready(())
        })
        .await
    }

    /// Sends a frame of the reply to a request as soon as there is room for it.
    pub(super) async fn reply(
        &self,
        more: bool,
        id: u64,
        stream: u64,
        mut write: impl FnMut(&mut Vec<u8>),
    ) -> Result<(), Violation> {
        let mut stalled = false;
        poll_fn(|_| {
            let mut state = self.lock();
            state.pass_on_asides();
            // Of a stream that nobody wants any more only the end is sent.
            let unwanted = stream != 0 && state.is_unwanted();
            if unwanted && more {
                return Poll::Ready(Ok(()));
            }
            if !state.out.has_room(if unwanted { 0 } else { stream }) {
                if !std::mem::replace(&mut stalled, true) {
                    self.metrics.native.sent.stalls.inc();
                    state.block();
                }
                return Poll::Pending;
            }
            state.is_blocked = false;
            state.progress = true;
            let flags = if more { flags::MORE } else { 0 };
            Poll::Ready(state.out.reply(flags, id, stream, &mut write))
        })
        .await
    }

    /// Hands bytes to the relay.
    pub(super) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let done: Result<(), Infallible> = self.try_send(|out| {
            write(out);
            Ok(())
        });
        let Ok(()) = done;
    }

    /// Hands bytes to the relay, unless they could not be written.
    ///
    /// # Errors
    /// What `write` says; nothing was sent then.
    pub(super) fn try_send<E>(
        &self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.lock();
        let out = state.pipe.up.tail();
        let before = out.len();
        if let Err(error) = write(out) {
            out.truncate(before);
            return Err(error);
        }
        state.progress = true;
        state.calls_driver |= state.is_cancelled();
        if let Some(current) = &mut state.current {
            current.is_running = true;
        }
        Ok(())
    }

    /// Feeds PostgreSQL's replies to `take` until it returns something. Notices, notifications and
    /// parameters are passed on by themselves.
    pub(super) async fn replies<T>(
        &self,
        mut take: impl FnMut(u8, Option<&[u8]>) -> Option<T>,
    ) -> T {
        poll_fn(|_| {
            let mut state = self.lock();
            let state = &mut *state;
            while let Some(reply) = state.pipe.front() {
                let whole = reply.whole;
                if is_aside(reply.tag) {
                    state.pass_on_asides();
                    continue;
                }
                if reply.tag == tag::READY_FOR_QUERY
                    && let Some(Ok(tx)) = reply.body.map(TxStatus::parse)
                {
                    state.tx = tx;
                }
                let taken = take(reply.tag, reply.body);
                state.pipe.pop(whole);
                state.progress = true;
                if let Some(taken) = taken {
                    return Poll::Ready(taken);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let parts: usize = state.bulks.values().map(|bulk| bulk.parts.len()).sum();
        let native = &self.metrics.native;
        native.queued.sub((state.queue.len() + parts) as i64);
        native.pending.sub(state.pending.len() as i64);
    }
}

impl State {
    fn begin(&mut self, id: u64) {
        self.progress = true;
        self.current = Some(Current {
            id,
            is_cancelled: false,
            wants_end: false,
            deadline: None,
            timed_out: false,
            is_running: false,
        });
    }

    fn block(&mut self) {
        self.is_blocked = true;
        self.out.credit_at = self.out.now;
        self.calls_driver = true;
    }

    fn is_unwanted(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.is_cancelled || current.wants_end)
    }

    /// An error of PostgreSQL that nobody has taken.
    pub(super) fn take_last_words(&mut self) -> Option<Box<native::ErrorBody>> {
        while let Some(reply) = self.pipe.front() {
            let (is_error, whole) = (reply.tag == tag::ERROR, reply.whole);
            let body = reply.body.unwrap_or_default().to_vec();
            self.pipe.pop(whole);
            if is_error {
                return Some(errors::of_postgres(&body, false, false));
            }
        }
        None
    }

    /// Gives back what an idle connection does not need.
    pub(super) fn rest(&mut self) {
        self.pipe.detach();
        self.out.ready.detach();
        if self.current.is_none() {
            self.pending.detach();
            self.queue.detach();
            if self.ahead.is_empty() && self.ahead.capacity() > 0 {
                self.ahead = VecDeque::new();
            }
        }
    }

    /// Since when the client has taken nothing of what waits for it.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let bytes = (!self.out.ready.is_empty()).then_some(self.out.progress_at);
        let waits = self.is_blocked || self.out.waits_for_credit();
        let credit = waits.then_some(self.out.credit_at);
        bytes.into_iter().chain(credit).min()
    }

    /// Bytes of the client are no longer held.
    pub(super) fn free(&mut self, payload: u32) {
        if let Some(credit) = self.window.free(payload) {
            self.grant(0, credit);
        }
    }

    /// Grants the client credit.
    pub(super) fn grant(&mut self, stream: u64, credit: u32) {
        self.out.urgent(flags::ONEWAY, 0, &Message::WindowUpdate { stream, credit });
        self.progress = true;
    }

    /// Whether the client has cancelled the present request, or its time is up.
    pub(super) fn is_cancelled(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.is_cancelled || current.timed_out)
    }

    /// Sends the final reply to a request, if there is room for it now; false = nothing was sent.
    pub(super) fn answer(&mut self, id: u64, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if !self.out.has_room(0) {
            return false;
        }
        self.is_blocked = false;
        self.progress = true;
        self.out.reply(0, id, 0, write).is_ok()
    }

    /// Passes on what PostgreSQL says without being asked, as far as it is at the front.
    pub(super) fn pass_on_asides(&mut self) {
        while let Some(reply) = self.pipe.front().filter(|reply| is_aside(reply.tag)) {
            let (body, whole) = (reply.body.unwrap_or_default(), reply.whole);
            let notification = match reply.tag {
                tag::NOTICE => notice(body),
                tag::PARAMETER_STATUS => parameter(body),
                _ => event(body),
            };
            if let Some(notification) = notification.filter(|_| self.notifies) {
                self.out.later(0, &Message::Notification(notification), true);
            }
            self.pipe.pop(whole);
            self.progress = true;
        }
    }
}

/// Whether PostgreSQL says this without being asked.
pub(super) fn is_aside(tag: u8) -> bool {
    matches!(tag, tag::NOTICE | tag::PARAMETER_STATUS | tag::NOTIFICATION)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn notice(body: &[u8]) -> Option<Notification> {
    let report = Report::parse(body).ok()?;
    let severity = match report.severity {
        b"WARNING" => NoticeSeverity::Warning,
        b"INFO" => NoticeSeverity::Info,
        b"LOG" => NoticeSeverity::Log,
        b"NOTICE" => NoticeSeverity::Notice,
        _ => NoticeSeverity::Debug,
    };
    let (sqlstate, message) = (text(report.sqlstate), text(report.message));
    Some(Notification::Notice { severity, sqlstate, message })
}

fn parameter(body: &[u8]) -> Option<Notification> {
    let (name, value) = parameter_status(body).ok()?;
    Some(Notification::ParameterStatus { name: text(name), value: text(value) })
}

fn event(body: &[u8]) -> Option<Notification> {
    let mut cursor = Cursor(body);
    let process_id = cursor.i32().ok()?;
    let (channel, payload) = (cursor.cstr().ok()?, cursor.cstr().ok()?);
    Some(Notification::Event { channel: text(channel), payload: text(payload), process_id })
}

/// PostgreSQL's status as the client is told.
pub(super) fn status(tx: TxStatus) -> native::TxStatus {
    match tx {
        TxStatus::Idle => native::TxStatus::Idle,
        TxStatus::Open => native::TxStatus::InTransaction,
        TxStatus::Failed => native::TxStatus::Failed,
    }
}
