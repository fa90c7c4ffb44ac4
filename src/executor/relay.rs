//! The relay: a PostgreSQL client's bytes to a backend and back.
//!
//! One task drives both directions, so neither waits for the other: each has one window of bytes,
//! which is read only when it is empty and written as soon as it is not. A client that does not
//! read therefore stops its backend's socket from being read, and nothing else. Between requests
//! neither window holds memory, and between transactions there is no backend.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;

use super::mux::{Mux, Refused, rule};
use super::replies::{put_owed, scan_replies, tell_parameters};
use super::{Executor, Work};
use crate::backend::{BackendConn, ConnState, READ_LARGE, READ_SMALL};
use crate::error::{Error, ErrorKind};
use crate::net::Stream;
use crate::pool::{CancelSlot, Demand, Lease};
use crate::proto::backend::TxStatus;
use crate::proto::frame::{FrameBuf, HEADER, Scanner, Step};
use crate::proto::frontend::{self, tag};
use crate::telemetry::Tally;
use crate::types::Protocol;

/// A client that speaks PostgreSQL's protocol, or is translated to it, after its log-in.
pub struct Client {
    /// The socket.
    pub stream: Stream,
    inbound: FrameBuf,
    /// Something came before the session began, and was not looked at yet.
    has_ahead: bool,
    scanner: Scanner,
    /// The client said goodbye; what it sent before is still carried out.
    leaving: bool,
    /// Bytes of the goodbye that were passed on.
    goodbye_passed: usize,
    /// An extended batch was refused: what comes before its Sync is passed over.
    skipping: bool,
    /// A Parse of the unnamed statement was among what was refused: the one before is not meant.
    lost_unnamed: bool,
    received: u64,
    sent: u64,
}

/// Why the relay came back.
#[derive(Debug)]
pub enum Pause {
    /// The client sent something and there is no backend to send it to.
    NeedsBackend,
    /// The backend is there, and the session's settings must be put in force on it first.
    NeedsSettings,
    /// The session keeps a connection that others wait for: a look may free it.
    NeedsProbe,
    /// The session keeps its connection and has been idle for a while.
    Rests,
    /// The session keeps its connection from now on, and a look may free it when it is idle.
    Held,
    /// The client has released its pooled session.
    Released,
    /// The client holds a pooled session and has not asked for anything for too long.
    Thinks,
    /// A batch that was refused is over: the client is to be told that it may go on.
    Skipped,
    /// The client said goodbye, and everything before it is done.
    Terminated,
    /// The client is gone without a goodbye.
    ClientGone,
    /// The backend closed the connection; its last words have been passed on.
    BackendGone,
    /// The session was told to stop; the client is to be told why.
    Stopped,
    /// The client broke the protocol, or the backend was lost: the client is to be told.
    Fatal(Error),
}

impl Client {
    /// A client whose next byte begins a message; `ahead` are bytes that were read already.
    pub fn new(stream: Stream, ahead: &[u8]) -> Self {
        Self {
            stream,
            inbound: FrameBuf::of(ahead),
            has_ahead: !ahead.is_empty(),
            scanner: Scanner::default(),
            leaving: false,
            goodbye_passed: 0,
            skipping: false,
            lost_unnamed: false,
            received: 0,
            sent: 0,
        }
    }

