//! All drivers at once, again and again: nothing grows. `make soak` runs it for ten minutes.

use std::thread;
use std::time::{Duration, Instant};

use crate::PROGRAMS;
use crate::harness::Server;
use crate::transcript::{END, run, server};

/// Connections that all of them share.
const CONNECTIONS: u32 = 12;

/// Clients of each program in the part that is about many of them.
const CLIENTS: u32 = 10;

/// What RustyDB and its backends have.
#[derive(Debug)]
struct Size {
    memory_kib: u64,
    descriptors: usize,
    backends: u32,
}

impl Size {
    fn of(server: &Server) -> Self {
        let folder = format!("/proc/{}/fd", server.pid());
        let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
        Self {
            memory_kib: server.memory_kib().0,
            descriptors: std::fs::read_dir(folder).unwrap().count(),
            backends: server.direct_value(sql).parse().unwrap(),
        }
    }
}

#[test]
#[ignore = "takes SOAK_SECONDS; make soak runs it"]
fn nothing_grows_under_all_drivers() {
    let seconds: u64 = std::env::var("SOAK_SECONDS").map_or(600, |n| n.parse().unwrap());
    let server = &server(CONNECTIONS);
    let begun = Instant::now();
    let mut sizes = Vec::new();
    let mut round = 0;
    // The first round fills what is cached, and three more are to be compared.
    while begun.elapsed() < Duration::from_secs(seconds) || round < 4 {
        thread::scope(|scope| {
            for (name, program) in PROGRAMS {
                scope.spawn(move || {
                    let Some(command) = program() else { return };
                    let database = format!("{name}_{round}");
                    let made = server.direct_psql(&format!("create database {database}"));
                    assert_eq!(made.stderr, "");
                    let said = run(&command, server, (server.port, CLIENTS), &database);
                    assert!(said.ends_with(&format!("{END}\n")), "{database}: {said}");
                    let gone = server.psql(&format!("drop database {database}"));
                    assert_eq!(gone.stderr, "");
                });
            }
        });
        sizes.push(Size::of(server));
        round += 1;
    }
    let (first, last) = (&sizes[1], sizes.last().unwrap());
    let grown = last.memory_kib.saturating_sub(first.memory_kib);
    assert!(grown < 6 << 10, "{grown} KiB more: {sizes:?}");
    assert!(last.descriptors < first.descriptors + 40, "{sizes:?}");
    // Those of the system role, and the one that asks.
    assert!(last.backends <= CONNECTIONS + 6, "{sizes:?}");
    eprintln!("{round} rounds in {:?}: {first:?}, then {last:?}", begun.elapsed());
}
