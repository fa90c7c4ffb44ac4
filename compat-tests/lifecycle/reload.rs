//! The configuration of a running server: read again by SIGHUP and RELOAD, as a whole or not at
//! all; and the console while PostgreSQL is down.

use std::process::{Output, Stdio};
use std::time::Duration;

use crate::harness::pki::Authority;
use crate::harness::{self, Server, eventually};
use crate::{Client, PlainPostgres, SOON, sqlstate, stderr, stdout};

/// One command in the console.
pub(crate) fn console(server: &Server, role: &str, password: &str, command: &str) -> Output {
    let mut psql = server.psql_command();
    psql.args(["-d", "rustydb_admin", "-U", role, "-At", "-v", "VERBOSITY=verbose"]);
    psql.args(["-c", command]).env("PGPASSWORD", password).stdin(Stdio::null());
    psql.output().unwrap()
}

fn reloads(server: &Server, result: &str) -> f64 {
    server.metric(&format!("rustydb_config_reloads_total{{result=\"{result}\"}}"))
}

/// A server with a configuration file of its own.
fn with_file(text: &str) -> (tempfile::TempDir, std::path::PathBuf, Server) {
    let home = harness::temp_dir();
    let file = home.path().join("rustydb.toml");
    std::fs::write(&file, text).unwrap();
    let server = Server::builder().arg("--config").arg(file.to_str().unwrap()).start();
    (home, file, server)
}

#[test]
fn a_reload_changes_sizes_limits_and_names_what_needs_a_restart() {
    let (_home, file, server) = with_file("[pool]\nmax_size = 2\n[network]\nmax_connections = 5\n");
    let connect = || Client::connect(&server, &server.password);
    let clients = [connect().unwrap(), connect().unwrap()];
    for client in &clients {
        client.value("begin").unwrap();
        client.value("select 1").unwrap();
    }
    // A third one waits, until a reload makes room for it.
    let mut waiting = server.psql_command();
    waiting.args(["-Atc", "select 'served'"]).stdin(Stdio::null());
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiters = "rustydb_pool_wait_queue_size{pool=\"main\"}";
    eventually("a client waits", SOON, || server.metric(waiters) == 1.0);
    let newer = "[pool]\nmax_size = 1\n[network]\nmax_connections = 2\n\
                 [server]\nworker_threads = 3\n";
    // The embedded PostgreSQL was started for two, so this reload must not give more.
    std::fs::write(&file, newer.replace("max_size = 1", "max_size = 200")).unwrap();
    server.signal("HUP");
    eventually("reloaded", SOON, || reloads(&server, "success") == 1.0);
    // The log is written by a thread of its own.
    eventually("it is noted", SOON, || {
        let log = server.log();
        log.contains("was started for fewer connections") && log.contains("need a restart")
    });
    server.expect_metric(waiters, 1.0);
    let log = server.log();
    let left = log.lines().find(|line| line.contains("need a restart")).expect(&log);
    assert!(left.contains("server.worker_threads") && !left.contains("pool."), "{left}");
    // The limit on clients counts at once, and ends nobody.
    let refused = connect().err().expect("a refusal");
    assert_eq!(sqlstate(&refused), "53300");
    clients[0].value("commit").unwrap();

    std::fs::write(&file, newer).unwrap();
    let reloaded = console(&server, "rustydb", &server.password, "RELOAD");
    assert_eq!(stdout(&reloaded), "RELOAD\n", "{}", stderr(&reloaded));
    assert_eq!(reloads(&server, "success"), 2.0);
    let [first, second] = clients;
    drop((first, second));
    let served = waiting.wait_with_output().unwrap();
    assert_eq!(stdout(&served), "served\n", "{}", stderr(&served));
    let total = "rustydb_pool_total_connections{pool=\"main\"}";
    eventually("the pool has shrunk", SOON, || server.metric(total) == 1.0);
    let shown = console(&server, "rustydb", &server.password, "SHOW CONFIG");
    let source = format!("pool.max_size|1|100|yes|file {}", file.display());
    assert!(stdout(&shown).contains(&source), "{}", stdout(&shown));
}

