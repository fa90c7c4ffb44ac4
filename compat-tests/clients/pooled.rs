//! Pooled sessions of PostgreSQL clients: who finds whose state, and who never does.

use std::io::Write;
use std::process::Child;
use std::time::Duration;

use crate::admin::{Row, SOON, table};
use crate::harness::{Psql, Server, eventually, piped};
use crate::lent;
use crate::raw::{V3, Wire, bind, execute, parse, query, startup, sync};

/// A server of its own: what is parked on a shared one depends on the other tests.
fn server(settings: &[&str]) -> Server {
    settings.iter().fold(Server::builder().arg("--insecure"), |b, pair| b.set(pair)).start()
}

/// Start-up options of a class with a purity and a tag.
fn asks(class: &str, purity: &str, tag: &str) -> String {
    format!("-c rustydb.connection_class={class} -c rustydb.purity={purity} -c rustydb.tag={tag}")
}

/// Runs commands, each on its own, as somebody who asks for a pooled session.
fn run_as(server: &Server, role: &str, options: &str, commands: &[&str]) -> Psql {
    let mut psql = server.psql_command();
    psql.args(["-U", role, "-qAt", "-v", "VERBOSITY=verbose"]).env("PGOPTIONS", options);
    commands.iter().for_each(|command| {
        psql.args(["-c", command]);
    });
    psql.output().unwrap().into()
}

/// Lines of what the commands gave; they must succeed.
#[track_caller]
fn run(server: &Server, options: &str, commands: &[&str]) -> Vec<String> {
    let psql = run_as(server, "rustydb", options, commands);
    assert_eq!((psql.code, psql.stderr.as_str()), (Some(0), ""), "{commands:?}");
    psql.stdout.lines().map(str::to_owned).collect()
}

fn class(server: &Server, name: &str) -> Row {
    let mut rows = table(server, "CLASSES").into_iter();
    rows.find(|row| row["class"] == name).unwrap_or_default()
}

fn figure(server: &Server, name: &str, column: &str) -> i64 {
    class(server, name).get(column).map_or(0, |n| n.parse().unwrap())
}

/// Waits until that many sessions of the class are parked, and none is held.
fn until_parked(server: &Server, name: &str, n: i64) {
    eventually(&format!("{n} parked of {name}"), SOON, || {
        figure(server, name, "parked") == n && figure(server, name, "held") == 0
    });
}

/// Leaves a session with a setting, a temporary table and a prepared statement.
fn leave(server: &Server, name: &str, tag: &str) {
    run(
        server,
        &asks(name, "self", tag),
        &[
            "SET work_mem = '7MB'",
            "CREATE TEMP TABLE mine AS SELECT 42 AS answer",
            // Long enough for a look at the connection.
            "\\! sleep 0.3",
            "PREPARE ask AS SELECT answer + 1 FROM mine",
            "SET DateStyle = 'German'",
        ],
    );
    until_parked(server, name, 1);
}

const TABLE: &str = "SELECT to_regclass('mine') IS NOT NULL";

#[test]
fn self_finds_what_the_same_class_has_left() {
    let server = server(&[]);
    leave(&server, "web", "");
    let found = run(
        &server,
        &asks("web", "self", ""),
        &[
            "SHOW rustydb.tag_match",
            "SHOW work_mem",
            "EXECUTE ask",
            "SELECT date '2020-02-01'",
            "SHOW rustydb.connection_class",
            "SHOW application_name",
        ],
    );
    assert_eq!(found, ["exact", "7MB", "43", "01.02.2020", "web", "psql"]);
    until_parked(&server, "web", 1);
    // Each client has its own name, or none.
    let mut nameless = come(&server, "web");
    assert_eq!(nameless.values("SHOW application_name"), [""]);
    assert_eq!(nameless.values("SHOW work_mem"), ["7MB"]);
    drop(nameless);
    until_parked(&server, "web", 1);
    let web = class(&server, "web");
    let counted = ["requests", "hits", "misses", "tag_hits"].map(|column| web[column].as_str());
    assert_eq!(counted, ["3", "2", "1", "2"]);
    server.expect_metric("rustydb_class_sessions{class=\"web\",state=\"parked\"}", 1.0);
    server.expect_metric("rustydb_drcp_requests_total{class=\"web\",result=\"hit\"}", 2.0);
}

