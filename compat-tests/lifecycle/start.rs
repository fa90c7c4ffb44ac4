//! The first start, the second, and a start as a normal user.

use std::os::unix::fs::MetadataExt;

use crate::harness::{self, Server};
use crate::{is_root, unprivileged_uid};

/// Seconds of the line "ready after N s".
fn seconds(ready: &str) -> f64 {
    let (_, after) = ready.split_once("ready after ").expect(ready);
    after.split_once(" s").unwrap().0.parse().unwrap()
}

fn line<'a>(ready: &'a str, name: &str) -> &'a str {
    let mut lines = ready.lines().map(str::trim);
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no line {name} in {ready}")).trim()
}

fn shell(command: &str, password: &str) -> String {
    let output =
        harness::command("sh").args(["-c", command]).env("PGPASSWORD", password).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_first_start_prints_a_line_for_each_door_and_every_line_works() {
    let server = Server::start();
    assert!(seconds(&server.ready) < 9.0, "{}", server.ready);
    assert_eq!(server.ready.lines().count(), 5, "{}", server.ready);

    let psql = line(&server.ready, "psql");
    assert_eq!(shell(&format!("{psql} -XAtc 'select 40+2'"), &server.password), "42\n");

    let curl = line(&server.ready, "curl");
    let with_password = format!("-s -u rustydb:{}", server.password);
    let answer = shell(&curl.replacen("-u rustydb", &with_password, 1), "");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect(&answer);
    assert_eq!(answer["rows"][0]["one"], 1, "{answer}");

    let (status, text) = crate::get(line(&server.ready, "metrics"), None);
    assert_eq!(status, 200);
    assert!(text.contains("rustydb_build_info"), "{text}");

    let file = line(&server.ready, "password").rsplit(' ').next().unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_to_string(file).unwrap().trim(), server.password);
    assert!(server.password.len() >= 20);
}

#[test]
fn the_embedded_postgres_is_durable_private_and_has_the_administrator() {
    let server = Server::builder().set("pool.max_size=37").set("pool.reserved_size=4").start();
    assert_eq!(server.direct_value("show fsync"), "on");
    assert_eq!(server.direct_value("show full_page_writes"), "on");
    assert_eq!(server.direct_value("show synchronous_commit"), "on");
    assert_eq!(server.direct_value("show wal_level"), "logical");
    assert_eq!(server.direct_value("show listen_addresses"), "");
    let connections: u32 = server.direct_value("show max_connections").parse().unwrap();
    let reserved = server.direct_value("show superuser_reserved_connections");
    assert!(connections >= 37 + 4 + reserved.parse::<u32>().unwrap(), "{connections}");
    let role = "select rolsuper, rolcanlogin from pg_roles where rolname = 'rustydb'";
    assert_eq!(server.direct_value(role), "t|t");
    let verifier = "select rolpassword like 'SCRAM-SHA-256$%' from pg_authid \
                    where rolname = 'rustydb'";
    assert_eq!(server.direct_value(verifier), "t");
    let owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'rustydb'";
    assert_eq!(server.direct_value(owner), "rustydb");
    let available = "select count(*) from pg_available_extensions where name = \
                     'pg_stat_statements'";
    if server.direct_value(available) == "1" {
        assert_eq!(server.direct_value("select count(*) > 0 from pg_stat_statements"), "t");
    } else {
        println!("skipped: pg_stat_statements is not installed");
    }
    // Nobody but PostgreSQL's user gets to the socket that asks for no password.
    assert_eq!(std::fs::metadata(server.data_dir.join("run")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(server.data_dir.join("pg")).unwrap().mode() & 0o077, 0);
}

#[test]
fn a_given_password_is_used_not_written_down_and_survives_a_restart() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let given = "correct horse 'battery' staple";
    let start = |password: &str| {
        let builder = Server::builder().data_dir(&data);
        builder.env("RUSTYDB_ADMIN_PASSWORD", password).start()
    };
    let mut server = start(given);
    assert!(!data.join("admin-password").exists());
    assert!(server.ready.contains("RUSTYDB_ADMIN_PASSWORD"), "{}", server.ready);
    assert!(!server.ready.contains("battery") && !server.log().contains("battery"));
    server.password = given.into();
    assert_eq!(server.psql("\\t\nselect 'in';").stdout.trim(), "Tuples only is on.\n in");
    server.password = "wrong".into();
    assert_ne!(server.psql("select 1;").code, Some(0));
    assert_eq!(server.stop(), Some(0));

    // It is the first password, not the present one: a later start changes nothing.
    let mut server = start("another");
    assert!(seconds(&server.ready) < 4.5, "{}", server.ready);
    server.password = given.into();
    assert_eq!(server.psql("select 1;").code, Some(0));
    server.password = "another".into();
    assert_ne!(server.psql("select 1;").code, Some(0));
}

