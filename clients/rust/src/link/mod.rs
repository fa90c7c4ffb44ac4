//! One connection: a task moves frames between the socket and the requests that wait for replies.
//!
//! Requests are encoded straight into the buffer that is written next, so what is asked for at the
//! same time goes out in one write; replies are slices of the buffer they were read into.
//!
//! | Module | What it owns |
//! |---|---|
//! | [`socket`], [`tls`] | how the server is reached |
//! | [`login`], [`scram`] | from a socket to a session |
//! | [`slot`] | the replies to one request |
//! | [`urgent`] | credit, cancels and echoes, and how many of them at once |
//! | [`driver`] | the task |

mod driver;
mod login;
mod scram;
mod slot;
mod socket;
mod tls;
mod urgent;

#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod login_tests;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::driver::Driver;
use self::slot::Slot;
use self::urgent::Urgent;
use crate::config::{Config, Host};
use crate::error::{Error, Result};
use crate::protocol::compression;
use crate::protocol::frame::{self, flags};
use crate::protocol::wire::{Violation, Wire, Writer};
use crate::protocol::{Agreed, Bulk, ErrorBody, Message, Notification, ServerHello, TxStatus};

pub(crate) use self::login::LoggedIn;
pub use self::login::Session;
pub(crate) use self::slot::Reply;
pub(crate) use self::tls::Tls;

/// Bytes that wait to be written before senders wait.
const MOST_BUFFERED: usize = 1 << 20;

/// Notifications that wait to be taken; after that the oldest is dropped.
const MOST_EVENTS: usize = 1000;

/// Why a connection is of no further use.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    reason: Arc<str>,
    server: Option<Arc<ErrorBody>>,
}

impl Lost {
    pub(crate) fn new(reason: &str) -> Self {
        Self { reason: reason.into(), server: None }
    }

    fn by_server(error: ErrorBody) -> Self {
        Self { reason: error.message.as_str().into(), server: Some(Arc::new(error)) }
    }

    pub(crate) fn error(&self, sent: bool) -> Error {
        match &self.server {
            Some(body) if sent => Error::Server(Box::new((**body).clone())),
            _ => Error::Lost { reason: self.reason.to_string(), sent },
        }
    }
}

/// Ids are consecutive numbers, which need no hashing.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table looks at the highest bits too.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

type ById<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// What the task and the requests share.
struct Shared {
    state: Mutex<State>,
    /// A sender may have room now.
    room: Notify,
    agreed: Agreed,
    hello: ServerHello,
    session: Session,
    is_encrypted: bool,
    /// Most requests under way.
    most_pending: usize,
    /// How the session stood at the last reply that said so.
    status: AtomicU8,
    /// A request was given up, so the session may stand otherwise.
    is_unsure: AtomicBool,
    events: Mutex<Events>,
    /// An event has come, or the connection is lost.
    news: Notify,
}

struct State {
    /// Frames that are written next.
    out: Vec<u8>,
    next_id: u64,
    pending: ById<Arc<Slot>>,
    /// Bytes that may still be sent.
    window: i64,
    urgent: Urgent,
    /// Somebody waits for room.
    is_starved: bool,
    is_closing: bool,
    lost: Option<Lost>,
    /// The task has looked at `out` and must be told of what comes.
    is_asleep: bool,
    waker: Waker,
}

#[derive(Default)]
struct Events {
    queue: VecDeque<Notification>,
    parameters: Vec<(String, String)>,
    /// The server has said that it will stop.
    is_draining: bool,
}

impl State {
    /// Tells the task that there is something to write.
    fn wake(&mut self) {
        if std::mem::take(&mut self.is_asleep) {
            self.waker.wake_by_ref();
        }
    }
}

/// What is done about a request whose replies nobody wants any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// It is cancelled.
    Cancel,
    /// The bulk insert is aborted.
    Abort,
    /// The subscription is ended.
    Unsubscribe,
}

/// What kind of request it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Flags of its first frame.
    pub(crate) flags: u16,
    /// Whether its replies have a window of their own.
    pub(crate) is_stream: bool,
    pub(crate) give_up: GiveUp,
}

impl Kind {
    /// One request, replies at once.
    pub(crate) const PLAIN: Self = Self { flags: 0, is_stream: false, give_up: GiveUp::Cancel };
    /// Replies as they are wanted.
    pub(crate) const STREAM: Self = Self { is_stream: true, ..Self::PLAIN };
    /// Frames of ours as they are wanted.
    pub(crate) const BULK: Self =
        Self { flags: flags::MORE, is_stream: false, give_up: GiveUp::Abort };
    /// Replies until it is ended.
    pub(crate) const SUBSCRIPTION: Self =
        Self { flags: 0, is_stream: true, give_up: GiveUp::Unsubscribe };
}

