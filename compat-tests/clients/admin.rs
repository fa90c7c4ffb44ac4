//! The administrator's console: what it shows, what it does, and who may come in.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use crate::harness::SOON;
use crate::harness::{Psql, Server, eventually, feed, piped};
use crate::raw::{
    Wire, about, bind, execute, extended, field, parse, query, render, startup, sync,
};
use crate::{guarded, open};

/// A row of a table of the console, by column.
pub type Row = HashMap<String, String>;

/// Runs commands in the console as somebody.
pub fn console_as(server: &Server, role: &str, password: &str, commands: &[&str]) -> Psql {
    let mut psql = server.psql_command();
    psql.args(["-d", "rustydb_admin", "-U", role, "-At", "-v", "VERBOSITY=verbose"]);
    psql.env("PGPASSWORD", password);
    commands.iter().for_each(|command| {
        psql.args(["-c", command]);
    });
    psql.output().unwrap().into()
}

/// One command as the administrator; it must succeed.
#[track_caller]
fn console(server: &Server, command: &str) -> String {
    let psql = console_as(server, "rustydb", &server.password, &[command]);
    assert_eq!((psql.code, psql.stderr.as_str()), (Some(0), ""), "{command}");
    psql.stdout
}

/// A table of the console, one map from column to value for each row.
pub fn table(server: &Server, what: &str) -> Vec<Row> {
    let mut psql = server.psql_command();
    psql.args(["-d", "rustydb_admin", "-A", "-P", "footer=off", "-c", &format!("SHOW {what}")]);
    let output = Psql::from(psql.output().unwrap());
    assert_eq!(output.stderr, "");
    let mut lines = output.stdout.lines();
    let header: Vec<&str> = lines.next().unwrap().split('|').collect();
    let row = |line: &str| {
        let values = line.split('|').map(str::to_owned);
        header.iter().map(|name| (*name).to_owned()).zip(values).collect()
    };
    lines.map(row).collect()
}

/// A `psql` that stays, with a name of its own.
pub fn staying(server: &Server, name: &str) -> Child {
    let mut psql = server.psql_command();
    piped(psql.args(["-At", "-v", "VERBOSITY=verbose"]).env("PGAPPNAME", name))
}

pub fn say(child: &mut Child, script: &str) {
    child.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
}

/// Reads a line of its output, without the end of the line. A child that says nothing is killed.
pub fn line(child: &mut Child) -> String {
    let (pid, done) = (child.id() as i32, Arc::new(AtomicBool::new(false)));
    let seen = done.clone();
    std::thread::spawn(move || {
        std::thread::sleep(SOON);
        if !seen.load(Ordering::Relaxed) {
            crate::harness::signal_process(pid, "KILL");
        }
    });
    let (mut line, mut byte) = (String::new(), [0]);
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0] as char);
    }
    done.store(true, Ordering::Relaxed);
    line
}

/// A client in a transaction, and the process of its backend.
fn holder(server: &Server, name: &str) -> (Child, String) {
    let mut holder = staying(server, name);
    say(&mut holder, "begin; select pg_backend_pid();\n");
    assert_eq!(line(&mut holder), "BEGIN");
    let pid = line(&mut holder);
    (holder, pid)
}

pub fn leave(mut child: Child) {
    say(&mut child, "\\q\n");
    child.wait().unwrap();
}

pub fn row_of<'a>(rows: &'a [Row], column: &str, value: &str) -> &'a Row {
    let found = rows.iter().find(|row| row[column] == value);
    found.unwrap_or_else(|| panic!("no {column} is {value}: {rows:?}"))
}

/// What PgBouncer tells of a connection, of either side.
const CONNECTIONS: &str = "type user database state addr port local_addr local_port connect_time \
                           request_time wait wait_us close_needed ptr link remote_pid tls \
                           application_name";

