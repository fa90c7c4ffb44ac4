//! What the console tells of clients and of the process: encryption, names, memory.

use crate::admin::{SOON, leave, line, row_of, say, staying, table};
use crate::guarded;
use crate::harness::{Server, eventually, piped};
use crate::secured::secured;

/// The row of the client with this process number, as the client itself knows it.
fn name_of(server: &Server, marker: &str) -> Vec<String> {
    let clients = table(server, "CLIENTS");
    let names = clients.iter().map(|row| row["application_name"].clone());
    names.filter(|name| name.contains(marker)).collect()
}

#[test]
fn the_encryption_of_clients_is_shown() {
    let secured = secured();
    let mut psql = secured.psql("rustydb");
    psql.env("PGPASSWORD", &secured.server.password).env("PGAPPNAME", "encrypted-one");
    let mut encrypted = piped(psql.args(["-At"]));
    say(&mut encrypted, "select 'here';\n");
    assert_eq!(line(&mut encrypted), "here");
    let mut psql = secured.server.psql_command();
    psql.env("PGSSLMODE", "disable").env("PGAPPNAME", "clear-one");
    let mut clear = piped(psql.args(["-At"]));
    say(&mut clear, "select 'here';\n");
    assert_eq!(line(&mut clear), "here");
    let clients = table(secured.server, "CLIENTS");
    let tls = |name: &str| row_of(&clients, "application_name", name)["tls"].clone();
    assert_eq!(tls("encrypted-one"), "TLSv1.3/TLS_AES_256_GCM_SHA384");
    assert_eq!(tls("clear-one"), "");
    leave(encrypted);
    leave(clear);
}

#[test]
fn a_client_is_shown_by_the_name_that_it_has_now() {
    for mode in ["transaction", "session"] {
        let server = Server::builder().set(&format!("pool.pooling_mode={mode}")).start();
        let mut client = staying(&server, "shown-first");
        let mut named = |script: &str, expected: &[&str]| {
            say(&mut client, script);
            line(&mut client);
            eventually(&format!("{mode}: {script}"), SOON, || {
                name_of(&server, "shown") == expected
            });
        };
        named("select 1;\n", &["shown-first"]);
        named("set application_name = 'shown-second';\n", &["shown-second"]);
        named("begin; set local application_name = 'shown-local';\n", &["shown-local"]);
        line(&mut client);
        let mut named = |script: &str, expected: &[&str]| {
            say(&mut client, script);
            line(&mut client);
            eventually(&format!("{mode}: {script}"), SOON, || {
                name_of(&server, "shown") == expected
            });
        };
        named("rollback;\n", &["shown-second"]);
        named("reset application_name;\n", &["shown-first"]);
        leave(client);
    }
}

#[test]
fn the_memory_of_the_process_is_shown() {
    let memory = table(guarded(), "MEM");
    let bytes = |name: &str| row_of(&memory, "name", name)["memtotal"].parse::<u64>().unwrap();
    assert!(bytes("resident") > 1 << 20, "{memory:?}");
    assert!(bytes("resident_peak") >= bytes("resident") && bytes("virtual") > bytes("resident"));
}