/// Writes the body of a frame.
pub(crate) type Body<'a> = &'a (dyn Fn(&mut Writer<'_>) + Sync + 'a);

/// A connection; it is closed when this is dropped.
pub(crate) struct Link {
    shared: Arc<Shared>,
    host: Host,
}

/// A request that is under way. Dropped before its end, it is given up.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    id: u64,
    kind: Kind,
    is_done: bool,
    /// Our last frame said that more follow.
    is_open: bool,
}

impl Link {
    /// Connects to the first host that answers.
    pub(crate) async fn connect(config: &Config, tls: Option<&Tls>) -> Result<Self> {
        let mut last = Error::Config("no host is named".into());
        for host in &config.hosts {
            let attempt = async {
                let socket = socket::Socket::connect(host, config.tls, tls);
                let socket = socket
                    .await
                    .map_err(|e| Error::Connect(format!("cannot connect to {host}: {e}")))?;
                login::login(socket, config).await
            };
            let tried = match config.timeout {
                Some(limit) => tokio::time::timeout(limit, attempt)
                    .await
                    .unwrap_or_else(|_| Err(Error::Connect(format!("{host} does not answer")))),
                None => attempt.await,
            };
            match tried {
                Ok(session) => return Ok(Self::start(session, config, host.clone())),
                // Another host will not know better.
                Err(e) if e.sqlstate().starts_with("28") => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Starts the task of a session.
    fn start(session: LoggedIn, config: &Config, host: Host) -> Self {
        let LoggedIn { socket, input, agreed, hello, session, sent } = session;
        let window = i64::from(hello.connection_window) - i64::try_from(sent).unwrap_or(0);
        let state = State {
            out: Vec::new(),
            next_id: 3,
            pending: ById::default(),
            window,
            urgent: Urgent::new(config.stream_window, config.connection_window),
            is_starved: false,
            is_closing: false,
            lost: None,
            is_asleep: false,
            waker: Waker::noop().clone(),
        };
        let is_encrypted = socket.is_tls();
        let parameters = session.parameters.clone();
        let most = hello.max_pending_requests.min(hello.max_queued_requests).max(1);
        let pipelined = hello.capabilities & crate::protocol::capabilities::PIPELINING != 0;
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            room: Notify::new(),
            agreed,
            most_pending: if pipelined { most as usize } else { 1 },
            status: AtomicU8::new(0),
            is_unsure: AtomicBool::new(false),
            events: Mutex::new(Events { parameters, ..Events::default() }),
            news: Notify::new(),
            hello,
            session,
            is_encrypted,
        });
        tokio::spawn(Driver::new(shared.clone(), socket, input));
        Self { shared, host }
    }

    /// Sends a request as soon as there is room.
    pub(crate) async fn request(&self, kind: Kind, body: Body<'_>) -> Result<Pending> {
        self.shared.wait_for_room(|| self.shared.begin(kind, body)).await
    }

    /// Sends a request whose reply nobody waits for, whether there is room or not: it is what a
    /// dropped object leaves to be done, and small.
    pub(crate) fn detached(&self, message: &Message) {
        self.shared.detached(message);
    }

    /// Cancels everything that is under way.
    pub(crate) fn cancel_all(&self) {
        self.shared.cancel_all();
    }

    /// Something that can cancel, and keeps nothing alive.
    pub(crate) fn handle(&self) -> Handle {
        Handle(Arc::downgrade(&self.shared))
    }

    /// The next notification of the server.
    pub(crate) async fn event(&self) -> Result<Notification> {
        loop {
            let news = self.shared.news.notified();
            if let Some(event) = self.shared.events.lock().queue.pop_front() {
                return Ok(event);
            }
            if let Some(lost) = &self.shared.state.lock().lost {
                return Err(lost.error(true));
            }
            news.await;
        }
    }

    /// The value of a parameter that PostgreSQL reports.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let events = self.shared.events.lock();
        let mut same = events.parameters.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.next().map(|(_, value)| value.clone())
    }

    /// The next notification, if one has come.
    pub(crate) fn try_event(&self) -> Option<Notification> {
        self.shared.events.lock().queue.pop_front()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.shared.is_encrypted
    }

    pub(crate) fn hello(&self) -> &ServerHello {
        &self.shared.hello
    }

    pub(crate) fn session(&self) -> &Session {
        &self.shared.session
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.shared.state.lock().lost.is_some()
    }

