//! Metrics of the native protocol; handles are resolved once.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::maker::Maker;
use crate::types::Compression;

/// Kinds of messages, in the order of their numbers.
const KINDS: [&str; 31] = [
    "handshake",
    "auth",
    "auth_reply",
    "query",
    "query_response",
    "prepared_statement",
    "statement_info",
    "bulk_insert",
    "streaming",
    "heartbeat",
    "notification",
    "begin",
    "transaction_started",
    "commit",
    "rollback",
    "savepoint",
    "ping",
    "pong",
    "ok",
    "error",
    "cancel",
    "window_update",
    "session",
    "subscribe",
    "stream_event",
    "unsubscribe",
    "batch",
    "simple",
    "simple_reply",
    "extension",
    "close",
];

/// One direction of the codec.
pub struct Direction {
    kinds: Vec<IntCounter>,
    /// Bytes of bodies before they are compressed, or after they are decompressed.
    pub raw: IntCounter,
    /// Bytes on the wire, headers included.
    pub wire: IntCounter,
    /// Times that a side had to wait for credit.
    pub stalls: IntCounter,
}

impl Direction {
    /// Counts a message by the first byte of its body.
    pub fn message(&self, variant: u8) {
        if let Some(counter) = self.kinds.get(usize::from(variant)) {
            counter.inc();
        }
    }
}

/// Metrics of the native protocol.
pub struct NativeMetrics {
    /// What clients send.
    pub received: Direction,
    /// What clients get.
    pub sent: Direction,
    errors: IntCounterVec,
    durations: Vec<Histogram>,
    /// Requests without a final reply.
    pub pending: IntGauge,
    /// Requests that wait to be started.
    pub queued: IntGauge,
    rejected: IntCounterVec,
    /// Bytes of requests and replies that connections hold.
    pub inflight_bytes: IntGauge,
    states: IntCounterVec,
}

impl NativeMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let messages = make.counters(
            "rustydb_native_codec_messages_total",
            "Messages of the native protocol",
            &["direction", "kind"],
        );
        let bytes = make.counters(
            "rustydb_native_codec_bytes_total",
            "Bytes of the native protocol, before and after compression",
            &["direction", "stage"],
        );
        let stalls = make.counters(
            "rustydb_native_flow_control_stalls_total",
            "Times that a sender had to wait for credit",
            &["direction"],
        );
        let durations = make.histograms(
            "rustydb_native_codec_duration_seconds",
            "Time to compress or decompress a body",
            &["compression"],
        );
        let direction = |name: &str| Direction {
            kinds: KINDS.iter().map(|kind| messages.with_label_values(&[name, kind])).collect(),
            raw: bytes.with_label_values(&[name, "raw"]),
            wire: bytes.with_label_values(&[name, "wire"]),
            stalls: stalls.with_label_values(&[name]),
        };
        Self {
            received: direction("received"),
            sent: direction("sent"),
            errors: make.counters(
                "rustydb_native_codec_errors_total",
                "Frames that were refused",
                &["reason"],
            ),
            durations: Compression::ALL
                .iter()
                .map(|kind| durations.with_label_values(&[kind.as_str()]))
                .collect(),
            pending: make
                .gauge("rustydb_native_pending_requests", "Requests without a final reply"),
            queued: make
                .gauge("rustydb_native_queued_requests", "Requests that wait to be started"),
            rejected: make.counters(
                "rustydb_native_rejected_requests_total",
                "Requests that were refused",
                &["reason"],
            ),
            inflight_bytes: make.gauge(
                "rustydb_native_inflight_bytes",
                "Bytes of requests and replies that connections hold",
            ),
            states: make.counters(
                "rustydb_native_state_changes_total",
                "Connections that entered a state",
                &["state"],
            ),
        }
    }

    /// Counts a frame that was refused.
    pub fn error(&self, reason: &str) {
        self.errors.with_label_values(&[reason]).inc();
    }

    /// Time to compress or decompress a body.
    pub fn duration(&self, compression: Compression) -> &Histogram {
        &self.durations[compression as usize]
    }

    /// Counts a request that was refused.
    pub fn rejected(&self, reason: &str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    /// Counts a connection that enters a state, and says so in the log.
    pub fn state(&self, state: &str) {
        tracing::debug!(state, "a native connection");
        self.states.with_label_values(&[state]).inc();
    }
}
