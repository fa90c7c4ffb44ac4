//! One connection to PostgreSQL at message level.
//!
//! The bytes that arrive are kept in one window; a PostgreSQL client gets them as they are, a
//! typed reader looks at the messages in the same window. What the stream says about the state of
//! the connection is observed in one place, whoever reads.

mod connect;
mod expect;
mod gather;
mod roster;
mod servers;
pub mod statements;
mod watch;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connect::Target;
pub use connect::{ConnectError, Connector, Credentials, LimitOf};
pub use expect::{Expect, Expectations, Kind, Refusal, Reply};
pub use gather::Gather;
pub use roster::{Listed, Reached, Roster, Ticket};
pub use servers::{Probe, Servers, Suspect};
pub use statements::{ServerName, Statement, Statements, World};
pub use watch::Watch;

use crate::error::Error;
use crate::limits::Permit;
use crate::net::{Ends, Stream};
use crate::proto::Malformed;
use crate::proto::backend::{self as messages, Report, TxStatus, tag};
use crate::proto::frame::{FrameBuf, HEADER, Scanner, Step, Want};
use crate::proto::frontend::tag as request;
use crate::query::{Settings, hash_name};

/// Bytes asked for at once while messages are small.
pub const READ_SMALL: usize = 8 << 10;

/// Bytes asked for at once while a large result streams.
pub const READ_LARGE: usize = 64 << 10;

/// How long PostgreSQL's end of a connection is waited for.
const LONGEST_GOODBYE: Duration = Duration::from_secs(1);

/// What a CancelRequest needs.
#[derive(Clone, Debug)]
pub struct CancelKey {
    /// Where the server listens.
    target: Arc<Target>,
    /// Process number.
    pub pid: u32,
    /// Secret key.
    pub key: Vec<u8>,
}

impl CancelKey {
    /// Where the server listens.
    pub fn addr(&self) -> &crate::types::BackendAddr {
        &self.target.addr
    }
}

/// What the messages so far say about the connection.
#[derive(Debug)]
pub struct ConnState {
    /// Transaction status of the last ReadyForQuery.
    pub tx: TxStatus,
    /// What was asked and is not answered yet.
    pub expect: Expectations,
    /// The server said that it closes the connection.
    pub fatal: bool,
    /// The server refused to write: it may not be the primary any more.
    pub refused_to_write: bool,
    /// ParameterStatus values in force, in the order they were first reported.
    pub parameters: Vec<(String, String)>,
    /// Equal parameters have equal digests.
    pub digest: u64,
    /// Settings in force beside those of the start-up packet.
    pub applied: Arc<Settings>,
    /// Prepared statements under our own names.
    pub statements: Statements,
    /// The unnamed statement, when it is not empty.
    pub unnamed: Option<Arc<Statement>>,
    /// Statements to be closed before the next session's first request.
    pub leftovers: Vec<Box<[u8]>>,
    /// It has something that no reset takes away, and is closed instead of being reused.
    pub spoiled: bool,
    /// There may be settings with a dot that nobody knows of: they are reset before the next
    /// session comes.
    pub stained: bool,
    /// Settings with a dot that were ever made here: after a RESET they are empty, not unknown.
    pub foreign: Vec<Box<str>>,
}

impl ConnState {
    fn new() -> Self {
        Self {
            tx: TxStatus::Idle,
            expect: Expectations::default(),
            fatal: false,
            refused_to_write: false,
            parameters: Vec::new(),
            digest: 0,
            applied: Arc::default(),
            statements: Statements::default(),
            unnamed: None,
            leftovers: Vec::new(),
            spoiled: false,
            stained: false,
            foreign: Vec::new(),
        }
    }

    /// Whether the connection waits for a new request; a transaction may be open.
    pub fn is_idle(&self) -> bool {
        self.expect.is_idle() && !self.fatal
    }

    /// ReadyForQuery messages that must still come.
    pub fn pending(&self) -> u32 {
        self.expect.pending()
    }

