//! The audit log: who came in, who did not, and what administrators changed.
//!
//! A record goes into a ring in memory, for those who ask, and through a bounded channel to a
//! thread that writes the file. Nothing secret is put into a record: names and numbers only.

mod file;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::config::{AuditFull, Live};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::Metrics;
use crate::types::Protocol;
use file::Rotating;

/// Records in memory.
const RING: usize = 10_000;

/// Records that are written at once.
const BATCH: usize = 500;

/// How long a log-in waits for room, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Entries of a record's metadata, and bytes of each text in a record.
const MOST_METADATA: usize = 32;
const LONGEST_TEXT: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Somebody proved who he is.
    AuthenticationSuccess,
    /// Somebody did not.
    AuthenticationFailure,
    /// Somebody may do what he asked for.
    AuthorizationSuccess,
    /// Somebody may not.
    AuthorizationFailure,
    /// Somebody came too often.
    RateLimitExceeded,
    /// A used refresh token came again, or a key from an address that it is not for.
    SuspiciousActivity,
    /// A session of a browser or program began.
    SessionCreated,
    /// It ended.
    SessionTerminated,
    /// The configuration was changed.
    ConfigChanged,
    /// A role of RustyDB was changed.
    RoleChanged,
    /// A user was made, changed or removed.
    UserChanged,
    /// An administrator has begun maintenance or a backup, or changed an extension.
    Administration,
    /// An API key was made.
    KeyCreated,
    /// An API key was revoked.
    KeyRevoked,
    /// An HTTP request that `security.audit.level` wants to have a record of.
    Request,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused.
    Denied,
    /// It failed.
    Error,
}

/// What happened, as it is told to [`AuditLog::record`].
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// What.
    pub event_type: EventType,
    /// How it ended.
    pub result: Outcome,
    /// The role, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Where the client is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<IpAddr>,
    /// The door.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "word")]
    pub protocol: Option<Protocol>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How he proved himself, or what was done.
    pub action: String,
    /// To what it was done: the public id of a key, the name of a role or setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// More.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

fn word<S: serde::Serializer>(protocol: &Option<Protocol>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(protocol.map_or("", Protocol::as_str))
}

impl Event {
    /// An event of which only the most necessary is known.
    pub fn new(event_type: EventType, result: Outcome, action: impl Into<String>) -> Self {
        Self {
            event_type,
            result,
            user_id: None,
            client_ip: None,
            protocol: None,
            request_id: None,
            action: action.into(),
            resource: None,
            error: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Names whom it is about.
    pub fn by(mut self, role: &str) -> Self {
        self.user_id = Some(role.to_owned());
        self
    }

    /// Names what it is about.
    pub fn about(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    fn shorten(&mut self) {
        let texts = [&mut self.user_id, &mut self.request_id, &mut self.resource, &mut self.error];
        let texts = texts.into_iter().flatten().chain([&mut self.action]);
        for text in texts.chain(self.metadata.values_mut()) {
            if text.len() > LONGEST_TEXT {
                let end = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at));
                text.truncate(end.unwrap_or(0));
            }
        }
        while self.metadata.len() > MOST_METADATA {
            self.metadata.pop_last();
        }
    }
}

/// An event with its number and time.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Counts from 1 in each process.
    pub sequence: u64,
    /// RFC 3339 with microseconds, UTC.
    pub timestamp: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What [`AuditLog::recent`] looks for; empty fields fit everything.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these events.
    pub event_type: Option<EventType>,
    /// Only of this role.
    pub user_id: Option<String>,
    /// Only with this result.
    pub result: Option<Outcome>,
    /// Only records with lower numbers, to go on where the last page ended.
    pub before: Option<u64>,
}

impl Wanted {
    fn fits(&self, record: &Record) -> bool {
        self.event_type.is_none_or(|wanted| wanted == record.event.event_type)
            && self.result.is_none_or(|wanted| wanted == record.event.result)
            && self.before.is_none_or(|before| record.sequence < before)
            && (self.user_id.is_none() || self.user_id == record.event.user_id)
    }
}

