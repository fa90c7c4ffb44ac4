//! Runs a program on PostgreSQL and through RustyDB, and compares what it says.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::direct;
use crate::harness::{Server, command};

/// Clients that a program runs at once in the part that is about many of them.
pub const CLIENTS: u32 = 40;

/// Connections that all of them share.
const CONNECTIONS: u32 = 4;

/// Longest time a program may take, on a machine that has other things to do too.
const PATIENCE: Duration = Duration::from_secs(150);

/// The last line of every transcript.
pub const END: &str = "--- end";

/// Starts a server of the program's own and runs the program twice.
pub fn compare(name: &str, program: &Command) {
    let server = server(CONNECTIONS);
    let direct_port = direct::open(&server);
    let [reference, ours] =
        [("direct", direct_port), ("pooled", server.port)].map(|(way, port)| {
            let database = format!("{name}_{way}");
            let created = server.direct_psql(&format!("create database {database}"));
            assert_eq!(created.stderr, "");
            run(program, &server, (port, CLIENTS), &database).replace(&database, "the_database")
        });
    assert_same(&ours, &reference);
}

/// A server of which so many connections are shared.
pub fn server(connections: u32) -> Server {
    // The system role's share does no harm here, and PostgreSQL allows as many more clients, which
    // is what a program needs when it runs without RustyDB.
    Server::builder()
        .set(&format!("pool.max_size={connections}"))
        .set(&format!("pool.reserved_size={}", CLIENTS + 20))
        .start()
}

/// Fails with the first lines that differ.
pub fn assert_same(ours: &str, reference: &str) {
    assert!(reference.ends_with(&format!("{END}\n")), "it did not end: {}", tail(reference));
    let pairs = ours.lines().zip(reference.lines());
    for (number, (our, theirs)) in pairs.enumerate() {
        assert!(our == theirs, "line {}:\nPostgreSQL: {theirs}\nRustyDB:    {our}", number + 1);
    }
    assert!(ours == reference, "RustyDB's transcript ends early: {}", tail(ours));
}

/// Runs a program with so many clients on a port, in a database of its own.
pub fn run(
    program: &Command,
    server: &Server,
    (port, clients): (u16, u32),
    database: &str,
) -> String {
    let folder = server.socket_dir.parent().unwrap();
    let (out, err) =
        (folder.join(format!("{database}.out")), folder.join(format!("{database}.err")));
    let mut command = command(program.get_program().to_str().unwrap());
    command
        .args(program.get_args())
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", "rustydb")
        .env("PGPASSWORD", &server.password)
        .env("PGDATABASE", database)
        .env("DRIVER_CLIENTS", clients.to_string())
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let (out, err) = (read(&out), read(&err));
    let succeeded = status.is_some_and(|status| status.success());
    assert!(succeeded, "{database}: {status:?} after: {}\n{}", tail(&out), tail(&err));
    out
}

/// The last few lines, which tell where a program stopped.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(3000);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
