//! The relay: a PostgreSQL client's bytes to a backend and back, untouched.
//!
//! One task drives both directions, so neither waits for the other: each has one window of bytes,
//! which is read only when it is empty and written as soon as it is not. A client that does not
//! read therefore stops its backend's socket from being read, and nothing else. Between requests
//! neither window holds memory.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::{Executor, Work};
use crate::backend::{BackendConn, READ_LARGE, READ_SMALL};
use crate::error::{Error, ErrorKind};
use crate::net::Stream;
use crate::pool::Lease;
use crate::proto::backend::{self as replies, Report, command_complete};
use crate::proto::frame::{FrameBuf, HEADER, Scanner, Step};
use crate::proto::frontend::{self, tag};
use crate::types::Protocol;

/// A PostgreSQL client after its log-in.
pub struct Client {
    /// The socket.
    pub stream: Stream,
    inbound: FrameBuf,
    scanner: Scanner,
    /// The client said goodbye; what it sent before is still carried out.
    leaving: bool,
    /// Bytes of the goodbye that were passed on.
    goodbye_passed: usize,
    received: u64,
    sent: u64,
}

/// Why the relay came back.
#[derive(Debug)]
pub enum Pause {
    /// The client sent something and there is no backend to send it to.
    NeedsBackend,
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
    /// A client whose next byte begins a message.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            inbound: FrameBuf::default(),
            scanner: Scanner::default(),
            leaving: false,
            goodbye_passed: 0,
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

    /// Moves over what is understood of the client's bytes; `sent` learns of every message.
    fn scan(&mut self, mut sent: impl FnMut(u8)) -> Result<(), Error> {
        loop {
            match self.scanner.step(self.inbound.unscanned(), frontend::session_rule) {
                Step::Pass(n) => self.inbound.mark_scanned(n),
                Step::Begin { tag: tag::TERMINATE, .. } => {
                    self.leaving = true;
                    return Ok(());
                }
                Step::Begin { tag, .. } if frontend::is_known(tag) => {
                    sent(tag);
                    self.inbound.mark_scanned(HEADER);
                }
                Step::More(_) => return Ok(()),
                Step::Begin { tag, .. } | Step::Whole { tag, .. } => {
                    let text = format!("invalid frontend message type {tag}");
                    return Err(Error::new(ErrorKind::ProtocolViolation, text));
                }
                Step::Invalid { tag, length } => {
                    let known = frontend::is_known(tag);
                    let text = match known {
                        true => format!("invalid message length {length}"),
                        false => format!("invalid frontend message type {tag}"),
                    };
                    return Err(Error::new(ErrorKind::ProtocolViolation, text));
                }
            }
        }
    }
}

