//! How many prepared statements a session may have, and that nothing else is different when there
//! are too many: PostgreSQL does what it does after any Parse that fails.

use crate::harness::Server;
use crate::raw::*;

fn limited(key: &str) -> Server {
    Server::builder().arg("--insecure").set("pool.max_size=4").set(key).start()
}

fn refused(server: &Server, limit: &str) -> f64 {
    server.metric(&format!("rustydb_session_limit_exceeded_total{{limit=\"{limit}\"}}"))
}

fn run(name: &str) -> Vec<u8> {
    [bind("", name, &[], (0, 0)), execute("", 0)].concat()
}

/// The first error of an answer: SQLSTATE, text, hint.
fn error(messages: &[(u8, Vec<u8>)]) -> (String, String, String) {
    let body = messages.iter().find(|m| m.0 == b'E').map_or(&[][..], |m| &m.1);
    (field(body, b'C'), field(body, b'M'), field(body, b'H'))
}

/// Without the words of the errors.
fn shape(messages: &[(u8, Vec<u8>)]) -> String {
    let messages = messages.iter().map(|(tag, body)| match tag {
        b'E' => (*tag, Vec::new()),
        _ => (*tag, body.clone()),
    });
    render(&messages.collect::<Vec<_>>())
}

/// Pipelines in which the statement `much` is prepared, each with its number of ReadyForQuery.
fn pipelines(much: &str) -> Vec<(Vec<u8>, usize)> {
    let much = |name: &str| parse(name, much, &[]);
    let begin = || query("begin");
    let end = || query("rollback");
    vec![
        ([much("d"), run("d"), sync(), run("a"), sync()].concat(), 2),
        ([run("a"), much("d"), run("b"), flush(), sync(), run("c"), sync()].concat(), 2),
        ([parse("", "select 7", &[]), much("d"), sync(), run(""), sync()].concat(), 2),
        ([much("d"), about(b'D', b'S', "d"), about(b'C', b'S', "a"), sync()].concat(), 1),
        ([run("a"), sync(), much("d"), sync(), about(b'D', b'S', "d"), sync()].concat(), 3),
        ([begin(), run("a"), much("d"), run("a"), sync(), run("a"), sync(), end()].concat(), 4),
        ([begin(), much("d"), much("e"), sync(), much("d"), sync(), end()].concat(), 4),
        (
            [much("d"), much("e"), sync(), much("e"), much("d"), sync(), query("select 1")]
                .concat(),
            3,
        ),
        ([much("d"), query("select 1"), sync(), query("select 2")].concat(), 2),
        ([parse("a", "select 1", &[]), sync(), run("a"), sync()].concat(), 2),
        ([about(b'C', b'S', "c"), parse("c", "select 3", &[]), run("c"), sync()].concat(), 1),
    ]
}

#[test]
fn one_too_many_is_refused_and_the_pipeline_goes_on_as_after_any_failure() {
    let server = limited("session.max_prepared_statements=3");
    let mut through = Wire::to(&server).ready();
    let mut direct = Wire::direct(&server).ready();
    let three = ["a", "b", "c"].map(|name| parse(name, &format!("select '{name}'"), &[])).concat();
    for wire in [&mut through, &mut direct] {
        wire.send(&[&three[..], &sync()].concat());
        assert_eq!(wire.until(b'Z').len(), 4);
    }
    let all = pipelines("select 'd'").into_iter().zip(pipelines("this is no SQL"));
    for (at, ((bytes, ready), (failing, _))) in all.enumerate() {
        through.send(&bytes);
        direct.send(&failing);
        let (got, expected) = (through.until_ready(ready), direct.until_ready(ready));
        assert_eq!(shape(&got), shape(&expected), "pipeline {at}");
        let told = error(&got);
        if at < 9 {
            let text = "a session may have 3 prepared statements at most";
            assert_eq!((&*told.0, &*told.1), ("54000", text), "pipeline {at}");
            assert!(told.2.contains("session.max_prepared_statements"), "{told:?}");
        }
    }
    assert_eq!(refused(&server, "max_prepared_statements"), 11.0);
    through
        .send(&[about(b'C', b'S', "a"), parse("d", "select 'd'", &[]), run("d"), sync()].concat());
    assert_eq!(error(&through.until(b'Z')).0, "");
}

