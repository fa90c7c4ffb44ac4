//! From the first byte to ReadyForQuery: which protocol it is, negotiation, log-in, greeting.
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>)

use std::io;

use super::admin::Console;
use super::{PgDoor, part, tell};
use crate::auth::Identity;
use crate::auth::scram::MECHANISM;
use crate::error::{Error, ErrorKind};
use crate::net::{Stage, Stream};
use crate::proto::frame::HEADER;
use crate::proto::startup::{self as packets, Dialect, Startup, StartupMessage};
use crate::proto::{Cursor, backend as replies, frontend};
use crate::session::admin::{self, Authority};
use crate::session::{Client, Opening, Session};
use crate::types::Protocol;

/// Longest SASL message; PostgreSQL's own limit is 1024.
const LONGEST_SASL: usize = 4096;

/// SSLRequest and GSSENCRequest may each come once before the start-up packet.
const LONGEST_NEGOTIATION: usize = 3;

/// How a greeting ended.
pub(super) enum Outcome {
    /// A session is open.
    Ready(Box<Session>, Box<Client>),
    /// An administrator's console is open.
    Console(Box<Console>),
    /// Nothing more is to be done: a cancel request, a refusal, a client that left.
    Done,
}

/// Who got through the log-in.
enum Guest {
    Client(Box<Session>),
    Administrator(admin::Console, Authority),
}

/// Why there will be no session.
enum Refusal {
    /// The client is to be told.
    Told(Error),
    /// It left, or what it sent is not worth an answer.
    Silent,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Refusal::Silent
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Told(error)
    }
}

pub(super) struct Greeting<'a> {
    pub(super) door: &'a PgDoor,
    pub(super) stream: Stream,
    /// Whether the connection limit leaves room for it.
    pub(super) admitted: bool,
}

