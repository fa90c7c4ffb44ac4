//! Probes and metrics.

use serde_json::Value;

use crate::get;
use crate::harness::{self, Server};

#[test]
fn probes_answer_on_both_listeners_without_a_password() {
    let server = Server::start();
    for port in [server.api_port, server.metrics_port] {
        let ask = |path: &str| {
            let (status, body) = get(&format!("http://127.0.0.1:{port}{path}"), None);
            let body: Value = serde_json::from_str(&body).expect(&body);
            (status, body)
        };
        for prefix in ["/health", "/api/v1/health"] {
            for (path, word) in [("startup", "started"), ("live", "alive"), ("ready", "ready")] {
                let (status, body) = ask(&format!("{prefix}/{path}"));
                assert_eq!((status, body["status"].as_str()), (200, Some(word)), "{body}");
            }
        }
        let (_, ready) = ask("/health/ready");
        assert_eq!(ready["checks"]["database"], "ok", "{ready}");
        let (status, full) = ask("/api/v1/health");
        assert_eq!((status, full["status"].as_str()), (200, Some("healthy")), "{full}");
        assert_eq!(full["version"], env!("CARGO_PKG_VERSION"));
        assert!(full["uptime_seconds"].is_u64(), "{full}");
        let (_, verbose) = ask("/api/v1/health?verbose=true");
        for part in ["database", "storage", "replication", "cluster", "pool"] {
            assert!(full["checks"][part].is_string(), "{full}");
            assert!(verbose["details"][part].is_string(), "{verbose}");
        }
        assert!(full.get("details").is_none(), "{full}");
        assert_eq!(full["checks"]["cluster"], "disabled");
        assert_eq!(full["checks"]["replication"], "ok");
        assert_eq!(ask("/api/v1/health?verbose=much").0, 400);
    }
}

#[test]
fn the_metrics_listener_serves_metrics_and_probes_and_nothing_else() {
    let server = Server::start();
    let at = |path: &str| format!("http://127.0.0.1:{}{path}", server.metrics_port);
    let (status, text) = get(&at("/metrics"), None);
    assert_eq!(status, 200);
    assert!(text.contains("rustydb_backend_up{backend=\"embedded\"} 1"), "{text}");
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    let open = ureq::get(&at("/metrics")).header("accept", "application/openmetrics-text");
    let mut open = open.call().unwrap();
    let kind = open.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(open.body_mut().read_to_string().unwrap().ends_with("# EOF\n"));
    for path in ["/api/v1/query", "/api/v1/metrics", "/"] {
        assert_eq!(get(&at(path), None).0, 404, "{path}");
    }
    let post = ureq::post(&at("/api/v1/query"))
        .config()
        .http_status_as_error(false)
        .build()
        .header("authorization", crate::basic_header("rustydb", &server.password))
        .content_type("application/json")
        .send(r#"{"sql": "select 1"}"#)
        .unwrap();
    assert_eq!(post.status().as_u16(), 404);
    assert_eq!(get(&server.url("/metrics"), None).0, 404);
}

#[test]
fn without_the_metrics_listener_metrics_ask_for_a_password() {
    let server = Server::builder().set("monitoring.metrics_port=0").start();
    std::net::TcpStream::connect(("127.0.0.1", server.metrics_port)).unwrap_err();
    assert!(server.ready.contains("/api/v1/metrics"), "{}", server.ready);
    let url = server.url("/api/v1/metrics");
    assert_eq!(get(&url, None).0, 401);
    assert_eq!(get(&url, Some(("rustydb", "wrong"))).0, 401);
    let (status, text) = get(&url, Some(("rustydb", &server.password)));
    assert_eq!(status, 200);
    assert!(text.contains("rustydb_backend_up{backend=\"embedded\"} 1"), "{text}");
}

#[test]
fn metrics_can_be_turned_off() {
    let server = Server::builder().set("monitoring.enable_metrics=false").start();
    std::net::TcpStream::connect(("127.0.0.1", server.metrics_port)).unwrap_err();
    let url = server.url("/api/v1/metrics");
    assert_eq!(get(&url, Some(("rustydb", &server.password))).0, 404);
    assert_eq!(get(&server.url("/health/ready"), None).0, 200);
}

#[test]
fn the_metrics_port_counts_what_happens() {
    let server = Server::start();
    let name = "rustydb_auth_attempts_total{method=\"scram\",result=\"failure\"}";
    server.expect_metric(name, 0.0);
    let mut psql = server.psql_command();
    psql.env("PGPASSWORD", "wrong");
    assert_ne!(harness::feed(&mut psql, "select 1;").status.code(), Some(0));
    server.expect_metric(name, 1.0);
}