#[test]
fn an_external_pool_grows_for_those_who_wait() {
    let plain = PlainPostgres::start();
    let home = harness::temp_dir();
    let file = home.path().join("rustydb.toml");
    std::fs::write(&file, "[pool]\nmax_size = 1\n").unwrap();
    let config = file.to_str().unwrap();
    let server =
        Server::builder().arg("--config").arg(config).arg("--backend").arg(&plain.url()).start();
    let connect = || {
        let (role, password) = (PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD);
        Client::connect_to("127.0.0.1", server.port, role, password, "postgres").unwrap()
    };
    let (holder, waiting) = (connect(), connect());
    holder.value("begin").unwrap();
    let waiting = std::thread::spawn(move || waiting.value("select 'served'").unwrap());
    let waiters = "rustydb_pool_wait_queue_size{pool=\"main\"}";
    eventually("a client waits", SOON, || server.metric(waiters) == 1.0);
    std::fs::write(&file, "[pool]\nmax_size = 2\n").unwrap();
    server.signal("HUP");
    assert_eq!(waiting.join().unwrap(), "served");
    assert_eq!(holder.value("select 'undisturbed'").unwrap(), "undisturbed");
}

#[test]
fn a_reload_decides_anew_who_may_come_in_and_how_many() {
    let refuse = "[security]\nhba = [\"host all rustydb all scram-sha-256\"]\n";
    let (_home, file, server) = with_file(refuse);
    assert_eq!(server.direct_psql("create role guest login password 'pw';").stderr, "");
    let guest = || Client::connect_to("127.0.0.1", server.port, "guest", "pw", "rustydb");
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let reloaded = console(&server, "rustydb", &server.password, "RELOAD");
        assert_eq!(stdout(&reloaded), "RELOAD\n", "{}", stderr(&reloaded));
        assert!(!server.log().contains("need a restart"), "{}", server.log());
    };
    let code = |result: Result<Client, _>| sqlstate(&result.err().expect("a refusal"));
    assert_eq!(code(guest()), "28000");
    reload("[security]\nhba = [\"host all all all scram-sha-256\"]\n");
    let first = guest().unwrap();
    assert_eq!(first.value("select current_user").unwrap(), "guest");
    // Who is inside counts, although there was no limit when he came.
    reload("[network]\nmax_connections_per_user = 1\n");
    let refused = guest().err().expect("a refusal");
    assert!(refused.to_string().contains("db error"), "{refused}");
    assert!(refused.as_db_error().unwrap().message().contains("max_connections_per_user is 1"));
    reload("[network]\nmax_connections_per_database = 1\n");
    assert!(guest().err().unwrap().as_db_error().unwrap().message().contains("per_database is 1"));
    reload("[network]\nmax_connections_per_address = 0\n[security]\n");
    assert_eq!(first.value("select 'undisturbed'").unwrap(), "undisturbed");
    std::fs::write(&file, refuse).unwrap();
    server.signal("HUP");
    eventually("nobody else comes in", SOON, || {
        guest().is_err_and(|error| sqlstate(&error) == "28000")
    });
    assert_eq!(first.value("select 'undisturbed'").unwrap(), "undisturbed");
}

#[test]
fn a_reload_gives_a_role_another_share_of_the_pool() {
    let (_home, file, server) = with_file("[pool]\nmaintenance_interval_secs = 1\n");
    let connect = || Client::connect(&server, &server.password).unwrap();
    let clients = [connect(), connect(), connect()];
    clients[0].value("begin").unwrap();
    clients[1].value("begin").unwrap();
    let share = "[pool]\nmaintenance_interval_secs = 1\nacquire_timeout_secs = 1\n\
                 users = { rustydb = { max_size = 1 } }\n";
    std::fs::write(&file, share).unwrap();
    server.signal("HUP");
    eventually("reloaded", SOON, || reloads(&server, "success") == 1.0);
    assert!(!server.log().contains("need a restart"), "{}", server.log());
    // Those who work keep what they have; it is replaced when it comes back.
    let before = clients[0].value("select pg_backend_pid()").unwrap();
    clients[0].value("commit").unwrap();
    clients[1].value("commit").unwrap();
    let lent = "rustydb_pool_active_connections{pool=\"main\"}";
    eventually("all are back", SOON, || server.metric(lent) == 0.0);
    clients[0].value("begin").unwrap();
    assert_ne!(clients[0].value("select pg_backend_pid()").unwrap(), before);
    let refused = clients[2].value("select 1").unwrap_err();
    let text = refused.as_db_error().unwrap().message().to_owned();
    assert!(text.contains("pool.users.rustydb.max_size is 1"), "{text}");
    std::fs::write(&file, share.replace("= 1 }", "= 2 }")).unwrap();
    server.signal("HUP");
    eventually("reloaded", SOON, || reloads(&server, "success") == 2.0);
    assert_eq!(clients[2].value("select 'served'").unwrap(), "served");
    // The size that is kept is followed too.
    std::fs::write(&file, "[pool]\nmin_size = 7\nmaintenance_interval_secs = 1\n").unwrap();
    server.signal("HUP");
    let total = "rustydb_pool_total_connections{pool=\"main\"}";
    eventually("seven are made", SOON, || server.metric(total) >= 7.0);
}