#[test]
fn nobody_else_finds_it() {
    let server = server(&[]);
    run(&server, "", &["CREATE ROLE other LOGIN"]);
    leave(&server, "web", "");
    for (role, options) in [
        ("rustydb", String::new()),
        ("rustydb", asks("web", "any", "")),
        ("rustydb", asks("app", "new", "")),
        ("rustydb", asks("app", "self", "")),
        ("rustydb", asks("SHARED", "self", "")),
        ("other", asks("web", "self", "")),
        ("other", asks("web", "any", "")),
    ] {
        let seen = run_as(&server, role, &options, &[TABLE, "SHOW work_mem", "SHOW DateStyle"]);
        assert_eq!(seen.stdout, "f\n4MB\nISO, MDY\n", "{role} {options} {}", seen.stderr);
        let prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'ask'";
        assert_eq!(run_as(&server, role, &options, &[prepared]).stdout, "0\n", "{role} {options}");
    }
    // It was there all the time.
    assert_eq!(run(&server, &asks("web", "self", ""), &[TABLE, "EXECUTE ask"]), ["t", "43"]);
    // A class may park what it had anew.
    eventually("the others have parked theirs", SOON, || figure(&server, "app", "parked") > 1);
}

#[test]
fn the_shared_class_and_a_mode_of_its_own_park_nothing() {
    let server = server(&["pool.users={ by_session = { pooling_mode = \"session\" } }"]);
    run(&server, "", &["CREATE ROLE by_session LOGIN"]);
    run(&server, &asks("shared", "new", ""), &["CREATE TEMP TABLE mine (a int)"]);
    assert_eq!(
        run(&server, &asks("", "self", ""), &[TABLE, "SHOW rustydb.tag_match"]),
        ["f", "none"]
    );
    assert_eq!(figure(&server, "SHARED", "parked"), 0);
    assert_eq!(figure(&server, "SHARED", "requests"), 2);
    // By session, NEW is the default, and a class is enough to park.
    let options = "-c rustydb.connection_class=web";
    let made = run_as(&server, "by_session", options, &["CREATE TEMP TABLE mine (a int)"]);
    assert_eq!(made.stderr, "");
    until_parked(&server, "web", 1);
    assert_eq!(run_as(&server, "by_session", options, &[TABLE]).stdout, "f\n");
    until_parked(&server, "web", 2);
    let found =
        run_as(&server, "by_session", &asks("web", "self", ""), &["SHOW rustydb.tag_match"]);
    assert_eq!(found.stdout, "exact\n");
    // Without a word about it everything is as it was.
    let plain = ["CREATE TEMP TABLE mine (a int)", "SELECT 1"];
    assert_eq!(run_as(&server, "by_session", "", &plain).stderr, "");
    assert_eq!(run_as(&server, "by_session", "", &[TABLE]).stdout, "f\n");
}

#[test]
fn the_tag_tells_sessions_apart() {
    let server = server(&[]);
    for (n, tag) in [(1, "language=en,zone=utc"), (2, "language=de")] {
        let set = format!("SET my.tag = '{tag}'");
        run(&server, &asks("web", "new", tag), &[&set]);
        until_parked(&server, "web", n);
    }
    let find = |tag: &str| {
        let words = ["SHOW rustydb.tag_match", "SHOW rustydb.tag_found", "SHOW rustydb.tag"];
        let mut psql = words.to_vec();
        psql.push("SELECT current_setting('my.tag', true)");
        run(&server, &asks("web", "self", tag), &psql)
    };
    assert_eq!(
        find("zone=utc,language=en"),
        ["exact", "language=en,zone=utc", "zone=utc,language=en", "language=en,zone=utc"]
    );
    until_parked(&server, "web", 2);
    // It is what the client says it is when it releases it.
    let partial = find("language=en,zone=cet");
    assert_eq!(partial[..3], ["partial", "language=en,zone=utc", "language=en,zone=cet"]);
    until_parked(&server, "web", 2);
    assert_eq!(find("language=en,zone=cet")[0], "exact");
    until_parked(&server, "web", 2);
    assert_eq!(find("language=fr")[0], "none");
    until_parked(&server, "web", 3);
    assert_eq!(figure(&server, "web", "tag_hits"), 2);
}

