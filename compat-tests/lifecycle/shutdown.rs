//! SIGTERM and SIGINT: who is idle leaves, who works finishes, a second signal hurries.

use std::time::{Duration, Instant};

use crate::harness::{self, Server, eventually, is_alive};
use crate::{Client, Running, SOON, executing, get, postgres_processes, stdout};

/// Time for the end of everything.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn sigterm_ends_everything_and_keeps_the_data() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let mut server = Server::builder().data_dir(&data).start();
    let made = server.psql("create table kept as select generate_series(1, 1000) as n;");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(!postgres_processes(&data).is_empty());
    let begun = Instant::now();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(postgres_processes(&data), Vec::<i32>::new());
    assert!(!data.join("pg/postmaster.pid").exists());
    assert_eq!(std::fs::read_dir(&server.socket_dir).unwrap().count(), 0);

    let server = Server::builder().data_dir(&data).start();
    let output = server.psql_command().args(["-Atc", "select sum(n) from kept"]).output().unwrap();
    assert_eq!(stdout(&output), "500500\n");
    assert!(!server.log().contains("not properly shut down"), "{}", server.log());
}

#[test]
fn idle_clients_are_told_57p01() {
    let mut server = Server::start();
    let over_tcp = Client::connect(&server, &server.password).unwrap();
    let sockets = server.socket_dir.to_str().unwrap();
    let over_unix =
        Client::connect_to(sockets, server.port, "rustydb", &server.password, "rustydb").unwrap();
    assert_eq!(over_tcp.value("select 1").unwrap(), "1");
    let begun = Instant::now();
    server.signal("TERM");
    for client in [over_tcp, over_unix] {
        let last = client.last_word().expect("a FATAL");
        assert_eq!((last.code().code(), last.severity()), ("57P01", "FATAL"));
    }
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn a_running_statement_finishes_and_then_its_session_ends() {
    let mut server = Server::start();
    let running = Running::start(&server, &["select 'finished', pg_sleep(1)", "select 'next'"]);
    executing(&server, "pg_sleep(1)");
    server.signal("TERM");
    let psql = running.end(SOON);
    assert_eq!(psql.stdout, "finished|\n", "{}", psql.stderr);
    let told = "terminating connection due to administrator command";
    assert!(psql.stderr.contains(told), "{}", psql.stderr);
    assert_ne!(psql.code, Some(0));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn an_open_transaction_may_commit_and_a_request_over_http_may_finish() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let mut server = Server::builder().data_dir(&data).start();
    assert_eq!(server.psql("create table kept (n int);").code, Some(0));
    let client = Client::connect(&server, &server.password).unwrap();
    client.value("begin").unwrap();
    client.value("insert into kept values (1)").unwrap();
    let (asked, password) = (server.url("/api/v1/query"), server.password.clone());
    let request = std::thread::spawn(move || {
        ureq::post(&asked)
            .header("authorization", crate::basic_header("rustydb", &password))
            .content_type("application/json")
            .send(r#"{"sql": "insert into kept select 2 from pg_sleep(1)"}"#)
            .map(|response| response.status().as_u16())
    });
    executing(&server, "select 2 from");
    server.signal("TERM");
    eventually("draining", SOON, || server.log().contains("shutting down"));
    client.value("insert into kept values (4)").unwrap();
    client.value("commit").unwrap();
    assert_eq!(client.last_word().expect("a FATAL").code().code(), "57P01");
    assert_eq!(request.join().unwrap().unwrap(), 200);
    assert_eq!(server.wait(), Some(0));
    let server = Server::builder().data_dir(&data).start();
    assert_eq!(server.direct_value("select sum(n) from kept"), "7");
}

#[test]
fn a_second_signal_hurries() {
    let mut server = Server::start();
    let running = Running::start(&server, &["select pg_sleep(60)"]);
    executing(&server, "pg_sleep(60)");
    let postmaster = server.postmaster();
    server.signal("TERM");
    eventually("draining", SOON, || server.log().contains("shutting down"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_alive(server.pid()), "the first signal does not wait for the statement");
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(!is_alive(postmaster));
    let psql = running.end(AT_ONCE);
    assert!(psql.stderr.contains("57P01"), "{}", psql.stderr);
}

#[test]
fn the_grace_for_running_statements_is_bounded() {
    let mut server = Server::builder().set("server.shutdown_grace_secs=1").start();
    let running = Running::start(&server, &["select pg_sleep(60)"]);
    executing(&server, "pg_sleep(60)");
    let begun = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(begun.elapsed() < AT_ONCE + Duration::from_secs(1), "{:?}", begun.elapsed());
    let psql = running.end(AT_ONCE);
    assert!(psql.stderr.contains("57P01"), "{}", psql.stderr);
}

#[test]
fn sigint_ends_the_server_too() {
    let mut server = Server::start();
    let postmaster = server.postmaster();
    let begun = Instant::now();
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(!is_alive(postmaster));
}

#[test]
fn load_balancers_hear_of_the_shutdown_before_clients_do() {
    let mut server = Server::builder().set("server.shutdown_delay_secs=60").start();
    server.signal("TERM");
    let ready = server.url("/health/ready");
    eventually("not ready", SOON, || get(&ready, None).0 == 503);
    assert_eq!(get(&server.url("/health/live"), None).0, 200);
    let psql = server.psql("select 1;");
    assert_eq!(psql.code, Some(0), "{}", psql.stderr);
    let begun = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}
