//! The server process: start, watch, restart, stop.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

use super::{Plan, StartError};
use crate::backend::{Connector, Credentials};
use crate::telemetry::{Check, EMBEDDED, Health, Metrics};

/// Restarts are counted within this time.
const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// Pauses before a restart.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Time for processes of a dead server to end by themselves, and then by signal.
const ORPHAN_GRACE: Duration = Duration::from_millis(500);

/// A longer line of the server's log becomes several records: clients can write into it.
const LONGEST_LINE: u64 = 2 << 10;

/// Time for one attempt to log in while the server starts.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Lines of the server's log that are kept to explain a failed start.
const LAST_LINES: usize = 12;

/// Why the supervisor ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Stopped,
    /// PostgreSQL died too often.
    GaveUp,
}

/// The running server. Must be made and used on the thread that lives as long as the process:
/// the kernel's word that the parent died is bound to the thread that started the child.
pub struct Supervisor {
    plan: Plan,
    child: Child,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

#[derive(Default)]
struct Log(Mutex<VecDeque<String>>);

impl Supervisor {
    /// Starts the server and returns when it takes connections.
    pub async fn start(
        plan: Plan,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Result<Self, StartError> {
        end_orphans(&plan.cluster).await;
        let log = Arc::new(Log::default());
        let mut child = spawn(&plan, &log)
            .map_err(|e| StartError::backend(format!("cannot start PostgreSQL: {e}")))?;
        wait_ready(&plan, &mut child, &log).await?;
        Ok(Self { plan, child, log, metrics, health })
    }

    /// Watches the server until `stop`, restarting it when it dies.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Exit {
        let mut restarts: VecDeque<Instant> = VecDeque::new();
        loop {
            tokio::select! {
                _ = &mut stop => {
                    self.shut_down().await;
                    return Exit::Stopped;
                }
                status = self.child.wait() => {
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    tracing::error!(%status, "PostgreSQL died");
                }
            }
            self.health.report("database", Check::Failed, "PostgreSQL does not run");
            self.metrics.backends.answers(EMBEDDED, false);
            let now = Instant::now();
            restarts.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
            if restarts.len() >= self.plan.max_restarts as usize {
                tracing::error!(restarts = restarts.len(), "PostgreSQL dies too often");
                return Exit::GaveUp;
            }
            restarts.push_back(now);
            if let Some(exit) = self.heal(&mut stop).await {
                return exit;
            }
        }
    }

    /// Restarts the server, with growing pauses between the attempts, for as long as a start may
    /// take; `None` = it is back.
    async fn heal(&mut self, stop: &mut oneshot::Receiver<()>) -> Option<Exit> {
        let deadline = Instant::now() + self.plan.start_timeout;
        let mut pause = BACK_OFF.0;
        while Instant::now() < deadline {
            tokio::select! {
                _ = &mut *stop => return Some(Exit::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
            let restarted = tokio::select! {
                restarted = self.restart() => restarted,
                _ = &mut *stop => {
                    self.shut_down().await;
                    return Some(Exit::Stopped);
                }
            };
            match restarted {
                Ok(()) => return None,
                Err(error) => tracing::error!(%error, "PostgreSQL does not restart"),
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
        Some(Exit::GaveUp)
    }

    async fn restart(&mut self) -> Result<(), StartError> {
        end_orphans(&self.plan.cluster).await;
        self.child = spawn(&self.plan, &self.log)
            .map_err(|e| StartError::backend(format!("cannot start PostgreSQL: {e}")))?;
        wait_ready(&self.plan, &mut self.child, &self.log).await?;
        self.metrics.backends.restarts.inc();
        self.metrics.backends.answers(EMBEDDED, true);
        self.health.report("database", Check::Ok, "PostgreSQL runs");
        tracing::info!("PostgreSQL is back");
        Ok(())
    }

    /// Fast shutdown: sessions end, transactions roll back, a checkpoint is written.
    async fn shut_down(&mut self) {
        for (signal, limit) in [
            (Signal::SIGINT, self.plan.start_timeout),
            (Signal::SIGQUIT, Duration::from_secs(10)),
            (Signal::SIGKILL, Duration::from_secs(10)),
        ] {
            let Some(pid) = self.child.id() else { return };
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
            if tokio::time::timeout(limit, self.child.wait()).await.is_ok() {
                return;
            }
        }
    }
}

fn spawn(plan: &Plan, log: &Arc<Log>) -> std::io::Result<Child> {
    let mut command = std::process::Command::new(plan.install.bin.join("postgres"));
    command.arg("-D").arg(&plan.cluster);
    for (name, value) in &plan.settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    super::install::run_as(&mut command, plan.user);
    command
        // Ctrl-C in a terminal goes to the whole group; the server stops when we say so.
        .process_group(0)
        .current_dir("/")
        .env("LC_MESSAGES", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    die_with_us(&mut command, Signal::SIGINT);
    let mut child = Command::from(command).spawn()?;
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(read_log(stderr, log.clone()));
    }
    Ok(child)
}

/// Has the kernel send a signal when the thread that starts the command ends, and with it RustyDB.
pub(super) fn die_with_us(command: &mut std::process::Command, signal: Signal) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only these two system calls are made; they allocate nothing.
    // It runs after the change of user, which would clear the setting.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(signal)?;
            match nix::unistd::getppid() == parent {
                true => Ok(()),
                // The parent died before the kernel was told.
                false => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        });
    }
}

async fn read_log(stderr: ChildStderr, log: Arc<Log>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 => log.record(String::from_utf8_lossy(&line).trim_end()),
            _ => return,
        }
    }
}

