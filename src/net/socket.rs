//! A connected stream socket of either kind, registered with the event loop of one thread.
//!
//! The event loop tells of bytes to read and of nothing else. Of room to write it would tell too
//! often: a Unix socket has room each time that its peer has read something. Who writes tries, and
//! only a socket that takes nothing more is registered for that, for as long as it is so.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::SockRef;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::{Interest, ReadBuf};

/// Time between attempts to write while no descriptor is left.
const RETRY: Duration = Duration::from_millis(10);

/// The socket.
#[derive(Debug)]
pub struct Socket {
    io: AsyncFd<socket2::Socket>,
    /// Nobody has tried to read. Its peer has usually sent something before the event loop tells.
    is_new: bool,
    /// There while the kernel takes less than is written.
    room: Option<Box<Room>>,
}

/// Waits for room in a socket.
#[derive(Debug)]
struct Room {
    /// The same socket by another number: the event loop knows each number once.
    io: AsyncFd<socket2::Socket>,
    /// Nothing was written since the last wait.
    was_awaited: bool,
}

/// A socket that may have something to read.
pub(super) struct Readable<'a> {
    socket: &'a socket2::Socket,
    /// What the event loop knows; `None` = nothing yet.
    known: Option<AsyncFdReadyGuard<'a, socket2::Socket>>,
}

impl Readable<'_> {
    /// Reads once; nothing read = the peer has closed. `None` = there is nothing after all.
    pub(super) fn receive(&mut self, into: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let asked = into.remaining();
        let read = receive(self.socket, into);
        self.learn(&read, asked);
        match read {
            Err(e) if would_block(&e) => None,
            read => Some(read.map(|_| ())),
        }
    }

    /// Less than was asked for is all there was: the event loop tells when there is more.
    fn learn(&mut self, read: &io::Result<usize>, asked: usize) {
        let is_empty = match read {
            Ok(n) => (1..asked).contains(n),
            Err(e) => would_block(e),
        };
        if let (true, Some(known)) = (is_empty, &mut self.known) {
            known.clear_ready();
        }
    }
}

impl io::Read for Readable<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let asked = into.len();
        let read = recv(self.socket, into, RecvFlags::DONTWAIT);
        let read = read.map(|(n, _)| n).map_err(io::Error::from);
        self.learn(&read, asked);
        read
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Socket {
    /// Registers a connected socket with the event loop of the calling thread.
    pub fn new(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket.into());
        Ok(Self { io: watch(socket, Interest::READABLE)?, is_new: false, room: None })
    }

    /// The same for one that was accepted just now.
    pub(super) fn accepted(socket: socket2::Socket) -> io::Result<Self> {
        Ok(Self { is_new: true, ..Self::new(socket)? })
    }

    /// Waits until there may be something to read.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        let known = match std::mem::take(&mut self.is_new) {
            true => None,
            false => Some(ready!(self.io.poll_read_ready(cx))?),
        };
        Poll::Ready(Ok(Readable { socket: self.io.get_ref(), known }))
    }

    /// Whether the event loop has told of something to read.
    pub(super) fn is_told(&self) -> bool {
        self.io.try_io(Interest::READABLE, |_| Ok(())).is_ok()
    }

    /// Reads once; nothing read = the peer has closed.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(read) = ready!(self.poll_readable(cx))?.receive(into) {
                return Poll::Ready(read);
            }
        }
    }

    /// Writes once.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| socket.try_write(bytes))
    }

    /// Writes several pieces at once.
    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| socket.try_write_vectored(pieces))
    }

    /// Calls `send` until it does not say that the socket takes nothing, waiting for that.
    pub(super) fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&Self) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match send(self) {
                Err(e) if would_block(&e) => ready!(self.poll_room(cx))?,
                sent => {
                    // Who has just waited will probably have to wait again.
                    let full = |room: &mut Box<Room>| std::mem::take(&mut room.was_awaited);
                    if self.room.as_mut().is_some_and(|room| !full(room)) {
                        self.room = None;
                    }
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = match &mut self.room {
            Some(room) => room,
            none => {
                let Ok(same) = self.io.get_ref().try_clone() else {
                    return wake_soon(cx);
                };
                let io = watch(same, Interest::WRITABLE)?;
                none.insert(Box::new(Room { io, was_awaited: true }))
            }
        };
        room.was_awaited = true;
        ready!(room.io.poll_write_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Writes what the kernel takes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.io.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// The same for several pieces.
    pub(super) fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(self.io.get_ref(), pieces, &mut SendAncillaryBuffer::default(), flags)?)
    }

    /// Says that nothing more will be written.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        match self.io.get_ref().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }

    /// Moves it to the event loop of the calling thread.
    pub(super) fn rebind(self) -> io::Result<Self> {
        Self::new(self.io.into_inner())
    }

    /// Address of the peer, where it has one.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        SockRef::from(self).peer_addr().ok()?.as_socket()
    }

    /// Number of the operating system's user at the other end of a Unix socket.
    pub(super) fn peer_user(&self) -> Option<u32> {
        getsockopt(self, sockopt::PeerCredentials).ok().map(|peer| peer.uid())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}