#[test]
fn statements_prepared_with_sql_count_too() {
    let server = limited("session.max_prepared_statements=3");
    let mut wire = Wire::to(&server).ready();
    let mut ask = |bytes: &[u8], ready: usize| {
        wire.send(bytes);
        let messages = wire.until_ready(ready);
        let tags: String = messages.iter().map(|m| m.0 as char).collect();
        (tags, error(&messages).0)
    };
    let told = |tags: &str, code: &str| (tags.to_owned(), code.to_owned());
    let prepare = |name: &str| query(&format!("prepare {name} as select '{name}'"));
    assert_eq!(ask(&[parse("a", "select 'a'", &[]), sync()].concat(), 1), told("1Z", ""));
    assert_eq!(
        ask(&[prepare("b"), prepare("c"), prepare("d")].concat(), 3),
        told("CZCZEZ", "54000")
    );
    assert_eq!(ask(&query("execute a; execute b; execute c"), 1), told("TDCTDCTDCZ", ""));
    assert_eq!(ask(&[parse("d", "select 1", &[]), sync()].concat(), 1), told("EZ", "54000"));
    // PostgreSQL knows that the name is taken.
    assert_eq!(ask(&prepare("b"), 1), told("EZ", "42P05"));
    // With the extended protocol it is running it that would be too much.
    let sql = "prepare d as select 1";
    let extended = [extended(sql, &[]), sync(), query("select 1")].concat();
    assert_eq!(ask(&extended, 2), told("1EZTDCZ", "54000"));
    let rest = [query("begin"), prepare("d"), query("select 1"), query("rollback")].concat();
    assert_eq!(ask(&rest, 4), told("CZEZEZCZ", "54000"));
    let room = [query("deallocate c"), prepare("d"), prepare("e"), query("execute d")].concat();
    assert_eq!(ask(&room, 4), told("CZCZEZTDCZ", "54000"));
    // A failure takes nothing away.
    let rest = [query("deallocate nobody"), prepare("e"), query("deallocate all")].concat();
    assert_eq!(ask(&rest, 3), told("EZEZCZ", "26000"));
    assert_eq!(ask(&[prepare("b"), prepare("c"), prepare("d")].concat(), 3), told("CZCZCZ", ""));
    // What a function prepares is found by a look at the connection.
    let sql = "deallocate all; do $$ begin execute 'prepare x1 as select 1'; \
               execute 'prepare x2 as select 1'; execute 'prepare x3 as select 1'; end $$";
    assert_eq!(ask(&query(sql), 1).1, "");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(ask(&prepare("y"), 1), told("EZ", "54000"));
    assert_eq!(ask(&query("discard all"), 1), told("CZ", ""));
    assert_eq!(ask(&prepare("y"), 1), told("CZ", ""));
}

#[test]
fn their_texts_are_limited_together() {
    let server = limited("session.max_prepared_bytes=1 MiB");
    let mut wire = Wire::to(&server).ready();
    let text = |bytes: usize| format!("select '{}'", "x".repeat(bytes));
    let (long, short) = (text(700_000), text(300_000));
    wire.send(&[parse("a", &long, &[]), parse("b", &short, &[]), sync()].concat());
    assert_eq!(error(&wire.until(b'Z')).0, "");
    wire.send(&[parse("c", &short, &[]), sync()].concat());
    let told = error(&wire.until(b'Z'));
    let text = "the prepared statements of a session may be 1048576 bytes long together";
    assert_eq!((&*told.0, &*told.1), ("54000", text));
    assert_eq!(refused(&server, "max_prepared_bytes"), 1.0);
    // The unnamed statement is replaced, not kept; others go on.
    wire.send(&[extended(&short, &[]), sync(), run("b"), sync()].concat());
    assert_eq!(error(&wire.until_ready(2)).0, "");
    wire.send(&[about(b'C', b'S', "a"), parse("c", &short, &[]), run("c"), sync()].concat());
    assert_eq!(error(&wire.until(b'Z')).0, "");
    // A statement that is too long to be carried along holds the session, and does no harm.
    wire.send(&query(&format!("prepare long as select{}1", " ".repeat(70_000))));
    assert_eq!(error(&wire.until(b'Z')).0, "");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(wire.values("execute long"), ["1"]);
}

#[test]
fn a_long_pipeline_of_long_statements_costs_little_memory() {
    let server = limited("session.max_prepared_statements=10");
    let mut wire = Wire::to(&server).ready();
    let text = |n: usize| format!("select {n} /* {} */", "x".repeat(1_000_000));
    let mut play = |times: usize, name: &str| {
        for n in 0..times {
            wire.send(&parse(name, &text(n), &[]));
            if !name.is_empty() {
                wire.send(&about(b'C', b'S', name));
            }
        }
        wire.send(&sync());
        let messages = wire.until(b'Z');
        assert_eq!(error(&messages).0, "");
        assert_eq!(messages.iter().filter(|m| m.0 == b'1').count(), times);
    };
    play(10, "");
    let before = server.memory_kib().1;
    play(120, "");
    play(120, "named");
    let grown = server.memory_kib().1.saturating_sub(before);
    // All of them together are 120 MB.
    assert!(grown < 96 << 10, "{grown} KiB");
}
