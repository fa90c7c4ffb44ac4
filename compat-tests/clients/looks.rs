//! Statements that RustyDB runs itself on a client's connection: they have a deadline, nobody waits
//! for them in vain, and what comes meanwhile is not lost.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{SOON, Server, eventually, signal_process};
use crate::lent;
use crate::raw::*;

/// Time after which a held connection is looked at, and after which that is certain to be under way.
/// Far less than what a client that hangs would wait.
const AT_ONCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
const LOOKED: Duration = Duration::from_millis(900);

/// A server, and a client with its cancel key.
fn start(limit: u32) -> (Server, Wire, Vec<u8>) {
    let server = Server::builder()
        .arg("--insecure")
        .set(&format!("pool.unpin_after_ms={}", LOOK.as_millis()))
        .set(&format!("pool.reset_timeout_secs={limit}"))
        .start();
    let mut client = Wire::to(&server);
    client.send(&usual_startup());
    let greeting = client.until(b'Z');
    let key = greeting.iter().find(|m| m.0 == b'K').expect("a key").1.clone();
    client.values("select 'what is known of the database is read'");
    let known = || server.log().contains("the database's names are known");
    eventually("the database is known", SOON, known);
    (server, client, key)
}

/// Has the client held on its connection. Looks at it wait until the end of the transaction of
/// another client, which is returned.
fn hold(server: &Server, client: &mut Wire) -> Wire {
    let mut wire = Wire::direct(server).ready();
    wire.values("begin; lock table pg_catalog.pg_operator in access exclusive mode");
    client.values("create temporary table held (a int)");
    wire
}

fn cancel(server: &Server, key: &[u8]) {
    let mut canceller = Wire::to(server);
    canceller.send(&cancel_request(key));
    assert_eq!(canceller.raw_rest(), b"");
}

fn error(messages: &[(u8, Vec<u8>)]) -> (String, String, String) {
    let body = messages.iter().find(|m| m.0 == b'E').map_or(&[][..], |m| &m.1);
    (field(body, b'S'), field(body, b'C'), field(body, b'M'))
}

#[test]
fn a_look_that_takes_too_long_ends_the_session_and_its_connection() {
    let (server, mut client, _) = start(1);
    let mut blocker = hold(&server, &mut client);
    let begun = Instant::now();
    let (severity, code, text) = error(&client.rest());
    assert_eq!((&*severity, &*code), ("FATAL", "08006"), "{text}");
    assert!(text.contains("did not answer within 1 s"), "{text}");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    eventually("the connection is closed", SOON, || lent(&server) == 0.0);
    blocker.values("rollback");
    assert_eq!(Wire::to(&server).ready().values("select 'served'"), ["served"]);
    let left = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    eventually("nothing waits in PostgreSQL", SOON, || server.direct_value(left) == "0");
}

#[test]
fn a_client_that_goes_during_a_look_leaves_nothing() {
    let (server, mut client, _) = start(60);
    let _blocker = hold(&server, &mut client);
    sleep(LOOKED);
    assert_eq!(lent(&server), 1.0);
    drop(client);
    eventually("its connection is closed", SOON, || lent(&server) == 0.0);
}

#[test]
fn a_look_that_the_clients_own_time_limit_ends_does_no_harm() {
    let (server, mut client, _) = start(60);
    client.values("set statement_timeout = '200ms'");
    let mut blocker = hold(&server, &mut client);
    sleep(LOOKED);
    blocker.values("rollback");
    server.log_line(&["a look at a session's connection failed"]);
    client.values("reset statement_timeout");
    client.values("insert into held values (7)");
    assert_eq!(client.values("select a from held"), ["7"]);
}

#[test]
fn a_cancel_request_during_a_look_stops_the_statement_that_waits() {
    let (server, mut client, key) = start(60);
    let mut blocker = hold(&server, &mut client);
    sleep(LOOKED);
    client.send(&query("select pg_sleep(30)"));
    sleep(Duration::from_millis(100));
    cancel(&server, &key);
    let begun = Instant::now();
    blocker.values("rollback");
    assert_eq!(error(&client.until(b'Z')).1, "57014");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(client.values("select count(*) from held"), ["0"]);
}

#[test]
fn a_cancel_request_during_a_look_stops_nothing_that_comes_later() {
    let (server, mut client, key) = start(60);
    let mut blocker = hold(&server, &mut client);
    sleep(LOOKED);
    cancel(&server, &key);
    blocker.values("rollback");
    sleep(Duration::from_millis(100));
    assert_eq!(client.values("select 'late' from pg_sleep(.5)"), ["late"]);
}

#[test]
fn settings_that_take_too_long_cost_one_request() {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=1")
        .set("pool.validation_level=none")
        .set("pool.reset_timeout_secs=1")
        .start();
    let mut client = Wire::to(&server).ready();
    client.values("set default_text_search_config = 'pg_catalog.simple'");
    let mut other = Wire::to(&server).ready();
    let pid = other.values("select pg_backend_pid()")[0].parse().unwrap();
    eventually("the connection is back", SOON, || lent(&server) == 0.0);
    signal_process(pid, "STOP");
    let begun = Instant::now();
    client.send(&[extended("select 1", &[]), sync()].concat());
    let (severity, code, text) = error(&client.until(b'Z'));
    signal_process(pid, "CONT");
    assert_eq!((&*severity, &*code), ("ERROR", "57P03"), "{text}");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let shown = client.values("show default_text_search_config");
    assert_eq!(shown, ["pg_catalog.simple"]);
}

#[test]
fn a_long_value_holds_the_session_and_does_no_harm() {
    let (_server, mut client, _) = start(5);
    client.values("select set_config('own.long', repeat('x', 3000000), false)");
    client.values(
        "do $$ begin perform set_config('search_path', repeat('y', 100000), false); end $$",
    );
    sleep(LOOKED);
    assert_eq!(client.values("select length(current_setting('own.long'))"), ["3000000"]);
    assert_eq!(client.values("select length(current_setting('search_path'))"), ["100000"]);
}

#[test]
fn what_comes_right_behind_a_look_is_not_left_lying() {
    let (server, mut client, _) = start(60);
    client.values("listen news");
    let mut blocker = hold(&server, &mut client);
    sleep(LOOKED);
    // The answer to the look and the notification are read at once.
    server.signal("STOP");
    blocker.values("rollback");
    let looks = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    eventually("the look is over", SOON, || blocker.values(looks) == ["0"]);
    blocker.values("notify news, 'behind it'");
    sleep(LOOK);
    server.signal("CONT");
    let heard = client.until(b'A');
    assert!(heard[0].1.ends_with(b"news\0behind it\0"), "{heard:?}");
}
