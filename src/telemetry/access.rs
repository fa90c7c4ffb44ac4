//! Metrics of who comes in: rate limits, keys of token issuers, requests that come
//! again, the audit log.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::maker::Maker;

/// The handles.
pub struct AccessMetrics {
    decisions: IntCounterVec,
    /// Subjects that the rate limiter remembers.
    pub limiter_keys: IntGauge,
    key_fetches: IntCounterVec,
    replays: IntCounterVec,
    /// Answers that are kept to be repeated.
    pub replay_keys: IntGauge,
    /// Records written to the audit file.
    pub audit_records: IntCounter,
    /// Records of the audit log that were lost.
    pub audit_dropped: IntCounter,
}

impl AccessMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let records =
            make.counters("rustydb_audit_records_total", "Audit records", &["destination"]);
        Self {
            decisions: make.counters(
                "rustydb_rate_limiter_decisions_total",
                "Requests and log-ins that a rate limit was asked about",
                &["scope", "result"],
            ),
            limiter_keys: make.gauge(
                "rustydb_rate_limiter_keys",
                "Users, addresses and keys that the rate limiter remembers",
            ),
            key_fetches: make.counters(
                "rustydb_auth_key_fetches_total",
                "Times that the keys of an issuer of tokens were fetched",
                &["result"],
            ),
            replays: make.counters(
                "rustydb_api_idempotency_total",
                "Requests with an Idempotency-Key",
                &["result"],
            ),
            replay_keys: make.gauge(
                "rustydb_api_idempotency_keys",
                "Answers that are kept for requests that come again",
            ),
            audit_records: records.with_label_values(&["file"]),
            audit_dropped: make.counter("rustydb_audit_dropped_total", "Audit records lost"),
        }
    }

    /// Counts a decision of the rate limiter; `scope` is one of a few words.
    pub fn limited(&self, scope: &str, allowed: bool) {
        let result = if allowed { "allowed" } else { "limited" };
        self.decisions.with_label_values(&[scope, result]).inc();
    }

    /// Counts what became of a request with an Idempotency-Key; `result` is one of a few words.
    pub fn replayed(&self, result: &str) {
        self.replays.with_label_values(&[result]).inc();
    }

    /// Counts a fetch of an issuer's keys.
    pub fn keys_fetched(&self, ok: bool) {
        let result = if ok { "success" } else { "failure" };
        self.key_fetches.with_label_values(&[result]).inc();
    }
}
