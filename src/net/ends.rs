//! What is known of a connection beside the address of its other end, for who looks at the server.

use std::net::SocketAddr;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::SockRef;

use super::socket::Socket;
use super::stream::Stream;

/// Our own end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalEnd {
    /// It is not known.
    #[default]
    Unknown,
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// The number in its name; 0 = it has none.
        port: u16,
        /// The process at the other end; 0 = the operating system does not tell.
        pid: u32,
    },
}

/// Our own end, and how the connection is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Our own end.
    pub local: LocalEnd,
    /// Version and cipher suite of TLS; `None` = it is not encrypted.
    pub tls: Option<Arc<str>>,
}

impl Ends {
    /// Those of a stream.
    pub fn of(stream: &Stream) -> Self {
        let local = stream.socket().and_then(LocalEnd::of).unwrap_or_default();
        Self { local, tls: stream.describe_tls().map(Into::into) }
    }
}

impl LocalEnd {
    fn of(socket: &Socket) -> Option<Self> {
        let own = SockRef::from(socket).local_addr().ok()?;
        if let Some(address) = own.as_socket() {
            return Some(Self::Tcp(address));
        }
        let port = own.as_pathname().and_then(|path| path.extension()?.to_str()?.parse().ok());
        let peer = getsockopt(socket, sockopt::PeerCredentials).ok();
        let pid = peer.and_then(|peer| u32::try_from(peer.pid()).ok());
        Some(Self::Unix { port: port.unwrap_or(0), pid: pid.unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_tells_the_process_and_the_port_in_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.6543");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let ends = |stream| Ends::of(&Stream::Unix(Socket::new(stream).unwrap()));
        let own = std::process::id();
        assert_eq!(ends(server).local, LocalEnd::Unix { port: 6543, pid: own });
        let ends = ends(client);
        assert_eq!((ends.local, ends.tls), (LocalEnd::Unix { port: 0, pid: own }, None));
    }
}
