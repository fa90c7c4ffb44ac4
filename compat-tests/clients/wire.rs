//! Scripts of protocol messages: RustyDB answers what PostgreSQL answers, message by message.

use crate::harness::{SOON, eventually};
use crate::raw::*;
use crate::{open, wait_until_gone};

/// A piece of a script.
enum Step {
    /// Sends messages and reads up to this number of ReadyForQuery.
    Ready(usize, Vec<u8>),
    /// Sends messages and reads up to a message of this type.
    Until(u8, Vec<u8>),
    /// Sends messages and reads to the end of the connection.
    End(Vec<u8>),
}
use Step::{End, Ready, Until};

fn play(mut wire: Wire, steps: &[Step]) -> String {
    let mut transcript = String::new();
    for step in steps {
        let messages = match step {
            Ready(times, bytes) => {
                wire.send(bytes);
                wire.until_ready(*times)
            }
            Until(tag, bytes) => {
                wire.send(bytes);
                wire.until(*tag)
            }
            End(bytes) => {
                wire.send(bytes);
                wire.rest()
            }
        };
        transcript.push_str(&render(&messages));
        transcript.push_str("--\n");
    }
    transcript
}

/// Plays a script on both and returns the common transcript.
fn check(steps: &[Step]) -> String {
    let server = open();
    let reference = play(Wire::direct(server).ready(), steps);
    let ours = play(Wire::to(server).ready(), steps);
    let differing = ours.lines().zip(reference.lines()).find(|(ours, theirs)| ours != theirs);
    assert_eq!(differing, None);
    assert_eq!(ours.lines().count(), reference.lines().count());
    ours
}

/// The types of the messages of a transcript.
fn tags(transcript: &str) -> String {
    transcript.lines().map(|line| &line[..1]).collect()
}

#[test]
fn simple_queries_answer_alike() {
    let all = check(&[
        Ready(1, query("select 1 as a, 'x' as b")),
        Ready(1, query("")),
        Ready(1, query(" ; ; ")),
        Ready(1, query("select 1; select 2; select 1/0; select 3")),
        Ready(1, query("selec")),
        Ready(1, query("begin")),
        Ready(1, query("select nothere")),
        Ready(1, query("select 1")),
        Ready(1, query("commit")),
        Ready(1, query("do $$ begin raise warning 'w'; end $$")),
        Ready(1, query("set application_name = 'wire'; set timezone = 'Asia/Tokyo'")),
        Ready(1, query("reset all")),
        Ready(1, query("listen wire_simple; notify wire_simple, 'p'; unlisten *")),
        Ready(3, [query("select 1"), query("select 1/0"), query("select 3")].concat()),
        Ready(1, query("select repeat('long', 200000)")),
    ]);
    for part in ["SFATAL", "SERROR", "SWARNING", "application_name\\x00wire"] {
        assert_eq!(all.contains(part), part != "SFATAL", "{part}: {all}");
    }
}

