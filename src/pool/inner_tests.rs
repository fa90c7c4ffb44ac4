//! Tests of the pool's pure state: the queue, who is served, at whose expense.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::creation::{Failure, Narrowed, Next, Order, Why};
use super::super::{Demand, PoolKind};
use super::{Grant, Inner, LaneKey, MAX_LANES, Turn};
use crate::backend::{BackendConn, Credentials, LimitOf, Roster};
use crate::config::{Config, PoolOverride};
use crate::error::{Error, ErrorKind};

fn config(max_size: usize, max_waiters: usize) -> Config {
    let mut config = Config::default();
    config.pool.max_size = max_size;
    config.pool.min_size = 0;
    config.pool.max_wait_queue_size = max_waiters;
    config
}

fn inner(config: &Config) -> Inner {
    let (policy, gates) = PoolKind::Main.shape(config);
    Inner::new(policy, gates, config)
}

fn change(inner: &mut Inner, config: &Config) -> (Vec<BackendConn>, Narrowed) {
    let (policy, gates) = PoolKind::Main.shape(config);
    inner.change(policy, gates, &config.pool)
}

fn of(role: &str, database: &str) -> Demand {
    let lane = LaneKey::new(&role.into(), None, &database.into(), Vec::new());
    Demand { lane: Arc::new(lane), credentials: Credentials::Local }
}

fn me() -> ThreadId {
    std::thread::current().id()
}

#[track_caller]
fn wait(inner: &mut Inner, demand: &Demand) -> (u64, oneshot::Receiver<Grant>) {
    match inner.turn(demand, me()) {
        Turn::Wait(ticket, receiver) => (ticket, receiver),
        _ => panic!("there was no need to wait"),
    }
}

#[track_caller]
fn order(inner: &mut Inner) -> Order {
    match inner.next_creation(Instant::now(), 0) {
        Next::Create(order) => *order,
        _ => panic!("nothing is to be made"),
    }
}

fn nothing_to_make(inner: &mut Inner) -> bool {
    matches!(inner.next_creation(Instant::now(), 0), Next::Nothing)
}

/// The creation succeeds; returns what has no use.
fn made(inner: &mut Inner, mut order: Order, pid: u32) -> Option<BackendConn> {
    let mut conn = BackendConn::to_nothing(pid);
    conn.permits = std::mem::take(&mut order.permits);
    inner.created(&order.demand, &conn);
    inner.put_back(order.demand.lane, me(), Box::new(conn))
}

fn failed(inner: &mut Inner, order: Order, failure: Failure) -> bool {
    failed_at(inner, order, failure, Instant::now())
}

fn failed_at(inner: &mut Inner, mut order: Order, failure: Failure, now: Instant) -> bool {
    order.permits.clear();
    inner.not_created(&order, failure, now, 255)
}

fn too_many(limit: LimitOf) -> Failure {
    Failure::Full(Error::new(ErrorKind::PoolExhausted, "too many clients"), limit)
}

fn pid(receiver: &mut oneshot::Receiver<Grant>) -> Option<u32> {
    match receiver.try_recv() {
        Ok(Grant::Conn(lent)) => Some(lent.conn.cancel.pid),
        _ => None,
    }
}

fn back(inner: &mut Inner, demand: &Demand, pid: u32) -> Option<BackendConn> {
    inner.put_back(demand.lane.clone(), me(), Box::new(BackendConn::to_nothing(pid)))
}

#[tokio::test]
async fn who_waits_for_a_limit_of_his_own_takes_no_place_from_others() {
    let mut config = config(3, 2);
    let own = PoolOverride { max_size: Some(1), pooling_mode: None };
    config.pool.users.insert("alice".into(), own);
    let mut inner = inner(&config);
    let (alice, bob) = (of("alice", "db"), of("bob", "db"));
    let _first = wait(&mut inner, &alice);
    let begun = order(&mut inner);
    let _more = [wait(&mut inner, &alice), wait(&mut inner, &alice)];
    assert!(matches!(inner.turn(&alice, me()), Turn::Full));
    // Two can be made for others, and two may wait.
    let mut others: Vec<_> = (0..4).map(|_| wait(&mut inner, &bob)).collect();
    assert!(matches!(inner.turn(&bob, me()), Turn::Full));
    assert!(matches!(inner.turn(&alice, me()), Turn::Full));
    let (ticket, _) = others.remove(0);
    assert!(inner.leave(ticket).is_some());
    others.push(wait(&mut inner, &bob));
    // Without the limit they are counted together.
    config.pool.users.clear();
    change(&mut inner, &config);
    assert!(matches!(inner.turn(&bob, me()), Turn::Full));
    drop(begun);
}