    /// Bytes (received, sent) since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.received), std::mem::take(&mut self.sent))
    }

    /// Whether the client is between two messages and nothing of it waits.
    fn is_quiet(&self) -> bool {
        self.inbound.is_empty() && self.scanner.at_boundary()
    }

    /// Whether it has sent something that was not passed on.
    pub fn has_input(&self) -> bool {
        !self.is_quiet() || self.stream.has_input()
    }

    /// While there is no backend: what the bytes at hand ask for. Data of a COPY that is over is
    /// passed over, as PostgreSQL does.
    fn first_request(&mut self) -> Result<First, Error> {
        loop {
            let in_the_middle = !self.scanner.at_boundary();
            match self.scanner.step(self.inbound.unscanned(), rule) {
                Step::Pass(n) => self.discard(n),
                Step::More(_) if in_the_middle => return Ok(First::Incomplete),
                Step::More(_) => {
                    let many = self.inbound.unscanned().len() >= READ_LARGE;
                    return Ok(if many { First::Request } else { First::Incomplete });
                }
                Step::Begin { tag: tag::TERMINATE, .. } => {
                    self.scanner = Scanner::default();
                    return Ok(First::Goodbye);
                }
                Step::Begin { tag: tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL, .. } => {
                    self.discard(HEADER);
                }
                Step::Begin { tag: tag::SYNC, body: 0 } if self.skipping => {
                    self.skipping = false;
                    self.discard(HEADER);
                    self.has_ahead = !self.inbound.is_empty();
                    return Ok(First::Skipped);
                }
                Step::Begin { tag, .. } if self.skipping && tag != tag::SYNC => {
                    self.discard_request(tag);
                }
                Step::Whole { tag, body } if self.skipping && frontend::is_known(tag) => {
                    self.discard_request(tag);
                    self.discard(body);
                }
                Step::Begin { tag, .. } | Step::Whole { tag, .. } if frontend::is_known(tag) => {
                    self.skipping = false;
                    // It is looked at again when there is a backend.
                    self.scanner = Scanner::default();
                    return Ok(First::Request);
                }
                Step::Begin { tag, .. } | Step::Whole { tag, .. } => return Err(unknown(tag)),
                Step::Invalid { tag, length } => return Err(invalid(tag, length)),
            }
        }
    }

    /// Discards the header of a request that is refused. PostgreSQL drops the unnamed statement
    /// before it reads the text of the next (`exec_parse_message`).
    fn discard_request(&mut self, tag: u8) {
        let is_unnamed = || self.inbound.unscanned().get(HEADER).is_none_or(|byte| *byte == 0);
        self.lost_unnamed |= tag == tag::QUERY || tag == tag::PARSE && is_unnamed();
        self.discard(HEADER);
    }

    /// Whether the unnamed statement is gone with a request that was refused.
    pub fn has_lost_unnamed(&mut self) -> bool {
        std::mem::take(&mut self.lost_unnamed)
    }

    fn discard(&mut self, bytes: usize) {
        self.inbound.mark_scanned(bytes);
        self.inbound.consume_scanned();
    }

    /// Moves over what is understood of the client's bytes, which go to this backend.
    fn scan(
        &mut self,
        mux: &mut Mux,
        state: &mut ConnState,
        idle: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let looks = !mux.is_session_mode();
        let rule = if looks { rule } else { frontend::session_rule };
        while state.expect.has_room() {
            let (tag, body, begins) = match self.scanner.step(self.inbound.unscanned(), rule) {
                Step::Pass(n) => {
                    self.inbound.mark_scanned(n);
                    continue;
                }
                Step::More(_) => return Ok(()),
                Step::Begin { tag: tag::TERMINATE, .. } => {
                    self.leaving = true;
                    return Ok(());
                }
                Step::Begin { tag, .. } | Step::Whole { tag, .. } if !frontend::is_known(tag) => {
                    return Err(unknown(tag));
                }
                Step::Begin { tag, body } => (tag, body, true),
                Step::Whole { tag, body } => (tag, body, false),
                Step::Invalid { tag, length } => return Err(invalid(tag, length)),
            };
            if !looks {
                state.expect.sent(tag);
                self.inbound.mark_scanned(HEADER);
                continue;
            }
            let taken = mux.outgoing(state, &mut self.inbound, tag, body, idle);
            let Some(taken) = taken.map_err(|Refused(error)| error)? else {
                // It is looked at again when what it waits for is there.
                self.scanner = Scanner::default();
                return Ok(());
            };
            if begins {
                self.scanner.took(taken);
            }
        }
        Ok(())
    }
}

/// Gives a connection back although statements are prepared on it under the client's names.
pub fn leave(lease: &mut Option<Lease>, mux: &mut Mux) {
    if let Some(mut lease) = lease.take() {
        let conn = lease.conn();
        mux.carry_off(&mut conn.state);
        mux.leaves(&mut conn.state);
        conn.inbound.detach();
        lease.release();
    }
}

/// What a client wants that has no backend.
enum First {
    Incomplete,
    Request,
    /// The end of a batch that was refused.
    Skipped,
    Goodbye,
}

