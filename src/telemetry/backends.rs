//! Metrics of the PostgreSQL servers, each by its address.

use prometheus::{GaugeVec, IntCounter, IntGaugeVec};

use super::maker::Maker;

/// The name of our own server, whose address is a path that says nothing.
pub const EMBEDDED: &str = "embedded";

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// It replays what another one has written.
    pub is_standby: bool,
    /// Bytes of WAL that it has written or replayed since there is any.
    pub wal: i64,
    /// Seconds since what it has replayed last was committed; 0 = it has everything that came,
    /// `None` = it has replayed nothing yet.
    pub behind_secs: Option<f64>,
}

/// The handles.
pub struct BackendMetrics {
    up: IntGaugeVec,
    primary: IntGaugeVec,
    lag_bytes: IntGaugeVec,
    lag_secs: GaugeVec,
    /// Restarts of the embedded PostgreSQL.
    pub restarts: IntCounter,
    /// Times that another server became the primary.
    pub primary_changes: IntCounter,
}

impl BackendMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        const B: &[&str] = &["backend"];
        Self {
            up: make.gauges(
                "rustydb_backend_up",
                "Whether a PostgreSQL server answers (1) or not (0), by its address; of a single \
                 server, whether clients get to it",
                B,
            ),
            primary: make.gauges(
                "rustydb_backend_primary",
                "Which of several servers is the primary (1)",
                B,
            ),
            lag_bytes: make.gauges(
                "rustydb_replication_lag_bytes",
                "Bytes of WAL that a standby among several servers has not replayed yet",
                B,
            ),
            lag_secs: make.levels(
                "rustydb_replication_lag_seconds",
                "Age of the last transaction that such a standby has replayed; 0 when it has \
                 replayed all that it received",
                B,
            ),
            restarts: make
                .counter("rustydb_backend_restarts_total", "Restarts of the embedded PostgreSQL"),
            primary_changes: make.counter(
                "rustydb_backend_primary_changes_total",
                "Times that another PostgreSQL server became the primary",
            ),
        }
    }

    /// Whether a server answers.
    pub fn answers(&self, backend: &str, answers: bool) {
        self.up.with_label_values(&[backend]).set(i64::from(answers));
    }

    /// How several servers stand, all of them; `None` = it does not answer.
    pub fn stand(&self, servers: &[(String, Option<Standing>)]) {
        let standings = servers.iter().filter_map(|(_, standing)| *standing);
        let primary = standings.filter(|standing| !standing.is_standby).max_by_key(|s| s.wal);
        for (name, standing) in servers {
            let l = &[name.as_str()];
            self.answers(name, standing.is_some());
            let is_primary = standing.is_some_and(|standing| !standing.is_standby);
            self.primary.with_label_values(l).set(i64::from(is_primary));
            // What is not known is not told.
            let standby = standing.filter(|standing| standing.is_standby);
            match standby.and_then(|standby| standby.behind_secs) {
                Some(secs) => self.lag_secs.with_label_values(l).set(secs),
                None => drop(self.lag_secs.remove_label_values(l)),
            }
            match (standby, primary) {
                (Some(standby), Some(primary)) => {
                    self.lag_bytes.with_label_values(l).set((primary.wal - standby.wal).max(0));
                }
                _ => drop(self.lag_bytes.remove_label_values(l)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn what_is_not_known_of_a_server_is_not_told() {
        let metrics = Metrics::new();
        let says = |is_standby, wal| Some(Standing { is_standby, wal, behind_secs: Some(1.5) });
        let stand = |a, b| {
            metrics.backends.stand(&[("a".to_owned(), a), ("b".to_owned(), b)]);
            String::from_utf8(metrics.render(1)).unwrap()
        };
        let text = stand(says(false, 100), says(true, 30));
        for line in [
            "rustydb_backend_up{backend=\"b\"} 1",
            "rustydb_backend_primary{backend=\"a\"} 1",
            "rustydb_replication_lag_bytes{backend=\"b\"} 70",
            "rustydb_replication_lag_seconds{backend=\"b\"} 1.5",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("lag_bytes{backend=\"a\"}"));
        let text = stand(None, says(true, 30));
        for line in
            ["rustydb_backend_up{backend=\"a\"} 0", "rustydb_backend_primary{backend=\"a\"} 0"]
        {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("lag_seconds{backend=\"b\"}") && !text.contains("lag_bytes{"));
    }
}
