//! Clients that break the protocol, leave in the middle or do not read: nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{SOON, Server, eventually};
use crate::raw::*;
use crate::{guarded, lent, open, wait_until_gone, wait_until_running};

/// Sends raw bytes, says that nothing follows, and returns the answer.
fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = server.connect();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut wire = Wire::over(stream);
    let answer = wire.raw_rest();
    assert_serves(server);
    answer
}

/// A usual client is still served.
fn assert_serves(server: &Server) {
    if server.password.is_empty() {
        assert_eq!(Wire::to(server).ready().values("select 'ok'"), ["ok"]);
    } else {
        assert!(server.psql("select 'ok' as fine;").stdout.contains("fine"));
    }
}

/// Numbers that look random and are the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The only message must be this FATAL error.
fn assert_fatal(answer: &[u8], code: &str, text: &str) {
    assert_eq!(answer.first(), Some(&b'E'), "{}", answer.escape_ascii());
    let body = &answer[5..];
    let got = (field(body, b'S'), field(body, b'C'), field(body, b'M'));
    assert_eq!((got.0.as_str(), got.1.as_str()), ("FATAL", code), "{got:?}");
    assert!(got.2.contains(text), "{got:?}");
    assert_eq!(answer.len(), 1 + u32::from_be_bytes(answer[1..5].try_into().unwrap()) as usize);
}

#[test]
fn strangers_are_turned_away() {
    for server in [open(), guarded()] {
        for seed in 1..40 {
            let mut bytes = noise(seed, 1 + seed as usize * 37);
            // Not by chance a start-up packet.
            bytes[0] |= 0x80;
            assert_eq!(answer(server, &bytes), b"", "{seed}");
        }
        for seed in 1..20 {
            let rest = noise(seed, 64);
            let answer = answer(server, &[&[0, 0, 0, 72][..], &rest].concat());
            assert!(matches!(answer.first(), None | Some(b'E')), "{}", answer.escape_ascii());
        }
        let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(5, 508)].concat();
        let alert = answer(server, &hello);
        assert_eq!((alert.len(), alert[0], alert[5]), (7, 0x15, 2), "{alert:?}");
        for request in
            ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /api/v1/query HTTP/1.1\r\n\r\n{}"]
        {
            let answer = String::from_utf8(answer(server, request.as_bytes())).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(answer.contains(&format!("port {}", server.api_port)), "{answer}");
        }
        assert_eq!(answer(server, b"RUSTYDB\x01hello"), b"");
        assert_eq!(answer(server, b"SSH-2.0-OpenSSH_9\r\n"), b"");
        assert_eq!(answer(server, b""), b"");
    }
}

#[test]
fn broken_start_up_packets_are_refused() {
    for server in [open(), guarded()] {
        let length = "invalid length of startup packet";
        let with_length = |n: u32| [&n.to_be_bytes()[..], &V3.to_be_bytes()].concat();
        let check = |bytes: &[u8], code: &str, text: &str| {
            assert_fatal(&answer(server, bytes), code, text);
        };
        // A length with more than 16 bits is no start-up packet at all.
        assert_eq!(answer(server, &with_length(100 << 10)), b"");
        assert_eq!(answer(server, &with_length(1 << 30)), b"");
        check(&with_length(60_000), "08P01", length);
        check(&with_length(0), "08P01", length);
        check(&with_length(7), "08P01", length);
        check(&startup(2 << 16, &[]), "0A000", "unsupported frontend protocol 2.0");
        check(&startup(4 << 16, &[]), "0A000", "unsupported frontend protocol 4.0");
        check(&startup(V3, &[b"database", b"rustydb"]), "28000", "no PostgreSQL user name");
        check(&startup(V3, &[b"user", b""]), "28000", "no PostgreSQL user name");
        check(&startup(V3, &[b"user", b"\xff\xfe"]), "08P01", "not valid UTF-8");
        check(&startup(V3, &[b"user", b"a", b"database"]), "08P01", "");
        let mut unterminated = usual_startup();
        unterminated.pop();
        unterminated[3] -= 1;
        check(&unterminated, "08P01", "");
        // Half a packet, and nobody to tell.
        let whole = usual_startup();
        for cut in [1, 4, 7, 8, 9, whole.len() - 1] {
            assert_eq!(answer(server, &whole[..cut]), b"", "{cut}");
        }
    }
}

