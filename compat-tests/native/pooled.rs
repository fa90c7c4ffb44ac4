//! Pooled sessions of native clients.

use rustydb_client::protocol::*;

use crate::client::{Wire, hello, query, start};
use crate::harness::{SOON, Server, eventually};

fn server(settings: &[&str]) -> Server {
    settings.iter().fold(Server::builder().arg("--insecure"), |b, pair| b.set(pair)).start()
}

fn acquire(class: &str, tag: &str, purity: Purity) -> Message {
    Message::Session(SessionCommand::Acquire {
        connection_class: Some(class.into()),
        tag: Some(tag.into()).filter(|tag: &String| !tag.is_empty()),
        purity,
    })
}

fn release(tag: Option<&str>) -> Message {
    Message::Session(SessionCommand::Release { tag: tag.map(str::to_owned) })
}

/// What the reply says of the tag: how it matches, and which was found.
#[track_caller]
fn found(reply: Message) -> (String, String) {
    let Message::AuthReply(AuthReply::Success { parameters, .. }) = reply else {
        panic!("{reply:?}")
    };
    let value = |name: &str| {
        let pair = parameters.iter().find(|(known, _)| known == name);
        pair.map_or_else(String::new, |(_, value)| value.clone())
    };
    (value("rustydb.tag_match"), value("rustydb.tag_found"))
}

fn pair(how: &str, tag: &str) -> (String, String) {
    (how.into(), tag.into())
}

fn has_table(wire: &mut Wire) -> bool {
    let rows = wire.rows("SELECT to_regclass('mine') IS NOT NULL", vec![]);
    rows == vec![vec![Value::Bool(true)]]
}

#[test]
fn acquire_finds_what_release_has_left() {
    let server = server(&[]);
    let mut wire = Wire::open(&server);
    assert_eq!(found(wire.one(&acquire("web", "a=1", Purity::Own))), pair("none", ""));
    wire.one(&query("CREATE TEMP TABLE mine (a int)", vec![]));
    wire.one(&release(Some("a=1, b=2")));
    assert!(!has_table(&mut wire));
    let mut other = Wire::open(&server);
    assert!(!has_table(&mut other));
    assert_eq!(found(other.one(&acquire("app", "", Purity::Own))), pair("none", ""));
    assert!(!has_table(&mut other));
    // Acquiring again gives back what is held first.
    assert_eq!(found(other.one(&acquire("web", "b=2,a=1", Purity::Own))), pair("exact", "a=1,b=2"));
    assert!(has_table(&mut other));
    assert_eq!(found(wire.one(&acquire("web", "a=1", Purity::Own))), pair("none", ""));
    wire.one(&release(None));
    other.one(&release(None));
    assert_eq!(
        found(wire.one(&acquire("web", "b=2,c=3", Purity::Own))),
        pair("partial", "a=1,b=2")
    );
    assert!(has_table(&mut wire));
    assert_eq!(found(wire.one(&acquire("web", "", Purity::New))), pair("none", ""));
    assert!(!has_table(&mut wire));
    assert_eq!(found(wire.one(&acquire("web", "", Purity::Any))), pair("none", ""));
    assert!(!has_table(&mut wire));
}

