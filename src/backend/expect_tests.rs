//! Scripts of requests and replies, and what the queue makes of them.

use super::*;
use crate::backend::World;

fn statement(body: Box<[u8]>) -> Arc<Statement> {
    let world = World { context: 0, version: 0, definitions: 0 };
    Arc::new(Statement::new(body, 0, world, crate::query::Class::default()))
}

/// Runs a script: `>x` sends, `<x` receives, `+x` sends one of ours: `p` Parse that the
/// connection has, `i` injected Parse, `l` Look, `a` Apply. Returns what the client gets.
fn run(script: &str) -> (String, Expectations, usize) {
    let (mut queue, mut client, mut undone) = (Expectations::default(), String::new(), 0);
    let owed = |n: u32, client: &mut String| client.push_str(&"1".repeat(n as usize));
    for step in script.split_whitespace() {
        let (direction, tag) = step.split_at(1);
        let tag = tag.as_bytes()[0];
        match direction {
            ">" => {
                queue.sent(tag);
                owed(queue.flush_owed(), &mut client);
            }
            "+" => queue.push(
                match tag {
                    b'p' => Kind::ParseCached,
                    b'i' => Kind::ParseInjected,
                    b'l' => Kind::Look,
                    _ => Kind::Apply,
                }
                .into(),
            ),
            _ => {
                let reply = queue.saw(tag);
                undone += queue.take_undone().len();
                owed(queue.take_owed(), &mut client);
                if reply == Reply::Pass {
                    client.push(char::from(tag));
                }
                owed(queue.flush_owed(), &mut client);
            }
        }
    }
    (client, queue, undone)
}

#[test]
fn replies_find_their_requests() {
    for (script, client, idle) in [
        (">Q <T <D <C <Z", "TDCZ", true),
        (">Q >Q <C <Z", "CZ", false),
        ("+p >B >D >E >S <2 <T <D <C <Z", "12TDCZ", true),
        ("+p >B >E +p >B >E >S <2 <C <2 <C <Z", "12C12CZ", true),
        ("+i >B >E >S <1 <2 <C <Z", "2CZ", true),
        ("+i +l <1 <t <T >B >E >S <2 <C <Z", "2CZ", true),
        ("+p +i +l <1 <t <n >B >E >S <2 <C <Z", "12CZ", true),
        ("+i +l <E >S <Z", "EZ", true),
        ("+p >H", "1", false),
        (">B +p >H <2", "21", false),
        (">P >B >E >H <1 <2 <C", "12C", false),
        (">P >B >E >H <1 <2 <C >S <Z", "12CZ", true),
        (">H", "", true),
        ("+p >S <Z", "1Z", true),
        (">P >B >E >S <E <Z", "EZ", true),
        (">P >B >E <E", "E", false),
        (">P >B >E <E >B >E >Q >S <Z", "EZ", true),
        (">P >B >Q >S <E <Z", "EZ", true),
        ("+p >B >E >S >B >E >S <2 <E <Z <2 <C <Z", "12EZ2CZ", true),
        ("+a >Q <S <C <Z <T <C <Z", "TCZ", true),
        ("+a >Q <A <N <Z <C <Z", "ACZ", true),
        (">Q <N <S <A <C <Z <A", "NSACZA", true),
        // COPY: a Sync that was sent together with the COPY goes into it.
        (">P >B >E >S <1 <2 <G >d >c >S <C <Z", "12GCZ", true),
        (">P >B >E >d >c >S <1 <2 <G <C <Z", "12GCZ", true),
        (">Q <G >d >c <C <Z", "GCZ", true),
        (">Q >d >c >Q <G <C <Z <C <Z", "GCZCZ", true),
        (">Q <G >d <E <Z >d >c", "GEZ", true),
        (">Q >d >c <E <Z", "EZ", true),
        (">Q >c >c >Q <C <Z <C <Z", "CZCZ", true),
        (">P >B >E >S >c <1 <2 <C <Z", "12CZ", true),
        (">P >B >E >S <1 <2 <G >d <E >c >S <Z", "12GEZ", true),
        (">Q <G >Q <E <Z", "GEZ", false),
        (">E >S <s <Z", "sZ", true),
        (">P >Q <1 <C <Z", "1CZ", true),
    ] {
        let (got, queue, _) = run(script);
        assert_eq!((&*got, queue.is_idle()), (client, idle), "{script}: {queue:?}");
    }
}