#[test]
fn negotiation_is_answered_as_documented() {
    let server = open();
    let ssl = startup(80_877_103, &[]);
    let gss = startup(80_877_104, &[]);
    for requests in [vec![&ssl], vec![&gss], vec![&gss, &ssl], vec![&ssl, &gss]] {
        let mut wire = Wire::to(server);
        for request in requests {
            wire.send(request);
            let mut byte = [0];
            wire.socket.read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"N");
        }
        assert_eq!(wire.ready().values("select 'clear'"), ["clear"]);
    }
    // Asking for ever is not an option, nor is going on without the answer.
    for (waits, expected) in [
        (true, "unsupported frontend protocol 1234.5679"),
        (false, "received unencrypted data after SSL request"),
    ] {
        let mut wire = Wire::to(server);
        if waits {
            wire.send(&ssl);
            wire.socket.read_exact(&mut [0]).unwrap();
            wire.try_send(&ssl);
        } else {
            // In one write: after two, the server may have answered the first already.
            wire.send(&[&ssl[..], &ssl[..]].concat());
        }
        let answer = String::from_utf8_lossy(&wire.raw_rest()).into_owned();
        assert!(answer.contains(expected), "{answer}");
    }
    let common: [&[u8]; 4] = [b"user", b"rustydb", b"database", b"rustydb"];
    let check = |code: u32, options: &[&[u8]]| {
        let packet = startup(code, &[&common[..], options].concat());
        let greet = |mut wire: Wire| {
            wire.send(&packet);
            let mut messages = wire.until(b'Z');
            let first = render(&messages[..1]);
            messages.retain(|m| m.0 == b'S');
            // In an order that is not documented.
            let mut parameters: Vec<_> = messages.iter().map(|m| m.1.clone()).collect();
            parameters.sort();
            assert_eq!(wire.values("select 'in'"), ["in"]);
            (first, parameters)
        };
        let ours = greet(Wire::to(server));
        assert_eq!(ours, greet(Wire::direct(server)), "{code:x} {options:?}");
        assert_eq!(ours.0.starts_with('v'), code != V3 || !options.is_empty(), "{}", ours.0);
    };
    check(V3, &[]);
    check(V3, &[b"_pq_.x", b"1"]);
    // Up to 3.2 it is we who speak with the client; older servers know 3.0 only.
    let negotiated = |code: u32, options: &[&[u8]]| {
        let mut wire = Wire::to(server);
        wire.send(&startup(code, &[&common[..], options].concat()));
        let greeting = wire.until(b'Z');
        assert_eq!(wire.values("select 'in'"), ["in"]);
        let key = greeting.iter().find(|m| m.0 == b'K').unwrap().1.len() - 4;
        (greeting.into_iter().find(|m| m.0 == b'v').map(|m| m.1), key)
    };
    let answer = |minor: u8, count: u8, names: &[u8]| {
        Some([&[0, 3, 0, minor, 0, 0, 0, count], names].concat())
    };
    assert_eq!(negotiated(V3, &[]), (None, 4));
    assert_eq!(negotiated(V3 + 2, &[]), (None, 32));
    assert_eq!(negotiated(V3 + 9999, &[]), (answer(2, 0, b""), 32));
    assert_eq!(negotiated(V3, &[b"_pq_.x", b"1"]), (answer(0, 1, b"_pq_.x\0"), 4));
    let two: &[&[u8]] = &[b"_pq_.x", b"1", b"_pq_.yy", b""];
    assert_eq!(negotiated(V3 + 2, two), (answer(2, 2, b"_pq_.x\0_pq_.yy\0"), 32));
}

#[test]
fn a_long_cancel_key_cancels_and_a_part_of_it_does_not() {
    let server = open();
    let mut wire = Wire::to(server);
    wire.send(&startup(V3 + 2, &[b"user", b"rustydb", b"database", b"rustydb"]));
    let greeting = wire.until(b'Z');
    let key = greeting.iter().find(|m| m.0 == b'K').unwrap().1.clone();
    wire.send(&query("select pg_sleep(30) -- long_cancel_key"));
    crate::wait_until_running(server, "long_cancel_key");
    let cancel = |key: &[u8]| {
        let mut other = Wire::to(server);
        other.send(&cancel_request(key));
        assert_eq!(other.raw_rest(), b"");
    };
    cancel(&key[..8]);
    let mut wrong = key.clone();
    wrong[20] ^= 1;
    cancel(&wrong);
    assert_eq!(crate::running(server, "long_cancel_key"), 1);
    cancel(&key);
    let messages = wire.until(b'Z');
    assert_eq!(field(&messages[messages.len() - 2].1, b'C'), "57014");
}