#[test]
fn the_log_in_asks_and_is_answered() {
    let server = server(&[]);
    let come = |class: &str, purity: Purity, tag: Option<&str>| {
        let mut wire = Wire::connect(&server);
        wire.handshake(hello());
        let mut start = start("rustydb", AuthMethod::Trust);
        start.connection_class = Some(class.into());
        start.purity = Some(purity);
        start.tag = tag.map(str::to_owned);
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(start))));
        let reply = wire.read().message;
        (wire, reply)
    };
    let (mut wire, reply) = come("web", Purity::Own, Some("a=1"));
    assert_eq!(found(reply), pair("none", ""));
    wire.one(&query("CREATE TEMP TABLE mine (a int)", vec![]));
    drop(wire);
    let parked = || server.metric("rustydb_class_sessions{class=\"web\",state=\"parked\"}");
    eventually("it is parked", SOON, || parked() == 1.0);
    let (mut wire, reply) = come("web", Purity::Own, Some("a=1"));
    assert_eq!(found(reply), pair("exact", "a=1"));
    assert!(has_table(&mut wire));
    let (mut other, reply) = come("web", Purity::Any, None);
    assert_eq!(found(reply), pair("", ""));
    assert!(!has_table(&mut other));
    // DISCARD ALL gives up the session with its state.
    wire.one(&Message::Session(SessionCommand::DiscardAll));
    assert!(!has_table(&mut wire));
    drop(wire);
    // As Acquire refuses it.
    let mut wire = Wire::open(&server);
    for (class, tag) in [(&*"x".repeat(129), ""), ("it\\'s", ""), ("web", "a=\\")] {
        let (_, reply) = come(class, Purity::Own, Some(tag));
        let Message::Error(error) = reply else { panic!("{reply:?}") };
        assert_eq!(error.sqlstate, "22023");
        let refused = wire.refused(&acquire(class, tag, Purity::Own));
        assert_eq!((error.message, error.hint), (refused.message, refused.hint));
    }
}

#[test]
fn a_lost_connection_of_the_class_is_told() {
    let server = server(&[]);
    let mut killer = Wire::open(&server);
    for round in 1..40 {
        let mut start = start("rustydb", AuthMethod::Trust);
        let class = format!("lost_{round}");
        (start.connection_class, start.purity) = (Some(class.clone()), Some(Purity::Own));
        let log_in = Message::Auth(Auth::Start(Box::new(start)));
        let mut wire = Wire::connect(&server);
        wire.handshake(hello());
        wire.send(2, 0, &log_in);
        assert!(matches!(wire.read().message, Message::AuthReply(AuthReply::Success { .. })));
        let pid = wire.rows("SELECT pg_backend_pid()", vec![])[0][0].clone();
        drop(wire);
        let parked = format!("rustydb_class_sessions{{class=\"{class}\",state=\"parked\"}}");
        eventually("it is parked", SOON, || server.metric(&parked) == 1.0);
        let mut wire = Wire::connect(&server);
        wire.handshake(hello());
        killer.send(round, 0, &query("SELECT pg_terminate_backend($1)", vec![pid]));
        std::thread::sleep(std::time::Duration::from_micros(round * 50));
        wire.send(2, 0, &log_in);
        wire.send(3, 0, &query("SELECT 1", vec![]));
        // Either a session, whichever it is, or a reason.
        loop {
            match wire.try_read().expect("closed without a word").message {
                Message::QueryResponse(_) => break,
                Message::Error(error) => {
                    assert!(["57P01", "08006"].contains(&&*error.sqlstate), "{error:?}");
                    break;
                }
                _ => {}
            }
        }
        assert!(matches!(killer.all_of(round).pop(), Some(Message::QueryResponse(_))));
    }
}

