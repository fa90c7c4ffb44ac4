//! TLS over TCP, for clients and towards PostgreSQL. Reading and writing keep the manners of a
//! plain socket: memory only while data is in flight, and written means taken by the kernel.

mod certificate;
mod client;
mod identity;
mod server;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::io::ReadBuf;

use super::Socket;
pub use certificate::PeerCertificate;
pub use client::ClientTls;
pub(super) use client::https_config;
pub use server::{Served, ServerTls};

/// PostgreSQL's name in ALPN.
const ALPN: &[u8] = b"postgresql";

/// HTTP's names in ALPN.
const ALPN_HTTP: &[u8] = b"http/1.1";
const ALPN_HTTP2: &[u8] = b"h2";

/// The native protocol's name in ALPN.
const ALPN_NATIVE: &[u8] = b"rustydb/1";

/// What a client asked for by ALPN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpn {
    /// Nothing.
    #[default]
    None,
    /// PostgreSQL.
    Postgres,
    /// The native protocol.
    Native,
    /// HTTP/2.
    Http2,
}

/// Plain bytes that are encrypted at once: four records.
const MOST_AT_ONCE: usize = 64 << 10;

/// A TCP connection with TLS.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    session: Connection,
    /// Bytes of the writer that are encrypted already, while some of that waits for the socket.
    promised: usize,
}

/// What the handshake found out.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// For the log, for instance `TLSv1.3`.
    pub version: &'static str,
    /// Which protocol the client asked for.
    pub alpn: Alpn,
    /// The verified certificate of the client.
    pub certificate: Option<PeerCertificate>,
    /// The data of the channel binding `tls-server-end-point` (RFC 5929).
    pub binding: Option<Vec<u8>>,
}

/// The socket as rustls wants it for writing.
struct Raw<'a>(&'a Socket);

impl io::Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl TlsStream {
    /// The server's side of a handshake; `first` are bytes that were read already. With the error
    /// comes the socket: its peer may not have read the alert yet.
    pub(super) async fn accept(
        socket: Socket,
        (served, config): (&Served, Arc<ServerConfig>),
        mut first: &[u8],
    ) -> Result<(Self, TlsFacts), (Socket, io::Error)> {
        let begun = ServerConnection::new(config);
        let begun = begun.map_err(io::Error::other).and_then(|mut session| {
            // To read nothing would mean the end.
            while !first.is_empty() {
                session.read_tls(&mut first)?;
            }
            Ok(session)
        });
        let session = match begun {
            Ok(session) => session,
            Err(e) => return Err((socket, e)),
        };
        let mut stream = Self { socket, session: Connection::Server(session), promised: 0 };
        if let Err(e) = stream.handshake().await {
            return Err((stream.socket, e));
        }
        let peer = stream.session.peer_certificates().and_then(<[_]>::first);
        let facts = TlsFacts {
            version: version(&stream.session),
            alpn: match stream.session.alpn_protocol() {
                Some(ALPN) => Alpn::Postgres,
                Some(ALPN_NATIVE) => Alpn::Native,
                Some(ALPN_HTTP2) => Alpn::Http2,
                _ => Alpn::None,
            },
            certificate: peer.map(|der| PeerCertificate::read(der)),
            binding: served.binding_for(asked_for(&stream.session)),
        };
        Ok((stream, facts))
    }

    /// The client's side; returns the channel binding of the server's certificate too.
    pub(super) async fn connect(
        socket: Socket,
        tls: &ClientTls,
        host: &str,
    ) -> io::Result<(Self, Option<Vec<u8>>)> {
        let session = Connection::Client(tls.begin(host)?);
        let mut stream = Self { socket, session, promised: 0 };
        stream.handshake().await.map_err(client::explained)?;
        let peer = stream.session.peer_certificates().and_then(<[_]>::first);
        let binding = peer.and_then(|der| certificate::end_point_binding(der));
        Ok((stream, binding))
    }

    async fn handshake(&mut self) -> io::Result<()> {
        self.process()?;
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads from the socket once and decrypts; 0 = the socket has ended.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.socket.poll_readable(cx))?;
            match self.session.read_tls(&mut readable) {
                Err(e) if would_block(&e) => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(n) => return Poll::Ready(self.process().map(|()| n)),
            }
        }
    }

    fn process(&mut self) -> io::Result<()> {
        let processed = self.session.process_new_packets();
        if let Err(e) = processed {
            // The peer is told what was wrong, if it can be told at once.
            let _ = self.session.write_tls(&mut Raw(&self.socket));
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        Ok(())
    }

    /// Waits for decrypted bytes and returns how many are there; 0 = the end.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().fill_buf() {
                Ok(chunk) => return Poll::Ready(Ok(chunk.len())),
                // The end without TLS's own goodbye; PostgreSQL's protocol has one of its own.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(e) if !would_block(&e) => return Poll::Ready(Err(e)),
                Err(_) => {}
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Whether there is something to read, without a buffer for it.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_plain(cx).map_ok(|_| ())
    }

    /// Reads what is there, at most what fits.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_plain(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut reader = self.session.reader();
        while into.remaining() > 0 {
            let Ok(chunk) = reader.fill_buf() else { break };
            let n = chunk.len().min(into.remaining());
            if n == 0 {
                break;
            }
            into.put_slice(&chunk[..n]);
            reader.consume(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts and writes; the bytes count as written when the kernel has all of their records.
    /// After `Pending` the next call must begin with the same bytes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.promised == 0 {
            let most = bytes.len().min(MOST_AT_ONCE);
            self.promised = self.session.writer().write(&bytes[..most])?;
        } else if self.promised > bytes.len() {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.promised)))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session, .. } = self;
        while session.wants_write() {
            ready!(socket.poll_send(cx, |socket| session.write_tls(&mut Raw(socket))))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says TLS's goodbye, once, and that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.poll_flush(cx))?;
        Poll::Ready(self.socket.shutdown())
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Version and cipher suite, for instance `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub(super) fn describe(&self) -> String {
        let suite = self.session.negotiated_cipher_suite();
        let suite = suite.map_or_else(String::new, |suite| format!("{:?}", suite.suite()));
        // The library tells the suites of TLS 1.3 apart by a name of its own.
        let suite = suite.replace("TLS13_", "TLS_");
        format!("{}/{suite}", version(&self.session))
    }

    /// Moves the socket to the event loop of the calling thread.
    pub(super) fn rebind(self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.rebind()?, ..self })
    }
}

/// The name that the client asked for.
fn asked_for(session: &Connection) -> Option<&str> {
    match session {
        Connection::Server(session) => session.server_name(),
        Connection::Client(_) => None,
    }
}

fn version(session: &Connection) -> &'static str {
    match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "unknown",
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
