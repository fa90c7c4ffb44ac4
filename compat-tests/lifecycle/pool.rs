//! The pool's size, its limits, and what it does about PostgreSQL's troubles.

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Server, command, eventually, signal_process};
use crate::reload::console;
use crate::{Client, PlainPostgres, SOON, http_query, sqlstate};

fn connect(server: &Server) -> Client {
    Client::connect(server, &server.password).unwrap()
}

fn total(server: &Server) -> f64 {
    server.metric("rustydb_pool_total_connections{pool=\"main\"}")
}

/// The SQLSTATE with which a client was turned away, from its statement or from the last word.
fn reason(client: Client, error: &tokio_postgres::Error) -> String {
    match error.code() {
        Some(code) => code.code().to_owned(),
        None => client.last_word().map_or_else(String::new, |word| word.code().code().to_owned()),
    }
}

#[test]
fn connections_are_made_in_advance_once_somebody_is_known() {
    let server = Server::builder().set("pool.initial_size=4").start();
    assert_eq!(total(&server), 0.0);
    let client = connect(&server);
    assert_eq!(client.value("select 1").unwrap(), "1");
    let made = || server.metric("rustydb_pool_connections_created_total{pool=\"main\"}");
    eventually("four connections", SOON, || made() == 4.0);
    assert_eq!(total(&server), 4.0);
    let idle = || server.metric("rustydb_pool_idle_connections{pool=\"main\"}");
    eventually("three are idle", SOON, || idle() >= 3.0);
}

#[test]
fn a_pool_of_fixed_size_fills_itself_again() {
    let server = Server::builder()
        .set("pool.max_size=3")
        .set("pool.sizing.mode=fixed")
        .set("pool.maintenance_interval_secs=1")
        .start();
    assert_eq!(connect(&server).value("select 1").unwrap(), "1");
    eventually("three connections", SOON, || total(&server) == 3.0);
    server.direct_value(
        "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
            where usename = 'rustydb' and pid <> pg_backend_pid()",
    );
    assert_eq!(connect(&server).value("select 1").unwrap(), "1");
    eventually("three connections", SOON, || total(&server) == 3.0);
}

#[test]
fn one_role_has_its_own_limit_and_the_error_names_it() {
    let server = Server::builder()
        .set("pool.users={ rustydb = { max_size = 2 } }")
        .set("pool.acquire_timeout_secs=1")
        .start();
    server.direct_psql("create role other login password 'x'");
    let clients = [connect(&server), connect(&server), connect(&server)];
    clients[0].value("begin").unwrap();
    clients[1].value("begin").unwrap();
    let error = clients[2].value("select 1").unwrap_err();
    assert_eq!(sqlstate(&error), "53300");
    let text = error.as_db_error().unwrap().message().to_owned();
    assert!(text.contains("pool.users.rustydb.max_size is 2"), "{text}");
    let other = Client::connect_to("127.0.0.1", server.port, "other", "x", "rustydb").unwrap();
    assert_eq!(other.value("select 1").unwrap(), "1");
    let [first, ..] = clients;
    drop(first);
    let third = connect(&server);
    eventually("room", SOON, || third.value("select 1").is_ok());
}

#[test]
fn one_database_has_its_own_limit() {
    let server = Server::builder()
        .set("pool.databases={ small = { max_size = 1 } }")
        .set("pool.acquire_timeout_secs=1")
        .start();
    server.direct_psql("create database small owner rustydb");
    let small = || {
        let password = &server.password;
        Client::connect_to("127.0.0.1", server.port, "rustydb", password, "small").unwrap()
    };
    let (first, second) = (small(), small());
    first.value("begin").unwrap();
    let error = second.value("select 1").unwrap_err();
    assert_eq!(sqlstate(&error), "53300");
    let text = error.as_db_error().unwrap().message().to_owned();
    assert!(text.contains("pool.databases.small.max_size is 1"), "{text}");
    assert_eq!(connect(&server).value("select 1").unwrap(), "1");
}