#[test]
fn scram_garbage_is_refused() {
    let server = guarded();
    let initial = |mechanism: &str, data: &[u8]| {
        let mut body = [mechanism.as_bytes(), b"\0"].concat();
        body.extend_from_slice(&(data.len() as u32).to_be_bytes());
        body.extend_from_slice(data);
        message(b'p', &body)
    };
    let scram = "SCRAM-SHA-256";
    let mut long_length = message(b'p', b"");
    long_length[1..5].copy_from_slice(&(1u32 << 30).to_be_bytes());
    let cases = [
        initial(scram, b"n,,n=,r=abc"),
        initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=abc"),
        initial("PLAIN", b"\0rustydb\0x"),
        initial(scram, b""),
        initial(scram, b"y"),
        initial(scram, &noise(3, 300)),
        initial(scram, b"p=tls-unique,,n=,r=abc"),
        initial(scram, b"n,,m=x,n=,r=abc"),
        message(b'p', b"password\0"),
        message(b'p', b""),
        message(b'p', &noise(4, 2000)),
        message(b'p', &noise(5, 5000)),
        query("select 1"),
        message(b'X', b""),
        long_length,
    ];
    for (at, case) in cases.iter().enumerate() {
        let mut wire = Wire::to(server);
        wire.send(&usual_startup());
        assert_eq!(wire.next().unwrap(), (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()));
        wire.try_send(case);
        let mut messages = Vec::new();
        if at == 0 {
            // The good beginning is challenged; its end is not.
            messages.extend(wire.next());
            assert!(messages[0].1.windows(5).any(|w| w == b"r=abc"), "{}", render(&messages));
            messages.clear();
            wire.try_send(&message(b'p', b"c=biws,r=abcdef,p=AAAA"));
        }
        messages.extend(wire.rest());
        let shown = render(&messages);
        assert!(messages.iter().all(|m| m.0 == b'E') && messages.len() < 2, "{at}: {shown}");
        if let Some((_, body)) = messages.first() {
            assert_eq!(field(body, b'S'), "FATAL", "{at}: {shown}");
            assert!(["08P01", "28P01"].contains(&field(body, b'C').as_str()), "{at}: {shown}");
        }
    }
    // Nobody who only knocks is let in.
    let mut wire = Wire::to(server);
    wire.send(&[usual_startup(), query("select 'in'")].concat());
    assert!(!wire.rest().iter().any(|m| m.0 == b'Z'));
    assert_serves(server);
}

#[test]
fn a_client_that_vanishes_in_the_middle_leaves_nothing() {
    let server = open();
    Wire::to(server).ready().values("create table abuse_gone (a int, marker text)");
    let check = |marker: &str, bytes: &[u8]| {
        let mut wire = Wire::to(server).ready();
        wire.send(bytes);
        std::thread::sleep(Duration::from_millis(100));
        drop(wire);
        wait_until_gone(server, marker);
        assert_eq!(server.direct_value("select count(*) from abuse_gone"), "0", "{marker}");
    };
    let insert = "insert into abuse_gone values (1, 'gone_one')";
    check("gone_half", &query("select 'gone_half'")[..15]);
    check("gone_one", &query(&format!("begin; {insert}")));
    check("gone_two", &[extended(&insert.replace("one", "two"), &[]), flush()].concat());
    check(
        "gone_three",
        &[query("copy /* gone_three */ abuse_gone from stdin"), message(b'd', b"1\tx\n2\ty\n")]
            .concat(),
    );
    check(
        "gone_four",
        &[
            query("copy /* gone_four */ abuse_gone from stdin"),
            message(b'd', &b"1\tx\n".repeat(20_000))[..50_000].to_vec(),
        ]
        .concat(),
    );
    check(
        "gone_five",
        &[
            query("begin; insert into abuse_gone values (1); lock abuse_gone"),
            query("select pg_sleep(100) as gone_five"),
        ]
        .concat(),
    );
    check("gone_six", &query("select 'gone_six', generate_series(1, 1000000000)"));
    // The same with a goodbye in the middle of a COPY.
    let mut wire = Wire::to(server).ready();
    wire.send(&query("copy /* gone_seven */ abuse_gone from stdin"));
    wire.until(b'G');
    wire.send(&[message(b'd', b"1\tx\n"), message(b'X', b"")].concat());
    wire.raw_rest();
    wait_until_gone(server, "gone_seven");
    assert_eq!(server.direct_value("select count(*) from abuse_gone"), "0");
    assert_serves(server);
}

