//! Logging in to PostgreSQL, and cancelling.
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>)

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::{BackendConn, CancelKey};
use crate::auth::scram::{self, ClientChannel, ClientExchange, ClientSecret, ScramKeys};
use crate::error::{Error, ErrorKind};
use crate::net::{ClientTls, Socket, Stream};
use crate::proto::backend::{Report, tag};
use crate::proto::{Cursor, Malformed, frontend};
use crate::types::{BackendAddr, Secret};

/// Longest message of a log-in.
const LONGEST: usize = 64 << 10;

/// Silence after which the kernel asks whether a server is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Seconds for a cancel request; PostgreSQL closes the connection when it is done.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a connection proves its role.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The private socket of the embedded server lets RustyDB in as any role.
    Local,
    /// A password.
    Password(Secret),
    /// Keys gained from the client's own log-in.
    Keys(ScramKeys),
}

/// Which limit of PostgreSQL a connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOf {
    /// `CONNECTION LIMIT` of the role.
    Role,
    /// `CONNECTION LIMIT` of the database.
    Database,
    /// `max_wal_senders`: connections for replication have places of their own.
    Replication,
    /// `max_connections` and its kin.
    Server,
}

impl LimitOf {
    /// The words are translated; the function that has written them is not.
    fn of(report: &Report<'_>, is_replication: bool) -> Self {
        match report.routine {
            Some(b"InitializeSessionUserId") => Self::Role,
            Some(b"CheckMyDatabase") => Self::Database,
            _ if is_replication => Self::Replication,
            _ => Self::Server,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens, or the server is starting or stopping: it may work in a moment.
    Unavailable(Error),
    /// The server has no room for another connection, by this limit.
    Full(Error, LimitOf),
    /// The server said no; the client reads its words.
    Refused(Error),
}

impl ConnectError {
    /// The error for the client.
    pub fn into_error(self) -> Error {
        match self {
            ConnectError::Unavailable(error)
            | ConnectError::Full(error, _)
            | ConnectError::Refused(error) => error,
        }
    }
}

/// Where PostgreSQL is, and how it is spoken to.
#[derive(Debug)]
pub struct Target {
    pub(super) addr: BackendAddr,
    tls: Option<ClientTls>,
}

#[cfg(test)]
impl Target {
    pub(super) fn nowhere() -> Arc<Self> {
        Arc::new(Self { addr: BackendAddr::Tcp("nowhere".into(), 1), tls: None })
    }
}

/// Makes connections to PostgreSQL.
#[derive(Clone, Debug)]
pub struct Connector {
    target: Arc<Target>,
}

impl Connector {
    /// A connector for one server, without encryption.
    pub fn new(addr: BackendAddr) -> Self {
        Self::with_tls(addr, None)
    }

    /// A connector for one server, with the encryption that is asked for.
    pub fn with_tls(addr: BackendAddr, tls: Option<ClientTls>) -> Self {
        Self { target: Arc::new(Target { addr, tls }) }
    }

    /// Where the server is.
    pub fn addr(&self) -> &BackendAddr {
        &self.target.addr
    }

    /// Logs in. `parameters` are those of a start-up packet, `user` and `database` among them.
    pub async fn connect(
        &self,
        parameters: &[(String, String)],
        credentials: &Credentials,
    ) -> Result<BackendConn, ConnectError> {
        let (stream, binding) = self.target.open().await.map_err(not_open)?;
        let mut conn = BackendConn::new(stream, self.target.clone());
        let mut batch = BytesMut::new();
        let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        frontend::startup_message(pairs, &mut batch)
            .map_err(|e| ConnectError::Refused(Error::internal(e)))?;
        conn.stream.write_all(&batch).await.map_err(unreachable)?;
        let user = pairs_get(parameters, "user");
        let binding = binding.as_deref();
        let is_replication = !pairs_get(parameters, "replication").is_empty();
        LogIn { conn: &mut conn, credentials, user, is_replication, binding, exchange: None }
            .run()
            .await?;
        Ok(conn)
    }
}

fn pairs_get<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

impl Target {
    /// Connects; returns the channel binding of the server's certificate too.
    async fn open(&self) -> io::Result<(Stream, Option<Vec<u8>>)> {
        let (host, port) = match &self.addr {
            BackendAddr::Unix(path) => return Ok((open_unix(path).await?, None)),
            BackendAddr::Tcp(host, port) => (host.as_str(), *port),
        };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let mut stream = Stream::Tcp(Socket::new(stream.into_std()?)?);
        let Some(tls) = &self.tls else { return Ok((stream, None)) };
        stream.write_all(&SSL_REQUEST).await?;
        let mut answer = Vec::with_capacity(1);
        stream.read_exactly(&mut answer, 1).await?;
        match answer[..] {
            [b'S'] => stream.connect_tls(tls, host).await,
            [b'N'] if tls.is_optional => Ok((stream, None)),
            [b'N'] => {
                let text = "PostgreSQL does not speak TLS (ssl is off), but sslmode asks for it";
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            // No answer, or an error: it cannot take connections now.
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

async fn open_unix(path: &Path) -> io::Result<Stream> {
    let stream = UnixStream::connect(path).await?;
    Socket::new(stream.into_std()?).map(Stream::Unix)
}

fn unreachable(cause: io::Error) -> ConnectError {
    let error = Error::new(ErrorKind::ServiceUnavailable, "PostgreSQL cannot be reached")
        .with_hint("it is starting, restarting or stopped; try again")
        .with_cause(cause);
    ConnectError::Unavailable(error)
}

/// A server that may be there in a moment, or one whose certificate will not do.
fn not_open(cause: io::Error) -> ConnectError {
    if cause.kind() != io::ErrorKind::InvalidData {
        return unreachable(cause);
    }
    let text = "the connection to PostgreSQL cannot be encrypted as sslmode asks";
    let error = Error::sql(b"08001", text)
        .with_hint("the administrator finds the reason in RustyDB's log")
        .with_cause(cause);
    ConnectError::Refused(error)
}

/// PostgreSQL's words stay. They name every limit but that of all connections.
fn full(error: Error, limit: LimitOf) -> ConnectError {
    let error = error.with_kind(ErrorKind::PoolExhausted);
    let error = match limit {
        LimitOf::Role | LimitOf::Database | LimitOf::Replication => error,
        LimitOf::Server => error.with_hint(
            "PostgreSQL's max_connections is reached; raise it, or lower pool.max_size so that \
             RustyDB and all others fit",
        ),
    };
    ConnectError::Full(error, limit)
}

fn lost(error: Error) -> ConnectError {
    ConnectError::Unavailable(error.with_kind(ErrorKind::ServiceUnavailable))
}

fn malformed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectError {
    ConnectError::Refused(Error::backend_lost(cause))
}

/// A log-in in progress.
struct LogIn<'a> {
    conn: &'a mut BackendConn,
    credentials: &'a Credentials,
    user: &'a str,
    is_replication: bool,
    /// Channel binding of the server's certificate.
    binding: Option<&'a [u8]>,
    exchange: Option<ClientExchange>,
}

impl LogIn<'_> {
    async fn run(mut self) -> Result<(), ConnectError> {
        loop {
            match self.conn.message(LONGEST).await.map_err(lost)? {
                tag::AUTHENTICATION => self.authenticate().await?,
                tag::BACKEND_KEY_DATA => {
                    let mut body = Cursor(self.conn.body());
                    let pid = body.i32().map_err(malformed)? as u32;
                    let key = body.0.to_vec();
                    let target = self.conn.cancel.target.clone();
                    self.conn.cancel = Arc::new(CancelKey { target, pid, key });
                }
                tag::ERROR => return Err(self.refusal()),
                tag::READY_FOR_QUERY => {
                    self.conn.inbound.consume_scanned();
                    self.conn.inbound.detach();
                    return Ok(());
                }
                tag::PARAMETER_STATUS | tag::NOTICE | tag::NEGOTIATE_PROTOCOL => {}
                _ => return Err(malformed(Malformed("unexpected message during the log-in"))),
            }
        }
    }

    fn refusal(&self) -> ConnectError {
        match Report::parse(self.conn.body()) {
            // 57P03: starting or stopping; 57P01: it was told to stop while we logged in.
            Ok(report) if matches!(report.sqlstate, b"57P03" | b"57P01" | b"57P02") => {
                ConnectError::Unavailable(
                    report.to_error().with_kind(ErrorKind::ServiceUnavailable),
                )
            }
            Ok(report) if report.sqlstate == b"53300" => {
                full(report.to_error(), LimitOf::of(&report, self.is_replication))
            }
            Ok(report) => ConnectError::Refused(report.to_error()),
            Err(e) => malformed(e),
        }
    }

    async fn authenticate(&mut self) -> Result<(), ConnectError> {
        let mut body = Cursor(self.conn.body());
        let mut answer = BytesMut::new();
        match body.i32().map_err(malformed)? {
            0 => return Ok(()),
            3 => {
                let password = self.password()?;
                frontend::password_message(password.reveal().as_bytes(), &mut answer)
                    .map_err(malformed)?;
            }
            5 => {
                let salt = body.take(4).map_err(malformed)?;
                let salt = [salt[0], salt[1], salt[2], salt[3]];
                let hash = postgres_protocol::authentication::md5_hash(
                    self.user.as_bytes(),
                    self.password()?.reveal().as_bytes(),
                    salt,
                );
                frontend::password_message(hash.as_bytes(), &mut answer).map_err(malformed)?;
            }
            10 => self.sasl_begin(&mut answer)?,
            11 => {
                let data = body.0.to_vec();
                let exchange = self.exchange.as_mut().ok_or_else(out_of_order)?;
                let last = exchange.answer(&data).map_err(|_| wrong_keys(self.user))?;
                frontend::sasl_response(last.as_bytes(), &mut answer).map_err(malformed)?;
            }
            12 => {
                let data = body.0.to_vec();
                let exchange = self.exchange.take().ok_or_else(out_of_order)?;
                return exchange.finish(&data).map_err(|_| wrong_keys(self.user));
            }
            _ => return Err(unsupported()),
        }
        let sent = self.conn.stream.write_all(&answer).await;
        sent.map_err(unreachable)
    }

    fn sasl_begin(&mut self, answer: &mut BytesMut) -> Result<(), ConnectError> {
        let offered = self.conn.body();
        let has = |name: &str| offered[4..].split(|b| *b == 0).any(|m| m == name.as_bytes());
        let secret = match self.credentials {
            Credentials::Password(password) => ClientSecret::Password(password.clone()),
            Credentials::Keys(keys) => ClientSecret::Keys(keys.clone()),
            Credentials::Local => return Err(no_secret(self.user)),
        };
        let (mechanism, channel) = match self.binding {
            Some(data) if has(scram::MECHANISM_PLUS) => {
                (scram::MECHANISM_PLUS, ClientChannel::Bound(data))
            }
            _ if !has(scram::MECHANISM) => return Err(unsupported()),
            Some(_) => (scram::MECHANISM, ClientChannel::NotOffered),
            None => (scram::MECHANISM, ClientChannel::Open),
        };
        let (exchange, first) = ClientExchange::begin(secret, channel);
        self.exchange = Some(exchange);
        frontend::sasl_initial_response(mechanism, first.as_bytes(), answer).map_err(malformed)
    }

    fn password(&self) -> Result<&Secret, ConnectError> {
        match self.credentials {
            Credentials::Password(password) => Ok(password),
            _ => Err(no_secret(self.user)),
        }
    }
}

fn out_of_order() -> ConnectError {
    malformed(Malformed("SASL message out of order"))
}

fn unsupported() -> ConnectError {
    let text = "PostgreSQL asks RustyDB for an authentication method that is not supported";
    ConnectError::Refused(
        Error::sql(b"28000", text).with_hint("use scram-sha-256 in the server's pg_hba.conf"),
    )
}

fn no_secret(user: &str) -> ConnectError {
    let text = format!("RustyDB has no secret to log in to PostgreSQL as \"{user}\"");
    ConnectError::Refused(
        Error::sql(b"28000", text).with_hint("use scram-sha-256 in the server's pg_hba.conf"),
    )
}

fn wrong_keys(user: &str) -> ConnectError {
    let text = format!("PostgreSQL does not accept the password of \"{user}\"");
    ConnectError::Refused(Error::sql(b"28P01", text))
}

impl CancelKey {
    /// Asks PostgreSQL to cancel what the connection is doing, and returns when PostgreSQL has
    /// taken notice: it closes the connection then.
    pub async fn send(&self) -> io::Result<()> {
        let request = async {
            let (mut stream, _) = self.target.open().await?;
            let mut packet = Vec::with_capacity(16);
            let length = u32::try_from(12 + self.key.len()).unwrap_or(u32::MAX);
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(&80_877_102u32.to_be_bytes());
            packet.extend_from_slice(&self.pid.to_be_bytes());
            packet.extend_from_slice(&self.key);
            stream.write_all(&packet).await?;
            stream.read_into(&mut Vec::with_capacity(1)).await.map(|_| ())
        };
        tokio::time::timeout(CANCEL_TIMEOUT, request)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
