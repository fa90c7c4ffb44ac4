//! Listening sockets that another process bound: the RustyDB that is taken over, or the service
//! manager.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, SockRef, Type};

use super::{Door, SocketFile};

/// Sockets with their names, until a door takes them. The files of Unix sockets belong to somebody
/// else until [`SocketFile::own`] says otherwise.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, Door)>);

impl Inherited {
    /// Adds a socket. The name is that of its door; any other is no name.
    ///
    /// # Errors
    /// Something that is not a listening stream socket over TCP or a Unix socket with a file.
    pub fn add(&mut self, name: String, socket: OwnedFd) -> io::Result<()> {
        let door = door_of(socket)?;
        self.0.push((name, door));
        Ok(())
    }

    /// The socket that listens on this address. With port 0, any of that name and host.
    pub(super) fn take_tcp(&mut self, name: &str, wanted: SocketAddr) -> Option<TcpListener> {
        let fits = |(its_name, door): &(String, Door)| {
            let Door::Tcp(listener) = door else { return false };
            listener.local_addr().is_ok_and(|addr| match wanted.port() {
                0 => its_name == name && addr.ip() == wanted.ip(),
                _ => addr == wanted,
            })
        };
        let at = self.0.iter().position(fits)?;
        match self.0.swap_remove(at).1 {
            Door::Tcp(listener) => Some(listener),
            Door::Unix(..) => None,
        }
    }

    /// The socket whose file this is.
    pub(super) fn take_unix(&mut self, path: &Path) -> Option<Door> {
        let fits = |(_, door): &(String, Door)| {
            let Door::Unix(listener, _) = door else { return false };
            let addr = listener.local_addr().ok();
            let own = addr.as_ref().and_then(|addr| addr.as_pathname());
            own.is_some_and(|own| is_same(own, path))
        };
        let at = self.0.iter().position(fits)?;
        Some(self.0.swap_remove(at).1)
    }

    /// What no door took.
    pub fn rest(self) -> Vec<Door> {
        self.0.into_iter().map(|(_, door)| door).collect()
    }
}

/// A file that is gone is nobody's: then the path has to be bound anew.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn door_of(socket: OwnedFd) -> io::Result<Door> {
    let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let facts = SockRef::from(&socket);
    facts.set_nonblocking(true)?;
    facts.set_cloexec(true)?;
    if facts.r#type()? != Type::STREAM || !getsockopt(&socket.as_fd(), sockopt::AcceptConn)? {
        return invalid("it is not a stream socket that listens");
    }
    match facts.domain()? {
        Domain::IPV4 | Domain::IPV6 => Ok(Door::Tcp(socket.into())),
        Domain::UNIX => {
            let listener = UnixListener::from(socket);
            let Some(path) = listener.local_addr()?.as_pathname().map(Path::to_owned) else {
                return invalid("it is a Unix socket without a file");
            };
            Ok(Door::Unix(listener, SocketFile::new(path, false)))
        }
        _ => invalid("it is neither TCP nor a Unix socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{bind_tcp, bind_unix};
    use super::*;

    #[test]
    fn a_door_takes_the_socket_of_its_address_or_its_name() {
        let mut none = Inherited::default();
        let host = ["127.0.0.1".to_owned()];
        let [first, second] = [(), ()].map(|()| {
            let doors = bind_tcp(&host, 0, 16, (&mut none, "postgres")).unwrap();
            doors.into_iter().next().unwrap()
        });
        let mut inherited = Inherited::default();
        inherited.add("postgres".into(), first.duplicate().unwrap()).unwrap();
        inherited.add("api".into(), second.duplicate().unwrap()).unwrap();
        let mut port = |port, name| {
            let doors = bind_tcp(&host, port, 16, (&mut inherited, name)).unwrap();
            doors[0].port()
        };
        assert_eq!(port(0, "api"), second.port());
        assert_eq!(port(first.port(), "another name"), first.port());
        assert_ne!(port(0, "postgres"), first.port(), "it is taken already");
        assert!(inherited.rest().is_empty());
    }

    #[test]
    fn an_inherited_file_is_left_alone_until_it_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let first = bind_unix(dir.path(), 7, &mut Inherited::default()).unwrap();
        let path = dir.path().join(".s.PGSQL.7");
        let inherit = || {
            let mut inherited = Inherited::default();
            inherited.add(String::new(), first.duplicate().unwrap()).unwrap();
            bind_unix(dir.path(), 7, &mut inherited).unwrap()
        };
        drop(inherit());
        assert!(path.exists());
        let second = inherit();
        second.file().unwrap().own(true);
        drop(second);
        assert!(!path.exists());
        first.file().unwrap().own(false);
        std::fs::write(&path, "").unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = Inherited::default().add(String::new(), a.into()).unwrap_err();
        assert!(error.to_string().contains("listens"), "{error}");
    }
}