#[test]
fn set_asks_and_releases_too() {
    let server = server(&[]);
    let found = run(
        &server,
        "",
        &[
            "SET rustydb.connection_class = 'web'",
            "SET rustydb.purity TO self",
            "CREATE TEMP TABLE mine AS SELECT 1 AS a",
            "SET work_mem = '9MB'",
            "SET rustydb.tag = 'a=1'",
            "RESET rustydb.purity",
            TABLE,
            "SHOW work_mem",
            "SET rustydb.purity = 'self'",
            TABLE,
            "SHOW rustydb.tag_match",
            "SHOW rustydb.purity",
            // Another class: what is held goes back first.
            "SET rustydb.connection_class = 'app'",
            TABLE,
            "SHOW rustydb.tag_match",
            "SET rustydb.connection_class = 'web'",
            TABLE,
            "SET rustydb.purity = 'nonsense'",
            "SHOW rustydb.purity",
            TABLE,
        ],
    );
    assert_eq!(found, ["f", "4MB", "t", "exact", "self", "f", "none", "t", "nonsense", "f"]);
    until_parked(&server, "app", 1);
    until_parked(&server, "web", 1);
}

#[test]
fn it_is_got_while_the_database_is_read_for_the_first_time() {
    let server = server(&[]);
    let lock = "BEGIN; LOCK pg_trigger IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.7)";
    let mut reader = server.direct_psql_command().args(["-qAtc", lock]).spawn().unwrap();
    let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                 AND relation = 'pg_trigger'::regclass";
    eventually("it is locked", SOON, || server.direct_value(locks) == "1");
    // What it does first might leave something behind, as nothing is known of its names.
    let asked = [TABLE, "SET rustydb.purity = 'self'", "SHOW rustydb.tag_match"];
    assert_eq!(run(&server, "", &asked), ["f", "none"]);
    assert!(reader.wait().unwrap().success());
}

#[test]
fn discard_all_takes_the_tag_with_the_state() {
    let server = server(&[]);
    let options = asks("web", "self", "a=1");
    run(&server, &options, &["CREATE TEMP TABLE mine (a int)", "DISCARD ALL", "SELECT 1"]);
    until_parked(&server, "web", 1);
    let found = run(&server, &options, &["SHOW rustydb.tag_match", TABLE]);
    assert_eq!(found, ["none", "f"]);
}

#[test]
fn what_would_hold_up_others_is_not_parked() {
    let server = server(&[]);
    run(&server, "", &["CREATE ROLE weak", "CREATE TABLE t AS SELECT 1 AS a"]);
    run(
        &server,
        &asks("web", "self", ""),
        &[
            "SELECT pg_advisory_lock(7)",
            "LISTEN ch",
            "SET ROLE weak",
            "SET work_mem = '7MB'",
            "RESET ROLE",
            "BEGIN",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "COMMIT",
            "SET SESSION AUTHORIZATION weak",
        ],
    );
    until_parked(&server, "web", 1);
    let found = run(
        &server,
        &asks("web", "self", ""),
        &[
            "SHOW work_mem",
            "SELECT current_user, session_user",
            "SELECT count(*) FROM pg_cursors",
            "SELECT count(*) FROM pg_listening_channels()",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        ],
    );
    assert_eq!(found, ["7MB", "rustydb|rustydb", "0", "0", "0"]);
    // Nor is a transaction that was left open.
    run(
        &server,
        &asks("tx", "self", ""),
        &["BEGIN", "CREATE TEMP TABLE mine (a int)", "DELETE FROM t"],
    );
    until_parked(&server, "tx", 1);
    assert_eq!(run(&server, "", &["SELECT count(*) FROM t"]), ["1"]);
    let found = run(&server, &asks("tx", "self", ""), &["SHOW rustydb.tag_match", TABLE]);
    assert_eq!(found, ["exact", "f"]);
}

