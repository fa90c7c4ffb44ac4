//! A stream that counts its bytes, the first of which were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{ReadAhead, Stream};
use crate::telemetry::metrics::ProtocolMetrics;

/// A stream and its counters.
pub struct Counted {
    stream: Stream,
    /// What comes before the stream's next bytes.
    ahead: Option<ReadAhead>,
    received: IntCounter,
    sent: IntCounter,
}

impl Counted {
    /// Counts for one protocol.
    pub fn new(stream: Stream, ahead: ReadAhead, metrics: &ProtocolMetrics) -> Self {
        let (received, sent) = (metrics.bytes_received.clone(), metrics.bytes_sent.clone());
        let ahead = Some(ahead).filter(|ahead| !ahead.rest().is_empty());
        Self { stream, ahead, received, sent }
    }

    fn count_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &written {
            self.sent.inc_by(*n as u64);
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if let Some(ahead) = &mut self.ahead {
            let length = ahead.rest().len().min(into.remaining());
            into.put_slice(&ahead.rest()[..length]);
            ahead.take(length);
            if ahead.rest().is_empty() {
                self.ahead = None;
            }
            self.received.inc_by(length as u64);
            return Poll::Ready(Ok(()));
        }
        ready!(AsyncRead::poll_read(Pin::new(&mut self.stream), cx, into))?;
        self.received.inc_by((into.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, bytes);
        self.count_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
