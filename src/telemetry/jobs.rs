//! Metrics of long operations.

use prometheus::{IntCounterVec, IntGauge};

use super::maker::Maker;

/// The handles.
pub struct JobMetrics {
    /// Jobs of this process that have not ended.
    pub open: IntGauge,
    finished: IntCounterVec,
}

impl JobMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            open: make.gauge("rustydb_jobs_open", "Jobs that wait or run"),
            finished: make.counters("rustydb_jobs_total", "Jobs ended", &["kind", "state"]),
        }
    }

    /// Counts the end of a job; kinds and states are a few words.
    pub fn finished(&self, kind: &str, state: &str) {
        self.finished.with_label_values(&[kind, state]).inc();
    }
}