    /// Whether the server has said that it will stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.events.lock().is_draining
    }

    /// Notes what a reply says about the session.
    pub(crate) fn note(&self, status: TxStatus) {
        self.shared.status.store(status as u8, Ordering::Relaxed);
    }

    /// How the session stood at the last reply that said so.
    pub(crate) fn status(&self) -> TxStatus {
        match self.shared.status.load(Ordering::Relaxed) {
            0 => TxStatus::Idle,
            1 => TxStatus::InTransaction,
            _ => TxStatus::Failed,
        }
    }

    /// Whether nothing is known to be open in the session; what was given up may have left
    /// something. Asking forgets that.
    pub(crate) fn settle(&self) -> bool {
        !self.shared.is_unsure.swap(false, Ordering::Relaxed) && self.status() == TxStatus::Idle
    }

    /// Says good-bye and waits until the server has closed.
    pub(crate) async fn close(&self) {
        self.shared.close();
        loop {
            let news = self.shared.news.notified();
            if self.is_lost() {
                return;
            }
            news.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Cancels on a connection, if that is still there.
#[derive(Clone)]
pub(crate) struct Handle(Weak<Shared>);

impl Handle {
    pub(crate) fn cancel_all(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.cancel_all();
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// What became of an attempt to send.
enum Attempt<T> {
    Done(T),
    NoRoom,
}

impl Shared {
    async fn wait_for_room<T>(&self, mut attempt: impl FnMut() -> Result<Attempt<T>>) -> Result<T> {
        loop {
            let room = self.room.notified();
            match attempt()? {
                Attempt::Done(value) => return Ok(value),
                Attempt::NoRoom => room.await,
            }
        }
    }

    /// Sends the first frame of a request.
    fn begin(self: &Arc<Self>, kind: Kind, body: Body<'_>) -> Result<Attempt<Pending>> {
        let mut state = self.state.lock();
        if state.pending.len() >= self.most_pending {
            state.is_starved = true;
            return Ok(Attempt::NoRoom);
        }
        let id = state.next_id;
        let Attempt::Done(length) = self.frame(&mut state, kind.flags, id, body)? else {
            return Ok(Attempt::NoRoom);
        };
        state.next_id += 1;
        let window = match kind.give_up {
            GiveUp::Abort => i64::from(self.hello.stream_window) - i64::from(length),
            _ => 0,
        };
        let slot = Arc::new(Slot::new(window, false));
        state.pending.insert(id, slot.clone());
        if kind.is_stream {
            state.urgent.open(id);
        }
        drop(state);
        Ok(Attempt::Done(Pending {
            shared: self.clone(),
            slot,
            id,
            kind,
            is_done: false,
            is_open: kind.flags & flags::MORE != 0,
        }))
    }

    /// Appends a frame if it may be sent now.
    fn frame(
        &self,
        state: &mut State,
        flags: u16,
        id: u64,
        body: Body<'_>,
    ) -> Result<Attempt<u32>> {
        if let Some(lost) = &state.lost {
            return Err(lost.error(false));
        }
        if state.is_closing {
            return Err(Lost::new("it is closed").error(false));
        }
        if state.window <= 0 || state.out.len() >= MOST_BUFFERED {
            state.is_starved = true;
            return Ok(Attempt::NoRoom);
        }
        let start = frame::begin(&mut state.out);
        body(&mut Writer::new(&mut state.out));
        let length = frame::finish(&mut state.out, start, flags, id, &self.agreed)?;
        state.window -= i64::from(length);
        state.wake();
        Ok(Attempt::Done(length))
    }

    fn detached(&self, message: &Message) {
        let mut state = self.state.lock();
        if state.lost.is_some() || state.is_closing {
            return;
        }
        let id = state.next_id;
        state.next_id += 1;
        self.append(&mut state, 0, id, message);
        state.pending.insert(id, Arc::new(Slot::new(0, true)));
        state.wake();
    }

    /// Appends a small frame, whether there is room or not.
    fn append(&self, state: &mut State, flags: u16, id: u64, message: &Message) {
        let start = frame::begin(&mut state.out);
        message.encode(&mut Writer::new(&mut state.out));
        if let Ok(length) = frame::finish(&mut state.out, start, flags, id, &self.agreed)
            && flags & frame::flags::URGENT == 0
        {
            state.window -= i64::from(length);
        }
    }

    fn cancel_all(&self) {
        let mut state = self.state.lock();
        let ids: Vec<u64> = state.pending.keys().copied().collect();
        ids.iter().for_each(|id| state.urgent.cancel(*id));
        state.wake();
    }

    /// Ends our side of a request, whether it has been answered or not.
    fn abort(&self, id: u64) {
        let mut state = self.state.lock();
        if state.lost.is_none() && !state.is_closing {
            let abort = Bulk::Abort { reason: "given up by the client".into() };
            self.append(&mut state, 0, id, &Message::BulkInsert(abort));
            state.wake();
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.is_closing = true;
        state.wake();
    }

    fn decompress(&self, body: &[u8]) -> Result<Bytes, Violation> {
        let mut out = Vec::new();
        let Agreed { compression, max_message_size, .. } = self.agreed;
        compression::decompress(compression, body, max_message_size, &mut out)?;
        Ok(out.into())
    }

    /// Ends everything that waits.
    fn lose(&self, lost: &Lost) {
        let pending = {
            let mut state = self.state.lock();
            if state.lost.is_none() {
                state.lost = Some(lost.clone());
            }
            std::mem::take(&mut state.pending)
        };
        pending.values().for_each(|slot| slot.lose(lost));
        self.room.notify_waiters();
        self.news.notify_waiters();
    }

    /// Returns credit for what has been used of a stream.
    fn consumed(&self, id: u64, payload: u32) {
        let mut state = self.state.lock();
        if state.urgent.consumed(id, payload) {
            state.wake();
        }
    }

    fn give_up(&self, id: u64, slot: &Slot, how: GiveUp) {
        // Also where the reply has come: nobody has seen what it says about the session.
        self.is_unsure.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        let unused = slot.abandon();
        if slot.is_done() || !state.pending.contains_key(&id) {
            return;
        }
        state.urgent.consumed(id, unused);
        match how {
            GiveUp::Cancel => state.urgent.cancel(id),
            // That was said already.
            GiveUp::Abort => {}
            GiveUp::Unsubscribe => {
                drop(state);
                return self.detached(&Message::Unsubscribe { target: id });
            }
        }
        state.wake();
    }
}

impl Pending {
    /// The next reply; there is none after one without `more`.
    pub(crate) async fn reply(&mut self) -> Result<Reply> {
        poll_fn(|cx| self.poll_reply(cx)).await
    }

    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        self.slot.poll(cx).map(|polled| match polled {
            Ok(mut reply) => {
                self.is_done = !reply.more;
                if self.kind.is_stream && reply.more {
                    self.shared.consumed(self.id, reply.payload);
                }
                if std::mem::take(&mut reply.is_compressed) {
                    reply.body = self.shared.decompress(&reply.body)?;
                }
                Ok(reply)
            }
            Err(lost) => {
                self.is_done = true;
                Err(lost.error(true))
            }
        })
    }

    /// Whether the final reply has been taken.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Notes what a reply says about the session.
    pub(crate) fn note(&self, status: TxStatus) {
        self.shared.status.store(status as u8, Ordering::Relaxed);
    }

    /// Notes that a statement has failed, and with it the transaction that it ran in.
    pub(crate) fn note_failure(&self) {
        let (open, failed) = (TxStatus::InTransaction as u8, TxStatus::Failed as u8);
        let order = Ordering::Relaxed;
        let _ = self.shared.status.compare_exchange(open, failed, order, order);
    }

    /// Asks the server to stop; the request ends with an error, or as if nothing had been asked.
    pub(crate) fn cancel(&self) {
        let mut state = self.shared.state.lock();
        state.urgent.cancel(self.id);
        state.wake();
    }

    /// Sends a further frame of the request as soon as there is room; false = a reply has come,
    /// and nothing more is wanted.
    pub(crate) async fn send(&mut self, flags: u16, body: Body<'_>) -> Result<bool> {
        let attempt = || {
            if self.slot.has_reply() {
                return Ok(Attempt::Done(false));
            }
            let mut state = self.shared.state.lock();
            if self.slot.window() <= 0 && state.lost.is_none() {
                state.is_starved = true;
                return Ok(Attempt::NoRoom);
            }
            Ok(match self.shared.frame(&mut state, flags, self.id, body)? {
                Attempt::Done(length) => {
                    self.slot.spend(length);
                    Attempt::Done(true)
                }
                Attempt::NoRoom => Attempt::NoRoom,
            })
        };
        let was_sent = self.shared.wait_for_room(attempt).await?;
        self.is_open &= !was_sent || flags & frame::flags::MORE != 0;
        Ok(was_sent)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_open {
            self.shared.abort(self.id);
        }
        if !self.is_done {
            self.shared.give_up(self.id, &self.slot, self.kind.give_up);
        }
    }
}