    /// PostgreSQL has forgotten everything beyond the start-up packet (`DISCARD ALL`).
    pub fn discarded_all(&mut self) {
        self.applied = Arc::default();
        self.stained = false;
        self.unnamed = None;
        self.deallocated_all();
    }

    /// PostgreSQL has no prepared statement any more, but those that are on their way.
    pub fn deallocated_all(&mut self) {
        let coming: Vec<_> = self.expect.coming_statements().map(Arc::as_ptr).collect();
        self.statements.retain(|statement| coming.contains(&Arc::as_ptr(statement)));
        match self.expect.is_single() {
            true => self.leftovers.clear(),
            // Some may have been left behind since.
            false => self.leftovers.retain(|name| !name.starts_with(ServerName::PREFIX)),
        }
    }

    /// The statements that bring these settings into force; empty when they are.
    pub fn transition(&self, wanted: &Settings) -> String {
        match self.stained {
            true => format!("RESET ALL;{}", Settings::default().transition(wanted)),
            false => self.applied.transition(wanted),
        }
    }

    /// What [`ConnState::transition`] says has been done, or will be before anything else.
    pub fn applies(&mut self, settings: &Arc<Settings>) {
        self.applied = settings.clone();
        self.stained = false;
    }

    /// A request is on its way that takes all prepared statements away, if it succeeds: what
    /// comes behind it must not rely on them.
    pub fn doubt_statements(&mut self) {
        self.leftovers.extend(self.statements.names().map(|name| name.as_bytes().into()));
        self.statements.clear();
    }

    /// Learns from the body of a message, if it says something that lasts.
    pub fn saw(&mut self, tag: u8, body: &[u8]) -> Result<(), Malformed> {
        match tag {
            tag::READY_FOR_QUERY => self.tx = TxStatus::parse(body)?,
            tag::ERROR => {
                // A report that cannot be read is the client's to complain about.
                if let Ok(report) = Report::parse(body) {
                    self.fatal |= report.is_fatal();
                    self.refused_to_write |= report.sqlstate == b"25006";
                }
            }
            tag::PARAMETER_STATUS => {
                let (name, value) = messages::parameter_status(body)?;
                let name = String::from_utf8_lossy(name);
                let value = String::from_utf8_lossy(value).into_owned();
                self.learn(name.into_owned(), value);
            }
            _ => {}
        }
        Ok(())
    }

    fn learn(&mut self, name: String, value: String) {
        match self.parameters.iter().position(|(known, _)| *known == name) {
            Some(at) => {
                let known = &mut self.parameters[at].1;
                self.digest ^= digest_of(&name, known) ^ digest_of(&name, &value);
                *known = value;
            }
            // PostgreSQL reports about fifteen; the bound is against a broken server.
            None if self.parameters.len() < 256 => {
                self.digest ^= digest_of(&name, &value);
                self.parameters.push((name, value));
            }
            None => {}
        }
    }
}

/// The one parameter that clients of one lane differ in.
pub const APPLICATION_NAME: &str = "application_name";

/// Parameters of a lane, with the messages that tell its clients of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// See [`ConnState::digest`].
    pub digest: u64,
    /// Names and values.
    pub values: Vec<(String, String)>,
    /// A ParameterStatus for each of them.
    messages: Vec<u8>,
    /// Where that for [`APPLICATION_NAME`] lies.
    name_at: Range<usize>,
}

impl Told {
    /// These parameters.
    pub fn of(values: Vec<(String, String)>) -> Self {
        let digest = values.iter().fold(0, |all, (name, value)| all ^ digest_of(name, value));
        let (mut messages, mut name_at) = (Vec::new(), 0..0);
        for (name, value) in &values {
            let start = messages.len();
            messages::put_parameter_status(&mut messages, name, value);
            if name == APPLICATION_NAME {
                name_at = start..messages.len();
            }
        }
        Self { digest, values, messages, name_at }
    }