#[test]
fn a_key_can_be_set_in_the_console_until_the_next_reload() {
    let (_home, file, server) = with_file("[network]\nmax_connections = 9\n");
    let ask = |command: &str| console(&server, "rustydb", &server.password, command);
    let shown = |line: &str| {
        let shown = stdout(&ask("SHOW CONFIG"));
        assert!(shown.contains(line), "{line} is not in: {shown}");
    };
    let first = Client::connect(&server, &server.password).unwrap();
    let set = ask("SET network.max_connections = 1");
    assert_eq!(stdout(&set), "SET\n", "{}", stderr(&set));
    shown("network.max_connections|1|10000|yes|console");
    let refused = Client::connect(&server, &server.password).err().expect("a refusal");
    assert_eq!(sqlstate(&refused), "53300");
    assert_eq!(first.value("select 'undisturbed'").unwrap(), "undisturbed");
    assert_eq!(stdout(&ask("SET security.hba = 'host all rustydb all scram-sha-256'")), "SET\n");
    for (command, words) in [
        ("SET network.port = 1", &["55P02", "needs a restart"][..]),
        ("SET network.max_conections = 1", &["22023", "did you mean network.max_connections?"]),
        ("SET network.max_connections = x", &["22023", "expected"]),
        ("SET pool.max_size = 0", &["22023", "must be at least 1"]),
        ("SET pool.max_size", &["42601", "SET pool.max_size = 50"]),
    ] {
        let said = stderr(&ask(command));
        assert!(words.iter().all(|word| said.contains(word)), "{command}: {said}");
    }
    assert_eq!(stdout(&ask("SET extra_float_digits = 3")), "SET\n", "drivers do that");
    assert_eq!(stdout(&ask("RELOAD")), "RELOAD\n");
    shown(&format!("network.max_connections|9|10000|yes|file {}", file.display()));
    assert!(Client::connect(&server, &server.password).is_ok());
}

#[test]
fn a_reload_takes_a_new_certificate_and_keeps_the_old_one_when_it_is_broken() {
    let home = harness::temp_dir();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (first_root, second_root) =
        (first.write(home.path(), "first"), second.write(home.path(), "second"));
    let files = first.issue(home.path(), "server", "localhost", &["localhost", "127.0.0.1"]);
    let server = Server::builder()
        .set(&format!("security.tls_cert_path={}", files.cert.display()))
        .set(&format!("security.tls_key_path={}", files.key.display()))
        .set("security.tls_check_secs=3600")
        .start();
    let verifies = |root: &std::path::Path| {
        let mut psql = server.psql_command();
        psql.args(["-Atc", "select 1"]).env("PGSSLMODE", "verify-ca").env("PGSSLROOTCERT", root);
        psql.output().unwrap().status.success()
    };
    assert!(verifies(&first_root) && !verifies(&second_root));
    second.issue(home.path(), "server", "localhost", &["localhost", "127.0.0.1"]);
    server.signal("HUP");
    eventually("the new one is shown", SOON, || verifies(&second_root));
    assert!(!verifies(&first_root));
    std::fs::write(&files.cert, "broken").unwrap();
    let refused = console(&server, "rustydb", &server.password, "RELOAD");
    let refused = stderr(&refused);
    for word in ["F0000", "the TLS files were not", "server.crt", "the old certificate stays"] {
        assert!(refused.contains(word), "{word} is not in: {refused}");
    }
    assert!(verifies(&second_root));
}

