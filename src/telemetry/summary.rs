//! Numbers read back from the metrics, for who wants them as values and not as text.

use std::collections::BTreeMap;

use prometheus::Histogram;
use prometheus::core::{Collector, Metric};

use super::pool::PoolMetrics;

/// What a spread of durations says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// Seconds of all of them.
    pub sum: f64,
    /// Seconds within which 95 of 100 were, between the limits of the histogram; none = nothing
    /// was measured, or it took longer than the highest limit.
    pub p95: Option<f64>,
}

impl Spread {
    /// Of a histogram.
    pub fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let found = metric.get_histogram();
        let buckets: Vec<(f64, u64)> =
            found.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count())).collect();
        let (count, sum) = (found.get_sample_count(), found.get_sample_sum());
        Self { count, sum, p95: quantile(&buckets, count, 0.95) }
    }

    /// Milliseconds on average.
    pub fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum * 1000.0 / self.count as f64 }
    }
}

/// As Prometheus' `histogram_quantile`: even within a bucket.
fn quantile(buckets: &[(f64, u64)], count: u64, q: f64) -> Option<f64> {
    let rank = q * count as f64;
    let at = buckets.iter().position(|(_, below)| *below as f64 >= rank && *below > 0)?;
    let (low, before) = at.checked_sub(1).map_or((0.0, 0), |before| buckets[before]);
    let (high, below) = buckets[at];
    let within = (below - before) as f64;
    Some(low + (high - low) * ((rank - before as f64) / within.max(1.0)).clamp(0.0, 1.0))
}

impl PoolMetrics {
    /// Lives of the connections that were closed.
    pub fn lives(&self) -> Spread {
        Spread::of(&self.lifetime)
    }

    /// How many connections were closed for which reason.
    pub fn closed(&self) -> BTreeMap<String, u64> {
        let families = self.destroyed.collect();
        let counters = families.iter().flat_map(|family| family.get_metric());
        let counted = counters.filter_map(|counter| {
            let label = |name: &str| {
                let pair = counter.get_label().iter().find(|pair| pair.name() == name)?;
                Some(pair.value().to_owned())
            };
            let is_ours = label("pool").is_some_and(|pool| pool == self.name);
            is_ours.then(|| Some((label("reason")?, counter.get_counter().get_value() as u64)))?
        });
        counted.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn spreads() {
        let buckets = [(1.0, 0), (2.0, 10), (4.0, 20)];
        assert_eq!(quantile(&buckets, 20, 0.95), Some(3.8));
        assert_eq!(quantile(&buckets, 20, 0.5), Some(2.0));
        assert_eq!(quantile(&buckets, 40, 0.95), None);
        assert_eq!(quantile(&[(1.0, 0)], 0, 0.95), None);
    }

    #[test]
    fn what_was_closed_is_counted_by_pool() {
        let metrics = Metrics::new();
        metrics.main_pool.destroyed("idle", Duration::from_secs(2));
        metrics.main_pool.destroyed("idle", Duration::from_secs(4));
        metrics.system_pool.destroyed("lost", Duration::from_secs(1));
        assert_eq!(metrics.main_pool.closed(), BTreeMap::from([("idle".to_owned(), 2)]));
        let lives = metrics.main_pool.lives();
        assert_eq!((lives.count, lives.mean_ms()), (2, 3000.0));
        assert_eq!(metrics.main_pool.acquire_duration.get_sample_count(), 0);
        assert_eq!(Spread::of(&metrics.main_pool.wait_duration), Spread::default());
    }
}
