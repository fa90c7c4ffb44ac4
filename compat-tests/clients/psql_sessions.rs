//! Logging in with `psql`, being refused, interrupting, being killed.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Psql, Server, feed, piped, signal_process};
use crate::{guarded, running, wait_until_gone, wait_until_running};

/// `psql` as somebody else.
fn psql_as(server: &Server, role: &str, password: &str, database: &str, script: &str) -> Psql {
    let mut command = server.psql_command();
    command.args(["-At", "-U", role, "-d", database]).env("PGPASSWORD", password);
    feed(&mut command, script).into()
}

#[test]
fn a_refused_log_in_says_why() {
    let server = guarded();
    let setup = server.psql(
        "create role in_nologin password 'pw'; create role in_plain login password 'pw';
         create role in_bare login; 
         create role in_past login password 'pw' valid until '2020-01-01';
         create role in_locked login password 'pw'; create database in_closed;
         revoke connect on database in_closed from public;
         create database in_off allow_connections false;
         create role in_limited login password 'pw' connection limit 0;",
    );
    assert_eq!(setup.stderr, "");
    let check = |role: &str, password: &str, database: &str, fatal: &str| {
        let psql = psql_as(server, role, password, database, "select 1;");
        assert_eq!((psql.stdout.as_str(), psql.code), ("", Some(2)), "{role} {database}");
        let said = psql.stderr.split_once("FATAL:  ").map_or(psql.stderr.as_str(), |s| s.1);
        assert_eq!(said.trim_end(), fatal, "{role} {database}");
    };
    let wrong = |role: &str| format!("password authentication failed for user \"{role}\"");
    check("in_plain", "pw", "nothere", "database \"nothere\" does not exist");
    check("in_plain", "wrong", "rustydb", &wrong("in_plain"));
    check("in_nobody", "pw", "rustydb", &wrong("in_nobody"));
    check("in_bare", "pw", "rustydb", &wrong("in_bare"));
    check("in_past", "pw", "rustydb", &wrong("in_past"));
    check("in_nologin", "wrong", "rustydb", &wrong("in_nologin"));
    check("in_nologin", "pw", "rustydb", "role \"in_nologin\" is not permitted to log in");
    check(
        "in_plain",
        "pw",
        "in_closed",
        "permission denied for database \"in_closed\"\n\
         DETAIL:  User does not have CONNECT privilege.",
    );
    check("in_plain", "pw", "in_off", "database \"in_off\" is not currently accepting connections");
    check("in_limited", "pw", "rustydb", "too many connections for role \"in_limited\"");
    let psql = psql_as(server, "in_plain", "pw", "rustydb", "select session_user;");
    assert_eq!((psql.stdout.as_str(), psql.stderr.as_str()), ("in_plain\n", ""));
    let mut bad_option = server.psql_command();
    bad_option.env("PGOPTIONS", "-c nosuch=1");
    let psql = Psql::from(feed(&mut bad_option, ""));
    let text = "FATAL:  unrecognized configuration parameter \"nosuch\"";
    assert!(psql.stderr.contains(text), "{}", psql.stderr);
}

#[test]
fn a_new_password_works_at_once_and_the_old_one_no_more() {
    let server = guarded();
    let changes = [("first", "create"), ("second", "alter"), ("third", "alter")];
    let mut before = None;
    for (password, verb) in changes {
        server.psql(&format!("{verb} role in_changing login password '{password}';"));
        let psql = psql_as(server, "in_changing", password, "rustydb", "select 'in';");
        assert_eq!(psql.stdout, "in\n", "{}", psql.stderr);
        if let Some(before) = before {
            let psql = psql_as(server, "in_changing", before, "rustydb", "select 'in';");
            assert!(psql.stderr.contains("password authentication failed"), "{}", psql.stderr);
        }
        before = Some(password);
    }
}

#[test]
fn psql_comes_in_through_the_unix_socket() {
    let server = guarded();
    let mut command = server.psql_command();
    command.arg("-At").arg("-h").arg(&server.socket_dir);
    let psql = Psql::from(feed(&mut command, "select 'hello';"));
    assert_eq!((psql.stdout.as_str(), psql.stderr.as_str()), ("hello\n", ""));
    let mut command = server.psql_command();
    command.arg("-h").arg(&server.socket_dir).env("PGPASSWORD", "wrong");
    let psql = Psql::from(feed(&mut command, "select 'hello';"));
    assert!(psql.stderr.contains("password authentication failed"), "{}", psql.stderr);
}

#[test]
fn ctrl_c_cancels_the_statement_and_the_session_goes_on() {
    let server = guarded();
    // psql goes on after an interrupt only on a terminal; `script` gives it one.
    let line =
        format!("psql -XAtn -P pager=off -h 127.0.0.1 -p {} -U rustydb -d rustydb", server.port);
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env("PGPASSWORD", &server.password)
        .env("TERM", "dumb");
    let mut child = piped(&mut command);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"create temp table kept (a int);\n").unwrap();
    stdin.write_all(b"select pg_sleep(100) as ctrl_c_one;\n").unwrap();
    wait_until_running(server, "ctrl_c_one");
    let begun = Instant::now();
    stdin.write_all(b"\x03").unwrap();
    wait_until_gone(server, "ctrl_c_one");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Idle now: an interrupt must not reach the next statement.
    stdin.write_all(b"select 'still ' || count(*) || ' here' from kept;\n").unwrap();
    stdin.write_all(b"\\q\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("canceling statement due to user request"), "{text}");
    assert!(text.contains("still 0 here"), "{text}");
}

#[test]
fn an_interrupted_script_is_told_so() {
    let server = guarded();
    let mut command = server.psql_command();
    command.args(["-c", "select pg_sleep(100) as ctrl_c_two"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until_running(server, "ctrl_c_two");
    signal_process(child.id() as i32, "INT");
    let begun = Instant::now();
    let psql = Psql::from(child.wait_with_output().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(psql.stderr.contains("canceling statement due to user request"), "{psql:?}");
}

#[test]
fn the_statement_of_a_killed_psql_is_stopped() {
    let server = guarded();
    for sql in [
        "select pg_sleep(100) as killed_one",
        "begin; select pg_sleep(100) as killed_two; commit",
        "do $$ begin loop perform 1 as killed_three; end loop; end $$",
    ] {
        let marker =
            sql.split_once("killed_").map(|(_, rest)| rest.split([' ', ';']).next()).unwrap();
        let marker = format!("killed_{}", marker.unwrap());
        let mut command = server.psql_command();
        let mut child = command.args(["-c", sql]).stderr(Stdio::null()).spawn().unwrap();
        wait_until_running(server, &marker);
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until_gone(server, &marker);
    }
}

#[test]
fn an_administrator_can_end_a_backend_and_the_client_is_told() {
    let server = guarded();
    let mut command = server.psql_command();
    command.args(["-c", "select pg_sleep(100) as terminated"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until_running(server, "terminated");
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
        where query like '%as terminated' and state = 'active'";
    assert_eq!(server.direct_value(sql), "t");
    let psql = Psql::from(child.wait_with_output().unwrap());
    let text = "FATAL:  terminating connection due to administrator command";
    assert!(psql.stderr.contains(text), "{psql:?}");
    assert_eq!(running(server, "as terminated"), 0);
    assert_eq!(server.psql("\\t\nselect 'next';").stdout, "Tuples only is on.\n next\n\n");
}
