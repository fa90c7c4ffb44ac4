//! From the first byte to the start-up packet: PROXY protocol, which protocol it is, TLS.
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>)

use std::net::{IpAddr, SocketAddr};

use super::{PgDoor, Refusal, part};
use crate::error::{Error, ErrorKind};
use crate::limits::{Permit, Share};
use crate::net::{Alpn, Stream, TlsFacts};
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
    /// The first byte of a ClientHello.
    Tls(Vec<u8>),
}

impl<'a> Arrival<'a> {
    pub(super) fn new(door: &'a PgDoor, stream: Stream, admission: Admission) -> Self {
        let address = stream.peer_address();
        Self { door, stream, admission, address, tls: None, asked: (false, false), direct: false }
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
                Ok(Packet::Tls(first)) => {
                    self = match self.encrypt(&first).await {
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
                    // The client waits for the answer; what is there already, is not encrypted,
                    // and is left in the socket, where the handshake will choke on it.
                    let offered = self.offers_tls();
                    let answer: &[u8] = if offered { b"S" } else { b"N" };
                    if self.stream.write_all(answer).await.is_err() {
                        return Arrived::Done;
                    }
                    if offered {
                        self = match self.encrypt(&[]).await {
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
        let mut bytes = Vec::new();
        loop {
            match proxy::parse(&bytes) {
                Ok(proxy::Header::Missing(n)) => {
                    if !self.stream.read_exactly(&mut bytes, n).await? {
                        return Err(Refusal::Silent);
                    }
                }
                Ok(proxy::Header::Client(client)) => {
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

    async fn packet(&mut self) -> Result<Packet, Refusal> {
        let mut bytes = Vec::with_capacity(packets::DETECT_BYTES);
        loop {
            // One byte tells most strangers, eight bytes tell everybody.
            let missing = if bytes.is_empty() { 1 } else { packets::DETECT_BYTES - bytes.len() };
            if !self.stream.read_exactly(&mut bytes, missing).await? {
                return Err(self.stranger(&bytes).await);
            }
            match packets::detect(&bytes) {
                Some(Dialect::Postgres) if bytes.len() == packets::DETECT_BYTES => break,
                Some(Dialect::Native) if self.may_be_native() => {
                    return Ok(Packet::Native(bytes[packets::DETECT_BYTES - 1]));
                }
                Some(Dialect::Postgres) | None => {}
                // Direct TLS is the first thing on a connection, or not at all.
                Some(Dialect::Tls) if self.offers_tls() && self.asked == (false, false) => {
                    return Ok(Packet::Tls(bytes));
                }
                Some(_) => return Err(self.stranger(&bytes).await),
            }
        }
        if !self.may_be_postgres() {
            return Err(Refusal::Silent);
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
        packets::parse(&bytes[4..]).map(Packet::Startup).map_err(|e| self.malformed(e.0))
    }

    /// Carries out a TLS handshake; `None` = it failed, and the client is gone.
    async fn encrypt(self, first: &[u8]) -> Option<Self> {
        let served = self.door.tls.as_ref()?.current();
        match self.stream.accept_tls(&served, first).await {
            Ok((stream, facts)) => {
                self.door.metrics.tls_handshake(Some(facts.version));
                let direct = !first.is_empty();
                let asked = (true, self.asked.1);
                Some(Self { stream, tls: Some(facts), direct, asked, ..self })
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
            Some(Dialect::Native) => "native_after_ssl_request",
            _ if first.is_empty() => return Refusal::Silent,
            _ => "unknown_protocol",
        };
        self.door.metrics.protocol_error(reason);
        Refusal::Silent
    }
}
