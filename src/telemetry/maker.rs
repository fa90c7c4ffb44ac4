//! Makes metrics: each is registered, and described for the page of the documentation.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Seconds; the spread of a statement's life.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What a metric is.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// What it tells.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
}

pub(super) struct Maker<'a> {
    registry: &'a Registry,
    families: RefCell<Vec<Family>>,
}

impl<'a> Maker<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self { registry, families: RefCell::default() }
    }

    /// Everything that was made.
    pub(super) fn done(&self) -> Vec<Family> {
        self.families.take()
    }

    /// A name that is taken twice is a defect of who made it, and the test of the registry finds
    /// it.
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        #[allow(clippy::expect_used)]
        let collector = made.expect("metric names are constants");
        let registered = self.registry.register(Box::new(collector.clone()));
        debug_assert!(registered.is_ok(), "{registered:?}");
        let kinds = collector.collect().into_iter().map(|family| match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        });
        let described = collector.desc().into_iter().zip(kinds).map(|(desc, kind)| Family {
            name: desc.fq_name.clone(),
            help: desc.help.clone(),
            labels: desc.variable_labels.clone(),
            kind,
        });
        self.families.borrow_mut().extend(described);
        collector
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// Gauges with fractions.
    pub(super) fn levels(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.keep(GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histogram(&self, name: &str, help: &str) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        self.keep(Histogram::with_opts(opts))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.spread(name, help, labels, &BUCKETS)
    }

    pub(super) fn spread(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, labels))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::super::Metrics;
    use super::*;

    /// Parts of the page: the heading, and how the names of its metrics begin. The first that fits
    /// counts.
    const PARTS: [(&str, &[&str]); 8] = [
        ("Pool", &["rustydb_pool_"]),
        ("Sessions", &["rustydb_session_", "rustydb_class_", "rustydb_drcp_"]),
        ("Statements and transactions", &["rustydb_query_", "rustydb_transactions_"]),
        ("PostgreSQL servers", &["rustydb_backend_", "rustydb_replication_"]),
        ("Network", &["rustydb_network_"]),
        ("Native protocol", &["rustydb_native_"]),
        ("HTTP", &["rustydb_api_", "rustydb_jobs_"]),
        ("Log-ins, limits, audit, the process", &["rustydb_"]),
    ];

    const MARKS: [&str; 2] = ["<!-- metrics -->\n", "<!-- end of metrics -->\n"];

    fn tables() -> String {
        let metrics = Metrics::new();
        let mut left: Vec<&Family> = metrics.families().iter().collect();
        let mut text = String::new();
        for (heading, prefixes) in PARTS {
            let fits = |family: &&Family| prefixes.iter().any(|p| family.name.starts_with(p));
            let (mut part, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(fits);
            left = rest;
            part.sort_by(|a, b| a.name.cmp(&b.name));
            let head = "| Metric | Kind | Labels | What it tells |\n|---|---|---|---|";
            writeln!(text, "\n## {heading}\n\n{head}").unwrap();
            for Family { name, help, labels, kind } in part {
                writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
            }
        }
        assert!(left.is_empty(), "{left:?}");
        text.push('\n');
        text
    }

    #[test]
    fn the_checked_in_page_has_every_metric() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let page = std::fs::read_to_string(&file).unwrap();
        let (head, rest) = page.split_once(MARKS[0]).unwrap();
        let (_, tail) = rest.split_once(MARKS[1]).unwrap();
        let now = [head, MARKS[0], &tables(), MARKS[1], tail].concat();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, &now).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), now);
    }
}
