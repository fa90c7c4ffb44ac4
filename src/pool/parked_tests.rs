//! Tests of what is parked: who gets it, who does not, and to whom it gives way.

use std::sync::Arc;
use std::time::Duration;

use super::super::classes::{Purity, Tag, Wish};
use super::super::inner::{LaneKey, Turn};
use super::super::{Demand, PoolKind};
use super::*;
use crate::backend::Credentials;
use crate::config::Config;
use crate::telemetry::Metrics;

fn pool(max_size: usize) -> (Inner, Metrics) {
    let mut config = Config::default();
    config.pool.max_size = max_size;
    config.pool.min_size = 0;
    let (policy, gates) = PoolKind::Main.shape(&config);
    (Inner::new(policy, gates, &config), Metrics::new())
}

fn lane(role: &str) -> Arc<LaneKey> {
    Arc::new(LaneKey::new(&role.into(), None, &"db".into(), Vec::new()))
}

fn wish(class: &str, tag: &str) -> Wish {
    let class = super::super::classes::class(class).unwrap();
    Wish { class, purity: Purity::Own, tag: Tag::parse(tag).unwrap() }
}

/// A connection of the role that comes back with the number as its process number.
fn spot(metrics: &Metrics, role: &str, class: &str, tag: &str, pid: u32) -> Spot {
    Spot {
        lane: lane(role),
        worker: std::thread::current().id(),
        conn: Box::new(BackendConn::to_nothing(pid)),
        class: class.into(),
        tag: Tag::parse(tag).unwrap(),
        kept: Box::new(pid),
        uses: 1,
        since: 0,
        _counted: Raised::new(&metrics.classes.of(class).unwrap().parked),
    }
}

fn park(inner: &mut Inner, metrics: &Metrics, spots: &[(&str, &str, &str, u32)]) {
    for (role, class, tag, pid) in spots {
        inner.total += 1;
        assert!(inner.park(spot(metrics, role, class, tag, *pid), 1000).is_none());
    }
}

/// Process number of what is found, and whether its tag is exactly right.
fn look(inner: &mut Inner, role: &str, wish: &Wish) -> Option<(u32, bool)> {
    match inner.look(&lane(role), wish) {
        Look::Found(spot, exact) => {
            assert_eq!(spot.kept.downcast_ref::<u32>(), Some(&spot.conn.cancel.pid));
            Some((spot.conn.cancel.pid, exact))
        }
        _ => None,
    }
}

#[tokio::test]
async fn only_the_same_role_and_class_gets_it_and_only_once() {
    let (mut inner, metrics) = pool(10);
    park(&mut inner, &metrics, &[("a", "web", "", 1)]);
    let parked = || metrics.classes.of("web").unwrap().parked.get();
    assert_eq!(parked(), 1);
    for (role, class) in [("b", "web"), ("a", "app"), ("a", "Web"), ("a", "SHARED"), ("a", "")] {
        assert_eq!(look(&mut inner, role, &wish(class, "")), None, "{role} {class}");
    }
    assert_eq!(look(&mut inner, "a", &wish("web", "")), Some((1, true)));
    assert_eq!((look(&mut inner, "a", &wish("web", "")), parked()), (None, 0));
}

#[tokio::test]
async fn the_tag_that_suits_best_is_found_and_the_last_one_among_equals() {
    let (mut inner, metrics) = pool(10);
    park(
        &mut inner,
        &metrics,
        &[
            ("a", "web", "x=1,y=1", 1),
            ("a", "web", "x=1", 2),
            ("a", "web", "x=1,y=2", 3),
            ("a", "web", "x=2", 4),
            ("a", "web", "", 5),
            ("a", "web", "x=1", 6),
        ],
    );
    let mut next = |tag| look(&mut inner, "a", &wish("web", tag));
    assert_eq!(next("x=1"), Some((6, true)));
    assert_eq!(next("x=1"), Some((2, true)));
    assert_eq!(next("y=1,x=1,z=1"), Some((1, false)));
    assert_eq!(next("x=1"), Some((3, false)));
    assert_eq!(next("x=1"), None);
    assert_eq!(next(""), Some((5, true)));
    assert_eq!(next(""), Some((4, false)));
}