#[test]
fn a_slow_reader_holds_up_only_itself() {
    let server = Server::builder().arg("--insecure").start();
    assert_serves(&server);
    let before = server.memory_kib().0;
    let slow: Vec<Wire> = (0..8)
        .map(|_| {
            let mut wire = Wire::to(&server).ready();
            wire.send(&query(
                "select 'slow_reader', repeat('x', 1000), generate_series(1, 10000000)",
            ));
            wire
        })
        .collect();
    wait_until_running(&server, "slow_reader");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        assert_serves(&server);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = server.memory_kib().1.saturating_sub(before);
    assert!(grown < 16 << 10, "eight slow readers cost {grown} KiB");
    drop(slow);
    wait_until_gone(&server, "slow_reader");
    // A slow sender does not, either.
    let mut wire = Wire::to(&server);
    for byte in usual_startup() {
        wire.send(&[byte]);
    }
    wire.until(b'Z');
    for byte in query("select 'byte by byte'") {
        wire.send(&[byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(render(&wire.until(b'Z')).contains("byte by byte"));
    drop(wire);
    eventually("every connection is back", SOON, || lent(&server) == 0.0);
}

#[test]
fn after_random_messages_every_connection_comes_back() {
    let server = Server::builder().arg("--insecure").set("pool.max_size=4").start();
    let tags = b"QPBEDCHSdcfFXp";
    for seed in 1..120u64 {
        let random = noise(seed, 600);
        let mut bytes = Vec::new();
        for piece in random.chunks(30) {
            let tag = tags[piece[0] as usize % tags.len()];
            let body: Vec<u8> = match piece[1] % 4 {
                0 => piece[2..].to_vec(),
                1 => [&piece[2..10], b"\0\0\0\0\0\0\0\0"].concat(),
                2 => b"select 1\0".to_vec(),
                _ => b"\0select generate_series(1, 20)\0\0\0".to_vec(),
            };
            bytes.extend(message(tag, &body));
        }
        let mut wire = Wire::to(&server).ready();
        wire.try_send(&bytes);
        if seed % 2 == 0 {
            wire.try_send(&[message(b'c', b""), sync(), message(b'X', b"")].concat());
            wire.raw_rest();
        }
    }
    assert_serves(&server);
    eventually("every connection is back", SOON, || lent(&server) == 0.0);
    assert!(server.metric("rustydb_pool_total_connections{pool=\"main\"}") <= 4.0);
    // All of them are clean: none is inside a transaction.
    let busy = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
        and pid <> pg_backend_pid() and state <> 'idle'";
    assert_eq!(server.direct_value(busy), "0");
}

#[test]
fn clients_that_never_say_who_they_are_are_sent_away() {
    let server = Server::builder().set("network.connection_timeout_secs=1").start();
    let begun = Instant::now();
    let mut silent: Vec<TcpStream> = [&b""[..], &[0, 0], &usual_startup()[..20], &usual_startup()]
        .iter()
        .map(|bytes| {
            let mut stream = server.connect();
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    for stream in &mut silent {
        // The last one was asked for a password.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_serves(&server);
}

#[test]
fn a_client_that_found_no_connection_may_try_again() {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=1")
        .set("pool.acquire_timeout_secs=3")
        .start();
    let log_in = || Wire::to(&server).ready();
    let mut holder = log_in();
    holder.send(&query("begin"));
    holder.until(b'Z');
    let mut other = log_in();
    for request in [query("select 2"), [extended("select 3", &[]), sync()].concat()] {
        other.send(&request);
        let answer = other.until(b'Z');
        let tags: Vec<u8> = answer.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, b"EZ");
        let error = String::from_utf8_lossy(&answer[0].1).into_owned();
        assert!(error.contains("53300") && error.contains("ERROR"), "{error}");
    }
    // The end of a batch that was refused needs no connection.
    other.send(&extended("select 5", &[]));
    assert_eq!(other.until(b'E').len(), 1);
    let begun = Instant::now();
    other.send(&sync());
    assert_eq!(other.until(b'Z').len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    drop(holder);
    other.send(&query("select 4"));
    let tags: Vec<u8> = other.until(b'Z').iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags, b"TDCZ");
}

#[test]
fn a_statement_that_was_refused_leaves_none_that_could_run_in_its_place() {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=1")
        .set("pool.acquire_timeout_secs=1")
        .start();
    let mut other = Wire::to(&server).ready();
    let again = [bind_text(&[]), execute("", 0), sync()].concat();
    other.send(&[extended("select 'before'", &[]), sync()].concat());
    other.until(b'Z');
    other.send(&again);
    assert_eq!(other.until(b'Z').len(), 4, "it is there until the next Parse");
    let mut holder = Wire::to(&server).ready();
    holder.send(&query("begin"));
    holder.until(b'Z');
    other.send(&[extended("select 'refused'", &[]), sync(), again].concat());
    let refused = other.until(b'Z');
    assert_eq!(field(&refused[0].1, b'C'), "53300");
    drop(holder);
    let gone = other.until(b'Z');
    assert_eq!((gone[0].0, &*field(&gone[0].1, b'C')), (b'E', "26000"));
}

#[test]
fn what_came_behind_a_request_that_found_no_connection_is_carried_out() {
    let server = Server::builder()
        .arg("--insecure")
        .set("pool.max_size=1")
        .set("pool.acquire_timeout_secs=1")
        .start();
    let mut holder = Wire::to(&server).ready();
    let mut other = Wire::to(&server);
    other.send(&usual_startup());
    let greeting = other.until(b'Z');
    let key = &greeting.iter().find(|m| m.0 == b'K').unwrap().1;
    let cancel = || {
        let mut wire = Wire::to(&server);
        wire.send(&cancel_request(key));
        assert_eq!(wire.raw_rest(), b"");
    };
    let prepared = |sql: &str| [extended(sql, &[]), sync()].concat();
    for pair in [
        [query("select 'first'"), query("select 'second'")],
        [prepared("select 'first'"), prepared("select 'second'")],
        [prepared("select 'first'"), query("select 'second'")],
    ] {
        for cancels in [false, true] {
            holder.send(&query("begin"));
            holder.until(b'Z');
            other.send(&pair.concat());
            if cancels {
                std::thread::sleep(Duration::from_millis(200));
                cancel();
            }
            let answer = other.until(b'Z');
            let code = field(&answer[0].1, b'C');
            assert_eq!(code, if cancels { "57014" } else { "53300" }, "{}", render(&answer));
            holder.send(&query("rollback"));
            holder.until(b'Z');
            let answer = render(&other.until(b'Z'));
            assert!(answer.contains("second") && !answer.contains("first"), "{answer}");
        }
    }
}

#[test]
fn statements_whose_columns_changed_unseen_are_prepared_anew() {
    let server = Server::builder().arg("--insecure").set("pool.max_size=1").start();
    let mut direct = Wire::direct(&server).ready();
    direct.values("create table unseen (a int)");
    let mut clients = [Wire::to(&server).ready(), Wire::to(&server).ready()];
    let select = [extended("select * from unseen", &[]), sync()].concat();
    let columns = |wire: &mut Wire| {
        wire.send(&select);
        let answer = wire.until(b'Z');
        let described = answer.iter().find(|m| m.0 == b'T');
        described.map(|m| u16::from_be_bytes([m.1[0], m.1[1]])).ok_or(render(&answer))
    };
    for wire in &mut clients {
        assert_eq!(columns(wire), Ok(1));
        assert_eq!(columns(wire), Ok(1));
    }
    // Nobody has told: the first one meets what was prepared, and then everybody knows.
    for count in 2..5 {
        direct.values(&format!("alter table unseen add b{count} int"));
        let first = columns(&mut clients[0]);
        assert!(
            first.as_ref().is_err_and(|e| e.contains("0A000")) || first == Ok(count),
            "{first:?}"
        );
        for wire in &mut clients {
            eventually("it is parsed anew", SOON, || columns(wire) == Ok(count));
        }
    }
}