/// There is no descriptor left to wait with: it is tried again in a moment.
fn wake_soon<T>(cx: &Context<'_>) -> Poll<T> {
    let waker = cx.waker().clone();
    tokio::spawn(async move {
        tokio::time::sleep(RETRY).await;
        waker.wake();
    });
    Poll::Pending
}

/// Registers a socket with the event loop of the calling thread.
pub(super) fn watch(
    socket: socket2::Socket,
    interest: Interest,
) -> io::Result<AsyncFd<socket2::Socket>> {
    // SAFETY: the socket owns its descriptor, and nobody gets at it to replace or close it
    // (`AsyncFd::get_mut` is not used).
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(|refused| refused.into_parts().1)
}

fn receive(socket: &socket2::Socket, into: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing is made uninitialised, because the kernel only writes.
    let free = unsafe { into.unfilled_mut() };
    let ((filled, _), _) = recv(socket, free, RecvFlags::DONTWAIT)?;
    let read = filled.len();
    // SAFETY: the kernel has written so many bytes to the beginning of `free`.
    unsafe { into.assume_init(read) };
    into.advance(read);
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::net::UnixStream;

    use super::*;

    async fn read(socket: &mut Socket, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let n = poll_fn(|cx| {
            let mut into = ReadBuf::new(&mut bytes);
            ready!(socket.poll_read(cx, &mut into))?;
            Poll::Ready(io::Result::Ok(into.filled().len()))
        });
        let n = n.await?;
        bytes.truncate(n);
        Ok(bytes)
    }

    fn pair() -> (Socket, Socket) {
        let (one, other) = UnixStream::pair().unwrap();
        (Socket::new(one).unwrap(), Socket::new(other).unwrap())
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_for_the_reader() {
        let (mut writer, mut reader) = pair();
        let all: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let expected = all.clone();
        let task = tokio::spawn(async move {
            let (mut rest, mut waits) = (&all[..], 0);
            while !rest.is_empty() {
                let n = poll_fn(|cx| {
                    let poll = writer.poll_write(cx, rest);
                    waits += usize::from(poll.is_pending());
                    poll
                });
                rest = &rest[n.await.unwrap()..];
            }
            // The socket is empty: who writes now need not wait, and is told of nothing.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            for _ in 0..2 {
                poll_fn(|cx| writer.poll_write(cx, b"x")).await.unwrap();
            }
            assert!(writer.room.is_none());
            writer.shutdown().unwrap();
            waits
        });
        let mut came = Vec::new();
        loop {
            let bytes = read(&mut reader, 10_000).await.unwrap();
            if bytes.is_empty() {
                break;
            }
            came.extend(bytes);
        }
        assert!(task.await.unwrap() > 0);
        assert!(came == [&expected[..], b"xx"].concat());
    }

    #[tokio::test]
    async fn a_new_socket_is_read_at_once_and_one_that_moved_still_is() {
        use std::io::Write;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"abc").unwrap();
        let mut socket = Socket::accepted(OwnedFd::from(ours).into()).unwrap();
        let mut bytes = [0; 2];
        let mut into = ReadBuf::new(&mut bytes);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(socket.poll_read(&mut cx, &mut into).is_ready());
        assert_eq!(into.filled(), b"ab");
        let mut socket = socket.rebind().unwrap();
        assert_eq!(read(&mut socket, 9).await.unwrap(), b"c");
        let mut bytes = [0; 2];
        assert!(socket.poll_read(&mut cx, &mut ReadBuf::new(&mut bytes)).is_pending());
        drop(theirs);
        assert_eq!(read(&mut socket, 9).await.unwrap(), b"");
        assert_eq!(socket.peer_user(), Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(socket.peer_address(), None);
    }
}
