//! The side of the process that is to be replaced.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};

use super::super::{Doors, Shared};
use super::control_path;
use super::wire::{Line, MOST_SOCKETS, Message, PROTOCOL};
use crate::config::BackendMode;
use crate::net::SocketFile;
use crate::telemetry::health::Phase;

/// Time for the new process to say what it wants.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Time for the new process to be ready.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How often the new process is told how many clients are left.
const NEWS_EVERY: Duration = Duration::from_secs(1);

/// Cancel requests of the new process that are carried out at once.
const CANCELS: usize = 64;

/// Waits for a process that takes over. Dropping it closes the control socket.
pub(in super::super) struct Giver {
    path: PathBuf,
    /// Whether the file at the path is this process's.
    is_ours: bool,
    task: Option<tokio::task::JoinHandle<()>>,
    heirs: mpsc::Receiver<Line>,
    files: Vec<Arc<SocketFile>>,
}

/// The process that takes over, ready to accept.
pub(in super::super) struct Heir(Line);

/// What the new process gets.
pub(in super::super) struct Offer {
    sockets: Vec<(&'static str, OwnedFd)>,
    files: Vec<Arc<SocketFile>>,
}

impl Offer {
    /// Every listening socket once more. They have to be let go when the doors are closed.
    pub(in super::super) fn of(doors: &Doors) -> io::Result<Self> {
        let named = doors.named();
        let all = || named.iter().flat_map(|(name, doors)| doors.iter().map(|door| (*name, door)));
        let sockets = all().map(|(name, door)| Ok((name, door.duplicate()?)));
        Ok(Self {
            sockets: sockets.collect::<io::Result<_>>()?,
            files: all().filter_map(|(_, door)| door.file()).collect(),
        })
    }

    /// The files of the Unix sockets belong to this process now.
    pub(super) fn own_files(&self) {
        self.files.iter().for_each(|file| file.own(true));
    }
}

impl Giver {
    /// Opens the control socket of the data directory, in the place of an earlier one's. Where
    /// that is not possible, nobody can take over, and the log says so.
    pub(in super::super) fn open(data_dir: &Path, offer: Offer, shared: &Arc<Shared>) -> Self {
        let path = control_path(data_dir);
        let Offer { sockets, files } = offer;
        let (found, heirs) = mpsc::channel(1);
        let task = match listen(&path) {
            Ok(listener) => {
                let host = Host { shared: shared.clone(), sockets, found };
                Some(tokio::spawn(host.serve(listener)))
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "no --takeover from this process: no control socket");
                None
            }
        };
        Self { path, is_ours: task.is_some(), task, heirs, files }
    }

    /// Returns when another process could take over at once.
    pub(in super::super) async fn heir(&mut self) -> Heir {
        match self.heirs.recv().await {
            Some(line) => Heir(line),
            None => std::future::pending().await,
        }
    }

    /// Hands over to it. After an error it is gone, and nothing has changed.
    pub(in super::super) async fn hand_over(
        &mut self,
        heir: &Heir,
        lock: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let own = |is_ours| self.files.iter().for_each(|file| file.own(is_ours));
        own(false);
        if let Err(error) = heir.0.send(&Message::Yours, &[lock]).await {
            own(true);
            return Err(error);
        }
        self.is_ours = false;
        self.close();
        Ok(())
    }

    /// Lets the listening sockets go; nobody can take over any more.
    pub(in super::super) fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if std::mem::take(&mut self.is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.close();
    }
}

