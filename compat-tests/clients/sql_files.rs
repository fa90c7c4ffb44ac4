//! Scripts on every chapter of the reference of SQL commands (`compat-tests/sql`): `psql` says
//! through RustyDB, among other clients, what it says on PostgreSQL. `make regress` does the same
//! with PostgreSQL's own suite.

use std::path::Path;
use std::process::Command;

use crate::harness::{Psql, feed};
use crate::noise::Noise;
use crate::wire_scripts::crowded;

fn run(mut command: Command, script: &str) -> String {
    command.args(["-a", "-q"]).env("LC_MESSAGES", "C");
    let psql = Psql::from(feed(&mut command, script));
    masked(&format!("{}\n{}", psql.stdout, psql.stderr))
}

/// Without the process numbers of notifications and the numbers of temporary schemas.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = ["with PID ", "pg_temp_"]
        .iter()
        .filter_map(|mark| rest.find(mark).map(|at| at + mark.len()))
        .min()
    {
        out.push_str(&rest[..at]);
        rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

#[test]
fn every_group_of_commands_answers_alike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/sql");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    let server = crowded();
    let noise = Noise::start(server, 4);
    let mut found = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let reference = run(server.direct_psql_command(), &script);
        let ours = run(server.psql_command(), &script);
        if ours == reference {
            continue;
        }
        let pairs = reference.lines().zip(ours.lines()).enumerate();
        let lines = reference.lines().collect::<Vec<_>>();
        let differing = pairs.into_iter().find(|(_, (a, b))| a != b);
        let text = differing.map_or("the lengths differ".into(), |(at, (a, b))| {
            let before = lines[at.saturating_sub(3)..at].join("\n      ");
            format!("      {before}\n  PostgreSQL: {a}\n  RustyDB:    {b}")
        });
        found.push(format!("{}\n{text}\n", path.display()));
    }
    assert!(found.is_empty(), "{} files differ:\n{}", found.len(), found.join("\n"));
    noise.stop();
}
