//! Statements in work: seen, and cancelled by those who may.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, admin, role};
use crate::harness::eventually;

const ACTIVE: &str = "/api/v1/queries/active?limit=1000";

/// The statement whose text contains the word, when it is seen.
fn running(api: &Api<'_>, word: &str) -> Option<Value> {
    let list = api.get(ACTIVE).expect(200);
    let items = list["items"].as_array().unwrap();
    let has = |query: &&Value| query["sql"].as_str().is_some_and(|sql| sql.contains(word));
    items.iter().find(has).cloned()
}

/// The same when it sleeps: it is seen a moment before PostgreSQL has begun with it.
fn until_running(api: &Api<'_>, word: &str) -> Value {
    let mut found = None;
    eventually("it runs", Duration::from_secs(20), || {
        found = running(api, word);
        found.as_ref().is_some_and(|query| query["wait_event"] == "PgSleep")
    });
    found.unwrap()
}

fn cancel(api: &Api<'_>, query: &Value) -> crate::api::Answer {
    api.delete(&format!("/api/v1/queries/{}", query["query_id"].as_str().unwrap()))
}

#[test]
fn statements_are_cancelled_by_those_who_may() {
    let sleeper = role("sleeper");
    let stranger = role("query_stranger");
    let signaller = role("signaller");
    admin().sql("grant pg_signal_backend to signaller");
    let slept = |word: &str| {
        let sql = format!("select pg_sleep(60) as {word}");
        std::thread::spawn(move || {
            let sleeper = Api::of(crate::harness::shared::guarded(), "sleeper", "sleeper-pass");
            sleeper.post("/api/v1/query", json!({ "sql": sql }))
        })
    };
    let sleep = slept("by_self");
    let query = until_running(&sleeper, "by_self");
    assert_eq!((&query["user"], &query["state"]), (&"sleeper".into(), &"active".into()));
    assert_eq!((&query["wait_event"], &query["protocol"]), (&"PgSleep".into(), &"http".into()));
    assert!(query["backend_pid"].is_number() && query["started_at"].is_string());
    assert!(running(&stranger, "by_self").is_none());
    cancel(&stranger, &query).refused(404, "NOT_FOUND");
    assert_eq!(cancel(&sleeper, &query).expect(200)["status"], "cancelled");
    sleep.join().unwrap().refused(499, "CANCELLED");
    cancel(&sleeper, &query).refused(404, "NOT_FOUND");

    for (who, word) in [(&admin(), "by_admin"), (&signaller, "by_member")] {
        let sleep = slept(word);
        // A member may cancel what it may not read.
        let query = until_running(&admin(), word);
        let list = who.get(ACTIVE).expect(200);
        let ids: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|q| &q["query_id"]).collect();
        assert!(ids.contains(&&query["query_id"]), "{word}");
        cancel(who, &query).expect(200);
        sleep.join().unwrap().refused(499, "CANCELLED");
    }
    sleeper.delete("/api/v1/queries/seven").refused(400, "VALIDATION_ERROR");
}

#[test]
fn the_number_of_an_answer_is_that_of_the_list() {
    let api = admin();
    let stream = std::thread::spawn(|| {
        let sql = "select pg_sleep(3) as numbered";
        let answer = admin().post("/api/v1/query", json!({ "sql": sql }));
        (answer.header("x-query-id").to_owned(), answer.expect(200)["query_id"].clone())
    });
    let seen = until_running(&api, "numbered")["query_id"].clone();
    let (header, body) = stream.join().unwrap();
    assert_eq!((&body, header.as_str()), (&seen, seen.as_str().unwrap()));
}
