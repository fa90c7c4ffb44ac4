//! Statistics of connection classes: a class is known by its name, and there are only so many.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::maker::Maker;

/// Classes that are known at once; the longest unused one without sessions goes first.
pub const MAX_CLASSES: usize = 1000;

/// What can come of asking for a pooled session.
const RESULTS: [&str; 5] = ["hit", "miss", "tag_hit", "wait", "timeout"];

/// The figures of one class.
#[derive(Debug)]
pub struct ClassFigures {
    /// Pooled sessions asked for.
    pub requests: IntCounter,
    /// Those that were found.
    pub hits: IntCounter,
    /// Those that had to be made.
    pub misses: IntCounter,
    /// Those that were found with exactly the tag that was asked for.
    pub tag_hits: IntCounter,
    /// Those that had to be waited for.
    pub waits: IntCounter,
    /// Those that were waited for in vain.
    pub timeouts: IntCounter,
    /// Sessions taken away from clients that did nothing.
    pub taken_away: IntCounter,
    /// Sessions that clients hold.
    pub held: IntGauge,
    /// Sessions that wait for their next client.
    pub parked: IntGauge,
}

impl ClassFigures {
    fn has_sessions(&self) -> bool {
        self.held.get() > 0 || self.parked.get() > 0
    }
}

struct Known {
    figures: Arc<ClassFigures>,
    last_used: u64,
}

#[derive(Default)]
struct Names {
    known: HashMap<Arc<str>, Known>,
    uses: u64,
}

/// The figures of all classes.
pub struct ClassMetrics {
    asked: IntCounterVec,
    taken_away: IntCounterVec,
    results: IntCounterVec,
    sessions: IntGaugeVec,
    names: Mutex<Names>,
}

impl ClassMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let counter = |name: &str, help: &str| make.counters(name, help, &["class"]);
        Self {
            asked: counter("rustydb_class_requests_total", "Pooled sessions asked for"),
            taken_away: counter(
                "rustydb_class_taken_away_total",
                "Pooled sessions whose clients did nothing for too long",
            ),
            results: make.counters(
                "rustydb_drcp_requests_total",
                "What came of asking for a pooled session: found with its state (hit), with its \
                 very tag too (tag_hit), made (miss), waited for (wait), in vain (timeout)",
                &["class", "result"],
            ),
            sessions: make.gauges(
                "rustydb_class_sessions",
                "Pooled sessions by state",
                &["class", "state"],
            ),
            names: Mutex::default(),
        }
    }

    /// The figures of a class; `None` = there are too many classes with sessions.
    pub fn of(&self, class: &str) -> Option<Arc<ClassFigures>> {
        let mut names = self.names.lock();
        names.uses += 1;
        let now = names.uses;
        if let Some(known) = names.known.get_mut(class) {
            known.last_used = now;
            return Some(known.figures.clone());
        }
        if names.known.len() >= MAX_CLASSES {
            let unused = names.known.iter().filter(|(_, known)| {
                // Who is on the way to a session has the figures already.
                Arc::strong_count(&known.figures) == 1 && !known.figures.has_sessions()
            });
            let oldest = unused.min_by_key(|(_, known)| known.last_used);
            let oldest = oldest.map(|(name, _)| name.clone())?;
            names.known.remove(&oldest);
            self.forget(&oldest);
        }
        let figures = Arc::new(self.figures(class));
        let known = Known { figures: figures.clone(), last_used: now };
        names.known.insert(class.into(), known);
        Some(figures)
    }

    fn figures(&self, class: &str) -> ClassFigures {
        let [hits, misses, tag_hits, waits, timeouts] =
            RESULTS.map(|result| self.results.with_label_values(&[class, result]));
        let requests = self.asked.with_label_values(&[class]);
        let taken_away = self.taken_away.with_label_values(&[class]);
        let gauge = |state| self.sessions.with_label_values(&[class, state]);
        let (held, parked) = (gauge("held"), gauge("parked"));
        ClassFigures { requests, hits, misses, tag_hits, waits, timeouts, taken_away, held, parked }
    }

    fn forget(&self, class: &str) {
        for counter in [&self.asked, &self.taken_away] {
            let _ = counter.remove_label_values(&[class]);
        }
        for result in RESULTS {
            let _ = self.results.remove_label_values(&[class, result]);
        }
        for state in ["held", "parked"] {
            let _ = self.sessions.remove_label_values(&[class, state]);
        }
    }

    /// Every class that is known, by name.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<ClassFigures>)> {
        let names = self.names.lock();
        let all = names.known.iter().map(|(name, known)| (name.clone(), known.figures.clone()));
        let mut all: Vec<_> = all.collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn classes_are_bounded_and_those_with_sessions_stay() {
        let metrics = Metrics::new();
        let classes = &metrics.classes;
        let first = classes.of("first").unwrap();
        first.held.inc();
        first.requests.inc();
        drop(first);
        for n in 1..MAX_CLASSES {
            classes.of(&format!("c{n}")).unwrap();
        }
        assert_eq!(classes.all().len(), MAX_CLASSES);
        let one_more = classes.of("one more").unwrap();
        let names: Vec<_> = classes.all().into_iter().map(|(name, _)| name).collect();
        let has = |name: &str| names.iter().any(|known| **known == *name);
        assert_eq!(names.len(), MAX_CLASSES);
        assert!(has("first") && has("one more") && !has("c1") && has("c2"));
        let text = String::from_utf8(metrics.render(1)).unwrap();
        assert!(text.contains("rustydb_class_requests_total{class=\"first\"} 1"));
        assert!(!text.contains("class=\"c1\""));
        let all: Vec<_> = classes.all().into_iter().map(|(_, figures)| figures).collect();
        assert!(classes.of("too many").is_none());
        drop((all, one_more));
        assert!(classes.of("too many").is_some());
    }
}