/// A `psql` that stays and asks for a pooled session.
fn staying(server: &Server, options: &str) -> Child {
    let mut psql = server.psql_command();
    piped(psql.args(["-qAt", "-v", "VERBOSITY=verbose"]).env("PGOPTIONS", options))
}

fn tell(psql: &mut Child, script: &str) {
    psql.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
}

#[test]
fn who_thinks_for_too_long_loses_it_and_is_told() {
    let server = server(&["session.drcp.max_think_time_secs=1"]);
    open_table(&server);
    let mut psql = staying(&server, &asks("web", "self", ""));
    tell(&mut psql, "CREATE TEMP TABLE mine (a int);\nBEGIN;\nDELETE FROM t;\n");
    eventually("it is held", SOON, || figure(&server, "web", "held") == 1);
    eventually("it is taken away", SOON, || figure(&server, "web", "held") == 0);
    assert_eq!(figure(&server, "web", "taken_away"), 1);
    eventually("nothing is lent", SOON, || lent(&server) == 0.0);
    assert_eq!(figure(&server, "web", "parked"), 0);
    assert_eq!(run(&server, "", &["SELECT count(*) FROM t"]), ["1"]);
    // What comes next was meant for its transaction.
    tell(&mut psql, "DELETE FROM t;\nCOMMIT;\n");
    let said = Psql::from(psql.wait_with_output().unwrap());
    let text = "FATAL:  25P03: the pooled session was taken away";
    assert!(said.stderr.contains(text), "{}", said.stderr);
    assert_eq!(run(&server, "", &["SELECT count(*) FROM t"]), ["1"]);
    // Outside of a transaction it may go on.
    let mut psql = staying(&server, &asks("web", "self", ""));
    tell(&mut psql, "CREATE TEMP TABLE mine (a int);\n");
    eventually("it is taken away, too", SOON, || figure(&server, "web", "taken_away") == 2);
    tell(&mut psql, &format!("SELECT 1;\n{TABLE};\nSHOW rustydb.purity;\n"));
    let said = Psql::from(psql.wait_with_output().unwrap());
    assert!(said.stderr.contains("57P05: the pooled session was taken away"), "{}", said.stderr);
    assert_eq!(said.stderr.matches("ERROR").count(), 1, "{}", said.stderr);
    assert!(said.stdout.ends_with("f\nself\n"), "{}", said.stdout);
}

#[test]
fn what_is_done_behind_the_end_is_nobodys() {
    let server = server(&[]);
    for (at, behind) in [
        "SET rustydb.connection_class = 'app'; CREATE TEMP TABLE mine (a int)",
        "BEGIN; SET rustydb.purity = 'any'; CREATE TEMP TABLE mine (a int); COMMIT",
        "BEGIN; SET rustydb.connection_class = 'app'; SET work_mem = '9MB'; COMMIT",
        "SELECT set_config('rustydb.connection_class', 'app', false); \
         CREATE TEMP TABLE mine (a int)",
        "BEGIN; SELECT set_config('rustydb.purity', 'any', false); SET work_mem = '9MB'; COMMIT",
    ]
    .into_iter()
    .enumerate()
    {
        let class = format!("c{at}");
        run(&server, &asks(&class, "self", ""), &["SET my.own = 'x'", behind]);
        eventually("it is over", SOON, || {
            lent(&server) == 0.0 && figure(&server, &class, "held") == 0
        });
        let found = ["SHOW rustydb.tag_match", TABLE, "SHOW work_mem"];
        assert_eq!(
            run(&server, &asks(&class, "self", ""), &found),
            ["none", "f", "4MB"],
            "{behind}"
        );
    }
    // In one write, before the end is known.
    let mut wire = Wire::to(&server);
    let fields: [&[u8]; 6] = [
        b"user",
        b"rustydb",
        b"database",
        b"rustydb",
        b"options",
        b"-c rustydb.purity=self -c rustydb.connection_class=pipe",
    ];
    wire.send(&startup(V3, &fields));
    wire.until(b'Z');
    wire.values("SET my.own = 'x'");
    let both = ["SET rustydb.connection_class = 'app'", "CREATE TEMP TABLE mine (a int)"];
    wire.send(&both.map(query).concat());
    both.iter().for_each(|_| drop(wire.until(b'Z')));
    drop(wire);
    eventually("it is over, too", SOON, || lent(&server) == 0.0);
    let found = run(&server, &asks("pipe", "self", ""), &["SHOW rustydb.tag_match", TABLE]);
    assert_eq!(found, ["none", "f"]);
}

