//! A PostgreSQL that RustyDB does not own.

use std::time::Instant;

use crate::harness::{self, Server};
use crate::{Client, PlainPostgres, http_query, refuses, sqlstate, stderr, stdout};

#[test]
fn one_server_can_stand_in_front_of_the_postgres_of_another() {
    let first = Server::start();
    let url = format!("postgresql://postgres@/postgres?host={}/run", first.data_dir.display());
    let mut second = Server::builder().arg("--backend").arg(&url).start();
    assert!(second.ready.contains("external"), "{}", second.ready);
    assert!(!second.data_dir.join("pg").exists());
    second.password = first.password.clone();
    let sql = "select current_user, current_database()";
    let output = second.psql_command().args(["-Atc", sql]).output().unwrap();
    assert_eq!(stdout(&output), "rustydb|rustydb\n", "{}", stderr(&output));
    let (status, body) = http_query(&second, "rustydb", &first.password, "select 41 + 1 as n");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("42"), "{body}");
    second.password = "wrong".into();
    assert_ne!(second.psql("select 1;").code, Some(0));
    assert_eq!(http_query(&second, "rustydb", "wrong", "select 1").0, 401);
    assert_eq!(second.stop(), Some(0));
    assert_eq!(first.psql("select 1;").code, Some(0));
}

#[test]
fn a_client_logs_in_with_its_own_password_and_is_its_own_role_behind() {
    let plain = PlainPostgres::start();
    let admin = plain.connect();
    admin.value("create role alice login password 'wonder land'").unwrap();
    admin.value("create table secret as select 1 as n").unwrap();
    let server = Server::builder().arg("--backend").arg(&plain.url()).start();
    assert!(!server.log().contains(PlainPostgres::PASSWORD));
    assert!(!server.log().contains(PlainPostgres::URL_PASSWORD));

    let connect = |role: &str, password: &str| {
        Client::connect_to("127.0.0.1", server.port, role, password, "postgres")
    };
    let alice = connect("alice", "wonder land").unwrap();
    assert_eq!(alice.value("select session_user").unwrap(), "alice");
    let behind = "select usename from pg_stat_activity where pid = pg_backend_pid()";
    assert_eq!(alice.value(behind).unwrap(), "alice");
    // No way back to the role that RustyDB itself uses.
    alice.value("reset role").unwrap();
    assert_eq!(alice.value("select current_user").unwrap(), "alice");
    let forbidden = alice.value("set session authorization super").unwrap_err();
    assert_eq!(sqlstate(&forbidden), "42501");
    assert_eq!(sqlstate(&alice.value("table secret").unwrap_err()), "42501");

    for (role, password) in [("alice", "wonderland"), ("bob", "x"), ("super", "wonder land")] {
        let error = connect(role, password).err().expect("a refusal");
        assert_eq!(sqlstate(&error), "28P01", "{role}");
    }
    let sql = "select session_user as who";
    let (status, body) = http_query(&server, "alice", "wonder land", sql);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"alice\""), "{body}");
    assert_eq!(http_query(&server, "alice", "wonderland", sql).0, 401);

    // A new password works at once, the old one no longer.
    admin.value("alter role alice password 'looking glass'").unwrap();
    let changed = connect("alice", "looking glass").unwrap();
    assert_eq!(changed.value("select session_user").unwrap(), "alice");
    assert_eq!(sqlstate(&connect("alice", "wonder land").err().unwrap()), "28P01");
}

#[test]
fn an_external_postgres_that_cannot_be_reached_is_3() {
    let port = harness::free_port();
    let url = format!("postgresql://me:hunter2@127.0.0.1:{port}/app");
    let begun = Instant::now();
    let builder = Server::builder().arg("--backend").arg(&url);
    let failure = refuses(builder, 3, &["127.0.0.1", &port.to_string(), "cannot be reached"]);
    assert!(!failure.stderr.contains("hunter2"), "{}", failure.stderr);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

#[test]
fn an_external_postgres_that_refuses_the_system_role_is_3() {
    let plain = PlainPostgres::start();
    let wrong = format!("postgresql://super:wrong@127.0.0.1:{}/postgres", plain.port);
    refuses(Server::builder().arg("--backend").arg(&wrong), 3, &["cannot log in", "super"]);
    plain.connect().value("create role modest login password 'm'").unwrap();
    let modest = format!("postgresql://modest:m@127.0.0.1:{}/postgres", plain.port);
    refuses(Server::builder().arg("--backend").arg(&modest), 3, &["modest", "must be a superuser"]);
}

/// Over TCP a large result gathers in the kernel: neither its end nor what comes slowly may stay
/// there.
#[test]
fn large_results_end_when_they_are_over() {
    let plain = PlainPostgres::start();
    let mut server = Server::builder().arg("--backend").arg(&plain.url()).start();
    server.password = PlainPostgres::PASSWORD.into();
    let fast = "copy (select repeat('x', 100) from generate_series(1, 150000)) to stdout";
    let slow = "copy (select repeat('y', 20000000) union all select pg_sleep(0.3)::text union all \
                select 'slow') to stdout";
    let begun = Instant::now();
    for (sql, last) in [(fast, "x"), (slow, "slow"), (fast, "x")] {
        let mut psql = server.psql_command();
        let output = psql.args(["-U", PlainPostgres::SUPERUSER, "-d", "postgres", "-Atc"]);
        let output = output.arg(sql).args(["-c", "select 'after'"]).output().unwrap();
        let text = stdout(&output);
        assert!(text.ends_with("after\n") && text.contains(last), "{}", stderr(&output));
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