#[test]
fn the_tables_have_the_columns_that_pgbouncer_has() {
    let server = guarded();
    let header = |what: &str| {
        let mut psql = server.psql_command();
        let show = format!("SHOW {what}");
        psql.args(["-d", "rustydb_admin", "-A", "-F", " ", "-P", "footer=off", "-c", &show]);
        let psql = Psql::from(psql.output().unwrap());
        psql.stdout.lines().next().unwrap_or_else(|| panic!("{}", psql.stderr)).to_owned()
    };
    for (what, columns) in [
        (
            "POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req \
             sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login \
             maxwait maxwait_us pool_mode",
        ),
        (
            "STATS",
            "database total_xact_count total_query_count total_received total_sent \
             total_xact_time total_query_time total_wait_time avg_xact_count avg_query_count \
             avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time",
        ),
        (
            "STATS_TOTALS",
            "database xact_count query_count bytes_received bytes_sent xact_time query_time \
             wait_time",
        ),
        ("CLIENTS", CONNECTIONS),
        ("SERVERS", CONNECTIONS),
        ("DATABASES", "name host port database force_user pool_size min_pool_size"),
        ("LISTS", "list items"),
        ("MEM", "name size used free memtotal"),
        ("CONFIG", "key value default changeable"),
        ("USERS", "name pool_mode"),
        ("STATE", "key value"),
        ("VERSION", "version"),
    ] {
        let header = header(what);
        assert!(header.starts_with(columns), "SHOW {what}: {header}");
    }
    let version = console(server, "show version;");
    assert_eq!(version, format!("RustyDB {}\n", env!("CARGO_PKG_VERSION")));
    assert!(console(server, "SHOW LISTS").contains("used_clients|"));
    assert!(console(server, "HELP").contains("KILL_CLIENT id"));
    let config = table(server, "CONFIG");
    let size = row_of(&config, "key", "pool.max_size");
    assert_eq!(
        (&*size["value"], &*size["changeable"], &*size["source"]),
        ("100", "yes", "default")
    );
    assert_eq!(row_of(&config, "key", "network.port")["changeable"], "no");
}

#[test]
fn clients_and_servers_are_shown_with_what_they_do() {
    let server = guarded();
    let (child, pid) = holder(server, "shown-holder");
    let clients = table(server, "CLIENTS");
    let client = row_of(&clients, "application_name", "shown-holder");
    assert_eq!((&*client["user"], &*client["database"]), ("rustydb", "rustydb"));
    assert_eq!((&*client["state"], &*client["backend_pid"]), ("active", &*pid));
    let own_port = server.port.to_string();
    assert_eq!((&*client["local_addr"], &*client["local_port"]), ("127.0.0.1", &*own_port));
    assert_eq!((&*client["addr"], &*client["query_count"]), ("127.0.0.1", "2"));
    assert!(client["port"].parse::<u16>().unwrap() > 0);
    for column in ["connect_time", "xact_start"] {
        assert!(client[column].ends_with(" UTC"), "{client:?}");
    }
    assert_eq!(client["request_time"], "", "no request is in work");
    let servers = table(server, "SERVERS");
    let held = row_of(&servers, "remote_pid", &pid);
    assert_eq!((&*held["state"], &*held["link"]), ("active", &*client["ptr"]));
    assert_eq!((&*held["application_name"], &*client["link"]), ("shown-holder", &*held["ptr"]));
    // The embedded server listens on a Unix socket.
    assert_eq!((&*held["addr"], &*held["local_addr"], &*held["port"]), ("unix", "unix", "5432"));
    let pools = table(server, "POOLS");
    let pool = pools.iter().find(|row| row["database"] == "rustydb" && row["user"] == "rustydb");
    assert!(pool.unwrap()["sv_active"].parse::<u32>().unwrap() >= 1, "{pools:?}");
    // The console is a client too.
    assert!(clients.iter().any(|row| row["database"] == "rustydb_admin"), "{clients:?}");
    let databases = table(server, "DATABASES");
    let count = &row_of(&databases, "name", "rustydb")["current_client_connections"];
    assert!(count.parse::<u32>().unwrap() >= 1, "{databases:?}");
    leave(child);
    // The operating system knows the process at the other end of a Unix socket.
    let mut local = server.psql_command();
    local.arg("-h").arg(&server.socket_dir).env("PGAPPNAME", "shown-local");
    let mut local = piped(local.arg("-At"));
    say(&mut local, "select 'inside';\n");
    assert_eq!(line(&mut local), "inside");
    let clients = table(server, "CLIENTS");
    let client = row_of(&clients, "application_name", "shown-local");
    assert_eq!((&*client["addr"], &*client["local_addr"]), ("unix", "unix"));
    assert_eq!((&*client["port"], &*client["local_port"]), (&*own_port, &*own_port));
    let program = std::fs::read_to_string(format!("/proc/{}/comm", client["remote_pid"])).unwrap();
    assert_eq!(program, "psql\n");
    leave(local);
}