#[test]
fn a_connection_that_fails_its_check_is_replaced_unnoticed() {
    let server = Server::builder()
        .set("pool.validation_level=query")
        .set("pool.validation_sql=select 1/0")
        .set("pool.validation_skip_recent_secs=5")
        .start();
    let ask = || {
        let sql = "select pg_backend_pid() as n";
        let (status, body) = http_query(&server, "rustydb", &server.password, sql);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, body["rows"].to_string())
    };
    let (status, first) = ask();
    assert_eq!(status, 200, "{first}");
    let idle = || server.metric("rustydb_pool_idle_connections{pool=\"main\"}");
    eventually("it is back", SOON, || idle() == 1.0);
    assert_eq!(ask().1, first, "what was used just now is not checked");
    let failures = "rustydb_pool_validation_failures_total{pool=\"main\"}";
    server.expect_metric(failures, 0.0);
    thread::sleep(Duration::from_millis(7100));
    let (status, second) = ask();
    assert_eq!(status, 200, "{second}");
    assert_ne!(first, second);
    server.expect_metric(failures, 1.0);
}

#[test]
fn a_connection_that_comes_back_is_kept_cleaned_or_replaced() {
    let server = Server::builder().set("pool.max_size=1").set("pool.min_size=0").start();
    let client = connect(&server);
    let pid = |client: &Client| client.value("select pg_backend_pid()").unwrap();
    let cleaned = "rustydb_pool_connections_recycled_total{pool=\"main\",strategy=\"discard_all\"}";
    let replaced = "rustydb_pool_connections_destroyed_total{pool=\"main\",reason=\"replaced\"}";
    let first = pid(&client);
    assert_eq!(pid(&client), first);
    server.expect_metric(cleaned, 0.0);
    let recycle = |strategy: &str| {
        let command = format!("SET pool.recycling_strategy = '{strategy}'");
        let said = console(&server, "rustydb", &server.password, &command);
        assert!(said.status.success(), "{said:?}");
    };
    recycle("checked");
    assert_eq!(pid(&client), first);
    eventually("it is cleaned", SOON, || server.metric(cleaned) >= 1.0);
    recycle("replace");
    // What counts is what is set when it comes back.
    assert_eq!(pid(&client), first);
    let second = pid(&client);
    assert_ne!(second, first);
    assert_ne!(pid(&client), second);
    assert!(server.metric(replaced) >= 2.0);
    recycle("adaptive");
    pid(&client);
    let last = pid(&client);
    assert_eq!(pid(&client), last);
}

#[test]
fn a_forgotten_transaction_is_reported_once() {
    let server = Server::builder()
        .set("pool.leak_detection_threshold_secs=1")
        .set("pool.maintenance_interval_secs=1")
        .start();
    let client = connect(&server);
    client.value("begin").unwrap();
    client.value("select 1").unwrap();
    let leaked = || server.metric("rustydb_pool_leaked_connections_total{pool=\"main\"}");
    eventually("the report", SOON, || leaked() == 1.0);
    server.log_line(&["holds a connection in a transaction and does nothing"]);
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(leaked(), 1.0);
    client.value("commit").unwrap();
}

#[test]
fn a_full_postgresql_makes_clients_wait_for_each_other() {
    let plain = PlainPostgres::init();
    plain.launch("-c max_connections=12 -c superuser_reserved_connections=5");
    plain.connect().value("create role alice login password 'wonderland'").unwrap();
    let server = Server::builder().arg("--backend").arg(&plain.url()).start();
    thread::scope(|scope| {
        let requests: Vec<_> = (0..30)
            .map(|_| {
                scope.spawn(|| http_query(&server, "alice", "wonderland", "select pg_sleep(.2)"))
            })
            .collect();
        for request in requests {
            let (status, body) = request.join().unwrap();
            assert_eq!(status, 200, "{body}");
        }
    });
    assert!(total(&server) <= 7.0, "{}", total(&server));
    server.expect_metric_of_at_least("rustydb_pool_connection_errors_total{pool=\"main\"}", 1.0);
}

#[test]
fn a_postgresql_that_others_fill_is_named_as_the_reason() {
    let plain = PlainPostgres::init();
    plain.launch("-c max_connections=8 -c superuser_reserved_connections=5");
    plain.connect().value("create role alice login password 'wonderland'").unwrap();
    let server = Server::builder().arg("--backend").arg(&plain.url()).start();
    let direct = || Client::connect_to("127.0.0.1", plain.port, "alice", "wonderland", "postgres");
    let mut others = Vec::new();
    eventually("a full server", SOON, || match direct() {
        Ok(client) => {
            others.push(client);
            false
        }
        Err(_) => true,
    });
    let begun = Instant::now();
    let (status, body) = http_query(&server, "alice", "wonderland", "select 1");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("53300") && body.contains("max_connections"), "{body}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    others.clear();
    eventually("room", SOON, || http_query(&server, "alice", "wonderland", "select 1").0 == 200);
}

