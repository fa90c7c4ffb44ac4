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

fn python(name: &str, arguments: &[&str]) {
    let Some(packages) = installed::find(name, Language::Python) else { return };
    let mut command = Command::new(packages.join("venv/bin/python"));
    let script = format!("python/with_{}.py", name.split('_').next().unwrap());
    command.arg("-B").arg(folder().join(script)).args(arguments);
    compare(name, &command);
}

#[test]
fn python_psycopg() {
    python("psycopg", &[]);
}