/// The audit log. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    live: Live,
    metrics: Arc<Metrics>,
    next: AtomicU64,
    ring: Mutex<VecDeque<Arc<Record>>>,
    /// `None` = nothing is written.
    channel: Option<mpsc::Sender<Arc<Record>>>,
}

impl AuditLog {
    /// A log that is only kept in memory.
    pub fn in_memory(live: Live, metrics: Arc<Metrics>) -> Self {
        Self::with(live, metrics, None)
    }

    /// Opens the file and starts the thread that writes it; `default` is where it is unless the
    /// configuration says otherwise. The thread ends when the last clone of the log is gone.
    ///
    /// # Errors
    /// The file cannot be opened, in one sentence.
    pub fn open(live: Live, metrics: Arc<Metrics>, default: PathBuf) -> Result<Self, String> {
        let audit = &live.now().audit;
        if !audit.enabled {
            return Ok(Self::with(live.clone(), metrics, None));
        }
        let path = audit.path.clone().unwrap_or(default);
        let file = Rotating::open(&path)
            .map_err(|e| format!("cannot open the audit log {}: {e}", path.display()))?;
        let (sender, records) = mpsc::channel(audit.channel as usize);
        let (settings, counted) = (live.clone(), metrics.clone());
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(file, records, &settings, &counted))
            .map_err(|e| format!("cannot start a thread for the audit log: {e}"))?;
        Ok(Self::with(live.clone(), metrics, Some(sender)))
    }

    fn with(live: Live, metrics: Arc<Metrics>, channel: Option<mpsc::Sender<Arc<Record>>>) -> Self {
        let (next, ring) = (AtomicU64::new(1), Mutex::default());
        Self(Arc::new(Inner { live, metrics, next, ring, channel }))
    }

    /// Writes an event down.
    ///
    /// # Errors
    /// There is no room for it and `security.audit.on_full` is `refuse`: what it is about must not
    /// be done.
    pub async fn record(&self, event: Event) -> Result<()> {
        let Some(record) = self.remember(event) else { return Ok(()) };
        let Some(channel) = &self.0.channel else { return Ok(()) };
        let Err(full) = channel.try_send(record) else { return Ok(()) };
        match (full, self.0.live.now().audit.on_full) {
            (mpsc::error::TrySendError::Full(record), AuditFull::Block) => {
                if channel.send_timeout(record, PATIENCE).await.is_err() {
                    self.0.metrics.access.audit_dropped.inc();
                }
                Ok(())
            }
            (_, AuditFull::Refuse) => {
                self.0.metrics.access.audit_dropped.inc();
                let text = "the audit log cannot keep up, and nothing is done without it";
                Err(Error::new(ErrorKind::ServiceUnavailable, text))
            }
            _ => {
                self.0.metrics.access.audit_dropped.inc();
                Ok(())
            }
        }
    }

    /// Writes an event down, unless there is no room for it: for what has been done already.
    pub fn note(&self, event: Event) {
        let record = self.remember(event);
        if let (Some(record), Some(channel)) = (record, &self.0.channel)
            && channel.try_send(record).is_err()
        {
            self.0.metrics.access.audit_dropped.inc();
        }
    }

    fn remember(&self, mut event: Event) -> Option<Arc<Record>> {
        if !self.0.live.now().audit.enabled {
            return None;
        }
        event.shorten();
        let sequence = self.0.next.fetch_add(1, Ordering::Relaxed);
        let record = Arc::new(Record { sequence, timestamp: timestamp(), event });
        let mut ring = self.0.ring.lock();
        if ring.len() >= RING {
            ring.pop_front();
        }
        ring.push_back(record.clone());
        Some(record)
    }

    /// The last records that fit, newest first, at most `most` of those in memory.
    pub fn recent(&self, wanted: &Wanted, most: usize) -> Vec<Arc<Record>> {
        let ring = self.0.ring.lock();
        ring.iter().rev().filter(|record| wanted.fits(record)).take(most).cloned().collect()
    }
}