#[test]
fn functions_ask_and_release_too() {
    let server = server(&[]);
    let asks = "SELECT set_config('rustydb.connection_class', 'web', false), \
                set_config('rustydb.purity', 'self', false)";
    let releases = "SELECT set_config('rustydb.purity', 'any', false)";
    // None of them waits for the one before to be noticed.
    let make = "CREATE TEMP TABLE mine AS SELECT 42 AS answer";
    let said = run(&server, "", &[asks, make, "SELECT answer FROM mine", releases, TABLE]);
    assert_eq!(said, ["web|self", "42", "any", "f"]);
    until_parked(&server, "web", 1);
    assert_eq!(run(&server, "", &[asks, "SELECT answer FROM mine"]), ["web|self", "42"]);
}

#[test]
fn what_was_reset_or_taken_back_is_no_class() {
    let server = server(&[]);
    for before in [
        "SET rustydb.connection_class = 'x'; RESET rustydb.connection_class",
        "BEGIN; SET LOCAL rustydb.connection_class = 'x'; COMMIT",
        "BEGIN; SET rustydb.connection_class = 'x'; ROLLBACK",
        "SELECT set_config('rustydb.connection_class', 'x', true)",
    ] {
        let said = run(
            &server,
            "",
            &[
                before,
                "SET rustydb.purity = 'self'",
                "SET work_mem = '9MB'",
                "SET my.s = '1'",
                "SHOW work_mem",
            ],
        );
        assert_eq!(said.last().map(String::as_str), Some("9MB"), "{before}");
        let found = ["SET rustydb.purity = 'self'", "SHOW work_mem"];
        assert_eq!(run(&server, "", &found), ["4MB"], "{before}");
    }
    assert!(!table(&server, "CLASSES").iter().any(|row| row["class"] == "default"));
}

#[test]
fn what_functions_set_is_found_with_its_tag() {
    let server = server(&[]);
    let make = "CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS \
                $$BEGIN SET work_mem = '9MB'; PERFORM set_config('my.lang', 'de', false); END$$";
    run(&server, "", &[make]);
    run(&server, &asks("web", "self", "lang=de"), &["SELECT make()"]);
    until_parked(&server, "web", 1);
    let found = ["SHOW rustydb.tag_match", "SHOW work_mem", "SHOW my.lang"];
    assert_eq!(run(&server, &asks("web", "self", "lang=de"), &found), ["exact", "9MB", "de"]);
    until_parked(&server, "web", 1);
    // Nobody else.
    let others = ["SHOW work_mem", "SELECT coalesce(current_setting('my.lang', true), '')"];
    for _ in 0..3 {
        assert_eq!(run(&server, "", &others), ["4MB", ""]);
    }
}

#[test]
fn the_last_values_of_sequences_give_way_to_it() {
    let server = server(&[]);
    run(&server, "", &["CREATE SEQUENCE sq"]);
    let mut psql = staying(&server, "");
    tell(&mut psql, "SELECT nextval('sq'), setseed(0.5);\n");
    std::thread::sleep(Duration::from_millis(300));
    tell(&mut psql, "SET rustydb.purity = 'self';\nSHOW rustydb.tag_match;\n");
    let said = Psql::from(psql.wait_with_output().unwrap());
    assert!(said.stderr.is_empty() && said.stdout.ends_with("none\n"), "{said:?}");
}

fn open_table(server: &Server) {
    run(server, "", &["CREATE TABLE t AS SELECT 1 AS a"]);
}

#[test]
fn who_works_is_left_alone() {
    let server = server(&["session.drcp.max_think_time_secs=1"]);
    let mut psql = staying(&server, &asks("web", "self", ""));
    tell(&mut psql, "CREATE TEMP TABLE mine (a int);\n");
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(300));
        tell(&mut psql, "INSERT INTO mine VALUES (1);\n");
    }
    tell(&mut psql, "SELECT pg_sleep(2.5);\nSELECT count(*) FROM mine;\n");
    let said = Psql::from(psql.wait_with_output().unwrap());
    assert!(said.stderr.is_empty() && said.stdout.ends_with("\n8\n"), "{said:?}");
}

