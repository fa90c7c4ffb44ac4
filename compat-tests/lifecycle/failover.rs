//! Several PostgreSQL servers, of which one is the primary, and what happens when that changes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{self, Server, eventually};
use crate::{Client, PlainPostgres, SOON, http_query, is_root, sqlstate, stderr, unprivileged_uid};

impl PlainPostgres {
    /// A streaming standby.
    fn standby(&self) -> Self {
        let standby = Self { dir: harness::temp_dir(), port: harness::free_port() };
        if is_root() {
            std::os::unix::fs::chown(standby.dir.path(), Some(unprivileged_uid()), None).unwrap();
        }
        let copied = standby
            .tool("pg_basebackup")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", Self::SUPERUSER])
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync"])
            .env("PGPASSWORD", Self::PASSWORD)
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", stderr(&copied));
        standby.launch("");
        standby
    }

    fn promote(&self) {
        let mut promote = self.tool("pg_ctl");
        let promote = promote.args(["-w", "promote"]).stdout(Stdio::null());
        assert!(promote.status().unwrap().success());
    }

    /// Waits until it has everything that `primary` has.
    fn catch_up_with(&self, primary: &Client) {
        let own = self.connect();
        let at = primary.value("select pg_current_wal_lsn()").unwrap();
        let sql = format!("select pg_last_wal_replay_lsn() >= '{at}'");
        eventually("replay", SOON, || own.value(&sql).unwrap() == "t");
    }
}

/// Both servers, in this order, with the role and the table that the tests use.
fn pair() -> (PlainPostgres, PlainPostgres) {
    let primary = PlainPostgres::start();
    let admin = primary.connect();
    admin.value("create role alice login password 'wonderland'").unwrap();
    admin.value("create table kept (n int primary key); grant all on kept to alice").unwrap();
    let standby = primary.standby();
    standby.catch_up_with(&admin);
    (primary, standby)
}

fn url(servers: &[&PlainPostgres]) -> String {
    let hosts: Vec<_> = servers.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
    let (user, password) = (PlainPostgres::SUPERUSER, PlainPostgres::URL_PASSWORD);
    format!("postgresql://{user}:{password}@{}/postgres", hosts.join(","))
}

fn alice(server: &Server) -> Client {
    Client::connect_to("127.0.0.1", server.port, "alice", "wonderland", "postgres").unwrap()
}

#[test]
fn the_primary_is_found_wherever_it_stands_in_the_list() {
    let (primary, standby) = pair();
    for order in [[&standby, &primary], [&primary, &standby]] {
        let server = Server::builder().arg("--backend").arg(&url(&order)).start();
        assert!(!server.log().contains(PlainPostgres::URL_PASSWORD));
        let client = alice(&server);
        assert_eq!(client.value("select pg_is_in_recovery()").unwrap(), "f");
        assert_eq!(http_query(&server, "alice", "wonderland", "select 1").0, 200);
    }
}

#[test]
fn new_transactions_wait_for_a_new_primary_and_none_fails() {
    let (primary, standby) = pair();
    let server = Server::builder().arg("--backend").arg(&url(&[&primary, &standby])).start();
    let client = alice(&server);
    assert_eq!(client.value("insert into kept values (0) returning n").unwrap(), "0");
    assert_eq!(http_query(&server, "alice", "wonderland", "insert into kept values (1)").0, 200);
    standby.catch_up_with(&primary.connect());
    let waiting = alice(&server);
    primary.stop();

    std::thread::scope(|scope| {
        let server = &server;
        let requests: Vec<_> = (2..14)
            .map(|n| {
                scope.spawn(move || {
                    let sql = format!("insert into kept values ({n})");
                    http_query(server, "alice", "wonderland", &sql)
                })
            })
            .collect();
        let opened = scope.spawn(move || waiting.value("insert into kept values (14) returning n"));
        let new =
            scope.spawn(move || alice(server).value("insert into kept values (15) returning n"));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(requests.iter().all(|request| !request.is_finished()));
        standby.promote();
        let promoted = Instant::now();
        for request in requests {
            let (status, body) = request.join().unwrap();
            assert_eq!(status, 200, "{body}");
        }
        assert_eq!(opened.join().unwrap().unwrap(), "14");
        assert_eq!(new.join().unwrap().unwrap(), "15");
        assert!(promoted.elapsed() < Duration::from_secs(10), "{:?}", promoted.elapsed());
    });
    assert_eq!(standby.connect().value("select count(*) from kept").unwrap(), "16");
    server.expect_metric("rustydb_backend_primary_changes_total", 1.0);
    // Who held a connection to the old primary is told, and may come again.
    let error = client.value("select 1").unwrap_err();
    let code = error.code().map(|code| code.code().to_owned());
    let code = code.or_else(|| Some(client.last_word()?.code().code().to_owned()));
    assert!(["57P01", "57P02", "08006"].contains(&code.unwrap().as_str()));
    assert_eq!(alice(&server).value("select count(*) from kept").unwrap(), "16");
}

