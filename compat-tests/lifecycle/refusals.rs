//! What keeps the server from starting: one sentence, and an exit code for each kind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{self, Server};
use crate::{is_root, postgres_processes, refuses, rustydb, stderr, stdout};

#[test]
fn a_taken_port_is_4_for_each_door() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for key in ["network.port", "api.port", "monitoring.metrics_port"] {
        let builder = Server::builder()
            .set(&format!("{key}={port}"))
            .set("api.listen_addr=127.0.0.1")
            .set("network.listen_addr=127.0.0.1");
        refuses(builder, 4, &["127.0.0.1", &port.to_string(), "already in use"]);
    }
}

#[test]
fn a_live_unix_socket_is_4_and_stays_alive() {
    let dir = harness::temp_dir();
    let port = harness::free_port();
    let path = dir.path().join(format!(".s.PGSQL.{port}"));
    let live = UnixListener::bind(&path).unwrap();
    let builder = Server::builder()
        .set(&format!("network.port={port}"))
        .set(&format!("network.unix_socket_dir={}", dir.path().display()));
    refuses(builder, 4, &[path.to_str().unwrap(), "already in use"]);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    drop(live);
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let dir = harness::temp_dir();
    let port = harness::free_port();
    let path = dir.path().join(format!(".s.PGSQL.{port}"));
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = Server::builder()
        .set(&format!("network.port={port}"))
        .set(&format!("network.unix_socket_dir={}", dir.path().display()))
        .start();
    let mut psql = server.psql_command();
    let output = psql.arg("-h").arg(dir.path()).args(["-Atc", "select 1"]).output().unwrap();
    assert_eq!(stdout(&output), "1\n", "{}", stderr(&output));
}

#[test]
fn a_socket_directory_that_cannot_be_used_is_2() {
    let long = format!("network.unix_socket_dir=/tmp/{}", "x".repeat(120));
    refuses(Server::builder().set(&long), 2, &["Unix socket", "SUN_LEN"]);
    let absent = "network.unix_socket_dir=/nowhere/at/all";
    refuses(Server::builder().set(absent), 2, &["/nowhere/at/all", "No such file"]);
}

#[test]
fn an_address_of_another_machine_is_2() {
    let builder = Server::builder().set("network.listen_addr=192.0.2.1");
    refuses(builder, 2, &["192.0.2.1", "cannot listen"]);
}