/// A pool on a PostgreSQL with the roles alice and bob, and limits.
fn limited(sql: &[&str]) -> (PlainPostgres, Server) {
    let plain = PlainPostgres::init();
    plain.launch("-c max_connections=30");
    let admin = plain.connect();
    for role in ["alice", "bob"] {
        admin.value(&format!("create role {role} login password 'wonderland'")).unwrap();
    }
    sql.iter().for_each(|sql| drop(admin.value(sql).unwrap()));
    let server = Server::builder()
        .arg("--backend")
        .arg(&plain.url())
        .set("pool.acquire_timeout_secs=3")
        .start();
    (plain, server)
}

/// Many statements of `role` at once; all must succeed.
fn many(server: &Server, role: &str, sql: &str) {
    thread::scope(|scope| {
        let ask = || http_query(server, role, "wonderland", sql);
        let requests: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        for request in requests {
            let (status, body) = request.join().unwrap();
            assert_eq!(status, 200, "{body}");
        }
    });
}

#[test]
fn the_limit_that_postgresql_has_for_a_role_makes_its_clients_wait_and_nobody_else() {
    let (plain, server) = limited(&["alter role alice connection limit 2"]);
    let client = |role: &str| {
        Client::connect_to("127.0.0.1", server.port, role, "wonderland", "postgres").unwrap()
    };
    many(&server, "alice", "select pg_sleep(.05)");
    let held = "select count(*) from pg_stat_activity where usename = 'alice'";
    let held: usize = plain.connect().value(held).unwrap().parse().unwrap();
    assert!((1..=2).contains(&held), "{held}");
    let (first, second, third) = (client("alice"), client("alice"), client("alice"));
    first.value("begin").unwrap();
    second.value("begin").unwrap();
    let waits = thread::spawn(move || third.value("select 1").unwrap_err());
    // Meanwhile the others get as many connections as they want, at once.
    let begun = Instant::now();
    let others: Vec<_> = (0..6).map(|_| client("bob")).collect();
    others.iter().for_each(|other| assert_eq!(other.value("begin").unwrap(), ""));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let error = waits.join().unwrap();
    assert_eq!(sqlstate(&error), "53300");
    let error = error.as_db_error().unwrap();
    assert!(error.message().contains("too many connections for role \"alice\""), "{error:?}");
    assert!(error.hint().unwrap().contains("CONNECTION LIMIT"), "{error:?}");
    first.value("rollback").unwrap();
    let again = client("alice");
    eventually("room", SOON, || again.value("select 1").is_ok());
}

#[test]
fn the_limit_that_postgresql_has_for_a_database_is_passed_on_from_role_to_role() {
    let sql = ["create database small", "alter database small connection limit 1"];
    let (_plain, server) = limited(&sql);
    let client = |role: &str, database: &str| {
        Client::connect_to("127.0.0.1", server.port, role, "wonderland", database).unwrap()
    };
    // Each turn needs a new connection in the place of the other role's.
    let (alice, bob) = (client("alice", "small"), client("bob", "small"));
    for _ in 0..3 {
        assert_eq!(alice.value("select current_user").unwrap(), "alice");
        assert_eq!(bob.value("select current_user").unwrap(), "bob");
    }
    alice.value("begin").unwrap();
    let waits = thread::spawn(move || bob.value("select 1").unwrap_err());
    many(&server, "bob", "select pg_sleep(.05)");
    let error = waits.join().unwrap();
    assert_eq!(sqlstate(&error), "53300");
    let text = error.as_db_error().unwrap().message();
    assert!(text.contains("too many connections for database \"small\""), "{text}");
}