#[test]
fn the_metrics_tell_how_each_server_stands() {
    let (primary, standby) = pair();
    let server = Server::builder()
        .arg("--backend")
        .arg(&url(&[&standby, &primary]))
        .set("backend.health_interval_secs=1")
        .start();
    let of = |name: &str, one: &PlainPostgres| {
        format!("rustydb_{name}{{backend=\"127.0.0.1:{}\"}}", one.port)
    };
    for one in [&primary, &standby] {
        server.expect_metric(&of("backend_up", one), 1.0);
    }
    server.expect_metric(&of("backend_primary", &primary), 1.0);
    server.expect_metric(&of("backend_primary", &standby), 0.0);
    alice(&server).value("insert into kept values (0)").unwrap();
    standby.catch_up_with(&primary.connect());
    let admin = standby.connect();
    admin.value("select pg_wal_replay_pause()").unwrap();
    alice(&server).value("insert into kept select generate_series(1, 1000)").unwrap();
    let behind = of("replication_lag_bytes", &standby);
    eventually("it falls behind", SOON, || server.metric(&behind) > 1000.0);
    server.expect_metric_of_at_least(&of("replication_lag_seconds", &standby), 1.0);
    admin.value("select pg_wal_replay_resume()").unwrap();
    server.expect_metric(&behind, 0.0);
    server.expect_metric(&of("replication_lag_seconds", &standby), 0.0);
    // The connection that was kept for looking at it is lost with it, and made again.
    standby.stop();
    server.expect_metric(&of("backend_up", &standby), 0.0);
    assert_eq!(server.metric(&of("backend_up", &primary)), 1.0);
    standby.launch("");
    server.expect_metric(&of("backend_up", &standby), 1.0);
    primary.stop();
    standby.promote();
    server.expect_metric(&of("backend_primary", &standby), 1.0);
    server.expect_metric(&of("backend_up", &primary), 0.0);
}

#[test]
fn while_there_is_no_primary_the_wait_has_an_end() {
    let (primary, standby) = pair();
    let server = Server::builder()
        .arg("--backend")
        .arg(&url(&[&primary, &standby]))
        .set("backend.failover_wait_secs=1")
        .start();
    let client = alice(&server);
    primary.stop();
    let begun = Instant::now();
    let error = client.value("select 1").unwrap_err();
    assert_eq!(sqlstate(&error), "57P03");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let (status, body) = http_query(&server, "alice", "wonderland", "select 1");
    assert_eq!(status, 503, "{body}");
    primary.launch("");
    eventually("the old primary", SOON, || client.value("select 1").is_ok_and(|one| one == "1"));
    server.expect_metric("rustydb_backend_primary_changes_total", 0.0);
}

#[test]
fn a_write_that_a_standby_refuses_makes_the_roles_be_asked_again() {
    let (primary, standby) = pair();
    // One address; behind it there is another server after a while.
    let server = Server::builder().arg("--backend").arg(&url(&[&standby])).start();
    let reads = "select pg_is_in_recovery()::text";
    let writes = "insert into kept values (1)";
    assert!(http_query(&server, "alice", "wonderland", reads).1.contains("true"));
    let (_, body) = http_query(&server, "alice", "wonderland", writes);
    assert!(body.contains("25006"), "{body}");
    primary.stop();
    standby.promote();
    eventually("writes", SOON, || http_query(&server, "alice", "wonderland", writes).0 == 200);
}