#[test]
fn a_wrong_file_changes_nothing_and_every_error_is_told() {
    let (_home, file, server) = with_file("[pool]\nmax_size = 7\n");
    let text = "[pool]\nmax_size = 8\nmax_sise = 9\nacquire_timeout_secs = 0\n[netwrk]\nport = 1\n";
    std::fs::write(&file, text).unwrap();
    let refused = stderr(&console(&server, "rustydb", &server.password, "RELOAD"));
    assert!(refused.starts_with("ERROR:  F0000: the configuration has errors"), "{refused}");
    for error in ["pool.max_sise", "pool.acquire_timeout_secs", "netwrk.port", "HINT:"] {
        assert!(refused.contains(error), "{error} is not in: {refused}");
    }
    server.signal("HUP");
    eventually("both failed", SOON, || reloads(&server, "failure") == 2.0);
    server.log_line(&["nothing was reloaded: 3 errors"]);
    let shown = console(&server, "rustydb", &server.password, "SHOW CONFIG");
    assert!(stdout(&shown).contains("pool.max_size|7|"), "{}", stdout(&shown));
    assert_eq!(server.psql("select 1;").code, Some(0));
    std::fs::remove_file(&file).unwrap();
    server.signal("HUP");
    eventually("a file that is gone is an error", SOON, || reloads(&server, "failure") == 3.0);
}

#[test]
fn the_log_level_can_be_changed_and_switched() {
    let home = harness::temp_dir();
    let file = home.path().join("rustydb.toml");
    std::fs::write(&file, "").unwrap();
    let server = Server::builder()
        .arg("--config")
        .arg(file.to_str().unwrap())
        .set("monitoring.log_level=warn")
        .start();
    // Each session has a name: the end of one can be logged after its psql has long gone.
    let session = |name: &str| {
        let seen = server.psql(&format!("set application_name to '{name}'; select 1;"));
        assert_eq!(seen.code, Some(0), "{name}");
    };
    let ended = |name: &str| {
        let log = server.log();
        let name = format!("application=\"{name}\"");
        log.lines().any(|line| line.contains("session ended") && line.contains(&name))
    };
    session("before");
    server.expect_metric("rustydb_session_total{protocol=\"postgres\"}", 0.0);
    server.signal("USR1");
    eventually("switched on", SOON, || server.log().contains("debugging=true"));
    session("between");
    eventually("the end of the session is logged", SOON, || ended("between"));
    server.signal("USR1");
    eventually("switched off", SOON, || server.log().contains("debugging=false"));
    session("after");
    server.signal("HUP");
    eventually("reloaded", SOON, || reloads(&server, "success") == 1.0);
    server.expect_metric("rustydb_session_total{protocol=\"postgres\"}", 0.0);
    assert!(!ended("before") && !ended("after"), "{}", server.log());
}

#[test]
fn administrators_come_in_while_postgres_is_down() {
    let plain = PlainPostgres::start();
    let admin = plain.connect();
    admin.value("create role known login password 'pw'").unwrap();
    admin.value("create role clerk login superuser password 'pw'").unwrap();
    admin.value("create role stranger login password 'pw'").unwrap();
    let server = Server::builder()
        .arg("--backend")
        .arg(&plain.url())
        .set("admin.users=known")
        .set("backend.connect_timeout_secs=1")
        .set("backend.failover_wait_secs=1")
        .set("backend.health_interval_secs=1")
        .start();
    // A superuser is remembered from his log-in, a role of the configuration without one.
    let seen = console(&server, "clerk", "pw", "SHOW STATE");
    assert!(stdout(&seen).contains("active|yes"), "{}", stderr(&seen));
    std::thread::sleep(Duration::from_millis(1500));
    plain.stop();
    for (role, password, state) in [
        ("known", "pw", None),
        ("clerk", "wrong", Some("password authentication failed")),
        ("clerk", "pw", None),
        ("stranger", "pw", Some("PostgreSQL")),
        ("nobody", "pw", Some("PostgreSQL")),
    ] {
        let output = console(&server, role, password, "SHOW STATE");
        match state {
            None => assert!(stdout(&output).contains("active|yes"), "{role}: {}", stderr(&output)),
            Some(said) => assert!(stderr(&output).contains(said), "{role}: {}", stderr(&output)),
        }
    }
    // Nobody gets further than to the console.
    let beyond = Client::connect_to("127.0.0.1", server.port, "clerk", "pw", "postgres");
    assert_eq!(sqlstate(&beyond.err().expect("a refusal")), "57P03");
}