fn unknown(tag: u8) -> Error {
    Error::new(ErrorKind::ProtocolViolation, format!("invalid frontend message type {tag}"))
}

fn invalid(tag: u8, length: u32) -> Error {
    match frontend::is_known(tag) {
        true => {
            Error::new(ErrorKind::ProtocolViolation, format!("invalid message length {length}"))
        }
        false => unknown(tag),
    }
}

/// What the relay works with, beside the client.
pub struct Link<'a> {
    /// Executor.
    pub executor: &'a Executor,
    /// The door that the client came through.
    pub protocol: Protocol,
    /// The connection, while there is one.
    pub lease: &'a mut Option<Lease>,
    /// The session's state.
    pub mux: &'a mut Mux,
    /// What connection the session needs.
    pub demand: &'a Demand,
    /// Leads a cancel request to the connection.
    pub slot: &'a Arc<CancelSlot>,
    /// Somebody looks at the session when it was idle for long.
    pub has_timer: bool,
    /// The request in work; it outlives a relay that is dropped on the way.
    pub work: &'a mut Option<Work>,
    /// Counts what the session does.
    pub tally: &'a Arc<Tally>,
}

/// Relays until something else has to be done. `stop` is polled whenever the relay has nothing to
/// do; it registers the task for a wake-up and tells whether the session must end now, given
/// whether it is idle.
pub async fn run(
    mut link: Link<'_>,
    client: &mut Client,
    mut stop: impl FnMut(&mut Context<'_>, bool) -> bool,
) -> Pause {
    let mut awaits_client = false;
    poll_fn(|cx| {
        let waits =
            Waits { client: awaits_client && !client.stream.may_have_input(), backend: false };
        let mut relay = Relay { link: &mut link, client, waits };
        if let Poll::Ready(pause) = relay.poll(cx) {
            return Poll::Ready(pause);
        }
        // Who has used up its time slice was not written down.
        awaits_client = relay.waits.client && has_budget_remaining();
        match stop(cx, relay.is_idle()) {
            true => Poll::Ready(Pause::Stopped),
            false => Poll::Pending,
        }
    })
    .await
}

/// Whether a connection can serve what the client has sent. One on which others have made settings
/// that the client asks for, without having made them itself, cannot: it must not find them.
pub fn suits(client: &Client, mux: &Mux, conn: &BackendConn) -> bool {
    conn.state.foreign.is_empty() || !mux.asks_for_foreign(&conn.state, client.inbound.unscanned())
}

/// Brings a session to a connection that it has just got.
pub fn attach(client: &mut Client, mux: &mut Mux, slot: &CancelSlot, conn: &mut BackendConn) {
    let batch = mux.attach(&mut conn.state);
    if !batch.is_empty() {
        slot.hide();
        client.inbound.put_scanned(&batch);
    } else {
        tell_parameters(mux, &conn.state, &mut conn.inbound);
    }
}

/// Understands what came behind the answer to a request of our own, which was read with it.
pub fn catch_up(
    conn: &mut BackendConn,
    mux: &mut Mux,
    slot: &Arc<CancelSlot>,
    work: &mut Option<Work>,
) -> Result<(), Error> {
    match conn.inbound.unscanned().is_empty() {
        true => Ok(()),
        false => scan_replies(conn, mux, slot, work),
    }
}

struct Relay<'a, 'b> {
    link: &'a mut Link<'b>,
    client: &'a mut Client,
    waits: Waits,
}

/// Which sockets had nothing to read since the task was woken. The event loop, which alone knows
/// better, runs only after the task: asking again before that is in vain. The client's socket is
/// asked only when the event loop has told of something since the task was written down there.
#[derive(Default)]
struct Waits {
    client: bool,
    backend: bool,
}

/// The result of one look at one direction.
enum Flow {
    /// Bytes moved; look again.
    Moved,
    /// Nothing to do until a socket changes.
    Blocked,
}

impl Relay<'_, '_> {
    fn conn(&mut self) -> Option<&mut BackendConn> {
        self.link.lease.as_mut().map(Lease::conn)
    }

    /// Whether the client waits for nothing and is outside a transaction.
    fn is_idle(&mut self) -> bool {
        let backend_idle =
            self.conn().is_none_or(|conn| conn.state.is_idle() && conn.state.tx == TxStatus::Idle);
        backend_idle && self.client.is_quiet()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        loop {
            let moved_down = match self.poll_down(cx) {
                Ok(flow) => matches!(flow, Flow::Moved),
                Err(pause) => return Poll::Ready(pause),
            };
            if let Some(pause) = self.settle() {
                return Poll::Ready(pause);
            }
            let moved_up = match self.poll_up(cx) {
                Ok(flow) => matches!(flow, Flow::Moved),
                Err(pause) => return Poll::Ready(pause),
            };
            if !moved_down && !moved_up {
                self.client.inbound.detach();
                if let Some(conn) = self.conn() {
                    conn.inbound.detach();
                }
                return Poll::Pending;
            }
        }
    }

    /// Between two requests, and between two transactions: the books are closed, and the
    /// connection goes back unless something holds the session on it.
    fn settle(&mut self) -> Option<Pause> {
        let conn = self.link.lease.as_mut().map(Lease::conn)?;
        if !conn.is_reusable() || !self.client.is_quiet() {
            return None;
        }
        *self.link.work = None;
        if conn.state.tx != TxStatus::Idle {
            return None;
        }
        let mux = &mut *self.link.mux;
        let pool = self.link.executor.pool();
        let may_go = mux.settle() || pool.is_wanted() && mux.settle_wanted();
        if mux.pins().bits() != self.link.tally.pinned() {
            self.link.executor.note_pins(self.link.protocol, mux.pins(), self.link.tally);
        }
        if may_go {
            mux.leaves(&mut conn.state);
            conn.inbound.detach();
            if let Some(lease) = self.link.lease.take() {
                lease.release();
            }
            return None;
        }
        if mux.releases_pooled() {
            return Some(Pause::Released);
        }
        if mux.wants_pooled() && mux.wants_probe() {
            return Some(Pause::NeedsProbe);
        }
        let waits = !self.link.has_timer && mux.next_look(Duration::ZERO).is_some();
        if !pool.is_wanted() {
            return waits.then_some(Pause::Held);
        }
        if mux.wants_probe() {
            return Some(Pause::NeedsProbe);
        }
        if mux.can_be_carried() {
            leave(self.link.lease, mux);
            return None;
        }
        waits.then_some(Pause::Held)
    }

    /// Backend → client.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        let Some(conn) = self.link.lease.as_mut().map(Lease::conn) else {
            return Ok(Flow::Blocked);
        };
        if !conn.inbound.scanned().is_empty() {
            return self.write_down(cx);
        }
        if self.waits.backend {
            return Ok(Flow::Blocked);
        }
        // A large result is read in large pieces, a small one in one small piece.
        let room = if conn.scanner.at_boundary() { READ_SMALL } else { READ_LARGE };
        let room = room.max(conn.inbound.capacity().min(READ_LARGE));
        match read(&mut conn.stream, cx, &mut conn.inbound, room) {
            Poll::Pending => {
                self.waits.backend = true;
                conn.gather.poll_patience(cx, &conn.stream);
                return Ok(Flow::Blocked);
            }
            Poll::Ready(Ok(0) | Err(_)) if self.client.goodbye_passed > 0 => {
                return Err(Pause::Terminated);
            }
            Poll::Ready(Ok(0)) => return Err(backend_closed(conn, None)),
            Poll::Ready(Err(e)) => return Err(backend_closed(conn, Some(e))),
            Poll::Ready(Ok(n)) => conn.gather.read(n, &conn.stream),
        }
        scan_replies(conn, self.link.mux, self.link.slot, self.link.work).map_err(Pause::Fatal)?;
        if conn.state.is_idle() {
            conn.gather.end(&conn.stream);
        }
        self.write_down(cx)?;
        Ok(Flow::Moved)
    }

    fn write_down(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        let Some(conn) = self.link.lease.as_mut().map(Lease::conn) else {
            return Ok(Flow::Blocked);
        };
        let bytes = conn.inbound.scanned();
        if bytes.is_empty() {
            return Ok(Flow::Blocked);
        }
        match self.client.stream.poll_write(cx, bytes) {
            Poll::Pending => Ok(Flow::Blocked),
            Poll::Ready(Ok(n)) if n > 0 => {
                self.client.sent += n as u64;
                conn.inbound.consume(n);
                Ok(Flow::Moved)
            }
            Poll::Ready(_) => Err(Pause::ClientGone),
        }
    }

    /// Client → backend.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        let attached = self.link.lease.is_some();
        if attached && !self.client.leaving && !self.client.inbound.unscanned().is_empty() {
            self.scan_up()?;
        }
        if !self.client.inbound.scanned().is_empty() {
            return self.write_up(cx);
        }
        if self.client.leaving {
            return self.pass_goodbye(cx);
        }
        if self.conn().is_some_and(|conn| !conn.state.expect.has_room()) {
            return Ok(Flow::Blocked);
        }
        if !std::mem::take(&mut self.client.has_ahead) {
            if self.waits.client {
                return Ok(Flow::Blocked);
            }
            let room = if self.client.scanner.at_boundary() { READ_SMALL } else { READ_LARGE };
            match read(&mut self.client.stream, cx, &mut self.client.inbound, room) {
                Poll::Pending => {
                    self.waits.client = true;
                    return Ok(Flow::Blocked);
                }
                Poll::Ready(Ok(n)) if n > 0 => self.client.received += n as u64,
                Poll::Ready(_) => return Err(Pause::ClientGone),
            }
        }
        if self.link.lease.is_none() && !self.find_backend()? {
            return Ok(Flow::Moved);
        }
        self.scan_up()?;
        if !self.client.inbound.scanned().is_empty() {
            self.write_up(cx)?;
        }
        Ok(Flow::Moved)
    }

    /// Takes a connection for what the client has sent, if one is free; `false` = it did not
    /// send a request yet.
    fn find_backend(&mut self) -> Result<bool, Pause> {
        match self.client.first_request().map_err(Pause::Fatal)? {
            First::Incomplete => return Ok(false),
            First::Skipped => return Err(Pause::Skipped),
            First::Goodbye => return Err(Pause::Terminated),
            First::Request => {}
        }
        if self.link.mux.uses_pooled() {
            return Err(Pause::NeedsBackend);
        }
        let pool = self.link.executor.pool();
        let mut lease = loop {
            let lease = pool.try_acquire(self.link.demand, self.link.slot);
            let mut lease = lease.ok_or(Pause::NeedsBackend)?;
            if suits(self.client, self.link.mux, lease.conn()) {
                break lease;
            }
            lease.retire();
        };
        let conn = lease.conn();
        let harmless = self.link.mux.attaches_harmlessly(&conn.state);
        if harmless {
            attach(self.client, self.link.mux, self.link.slot, conn);
        }
        *self.link.lease = Some(lease);
        self.waits.backend = false;
        if harmless { Ok(true) } else { Err(Pause::NeedsSettings) }
    }

    /// Looks at the client's bytes.
    fn scan_up(&mut self) -> Result<(), Pause> {
        let Some(conn) = self.link.lease.as_mut().map(Lease::conn) else { return Ok(()) };
        let between = conn.state.is_idle() && conn.state.tx == TxStatus::Idle;
        if between && !self.link.mux.is_attached(&conn.state) && self.client.scanner.at_boundary() {
            // After a RESET the session has the value of its own start-up packet.
            let batch = self.link.mux.attach(&mut conn.state);
            if !batch.is_empty() {
                self.link.mux.knows(&conn.state);
                self.link.slot.hide();
                self.client.inbound.put_scanned(&batch);
            }
        }
        let pool = self.link.executor.pool();
        let mut idle = || pool.close_idle();
        let scanned = self.client.scan(self.link.mux, &mut conn.state, &mut idle);
        scanned.map_err(Pause::Fatal)?;
        // A Parse that needs no server is answered here, when the client asked for a Flush.
        put_owed(conn.state.expect.flush_owed(), &mut conn.inbound);
        Ok(())
    }

    /// What the client sent before its goodbye is still carried out. How long that takes, only
    /// PostgreSQL knows: it gets the goodbye too, and closes the connection when it is done.
    fn pass_goodbye(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        const GOODBYE: [u8; HEADER] = [tag::TERMINATE, 0, 0, 0, 4];
        let Some(conn) = self.link.lease.as_mut().map(Lease::conn) else {
            return Err(Pause::Terminated);
        };
        let passed = &mut self.client.goodbye_passed;
        if *passed == 0 && conn.is_reusable() {
            return Err(Pause::Terminated);
        }
        if *passed == HEADER {
            return Ok(Flow::Blocked);
        }
        match conn.stream.poll_write(cx, &GOODBYE[*passed..]) {
            Poll::Pending => Ok(Flow::Blocked),
            Poll::Ready(Ok(n)) => {
                *passed += n;
                Ok(Flow::Moved)
            }
            Poll::Ready(Err(_)) => Err(Pause::Terminated),
        }
    }

    fn write_up(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        let Some(conn) = self.link.lease.as_mut().map(Lease::conn) else {
            return Err(Pause::NeedsBackend);
        };
        if self.link.work.is_none() {
            let looked_at = !self.link.mux.is_session_mode();
            let sql = if looked_at { &[] } else { frontend::sql_of(self.client.inbound.scanned()) };
            let (executor, tally) = (self.link.executor, self.link.tally);
            *self.link.work = Some(executor.admit(self.link.protocol, sql, tally));
            if self.link.mux.may_want_names() {
                self.link.executor.refresh(self.link.mux.database());
            }
        }
        match conn.stream.poll_write(cx, self.client.inbound.scanned()) {
            Poll::Pending => Ok(Flow::Blocked),
            Poll::Ready(Ok(n)) if n > 0 => {
                self.client.inbound.consume(n);
                Ok(Flow::Moved)
            }
            // Its last words may still be in the socket; reading finds them and the end.
            Poll::Ready(_) if conn.state.fatal => Ok(Flow::Blocked),
            Poll::Ready(Ok(_)) => Err(backend_closed(conn, None)),
            Poll::Ready(Err(e)) => Err(backend_closed(conn, Some(e))),
        }
    }
}

