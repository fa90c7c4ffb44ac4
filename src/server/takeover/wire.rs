//! What two processes say to each other over the control socket: one JSON document for each line,
//! with descriptors beside it (SCM_RIGHTS, unix(7)).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Grows when the messages of the handshake change their meaning.
pub(super) const PROTOCOL: u32 = 1;

/// Longest line.
const LONGEST: usize = 64 << 10;

/// Most descriptors beside one message; the kernel takes 253.
pub(super) const MOST_SOCKETS: usize = 200;

/// A message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// New to old: give me the listening sockets. Old to new: here they are, one descriptor for
    /// each name; nothing changes until `Ready`.
    Hello {
        protocol: u32,
        version: String,
        pid: u32,
        #[serde(default)]
        doors: Vec<String>,
    },
    /// Old to new, instead of an answer: no, because.
    Refused { why: String },
    /// New to old: I could accept at once.
    Ready,
    /// Old to new, with the descriptor of the data directory's lock: it is all yours.
    Yours,
    /// New to old: a cancel request that is none of mine.
    Cancel { id: u64, pid: u32, key: Vec<u8> },
    /// Old to new: that one has been carried out, or was nobody's.
    Cancelled { id: u64 },
    /// Old to new: so many clients are left.
    Clients { left: u64 },
    /// Something that a later version says.
    #[serde(other)]
    Unknown,
}

/// One end of a connection between two processes.
pub(super) struct Line {
    stream: UnixStream,
    inbox: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Vec::new(), descriptors: VecDeque::new() }
    }

    /// The operating-system user at the other end.
    pub(super) fn peer_uid(&self) -> io::Result<u32> {
        self.stream.peer_cred().map(|cred| cred.uid())
    }

    /// Sends a message with descriptors.
    pub(super) async fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(b'\n');
        let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < bytes.len() {
            // The descriptors go with the first byte.
            let rights = [ControlMessage::ScmRights(&raw)];
            let rights = if sent == 0 && !raw.is_empty() { &rights[..] } else { &[] };
            let send = || {
                let rest = [IoSlice::new(&bytes[sent..])];
                let flags = MsgFlags::MSG_NOSIGNAL;
                let fd = self.stream.as_raw_fd();
                Ok(sendmsg::<UnixAddr>(fd, &rest, rights, flags, None)?)
            };
            sent += self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// The next message; `None` = the other end is gone. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.inbox.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.inbox.len() > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
            }
            if self.read().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let fd = self.stream.as_raw_fd();
        let (bytes, descriptors) =
            self.stream.async_io(Interest::READABLE, || read_once(fd)).await?;
        self.inbox.extend_from_slice(&bytes);
        self.descriptors.extend(descriptors);
        Ok(bytes.len())
    }

    /// A descriptor that came with the messages so far, in their order.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }
}

fn read_once(fd: i32) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4 << 10];
    let mut space = nix::cmsg_space!([i32; MOST_SOCKETS + 1]);
    let (length, descriptors) = {
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<UnixAddr>(fd, &mut into, Some(&mut space), flags)?;
        let mut descriptors = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
                descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (received.bytes, descriptors)
    };
    bytes.truncate(length);
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn on_an_event_loop(test: impl AsyncFnOnce(Line, Line)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (a, b) = UnixStream::pair().unwrap();
            test(Line::new(a), Line::new(b)).await;
        });
    }

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        on_an_event_loop(async |a, mut b| {
            let file = tempfile::tempfile().unwrap();
            a.send(&Message::Ready, &[]).await.unwrap();
            a.send(&Message::Yours, &[file.as_fd(), file.as_fd()]).await.unwrap();
            a.send(&Message::Clients { left: 7 }, &[]).await.unwrap();
            assert!(matches!(b.receive().await.unwrap(), Some(Message::Ready)));
            assert!(matches!(b.receive().await.unwrap(), Some(Message::Yours)));
            assert!(b.descriptor().is_some() && b.descriptor().is_some());
            assert!(b.descriptor().is_none());
            assert!(matches!(b.receive().await.unwrap(), Some(Message::Clients { left: 7 })));
            drop(a);
            assert!(b.receive().await.unwrap().is_none());
        });
    }

    #[test]
    fn a_later_version_may_say_more_and_nobody_may_say_too_much() {
        on_an_event_loop(async |a, mut b| {
            a.stream.try_write(b"\"news\"\n\"ready\"\n").unwrap();
            assert!(matches!(b.receive().await.unwrap(), Some(Message::Unknown)));
            assert!(matches!(b.receive().await.unwrap(), Some(Message::Ready)));
            a.stream.try_write(&vec![b'x'; 2 * LONGEST]).unwrap();
            assert!(b.receive().await.is_err());
        });
    }
}
