//! The client libraries in `clients/`: each has its own tests, which are run against a server here.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::pki::{Authority, Files};
use crate::harness::{Server, temp_dir};

/// Exit code of a `test` script whose language is not installed.
const SKIPPED: i32 = 77;

/// Longest time that the tests of a library may take, the packages' arrival included.
const PATIENCE: Duration = Duration::from_secs(480);

/// Runs `clients/<language>/test`.
fn library(language: &str) {
    run(&format!("{language}/test"));
}

/// A server with this certificate.
fn encrypted(files: &Files) -> Server {
    Server::builder()
        .set(&format!("security.tls_cert_path={}", files.cert.display()))
        .set(&format!("security.tls_key_path={}", files.key.display()))
        .start()
}

/// Runs a program of `clients/` against servers of its own, in clear and with TLS; one of them has
/// a certificate that has signed itself.
fn run(program: &str) {
    let folder = temp_dir();
    let authority = Authority::new("the tests' authority");
    let files = authority.issue(folder.path(), "server", "localhost", &["localhost", "127.0.0.1"]);
    let root = authority.write(folder.path(), "root");
    let server = encrypted(&files);
    let own = Authority::issue_self_signed(folder.path(), "own", &["localhost"]);
    let self_signed = encrypted(&own);
    let url = |server: &Server, host: &str, more: &str| {
        let (password, port) = (&server.password, server.port);
        format!("rustydb://rustydb:{password}@{host}:{port}/rustydb{more}")
    };
    let script = format!("{}/clients/{program}", env!("CARGO_MANIFEST_DIR"));
    let log = folder.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let mut command = Command::new("nice");
    command
        .arg(script)
        .env("RUSTYDB_URL", url(&server, "127.0.0.1", "?tls=disable"))
        .env("RUSTYDB_TLS_URL", url(&server, "localhost", ""))
        .env("RUSTYDB_TLS_CA", &root)
        .env("RUSTYDB_SELF_SIGNED_URL", url(&self_signed, "localhost", ""))
        .env("RUSTYDB_SELF_SIGNED_CERT", &own.cert)
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out);
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    match status.and_then(|status| status.code()) {
        Some(0) => {}
        Some(SKIPPED) => eprintln!("skipped: {}", said.trim()),
        code => panic!("clients/{program} ended with {code:?}:\n{said}\n{}", server.log()),
    }
}

#[test]
fn javascript() {
    library("javascript");
}

#[test]
fn java() {
    library("java");
}

#[test]
fn python() {
    library("python");
}

#[test]
fn rust() {
    library("rust");
}

#[test]
fn rust_as_its_readme_says() {
    run("rust/readme");
}