/// Forgets the first request that waits for a backend, and says how much of it there was. What of
/// it is still to come will be passed over.
pub fn drop_request(client: &mut Client) -> Dropped {
    let dropped = drop_first(client);
    // What came behind it is not seen by reading the socket.
    client.has_ahead = !client.inbound.is_empty();
    dropped
}

fn drop_first(client: &mut Client) -> Dropped {
    let mut extended = false;
    loop {
        let step = client.scanner.step(client.inbound.unscanned(), frontend::session_rule);
        let tag = match step {
            Step::Pass(n) => {
                client.discard(n);
                continue;
            }
            Step::Begin { tag, .. } => tag,
            _ => break,
        };
        if extended && matches!(tag, tag::QUERY | tag::FUNCTION_CALL | tag::TERMINATE) {
            client.scanner = Scanner::default();
            break;
        }
        client.discard_request(tag);
        match tag {
            tag::QUERY | tag::FUNCTION_CALL | tag::SYNC => {
                pass_over(client);
                return Dropped::Whole;
            }
            _ => extended = true,
        }
    }
    client.skipping = extended;
    Dropped::Batch
}

/// Discards what is there of the body of a message.
fn pass_over(client: &mut Client) {
    if client.scanner.at_boundary() {
        return;
    }
    if let Step::Pass(n) = client.scanner.step(client.inbound.unscanned(), frontend::session_rule) {
        client.discard(n);
    }
}

/// What was forgotten of a client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A request to which ReadyForQuery belongs.
    Whole,
    /// The beginning of an extended batch; the rest up to its Sync will be passed over.
    Batch,
}

fn read(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    into: &mut FrameBuf,
    room: usize,
) -> Poll<io::Result<usize>> {
    let read = stream.poll_read_into(cx, || into.tail(room));
    if read.is_pending() {
        into.detach();
    }
    read
}

/// After its own FATAL the backend may close; otherwise the client must be told.
fn backend_closed(conn: &BackendConn, cause: Option<io::Error>) -> Pause {
    if conn.state.fatal {
        return Pause::BackendGone;
    }
    let cause = cause.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
    Pause::Fatal(Error::backend_lost(cause))
}