#[test]
fn when_the_pool_is_full_what_is_parked_goes_to_who_waits() {
    let server = server(&["pool.max_size=2", "pool.min_size=0", "pool.acquire_timeout_secs=5"]);
    run(&server, "", &["CREATE ROLE other LOGIN"]);
    leave(&server, "web", "");
    run(&server, &asks("app", "self", ""), &["CREATE TEMP TABLE mine (a int)"]);
    until_parked(&server, "app", 1);
    // Of the same role: reset. Of another: closed, and a new one made.
    assert_eq!(run(&server, "", &[TABLE, "SHOW work_mem"]), ["f", "4MB"]);
    let other = run_as(&server, "other", "", &[TABLE, "SHOW work_mem"]);
    assert_eq!((other.stdout.as_str(), other.stderr.as_str()), ("f\n4MB\n", ""));
    let parked = figure(&server, "web", "parked") + figure(&server, "app", "parked");
    assert!(parked < 2, "{parked}");
    // With one held, the other is there for everybody.
    let mut psql = staying(&server, &asks("web", "self", ""));
    tell(&mut psql, "SELECT 1;\n");
    eventually("it is held", SOON, || figure(&server, "web", "held") == 1);
    assert_eq!(run_as(&server, "other", "", &["SELECT 1"]).stdout, "1\n");
    assert_eq!(run(&server, "", &["SELECT 1"]), ["1"]);
    drop(psql.stdin.take());
    psql.wait().unwrap();
}

#[test]
fn the_number_of_pooled_sessions_and_their_uses_are_limited() {
    let server = server(&[
        "session.drcp.max_size=1",
        "session.drcp.max_use_session=2",
        "pool.acquire_timeout_secs=1",
    ]);
    let mut psql = staying(&server, &asks("web", "self", ""));
    tell(&mut psql, "CREATE TEMP TABLE mine (a int);\n");
    eventually("it is held", SOON, || figure(&server, "web", "held") == 1);
    let refused = run_as(&server, "rustydb", &asks("app", "self", ""), &["SELECT 1"]);
    assert!(refused.stderr.contains("53300: no pooled session was free"), "{}", refused.stderr);
    assert!(refused.stderr.contains("session.drcp.max_size"), "{}", refused.stderr);
    assert_eq!((figure(&server, "app", "timeouts"), figure(&server, "app", "waits")), (1, 1));
    assert_eq!(run(&server, "", &["SELECT 1"]), ["1"]);
    drop(psql.stdin.take());
    psql.wait().unwrap();
    until_parked(&server, "web", 1);
    // The second use is its last.
    assert_eq!(run(&server, &asks("web", "self", ""), &[TABLE]), ["t"]);
    until_parked(&server, "web", 0);
    assert_eq!(run(&server, &asks("web", "self", ""), &[TABLE]), ["f"]);
    until_parked(&server, "web", 1);
    // Another class takes the only place.
    assert_eq!(run(&server, &asks("app", "self", ""), &[TABLE]), ["f"]);
    until_parked(&server, "app", 1);
    assert_eq!(figure(&server, "web", "parked"), 0);
}

#[test]
fn a_backend_that_is_killed_while_it_is_parked_is_not_handed_out() {
    let server = server(&[]);
    let options = asks("web", "self", "");
    let pid =
        run(&server, &options, &["CREATE TEMP TABLE mine (a int)", "SELECT pg_backend_pid()"]);
    until_parked(&server, "web", 1);
    let kill = format!("SELECT pg_terminate_backend({})", pid.last().unwrap());
    assert_eq!(server.direct_value(&kill), "t");
    eventually("it is gone", SOON, || {
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", pid.last().unwrap());
        server.direct_value(&sql) == "0"
    });
    let found = run(&server, &options, &["SHOW rustydb.tag_match", TABLE]);
    assert_eq!(found, ["none", "f"]);
}