#[test]
fn what_is_skipped_is_undone() {
    assert_eq!(run(">P >B +p >B >E >S <1 <E").2, 4);
    assert_eq!(run(">Q >P <E <Z").2, 0);
    assert!(run("+a >Q <E <Z").1.has_failed());
}

#[test]
fn batches_are_numbered_by_the_readyforquery_that_ends_them() {
    // What is sent, the batch of the next request, the last one that is over.
    for (script, next, over) in [
        ("", 1, 0),
        (">Q", 2, 0),
        (">P >B >E", 1, 0),
        (">P >B >E >S >Q", 3, 0),
        (">P >B >E >S >Q <1 <2 <C <Z", 3, 1),
        ("+a >Q <C <Z <E <Z", 3, 2),
        // A Query in a batch that failed is never answered.
        (">P >Q >P >S >Q <E", 4, 1),
        (">P >Q >P >S >Q <E <Z <C <Z", 4, 3),
        (">P >B >E >S <1 <2 <G >d >c >S <C <Z", 3, 2),
    ] {
        let (_, queue, _) = run(script);
        assert_eq!((queue.batch(), queue.last_ended()), (next, over), "{script}: {queue:?}");
    }
}

#[test]
fn a_statement_that_is_gone_does_not_come_back_with_a_failure() {
    let old = statement((*b"x").into());
    let entry = |kind, name: &[u8]| Expect {
        before: Some(old.clone()),
        ..Expect::named(kind, name.into())
    };
    let mut queue = Expectations::default();
    queue.sent(request::QUERY);
    queue.push(entry(Kind::Close, b"a"));
    queue.push(entry(Kind::Parse, b"b"));
    queue.push(entry(Kind::ParseCached, b"b"));
    queue.push(entry(Kind::ParseInjected, b"c"));
    let names = [(*b"b").into()].into_iter().collect();
    assert_eq!((queue.coming_names(), queue.is_unnamed_coming()), (names, false));
    assert!(!queue.is_gone(Some(b"a")) && queue.is_gone(Some(b"b")) && queue.is_gone(None));
    queue.saw(tag::COMMAND_COMPLETE);
    queue.saw(tag::READY_FOR_QUERY);
    queue.saw(tag::ERROR);
    let undone = queue.take_undone();
    let kept: Vec<_> = undone.iter().rev().map(|entry| entry.before.is_some()).collect();
    assert_eq!((kept, queue.held), (vec![false, false, true, true], 0));
}

#[test]
fn what_an_unfinished_batch_changes_is_in_doubt() {
    let entry = |kind, name: &[u8]| Expect::named(kind, name.into());
    let own = statement((*b"x").into());
    let mut queue = Expectations::default();
    queue.push(entry(Kind::Parse, b"a"));
    let gained = Expect { statement: Some(own.clone()), ..Kind::ParseInjected.into() };
    queue.push(gained);
    let doubts = |queue: &Expectations, name: &[u8]| queue.is_in_doubt(|e| e.changes(name));
    // The batch itself fails as a whole.
    assert!(!doubts(&queue, b"a"));
    queue.sent(request::SYNC);
    assert!(doubts(&queue, b"a") && !doubts(&queue, b"b"));
    assert!(queue.is_in_doubt(|entry| entry.prepares(&own)));
    assert!(!queue.is_in_doubt(Expect::changes_unnamed));
    queue.await_all();
    assert!(!queue.has_room());
    queue.saw(tag::PARSE_COMPLETE);
    assert!(!doubts(&queue, b"a") && queue.is_in_doubt(|entry| entry.prepares(&own)));
    queue.saw(tag::PARSE_COMPLETE);
    assert!(!queue.is_in_doubt(|_| true) && !queue.has_room());
    queue.saw(tag::READY_FOR_QUERY);
    assert!(queue.has_room() && queue.changing == 0);
    queue.push(entry(Kind::Close, b"a"));
    queue.sent(request::SYNC);
    queue.push(entry(Kind::ParseCached, b"a"));
    // What it has meant since is what counts.
    assert!(!doubts(&queue, b"a"));
    queue.saw(tag::ERROR);
    assert_eq!((queue.take_undone().len(), queue.changing), (1, 1));
}

