//! What the server tells about itself: the metrics registry, the health registry, the log.

pub mod health;
pub mod log;
pub mod metrics;

pub use health::{Check, Health};
pub use metrics::Metrics;