#[test]
fn a_limit_that_others_use_up_is_told_in_postgresqls_words() {
    let (plain, server) = limited(&["alter role alice connection limit 1"]);
    let elsewhere =
        Client::connect_to("127.0.0.1", plain.port, "alice", "wonderland", "postgres").unwrap();
    let begun = Instant::now();
    let (status, body) = http_query(&server, "alice", "wonderland", "select 1");
    assert_eq!(status, 503, "{body}");
    let expected = r#"too many connections for role \"alice\""#;
    assert!(body.contains("53300") && body.contains(expected), "{body}");
    assert!(!body.contains("max_connections"), "{body}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(http_query(&server, "bob", "wonderland", "select 1").0, 200);
    drop(elsewhere);
    let ask = || http_query(&server, "alice", "wonderland", "select 1").0 == 200;
    eventually("room", SOON, ask);
}

#[test]
fn the_limit_of_replication_is_that_of_replication_alone() {
    let plain = PlainPostgres::init();
    plain.launch("-c max_wal_senders=1");
    let admin = plain.connect();
    for role in ["alice", "bob"] {
        admin
            .value(&format!("create role {role} login replication password 'wonderland'"))
            .unwrap();
    }
    let server = Server::builder().arg("--backend").arg(&plain.url()).start();
    let replicate = |port: u16| {
        let mut psql = command("psql");
        psql.args(["-X", "-At", "-v", "VERBOSITY=verbose"])
            .arg(format!(
                "host=127.0.0.1 port={port} user=alice dbname=postgres replication=database"
            ))
            .env("PGPASSWORD", "wonderland")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        psql
    };
    let mut elsewhere = replicate(plain.port).spawn().unwrap();
    elsewhere.stdin.as_mut().unwrap().write_all(b"IDENTIFY_SYSTEM;\n").unwrap();
    let mut first = [0];
    elsewhere.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let ask = || replicate(server.port).args(["-c", "IDENTIFY_SYSTEM"]).output().unwrap();
    let refused = thread::scope(|scope| {
        let refused = scope.spawn(ask);
        // Everybody else finds as much room as before.
        for _ in 0..10 {
            let begun = Instant::now();
            assert_eq!(http_query(&server, "bob", "wonderland", "select 1").0, 200);
            assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        }
        refused.join().unwrap()
    });
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("max_wal_senders (currently 1)"), "{text}");
    assert!(!text.contains("max_connections is reached"), "{text}");
    drop(elsewhere.stdin.take());
    elsewhere.wait().unwrap();
    eventually("room", SOON, || ask().status.success());
}

/// Statements that succeed, while somebody counts.
struct Load {
    ended: AtomicBool,
    succeeded: [AtomicUsize; 6],
}

impl Load {
    fn run(&self, server: &Server, at: usize) {
        while !self.ended.load(Ordering::Relaxed) {
            let client = match Client::connect(server, &server.password) {
                Ok(client) => client,
                Err(error) => {
                    assert_told(error.code().map_or("none", |code| code.code()));
                    continue;
                }
            };
            // `Client::value` fails when the answer does not come.
            while !self.ended.load(Ordering::Relaxed) {
                match client.value("select pg_sleep(0.01)") {
                    Ok(_) => {
                        self.succeeded[at].fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        assert_told(&reason(client, &error));
                        break;
                    }
                }
            }
        }
    }

    fn counts(&self) -> Vec<usize> {
        self.succeeded.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

#[track_caller]
fn assert_told(code: &str) {
    assert!(["57P01", "57P02", "57P03", "08006"].contains(&code), "{code}");
}

#[test]
fn the_pool_heals_within_seconds_of_a_restart_under_load() {
    let server = Server::start();
    let load = Load { ended: AtomicBool::new(false), succeeded: Default::default() };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|at| {
                scope.spawn({
                    let (load, server) = (&load, &server);
                    move || load.run(server, at)
                })
            })
            .collect();
        let all_go_on = |limit| {
            let before = load.counts();
            eventually("every client goes on", limit, || {
                load.counts().iter().zip(&before).all(|(now, before)| now > before)
            });
        };
        all_go_on(SOON);
        for signal in ["INT", "KILL"] {
            let old = server.postmaster();
            signal_process(old, signal);
            eventually("another postmaster", SOON, || {
                let answers = server.direct_psql_command().args(["-Atc", "select 1"]).output();
                answers.unwrap().status.success() && server.postmaster() != old
            });
            all_go_on(Duration::from_secs(5));
        }
        load.ended.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    server.expect_metric("rustydb_backend_restarts_total", 2.0);
    server.expect_metric("rustydb_pool_wait_queue_size{pool=\"main\"}", 0.0);
    server
        .expect_metric_of_at_least("rustydb_pool_wait_duration_seconds_count{pool=\"main\"}", 1.0);
}
