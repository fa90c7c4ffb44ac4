//! Credits: how many bytes a side may still send.

/// The largest window.
const LARGEST: i64 = i32::MAX as i64;

/// What a peer has granted us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    /// A window of this size.
    pub(super) fn new(size: u32) -> Self {
        Self(i64::from(size).min(LARGEST))
    }

    /// Whether a frame may be sent; it may be larger than the window.
    pub(super) fn is_open(&self) -> bool {
        self.0 > 0
    }

    /// A frame was sent.
    pub(super) fn spend(&mut self, bytes: u32) {
        self.0 -= i64::from(bytes);
    }

    /// The peer grants more; false = more than there can be.
    pub(super) fn grant(&mut self, bytes: u32) -> bool {
        self.0 += i64::from(bytes);
        self.0 <= LARGEST
    }
}

/// What we have granted a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    size: i64,
    left: i64,
    /// Used by the peer, and free again here.
    freed: i64,
}

impl ReceiveWindow {
    /// A window of this size.
    pub(super) fn new(size: u32) -> Self {
        let size = i64::from(size).min(LARGEST);
        Self { size, left: size, freed: 0 }
    }

    /// A frame came; false = without credit.
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        let had_credit = self.left > 0;
        self.left -= i64::from(bytes);
        had_credit
    }

    /// Bytes that came and are still held.
    pub(super) fn held(&self) -> i64 {
        self.size - self.left - self.freed
    }

    /// What came is no longer held; returns the credit that is to be granted now, if any: half a
    /// window at a time.
    pub(super) fn free(&mut self, bytes: u32) -> Option<u32> {
        self.freed += i64::from(bytes);
        if self.freed * 2 < self.size {
            return None;
        }
        let credit = std::mem::take(&mut self.freed);
        self.left += credit;
        u32::try_from(credit).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_may_take_a_window_below_zero() {
        let mut window = SendWindow::new(100);
        window.spend(99);
        assert!(window.is_open());
        window.spend(1000);
        assert!(!window.is_open());
        assert!(window.grant(999) && !window.is_open());
        assert!(window.grant(1) && window.is_open());
        assert!(!window.grant(i32::MAX as u32));
    }

    #[test]
    fn credit_is_granted_by_halves() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(60));
        assert_eq!(window.held(), 60);
        assert_eq!(window.free(49), None);
        assert_eq!(window.held(), 11);
        assert_eq!(window.free(11), Some(60));
        assert!(window.receive(150));
        assert!(!window.receive(1));
        assert_eq!(window.free(151), Some(151));
        assert!(window.receive(1));
    }
}
