//! The socket: TCP, TLS over TCP, or Unix; reached host after host.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tls::{self, Tls};
use crate::config::{Host, TlsMode};

/// A connected socket.
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// TCP with TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Connects to one host.
    pub(super) async fn connect(host: &Host, mode: TlsMode, tls: Option<&Tls>) -> io::Result<Self> {
        match (host, tls) {
            // Where TLS is needed, the configuration was refused.
            (Host::Unix(folder, port), _) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                Ok(Self::Unix(UnixStream::connect(path).await?))
            }
            (Host::Tcp(name, port), None) => Ok(Self::Tcp(tcp(name, *port).await?)),
            (Host::Tcp(name, port), Some(tls)) => {
                let socket = tcp(name, *port).await?;
                match tls.connect(socket, name).await {
                    Ok(stream) => Ok(Self::Tls(Box::new(stream))),
                    // The server speaks no TLS.
                    Err(_) if mode == TlsMode::Prefer => Ok(Self::Tcp(tcp(name, *port).await?)),
                    Err(e) => Err(e),
                }
            }
        }
    }

    /// Whether nobody on the way can read along.
    pub(super) fn is_private(&self) -> bool {
        match self {
            Self::Tcp(socket) => {
                socket.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
            }
            Self::Tls(_) | Self::Unix(_) => true,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What SCRAM can be bound to.
    pub(super) fn binding(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::binding(stream),
            _ => None,
        }
    }

    /// Reads into the free space of `buffer`; 0 = the peer has closed.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::uninit(buffer.spare_capacity_mut());
        let polled = match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, &mut into),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, &mut into),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, &mut into),
        };
        let count = into.filled().len();
        if count > 0 {
            // SAFETY: the reader has filled that many bytes of the free space.
            unsafe { buffer.set_len(buffer.len() + count) };
        }
        polled.map_ok(|()| count)
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // Written means taken by the kernel.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

async fn tcp(name: &str, port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((name, port)).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
