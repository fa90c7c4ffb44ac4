//! Metrics of HTTP beside those of requests: connections with HTTP/2, and what stays from one
//! request to the next.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::maker::Maker;

/// Requests of one method and endpoint that ended with one status.
pub(super) struct ApiRequests {
    pub(super) method: &'static str,
    pub(super) status: u16,
    pub(super) requests: IntCounter,
    pub(super) duration: Histogram,
}

impl ApiRequests {
    pub(super) fn add(&self, seconds: f64) {
        self.requests.inc();
        self.duration.observe(seconds);
    }
}

/// The handles.
pub struct HttpMetrics {
    /// Connections with HTTP/2, which are among all of HTTP.
    pub http2_connections: IntCounter,
    /// Streams of HTTP/2 that ended because their client took nothing of the answer.
    pub http2_stalled: IntCounter,
    /// Shapes of requests that are planned already.
    pub templates: IntGauge,
    /// Requests of `/rest/v1` whose shape was.
    pub template_hits: IntCounter,
    /// Requests of `/rest/v1` for rows whose shape was not.
    pub template_misses: IntCounter,
    kept: IntGaugeVec,
    refused: IntCounterVec,
}

impl HttpMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            http2_connections: make.counter(
                "rustydb_api_http2_connections_total",
                "HTTP connections that speak HTTP/2",
            ),
            http2_stalled: make.counter(
                "rustydb_api_http2_streams_stalled_total",
                "Streams of HTTP/2 that ended because their client took nothing of the answer",
            ),
            templates: make.gauge(
                "rustydb_api_templates",
                "Shapes of requests below /rest/v1 that are planned already",
            ),
            template_hits: make.counter(
                "rustydb_api_template_hits_total",
                "Requests for rows below /rest/v1 whose shape was planned already",
            ),
            template_misses: make.counter(
                "rustydb_api_template_misses_total",
                "Requests for rows below /rest/v1 that had to be planned",
            ),
            kept: make.gauges(
                "rustydb_api_open",
                "Sessions and transactions that stay from one HTTP request to the next",
                &["what"],
            ),
            refused: make.counters(
                "rustydb_api_open_refused_total",
                "Sessions and transactions over several HTTP requests that there was no room for",
                &["what", "limit"],
            ),
        }
    }

    /// How many sessions or transactions there are now; `what` is one of two words.
    pub fn kept(&self, what: &str, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.kept.with_label_values(&[what]).set(number);
    }

    /// Counts one that there was no room for; `limit` is the key that bounds it.
    pub fn refused_to_keep(&self, what: &str, limit: &str) {
        self.refused.with_label_values(&[what, limit]).inc();
    }
}
