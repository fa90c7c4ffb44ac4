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
mod http_edges;
mod http_types;
mod https;
mod identity;
mod limits;
mod looks;
mod memory;
mod noise;
mod probes;
mod psql;
mod psql_sessions;
mod raw;
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

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use harness::{Builder, Server, eventually};

/// A server that all tests of a kind use. A static is never dropped, so a small process waits for
/// the end of this one, however it comes, and then ends the server and removes its directory.
struct Shared {
    server: Server,
    /// Its standard input is the wire that it waits on.
    _undertaker: Child,
}

const UNDERTAKER: &str = "trap '' INT TERM HUP; read -r _; kill -QUIT \"$1\"; \
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
    kill -0 \"$1\" 2>/dev/null || break; sleep 0.2; done; sleep 0.5; rm -rf -- \"$2\"";

impl Shared {
    fn start(builder: Builder) -> Self {
        let server = builder.start();
        let undertaker = Command::new("sh")
            .args(["-c", UNDERTAKER, "sh", &server.pid().to_string()])
            .arg(server.socket_dir.parent().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { server, _undertaker: undertaker }
    }
}

/// The usual server: passwords are asked for.
fn guarded() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    &SERVER.get_or_init(|| Shared::start(Server::builder())).server
}

/// A server that takes everybody at his word, as the embedded PostgreSQL's own socket does.
fn open() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    &SERVER.get_or_init(|| Shared::start(Server::builder().arg("--insecure"))).server
}

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
    eventually(&what, Duration::from_secs(2), || running(server, marker) == 0);
}

/// Connections lent out; `main` is the clients' pool.
fn lent(server: &Server) -> f64 {
    server.metric("rustydb_pool_active_connections{pool=\"main\"}")
}
