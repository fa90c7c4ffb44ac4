//! The health registry: a few named checks and the phase of the process, readable at any time.
//!
//! Samplers write, probes read; a probe never waits for PostgreSQL.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// The state of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// There is nothing to check.
    Disabled,
    /// Works.
    Ok,
    /// Works, but somebody should look.
    Degraded,
    /// Does not work.
    Failed,
}

impl Check {
    /// The word in the health body.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::Disabled => "disabled",
            Check::Ok => "ok",
            Check::Degraded => "degraded",
            Check::Failed => "failed",
        }
    }
}

/// Life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// PostgreSQL is being prepared or started.
    Starting,
    /// Every door is open.
    Ready,
    /// No new clients; the present ones finish.
    Draining,
}

/// Parts that are checked, in the order of the body.
pub const PARTS: [&str; 5] = ["database", "storage", "replication", "cluster", "pool"];

/// A part with its state, and more about it for people.
type Part = (Check, String);

/// Seconds after which a silent event loop counts as stuck.
const WATCHDOG_SECS: u64 = 5;

/// The registry.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    phase: AtomicU8,
    parts: Mutex<[Part; PARTS.len()]>,
    /// Seconds since start at which each event loop last turned.
    ticks: Vec<AtomicU64>,
}

impl Health {
    /// A registry for a process with this many event loops.
    pub fn new(workers: usize) -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            parts: Mutex::new(PARTS.map(|name| match name {
                "database" => (Check::Failed, "not asked yet".into()),
                "cluster" => (Check::Disabled, "this server is alone".into()),
                _ => (Check::Ok, String::new()),
            })),
            ticks: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Moves the process to its next phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Reports one part; the name must be one of [`PARTS`]. The words are for everybody: they name
    /// nothing internal.
    pub fn report(&self, part: &str, check: Check, detail: impl Into<String>) {
        if let Some(at) = PARTS.iter().position(|name| *name == part) {
            self.parts.lock()[at] = (check, detail.into());
        }
    }

    /// One part; unknown names are disabled.
    pub fn check(&self, part: &str) -> Check {
        let at = PARTS.iter().position(|name| *name == part);
        at.map_or(Check::Disabled, |at| self.parts.lock()[at].0)
    }

    /// Every part with its state.
    pub fn checks(&self) -> Vec<(&'static str, Check)> {
        let parts = self.parts.lock();
        PARTS.into_iter().zip(parts.iter().map(|(check, _)| *check)).collect()
    }

    /// What is known of each part beside its state.
    pub fn details(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.lock();
        PARTS.into_iter().zip(parts.iter().map(|(_, detail)| detail.clone())).collect()
    }

    /// The worst state of all parts.
    pub fn worst(&self) -> Check {
        self.parts.lock().iter().map(|(check, _)| *check).max().unwrap_or(Check::Ok)
    }

    /// An event loop turned; called once a second by each.
    pub fn tick(&self, worker: usize) {
        if let Some(tick) = self.ticks.get(worker) {
            tick.store(self.uptime_secs(), Ordering::Relaxed);
        }
    }

    /// Whether every event loop turned within the last five seconds.
    pub fn is_live(&self) -> bool {
        let oldest = self.ticks.iter().map(|tick| tick.load(Ordering::Relaxed)).min();
        self.uptime_secs().saturating_sub(oldest.unwrap_or(0)) <= WATCHDOG_SECS
            || self.phase() == Phase::Starting
    }

    /// Whether new clients should be sent here.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && self.worst() < Check::Failed
    }

    /// Seconds since the process started.
    pub fn uptime_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_the_phase_and_every_check() {
        let health = Health::new(0);
        health.report("database", Check::Ok, "answers");
        assert!(!health.is_ready());
        health.enter(Phase::Ready);
        assert!(health.is_ready());
        health.report("storage", Check::Degraded, "5 % are free");
        assert!(health.is_ready());
        assert_eq!(health.details()[1], ("storage", "5 % are free".to_owned()));
        health.report("storage", Check::Failed, "1 % is free");
        assert!(!health.is_ready());
        assert_eq!(health.worst(), Check::Failed);
    }
}
