//! The traps of transaction pooling, numbered as they are in the trade: each has a test, here or
//! where the same is tested for another reason.
//!
//! | Trap | Test |
//! |---|---|
//! | 1 released too early, 2 skipped statements, 3 Sync in COPY, 4 Flush, 5 place of ParseComplete, 6 eviction in a batch, 7 names | below |
//! | 8 cached plans | `probes` 18, `wire/prepared-06-ddl` |
//! | 9 keys of statements, 10 session state, 11 asynchronous messages | below |
//! | 12 cancel | below (a client that waits), `wire/cancel-01`, `wire`: the right key, `survive`: a thousand at random |
//! | 13 vanished clients | below, `wire_abuse`: in the middle, after random messages |
//! | 14 dead backends | below, `survive`: in every state |
//! | 15 failover | with several backends only |
//! | 16 start-up | below, `wire_abuse`: strangers, broken packets, negotiation |
//! | 17 lengths | `wire`: unknown messages, `memory`, `wire_abuse`: a slow reader |
//! | 18 deadlock of two full directions | below |
//! | 19 implicit transactions, 20 shrinking | below; `memory` |
//! | 21 fairness | below (a full queue), `wire_abuse`: may try again |
//! | 22 side effects of SELECT, 23 statements by connection | below |
//! | 24 reload, 25 restart | `lifecycle/shutdown` |

use std::time::{Duration, Instant};

use crate::harness::{SOON, Server, eventually};
use crate::lent;
use crate::raw::*;
use crate::script::{Script, Way, difference};
use crate::wire_scripts::quiet;

/// A test of this name for the script of that name.
macro_rules! scripts {
    ($($test:ident: $script:literal;)*) => {
        $(#[test]
        fn $test() {
            check($script);
        })*

        const SCRIPTS: &[&str] = &[$($script),*];
    };
}

scripts! {
    t01_released_only_when_nothing_is_outstanding: "01-release-too-early";
    t02_skipped_statements_do_not_exist: "02-skipped-statements";
    t03_sync_inside_of_copy_is_ignored: "03-copy-sync";
    t04_flush_delivers_without_sync: "04-flush";
    t05_parse_complete_keeps_its_place: "05-order-of-parse-complete";
    t06_a_batch_may_be_longer_than_the_cache: "06-eviction-in-a-batch";
    t07_names_of_statements: "07-names";
    t09_the_same_text_is_not_the_same_statement: "09-keys";
    t10_session_state_does_not_leak: "10-session-state";
    t10_settings_that_no_parser_sees: "10-settings-in-functions";
    t11_asynchronous_messages_reach_their_own_client: "11-asynchronous";
    t13_vanished_clients_leave_nothing: "13-vanishing";
    t16_start_up_parameters: "16-startup";
    t19_implicit_transactions: "19-implicit-transactions";
    t20_after_large_messages: "20-shrinking";
    t22_selects_with_side_effects: "22-side-effects";
    t23_statements_belong_to_connections: "23-statements-by-connection";
}

fn check(name: &str) {
    let scripts = Script::all("wire/traps");
    let script = scripts.iter().find(|script| script.name == name).expect("the script exists");
    if let Err(different) = difference(Way::Displaced(quiet()), script) {
        panic!("{different}");
    }
}

#[test]
fn every_script_has_its_test() {
    let names: Vec<String> = Script::all("wire/traps").into_iter().map(|s| s.name).collect();
    assert_eq!(names, SCRIPTS);
}

/// A server with one connection, and a client that holds it.
fn occupied(queue: usize) -> (Server, Wire) {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=1")
        .set(&format!("pool.max_wait_queue_size={queue}"))
        .start();
    let mut holder = Wire::to(&server).ready();
    holder.values("begin");
    (server, holder)
}

fn waiting(server: &Server) -> f64 {
    server.metric("rustydb_pool_wait_queue_size{pool=\"main\"}")
}

fn error(messages: &[(u8, Vec<u8>)]) -> (String, String) {
    let body = &messages.iter().find(|m| m.0 == b'E').expect("an error").1;
    (field(body, b'C'), field(body, b'M'))
}

