//! A server that all tests of a kind use.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{Builder, Server};

/// A static is never dropped, so a small process waits for the end of this one, however it comes,
/// and then ends the server and removes its directory.
pub struct Shared {
    pub server: Server,
    /// Its standard input is the wire that it waits on.
    _undertaker: Child,
}

const UNDERTAKER: &str = "trap '' INT TERM HUP; read -r _; kill -QUIT \"$1\"; \
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
    kill -0 \"$1\" 2>/dev/null || break; sleep 0.2; done; sleep 0.5; rm -rf -- \"$2\"";

impl Shared {
    pub fn start(builder: Builder) -> Self {
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
pub fn guarded() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    // The tests of one role run at the same time.
    let server = || Server::builder().set("api.max_open_transactions_per_role=1000");
    &SERVER.get_or_init(|| Shared::start(server())).server
}

/// A server that takes everybody at his word, as the embedded PostgreSQL's own socket does.
pub fn open() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    &SERVER.get_or_init(|| Shared::start(Server::builder().arg("--insecure"))).server
}
