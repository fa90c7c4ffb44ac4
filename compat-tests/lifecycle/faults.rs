//! Processes that die: RustyDB, the postmaster, a backend. Nothing hangs, nothing is lost, nothing
//! is left over.

use crate::harness::{self, Server, eventually, is_alive, signal_process};
use crate::{Client, Running, SOON, executing, get, postgres_processes, sqlstate};

fn with_committed_rows(server: &Server) {
    let psql = server.psql("create table kept as select generate_series(1, 100) as n;");
    assert_eq!(psql.code, Some(0), "{}", psql.stderr);
}

fn assert_rows_are_there(server: &Server) {
    let output = server.psql_command().args(["-Atc", "select sum(n) from kept"]).output().unwrap();
    assert_eq!(crate::stdout(&output), "5050\n", "{}", crate::stderr(&output));
}

#[test]
fn a_killed_rustydb_leaves_no_orphan_and_loses_no_row() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let mut server = Server::builder().data_dir(&data).start();
    with_committed_rows(&server);
    let running = Running::start(&server, &["select pg_sleep(60)"]);
    executing(&server, "pg_sleep(60)");
    server.signal("KILL");
    assert_eq!(server.wait(), None);
    assert_ne!(running.end(SOON).code, Some(0));
    let none_left = || postgres_processes(&data).is_empty();
    eventually("the end of PostgreSQL", SOON, none_left);
    let server = Server::builder().data_dir(&data).start();
    assert_rows_are_there(&server);
}

#[test]
fn a_start_right_after_a_kill_waits_for_the_old_postgres() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let mut server = Server::builder().data_dir(&data).start();
    with_committed_rows(&server);
    let (old, sockets, port) = (server.postmaster(), server.socket_dir.clone(), server.port);
    server.signal("KILL");
    assert_eq!(server.wait(), None);
    // The killed one could not remove its socket.
    assert!(sockets.join(format!(".s.PGSQL.{port}")).exists());
    let again = Server::builder()
        .data_dir(&data)
        .set(&format!("network.port={port}"))
        .set(&format!("network.unix_socket_dir={}", sockets.display()))
        .start();
    assert!(!is_alive(old));
    assert_rows_are_there(&again);
    let mut psql = again.psql_command();
    let output = psql.arg("-h").arg(&sockets).args(["-Atc", "select 1"]).output().unwrap();
    assert_eq!(crate::stdout(&output), "1\n", "{}", crate::stderr(&output));
}

#[test]
fn a_killed_postmaster_is_replaced() {
    let server = Server::start();
    with_committed_rows(&server);
    let idle = Client::connect(&server, &server.password).unwrap();
    let asleep = Running::start(&server, &["select pg_sleep(60)"]);
    let busy = Running::start(&server, &["select count(*) from generate_series(1, 1e12::int8)"]);
    executing(&server, "pg_sleep(60)");
    executing(&server, "1e12");
    let old = server.postmaster();
    signal_process(old, "KILL");

    for running in [asleep, busy] {
        let psql = running.end(SOON);
        assert_ne!(psql.code, Some(0));
        assert!(!psql.stderr.is_empty());
    }
    // Whoever comes now waits for the new server, or is told to come again.
    eventually("a new connection", SOON, || match Client::connect(&server, &server.password) {
        Ok(client) => match client.value("select 1") {
            Ok(one) => one == "1",
            Err(e) => {
                assert_eq!(sqlstate(&e), "57P03");
                false
            }
        },
        Err(e) => {
            assert_eq!(sqlstate(&e), "57P03");
            false
        }
    });
    assert_rows_are_there(&server);
    assert_eq!(idle.value("select 'still here'").unwrap(), "still here");
    eventually("ready", SOON, || get(&server.url("/health/ready"), None).0 == 200);
    server.expect_metric("rustydb_backend_restarts_total", 1.0);
    server.expect_metric("rustydb_backend_up{backend=\"embedded\"}", 1.0);
    assert_ne!(server.postmaster(), old);
    let (status, body) = crate::http_query(&server, "rustydb", &server.password, "select 5 as n");
    assert_eq!(status, 200, "{body}");
}

#[test]
fn a_killed_backend_process_takes_nobody_down_for_long() {
    let server = Server::start();
    with_committed_rows(&server);
    let idle = Client::connect(&server, &server.password).unwrap();
    let used = Client::connect(&server, &server.password).unwrap();
    assert_eq!(used.value("select 1").unwrap(), "1");
    let running = Running::start(&server, &["select pg_sleep(60)"]);
    let other = Running::start(&server, &["select pg_sleep(61)"]);
    let postmaster = server.postmaster();
    executing(&server, "pg_sleep(61)");
    signal_process(executing(&server, "pg_sleep(60)"), "KILL");
    for running in [running, other] {
        let psql = running.end(SOON);
        assert_ne!(psql.code, Some(0));
        assert!(!psql.stderr.is_empty());
    }
    eventually("a new connection", SOON, || match Client::connect(&server, &server.password) {
        Ok(client) => client.value("select 1").is_ok_and(|one| one == "1"),
        Err(e) => {
            assert_eq!(sqlstate(&e), "57P03");
            false
        }
    });
    assert_rows_are_there(&server);
    assert_eq!(idle.value("select 'still here'").unwrap(), "still here");
    // It may have kept its connection, and then it is told; it must not hang.
    match used.value("select 1") {
        Ok(one) => assert_eq!(one, "1"),
        Err(e) => assert!(["08006", "57P02"].contains(&sqlstate(&e).as_str()), "{e:?}"),
    }
    eventually("ready", SOON, || get(&server.url("/health/ready"), None).0 == 200);
    assert_eq!(server.postmaster(), postmaster);
    server.expect_metric("rustydb_backend_restarts_total", 0.0);
}

#[test]
fn a_postgres_that_dies_too_often_ends_the_server() {
    let mut server = Server::builder().set("backend.embedded.max_restarts=0").start();
    signal_process(server.postmaster(), "KILL");
    assert_eq!(server.wait(), Some(1));
    server.log_line(&["dies too often"]);
    let data_dir = server.data_dir.clone();
    eventually("no orphan", SOON, || postgres_processes(&data_dir).is_empty());
}
