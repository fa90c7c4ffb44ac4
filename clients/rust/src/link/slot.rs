//! Where the replies to one request wait for whoever sent it.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Lost;

/// One reply as it came.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The message. While it waits it may be compressed: windows count what was sent, so only that
    /// may wait.
    pub(crate) body: Bytes,
    /// Whether it still is.
    pub(crate) is_compressed: bool,
    /// Whether more follow.
    pub(crate) more: bool,
    /// What it has taken of the window.
    pub(crate) payload: u32,
}

/// The replies to one request that have not been taken.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Inbox>);

#[derive(Default)]
struct Inbox {
    /// Most requests have one reply.
    first: Option<Reply>,
    rest: VecDeque<Reply>,
    /// The final reply has come.
    is_done: bool,
    lost: Option<Lost>,
    /// Nobody waits any more.
    is_abandoned: bool,
    waker: Option<Waker>,
    /// Bytes that may still be sent on the request's own stream.
    window: i64,
}

impl Slot {
    /// For a request whose client may send `window` bytes on its stream.
    pub(super) fn new(window: i64, is_abandoned: bool) -> Self {
        Self(Mutex::new(Inbox { window, is_abandoned, ..Inbox::default() }))
    }

    /// Takes a reply in; gives it back if nobody wants it.
    pub(super) fn push(&self, reply: Reply) -> Option<Reply> {
        let mut inbox = self.0.lock();
        inbox.is_done |= !reply.more;
        if inbox.is_abandoned {
            return Some(reply);
        }
        match inbox.first {
            None if inbox.rest.is_empty() => inbox.first = Some(reply),
            _ => inbox.rest.push_back(reply),
        }
        inbox.wake();
        None
    }

    /// There will be no more replies.
    pub(super) fn lose(&self, lost: &Lost) {
        let mut inbox = self.0.lock();
        inbox.lost = Some(lost.clone());
        inbox.wake();
    }

    /// Gives up what has come, and what will come; returns how much of the window it has taken.
    pub(super) fn abandon(&self) -> u32 {
        let mut inbox = self.0.lock();
        inbox.is_abandoned = true;
        let first = inbox.first.take();
        let rest = std::mem::take(&mut inbox.rest);
        first.iter().chain(&rest).map(|reply| reply.payload).sum()
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.lock().is_done
    }

    /// Whether a reply has come that has not been taken.
    pub(super) fn has_reply(&self) -> bool {
        self.0.lock().first.is_some()
    }

    pub(super) fn window(&self) -> i64 {
        self.0.lock().window
    }

    pub(super) fn spend(&self, bytes: u32) {
        self.0.lock().window -= i64::from(bytes);
    }

    pub(super) fn credit(&self, bytes: u32) {
        self.0.lock().window += i64::from(bytes);
    }

    /// The next reply.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Reply, Lost>> {
        let mut inbox = self.0.lock();
        if let Some(reply) = inbox.first.take() {
            inbox.first = inbox.rest.pop_front();
            return Poll::Ready(Ok(reply));
        }
        if let Some(lost) = &inbox.lost {
            return Poll::Ready(Err(lost.clone()));
        }
        match &inbox.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => inbox.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Inbox {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(payload: u32, more: bool) -> Reply {
        Reply { body: Bytes::new(), is_compressed: false, more, payload }
    }

    fn take(slot: &Slot) -> Option<u32> {
        match slot.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(reply)) => Some(reply.payload),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        }
    }

    #[test]
    fn replies_come_in_order_and_the_loss_last() {
        let slot = Slot::new(0, false);
        assert_eq!(take(&slot), None);
        for (payload, more) in [(1, true), (2, true), (3, false)] {
            assert!(slot.push(reply(payload, more)).is_none());
        }
        slot.lose(&Lost::new("gone"));
        assert!(slot.is_done());
        let taken: Vec<_> = (0..4).map(|_| take(&slot)).collect();
        assert_eq!(taken, [Some(1), Some(2), Some(3), Some(0)]);
    }

    #[test]
    fn what_nobody_wants_is_given_back() {
        let slot = Slot::new(0, false);
        slot.push(reply(5, true));
        slot.push(reply(6, true));
        assert_eq!(slot.abandon(), 11);
        assert_eq!(slot.push(reply(7, false)).map(|reply| reply.payload), Some(7));
        assert!(slot.is_done());
    }
}