#[test]
fn only_administrators_come_in_and_watchers_change_nothing() {
    let server =
        Server::builder().set("admin.users=boss").set("admin.stats_users=watcher,other").start();
    let roles = server.psql(
        "create role boss login password 'pw'; create role watcher login password 'pw';
         create role joe login password 'pw';",
    );
    assert_eq!(roles.stderr, "");
    let joe = console_as(&server, "joe", "pw", &["SHOW POOLS"]);
    assert_eq!((joe.stdout.as_str(), joe.code), ("", Some(2)));
    let denied = "FATAL:  permission denied for database \"rustydb_admin\"\nHINT:  log in as a \
                  superuser";
    assert!(joe.stderr.contains(denied), "{}", joe.stderr);
    let wrong = console_as(&server, "rustydb", "wrong", &["SHOW POOLS"]);
    assert!(wrong.stderr.contains("password authentication failed"), "{}", wrong.stderr);
    let nobody = console_as(&server, "nobody", "pw", &["SHOW POOLS"]);
    assert!(nobody.stderr.contains("password authentication failed"), "{}", nobody.stderr);

    let watcher = console_as(&server, "watcher", "pw", &["SHOW STATE"]);
    assert!(watcher.stdout.contains("paused|no"), "{}", watcher.stderr);
    for command in [
        "PAUSE",
        "RESUME",
        "RECONNECT",
        "KILL joe",
        "SET pool.max_size = 1",
        "RELOAD",
        "DRAIN",
        "SHUTDOWN",
    ] {
        let watcher = console_as(&server, "watcher", "pw", &[command]);
        let (state, hint) = ("ERROR:  42501: permission denied", "HINT:  log in as a superuser");
        assert!(watcher.stderr.contains(state), "{command}: {}", watcher.stderr);
        assert!(watcher.stderr.contains(hint), "{command}: {}", watcher.stderr);
        let boss = console_as(&server, "boss", "pw", &["SHOW STATE"]);
        assert!(boss.stdout.contains("active|yes\npaused|no"), "{command}: {}", boss.stdout);
    }
    assert_eq!(console_as(&server, "boss", "pw", &["RECONNECT"]).stdout, "RECONNECT\n");
}

#[test]
fn unknown_commands_are_told_the_known_ones() {
    let server = guarded();
    let said = |command: &str| {
        let psql = console_as(server, "rustydb", &server.password, &[command]);
        assert_eq!(psql.code, Some(1), "{command}");
        psql.stderr
    };
    let select = said("select 1");
    assert!(select.starts_with("ERROR:  42601: the administration console does not"), "{select}");
    assert!(select.contains("HINT:  it knows: SHOW what; PAUSE [database];"), "{select}");
    let show = said("SHOW EVERYTHING");
    assert!(show.contains("HINT:  SHOW knows: CLASSES, CLIENTS,"), "{show}");
    let descriptors = said("SHOW FDS");
    assert!(descriptors.starts_with("ERROR:  0A000: there is no SHOW FDS"), "{descriptors}");
    assert!(said("KILL_CLIENT 999999999").starts_with("ERROR:  42704: there is no client"));
    assert!(said("KILL").contains("DRAIN and SHUTDOWN end everybody"));
    assert!(said("RESUME").starts_with("ERROR:  55000: nothing is paused"));
    for command in ["PAUSE nosuch", "RECONNECT nosuch", "KILL nosuch"] {
        let missing = said(command);
        assert!(missing.starts_with("ERROR:  3D000: database \"nosuch\" does not"), "{missing}");
    }
    assert!(said("SET max_client_conn = 5").starts_with("ERROR:  42704: unrecognized"));
    let known = console(server, "SHOW DATABASES");
    assert!(!known.contains("nosuch"), "{known}");
    // Several at once: what comes before the error is done, what comes after is not.
    let psql = console_as(server, "rustydb", &server.password, &["show version; x; show version"]);
    assert_eq!(psql.stdout.lines().count(), 1, "{}", psql.stdout);
}

