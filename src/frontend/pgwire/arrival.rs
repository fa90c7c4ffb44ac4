//! From the first byte to the start-up packet: PROXY protocol, which protocol it is, TLS.
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>)

use std::net::{IpAddr, SocketAddr};

use super::{PgDoor, Refusal, part};
use crate::error::{Error, ErrorKind};
use crate::limits::{Permit, Share};
use crate::net::{Alpn, ReadAhead, Stream, TlsFacts};
use crate::proto::proxy;
use crate::proto::startup::{self as packets, Dialect, Startup, StartupMessage};

/// What the limits say of a connection before it says anything itself.
pub(in crate::frontend) struct Admission {
    /// Of `network.max_connections`; `None` = it is only told why not.
    pub(in crate::frontend) permit: Option<Permit>,
    /// Of those who are told.
    pub(super) refusal: Option<Permit>,
    /// Of `network.max_connections_per_address`.
    pub(in crate::frontend) address: Option<Share<IpAddr>>,
    /// The limit that is reached, for the metric, and what the client is told.
    pub(in crate::frontend) over: Option<(&'static str, String)>,
}

/// A client on its way in.
pub(super) struct Arrival<'a> {
    pub(super) door: &'a PgDoor,
    pub(super) stream: Stream,
    /// What the client has sent beyond what was looked at.
    pub(super) ahead: ReadAhead,
    pub(super) admission: Admission,
    /// The client's address; `None` = the Unix socket.
    pub(super) address: Option<SocketAddr>,
    /// What the TLS handshake found out, if there was one.
    pub(super) tls: Option<TlsFacts>,
    /// SSLRequest and GSSENCRequest may each come once.
    asked: (bool, bool),
    /// TLS was the first thing on the connection.
    direct: bool,
}

