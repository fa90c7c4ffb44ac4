//! What the server tells about itself: the metrics registry, the health registry, the log.

pub mod access;
mod backends;
pub mod classes;
pub mod deadlocks;
pub mod health;
mod http;
mod jobs;
pub mod log;
mod maker;
pub mod metrics;
pub mod native;
mod openmetrics;
pub mod pool;
mod process;
mod seldom;
mod slow;
pub mod summary;
pub mod tally;

pub use backends::{EMBEDDED, Standing};
pub use deadlocks::{Deadlock, Deadlocks};
pub use health::{Check, Health};
pub use maker::Family;
pub use metrics::Metrics;
pub use process::{BackendUsage, backend_usage, process_memory};
pub use seldom::Seldom;
pub use slow::SlowQuery;
pub use summary::Spread;
pub use tally::{Tally, Totals};