#[test]
fn a_pool_of_one_connection_is_enough_to_find_ones_own() {
    let server = server(&["pool.max_size=1", "pool.min_size=0"]);
    let mut wire = Wire::open(&server);
    assert_eq!(found(wire.one(&acquire("web", "a=1", Purity::Own))), pair("none", ""));
    wire.one(&query("CREATE TEMP TABLE mine (a int)", vec![]));
    assert_eq!(found(wire.one(&acquire("web", "a=1", Purity::Own))), pair("exact", "a=1"));
    assert!(has_table(&mut wire));
    wire.one(&release(None));
    // Everybody else goes first: what is parked is reset.
    let mut other = Wire::open(&server);
    assert!(!has_table(&mut other));
    assert_eq!(found(wire.one(&acquire("web", "a=1", Purity::Own))), pair("none", ""));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let server = server(&["session.drcp.max_think_time_secs=1"]);
    let mut wire = Wire::open(&server);
    for message in [
        acquire(&"x".repeat(129), "", Purity::Own),
        acquire("web", "nonsense", Purity::Own),
        acquire("it\\'s", "", Purity::Own),
        release(Some("=")),
    ] {
        assert_eq!(wire.refused(&message).sqlstate, "22023", "{message:?}");
    }
    wire.one(&Message::Begin { isolation: None, read_only: None, deferrable: None });
    assert_eq!(wire.refused(&acquire("web", "", Purity::Own)).sqlstate, "25001");
    wire.one(&release(None));
    assert_eq!(found(wire.one(&acquire("it's", "a=it's", Purity::Own))), pair("none", ""));
    wire.one(&release(None));
    assert_eq!(found(wire.one(&acquire("it's", "a=it's", Purity::Own))), pair("exact", "a=it's"));
    // Who thinks for too long is told once, and may go on.
    let taken = || server.metric("rustydb_class_taken_away_total{class=\"it's\"}");
    eventually("it is taken away", SOON, || taken() == 1.0);
    let late = wire.refused(&query("SELECT true", vec![]));
    assert_eq!(late.sqlstate, "57P05", "{late:?}");
    assert_eq!(wire.rows("SELECT true", vec![]), vec![vec![Value::Bool(true)]]);
    // Within a transaction that would tear it apart.
    wire.one(&Message::Begin { isolation: None, read_only: None, deferrable: None });
    eventually("it is taken away again", SOON, || taken() == 2.0);
    wire.send(999, 0, &Message::Commit { and_chain: false });
    let over = wire.fatal();
    assert_eq!(over.sqlstate, "25P03", "{over:?}");
}

#[test]
fn a_statement_of_somebody_else_is_not_taken_for_ones_own() {
    let server = server(&["pool.max_size=1"]);
    let prepare = |wire: &mut Wire, sql: &str| {
        let (name, sql) = ("mine".to_owned(), sql.to_owned());
        let request = Prepared::Prepare { name, sql, param_types: Vec::new() };
        wire.one(&Message::PreparedStatement(request));
    };
    let run = |wire: &mut Wire| {
        let (name, params) = ("mine".to_owned(), vec![]);
        let request = Prepared::Execute { name, params, options: None };
        match wire.one(&Message::PreparedStatement(request)) {
            Message::QueryResponse(reply) => reply.rows,
            other => panic!("{other:?}"),
        }
    };
    let (mut one, mut two) = (Wire::open(&server), Wire::open(&server));
    let wires = [(&mut one, 1), (&mut two, 2)];
    // In SQL: the native statements of before are known by the same names as before.
    for (wire, value) in wires {
        prepare(wire, &format!("SELECT {value}"));
        assert_eq!(run(wire), [[Value::Int4(value)]]);
        wire.rows("SET rustydb.connection_class TO web", vec![]);
        wire.rows("SET rustydb.purity TO 'self'", vec![]);
        for _ in 0..3 {
            assert_eq!(run(wire), [[Value::Int4(value)]]);
        }
        wire.rows("SET rustydb.purity TO 'any'", vec![]);
        for _ in 0..3 {
            assert_eq!(run(wire), [[Value::Int4(value)]]);
        }
    }
    // And with messages, which forget them.
    for (wire, value) in [(&mut one, 3), (&mut two, 4)] {
        for _ in 0..2 {
            wire.one(&acquire("app", "", Purity::Own));
            prepare(wire, &format!("SELECT {value}"));
            for _ in 0..3 {
                assert_eq!(run(wire), [[Value::Int4(value)]]);
            }
            let sql = "SELECT count(*)::int4 FROM pg_prepared_statements WHERE name LIKE 'native%'";
            assert_eq!(wire.rows(sql, vec![]), [[Value::Int4(0)]]);
            wire.one(&release(None));
        }
    }
}