impl Log {
    fn record(&self, line: &str) {
        match line.split(':').next() {
            // Our own knocking at the start.
            _ if line.ends_with("the database system is starting up") => {}
            Some("PANIC") => tracing::error!(target: "postgres", "{line}"),
            Some("FATAL" | "WARNING") => tracing::info!(target: "postgres", "{line}"),
            _ => tracing::debug!(target: "postgres", "{line}"),
        }
        let mut last = self.0.lock();
        if last.len() >= LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    }
}

async fn wait_ready(plan: &Plan, child: &mut Child, log: &Log) -> Result<(), StartError> {
    let connector = Connector::new(plan.addr());
    let parameters =
        [("user", "postgres"), ("database", "postgres")].map(|(n, v)| (n.into(), v.into()));
    let deadline = Instant::now() + plan.start_timeout;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            // Its last words may still be on their way through the pipe.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Err(failed_start(log, &status.to_string()));
        }
        let attempt = connector.connect(&parameters, &Credentials::Local);
        match tokio::time::timeout(ATTEMPT, attempt).await {
            Ok(Ok(conn)) => {
                conn.close().await;
                return Ok(());
            }
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            // It accepts and says nothing; the loop looks at the process and the clock.
            Err(_) => {}
        }
    }
    Err(failed_start(log, "no answer in time"))
}

fn failed_start(log: &Log, status: &str) -> StartError {
    let lines: Vec<String> = log.0.lock().iter().cloned().collect();
    StartError::backend(format!(
        "PostgreSQL did not start ({status}); it said:\n  {}",
        lines.join("\n  ")
    ))
}

/// Ends every process of an earlier server on this cluster: its postmaster gets a fast shutdown;
/// what a killed postmaster left behind is ended directly, because nothing else will.
async fn end_orphans(cluster: &Path) {
    let pid_file = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    let postmaster: Option<i32> = pid_file.lines().next().and_then(|line| line.parse().ok());
    for (signal, grace) in [
        (Signal::SIGINT, Duration::from_secs(30)),
        (Signal::SIGQUIT, ORPHAN_GRACE),
        (Signal::SIGKILL, ORPHAN_GRACE),
    ] {
        let left = processes_in(cluster);
        if left.is_empty() {
            return;
        }
        tracing::warn!(processes = left.len(), %signal, "ending an orphaned PostgreSQL");
        let has_head = postmaster.is_some_and(|pid| left.contains(&pid));
        // With a living postmaster, it alone is told, and it ends the others.
        let told = left.iter().filter(|pid| !has_head || Some(**pid) == postmaster);
        told.for_each(|pid| {
            // It may have ended in the meantime.
            let _ = kill(Pid::from_raw(*pid), signal);
        });
        let limit = if has_head { grace } else { ORPHAN_GRACE };
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && !processes_in(cluster).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Processes that work in the cluster's directory: PostgreSQL's all do, nobody else does.
fn processes_in(cluster: &Path) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<i32> = processes
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == cluster))
        .filter(|entry| {
            fs::read_link(entry.path().join("exe"))
                // "(deleted)" follows when the package was upgraded meanwhile.
                .is_ok_and(|exe| {
                    let name = exe.file_name().map(|name| name.to_string_lossy().into_owned());
                    name.is_some_and(|n| n == "postgres" || n.starts_with("postgres (deleted"))
                })
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}