/// How an arrival ended.
pub(super) enum Arrived<'a> {
    /// With a start-up packet.
    Start(Arrival<'a>, StartupMessage),
    /// With the preface of the native protocol; the byte is its format.
    Native(Arrival<'a>, u8),
    /// With something that the client is to be told.
    Refused(Arrival<'a>, Error),
    /// Nothing more is to be done: a cancel request, a client that left.
    Done,
}

/// What came.
enum Packet {
    Startup(Startup),
    /// The preface of the native protocol, with its format.
    Native(u8),
    /// A ClientHello, or the beginning of one.
    Tls,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(door: &'a PgDoor, stream: Stream, admission: Admission) -> Self {
        let address = stream.peer_address();
        Self {
            door,
            stream,
            ahead: ReadAhead::default(),
            admission,
            address,
            tls: None,
            asked: (false, false),
            direct: false,
        }
    }

    /// The address of the client for the log and the list of sessions.
    pub(super) fn peer(&self) -> String {
        self.address.map_or_else(|| self.stream.peer(), |address| address.to_string())
    }

    pub(super) async fn run(mut self) -> Arrived<'a> {
        match self.proxy_header().await {
            Err(refusal) => return self.refused(refusal),
            Ok(()) if !self.count_address() => return Arrived::Done,
            Ok(()) => {}
        }
        loop {
            let startup = match self.packet().await {
                Err(refusal) => return self.refused(refusal),
                Ok(Packet::Startup(startup)) => startup,
                Ok(Packet::Native(format)) => return Arrived::Native(self, format),
                Ok(Packet::Tls) => {
                    self = match self.encrypt().await {
                        Some(arrival) => arrival,
                        None => return Arrived::Done,
                    };
                    continue;
                }
            };
            match startup {
                Startup::Start(message) => return Arrived::Start(self, message),
                Startup::Cancel { pid, key } => {
                    self.door.opener.cancel(pid, &key).await;
                    return Arrived::Done;
                }
                Startup::Ssl if !self.asked.0 => {
                    self.asked.0 = true;
                    let offered = self.offers_tls();
                    let answer: &[u8] = if offered { b"S" } else { b"N" };
                    if self.stream.write_all(answer).await.is_err() {
                        return Arrived::Done;
                    }
                    if let Err(refusal) = self.is_quiet("SSL") {
                        // After the promise to encrypt, nothing may be said in clear.
                        return if offered { Arrived::Done } else { self.refused(refusal) };
                    }
                    if offered {
                        self = match self.encrypt().await {
                            Some(arrival) => arrival,
                            None => return Arrived::Done,
                        };
                    }
                }
                Startup::GssEnc if !self.asked.1 => {
                    self.asked.1 = true;
                    if self.stream.write_all(b"N").await.is_err() {
                        return Arrived::Done;
                    }
                    if let Err(refusal) = self.is_quiet("GSSAPI encryption") {
                        return self.refused(refusal);
                    }
                }
                // PostgreSQL reads a request that was made before as a version, too.
                Startup::Ssl => return self.unsupported(1234, 5679),
                Startup::GssEnc => return self.unsupported(1234, 5680),
                Startup::Unsupported { major, minor } => return self.unsupported(major, minor),
            }
        }
    }

    fn refused(self, refusal: Refusal) -> Arrived<'a> {
        match refusal {
            Refusal::Told(error) => Arrived::Refused(self, error),
            Refusal::Silent => Arrived::Done,
        }
    }

    fn unsupported(self, major: u16, minor: u16) -> Arrived<'a> {
        let text =
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
        Arrived::Refused(self, Error::new(ErrorKind::NotSupported, text))
    }

    /// TLS is for TCP, as in PostgreSQL.
    fn offers_tls(&self) -> bool {
        self.door.tls.is_some() && matches!(self.stream, Stream::Tcp(_))
    }

    /// Reads who the client is from a load balancer that is known to tell.
    async fn proxy_header(&mut self) -> Result<(), Refusal> {
        let config = self.door.config.now();
        let network = &config.network;
        let Some(peer) = self.address.filter(|_| network.proxy_protocol) else { return Ok(()) };
        let ip = peer.ip().to_canonical();
        if !network.proxy_networks.iter().any(|known| known.contains(&ip)) {
            return Ok(());
        }
        let mut have = 0;
        loop {
            match proxy::parse(&self.ahead.rest()[..have]) {
                Ok(proxy::Header::Missing(n)) => {
                    have += n;
                    if self.ahead.peek(&mut self.stream, have).await?.is_none() {
                        return Err(Refusal::Silent);
                    }
                }
                Ok(proxy::Header::Client(client)) => {
                    self.ahead.take(have);
                    self.address = client.or(self.address);
                    return Ok(());
                }
                Err(error) => {
                    self.door.metrics.connection_rejected("proxy_protocol");
                    tracing::warn!(address = %peer, %error, "a proxy is refused");
                    return Err(Refusal::Silent);
                }
            }
        }
    }

    /// Counts the connection for its address; false = not even a refusal can be told.
    fn count_address(&mut self) -> bool {
        let Some(ip) = self.address.map(|address| address.ip().to_canonical()) else { return true };
        match self.door.addresses.enter(&ip) {
            Ok(share) => self.admission.address = Some(share),
            Err(most) if self.admission.over.is_none() => {
                let limit = "max_connections_per_address";
                let text =
                    format!("too many connections for address {ip}: network.{limit} is {most}");
                // Who is only to be told why must not take the place of somebody else.
                self.admission.permit = None;
                self.admission.refusal = self.door.refusals.enter();
                self.admission.over = Some((limit, text));
                if self.admission.refusal.is_none() {
                    self.door.metrics.connection_rejected(limit);
                    return false;
                }
            }
            Err(_) => {}
        }
        true
    }

    /// A client that asks for encryption waits for the answer: what it sent before that would be
    /// read as if it had been encrypted.
    fn is_quiet(&self, asked_for: &str) -> Result<(), Refusal> {
        if self.ahead.rest().is_empty() {
            return Ok(());
        }
        self.door.metrics.protocol_error("startup");
        let text = format!("received unencrypted data after {asked_for} request");
        let error = Error::new(ErrorKind::ProtocolViolation, text).with_detail(
            "This could be either a client-software bug or evidence of an attempted \
             man-in-the-middle attack.",
        );
        Err(error.into())
    }

    async fn packet(&mut self) -> Result<Packet, Refusal> {
        let may_be_native = self.may_be_native();
        // Direct TLS is the first thing on a connection, or not at all.
        let may_encrypt = self.offers_tls() && self.asked == (false, false);
        let mut needed = 1;
        // One byte tells most strangers, eight bytes tell everybody.
        let length = loop {
            let Some(bytes) = self.ahead.peek(&mut self.stream, needed).await? else {
                return Err(self.stranger().await);
            };
            match (packets::detect(bytes), bytes) {
                (Some(Dialect::Postgres), [a, b, c, d, _, _, _, _, ..]) => {
                    break u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                }
                (Some(Dialect::Native), [_, _, _, _, _, _, _, format, ..]) if may_be_native => {
                    let format = *format;
                    self.ahead.take(packets::DETECT_BYTES);
                    return Ok(Packet::Native(format));
                }
                (Some(Dialect::Postgres) | None, _) => needed = packets::DETECT_BYTES,
                (Some(Dialect::Tls), _) if may_encrypt => return Ok(Packet::Tls),
                (Some(_), _) => return Err(self.stranger().await),
            }
        };
        if !self.may_be_postgres() {
            return Err(Refusal::Silent);
        }
        let longest = self.door.config.now().pgwire.max_startup_bytes.len();
        if length < packets::DETECT_BYTES || length > longest {
            return Err(self.malformed("invalid length of startup packet"));
        }
        let Some(bytes) = self.ahead.peek(&mut self.stream, length).await? else {
            self.door.metrics.protocol_error("truncated_startup");
            return Err(Refusal::Silent);
        };
        let parsed = packets::parse(&bytes[4..length]);
        self.ahead.take(length);
        parsed.map(Packet::Startup).map_err(|e| self.malformed(e.0))
    }

    /// Carries out a TLS handshake; `None` = it failed, and the client is gone.
    async fn encrypt(self) -> Option<Self> {
        let served = self.door.tls.as_ref()?.current();
        match self.stream.accept_tls(&served, self.ahead.rest()).await {
            Ok((stream, facts)) => {
                self.door.metrics.tls_handshake(Some(facts.version));
                let direct = !self.ahead.rest().is_empty();
                let asked = (true, self.asked.1);
                let ahead = ReadAhead::default();
                Some(Self { stream, ahead, tls: Some(facts), direct, asked, ..self })
            }
            Err((mut stream, error)) => {
                self.door.metrics.tls_handshake(None);
                let address = self.address.map(tracing::field::display);
                tracing::info!(address, %error, "TLS handshake failed");
                part(&mut stream, b"").await;
                None
            }
        }
    }

    /// Without ALPN, a direct handshake may be somebody's who was led here from another service.
    fn may_be_postgres(&self) -> bool {
        let alpn = self.tls.as_ref().map(|facts| facts.alpn);
        if !self.direct || alpn == Some(Alpn::Postgres) {
            return true;
        }
        self.door.metrics.protocol_error("tls_without_alpn");
        let address = self.address.map(tracing::field::display);
        tracing::info!(
            address,
            "received direct SSL connection request without ALPN protocol negotiation extension"
        );
        false
    }

    /// Who has asked for PostgreSQL, in whatever way, does not get another protocol.
    fn may_be_native(&self) -> bool {
        let alpn = self.tls.as_ref().map(|facts| facts.alpn);
        self.asked == (self.direct, false) && alpn != Some(Alpn::Postgres)
    }

    fn malformed(&self, text: &'static str) -> Refusal {
        self.door.metrics.protocol_error("startup");
        Refusal::Told(Error::new(ErrorKind::ProtocolViolation, text))
    }

    /// Somebody who speaks another protocol is told so in that protocol, if we know it.
    async fn stranger(&mut self) -> Refusal {
        let first = self.ahead.rest();
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
            Some(Dialect::Native) => "native_after_ssl_request",
            _ if first.is_empty() => return Refusal::Silent,
            _ => "unknown_protocol",
        };
        self.door.metrics.protocol_error(reason);
        Refusal::Silent
    }
}