#[test]
fn the_console_works_when_nothing_is_free_and_names_who_holds_it() {
    let server = Server::builder()
        .set("pool.max_size=1")
        .set("pool.acquire_timeout_secs=5")
        .set("network.max_connections=2")
        .start();
    // So that its log-in needs no connection of its own.
    let mut patient = staying(&server, "patient");
    say(&mut patient, "select 'known';\n");
    assert_eq!(line(&mut patient), "known");
    leave(patient);
    let (mut child, pid) = holder(&server, "greedy");
    let mut waiting = staying(&server, "patient");
    // It has its place before a console could take that.
    say(&mut waiting, "\\echo inside\n");
    assert_eq!(line(&mut waiting), "inside");
    say(&mut waiting, "select 'served';\n");
    // A console that came before it would take its place.
    let queue = "rustydb_pool_wait_queue_size{pool=\"main\"}";
    eventually("a client waits", SOON, || server.metric(queue) == 1.0);
    assert!(table(&server, "POOLS").iter().any(|row| row["cl_waiting"] == "1"));
    // The log names the holder when the wait was in vain.
    eventually("the log names the holder", SOON, || server.log().contains("holds a connection"));
    let log = server.log();
    let named = log.lines().find(|line| line.contains("holds a connection")).unwrap();
    for word in ["application=\"greedy\"", "role=rustydb", "in_transaction=true", "secs="] {
        assert!(named.contains(word), "{word} is not in: {named}");
    }
    assert!(named.contains(&format!("backend_pid={pid}")), "{named}");
    let third = server.psql("select 1;");
    assert!(third.stderr.contains("too many clients already"), "{}", third.stderr);

    say(&mut waiting, "select 'served';\n");
    eventually("it waits again", SOON, || {
        row_of(&table(&server, "CLIENTS"), "application_name", "patient")["state"] == "waiting"
    });
    let clients = table(&server, "CLIENTS");
    let id = &row_of(&clients, "application_name", "greedy")["id"];
    assert_eq!(console(&server, &format!("KILL {id}")), "KILL 1\n");
    assert_eq!(line(&mut waiting), "served");
    say(&mut child, "select 1;\n");
    let mut said = String::new();
    child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("57P01"), "{said}");
    child.wait().unwrap();
    let clients = table(&server, "CLIENTS");
    let waited = &row_of(&clients, "application_name", "patient")["wait_time"];
    assert!(waited.parse::<u64>().unwrap() > 1_000_000, "{waited}");
    leave(waiting);
    let ended = "rustydb_session_terminated_total{protocol=\"postgres\",reason=\"killed\"}";
    server.expect_metric(ended, 1.0);
}

#[test]
fn a_killed_database_loses_its_sessions_and_a_running_statement() {
    let server = Server::start();
    assert_eq!(server.psql("create database doomed;").stderr, "");
    let mut running = server.psql_command();
    running.args(["-d", "doomed", "-v", "VERBOSITY=verbose", "-c", "select pg_sleep(100)"]);
    let running = piped(&mut running);
    let (other, _) = holder(&server, "other");
    crate::wait_until_running(&server, "pg_sleep(100)");
    assert_eq!(console(&server, "KILL doomed"), "KILL 1\n");
    let said = Psql::from(running.wait_with_output().unwrap()).stderr;
    assert!(said.contains("57P01: terminating connection due to administrator command"), "{said}");
    crate::wait_until_gone(&server, "pg_sleep(100)");
    assert!(table(&server, "CLIENTS").iter().any(|row| row["application_name"] == "other"));
    leave(other);
}

