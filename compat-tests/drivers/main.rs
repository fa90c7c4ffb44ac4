//! Drivers of other languages: each has a small program that tells on standard output what it saw.
//! It runs on PostgreSQL first and then through RustyDB, and must tell the same, byte for byte.
// The rules for code that a socket can reach; a test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

mod direct;
mod installed;
mod soak;
mod transcript;

use std::process::Command;

use installed::{Language, folder};
use transcript::compare;

/// Makes the command that runs a program, unless what it needs is not there.
type Program = fn() -> Option<Command>;

/// Every program: the name of its driver, and how it is run.
const PROGRAMS: [(&str, Program); 11] = [
    ("psycopg", || python("psycopg", "with_psycopg.py", &[])),
    ("asyncpg", || python("asyncpg", "with_asyncpg.py", &[])),
    ("sqlalchemy_psycopg", || python("sqlalchemy_psycopg", "with_sqlalchemy.py", &["psycopg"])),
    ("sqlalchemy_asyncpg", || python("sqlalchemy_asyncpg", "with_sqlalchemy.py", &["asyncpg"])),
    ("pg", || node("pg", "with_pg.js")),
    ("postgres_js", || node("postgres_js", "with_postgres_js.js")),
    ("pgx", || go("pgx", "with_pgx")),
    ("pq", || go("pq", "with_pq")),
    ("jdbc", java),
    ("sqlx", rust),
    ("odbc", odbc),
];

fn python(name: &str, program: &str, arguments: &[&str]) -> Option<Command> {
    let packages = installed::find(name, Language::Python)?;
    let mut command = Command::new(packages.join("venv/bin/python"));
    command.arg("-B").arg(folder().join("python").join(program)).args(arguments);
    Some(command)
}

fn node(name: &str, program: &str) -> Option<Command> {
    let packages = installed::find(name, Language::Node)?;
    let mut command = Command::new("node");
    command.arg("--no-deprecation").arg(folder().join("node").join(program));
    command.env("NODE_PATH", packages.join("node_modules"));
    Some(command)
}

fn go(name: &str, program: &str) -> Option<Command> {
    let cache = installed::find(name, Language::Go)?;
    let built = cache.join(program);
    let mut build = Command::new("go");
    // Nothing is fetched here: what is missing is `setup`'s to bring.
    build.args(["build", "-o"]).arg(&built).arg(format!("./{program}"));
    build.current_dir(folder().join("go")).env("GOPROXY", "off").env("GOFLAGS", "-mod=readonly");
    installed::build(&mut build);
    let mut command = Command::new(built);
    command.env("DRIVER_CASES", folder().join("cases"));
    Some(command)
}

fn java() -> Option<Command> {
    let cache = installed::find("jdbc", Language::Java)?;
    let (libraries, classes) = (cache.join("lib/*"), cache.join("classes"));
    let mut build = Command::new("javac");
    build.arg("-cp").arg(&libraries).arg("-d").arg(&classes);
    installed::build(build.arg(folder().join("java/WithJdbc.java")));
    let path = format!("{}:{}", classes.display(), libraries.display());
    let mut command = Command::new("java");
    command.args(["-Xmx1g", "-XX:TieredStopAtLevel=1", "-cp", &path, "WithJdbc"]);
    command.env("DRIVER_CASES", folder().join("cases"));
    Some(command)
}

fn rust() -> Option<Command> {
    let cache = installed::find("sqlx", Language::Rust)?;
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--locked", "--offline", "--manifest-path"]);
    build.arg(folder().join("rust/Cargo.toml")).env("CARGO_TARGET_DIR", &cache);
    installed::build(&mut build);
    let mut command = Command::new(cache.join("debug/with_sqlx"));
    command.env("DRIVER_CASES", folder().join("cases"));
    Some(command)
}

fn odbc() -> Option<Command> {
    let cache = installed::find("odbc", Language::Odbc)?;
    let libraries = cache.join("lib");
    let mut command = Command::new(cache.join("venv/bin/python"));
    command.arg("-B").arg(folder().join("python/with_odbc.py"));
    command.env("ODBC_DRIVER", libraries.join("psqlodbcw.so")).env("LD_LIBRARY_PATH", &libraries);
    // What this machine has set up for ODBC is none of ours.
    command.env("ODBCSYSINI", &cache).env("ODBCINI", cache.join("odbc.ini"));
    Some(command)
}

fn same(name: &str) {
    let (_, program) = PROGRAMS.iter().find(|(known, _)| *known == name).unwrap();
    if let Some(command) = program() {
        compare(name, &command);
    }
}

#[test]
fn python_psycopg() {
    same("psycopg");
}

#[test]
fn python_asyncpg() {
    same("asyncpg");
}

#[test]
fn python_sqlalchemy() {
    same("sqlalchemy_psycopg");
    same("sqlalchemy_asyncpg");
}

#[test]
fn node_pg() {
    same("pg");
}

#[test]
fn node_postgres_js() {
    same("postgres_js");
}

#[test]
fn go_pgx() {
    same("pgx");
}

#[test]
fn go_pq() {
    same("pq");
}

#[test]
fn java_jdbc() {
    same("jdbc");
}

#[test]
fn rust_sqlx() {
    same("sqlx");
}

#[test]
fn odbc_psqlodbc() {
    same("odbc");
}