#[test]
fn a_foreign_data_directory_is_2_and_untouched() {
    let dir = harness::temp_dir();
    std::fs::write(dir.path().join("thesis.doc"), "years of work").unwrap();
    let builder = Server::builder().data_dir(dir.path());
    refuses(builder, 2, &[dir.path().to_str().unwrap(), "was not made by RustyDB", "--data-dir"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_second_instance_is_1_and_names_the_first() {
    let server = Server::start();
    let builder = Server::builder().data_dir(&server.data_dir);
    refuses(builder, 1, &["another RustyDB", &format!("process {}", server.pid())]);
    assert_eq!(server.psql("select 1;").code, Some(0));
}

/// Written by a shell, so that no child of another test holds it open while it is executed.
fn script(path: &Path, says: &str) {
    let text = format!("printf '#!/bin/sh\\necho \"{says}\"\\n' > \"$0\" && chmod 755 \"$0\"");
    let status = harness::command("sh").args(["-c", &text]).arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn no_postgres_or_one_that_is_too_old_is_3() {
    let bin = harness::temp_dir();
    let set = format!("backend.embedded.pg_bin_dir={}", bin.path().display());
    let words = [bin.path().to_str().unwrap(), "no PostgreSQL 13 to 18", "pg_bin_dir"];
    refuses(Server::builder().set(&set), 3, &words);
    script(&bin.path().join("postgres"), "postgres (PostgreSQL) 9.6.24");
    script(&bin.path().join("initdb"), "initdb (PostgreSQL) 9.6.24");
    refuses(Server::builder().set(&set), 3, &["no PostgreSQL 13 to 18", "9.6.24"]);
}

#[test]
fn a_cluster_of_a_version_that_is_not_installed_is_3() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let output = rustydb(&["init", "--data-dir", data.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let absent = |major: &u32| !Path::new(&format!("/usr/lib/postgresql/{major}")).exists();
    let major = (13..=18).find(absent).unwrap();
    let version = data.join("pg/PG_VERSION");
    let before = std::fs::read_to_string(&version).unwrap();
    std::fs::write(&version, format!("{major}\n")).unwrap();
    let words = [format!("made by PostgreSQL {major}"), format!("postgresql-{major}")];
    let words = words.each_ref().map(String::as_str);
    refuses(Server::builder().data_dir(&data), 3, &words);
    std::fs::write(&version, before).unwrap();
    Server::builder().data_dir(&data).start();
}

#[test]
fn a_postgres_that_does_not_start_is_3_with_its_own_words() {
    let builder = Server::builder().set("backend.embedded.extra_conf=work_mem=plenty");
    let failure = refuses(builder, 3, &["PostgreSQL did not start", "work_mem", "plenty"]);
    assert!(failure.stderr.contains("invalid value"), "{}", failure.stderr);
}

#[test]
fn a_data_directory_that_postgres_cannot_reach_is_2() {
    if !is_root() {
        println!("skipped: only root runs PostgreSQL as another user");
        return;
    }
    let home = harness::temp_dir();
    let private = home.path().join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    let data = private.join("data");
    let words = [private.to_str().unwrap(), "may not enter", "--data-dir"];
    refuses(Server::builder().data_dir(&data), 2, &words);
    assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_data_directory_with_a_name_too_long_for_a_socket_is_2() {
    let home = harness::temp_dir();
    let data = home.path().join("x".repeat(100));
    refuses(Server::builder().data_dir(&data), 2, &["longer than the 107 bytes", "--data-dir"]);
    assert!(!data.join("pg").exists());
}

#[test]
fn a_signal_during_the_start_ends_it() {
    let mut child = harness::command(harness::binary());
    let dir = harness::temp_dir();
    let port = harness::free_port();
    let mut child = child
        .args(["--backend", &format!("postgresql://u:p@127.0.0.1:{}/d", harness::free_port())])
        .args(["--listen", "127.0.0.1", "--port", "0", "--metrics-port", "0"])
        .args(["--api-listen", "127.0.0.1", "--api-port", &port.to_string()])
        .args(["--unix-socket-dir", "none", "--data-dir"])
        .arg(dir.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}/health/startup");
    // The HTTP door answers probes while the rest starts.
    harness::eventually("starting", crate::SOON, || match ureq::get(&url).call() {
        Err(ureq::Error::StatusCode(503)) => true,
        Err(_) => false,
        Ok(answer) => panic!("started: {answer:?}"),
    });
    assert_eq!(crate::get(&format!("http://127.0.0.1:{port}/health/live"), None).0, 200);
    let (ready, body) = crate::get(&format!("http://127.0.0.1:{port}/health/ready"), None);
    assert_eq!(ready, 503);
    assert!(body.contains("not_ready"), "{body}");
    let begun = Instant::now();
    harness::signal_process(child.id() as i32, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn an_interrupted_first_start_is_carried_on() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    // What is left of an initdb that was killed half-way.
    let half = data.join("pg.new");
    std::fs::create_dir_all(half.join("base")).unwrap();
    std::fs::write(data.join("RUSTYDB"), "1\n").unwrap();
    std::fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o711)).unwrap();
    let mut server = Server::builder().data_dir(&data).start();
    assert_eq!(server.psql("select 1;").code, Some(0));
    assert!(!half.exists());
    server.stop();
    assert_eq!(postgres_processes(&data), Vec::<i32>::new());
}