#[test]
fn what_nobody_takes_is_closed_and_so_is_what_an_administrator_reaches() {
    let server = server(&["session.drcp.inactivity_timeout_secs=1"]);
    leave(&server, "web", "");
    until_parked(&server, "web", 0);
    let server = self::server(&[]);
    leave(&server, "web", "");
    run(&server, "", &["CREATE DATABASE d", "DROP DATABASE d"]);
    until_parked(&server, "web", 0);
    leave(&server, "web", "");
    // A reload takes away nothing; a change of the role does.
    run(&server, "", &["ALTER ROLE rustydb SET geqo = off"]);
    until_parked(&server, "web", 0);
}

#[test]
fn what_makes_no_sense_is_refused_at_the_log_in_and_disabled_it_is_only_a_setting() {
    let server = server(&[]);
    let long = "x".repeat(129);
    for (options, name) in [
        ("-c rustydb.purity=clean", "rustydb.purity"),
        ("-c rustydb.tag=nonsense", "rustydb.tag"),
        (&format!("-c rustydb.connection_class={long}"), "rustydb.connection_class"),
    ] {
        let refused = run_as(&server, "rustydb", options, &["SELECT 1"]);
        let text = format!("invalid value for parameter \"{name}\"");
        assert!(refused.stderr.contains(&text), "{}", refused.stderr);
    }
    let server = self::server(&["session.drcp.enabled=false"]);
    let options = asks("web", "self", "");
    assert_eq!(run(&server, &options, &["SHOW rustydb.purity"]), ["self"]);
    run(&server, &options, &["CREATE TEMP TABLE mine (a int)"]);
    assert_eq!(run(&server, &options, &[TABLE]), ["f"]);
    assert!(table(&server, "CLASSES").is_empty());
}

/// A client that is called nothing and wants the state of the class.
fn come(server: &Server, class: &str) -> Wire {
    let mut wire = Wire::to(server);
    let own: [&[u8]; 4] = [b"user", b"rustydb", b"database", b"rustydb"];
    let asks: [&[u8]; 4] =
        [b"rustydb.connection_class", class.as_bytes(), b"rustydb.purity", b"self"];
    wire.send(&startup(V3, &[own, asks].concat()));
    wire.until(b'Z');
    wire
}

#[test]
fn prepared_statements_of_the_protocol_are_found_too() {
    let server = server(&[]);
    let mut first = come(&server, "web");
    first.send(&[parse("s1", "SELECT 6 * 7", &[]), sync()].concat());
    first.until(b'Z');
    drop(first);
    until_parked(&server, "web", 1);
    let mut second = come(&server, "web");
    let run = [bind("", "s1", &[], (0, 0)), execute("", 0), sync()].concat();
    second.send(&run);
    let row = second.until(b'Z').into_iter().find(|message| message.0 == b'D').unwrap();
    assert!(row.1.ends_with(b"42"), "{row:?}");
    // One that it prepares itself is as good as ever, and the name is taken.
    second.send(&[parse("s1", "SELECT 1", &[]), sync()].concat());
    assert!(second.until(b'Z').iter().any(|message| message.0 == b'E'));
    drop(second);
    until_parked(&server, "web", 1);
    let mut other = Wire::to(&server).ready();
    other.send(&run);
    assert!(other.until(b'Z').iter().any(|message| message.0 == b'E'));
}

#[test]
fn the_client_is_told_of_the_parameters_of_what_it_gets_and_what_it_leaves() {
    let server = server(&[]);
    leave(&server, "web", "");
    let mut wire = come(&server, "web");
    let mut told = |sql: &str| -> Vec<String> {
        wire.send(&query(sql));
        let messages = wire.until(b'Z');
        let dates = messages.into_iter().filter(|m| m.0 == b'S' && m.1.starts_with(b"DateStyle"));
        dates.map(|m| String::from_utf8_lossy(&m.1[10..m.1.len() - 1]).into_owned()).collect()
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(told("SELECT 1"), ["German, DMY"]);
    assert_eq!(told("SET rustydb.purity = 'any'"), none);
    assert_eq!(told("SELECT 1"), ["ISO, MDY"]);
    assert_eq!(told("SET rustydb.purity = 'self'"), none);
    assert_eq!(told("SELECT 1"), ["German, DMY"]);
}