#[test]
fn the_unnamed_statement_before_a_failure_is_remembered() {
    let (old, new) = (statement((*b"x").into()), statement((*b"yy").into()));
    let parse =
        |before: &Arc<Statement>| Expect { before: Some(before.clone()), ..Kind::Parse.into() };
    let mut queue = Expectations::default();
    queue.push(parse(&old));
    queue.saw(tag::ERROR);
    assert!(queue.take_undone()[0].before.is_none(), "a failed Parse has dropped it");
    queue.sent(request::SYNC);
    queue.saw(tag::READY_FOR_QUERY);
    assert!(!queue.remember_unnamed(Some(&old)));
    queue.sent(request::EXECUTE);
    queue.push(parse(&old));
    queue.sent(request::SYNC);
    queue.push(parse(&new));
    queue.saw(tag::ERROR);
    let skipped = queue.take_undone().remove(0);
    assert!(queue.remember_unnamed(skipped.before.as_ref()));
    assert_eq!(queue.held, 1);
    queue.saw(tag::READY_FOR_QUERY);
    queue.sent(request::SYNC);
    queue.sent(request::QUERY);
    assert!(queue.remember_unnamed(None));
}

#[test]
fn an_attempt_that_fails_says_whose_it_was() {
    let mut queue = Expectations::default();
    queue.push(Expect::named(Kind::Attempt, (*b"p").into()));
    queue.sent(request::QUERY);
    assert_eq!(queue.saw(tag::ERROR), Reply::Keep);
    let undone = queue.take_undone();
    assert_eq!((undone.len(), undone[0].name.as_deref()), (1, Some(&b"p"[..])));
    assert!(!queue.has_failed());
}

#[test]
fn a_refusal_is_known_by_its_error() {
    let mut queue = Expectations::default();
    queue.sent(request::BIND);
    queue.push(Kind::Refused(Refusal::Number).into());
    queue.sent(request::EXECUTE);
    queue.sent(request::SYNC);
    queue.saw(tag::BIND_COMPLETE);
    assert_eq!(queue.refused(), None);
    queue.saw(tag::ERROR);
    assert_eq!(queue.refused(), Some(Refusal::Number));
    assert_eq!(queue.take_undone().len(), 2);
    queue.saw(tag::READY_FOR_QUERY);
    assert!(queue.is_idle() && queue.refused().is_none());
    // The error of an earlier request is not the refusal's.
    queue.sent(request::BIND);
    queue.push(Kind::Refused(Refusal::Bytes).into());
    queue.saw(tag::ERROR);
    assert_eq!(queue.refused(), None);
}

#[test]
fn long_statements_are_bounded_and_their_answers_asked_for() {
    let long = statement(vec![b'x'; 1 << 20].into());
    let entry = || Expect { before: Some(long.clone()), ..Kind::Parse.into() };
    let (mut queue, mut flushes) = (Expectations::default(), 0);
    while queue.has_room() {
        flushes += usize::from(queue.needs_flush());
        queue.push(entry());
    }
    assert_eq!((queue.queue.len(), flushes), (16, 3));
    // Each Flush brings the answers to what came before it.
    (0..12).for_each(|_| assert_eq!(queue.saw(tag::PARSE_COMPLETE), Reply::Pass));
    assert!(queue.has_room() && queue.needs_flush());
    queue.saw(tag::ERROR);
    assert_eq!((queue.take_undone().len(), queue.held), (4, 0));
    assert_eq!(entry().holds(), 1 << 20);
}

#[test]
fn nothing_follows_a_look() {
    let mut queue = Expectations::default();
    queue.push(Kind::ParseInjected.into());
    queue.push(Kind::Look.into());
    queue.saw(tag::PARSE_COMPLETE);
    assert!(!queue.has_room());
    queue.saw(tag::NO_DATA);
    assert!(queue.has_room());
    queue.push(Kind::Look.into());
    queue.saw(tag::ERROR);
    assert!(queue.has_room() && queue.is_skipping());
}

#[test]
fn the_queue_is_bounded() {
    let mut queue = Expectations::default();
    (0..MAX_IN_FLIGHT).for_each(|_| queue.sent(request::SYNC));
    assert!(!queue.has_room());
}