#[test]
fn t12_a_cancelled_client_waits_no_longer() {
    let (server, mut holder) = occupied(10);
    let mut client = Wire::to(&server);
    client.send(&usual_startup());
    let greeting = client.until(b'Z');
    let key = &greeting.iter().find(|m| m.0 == b'K').expect("a key").1;
    client.send(&query("select 'served'"));
    eventually("it waits", SOON, || waiting(&server) == 1.0);
    let mut canceller = Wire::to(&server);
    let request = cancel_request(key);
    canceller.send(&request);
    assert_eq!(canceller.raw_rest(), b"");
    let begun = Instant::now();
    let messages = client.until(b'Z');
    assert_eq!(error(&messages).0, "57014", "{}", render(&messages));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(waiting(&server), 0.0);
    holder.values("rollback");
    drop(holder);
    assert_eq!(client.values("select 'served'"), ["served"]);
}

#[test]
fn t14_a_connection_that_died_between_transactions_is_not_lent() {
    let server = Server::builder().arg("--insecure").set("pool.max_size=3").start();
    for _ in 0..3 {
        Wire::to(&server).ready().values("select 1");
    }
    let mut client = Wire::to(&server).ready();
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
        where backend_type = 'client backend' and usename = 'rustydb' and pid <> pg_backend_pid()";
    let left = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
        and usename = 'rustydb' and pid <> pg_backend_pid()";
    for _ in 0..10 {
        server.direct_value(kill);
        let gone = || server.direct_value(left) == "0";
        eventually("the backends are gone", SOON, gone);
        assert_eq!(client.values("select 'served'"), ["served"]);
        client = Wire::to(&server).ready();
    }
    eventually("nothing is lent", SOON, || lent(&server) == 0.0);
}

/// A client that writes for long before it reads; PostgreSQL stops reading when nobody takes its
/// answers, so a proxy that waits for one direction alone stands still for ever.
#[test]
fn t18_both_directions_may_be_full() {
    const STATEMENTS: usize = 3000;
    let server = Server::builder().arg("--insecure").start();
    let stream = server.connect();
    let mut wire = Wire::over(stream.try_clone().unwrap()).ready();
    let before = server.memory_kib().0;
    let value = "v".repeat(2000);
    let one = extended("select repeat($1, 4)", &[&value]);
    let writer = std::thread::spawn(move || {
        let mut wire = Wire::over(stream);
        for _ in 0..STATEMENTS {
            wire.send(&one);
        }
        wire.send(&sync());
    });
    std::thread::sleep(Duration::from_millis(500));
    let grown = server.memory_kib().1.saturating_sub(before);
    let messages = wire.until(b'Z');
    writer.join().unwrap();
    let rows = messages.iter().filter(|m| m.0 == b'D' && m.1.len() == 8006).count();
    assert_eq!(rows, STATEMENTS);
    assert!(grown < 8 << 10, "{grown} KiB");
}

#[test]
fn t21_a_full_queue_says_so_and_serves_in_order() {
    let (server, mut holder) = occupied(2);
    let mut waiters: Vec<Wire> = (0..2)
        .map(|n| {
            let mut wire = Wire::to(&server).ready();
            wire.send(&query(&format!("select to_char(clock_timestamp(), 'HH24:MI:SS.US'), {n}")));
            let queued = || waiting(&server) == f64::from(n) + 1.0;
            eventually("it waits", SOON, queued);
            wire
        })
        .collect();
    let mut refused = Wire::to(&server).ready();
    refused.send(&query("select 1"));
    let (code, text) = error(&refused.until(b'Z'));
    assert_eq!(code, "53300");
    assert!(text.contains("max_wait_queue_size") || text.contains(" 2 "), "{text}");
    holder.values("commit");
    drop(holder);
    let mut times = Vec::new();
    for mut wire in waiters.drain(..) {
        let messages = wire.until(b'Z');
        times.push(messages.into_iter().find(|m| m.0 == b'D').expect("a row"));
    }
    assert!(times[0] < times[1], "{times:?}");
    assert_eq!(refused.values("select 'served'"), ["served"]);
}