#[test]
fn a_pause_waits_for_who_works_and_holds_who_comes() {
    let server = Server::start();
    let (child, pid) = holder(&server, "working");
    let mut pause = server.psql_command();
    let pause = piped(pause.args(["-d", "rustydb_admin", "-c", "PAUSE rustydb"]));
    eventually("the pause is in force", SOON, || {
        row_of(&table(&server, "DATABASES"), "name", "rustydb")["paused"] == "1"
    });
    let mut late = staying(&server, "late");
    say(&mut late, "select 'let in';\n");
    eventually("who comes waits", SOON, || {
        table(&server, "CLIENTS")
            .iter()
            .any(|row| row["application_name"] == "late" && row["state"] == "waiting")
    });
    assert!(console(&server, "SHOW STATE").contains("paused|yes"));
    // Other databases go on.
    let mut other = server.psql_command();
    let output = other.args(["-d", "postgres", "-Atc", "select 1"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
    leave(child);
    let paused = Psql::from(pause.wait_with_output().unwrap());
    assert_eq!((paused.stdout.as_str(), paused.stderr.as_str()), ("PAUSE\n", ""));
    let left = format!("select count(*) from pg_stat_activity where pid = {pid}");
    assert_eq!(server.direct_value(&left), "0");
    let again = console_as(&server, "rustydb", &server.password, &["RESUME nosuch"]);
    assert!(again.stderr.contains("55000"), "{}", again.stderr);
    std::thread::sleep(Duration::from_millis(300));
    let clients = table(&server, "CLIENTS");
    assert_eq!(row_of(&clients, "application_name", "late")["state"], "waiting");
    assert_eq!(console(&server, "RESUME rustydb"), "RESUME\n");
    assert_eq!(line(&mut late), "let in");
    leave(late);
    assert!(console(&server, "SHOW STATE").contains("paused|no"));
}

#[test]
fn a_pause_can_be_interrupted_and_ends_with_the_server() {
    let mut server = Server::start();
    let (child, _) = holder(&server, "working");
    let mut pause = server.psql_command();
    pause.args(["-d", "rustydb_admin", "-v", "VERBOSITY=verbose", "-c", "PAUSE"]);
    let pause = piped(&mut pause);
    eventually("paused", SOON, || console(&server, "SHOW STATE").contains("paused|yes"));
    crate::harness::signal_process(pause.id() as i32, "INT");
    let said = Psql::from(pause.wait_with_output().unwrap()).stderr;
    assert!(said.contains("57014: canceling statement due to user request"), "{said}");
    assert!(said.contains("RESUME ends it"), "{said}");
    let mut late = staying(&server, "late");
    say(&mut late, "select 'let in';\n");
    eventually("who comes waits", SOON, || {
        table(&server, "POOLS").iter().any(|row| row["cl_waiting"] == "1")
    });
    let begun = Instant::now();
    leave(child);
    assert_eq!(server.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    late.wait().unwrap();
}

#[test]
fn what_keeps_a_session_on_its_connection_is_shown() {
    let server = guarded();
    let counted = "rustydb_session_pinned_total{cause=\"temporary objects\",protocol=\"postgres\"}";
    let before = server.metric(counted);
    let mut child = staying(server, "pinned-by-table");
    let seen = |column: &str| {
        row_of(&table(server, "CLIENTS"), "application_name", "pinned-by-table")[column].clone()
    };
    say(&mut child, "select 'free';\n");
    assert_eq!(line(&mut child), "free");
    eventually("it gave its connection back", SOON, || seen("state") == "idle");
    assert_eq!((seen("pinned"), seen("pool_mode")), (String::new(), "transaction".to_owned()));
    say(&mut child, "create temp table pinning (n int);\n");
    assert_eq!(line(&mut child), "CREATE TABLE");
    eventually("the reason is shown", SOON, || seen("pinned") == "temporary objects");
    assert_eq!(seen("state"), "active");
    server.expect_metric_of_at_least(counted, before + 1.0);
    say(&mut child, "drop table pinning;\n");
    assert_eq!(line(&mut child), "DROP TABLE");
    eventually("it is free again", SOON, || seen("pinned").is_empty() && seen("state") == "idle");
    leave(child);
}

#[test]
fn reconnect_replaces_idle_and_lent_connections() {
    let server = Server::start();
    let (mut child, lent) = holder(&server, "lent");
    let idle = server.psql("select pg_backend_pid() as \"idle\" \\gset\n\\echo :idle\n").stdout;
    let pids = || -> Vec<String> {
        table(&server, "SERVERS").iter().map(|row| row["remote_pid"].clone()).collect()
    };
    eventually("the other is idle again", SOON, || {
        row_of(&table(&server, "SERVERS"), "remote_pid", idle.trim())["state"] == "idle"
    });
    assert_eq!(console(&server, "RECONNECT postgres"), "RECONNECT\n");
    assert!(pids().contains(&idle.trim().to_owned()), "another database");
    assert_eq!(console(&server, "RECONNECT rustydb"), "RECONNECT\n");
    eventually("the idle one is closed", SOON, || pids() == [lent.clone()]);
    assert_eq!(row_of(&table(&server, "SERVERS"), "remote_pid", &lent)["close_needed"], "1");
    say(&mut child, "select 'still here'; commit;\n");
    assert_eq!(line(&mut child), "still here");
    leave(child);
    eventually("the lent one is closed", SOON, || !pids().contains(&lent));
}

#[test]
fn what_sessions_do_is_counted() {
    let server = Server::builder().set("monitoring.slow_query_ms=100").start();
    assert_eq!(server.psql("create table t (n int);").stderr, "");
    let totals = || {
        let rows = table(&server, "STATS_TOTALS");
        let row = row_of(&rows, "database", "rustydb").clone();
        let number = |column: &str| row[column].parse::<u64>().unwrap();
        (number("xact_count"), number("query_count"), number("xact_time"), number("query_time"))
    };
    let metric = |name: &str| server.metric(&format!("rustydb_transactions_{name}_total"));
    let (before, slow) = (totals(), server.metric("rustydb_query_slow_total"));
    let published = |committed: f64, rolled_back: f64| {
        metric("committed") == committed && metric("rolled_back") == rolled_back
    };
    eventually("the metrics follow", SOON, || metric("committed") == before.0 as f64);
    let (committed, rolled_back) = (metric("committed"), metric("rolled_back"));
    let script = "begin; insert into t values (1); commit;
         begin; insert into t values (2); rollback;
         begin; select 1/0; commit;
         select 1;
         select 1/0;
         select pg_sleep(0.2);";
    assert_eq!(server.psql(script).code, Some(0));
    let after = totals();
    assert_eq!((after.0 - before.0, after.1 - before.1), (6, 12));
    assert!(after.2 - before.2 >= 200_000 && after.3 - before.3 >= 200_000, "{after:?}");
    // Two commits and two single statements that worked; ROLLBACK, a failed COMMIT and an error.
    eventually("metrics", SOON, || published(committed + 3.0, rolled_back + 3.0));
    server.expect_metric_of_at_least("rustydb_transactions_duration_seconds_count", 6.0);
    server.expect_metric("rustydb_query_slow_total", slow + 1.0);
    server.log_line(&["slow request"]);
    let lives = "rustydb_session_lifetime_seconds_count{protocol=\"postgres\"}";
    server.expect_metric_of_at_least(lives, 2.0);
    eventually("the peak is known", SOON, || {
        server.metric("rustydb_session_peak{protocol=\"postgres\"}") >= 1.0
    });
    let end = ["session ended", "database=rustydb ", "transactions=6", "queries=12"];
    let end = server.log_line(&end);
    for word in ["wait_ms=0", "reason=\"closed\"", "peer="] {
        assert!(end.contains(word), "{word} is not in: {end}");
    }

    let (child, _) = holder(&server, "open transaction");
    let active = || server.metric("rustydb_transactions_active");
    eventually("an open transaction is seen", SOON, || active() == 1.0);
    leave(child);
    eventually("what was given up is rolled back", SOON, || {
        active() == 0.0 && metric("rolled_back") == rolled_back + 4.0
    });
}

/// A console over the wire, on a server without passwords.
fn wire_console() -> Wire {
    let mut wire = Wire::to(open());
    wire.send(&startup(crate::raw::V3, &[b"user", b"joe", b"database", b"rustydb_admin"]));
    wire.until(b'Z');
    wire
}

#[test]
fn drivers_may_use_the_extended_protocol() {
    let mut wire = wire_console();
    wire.send(&[extended("SHOW VERSION", &[]), sync()].concat());
    let messages = wire.until(b'Z');
    let tags: Vec<u8> = messages.iter().map(|message| message.0).collect();
    assert_eq!(tags, b"12TDCZ", "{}", render(&messages));
    // A named statement, its shape, and its rows one at a time and in binary.
    let first = [
        parse("s", "show lists", &[]),
        about(b'D', b'S', "s"),
        bind("", "s", &[], (0, 1)),
        execute("", 1),
        execute("", 0),
        about(b'C', b'S', "s"),
        sync(),
    ];
    wire.send(&first.concat());
    let messages = wire.until(b'Z');
    let tags: Vec<u8> = messages.iter().map(|message| message.0).collect();
    let rows = tags.iter().filter(|tag| **tag == b'D').count();
    assert!(rows > 5 && tags.starts_with(b"1tT2DsD") && tags.ends_with(b"DC3Z"), "{tags:?}");
    let row = &messages.iter().find(|message| message.0 == b'D').unwrap().1;
    assert_eq!(&row[..15], b"\0\x02\0\0\0\x09databases");
    assert_eq!((&row[15..19], row.len()), (&b"\0\0\0\x08"[..], 27), "int8 in binary");

    // An error passes over everything up to Sync, and what drivers send of themselves is taken.
    let broken = [parse("", "nonsense", &[]), bind("", "", &[], (0, 0)), execute("", 0), sync()];
    wire.send(&broken.concat());
    let messages = wire.until(b'Z');
    assert_eq!(messages.len(), 2, "{}", render(&messages));
    assert_eq!(field(&messages[0].1, b'C'), "42601");
    for (sql, tag) in [("SET extra_float_digits = 3", "SET"), ("DISCARD ALL", "DISCARD ALL")] {
        wire.send(&[extended(sql, &[]), sync()].concat());
        let messages = wire.until(b'Z');
        assert!(render(&messages).contains(&format!("C {tag}\\x00")), "{}", render(&messages));
    }
    wire.send(&[query("begin"), query("commit"), query("")].concat());
    assert_eq!(wire.until(b'Z').last().unwrap().1, b"T");
    assert_eq!(wire.until(b'Z').last().unwrap().1, b"I");
    assert_eq!(wire.until(b'Z')[0].0, b'I');
    for (message, state) in [
        (bind("", "nosuch", &[], (0, 0)), "26000"),
        (execute("nosuch", 0), "34000"),
        (bind("", "", &[Some(b"x")], (0, 0)), "0A000"),
        (parse("", "show pools; show pools", &[]), "42601"),
    ] {
        wire.send(&[message, sync()].concat());
        let messages = wire.until(b'Z');
        assert_eq!(field(&messages[0].1, b'C'), state, "{}", render(&messages));
    }
}

#[test]
fn a_console_is_not_upset_by_torn_wrong_or_endless_messages() {
    let mut wire = wire_console();
    for byte in query("SHOW VERSION") {
        wire.send(&[byte]);
    }
    assert_eq!(wire.until(b'Z').len(), 4);
    wire.send(&[query("SHOW STATE"), query("SHOW STATE"), query("\u{e9}\0")].concat());
    wire.until_ready(3);
    let statements: Vec<u8> = (0..200).flat_map(|n| parse(&n.to_string(), "HELP", &[])).collect();
    wire.send(&[statements, sync()].concat());
    let messages = wire.until(b'Z');
    assert_eq!(messages.iter().filter(|message| message.0 == b'1').count(), 100);
    assert_eq!(field(&messages[100].1, b'C'), "53400");
    wire.send(b"Q\x7f\xff\xff\xff");
    let last = wire.rest();
    assert_eq!(field(&last[0].1, b'C'), "08P01", "{}", render(&last));
    let mut wire = wire_console();
    wire.send(&crate::raw::message(b'?', b""));
    assert_eq!(field(&wire.rest()[0].1, b'S'), "FATAL");
}

#[test]
fn a_driver_reads_the_tables_in_binary() {
    let server = guarded();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(server.port).user("rustydb").password(&server.password);
        config.dbname("rustydb_admin").application_name("driver");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = client.query("SHOW CLIENTS", &[]).await.unwrap();
        let own = rows.iter().find(|row| row.get::<_, &str>("application_name") == "driver");
        assert!(own.unwrap().get::<_, i64>("id") > 0);
        assert_eq!(client.execute("RECONNECT", &[]).await.unwrap(), 0);
        let error = client.query("select 1", &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42601");
    });
}

#[test]
fn a_drain_lets_everybody_finish_and_the_console_watch() {
    let mut server = Server::builder().set("server.shutdown_grace_secs=1").start();
    let mut watching = server.psql_command();
    let mut watching = piped(watching.args(["-d", "rustydb_admin", "-At"]));
    let mut working = server.psql_command();
    let working = piped(working.args(["-At", "-c", "select 'done', pg_sleep(8)"]));
    let mut idle = staying(&server, "idle");
    say(&mut idle, "select 1;\n");
    assert_eq!(line(&mut idle), "1");
    crate::wait_until_running(&server, "pg_sleep(8)");
    say(&mut watching, "DRAIN;\n");
    assert_eq!(line(&mut watching), "DRAIN");
    eventually("nobody is let in", SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", server.port)).is_err()
    });
    say(&mut idle, "select 2;\n");
    let told = Psql::from(idle.wait_with_output().unwrap());
    assert!(told.stderr.contains("57P01"), "{}", told.stderr);
    say(&mut watching, "SHOW STATE;\nSHOW CLIENTS;\n");
    let seen: Vec<String> = (0..6).map(|_| line(&mut watching)).collect();
    assert!(seen.iter().any(|line| line == "active|no"), "{seen:?}");
    assert!(seen.iter().any(|line| line.contains("|rustydb|active|")), "{seen:?}");
    let worked = Psql::from(working.wait_with_output().unwrap());
    assert_eq!(worked.stdout, "done|\n", "{}", worked.stderr);
    assert_eq!(server.wait(), Some(0));
    say(&mut watching, "SHOW STATE;\n");
    let left = Psql::from(watching.wait_with_output().unwrap());
    // What the server said is lost when the client sends something at the same time.
    assert_eq!((left.code, left.stderr.contains("connection")), (Some(2), true), "{left:?}");
}

#[test]
fn a_shutdown_can_be_ordered() {
    for (command, slowest) in [("SHUTDOWN", 20), ("SHUTDOWN IMMEDIATE", 5)] {
        let mut server = Server::builder().set("server.shutdown_grace_secs=3").start();
        let mut working = server.psql_command();
        let working = piped(working.args(["-At", "-c", "select pg_sleep(60)"]));
        crate::wait_until_running(&server, "pg_sleep(60)");
        let begun = Instant::now();
        // It may be told of the end before it has left.
        let told = console_as(&server, "rustydb", &server.password, &[command]);
        assert_eq!(told.stdout, "SHUTDOWN\n", "{}", told.stderr);
        assert_eq!(server.wait(), Some(0));
        let took = begun.elapsed();
        assert_eq!(took > Duration::from_secs(3), command == "SHUTDOWN", "{command}: {took:?}");
        assert!(took < Duration::from_secs(slowest), "{command}: {took:?}");
        assert!(Psql::from(working.wait_with_output().unwrap()).stderr.contains("terminating"));
    }
}

#[test]
fn a_console_survives_a_script_of_many_commands() {
    let server = guarded();
    let mut psql = server.psql_command();
    psql.args(["-d", "rustydb_admin", "-At"]);
    let script = "SHOW VERSION;\n".repeat(500);
    let psql = Psql::from(feed(&mut psql, &script));
    assert_eq!((psql.stdout.lines().count(), psql.stderr.as_str()), (500, ""));
}
