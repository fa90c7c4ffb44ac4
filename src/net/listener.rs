//! Listening sockets. Each is bound once and then shared: every worker accepts from its own
//! registration of the same socket, so a taken port is an error and load spreads by who is free.
//! Sockets that another process bound ([`Inherited`]) come before new ones.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket::watch;
use super::{Inherited, Socket as Connected, Stream};
use crate::config::{Network, Secs};

/// A bound socket that is not served yet.
#[derive(Debug)]
pub enum Door {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix socket; its file goes with the last that holds it.
    Unix(StdUnixListener, Arc<SocketFile>),
}

/// The file of a Unix socket. Whoever owns it removes it at the end; while a listening socket goes
/// from one process to another, exactly one of them does.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    is_ours: AtomicBool,
}

impl SocketFile {
    /// A file that this process removes (`true`) or leaves alone.
    pub(super) fn new(path: PathBuf, is_ours: bool) -> Arc<Self> {
        Arc::new(Self { path, is_ours: AtomicBool::new(is_ours) })
    }

    /// From now on this process removes the file at its end, or leaves that to another.
    pub fn own(&self, is_ours: bool) {
        self.is_ours.store(is_ours, Ordering::Release);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours.load(Ordering::Acquire) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why a socket could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// What was to be bound.
    pub what: String,
    /// Why not.
    pub cause: io::Error,
}

impl BindError {
    /// Whether somebody else has the address.
    pub fn is_taken(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_taken() {
            write!(f, "{} is already in use by another process", self.what)
        } else {
            write!(f, "cannot listen on {}: {}", self.what, self.cause)
        }
    }
}

/// Binds one TCP socket per address, all on the same port; port 0 lets the kernel choose. What is
/// inherited under this name or address is not bound again.
pub fn bind_tcp(
    addresses: &[String],
    port: u16,
    backlog: u32,
    (inherited, name): (&mut Inherited, &str),
) -> Result<Vec<Door>, BindError> {
    let mut doors = Vec::new();
    let mut port = port;
    for address in addresses {
        let what = format!("address {address}, port {port}");
        let failed = |cause| BindError { what: what.clone(), cause };
        let resolved: Vec<SocketAddr> = match address.parse::<IpAddr>() {
            Ok(ip) => vec![(ip, port).into()],
            Err(_) => (address.as_str(), port).to_socket_addrs().map_err(failed)?.collect(),
        };
        for addr in resolved {
            let listener = match inherited.take_tcp(name, addr) {
                Some(listener) => listener,
                None => bind_one(addr, backlog).map_err(failed)?,
            };
            port = listener.local_addr().map_or(port, |addr| addr.port());
            doors.push(Door::Tcp(listener));
        }
    }
    Ok(doors)
}

fn bind_one(addr: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket =
        Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), None)?;
    // Connections in TIME_WAIT must not keep a restarted server out; a listening one still does.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Binds `<directory>/.s.PGSQL.<port>`, where libpq looks for it. A file that nobody answers on
/// is left over from a process that died, and is replaced.
pub fn bind_unix(
    directory: &Path,
    port: u16,
    inherited: &mut Inherited,
) -> Result<Door, BindError> {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    if let Some(door) = inherited.take_unix(&path) {
        return Ok(door);
    }
    let what = || format!("Unix socket {}", path.display());
    let fail = |cause| BindError { what: what(), cause };
    if let Ok(meta) = std::fs::symlink_metadata(&path) {
        let refused = StdUnixStream::connect(&path)
            .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if !(meta.file_type().is_socket() && refused) {
            return Err(fail(io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(&path).map_err(fail)?;
    }
    let listener = StdUnixListener::bind(&path).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    // Who may connect is decided by the log-in, as in PostgreSQL.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(fail)?;
    Ok(Door::Unix(listener, SocketFile::new(path, true)))
}

impl Door {
    /// The TCP port, or 0.
    pub fn port(&self) -> u16 {
        match self {
            Door::Tcp(listener) => listener.local_addr().map_or(0, |addr| addr.port()),
            Door::Unix(..) => 0,
        }
    }

    /// The same socket once more, for another process.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            Door::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Door::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// The file of a Unix socket.
    pub fn file(&self) -> Option<Arc<SocketFile>> {
        match self {
            Door::Tcp(_) => None,
            Door::Unix(_, file) => Some(file.clone()),
        }
    }

    /// A listener on the event loop of the calling thread.
    pub fn listen(&self) -> io::Result<Listener> {
        let io = watch(self.duplicate()?.into(), Interest::READABLE)?;
        Ok(Listener { io, file: self.file(), inherited: None })
    }
}

/// A socket that accepts.
#[derive(Debug)]
pub struct Listener {
    io: AsyncFd<Socket>,
    /// Of a Unix socket: it is removed at last.
    file: Option<Arc<SocketFile>>,
    /// What accepted sockets have from this one, as Linux lets them inherit it.
    inherited: Option<SocketOptions>,
}

/// What the configuration says about sockets: TCP_NODELAY, and the silence before a probe.
type SocketOptions = (bool, Option<Duration>);

impl Listener {
    /// The next client. Errors of single connections and of exhausted descriptors are waited out:
    /// a listener that gives up would be a server that is up and deaf.
    pub async fn accept(&self) -> Stream {
        loop {
            let accepted = self.io.async_io(Interest::READABLE, Socket::accept).await;
            match accepted.and_then(|(socket, _)| Connected::accepted(socket)) {
                Ok(socket) if self.file.is_some() => return Stream::Unix(socket),
                Ok(socket) => return Stream::Tcp(socket),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Sets what the configuration says about sockets on an accepted one. Those to come inherit
    /// it, which saves each of them three system calls.
    pub fn configure(&mut self, accepted: &Stream, network: &Network) {
        if self.file.is_some() {
            return;
        }
        let idle = network.keepalive_secs.map(|Secs(secs)| Duration::from_secs(secs));
        let options = (network.tcp_nodelay, idle);
        if self.inherited != Some(options) {
            set_options(&SockRef::from(self.io.get_ref()), options);
            accepted.tcp().inspect(|socket| set_options(&SockRef::from(*socket), options));
            self.inherited = Some(options);
        }
    }
}

fn set_options(socket: &SockRef<'_>, (nodelay, keepalive): SocketOptions) {
    let _ = socket.set_tcp_nodelay(nodelay);
    let _ = match keepalive {
        Some(idle) => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle)),
        None => socket.set_keepalive(false),
    };
}

impl Stream {
    /// Lets the kernel break a connection whose peer takes nothing for this long (RFC 5482), so
    /// that a reader that stopped does not hold a backend for ever.
    pub fn give_up_after(&self, limit: Duration) {
        if let Some(stream) = self.tcp() {
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(limit));
        }
    }
}
