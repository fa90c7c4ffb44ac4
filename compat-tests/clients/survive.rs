//! What a pool must survive: dead backends, clients that die with locks, cancels at random, more
//! clients than anybody has connections for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{SOON, Server, eventually};
use crate::lent;
use crate::raw::*;

fn start(max_size: usize) -> Server {
    let size = format!("pool.max_size={max_size}");
    let server = Server::builder().arg("--insecure").set("server.worker_threads=1");
    // The last statement of a held session must stay the last one on its backend.
    server.set("pool.unpin_after_ms=60000").set(&size).start()
}

fn back(server: &Server) {
    eventually("every connection is back", SOON, || lent(server) == 0.0);
}

/// Ends the backend that runs, or ran last, a statement with this marker.
fn terminate(server: &Server, marker: &str) {
    let sql = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity \
         where query like '%{marker}%' and pid <> pg_backend_pid()"
    );
    let shown = "select string_agg(concat_ws(' ', pid, state, query), ' | ') from pg_stat_activity";
    let shown = server.direct_value(shown);
    assert_eq!(server.direct_value(&sql), "1", "{marker}: {shown}");
    let left = format!(
        "select count(*) from pg_stat_activity where query like '%{marker}%' \
         and pid <> pg_backend_pid()"
    );
    eventually("the backend is gone", SOON, || server.direct_value(&left) == "0");
}

/// The client's last words from the server.
fn assert_terminated(wire: &mut Wire, state: &str) {
    let messages = wire.rest();
    let errors: Vec<_> = messages.iter().filter(|m| m.0 == b'E').collect();
    assert_eq!(errors.len(), 1, "{state}: {}", render(&messages));
    let got = (field(&errors[0].1, b'S'), field(&errors[0].1, b'C'));
    assert_eq!((got.0.as_str(), got.1.as_str()), ("FATAL", "57P01"), "{state}");
}

#[test]
fn a_backend_may_die_in_every_state() {
    let server = start(2);
    Wire::to(&server).ready().values("create table dying (a int)");
    let client = || Wire::to(&server).ready();

    let mut idle = client();
    idle.values("select 'dying_idle'");
    terminate(&server, "dying_idle");
    assert_eq!(idle.values("select 'not told'"), ["not told"]);
    drop(idle);

    let mut open = client();
    open.values("begin; insert into dying values (1)");
    open.values("select 'dying_open'");
    terminate(&server, "dying_open");
    assert_terminated(&mut open, "in a transaction");

    let mut busy = client();
    busy.send(&query("select pg_sleep(60), 'dying_busy'"));
    crate::wait_until_running(&server, "dying_busy");
    terminate(&server, "dying_busy");
    assert_terminated(&mut busy, "running");

    let mut extended_busy = client();
    extended_busy.send(&[extended("select pg_sleep(60), 'dying_ext'", &[]), sync()].concat());
    crate::wait_until_running(&server, "dying_ext");
    terminate(&server, "dying_ext");
    assert_terminated(&mut extended_busy, "running, extended");

    let mut copy_in = client();
    copy_in.send(&query("copy /* dying_in */ dying from stdin"));
    copy_in.until(b'G');
    copy_in.send(&message(b'd', b"1\n"));
    terminate(&server, "dying_in");
    assert_terminated(&mut copy_in, "COPY in");

    let mut copy_out = client();
    let rows = "copy (select pg_sleep(0.01) from generate_series(1, 10000)) to stdout";
    copy_out.send(&query(&rows.replace("copy", "copy /* dying_out */")));
    copy_out.until(b'H');
    terminate(&server, "dying_out");
    assert_terminated(&mut copy_out, "COPY out");

    let mut pinned = client();
    pinned.values("create temp table mine (a int)");
    pinned.values("select 'dying_pinned'");
    terminate(&server, "dying_pinned");
    assert_terminated(&mut pinned, "pinned");

    assert_eq!(client().values("select count(*) from dying"), ["0"]);
    back(&server);
}