#[test]
fn the_first_password_can_come_from_a_file() {
    let home = harness::temp_dir();
    let file = home.path().join("secret");
    std::fs::write(&file, "from a file\n").unwrap();
    let file = file.to_str().unwrap();
    let mut server = Server::builder().env("RUSTYDB_ADMIN_PASSWORD_FILE", file).start();
    assert!(!server.data_dir.join("admin-password").exists());
    server.password = "from a file".into();
    assert_eq!(server.psql("select 1;").code, Some(0));
}

#[test]
fn an_empty_first_password_is_refused() {
    let builder = Server::builder().env("RUSTYDB_ADMIN_PASSWORD", "");
    crate::refuses(builder, 2, &["RUSTYDB_ADMIN_PASSWORD", "empty"]);
    let builder = Server::builder().env("RUSTYDB_ADMIN_PASSWORD_FILE", "/nowhere");
    crate::refuses(builder, 2, &["/nowhere", "No such file"]);
}

#[test]
fn a_second_start_is_fast_and_keeps_the_password() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let mut server = Server::builder().data_dir(&data).start();
    let password = server.password.clone();
    assert_eq!(
        server.psql("create table kept (n int); insert into kept values (7);").code,
        Some(0)
    );
    assert_eq!(server.stop(), Some(0));
    let server = Server::builder().data_dir(&data).start();
    assert!(seconds(&server.ready) < 4.5, "{}", server.ready);
    assert_eq!(server.password, password);
    let output = server.psql_command().args(["-Atc", "table kept"]).output().unwrap();
    assert_eq!(crate::stdout(&output), "7\n");
}

#[test]
fn a_normal_user_runs_postgres_as_itself() {
    if !is_root() {
        println!("skipped: only root can start the server as another user");
        return;
    }
    let uid = unprivileged_uid();
    let mut server = Server::builder().user(uid).start();
    let owner = |pid: i32| std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(owner(server.pid()), uid);
    assert_eq!(owner(server.postmaster()), uid);
    assert_eq!(std::fs::metadata(server.data_dir.join("pg")).unwrap().uid(), uid);
    assert_eq!(server.psql("select 1;").code, Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn root_hands_postgres_to_an_unprivileged_user() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let server = Server::builder().set("backend.embedded.run_as=nobody").start();
    let owner = |pid: i32| std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    assert_eq!(owner(server.pid()), 0);
    assert_eq!(owner(server.postmaster()), nobody);
    assert_eq!(server.psql("select 1;").code, Some(0));
}

#[test]
fn a_strict_umask_does_not_lock_postgres_out() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let output = harness::command("sh")
        .args(["-c", "umask 077; exec \"$0\" init --data-dir \"$1\"", harness::binary()])
        .arg(&data)
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", crate::stderr(&output));
}

#[test]
fn an_idle_server_is_small() {
    let server = Server::start();
    let (now, _) = server.memory_kib();
    let limit = if cfg!(debug_assertions) { 60 } else { 25 };
    assert!(now < limit << 10, "{now} KiB");
}
