//! Mixed clients for a while: nothing grows. `make soak` runs it for ten minutes, `make test` for
//! twenty seconds; `SOAK_SECONDS` says how long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Server, eventually};
use crate::lent;
use crate::raw::*;

/// Clients of each kind.
const EACH: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Size {
    memory_kib: u64,
    descriptors: usize,
    /// What the backends have allocated in all, in KiB.
    backends_kib: u64,
}

impl Size {
    fn of(server: &Server) -> Self {
        let folder = format!("/proc/{}/fd", server.pid());
        Self {
            memory_kib: server.memory_kib().0,
            descriptors: std::fs::read_dir(folder).unwrap().count(),
            backends_kib: backends(server).iter().map(|pid| anonymous_kib(*pid)).sum(),
        }
    }
}

fn backends(server: &Server) -> Vec<i32> {
    let sql = "select string_agg(pid::text, ' ') from pg_stat_activity \
        where backend_type = 'client backend' and pid <> pg_backend_pid()";
    server.direct_value(sql).split(' ').filter_map(|pid| pid.parse().ok()).collect()
}

/// Memory that is a process's own.
fn anonymous_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
}

/// What one kind of client does again and again.
type Work = fn(&Server, &mut Wire, usize);

const KINDS: [Work; 7] = [simple, prepared, named_statements, settings, copies, failures, pinned];

fn run(wire: &mut Wire, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    wire.send(bytes);
    wire.until(b'Z')
}

fn simple(_: &Server, wire: &mut Wire, turn: usize) {
    let turn = turn.to_string();
    assert_eq!(wire.values(&format!("select {turn}")), [turn.as_str()]);
    wire.values("begin");
    wire.values("insert into soak values (1)");
    wire.values(if turn.len().is_multiple_of(2) { "commit" } else { "rollback" });
}

fn prepared(_: &Server, wire: &mut Wire, turn: usize) {
    let value = turn.to_string();
    let messages = run(wire, &[extended("select $1::int", &[&value]), sync()].concat());
    assert!(messages.iter().any(|m| m.0 == b'D' && m.1.ends_with(value.as_bytes())));
}

/// A text that no client has sent before, ever.
fn named_statements(_: &Server, wire: &mut Wire, turn: usize) {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let sql = format!("select {unique} + $1::int -- {}", "long ".repeat(200));
    let name = format!("s{turn}");
    let bytes = [
        parse(&name, &sql, &[]),
        bind("", &name, &[Some(b"1")], (0, 0)),
        execute("", 0),
        about(b'C', b'S', &name),
        sync(),
    ];
    let messages = run(wire, &bytes.concat());
    assert!(messages.iter().all(|m| m.0 != b'E'), "{}", render(&messages));
}

fn settings(_: &Server, wire: &mut Wire, turn: usize) {
    let memory = format!("{}MB", 1 + turn % 20);
    wire.values(&format!("set work_mem = '{memory}'; set application_name = 'soak {turn}'"));
    assert_eq!(wire.values("show work_mem"), [memory]);
}

fn copies(_: &Server, wire: &mut Wire, _: usize) {
    wire.send(&query("copy soak from stdin"));
    wire.until(b'G');
    run(wire, &[message(b'd', b"2\n3\n"), message(b'c', b"")].concat());
    run(wire, &query("copy (select generate_series(1, 20000)) to stdout"));
}

fn failures(server: &Server, wire: &mut Wire, turn: usize) {
    run(wire, &query("select 1/0"));
    run(wire, &[parse("never", "selec", &[]), flush(), sync()].concat());
    run(wire, &query("begin; select nothere"));
    run(wire, &query("rollback"));
    let mut vanishing = Wire::to(server).ready();
    vanishing.send(&query(["begin; select 1", "select pg_sleep(0.01)", "begin"][turn % 3]));
}

fn pinned(_: &Server, wire: &mut Wire, _: usize) {
    wire.values("create temp table mine (a int)");
    wire.values("listen soak; notify soak; unlisten soak");
    wire.values("prepare p as select 1");
    wire.values("execute p");
    wire.values("select pg_advisory_lock(1, pg_backend_pid())");
    wire.values("drop table mine");
    wire.values("deallocate p; select pg_advisory_unlock_all()");
}

fn client(server: &Server, work: Work, done: &AtomicBool) {
    let mut turn = 0;
    while !done.load(Ordering::Relaxed) {
        let mut wire = Wire::to(server).ready();
        for _ in 0..50 {
            work(server, &mut wire, turn);
            turn += 1;
            if done.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

#[test]
fn nothing_grows() {
    let seconds: f64 = std::env::var("SOAK_SECONDS").map_or(20.0, |n| n.parse().unwrap());
    let server = Server::builder().arg("--insecure").set("pool.max_size=8").start();
    Wire::to(&server).ready().values("create table soak (a int)");
    let done = AtomicBool::new(false);
    let (here, end) = (&server, &done);
    let sizes = std::thread::scope(|scope| {
        for work in KINDS {
            for _ in 0..EACH {
                scope.spawn(move || client(here, work, end));
            }
        }
        // What is cached is cached by then.
        let begun = Instant::now();
        let wait = |part: f64| {
            let until = Duration::from_secs_f64(seconds * part);
            std::thread::sleep(until.saturating_sub(begun.elapsed()));
            Size::of(&server)
        };
        let sizes = [wait(0.4), wait(0.7), wait(1.0)];
        done.store(true, Ordering::Relaxed);
        sizes
    });
    let [first, _, last] = sizes;
    let grown = last.memory_kib.saturating_sub(first.memory_kib);
    assert!(grown < 6 << 10, "{grown} KiB more: {sizes:?}");
    assert!(last.descriptors < first.descriptors + 40, "{sizes:?}");
    let grown = last.backends_kib.saturating_sub(first.backends_kib);
    assert!(grown < 8 * (4 << 10), "PostgreSQL has {grown} KiB more: {sizes:?}");
    eventually("every connection is back", Duration::from_secs(5), || lent(&server) == 0.0);
    // A client sees its own statements alone, whatever connection it is lent.
    let mut wires: Vec<Wire> = (0..8).map(|_| Wire::to(&server).ready()).collect();
    for wire in &mut wires {
        wire.values("begin");
        assert_eq!(wire.values("select count(*) from pg_prepared_statements"), ["0"]);
    }
}