#[test]
fn who_waits_for_a_connection_that_dies_gets_another_one() {
    let server = start(1);
    let mut holder = Wire::to(&server).ready();
    holder.values("begin");
    holder.values("select 'dying_holder'");
    let mut waiter = Wire::to(&server).ready();
    waiter.send(&query("select 'served'"));
    std::thread::sleep(Duration::from_millis(200));
    terminate(&server, "dying_holder");
    assert!(render(&waiter.until(b'Z')).contains("served"));
    assert_terminated(&mut holder, "held");
    drop(waiter);
    back(&server);
}

#[test]
fn the_locks_of_a_killed_client_are_gone_within_a_second() {
    let server = start(4);
    Wire::to(&server).ready().values("create table locked (a int)");
    let states = [
        query("begin; lock locked"),
        query("begin; lock locked; savepoint s; select 1/0"),
        [extended("begin", &[]), extended("lock locked", &[]), flush()].concat(),
        query("begin; lock locked; select pg_sleep(60)"),
        query("begin; lock locked; copy locked from stdin"),
        [query("begin; lock locked"), query("select generate_series(1, 100000000)")].concat(),
    ];
    for state in states {
        let mut client = Wire::to(&server).ready();
        client.send(&state);
        let held = "select count(*) from pg_locks where relation = 'locked'::regclass \
            and mode = 'AccessExclusiveLock' and granted";
        eventually(&format!("the lock is held: {}", state.escape_ascii()), SOON, || {
            server.direct_value(held) == "1"
        });
        drop(client);
        let begun = Instant::now();
        let shown = state.escape_ascii();
        let what = format!("the lock is gone: {shown}");
        eventually(&what, SOON, || server.direct_value(held) == "0");
        // A second, and what a busy machine adds to it.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}: {shown}", begun.elapsed());
    }
    back(&server);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below
    }
}

#[test]
fn a_thousand_cancels_hit_nobody_else() {
    const CANCELS: usize = 1000;
    const TARGETS: usize = 4;
    let server = start(3);
    let done = AtomicBool::new(false);
    let (sent, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..TARGETS {
            let (server, done, sent, hits) = (&server, &done, &sent, &hits);
            let mut wire = Wire::to(server);
            wire.send(&usual_startup());
            let greeting = wire.until(b'Z');
            let key = greeting.into_iter().find(|m| m.0 == b'K').unwrap().1;
            scope.spawn(move || {
                let mut dice = Dice(number as u64 + 1);
                while sent.fetch_add(1, Ordering::Relaxed) < CANCELS {
                    let mut wire = Wire::to(server);
                    wire.send(&[&16u32.to_be_bytes(), &[4, 210, 22, 46], &key[..]].concat());
                    assert_eq!(wire.raw_rest(), b"");
                    std::thread::sleep(Duration::from_micros(dice.next(3000)));
                }
                done.store(true, Ordering::Relaxed);
            });
            scope.spawn(move || {
                let mut dice = Dice(number as u64 + 77);
                while !done.load(Ordering::Relaxed) {
                    let millis = dice.next(5);
                    wire.send(&query(&format!("select pg_sleep(0.00{millis})")));
                    let messages = wire.until(b'Z');
                    if let Some((_, body)) = messages.iter().find(|m| m.0 == b'E') {
                        assert_eq!(field(body, b'C'), "57014");
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for number in 0..4 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut wire = Wire::to(server).ready();
                let mut dice = Dice(number + 200);
                while !done.load(Ordering::Relaxed) {
                    let sql = format!("select pg_sleep(0.00{})", dice.next(4));
                    // Whoever is hit by a cancel that is not his fails here.
                    match dice.next(3) {
                        0 => drop(wire.values(&sql)),
                        1 => {
                            wire.send(&[extended(&sql, &[]), sync()].concat());
                            let messages = wire.until(b'Z');
                            assert!(messages.iter().all(|m| m.0 != b'E'), "{}", render(&messages));
                        }
                        _ => {
                            wire.values("begin");
                            wire.values(&sql);
                            wire.values("commit");
                        }
                    }
                }
            });
        }
    });
    assert!(hits.into_inner() > 20, "the cancels hit something");
    back(&server);
}

/// `SURVIVE_CLIENTS` sets how many; each takes a descriptor of this process and one of the server.
#[test]
fn thousands_of_clients_share_twenty_connections() {
    let clients = std::env::var("SURVIVE_CLIENTS").map_or(2000, |n| n.parse().unwrap());
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, most) = nix::sys::resource::getrlimit(files).unwrap();
    nix::sys::resource::setrlimit(files, most, most).unwrap();
    assert!(most > clients + 1000, "RLIMIT_NOFILE is {most}");
    let limit = format!("network.max_connections={}", clients + 100);
    let server = Server::builder().arg("--insecure").set("pool.max_size=20").set(&limit);
    let server = server.set("pool.max_wait_queue_size=20000").start();
    let before = server.memory_kib().0;
    let mut all: Vec<Wire> = (0..clients).map(|_| Wire::to(&server).ready()).collect();
    for round in 0..2 {
        for (at, wire) in all.iter_mut().enumerate() {
            wire.send(&query(&format!("select {}", at + round)));
        }
        for (at, wire) in all.iter_mut().enumerate() {
            let messages = wire.until(b'Z');
            let row = messages.iter().find(|m| m.0 == b'D').map(|m| m.1[6..].to_vec());
            let wanted = (at + round).to_string().into_bytes();
            assert_eq!(row, Some(wanted), "client {at}: {}", render(&messages));
        }
    }
    let each = server.memory_kib().0.saturating_sub(before) as f64 / clients as f64;
    eprintln!("{clients} clients: {each:.1} KiB each");
    assert!(each < 8.0 * if cfg!(debug_assertions) { 2.0 } else { 1.0 }, "{each} KiB per client");
    assert!(server.metric("rustydb_pool_total_connections{pool=\"main\"}") <= 20.0);
    drop(all);
    back(&server);
}

