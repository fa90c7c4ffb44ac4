//! What the keys of the pool and of pooled sessions must satisfy.

use super::Config;

impl Config {
    pub(super) fn check_sizes(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let (pool, sizing) = (&self.pool, &self.sizing);
        let fits = pool.initial_size <= pool.max_size;
        check(fits, "pool.initial_size", "must be at most pool.max_size");
        let one = "must be at least 1";
        check(pool.max_size > 0, "pool.max_size", one);
        check(pool.reserved_size > 0, "pool.reserved_size", one);
        check(pool.acquire_timeout_secs.0 > 0, "pool.acquire_timeout_secs", one);
        check(pool.max_wait_queue_size > 0, "pool.max_wait_queue_size", one);
        check(pool.maintenance_interval_secs.0 > 0, "pool.maintenance_interval_secs", one);
        check(pool.max_concurrent_creations > 0, "pool.max_concurrent_creations", one);
        check(pool.validation_timeout_secs.0 > 0, "pool.validation_timeout_secs", one);
        check(self.backend.failover_wait_secs.0 > 0, "backend.failover_wait_secs", one);
        check(self.backend.connect_timeout_secs.0 > 0, "backend.connect_timeout_secs", one);
        let (low, high) = (sizing.scale_down_threshold, sizing.scale_up_threshold);
        check((0.0..=1.0).contains(&high), "pool.sizing.scale_up_threshold", "must be 0 to 1");
        let text = "must be 0 to 1, and below pool.sizing.scale_up_threshold";
        check((0.0..high).contains(&low), "pool.sizing.scale_down_threshold", text);
    }

    pub(super) fn check_drcp(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let (drcp, one) = (&self.drcp, "must be at least 1");
        check(drcp.max_size != Some(0), "session.drcp.max_size", one);
        let fits = drcp.min_size <= drcp.max_size.unwrap_or(self.pool.max_size);
        let text = "must be at most session.drcp.max_size, and pool.max_size";
        check(fits, "session.drcp.min_size", text);
        check(drcp.inactivity_timeout_secs.0 > 0, "session.drcp.inactivity_timeout_secs", one);
        check(drcp.max_think_time_secs.0 > 0, "session.drcp.max_think_time_secs", one);
        check(drcp.max_use_session > 0, "session.drcp.max_use_session", one);
        check(drcp.max_lifetime_secs.0 > 0, "session.drcp.max_lifetime_secs", one);
        check((1..=1000).contains(&drcp.max_tags), "session.drcp.max_tags", "must be 1 to 1000");
    }
}
