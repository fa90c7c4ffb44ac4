//! A large result gathers in the kernel before it is read.
//!
//! PostgreSQL writes in pieces of 8 KiB, and each piece would wake who reads it: most of the CPU
//! time of passing on a large result is waking, not copying. While one streams, the kernel is told
//! to wake the reader only when so much is there (SO_RCVLOWAT, socket(7)); a timer sees to what
//! comes slower, and to the end. Unix sockets do not know this, and go on as before.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::net::Stream;

/// Bytes of one answer after which it counts as large. What follows may come later by
/// [`PATIENCE`], which must not be felt.
const LARGE: usize = 4 << 20;

/// Bytes read at once that show that the reader is slower than the server.
const PLENTY: usize = 16 << 10;

/// Bytes that wake the reader.
const LOW_WATER: u32 = 48 << 10;

/// Longest time that less than this stays unread.
const PATIENCE: Duration = Duration::from_millis(1);

/// How much of an answer was read, and whether the rest gathers.
#[derive(Debug, Default)]
pub struct Gather {
    read: usize,
    /// Runs while it does.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Gather {
    /// Bytes of an answer were read.
    pub fn read(&mut self, bytes: usize, stream: &Stream) {
        self.read = self.read.saturating_add(bytes);
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + PATIENCE);
        } else if self.read >= LARGE && bytes >= PLENTY && stream.set_low_water(LOW_WATER) {
            self.timer = Some(Box::pin(tokio::time::sleep(PATIENCE)));
        }
    }

    /// There was nothing to read: what is there will be, in time.
    pub fn poll_patience(&mut self, cx: &mut Context<'_>, stream: &Stream) {
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            self.end(stream);
        }
    }

    /// The answer is over, or comes too slowly.
    pub fn end(&mut self, stream: &Stream) {
        self.read = 0;
        if self.timer.take().is_some() {
            // The kernel looks at once whether there is something to tell now.
            stream.set_low_water(1);
        }
    }
}