/// Under another name first: the path always leads to somebody who answers.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Answers at the control socket, one process after the other.
struct Host {
    shared: Arc<Shared>,
    sockets: Vec<(&'static str, OwnedFd)>,
    found: mpsc::Sender<Line>,
}

impl Host {
    async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.attend(Line::new(stream)).await,
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(NEWS_EVERY).await;
                }
            }
        }
    }

    async fn attend(&self, mut line: Line) {
        let result = match self.prepare(&mut line).await {
            Ok(()) => match self.found.send(line).await {
                Ok(()) => return,
                Err(_) => "stopped",
            },
            Err(Failed::Refused(why)) => {
                tracing::warn!(why, "a process that wants to take over is refused");
                let _ = line.send(&Message::Refused { why }, &[]).await;
                "refused"
            }
            Err(Failed::Gone(why)) => {
                tracing::warn!(why, "no take-over; this process goes on serving");
                "failed"
            }
        };
        self.shared.metrics.takeover(result);
    }

    async fn prepare(&self, line: &mut Line) -> Result<(), Failed> {
        let own = nix::unistd::geteuid().as_raw();
        let peer = line.peer_uid().map_err(Failed::gone)?;
        if peer != own && peer != 0 {
            let why = format!("user {peer} may not take over a process of user {own}");
            return Err(Failed::Refused(why));
        }
        let hello = tokio::time::timeout(HELLO_LIMIT, line.receive()).await;
        let (protocol, version, pid) = match hello {
            Ok(Ok(Some(Message::Hello { protocol, version, pid, .. }))) => (protocol, version, pid),
            Ok(Ok(_)) => return Err(Failed::Gone("it said nothing of use".into())),
            Ok(Err(error)) => return Err(Failed::gone(error)),
            Err(_) => return Err(Failed::Gone("it said nothing".into())),
        };
        if let Some(why) = self.objection(protocol) {
            return Err(Failed::Refused(why));
        }
        tracing::info!(pid, version, "another process is about to take over");
        let doors = self.sockets.iter().map(|(name, _)| (*name).to_owned()).collect();
        let hello = Message::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            doors,
        };
        let sockets: Vec<BorrowedFd<'_>> = self.sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        line.send(&hello, &sockets).await.map_err(Failed::gone)?;
        loop {
            match tokio::time::timeout(START_LIMIT, line.receive()).await {
                Ok(Ok(Some(Message::Ready))) => return Ok(()),
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return Err(Failed::Gone("it ended before it was ready".into())),
                Ok(Err(error)) => return Err(Failed::gone(error)),
                Err(_) => {
                    let secs = START_LIMIT.as_secs();
                    return Err(Failed::Refused(format!("it was not ready within {secs} s")));
                }
            }
        }
    }

    fn objection(&self, protocol: u32) -> Option<String> {
        let config = &self.shared.config;
        if config.backend.mode == BackendMode::Embedded {
            return Some(
                "the running process has an embedded PostgreSQL, which ends with it; stop it and \
                 start the new one"
                    .into(),
            );
        }
        if protocol != PROTOCOL {
            return Some("the running version hands over in another way; stop it first".into());
        }
        if self.shared.health.phase() != Phase::Ready {
            return Some("the running process is ending already".into());
        }
        let count = self.sockets.len();
        (count > MOST_SOCKETS).then(|| {
            format!("{count} listening sockets are more than the {MOST_SOCKETS} that can be given")
        })
    }
}

/// Why nobody takes over.
enum Failed {
    /// The other process is to be told.
    Refused(String),
    /// It is not there any more, or not to be talked with.
    Gone(String),
}

impl Failed {
    fn gone(error: io::Error) -> Self {
        Failed::Gone(error.to_string())
    }
}

impl Heir {
    /// Serves the process that took over, until it ends: cancel requests for clients that are
    /// still here, and how many those are.
    pub(in super::super) async fn attend(self, shared: Arc<Shared>, left: impl Fn() -> u64) {
        let Heir(mut line) = self;
        let places = Arc::new(Semaphore::new(CANCELS));
        let (done, mut finished) = mpsc::channel::<u64>(CANCELS);
        let mut news = tokio::time::interval(NEWS_EVERY);
        loop {
            let answer = tokio::select! {
                _ = news.tick() => Message::Clients { left: left() },
                Some(id) = finished.recv() => Message::Cancelled { id },
                message = line.receive() => match message {
                    Ok(Some(Message::Cancel { id, pid, key })) => {
                        let Ok(place) = places.clone().acquire_owned().await else { return };
                        let (sessions, done) = (shared.sessions.clone(), done.clone());
                        tokio::spawn(async move {
                            sessions.cancel(pid, &key).await;
                            // Given back first: `done` waits for a reader, who may wait for it.
                            drop(place);
                            let _ = done.send(id).await;
                        });
                        continue;
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => {
                        tracing::warn!("the process that took over has ended");
                        return;
                    }
                },
            };
            if line.send(&answer, &[]).await.is_err() {
                return;
            }
        }
    }
}
