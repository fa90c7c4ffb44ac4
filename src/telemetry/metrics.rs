//! The metrics registry. Every metric of the server is a field here, so a name exists once;
//! handles with labels are resolved at construction and not looked up on the hot paths.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::access::AccessMetrics;
use super::backends::BackendMetrics;
use super::classes::ClassMetrics;
use super::http::{ApiRequests, HttpMetrics};
use super::jobs::JobMetrics;
use super::maker::{Family, Maker};
use super::native::NativeMetrics;
use super::openmetrics::open_metrics;
use super::pool::{PoolMetrics, pool_metrics};
use super::{Deadlocks, SlowQuery};
use crate::types::Protocol;

/// Seconds; the spread of a session's life.
const LIVES: [f64; 10] = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0];

/// Kinds of statements, the `type` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// SELECT, VALUES, SHOW, FETCH, …
    Select,
    /// INSERT.
    Insert,
    /// UPDATE and MERGE.
    Update,
    /// DELETE.
    Delete,
    /// CREATE, ALTER, DROP, …
    Ddl,
    /// COPY.
    Copy,
    /// Everything else.
    Other,
}

impl StatementKind {
    const ALL: [(StatementKind, &'static str); 7] = [
        (StatementKind::Select, "select"),
        (StatementKind::Insert, "insert"),
        (StatementKind::Update, "update"),
        (StatementKind::Delete, "delete"),
        (StatementKind::Ddl, "ddl"),
        (StatementKind::Copy, "copy"),
        (StatementKind::Other, "other"),
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The kind of a command tag without its numbers.
    pub fn of_command(command: &str) -> Self {
        match command.as_bytes().split(|b| *b == b' ').next().unwrap_or(b"") {
            b"SELECT" | b"SHOW" | b"FETCH" | b"EXPLAIN" => Self::Select,
            b"INSERT" => Self::Insert,
            b"UPDATE" | b"MERGE" => Self::Update,
            b"DELETE" => Self::Delete,
            b"COPY" => Self::Copy,
            b"CREATE" | b"ALTER" | b"DROP" | b"TRUNCATE" | b"COMMENT" | b"GRANT" | b"REVOKE"
            | b"REINDEX" | b"SECURITY" | b"IMPORT" | b"REASSIGN" => Self::Ddl,
            _ => Self::Other,
        }
    }
}

/// A gauge that is one higher for as long as this lives, also when the future that holds it is
/// dropped in the middle.
pub struct Raised(IntGauge);

impl Raised {
    /// Raises the gauge.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Metrics of one door.
pub struct ProtocolMetrics {
    /// Connections accepted.
    pub connections_total: IntCounter,
    /// Connections open now.
    pub connections_active: IntGauge,
    /// Bytes written to clients.
    pub bytes_sent: IntCounter,
    /// Bytes read from clients.
    pub bytes_received: IntCounter,
    /// Sessions now.
    pub sessions: IntGauge,
    /// Sessions with a request in work.
    pub sessions_active: IntGauge,
    /// Sessions without a request or transaction.
    pub sessions_idle: IntGauge,
    /// Sessions that hold no backend.
    pub sessions_pooled: IntGauge,
    /// Most sessions at once.
    pub sessions_peak: IntGauge,
    /// Sessions that ended because of a time limit.
    pub session_timeouts: IntCounter,
    /// Life of a session.
    pub session_lifetime: Histogram,
    /// Sessions opened.
    pub sessions_created: IntCounter,
    durations: Vec<Histogram>,
}

impl ProtocolMetrics {
    /// Time from the first message of a request to its last.
    pub fn duration(&self, kind: StatementKind) -> &Histogram {
        &self.durations[kind as usize]
    }
}

/// Sets gauges whose values are known elsewhere.
type Refresh = Box<dyn Fn() + Send + Sync>;

/// The registry and every handle.
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    refresh: Mutex<Vec<Refresh>>,
    protocols: Vec<ProtocolMetrics>,
    /// The native protocol.
    pub native: NativeMetrics,
    /// Pooled sessions by connection class.
    pub classes: ClassMetrics,
    /// Tokens, limits and the audit log.
    pub access: AccessMetrics,
    /// Long operations.
    pub jobs: JobMetrics,
    /// Connections of HTTP, and what stays over several requests.
    pub http: HttpMetrics,
    /// Pool of the clients' roles.
    pub main_pool: PoolMetrics,
    /// Pool of the system role.
    pub system_pool: PoolMetrics,
    /// Statements in work.
    pub query_active: IntGauge,
    rows_returned: Vec<IntCounter>,
    query_errors: IntCounterVec,
    sessions_pinned: IntCounterVec,
    limits_exceeded: IntCounterVec,
    session_idle: HistogramVec,
    /// Sessions that ended because notifications could not be kept for them.
    pub notifications_lost: IntCounter,
    /// Open transactions.
    pub transactions_active: IntGauge,
    /// Transactions committed, single statements included.
    pub transactions_committed: IntCounter,
    /// Transactions rolled back.
    pub transactions_rolled_back: IntCounter,
    /// Deadlocks that PostgreSQL broke.
    pub deadlocks: Deadlocks,
    /// Transactions that failed because others ran at the same time (40001).
    pub serialization_failures: IntCounter,
    /// Requests that took long.
    pub slow_query: SlowQuery,
    /// Length of transactions, single statements included.
    pub transactions_duration: Histogram,
    config_reloads: IntCounterVec,
    takeovers: IntCounterVec,
    /// Clients that are left in the processes that were taken over.
    pub clients_elsewhere: IntGauge,
    sessions_terminated: IntCounterVec,
    connections_rejected: IntCounterVec,
    protocol_errors: IntCounterVec,
    tls_handshakes: IntCounterVec,
    tls_cert_expiry: IntGaugeVec,
    auth_attempts: IntCounterVec,
    api_requests: IntCounterVec,
    api_errors: IntCounterVec,
    api_duration: HistogramVec,
    /// The handles of the two by their endpoint: looking for labels costs more than counting.
    api_known: RwLock<HashMap<String, Vec<ApiRequests>, RandomState>>,
    /// HTTP requests in work.
    pub api_in_flight: IntGauge,
    /// The PostgreSQL servers.
    pub backends: BackendMetrics,
    uptime: IntGauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with every metric of the server.
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker::new(&registry);
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            let _ = registry.register(Box::new(process));
        }
        let build = make.gauges("rustydb_build_info", "Version of the server", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let protocols = protocol_metrics(&make);
        let [main_pool, system_pool] = pool_metrics(&make);
        let native = NativeMetrics::new(&make);
        let classes = ClassMetrics::new(&make);
        let access = AccessMetrics::new(&make);
        let rows = make.counters(
            "rustydb_query_rows_returned_total",
            "Rows returned or changed",
            &["type"],
        );
        Self {
            protocols,
            native,
            classes,
            access,
            jobs: JobMetrics::new(&make),
            http: HttpMetrics::new(&make),
            main_pool,
            system_pool,
            query_active: make.gauge("rustydb_query_active", "Requests in work"),
            rows_returned: StatementKind::ALL
                .iter()
                .map(|(_, name)| rows.with_label_values(&[name]))
                .collect(),
            query_errors: make.counters(
                "rustydb_query_errors_total",
                "Errors that PostgreSQL reported",
                &["sqlstate_class"],
            ),
            sessions_pinned: make.counters(
                "rustydb_session_pinned_total",
                "Times that a session had to keep its backend",
                &["protocol", "cause"],
            ),
            limits_exceeded: make.counters(
                "rustydb_session_limit_exceeded_total",
                "Requests that were refused because of a limit of their session, by its key",
                &["limit"],
            ),
            session_idle: make.spread(
                "rustydb_session_idle_seconds",
                "Times that sessions did nothing, of a second and more",
                &["protocol"],
                &LIVES,
            ),
            notifications_lost: make.counter(
                "rustydb_session_notifications_lost_total",
                "Sessions ended because more notifications came than could be kept for them",
            ),
            transactions_active: make.gauge("rustydb_transactions_active", "Open transactions"),
            transactions_committed: make
                .counter("rustydb_transactions_committed_total", "Transactions committed"),
            transactions_rolled_back: make
                .counter("rustydb_transactions_rolled_back_total", "Transactions rolled back"),
            deadlocks: Deadlocks::new(make.counter(
                "rustydb_transactions_deadlocks_total",
                "Deadlocks that PostgreSQL broke",
            )),
            serialization_failures: make.counter(
                "rustydb_transactions_serialization_failures_total",
                "Transactions that failed because others ran at the same time",
            ),
            transactions_duration: make.histogram(
                "rustydb_transactions_duration_seconds",
                "Time from the first request of a transaction to the end of its last",
            ),
            slow_query: SlowQuery::new(make.counter(
                "rustydb_query_slow_total",
                "Requests that took longer than monitoring.slow_query_ms",
            )),
            config_reloads: make.counters(
                "rustydb_config_reloads_total",
                "Reloads of the configuration",
                &["result"],
            ),
            takeovers: make.counters(
                "rustydb_takeovers_total",
                "Processes that took over from this one or wanted to, and this one from another",
                &["result"],
            ),
            clients_elsewhere: make.gauge(
                "rustydb_takeover_clients_left",
                "Clients that are left in the processes that were taken over",
            ),
            sessions_terminated: make.counters(
                "rustydb_session_terminated_total",
                "Sessions ended",
                &["protocol", "reason"],
            ),
            connections_rejected: make.counters(
                "rustydb_network_connections_rejected_total",
                "Connections refused",
                &["reason"],
            ),
            protocol_errors: make.counters(
                "rustydb_network_protocol_errors_total",
                "Bytes that are no known protocol",
                &["reason"],
            ),
            tls_handshakes: make.counters(
                "rustydb_network_tls_handshakes_total",
                "TLS handshakes with clients",
                &["result", "version"],
            ),
            tls_cert_expiry: make.gauges(
                "rustydb_network_tls_cert_expiry_seconds",
                "Seconds until the certificate of the server ends",
                // None: this way the metric is absent until TLS is on.
                &[],
            ),
            auth_attempts: make.counters(
                "rustydb_auth_attempts_total",
                "Log-ins",
                &["method", "result"],
            ),
            api_requests: make.counters(
                "rustydb_api_requests_total",
                "HTTP requests",
                &["method", "endpoint", "status"],
            ),
            api_errors: make.counters(
                "rustydb_api_errors_total",
                "HTTP requests that ended in an error",
                &["type"],
            ),
            api_duration: make.histograms(
                "rustydb_api_request_duration_seconds",
                "Time to the head of the response",
                &["method", "endpoint"],
            ),
            api_known: RwLock::default(),
            api_in_flight: make.gauge("rustydb_api_requests_in_flight", "HTTP requests in work"),
            backends: BackendMetrics::new(&make),
            uptime: make.gauge("rustydb_uptime_seconds", "Seconds since start"),
            families: make.done(),
            registry,
            refresh: Mutex::default(),
        }
    }

    /// Metrics of one door.
    pub fn protocol(&self, protocol: Protocol) -> &ProtocolMetrics {
        &self.protocols[protocol as usize]
    }

    /// Counts the rows of a statement.
    pub fn rows_returned(&self, kind: StatementKind, rows: u64) {
        self.rows_returned[kind as usize].inc_by(rows);
    }

    /// Counts an error of PostgreSQL; the class comes from its SQLSTATE.
    pub fn query_error(&self, class: &str) {
        self.query_errors.with_label_values(&[class]).inc();
    }

    /// Counts a session that has to keep its backend.
    pub fn session_pinned(&self, protocol: Protocol, cause: &str) {
        self.sessions_pinned.with_label_values(&[protocol.as_str(), cause]).inc();
    }

    /// Counts a statement that was not prepared, because of the number or the length of all.
    pub fn statement_refused(&self, number: bool) {
        let limit = if number { "max_prepared_statements" } else { "max_prepared_bytes" };
        self.limits_exceeded.with_label_values(&[limit]).inc();
    }

    /// Counts a time that a session did nothing.
    pub fn session_was_idle(&self, protocol: Protocol, secs: u32) {
        self.session_idle.with_label_values(&[protocol.as_str()]).observe(f64::from(secs));
    }

    /// Counts a reload of the configuration.
    pub fn config_reload(&self, ok: bool) {
        let result = if ok { "success" } else { "failure" };
        self.config_reloads.with_label_values(&[result]).inc();
    }

    /// Counts a take-over by its result: `done`, `refused`, `failed`.
    pub fn takeover(&self, result: &str) {
        self.takeovers.with_label_values(&[result]).inc();
    }

    /// Counts the end of a session.
    pub fn session_terminated(&self, protocol: Protocol, reason: &str) {
        self.sessions_terminated.with_label_values(&[protocol.as_str(), reason]).inc();
    }

    /// Counts a refused connection.
    pub fn connection_rejected(&self, reason: &str) {
        self.connections_rejected.with_label_values(&[reason]).inc();
    }

    /// Counts bytes that are no known protocol.
    pub fn protocol_error(&self, reason: &str) {
        self.protocol_errors.with_label_values(&[reason]).inc();
    }

    /// Counts a TLS handshake; one that failed has no version.
    pub fn tls_handshake(&self, version: Option<&str>) {
        let result = if version.is_some() { "success" } else { "failure" };
        self.tls_handshakes.with_label_values(&[result, version.unwrap_or("none")]).inc();
    }

    /// Says how long the certificate that clients are shown is still good.
    pub fn tls_cert_expires_in(&self, secs: u64) {
        let none: [&str; 0] = [];
        let secs = i64::try_from(secs).unwrap_or(i64::MAX);
        self.tls_cert_expiry.with_label_values(&none).set(secs);
    }

    /// Counts a log-in.
    pub fn auth_attempt(&self, method: &str, ok: bool) {
        let result = if ok { "success" } else { "failure" };
        self.auth_attempts.with_label_values(&[method, result]).inc();
    }

    /// Counts an HTTP request; `endpoint` is the route's template, so its values are bounded.
    pub fn api_request(&self, method: &'static str, endpoint: &str, status: u16, seconds: f64) {
        let known = self.api_known.read();
        let is_it = |known: &&ApiRequests| (known.method, known.status) == (method, status);
        if let Some(known) = known.get(endpoint).and_then(|all| all.iter().find(is_it)) {
            return known.add(seconds);
        }
        drop(known);
        let status_text = status.to_string();
        let requests = self.api_requests.with_label_values(&[method, endpoint, &status_text]);
        let duration = self.api_duration.with_label_values(&[method, endpoint]);
        let known = ApiRequests { method, status, requests, duration };
        known.add(seconds);
        let mut all = self.api_known.write();
        let all = all.entry(endpoint.to_owned()).or_default();
        if !all.iter().any(|known| is_it(&known)) {
            all.push(known);
        }
    }

    /// Counts an HTTP error by its code.
    pub fn api_error(&self, code: &str) {
        self.api_errors.with_label_values(&[&code.to_ascii_lowercase()]).inc();
    }

    /// Every metric of the server, those without a value yet included.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Has this run before every rendering, so that gauges cost nothing while nobody looks.
    pub fn refresh_with(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.refresh.lock().push(Box::new(refresh));
    }

    /// The same in the text format of OpenMetrics.
    pub fn render_open(&self, uptime_secs: u64) -> Vec<u8> {
        let text = String::from_utf8(self.render(uptime_secs)).unwrap_or_default();
        open_metrics(&text).into_bytes()
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn render(&self, uptime_secs: u64) -> Vec<u8> {
        self.refresh.lock().iter().for_each(|refresh| refresh());
        self.uptime.set(i64::try_from(uptime_secs).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        // Writing to a vector does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

fn protocol_metrics(make: &Maker<'_>) -> Vec<ProtocolMetrics> {
    const P: &[&str] = &["protocol"];
    let accepted = make.counters("rustydb_network_connections_total", "Connections accepted", P);
    let open = make.gauges("rustydb_network_connections_active", "Connections open", P);
    let sent = make.counters("rustydb_network_bytes_sent_total", "Bytes sent to clients", P);
    let received =
        make.counters("rustydb_network_bytes_received_total", "Bytes received from clients", P);
    let sessions = make.gauges("rustydb_session_total", "Sessions", P);
    let active = make.gauges("rustydb_session_active", "Sessions with a request in work", P);
    let created = make.counters("rustydb_session_created_total", "Sessions opened", P);
    let idle = make.gauges("rustydb_session_idle", "Sessions without a request or transaction", P);
    let pooled = make.gauges("rustydb_session_pooled", "Sessions that hold no backend", P);
    let peak = make.gauges("rustydb_session_peak", "Most sessions at once", P);
    let timeouts = make.counters(
        "rustydb_session_timeouts_total",
        "Sessions that ended because of a time limit of RustyDB",
        P,
    );
    let lives = make.spread("rustydb_session_lifetime_seconds", "Life of a session", P, &LIVES);
    let durations = make.histograms(
        "rustydb_query_execution_duration_seconds",
        "Time from the first message of a request to its last",
        &["type", "protocol"],
    );
    let of = |protocol: Protocol| {
        let l = &[protocol.as_str()];
        ProtocolMetrics {
            connections_total: accepted.with_label_values(l),
            connections_active: open.with_label_values(l),
            bytes_sent: sent.with_label_values(l),
            bytes_received: received.with_label_values(l),
            sessions: sessions.with_label_values(l),
            sessions_active: active.with_label_values(l),
            sessions_idle: idle.with_label_values(l),
            sessions_pooled: pooled.with_label_values(l),
            sessions_peak: peak.with_label_values(l),
            session_timeouts: timeouts.with_label_values(l),
            session_lifetime: lives.with_label_values(l),
            sessions_created: created.with_label_values(l),
            durations: StatementKind::ALL
                .iter()
                .map(|(_, kind)| durations.with_label_values(&[kind, protocol.as_str()]))
                .collect(),
        }
    };
    Protocol::ALL.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_own_name_and_is_rendered() {
        let metrics = Metrics::new();
        metrics.protocol(Protocol::Http).duration(StatementKind::Copy).observe(0.1);
        metrics.query_error("42");
        let text = String::from_utf8(metrics.render(7)).unwrap();
        for line in [
            "rustydb_uptime_seconds 7",
            "rustydb_query_errors_total{sqlstate_class=\"42\"} 1",
            "rustydb_pool_idle_connections{pool=\"system\"} 0",
            "rustydb_query_execution_duration_seconds_count{protocol=\"http\",type=\"copy\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_order_of_kinds_is_the_order_of_their_handles() {
        for (at, (kind, _)) in StatementKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
        }
        for (at, protocol) in Protocol::ALL.iter().enumerate() {
            assert_eq!(*protocol as usize, at);
        }
        assert_eq!(StatementKind::of_command("CREATE TABLE"), StatementKind::Ddl);
        assert_eq!(StatementKind::of_command(""), StatementKind::Other);
    }
}
