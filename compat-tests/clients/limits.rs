//! Who is behind a load balancer, and how many may come from where.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::harness::{SOON, Server};
use crate::raw::{V3, Wire, field, query, startup};

fn hello(role: &str, database: &str) -> Vec<u8> {
    startup(V3, &[b"user", role.as_bytes(), b"database", database.as_bytes()])
}

/// A client at an address, as a load balancer announces it.
fn from(server: &Server, address: &str) -> Wire {
    let mut wire = Wire::to(server);
    wire.send(format!("PROXY TCP4 {address} 127.0.0.1 4000 5432\r\n").as_bytes());
    wire
}

/// SQLSTATE and text of the refusal, or nothing.
fn enter(wire: &mut Wire, hello: &[u8]) -> (String, String) {
    wire.send(hello);
    loop {
        match wire.next() {
            Some((b'E', body)) => return (field(&body, b'C'), field(&body, b'M')),
            Some((b'Z', _)) => return (String::new(), String::new()),
            Some(_) => {}
            None => panic!("the connection ended without a word"),
        }
    }
}

fn entered() -> (String, String) {
    (String::new(), String::new())
}

fn limited() -> Server {
    Server::builder()
        .arg("--insecure")
        .set("network.proxy_protocol=true")
        .set("network.proxy_networks=127.0.0.0/8")
        .set("network.max_connections_per_address=2")
        .set("network.max_connections_per_user=3")
        .set("network.max_connections_per_database=4")
        .start()
}

const ADDRESS: &str =
    "too many connections for address 10.0.0.1: network.max_connections_per_address is 2";

#[test]
fn each_limit_is_named_and_given_back() {
    let server = limited();
    assert_eq!(server.direct_psql("create role joe login; create role jim login;").stderr, "");
    let rustydb = hello("rustydb", "rustydb");
    let told = |text: &str| ("53300".to_owned(), text.to_owned());
    let mut a: Vec<Wire> = Vec::new();
    for expected in [entered(), entered(), told(ADDRESS)] {
        a.push(from(&server, "10.0.0.1"));
        assert_eq!(enter(a.last_mut().unwrap(), &rustydb), expected);
    }
    let mut b: Vec<Wire> = (0..2).map(|_| from(&server, "10.0.0.2")).collect();
    assert_eq!(enter(&mut b[0], &rustydb), entered());
    let user = "too many connections for role \"rustydb\": network.max_connections_per_user is 3";
    assert_eq!(enter(&mut b[1], &rustydb), told(user));
    let mut c = from(&server, "10.0.0.3");
    assert_eq!(enter(&mut c, &hello("joe", "rustydb")), entered());
    let mut d = from(&server, "10.0.0.4");
    let database = "too many connections for database \"rustydb\": \
                    network.max_connections_per_database is 4";
    assert_eq!(enter(&mut d, &hello("jim", "rustydb")), told(database));
    let mut e = from(&server, "10.0.0.4");
    assert_eq!(enter(&mut e, &hello("jim", "postgres")), entered());
    for limit in ["per_address", "per_user", "per_database"] {
        let name = format!("{{reason=\"max_connections_{limit}\"}}");
        let name = format!("rustydb_network_connections_rejected_total{name}");
        server.expect_metric(&name, 1.0);
    }
    // Whoever leaves makes room.
    drop(a);
    crate::eventually("there is room again", SOON, || {
        let mut again = from(&server, "10.0.0.1");
        enter(&mut again, &rustydb) == entered()
    });
}

#[test]
fn a_known_proxy_tells_who_the_client_is() {
    let server = limited();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[192, 0, 2, 7, 127, 0, 0, 1, 0x0f, 0xa0, 0x15, 0x38]);
    let mut wire = Wire::to(&server);
    wire.send(&v2);
    assert_eq!(enter(&mut wire, &hello("rustydb", "rustydb")), entered());
    assert_eq!(wire.values("select 'here'"), ["here"]);
    server.log_line(&["logged in", "192.0.2.7"]);
    // It must tell, in whole and in words that are known.
    for wrong in [
        &hello("rustydb", "rustydb")[..],
        b"PROXY TCP9 a b c d\r\n",
        b"\r\n\r\nxxxxxxxxxxxxxxxxxxxx",
    ] {
        let mut wire = Wire::to(&server);
        wire.try_send(wrong);
        assert_eq!(wire.raw_rest(), b"");
    }
    // Its own health check has no client.
    let mut wire = Wire::to(&server);
    wire.send(b"PROXY UNKNOWN\r\n");
    assert_eq!(enter(&mut wire, &hello("rustydb", "rustydb")), entered());
}

