//! What a new connection is: encrypted or not, HTTP/1.1 or HTTP/2. TLS clients say which by ALPN,
//! others by what they begin with.

use std::io;

use tokio::time::timeout;

use super::{Face, HttpDoor};
use crate::net::{Alpn, ReadAhead, Stream, TlsFacts};

/// The content type of a TLS record with a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client of HTTP/2 begins with (RFC 9113, section 3.4). No request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that can be served.
pub struct Arrived {
    /// The socket, decrypted.
    pub stream: Stream,
    /// What was read of it already.
    pub ahead: ReadAhead,
    /// Whether it is HTTP/2.
    pub is_http2: bool,
}

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Tls,
    Http2,
    Other,
}

impl First {
    /// `None` = that is not clear yet.
    fn of(bytes: &[u8]) -> Option<Self> {
        let compared = bytes.len().min(PREFACE.len());
        match bytes.first()? {
            &TLS_HANDSHAKE => Some(First::Tls),
            _ if bytes[..compared] != PREFACE[..compared] => Some(First::Other),
            _ => (compared == PREFACE.len()).then_some(First::Http2),
        }
    }

    /// Reads until it is clear; `None` = the client has closed before.
    async fn read(stream: &mut Stream, ahead: &mut ReadAhead) -> io::Result<Option<Self>> {
        loop {
            let more = ahead.rest().len() + 1;
            let Some(bytes) = ahead.peek(stream, more).await? else { return Ok(None) };
            if let Some(first) = Self::of(bytes) {
                return Ok(Some(first));
            }
        }
    }
}

impl HttpDoor {
    /// Finds out what a client speaks; `None` = it has nothing to say, or its handshake failed.
    pub(super) async fn arrival(&self, mut stream: Stream, face: Face) -> Option<Arrived> {
        let config = self.config.now();
        let (limit, speaks_http2) =
            (config.api.keep_alive_secs.duration(), config.api.enable_http2);
        drop(config);
        let mut ahead = ReadAhead::default();
        let first = First::read(&mut stream, &mut ahead);
        let first = timeout(limit, first).await.ok()?.ok()??;
        if first == First::Tls && face == Face::Api && self.tls.is_some() {
            let (stream, facts) = self.encrypted(stream, ahead.rest()).await?;
            let is_http2 = facts.alpn == Alpn::Http2;
            return Some(Arrived { stream, ahead: ReadAhead::default(), is_http2 });
        }
        let is_http2 = first == First::Http2 && speaks_http2;
        Some(Arrived { stream, ahead, is_http2 })
    }

    async fn encrypted(&self, stream: Stream, first: &[u8]) -> Option<(Stream, TlsFacts)> {
        let served = self.tls.as_ref()?.current();
        let limit = self.config.now().network.connection_timeout_secs.duration();
        match timeout(limit, stream.accept_https(&served, first)).await {
            Ok(Ok((stream, facts))) => {
                self.metrics.tls_handshake(Some(facts.version));
                Some((stream, facts))
            }
            Ok(Err((stream, error))) => {
                self.metrics.tls_handshake(None);
                let peer = stream.peer();
                tracing::info!(peer, %error, "TLS handshake of an HTTP client failed");
                None
            }
            Err(_) => {
                self.metrics.connection_rejected("connection_timeout");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        let longer = [PREFACE, b"\0\0"].concat();
        for (bytes, expected) in [
            (&b""[..], None),
            (b"\x16", Some(First::Tls)),
            (b"G", Some(First::Other)),
            (b"P", None),
            (b"PO", Some(First::Other)),
            (b"PRI * HTTP/2.0\r\n", None),
            (b"PRI * HTTP/2.0\r\nHost: x", Some(First::Other)),
            (&PREFACE[..23], None),
            (PREFACE, Some(First::Http2)),
            (&longer, Some(First::Http2)),
        ] {
            assert_eq!(First::of(bytes), expected, "{bytes:?}");
        }
    }
}
