//! Statements of our own on a session's connection, which its client did not ask for: they have a
//! deadline, and a client that is gone meanwhile is noticed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{Entry, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::net::Stream;

/// How often it is seen whether the client is still there.
const CLIENT_CHECK: Duration = Duration::from_millis(250);

/// Time for a statement that the client has sent to be passed on.
const CANCEL_WAIT: Duration = Duration::from_secs(1);

/// How often that is looked at.
const CANCEL_POLL: Duration = Duration::from_millis(1);

/// Pauses between the attempts to cancel it.
const CANCEL_PAUSES: [Duration; 5] = {
    let ms = Duration::from_millis;
    [ms(5), ms(20), ms(80), ms(320), ms(1280)]
};

/// Does a piece of work within this time; `None` = the client did not wait. An error of this kind
/// says that the time was not enough. Work that is given up leaves its connection in the middle of
/// something.
pub(super) async fn bounded<T>(
    client: &Stream,
    entry: &Entry,
    (limit, late): (Duration, ErrorKind),
    work: impl Future<Output = Result<T>>,
) -> Option<Result<T>> {
    let work = tokio::time::timeout(limit, work);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                return Some(done.unwrap_or_else(|_| Err(too_slow(limit, late))));
            }
            () = tokio::time::sleep(CLIENT_CHECK) => match entry.stop() {
                _ if client.peer_has_closed() => return None,
                stop if stop >= Stop::Kill => return Some(Err(stop.error())),
                _ => {}
            }
        }
    }
}

/// Carries out a cancel request that came while a statement of our own ran and is meant for the one
/// that the client has sent already. PostgreSQL forgets a request that it gets before the statement
/// begins, so it is asked again as long as the same statement runs.
pub(super) fn cancel_next(entry: Arc<Entry>) {
    tokio::spawn(async move {
        let running = tokio::time::timeout(CANCEL_WAIT, begun(&entry)).await;
        let Ok(running) = running else { return };
        for pause in CANCEL_PAUSES {
            entry.slot.cancel().await;
            tokio::time::sleep(pause).await;
            if entry.tally.request_since() != Some(running) {
                return;
            }
        }
    });
}

/// Returns when a request is in work, and since when.
async fn begun(entry: &Entry) -> Duration {
    loop {
        if let Some(since) = entry.tally.request_since() {
            return since;
        }
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

fn too_slow(limit: Duration, kind: ErrorKind) -> Error {
    let secs = limit.as_secs();
    let text = format!("PostgreSQL did not answer within {secs} s on this session's connection");
    let hint = match kind {
        ErrorKind::ServiceUnavailable => "try again; pool.reset_timeout_secs is the limit",
        _ => "connect again; pool.reset_timeout_secs is the limit",
    };
    Error::new(kind, text).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Instant;

    use super::super::Sessions;
    use super::super::registry::Newcomer;
    use super::*;
    use crate::telemetry::Metrics;
    use crate::types::Protocol;

    fn entry() -> Arc<Entry> {
        Sessions::new(Arc::new(Metrics::new())).register(Newcomer {
            role: "r".into(),
            database: "d".into(),
            protocol: Protocol::Postgres,
            peer: "local".into(),
            application: String::new(),
            mode: crate::config::PoolingMode::Transaction,
            is_console: false,
            grant: None,
        })
    }

    #[tokio::test]
    async fn it_ends_with_the_work_the_deadline_the_client_or_the_session() {
        let (client, peer) = tokio::net::UnixStream::pair().unwrap();
        let client = crate::net::Socket::new(client.into_std().unwrap()).unwrap();
        let (client, entry) = (Stream::Unix(client), entry());
        let long = (Duration::from_secs(60), ErrorKind::ConnectionFailure);
        let short = (Duration::from_millis(10), ErrorKind::ServiceUnavailable);
        let done = bounded(&client, &entry, long, async { Ok(7) }).await;
        assert_eq!(done.unwrap().unwrap(), 7);
        let late = bounded(&client, &entry, short, pending::<Result<()>>()).await;
        let late = late.unwrap().unwrap_err();
        assert_eq!((late.sqlstate().as_str(), late.is_retryable()), ("57P03", true));
        let begun = Instant::now();
        let other = entry.clone();
        let killed = bounded(&client, &entry, long, async {
            other.kill();
            pending::<Result<()>>().await
        });
        assert_eq!(killed.await.unwrap().unwrap_err().sqlstate().as_str(), "57P01");
        drop(peer);
        assert!(bounded(&client, &entry, long, pending::<Result<()>>()).await.is_none());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
