//! Drivers of other languages: each has a small program that tells on standard output what it saw.
//! It runs on PostgreSQL first and then through RustyDB, and must tell the same, byte for byte.
// The rules for code that a socket can reach; a test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

mod direct;
mod installed;
mod transcript;

use std::process::Command;

use installed::{Language, folder};
use transcript::compare;

fn python(name: &str, program: &str, arguments: &[&str]) {
    let Some(packages) = installed::find(name, Language::Python) else { return };
    let mut command = Command::new(packages.join("venv/bin/python"));
    command.arg("-B").arg(folder().join("python").join(program)).args(arguments);
    compare(name, &command);
}

#[test]
fn python_psycopg() {
    python("psycopg", "with_psycopg.py", &[]);
}

#[test]
fn python_asyncpg() {
    python("asyncpg", "with_asyncpg.py", &[]);
}

#[test]
fn python_sqlalchemy() {
    python("sqlalchemy_psycopg", "with_sqlalchemy.py", &["psycopg"]);
    python("sqlalchemy_asyncpg", "with_sqlalchemy.py", &["asyncpg"]);
}

fn node(name: &str, program: &str) {
    let Some(packages) = installed::find(name, Language::Node) else { return };
    let mut command = Command::new("node");
    command.arg("--no-deprecation").arg(folder().join("node").join(program));
    command.env("NODE_PATH", packages.join("node_modules"));
    compare(name, &command);
}

#[test]
fn node_pg() {
    node("pg", "with_pg.js");
}

#[test]
fn node_postgres_js() {
    node("postgres_js", "with_postgres_js.js");
}

fn go(name: &str, program: &str) {
    let Some(cache) = installed::find(name, Language::Go) else { return };
    let built = cache.join(program);
    let mut build = Command::new("go");
    // Nothing is fetched here: what is missing is `setup`'s to bring.
    build.args(["build", "-o"]).arg(&built).arg(format!("./{program}"));
    build.current_dir(folder().join("go")).env("GOPROXY", "off").env("GOFLAGS", "-mod=readonly");
    installed::build(&mut build);
    let mut command = Command::new(built);
    command.env("DRIVER_CASES", folder().join("cases"));
    compare(name, &command);
}

#[test]
fn go_pgx() {
    go("pgx", "with_pgx");
}

#[test]
fn go_pq() {
    go("pq", "with_pq");
}

#[test]
fn java_jdbc() {
    let Some(cache) = installed::find("jdbc", Language::Java) else { return };
    let (libraries, classes) = (cache.join("lib/*"), cache.join("classes"));
    let mut build = Command::new("javac");
    build.arg("-cp").arg(&libraries).arg("-d").arg(&classes);
    installed::build(build.arg(folder().join("java/WithJdbc.java")));
    let path = format!("{}:{}", classes.display(), libraries.display());
    let mut command = Command::new("java");
    command.args(["-Xmx1g", "-XX:TieredStopAtLevel=1", "-cp", &path, "WithJdbc"]);
    command.env("DRIVER_CASES", folder().join("cases"));
    compare("jdbc", &command);
}

#[test]
fn rust_sqlx() {
    let Some(cache) = installed::find("sqlx", Language::Rust) else { return };
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--locked", "--offline", "--manifest-path"]);
    build.arg(folder().join("rust/Cargo.toml")).env("CARGO_TARGET_DIR", &cache);
    installed::build(&mut build);
    let mut command = Command::new(cache.join("debug/with_sqlx"));
    command.env("DRIVER_CASES", folder().join("cases"));
    compare("sqlx", &command);
}

#[test]
fn odbc() {
    let Some(cache) = installed::find("odbc", Language::Odbc) else { return };
    let libraries = cache.join("lib");
    let mut command = Command::new(cache.join("venv/bin/python"));
    command.arg("-B").arg(folder().join("python/with_odbc.py"));
    command.env("ODBC_DRIVER", libraries.join("psqlodbcw.so")).env("LD_LIBRARY_PATH", &libraries);
    // What this machine has set up for ODBC is none of ours.
    command.env("ODBCSYSINI", &cache).env("ODBCINI", cache.join("odbc.ini"));
    compare("odbc", &command);
}
