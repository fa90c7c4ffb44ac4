//! The side of the process that takes over.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::wire::{Line, Message, PROTOCOL};
use super::{Offer, control_path};
use crate::net::{Door, Inherited};
use crate::session::{CancelElsewhere, Sessions};
use crate::supervisor::StartError;
use crate::supervisor::data_dir::DataDir;
use crate::telemetry::Metrics;

/// Time for the running process to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Cancel requests that may wait to be forwarded, and those that wait for their answer.
const CANCELS: usize = 256;

/// A take-over that has begun.
pub(in super::super) struct Taking {
    line: Line,
    pid: u32,
}

/// The process that served before, for as long as it has clients.
pub(in super::super) struct Predecessor {
    line: Line,
    pid: u32,
}

impl Taking {
    /// Asks the process that serves the data directory for its listening sockets.
    ///
    /// # Errors
    /// There is none, it refuses, or it does not answer.
    pub(in super::super) async fn begin(data_dir: &Path) -> Result<(Self, Inherited), StartError> {
        let path = control_path(data_dir);
        let stream = UnixStream::connect(&path).await.map_err(|e| {
            let hint = match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "; nobody is running there, so start without --takeover"
                }
                _ => "",
            };
            StartError::runtime(format!(
                "cannot take over from a RustyDB on the data directory {}: {e}{hint}",
                data_dir.display()
            ))
        })?;
        let mut line = Line::new(stream);
        let hello = Message::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            doors: Vec::new(),
        };
        let (pid, version, doors) = match ask(&mut line, &hello).await? {
            Some(Message::Hello { pid, version, doors, .. }) => (pid, version, doors),
            _ => return Err(failed("the running process gave no answer of use")),
        };
        let mut inherited = Inherited::default();
        for name in doors {
            let socket = line.descriptor();
            let socket = socket.ok_or_else(|| failed(&format!("a socket of {name} is missing")))?;
            inherited.add(name, socket).map_err(|e| failed(&e.to_string()))?;
        }
        tracing::info!(pid, version, "taking over from the running process");
        Ok((Self { line, pid }, inherited))
    }

    /// Says that everything is ready, and becomes the one who serves: with the lock of the data
    /// directory and the files of the Unix sockets, also of those that are not wanted any more.
    ///
    /// # Errors
    /// The running process has changed its mind.
    pub(in super::super) async fn finish(
        mut self,
        offer: &Offer,
        unused: &[Door],
        data: &mut DataDir,
    ) -> Result<Predecessor, StartError> {
        let lock = match ask(&mut self.line, &Message::Ready).await? {
            Some(Message::Yours) => self.line.descriptor().map(File::from),
            _ => {
                tracing::warn!(pid = self.pid, "the process that is taken over died");
                None
            }
        };
        // From here on nobody else serves, so nothing may end this process any more.
        if let Err(error) = data.take_lock(lock) {
            tracing::error!(%error, "the data directory is not locked");
        }
        offer.own_files();
        unused.iter().filter_map(Door::file).for_each(|file| file.own(true));
        Ok(Predecessor { line: self.line, pid: self.pid })
    }
}

/// Asks, and waits for the answer; `None` = the other process is gone.
async fn ask(line: &mut Line, message: &Message) -> Result<Option<Message>, StartError> {
    // A process that died in between is found out by the answer that does not come.
    let _ = line.send(message, &[]).await;
    match tokio::time::timeout(ANSWER_LIMIT, line.receive()).await {
        Ok(Ok(Some(Message::Refused { why }))) => Err(failed(&why)),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Ok(Err(e)) => Err(failed(&e.to_string())),
        Err(_) => Err(failed(
            "the running process does not answer; perhaps another one is taking over already",
        )),
    }
}

fn failed(why: &str) -> StartError {
    StartError::runtime(format!("cannot take over: {why}"))
}

impl Predecessor {
    /// Forwards cancel requests that are none of ours, until the process has ended.
    pub(in super::super) async fn attend(self, sessions: Arc<Sessions>, metrics: Arc<Metrics>) {
        let Predecessor { mut line, pid } = self;
        let (sender, mut requests) = mpsc::channel::<CancelElsewhere>(CANCELS);
        sessions.forward_cancels(Some(sender));
        let mut waiting: HashMap<u64, CancelElsewhere> = HashMap::new();
        let mut id = 0;
        loop {
            tokio::select! {
                Some(request) = requests.recv(), if waiting.len() < CANCELS => {
                    id += 1;
                    let key = request.key.clone();
                    let message = Message::Cancel { id, pid: request.pid, key };
                    waiting.insert(id, request);
                    let _ = line.send(&message, &[]).await;
                }
                message = line.receive() => match message {
                    Ok(Some(Message::Cancelled { id })) => {
                        // Dropping it tells who waits.
                        waiting.remove(&id);
                    }
                    Ok(Some(Message::Clients { left })) => {
                        metrics.clients_elsewhere.set(i64::try_from(left).unwrap_or(i64::MAX));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                },
            }
        }
        sessions.forward_cancels(None);
        metrics.clients_elsewhere.set(0);
        tracing::info!(pid, "the process that was taken over has ended");
    }
}