#[test]
fn others_are_not_believed() {
    let server = Server::builder()
        .arg("--insecure")
        .set("network.proxy_protocol=true")
        .set("network.proxy_networks=192.0.2.0/24")
        .start();
    let mut wire = Wire::to(&server);
    assert_eq!(enter(&mut wire, &hello("rustydb", "rustydb")), entered());
    let mut liar = from(&server, "192.0.2.7");
    let mut answer = Vec::new();
    let _ = liar.socket.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"R"), "{answer:?}");
}

#[test]
fn who_never_rests_does_not_keep_the_others_waiting_for_a_sequence() {
    let server = Server::builder().arg("--insecure").set("pool.max_size=1").start();
    let mut busy = Wire::to(&server).ready();
    busy.values("create sequence numbers");
    assert_eq!(busy.values("select nextval('numbers')"), ["1"]);
    let other = std::thread::scope(|scope| {
        let other = scope.spawn(|| Wire::to(&server).ready().values("select 'served'"));
        // Longer than it takes to show that nobody asks, and shorter than the other one waits.
        let end = Instant::now() + Duration::from_secs(20);
        while !other.is_finished() && Instant::now() < end {
            busy.values("begin; select 1; commit");
        }
        assert!(other.is_finished(), "nobody had room beside it");
        other.join().unwrap()
    });
    assert_eq!(other, ["served"]);
}

/// What the last words of a connection are: SQLSTATE and text.
fn last_words(wire: &mut Wire) -> (String, String) {
    let error = wire.rest().into_iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| body);
    let body = error.unwrap_or_default();
    (field(&body, b'C'), field(&body, b'M'))
}

#[test]
fn who_does_nothing_within_a_transaction_is_sent_away() {
    let server = Server::builder()
        .arg("--insecure")
        .set("session.idle_in_transaction_timeout_secs=1")
        .start();
    let mut idle = Wire::to(&server).ready();
    let mut wire = Wire::to(&server).ready();
    assert!(wire.values("create table t (n int)").is_empty());
    // A statement that takes its time is work.
    let both = ["begin; insert into t values (1)", "select pg_sleep(3)"];
    wire.send(&both.map(query).concat());
    assert!(!wire.until_ready(2).iter().any(|(tag, _)| *tag == b'E'));
    let (state, text) = last_words(&mut wire);
    assert_eq!(state, "25P03", "{text}");
    assert_eq!(text, "terminating connection due to idle-in-transaction timeout");
    assert_eq!(idle.values("select count(*) from t"), ["0"]);
    // So is a transaction that has failed.
    idle.send(&query("begin; select 1/0"));
    idle.until(b'Z');
    assert_eq!(last_words(&mut idle).0, "25P03");
    let reason = "reason=\"idle_in_transaction_timeout\"";
    let ended = format!("rustydb_session_terminated_total{{protocol=\"postgres\",{reason}}}");
    server.expect_metric(&ended, 2.0);
    server.expect_metric("rustydb_session_timeouts_total{protocol=\"postgres\"}", 2.0);
}

#[test]
fn a_session_has_an_end_between_two_transactions() {
    let server =
        Server::builder().arg("--insecure").set("session.max_session_lifetime_secs=3").start();
    let mut busy = Wire::to(&server).ready();
    assert!(busy.values("begin").is_empty());
    let mut idle = Wire::to(&server).ready();
    let (state, text) = last_words(&mut idle);
    assert_eq!(state, "57P01", "{text}");
    assert_eq!(text, "terminating connection due to session.max_session_lifetime_secs");
    assert_eq!(busy.values("select 'still here'"), ["still here"]);
    busy.send(&query("commit"));
    assert_eq!(last_words(&mut busy).0, "57P01");
    // It did nothing for a second at least, and that is counted when it is over.
    let rests = "rustydb_session_idle_seconds_count{protocol=\"postgres\"}";
    server.expect_metric_of_at_least(rests, 1.0);
}