/// Clients that send their start-up packet byte by byte, for ever.
#[test]
fn slow_start_ups_hold_up_nobody() {
    use std::io::{Read, Write};
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=2")
        .set("network.connection_timeout_secs=4")
        .start();
    let begun = Instant::now();
    let mut slow: Vec<_> = (0..300).map(|_| server.connect()).collect();
    let packet = usual_startup();
    for byte in &packet[..8] {
        for stream in &mut slow {
            let _ = stream.write_all(&[*byte]);
        }
        let asked = Instant::now();
        assert_eq!(Wire::to(&server).ready().values("select 'served'"), ["served"]);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    for stream in &mut slow {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_postgresql_without_room_is_told_and_recovers() {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=5")
        .set("pool.acquire_timeout_secs=2")
        .start();
    // An idle connection would make room when it is given up for another role.
    let mut holder = Wire::to(&server).ready();
    holder.values("create role crowd login");
    holder.values("begin");
    let direct = |role: &[u8]| {
        let mut wire = Wire::direct(&server);
        wire.send(&startup(V3, &[b"user", role, b"database", b"rustydb"]));
        let last = std::iter::from_fn(|| wire.next()).find(|m| m.0 == b'Z' || m.0 == b'E');
        last.is_some_and(|m| m.0 == b'Z').then_some(wire)
    };
    // All that PostgreSQL has left.
    let crowd: Vec<Wire> = std::iter::from_fn(|| direct(b"crowd")).collect();
    assert!(crowd.len() > 5, "{}", crowd.len());
    let mut client = Wire::to(&server);
    client.send(&startup(V3, &[b"user", b"crowd", b"database", b"rustydb"]));
    let mut messages: Vec<_> = Vec::new();
    while let Some(message) = client.next() {
        let tag = message.0;
        messages.push(message);
        if tag == b'Z' {
            break;
        }
    }
    if messages.last().is_some_and(|m| m.0 == b'Z') {
        client.send(&query("select 1"));
        messages.extend(client.until(b'Z'));
    }
    let error = messages.iter().find(|m| m.0 == b'E').expect("PostgreSQL has no room");
    assert_eq!(field(&error.1, b'C'), "53300", "{}", render(&messages));
    drop(crowd);
    eventually("it recovers", SOON, || {
        let mut wire = Wire::to(&server);
        wire.send(&startup(V3, &[b"user", b"crowd", b"database", b"rustydb"]));
        let last = std::iter::from_fn(|| wire.next()).find(|m| m.0 == b'Z' || m.0 == b'E');
        last.is_some_and(|m| m.0 == b'Z') && wire.values("select 'served'") == ["served"]
    });
}