    /// The application's name of the lane itself.
    pub fn application_name(&self) -> Option<&str> {
        self.values.iter().find(|(name, _)| name == APPLICATION_NAME).map(|(_, value)| &**value)
    }

    /// The digest for a client with this application's name.
    pub fn digest_for(&self, application_name: &str) -> u64 {
        let named = |value| digest_of(APPLICATION_NAME, value);
        let own = self.application_name();
        own.map_or(self.digest, |own| self.digest ^ named(own) ^ named(application_name))
    }

    /// Writes the messages for a client with this application's name.
    pub fn put_for(&self, out: &mut Vec<u8>, application_name: &str) {
        out.extend_from_slice(&self.messages[..self.name_at.start]);
        if !self.name_at.is_empty() {
            messages::put_parameter_status(out, APPLICATION_NAME, application_name);
        }
        out.extend_from_slice(&self.messages[self.name_at.end..]);
    }
}

/// Digest of one parameter; that of several is all of them together.
fn digest_of(name: &str, value: &str) -> u64 {
    hash_name(name.as_bytes()) ^ hash_name(value.as_bytes()).rotate_left(17)
}

/// A connection.
#[derive(Debug)]
pub struct BackendConn {
    /// The socket.
    pub stream: Stream,
    /// Bytes that came and were not passed on yet.
    pub inbound: FrameBuf,
    /// Position in the stream of messages.
    pub scanner: Scanner,
    /// What the messages so far say.
    pub state: ConnState,
    /// For cancelling.
    pub cancel: Arc<CancelKey>,
    /// Age limit.
    pub created: Instant,
    /// [`crate::auth::AccessChanges`] when the log-in began.
    pub changes: u64,
    /// Its place among all connections, where somebody counts them.
    pub ticket: Option<Ticket>,
    /// Its part of the room of its role and database, given back with it.
    pub permits: Vec<Permit>,
    /// Lets large results gather before they are read.
    pub gather: Gather,
    /// Notifications that came between the answers of our own statements; they are the session's.
    asides: Vec<u8>,
    asides_lost: bool,
    body: Range<usize>,
}

/// Bytes of notifications that are kept while a statement of our own runs.
const MAX_ASIDES: usize = 1 << 20;

impl BackendConn {
    fn new(stream: Stream, target: Arc<Target>) -> Self {
        Self {
            stream,
            inbound: FrameBuf::default(),
            scanner: Scanner::default(),
            state: ConnState::new(),
            cancel: Arc::new(CancelKey { target, pid: 0, key: Vec::new() }),
            created: Instant::now(),
            changes: 0,
            ticket: None,
            permits: Vec::new(),
            gather: Gather::default(),
            asides: Vec::new(),
            asides_lost: false,
            body: 0..0,
        }
    }

    /// A connection to nothing, for tests of what holds connections.
    #[cfg(test)]
    pub(crate) fn to_nothing(pid: u32) -> Self {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = crate::net::Socket::new(stream).unwrap();
        let target = Target::nowhere();
        let cancel = Arc::new(CancelKey { target: target.clone(), pid, key: Vec::new() });
        Self { cancel, ..Self::new(Stream::Unix(stream), target) }
    }

    /// Where it leads.
    pub fn reached(&self) -> Reached {
        Reached {
            server: self.cancel.addr().clone(),
            address: self.stream.peer_address(),
            ends: Ends::of(&self.stream),
        }
    }

    /// Whether it can be given to another session after a reset.
    pub fn is_reusable(&self) -> bool {
        self.state.is_idle() && self.inbound.is_empty() && self.scanner.at_boundary()
    }

    /// Sends a batch of messages; `requests` are the types of those that are answered with a
    /// ReadyForQuery.
    pub async fn send(&mut self, batch: &[u8], requests: &[u8]) -> Result<(), Error> {
        requests.iter().for_each(|tag| self.state.expect.sent(*tag));
        // A simple query destroys it.
        self.state.unnamed = None;
        self.stream.write_all(batch).await.map_err(Error::backend_lost)
    }