#[test]
fn the_extended_protocol_answers_alike() {
    let ints: [u8; 4] = 42i32.to_be_bytes();
    let all = check(&[
        Ready(1, [extended("select $1::text || 'x'", &["a"]), sync()].concat()),
        Ready(
            1,
            [parse("s", "select $1::int + 1 as n, $2::text", &[]), about(b'D', b'S', "s"), sync()]
                .concat(),
        ),
        Ready(
            1,
            [
                bind("p", "s", &[Some(b"41"), None], (0, 0)),
                about(b'D', b'P', "p"),
                execute("p", 0),
                sync(),
            ]
            .concat(),
        ),
        Ready(
            1,
            [bind("", "s", &[Some(&ints), Some(b"bin")], (1, 1)), execute("", 0), sync()].concat(),
        ),
        Ready(1, [parse("s", "select 2", &[]), sync()].concat()),
        Ready(
            1,
            [
                about(b'C', b'S', "s"),
                about(b'C', b'S', "never"),
                about(b'C', b'P', "never"),
                sync(),
            ]
            .concat(),
        ),
        Ready(1, [bind("", "s", &[], (0, 0)), sync()].concat()),
        Ready(
            1,
            [parse("", "", &[]), bind_text(&[]), about(b'D', b'P', ""), execute("", 0), sync()]
                .concat(),
        ),
        Ready(1, [parse("", "insert into nothere values (1)", &[]), sync()].concat()),
        Ready(
            1,
            [
                parse("", "create temp table x (a int)", &[]),
                bind_text(&[]),
                about(b'D', b'P', ""),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        Ready(
            1,
            [extended("insert into x values ($1), ($2) returning a", &["1", "2"]), sync()].concat(),
        ),
        Ready(1, [extended("select 1/$1::int", &["0"]), sync()].concat()),
        Ready(1, sync()),
        Ready(2, [sync(), sync()].concat()),
    ]);
    assert!(tags(&all).starts_with("12TDCZ-1tTZ-"), "{all}");
}

#[test]
fn pipelines_answer_alike() {
    let one = |n: &str| extended("select $1::int", &[n]);
    let all = check(&[
        Ready(1, [one("1"), one("2"), one("3"), sync()].concat()),
        Ready(1, [one("1"), one("bad"), one("3"), query("select 'skipped'"), sync()].concat()),
        Ready(3, [one("1"), sync(), one("bad"), sync(), one("3"), sync()].concat()),
        Ready(2, [one("1"), sync(), query("select 2")].concat()),
        // The transaction that a pipeline is.
        Ready(
            2,
            [
                query("create temp table pl (a int primary key)"),
                extended("insert into pl values (1)", &[]),
                extended("insert into pl values (1)", &[]),
                sync(),
            ]
            .concat(),
        ),
        Ready(1, query("select count(*) from pl")),
        Ready(1, [extended("begin", &[]), one("1"), sync()].concat()),
        Ready(1, [one("bad"), one("1"), sync()].concat()),
        Ready(2, [one("1"), sync(), query("rollback")].concat()),
        Until(b'C', [one("7"), flush()].concat()),
        Until(
            b'D',
            [parse("", "select 'flushed'", &[]), bind_text(&[]), execute("", 0), flush()].concat(),
        ),
        Ready(1, sync()),
        Until(b'E', [one("bad"), flush()].concat()),
        Ready(1, [one("skipped"), flush(), sync()].concat()),
        Ready(50, (0..50).flat_map(|n| [one(&n.to_string()), sync()].concat()).collect()),
        Ready(1, [(0..500).flat_map(|n| one(&n.to_string())).collect(), sync()].concat()),
    ]);
    assert!(all.contains("flushed") && !all.contains("skipped"), "{all}");
}

#[test]
fn portals_with_row_limits_answer_alike() {
    let all = check(&[
        Ready(1, query("begin")),
        Until(
            b's',
            [
                parse("", "select generate_series(1, 10)", &[]),
                bind("po", "", &[], (0, 0)),
                execute("po", 4),
                flush(),
            ]
            .concat(),
        ),
        Until(b's', [execute("po", 4), flush()].concat()),
        Ready(1, [execute("po", 4), execute("po", 4), sync()].concat()),
        Ready(1, query("commit")),
        Ready(1, [execute("po", 1), sync()].concat()),
        Ready(1, [extended("select 1", &[]), execute("never", 0), sync()].concat()),
        Ready(
            1,
            [
                parse("", "select generate_series(1, 5)", &[]),
                bind_text(&[]),
                execute("", 2),
                execute("", 2),
                about(b'C', b'P', ""),
                execute("", 2),
                sync(),
            ]
            .concat(),
        ),
        Ready(
            1,
            [
                parse("", "create temp table pr (a int)", &[]),
                bind_text(&[]),
                execute("", 1),
                execute("", 1),
                sync(),
            ]
            .concat(),
        ),
    ]);
    assert_eq!(tags(&all).matches('s').count(), 4, "{all}");
}

#[test]
fn copy_answers_alike() {
    let data = |text: &str| message(b'd', text.as_bytes());
    let done = || message(b'c', b"");
    let fail = |why: &str| message(b'f', &[why.as_bytes(), b"\0"].concat());
    let extended_copy = [parse("", "copy cp from stdin", &[]), bind_text(&[]), execute("", 0)];
    let all = check(&[
        Ready(1, query("create temp table cp (a int, b text)")),
        Until(b'G', query("copy cp from stdin")),
        Ready(1, [data("1\tx\n2\t"), data("y\n"), data(""), done()].concat()),
        Until(b'G', query("copy cp from stdin")),
        Ready(1, [data("3\tx\n"), fail("changed my mind")].concat()),
        // All at once; Flush and Sync inside COPY are ignored.
        Ready(1, [query("copy cp from stdin"), data("4\tx\n"), flush(), sync(), done()].concat()),
        Ready(1, [query("copy cp from stdin"), data("bad\tx\n"), data("5\ty\n"), done()].concat()),
        Ready(1, query("select * from cp")),
        Ready(1, query("copy cp to stdout")),
        Ready(1, query("copy (select 1/(3-i) from generate_series(1, 5) i) to stdout")),
        Ready(1, query("copy cp to stdout (format binary)")),
        Until(b'G', [extended_copy.concat(), flush()].concat()),
        Ready(1, [data("6\tz\n"), done(), sync()].concat()),
        Ready(1, [extended_copy.concat(), data("x\n"), done(), sync()].concat()),
        Ready(1, [query("copy cp from stdin; select 'after'"), data("7\tx\n"), done()].concat()),
        // Outside COPY these are ignored.
        Ready(1, [data("stray"), done(), fail("stray"), query("select count(*) from cp")].concat()),
    ]);
    assert!(all.contains("changed my mind") && all.contains("after"), "{all}");
}

#[test]
fn a_statement_in_the_middle_of_a_copy_ends_the_session_alike() {
    let all = check(&[
        Ready(1, query("create temp table cm (a int)")),
        Until(b'G', query("copy cm from stdin")),
        End([message(b'd', b"8\n"), query("select 'no'"), query("select 'no'")].concat()),
    ]);
    assert!(all.contains("SFATAL") && !all.contains("select"), "{all}");
}

/// PostgreSQL skips what follows an error up to Sync, whatever it is, so fewer answers come than
/// there were requests; whoever counts must not wait for the others.
#[test]
fn skipped_requests_hold_up_no_goodbye() {
    let server = open();
    let bad = extended("select 1/0", &[]);
    let call = message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for (name, skipped) in [("query", query("select 'skipped'")), ("call", call)] {
        for times in [1, 3] {
            let mut wire = Wire::to(server).ready();
            wire.send(&[bad.clone(), skipped.repeat(times), sync()].concat());
            assert_eq!(wire.until(b'Z').iter().filter(|m| m.0 == b'E').count(), 1, "{name}");
            assert_eq!(wire.values("select 'on'"), ["on"]);
            wire.send(&message(b'X', b""));
            assert_eq!(wire.raw_rest(), b"", "{name}");
            // All at once.
            let mut wire = Wire::to(server).ready();
            let bye = message(b'X', b"");
            wire.send(
                &[bad.clone(), skipped.repeat(times), sync(), query("select 1"), bye].concat(),
            );
            let got: Vec<u8> =
                wire.rest().iter().map(|m| m.0).filter(|t| b"EZ".contains(t)).collect();
            assert_eq!(got, b"EZZ", "{name}");
        }
    }
}

#[test]
fn malformed_messages_of_a_session_answer_alike() {
    let bad_utf8 = [0xff, 0xfe];
    let all = check(&[
        Ready(1, [parse("", "select $1::text", &[]), bind_text(&["a", "b"]), sync()].concat()),
        Ready(1, [parse("", "select $1::text", &[]), bind_text(&[]), sync()].concat()),
        Ready(
            1,
            [
                parse("", "select $1::text", &[]),
                bind("", "", &[Some(b"a\0b")], (0, 0)),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        Ready(
            1,
            [
                parse("", "select $1::text", &[]),
                bind("", "", &[Some(&bad_utf8)], (0, 0)),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        Ready(
            1,
            [parse("", "select 1", &[]), bind("", "", &[], (0, 7)), execute("", 0), sync()]
                .concat(),
        ),
        Ready(1, [parse("", "select $1", &[4_000_000_000]), sync()].concat()),
        Ready(1, [parse("", "!§$%", &[]), sync()].concat()),
        Ready(1, message(b'Q', b"select '\xff'\0")),
        Ready(1, message(b'Q', b"select 1\0trailing")),
        Ready(1, [message(b'P', b"no terminator"), sync()].concat()),
        Ready(1, [message(b'B', b""), sync()].concat()),
        Ready(1, [message(b'D', b"Xname\0"), sync()].concat()),
        Ready(1, [message(b'C', b"Xname\0"), sync()].concat()),
        Ready(1, [message(b'E', b"\0"), sync()].concat()),
        Ready(1, query("select 'well again'")),
    ]);
    assert!(all.contains("C08P01") && all.contains("well again"), "{all}");
    assert!(all.contains("C22021"), "{all}");
}

#[test]
fn the_fast_path_answers_alike() {
    let abs = |oid: u32, value: &[u8]| {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend_from_slice(&[0, 1, 0, 0, 0, 1]);
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(&[0, 0]);
        message(b'F', &body)
    };
    let oid = open().direct_value("select 'pg_catalog.int4abs(int4)'::regprocedure::oid");
    let oid = oid.parse().unwrap();
    let all = check(&[
        Ready(1, abs(oid, b"-42")),
        Ready(1, abs(oid, b"x")),
        Ready(1, abs(1, b"1")),
        Ready(2, [abs(oid, b"-1"), query("select 1")].concat()),
    ]);
    assert!(all.contains("V \\x00\\x00\\x00\\x0242"), "{all}");
}

#[test]
fn goodbyes_answer_alike() {
    let bye = || message(b'X', b"");
    check(&[End(bye())]);
    check(&[Ready(1, query("begin")), End(bye())]);
    check(&[Ready(1, query("select 1")), End([query("select 2"), bye()].concat())]);
    check(&[End([extended("select 3", &[]), sync(), bye(), query("select 'never'")].concat())]);
    let table = "wire_goodbye";
    let server = open();
    Wire::to(server).ready().values(&format!("create table {table} (a int)"));
    let mut wire = Wire::to(server).ready();
    let slow = format!("select pg_sleep(0.3); insert into {table} values (1)");
    wire.send(&[query(&slow), bye()].concat());
    drop(wire);
    let count = format!("select count(*) from {table}");
    eventually("the last statement is carried out", SOON, || server.direct_value(&count) == "1");
}

#[test]
fn unknown_messages_end_the_session_as_in_postgresql() {
    for bytes in [
        message(b'y', b"hello"),
        message(0, b""),
        message(0xff, b"x"),
        message(b'R', b"\0\0\0\0"),
        b"Q\0\0\0\0".to_vec(),
        b"Q\0\0\0\x03".to_vec(),
        b"Q\x7f\xff\xff\xff".to_vec(),
        b"Q\xff\xff\xff\xff".to_vec(),
        b"S\x40\0\0\x04".to_vec(),
    ] {
        let server = open();
        let ended = |mut wire: Wire| {
            wire.send(&bytes);
            let messages = wire.rest();
            let fields =
                |m: &(u8, Vec<u8>)| (m.0, field(&m.1, b'S'), field(&m.1, b'C'), field(&m.1, b'M'));
            messages.iter().map(fields).collect::<Vec<_>>()
        };
        let ours = ended(Wire::to(server).ready());
        let shown = bytes.escape_ascii();
        assert_eq!(ours.len(), 1, "{shown}: {ours:?}");
        assert_eq!((ours[0].1.as_str(), ours[0].2.as_str()), ("FATAL", "08P01"), "{shown}");
        let reference = ended(Wire::direct(server).ready());
        // A length that cannot be is not told to the client by PostgreSQL.
        if let Some(reference) = reference.first() {
            assert_eq!(ours[0], *reference, "{shown}");
        }
    }
}

#[test]
fn cancel_requests_need_the_right_key() {
    let server = open();
    let mut wire = Wire::to(server);
    wire.send(&usual_startup());
    let greeting = wire.until(b'Z');
    let key = &greeting.iter().find(|m| m.0 == b'K').unwrap().1;
    let cancel = |pid: &[u8], key: &[u8]| {
        let mut wire = Wire::to(server);
        wire.send(&cancel_request(&[pid, key].concat()));
        assert_eq!(wire.raw_rest(), b"");
    };
    let wrong = [key[4], key[5], key[6], key[7] ^ 1];
    wire.send(&query("select pg_sleep(1) as wire_cancel, 'slept'"));
    crate::wait_until_running(server, "wire_cancel");
    cancel(&key[..4], &wrong);
    cancel(&[0, 0, 0, 1], &key[4..]);
    cancel(&key[..4], &[key[4], key[5], key[6], key[7], 0]);
    assert!(render(&wire.until(b'Z')).contains("slept"));
    wire.send(&query("select pg_sleep(100) as wire_cancel_right"));
    crate::wait_until_running(server, "wire_cancel_right");
    cancel(&key[..4], &key[4..]);
    let messages = wire.until(b'Z');
    assert_eq!(field(&messages.iter().find(|m| m.0 == b'E').unwrap().1, b'C'), "57014");
    wait_until_gone(server, "wire_cancel_right");
    // Nothing runs: nothing to cancel, now or later.
    cancel(&key[..4], &key[4..]);
    assert_eq!(wire.values("select 'unharmed'"), ["unharmed"]);
}
