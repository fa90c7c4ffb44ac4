//! Real clients of both doors against the built server and a real PostgreSQL.
// The rules for code that a socket can reach; a test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod driver;
mod hba;
mod http;
mod http2;
mod http_edges;
mod http_types;
mod https;
mod identity;
mod limits;
mod looks;
mod memory;
mod noise;
mod pooled;
mod probes;
mod psql;
mod psql_sessions;
mod raw;
mod rows;
mod script;
mod secured;
mod shown;
mod soak;
mod sql_files;
mod statements;
mod survive;
mod tls;
mod tools;
mod traps;
mod wire;
mod wire_abuse;
mod wire_scripts;

use std::time::Duration;

use harness::shared::{Shared, guarded, open};
use harness::{Server, eventually};

/// Statements in work whose text contains `marker`, as PostgreSQL itself sees it.
fn running(server: &Server, marker: &str) -> usize {
    let sql = format!(
        "select count(*) from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid() \
         and query like '%{marker}%'"
    );
    server.direct_value(&sql).parse().unwrap()
}

fn wait_until_running(server: &Server, marker: &str) {
    eventually(&format!("{marker} runs"), Duration::from_secs(20), || running(server, marker) > 0);
}

fn wait_until_gone(server: &Server, marker: &str) {
    let what = format!("{marker} is gone from PostgreSQL");
    eventually(&what, harness::SOON, || running(server, marker) == 0);
}

/// Connections lent out; `main` is the clients' pool.
fn lent(server: &Server) -> f64 {
    server.metric("rustydb_pool_active_connections{pool=\"main\"}")
}