    /// Reads the next whole message of at most `longest` bytes; [`BackendConn::body`] is its body
    /// until the next call.
    pub fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        longest: usize,
    ) -> Poll<Result<u8, Error>> {
        self.inbound.consume_scanned();
        loop {
            let rule = |_| (Want::Body(usize::MAX), longest);
            let missing = match self.scanner.step(self.inbound.unscanned(), rule) {
                Step::Whole { tag, body } => {
                    self.inbound.mark_scanned(HEADER + body);
                    self.body = HEADER..HEADER + body;
                    let Self { inbound, state, .. } = self;
                    state.expect.saw(tag);
                    let seen = state.saw(tag, &inbound.scanned()[HEADER..]);
                    return Poll::Ready(seen.map(|()| tag).map_err(Error::backend_lost));
                }
                Step::More(whole) => whole - self.inbound.unscanned().len(),
                Step::Invalid { length, .. } if length as usize > longest => {
                    let text = format!("{length} bytes at once are too long for this interface");
                    return Poll::Ready(Err(Error::sql(b"54000", text)
                        .with_hint("raise api.max_row_size, or select less per row")));
                }
                Step::Invalid { .. } | Step::Begin { .. } | Step::Pass(_) => {
                    let cause = Malformed("invalid message length from the server");
                    return Poll::Ready(Err(Error::backend_lost(cause)));
                }
            };
            let room = missing.max(READ_SMALL);
            let read = ready!(self.stream.poll_read_into(cx, || self.inbound.tail(room)));
            if read.map_err(Error::backend_lost)? == 0 {
                let cause = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(Err(Error::backend_lost(cause)));
            }
        }
    }

    /// [`BackendConn::poll_message`] as a future.
    pub async fn message(&mut self, longest: usize) -> Result<u8, Error> {
        std::future::poll_fn(|cx| self.poll_message(cx, longest)).await
    }

    /// Body of the last message that [`BackendConn::poll_message`] returned.
    pub fn body(&self) -> &[u8] {
        self.inbound.scanned().get(self.body.clone()).unwrap_or(&[])
    }

    /// Runs statements without parameters on an idle connection and hands each row to `row`.
    ///
    /// # Errors
    /// The first that PostgreSQL reports, after everything has been read; or, in the middle, that
    /// the connection was lost, or that more notifications came than are kept for the session.
    pub async fn simple(
        &mut self,
        sql: &str,
        mut row: impl FnMut(Vec<Option<String>>),
    ) -> Result<(), Error> {
        /// Rows of the system's own queries are short.
        const LONGEST: usize = 1 << 20;
        let mut batch = bytes::BytesMut::new();
        crate::proto::frontend::query(sql, &mut batch).map_err(Error::internal)?;
        self.send(&batch, &[request::QUERY]).await?;
        let mut error = None;
        while self.state.pending() > 0 {
            match self.message(LONGEST).await? {
                tag::DATA_ROW => {
                    let values = messages::DataRow::parse(self.body())
                        .and_then(|row| row.collect::<Result<Vec<_>, _>>())
                        .map_err(Error::backend_lost)?;
                    let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
                    row(values.into_iter().map(|value| value.map(text)).collect());
                }
                tag::ERROR => {
                    let report = Report::parse(self.body()).map_err(Error::backend_lost)?;
                    error = error.or(Some(report.to_error()));
                    if self.state.fatal {
                        break;
                    }
                }
                tag::NOTIFICATION => self.keep_aside()?,
                _ => {}
            }
        }
        self.inbound.consume_scanned();
        self.inbound.detach();
        error.map_or(Ok(()), Err)
    }

    /// A listener must not miss any: PostgreSQL itself loses none.
    fn keep_aside(&mut self) -> Result<(), Error> {
        let message = self.inbound.scanned();
        if self.asides.len() + message.len() > MAX_ASIDES {
            self.asides_lost = true;
            let text = "more notifications came at once than can be kept for this session";
            return Err(Error::sql(b"54000", text).with_hint(
                "connect and LISTEN again, and look at what was notified of in between; with \
                 pool.pooling_mode = \"session\" there is no limit",
            ));
        }
        self.asides.extend_from_slice(message);
        Ok(())
    }

    /// Whether notifications came that were not kept.
    pub fn has_lost_notifications(&self) -> bool {
        self.asides_lost
    }

    /// The notifications that came while statements of our own ran.
    pub fn take_asides(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.asides)
    }

    /// Takes in what arrived while nobody was reading: parameter changes and notices are
    /// learnt, an error or a closed socket means that the connection is of no use any more.
    pub fn absorb_idle(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.stream.may_have_input() {
            return true;
        }
        loop {
            match self.poll_message(cx, READ_LARGE) {
                Poll::Pending => {
                    let clean = self.inbound.is_empty();
                    self.inbound.detach();
                    return clean;
                }
                Poll::Ready(Ok(tag::PARAMETER_STATUS | tag::NOTICE | tag::NOTIFICATION)) => {}
                Poll::Ready(_) => return false,
            }
        }
    }

    /// Moves the connection to the event loop of the calling thread.
    pub fn rebind(self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.rebind()?, ..self })
    }

    /// Whether the kernel has something to read, or the end, whatever the event loop knows.
    pub fn has_input(&self) -> bool {
        self.stream.has_input()
    }

    /// Says goodbye and closes.
    pub async fn close(mut self) {
        let mut batch = bytes::BytesMut::new();
        crate::proto::frontend::terminate(&mut batch);
        let _ = self.stream.write_all(&batch).await;
    }

    /// The same, and waits for a moment until PostgreSQL has given its place away.
    pub async fn close_and_wait(mut self) {
        let end = async {
            let mut batch = bytes::BytesMut::new();
            crate::proto::frontend::terminate(&mut batch);
            self.stream.write_all(&batch).await?;
            let mut rest = Vec::with_capacity(READ_SMALL);
            while self.stream.read_into(&mut rest).await? > 0 {
                rest.clear();
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LONGEST_GOODBYE, end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Runs a statement of our own while so many notifications of `payload` bytes come.
    async fn notified(times: usize, payload: usize) -> (Result<(), Error>, BackendConn) {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let ours = crate::net::Socket::new(ours.into_std().unwrap()).unwrap();
        let mut conn = BackendConn::new(Stream::Unix(ours), Target::nowhere());
        let body = [&7u32.to_be_bytes()[..], b"channel\0", &vec![b'x'; payload], b"\0"].concat();
        let mut answer = message(tag::NOTIFICATION, &body).repeat(times);
        answer.extend(message(tag::COMMAND_COMPLETE, b"SELECT 0\0"));
        answer.extend(message(tag::READY_FOR_QUERY, b"I"));
        let server = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let _ = theirs.write_all(&answer).await;
            theirs
        });
        let result = conn.simple("select", |_| {}).await;
        server.abort();
        (result, conn)
    }

    #[tokio::test]
    async fn notifications_during_a_statement_of_our_own_are_kept_or_the_loss_is_told() {
        let (result, mut conn) = notified(100, 8000).await;
        assert!(result.is_ok() && conn.is_reusable() && !conn.has_lost_notifications());
        assert_eq!(conn.take_asides().len(), 100 * (5 + 4 + 8 + 8000 + 1));
        assert!(conn.take_asides().is_empty());
        let (result, mut conn) = notified(200, 8000).await;
        assert_eq!(result.unwrap_err().sqlstate().as_str(), "54000");
        assert!(conn.has_lost_notifications() && !conn.is_reusable());
        assert!(conn.take_asides().len() <= MAX_ASIDES);
    }
}