#[tokio::test]
async fn nothing_is_parked_while_others_wait_and_what_is_parked_gives_way() {
    let (mut inner, metrics) = pool(2);
    park(&mut inner, &metrics, &[("b", "web", "", 1), ("a", "web", "", 2)]);
    let demand = Demand { lane: lane("a"), credentials: Credentials::Local };
    assert!(inner.give_way(&lane("a")).is_some_and(|spot| spot.conn.cancel.pid == 2));
    let Turn::Wait(_, _receiver) = inner.turn(&demand, std::thread::current().id()) else {
        panic!("there was something idle")
    };
    assert_eq!(inner.first_stuck(), Some(lane("a")));
    let refused = inner.park(spot(&metrics, "a", "web", "", 3), 1000);
    assert!(refused.is_some_and(|spot| spot.conn.cancel.pid == 3));
    // Of another lane: its end makes room.
    assert!(inner.give_way(&lane("a")).is_some_and(|spot| spot.conn.cancel.pid == 1));
    assert!(inner.give_way(&lane("a")).is_none());
}

#[tokio::test]
async fn while_there_is_room_nothing_gives_way() {
    let (mut inner, metrics) = pool(3);
    park(&mut inner, &metrics, &[("a", "web", "", 1)]);
    assert!(inner.give_way(&lane("a")).is_none());
    inner.total = 3;
    assert!(inner.give_way(&lane("a")).is_some());
}

#[tokio::test]
async fn what_nobody_takes_expires_but_for_the_least_number() {
    let (mut inner, metrics) = pool(10);
    park(&mut inner, &metrics, &[("a", "web", "", 1), ("a", "web", "", 2)]);
    inner.tick(10, 10);
    park(&mut inner, &metrics, &[("a", "web", "", 3)]);
    let (s, long) = (Duration::from_secs, Duration::from_secs(9999));
    assert!(inner.expire(0, s(10), long).is_empty());
    inner.tick(11, 10);
    let expired = inner.expire(2, s(10), long);
    assert_eq!((expired.len(), expired[0].0, expired[0].1.cancel.pid), (1, "parked_idle", 1));
    assert_eq!((inner.expire(0, s(10), long).len(), inner.parking.len()), (1, 1));
    assert_eq!(inner.expire(1, s(10), Duration::ZERO)[0].0, "max_lifetime");
    assert!(inner.parking.is_empty());
}

#[tokio::test]
async fn tags_and_places_are_bounded() {
    let (mut inner, metrics) = pool(10);
    park(&mut inner, &metrics, &[("a", "web", "x=1", 1), ("a", "web", "x=2", 2)]);
    assert!(inner.park(spot(&metrics, "a", "web", "x=2", 3), 2).is_none());
    let displaced = inner.park(spot(&metrics, "a", "app", "x=2", 4), 2);
    assert!(displaced.is_some_and(|spot| spot.conn.cancel.pid == 1));
    let pids: Vec<u32> = inner.parking.trim(1).iter().map(|conn| conn.cancel.pid).collect();
    assert_eq!((pids, inner.parking.len()), (vec![2, 3], 1));
}

#[tokio::test]
async fn administrators_and_changes_of_access_reach_what_is_parked() {
    let (mut inner, metrics) = pool(10);
    park(&mut inner, &metrics, &[("a", "web", "", 1), ("b", "web", "", 2)]);
    assert_eq!(inner.take_idle_in(|key| key.role() == "a").len(), 1);
    assert!(inner.pause(None));
    assert!(matches!(inner.look(&lane("b"), &wish("web", "")), Look::Nothing));
    inner.resume(None);
    assert_eq!(inner.parking.take_outdated(0).len(), 0);
    assert_eq!(inner.parking.take_outdated(1).len(), 1);
    park(&mut inner, &metrics, &[("a", "web", "", 3)]);
    assert_eq!((inner.close().len(), inner.parking.len()), (1, 0));
    assert!(inner.park(spot(&metrics, "a", "web", "", 4), 1000).is_some());
}

#[tokio::test]
async fn who_comes_while_one_is_tidied_knows_that_it_comes() {
    let (mut inner, metrics) = pool(10);
    inner.comes(lane("a"), "web".into());
    assert!(matches!(inner.look(&lane("a"), &wish("web", "")), Look::Soon));
    assert!(matches!(inner.look(&lane("b"), &wish("web", "")), Look::Nothing));
    assert!(matches!(inner.look(&lane("a"), &wish("app", "")), Look::Nothing));
    park(&mut inner, &metrics, &[("a", "web", "", 1)]);
    inner.has_come(&lane("a"), "web");
    assert_eq!(look(&mut inner, "a", &wish("web", "")), Some((1, true)));
    assert!(matches!(inner.look(&lane("a"), &wish("web", "")), Look::Nothing));
}