/// Relays until something else has to be done. `stop` is polled whenever the relay has nothing to
/// do; it registers the task for a wake-up and tells whether the session must end now, given
/// whether it is idle.
pub async fn run(
    executor: &Executor,
    client: &mut Client,
    lease: Option<&mut Lease>,
    mut stop: impl FnMut(&mut Context<'_>, bool) -> bool,
) -> Pause {
    let mut conn = lease.map(Lease::conn);
    let mut work = None;
    poll_fn(|cx| {
        let mut relay = Relay { executor, client, conn: conn.as_deref_mut(), work: &mut work };
        match relay.poll(cx) {
            Poll::Ready(pause) => Poll::Ready(pause),
            Poll::Pending if stop(cx, relay.is_idle()) => Poll::Ready(Pause::Stopped),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

struct Relay<'a> {
    executor: &'a Executor,
    client: &'a mut Client,
    conn: Option<&'a mut BackendConn>,
    work: &'a mut Option<Work>,
}

/// The result of one look at one direction.
enum Flow {
    /// Bytes moved; look again.
    Moved,
    /// Nothing to do until a socket changes.
    Blocked,
}

impl Relay<'_> {
    /// Whether the client waits for nothing and is outside a transaction.
    fn is_idle(&self) -> bool {
        let backend_idle = self.conn.as_ref().is_none_or(|conn| {
            conn.state.is_idle() && conn.state.tx == crate::proto::backend::TxStatus::Idle
        });
        backend_idle && self.client.is_quiet()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        loop {
            let moved_down = match self.poll_down(cx) {
                Ok(flow) => matches!(flow, Flow::Moved),
                Err(pause) => return Poll::Ready(pause),
            };
            self.settle_if_done();
            let moved_up = match self.poll_up(cx) {
                Ok(flow) => matches!(flow, Flow::Moved),
                Err(pause) => return Poll::Ready(pause),
            };
            if !moved_down && !moved_up {
                self.client.inbound.detach();
                if let Some(conn) = &mut self.conn {
                    conn.inbound.detach();
                }
                return Poll::Pending;
            }
        }
    }

    fn settle_if_done(&mut self) {
        if self.work.is_some() && self.conn.as_ref().is_none_or(|conn| conn.is_reusable()) {
            *self.work = None;
        }
    }

    /// Backend → client.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        let Some(conn) = &mut self.conn else { return Ok(Flow::Blocked) };
        let bytes = conn.inbound.scanned();
        if !bytes.is_empty() {
            return match self.client.stream.poll_write(cx, bytes) {
                Poll::Pending => Ok(Flow::Blocked),
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.client.sent += n as u64;
                    conn.inbound.consume(n);
                    Ok(Flow::Moved)
                }
                Poll::Ready(_) => Err(Pause::ClientGone),
            };
        }
        // A large result is read in large pieces, a small one in one small piece.
        let room = if conn.scanner.at_boundary() { READ_SMALL } else { READ_LARGE };
        let room = room.max(conn.inbound.capacity().min(READ_LARGE));
        match read(&mut conn.stream, cx, &mut conn.inbound, room) {
            Poll::Pending => return Ok(Flow::Blocked),
            Poll::Ready(Ok(0) | Err(_)) if self.client.goodbye_passed > 0 => {
                return Err(Pause::Terminated);
            }
            Poll::Ready(Ok(0)) => return Err(backend_closed(conn, None)),
            Poll::Ready(Err(e)) => return Err(backend_closed(conn, Some(e))),
            Poll::Ready(Ok(_)) => {}
        }
        scan_replies(conn, self.work).map_err(Pause::Fatal)?;
        Ok(Flow::Moved)
    }

    /// Client → backend.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        if !self.client.inbound.scanned().is_empty() {
            return self.write_up(cx);
        }
        if self.client.leaving {
            return self.pass_goodbye(cx);
        }
        let room = if self.client.scanner.at_boundary() { READ_SMALL } else { READ_LARGE };
        match read(&mut self.client.stream, cx, &mut self.client.inbound, room) {
            Poll::Pending => return Ok(Flow::Blocked),
            Poll::Ready(Ok(n)) if n > 0 => self.client.received += n as u64,
            Poll::Ready(_) => return Err(Pause::ClientGone),
        }
        let conn = &mut self.conn;
        let scanned = self.client.scan(|tag| {
            if let Some(conn) = conn {
                conn.state.sent(tag);
            }
        });
        scanned.map_err(Pause::Fatal)?;
        Ok(Flow::Moved)
    }

    /// What the client sent before its goodbye is still carried out. How long that takes, only
    /// PostgreSQL knows: it gets the goodbye too, and closes the connection when it is done.
    fn pass_goodbye(&mut self, cx: &mut Context<'_>) -> Result<Flow, Pause> {
        const GOODBYE: [u8; HEADER] = [tag::TERMINATE, 0, 0, 0, 4];
        let Some(conn) = &mut self.conn else { return Err(Pause::Terminated) };
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
        let Some(conn) = &mut self.conn else { return Err(Pause::NeedsBackend) };
        if self.work.is_none() {
            let sql = sql_of(self.client.inbound.scanned());
            *self.work = Some(self.executor.admit(Protocol::Postgres, sql));
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

/// The text of a Query or Parse at the beginning of a batch, as far as it is there.
fn sql_of(batch: &[u8]) -> &[u8] {
    match (batch.first(), batch.get(HEADER..)) {
        (Some(&tag::QUERY), Some(body)) => body,
        (Some(&tag::PARSE), Some(body)) => {
            let name = body.iter().position(|b| *b == 0).map_or(body.len(), |at| at + 1);
            &body[name..]
        }
        _ => &[],
    }
}

/// Tells a backend from the messages that the client sent before there was one.
pub fn replay_sent(client: &Client, conn: &mut BackendConn) {
    let mut scanner = Scanner::default();
    let mut bytes = client.inbound.scanned();
    loop {
        let step = scanner.step(bytes, frontend::session_rule);
        let n = match step {
            Step::Pass(n) => n,
            Step::Begin { tag, .. } => {
                conn.state.sent(tag);
                HEADER
            }
            _ => return,
        };
        bytes = bytes.get(n..).unwrap_or(&[]);
    }
}

/// Forgets the requests that wait for a backend, if they are there whole, and returns how many
/// ReadyForQuery messages they would have got. `None` = the rest of one is still to come, so the
/// place where the next one begins is not known.
pub fn drop_whole_requests(client: &mut Client) -> Option<u32> {
    let mut scanner = Scanner::default();
    let mut bytes = client.inbound.scanned();
    let (mut requests, mut last) = (0, 0);
    while !bytes.is_empty() {
        let n = match scanner.step(bytes, frontend::session_rule) {
            Step::Pass(n) => n,
            Step::Begin { tag, .. } => {
                let ends = matches!(tag, tag::QUERY | tag::FUNCTION_CALL | tag::SYNC);
                requests += u32::from(ends);
                last = if ends { 0 } else { tag };
                HEADER
            }
            _ => return None,
        };
        bytes = bytes.get(n..)?;
    }
    let whole = last == 0 && client.scanner.at_boundary() && scanner.at_boundary();
    whole.then(|| {
        client.inbound.consume_scanned();
        requests
    })
}

fn read(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    into: &mut FrameBuf,
    room: usize,
) -> Poll<io::Result<usize>> {
    // Only a socket that has something gets memory to put it in.
    std::task::ready!(stream.poll_readable(cx))?;
    stream.poll_read_into(cx, into.tail(room))
}

/// Moves over what is understood of the backend's bytes, and learns from it.
fn scan_replies(conn: &mut BackendConn, work: &mut Option<Work>) -> Result<(), Error> {
    let BackendConn { inbound, scanner, state, .. } = conn;
    loop {
        match scanner.step(inbound.unscanned(), replies::relay_rule) {
            Step::Pass(n) => inbound.mark_scanned(n),
            Step::Begin { tag, .. } => {
                state.saw_header(tag);
                inbound.mark_scanned(HEADER);
            }
            Step::Whole { tag, body } => {
                let body = &inbound.unscanned()[HEADER..HEADER + body];
                state.saw(tag, body).map_err(Error::backend_lost)?;
                account(tag, body, work);
                let n = HEADER + body.len();
                inbound.mark_scanned(n);
            }
            Step::More(whole) => {
                // The rest of a wanted body gets room before the next read.
                let missing = whole.saturating_sub(inbound.unscanned().len());
                if whole > HEADER {
                    inbound.tail(missing);
                }
                return Ok(());
            }
            Step::Invalid { .. } => {
                return Err(Error::backend_lost("invalid message length from the server"));
            }
        }
    }
}

fn account(tag: u8, body: &[u8], work: &mut Option<Work>) {
    let Some(work) = work else { return };
    match tag {
        replies::tag::COMMAND_COMPLETE => {
            if let Ok(tag) = command_complete(body) {
                work.completed(tag);
            }
        }
        replies::tag::ERROR => {
            if let Ok(report) = Report::parse(body) {
                work.failed(crate::error::SqlState::parse(report.sqlstate).class());
            }
        }
        _ => {}
    }
}

/// After its own FATAL the backend may close; otherwise the client must be told.
fn backend_closed(conn: &BackendConn, cause: Option<io::Error>) -> Pause {
    if conn.state.fatal {
        return Pause::BackendGone;
    }
    let cause = cause.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
    Pause::Fatal(Error::backend_lost(cause))
}