impl Greeting<'_> {
    pub(super) async fn run(mut self) -> Outcome {
        match self.greet().await {
            Ok(Some(Guest::Administrator(place, authority))) => {
                let admin = self.door.admin.clone();
                let console = Console::new(self.stream, admin, place, authority);
                Outcome::Console(Box::new(console))
            }
            Ok(Some(Guest::Client(session))) => {
                let client = Box::new(Client::new(self.stream));
                Outcome::Ready(session, client)
            }
            Ok(None) | Err(Refusal::Silent) => Outcome::Done,
            Err(Refusal::Told(error)) => {
                if let Some(cause) = error.cause() {
                    tracing::warn!(%cause, "{error}");
                }
                tell(&mut self.stream, &error).await;
                Outcome::Done
            }
        }
    }

    async fn greet(&mut self) -> Result<Option<Guest>, Refusal> {
        let Some(message) = self.negotiate().await? else { return Ok(None) };
        let for_console = message.get("database") == Some(admin::DATABASE);
        // Who looks after the server comes in when it is full.
        if !self.admitted && !for_console {
            self.door.metrics.connection_rejected("max_connections");
            let most = self.door.gate.most();
            let text =
                format!("sorry, too many clients already: network.max_connections is {most}");
            return Err(Error::new(ErrorKind::TooManyConnections, text).into());
        }
        let name = message.get("user").filter(|user| !user.is_empty()).ok_or_else(|| {
            Error::sql(b"28000", "no PostgreSQL user name specified in startup packet")
        })?;
        let database = message.get("database").filter(|d| !d.is_empty()).unwrap_or(name);
        if message.minor > 0 || !message.protocol_options.is_empty() {
            let mut reply = Vec::new();
            replies::put_negotiate(&mut reply, 0, &message.protocol_options);
            self.stream.write_all(&reply).await?;
        }
        let mut reply = Vec::new();
        let identity = self.log_in(name, &mut reply).await?;
        if for_console {
            return self.open_console(identity, &message, reply).await.map(Some);
        }
        let mut session = self.open(identity, database, &message);
        // After the session is registered, so that a drain finds one or the other.
        if self.door.drain.stage() > Stage::Running {
            return Err(crate::session::Stop::Drain.error().into());
        }
        let parameters = session.server_parameters().await?;
        replies::put_authentication_ok(&mut reply);
        for (name, value) in &parameters.values {
            replies::put_parameter_status(&mut reply, name, value);
        }
        let (pid, key) = session.cancel_key();
        replies::put_backend_key(&mut reply, pid, key);
        replies::put_ready(&mut reply);
        self.stream.write_all(&reply).await?;
        Ok(Some(Guest::Client(Box::new(session))))
    }

    async fn open_console(
        &mut self,
        identity: Identity,
        message: &StartupMessage,
        mut reply: Vec<u8>,
    ) -> Result<Guest, Refusal> {
        let authority = self.door.admin.authority(&identity)?;
        let application = message.get("application_name").unwrap_or_default();
        let role = identity.role.clone();
        let place = self.door.admin.open(role, application.to_owned(), self.stream.peer());
        replies::put_authentication_ok(&mut reply);
        for (name, value) in [
            ("application_name", application),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("integer_datetimes", "on"),
            ("IntervalStyle", "postgres"),
            ("server_encoding", "UTF8"),
            ("server_version", &self.door.admin.server_version()),
            ("session_authorization", identity.role.as_str()),
            ("standard_conforming_strings", "on"),
            ("TimeZone", "UTC"),
        ] {
            replies::put_parameter_status(&mut reply, name, value);
        }
        let (pid, key) = place.cancel_key();
        replies::put_backend_key(&mut reply, pid, key);
        replies::put_ready(&mut reply);
        self.stream.write_all(&reply).await?;
        Ok(Guest::Administrator(place, authority))
    }

    fn open(&self, identity: Identity, database: &str, message: &StartupMessage) -> Session {
        let own = |name: &str| name == "user" || name == "database";
        let options = message.parameters.iter().filter(|(name, _)| !own(name)).cloned().collect();
        let opening = Opening {
            identity,
            database: database.into(),
            options,
            protocol: Protocol::Postgres,
            peer: self.stream.peer(),
        };
        self.door.opener.open(opening)
    }

    /// Reads packets until one starts a session. `None` = what was asked is done.
    async fn negotiate(&mut self) -> Result<Option<StartupMessage>, Refusal> {
        for _ in 0..LONGEST_NEGOTIATION {
            match self.packet().await? {
                Startup::Start(message) => return Ok(Some(message)),
                // Neither is offered; the client goes on in the clear, or not at all.
                Startup::Ssl | Startup::GssEnc => self.stream.write_all(b"N").await?,
                Startup::Cancel { pid, key } => {
                    self.door.opener.cancel(pid, &key).await;
                    return Ok(None);
                }
                Startup::Unsupported { major, minor } => {
                    let text = format!(
                        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"
                    );
                    return Err(Error::new(ErrorKind::NotSupported, text).into());
                }
            }
        }
        Err(self.malformed("too many negotiation requests"))
    }

    async fn packet(&mut self) -> Result<Startup, Refusal> {
        let mut bytes = Vec::with_capacity(packets::DETECT_BYTES);
        loop {
            // One byte tells most strangers, eight bytes tell everybody.
            let missing = if bytes.is_empty() { 1 } else { packets::DETECT_BYTES - bytes.len() };
            if !self.stream.read_exactly(&mut bytes, missing).await? {
                return Err(self.stranger(&bytes).await);
            }
            match packets::detect(&bytes) {
                Some(Dialect::Postgres) if bytes.len() == packets::DETECT_BYTES => break,
                Some(Dialect::Postgres) | None => {}
                Some(_) => return Err(self.stranger(&bytes).await),
            }
        }
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let longest = self.door.config.now().pgwire.max_startup_bytes.len();
        if length < packets::DETECT_BYTES || length > longest {
            return Err(self.malformed("invalid length of startup packet"));
        }
        let rest = length - packets::DETECT_BYTES;
        if !self.stream.read_exactly(&mut bytes, rest).await? {
            self.door.metrics.protocol_error("truncated_startup");
            return Err(Refusal::Silent);
        }
        packets::parse(&bytes[4..]).map_err(|e| self.malformed(e.0))
    }

    fn malformed(&self, text: &'static str) -> Refusal {
        self.door.metrics.protocol_error("startup");
        Refusal::Told(Error::new(ErrorKind::ProtocolViolation, text))
    }

    /// Somebody who speaks another protocol is told so in that protocol, if we know it.
    async fn stranger(&mut self, first: &[u8]) -> Refusal {
        let reason = match packets::detect(first) {
            Some(Dialect::Tls) => {
                // Alert, fatal, handshake_failure (RFC 8446, section 6).
                part(&mut self.stream, b"\x15\x03\x01\x00\x02\x02\x28").await;
                "tls_is_off"
            }
            Some(Dialect::Http) => {
                let text = format!(
                    "This is RustyDB's PostgreSQL port; HTTP is on port {}.\n",
                    self.door.api_port
                );
                let answer = format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                part(&mut self.stream, answer.as_bytes()).await;
                "http"
            }
            Some(Dialect::Native) => "native_is_off",
            _ if first.is_empty() => return Refusal::Silent,
            _ => "unknown_protocol",
        };
        self.door.metrics.protocol_error(reason);
        Refusal::Silent
    }

    /// Proves who the client is; `reply` gets what belongs before AuthenticationOk.
    async fn log_in(&mut self, user: &str, reply: &mut Vec<u8>) -> Result<Identity, Refusal> {
        if !self.door.auth.is_required() {
            return Ok(self.door.auth.trust(user.into())?);
        }
        let mut ask = Vec::new();
        replies::put_authentication_sasl(&mut ask, MECHANISM);
        self.stream.write_all(&ask).await?;
        let initial = self.sasl_message().await?;
        let client_first = initial_response(&initial)?;
        let (login, server_first) = self.door.auth.scram_begin(user.into(), client_first).await?;
        let mut challenge = Vec::new();
        replies::put_authentication_sasl_continue(&mut challenge, server_first.as_bytes());
        self.stream.write_all(&challenge).await?;
        let client_final = self.sasl_message().await?;
        let (identity, server_final) = self.door.auth.scram_finish(login, &client_final)?;
        replies::put_authentication_sasl_final(reply, server_final.as_bytes());
        Ok(identity)
    }

    /// Reads a message of type `p`.
    async fn sasl_message(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::with_capacity(HEADER);
        if !self.stream.read_exactly(&mut bytes, HEADER).await? {
            return Err(Refusal::Silent);
        }
        if bytes[0] != frontend::tag::PASSWORD {
            let text = format!("expected SASL response, got message type {}", bytes[0]);
            return Err(Error::new(ErrorKind::ProtocolViolation, text).into());
        }
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        match length.checked_sub(4) {
            Some(body) if body <= LONGEST_SASL => {
                let mut message = Vec::with_capacity(body);
                match self.stream.read_exactly(&mut message, body).await? {
                    true => Ok(message),
                    false => Err(Refusal::Silent),
                }
            }
            _ => Err(self.malformed("invalid length of a SASL message")),
        }
    }
}

/// Reads SASLInitialResponse: mechanism, length, data.
fn initial_response(body: &[u8]) -> Result<&[u8], Error> {
    let malformed = |_| Error::new(ErrorKind::ProtocolViolation, "malformed SASL response");
    let mut cursor = Cursor(body);
    if cursor.cstr().map_err(malformed)? != MECHANISM.as_bytes() {
        let text = "client selected an invalid SASL authentication mechanism";
        return Err(Error::new(ErrorKind::ProtocolViolation, text));
    }
    let length = cursor.i32().map_err(malformed)?;
    match usize::try_from(length) {
        Ok(length) if length == cursor.0.len() => Ok(cursor.0),
        _ => Err(Error::new(ErrorKind::ProtocolViolation, "malformed SASL response")),
    }
}
