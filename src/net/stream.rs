//! A connected socket, whichever kind: read into the free end of a vector, write from a slice.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;
use super::tls::{ClientTls, Served, TlsFacts, TlsStream};

/// Bytes that a new client usually sends at once.
const AHEAD: usize = 512;

/// A connection over TCP or a Unix socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(Socket),
    /// Unix socket.
    Unix(Socket),
    /// TCP with TLS. Boxed: the others are small, and most.
    Tls(Box<TlsStream>),
    /// No socket, but something that stands in for one.
    Custom(Box<dyn Transport>),
}

/// What can stand in for a socket: an adapter that translates another protocol. It is polled by the
/// task that feeds it, so it need not wake anybody.
pub trait Transport: std::fmt::Debug + Send + Sync {
    /// Reads once; nothing read = the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Writes once.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Whether the peer is gone.
    fn is_closed(&self) -> bool;
}

impl Stream {
    /// Whether there may be something to read, without taking a buffer for it.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => socket.poll_readable(cx).map_ok(|_| ()),
            Stream::Tls(stream) => stream.poll_readable(cx),
            // There is no socket to ask: who reads will see.
            Stream::Custom(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads once into the free capacity of the vector that `into` gives, which is asked for when
    /// there may be something to read; `Ok(0)` = the peer has closed.
    pub fn poll_read_into<'a>(
        &mut self,
        cx: &mut Context<'_>,
        into: impl FnOnce() -> &'a mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let readable = match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => Some(ready!(socket.poll_readable(cx))?),
            Stream::Tls(_) | Stream::Custom(_) => None,
        };
        let into = into();
        let length = into.len();
        let mut free = ReadBuf::uninit(into.spare_capacity_mut());
        match readable.and_then(|mut readable| readable.receive(&mut free)) {
            Some(read) => read?,
            None => ready!(self.poll_read(cx, &mut free))?,
        }
        let filled = free.filled().len();
        // SAFETY: `ReadBuf` counts as filled only what has been initialised, and it lies in the
        // spare capacity, so `length + filled` is within capacity and initialised.
        unsafe { into.set_len(length + filled) };
        Poll::Ready(Ok(filled))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => socket.poll_read(cx, into),
            Stream::Tls(stream) => stream.poll_read(cx, into),
            Stream::Custom(stream) => stream.poll_read(cx, into),
        }
    }

    /// Writes once. After `Pending` the next call must begin with the same bytes.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => socket.poll_write(cx, bytes),
            Stream::Tls(stream) => stream.poll_write(cx, bytes),
            Stream::Custom(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Reads once; `Ok(0)` = the peer has closed.
    pub async fn read_into(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read_into(cx, || &mut *into)).await
    }

    /// Writes everything.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    /// Reads exactly `length` bytes more, and not one beyond: what follows may be for somebody
    /// else. `Ok(false)` = the peer has closed before that.
    pub async fn read_exactly(&mut self, into: &mut Vec<u8>, length: usize) -> io::Result<bool> {
        let whole = into.len() + length;
        while into.len() < whole {
            if self.read_at_most(into, whole - into.len()).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read_at_most(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let mut bytes = [0; 1024];
        let most = most.min(bytes.len());
        let read = std::future::poll_fn(|cx| {
            let mut free = ReadBuf::new(&mut bytes[..most]);
            ready!(self.poll_read(cx, &mut free))?;
            Poll::Ready(io::Result::Ok(free.filled().len()))
        })
        .await?;
        into.extend_from_slice(&bytes[..read]);
        Ok(read)
    }

    /// Says that nothing more will be written.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => socket.shutdown(),
            Stream::Tls(stream) => std::future::poll_fn(|cx| stream.poll_shutdown(cx)).await,
            Stream::Custom(_) => Ok(()),
        }
    }

    /// Answers a TLS handshake, of which the first bytes were read already. With the error comes
    /// the stream as it was.
    pub async fn accept_tls(
        self,
        served: &Served,
        first: &[u8],
    ) -> Result<(Self, TlsFacts), (Self, io::Error)> {
        let how = (served, served.config.clone());
        self.accept_with(how, first).await
    }

    /// The same for an HTTP client.
    pub async fn accept_https(
        self,
        served: &Served,
        first: &[u8],
    ) -> Result<(Self, TlsFacts), (Self, io::Error)> {
        let how = (served, served.http.clone());
        self.accept_with(how, first).await
    }

    async fn accept_with(
        self,
        how: (&Served, Arc<ServerConfig>),
        first: &[u8],
    ) -> Result<(Self, TlsFacts), (Self, io::Error)> {
        match self {
            Stream::Tcp(socket) => match TlsStream::accept(socket, how, first).await {
                Ok((stream, facts)) => Ok((Stream::Tls(Box::new(stream)), facts)),
                Err((socket, error)) => Err((Stream::Tcp(socket), error)),
            },
            other => Err((other, io::ErrorKind::Unsupported.into())),
        }
    }

    /// Begins a TLS handshake; returns the channel binding of the server's certificate too.
    pub async fn connect_tls(
        self,
        tls: &ClientTls,
        host: &str,
    ) -> io::Result<(Self, Option<Vec<u8>>)> {
        let Stream::Tcp(socket) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let (stream, binding) = TlsStream::connect(socket, tls, host).await?;
        Ok((Stream::Tls(Box::new(stream)), binding))
    }

    /// From now on less than so many bytes do not wake who waits for something to read; false = the
    /// socket does not know this.
    pub fn set_low_water(&self, bytes: u32) -> bool {
        let Some(tcp) = self.tcp() else { return false };
        let value = nix::libc::c_int::try_from(bytes).unwrap_or(nix::libc::c_int::MAX);
        // SAFETY: the descriptor is open for as long as `tcp` is borrowed, and the option's value
        // is an int that lives until the call returns.
        let set = unsafe {
            nix::libc::setsockopt(
                tcp.as_fd().as_raw_fd(),
                nix::libc::SOL_SOCKET,
                nix::libc::SO_RCVLOWAT,
                (&raw const value).cast(),
                size_of_val(&value) as nix::libc::socklen_t,
            )
        };
        set == 0
    }

    /// Whether the peer has closed its side, even while unread data waits.
    pub fn peer_has_closed(&self) -> bool {
        if let Stream::Custom(stream) = self {
            return stream.is_closed();
        }
        self.kernel_reports(nix::poll::PollFlags::from_bits_retain(nix::libc::POLLRDHUP))
    }

    /// Whether there may be something to read, as far as the event loop knows. Nobody is woken when
    /// that changes.
    pub fn may_have_input(&self) -> bool {
        match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => socket.is_told(),
            Stream::Tls(_) | Stream::Custom(_) => true,
        }
    }

    /// Whether the kernel has something to read, or the end, whatever the event loop knows.
    /// Bytes that are decrypted already are not among them: `poll_readable` finds those.
    pub fn has_input(&self) -> bool {
        self.kernel_reports(nix::poll::PollFlags::POLLIN)
    }

    fn kernel_reports(&self, flags: nix::poll::PollFlags) -> bool {
        let Some(socket) = self.socket() else { return false };
        let mut poll = [nix::poll::PollFd::new(socket.as_fd(), flags)];
        matches!(nix::poll::poll(&mut poll, 0u8), Ok(n) if n > 0)
    }

    pub(super) fn socket(&self) -> Option<&Socket> {
        match self {
            Stream::Tcp(socket) | Stream::Unix(socket) => Some(socket),
            Stream::Tls(stream) => Some(stream.socket()),
            Stream::Custom(_) => None,
        }
    }

    /// Moves the socket to the event loop of the calling thread.
    pub fn rebind(self) -> io::Result<Self> {
        match self {
            Stream::Tcp(socket) => socket.rebind().map(Stream::Tcp),
            Stream::Unix(socket) => socket.rebind().map(Stream::Unix),
            Stream::Tls(stream) => stream.rebind().map(|stream| Stream::Tls(Box::new(stream))),
            Stream::Custom(stream) => Ok(Stream::Custom(stream)),
        }
    }

    /// The TCP socket, if it is one.
    pub(super) fn tcp(&self) -> Option<&Socket> {
        self.socket().filter(|_| !matches!(self, Stream::Unix(_)))
    }

    /// Version and cipher suite of TLS, for instance `TLSv1.3/TLS_AES_256_GCM_SHA384`; `None` = it
    /// is not encrypted.
    pub fn describe_tls(&self) -> Option<String> {
        match self {
            Stream::Tls(stream) => Some(stream.describe()),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Custom(_) => None,
        }
    }

    /// Address of the peer; `None` for a Unix socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.tcp().and_then(Socket::peer_address)
    }

    /// Number of the operating system's user at the other end of a Unix socket.
    pub fn peer_user(&self) -> Option<u32> {
        match self {
            Stream::Unix(socket) => socket.peer_user(),
            _ => None,
        }
    }

    /// Address of the peer for the log.
    pub fn peer(&self) -> String {
        match self {
            Stream::Unix(_) => "local".into(),
            _ => self.peer_address().map_or_else(|| "unknown".into(), |a| a.to_string()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Stream::poll_read(self.get_mut(), cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) | Stream::Unix(socket) => socket.poll_write_vectored(cx, slices),
            stream @ (Stream::Tls(_) | Stream::Custom(_)) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                Stream::poll_write(stream, cx, first.map_or(&[][..], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Stream::Tls(_) | Stream::Custom(_))
    }

    /// What counts as written, the kernel has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) | Stream::Unix(socket) => Poll::Ready(socket.shutdown()),
            Stream::Tls(stream) => stream.poll_shutdown(cx),
            Stream::Custom(_) => Poll::Ready(Ok(())),
        }
    }
}

/// What a new client has sent, read in as few pieces as it came in. Whoever takes over the stream
/// takes over what is left here.
#[derive(Debug, Default)]
pub struct ReadAhead {
    bytes: Vec<u8>,
    taken: usize,
}

impl ReadAhead {
    /// The next bytes: at least `length` of them, and what came with them. `None` = the peer has
    /// closed before that.
    pub async fn peek(&mut self, stream: &mut Stream, length: usize) -> io::Result<Option<&[u8]>> {
        while self.rest().len() < length {
            let missing = length - self.rest().len();
            if self.taken == self.bytes.len() {
                self.bytes.clear();
                self.taken = 0;
            }
            self.bytes.reserve(missing.max(AHEAD));
            if stream.read_into(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.rest()))
    }

    /// What was read and not taken.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes bytes that were peeked at.
    pub fn take(&mut self, length: usize) {
        self.taken = (self.taken + length).min(self.bytes.len());
    }
}