#[tokio::test]
async fn everybody_waits_while_postgresql_is_away_and_until_that_is_over() {
    let (mut inner, a) = (inner(&config(1, 1)), of("a", "db"));
    let mut all = vec![wait(&mut inner, &a)];
    let begun = order(&mut inner);
    all.push(wait(&mut inner, &a));
    assert!(matches!(inner.turn(&a, me()), Turn::Full));
    failed(&mut inner, begun, Failure::Unavailable);
    all.extend((0..10).map(|_| wait(&mut inner, &a)));
    let begun = match inner.next_creation(Instant::now() + Duration::from_secs(60), 0) {
        Next::Create(order) => *order,
        _ => panic!("nothing is to be made"),
    };
    assert!(made(&mut inner, begun, 1).is_none());
    // It is there again, and those who came meanwhile are served first.
    for _ in 0..10 {
        all.push(wait(&mut inner, &a));
        all.remove(0);
        assert!(back(&mut inner, &a, 1).is_none());
    }
    for (ticket, _) in all {
        inner.leave(ticket);
    }
    let _one = wait(&mut inner, &a);
    assert!(matches!(inner.turn(&a, me()), Turn::Full));
}

#[tokio::test]
async fn room_is_bounded_and_goes_to_waiters_in_order() {
    let (mut inner, a) = (inner(&config(1, 2)), of("a", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    let (_, mut second) = wait(&mut inner, &a);
    let (_, mut third) = wait(&mut inner, &a);
    // The first one waits for its own connection and has no place in the queue.
    assert_eq!(inner.waiting(), 2);
    assert!(matches!(inner.turn(&a, me()), Turn::Full));
    assert!(nothing_to_make(&mut inner));
    assert!(made(&mut inner, begun, 1).is_none());
    assert_eq!(pid(&mut first), Some(1));
    assert!(back(&mut inner, &a, 1).is_none());
    assert_eq!((pid(&mut second), pid(&mut third)), (Some(1), None));
    inner.room_freed();
    assert_eq!(order(&mut inner).demand.lane, a.lane);
    assert_eq!((inner.total(), inner.waiting(), inner.most_waiting()), (1, 0, 2));
}

#[tokio::test]
async fn a_waiter_takes_what_comes_first() {
    let (mut inner, a) = (inner(&config(2, 9)), of("a", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    // Somebody else's connection is faster; the new one goes to the next, then it is idle.
    assert!(back(&mut inner, &a, 7).is_none());
    assert_eq!(pid(&mut first), Some(7));
    let (_, mut second) = wait(&mut inner, &a);
    assert!(made(&mut inner, begun, 8).is_none());
    assert_eq!(pid(&mut second), Some(8));
    assert_eq!((inner.idle(), inner.waiting()), (0, 0));
    assert!(back(&mut inner, &a, 8).is_none());
    assert_eq!(inner.idle(), 1);
    assert!(matches!(inner.turn(&a, me()), Turn::Now(lent) if lent.conn.cancel.pid == 8));
}

#[tokio::test]
async fn a_waiter_that_left_is_passed_over() {
    let (mut inner, a) = (inner(&config(1, 9)), of("a", "db"));
    let (ticket, gone) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    let (_, dropped) = wait(&mut inner, &a);
    let (_, mut last) = wait(&mut inner, &a);
    inner.leave(ticket);
    drop((gone, dropped));
    assert!(made(&mut inner, begun, 1).is_none());
    assert_eq!(pid(&mut last), Some(1));
    assert_eq!((inner.total(), inner.waiting()), (1, 0));
}

#[tokio::test]
async fn few_are_made_at_once_for_many_waiters() {
    let mut config = config(50, 100);
    config.pool.max_concurrent_creations = 3;
    let (mut inner, a) = (inner(&config), of("a", "db"));
    let mut waiting: Vec<_> = (0..40).map(|_| wait(&mut inner, &a)).collect();
    let orders = [order(&mut inner), order(&mut inner), order(&mut inner)];
    assert!(nothing_to_make(&mut inner));
    assert_eq!(inner.total(), 3);
    for (n, order) in orders.into_iter().enumerate() {
        assert!(made(&mut inner, order, n as u32).is_none());
    }
    let served = waiting.iter_mut().filter_map(|(_, receiver)| pid(receiver));
    assert_eq!(served.collect::<Vec<_>>(), [0, 1, 2]);
    let _next = order(&mut inner);
}

#[tokio::test]
async fn after_a_failure_nobody_hurries_and_success_ends_the_outage() {
    let (mut inner, a) = (inner(&config(5, 9)), of("a", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    assert!(failed(&mut inner, begun, Failure::Unavailable));
    assert!(inner.creations.outage().is_some());
    assert_eq!((inner.total(), inner.waiting()), (0, 1));
    let now = Instant::now();
    let Next::Later { at, why } = inner.next_creation(now, 0) else { panic!() };
    assert!(at > now && at <= now + Duration::from_millis(100) && why == Why::BackOff);
    // One is enough to wake up.
    assert!(matches!(inner.next_creation(now, 0), Next::Nothing));
    inner.wake(Why::BackOff, at);
    let Next::Create(again) = inner.next_creation(at, 0) else { panic!() };
    assert!(!failed(&mut inner, *again, Failure::Unavailable));
    assert!(first.try_recv().is_err());
    let later = Instant::now() + Duration::from_secs(1);
    let Next::Create(again) = inner.next_creation(later, 0) else { panic!() };
    assert!(made(&mut inner, *again, 1).is_none());
    assert!(inner.creations.outage().is_none());
    assert_eq!(pid(&mut first), Some(1));
}

#[tokio::test]
async fn who_is_refused_is_told_and_the_next_may_try() {
    let (mut inner, a, b) = (inner(&config(1, 9)), of("a", "db"), of("b", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let (_, mut second) = wait(&mut inner, &b);
    let begun = order(&mut inner);
    let error = Error::new(ErrorKind::AuthenticationFailed, "no");
    failed(&mut inner, begun, Failure::Refused(error));
    assert!(matches!(first.try_recv(), Ok(Grant::Refused(e)) if e.message() == "no"));
    let begun = order(&mut inner);
    assert!(made(&mut inner, begun, 2).is_none());
    assert_eq!(pid(&mut second), Some(2));
}

#[tokio::test]
async fn an_idle_connection_of_another_lane_makes_room_and_so_does_one_that_comes_back() {
    let (mut inner, a, b) = (inner(&config(1, 9)), of("a", "db"), of("b", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    made(&mut inner, begun, 1);
    assert_eq!(pid(&mut first), Some(1));
    assert!(back(&mut inner, &a, 1).is_none());

    let (_, mut second) = wait(&mut inner, &b);
    let begun = order(&mut inner);
    assert_eq!(begun.evicted.as_ref().map(|conn| conn.cancel.pid), Some(1));
    assert_eq!((inner.total(), inner.idle()), (1, 0));
    made(&mut inner, begun, 2);
    assert_eq!(pid(&mut second), Some(2));

    let (_, mut third) = wait(&mut inner, &a);
    let (_, mut fourth) = wait(&mut inner, &b);
    assert!(nothing_to_make(&mut inner));
    // The third was first: the connection of the fourth's lane has to go.
    assert!(back(&mut inner, &b, 2).is_some());
    inner.room_freed();
    let begun = order(&mut inner);
    assert_eq!(begun.demand.lane, a.lane);
    made(&mut inner, begun, 3);
    assert_eq!((pid(&mut third), pid(&mut fourth)), (Some(3), None));
}

#[tokio::test]
async fn the_limit_of_one_role_keeps_nobody_else_waiting() {
    let mut config = config(10, 9);
    let limit = PoolOverride { max_size: Some(1), pooling_mode: None };
    config.pool.users.insert("a".into(), limit);
    let (mut inner, a, b) = (inner(&config), of("a", "db"), of("b", "db"));
    let elsewhere = of("a", "other");
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    let (_, mut second) = wait(&mut inner, &elsewhere);
    assert!(nothing_to_make(&mut inner));
    assert!(inner.gates.shut(&a.lane).unwrap().contains("pool.users.a.max_size is 1"));
    assert!(inner.gates.shut(&b.lane).is_none());
    let (_, mut third) = wait(&mut inner, &b);
    let other = order(&mut inner);
    assert_eq!(other.demand.lane, b.lane);
    made(&mut inner, other, 2);
    assert_eq!(pid(&mut third), Some(2));
    // Another role's connection does not help the second waiter; its own role's does.
    made(&mut inner, begun, 1);
    assert!(back(&mut inner, &b, 2).is_none());
    let Ok(Grant::Conn(lent)) = first.try_recv() else { panic!("the first was not served") };
    let refused = inner.put_back(a.lane.clone(), me(), lent.conn);
    assert!(refused.is_some());
    drop(refused);
    inner.room_freed();
    let begun = order(&mut inner);
    assert_eq!(begun.demand.lane, elsewhere.lane);
    assert!(begun.evicted.is_none());
    made(&mut inner, begun, 3);
    assert_eq!(pid(&mut second), Some(3));
}

#[tokio::test]
async fn a_full_postgresql_is_a_limit_while_the_pool_has_connections_and_an_error_otherwise() {
    let full = || too_many(LimitOf::Server);
    let (mut inner, a) = (inner(&config(5, 9)), of("a", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    made(&mut inner, begun, 1);
    assert_eq!(pid(&mut first), Some(1));
    let (_, mut second) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    failed(&mut inner, begun, full());
    let now = Instant::now();
    assert_eq!(inner.creations.ceilings.words(&a.lane, now).unwrap().0, "too many clients");
    let Next::Later { at, why } = inner.next_creation(now + Duration::from_secs(1), 0) else {
        panic!()
    };
    assert!(at > now + Duration::from_secs(3) && why == Why::Full);
    assert!(nothing_to_make(&mut inner));
    assert!(back(&mut inner, &a, 1).is_none());
    assert_eq!(pid(&mut second), Some(1));
    inner.room_freed();

    let (_, mut third) = wait(&mut inner, &a);
    let mut now = Instant::now() + Duration::from_secs(1);
    let mut told = false;
    for _ in 0..5 {
        now += Duration::from_secs(1);
        inner.wake(Why::BackOff, now);
        let Next::Create(begun) = inner.next_creation(now, 0) else { break };
        failed_at(&mut inner, *begun, full(), now);
        told |= matches!(third.try_recv(), Ok(Grant::Refused(_)));
    }
    assert!(told);
    assert_eq!((inner.total(), inner.waiting()), (0, 0));
}

#[tokio::test]
async fn the_limit_that_postgresql_has_for_one_role_keeps_nobody_else_waiting() {
    let (mut inner, a, b) = (inner(&config(9, 9)), of("a", "db"), of("b", "db"));
    let elsewhere = of("a", "other");
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    made(&mut inner, begun, 1);
    let Ok(Grant::Conn(lent)) = first.try_recv() else { panic!("the first was not served") };
    let (_, mut second) = wait(&mut inner, &elsewhere);
    let begun = order(&mut inner);
    failed(&mut inner, begun, too_many(LimitOf::Role));
    // Somebody has to look again, once.
    let now = Instant::now();
    let Next::Later { at, why } = inner.next_creation(now, 0) else { panic!() };
    assert!(at > now && at < now + Duration::from_secs(1) && why == Why::Full);
    assert!(nothing_to_make(&mut inner));
    inner.wake(Why::Full, at);
    let Next::Later { at: end, .. } = inner.next_creation(at, 0) else { panic!() };
    assert!(end > now + Duration::from_secs(4));
    // A moment that is not the awaited one any more changes nothing.
    inner.wake(Why::Full, at);
    assert!(matches!(inner.next_creation(at, 0), Next::Nothing));

    let (_, mut third) = wait(&mut inner, &b);
    let begun = order(&mut inner);
    assert_eq!(begun.demand.lane, b.lane);
    assert!(!begun.is_tight);
    made(&mut inner, begun, 2);
    assert_eq!(pid(&mut third), Some(2));
    // The role's own connection makes room when it comes back; another's does not.
    assert!(back(&mut inner, &b, 2).is_none());
    let refused = inner.put_back(a.lane.clone(), me(), lent.conn);
    assert!(refused.is_some());
    drop(refused);
    inner.room_freed();
    let Next::Create(begun) = inner.next_creation(at, 0) else { panic!() };
    assert_eq!(begun.demand.lane, elsewhere.lane);
    made(&mut inner, *begun, 3);
    assert_eq!(pid(&mut second), Some(3));
}

#[tokio::test]
async fn an_idle_connection_gives_way_at_postgresqls_limit_and_is_waited_for() {
    for (limit, other) in [(LimitOf::Role, of("a", "x")), (LimitOf::Database, of("b", "db"))] {
        let (mut inner, a) = (inner(&config(9, 9)), of("a", "db"));
        let (_, mut first) = wait(&mut inner, &a);
        let begun = order(&mut inner);
        made(&mut inner, begun, 1);
        let Ok(Grant::Conn(lent)) = first.try_recv() else { panic!("the first was not served") };
        assert!(inner.put_back(a.lane.clone(), me(), lent.conn).is_none());
        let (_, mut second) = wait(&mut inner, &other);
        let begun = order(&mut inner);
        assert!(begun.evicted.is_none());
        failed(&mut inner, begun, too_many(limit));
        let begun = order(&mut inner);
        assert!(begun.is_tight && begun.evicted.is_some(), "{limit:?}");
        made(&mut inner, begun, 2);
        assert_eq!((pid(&mut second), inner.total()), (Some(2), 1), "{limit:?}");
    }
}

/// The connection that was made for a waiter may go to somebody else; then another one is made.
#[tokio::test]
async fn a_waiter_whose_connection_went_elsewhere_gets_another_one() {
    let (mut inner, a) = (inner(&config(5, 9)), of("a", "db"));
    let (_, _waiting) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    assert!(nothing_to_make(&mut inner));
    inner.made_for(begun.ticket);
    // Without this it would be taken for one that is still being made for.
    inner.creations.running -= 1;
    assert_eq!(order(&mut inner).ticket, begun.ticket);
}

#[tokio::test]
async fn the_first_client_causes_others_to_be_made_in_advance() {
    let mut config = config(5, 9);
    config.pool.initial_size = 3;
    let (mut inner, a) = (inner(&config), of("a", "db"));
    assert!(nothing_to_make(&mut inner));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    assert!(nothing_to_make(&mut inner));
    made(&mut inner, begun, 1);
    assert_eq!(pid(&mut first), Some(1));
    for n in 2..4 {
        let begun = order(&mut inner);
        assert_eq!(begun.demand.lane, a.lane);
        assert!(begun.ticket.is_none());
        made(&mut inner, begun, n);
    }
    assert!(nothing_to_make(&mut inner));
    assert_eq!((inner.total(), inner.idle()), (3, 2));
}

#[tokio::test]
async fn the_smallest_size_is_kept_and_made_again_with_credentials_that_are_good() {
    let mut config = config(5, 9);
    config.pool.min_size = 2;
    let (mut inner, a) = (inner(&config), of("a", "db"));
    let now = Instant::now();
    assert!(inner.adjust(now).is_empty());
    // Nobody's credentials are known.
    assert!(nothing_to_make(&mut inner));
    let receivers = [wait(&mut inner, &a), wait(&mut inner, &a), wait(&mut inner, &a)];
    for n in 0..3 {
        let begun = order(&mut inner);
        made(&mut inner, begun, n);
    }
    for (_, mut receiver) in receivers {
        let n = pid(&mut receiver).unwrap();
        assert!(back(&mut inner, &a, n).is_none());
    }
    inner.tick(1000, 10);
    let limit = Some(Duration::from_secs(600));
    let retired = inner.retire(now, limit, None);
    assert_eq!(retired.len(), 1);
    retired.iter().for_each(|_| inner.room_freed());
    assert_eq!((inner.total(), inner.idle()), (2, 2));
    let later = now + Duration::from_secs(100);
    let old = inner.retire(later, None, Some(Duration::from_secs(50)));
    assert_eq!(old.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), ["max_lifetime"; 2]);
    old.iter().for_each(|_| inner.room_freed());
    assert!(inner.adjust(now).is_empty());
    assert!(matches!(inner.next_creation(now, 1), Next::Nothing), "the password has changed");
    assert!(inner.adjust(now).is_empty());
    assert_eq!(order(&mut inner).demand.lane, a.lane);
    assert_eq!(order(&mut inner).demand.lane, a.lane);
    assert!(nothing_to_make(&mut inner));
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_needs_a_check_and_takes_its_like_along() {
    let (mut inner, a) = (inner(&config(5, 9)), of("a", "db"));
    inner.total = 2;
    back(&mut inner, &a, 1);
    back(&mut inner, &a, 2);
    inner.tick(1, 10);
    let Turn::Now(lent) = inner.turn(&a, me()) else { panic!() };
    assert!(lent.stale_since.is_none());
    inner.put_back(a.lane.clone(), me(), lent.conn);
    inner.tick(4, 10);
    let Turn::Now(lent) = inner.turn(&a, me()) else { panic!() };
    assert_eq!((lent.stale_since, lent.conn.cancel.pid), (Some(1), 2));
    let others = inner.take_idle_since(&a.lane, 1);
    assert_eq!(others.len(), 1);
    assert_eq!(inner.idle(), 0);
}

#[tokio::test]
async fn who_waits_for_too_long_is_counted_once() {
    let (mut inner, a) = (inner(&config(1, 9)), of("a", "db"));
    let _waiting = [wait(&mut inner, &a), wait(&mut inner, &a)];
    assert_eq!(inner.tick(10, 10), 0);
    assert_eq!(inner.tick(11, 10), 2);
    assert_eq!(inner.tick(12, 10), 0);
}

#[tokio::test]
async fn lanes_are_bounded() {
    let mut inner = inner(&config(1, 9));
    for n in 0..2 * MAX_LANES {
        inner.touch(&of(&n.to_string(), "db").lane, n as u64);
    }
    assert_eq!(inner.lanes.len(), MAX_LANES);
    assert!(!inner.lanes.contains_key(&of("0", "db").lane));
}

#[tokio::test]
async fn a_closed_pool_lets_its_waiters_go() {
    let (mut inner, a) = (inner(&config(1, 9)), of("a", "db"));
    let (_, mut waiting) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    assert!(inner.close().is_empty());
    assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    assert!(matches!(inner.turn(&a, me()), Turn::Closed));
    assert!(nothing_to_make(&mut inner));
    assert!(made(&mut inner, begun, 1).is_some());
}

#[tokio::test]
async fn a_pause_sends_waiters_away_and_a_resume_lets_them_in() {
    let config = config(1, 9);
    let (mut inner, demand) = (inner(&config), of("a", "db"));
    let (_, mut waiting) = wait(&mut inner, &demand);
    assert!(inner.pause(Some(&"other".into())));
    assert!(waiting.try_recv().is_err());
    assert!(inner.pause(Some(&"db".into())));
    assert!(matches!(waiting.try_recv(), Ok(Grant::Again)));
    assert!(matches!(inner.turn(&demand, me()), Turn::Paused));
    assert!(inner.resume(Some(&"db".into())) && !inner.resume(Some(&"db".into())));
    let (_, _waits) = wait(&mut inner, &demand);
    assert!(inner.pause(None) && inner.paused().holds("any"));
    inner.drain();
    assert!(matches!(inner.turn(&demand, me()), Turn::Closed));
    assert!(inner.resume(None) && !inner.paused().any());
}

#[tokio::test]
async fn a_pool_grows_at_once_and_shrinks_as_connections_come_back() {
    let (mut inner, demand) = (inner(&config(1, 9)), of("a", "db"));
    let (_, mut first) = wait(&mut inner, &demand);
    let (_, mut second) = wait(&mut inner, &demand);
    let only = order(&mut inner);
    assert!(nothing_to_make(&mut inner));
    assert!(change(&mut inner, &config(2, 9)).0.is_empty());
    let another = order(&mut inner);
    assert!(made(&mut inner, only, 1).is_none() && made(&mut inner, another, 2).is_none());
    assert_eq!((pid(&mut first), pid(&mut second)), (Some(1), Some(2)));
    assert!(change(&mut inner, &config(1, 9)).0.is_empty());
    assert!(back(&mut inner, &demand, 1).is_some());
    inner.room_freed();
    assert!(back(&mut inner, &demand, 2).is_none());
    assert_eq!((inner.total(), inner.idle()), (1, 1));
}

#[tokio::test]
async fn limits_of_roles_can_change() {
    let mut limits = config(10, 9);
    let (mut inner, a) = (inner(&limits), of("a", "db"));
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    made(&mut inner, begun, 1);
    assert_eq!(pid(&mut first), Some(1));
    assert!(back(&mut inner, &a, 1).is_none());
    // What was there before the limit was not counted, and goes.
    let limit = |most| PoolOverride { max_size: Some(most), pooling_mode: None };
    limits.pool.users.insert("a".into(), limit(1));
    let (gone, narrowed) = change(&mut inner, &limits);
    assert_eq!((gone.len(), inner.idle()), (1, 0));
    assert!(narrowed.concerns("a", "db") && !narrowed.concerns("b", "db"));
    inner.room_freed();
    let (_, mut first) = wait(&mut inner, &a);
    let begun = order(&mut inner);
    let (_, mut second) = wait(&mut inner, &a);
    assert!(nothing_to_make(&mut inner));
    limits.pool.users.insert("a".into(), limit(2));
    limits.pool.max_concurrent_creations = 2;
    let (gone, narrowed) = change(&mut inner, &limits);
    assert!(gone.is_empty() && !narrowed.concerns("a", "db"));
    let other = order(&mut inner);
    made(&mut inner, begun, 2);
    made(&mut inner, other, 3);
    assert_eq!((pid(&mut first), pid(&mut second)), (Some(2), Some(3)));
    limits.pool.users.clear();
    limits.pool.databases.insert("db".into(), limit(1));
    assert!(change(&mut inner, &limits).1.concerns("b", "db"));
    assert!(inner.gates.shut(&a.lane).is_none());
}

#[tokio::test]
async fn a_connection_is_lent_so_often_and_no_more() {
    let mut config = config(2, 2);
    // How many uses there may be, how many there were, whether it is kept.
    let cases = [(0, 1000, true), (3, 0, true), (3, 2, true), (3, 3, false), (1, 1, false)];
    for (most, uses, is_kept) in cases {
        config.pool.max_uses = most;
        let mut inner = inner(&config);
        let alice = of("alice", "db");
        let mut conn = BackendConn::to_nothing(1);
        let ticket = Arc::new(Roster::default()).enter("alice".into(), "db".into());
        (0..uses).for_each(|_| ticket.lent());
        conn.ticket = Some(ticket);
        let refused = inner.put_back(alice.lane, me(), Box::new(conn));
        assert_eq!((refused.is_none(), inner.idle()), (is_kept, usize::from(is_kept)), "{most}");
        assert!(refused.is_none_or(|conn| inner.is_worn(&conn)));
    }
}