/// Writes what comes until nobody is left who could send.
fn write(
    mut file: Rotating,
    mut records: mpsc::Receiver<Arc<Record>>,
    live: &Live,
    metrics: &Metrics,
) {
    let mut batch = Vec::new();
    while records.blocking_recv_many(&mut batch, BATCH) > 0 {
        let config = live.now();
        let count = batch.len() as u64;
        let mut text = Vec::new();
        for record in batch.drain(..) {
            // A record is plain data, which can always be written as JSON.
            if serde_json::to_writer(&mut text, record.as_ref()).is_ok() {
                text.push(b'\n');
            }
        }
        match file.append(&text, config.audit.rotate_bytes.0, config.audit.rotate_files) {
            Ok(()) => metrics.access.audit_records.inc_by(count),
            Err(error) => {
                metrics.access.audit_dropped.inc_by(count);
                tracing::error!(%error, "the audit log cannot be written");
            }
        }
    }
}

fn timestamp() -> String {
    jiff::Timestamp::try_from(SystemTime::now())
        .map_or_else(|_| String::new(), |now| format!("{now:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn live(change: impl FnOnce(&mut Config)) -> Live {
        let mut config = Config::default();
        change(&mut config);
        Live::fixed(config)
    }

    fn event(role: &str) -> Event {
        Event::new(EventType::AuthenticationSuccess, Outcome::Success, "scram").by(role)
    }

    #[tokio::test]
    async fn records_are_found_again_and_bounded() {
        let log = AuditLog::in_memory(live(|_| {}), Arc::default());
        for n in 0..RING + 5 {
            log.record(event(if n % 2 == 0 { "a" } else { "b" })).await.unwrap();
        }
        assert_eq!(log.0.ring.lock().len(), RING);
        let wanted = Wanted { user_id: Some("b".into()), ..Wanted::default() };
        let page = log.recent(&wanted, 3);
        assert_eq!(page.iter().map(|r| r.sequence).collect::<Vec<_>>(), [10_004, 10_002, 10_000]);
        let wanted = Wanted { before: Some(10_000), ..wanted };
        assert_eq!(log.recent(&wanted, 1)[0].sequence, 9998);
        let wanted = Wanted { result: Some(Outcome::Denied), ..Wanted::default() };
        assert!(log.recent(&wanted, 1).is_empty());
    }

    #[test]
    fn texts_from_outside_are_cut() {
        let mut event = event(&"ä".repeat(5000));
        event.metadata = (0..50).map(|n| (format!("{n:02}"), "x".repeat(5000))).collect();
        event.shorten();
        assert_eq!(event.user_id.as_ref().unwrap().len(), 1024);
        assert_eq!((event.metadata.len(), event.metadata["31"].len()), (32, 1024));
    }

    #[tokio::test]
    async fn a_full_channel_blocks_drops_or_refuses() {
        for (on_full, ok, dropped) in
            [(AuditFull::Drop, true, 1), (AuditFull::Refuse, false, 1), (AuditFull::Block, true, 1)]
        {
            let metrics = Arc::new(Metrics::new());
            let (sender, _records) = mpsc::channel(1);
            let live = live(|config| config.audit.on_full = on_full);
            let log = AuditLog::with(live, metrics.clone(), Some(sender));
            log.record(event("a")).await.unwrap();
            assert_eq!(log.record(event("b")).await.is_ok(), ok, "{on_full:?}");
            assert_eq!(metrics.access.audit_dropped.get(), dropped, "{on_full:?}");
        }
    }

    #[test]
    fn the_file_has_a_line_for_each_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let metrics = Arc::new(Metrics::new());
        let log = AuditLog::open(live(|_| {}), metrics.clone(), path.clone()).unwrap();
        for _ in 0..1000 {
            log.note(event("joe"));
        }
        drop(log);
        for _ in 0..500 {
            if metrics.access.audit_records.get() == 1000 {
                break;
            }
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["event_type"], "authentication_success");
        assert_eq!(
            (last["sequence"].as_u64(), last["user_id"].as_str()),
            (Some(1000), Some("joe"))
        );
        assert!(last["timestamp"].as_str().unwrap().ends_with('Z'), "{last}");
    }
}
